//! `quorum-ladder`: what a replicated commit costs, in round trips of the same sockets on the same CPUs.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Context;
use dataplane_quorum::majorities;
use dataplane_waist::{MonotonicClock, Wake};

use crate::{
    backends::BackEnd,
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    experiments::judge::{self, Bound},
    host::{self, RunTime, Seat},
    measure::{
        QUANTILES, Watch,
        gates::{self, Limits, Observation},
        rounds,
    },
    record::{Better, Metric, ModeRecord, Row},
    replicas::{Asked, Client, ClientOptions, ReplicaReport, ReplicaRole, Replicas},
    table::{Arm, Table, latency_ns},
};

/// See the module.
#[derive(Debug)]
pub struct QuorumLadder;

const REPLICAS: Axis = Axis {
    name: "replicas",
    meaning: "how many replicas; echo: one server that answers by itself, which is the ping-pong beside them",
    full: &[ECHO, "3", "5", "7"],
    tour: &[ECHO, "3"],
    smallest: "3",
    allowed: Allowed::Words,
};

const IN_FLIGHT: Axis = Axis {
    name: "in_flight",
    meaning: "requests that the client keeps under way",
    full: &["1", "16"],
    tour: &["1"],
    smallest: "1",
    allowed: Allowed::Number(1.0, 256.0),
};

const LOG: Axis = Axis {
    name: "log",
    meaning: "where a replica keeps its log: memory (gone with the process), or on disk by this way (an answer then means \
              that a majority has it on disk)",
    full: &[MEMORY, "dsync", "uring", "file"],
    tour: &[MEMORY],
    smallest: MEMORY,
    allowed: Allowed::Words,
};

const CPUS: Axis = Axis {
    name: "cpus",
    meaning: "one: client and all replicas share a CPU (path length); all: they are spread over the CPUs there are",
    full: &["one", "all"],
    tour: &["one"],
    smallest: "one",
    allowed: Allowed::Words,
};

const ECHO: &str = "echo";
const MEMORY: &str = "memory";
/// The socket that every other is compared with, and whose commit is measured twice a round.
const REFERENCE: &str = "udp-blocking";
/// Bytes of each value. With a key of three bytes, a request is 103 bytes long.
const VALUE_BYTES: usize = 36;
const RETRY: Duration = Duration::from_millis(50);
const WARM_UP: Duration = Duration::from_millis(30);

/// What one row measures.
#[derive(Clone, Debug)]
struct Rung {
    backend: &'static BackEnd,
    replicas: String,
    in_flight: usize,
    log: String,
    cpus: String,
    twin: bool,
}

impl Experiment for QuorumLadder {
    fn id(&self) -> &'static str {
        "quorum-ladder"
    }

    fn title(&self) -> &'static str {
        "The quorum ladder"
    }

    fn question(&self) -> &'static str {
        "What does a replicated commit cost, in round trips over the same sockets, and what does the disk add?"
    }

    fn how(&self) -> &'static str {
        "Replicas in processes of their own elect a leader over UDP on this machine's loopback; a client keeps puts under way \
         there and measures each from its first send to the answer, which comes once a majority has the entry. The same \
         client measures an echo in the same process over the same sockets in the same round. Arms are measured in an order \
         shuffled by the seed; udp-blocking with three replicas is measured twice per round. CPU time is what the kernel \
         charged to each process."
    }

    fn axes(&self) -> &'static [Axis] {
        &[REPLICAS, IN_FLIGHT, LOG, CPUS]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![REFERENCE, "udp-poll", "udp-epoll"]
    }

    fn tour_backends(&self) -> Vec<&'static str> {
        vec![REFERENCE]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        2.0
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its replicas are processes of this machine; `dplab serve` runs them on several")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let rungs = rungs(self, lab);
        // A cluster is started and elects its leader before anything is measured, which the plan does not know of.
        let plan = lab.plan(rungs.len(), Duration::from_millis(300));
        let orders = rounds::order(rungs.len(), plan.rounds_count as usize, lab.choice.seed);
        lab.progress.set_length(orders.len() as u64 * rungs.len() as u64);
        for (round, order) in orders.iter().enumerate() {
            for index in order {
                if lab.interrupted() || (round > 2 && lab.started.elapsed() > lab.budget) {
                    return Ok(());
                }
                let rung = &rungs[*index];
                lab.progress.set_message(format!(
                    "{}, {} replicas, {} in flight, log {}, round {}",
                    rung.backend.name,
                    rung.replicas,
                    rung.in_flight,
                    rung.log,
                    round + 1
                ));
                lab.record_until_valid(|lab| measure(lab, rung, round as u32, plan.trial))?;
                lab.progress.inc(1);
            }
        }
        Ok(())
    }
}

