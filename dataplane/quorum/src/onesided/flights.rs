//! Work requests under way: what each was for, so that its completion finds its way.

use std::collections::VecDeque;

use dataplane_waist::WrId;

/// What a request was posted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A peer's beacon is read.
    Beacon,
    /// Permission is asked for.
    Permission,
    /// A snapshot is asked for, or offered.
    Transfer,
    /// Part of a snapshot is read, of the fetch of that number.
    Snapshot { fetch: u64, at: usize },
    /// A follower's promise is read.
    Header,
    /// A new one is written.
    Promise,
    /// Slots of its log are read.
    Slots { from: u64, count: u64 },
    /// Its promise is read again, behind its log.
    Recheck,
    /// The slot before `end` is written.
    Entry { end: u64 },
    /// What is committed is written.
    Commit,
    /// A round is written.
    Round(u64),
    /// A follower is told that it has everything.
    Recovered,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    /// The peer's index.
    pub(super) index: usize,
    /// Of its link, when it was posted: what belongs to an earlier one is nobody's.
    pub(super) epoch: u64,
    pub(super) what: What,
}

#[derive(Debug, Default)]
pub(super) struct Flights {
    /// In the order in which they were posted, which is nearly that in which they finish: what is looked for stands in front.
    under_way: VecDeque<(u64, Flight)>,
    posted_count: u64,
}

impl Flights {
    pub(super) fn next(&self) -> WrId {
        WrId(self.posted_count)
    }

    /// It was posted under [`Flights::next`].
    pub(super) fn add(&mut self, flight: Flight) {
        self.under_way.push_back((self.posted_count, flight));
        self.posted_count += 1;
    }

    /// Whether anything that was posted to that peer is not finished yet, of whatever link.
    pub(super) fn has_any_to(&self, index: usize) -> bool {
        self.under_way.iter().any(|(_, flight)| flight.index == index)
    }

    pub(super) fn take(&mut self, id: WrId) -> Option<Flight> {
        let place = self.under_way.iter().position(|&(number, _)| number == id.0)?;
        self.under_way.remove(place).map(|(_, flight)| flight)
    }
}
