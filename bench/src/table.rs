//! The rows of one experiment, as claims look at them: by arm, paired by round, merged by histogram.

use crate::{
    claim::Judgement,
    measure::{
        Recorder,
        compare::{self, RatioEstimate},
    },
    record::{Distribution, QuantileValue, Row},
};

/// Rows in the order they were measured.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The rows, invalid ones included; [`Table::valid`] leaves those out.
    pub rows: Vec<Row>,
    /// Seeds every resampling, so that a verdict can be repeated.
    pub seed: u64,
}

/// Which rows: a back end and some of its axis values.
#[derive(Clone, Copy, Debug)]
pub struct Arm<'a> {
    /// The back end's name.
    pub backend: &'a str,
    /// Axis values that a row must have.
    pub axis: &'a [(&'a str, &'a str)],
    /// The second of an A/A pair?
    pub twin: bool,
}

impl<'a> Arm<'a> {
    /// The first of its pair, at these axis values.
    pub fn of(backend: &'a str, axis: &'a [(&'a str, &'a str)]) -> Arm<'a> {
        Arm {
            backend,
            axis,
            twin: false,
        }
    }

    fn has(&self, row: &Row) -> bool {
        row.backend == self.backend
            && row.twin == self.twin
            && self
                .axis
                .iter()
                .all(|(name, value)| row.axis.get(*name).is_some_and(|have| have == value))
    }
}

/// Axis values, as one would ask for them; nothing for none.
fn place(axis: &[(&str, &str)]) -> String {
    let values: Vec<String> = axis.iter().map(|(name, value)| format!("{name}={value}")).collect();
    match values.is_empty() {
        true => String::new(),
        false => format!(" with {}", values.join(" ")),
    }
}

impl Table {
    /// Rows that may be judged.
    pub fn valid(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.validity.is_valid())
    }

    /// The valid rows of an arm, in the order of their rounds.
    pub fn arm(&self, arm: Arm<'_>) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.valid().filter(|row| arm.has(row)).collect();
        rows.sort_by_key(|row| row.round);
        rows
    }

    /// What can be said of a claim when an arm that it needs has no valid row, or too few: never measured, or INVALID.
    pub fn lacking(&self, arm: Arm<'_>) -> Judgement {
        let measured_count = self.rows.iter().filter(|row| arm.has(row)).count();
        let valid_count = self.arm(arm).len();
        let name = arm.backend;
        let at = place(&self.telling(arm));
        match (measured_count, measured_count - valid_count) {
            (0, _) => Judgement::not_measured(format!("{name} was not measured in this run{}", self.missing(arm))),
            (_, 0) => Judgement::not_measured(format!(
                "{valid_count} rounds of {name}{at} are too few (it takes {ROUNDS_MIN}); give it a longer --budget"
            )),
            (_, invalid_count) => Judgement::invalid(format!(
                "{invalid_count} of {measured_count} rounds of {name}{at} are INVALID, and the rest too few; the report says why, \
                 and what to try"
            )),
        }
    }

    /// With which of the arm's axis values nothing was measured, as one would ask for them; or that nothing was with all of them.
    /// Nothing is said of a back end that is not there at all.
    fn missing(&self, arm: Arm<'_>) -> String {
        if !self.rows.iter().any(|row| row.backend == arm.backend) {
            return String::new();
        }
        let absent: Vec<(&str, &str)> = arm
            .axis
            .iter()
            .copied()
            .filter(|(name, value)| self.values(arm, name).all(|have| have != *value))
            .collect();
        match absent.is_empty() {
            true => place(&self.telling(arm)),
            false => place(&absent),
        }
    }

    /// The arm's axis values that tell it from other rows.
    fn telling<'a>(&self, arm: Arm<'a>) -> Vec<(&'a str, &'a str)> {
        let differs = |(name, value): &(&str, &str)| self.values(arm, name).any(|have| have != *value);
        arm.axis.iter().copied().filter(differs).collect()
    }

    /// What rows of the arm's back end have on that axis.
    fn values<'a>(&'a self, arm: Arm<'_>, name: &'a str) -> impl Iterator<Item = &'a str> {
        let rows = self.rows.iter().filter(move |row| row.backend == arm.backend);
        rows.filter_map(move |row| row.axis.get(name).map(String::as_str))
    }

    /// `metric` of both arms in the rounds that both have, paired.
    pub fn paired(&self, a: Arm<'_>, b: Arm<'_>, metric: impl Fn(&Row) -> Option<f64>) -> (Vec<f64>, Vec<f64>) {
        let b_rows = self.arm(b);
        self.arm(a)
            .iter()
            .filter_map(|a_row| {
                let b_row = b_rows.iter().find(|b_row| b_row.round == a_row.round)?;
                Some((metric(a_row)?, metric(b_row)?))
            })
            .unzip()
    }

    /// `metric` of each arm, in the rounds in which all of them have it.
    pub fn aligned<const N: usize>(&self, arms: [Arm<'_>; N], metric: impl Fn(&Row) -> Option<f64>) -> [Vec<f64>; N] {
        let rows = arms.map(|arm| self.arm(arm));
        let mut values: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
        let Some(first) = rows.first() else { return values };
        for round in first.iter().map(|row| row.round) {
            let of_arm = |index: usize| metric(rows[index].iter().find(|row| row.round == round)?);
            let here: [Option<f64>; N] = std::array::from_fn(of_arm);
            if here.iter().all(Option::is_some) {
                for (values, value) in values.iter_mut().zip(here) {
                    values.extend(value);
                }
            }
        }
        values
    }

    /// The ratio a ÷ b of a metric over the rounds both have; `None` below [`ROUNDS_MIN`].
    pub fn ratio(&self, a: Arm<'_>, b: Arm<'_>, metric: impl Fn(&Row) -> Option<f64>) -> Option<RatioEstimate> {
        let (a, b) = self.paired(a, b, metric);
        (a.len() >= ROUNDS_MIN).then(|| compare::ratio(&b, &a, self.seed))
    }

    /// One histogram of an arm's valid rows; `None` when there are none, or one cannot be read.
    pub fn merged(&self, arm: Arm<'_>, which: impl Fn(&Row) -> Option<&Distribution>) -> Option<Recorder> {
        let mut rows = self.arm(arm).into_iter().filter_map(which);
        let mut merged = Recorder::from_distribution(rows.next()?).ok()?;
        for distribution in rows {
            merged.merge(&Recorder::from_distribution(distribution).ok()?);
        }
        Some(merged)
    }
}

/// Fewer pairs have no 95 % interval (see [`compare::ratio`]).
pub const ROUNDS_MIN: usize = 6;

/// A quantile of a row's latency, in nanoseconds; `None` when it is lost or cannot be said.
pub fn latency_ns(q: f64) -> impl Fn(&Row) -> Option<f64> {
    move |row| {
        let quantile = row
            .latency
            .as_ref()?
            .quantiles
            .iter()
            .find(|quantile| quantile.q == q)?;
        match quantile.value {
            QuantileValue::Ns(ns) => Some(ns as f64),
            QuantileValue::Lost | QuantileValue::Unsupported => None,
        }
    }
}
