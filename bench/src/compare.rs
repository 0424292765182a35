//! Two runs side by side: did anything change between them?
//!
//! The rounds are the sample, not the requests: requests of one round share its luck. For each back end at each point
//! the rounds' quantiles of one run are held against those of the other by Mann and Whitney's test, and a change is
//! one only when it is beyond the noise floor that either run saw between identical twins. "No evidence of change" is
//! the ordinary answer.

mod render;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    measure::{Difference, RatioEstimate, mann_whitney, ratio, ratio_unpaired, verdict},
    record::{Better, Distribution, ModeRecord, QuantileValue, Row},
    store::Run,
};

pub use render::{markdown, terminal};

/// The quantiles that are compared.
const QUANTILES: [(f64, &str); 3] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")];

/// Rounds on each side below which no change can be told: 4 against 4 is the smallest size at which Mann and Whitney's
/// two-sided test reaches 5 % (Conover, Practical Nonparametric Statistics, table A7).
pub const ROUNDS_COUNT_MIN: usize = 4;

/// Facts of the environment that a difference may come from instead of from the code.
const TELLING_FACTS: [&str; 12] = [
    "kernel",
    "cmdline",
    "cpu_model",
    "cpus_online",
    "governor",
    "turbo",
    "smt",
    "clock_source",
    "hypervisor",
    "thp",
    "mitigations",
    "nic_driver",
];

/// What the comparison of two runs says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Why the two may differ for another reason than the one that is looked for. Read these first.
    pub warnings: Vec<String>,
    /// Everything that both runs measured, in the order of A.
    pub pairs: Vec<Pair>,
    /// What only A measured: "experiment, back end, point".
    pub only_in_a: Vec<String>,
    /// What only B measured.
    pub only_in_b: Vec<String>,
}

/// One quantity of one back end at one point, in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The experiment's id.
    pub experiment: String,
    /// The back end's name.
    pub backend: String,
    /// The point on the experiment's axes.
    pub axis: BTreeMap<String, String>,
    /// "p50", "p99", "p99.9" of the latency, or a metric's name.
    pub quantity: String,
    /// The quantity's unit.
    pub unit: String,
    /// A's median over its rounds; `None` when it is lost.
    pub a: Option<f64>,
    /// B's.
    pub b: Option<f64>,
    /// Rounds of A.
    pub a_rounds_count: usize,
    /// Rounds of B.
    pub b_rounds_count: usize,
    /// B ÷ A; `None` when it is not finite.
    pub ratio: Option<f64>,
    /// Lower end of its 95 % interval, where the rounds bound it.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Two-sided p-value of Mann and Whitney's test.
    pub p_value: f64,
    /// How far identical twins differed in the noisier of the two runs: 0.02 is 2 %.
    pub noise_floor: Option<f64>,
    /// What that amounts to.
    pub change: Change,
}

/// What a pair amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// B is worse than A, beyond the noise.
    Worse,
    /// B is better than A, beyond the noise.
    Better,
    /// The ordinary answer.
    NoEvidence,
    /// Fewer than [`ROUNDS_COUNT_MIN`] rounds on a side: nothing can be told.
    TooFewRounds,
}

impl Comparison {
    /// Pairs with that answer.
    pub fn count(&self, change: Change) -> usize {
        self.pairs.iter().filter(|pair| pair.change == change).count()
    }
}

/// Where a row belongs.
type Key<'a> = (&'a str, &'a str, &'a BTreeMap<String, String>);

/// Compares two runs, A before and B after. Rows that may not be judged, and twins, are left out.
pub fn compare(a: &Run, b: &Run) -> Comparison {
    let (groups_a, groups_b) = (groups(a), groups(b));
    let mut comparison = Comparison {
        warnings: warnings(a, b),
        pairs: Vec::new(),
        only_in_a: Vec::new(),
        only_in_b: Vec::new(),
    };
    for (key, rows_a) in &groups_a {
        match groups_b.iter().find(|(other, _)| other == key) {
            Some((_, rows_b)) => {
                comparison.warnings.extend(mode_warning(key, rows_a, rows_b));
                let floor = [noise_floor(a, key), noise_floor(b, key)].into_iter().flatten();
                let floor = floor.max_by(|a, b| distance(a).total_cmp(&distance(b)));
                comparison.pairs.extend(pairs(key, rows_a, rows_b, floor));
            }
            None => comparison.only_in_a.push(name(key)),
        }
    }
    let unmatched = groups_b
        .iter()
        .filter(|(key, _)| !groups_a.iter().any(|(other, _)| other == key));
    comparison.only_in_b = unmatched.map(|(key, _)| name(key)).collect();
    comparison
}

