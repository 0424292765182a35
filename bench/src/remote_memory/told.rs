//! When a replica knew that an entry is committed.

use dataplane_waist::{Clock, Instant, MonotonicClock, Slot, StateMachine, SurePuts};
use dataplane_wire::{
    Reject,
    quorum::{reply::Outcome, request::Command},
};

/// A machine that remembers when its replica, as the leader, has told it last that something is committed: a replica has no clock of its own
/// to say so.
#[derive(Debug)]
pub struct Told<M> {
    machine: M,
    clock: MonotonicClock,
    at: Option<Instant>,
}

impl<M> Told<M> {
    /// Nothing was said so far.
    pub fn new(machine: M, clock: MonotonicClock) -> Told<M> {
        Told {
            machine,
            clock,
            at: None,
        }
    }

    /// When that was.
    pub fn told_at(&self) -> Option<Instant> {
        self.at
    }
}

impl<M: StateMachine> StateMachine for Told<M> {
    fn apply(&mut self, command: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>)) {
        self.machine.apply(command, answer);
    }

    fn note_committed(&mut self, end: Slot) {
        self.at = Some(self.clock.now());
        self.machine.note_committed(end);
    }

    fn read(&self, command: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>)) {
        self.machine.read(command, answer);
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.machine.save(out);
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), Reject> {
        self.machine.load(bytes)
    }

    fn sure_puts(&self, command_bytes_max: usize) -> SurePuts {
        self.machine.sure_puts(command_bytes_max)
    }
}
