//! A program between the network and the replica that does the fast path in its place: in the kernel's driver hook, in a
//! card, in a pipeline. Here is who may do what when.
//!
//! # The hand-over
//!
//! A program appends, acknowledges and counts only under a *grant*: a term, a next slot, and who votes. The replica gives it
//! when all of the fast path's conditions hold, and takes it back **before** it takes in anything that could make one of them
//! untrue. What the program has appended meanwhile is in the replica's own log before the replica decides anything, so there is
//! no moment at which the two disagree on who may acknowledge, or on what was acknowledged:
//!
//! 1. [`Driver::revoke`] is atomic: an entry is either appended before it, and then below the end that it says, or never.
//! 2. After it, and before any other input is looked at, everything below that end is taken over (`Driven::is_whole`). If
//!    there is no room for all of it, nothing else is heard until there is: to a peer this is a slow replica.
//! 3. So a vote, a step into a new term, a truncation, a snapshot or a change of members sees a log that contains all that was
//!    ever acknowledged in this replica's name; and a program's acknowledgement is one of the grant's term, which was the
//!    replica's, durably, the whole time.
//! 4. What the replica hears under a grant, and leaves the program alone with, moves neither term nor log nor members:
//!    acknowledgements and reports of this term, heartbeats without entries, entries that the log has already, and requests that
//!    append nothing.
//! 5. A program appends no more, and nothing longer, than the replica's log has room for ([`Grant::append_end`]), so that 2 does
//!    not wait for ever: a log full of what is not committed yet makes no room by itself.
//! 6. A program answers only requests that will be applied, and done: of sessions that no entry of the log is about to put out, and
//!    as many as the state machine has room for whatever they are ([`dataplane_waist::StateMachine::sure_puts`]). It gives slots only to
//!    sessions whose client this replica has heard from, so that whom the program does not answer the replica can.
//! 7. A leader's program that counts alone ([`Driver::appends`]) is told how far the log goes before what was appended leaves the
//!    replica, so that no acknowledgement can be ahead of it. Only the replica's own word makes the log longer then, and what it
//!    appends under a grant is never a change of members.
//! 8. What a follower's program holds because it came too early stands behind its next slot, and counts for nothing: it is not
//!    below [`Seen::end`], nobody is told of it, and it is forgotten with the grant. An entry that is held is never altered.
//! 9. What a program sends again is what its own ring holds, below its next slot and of the grant's term, whatever the frame says
//!    that asked for it; what the replica appended itself the replica sends. So one slot of a term is one entry, however often
//!    it is sent.
//!
//! Reads stay linearizable: before a read is looked at, the program's commit end is taken over, and what was answered before the
//! read was sent is below it. A follower's promise to a leader (its lease) counts from when the program last heard from it.

mod contract;
mod taken_over;

use std::time::Duration;

use dataplane_waist::{Effects, Input, Instant, Protocol, Slot, StateMachine, Term};
use dataplane_wire::{
    frame::{self, Frame, Kind},
    quorum::{
        entries::{self, Entries},
        entry, request,
    },
};

pub use self::contract::{Driver, Grant, Part, Seen, Taken};
use crate::{
    config::NODES_MAX,
    replica::{Replica, Role},
};

/// How often a replica looks what its program has done, and whether it may give a grant: nothing comes up that would wake it.
/// At a million entries per second a thousand wait in the program's ring meanwhile.
pub const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a replica with a program counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverCounters {
    /// Grants given.
    pub grants_count: u64,
    /// Grants taken back.
    pub revokes_count: u64,
    /// Entries that the program appended.
    pub entries_count: u64,
    /// Entries among them that it also answered.
    pub answered_count: u64,
    /// Frames dropped because what the program appended was not taken over yet.
    pub waited_count: u64,
}

/// A replica and the program that does the fast path for it.
#[derive(Debug)]
pub struct Driven<S, D> {
    replica: Replica<S>,
    driver: D,
    has_grant: bool,
    /// Behind the last entry that the program has appended, as far as is known.
    end: Slot,
    heard: [u64; NODES_MAX],
    sessions: Vec<(u64, u64)>,
    /// The last tick.
    ticked_at: Instant,
    /// Something was heard since the last tick, and there is no grant: this turn's end may be the time for one.
    wants_tick: bool,
    /// The program would not take the last grant: it is asked again, without anything being heard.
    is_refused: bool,
    counters: DriverCounters,
}

