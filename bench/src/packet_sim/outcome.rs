//! What came of a run, and the metrics that scenarios, claims and papers name.

use std::sync::atomic::AtomicBool;

use dataplane_sim::{
    SimTime,
    packet::{Computing, Counters, DepthSample, Grouping, PacketSim},
};

use crate::scenario::units::QuinnController;

use super::{
    hosts::{Hosts, Sending},
    observe::Observer,
    quinn::Payloads,
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

/// A window, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSample {
    /// When.
    pub at: SimTime,
    /// What its controller allows to be in flight.
    pub window_bytes: u64,
    /// Its controller is in slow start.
    pub is_slow_start: bool,
    /// Its smoothed round trip, 0 before the first.
    pub srtt_ns: u64,
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
    /// With endless flows: data segments and packets that were lost, from [`Setup::measured_from`] to the end.
    pub long_segments_and_losses: Option<(u64, u64)>,
    /// From the last endless flow's beginning to the end of the first window in which the flows' shares were about equal.
    pub converged: Option<SimTime>,
    /// The first endless flow's window over time, at every [`SLICES_COUNT`]th of the horizon.
    pub windows: Vec<WindowSample>,
    /// The median of the first endless flow's smoothed round trip, from [`Setup::measured_from`] on; 0 without one.
    pub long_srtt_ns_p50: f64,
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
    /// The queue before the watched link, over time: with queries while one is open, with endless flows from
    /// [`Setup::measured_from`] on.
    pub depths: Vec<DepthSample>,
    /// The most packets that waited before the watched link.
    pub queue_packets_max: u32,
    /// What must be known of a run with flows of quinn's.
    pub quinn: Option<&'static str>,
    /// It was ended from outside.
    pub is_interrupted: bool,
}

/// Samples of a queue over a run.
pub(super) const SAMPLES_COUNT: u64 = 20_000;
/// How often a run with endless flows is looked at.
pub const SLICES_COUNT: u64 = 2_000;
/// Shares are compared over so many slices: a fiftieth of the run.
const SHARE_SLICES_COUNT: u64 = SLICES_COUNT / 50;
/// Shares are about equal from this Jain index on: of two flows, the larger one has at most 1.6 times the smaller one's.
const CONVERGED_JAIN: f64 = 0.95;

impl Setup {
    /// Simulates, in one thread.
    pub fn run(&self, stop: &AtomicBool) -> Outcome {
        self.run_observed(&mut Observer::default(), stop)
    }

    /// The same, with somebody who looks.
    pub fn run_observed(&self, observer: &mut Observer, stop: &AtomicBool) -> Outcome {
        let computing = Computing {
            threads_count: 1,
            grouping: Grouping::One,
        };
        self.run_watched(computing, SimTime::ZERO, observer, stop)
    }

    /// Simulates. The queue is sampled every `sample_every`, or as suits the horizon if that is zero.
    pub fn run_with(&self, computing: Computing, sample_every: SimTime, stop: &AtomicBool) -> Outcome {
        self.run_watched(computing, sample_every, &mut Observer::default(), stop)
    }

