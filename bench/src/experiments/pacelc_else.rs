//! `pacelc-else`: what a read costs when nothing is partitioned, by what it promises: through the log, by read index, under a
//! lease, or as some replica has it.

mod sockets;

use std::{collections::BTreeMap, time::Duration};

use dataplane_quorum::{ReadMode, majorities};
use dataplane_sim::{Latency, LinkOptions, SimTime};

use self::sockets::Cell;
use crate::{
    caller::{Caller, Done, Kind, Load},
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::{
        judge::{self, Bound, measured},
        virtual_time::{BACKEND as SIM, SILENT, Setup, Simulated, TURN},
    },
    record::{Better, Outcome, Row},
    sim_cluster::SimCluster,
    table::{self, Table, latency_ns},
};

/// See the module.
#[derive(Debug)]
pub struct PacelcElse;

const READ: Axis = Axis {
    name: "read",
    meaning: "log: an entry in the log that reads; index: the leader asks a quorum whether it still leads; lease: the leader \
              relies on its followers' promise; stale-leader, stale-follower: what that replica has applied",
    full: &["log", "index", "lease", "stale-leader", "stale-follower"],
    tour: &["log", "index", "lease", "stale-leader", "stale-follower"],
    smallest: "index",
    allowed: Allowed::Words,
};

const PLACE: Axis = Axis {
    name: "place",
    meaning: "lan, wan: everybody 25 µs or 25 ms one way from everybody else, in virtual time; wan-at-leader, wan-at-follower: \
              replicas 25 ms apart, the client 25 µs from that one; loopback: real processes and sockets on this machine",
    full: &[LAN, WAN, WAN_AT_LEADER, WAN_AT_FOLLOWER, LOOPBACK],
    // Clusters that are started anew for each of five reads in six rounds are too long for a tour.
    tour: &[LAN, WAN_AT_FOLLOWER],
    smallest: LAN,
    allowed: Allowed::Words,
};

const LOG: Axis = Axis {
    name: "log",
    meaning: "where replicas keep their log: memory; disk: a sync takes 100 µs in virtual time, and what it takes on loopback",
    full: &[MEMORY, DISK],
    tour: &[MEMORY],
    smallest: DISK,
    allowed: Allowed::Words,
};

const LAN: &str = "lan";
const WAN: &str = "wan";
const WAN_AT_LEADER: &str = "wan-at-leader";
const WAN_AT_FOLLOWER: &str = "wan-at-follower";
const LOOPBACK: &str = "loopback";
const MEMORY: &str = "memory";
const DISK: &str = "disk";

const REPLICAS: u32 = 3;
/// Bytes of each value, as in `quorum-ladder`.
const VALUE_BYTES: usize = 36;
/// One way in a rack, and across a continent.
const NEAR: SimTime = SimTime::from_us(25);
const FAR: SimTime = SimTime::from_ms(25);
const SYNC: SimTime = SimTime::from_us(100);
/// A read takes a handful of turns, of a nanosecond each.
const TURNS_MAX: u64 = 8;

/// The follower that is asked, and that a client may be near to.
fn follower_of(leader: u32) -> u32 {
    (leader + 1) % REPLICAS
}

/// How a read is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Log,
    Index,
    Lease,
    StaleLeader,
    StaleFollower,
}

impl How {
    const ALL: [How; 5] = [How::Log, How::Index, How::Lease, How::StaleLeader, How::StaleFollower];

    fn name(self) -> &'static str {
        READ.full[How::ALL.iter().position(|how| *how == self).expect("one of all")]
    }

    fn of(name: &str) -> Option<How> {
        How::ALL.into_iter().find(|how| how.name() == name)
    }

    fn is_linearizable(self) -> bool {
        matches!(self, How::Log | How::Index | How::Lease)
    }

    /// What the answer means.
    fn promise(self) -> &'static str {
        match self {
            How::Log => "linearizable, whatever the clocks do: the read has a place in the log",
            How::Index => "linearizable, whatever the clocks do: a quorum was asked after the read came",
            How::Lease => "linearizable while no clock runs more than 1 % faster than another",
            How::StaleLeader => "what the leader has applied; another may lead already, so it may be of any age",
            How::StaleFollower => "what a follower has applied: committed, in order, of any age",
        }
    }
}

