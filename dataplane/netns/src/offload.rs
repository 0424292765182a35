//! Offloads of an interface: what the kernel leaves to "hardware" that a veth does not have. With checksums on, a packet
//! crosses a veth without ever having one; with segmentation on, one "packet" of 64 kB crosses where a wire carries 45. Both make a
//! pair of namespaces look better than any network, so they are switched off and read back.
//!
//! With checksums off, kernels before 6.11 refuse `UDP_SEGMENT` (EIO), since they leave the segments' checksums to the
//! device; later ones cut the segments in software before the link. A port has to probe for it either way.

use crate::NetError;
use crate::genl::{Attributes, Family, attributes, text_of};
use std::io;

/// What to do about offloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offloads {
    /// Checksums computed and verified, no segmentation, no receive coalescing; an error where that cannot be had.
    #[default]
    Off,
    /// Whatever the kernel does by default, read back and recorded.
    KernelDefault,
}

/// What the kernel said about an interface's offloads when it was asked, after everything was set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OffloadState {
    /// None of the checksum, segmentation and coalescing features is active.
    Off,
    /// These are active, by the kernel's names (`ethtool -k`).
    On {
        /// Names such as `tx-checksum-ip-generic`.
        features: Vec<String>,
    },
    /// Could not be asked.
    Unknown {
        /// The reason, for a person.
        why: String,
    },
}

// Source: include/uapi/linux/ethtool_netlink_generated.h.
const ETHTOOL_VERSION: u8 = 1;
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;

/// Generic receive offload, `ethtool -K … gro`.
pub(crate) const GRO: &str = "rx-gro";

/// Sets and reads offloads of the interfaces of the namespace in which the thread stands.
pub(crate) struct Ethtool {
    family: Family,
}

impl Ethtool {
    /// # Errors
    /// ENOENT: the kernel is older than 5.6 or was built without CONFIG_ETHTOOL_NETLINK.
    pub fn open() -> io::Result<Ethtool> {
        Family::open("ethtool").map(|family| Ethtool { family })
    }

    /// The active ones among the features that this file is about.
    pub fn active(&mut self, interface: &str) -> io::Result<Vec<String>> {
        let answers = self
            .family
            .request(ETHTOOL_MSG_FEATURES_GET, ETHTOOL_VERSION, &header(interface))?;
        let mut active = None;
        for (kind, value) in answers.iter().flat_map(|answer| attributes(answer)) {
            if kind == ETHTOOL_A_FEATURES_ACTIVE {
                active = Some(names_in(value));
            }
        }
        match active {
            Some(names) => Ok(names.into_iter().filter(|name| is_offload(name)).collect()),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the answer has no active features",
            )),
        }
    }

    /// Switches these features of an interface on or off.
    pub fn switch(&mut self, interface: &str, names: &[String], on: bool) -> io::Result<()> {
        let mut request = header(interface);
        request.nested(ETHTOOL_A_FEATURES_WANTED, |bitset| {
            bitset.nested(ETHTOOL_A_BITSET_BITS, |bits| {
                for name in names {
                    bits.nested(ETHTOOL_A_BITSET_BITS_BIT, |bit| {
                        bit.text(ETHTOOL_A_BITSET_BIT_NAME, name);
                        // A bit that is named without it is to be cleared.
                        if on {
                            bit.flag(ETHTOOL_A_BITSET_BIT_VALUE);
                        }
                    });
                }
            });
        });
        self.family
            .request(ETHTOOL_MSG_FEATURES_SET, ETHTOOL_VERSION, &request)
            .map(drop)
    }
}

/// Does to `interface` (of the namespace in which the thread stands) what is wanted, then reads back. `object` names it in errors.
pub(crate) fn apply(wanted: Offloads, interface: &str, object: &str) -> Result<(), NetError> {
    if wanted == Offloads::KernelDefault {
        return Ok(());
    }
    let fail = |error| NetError::kernel("switching off the offloads of", object, error);
    let mut ethtool = Ethtool::open().map_err(fail)?;
    let active = ethtool.active(interface).map_err(fail)?;
    if active.is_empty() {
        return Ok(());
    }
    ethtool.switch(interface, &active, false).map_err(fail)
}