    fn run_watched(
        &self,
        computing: Computing,
        sample_every: SimTime,
        observer: &mut Observer,
        stop: &AtomicBool,
    ) -> Outcome {
        let payloads = Payloads::default();
        let mut sim = PacketSim::new(&self.topology, computing, self.seed, |hosts| {
            Hosts::with_payloads(self, hosts, payloads.clone())
        });
        let endless: Vec<u32> = self.flows_where(|kind| matches!(kind, FlowKind::Endless { .. }));
        let every = match sample_every {
            SimTime::ZERO => {
                let even_ps = (self.horizon.as_ps() / SAMPLES_COUNT).max(1_000_000);
                // Endless flows fill the horizon; others are over long before, and a sample a second would see nothing.
                let most_ps = if endless.is_empty() { 1_000_000_000 } else { u64::MAX };
                SimTime::from_ps(even_ps.min(most_ps))
            }
            every => every,
        };
        sim.sample(self.watched_link, every, SAMPLES_COUNT as usize);
        let received = |sim: &PacketSim<Hosts>| -> Vec<u64> {
            let of = |&flow: &u32| {
                let to = self.flows[flow as usize].to;
                sim.edge_of(to).received_bytes(flow).unwrap_or(0)
            };
            endless.iter().map(of).collect()
        };
        let is_done = |sim: &PacketSim<Hosts>| sim.edges().all(|edge| edge.unfinished_count == 0);
        let has_finite = !is_done(&sim);
        let mut before = vec![0; endless.len()];
        let mut sent_and_lost_before = (0, 0);
        let (mut is_interrupted, mut is_idle) = (false, false);
        let mut watch = Watch::new(self, &endless);
        observer.begin(self, &mut sim, &payloads);
        // With endless flows there is always something due, so it is asked now and then whether the others are done.
        let slice = SimTime::from_ps((self.horizon.as_ps() / SLICES_COUNT).max(1));
        while !is_interrupted && sim.now() < self.horizon {
            let is_warm = endless.is_empty() || sim.now() >= self.measured_from;
            let until = match (endless.is_empty(), is_warm) {
                (true, _) => self.horizon,
                (false, true) => (sim.now() + slice).min(self.horizon),
                (false, false) => (sim.now() + slice).min(self.measured_from),
            };
            match observer.run_until(self, &mut sim, until, stop) {
                dataplane_sim::packet::Outcome::Idle => {
                    is_idle = true;
                    break;
                }
                dataplane_sim::packet::Outcome::Interrupted => is_interrupted = true,
                dataplane_sim::packet::Outcome::Time => (),
            }
            if !endless.is_empty() {
                let received = received(&sim);
                watch.windows.extend(self.window(&sim, endless[0]));
                watch.look(sim.now(), &received);
                if !is_warm && sim.now() >= self.measured_from {
                    before = received;
                    sent_and_lost_before = self.sent_and_lost(&sim);
                }
            }
            if is_warm && has_finite && is_done(&sim) {
                break;
            }
        }
        let measured_s = sim.now().saturating_since(self.measured_from).as_ps() as f64 / 1e12;
        let rates = received(&sim)
            .iter()
            .zip(&before)
            .map(|(after, before)| (after - before) as f64 / measured_s)
            .collect();
        let (sent, lost) = self.sent_and_lost(&sim);
        let since = (sent - sent_and_lost_before.0, lost - sent_and_lost_before.1);
        // Where nothing is due any more, it ended with what happened last, whenever somebody looked.
        let ended = if is_idle { sim.last_event_at() } else { sim.now() };
        Outcome {
            long_segments_and_losses: (!endless.is_empty()).then_some(since),
            ..self.outcome(&sim, ended, rates, watch, is_interrupted)
        }
    }

    /// Data segments sent so far, and packets lost so far.
    fn sent_and_lost(&self, sim: &PacketSim<Hosts>) -> (u64, u64) {
        let of = |(number, flow): (u32, &super::setup::Flow)| {
            let sender = sim.edge_of(flow.from).sender(number);
            sender.map_or(0, |sender| sender.stats().segments_count)
        };
        ((0..).zip(self.flows.iter()).map(of).sum(), sim.counters().drops.count())
    }

    /// The window of a flow's sender.
    fn window(&self, sim: &PacketSim<Hosts>, flow: u32) -> Option<WindowSample> {
        let sending = sim.edge_of(self.flows[flow as usize].from).sending(flow)?;
        Some(WindowSample {
            at: sim.now(),
            window_bytes: sending.window_bytes,
            is_slow_start: sending.is_slow_start,
            srtt_ns: sending.srtt_ns,
        })
    }

