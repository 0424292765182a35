//! `hedging`: a second request after a while, what it takes from the tail, what it costs, and when it buys nothing.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use dataplane_service::{
    policy::{Choice, Hedge, HedgeAfter},
    service_time::ServiceTime,
    sim::ClusterOptions,
};

use crate::{
    backends::BackEnd,
    claim::{Claim, Judgement, Source},
    disk::DiskFolder,
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::{
        judge::{self, Bound},
        real_nodes::{self, NODES, PART, REAL, SIM, in_parts},
        virtual_nodes::{self, At},
        virtual_time::BACKEND,
    },
    record::{Measured, Outcome, Row},
    service::{
        cpu_limit::Controller,
        fleet::FleetPlan,
        labour,
        plan::{PausePlan, ServicePlan, WorkerPlan},
        stalls::{Means, StopPlan},
    },
    table::{Arm, Table, latency_ns},
};

/// See the module.
#[derive(Debug)]
pub struct Hedging;

const STALLS: Axis = Axis {
    name: "stalls",
    meaning: "each node stands still by itself (alone), or all at the same times (together)",
    full: &[ALONE, TOGETHER],
    tour: &[ALONE, TOGETHER],
    smallest: ALONE,
    allowed: Allowed::Words,
};

const BY: Axis = Axis {
    name: "stalled_by",
    meaning: "of real nodes: SIGSTOP to the process (stop); a pause that the node makes itself, as a garbage collector does (pause); a limit on \
              its CPU time (cpu-limit); a process beside that wants its CPU (neighbour); one that writes to the disk that it reads (writer)",
    full: &[STOP, PAUSE, CPU_LIMIT, NEIGHBOUR, WRITER],
    tour: &[STOP],
    smallest: STOP,
    allowed: Allowed::Words,
};

const AFTER_MS: Axis = Axis {
    name: "hedge_after_ms",
    meaning: "when another node is asked; 0: after the p95 of the last thousand calls; 1000: longer than any stall, which is never",
    full: &["0", "0.5", "1", "2", "5", "10", "20", "1000"],
    tour: &["1", "1000"],
    smallest: "1",
    allowed: Allowed::Number(0.0, 1_000.0),
};

const ALONE: &str = "alone";
const TOGETHER: &str = "together";
const STOP: &str = "stop";
const PAUSE: &str = "pause";
const CPU_LIMIT: &str = "cpu-limit";
const NEIGHBOUR: &str = "neighbour";
const WRITER: &str = "writer";

/// Real ones by default, to leave time for rounds: what the claims compare.
const AFTER_MS_OF_NODES: [&str; 2] = ["1", "1000"];
const BY_OF_NODES: [&str; 2] = [STOP, PAUSE];
/// Of the file that is written beside: more than a disk's own cache is likely to hold of it.
const FILE_BYTES: u64 = 64 << 20;

const NODES_COUNT: usize = 8;
/// Of each: nobody waits for another request, only for the node.
const WORKERS_COUNT: usize = 16;
/// Of each node that reads a disk: threads.
const READERS_COUNT: usize = 4;
const SERVICE_NS_MEAN: f64 = 200_000.0;
/// 2 % of the time, so that a hedge after the p95 costs little more than it must.
const PAUSES: PausePlan = PausePlan {
    gap: Duration::from_millis(1_960),
    pause: Duration::from_millis(40),
    seed: 0,
    together: false,
};
/// Of real nodes: in longer pieces, so that what a client and a timer are late by themselves, some milliseconds at p99.9 on a virtual
/// machine, is little beside. That two of eight nodes stand still at once is a hedge's own tail, and must be rarer than one call in a
/// thousand in each trial: with a gap of 3.9 s it was not in two rounds of six.
const NODE_PAUSES: PausePlan = PausePlan {
    gap: Duration::from_millis(5_800),
    pause: Duration::from_millis(100),
    ..PAUSES
};
/// All together have one pattern, whose first stall comes after one and a half gaps at the latest, which is within a trial: one in
/// which nodes never stand still compares nothing. Of eight patterns one is as good as sure to.
const GAP_TOGETHER: Duration = Duration::from_millis(3_900);
const CALLS_PER_S: f64 = 1_500.0;
/// A trial with a stall of each node or two, and whose p99.9 is supported: 3,688 calls and some.
const TRIAL: Duration = Duration::from_millis(6_000);
const ROUNDS_COUNT: u32 = 8;
const NEVER_MS: f64 = 1_000.0;

