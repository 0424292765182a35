//! A real AF_XDP socket on one end of a veth pair, an ordinary UDP socket on the other.

use std::{io, net::UdpSocket, ops::Range, os::fd::AsFd, thread, time::Instant};

use dataplane_netns::Network;
use dataplane_ports::xdp::{Frame, Segment, Socket, SocketOptions, TxRequest, Umem, XdpCounters};
use dataplane_wire::{
    datagram::{self, Header},
    ethernet::Mac,
    frame::{self, Kind},
    internet::Addresses,
    udp::Checksum,
};
use ebpf_host::{Attachment, Count, Mode, Program};

use super::{Rings, World, frames};
use crate::{
    link::PATIENCE,
    veth::{self, InterfaceCounts, PORT},
};

const PAYLOAD_BYTES: usize = 64;

/// See the file's first line.
#[derive(Debug)]
pub struct Live {
    socket: Socket,
    umem: Umem,
    /// Hands our frames to the socket.
    steer: Attachment,
    other: UdpSocket,
    to_other: Header,
    arrived_count: u64,
    received_count: u64,
    published_count: u64,
    written_count: u64,
    completed_count: u64,
    delivered_count: u64,
    // Last: the interfaces go with it.
    network: Network,
}

impl Live {
    /// As [`super::Model::new`]. `None`, with the reason printed, where this process may not do that.
    ///
    /// # Panics
    /// If it may and it fails all the same.
    pub fn new(entries: u32) -> Option<(Live, Vec<Frame>)> {
        let network = veth::pair()?;
        let (client, server) = veth::ends(&network);
        let (umem, to_receive, to_send) = frames(entries);
        let opened = server
            .run(|| Socket::open(&umem, &SocketOptions::new(&server.interface().name, entries)))
            .expect("the thread comes back");
        let mut socket = match opened {
            Ok(socket) => socket,
            Err(error) => {
                println!("skipped: the real socket; the model is alone: {error}");
                return None;
            }
        };
        for frame in to_receive {
            socket.fill(frame).expect("room for as many");
        }
        socket.publish_fill();
        let mut steer = veth::attach(server, Program::Steer, Mode::Native);
        steer.set_socket(0, socket.as_fd()).expect("steer takes sockets");

        let other = client
            .run(|| UdpSocket::bind((client.ipv4(), 0)))
            .expect("the thread comes back")
            .expect("a free port");
        other.connect((server.ipv4(), PORT)).expect("there is a route");
        other.set_nonblocking(true).expect("a socket can be");
        let to_other = Header {
            dst_mac: Mac(client.mac()),
            src_mac: Mac(server.mac()),
            vlan: None,
            addresses: Addresses::V4 {
                src: server.ipv4(),
                dst: client.ipv4(),
            },
            src_port: PORT,
            dst_port: other.local_addr().expect("it is bound").port(),
        };
        let live = Live {
            socket,
            umem,
            steer,
            other,
            to_other,
            arrived_count: 0,
            received_count: 0,
            published_count: 0,
            written_count: 0,
            completed_count: 0,
            delivered_count: 0,
            network,
        };
        Some((live, to_send))
    }

    /// Frames that the kernel took to be sent.
    fn taken_count(&mut self) -> u64 {
        self.published_count - u64::from(self.tx_pending_count())
    }
}

/// Waits until `look` finds something, as long as `is_due` says that something must come.
///
/// # Panics
/// If it does not come within [`PATIENCE`].
fn wait<T>(what: &str, mut look: impl FnMut() -> (Option<T>, bool)) -> Option<T> {
    let since = Instant::now();
    loop {
        match look() {
            (Some(found), _) => return Some(found),
            (None, false) => return None,
            (None, true) => {
                assert!(since.elapsed() < PATIENCE, "{what} did not come");
                thread::yield_now();
            }
        }
    }
}

impl Rings for Live {
    fn fill(&mut self, frame: Frame) -> Result<(), Frame> {
        self.socket.fill(frame)
    }

    fn publish_fill(&mut self) {
        self.socket.publish_fill();
    }

