//! A bad network on purpose: frames are lost, doubled, delayed (and so reordered) and corrupted, by seed.
//!
//! As `FaultInjector<D: Device>` in smoltcp's `src/phy/fault_injector.rs`, and tc-netem(8) in the kernel. What happens
//! to the n-th frame of a direction depends on the seed and on n alone: every frame draws the same number of random
//! values, so that turning one fault on does not move the others.

mod held;
mod options;

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, os::fd::BorrowedFd, time::Duration};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use self::held::Held;
pub use self::options::{DELAY_MAX, FaultOptions, FaultOptionsError, FaultRates, HELD_FRAMES_MAX};
use crate::{Clock, Instant, Misplaced, Peer, Port, PortCaps, PortStats, RxFrame, TxError};

/// A port that loses, doubles, delays and corrupts.
///
/// A delayed frame leaves in the first call of `wait`, `rx_burst` or `flush` after its time; `wait` never rests longer
/// than until then. All memory is taken at construction.
#[derive(Debug)]
pub struct Faults<P, C> {
    port: P,
    clock: C,
    tx: Way,
    rx: Way,
    /// A frame that the port below had no room for keeps its fate for the second try.
    tx_again: Option<Fate>,
}

/// What was done to the frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Frames lost on purpose.
    pub lost_count: u64,
    /// Frames that were followed by a copy.
    pub duplicated_count: u64,
    /// Frames held back.
    pub delayed_count: u64,
    /// Frames with a bit flipped.
    pub corrupted_count: u64,
    /// Frames lost because as many as `held_frames_max` were held already, or because the port below did not take them
    /// when their time came.
    pub overflow_count: u64,
}

/// Both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultsByDirection {
    /// Frames that came from the port below.
    pub rx: FaultCounts,
    /// Frames that were to be sent.
    pub tx: FaultCounts,
}

/// One direction.
#[derive(Debug)]
struct Way {
    rates: FaultRates,
    rng: Pcg64Mcg,
    held: Held,
    counts: FaultCounts,
    /// Where one frame is changed.
    scratch: Box<[u8]>,
}

/// What is to happen to one frame.
#[derive(Clone, Copy, Debug)]
struct Fate {
    lost: bool,
    duplicated: bool,
    corrupted: bool,
    /// Picks the bit that flips: modulo the frame's length in bits.
    bit: u64,
    delay: Option<Duration>,
}

impl Fate {
    /// Nothing happens, if the frame is not lost.
    fn is_plain(&self) -> bool {
        !self.duplicated && !self.corrupted && self.delay.is_none()
    }
}

impl Way {
    fn new(rates: FaultRates, rng: Pcg64Mcg, held_frames_max: usize, frame_bytes_max: usize) -> Way {
        let holds = rates.delay_ratio > 0.0 || rates.duplicate_ratio > 0.0;
        Way {
            rates,
            rng,
            held: Held::new(if holds { held_frames_max } else { 0 }, frame_bytes_max),
            counts: FaultCounts::default(),
            scratch: vec![0; frame_bytes_max].into(),
        }
    }

    fn draw(&mut self) -> Fate {
        let rates = self.rates;
        let lost = self.chance(rates.loss_ratio);
        let duplicated = self.chance(rates.duplicate_ratio);
        let corrupted = self.chance(rates.corrupt_ratio);
        let bit = self.rng.next_u64();
        let delayed = self.chance(rates.delay_ratio);
        let span_ns = (rates.delay_max - rates.delay_min).as_nanos() as u64;
        // The bias of the modulo is below 2⁻²⁷ for the longest span allowed.
        let delay = rates.delay_min + Duration::from_nanos(self.rng.next_u64() % (span_ns + 1));
        Fate {
            lost,
            duplicated,
            corrupted,
            bit,
            delay: delayed.then_some(delay),
        }
    }

    /// True for `ratio` of all draws; always for 1, never for 0.
    fn chance(&mut self, ratio: f64) -> bool {
        // 53 bits are what a double holds exactly: a uniform value in 0..1.
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        uniform < ratio
    }

    fn hold(&mut self, due: Instant, peer: Peer, stamp: Option<Instant>, len_bytes: usize) {
        if !self.held.push(due, peer, stamp, &self.scratch[..len_bytes]) {
            self.counts.overflow_count += 1;
        }
    }
}

