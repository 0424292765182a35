//! The bounds of a store.

use dataplane_wire::{
    frame::PAYLOAD_BYTES_MAX,
    quorum::{KEY_BYTES_MAX, VALUE_BYTES_MAX, reply},
};

/// What an entry counts beyond its key and its value: its place in a node of the tree and the heads of two pieces of the
/// heap, roughly. All replicas must use the same figure, or one refuses what another takes: changing it is changing
/// [`crate::VERSION`].
pub const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// The bounds of a store. Replicas of one store have the same `bytes_max` and `value_bytes_max`; what a store saved under
/// others, it does not load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The most that all entries may count together: key, value and [`ENTRY_OVERHEAD_BYTES`] each. A command that would
    /// go beyond is refused and changes nothing. The heap holds more: nodes of the tree may be half empty, and a value that
    /// grew by appending, or shrank, keeps up to as much room again. Three times this is what it can come to.
    pub bytes_max: u64,
    /// The longest value; at most `dataplane_wire`'s [`VALUE_BYTES_MAX`], less where frames are smaller.
    pub value_bytes_max: usize,
    /// The most bytes of entries in one answer to a range: what a port's largest frame leaves. At least one entry of any
    /// size must fit, or a range could not go on.
    pub range_bytes_max: usize,
}

/// What the largest reply leaves for entries.
const RANGE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX - reply::HEADER_BYTES;

impl Default for StoreOptions {
    /// 64 MiB, and whatever the wire format allows.
    fn default() -> StoreOptions {
        StoreOptions {
            bytes_max: 64 << 20,
            value_bytes_max: VALUE_BYTES_MAX,
            range_bytes_max: RANGE_BYTES_MAX,
        }
    }
}

/// Why a store cannot have these bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreOptionsError {
    /// Values that no request could carry.
    #[error("value_bytes_max is {value_bytes_max}; the wire format carries values of at most {VALUE_BYTES_MAX} bytes")]
    Value {
        /// What was asked for.
        value_bytes_max: usize,
    },
    /// Answers that cannot hold an entry, or that no reply could carry.
    #[error(
        "range_bytes_max is {range_bytes_max}; with values of up to {value_bytes_max} bytes it must be \
         {needed_bytes} to {RANGE_BYTES_MAX}: allow larger frames, or only smaller values"
    )]
    Range {
        /// What was asked for.
        range_bytes_max: usize,
        /// The longest value.
        value_bytes_max: usize,
        /// The largest entry.
        needed_bytes: usize,
    },
}

impl StoreOptions {
    /// # Errors
    /// A bound that contradicts another or the wire format.
    pub(crate) fn check(&self) -> Result<(), StoreOptionsError> {
        let StoreOptions {
            value_bytes_max,
            range_bytes_max,
            ..
        } = *self;
        if value_bytes_max > VALUE_BYTES_MAX {
            return Err(StoreOptionsError::Value { value_bytes_max });
        }
        let needed_bytes = reply::ENTRY_HEADER_BYTES + KEY_BYTES_MAX + value_bytes_max;
        if !(needed_bytes..=RANGE_BYTES_MAX).contains(&range_bytes_max) {
            return Err(StoreOptionsError::Range {
                range_bytes_max,
                value_bytes_max,
                needed_bytes,
            });
        }
        Ok(())
    }

    /// What an entry counts.
    pub(crate) fn weight_bytes(key: &[u8], value: &[u8]) -> u64 {
        ENTRY_OVERHEAD_BYTES + key.len() as u64 + value.len() as u64
    }
}
