//! What `quorum_leader` and `quorum_follower` share with the replica that owns them: one word that says who may append, and a
//! ring of entries that the program fills and the replica drains.
//!
//! All of it is words of 64 bits, in memory that both sides map ([`super::map::CONTROL`], [`super::map::RING`], [`super::map::SESSIONS`]). Who holds
//! the grant's [`grant::BUSY`] bit may write the rest of [`Control`] but `drained_end`; while the grant is off, that is the
//! replica.

/// The word that says who may append: `generation << 48 | busy << 47 | next slot`.
///
/// A program takes a frame only if it can set the busy bit of a grant that is on (compare and exchange), and it clears it with
/// everything else written. The replica turns a grant off by exchanging a word that is not busy with 0: from then on nothing is
/// appended, acknowledged or counted by the program, and the next slot stands in the word that it took out. A generation is
/// never used twice, so no program goes on where another one stopped.
pub mod grant {
    /// Where the generation begins; 0 is no grant.
    pub const GENERATION_SHIFT: u32 = 48;
    /// A program is at work on another CPU, or was here a moment ago.
    pub const BUSY: u64 = 1 << 47;
    /// The slot of the next entry.
    pub const NEXT_MASK: u64 = BUSY - 1;

    /// A grant that begins at `next`.
    pub const fn new(generation: u16, next: u64) -> u64 {
        ((generation as u64) << GENERATION_SHIFT) | (next & NEXT_MASK)
    }

    /// Whose grant `word` is; 0 for none.
    pub const fn generation(word: u64) -> u16 {
        (word >> GENERATION_SHIFT) as u16
    }

    /// The next slot of `word`.
    pub const fn next(word: u64) -> u64 {
        word & NEXT_MASK
    }
}

/// The most nodes of a cluster whose fast path a program does; larger clusters go without.
pub const NODES_MAX: usize = 8;
/// Entries that the ring has room for. A power of two.
pub const RING_SLOTS: u32 = 2048;
/// The longest entry that a program takes: what a frame of 1,500 bytes carries, in whole words. Longer ones go up.
pub const ENTRY_BYTES_MAX: usize = 1424;
/// Sessions that [`super::map::SESSIONS`] has room for. A power of two.
pub const SESSIONS_MAX: u32 = 1024;

/// The most slots behind the next one of which a follower's program keeps an entry: what one word has bits for.
pub const HELD_SLOTS_MAX: u64 = 63;
/// Words of a session's ring of bits. A power of two.
pub const SESSION_WORDS: usize = 8;
/// The farthest that a late request of a session is behind its newest: the ring, but for the word that may have been cleared.
pub const SESSION_WINDOW_MAX: u64 = (SESSION_WORDS as u64 - 1) * 64;

/// Where a node or a client is, as two words, so that programs compare and copy words. [`Place::new`] says what is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Place {
    /// The IPv4 address and the UDP port, as they lie in a packet, and two zeros.
    pub address: u64,
    /// The next hop's MAC address, as it lies in a packet, and two zeros.
    pub mac: u64,
}

impl Place {
    /// The place of these bytes; the port is a number.
    pub const fn new(ipv4: [u8; 4], port: u16, mac: [u8; 6]) -> Place {
        let ([a, b, c, d], [e, f]) = (ipv4, port.to_be_bytes());
        let [g, h, i, j, k, l] = mac;
        Place {
            address: u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]),
            mac: u64::from_ne_bytes([g, h, i, j, k, l, 0, 0]),
        }
    }

    /// The address and the port; nothing for no place.
    pub const fn ipv4_and_port(self) -> Option<([u8; 4], u16)> {
        let [a, b, c, d, e, f, ..] = self.address.to_ne_bytes();
        match u16::from_be_bytes([e, f]) {
            0 => None,
            port => Some(([a, b, c, d], port)),
        }
    }

    /// Whether it is the same address and port: MAC addresses change with the way.
    pub const fn is_same(self, other: Place) -> bool {
        self.address == other.address
    }
}

