//! A missed gate in words: what was seen, why it matters, what to try.

use std::time::Duration;

use super::{Limits, Observation};
use crate::measure::interval;

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
        Observation::Released {
            late_p99_ns,
            packet_ns,
        } => (late_p99_ns as f64 > limits.late_packets_max * packet_ns as f64).then(|| {
            format!(
                "the switch handed the receiver frames late: p99 is {:.1} µs, above {} of the {:.1} µs that a full frame takes on the \
                 wire; frames left in bursts that no link makes; give its thread a CPU of its own, or build the network slower \
                 (a larger time dilation)",
                us(late_p99_ns),
                limits.late_packets_max,
                us(packet_ns)
            )
        }),
        Observation::ReleasedToSenders {
            late_p99_ns,
            packet_ns,
        } => (late_p99_ns as f64 > limits.late_to_senders_packets_max * packet_ns as f64).then(|| {
            format!(
                "the switch handed senders requests and acknowledgements late: p99 is {:.1} µs, above {} of the {:.1} µs that a full frame takes \
                 on the wire; what they send follows the switch's thread and not the network; let fewer of them be asked at once, give the \
                 switch's thread a CPU of its own, or build the network slower (a larger time dilation)",
                us(late_p99_ns),
                limits.late_to_senders_packets_max,
                us(packet_ns)
            )
        }),
        Observation::Overrun {
            seen_ratio,
            promised_ratio,
        } => {
            let least = limits.overrun_ratio_min.min(limits.overrun_share_min * promised_ratio);
            // Not `<`: an unknown ratio is none.
            let is_overrun = seen_ratio >= least;
            (!is_overrun).then(|| {
                format!(
                    "frames came for the shared link at {seen_ratio:.2} times its rate at most, below {least:.2}; without overrun \
                     there is no incast, whatever the transport; let more senders answer at once, or build the network slower \
                     (a larger time dilation)"
                )
            })
        }
        Observation::SenderBurst { sender, ratio } => {
            let fills_it = ratio >= limits.sender_burst_ratio_min;
            (!fills_it).then(|| {
                format!(
                    "sender {sender} reached {ratio:.2} of its own link's rate at most; the program that sends is the bottleneck, \
                     and not the network; give senders more CPU time or more to send, or build the network slower (a larger time \
                     dilation)"
                )
            })
        }
        Observation::LinkDry { idle, elapsed } => {
            let ratio = idle.as_secs_f64() / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
            (ratio > limits.link_idle_ratio_max).then(|| {
                format!(
                    "the link had nothing to carry for {:.2} ms, {:.0} ppm of the time (limit {:.0}); what it carried is its sender's rate and not \
                     its own; stop what else runs here, or give the sender and the switch CPUs of their own",
                    idle.as_secs_f64() * 1e3,
                    ratio * 1e6,
                    limits.link_idle_ratio_max * 1e6
                )
            })
        }
        Observation::Unexplained { frames_count } => (frames_count != 0).then(|| {
            format!(
                "the switch cannot say where {frames_count} frames went; losses of a transport may be its own; run again, and \
                 tell us if it stays so"
            )
        }),
        Observation::Deposed => Some(
            "another replica took the leader for dead, which had no CPU for a dozen heartbeats, and was let in; nothing of this trial \
             counts; stop what else runs here, or give the threads more CPUs"
                .to_owned(),
        ),
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
