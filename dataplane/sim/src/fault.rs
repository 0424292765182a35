//! What goes wrong and when: a list that is drawn from a seed, printed, read back, shrunk and replayed.
//!
//! Each fault is a whole episode: it begins, lasts, and ends by itself. So any part of a list is a list, and a shrinker
//! that drops a crash drops the restart with it.

mod generate;
mod shrink;
mod text;

pub use generate::{FaultBounds, FaultKind, generate};
pub use shrink::shrink;
pub use text::ParseFaultError;

use crate::{Crash, HostId, LinkFaults, SimTime};

/// A set of the first 64 hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HostSet(pub u64);

impl HostSet {
    /// Every host.
    pub const ALL: HostSet = HostSet(u64::MAX);

    /// These hosts.
    ///
    /// # Panics
    /// For a host above 63.
    pub fn of(hosts: impl IntoIterator<Item = HostId>) -> HostSet {
        let bit = |host: HostId| {
            1u64.checked_shl(host.0)
                .unwrap_or_else(|| panic!("{host:?} is above 63"))
        };
        HostSet(hosts.into_iter().fold(0, |set, host| set | bit(host)))
    }

    /// Whether `host` is one of them. Hosts above 63 are in [`HostSet::ALL`] alone.
    pub fn contains(self, host: HostId) -> bool {
        match host.0 {
            0..64 => self.0 >> host.0 & 1 == 1,
            _ => self == HostSet::ALL,
        }
    }
}

/// Something that goes wrong. What it takes away comes back after `lasts`, or never if that is [`SimTime::FOREVER`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The host dies and starts again. Without effect on one that is down.
    Crash {
        /// Which.
        host: HostId,
        /// How.
        crash: Crash,
        /// How long it is down.
        lasts: SimTime,
    },
    /// The host does nothing (a garbage collection, a stopped virtual machine) and then goes on where it was. Its clock
    /// runs on, and frames wait in its port.
    Pause {
        /// Which.
        host: HostId,
        /// How long.
        lasts: SimTime,
    },
    /// Nothing passes between `side` and all other hosts, either way.
    Partition {
        /// One side.
        side: HostSet,
        /// How long.
        lasts: SimTime,
    },
    /// Nothing passes from `from` to `to`; the other way is not touched.
    Block {
        /// Who is not heard.
        from: HostSet,
        /// Who does not hear.
        to: HostSet,
        /// How long.
        lasts: SimTime,
    },
    /// The links from `from` to `to` behave like this instead.
    Degrade {
        /// Senders.
        from: HostSet,
        /// Receivers.
        to: HostSet,
        /// How they behave.
        faults: LinkFaults,
        /// How long.
        lasts: SimTime,
    },
    /// Every sync that starts takes longer.
    SlowDisk {
        /// Whose.
        host: HostId,
        /// By this.
        slow: SimTime,
        /// How long.
        lasts: SimTime,
    },
    /// Syncs end without having made anything safe: a disk that no replicated log survives on a majority of hosts. Here
    /// to show that a test would notice.
    LyingDisk {
        /// Whose.
        host: HostId,
        /// How long.
        lasts: SimTime,
    },
    /// A write fails; the host's process ends and is started again.
    FailWrite {
        /// Whose.
        host: HostId,
        /// After this many that succeed.
        after_count: u64,
        /// If that comes within this time.
        lasts: SimTime,
    },
    /// A sync fails; the host's process ends and is started again.
    FailSync {
        /// Whose.
        host: HostId,
        /// After this many that succeed.
        after_count: u64,
        /// If that comes within this time.
        lasts: SimTime,
    },
    /// The next recovery finds an entry, and so all behind it, unreadable.
    Damage {
        /// Whose.
        host: HostId,
        /// Picks the entry, modulo their number.
        pick: u64,
    },
    /// The clock runs at another speed.
    Drift {
        /// Whose.
        host: HostId,
        /// Microseconds gained in a second.
        drift_ppm: i32,
        /// How long.
        lasts: SimTime,
    },
    /// The clock jumps ahead.
    ClockJump {
        /// Whose.
        host: HostId,
        /// Nanoseconds.
        ahead_ns: u64,
    },
}

impl Fault {
    /// How long it lasts, for the ones that the simulator has to end.
    pub(crate) fn lasts(&self) -> Option<SimTime> {
        match *self {
            Fault::Crash { lasts, .. }
            | Fault::Partition { lasts, .. }
            | Fault::Block { lasts, .. }
            | Fault::Degrade { lasts, .. }
            | Fault::SlowDisk { lasts, .. }
            | Fault::LyingDisk { lasts, .. }
            | Fault::FailWrite { lasts, .. }
            | Fault::FailSync { lasts, .. }
            | Fault::Drift { lasts, .. } => Some(lasts),
            Fault::Pause { .. } | Fault::Damage { .. } | Fault::ClockJump { .. } => None,
        }
    }

    /// The host it happens to, where it is one.
    pub(crate) fn host(&self) -> Option<HostId> {
        match *self {
            Fault::Crash { host, .. }
            | Fault::Pause { host, .. }
            | Fault::SlowDisk { host, .. }
            | Fault::LyingDisk { host, .. }
            | Fault::FailWrite { host, .. }
            | Fault::FailSync { host, .. }
            | Fault::Damage { host, .. }
            | Fault::Drift { host, .. }
            | Fault::ClockJump { host, .. } => Some(host),
            Fault::Partition { .. } | Fault::Block { .. } | Fault::Degrade { .. } => None,
        }
    }

    /// Whether nothing passes from `from` to `to` because of it.
    pub(crate) fn blocks(&self, sender: HostId, receiver: HostId) -> bool {
        match *self {
            Fault::Partition { side, .. } => side.contains(sender) != side.contains(receiver),
            Fault::Block { from, to, .. } => from.contains(sender) && to.contains(receiver) && sender != receiver,
            _ => false,
        }
    }
}

/// A fault and when it begins. Prints as a line and is read from one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduledFault {
    /// When it begins.
    pub at: SimTime,
    /// What.
    pub fault: Fault,
}
