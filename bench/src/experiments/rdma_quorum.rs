//! `rdma-quorum`: what a commit costs that is written into followers' memory, beside one bare write of the same provider, and whose
//! CPU it costs.

mod claims;

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use dataplane_quorum::onesided::{Timing, layout};
use dataplane_waist::{Clock, MonotonicClock, Peer, Window, WrId};
use rdma::Provider;

use crate::{
    claim::Claim,
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    host::thread_cpu_ns,
    measure::{
        QUANTILES, Recorder, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Row},
    remote_memory::{Cards, Client, Cluster, SLOTS_COUNT, Service, Wires, layout_of, open_roce, open_shm},
};

/// See the module.
#[derive(Debug)]
pub struct RdmaQuorum;

const WORK: Axis = Axis {
    name: "work",
    meaning: "commit: a put, until a majority has it, while the followers' processes stand still; commit-polling: while they poll \
              and apply; write: one bare WRITE of as many bytes to one of them",
    full: &[COMMIT, COMMIT_POLLING, WRITE],
    tour: &[COMMIT, WRITE],
    smallest: COMMIT,
    allowed: Allowed::Words,
};

const NODES: Axis = Axis {
    name: "nodes",
    meaning: "replicas, the leader among them",
    full: &["3", "5"],
    tour: &[MAIN_NODES],
    smallest: MAIN_NODES,
    allowed: Allowed::Number(3.0, 7.0),
};

const VALUE_BYTES: Axis = Axis {
    name: "value_bytes",
    meaning: "bytes of the value that is put",
    full: &[MAIN_BYTES, "1000"],
    tour: &[MAIN_BYTES],
    smallest: MAIN_BYTES,
    allowed: Allowed::Number(1.0, 1000.0),
};

const PROVIDER: Axis = Axis {
    name: "provider",
    meaning: "what moves the bytes (the tables' back end): rdma-shm, in memory that both share; rdma-roce, RoCEv2 over UDP on loopback",
    full: &["rdma-shm", "rdma-roce"],
    tour: &["rdma-shm", "rdma-roce"],
    smallest: "rdma-shm",
    allowed: Allowed::Words,
};

const COMMIT: &str = "commit";
const COMMIT_POLLING: &str = "commit-polling";
const WRITE: &str = "write";
const MAIN_NODES: &str = "3";
const MAIN_BYTES: &str = "64";
/// CPU time of a commit, of the leader, and of the threads that stand for the followers' NICs.
const LEADER_CPU: &str = "leader_cpu_per_commit";
const CARDS_CPU: &str = "cards_cpu_per_commit";
/// Slots that are written for a commit: one to each follower.
const WRITES: &str = "writes_per_commit";
/// CPU time of the followers' processes, all of them, and what they asked of others, in the whole trial.
const FOLLOWERS_CPU: &str = "followers_cpu";
const FOLLOWERS_POSTED: &str = "followers_requests";

/// So many commits fit behind what a follower that stands still has applied; some room is left for the leader's own.
const STILL_COMMITS_MAX: u64 = SLOTS_COUNT / 2;
const TRIAL_MIN: Duration = Duration::from_millis(100);
/// No operation takes so long, not on a machine with one CPU either.
const PATIENCE: Duration = Duration::from_secs(20);
/// Rare enough that what the leader reads of the others every so often is not in the median.
const HEARTBEAT: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
struct Rung {
    wires: Wires,
    nodes_count: u16,
    value_bytes: usize,
    work: String,
    twin: bool,
}