/// "rtt-ladder, udp-spin, frame_bytes 64".
fn name((experiment, backend, axis): &Key<'_>) -> String {
    let point = axis.iter().map(|(axis, value)| format!(", {axis} {value}"));
    format!("{experiment}, {backend}{}", point.collect::<String>())
}

/// Rows that may be judged, by what they are of, in the order of their first row.
fn groups(run: &Run) -> Vec<(Key<'_>, Vec<&Row>)> {
    let mut groups: Vec<(Key<'_>, Vec<&Row>)> = Vec::new();
    for row in run.rows.iter().filter(|row| row.validity.is_valid() && !row.twin) {
        let key: Key<'_> = (&row.experiment, &row.backend, &row.axis);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((key, vec![row])),
        }
    }
    groups
}

fn pairs(key: &Key<'_>, rows_a: &[&Row], rows_b: &[&Row], floor: Option<RatioEstimate>) -> Vec<Pair> {
    let quantiles = QUANTILES.iter().filter_map(|&(q, quantity)| {
        let (a, b) = (quantiles(rows_a, q), quantiles(rows_b, q));
        (!a.is_empty() && !b.is_empty()).then(|| pair(key, quantity, "ns", Better::Lower, (&a, &b), floor))
    });
    let metrics = rows_a[0]
        .metrics
        .iter()
        .filter(|(_, metric)| metric.better != Better::Neither);
    let metrics = metrics.filter_map(|(quantity, metric)| {
        let values = |rows: &[&Row]| -> Vec<f64> {
            rows.iter()
                .filter_map(|row| Some(row.metrics.get(quantity)?.value))
                .collect()
        };
        let (a, b) = (values(rows_a), values(rows_b));
        // A ratio of what may be zero or negative says nothing.
        let comparable = !a.is_empty() && !b.is_empty() && a.iter().chain(&b).all(|&value| value > 0.0);
        // The twins' noise floor is of latencies, and says nothing of other quantities.
        comparable.then(|| pair(key, quantity, &metric.unit, metric.better, (&a, &b), None))
    });
    quantiles.chain(metrics).collect()
}

fn pair(
    (experiment, backend, axis): &Key<'_>,
    quantity: &str,
    unit: &str,
    better: Better,
    (a, b): (&[f64], &[f64]),
    floor: Option<RatioEstimate>,
) -> Pair {
    let estimate = ratio_unpaired(a, b);
    let p_value = mann_whitney(a, b);
    let change = match verdict(&estimate, floor.as_ref()) {
        _ if a.len().min(b.len()) < ROUNDS_COUNT_MIN => Change::TooFewRounds,
        // The interval and the test agree but for ties; a change takes both.
        _ if p_value > 0.05 => Change::NoEvidence,
        Difference::Inconclusive => Change::NoEvidence,
        Difference::Slower if better == Better::Higher => Change::Better,
        Difference::Slower => Change::Worse,
        Difference::Faster if better == Better::Higher => Change::Worse,
        Difference::Faster => Change::Better,
    };
    let finite = |value: f64| value.is_finite().then_some(value);
    Pair {
        experiment: (*experiment).into(),
        backend: (*backend).into(),
        axis: (*axis).clone(),
        quantity: quantity.into(),
        unit: unit.into(),
        a: finite(median(a)),
        b: finite(median(b)),
        a_rounds_count: a.len(),
        b_rounds_count: b.len(),
        ratio: finite(estimate.ratio),
        low: estimate.is_bounded().then_some(estimate.low),
        high: estimate.is_bounded().then_some(estimate.high),
        p_value,
        noise_floor: floor.map(|floor| distance(&floor).exp() - 1.0),
        change,
    }
}

