//! Ours: the harness of the project's own bench. Frames are built, checksummed and parsed, which the others are spared.

#[path = "../../../../dataplane/quorum/benches/cluster/mod.rs"]
mod cluster;

use std::time::{Duration, Instant};

use anyhow::ensure;
use dataplane_wire::quorum::request::Command;

use self::cluster::Cluster;
use super::{COMMAND, Core};

pub struct Ours {
    cluster: Cluster,
    sequence: u64,
}

impl Ours {
    pub fn new() -> Ours {
        Ours {
            cluster: Cluster::new(3),
            sequence: 0,
        }
    }
}

impl Core for Ours {
    fn name(&self) -> &'static str {
        "dataplane-quorum"
    }

    fn commit(&mut self, count: u64) -> anyhow::Result<Duration> {
        // The client's frames are the client's cost: built before the clock runs.
        let (key, value) = COMMAND;
        let frames: Vec<_> = (1..=count)
            .map(|index| self.cluster.request(self.sequence + index, Command::Put { key, value }))
            .collect();
        self.sequence += count;
        let before_count = self.cluster.answers_count;
        let begin = Instant::now();
        for frame in &frames {
            self.cluster.ask(frame);
        }
        let elapsed = begin.elapsed();
        let answered_count = self.cluster.answers_count - before_count;
        ensure!(
            answered_count == count,
            "{answered_count} of {count} requests were answered"
        );
        Ok(elapsed)
    }
}
