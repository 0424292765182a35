//! What is handed to the writing thread at once: writes in order, their bytes one behind the other. Batches go round, so
//! that a warm log takes no memory.

use std::io;

use dataplane_waist::{Log, Slot, Snapshot, Term};

use crate::wal::Wal;

#[derive(Debug)]
enum Write {
    Append { slot: Slot, term: Term, len_bytes: usize },
    State { len_bytes: usize },
    Install(Snapshot),
}

/// Writes in order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    writes: Vec<Write>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// How much memory its payloads take.
    pub(super) fn bytes_count(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        let len_bytes = payload.len();
        self.writes.push(Write::Append { slot, term, len_bytes });
    }

    pub(super) fn set_state(&mut self, state: &[u8]) {
        self.bytes.extend_from_slice(state);
        self.writes.push(Write::State { len_bytes: state.len() });
    }

    pub(super) fn install(&mut self, snapshot: &Snapshot) {
        self.writes.push(Write::Install(snapshot.clone()));
    }

    /// Writes all of it, in order, and forgets it. Says how many writes there were.
    pub(super) fn write_to(&mut self, wal: &mut Wal) -> io::Result<usize> {
        let writes_count = self.writes.len();
        let mut rest = &self.bytes[..];
        for write in self.writes.drain(..) {
            match write {
                Write::Append { slot, term, len_bytes } => {
                    wal.append(slot, term, take(&mut rest, len_bytes))?;
                }
                Write::State { len_bytes } => wal.set_state(take(&mut rest, len_bytes))?,
                Write::Install(snapshot) => wal.install(&snapshot)?,
            }
        }
        self.bytes.clear();
        Ok(writes_count)
    }

    /// The same, and waits until it is durable.
    pub(super) fn write_durably_to(&mut self, wal: &mut Wal) -> io::Result<usize> {
        let writes_count = self.write_to(wal)?;
        wal.sync()?;
        wal.wait()?;
        Ok(writes_count)
    }
}

/// The next `len_bytes` of `rest`.
fn take<'a>(rest: &mut &'a [u8], len_bytes: usize) -> &'a [u8] {
    let (taken, behind) = rest.split_at(len_bytes);
    *rest = behind;
    taken
}