impl<P: Port, C: Clock + Send> Faults<P, C> {
    /// A bad network in front of `port`. Delays are counted on `clock`.
    ///
    /// # Errors
    /// Options out of their bounds.
    pub fn new(port: P, clock: C, options: FaultOptions) -> Result<Faults<P, C>, FaultOptionsError> {
        options.check()?;
        let frame_bytes_max = port.caps().frame_bytes_max;
        let mut seeds = Pcg64Mcg::seed_from_u64(options.seed);
        let mut way = |rates| {
            Way::new(
                rates,
                Pcg64Mcg::from_rng(&mut seeds),
                options.held_frames_max,
                frame_bytes_max,
            )
        };
        let (rx, tx) = (way(options.rx), way(options.tx));
        Ok(Faults {
            port,
            clock,
            tx,
            rx,
            tx_again: None,
        })
    }

    /// What was done so far.
    pub fn counts(&self) -> FaultsByDirection {
        FaultsByDirection {
            rx: self.rx.counts,
            tx: self.tx.counts,
        }
    }

    /// The port below.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// Queues the frames whose time has come. Says whether there were any.
    fn release_tx(&mut self) -> io::Result<bool> {
        if self.tx.held.is_empty() {
            return Ok(false);
        }
        let now = self.clock.now();
        let batch_frames_max = self.port.caps().batch_frames_max;
        let mut released_count = 0usize;
        while let Some(frame) = self.tx.held.next_due(now) {
            if released_count.is_multiple_of(batch_frames_max) {
                // Behind whatever waits for a flush already, and then after every batch.
                self.port.flush()?;
            }
            released_count += 1;
            let fill = &mut |bytes: &mut [u8]| bytes.copy_from_slice(frame.bytes);
            if self.port.tx(frame.peer, frame.bytes.len(), fill).is_err() {
                self.tx.counts.overflow_count += 1;
            }
            self.tx.held.pop();
        }
        Ok(released_count > 0)
    }

    fn release_and_flush_tx(&mut self) -> io::Result<()> {
        match self.release_tx()? {
            true => self.port.flush(),
            false => Ok(()),
        }
    }

    /// Rests in the way of the port below, no longer than until a held frame is due.
    fn rest(&mut self, max: Duration, wait: impl FnOnce(&mut P, Duration) -> io::Result<()>) -> io::Result<()> {
        self.release_and_flush_tx()?;
        let due = [self.tx.held.earliest(), self.rx.held.earliest()];
        let rest = match due.into_iter().flatten().min() {
            Some(due) => due.saturating_since(self.clock.now()).min(max),
            None => max,
        };
        if rest > Duration::ZERO || max == Duration::ZERO {
            wait(&mut self.port, rest)?;
        }
        self.release_and_flush_tx()
    }

    /// `tx` of a frame that takes a detour through the scratch buffer.
    fn tx_changed(
        &mut self,
        to: Peer,
        len_bytes: usize,
        fill: &mut dyn FnMut(&mut [u8]),
        fate: Fate,
    ) -> Result<(), TxError> {
        let Faults { port, clock, tx, .. } = self;
        let Some(delay) = fate.delay else {
            // Filled by the port below, if it has room, and kept here for the copy.
            let scratch = &mut tx.scratch[..len_bytes];
            port.tx(to, len_bytes, &mut |bytes| {
                fill(bytes);
                scratch.copy_from_slice(bytes);
                if fate.corrupted {
                    flip(bytes, fate.bit);
                }
            })?;
            tx.counts.corrupted_count += u64::from(fate.corrupted);
            if fate.duplicated {
                tx.counts.duplicated_count += 1;
                tx.hold(Instant::ZERO, to, None, len_bytes);
            }
            return Ok(());
        };
        let now = clock.now();
        fill(&mut tx.scratch[..len_bytes]);
        if fate.duplicated {
            tx.counts.duplicated_count += 1;
            tx.hold(now, to, None, len_bytes);
        }
        if fate.corrupted {
            tx.counts.corrupted_count += 1;
            flip(&mut tx.scratch[..len_bytes], fate.bit);
        }
        tx.counts.delayed_count += 1;
        tx.hold(now + delay, to, None, len_bytes);
        Ok(())
    }
}

