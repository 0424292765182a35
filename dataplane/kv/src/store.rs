//! The store: an ordered map from byte strings to byte strings, under a bound.

use std::{cell::Cell, collections::BTreeMap, ops::Bound};

use dataplane_waist::{StateMachine, SurePuts};
use dataplane_wire::{
    Reject,
    quorum::{
        KEY_BYTES_MAX,
        reply::{EntriesWriter, Outcome, refusal},
        request::Command,
    },
};

use crate::{ENTRY_OVERHEAD_BYTES, StoreOptions, StoreOptionsError, image};

#[cfg(test)]
mod tests;

/// In key order: a range, and what is saved, is read off as it stands.
pub(crate) type Map = BTreeMap<Box<[u8]>, Vec<u8>>;

/// What a value may keep beyond twice its length, so that short ones do not give room back and take it again.
const SLACK_BYTES: usize = 64;

/// Room beyond a bound was asked for.
const TOO_LARGE: Outcome<'_> = Outcome::Refused {
    reason: refusal::TOO_LARGE,
};

/// A command that a store never gets.
const MISPLACED: Outcome<'_> = Outcome::Refused {
    reason: refusal::MISPLACED,
};

/// A key-value store.
///
/// A put of a value as long as the one it replaces takes no memory.
pub struct Store {
    options: StoreOptions,
    map: Map,
    /// What all entries count together: never above `options.bytes_max`.
    used_bytes: u64,
    /// Where a range's answer is put together; made by the first one.
    answer: Cell<Box<[u8]>>,
}

impl Store {
    /// An empty store.
    ///
    /// # Errors
    /// Bounds that contradict each other or the wire format.
    pub fn new(options: StoreOptions) -> Result<Store, StoreOptionsError> {
        options.check()?;
        Ok(Store {
            options,
            map: Map::new(),
            used_bytes: 0,
            answer: Cell::default(),
        })
    }

    /// How many keys there are.
    pub fn entries_count(&self) -> usize {
        self.map.len()
    }

    /// What they count together towards [`StoreOptions::bytes_max`].
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Outcome<'static> {
        match self.map.get_mut(key) {
            Some(held) => replace(&self.options, &mut self.used_bytes, held, value),
            None => self.insert(key, value),
        }
    }

    /// Makes an entry of a key that is not there.
    fn insert(&mut self, key: &[u8], value: &[u8]) -> Outcome<'static> {
        let used_bytes = self.used_bytes + StoreOptions::weight_bytes(key, value);
        let key_fits = (1..=KEY_BYTES_MAX).contains(&key.len());
        if !key_fits || value.len() > self.options.value_bytes_max || used_bytes > self.options.bytes_max {
            return TOO_LARGE;
        }
        self.map.insert(key.into(), value.into());
        self.used_bytes = used_bytes;
        Outcome::Done
    }

    fn append(&mut self, key: &[u8], value: &[u8]) -> Outcome<'static> {
        let Some(held) = self.map.get_mut(key) else {
            return self.insert(key, value);
        };
        let used_bytes = self.used_bytes + value.len() as u64;
        if held.len() + value.len() > self.options.value_bytes_max || used_bytes > self.options.bytes_max {
            return TOO_LARGE;
        }
        held.extend_from_slice(value);
        self.used_bytes = used_bytes;
        Outcome::Done
    }

    fn compare_and_swap(&mut self, key: &[u8], expected: &[u8], value: &[u8]) -> Outcome<'_> {
        match self.map.get_mut(key) {
            None => Outcome::Absent,
            Some(held) if held != expected => Outcome::Mismatch(held),
            Some(held) => replace(&self.options, &mut self.used_bytes, held, value),
        }
    }

    fn delete(&mut self, key: &[u8]) -> Outcome<'static> {
        let Some(value) = self.map.remove(key) else {
            return Outcome::Absent;
        };
        self.used_bytes -= StoreOptions::weight_bytes(key, &value);
        Outcome::Done
    }

    fn get(&self, key: &[u8]) -> Outcome<'_> {
        self.map.get(key).map_or(Outcome::Absent, |value| Outcome::Value(value))
    }

    /// Answers with as many entries as one answer holds; `more` says that the range goes on behind them.
    fn range(&self, from: &[u8], end: &[u8], count_max: u16, answer: &mut dyn FnMut(Outcome<'_>)) {
        // Taken, not borrowed: should `answer` read from this store again, it finds none and makes another.
        let mut buffer = self.answer.take();
        if buffer.is_empty() {
            buffer = vec![0; self.options.range_bytes_max].into();
        }
        let mut writer = EntriesWriter::new(&mut buffer);
        let bounds = (Bound::Included(from), end_bound(end));
        // A range that ends before it begins is empty, and would be a panic of the map's.
        let is_empty = !end.is_empty() && end <= from;
        let entries = (!is_empty).then(|| self.map.range::<[u8], _>(bounds));
        let mut left_count = count_max;
        let more = entries.into_iter().flatten().any(|(key, value)| {
            let is_full = left_count == 0 || writer.push(key, value).is_err();
            left_count = left_count.saturating_sub(1);
            is_full
        });
        answer(Outcome::Entries(writer.finish(more)));
        self.answer.set(buffer);
    }
}