fn kind(read: How, leader: u32, follower: u32) -> Kind {
    match read {
        How::Log => Kind::LogRead,
        How::Index | How::Lease => Kind::Read,
        How::StaleLeader => Kind::StaleRead(leader),
        How::StaleFollower => Kind::StaleRead(follower),
    }
}

/// What one row measures.
#[derive(Clone, Debug)]
struct Arm {
    read: How,
    place: String,
    log: String,
}

fn axis(arm: &Arm) -> BTreeMap<String, String> {
    BTreeMap::from([
        (READ.name.to_owned(), arm.read.name().to_owned()),
        (PLACE.name.to_owned(), arm.place.clone()),
        (LOG.name.to_owned(), arm.log.clone()),
    ])
}

impl Experiment for PacelcElse {
    fn id(&self) -> &'static str {
        "pacelc-else"
    }

    fn title(&self) -> &'static str {
        "Else: latency or consistency"
    }

    fn question(&self) -> &'static str {
        "With no partition, what does a read cost by what it promises?"
    }

    fn how(&self) -> &'static str {
        "A client reads one key of three replicas, one read at a time. In virtual time links take 25 µs or 25 ms one way and a \
         sync 100 µs, so that each kind's round trips and syncs can be counted; then a second client writes without a pause, \
         and each read's answer is held against what had been acknowledged when it was asked. Over loopback the replicas are \
         `dplab serve` in processes of their own, all on one CPU with the client."
    }

    fn axes(&self) -> &'static [Axis] {
        &[READ, PLACE, LOG]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![sockets::BACKEND]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.4
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its replicas are processes of this machine; `dplab serve` runs them on several")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let mut arms = Vec::new();
        for place in lab.values(&PLACE) {
            for log in lab.values(&LOG) {
                for read in lab.values(&READ).iter().filter_map(|name| How::of(name)) {
                    let (place, log) = (place.clone(), log.clone());
                    arms.push(Arm { read, place, log });
                }
            }
        }
        let (real, simulated): (Vec<Arm>, Vec<Arm>) = arms.into_iter().partition(|arm| arm.place == LOOPBACK);
        lab.progress.set_length(simulated.len() as u64);
        for arm in &simulated {
            if lab.interrupted() {
                return Ok(());
            }
            lab.progress
                .set_message(format!("{} reads, {}, log {}", arm.read.name(), arm.place, arm.log));
            let row = simulate(lab, arm)?;
            lab.record(row)?;
            lab.progress.inc(1);
        }
        if lab.backends(self).is_empty() {
            return Ok(());
        }
        measure(lab, &real)
    }
}

/// All arms over sockets, in rounds.
fn measure(lab: &mut Lab<'_>, arms: &[Arm]) -> anyhow::Result<()> {
    // A cluster is started and elects its leader before anything is measured, which the plan does not know of.
    let plan = lab.plan(arms.len(), Duration::from_millis(600));
    let trial = plan
        .trial
        .saturating_sub(Duration::from_millis(400))
        .max(Duration::from_millis(100));
    lab.in_rounds(arms, plan.rounds_count, |lab, turn| {
        let arm = turn.arm;
        lab.progress.set_message(format!(
            "{} reads, loopback, log {}, round {}",
            arm.read.name(),
            arm.log,
            turn.round + 1
        ));
        lab.record_until_valid(|lab| {
            let cell = Cell::start(lab, &arm.log, arm.read == How::Lease)?;
            sockets::measure(lab, &cell, arm, turn.round, trial)
        })
    })
}

/// One-way delays and syncs of a read.
#[derive(Clone, Copy, Debug)]
struct Ways {
    client_leader: SimTime,
    client_follower: SimTime,
    replicas: SimTime,
}

impl Ways {
    fn of(place: &str) -> Ways {
        let (client_leader, client_follower, replicas) = match place {
            LAN => (NEAR, NEAR, NEAR),
            WAN_AT_LEADER => (NEAR, FAR, FAR),
            WAN_AT_FOLLOWER => (FAR, NEAR, FAR),
            _ => (FAR, FAR, FAR),
        };
        Ways {
            client_leader,
            client_follower,
            replicas,
        }
    }

