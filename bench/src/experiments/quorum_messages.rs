//! `quorum-messages`: how many messages a commit takes, and how many one-way delays, counted in virtual time where nothing
//! else costs anything.

use std::{collections::BTreeMap, time::Duration};

use dataplane_quorum::{ReadMode, Timing, majorities};
use dataplane_sim::{EventKind, Latency, LinkFaults, LinkOptions, SimTime};

use crate::{
    caller::{Done, Kind, Load},
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::{
        judge::measured,
        virtual_time::{BACKEND, SILENT, Setup, Simulated, TURN},
    },
    record::{Better, Outcome, Row},
    table::Table,
};

/// See the module.
#[derive(Debug)]
pub struct QuorumMessages;

const REPLICAS: Axis = Axis {
    name: "replicas",
    meaning: "how many replicas",
    full: &["3", "5", "7", "9"],
    tour: &["3", "5", "7"],
    smallest: "3",
    allowed: Allowed::Number(2.0, 31.0),
};

const IN_FLIGHT: Axis = Axis {
    name: "in_flight",
    meaning: "puts that the client keeps under way",
    full: &["1", "16"],
    tour: &["1", "16"],
    smallest: "1",
    allowed: Allowed::Number(1.0, 256.0),
};

const LOSS: Axis = Axis {
    name: "loss_percent",
    meaning: "frames that every link loses; with 0, no timer ends while messages are counted, so the count is the protocol's own",
    full: &["0", "1"],
    tour: &["0", "1"],
    smallest: "0",
    allowed: Allowed::Number(0.0, 50.0),
};

/// One way, every frame, on every link.
const DELAY: SimTime = SimTime::from_us(25);

impl Experiment for QuorumMessages {
    fn id(&self) -> &'static str {
        "quorum-messages"
    }

    fn title(&self) -> &'static str {
        "Messages and delays of a commit"
    }

    fn question(&self) -> &'static str {
        "How many messages and how many one-way delays does a commit take, and how near is that to the bounds?"
    }

    fn how(&self) -> &'static str {
        "Replicas and a client run in virtual time: every link takes 25 µs one way, disks and hosts take nothing (a turn of a \
         host takes a nanosecond, so that time passes). A leader is elected, the client warms up, then every frame that leaves a \
         host is counted until the last put is answered. Nothing is measured with a clock, so the same seed gives the same \
         row, and a row has no noise."
    }

    fn axes(&self) -> &'static [Axis] {
        &[REPLICAS, IN_FLIGHT, LOSS]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.1
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let mut arms = Vec::new();
        for replicas in lab.numbers(&REPLICAS) {
            for in_flight in lab.numbers(&IN_FLIGHT) {
                for loss_percent in lab.numbers(&LOSS) {
                    arms.push(Arm {
                        replicas: replicas as u32,
                        in_flight: in_flight as usize,
                        loss_percent,
                    });
                }
            }
        }
        lab.progress.set_length(arms.len() as u64);
        for arm in arms {
            if lab.interrupted() {
                return Ok(());
            }
            lab.progress.set_message(format!(
                "{} replicas, {} in flight, {} % loss",
                arm.replicas, arm.in_flight, arm.loss_percent
            ));
            let row = measure(lab, arm)?;
            lab.record(row)?;
            lab.progress.inc(1);
        }
        Ok(())
    }
}

/// What one row counts.
#[derive(Clone, Copy, Debug)]
struct Arm {
    replicas: u32,
    in_flight: usize,
    loss_percent: f64,
}

/// Messages per commit, by who tells whom what; a client's request and the answer to it are two of them.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// To each follower an append and a commit notice, and its acknowledgement: Multi-Paxos and Viewstamped Replication as
    /// they are drawn.
    textbook: f64,
    /// The commit notice travels with the next append.
    piggybacked: f64,
    /// Every follower tells everybody that it has the entry, so nobody waits for a notice.
    all_to_all: f64,
}

impl Bounds {
    fn of(replicas_count: u32) -> Bounds {
        let followers = f64::from(replicas_count - 1);
        Bounds {
            textbook: 2.0 + 3.0 * followers,
            piggybacked: 2.0 + 2.0 * followers,
            all_to_all: 2.0 + followers + followers * followers,
        }
    }
}

