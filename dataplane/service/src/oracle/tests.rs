//! The oracles against each other and against figures that others computed.

use super::*;
use crate::service_time::ServiceTime;

const SERVICE_NS: f64 = 1_000.0;
const LOADS: [f64; 4] = [0.3, 0.7, 0.9, 0.95];

fn near(a: f64, b: f64, relative: f64) -> bool {
    (a / b - 1.0).abs() <= relative
}

/// The mean of a distribution by integrating what lies beyond.
fn mean_of(sojourn: &dyn Sojourn) -> f64 {
    let end_ns = sojourn.quantile_ns(0.999_8);
    const STEPS: usize = 2_000;
    let step_ns = end_ns / STEPS as f64;
    let within = (0..STEPS).map(|index| 1.0 - sojourn.ratio_within((index as f64 + 0.5) * step_ns));
    within.sum::<f64>() * step_ns
}

#[test]
fn one_worker_is_the_k_of_one_and_the_g_of_exponential() {
    let exponential = ServiceTime::Exponential { mean_ns: SERVICE_NS };
    for load in LOADS {
        let mm1 = Mm1::new(load, SERVICE_NS);
        assert!(near(
            mm1.quantile_ns(0.99),
            100f64.ln() * SERVICE_NS / (1.0 - load),
            1e-6
        ));
        let (mmk, mg1) = (Mmk::new(1, load, SERVICE_NS), Mg1::new(load, &exponential));
        assert!(near(mmk.waits_ratio(), load, 1e-12));
        for q in [0.1, 0.5, 0.9, 0.99, 0.999] {
            assert!(
                near(mmk.quantile_ns(q), mm1.quantile_ns(q), 1e-6),
                "M/M/1 at {load}, {q}"
            );
            assert!(
                near(mg1.quantile_ns(q), mm1.quantile_ns(q), 2e-3),
                "M/G/1 at {load}, {q}"
            );
        }
    }
}

/// Erlang's C for 10 workers and 8 Erlang offered: 0.4092 (Cooper, Introduction to Queueing Theory, 2nd ed., table of C(s, a)).
#[test]
fn erlangs_c_is_the_tables() {
    assert!(near(Mmk::new(10, 0.8, SERVICE_NS).waits_ratio(), 0.4092, 1e-3));
    assert!(near(Mmk::new(2, 0.5, SERVICE_NS).waits_ratio(), 1.0 / 3.0, 1e-9));
    // Where the rate at which waiting ends is that of one worker the general form is 0 ÷ 0.
    let at_the_gap = Mmk::new(2, 0.5, SERVICE_NS);
    let beside = Mmk::new(2, 0.500_001, SERVICE_NS);
    assert!(near(
        at_the_gap.ratio_within(1_500.0),
        beside.ratio_within(1_500.0),
        1e-4
    ));
}

/// M/D/1 has Erlang's closed form for the wait, P(W ≤ t) = (1 − ρ) Σ (−λ (t − jD))^j / j! e^{λ (t − jD)}, j ≤ t / D (1909).
#[test]
fn a_fixed_service_time_is_erlangs_series() {
    let fixed = ServiceTime::Deterministic { ns: 1_000 };
    for load in [0.3, 0.7, 0.9] {
        let mg1 = Mg1::new(load, &fixed);
        for t in [0.2, 0.9, 1.7, 3.3, 6.1] {
            let series: f64 = (0..=t as usize)
                .map(|j| {
                    let x = load * (t - j as f64);
                    let factorial: f64 = (1..=j).map(|i| i as f64).product();
                    (-x).powi(j as i32) / factorial * x.exp()
                })
                .sum();
            let ours = mg1.ratio_within((t + 1.0) * SERVICE_NS);
            assert!((ours - (1.0 - load) * series).abs() < 2e-5, "at {load}, {t}: {ours}");
        }
    }
}

