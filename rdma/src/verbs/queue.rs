//! Requests as verbs want them, and how a completion finds its request.
//!
//! A completion with an error tells the request's number and nothing else of it, and a request that was not signalled has
//! none. So each queue remembers what was posted, in order, under numbers of its own:
//!
//! ```text
//!   63        62 … 32            31 … 0
//!   receive?  generation         which one, counted from the queue's beginning
//! ```
//!
//! The generation changes when a queue pair is reset: what comes late is nobody's.

use std::collections::VecDeque;

use dataplane_waist::WrId;
use rdma_sys::{
    IBV_WC_BAD_RESP_ERR, IBV_WC_LOC_LEN_ERR, IBV_WC_RECV_RDMA_WITH_IMM, IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_INV_REQ_ERR,
    IBV_WC_REM_OP_ERR, IBV_WC_RETRY_EXC_ERR, IBV_WC_RNR_RETRY_EXC_ERR, IBV_WC_SUCCESS, IBV_WC_WITH_IMM,
    IBV_WC_WITH_INV, IBV_WC_WR_FLUSH_ERR, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_BIND_MW,
    IBV_WR_LOCAL_INV, IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_SEND,
    IBV_WR_SEND_WITH_IMM, IBV_WR_SEND_WITH_INV, ibv_send_wr_atomic, ibv_send_wr_rdma, ibv_send_wr_wr, ibv_wc,
};

use crate::{
    memory::WORD_BYTES,
    qp::MESSAGE_BYTES_MAX,
    region::{Local, MemoryKey, Need, Refusal},
    wire::QpNumber,
    work::{Completion, CompletionError, Data, Kind, Operation, PostError, Remote},
};

/// An operation in verbs' words.
pub(super) struct Asked<'a> {
    pub(super) opcode: u32,
    pub(super) kind: Kind,
    /// The word for the peer, in the wire's order; or the key that is to be invalidated, here or there.
    pub(super) word: u32,
    pub(super) wr: ibv_send_wr_wr,
    pub(super) data: Data<'a>,
    pub(super) len_bytes: u32,
    /// What is done to this end's memory.
    pub(super) need: Need,
}

impl Asked<'_> {
    /// The range of this end's, if it is one.
    pub(super) fn local(&self) -> Option<Local> {
        match self.data {
            Data::Local(local) => Some(local),
            Data::Inline(_) => None,
        }
    }
}

fn rdma(at: Remote) -> ibv_send_wr_wr {
    ibv_send_wr_wr {
        rdma: ibv_send_wr_rdma {
            remote_addr: at.address,
            rkey: at.rkey,
        },
    }
}

fn atomic(at: Remote, compare_add: u64, swap: u64) -> ibv_send_wr_wr {
    ibv_send_wr_wr {
        atomic: ibv_send_wr_atomic {
            remote_addr: at.address,
            compare_add,
            swap,
            rkey: at.rkey,
        },
    }
}

/// Translates, and refuses lengths that no device takes.
pub(super) fn asked<'a>(operation: &Operation<'a>) -> Result<Asked<'a>, PostError> {
    const NOWHERE: Remote = Remote { address: 0, rkey: 0 };
    let nothing = Data::Inline(&[]);
    let of_imm = |imm: Option<u32>| imm.unwrap_or(0).to_be();
    let (opcode, kind, word, wr, data, need) = match *operation {
        Operation::Send { data, imm } => {
            let opcode = if imm.is_some() {
                IBV_WR_SEND_WITH_IMM
            } else {
                IBV_WR_SEND
            };
            (opcode, Kind::Send, of_imm(imm), rdma(NOWHERE), data, Need::LocalRead)
        }
        Operation::SendInvalidate { data, rkey } => {
            let wr = rdma(NOWHERE);
            (IBV_WR_SEND_WITH_INV, Kind::Send, rkey, wr, data, Need::LocalRead)
        }
        Operation::Write { data, to, imm } => {
            let opcode = match imm {
                Some(_) => IBV_WR_RDMA_WRITE_WITH_IMM,
                None => IBV_WR_RDMA_WRITE,
            };
            (opcode, Kind::Write, of_imm(imm), rdma(to), data, Need::LocalRead)
        }
        Operation::Read { into, from } => {
            let data = Data::Local(into);
            (IBV_WR_RDMA_READ, Kind::Read, 0, rdma(from), data, Need::LocalWrite)
        }
        Operation::CompareSwap {
            into,
            at,
            compare,
            swap,
        } => {
            let (opcode, wr) = (IBV_WR_ATOMIC_CMP_AND_SWP, atomic(at, compare, swap));
            (opcode, Kind::CompareSwap, 0, wr, Data::Local(into), Need::LocalWrite)
        }
        Operation::FetchAdd { into, at, add } => {
            let (opcode, wr) = (IBV_WR_ATOMIC_FETCH_AND_ADD, atomic(at, add, 0));
            (opcode, Kind::FetchAdd, 0, wr, Data::Local(into), Need::LocalWrite)
        }
        Operation::Bind(_) => (IBV_WR_BIND_MW, Kind::Bind, 0, rdma(NOWHERE), nothing, Need::LocalRead),
        Operation::Invalidate { key } => {
            let wr = rdma(NOWHERE);
            (IBV_WR_LOCAL_INV, Kind::Invalidate, key.0, wr, nothing, Need::LocalRead)
        }
    };
    let len_bytes = match data {
        Data::Inline(bytes) => bytes.len() as u64,
        Data::Local(local) => local.len_bytes.into(),
    };
    let is_atomic = matches!(kind, Kind::CompareSwap | Kind::FetchAdd);
    let bytes_max = if is_atomic {
        WORD_BYTES as u64
    } else {
        MESSAGE_BYTES_MAX
    };
    if len_bytes > bytes_max || is_atomic && len_bytes != bytes_max {
        return Err(PostError::Length { len_bytes, bytes_max });
    }
    Ok(Asked {
        opcode,
        kind,
        word,
        wr,
        data,
        len_bytes: len_bytes as u32,
        need,
    })
}

