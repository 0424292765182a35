//! The cluster file: what the replicas and clients of one cluster have in common.
//!
//! ```text
//! # three replicas on this machine
//! cluster = example
//! node 1 = 127.0.0.1:7101
//! node 2 = 127.0.0.1:7102
//! node 3 = 127.0.0.1:7103
//! ```
//!
//! What decides whether two replicas may work together, that is all but the addresses, is also made into a number, which
//! stands in every frame and in every file of the log: replicas that differ in it do not hear each other, whoever is wrong.

use std::{collections::BTreeMap, fmt, fs, net::SocketAddr, path::Path};

use dataplane_kv::StoreOptions;
use dataplane_quorum::{Limits, NODES_MAX, guarantees::Keeps};
use dataplane_waist::middleware::TAG_BYTES;
use dataplane_wire::{
    frame,
    quorum::{KEY_BYTES_MAX, VALUE_BYTES_MAX, members::Members, reply},
};
use sha2::{Digest, Sha256};

use crate::advice::advice;

/// The largest UDP payload that leaves an Ethernet port in one piece: an MTU of 1500 bytes without the headers of IPv4
/// (20) and UDP (8).
const FRAME_BYTES_DEFAULT: usize = 1472;
/// Below, hardly any value would fit beside the longest key.
const FRAME_BYTES_MIN: usize = 576;
/// The largest UDP payload over IPv4.
const FRAME_BYTES_MAX: usize = 65_507;
/// A longer file is not a cluster file.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What a cluster file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// What people call it.
    pub name: String,
    /// Every node that is or may become a member, by number.
    pub nodes: BTreeMap<u32, SocketAddr>,
    /// Who votes at first, and the quorums.
    pub members: Members,
    /// The largest UDP payload, the authentication's code included.
    pub frame_bytes: usize,
}

/// What is wrong with a cluster file.
#[derive(Debug, PartialEq, Eq)]
pub struct ClusterError {
    /// Counted from 1; 0 for the file as a whole.
    line: usize,
    what: String,
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

impl std::error::Error for ClusterError {}

fn wrong<T>(line: usize, what: impl Into<String>) -> Result<T, ClusterError> {
    Err(ClusterError {
        line,
        what: what.into(),
    })
}

impl Cluster {
    /// Reads a cluster file.
    ///
    /// # Errors
    /// It cannot be read, or is not one: the line, what was seen, what is allowed.
    pub fn read(path: &Path) -> anyhow::Result<Cluster> {
        use anyhow::Context;
        let shown = path.display();
        let len_bytes = fs::metadata(path)
            .with_context(|| format!("looking for the cluster file {shown}; docs/example.cluster is one"))?
            .len();
        anyhow::ensure!(
            len_bytes <= FILE_BYTES_MAX,
            "the cluster file {shown} has {len_bytes} bytes, and none needs more than {FILE_BYTES_MAX}; is it the right file?"
        );
        let text = fs::read_to_string(path).with_context(|| format!("reading the cluster file {shown}"))?;
        Cluster::parse(&text).with_context(|| format!("the cluster file {shown}"))
    }

    /// Parses a cluster file's text.
    ///
    /// # Errors
    /// As [`Cluster::read`].
    pub fn parse(text: &str) -> Result<Cluster, ClusterError> {
        let mut settings: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        let mut nodes: BTreeMap<u32, SocketAddr> = BTreeMap::new();
        for (index, raw) in text.lines().enumerate() {
            let line = index + 1;
            let content = raw.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            let Some((name, value)) = content.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
                return wrong(line, format!("{content:?} is not of the form NAME = VALUE"));
            };
            if let Some(number) = name.strip_prefix("node").map(str::trim) {
                add_node(&mut nodes, line, number, value)?;
                continue;
            }
            if !SETTINGS.contains(&name) {
                let known = ["node N"].into_iter().chain(SETTINGS.iter().copied());
                return wrong(line, format!("no setting is called {name:?}; {}", advice(name, known)));
            }
            if let Some((before, _)) = settings.insert(name, (line, value)) {
                return wrong(
                    line,
                    format!("{name} is set a second time; it was set in line {before}"),
                );
            }
        }
        finish(&settings, nodes)
    }

    /// The cluster's number in frames and files.
    pub fn number(&self, keeps: Keeps) -> u64 {
        self.hash(keeps.name())
    }

    /// The cluster's number in the keys of its frames, which a client must know before it knows how the cluster keeps.
    pub fn key_number(&self) -> u64 {
        self.hash("key")
    }

    fn hash(&self, purpose: &str) -> u64 {
        let text = format!("dplab cluster 1\n{}purpose = {purpose}\n", self.agreed());
        let hash = Sha256::digest(text.as_bytes());
        let (first, _) = hash.split_first_chunk::<8>().expect("32 bytes");
        u64::from_be_bytes(*first)
    }

