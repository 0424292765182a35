//! RoCEv2 over the kernel's UDP: packets that a NIC or rdma_rxe understands, from user space.
//!
//! What the ICRC covers decides how the sockets are made:
//!
//! - **Sending**: a UDP socket per queue pair, so that each has its source port; not connected and with "don't fragment", for
//!   then the kernel sends IPv4's identification as 0, which the ICRC must know.
//! - **Receiving over IPv4**: a raw socket ([`ReceiveHow::Raw`]), because only that shows the identification that the sender
//!   chose (rdma_rxe counts it up); and a UDP socket that holds the port and receives nothing, or the kernel would answer every
//!   packet with ICMP "port unreachable". Without CAP_NET_RAW a UDP socket ([`ReceiveHow::Datagram`]), which believes that
//!   the identification is 0: true of this crate's own endpoints, and wrong packets are still found.
//! - **Receiving over IPv6**: a UDP socket. IPv6 has no identification, and the rest is known.

pub mod frame;
mod sockets;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

use dataplane_waist::{MonotonicClock, ProbeError, Support};
use dataplane_wire::Reject;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use self::sockets::Receiver;
use crate::{
    device::{Device, Wire},
    endpoint::Transmit,
    random::system_randomness,
    wire::{Envelope, ICRC_BYTES, Packet, QpNumber, SOURCE_PORT_MIN, UDP_PORT, parse},
};

/// How packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveHow {
    /// Raw where it is needed and allowed, otherwise Datagram. [`RoceWire::receive_how`] says which it became.
    Best,
    /// By a raw socket: any peer. IPv4 alone; needs CAP_NET_RAW.
    Raw,
    /// By a UDP socket: over IPv4 only peers of this crate. Neither end knows the identification of the other's packets, and the ICRC is
    /// that of 0, which a NIC or rdma_rxe does not take.
    Datagram,
}

/// What to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoceOptions {
    /// This end's address: one of an interface, not "any", because the ICRC covers it.
    pub local: IpAddr,
    /// How packets come in.
    pub receive: ReceiveHow,
    /// SO_RCVBUF: what comes while nobody looks. A window of 128 packets of 4 KiB takes 1 MiB with the kernel's bookkeeping.
    pub recv_buffer_bytes: usize,
}

impl RoceOptions {
    /// At `local`, by the best way, with room for a few windows.
    pub fn new(local: IpAddr) -> RoceOptions {
        RoceOptions {
            local,
            receive: ReceiveHow::Best,
            recv_buffer_bytes: 4 << 20,
        }
    }
}

/// Why there is no endpoint.
#[derive(Debug)]
pub struct OpenError {
    /// What was tried.
    pub asked: &'static str,
    /// Where.
    pub local: IpAddr,
    /// What came back.
    pub error: io::Error,
    /// What to try.
    pub mend: &'static str,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpenError {
            asked,
            local,
            error,
            mend,
        } = self;
        write!(f, "{asked} at {local} failed ({error}); {mend}")
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// What came and went no further, and what did not leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoceCounters {
    /// Packets whose ICRC is not theirs.
    pub icrc_count: u64,
    /// Malformed packets, by [`Reject::index`]: of their IP and UDP headers, and of their own.
    pub rejected_counts: [u64; Reject::ALL.len()],
    /// Packets that the system had no room for.
    pub tx_lost_count: u64,
    /// System calls.
    pub syscalls_count: u64,
}

/// A queue pair's socket, and its end of the envelope.
#[derive(Debug)]
struct Sender {
    qp: QpNumber,
    socket: UdpSocket,
    /// Nothing: it is connected.
    to: Option<SocketAddr>,
    envelope: Envelope,
}

/// UDP sockets as a [`Wire`].
#[derive(Debug)]
pub struct RoceWire {
    local: IpAddr,
    receiver: Receiver,
    senders: Vec<Sender>,
    clock: MonotonicClock,
    counters: RoceCounters,
}

/// The provider.
pub type RoceDevice = Device<RoceWire>;

/// Opens an endpoint.
///
/// # Errors
/// [`OpenError`]: the address is not this host's, the port is taken, a privilege is missing.
pub fn open(options: &RoceOptions) -> Result<RoceDevice, OpenError> {
    let wire = RoceWire::open(options)?;
    let random = system_randomness().map_err(|error| OpenError {
        asked: "asking the system for randomness",
        local: options.local,
        error,
        mend: "a kernel since 3.17 has getrandom(2)",
    })?;
    Ok(Device::new(wire, random))
}

/// Opens an endpoint at `local` and closes it.
///
/// # Errors
/// A reason other than that the port is taken.
pub fn probe(local: IpAddr) -> Result<Support, ProbeError> {
    match RoceWire::open(&RoceOptions::new(local)) {
        Ok(wire) => Ok(Support::Emulated {
            by: match wire.receive_how() {
                ReceiveHow::Datagram if local.is_ipv4() => {
                    "RoCEv2 in user space over UDP sockets; without CAP_NET_RAW it understands its own kind alone"
                        .into()
                }
                _ => "RoCEv2 in user space over UDP sockets".into(),
            },
        }),
        Err(error) if error.error.kind() == io::ErrorKind::AddrInUse => Ok(Support::Absent { why: error.to_string() }),
        Err(error) => Err(ProbeError {
            asked: format!("{} at {local}", error.asked),
            error: error.error,
            mend: error.mend.into(),
        }),
    }
}

