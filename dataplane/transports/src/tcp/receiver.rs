//! The receiving half: what arrived, when an ack is due, and what it says.
//!
//! Acks leave by [`Receiver::poll_transmit`]. There are at most two at a time: under DCTCP a change of marks sends what was owed
//! under the old mark first (RFC 8257 §3.2), then the new.

use dataplane_waist::Instant;

use super::{
    ranges::{Inserted, Ranges},
    segment::{SACK_BLOCKS_MAX, SackBlock, Segment},
    timer::{Tick, saturating_ns},
};
use crate::{EcnMode, ReceiverOptions};

const NEVER: u64 = u64::MAX;

/// What a receiver counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// Data segments.
    pub segments_count: u64,
    /// Acks sent.
    pub acks_count: u64,
    /// Segments of which every byte was there already.
    pub duplicates_count: u32,
    /// Segments that left a hole before them.
    pub out_of_order_count: u32,
    /// Segments with a congestion mark.
    pub marked_count: u32,
    /// Segments outside the window, beyond 64 bits, or one hole too many: ignored.
    pub malformed_count: u32,
}

/// The receiving half of a flow.
#[derive(Debug)]
pub struct Receiver {
    /// The first byte that has not arrived.
    next: u64,
    out_of_order: Ranges,
    /// Arrived twice, to be told in the next ack.
    dsack: Option<SackBlock>,
    ack_delay_ns: u64,
    tick: Tick,
    /// When an owed ack leaves at last.
    ack_at_ns: u64,
    /// What was owed under the other mark when the mark changed.
    owed_before_change: Option<u64>,
    mss_bytes: u32,
    window_bytes: u32,
    /// Bytes that no ack was sent for.
    owed_bytes: u64,
    quick_acks_left: u32,
    ts_recent: u32,
    /// What the last ack said: a timestamp is echoed only if its segment is the first since (RFC 7323 §4.3).
    last_ack: u64,
    ecn: EcnMode,
    /// Marks on segments that begin before this do not count: 0, or with `marks_must_advance` behind the last that was marked.
    marks_from: u64,
    marks_must_advance: bool,
    /// The state of the echo: ECE is set.
    echo: bool,
    sack: bool,
    has_timestamps: bool,
    ack_now: bool,
    stats: ReceiverStats,
}

impl Receiver {
    /// A receiver that waits for byte 0.
    pub fn new(options: &ReceiverOptions) -> Receiver {
        Receiver {
            next: 0,
            out_of_order: Ranges::default(),
            dsack: None,
            ack_delay_ns: saturating_ns(options.ack_delay),
            tick: Tick::new(options.timer_tick, options.timer_tick_phase),
            ack_at_ns: NEVER,
            owed_before_change: None,
            mss_bytes: options.mss_bytes.max(1),
            window_bytes: options.window_bytes,
            owed_bytes: 0,
            quick_acks_left: options.quick_acks_count,
            ts_recent: 0,
            last_ack: 0,
            ecn: options.ecn,
            marks_from: 0,
            marks_must_advance: options.marks_must_advance,
            echo: false,
            sack: options.sack,
            has_timestamps: false,
            ack_now: false,
            stats: ReceiverStats::default(),
        }
    }

    /// Takes a data segment; `ce` says that the network marked it. An ack is ignored.
    pub fn on_segment(&mut self, now: Instant, segment: &Segment, ce: bool) {
        if segment.len_bytes == 0 {
            return;
        }
        let Some(end) = segment.seq.checked_add(segment.len_bytes.into()) else {
            self.stats.malformed_count += 1;
            return;
        };
        if end > self.next.saturating_add(self.window_bytes.into()) {
            self.stats.malformed_count += 1;
            self.ack_now = true;
            return;
        }
        self.stats.segments_count += 1;
        self.note_mark(segment, ce);
        if segment.timestamps {
            if !self.has_timestamps || segment.seq <= self.last_ack {
                self.ts_recent = segment.ts_val;
            }
            self.has_timestamps = true;
        }
        if segment.seq == self.next && self.out_of_order.is_empty() {
            // The straight line: in order, and nothing is missing.
            self.next = end;
            self.owed_bytes += u64::from(segment.len_bytes);
            self.plan_ack(now.as_ns());
        } else {
            self.take_out_of_line(SackBlock {
                start: segment.seq,
                end,
            });
            self.ack_now = true;
        }
    }

