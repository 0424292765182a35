//! What a cluster promises, as data: which failure leaves acknowledged writes alone, in which order they stand, how old
//! a read may be. A faster way of keeping that promises less is never shown as simply faster.

use std::{fmt, time::Duration};

use dataplane_wire::quorum::members::Members;

use crate::config::{ReadMode, Timing};

/// What an acknowledgement stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keeps {
    /// A commit quorum has the write on disk, flushed.
    Durable,
    /// A commit quorum has the write in its processes' memory.
    Memory,
}

impl Keeps {
    /// Both.
    pub const ALL: [Keeps; 2] = [Keeps::Durable, Keeps::Memory];

    /// The name, as records and command lines have it.
    pub const fn name(self) -> &'static str {
        match self {
            Keeps::Durable => "durable",
            Keeps::Memory => "memory",
        }
    }
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The process ends, cleanly or by `kill -9`; the kernel lives.
    Process,
    /// The kernel panics or the host is reset; the disk keeps its power.
    Host,
    /// The power goes, for the disk too.
    Power,
}

impl Failure {
    /// All of them, from the mildest on.
    pub const ALL: [Failure; 3] = [Failure::Process, Failure::Host, Failure::Power];

    /// The name, as records have it.
    pub const fn name(self) -> &'static str {
        match self {
            Failure::Process => "process_crash",
            Failure::Host => "host_crash",
            Failure::Power => "power_loss",
        }
    }
}

/// How many replicas fail at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// So few that the others can elect and commit.
    Minority,
    /// So many that they cannot, but not all.
    Majority,
    /// Every one.
    All,
}

impl Extent {
    /// All of them, from the mildest on.
    pub const ALL: [Extent; 3] = [Extent::Minority, Extent::Majority, Extent::All];

    /// The name, as records have it.
    pub const fn name(self) -> &'static str {
        match self {
            Extent::Minority => "minority",
            Extent::Majority => "majority",
            Extent::All => "all",
        }
    }
}

/// What becomes of acknowledged writes, and of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Nothing is lost, and the others go on.
    Survives,
    /// Nothing is lost, and the others go on; who failed has forgotten its vote and must not come back under its number.
    SurvivesReplace,
    /// Nothing is lost; no service until a quorum is back.
    Waits,
    /// Acknowledged writes may be lost.
    Lost,
}

impl Fate {
    /// The name, as records have it.
    pub const fn name(self) -> &'static str {
        match self {
            Fate::Survives => "survives",
            Fate::SurvivesReplace => "survives_replace",
            Fate::Waits => "waits",
            Fate::Lost => "lost",
        }
    }

    /// In words.
    pub const fn sentence(self) -> &'static str {
        match self {
            Fate::Survives => "nothing lost, service goes on",
            Fate::SurvivesReplace => "nothing lost, service goes on; replace who failed",
            Fate::Waits => "nothing lost, no service until a quorum is back",
            Fate::Lost => "ACKNOWLEDGED WRITES MAY BE LOST",
        }
    }
}

/// The guarantee vector of a cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guarantees {
    /// What an acknowledgement stands for.
    pub keeps: Keeps,
    /// Who votes, and the quorums.
    pub members: Members,
    /// How reads are made linearizable.
    pub reads: ReadMode,
    /// By how much one clock may run faster than another, for lease reads.
    pub drift_ratio: f64,
    /// For how long a lease is promised.
    pub lease: Duration,
}

impl Guarantees {
    /// What a cluster with these settings promises.
    pub const fn of(keeps: Keeps, members: Members, reads: ReadMode, timing: &Timing) -> Guarantees {
        Guarantees {
            keeps,
            members,
            reads,
            drift_ratio: timing.drift_ratio,
            lease: timing.election_min,
        }
    }

    /// How many replicas may fail so that the others can still elect and commit.
    pub fn spare_count(&self) -> u32 {
        let Members {
            elect_count,
            commit_count,
            ..
        } = self.members;
        self.members
            .count()
            .saturating_sub(u32::from(elect_count.max(commit_count)))
    }

    /// How many replicas fail at least at this extent, and at most; `None` if there is no such number.
    pub fn counts(&self, extent: Extent) -> Option<(u32, u32)> {
        let (count, spare_count) = (self.members.count(), self.spare_count());
        let (least, most) = match extent {
            Extent::Minority => (1, spare_count),
            Extent::Majority => (spare_count + 1, count.saturating_sub(1)),
            Extent::All => (count, count),
        };
        (least <= most).then_some((least, most))
    }

    /// What becomes of acknowledged writes in the worst case; `None` if so many cannot fail.
    ///
    /// A disk is taken to keep what it called flushed. One that does not turns the power loss of a commit quorum into
    /// [`Fate::Lost`].
    pub fn fate(&self, _failure: Failure, extent: Extent) -> Option<Fate> {
        let (_, failed_count_max) = self.counts(extent)?;
        Some(match (self.keeps, extent) {
            (Keeps::Durable, Extent::Minority) => Fate::Survives,
            (Keeps::Durable, Extent::Majority | Extent::All) => Fate::Waits,
            // Whoever has the write may be exactly those who fail.
            (Keeps::Memory, _) if failed_count_max >= u32::from(self.members.commit_count) => Fate::Lost,
            (Keeps::Memory, Extent::Minority) => Fate::SurvivesReplace,
            (Keeps::Memory, Extent::Majority | Extent::All) => Fate::Waits,
        })
    }

