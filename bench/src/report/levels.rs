//! An experiment that ran the same points on a real kernel and in the simulator: both beside each other, and how far apart they are.

use std::collections::BTreeMap;

use super::model::{Experiment, MetricSummary};
use crate::experiments::kernel_tcp::{LEVEL, LEVEL_KERNEL, LEVEL_SIMULATOR};

/// What is compared: the first that both have.
const METRICS: [&str; 4] = [
    "goodput_mbit_per_sec",
    "query_ms_p50",
    "long_goodput_mbit_per_sec",
    "long_rtt_ms_p50",
];
/// Experiments about shares and queues say more by these than by what the link carries, which is the same for all.
const METRICS_FIRST: [(&str, &str); 3] = [
    ("real-bufferbloat", "long_rtt_ms_p50"),
    ("real-fairness", "fairness"),
    ("real-bbr-vs-lossbased", "long_last_mbit_per_sec"),
];

/// What a point came to on the kernel and in the simulator.
type Levels<'a> = [Option<MetricSummary<'a>>; 2];

/// One point at both levels.
#[derive(Clone, Debug)]
pub(crate) struct Pair<'a> {
    /// The arm; empty where there is none.
    pub arm: &'a str,
    /// What else is varied, if something is.
    pub value: Option<&'a str>,
    pub kernel: MetricSummary<'a>,
    pub simulated: f64,
}

impl Pair<'_> {
    /// The simulator's figure over the kernel's median.
    pub fn ratio(&self) -> f64 {
        self.simulated / self.kernel.median
    }

    /// Beyond a factor of two.
    pub fn is_far(&self) -> bool {
        !(0.5..=2.0).contains(&self.ratio())
    }
}

/// All points that have both levels, and the metric's name; none for an experiment without levels.
pub(crate) fn pairs<'a>(experiment: &'a Experiment<'a>) -> Option<(&'static str, Vec<Pair<'a>>)> {
    let own = METRICS_FIRST
        .iter()
        .filter(|(id, _)| *id == experiment.id)
        .map(|(_, metric)| *metric);
    let has = |metric: &str, level: &str| {
        experiment.points.iter().any(|(point, cells)| {
            let is_level = point.get(LEVEL.name).is_some_and(|value| value == level);
            is_level && cells.iter().any(|cell| cell.valid && cell.metrics.contains_key(metric))
        })
    };
    let metric = own
        .chain(METRICS)
        .find(|metric| has(metric, LEVEL_KERNEL) && has(metric, LEVEL_SIMULATOR))?;
    let mut found: BTreeMap<(&str, u64, Option<&str>), Levels<'a>> = BTreeMap::new();
    for (point, cells) in &experiment.points {
        let level = match point.get(LEVEL.name).map(String::as_str) {
            Some(LEVEL_KERNEL) => 0,
            Some(LEVEL_SIMULATOR) => 1,
            _ => continue,
        };
        let arm = point.get("arm").map_or("", String::as_str);
        let value = point.iter().find(|(name, _)| *name != "arm" && *name != LEVEL.name);
        let value = value.map(|(_, value)| value.as_str());
        // In the order of numbers: no value is negative.
        let order = value
            .and_then(|value| value.parse::<f64>().ok())
            .map_or(0, f64::to_bits);
        let summary = cells
            .iter()
            .filter(|cell| cell.valid)
            .find_map(|cell| cell.metrics.get(metric));
        found.entry((arm, order, value)).or_default()[level] = summary.copied();
    }
    let both = found.into_iter().filter_map(|((arm, _, value), [kernel, simulated])| {
        Some(Pair {
            arm,
            value,
            kernel: kernel?,
            simulated: simulated?.median,
        })
    });
    let pairs: Vec<Pair<'a>> = both.collect();
    (!pairs.is_empty()).then_some((metric, pairs))
}