    /// Data that is not simply the next: a duplicate, one after a hole, one that fills a hole. Each is acknowledged at once
    /// (RFC 5681 §4.2).
    fn take_out_of_line(&mut self, block: SackBlock) {
        if block.end <= self.next {
            self.stats.duplicates_count += 1;
            self.dsack = Some(block);
        } else if block.start <= self.next {
            if block.start < self.next {
                self.dsack = Some(SackBlock {
                    end: self.next,
                    ..block
                });
            }
            let before = self.next;
            self.next = self.out_of_order.advance(block.end);
            self.owed_bytes += self.next - before;
        } else {
            match self.out_of_order.insert(block) {
                Inserted::New => self.stats.out_of_order_count += 1,
                Inserted::Duplicate => {
                    self.stats.duplicates_count += 1;
                    self.dsack = Some(block);
                }
                Inserted::Refused => self.stats.malformed_count += 1,
            }
        }
    }

    /// The echo of congestion marks.
    #[inline]
    fn note_mark(&mut self, segment: &Segment, ce: bool) {
        self.stats.marked_count += u32::from(ce);
        let ce = ce && segment.seq >= self.marks_from;
        if ce && self.marks_must_advance {
            self.marks_from = segment.seq + 1;
        }
        match self.ecn {
            EcnMode::Off => {}
            EcnMode::Classic => {
                // RFC 3168 §6.1.3: until the sender says CWR; a mark on that very segment counts anew.
                if segment.cwr {
                    self.echo = false;
                }
                self.echo |= ce;
            }
            EcnMode::Dctcp => {
                if ce != self.echo {
                    // RFC 8257 §3.2: what is owed leaves with the old mark, and then this at once.
                    if self.owed_bytes > 0 {
                        self.owed_before_change = Some(self.next);
                        self.owed_bytes = 0;
                    }
                    self.echo = ce;
                    self.ack_now = true;
                }
            }
        }
    }

    #[inline]
    fn plan_ack(&mut self, now_ns: u64) {
        // RFC 5681 §4.2: at least every second full-sized segment.
        if self.ack_delay_ns == 0 || self.quick_acks_left > 0 || self.owed_bytes >= 2 * u64::from(self.mss_bytes) {
            self.quick_acks_left = self.quick_acks_left.saturating_sub(1);
            self.ack_now = true;
        } else if self.ack_at_ns == NEVER {
            self.ack_at_ns = self.tick.round_up(now_ns.saturating_add(self.ack_delay_ns));
        }
    }

    /// The next ack, if one is due.
    #[inline]
    pub fn poll_transmit(&mut self, _now: Instant) -> Option<Segment> {
        if let Some(ack) = self.owed_before_change.take() {
            return Some(self.ack(ack, !self.echo));
        }
        if !self.ack_now {
            return None;
        }
        self.ack_now = false;
        self.ack_at_ns = NEVER;
        self.owed_bytes = 0;
        let mut segment = self.ack(self.next, self.echo);
        if self.sack && (self.dsack.is_some() || !self.out_of_order.is_empty()) {
            self.push_sack(&mut segment);
        }
        Some(segment)
    }

    #[inline]
    fn ack(&mut self, ack: u64, ece: bool) -> Segment {
        self.stats.acks_count += 1;
        self.last_ack = ack;
        Segment {
            ack,
            window_bytes: self.window_bytes,
            timestamps: self.has_timestamps,
            ts_ecr: self.ts_recent,
            ece,
            ..Segment::default()
        }
    }

    fn push_sack(&mut self, segment: &mut Segment) {
        let mut free_count = SACK_BLOCKS_MAX;
        if let Some(twice) = self.dsack.take() {
            free_count -= usize::from(segment.push_sack(twice));
            // RFC 2883 §4: then the block that the duplicate lies in.
            if let Some(around) = self.out_of_order.around(twice.start) {
                free_count -= usize::from(segment.push_sack(around));
            }
        }
        for &block in self.out_of_order.blocks().iter().take(free_count) {
            segment.push_sack(block);
        }
    }

    /// When it wants [`Receiver::on_wake`].
    #[inline]
    pub fn wake_at(&self) -> Option<Instant> {
        (self.ack_at_ns != NEVER).then(|| Instant::from_ns(self.ack_at_ns))
    }

    /// Time has passed: a delayed ack may be due.
    pub fn on_wake(&mut self, now: Instant) {
        if self.ack_at_ns <= now.as_ns() {
            self.ack_at_ns = NEVER;
            self.ack_now = true;
        }
    }

    /// Bytes that arrived in order: what the application was given, once.
    #[inline]
    pub fn received_bytes(&self) -> u64 {
        self.next
    }

    /// What it counted.
    pub fn stats(&self) -> &ReceiverStats {
        &self.stats
    }

    /// Its memory beside itself, in bytes: 0 while nothing is out of order.
    pub fn heap_bytes(&self) -> usize {
        self.out_of_order.heap_bytes()
    }
}