/// Of which there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// See [`grant`].
    pub grant: u64,
    /// Every slot before is out of the ring. The replica's, always.
    pub drained_end: u64,
    /// Leader: every slot before is committed. Follower: the leader said so, whatever this log holds.
    pub commit_end: u64,
    /// The term of the grant.
    pub term: u64,
    /// 1 if nothing may be acknowledged before the replica's disk has it: the program then appends and passes up.
    pub waits_for_disk: u64,
    /// Leader: the first slot of its term.
    pub term_begin: u64,
    /// Leader: the most slots that may be appended and not committed.
    pub in_flight_slots: u64,
    /// Follower: entries that it took. It grows whenever the leader was heard; a clock would cost more to read.
    pub heard_count: u64,
    /// Leader: by node, everything before is safe there; its own too.
    pub acked_end: [u64; NODES_MAX],
    /// Leader: how often each node has acknowledged something.
    pub acked_count: [u64; NODES_MAX],
    /// Leader: who votes, as bits.
    pub voters: u64,
    /// Leader: how many of them must have an entry.
    pub commit_count: u64,
    /// Our own number.
    pub node: u64,
    /// Follower: whose entries it takes.
    pub leader: u64,
    /// By node.
    pub places: [Place; NODES_MAX],
    /// Leader: where its entries go, a place that reaches every follower.
    pub group: Place,
    /// Nothing is appended here or behind: the replica's own log would have no room for it. The replica's, always.
    pub append_end: u64,
    /// The longest entry that the replicas can send again by their other ways.
    pub entry_bytes_max: u64,
    /// Where entries visit the followers one after another: the how-manieth follower this is, from 1, or anything but 0 for the
    /// leader, whose `group` is then the first one. 0 where entries come by themselves.
    pub chain_hop: u64,
    /// Follower of a chain: the next one; port 0 for none.
    pub chain_next: Place,
    /// Last follower of a chain: for whom it acknowledges, as bits.
    pub chain_nodes: u64,
    /// Follower: so far behind the next slot an entry may be and is kept in the ring until what is missing comes, at most
    /// [`HELD_SLOTS_MAX`]. 0: what comes too early goes up.
    pub hold_slots: u64,
    /// Follower: which entries are kept so: bit `n` is the one in slot `next + n`. Bit 0 is never set.
    pub held: u64,
    /// Leader: so far behind its session's newest request a late one may be and still gets a slot, at most
    /// [`SESSION_WINDOW_MAX`], and not more than the number of answers that the replica remembers of a session. With 1 there
    /// are no late ones.
    pub session_window: u64,
}

/// An entry in the ring, at `slot % RING_SLOTS`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Entry {
    /// Which slot this is; written after everything else of it.
    pub slot: u64,
    /// Its term.
    pub term: u64,
    /// Whose request.
    pub client: u64,
    /// Which of that client's.
    pub sequence: u64,
    /// The request's own word, which the answer brings back.
    pub sent_ns: u64,
    /// CRC-32C of the payload.
    pub crc: u64,
    /// Length of the payload.
    pub len_bytes: u64,
    /// Leader: where the client is.
    pub from: Place,
    /// Leader: 1 once the program has answered the client.
    pub answered: u64,
    /// The payload. A word longer than the longest: the verifier knows no lengths that end in half a word.
    pub bytes: [u8; ENTRY_BYTES_MAX + 8],
}

/// A client session, at `id % sessions max`.
///
/// Which of its requests have a slot stands in a ring of bits, as receivers of IPsec keep it against replays (RFC 6479): a
/// request that is newer than all before moves the ring on, and clears a word of it when it comes to that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Session {
    /// Its number; 0 for none.
    pub id: u64,
    /// The newest request of it that has a slot.
    pub sequence: u64,
    /// Of older ones than this the program knows nothing: they go up. Those from here on that have a slot have it from the
    /// program, under this grant.
    pub floor: u64,
    /// The request that the program gave a slot to last, under this grant.
    pub last: u64,
    /// Behind that slot, and so behind those of all others that it gave; 0 for none.
    pub end: u64,
    /// Bit `sequence % 64` of word `sequence / 64 % 8`: it has a slot.
    pub given: [u64; SESSION_WORDS],
}

impl Session {
    /// A session of which only the newest request that has a slot is known: at the beginning of a grant.
    pub const fn new(id: u64, sequence: u64) -> Session {
        Session {
            id,
            sequence,
            floor: sequence.saturating_add(1),
            last: 0,
            end: 0,
            given: [0; SESSION_WORDS],
        }
    }
}

