//! What came of a run, and the metrics that scenarios, claims and papers name.

use std::sync::atomic::AtomicBool;

use dataplane_sim::{
    SimTime,
    packet::{Computing, Counters, DepthSample, Grouping, PacketSim},
};

use super::{
    hosts::Hosts,
    setup::{FlowKind, Setup},
};

/// A question, from the asking to the last byte of the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryRecord {
    /// Which query.
    pub query: u32,
    /// When it was asked.
    pub begun: SimTime,
    /// When all was there.
    pub ended: SimTime,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the network counted.
    pub counters: Counters,
    /// A hash of all that happened: the same on every machine.
    pub hash: u64,
    /// Virtual time at the end.
    pub ended: SimTime,
    /// Finished rounds of queries, in the order of their ends.
    pub rounds: Vec<QueryRecord>,
    /// Of each finished round: did a flow of it time out?
    pub timed_out: Vec<bool>,
    /// Finite flows: how long each took, in the order of their ends.
    pub completions: Vec<SimTime>,
    /// When the last finite flow had arrived; zero if none did.
    pub ended_last: SimTime,
    /// Finite flows and rounds that were not finished at the horizon.
    pub unfinished_count: u64,
    /// Of each endless flow: bytes a second, from [`Setup::measured_from`] to the end.
    pub endless_bytes_per_sec: Vec<f64>,
    /// Bytes of all answers and finite flows that arrived, and the time that they took.
    pub answered_bytes: u64,
    /// Retransmission timers that fired.
    pub timeouts_count: u64,
    /// Data segments that were sent, and those of them that were sent again.
    pub segments_count: u64,
    /// Segments sent again.
    pub retransmissions_count: u64,
    /// The mean of the flows' smoothed round trips at the end, in ns.
    pub srtt_ns_mean: f64,
    /// The queue before the watched link, over time; with endless flows from [`Setup::measured_from`] on.
    pub depths: Vec<DepthSample>,
    /// The most packets that waited before the watched link.
    pub queue_packets_max: u32,
    /// It was ended from outside.
    pub is_interrupted: bool,
}

/// Samples of a queue over a run.
const SAMPLES_COUNT: u64 = 20_000;

impl Setup {
    /// Simulates, in one thread.
    pub fn run(&self, stop: &AtomicBool) -> Outcome {
        self.run_with(
            Computing {
                threads_count: 1,
                grouping: Grouping::One,
            },
            SimTime::ZERO,
            stop,
        )
    }

    /// Simulates. The queue is sampled every `sample_every`, or as suits the horizon if that is zero.
    pub fn run_with(&self, computing: Computing, sample_every: SimTime, stop: &AtomicBool) -> Outcome {
        let mut sim = PacketSim::new(&self.topology, computing, self.seed, |hosts| Hosts::new(self, hosts));
        let every = match sample_every {
            SimTime::ZERO => SimTime::from_ps((self.horizon.as_ps() / SAMPLES_COUNT).clamp(1_000_000, 1_000_000_000)),
            every => every,
        };
        sim.sample(self.watched_link, every, SAMPLES_COUNT as usize);
        let endless: Vec<u32> = self.flows_where(|kind| matches!(kind, FlowKind::Endless { .. }));
        let received = |sim: &PacketSim<Hosts>| -> Vec<u64> {
            let of = |&flow: &u32| {
                let to = self.flows[flow as usize].to;
                sim.edge_of(to)
                    .receiver(flow)
                    .map_or(0, |receiver| receiver.received_bytes())
            };
            endless.iter().map(of).collect()
        };
        let is_done = |sim: &PacketSim<Hosts>| sim.edges().all(|edge| edge.unfinished_count == 0);
        let has_finite = !is_done(&sim);
        let mut before = vec![0; endless.len()];
        let mut is_interrupted = false;
        if !endless.is_empty() {
            is_interrupted = sim.run_until(self.measured_from, stop) == dataplane_sim::packet::Outcome::Interrupted;
            before = received(&sim);
        }
        // With endless flows there is always something due, so it is asked now and then whether the others are done.
        let slice = SimTime::from_ps((self.horizon.as_ps() / 2_000).max(1));
        while !is_interrupted && sim.now() < self.horizon {
            let until = if endless.is_empty() {
                self.horizon
            } else {
                (sim.now() + slice).min(self.horizon)
            };
            match sim.run_until(until, stop) {
                dataplane_sim::packet::Outcome::Idle => break,
                dataplane_sim::packet::Outcome::Interrupted => is_interrupted = true,
                dataplane_sim::packet::Outcome::Time => (),
            }
            if has_finite && is_done(&sim) {
                break;
            }
        }
        let measured_s = sim.now().saturating_since(self.measured_from).as_ps() as f64 / 1e12;
        let rates = received(&sim)
            .iter()
            .zip(&before)
            .map(|(after, before)| (after - before) as f64 / measured_s)
            .collect();
        self.outcome(&sim, rates, is_interrupted)
    }

