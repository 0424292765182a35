//! Five races that a drawn history hardly ever comes to, step by step: who takes a turn when, and what happens to a connection in
//! between.

use dataplane_kv::{Store, StoreOptions};
use dataplane_quorum::onesided::{
    Config, Layout, Limits, Mutation, Planes, Replica, RoleName, Start, Timing,
    check::{Observer, Violation},
    layout::{self, COMMIT_END_AT, MIN_PROPOSAL_AT, SNAPSHOT_AT, WORD_BYTES},
};
use dataplane_sim::{Fabric, FabricOptions, HostId, LinkFaults, SimTime, SimWindow};
use dataplane_waist::{Effects, Instant, Peer, Window};
use dataplane_wire::{
    frame::{self, Header, Kind},
    quorum::request::{self, Command, Request},
};

use super::super::plan::VALUE_BYTES_MAX;

const LAYOUT: Layout = Layout {
    slots_count: 16,
    entry_bytes_max: 128,
    snapshot_bytes_max: 1 << 15,
};
/// Shorter than any way through the fabric: nothing comes between two turns that ought to be seen.
const STEP: SimTime = SimTime::from_ns(200);
/// So many steps are far more than anything here takes.
const STEPS_MAX: u32 = 50_000;

struct Member {
    replica: Replica<Store>,
    background: SimWindow,
    replication: SimWindow,
}

struct Cluster {
    nodes_count: u32,
    mutation: Option<Mutation>,
    fabrics: [Fabric; 2],
    members: Vec<Member>,
    observer: Observer,
    now: SimTime,
    out: Effects,
}

impl Cluster {
    fn new(nodes_count: u32, mutation: Option<Mutation>) -> Cluster {
        let options = FabricOptions {
            window_bytes: LAYOUT.replication_bytes().max(LAYOUT.background_bytes()),
            timeout: SimTime::from_us(50),
            repair: SimTime::from_us(20),
            ..FabricOptions::default()
        };
        let mut cluster = Cluster {
            nodes_count,
            mutation,
            fabrics: [1, 2].map(|seed| Fabric::new(options, nodes_count, seed)),
            members: Vec::new(),
            observer: Observer::default(),
            now: SimTime::ZERO,
            out: Effects::with_capacity(64, 1 << 14),
        };
        cluster.members = (0..nodes_count).map(|node| cluster.member(node, 0)).collect();
        cluster
    }

    fn member(&self, node: u32, life: u32) -> Member {
        let store = Store::new(StoreOptions {
            bytes_max: 1 << 14,
            value_bytes_max: VALUE_BYTES_MAX,
            range_bytes_max: 512,
        });
        let others = (0..self.nodes_count).filter(|&other| other != node);
        let config = Config {
            cluster: 1,
            node,
            peers: others.map(|other| (other, Peer(other))).collect(),
            life,
            start: match life {
                0 => Start::First,
                _ => Start::Again,
            },
            layout: LAYOUT,
            timing: Timing::LOCAL,
            limits: Limits {
                in_flight_slots: 4,
                queued_max: 4,
                sessions_max: 4,
                session_replies: 4,
                request_bytes_max: LAYOUT.slot_bytes(),
            },
            mutation: self.mutation,
        };
        Member {
            replica: Replica::new(config, store.expect("sound options")).expect("a sound configuration"),
            background: self.fabrics[0].window(HostId(node)),
            replication: self.fabrics[1].window(HostId(node)),
        }
    }

    fn pass(&mut self, time: SimTime) {
        self.now += time;
        for fabric in &self.fabrics {
            fabric.run_until(self.now);
        }
    }

    fn turn(&mut self, node: u32) -> Result<(), Violation> {
        let Member {
            replica,
            background,
            replication,
        } = &mut self.members[node as usize];
        let mut planes = Planes {
            background,
            replication,
        };
        replica.turn(Instant::from_ns(self.now.as_ns()), &mut planes, &mut self.out);
        self.out.clear();
        self.observer.observe(replica)
    }

