//! One cluster's life: it elects a leader, a client writes by a schedule, the leader is killed or stopped, and what the
//! cluster does about it is timed from the moment of the signal.
//!
//! ```text
//!            quiet time            signal    a follower     a new leader    first commit
//!   settled ─────────────────────────▶│──────suspects it──────is there─────acknowledged──▶ time
//!            elections here are       │◀─ detection ─▶│            │              │
//!            false alarms             │◀──────── election ────────▶│              │
//!                                     │◀──────────────── recovery ───────────────▶│
//! ```

use std::{path::Path, time::Duration};

use anyhow::Context;
use dataplane_quorum::client::ClientTiming;
use dataplane_waist::Clock;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use super::{Arm, REPLICAS_COUNT, VALUE_BYTES};
use crate::{
    experiment::Lab,
    host::{self, MachineClock, Seat},
    measure::Recorder,
    replicas::{
        Arrivals, FanOut, Ground, Happened, Manner, Network, Observer, OpenClient, OpenOptions, ReplicaRole, Replicas,
        timing_of,
    },
};

/// A cluster that does not come to rest within this and five of the longest election time-outs is taken as it is: what it
/// did until then is counted.
const SETTLE_MAX: Duration = Duration::from_millis(300);
/// The same for a cluster that has just been started: its disk may still be writing the logs for the first time.
const START_MAX: Duration = Duration::from_secs(2);
/// A fail-over that takes longer than this is lost.
const FAILOVER_MAX: Duration = Duration::from_secs(8);
/// How often the client looks at what was told of elections while nothing wakes it.
const LOOK: Duration = Duration::from_millis(2);

/// What was seen of one arm so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Signal to the first suspicion by another replica.
    pub detection: Recorder,
    /// Signal to the moment at which another replica leads.
    pub election: Recorder,
    /// Signal to the first answer that acknowledges something and comes from another replica.
    pub recovery: Recorder,
    /// The longest that a write of the schedule waited, from its intended send time.
    pub unavailability: Recorder,
    /// Signals after which a fail-over was timed.
    pub failovers_count: u64,
    /// Signals that met a replica that had lost the lead a moment before; nothing was timed.
    pub beside_count: u64,
    /// Fail-overs during whose signal an election was under way already: they have no detection.
    pub unclean_count: u64,
    /// Clusters that found no leader, or did not come to rest, in time.
    pub unsettled_count: u64,
    /// Time in which the leader was well and the cluster settled.
    pub quiet_ns: u64,
    /// Suspicions of a leader that was well, in that time.
    pub false_alarms_count: u64,
    /// Changes of leader in that time.
    pub depositions_count: u64,
    /// Writes acknowledged, and looked for afterwards.
    pub checked_count: u64,
    /// Writes acknowledged that could not be looked for, because nobody answered.
    pub unchecked_count: u64,
    /// Those that were looked for and not there.
    pub lost_count: u64,
    /// Writes without an answer.
    pub unanswered_count: u64,
    /// Reports of elections that did not come through.
    pub missed_events_count: u64,
    /// Clusters started.
    pub clusters_count: u64,
    /// How the replicas of the last one ran.
    pub facts: std::collections::BTreeMap<String, String>,
}

/// Why a cluster's life is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As many fail-overs as were asked for, or one was lost.
    Done,
    /// It did not come to rest.
    Unsettled,
}

/// Starts a cluster and puts it through at most `failovers_max` fail-overs; begins none after `until`.
pub(super) fn live(
    lab: &Lab<'_>,
    arm: &Arm,
    failovers_max: u64,
    until: std::time::Instant,
    rng: &mut Pcg64Mcg,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut observer = Observer::open()?;
    let manner = Manner {
        fan_out: FanOut::default(),
        heartbeat: Some(arm.heartbeat),
        scheduler: arm.scheduler,
        observer: Some(observer.address()?),
        ..Manner::default()
    };
    // Where a real-time replica runs is the kernel's choice: it looks for a CPU without another one of its kind.
    let seat = Seat {
        cpu: None,
        spins: false,
        is_shared: true,
    };
    let folder = lab.folder.path().join("logs");
    let replicas = Replicas::start_as(
        arm.backend.name,
        (&Ground::Loopback, Network::default()),
        &[seat; REPLICAS_COUNT],
        manner,
        |node| role(&arm.log, &folder, node),
    )?;
    tally.clusters_count += 1;
    let seed = rng.random();
    // A thread of its own: its priority dies with it, and the next cluster's processes do not inherit it.
    let lived = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut life = Life {
                lab,
                arm,
                replicas: &replicas,
                observer: &mut observer,
                rng,
                tally,
                facts: host::settle("client", seat),
            };
            life.run(failovers_max, until, seed)
        });
        client
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the client's thread panicked")))
    });
    tally.facts.extend(replicas.facts());
    drop(replicas);
    let _ = std::fs::remove_dir_all(folder);
    tally.missed_events_count += observer.missed_count;
    lived.with_context(|| format!("the client over {}", arm.backend.name))
}

