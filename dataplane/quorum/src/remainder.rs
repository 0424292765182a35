//! Places in tables: which one a number falls on.

/// `number % count`. Tables have a power of two of places nearly always, and there a mask says the same; a commit among three asks
/// some thirty times, and a mask is a cycle where a division of 64 bits is ten and more.
#[inline]
pub(crate) const fn remainder(number: u64, count: u64) -> u64 {
    match count.is_power_of_two() {
        true => number & (count - 1),
        false => number % count,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mask_is_a_remainder(number: u64, count in prop_oneof![1u64..100, 1u64.., (0u32..64).prop_map(|bit| 1 << bit)]) {
            prop_assert_eq!(remainder(number, count), number % count);
        }
    }
}