    fn flows_where(&self, is_wanted: impl Fn(FlowKind) -> bool) -> Vec<u32> {
        let numbered = (0_u32..).zip(self.flows.iter());
        numbered
            .filter(|(_, flow)| is_wanted(flow.kind))
            .map(|(number, _)| number)
            .collect()
    }

    fn outcome(&self, sim: &PacketSim<Hosts>, endless_bytes_per_sec: Vec<f64>, is_interrupted: bool) -> Outcome {
        let mut rounds: Vec<QueryRecord> = sim.edges().flat_map(|edge| edge.rounds.iter().copied()).collect();
        rounds.sort_by_key(|round| (round.ended, round.query));
        let mut ended: Vec<(SimTime, u32)> = sim.edges().flat_map(|edge| edge.ended.iter().copied()).collect();
        ended.sort_unstable();
        let completions = ended.iter().map(|&(at, flow)| match self.flows[flow as usize].kind {
            FlowKind::Finite { start, .. } => at.saturating_since(start),
            FlowKind::Answer { .. } | FlowKind::Endless { .. } => SimTime::ZERO,
        });
        let completions = completions.collect();
        let bytes_of = |flow: u32| match self.flows[flow as usize].kind {
            FlowKind::Finite { bytes, .. } => bytes,
            FlowKind::Answer { .. } | FlowKind::Endless { .. } => 0,
        };
        let finite_bytes: u64 = ended.iter().map(|&(_, flow)| bytes_of(flow)).sum();
        let round_bytes = |round: &QueryRecord| {
            let query = &self.queries[round.query as usize];
            query.answer_bytes * u64::from(query.flows_count)
        };
        let senders: Vec<_> = (0_u32..)
            .zip(self.flows.iter())
            .filter_map(|(number, flow)| sim.edge_of(flow.from).sender(number))
            .collect();
        let timed: Vec<f64> = senders
            .iter()
            .map(|sender| sender.srtt_ns() as f64)
            .filter(|ns| *ns > 0.0)
            .collect();
        // Endless flows begin with a burst that says nothing of what they come to.
        let from = if endless_bytes_per_sec.is_empty() {
            SimTime::ZERO
        } else {
            self.measured_from
        };
        let samples = sim.series().flat_map(|series| series.samples.iter().copied());
        let depths = samples.filter(|sample| sample.at >= from).collect();
        let sum =
            |of: fn(&dataplane_transports::SenderStats) -> u64| senders.iter().map(|sender| of(sender.stats())).sum();
        Outcome {
            ended_last: ended.last().map_or(SimTime::ZERO, |&(at, _)| at),
            counters: sim.counters(),
            hash: sim.hash().value(),
            ended: sim.now(),
            timed_out: self.timed_out(sim, &rounds),
            answered_bytes: finite_bytes + rounds.iter().map(round_bytes).sum::<u64>(),
            rounds,
            completions,
            unfinished_count: sim.edges().map(|edge| edge.unfinished_count).sum(),
            endless_bytes_per_sec,
            timeouts_count: sum(|stats| stats.timeouts_count.into()),
            segments_count: sum(|stats| stats.segments_count),
            retransmissions_count: sum(|stats| stats.retransmissions_count),
            srtt_ns_mean: timed.iter().sum::<f64>() / timed.len().max(1) as f64,
            depths,
            queue_packets_max: sim.link_counters(self.watched_link).queue_packets_max,
            is_interrupted,
        }
    }