fn rungs(experiment: &QuorumLadder, lab: &Lab<'_>) -> Vec<Rung> {
    let mut rungs = Vec::new();
    for backend in lab.backends(experiment) {
        for replicas in lab.values(&REPLICAS) {
            for in_flight in lab.numbers(&IN_FLIGHT) {
                for log in lab.values(&LOG) {
                    // An echo keeps nothing, wherever.
                    if replicas == ECHO && log != MEMORY && lab.values(&LOG).iter().any(|log| log == MEMORY) {
                        continue;
                    }
                    for cpus in lab.values(&CPUS) {
                        let rung = Rung {
                            backend,
                            replicas: replicas.clone(),
                            in_flight: in_flight as usize,
                            log: if replicas == ECHO {
                                MEMORY.to_owned()
                            } else {
                                log.clone()
                            },
                            cpus,
                            twin: false,
                        };
                        if backend.name == REFERENCE && replicas == "3" && log == MEMORY {
                            rungs.push(Rung {
                                twin: true,
                                ..rung.clone()
                            });
                        }
                        rungs.push(rung);
                    }
                }
            }
        }
    }
    rungs
}

/// A folder for the logs of one trial, removed with it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn measure(lab: &Lab<'_>, rung: &Rung, round: u32, duration: Duration) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let is_echo = rung.replicas == ECHO;
    let count: usize = if is_echo {
        1
    } else {
        rung.replicas.parse().context("a number of replicas")?
    };
    let usable = lab.place.cpus();
    let cpu_of = |index: usize| match (rung.cpus.as_str(), usable.len()) {
        (_, 0) => None,
        ("one", _) => Some(usable[0]),
        (_, cpus_count) => Some(usable[index % cpus_count]),
    };
    let seat = |index: usize| Seat {
        cpu: cpu_of(index),
        spins: !rung.backend.sleeps(),
        is_shared: rung.cpus == "one" || count + 1 > usable.len(),
    };
    let folder = Folder(lab.folder.path().join("logs"));
    let seats: Vec<Seat> = (1..=count).map(seat).collect();
    let replicas = Replicas::start(rung.backend.name, &seats, |node| match (is_echo, rung.log.as_str()) {
        (true, _) => ReplicaRole::Echo,
        (false, MEMORY) => ReplicaRole::Memory,
        (false, engine) => ReplicaRole::Durable(folder.0.join(format!("node-{node}")), engine.to_owned()),
    })?;

    let watch = Watch::begin();
    let client = std::thread::scope(|scope| {
        let client = scope.spawn(|| client(lab, rung, &replicas, count, seat(0), duration));
        client
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the client's thread panicked")))
    });
    let mut seen = watch.end();
    let mut measured = client.with_context(|| format!("the client over {}", rung.backend.name))?;
    measured.facts.extend(replicas.facts());
    let reports = replicas.finish()?;
    if measured.asked.answered_count == 0 {
        seen.push(Observation::Silence { sent_count: 1 });
    }
    seen.push(Observation::RingOverflow {
        end: "server",
        rx_dropped_count: reports.iter().map(|report| report.dropped_count).sum(),
        tx_dropped_count: 0,
    });
    let validity = gates::judge(&seen, &Limits::for_wake(Wake::Sleeps));
    measured
        .facts
        .insert("guarantee".to_owned(), guarantee(&rung.log, is_echo, count));
    Ok(row(lab, rung, round, at_s, measured, &reports, validity))
}

