//! A client that waits: asks one thing, or several, and turns its node until the answers are there.

use std::{fmt, time::Duration};

use anyhow::Context;
use dataplane_quorum::{
    client::{Ask, Client, ClientOptions, Route, Ticket, Verdict},
    guarantees::Keeps,
};
use dataplane_waist::{Clock, Effects, Instant, MemoryLog, MonotonicClock, Node, Port};
use dataplane_wire::quorum::{reply::Outcome, request::Command, status::Status};

use super::{file::Cluster, port};

/// Status questions to all nodes, and the command itself.
const IN_FLIGHT_MAX: usize = 64;

/// A cluster, spoken to.
pub struct Session<'a> {
    pub cluster: &'a Cluster,
    /// How the cluster keeps what it acknowledges, as found.
    pub keeps: Keeps,
    node: Node<Box<dyn Port>, MemoryLog, Client>,
    clock: MonotonicClock,
    deadline: Instant,
    timeout: Duration,
}

/// What the cluster answered, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Value(Vec<u8>),
    Absent,
    Mismatch(Vec<u8>),
    Entries {
        entries: Vec<(Vec<u8>, Vec<u8>)>,
        more: bool,
    },
    Refused(u8),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The question, or the machine it was asked on, is wrong.
    Wrong(anyhow::Error),
    /// Nobody answered in time who could; what was tried.
    NoQuorum(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Wrong(error) => write!(f, "{error:#}"),
            Failure::NoQuorum(what) => f.write_str(what),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Wrong(error)
    }
}

