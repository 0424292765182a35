//! May this row be judged? What was observed beside the measurement, and the limits beyond which it says more about
//! the machine or the generator than about what was measured. A row that misses a gate is kept, and marked.

use std::time::Duration;

use dataplane_waist::{PortStats, Wake};

use super::interval;
use crate::{
    load::LoadResult,
    record::{QuantileValue, Validity},
};

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
        /// "client" or "server".
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

/// The limits. A default is for a spinning client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The generator may be this late at p99 in any case, in nanoseconds.
    ///
    /// A spinning generator: 20 µs. A send over veth takes 3 to 5 µs, the receiver's softirq included, and of Poisson
    /// arrivals one in a hundred finds two of them before it; an interrupt comes on top. A sleeping one: 200 µs; being woken takes 50 to 100 µs on a virtual
    /// machine, which is the way of waiting that is measured and not a fault.
    pub lag_ns_floor: u64,
    /// Beyond that floor it may be late by this share of the latency's p99: lateness is charged to latency, so the
    /// latency that is reported is at most this much too high.
    pub lag_ratio_max: f64,
    /// Requests sent over requests offered.
    pub sent_ratio_min: f64,
    /// Stolen share of CPU time. At 1 % the hypervisor alone may own p99.
    pub steal_ratio_max: f64,
    /// Fewer stolen ticks than this say nothing: a tick is 10 ms, and short rows have few.
    pub steal_ticks_min: u64,
    /// Involuntary switches per second: 100 is the slowest scheduler tick (CONFIG_HZ=100), so above it another thread
    /// shares the CPU all the time.
    pub involuntary_per_s_max: f64,
    /// Time on the run queue over elapsed time. At 1 % another thread alone may own p99.
    pub waited_ratio_max: f64,
    /// The sum of the stages' means may differ from the mean round trip by this share of it, and by the clocks' error: a
    /// histogram's values are off by up to 0.1 %.
    pub stages_ratio_max: f64,
    /// Answered requests that may lack a stamp. A stage is told of those that have all; were they few, of which kind?
    pub unstamped_ratio_max: f64,
    /// Steps between clocks, in nanoseconds. Two clocks are read one after the other; 100 µs is a bad interrupt in
    /// between.
    pub clock_step_ns_max: u64,
    /// Correction of the clock's rate. 500 ppm is the most that the kernel's own discipline applies (adjtimex(2)).
    pub slew_ratio_max: f64,
    /// What is known of a stall's beginning and end. Half of what an open loop may be off from the truth (5 ms): beyond it
    /// the truth itself is in doubt.
    pub stall_uncertainty_max: Duration,
    /// Is overflow part of what is measured (an overload experiment)? Then it is loss, not a fault.
    pub overflow_is_measured: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            lag_ns_floor: 20_000,
            lag_ratio_max: 0.1,
            sent_ratio_min: 0.99,
            steal_ratio_max: 0.01,
            steal_ticks_min: 3,
            involuntary_per_s_max: 100.0,
            waited_ratio_max: 0.01,
            stages_ratio_max: 0.01,
            unstamped_ratio_max: 0.01,
            clock_step_ns_max: 100_000,
            slew_ratio_max: 500e-6,
            stall_uncertainty_max: Duration::from_micros(2_500),
            overflow_is_measured: false,
        }
    }
}

