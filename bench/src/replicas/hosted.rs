//! Many clusters on few processes: each process is a node of all of them, with a thread, a port and a log of its own for each
//! shard. So do sharded stores: a process for each machine, a group for each shard, nothing shared between groups but the
//! machine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::{Manner, Network, ReplicaConfig, ReplicaReport, ReplicaRole, SUBCOMMAND_HOSTED, ground::Ground, process};
use crate::{
    host::Seat,
    place::Endpoint,
    server::{self, Server, Starting},
};

/// What such a process is told.
#[derive(Debug, Serialize, Deserialize)]
struct HostConfig {
    parent_pid: u32,
    /// Its replica in each cluster.
    shards: Vec<ReplicaConfig>,
}

/// Running clusters. Dropping them ends them.
#[derive(Debug)]
pub struct Shards {
    hosts: Vec<Server>,
    /// Where each cluster's replicas are, by shard and node.
    pub endpoints: Vec<Vec<Endpoint>>,
}

impl Shards {
    /// Starts `nodes_count` processes with `shards_count` replicas each. `role` says what node `n` of shard `s` does:
    /// `role(s, n)`. Call it from a thread that outlives them.
    ///
    /// # Errors
    /// One could not be started, or did not become ready.
    pub fn start(
        backend: &str,
        (shards_count, nodes_count): (usize, usize),
        seat: Seat,
        manner: Manner,
        role: impl Fn(usize, usize) -> ReplicaRole,
    ) -> anyhow::Result<Shards> {
        let all = Ground::Loopback.replicas(shards_count * nodes_count)?;
        let endpoints: Vec<Vec<Endpoint>> = all.chunks(nodes_count).map(<[Endpoint]>::to_vec).collect();
        let parent_pid = std::process::id();
        let replica = |node: usize, shard: usize| ReplicaConfig {
            parent_pid,
            backend: backend.to_owned(),
            node: node as u32,
            network: Network::default(),
            endpoints: endpoints[shard].clone(),
            client: None,
            group: None,
            card: None,
            role: role(shard, node),
            seat,
            manner,
        };
        let starting = |node: usize| format!("starting node {node} over {backend}");
        let host = |node: usize| {
            let config = HostConfig {
                parent_pid,
                shards: (0..shards_count).map(|shard| replica(node, shard)).collect(),
            };
            Server::begin_as(SUBCOMMAND_HOSTED, &config).with_context(|| starting(node))
        };
        let begun: Vec<Starting> = (0..nodes_count).map(host).collect::<anyhow::Result<_>>()?;
        let numbered = begun.into_iter().enumerate();
        let hosts = numbered.map(|(node, begun)| begun.ready().with_context(|| starting(node)));
        Ok(Shards {
            hosts: hosts.collect::<anyhow::Result<_>>()?,
            endpoints,
        })
    }

    /// How each process runs, as facts of a row.
    pub fn facts(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let numbered = self.hosts.iter().enumerate();
        numbered.flat_map(|(node, host)| {
            let facts = host.facts().iter();
            facts.map(move |(name, value)| (format!("node_{node}_{name}"), value.clone()))
        })
    }

    /// Ends them and takes their reports, by node and shard.
    ///
    /// # Errors
    /// One had died before, or one of its replicas had.
    pub fn finish(self) -> anyhow::Result<Vec<Vec<ReplicaReport>>> {
        self.hosts.into_iter().map(Server::finish_as).collect()
    }
}

/// Such a process: everything behind [`SUBCOMMAND_HOSTED`].
///
/// # Errors
/// A configuration that cannot be read, a port or a log that cannot be opened or that fails.
pub fn main(config: &str) -> anyhow::Result<()> {
    let config: HostConfig = serde_json::from_str(config).context("reading the node's configuration")?;
    server::die_with(config.parent_pid)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, told) = mpsc::channel();
    let shards_count = config.shards.len();
    let threads: Vec<_> = config
        .shards
        .into_iter()
        .enumerate()
        .map(|(shard, replica)| {
            let (tell, stop) = (tell.clone(), stop.clone());
            let serve = move || {
                process::serve(&replica, move |facts| {
                    // Capabilities are a thread's own.
                    server::drop_privileges();
                    tell.send(facts).context("telling that a shard is ready")?;
                    Ok(stop)
                })
            };
            thread::Builder::new()
                .name(format!("shard-{shard}"))
                .spawn(serve)
                .context("starting a shard's thread")
        })
        .collect::<anyhow::Result<_>>()?;
    drop(tell);
    let ready: Vec<_> = told.iter().take(shards_count).collect();
    let failed = ready.len() < shards_count;
    if failed {
        stop.store(true, Ordering::Release);
    } else {
        server::say_ready(None, ready.into_iter().next_back().unwrap_or_default())?;
        let at_eof = stop.clone();
        server::stop_at_eof(|_| {}, move || at_eof.store(true, Ordering::Release));
    }
    let reports: Vec<ReplicaReport> = threads
        .into_iter()
        .enumerate()
        .map(|(shard, thread)| {
            let report = thread.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked")));
            report.with_context(|| format!("shard {shard}"))
        })
        .collect::<anyhow::Result<_>>()?;
    if failed {
        bail!("a shard's thread ended before it was ready");
    }
    server::say(&reports)
}
