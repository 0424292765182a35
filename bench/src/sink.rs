//! The receiving end of a flood: counts every frame of one stream, once, and says what else came.

use std::{
    collections::BTreeMap,
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use dataplane_waist::{Clock, Instant, Port, PortStats};
use dataplane_wire::{
    Reject, echo,
    frame::{self, Kind},
};
use serde::{Deserialize, Serialize};

use crate::load::flood::FRAMES_COUNT_MAX;

/// Frames with numbers below this warm caches and neighbour entries: they are accounted for as all others, and nothing
/// else is measured with them.
pub const WARM_UP_FRAMES_COUNT: u64 = 64;

/// What a sink has counted, as its process reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkReport {
    /// Frames of the stream, each number once.
    pub received_count: u64,
    /// Frames whose number had come before.
    pub duplicate_count: u64,
    /// Frames that came after one with a higher number.
    pub reordered_count: u64,
    /// Frames handed up that are not of the stream, by reason; only reasons that occurred.
    pub rejects: BTreeMap<String, u64>,
    /// Frames that the receive side lost and told us of.
    pub rx_dropped_count: u64,
    /// Of these, those for which its memory had no place, where the port tells ([`PortStats::rx_no_buffer_count`]).
    #[serde(default)]
    pub rx_no_buffer_count: u64,
    /// Frames of senders that are not the peer.
    pub strangers_count: u64,
    /// Frames that the port itself refused.
    pub malformed_count: u64,
    /// CPU time between the first frame after the warm-up and one of the last; `None` if too few came.
    pub busy: Option<Busy>,
}

/// CPU time for a number of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Busy {
    /// Frames received meanwhile.
    pub frames_count: u64,
    /// CPU time used meanwhile, in nanoseconds.
    pub cpu_ns: u64,
    /// How long that was, in nanoseconds.
    pub elapsed_ns: u64,
}

/// Counts the frames of one stream.
#[derive(Debug)]
pub struct Counts {
    kind: Kind,
    stream_id: u32,
    /// One bit a number. Zeroed memory costs nothing until it is touched.
    seen: Vec<u64>,
    seq_end: u64,
    received_count: u64,
    /// Of `received_count`, those after the warm-up.
    measured_count: u64,
    duplicate_count: u64,
    reordered_count: u64,
    rejects: [u64; Reject::ALL.len()],
    /// All frames, whatever became of them.
    handed_up_count: u64,
}

impl Counts {
    /// Nothing so far of the stream `stream_id`.
    pub fn new(stream_id: u32) -> Counts {
        Counts::of(Kind::EchoRequest, stream_id)
    }

    /// Nothing so far of the replies to the stream `stream_id`, which bear the numbers of what they reply to.
    pub fn of_replies(stream_id: u32) -> Counts {
        Counts::of(Kind::EchoReply, stream_id)
    }

    fn of(kind: Kind, stream_id: u32) -> Counts {
        Counts {
            kind,
            stream_id,
            seen: vec![0; (FRAMES_COUNT_MAX / 64) as usize],
            seq_end: 0,
            received_count: 0,
            measured_count: 0,
            duplicate_count: 0,
            reordered_count: 0,
            rejects: [0; Reject::ALL.len()],
            handed_up_count: 0,
        }
    }

    /// Takes one frame in: checked whole, its payload's checksum included.
    #[inline]
    pub fn take(&mut self, bytes: &[u8]) {
        self.handed_up_count += 1;
        match self.seq(bytes) {
            Ok(seq) => self.mark(seq),
            Err(reject) => self.rejects[reject.index()] += 1,
        }
    }

    /// Frames of the stream, each once.
    pub fn received_count(&self) -> u64 {
        self.received_count
    }

    /// Frames whose number had come before.
    pub fn duplicate_count(&self) -> u64 {
        self.duplicate_count
    }

    /// Frames that came after one with a higher number.
    pub fn reordered_count(&self) -> u64 {
        self.reordered_count
    }

