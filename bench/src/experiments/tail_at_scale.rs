//! `tail-at-scale`: how many requests are slow that wait for many leaves, of which few are slow.

use std::{collections::BTreeMap, time::Duration};

use dataplane_service::{
    oracle,
    policy::{Choice, FanOut},
    service_time::ServiceTime,
    sim::{Cluster, ClusterOptions},
};
use dataplane_sim::SimTime;

use crate::{
    backends::BackEnd,
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::{
        judge::{self, measured},
        real_nodes::{self, NODES, PART, REAL, SIM, in_parts},
        virtual_nodes::At,
        virtual_time::{BACKEND, Happened, Simulated},
    },
    measure::Recorder,
    record::{Better, Measured, Metric, Outcome, Published, Row},
    service::{fleet::FleetPlan, plan::ServicePlan, row},
    table::Table,
};

/// See the module.
#[derive(Debug)]
pub struct TailAtScale;

const FAN_OUT: Axis = Axis {
    name: "fan_out",
    meaning: "how many leaves a request waits for; real ones no more than 200, and by default no more than 100",
    full: &["1", "10", "50", "100", "500", "2000"],
    tour: &["1", "10", "100"],
    smallest: "10",
    allowed: Allowed::Number(1.0, 4_000.0),
};

const SLOW_PERCENT: Axis = Axis {
    name: "slow_percent",
    meaning: "of a leaf's answers that take a hundred times as long; real leaves: 1 or more",
    full: &["1", "0.01"],
    tour: &["1"],
    smallest: "1",
    allowed: Allowed::Number(0.001, 50.0),
};

/// What the paper's servers take: 10 ms as a rule, and a second for one in a hundred.
const SIM_FAST_NS: u64 = 10_000_000;
/// What real leaves take: a tenth of that, so that enough requests can be made, and ten times what a timer may be late.
const NODE_FAST_NS: u64 = 1_000_000;
/// A slow answer takes so many times as long.
const SLOW_TIMES: u64 = 100;
/// Calls a second to real leaves.
const CALLS_PER_S: f64 = 250.0;
/// By default real leaves are no more.
const NODES_MAX: usize = 100;
/// And never more than these: each is a process.
const NODES_ALLOWED_MAX: usize = 200;
/// Standard deviation, in points of a percent, down to which a share is simulated.
const DEVIATION_POINTS: f64 = 0.16;

impl Experiment for TailAtScale {
    fn id(&self) -> &'static str {
        "tail-at-scale"
    }

    fn title(&self) -> &'static str {
        "The tail at scale"
    }

    fn question(&self) -> &'static str {
        "How many requests are slow if each waits for many leaves, and one leaf's answer in a hundred is slow?"
    }

    fn how(&self) -> &'static str {
        "A request asks all leaves at once and is done with the last answer. A leaf's answer is slow by chance, a hundred times as long as \
         the others. A request is slow if it takes more than half of a slow answer. In virtual time leaves are any number; real leaves are \
         processes on this machine that sleep by a timer, and a client that asks them over UDP."
    }

    fn axes(&self) -> &'static [Axis] {
        &[PART, FAN_OUT, SLOW_PERCENT]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![REAL]
    }

    fn published(&self) -> Vec<Published> {
        [(100.0, 0.63, 0.03), (2_000.0, 0.18, 0.05)]
            .map(|(fan_out, value, tolerance)| Published {
                experiment: self.id().to_owned(),
                arm: None,
                axis: Some(FAN_OUT.name.to_owned()),
                at: Some(fan_out),
                metric: "slow_ratio".to_owned(),
                value,
                tolerance,
                place: match fan_out {
                    100.0 => "text: 1 in 100 slow, 100 servers: 63 %",
                    _ => "text: 1 in 10,000 slow, 2,000 servers: almost one in five",
                }
                .to_owned(),
                work: WORK.to_owned(),
            })
            .into()
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.1
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its leaves are processes of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        in_parts(lab, simulate_all, |lab| ask_all(self, lab))
    }
}

