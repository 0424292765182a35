//! What a client does about slow nodes. One file each, to be read side by side; the simulator and real clients run the same code.
//!
//! | policy | asks | extra load, in requests a call |
//! |---|---|---|
//! | [`FanOut`] | n, and is done with k of them | n − 1; none of it is for the tail if a call is cut into n pieces |
//! | [`GoodEnough`] | n, and is done with fewer after a deadline | none |
//! | [`Hedge`] | one; another after a while | the share of calls that take longer than the while |
//! | [`Tied`] | two, one of which is withdrawn when the other begins | one message each; service only where both begin at once |
//! | [`Retry`] | one; another after each time-out | without a budget as many as time-outs: that can be all of them |
//!
//! What a policy really cost is counted by who drives it ([`Counts`]).

mod choice;
mod fan_out;
mod good_enough;
mod hedge;
mod retry;
mod tied;

pub use choice::{Choice, Loads};
pub use fan_out::FanOut;
pub use good_enough::GoodEnough;
pub use hedge::{Hedge, HedgeAfter};
pub use retry::{Budget, Retry};
pub use tied::Tied;

use crate::random::Random;

/// One call of a client: it asks one node or several, and is done once.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// When it was meant to begin, in nanoseconds.
    pub started_ns: u64,
    /// Whom it has asked, in order.
    pub asked: Vec<u32>,
    /// How many have answered.
    pub answered_count: u32,
    /// When the policy wants to be woken, if it does.
    pub wake_ns: Option<u64>,
    /// It is done: nothing more is asked for it.
    pub is_done: bool,
    /// It was given up.
    pub is_given_up: bool,
    /// Tied: one of its copies has begun.
    pub has_begun: bool,
}

impl Call {
    /// A new call, in the memory of an old one.
    pub fn reset(&mut self, started_ns: u64) {
        let mut asked = std::mem::take(&mut self.asked);
        asked.clear();
        *self = Call {
            started_ns,
            asked,
            ..Call::default()
        };
    }
}

/// What is to be done for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Ask this node.
    Ask {
        /// Its index.
        node: u32,
        /// It is to say when it begins.
        tells: bool,
    },
    /// Tell this node that it need not, if it has not begun.
    Withdraw {
        /// Its index.
        node: u32,
    },
}

/// What a policy sees and may do.
#[derive(Debug)]
pub struct Context<'a> {
    /// Time, in nanoseconds.
    pub now_ns: u64,
    /// Its dice.
    pub random: &'a mut Random,
    /// What is under way at each node.
    pub loads: &'a Loads,
    /// What it wants done.
    pub acts: &'a mut Vec<Act>,
}

impl Context<'_> {
    /// Asks a node for a call.
    pub fn ask(&mut self, call: &mut Call, node: u32) {
        call.asked.push(node);
        self.acts.push(Act::Ask { node, tells: false });
    }
}

/// A client's policy: a state machine for all its calls. Whoever drives it times the calls and sends what it wants sent.
pub trait Policy: Send {
    /// A call begins.
    fn begin(&mut self, call: &mut Call, context: &mut Context<'_>);
    /// A node that was to say so has begun with it.
    fn began(&mut self, _call: &mut Call, _node: u32, _context: &mut Context<'_>) {}
    /// A node has answered; the call's count of answers says so already. Sets [`Call::is_done`] with the one that is enough.
    fn answered(&mut self, call: &mut Call, node: u32, context: &mut Context<'_>);
    /// [`Call::wake_ns`] has come, and was cleared.
    fn wake(&mut self, _call: &mut Call, _context: &mut Context<'_>) {}
}

/// What a policy cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that began.
    pub calls_count: u64,
    /// Requests that were sent for them.
    pub asked_count: u64,
    /// Withdrawals that were sent.
    pub withdrawn_count: u64,
    /// Calls that were given up.
    pub given_up_count: u64,
}

impl Counts {
    /// Requests beyond `needed_per_call`, as a share of those.
    pub fn extra_ratio(&self, needed_per_call: u32) -> f64 {
        let needed = (self.calls_count * u64::from(needed_per_call)).max(1) as f64;
        self.asked_count as f64 / needed - 1.0
    }
}

#[cfg(test)]
mod tests;