impl Experiment for RdmaQuorum {
    fn id(&self) -> &'static str {
        "rdma-quorum"
    }

    fn title(&self) -> &'static str {
        "Commits by one-sided writes"
    }

    fn question(&self) -> &'static str {
        "What does a commit cost that is written into followers' memory, beside one bare write, and whose CPU?"
    }

    fn how(&self) -> &'static str {
        "A leader, after Mu (OSDI'20), writes each entry into its followers' memory and answers when a majority of the writes \
         is acknowledged. It, its client and its end of the provider are one thread that never rests; another one stands for the \
         followers' NICs, which this machine does not have; each follower's process is a third kind of thread, which stands still, or \
         polls its memory every 200 µs. One put at a time. A bare WRITE of as many bytes goes to one memory, between the same two \
         threads. A latency counts from when the leader has the request until its answer is ready; the client's own work is in the \
         throughput alone. Arms take turns in rounds, in an order drawn from the seed; the commit among three is measured twice a round. CPU \
         time is what the kernel charged to each thread."
    }

    fn axes(&self) -> &'static [Axis] {
        &[WORK, NODES, VALUE_BYTES, PROVIDER]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        claims::CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.5
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its replicas are threads of one process")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let rungs = rungs(lab);
        let plan = lab.plan(rungs.len(), TRIAL_MIN);
        lab.in_rounds(&rungs, plan.rounds_count, |lab, turn| {
            let rung = turn.arm;
            lab.progress.set_message(format!(
                "{}, {} among {}, round {}",
                rung.wires.name(),
                rung.work,
                rung.nodes_count,
                turn.round + 1
            ));
            lab.record_until_valid(|lab| measure(lab, rung, turn.round, plan.trial))
        })
    }
}