    /// Of each round, whether a timer of one of its flows fired between its beginning and its end.
    fn timed_out(&self, sim: &PacketSim<Hosts>, rounds: &[QueryRecord]) -> Vec<bool> {
        let mut by_query: Vec<Vec<SimTime>> = vec![Vec::new(); self.queries.len()];
        for &(at, flow) in sim.edges().flat_map(|edge| &edge.timeouts) {
            if let FlowKind::Answer { query } = self.flows[flow as usize].kind {
                by_query[query as usize].push(at);
            }
        }
        by_query.iter_mut().for_each(|times| times.sort_unstable());
        let is_hit = |round: &QueryRecord| {
            let times = &by_query[round.query as usize];
            let next = times.partition_point(|at| *at < round.begun);
            times.get(next).is_some_and(|at| *at <= round.ended)
        };
        rounds.iter().map(is_hit).collect()
    }
}

impl Outcome {
    /// How long each finished round took, in ns.
    pub fn rounds_ns(&self) -> Vec<u64> {
        self.rounds
            .iter()
            .map(|round| round.ended.saturating_since(round.begun).as_ns())
            .collect()
    }

    /// The metrics that [`crate::scenario::METRICS`] names, as far as the run has them.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let mut metrics = Vec::new();
        let mut put = |name, value: Option<f64>| {
            if let Some(value) = value {
                metrics.push((name, value));
            }
        };
        let rounds_ms: Vec<f64> = self.rounds_ns().iter().map(|ns| *ns as f64 / 1e6).collect();
        let flows_ms: Vec<f64> = self.completions.iter().map(|span| span.as_ns() as f64 / 1e6).collect();
        let depths: Vec<f64> = self
            .depths
            .iter()
            .map(|sample| f64::from(sample.packets_count))
            .collect();
        let share = |part: u64, all: u64| (all > 0).then(|| 100.0 * part as f64 / all as f64);
        put("goodput_mbit_per_sec", self.goodput_mbit_per_sec(&rounds_ms));
        put("query_ms_mean", mean(&rounds_ms));
        put("query_ms_p50", quantile(&rounds_ms, 0.5));
        put("query_ms_p95", quantile(&rounds_ms, 0.95));
        put("query_ms_p99", quantile(&rounds_ms, 0.99));
        let hit_count = self.timed_out.iter().filter(|is_hit| **is_hit).count();
        put(
            "timeout_queries_percent",
            share(hit_count as u64, self.timed_out.len() as u64),
        );
        let endless: f64 = self.endless_bytes_per_sec.iter().sum();
        put(
            "long_goodput_mbit_per_sec",
            (!self.endless_bytes_per_sec.is_empty()).then_some(endless * 8.0 / 1e6),
        );
        put("loss_percent", share(self.counters.drops.count(), self.segments_count));
        put("queue_packets_p50", quantile(&depths, 0.5));
        put("queue_packets_p99", quantile(&depths, 0.99));
        put("queue_packets_max", Some(f64::from(self.queue_packets_max)));
        put(
            "rtt_us_mean",
            (self.srtt_ns_mean > 0.0).then_some(self.srtt_ns_mean / 1e3),
        );
        put("fct_ms_p50", quantile(&flows_ms, 0.5));
        put("fct_ms_p99", quantile(&flows_ms, 0.99));
        put("fct_ms_max", quantile(&flows_ms, 1.0));
        put("fairness", jain(&self.endless_bytes_per_sec));
        metrics
    }

    /// One of the metrics.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics()
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// Of queries, over the time that they took; of finite flows, over the whole run.
    fn goodput_mbit_per_sec(&self, rounds_ms: &[f64]) -> Option<f64> {
        let seconds = match rounds_ms.is_empty() {
            true => self.ended.as_ns() as f64 / 1e9,
            false => rounds_ms.iter().sum::<f64>() / 1e3,
        };
        (self.answered_bytes > 0).then(|| self.answered_bytes as f64 * 8.0 / seconds / 1e6)
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The smallest value that so large a part of the values does not exceed.
pub(super) fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Jain, Chiu and Hawe, DEC TR-301, 1984: 1 if all have the same, 1/n if one has all.
fn jain(shares: &[f64]) -> Option<f64> {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), share| {
        (sum + share, squares + share * share)
    });
    (shares.len() > 1 && squares > 0.0).then(|| sum * sum / (shares.len() as f64 * squares))
}