    fn seq(&self, bytes: &[u8]) -> Result<u64, Reject> {
        let frame = frame::parse(bytes)?;
        if frame.header.kind != self.kind {
            return Err(Reject::Kind);
        }
        if echo::parse(frame.payload)?.client != self.stream_id {
            return Err(Reject::Stranger);
        }
        match frame.header.slot < FRAMES_COUNT_MAX {
            true => Ok(frame.header.slot),
            false => Err(Reject::Length),
        }
    }

    #[inline]
    fn mark(&mut self, seq: u64) {
        let (word, bit) = (&mut self.seen[(seq / 64) as usize], 1 << (seq % 64));
        if *word & bit != 0 {
            self.duplicate_count += 1;
            return;
        }
        *word |= bit;
        self.received_count += 1;
        self.measured_count += u64::from(seq >= WARM_UP_FRAMES_COUNT);
        if seq < self.seq_end {
            self.reordered_count += 1;
        }
        self.seq_end = self.seq_end.max(seq + 1);
    }

    /// All frames, whatever became of them.
    pub fn handed_up_count(&self) -> u64 {
        self.handed_up_count
    }

    /// What was counted here, and by the port that handed it up.
    pub fn report(&self, port: PortStats, busy: Option<Busy>) -> SinkReport {
        let rejects = Reject::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), self.rejects[reason.index()]))
            .filter(|(_, count)| *count > 0)
            .collect();
        SinkReport {
            received_count: self.received_count,
            duplicate_count: self.duplicate_count,
            reordered_count: self.reordered_count,
            rejects,
            rx_dropped_count: port.rx_dropped_count,
            rx_no_buffer_count: port.rx_no_buffer_count,
            strangers_count: port.strangers_count,
            malformed_count: port.malformed_count,
            busy,
        }
    }
}

/// The longest wait for a frame.
const WAIT_MAX: Duration = Duration::from_millis(10);
/// The end of all waiting for frames that still come.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Frames between two readings of the CPU clock, which is a system call.
const CHECKPOINT_FRAMES_COUNT: u64 = 1024;

/// How many frames a sink is to wait for; unknown at first.
#[derive(Debug)]
pub struct Expected(AtomicU64);

impl Default for Expected {
    fn default() -> Expected {
        Expected(AtomicU64::new(u64::MAX))
    }
}

impl Expected {
    /// From now on it is known: what the sender's port has given to the kernel.
    pub fn set(&self, frames_count: u64) {
        self.0.store(frames_count, Ordering::Release);
    }

    /// As [`Expected::set`], from the last words of the parent; other words change nothing.
    pub fn hear(&self, words: &str) {
        if let Ok(frames_count) = words.trim().parse() {
            self.set(frames_count);
        }
    }
}

/// Decides when nothing is on its way any more.
///
/// A frame can be on its way for long: one that waits in a CPU's backlog for `ksoftirqd`, which on a busy CPU waits for its
/// turn as any thread does (seen: more than 50 ms). So a pause alone proves little while frames are missing.
#[derive(Debug)]
struct Drain {
    start: Instant,
    quiet_since: Instant,
    quiet_looks_count: u32,
}

impl Drain {
    /// After the last missing frame: a duplicate would come at once.
    const QUIET_COMPLETE: Duration = Duration::from_millis(5);
    /// While frames are missing, which may have been lost where the sink does not see it.
    const QUIET_MISSING: Duration = Duration::from_secs(1);
    /// A thread that was off its CPU has not looked meanwhile.
    const LOOKS_COUNT: u32 = 4;

    fn new(now: Instant) -> Drain {
        Drain {
            start: now,
            quiet_since: now,
            quiet_looks_count: 0,
        }
    }

    /// One look: did frames come, and how many are accounted for by now?
    fn is_over(&mut self, now: Instant, came: bool, accounted_count: u64, expected: &Expected) -> bool {
        match came {
            true => (self.quiet_since, self.quiet_looks_count) = (now, 0),
            false => self.quiet_looks_count += 1,
        }
        let quiet = match accounted_count >= expected.0.load(Ordering::Acquire) {
            true => Drain::QUIET_COMPLETE,
            false => Drain::QUIET_MISSING,
        };
        let is_quiet = self.quiet_looks_count >= Drain::LOOKS_COUNT && now.saturating_since(self.quiet_since) >= quiet;
        is_quiet || now.saturating_since(self.start) >= DRAIN_MAX
    }
}

