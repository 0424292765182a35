//! A NIC with a program, as a replica's [`Driver`], and the host of a history that they are on.

use std::{collections::VecDeque, net::SocketAddrV4};

use dataplane_kv::Store;
use dataplane_quorum::{
    Replica,
    driver::{self, Driven, Driver, DriverCounters, Part, Taken},
};
use dataplane_waist::{Effects, Input, Instant, Peer, Protocol, Slot};
use dataplane_wire::frame::{self, Kind};
use ebpf_host::{
    HostError,
    quorum::{Kept, Seen},
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{
    ChainCount, DriverCounts, DriverPlan, Flaw, GROUP, PORT, Program, Ran, SESSIONS_MAX, bpf, host_address, host_of,
    program, wire,
};
use crate::replicas::{
    chaining::Chaining,
    grants::{self, Surroundings},
};

/// A NIC with a program, as the replica's [`Driver`].
#[derive(Debug)]
pub struct Nic {
    program: Box<dyn Program>,
    node: u32,
    replicas_count: u32,
    plan: DriverPlan,
    rng: Pcg64Mcg,
    /// Arrived, and not seen by the program yet.
    rx: VecDeque<(SocketAddrV4, Vec<u8>)>,
    /// Passed up, and not seen by the replica yet.
    up: VecDeque<(Peer, Vec<u8>)>,
    /// Sent by the program.
    tx: Vec<(Peer, Vec<u8>)>,
    kept: Kept,
    is_leader: bool,
    leader: u32,
    /// Behind the last entry of the last grant, once it was taken back.
    revoked_end: u64,
    seen_end: u64,
    chaining: Chaining,
    /// The last grant was one of a chain.
    in_chain: bool,
    /// The term of the last grant.
    term: u64,
    /// Things go wrong: what programs send in a chain may be lost.
    loses: bool,
    /// The process is to end in good order: it takes no grant any more.
    is_retired: bool,
    counts: DriverCounts,
}

impl Nic {
    /// The programs of `node`, without a grant.
    ///
    /// # Errors
    /// As [`program`].
    pub fn new(plan: &DriverPlan, node: u32, replicas_count: u32, seed: u64) -> Result<Nic, HostError> {
        Ok(Nic {
            program: program(plan, node)?,
            node,
            replicas_count,
            plan: plan.clone(),
            rng: Pcg64Mcg::seed_from_u64(seed ^ plan.seed),
            rx: VecDeque::new(),
            up: VecDeque::new(),
            tx: Vec::new(),
            kept: Kept::default(),
            is_leader: false,
            leader: 0,
            revoked_end: 0,
            seen_end: 0,
            chaining: Chaining::default(),
            in_chain: false,
            term: 0,
            loses: true,
            is_retired: false,
            counts: DriverCounts::default(),
        })
    }

    fn surroundings(&self) -> Surroundings {
        let place = |node: usize| {
            let address = host_address(node as u32);
            ((node as u32) < self.replicas_count).then_some((address, bpf::mac_of(&address)))
        };
        Surroundings {
            node: self.node,
            places: std::array::from_fn(place),
            group: (GROUP, bpf::mac_of(&GROUP)),
            waits_for_disk: self.plan.waits_for_disk,
            in_flight_slots: self.plan.in_flight_slots,
            sessions_max: SESSIONS_MAX as usize,
        }
    }

    /// The program meets the oldest frame that waits; says whether there was one.
    fn run_one(&mut self) -> bool {
        let Some((from, bytes)) = self.rx.pop_front() else {
            return false;
        };
        match self.program.run(from, &bytes) {
            Ran::Up(up_from) => {
                self.counts.up_count += 1;
                if from.port() != PORT {
                    self.counts.chain.count(ChainCount::WentUp);
                    let is_other = frame::parse(&bytes).is_ok_and(|frame| frame.header.term != self.term);
                    if is_other {
                        self.counts.chain.count(ChainCount::OtherTerm);
                    }
                }
                match up_from.port() == PORT {
                    true => self.up.push_back((Peer(host_of(&up_from)), bytes)),
                    // A replica's socket knows nobody there.
                    false => self.counts.chain.count(ChainCount::Strange),
                }
            }
            Ran::Dropped => self.counts.dropped_count += 1,
            Ran::Sent { to, bytes, .. } if to == GROUP => {
                self.counts.slots_count += 1;
                let others = (0..self.replicas_count).filter(|&other| other != self.node);
                self.tx.extend(others.map(|other| (Peer(other), bytes.clone())));
            }
            Ran::Sent { from, to, bytes } => self.send(from, to, bytes),
        }
        true
    }

    /// What the program sends to one host.
    fn send(&mut self, from: SocketAddrV4, to: SocketAddrV4, bytes: Vec<u8>) {
        let local = host_address(self.node);
        let (sent, lost) = if from.ip() != local.ip() {
            (ChainCount::HandedOn, ChainCount::LostBetween)
        } else if from != local {
            self.counts.slots_count += 1;
            (ChainCount::Begun, ChainCount::LostAtFirst)
        } else {
            self.counts.answers_count += 1;
            if !speaks_for_others(&bytes) {
                return self.tx.push((Peer(host_of(&to)), bytes));
            }
            (ChainCount::Ended, ChainCount::LostAtEnd)
        };
        self.counts.chain.count(sent);
        let lost_ratio = self.plan.chain.as_ref().map_or(0.0, |chain| chain.lost_ratio);
        if self.loses && self.rng.random_bool(lost_ratio) {
            return self.counts.chain.count(lost);
        }
        let bytes = match from == local {
            true => bytes,
            false => wire::wrap(from, &bytes),
        };
        self.tx.push((Peer(host_of(&to)), bytes));
    }

    /// A frame arrives.
    fn receive(&mut self, sender: Peer, bytes: &[u8]) {
        let sender = host_address(sender.0);
        let came = match self.plan.chain {
            None => Some((sender, bytes)),
            Some(_) => wire::unwrap(sender, bytes),
        };
        if let Some((from, bytes)) = came {
            self.rx.push_back((from, bytes.to_vec()));
        }
    }

    /// Another CPU is at work meanwhile.
    fn race(&mut self) {
        while !self.rx.is_empty() && self.rng.random_bool(self.plan.race_ratio) {
            self.run_one();
            self.counts.raced_count += 1;
        }
    }
}

impl Driver for Nic {
    fn grant(&mut self, grant: &driver::Grant<'_>) -> bool {
        let is_wanted = match grant.part {
            Part::Leader { .. } => self.plan.parts.counts,
            Part::Follower { .. } => self.plan.parts.acknowledges,
        };
        if !is_wanted || self.is_retired {
            return false;
        }
        self.race();
        let mut list = Vec::new();
        let mut given = self.surroundings().told(grant, &mut list);
        self.is_leader = matches!(grant.part, Part::Leader { .. });
        self.leader = given.leader;
        (self.revoked_end, self.seen_end) = (given.next, given.next);
        let chain = match self.plan.chain {
            None => None,
            Some(_) => self.chaining.at_grant(self.is_leader, &mut given),
        };
        if self.plan.chain.is_some() && self.is_leader {
            self.counts.chain.count(match chain {
                Some(_) => ChainCount::Formed,
                None => ChainCount::Flooded,
            });
        }
        (self.in_chain, self.term) = (chain.is_some(), given.term);
        self.program.grant(self.is_leader, &given, chain, &list);
        self.race();
        true
    }

    fn revoke(&mut self) {
        self.race();
        self.revoked_end = self.program.revoke().unwrap_or(self.revoked_end);
        if self.plan.flaw == Some(Flaw::NoDrain) {
            self.revoked_end = self.seen_end;
        }
        self.race();
    }

    fn seen(&mut self) -> driver::Seen {
        // Words that are read one after the other, while somebody writes them.
        self.race();
        let commit_end = self.program.seen().commit_end;
        self.race();
        let Seen { generation, next, .. } = self.program.seen();
        self.race();
        let seen = self.program.seen();
        let was_broken = self.chaining.is_broken();
        self.chaining.look(self.is_leader, &seen);
        if self.chaining.is_broken() && !was_broken {
            self.counts.chain.count(ChainCount::Broken);
        }
        let looks_late = self.plan.flaw == Some(Flaw::NoDrain) && self.rng.random_bool(0.8);
        let end = match generation {
            0 => self.revoked_end,
            _ if looks_late => self.seen_end,
            _ => next,
        };
        self.seen_end = end;
        let leader = (!self.is_leader).then_some(self.leader);
        grants::done(&Seen { commit_end, ..seen }, Slot(end), leader)
    }

    fn entry(&mut self, slot: Slot) -> Option<Taken<'_>> {
        self.race();
        if !self.program.entry(slot.0, &mut self.kept) {
            return None;
        }
        let kept = &self.kept;
        Some(Taken {
            bytes: &kept.bytes,
            crc: kept.crc,
            sent_ns: kept.sent_ns,
            answered: kept.answered,
        })
    }

    fn drained(&mut self, end: Slot) {
        self.race();
        self.program.drained(end.0);
    }

    fn limit(&mut self, end: Slot) {
        self.race();
        self.program.limit(end.0);
    }

    fn wants_new_grant(&self) -> bool {
        self.chaining.is_broken() || self.is_retired
    }

    fn appends(&self) -> bool {
        self.plan.parts.appends
    }

    fn appended(&mut self, end: Slot) {
        self.race();
        self.program.appended(end.0);
        self.race();
    }

    fn takes_single_entries(&self) -> bool {
        self.plan.parts.acknowledges && !self.plan.parts.appends
    }
}

