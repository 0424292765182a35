//! What a protocol wants done: frames to send, entries to append. Bounded, and filled in place.

use std::ops::Range;

use dataplane_wire::Reject;

use crate::{Peer, Slot, Term};

/// The to-do list of one turn. Its memory is taken once; a list that is full refuses, as a full NIC ring would.
#[derive(Debug)]
pub struct Effects {
    arena: Box<[u8]>,
    used_bytes: usize,
    sends: Vec<(Peer, Range<usize>)>,
    appends: Vec<(Slot, Term, Range<usize>)>,
    rejects: [u64; Reject::ALL.len()],
    refused_count: u64,
}

/// No room for this effect in this turn. For a frame that is loss; a protocol that wanted to append must not go on
/// as if it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the turn's list of effects is full")]
pub struct EffectsFull;

impl Effects {
    /// Room for `actions_max` sends, as many appends, and `bytes_max` bytes of both.
    pub fn with_capacity(actions_max: usize, bytes_max: usize) -> Effects {
        Effects {
            arena: vec![0; bytes_max].into_boxed_slice(),
            used_bytes: 0,
            sends: Vec::with_capacity(actions_max),
            appends: Vec::with_capacity(actions_max),
            rejects: [0; Reject::ALL.len()],
            refused_count: 0,
        }
    }

    /// Sends a frame of `len_bytes` to `to`; `fill` writes all of it (the bytes it gets are an old turn's).
    ///
    /// # Errors
    /// [`EffectsFull`]; `fill` is then not called.
    pub fn send(&mut self, to: Peer, len_bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), EffectsFull> {
        if self.sends.len() == self.sends.capacity() {
            return self.refuse();
        }
        let range = self.reserve(len_bytes)?;
        fill(&mut self.arena[range.clone()]);
        self.sends.push((to, range));
        Ok(())
    }

    /// Appends `payload` to the log at `slot`.
    ///
    /// # Errors
    /// [`EffectsFull`].
    pub fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> Result<(), EffectsFull> {
        if self.appends.len() == self.appends.capacity() {
            return self.refuse();
        }
        let range = self.reserve(payload.len())?;
        self.arena[range.clone()].copy_from_slice(payload);
        self.appends.push((slot, term, range));
        Ok(())
    }

    /// Counts a frame that was not understood.
    pub fn reject(&mut self, reason: Reject) {
        self.rejects[reason.index()] += 1;
    }

    /// Frames not understood so far, by [`Reject::index`].
    pub fn rejects(&self) -> &[u64; Reject::ALL.len()] {
        &self.rejects
    }

    /// Effects refused so far for want of room.
    pub fn refused_count(&self) -> u64 {
        self.refused_count
    }

    /// The frames to send, in order.
    pub fn sends(&self) -> impl Iterator<Item = (Peer, &[u8])> {
        self.sends.iter().map(|(to, range)| (*to, &self.arena[range.clone()]))
    }

    /// The entries to append, in order.
    pub fn appends(&self) -> impl Iterator<Item = (Slot, Term, &[u8])> {
        self.appends
            .iter()
            .map(|(slot, term, range)| (*slot, *term, &self.arena[range.clone()]))
    }

    /// Forgets the appends, once the log has them. Their bytes stay taken until [`Effects::clear`].
    pub fn clear_appends(&mut self) {
        self.appends.clear();
    }

    /// Forgets everything but the counters.
    pub fn clear(&mut self) {
        self.sends.clear();
        self.appends.clear();
        self.used_bytes = 0;
    }

    fn reserve(&mut self, len_bytes: usize) -> Result<Range<usize>, EffectsFull> {
        if len_bytes > self.arena.len() - self.used_bytes {
            return self.refuse().map(|()| unreachable!("refuse always errs"));
        }
        let range = self.used_bytes..self.used_bytes + len_bytes;
        self.used_bytes = range.end;
        Ok(range)
    }

    fn refuse(&mut self) -> Result<(), EffectsFull> {
        self.refused_count += 1;
        Err(EffectsFull)
    }
}
