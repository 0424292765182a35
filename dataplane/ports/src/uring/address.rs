//! Socket addresses as the kernel lays them out (ip(7), ipv6(7)): the family in the host's byte order, port and address
//! in the network's.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::sys::uring::RawAddress;

/// struct sockaddr_in or sockaddr_in6.
pub(super) fn to_raw(address: SocketAddr) -> RawAddress {
    let mut raw = RawAddress::default();
    match address {
        SocketAddr::V4(v4) => {
            raw.bytes[0..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            raw.bytes[2..4].copy_from_slice(&v4.port().to_be_bytes());
            raw.bytes[4..8].copy_from_slice(&v4.ip().octets());
            raw.len_bytes = 16;
        }
        SocketAddr::V6(v6) => {
            raw.bytes[0..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            raw.bytes[2..4].copy_from_slice(&v6.port().to_be_bytes());
            raw.bytes[8..24].copy_from_slice(&v6.ip().octets());
            raw.bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            raw.len_bytes = 28;
        }
    }
    raw
}

/// The inverse of [`to_raw`]; `None` for anything else. An IPv6 flow label is left out: it does not say who it is.
pub(super) fn from_raw(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*name.first_chunk()?);
    let port = u16::from_be_bytes(*name.get(2..)?.first_chunk()?);
    if family == libc::AF_INET as u16 {
        let octets: [u8; 4] = *name.get(4..)?.first_chunk()?;
        return Some(SocketAddrV4::new(Ipv4Addr::from(octets), port).into());
    }
    if family == libc::AF_INET6 as u16 {
        let octets: [u8; 16] = *name.get(8..)?.first_chunk()?;
        let scope_id = u32::from_ne_bytes(*name.get(24..)?.first_chunk()?);
        return Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope_id).into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn raw_addresses_come_back(ip in any::<std::net::IpAddr>(), port in any::<u16>()) {
            let address = SocketAddr::new(ip, port);
            let raw = to_raw(address);
            prop_assert_eq!(from_raw(&raw.bytes[..raw.len_bytes as usize]), Some(address));
        }

        #[test]
        fn any_bytes_are_an_answer(name in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = from_raw(&name);
        }
    }
}
