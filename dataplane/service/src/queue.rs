//! What a discipline keeps its jobs in: a queue that one thread has, or one that several share. A discipline is written
//! once, for both.

use std::{cell::RefCell, collections::VecDeque};

use crossbeam::queue::SegQueue;

/// First in, first out.
pub trait Queue<J>: Default {
    /// Behind all others.
    fn push(&self, job: J);
    /// The first.
    fn pop(&self) -> Option<J>;
    /// How many wait. Where several threads share it, how many did a moment ago.
    fn len(&self) -> usize;
    /// Does nobody wait?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One thread's: in virtual time, and in a node that is one thread.
#[derive(Debug)]
pub struct LocalQueue<J>(RefCell<VecDeque<J>>);

impl<J> Default for LocalQueue<J> {
    fn default() -> LocalQueue<J> {
        LocalQueue(RefCell::new(VecDeque::new()))
    }
}

impl<J> Queue<J> for LocalQueue<J> {
    #[inline]
    fn push(&self, job: J) {
        self.0.borrow_mut().push_back(job);
    }

    #[inline]
    fn pop(&self) -> Option<J> {
        self.0.borrow_mut().pop_front()
    }

    #[inline]
    fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

/// Threads share it, without a lock: crossbeam's list of segments. It takes memory as it grows; who fills it bounds it.
#[derive(Debug)]
pub struct SharedQueue<J>(SegQueue<J>);

impl<J> Default for SharedQueue<J> {
    fn default() -> SharedQueue<J> {
        SharedQueue(SegQueue::new())
    }
}

impl<J> Queue<J> for SharedQueue<J> {
    fn push(&self, job: J) {
        self.0.push(job);
    }

    fn pop(&self) -> Option<J> {
        self.0.pop()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}
