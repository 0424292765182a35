//! What the claims of several experiments have in common: a paired ratio held against a limit.

use crate::{
    claim::Judgement,
    measure::compare::RatioEstimate,
    record::{Measured, Outcome, Row},
    table::{Arm, Table},
};

/// "a ÷ b is at most `limit`", decided by the whole interval: an interval that straddles the limit decides nothing.
pub fn ratio_at_most(
    table: &Table,
    what: &str,
    a: Arm<'_>,
    b: Arm<'_>,
    metric: impl Fn(&Row) -> Option<f64>,
    limit: f64,
) -> Judgement {
    for arm in [a, b] {
        if table.arm(arm).is_empty() {
            return Judgement::not_measured(table.why_empty(arm));
        }
    }
    let Some(ratio) = table.ratio(a, b, metric) else {
        return Judgement::not_measured("fewer than six rounds have both rows; give it a longer --budget");
    };
    let outcome = if ratio.high <= limit {
        Outcome::Holds
    } else if ratio.low > limit {
        Outcome::Fails
    } else {
        Outcome::Inconclusive {
            why: "the interval straddles the limit; more rounds (--budget) may decide it".to_owned(),
        }
    };
    Judgement {
        outcome,
        measured: vec![measured_ratio(what, &ratio, &format!("≤ {limit}"))],
    }
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