fn role(log: &str, folder: &Path, node: usize) -> ReplicaRole {
    match log {
        super::MEMORY => ReplicaRole::Memory,
        engine => ReplicaRole::Durable(folder.join(format!("node-{node}")), engine.to_owned()),
    }
}

/// A client looks for the new leader about as fast as the replicas look for the old one's end. It backs off to ten
/// milliseconds at most, or to two heartbeats: otherwise a write would wait for its own timer, long after there is a leader.
fn client_timing(heartbeat: Duration) -> ClientTiming {
    let retry_min = heartbeat.min(Duration::from_millis(10));
    let retry_max = (retry_min * 2).max(Duration::from_millis(10));
    ClientTiming {
        retry_first: retry_max,
        retry_min,
        retry_max,
        pause: retry_min / 2,
    }
}

struct Life<'a, 'lab> {
    lab: &'a Lab<'lab>,
    arm: &'a Arm,
    replicas: &'a Replicas,
    observer: &'a mut Observer,
    rng: &'a mut Pcg64Mcg,
    tally: &'a mut Tally,
    facts: std::collections::BTreeMap<String, String>,
}

impl Life<'_, '_> {
    fn run(&mut self, failovers_max: u64, until: std::time::Instant, seed: u64) -> anyhow::Result<()> {
        self.tally.facts.append(&mut self.facts);
        let mut client = OpenClient::open(
            self.arm.backend,
            &self.replicas.endpoints,
            OpenOptions {
                period: self.arm.period(),
                arrivals: Arrivals::Periodic,
                value_bytes: VALUE_BYTES,
                timing: client_timing(self.arm.heartbeat),
                seed,
            },
        )?;
        client.schedule(true);
        for index in 0..failovers_max {
            let settle_max = if index == 0 { START_MAX } else { SETTLE_MAX };
            let end = self.failover(&mut client, settle_max)?;
            if end.is_some() || self.lab.interrupted() || std::time::Instant::now() >= until {
                self.tally.unsettled_count += u64::from(end == Some(End::Unsettled));
                break;
            }
        }
        if !self.lab.interrupted() {
            match client.check(self.lab.stop)? {
                Some(kept) => {
                    self.tally.checked_count += kept.checked_count;
                    self.tally.lost_count += kept.lost_count;
                }
                // Cut short, or nobody keeps the lead for long enough to be asked.
                None => self.tally.unchecked_count += client.answers.len() as u64,
            }
        }
        self.tally.unanswered_count += client.unanswered_count;
        Ok(())
    }

    /// Lets the cluster settle and rest, sends the signal, and times what follows. `None`: the next one can come.
    fn failover(&mut self, client: &mut OpenClient, settle_max: Duration) -> anyhow::Result<Option<End>> {
        let stop = self.lab.stop;
        if !self.settle(client, settle_max)? {
            return Ok(Some(End::Unsettled));
        }
        let quiet_begin_ns = now_ns();
        let quiet = self.arm.quiet_min() + self.arm.quiet_min().mul_f64(self.rng.random::<f64>());
        client.run(after(quiet_begin_ns, quiet), LOOK, stop, |_| Ok(false))?;
        if self.lab.interrupted() {
            return Ok(Some(End::Done));
        }
        self.observer.listen()?;
        let Some(leader) = self.observer.leader() else {
            // It is between two leaders, although nobody has done anything to it.
            self.count_quiet(quiet_begin_ns, now_ns());
            return Ok(None);
        };
        let victim = leader.node;
        let elsewhere_before = client.acknowledged_elsewhere(victim);
        let signal_ns = now_ns();
        match self.arm.how.as_str() {
            super::KILL => self.replicas.kill(victim as usize)?,
            _ => self.replicas.pause(victim as usize, true)?,
        }
        let mut recovered_ns = None;
        client.run(after(signal_ns, FAILOVER_MAX), LOOK, stop, |client| {
            if client.acknowledged_elsewhere(victim) > elsewhere_before {
                recovered_ns = Some(now_ns());
            }
            Ok(recovered_ns.is_some())
        })?;
        // What was due meanwhile is still being answered.
        if let Some(recovered_ns) = recovered_ns {
            client.run(after(recovered_ns, FAILOVER_MAX), LOOK, stop, |client| {
                Ok(client.is_answered_until(recovered_ns))
            })?;
        }
        self.observer.listen()?;
        self.count_quiet(quiet_begin_ns, signal_ns);
        let ended = match self.arm.how.as_str() {
            super::KILL => Some(End::Done),
            _ => {
                self.replicas.pause(victim as usize, false)?;
                None
            }
        };
        if self.lab.interrupted() {
            return Ok(Some(End::Done));
        }
        self.time(client, victim, leader.term, signal_ns, recovered_ns);
        Ok(match recovered_ns {
            Some(_) => ended,
            None => Some(End::Done),
        })
    }

