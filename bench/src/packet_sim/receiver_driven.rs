//! Scenarios whose flows NDP or Homa carries: the same network and the same flows with other ends.

use std::sync::{Arc, atomic::AtomicBool};

use dataplane_queue::SimTime;
use dataplane_sim::packet::{Computing, Edge, Grouping, Outcome as Ended, PacketSim};
use dataplane_transports::ndp::NdpOptions;

use super::{
    homa::{HomaCall, HomaHosts, homa_options},
    ndp::{NdpCounts, NdpFlow, NdpHosts},
    outcome::{Outcome, QueryRecord, SAMPLES_COUNT},
    setup::{FlowKind, Setup},
};

/// What a flow sends, whoever carries it.
#[derive(Clone, Copy, Debug)]
struct Sent {
    bytes: u64,
    start: SimTime,
}

/// Packets that ends sent, those sent again among them, and timers that fired.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    packets_count: u64,
    retransmissions_count: u64,
    timeouts_count: u64,
}

impl Setup {
    /// Simulates with NDP. The scenario's check has seen to it that nothing is endless and no question is asked twice.
    pub(super) fn run_ndp(&self, options: &NdpOptions, stop: &AtomicBool) -> Outcome {
        let flow = |(flow, sent): (&super::setup::Flow, Sent)| NdpFlow {
            from: flow.from,
            to: flow.to,
            bytes: sent.bytes,
            start: sent.start,
        };
        let flows: Arc<[NdpFlow]> = self.flows.iter().zip(self.sent()).map(flow).collect();
        let arrivals = |edge: &NdpHosts| edge.ended.clone();
        let counted = |edges: &mut dyn Iterator<Item = &NdpHosts>| {
            let mut counts = NdpCounts::default();
            edges.for_each(|edge| edge.add_counts(&mut counts));
            Counted {
                packets_count: counts.packets_count,
                retransmissions_count: counts.retransmissions_count,
                timeouts_count: counts.timeouts_count,
            }
        };
        let edge = |hosts| NdpHosts::new(&flows, hosts, options, self.nic_bits_per_sec());
        self.run_ends(stop, edge, arrivals, counted)
    }

    /// Simulates with Homa: each flow is a call, which its receiver answers with as many bytes; it ends when the answer is there.
    pub(super) fn run_homa(&self, stop: &AtomicBool) -> Outcome {
        let call = |(number, (flow, sent)): (u32, (&super::setup::Flow, Sent))| {
            let call = HomaCall {
                client: flow.from,
                server: flow.to,
                bytes: u32::try_from(sent.bytes).unwrap_or(u32::MAX),
                start: sent.start,
            };
            (call, number)
        };
        let mut calls: Vec<(HomaCall, u32)> = (0..).zip(self.flows.iter().zip(self.sent())).map(call).collect();
        calls.sort_by_key(|(call, number)| (call.start, *number));
        let (calls, numbers): (Vec<HomaCall>, Vec<u32>) = calls.into_iter().unzip();
        let calls: Arc<[HomaCall]> = calls.into();
        let options = homa_options(&calls);
        let arrivals = |edge: &HomaHosts| {
            let of = |&(at, call): &(SimTime, u32)| (at, numbers[call as usize]);
            edge.ended.iter().map(of).collect()
        };
        let counted = |edges: &mut dyn Iterator<Item = &HomaHosts>| Counted {
            retransmissions_count: edges.map(HomaHosts::retransmissions_count).sum(),
            ..Counted::default()
        };
        let edge = |hosts| HomaHosts::new(&calls, hosts, &options, self.nic_bits_per_sec());
        self.run_ends(stop, edge, arrivals, counted)
    }

    fn nic_bits_per_sec(&self) -> u64 {
        self.topology.links[self.topology.nics[0] as usize].cable.bits_per_sec
    }

