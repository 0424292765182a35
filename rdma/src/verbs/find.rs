//! Which device, and which of its addresses: libibverbs lists the devices, sysfs says what each is.

use std::{fmt, fs, io, net::IpAddr, path::Path, sync::Arc};

use dataplane_waist::{ProbeError, Support};
use rdma_sys::LoadError;

use super::{PORT, number};
use crate::sys::verbs::{Device, ListError, device_names};

/// The provider's name.
pub const PROBE_NAME: &str = "verbs";

/// Where the kernel tells of RDMA devices (Documentation/ABI/stable/sysfs-class-infiniband).
const SYSFS: &str = "/sys/class/infiniband";

/// GIDs of a port that are looked at: an index of verbs has 8 bits.
const GIDS_COUNT_MAX: u8 = u8::MAX;

/// Which device to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerbsOptions {
    /// Its name, as `rdma link` tells it; `None`: the first that will do.
    pub device: Option<String>,
    /// One of its port's addresses; `None`: its first one for RoCEv2, IPv4 before IPv6.
    pub local: Option<IpAddr>,
}

/// Why there is no device.
#[derive(Debug)]
pub enum VerbsError {
    /// No libibverbs.
    Library(LoadError),
    /// The kernel has no RDMA.
    Kernel,
    /// No device at all.
    NoDevice,
    /// None of this name.
    NotThere {
        /// The name.
        asked: String,
        /// The names that there are.
        there: Vec<String>,
    },
    /// Devices, but none that will do; a sentence for each.
    Unfit {
        /// Why not.
        why: Vec<String>,
    },
    /// The system said no.
    System {
        /// What was tried.
        asked: &'static str,
        /// What came back.
        error: io::Error,
    },
}

impl fmt::Display for VerbsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VerbsError::Library(error) => write!(f, "no libibverbs: {error}"),
            VerbsError::Kernel => {
                f.write_str("the kernel offers no RDMA to programs (CONFIG_INFINIBAND_USER_ACCESS, modprobe ib_uverbs)")
            }
            VerbsError::NoDevice => f.write_str(
                "there is no RDMA device; one in software: modprobe rdma_rxe && rdma link add rxe0 type rxe netdev eth0",
            ),
            VerbsError::NotThere { asked, there } => {
                write!(f, "there is no RDMA device {asked}, but {}", there.join(", "))
            }
            VerbsError::Unfit { why } => f.write_str(&why.join("; ")),
            VerbsError::System { asked, error } => write!(f, "{asked} failed: {error}"),
        }
    }
}

impl std::error::Error for VerbsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            VerbsError::Library(error) => Some(error),
            VerbsError::System { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<ListError> for VerbsError {
    fn from(error: ListError) -> VerbsError {
        match error {
            ListError::Library(error) => VerbsError::Library(error),
            ListError::System(error) if error.raw_os_error() == Some(libc::ENOSYS) => VerbsError::Kernel,
            ListError::System(error) => VerbsError::System {
                asked: "opening the RDMA device",
                error,
            },
        }
    }
}

/// A device that will do.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) device: Arc<Device>,
    pub(super) local: IpAddr,
    pub(super) gid_index: u8,
}

/// Opens the first device that fits `options`.
pub(super) fn find(options: &VerbsOptions) -> Result<Found, VerbsError> {
    let there = device_names()?;
    if there.is_empty() {
        return Err(VerbsError::NoDevice);
    }
    let asked: Vec<&String> = there
        .iter()
        .filter(|name| options.device.as_ref().is_none_or(|asked| asked == *name))
        .collect();
    if let (Some(asked), []) = (&options.device, &asked[..]) {
        let asked = asked.clone();
        return Err(VerbsError::NotThere { asked, there });
    }
    let mut why = Vec::new();
    for name in asked {
        match fit(name, options.local)? {
            Ok(found) => return Ok(found),
            Err(sentence) => why.push(sentence),
        }
    }
    Err(VerbsError::Unfit { why })
}

