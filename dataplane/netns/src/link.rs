//! What the kernel says about an interface that is not ours. Reading changes nothing and needs no privilege.

use crate::NetError;
use crate::wire::Wire;

/// A link of the namespace in which the asking thread stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// Ethernet address; all zero where the link has none (loopback) or one of another length.
    pub mac: [u8; 6],
    /// The longest IP packet, Ethernet header not counted.
    pub mtu_bytes: u32,
    /// "veth", "bridge", "vlan": what a virtual link is; `None` for hardware.
    pub kind: Option<String>,
}

/// Asks for `interface`. Unlike /sys, whose interfaces are those of the namespace in which it was mounted, netlink answers
/// for the thread that asks.
///
/// # Errors
/// The kernel does not know it, or could not be asked.
pub fn read_link(interface: &str) -> Result<LinkFacts, NetError> {
    let link = Wire::open_here("this namespace")?.link(interface)?;
    Ok(LinkFacts {
        mac: link.mac.try_into().unwrap_or([0; 6]),
        mtu_bytes: link.mtu_bytes,
        kind: link.kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers_and_a_stranger_is_an_error() {
        let lo = read_link("lo").unwrap();
        assert_eq!(lo.mac, [0; 6]);
        assert!(lo.mtu_bytes >= 1280 && lo.kind.is_none(), "{lo:?}");
        assert!(read_link("no-such-link").is_err());
    }
}
