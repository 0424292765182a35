//! Every back end, and the one place where ports, addresses and names meet. The ladder of an experiment is a slice of
//! [`BACKENDS`], in the order of the documentation: from no network at all to the kernel's fastest path.

pub mod xdp;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use dataplane_ports::{
    af_packet::{self, Mac, PacketOptions, PacketPeer, PacketPort, PacketWait},
    shm::{ShmPort, ShmRegion, Side},
    udp::{self, Batching, UdpCloser, UdpOptions, UdpPort, WaitHow},
    uring::{self, UringOptions, UringPort, UringVariant, UringWait},
    xdp::{self as af_xdp, BusyPoll, XdpCopy, XdpWait},
};
use dataplane_waist::{Port, ProbeError, Support};
use ebpf_host::{Attachment, Mode, Program};
use serde::{Deserialize, Serialize};

use crate::place::{End, Endpoint};

/// One way of moving frames, as users name it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackEnd {
    /// Short, kebab-case, unique.
    pub name: &'static str,
    /// What moves the frames and how it waits, in one sentence.
    pub summary: &'static str,
    /// How it is opened.
    pub kind: Kind,
}

/// The mechanism behind a name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Two threads of one process and a ring.
    Loopback,
    /// Two processes and a shared ring.
    Shm,
    /// A UDP socket through system calls.
    Udp(WaitHow, Batching),
    /// A UDP socket through io_uring.
    Uring(UringWait, ZeroCopy),
    /// A memory-mapped packet socket under our own UDP.
    Packet(PacketWait),
    /// An AF_XDP socket under our own UDP, to which a program hands our frames.
    AfXdp(XdpWait, Mode, XdpCopy),
    /// The server is a program in the driver, or in the stack's first step; the client is the back end of that name.
    XdpEcho(Mode, &'static str),
    /// A program that takes our frames, counts them and drops them: one of [`SINKS`].
    XdpDrop(Mode, Napi),
}

/// Where an interface's receive work is done, in which a native program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Napi {
    /// In a softirq: over veth, of whoever sends.
    Softirq,
    /// In a kernel thread of its own, on the sink's CPU.
    Thread,
    /// In a kernel thread of its own, on the sender's CPU: the two take turns.
    ThreadAtSender,
}

/// Does io_uring send with SEND_ZC?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Yes.
    On,
    /// No.
    Off,
}

/// How long SO_BUSY_POLL and io_uring's NAPI poll look before they sleep: the value that the kernel's own
/// documentation recommends for a start (Documentation/networking/napi.rst names 50 µs as the sysctl's example).
const BUSY_POLL_MICROSECONDS: u32 = 50;

/// How many frames a driver may take in per poll: what napi.rst's own example has.
const BUSY_POLL_BUDGET_FRAMES: u32 = 64;

