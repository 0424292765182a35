//! Two ports over loopback addresses, for lessons 3 and 4, and what they cost in system calls.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use dataplane_ports::{
    udp::{Batching, UdpOptions, UdpPort, WaitHow},
    uring::{self, UringOptions, UringPort, UringVariant},
};
use dataplane_waist::{Peer, Port, Support, TxError};

/// How long anything in a lesson may take before it counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A UDP client connected to its server, both on 127.0.0.1.
///
/// # Panics
/// If this host has no loopback interface.
pub fn udp_pair(wait: WaitHow, batch: Batching) -> (UdpPort, UdpPort) {
    let server = UdpPort::open(&UdpOptions {
        learn_peers_max: 1,
        wait,
        batch,
        ..UdpOptions::default()
    })
    .expect("a socket on 127.0.0.1");
    let client = UdpPort::open(&UdpOptions {
        peers: vec![server.local_addr()],
        connect: true,
        wait,
        batch,
        ..UdpOptions::default()
    })
    .expect("a socket on 127.0.0.1");
    (client, server)
}

/// A blocking UDP client of a server that has its own port.
///
/// # Panics
/// If this host has no loopback interface.
pub fn udp_client(server: SocketAddr) -> UdpPort {
    UdpPort::open(&UdpOptions {
        peers: vec![server],
        connect: true,
        ..UdpOptions::default()
    })
    .expect("a socket on 127.0.0.1")
}

/// A pair through io_uring. `None`, with the reason printed, where this kernel or container does not allow it.
///
/// # Panics
/// If the probe said yes and opening failed all the same.
pub fn uring_pair(variant: UringVariant) -> Option<(UringPort, UringPort)> {
    match uring::probe(&variant) {
        Ok(Support::Native) => {}
        Ok(other) => {
            println!("skipped: {} is {other:?}", variant.name());
            return None;
        }
        Err(error) => {
            println!("skipped: {}: {error}", variant.name());
            return None;
        }
    }
    let anywhere = UdpOptions::default().local;
    let server = UringPort::open(&UringOptions {
        learn_peers_max: 1,
        ..UringOptions::new(anywhere, variant)
    })
    .expect("the variant was probed");
    let client = UringPort::open(&UringOptions {
        peers: vec![server.local_addr()],
        learn_peers_max: 0,
        ..UringOptions::new(anywhere, variant)
    })
    .expect("the variant was probed");
    Some((client, server))
}

/// Queues one frame of `len_bytes` for the only peer; flushes first if there is no room.
///
/// # Panics
/// If there is no room after a flush either.
pub fn queue(port: &mut dyn Port, len_bytes: usize) {
    let mut fill = |bytes: &mut [u8]| bytes.fill(7);
    if port.tx(Peer(0), len_bytes, &mut fill) == Err(TxError::Full) {
        port.flush().expect("the port works");
        port.tx(Peer(0), len_bytes, &mut fill).expect("room after a flush");
    }
}

/// Receives exactly `frames_count` frames; their lengths, in order.
///
/// # Panics
/// If they do not come within [`PATIENCE`].
pub fn receive(port: &mut dyn Port, frames_count: usize) -> Vec<usize> {
    let since = Instant::now();
    let mut lengths = Vec::new();
    while lengths.len() < frames_count {
        assert!(
            since.elapsed() < PATIENCE,
            "{} of {frames_count} frames came: {:?}",
            lengths.len(),
            port.stats()
        );
        port.wait(Duration::from_millis(20)).expect("the port works");
        port.rx_burst(&mut |frame| lengths.push(frame.bytes.len()))
            .expect("the port works");
    }
    lengths
}

/// System calls that `work` made on `port`.
pub fn syscalls_count<P: Port>(port: &mut P, work: impl FnOnce(&mut P)) -> u64 {
    let before = port.stats().syscalls_count;
    work(port);
    port.stats().syscalls_count - before
}
