//! What stands where in a replica's two windows. All of it is in this file.
//!
//! The **replication window** is written by the one leader that was granted it, and read by everybody:
//!
//! ```text
//!  0              8            16      24               32    64
//!  +--------------+------------+-------+----------------+-----+--------+--------+----
//!  | min proposal | commit end | round | recovered life |     | slot 0 | slot 1 | …      a ring of slots_count
//!  +--------------+------------+-------+----------------+-----+--------+--------+----
//!
//!  a slot:
//!  0     4     8      16         24       32           40
//!  +-----+-----+------+----------+--------+------------+---------+-----+--------+
//!  | crc | len | slot | proposal | before | commit end | payload | pad | canary |
//!  +-----+-----+------+----------+--------+------------+---------+-----+--------+
//! ```
//!
//! The **background window** is open: every peer writes into its own mailbox here, and only there; the owner stores the rest.
//!
//! ```text
//!  0        128                128 + 64 · 32
//!  +--------+----------------+---+----------+
//!  | beacon | mailbox of 0   | … | snapshot |
//!  +--------+----------------+---+----------+
//!
//!  beacon:   | crc, flags | heartbeat | life | applied end | applied proposal | granted number | granted to + 1 | leader + 1 | log begin |
//!  mailbox:  | permission request | ask for a snapshot | offer: crc | contents' crc | end | proposal | length |
//! ```
//!
//! Numbers are in this machine's order: memory is shared by machines of one kind, and words of 8 bytes are never torn. Everything
//! longer can be: a slot is taken for whole if its canary, which stands behind the payload, and its checksum say so. With words
//! that become visible in rising order, as adapters do it, the canary alone would tell (Mu, OSDI'20 §4.2); verbs do not promise the
//! order, and a reader on a CPU copies while the adapter writes, hence the checksum. The canary is looked at first: it is cheap.

use dataplane_wire::checksum::crc32c;

use crate::config::NODES_MAX;

/// Bytes of a word.
pub const WORD_BYTES: usize = 8;

/// The promise not to take entries of a lower proposal: where it stands.
pub const MIN_PROPOSAL_AT: u64 = 0;
/// Everything before this slot is committed.
pub const COMMIT_END_AT: u64 = 8;
/// What a leader writes to learn whether it still may.
pub const ROUND_AT: u64 = 16;
/// The life of the owner that a leader has brought up.
pub const RECOVERED_LIFE_AT: u64 = 24;
/// The words before the slots.
pub const HEADER_BYTES: usize = 32;
/// Where the ring begins: behind a cache line.
pub const SLOTS_AT: u64 = 64;
/// Before a slot's payload.
pub const SLOT_HEADER_BYTES: usize = 40;

/// Bytes of the beacon, which is at the beginning.
pub const BEACON_BYTES: usize = 72;
/// Where the mailboxes begin: behind the cache lines of the beacon.
pub const MAILBOXES_AT: usize = 128;
/// Bytes of a mailbox.
pub const MAILBOX_BYTES: usize = 64;
/// Within a mailbox: the word that asks for permission.
pub const PERMISSION_AT: u64 = 0;
/// Within a mailbox: the word that asks for a snapshot.
pub const ASK_AT: u64 = 8;
/// Within a mailbox: the offer of one.
pub const OFFER_AT: u64 = 16;
/// Bytes of an offer.
pub const OFFER_BYTES: usize = 32;
/// Where a published snapshot's contents begin.
pub const SNAPSHOT_AT: u64 = (MAILBOXES_AT + NODES_MAX * MAILBOX_BYTES) as u64;

/// How large the windows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Slots of the ring.
    pub slots_count: u64,
    /// The longest entry.
    pub entry_bytes_max: usize,
    /// The longest snapshot.
    pub snapshot_bytes_max: usize,
}

/// An entry as it stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The leader's proposal number: with the slot it names the entry, for a leader writes each slot once.
    pub proposal: u64,
    /// The proposal of the entry in the slot before, 0 for the first: an entry belongs to a log only behind the entry that it names.
    pub before: u64,
    /// What the leader knew to be committed when it wrote this.
    pub commit_end: u64,
    /// A request, or the no-op.
    pub payload: &'a [u8],
}

impl Layout {
    /// From one slot to the next: a multiple of a cache line.
    pub const fn slot_bytes(&self) -> usize {
        (written_bytes(self.entry_bytes_max)).next_multiple_of(64)
    }

    /// Length of the replication window.
    pub const fn replication_bytes(&self) -> usize {
        SLOTS_AT as usize + self.slots_count as usize * self.slot_bytes()
    }

    /// Length of the background window.
    pub const fn background_bytes(&self) -> usize {
        SNAPSHOT_AT as usize + self.snapshot_bytes_max
    }

    /// Where a slot of the log stands.
    pub const fn slot_at(&self, slot: u64) -> u64 {
        SLOTS_AT + (slot % self.slots_count) * self.slot_bytes() as u64
    }
}

