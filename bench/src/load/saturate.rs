//! The highest load that still keeps an objective: doubling until it is missed, then halving the step.

use crate::{load::LoadResult, record::QuantileValue};

/// What a load must keep to count as carried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// The quantile that is held to a bound, 0 to 1.
    pub q: f64,
    /// Its bound, in nanoseconds.
    pub latency_ns_max: u64,
    /// Lost requests over all.
    pub lost_ratio_max: f64,
    /// Answered rate over offered rate.
    pub achieved_ratio_min: f64,
}

impl Objective {
    /// p99 at most `latency_ns_max`, at most one request in a thousand lost, at least 98 % of the offered rate answered.
    pub fn p99(latency_ns_max: u64) -> Objective {
        Objective {
            q: 0.99,
            latency_ns_max,
            lost_ratio_max: 0.001,
            achieved_ratio_min: 0.98,
        }
    }

    /// Does the probe keep it?
    pub fn is_kept(&self, probe: &Probe) -> bool {
        probe.latency <= QuantileValue::Ns(self.latency_ns_max)
            && probe.lost_ratio <= self.lost_ratio_max
            && probe.achieved_rate_per_s >= self.achieved_ratio_min * probe.offered_rate_per_s
    }
}

/// What one load gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// Requests per second that were offered.
    pub offered_rate_per_s: f64,
    /// Requests per second that were answered.
    pub achieved_rate_per_s: f64,
    /// The objective's quantile of the latency.
    pub latency: QuantileValue,
    /// Lost requests over all.
    pub lost_ratio: f64,
}

impl Probe {
    /// The probe that a run is, for the quantile `q`.
    pub fn of(result: &LoadResult, q: f64) -> Probe {
        Probe {
            offered_rate_per_s: result.offered_rate_per_s,
            achieved_rate_per_s: result.achieved_rate_per_s,
            latency: result.latency.quantile(q),
            lost_ratio: result.lost_ratio(),
        }
    }
}

/// How the search goes. [`search`] clamps every field to something that ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// Where it begins, in requests per second.
    pub rate_per_s_first: f64,
    /// The highest rate that is tried.
    pub rate_per_s_max: f64,
    /// The factor while nothing has failed, above 1.
    pub growth: f64,
    /// Done when the lowest failed and the highest kept rate are this close, as a ratio above 1.
    pub precision: f64,
    /// The most probes.
    pub probes_max: usize,
    /// How often a rate is tried before it counts as failed: noise only ever makes a probe worse.
    pub tries_max: usize,
}

impl Default for Search {
    fn default() -> Search {
        Search {
            rate_per_s_first: 1_000.0,
            rate_per_s_max: 10_000_000.0,
            growth: 2.0,
            precision: 1.05,
            probes_max: 30,
            tries_max: 2,
        }
    }
}

/// What the search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Saturation {
    /// The highest load that kept the objective, if any did.
    pub best: Option<Probe>,
    /// Every probe in the order it was made, and whether it kept the objective.
    pub visited: Vec<(Probe, bool)>,
    /// Why the search ended.
    pub end: SearchEnd,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchEnd {
    /// The limit is bracketed as closely as was asked.
    Found,
    /// Even the highest rate that may be tried kept the objective: the limit lies above it.
    RateMax,
    /// Even the lowest rate that was tried did not keep it: a 64th of the first.
    BelowFirst,
    /// No probe was left.
    ProbesMax,
}

