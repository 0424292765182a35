//! RoCEv2 over AF_XDP: a wire for the endpoint of `rdma` whose packets pass no socket and no IP stack. Whole frames, with headers of
//! our own, between the driver and memory that both have.
//!
//! The ICRC needs nothing to be believed here: a frame shows the identification that its sender chose.

use std::{
    io,
    net::{IpAddr, UdpSocket},
    ops::RangeInclusive,
    os::fd::AsFd,
    time::Duration,
};

use anyhow::Context;
use dataplane_ports::xdp::{Frame, Mac, OpenError, Socket, SocketOptions, TxRequest, Umem, UmemOptions, XdpCopy};
use dataplane_waist::{MonotonicClock, ProbeError, Support};
use dataplane_wire::Reject;
use ebpf_host::{Attachment, Loaded, Mode, Program, Settings};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use rdma::{
    Device, Transmit, Wire,
    roce::{
        RoceCounters,
        frame::{FRAME_AROUND_BYTES_MAX, FramePath, addresses, unpack},
        source_port,
    },
    system_randomness,
    wire::{Packet, QpNumber, UDP_PORT, parse},
};

use crate::place::Endpoint;

/// Bounds of the frames for each way: a batch and some; what the kernel can hold for a socket.
const RING_FRAMES: RangeInclusive<u32> = 64..=1 << 15;
/// Bytes of a frame's memory, of which the kernel keeps 256 of a received one: path MTUs of up to 2048 fit. What is longer takes several
/// (Linux 6.6).
const FRAME_BYTES: usize = 4096;
const RX_HEADROOM_BYTES: usize = 256;
const SEGMENT_BYTES: usize = FRAME_BYTES - RX_HEADROOM_BYTES;

/// What to open.
#[derive(Clone, Debug)]
pub struct XdpWireOptions {
    /// This end. Its port is not looked at: RoCEv2 has its own.
    pub local: Endpoint,
    /// The other hosts on the link, each with its MAC address or that of the router to it.
    pub neighbours: Vec<(IpAddr, Mac)>,
    /// Where the program runs that hands frames over.
    pub mode: Mode,
    /// Frames that may come before somebody looks: a window of each connection, times the buffers of a packet. All of them go round, so with
    /// more than that each packet comes to memory that no near cache has.
    pub frames_max: u32,
}

/// A queue pair's frames.
#[derive(Debug)]
struct Sender {
    qp: QpNumber,
    path: FramePath,
}

/// An AF_XDP socket as a [`Wire`]. It never sleeps while packets come; [`Wire::wait`] does.
#[derive(Debug)]
pub struct XdpWire {
    // Before the socket: no frame comes to a socket that is gone.
    _program: Attachment,
    socket: Socket,
    umem: Umem,
    free: Vec<Frame>,
    /// A packet of several frames, as it comes in, or before it goes out.
    coming: Vec<u8>,
    going: Box<[u8]>,
    /// Keeps other endpoints, and the kernel's own, from the address.
    _port: UdpSocket,
    local: IpAddr,
    local_mac: Mac,
    frame_bytes_max: usize,
    neighbours: Vec<(IpAddr, Mac)>,
    senders: Vec<Sender>,
    clock: MonotonicClock,
    is_queued: bool,
    counters: RoceCounters,
}

/// The provider.
pub type XdpDevice = Device<XdpWire>;

/// Opens an endpoint in the namespace in which the thread stands.
///
/// # Errors
/// The port or the queue is taken, a privilege is missing, the kernel has no AF_XDP: what was tried, and what to try.
pub fn open(options: &XdpWireOptions) -> anyhow::Result<XdpDevice> {
    let random = system_randomness().context("asking the system for randomness")?;
    Ok(Device::new(XdpWire::open(options)?, random))
}

/// Asks whether an endpoint could be opened on `interface`, in the namespace in which the thread stands.
///
/// # Errors
/// The kernel could not be asked.
pub fn probe(interface: &str) -> Result<Support, ProbeError> {
    match dataplane_ports::xdp::probe(interface, XdpCopy::Copy)? {
        Support::Native => ebpf_host::probe(Program::SteerPort, Some(interface), Mode::Native),
        other => Ok(other),
    }
}