fn axis(part: &str, fan_out: usize, slow_percent: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (PART.name.to_owned(), part.to_owned()),
        (FAN_OUT.name.to_owned(), fan_out.to_string()),
        (SLOW_PERCENT.name.to_owned(), slow_percent.to_owned()),
    ])
}

fn ratio_of(slow_percent: &str) -> f64 {
    slow_percent.parse::<f64>().expect("axis values are checked beforehand") / 100.0
}

fn simulate_all(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let (fan_outs, slows) = (lab.numbers(&FAN_OUT), lab.values(&SLOW_PERCENT));
    lab.progress.set_length((fan_outs.len() * slows.len()) as u64);
    for (slow, fan_out) in slows
        .iter()
        .flat_map(|slow| fan_outs.iter().map(move |fan_out| (slow, *fan_out as usize)))
    {
        if lab.interrupted() {
            return Ok(());
        }
        lab.progress
            .set_message(format!("{fan_out} leaves, {slow} % slow, simulated"));
        let expected = oracle::slow_ratio(ratio_of(slow), fan_out as u32);
        let deviation_points = match lab.choice.depth {
            Depth::Full => DEVIATION_POINTS,
            Depth::Tour => 1.0,
            Depth::Smallest => 3.0,
        };
        let enough = expected * (1.0 - expected) / (deviation_points / 100.0f64).powi(2);
        let calls_count = (enough as u64).clamp(1_000, 120_000);
        let row = simulate(lab, fan_out, slow, expected, calls_count);
        lab.record(row)?;
        lab.progress.inc(1);
    }
    Ok(())
}

fn simulate(lab: &Lab<'_>, fan_out: usize, slow: &str, expected: f64, calls_count: u64) -> Row {
    let service = ServiceTime::Bimodal {
        short_ns: SIM_FAST_NS,
        long_ns: SIM_FAST_NS * SLOW_TIMES,
        long_ratio: ratio_of(slow),
    };
    let options = ClusterOptions {
        nodes_count: fan_out,
        // At rest between requests: this is about chance, not about queues.
        workers_count: 4,
        gap_ns_mean: (SIM_FAST_NS * SLOW_TIMES) as f64 * 2.0,
        service: service.clone(),
        way_ns: 50_000,
        loss_ratio: 0.0,
        stalls: None,
        stalls_are_shared: false,
        surge: None,
        patience_ns: SIM_FAST_NS * SLOW_TIMES * 100,
        seed: lab.choice.seed,
    };
    let mut cluster = Cluster::new(options, Box::new(all_of(fan_out as u32)));
    let (mut latency, mut slow_count) = (Recorder::new(), 0u64);
    cluster.run(calls_count, &mut |outcome| {
        let is_slow = outcome.took_ns.is_none_or(|ns| ns > SIM_FAST_NS * SLOW_TIMES / 2);
        slow_count += u64::from(is_slow);
        match outcome.took_ns {
            Some(ns) => latency.record(ns),
            None => latency.record_lost(),
        }
    });
    let (events_count, event_hash) = cluster.events();
    let happened = Happened {
        elapsed: SimTime::from_ns(cluster.now_ns()),
        event_hash,
        events_count,
    };
    let mut row = Simulated::of(
        lab,
        TailAtScale.id(),
        axis(SIM, fan_out, slow),
        lab.choice.seed,
        happened,
    );
    row.latency(&latency);
    row.put("calls", calls_count as f64, "count", Better::Neither);
    row.put(
        "slow_ratio",
        slow_count as f64 / calls_count as f64,
        "ratio",
        Better::Lower,
    );
    row.put("oracle_slow_ratio", expected, "ratio", Better::Neither);
    row.fact("service", service.to_string());
    row.fact("guarantee", row::GUARANTEE);
    row.into_row()
}

fn all_of(fan_out: u32) -> FanOut {
    FanOut {
        asked_count: fan_out,
        needed_count: fan_out,
        choice: Choice::Random,
    }
}