    /// By flow. A server answers when it is asked, or up to the jitter later.
    fn sent(&self) -> impl Iterator<Item = Sent> {
        (0_u64..).zip(self.flows.iter()).map(|(number, flow)| match flow.kind {
            FlowKind::Finite { bytes, start } => Sent { bytes, start },
            FlowKind::Endless { start } => Sent { bytes: 1, start },
            FlowKind::Answer { query } => {
                let query = &self.queries[query as usize];
                let jitter_ps = query.jitter.as_ps().saturating_add(1);
                let later = super::hosts::mix(self.seed, number) % jitter_ps;
                Sent {
                    bytes: query.answer_bytes,
                    start: query.start + SimTime::from_ps(later),
                }
            }
        })
    }

    fn run_ends<E: Edge + Send>(
        &self,
        stop: &AtomicBool,
        edge: impl FnMut(std::ops::Range<u32>) -> E,
        arrivals: impl Fn(&E) -> Vec<(SimTime, u32)>,
        counted: impl Fn(&mut dyn Iterator<Item = &E>) -> Counted,
    ) -> Outcome
    where
        E::Header: Send,
    {
        let computing = Computing {
            threads_count: 1,
            grouping: Grouping::One,
        };
        let mut sim = PacketSim::new(&self.topology, computing, self.seed, edge);
        let every = SimTime::from_ps((self.horizon.as_ps() / SAMPLES_COUNT).clamp(1_000_000, 1_000_000_000));
        sim.sample(self.watched_link, every, SAMPLES_COUNT as usize);
        let is_interrupted = sim.run_until(self.horizon, stop) == Ended::Interrupted;
        let mut ended: Vec<(SimTime, u32)> = sim.edges().flat_map(arrivals).collect();
        ended.sort_unstable();
        let sent: Vec<Sent> = self.sent().collect();
        let took = |&(at, flow): &(SimTime, u32)| match self.flows[flow as usize].kind {
            FlowKind::Answer { .. } => None,
            FlowKind::Finite { .. } | FlowKind::Endless { .. } => Some(at.saturating_since(sent[flow as usize].start)),
        };
        let round = |(number, query): (u32, &super::setup::Query)| {
            let flows = query.flows_of(0);
            let of_query: Vec<SimTime> = ended
                .iter()
                .filter(|(_, flow)| flows.contains(flow))
                .map(|(at, _)| *at)
                .collect();
            let is_whole = of_query.len() == query.flows_count as usize;
            let ended = of_query.into_iter().max().filter(|_| is_whole)?;
            let begun = query.start;
            Some(QueryRecord {
                query: number,
                begun,
                ended,
            })
        };
        let rounds: Vec<QueryRecord> = (0..).zip(self.queries.iter()).filter_map(round).collect();
        let Counted {
            packets_count,
            retransmissions_count,
            timeouts_count,
        } = counted(&mut sim.edges());
        let depths = sim.series().flat_map(|series| series.samples.iter().copied());
        Outcome {
            counters: sim.counters(),
            hash: sim.hash().value(),
            ended: sim.now(),
            timed_out: vec![false; if timeouts_count == 0 { rounds.len() } else { 0 }],
            rounds,
            completions: ended.iter().filter_map(took).collect(),
            ended_last: ended.last().map_or(SimTime::ZERO, |(at, _)| *at),
            unfinished_count: (self.flows.len() - ended.len()) as u64,
            endless_bytes_per_sec: Vec::new(),
            long_segments_and_losses: None,
            converged: None,
            windows: Vec::new(),
            answered_bytes: ended.iter().map(|(_, flow)| sent[*flow as usize].bytes).sum(),
            timeouts_count,
            segments_count: packets_count,
            retransmissions_count,
            srtt_ns_mean: 0.0,
            long_srtt_ns_p50: 0.0,
            quinn: None,
            depths: depths.collect(),
            queue_packets_max: sim.link_counters(self.watched_link).queue_packets_max,
            is_interrupted,
        }
    }
}
