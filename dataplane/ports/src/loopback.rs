//! Two ports in one process with a ring each way: no kernel, no copy beyond filling a slot. What the software above a
//! port costs is measured over this one, and it is the port that exists everywhere.

use std::{io, sync::Arc, time::Duration};

use dataplane_waist::{Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake};

use crate::sys::{
    region::{Geometry, Region, Way},
    ring::{PushError, RingEnd},
};

/// The size of the two rings between two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Frames that each ring holds; a power of two of at most 65 536.
    pub slots_count: usize,
    /// The largest frame; at most 65 536. A region takes about `2 × slots_count × frame_bytes_max` bytes.
    pub frame_bytes_max: usize,
    /// The most frames of one `rx_burst`. `tx` publishes by itself when so many wait for `flush`.
    pub batch_frames_max: usize,
}

impl Default for RingOptions {
    fn default() -> RingOptions {
        RingOptions {
            slots_count: 256,
            frame_bytes_max: 9000,
            batch_frames_max: 32,
        }
    }
}

impl RingOptions {
    pub(crate) fn geometry(&self) -> Result<Geometry, String> {
        if self.batch_frames_max == 0 || self.batch_frames_max > self.slots_count {
            return Err(format!(
                "batch_frames_max is {}; it must be 1 to slots_count, which is {}",
                self.batch_frames_max, self.slots_count
            ));
        }
        Geometry::new(self.slots_count, self.frame_bytes_max)
    }
}

/// One end of the link. The other end is [`Peer`]`(0)`.
#[derive(Debug)]
pub struct LoopbackPort {
    ring: RingPort,
}

/// Two ends of a new link.
///
/// # Panics
/// On options out of their bounds: they are the program's own.
pub fn pair(options: &RingOptions) -> (LoopbackPort, LoopbackPort) {
    let geometry = options.geometry().unwrap_or_else(|why| panic!("{why}"));
    let region = Arc::new(Region::private(geometry));
    let end = |way| {
        let ring = RingEnd::new(Arc::clone(&region), way).expect("the indices of a new region are zero");
        LoopbackPort {
            ring: RingPort::new("loopback", ring, geometry, options.batch_frames_max),
        }
    };
    (end(Way::AToB), end(Way::BToA))
}

impl Port for LoopbackPort {
    fn caps(&self) -> PortCaps {
        self.ring.caps
    }
    fn wait(&mut self, _max: Duration) -> io::Result<()> {
        Ok(())
    }
    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        self.ring.rx_burst(sink)
    }
    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        self.ring.tx(to, len_bytes, fill)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.ring.flush()
    }
    fn stats(&self) -> PortStats {
        self.ring.stats
    }
}

/// What the loopback and the shared-memory port have in common: a [`RingEnd`] with a port's counters and bounds.
#[derive(Debug)]
pub(crate) struct RingPort {
    pub(crate) caps: PortCaps,
    pub(crate) stats: PortStats,
    ring: RingEnd,
    /// A corrupt peer index found by `tx`, which cannot say so; `flush` does.
    failed: Option<io::Error>,
}

impl RingPort {
    pub(crate) fn new(name: &'static str, ring: RingEnd, geometry: Geometry, batch_frames_max: usize) -> RingPort {
        RingPort {
            caps: PortCaps {
                name,
                frame_bytes_max: geometry.frame_bytes_max(),
                batch_frames_max,
                wake: if geometry.sleeps() { Wake::Sleeps } else { Wake::Spins },
            },
            stats: PortStats::default(),
            ring,
            failed: None,
        }
    }

    pub(crate) fn wait(&mut self, max: Duration) {
        if self.caps.wake == Wake::Sleeps && !max.is_zero() && self.ring.sleep(max) {
            self.stats.syscalls_count += 1;
        }
    }

    #[inline]
    pub(crate) fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        let pulled = self.ring.pull(self.caps.batch_frames_max, |bytes| {
            sink(RxFrame {
                from: Peer(0),
                bytes,
                stamp: None,
            })
        })?;
        self.stats.rx_frames_count += pulled.frames_count as u64;
        self.stats.malformed_count += pulled.malformed_count as u64;
        Ok(pulled.frames_count)
    }

    #[inline]
    pub(crate) fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        if to != Peer(0) {
            return Err(TxError::NoPeer);
        }
        if len_bytes > self.caps.frame_bytes_max {
            return Err(TxError::TooLong);
        }
        if let Err(error) = self.ring.push(len_bytes, fill) {
            if let PushError::Corrupt(corrupt) = error {
                self.failed = Some(corrupt.into());
            }
            self.stats.tx_dropped_count += 1;
            return Err(TxError::Full);
        }
        self.stats.tx_frames_count += 1;
        if self.ring.unpublished_count() >= self.caps.batch_frames_max {
            self.stats.syscalls_count += u64::from(self.ring.publish());
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.stats.syscalls_count += u64::from(self.ring.publish());
        Ok(())
    }
}
