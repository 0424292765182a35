//! Why a request that was understood will not be done.

/// The command has no business where it came to: it belongs to the protocol, or it writes and came as a read. No client
/// can cause this, so whoever sees it has found a mistake in a replica.
pub const MISPLACED: u8 = 0;
/// The new members' quorums do not intersect, or are larger than the members.
pub const UNSOUND_MEMBERS: u8 = 1;
/// An earlier change of the members is not committed yet.
pub const CHANGE_UNDER_WAY: u8 = 2;
/// The new members' quorums do not intersect the old ones'.
pub const NOT_OVERLAPPING: u8 = 3;
/// The request, or what it would make, is larger than this store allows.
pub const TOO_LARGE: u8 = 4;
/// The store is about to stop.
pub const SHUTTING_DOWN: u8 = 5;

/// The reason in snake case, as records print it.
pub const fn name(reason: u8) -> &'static str {
    match reason {
        MISPLACED => "misplaced",
        UNSOUND_MEMBERS => "unsound_members",
        CHANGE_UNDER_WAY => "change_under_way",
        NOT_OVERLAPPING => "not_overlapping",
        TOO_LARGE => "too_large",
        SHUTTING_DOWN => "shutting_down",
        _ => "unknown",
    }
}