fn measure(lab: &Lab<'_>, arm: Arm) -> anyhow::Result<Row> {
    let is_lossless = arm.loss_percent == 0.0;
    let setup = Setup {
        seed: lab.choice.seed,
        members: majorities(u32::MAX >> (32 - arm.replicas)),
        link: LinkOptions {
            latency: Latency::fixed(DELAY),
            faults: LinkFaults {
                loss_ratio: arm.loss_percent / 100.0,
                ..LinkFaults::default()
            },
            ..LinkOptions::default()
        },
        sync: Latency::fixed(SimTime::ZERO),
        timing: if is_lossless { SILENT } else { Timing::LOCAL },
        reads: ReadMode::Index,
        callers_count: 1,
        in_flight_max: arm.in_flight,
    };
    let mut cluster = setup.start()?;
    let load = Load {
        kind: Kind::Put,
        in_flight: arm.in_flight,
        pause: Duration::ZERO,
        ops_count: match lab.choice.depth {
            Depth::Smallest => 160,
            Depth::Tour => 4_000,
            Depth::Full => 16_000,
        },
    };
    let leader = cluster.leader().map(|leader| leader.node());
    let (since, sent_before) = (cluster.sim.now(), cluster.sim.counts().sent_count);
    let host = setup.caller(0);
    cluster.with_client(host, |caller, now| caller.begin(now, load));
    let mut at_leader = AtLeader::default();
    while !cluster.client(host).is_done() {
        let Some(event) = cluster.step(SimTime::FOREVER)? else {
            anyhow::bail!("the cluster fell silent, and not everything was answered");
        };
        if let EventKind::Turned(turned) = event.kind
            && Some(turned.0) == leader
            && let Some(replica) = cluster.replica(turned.0)
        {
            at_leader.watch(event.at, replica.window().end().0, replica.commit_end().0);
        }
    }
    let messages = cluster.sim.counts().sent_count - sent_before;
    let caller = cluster.client(host);
    if let Some(odd) = &caller.odd {
        anyhow::bail!("{odd}");
    }
    let commits = caller.done.len() as f64;

    let axis = BTreeMap::from([
        (REPLICAS.name.to_owned(), arm.replicas.to_string()),
        (IN_FLIGHT.name.to_owned(), arm.in_flight.to_string()),
        (LOSS.name.to_owned(), arm.loss_percent.to_string()),
    ]);
    let mut row = Simulated::new(lab, "quorum-messages", axis, setup.seed, &cluster, since);
    row.latencies(caller.done.iter().map(|done: &Done| done.latency().as_nanos() as u64));
    row.fact("guarantee", setup.guarantee());
    row.fact("one_way", "25 µs, every frame on every link; disks and hosts are free");
    let bounds = Bounds::of(arm.replicas);
    for (name, value) in [
        ("messages_per_commit", messages as f64 / commits),
        ("analytic_textbook_per_commit", bounds.textbook),
        ("analytic_piggybacked_per_commit", bounds.piggybacked),
        ("analytic_all_to_all_per_commit", bounds.all_to_all),
    ] {
        row.put(name, value, "count", Better::Lower);
    }
    row.put("messages", messages as f64, "count", Better::Lower);
    row.put("commits", commits, "count", Better::Neither);
    row.put("lost", caller.lost_count as f64, "count", Better::Lower);
    row.put(
        "client_retries",
        caller.client().counters().timeouts_count as f64,
        "count",
        Better::Lower,
    );
    let resent: u64 = cluster.replicas().map(|replica| replica.counters().resent_count).sum();
    row.put("entries_sent_again", resent as f64, "count", Better::Lower);
    row.put(
        "elections",
        cluster.observer().led_terms_count() as f64,
        "count",
        Better::Neither,
    );
    let delays = |ps: u64| ps as f64 / DELAY.as_ps() as f64;
    let client_delays = |ns: u64| delays(SimTime::from_ns(ns).as_ps());
    let latencies = caller.done.iter().map(|done| done.latency().as_nanos() as u64);
    if let Some(max) = latencies.max() {
        row.put("client_delays_max", client_delays(max), "one-way delays", Better::Lower);
    }
    row.put(
        "leader_delays_min",
        delays(at_leader.min.as_ps()),
        "one-way delays",
        Better::Lower,
    );
    row.put(
        "leader_delays_max",
        delays(at_leader.max.as_ps()),
        "one-way delays",
        Better::Lower,
    );
    row.put(
        "leader_commit_min",
        at_leader.min.as_ps() as f64 / 1e3,
        "ns",
        Better::Lower,
    );
    row.put(
        "leader_commit_max",
        at_leader.max.as_ps() as f64 / 1e3,
        "ns",
        Better::Lower,
    );
    Ok(row.into_row())
}