impl Experiment for Hedging {
    fn id(&self) -> &'static str {
        "hedging"
    }

    fn title(&self) -> &'static str {
        "Hedged requests"
    }

    fn question(&self) -> &'static str {
        "How much of the tail does a second request after a while take away, what does it cost, and when does it buy nothing?"
    }

    fn how(&self) -> &'static str {
        "Eight nodes can answer every request, in 0.2 ms on average; each stands still for 40 ms (real ones 100) now and then, 2 % of the time, by itself or \
         all of them together. A client asks one by chance, and another if no answer has come after a while. In virtual time, and with \
         real processes that are stopped by SIGSTOP or pause by themselves."
    }

    fn axes(&self) -> &'static [Axis] {
        &[PART, STALLS, BY, AFTER_MS]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![REAL]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn keeps_files(&self) -> bool {
        true
    }

    fn tour_weight(&self) -> f64 {
        0.1
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its nodes are processes of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        in_parts(lab, simulate_all, |lab| ask_all(self, lab))
    }
}

fn number_of(value: &str) -> f64 {
    value.parse().expect("axis values are checked beforehand")
}

fn policy(after_ms: f64) -> Hedge {
    let ns = |ms: f64| (ms * 1e6) as u64;
    let after = match after_ms {
        0.0 => HedgeAfter::Percentile {
            q: 0.95,
            first_ns: ns(NEVER_MS),
        },
        ms => HedgeAfter::Fixed { ns: ns(ms) },
    };
    Hedge::new(after, Choice::Random, false)
}

fn simulate_all(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let (stalls, afters) = (lab.values(&STALLS), lab.values(&AFTER_MS));
    let calls_count = match lab.choice.depth {
        Depth::Full => 60_000,
        Depth::Tour => 20_000,
        Depth::Smallest => 2_000,
    };
    lab.progress.set_length((stalls.len() * afters.len()) as u64);
    for (stalls, after_ms) in stalls
        .iter()
        .flat_map(|stalls| afters.iter().map(move |after| (stalls, after)))
    {
        lab.progress
            .set_message(format!("hedged after {after_ms} ms, stalls {stalls}, simulated"));
        for round in 0..ROUNDS_COUNT {
            if lab.interrupted() {
                return Ok(());
            }
            let row = simulate(lab, stalls, after_ms, round, calls_count);
            lab.record(row)?;
        }
        lab.progress.inc(1);
    }
    Ok(())
}

fn simulate(lab: &Lab<'_>, stalls: &str, after_ms: &str, round: u32, calls_count: u64) -> Row {
    let options = ClusterOptions {
        nodes_count: NODES_COUNT,
        workers_count: WORKERS_COUNT,
        service: ServiceTime::Exponential {
            mean_ns: SERVICE_NS_MEAN,
        },
        gap_ns_mean: 1e9 / CALLS_PER_S,
        way_ns: 20_000,
        loss_ratio: 0.0,
        stalls: Some(PAUSES.pattern()),
        stalls_are_shared: stalls == TOGETHER,
        surge: None,
        patience_ns: 10_000_000_000,
        seed: virtual_nodes::seed_of(lab, round),
    };
    let at = At {
        experiment: Hedging.id(),
        axis: BTreeMap::from([
            (PART.name.to_owned(), SIM.to_owned()),
            (STALLS.name.to_owned(), stalls.to_owned()),
            (AFTER_MS.name.to_owned(), after_ms.to_owned()),
        ]),
        round,
    };
    virtual_nodes::simulate(
        lab,
        at,
        options,
        Box::new(policy(number_of(after_ms))),
        calls_count,
        1,
        &mut |_| {},
    )
    .into_row()
}