impl XdpWire {
    /// Opens the socket, and lets the program hand over what is for it.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(options: &XdpWireOptions) -> anyhow::Result<XdpWire> {
        let Endpoint {
            addr,
            interface,
            mac,
            mtu_bytes,
        } = &options.local;
        let local = addr.ip();
        let port = UdpSocket::bind((local, UDP_PORT)).with_context(|| {
            format!(
                "holding UDP port {UDP_PORT} at {local}: another RoCEv2 endpoint has it, or the kernel's rdma_rxe (`rdma link`)"
            )
        })?;
        let ring_frames = options
            .frames_max
            .clamp(*RING_FRAMES.start(), *RING_FRAMES.end())
            .next_power_of_two();
        let (umem, mut free) = Umem::new(&UmemOptions {
            frame_bytes: FRAME_BYTES,
            ..UmemOptions::new(2 * ring_frames as usize)
        })?;
        let link_bytes_max = *mtu_bytes as usize + ETHERNET_BYTES;
        let open = |multi_buffer| {
            Socket::open(
                &umem,
                &SocketOptions {
                    // Places for twice as many frames as go round: see `XdpPort::open`.
                    fill_entries: 2 * ring_frames,
                    tx_entries: 2 * ring_frames,
                    multi_buffer,
                    ..SocketOptions::new(interface, ring_frames)
                },
            )
        };
        let (mut socket, frame_bytes_max) = match open(link_bytes_max > SEGMENT_BYTES) {
            Ok(socket) => (socket, link_bytes_max),
            // An older kernel: without them, shorter path MTUs are left.
            Err(OpenError::NotSupported { .. }) if link_bytes_max > SEGMENT_BYTES => (open(false)?, SEGMENT_BYTES),
            Err(error) => return Err(error.into()),
        };
        for frame in free.drain(..ring_frames as usize) {
            socket.fill(frame).expect("a new fill ring has room for as many");
        }
        socket.publish_fill();
        // Datagrams to this port of this host alone: what else comes, ARP among it, is the stack's.
        let (local_ipv4, local_ipv6) = match local {
            IpAddr::V4(address) => (Some(address), None),
            IpAddr::V6(address) => (None, Some(address)),
        };
        let settings = Settings {
            local_mac: Mac(*mac),
            local_ipv4,
            local_ipv6,
            local_port: UDP_PORT,
            ..Settings::default()
        };
        let mut program = Loaded::load_at_mtu(Program::SteerPort, &settings, *mtu_bytes)?;
        program.set_socket(0, socket.as_fd())?;
        let program = program
            .attach(interface, options.mode)
            .with_context(|| format!("taking the datagrams to port {UDP_PORT} from {interface}"))?;
        Ok(XdpWire {
            _program: program,
            socket,
            umem,
            free,
            _port: port,
            local,
            local_mac: Mac(*mac),
            frame_bytes_max,
            coming: Vec::with_capacity(frame_bytes_max),
            going: vec![0; frame_bytes_max].into(),
            neighbours: options.neighbours.clone(),
            senders: Vec::new(),
            clock: MonotonicClock::new(),
            is_queued: false,
            counters: RoceCounters::default(),
        })
    }

    /// Counters since it was opened.
    pub fn counters(&self) -> &RoceCounters {
        &self.counters
    }

    /// Takes back what was sent.
    fn reap(&mut self) -> io::Result<()> {
        while let Some(completed) = self.socket.complete()? {
            self.free.push(completed.frame);
        }
        self.socket.release_completions();
        Ok(())
    }
}

const ETHERNET_BYTES: usize = dataplane_wire::ethernet::HEADER_BYTES;

