//! The running hash over everything that happened: two runs that differ anywhere differ here.

/// A hash over a sequence of words. Not against an adversary: against a hash map's order and a forgotten clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHash(u64);

impl EventHash {
    pub(crate) const EMPTY: EventHash = EventHash(0xCBF2_9CE4_8422_2325);

    /// Takes in one word. The multiplier is odd, so no word is lost; the shift brings the high bits back down.
    pub(crate) fn add(&mut self, word: u64) {
        let product = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ (product >> 32);
    }

    /// The value so far.
    pub fn value(self) -> u64 {
        self.0
    }
}
