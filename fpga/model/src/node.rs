//! A node of the quorum: the ports of `quorum_leader` and `quorum_follower`, and their models.

mod bench;
mod emit;
mod follower;
mod leader;
mod parser;

pub use bench::{Bench, Setup};
pub use follower::Follower;
pub use leader::Leader;

use crate::stream::Beat;

/// Parameters of a node that the models share with the RTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a beat: 8 or 64.
    pub beat_bytes: usize,
    /// Leader: how many nodes there are, itself included.
    pub nodes_count: usize,
    /// Base-2 logarithm of the entries that the host's ring has room for.
    pub ring_log2: u32,
    /// Base-2 logarithm of the sessions.
    pub sessions_log2: u32,
    /// Base-2 logarithm of the beats that are kept.
    pub depth_log2: u32,
}

impl Shape {
    /// Beats of 64 bits.
    pub const NARROW: Shape = Shape {
        beat_bytes: 8,
        nodes_count: 7,
        ring_log2: 8,
        sessions_log2: 8,
        depth_log2: 9,
    };
    /// Beats of 512 bits.
    pub const WIDE: Shape = Shape {
        beat_bytes: 64,
        depth_log2: 6,
        ..Shape::NARROW
    };

    /// A frame of so many beats is no fast path's: half of what is kept.
    const fn long_beats(&self) -> u64 {
        1 << (self.depth_log2 - 1)
    }
}

/// What a block is shown in a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// Reset.
    pub rst: bool,
    /// The host writes this register.
    pub write: Option<(u8, u64)>,
    /// A beat from the network.
    pub beat: Option<Beat>,
    /// The network takes a beat.
    pub tx_ready: bool,
    /// The host takes a beat of what it must see.
    pub slow_ready: bool,
    /// The host takes a beat of the log.
    pub log_ready: bool,
    /// The host takes a commit end.
    pub commit_ready: bool,
}

impl Inputs {
    /// Nothing comes, and everything is taken.
    pub const QUIET: Inputs = Inputs {
        rst: false,
        write: None,
        beat: None,
        tx_ready: true,
        slow_ready: true,
        log_ready: true,
        commit_ready: true,
    };
}

/// What a block shows in a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// A register may be written.
    pub write_ready: bool,
    /// A beat from the network is taken.
    pub ready: bool,
    /// To the network.
    pub tx: Option<Beat>,
    /// To the host, as it came.
    pub slow: Option<Beat>,
    /// Into the host's log, with the slot.
    pub log: Option<(Beat, u64)>,
    /// A new commit end. Followers have none.
    pub commit: Option<u64>,
    /// The slot of the next entry, a cycle late.
    pub next: u64,
    /// Everything before is committed, a cycle late.
    pub commit_end: u64,
}

/// A node, whatever it is made of.
pub trait Node {
    /// What the ports show before the next edge.
    fn outputs(&self) -> Outputs;
    /// The next rising edge, with these inputs before it.
    fn clock(&mut self, inputs: &Inputs);
}

impl<N: Node + ?Sized> Node for Box<N> {
    fn outputs(&self) -> Outputs {
        (**self).outputs()
    }
    fn clock(&mut self, inputs: &Inputs) {
        (**self).clock(inputs);
    }
}

/// A comparison in two cycles, as `compare_pipe`.
#[derive(Clone, Copy, Debug, Default)]
struct ComparePipe {
    chunks: (bool, bool),
    /// The first number was larger.
    gt: bool,
    /// They were equal.
    eq: bool,
}

impl ComparePipe {
    const fn clock(&mut self, a: u64, b: u64) {
        (self.gt, self.eq) = self.chunks;
        self.chunks = (a > b, a == b);
    }
}
