//! What tests and the bench share: owned operations, a key-value map that carries them out, and runs of several clients
//! against it with random intervals around the instant at which each operation takes effect.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use dataplane_history::{Answer, History, Op, OpId};
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

pub type Bytes = Vec<u8>;

/// An operation that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Get,
    StaleGet,
    Put(Bytes),
    Append(Bytes),
    Swap(Option<Bytes>, Bytes),
    Delete,
}

/// An answer that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    Value(Option<Bytes>),
    Swapped,
    NotSwapped,
    Mismatch(Option<Bytes>),
    Deleted(bool),
    Refused,
}

/// What happens, in the order of time. An operation's number is that of its invocation among all invocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Invoke { client: u32, key: u8, call: Call },
    Answer { op: u32, reply: Reply },
}

/// A run: steps with their instants.
pub type Run = Vec<(u64, Step)>;

pub fn op<'a>(key: &'a [u8], call: &'a Call) -> Op<'a> {
    match call {
        Call::Get => Op::Get { key },
        Call::StaleGet => Op::StaleGet { key },
        Call::Put(value) => Op::Put { key, value },
        Call::Append(value) => Op::Append { key, value },
        Call::Swap(expected, new) => Op::CompareAndSwap {
            key,
            expected: expected.as_deref(),
            new,
        },
        Call::Delete => Op::Delete { key },
    }
}

pub fn answer(reply: &Reply) -> Answer<'_> {
    match reply {
        Reply::Done => Answer::Done,
        Reply::Value(value) => Answer::Value(value.as_deref()),
        Reply::Swapped => Answer::Swapped,
        Reply::NotSwapped => Answer::NotSwapped,
        Reply::Mismatch(found) => Answer::Mismatch {
            found: found.as_deref(),
        },
        Reply::Deleted(existed) => Answer::Deleted { existed: *existed },
        Reply::Refused => Answer::Refused,
    }
}

/// The run as a history.
pub fn record(run: &Run) -> History {
    let mut history = History::new();
    for (at_ns, step) in run {
        match step {
            Step::Invoke { client, key, call } => {
                history.invoke(*client, *at_ns, op(&[*key], call));
            }
            Step::Answer { op, reply } => history
                .answer(OpId(*op), *at_ns, answer(reply))
                .expect("a run answers what was invoked"),
        }
    }
    history
}

/// A key-value map, the specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Map(pub BTreeMap<u8, Bytes>);

impl Map {
    /// Carries `call` out. A swap that does not happen says what it found.
    pub fn apply(&mut self, key: u8, call: &Call) -> Reply {
        let found = self.0.get(&key).cloned();
        match call {
            Call::Get | Call::StaleGet => Reply::Value(found),
            Call::Put(value) => {
                self.0.insert(key, value.clone());
                Reply::Done
            }
            Call::Append(value) => {
                self.0.entry(key).or_default().extend_from_slice(value);
                Reply::Done
            }
            Call::Swap(expected, new) if found == *expected => {
                self.0.insert(key, new.clone());
                Reply::Swapped
            }
            Call::Swap(..) => Reply::Mismatch(found),
            Call::Delete => Reply::Deleted(self.0.remove(&key).is_some()),
        }
    }

    /// Carries `call` out; whether `reply` is a true answer, if perhaps one that says less.
    pub fn explains(&mut self, key: u8, call: &Call, reply: &Reply) -> bool {
        let full = self.apply(key, call);
        match (&full, reply) {
            (Reply::Mismatch(_), Reply::NotSwapped) | (Reply::Deleted(_), Reply::Done) => true,
            _ => full == *reply,
        }
    }
}

/// What a random run is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub clients: u32,
    pub ops_per_client: u32,
    pub keys: u8,
    /// How many values are drawn from; 0: each value is written once.
    pub values: u32,
    pub lost_ratio: f64,
    pub refused_ratio: f64,
    pub stale_ratio: f64,
}

