//! The switches of a TCP, and two presets: a Linux of 2008 and one of 2026.

use std::time::Duration;

/// How congestion marks travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EcnMode {
    /// Segments are not ECN-capable.
    #[default]
    Off,
    /// RFC 3168: the receiver echoes a mark until it sees that the sender has reacted.
    Classic,
    /// RFC 8257: the receiver echoes exactly which bytes were marked.
    Dctcp,
}

/// How segments leave when the controller has no rate of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pacing {
    /// As bursts: everything that the window allows at once.
    #[default]
    Off,
    /// At 2 windows per smoothed round trip in slow start and 1.2 after it, as Linux does under the qdisc fq
    /// (`net.ipv4.tcp_pacing_ss_ratio`, `tcp_pacing_ca_ratio`).
    Window,
}

/// What [`SenderOptions::rto_min`] bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtoFloor {
    /// The RTO itself: max(RTOmin, SRTT + 4 RTTVAR), RFC 6298 §2.4.
    #[default]
    Total,
    /// Only the variance: SRTT + max(RTOmin, 4 RTTVAR), as Linux does (`__tcp_set_rto`, `tcp_rtt_estimator`).
    Variance,
}

/// What may leave in recovery when nothing is left that is known to be lost, and nothing new: RFC 6675 §4, NextSeg's rules 3 and 4.
/// Only of a sender with `sack` and without `rack`, which finds such losses by time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unproven {
    /// Nothing.
    Nothing,
    /// What lies below the highest SACK: rule 3. Linux before RACK (`tcp_can_forward_retransmit`).
    BelowSacks,
    /// The same, and once in each recovery the last segment that no SACK names: rule 4, the "rescue" retransmission.
    #[default]
    Rfc6675,
    /// All that no SACK names, from the first on: ns-3.37 (`TcpTxBuffer::NextSeg`).
    Everything,
}

/// Which acks restart the retransmission timer in recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryTimer {
    /// Of a flow without SACK only the first partial one (RFC 6582 §3.2 step 3), with SACK each that advances (RFC 6298 §5.3).
    #[default]
    Rfc,
    /// Each that advances. Linux; RFC 6582 §4 calls it slow but steady.
    EachAdvance,
    /// Only the first partial one: ns-3.37 (`TcpSocketBase::ProcessAck`).
    FirstPartial,
}

/// Where ns-3.37 does not do what an RFC says, so that its results can be had from this sender, too. All are off unless asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ns3Ways {
    /// A loss halves what is thought to be in the network once it is seen (`EnterRecovery`). RFC 6675 §5, step 4.2: what was sent
    /// and not acknowledged (FlightSize).
    pub halves_pipe: bool,
    /// A partial ack sends a segment whatever the window says, and a new one if none is known to be lost (`ProcessAck`, `DoRetransmit`).
    /// RFC 6675 §5, step C: if the window has room.
    pub partial_ack_sends: bool,
    /// Each time-out reduces ssthresh, also one of a segment that a time-out has sent before (`ReTxTimeout` looks at a flag that
    /// it has just taken away). RFC 5681 §3.1: then it is kept.
    pub repeated_timeouts_reduce: bool,
    /// NewReno grows by acks: each adds a segment in slow start, and SMSS²/cwnd after it (RFC 5681 §3.1, equations 2 and 3). Ours
    /// counts bytes, as that section recommends and Linux does (RFC 3465).
    pub grows_per_ack: bool,
    /// An echo of a mark ends recovery, and slow start after a time-out, and reduces the window again (`ReceivedAck`, `EnterCwr`); until all
    /// that was sent before it is acknowledged no loss begins a recovery (`DupAck`). RFC 3168 §6.1.2 and RFC 8257 §3.5: one reduction in a
    /// window of data, by a mark or by a loss.
    pub marks_end_recovery: bool,
    /// Without SACK the segments that duplicate acks were taken to stand for still count as arrived when recovery is over, and if the ack
    /// then stops at one of them, that is taken for lost and sent again (`TcpTxBuffer::DiscardUpTo`); three duplicate acks begin a recovery
    /// where the last one ended. RFC 6582 §3.2, steps 2 and 3: what recovery has counted ends with it, and only an ack beyond its end may
    /// begin the next.
    pub keeps_guesses: bool,
    /// The ack that ends the slow start after a time-out grows the window only for what it covers beyond what had been sent when the timer
    /// fired (`ProcessAck`, CA_LOSS). RFC 5681 §3.1: each ack of new data does.
    pub timeout_ends_without_growth: bool,
    /// A retransmission that a SACK says has arrived counts as in flight until the ack passes it (`TcpTxBuffer::Update` leaves it among the
    /// retransmitted). RFC 6675 §4, SetPipe: only what no SACK names is.
    pub resent_stays_in_flight: bool,
    /// With SACK recovery begins with the third duplicate ack, or with one that comes when the second segment is known to be lost
    /// (`DupAck`); until then what is lost is sent again as the window allows. RFC 6675 §5: as soon as the first segment is known to be lost.
    pub recovers_on_dupacks: bool,
    /// A window below one segment lets nothing leave before the next time-out (`SendPendingData`). RFC 5681 §3.1 and RFC 8257 §3.3: a window
    /// is of one segment at least.
    pub waits_below_segment: bool,
}

