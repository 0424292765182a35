//! The search against two slow oracles over small random histories: stateright's tester, and for stale gets every order
//! tried one by one. And against histories that are linearizable by construction.
#![forbid(unsafe_code)]

mod common;

use std::collections::BTreeMap;

use common::{Call, Map, Reply, Run, Shape, Step, flip, random_call, real_run, record};
use dataplane_history::{Limits, Verdict};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_pcg::Pcg64Mcg;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

impl SequentialSpec for Map {
    type Op = (u8, Call);
    type Ret = Reply;

    fn invoke(&mut self, (key, call): &Self::Op) -> Reply {
        self.apply(*key, call)
    }

    fn is_valid_step(&mut self, (key, call): &Self::Op, reply: &Reply) -> bool {
        self.explains(*key, call, reply)
    }
}

/// What stateright says of the whole run, all keys at once. Each operation is a thread of its own, so that a client may go
/// on after a lost one; the tester's order in time is that of the calls.
fn stateright_accepts(run: &Run) -> bool {
    let refused: Vec<u32> = run
        .iter()
        .filter_map(|(_, step)| match step {
            Step::Answer {
                op,
                reply: Reply::Refused,
            } => Some(*op),
            _ => None,
        })
        .collect();
    let mut tester = LinearizabilityTester::new(Map::default());
    let mut op_count = 0;
    for (_, step) in run {
        match step {
            Step::Invoke { key, call, .. } => {
                if !refused.contains(&op_count) {
                    tester.on_invoke(op_count, (*key, call.clone())).expect("a new thread");
                }
                op_count += 1;
            }
            Step::Answer {
                reply: Reply::Refused, ..
            } => {}
            Step::Answer { op, reply } => {
                tester.on_return(*op, reply.clone()).expect("an open operation");
            }
        }
    }
    tester.is_consistent()
}

/// What trying every order says of each key, stale gets included: a stale get may come anywhere before its answer, after
/// its client's earlier ones.
fn every_order_accepts(run: &Run) -> bool {
    struct Tried {
        client: u32,
        call: Call,
        reply: Option<Reply>,
        invoked: usize,
        answered: usize,
    }
    fn any(ops: &[Tried], placed: u32, map: &Map) -> bool {
        let is_placed = |index: usize| placed & (1 << index) != 0;
        if ops
            .iter()
            .enumerate()
            .all(|(index, op)| is_placed(index) || op.reply.is_none())
        {
            return true;
        }
        let precedes = |a: &Tried, b: &Tried| {
            let b_has_start = b.call != Call::StaleGet || (a.call == Call::StaleGet && a.client == b.client);
            b_has_start && a.answered < b.invoked
        };
        (0..ops.len()).any(|index| {
            let op = &ops[index];
            let is_next = !is_placed(index)
                && (0..ops.len()).all(|other| is_placed(other) || other == index || !precedes(&ops[other], op));
            let mut map = map.clone();
            let fits = |map: &mut Map| match &op.reply {
                Some(reply) => map.explains(0, &op.call, reply),
                None => {
                    map.apply(0, &op.call);
                    true
                }
            };
            is_next && fits(&mut map) && any(ops, placed | 1 << index, &map)
        })
    }
    let mut keys: BTreeMap<u8, Vec<Tried>> = BTreeMap::new();
    let mut places = Vec::new();
    for (now, (_, step)) in run.iter().enumerate() {
        match step {
            Step::Invoke { client, key, call } => {
                let ops = keys.entry(*key).or_default();
                places.push((*key, ops.len()));
                ops.push(Tried {
                    client: *client,
                    call: call.clone(),
                    reply: None,
                    invoked: now,
                    answered: usize::MAX,
                });
            }
            Step::Answer { op, reply } => {
                let (key, index) = places[*op as usize];
                let op = &mut keys.get_mut(&key).expect("invoked")[index];
                op.reply = Some(reply.clone());
                op.answered = now;
            }
        }
    }
    keys.into_values().all(|mut ops| {
        ops.retain(|op| op.reply != Some(Reply::Refused));
        any(&ops, 0, &Map::default())
    })
}

