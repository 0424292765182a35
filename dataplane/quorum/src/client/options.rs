//! What a client is told at its start, and what it refuses to ask.

use std::time::Duration;

use dataplane_waist::Peer;
use dataplane_wire::{
    frame,
    quorum::{
        KEY_BYTES_MAX, VALUE_BYTES_MAX, entries,
        request::{Command, Request},
    },
};

use crate::config::{Limits, NODES_MAX};

/// A client's settings.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The cluster's nodes, by number, with their places in our port.
    pub nodes: Vec<(u32, Peer)>,
    /// Timers.
    pub timing: ClientTiming,
    /// The most requests under way, and not taken yet; at most `session_replies`.
    pub in_flight_max: usize,
    /// The cluster's [`Limits::session_replies`]: requests further apart are not both remembered, so none are sent.
    pub session_replies: usize,
    /// The cluster's [`Limits::frame_bytes_max`].
    pub frame_bytes_max: usize,
    /// What numbers are drawn from. Two clients of one cluster must not have the same.
    pub seed: u64,
}

/// Timers of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientTiming {
    /// How long an answer may take before the first one was measured.
    pub retry_first: Duration,
    /// The shortest time after which a request is sent again, whatever was measured.
    pub retry_min: Duration,
    /// The longest, however often it was.
    pub retry_max: Duration,
    /// How long to let the cluster rest that has no leader, or no room; doubled a few times.
    pub pause: Duration,
}

impl ClientTiming {
    /// For hosts of one rack or one machine, with a disk behind them.
    pub const LOCAL: ClientTiming = ClientTiming {
        retry_first: Duration::from_millis(50),
        retry_min: Duration::from_millis(10),
        retry_max: Duration::from_millis(400),
        pause: Duration::from_millis(10),
    };
}

impl ClientOptions {
    /// One request at a time, of a cluster with these limits.
    pub fn new(nodes: Vec<(u32, Peer)>, limits: &Limits, seed: u64) -> ClientOptions {
        ClientOptions {
            nodes,
            timing: ClientTiming::LOCAL,
            in_flight_max: 1,
            session_replies: limits.session_replies,
            frame_bytes_max: limits.frame_bytes_max,
            seed,
        }
    }

    pub(super) fn check(&self) -> Result<(), ClientOptionsError> {
        let nodes = self.nodes.iter().map(|&(node, _)| node);
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            return Err(ClientOptionsError::NodesCount(self.nodes.len()));
        }
        for (index, node) in nodes.clone().enumerate() {
            if nodes.clone().take(index).any(|other| other == node) {
                return Err(ClientOptionsError::NodeTwice(node));
            }
        }
        let (in_flight_max, session_replies) = (self.in_flight_max, self.session_replies);
        if in_flight_max == 0 || in_flight_max > session_replies {
            return Err(ClientOptionsError::InFlight {
                in_flight_max,
                session_replies,
            });
        }
        let timing = &self.timing;
        let is_sound = !timing.retry_min.is_zero()
            && !timing.pause.is_zero()
            && timing.retry_min <= timing.retry_first
            && timing.retry_first <= timing.retry_max;
        match is_sound {
            true => Ok(()),
            false => Err(ClientOptionsError::Timing(self.timing)),
        }
    }

    /// Whether the cluster could take this command.
    pub(super) fn check_command(&self, command: &Command<'_>) -> Result<(), AskError> {
        let keys_and_values: (&[u8], [&[u8]; 2]) = match *command {
            Command::Put { key, value } | Command::Append { key, value } => (key, [value, &[]]),
            Command::CompareAndSwap { key, expected, value } => (key, [expected, value]),
            Command::Get { key } | Command::Delete { key } | Command::StaleGet { key } => (key, [&[], &[]]),
            Command::Range { from, end, count_max } | Command::StaleRange { from, end, count_max } => {
                if end.len() > KEY_BYTES_MAX {
                    return Err(AskError::Key { len_bytes: end.len() });
                }
                if count_max == 0 {
                    return Err(AskError::EmptyRange);
                }
                (from, [&[], &[]])
            }
            Command::Open => return Err(AskError::Open),
            Command::Reconfigure { members } if !members.is_sound() => return Err(AskError::UnsoundMembers),
            Command::Reconfigure { .. } | Command::Status => return Ok(()),
        };
        let (key, values) = keys_and_values;
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(AskError::Key { len_bytes: key.len() });
        }
        // The replicas pass an entry on behind the longest of their headers.
        let around_bytes = frame::HEADER_BYTES + entries::HEADER_BYTES + entries::ENTRY_HEADER_BYTES;
        let request = Request {
            client: 0,
            sequence: 0,
            command: *command,
        };
        let (len_bytes, len_bytes_max) = (around_bytes + request.len_bytes(), self.frame_bytes_max);
        if len_bytes > len_bytes_max || values.iter().any(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(AskError::TooLarge {
                len_bytes,
                len_bytes_max,
            });
        }
        Ok(())
    }
}

/// Why a client cannot be made of these options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientOptionsError {
    /// None, or more than a cluster can have.
    #[error("{0} nodes: a client needs 1 to {NODES_MAX}")]
    NodesCount(usize),
    /// A number twice.
    #[error("node {0} is named twice")]
    NodeTwice(u32),
    /// More requests under way than a session remembers the answers of.
    #[error("in_flight_max is {in_flight_max}: it must be 1 to session_replies, {session_replies}")]
    InFlight {
        /// What was asked for.
        in_flight_max: usize,
        /// The bound.
        session_replies: usize,
    },
    /// Timers that contradict each other.
    #[error("{0:?}: timers must be above zero, and retry_min <= retry_first <= retry_max")]
    Timing(ClientTiming),
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// As many as allowed are under way, or one of long ago is not answered yet.
    #[error("{in_flight_max} requests are under way, or one is very old: take a verdict first")]
    Full {
        /// The bound.
        in_flight_max: usize,
    },
    /// A key without bytes, or with too many.
    #[error("a key of {len_bytes} bytes; 1 to {KEY_BYTES_MAX} are allowed")]
    Key {
        /// How many.
        len_bytes: usize,
    },
    /// A request that does not fit a frame of this cluster.
    #[error(
        "the request fills a frame of {len_bytes} bytes, and this cluster's have {len_bytes_max} (values have at most {VALUE_BYTES_MAX}): store less under one key"
    )]
    TooLarge {
        /// The frame that a replica would send.
        len_bytes: usize,
        /// The cluster's bound.
        len_bytes_max: usize,
    },
    /// A range of at most no entries.
    #[error("a range of at most 0 entries asks for nothing")]
    EmptyRange,
    /// Sessions are the client's own business.
    #[error("a client opens its sessions itself")]
    Open,
    /// Members that could elect two leaders, or lose entries.
    #[error("these members' quorums do not intersect, or are larger than the members")]
    UnsoundMembers,
    /// The route names a node that the client does not know.
    #[error("node {node} is not one of the cluster's")]
    NoSuchNode {
        /// Its number.
        node: u32,
    },
}
