//! One-sided replication, after Mu (Aguilera et al., "Microsecond Consensus for Microsecond Applications", OSDI'20): a leader
//! writes its followers' logs, and no follower sends anything.
//!
//! ```text
//!  client ── request ─▶ leader ── WRITE slot ─▶ follower's memory      a majority of completions: committed
//!                         │  ◀── completion ──┘      │
//!                         └ reply ─▶ client          └─ polled by its owner: applied when a later slot says "committed"
//! ```
//!
//! Everything goes through two [`Window`]s: the *replication* window, which one leader at a time may write, and the *background*
//! window, which is open to all ([`layout`]). The state machine and its sessions are those of [`crate::Replica`].
//!
//! # What is safe, and why
//!
//! 1. *One writer.* A follower grants its replication window to whoever asked last ([`Window::grant`] is a fence), so of two
//!    leaders at most one can write to a majority: permission is what a vote and a lease are elsewhere. A leader that is refused
//!    steps down. The fence keeps out who has no permission, not what somebody wrote under an earlier one: a packet that was late may
//!    come when its sender is let in again. So nobody asks a follower while anything is under way that it has posted to it.
//! 2. *Prepare.* With a majority's permission a leader reads their promises (`min proposal`), chooses a higher number, writes it to
//!    them, and reads their logs behind what they have applied, and then their promises again. Reading needs no permission: only if
//!    the promise is still its own has nobody else written there meanwhile, and only then is the memory that of the process that
//!    promised. It takes over the best log (of the highest last proposal, then the longest), as whoever wins Raft's election has it;
//!    what a majority has is in it. Then it makes the others equal, and begins with an empty entry of its own: older ones are
//!    committed with it, never by counting (Raft §5.4.2).
//! 3. *A log is a chain.* An entry is named by slot and proposal, and says the proposal of the one before it; who reads a log, its
//!    owner or a leader, goes on only behind the entry that is meant. So two logs that have an entry in common are the same up to
//!    there (Raft's log matching, figure 3), whatever was lost on the way, and whatever of an older log is left behind a newer one's
//!    end. *What is committed is never written over*: a leader writes only what differs, so one that dies in the middle of a write
//!    tears nothing that anybody relies on.
//! 4. *A slot is whole or is not there*: canary and checksum ([`layout`]).
//!    *What is committed is said of what is there.* An entry says it of those before it in its chain. The word `commit end` says it of
//!    whatever stands in the slots, so it covers only what the follower has acknowledged, each entry behind the one before. Not what was
//!    posted: writes of one connection land in order, but a connection that is set up again has lost some of them, and its owner
//!    learns so after it has posted the next ones.
//! 5. *A slot is used again* when every follower that the leader writes to has applied what is in it. Who was too far away for
//!    that gets a snapshot.
//! 6. *Who lost its memory counts for nothing* until a leader, which has made sure after the loss that it still has a majority
//!    without it, has written to it all that there is. Two majorities meet in a node that has not forgotten.
//! 7. *Reads* are answered after a round of writes that begins after they came: a majority still lets this leader write.
//!
//! What an acknowledgement stands for: the memory of a majority ([`crate::guarantees::Keeps::Memory`]).
//!
//! Unlike Mu's, the leader may have several slots under way, entries carry what is committed (`commit end`) instead of implying it,
//! a leader is not replaced by a lower number that comes back before that one has the permission of a majority, and a node that
//! lost its memory comes back under its own number.
//!
//! # One role a file
//!
//! [`replica`](Replica) takes turns; `election` reads heartbeats; `permission` says who may write; `leader` and its parts `prepare`
//! and `accept` write; `follower` polls and applies; `transfer` moves snapshots; `requests` hears clients; [`check`] watches.

mod accept;
pub mod check;
mod config;
mod election;
mod flights;
mod follower;
pub mod layout;
mod leader;
mod permission;
mod prepare;
mod replica;
mod requests;
mod transfer;

pub use config::{Config, ConfigError, Limits, Mutation, Start, Timing};
pub use layout::Layout;
pub use replica::{Counters, Planes, Replica, RoleName};

#[expect(unused_imports, reason = "the documentation's links")]
use dataplane_waist::Window;
