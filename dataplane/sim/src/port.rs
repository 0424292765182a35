//! A host's port: two queues that the simulator fills and empties between turns.

use std::{collections::VecDeque, io, mem, time::Duration};

use dataplane_waist::{Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake};

/// A simulated NIC. [`Peer`]`(i)` is host `i`, on every host's port; a host may send to itself.
///
/// Frames are whole buffers that move between port and links and are used again, so nothing is allocated once as many
/// are under way as ever will be.
#[derive(Debug)]
pub struct SimPort {
    caps: PortCaps,
    hosts_count: u32,
    rx_frames_max: usize,
    rx: VecDeque<(Peer, Vec<u8>)>,
    /// Queued by `tx`, until `flush`.
    batch: Vec<(Peer, Vec<u8>)>,
    /// Flushed: the simulator takes them after the turn.
    pub(crate) sent: Vec<(Peer, Vec<u8>)>,
    /// Buffers to be used again. The simulator lends its pool for the turn.
    pub(crate) pool: Vec<Vec<u8>>,
    stats: PortStats,
}

/// A port's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortOptions {
    /// The longest frame, in the sense of [`PortCaps::frame_bytes_max`].
    pub frame_bytes_max: usize,
    /// As [`PortCaps::batch_frames_max`].
    pub batch_frames_max: usize,
    /// Received frames that wait for the host at most; more are dropped and counted, as in a full NIC ring.
    pub rx_frames_max: usize,
}

impl Default for PortOptions {
    fn default() -> PortOptions {
        PortOptions {
            // What an Ethernet frame of 1500 bytes carries behind IPv4 and UDP (RFC 791 §3.1, RFC 768).
            frame_bytes_max: 1472,
            batch_frames_max: 16,
            // The default size of a receive ring of Linux's igb, ixgbe and i40e drivers is 256 or 512 descriptors
            // (IGB_DEFAULT_RXD in drivers/net/ethernet/intel/igb/igb.h).
            rx_frames_max: 256,
        }
    }
}

impl SimPort {
    pub(crate) fn new(options: PortOptions, hosts_count: u32) -> SimPort {
        SimPort {
            caps: PortCaps {
                name: "sim",
                frame_bytes_max: options.frame_bytes_max,
                batch_frames_max: options.batch_frames_max,
                wake: Wake::Spins,
            },
            hosts_count,
            rx_frames_max: options.rx_frames_max,
            rx: VecDeque::new(),
            batch: Vec::new(),
            sent: Vec::new(),
            pool: Vec::new(),
            stats: PortStats::default(),
        }
    }

    /// A frame arrives. Gives the buffer back if there is no room.
    pub(crate) fn deliver(&mut self, from: Peer, bytes: Vec<u8>) -> Option<Vec<u8>> {
        if self.rx.len() == self.rx_frames_max {
            self.stats.rx_dropped_count += 1;
            return Some(bytes);
        }
        self.rx.push_back((from, bytes));
        None
    }

    pub(crate) fn has_rx(&self) -> bool {
        !self.rx.is_empty()
    }

    /// Forgets what is queued: the process that owned the socket is gone. The counters stay.
    pub(crate) fn reset(&mut self, pool: &mut Vec<Vec<u8>>) {
        let rx = self.rx.drain(..);
        let frames = rx.chain(self.batch.drain(..)).chain(self.sent.drain(..));
        pool.extend(frames.map(|(_, bytes)| bytes));
    }
}

impl Port for SimPort {
    fn caps(&self) -> PortCaps {
        self.caps
    }

    /// Returns at once: virtual time passes between turns only.
    fn wait(&mut self, _max: Duration) -> io::Result<()> {
        Ok(())
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        let frames_count = self.rx.len().min(self.caps.batch_frames_max);
        for (from, bytes) in self.rx.drain(..frames_count) {
            let stamp = None;
            sink(RxFrame {
                from,
                bytes: &bytes,
                stamp,
            });
            self.pool.push(bytes);
        }
        self.stats.rx_frames_count += frames_count as u64;
        Ok(frames_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        if len_bytes > self.caps.frame_bytes_max {
            return Err(TxError::TooLong);
        }
        if to.0 >= self.hosts_count {
            return Err(TxError::NoPeer);
        }
        if self.batch.len() == self.caps.batch_frames_max {
            self.stats.tx_dropped_count += 1;
            return Err(TxError::Full);
        }
        let mut bytes = self.pool.pop().unwrap_or_default();
        bytes.resize(len_bytes, 0);
        fill(&mut bytes);
        self.batch.push((to, bytes));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stats.tx_frames_count += self.batch.len() as u64;
        if self.sent.is_empty() {
            mem::swap(&mut self.sent, &mut self.batch);
        } else {
            self.sent.append(&mut self.batch);
        }
        Ok(())
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}