/// What an answer means, in a line beside its latency.
pub(super) fn guarantee(log: &str, is_echo: bool, count: usize) -> String {
    if is_echo {
        return "none: one server answers by itself".to_owned();
    }
    let quorum = majorities(u32::MAX >> (32 - count)).commit_count;
    match log {
        MEMORY => format!("{quorum} of {count} processes have it in memory; it is gone when a majority of them ends"),
        _ => format!("{quorum} of {count} replicas have it on disk; it survives the end of all processes"),
    }
}

/// What the client's thread brings back.
struct Measured {
    asked: Asked,
    leader: usize,
    client_cpu: Option<RunTime>,
    replicas_cpu: Vec<Option<RunTime>>,
    facts: BTreeMap<String, String>,
}

fn client(
    lab: &Lab<'_>,
    rung: &Rung,
    replicas: &Replicas,
    count: usize,
    seat: Seat,
    duration: Duration,
) -> anyhow::Result<Measured> {
    let facts = host::settle("client", seat);
    let clock = MonotonicClock::new();
    let options = ClientOptions {
        in_flight: rung.in_flight,
        value_bytes: VALUE_BYTES,
        retry: RETRY,
    };
    let mut client = Client::open(rung.backend, &replicas.addresses, options)?;
    let leader = match rung.replicas.as_str() {
        ECHO => 0,
        _ => client.find_leader(count as u32, &clock, lab.stop)? as usize,
    };
    client.ask(&clock, WARM_UP, lab.stop).context("warming up")?;
    let own_tid = nix::unistd::gettid().as_raw();
    let (before, own_before) = (replicas.run_times(), host::thread_run_time(own_tid));
    let asked = client.ask(&clock, duration, lab.stop)?;
    let used = |after: Option<RunTime>, before: Option<RunTime>| Some(after?.since(before?));
    let after = replicas.run_times();
    Ok(Measured {
        asked,
        leader,
        client_cpu: used(host::thread_run_time(own_tid), own_before),
        replicas_cpu: after
            .into_iter()
            .zip(before)
            .map(|(after, before)| used(after, before))
            .collect(),
        facts,
    })
}

