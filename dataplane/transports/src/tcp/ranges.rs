//! What arrived out of order: disjoint ranges of bytes, the newest first, as SACK reports them (RFC 2018 §4).

use super::segment::SackBlock;

/// More holes than this are not remembered; what would make another is dropped, as a kernel out of memory does.
const RANGES_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
pub struct Ranges {
    /// Newest first. Without heap while nothing is out of order.
    blocks: Vec<SackBlock>,
}

/// What became of data that was inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// At least a part of it was new.
    New,
    /// All of it was there.
    Duplicate,
    /// There is no room for another hole.
    Refused,
}

impl Ranges {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Adds `start..end`, joined with what it touches, in front.
    pub fn insert(&mut self, block: SackBlock) -> Inserted {
        if self
            .blocks
            .iter()
            .any(|have| have.start <= block.start && block.end <= have.end)
        {
            return Inserted::Duplicate;
        }
        let mut joined = block;
        let mut touched_count = 0;
        // Joining can make it touch no further block: the others were disjoint and apart.
        self.blocks.retain(|have| {
            let is_apart = have.end < block.start || block.end < have.start;
            if !is_apart {
                joined = SackBlock {
                    start: joined.start.min(have.start),
                    end: joined.end.max(have.end),
                };
                touched_count += 1;
            }
            is_apart
        });
        if touched_count == 0 && self.blocks.len() >= RANGES_MAX {
            return Inserted::Refused;
        }
        self.blocks.insert(0, joined);
        Inserted::New
    }

    /// Everything below `next` has arrived: takes ranges off that begin at or below it, and answers the new end.
    pub fn advance(&mut self, mut next: u64) -> u64 {
        // A range taken can reach the start of no other, for they are apart; but `next` may lie beyond several.
        self.blocks.retain(|have| {
            let is_above = have.start > next;
            if !is_above {
                next = next.max(have.end);
            }
            is_above
        });
        // The order is by age, not by place, so one whose start was passed later may have been kept.
        self.blocks.retain(|have| have.start > next);
        if self.blocks.is_empty() {
            self.blocks = Vec::new();
        }
        next
    }

    /// The newest first.
    pub fn blocks(&self) -> &[SackBlock] {
        &self.blocks
    }

    /// The block that holds `seq`.
    pub fn around(&self, seq: u64) -> Option<SackBlock> {
        self.blocks
            .iter()
            .find(|have| have.start <= seq && seq < have.end)
            .copied()
    }

    /// Its heap, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<SackBlock>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(start: u64, end: u64) -> SackBlock {
        SackBlock { start, end }
    }

    #[test]
    fn ranges_join_and_the_newest_stands_first() {
        let mut ranges = Ranges::default();
        for (start, end) in [(10, 20), (30, 40), (50, 60)] {
            assert_eq!(ranges.insert(block(start, end)), Inserted::New);
        }
        assert_eq!(ranges.insert(block(20, 30)), Inserted::New);
        assert_eq!(ranges.blocks(), [block(10, 40), block(50, 60)]);
        assert_eq!(ranges.insert(block(12, 39)), Inserted::Duplicate);
        assert_eq!(ranges.advance(10), 40);
        assert_eq!(ranges.advance(55), 60);
        assert!(ranges.is_empty());
        assert_eq!(ranges.heap_bytes(), 0);
    }

    #[test]
    fn an_end_beyond_several_ranges_takes_them_all() {
        let mut ranges = Ranges::default();
        for (start, end) in [(30, 40), (10, 20), (60, 70)] {
            ranges.insert(block(start, end));
        }
        assert_eq!(ranges.advance(35), 40);
        assert_eq!(ranges.blocks(), [block(60, 70)]);
    }
}