/// Where the mailbox of a node stands in somebody else's window.
pub const fn mailbox_at(node: u32) -> u64 {
    (MAILBOXES_AT + node as usize * MAILBOX_BYTES) as u64
}

/// How much of a slot an entry of that length takes.
pub const fn written_bytes(payload_bytes: usize) -> usize {
    SLOT_HEADER_BYTES + payload_bytes.next_multiple_of(WORD_BYTES) + WORD_BYTES
}

/// A word that no other entry of this place in the ring ends with.
fn canary(slot: u64, proposal: u64) -> u64 {
    // Odd factors: SplitMix64's increment and the first of its finalizer (Steele, Lea and Flood, OOPSLA'14).
    (slot + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ proposal.wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; WORD_BYTES];
    word.copy_from_slice(&bytes[at..at + WORD_BYTES]);
    u64::from_ne_bytes(word)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    let mut half = [0; 4];
    half.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(half)
}

/// Reads a word.
pub fn parse_word(bytes: &[u8]) -> u64 {
    word(bytes, 0)
}

/// Makes `out` the bytes to write into a slot.
pub fn emit_slot(slot: u64, entry: &Entry<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(entry.payload.len() as u32).to_ne_bytes());
    for number in [slot, entry.proposal, entry.before, entry.commit_end] {
        out.extend_from_slice(&number.to_ne_bytes());
    }
    out.extend_from_slice(entry.payload);
    let crc = crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_ne_bytes());
    out.resize(written_bytes(entry.payload.len()) - WORD_BYTES, 0);
    out.extend_from_slice(&canary(slot, entry.proposal).to_ne_bytes());
}

/// How much of its place an entry of `slot` takes, by the header that stands there; `None` if it is of no such entry.
pub fn announced_bytes(slot: u64, header: &[u8; SLOT_HEADER_BYTES]) -> Option<usize> {
    (word(header, 16) != 0 && word(header, 8) == slot).then(|| written_bytes(half(header, 4) as usize))
}

/// Whether and what entry of `slot` stands in the bytes of its place. `checks` is false where a mistake is made on purpose.
pub fn parse_slot(slot: u64, bytes: &[u8], checks: bool) -> Option<Entry<'_>> {
    let len = half(bytes, 4) as usize;
    let (proposal, end) = (word(bytes, 16), SLOT_HEADER_BYTES.checked_add(len)?);
    if proposal == 0 || word(bytes, 8) != slot || len > bytes.len() || written_bytes(len) > bytes.len() {
        return None;
    }
    if checks {
        let canary_at = written_bytes(len) - WORD_BYTES;
        if word(bytes, canary_at) != canary(slot, proposal) || crc32c(&bytes[4..end]) != half(bytes, 0) {
            return None;
        }
    }
    Some(Entry {
        proposal,
        before: word(bytes, 24),
        commit_end: word(bytes, 32),
        payload: &bytes[SLOT_HEADER_BYTES..end],
    })
}

/// What a replica lets the others know of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beacon {
    /// Whether its memory has all that it has ever promised and acknowledged.
    pub is_full: bool,
    /// Grows as long as it runs.
    pub heartbeat: u64,
    /// [`super::Config::life`].
    pub life: u64,
    /// Everything before this slot is applied, so the slots may be used again.
    pub applied_end: u64,
    /// The proposal of the entry before.
    pub applied_proposal: u64,
    /// Whose request for permission it granted last, and that request's number.
    pub granted: Option<(u32, u64)>,
    /// Whom it takes for the leader.
    pub leader: Option<u32>,
    /// Where its log begins: what stands in slots before was left there when a snapshot came, and means nothing.
    pub log_begin: u64,
}

impl Beacon {
    /// The bytes to store.
    pub fn emit(&self) -> [u8; BEACON_BYTES] {
        let mut bytes = [0; BEACON_BYTES];
        bytes[4..8].copy_from_slice(&u32::from(self.is_full).to_ne_bytes());
        let (node, number) = self
            .granted
            .map_or((0, 0), |(node, number)| (u64::from(node) + 1, number));
        let leader = self.leader.map_or(0, |node| u64::from(node) + 1);
        let words = [
            self.heartbeat,
            self.life,
            self.applied_end,
            self.applied_proposal,
            number,
            node,
            leader,
            self.log_begin,
        ];
        for (index, word) in words.into_iter().enumerate() {
            bytes[8 * (index + 1)..8 * (index + 2)].copy_from_slice(&word.to_ne_bytes());
        }
        let crc = crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_ne_bytes());
        bytes
    }

    /// `None`: torn, or never stored.
    pub fn parse(bytes: &[u8]) -> Option<Beacon> {
        let bytes = bytes.get(..BEACON_BYTES)?;
        if crc32c(&bytes[4..]) != half(bytes, 0) {
            return None;
        }
        let node = |at: usize| u32::try_from(word(bytes, at)).ok()?.checked_sub(1);
        Some(Beacon {
            is_full: half(bytes, 4) & 1 == 1,
            heartbeat: word(bytes, 8),
            life: word(bytes, 16),
            applied_end: word(bytes, 24),
            applied_proposal: word(bytes, 32),
            granted: node(48).map(|node| (node, word(bytes, 40))),
            leader: node(56),
            log_begin: word(bytes, 64),
        })
    }
}