impl Limits {
    /// The limits for a client that waits in this way.
    pub fn for_wake(wake: Wake) -> Limits {
        let lag_ns_floor = match wake {
            Wake::Spins => 20_000,
            Wake::Sleeps | Wake::BusyPolls => 200_000,
        };
        Limits {
            lag_ns_floor,
            ..Limits::default()
        }
    }
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

/// What was seen, why it matters, what to try; `None` within the limits.
pub fn reason(observation: &Observation, limits: &Limits) -> Option<String> {
    let us = |ns: u64| ns as f64 / 1e3;
    match *observation {
        Observation::Lag {
            lag_p99_ns,
            latency_p99_ns,
        } => {
            // Where p99 is lost, any lateness is small beside it.
            let share_ns = latency_p99_ns.map_or(u64::MAX, |ns| (ns as f64 * limits.lag_ratio_max) as u64);
            (lag_p99_ns > limits.lag_ns_floor.max(share_ns)).then(|| {
                format!(
                    "the generator sent late: p99 of its lag is {:.1} µs, above {:.1} µs and above {:.0} % of the latency's \
                     p99; the latency is partly its own; lower the rate, pin the client to a CPU of its own, or let it spin",
                    us(lag_p99_ns),
                    us(limits.lag_ns_floor),
                    limits.lag_ratio_max * 100.0
                )
            })
        }
        Observation::Rate {
            sent_rate_per_s,
            offered_rate_per_s,
        } => {
            // Not `<`: an unknown rate is no rate.
            let is_kept = sent_rate_per_s >= limits.sent_ratio_min * offered_rate_per_s;
            (!is_kept).then(|| {
                format!(
                    "{sent_rate_per_s:.0} requests/s were sent of {offered_rate_per_s:.0} offered, below {:.0} %; the load \
                     was not the one asked for; lower the rate or give the client a CPU of its own",
                    limits.sent_ratio_min * 100.0
                )
            })
        }
        Observation::Hung { sent_count } => Some(format!(
            "after {sent_count} requests a reply never came, and the client, which waits without a time-out, had to be woken; \
             the rest of the row was not measured; find out who loses frames on this path, or use a back end with time-outs \
             (udp-poll)"
        )),
        Observation::Silence { sent_count } => Some(format!(
            "none of {sent_count} requests was answered; nothing was measured but silence; check that the server runs \
             and that no firewall drops its port"
        )),
        Observation::Evicted { evicted_count } => (evicted_count > 0).then(|| {
            format!(
                "{evicted_count} requests were given up before their time-out because too many were in flight; they count \
                 as lost and might not be; lower the rate or the time-out"
            )
        }),
        Observation::RingOverflow {
            end,
            rx_dropped_count,
            tx_dropped_count,
        } => {
            let is_fault = !limits.overflow_is_measured && rx_dropped_count + tx_dropped_count > 0;
            is_fault.then(|| {
                format!(
                    "the {end}'s rings overflowed: {rx_dropped_count} frames lost on receipt, {tx_dropped_count} on sending; \
                     this loss is the ring's and not the path's; lower the rate or raise the ring (net.core.rmem_max, \
                     net.core.wmem_max)"
                )
            })
        }
        Observation::Contention { end, waited, elapsed } => {
            let ratio = waited.as_secs_f64() / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
            (ratio > limits.waited_ratio_max).then(|| {
                format!(
                    "the {end} could have run and was kept waiting for its CPU for {:.1} % of the time; others' work is in \
                     its latencies; stop what else runs here, or give the ends CPUs of their own (isolcpus, taskset)",
                    ratio * 100.0
                )
            })
        }
        Observation::StallUncertain { uncertainty } => (uncertainty > limits.stall_uncertainty_max).then(|| {
            format!(
                "stopping the server over the network took up to {:.1} ms (limit {:.1} ms); when exactly it stood still is \
                 not known well enough to say what a perfect observer saw; use a quieter or shorter way to the agent, or \
                 measure stalls on one machine",
                uncertainty.as_secs_f64() * 1e3,
                limits.stall_uncertainty_max.as_secs_f64() * 1e3
            )
        }),
        Observation::Switches {
            end,
            involuntary_count,
            elapsed,
        } => {
            let per_s = involuntary_count as f64 / elapsed.as_secs_f64().max(1e-9);
            (per_s > limits.involuntary_per_s_max && involuntary_count > 1).then(|| {
                format!(
                    "the {end} was taken off its CPU {involuntary_count} times, {per_s:.0} per second (limit {:.0}); another \
                     thread shares that CPU; stop it, choose another CPU, or run as root for SCHED_FIFO",
                    limits.involuntary_per_s_max
                )
            })
        }
        Observation::Samples { q, total_count } => (!interval(q, total_count).is_supported()).then(|| {
            format!(
                "{total_count} requests cannot bound p{} with 95 % confidence; the quantile would be a guess; run longer \
                 or at a higher rate",
                (q * 1e6).round() / 1e4
            )
        }),
        Observation::Steal {
            stolen_ticks,
            total_ticks,
        } => {
            let ratio = stolen_ticks as f64 / total_ticks.max(1) as f64;
            (stolen_ticks >= limits.steal_ticks_min && ratio > limits.steal_ratio_max).then(|| {
                format!(
                    "the hypervisor took away {:.1} % of the CPU time (limit {:.1} %); the tail may be its doing; run again \
                     when the host is quiet, or on a machine with CPUs of its own",
                    ratio * 100.0,
                    limits.steal_ratio_max * 100.0
                )
            })
        }
        Observation::Stages {
            sum_ns,
            total_ns,
            clock_error_ns,
            out_of_order_count,
        } => {
            let doubt_ns = total_ns * limits.stages_ratio_max + clock_error_ns as f64;
            // Not `>`: an unknown sum is no sum.
            let is_a_sum = (sum_ns - total_ns).abs() <= doubt_ns;
            (!is_a_sum).then(|| {
                format!(
                    "the stages add up to {sum_ns:.0} ns and the round trip takes {total_ns:.0} ns, and {out_of_order_count} \
                     stages ended before they began; a stamp is not where or of the clock that it is taken for; run again, \
                     and tell us if it stays so",
                )
            })
        }
        Observation::StampClockStep { wall_step_ns } => Some(format!(
            "CLOCK_REALTIME was stepped by {wall_step_ns} ns while it stamped frames; stages between it and CLOCK_MONOTONIC \
             are off by as much; run again, and stop whatever sets the clock by steps (chronyc, ntpdate)"
        )),
        Observation::Unstamped {
            unstamped_count,
            answered_count,
        } => {
            let ratio = unstamped_count as f64 / answered_count.max(1) as f64;
            // Each lost request takes a stamp of the one before it along.
            (ratio > limits.unstamped_ratio_max && unstamped_count > 2).then(|| {
                format!(
                    "{unstamped_count} of {answered_count} answered requests lack a stamp (limit {:.0} %); the stages are \
                     those of the others, who may differ; run again, with fewer losses (a quieter machine)",
                    limits.unstamped_ratio_max * 100.0
                )
            })
        }
        Observation::Clocks {
            wall_step_ns,
            suspended_ns,
            slew_ns,
            elapsed,
        } => clock_reason(wall_step_ns, suspended_ns, slew_ns, elapsed, limits),
    }
}

fn clock_reason(
    wall_step_ns: i64,
    suspended_ns: i64,
    slew_ns: i64,
    elapsed: Duration,
    limits: &Limits,
) -> Option<String> {
    let ms = |ns: i64| ns as f64 / 1e6;
    if suspended_ns.unsigned_abs() > limits.clock_step_ns_max {
        return Some(format!(
            "the machine was suspended for {:.1} ms; no time was measured meanwhile; run again",
            ms(suspended_ns)
        ));
    }
    if wall_step_ns.unsigned_abs() > limits.clock_step_ns_max {
        return Some(format!(
            "the wall clock stepped by {:.3} ms; a virtual machine that was paused or moved shows so; run again, and stop \
             whatever sets the clock by steps (chronyc, ntpdate)",
            ms(wall_step_ns)
        ));
    }
    let slew_ns_max = elapsed.as_nanos() as f64 * limits.slew_ratio_max + limits.clock_step_ns_max as f64;
    (slew_ns.unsigned_abs() as f64 > slew_ns_max).then(|| {
        format!(
            "the monotonic clock was corrected by {:.3} ms in {elapsed:.1?}; times are off by as much; wait until the clock \
             is disciplined (chronyc tracking)",
            ms(slew_ns)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn missed(observation: Observation, said: &str) {
        let reason =
            reason(&observation, &Limits::default()).unwrap_or_else(|| panic!("{observation:?} should be missed"));
        assert!(reason.contains(said), "{reason}");
        assert!(
            reason.matches(';').count() >= 2,
            "what was seen; why it matters; what to try: {reason}"
        );
    }

    #[track_caller]
    fn passed(observation: Observation) {
        assert_eq!(reason(&observation, &Limits::default()), None);
    }

    #[test]
    fn a_late_generator_is_told_from_a_slow_server() {
        let lag = |lag_p99_ns, latency_p99_ns| Observation::Lag {
            lag_p99_ns,
            latency_p99_ns,
        };
        missed(lag(22_000, Some(25_000)), "22.0 µs");
        passed(lag(19_000, Some(25_000)));
        passed(lag(100_000, Some(190_000_000)));
        missed(lag(30_000_000, Some(190_000_000)), "30000.0 µs");
        passed(lag(100_000, None));
        let sleeping = Limits::for_wake(Wake::Sleeps);
        assert_eq!(
            reason(&lag(150_000, Some(160_000)), &sleeping),
            None,
            "that is what waking up costs"
        );
        assert!(reason(&lag(250_000, Some(260_000)), &sleeping).is_some());
    }

    #[test]
    fn stages_that_do_not_add_up_are_no_stages() {
        let stages = |sum_ns, out_of_order_count| Observation::Stages {
            sum_ns,
            total_ns: 10_000.0,
            clock_error_ns: 30,
            out_of_order_count,
        };
        passed(stages(10_130.0, 0));
        passed(stages(9_870.0, 3));
        missed(stages(10_131.0, 0), "10131 ns");
        missed(stages(9_869.0, 7), "7 stages");
        missed(stages(f64::NAN, 0), "NaN");
    }

    #[test]
    fn any_step_of_the_stamps_clock_is_a_fault() {
        missed(Observation::StampClockStep { wall_step_ns: -900 }, "-900 ns");
    }

    #[test]
    fn requests_without_all_stamps_are_few_or_a_fault() {
        let unstamped = |unstamped_count| Observation::Unstamped {
            unstamped_count,
            answered_count: 1_000,
        };
        passed(unstamped(10));
        missed(unstamped(11), "11 of 1000");
    }

    #[test]
    fn a_rate_that_was_not_kept_is_no_rate() {
        let rate = |sent_rate_per_s| Observation::Rate {
            sent_rate_per_s,
            offered_rate_per_s: 1_000.0,
        };
        passed(rate(990.0));
        missed(rate(989.0), "989 requests/s");
        missed(rate(f64::NAN), "NaN");
    }

    #[test]
    fn loss_of_our_own_rings_is_a_fault_unless_it_is_measured() {
        let stats = PortStats {
            rx_dropped_count: 3,
            ..PortStats::default()
        };
        missed(overflow("server", &stats, 0), "server's rings overflowed: 3");
        missed(overflow("client", &PortStats::default(), 7), "7 on sending");
        passed(overflow("client", &PortStats::default(), 0));
        let overload = Limits {
            overflow_is_measured: true,
            ..Limits::default()
        };
        assert_eq!(reason(&overflow("server", &stats, 9), &overload), None);
        missed(Observation::Evicted { evicted_count: 1 }, "1 requests");
        passed(Observation::Evicted { evicted_count: 0 });
    }

    #[test]
    fn stolen_time_counts_from_a_share_and_from_a_few_ticks() {
        let steal = |stolen_ticks, total_ticks| Observation::Steal {
            stolen_ticks,
            total_ticks,
        };
        passed(steal(2, 20));
        passed(steal(10, 1_000));
        missed(steal(11, 1_000), "1.1 %");
        passed(steal(0, 0));
    }

    #[test]
    fn clocks_that_stepped_or_slept_are_told_apart() {
        let clocks = |wall_step_ns, suspended_ns, slew_ns| Observation::Clocks {
            wall_step_ns,
            suspended_ns,
            slew_ns,
            elapsed: Duration::from_secs(10),
        };
        passed(clocks(50_000, -50_000, 4_000_000));
        missed(clocks(-2_000_000, 0, 0), "stepped by -2.000 ms");
        missed(clocks(5_000_000, 5_000_000, 0), "suspended for 5.0 ms");
        missed(clocks(0, 0, 6_000_000), "corrected by 6.000 ms");
    }

    #[test]
    fn a_pinned_end_must_keep_its_cpu() {
        let kept_waiting = |waited_ms| Observation::Contention {
            end: "server",
            waited: Duration::from_millis(waited_ms),
            elapsed: Duration::from_secs(1),
        };
        assert_eq!(reason(&kept_waiting(9), &Limits::default()), None);
        assert!(reason(&kept_waiting(50), &Limits::default()).is_some_and(|why| why.contains("5.0 %")));
        let switches = |involuntary_count| Observation::Switches {
            end: "client",
            involuntary_count,
            elapsed: Duration::from_secs(2),
        };
        passed(switches(200));
        missed(switches(201), "201 times");
    }

    #[test]
    fn a_stall_whose_moments_are_not_known_judges_nobody() {
        let uncertain = |ms| Observation::StallUncertain {
            uncertainty: Duration::from_millis(ms),
        };
        passed(uncertain(2));
        missed(uncertain(3), "3.0 ms");
    }

    #[test]
    fn a_sample_that_cannot_bound_its_quantile_is_refused() {
        let samples = |q, total_count| Observation::Samples { q, total_count };
        passed(samples(0.99, 368));
        missed(samples(0.99, 367), "p99 ");
        missed(samples(0.9999, 1_000), "p99.99 ");
        missed(Observation::Silence { sent_count: 5 }, "none of 5");
        missed(Observation::Hung { sent_count: 7 }, "after 7 requests");
    }

    #[test]
    fn each_missed_gate_gives_a_reason() {
        let seen = [
            Observation::Silence { sent_count: 1 },
            Observation::Evicted { evicted_count: 0 },
            Observation::Evicted { evicted_count: 2 },
        ];
        let Validity::Invalid { reasons } = judge(&seen, &Limits::default()) else {
            panic!("two are missed")
        };
        assert_eq!(reasons.len(), 2);
        assert_eq!(judge(&seen[1..2], &Limits::default()), Validity::Valid);
    }
}