/// Steps in any order, answers at random: mostly nonsense.
fn random_run(seed: u64, shape: Shape) -> Run {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut run = real_run(seed, shape);
    let op_count = run
        .iter()
        .filter(|(_, step)| matches!(step, Step::Invoke { .. }))
        .count() as u32;
    let calls: Vec<Call> = (0..op_count)
        .map(|number| random_call(&mut rng, shape, number))
        .collect();
    let value = |rng: &mut Pcg64Mcg| {
        rng.random_bool(0.8)
            .then(|| vec![b'a' + rng.random_range(0..shape.values) as u8])
    };
    let mut number = 0;
    for (_, step) in &mut run {
        match step {
            Step::Invoke { call, .. } => {
                *call = calls[number].clone();
                number += 1;
            }
            Step::Answer {
                reply: Reply::Refused, ..
            } => {}
            Step::Answer { op, reply } => {
                *reply = match &calls[*op as usize] {
                    Call::Get | Call::StaleGet => Reply::Value(value(&mut rng)),
                    Call::Put(_) | Call::Append(_) => Reply::Done,
                    Call::Swap(expected, _) => match value(&mut rng) {
                        found if found == *expected => Reply::Swapped,
                        _ if rng.random_bool(0.3) => Reply::NotSwapped,
                        found => Reply::Mismatch(found),
                    },
                    Call::Delete if rng.random_bool(0.3) => Reply::Done,
                    Call::Delete => Reply::Deleted(rng.random_bool(0.5)),
                }
            }
        }
    }
    run
}

/// Small enough for the oracles, with everything in it.
fn small(clients: u32, ops_per_client: u32, keys: u8) -> Shape {
    Shape {
        clients,
        ops_per_client,
        keys,
        values: 2,
        lost_ratio: 0.2,
        refused_ratio: 0.1,
        stale_ratio: 0.0,
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(small(2, 4, 1)),
        Just(small(4, 2, 1)),
        Just(small(3, 3, 2)),
        Just(small(8, 1, 1)),
    ]
}

/// Our verdict as a yes or no; limits are far away in histories of this size.
fn accepts(verdict: Verdict) -> bool {
    assert!(!matches!(verdict, Verdict::Unknown { .. }), "{verdict}");
    verdict.is_linearizable()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_same_verdict_as_stateright_after_one_answer_was_changed(seed: u64, shape in shapes()) {
        let run = real_run(seed, shape);
        let verdict = record(&run).check(&Limits::default());
        prop_assert!(verdict.is_linearizable(), "seed {seed}: {verdict}");
        prop_assert!(stateright_accepts(&run), "seed {seed}: the oracle refuses a real run");
        if let Some(flipped) = flip(seed, &run) {
            let verdict = record(&flipped).check(&Limits::default());
            prop_assert_eq!(stateright_accepts(&flipped), accepts(verdict.clone()), "seed {}: {}\n{:#?}", seed, verdict, flipped);
        }
    }

    #[test]
    fn the_same_verdict_as_stateright_on_nonsense(seed: u64, shape in shapes()) {
        let run = random_run(seed, shape);
        let verdict = record(&run).check(&Limits::default());
        prop_assert_eq!(stateright_accepts(&run), accepts(verdict.clone()), "seed {}: {}\n{:#?}", seed, verdict, run);
    }

    #[test]
    fn the_same_verdict_as_every_order_with_stale_gets(seed: u64, shape in shapes()) {
        let shape = Shape { stale_ratio: 0.4, ..shape };
        let real = real_run(seed, shape);
        let verdict = record(&real).check_stale(&Limits::default());
        prop_assert!(verdict.is_linearizable(), "seed {seed}: {verdict}\n{real:#?}");
        for run in [flip(seed, &real), Some(random_run(seed, shape))].into_iter().flatten() {
            let verdict = record(&run).check_stale(&Limits::default());
            prop_assert_eq!(every_order_accepts(&run), accepts(verdict.clone()), "seed {}: {}\n{:#?}", seed, verdict, run);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_long_real_run_is_linearizable(seed: u64, values in 0..4u32, lost_percent in 0..6u32, stale in any::<bool>()) {
        let shape = Shape {
            clients: 5,
            ops_per_client: 60,
            keys: 3,
            values,
            lost_ratio: f64::from(lost_percent) / 100.0,
            refused_ratio: 0.05,
            stale_ratio: if stale { 0.2 } else { 0.0 },
        };
        let history = record(&real_run(seed, shape));
        let verdict = history.check(&Limits::default());
        prop_assert!(verdict.is_linearizable(), "seed {seed}: {verdict}");
        let verdict = history.check_stale(&Limits::default());
        prop_assert!(verdict.is_linearizable(), "seed {seed}, with stale gets: {verdict}");
    }
}

/// A comparison in which one side always says the same would show nothing.
#[test]
fn the_random_histories_get_both_verdicts() {
    let mut counts = [[0u32; 2]; 2];
    for seed in 0..300 {
        let shape = small(4, 2, 1);
        let nonsense = record(&random_run(seed, shape)).check(&Limits::default());
        counts[0][usize::from(accepts(nonsense))] += 1;
        if let Some(flipped) = flip(seed, &real_run(seed, shape)) {
            counts[1][usize::from(accepts(record(&flipped).check(&Limits::default())))] += 1;
        }
    }
    println!(
        "nonsense: [refused, accepted] {:?}; one answer changed: {:?}",
        counts[0], counts[1]
    );
    assert!(counts.iter().flatten().all(|count| *count >= 30), "{counts:?}");
}
