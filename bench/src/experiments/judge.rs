//! What the claims of several experiments have in common: a paired ratio held against a limit.

use crate::{
    claim::Judgement,
    measure::compare::{self, RatioEstimate},
    record::{Measured, Outcome, Row},
    remote_memory::pair::Via,
    server::MACHINE,
    table::{Arm, ROUNDS_MIN, Table},
};

/// What a ratio is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The ratio is at most this.
    AtMost(f64),
    /// The ratio is at least this.
    AtLeast(f64),
    /// The ratio is from the first to the second.
    Within(f64, f64),
}

impl Bound {
    /// Decided by the whole interval: one that straddles the bound decides nothing.
    fn judge(self, ratio: &RatioEstimate) -> Outcome {
        let (holds, fails) = match self {
            Bound::AtMost(limit) => (ratio.high <= limit, ratio.low > limit),
            Bound::AtLeast(limit) => (ratio.low >= limit, ratio.high < limit),
            Bound::Within(low, high) => (
                ratio.low >= low && ratio.high <= high,
                ratio.high < low || ratio.low > high,
            ),
        };
        match (holds, fails) {
            (true, _) => Outcome::Holds,
            (_, true) => Outcome::Fails,
            _ => Outcome::Inconclusive {
                why: "the interval straddles the bound; more rounds (--budget) may decide it".to_owned(),
            },
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::AtMost(limit) => write!(f, "≤ {limit}"),
            Bound::AtLeast(limit) => write!(f, "≥ {limit}"),
            Bound::Within(low, high) => write!(f, "{low} to {high}"),
        }
    }
}

/// Holds the paired ratio a ÷ b of a metric against a bound.
pub fn ratio(
    table: &Table,
    what: &str,
    (a, b): (Arm<'_>, Arm<'_>),
    metric: impl Fn(&Row) -> Option<f64>,
    bound: Bound,
) -> Judgement {
    let Some(ratio) = table.ratio(a, b, metric) else {
        let fewer = if table.arm(a).len() <= table.arm(b).len() { a } else { b };
        return table.lacking(fewer);
    };
    Judgement::new(
        bound.judge(&ratio),
        vec![measured_ratio(what, &ratio, &bound.to_string())],
    )
}

/// Holds the ratio a ÷ b against a bound, where a and b are computed from several arms of a round and the rounds are
/// paired already. A round whose a or b is not above zero has no ratio and counts for nothing.
pub fn ratio_of(table: &Table, what: &str, (a, b): (&[f64], &[f64]), bound: Bound) -> Judgement {
    let ratio = compare::ratio(b, a, table.seed);
    let judged = match (ratio.rounds_count as usize) < ROUNDS_MIN {
        true => Outcome::Inconclusive {
            why: format!(
                "{} of {} rounds have a ratio at all, and it takes {ROUNDS_MIN}: in the others the noise is larger than what \
                 is measured; give it a longer --budget, on a quieter machine",
                ratio.rounds_count,
                a.len()
            ),
        },
        false => bound.judge(&ratio),
    };
    Judgement::new(judged, vec![measured_ratio(what, &ratio, &bound.to_string())])
}

/// Where nothing of fio's was measured, that is what there is to say.
pub fn beside_fio(table: &Table, judge: impl Fn() -> Judgement) -> Judgement {
    match table.rows.iter().any(|row| row.backend.starts_with("fio-")) {
        true => judge(),
        false => Judgement::not_measured(
            "fio was not measured beside: it is not installed (apt-get install fio), or was not asked for (--axis way=…)",
        ),
    }
}

/// A claim that takes all of several: it fails with any, and holds with all. What decides comes first among its figures, for reports
/// show that one beside the verdict.
pub fn all(mut judgements: Vec<Judgement>) -> Judgement {
    judgements.sort_by_key(|judgement| match judgement.outcome {
        Outcome::Fails => 0,
        Outcome::NotMeasured { .. } => 1,
        Outcome::Inconclusive { .. } => 2,
        Outcome::Holds => 3,
    });
    let measured = judgements
        .iter()
        .flat_map(|judgement| judgement.measured.clone())
        .collect();
    let Some(worst) = judgements.into_iter().next() else {
        return Judgement::not_measured("there is nothing to judge");
    };
    Judgement { measured, ..worst }
}

/// Judges each provider in software that was measured; it takes all of them.
pub fn each_provider(table: &Table, judged: impl Fn(Via) -> Judgement) -> Judgement {
    let is_here = |via: &Via| table.rows.iter().any(|row| row.backend == via.name());
    all(Via::SOFTWARE.into_iter().filter(is_here).map(judged).collect())
}

