//! How the log stood behind one of its commits, kept where no damage to the log hides it: in the file of the state.
//!
//! A commit tells what came before it, so whatever is lost in the middle of the log is judged by the commit behind it. Behind the
//! last one there is none. Of a lost commit that only appended, nothing must be known but how many records it may have had:
//! what stood before it still stands. One that did more may have replaced what can still be read. Therefore whatever does more than
//! append is followed by a witness: a state that was set, a slot that was overwritten, a snapshot, the first commit of a
//! segment file, and what opening concluded from a log that was not whole.
//!
//! To a reader it is a commit that nobody can miss, behind all commits up to its number:
//!
//! ```text
//!  … 7  8  ✗  10      ⟨ witness behind 10 ⟩      11  ✗
//!    ╰ judged by the witness ╯                        ╰ appends alone, or it would have one of its own
//! ```

use crate::{
    format::{Cut, NUMBER_MAX, RecordHeader, RecordKind},
    replay::{Damage, Standing},
};

/// How the log stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    /// Behind all commits up to this number.
    pub(crate) lsn: u64,
    /// The last of those that counts. Lower than `lsn` only if opening a log concluded this.
    pub(crate) last_lsn: u64,
    /// The oldest commit that counts.
    pub(crate) live_lsn: u64,
    /// The file that holds the log's end. Whatever was acknowledged later is there too: a later file would have a witness of its own.
    pub(crate) file_index: u32,
    pub(crate) shape: LogShape,
}

/// What a log is, but for its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogShape {
    /// Its generation is known.
    pub(crate) snapshot: Option<Standing>,
    pub(crate) end: u64,
    pub(crate) end_term: u64,
    pub(crate) cut: Cut,
    pub(crate) damage: Option<Damage>,
}

const WORDS_COUNT: usize = 11;

impl Witness {
    /// The length of its record's payload.
    pub(crate) const BYTES: usize = WORDS_COUNT * 8;

    /// Its record.
    pub(crate) fn emit(&self) -> (RecordHeader, [u8; Witness::BYTES]) {
        let LogShape {
            snapshot,
            end,
            end_term,
            cut,
            damage,
        } = self.shape;
        let snapshot = snapshot.unwrap_or(Standing {
            end: 0,
            last_term: 0,
            generation: None,
        });
        let damage = damage.unwrap_or(Damage { end: 0, term: 0 });
        let words: [u64; WORDS_COUNT] = [
            self.lsn,
            self.last_lsn,
            self.live_lsn,
            snapshot.end,
            snapshot.last_term,
            snapshot.generation.unwrap_or(0),
            cut.lsn,
            cut.slot,
            damage.end,
            damage.term,
            u64::from(self.file_index),
        ];
        let mut payload = [0; Witness::BYTES];
        for (index, word) in words.iter().enumerate() {
            payload[index * 8..][..8].copy_from_slice(&word.to_be_bytes());
        }
        let header = RecordHeader {
            kind: RecordKind::Witness,
            payload_bytes: Witness::BYTES as u32,
            term: end_term,
            slot: end,
        };
        (header, payload)
    }

    /// Reads it; nothing if it has another length, or names a file that no log has. Numbers and slots above [`NUMBER_MAX`] read as that.
    pub(crate) fn parse(header: RecordHeader, payload: &[u8]) -> Option<Witness> {
        let payload: &[u8; Witness::BYTES] = payload.try_into().ok()?;
        let (words, _) = payload.as_chunks::<8>();
        let word = |index: usize| u64::from_be_bytes(words[index]);
        let number = |index: usize| word(index).min(NUMBER_MAX);
        let generation = word(5);
        let damage_end = number(8);
        Some(Witness {
            lsn: number(0),
            last_lsn: number(1),
            live_lsn: number(2),
            file_index: u32::try_from(word(10)).ok()?,
            shape: LogShape {
                snapshot: (generation > 0).then_some(Standing {
                    end: number(3),
                    last_term: word(4),
                    generation: Some(generation),
                }),
                end: header.slot,
                end_term: header.term,
                cut: Cut {
                    lsn: number(6),
                    slot: number(7),
                },
                damage: (damage_end > 0).then_some(Damage {
                    end: damage_end,
                    term: word(9),
                }),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bare = Witness {
            lsn: 9,
            last_lsn: 7,
            live_lsn: 3,
            file_index: 1,
            shape: LogShape::default(),
        };
        let full = Witness {
            shape: LogShape {
                snapshot: Some(Standing {
                    end: 5,
                    last_term: 2,
                    generation: Some(6),
                }),
                end: 20,
                end_term: 4,
                cut: Cut { lsn: 8, slot: 11 },
                damage: Some(Damage { end: 30, term: 3 }),
            },
            ..bare
        };
        for witness in [bare, full] {
            let (header, payload) = witness.emit();
            let parsed = RecordHeader::parse(&header.emit()).unwrap().unwrap();
            assert_eq!(Witness::parse(parsed, &payload), Some(witness));
            assert_eq!(Witness::parse(parsed, &payload[1..]), None);
        }
    }
}
