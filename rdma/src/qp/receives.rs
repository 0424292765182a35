//! Posted receives: what a peer's sends, and its writes with a word, consume in order.

use std::collections::VecDeque;

use super::completions::Completions;
use crate::work::{CompletionError, Kind, PostError, ReceiveRequest};

#[derive(Debug)]
pub(crate) struct Receives {
    queue: VecDeque<ReceiveRequest>,
    requests_max: usize,
}

impl Receives {
    pub(crate) fn new(requests_max: usize) -> Receives {
        Receives {
            queue: VecDeque::with_capacity(requests_max),
            requests_max,
        }
    }

    pub(crate) fn post(&mut self, request: ReceiveRequest, completions: &Completions) -> Result<(), PostError> {
        if self.queue.len() + completions.receives_count() >= self.requests_max {
            return Err(PostError::Full);
        }
        self.queue.push_back(request);
        Ok(())
    }

    pub(crate) fn front(&self) -> Option<&ReceiveRequest> {
        self.queue.front()
    }

    pub(crate) fn pop(&mut self) -> Option<ReceiveRequest> {
        self.queue.pop_front()
    }

    pub(crate) fn flush(&mut self, completions: &mut Completions) {
        while let Some(request) = self.queue.pop_front() {
            completions.push_error(request.wr_id, Kind::Receive, CompletionError::Flushed);
        }
    }
}
