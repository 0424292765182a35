//! [`Port`] over any provider: a frame is a SEND into a receive that the peer posted.
//!
//! Below it is a reliable connection, so frames to one peer arrive once and in order, or the connection breaks and none arrives
//! any more. A port promises less, and whoever uses it needs no more. A peer that takes no frames slows its senders down (RNR).

use std::{io, net::TcpStream, sync::Arc, time::Duration};

use dataplane_waist::{Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake, WrId, middleware::ClusterKey};

use crate::{
    handshake::{self, HandshakeError, Offer, Role},
    memory::Memory,
    provider::{Provider, ProviderError, Qp, Rts},
    qp::QpOptions,
    region::{Access, Local, MemoryKey, Registered},
    work::{Data, Operation, PostError, ReceiveRequest, SendRequest},
};

/// How large frames are, and how many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RdmaPortOptions {
    /// The largest frame.
    pub frame_bytes_max: usize,
    /// Frames to a peer that are not acknowledged, and frames from it that were not handed up.
    pub frames_max: usize,
    /// What one `rx_burst` delivers.
    pub batch_frames_max: usize,
    /// Whether `wait` returns at once.
    pub spins: bool,
    /// How queue pairs behave; their queues are made as long as `frames_max`.
    pub qp: QpOptions,
}

impl Default for RdmaPortOptions {
    fn default() -> RdmaPortOptions {
        RdmaPortOptions {
            frame_bytes_max: 9000,
            frames_max: 128,
            batch_frames_max: 64,
            spins: false,
            qp: QpOptions::default(),
        }
    }
}

#[derive(Debug)]
struct Link {
    qp: Qp<Rts>,
    /// Frames out, then frames in: `frames_max` places each.
    memory: Arc<Memory>,
    key: MemoryKey,
    /// Places of frames out that are free.
    free: Vec<u32>,
    /// A post was refused: it is broken. The device knows earlier, and asking it may be a system call.
    is_refused: bool,
}

/// A port whose peers are connected one by one.
#[derive(Debug)]
pub struct RdmaPort<P> {
    provider: P,
    options: RdmaPortOptions,
    links: Vec<Link>,
    frame: Vec<u8>,
    stats: PortStats,
}

/// Told apart from places of frames out.
const RECEIVED: u64 = 1 << 32;

impl<P: Provider> RdmaPort<P> {
    /// Without peers.
    pub fn new(provider: P, options: RdmaPortOptions) -> RdmaPort<P> {
        RdmaPort {
            provider,
            frame: Vec::with_capacity(options.frame_bytes_max),
            options,
            links: Vec::new(),
            stats: PortStats::default(),
        }
    }

    /// The device below.
    pub fn provider(&self) -> &P {
        &self.provider
    }

    /// The device below.
    pub fn provider_mut(&mut self) -> &mut P {
        &mut self.provider
    }

    /// Connects to whoever is behind `stream`: the next peer.
    ///
    /// # Errors
    /// The device has no room, or the handshake failed.
    pub fn establish(&mut self, by: (&TcpStream, Role, &ClusterKey)) -> Result<Peer, HandshakeError> {
        let RdmaPortOptions {
            frame_bytes_max,
            frames_max,
            qp,
            ..
        } = self.options;
        let pd = self.provider.create_pd();
        let memory = Memory::new(2 * frames_max * frame_bytes_max);
        let region = self.provider.register(pd, Arc::clone(&memory), Access::LOCAL);
        let options = QpOptions {
            send_requests_max: frames_max,
            receive_requests_max: frames_max,
            inline_bytes_max: 0,
            ..qp
        };
        let established = self.connect(pd, &options, region, by);
        let qp = match established {
            Ok(qp) => qp,
            Err(error) => {
                self.provider.deregister(region.key);
                return Err(error);
            }
        };
        self.links.push(Link {
            qp,
            memory,
            key: region.key,
            free: (0..frames_max as u32).rev().collect(),
            is_refused: false,
        });
        Ok(Peer(self.links.len() as u32 - 1))
    }

    fn connect(
        &mut self,
        pd: crate::region::Pd,
        options: &QpOptions,
        region: Registered,
        by: (&TcpStream, Role, &ClusterKey),
    ) -> Result<Qp<Rts>, HandshakeError> {
        let RdmaPortOptions {
            frame_bytes_max,
            frames_max,
            ..
        } = self.options;
        let qp = self.provider.create_qp(pd, options)?;
        let qp = self.provider.init(qp);
        for place in 0..frames_max {
            let request = receive_into(region.key, frames_max, frame_bytes_max, place as u32);
            let posted = self.provider.post_receive(&qp, request);
            posted.map_err(|error| ProviderError::System {
                asked: "posting receives",
                error: io::Error::other(error),
            })?;
        }
        let offer = Offer {
            qp: self.provider.address(&qp).expect("it was made above"),
            responder_reads_max: 1,
            // Peers send; they reach no memory.
            region: Registered {
                key: MemoryKey(0),
                address: 0,
                len_bytes: 0,
            },
        };
        handshake::establish(&mut self.provider, qp, &offer, by).map(|(qp, _)| qp)
    }