    fn flows_where(&self, is_wanted: impl Fn(FlowKind) -> bool) -> Vec<u32> {
        let numbered = (0_u32..).zip(self.flows.iter());
        numbered
            .filter(|(_, flow)| is_wanted(flow.kind))
            .map(|(number, _)| number)
            .collect()
    }

    fn outcome(
        &self,
        sim: &PacketSim<Hosts>,
        ended_at: SimTime,
        endless_bytes_per_sec: Vec<f64>,
        watch: Watch,
        is_interrupted: bool,
    ) -> Outcome {
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
        let senders: Vec<Sending> = (0_u32..)
            .zip(self.flows.iter())
            .filter_map(|(number, flow)| sim.edge_of(flow.from).sending(number))
            .collect();
        let timed: Vec<f64> = senders
            .iter()
            .map(|sending| sending.srtt_ns as f64)
            .filter(|ns| *ns > 0.0)
            .collect();
        // Endless flows begin with a burst that says nothing of what they come to.
        let from = if endless_bytes_per_sec.is_empty() {
            SimTime::ZERO
        } else {
            self.measured_from
        };
        let samples = sim.series().flat_map(|series| series.samples.iter().copied());
        let is_open = |at: SimTime| {
            let next = rounds.partition_point(|round| round.ended < at);
            rounds.is_empty() || rounds[next..].iter().any(|round| round.begun <= at)
        };
        // Whoever looked may have gone on for a while when nothing was due any more.
        let depths = samples
            .filter(|sample| (from..ended_at).contains(&sample.at) && is_open(sample.at))
            .collect();
        let measured = watch.windows.iter().filter(|sample| sample.at >= self.measured_from);
        let long_srtts_ns: Vec<f64> = measured.map(|sample| sample.srtt_ns as f64).collect();
        let long_srtt_ns_p50 = quantile(&long_srtts_ns, 0.5);
        let sum = |of: fn(&Sending) -> u64| senders.iter().map(of).sum();
        Outcome {
            ended_last: ended.last().map_or(SimTime::ZERO, |&(at, _)| at),
            counters: sim.counters(),
            hash: sim.hash().value(),
            ended: ended_at,
            timed_out: self.timed_out(sim, &rounds),
            answered_bytes: finite_bytes + rounds.iter().map(round_bytes).sum::<u64>(),
            rounds,
            completions,
            unfinished_count: sim.edges().map(|edge| edge.unfinished_count).sum(),
            endless_bytes_per_sec,
            long_segments_and_losses: None,
            converged: watch.converged,
            long_srtt_ns_p50: long_srtt_ns_p50.unwrap_or(0.0),
            windows: watch.windows,
            timeouts_count: sum(|sending| sending.timeouts_count),
            segments_count: sum(|sending| sending.segments_count),
            retransmissions_count: sum(|sending| sending.retransmissions_count),
            srtt_ns_mean: timed.iter().sum::<f64>() / timed.len().max(1) as f64,
            depths,
            queue_packets_max: sim.link_counters(self.watched_link).queue_packets_max,
            quinn: self.about_quinn(),
            is_interrupted,
        }
    }

    /// What must be known of a run with flows of quinn's.
    fn about_quinn(&self) -> Option<&'static str> {
        let mut controllers = self.options.iter().filter_map(|options| options.quinn).peekable();
        controllers.peek()?;
        Some(match controllers.any(|controller| controller == QuinnController::Bbr) {
            true => {
                "quinn-proto's code; its BBR is experimental, says its documentation, and draws without a seed: this row is not \
                 repeatable"
            }
            false => "quinn-proto's code; timeouts are not counted, retransmissions are packets that it took for lost",
        })
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

/// What is seen of endless flows while they run.
#[derive(Debug)]
struct Watch {
    /// When the last of them begins.
    begun: SimTime,
    /// What had arrived of each when the window of shares began.
    share_from: Vec<u64>,
    slices_count: u64,
    converged: Option<SimTime>,
    windows: Vec<WindowSample>,
}

impl Watch {
    fn new(setup: &Setup, endless: &[u32]) -> Watch {
        let start = |&flow: &u32| match setup.flows[flow as usize].kind {
            FlowKind::Endless { start } => start,
            FlowKind::Finite { .. } | FlowKind::Answer { .. } => SimTime::ZERO,
        };
        Watch {
            begun: endless.iter().map(start).max().unwrap_or(SimTime::ZERO),
            share_from: vec![0; endless.len()],
            slices_count: 0,
            converged: None,
            windows: Vec::new(),
        }
    }