    /// What all replicas must agree in, for good, as lines of text.
    pub fn agreed(&self) -> String {
        let Members {
            elect_count,
            commit_count,
            ..
        } = self.members;
        format!(
            "cluster = {}\nvoters = {}\nelect = {elect_count}\ncommit = {commit_count}\nframe-bytes = {}\n",
            self.name,
            node_list(self.members.voters),
            self.frame_bytes
        )
    }

    /// The bounds of this cluster's replicas.
    pub fn limits(&self) -> Limits {
        Limits {
            frame_bytes_max: self.frame_bytes - TAG_BYTES,
            ..Limits::SMALL
        }
    }

    /// The bounds of its store: whatever one frame holds, beside the longest key.
    pub fn store_options(&self) -> StoreOptions {
        let range_bytes_max = self.limits().frame_bytes_max - frame::HEADER_BYTES - reply::HEADER_BYTES;
        let value_bytes_max = range_bytes_max - reply::ENTRY_HEADER_BYTES - KEY_BYTES_MAX;
        StoreOptions {
            value_bytes_max: value_bytes_max.min(VALUE_BYTES_MAX),
            range_bytes_max,
            ..StoreOptions::default()
        }
    }

    /// Whether nobody outside this machine can be meant.
    pub fn is_local(&self) -> bool {
        self.nodes.values().all(|address| address.ip().is_loopback())
    }
}

/// Node numbers as people write them.
pub fn node_list(voters: u32) -> String {
    let numbers = (0..u32::BITS).filter(|node| voters >> node & 1 == 1);
    numbers.map(|node| node.to_string()).collect::<Vec<_>>().join(" ")
}

const SETTINGS: &[&str] = &["cluster", "voters", "elect", "commit", "frame-bytes"];

fn add_node(nodes: &mut BTreeMap<u32, SocketAddr>, line: usize, number: &str, value: &str) -> Result<(), ClusterError> {
    let node = node_number(line, number)?;
    let Ok(address) = value.parse::<SocketAddr>() else {
        return wrong(
            line,
            format!(
                "{value:?} is no address: write one like 127.0.0.1:7101 or [2001:db8::1]:7101; names are not looked up"
            ),
        );
    };
    if address.port() == 0 || address.ip().is_unspecified() {
        return wrong(
            line,
            format!("{address} cannot be sent to: name the host's address and a port"),
        );
    }
    if let Some((other, _)) = nodes.iter().find(|&(_, &known)| known == address) {
        return wrong(line, format!("node {node} has the address of node {other}, {address}"));
    }
    match nodes.insert(node, address) {
        Some(_) => wrong(
            line,
            format!("node {node} is named twice: every replica needs a number of its own, or two would vote as one"),
        ),
        None => Ok(()),
    }
}

fn node_number(line: usize, text: &str) -> Result<u32, ClusterError> {
    match text.parse::<u32>() {
        Ok(node) if (node as usize) < NODES_MAX => Ok(node),
        _ => wrong(
            line,
            format!("{text:?} is no node number: they go from 0 to {}", NODES_MAX - 1),
        ),
    }
}