    /// What a read takes, without turns.
    fn read(self, read: How, sync: SimTime) -> SimTime {
        let (client, quorum) = (self.client_leader + self.client_leader, self.replicas + self.replicas);
        match read {
            How::Log => client + quorum + sync,
            How::Index => client + quorum,
            How::Lease | How::StaleLeader => client,
            How::StaleFollower => self.client_follower + self.client_follower,
        }
    }
}

fn simulate(lab: &Lab<'_>, arm: &Arm) -> anyhow::Result<Row> {
    let ways = Ways::of(&arm.place);
    let sync = if arm.log == DISK { SYNC } else { SimTime::ZERO };
    let link = |way| LinkOptions {
        latency: Latency::fixed(way),
        ..LinkOptions::default()
    };
    let setup = Setup {
        seed: lab.choice.seed,
        members: majorities((1 << REPLICAS) - 1),
        link: link(ways.replicas),
        sync: Latency::fixed(sync),
        timing: SILENT,
        reads: if arm.read == How::Lease {
            ReadMode::Lease
        } else {
            ReadMode::Index
        },
        // The reader, and a writer beside the leader.
        callers_count: 2,
        in_flight_max: 1,
    };
    let mut cluster = setup.start()?;
    let leader = cluster.leader().map_or(0, |leader| leader.node());
    let follower = follower_of(leader);
    let (reader, writer) = (setup.caller(0), setup.caller(1));
    let clients_ways = [
        (reader, leader, ways.client_leader),
        (reader, follower, ways.client_follower),
        (writer, leader, NEAR),
    ];
    for (client, node, way) in clients_ways {
        cluster.sim.network_mut().set_link(client.0, node, link(way));
        cluster.sim.network_mut().set_link(node, client.0, link(way));
    }
    // Followers learn of the last commit with the next entry.
    let puts = Load {
        kind: Kind::Put,
        ops_count: 2,
        ..Load::NONE
    };
    setup.call(&mut cluster, 1, puts)?;
    let since = cluster.sim.now();
    let reads = Load {
        kind: kind(arm.read, leader, follower),
        ops_count: match lab.choice.depth {
            Depth::Smallest => 50,
            Depth::Tour | Depth::Full => 500,
        },
        ..Load::NONE
    };
    setup.call(&mut cluster, 0, reads)?;
    let alone: Vec<Done> = cluster.client(reader).done.clone();

    // A golden section of a commit between two reads, or they keep in step with the writes.
    let commit = Duration::from_nanos(ways.read(How::Log, sync).as_ns());
    let spread = Load {
        pause: commit.mul_f64(0.381_966),
        ..reads
    };
    let stale = beside_writes(&setup, &mut cluster, spread)?;
    cluster.compare()?;
    let mut row = Simulated::new(lab, "pacelc-else", axis(arm), setup.seed, &cluster, since);
    row.latencies(alone.iter().map(|done| done.latency().as_nanos() as u64));
    row.fact("guarantee", arm.read.promise());
    row.fact(
        "ways",
        format!(
            "one way: client to leader {} µs, client to follower {} µs, replica to replica {} µs; a sync {} µs",
            ways.client_leader.as_ns() / 1000,
            ways.client_follower.as_ns() / 1000,
            ways.replicas.as_ns() / 1000,
            sync.as_ns() / 1000
        ),
    );
    row.put(
        "analytic_latency",
        ways.read(arm.read, sync).as_ns() as f64,
        "ns",
        Better::Lower,
    );
    row.put(
        "reads_beside_writes",
        stale.reads_count as f64,
        "count",
        Better::Neither,
    );
    row.put("stale_reads", stale.stale_count as f64, "count", Better::Lower);
    row.put("versions_behind_max", stale.versions_max as f64, "count", Better::Lower);
    row.put("time_behind_max", stale.behind.as_nanos() as f64, "ns", Better::Lower);
    Ok(row.into_row())
}

