//! Quotients between back ends, paired by round, and between a back end and its twin.

use std::collections::BTreeMap;

use super::model::{Ratio, median};
use crate::{
    measure::interval,
    record::{QuantileValue, Row},
};

/// The median reply time of each round, in nanoseconds.
pub(crate) fn medians_by_round(rows: &[&Row]) -> BTreeMap<u32, f64> {
    rows.iter()
        .filter_map(|row| Some((row.round, median_ns(row)?)))
        .collect()
}

/// The median over rounds of `ours` ÷ `theirs`, each quotient taken within a round, with a distribution-free interval.
pub(crate) fn ratio(ours: &BTreeMap<u32, f64>, theirs: &BTreeMap<u32, f64>) -> Option<Ratio> {
    let paired = ours.iter().filter_map(|(round, ours)| Some((ours, theirs.get(round)?)));
    let mut quotients: Vec<f64> = paired
        .filter(|(_, theirs)| **theirs > 0.0)
        .map(|(a, b)| a / b)
        .collect();
    if quotients.is_empty() {
        return None;
    }
    quotients.sort_by(f64::total_cmp);
    let bounds = interval(0.5, quotients.len() as u64);
    let at = |rank: Option<u64>| rank.map(|rank| quotients[rank as usize - 1]);
    Some(Ratio {
        value: median(&quotients),
        interval: at(bounds.low).zip(at(bounds.high)),
        rounds_count: quotients.len(),
    })
}

/// How far apart a back end and its twin are, at most, over all pairs: the median over rounds of their quotient, as a
/// distance from 1. What differs less is not a difference.
pub(crate) fn noise_floor(rows: &[&Row]) -> Option<f64> {
    let mut pairs: BTreeMap<_, [Vec<&Row>; 2]> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.validity.is_valid()) {
        pairs.entry((&row.backend, &row.axis)).or_default()[usize::from(row.twin)].push(row);
    }
    pairs
        .values()
        .filter_map(|[first, twin]| ratio(&medians_by_round(twin), &medians_by_round(first)))
        .map(|ratio| (ratio.value - 1.0).abs())
        .max_by(f64::total_cmp)
}

fn median_ns(row: &Row) -> Option<f64> {
    let distribution = row.latency.as_ref().or(row.service.as_ref())?;
    let p50 = distribution.quantiles.iter().find(|quantile| quantile.q == 0.5)?;
    match p50.value {
        QuantileValue::Ns(ns) => Some(ns as f64),
        QuantileValue::Lost | QuantileValue::Unsupported => None,
    }
}