/// An empty end is none.
fn end_bound(end: &[u8]) -> Bound<&[u8]> {
    match end {
        [] => Bound::Unbounded,
        end => Bound::Excluded(end),
    }
}

/// Sets the value of an entry that is there.
fn replace(options: &StoreOptions, used_bytes: &mut u64, held: &mut Vec<u8>, value: &[u8]) -> Outcome<'static> {
    let used_after_bytes = *used_bytes - held.len() as u64 + value.len() as u64;
    if value.len() > options.value_bytes_max || used_after_bytes > options.bytes_max {
        return TOO_LARGE;
    }
    held.clear();
    held.extend_from_slice(value);
    if held.capacity() > 2 * held.len() + SLACK_BYTES {
        held.shrink_to_fit();
    }
    *used_bytes = used_after_bytes;
    Outcome::Done
}

impl StateMachine for Store {
    /// Reads are answered, too: a protocol may let them go through the log.
    fn apply(&mut self, command: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>)) {
        match *command {
            Command::Put { key, value } => answer(self.put(key, value)),
            Command::Append { key, value } => answer(self.append(key, value)),
            Command::CompareAndSwap { key, expected, value } => answer(self.compare_and_swap(key, expected, value)),
            Command::Delete { key } => answer(self.delete(key)),
            _ => self.read(command, answer),
        }
    }

    fn read(&self, command: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>)) {
        match *command {
            Command::Get { key } | Command::StaleGet { key } => answer(self.get(key)),
            Command::Range { from, end, count_max } | Command::StaleRange { from, end, count_max } => {
                self.range(from, end, count_max, answer);
            }
            Command::Put { .. }
            | Command::Append { .. }
            | Command::CompareAndSwap { .. }
            | Command::Delete { .. }
            | Command::Open
            | Command::Reconfigure { .. }
            | Command::Status => answer(MISPLACED),
        }
    }

    /// As long as the room lasts, if each command takes as much of it as any could.
    fn sure_puts(&self, command_bytes_max: usize) -> SurePuts {
        let command_weight_bytes = ENTRY_OVERHEAD_BYTES + command_bytes_max as u64;
        SurePuts {
            count: (self.options.bytes_max - self.used_bytes) / command_weight_bytes,
            value_bytes_max: self.options.value_bytes_max,
        }
    }

    fn save(&self, out: &mut Vec<u8>) {
        image::save(&self.options, &self.map, self.used_bytes, out);
    }

    /// # Errors
    /// In this order: [`Reject::Short`] (no header), [`Reject::Magic`], [`Reject::Version`], [`Reject::Length`] (other
    /// bounds than this store's), and, entry by entry, [`Reject::Short`] (cut) or [`Reject::Length`] (a key or value out
    /// of its bounds, a key out of order, more than `bytes_max` in all); last [`Reject::Long`] (something behind them).
    fn load(&mut self, bytes: &[u8]) -> Result<(), Reject> {
        (self.map, self.used_bytes) = image::load(&self.options, bytes)?;
        Ok(())
    }
}