/// How old answers were beside a writer.
#[derive(Clone, Copy, Debug, Default)]
struct Stale {
    reads_count: u64,
    /// Reads that missed what had been acknowledged before they were asked.
    stale_count: u64,
    /// The most versions that one missed.
    versions_max: u64,
    /// The longest for which a newer version had been acknowledged when one was asked.
    behind: Duration,
}

fn beside_writes(setup: &Setup, cluster: &mut SimCluster<Caller>, reads: Load) -> anyhow::Result<Stale> {
    let writes = Load {
        kind: Kind::Put,
        ops_count: u64::MAX,
        ..Load::NONE
    };
    let writer = setup.caller(1);
    cluster.with_client(writer, |caller, now| caller.begin(now, writes));
    setup.call(cluster, 0, reads)?;
    let reads = cluster.client(setup.caller(0)).done.clone();
    cluster.with_client(writer, |caller, _| caller.stop());
    while !cluster.client(writer).is_done() && cluster.step(SimTime::FOREVER)?.is_some() {}
    let writes = &cluster.client(writer).done;
    let mut stale = Stale {
        reads_count: reads.len() as u64,
        ..Stale::default()
    };
    for read in &reads {
        // One writer, one write at a time: versions and their answers are in order.
        let acknowledged = writes.partition_point(|write| write.done_at < read.asked_at);
        let missed = writes[..acknowledged]
            .iter()
            .filter(|write| write.version > read.version);
        let Some(first) = missed.clone().next() else { continue };
        stale.stale_count += 1;
        stale.versions_max = stale.versions_max.max(missed.count() as u64);
        stale.behind = stale.behind.max(read.asked_at.saturating_since(first.done_at));
    }
    Ok(stale)
}

const ABADI: Source = Source::Published {
    work: "Abadi, Consistency tradeoffs in modern distributed database system design, IEEE Computer 45(2), 2012",
    place: "\"PACELC\": else, without a partition, a system trades latency for consistency",
};

const CLAIMS: &[Claim] = &[
    Claim {
        id: "pacelc-else",
        sentence: "A lease or stale read takes one round trip to its replica; a read index adds one from the leader to a quorum, and \
                   a read through the log a sync to that",
        source: ABADI,
        invariant: "Constant links and syncs in virtual time, a turn of a nanosecond; every read of a row takes exactly its round \
                    trips and syncs, and at most eight turns. Decided by that, for every row in virtual time.",
        judge: ways_exact,
    },
    Claim {
        id: "pacelc-stale",
        sentence: "Beside a writer, reads through the log, by index and under a lease never miss what was acknowledged before they were \
                   asked; a follower's do",
        source: ABADI,
        invariant: "Versions are counted up by one writer in virtual time, each answer is held against the newest acknowledged \
                    version. Decided by the number of reads that missed one: none in any row of the three, and some in at least one row \
                    of a follower's.",
        judge: staleness,
    },
    Claim {
        id: "pacelc-lease-beats-index",
        sentence: "Over sockets, a lease read takes at most 0.8 of a read by index",
        source: ABADI,
        invariant: "Three processes and the client on one CPU, loopback, logs in memory, one read at a time. Decided by the paired \
                    ratio of medians.",
        judge: |table| over_sockets(table, (How::Lease, How::Index, MEMORY), Bound::AtMost(0.8)),
    },
    Claim {
        id: "pacelc-index-beats-log",
        sentence: "Over sockets, a read by index takes less than a read through a log on disk",
        source: ABADI,
        invariant: "As pacelc-lease-beats-index, with logs on disk.",
        judge: |table| over_sockets(table, (How::Index, How::Log, DISK), Bound::AtMost(0.95)),
    },
];

fn over_sockets(table: &Table, (a, b, log): (How, How, &str), bound: Bound) -> Judgement {
    let arm = |read: How| [("read", read.name()), ("place", LOOPBACK), ("log", log)];
    let (a_axis, b_axis) = (arm(a), arm(b));
    judge::ratio(
        table,
        &format!("p50 of {} ÷ {} reads, loopback, log {log}", a.name(), b.name()),
        (
            table::Arm::of(sockets::BACKEND, &a_axis),
            table::Arm::of(sockets::BACKEND, &b_axis),
        ),
        |row: &Row| latency_ns(0.5)(row),
        bound,
    )
}

