//! Addresses of loopback for endpoints, each of which has its port 4791.

use std::net::IpAddr;

/// Addresses of 127/8 that no other process of these tests uses; `first_host` keeps those of one process apart.
pub fn loopback<const N: usize>(first_host: u8) -> [IpAddr; N] {
    let pid = std::process::id();
    std::array::from_fn(|host| [127, 128 | (pid >> 8 & 63) as u8, pid as u8, first_host + host as u8].into())
}
