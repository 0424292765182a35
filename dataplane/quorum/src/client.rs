//! A client of the cluster as a state machine: it opens a session, numbers its requests, finds the leader, and asks again
//! under the same number until somebody answers or the deadline comes. No I/O, no clock, no randomness of its own.
//!
//! ```text
//!  ask ─▶ flight ──── send to target ──▶ answered ─────────────────────────▶ take
//!           ▲              │ no answer in time: the same replica once more, then the next one
//!           └──────────────┤ not the leader: where it points, else the next one after a pause
//!                          │ busy: the same replica after a pause
//!                          │ somebody else leads, as a replica has said or shown: there at once
//!                          └ deadline: out of time, and perhaps done ──────▶ take
//! ```
//!
//! What it promises: a command that changes something is done at most once, because its number never changes while it is
//! asked again (Raft §8). Where that cannot be kept, because the session is gone, it says that it does not know.

mod ask;
mod flight;
mod options;
mod replies;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use dataplane_waist::{Effects, Input, Instant, Peer, Protocol};
use dataplane_wire::{
    frame::{self, Header, Kind},
    quorum::request::Command,
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

pub use self::ask::{Ask, ClientCounters, Route, Ticket, Tried, Verdict};
use self::flight::{Flight, State};
pub use self::options::{AskError, ClientOptions, ClientOptionsError, ClientTiming};

/// A replica, as the client sees it.
#[derive(Clone, Copy, Debug)]
struct Server {
    node: u32,
    peer: Peer,
    tried: Tried,
}

/// A client. Requests go in by [`Client::ask`], verdicts come out of [`Client::take`]; in between it is turned as any
/// protocol.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    servers: Vec<Server>,
    /// Who is taken for the leader, an index of `servers`.
    target: usize,
    /// The target has changed, and some of what is under way may wait for an answer from the one before.
    has_strays: bool,
    /// They are to be sent to the target at once: it is not only guessed any more.
    is_rallying: bool,
    /// The session's number; 0 before there is one.
    session: u64,
    /// The request that opens a session, while there is none and something waits for it.
    opening: Option<Flight>,
    /// By `sequence % flights.len()`: never two of which the session would remember only one.
    flights: Vec<Flight>,
    in_flight_count: usize,
    next_sequence: u64,
    oldest_sequence: u64,
    /// To be sent at once.
    soon: VecDeque<u64>,
    /// No flight needs us before this.
    wake: Option<Instant>,
    finished: VecDeque<u64>,
    /// Smoothed round trip and its deviation (RFC 6298, section 2), once there was one.
    rtt: Option<(Duration, Duration)>,
    rng: Pcg64Mcg,
    counters: ClientCounters,
}

impl Client {
    /// A client that has not said anything yet.
    ///
    /// # Errors
    /// [`ClientOptionsError`].
    pub fn new(options: ClientOptions) -> Result<Client, ClientOptionsError> {
        options.check()?;
        let mut rng = Pcg64Mcg::seed_from_u64(options.seed);
        // A multiple of what a session remembers, so that a short session takes little room there; and not the number that
        // another client began with, because a replica that mixes two clients' addresses up may send one's answer to the
        // other.
        let first = u64::from(rng.random::<u32>()) * options.session_replies as u64;
        Ok(Client {
            servers: options
                .nodes
                .iter()
                .map(|&(node, peer)| Server {
                    node,
                    peer,
                    tried: Tried::default(),
                })
                .collect(),
            target: 0,
            has_strays: false,
            is_rallying: false,
            session: 0,
            opening: None,
            flights: (0..options.session_replies).map(|_| Flight::new()).collect(),
            in_flight_count: 0,
            next_sequence: first,
            oldest_sequence: first,
            soon: VecDeque::with_capacity(options.in_flight_max),
            wake: None,
            finished: VecDeque::with_capacity(options.in_flight_max),
            rtt: None,
            rng,
            counters: ClientCounters::default(),
            options,
        })
    }

    /// Takes a request. It leaves with the next turn.
    ///
    /// # Errors
    /// [`AskError`]; nothing is sent then.
    pub fn ask(&mut self, ask: &Ask<'_>) -> Result<Ticket, AskError> {
        self.options.check_command(&ask.command)?;
        if let Route::Node(node) = ask.route
            && self.index_of(node).is_none()
        {
            return Err(AskError::NoSuchNode { node });
        }
        let sequence = self.next_sequence;
        let flight = &mut self.flights[(sequence % self.options.session_replies as u64) as usize];
        if self.in_flight_count == self.options.in_flight_max || flight.state != State::Free {
            return Err(AskError::Full {
                in_flight_max: self.options.in_flight_max,
            });
        }
        flight.begin(sequence, ask);
        self.next_sequence += 1;
        self.in_flight_count += 1;
        self.wake = earlier(self.wake, ask.deadline);
        self.soon.push_back(sequence);
        Ok(Ticket(sequence))
    }