    /// Lets `nodes` take turns, and nobody else, until something is so.
    fn run(&mut self, nodes: &[u32], until: impl Fn(&Cluster) -> bool) -> Result<(), Violation> {
        for _ in 0..STEPS_MAX {
            self.pass(STEP);
            if until(self) {
                return Ok(());
            }
            for &node in nodes {
                self.turn(node)?;
            }
        }
        let all: Vec<String> = self.members.iter().map(|it| it.replica.describe()).collect();
        panic!("it never came to that:\n{}", all.join("\n"));
    }

    /// Both directions, both planes.
    fn cut(&self, a: u32, b: u32, is_cut: bool) {
        for fabric in &self.fabrics {
            fabric.cut(HostId(a), HostId(b), is_cut);
            fabric.cut(HostId(b), HostId(a), is_cut);
        }
    }

    fn ask(&mut self, node: u32) {
        let request = Request {
            client: 0,
            sequence: 1,
            command: Command::Open,
        };
        let header = Header {
            kind: Kind::QuorumRequest,
            term: 0,
            slot: 1,
            sent_ns: 0,
        };
        let mut bytes = vec![0; frame::HEADER_BYTES + request.len_bytes()];
        request::emit(&request, &mut bytes[frame::HEADER_BYTES..]);
        frame::emit(&header, &mut bytes);
        let replica = &mut self.members[node as usize].replica;
        replica.on_frame(Peer(self.nodes_count), &bytes, &mut self.out);
    }

    fn replica(&self, node: u32) -> &Replica<Store> {
        &self.members[node as usize].replica
    }

    fn word(&self, node: u32, at: u64) -> u64 {
        let mut word = [0; WORD_BYTES];
        self.members[node as usize].replication.load(at, &mut word);
        layout::parse_word(&word)
    }

    /// Whose entry stands in a slot of a node's memory.
    fn proposal_in(&self, node: u32, slot: u64) -> Option<u64> {
        let mut bytes = vec![0; LAYOUT.slot_bytes()];
        let member = &self.members[node as usize];
        member.replication.load(LAYOUT.slot_at(slot), &mut bytes);
        layout::parse_slot(slot, &bytes, true).map(|entry| entry.proposal)
    }

    fn applied(&self, nodes: &[u32], end: u64) -> bool {
        nodes.iter().all(|&node| self.replica(node).applied_end() >= end)
    }
}

/// Node 1 has node 2's promise and stands still; node 2, which alone has with node 0 what is committed, loses its memory and has not
/// started again when node 1 reads its log.
fn reads_the_log_of_who_has_died(mutation: Option<Mutation>) -> Result<Cluster, Violation> {
    let mut cluster = Cluster::new(3, mutation);
    cluster.run(&[0, 2], |it| it.applied(&[0], 1))?;
    let before = cluster.word(2, MIN_PROPOSAL_AT);
    cluster.run(&[1, 2], |it| it.word(2, MIN_PROPOSAL_AT) > before)?;
    assert_eq!(cluster.replica(1).role(), RoleName::Candidate);
    // The write is acknowledged.
    cluster.pass(SimTime::from_us(5));
    for fabric in &cluster.fabrics {
        fabric.crash(HostId(2));
        fabric.restart(HostId(2));
    }
    // The connections are there again.
    cluster.pass(SimTime::from_us(50));
    for _ in 0..100 {
        cluster.turn(1)?;
        cluster.pass(STEP);
    }
    Ok(cluster)
}

#[test]
fn a_log_counts_only_with_the_promise_that_is_read_behind_it() {
    let found = reads_the_log_of_who_has_died(Some(Mutation::RecheckSkipped)).err();
    assert!(
        matches!(
            found,
            Some(Violation::Incomplete {
                node: 1,
                slot: 0,
                applied_by: 0,
                ..
            })
        ),
        "{found:?}"
    );
    let mut cluster = reads_the_log_of_who_has_died(None).expect("it holds");
    assert_eq!(cluster.replica(1).leads(), None);
    assert_eq!(cluster.replica(1).counters().recheck_failed_count, 1);
    cluster.members[2] = cluster.member(2, 1);
    let is_well = |it: &Cluster| it.applied(&[0, 1, 2], 2) && it.replica(2).is_full();
    cluster.run(&[0, 1, 2], is_well).expect("it goes on");
}