/// One point with real leaves.
struct NodeArm {
    backend: &'static BackEnd,
    fan_out: usize,
    slow: String,
}

fn ask_all(experiment: &TailAtScale, lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let wanted = lab.choice.axes.contains_key(FAN_OUT.name);
    let (fan_outs, slows) = (lab.numbers(&FAN_OUT), lab.values(&SLOW_PERCENT));
    let mut arms = Vec::new();
    for backend in lab.backends(experiment) {
        for fan_out in fan_outs.iter().map(|fan_out| *fan_out as usize) {
            if fan_out > NODES_MAX && (!wanted || fan_out > NODES_ALLOWED_MAX) {
                lab.say(&format!(
                    "{fan_out} real leaves are left out: each is a process of this machine; up to {NODES_ALLOWED_MAX} can be asked for \
                     (--axis fan_out=…), the simulator has the rest"
                ));
                continue;
            }
            // Of one in 10,000 none would be seen in the time.
            let seen = slows.iter().filter(|slow| ratio_of(slow) >= 0.01);
            arms.extend(seen.map(|slow| NodeArm {
                backend,
                fan_out,
                slow: slow.clone(),
            }));
        }
    }
    let rounds_count = if lab.choice.depth == Depth::Smallest { 1 } else { 6 };
    let share = lab.budget.div_f64((arms.len().max(1) * rounds_count) as f64);
    // Starting a hundred processes takes as long as it takes.
    let trial = share
        .mul_f64(0.8)
        .clamp(Duration::from_millis(500), Duration::from_secs(20));
    lab.in_rounds(&arms, rounds_count as u32, |lab, turn| {
        let arm = turn.arm;
        lab.progress.set_message(format!(
            "{} real leaves, {} % slow, round {}",
            arm.fan_out,
            arm.slow,
            turn.round + 1
        ));
        let seed = lab.choice.seed ^ (u64::from(turn.round) << 32 | turn.index as u64);
        lab.record_until_valid(|lab| ask(lab, arm, trial, turn.round, seed))
    })
}

fn ask(lab: &Lab<'_>, arm: &NodeArm, trial: Duration, round: u32, seed: u64) -> anyhow::Result<Row> {
    let slow_ns = NODE_FAST_NS * SLOW_TIMES;
    let service = ServicePlan::Bimodal {
        short_ns: NODE_FAST_NS,
        long_ns: slow_ns,
        long_ratio: ratio_of(&arm.slow),
    };
    let patience = Duration::from_secs(1);
    let mut plan = FleetPlan::new(arm.backend, arm.fan_out, service, patience, (round, seed));
    plan.client.slow_over = Duration::from_nanos(slow_ns / 2);
    plan.client.warm_up = Duration::ZERO;
    let at = At {
        experiment: TailAtScale.id(),
        axis: axis(NODES, arm.fan_out, &arm.slow),
        round,
    };
    let calls = real_nodes::calls(CALLS_PER_S, trial, seed)?;
    let all = Box::new(all_of(arm.fan_out as u32));
    let (mut row, _) = real_nodes::ask(lab, at, &plan, &calls, all, arm.fan_out as u32)?;
    let oracle = Metric {
        value: oracle::slow_ratio(ratio_of(&arm.slow), arm.fan_out as u32),
        unit: "ratio".to_owned(),
        better: Better::Neither,
    };
    row.metrics.insert("oracle_slow_ratio".to_owned(), oracle);
    Ok(row)
}

const WORK: &str = "Dean and Barroso, The Tail at Scale, CACM 56(2), 2013";