/// All back ends. The order matters: it is the order of lists, tables and ladders.
pub const BACKENDS: &[BackEnd] = &[
    BackEnd {
        name: "loopback",
        summary: "a ring between two threads of one process; no kernel at all: the floor of everything else",
        kind: Kind::Loopback,
    },
    BackEnd {
        name: "shm",
        summary: "a ring in memory shared by two processes; both spin",
        kind: Kind::Shm,
    },
    BackEnd {
        name: "udp-blocking",
        summary: "UDP sockets, blocking recv and send, one system call a message: what most programs do",
        kind: Kind::Udp(WaitHow::Blocking, Batching::Single),
    },
    BackEnd {
        name: "udp-poll",
        summary: "UDP sockets, ppoll(2) before each receive",
        kind: Kind::Udp(WaitHow::Poll, Batching::Single),
    },
    BackEnd {
        name: "udp-epoll",
        summary: "UDP sockets, epoll and recvmmsg/sendmmsg in batches of up to 32",
        kind: Kind::Udp(WaitHow::Epoll, Batching::Multi),
    },
    BackEnd {
        name: "udp-busy-poll",
        summary: "UDP sockets that poll the device inside the system call before they sleep (SO_BUSY_POLL)",
        kind: Kind::Udp(
            WaitHow::BusyPoll {
                microseconds: BUSY_POLL_MICROSECONDS,
            },
            Batching::Single,
        ),
    },
    BackEnd {
        name: "udp-spin",
        summary: "UDP sockets, non-blocking receive in a loop: never sleeps",
        kind: Kind::Udp(WaitHow::Spin, Batching::Single),
    },
    BackEnd {
        name: "udp-mmsg",
        summary: "UDP sockets, recvmmsg/sendmmsg in a loop: never sleeps",
        kind: Kind::Udp(WaitHow::Spin, Batching::Multi),
    },
    BackEnd {
        name: "udp-gso",
        summary: "UDP sockets with segmentation and receive offload (UDP_SEGMENT, UDP_GRO), in a loop",
        kind: Kind::Udp(WaitHow::Spin, Batching::Gso),
    },
    BackEnd {
        name: "uring",
        summary: "io_uring: multishot receive into a buffer ring, sleeping in io_uring_enter",
        kind: Kind::Uring(UringWait::Enter, ZeroCopy::Off),
    },
    BackEnd {
        name: "uring-spin",
        summary: "io_uring as above, never sleeping",
        kind: Kind::Uring(UringWait::Spin, ZeroCopy::Off),
    },
    BackEnd {
        name: "uring-zc",
        summary: "io_uring sending from registered buffers without a copy (SEND_ZC), sleeping",
        kind: Kind::Uring(UringWait::Enter, ZeroCopy::On),
    },
    BackEnd {
        name: "uring-sqpoll",
        summary: "io_uring with a kernel thread that polls for submissions (SQPOLL); burns a CPU of its own",
        kind: Kind::Uring(UringWait::SqPoll { idle_ms: 100 }, ZeroCopy::Off),
    },
    BackEnd {
        name: "uring-napi",
        summary: "io_uring that polls the device before it sleeps (REGISTER_NAPI)",
        kind: Kind::Uring(
            UringWait::NapiBusyPoll {
                microseconds: BUSY_POLL_MICROSECONDS,
            },
            ZeroCopy::Off,
        ),
    },
    BackEnd {
        name: "af-packet",
        summary: "a memory-mapped AF_PACKET ring under our own Ethernet, IP and UDP; sleeping in ppoll(2)",
        kind: Kind::Packet(PacketWait::Poll),
    },
    BackEnd {
        name: "af-packet-spin",
        summary: "the AF_PACKET ring, never sleeping",
        kind: Kind::Packet(PacketWait::Spin),
    },
    BackEnd {
        name: "af-xdp",
        summary: "an AF_XDP socket fed by an XDP program in the driver, under our own Ethernet, IP and UDP; sleeping in ppoll(2)",
        kind: Kind::AfXdp(XdpWait::Poll, Mode::Native, XdpCopy::Copy),
    },
    BackEnd {
        name: "af-xdp-busy-poll",
        summary: "the AF_XDP socket, polling the device inside the system call before it sleeps (SO_PREFER_BUSY_POLL)",
        kind: Kind::AfXdp(
            XdpWait::BusyPoll(BusyPoll {
                microseconds: BUSY_POLL_MICROSECONDS,
                budget: BUSY_POLL_BUDGET_FRAMES,
            }),
            Mode::Native,
            XdpCopy::Copy,
        ),
    },
    BackEnd {
        name: "af-xdp-spin",
        summary: "the AF_XDP socket, never sleeping",
        kind: Kind::AfXdp(XdpWait::Spin, Mode::Native, XdpCopy::Copy),
    },
    BackEnd {
        name: "af-xdp-generic",
        summary: "the AF_XDP socket, never sleeping, fed by a program run on socket buffers (generic mode)",
        kind: Kind::AfXdp(XdpWait::Spin, Mode::Generic, XdpCopy::Copy),
    },
    BackEnd {
        name: "af-xdp-zc",
        summary: "the AF_XDP socket, never sleeping, its memory read and written by the device itself (zero-copy)",
        kind: Kind::AfXdp(XdpWait::Spin, Mode::Native, XdpCopy::ZeroCopy),
    },
    BackEnd {
        name: "xdp-echo",
        summary: "the server is an XDP program in the driver (XDP_TX); the client is a blocking UDP socket",
        kind: Kind::XdpEcho(Mode::Native, "udp-blocking"),
    },
    BackEnd {
        name: "xdp-echo-spin",
        summary: "the server is an XDP program in the driver (XDP_TX); the client is a UDP socket that never sleeps",
        kind: Kind::XdpEcho(Mode::Native, "udp-spin"),
    },
    BackEnd {
        name: "xdp-echo-generic",
        summary: "the server is an XDP program run on socket buffers (generic mode); the client is a blocking UDP socket",
        kind: Kind::XdpEcho(Mode::Generic, "udp-blocking"),
    },
];