/// Counts of a binomial distribution lie within as many standard deviations of their mean but for one time in two million.
const DEVIATIONS_MAX: f64 = 5.0;

/// What rows call the result of [`deviations`].
pub const DEVIATIONS: &str = "deviations_from_oracle";

/// How far a count out of `of_count` is from what chance makes of `ratio`, in standard deviations; the last one is for rounding.
pub fn deviations(count: u64, of_count: u64, ratio: f64) -> f64 {
    let mean = ratio * of_count as f64;
    ((count as f64 - mean).abs() - 1.0).max(0.0) / (mean * (1.0 - ratio)).max(1e-9).sqrt()
}

/// Holds the [`DEVIATIONS`] of all valid rows that have them against what chance explains.
pub fn as_the_oracle_counts(table: &Table, lacking: &str) -> Judgement {
    let off = |row: &Row| Some(row.metrics.get(DEVIATIONS)?.value);
    let all: Vec<f64> = table.valid().filter_map(off).collect();
    let Some(worst) = all.iter().copied().max_by(f64::total_cmp) else {
        return Judgement::not_measured(lacking);
    };
    let outcome = match worst <= DEVIATIONS_MAX {
        true => Outcome::Holds,
        false => Outcome::Fails,
    };
    let figure = measured(
        "the farthest count from the oracle's mean",
        Some(worst),
        "standard deviations",
        format!("≤ {DEVIATIONS_MAX}"),
        all.len() as u64,
    );
    Judgement::new(outcome, vec![figure])
}

/// Holds the largest value of a metric, a share, over an arm's rows against a limit.
pub fn worst(table: &Table, arm: Arm<'_>, metric: &str, limit: f64) -> Judgement {
    let rows = table.arm(arm);
    let of = |row: &&Row| Some(row.metrics.get(metric)?.value);
    let Some(worst) = rows.iter().filter_map(of).max_by(f64::total_cmp) else {
        return table.lacking(arm);
    };
    let outcome = match worst <= limit {
        true => Outcome::Holds,
        false => Outcome::Fails,
    };
    let what = format!("{metric} of the worst row, {}", arm.backend);
    let figure = measured(what, Some(worst), "ratio", format!("≤ {limit}"), rows.len() as u64);
    Judgement::new(outcome, vec![figure])
}

/// Did the two ends of all valid rows at `cpus` = `two` really run on different CPUs?
pub fn two_cpus(table: &Table) -> bool {
    table
        .valid()
        .filter(|row| row.axis.get("cpus").is_some_and(|cpus| cpus == "two"))
        .all(|row| row.facts.contains_key(MACHINE) || row.facts.get("client_cpu") != row.facts.get("server_cpu"))
}

/// A ratio as a figure that a verdict rests on.
pub fn measured_ratio(what: &str, ratio: &RatioEstimate, limit: &str) -> Measured {
    Measured {
        name: what.to_owned(),
        value: Some(ratio.ratio),
        unit: "ratio".to_owned(),
        low: Some(ratio.low),
        high: Some(ratio.high),
        limit: limit.to_owned(),
        samples_count: ratio.rounds_count,
    }
}

/// A figure without an interval.
pub fn measured(
    what: impl Into<String>,
    value: Option<f64>,
    unit: &str,
    limit: impl Into<String>,
    samples_count: u64,
) -> Measured {
    Measured {
        name: what.into(),
        value,
        unit: unit.to_owned(),
        low: None,
        high: None,
        limit: limit.into(),
        samples_count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_that_decides_stands_first() {
        let of =
            |name: &str, outcome: Outcome| Judgement::new(outcome, vec![measured(name, Some(1.0), "ratio", "", 8)]);
        let unsure = || Outcome::Inconclusive { why: "wide".to_owned() };
        let names = |judgement: &Judgement| {
            judgement
                .measured
                .iter()
                .map(|figure| figure.name.clone())
                .collect::<Vec<_>>()
        };
        let judged = all(vec![
            of("a", Outcome::Holds),
            of("b", unsure()),
            of("c", Outcome::Fails),
            of("d", Outcome::Holds),
        ]);
        assert_eq!(
            (names(&judged).join(" "), judged.outcome),
            ("c b a d".to_owned(), Outcome::Fails)
        );
        let judged = all(vec![of("a", Outcome::Holds), of("b", unsure())]);
        assert_eq!((names(&judged).join(" "), judged.outcome), ("b a".to_owned(), unsure()));
    }

    #[test]
    fn counts_that_chance_does_not_explain_are_seen() {
        assert!(deviations(205, 100_000, 0.002) < 1.0);
        assert!(deviations(300, 100_000, 0.002) > DEVIATIONS_MAX);
        assert_eq!(deviations(0, 1_000, 0.0), 0.0);
    }
}
