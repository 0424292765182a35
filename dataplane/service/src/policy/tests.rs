//! Each policy, told what happens, step by step.

use super::*;

/// One call under a policy, and what it wanted done at each step.
struct Bench<P> {
    policy: P,
    call: Call,
    random: Random,
    loads: Loads,
    acts: Vec<Act>,
}

impl<P: Policy> Bench<P> {
    fn new(policy: P, nodes_count: usize) -> Bench<P> {
        Bench {
            policy,
            call: Call::default(),
            random: Random::new(1, 1),
            loads: Loads::new(nodes_count),
            acts: Vec::new(),
        }
    }

    fn step(&mut self, now_ns: u64, step: impl FnOnce(&mut P, &mut Call, &mut Context<'_>)) -> Vec<Act> {
        self.acts.clear();
        let mut context = Context {
            now_ns,
            random: &mut self.random,
            loads: &self.loads,
            acts: &mut self.acts,
        };
        step(&mut self.policy, &mut self.call, &mut context);
        self.acts.clone()
    }

    fn begin(&mut self, now_ns: u64) -> Vec<Act> {
        self.call.reset(now_ns);
        self.step(now_ns, |policy, call, context| policy.begin(call, context))
    }

    fn answered(&mut self, now_ns: u64, node: u32) -> Vec<Act> {
        self.call.answered_count += 1;
        self.step(now_ns, |policy, call, context| policy.answered(call, node, context))
    }

    fn wake(&mut self) -> Vec<Act> {
        let at_ns = self.call.wake_ns.take().expect("it wanted to be woken");
        self.step(at_ns, |policy, call, context| policy.wake(call, context))
    }
}

fn asked(acts: &[Act]) -> Vec<u32> {
    acts.iter()
        .filter_map(|act| match act {
            Act::Ask { node, .. } => Some(*node),
            Act::Withdraw { .. } => None,
        })
        .collect()
}

#[test]
fn a_fan_out_is_done_with_the_answer_that_is_enough() {
    let mut bench = Bench::new(
        FanOut {
            asked_count: 5,
            needed_count: 3,
            choice: Choice::Random,
        },
        5,
    );
    assert_eq!(asked(&bench.begin(0)), [0, 1, 2, 3, 4]);
    for (node, is_done) in [(4, false), (1, false), (0, true)] {
        bench.answered(10, node);
        assert_eq!(bench.call.is_done, is_done);
    }
    // Of more nodes so many are asked, none twice.
    let mut some = Bench::new(
        FanOut {
            asked_count: 5,
            needed_count: 5,
            choice: Choice::Random,
        },
        9,
    );
    let mut whom = asked(&some.begin(0));
    whom.sort_unstable();
    whom.dedup();
    assert_eq!(whom.len(), 5);
}

#[test]
fn good_enough_waits_for_all_until_the_deadline_and_for_enough_after_it() {
    let policy = GoodEnough {
        deadline_ns: 100,
        enough_count: 2,
    };
    let mut bench = Bench::new(policy, 3);
    bench.begin(0);
    bench.answered(10, 0);
    bench.answered(20, 1);
    assert!(!bench.call.is_done, "two of three, and there is time");
    bench.wake();
    assert!(bench.call.is_done);
    bench.begin(0);
    bench.answered(10, 0);
    bench.wake();
    assert!(!bench.call.is_done, "one is not enough");
    bench.answered(150, 2);
    assert!(bench.call.is_done);
}

#[test]
fn a_hedge_asks_another_node_after_the_while_and_withdraws_the_loser() {
    let mut bench = Bench::new(Hedge::new(HedgeAfter::Fixed { ns: 100 }, Choice::Random, true), 2);
    let first = asked(&bench.begin(0))[0];
    assert_eq!(bench.call.wake_ns, Some(100));
    assert_eq!(asked(&bench.wake()), [1 - first], "another one");
    assert_eq!(bench.answered(120, 1 - first), [Act::Withdraw { node: first }]);
    assert!(bench.call.is_done);
}

#[test]
fn a_moving_percentile_follows_what_calls_take() {
    let after = HedgeAfter::Percentile { q: 0.95, first_ns: 7 };
    let mut bench = Bench::new(Hedge::new(after, Choice::Random, false), 2);
    assert_eq!(bench.policy.while_ns(), 7);
    for took_ns in (1..=100).cycle().take(2_000) {
        let node = asked(&bench.begin(0))[0];
        bench.answered(took_ns, node);
    }
    assert_eq!(bench.policy.while_ns(), 95);
    for _ in 0..2_000 {
        let node = asked(&bench.begin(0))[0];
        bench.answered(1_000, node);
    }
    assert_eq!(bench.policy.while_ns(), 1_000);
}

#[test]
fn of_tied_requests_the_one_that_begins_has_the_other_withdrawn() {
    let mut bench = Bench::new(
        Tied {
            delay_ns: 0,
            choice: Choice::Random,
        },
        2,
    );
    let whom = asked(&bench.begin(0));
    assert_eq!(whom.len(), 2);
    let withdrawn = bench.step(10, |policy, call, context| policy.began(call, whom[1], context));
    assert_eq!(withdrawn, [Act::Withdraw { node: whom[0] }]);
    // The other began at the same time: nobody is left to withdraw.
    let both = bench.step(11, |policy, call, context| policy.began(call, whom[0], context));
    assert_eq!(both, []);
    bench.answered(20, whom[1]);
    assert!(bench.call.is_done);

    let mut delayed = Bench::new(
        Tied {
            delay_ns: 50,
            choice: Choice::Random,
        },
        2,
    );
    let first = asked(&delayed.begin(0));
    assert_eq!(first.len(), 1);
    delayed.step(10, |policy, call, context| policy.began(call, first[0], context));
    assert_eq!(delayed.call.wake_ns, None, "an idle node has begun: no second copy");
}

#[test]
fn retries_end_after_their_attempts_or_with_their_budget() {
    let mut bench = Bench::new(Retry::new(100, 3, Budget::Unbounded, Choice::Random), 3);
    let mut whom = asked(&bench.begin(0));
    whom.extend(asked(&bench.wake()));
    whom.extend(asked(&bench.wake()));
    whom.sort_unstable();
    assert_eq!(whom, [0, 1, 2], "each time another");
    bench.wake();
    assert!(bench.call.is_done && bench.call.is_given_up);

    // A tenth: when what was saved is gone, one retry for ten calls.
    let mut bench = Bench::new(Retry::new(100, 2, Budget::Ratio(0.1), Choice::Random), 3);
    let mut retries_count = 0;
    for _ in 0..1_000 {
        bench.begin(0);
        retries_count += bench.wake().len();
    }
    assert!((100..=111).contains(&retries_count), "{retries_count}");
}

#[test]
fn the_less_loaded_is_chosen() {
    let mut loads = Loads::new(3);
    let mut random = Random::new(3, 3);
    loads.add(0);
    loads.add(2);
    for _ in 0..20 {
        assert_eq!(Choice::LeastLoaded.choose(&loads, &[], &mut random), 1);
        assert_ne!(Choice::LeastLoaded.choose(&loads, &[1], &mut random), 1);
        // Of two that are looked at, the one without load wins, so it is chosen more often than not.
        assert!(Choice::Random.choose(&loads, &[0, 1], &mut random) == 2);
    }
    let chosen = (0..300).filter(|_| Choice::LessLoadedOfTwo.choose(&loads, &[], &mut random) == 1);
    // 1 − (2/3)² = 5/9 of 300.
    assert!((130..=200).contains(&chosen.count()));
    loads.remove(0);
    loads.remove(0);
    assert_eq!(loads.at(0), 0);
}
