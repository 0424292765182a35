//! A client that writes by a schedule, whatever became of earlier writes, follows the cluster to a new leader, and keeps book
//! of every answer: what was acknowledged can be asked for afterwards.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, bail};
use dataplane_quorum::client::{Ask, Client, ClientOptions, ClientTiming, Route, Ticket, Verdict};
use dataplane_waist::{Clock, Effects, Instant, MemoryLog, Node, Port, Protocol};
use dataplane_wire::quorum::{reply::Outcome, request::Command};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{
    Ground, Network, limits,
    port::{self, Opened},
};
use crate::{backends::BackEnd, host::MachineClock, place::Endpoint};

/// What is written, how often, and how a client finds a new leader.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Time between two writes, on average.
    pub period: Duration,
    /// How the writes follow each other.
    pub arrivals: Arrivals,
    /// Bytes of each value, at least 4.
    pub value_bytes: usize,
    /// When a write that was not answered is sent again, and where to.
    pub timing: ClientTiming,
    /// What numbers are drawn from.
    pub seed: u64,
}

/// How writes follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// At equal distances.
    Periodic,
    /// As a Poisson process: many independent clients.
    Poisson,
}

impl Arrivals {
    /// The time to the next one.
    pub fn gap(self, period: Duration, rng: &mut Pcg64Mcg) -> Duration {
        match self {
            Arrivals::Periodic => period,
            // 1 − u is above zero.
            Arrivals::Poisson => period.mul_f64(-(1.0 - rng.random::<f64>()).ln()),
        }
    }
}

/// A write that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which: they are numbered from 0 in the order of the schedule.
    pub index: u32,
    /// When it was to be sent.
    pub intended_ns: u64,
    /// When its answer was there.
    pub answered_ns: u64,
}

impl Answer {
    /// From the intended send time.
    pub fn latency_ns(&self) -> u64 {
        self.answered_ns.saturating_sub(self.intended_ns)
    }
}

/// What of the acknowledged writes the cluster still has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Acknowledged writes that were asked for.
    pub checked_count: u64,
    /// Those that are not there, or not as they were written.
    pub lost_count: u64,
}

/// The client. Its times are [`MachineClock`]'s.
pub struct OpenClient {
    node: Node<Box<dyn Port>, MemoryLog, Client>,
    options: OpenOptions,
    rng: Pcg64Mcg,
    value: Vec<u8>,
    /// When the next write is due; `None` while the schedule rests.
    next_ns: Option<u64>,
    next_index: u32,
    /// By ticket: index and intended send time.
    under_way: BTreeMap<Ticket, (u32, u64)>,
    /// All answers so far.
    pub answers: Vec<Answer>,
    /// Writes that nobody answered before their deadline; whether they were done is not known.
    pub unanswered_count: u64,
    /// The last read that was not a write's answer: entries of a range.
    range: Option<Range>,
    reading: Option<Ticket>,
}

#[derive(Debug, Default)]
struct Range {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    more: bool,
}

/// A write is given up after this: longer than any fail-over that is measured.
const DEADLINE: Duration = Duration::from_secs(20);
/// Asks under way at once: about what is due in the longest outage that is measured. The schedule goes on counting when it is
/// reached; and a cluster that cannot keep a leader does not drown in what is sent again.
const IN_FLIGHT_MAX: usize = 128;
/// Entries of a range that fit a frame: 1472 bytes, 3 + 4 + 36 bytes each, with room to spare.
const RANGE_ENTRIES: u16 = 24;
/// How long reading back one frame's worth of entries may take.
const READ_MAX: Duration = Duration::from_secs(2);

