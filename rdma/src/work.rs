//! What is asked of a queue pair, and what it answers: work requests, completions, errors.

use dataplane_waist::WrId;

use crate::{
    region::{Bind, BindError, Local, MemoryKey, Refusal},
    wire::QpNumber,
};

/// A place in a peer's memory, as the peer told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// In the peer's addresses.
    pub address: u64,
    /// What opens it.
    pub rkey: u32,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// These bytes, copied at once; at most the queue pair's `inline_bytes_max`.
    Inline(&'a [u8]),
    /// Registered memory, read when packets leave. It must stay as it is until the completion: a packet that was lost is made
    /// from it again.
    Local(Local),
}

/// A one-sided or two-sided operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Into the next receive that the peer posted.
    Send {
        /// What.
        data: Data<'a>,
        /// A word for the receive's completion.
        imm: Option<u32>,
    },
    /// As `Send`, and takes back a key of the peer's: that of a memory window which the peer has bound through this connection. When the
    /// peer's receive is done no request finds it (NVMe over Fabrics and NFS end a transfer so). Requests of this connection that are
    /// to go through the window are waited for first: a read is answered when its turn comes.
    SendInvalidate {
        /// What.
        data: Data<'a>,
        /// The key, as the peer told it. One that is no such window's breaks the connection.
        rkey: u32,
    },
    /// Into the peer's memory.
    Write {
        /// What.
        data: Data<'a>,
        /// Where.
        to: Remote,
        /// A word for a completion at the peer; it consumes a receive there.
        imm: Option<u32>,
    },
    /// Out of the peer's memory.
    Read {
        /// Where the bytes go; their number is its length.
        into: Local,
        /// Where they are.
        from: Remote,
    },
    /// Puts `swap` where `compare` stands: 8 bytes, in the hosts' order.
    CompareSwap {
        /// Where the value from before goes: 8 bytes.
        into: Local,
        /// Which; a multiple of 8.
        at: Remote,
        /// What must stand there.
        compare: u64,
        /// What shall.
        swap: u64,
    },
    /// Adds, modulo 2⁶⁴.
    FetchAdd {
        /// Where the value from before goes: 8 bytes.
        into: Local,
        /// Which; a multiple of 8.
        at: Remote,
        /// How much.
        add: u64,
    },
    /// Binds a memory window: its key opens memory of this end's to the peer of this queue pair. Nothing is sent; it is done when
    /// everything posted before has left for the first time, and before what is posted behind leaves.
    Bind(Bind),
    /// Takes a window's key back, in the same order: no request that comes after it is done finds it.
    Invalidate {
        /// What the window was bound under, through this queue pair.
        key: MemoryKey,
    },
}

impl Operation<'_> {
    /// What its completion calls it.
    pub fn kind(&self) -> Kind {
        match self {
            Operation::Send { .. } | Operation::SendInvalidate { .. } => Kind::Send,
            Operation::Write { .. } => Kind::Write,
            Operation::Read { .. } => Kind::Read,
            Operation::CompareSwap { .. } => Kind::CompareSwap,
            Operation::FetchAdd { .. } => Kind::FetchAdd,
            Operation::Bind(_) => Kind::Bind,
            Operation::Invalidate { .. } => Kind::Invalidate,
        }
    }
}

/// A work request for the send queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendRequest<'a> {
    /// Comes back in the completion.
    pub wr_id: WrId,
    /// What to do.
    pub operation: Operation<'a>,
    /// Whether success makes a completion; failure always does. Every send queue needs one now and then, or its owner never
    /// learns that there is room again.
    pub signalled: bool,
}

/// A work request for the receive queue: room for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveRequest {
    /// Comes back in the completion.
    pub wr_id: WrId,
    /// Where the message goes.
    pub into: Local,
}

/// What finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A send.
    Send,
    /// A write.
    Write,
    /// A read.
    Read,
    /// A compare and swap.
    CompareSwap,
    /// A fetch and add.
    FetchAdd,
    /// A memory window was bound.
    Bind,
    /// A memory window's key was taken back.
    Invalidate,
    /// A receive that a send filled.
    Receive,
    /// A receive that a write with a word consumed; the bytes went to memory.
    ReceiveWrite,
}

impl Kind {
    /// Whether it came from the receive queue.
    pub const fn is_receive(self) -> bool {
        matches!(self, Kind::Receive | Kind::ReceiveWrite)
    }
}

/// A finished work request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Whose.
    pub qp: QpNumber,
    /// Which one.
    pub wr_id: WrId,
    /// What it was.
    pub kind: Kind,
    /// Bytes moved.
    pub len_bytes: u32,
    /// The sender's word.
    pub imm: Option<u32>,
    /// The key of a memory window of this end's that the sender took back ([`Operation::SendInvalidate`]): the window can be bound again.
    pub invalidated: Option<MemoryKey>,
    /// How it went.
    pub result: Result<(), CompletionError>,
}

/// Why a work request failed. All but the first break the queue pair; what is queued behind is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CompletionError {
    /// An earlier request broke the queue pair, or it was taken down: whether this one was done is not known.
    #[error("the queue pair was broken before this request finished")]
    Flushed,
    /// The peer had no receive posted, again and again.
    #[error("the peer posted no receive in time (RNR retries exceeded)")]
    RnrExceeded,
    /// The peer did not answer, again and again.
    #[error("the peer does not answer (retries exceeded)")]
    RetryExceeded,
    /// The peer's memory is not open to this.
    #[error("the peer refused access to its memory")]
    RemoteAccess,
    /// The peer found the request nonsensical: too long for its receive, not aligned.
    #[error("the peer found the request invalid")]
    RemoteInvalidRequest,
    /// The peer could not go on.
    #[error("the peer has a trouble of its own")]
    RemoteOperational,
    /// The message did not fit the receive.
    #[error("the message is longer than the receive")]
    Length,
    /// This end's memory is not open to this.
    #[error("local memory is not open to this: {0}")]
    LocalProtection(Refusal),
    /// This end's device could not do it, and the memory is not why.
    #[error("the local device could not do it (verbs' completion status {status})")]
    LocalOperation {
        /// `enum ibv_wc_status`.
        status: u32,
    },
    /// A memory window was not bound, or not invalidated: meanwhile it was freed, or bound through another queue pair.
    #[error("a memory window is not as the request takes it to be: {0}")]
    Bind(BindError),
    /// An answer that does not belong to the request.
    #[error("the peer's answer does not fit the request")]
    BadResponse,
}

/// Why a work request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// No room: poll completions.
    #[error("the queue is full; poll completions")]
    Full,
    /// The queue pair is broken: poll what it flushed, then set it up anew.
    #[error("the queue pair is broken; poll its completions, reset it and connect it again")]
    Broken,
    /// Longer than a message, or an inline piece, may be; or atomics with a result that is not 8 bytes.
    #[error("the request's length is not allowed: {len_bytes} bytes, at most {bytes_max}")]
    Length {
        /// What was asked.
        len_bytes: u64,
        /// What may be.
        bytes_max: u64,
    },
    /// The local range is not open to this.
    #[error("local memory is not open to this: {0}")]
    Local(Refusal),
    /// No such window could be bound, or invalidated, when it is this request's turn.
    #[error("a memory window cannot be bound or invalidated like this: {0}")]
    Bind(BindError),
    /// The device finds that nobody could do this: an atomic at an address that is no multiple of 8, for one.
    #[error("the device refuses the request (errno {errno})")]
    Refused {
        /// errno(3).
        errno: i32,
    },
    /// No such queue pair: another device's handle.
    #[error("this device has no such queue pair")]
    NoQueuePair,
}
