//! A grant in the words of programs, and what they did under it in those of the protocol: for programs in a host's driver and for
//! those of histories in virtual time alike. Here nodes, as the protocol has them, meet addresses, as programs have them.

use std::net::SocketAddrV4;

use dataplane_quorum::driver::{self, Part};
use dataplane_waist::Slot;
use dataplane_wire::ethernet::Mac;
use ebpf_host::quorum::{Grant, HELD_SLOTS_MAX, NODES_MAX, Seen, Session};

/// What programs must know beside a grant: where they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    /// Their node.
    pub(crate) node: u32,
    /// By node: where it is.
    pub(crate) places: [Option<(SocketAddrV4, Mac)>; NODES_MAX],
    /// What reaches every follower.
    pub(crate) group: (SocketAddrV4, Mac),
    /// Nothing is acknowledged before the replica's disk has it.
    pub(crate) waits_for_disk: bool,
    /// The most slots that a leader's appends and has not committed.
    pub(crate) in_flight_slots: u64,
    /// The sessions that a replica has room for.
    pub(crate) sessions_max: usize,
}

impl Surroundings {
    /// What a program is told of `grant`. For a leader's, `sessions` becomes its sessions, by place.
    pub(crate) fn told(&self, grant: &driver::Grant<'_>, sessions: &mut Vec<Session>) -> Grant {
        let given = Grant {
            next: grant.next.0,
            term: grant.term.0,
            append_end: grant.append_end.0,
            entry_bytes_max: grant.entry_bytes_max as u64,
            node: self.node,
            leader: self.node,
            commit_end: grant.commit_end.0,
            waits_for_disk: self.waits_for_disk,
            term_begin: 0,
            in_flight_slots: self.in_flight_slots,
            voters: 0,
            commit_count: 0,
            acked_end: [0; NODES_MAX],
            places: self.places,
            group: Some(self.group),
            hold_slots: HELD_SLOTS_MAX,
            session_window: 0,
        };
        match grant.part {
            Part::Follower { leader } => Grant { leader, ..given },
            Part::Leader {
                term_begin,
                voters,
                commit_count,
                acked_end,
                sessions: list,
                session_replies,
            } => {
                sessions.clear();
                sessions.resize(self.sessions_max, Session::default());
                for &(id, sequence) in list {
                    sessions[(id % self.sessions_max as u64) as usize] = Session::new(id, sequence);
                }
                Grant {
                    term_begin: term_begin.0,
                    voters,
                    commit_count,
                    acked_end: std::array::from_fn(|node| acked_end[node].0),
                    // Where the disk is waited for, the replica commits and answers, and only it knows what became of a request that
                    // comes again.
                    session_window: if self.waits_for_disk { 0 } else { session_replies },
                    ..given
                }
            }
        }
    }
}

/// What a program did, as the protocol asks for it; `end` is behind the last entry that it appended. A follower's hears `leader`
/// alone, a leader's is `leader` nothing.
pub(crate) fn done(seen: &Seen, end: Slot, leader: Option<u32>) -> driver::Seen {
    let mut done = driver::Seen {
        end,
        commit_end: Slot(seen.commit_end),
        acked_end: [Slot(0); dataplane_quorum::NODES_MAX],
        heard: [0; dataplane_quorum::NODES_MAX],
    };
    match leader {
        Some(leader) => done.heard[leader as usize] = seen.heard_count,
        None => {
            // A program knows of fewer nodes than a replica may have.
            for node in 0..NODES_MAX {
                done.acked_end[node] = Slot(seen.acked_end[node]);
                done.heard[node] = seen.acked_count[node];
            }
        }
    }
    done
}
