//! Asks one node, and another if the first has not answered after a while (Dean and Barroso, 2013: hedged requests). With a
//! while as long as the p95 it costs 5 % more requests; it helps as far as the second node is not slow for the same reason.

use std::collections::VecDeque;

use super::{Act, Call, Choice, Context, Policy};

/// After how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HedgeAfter {
    /// So many nanoseconds.
    Fixed {
        /// The while.
        ns: u64,
    },
    /// As long as this share of the last calls took at most.
    Percentile {
        /// 0 to 1.
        q: f64,
        /// Until `WINDOW_MIN` calls have been answered, in nanoseconds.
        first_ns: u64,
    },
}

/// So many of the last first answers are looked at.
const WINDOW: usize = 1_000;
/// With fewer no percentile is believed.
const WINDOW_MIN: usize = 100;
/// So often the percentile is computed anew: after so many answers.
const EVERY: usize = 50;

/// See the module.
#[derive(Clone, Debug)]
pub struct Hedge {
    after: HedgeAfter,
    choice: Choice,
    /// How long the first node took, of the last calls; a call that was hedged counts as long as it took until then, at least.
    window: VecDeque<u64>,
    since_computed: usize,
    while_ns: u64,
    /// The loser is told that it need not.
    withdraws: bool,
}

impl Hedge {
    /// A policy that has seen nothing yet.
    pub fn new(after: HedgeAfter, choice: Choice, withdraws: bool) -> Hedge {
        let while_ns = match after {
            HedgeAfter::Fixed { ns } => ns,
            HedgeAfter::Percentile { first_ns, .. } => first_ns,
        };
        Hedge {
            after,
            choice,
            window: VecDeque::with_capacity(WINDOW),
            since_computed: 0,
            while_ns,
            withdraws,
        }
    }

    /// The while, now, in nanoseconds.
    pub fn while_ns(&self) -> u64 {
        self.while_ns
    }

    fn learn(&mut self, took_ns: u64) {
        let HedgeAfter::Percentile { q, .. } = self.after else {
            return;
        };
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(took_ns);
        self.since_computed += 1;
        if self.window.len() < WINDOW_MIN || self.since_computed < EVERY {
            return;
        }
        self.since_computed = 0;
        let mut sorted: Vec<u64> = self.window.iter().copied().collect();
        let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1;
        self.while_ns = *sorted.select_nth_unstable(rank).1;
    }
}

impl Policy for Hedge {
    fn begin(&mut self, call: &mut Call, context: &mut Context<'_>) {
        let node = self.choice.choose(context.loads, &[], context.random);
        context.ask(call, node);
        call.wake_ns = Some(context.now_ns + self.while_ns);
    }

    fn answered(&mut self, call: &mut Call, node: u32, context: &mut Context<'_>) {
        if !call.is_done {
            // Of the first that was asked; the second has begun later, and is no measure of it.
            self.learn(context.now_ns - call.started_ns);
        }
        call.is_done = true;
        if self.withdraws && call.answered_count == 1 {
            let others = call.asked.iter().filter(|other| **other != node);
            context.acts.extend(others.map(|&node| Act::Withdraw { node }));
        }
    }

    fn wake(&mut self, call: &mut Call, context: &mut Context<'_>) {
        let node = self.choice.choose(context.loads, &call.asked, context.random);
        context.ask(call, node);
    }
}