/// Whether it is an acknowledgement of a chain's last follower.
fn speaks_for_others(bytes: &[u8]) -> bool {
    frame::parse(bytes).is_ok_and(|frame| frame.header.kind == Kind::Ack && frame.header.sent_ns != 0)
}

/// A replica with its program, as a host of a history.
pub struct DrivenHost {
    driven: Driven<Store, Nic>,
    /// A program that is to take the place of the one that acts.
    spare: Option<Nic>,
}

impl DrivenHost {
    /// `replica` behind `nic`.
    pub fn new(replica: Replica<Store>, nic: Nic) -> DrivenHost {
        DrivenHost {
            driven: Driven::new(replica, nic),
            spare: None,
        }
    }

    /// The replica, which knows of what the program did as much as it was last told.
    pub fn replica(&self) -> &Replica<Store> {
        self.driven.replica()
    }

    /// What was counted at the hand-over, and at the program.
    pub fn counts(&self) -> (DriverCounters, DriverCounts) {
        (self.driven.counters(), self.driven.driver().counts)
    }

    /// `nic` is to replace the program, in one of the next turns.
    pub fn swap(&mut self, nic: Nic) {
        self.spare = Some(nic);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&mut self) {
        let nic = self.driven.driver_mut();
        (nic.loses, nic.is_retired) = (false, false);
    }

