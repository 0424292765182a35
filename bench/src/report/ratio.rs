//! Quotients between back ends, paired by round, and between a back end and its twin.

use std::collections::BTreeMap;

use super::model::Ratio;
use crate::{
    measure,
    record::{QuantileValue, Row},
};

/// The median reply time of each round, in nanoseconds; infinite when it is lost.
pub(crate) fn medians_by_round(rows: &[&Row]) -> BTreeMap<u32, f64> {
    rows.iter()
        .filter_map(|row| Some((row.round, median_ns(row)?)))
        .collect()
}

/// `ours` ÷ `theirs`, each quotient taken within a round, over all rounds.
pub(crate) fn ratio(ours: &BTreeMap<u32, f64>, theirs: &BTreeMap<u32, f64>, seed: u64) -> Option<Ratio> {
    let paired = ours
        .iter()
        .filter_map(|(round, ours)| Some((*theirs.get(round)?, *ours)));
    let (theirs, ours): (Vec<f64>, Vec<f64>) = paired.unzip();
    let estimate = measure::ratio(&theirs, &ours, seed);
    estimate.ratio.is_finite().then(|| Ratio {
        value: estimate.ratio,
        interval: estimate.is_bounded().then_some((estimate.low, estimate.high)),
        rounds_count: estimate.rounds_count as usize,
    })
}

/// How far apart a back end and its twin are, at most, over all pairs: their ratio over the rounds, as a distance from 1. What differs less is not a difference.
pub(crate) fn noise_floor(rows: &[&Row], seed: u64) -> Option<f64> {
    let mut pairs: BTreeMap<_, [Vec<&Row>; 2]> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.validity.is_valid()) {
        pairs.entry((&row.backend, &row.axis)).or_default()[usize::from(row.twin)].push(row);
    }
    pairs
        .values()
        .filter_map(|[first, twin]| ratio(&main_by_round(twin), &main_by_round(first), seed))
        .map(|ratio| (ratio.value - 1.0).abs())
        .max_by(f64::total_cmp)
}

/// The median reply time of each round; where none is measured, the first metric of CPU time.
fn main_by_round(rows: &[&Row]) -> BTreeMap<u32, f64> {
    let main = |row: &Row| {
        let cpu = row.metrics.iter().find(|(name, _)| name.contains("cpu"));
        median_ns(row).or(match (&row.latency, &row.service) {
            (None, None) => cpu.map(|(_, metric)| metric.value),
            _ => None,
        })
    };
    rows.iter().filter_map(|row| Some((row.round, main(row)?))).collect()
}

fn median_ns(row: &Row) -> Option<f64> {
    let distribution = row.latency.as_ref().or(row.service.as_ref())?;
    let p50 = distribution.quantiles.iter().find(|quantile| quantile.q == 0.5)?;
    match p50.value {
        QuantileValue::Ns(ns) => Some(ns as f64),
        QuantileValue::Lost => Some(f64::INFINITY),
        QuantileValue::Unsupported => None,
    }
}
