//! openraft: three `Raft`s on one single-threaded tokio runtime; a message is a call of the other's method. Logs and state
//! machines are the least that its traits ask for.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io::Cursor,
    ops::RangeBounds,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use openraft::{
    Config, Entry, EntryPayload, LogId, LogState, OptionalSend, Raft, RaftLogReader, RaftNetwork, RaftNetworkFactory,
    RaftSnapshotBuilder, Snapshot, SnapshotMeta, SnapshotPolicy, StorageError, StoredMembership, Vote,
    error::{InstallSnapshotError, RPCError, RaftError, Unreachable},
    impls::EmptyNode,
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
        VoteResponse,
    },
    storage::{LogFlushed, RaftLogStorage, RaftStateMachine},
};
use tokio::runtime::{Builder, Runtime};

use super::{COMMAND, Core};

openraft::declare_raft_types!(
    /// Commands are bytes, answers are counts.
    pub Types:
        D = Vec<u8>,
        R = u64,
        NodeId = u64,
        Node = EmptyNode,
);

// openraft asks commands and answers to be what serde can do or not, as its features say; bytes and numbers are both.
type Stored<T> = Result<T, StorageError<u64>>;
type Called<T, E = RaftError<u64>> = Result<T, RPCError<u64, EmptyNode, E>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<u64, Entry<Types>>,
    vote: Option<Vote<u64>>,
    purged: Option<LogId<u64>>,
}

#[derive(Clone, Debug, Default)]
struct MemoryLog(Arc<Mutex<Inner>>);

impl RaftLogReader<Types> for MemoryLog {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<Types>>> {
        Ok(lock(&self.0)
            .entries
            .range(range)
            .map(|(_, entry)| entry.clone())
            .collect())
    }
}

impl RaftLogStorage<Types> for MemoryLog {
    type LogReader = MemoryLog;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        let inner = lock(&self.0);
        let last = inner.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState {
            last_purged_log_id: inner.purged,
            last_log_id: last.or(inner.purged),
        })
    }
    async fn get_log_reader(&mut self) -> MemoryLog {
        self.clone()
    }
    async fn save_vote(&mut self, vote: &Vote<u64>) -> Stored<()> {
        lock(&self.0).vote = Some(*vote);
        Ok(())
    }
    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        Ok(lock(&self.0).vote)
    }
    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        lock(&self.0)
            .entries
            .extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        callback.log_io_completed(Ok(()));
        Ok(())
    }
    async fn truncate(&mut self, log_id: LogId<u64>) -> Stored<()> {
        lock(&self.0).entries.split_off(&log_id.index);
        Ok(())
    }
    async fn purge(&mut self, log_id: LogId<u64>) -> Stored<()> {
        let mut inner = lock(&self.0);
        inner.purged = Some(log_id);
        inner.entries = inner.entries.split_off(&(log_id.index + 1));
        Ok(())
    }
}

/// Counts the commands that it applies.
#[derive(Clone, Debug, Default)]
struct Counter {
    count: u64,
    last: Option<LogId<u64>>,
    members: StoredMembership<u64, EmptyNode>,
}

impl RaftSnapshotBuilder<Types> for Counter {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        Ok(Snapshot {
            meta: SnapshotMeta {
                last_log_id: self.last,
                last_membership: self.members.clone(),
                snapshot_id: self.count.to_string(),
            },
            snapshot: Box::new(Cursor::new(self.count.to_be_bytes().to_vec())),
        })
    }
}

impl RaftStateMachine<Types> for Counter {
    type SnapshotBuilder = Counter;

    async fn applied_state(&mut self) -> Stored<(Option<LogId<u64>>, StoredMembership<u64, EmptyNode>)> {
        Ok((self.last, self.members.clone()))
    }
    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let answers = entries.into_iter().map(|entry| {
            self.last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(_) => self.count += 1,
                EntryPayload::Membership(members) => self.members = StoredMembership::new(self.last, members),
            }
            self.count
        });
        Ok(answers.collect())
    }
    async fn get_snapshot_builder(&mut self) -> Counter {
        self.clone()
    }
    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }
    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, EmptyNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Stored<()> {
        let bytes = snapshot.into_inner();
        self.count = bytes.try_into().map_or(0, u64::from_be_bytes);
        self.last = meta.last_log_id;
        self.members = meta.last_membership.clone();
        Ok(())
    }
    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        Ok(None)
    }
}

