//! Packets counted from the first one on, without wrap, beside the 24 bits of that count that are on the wire.
//!
//! ```text
//!  index   0 ······· acked ······· next ······· posted
//!  PSN     start     start + acked, modulo 2²⁴
//! ```

use crate::wire::Psn;

/// Where a direction of a connection began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    start: Psn,
}

impl Sequence {
    pub(crate) fn new(start: Psn) -> Sequence {
        Sequence { start }
    }

    /// The number of packet `index` on the wire.
    pub(crate) fn psn(&self, index: u64) -> Psn {
        self.start.plus(index)
    }

    /// The packet with this number that is nearest to packet `near`; `None` before the first.
    pub(crate) fn index(&self, psn: Psn, near: u64) -> Option<u64> {
        near.checked_add_signed(psn.since(self.psn(near)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_again_across_the_wrap() {
        let sequence = Sequence::new(Psn::new(0xff_fffe));
        assert_eq!(sequence.psn(3), Psn::new(1));
        assert_eq!(sequence.index(Psn::new(1), 0), Some(3));
        assert_eq!(sequence.index(Psn::new(0xff_ffff), 3), Some(1));
        assert_eq!(sequence.index(Psn::new(0xff_fffd), 0), None);
        let far = (5 << 24) + 7;
        assert_eq!(sequence.index(sequence.psn(far - 10), far), Some(far - 10));
    }
}
