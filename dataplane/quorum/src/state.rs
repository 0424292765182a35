//! What a replica must not forget beside its log: 32 bytes.

use dataplane_waist::{Slot, Term};
use dataplane_wire::Reject;

/// Term, vote and promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The highest term seen (Raft §5.1).
    pub(crate) term: Term,
    /// Whom we voted for in it.
    pub(crate) vote: Option<u32>,
    /// Last term and end of a log that we once acknowledged and then could not read any more. Until our log is as good
    /// again we vote as if we had it, and do not stand (Protocol-Aware Recovery, FAST'18 §3.4).
    pub(crate) promise: (Term, Slot),
}

const VERSION: u32 = 1;
const BYTES: usize = 32;

impl State {
    /// ```text
    ///  0         4          8      16             24             32
    ///  +---------+----------+------+--------------+--------------+
    ///  | version | vote + 1 | term | promise term | promise end  |
    ///  +---------+----------+------+--------------+--------------+
    /// ```
    pub(crate) fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&VERSION.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.vote.map_or(0, |node| node + 1).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.term.0.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.promise.0.0.to_be_bytes());
        bytes[24..].copy_from_slice(&self.promise.1.0.to_be_bytes());
        bytes
    }

    /// # Errors
    /// Another length or version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<State, Reject> {
        let bytes: &[u8; BYTES] = bytes.try_into().map_err(|_| Reject::Length)?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(word)
        };
        if (word(0) >> 32) as u32 != VERSION {
            return Err(Reject::Version);
        }
        Ok(State {
            vote: (word(0) as u32).checked_sub(1),
            term: Term(word(8)),
            promise: (Term(word(16)), Slot(word(24))),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decode_undoes_encode(term: u64, vote in prop::option::of(0u32..32), promise: (u64, u64)) {
            let state = State { term: Term(term), vote, promise: (Term(promise.0), Slot(promise.1)) };
            prop_assert_eq!(State::decode(&state.encode()), Ok(state));
        }
    }

    #[test]
    fn another_version_or_length_is_refused() {
        let mut bytes = State::default().encode();
        bytes[3] = 2;
        assert_eq!(State::decode(&bytes), Err(Reject::Version));
        assert_eq!(State::decode(&bytes[..31]), Err(Reject::Length));
    }
}