/// The quantile of each round in nanoseconds; a lost one is infinite, one that its sample cannot support is left out.
fn quantiles(rows: &[&Row], q: f64) -> Vec<f64> {
    rows.iter().filter_map(|row| quantile(main(row)?, q)).collect()
}

fn quantile(distribution: &Distribution, q: f64) -> Option<f64> {
    match distribution.quantiles.iter().find(|quantile| quantile.q == q)?.value {
        QuantileValue::Ns(ns) => Some(ns as f64),
        QuantileValue::Lost => Some(f64::INFINITY),
        QuantileValue::Unsupported => None,
    }
}

fn main(row: &Row) -> Option<&Distribution> {
    row.latency.as_ref().or(row.service.as_ref())
}

/// The twins of the run at this experiment and point: how far two equal ones were apart.
fn noise_floor(run: &Run, (experiment, _, axis): &Key<'_>) -> Option<RatioEstimate> {
    let here = |row: &&Row| row.experiment == *experiment && row.axis == **axis && row.validity.is_valid();
    let twins = run.rows.iter().filter(here).filter(|row| row.twin);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for twin in twins {
        let is_first = |row: &&Row| !row.twin && row.backend == twin.backend && row.round == twin.round;
        let row = run.rows.iter().filter(here).find(is_first);
        let p50 = |row: &Row| quantile(main(row)?, 0.5);
        if let (Some(a), Some(b)) = (row.and_then(p50), p50(twin)) {
            first.push(a);
            second.push(b);
        }
    }
    let estimate = ratio(&first, &second, run.header.seed);
    (estimate.ratio.is_finite() && estimate.ratio > 0.0).then_some(estimate)
}

/// How far from "equal", whichever way.
fn distance(estimate: &RatioEstimate) -> f64 {
    estimate.ratio.ln().abs()
}

/// At least one value; infinite when the middle is lost.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

fn mode_warning(key: &Key<'_>, rows_a: &[&Row], rows_b: &[&Row]) -> Option<String> {
    let word = |mode: &ModeRecord| match mode {
        ModeRecord::Native => "native".to_string(),
        ModeRecord::Emulated { by } => format!("emulated by {by}"),
        ModeRecord::Simulated => "simulated".into(),
    };
    let (a, b) = (&rows_a[0].mode, &rows_b[0].mode);
    (a != b).then(|| {
        format!(
            "{} is {} in A and {} in B: these are two things",
            name(key),
            word(a),
            word(b)
        )
    })
}

fn warnings(a: &Run, b: &Run) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut differs = |what: &str, in_a: &str, in_b: &str| {
        if in_a != in_b {
            warnings.push(format!("{what} differs: {in_a} in A, {in_b} in B"));
        }
    };
    let unknown = "unknown".to_string();
    let (header_a, header_b) = (&a.header, &b.header);
    differs("the build profile", &header_a.build_profile, &header_b.build_profile);
    differs("the place", &header_a.place, &header_b.place);
    differs("the seed", &header_a.seed.to_string(), &header_b.seed.to_string());
    for name in TELLING_FACTS {
        let fact = |run: &Run| run.header.environment.facts.get(name).unwrap_or(&unknown).clone();
        differs(name, &fact(a), &fact(b));
    }
    for (name, run) in [("A", a), ("B", b)] {
        if !run.is_complete() {
            warnings.push(format!("{name} did not come to its end: it was interrupted or killed"));
        }
        if !run.damage.is_empty() {
            warnings.push(format!(
                "{name} has {} damaged lines, which are left out",
                run.damage.len()
            ));
        }
        let invalid_count = run.rows.iter().filter(|row| !row.validity.is_valid()).count();
        if invalid_count > 0 {
            warnings.push(format!("{name} has {invalid_count} INVALID rows, which are left out"));
        }
        if run.rows.is_empty() {
            warnings.push(format!("{name} has zero rows"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
