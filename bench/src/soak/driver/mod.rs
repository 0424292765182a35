//! Histories with a program between network and replica: each replica is [`Driven`], and every frame meets the program first.
//!
//! A NIC runs its program whenever a frame comes, on a CPU of its own: also between two steps of the replica that looks at what
//! the program does. Here frames that have arrived wait in a queue, and a stream of chances lets some of them run before and
//! after every call of a [`Driver`] method: before a revocation takes effect, between the looks at what belongs together, right
//! after a grant.

mod both;
mod bpf;
mod counts;
mod draw;
mod model;
mod nic;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
};

use dataplane_sim::{HostId, SimTime};
use ebpf_host::{
    HostError,
    quorum::{Chain, Count, Grant, Kept, Seen, Session},
};

use crate::replicas::Parts;

pub use both::Both;
pub use bpf::Bpf;
pub use counts::{ChainCount, ChainCounts, DriverCounts};
pub(super) use draw::draw;
pub use model::Model;
pub use nic::{DrivenHost, Nic};

/// Who does the fast path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DriverKind {
    /// The replicas alone
    #[default]
    None,
    /// The programs' rules as ordinary code
    Model,
    /// The programs themselves, run by the kernel on single packets (needs the right to load them)
    Bpf,
    /// Both, each step by one and the other, and compared
    Both,
    /// Another protocol: the leader writes the log into its followers' memory, and they only poll it
    OneSided,
}

/// A mistake of the programs, or at the hand-over, that a history must show. One line each, where the rule is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A follower's program acknowledges an entry that is not in its ring.
    AckBeforeWrite,
    /// A leader's program counts an acknowledgement that comes again as another follower's.
    CountsTwice,
    /// A program goes on when its grant was taken back.
    IgnoresRevoke,
    /// The replica looks late, and what a program appended between its last look and the revocation is not taken over.
    NoDrain,
    /// A leader's program gives a slot to requests of any session, and to repeated ones.
    NoSessions,
    /// A follower in a chain hands on an entry that is not in its ring.
    ChainHandsOnUnkept,
    /// A follower in a chain goes on handing entries on when its grant was taken back, and keeps none of them.
    ChainHandsOnRevoked,
    /// The last follower of a chain acknowledges for all of it also what came to it by itself.
    ChainSpeaksForAll,
    /// The last follower of a chain says of all of it that they have as much as itself.
    ChainSaysOwnEnd,
    /// A leader counts any acknowledgement for everybody in its chain, also for those behind a break.
    ChainCountsBehind,
    /// A follower's program acknowledges an entry that it holds behind a gap.
    AcksHeld,
    /// A follower's program goes on with what it held when its grant was taken back.
    KeepsHeld,
    /// A leader's program answers a request that comes again though its entry is not committed.
    AnswersEarly,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Flaw; 13] = [
        Flaw::AckBeforeWrite,
        Flaw::CountsTwice,
        Flaw::IgnoresRevoke,
        Flaw::NoDrain,
        Flaw::NoSessions,
        Flaw::ChainHandsOnUnkept,
        Flaw::ChainHandsOnRevoked,
        Flaw::ChainSpeaksForAll,
        Flaw::ChainSaysOwnEnd,
        Flaw::ChainCountsBehind,
        Flaw::AcksHeld,
        Flaw::KeepsHeld,
        Flaw::AnswersEarly,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Flaw::AckBeforeWrite => "driver-ack-before-write",
            Flaw::CountsTwice => "driver-counts-twice",
            Flaw::IgnoresRevoke => "driver-ignores-revoke",
            Flaw::NoDrain => "driver-no-drain",
            Flaw::NoSessions => "driver-no-sessions",
            Flaw::ChainHandsOnUnkept => "chain-hands-on-unkept",
            Flaw::ChainHandsOnRevoked => "chain-hands-on-revoked",
            Flaw::ChainSpeaksForAll => "chain-speaks-for-all",
            Flaw::ChainSaysOwnEnd => "chain-says-own-end",
            Flaw::ChainCountsBehind => "chain-counts-behind",
            Flaw::AcksHeld => "driver-acks-held",
            Flaw::KeepsHeld => "driver-keeps-held",
            Flaw::AnswersEarly => "driver-answers-early",
        }
    }

    /// Whether only a chain can show it.
    pub fn is_of_chains(self) -> bool {
        matches!(
            self,
            Flaw::ChainHandsOnUnkept
                | Flaw::ChainHandsOnRevoked
                | Flaw::ChainSpeaksForAll
                | Flaw::ChainSaysOwnEnd
                | Flaw::ChainCountsBehind
        )
    }
}

