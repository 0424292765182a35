//! Asks one node, and another after each time-out, without withdrawing anything: what most clients do. Where time-outs come from
//! too much load, each adds to it, and the node is kept busy with requests that nobody waits for any more: a metastable failure
//! (Bronson et al., HotOS 2021), which lasts after its cause is gone. A budget bounds the retries by a share of the calls.

use super::{Call, Choice, Context, Policy};

/// How many retries there may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// As many as time out.
    Unbounded,
    /// At most this share of the calls, and a few at once: each call earns so much of a retry.
    Ratio(f64),
}

/// The most that is saved up.
const SAVED_MAX: f64 = 10.0;

/// See the module.
#[derive(Clone, Debug)]
pub struct Retry {
    timeout_ns: u64,
    attempts_max: u32,
    budget: Budget,
    choice: Choice,
    saved: f64,
}

impl Retry {
    /// Asks again after each `timeout_ns`, `attempts_max` times in all, and then gives up.
    pub fn new(timeout_ns: u64, attempts_max: u32, budget: Budget, choice: Choice) -> Retry {
        Retry {
            timeout_ns,
            attempts_max,
            budget,
            choice,
            saved: SAVED_MAX,
        }
    }

    fn may_retry(&mut self) -> bool {
        match self.budget {
            Budget::Unbounded => true,
            Budget::Ratio(_) if self.saved < 1.0 => false,
            Budget::Ratio(_) => {
                self.saved -= 1.0;
                true
            }
        }
    }
}

impl Policy for Retry {
    fn begin(&mut self, call: &mut Call, context: &mut Context<'_>) {
        if let Budget::Ratio(ratio) = self.budget {
            self.saved = (self.saved + ratio).min(SAVED_MAX);
        }
        let node = self.choice.choose(context.loads, &[], context.random);
        context.ask(call, node);
        call.wake_ns = Some(context.now_ns + self.timeout_ns);
    }

    fn answered(&mut self, call: &mut Call, _node: u32, _context: &mut Context<'_>) {
        // Whichever of its attempts it was: a client that knows it by its number takes it.
        call.is_done = true;
    }

    fn wake(&mut self, call: &mut Call, context: &mut Context<'_>) {
        if call.asked.len() as u32 >= self.attempts_max || !self.may_retry() {
            call.is_done = true;
            call.is_given_up = true;
            return;
        }
        let node = self.choice.choose(context.loads, &call.asked, context.random);
        context.ask(call, node);
        call.wake_ns = Some(context.now_ns + self.timeout_ns);
    }
}