/// Opens one device, or says why it will not do.
fn fit(name: &str, local: Option<IpAddr>) -> Result<Result<Found, String>, VerbsError> {
    let port = Path::new(SYSFS).join(name).join("ports").join(PORT.to_string());
    let link = said(&port.join("link_layer"));
    if link != "Ethernet" {
        return Ok(Err(format!(
            "{name}'s link layer is {link:?}: RoCEv2, which is all that is spoken here, needs Ethernet"
        )));
    }
    let state = said(&port.join("state"));
    if !state.ends_with("ACTIVE") {
        return Ok(Err(format!(
            "{name}'s port is not active ({state:?}): bring its interface up (ip link set … up)"
        )));
    }
    let Some(device) = Device::open(name)? else {
        return Ok(Err(format!("{name} went away")));
    };
    let is_v2 = |index: u8| said(&port.join("gid_attrs/types").join(index.to_string())) == "RoCE v2";
    let addresses: Vec<(u8, IpAddr)> = (0..GIDS_COUNT_MAX)
        .take_while(|index| port.join("gids").join(index.to_string()).exists())
        .filter(|&index| is_v2(index))
        .filter_map(|index| Some((index, number::ip_of(device.gid(PORT, index).ok()?)?)))
        .collect();
    let wanted = |(_, ip): &&(u8, IpAddr)| local.is_none_or(|local| local == *ip);
    let best = addresses.iter().filter(wanted).min_by_key(|(_, ip)| ip.is_ipv6());
    let Some(&(gid_index, ip)) = best else {
        let all: Vec<String> = addresses.iter().map(|(_, ip)| ip.to_string()).collect();
        return Ok(Err(match local {
            Some(local) => format!("{name} has no RoCEv2 address {local}, but [{}]", all.join(", ")),
            None => format!("{name} has no RoCEv2 address: give its interface one (ip address add …)"),
        }));
    };
    Ok(Ok(Found {
        name: name.to_owned(),
        device,
        local: ip,
        gid_index,
    }))
}

/// One line of sysfs; empty where there is none.
fn said(path: &Path) -> String {
    fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// What stands in for a NIC, if something does: software devices hang below no bus.
fn software(name: &str) -> Option<&'static str> {
    let device = Path::new(SYSFS).join(name);
    let place = fs::canonicalize(&device).ok()?;
    if !place.starts_with("/sys/devices/virtual") {
        return None;
    }
    // rdma_rxe alone says over which interface it works (drivers/infiniband/sw/rxe/rxe_verbs.c, `parent_show`).
    Some(match device.join("parent").exists() {
        true => "rdma_rxe, the kernel's RoCEv2 in software",
        false => "a driver in software",
    })
}

/// Is there a device that [`super::VerbsDevice::open`] would take? A NIC, if there is one.
///
/// # Errors
/// [`ProbeError`] when devices are there and cannot be asked.
pub fn probe() -> Result<Support, ProbeError> {
    let names = match device_names().map_err(VerbsError::from) {
        Ok(names) if names.is_empty() => return absent(&VerbsError::NoDevice),
        Ok(names) => names,
        Err(error @ (VerbsError::Library(_) | VerbsError::Kernel)) => return absent(&error),
        Err(error) => return Err(could_not(error)),
    };
    let mut emulated = None;
    let mut why = Vec::new();
    for name in names {
        match fit(&name, None).map_err(could_not)? {
            Ok(found) => match software(&found.name) {
                None => return Ok(Support::Native),
                Some(by) => emulated = emulated.or(Some(format!("{} at {} ({by})", found.name, found.local))),
            },
            Err(sentence) => why.push(sentence),
        }
    }
    match emulated {
        Some(by) => Ok(Support::Emulated { by }),
        None => absent(&VerbsError::Unfit { why }),
    }
}

fn absent(error: &VerbsError) -> Result<Support, ProbeError> {
    Ok(Support::Absent { why: error.to_string() })
}

fn could_not(error: VerbsError) -> ProbeError {
    let (asked, error) = match error {
        VerbsError::System { asked, error } => (asked.to_owned(), error),
        other => (
            "asking for RDMA devices".to_owned(),
            io::Error::other(other.to_string()),
        ),
    };
    ProbeError {
        asked,
        error,
        mend: "read and write permission for /dev/infiniband/uverbs* lets it be asked".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_says_what_to_do() {
        let library = LoadError::Symbol {
            name: "ibv_reg_mr_iova",
        };
        for (error, told) in [
            (VerbsError::Library(library), "rdma-core 26 or newer"),
            (
                ListError::System(io::Error::from_raw_os_error(libc::ENOSYS)).into(),
                "ib_uverbs",
            ),
            (VerbsError::NoDevice, "rdma link add"),
            (
                ListError::System(io::Error::from_raw_os_error(libc::EACCES)).into(),
                "opening the RDMA device failed",
            ),
        ] {
            let said = error.to_string();
            assert!(said.contains(told), "{said}");
        }
        let not_there = VerbsError::NotThere {
            asked: "mlx5_7".into(),
            there: vec!["rxe0".into(), "rxe1".into()],
        };
        assert_eq!(not_there.to_string(), "there is no RDMA device mlx5_7, but rxe0, rxe1");
    }

    #[test]
    fn the_machine_gives_an_answer() {
        match probe() {
            Ok(Support::Absent { why }) => assert!(!why.is_empty()),
            Ok(Support::Emulated { by }) => assert!(by.contains(" at "), "{by}"),
            Ok(Support::Native) => {}
            Err(error) => assert!(error.to_string().contains("/dev/infiniband"), "{error}"),
        }
    }
}
