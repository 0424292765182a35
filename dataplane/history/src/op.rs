//! Operations and their answers, as a client sees them: with the bytes of keys and values lent.

/// An operation of a [`History`](crate::History): the place in which it was invoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u32);

/// What a client asks. A key that was never written is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// What is the key's value?
    Get {
        /// Which key.
        key: &'a [u8],
    },
    /// What was the key's value at some time, the present one or an earlier one? Judged by
    /// [`History::check_stale`](crate::History::check_stale) alone.
    StaleGet {
        /// Which key.
        key: &'a [u8],
    },
    /// Let the key have this value, whatever it had.
    Put {
        /// Which key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// Let these bytes follow the key's value; an absent key gets them as its value.
    Append {
        /// Which key.
        key: &'a [u8],
        /// The bytes that follow.
        value: &'a [u8],
    },
    /// If the key's value is this one, let it be that one.
    CompareAndSwap {
        /// Which key.
        key: &'a [u8],
        /// The value that it must have; `None`: it must be absent.
        expected: Option<&'a [u8]>,
        /// Its new value.
        new: &'a [u8],
    },
    /// Let the key be absent.
    Delete {
        /// Which key.
        key: &'a [u8],
    },
}

impl<'a> Op<'a> {
    /// The key that it is about.
    pub fn key(&self) -> &'a [u8] {
        match *self {
            Op::Get { key }
            | Op::StaleGet { key }
            | Op::Put { key, .. }
            | Op::Append { key, .. }
            | Op::CompareAndSwap { key, .. }
            | Op::Delete { key } => key,
        }
    }
}

/// What a client was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// To a put, an append, a delete: it happened.
    Done,
    /// To a get, a stale get: the value; `None`: absent.
    Value(Option<&'a [u8]>),
    /// To a compare-and-swap: the value was the expected one, and now it is the new one.
    Swapped,
    /// To a compare-and-swap: the value was another one, nobody says which, and it stays.
    NotSwapped,
    /// To a compare-and-swap: the value was this other one, and it stays.
    Mismatch {
        /// The value found; `None`: absent.
        found: Option<&'a [u8]>,
    },
    /// To a delete: it happened.
    Deleted {
        /// Whether there was a value to delete.
        existed: bool,
    },
    /// To whatever: it did not happen and will not (busy, not the leader, malformed).
    Refused,
    /// The client stopped waiting: it may have happened, may yet happen, or never. As if it was not answered at all.
    Lost,
}