/// A run of clients against one map, so linearizable by construction. A stale get reads a state of its key's past, never
/// an earlier one than the client's last.
pub fn real_run(seed: u64, shape: Shape) -> Run {
    #[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
    enum Phase {
        Invoke,
        Effect,
        Answer,
    }
    struct Client {
        left: u32,
        key: u8,
        call: Call,
        op: u32,
        is_lost: bool,
        reply: Option<Reply>,
        seen: BTreeMap<u8, usize>,
    }
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut map = Map::default();
    let mut past: BTreeMap<u8, Vec<Option<Bytes>>> = (0..shape.keys).map(|key| (key, vec![None])).collect();
    let mut run = Run::new();
    let mut op_count = 0;
    let idle = |_| Client {
        left: shape.ops_per_client,
        key: 0,
        call: Call::Get,
        op: 0,
        is_lost: false,
        reply: None,
        seen: BTreeMap::new(),
    };
    let mut clients: Vec<Client> = (0..shape.clients).map(idle).collect();
    // Effects of lost operations, which may come long after their clients have gone on.
    let mut late: BTreeMap<u32, (u8, Call)> = BTreeMap::new();
    // (instant, tie-breaker, client or operation, phase)
    let mut due = BinaryHeap::new();
    let mut tie = 0u64;
    let mut push = |due: &mut BinaryHeap<_>, at_ns: u64, who: u32, phase: Phase| {
        tie += 1;
        due.push(Reverse((at_ns, tie, who, phase)));
    };
    for client in 0..shape.clients {
        push(&mut due, rng.random_range(0..100), client, Phase::Invoke);
    }
    while let Some(Reverse((at_ns, _, who, phase))) = due.pop() {
        if let Some((key, call)) = (phase == Phase::Effect).then(|| late.remove(&who)).flatten() {
            map.apply(key, &call);
            past.get_mut(&key).expect("of this run").push(map.0.get(&key).cloned());
            continue;
        }
        // An effect's number is its operation's: operations come after clients.
        let index = match phase {
            Phase::Effect => clients
                .iter()
                .position(|client| client.op == who)
                .expect("it waits for it"),
            Phase::Invoke | Phase::Answer => who as usize,
        };
        let client = &mut clients[index];
        match phase {
            Phase::Invoke if client.left == 0 => {}
            Phase::Invoke => {
                client.left -= 1;
                client.key = rng.random_range(0..shape.keys);
                client.call = random_call(&mut rng, shape, op_count);
                client.op = op_count + 1;
                op_count += 1;
                let step = Step::Invoke {
                    client: index as u32,
                    key: client.key,
                    call: client.call.clone(),
                };
                run.push((at_ns, step));
                client.is_lost = rng.random_bool(shape.lost_ratio);
                client.reply = None;
                if client.is_lost {
                    if rng.random_bool(0.5) {
                        late.insert(client.op, (client.key, client.call.clone()));
                        push(&mut due, at_ns + rng.random_range(1..2_000), client.op, Phase::Effect);
                    }
                    push(
                        &mut due,
                        at_ns + rng.random_range(100..300),
                        index as u32,
                        Phase::Invoke,
                    );
                } else if rng.random_bool(shape.refused_ratio) {
                    client.reply = Some(Reply::Refused);
                    push(&mut due, at_ns + rng.random_range(1..100), index as u32, Phase::Answer);
                } else {
                    push(&mut due, at_ns + rng.random_range(1..100), client.op, Phase::Effect);
                }
            }
            Phase::Effect => {
                let states = past.get_mut(&client.key).expect("of this run");
                let reply = if client.call == Call::StaleGet {
                    let earliest = client.seen.get(&client.key).copied().unwrap_or(0);
                    // Most are a few states behind.
                    let behind = rng.random_range(0..4);
                    let at = (states.len() - 1).saturating_sub(behind).max(earliest);
                    client.seen.insert(client.key, at);
                    Reply::Value(states[at].clone())
                } else {
                    let reply = map.apply(client.key, &client.call);
                    states.push(map.0.get(&client.key).cloned());
                    reply
                };
                // Some services say less than all.
                client.reply = Some(match reply {
                    Reply::Mismatch(_) if client.op.is_multiple_of(3) => Reply::NotSwapped,
                    Reply::Deleted(_) if client.op.is_multiple_of(3) => Reply::Done,
                    full => full,
                });
                push(&mut due, at_ns + rng.random_range(1..100), index as u32, Phase::Answer);
            }
            Phase::Answer => {
                let reply = client.reply.take().expect("it took effect or was refused");
                run.push((
                    at_ns,
                    Step::Answer {
                        op: client.op - 1,
                        reply,
                    },
                ));
                push(&mut due, at_ns + rng.random_range(0..50), index as u32, Phase::Invoke);
            }
        }
    }
    run
}

pub fn random_call(rng: &mut Pcg64Mcg, shape: Shape, op_count: u32) -> Call {
    let value = |rng: &mut Pcg64Mcg| match shape.values {
        0 => format!("{op_count};").into_bytes(),
        values => vec![b'a' + rng.random_range(0..values) as u8],
    };
    if rng.random_bool(shape.stale_ratio) {
        return Call::StaleGet;
    }
    match rng.random_range(0..10) {
        0..4 => Call::Get,
        4..6 => Call::Put(value(rng)),
        6..7 => Call::Append(value(rng)),
        7..9 => {
            let expected = rng.random_bool(0.8).then(|| match shape.values {
                0 => format!("{};", rng.random_range(op_count.saturating_sub(8)..=op_count)).into_bytes(),
                _ => value(rng),
            });
            Call::Swap(expected, value(rng))
        }
        _ => Call::Delete,
    }
}

/// Changes one answer into another that its operation could have had; `None` if the run has no answer that can be.
pub fn flip(seed: u64, run: &Run) -> Option<Run> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let values: Vec<Option<Bytes>> = run
        .iter()
        .filter_map(|(_, step)| match step {
            Step::Invoke {
                call: Call::Put(value) | Call::Append(value) | Call::Swap(_, value),
                ..
            } => Some(Some(value.clone())),
            Step::Answer {
                reply: Reply::Value(value),
                ..
            } => Some(value.clone()),
            _ => None,
        })
        .chain([None])
        .collect();
    let flipped = |reply: &Reply, rng: &mut Pcg64Mcg| match reply {
        Reply::Value(old) => {
            let others: Vec<_> = values.iter().filter(|value| *value != old).collect();
            (!others.is_empty()).then(|| Reply::Value(others[rng.random_range(0..others.len())].clone()))
        }
        Reply::Swapped => Some(Reply::NotSwapped),
        Reply::NotSwapped | Reply::Mismatch(_) => Some(Reply::Swapped),
        Reply::Deleted(existed) => Some(Reply::Deleted(!existed)),
        Reply::Done | Reply::Refused => None,
    };
    let candidates: Vec<(usize, u32, Reply)> = run
        .iter()
        .enumerate()
        .filter_map(|(index, (_, step))| match step {
            Step::Answer { op, reply } => flipped(reply, &mut rng).map(|reply| (index, *op, reply)),
            Step::Invoke { .. } => None,
        })
        .collect();
    if candidates.is_empty() {
        return None;
    }
    let (index, op, reply) = candidates[rng.random_range(0..candidates.len())].clone();
    let mut run = run.clone();
    run[index].1 = Step::Answer { op, reply };
    Some(run)
}
