//! The log's half of a turn: writes what a protocol wants kept, and says when the log calls it safe.

use std::io;

use crate::{Durable, Effects, Log, LogWrite, Slot, Tail};

/// How far a log was written, and how far its protocol was told that it is safe. [`crate::Node`] has one; whoever turns a
/// protocol by hand, in a test or a bench without a port, has another one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// How far the protocol has been told that the log is safe.
    told: Durable,
    /// How far this process has written; above `told` while a sync is under way.
    written: Durable,
}

impl Kept {
    /// Takes the writes out of `effects`, makes them, and starts their sync.
    ///
    /// # Errors
    /// The log's.
    #[inline]
    pub fn write<L: Log + ?Sized>(&mut self, effects: &mut Effects, log: &mut L) -> io::Result<()> {
        let mut wrote = false;
        for write in effects.writes() {
            match write {
                LogWrite::Append(slot, term, payload) => {
                    log.append(slot, term, payload)?;
                    self.written.end = Slot(slot.0 + 1);
                    // An overwritten slot is not durable any more. Without this, an end that comes back to where it was
                    // would never be reported, and the new entry never acknowledged.
                    self.told.end = self.told.end.min(slot);
                }
                LogWrite::State(state) => {
                    log.set_state(state)?;
                    self.written.states_count += 1;
                }
                LogWrite::Install(snapshot) => {
                    log.install(snapshot)?;
                    if snapshot.tail == Tail::Drop || self.written.end < snapshot.end {
                        self.written.end = snapshot.end;
                        self.told.end = Slot(0);
                    }
                }
            }
            wrote = true;
        }
        if wrote {
            effects.clear_writes();
            log.sync()?;
        }
        Ok(())
    }

    /// What the log calls durable, if the protocol was not told so: it is to be told now.
    ///
    /// # Errors
    /// The log's.
    #[inline]
    pub fn news<L: Log + ?Sized>(&mut self, log: &mut L) -> io::Result<Option<Durable>> {
        let durable = log.durable()?;
        if durable == self.told {
            return Ok(None);
        }
        self.told = durable;
        Ok(Some(durable))
    }

    /// Whether the log still owes something.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.written.end > self.told.end || self.written.states_count > self.told.states_count
    }
}