    /// Hands over a verdict, the oldest first. `false` if there is none.
    pub fn take(&mut self, visit: impl FnOnce(Ticket, Verdict<'_>)) -> bool {
        let Some(sequence) = self.finished.pop_front() else {
            return false;
        };
        let index = self.index(sequence);
        visit(Ticket(sequence), self.flights[index].verdict());
        self.flights[index].state = State::Free;
        self.in_flight_count -= 1;
        while self.oldest_sequence < self.next_sequence && self.flights[self.index(self.oldest_sequence)].is_free() {
            self.oldest_sequence += 1;
        }
        true
    }

    /// Whether there is one to take.
    pub fn has_verdict(&self) -> bool {
        !self.finished.is_empty()
    }

    /// How many requests have no verdict taken yet.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight_count
    }

    /// Takes `node` for the leader, if it is one of ours: somebody has said so. Whoever leads is found anyhow. What is under
    /// way goes there with the next turn.
    pub fn believe(&mut self, node: u32) {
        if let Some(target) = self.index_of(node) {
            self.turn_to(target);
            self.is_rallying = self.has_strays;
        }
    }

    /// Who is taken for the leader.
    pub fn leader(&self) -> u32 {
        self.servers[self.target].node
    }

    /// What was tried, node by node.
    pub fn tried(&self) -> impl Iterator<Item = (u32, Tried)> + '_ {
        self.servers.iter().map(|server| (server.node, server.tried))
    }

    /// What was counted.
    pub fn counters(&self) -> &ClientCounters {
        &self.counters
    }

    fn index(&self, sequence: u64) -> usize {
        (sequence % self.flights.len() as u64) as usize
    }

    fn index_of(&self, node: u32) -> Option<usize> {
        self.servers.iter().position(|server| server.node == node)
    }

    /// RFC 6298, section 2: how long an answer may take before its request is taken for lost; doubled for each time that
    /// it was.
    fn patience(&self, timeouts_count: u32) -> Duration {
        let timing = &self.options.timing;
        let base = match self.rtt {
            Some((smoothed, deviation)) => (smoothed + deviation * 4).max(timing.retry_min),
            None => timing.retry_first,
        };
        (base * (1 << timeouts_count.min(10))).min(timing.retry_max)
    }

    fn measure(&mut self, sample: Duration) {
        let (smoothed, deviation) = match self.rtt {
            None => (sample, sample / 2),
            // Alpha 1/8, beta 1/4.
            Some((smoothed, deviation)) => (
                (smoothed * 7 + sample) / 8,
                (deviation * 3 + smoothed.abs_diff(sample)) / 4,
            ),
        };
        self.rtt = Some((smoothed, deviation));
    }

    /// Sends a flight, or leaves it for the next turn if there is no room in this one.
    fn transmit(&mut self, now: Instant, flight: &mut Flight, out: &mut Effects) {
        let to = match flight.route {
            Route::Leader => self.target,
            Route::Node(node) => self.index_of(node).expect("ask has looked"),
        };
        let server = &mut self.servers[to];
        let header = Header {
            kind: Kind::QuorumRequest,
            term: 0,
            slot: flight.sequence,
            sent_ns: now.as_ns(),
        };
        let bytes = &flight.bytes;
        let sent = out.send(server.peer, frame::HEADER_BYTES + bytes.len(), |to| {
            to[frame::HEADER_BYTES..].copy_from_slice(bytes);
            frame::emit(&header, to);
        });
        if sent.is_err() {
            flight.due = now;
            return;
        }
        server.tried.sent_count += 1;
        flight.sent_to = Some(to);
        flight.sent_count += 1;
        flight.is_awaited = true;
        flight.due = now + self.patience(flight.timeouts_count);
    }

    /// Sends a flight for the first time, if its session is there.
    fn begin(&mut self, now: Instant, sequence: u64, out: &mut Effects) {
        let index = self.index(sequence);
        let flight = &self.flights[index];
        if flight.state != State::Waiting || flight.sequence != sequence {
            return;
        }
        if flight.mutates && flight.client == 0 {
            if self.session == 0 {
                self.open_session(now, out);
                return;
            }
            self.flights[index].join(self.session);
        }
        let mut flight = std::mem::replace(&mut self.flights[index], Flight::new());
        self.transmit(now, &mut flight, out);
        self.wake = earlier(self.wake, flight.due);
        self.flights[index] = flight;
    }

    fn open_session(&mut self, now: Instant, out: &mut Effects) {
        if self.opening.is_some() {
            return;
        }
        let mut flight = Flight::new();
        let nonce = self.rng.random::<u64>();
        let deadline = Instant::from_ns(u64::MAX);
        let ask = Ask {
            command: Command::Open,
            route: Route::Leader,
            deadline,
        };
        flight.begin(nonce, &ask);
        self.transmit(now, &mut flight, out);
        self.wake = earlier(self.wake, flight.due);
        self.opening = Some(flight);
    }

    /// A flight whose time has come: what it waited for did not.
    fn resume(&mut self, now: Instant, flight: &mut Flight, out: &mut Effects) {
        flight.redirects_count = 0;
        if flight.is_awaited {
            self.counters.timeouts_count += 1;
            flight.timeouts_count += 1;
            // Once may be a lost frame; twice is a replica that is not there.
            if flight.timeouts_count.is_multiple_of(2) && flight.sent_to == Some(self.target) {
                self.turn_to((self.target + 1) % self.servers.len());
            }
        }
        self.transmit(now, flight, out);
    }

    fn turn_to(&mut self, target: usize) {
        if self.target != target {
            self.target = target;
            self.has_strays = true;
            self.counters.turns_count += 1;
        }
    }

    /// Sends to the target what went to another one and was not answered. While the target is a guess, each request goes there
    /// by its own timer instead: with many under way, every wrong guess would cost as many frames.
    fn rally(&mut self, now: Instant, out: &mut Effects) {
        self.is_rallying = false;
        self.has_strays = false;
        if let Some(mut flight) = self.opening.take() {
            self.recall(now, &mut flight, out);
            self.opening = Some(flight);
        }
        for sequence in self.oldest_sequence..self.next_sequence {
            let index = self.index(sequence);
            let mut flight = std::mem::replace(&mut self.flights[index], Flight::new());
            self.recall(now, &mut flight, out);
            self.flights[index] = flight;
        }
    }

    fn recall(&mut self, now: Instant, flight: &mut Flight, out: &mut Effects) {
        let is_stray = flight.state == State::Waiting
            && flight.route == Route::Leader
            && flight.sent_to.is_some_and(|server| server != self.target);
        // Also a redirection: replicas that point at each other must not make us send without end.
        if !is_stray || flight.redirects_count as usize >= self.servers.len() {
            return;
        }
        flight.redirects_count += 1;
        // It does not wait for the other one any more, so that want of room in this turn is not taken for a lost frame.
        flight.is_awaited = false;
        self.transmit(now, flight, out);
        self.wake = earlier(self.wake, flight.due);
    }

    fn on_tick(&mut self, now: Instant, out: &mut Effects) {
        if self.is_rallying {
            self.rally(now, out);
        }
        for _ in 0..self.soon.len() {
            let sequence = self.soon.pop_front().expect("counted");
            self.begin(now, sequence, out);
        }
        if self.wake.is_none_or(|wake| wake > now) {
            return;
        }
        let mut wake = None;
        if let Some(mut flight) = self.opening.take() {
            if flight.due <= now {
                self.resume(now, &mut flight, out);
            }
            wake = earlier(wake, flight.due);
            self.opening = Some(flight);
        }
        let mut is_wanted = false;
        for sequence in self.oldest_sequence..self.next_sequence {
            let index = self.index(sequence);
            let flight = &mut self.flights[index];
            if flight.state != State::Waiting {
                continue;
            }
            if flight.deadline <= now {
                flight.state = State::TimedOut;
                self.finished.push_back(sequence);
                continue;
            }
            wake = earlier(wake, flight.deadline);
            let is_begun = flight.sent_count > 0 || flight.is_ready();
            is_wanted |= !is_begun;
            if !is_begun {
                continue;
            }
            if flight.due <= now {
                let mut flight = std::mem::replace(&mut self.flights[index], Flight::new());
                self.resume(now, &mut flight, out);
                self.flights[index] = flight;
            }
            wake = earlier(wake, self.flights[index].due);
        }
        if !is_wanted {
            // Nobody waits for a session any more.
            self.opening = None;
        }
        self.wake = wake;
    }
}

fn earlier(a: Option<Instant>, b: Instant) -> Option<Instant> {
    Some(a.map_or(b, |a| a.min(b)))
}

impl Protocol for Client {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Frame { from, bytes } => self.on_frame(now, from, bytes, out),
            Input::Tick => self.on_tick(now, out),
            Input::Durable(_) => {}
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self.soon.is_empty() && !self.is_rallying {
            true => self.wake,
            false => Some(Instant::ZERO),
        }
    }
}
