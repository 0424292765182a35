//! Each gate, just inside its limit and just outside.

use std::time::Duration;

use dataplane_waist::{PortStats, Wake};

use super::*;
use crate::record::Validity;

#[track_caller]
fn missed(observation: Observation, said: &str) {
    let reason = reason(&observation, &Limits::default()).unwrap_or_else(|| panic!("{observation:?} should be missed"));
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
fn a_link_that_is_to_be_full_must_not_run_dry() {
    let idle = |idle_us| Observation::LinkDry {
        idle: Duration::from_micros(idle_us),
        elapsed: Duration::from_secs(2),
    };
    passed(idle(400));
    missed(idle(500), "250 ppm");
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
        Observation::Deposed,
    ];
    let Validity::Invalid { reasons } = judge(&seen, &Limits::default()) else {
        panic!("three are missed")
    };
    assert_eq!(reasons.len(), 3);
    assert_eq!(judge(&seen[1..2], &Limits::default()), Validity::Valid);
}

#[test]
fn a_switch_is_punctual_within_half_a_packet() {
    let released = |late_p99_ns| Observation::Released {
        late_p99_ns,
        packet_ns: 123_040,
    };
    passed(released(61_520));
    missed(released(61_521), "61.5 µs, above 0.5 of the 123.0 µs");
    let to_senders = |late_p99_ns| Observation::ReleasedToSenders {
        late_p99_ns,
        packet_ns: 123_040,
    };
    passed(to_senders(123_040));
    missed(to_senders(123_041), "123.0 µs, above 1 of the 123.0 µs");
    let among = |senders_count, late_p99_ns| judge(&[to_senders(late_p99_ns)], &Limits::for_senders(senders_count));
    assert_eq!(among(16, 123_041), among(1, 123_041), "the limit of few");
    assert_eq!(among(17, 4 * 123_040), Validity::Valid);
    assert_ne!(among(64, 4 * 123_040 + 1), Validity::Valid);
}

#[test]
fn a_link_that_is_not_overrun_has_no_incast() {
    let overrun = |seen_ratio, promised_ratio| Observation::Overrun {
        seen_ratio,
        promised_ratio,
    };
    passed(overrun(2.0, 8.0));
    missed(overrun(1.99, 8.0), "1.99 times its rate");
    passed(overrun(0.9, 1.0));
    missed(overrun(0.89, 1.0), "below 0.90");
    missed(overrun(f64::NAN, 8.0), "NaN");
}

#[test]
fn a_sender_fills_its_own_link() {
    let burst = |ratio| Observation::SenderBurst { sender: 3, ratio };
    passed(burst(1.0));
    missed(burst(0.99), "sender 3 reached 0.99");
    missed(burst(f64::NAN), "sender 3");
}

#[test]
fn a_switch_that_loses_frames_itself_is_no_switch() {
    passed(Observation::Unexplained { frames_count: 0 });
    missed(Observation::Unexplained { frames_count: 1 }, "where 1 frames went");
    missed(Observation::Unexplained { frames_count: -1 }, "where -1 frames went");
}
