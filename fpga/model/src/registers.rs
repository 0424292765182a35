//! The registers that the host writes, by address: the same in `quorum_leader` and `quorum_follower`, each of which has a part.
//!
//! A host writes while the grant is off, the nodes' numbers and the commit end last, and turns it on at the end. What it takes
//! back it reads [`SETTLE_CYCLES`] after it has turned the grant off: the frame that was being decided is decided by then, unless
//! an output stands still.

/// 1: the fast path takes frames. Comes up as 0.
pub const ON: u8 = 0;
/// Our MAC address, a number whose most significant byte is the first on the wire, as all addresses here.
pub const LOCAL_MAC: u8 = 1;
/// Our IPv4 address.
pub const LOCAL_IPV4: u8 = 2;
/// Our UDP port.
pub const LOCAL_PORT: u8 = 3;
/// Where a leader's entries go, and what a follower listens to beside its own address; 0 for none.
pub const GROUP_MAC: u8 = 4;
/// As [`GROUP_MAC`].
pub const GROUP_IPV4: u8 = 5;
/// Leader: as [`GROUP_MAC`].
pub const GROUP_PORT: u8 = 6;
/// The term of the grant.
pub const TERM: u8 = 7;
/// The slot of the next entry.
pub const NEXT: u8 = 8;
/// Everything before is committed: what appends say.
pub const COMMIT_END: u8 = 9;
/// Leader: the most entries that are appended and not committed.
pub const IN_FLIGHT: u8 = 10;
/// Every slot before is out of the host's ring. A leader takes it in any cycle, whatever else it does.
pub const DRAINED_END: u8 = 11;
/// Nothing is appended here or behind.
pub const APPEND_END: u8 = 12;
/// The longest entry.
pub const ENTRY_BYTES_MAX: u8 = 13;
/// Leader: who votes, as bits.
pub const VOTERS: u8 = 14;
/// Leader: how many of them must have an entry; at least 1.
pub const COMMIT_COUNT: u8 = 15;
/// Leader: its own number.
pub const SELF: u8 = 16;
/// Follower: the leader's address and port.
pub const LEADER: u8 = 17;
/// Leader: a session's number, for [`SESSION_SEQUENCE`].
pub const SESSION_ID: u8 = 18;
/// Leader: writes the session; the newest request of it that has a slot.
pub const SESSION_SEQUENCE: u8 = 19;
/// Leader: from here on, by node, its address and port.
pub const PLACES: u8 = 32;
/// Leader: from here on, by node, everything before is safe there; behind the last node the number that a commit must exceed:
/// the larger one of the commit end and the term's first slot.
pub const ACKED_ENDS: u8 = 48;

/// So long a frame may be decided at most.
pub const SETTLE_CYCLES: u32 = 32;
/// So many cycles pass between a write of [`ACKED_ENDS`] and the next write.
pub const SET_CYCLES: u32 = 5;