impl<S: StateMachine, D: Driver> Driven<S, D> {
    /// A replica with a program that has no grant yet.
    pub fn new(mut replica: Replica<S>, driver: D) -> Driven<S, D> {
        replica.sends_singly = driver.takes_single_entries();
        Driven {
            replica,
            driver,
            has_grant: false,
            end: Slot(0),
            heard: [0; NODES_MAX],
            sessions: Vec::new(),
            ticked_at: Instant::ZERO,
            wants_tick: false,
            is_refused: false,
            counters: DriverCounters::default(),
        }
    }

    /// The replica, which knows of what the program did as much as it was last told.
    pub fn replica(&self) -> &Replica<S> {
        &self.replica
    }

    /// The program.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// The program, between turns: its host is changed, or its counters are read.
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// What was counted.
    pub fn counters(&self) -> DriverCounters {
        self.counters
    }

    /// Whether the program has a grant.
    pub fn has_grant(&self) -> bool {
        self.has_grant
    }

    /// Puts another program in the place of this one: what the old one appended is taken over first. Hands the new one back if
    /// that is not possible in this turn.
    ///
    /// # Errors
    /// The new program, to be tried again after the next turn.
    pub fn replace(&mut self, now: Instant, driver: D, out: &mut Effects) -> Result<D, D> {
        if !self.take_back(now, out) {
            return Err(driver);
        }
        self.heard = [0; NODES_MAX];
        Ok(std::mem::replace(&mut self.driver, driver))
    }

    /// Whether everything that the program appended is in the replica's log.
    fn is_whole(&self) -> bool {
        self.end <= self.replica.window.end()
    }

    /// Takes the grant back; says whether everything that was done under it is in the replica's log now.
    fn take_back(&mut self, now: Instant, out: &mut Effects) -> bool {
        if self.has_grant {
            self.driver.revoke();
            self.counters.revokes_count += 1;
            // Between the look before and the revocation it may have gone on: this last look is still one under the grant.
            self.collect(now, out);
            self.has_grant = false;
            if self.is_whole() {
                self.end = Slot(0);
            }
        }
        self.is_whole()
    }

    /// Takes over what the program has done.
    fn collect(&mut self, now: Instant, out: &mut Effects) {
        if !self.has_grant && self.is_whole() {
            return;
        }
        let seen = self.driver.seen();
        self.end = self.end.max(seen.end);
        while self.replica.window.end() < self.end {
            let slot = self.replica.window.end();
            let taken = self.driver.entry(slot);
            let taken = taken.expect("a program keeps what it appended until it is told to forget it");
            let is_answered = taken.answered;
            if !self.replica.take_over(slot, &taken, out) {
                break;
            }
            self.counters.entries_count += 1;
            self.counters.answered_count += u64::from(is_answered);
        }
        for node in 0..NODES_MAX {
            if seen.heard[node] != self.heard[node] {
                self.heard[node] = seen.heard[node];
                self.replica.heard_from(node as u32, now);
            }
        }
        // Who was answered while we looked waits no more.
        let committed = seen.commit_end.min(self.replica.window.end());
        let mut slot = self.replica.applied_end;
        while slot < committed {
            if let Role::Leader(leader) = &mut self.replica.role
                && leader.is_waited_for(slot)
                // One of an older term may stand in the ring: who was answered is who waits only if it is the same entry.
                && let Some(view) = self.replica.window.get(slot)
                && self.driver.entry(slot).is_some_and(|taken| taken.answered && taken.bytes == view.bytes)
            {
                leader.take_waiting(slot);
                self.counters.answered_count += 1;
            }
            slot.0 += 1;
        }
        self.replica.hear_of(now, &seen, committed, out);
        // A leader's answers stand beside the entries, until they are applied.
        let drained = match self.replica.role {
            Role::Leader(_) => self.replica.applied_end,
            _ => self.replica.window.end(),
        };
        self.driver.drained(drained.min(self.replica.window.end()));
        if self.has_grant && self.is_whole() {
            self.driver.limit(self.append_end());
        } else if self.is_whole() {
            // Nothing is owed any more. A log that is cut later is not short of what was appended here.
            self.end = Slot(0);
        }
    }

