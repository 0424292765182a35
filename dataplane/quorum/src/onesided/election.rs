//! Who leads: the lowest number whose heartbeat counts up (Mu, OSDI'20 §5.1).
//!
//! Everybody counts in its own memory and reads the others' counters: how late a read comes says nothing about the other's
//! process, so there is no time-out, only a score with two thresholds.

use dataplane_waist::{Instant, StateMachine};

use super::{
    flights::What,
    layout::{self, Beacon},
    leader::Link,
    replica::{Plane, Planes, Replica},
};

/// Mu, OSDI'20 §5.1: scores go from 0 to 15; below 2 a peer is dead, above 6 it is alive again.
const SCORE_MAX: u32 = 15;
const DEAD_BELOW: u32 = 2;
const ALIVE_ABOVE: u32 = 6;

/// How alive a peer is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score {
    score: u32,
    is_alive: bool,
    /// Since the last tick the counter was read, and was another one.
    has_moved: bool,
}

impl Default for Score {
    /// As if it had been read a few times.
    fn default() -> Score {
        Score {
            score: ALIVE_ABOVE,
            is_alive: true,
            has_moved: false,
        }
    }
}

impl Score {
    pub(super) fn is_alive(self) -> bool {
        self.is_alive
    }

    fn count(&mut self) {
        self.score = match std::mem::take(&mut self.has_moved) {
            true => (self.score + 1).min(SCORE_MAX),
            false => self.score.saturating_sub(1),
        };
        self.is_alive = match self.is_alive {
            true => self.score >= DEAD_BELOW,
            false => self.score > ALIVE_ABOVE,
        };
    }
}

impl<S: StateMachine> Replica<S> {
    /// A heartbeat's time has passed.
    pub(super) fn tick(&mut self, now: Instant, planes: &mut Planes<'_>) {
        self.tick_at = now + self.config.timing.heartbeat;
        self.heartbeat += 1;
        for index in 0..self.others.len() {
            self.others[index].score.count();
            self.read_beacon(index, planes);
        }
        if self.is_full && self.reign.is_none() && now >= self.hold_until && self.favourite() == Some(self.config.node)
        {
            self.stand(now, planes);
        }
        if let Some(reign) = &mut self.reign {
            reign.must_tell = true;
        }
    }

    /// Reads a peer's beacon, unless that is under way.
    pub(super) fn read_beacon(&mut self, index: usize, planes: &mut Planes<'_>) {
        if !self.others[index].is_beacon_under_way {
            let from = (Plane::Background, index);
            let posted = self.post_read(planes, from, 0, layout::BEACON_BYTES, What::Beacon);
            self.others[index].is_beacon_under_way = posted;
        }
    }

    pub(super) fn on_beacon(&mut self, now: Instant, index: usize, beacon: Beacon) {
        let other = &mut self.others[index];
        let before = other.beacon.replace(beacon);
        let counter = |beacon: Beacon| (beacon.life, beacon.heartbeat);
        if before.is_none_or(|before| counter(before) != counter(beacon)) {
            other.score.has_moved = true;
        }
        if before.is_some_and(|before| before.life != beacon.life) {
            // What we wrote there is gone, our request for permission too.
            if other.link != Link::Unasked {
                self.lose_link(now, index);
            }
        }
    }

    /// Who should lead, as far as we can see.
    fn favourite(&self) -> Option<u32> {
        let us = self.is_full.then_some(self.config.node);
        let is_fit = |beacon: &Beacon| beacon.is_full;
        let alive = self.others.iter().filter(|other| other.score.is_alive());
        let alive = alive.filter(|other| other.beacon.as_ref().is_none_or(is_fit));
        alive.map(|other| other.node).chain(us).min()
    }

    /// Who leads: we, or whom we let write, if it is alive; otherwise who should.
    pub fn leader(&self) -> Option<u32> {
        if self.leads().is_some() {
            return Some(self.config.node);
        }
        let granted = self.granted.map(|(node, _)| node).filter(|&node| {
            let mut others = self.others.iter();
            others.any(|other| other.node == node && other.score.is_alive())
        });
        granted
            .or_else(|| self.favourite())
            .filter(|&node| node != self.config.node)
    }
}
