//! Numbers of 24 bits: packet sequence numbers, which wrap, and queue pair numbers, which do not.

use std::fmt;

const MASK: u32 = 0xff_ffff;

/// A packet sequence number: modulo 2²⁴ (IBA §9.7.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Psn(u32);

impl Psn {
    /// The low 24 bits of `value`.
    pub const fn new(value: u32) -> Psn {
        Psn(value & MASK)
    }

    /// The number, below 2²⁴.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number `count` packets later.
    pub const fn plus(self, count: u64) -> Psn {
        Psn::new(self.0.wrapping_add((count & MASK as u64) as u32))
    }

    /// How far this lies ahead of `other`, the shorter way round: -2²³ to 2²³-1.
    pub const fn since(self, other: Psn) -> i32 {
        // Shifted up, so that the sign bit is that of the 24-bit difference.
        (self.0.wrapping_sub(other.0) << 8) as i32 >> 8
    }
}

impl fmt::Debug for Psn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Psn({:#08x})", self.0)
    }
}

/// A queue pair's number, 24 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QpNumber(u32);

impl QpNumber {
    /// The low 24 bits of `value`.
    pub const fn new(value: u32) -> QpNumber {
        QpNumber(value & MASK)
    }

    /// The number, below 2²⁴.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for QpNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QpNumber({:#08x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_number_wraps_and_distance_takes_the_shorter_way() {
        let last = Psn::new(0xff_ffff);
        assert_eq!(last.plus(1), Psn::new(0));
        assert_eq!(last.plus(1).since(last), 1);
        assert_eq!(last.since(last.plus(1)), -1);
        assert_eq!(Psn::new(0x80_0000).since(Psn::new(0)), -0x80_0000);
        assert_eq!(Psn::new(0x7f_ffff).since(Psn::new(0)), 0x7f_ffff);
        assert_eq!(Psn::new(0xab00_0001).get(), 1);
    }

    proptest! {
        #[test]
        fn distance_undoes_plus(start: u32, count in 0u64..0x80_0000) {
            let start = Psn::new(start);
            prop_assert_eq!(start.plus(count).since(start), count as i32);
            prop_assert_eq!(start.plus(count + (1 << 24)), start.plus(count));
        }
    }
}