const CLAIMS: &[Claim] = &[
    Claim {
        id: "tail-at-scale",
        sentence: "If one leaf's answer in 100 is slow, 63 % of the requests that wait for 100 leaves are",
        source: Source::Published {
            work: WORK,
            place: "\"Variability in large-scale systems\": 63 %; 1 − 0.99¹⁰⁰ is 63.4 %, and 1.5 points are ours",
        },
        invariant: "In virtual time. The share's binomial interval of 95 % lies within 1.5 points of 63.4 %.",
        judge: |table| near(table, BACKEND, ("100", "1"), 1.5),
    },
    Claim {
        id: "tail-at-scale-nodes",
        sentence: "The same with 100 real leaves and a real client over UDP",
        source: Source::Published {
            work: WORK,
            place: "as before",
        },
        invariant: "Each leaf a process that sleeps by a timer and answers over its own socket; one answer in 100 takes 100 ms instead of 1. \
                    Valid rounds together, their binomial interval as before.",
        judge: |table| near(table, REAL, ("100", "1"), 1.5),
    },
    Claim {
        id: "tail-at-scale-2000",
        sentence: "If one answer in 10,000 is slow, almost one in five of the requests that wait for 2,000 leaves is",
        source: Source::Published {
            work: WORK,
            place: "the same paragraph; 1 − 0.9999²⁰⁰⁰ is 18.1 %, and half a point is ours",
        },
        invariant: "In virtual time. The share's binomial interval of 95 % lies within half a point of 18.1 %.",
        judge: |table| near(table, BACKEND, ("2000", "0.01"), 0.5),
    },
    Claim {
        id: "fork-join-order-statistics",
        sentence: "At every fan-out and share, simulated or real, as many requests are slow as 1 − (1 − p)ⁿ says",
        source: Source::Ours {
            seen: "the maximum of n answers that have nothing to do with each other is F(x)ⁿ",
        },
        invariant: "Counts within 5 standard deviations of the binomial distribution's mean; a real leaf may be late by itself as well, so \
                    for real ones half a point more is allowed.",
        judge: order_statistics,
    },
];

fn number(row: &Row, name: &str) -> f64 {
    row.metrics.get(name).map_or(f64::NAN, |metric| metric.value)
}

/// Calls and slow calls of all valid rows that are at one point of the axes.
fn counts(table: &Table, backend: &str, (fan_out, slow): (&str, &str)) -> Option<(f64, f64)> {
    let is_there = |row: &&Row| {
        let has = |axis: &Axis, value: &str| row.axis.get(axis.name).is_some_and(|have| have == value);
        row.backend == backend && has(&FAN_OUT, fan_out) && has(&SLOW_PERCENT, slow)
    };
    let rows: Vec<&Row> = table.valid().filter(is_there).collect();
    let calls = rows.iter().map(|row| number(row, "calls")).sum::<f64>();
    let slow = rows
        .iter()
        .map(|row| number(row, "calls") * number(row, "slow_ratio"))
        .sum();
    (calls > 0.0).then_some((calls, slow))
}

/// A share with its interval of 95 % (Wilson, Journal of the American Statistical Association 22, 1927), in percent.
fn share(calls: f64, slow: f64) -> (f64, f64, f64) {
    const Z: f64 = 1.959_963_985;
    let p = slow / calls;
    let middle = (p + Z * Z / (2.0 * calls)) / (1.0 + Z * Z / calls);
    let half = Z / (1.0 + Z * Z / calls) * (p * (1.0 - p) / calls + Z * Z / (4.0 * calls * calls)).sqrt();
    (p * 100.0, (middle - half) * 100.0, (middle + half) * 100.0)
}

fn near(table: &Table, backend: &str, at: (&str, &str), points: f64) -> Judgement {
    let Some((calls, slow)) = counts(table, backend, at) else {
        return Judgement::not_measured(format!(
            "no valid row of {backend} with fan_out={} slow_percent={}",
            at.0, at.1
        ));
    };
    let expected = oracle::slow_ratio(ratio_of(at.1), at.0.parse().unwrap_or(1)) * 100.0;
    let (percent, low, high) = share(calls, slow);
    let (from, to) = (expected - points, expected + points);
    let outcome = match (low >= from && high <= to, high < from || low > to) {
        (true, _) => Outcome::Holds,
        (_, true) => Outcome::Fails,
        _ => Outcome::Inconclusive {
            why: "the interval straddles the bound; more calls (--budget) may decide it".to_owned(),
        },
    };
    let figure = Measured {
        name: format!("requests that are slow, of {} leaves of which {} % are", at.0, at.1),
        value: Some(percent),
        unit: "%".to_owned(),
        low: Some(low),
        high: Some(high),
        limit: format!("{from:.1} to {to:.1}"),
        samples_count: calls as u64,
    };
    Judgement::new(outcome, vec![figure])
}

