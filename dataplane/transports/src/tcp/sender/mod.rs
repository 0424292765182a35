//! The sending half: what leaves when. `ack.rs` takes acks in, `recovery.rs` decides what losses mean, `rack.rs` finds them by time,
//! `timers.rs` does what is due.

mod ack;
mod ns3;
mod rack;
mod recovery;
mod timers;

use dataplane_waist::Instant;

use self::{
    rack::Rack,
    recovery::{Frto, Prr},
    timers::Timer,
};
use super::{
    rtt::Rtt,
    scoreboard::{EVER_RESENT, Record, Scoreboard},
    segment::Segment,
    timer::{Tick, saturating_ns},
};
use crate::{Controller, EcnMode, Pacing, Phase, RecoveryTimer, SenderOptions, Unproven};

const NEVER: u64 = u64::MAX;
const NS_PER_SEC: u128 = 1_000_000_000;

/// What a sender counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderStats {
    /// Data segments sent, retransmissions among them.
    pub segments_count: u64,
    /// Segments sent again.
    pub retransmissions_count: u64,
    /// Retransmission time-outs.
    pub timeouts_count: u32,
    /// Time-outs and recoveries that turned out to be for nothing.
    pub undone_count: u32,
    /// Times that fast recovery began.
    pub recoveries_count: u32,
    /// Tail loss probes.
    pub probes_count: u32,
    /// Windows reduced for an ECN echo.
    pub ecn_reductions_count: u32,
    /// Acks beyond what was sent, and SACK blocks that are nonsense: ignored.
    pub malformed_count: u32,
}

/// The options, as they are needed per segment.
#[derive(Clone, Copy, Debug)]
struct Config {
    ack_delay_max_ns: u64,
    timestamp_unit_ns: u64,
    initial_window_bytes: u64,
    mss_bytes: u32,
    pacing_free_segments: u32,
    pacing: Pacing,
    ecn: EcnMode,
    unproven: Unproven,
    sack: bool,
    rack: bool,
    tlp: bool,
    frto: bool,
    /// In recovery only the first partial ack restarts the timer.
    is_impatient: bool,
    limited_transmit: bool,
    prr: bool,
    timestamps: bool,
    rto_randomised: bool,
    idle_restart: bool,
}

/// The sending half of a flow.
#[derive(Debug)]
pub struct Sender<C> {
    controller: C,
    /// The application has given this many bytes.
    written: u64,
    /// The first byte that is not acknowledged; the first that was never sent; the first that the receiver does not take.
    una: u64,
    nxt: u64,
    window_end: u64,
    board: Scoreboard,
    rtt: Rtt,
    timer: Timer,
    /// `NEVER` if none runs.
    timer_at_ns: u64,
    tick: Tick,
    /// Pacing: the next segment leaves no earlier.
    send_at_ns: u64,
    /// What of a burst may still leave in the same instant.
    burst_left_bytes: u32,
    last_sent_ns: u64,
    delivered_bytes: u64,
    delivered_ns: u64,
    lost_bytes: u64,
    first_sent_ns: u64,
    /// While fewer bytes are delivered, samples are of a sender that had too little to send. 0: it had enough.
    app_limited_until: u64,
    /// The window was the limit while what lies below this was sent.
    window_limited_end: u64,
    phase: Phase,
    /// Recovery ends when this is acknowledged.
    recovery_end: u64,
    /// Three duplicate acks below this tell nothing new (RFC 6582 §3.2 step 2); for flows without SACK.
    fast_retransmit_from: u64,
    /// Below this RFC 6675 has marked what is lost.
    marked_end: u64,
    /// Below this nothing unproven is left to send again; where recovery ended that had the last rescue retransmission (RFC 6675's
    /// RescueRxt).
    unproven_from: u64,
    rescued_end: u64,
    /// What could be undone: from where, how many retransmissions the receiver has not called duplicates, and when the first left.
    undo_from: u64,
    undo_resent_count: i32,
    resend_began_ns: u64,
    prr: Prr,
    rack: Rack,
    /// Where the probe in flight ends; 0: none is.
    probe_end: u64,
    /// The SACK blocks that were worked in last.
    seen_sacks: [super::segment::SackBlock; super::segment::SACK_BLOCKS_MAX],
    random: u64,
    dupacks_count: u32,
    /// Of a sender that is to do as ns-3 does.
    ns3: Option<Box<ns3::State>>,
    frto: Frto,
    probe_is_resend: bool,
    /// One segment may leave beyond the congestion window; beyond the receiver's, too.
    probe_due: bool,
    window_probe_due: bool,
    /// The first retransmission of a recovery does not wait for the window to have room (RFC 6675 §5, step 4.3).
    fast_retransmit_due: bool,
    /// A partial ack has come in this recovery.
    is_partly_acked: bool,
    is_paced_out: bool,
    cwr_due: bool,
    config: Config,
    stats: SenderStats,
}

