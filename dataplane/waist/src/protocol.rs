//! A protocol is a state machine: no I/O, no clock, no randomness of its own.

use crate::{Durable, Effects, Instant, Peer};

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A frame came. Its bytes are unchecked.
    Frame {
        /// From this peer.
        from: Peer,
        /// The frame.
        bytes: &'a [u8],
    },
    /// What was written is so far as safe as the log makes it. Acknowledgements are sent from here, and only from here.
    Durable(Durable),
    /// [`Protocol::wake_at`] has come.
    Tick,
}

/// A participant's part of a protocol.
pub trait Protocol: Send {
    /// Takes one input and writes what is to be done into `out`.
    ///
    /// What it sends out of [`Input::Frame`] or [`Input::Tick`] leaves before the log has seen what it writes: that is
    /// right for a leader, whose followers write at the same time as it does, and wrong for an acknowledgement.
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects);
    /// When to call with [`Input::Tick`], if nothing happens before.
    fn wake_at(&self) -> Option<Instant>;
}