fn order_statistics(table: &Table) -> Judgement {
    const DEVIATIONS_MAX: f64 = 5.0;
    const REAL_POINTS: f64 = 0.5;
    let mut points: Vec<(&str, &str, &str)> = table
        .valid()
        .filter_map(|row| {
            let value = |axis: &Axis| row.axis.get(axis.name).map(String::as_str);
            Some((row.backend.as_str(), value(&FAN_OUT)?, value(&SLOW_PERCENT)?))
        })
        .collect();
    points.sort_unstable();
    points.dedup();
    let judgements = points.iter().filter_map(|&(backend, fan_out, slow_percent)| {
        let (calls, slow) = counts(table, backend, (fan_out, slow_percent))?;
        let expected = oracle::slow_ratio(ratio_of(slow_percent), fan_out.parse().ok()?);
        let spare = if backend == BACKEND {
            0.0
        } else {
            REAL_POINTS / 100.0 * calls
        };
        let off = ((slow - expected * calls).abs() - 1.0 - spare).max(0.0);
        let deviations = off / (calls * expected * (1.0 - expected)).max(1e-9).sqrt();
        let outcome = if deviations <= DEVIATIONS_MAX {
            Outcome::Holds
        } else {
            Outcome::Fails
        };
        let figure = measured(
            format!(
                "{backend}, {fan_out} leaves, {slow_percent} % slow: off from {:.2} %",
                expected * 100.0
            ),
            Some(deviations),
            "standard deviations",
            format!("≤ {DEVIATIONS_MAX}"),
            calls as u64,
        );
        Some(Judgement::new(outcome, vec![figure]))
    });
    judge::all(judgements.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    fn table(fan_out: &str, slow_percent: &str, calls: f64, slow_ratio: f64) -> Table {
        let rows = vec![row_of(
            &[("part", SIM), ("fan_out", fan_out), ("slow_percent", slow_percent)],
            &[("calls", calls), ("slow_ratio", slow_ratio)],
        )];
        Table { rows, seed: 1 }
    }

    #[test]
    fn shares_hold_fail_and_stay_open() {
        let judge = |calls, ratio| near(&table("100", "1", calls, ratio), BACKEND, ("100", "1"), 1.5).outcome;
        assert_eq!(judge(90_000.0, 0.632), Outcome::Holds);
        assert_eq!(judge(90_000.0, 0.60), Outcome::Fails);
        assert!(matches!(judge(1_000.0, 0.634), Outcome::Inconclusive { .. }));
        let absent = near(&Table::default(), BACKEND, ("100", "1"), 1.5).outcome;
        assert!(matches!(absent, Outcome::NotMeasured { .. }));
    }

    #[test]
    fn a_share_that_chance_does_not_explain_is_seen() {
        let judge = |ratio| order_statistics(&table("10", "1", 100_000.0, ratio)).outcome;
        assert_eq!(judge(0.0956), Outcome::Holds);
        assert_eq!(judge(0.105), Outcome::Fails);
    }

    #[test]
    fn an_interval_of_a_share_is_wilsons() {
        // 10 of 100: 5.5 % to 17.4 % (Wilson; Newcombe, Statistics in Medicine 17, 1998).
        let (percent, low, high) = share(100.0, 10.0);
        assert!((percent - 10.0).abs() < 1e-9 && (low - 5.5).abs() < 0.05 && (high - 17.4).abs() < 0.05);
    }
}