impl<C: Controller> Sender<C> {
    /// A sender with nothing to send yet.
    pub fn new(options: &SenderOptions, controller: C) -> Sender<C> {
        Sender {
            controller,
            written: 0,
            una: 0,
            nxt: 0,
            // Until the first ack says more: the initial window fits any receiver.
            window_end: u64::from(u32::MAX),
            board: Scoreboard::default(),
            rtt: Rtt::new(options),
            timer: Timer::None,
            timer_at_ns: NEVER,
            tick: Tick::new(options.timer_tick, options.timer_tick_phase),
            send_at_ns: 0,
            burst_left_bytes: 0,
            last_sent_ns: 0,
            delivered_bytes: 0,
            delivered_ns: 0,
            lost_bytes: 0,
            first_sent_ns: 0,
            app_limited_until: 0,
            window_limited_end: 0,
            phase: Phase::Open,
            recovery_end: 0,
            fast_retransmit_from: 0,
            marked_end: 0,
            unproven_from: 0,
            rescued_end: 0,
            undo_from: NEVER,
            undo_resent_count: 0,
            resend_began_ns: 0,
            prr: Prr::default(),
            rack: Rack::default(),
            probe_end: 0,
            seen_sacks: Default::default(),
            random: options.seed,
            dupacks_count: 0,
            ns3: ns3::State::of(options),
            frto: Frto::Off,
            probe_is_resend: false,
            probe_due: false,
            window_probe_due: false,
            fast_retransmit_due: false,
            is_partly_acked: false,
            is_paced_out: false,
            cwr_due: false,
            config: Config {
                ack_delay_max_ns: saturating_ns(options.ack_delay_max),
                timestamp_unit_ns: saturating_ns(options.timestamp_unit).max(1),
                initial_window_bytes: options.initial_window_bytes(),
                mss_bytes: options.mss_bytes.max(1),
                pacing_free_segments: options.pacing_free_segments,
                pacing: options.pacing,
                ecn: options.ecn,
                unproven: match options.sack && !options.rack {
                    true => options.unproven,
                    false => Unproven::Nothing,
                },
                sack: options.sack,
                is_impatient: match options.recovery_timer {
                    RecoveryTimer::Rfc => !options.sack,
                    RecoveryTimer::EachAdvance => false,
                    RecoveryTimer::FirstPartial => true,
                },
                rack: options.rack && options.sack,
                tlp: options.tlp && options.sack,
                frto: options.frto,
                limited_transmit: options.limited_transmit,
                prr: options.prr,
                timestamps: options.timestamps,
                rto_randomised: options.rto_randomised,
                idle_restart: options.idle_restart,
            },
            stats: SenderStats::default(),
        }
    }

    /// Gives `bytes` more to send.
    pub fn write(&mut self, bytes: u64) {
        self.written = self.written.saturating_add(bytes);
    }