    /// Behind what the program may append: as far as the log has room, and where it answers, as long as the state machine surely
    /// does what was asked for.
    fn append_end(&self) -> Slot {
        let answers = matches!(self.replica.role, Role::Leader(_)) && self.driver.appends();
        match answers {
            true => self
                .replica
                .append_end()
                .min(self.replica.sure_end())
                .max(self.replica.window.end()),
            false => self.replica.append_end(),
        }
    }

    /// Whether the program may be left alone while the replica takes in this frame. See the module.
    fn may_go_on(&self, bytes: &[u8]) -> bool {
        let Ok(frame) = frame::parse(bytes) else {
            return true;
        };
        if frame.header.kind == Kind::QuorumRequest {
            return self.appends_nothing(&frame) || (!self.driver.appends() && changes_no_members(&frame));
        }
        if Term(frame.header.term) > self.replica.term() {
            return false;
        }
        match (&self.replica.role, frame.header.kind) {
            (Role::Leader(_), Kind::Ack | Kind::Report) => true,
            (Role::Follower(_), Kind::Entries) => entries::parse(&frame).is_ok_and(|entries| self.has_all(&entries)),
            (Role::Follower(_), Kind::Ack | Kind::Report) => true,
            // What the program has appended and left to the disk, or what came again.
            (Role::Follower(_), Kind::Append) => Slot(frame.header.slot) < self.replica.window.end(),
            _ => false,
        }
    }

    /// Whether the log has all of these entries already, if there are any. A leader that heard nothing of a follower for a while sends
    /// again what its acknowledgements under way are about.
    fn has_all(&self, entries: &Entries<'_>) -> bool {
        let window = &self.replica.window;
        entries.iter().all(|(slot, term, _)| {
            let (slot, term) = (Slot(slot), Term(term));
            slot < window.begin() || window.term_at(slot) == Some(term)
        })
    }

    fn appends_nothing(&self, frame: &Frame<'_>) -> bool {
        let is_leader = matches!(self.replica.role, Role::Leader(_));
        !is_leader
            || request::parse(frame.payload).is_ok_and(|request| {
                request.command == request::Command::Status
                    || request.command.is_stale()
                    || request.command.reads_only()
                    || self.replica.is_answered(&request)
            })
    }

    /// Whether a request that comes once more is under way by the program's doing: it is answered when it is committed, and a
    /// second copy of it in the log would take the grant.
    fn is_under_way(&self, bytes: &[u8]) -> bool {
        if !self.has_grant || !self.driver.appends() || !matches!(self.replica.role, Role::Leader(_)) {
            return false;
        }
        let Ok(frame) = frame::parse(bytes) else { return false };
        let slots = self.replica.applied_end.0..self.replica.window.end().0;
        frame.header.kind == Kind::QuorumRequest
            && slots.rev().any(|slot| {
                self.replica
                    .window
                    .get(Slot(slot))
                    .is_some_and(|view| view.bytes == frame.payload)
            })
    }

    /// A program that counts alone must know of an entry before anybody can acknowledge it.
    fn tell_of_appended(&mut self) {
        let end = self.replica.window.end();
        if !self.has_grant || self.driver.appends() || end <= self.end {
            return;
        }
        if matches!(self.replica.role, Role::Leader(_)) {
            self.driver.appended(end);
            self.end = end;
        }
    }

    /// Whether the program would take a grant for the part that the replica has now.
    fn takes_grants(&self) -> bool {
        self.driver.takes_grants(matches!(self.replica.role, Role::Leader(_)))
    }

