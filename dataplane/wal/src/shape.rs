//! What a log refuses before it writes anything, by its shape alone: gaps, the past, what is too long.

use std::io;

use dataplane_waist::{STATE_BYTES_MAX, Slot};

use crate::format::NUMBER_MAX;

/// A log's shape, as far as its answers depend on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// A snapshot stands for all slots before this one.
    pub(crate) begin: u64,
    /// The slot that is appended next.
    pub(crate) end: u64,
    /// The longest payload of an entry.
    pub(crate) payload_bytes_max: usize,
}

impl Shape {
    pub(crate) fn check_append(&self, slot: Slot, payload: &[u8]) -> io::Result<()> {
        if slot.0 > self.end {
            let (slot, end) = (slot.0, self.end);
            return Err(invalid(format!("slot {slot} would leave a gap: the log ends at {end}")));
        }
        if slot.0 < self.begin {
            let (slot, begin) = (slot.0, self.begin);
            return Err(invalid(format!(
                "slot {slot} is in the past: a snapshot stands for all before {begin}"
            )));
        }
        if slot.0 >= NUMBER_MAX {
            return Err(invalid(format!("slot {}: no log reaches {NUMBER_MAX}", slot.0)));
        }
        if payload.len() > self.payload_bytes_max {
            let (len, max) = (payload.len(), self.payload_bytes_max);
            return Err(invalid(format!(
                "an entry of {len} bytes: with segments of this size at most {max} fit"
            )));
        }
        Ok(())
    }

    pub(crate) fn check_install(&self, end: Slot) -> io::Result<()> {
        if end.0 < self.begin {
            let (end, begin) = (end.0, self.begin);
            return Err(invalid(format!(
                "a snapshot up to {end}: one up to {begin} stands already"
            )));
        }
        if end.0 > NUMBER_MAX {
            return Err(invalid(format!(
                "a snapshot up to {}: no log reaches {NUMBER_MAX}",
                end.0
            )));
        }
        Ok(())
    }
}

pub(crate) fn check_state(state: &[u8]) -> io::Result<()> {
    if state.len() > STATE_BYTES_MAX {
        let len = state.len();
        return Err(invalid(format!(
            "a state of {len} bytes; at most {STATE_BYTES_MAX} are allowed"
        )));
    }
    Ok(())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