fn row(
    lab: &Lab<'_>,
    rung: &Rung,
    round: u32,
    at_s: f64,
    measured: Measured,
    reports: &[ReplicaReport],
    validity: crate::record::Validity,
) -> Row {
    let asked = &measured.asked;
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put("answered", asked.answered_count as f64, "count", Better::Neither);
    put("retries", asked.retries_count as f64, "count", Better::Lower);
    put("redirects", asked.redirects_count as f64, "count", Better::Lower);
    put(
        "goodput",
        asked.answered_count as f64 / asked.elapsed.as_secs_f64(),
        "1/s",
        Better::Higher,
    );
    if asked.answered_count > 0 {
        let per_op = |used: RunTime| used.on_cpu.as_nanos() as f64 / asked.answered_count as f64;
        if let Some(used) = measured.client_cpu {
            put("client_cpu_per_op", per_op(used), "ns", Better::Lower);
        }
        if let Some(used) = measured.replicas_cpu[measured.leader] {
            put("leader_cpu_per_op", per_op(used), "ns", Better::Lower);
        }
        let followers = measured
            .replicas_cpu
            .iter()
            .enumerate()
            .filter(|(node, _)| *node != measured.leader);
        let followers: Option<Vec<RunTime>> = followers.map(|(_, used)| *used).collect();
        if let Some(followers) = followers.filter(|followers| !followers.is_empty()) {
            let sum: f64 = followers.iter().map(|used| per_op(*used)).sum();
            put("follower_cpu_per_op", sum / followers.len() as f64, "ns", Better::Lower);
        }
    }
    let sum = |of: fn(&ReplicaReport) -> u64| reports.iter().map(of).sum::<u64>() as f64;
    let commits = reports[measured.leader].applied_count;
    if commits > 0 {
        let frames = sum(|report| report.tx_frames_count) + commits as f64;
        put("frames_per_commit", frames / commits as f64, "count", Better::Lower);
    }
    put(
        "entries_sent_again",
        sum(|report| report.resent_count),
        "count",
        Better::Lower,
    );
    put(
        "elections",
        sum(|report| report.elections_count),
        "count",
        Better::Neither,
    );
    put(
        "impossible_frames",
        sum(|report| report.impossible_count),
        "count",
        Better::Lower,
    );
    let latency = (asked.latency.total_count() > 0).then(|| asked.latency.distribution(&QUANTILES));
    Row {
        experiment: "quorum-ladder".to_owned(),
        backend: rung.backend.name.to_owned(),
        mode: ModeRecord::Native,
        axis: BTreeMap::from([
            (REPLICAS.name.to_owned(), rung.replicas.clone()),
            (IN_FLIGHT.name.to_owned(), rung.in_flight.to_string()),
            (LOG.name.to_owned(), rung.log.clone()),
            (CPUS.name.to_owned(), rung.cpus.clone()),
        ]),
        round,
        twin: rung.twin,
        seed: lab.choice.seed,
        at_s,
        elapsed_s: asked.elapsed.as_secs_f64(),
        latency,
        service: None,
        schedule_lag: None,
        metrics,
        series: Vec::new(),
        facts: measured.facts,
        validity,
    }
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "quorum-commit-near-floor",
        sentence: "On one CPU, a commit among three replicas over UDP sockets costs at most 4.4 ping-pongs",
        source: Source::Ours {
            seen: "Viewstamped Replication in C++ took 5.6 ping-pongs on one CPU, Speculative Paxos 4.1, NuRaft 13; eight \
                   messages that serialize on one CPU make a floor of 4",
        },
        invariant: "Client, leader and followers share one CPU, sleep in the same system call and keep their logs in memory; \
                    the echo is answered in the same process over the same sockets in the same rounds. Decided by the \
                    paired ratio of medians, one request in flight.",
        judge: commit_near_floor,
    },
    Claim {
        id: "two-more-replicas",
        sentence: "On one CPU, going from three replicas to five adds at most as much as the first three cost beyond an echo",
        source: Source::Ours {
            seen: "each follower adds a send, a wake-up and an acknowledgement",
        },
        invariant: "As quorum-commit-near-floor. Decided by the paired ratio of medians of five and three replicas, at most 2.",
        judge: two_more_replicas,
    },
];

const fn arm(replicas: &'static str) -> [(&'static str, &'static str); 4] {
    [
        ("replicas", replicas),
        ("in_flight", "1"),
        ("log", MEMORY),
        ("cpus", "one"),
    ]
}

const ECHO_ARM: &[(&str, &str)] = &arm(ECHO);
const THREE_ARM: &[(&str, &str)] = &arm("3");
const FIVE_ARM: &[(&str, &str)] = &arm("5");

fn p50(row: &Row) -> Option<f64> {
    latency_ns(0.5)(row)
}

fn commit_near_floor(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "p50 of a commit among three ÷ p50 of an echo, udp-blocking, one CPU",
        (Arm::of(REFERENCE, THREE_ARM), Arm::of(REFERENCE, ECHO_ARM)),
        p50,
        Bound::AtMost(4.4),
    )
}

fn two_more_replicas(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "p50 of a commit among five ÷ among three, udp-blocking, one CPU",
        (Arm::of(REFERENCE, FIVE_ARM), Arm::of(REFERENCE, THREE_ARM)),
        p50,
        Bound::AtMost(2.0),
    )
}