#[test]
fn means_are_pollaczeks_and_khinchines() {
    let models = [
        ServiceTime::Deterministic { ns: 1_000 },
        ServiceTime::Bimodal {
            short_ns: 500,
            long_ns: 10_500,
            long_ratio: 0.05,
        },
        ServiceTime::Lognormal {
            median_ns: 900.0,
            sigma: 0.7,
        },
    ];
    for (load, model) in [0.3, 0.8]
        .into_iter()
        .flat_map(|load| models.iter().map(move |model| (load, model)))
    {
        let mg1 = Mg1::new(load, model);
        // The grid ends before the last of the tail.
        assert!(
            near(mean_of(&mg1), mg1.mean_ns(), 0.01),
            "{model} at {load}: {}",
            mean_of(&mg1)
        );
    }
}

#[test]
fn shared_the_mean_is_the_same_and_the_tail_is_longer() {
    for load in LOADS {
        let (shared, fifo) = (Mm1Shared::new(load, SERVICE_NS), Mm1::new(load, SERVICE_NS));
        assert!(
            near(mean_of(&shared), fifo.mean_ns(), 0.01),
            "at {load}: {}",
            mean_of(&shared)
        );
        assert!(shared.quantile_ns(0.999) > fifo.quantile_ns(0.999));
        assert!(shared.quantile_ns(0.5) < fifo.quantile_ns(0.5));
    }
    // Without others it is the service alone.
    assert!(near(
        Mm1Shared::new(1e-9, SERVICE_NS).quantile_ns(0.9),
        10f64.ln() * SERVICE_NS,
        1e-4
    ));
}

/// The variance of the sojourn time in M/M/1 with processor sharing is (2 + ρ) / ((2 − ρ) (1 − ρ)²) square service times
/// (Ott, Journal of Applied Probability 21, 1984).
#[test]
fn shared_the_variance_is_otts() {
    for load in [0.3, 0.7, 0.9] {
        let shared = Mm1Shared::new(load, 1.0);
        let end = shared.quantile_ns(0.999_99);
        const STEPS: usize = 40_000;
        let step = end / STEPS as f64;
        let square: f64 = (0..STEPS)
            .map(|index| (index as f64 + 0.5) * step)
            .map(|t| 2.0 * t * (1.0 - shared.ratio_within(t)) * step)
            .sum();
        let variance = square - shared.mean_ns().powi(2);
        let otts = (2.0 + load) / ((2.0 - load) * (1.0 - load).powi(2));
        assert!(near(variance, otts, 0.01), "at {load}: {variance} and {otts}");
    }
}

#[test]
fn two_choices_have_mitzenmachers_mean() {
    // Mitzenmacher, The power of two choices in randomized load balancing, 2001, table 1: what is predicted for d = 2.
    for (load, mean) in [(0.5, 1.26568), (0.9, 2.61405), (0.99, 5.43200)] {
        let two = TwoChoices::new(load, 1.0);
        // Σ ρ^(2^i − 2).
        let series: f64 = (1..30).map(|i| f64::powf(load, 2f64.powi(i) - 2.0)).sum();
        assert!(near(two.mean_ns(), series, 1e-6), "{} and {series}", two.mean_ns());
        assert!(near(two.mean_ns(), mean, 1e-4), "{} and {mean}", two.mean_ns());
    }
}

#[test]
fn the_tail_at_scale_is_its_own_arithmetic() {
    assert!(near(slow_ratio(0.01, 100), 0.634, 1e-3));
    assert!(near(slow_ratio(0.0001, 2000), 0.181_3, 1e-3));
    // All of n is the maximum, one of n the minimum, and two of three by hand.
    assert!(near(kth_of_n_within(0.9, 5, 5), 0.9f64.powi(5), 1e-9));
    assert!(near(kth_of_n_within(0.9, 1, 5), 1.0 - 0.1f64.powi(5), 1e-9));
    assert!(near(kth_of_n_within(0.9, 2, 3), 3.0 * 0.81 * 0.1 + 0.729, 1e-9));
    assert!(near(kth_of_n_within(0.999, 1990, 2000), 0.999_99, 1e-4));
}
