//! An ack comes in: what it delivers, what that says about time and rate, and what follows from it.

use dataplane_waist::Instant;

use super::{NEVER, Sender, timers::Timer};
use crate::{
    AckSample, Controller, EcnMode, LossSample, LostPacket, Phase, RateSample,
    tcp::{
        scoreboard::{EVER_RESENT, LOST, RESENT, Record, SACKED},
        segment::{SACK_BLOCKS_MAX, SackBlock, Segment},
    },
};

/// What one ack brought.
#[derive(Debug, Default)]
pub struct Seen {
    pub acked_bytes: u64,
    pub acked_count: u32,
    pub delivered_bytes: u64,
    /// A segment that was sent once, before the time-out, arrived: the time-out was not for it (Linux: FLAG_ORIG_SACK_ACKED).
    pub is_original_delivered: bool,
    pub is_resent_acked: bool,
    pub is_newly_sacked: bool,
    /// A duplicate ack, or new SACK blocks: something arrived above a hole.
    pub is_dupack: bool,
    pub is_dsack: bool,
    /// When the oldest segment was sent that this ack covers and that was sent once.
    oldest_sent_ns: Option<u64>,
    /// The newest segment delivered, and the newest of those that were sent once.
    newest: Option<Record>,
    newest_once_ns: Option<u64>,
}

impl Seen {
    #[inline]
    fn deliver(&mut self, record: &Record) {
        self.delivered_bytes += u64::from(record.len_bytes);
        if !record.is(EVER_RESENT) {
            self.newest_once_ns = self.newest_once_ns.max(Some(record.sent_ns));
        }
        let is_newer = |newest: &Record| (record.sent_ns, record.start) > (newest.sent_ns, newest.start);
        if self.newest.as_ref().is_none_or(is_newer) {
            self.newest = Some(*record);
        }
    }
}

impl<C: Controller> Sender<C> {
    /// Takes an ack. One that acknowledges what was never sent is counted and ignored.
    pub fn on_segment(&mut self, now: Instant, segment: &Segment) {
        let now_ns = now.as_ns();
        if segment.ack > self.nxt {
            self.stats.malformed_count += 1;
            return;
        }
        let prior_in_flight_bytes = self.in_flight_bytes();
        let loss = self.loss_sample(now_ns);
        let is_window_limited = self.una < self.window_limited_end;
        let prior_lost_bytes = self.lost_bytes;
        let mut seen = Seen::default();

        if self.config.sack && segment.has_sack() {
            self.take_sacks(now_ns, segment, &mut seen);
        }
        if segment.ack > self.una {
            self.take_ack(now_ns, segment.ack, &mut seen);
        } else if segment.ack == self.una && segment.len_bytes == 0 && !self.board.is_empty() {
            seen.is_dupack = !self.config.sack || seen.is_newly_sacked;
        }
        self.window_end = self
            .window_end
            .max(segment.ack.saturating_add(segment.window_bytes.into()));

        self.delivered_bytes += seen.delivered_bytes;
        if seen.delivered_bytes > 0 {
            self.delivered_ns = now_ns;
        }
        let rtt_ns = self.take_round_trip(now_ns, segment, &seen);
        self.take_probe_ack(segment, &seen, &loss);
        let reorder_at_ns = self.find_lost(now_ns);
        if self.ways().marks_end_recovery {
            self.take_ecn_first(segment, &seen, &loss);
        }
        let phase_before = self.phase;
        let recovery_end = self.recovery_end;
        let credit_bytes = self.turn_phase(segment, &seen, &loss);
        if !self.ways().marks_end_recovery {
            self.take_ecn(segment, &loss);
        }
        let lost_bytes = self.lost_bytes - prior_lost_bytes;
        self.update_prr(credit_bytes, seen.acked_bytes > 0, lost_bytes > 0);

        let as_ns3_sees = self.marks_as_ns3_sees();
        let (ece, sent_end) = as_ns3_sees.unwrap_or((segment.ece && self.config.ecn != EcnMode::Off, self.nxt));
        let is_after_timeout = phase_before == Phase::Loss && self.phase != Phase::Loss;
        let acked_bytes = match is_after_timeout && self.ways().timeout_ends_without_growth {
            true => self.una.saturating_sub(recovery_end),
            false => seen.acked_bytes,
        };
        let rate = self.rate_sample(now_ns, &seen);
        self.controller.on_ack(&AckSample {
            now_ns,
            acked_bytes,
            delivered_bytes: seen.delivered_bytes,
            lost_bytes,
            in_flight_bytes: self.in_flight_bytes(),
            prior_in_flight_bytes,
            rtt_ns,
            srtt_ns: self.rtt.srtt_ns(),
            min_rtt_ns: self.rtt.min_ns(),
            acked_end: self.una,
            sent_end,
            delivered_total_bytes: self.delivered_bytes,
            lost_total_bytes: self.lost_bytes,
            ece,
            is_window_limited,
            phase: self.phase,
            rate,
        });
        self.pace_fraction_anew();
        self.settle_timers(now_ns, &seen, reorder_at_ns);
    }

