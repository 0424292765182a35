//! What the experiments in virtual time have in common: a cluster with a leader that is at rest, callers beside it, and rows
//! that say that nobody looked at a clock.

use std::{collections::BTreeMap, io, time::Duration};

use anyhow::bail;
use dataplane_kv::StoreOptions;
use dataplane_quorum::{
    Config, Limits, ReadMode, Timing,
    client::{ClientOptions, ClientTiming},
    guarantees::{Guarantees, Keeps},
};
use dataplane_sim::{DiskOptions, HostId, HostOptions, Latency, LinkOptions, PortOptions, SimTime};
use dataplane_waist::Peer;
use dataplane_wire::quorum::members::Members;

use crate::{
    caller::{Caller, Kind, Load},
    experiment::Lab,
    measure::{QUANTILES, Recorder},
    record::{Better, Metric, ModeRecord, Row, Validity},
    sim_cluster::{ClusterOptions, SimCluster},
};

/// The name that rows in virtual time have where others name what moved their bytes.
pub const BACKEND: &str = "sim";

/// No timer of these ends while something is measured, and every frame that is seen is one of the requests': heartbeats
/// come once a minute, and nothing is taken for lost that took less than a second.
pub const SILENT: Timing = Timing {
    heartbeat: Duration::from_secs(60),
    election_min: Duration::from_secs(150),
    election_max: Duration::from_secs(300),
    retransmit: Duration::from_secs(1),
    drift_ratio: 0.01,
};

/// Of a turn: the least that the simulator lets one take. Everything else that hosts do is free.
pub const TURN: SimTime = SimTime::from_ns(1);

/// Requests before anything is counted: they take the general path and open the session.
const WARM_UP_OPS: u64 = 32;

/// Bytes of each value, as in `quorum-ladder`.
const VALUE_BYTES: usize = 36;

/// A cluster to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// Who votes: the first so many nodes, and the quorums.
    pub members: Members,
    /// All links, those of clients included.
    pub link: LinkOptions,
    /// How long a sync takes.
    pub sync: Latency,
    /// The replicas' timers.
    pub timing: Timing,
    /// How reads are made linearizable.
    pub reads: ReadMode,
    /// How many callers.
    pub callers_count: u32,
    /// The most that each has under way.
    pub in_flight_max: usize,
}

impl Setup {
    /// How many replicas.
    pub fn replicas_count(&self) -> u32 {
        self.members.count()
    }

    /// The host of a caller.
    pub fn caller(&self, index: u32) -> HostId {
        HostId(self.replicas_count() + index)
    }

    /// Starts the cluster, lets it elect a leader, and lets the first caller warm it up until nothing is under way.
    ///
    /// # Errors
    /// An invariant that does not hold, or no leader.
    pub fn start(&self) -> anyhow::Result<SimCluster<Caller>> {
        let replicas_count = self.replicas_count();
        let host = HostOptions {
            port: PortOptions {
                batch_frames_max: 64,
                ..PortOptions::default()
            },
            disk: DiskOptions {
                sync: self.sync,
                reorders: true,
            },
            turn: TURN,
            frame: SimTime::ZERO,
            ..HostOptions::default()
        };
        let options = ClusterOptions {
            seed: self.seed,
            replicas_count,
            hosts: vec![host; (replicas_count + self.callers_count) as usize],
            link: self.link,
            store: StoreOptions::default(),
        };
        let setup = *self;
        let mut cluster = SimCluster::new(
            &options,
            move |node, seed| setup.config(node, seed),
            move |_, seed| setup.make_caller(seed),
        );
        let patience = SimTime::from_ns(self.timing.election_max.as_nanos() as u64 * 20);
        let is_ready = |cluster: &SimCluster<Caller>| {
            let leader = cluster.leader();
            leader.is_some_and(|leader| leader.commit_end() == leader.window().end())
        };
        if !cluster.run_until(patience, |cluster, _| is_ready(cluster))? {
            bail!("no replica became the leader");
        }
        let warm_up = Load {
            kind: Kind::Put,
            in_flight: 1,
            pause: Duration::ZERO,
            ops_count: WARM_UP_OPS,
        };
        self.call(&mut cluster, 0, warm_up)?;
        // Acknowledgements that nobody waited for arrive, too.
        let rest = SimTime::from_ns(self.timing.retransmit.as_nanos() as u64);
        let until = cluster.sim.now() + rest;
        cluster.run_until(until, |_, _| false)?;
        Ok(cluster)
    }

    /// Lets a caller ask until all is answered.
    ///
    /// # Errors
    /// An invariant that does not hold, an odd answer, or no answer at all.
    pub fn call(&self, cluster: &mut SimCluster<Caller>, index: u32, load: Load) -> anyhow::Result<()> {
        let host = self.caller(index);
        cluster.with_client(host, |caller, now| caller.begin(now, load));
        while !cluster.client(host).is_done() {
            // Every request has a deadline, so this ends.
            if cluster.step(SimTime::FOREVER)?.is_none() {
                bail!("the cluster fell silent, and not everything was answered");
            }
        }
        let caller = cluster.client(host);
        if let Some(odd) = &caller.odd {
            bail!("{odd}");
        }
        if caller.lost_count > 0 {
            bail!("{} requests were not answered before their deadline", caller.lost_count);
        }
        Ok(())
    }