impl OpenClient {
    /// A client, on loopback, of the replicas at `servers`, by node. Its schedule rests until [`OpenClient::schedule`].
    ///
    /// # Errors
    /// The port could not be opened.
    pub fn open(backend: &BackEnd, servers: &[Endpoint], options: OpenOptions) -> anyhow::Result<OpenClient> {
        let Opened { port, peers, .. } = port::open(
            backend,
            &Network::default(),
            None,
            &Ground::Loopback.client(),
            (servers, None, None),
        )?;
        let client = Client::new(ClientOptions {
            in_flight_max: IN_FLIGHT_MAX,
            timing: options.timing,
            ..ClientOptions::new(peers, &limits(port.caps().frame_bytes_max), options.seed)
        })
        .context("making the client")?;
        let effects = Effects::with_capacity(2 * IN_FLIGHT_MAX, 2 * IN_FLIGHT_MAX * 256);
        Ok(OpenClient {
            node: Node::with_effects(port, MemoryLog::new(), client, effects),
            rng: Pcg64Mcg::seed_from_u64(options.seed),
            value: vec![0x61; options.value_bytes],
            next_ns: None,
            next_index: 0,
            under_way: BTreeMap::new(),
            answers: Vec::new(),
            unanswered_count: 0,
            range: None,
            reading: None,
            options,
        })
    }

    /// Begins the schedule, or ends it.
    pub fn schedule(&mut self, runs: bool) {
        self.next_ns = runs.then(|| MachineClock.now().as_ns());
    }

    /// Takes `node` for the leader.
    pub fn believe(&mut self, node: u32) {
        self.node.protocol_mut().believe(node);
    }

    /// Answers that acknowledge something, by every node but `except`: neither "I do not lead" nor "no room".
    pub fn acknowledged_elsewhere(&self, except: u32) -> u64 {
        let tried = self.node.protocol().tried();
        tried
            .filter(|(node, _)| *node != except)
            .map(|(_, tried)| tried.answered_count - tried.not_leader_count - tried.busy_count)
            .sum()
    }

    /// Writes under way, and not answered.
    pub fn under_way_count(&self) -> usize {
        self.under_way.len()
    }

    /// Has every write that was intended before `at_ns` its answer?
    pub fn is_answered_until(&self, at_ns: u64) -> bool {
        self.next_ns.is_none_or(|next_ns| next_ns >= at_ns)
            && self.under_way.values().all(|(_, intended_ns)| *intended_ns >= at_ns)
    }

    /// Runs until `until_ns`, or until `enough` says so after a turn. `rest_max` bounds each rest, for those whose `enough`
    /// looks at something that does not wake this client.
    ///
    /// # Errors
    /// The port failed, or the cluster answered something that a put is not answered with.
    pub fn run(
        &mut self,
        until_ns: u64,
        rest_max: Duration,
        stop: &AtomicBool,
        mut enough: impl FnMut(&OpenClient) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        loop {
            let now = MachineClock.now();
            if now.as_ns() >= until_ns || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.send_due(now)?;
            self.node.turn(MachineClock.now()).context("turning the client")?;
            self.take_verdicts()?;
            if enough(self)? {
                return Ok(());
            }
            let wake_ns = self.node.protocol().wake_at().map(Instant::as_ns);
            let next_ns = [Some(until_ns), self.next_ns, wake_ns].into_iter().flatten().min();
            let rest_ns = next_ns.unwrap_or(until_ns).saturating_sub(MachineClock.now().as_ns());
            self.node
                .port_mut()
                .wait(Duration::from_nanos(rest_ns).min(rest_max))
                .context("waiting for an answer")?;
        }
    }

    fn send_due(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(intended_ns) = self.next_ns.filter(|next_ns| *next_ns <= now.as_ns()) {
            let key = self.next_index.to_be_bytes();
            self.value[..key.len()].copy_from_slice(&key);
            let ask = Ask {
                command: Command::Put {
                    key: &key,
                    value: &self.value,
                },
                route: Route::Leader,
                deadline: Instant::from_ns(intended_ns) + DEADLINE,
            };
            match self.node.protocol_mut().ask(&ask) {
                Ok(ticket) => self.under_way.insert(ticket, (self.next_index, intended_ns)),
                // It stays due, and its time counts from when it was.
                Err(dataplane_quorum::client::AskError::Full { .. }) => return Ok(()),
                Err(error) => return Err(error).context("asking"),
            };
            self.next_index += 1;
            let gap = self.options.arrivals.gap(self.options.period, &mut self.rng);
            self.next_ns = Some(intended_ns + gap.as_nanos() as u64);
        }
        Ok(())
    }