/// Everybody, once everybody is there.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<BTreeMap<u64, Raft<Types>>>>);

/// The way to one of them.
struct Wire {
    room: Room,
    target: u64,
}

impl Wire {
    fn there<E: std::error::Error>(&self) -> Called<Raft<Types>, E> {
        let found = lock(&self.room.0).get(&self.target).cloned();
        found.ok_or_else(|| RPCError::Unreachable(Unreachable::new(&std::io::Error::other("not there yet"))))
    }
}

impl RaftNetworkFactory<Types> for Room {
    type Network = Wire;
    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Wire {
        Wire {
            room: self.clone(),
            target,
        }
    }
}

impl RaftNetwork<Types> for Wire {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Called<AppendEntriesResponse<u64>> {
        let answer = self.there()?.append_entries(rpc).await;
        answer.map_err(|error| RPCError::RemoteError(openraft::error::RemoteError::new(self.target, error)))
    }
    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Called<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>> {
        let answer = self.there()?.install_snapshot(rpc).await;
        answer.map_err(|error| RPCError::RemoteError(openraft::error::RemoteError::new(self.target, error)))
    }
    async fn vote(&mut self, rpc: VoteRequest<u64>, _: RPCOption) -> Called<VoteResponse<u64>> {
        let answer = self.there()?.vote(rpc).await;
        answer.map_err(|error| RPCError::RemoteError(openraft::error::RemoteError::new(self.target, error)))
    }
}

pub struct Openraft {
    runtime: Runtime,
    nodes: Vec<Raft<Types>>,
}

impl Openraft {
    pub fn new() -> anyhow::Result<Openraft> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("making a runtime")?;
        let nodes = runtime.block_on(async {
            let config = Config {
                heartbeat_interval: 500,
                election_timeout_min: 1500,
                election_timeout_max: 3000,
                snapshot_policy: SnapshotPolicy::Never,
                ..Config::default()
            };
            let config = Arc::new(config.validate().context("openraft's configuration")?);
            let room = Room::default();
            let mut nodes = Vec::new();
            for id in 0..3 {
                let node = Raft::new(
                    id,
                    config.clone(),
                    room.clone(),
                    MemoryLog::default(),
                    Counter::default(),
                )
                .await
                .context("making a node of openraft")?;
                lock(&room.0).insert(id, node.clone());
                nodes.push(node);
            }
            let members: BTreeMap<u64, EmptyNode> = (0..3).map(|id| (id, EmptyNode {})).collect();
            nodes[0]
                .initialize(members)
                .await
                .context("openraft's first membership")?;
            let begin = Instant::now();
            while nodes[0].current_leader().await != Some(0) {
                if begin.elapsed() > Duration::from_secs(10) {
                    bail!("no node of openraft led within 10 s");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(nodes)
        })?;
        Ok(Openraft { runtime, nodes })
    }
}

impl Core for Openraft {
    fn name(&self) -> &'static str {
        "openraft 0.9.25"
    }

    fn commit(&mut self, count: u64) -> anyhow::Result<Duration> {
        let command = [&COMMAND.0[..], &COMMAND.1[..]].concat();
        self.runtime.block_on(async {
            let mut last = (0, 0);
            let begin = Instant::now();
            for index in 0..count {
                let answer = self.nodes[0].client_write(command.clone()).await;
                let answered = answer.context("a write to openraft")?.data;
                if index == 0 {
                    last.0 = answered;
                }
                last.1 = answered;
            }
            let elapsed = begin.elapsed();
            ensure!(
                last.1 - last.0 == count - 1,
                "openraft applied other commands than it was given"
            );
            Ok(elapsed)
        })
    }
}

impl Drop for Openraft {
    fn drop(&mut self) {
        self.runtime.block_on(async {
            for node in &self.nodes {
                // It ends with the runtime anyhow.
                let _ = node.shutdown().await;
            }
        });
    }
}
