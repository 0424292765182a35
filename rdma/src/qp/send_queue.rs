//! Posted requests as the requester keeps them: owned, with their place in the sequence.

use dataplane_waist::WrId;

use super::{
    QpOptions,
    options::{MESSAGE_BYTES_MAX, MESSAGE_PACKETS_MAX, packets_count},
};
use crate::{
    region::{HomeWork, Local, Need, Pd, Refusal, Regions},
    wire::{AtomicEth, Opcode},
    work::{Data, Kind, Operation, PostError, Remote, SendRequest},
};

/// Where a message's bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// In the queue's own store, under the request's number.
    Inline {
        len_bytes: u32,
    },
    Local(Local),
}

impl Source {
    fn len_bytes(&self) -> u32 {
        match self {
            Source::Inline { len_bytes } => *len_bytes,
            Source::Local(local) => local.len_bytes,
        }
    }
}

/// What a send says beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Beside {
    Nothing,
    Imm(u32),
    Invalidate { rkey: u32 },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    Send {
        source: Source,
        beside: Beside,
    },
    Write {
        source: Source,
        to: Remote,
        imm: Option<u32>,
    },
    Read {
        into: Local,
        from: Remote,
    },
    Atomic {
        into: Local,
        opcode: Opcode,
        eth: AtomicEth,
    },
    /// Nothing of it leaves.
    Home {
        work: HomeWork,
        is_done: bool,
    },
}

impl Task {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Task::Send { .. } => Kind::Send,
            Task::Write { .. } => Kind::Write,
            Task::Read { .. } => Kind::Read,
            Task::Atomic {
                opcode: Opcode::CompareSwap,
                ..
            } => Kind::CompareSwap,
            Task::Atomic { .. } => Kind::FetchAdd,
            Task::Home {
                work: HomeWork::Bind(_),
                ..
            } => Kind::Bind,
            Task::Home { .. } => Kind::Invalidate,
        }
    }

    /// Whether its answer carries bytes: an acknowledgement is not enough.
    pub(super) fn is_read(&self) -> bool {
        matches!(self, Task::Read { .. } | Task::Atomic { .. })
    }

    pub(super) fn len_bytes(&self) -> u32 {
        match self {
            Task::Send { source, .. } | Task::Write { source, .. } => source.len_bytes(),
            Task::Read { into, .. } => into.len_bytes,
            Task::Atomic { .. } => ATOMIC_BYTES,
            Task::Home { .. } => 0,
        }
    }
}

/// What an atomic operation touches.
pub(crate) const ATOMIC_BYTES: u32 = 8;

/// A request in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posted {
    pub wr_id: WrId,
    pub signalled: bool,
    pub task: Task,
    /// Index of its first packet.
    pub first: u64,
    /// How many indices it has: for a read, its answer's packets.
    pub count: u64,
    /// Which place of the inline store is its.
    pub place: usize,
}

impl Posted {
    pub(super) fn end(&self) -> u64 {
        self.first + self.count
    }
}

/// Checks a request and makes it one's own; inline bytes go to `store`.
pub(super) fn accept(
    request: &SendRequest<'_>,
    options: &QpOptions,
    (pd, regions): (Pd, &Regions),
    first: u64,
    place: usize,
    store: &mut [u8],
) -> Result<Posted, PostError> {
    let local = |local: &Local, need| {
        let checked = regions.check_local(pd, local, need);
        checked.map_err(PostError::Local)
    };
    let source = |data: &Data<'_>| match data {
        Data::Inline(bytes) if bytes.len() > options.inline_bytes_max => Err(PostError::Length {
            len_bytes: bytes.len() as u64,
            bytes_max: options.inline_bytes_max as u64,
        }),
        Data::Inline(bytes) => Ok(Source::Inline {
            len_bytes: bytes.len() as u32,
        }),
        Data::Local(range) => local(range, Need::LocalRead).map(|()| Source::Local(*range)),
    };
    let atomic = |into: &Local, opcode, at: &Remote, swap_or_add, compare| {
        if into.len_bytes != ATOMIC_BYTES {
            return Err(PostError::Length {
                len_bytes: into.len_bytes.into(),
                bytes_max: ATOMIC_BYTES.into(),
            });
        }
        local(into, Need::LocalWrite)?;
        let eth = AtomicEth {
            address: at.address,
            rkey: at.rkey,
            swap_or_add,
            compare,
        };
        Ok(Task::Atomic {
            into: *into,
            opcode,
            eth,
        })
    };
    let task = match &request.operation {
        Operation::Send { data, imm } => Task::Send {
            source: source(data)?,
            beside: imm.map_or(Beside::Nothing, Beside::Imm),
        },
        Operation::SendInvalidate { data, rkey } => Task::Send {
            source: source(data)?,
            beside: Beside::Invalidate { rkey: *rkey },
        },
        Operation::Write { data, to, imm } => Task::Write {
            source: source(data)?,
            to: *to,
            imm: *imm,
        },
        Operation::Read { into, from } => {
            local(into, Need::LocalWrite)?;
            Task::Read {
                into: *into,
                from: *from,
            }
        }
        Operation::CompareSwap {
            into,
            at,
            compare,
            swap,
        } => atomic(into, Opcode::CompareSwap, at, *swap, *compare)?,
        Operation::FetchAdd { into, at, add } => atomic(into, Opcode::FetchAdd, at, *add, 0)?,
        Operation::Bind(bind) => home(HomeWork::Bind(*bind)),
        Operation::Invalidate { key } => home(HomeWork::Invalidate(*key)),
    };
    let len_bytes = u64::from(task.len_bytes());
    let bytes_max = MESSAGE_BYTES_MAX.min(MESSAGE_PACKETS_MAX * options.path_mtu.bytes() as u64);
    if len_bytes > bytes_max {
        return Err(PostError::Length { len_bytes, bytes_max });
    }
    if let Operation::Send {
        data: Data::Inline(bytes),
        ..
    }
    | Operation::SendInvalidate {
        data: Data::Inline(bytes),
        ..
    }
    | Operation::Write {
        data: Data::Inline(bytes),
        ..
    } = request.operation
    {
        store[place * options.inline_bytes_max..][..bytes.len()].copy_from_slice(bytes);
    }
    Ok(Posted {
        wr_id: request.wr_id,
        signalled: request.signalled,
        task,
        first,
        count: match task {
            Task::Atomic { .. } => 1,
            Task::Home { .. } => 0,
            _ => packets_count(len_bytes, options.path_mtu),
        },
        place,
    })
}

fn home(work: HomeWork) -> Task {
    Task::Home { work, is_done: false }
}

/// Copies a part of a message into a packet.
pub(super) fn copy_part(
    source: &Source,
    posted: &Posted,
    (pd, regions): (Pd, &Regions),
    inline_store: (&[u8], usize),
    skip_bytes: u64,
    into: &mut [u8],
) -> Result<(), Refusal> {
    if into.is_empty() {
        return Ok(());
    }
    match source {
        Source::Inline { .. } => {
            let (store, inline_bytes_max) = inline_store;
            let begin = posted.place * inline_bytes_max + skip_bytes as usize;
            into.copy_from_slice(&store[begin..begin + into.len()]);
        }
        Source::Local(local) => {
            let (memory, at) = regions.local(pd, local, skip_bytes, into.len() as u64, Need::LocalRead)?;
            memory.read(at, into);
        }
    }
    Ok(())
}
