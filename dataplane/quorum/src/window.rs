//! The part of the log that is in memory: a ring of slots over a ring of bytes. Its memory is taken once.

use dataplane_waist::{Slot, Term};
use dataplane_wire::checksum::crc32c;

use crate::remainder::remainder;

/// An entry, lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryView<'a> {
    /// The term it was appended in.
    pub term: Term,
    /// The payload.
    pub bytes: &'a [u8],
    /// CRC-32C of the payload, so that a frame that carries it need not compute it again.
    pub crc: u32,
}

/// Slots `begin..end`.
///
/// ```text
///   slots  forgotten │ begin ············ end │ free
///   bytes  free      │ tail  ············ head │ free      (positions only grow; an entry never wraps)
/// ```
#[derive(Debug)]
pub struct Window {
    begin: Slot,
    end: Slot,
    /// The term of the slot before `begin`; 0 where that is before the first.
    before_term: Term,
    places: Box<[Place]>,
    arena: Box<[u8]>,
    /// Where the next entry goes, in bytes ever taken.
    head: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    term: Term,
    /// In bytes ever taken; modulo the arena's length, where it stands.
    at: u64,
    len_bytes: u32,
    crc: u32,
}

/// The window has no room for this entry until a snapshot stands for older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowFull;

impl Window {
    /// An empty window whose first slot will be `begin`, after one of `before_term`.
    pub fn new(slots_max: usize, bytes_max: usize, begin: Slot, before_term: Term) -> Window {
        Window {
            begin,
            end: begin,
            before_term,
            places: vec![Place::default(); slots_max].into_boxed_slice(),
            arena: vec![0; bytes_max].into_boxed_slice(),
            head: 0,
        }
    }

    /// Writes to every page once, so that the kernel gives it now and not in the way of an entry. Changes nothing.
    pub(crate) fn prefault(&mut self) {
        const PAGE_BYTES: usize = 4096;
        for page in self.arena.chunks_mut(PAGE_BYTES) {
            // Or the compiler knows that nothing changes.
            page[0] = std::hint::black_box(page[0]);
        }
        for page in self.places.chunks_mut(PAGE_BYTES / size_of::<Place>()) {
            page[0] = std::hint::black_box(page[0]);
        }
    }

    /// The first slot held.
    pub fn begin(&self) -> Slot {
        self.begin
    }

    /// Behind the last slot held.
    pub fn end(&self) -> Slot {
        self.end
    }

    /// The term of the last entry there ever was, 0 if there was none.
    pub fn last_term(&self) -> Term {
        match self.end > self.begin {
            true => self.place(Slot(self.end.0 - 1)).term,
            false => self.before_term,
        }
    }

    /// The term of the entry in `slot`, if it is known: that of the slot before the window is, too.
    pub fn term_at(&self, slot: Slot) -> Option<Term> {
        if (self.begin..self.end).contains(&slot) {
            return Some(self.place(slot).term);
        }
        (slot.0 + 1 == self.begin.0).then_some(self.before_term)
    }

    /// The term of the entry before `slot`; 0 before the first.
    pub fn term_before(&self, slot: Slot) -> Option<Term> {
        match slot.0.checked_sub(1) {
            Some(before) => self.term_at(Slot(before)),
            None => Some(Term(0)),
        }
    }

