//! `rdma-quorum`: what a commit costs that is written into followers' memory, beside one bare write of the same provider, and whose
//! CPU it costs.

mod claims;

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use dataplane_quorum::onesided::{Timing, layout};
use dataplane_waist::{Peer, Window, WrId};
use rdma::Provider;

use crate::{
    claim::Claim,
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    host::thread_cpu_ns,
    measure::{
        QUANTILES, Recorder, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, QuantileValue, Row},
    remote_memory::{
        Cards, Client, Cluster, Deposed, Node, PATIENCE, SLOTS_COUNT, Service, Wires, layout_of, open_roce, open_shm,
        unless_deposed,
    },
};

/// See the module.
#[derive(Debug)]
pub struct RdmaQuorum;

const WORK: Axis = Axis {
    name: "work",
    meaning: "commit: a put, until a majority has it, while the followers' processes stand still, the next when all followers have \
              acknowledged the last; commit-polling: while they poll and apply; commit-at-once: the next as soon as the last is \
              answered; write: one bare WRITE of as many bytes to one of them",
    full: &[COMMIT, COMMIT_POLLING, COMMIT_AT_ONCE, WRITE],
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
    tour: &["rdma-shm"],
    smallest: "rdma-shm",
    allowed: Allowed::Words,
};

const COMMIT: &str = "commit";
const COMMIT_POLLING: &str = "commit-polling";
const COMMIT_AT_ONCE: &str = "commit-at-once";
const WRITE: &str = "write";
const MAIN_NODES: &str = "3";
const MAIN_BYTES: &str = "64";
/// The median from when the leader has a request until its answer is ready: the request is read, its entry applied, its answer made.
const ANSWER: &str = "answer_p50";
/// CPU time of a commit, of the leader, and of the thread that stands for the NICs.
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
/// Once around the log takes a quarter of a second at most, where each thread has a CPU; where not, there is nothing to be measured either.
const WARM_UP_MAX: Duration = Duration::from_millis(500);
/// Turns, or looks for a completion, between two looks at the clock: a look takes less time than the clock does.
const LOOKS_PER_CLOCK: u64 = 8;
/// Rare enough that what the leader reads of the others every so often is not in the median, and that a leader whose CPU is taken away for
/// a tenth of a second is not taken for dead.
const HEARTBEAT: Duration = Duration::from_millis(20);

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
         is acknowledged. It and its client are one thread that never rests; another one stands for all nodes' NICs, which this \
         machine does not have; each follower's process is a third kind of thread, which stands still, or polls its memory every \
         200 µs. One put at a time, which finds the leader at rest; the log has gone around once before. A bare WRITE of as many \
         bytes goes where an entry would go, into one other memory, between the same two threads, which have as many NICs to stand \
         for. A latency is Mu's: from when the leader has taken an entry from its client until it knows that a majority has it. \
         What a client waits for besides, that its request is read, its entry applied and its answer made, is in answer_p50. Arms \
         take turns in rounds, in an order drawn from the seed; the commit among three is measured twice a round. CPU time is what \
         the kernel charged to each thread."
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
            ([open_shm(count)?, open_shm(count)?], open_shm(count)?),
            rung,
            round,
            duration,
        ),
        Wires::Roce => {
            let devices = ([open_roce(1, count)?, open_roce(2, count)?], open_roce(3, count)?);
            measure_over(lab, devices, rung, round, duration)
        }
    }
}

/// What a trial came to.
struct Seen {
    latency: Recorder,
    /// From when the leader has the request until its answer is ready; of commits alone.
    answer: Recorder,
    leader_cpu_ns: u64,
    cards_cpu_ns: u64,
    followers_cpu_ns: u64,
    followers_posted_count: u64,
    /// Slots that were written to followers.
    written_count: u64,
    elapsed: Duration,
}