fn rungs(lab: &Lab<'_>) -> Vec<Rung> {
    let is_chosen = |axis: &Axis| lab.choice.axes.contains_key(axis.name);
    let wanted = lab.values(&PROVIDER);
    let mut rungs = Vec::new();
    for wires in Wires::ALL
        .into_iter()
        .filter(|wires| wanted.iter().any(|name| name == wires.name()))
    {
        for nodes_count in lab.numbers(&NODES) {
            for value_bytes in lab.numbers(&VALUE_BYTES) {
                for work in lab.values(&WORK) {
                    let is_main = nodes_count.to_string() == MAIN_NODES;
                    // A bare write knows of no cluster, and the longer value says something of three alone.
                    let is_odd = value_bytes.to_string() != MAIN_BYTES && !is_chosen(&VALUE_BYTES);
                    if !is_main && (work == WRITE || is_odd) {
                        continue;
                    }
                    let rung = Rung {
                        wires,
                        nodes_count: nodes_count as u16,
                        value_bytes: value_bytes as usize,
                        twin: false,
                        work: work.clone(),
                    };
                    let is_twin = work == COMMIT && is_main && value_bytes.to_string() == MAIN_BYTES;
                    if is_twin && lab.choice.depth != Depth::Smallest {
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
    rungs
}

fn measure(lab: &Lab<'_>, rung: &Rung, round: u32, duration: Duration) -> anyhow::Result<Row> {
    let count = rung.nodes_count;
    match rung.wires {
        Wires::Shm => measure_over(
            lab,
            ([open_shm(count)?, open_shm(count)?], open_shm(2)?),
            rung,
            round,
            duration,
        ),
        Wires::Roce => {
            let devices = ([open_roce(1, count)?, open_roce(2, count)?], open_roce(3, 2)?);
            measure_over(lab, devices, rung, round, duration)
        }
    }
}

/// What a trial came to.
struct Seen {
    latency: Recorder,
    leader_cpu_ns: u64,
    cards_cpu_ns: u64,
    followers_cpu_ns: u64,
    followers_posted_count: u64,
    /// Slots that were written to followers.
    written_count: u64,
    elapsed: Duration,
}

fn measure_over<P: Provider + Send>(
    lab: &Lab<'_>,
    (planes, yardstick): ([Vec<P>; 2], Vec<P>),
    rung: &Rung,
    round: u32,
    duration: Duration,
) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let started = Instant::now();
    let timing = Timing { heartbeat: HEARTBEAT };
    let cluster = Cluster::new(planes, yardstick, (timing, layout_of(rung.value_bytes)))?;
    let cards = Cards::new(cluster.nodes.len() - 1);
    let watch = Watch::begin();
    let seen = thread::scope(|scope| {
        let (cluster, cards) = (&cluster, &cards);
        scope.spawn(|| cards.serve(cluster));
        for index in 0..cluster.nodes.len() - 1 {
            scope.spawn(move || cards.follow(cluster, index));
        }
        let seen = trial(lab, cluster, cards, rung, duration);
        cards.set(Service::Over);
        seen
    })
    .with_context(|| format!("{} over {}", rung.work, rung.wires.name()))?;
    let mut observed = watch.end();
    let count = seen.latency.total_count();
    if count > 0 {
        observed.push(Observation::Samples {
            q: 0.5,
            total_count: count,
        });
    }
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put("operations", count as f64, "count", Better::Neither);
    if count > 0 {
        let each = |ns: u64| ns as f64 / count as f64;
        put(
            "throughput",
            count as f64 / seen.elapsed.as_secs_f64(),
            "1/s",
            Better::Higher,
        );
        put(LEADER_CPU, each(seen.leader_cpu_ns), "ns", Better::Lower);
        put(CARDS_CPU, each(seen.cards_cpu_ns), "ns", Better::Lower);
        if rung.work != WRITE {
            put(WRITES, each(seen.written_count), "count", Better::Neither);
        }
        put(FOLLOWERS_CPU, seen.followers_cpu_ns as f64, "ns", Better::Lower);
        put(
            FOLLOWERS_POSTED,
            seen.followers_posted_count as f64,
            "count",
            Better::Lower,
        );
    }
    let (guarantee, is_commit) = guarantee(&rung.work);
    let mut facts = BTreeMap::from([
        (
            "loop".to_owned(),
            "closed: a latency counts from the request's coming to the leader until the answer is ready".to_owned(),
        ),
        ("guarantee".to_owned(), guarantee.to_owned()),
        (
            "cards".to_owned(),
            "a thread of this process stands for the followers' NICs; its CPU time is counted apart".to_owned(),
        ),
    ]);
    if !is_commit {
        facts.insert("yardstick".to_owned(), "a bare WRITE, without replicas".to_owned());
    }
    Ok(Row {
        experiment: "rdma-quorum".to_owned(),
        backend: rung.wires.name().to_owned(),
        mode: ModeRecord::Emulated {
            by: "software: no NIC".to_owned(),
        },
        axis: BTreeMap::from([
            (WORK.name.to_owned(), rung.work.clone()),
            (NODES.name.to_owned(), rung.nodes_count.to_string()),
            (VALUE_BYTES.name.to_owned(), rung.value_bytes.to_string()),
            (PROVIDER.name.to_owned(), rung.wires.name().to_owned()),
        ]),
        round,
        twin: rung.twin,
        seed: lab.choice.seed,
        at_s,
        elapsed_s: started.elapsed().as_secs_f64(),
        latency: (count > 0).then(|| seen.latency.distribution(&QUANTILES)),
        service: None,
        schedule_lag: None,
        metrics,
        series: Vec::new(),
        facts,
        validity: gates::judge(&observed, &Limits::default()),
    })
}

fn guarantee(work: &str) -> (&'static str, bool) {
    match work {
        WRITE => ("the memory of one peer", false),
        _ => (
            "the memory of a majority: power that fails everywhere takes everything",
            true,
        ),
    }
}

fn trial<P: Provider + Send>(
    lab: &Lab<'_>,
    cluster: &Cluster<P>,
    cards: &Cards,
    rung: &Rung,
    duration: Duration,
) -> anyhow::Result<Seen> {
    let mut client = Client::new(rung.value_bytes);
    let bytes = client.slot();
    if rung.work == WRITE {
        cards.set(Service::Yardstick);
        let mut near = cluster.yardstick.near.lock().expect("nobody panicked with it");
        let mut id = 0;
        let seen = sample(lab, (cluster, cards), (duration, u64::MAX), || {
            id += 1;
            let begin = Instant::now();
            near.write(Peer(0), 0, &bytes, WrId(id))?;
            let mut done = None;
            loop {
                near.poll_cq(&mut |completion| done = Some(completion.result));
                let took = begin.elapsed();
                if let Some(result) = done {
                    result?;
                    return Ok(took);
                }
                anyhow::ensure!(took < PATIENCE, "a write that nobody acknowledges");
            }
        })?;
        let mut written = vec![0; bytes.len()];
        let far = cluster.yardstick.far.lock().expect("nobody panicked with it");
        far.load(0, &mut written);
        anyhow::ensure!(written == bytes, "the peer's memory has other bytes than were written");
        return Ok(seen);
    }
    let mut leader = cluster.nodes[0].lock().expect("nobody panicked with it");
    let clock = MonotonicClock::new();
    let until = clock.now() + PATIENCE;
    // With a majority it leads; a commit is written to all.
    while leader.replica().followers_count() < cluster.nodes.len() - 1 {
        leader.turn(cluster.now());
        anyhow::ensure!(
            clock.now() < until,
            "nobody leads all others: {}",
            leader.replica().describe()
        );
    }
    client.open(&mut leader, || cluster.now(), PATIENCE)?;
    let (service, count_max) = match rung.work.as_str() {
        COMMIT => (Service::Still, STILL_COMMITS_MAX),
        _ => (Service::Polling, u64::MAX),
    };
    cards.set(service);
    let written_before = leader.replica().counters().written_count;
    let mut seen = sample(lab, (cluster, cards), (duration, count_max), || {
        client.prepare();
        let begin = cluster.now();
        client.ask(&mut leader);
        let mut now = begin;
        loop {
            leader.turn(now);
            now = cluster.now();
            if leader.has_answers() {
                break;
            }
            anyhow::ensure!(now < begin + PATIENCE, "no commit: {}", leader.replica().describe());
        }
        anyhow::ensure!(client.is_answered(&mut leader)?, "the leader answers somebody else");
        Ok(now.saturating_since(begin))
    })?;
    seen.written_count = leader.replica().counters().written_count - written_before;
    drop(leader);
    check_written(cluster, bytes.len())?;
    Ok(seen)
}

/// Whether the last commit is in the memory of a majority, and is as long as a bare write.
fn check_written<P: Provider + Send>(cluster: &Cluster<P>, written_bytes: usize) -> anyhow::Result<()> {
    let node = |index: usize| cluster.nodes[index].lock().expect("nobody panicked with it");
    let last = node(0).replica().commit_end() - 1;
    let ours = node(0).slot(last, written_bytes);
    let entry = layout::parse_slot(last, &ours, true).context("the leader's own memory lacks what it has committed")?;
    let entry_bytes = layout::written_bytes(entry.payload.len());
    anyhow::ensure!(
        entry_bytes == written_bytes,
        "a commit writes {entry_bytes} bytes, a bare write {written_bytes}: the two cannot be compared"
    );
    let have_count = (0..cluster.nodes.len())
        .filter(|&index| node(index).slot(last, written_bytes) == ours)
        .count();
    anyhow::ensure!(
        have_count > cluster.nodes.len() / 2,
        "the entry in slot {last} is committed and stands in the memory of {have_count} nodes alone"
    );
    Ok(())
}

/// Operations one after the other, for so long or so many; each says how long it took.
fn sample<P: Provider + Send>(
    lab: &Lab<'_>,
    (cluster, cards): (&Cluster<P>, &Cards),
    (duration, count_max): (Duration, u64),
    mut operation: impl FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<Seen> {
    let mut latency = Recorder::new();
    let posted_count = || -> u64 {
        let followers = cluster.nodes[1..].iter();
        followers
            .map(|node| {
                node.lock()
                    .expect("nobody panicked with it")
                    .replica()
                    .counters()
                    .posted_count
            })
            .sum()
    };
    let posted_before = posted_count();
    let (cards_before, followers_before) = (cards.cards_cpu_ns(), cards.followers_cpu_ns());
    let (begun, cpu_before) = (Instant::now(), thread_cpu_ns());
    while begun.elapsed() < duration
        && latency.total_count() < count_max
        && !lab.stop.load(std::sync::atomic::Ordering::Relaxed)
    {
        latency.record(operation()?.as_nanos() as u64);
    }
    let (elapsed, leader_cpu_ns) = (begun.elapsed(), thread_cpu_ns() - cpu_before);
    Ok(Seen {
        latency,
        leader_cpu_ns,
        elapsed,
        written_count: 0,
        cards_cpu_ns: cards.cards_cpu_ns() - cards_before,
        followers_cpu_ns: cards.followers_cpu_ns() - followers_before,
        followers_posted_count: posted_count() - posted_before,
    })
}