/// From an entry's append at the leader to its commit there.
#[derive(Debug)]
struct AtLeader {
    /// Entries that are not committed: their slot, and when they were appended.
    appended: std::collections::VecDeque<(u64, SimTime)>,
    end: Option<u64>,
    min: SimTime,
    max: SimTime,
}

impl Default for AtLeader {
    fn default() -> AtLeader {
        AtLeader {
            appended: std::collections::VecDeque::new(),
            end: None,
            min: SimTime::FOREVER,
            max: SimTime::ZERO,
        }
    }
}

impl AtLeader {
    fn watch(&mut self, at: SimTime, end: u64, commit_end: u64) {
        // The first turn that is looked at appends the first entry: what was there before is committed.
        let before = self.end.replace(end).unwrap_or(commit_end);
        self.appended.extend((before..end).map(|slot| (slot, at)));
        while let Some(&(slot, appended_at)) = self.appended.front()
            && slot < commit_end
        {
            self.appended.pop_front();
            let took = at.saturating_since(appended_at);
            (self.min, self.max) = (self.min.min(took), self.max.max(took));
        }
    }
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "quorum-messages",
        sentence: "With a stable leader and one put in flight, a commit among n replicas takes exactly 2 + 2(n − 1) messages, \
                   n − 1 fewer than with commit notices of their own",
        source: Source::Published {
            work: "Lamport, Paxos made simple, 2001, and Liskov and Cowling, Viewstamped replication revisited, 2012",
            place: "§3 and §4.1: request, append to each follower, acknowledgement of each, answer; the notice of a commit \
                    may travel with the next append",
        },
        invariant: "Every frame that leaves a host in virtual time is counted, over all puts of a row; no frame is lost, no timer \
                    ends. Decided by equality, for every number of replicas in the table.",
        judge: messages_exact,
    },
    Claim {
        id: "quorum-round-trips",
        sentence: "A client outside the group sees a commit after exactly four one-way delays (two round trips), of which the \
                   leader waits two (one round trip to its followers and back)",
        source: Source::Published {
            work: "Lamport, Lower bounds for asynchronous consensus, Distributed Computing 19, 2006",
            place: "§1: two message delays from a proposer that leads to a learner's knowledge; a client outside adds its own way \
                    there and back",
        },
        invariant: "Every link takes the same time, disks and hosts none but the nanosecond of each turn. Decided by equality \
                    of the fastest and the slowest put with four delays and four turns, and at the leader with two and two, in \
                    every row with one put in flight and no loss.",
        judge: round_trips_exact,
    },
    Claim {
        id: "quorum-messages-batched",
        sentence: "With 16 puts in flight, a commit takes less than a quarter of the messages between replicas that it takes alone",
        source: Source::Ours {
            seen: "entries that wait for the same turn share an append and its acknowledgement",
        },
        invariant: "As quorum-messages, with 16 puts under way at a client that asks for the next when it is answered.",
        judge: batching_shares,
    },
];

/// The rows in which the protocol is alone: nothing is lost.
fn lossless<'a>(table: &'a Table, in_flight: &'a str) -> impl Iterator<Item = &'a Row> {
    table.valid().filter(move |row| {
        let has = |name: &str, value: &str| row.axis.get(name).is_some_and(|have| have == value);
        row.backend == BACKEND && has(IN_FLIGHT.name, in_flight) && has(LOSS.name, "0")
    })
}

fn metric(row: &Row, name: &str) -> f64 {
    row.metrics.get(name).map_or(f64::NAN, |metric| metric.value)
}

fn replicas(row: &Row) -> String {
    row.axis.get(REPLICAS.name).cloned().unwrap_or_default()
}

fn all(holds: bool) -> Outcome {
    match holds {
        true => Outcome::Holds,
        false => Outcome::Fails,
    }
}