    fn take_verdicts(&mut self) -> anyhow::Result<()> {
        let answered_ns = MachineClock.now().as_ns();
        let OpenClient {
            node,
            under_way,
            answers,
            unanswered_count,
            range,
            reading,
            ..
        } = self;
        let mut odd = None;
        let mut visit = |ticket: Ticket, verdict: Verdict<'_>| {
            if *reading == Some(ticket) {
                *reading = None;
                if let Verdict::Answered(Outcome::Entries(entries)) = verdict {
                    *range = Some(Range {
                        entries: entries
                            .iter()
                            .map(|(key, value)| (key.to_vec(), value.to_vec()))
                            .collect(),
                        more: entries.more(),
                    });
                }
                return;
            }
            let Some((index, intended_ns)) = under_way.remove(&ticket) else {
                return;
            };
            match verdict {
                Verdict::Answered(Outcome::Done) => answers.push(Answer {
                    index,
                    intended_ns,
                    answered_ns,
                }),
                Verdict::Answered(outcome) => odd = Some(format!("{outcome:?}")),
                Verdict::Expired { .. } | Verdict::TimedOut { .. } => *unanswered_count += 1,
            }
        };
        while node.protocol_mut().take(&mut visit) {}
        match odd {
            Some(outcome) => bail!("a put was answered with {outcome}"),
            None => Ok(()),
        }
    }

    /// Reads everything back, linearizably, and looks for each write that was acknowledged. `None`: nobody answered in time,
    /// so it is not known.
    ///
    /// # Errors
    /// The port failed.
    pub fn check(&mut self, stop: &AtomicBool) -> anyhow::Result<Option<Kept>> {
        self.schedule(false);
        // What is under way takes the room that reading needs.
        let drained_ns = (MachineClock.now() + READ_MAX).as_ns();
        self.run(drained_ns, READ_MAX, stop, |client| Ok(client.under_way.is_empty()))?;
        if !self.under_way.is_empty() {
            return Ok(None);
        }
        let mut present: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut from = vec![0];
        loop {
            let Some(range) = self.read(&from, stop)? else {
                return Ok(None);
            };
            if let Some((last, _)) = range.entries.last() {
                from = last.clone();
                from.push(0);
            }
            let more = range.more && !range.entries.is_empty();
            present.extend(range.entries);
            if !more {
                break;
            }
        }
        let is_kept = |answer: &&Answer| {
            let key = answer.index.to_be_bytes();
            present
                .get(&key[..])
                .is_some_and(|value| value.len() == self.options.value_bytes && value.starts_with(&key))
        };
        let checked_count = self.answers.len() as u64;
        Ok(Some(Kept {
            checked_count,
            lost_count: checked_count - self.answers.iter().filter(is_kept).count() as u64,
        }))
    }

    fn read(&mut self, from: &[u8], stop: &AtomicBool) -> anyhow::Result<Option<Range>> {
        let now = MachineClock.now();
        let ask = Ask {
            command: Command::Range {
                from,
                end: &[],
                count_max: RANGE_ENTRIES,
            },
            route: Route::Leader,
            deadline: now + READ_MAX,
        };
        let ticket = self.node.protocol_mut().ask(&ask).context("reading back")?;
        self.reading = Some(ticket);
        self.range = None;
        let until_ns = (now + READ_MAX).as_ns() + 100_000_000;
        self.run(until_ns, Duration::from_millis(10), stop, |client| {
            Ok(client.reading.is_none())
        })?;
        Ok(self.range.take())
    }
}
