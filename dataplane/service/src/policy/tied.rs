//! Asks two nodes at once, or nearly so; the one that begins first has the other's copy withdrawn (Dean and Barroso, 2013: tied
//! requests). Waiting in two queues costs little more than waiting in one, since only one serves; both do if they begin within
//! a message's time of each other, which the delay between the two makes rare on idle nodes.
//!
//! In the paper the nodes tell each other. Here the node tells the client, who tells the other node: twice the way.

use super::{Act, Call, Choice, Context, Policy};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Tied {
    /// Between the two copies, in nanoseconds; 1 ms in the paper, twice the network's delay and more.
    pub delay_ns: u64,
    /// Whom.
    pub choice: Choice,
}

impl Tied {
    fn ask(self, call: &mut Call, context: &mut Context<'_>) {
        let node = self.choice.choose(context.loads, &call.asked, context.random);
        call.asked.push(node);
        context.acts.push(Act::Ask { node, tells: true });
    }

    fn withdraw_others(call: &Call, node: u32, context: &mut Context<'_>) {
        let others = call.asked.iter().filter(|other| **other != node);
        context.acts.extend(others.map(|&node| Act::Withdraw { node }));
    }
}

impl Policy for Tied {
    fn begin(&mut self, call: &mut Call, context: &mut Context<'_>) {
        self.ask(call, context);
        match self.delay_ns {
            0 => self.ask(call, context),
            delay_ns => call.wake_ns = Some(context.now_ns + delay_ns),
        }
    }

    fn began(&mut self, call: &mut Call, node: u32, context: &mut Context<'_>) {
        if !call.has_begun {
            Tied::withdraw_others(call, node, context);
        }
        call.has_begun = true;
        call.wake_ns = None;
    }

    fn answered(&mut self, call: &mut Call, node: u32, context: &mut Context<'_>) {
        if !call.has_begun {
            // Its word that it began was lost.
            Tied::withdraw_others(call, node, context);
        }
        call.has_begun = true;
        call.is_done = true;
    }

    fn wake(&mut self, call: &mut Call, context: &mut Context<'_>) {
        self.ask(call, context);
    }
}