/// Searches for the highest offered rate that keeps `objective`; `probe` runs one rate.
///
/// # Errors
/// The first error of `probe`.
pub fn search<E>(
    options: &Search,
    objective: &Objective,
    probe: &mut dyn FnMut(f64) -> Result<Probe, E>,
) -> Result<Saturation, E> {
    let growth = options.growth.clamp(1.01, 100.0);
    let precision = options.precision.max(1.001);
    let rate_max = options.rate_per_s_max.max(f64::MIN_POSITIVE);
    let rate_first = options.rate_per_s_first.clamp(f64::MIN_POSITIVE, rate_max);
    let mut visited = Vec::new();
    let mut best: Option<Probe> = None;
    // The limit lies between the two: kept at the one, missed at the other.
    let (mut kept, mut failed): (Option<f64>, Option<f64>) = (None, None);
    let mut rate = rate_first;
    let end = loop {
        let mut is_kept = false;
        for _ in 0..options.tries_max.max(1) {
            if is_kept || visited.len() >= options.probes_max {
                break;
            }
            let seen = probe(rate)?;
            is_kept = objective.is_kept(&seen);
            visited.push((seen, is_kept));
            if is_kept && best.is_none_or(|best| best.offered_rate_per_s < seen.offered_rate_per_s) {
                best = Some(seen);
            }
        }
        match is_kept {
            true => kept = Some(rate),
            false => failed = Some(rate),
        }
        rate = match (kept, failed) {
            (Some(kept), Some(failed)) if failed / kept <= precision => break SearchEnd::Found,
            // The middle of a ratio: equal steps in per cent.
            (Some(kept), Some(failed)) => (kept * failed).sqrt(),
            (Some(kept), None) if kept >= rate_max => break SearchEnd::RateMax,
            (Some(kept), None) => (kept * growth).min(rate_max),
            (None, Some(failed)) if failed <= rate_first / 64.0 => break SearchEnd::BelowFirst,
            (None, _) => rate / 2.0,
        };
        if visited.len() >= options.probes_max {
            break SearchEnd::ProbesMax;
        }
    };
    Ok(Saturation { best, visited, end })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// p99 of the sojourn in an M/D/1 queue of 10 µs of service, by the exponential tail of its waiting time; above
    /// saturation everything that exceeds the rate is lost.
    fn queue(rate_per_s: f64) -> Probe {
        const SERVICE_NS: f64 = 10_000.0;
        let utilisation = rate_per_s * SERVICE_NS / 1e9;
        let overload = utilisation >= 1.0;
        let waiting_ns = SERVICE_NS * utilisation / (2.0 * (1.0 - utilisation)) * 100f64.ln();
        Probe {
            offered_rate_per_s: rate_per_s,
            achieved_rate_per_s: if overload { 1e9 / SERVICE_NS } else { rate_per_s },
            latency: match overload {
                true => QuantileValue::Lost,
                false => QuantileValue::Ns((SERVICE_NS + waiting_ns) as u64),
            },
            lost_ratio: if overload { 1.0 - 1.0 / utilisation } else { 0.0 },
        }
    }

    fn run(options: &Search, objective: &Objective) -> Saturation {
        search(options, objective, &mut |rate| Ok::<_, Infallible>(queue(rate))).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn the_limit_of_a_queue_is_found_within_the_precision() {
        // 100 µs at p99 is waiting 90 µs: u / (1 - u) = 2 × 9 / ln 100, u = 0.796, so 79 600/s.
        let found = run(&Search::default(), &Objective::p99(100_000));
        let best = found.best.expect("some rate keeps it").offered_rate_per_s;
        assert!((79_600.0 / 1.06..=79_700.0).contains(&best), "{best}");
        assert_eq!(found.end, SearchEnd::Found);
        assert!(found.visited.len() < 25, "{}", found.visited.len());
        assert!(
            found.visited.iter().any(|(_, is_kept)| !is_kept),
            "every point is returned, kept or not"
        );
    }

    #[test]
    fn saturation_itself_is_found_when_latency_does_not_matter() {
        let found = run(&Search::default(), &Objective::p99(u64::MAX));
        let best = found.best.unwrap().offered_rate_per_s;
        assert!((94_000.0..=100_200.0).contains(&best), "{best}");
    }

    #[test]
    fn a_first_rate_that_is_too_high_is_come_down_from() {
        let options = Search {
            rate_per_s_first: 1_000_000.0,
            ..Search::default()
        };
        let best = run(&options, &Objective::p99(100_000)).best.unwrap().offered_rate_per_s;
        assert!((75_000.0..=79_700.0).contains(&best), "{best}");
    }

    #[test]
    fn the_search_ends_at_its_bounds_and_says_which() {
        let impossible = run(&Search::default(), &Objective::p99(1));
        assert_eq!((impossible.best, impossible.end), (None, SearchEnd::BelowFirst));
        let low = Search {
            rate_per_s_max: 5_000.0,
            ..Search::default()
        };
        let easy = run(&low, &Objective::p99(100_000));
        assert_eq!(
            (easy.best.unwrap().offered_rate_per_s, easy.end),
            (5_000.0, SearchEnd::RateMax)
        );
        let short = Search {
            probes_max: 3,
            ..Search::default()
        };
        let cut = run(&short, &Objective::p99(100_000));
        assert_eq!((cut.visited.len(), cut.end), (3, SearchEnd::ProbesMax));
        assert_eq!(cut.best.unwrap().offered_rate_per_s, 4_000.0);
    }

    #[test]
    fn one_noisy_probe_does_not_end_the_climb() {
        let mut calls = 0;
        let found = search(&Search::default(), &Objective::p99(100_000), &mut |rate| {
            calls += 1;
            let mut probe = queue(rate);
            if calls == 3 {
                probe.latency = QuantileValue::Ns(5_000_000);
            }
            Ok::<_, Infallible>(probe)
        })
        .unwrap_or_else(|never| match never {});
        assert!(found.best.unwrap().offered_rate_per_s > 75_000.0);
    }

    #[test]
    fn a_probe_that_fails_ends_the_search() {
        let error = search(&Search::default(), &Objective::p99(1), &mut |_| Err("gone")).expect_err("passed on");
        assert_eq!(error, "gone");
    }

    #[test]
    fn an_unsupported_quantile_keeps_nothing() {
        let probe = Probe {
            latency: QuantileValue::Unsupported,
            ..queue(1_000.0)
        };
        assert!(!Objective::p99(u64::MAX).is_kept(&probe));
    }
}