/// What only takes frames in: no back end, because nobody can send with it.
pub const SINKS: &[BackEnd] = &[
    BackEnd {
        name: "xdp-drop",
        summary: "an XDP program in the driver counts our frames and drops them, before there is a socket buffer",
        kind: Kind::XdpDrop(Mode::Native, Napi::Softirq),
    },
    BackEnd {
        name: "xdp-drop-threaded",
        summary: "the same program in the driver, whose receive work has a kernel thread of its own (threaded NAPI)",
        kind: Kind::XdpDrop(Mode::Native, Napi::Thread),
    },
    BackEnd {
        name: "xdp-drop-same-cpu",
        summary: "the same program in the driver, whose receive work has a kernel thread (threaded NAPI) on the sender's CPU",
        kind: Kind::XdpDrop(Mode::Native, Napi::ThreadAtSender),
    },
    BackEnd {
        name: "xdp-drop-generic",
        summary: "an XDP program run on socket buffers (generic mode) counts our frames and drops them",
        kind: Kind::XdpDrop(Mode::Generic, Napi::Softirq),
    },
];

/// `udp-blocking` for a client with several requests under way: those that it sends at once leave as one datagram, which the
/// kernel cuts at the last moment (UDP_SEGMENT), and answers that are there at once come with one system call.
pub const TRAINS: BackEnd = BackEnd {
    name: "udp-gso-blocking",
    summary: "UDP socket, blocking, frames that go together cut by the kernel (UDP_SEGMENT)",
    kind: Kind::Udp(WaitHow::Blocking, Batching::Gso),
};

/// What takes frames in under that name: a back end, or one of [`SINKS`].
pub fn sink_by_name(name: &str) -> Option<&'static BackEnd> {
    by_name(name).or_else(|| SINKS.iter().find(|sink| sink.name == name))
}

/// The back end of that name.
pub fn by_name(name: &str) -> Option<&'static BackEnd> {
    BACKENDS.iter().find(|backend| backend.name == name)
}

/// Room for frames that wait to be received. A stalled server's requests wait there; what does not fit is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Frames of the size under test.
    pub frames_count: usize,
}

/// Everything that one end needs to open its port, as it is handed to the server's process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wiring {
    /// Which end this is.
    pub end: End,
    /// This end.
    pub local: Endpoint,
    /// The other end, where its address is known beforehand: frames of anybody else are then the kernel's to drop, and
    /// every frame's route is known. `None` for a server that learns its clients.
    pub remote: Option<Endpoint>,
    /// Others that the end knows, in the order of their numbers; it then learns more and is connected to none.
    #[serde(default)]
    pub members: Vec<Endpoint>,
    /// The ends are the two of a veth pair.
    pub over_veth: bool,
    /// The largest frame.
    pub frame_bytes_max: usize,
    /// Room to receive.
    pub room: Room,
    /// A blocking receive has no time-out, as in most programs: a time-out arms a timer at every sleep, which is 2 to 4 %
    /// of a round trip. Whoever opens such an end closes it when it is to end ([`Opened::closer`]).
    pub untimed: bool,
    /// Where the shared-memory region can be opened ([`Kind::Shm`]).
    pub region: Option<PathBuf>,
}

impl Wiring {
    /// Whom the end knows, in the order of their numbers.
    pub fn peers(&self) -> impl Iterator<Item = &Endpoint> {
        self.remote.iter().chain(&self.members)
    }
}

/// The most clients a server learns.
const CLIENTS_MAX: usize = 16;

