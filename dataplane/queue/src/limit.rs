//! Bounds and thresholds in packets or in bytes: switches count either, and papers give both.

/// So many packets, or so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Packets, whatever their size.
    Packets(u32),
    /// Bytes of frames.
    Bytes(u64),
}

impl Limit {
    /// More than anything ever takes.
    pub const NONE: Limit = Limit::Bytes(u64::MAX);

    /// Whether a queue of that length may take in a packet of `more_bytes`.
    pub(crate) fn has_room(self, packets_count: usize, bytes: u64, more_bytes: u32) -> bool {
        match self {
            Limit::Packets(limit) => packets_count < limit as usize,
            Limit::Bytes(limit) => bytes + u64::from(more_bytes) <= limit,
        }
    }

    /// Whether a queue of that length is longer.
    pub(crate) fn is_exceeded(self, packets_count: usize, bytes: u64) -> bool {
        match self {
            Limit::Packets(limit) => packets_count > limit as usize,
            Limit::Bytes(limit) => bytes > limit,
        }
    }
}
