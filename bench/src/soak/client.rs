//! A client of the replicated store: opens a session, asks, asks again elsewhere when nothing comes, follows hints, and
//! writes down what it asked and was answered.

use std::time::Duration;

use dataplane_waist::{Effects, Input, Instant, Peer, Protocol};
use dataplane_wire::{
    frame::{self, Header, Kind},
    quorum::{
        members::Members,
        reply::{self, Outcome},
        request::{self, Command, Request},
    },
};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Habits {
    /// Operations under way at the same time at most.
    pub depth: usize,
    /// How many operations it begins, besides those at the end.
    pub ops_count: u32,
    /// The longest pause before the next operation.
    pub think_max: Duration,
    /// How long it waits for an answer before it asks somebody else.
    pub timeout: Duration,
    /// How often an operation is a read, 0 to 1.
    pub reads_ratio: f64,
    /// How often a write is a put before any other kind has a chance, 0 to 1.
    pub puts_ratio: f64,
    /// How often it asks somebody else after a time-out, 0 to 1.
    pub strays_ratio: f64,
    /// How often it gives up after a time-out, 0 to 1: nobody knows then whether the operation happened.
    pub gives_up_ratio: f64,
    /// Keys that it asks for: the first so many letters.
    pub keys_count: u8,
    /// It asks nobody for as many sequence numbers in advance as a session remembers answers.
    pub sequences_max: u64,
}

/// Each operation that was given up may have happened at any time: with many of them nobody can say any more what cannot be.
const GIVEN_UP_MAX: u32 = 2;

/// What an operation asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The value.
    Get,
    /// The value as any replica has it.
    StaleGet,
    /// Another value.
    Put(Vec<u8>),
    /// More bytes.
    Append(Vec<u8>),
    /// Another value, if it is the expected one.
    CompareAndSwap(Vec<u8>, Vec<u8>),
    /// No value.
    Delete,
}

/// What an operation was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Done.
    Done,
    /// There is no such key.
    Absent,
    /// The value.
    Value(Vec<u8>),
    /// Another value than the expected one.
    Mismatch(Vec<u8>),
    /// Not done, and never will be.
    Refused,
    /// The client gave up, or its session is gone.
    Lost,
}

/// An operation, from the client's side. Instants are nanoseconds of the simulation: clients' clocks are true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Which key.
    pub key: u8,
    /// What.
    pub asked: Asked,
    /// When.
    pub invoked_ns: u64,
    /// When it was answered, and what; nothing if it never was.
    pub answered: Option<(u64, Answered)>,
}

/// What a client has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounts {
    /// Requests sent again after a time-out.
    pub retries_count: u64,
    /// Answers that a replica gave because it does not lead.
    pub redirects_count: u64,
    /// Sessions that were gone.
    pub expired_count: u64,
    /// Changes of members that were made.
    pub changes_count: u64,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    number: u32,
    replicas_count: u32,
    habits: Habits,
    rng: Pcg64Mcg,
    session: Option<u64>,
    /// The last sequence number used: of the session, or of an opening.
    sequence: u64,
    under_way: Vec<UnderWay>,
    /// Who is asked first.
    favourite: u32,
    next_at: Instant,
    left_count: u32,
    phase: Phase,
    values_count: u32,
    given_up_count: u32,
    /// By key: a value that was seen, to be expected.
    last_seen: Vec<Vec<u8>>,
    /// What was asked, in order.
    pub records: Vec<Recorded>,
    /// What was counted.
    pub counts: ClientCounts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Working,
    /// The next final read is of this key; one write comes before all of them.
    Finishing(u8),
    Done,
}

#[derive(Debug)]
struct UnderWay {
    /// In `records`; none for an opening and a change of members.
    record: Option<usize>,
    sequence: u64,
    payload: Vec<u8>,
    target: u32,
    /// When to ask (again).
    ask_at: Instant,
    asked_count: u32,
    is_opening: bool,
}