    /// Gives a grant if the fast path's conditions hold.
    fn grant_if_due(&mut self) {
        self.is_refused = false;
        if self.has_grant || !self.takes_grants() || !self.is_whole() || !self.replica.state_is_durable() {
            return;
        }
        let replica = &self.replica;
        let part = match &replica.role {
            Role::Leader(leader) => {
                let may_count = replica.commit_end > leader.fast.term_begin
                    && leader.change.is_none()
                    && replica.members().contains(replica.config.node)
                    && leader.fast.voters.count_ones() > 1;
                if !may_count {
                    return;
                }
                self.sessions.clear();
                self.sessions.extend(replica.sessions.newest());
                if !note_unapplied(replica, &mut self.sessions) {
                    return;
                }
                let is_heard = |&(id, _): &(u64, u64)| replica.askers.find(replica.sessions.place_of(id), id).is_some();
                self.sessions.retain(is_heard);
                Part::Leader {
                    term_begin: leader.fast.term_begin,
                    voters: leader.fast.voters,
                    commit_count: leader.fast.commit_count,
                    acked_end: &leader.fast.acked_end,
                    sessions: &self.sessions,
                    session_replies: replica.config.limits.session_replies as u64,
                }
            }
            Role::Follower(follower) => {
                let Some(leader) = follower.leader else { return };
                let end = replica.window.end();
                let is_next = follower.fast.synced && follower.fast.next == end && follower.matched_end == end;
                // What is held waits for what is missing, and then comes before anything new.
                if !is_next || replica.is_damaged() || replica.held.first(end).is_some() {
                    return;
                }
                Part::Follower { leader }
            }
            Role::Candidate(_) => return,
        };
        let entry_bytes_max = match part {
            Part::Leader { .. } => replica.entry_bytes_max().min(replica.sure_entry_bytes_max()),
            Part::Follower { .. } => replica.entry_bytes_max(),
        };
        let grant = Grant {
            part,
            term: replica.term(),
            next: replica.window.end(),
            commit_end: replica.commit_end,
            append_end: self.append_end(),
            entry_bytes_max,
        };
        if grant.append_end == grant.next {
            return;
        }
        if self.driver.grant(&grant) {
            self.has_grant = true;
            self.end = grant.next;
            self.counters.grants_count += 1;
            // What was heard before, in another part or by another replica's program, is no news.
            self.heard = self.driver.seen().heard;
        } else {
            self.is_refused = true;
        }
    }
}

/// Whether a request leaves alone who votes.
fn changes_no_members(frame: &Frame<'_>) -> bool {
    request::parse(frame.payload).is_ok_and(|request| !matches!(request.command, request::Command::Reconfigure { .. }))
}

/// Raises each session's newest request to what the log has of it beyond what is applied. Says no if a session is about to be
/// opened there: another one may have to go for it, and a program would answer requests of it that are never applied.
fn note_unapplied<S: StateMachine>(replica: &Replica<S>, sessions: &mut [(u64, u64)]) -> bool {
    let mut slot = replica.applied_end;
    while slot < replica.window.end() {
        if let Some(view) = replica.window.get(slot)
            && let Ok(entry::Entry::Request(request)) = entry::parse(view.bytes)
        {
            if request.command == request::Command::Open {
                return false;
            }
            // They stand at their own places.
            let session = sessions.get_mut(replica.sessions.place_of(request.client));
            if let Some((_, sequence)) = session.filter(|(id, _)| *id == request.client) {
                *sequence = request.sequence.max(*sequence);
            }
        }
        slot.0 += 1;
    }
    true
}

impl<S: StateMachine, D: Driver> Protocol for Driven<S, D> {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        self.collect(now, out);
        if self.has_grant && self.driver.wants_new_grant() {
            self.take_back(now, out);
        }
        self.wants_tick = !matches!(input, Input::Tick) && self.takes_grants();
        if matches!(input, Input::Tick) {
            self.ticked_at = now;
            // This one may be ours alone.
            if self.is_whole() && self.replica.wake_at().is_none_or(|at| now < at) {
                return self.grant_if_due();
            }
        }
        let may_go_on = match input {
            Input::Frame { bytes, .. } if self.is_whole() && self.is_under_way(bytes) => return,
            Input::Frame { bytes, .. } => self.is_whole() && self.may_go_on(bytes),
            Input::Tick => !self.replica.may_change_role(now),
            Input::Durable(_) => true,
        };
        if !may_go_on && !self.take_back(now, out) {
            self.counters.waited_count += 1;
            self.replica.is_urgent = true;
            return;
        }
        self.replica.handle(now, input, out);
        self.tell_of_appended();
        if matches!(input, Input::Tick) {
            self.grant_if_due();
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        // Whether a grant is due is asked at the end of a burst, and not between two frames of it: the second may take back what
        // the first brought.
        if !self.is_whole() || (self.wants_tick && !self.has_grant) {
            return Some(Instant::ZERO);
        }
        // Without a grant nothing happens here that the replica does not see.
        if !self.has_grant && !self.is_refused {
            return self.replica.wake_at();
        }
        let look_at = self.ticked_at + LOOK_EVERY;
        Some(self.replica.wake_at().map_or(look_at, |at| at.min(look_at)))
    }
}

#[cfg(test)]
mod tests;