/// Takes frames in until `stop` says so and nothing more comes.
///
/// `cpu_ns` reads what this end has used of its CPU.
///
/// # Errors
/// A port that breaks.
pub fn run(
    mut port: Box<dyn Port>,
    stream_id: u32,
    clock: &dyn Clock,
    cpu_ns: fn() -> u64,
    expected: &Expected,
    stop: &mut dyn FnMut() -> bool,
) -> io::Result<SinkReport> {
    let mut counts = Counts::new(stream_id);
    let mut meter = Meter::default();
    let mut drain: Option<Drain> = None;
    let batch_frames_max = port.caps().batch_frames_max;
    let mut burst_was_full = false;
    loop {
        // Behind a full burst more is waiting, as a rule; asking whether it is would cost a system call.
        if !burst_was_full {
            port.wait(WAIT_MAX)?;
        }
        let taken_count = port.rx_burst(&mut |frame| counts.take(frame.bytes))?;
        burst_was_full = taken_count >= batch_frames_max;
        meter.note(counts.measured_count, || (clock.now(), cpu_ns()));
        let Some(drain) = &mut drain else {
            if stop() {
                drain = Some(Drain::new(clock.now()));
            }
            continue;
        };
        let accounted_count = counts.handed_up_count + lost_count(port.stats());
        if drain.is_over(clock.now(), taken_count > 0, accounted_count, expected) {
            return Ok(counts.report(port.stats(), meter.busy()));
        }
    }
}

/// Frames that the port has seen and not handed up.
pub fn lost_count(port: PortStats) -> u64 {
    port.rx_dropped_count + port.strangers_count + port.malformed_count
}

/// Waits until a counter of received frames stands still, and reports what it says: the end of a sink that is a program. It
/// knows no numbers of frames, so it sees neither duplicates nor order.
///
/// # Errors
/// The counter's.
pub fn drain<E>(
    clock: &dyn Clock,
    expected: &Expected,
    mut received_count: impl FnMut() -> Result<u64, E>,
) -> Result<SinkReport, E> {
    const STEP: Duration = Duration::from_millis(2);
    let mut drain = Drain::new(clock.now());
    let mut last_count = received_count()?;
    loop {
        std::thread::sleep(STEP);
        let count = received_count()?;
        if drain.is_over(clock.now(), count != last_count, count, expected) {
            return Ok(SinkReport {
                received_count: count,
                ..SinkReport::default()
            });
        }
        last_count = count;
    }
}

/// What the CPU clock said at the first frame, and at the last checkpoint.
#[derive(Debug, Default)]
struct Meter {
    first: Option<Reading>,
    last: Option<Reading>,
    next_count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    frames_count: u64,
    at: Instant,
    cpu_ns: u64,
}

impl Meter {
    #[inline]
    fn note(&mut self, frames_count: u64, read: impl FnOnce() -> (Instant, u64)) {
        if frames_count == 0 || frames_count < self.next_count {
            return;
        }
        self.next_count = frames_count + CHECKPOINT_FRAMES_COUNT;
        let (at, cpu_ns) = read();
        let reading = Reading {
            frames_count,
            at,
            cpu_ns,
        };
        match self.first {
            None => self.first = Some(reading),
            Some(_) => self.last = Some(reading),
        }
    }