/// What a history with programs adds to its plan.
#[derive(Clone, Debug)]
pub struct DriverPlan {
    /// Never [`DriverKind::None`].
    pub kind: DriverKind,
    /// What programs do; who sends the entries is nobody's concern here.
    pub parts: Parts,
    /// Nothing is acknowledged before the disk has it. Without, nobody dies: what is acknowledged is in memory.
    pub waits_for_disk: bool,
    /// What chances are drawn from.
    pub seed: u64,
    /// How often a frame that arrives waits for the next one, or for a call of the replica's, 0 to 1.
    pub hold_ratio: f64,
    /// How often one more waiting frame runs inside a call, 0 to 1.
    pub race_ratio: f64,
    /// When whose program is replaced by a new one.
    pub swaps: Vec<(SimTime, HostId)>,
    /// The most slots that a leader's program appends and has not committed.
    pub in_flight_slots: u64,
    /// Entries visit the followers one after another, instead of all at once.
    pub chain: Option<ChainPlan>,
    /// A mistake to make on purpose.
    pub flaw: Option<Flaw>,
}

/// What a history with chains adds.
#[derive(Clone, Debug)]
pub struct ChainPlan {
    /// How often a NIC loses a frame that a program sends, 0 to 1, while things go wrong.
    pub lost_ratio: f64,
    /// Processes that are ended in good order, and are away for a while: when, whose, and how long. A program acknowledges from
    /// memory, so no process may end before its log has all of it.
    pub restarts: Vec<(SimTime, HostId, SimTime)>,
}

/// Sessions of every replica in a history with programs: a loaded program has the number in it.
pub const SESSIONS_MAX: u32 = 6;

/// Every host's UDP port.
pub const PORT: u16 = 4001;

/// Where a leader's entries go: to all other replicas.
pub const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 250), PORT);

/// The address of a host (TEST-NET-1, RFC 5737 §3).
pub fn host_address(host: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host as u8 + 1), PORT)
}

fn host_of(address: &SocketAddrV4) -> u32 {
    u32::from(address.ip().octets()[3]) - 1
}

/// What a program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It goes up, as one from here; otherwise as it came.
    Up(SocketAddrV4),
    /// It is gone.
    Dropped,
    /// This went out in its place.
    Sent {
        /// Where it says that it comes from: this host, or the leader whose entry is on its way through a chain.
        from: SocketAddrV4,
        /// Where to.
        to: SocketAddrV4,
        /// What.
        bytes: Vec<u8>,
    },
}

/// Both programs of a node, the leader's and the follower's, behind one face: as `ebpf_host::quorum::Shared` and a NIC.
pub trait Program: Send + fmt::Debug {
    /// Lets the leader's or the follower's program act, in a chain or not.
    fn grant(&mut self, is_leader: bool, given: &Grant, chain: Option<Chain>, sessions: &[Session]);
    /// Takes the grant back; says where it ended, if there was one.
    fn revoke(&mut self) -> Option<u64>;
    /// What was done.
    fn seen(&self) -> Seen;
    /// Copies the entry in `slot`, if the ring has it.
    fn entry(&self, slot: u64, kept: &mut Kept) -> bool;
    /// The ring may forget everything before `end`.
    fn drained(&mut self, end: u64);
    /// Nothing may be appended at `end` or behind.
    fn limit(&mut self, end: u64);
    /// The replica appended everything before `end` by itself.
    fn appended(&mut self, end: u64);
    /// A frame comes.
    fn run(&mut self, from: SocketAddrV4, bytes: &[u8]) -> Ran;
    /// What was counted since it was loaded, of the part that acts.
    fn count(&self, what: Count) -> u64;
}

/// Makes the programs of `node`.
///
/// # Errors
/// Where programs cannot be loaded.
pub fn program(plan: &DriverPlan, node: u32) -> Result<Box<dyn Program>, HostError> {
    Ok(match plan.kind {
        DriverKind::Bpf => Box::new(Bpf::of_parts(node, SESSIONS_MAX, plan.parts.appends)?),
        DriverKind::Both => Box::new(Both::of_parts(node, SESSIONS_MAX, plan.parts.appends)?),
        DriverKind::Model | DriverKind::None | DriverKind::OneSided => {
            Box::new(Model::of_parts(node, SESSIONS_MAX, plan.parts.appends, plan.flaw))
        }
    })
}