    fn config(&self, node: u32, seed: u64) -> Config {
        let others = (0..self.replicas_count()).filter(|&other| other != node);
        Config {
            cluster: 7,
            node,
            peers: others.map(|other| (other, Peer(other))).collect(),
            members: self.members,
            reads: self.reads,
            timing: self.timing,
            limits: Limits::SMALL,
            seed,
            mutation: None,
        }
    }

    fn make_caller(&self, seed: u64) -> io::Result<Caller> {
        let nodes = (0..self.replicas_count()).map(|node| (node, Peer(node)));
        let mut options = ClientOptions::new(nodes.collect(), &Limits::SMALL, seed);
        options.in_flight_max = self.in_flight_max;
        // Longer than any way there and back.
        let far = Duration::from_nanos(self.link.latency.min.as_ns()) * 16;
        options.timing = ClientTiming {
            retry_first: ClientTiming::LOCAL.retry_first.max(far),
            retry_min: ClientTiming::LOCAL.retry_min.max(far),
            retry_max: ClientTiming::LOCAL.retry_max.max(far * 4),
            pause: ClientTiming::LOCAL.pause,
        };
        Caller::new(options, VALUE_BYTES).map_err(io::Error::other)
    }

    /// What an answer to a write means, in a line beside its latency.
    pub fn guarantee(&self) -> String {
        Guarantees::of(Keeps::Durable, self.members, self.reads, &self.timing).survival()
    }
}

/// What a row in virtual time says of its run.
#[derive(Clone, Copy, Debug)]
pub struct Happened {
    /// Virtual time.
    pub elapsed: SimTime,
    /// A hash of everything that happened.
    pub event_hash: u64,
    /// How much happened.
    pub events_count: u64,
}

/// A row in the making.
#[derive(Debug)]
pub struct Simulated {
    row: Row,
}

impl Simulated {
    /// What `cluster` came to, at this point of the axes. `since` is when, in virtual time, measuring began.
    pub fn new(
        lab: &Lab<'_>,
        experiment: &str,
        axis: BTreeMap<String, String>,
        seed: u64,
        cluster: &SimCluster<Caller>,
        since: SimTime,
    ) -> Simulated {
        let sim = &cluster.sim;
        let what = Happened {
            elapsed: sim.now().saturating_since(since),
            event_hash: sim.hash().value(),
            events_count: sim.events_count(),
        };
        let mut simulated = Simulated::of(lab, experiment, axis, seed, what);
        simulated.put(
            "invariant_checks",
            cluster.checks_count() as f64,
            "count",
            Better::Neither,
        );
        simulated
    }

    /// What something in virtual time came to.
    pub fn of(lab: &Lab<'_>, experiment: &str, axis: BTreeMap<String, String>, seed: u64, what: Happened) -> Simulated {
        let facts = [
            (
                "time",
                "virtual: every figure follows from the seed and the figures of what is simulated".to_owned(),
            ),
            ("event_hash", format!("{:016x}", what.event_hash)),
            ("events", what.events_count.to_string()),
        ];
        let elapsed_s = what.elapsed.as_ns() as f64 / 1e9;
        let mut simulated = Simulated::by(BACKEND, lab, (experiment, axis), seed, elapsed_s);
        simulated.row.facts = facts.map(|(name, fact)| (name.to_owned(), fact)).into();
        simulated
    }

    /// What `backend` says, of so much virtual time.
    pub fn by(
        backend: &str,
        lab: &Lab<'_>,
        (experiment, axis): (&str, BTreeMap<String, String>),
        seed: u64,
        elapsed_s: f64,
    ) -> Simulated {
        let row = Row {
            experiment: experiment.to_owned(),
            backend: backend.to_owned(),
            mode: ModeRecord::Simulated,
            axis,
            round: 0,
            twin: false,
            seed,
            at_s: lab.run_started.elapsed().as_secs_f64(),
            elapsed_s,
            latency: None,
            service: None,
            schedule_lag: None,
            metrics: BTreeMap::new(),
            series: Vec::new(),
            facts: BTreeMap::new(),
            validity: Validity::Valid,
        };
        Simulated { row }
    }

    /// Adds reply times, and their exact ends: a histogram rounds.
    pub fn latencies(&mut self, latencies_ns: impl Iterator<Item = u64> + Clone) {
        let mut recorder = Recorder::new();
        latencies_ns.clone().for_each(|ns| recorder.record(ns));
        if let (Some(min), Some(max)) = (latencies_ns.clone().min(), latencies_ns.max()) {
            self.put("latency_min", min as f64, "ns", Better::Lower);
            self.put("latency_max", max as f64, "ns", Better::Lower);
            self.row.latency = Some(recorder.distribution(&QUANTILES));
        }
    }