    fn busy(&self) -> Option<Busy> {
        let (first, last) = (self.first?, self.last?);
        Some(Busy {
            frames_count: last.frames_count - first.frames_count,
            cpu_ns: last.cpu_ns.saturating_sub(first.cpu_ns),
            elapsed_ns: (last.at - first.at).as_nanos() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use dataplane_echo::RequestTemplate;
    use proptest::prelude::*;

    use super::*;

    fn frame(stream_id: u32, seq: u64) -> Vec<u8> {
        let template = RequestTemplate::new(stream_id, 64).expect("64 bytes are enough");
        let mut frame = vec![0; 64];
        template.stamp(&mut frame, seq, 0);
        frame
    }

    #[test]
    fn each_number_counts_once_and_everything_else_has_its_place() {
        let mut counts = Counts::new(7);
        for seq in [0, 1, 3, 2, 2, 64, 63, FRAMES_COUNT_MAX - 1] {
            counts.take(&frame(7, seq));
        }
        counts.take(&frame(8, 5));
        counts.take(&frame(7, FRAMES_COUNT_MAX));
        let mut damaged = frame(7, 9);
        damaged[60] ^= 1;
        counts.take(&damaged);
        counts.take(b"something else");
        let report = counts.report(PortStats::default(), None);
        assert_eq!(
            (report.received_count, report.duplicate_count, report.reordered_count),
            (7, 1, 2)
        );
        assert_eq!(counts.measured_count, 2, "64 and the last are no warm-up");
        let rejects: Vec<_> = report
            .rejects
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        assert_eq!(
            rejects,
            [("length", 1), ("payload_checksum", 1), ("short", 1), ("stranger", 1)]
        );
    }

    #[test]
    fn the_meter_begins_at_the_first_frame_and_needs_a_second_reading() {
        let mut meter = Meter::default();
        let mut at = |count, ns| meter.note(count, || (Instant::from_ns(ns), ns / 2));
        at(0, 1);
        at(3, 100);
        at(500, 400);
        assert_eq!(meter.busy(), None);
        meter.note(2000, || (Instant::from_ns(1100), 550));
        let busy = Busy {
            frames_count: 1997,
            cpu_ns: 500,
            elapsed_ns: 1000,
        };
        assert_eq!(meter.busy(), Some(busy));
    }

    #[test]
    fn a_counter_is_read_until_it_has_what_was_sent() {
        let clock = dataplane_waist::MonotonicClock::new();
        let (expected, mut looks_count) = (Expected::default(), 0);
        expected.set(20);
        let report = drain(&clock, &expected, || {
            looks_count += 1;
            Ok::<_, std::convert::Infallible>(looks_count.min(20))
        });
        assert_eq!(report.unwrap_or_else(|never| match never {}).received_count, 20);
        assert_eq!(drain(&clock, &expected, || Err::<u64, _>("gone")), Err("gone"));
    }

    #[test]
    fn a_pause_ends_a_drain_at_once_only_when_nothing_is_missing() {
        let expected = Expected::default();
        expected.set(100);
        let at = |ms: u64| Instant::from_ns(ms * 1_000_000);
        // Looks 2 ms apart from 0 on; frames come in the first.
        let ends_ms = |accounted: fn(u64) -> u64| {
            let mut drain = Drain::new(at(0));
            (0..5_000)
                .step_by(2)
                .find(|ms| drain.is_over(at(*ms), *ms == 0, accounted(*ms), &expected))
        };
        assert_eq!(ends_ms(|_| 100), Some(8), "complete: four looks, 5 ms");
        assert_eq!(ends_ms(|_| 36), Some(1_000), "64 are missing");
        assert_eq!(
            ends_ms(|ms| if ms < 300 { 36 } else { 100 }),
            Some(300),
            "lost where the sink sees it"
        );
        let mut drain = Drain::new(at(0));
        let ends = (0..10_000)
            .step_by(2)
            .find(|ms| drain.is_over(at(*ms), true, 0, &expected));
        assert_eq!(ends, Some(5_000), "frames of others never end");
    }

    proptest! {
        #[test]
        fn whatever_the_order_each_number_counts_once(seqs in prop::collection::vec(0u64..200, 0..400)) {
            let mut counts = Counts::new(7);
            for seq in &seqs {
                counts.take(&frame(7, *seq));
            }
            let unique: std::collections::BTreeSet<_> = seqs.iter().collect();
            prop_assert_eq!(counts.received_count as usize, unique.len());
            prop_assert_eq!(counts.duplicate_count as usize, seqs.len() - unique.len());
        }

        #[test]
        fn any_bytes_are_counted_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut counts = Counts::new(7);
            counts.take(&bytes);
            prop_assert_eq!(counts.received_count + counts.rejects.iter().sum::<u64>(), 1);
        }
    }
}
