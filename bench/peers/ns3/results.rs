//! What comes of a case, pooled over its seeds, and how two results differ.

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use anyhow::Context;
use bench::packet_sim::quantile;

use crate::cases::{Case, Load};

/// What is compared of a case, each with the deviation that is borne.
pub const METRICS: &[(&str, f64)] = &[
    ("fct_us_p50", 0.05),
    ("fct_us_p99", 0.10),
    ("queue_packets_p50", 0.05),
    ("queue_packets_p99", 0.10),
];

/// Completion times and depths of a case's runs together.
#[derive(Clone, Debug, Default)]
pub struct Pooled {
    pub fcts_ns: Vec<u64>,
    /// By packets that wait: how many samples.
    pub depths: Vec<u64>,
    pub unfinished_count: u64,
    pub events_count: u64,
    pub hops_count: u64,
    pub drops_count: u64,
    pub marks_count: u64,
    pub timeouts_count: u64,
    pub cpu_s: f64,
}

impl Pooled {
    pub fn add_depth(&mut self, packets: usize, samples_count: u64) {
        if self.depths.len() <= packets {
            self.depths.resize(packets + 1, 0);
        }
        self.depths[packets] += samples_count;
    }

    /// The value of one of [`METRICS`], if the case has it.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let fct_us = |q| {
            let us: Vec<f64> = self.fcts_ns.iter().map(|&ns| ns as f64 / 1e3).collect();
            quantile(&us, q)
        };
        match name {
            "fct_us_p50" => fct_us(0.5),
            "fct_us_p99" => fct_us(0.99),
            "queue_packets_p50" => self.depth_quantile(0.5),
            "queue_packets_p99" => self.depth_quantile(0.99),
            _ => None,
        }
    }

    fn depth_quantile(&self, q: f64) -> Option<f64> {
        let total_count: u64 = self.depths.iter().sum();
        let rank = (q * total_count as f64).ceil() as u64;
        let mut seen_count = 0;
        let depth = self.depths.iter().position(|count| {
            seen_count += count;
            total_count > 0 && seen_count >= rank
        });
        depth.map(|packets| packets as f64)
    }
}

/// Runs a case in our simulator.
pub fn run_ours(case: &Case, cpu_ns: impl Fn() -> u64) -> Pooled {
    let never = AtomicBool::new(false);
    let mut pooled = Pooled::default();
    let every = dataplane_sim::SimTime::from_us(case.sample_every_us);
    for seed in 1..=case.seeds_count {
        let setup = case.setup(seed);
        let before_ns = cpu_ns();
        let one_thread = dataplane_sim::packet::Computing {
            threads_count: 1,
            grouping: dataplane_sim::packet::Grouping::One,
        };
        let outcome = setup.run_with(one_thread, every, &never);
        pooled.cpu_s += (cpu_ns() - before_ns) as f64 / 1e9;
        pooled
            .fcts_ns
            .extend(outcome.completions.iter().map(|took| took.as_ns()));
        for sample in &outcome.depths {
            pooled.add_depth(sample.packets_count as usize, 1);
        }
        pooled.unfinished_count += outcome.unfinished_count;
        pooled.events_count += outcome.counters.events_count;
        pooled.hops_count += outcome.counters.hops_count;
        pooled.drops_count += outcome.counters.drops.count();
        pooled.marks_count += outcome.counters.marks_count;
        pooled.timeouts_count += outcome.timeouts_count;
    }
    pooled
}

/// A line of results.csv.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    pub theirs: f64,
    /// Ours agreed with it when it was stored.
    #[allow(dead_code, reason = "the test looks at it, the example does not")]
    pub agrees: bool,
}

/// By case and metric.
pub type Stored = BTreeMap<(String, String), Known>;

/// What results.csv says. Lines that begin with # say where it is from.
///
/// # Errors
/// A line that is none of it.
pub fn parse_stored(text: &str) -> anyhow::Result<Stored> {
    let lines = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    let read = |line: &str| -> anyhow::Result<((String, String), Known)> {
        let [case, metric, theirs, _, verdict] = line.split(',').collect::<Vec<_>>()[..] else {
            anyhow::bail!("not a case, a metric, two values and a verdict: {line:?}");
        };
        let theirs = theirs.parse().with_context(|| format!("the value of {line:?}"))?;
        let agrees = verdict == "agrees";
        Ok(((case.to_owned(), metric.to_owned()), Known { theirs, agrees }))
    };
    lines.map(read).collect()
}

/// By how much `ours` differs from `theirs`, as a part of theirs. A queue counts whole packets, so one packet is no difference.
pub fn deviation(metric: &str, ours: f64, theirs: f64) -> f64 {
    let apart = ours - theirs;
    if metric.starts_with("queue") && apart.abs() <= 1.0 {
        return 0.0;
    }
    apart / theirs.max(f64::MIN_POSITIVE)
}

/// Whether the case has that metric at all: queues of flows that end say what their ends say.
pub fn is_of(case: &Case, metric: &str) -> bool {
    match case.load {
        Load::Endless(_) => metric.starts_with("queue"),
        Load::Incast(_) => metric.starts_with("fct"),
        Load::Random { .. } => true,
    }
}
