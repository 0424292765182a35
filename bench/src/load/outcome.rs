//! What a run of the load generator leaves in memory, before it becomes a row.

use std::{io, time::Duration};

use dataplane_echo::FrameSize;
use dataplane_waist::PortStats;
use dataplane_wire::Reject;

use crate::{measure::Recorder, record::SeriesPoint};

/// What became of the requests of one run.
///
/// `sent_count` = `received_count` + `lost_count` + `abandoned_count`.
#[derive(Clone, Debug)]
pub struct LoadResult {
    /// Reply time from the intended send time; lost requests inside. In a closed loop, from the actual send.
    pub latency: Recorder,
    /// Reply time from the actual send; lost requests inside.
    pub service: Recorder,
    /// Actual minus intended send time: the generator's own lateness. Empty in a closed loop, which intends nothing.
    pub schedule_lag: Recorder,
    /// Requests in the schedule; in a closed loop, those that were sent.
    pub scheduled_count: u64,
    /// Requests that the generator sent, or tried to send.
    pub sent_count: u64,
    /// Requests answered in time.
    pub received_count: u64,
    /// Requests not answered in time, those that found the transmit queue full among them.
    pub lost_count: u64,
    /// Requests still waiting, within their time-out, when the run was stopped early: in no distribution.
    pub abandoned_count: u64,
    /// Replies that came after their request's time-out.
    pub late_count: u64,
    /// Replies to a request that had its reply.
    pub duplicate_count: u64,
    /// Replies whose payload, length or echoed time is not what was sent, with right checksums: a server's bug.
    pub corrupted_count: u64,
    /// Requests that found the transmit queue full even after a flush; counted as lost too.
    pub tx_full_count: u64,
    /// Requests given up before their time-out because the table of requests in flight was full; counted as lost too.
    pub evicted_count: u64,
    /// Frames that are no reply to this client, by [`Reject::index`].
    pub rejects: [u64; Reject::ALL.len()],
    /// When the schedule's time zero was, on the clock of the run.
    pub start_ns: u64,
    /// From the start to the last reply or time-out.
    pub elapsed: Duration,
    /// Requests per second that the schedule asked for; in a closed loop, as sent.
    pub offered_rate_per_s: f64,
    /// Requests per second that the generator sent. Below the offered rate, the generator was the bottleneck.
    pub sent_rate_per_s: f64,
    /// Requests per second that were answered in time.
    pub achieved_rate_per_s: f64,
    /// Reply time over the run, by intended send time.
    pub series: Vec<SeriesPoint>,
    /// CPU time of the calling thread during the run, in nanoseconds.
    pub cpu_ns: u64,
    /// How often the calling thread gave up its CPU.
    pub voluntary_switches_count: u64,
    /// How often it was taken off its CPU.
    pub involuntary_switches_count: u64,
    /// What the port counted during the run.
    pub port: PortStats,
    /// Was the run stopped before its schedule's end?
    pub interrupted: bool,
}

impl LoadResult {
    /// Lost requests over all whose fate is known, 0 to 1.
    pub fn lost_ratio(&self) -> f64 {
        self.lost_count as f64 / (self.lost_count + self.received_count).max(1) as f64
    }

    /// CPU time of the client per answered request, in nanoseconds; `None` without an answer.
    pub fn cpu_ns_per_request(&self) -> Option<f64> {
        (self.received_count > 0).then(|| self.cpu_ns as f64 / self.received_count as f64)
    }
}

/// Why the load generator could not run, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The frame's size is not one that an echo frame can have.
    #[error(transparent)]
    FrameSize(#[from] FrameSize),
    /// The port cannot carry the frame.
    #[error("the port {port} carries frames of at most {frame_bytes_max} bytes; {frame_bytes} were asked for")]
    TooLong {
        /// The port's name.
        port: &'static str,
        /// What it carries.
        frame_bytes_max: usize,
        /// What was asked for.
        frame_bytes: usize,
    },
    /// The server is not a peer of the port.
    #[error("the server is not in the port's table of peers")]
    NoPeer,
    /// An option is outside its bound.
    #[error("{option} is {seen}; it must be {bound}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What was asked for.
        seen: String,
        /// What is allowed.
        bound: &'static str,
    },
    /// The port broke.
    #[error("the port failed while {doing}: {error}")]
    Port {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// The difference of two readings of a port's counters.
pub(super) fn port_stats_between(before: PortStats, after: PortStats) -> PortStats {
    PortStats {
        rx_frames_count: after.rx_frames_count.saturating_sub(before.rx_frames_count),
        tx_frames_count: after.tx_frames_count.saturating_sub(before.tx_frames_count),
        tx_dropped_count: after.tx_dropped_count.saturating_sub(before.tx_dropped_count),
        rx_dropped_count: after.rx_dropped_count.saturating_sub(before.rx_dropped_count),
        rx_no_buffer_count: after.rx_no_buffer_count.saturating_sub(before.rx_no_buffer_count),
        strangers_count: after.strangers_count.saturating_sub(before.strangers_count),
        malformed_count: after.malformed_count.saturating_sub(before.malformed_count),
        syscalls_count: after.syscalls_count.saturating_sub(before.syscalls_count),
    }
}