/// One point with real nodes.
struct NodeArm {
    backend: &'static BackEnd,
    stalls: String,
    by: String,
    after_ms: String,
    /// What disturbs, if it is not the node itself.
    means: Option<Means>,
    /// What nodes read, if they read.
    file: Option<PathBuf>,
}

fn ask_all(experiment: &Hedging, lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let afters = real_nodes::values_or(lab, &AFTER_MS, &AFTER_MS_OF_NODES);
    let mut arms = Vec::new();
    // The folder goes when all is measured.
    let mut folders = Vec::new();
    for by in real_nodes::values_or(lab, &BY, &BY_OF_NODES) {
        let Some((means, file)) = means(lab, &by, &mut folders)? else {
            continue;
        };
        for stalls in lab.values(&STALLS) {
            if stalls == ALONE && means.as_ref().is_some_and(|means| !means.are_each_nodes_own()) {
                lab.say(&format!(
                    "stalled_by={by} stalls={ALONE} is left out: what disturbs there is one for all nodes of this machine"
                ));
                continue;
            }
            for backend in lab.backends(experiment) {
                arms.extend(afters.iter().map(|after_ms| NodeArm {
                    backend,
                    stalls: stalls.clone(),
                    by: by.clone(),
                    after_ms: after_ms.clone(),
                    means: means.clone(),
                    file: file.clone(),
                }));
            }
        }
    }
    let rounds_count = real_nodes::rounds_count(lab, ROUNDS_COUNT);
    lab.in_rounds(&arms, rounds_count, |lab, turn| {
        let arm = turn.arm;
        lab.progress.set_message(format!(
            "hedged after {} ms, stalls {}, {}, round {}",
            arm.after_ms,
            arm.stalls,
            arm.by,
            turn.round + 1
        ));
        lab.record_until_valid(|lab| ask(lab, arm, turn.round, turn.number))
    })
}

/// What disturbs nodes, and what they read; nothing, and says why, if this machine has no such means.
fn means(
    lab: &Lab<'_>,
    by: &str,
    folders: &mut Vec<DiskFolder>,
) -> anyhow::Result<Option<(Option<Means>, Option<PathBuf>)>> {
    Ok(match by {
        STOP => Some((Some(Means::Stop), None)),
        NEIGHBOUR => Some((Some(Means::Neighbour), None)),
        CPU_LIMIT => match Controller::find() {
            Ok(controller) => Some((Some(Means::CpuLimit(controller)), None)),
            Err(error) => {
                lab.say(&format!("stalled_by={by} is left out: {error:#}"));
                None
            }
        },
        WRITER => match labour::file_to_read(lab, labour::FILE_BYTES + FILE_BYTES)? {
            Some((folder, read)) => {
                let written = folder.written_file("written", FILE_BYTES)?;
                folders.push(folder);
                Some((Some(Means::Writer(written)), Some(read)))
            }
            None => None,
        },
        _ => Some((None, None)),
    })
}

fn ask(lab: &Lab<'_>, arm: &NodeArm, round: u32, number: u32) -> anyhow::Result<Row> {
    let seed = real_nodes::seed_of(lab, round);
    let pauses = PausePlan {
        seed,
        together: arm.stalls == TOGETHER,
        gap: match arm.stalls == TOGETHER {
            true => GAP_TOGETHER,
            false => NODE_PAUSES.gap,
        },
        ..NODE_PAUSES
    };
    let service = ServicePlan::Exponential {
        mean_ns: SERVICE_NS_MEAN,
    };
    let mut plan = FleetPlan::new(
        arm.backend,
        NODES_COUNT,
        service,
        Duration::from_secs(1),
        (number, seed),
    );
    plan.client.slow_over = NODE_PAUSES.pause / 8;
    match &arm.means {
        Some(means) => {
            plan.stops = Some(StopPlan {
                pattern: pauses,
                means: means.clone(),
            });
        }
        None => plan.node.pauses = Some(pauses),
    }
    // A worker that only sleeps misses neither CPU nor disk.
    match &arm.means {
        Some(Means::CpuLimit(_) | Means::Neighbour) => {
            plan.node.workers = WorkerPlan::Crc;
            plan.node.workers_count = 1;
        }
        Some(Means::Writer(_)) => {
            plan.node.workers = WorkerPlan::DirectRead;
            plan.node.workers_count = READERS_COUNT;
            plan.node.file = arm.file.clone();
        }
        Some(Means::Stop) | None => {}
    }
    let at = At {
        experiment: Hedging.id(),
        axis: BTreeMap::from([
            (PART.name.to_owned(), NODES.to_owned()),
            (STALLS.name.to_owned(), arm.stalls.clone()),
            (BY.name.to_owned(), arm.by.clone()),
            (AFTER_MS.name.to_owned(), arm.after_ms.clone()),
        ]),
        round,
    };
    let calls = real_nodes::calls(CALLS_PER_S, real_nodes::trial(lab, TRIAL), seed)?;
    let policy = Box::new(policy(number_of(&arm.after_ms)));
    Ok(real_nodes::ask(lab, at, &plan, &calls, policy, 1)?.0)
}