    /// The process is to end in good order, as before a restart that somebody has planned: its program gives the grant back, and
    /// it may go once its log has everything that was acknowledged in its name.
    pub fn retire(&mut self) {
        self.driven.driver_mut().is_retired = true;
    }

    /// Whether a process that was to end may do so.
    pub fn may_end(&self) -> bool {
        let (nic, replica) = (self.driven.driver(), self.driven.replica());
        let end = replica.window().end();
        nic.is_retired && !self.driven.has_grant() && Slot(nic.revoked_end) <= end && end <= replica.durable_end()
    }

    /// Puts the new program in, if there is one; frames that wait do so in the same queues.
    fn swap_if_due(&mut self, now: Instant, out: &mut Effects) {
        let Some(nic) = self.spare.take() else { return };
        let was_in_chain = self.driven.has_grant() && self.driven.driver().in_chain;
        match self.driven.replace(now, nic, out) {
            Err(nic) => self.spare = Some(nic),
            Ok(old) => {
                let nic = self.driven.driver_mut();
                (nic.rx, nic.up, nic.tx) = (old.rx, old.up, old.tx);
                (nic.rng, nic.counts) = (old.rng, old.counts);
                (nic.loses, nic.is_retired) = (old.loses, old.is_retired);
                nic.counts.swaps_count += 1;
                if was_in_chain {
                    nic.counts.chain.count(ChainCount::Swapped);
                }
            }
        }
    }
}

impl Protocol for DrivenHost {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        let nic = self.driven.driver_mut();
        match input {
            Input::Frame { from, bytes } => {
                nic.receive(from, bytes);
                let holds = nic.rng.random_bool(nic.plan.hold_ratio);
                while !holds && nic.run_one() {}
            }
            Input::Tick | Input::Durable(_) => {
                self.driven.handle(now, input, out);
                // What waited through this waits no longer.
                while matches!(input, Input::Tick) && self.driven.driver_mut().run_one() {}
            }
        }
        while let Some((from, bytes)) = self.driven.driver_mut().up.pop_front() {
            self.driven.handle(now, Input::Frame { from, bytes: &bytes }, out);
        }
        self.swap_if_due(now, out);
        for (to, bytes) in self.driven.driver_mut().tx.drain(..) {
            // Lost for want of room is lost.
            let _ = out.send(to, bytes.len(), |frame| frame.copy_from_slice(&bytes));
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self.driven.driver().rx.is_empty() && self.spare.is_none() {
            true => self.driven.wake_at(),
            false => Some(Instant::ZERO),
        }
    }
}
