//! An end of a breakdown: a socket, or an AF_XDP ring, that says when its frames passed the stations it knows of.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use dataplane_ports::{
    stamped::{Stamp, StampClock, StampedOptions, StampedSocket, TxStation, WallClock},
    xdp::{XdpCopy, XdpPort, XdpWait},
};
use dataplane_waist::{Peer, Port, TxError};
use ebpf_host::{Attachment, Mode};

use super::{Wait, client::FRAME_BYTES, stages::Stations};
use crate::{
    backends::{Wiring, xdp},
    place::End,
};

/// How late an end that waits notices that it is to stop: long beside a round trip, short beside a person's patience.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(20);

/// One of the two.
pub(super) enum StampedEnd {
    /// Kernel UDP with SO_TIMESTAMPING.
    Socket {
        socket: Box<StampedSocket>,
        /// Who wrote last.
        from: Option<SocketAddr>,
        is_connected: bool,
    },
    /// AF_XDP in copy mode, whose completions are stamped.
    Ring {
        port: Box<XdpPort>,
        /// Frames queued: the number of the next.
        next_number: u64,
        /// Hands the frames to the ring.
        _program: Box<Attachment>,
    },
}

/// A frame that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) len_bytes: usize,
    /// It was longer than the buffer.
    pub(super) is_cut: bool,
    /// When the network stack took it, where there is one.
    pub(super) stack: Option<Stamp>,
}

impl StampedEnd {
    /// Opens the end of `wiring`, in the namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn open(wiring: &Wiring, wait: Wait, stations: Stations) -> anyhow::Result<StampedEnd> {
        if stations != Stations::Ring {
            let remote = match wiring.end {
                End::Client => wiring.remote.as_ref().map(|remote| remote.addr),
                // It answers whoever writes.
                End::Server => None,
            };
            let socket = StampedSocket::open(&StampedOptions {
                local: wiring.local.addr,
                remote,
                wait: wait.into(),
                hardware: false,
                interface: false,
            })?;
            let socket = Box::new(socket);
            return Ok(StampedEnd::Socket {
                socket,
                is_connected: remote.is_some(),
                from: None,
            });
        }
        if wiring.remote.is_none() {
            bail!("an AF_XDP end of a breakdown needs to know its peer's addresses");
        }
        let wait = match wait {
            Wait::Blocking => XdpWait::Poll,
            Wait::Spinning => XdpWait::Spin,
        };
        let how = (wait, Mode::Native, XdpCopy::Copy);
        let (port, program) = xdp::open_port(wiring, 0, how, xdp::TxStamps::On)?;
        Ok(StampedEnd::Ring {
            port: Box::new(port),
            next_number: 0,
            _program: Box::new(program),
        })
    }

    /// Its address.
    pub(super) fn local_addr(&self) -> SocketAddr {
        match self {
            StampedEnd::Socket { socket, .. } => socket.local_addr(),
            StampedEnd::Ring { port, .. } => port.local_addr(),
        }
    }

    /// The clock of its stamps, but for those that are of CLOCK_MONOTONIC already.
    pub(super) fn wall(&self) -> WallClock {
        match self {
            StampedEnd::Socket { .. } => WallClock::Realtime,
            StampedEnd::Ring { .. } => WallClock::Tai,
        }
    }

    /// The next frame; `None` if none came in the time that it waits.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn recv(&mut self, into: &mut [u8; FRAME_BYTES]) -> anyhow::Result<Option<Heard>> {
        match self {
            StampedEnd::Socket { socket, from, .. } => {
                let Some(received) = socket.recv(into).context("receiving")? else {
                    return Ok(None);
                };
                *from = received.from;
                Ok(Some(Heard {
                    len_bytes: received.len_bytes,
                    is_cut: received.is_cut,
                    stack: received.software,
                }))
            }
            StampedEnd::Ring { port, .. } => {
                port.wait(WAIT_MAX).context("waiting")?;
                let mut heard = None;
                // Of several, which only late replies make, the last is the one that is waited for.
                port.rx_burst(&mut |frame| {
                    let len_bytes = frame.bytes.len().min(FRAME_BYTES);
                    into[..len_bytes].copy_from_slice(&frame.bytes[..len_bytes]);
                    heard = Some(Heard {
                        len_bytes,
                        is_cut: frame.bytes.len() > FRAME_BYTES,
                        stack: None,
                    });
                })
                .context("receiving")?;
                Ok(heard)
            }
        }
    }

    /// Sends to its peer, or to whoever wrote last; the key by which its stamps are known. `None`: there was no room.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn send(&mut self, bytes: &[u8]) -> anyhow::Result<Option<u64>> {
        match self {
            StampedEnd::Socket {
                socket,
                is_connected: true,
                ..
            } => Ok(Some(socket.send(bytes)?)),
            StampedEnd::Socket { socket, from, .. } => {
                let to = from.context("nobody has written yet who could be answered")?;
                // Whoever asked may be gone, and a full buffer is loss: neither ends a server.
                Ok(socket.send_to(bytes, to).ok())
            }
            StampedEnd::Ring { port, next_number, .. } => {
                // The only peer that there is.
                match port.tx(Peer(0), bytes.len(), &mut |frame| frame.copy_from_slice(bytes)) {
                    Ok(()) => {}
                    Err(TxError::Full) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
                port.flush()?;
                *next_number += 1;
                Ok(Some(*next_number - 1))
            }
        }
    }

    /// The stamps that have come of frames that were sent: key, station, time.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn tx_stamps(&mut self, sink: &mut dyn FnMut(u64, TxStation, Stamp)) -> anyhow::Result<()> {
        match self {
            StampedEnd::Socket { socket, .. } => {
                socket.tx_stamps(&mut |stamp| sink(stamp.key, stamp.station, stamp.stamp))?;
            }
            StampedEnd::Ring { port, .. } => port.take_tx_stamps(&mut |stamp| {
                let at = Stamp {
                    at_ns: stamp.tai_ns,
                    clock: StampClock::Tai,
                };
                sink(stamp.number, TxStation::Sent, at);
            }),
        }
        Ok(())
    }
}
