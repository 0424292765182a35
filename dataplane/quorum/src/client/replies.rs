//! What a client makes of an answer.

use dataplane_waist::{Effects, Instant, Peer};
use dataplane_wire::{
    Reject,
    frame::{self, Kind},
    quorum::reply::{self, Outcome},
};

use super::{
    Client,
    ask::Route,
    earlier,
    flight::{self, Flight, State},
};

impl Client {
    pub(super) fn on_frame(&mut self, now: Instant, from: Peer, bytes: &[u8], out: &mut Effects) {
        let frame = match frame::parse(bytes) {
            Ok(frame) if frame.header.kind == Kind::QuorumReply => frame,
            Ok(_) => return out.reject(Reject::Kind),
            Err(reason) => return out.reject(reason),
        };
        let reply = match reply::parse(frame.payload) {
            Ok(reply) => reply,
            Err(reason) => return out.reject(reason),
        };
        let Some(server) = self.servers.iter().position(|server| server.peer == from) else {
            return out.reject(Reject::Stranger);
        };
        self.servers[server].tried.answered_count += 1;
        let sample = now.saturating_since(Instant::from_ns(frame.header.sent_ns));
        if self.opening.as_ref().is_some_and(|opening| opening.is_asked_by(&reply)) {
            let mut flight = self.opening.take().expect("just seen");
            match reply.outcome {
                Outcome::Opened { client } if client != 0 => {
                    self.measure(sample);
                    self.session = client;
                    self.counters.sessions_count += 1;
                    self.is_rallying |= self.has_strays && server == self.target;
                    let waiting = self.oldest_sequence..self.next_sequence;
                    for sequence in waiting {
                        let flight = &self.flights[self.index(sequence)];
                        if flight.state == State::Waiting && flight.mutates && flight.client == 0 {
                            self.soon.push_back(sequence);
                        }
                    }
                    return;
                }
                outcome => self.denied(now, server, &mut flight, outcome, out),
            }
            self.opening = Some(flight);
            return;
        }
        let index = self.index(reply.sequence);
        if !self.flights[index].is_asked_by(&reply) {
            self.counters.late_count += 1;
            return;
        }
        match reply.outcome {
            Outcome::NotLeader { .. } | Outcome::Busy => {
                let mut flight = std::mem::replace(&mut self.flights[index], Flight::new());
                self.denied(now, server, &mut flight, reply.outcome, out);
                self.flights[index] = flight;
            }
            Outcome::Expired => {
                if self.session == reply.client {
                    self.session = 0;
                }
                let flight = &mut self.flights[index];
                flight.state = State::Expired;
                self.finished.push_back(reply.sequence);
            }
            _ => {
                // Who does what a leader is asked for leads.
                self.is_rallying |=
                    self.has_strays && server == self.target && self.flights[index].route == Route::Leader;
                self.measure(sample);
                self.flights[index].answer(frame.payload);
                self.finished.push_back(reply.sequence);
            }
        }
    }

    /// Nothing was done there: elsewhere, or later.
    fn denied(&mut self, now: Instant, server: usize, flight: &mut Flight, outcome: Outcome<'_>, out: &mut Effects) {
        let tried = &mut self.servers[server].tried;
        let hint = match outcome {
            Outcome::NotLeader { leader } => {
                tried.not_leader_count += 1;
                leader
                    .and_then(|node| self.index_of(node))
                    .filter(|&hint| hint != server)
            }
            _ => {
                tried.busy_count += 1;
                None
            }
        };
        if !flight.is_awaited || flight.sent_to != Some(server) {
            return;
        }
        flight.is_awaited = false;
        if matches!(outcome, Outcome::NotLeader { .. }) && flight.route == Route::Leader {
            if server == self.target {
                self.turn_to(hint.unwrap_or((server + 1) % self.servers.len()));
                self.is_rallying |= hint.is_some();
            }
            // Two replicas that point at each other must not make us run in circles.
            if hint.is_some() && (flight.redirects_count as usize) < self.servers.len() {
                flight.redirects_count += 1;
                self.transmit(now, flight, out);
                self.wake = earlier(self.wake, flight.due);
                return;
            }
        }
        flight.due = now + flight::backed_off(self.options.timing.pause, flight.pauses_count);
        flight.pauses_count += 1;
        self.wake = earlier(self.wake, flight.due);
    }
}
