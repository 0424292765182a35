//! A request under way: its bytes, whom it was sent to, and what became of it.

use std::time::Duration;

use dataplane_waist::Instant;
use dataplane_wire::quorum::{
    reply::{self, Outcome, Reply},
    request::{self, Command, Request},
};

use super::{Ask, Route, Verdict};

/// Where a flight stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Waiting,
    Answered,
    Expired,
    TimedOut,
}

/// A place for a request. Its memory is kept for the next one.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) state: State,
    pub(super) sequence: u64,
    pub(super) route: Route,
    pub(super) mutates: bool,
    /// The session that it was sent in; 0 for those that need none, and before.
    pub(super) client: u64,
    pub(super) deadline: Instant,
    /// When to send it again.
    pub(super) due: Instant,
    /// Sent, and neither answered nor turned away since.
    pub(super) is_awaited: bool,
    pub(super) sent_to: Option<usize>,
    pub(super) sent_count: u32,
    pub(super) timeouts_count: u32,
    pub(super) redirects_count: u32,
    pub(super) pauses_count: u32,
    /// The request's payload; once answered, the reply's.
    pub(super) bytes: Vec<u8>,
}

impl Flight {
    pub(super) const fn new() -> Flight {
        Flight {
            state: State::Free,
            sequence: 0,
            route: Route::Leader,
            mutates: false,
            client: 0,
            deadline: Instant::ZERO,
            due: Instant::ZERO,
            is_awaited: false,
            sent_to: None,
            sent_count: 0,
            timeouts_count: 0,
            redirects_count: 0,
            pauses_count: 0,
            bytes: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, sequence: u64, ask: &Ask<'_>) {
        let mut bytes = std::mem::take(&mut self.bytes);
        let request = Request {
            client: 0,
            sequence,
            command: ask.command,
        };
        bytes.clear();
        bytes.resize(request.len_bytes(), 0);
        request::emit(&request, &mut bytes);
        *self = Flight {
            state: State::Waiting,
            sequence,
            route: ask.route,
            mutates: !ask.command.reads_only() && ask.command != Command::Open,
            deadline: ask.deadline,
            bytes,
            ..Flight::new()
        };
    }

    /// From now on a request of this session, for good: under another it would be another request.
    pub(super) fn join(&mut self, session: u64) {
        self.client = session;
        self.bytes[request::field::CLIENT].copy_from_slice(&session.to_be_bytes());
    }

    pub(super) fn is_free(&self) -> bool {
        self.state == State::Free
    }

    /// Whether it can be sent as it is.
    pub(super) fn is_ready(&self) -> bool {
        !self.mutates || self.client != 0
    }

    pub(super) fn is_asked_by(&self, reply: &Reply<'_>) -> bool {
        self.state == State::Waiting
            && self.sent_count > 0
            && (self.client, self.sequence) == (reply.client, reply.sequence)
    }

    pub(super) fn answer(&mut self, payload: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(payload);
        self.state = State::Answered;
    }

    /// What became of it.
    ///
    /// # Panics
    /// If nothing has yet.
    pub(super) fn verdict(&self) -> Verdict<'_> {
        match self.state {
            State::Answered => Verdict::Answered(outcome(&self.bytes)),
            // One copy that meets a session that is gone has done nothing; of two, the first may have.
            State::Expired => Verdict::Expired {
                may_be_done: self.sent_count > 1,
            },
            State::TimedOut => Verdict::TimedOut {
                may_be_done: self.mutates && self.sent_count > 0,
            },
            State::Free | State::Waiting => unreachable!("a flight that is {:?} has no verdict", self.state),
        }
    }
}

fn outcome(payload: &[u8]) -> Outcome<'_> {
    reply::parse(payload).expect("it was parsed when it came").outcome
}

/// The pause before another try at `tried_count` earlier ones.
pub(super) fn backed_off(pause: Duration, tried_count: u32) -> Duration {
    pause * (1 << tried_count.min(4))
}