    /// The next segment to send now, if one may leave.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Segment> {
        let now_ns = now.as_ns();
        let is_in_burst = self.burst_left_bytes > 0 && now_ns == self.last_sent_ns;
        self.is_paced_out = now_ns < self.send_at_ns && !is_in_burst && !self.done();
        if self.is_paced_out || self.done() {
            if self.is_paced_out && self.window_bytes() < u64::from(self.config.mss_bytes) {
                // Below one segment the pause is the window.
                self.window_limited_end = self.nxt;
            }
            return None;
        }
        if std::mem::take(&mut self.probe_due) && self.may_probe() {
            return self.transmit_probe(now_ns);
        }
        if self.fast_retransmit_due && self.ways().partial_ack_sends {
            self.fast_retransmit_due = false;
            return self.transmit_whatever(now_ns);
        }
        if self.frto != Frto::NewDataOnly
            && let Some(index) = self.board.next_to_resend()
        {
            let is_fast = std::mem::take(&mut self.fast_retransmit_due);
            let may_leave = is_fast || self.may_leave(self.board.get(index).len_bytes);
            return may_leave.then(|| self.transmit_again(now_ns, index));
        }
        match self.new_data_bytes() {
            Some(len_bytes) if self.may_leave(len_bytes) => Some(self.transmit_new(now_ns, len_bytes)),
            Some(_) => {
                self.window_limited_end = self.nxt;
                None
            }
            None if self.frto == Frto::NewDataOnly && self.nxt <= self.recovery_end => {
                // RFC 5682 §2.1 step 2b: nothing new to send, so the time-out cannot be told from a spurious one.
                self.frto = Frto::Off;
                self.poll_transmit(now)
            }
            None => {
                if let Some((index, is_rescue)) = self.next_unproven()
                    && self.may_leave(self.board.get(index).len_bytes)
                {
                    if is_rescue {
                        self.rescued_end = self.recovery_end;
                    }
                    return Some(self.transmit_again(now_ns, index));
                }
                if self.written == self.nxt {
                    self.app_limited_until = (self.delivered_bytes + self.in_flight_bytes()).max(1);
                } else if self.board.is_empty() && self.timer == Timer::None {
                    self.set_persist(now_ns);
                }
                None
            }
        }
    }

    /// How long the next new segment is; nothing if there is none, or if the receiver has no room for it.
    fn new_data_bytes(&self) -> Option<u32> {
        let to_send = self.written - self.nxt;
        if to_send == 0 {
            return None;
        }
        let len = to_send.min(self.config.mss_bytes.into());
        let room = self.window_end.saturating_sub(self.nxt);
        if room >= len {
            return Some(len as u32);
        }
        if !self.board.is_empty() {
            return None;
        }
        // A window that is too small, or closed and probed (RFC 9293 §3.8.6.1).
        (room > 0 || self.window_probe_due).then(|| room.clamp(1, len) as u32)
    }

    /// The congestion window has room. One segment may always be in flight: below that, pacing makes the window.
    #[inline]
    fn may_leave(&self, len_bytes: u32) -> bool {
        let in_flight = self.in_flight_bytes();
        let is_free = in_flight == 0 && !self.ways().waits_below_segment;
        is_free || in_flight + u64::from(len_bytes) <= self.window_bytes()
    }

    fn transmit_new(&mut self, now_ns: u64, len_bytes: u32) -> Segment {
        if self.board.is_empty() {
            self.begin_flight(now_ns);
        }
        self.window_probe_due = false;
        let record = Record {
            start: self.nxt,
            len_bytes,
            ..self.stamp(now_ns, len_bytes)
        };
        self.board.push(record);
        self.nxt += u64::from(len_bytes);
        let cwr = std::mem::take(&mut self.cwr_due);
        self.transmit(
            now_ns,
            Segment {
                cwr,
                ..self.segment(now_ns, record.start, len_bytes, false)
            },
        )
    }

    fn transmit_again(&mut self, now_ns: u64, index: usize) -> Segment {
        let Record {
            start,
            len_bytes,
            flags,
            ..
        } = *self.board.get(index);
        let stamp = self.stamp(now_ns, len_bytes);
        self.board.resent(index, stamp);
        self.stats.retransmissions_count += 1;
        if self.resend_began_ns == 0 {
            self.resend_began_ns = now_ns;
        }
        if self.undo_from != NEVER && (flags & EVER_RESENT == 0 || self.undo_resent_count > 0) {
            self.undo_resent_count += 1;
        }
        self.transmit(now_ns, self.segment(now_ns, start, len_bytes, true))
    }

    /// The first segment of a new flight: after idling the window and the samples begin anew.
    fn begin_flight(&mut self, now_ns: u64) {
        let idle_ns = now_ns.saturating_sub(self.last_sent_ns);
        if self.config.idle_restart && self.stats.segments_count > 0 && idle_ns > self.rtt.rto_ns() {
            self.controller
                .on_idle_restart(now_ns, self.config.initial_window_bytes);
        }
        self.first_sent_ns = now_ns;
        self.delivered_ns = now_ns;
    }

    /// A record of a segment that leaves now.
    #[inline]
    fn stamp(&self, now_ns: u64, len_bytes: u32) -> Record {
        let in_flight = self.in_flight_bytes() + u64::from(len_bytes);
        Record {
            sent_ns: now_ns,
            delivered_bytes: self.delivered_bytes,
            delivered_ns: self.delivered_ns,
            first_sent_ns: self.first_sent_ns,
            lost_bytes: self.lost_bytes,
            tx_in_flight_bytes: u32::try_from(in_flight).unwrap_or(u32::MAX),
            len_bytes,
            is_app_limited: self.app_limited_until != 0,
            ..Record::default()
        }
    }

    #[inline]
    fn segment(&self, now_ns: u64, seq: u64, len_bytes: u32, is_retransmission: bool) -> Segment {
        let ect = match self.config.ecn {
            EcnMode::Off => false,
            // RFC 3168 §6.1.5: not retransmissions, whose loss would go unseen.
            EcnMode::Classic => !is_retransmission,
            // Linux marks all of them (`tcp_ca_needs_ecn`).
            EcnMode::Dctcp => true,
        };
        let timestamps = self.config.timestamps;
        let ts_val = if timestamps { self.timestamp(now_ns) } else { 0 };
        Segment {
            seq,
            len_bytes,
            timestamps,
            ts_val,
            ect,
            is_retransmission,
            ..Segment::default()
        }
    }

    /// A time in the unit of timestamps; never 0, which says "none".
    fn timestamp(&self, at_ns: u64) -> u32 {
        (at_ns / self.config.timestamp_unit_ns) as u32 + 1
    }

    #[inline]
    fn transmit(&mut self, now_ns: u64, segment: Segment) -> Segment {
        if self.burst_left_bytes == 0 || now_ns != self.last_sent_ns {
            self.burst_left_bytes = u32::try_from(self.controller.burst_bytes()).unwrap_or(u32::MAX);
        }
        self.burst_left_bytes = self.burst_left_bytes.saturating_sub(segment.len_bytes);
        self.last_sent_ns = now_ns;
        self.stats.segments_count += 1;
        if let Some(ns3) = &mut self.ns3 {
            ns3.echo.on_sent(&segment);
        }
        self.prr.out_bytes += u64::from(segment.len_bytes);
        self.pace(now_ns, segment.len_bytes);
        if matches!(self.timer, Timer::None | Timer::Probe | Timer::Persist) {
            self.start_timer(now_ns);
        }
        segment
    }

    /// The next segment leaves when this one's bytes have passed at the rate.
    #[inline]
    fn pace(&mut self, now_ns: u64, len_bytes: u32) {
        if let Some(bytes_per_sec) = self.pacing_bytes_per_sec() {
            let gap_ns = u128::from(len_bytes) * NS_PER_SEC / u128::from(bytes_per_sec.max(1));
            let gap_ns = u64::try_from(gap_ns).unwrap_or(NEVER);
            self.send_at_ns = self.send_at_ns.max(now_ns).saturating_add(gap_ns);
        }
    }

    #[inline]
    fn pacing_bytes_per_sec(&self) -> Option<u64> {
        if let Some(rate) = self.controller.pacing_bytes_per_sec() {
            return Some(rate);
        }
        let srtt_ns = self.rtt.srtt_ns();
        let is_free = self.stats.segments_count <= self.config.pacing_free_segments.into();
        if self.config.pacing == Pacing::Off || srtt_ns == 0 || is_free {
            return None;
        }
        // net.ipv4.tcp_pacing_ss_ratio 200 %, tcp_pacing_ca_ratio 120 %.
        let percent = if self.controller.is_slow_start() { 200 } else { 120 };
        let per_100_sec = u128::from(self.window_bytes()) * percent * NS_PER_SEC / u128::from(srtt_ns);
        Some(u64::try_from(per_100_sec / 100).unwrap_or(u64::MAX))
    }

    /// The congestion window now, in bytes: the controller's, or what recovery makes of it.
    #[inline]
    pub fn window_bytes(&self) -> u64 {
        match self.phase {
            Phase::Recovery | Phase::Cwr if self.reduces_in_steps() => self.prr.window_bytes,
            _ => self.controller.window_bytes(),
        }
    }

    /// What is thought to be in the network, in bytes.
    #[inline]
    pub fn in_flight_bytes(&self) -> u64 {
        let pipe = self.board.pipe_bytes();
        let counts_dupacks = self.config.limited_transmit || self.phase != Phase::Open;
        match (self.config.sack, counts_dupacks) {
            (true, true) => pipe,
            // Nothing leaves for a duplicate ack.
            (true, false) => pipe + self.board.sacked_bytes(),
            (false, true) => pipe.saturating_sub(self.guessed_bytes()),
            (false, false) => pipe,
        }
    }

    /// Bytes that duplicate acks stand for, in a flow without SACK.
    fn guessed_bytes(&self) -> u64 {
        let count = self.kept_guesses_count().unwrap_or(self.dupacks_count);
        u64::from(count) * u64::from(self.config.mss_bytes)
    }

    /// Everything written has been acknowledged.
    #[inline]
    pub fn done(&self) -> bool {
        self.una == self.written
    }

    /// Bytes that the receiver has acknowledged, from the first on.
    pub fn acked_bytes(&self) -> u64 {
        self.una
    }

    /// Bytes that were sent at least once.
    pub fn sent_bytes(&self) -> u64 {
        self.nxt
    }

    /// Bytes sent and not acknowledged, wherever they are.
    pub fn outstanding_bytes(&self) -> u64 {
        self.board.outstanding_bytes()
    }

    /// What it does about losses.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Smoothed round-trip time in nanoseconds; 0 before the first sample.
    pub fn srtt_ns(&self) -> u64 {
        self.rtt.srtt_ns()
    }

    /// The retransmission time-out in nanoseconds, backed off.
    pub fn rto_ns(&self) -> u64 {
        self.rtt.rto_ns()
    }

    /// Its controller.
    pub fn controller(&self) -> &C {
        &self.controller
    }

    /// What it counted.
    pub fn stats(&self) -> &SenderStats {
        &self.stats
    }

    /// Its memory beside itself, in bytes: 0 while everything is acknowledged.
    pub fn heap_bytes(&self) -> usize {
        self.board.heap_bytes()
    }
}
