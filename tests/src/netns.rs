//! What the tests of network namespaces and their helper process (`src/bin/netns_role.rs`) share.

use dataplane_netns::{Host, Network};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Bounds every wait for a datagram.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// A UDP socket that lives in `host`.
pub fn socket_in(host: &Host, address: IpAddr) -> io::Result<UdpSocket> {
    let socket = host.run(|| UdpSocket::bind((address, 0))).map_err(io::Error::other)??;
    socket.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
    Ok(socket)
}

/// Sends `len_bytes` from one host to another and back; the bytes must come back as they were.
pub fn ping(from: (&Host, IpAddr), to: (&Host, IpAddr), len_bytes: usize) -> io::Result<()> {
    let near = socket_in(from.0, from.1)?;
    let far = socket_in(to.0, to.1)?;
    let sent: Vec<u8> = (0..len_bytes).map(|at| (at % 251) as u8).collect();
    let mut buffer = vec![0; 65_536];
    near.send_to(&sent, far.local_addr()?)?;
    let (len_bytes, back) = far.recv_from(&mut buffer)?;
    far.send_to(&buffer[..len_bytes], back)?;
    let len_bytes = near.recv(&mut buffer)?;
    if buffer[..len_bytes] != sent {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "what came back is not what was sent",
        ));
    }
    Ok(())
}

/// Every host pings every other, by every family that it has. How many pings that were.
pub fn all_reach_all(network: &Network) -> io::Result<usize> {
    let mut pings_count = 0;
    for from in network.hosts() {
        for to in network.hosts().iter().filter(|to| to.name() != from.name()) {
            let mut pairs = vec![(IpAddr::from(from.ipv4()), IpAddr::from(to.ipv4()))];
            if let (Some(from), Some(to)) = (from.ipv6(), to.ipv6()) {
                pairs.push((from.into(), to.into()));
            }
            for (from_address, to_address) in pairs {
                ping((from, from_address), (to, to_address), 64)
                    .map_err(|error| io::Error::other(format!("{} to {to_address}: {error}", from.name())))?;
                pings_count += 1;
            }
        }
    }
    Ok(pings_count)
}

/// Which network namespace the calling thread stands in.
///
/// # Panics
/// Without /proc.
pub fn namespace_here() -> u64 {
    std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
}

/// The interfaces of the namespace in which the calling thread stands, in alphabetical order.
///
/// # Panics
/// Without /proc.
pub fn interfaces_here() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let named = table.lines().filter_map(|line| line.split_once(':'));
    let mut names: Vec<String> = named.map(|(name, _)| name.trim().to_owned()).collect();
    names.sort();
    names
}
