//! L2: quorum replication as a state machine. No I/O, no clock, no randomness of its own.
//!
//! The words are those of Raft (Ongaro and Ousterhout, USENIX ATC'14; Ongaro's thesis, 2014) and Viewstamped Replication
//! (Liskov and Cowling, 2012): a *leader* of a *term* gives every request a *slot* of its log, *followers* take its entries and
//! acknowledge what is safe with them, and an entry that a *quorum* has is *committed*: it is applied, and its client answered.
//!
//! ```text
//!  client ── request ─▶ leader ── Append ─▶ follower ─▶ log ─▶ Input::Durable ── Ack ─▶ leader ── reply ─▶ client
//!                         │   └──── log ─▶ Input::Durable ──── counts ────────────────────┘
//!                         └ Entries: heartbeats, batches, repairs ◀── Report: what is safe, what is missing
//! ```
//!
//! # Two paths
//!
//! **Fast**: a follower that knows its log to equal the leader's takes an `Append` of the same term for the next slot, by
//! comparing four numbers ([`FastFollower::takes`]); the leader counts [`FastLeader::acked`]. A program in the kernel, a
//! pipeline in hardware or a one-sided write can take over these two, and nothing else.
//! **General**: everything else, by `Entries` and `Report`. What came early is held and not asked for again; a gap is
//! reported by its two ends, and only what is missing is sent again.
//!
//! # Why it is safe
//!
//! Each invariant is a function of [`check`], which tests, the simulator's soak and the model in `tests/model` share.
//!
//! 1. *One leader a term.* A replica votes once a term, however often it begins again within it, and the vote is durable before the reply leaves (it is sent from
//!    `Input::Durable`). Two election quorums share a voter, because twice `elect_count` exceeds the number of voters.
//! 2. *Logs match.* An entry is taken only behind an entry of the same slot and term as at the leader (`prev_term`), or by
//!    the fast path, whose `synced` says that this was compared in this very term; a leader only appends. So two logs that
//!    agree in one slot's term agree before it.
//! 3. *A committed entry is never lost.* `elect_count + commit_count` exceeds the number of voters, so whoever is elected
//!    was voted for by somebody who acknowledged the entry, and votes go only to logs that are at least as good. A leader
//!    counts entries of older terms only together with one of its own (Raft §5.4.2).
//! 4. *Acknowledged means safe.* `Ack` and the durable end of `Report` come from what `Input::Durable` said. A log that lost
//!    entries it had acknowledged keeps a promise: until it has them again it votes as if it had them and does not stand
//!    (Protocol-Aware Recovery, FAST'18).
//! 5. *Members change one voter at a time*, when the old and the new quorums meet each other, and not while another change or
//!    anything older is uncommitted.
//! 6. *A request is applied once.* Sessions are part of the state that entries build: a number that was answered is answered
//!    the same again, one that is too old is refused, on every replica alike.
//! 7. *Reads are linearizable* where they are asked for so: a leader answers after a quorum has answered a round that began
//!    after the read came, or under a lease, which is shorter than the time in which those who answered elect nobody, by the
//!    clock drift that is allowed ([`Timing::drift_ratio`]); the clock is read after the read has come. Stale reads are
//!    commands of their own.
//!
//! What it does not do: it trusts its peers (a port authenticates them), and it promises progress only while a quorum hears
//! each other within the election time-out.
//!
//! # One role a file
//!
//! [`replica`](Replica) hears the inputs; `follower`, `candidate` and `leader` are the roles, `replicate` what a leader sends to
//! whom, `requests` and `apply` the way of a request, `reads` and `rounds` that of a read, `transfer` snapshots, `recovery` the
//! start. What an answer promises stands in [`guarantees`]; [`client`] is the other side.
#![forbid(unsafe_code)]

mod answer;
mod apply;
mod askers;
mod candidate;
pub mod check;
pub mod client;
mod config;
mod counters;
pub mod driver;
mod fast;
mod follower;
pub mod guarantees;
mod held;
mod leader;
mod nodes;
pub mod onesided;
mod reads;
mod recovery;
mod remainder;
mod replica;
mod replicate;
mod requests;
mod rounds;
mod sessions;
mod state;
mod transfer;
mod window;

pub use config::{Config, ConfigError, Limits, Mutation, NODES_MAX, ReadMode, Timing, majorities};
pub use counters::Counters;
pub use fast::{FastFollower, FastLeader};
pub use recovery::RecoverError;
pub use replica::{Replica, RoleName};
pub use window::{EntryView, Window, WindowFull};