fn finish(settings: &BTreeMap<&str, (usize, &str)>, nodes: BTreeMap<u32, SocketAddr>) -> Result<Cluster, ClusterError> {
    let Some(&(line, name)) = settings.get("cluster") else {
        return wrong(0, "it does not say `cluster = NAME`, which keeps two clusters apart");
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_name) {
        return wrong(line, format!("{name:?} is no name: 1 to 64 letters, digits, - and _"));
    }
    if nodes.is_empty() {
        return wrong(0, "it names no node: write lines like `node 1 = 127.0.0.1:7101`");
    }
    let voters = match settings.get("voters") {
        Some(&(line, value)) => {
            let mut voters = 0u32;
            for number in value.split([' ', ',']).filter(|number| !number.is_empty()) {
                let node = node_number(line, number)?;
                if !nodes.contains_key(&node) {
                    return wrong(line, format!("node {node} votes, and no line says its address"));
                }
                if voters & 1 << node != 0 {
                    return wrong(line, format!("node {node} is named twice"));
                }
                voters |= 1 << node;
            }
            voters
        }
        None => nodes.keys().fold(0, |voters, node| voters | 1 << node),
    };
    let majorities = dataplane_quorum::majorities(voters);
    let count = |name: &str, default: u8| match settings.get(name) {
        Some(&(line, value)) => value
            .parse::<u8>()
            .or_else(|_| wrong(line, format!("{value:?} is no number of replicas"))),
        None => Ok(default),
    };
    let members = Members {
        voters,
        elect_count: count("elect", majorities.elect_count)?,
        commit_count: count("commit", majorities.commit_count)?,
    };
    if !members.is_sound() {
        return wrong(
            0,
            format!(
                "{} voters with elect = {} and commit = {}: both must be 1 to {0}, elect + commit above {0}, and elect \
                 above half of it; otherwise a new leader may not know what the old one acknowledged",
                members.count(),
                members.elect_count,
                members.commit_count
            ),
        );
    }
    let frame_bytes = match settings.get("frame-bytes") {
        Some(&(line, value)) => match value.parse::<usize>() {
            Ok(bytes) if (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&bytes) => bytes,
            _ => {
                return wrong(
                    line,
                    format!(
                        "frame-bytes = {value:?}: {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX} are possible; what is above the \
                         network's MTU less 28 is sent in pieces, and lost with any one of them"
                    ),
                );
            }
        },
        None => FRAME_BYTES_DEFAULT,
    };
    let same_family =
        nodes.values().all(|address| address.is_ipv4()) || nodes.values().all(|address| address.is_ipv6());
    if !same_family {
        return wrong(
            0,
            "some nodes have IPv4 addresses and others IPv6: a replica has one socket, so choose one family",
        );
    }
    Ok(Cluster {
        name: name.to_owned(),
        nodes,
        members,
        frame_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str =
        "cluster = example\nnode 1 = 127.0.0.1:7101\nnode 2=127.0.0.1:7102 # two\n\nnode 3 = 127.0.0.1:7103\n";

    #[test]
    fn the_plain_file_is_three_voters_with_majorities() {
        let cluster = Cluster::parse(THREE).expect("sound");
        assert_eq!(cluster.nodes.len(), 3);
        assert_eq!(cluster.members, dataplane_quorum::majorities(0b1110));
        assert_eq!(node_list(cluster.members.voters), "1 2 3");
        assert!(cluster.is_local());
        dataplane_kv::Store::new(cluster.store_options()).expect("the store's bounds fit the frames");
    }

    #[test]
    fn every_size_of_frames_makes_a_store() {
        for bytes in [FRAME_BYTES_MIN, 1472, 8972, FRAME_BYTES_MAX] {
            let cluster = Cluster::parse(&format!("{THREE}frame-bytes = {bytes}\n")).expect("sound");
            dataplane_kv::Store::new(cluster.store_options()).expect("the store's bounds fit the frames");
        }
    }

    #[test]
    fn the_number_is_of_what_must_agree_and_of_nothing_else() {
        let number = |text: &str| Cluster::parse(text).expect("sound").number(Keeps::Durable);
        let plain = number(THREE);
        assert_eq!(
            plain,
            number(&format!("# a comment\n{THREE}voters = 3 2 1\nelect = 2\n"))
        );
        assert_eq!(plain, number(&THREE.replace("7102", "9102")), "addresses may change");
        assert_eq!(
            plain,
            number(&format!("{THREE}node 4 = 127.0.0.1:7104\nvoters = 1 2 3\n"))
        );
        for other in [
            THREE.replace("example", "other"),
            format!("{THREE}node 4 = 127.0.0.1:7104\n"),
            format!("{THREE}elect = 3\n"),
            format!("{THREE}frame-bytes = 8972\n"),
        ] {
            assert_ne!(plain, number(&other), "{other}");
        }
        let cluster = Cluster::parse(THREE).expect("sound");
        assert_ne!(plain, cluster.number(Keeps::Memory));
        assert_ne!(plain, cluster.key_number());
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, line, word) in [
            ("node 1 = 127.0.0.1:1\n", 0, "cluster = NAME"),
            ("cluster = a b\n", 1, "letters"),
            ("cluster = a\n", 0, "names no node"),
            ("cluster = a\nnode 1 = localhost:1\n", 2, "names are not looked up"),
            ("cluster = a\nnode 1 = 127.0.0.1:0\n", 2, "cannot be sent to"),
            ("cluster = a\nnode 1 = 0.0.0.0:7\n", 2, "cannot be sent to"),
            ("cluster = a\nnode 32 = 127.0.0.1:1\n", 2, "0 to 31"),
            (
                "cluster = a\nnode 1 = 127.0.0.1:1\nnode 1 = 127.0.0.1:2\n",
                3,
                "named twice",
            ),
            (
                "cluster = a\nnode 1 = 127.0.0.1:1\nnode 2 = 127.0.0.1:1\n",
                3,
                "address of node 1",
            ),
            ("cluster = a\ncluster = b\n", 2, "line 1"),
            ("cluster = a\nvoter = 1\n", 2, "did you mean voters"),
            ("cluster = a\nnode 1 127.0.0.1:1\n", 2, "NAME = VALUE"),
            ("cluster = a\nnode 1 = 127.0.0.1:1\nvoters = 1 2\n", 3, "no line says"),
            ("cluster = a\nnode 1 = 127.0.0.1:1\nelect = 2\n", 0, "elect = 2"),
            ("cluster = a\nnode 1 = 127.0.0.1:1\nelect = many\n", 3, "many"),
            ("cluster = a\nnode 1 = 127.0.0.1:1\nframe-bytes = 100\n", 3, "576"),
            ("cluster = a\nnode 1 = 127.0.0.1:1\nnode 2 = [::1]:1\n", 0, "one family"),
        ] {
            let error = Cluster::parse(text).expect_err(text);
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.what.contains(word), "{text}: {error}");
        }
    }
}
