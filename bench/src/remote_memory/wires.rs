//! Devices of both providers, in one process, and connections between them.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

use dataplane_waist::middleware::ClusterKey;
use rdma::{
    Provider, RdmaWindow,
    handshake::Role,
    roce::{self, ReceiveHow, RoceDevice, RoceOptions},
    shm::{self, ShmDevice, ShmLink, Side},
};

/// A provider of RDMA in software.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wires {
    /// Packets in memory that both ends share.
    Shm,
    /// RoCEv2 over UDP sockets, on this machine's loopback.
    Roce,
}

impl Wires {
    /// Both.
    pub const ALL: [Wires; 2] = [Wires::Shm, Wires::Roce];

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Wires::Shm => "rdma-shm",
            Wires::Roce => "rdma-roce",
        }
    }
}

/// Devices that share memory, each with each.
///
/// # Errors
/// The kernel gave no memory.
pub fn open_shm(count: u16) -> anyhow::Result<Vec<ShmDevice>> {
    let mut devices = (0..count).map(shm::open).collect::<Result<Vec<_>, _>>()?;
    for low in 0..count {
        for high in low + 1..count {
            let link = ShmLink::create()?;
            devices[usize::from(low)].wire_mut().attach(high, &link, Side::A);
            devices[usize::from(high)].wire_mut().attach(low, &link, Side::B);
        }
    }
    Ok(devices)
}

/// Devices on addresses of loopback that are this process's: two runs at once do not meet. `plane` is below 16.
///
/// # Errors
/// The port is taken there.
pub fn open_roce(plane: u8, count: u16) -> anyhow::Result<Vec<RoceDevice>> {
    let pid = std::process::id();
    (1..=count)
        .map(|node| {
            let host = plane << 4 | node as u8;
            let local = Ipv4Addr::new(127, 64 | (pid >> 8 & 63) as u8, pid as u8, host);
            Ok(roce::open(&RoceOptions {
                // Nobody else is spoken to.
                receive: ReceiveHow::Datagram,
                ..RoceOptions::new(local.into())
            })?)
        })
        .collect()
}

/// Connects two windows: each becomes the other's next peer.
///
/// # Errors
/// The handshake failed.
pub(super) fn connect<P: Provider + Send>(a: &mut RdmaWindow<P>, b: &mut RdmaWindow<P>) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    let key = ClusterKey::new(b"one process, one cluster")?;
    let join = |window: &mut RdmaWindow<P>, stream: &TcpStream, role| {
        let prepared = window.prepare()?;
        let connected = prepared.establish(window.provider_mut(), (stream, role, &key))?;
        window.join(connected);
        anyhow::Ok(())
    };
    thread::scope(|scope| {
        let joining = scope.spawn(|| join(a, &client, Role::Client));
        join(b, &server, Role::Server)?;
        joining.join().expect("a handshake does not panic")
    })
}