fn simulated(table: &Table) -> impl Iterator<Item = (&Row, How)> {
    let rows = table.valid().filter(|row| row.backend == SIM);
    rows.filter_map(|row| Some((row, How::of(row.axis.get(READ.name)?)?)))
}

fn metric(row: &Row, name: &str) -> f64 {
    row.metrics.get(name).map_or(f64::NAN, |metric| metric.value)
}

fn point(row: &Row) -> String {
    let value = |axis: &Axis| row.axis.get(axis.name).map_or("?", String::as_str);
    format!("{}, {}, log {}", value(&READ), value(&PLACE), value(&LOG))
}

fn decide(holds: bool) -> Outcome {
    match holds {
        true => Outcome::Holds,
        false => Outcome::Fails,
    }
}

const LACKING: &str = "no row in virtual time: add place=lan";

fn ways_exact(table: &Table) -> Judgement {
    let turns_ns = (TURNS_MAX * TURN.as_ps()) as f64 / 1e3;
    let (mut figures, mut holds) = (Vec::new(), true);
    for (row, _) in simulated(table) {
        let (least, analytic) = (metric(row, "latency_min"), metric(row, "analytic_latency"));
        let most = metric(row, "latency_max");
        holds &= least >= analytic && most <= analytic + turns_ns;
        figures.push(measured(
            format!("slowest read, {}", point(row)),
            Some(most),
            "ns",
            format!("{analytic} to {}", analytic + turns_ns),
            row.latency.as_ref().map_or(0, |latency| latency.samples_count),
        ));
    }
    match figures.is_empty() {
        true => Judgement::not_measured(LACKING),
        false => Judgement::new(decide(holds), figures),
    }
}

fn staleness(table: &Table) -> Judgement {
    let (mut figures, mut holds) = (Vec::new(), true);
    let mut followers_stale = None;
    for (row, read) in simulated(table) {
        let stale = metric(row, "stale_reads");
        let limit = match read {
            read if read.is_linearizable() => {
                holds &= stale == 0.0;
                "= 0"
            }
            // One that is far away has caught up before it is asked.
            How::StaleFollower => {
                *followers_stale.get_or_insert(0.0) += stale;
                "> 0 in one row at least"
            }
            // A leader that is alone in leading has applied what it acknowledged.
            _ => "none expected, none promised",
        };
        figures.push(measured(
            format!("reads that missed something acknowledged, {}", point(row)),
            Some(stale),
            "count",
            limit,
            metric(row, "reads_beside_writes") as u64,
        ));
    }
    holds &= followers_stale != Some(0.0);
    match figures.is_empty() {
        true => Judgement::not_measured(LACKING),
        false => Judgement::new(decide(holds), figures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    #[test]
    fn names_are_the_axis_s() {
        for (how, name) in How::ALL.into_iter().zip(READ.full) {
            assert_eq!(How::of(name), Some(how));
        }
        assert_eq!(How::of("leased"), None);
    }

    #[test]
    fn old_answers_and_slow_ones_are_seen() {
        let row = |read, stale, slowest_ns| {
            row_of(
                &[("read", read), ("place", LAN), ("log", MEMORY)],
                &[
                    ("stale_reads", stale),
                    ("latency_min", 50_003.0),
                    ("latency_max", slowest_ns),
                    ("analytic_latency", 50_000.0),
                ],
            )
        };
        let judge = |rows| {
            let table = Table { rows, seed: 1 };
            (staleness(&table).outcome, ways_exact(&table).outcome)
        };
        let follower = || row("stale-follower", 3.0, 50_003.0);
        let good = vec![row("lease", 0.0, 50_003.0), follower()];
        assert_eq!(judge(good), (Outcome::Holds, Outcome::Holds));
        let old = vec![row("lease", 1.0, 50_009.0), follower()];
        assert_eq!(judge(old), (Outcome::Fails, Outcome::Fails));
        let never = vec![row("stale-follower", 0.0, 50_003.0)];
        assert_eq!(judge(never).0, Outcome::Fails);
    }
}
