//! A replica: what it remembers in every role, and who hears which input. The roles are in files of their own.

use dataplane_waist::{Durable, Effects, Input, Instant, Peer, Protocol, Slot, StateMachine, Term};
use dataplane_wire::{
    Reject,
    frame::{self, Frame, Kind},
    quorum::{ack, append, entries, members::Members, report, sender::Sender, snapshot, vote},
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::{
    askers::Askers,
    candidate::Candidate,
    config::{Config, Mutation},
    counters::Counters,
    follower::Follower,
    held::Held,
    leader::Leader,
    nodes::Nodes,
    sessions::Sessions,
    state::State,
    transfer::Kept,
    window::Window,
};

/// One replica of a cluster. `S` is what the log's entries build.
#[derive(Debug)]
pub struct Replica<S> {
    pub(crate) config: Config,
    pub(crate) nodes: Nodes,
    rng: Pcg64Mcg,

    /// Term, vote and promise: what must survive beside the log.
    pub(crate) state: State,
    /// How often the state was written, and how much of that is durable.
    states_written: u64,
    states_durable: u64,
    /// The state could not be written for want of room in a turn; nothing that relies on it may leave.
    state_is_dirty: bool,
    /// A vote given and not yet durable.
    vote_due: Option<u32>,

    pub(crate) window: Window,
    /// Everything before is on our disk, as it stands in the window.
    pub(crate) durable_end: Slot,
    pub(crate) commit_end: Slot,
    pub(crate) applied_end: Slot,
    /// Who votes: from which slot on, in order; the last one counts (Raft thesis §4.1: as soon as it is appended).
    pub(crate) memberships: Vec<(Slot, Members)>,

    pub(crate) sessions: Sessions,
    pub(crate) askers: Askers,
    pub(crate) machine: S,
    pub(crate) snapshot: Option<Kept>,
    pub(crate) held: Held,
    pub(crate) role: Role,
    /// When we last heard from a leader, or began.
    pub(crate) heard: Option<Instant>,
    /// Something waits for the end of the burst.
    pub(crate) is_urgent: bool,
    pub(crate) scratch: Vec<u8>,
    /// Each entry in a frame of its own, also where several could share one: a follower's program takes single entries.
    pub(crate) sends_singly: bool,
    pub(crate) counters: Counters,
    /// Who was named last by a frame from an address that is no node's, and whose address that is.
    misplaced: Option<(u32, Peer)>,
}

/// What a replica is at the moment.
#[derive(Debug)]
pub(crate) enum Role {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

/// The roles' names, for those who look from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// Takes what the leader sends.
    Follower,
    /// Stands for election, or asks whether it should.
    Candidate,
    /// Assigns slots and counts.
    Leader,
}

/// What a replica is made of, fresh or from what survived.
pub(crate) struct Parts<S> {
    pub(crate) config: Config,
    pub(crate) state: State,
    pub(crate) window: Window,
    pub(crate) memberships: Vec<(Slot, Members)>,
    pub(crate) sessions: Sessions,
    pub(crate) machine: S,
    pub(crate) snapshot: Option<Kept>,
}

impl<S: StateMachine> Replica<S> {
    pub(crate) fn from_parts(parts: Parts<S>) -> Replica<S> {
        let Parts { config, window, .. } = parts;
        let applied_end = parts.snapshot.as_ref().map_or(Slot(0), |kept| kept.snapshot.end);
        Replica {
            nodes: Nodes::new(&config.peers),
            rng: Pcg64Mcg::seed_from_u64(config.seed ^ (u64::from(config.node) << 32)),
            state: parts.state,
            states_written: 0,
            states_durable: 0,
            state_is_dirty: false,
            vote_due: None,
            durable_end: window.end(),
            commit_end: applied_end,
            applied_end,
            memberships: parts.memberships,
            sessions: parts.sessions,
            askers: Askers::default(),
            machine: parts.machine,
            snapshot: parts.snapshot,
            held: Held::new(config.limits.held_slots),
            role: Role::Follower(Follower::new(parts.state.term, applied_end)),
            heard: None,
            is_urgent: true,
            scratch: vec![0; config.limits.frame_bytes_max],
            sends_singly: false,
            counters: Counters::default(),
            misplaced: None,
            window,
            config,
        }
    }

    /// Has the kernel give the memory of the log's window now: a first touch costs a fault of half a microsecond, which a commit
    /// would wait for. For who measures or serves; a simulated cluster never fills its window.
    pub fn prefault(&mut self) {
        self.window.prefault();
    }

    /// What this replica is at the moment.
    pub fn role(&self) -> RoleName {
        match self.role {
            Role::Follower(_) => RoleName::Follower,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }

    /// Its number.
    pub fn node(&self) -> u32 {
        self.config.node
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.state.term
    }

    /// Whom it has voted for in its term, once that is durable and was said.
    pub fn vote_given(&self) -> Option<u32> {
        self.state
            .vote
            .filter(|_| self.vote_due.is_none() && self.state_is_durable())
    }

    /// The leader it knows of.
    pub fn leader(&self) -> Option<u32> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.config.node),
        }
    }

    /// Everything before this slot is committed, as far as it knows.
    pub fn commit_end(&self) -> Slot {
        self.commit_end
    }

    /// Everything before this slot is applied.
    pub fn applied_end(&self) -> Slot {
        self.applied_end
    }

    /// Everything before this slot is on its disk.
    pub fn durable_end(&self) -> Slot {
        self.durable_end
    }

    /// The part of its log that is in memory.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Who votes, by its log.
    pub fn members(&self) -> Members {
        self.memberships.last().expect("there is always one").1
    }

    /// What the log's entries built.
    pub fn machine(&self) -> &S {
        &self.machine
    }

    /// What it has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whose frame came last from an address that is no node's ([`Counters::wrong_address_count`]), and where from.
    pub fn misplaced(&self) -> Option<(u32, Peer)> {
        self.misplaced
    }

    /// Whether entries that it once acknowledged cannot be read, and have not come back from a leader yet.
    pub fn is_damaged(&self) -> bool {
        (self.window.last_term(), self.window.end()) < self.state.promise
    }

    /// The promise is new and must be kept before anything else is said.
    pub(crate) fn owe(&mut self) {
        self.state_is_dirty = true;
        self.is_urgent = true;
    }

    pub(crate) fn sender(&self) -> Sender {
        Sender {
            cluster: self.config.cluster,
            node: self.config.node,
        }
    }

    pub(crate) fn makes(&self, mutation: Mutation) -> bool {
        self.config.mutation == Some(mutation)
    }

    /// When to stand for election if nothing is heard.
    pub(crate) fn draw_deadline(&mut self, now: Instant) -> Instant {
        let (min, max) = (self.config.timing.election_min, self.config.timing.election_max);
        let span_ns = (max - min).as_nanos() as u64;
        now + min + std::time::Duration::from_nanos(self.rng.random_range(0..span_ns))
    }

    /// A frame's sender as a member of this cluster; counts who is not.
    pub(crate) fn admit(&mut self, node: u32, sender: Sender) -> bool {
        if sender.cluster != self.config.cluster {
            self.counters.wrong_cluster_count += 1;
            return false;
        }
        if sender.node != node {
            self.counters.wrong_node_count += 1;
            return false;
        }
        true
    }

    /// Writes term, vote and promise. What depends on them waits for [`Replica::state_is_durable`].
    pub(crate) fn persist_state(&mut self, out: &mut Effects) {
        let kept = match self.makes(Mutation::ForgottenVote) {
            true => State {
                vote: None,
                ..self.state
            },
            false => self.state,
        };
        match out.set_state(&kept.encode()) {
            Ok(()) => {
                self.states_written += 1;
                self.state_is_dirty = false;
            }
            Err(_) => {
                self.state_is_dirty = true;
                self.is_urgent = true;
            }
        }
    }

    pub(crate) fn state_is_durable(&self) -> bool {
        !self.state_is_dirty && self.states_durable == self.states_written
    }

    /// Votes for `node`, once that is durable.
    pub(crate) fn vote_for(&mut self, node: u32, out: &mut Effects) {
        self.state.vote = Some(node);
        self.vote_due = Some(node);
        self.persist_state(out);
    }

    /// Goes on as a follower, of nobody yet if `leader` is not known.
    pub(crate) fn become_follower(&mut self, now: Instant, term: Term, leader: Option<u32>, out: &mut Effects) {
        assert!(
            term >= self.state.term,
            "{term:?} after {:?}: terms only grow",
            self.state.term
        );
        if term > self.state.term {
            self.state.term = term;
            self.state.vote = None;
            self.vote_due = None;
            self.persist_state(out);
        }
        if matches!(self.role, Role::Leader(_)) {
            self.counters.stepped_down_count += 1;
        }
        self.held.clear();
        let mut follower = Follower::new(term, self.commit_end);
        follower.leader = leader;
        follower.deadline = Some(self.draw_deadline(now));
        self.role = Role::Follower(follower);
    }

    fn on_frame(&mut self, now: Instant, from: Peer, bytes: &[u8], out: &mut Effects) {
        let frame = match frame::parse(bytes) {
            Ok(frame) => frame,
            Err(reason) => return out.reject(reason),
        };
        if frame.header.kind == Kind::QuorumRequest {
            return self.on_request(now, from, &frame, out);
        }
        let Some(node) = self.nodes.node(from) else {
            return match self.misplaced_node(&frame) {
                Some(node) => {
                    self.counters.wrong_address_count += 1;
                    self.misplaced = Some((node, from));
                }
                None => out.reject(Reject::Stranger),
            };
        };
        if let Err(reason) = self.on_message(now, node, &frame, out) {
            out.reject(reason);
        }
    }

    /// The node of this cluster that a frame from an address of no node names as its sender.
    fn misplaced_node(&self, frame: &Frame<'_>) -> Option<u32> {
        let names_sender = match frame.header.kind {
            Kind::Entries | Kind::Report | Kind::SnapshotChunk | Kind::SnapshotReport => true,
            Kind::VoteRequest | Kind::VoteReply => true,
            // The fast path's messages name nobody, and the others are no replica's.
            Kind::Append | Kind::Ack => false,
            Kind::EchoRequest | Kind::EchoReply | Kind::QuorumRequest | Kind::QuorumReply => false,
        };
        let head = frame.payload.first_chunk().filter(|_| names_sender)?;
        let Sender { cluster, node } = Sender::parse(head);
        let is_ours = node == self.config.node || self.nodes.peer(node).is_some();
        (cluster == self.config.cluster && is_ours).then_some(node)
    }

    fn on_message(&mut self, now: Instant, node: u32, frame: &Frame<'_>, out: &mut Effects) -> Result<(), Reject> {
        match frame.header.kind {
            Kind::Append => self.on_append(now, node, &append::parse(frame)?, out),
            Kind::Ack => self.on_ack(now, node, &ack::parse(frame)?, out),
            Kind::Entries => self.on_entries(now, node, &entries::parse(frame)?, out),
            Kind::Report => self.on_report(now, node, &report::parse(frame)?, out),
            Kind::VoteRequest => self.on_vote_request(now, node, &vote::parse_request(frame)?, out),
            Kind::VoteReply => self.on_vote_reply(now, node, &vote::parse_reply(frame)?, out),
            Kind::SnapshotChunk => self.on_snapshot_chunk(now, node, &snapshot::parse_chunk(frame)?, out),
            Kind::SnapshotReport => self.on_snapshot_report(now, node, &snapshot::parse_report(frame)?, out),
            Kind::EchoRequest | Kind::EchoReply | Kind::QuorumRequest | Kind::QuorumReply => return Err(Reject::Kind),
        }
        Ok(())
    }

    fn on_durable(&mut self, now: Instant, durable: Durable, out: &mut Effects) {
        // A log may know of slots that we have overwritten since; what is written now comes in a later report.
        self.durable_end = durable.end.min(self.window.end());
        self.states_durable = durable.states_count;
        if self.state_is_durable()
            && let Some(node) = self.vote_due.take()
        {
            self.send_vote_reply(node, self.state.term, false, true, out);
        }
        match &self.role {
            Role::Follower(_) => self.follower_durable(out),
            Role::Candidate(_) => self.candidate_durable(now, out),
            Role::Leader(_) => self.leader_durable(now, out),
        }
    }

    fn on_tick(&mut self, now: Instant, out: &mut Effects) {
        self.is_urgent = false;
        if self.state_is_dirty {
            self.persist_state(out);
        }
        match &self.role {
            Role::Follower(_) => self.follower_tick(now, out),
            Role::Candidate(_) => self.candidate_tick(now, out),
            Role::Leader(_) => self.leader_tick(now, out),
        }
    }
}

impl<S: StateMachine> Protocol for Replica<S> {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        if self.heard.is_none() {
            // Who was away may have promised a leader something just before: it waits as if it had just heard from it.
            self.heard = Some(now);
            let deadline = self.draw_deadline(now);
            if let Role::Follower(follower) = &mut self.role {
                follower.deadline = Some(deadline);
            }
            // What damage was found is kept before anything is written over it.
            if self.state_is_dirty {
                self.persist_state(out);
            }
        }
        match input {
            Input::Frame { from, bytes } => self.on_frame(now, from, bytes, out),
            Input::Durable(durable) => self.on_durable(now, durable, out),
            Input::Tick => self.on_tick(now, out),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        if self.is_urgent {
            return Some(Instant::ZERO);
        }
        match &self.role {
            Role::Follower(follower) => follower.deadline,
            Role::Candidate(candidate) => Some(candidate.deadline),
            Role::Leader(leader) => Some(leader.wake_at),
        }
    }
}
