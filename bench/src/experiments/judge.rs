//! What the claims of several experiments have in common: a paired ratio held against a limit.

use crate::{
    claim::Judgement,
    measure::compare::RatioEstimate,
    record::{Measured, Outcome, Row},
    table::{Arm, Table},
};

/// What a ratio is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// The ratio is at most this.
    AtMost(f64),
    /// The ratio is at least this.
    AtLeast(f64),
}

impl Bound {
    /// Decided by the whole interval: one that straddles the bound decides nothing.
    fn judge(self, ratio: &RatioEstimate) -> Outcome {
        let (holds, fails) = match self {
            Bound::AtMost(limit) => (ratio.high <= limit, ratio.low > limit),
            Bound::AtLeast(limit) => (ratio.low >= limit, ratio.high < limit),
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