    /// Adds reply times that are recorded already.
    pub fn latency(&mut self, recorder: &Recorder) {
        self.row.latency = Some(recorder.distribution(&QUANTILES));
    }

    /// It is one of several rounds.
    pub fn round(&mut self, round: u32) {
        self.row.round = round;
    }

    /// Adds a figure.
    pub fn put(&mut self, name: &str, value: f64, unit: &str, better: Better) {
        let unit = unit.to_owned();
        self.row.metrics.insert(name.to_owned(), Metric { value, unit, better });
    }

    /// Adds something that is no figure.
    pub fn fact(&mut self, name: &str, fact: impl Into<String>) {
        self.row.facts.insert(name.to_owned(), fact.into());
    }

    /// The row.
    pub fn into_row(self) -> Row {
        self.row
    }
}

/// A row in virtual time with nothing but these axes and metrics, for tests of claims.
#[cfg(test)]
pub fn row_of(axis: &[(&str, &str)], metrics: &[(&str, f64)]) -> Row {
    let metric = |value| Metric {
        value,
        unit: "count".to_owned(),
        better: Better::Neither,
    };
    Row {
        experiment: String::new(),
        backend: BACKEND.to_owned(),
        mode: ModeRecord::Simulated,
        axis: axis
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        round: 0,
        twin: false,
        seed: 1,
        at_s: 0.0,
        elapsed_s: 0.0,
        latency: None,
        service: None,
        schedule_lag: None,
        metrics: metrics
            .iter()
            .map(|(name, value)| ((*name).to_owned(), metric(*value)))
            .collect(),
        series: Vec::new(),
        facts: BTreeMap::new(),
        validity: Validity::Valid,
    }
}

#[cfg(test)]
mod tests {
    use dataplane_quorum::majorities;

    use super::*;

    const ONE_WAY: SimTime = SimTime::from_us(25);
    const SYNC: SimTime = SimTime::from_us(200);
    /// Longer than a leader waits before it asks why nobody answers, and no multiple of it.
    const PAUSE: Duration = Duration::from_micros(7_300);
    const PUTS_COUNT: u64 = 100;

    /// What each put of a client that rests before it takes, and the frames that all hosts sent meanwhile.
    fn puts_after_rests(timing: Timing) -> (Vec<Duration>, u64) {
        let setup = Setup {
            seed: 5,
            members: majorities(0b111),
            link: LinkOptions {
                latency: Latency::fixed(ONE_WAY),
                ..LinkOptions::default()
            },
            sync: Latency::fixed(SYNC),
            timing,
            reads: ReadMode::Index,
            callers_count: 1,
            in_flight_max: 1,
        };
        let mut cluster = setup.start().expect("a leader");
        let before_count = cluster.sim.counts().sent_count;
        let load = Load {
            kind: Kind::Put,
            in_flight: 1,
            pause: PAUSE,
            ops_count: PUTS_COUNT,
        };
        setup.call(&mut cluster, 0, load).expect("answers");
        let frames_count = cluster.sim.counts().sent_count - before_count;
        let done = &cluster.client(setup.caller(0)).done;
        (done.iter().map(|done| done.latency()).collect(), frames_count)
    }

    /// Client to leader, leader to follower, and both ways back; one sync, because leader and follower write at the same time.
    fn is_two_round_trips_and_a_sync(latency: &Duration) -> bool {
        let exact_ns = 4 * ONE_WAY.as_ns() + SYNC.as_ns();
        // A turn takes a nanosecond, and a heartbeat's may come first.
        (exact_ns..exact_ns + 16).contains(&(latency.as_nanos() as u64))
    }

    #[test]
    fn a_put_after_a_rest_takes_two_round_trips_one_sync_and_six_frames() {
        let timing = Timing {
            retransmit: Timing::LOCAL.retransmit,
            ..SILENT
        };
        let (latencies, frames_count) = puts_after_rests(timing);
        assert_eq!(latencies.len() as u64, PUTS_COUNT);
        assert!(latencies.iter().all(is_two_round_trips_and_a_sync), "{latencies:?}");
        // Request, two entries, two acknowledgements, answer.
        assert_eq!(frames_count, 6 * PUTS_COUNT);
    }

    #[test]
    fn heartbeats_between_puts_delay_none_of_them() {
        let (latencies, frames_count) = puts_after_rests(Timing::LOCAL);
        assert!(latencies.iter().all(is_two_round_trips_and_a_sync), "{latencies:?}");
        let elapsed = PAUSE * PUTS_COUNT as u32 + latencies.iter().sum::<Duration>();
        let rounds_count = elapsed.as_nanos() / Timing::LOCAL.heartbeat.as_nanos() + 1;
        // Each to two followers, and two answers.
        let heartbeat_frames_count = 4 * rounds_count as u64;
        assert!(
            (6 * PUTS_COUNT..=6 * PUTS_COUNT + heartbeat_frames_count).contains(&frames_count),
            "{frames_count} frames, at most {heartbeat_frames_count} of them heartbeats'"
        );
    }
}