/// What a program of the quorum counts: an index into [`super::map::QUORUM_COUNTS`], an array per CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Count {
    /// Leader: a request got a slot and went to the followers. Follower: an entry was kept and acknowledged.
    Appended = 0,
    /// Follower: an entry that was there already was acknowledged again.
    AppendedAgain = 1,
    /// Leader: an acknowledgement moved nothing that matters; dropped.
    Counted = 2,
    /// Leader: an acknowledgement completed a quorum and became the client's answer.
    Answered = 3,
    /// Leader: an acknowledgement completed a quorum; passed up, because the answer depends on more, or there are several.
    CommittedUp = 4,
    /// Passed up: there is no grant.
    Off = 5,
    /// Passed up: another CPU holds the grant for too long.
    Busy = 6,
    /// Passed up: another term.
    OtherTerm = 7,
    /// Passed up: an entry behind the next one, too far to be kept; or the wish of a follower for one that is not in the ring.
    Gap = 8,
    /// Passed up: the replica does not drain the ring, or too much is in flight.
    Full = 9,
    /// Passed up: no session of ours, or a request of which it is not known here whether it has a slot, or where.
    OtherSession = 10,
    /// Passed up: a command that the program does not take, or one that is not well formed.
    OtherCommand = 11,
    /// Passed up: too long, too short, or over IPv6.
    Unfit = 12,
    /// Passed up: a checksum that is wrong.
    Checksum = 13,
    /// Passed up: not from a member that it could be from.
    Stranger = 14,
    /// Passed up: a frame that says what cannot be.
    Impossible = 15,
    /// Passed up after it was appended, or counted: the replica's disk must have it first.
    WaitsForDisk = 16,
    /// Follower: an entry that came too early was kept until what is missing comes.
    Held = 17,
    /// Leader: an entry went out once more, because a follower asked for it, or the client that waits for it.
    SentAgain = 18,
    /// Leader: a request that came once more was answered once more.
    AnsweredAgain = 19,
}

impl Count {
    /// All of them, in the order of the map.
    pub const ALL: [Count; 20] = [
        Count::Appended,
        Count::AppendedAgain,
        Count::Counted,
        Count::Answered,
        Count::CommittedUp,
        Count::Off,
        Count::Busy,
        Count::OtherTerm,
        Count::Gap,
        Count::Full,
        Count::OtherSession,
        Count::OtherCommand,
        Count::Unfit,
        Count::Checksum,
        Count::Stranger,
        Count::Impossible,
        Count::WaitsForDisk,
        Count::Held,
        Count::SentAgain,
        Count::AnsweredAgain,
    ];

    /// A name for records and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Count::Appended => "appended",
            Count::AppendedAgain => "appended_again",
            Count::Counted => "counted",
            Count::Answered => "answered",
            Count::CommittedUp => "committed_up",
            Count::Off => "off",
            Count::Busy => "busy",
            Count::OtherTerm => "other_term",
            Count::Gap => "gap",
            Count::Full => "full",
            Count::OtherSession => "other_session",
            Count::OtherCommand => "other_command",
            Count::Unfit => "unfit",
            Count::Checksum => "checksum",
            Count::Stranger => "stranger",
            Count::Impossible => "impossible",
            Count::WaitsForDisk => "waits_for_disk",
            Count::Held => "held",
            Count::SentAgain => "sent_again",
            Count::AnsweredAgain => "answered_again",
        }
    }
}

const _: () = assert!(RING_SLOTS.is_power_of_two() && SESSIONS_MAX.is_power_of_two());
const _: () = assert!(ENTRY_BYTES_MAX.is_multiple_of(8) && size_of::<Entry>().is_multiple_of(8));
const _: () = assert!(SESSION_WORDS.is_power_of_two() && HELD_SLOTS_MAX < 64);
const _: () = assert!(size_of::<Place>() == 16 && size_of::<Control>().is_multiple_of(8));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_says_generation_and_slot() {
        let word = grant::new(7, 123);
        assert_eq!((grant::generation(word), grant::next(word)), (7, 123));
        assert_eq!(
            (grant::generation(word | grant::BUSY), grant::next(word | grant::BUSY)),
            (7, 123)
        );
        assert_eq!(grant::generation(word + 1), 7);
        assert_eq!(grant::next(word + 1), 124);
        assert_eq!(grant::generation(0), 0);
    }

    #[test]
    fn counts_stand_in_the_order_of_the_map() {
        for (index, count) in Count::ALL.into_iter().enumerate() {
            assert_eq!(count as usize, index, "{}", count.name());
        }
    }
}
