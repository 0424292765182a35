//! Datagrams of a socket that go through the switch at a rate, and the end that drops or stamps them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use dataplane_netns::Network;
use dataplane_queue::ETHERNET_OVERHEAD_BYTES;
use ebpf_host::{Attachment, Loaded, Mode, Program, Settings};
use nix::{
    cmsg_space,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmsg, sendmmsg, setsockopt, sockopt},
        time::TimeSpec,
    },
};

use crate::load::thread::{fifo, pin};

/// Ethernet, IPv4 and UDP headers.
const HEADERS_BYTES: usize = 14 + 20 + 8;
pub(super) const PORT: u16 = 7000;
/// Nothing is under way for so long.
const QUIET: Duration = Duration::from_millis(200);

/// What is sent, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flood {
    /// With the Ethernet header.
    pub frame_bytes: usize,
    /// How many.
    pub pace: Pace,
    /// The sender's.
    pub cpu: Option<usize>,
}

/// How many frames are sent, and to whom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// So many a second, to a host that drops them in its driver.
    Sparse(u32),
    /// So many a second, to a socket that stamps them, after so many at once: what fills a link needs something in hand.
    Stamped { per_sec: u32, at_once_count: u32 },
}

/// The other end.
#[derive(Debug)]
pub(super) enum Receiver {
    /// A program in the driver, which drops. It is larger than the other by far.
    Driver { _program: Box<Attachment> },
    /// A socket.
    Socket(UdpSocket),
}

/// What both ends saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub sent_count: u64,
    /// What a socket read.
    pub arrived: Option<Arrived>,
}

/// Datagrams that a socket stamped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    /// How many.
    pub frames_count: u64,
    /// Bytes as a wire counts them, after the first.
    pub wire_bytes: u64,
    /// From the first to the last.
    pub elapsed: Duration,
}

impl Flood {
    /// Opens the receiving end, in the second host.
    ///
    /// # Errors
    /// It could not be opened.
    pub fn receiver(&self, network: &Network) -> anyhow::Result<Receiver> {
        let host = &network.hosts()[1];
        host.run(|| match self.pace {
            Pace::Stamped { .. } => {
                let socket = UdpSocket::bind((host.ipv4(), PORT))?;
                setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
                // Beyond net.core.rmem_max: it may be kept waiting for its CPU, and must lose nothing for that.
                setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
                socket.set_read_timeout(Some(QUIET))?;
                Ok(Receiver::Socket(socket))
            }
            Pace::Sparse(_) => {
                // It loses all there is, whatever it is.
                let settings = Settings {
                    loss_threshold: u64::MAX,
                    ..Settings::default()
                };
                let program = Loaded::load(Program::Lossy, &settings)?;
                let program = program.attach(&host.interface().name, Mode::Native)?;
                Ok(Receiver::Driver {
                    _program: Box::new(program),
                })
            }
        })?
    }

    /// Sends for `duration`, from the first host, and waits for what is under way.
    ///
    /// # Errors
    /// A socket failed.
    pub fn run(
        &self,
        network: &Network,
        receiver: &Receiver,
        duration: Duration,
        stop: &AtomicBool,
    ) -> anyhow::Result<Seen> {
        thread::scope(|scope| {
            let receives = match receiver {
                Receiver::Socket(socket) => {
                    let cpu = self.cpu;
                    Some(scope.spawn(move || {
                        // Not where the switch is.
                        let _ = cpu.map(pin);
                        receive_all(socket)
                    }))
                }
                Receiver::Driver { .. } => None,
            };
            let _ = self.cpu.map(pin);
            // It sleeps between its few frames; the receiver, which reads as many, must not keep it from the next ones.
            let _ = fifo();
            let until = Until {
                started: Instant::now(),
                duration,
                stop,
            };
            let (per_sec, at_once_count) = match self.pace {
                Pace::Sparse(per_sec) => (per_sec, 0),
                Pace::Stamped { per_sec, at_once_count } => (per_sec, at_once_count),
            };
            let sent_count = self.trickle(network, (per_sec, at_once_count), &until)?;
            thread::sleep(QUIET);
            let arrived = match receives {
                Some(receives) => receives
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("the receiver's thread panicked")))?,
                None => None,
            };
            Ok(Seen { sent_count, arrived })
        })
    }

    /// Datagrams of a socket, a few at a time where there are many.
    fn trickle(
        &self,
        network: &Network,
        (per_sec, at_once_count): (u32, u32),
        until: &Until<'_>,
    ) -> anyhow::Result<u64> {
        let host = &network.hosts()[0];
        let to = SockaddrIn::from(SocketAddrV4::new(network.hosts()[1].ipv4(), PORT));
        let socket = host.run(|| UdpSocket::bind((host.ipv4(), 0)))??;
        let payload = vec![0; self.frame_bytes - HEADERS_BYTES];
        // Five thousand wake-ups a second are enough.
        let batch_count = (per_sec as usize).div_ceil(5_000);
        let parts: Vec<[IoSlice<'_>; 1]> = vec![[IoSlice::new(&payload)]; batch_count];
        let to = vec![Some(to); batch_count];
        let mut headers = MultiHeaders::preallocate(batch_count, None);
        let mut sent_count = 0;
        while until.goes_on() {
            let paced_count: u64 = u64::saturating_sub(sent_count, at_once_count.into());
            let due = Duration::from_secs_f64(paced_count as f64 / f64::from(per_sec));
            thread::sleep(due.saturating_sub(until.started.elapsed()));
            let sent = sendmmsg(
                socket.as_raw_fd(),
                &mut headers,
                &parts,
                to.as_slice(),
                [],
                MsgFlags::empty(),
            )
            .context("sending datagrams")?;
            sent_count += sent.count() as u64;
        }
        Ok(sent_count)
    }
}

/// When sending ends.
struct Until<'a> {
    started: Instant,
    duration: Duration,
    stop: &'a AtomicBool,
}

impl Until<'_> {
    fn goes_on(&self) -> bool {
        self.started.elapsed() < self.duration && !self.stop.load(Ordering::Relaxed)
    }
}

/// Reads until nothing comes: bytes on the wire after the first datagram, and the time between the first's and the last's stamps.
fn receive_all(socket: &UdpSocket) -> io::Result<Option<Arrived>> {
    let mut bytes = [0; 2048];
    let mut control = cmsg_space!(TimeSpec);
    let (mut first, mut last, mut wire_bytes, mut frames_count) = (None, Duration::ZERO, 0, 0);
    loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let Ok(message) = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())
        else {
            break;
        };
        let stamp = message.cmsgs()?.find_map(|told| match told {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
            _ => None,
        });
        let stamp = stamp.ok_or_else(|| io::Error::other("the kernel stamped a datagram with no time"))?;
        match first {
            None => first = Some(stamp),
            Some(_) => wire_bytes += (message.bytes + HEADERS_BYTES) as u64 + u64::from(ETHERNET_OVERHEAD_BYTES),
        }
        frames_count += 1;
        last = stamp;
    }
    Ok(first.filter(|first| last > *first).map(|first| Arrived {
        frames_count,
        wire_bytes,
        elapsed: last - first,
    }))
}