impl Seen {
    fn nothing() -> Seen {
        Seen {
            latency: Recorder::new(),
            answer: Recorder::new(),
            leader_cpu_ns: 0,
            cards_cpu_ns: 0,
            followers_cpu_ns: 0,
            followers_posted_count: 0,
            written_count: 0,
            elapsed: Duration::ZERO,
        }
    }
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
    });
    let mut observed = watch.end();
    let seen = unless_deposed(seen, &mut observed)
        .with_context(|| format!("{} over {}", rung.work, rung.wires.name()))?
        .unwrap_or_else(Seen::nothing);
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
            if let QuantileValue::Ns(ns) = seen.answer.quantile(0.5) {
                put(ANSWER, ns as f64, "ns", Better::Lower);
            }
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
            "closed: a latency counts from the leader's having the entry until it knows that it is committed"
                .to_owned(),
        ),
        ("guarantee".to_owned(), guarantee.to_owned()),
        (
            "cards".to_owned(),
            "a thread of this process stands for all nodes' NICs; its CPU time is counted apart".to_owned(),
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
    let mut seen = Seen::nothing();
    let mut client = Client::new(rung.value_bytes);
    let bytes = client.slot();
    if rung.work == WRITE {
        cards.set(Service::Yardstick);
        let mut near = cluster.yardstick.near.lock().expect("nobody panicked with it");
        // Where an entry would go, in a log as long.
        let layout = layout_of(rung.value_bytes);
        let at = |id: u64| layout.slot_at(id % SLOTS_COUNT);
        let mut id = 0;
        sample(lab, (cluster, cards), (duration, u64::MAX), &mut seen, |seen| {
            id += 1;
            let begin = Instant::now();
            near.write(Peer(0), at(id), &bytes, WrId(id))?;
            let mut done = None;
            for look in 0u64.. {
                near.poll_cq(&mut |completion| done = Some(completion.result));
                if done.is_some() {
                    break;
                }
                let is_late = look % LOOKS_PER_CLOCK == LOOKS_PER_CLOCK - 1 && begin.elapsed() > PATIENCE;
                anyhow::ensure!(!is_late, "a write that nobody acknowledges");
            }
            seen.latency.record(begin.elapsed().as_nanos() as u64);
            Ok(done.transpose().map(|_| ())?)
        })?;
        let mut written = vec![0; bytes.len()];
        let far = cluster.yardstick.far.lock().expect("nobody panicked with it");
        far.load(at(id), &mut written);
        anyhow::ensure!(written == bytes, "the peer's memory has other bytes than were written");
        return Ok(seen);
    }
    let mut leader = cluster.nodes[0].lock().expect("nobody panicked with it");
    lead_all(cluster, &mut leader)?;
    leader.while_it_leads(|leader| {
        client.open(cluster, leader)?;
        commits(
            lab,
            (cluster, cards),
            (rung, duration),
            (leader, &mut client),
            &mut seen,
        )
    })?;
    drop(leader);
    check_written(cluster, bytes.len())?;
    Ok(seen)
}

/// Puts, one after the other, for so long.
fn commits<P: Provider + Send>(
    lab: &Lab<'_>,
    (cluster, cards): (&Cluster<P>, &Cards),
    (rung, duration): (&Rung, Duration),
    (leader, client): (&mut Node<P>, &mut Client),
    seen: &mut Seen,
) -> anyhow::Result<()> {
    // A log is young once: from its second time around on, each slot is where another entry was.
    let begun = Instant::now();
    for _ in 0..SLOTS_COUNT {
        if begun.elapsed() > WARM_UP_MAX {
            break;
        }
        put(cluster, leader, client)?;
    }
    let begun = Instant::now();
    while begun.elapsed() < duration && !lab.stop.load(Ordering::Relaxed) {
        let left = duration - begun.elapsed();
        let bounds = match rung.work.as_str() {
            COMMIT | COMMIT_AT_ONCE => {
                followers_apply(cluster, leader)?;
                cards.set(Service::Still);
                (left, STILL_COMMITS_MAX)
            }
            _ => (left, u64::MAX),
        };
        let written_before = leader.replica().counters().written_count;
        sample(lab, (cluster, cards), bounds, seen, |seen| {
            if rung.work != COMMIT_AT_ONCE {
                come_to_rest(cluster, leader)?;
            }
            let (commit, answer) = put(cluster, leader, client)?;
            seen.latency.record(commit.as_nanos() as u64);
            seen.answer.record(answer.as_nanos() as u64);
            Ok(())
        })?;
        seen.written_count += leader.replica().counters().written_count - written_before;
        cards.set(Service::Polling);
    }
    Ok(())
}

/// With a majority it leads; a commit is written to all.
fn lead_all<P: Provider + Send>(cluster: &Cluster<P>, leader: &mut Node<P>) -> anyhow::Result<()> {
    cluster.turn_until(leader, "nobody leads all others", |leader, _| {
        let replica = leader.replica();
        anyhow::ensure!(replica.counters().stepped_down_count == 0, Deposed);
        Ok(replica.followers_count() == cluster.nodes.len() - 1)
    })
}

