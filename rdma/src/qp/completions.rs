//! A queue pair's finished requests, until they are polled; and thereby how many more may be posted.

use std::collections::VecDeque;

use dataplane_waist::WrId;

use crate::{
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
        self.push_result(wr_id, kind, len_bytes, imm, Ok(()));
    }

    pub(crate) fn push_error(&mut self, wr_id: WrId, kind: Kind, error: CompletionError) {
        self.push_result(wr_id, kind, 0, None, Err(error));
    }

    fn push_result(
        &mut self,
        wr_id: WrId,
        kind: Kind,
        len_bytes: u32,
        imm: Option<u32>,
        result: Result<(), CompletionError>,
    ) {
        match kind.is_receive() {
            true => self.receives_count += 1,
            false => self.sends_count += 1,
        }
        self.queue.push_back(Completion {
            qp: self.qp,
            wr_id,
            kind,
            len_bytes,
            imm,
            result,
        });
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