/// What a sender does. Made by a preset or [`SenderOptions::default`], then changed field by field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SenderOptions {
    /// Payload of a full segment, in bytes; 1 or more.
    pub mss_bytes: u32,
    /// Segments that may be in flight before the first ack. Controllers get it from their own options; the sender needs it
    /// for idle restart.
    pub initial_window_segments: u32,
    /// Selective acknowledgements: RFC 2018, and recovery by RFC 6675. Without it NewReno recovery, RFC 6582.
    pub sack: bool,
    /// What recovery sends when nothing is known to be lost.
    pub unproven: Unproven,
    /// Which acks restart the retransmission timer in recovery.
    pub recovery_timer: RecoveryTimer,
    /// What ns-3 does otherwise than the RFCs.
    pub ns3: Ns3Ways,
    /// Losses are found by time, RFC 8985. Needs `sack`; without it three duplicate acks decide.
    pub rack: bool,
    /// Tail loss probes, RFC 8985 §7. Needs `sack`.
    pub tlp: bool,
    /// Spurious time-outs are recognised by new data, RFC 5682.
    pub frto: bool,
    /// The first duplicate acks send new segments, RFC 3042.
    pub limited_transmit: bool,
    /// A reduction is spread over a round trip, RFC 6937. Without it the window drops at once.
    pub prr: bool,
    /// A timestamp in each segment, RFC 7323: round trips of retransmissions, and the Eifel detection (RFC 3522).
    pub timestamps: bool,
    /// What one unit of a timestamp is. Linux: 1 ms.
    pub timestamp_unit: Duration,
    /// The RTO before the first round trip is known.
    pub rto_initial: Duration,
    /// The least RTO; see `rto_floor`.
    pub rto_min: Duration,
    /// The greatest RTO, backed off or not.
    pub rto_max: Duration,
    /// What `rto_min` bounds.
    pub rto_floor: RtoFloor,
    /// Up to half the RTO is added at random, so that flows which timed out together do not come back together
    /// (Vasudevan et al., SIGCOMM'09 §5).
    pub rto_randomised: bool,
    /// Timers fire only at multiples of this, rounded up: 4 ms is HZ=250. Zero: high resolution. Pacing is always exact.
    pub timer_tick: Duration,
    /// Where this host's ticks stand; less than `timer_tick`. Hosts whose ticks coincide retransmit together.
    pub timer_tick_phase: Duration,
    /// The longest that the receiver may delay an ack, for the probe time-out of a lone segment (RFC 8985 §7.2).
    pub ack_delay_max: Duration,
    /// How segments leave when the controller has no rate of its own.
    pub pacing: Pacing,
    /// How many of a flow's first segments leave unpaced. Linux: 10 (`tcp_update_skb_after_send`).
    pub pacing_free_segments: u32,
    /// Congestion marks.
    pub ecn: EcnMode,
    /// After more than an RTO without sending, the window is the initial one (RFC 5681 §4.1).
    pub idle_restart: bool,
    /// Of whatever is drawn at random.
    pub seed: u64,
}

impl SenderOptions {
    /// What Linux 2.6.24 to 2.6.27 does (2008), Debian's HZ=250: SACK with three duplicate acks, F-RTO, limited transmit,
    /// timestamps; no RACK, TLP or PRR. Initial window 3 (RFC 3390 at 1460 bytes), initial RTO 3 s, RTOmin 200 ms as the floor
    /// of the variance, no ECN, no pacing.
    ///
    /// Left out, because it shows only in reordering and in the shape of one round trip: FACK, the adaptive duplicate-ack
    /// threshold, and rate halving (here the window drops at once).
    pub fn linux_2008() -> SenderOptions {
        SenderOptions {
            initial_window_segments: 3,
            unproven: Unproven::BelowSacks,
            rack: false,
            tlp: false,
            prr: false,
            rto_initial: Duration::from_secs(3),
            ..SenderOptions::linux_2026()
        }
    }