const LACKING: &str = "no row with one put in flight and no loss: add in_flight=1 and loss_percent=0";

fn messages_exact(table: &Table) -> Judgement {
    let (mut figures, mut holds) = (Vec::new(), true);
    for row in lossless(table, "1") {
        let (messages, commits) = (metric(row, "messages"), metric(row, "commits"));
        let bound = metric(row, "analytic_piggybacked_per_commit");
        holds &= commits > 0.0 && messages == commits * bound;
        figures.push(measured(
            format!("messages per commit among {}", replicas(row)),
            Some(messages / commits),
            "count",
            format!("= {bound}"),
            commits as u64,
        ));
    }
    match figures.is_empty() {
        true => Judgement::not_measured(LACKING),
        false => Judgement::new(all(holds), figures),
    }
}

fn round_trips_exact(table: &Table) -> Judgement {
    let exactly_ns = |count: u64| (count * (DELAY.as_ps() + TURN.as_ps())) as f64 / 1e3;
    let (client_ns, leader_ns) = (exactly_ns(4), exactly_ns(2));
    let (mut figures, mut holds) = (Vec::new(), true);
    for row in lossless(table, "1") {
        let is = |name: &str, wanted: f64| metric(row, name) == wanted;
        holds &= is("latency_min", client_ns) && is("latency_max", client_ns);
        holds &= is("leader_commit_min", leader_ns) && is("leader_commit_max", leader_ns);
        let samples_count = metric(row, "commits") as u64;
        let count = replicas(row);
        for (who, name, limit) in [
            ("client", "client_delays_max", "= 4, and four turns of 1 ns"),
            ("leader", "leader_delays_max", "= 2, and two turns of 1 ns"),
        ] {
            figures.push(measured(
                format!("one-way delays until the {who} knows, among {count}"),
                Some(metric(row, name)),
                "count",
                limit,
                samples_count,
            ));
        }
    }
    match figures.is_empty() {
        true => Judgement::not_measured(LACKING),
        false => Judgement::new(all(holds), figures),
    }
}

fn batching_shares(table: &Table) -> Judgement {
    let (mut figures, mut holds) = (Vec::new(), true);
    for batched in lossless(table, "16") {
        let Some(alone) =
            lossless(table, "1").find(|row| row.axis.get(REPLICAS.name) == batched.axis.get(REPLICAS.name))
        else {
            continue;
        };
        // A request and its answer are never shared.
        let between = |row: &Row| metric(row, "messages_per_commit") - 2.0;
        let ratio = between(batched) / between(alone);
        holds &= ratio < 0.25;
        figures.push(measured(
            format!(
                "messages between replicas, 16 in flight ÷ one, among {}",
                replicas(batched)
            ),
            Some(ratio),
            "ratio",
            "< 0.25",
            metric(batched, "commits") as u64,
        ));
    }
    match figures.is_empty() {
        true => Judgement::not_measured("it takes rows with 1 and with 16 puts in flight and no loss"),
        false => Judgement::new(all(holds), figures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    #[test]
    fn bounds_of_the_book() {
        let bounds = Bounds::of(5);
        assert_eq!(
            (bounds.textbook, bounds.piggybacked, bounds.all_to_all),
            (14.0, 10.0, 22.0)
        );
    }

    /// One message too many in a million, and a put that took a turn more, are seen.
    #[test]
    fn exact_claims_can_fail() {
        let judge = |messages: f64, slowest_ns: f64| {
            let row = row_of(
                &[("replicas", "3"), ("in_flight", "1"), ("loss_percent", "0")],
                &[
                    ("messages", messages),
                    ("commits", 1e6),
                    ("analytic_piggybacked_per_commit", 6.0),
                    ("latency_min", 100_004.0),
                    ("latency_max", slowest_ns),
                    ("leader_commit_min", 50_002.0),
                    ("leader_commit_max", 50_002.0),
                ],
            );
            let table = Table {
                rows: vec![row],
                seed: 1,
            };
            (messages_exact(&table).outcome, round_trips_exact(&table).outcome)
        };
        assert_eq!(judge(6e6, 100_004.0), (Outcome::Holds, Outcome::Holds));
        assert_eq!(judge(6e6 + 1.0, 100_005.0), (Outcome::Fails, Outcome::Fails));
        assert!(matches!(
            messages_exact(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }
}
