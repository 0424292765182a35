//! etcd's side of `etcd`: three members on loopback with their defaults, and the crate etcd-client (gRPC).

use std::{
    cell::RefCell,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use etcd_client::Client;
use tokio::{
    runtime::{Builder, Runtime},
    task::LocalSet,
    time::sleep,
};

use super::{ELECTION_MAX, Load, MEMBERS, Seen, key};
use crate::scratch::{Process, Stop};

/// The first line of `etcd --version`.
///
/// # Errors
/// It is not there.
pub fn version(etcd: &Path) -> anyhow::Result<String> {
    let output = Command::new(etcd).arg("--version").output().with_context(|| {
        format!(
            "starting {}: Debian has it in etcd-server; --etcd names another one",
            etcd.display()
        )
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().context("etcd --version said nothing")?;
    Ok(line.replace("etcd Version: ", "etcd "))
}

/// Running members.
pub struct Cluster {
    runtime: Runtime,
    leader: String,
    members: Vec<Process>,
}

impl Cluster {
    /// Starts them and waits for a leader.
    ///
    /// # Errors
    /// One cannot be started or ends, or nobody leads in time.
    pub fn start(etcd: &Path, folder: &Path, stop: &Stop) -> anyhow::Result<Cluster> {
        let listeners: Vec<TcpListener> = (0..2 * MEMBERS)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()
            .context("looking for free TCP ports on 127.0.0.1")?;
        let urls: Vec<String> = listeners
            .iter()
            .map(|listener| Ok(format!("http://{}", listener.local_addr()?)))
            .collect::<std::io::Result<_>>()
            .context("asking for a socket's address")?;
        drop(listeners);
        let (clients, peers) = urls.split_at(MEMBERS);
        let all: Vec<String> = peers
            .iter()
            .zip(0..)
            .map(|(url, node)| format!("m{node}={url}"))
            .collect();
        let members = (0..MEMBERS).map(|node| {
            let data = folder.join(format!("m{node}"));
            let args = [
                "--name",
                &format!("m{node}"),
                "--data-dir",
                &data.display().to_string(),
                "--listen-client-urls",
                &clients[node],
                "--advertise-client-urls",
                &clients[node],
                "--listen-peer-urls",
                &peers[node],
                "--initial-advertise-peer-urls",
                &peers[node],
                "--initial-cluster",
                &all.join(","),
                "--initial-cluster-token",
                "beside-dplab",
                "--initial-cluster-state",
                "new",
                "--logger",
                "zap",
                "--log-level",
                "error",
            ]
            .map(String::from);
            Process::start(etcd, &args, &folder.join(format!("m{node}.log")))
        });
        let mut members: Vec<Process> = members.collect::<anyhow::Result<_>>()?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("making a runtime")?;
        let leader = runtime.block_on(async {
            let begin = Instant::now();
            while begin.elapsed() < ELECTION_MAX {
                stop.check()?;
                for member in &mut members {
                    member.check()?;
                }
                for url in clients {
                    if leads(url).await {
                        return Ok(url.clone());
                    }
                }
                sleep(Duration::from_millis(100)).await;
            }
            bail!("no member of etcd led within {ELECTION_MAX:?}")
        })?;
        Ok(Cluster {
            runtime,
            leader,
            members,
        })
    }

    /// Keeps puts under way for as long as `load` says.
    ///
    /// # Errors
    /// A member has ended, or a put is refused.
    pub fn ask(&mut self, load: Load, stop: &Stop) -> anyhow::Result<Seen> {
        for member in &mut self.members {
            member.check()?;
        }
        let local = LocalSet::new();
        let leader = &self.leader;
        local.block_on(&self.runtime, async {
            let mut connections = Vec::new();
            for _ in 0..load.connections {
                let client = Client::connect([leader], None).await.context("connecting to etcd")?;
                connections.push(client.kv_client());
            }
            let value = vec![0x61u8; load.value_bytes];
            let seen = Rc::new(RefCell::new(Seen::new()?));
            let begin = Instant::now();
            let end = begin + load.duration;
            let mut tasks = Vec::new();
            for index in 0..load.in_flight {
                let mut client = connections[index % connections.len()].clone();
                let (value, seen, stop) = (value.clone(), seen.clone(), stop.clone());
                tasks.push(tokio::task::spawn_local(async move {
                    let mut sequence = index as u64;
                    while Instant::now() < end && !stop.is_wanted() {
                        let asked = Instant::now();
                        client.put(key(sequence), value.clone(), None).await?;
                        // An automatic histogram grows.
                        let _ = seen.borrow_mut().latency.record(asked.elapsed().as_nanos() as u64);
                        sequence += load.in_flight as u64;
                    }
                    Ok::<(), etcd_client::Error>(())
                }));
            }
            for task in tasks {
                task.await.context("a client's task")?.context("a put into etcd")?;
            }
            let mut seen = Rc::into_inner(seen).context("the tasks have ended")?.into_inner();
            seen.elapsed = begin.elapsed();
            Ok(seen)
        })
    }
}

async fn leads(url: &str) -> bool {
    let Ok(client) = Client::connect([url], None).await else {
        return false;
    };
    let Ok(status) = client.maintenance_client().status().await else {
        return false;
    };
    let own = status.header().map(|header| header.member_id());
    status.leader() != 0 && own == Some(status.leader())
}