impl<P: Port, C: Clock + Send> Port for Faults<P, C> {
    fn caps(&self) -> PortCaps {
        self.port.caps()
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.rest(max, |port, rest| port.wait(rest))
    }

    fn wait_or(&mut self, max: Duration, bell: BorrowedFd<'_>) -> io::Result<()> {
        self.rest(max, |port, rest| port.wait_or(rest, bell))
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        self.release_and_flush_tx()?;
        let burst_frames_max = self.port.caps().batch_frames_max;
        let Faults { port, clock, rx, .. } = self;
        let now = clock.now();
        let mut burst = Burst {
            sink,
            handed_count: 0,
            burst_frames_max,
        };
        while burst.has_room() {
            let Some(frame) = rx.held.next_due(now) else { break };
            burst.hand(frame);
            rx.held.pop();
        }
        if burst.has_room() {
            port.rx_burst(&mut |frame| receive(rx, now, frame, &mut burst))?;
        }
        Ok(burst.handed_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        if len_bytes > self.tx.scratch.len() {
            return Err(TxError::TooLong);
        }
        let fate = match self.tx_again.take() {
            Some(fate) => fate,
            None => self.tx.draw(),
        };
        if fate.lost {
            self.tx.counts.lost_count += 1;
            return Ok(());
        }
        let result = match fate.is_plain() {
            true => self.port.tx(to, len_bytes, fill),
            false => self.tx_changed(to, len_bytes, fill, fate),
        };
        if result == Err(TxError::Full) {
            self.tx_again = Some(fate);
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        self.release_tx()?;
        self.port.flush()
    }

    fn stats(&self) -> PortStats {
        self.port.stats()
    }

    fn peer_addr(&self, peer: Peer) -> Option<SocketAddr> {
        self.port.peer_addr(peer)
    }

    fn misplaced(&self) -> Option<Misplaced> {
        self.port.misplaced()
    }
}

/// One call of `rx_burst`: how many frames it may still hand over.
struct Burst<'a> {
    sink: &'a mut dyn FnMut(RxFrame<'_>),
    handed_count: usize,
    burst_frames_max: usize,
}

impl Burst<'_> {
    fn has_room(&self) -> bool {
        self.handed_count < self.burst_frames_max
    }

    fn hand(&mut self, frame: held::Frame<'_>) {
        (self.sink)(RxFrame {
            from: frame.peer,
            bytes: frame.bytes,
            stamp: frame.stamp,
        });
        self.handed_count += 1;
    }
}

/// Lets one frame from the port below meet its fate. What finds no room in the burst is due at once.
fn receive(rx: &mut Way, now: Instant, frame: RxFrame<'_>, burst: &mut Burst<'_>) {
    let fate = rx.draw();
    if fate.lost {
        rx.counts.lost_count += 1;
        return;
    }
    if fate.is_plain() && burst.has_room() {
        burst.hand(held::Frame {
            peer: frame.from,
            stamp: frame.stamp,
            bytes: frame.bytes,
        });
        return;
    }
    let len_bytes = frame.bytes.len();
    let scratch = rx.scratch.get_mut(..len_bytes);
    let scratch = scratch.expect("no frame is longer than its port's caps().frame_bytes_max");
    scratch.copy_from_slice(frame.bytes);
    if fate.duplicated {
        rx.counts.duplicated_count += 1;
        rx.hold(now, frame.from, frame.stamp, len_bytes);
    }
    if fate.corrupted {
        rx.counts.corrupted_count += 1;
        flip(&mut rx.scratch[..len_bytes], fate.bit);
    }
    match fate.delay {
        Some(delay) => {
            rx.counts.delayed_count += 1;
            rx.hold(now + delay, frame.from, frame.stamp, len_bytes);
        }
        None if burst.has_room() => burst.hand(held::Frame {
            peer: frame.from,
            stamp: frame.stamp,
            bytes: &rx.scratch[..len_bytes],
        }),
        None => rx.hold(now, frame.from, frame.stamp, len_bytes),
    }
}

/// Flips one bit; an empty frame has none.
fn flip(frame: &mut [u8], bit: u64) {
    if !frame.is_empty() {
        let bit = (bit % (frame.len() as u64 * 8)) as usize;
        frame[bit / 8] ^= 1 << (bit % 8);
    }
}
