//! How verbs write addresses and times.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// The unit of the local ACK timeout's code (IBA §9.7.6.1.3).
const TIMEOUT_UNIT: Duration = Duration::from_nanos(4_096);

/// Its largest code: 2 h 26 min.
const TIMEOUT_CODE_MAX: u8 = 31;

/// A RoCE GID: an IPv6 address, or an IPv4 address mapped into one (IBA annex A17).
pub(super) fn gid_of(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The address behind a GID; `None`: an empty place of the table.
pub(super) fn ip_of(gid: [u8; 16]) -> Option<IpAddr> {
    let ip = Ipv6Addr::from(gid);
    match ip.is_unspecified() {
        true => None,
        false => Some(ip.to_canonical()),
    }
}

/// The shortest local ACK timeout that is not shorter than this: its code means 4.096 µs · 2^code. 0, which would be "never", is
/// not given.
pub(super) fn timeout_code(timeout: Duration) -> u8 {
    (1..TIMEOUT_CODE_MAX)
        .find(|code| TIMEOUT_UNIT * (1 << code) >= timeout)
        .unwrap_or(TIMEOUT_CODE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_rounded_up() {
        assert_eq!(timeout_code(Duration::ZERO), 1);
        assert_eq!(timeout_code(TIMEOUT_UNIT * 2), 1);
        assert_eq!(timeout_code(TIMEOUT_UNIT * 2 + Duration::from_nanos(1)), 2);
        assert_eq!(timeout_code(TIMEOUT_UNIT * (1 << 14)), 14);
        assert_eq!(timeout_code(Duration::from_secs(10_000)), 31);
    }

    #[test]
    fn a_gid_leads_back_to_its_address() {
        for ip in ["192.168.77.1", "fd00::7"] {
            let ip: IpAddr = ip.parse().expect("an address");
            assert_eq!(ip_of(gid_of(ip)), Some(ip));
        }
        assert_eq!(gid_of([10, 0, 0, 1].into())[10..], [0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(ip_of([0; 16]), None);
    }
}