/// Node 4 has an entry that nobody else has, from a leader that is cut off with it; the next leader's entry for that slot, which is
/// committed, is lost with a connection, and another one stands. That leader, node 1, has not heard of it.
fn loses_an_entry(mutation: Option<Mutation>) -> Result<Cluster, Violation> {
    let mut cluster = Cluster::new(5, mutation);
    cluster.run(&[0, 1, 2, 3, 4], |it| it.applied(&[0, 1, 2, 3, 4], 1))?;
    for other in 1..4 {
        cluster.cut(0, other, true);
        cluster.cut(4, other, true);
    }
    cluster.ask(0);
    cluster.run(&[0, 4], |it| it.proposal_in(4, 1).is_some())?;
    let stale = cluster.proposal_in(4, 1);
    cluster.cut(0, 4, true);
    cluster.run(&[1, 2, 3], |it| it.applied(&[1], 2))?;
    for other in 1..4 {
        cluster.cut(4, other, false);
    }
    let written_count = cluster.replica(1).counters().written_count;
    cluster.run(&[1, 2, 3, 4], |it| {
        it.replica(1).counters().written_count > written_count
    })?;
    assert_eq!(cluster.proposal_in(4, 1), stale, "it is on its way");
    cluster.fabrics[1].reconnect(HostId(1), HostId(4));
    Ok(cluster)
}

/// The entry behind it, which says that it is committed, comes over the next connection.
fn loses_an_entry_and_not_the_next(mutation: Option<Mutation>) -> Result<Cluster, Violation> {
    let mut cluster = loses_an_entry(mutation)?;
    let stale = cluster.proposal_in(4, 1);
    cluster.ask(1);
    cluster.turn(1)?;
    cluster.run(&[1, 2, 3, 4], |it| it.proposal_in(4, 2).is_some())?;
    assert_eq!(
        cluster.proposal_in(4, 1),
        stale,
        "it was lost, and the next one was not"
    );
    cluster.turn(4)?;
    Ok(cluster)
}

#[test]
fn an_entry_counts_only_behind_the_one_that_it_names() {
    let found = loses_an_entry_and_not_the_next(Some(Mutation::ChainUnchecked)).err();
    assert!(
        matches!(found, Some(Violation::Applied { slot: 1, node: 4, .. })),
        "{found:?}"
    );
    let mut cluster = loses_an_entry_and_not_the_next(None).expect("it holds");
    let all = [0, 1, 2, 3, 4];
    for other in 1..5 {
        cluster.cut(0, other, false);
    }
    cluster.run(&all, |it| it.applied(&all, 3)).expect("it goes on");
}

/// What comes over the next connection is how far the log is committed: it is time for node 1 to say so, and it is slow to hear.
fn loses_an_entry_and_is_told(mutation: Option<Mutation>) -> Result<Cluster, Violation> {
    let mut cluster = loses_an_entry(mutation)?;
    let stale = cluster.proposal_in(4, 1);
    cluster.now += SimTime::from_us(Timing::LOCAL.heartbeat.as_micros() as u64);
    cluster.turn(1)?;
    for _ in 0..100 {
        cluster.pass(STEP);
        cluster.turn(4)?;
    }
    assert_eq!(cluster.proposal_in(4, 1), stale, "it was lost");
    Ok(cluster)
}

#[test]
fn committed_is_said_of_what_is_acknowledged() {
    let found = loses_an_entry_and_is_told(Some(Mutation::CommitAhead)).err();
    assert!(
        matches!(found, Some(Violation::Applied { slot: 1, node: 4, .. })),
        "{found:?}"
    );
    let mut cluster = loses_an_entry_and_is_told(None).expect("it holds");
    assert!(cluster.word(4, COMMIT_END_AT) == 1, "node 1 has said what it knows");
    let all = [0, 1, 2, 3, 4];
    for other in 1..5 {
        cluster.cut(0, other, false);
    }
    cluster.run(&all, |it| it.applied(&all, 2)).expect("it goes on");
}