/// A snapshot to be fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// CRC-32C of the contents.
    pub crc: u32,
    /// It stands for every slot before this one.
    pub end: u64,
    /// The proposal of the last of them.
    pub proposal: u64,
    /// Length of the contents.
    pub len_bytes: u64,
}

impl Offer {
    /// The bytes to write.
    pub fn emit(&self) -> [u8; OFFER_BYTES] {
        let mut bytes = [0; OFFER_BYTES];
        bytes[4..8].copy_from_slice(&self.crc.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.end.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.proposal.to_ne_bytes());
        bytes[24..].copy_from_slice(&self.len_bytes.to_ne_bytes());
        let crc = crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_ne_bytes());
        bytes
    }

    /// `None`: torn, or never written.
    pub fn parse(bytes: &[u8]) -> Option<Offer> {
        let bytes = bytes.get(..OFFER_BYTES)?;
        (crc32c(&bytes[4..]) == half(bytes, 0)).then(|| Offer {
            crc: half(bytes, 4),
            end: word(bytes, 8),
            proposal: word(bytes, 16),
            len_bytes: word(bytes, 24),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry<'static> = Entry {
        proposal: 33,
        before: 32,
        commit_end: 6,
        payload: b"thirteen byte",
    };

    #[test]
    fn an_entry_is_found_in_its_slot_and_no_part_of_it_is() {
        let mut bytes = Vec::new();
        emit_slot(7, &ENTRY, &mut bytes);
        assert_eq!(bytes.len(), written_bytes(ENTRY.payload.len()));
        assert_eq!(parse_slot(7, &bytes, true), Some(ENTRY));
        assert_eq!(parse_slot(8, &bytes, true), None);
        let header = bytes.first_chunk().expect("a header");
        assert_eq!(announced_bytes(7, header), Some(bytes.len()));
        assert_eq!(announced_bytes(8, header), None);
        assert_eq!(announced_bytes(0, &[0; SLOT_HEADER_BYTES]), None);
        let mut old = Vec::new();
        let before = Entry {
            proposal: 1,
            before: 0,
            commit_end: 2,
            payload: b"THIRTEEN BYTE",
        };
        emit_slot(7, &before, &mut old);
        // Every mixture of words of one and of the other, and of zeroes and the other.
        let words_count = bytes.len() / WORD_BYTES;
        for below in [old, vec![0; bytes.len()]] {
            for set in 0..(1u32 << words_count) - 1 {
                let mut torn = below.clone();
                for word in (0..words_count).filter(|word| set >> word & 1 == 1) {
                    let place = word * WORD_BYTES..(word + 1) * WORD_BYTES;
                    torn[place.clone()].copy_from_slice(&bytes[place]);
                }
                let found = parse_slot(7, &torn, true);
                // A word that both have may be missing: that is the whole entry.
                let is_whole = torn == bytes;
                assert!(
                    is_whole || found.is_none_or(|entry| entry == before),
                    "{set:b}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_no_entry() {
        let mut bytes = Vec::new();
        emit_slot(7, &ENTRY, &mut bytes);
        for len in [14, 17, 1 << 20, u32::MAX] {
            bytes[4..8].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(parse_slot(7, &bytes, true), None, "{len}");
        }
    }

    #[test]
    fn beacons_and_offers_come_back_and_torn_ones_do_not() {
        let beacon = Beacon {
            is_full: true,
            heartbeat: 5,
            life: 2,
            applied_end: 9,
            applied_proposal: 64,
            granted: Some((0, 17)),
            leader: None,
            log_begin: 4,
        };
        let mut bytes = beacon.emit();
        assert_eq!(Beacon::parse(&bytes), Some(beacon));
        bytes[40] ^= 1;
        assert_eq!(Beacon::parse(&bytes), None);
        assert_eq!(Beacon::parse(&[0; BEACON_BYTES]), None);
        let offer = Offer {
            crc: 3,
            end: 4,
            proposal: 5,
            len_bytes: 6,
        };
        let mut bytes = offer.emit();
        assert_eq!(Offer::parse(&bytes), Some(offer));
        bytes[9] ^= 1;
        assert_eq!((Offer::parse(&bytes), Offer::parse(&[0; OFFER_BYTES])), (None, None));
    }

    #[test]
    fn slots_do_not_overlap_and_fill_the_window() {
        let layout = Layout {
            slots_count: 5,
            entry_bytes_max: 100,
            snapshot_bytes_max: 1000,
        };
        assert!(layout.slot_bytes() >= written_bytes(100));
        assert_eq!(
            layout.slot_at(4) as usize + layout.slot_bytes(),
            layout.replication_bytes()
        );
        assert_eq!(layout.slot_at(5), layout.slot_at(0));
        assert!(mailbox_at(31) + MAILBOX_BYTES as u64 <= SNAPSHOT_AT);
    }
}