    /// What Linux 6.x does by its defaults, HZ=250: SACK, RACK, TLP, F-RTO, PRR, initial window 10, initial RTO 1 s, RTOmin
    /// 200 ms as the floor of the variance, RTOmax 120 s, timestamps of 1 ms, restart after idle. No ECN (`tcp_ecn=2`
    /// answers it and does not ask for it), and no pacing (it comes with the qdisc fq, or with BBR).
    pub fn linux_2026() -> SenderOptions {
        SenderOptions {
            mss_bytes: 1448,
            initial_window_segments: 10,
            sack: true,
            unproven: Unproven::Nothing,
            recovery_timer: RecoveryTimer::EachAdvance,
            ns3: Ns3Ways::default(),
            rack: true,
            tlp: true,
            frto: true,
            limited_transmit: true,
            prr: true,
            timestamps: true,
            timestamp_unit: Duration::from_millis(1),
            rto_initial: Duration::from_secs(1),
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(120),
            rto_floor: RtoFloor::Variance,
            rto_randomised: false,
            timer_tick: Duration::from_millis(4),
            timer_tick_phase: Duration::ZERO,
            ack_delay_max: Duration::from_millis(200),
            pacing: Pacing::Off,
            pacing_free_segments: 10,
            ecn: EcnMode::Off,
            idle_restart: true,
            seed: 0,
        }
    }

    /// The initial window in bytes.
    pub fn initial_window_bytes(&self) -> u64 {
        u64::from(self.initial_window_segments) * u64::from(self.mss_bytes)
    }
}

/// A TCP by the RFCs alone: SACK recovery (6675) with limited transmit, RTO by 6298 with its least of 1 s, high-resolution
/// timers, initial window 10 (6928), and nothing else.
impl Default for SenderOptions {
    fn default() -> SenderOptions {
        SenderOptions {
            unproven: Unproven::Rfc6675,
            recovery_timer: RecoveryTimer::Rfc,
            rack: false,
            tlp: false,
            frto: false,
            prr: false,
            timestamps: false,
            rto_min: Duration::from_secs(1),
            rto_max: Duration::from_secs(60),
            rto_floor: RtoFloor::Total,
            timer_tick: Duration::ZERO,
            ..SenderOptions::linux_2026()
        }
    }
}

/// What a receiver does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReceiverOptions {
    /// Payload of a full segment: smaller ones are not counted as the second segment that an ack is due for.
    pub mss_bytes: u32,
    /// SACK blocks in acks, and D-SACK (RFC 2883) for what came twice.
    pub sack: bool,
    /// How long an ack may wait for a second segment. Zero: every segment is acknowledged at once.
    pub ack_delay: Duration,
    /// How many of a flow's first segments are acknowledged at once (Linux's quick acks: 16).
    pub quick_acks_count: u32,
    /// What is offered to the sender beyond what has arrived, in bytes. The application reads at once.
    pub window_bytes: u32,
    /// How congestion marks are echoed.
    pub ecn: EcnMode,
    /// A mark counts only on a segment behind all that were marked before, so never on one sent again: ns-3.37 (`TcpSocketBase::ForwardUp`,
    /// `m_ecnCESeq`). RFC 8257 §3.2: on every segment.
    pub marks_must_advance: bool,
    /// See [`SenderOptions::timer_tick`].
    pub timer_tick: Duration,
    /// See [`SenderOptions::timer_tick_phase`].
    pub timer_tick_phase: Duration,
}

impl ReceiverOptions {
    /// Linux of 2008: an ack per two segments or after 40 ms (`TCP_DELACK_MIN`), the first 16 at once, SACK, a window of 4 MiB
    /// (`tcp_rmem`'s maximum), HZ=250.
    pub fn linux_2008() -> ReceiverOptions {
        ReceiverOptions {
            window_bytes: 4 << 20,
            ..ReceiverOptions::linux_2026()
        }
    }

    /// Linux 6.x: as in 2008, with a window of 6 MiB.
    pub fn linux_2026() -> ReceiverOptions {
        ReceiverOptions {
            mss_bytes: 1448,
            sack: true,
            ack_delay: Duration::from_millis(40),
            quick_acks_count: 16,
            window_bytes: 6 << 20,
            ecn: EcnMode::Off,
            marks_must_advance: false,
            timer_tick: Duration::from_millis(4),
            timer_tick_phase: Duration::ZERO,
        }
    }
}

/// Every segment acknowledged at once, with SACK, high-resolution timers and a window that never binds.
impl Default for ReceiverOptions {
    fn default() -> ReceiverOptions {
        ReceiverOptions {
            ack_delay: Duration::ZERO,
            quick_acks_count: 0,
            window_bytes: u32::MAX,
            timer_tick: Duration::ZERO,
            ..ReceiverOptions::linux_2026()
        }
    }
}