    /// Below one segment the pause is the window, so it changes with it: the next segment leaves as late after the last as the window
    /// of now says, not the one of then (Swift, SIGCOMM'20 §3.5).
    #[inline]
    fn pace_fraction_anew(&mut self) {
        if self.controller.window_bytes() < u64::from(self.config.mss_bytes) {
            self.send_at_ns = self.last_sent_ns;
            self.pace(self.last_sent_ns, self.config.mss_bytes);
        }
    }

    /// The cumulative ack moves on.
    #[inline]
    fn take_ack(&mut self, now_ns: u64, ack: u64, seen: &mut Seen) {
        let min_rtt_ns = self.rtt.min_ns();
        let Self {
            board,
            rack,
            recovery_end,
            ..
        } = self;
        board.ack_to(ack, |record| {
            seen.acked_bytes += u64::from(record.len_bytes);
            seen.acked_count += 1;
            if record.is(EVER_RESENT) {
                seen.is_resent_acked = true;
            }
            if record.is(SACKED) {
                return;
            }
            if !record.is(EVER_RESENT) {
                seen.oldest_sent_ns.get_or_insert(record.sent_ns);
                seen.is_original_delivered |= record.end() <= *recovery_end;
            }
            seen.deliver(record);
            rack.on_delivered(record, now_ns, min_rtt_ns);
        });
        self.una = ack;
    }

    /// The SACK blocks, without what they said last time.
    fn take_sacks(&mut self, now_ns: u64, segment: &Segment, seen: &mut Seen) {
        let mut valid = [SackBlock::default(); SACK_BLOCKS_MAX];
        let mut valid_count = 0;
        for (index, block) in segment.sack_blocks().enumerate() {
            let is_nonsense = block.end <= block.start || block.end > self.nxt;
            if !is_nonsense && index == 0 && self.is_dsack(segment, block) {
                seen.is_dsack = true;
                if self.undo_from != NEVER && block.start >= self.undo_from {
                    self.undo_resent_count -= 1;
                }
                self.note_duplicate(segment);
                continue;
            }
            // An old ack may name what a newer one has covered.
            let is_stale = segment.ack < self.una && block.start < self.una;
            if is_nonsense || block.start <= segment.ack && !is_stale {
                self.stats.malformed_count += 1;
                continue;
            }
            let from = block.start.max(self.una);
            match self
                .seen_sacks
                .iter()
                .find(|known| known.start <= from && from < known.end)
            {
                // All but what it has grown by is marked already.
                Some(known) if known.start >= self.una || known.end > self.una => {
                    self.mark_sacked(now_ns, known.end.min(block.end), block.end, seen);
                }
                _ => self.mark_sacked(now_ns, from, block.end, seen),
            }
            valid[valid_count] = block;
            valid_count += 1;
        }
        if segment.ack >= self.una {
            self.seen_sacks = valid;
        }
    }

    /// RFC 2883 §4: a first block below the ack, or within the second.
    fn is_dsack(&self, segment: &Segment, first: SackBlock) -> bool {
        let within = |second: SackBlock| second.start <= first.start && first.end <= second.end;
        first.end <= segment.ack || segment.sack_blocks().nth(1).is_some_and(within)
    }

    fn mark_sacked(&mut self, now_ns: u64, from: u64, end: u64, seen: &mut Seen) {
        if from >= end {
            return;
        }
        let min_rtt_ns = self.rtt.min_ns();
        for index in self.board.index_of(from)..self.board.len() {
            let record = *self.board.get(index);
            if record.end() > end {
                // A part of a segment is not worth a record of its own: it is told again when the rest has come.
                break;
            }
            if record.start < from || record.is(SACKED) {
                continue;
            }
            let gone = match self.ways().resent_stays_in_flight {
                true => LOST,
                false => LOST | RESENT,
            };
            self.board.set_flags(index, (record.flags | SACKED) & !gone);
            seen.is_newly_sacked = true;
            if !record.is(EVER_RESENT) {
                seen.is_original_delivered |= record.end() <= self.recovery_end;
            }
            seen.deliver(&record);
            self.rack.on_delivered(&record, now_ns, min_rtt_ns);
        }
    }