impl BackEnd {
    /// Do its ends sleep while they wait? Two ends that spin need a CPU each.
    pub fn sleeps(&self) -> bool {
        match self.kind {
            Kind::Loopback | Kind::Shm => false,
            Kind::Udp(wait, _) => wait != WaitHow::Spin,
            Kind::Uring(wait, _) => !matches!(wait, UringWait::Spin | UringWait::SqPoll { .. }),
            Kind::Packet(wait) => wait != PacketWait::Spin,
            Kind::AfXdp(wait, ..) => wait != XdpWait::Spin,
            Kind::XdpEcho(_, client) => client_of(client).sleeps(),
            Kind::XdpDrop(..) => true,
        }
    }

    /// Asks the machine, in the namespace of the calling thread.
    ///
    /// # Errors
    /// [`ProbeError`] when it could not be asked.
    pub fn probe(&self, interface: &str) -> Result<Support, ProbeError> {
        match self.kind {
            Kind::Loopback => Ok(Support::Native),
            Kind::Shm => dataplane_ports::shm::probe(),
            Kind::Udp(wait, batch) => udp::probe(wait, batch),
            Kind::Uring(wait, zero_copy) => uring::probe(&variant(wait, zero_copy, false)),
            Kind::Packet(_) => af_packet::probe(interface),
            Kind::AfXdp(..) | Kind::XdpEcho(..) | Kind::XdpDrop(..) if interface == "lo" => Ok(Support::Absent {
                why: "over lo a program sees only what the host sends to itself; two namespaces are needed, and they need root"
                    .to_owned(),
            }),
            Kind::AfXdp(_, mode, copy) => match af_xdp::probe(interface, copy)? {
                Support::Native => ebpf_host::probe(Program::Steer, Some(interface), mode),
                other => Ok(other),
            },
            Kind::XdpEcho(mode, _) => ebpf_host::probe(Program::Echo, Some(interface), mode),
            Kind::XdpDrop(mode, _) => ebpf_host::probe(Program::CountDrop, Some(interface), mode),
        }
    }

    /// Opens one end. [`Kind::Loopback`] has no ends that could be opened apart: see
    /// [`dataplane_ports::loopback::pair`].
    ///
    /// # Errors
    /// What the port said, with its name.
    ///
    /// # Panics
    /// For [`Kind::Loopback`], for [`Kind::XdpDrop`], and for the server of [`Kind::XdpEcho`]: see [`xdp::attach`].
    pub fn open(&self, wiring: &Wiring) -> anyhow::Result<Opened> {
        let knows_peer = wiring.remote.is_some();
        let peers: Vec<SocketAddr> = wiring.peers().map(|peer| peer.addr).collect();
        let learn_peers_max = if knows_peer { 0 } else { CLIENTS_MAX };
        let context = || format!("opening {} at {}", self.name, wiring.local.addr);
        match self.kind {
            Kind::Loopback => panic!("the loopback ring's ends are made together"),
            Kind::XdpDrop(..) => panic!("{} is a program, not a port", self.name),
            Kind::Shm => {
                let path = wiring.region.as_ref().context("a shared-memory end needs its region")?;
                let region = ShmRegion::open(path).with_context(context)?;
                let side = match wiring.end {
                    End::Client => Side::A,
                    End::Server => Side::B,
                };
                let port = ShmPort::connect(&region, side).with_context(context)?;
                Ok(Opened {
                    port: Box::new(port),
                    addr: None,
                    closer: None,
                    keeps: None,
                })
            }
            Kind::Udp(wait, batch) => {
                let buffer_bytes = wiring.room.socket_bytes(wiring.frame_bytes_max);
                let wait = match wait {
                    WaitHow::Blocking if wiring.untimed => WaitHow::Untimed,
                    wait => wait,
                };
                let options = UdpOptions {
                    local: wiring.local.addr,
                    connect: knows_peer,
                    peers,
                    learn_peers_max,
                    forget_peers: false,
                    wait,
                    look_max: Duration::ZERO,
                    batch,
                    recv_buffer_bytes: buffer_bytes,
                    send_buffer_bytes: 0,
                    frame_bytes_max: wiring.frame_bytes_max,
                };
                let port = UdpPort::open(&options).with_context(context)?;
                let addr = Some(port.local_addr());
                let closer = port.closer().with_context(context)?;
                Ok(Opened {
                    port: Box::new(port),
                    addr,
                    closer: Some(closer),
                    keeps: None,
                })
            }
            Kind::Uring(wait, zero_copy) => {
                let options = UringOptions {
                    peers,
                    learn_peers_max,
                    frame_bytes_max: wiring.frame_bytes_max,
                    recv_buffer_bytes: wiring.room.socket_bytes(wiring.frame_bytes_max),
                    ..UringOptions::new(wiring.local.addr, variant(wait, zero_copy, knows_peer))
                };
                let port = UringPort::open(&options).with_context(context)?;
                let addr = Some(port.local_addr());
                Ok(Opened {
                    port: Box::new(port),
                    addr,
                    closer: None,
                    keeps: None,
                })
            }
            Kind::Packet(wait) => {
                let options = PacketOptions {
                    interface: wiring.local.interface.clone(),
                    local: wiring.local.addr,
                    local_mac: Mac(wiring.local.mac),
                    peers: wiring
                        .peers()
                        .map(|peer| PacketPeer {
                            addr: peer.addr,
                            mac: Mac(peer.mac),
                        })
                        .collect(),
                    learn_peers_max,
                    wait,
                    frame_bytes_max: wiring.frame_bytes_max,
                    ring_frames: wiring.room.frames_count.next_power_of_two(),
                };
                let port = PacketPort::open(&options).with_context(context)?;
                Ok(Opened {
                    port: Box::new(port),
                    addr: Some(wiring.local.addr),
                    closer: None,
                    keeps: None,
                })
            }
            Kind::AfXdp(wait, mode, copy) => {
                xdp::open(wiring, learn_peers_max, (wait, mode, copy)).with_context(context)
            }
            Kind::XdpEcho(mode, client) => {
                assert_eq!(
                    wiring.end,
                    End::Client,
                    "the server of {} is a program, not a port",
                    self.name
                );
                let opened = client_of(client).open(wiring)?;
                // What a native program sends back over a veth arrives only where the peer has a program, too.
                let keeps = match mode {
                    Mode::Native if wiring.over_veth => Some(xdp::attach(Program::Pass, &wiring.local, mode)?),
                    Mode::Native | Mode::Generic | Mode::Offload => None,
                };
                Ok(Opened { keeps, ..opened })
            }
        }
    }
}

