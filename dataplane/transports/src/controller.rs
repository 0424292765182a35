//! What a congestion controller sees and what it answers: the seam between [`crate::Sender`] and one file per algorithm.
//!
//! The sender decides what is lost, what is retransmitted and when; the controller only decides how much may be in flight
//! and how fast it leaves. Sizes are bytes of payload, times nanoseconds.

/// What the sender is doing about losses, in Linux's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is amiss, or too little to act on.
    #[default]
    Open,
    /// The window was reduced for an ECN echo, and the acks of that window are not back yet.
    Cwr,
    /// Fast recovery: segments are lost and being sent again.
    Recovery,
    /// A retransmission timer has fired, and what was in flight then is not all acknowledged.
    Loss,
}

/// How fast data arrived, measured over the flight of the newest segment that an ack delivered
/// (draft-cheng-iccrg-delivery-rate-estimation-02).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RateSample {
    /// Bytes delivered in `interval_ns`.
    pub delivered_bytes: u64,
    /// The longer of the time that sending and the time that acknowledging took. 0: no sample.
    pub interval_ns: u64,
    /// The connection's delivered bytes when that newest segment was sent: it tells round trips apart.
    pub prior_delivered_bytes: u64,
    /// Bytes in flight when that segment was sent, itself included.
    pub tx_in_flight_bytes: u64,
    /// Bytes that were found lost while that segment was in flight.
    pub lost_bytes: u64,
    /// The sender had too little to send for the sample to say what the path can carry.
    pub is_app_limited: bool,
}

impl RateSample {
    /// Bytes per second, or nothing where there is no sample.
    pub fn bytes_per_sec(&self) -> Option<u64> {
        let ns = self.interval_ns;
        (ns > 0).then(|| (u128::from(self.delivered_bytes) * 1_000_000_000 / u128::from(ns)) as u64)
    }
}

/// An ack that the sender has worked in.
#[derive(Clone, Copy, Debug, Default)]
pub struct AckSample {
    /// When it came.
    pub now_ns: u64,
    /// Bytes that the cumulative ack newly covers.
    pub acked_bytes: u64,
    /// Bytes newly known to have arrived, by the cumulative ack or SACK.
    pub delivered_bytes: u64,
    /// Bytes newly found lost.
    pub lost_bytes: u64,
    /// Bytes in flight now.
    pub in_flight_bytes: u64,
    /// Bytes in flight before this ack.
    pub prior_in_flight_bytes: u64,
    /// Round trip of the newest segment that it delivers, if that was sent once.
    pub rtt_ns: Option<u64>,
    /// Smoothed round trip (RFC 6298), 0 before the first sample.
    pub srtt_ns: u64,
    /// Shortest round trip ever, `u64::MAX` before the first sample.
    pub min_rtt_ns: u64,
    /// First byte not acknowledged yet.
    pub acked_end: u64,
    /// First byte never sent.
    pub sent_end: u64,
    /// Bytes delivered since the flow began.
    pub delivered_total_bytes: u64,
    /// Bytes found lost since the flow began.
    pub lost_total_bytes: u64,
    /// The ack carried ECE.
    pub ece: bool,
    /// The window, and not the application, bounded the flight that this ack is of: without this a window must not grow
    /// (RFC 7661).
    pub is_window_limited: bool,
    /// What the sender does about losses, after this ack.
    pub phase: Phase,
    /// How fast data arrives.
    pub rate: RateSample,
}

/// Why and where the window has to shrink.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossSample {
    /// When it was seen.
    pub now_ns: u64,
    /// Bytes in flight before it was seen.
    pub in_flight_bytes: u64,
    /// First byte not acknowledged.
    pub acked_end: u64,
    /// First byte never sent.
    pub sent_end: u64,
    /// Smoothed round trip, 0 before the first sample.
    pub srtt_ns: u64,
    /// A time-out that follows a time-out with nothing new acknowledged between: RFC 5681 §3.1 then keeps ssthresh.
    pub is_repeated: bool,
}

/// One segment found lost, for controllers that count them (BBRv3).
#[derive(Clone, Copy, Debug, Default)]
pub struct LostPacket {
    /// When that was found.
    pub now_ns: u64,
    /// Its payload.
    pub bytes: u64,
    /// Bytes in flight when it was sent, itself included.
    pub tx_in_flight_bytes: u64,
    /// Bytes found lost since it was sent, itself included.
    pub lost_since_bytes: u64,
    /// It was sent when the application had too little to send.
    pub is_app_limited: bool,
}

/// A congestion controller: how much may be in flight, and how fast it leaves.
pub trait Controller {
    /// An ack that delivers or tells something. Called after [`Controller::on_congestion`] if the same ack begins recovery.
    fn on_ack(&mut self, ack: &AckSample);

    /// Recovery begins: the window becomes what is left after a loss. Once per window of data.
    fn on_congestion(&mut self, loss: &LossSample);

    /// The retransmission timer fired. Called at each back-off too.
    fn on_rto(&mut self, loss: &LossSample);

    /// The first ECN echo of a window of data. By default as for a loss (RFC 3168 §6.1.2).
    fn on_ecn(&mut self, loss: &LossSample) {
        self.on_congestion(loss);
    }

    /// Recovery is over: everything that was in flight when it began has arrived.
    fn on_recovered(&mut self) {}

    /// The last reduction was for nothing: back to the window before it.
    fn undo(&mut self) {}

    /// A segment was found lost.
    fn on_packet_lost(&mut self, _packet: &LostPacket) {}

    /// The flow was idle for longer than its RTO and begins again: `initial_bytes` is the initial window (RFC 5681 §4.1).
    fn on_idle_restart(&mut self, _now_ns: u64, _initial_bytes: u64) {}

    /// How many bytes may be in flight. Below one segment it is a fraction of one, and the pacing rate matters.
    fn window_bytes(&self) -> u64;

    /// The rate at which segments leave, or nothing: then [`crate::Pacing`] decides.
    fn pacing_bytes_per_sec(&self) -> Option<u64> {
        None
    }

    /// How much leaves at once where segments are paced, before the pause for all of it: what Linux puts into one packet for the card to
    /// cut. Zero: each segment by itself.
    fn burst_bytes(&self) -> u64 {
        0
    }

    /// The window grows exponentially.
    fn is_slow_start(&self) -> bool;

    /// Its window holds during recovery too: then the sender reduces nothing in steps (PRR).
    fn rules_recovery(&self) -> bool {
        false
    }
}