    /// At the end of a slice: what has arrived of each flow.
    fn look(&mut self, at: SimTime, received: &[u64]) {
        if at <= self.begun {
            self.share_from.copy_from_slice(received);
            self.slices_count = 0;
            return;
        }
        self.slices_count += 1;
        if self.slices_count < SHARE_SLICES_COUNT || self.converged.is_some() {
            return;
        }
        let shares: Vec<f64> = received
            .iter()
            .zip(&self.share_from)
            .map(|(after, before)| (after - before) as f64)
            .collect();
        if jain(&shares).is_some_and(|jain| jain >= CONVERGED_JAIN) {
            self.converged = Some(at.saturating_since(self.begun));
        }
        self.share_from.copy_from_slice(received);
        self.slices_count = 0;
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
        let of_several = |flow: Option<&f64>| {
            flow.filter(|_| self.endless_bytes_per_sec.len() > 1)
                .map(|bytes| bytes * 8.0 / 1e6)
        };
        put(
            "long_first_mbit_per_sec",
            of_several(self.endless_bytes_per_sec.first()),
        );
        put("long_last_mbit_per_sec", of_several(self.endless_bytes_per_sec.last()));
        put("converged_ms", self.converged.map(|span| span.as_ns() as f64 / 1e6));
        put("loss_percent", share(self.counters.drops.count(), self.segments_count));
        put(
            "long_loss_percent",
            self.long_segments_and_losses.and_then(|(sent, lost)| share(lost, sent)),
        );
        put("queue_packets_p50", quantile(&depths, 0.5));
        put("queue_packets_p99", quantile(&depths, 0.99));
        put("queue_packets_max", Some(f64::from(self.queue_packets_max)));
        put(
            "rtt_us_mean",
            (self.srtt_ns_mean > 0.0).then_some(self.srtt_ns_mean / 1e3),
        );
        put(
            "long_rtt_ms_p50",
            (self.long_srtt_ns_p50 > 0.0).then_some(self.long_srtt_ns_p50 / 1e6),
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
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Jain, Chiu and Hawe, DEC TR-301, 1984: 1 if all have the same, 1/n if one has all.
pub fn jain(shares: &[f64]) -> Option<f64> {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), share| {
        (sum + share, squares + share * share)
    });
    (shares.len() > 1 && squares > 0.0).then(|| sum * sum / (shares.len() as f64 * squares))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One flow has nine times what the other has, until `equal_from`.
    fn converged(begun: u64, equal_from: u64) -> Option<SimTime> {
        let mut watch = Watch {
            begun: SimTime::from_ns(begun),
            share_from: vec![0, 0],
            slices_count: 0,
            converged: None,
            windows: Vec::new(),
        };
        let mut received = [0, 0];
        for at in 1..=1_000 {
            let more = if at > equal_from { [5, 5] } else { [9, 1] };
            received = [received[0] + more[0], received[1] + more[1]];
            watch.look(SimTime::from_ns(at), &received);
        }
        watch.converged
    }

    #[test]
    fn shares_converge_when_a_whole_window_of_them_is_equal() {
        assert_eq!(SHARE_SLICES_COUNT, 40);
        assert_eq!(converged(100, 0), Some(SimTime::from_ns(40)));
        assert_eq!(converged(100, 500), Some(SimTime::from_ns(440)));
        assert_eq!(converged(100, 2_000), None);
    }
}
