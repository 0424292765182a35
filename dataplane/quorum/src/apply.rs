//! What is committed is applied, in order, once per request; who waits for it is told.

use dataplane_waist::{Effects, Slot, StateMachine};
use dataplane_wire::quorum::{
    entry::{self, Entry},
    reply::Outcome,
    request::{Command, Request},
};

use crate::{
    answer,
    config::Mutation,
    replica::{Replica, Role},
    sessions::Known,
};

impl<S: StateMachine> Replica<S> {
    /// Applies everything before `commit_end`.
    pub(crate) fn apply(&mut self, out: &mut Effects) {
        while self.applied_end < self.commit_end {
            let slot = self.applied_end;
            self.apply_one(slot, out);
            self.applied_end.0 += 1;
            self.counters.applied_count += 1;
        }
        self.take_snapshot_if_due(out);
    }

    fn apply_one(&mut self, slot: Slot, out: &mut Effects) {
        let forgets = self.makes(Mutation::ForgetsSessions);
        let view = self
            .window
            .get(slot)
            .expect("what is committed and not applied is in the window");
        let (term, bytes) = (self.state.term, view.bytes);
        // An entry was parsed before it was appended, and its checksum goes with it; if it does not parse, it parses on
        // no replica.
        let Ok(Entry::Request(request)) = entry::parse(bytes) else {
            return;
        };
        let waiting = match &mut self.role {
            Role::Leader(leader) => leader.take_waiting(slot),
            _ => None,
        };
        let mut tell = |request: &Request<'_>, outcome: Outcome<'_>| {
            if let Some(waiting) = waiting {
                answer::send(out, waiting.peer, term, waiting.sent_ns, request, outcome);
            }
        };
        if let Command::Open = request.command {
            let client = self.sessions.open(slot);
            if let Some(waiting) = waiting {
                self.askers.note(self.sessions.place_of(client), client, waiting.peer);
            }
            return tell(&request, Outcome::Opened { client });
        }
        match self.sessions.look_up(request.client, request.sequence) {
            Known::Answered(outcome) if !forgets => return tell(&request, outcome),
            Known::Expired => return tell(&request, Outcome::Expired),
            Known::Answered(_) | Known::New => {}
        }
        let sessions = &mut self.sessions;
        let mut done = |outcome: Outcome<'_>| {
            sessions.remember(request.client, request.sequence, slot, outcome);
            tell(&request, outcome);
        };
        match request.command {
            Command::Reconfigure { .. } => done(Outcome::Done),
            _ => self.machine.apply(&request.command, &mut done),
        }
    }
}
