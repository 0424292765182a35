//! A queue pair's finished requests, until they are polled; and thereby how many more may be posted.

use std::collections::VecDeque;

use dataplane_waist::WrId;

use crate::{
    region::MemoryKey,
    wire::QpNumber,
    work::{Completion, CompletionError, Kind},
};

/// Bounded by construction: a request holds its place until its completion is polled.
#[derive(Debug)]
pub(crate) struct Completions {
    qp: QpNumber,
    queue: VecDeque<Completion>,
    sends_count: usize,
    receives_count: usize,
}

impl Completions {
    pub(crate) fn new(qp: QpNumber, requests_max: usize) -> Completions {
        Completions {
            qp,
            queue: VecDeque::with_capacity(requests_max),
            sends_count: 0,
            receives_count: 0,
        }
    }

    /// Finished sends that nobody polled.
    pub(crate) fn sends_count(&self) -> usize {
        self.sends_count
    }

    /// Finished receives that nobody polled.
    pub(crate) fn receives_count(&self) -> usize {
        self.receives_count
    }

    pub(crate) fn push(&mut self, wr_id: WrId, kind: Kind, len_bytes: u32, imm: Option<u32>) {
        self.put(Completion {
            len_bytes,
            imm,
            ..self.bare(wr_id, kind)
        });
    }

    /// A receive with which the sender took a key back.
    pub(crate) fn push_invalidated(&mut self, wr_id: WrId, len_bytes: u32, key: MemoryKey) {
        self.put(Completion {
            len_bytes,
            invalidated: Some(key),
            ..self.bare(wr_id, Kind::Receive)
        });
    }

    pub(crate) fn push_error(&mut self, wr_id: WrId, kind: Kind, error: CompletionError) {
        self.put(Completion {
            result: Err(error),
            ..self.bare(wr_id, kind)
        });
    }

    fn bare(&self, wr_id: WrId, kind: Kind) -> Completion {
        Completion {
            qp: self.qp,
            wr_id,
            kind,
            len_bytes: 0,
            imm: None,
            invalidated: None,
            result: Ok(()),
        }
    }

    fn put(&mut self, completion: Completion) {
        match completion.kind.is_receive() {
            true => self.receives_count += 1,
            false => self.sends_count += 1,
        }
        self.queue.push_back(completion);
    }

    pub(crate) fn pop(&mut self) -> Option<Completion> {
        let completion = self.queue.pop_front()?;
        match completion.kind.is_receive() {
            true => self.receives_count -= 1,
            false => self.sends_count -= 1,
        }
        Some(completion)
    }
}