    fn receive(&mut self) -> Option<Segment> {
        let (arrived_count, received_count) = (self.arrived_count, self.received_count);
        let segment = wait("a packet that arrived", || {
            // What was lost is read first: it only grows, and what is on the ring then is found.
            let lost = self.socket.counters().expect("the socket is open");
            let lost_count = lost.rx_dropped_count + lost.rx_ring_full_count;
            let segment = self.socket.receive().expect("the rings are sound");
            (segment, received_count + lost_count < arrived_count)
        });
        self.received_count += u64::from(segment.is_some());
        segment
    }

    fn release_rx(&mut self) {
        self.socket.release_rx();
    }

    fn write_packet(&mut self, frame: &mut Frame) -> Range<usize> {
        let len_bytes = self.to_other.len_bytes() + PAYLOAD_BYTES;
        let packet = &mut self.umem.bytes_mut(frame)[..len_bytes];
        packet[self.to_other.len_bytes()..].fill(7);
        datagram::emit(&self.to_other, Checksum::Full, packet);
        0..len_bytes
    }

    fn tx(&mut self, frame: Frame, bytes: Range<usize>) -> Result<(), Frame> {
        self.socket.tx(frame, bytes, false, TxRequest::default())?;
        self.written_count += 1;
        Ok(())
    }

    fn publish_tx(&mut self) {
        self.socket.publish_tx();
        self.published_count = self.written_count;
    }

    fn kick(&mut self) {
        match self.socket.kick() {
            Ok(()) => {}
            // Some are left, or there is no room at the moment: for whoever kicks to find out.
            Err(error) if error.raw_os_error().is_some_and(is_about_room) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn tx_pending_count(&mut self) -> u32 {
        self.socket.tx_pending_count().expect("the rings are sound")
    }

    fn complete(&mut self) -> Option<Frame> {
        let (taken_count, completed_count) = (self.taken_count(), self.completed_count);
        let completed = wait("a frame that was sent", || {
            let completed = self.socket.complete().expect("the rings are sound");
            (completed, completed_count < taken_count)
        });
        self.completed_count += u64::from(completed.is_some());
        completed.map(|completed| completed.frame)
    }

    fn release_completions(&mut self) {
        self.socket.release_completions();
    }

    fn counters(&self) -> XdpCounters {
        self.socket.counters().expect("the socket is open")
    }
}

/// EAGAIN: more than one call sends. EBUSY, ENOBUFS: no room now.
fn is_about_room(errno: i32) -> bool {
    use nix::errno::Errno;
    [Errno::EAGAIN, Errno::EBUSY, Errno::ENOBUFS].contains(&Errno::from_raw(errno))
}

impl World for Live {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn arrive(&mut self, packets_count: u64) {
        let before = InterfaceCounts::of(veth::ends(&self.network).1);
        for slot in 0..packets_count {
            let header = frame::Header {
                kind: Kind::EchoRequest,
                term: 0,
                slot,
                sent_ns: 0,
            };
            let mut payload = [0; PAYLOAD_BYTES];
            frame::emit(&header, &mut payload);
            self.other.send(&payload).expect("it is sent");
        }
        self.arrived_count += packets_count;
        // Until the program has seen them all, and the driver is done with all: it adds up after what the program redirected.
        let arrived_count = self.arrived_count;
        wait("a packet to the program", || {
            let taken_count = self.steer.counts().expect("it counts").get(Count::Taken);
            ((taken_count >= arrived_count).then_some(()), true)
        });
        let (_, server) = veth::ends(&self.network);
        wait("the end of the driver's turn", || {
            let rx = InterfaceCounts::of(server).since(&before).rx;
            ((rx >= packets_count).then_some(()), true)
        });
    }

    fn delivered_count(&mut self) -> u64 {
        let taken_count = self.taken_count();
        let mut packet = [0; 2 * PAYLOAD_BYTES];
        while self.delivered_count < taken_count {
            let delivered_count = self.delivered_count;
            wait("a packet that was sent", || match self.other.recv(&mut packet) {
                Ok(_) => (Some(()), true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (None, delivered_count < taken_count),
                Err(error) => panic!("{error}"),
            });
            self.delivered_count += 1;
        }
        self.delivered_count
    }
}
