//! What a replica counts. Nothing that is dropped or refused goes uncounted.

/// Counters since the replica began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries committed and applied.
    pub applied_count: u64,
    /// Requests of clients appended, as leader.
    pub appended_count: u64,
    /// Requests answered from a session's memory: they came twice.
    pub repeated_count: u64,
    /// Requests refused because something was full.
    pub busy_count: u64,
    /// Requests turned away because we do not lead.
    pub not_leader_count: u64,
    /// Requests of sessions that are not known.
    pub expired_count: u64,
    /// Requests refused for what they ask.
    pub refused_count: u64,
    /// Reads answered under a lease.
    pub lease_reads_count: u64,
    /// Reads answered after asking a quorum.
    pub index_reads_count: u64,
    /// Reads answered from what was applied, whatever that was.
    pub stale_reads_count: u64,
    /// Entries taken by the fast path.
    pub fast_entries_count: u64,
    /// Entries taken by the general path.
    pub general_entries_count: u64,
    /// Entries held because one before them was missing.
    pub held_count: u64,
    /// Gaps reported.
    pub gaps_count: u64,
    /// Entries sent again.
    pub resent_count: u64,
    /// Entries cut off because a leader's log said otherwise.
    pub truncated_count: u64,
    /// Elections stood for.
    pub elections_count: u64,
    /// Times we became the leader.
    pub led_count: u64,
    /// Times we stopped being the leader.
    pub stepped_down_count: u64,
    /// Snapshots taken.
    pub snapshots_count: u64,
    /// Snapshots installed from a leader.
    pub snapshots_installed_count: u64,
    /// Frames of another cluster.
    pub wrong_cluster_count: u64,
    /// Frames that name another node than the one whose address they came from.
    pub wrong_node_count: u64,
    /// Frames that name a node of this cluster, and came from an address that is no node's: a second replica with its number,
    /// or a node that listens elsewhere than the others were told.
    pub wrong_address_count: u64,
    /// Frames that a correct cluster cannot send: a second leader of one term, an entry against a committed one, an
    /// acknowledgement of what was never sent. Above 0, something is broken.
    pub impossible_count: u64,
    /// Snapshot chunks and snapshots that were not what they said.
    pub bad_snapshots_count: u64,
}
