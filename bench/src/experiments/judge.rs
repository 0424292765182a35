//! What the claims of several experiments have in common: a paired ratio held against a limit.

use crate::{
    claim::Judgement,
    measure::compare::{self, RatioEstimate},
    record::{Measured, Outcome, Row},
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

/// A claim that takes all of several: it fails with any, and holds with all.
pub fn all(judgements: Vec<Judgement>) -> Judgement {
    // The worst first.
    let rank = |judgement: &Judgement| match judgement.outcome {
        Outcome::Fails => 0,
        Outcome::NotMeasured { .. } => 1,
        Outcome::Inconclusive { .. } => 2,
        Outcome::Holds => 3,
    };
    let measured = judgements
        .iter()
        .flat_map(|judgement| judgement.measured.clone())
        .collect();
    let Some(worst) = judgements.into_iter().min_by_key(rank) else {
        return Judgement::not_measured("there is nothing to judge");
    };
    Judgement { measured, ..worst }
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