const WORK: &str = "Dean and Barroso, The Tail at Scale, CACM 56(2), 2013";

const CLAIMS: &[Claim] = &[
    Claim {
        id: "hedging",
        sentence: "A hedge after a while takes a tenth of the p99.9 or less, for at most 5 % more requests, if replicas stand still by \
                   themselves",
        source: Source::Published {
            work: WORK,
            place: "\"Hedged requests\": p99.9 of 1,000 reads over 100 servers from 1,800 to 74 ms for 2 % more requests, hedged after 10 ms. \
                    Ours is one read of eight replicas; a tenth is ours",
        },
        invariant: "In virtual time: the same arrivals, services and stalls; p99.9 without ÷ p99.9 with a hedge after 1 ms, a ratio a seed, \
                    and the extra requests of every row.",
        judge: |table| judge::all(vec![gains(table, BACKEND, None), costs(table, BACKEND, None)]),
    },
    Claim {
        id: "hedging-nodes",
        sentence: "The same with real processes, stopped by SIGSTOP",
        source: Source::Published {
            work: WORK,
            place: "as before",
        },
        invariant: "Eight processes over UDP; the same schedule and stops in a round; p99.9 without ÷ with, a ratio a round.",
        judge: |table| judge::all(vec![gains(table, REAL, Some(STOP)), costs(table, REAL, Some(STOP))]),
    },
    Claim {
        id: "hedging-pauses-nodes",
        sentence: "The same with real processes that pause by themselves",
        source: Source::Published {
            work: WORK,
            place: "as before",
        },
        invariant: "As before; a node that pauses takes nothing in and answers nothing.",
        judge: |table| judge::all(vec![gains(table, REAL, Some(PAUSE)), costs(table, REAL, Some(PAUSE))]),
    },
    Claim {
        id: "hedging-together",
        sentence: "It buys nothing where replicas stand still together: the p99.9 without is at most 1.2 times that with it",
        source: Source::Ours {
            seen: "the second node is slow for the same reason as the first",
        },
        invariant: "As before, with one seed for the stalls of all nodes, in virtual time.",
        judge: |table| quotient(table, BACKEND, TOGETHER, None, NOTHING),
    },
    Claim {
        id: "hedging-together-nodes",
        sentence: "It buys nothing where real processes are stopped together",
        source: Source::Ours { seen: "as before" },
        invariant: "Eight processes over UDP, stopped at the same times; p99.9 without ÷ with, a ratio a round.",
        judge: |table| quotient(table, REAL, TOGETHER, Some(STOP), NOTHING),
    },
];

/// What is bought at most where there is nothing to buy.
const NOTHING: Bound = Bound::AtMost(1.2);

fn axis_of<'a>(stalls: &'a str, by: Option<&'a str>, after_ms: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut axis = vec![(STALLS.name, stalls), (AFTER_MS.name, after_ms)];
    axis.extend(by.map(|by| (BY.name, by)));
    axis
}

fn quotient(table: &Table, backend: &str, stalls: &str, by: Option<&str>, bound: Bound) -> Judgement {
    let (without, with) = (axis_of(stalls, by, "1000"), axis_of(stalls, by, "1"));
    let what = format!(
        "p99.9 without ÷ p99.9 with a hedge after 1 ms, {backend}, stalls {stalls}{}",
        by.map(|by| format!(" by {by}")).unwrap_or_default()
    );
    judge::ratio(
        table,
        &what,
        (Arm::of(backend, &without), Arm::of(backend, &with)),
        latency_ns(0.999),
        bound,
    )
}