impl Client {
    /// Host `number`, which asks replicas 0 to `replicas_count`.
    pub fn new(number: u32, replicas_count: u32, habits: Habits, seed: u64) -> Client {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        Client {
            number,
            replicas_count,
            habits,
            session: None,
            // No two clients open with the same number.
            sequence: u64::from(number) << 32,
            under_way: Vec::new(),
            favourite: rng.random_range(0..replicas_count),
            rng,
            next_at: Instant::ZERO,
            left_count: habits.ops_count,
            phase: Phase::Working,
            values_count: 0,
            given_up_count: 0,
            last_seen: vec![Vec::new(); habits.keys_count.into()],
            records: Vec::new(),
            counts: ClientCounts::default(),
        }
    }

    /// No new operations but the last ones: a write, and a read of every key.
    pub fn finish(&mut self, now: Instant) {
        self.next_at = now;
        self.left_count = 0;
        self.phase = Phase::Finishing(0);
    }

    /// Whether all that was asked, the last ones included, has been answered.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done && self.under_way.is_empty()
    }

    /// Asks for other members, if a session is open. Says whether it does.
    pub fn reconfigure(&mut self, now: Instant, members: Members) -> bool {
        let Some(client) = self.session else { return false };
        if !self.has_room() {
            return false;
        }
        self.sequence += 1;
        let request = Request {
            client,
            sequence: self.sequence,
            command: Command::Reconfigure { members },
        };
        self.ask(now, None, &request);
        true
    }

    fn has_room(&self) -> bool {
        let oldest = self.under_way.iter().map(|it| it.sequence).min();
        oldest.is_none_or(|oldest| self.sequence + 1 - oldest < self.habits.sequences_max)
    }

    fn ask(&mut self, now: Instant, record: Option<usize>, request: &Request<'_>) {
        let mut payload = vec![0; request.len_bytes()];
        request::emit(request, &mut payload);
        self.under_way.push(UnderWay {
            record,
            sequence: request.sequence,
            payload,
            target: self.favourite,
            ask_at: now,
            asked_count: 0,
            is_opening: matches!(request.command, Command::Open),
        });
    }

    fn open(&mut self, now: Instant) {
        if self.under_way.is_empty() {
            self.sequence += 1;
            let request = Request {
                client: 0,
                sequence: self.sequence,
                command: Command::Open,
            };
            self.ask(now, None, &request);
        }
    }

    /// Begins the next operation, if there is one.
    fn begin(&mut self, now: Instant, client: u64) {
        let keys_count = self.habits.keys_count;
        let (key, asked) = match self.phase {
            Phase::Done => return,
            Phase::Working if self.left_count == 0 => return,
            Phase::Working => {
                self.left_count -= 1;
                (self.rng.random_range(0..keys_count), None)
            }
            // The last operations one after the other: all that anybody was told before must show in them.
            Phase::Finishing(_) if !self.under_way.is_empty() => return,
            Phase::Finishing(key) if key > keys_count => {
                self.phase = Phase::Done;
                return;
            }
            Phase::Finishing(0) => {
                self.phase = Phase::Finishing(1);
                let key = self.rng.random_range(0..keys_count);
                (key, Some(Asked::Put(self.new_value())))
            }
            Phase::Finishing(key) => {
                self.phase = Phase::Finishing(key + 1);
                (key - 1, Some(Asked::Get))
            }
        };
        let asked = asked.unwrap_or_else(|| self.choose(key));
        let name = [b'a' + key];
        let key_bytes = &name[..];
        let command = match &asked {
            Asked::Get => Command::Get { key: key_bytes },
            Asked::StaleGet => Command::StaleGet { key: key_bytes },
            Asked::Put(value) => Command::Put { key: key_bytes, value },
            Asked::Append(value) => Command::Append { key: key_bytes, value },
            Asked::CompareAndSwap(expected, value) => Command::CompareAndSwap {
                key: key_bytes,
                expected,
                value,
            },
            Asked::Delete => Command::Delete { key: key_bytes },
        };
        self.sequence += 1;
        let request = Request {
            client,
            sequence: self.sequence,
            command,
        };
        let record = self.records.len();
        self.ask(now, Some(record), &request);
        self.records.push(Recorded {
            key,
            asked,
            invoked_ns: now.as_ns(),
            answered: None,
        });
    }

    fn choose(&mut self, key: u8) -> Asked {
        if self.rng.random_bool(self.habits.reads_ratio) {
            return match self.rng.random_range(0..8) {
                0 => Asked::StaleGet,
                _ => Asked::Get,
            };
        }
        // Without a draw where there is none to be had: a history without programs is what it was.
        if self.habits.puts_ratio > 0.0 && self.rng.random_bool(self.habits.puts_ratio) {
            return Asked::Put(self.new_value());
        }
        match self.rng.random_range(0..10) {
            0..4 => Asked::Put(self.new_value()),
            4..7 => Asked::Append(self.new_value()),
            7..9 => {
                let expected = self.last_seen[usize::from(key)].clone();
                Asked::CompareAndSwap(expected, self.new_value())
            }
            _ => Asked::Delete,
        }
    }

    /// A value that nobody else writes.
    fn new_value(&mut self) -> Vec<u8> {
        self.values_count += 1;
        format!("{}.{} ", self.number, self.values_count).into_bytes()
    }

    fn send(&mut self, now: Instant, out: &mut Effects) {
        let timeout = self.habits.timeout;
        for asking in self.under_way.iter_mut().filter(|asking| asking.ask_at <= now) {
            if asking.asked_count > 0 {
                self.counts.retries_count += 1;
            }
            asking.asked_count += 1;
            asking.ask_at = now + timeout.mul_f64(self.rng.random_range(0.75..1.25));
            let header = Header {
                kind: Kind::QuorumRequest,
                term: 0,
                slot: asking.sequence,
                sent_ns: now.as_ns(),
            };
            let payload = &asking.payload;
            let len_bytes = frame::HEADER_BYTES + payload.len();
            let _ = out.send(Peer(asking.target), len_bytes, |bytes| {
                bytes[frame::HEADER_BYTES..].copy_from_slice(payload);
                frame::emit(&header, bytes);
            });
        }
    }

    /// Whoever waited too long asks somebody else, most of the time, or gives up.
    fn time_out(&mut self, now: Instant) {
        let replicas_count = self.replicas_count;
        let gives_up_ratio = match self.phase {
            Phase::Working => self.habits.gives_up_ratio,
            Phase::Finishing(_) | Phase::Done => 0.0,
        };
        let mut given_up = Vec::new();
        for asking in &mut self.under_way {
            if asking.asked_count == 0 || asking.ask_at > now {
                continue;
            }
            let may_give_up = asking.record.is_some() && self.given_up_count < GIVEN_UP_MAX;
            if self.rng.random_bool(gives_up_ratio) && may_give_up {
                self.given_up_count += 1;
                given_up.push(asking.sequence);
            } else if self.rng.random_bool(self.habits.strays_ratio) {
                asking.target = self.rng.random_range(0..replicas_count);
                self.favourite = asking.target;
            }
        }
        for sequence in given_up {
            self.end(now, sequence, Answered::Lost);
        }
    }

    fn end(&mut self, now: Instant, sequence: u64, answered: Answered) {
        let Some(index) = self.under_way.iter().position(|it| it.sequence == sequence) else {
            return;
        };
        let ended = self.under_way.remove(index);
        let Some(record) = ended.record else { return };
        let record = &mut self.records[record];
        let key = usize::from(record.key);
        match (&answered, &record.asked) {
            (Answered::Value(value) | Answered::Mismatch(value), _)
            | (Answered::Done, Asked::Put(value) | Asked::CompareAndSwap(_, value)) => {
                self.last_seen[key].clone_from(value);
            }
            _ => {}
        }
        record.answered = Some((now.as_ns(), answered));
        if self.phase == Phase::Working {
            let think = self.habits.think_max.mul_f64(self.rng.random_range(0.0..1.0));
            self.next_at = now + think;
        }
    }

    fn on_frame(&mut self, now: Instant, from: Peer, bytes: &[u8]) {
        let Ok(frame) = frame::parse(bytes) else { return };
        let Ok(reply) = reply::parse(frame.payload) else {
            return;
        };
        let client = self.session.unwrap_or(0);
        let Some(asking) = self.under_way.iter_mut().find(|it| it.sequence == reply.sequence) else {
            return;
        };
        let is_ours = reply.client == if asking.is_opening { 0 } else { client };
        if frame.header.kind != Kind::QuorumReply || !is_ours {
            return;
        }
        let answered = match reply.outcome {
            Outcome::NotLeader { leader } => {
                self.counts.redirects_count += 1;
                // Only whoever is asked at the moment sends us away.
                if asking.target != from.0 {
                    return;
                }
                let hint = leader.filter(|&leader| leader < self.replicas_count && leader != from.0);
                let other = (0..self.replicas_count).collect::<Vec<_>>();
                asking.target = hint.unwrap_or_else(|| *other.choose(&mut self.rng).expect("there are replicas"));
                self.favourite = asking.target;
                // A moment later: a leader that was not elected yet is not found by asking more often.
                let pause = self.habits.timeout.mul_f64(self.rng.random_range(0.05..0.3));
                asking.ask_at = asking.ask_at.min(now + pause);
                return;
            }
            Outcome::Busy => {
                asking.ask_at = asking.ask_at.min(now + self.habits.timeout / 4);
                return;
            }
            Outcome::Opened { client } => {
                self.session = Some(client);
                self.sequence = 0;
                self.under_way.clear();
                self.favourite = from.0;
                return;
            }
            Outcome::Expired => {
                self.counts.expired_count += 1;
                self.session = None;
                let lost: Vec<u64> = self.under_way.iter().map(|it| it.sequence).collect();
                for sequence in lost {
                    self.end(now, sequence, Answered::Lost);
                }
                self.sequence = (u64::from(self.number) << 32) + now.as_ns();
                return;
            }
            Outcome::Done => Answered::Done,
            Outcome::Absent => Answered::Absent,
            Outcome::Value(value) => Answered::Value(value.to_vec()),
            Outcome::Mismatch(value) => Answered::Mismatch(value.to_vec()),
            Outcome::Refused { .. } => Answered::Refused,
            Outcome::Entries(_) => return,
        };
        self.counts.changes_count += u64::from(asking.record.is_none() && answered == Answered::Done);
        if asking.asked_count > 0 {
            self.favourite = from.0;
        }
        self.end(now, reply.sequence, answered);
    }

    fn tick(&mut self, now: Instant, out: &mut Effects) {
        self.time_out(now);
        match self.session {
            None => self.open(now),
            Some(client) => {
                let depth = match self.phase {
                    Phase::Working => self.habits.depth,
                    Phase::Finishing(_) | Phase::Done => 1,
                };
                while now >= self.next_at && self.under_way.len() < depth && self.has_room() {
                    let count = self.records.len();
                    self.begin(now, client);
                    if self.records.len() == count {
                        break;
                    }
                }
            }
        }
        self.send(now, out);
    }
}

impl Protocol for Client {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Frame { from, bytes } => self.on_frame(now, from, bytes),
            Input::Tick => self.tick(now, out),
            Input::Durable(_) => {}
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        if self.is_done() {
            return None;
        }
        let ask_at = self.under_way.iter().map(|asking| asking.ask_at).min();
        let has_more = match self.phase {
            // Without a session there is one thing to do, and that once.
            _ if self.session.is_none() => self.under_way.is_empty(),
            Phase::Working => self.left_count > 0 && self.under_way.len() < self.habits.depth && self.has_room(),
            Phase::Finishing(_) => self.under_way.is_empty(),
            Phase::Done => false,
        };
        let next_at = has_more.then_some(self.next_at);
        match (ask_at, next_at) {
            (Some(ask), Some(next)) => Some(ask.min(next)),
            (ask, next) => ask.or(next),
        }
    }
}