/// Asks for the offloads of an interface of the namespace in which the thread stands. Changes nothing, needs no privilege.
pub fn read_offloads(interface: &str) -> OffloadState {
    match Ethtool::open().and_then(|mut ethtool| ethtool.active(interface)) {
        Ok(features) if features.is_empty() => OffloadState::Off,
        Ok(features) => OffloadState::On { features },
        Err(error) => OffloadState::Unknown {
            why: format!(
                "asking ethtool over netlink failed ({error}); it needs Linux 5.6 with CONFIG_ETHTOOL_NETLINK"
            ),
        },
    }
}

/// Reads back; with [`Offloads::Off`] anything but [`OffloadState::Off`] is an error.
pub(crate) fn verify(wanted: Offloads, interface: &str, object: &str) -> Result<OffloadState, NetError> {
    let state = read_offloads(interface);
    if wanted == Offloads::Off && state != OffloadState::Off {
        return Err(NetError::NotAsAsked {
            setting: "offloads",
            object: object.to_owned(),
            seen: format!("{state:?}"),
            wanted: "all off".to_owned(),
            mend: "ask for Offloads::KernelDefault to measure with them",
        });
    }
    Ok(state)
}

fn header(interface: &str) -> Attributes {
    let mut request = Attributes::default();
    request.nested(ETHTOOL_A_FEATURES_HEADER, |header| {
        header.text(ETHTOOL_A_HEADER_DEV_NAME, interface)
    });
    request
}

/// The names of a bitset that lists its set bits.
fn names_in(bitset: &[u8]) -> Vec<String> {
    let lists = attributes(bitset).filter(|(kind, _)| *kind == ETHTOOL_A_BITSET_BITS);
    let bits = lists
        .flat_map(|(_, list)| attributes(list))
        .filter(|(kind, _)| *kind == ETHTOOL_A_BITSET_BITS_BIT);
    bits.flat_map(|(_, bit)| attributes(bit))
        .filter(|(kind, _)| *kind == ETHTOOL_A_BITSET_BIT_NAME)
        .map(|(_, name)| text_of(name))
        .collect()
}

/// Whether a feature changes what crosses the link. Names: net/ethtool/common.c, `netdev_features_strings`.
fn is_offload(name: &str) -> bool {
    name.starts_with("tx-checksum-")
        || name == "rx-checksum"
        || (name.starts_with("tx-") && name.ends_with("segmentation"))
        || name.starts_with("tx-gso-")
        || name.starts_with("rx-gro")
        || name == "rx-udp-gro-forwarding"
        || name == "rx-lro"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_change_what_crosses_the_link_are_told_from_those_that_do_not() {
        for name in [
            "tx-checksum-ip-generic",
            "rx-checksum",
            "tx-tcp6-segmentation",
            "tx-generic-segmentation",
            "tx-udp-segmentation",
            "rx-gro",
            "rx-gro-list",
        ] {
            assert!(is_offload(name), "{name}");
        }
        for name in [
            "tx-scatter-gather",
            "highdma",
            "tx-lockless",
            "netns-local",
            "rx-vlan-hw-parse",
            "tx-nocache-copy",
            "loopback",
        ] {
            assert!(!is_offload(name), "{name}");
        }
    }

    #[test]
    fn the_loopback_interface_answers() {
        match Ethtool::open() {
            // `lo` never computes a checksum, on any kernel: the feature is fixed.
            Ok(mut ethtool) => {
                let active = ethtool.active("lo").unwrap();
                assert!(active.iter().any(|name| name == "tx-checksum-ip-generic"), "{active:?}");
                let missing = ethtool.active("no-such-interface").unwrap_err();
                assert_eq!(
                    missing.raw_os_error(),
                    Some(nix::errno::Errno::ENODEV as i32),
                    "{missing}"
                );
            }
            Err(error) => println!("not run: no ethtool over netlink here ({error})"),
        }
    }
}
