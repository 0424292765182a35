//! raft-rs (the crate raft): three `RawNode`s with `MemStorage`, driven as its documentation says; messages are moved, not
//! encoded, which is kinder to it than any network.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use raft::{
    Config, RawNode, StateRole,
    eraftpb::{ConfState, Entry, EntryType, Message},
    storage::MemStorage,
};

use super::{COMMAND, Core};

pub struct RaftRs {
    nodes: Vec<RawNode<MemStorage>>,
    under_way: Vec<Message>,
    applied_count: [u64; 3],
}

impl RaftRs {
    pub fn new() -> anyhow::Result<RaftRs> {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let nodes = (1..=3).map(|id| {
            let storage = MemStorage::new_with_conf_state(ConfState::from((vec![1, 2, 3], vec![])));
            let config = Config {
                id,
                election_tick: 10,
                heartbeat_tick: 3,
                max_size_per_msg: 1 << 20,
                max_inflight_msgs: 256,
                ..Config::default()
            };
            RawNode::new(&config, storage, &logger).context("making a node of raft-rs")
        });
        let mut core = RaftRs {
            nodes: nodes.collect::<anyhow::Result<_>>()?,
            under_way: Vec::new(),
            applied_count: [0; 3],
        };
        core.nodes[0].campaign().context("an election in raft-rs")?;
        core.settle()?;
        ensure!(
            core.nodes[0].raft.state == StateRole::Leader,
            "the only candidate was not elected in raft-rs"
        );
        Ok(core)
    }

    /// Turns everybody until nothing is under way.
    fn settle(&mut self) -> anyhow::Result<()> {
        loop {
            for node in 0..self.nodes.len() {
                self.ready(node)?;
            }
            if self.under_way.is_empty() {
                return Ok(());
            }
            for message in std::mem::take(&mut self.under_way) {
                self.nodes[message.to as usize - 1]
                    .step(message)
                    .context("a message of raft-rs")?;
            }
        }
    }

    /// The documentation's "Processing the `Ready` State".
    fn ready(&mut self, node: usize) -> anyhow::Result<()> {
        let raw = &mut self.nodes[node];
        if !raw.has_ready() {
            return Ok(());
        }
        let mut ready = raw.ready();
        let store = raw.raft.raft_log.store.clone();
        self.under_way.append(&mut ready.take_messages());
        self.applied_count[node] += commands_count(&ready.take_committed_entries());
        if !ready.entries().is_empty() {
            store.wl().append(ready.entries()).context("appending in raft-rs")?;
        }
        if let Some(state) = ready.hs() {
            store.wl().set_hardstate(state.clone());
        }
        self.under_way.append(&mut ready.take_persisted_messages());
        let mut light = raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            store.wl().mut_hard_state().set_commit(commit);
        }
        self.under_way.append(&mut light.take_messages());
        self.applied_count[node] += commands_count(&light.take_committed_entries());
        raw.advance_apply();
        Ok(())
    }
}

fn commands_count(entries: &[Entry]) -> u64 {
    let commands = entries
        .iter()
        .filter(|entry| entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty());
    commands.count() as u64
}

impl Core for RaftRs {
    fn name(&self) -> &'static str {
        "raft-rs (raft 0.7.0)"
    }

    fn commit(&mut self, count: u64) -> anyhow::Result<Duration> {
        let command = [&COMMAND.0[..], &COMMAND.1[..]].concat();
        let before_count = self.applied_count[0];
        let begin = Instant::now();
        for _ in 0..count {
            self.nodes[0]
                .propose(Vec::new(), command.clone())
                .context("a proposal to raft-rs")?;
            self.settle()?;
        }
        let elapsed = begin.elapsed();
        let applied_count = self.applied_count[0] - before_count;
        ensure!(
            applied_count == count,
            "raft-rs applied {applied_count} of {count} proposals"
        );
        // What everybody has applied is let go, outside of the time; the log stays a short vector.
        for node in &self.nodes {
            let last = node.raft.raft_log.applied;
            node.raft
                .raft_log
                .store
                .wl()
                .compact(last)
                .context("compacting in raft-rs")?;
        }
        Ok(elapsed)
    }
}
