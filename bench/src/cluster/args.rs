//! What `dplab serve` and `dplab kv` may be told.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    Args, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use dataplane_quorum::ReadMode;
use dataplane_wal::Engine;

/// What `serve` takes.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The cluster file: who the replicas are (see docs/example.cluster)
    #[arg(long, value_name = "FILE")]
    pub cluster: PathBuf,
    /// Which of them this is
    #[arg(long, value_name = "N")]
    pub node: u32,
    /// Folder for what must survive; of this replica alone [default: dplab-data/CLUSTER/node-N]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Acknowledge from memory: faster, and what a commit quorum held is gone with its processes. All replicas alike;
    /// one that stops cannot come back and must be replaced
    #[arg(long)]
    pub memory: bool,
    /// How the log reaches the disk
    #[arg(long, value_name = "ENGINE", value_parser = engines(), default_value = "file", conflicts_with = "memory")]
    pub wal: Engine,
    /// Where to listen, if not at the address that the cluster file gives
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_address)]
    pub listen: Option<SocketAddr>,
    /// The cluster's key; needed unless all addresses are this machine's own. Only its owner may be able to read the file
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// How reads are made current
    #[arg(long, value_enum, default_value_t = Reads::Index)]
    pub reads: Reads,
    /// Stay on this CPU
    #[arg(long, value_name = "CPU")]
    pub cpu: Option<usize>,
    /// Never sleep: a CPU for this replica alone
    #[arg(long)]
    pub spin: bool,
    /// End with the process of this number, which has started this one
    #[arg(long, value_name = "PID", hide = true)]
    pub parent: Option<u32>,
}

/// How reads are made current.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reads {
    /// The leader asks a quorum; right whatever the clocks do
    Index,
    /// The leader relies on its lease; right while no clock runs 1 % faster than another
    Lease,
}

impl Reads {
    /// The replica's word for it.
    pub const fn mode(self) -> ReadMode {
        match self {
            Reads::Index => ReadMode::Index,
            Reads::Lease => ReadMode::Lease,
        }
    }
}

/// What `kv` takes.
#[derive(Debug, Args)]
pub struct KvArgs {
    /// The cluster file, as the replicas have it
    #[arg(long, value_name = "FILE")]
    pub cluster: PathBuf,
    /// The cluster's key, where the replicas have one
    #[arg(long, value_name = "FILE", global = true)]
    pub key_file: Option<PathBuf>,
    /// How long to try: 500ms, 5s, 1m
    #[arg(long, value_name = "TIME", value_parser = parse_timeout, default_value = "5s", global = true)]
    pub timeout: Duration,
    /// What to do
    #[command(subcommand)]
    pub command: KvCommand,
}

/// What to do with the store.
#[derive(Debug, Subcommand)]
pub enum KvCommand {
    /// Set a key to a value
    Put {
        /// 1 to 255 bytes
        key: String,
        /// As much as fits a frame of the cluster
        value: String,
    },
    /// Print a key's value
    Get {
        /// The key
        key: String,
        /// From this node, whatever it has applied so far: fast, and perhaps old
        #[arg(long, value_name = "NODE")]
        stale: Option<u32>,
    },
    /// Put bytes behind a key's value; a missing key counts as empty
    Append {
        /// The key
        key: String,
        /// The bytes
        value: String,
    },
    /// Compare and swap: set a key to NEW if it is OLD; prints what is there instead
    Cas {
        /// The key
        key: String,
        /// What must be there
        old: String,
        /// What will be there
        new: String,
    },
    /// Remove a key
    Delete {
        /// The key
        key: String,
    },
    /// Print keys and values in order, a tab between them; bytes that would break a line as \xNN
    Range {
        /// The first key
        from: String,
        /// Where to end, exclusive [default: behind the last key]
        to: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
        max: u64,
        /// From this node, whatever it has applied so far
        #[arg(long, value_name = "NODE")]
        stale: Option<u32>,
    },
    /// Show who votes, who leads, how far everybody is, and what the cluster promises
    Members,
    /// Let a node of the cluster file vote that runs already
    AddNode(ChangeArgs),
    /// Let a node vote no more
    RemoveNode(ChangeArgs),
}

/// A change of the members, by one.
#[derive(Clone, Copy, Debug, Args)]
pub struct ChangeArgs {
    /// The node's number
    pub node: u32,
    /// Votes that make a leader afterwards [default: a majority]
    #[arg(long, value_name = "COUNT")]
    pub elect: Option<u8>,
    /// Copies that make a commit afterwards [default: a majority]
    #[arg(long, value_name = "COUNT")]
    pub commit: Option<u8>,
}

fn engines() -> impl TypedValueParser<Value = Engine> {
    PossibleValuesParser::new(Engine::NAMED.map(Engine::name)).map(|name| {
        let known = Engine::NAMED.into_iter().find(|engine| engine.name() == name);
        known.expect("the parser lets nothing else through")
    })
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let parsed = text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
    parsed.ok_or_else(|| "write an address with its port, like 127.0.0.1:7101 or [::1]:7101".to_owned())
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 500ms or 5s"))?;
    let (min, max) = (Duration::from_millis(10), Duration::from_secs(3600));
    match (min..=max).contains(&timeout) {
        true => Ok(timeout),
        false => Err("a timeout is from 10ms to 1h".to_owned()),
    }
}
