//! What a program counted, summed over CPUs.

use core::fmt;

use ebpf_abi::Count;

/// One number for each [`Count`], in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Count::ALL.len()]);

impl Counts {
    pub(crate) fn set(&mut self, count: Count, frames_count: u64) {
        self.0[count as usize] = frames_count;
    }

    /// Frames counted as `count`.
    pub const fn get(&self, count: Count) -> u64 {
        self.0[count as usize]
    }

    /// Frames that the program saw: each is counted once.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What is not zero, in the order of [`Count::ALL`].
    pub fn non_zero(&self) -> impl Iterator<Item = (Count, u64)> + '_ {
        Count::ALL
            .into_iter()
            .map(|count| (count, self.get(count)))
            .filter(|(_, frames_count)| *frames_count != 0)
    }

    /// What was counted since `earlier`, a reading of the same program.
    pub fn since(&self, earlier: &Counts) -> Counts {
        Counts(core::array::from_fn(|index| {
            // The kernel's sums grow; the difference of two readings of the same program is not negative.
            self.0[index].wrapping_sub(earlier.0[index])
        }))
    }
}

impl fmt::Display for Counts {
    /// "taken 12, other_port 3", or "nothing".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (count, frames_count) in self.non_zero() {
            write!(f, "{separator}{} {frames_count}", count.name())?;
            separator = ", ";
        }
        if separator.is_empty() {
            f.write_str("nothing")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shown_by_name_subtracted_and_summed() {
        let mut earlier = Counts::default();
        assert_eq!(earlier.to_string(), "nothing");
        earlier.set(Count::Taken, 3);
        let mut later = earlier;
        later.set(Count::Taken, 5);
        later.set(Count::Stranger, 7);
        assert_eq!(later.to_string(), "taken 5, stranger 7");
        assert_eq!(later.total(), 12);
        let between = later.since(&earlier);
        assert_eq!(
            between.non_zero().collect::<Vec<_>>(),
            [(Count::Taken, 2), (Count::Stranger, 7)]
        );
    }
}
