//! What a replicated log is for: a deterministic state that its entries build.

use dataplane_wire::{
    Reject,
    quorum::{reply::Outcome, request::Command},
};

use crate::Slot;

/// A state that changes by commands alone: the same commands in the same order give the same state and the same answers
/// on every replica (Schneider, "Implementing fault-tolerant services using the state machine approach", 1990, §2).
///
/// No clock, no randomness, no order that a hash map decides.
pub trait StateMachine: Send {
    /// Does what a command that changes something says; calls `answer` once.
    fn apply(&mut self, command: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>));
    /// A leader knows from now on that everything before `end` is committed; what of it was not applied comes next. For whoever times
    /// replicas, which have no clock.
    fn note_committed(&mut self, _end: Slot) {}
    /// Answers a command that only reads; calls `answer` once.
    fn read(&self, command: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>));
    /// Appends the whole state to `out`: equal states give equal bytes.
    fn save(&self, out: &mut Vec<u8>);
    /// Becomes what [`StateMachine::save`] wrote.
    ///
    /// # Errors
    /// Why the bytes are not what `save` writes; the state is then as it was.
    fn load(&mut self, bytes: &[u8]) -> Result<(), Reject>;
    /// Which puts may be answered before they are applied: what whoever answers them elsewhere relies on. Each of the next commands
    /// has a key and values of at most `command_bytes_max` together. A machine that says nothing is relied on for none.
    fn sure_puts(&self, _command_bytes_max: usize) -> SurePuts {
        SurePuts::default()
    }
}

/// Puts that are done for certain, see [`StateMachine::sure_puts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SurePuts {
    /// Those among so many of the next commands, whatever the others are.
    pub count: u64,
    /// Of values no longer than this.
    pub value_bytes_max: usize,
}
