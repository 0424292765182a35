//! Rounds of asking: who answered what was sent when. A round that a quorum answered says that we led when it began, and
//! that nobody else is elected for a while.

use std::{collections::VecDeque, time::Duration};

use dataplane_waist::Instant;
use dataplane_wire::quorum::members::Members;

use crate::config::NODES_MAX;

/// More rounds under way than this, and the oldest is forgotten.
const ROUNDS_MAX: usize = 64;

/// A leader's rounds, counted from 1.
#[derive(Debug)]
pub(crate) struct Rounds {
    began_at: Instant,
    current: u64,
    /// Rounds that no quorum has answered yet, and when they began.
    open: VecDeque<(u64, Instant)>,
    heard: [u64; NODES_MAX],
    confirmed: u64,
    lease_until: Instant,
}

impl Rounds {
    pub(crate) fn new(now: Instant) -> Rounds {
        Rounds {
            began_at: now,
            current: 0,
            open: VecDeque::with_capacity(ROUNDS_MAX),
            heard: [0; NODES_MAX],
            confirmed: 0,
            lease_until: Instant::ZERO,
        }
    }

    pub(crate) fn began_at(&self) -> Instant {
        self.began_at
    }

    pub(crate) fn begin(&mut self, now: Instant) {
        self.current += 1;
        if self.open.len() == ROUNDS_MAX {
            self.open.pop_front();
        }
        self.open.push_back((self.current, now));
    }

    pub(crate) fn current(&self) -> u64 {
        self.current
    }

    /// The last round that a quorum answered.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    pub(crate) fn lease_until(&self) -> Instant {
        self.lease_until
    }

    pub(crate) fn heard(&mut self, node: u32, round: u64) {
        // A round that was not asked is not believed.
        if round <= self.current {
            let place = &mut self.heard[node as usize];
            *place = (*place).max(round);
        }
    }

    /// Counts the voters' answers. Each answer promises that its sender elects nobody for `promise` from the time at
    /// which it heard us, which is after the round began.
    pub(crate) fn count(&mut self, own: u32, members: Members, promise: Duration) {
        self.heard[own as usize] = self.current;
        while let Some(&(round, began_at)) = self.open.front() {
            let answered = |node: &u32| members.contains(*node) && self.heard[*node as usize] >= round;
            let count = (0..NODES_MAX as u32).filter(answered).count();
            if count < usize::from(members.commit_count) {
                // Whoever answered a later round counts for this one, so no later one has its quorum either.
                return;
            }
            self.confirmed = round;
            self.lease_until = self.lease_until.max(began_at + promise);
            self.open.pop_front();
        }
    }
}
