//! What a protocol wants done: frames to send, entries to append, what else must survive. Bounded, and filled in place.

use std::ops::Range;

use dataplane_wire::Reject;

use crate::{Peer, Slot, Snapshot, Term};

/// The to-do list of one turn. Its memory is taken once; a list that is full refuses, as a full NIC ring would.
#[derive(Debug)]
pub struct Effects {
    arena: Box<[u8]>,
    used_bytes: usize,
    actions_max: usize,
    sends: Vec<(Peer, Range<usize>)>,
    writes: Vec<Queued>,
    rejects: [u64; Reject::ALL.len()],
    refused_count: u64,
}

/// What the log is to do, in the order in which the protocol wanted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogWrite<'a> {
    /// [`crate::Log::append`].
    Append(Slot, Term, &'a [u8]),
    /// [`crate::Log::set_state`].
    State(&'a [u8]),
    /// [`crate::Log::install`].
    Install(&'a Snapshot),
}

#[derive(Debug)]
enum Queued {
    Append(Slot, Term, Range<usize>),
    State(Range<usize>),
    Install(Snapshot),
}

/// No room for this effect in this turn. For a frame that is loss; a protocol that wanted to append must not go on
/// as if it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the turn's list of effects is full")]
pub struct EffectsFull;

impl Effects {
    /// Room for `actions_max` sends, as many writes to the log, and `bytes_max` bytes of both.
    pub fn with_capacity(actions_max: usize, bytes_max: usize) -> Effects {
        Effects {
            arena: vec![0; bytes_max].into_boxed_slice(),
            used_bytes: 0,
            actions_max,
            sends: Vec::with_capacity(actions_max),
            writes: Vec::with_capacity(actions_max),
            rejects: [0; Reject::ALL.len()],
            refused_count: 0,
        }
    }

    /// Sends a frame of `len_bytes` to `to`; `fill` writes all of it (the bytes it gets are an old turn's).
    ///
    /// # Errors
    /// [`EffectsFull`]; `fill` is then not called.
    pub fn send(&mut self, to: Peer, len_bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), EffectsFull> {
        let range = self.reserve(self.sends.len(), len_bytes)?;
        fill(&mut self.arena[range.clone()]);
        self.sends.push((to, range));
        Ok(())
    }

    /// How many frames there are to send.
    pub fn sends_count(&self) -> usize {
        self.sends.len()
    }

    /// Sends the frame that is already to be sent at `index` to `to`, too. It takes no room for its bytes.
    ///
    /// # Errors
    /// [`EffectsFull`].
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn send_again(&mut self, to: Peer, index: usize) -> Result<(), EffectsFull> {
        self.reserve(self.sends.len(), 0)?;
        let range = self.sends[index].1.clone();
        self.sends.push((to, range));
        Ok(())
    }

    /// Appends `payload` to the log at `slot`.
    ///
    /// # Errors
    /// [`EffectsFull`].
    pub fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> Result<(), EffectsFull> {
        let range = self.keep(payload)?;
        self.writes.push(Queued::Append(slot, term, range));
        Ok(())
    }

    /// Replaces the log's small state.
    ///
    /// # Errors
    /// [`EffectsFull`].
    pub fn set_state(&mut self, state: &[u8]) -> Result<(), EffectsFull> {
        let range = self.keep(state)?;
        self.writes.push(Queued::State(range));
        Ok(())
    }

    /// Lets `snapshot` stand for the log's beginning. Its bytes are shared, not copied.
    ///
    /// # Errors
    /// [`EffectsFull`].
    pub fn install(&mut self, snapshot: Snapshot) -> Result<(), EffectsFull> {
        self.reserve(self.writes.len(), 0)?;
        self.writes.push(Queued::Install(snapshot));
        Ok(())
    }

    /// Whether [`Effects::install`] would be taken: for those who must know before they change themselves. Counted as a
    /// refusal if not.
    pub fn has_room_to_install(&mut self) -> bool {
        self.reserve(self.writes.len(), 0).is_ok()
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

    /// What the log is to do, in order.
    pub fn writes(&self) -> impl Iterator<Item = LogWrite<'_>> {
        self.writes.iter().map(|queued| match queued {
            Queued::Append(slot, term, range) => LogWrite::Append(*slot, *term, &self.arena[range.clone()]),
            Queued::State(range) => LogWrite::State(&self.arena[range.clone()]),
            Queued::Install(snapshot) => LogWrite::Install(snapshot),
        })
    }

    /// The entries to append, in order.
    pub fn appends(&self) -> impl Iterator<Item = (Slot, Term, &[u8])> {
        self.writes().filter_map(|write| match write {
            LogWrite::Append(slot, term, payload) => Some((slot, term, payload)),
            _ => None,
        })
    }

    /// Forgets the writes, once the log has them. Their bytes stay taken until [`Effects::clear`].
    pub fn clear_writes(&mut self) {
        self.writes.clear();
    }

    /// Forgets the sends, once the port has them. Their bytes stay taken until [`Effects::clear`].
    pub fn clear_sends(&mut self) {
        self.sends.clear();
    }

    /// Forgets everything but the counters.
    pub fn clear(&mut self) {
        self.sends.clear();
        self.writes.clear();
        self.used_bytes = 0;
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Range<usize>, EffectsFull> {
        let range = self.reserve(self.writes.len(), bytes.len())?;
        self.arena[range.clone()].copy_from_slice(bytes);
        Ok(range)
    }

    fn reserve(&mut self, actions_count: usize, len_bytes: usize) -> Result<Range<usize>, EffectsFull> {
        let free_bytes = self.arena.len() - self.used_bytes;
        if actions_count == self.actions_max || len_bytes > free_bytes {
            self.refused_count += 1;
            return Err(EffectsFull);
        }
        let range = self.used_bytes..self.used_bytes + len_bytes;
        self.used_bytes = range.end;
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_list_refuses_counts_and_does_not_call_fill() {
        let mut effects = Effects::with_capacity(1, 8);
        assert_eq!(
            effects.send(Peer(0), 9, |_| panic!("no room to fill")),
            Err(EffectsFull)
        );
        assert_eq!(effects.send(Peer(0), 4, |bytes| bytes.fill(1)), Ok(()));
        assert_eq!(
            effects.send(Peer(0), 4, |_| panic!("one send at most")),
            Err(EffectsFull)
        );
        assert_eq!(effects.append(Slot(0), Term(1), &[2; 5]), Err(EffectsFull));
        assert_eq!(effects.append(Slot(0), Term(1), &[2; 4]), Ok(()));
        assert_eq!(effects.refused_count(), 3);
        assert!(effects.sends().eq([(Peer(0), &[1; 4][..])]));
        assert!(effects.appends().eq([(Slot(0), Term(1), &[2; 4][..])]));
    }

    #[test]
    fn clear_gives_the_room_back_and_keeps_the_counters() {
        let mut effects = Effects::with_capacity(1, 8);
        effects.reject(Reject::Magic);
        effects.send(Peer(0), 8, |bytes| bytes.fill(1)).expect("room");
        effects.send(Peer(0), 0, |_| ()).expect_err("one send at most");
        effects.clear();
        assert_eq!(effects.sends().count(), 0);
        effects.send(Peer(0), 8, |bytes| bytes.fill(2)).expect("room again");
        assert_eq!(effects.rejects()[Reject::Magic.index()], 1);
        assert_eq!(effects.refused_count(), 1);
    }

    #[test]
    fn a_frame_is_sent_to_another_as_it_is() {
        let mut effects = Effects::with_capacity(3, 8);
        effects.send(Peer(1), 4, |bytes| bytes.fill(1)).expect("room");
        effects.send(Peer(1), 4, |bytes| bytes.fill(2)).expect("room");
        assert_eq!(effects.send_again(Peer(2), 0), Ok(()));
        let sends = [(Peer(1), &[1; 4][..]), (Peer(1), &[2; 4]), (Peer(2), &[1; 4])];
        assert!(effects.sends().eq(sends));
        assert_eq!(effects.sends_count(), 3);
        assert_eq!(effects.send_again(Peer(3), 0), Err(EffectsFull));
    }

    #[test]
    fn bytes_of_writes_stay_taken_until_clear() {
        let mut effects = Effects::with_capacity(2, 8);
        effects.append(Slot(0), Term(1), &[2; 6]).expect("room");
        effects.clear_writes();
        assert_eq!(effects.appends().count(), 0);
        assert_eq!(effects.append(Slot(1), Term(1), &[2; 6]), Err(EffectsFull));
    }

    #[test]
    fn writes_keep_the_order_in_which_they_were_wanted() {
        let mut effects = Effects::with_capacity(3, 8);
        let snapshot = Snapshot {
            end: Slot(4),
            last_term: Term(1),
            tail: crate::Tail::Keep,
            bytes: [].into(),
        };
        effects.set_state(b"vote").expect("room");
        assert!(effects.has_room_to_install());
        effects.install(snapshot.clone()).expect("room");
        effects.append(Slot(4), Term(2), b"go").expect("room");
        assert!(!effects.has_room_to_install());
        assert_eq!(effects.install(snapshot.clone()), Err(EffectsFull));
        assert_eq!(effects.refused_count(), 2);
        let expected = [
            LogWrite::State(b"vote"),
            LogWrite::Install(&snapshot),
            LogWrite::Append(Slot(4), Term(2), b"go"),
        ];
        assert!(effects.writes().eq(expected));
        assert!(effects.appends().eq([(Slot(4), Term(2), &b"go"[..])]));
    }

    proptest! {
        /// Whatever is asked, what was accepted comes back in order and unchanged, and what was not is counted.
        #[test]
        fn accepted_effects_come_back_unchanged(
            actions_max in 0usize..6,
            bytes_max in 0usize..64,
            asked in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..20)), 0..20),
        ) {
            let mut effects = Effects::with_capacity(actions_max, bytes_max);
            let (mut sends, mut appends, mut refused_count) = (Vec::new(), Vec::new(), 0);
            for (is_send, bytes) in &asked {
                let (list, result) = if *is_send {
                    (&mut sends, effects.send(Peer(7), bytes.len(), |out| out.copy_from_slice(bytes)))
                } else {
                    (&mut appends, effects.append(Slot(3), Term(2), bytes))
                };
                match result {
                    Ok(()) => list.push(bytes.clone()),
                    Err(EffectsFull) => refused_count += 1,
                }
            }
            prop_assert!(sends.len() <= actions_max && appends.len() <= actions_max);
            prop_assert!(effects.sends().map(|(_, bytes)| bytes).eq(sends.iter().map(Vec::as_slice)));
            prop_assert!(effects.appends().map(|(_, _, bytes)| bytes).eq(appends.iter().map(Vec::as_slice)));
            prop_assert_eq!(effects.refused_count(), refused_count);
        }
    }
}
