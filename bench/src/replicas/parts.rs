//! Which parts of the normal case are done in the driver, and which by replicas in user space: a rung of the ladder from none to
//! all, or one of Electrode's offloads by itself.

use serde::{Deserialize, Serialize};

/// The parts. What is not done here, the replicas do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// A leader in user space sends each entry once, to an address that the switch floods, instead of once for each follower.
    pub broadcasts: bool,
    /// A follower's program keeps the next entry and acknowledges it.
    pub acknowledges: bool,
    /// A leader's program counts acknowledgements, and passes only the one up that completes a quorum.
    pub counts: bool,
    /// It also gives requests their slots, sends them to all followers, and answers. Takes [`Parts::counts`].
    pub appends: bool,
}

impl Parts {
    /// Nothing: programs pass everything up.
    pub const NONE: Parts = Parts {
        broadcasts: false,
        acknowledges: false,
        counts: false,
        appends: false,
    };
    /// A leader's program sends to all followers by itself, so there is nothing left to broadcast from user space.
    pub const ALL: Parts = Parts {
        acknowledges: true,
        counts: true,
        appends: true,
        ..Parts::NONE
    };
}