    /// Whether the connection to a peer is broken: nothing goes to it or comes from it any more.
    pub fn is_broken(&self, peer: Peer) -> bool {
        let link = self.links.get(peer.0 as usize);
        link.is_none_or(|link| self.provider.is_broken(&link.qp))
    }
}

fn receive_into(key: MemoryKey, frames_max: usize, frame_bytes_max: usize, place: u32) -> ReceiveRequest {
    ReceiveRequest {
        wr_id: WrId(RECEIVED | u64::from(place)),
        into: Local {
            key,
            at_bytes: ((frames_max + place as usize) * frame_bytes_max) as u64,
            len_bytes: frame_bytes_max as u32,
        },
    }
}

impl<P: Provider + Send> Port for RdmaPort<P> {
    fn caps(&self) -> PortCaps {
        PortCaps {
            name: self.provider.name(),
            frame_bytes_max: self.options.frame_bytes_max,
            batch_frames_max: self.options.batch_frames_max.min(self.options.frames_max),
            wake: if self.options.spins { Wake::Spins } else { Wake::Sleeps },
        }
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        match self.options.spins {
            true => Ok(()),
            false => self.provider.wait(max),
        }
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        self.flush()?;
        let RdmaPort {
            provider,
            options,
            links,
            frame,
            stats,
            ..
        } = self;
        let RdmaPortOptions {
            frame_bytes_max,
            frames_max,
            batch_frames_max,
            ..
        } = *options;
        let mut frames_count = 0;
        // Sent frames' completions are polled with the others, and must not use up the burst.
        while frames_count < batch_frames_max.min(frames_max) {
            let mut finished = None;
            if provider.poll_cq(1, &mut |completion| finished = Some(completion)) == 0 {
                break;
            }
            let Some(completion) = finished else { break };
            let Some(index) = links.iter().position(|link| link.qp.number() == completion.qp) else {
                continue;
            };
            let link = &mut links[index];
            let place = completion.wr_id.0 as u32;
            let is_received = completion.wr_id.0 & RECEIVED != 0;
            match (is_received, completion.result) {
                (false, result) => {
                    link.free.push(place);
                    stats.tx_dropped_count += u64::from(result.is_err());
                }
                (true, Ok(())) => {
                    let request = receive_into(link.key, frames_max, frame_bytes_max, place);
                    frame.resize(completion.len_bytes as usize, 0);
                    link.memory.read(request.into.at_bytes as usize, frame);
                    // Refused only where the connection has broken meanwhile: then no more frames come.
                    let _ = provider.post_receive(&link.qp, request);
                    frames_count += 1;
                    stats.rx_frames_count += 1;
                    sink(RxFrame {
                        from: Peer(index as u32),
                        bytes: frame,
                        stamp: None,
                    });
                }
                (true, Err(_)) => {}
            }
        }
        Ok(frames_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        let frame_bytes_max = self.options.frame_bytes_max;
        let link = self.links.get_mut(to.0 as usize).ok_or(TxError::NoPeer)?;
        if len_bytes > frame_bytes_max {
            return Err(TxError::TooLong);
        }
        let Some(&place) = link.free.last() else {
            self.stats.tx_dropped_count += 1;
            return Err(TxError::Full);
        };
        let at = place as usize * frame_bytes_max;
        let data = Data::Local(Local {
            key: link.key,
            at_bytes: at as u64,
            len_bytes: len_bytes as u32,
        });
        let request = SendRequest {
            wr_id: WrId(place.into()),
            operation: Operation::Send { data, imm: None },
            signalled: true,
        };
        // To a connection that is broken frames are lost.
        if link.is_refused {
            self.stats.tx_dropped_count += 1;
            return Err(TxError::Full);
        }
        // Before it is posted: a device reads it as soon as it knows of it.
        self.frame.resize(len_bytes, 0);
        fill(&mut self.frame);
        link.memory.write(at, &self.frame);
        if let Err(error) = self.provider.post_send(&link.qp, &request) {
            // There is room for as many as there are places: it has broken, and this frame is the first that is lost.
            link.is_refused = error != PostError::Full;
            self.stats.tx_dropped_count += 1;
            return Ok(());
        }
        link.free.pop();
        self.stats.tx_frames_count += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.provider.progress().map(drop)
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}
