//! The switch's ports: an AF_XDP socket on each, and the program that gives it every frame.

use std::{collections::VecDeque, io, mem, os::fd::AsFd};

use anyhow::Context;
use dataplane_ports::xdp::{Frame, Socket, SocketOptions, TxRequest, Umem, UmemOptions, XdpCounters};
use ebpf_host::{Attachment, Count, Loaded, Mode, Program, Settings};
use nix::errno::Errno;

use super::memory::{Frames, Held};

/// Frames of a port that the kernel may fill before we look again. At 1 Gbit/s of the shortest frames that is 340 µs.
const RING_FRAMES: u32 = 512;
/// Frames that wait inside the switch, for each port: queues, cards and what is on the wires. What is more finds the fill rings
/// empty, and the kernel counts it.
const HELD_FRAMES: usize = 1536;
/// The kernel's 256 bytes and a frame of an MTU of 1500 lie in it.
const FRAME_BYTES: usize = 2048;

/// What the kernel counted at a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounters {
    /// Frames that the program gave to the socket.
    pub taken_count: u64,
    /// Of these, what the socket had no room for.
    pub socket: XdpCounters,
    /// How often the kernel had to be asked again to send.
    pub tx_again_count: u64,
}

impl WireCounters {
    /// Frames that the program saw and the switch did not.
    pub fn rx_lost_count(&self) -> u64 {
        self.socket.rx_dropped_count + self.socket.rx_ring_full_count
    }
}

/// A port.
#[derive(Debug)]
pub(super) struct Port {
    // Before the socket: no frame comes to a socket that is gone.
    program: Attachment,
    socket: Socket,
    /// Due, and not in the ring, which was full.
    backlog: VecDeque<Held>,
    /// In the ring, and not taken by the kernel.
    pending_count: usize,
    /// The kernel takes more when a receiver is done with something, and not before.
    waits: bool,
    /// The kernel has them, until whoever got them is done with them.
    sent_count: usize,
    /// The fill ring has room for frames that there were not.
    is_starved: bool,
    tx_again_count: u64,
}

/// All ports, and the memory of all.
#[derive(Debug)]
pub(super) struct Ports {
    pub ports: Vec<Port>,
    pub frames: Frames,
}

impl Ports {
    /// Of the interfaces in the namespace in which the thread stands.
    pub fn open(interfaces: &[String]) -> anyhow::Result<Ports> {
        let frames_count = interfaces.len() * (RING_FRAMES as usize + HELD_FRAMES);
        let (umem, free) = Umem::new(&UmemOptions {
            frame_bytes: FRAME_BYTES,
            ..UmemOptions::new(frames_count)
        })?;
        let mut frames = Frames { umem, free };
        let mut ports = Vec::new();
        for interface in interfaces {
            let mut options = SocketOptions::new(interface, RING_FRAMES);
            options.completion_entries = 2 * RING_FRAMES;
            let socket = Socket::open(&frames.umem, &options)?;
            let mut program = Loaded::load(Program::TakeAll, &Settings::default())?;
            program.set_socket(0, socket.as_fd())?;
            let program = program
                .attach(interface, Mode::Native)
                .with_context(|| format!("taking the frames of {interface}"))?;
            let mut port = Port {
                program,
                socket,
                backlog: VecDeque::new(),
                pending_count: 0,
                waits: false,
                sent_count: 0,
                is_starved: false,
                tx_again_count: 0,
            };
            port.refill(&mut frames.free);
            ports.push(port);
        }
        Ok(Ports { ports, frames })
    }
}

impl Port {
    /// The next frame from the host.
    #[inline]
    pub fn receive(&mut self) -> io::Result<Option<Held>> {
        let segment = self.socket.receive()?;
        Ok(segment.map(|segment| Held {
            frame: segment.frame,
            bytes: segment.bytes,
        }))
    }

    /// After some were received.
    pub fn release(&mut self, free: &mut Vec<Frame>) -> io::Result<()> {
        self.socket.release_rx();
        self.refill(free);
        if self.socket.needs_rx_kick() {
            self.socket.kick_rx()?;
        }
        Ok(())
    }

    fn refill(&mut self, free: &mut Vec<Frame>) {
        self.is_starved = true;
        while let Some(frame) = free.pop() {
            if let Err(frame) = self.socket.fill(frame) {
                free.push(frame);
                self.is_starved = false;
                break;
            }
        }
        self.socket.publish_fill();
    }

    /// A frame is due at the host. It goes with the next [`Port::flush`].
    #[inline]
    pub fn send(&mut self, held: Held) {
        self.backlog.push_back(held);
    }

    /// Whether something is due that the kernel might take now.
    #[inline]
    pub fn has_due(&self) -> bool {
        !self.waits && self.untaken_count() > 0
    }

    /// What is due and the kernel has not taken: the last of what was sent.
    #[inline]
    pub fn untaken_count(&self) -> usize {
        self.backlog.len() + self.pending_count
    }

    /// Tells the kernel what is due. What it does not take stays for the next time.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(Held { frame, bytes }) = self.backlog.pop_front() {
            if let Err(frame) = self.socket.tx(frame, bytes.clone(), false, TxRequest::default()) {
                self.backlog.push_front(Held { frame, bytes });
                break;
            }
            self.sent_count += 1;
            self.pending_count += 1;
        }
        self.socket.publish_tx();
        while self.pending_count > 0 {
            let kicked = self.socket.kick();
            let before_count = mem::replace(&mut self.pending_count, self.socket.tx_pending_count()? as usize);
            match kicked {
                Ok(()) => {}
                Err(error) if is_busy(&error) => {
                    self.tx_again_count += 1;
                    // It takes 32 at a time. If it took none, what it has taken before fills the socket's buffer until receivers
                    // are done with it; asking meanwhile would only keep this thread from other ports.
                    if self.pending_count == before_count {
                        self.waits = self.sent_count > self.pending_count;
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the kernel that there is nothing, if there is nothing.
    pub fn warm(&mut self) -> io::Result<()> {
        if self.untaken_count() > 0 {
            return Ok(());
        }
        match self.socket.kick() {
            Err(error) if !is_busy(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes back the memory of what was sent, and gives the kernel what it lacks to receive into. In copy mode a frame comes back
    /// when its receiver's kernel is done with it, so both are looked at in every turn: memory that nobody takes back would
    /// stop the switch for good.
    #[inline]
    pub fn recycle(&mut self, free: &mut Vec<Frame>) -> io::Result<()> {
        if self.sent_count > 0 {
            while let Some(completed) = self.socket.complete()? {
                free.push(completed.frame);
                self.sent_count -= 1;
                self.waits = false;
            }
            self.socket.release_completions();
        }
        if self.is_starved && !free.is_empty() {
            self.refill(free);
        }
        Ok(())
    }

    /// No frames come any more.
    pub fn close(&mut self) -> io::Result<()> {
        self.program.clear_socket(0).map_err(io::Error::other)
    }

    /// What the kernel counted.
    pub fn counters(&self) -> io::Result<WireCounters> {
        let counts = self.program.counts().map_err(io::Error::other)?;
        Ok(WireCounters {
            taken_count: counts.get(Count::Taken),
            socket: self.socket.counters()?,
            tx_again_count: self.tx_again_count,
        })
    }
}

fn is_busy(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAGAIN | Errno::EBUSY | Errno::ENOBUFS))
}