    /// Works round trips in, and answers the newest, for the controller.
    #[inline]
    fn take_round_trip(&mut self, now_ns: u64, segment: &Segment, seen: &Seen) -> Option<u64> {
        let newest_ns = seen.newest_once_ns.map(|sent_ns| now_ns.saturating_sub(sent_ns).max(1));
        if let Some(rtt_ns) = newest_ns {
            self.rtt.on_min(rtt_ns);
        }
        let oldest_ns = seen.oldest_sent_ns.filter(|_| !seen.is_resent_acked);
        let sample_ns = match oldest_ns {
            Some(sent_ns) => Some(now_ns.saturating_sub(sent_ns)),
            None if seen.is_newly_sacked && !seen.is_resent_acked => newest_ns,
            // Only a timestamp knows which copy was answered (RFC 7323 §4.1).
            None if seen.acked_bytes > 0 && segment.timestamps && segment.ts_ecr != 0 => {
                let units = u64::from(self.timestamp(now_ns).wrapping_sub(segment.ts_ecr).max(1));
                Some(units.saturating_mul(self.config.timestamp_unit_ns)).filter(|&rtt_ns| rtt_ns <= now_ns)
            }
            None => None,
        };
        if let Some(rtt_ns) = sample_ns {
            self.rtt.on_sample(rtt_ns);
        }
        newest_ns
    }

    /// Finds what is lost; answers when more could be.
    #[inline]
    fn find_lost(&mut self, now_ns: u64) -> u64 {
        if self.config.rack {
            return self.mark_lost_by_time(now_ns);
        }
        if self.config.sack && self.phase != Phase::Loss {
            self.mark_lost_by_count(now_ns);
        }
        NEVER
    }

    /// A record is lost, for the first time or again.
    pub(super) fn mark_lost(&mut self, now_ns: u64, index: usize) {
        let record = *self.board.get(index);
        if record.flags & (LOST | RESENT) == LOST {
            return;
        }
        self.board.set_flags(index, (record.flags | LOST) & !RESENT);
        self.lost_bytes += u64::from(record.len_bytes);
        self.controller.on_packet_lost(&LostPacket {
            now_ns,
            bytes: record.len_bytes.into(),
            tx_in_flight_bytes: record.tx_in_flight_bytes.into(),
            lost_since_bytes: self.lost_bytes - record.lost_bytes,
            is_app_limited: record.is_app_limited,
        });
    }

    #[inline]
    pub(super) fn loss_sample(&self, now_ns: u64) -> LossSample {
        LossSample {
            now_ns,
            in_flight_bytes: self.in_flight_bytes(),
            acked_end: self.una,
            sent_end: self.nxt,
            srtt_ns: self.rtt.srtt_ns(),
            is_repeated: false,
        }
    }

    /// draft-cheng-iccrg-delivery-rate-estimation-02 §3.3.
    #[inline]
    fn rate_sample(&mut self, now_ns: u64, seen: &Seen) -> RateSample {
        if self.app_limited_until != 0 && self.delivered_bytes > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let Some(newest) = &seen.newest else {
            return RateSample::default();
        };
        // What is sent from now on begins its sending interval here.
        self.first_sent_ns = newest.sent_ns;
        let send_ns = newest.sent_ns.saturating_sub(newest.first_sent_ns);
        let ack_ns = now_ns.saturating_sub(newest.delivered_ns);
        let interval_ns = send_ns.max(ack_ns);
        RateSample {
            delivered_bytes: self.delivered_bytes - newest.delivered_bytes,
            // Shorter than the shortest round trip it cannot be: something was acknowledged that was never on the path.
            interval_ns: if interval_ns < self.rtt.min_ns() {
                0
            } else {
                interval_ns
            },
            prior_delivered_bytes: newest.delivered_bytes,
            tx_in_flight_bytes: newest.tx_in_flight_bytes.into(),
            lost_bytes: self.lost_bytes - newest.lost_bytes,
            is_app_limited: newest.is_app_limited,
        }
    }

    #[inline]
    fn settle_timers(&mut self, now_ns: u64, seen: &Seen, reorder_at_ns: u64) {
        // A window below one segment may leave nothing in flight to wait for, and yet a timer to wait with.
        let waits_for_nothing = self.ways().waits_below_segment && !self.done();
        if self.board.is_empty() && !waits_for_nothing {
            if self.timer != Timer::None {
                self.stop_timer();
            }
            if self.done() {
                self.board.free();
            }
            return;
        }
        if reorder_at_ns != NEVER {
            self.set_reorder_timer(now_ns, reorder_at_ns);
        } else if seen.acked_bytes > 0 || self.timer == Timer::Reorder {
            let is_partial = self.phase == Phase::Recovery && self.una < self.recovery_end;
            let is_later = is_partial && std::mem::replace(&mut self.is_partly_acked, is_partial);
            if !(is_later && self.config.is_impatient) {
                // RFC 6298 §5.3.
                self.start_timer(now_ns);
            }
        } else if self.timer == Timer::Probe && seen.is_newly_sacked {
            // Something is amiss now: losses are found by acks, and at last by the time-out.
            self.set_rto(now_ns);
        }
    }
}