/// The RoCEv2 packet in a frame, if it is to `local` and came as it was sent; and from whom.
fn heard(bytes: &[u8], local: IpAddr, counters: &mut RoceCounters, sink: &mut dyn FnMut(IpAddr, &Packet<'_>)) {
    let mut refuse = |reject: Reject| counters.rejected_counts[reject.index()] += 1;
    let (envelope, datagram) = match unpack(bytes) {
        Ok(unpacked) => unpacked,
        Err(reject) => return refuse(reject),
    };
    if envelope.addresses.dst() != local || envelope.dst_port != UDP_PORT {
        return refuse(Reject::Stranger);
    }
    match parse(datagram) {
        Ok(packet) if envelope.is_intact(datagram) => sink(envelope.addresses.src(), &packet),
        Ok(_) => counters.icrc_count += 1,
        Err(reject) => refuse(reject),
    }
}

impl Wire for XdpWire {
    type Clock = MonotonicClock;

    fn name(&self) -> &'static str {
        "roce-af-xdp"
    }

    fn local(&self) -> IpAddr {
        self.local
    }

    fn clock(&self) -> MonotonicClock {
        self.clock
    }

    fn connect(&mut self, qp: QpNumber, to: IpAddr) -> io::Result<()> {
        self.disconnect(qp);
        let unfit = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let ends = addresses(self.local, to)
            .ok_or_else(|| unfit(format!("{to} and this end's {} are not of one family", self.local)))?;
        let (_, mac) = self.neighbours.iter().find(|(host, _)| *host == to).ok_or_else(|| {
            unfit(format!(
                "the MAC address of {to} is not known: name it, or its router's, among the neighbours"
            ))
        })?;
        self.senders.push(Sender {
            qp,
            path: FramePath::new(ends, [self.local_mac, *mac], source_port(qp)),
        });
        Ok(())
    }

    fn disconnect(&mut self, qp: QpNumber) {
        self.senders.retain(|sender| sender.qp != qp);
    }

    fn receive(&mut self, packets_max: usize, sink: &mut dyn FnMut(IpAddr, &Packet<'_>)) -> io::Result<usize> {
        let (mut count, mut has_taken) = (0, false);
        while count < packets_max {
            let Some(segment) = self.socket.receive()? else { break };
            has_taken = true;
            let bytes = &self.umem.bytes(&segment.frame)[segment.bytes.clone()];
            if !segment.is_continued && self.coming.is_empty() {
                heard(bytes, self.local, &mut self.counters, sink);
            } else {
                self.coming.extend_from_slice(bytes);
                if !segment.is_continued {
                    heard(&self.coming, self.local, &mut self.counters, sink);
                    self.coming.clear();
                }
            }
            // There are no more frames for this than the ring has entries.
            self.socket.fill(segment.frame).map_err(|_lost| corrupt())?;
            count += usize::from(!segment.is_continued);
        }
        if has_taken {
            self.socket.release_rx();
            self.socket.publish_fill();
        }
        if self.socket.needs_rx_kick() {
            self.counters.syscalls_count += 1;
            self.socket.kick_rx()?;
        }
        Ok(count)
    }

    fn send(&mut self, transmit: &Transmit, packet: &mut [u8]) -> io::Result<()> {
        let Some(sender) = self.senders.iter_mut().find(|sender| sender.qp == transmit.qp) else {
            return Ok(());
        };
        let frame_bytes = sender.path.frame_bytes(transmit.len_bytes);
        if frame_bytes > self.frame_bytes_max {
            let why = format!(
                "a frame of {frame_bytes} bytes is longer than the {} that the interface's MTU and, before Linux 6.6, a frame's memory \
                 allow: choose a smaller path MTU (headers take up to {FRAME_AROUND_BYTES_MAX} bytes more)",
                self.frame_bytes_max
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        if self.free.len() < frame_bytes.div_ceil(SEGMENT_BYTES) {
            // As if the network had lost it.
            self.counters.tx_lost_count += 1;
            return Ok(());
        }
        self.is_queued = true;
        let mut queue = |mut frame: Frame, len: usize, is_continued, fill: &mut dyn FnMut(&mut [u8])| {
            fill(&mut self.umem.bytes_mut(&mut frame)[..len]);
            let queued = self.socket.tx(frame, 0..len, is_continued, TxRequest::default());
            queued.map_err(|_lost| corrupt())
        };
        let packet = &packet[..transmit.len_bytes];
        if frame_bytes <= SEGMENT_BYTES {
            let frame = self.free.pop().expect("looked for above");
            return queue(frame, frame_bytes, false, &mut |bytes| sender.path.emit(packet, bytes));
        }
        let whole = &mut self.going[..frame_bytes];
        sender.path.emit(packet, whole);
        let segments_count = frame_bytes.div_ceil(SEGMENT_BYTES);
        for (index, segment) in whole.chunks(SEGMENT_BYTES).enumerate() {
            let frame = self.free.pop().expect("looked for above");
            let is_continued = index + 1 < segments_count;
            queue(frame, segment.len(), is_continued, &mut |bytes| {
                bytes.copy_from_slice(segment)
            })?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.is_queued {
            return Ok(());
        }
        let flushed = self.socket.flush_tx()?;
        self.counters.syscalls_count += flushed.kicks_count;
        self.is_queued = flushed.is_pending;
        if flushed.is_gone {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                format!(
                    "the interface of {} is gone; open a new endpoint when it is back",
                    self.local
                ),
            ));
        }
        self.reap()
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        if self.socket.has_received() {
            return Ok(());
        }
        self.counters.syscalls_count += 1;
        let mut set = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut set, Some(TimeSpec::from_duration(max)), None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn corrupt() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a ring of this AF_XDP socket is full although its frames were all given back: the kernel's side is corrupt; open a new \
         endpoint",
    )
}