    /// The entry in `slot`.
    pub fn get(&self, slot: Slot) -> Option<EntryView<'_>> {
        if !(self.begin..self.end).contains(&slot) {
            return None;
        }
        let place = self.place(slot);
        let at = remainder(place.at, self.arena.len() as u64) as usize;
        Some(EntryView {
            term: place.term,
            bytes: &self.arena[at..at + place.len_bytes as usize],
            crc: place.crc,
        })
    }

    /// How many more entries of up to `entry_bytes_max` there is room for, whatever their lengths.
    pub fn room_slots(&self, entry_bytes_max: usize) -> u64 {
        let used_bytes = match self.end > self.begin {
            true => self.head - self.place(self.begin).at,
            false => 0,
        };
        let free_bytes = self.arena.len() as u64 - used_bytes;
        // Less than one entry's length is lost where the next one would wrap.
        let by_bytes = free_bytes.saturating_sub(entry_bytes_max as u64) / entry_bytes_max.max(1) as u64;
        by_bytes.min(self.places.len() as u64 - (self.end.0 - self.begin.0))
    }

    /// Adds an entry at the end.
    ///
    /// # Errors
    /// [`WindowFull`]; nothing has changed.
    pub fn push(&mut self, term: Term, bytes: &[u8]) -> Result<(), WindowFull> {
        self.push_with_crc(term, bytes, crc32c(bytes))
    }

    /// [`Window::push`] for bytes whose checksum is known.
    ///
    /// # Errors
    /// As [`Window::push`].
    pub fn push_with_crc(&mut self, term: Term, bytes: &[u8], crc: u32) -> Result<(), WindowFull> {
        let slots_count = self.end.0 - self.begin.0;
        if slots_count == self.places.len() as u64 {
            return Err(WindowFull);
        }
        let arena_bytes = self.arena.len() as u64;
        let tail = match slots_count {
            0 => self.head,
            _ => self.place(self.begin).at,
        };
        // An entry that does not fit before the arena's end begins at its start.
        let until_wrap = arena_bytes - remainder(self.head, arena_bytes);
        let at = match bytes.len() as u64 > until_wrap {
            true => self.head + until_wrap,
            false => self.head,
        };
        let head = at + bytes.len() as u64;
        if head - tail > arena_bytes {
            return Err(WindowFull);
        }
        let begin = remainder(at, arena_bytes) as usize;
        self.arena[begin..begin + bytes.len()].copy_from_slice(bytes);
        let index = self.index(self.end);
        self.places[index] = Place {
            term,
            at,
            len_bytes: bytes.len() as u32,
            crc,
        };
        self.end.0 += 1;
        self.head = head;
        Ok(())
    }

    /// Forgets `slot` and what is behind it.
    ///
    /// # Panics
    /// If `slot` is outside the window: what a snapshot stands for cannot be unsaid.
    pub fn truncate(&mut self, slot: Slot) {
        assert!(
            (self.begin..=self.end).contains(&slot),
            "{slot:?} is outside the window {:?}..{:?}",
            self.begin,
            self.end
        );
        if slot < self.end {
            self.head = self.place(slot).at;
            self.end = slot;
        }
    }

    /// Forgets what is before `slot`, at most everything.
    pub fn forget_before(&mut self, slot: Slot) {
        let slot = slot.min(self.end);
        if slot > self.begin {
            self.before_term = self.place(Slot(slot.0 - 1)).term;
            self.begin = slot;
        }
    }

    /// Empties the window; it goes on at `begin`, after an entry of `before_term`.
    pub fn restart(&mut self, begin: Slot, before_term: Term) {
        self.begin = begin;
        self.end = begin;
        self.before_term = before_term;
    }

    /// Slots that are free.
    pub fn free_slots(&self) -> u64 {
        self.places.len() as u64 - (self.end.0 - self.begin.0)
    }

    /// How full the window is, by slots or by bytes, whichever is more; 0 to 1.
    pub fn fill_ratio(&self) -> f64 {
        let slots_count = self.end.0 - self.begin.0;
        if slots_count == 0 {
            return 0.0;
        }
        let bytes = self.head - self.place(self.begin).at;
        let by_slots = slots_count as f64 / self.places.len() as f64;
        by_slots.max(bytes as f64 / self.arena.len() as f64)
    }

    fn index(&self, slot: Slot) -> usize {
        remainder(slot.0, self.places.len() as u64) as usize
    }

    fn place(&self, slot: Slot) -> Place {
        self.places[self.index(slot)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(u64, Vec<u8>),
        Truncate(u64),
        Forget(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u64..5, prop::collection::vec(any::<u8>(), 0..12)).prop_map(|(term, bytes)| Step::Push(term, bytes)),
            1 => (0u64..30).prop_map(Step::Truncate),
            2 => (0u64..30).prop_map(Step::Forget),
        ]
    }

    proptest! {
        /// A ring over a ring holds what a plain vector holds, and is full only when its bounds say so.
        #[test]
        fn agrees_with_a_vector(steps in prop::collection::vec(step(), 0..80)) {
            let mut window = Window::new(6, 40, Slot(3), Term(0));
            let (mut begin, mut model) = (3u64, Vec::<(Term, Vec<u8>)>::new());
            let mut before = Term(0);
            for step in steps {
                let end = begin + model.len() as u64;
                match step {
                    Step::Push(term, bytes) => {
                        let used_bytes: usize = model.iter().map(|(_, bytes)| bytes.len()).sum();
                        let accepted = window.push(Term(term), &bytes).is_ok();
                        if accepted {
                            prop_assert!(model.len() < 6 && used_bytes + bytes.len() <= 40);
                            model.push((Term(term), bytes));
                        } else {
                            // At most one gap at the arena's end is wasted, shorter than the longest entry.
                            prop_assert!(model.len() == 6 || used_bytes + bytes.len() + 11 > 40);
                        }
                    }
                    Step::Truncate(slot) => {
                        let slot = slot.clamp(begin, end);
                        window.truncate(Slot(slot));
                        model.truncate((slot - begin) as usize);
                    }
                    Step::Forget(slot) => {
                        window.forget_before(Slot(slot));
                        let gone = slot.clamp(begin, end) - begin;
                        for (term, _) in model.drain(..gone as usize) {
                            before = term;
                        }
                        begin += gone;
                    }
                }
                prop_assert_eq!((window.begin().0, window.end().0), (begin, begin + model.len() as u64));
                prop_assert_eq!(window.term_before(window.begin()), Some(before));
                for (slot, (term, bytes)) in (begin..).zip(&model) {
                    let view = window.get(Slot(slot)).expect("inside the window");
                    prop_assert_eq!((view.term, view.bytes, view.crc), (*term, &bytes[..], crc32c(bytes)));
                }
                prop_assert_eq!(window.last_term(), model.last().map_or(before, |(term, _)| *term));
            }
        }
    }

    #[test]
    fn slots_outside_are_unknown() {
        let mut window = Window::new(4, 100, Slot(0), Term(0));
        window.push(Term(1), b"a").expect("room");
        assert_eq!(window.get(Slot(1)), None);
        assert_eq!(window.term_at(Slot(1)), None);
        window.forget_before(Slot(1));
        assert_eq!(window.get(Slot(0)), None);
        assert_eq!(window.term_at(Slot(0)), Some(Term(1)));
    }
}
