//! Is there a packet socket with rings on this interface? Asked by opening one.

use std::{io, net::Ipv4Addr};

use dataplane_waist::{ProbeError, Support};

use super::{Mac, OpenError, PacketOptions, PacketPort, PacketWait};

/// Opens a port with the smallest rings on `interface` and closes it again. Nothing is sent.
///
/// # Errors
/// Without CAP_NET_RAW the kernel does not let us ask.
pub fn probe(interface: &str) -> Result<Support, ProbeError> {
    let options = PacketOptions {
        frame_bytes_max: 64,
        ring_frames: 4,
        learn_peers_max: 0,
        ..PacketOptions::new(
            interface,
            (Ipv4Addr::LOCALHOST, 0).into(),
            Mac::default(),
            PacketWait::Spin,
        )
    };
    match PacketPort::open(&options) {
        Ok(_) => Ok(Support::Native),
        Err(error) => sort(error),
    }
}

/// Sorts an error into "not here" and "could not ask".
fn sort(error: OpenError) -> Result<Support, ProbeError> {
    let (asked, cause) = match error {
        OpenError::Options(why) => {
            return Err(ProbeError {
                asked: "opening a packet port".to_owned(),
                error: io::Error::new(io::ErrorKind::InvalidInput, why),
                mend: "this is a mistake in the probe".to_owned(),
            });
        }
        OpenError::NoInterface { interface, .. } => {
            return Ok(Support::Absent {
                why: format!("there is no interface {interface} in this network namespace; `ip link` lists them"),
            });
        }
        OpenError::Failed { asked, error } => (asked, error),
    };
    match cause.raw_os_error() {
        Some(libc::EAFNOSUPPORT | libc::ENOPROTOOPT | libc::EINVAL | libc::EOPNOTSUPP) => Ok(Support::Absent {
            why: format!("this kernel refuses {asked} ({cause}): it has no packet rings of version 2 (CONFIG_PACKET)"),
        }),
        Some(libc::EPERM | libc::EACCES) => Err(ProbeError {
            asked: asked.to_owned(),
            error: cause,
            mend: "needs CAP_NET_RAW: run as root, or let dplab make a user namespace".to_owned(),
        }),
        _ => Err(ProbeError {
            asked: asked.to_owned(),
            error: cause,
            mend: "this errno was not expected; see packet(7)".to_owned(),
        }),
    }
}