    /// Waits until there is a leader, the client has its answers, and no election was told of for as long as the longest
    /// time-out; `settle_max` and five of the longest time-outs at most.
    fn settle(&mut self, client: &mut OpenClient, settle_max: Duration) -> anyhow::Result<bool> {
        let election_max = timing_of(self.arm.heartbeat).election_max;
        let rest = election_max + Duration::from_millis(5);
        let begin_ns = now_ns();
        let give_up_ns = after(begin_ns, settle_max + election_max * 5);
        let answers_before = client.answers.len();
        let Life { lab, observer, .. } = self;
        let mut settled = false;
        client.run(give_up_ns, LOOK, lab.stop, |client| {
            observer.listen()?;
            let last_ns = observer.events.iter().map(|event| event.at_ns).max();
            let now = now_ns();
            let is_quiet = last_ns.is_some_and(|last_ns| now >= after(last_ns, rest)) && now >= after(begin_ns, rest);
            let is_served = client.answers.len() > answers_before && client.under_way_count() <= IN_FLIGHT_SETTLED;
            settled = is_quiet && is_served && observer.leader().is_some();
            Ok(settled)
        })?;
        // A leader that answers is worth timing, even if the others will not leave it alone.
        let is_led = observer.leader().is_some() && client.answers.len() > answers_before;
        if !settled && is_led {
            self.tally.unsettled_count += 1;
            // What happened meanwhile happened to a leader that nobody had done anything to.
            let from_ns = after(begin_ns, rest);
            self.count_quiet(from_ns, now_ns());
        }
        Ok(settled || is_led)
    }

    fn count_quiet(&mut self, begin_ns: u64, end_ns: u64) {
        self.tally.quiet_ns += end_ns.saturating_sub(begin_ns);
        self.tally.false_alarms_count += self.observer.count(Happened::Stood, begin_ns, end_ns);
        self.tally.depositions_count += self.observer.count(Happened::Led, begin_ns, end_ns);
    }

    fn time(&mut self, client: &OpenClient, victim: u32, term: u64, signal_ns: u64, recovered_ns: Option<u64>) {
        let tally = &mut *self.tally;
        let first = |what: Happened, from_ns: u64| {
            let events = self.observer.events.iter();
            events
                .filter(|event| event.what == what && event.node != victim && event.at_ns >= from_ns)
                .map(|event| event.at_ns)
                .min()
        };
        // Told of only now: another one led before the signal.
        let is_beside = self.observer.events.iter().any(|event| {
            event.what == Happened::Led && event.node != victim && event.term > term && event.at_ns < signal_ns
        });
        if is_beside {
            tally.beside_count += 1;
            return;
        }
        tally.failovers_count += 1;
        let put = |into: &mut Recorder, at_ns: Option<u64>| match at_ns {
            Some(at_ns) => into.record(at_ns.saturating_sub(signal_ns)),
            None => into.record_lost(),
        };
        let election_max = timing_of(self.arm.heartbeat).election_max;
        let before_ns = signal_ns.saturating_sub(election_max.as_nanos() as u64);
        match self.observer.count(Happened::Stood, before_ns, signal_ns) {
            0 => put(&mut tally.detection, first(Happened::Stood, signal_ns)),
            _ => tally.unclean_count += 1,
        }
        put(&mut tally.election, first(Happened::Led, signal_ns));
        put(&mut tally.recovery, recovered_ns);
        let longest_ns = recovered_ns.map(|recovered_ns| {
            let waited = client.answers.iter().rev();
            waited
                .take_while(|answer| answer.answered_ns >= signal_ns)
                .filter(|answer| answer.intended_ns <= recovered_ns)
                .map(|answer| answer.latency_ns())
                .max()
                .unwrap_or(0)
        });
        match longest_ns {
            Some(longest_ns) => tally.unavailability.record(longest_ns),
            None => tally.unavailability.record_lost(),
        }
    }
}

/// Writes that may be under way in a cluster that is called settled: what a slow disk keeps waiting, not a backlog.
const IN_FLIGHT_SETTLED: usize = 16;

fn now_ns() -> u64 {
    MachineClock.now().as_ns()
}

fn after(at_ns: u64, time: Duration) -> u64 {
    at_ns + time.as_nanos() as u64
}