/// A request that was posted.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) wr_id: WrId,
    pub(super) kind: Kind,
    pub(super) len_bytes: u32,
    /// This end's memory, if it is not inline.
    pub(super) local: Option<Local>,
    pub(super) need: Need,
}

/// What rdma_rxe says in place of [`IBV_WC_WITH_INV`]: the kernel's own number (include/rdma/ib_verbs.h, `IB_WC_WITH_INVALIDATE`; rxe_resp.c,
/// `do_complete`), by which verbs mean that a check sum is right.
const KERNEL_S_WITH_INV: u32 = 1 << 2;

const RECEIVE_BIT: u64 = 1 << 63;
const GENERATION_SHIFT: u32 = 32;

/// One queue's requests, oldest first.
#[derive(Debug)]
pub(super) struct Requests {
    entries: VecDeque<Entry>,
    count_max: usize,
    /// The oldest entry's place in the count of all.
    first: u32,
    /// The upper half of the numbers.
    mark: u64,
}

impl Requests {
    fn new(count_max: usize, mark: u64) -> Requests {
        Requests {
            entries: VecDeque::with_capacity(count_max),
            count_max,
            first: 0,
            mark,
        }
    }

    /// The number of the next request; `None`: there is no room for it.
    pub(super) fn id(&self) -> Option<u64> {
        let index = self.first.wrapping_add(self.entries.len() as u32);
        (self.entries.len() < self.count_max).then_some(self.mark | u64::from(index))
    }

    /// The request that has this number.
    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// The request of this number; those before it, which were not signalled, are done as well.
    fn take(&mut self, index: u32) -> Option<Entry> {
        let behind = index.wrapping_sub(self.first) as usize;
        if behind >= self.entries.len() {
            return None;
        }
        self.first = index.wrapping_add(1);
        self.entries.drain(..behind);
        self.entries.pop_front()
    }
}

/// What a queue pair was asked and has not told.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) sends: Requests,
    pub(super) receives: Requests,
    generation: u32,
}

impl Posted {
    pub(super) fn new(send_requests_max: usize, receive_requests_max: usize) -> Posted {
        Posted {
            sends: Requests::new(send_requests_max, 0),
            receives: Requests::new(receive_requests_max, RECEIVE_BIT),
            generation: 0,
        }
    }