    /// In which order writes stand.
    pub const fn order(&self) -> &'static str {
        "one order for all, linearizable; a request of an open session is done at most once"
    }

    /// How current a read is.
    pub fn reads(&self) -> String {
        match self.reads {
            ReadMode::Index => "linearizable, whatever the clocks do: the leader asks a quorum (index)".to_owned(),
            ReadMode::Lease => format!(
                "linearizable while no clock runs more than {:.1} % faster than another: the leader relies on a lease of \
                 {} ms (lease)",
                self.drift_ratio * 100.0,
                self.lease.as_millis()
            ),
        }
    }

    /// How current a stale read is.
    pub const fn stale_reads(&self) -> &'static str {
        "what that replica has applied: committed, in order, of any age"
    }
}

impl Guarantees {
    /// What survives which failure, as a table for people, without a newline at its end.
    pub fn survival(&self) -> String {
        let Members {
            elect_count,
            commit_count,
            ..
        } = self.members;
        let count = self.members.count();
        let place = match self.keeps {
            Keeps::Durable => "on disk, flushed",
            Keeps::Memory => "in memory, NOT on disk",
        };
        let mut text = format!(
            "guarantees ({}): acknowledged = {place}, at {commit_count} of {count}; {elect_count} of {count} elect",
            self.keeps.name()
        );
        for extent in Extent::ALL {
            let Some((least, most)) = self.counts(extent) else {
                continue;
            };
            let who = match (least, most) {
                (least, most) if least == most => format!("{most} of {count}"),
                (least, most) => format!("{least} to {most} of {count}"),
            };
            // Failures of one fate share a line.
            let mut rest = &Failure::ALL[..];
            while let Some(&failure) = rest.first() {
                let fate = self.fate(failure, extent);
                let alike_count = rest
                    .iter()
                    .take_while(|&&other| self.fate(other, extent) == fate)
                    .count();
                let names: Vec<&str> = rest[..alike_count].iter().map(|failure| failure.name()).collect();
                let sentence = fate.map_or("cannot be", Fate::sentence);
                text += &format!("\n  {who:>11}: {}: {sentence}", names.join(", "));
                rest = &rest[alike_count..];
            }
        }
        text
    }
}

impl fmt::Display for Guarantees {
    /// All of it, as a table for people, without a newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.survival())?;
        writeln!(f, "  {:>11}: {}", "order", self.order())?;
        writeln!(f, "  {:>11}: {}", "reads", self.reads())?;
        write!(f, "  {:>11}: {}", "stale reads", self.stale_reads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::majorities;

    fn of(keeps: Keeps, members: Members) -> Guarantees {
        Guarantees::of(keeps, members, ReadMode::Index, &Timing::LOCAL)
    }

    /// All ways to lose replicas, one by one, against what the table says.
    #[test]
    fn the_worst_case_is_the_table() {
        for count in 1..=5u32 {
            for (elect_count, commit_count) in (1..=count as u8).flat_map(|e| (1..=count as u8).map(move |c| (e, c))) {
                let members = Members {
                    voters: (1 << count) - 1,
                    elect_count,
                    commit_count,
                };
                if !members.is_sound() {
                    continue;
                }
                for (keeps, extent) in Keeps::ALL.into_iter().flat_map(|k| Extent::ALL.map(|e| (k, e))) {
                    let vector = of(keeps, members);
                    let Some((least, most)) = vector.counts(extent) else {
                        continue;
                    };
                    let mut is_lost = false;
                    let mut waits = false;
                    for failed in (1..=members.voters).filter(|set| (least..=most).contains(&set.count_ones())) {
                        let left_count = count - failed.count_ones();
                        waits |= left_count < u32::from(elect_count.max(commit_count));
                        // A write is at some commit quorum; it is gone if all of that quorum forgets.
                        let quorums = (1..=members.voters).filter(|set| set.count_ones() == u32::from(commit_count));
                        is_lost |= keeps == Keeps::Memory && quorums.into_iter().any(|quorum| quorum & !failed == 0);
                    }
                    let expected = match (is_lost, waits, keeps) {
                        (true, ..) => Fate::Lost,
                        (_, true, _) => Fate::Waits,
                        (_, _, Keeps::Memory) => Fate::SurvivesReplace,
                        (_, _, Keeps::Durable) => Fate::Survives,
                    };
                    for failure in Failure::ALL {
                        assert_eq!(vector.fate(failure, extent), Some(expected), "{vector:?} {extent:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn memory_says_so_and_leases_name_their_clocks() {
        let text = of(Keeps::Memory, majorities(0b111)).to_string();
        assert!(text.contains("NOT on disk") && text.contains("MAY BE LOST"), "{text}");
        let text = of(Keeps::Durable, majorities(0b111)).to_string();
        assert!(!text.contains("LOST"), "{text}");
        let lease = Guarantees::of(Keeps::Durable, majorities(0b111), ReadMode::Lease, &Timing::LOCAL);
        assert!(lease.to_string().contains("1.0 %"), "{lease}");
    }
}
