//! Entries that came before their turn: one frame was lost or overtaken, those behind it wait here, so that only what is
//! missing is sent again.

use dataplane_waist::{Slot, Term};

use crate::remainder::remainder;

/// A bounded table by slot. A place is reused with its memory.
#[derive(Debug)]
pub(crate) struct Held {
    places: Vec<Place>,
    count: usize,
}

#[derive(Clone, Debug, Default)]
struct Place {
    slot: Option<Slot>,
    entry: HeldEntry,
}

/// An entry out of its turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldEntry {
    pub(crate) term: Term,
    pub(crate) crc: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Held {
    pub(crate) fn new(slots_max: usize) -> Held {
        Held {
            places: vec![Place::default(); slots_max],
            count: 0,
        }
    }

    /// Keeps an entry that is fewer than the table's length behind `next`; a farther one is dropped, as the network might
    /// have done.
    pub(crate) fn put(&mut self, next: Slot, slot: Slot, term: Term, bytes: &[u8], crc: u32) {
        if slot <= next || slot.0 - next.0 >= self.places.len() as u64 {
            return;
        }
        let index = self.index(slot);
        let place = &mut self.places[index];
        if place.slot.is_none() {
            self.count += 1;
        }
        place.slot = Some(slot);
        place.entry.term = term;
        place.entry.crc = crc;
        place.entry.bytes.clear();
        place.entry.bytes.extend_from_slice(bytes);
    }

    /// Takes the entry of `slot`, if it is here; [`Held::give_back`] its memory afterwards.
    pub(crate) fn take(&mut self, slot: Slot) -> Option<HeldEntry> {
        if self.count == 0 {
            return None;
        }
        let index = self.index(slot);
        let place = &mut self.places[index];
        if place.slot != Some(slot) {
            return None;
        }
        place.slot = None;
        self.count -= 1;
        Some(std::mem::take(&mut place.entry))
    }

    pub(crate) fn give_back(&mut self, slot: Slot, entry: HeldEntry) {
        let index = self.index(slot);
        let place = &mut self.places[index];
        if place.slot.is_none() {
            place.entry = entry;
        }
    }

    /// The lowest slot held from `next` on, if any. What is held for earlier slots came another way meanwhile.
    pub(crate) fn first(&self, next: Slot) -> Option<Slot> {
        match self.count {
            0 => None,
            _ => {
                let slots = self.places.iter().filter_map(|place| place.slot);
                slots.filter(|&slot| slot >= next).min()
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        if self.count > 0 {
            for place in &mut self.places {
                place.slot = None;
            }
            self.count = 0;
        }
    }

    fn index(&self, slot: Slot) -> usize {
        remainder(slot.0, self.places.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_another_way_is_not_the_first_that_is_held() {
        let mut held = Held::new(8);
        held.put(Slot(2), Slot(4), Term(1), b"4", 0);
        held.put(Slot(2), Slot(7), Term(1), b"7", 0);
        assert_eq!(held.first(Slot(2)), Some(Slot(4)));
        // Slots 2 to 4 were sent again.
        assert_eq!(held.first(Slot(5)), Some(Slot(7)));
        assert_eq!(held.first(Slot(8)), None);
    }
}