fn gains(table: &Table, backend: &str, by: Option<&str>) -> Judgement {
    quotient(table, backend, ALONE, by, Bound::AtLeast(10.0))
}

fn costs(table: &Table, backend: &str, by: Option<&str>) -> Judgement {
    const EXTRA_RATIO_MAX: f64 = 0.05;
    let axis = axis_of(ALONE, by, "1");
    let rows = table.arm(Arm::of(backend, &axis));
    let of = |row: &&Row| {
        Some((
            row.metrics.get("calls")?.value,
            row.metrics.get("extra_requests_ratio")?.value,
        ))
    };
    let counts: Vec<(f64, f64)> = rows.iter().filter_map(of).collect();
    let calls: f64 = counts.iter().map(|(calls, _)| calls).sum();
    if calls == 0.0 {
        return table.lacking(Arm::of(backend, &axis));
    }
    let extra = counts.iter().map(|(calls, extra)| calls * extra).sum::<f64>() / calls;
    // Requests that are slow come in bursts, one for each stall: rounds say how much that is.
    let worst = counts.iter().map(|(_, extra)| *extra).fold(0.0, f64::max);
    let outcome = match extra <= EXTRA_RATIO_MAX {
        true => Outcome::Holds,
        false => Outcome::Fails,
    };
    let figure = Measured {
        name: format!("requests beyond one a call, {backend}"),
        value: Some(extra),
        unit: "ratio".to_owned(),
        low: Some(counts.iter().map(|(_, extra)| *extra).fold(f64::INFINITY, f64::min)),
        high: Some(worst),
        limit: format!("≤ {EXTRA_RATIO_MAX}"),
        samples_count: calls as u64,
    };
    Judgement::new(outcome, vec![figure])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::virtual_time::row_of, measure::Recorder};

    /// Eight rounds with a p99.9 of so many ns, each.
    fn rows(stalls: &str, after_ms: &str, p999_ns: u64, extra: f64) -> Vec<Row> {
        (0..8)
            .map(|round| {
                let mut latency = Recorder::new();
                (0..4_000).for_each(|index| latency.record(if index < 3_980 { 200_000 } else { p999_ns + round }));
                let mut row = row_of(
                    &[("part", SIM), ("stalls", stalls), ("hedge_after_ms", after_ms)],
                    &[("calls", 4_000.0), ("extra_requests_ratio", extra)],
                );
                row.round = round as u32;
                row.latency = Some(latency.distribution(&crate::measure::QUANTILES));
                row
            })
            .collect()
    }

    #[test]
    fn gains_costs_and_nothing_are_told_apart() {
        let table = |with_ns, extra, together_ns| Table {
            rows: [
                rows(ALONE, "1000", 38_000_000, 0.0),
                rows(ALONE, "1", with_ns, extra),
                rows(TOGETHER, "1000", 38_000_000, 0.0),
                rows(TOGETHER, "1", together_ns, extra),
            ]
            .concat(),
            seed: 1,
        };
        let outcome = |id: &str, table: &Table| {
            let claim = CLAIMS.iter().find(|claim| claim.id == id).expect("a claim of ours");
            (claim.judge)(table).outcome
        };
        let good = table(1_500_000, 0.03, 37_900_000);
        assert_eq!(outcome("hedging", &good), Outcome::Holds);
        assert_eq!(outcome("hedging-together", &good), Outcome::Holds);
        assert_eq!(outcome("hedging", &table(5_000_000, 0.03, 37_900_000)), Outcome::Fails);
        assert_eq!(outcome("hedging", &table(1_500_000, 0.06, 37_900_000)), Outcome::Fails);
        assert_eq!(
            outcome("hedging-together", &table(1_500_000, 0.03, 3_000_000)),
            Outcome::Fails
        );
        assert!(matches!(outcome("hedging-nodes", &good), Outcome::NotMeasured { .. }));
    }
}
