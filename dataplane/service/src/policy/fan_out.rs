//! Asks n nodes at once, and is done when k of them have answered. k = n is a search over n pieces, whose slowest leaf decides;
//! k < n is a quorum, which does without the slowest.

use super::{Call, Choice, Context, Policy};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct FanOut {
    /// How many are asked: the first so many where all are as good as any, which is what a fan-out over pieces is.
    pub asked_count: u32,
    /// How many answers are enough.
    pub needed_count: u32,
    /// Whom, if there are more nodes than are asked.
    pub choice: Choice,
}

impl Policy for FanOut {
    fn begin(&mut self, call: &mut Call, context: &mut Context<'_>) {
        if self.asked_count >= context.loads.nodes_count() {
            (0..context.loads.nodes_count()).for_each(|node| context.ask(call, node));
            return;
        }
        for _ in 0..self.asked_count {
            let node = self.choice.choose(context.loads, &call.asked, context.random);
            context.ask(call, node);
        }
    }

    fn answered(&mut self, call: &mut Call, _node: u32, _context: &mut Context<'_>) {
        call.is_done = call.answered_count >= self.needed_count;
    }
}