    /// Forgets everything.
    pub(super) fn forget(&mut self) {
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> 1);
        let generation = u64::from(self.generation) << GENERATION_SHIFT;
        for (requests, kind) in [(&mut self.sends, 0), (&mut self.receives, RECEIVE_BIT)] {
            requests.entries.clear();
            requests.first = 0;
            requests.mark = kind | generation;
        }
    }

    /// A completion in this crate's words; `None`: it is from before a reset. `shut` says why local memory is not open, if it is not;
    /// `is_bound`, whether the peer could take this key back.
    pub(super) fn finish(
        &mut self,
        qp: QpNumber,
        done: &ibv_wc,
        shut: impl Fn(&Local, Need) -> Option<Refusal>,
        is_bound: impl Fn(MemoryKey) -> bool,
    ) -> Option<Completion> {
        let requests = match done.wr_id & RECEIVE_BIT {
            0 => &mut self.sends,
            _ => &mut self.receives,
        };
        if done.wr_id >> GENERATION_SHIFT != requests.mark >> GENERATION_SHIFT {
            return None;
        }
        let entry = requests.take(done.wr_id as u32)?;
        let is_success = done.status == IBV_WC_SUCCESS;
        let is_receive = entry.kind.is_receive();
        let kind = match is_receive && is_success && done.opcode == IBV_WC_RECV_RDMA_WITH_IMM {
            true => Kind::ReceiveWrite,
            false => entry.kind,
        };
        let says = |flag| is_receive && is_success && done.wc_flags & flag != 0;
        let word = MemoryKey(done.imm_data);
        let invalidated = says(IBV_WC_WITH_INV) || says(KERNEL_S_WITH_INV) && is_bound(word);
        let result = match result(done.status) {
            Err(CompletionError::LocalOperation { status }) => {
                let refusal = entry.local.and_then(|local| shut(&local, entry.need));
                let operation = CompletionError::LocalOperation { status };
                Err(refusal.map_or(operation, CompletionError::LocalProtection))
            }
            result => result,
        };
        Some(Completion {
            qp,
            wr_id: entry.wr_id,
            kind,
            len_bytes: match (is_success, is_receive) {
                (false, _) => 0,
                (true, true) => done.byte_len,
                (true, false) => entry.len_bytes,
            },
            imm: says(IBV_WC_WITH_IMM).then_some(u32::from_be(done.imm_data)),
            invalidated: invalidated.then_some(word),
            result,
        })
    }
}