/// One put. How long the leader took to commit it, from having taken it from the client until it knew that it is committed; and how long the
/// client's request was with it, from its coming until its answer was ready.
fn put<P: Provider + Send>(
    cluster: &Cluster<P>,
    leader: &mut Node<P>,
    client: &mut Client,
) -> anyhow::Result<(Duration, Duration)> {
    leader.still_leads()?;
    client.prepare();
    let asked = cluster.now();
    client.ask(leader);
    let begin = cluster.now();
    let mut now = begin;
    for look in 0u64.. {
        leader.turn(now);
        if leader.has_answers() {
            break;
        }
        if look % LOOKS_PER_CLOCK == LOOKS_PER_CLOCK - 1 {
            now = cluster.now();
            leader.still_leads()?;
            anyhow::ensure!(now < begin + PATIENCE, "no commit: {}", leader.replica().describe());
        }
    }
    let answered = cluster.now();
    anyhow::ensure!(client.is_answered(leader)?, "the leader answers somebody else");
    let committed = leader.committed_at().context("an answer to what was not committed")?;
    Ok((committed.saturating_since(begin), answered.saturating_since(asked)))
}

/// Lets every follower acknowledge what is under way to it.
fn come_to_rest<P: Provider + Send>(cluster: &Cluster<P>, leader: &mut Node<P>) -> anyhow::Result<()> {
    cluster.turn_until(leader, "a follower that does not acknowledge", |leader, _| {
        leader.still_leads()?;
        Ok(leader.replica().is_at_rest())
    })
}

/// Waits until the followers, which poll, have applied everything, and the leader knows that.
fn followers_apply<P: Provider + Send>(cluster: &Cluster<P>, leader: &mut Node<P>) -> anyhow::Result<()> {
    cluster.turn_until(leader, "followers that do not apply", |leader, now| {
        leader.still_leads()?;
        Ok(leader.replica().room_slots(now) > STILL_COMMITS_MAX)
    })
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

/// Operations one after the other, for so long or so many; each notes how long it took. What they cost is added to `seen`.
fn sample<P: Provider + Send>(
    lab: &Lab<'_>,
    (cluster, cards): (&Cluster<P>, &Cards),
    (duration, count_max): (Duration, u64),
    seen: &mut Seen,
    mut operation: impl FnMut(&mut Seen) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
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
    let mut count = 0;
    while begun.elapsed() < duration && count < count_max && !lab.stop.load(Ordering::Relaxed) {
        operation(seen)?;
        count += 1;
    }
    seen.elapsed += begun.elapsed();
    seen.leader_cpu_ns += thread_cpu_ns() - cpu_before;
    seen.cards_cpu_ns += cards.cards_cpu_ns() - cards_before;
    seen.followers_cpu_ns += cards.followers_cpu_ns() - followers_before;
    seen.followers_posted_count += posted_count() - posted_before;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that stands still for long is no reason to wait for ever, and none to measure anything.
    #[test]
    fn a_leader_that_is_taken_for_dead_ends_the_trial() {
        for has_session in [false, true] {
            let error = trial_of_a_leader_that_stands_still(has_session).expect_err("a deposed leader commits nothing");
            assert!(error.is::<Deposed>(), "a session before: {has_session}; {error:#}");
        }
    }

    fn trial_of_a_leader_that_stands_still(has_session: bool) -> anyhow::Result<()> {
        let open = || open_shm(3).expect("shared memory");
        let timing = Timing {
            heartbeat: Duration::from_millis(5),
        };
        let cluster = Cluster::new([open(), open()], open(), (timing, layout_of(64))).expect("three nodes");
        let cards = Cards::new(2);
        thread::scope(|scope| {
            let (cluster, cards) = (&cluster, &cards);
            scope.spawn(|| cards.serve(cluster));
            for index in 0..2 {
                scope.spawn(move || cards.follow(cluster, index));
            }
            let mut leader = cluster.nodes[0].lock().expect("nobody panicked with it");
            let ended = lead_all(cluster, &mut leader)
                .and_then(|()| leader.while_it_leads(|leader| stand_still_and_go_on(cluster, leader, has_session)));
            cards.set(Service::Over);
            ended
        })
    }

    /// Puts until one fails, with a pause that lasts until another replica leads: before the client's session, or after the first put.
    fn stand_still_and_go_on<P: Provider + Send>(
        cluster: &Cluster<P>,
        leader: &mut Node<P>,
        has_session: bool,
    ) -> anyhow::Result<()> {
        let mut client = Client::new(64);
        if has_session {
            client.open(cluster, leader)?;
            put(cluster, leader, &mut client)?;
        }
        let until = cluster.now() + PATIENCE;
        let other_leads = || {
            let next = cluster.nodes[1].lock().expect("nobody panicked with it");
            next.replica().leads().is_some()
        };
        while !other_leads() {
            anyhow::ensure!(cluster.now() < until, "nobody takes the leader for dead");
            thread::sleep(Duration::from_millis(1));
        }
        if !has_session {
            client.open(cluster, leader)?;
        }
        while cluster.now() < until {
            put(cluster, leader, &mut client)?;
        }
        Ok(())
    }
}
