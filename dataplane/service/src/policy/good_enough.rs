//! Asks all nodes, and after a deadline is done with those that have answered, if they are enough (Dean and Barroso, 2013: "good
//! enough" responses). What it gives up is completeness, and how much of it has to stand beside the latency.

use super::{Call, Context, Policy};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct GoodEnough {
    /// How long it waits for all, in nanoseconds.
    pub deadline_ns: u64,
    /// How many answers are enough after that.
    pub enough_count: u32,
}

impl Policy for GoodEnough {
    fn begin(&mut self, call: &mut Call, context: &mut Context<'_>) {
        (0..context.loads.nodes_count()).for_each(|node| context.ask(call, node));
        call.wake_ns = Some(context.now_ns + self.deadline_ns);
    }

    fn answered(&mut self, call: &mut Call, _node: u32, context: &mut Context<'_>) {
        let is_late = context.now_ns >= call.started_ns + self.deadline_ns;
        let all = call.answered_count as usize == call.asked.len();
        call.is_done = all || is_late && call.answered_count >= self.enough_count;
    }

    fn wake(&mut self, call: &mut Call, _context: &mut Context<'_>) {
        call.is_done = call.answered_count >= self.enough_count;
    }
}
