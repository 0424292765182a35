//! May this row be judged? What was observed beside the measurement, and the limits beyond which it says more about
//! the machine or the generator than about what was measured. A row that misses a gate is kept, and marked.

use std::time::Duration;

use dataplane_waist::PortStats;

use crate::{
    load::LoadResult,
    record::{QuantileValue, Validity},
};

mod limits;
mod reason;
#[cfg(test)]
mod tests;

pub use limits::Limits;
pub use reason::reason;

/// Something that was observed beside a measurement.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// How late the generator was, beside the latency it was measuring.
    Lag {
        /// p99 of actual minus intended send time, in nanoseconds.
        lag_p99_ns: u64,
        /// p99 of the latency; `None` when it was lost.
        latency_p99_ns: Option<u64>,
    },
    /// What the generator sent, beside what it was to send.
    Rate {
        /// Requests per second sent.
        sent_rate_per_s: f64,
        /// Requests per second that the schedule asked for.
        offered_rate_per_s: f64,
    },
    /// No reply came at all.
    Silence {
        /// Requests sent.
        sent_count: u64,
    },
    /// A client that waits without a time-out had to be woken: a reply never came.
    Hung {
        /// Requests sent.
        sent_count: u64,
    },
    /// Requests given up because the generator's own table was full.
    Evicted {
        /// How many.
        evicted_count: u64,
    },
    /// Frames dropped by one end's own rings, as it said itself.
    RingOverflow {
        /// "client" or "server".
        end: &'static str,
        /// Frames lost before the receiver took them.
        rx_dropped_count: u64,
        /// Frames for which the sender had no room.
        tx_dropped_count: u64,
    },
    /// How often a pinned thread that had its CPU to itself was taken off it.
    Switches {
        /// "client" or "server".
        end: &'static str,
        /// How often.
        involuntary_count: u64,
        /// Over which time.
        elapsed: Duration,
    },
    /// How long an end that has a CPU to itself could have run and was not let.
    Contention {
        /// "client", "server" or "switch".
        end: &'static str,
        /// Time on the run queue.
        waited: Duration,
        /// Over which time.
        elapsed: Duration,
    },
    /// How far the moments at which the server was stopped and let go may be off, because it was asked over a network.
    StallUncertain {
        /// The longest round trip of asking.
        uncertainty: Duration,
    },
    /// Is the sample large enough for the quantile that will be judged?
    Samples {
        /// The quantile, 0 to 1.
        q: f64,
        /// Answered and lost requests.
        total_count: u64,
    },
    /// CPU time that the hypervisor gave to others.
    Steal {
        /// Stolen scheduler ticks, over all CPUs.
        stolen_ticks: u64,
        /// All scheduler ticks, over all CPUs.
        total_ticks: u64,
    },
    /// The stages of a round trip, beside the round trip.
    Stages {
        /// Sum of the stages' means, in nanoseconds.
        sum_ns: f64,
        /// Mean of the round trip, in nanoseconds.
        total_ns: f64,
        /// How exactly the stamps' clocks are known to each other, in nanoseconds.
        clock_error_ns: u64,
        /// Stages that ended before they began, beyond that error.
        out_of_order_count: u64,
    },
    /// The wall clock, which stamps are of, was set while they were taken.
    StampClockStep {
        /// By how much, at least; it is beyond the error with which it was read.
        wall_step_ns: i64,
    },
    /// Requests that were answered and lack a stamp.
    Unstamped {
        /// How many.
        unstamped_count: u64,
        /// Of how many that were answered.
        answered_count: u64,
    },
    /// How late an emulated switch handed frames to the receiver, for whose port they queue.
    Released {
        /// p99 of actual minus due time, in nanoseconds.
        late_p99_ns: u64,
        /// How long a full frame takes on the slowest link, in nanoseconds.
        packet_ns: u64,
    },
    /// How late an emulated switch handed requests and acknowledgements to senders.
    ReleasedToSenders {
        /// p99 of actual minus due time, in nanoseconds.
        late_p99_ns: u64,
        /// How long a full frame takes on the slowest link, in nanoseconds.
        packet_ns: u64,
    },
    /// Senders that are together faster than the link that they share.
    Overrun {
        /// How fast frames came for the link at their fastest, over its rate.
        seen_ratio: f64,
        /// The rates of all senders' own links, over its rate.
        promised_ratio: f64,
    },
    /// A sender that is faster than its own link.
    SenderBurst {
        /// Which, from 0.
        sender: usize,
        /// How fast it sent at its fastest, over its link's rate.
        ratio: f64,
    },
    /// A link that is to be full, and what it had to carry.
    LinkDry {
        /// How long it had nothing.
        idle: Duration,
        /// Over which time.
        elapsed: Duration,
    },
    /// Frames that an emulated switch cannot account for.
    Unexplained {
        /// How many.
        frames_count: i64,
    },
    /// A leader that was to lead all the time was taken for dead, and another one let in.
    Deposed,
    /// What the clocks did to each other meanwhile.
    Clocks {
        /// How far CLOCK_REALTIME moved against CLOCK_MONOTONIC: a step of the wall clock.
        wall_step_ns: i64,
        /// How far CLOCK_BOOTTIME moved against CLOCK_MONOTONIC: the machine was suspended.
        suspended_ns: i64,
        /// How far CLOCK_MONOTONIC moved against CLOCK_MONOTONIC_RAW: how much its rate was corrected.
        slew_ns: i64,
        /// Over which time.
        elapsed: Duration,
    },
}

/// What a run of the load generator shows about itself. `q` is the highest quantile that will be judged.
pub fn observe(result: &LoadResult, q: f64) -> Vec<Observation> {
    let mut observations = vec![
        Observation::Samples {
            q,
            total_count: result.latency.total_count(),
        },
        Observation::Evicted {
            evicted_count: result.evicted_count,
        },
        overflow("client", &result.port, result.tx_full_count),
    ];
    if result.received_count == 0 {
        observations.push(Observation::Silence {
            sent_count: result.sent_count,
        });
    }
    if let QuantileValue::Ns(lag_p99_ns) = result.schedule_lag.quantile_of_sample(0.99) {
        let latency_p99_ns = match result.latency.quantile_of_sample(0.99) {
            QuantileValue::Ns(ns) => Some(ns),
            QuantileValue::Lost | QuantileValue::Unsupported => None,
        };
        observations.push(Observation::Lag {
            lag_p99_ns,
            latency_p99_ns,
        });
    }
    // A run that was stopped early did not send all of its schedule, and need not have.
    if !result.interrupted {
        observations.push(Observation::Rate {
            sent_rate_per_s: result.sent_rate_per_s,
            offered_rate_per_s: result.offered_rate_per_s,
        });
    }
    observations
}

/// What one end's port says of its rings. `tx_full_count` adds frames that the port refused to queue.
pub fn overflow(end: &'static str, port: &PortStats, tx_full_count: u64) -> Observation {
    Observation::RingOverflow {
        end,
        rx_dropped_count: port.rx_dropped_count,
        tx_dropped_count: port.tx_dropped_count + tx_full_count,
    }
}

/// The row's validity: a reason for each gate that was missed.
pub fn judge(observations: &[Observation], limits: &Limits) -> Validity {
    let reasons: Vec<String> = observations.iter().filter_map(|seen| reason(seen, limits)).collect();
    match reasons.is_empty() {
        true => Validity::Valid,
        false => Validity::Invalid { reasons },
    }
}