/// `enum ibv_wc_status`. What concerns local memory comes as [`CompletionError::LocalOperation`]: a device does not say why.
fn result(status: u32) -> Result<(), CompletionError> {
    match status {
        IBV_WC_SUCCESS => Ok(()),
        IBV_WC_LOC_LEN_ERR => Err(CompletionError::Length),
        IBV_WC_WR_FLUSH_ERR => Err(CompletionError::Flushed),
        IBV_WC_BAD_RESP_ERR => Err(CompletionError::BadResponse),
        IBV_WC_REM_INV_REQ_ERR => Err(CompletionError::RemoteInvalidRequest),
        IBV_WC_REM_ACCESS_ERR => Err(CompletionError::RemoteAccess),
        IBV_WC_REM_OP_ERR => Err(CompletionError::RemoteOperational),
        IBV_WC_RETRY_EXC_ERR => Err(CompletionError::RetryExceeded),
        IBV_WC_RNR_RETRY_EXC_ERR => Err(CompletionError::RnrExceeded),
        // IBV_WC_LOC_QP_OP_ERR, IBV_WC_MW_BIND_ERR, IBV_WC_LOC_PROT_ERR, IBV_WC_LOC_ACCESS_ERR, and what reliable connections do not have.
        status => Err(CompletionError::LocalOperation { status }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QP: QpNumber = QpNumber::new(17);

    fn entry(id: u64, kind: Kind) -> Entry {
        let local = Local {
            key: MemoryKey(5),
            at_bytes: 0,
            len_bytes: 100,
        };
        Entry {
            wr_id: WrId(id),
            kind,
            len_bytes: 100,
            local: Some(local),
            need: Need::LocalRead,
        }
    }

    fn done(wr_id: u64, status: u32) -> ibv_wc {
        ibv_wc {
            wr_id,
            status,
            ..ibv_wc::default()
        }
    }

    fn open(_: &Local, _: Need) -> Option<Refusal> {
        None
    }

    /// Whether it is the key of the tests' window.
    fn is_bound(key: MemoryKey) -> bool {
        key == MemoryKey(0xabc0_0001)
    }

    #[test]
    fn a_completion_frees_the_requests_before_it_and_tells_what_was_posted() {
        let mut posted = Posted::new(3, 1);
        let ids = [1, 2, 3].map(|id| {
            let number = posted.sends.id().expect("room");
            posted.sends.push(entry(id, Kind::Read));
            number
        });
        assert_eq!(posted.sends.id(), None, "the queue is full");
        let told = posted
            .finish(QP, &done(ids[1], IBV_WC_SUCCESS), open, is_bound)
            .expect("it was posted");
        assert_eq!((told.wr_id, told.kind, told.len_bytes), (WrId(2), Kind::Read, 100));
        assert_eq!(
            posted.finish(QP, &done(ids[1], IBV_WC_SUCCESS), open, is_bound),
            None,
            "twice"
        );
        posted.sends.push(entry(4, Kind::Send));
        posted.sends.push(entry(5, Kind::Send));
        assert_eq!(posted.sends.id(), None, "two were freed");
        let told = posted
            .finish(QP, &done(ids[2], IBV_WC_REM_ACCESS_ERR), open, is_bound)
            .expect("it was posted");
        assert_eq!((told.wr_id, told.len_bytes), (WrId(3), 0));
        assert_eq!(told.result, Err(CompletionError::RemoteAccess));
    }

    #[test]
    fn what_comes_after_a_reset_is_nobody_s() {
        let mut posted = Posted::new(2, 2);
        let before = [posted.sends.id(), posted.receives.id()].map(|id| id.expect("room"));
        posted.sends.push(entry(1, Kind::Write));
        posted.receives.push(entry(2, Kind::Receive));
        posted.forget();
        posted.sends.push(entry(3, Kind::Write));
        posted.receives.push(entry(4, Kind::Receive));
        for late in before {
            assert_eq!(
                posted.finish(QP, &done(late, IBV_WC_WR_FLUSH_ERR), open, is_bound),
                None
            );
        }
        assert_eq!((posted.sends.entries.len(), posted.receives.entries.len()), (1, 1));
    }

    #[test]
    fn a_receive_tells_its_word_and_its_length() {
        let mut posted = Posted::new(1, 1);
        let number = posted.receives.id().expect("room");
        posted.receives.push(entry(9, Kind::Receive));
        let wc = ibv_wc {
            opcode: IBV_WC_RECV_RDMA_WITH_IMM,
            wc_flags: IBV_WC_WITH_IMM,
            imm_data: 0xabc0_0001_u32.to_be(),
            byte_len: 64,
            ..done(number, IBV_WC_SUCCESS)
        };
        let told = posted.finish(QP, &wc, open, is_bound).expect("it was posted");
        assert_eq!(
            (told.kind, told.len_bytes, told.imm, told.invalidated),
            (Kind::ReceiveWrite, 64, Some(0xabc0_0001), None)
        );
    }

    #[test]
    fn a_receive_tells_the_key_that_was_taken_back() {
        let told = |wc_flags, word| {
            let mut posted = Posted::new(1, 1);
            let number = posted.receives.id().expect("room");
            posted.receives.push(entry(9, Kind::Receive));
            let wc = ibv_wc {
                wc_flags,
                imm_data: word,
                ..done(number, IBV_WC_SUCCESS)
            };
            posted.finish(QP, &wc, open, is_bound).expect("it was posted")
        };
        let by_verbs = told(IBV_WC_WITH_INV, 7);
        assert_eq!((by_verbs.imm, by_verbs.invalidated), (None, Some(MemoryKey(7))));
        let by_rxe = told(KERNEL_S_WITH_INV, 0xabc0_0001);
        assert_eq!(by_rxe.invalidated, Some(MemoryKey(0xabc0_0001)));
        assert_eq!(
            told(KERNEL_S_WITH_INV, 7).invalidated,
            None,
            "a check sum's flag, and no key"
        );
    }

    #[test]
    fn trouble_with_local_memory_is_told_with_its_reason_where_one_is_found() {
        let statuses = [2, 4].map(|status| {
            let mut posted = Posted::new(1, 1);
            let number = posted.receives.id().expect("room");
            posted.receives.push(entry(1, Kind::Receive));
            let shut = |_: &Local, _| (status == 4).then_some(Refusal::UnknownKey);
            posted
                .finish(QP, &done(number, status), shut, is_bound)
                .expect("it was posted")
                .result
        });
        assert_eq!(
            statuses,
            [
                Err(CompletionError::LocalOperation { status: 2 }),
                Err(CompletionError::LocalProtection(Refusal::UnknownKey))
            ]
        );
    }

    #[test]
    fn atomics_and_lengths_that_no_device_takes_are_refused() {
        let into = Local {
            key: MemoryKey(1),
            at_bytes: 0,
            len_bytes: 4,
        };
        let at = Remote { address: 8, rkey: 9 };
        let refused = asked(&Operation::FetchAdd { into, at, add: 1 }).map(|_| ());
        let (len_bytes, bytes_max) = (4, 8);
        assert_eq!(refused, Err(PostError::Length { len_bytes, bytes_max }));
        let taken = asked(&Operation::Read { into, from: at }).expect("4 bytes can be read");
        assert_eq!((taken.opcode, taken.kind), (IBV_WR_RDMA_READ, Kind::Read));
    }
}