impl<'a> Session<'a> {
    /// Finds somebody of the cluster, and makes sure that it is the cluster that the file means.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn open(
        cluster: &'a Cluster,
        key_file: Option<&std::path::Path>,
        timeout: Duration,
    ) -> Result<Session<'a>, Failure> {
        let key = port::key(cluster, None, key_file)?;
        let opened = port::open_client(cluster, key.as_ref())?;
        let limits = cluster.limits();
        let options = ClientOptions {
            in_flight_max: IN_FLIGHT_MAX,
            ..ClientOptions::new(opened.peers, &limits, rand::random())
        };
        let client = Client::new(options).context("the cluster file makes no client")?;
        let effects = Effects::with_capacity(4 * IN_FLIGHT_MAX, 4 * IN_FLIGHT_MAX * limits.frame_bytes_max);
        let clock = MonotonicClock::new();
        let mut session = Session {
            cluster,
            keeps: Keeps::Durable,
            node: Node::with_effects(opened.port, MemoryLog::new(), client, effects),
            deadline: clock.now() + timeout,
            timeout,
            clock,
        };
        let first = session.statuses(timeout, |known_count| known_count > 0)?;
        let Some(status) = first.into_iter().find_map(|(_, status)| status) else {
            return Err(session.nobody("nobody answered"));
        };
        let keeps = Keeps::ALL
            .into_iter()
            .find(|&keeps| cluster.number(keeps) == status.cluster);
        session.keeps = keeps.ok_or_else(|| {
            anyhow::anyhow!(
                "node {} belongs to cluster {:#018x}, and the cluster file describes {:#018x} ({}): another cluster, or \
                 another name, other voters, quorums or frame-bytes; use the file that the replicas were started with",
                status.node,
                status.cluster,
                cluster.number(Keeps::Durable),
                cluster.name
            )
        })?;
        // Who answered knows better than the order of the file; it may be the only one that runs.
        let node = status.leader.unwrap_or(status.node);
        session.node.protocol_mut().believe(node);
        Ok(session)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn ask(&mut self, command: &Command<'_>, route: Route) -> Result<Answer, Failure> {
        let ask = Ask {
            command: *command,
            route,
            deadline: self.deadline,
        };
        let ticket = self
            .node
            .protocol_mut()
            .ask(&ask)
            .map_err(|error| Failure::Wrong(error.into()))?;
        loop {
            let mut answer = None;
            while self.take(&mut |taken, verdict| {
                if taken == ticket {
                    answer = Some(owned(verdict));
                }
            }) {}
            match answer {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(may_be_done)) => {
                    return Err(self.nobody(match may_be_done {
                        true => "it is NOT KNOWN whether it was done, or will be: no quorum answered",
                        false => "nothing was done: no quorum answered",
                    }));
                }
                None => self.turn_until_verdict()?,
            }
        }
    }

    /// What the nodes say about themselves: as many as answer within `limit`, or until `enough` of them have.
    ///
    /// # Errors
    /// [`Failure::Wrong`].
    pub fn statuses(
        &mut self,
        limit: Duration,
        enough: impl Fn(usize) -> bool,
    ) -> Result<Vec<(u32, Option<Status>)>, Failure> {
        let deadline = self.deadline.min(self.clock.now() + limit);
        let mut asked: Vec<(Ticket, u32, Option<Status>)> = Vec::new();
        for &node in self.cluster.nodes.keys() {
            let ask = Ask {
                command: Command::Status,
                route: Route::Node(node),
                deadline,
            };
            let ticket = self
                .node
                .protocol_mut()
                .ask(&ask)
                .map_err(|error| Failure::Wrong(error.into()))?;
            asked.push((ticket, node, None));
        }
        let mut open_count = asked.len();
        let mut known_count = 0;
        while open_count > 0 && !enough(known_count) {
            self.turn_until_verdict()?;
            while self.take(&mut |ticket, verdict| {
                let Some((.., status)) = asked.iter_mut().find(|(asked, ..)| *asked == ticket) else {
                    return;
                };
                open_count -= 1;
                if let Verdict::Answered(Outcome::Value(bytes)) = verdict
                    && let Ok(parsed) = Status::parse(bytes)
                {
                    *status = Some(parsed);
                    known_count += 1;
                }
            }) {}
        }
        Ok(asked.into_iter().map(|(_, node, status)| (node, status)).collect())
    }

    fn take(&mut self, visit: &mut dyn FnMut(Ticket, Verdict<'_>)) -> bool {
        self.node.protocol_mut().take(visit)
    }

    fn turn_until_verdict(&mut self) -> anyhow::Result<()> {
        // Every request has a deadline, so there will be one.
        self.node
            .run_watched(&self.clock, &mut |node| node.protocol().has_verdict())
            .context("speaking to the cluster")
    }

    fn nobody(&self, what: &str) -> Failure {
        let mut text = format!("{what} within {}", humantime::format_duration(self.timeout));
        for (node, tried) in self.node.protocol().tried() {
            let address = self
                .cluster
                .nodes
                .get(&node)
                .map(|address| address.to_string())
                .unwrap_or_default();
            let said = match (tried.answered_count, tried.not_leader_count, tried.busy_count) {
                (0, ..) => "no answer; does it run, and with this key and cluster file?".to_owned(),
                (answered, 0, 0) => format!("{answered} answers"),
                (answered, not_leader, 0) => format!("{answered} answers, {not_leader} of them that it does not lead"),
                (answered, not_leader, busy) => format!(
                    "{answered} answers, {not_leader} of them that it does not lead, {busy} that it has no room"
                ),
            };
            text += &format!("\n  node {node} ({address}): asked {} times, {said}", tried.sent_count);
        }
        Failure::NoQuorum(text)
    }
}

/// The answer; else whether it may have been done.
fn owned(verdict: Verdict<'_>) -> Result<Answer, bool> {
    match verdict {
        Verdict::Answered(outcome) => Ok(match outcome {
            Outcome::Done => Answer::Done,
            Outcome::Value(value) => Answer::Value(value.to_vec()),
            Outcome::Absent => Answer::Absent,
            Outcome::Mismatch(value) => Answer::Mismatch(value.to_vec()),
            Outcome::Entries(entries) => Answer::Entries {
                entries: entries
                    .iter()
                    .map(|(key, value)| (key.to_vec(), value.to_vec()))
                    .collect(),
                more: entries.more(),
            },
            Outcome::Refused { reason } => Answer::Refused(reason),
            Outcome::NotLeader { .. } | Outcome::Busy | Outcome::Opened { .. } | Outcome::Expired => {
                unreachable!("the client acts on {outcome:?} itself")
            }
        }),
        Verdict::Expired { may_be_done } | Verdict::TimedOut { may_be_done } => Err(may_be_done),
    }
}