/// The client of an [`Kind::XdpEcho`].
fn client_of(name: &str) -> &'static BackEnd {
    by_name(name).expect("a test looks every client up")
}

fn variant(wait: UringWait, zero_copy: ZeroCopy, connect: bool) -> UringVariant {
    UringVariant {
        connect,
        zero_copy_send: zero_copy == ZeroCopy::On,
        ..UringVariant::new(wait)
    }
}

/// An opened end.
pub struct Opened {
    /// The port.
    pub port: Box<dyn Port>,
    /// The UDP address it has, where it has one.
    pub addr: Option<SocketAddr>,
    /// Ends a wait that has no time-out.
    pub closer: Option<UdpCloser>,
    /// The program without which the port would not get its frames; goes after the port.
    pub keeps: Option<Attachment>,
}

impl Room {
    /// What the kernel charges for that many frames: `truesize`, the socket buffer's own memory and not only the data.
    /// A small UDP frame costs up to 1280 bytes on x86-64 (include/linux/skbuff.h, SKB_TRUESIZE: data rounded up to the
    /// slab's size, `struct skb_shared_info`, `struct sk_buff`), a large one its pages.
    fn socket_bytes(self, frame_bytes: usize) -> usize {
        const OVERHEAD_BYTES: usize = 1280;
        // The kernel doubles what it is asked for, "to allow space for bookkeeping overhead" (socket(7), SO_RCVBUF).
        self.frames_count * (OVERHEAD_BYTES + frame_bytes.next_power_of_two()) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let all = || BACKENDS.iter().chain(SINKS);
        let mut names: Vec<_> = all().map(|backend| backend.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn the_client_of_a_program_is_a_back_end_with_ports() {
        for backend in BACKENDS {
            if let Kind::XdpEcho(_, client) = backend.kind {
                assert!(!matches!(client_of(client).kind, Kind::XdpEcho(..)), "{}", backend.name);
            }
        }
    }
}