/// Node 1 needs a snapshot before it can lead. The one that it is offered is written over before it has fetched it, as if it had been
/// published anew and the new offer had been lost.
fn is_offered_what_is_gone(mutation: Option<Mutation>) -> Cluster {
    let mut cluster = Cluster::new(3, mutation);
    for end in 1..LAYOUT.slots_count + 4 {
        cluster.run(&[0, 2], |it| it.applied(&[0, 2], end)).expect("it holds");
        cluster.ask(0);
    }
    let is_offered = |it: &Cluster| it.replica(2).counters().offers_count > 0;
    cluster.run(&[1, 2], is_offered).expect("it holds");
    cluster.members[2].background.store(SNAPSHOT_AT, &[0xFF; WORD_BYTES]);
    cluster
}

#[test]
fn an_offer_that_does_not_hold_keeps_nobody_from_asking() {
    let mut cluster = is_offered_what_is_gone(Some(Mutation::OfferBelieved));
    for _ in 0..STEPS_MAX / 5 {
        cluster.pass(STEP);
        for node in [1, 2] {
            cluster.turn(node).expect("it is safe, and stuck");
        }
    }
    assert_eq!(cluster.replica(1).counters().snapshots_fetched_count, 0);
    assert!(cluster.replica(1).counters().spoilt_offers_count > 10);
    let mut cluster = is_offered_what_is_gone(None);
    let leads = |it: &Cluster| it.replica(1).leads().is_some();
    cluster.run(&[1, 2], leads).expect("it goes on");
    assert!(cluster.replica(1).counters().spoilt_offers_count > 0);
}

/// Node 0's entry for node 2 is late, and node 0 cut off from node 1; node 1 leads, and commits another entry in that slot with node 2.
/// Then node 0 hears that it leads no more, and asks node 2, which is the only one left, for permission before its entry has come.
fn is_let_in_with_an_old_entry(mutation: Option<Mutation>) -> Result<Cluster, Violation> {
    let mut cluster = Cluster::new(3, mutation);
    let all = [0, 1, 2];
    cluster.run(&all, |it| it.applied(&all, 1))?;
    cluster.cut(0, 1, true);
    let slow = LinkFaults {
        slow: SimTime::from_us(2_000),
        ..LinkFaults::default()
    };
    cluster.fabrics[1].set_faults(HostId(0), HostId(2), slow);
    let written_count = cluster.replica(0).counters().written_count;
    cluster.ask(0);
    cluster.run(&[0], |it| it.replica(0).counters().written_count > written_count)?;
    cluster.fabrics[1].set_faults(HostId(0), HostId(2), LinkFaults::default());
    cluster.run(&[1, 2], |it| it.applied(&[1], 2))?;
    assert_ne!(cluster.proposal_in(0, 1), cluster.proposal_in(2, 1), "it is on its way");
    cluster.cut(0, 1, false);
    cluster.run(&all, |it| it.replica(0).role() == RoleName::Follower)?;
    cluster.cut(0, 1, true);
    cluster.cut(1, 2, true);
    cluster.run(&[0, 2], |it| it.replica(0).leads().is_some())?;
    Ok(cluster)
}

#[test]
fn permission_is_asked_for_when_nothing_old_is_under_way() {
    let found = is_let_in_with_an_old_entry(Some(Mutation::AskedEarly)).err();
    assert!(
        matches!(
            found,
            Some(Violation::Incomplete {
                node: 0,
                slot: 1,
                applied_by: 1,
                ..
            })
        ),
        "{found:?}"
    );
    let mut cluster = is_let_in_with_an_old_entry(None).expect("it holds");
    cluster.cut(0, 1, false);
    cluster.cut(1, 2, false);
    let all = [0, 1, 2];
    cluster.run(&all, |it| it.applied(&all, 3)).expect("it goes on");
}