impl RoceWire {
    /// Opens the sockets.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(options: &RoceOptions) -> Result<RoceWire, OpenError> {
        Ok(RoceWire {
            local: options.local,
            receiver: Receiver::open(options)?,
            senders: Vec::new(),
            clock: MonotonicClock::new(),
            counters: RoceCounters::default(),
        })
    }

    /// Which way packets come in: never `Best`.
    pub fn receive_how(&self) -> ReceiveHow {
        self.receiver.how()
    }

    /// Counters since it was opened.
    pub fn counters(&self) -> &RoceCounters {
        &self.counters
    }

    /// The source port of a queue pair's packets, once it has a peer.
    pub fn source_port(&self, qp: QpNumber) -> Option<u16> {
        let sender = self.senders.iter().find(|sender| sender.qp == qp)?;
        Some(sender.envelope.src_port)
    }
}

/// A queue pair's source port, or where a free one is looked for first: the same number, the same path through the network.
pub fn source_port(qp: QpNumber) -> u16 {
    // Fibonacci hashing (Knuth, TAOCP 3, §6.4).
    let hash = qp.get().wrapping_mul(0x9e37_79b9) >> 16;
    SOURCE_PORT_MIN | hash as u16
}

/// Whether the ICRC is that of the packet as it came, or of one whose identification its sender did not know and took for 0: an endpoint
/// that hears by [`ReceiveHow::Datagram`] is such a sender.
fn is_intact(envelope: &Envelope, datagram: &[u8]) -> bool {
    envelope.is_intact(datagram)
        || envelope.identification != 0
            && Envelope {
                identification: 0,
                ..*envelope
            }
            .is_intact(datagram)
}

impl Wire for RoceWire {
    type Clock = MonotonicClock;

    fn name(&self) -> &'static str {
        "roce"
    }

    fn local(&self) -> IpAddr {
        self.local
    }

    fn clock(&self) -> MonotonicClock {
        self.clock
    }

    fn connect(&mut self, qp: QpNumber, to: IpAddr) -> io::Result<()> {
        self.disconnect(qp);
        let (socket, src_port) = sockets::sender(self.local, source_port(qp))?;
        let to = SocketAddr::new(to, UDP_PORT);
        // The kernel looks for the way of a connected socket once, and not for every packet; but then it counts IPv4's identifications
        // (`ip_select_ident_segs`, include/net/ip.h), which the ICRC covers. Who hears no identification does not ask for it either.
        let is_connected = to.is_ipv6() || self.receiver.how() == ReceiveHow::Datagram;
        if is_connected {
            socket.connect(to)?;
        }
        let addresses = frame::addresses(self.local, to.ip()).ok_or_else(|| {
            let why = format!("{} and this end's {} are not of one family", to.ip(), self.local);
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })?;
        self.senders.push(Sender {
            qp,
            socket,
            to: (!is_connected).then_some(to),
            envelope: Envelope {
                addresses,
                identification: 0,
                dont_fragment: true,
                src_port,
                dst_port: UDP_PORT,
            },
        });
        Ok(())
    }

    fn disconnect(&mut self, qp: QpNumber) {
        self.senders.retain(|sender| sender.qp != qp);
    }

    fn receive(&mut self, packets_max: usize, sink: &mut dyn FnMut(IpAddr, &Packet<'_>)) -> io::Result<usize> {
        for count in 0..packets_max {
            self.counters.syscalls_count += 1;
            let received = match self.receiver.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            let (envelope, datagram) = match received {
                Ok(received) => received,
                Err(reject) => {
                    self.counters.rejected_counts[reject.index()] += 1;
                    continue;
                }
            };
            match parse(datagram) {
                Ok(packet) if is_intact(&envelope, datagram) => sink(envelope.addresses.src(), &packet),
                Ok(_) => self.counters.icrc_count += 1,
                Err(reject) => self.counters.rejected_counts[reject.index()] += 1,
            }
        }
        Ok(packets_max)
    }

    fn send(&mut self, transmit: &Transmit, packet: &mut [u8]) -> io::Result<()> {
        let Some(sender) = self.senders.iter().find(|sender| sender.qp == transmit.qp) else {
            return Ok(());
        };
        let len = transmit.len_bytes;
        let icrc = sender.envelope.icrc(&packet[..len]);
        packet[len..len + ICRC_BYTES].copy_from_slice(&icrc);
        self.counters.syscalls_count += 1;
        let packet = &packet[..len + ICRC_BYTES];
        let sent = match sender.to {
            Some(to) => sender.socket.send_to(packet, to),
            None => sender.socket.send(packet),
        };
        match sent {
            Ok(_) => Ok(()),
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                // No room, or nobody there at the moment: as if the network had lost it.
                Errno::EAGAIN
                | Errno::ENOBUFS
                | Errno::EINTR
                | Errno::ECONNREFUSED
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::ENETDOWN => {
                    self.counters.tx_lost_count += 1;
                    Ok(())
                }
                Errno::EMSGSIZE => {
                    let why = format!(
                        "a packet of {len} bytes does not fit the interface's MTU: choose a smaller path MTU, or a larger one \
                         of the interface (headers take up to 100 bytes more than the path MTU)"
                    );
                    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
                }
                _ => Err(error),
            },
        }
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.counters.syscalls_count += 1;
        let mut set = [PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut set, Some(TimeSpec::from_duration(max)), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
