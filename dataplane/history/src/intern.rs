//! Values as numbers: each different string of bytes is kept once, so that comparing two values compares two integers.

use std::{collections::HashMap, sync::Arc};

/// Different strings of bytes, numbered in the order of their first appearance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interner {
    numbers: HashMap<Arc<[u8]>, u32>,
    strings: Vec<Arc<[u8]>>,
}

impl Interner {
    pub(crate) fn intern(&mut self, bytes: &[u8]) -> u32 {
        if let Some(&number) = self.numbers.get(bytes) {
            return number;
        }
        let number = u32::try_from(self.strings.len()).expect("fewer than 2^32 different values fit into memory");
        let string: Arc<[u8]> = bytes.into();
        self.strings.push(string.clone());
        self.numbers.insert(string, number);
        number
    }

    pub(crate) fn find(&self, bytes: &[u8]) -> Option<u32> {
        self.numbers.get(bytes).copied()
    }

    pub(crate) fn bytes(&self, number: u32) -> &[u8] {
        &self.strings[number as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.strings.len()
    }
}

/// A key's state: absent, or the number of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct State(u32);

impl State {
    pub(crate) const ABSENT: State = State(0);

    pub(crate) fn of(value: u32) -> State {
        State(value + 1)
    }

    pub(crate) fn value(self) -> Option<u32> {
        self.0.checked_sub(1)
    }
}

/// The values of a history, and those that only the search makes (appends in an order that nobody observed).
#[derive(Debug)]
pub(crate) struct Values<'a> {
    recorded: &'a Interner,
    made: Interner,
    /// (state, appended value) → state, so that the bytes are put together once.
    appended: HashMap<(State, u32), State>,
    made_bytes: usize,
}

impl<'a> Values<'a> {
    pub(crate) fn new(recorded: &'a Interner) -> Self {
        Values {
            recorded,
            made: Interner::default(),
            appended: HashMap::new(),
            made_bytes: 0,
        }
    }

    pub(crate) fn append(&mut self, state: State, value: u32) -> State {
        let Some(before) = state.value() else {
            return State::of(value);
        };
        if let Some(&after) = self.appended.get(&(state, value)) {
            return after;
        }
        let bytes = [self.bytes(before), self.bytes(value)].concat();
        let number = match self.recorded.find(&bytes) {
            Some(number) => number,
            None => {
                self.made_bytes += bytes.len() + 64;
                self.made.intern(&bytes) + self.recorded.len() as u32
            }
        };
        let after = State::of(number);
        self.appended.insert((state, value), after);
        after
    }

    pub(crate) fn bytes(&self, number: u32) -> &[u8] {
        match (number as usize).checked_sub(self.recorded.len()) {
            None => self.recorded.bytes(number),
            Some(index) => self.made.bytes(index as u32),
        }
    }

    /// Memory of what the search made, roughly.
    pub(crate) fn made_bytes(&self) -> usize {
        self.made_bytes + self.appended.len() * 32
    }
}
