//! `mark_ecn`, a classifier (tc, tcx) on the way out of a switch's port: marks with congestion (CE, RFC 3168) what finds more
//! waiting in the port's queue than a threshold. How much waits it reads from the queueing discipline itself, where
//! [`Offset`]s say that the kernel keeps it.

/// Name of the object and of its function.
pub const NAME: &str = "mark_ecn";

/// Read-only globals, set before it is loaded.
pub mod setting {
    /// `u64`: frames that may wait before a further one is marked.
    pub const ABOVE_FRAMES: &str = "ABOVE_FRAMES";
    /// `u64`: the same in bytes. Either decides.
    pub const ABOVE_BYTES: &str = "ABOVE_BYTES";
    /// `u64`: frames that the queue has room for. What will be dropped is not marked, so that every mark arrives.
    pub const LIMIT_FRAMES: &str = "LIMIT_FRAMES";
    /// `u64`: the same in bytes.
    pub const LIMIT_BYTES: &str = "LIMIT_BYTES";
    /// `u64`: nanoseconds of a window in which arriving bytes are summed up ([`super::Burst`]).
    pub const WINDOW_NS: &str = "WINDOW_NS";
    /// `[u32; 8]`: where the kernel keeps things, by [`super::Offset`], in bytes.
    pub const OFFSETS: &str = "OFFSETS";
}

/// Fields of the kernel's structures, as an index into [`setting::OFFSETS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Offset {
    /// `sk_buff.dev`: the port.
    SkbDev = 0,
    /// `net_device._tx`: its first queue.
    DeviceTx = 1,
    /// `netdev_queue.qdisc`: the queueing discipline.
    QueueQdisc = 2,
    /// `Qdisc.qstats.backlog`: bytes that wait, a `u32`.
    QdiscBacklog = 3,
    /// `Qdisc.q.qlen`: frames that wait, a `u32`.
    QdiscLength = 4,
}

impl Offset {
    /// Places for them.
    pub const COUNT: usize = 8;
}

/// Maps.
pub mod map {
    /// A per-CPU array of `u64`, one for each [`super::Count`].
    pub const MARK_COUNTS: &str = "MARK_COUNTS";
    /// An array of one [`super::Burst`].
    pub const BURST: &str = "BURST";
}

/// What it counts. Every frame that it sees is in exactly one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Count {
    /// Little enough waited.
    Below = 0,
    /// Marked.
    Marked = 1,
    /// It was to be marked, and does not carry ECT (RFC 3168 section 5): its sender would not understand.
    NotCapable = 2,
    /// The queue has no room: it will be dropped.
    Full = 3,
    /// The kernel would not let its structures be read.
    Unread = 4,
}

impl Count {
    /// All of them, in the order of the map.
    pub const ALL: [Count; 5] = [
        Count::Below,
        Count::Marked,
        Count::NotCapable,
        Count::Full,
        Count::Unread,
    ];
}

/// Arriving bytes, with 24 for each frame that Ethernet adds, in windows. Senders on several CPUs at once may lose a few of each
/// other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Burst {
    /// When the window began, on CLOCK_MONOTONIC.
    pub began_ns: u64,
    /// What came in it.
    pub bytes: u64,
    /// What came in the fullest window.
    pub bytes_max: u64,
}
