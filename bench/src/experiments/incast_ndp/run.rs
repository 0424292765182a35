//! One incast on a FatTree: who sends to whom, and the runs with NDP and with DCTCP.

use std::time::Duration;

use anyhow::Context;
use dataplane_queue::{Discipline, DropTailOptions, ETHERNET_OVERHEAD_BYTES, Limit, Marking, TrimmingOptions};
use dataplane_sim::{
    SimTime,
    packet::{Cable, Counters, HostOptions, SwitchOptions, Topology},
};
use dataplane_transports::{ControllerKind, EcnMode, ReceiverOptions, SenderOptions, ndp::NdpOptions};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use super::{DCTCP, NDP, NdpIncast};
use crate::{
    experiment::Lab,
    packet_sim::{Flow, FlowKind, FlowOptions, NdpCounts, NdpFlow, NdpSetup, Setup, frame_bytes},
    scenario::memory,
};

const LINK_BITS_PER_SEC: u64 = 10_000_000_000;
const DELAY: SimTime = SimTime::from_us(1);
/// 9 KB packets, so that 270 KB are 30 of them.
const PAYLOAD_BYTES: u32 = 9_000;
/// Answers begin within so much of each other.
const JITTER: SimTime = SimTime::from_us(1);
/// The least timeout of DCTCP; the paper's is not known here.
const DCTCP_RTO: Duration = Duration::from_millis(10);
/// The largest incast's answers take 1.75 s at the receiver's link if nothing goes wrong.
const HORIZON: SimTime = SimTime::from_ms(60_000);

/// Who sends to whom.
pub(super) struct Incast {
    pub receiver: u32,
    /// With the time at which each begins.
    pub senders: Vec<(u32, SimTime)>,
    pub optimal: SimTime,
}

/// What came of it, whoever sent.
pub(super) struct Run {
    pub counters: Counters,
    pub hash: u64,
    pub ended: SimTime,
    pub took: Vec<SimTime>,
    pub last: SimTime,
    pub unfinished_count: u64,
    pub retransmissions_count: u64,
    pub timeouts_count: u64,
    pub ndp: Option<(NdpCounts, u64)>,
}

/// A full packet's time on a link.
fn packet_time() -> SimTime {
    let bits = u64::from(frame_bytes(PAYLOAD_BYTES) + ETHERNET_OVERHEAD_BYTES) * 8;
    SimTime::from_ps(bits * 1_000_000_000_000 / LINK_BITS_PER_SEC)
}

impl Incast {
    pub(super) fn draw(of: &NdpIncast, senders_count: u32, seed: u64) -> anyhow::Result<Incast> {
        let hosts_count = of.ports_count.pow(3) / 4;
        anyhow::ensure!(
            senders_count < hosts_count,
            "{senders_count} senders need as many hosts beside the receiver, and {} has {hosts_count}: take fewer",
            of.id
        );
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut hosts: Vec<u32> = (0..hosts_count).collect();
        hosts.shuffle(&mut random);
        let receiver = hosts[0];
        let senders: Vec<(u32, SimTime)> = hosts[1..=senders_count as usize]
            .iter()
            .map(|&host| (host, SimTime::from_ps(random.random_range(0..=JITTER.as_ps()))))
            .collect();
        // Links before the last: to the switch that both share, and down again.
        let links_before = |host: u32| match (host / (of.ports_count / 2), host / (of.ports_count / 2).pow(2)) {
            (rack, _) if rack == receiver / (of.ports_count / 2) => 1,
            (_, pod) if pod == receiver / (of.ports_count / 2).pow(2) => 3,
            _ => 5,
        };
        let nearest = senders.iter().map(|&(host, _)| links_before(host)).min().unwrap_or(5);
        let packets_count = u64::from(senders_count) * of.answer_bytes.div_ceil(PAYLOAD_BYTES.into());
        let ps = nearest * (packet_time() + DELAY).as_ps() + packets_count * packet_time().as_ps() + DELAY.as_ps();
        Ok(Incast {
            receiver,
            senders,
            optimal: SimTime::from_ps(ps),
        })
    }

    /// `None` if it was interrupted.
    pub(super) fn run(&self, of: &NdpIncast, lab: &Lab<'_>, arm: &str) -> anyhow::Result<Option<Run>> {
        match arm {
            NDP => self.run_ndp(of, lab),
            DCTCP => self.run_dctcp(of, lab),
            other => anyhow::bail!("no arm is called {other}: there are {NDP} and {DCTCP}"),
        }
    }

    fn run_ndp(&self, of: &NdpIncast, lab: &Lab<'_>) -> anyhow::Result<Option<Run>> {
        let switch = SwitchOptions {
            discipline: Discipline::Trimming(TrimmingOptions {
                data: Limit::Packets(8),
                headers: Limit::Bytes(8 * u64::from(frame_bytes(PAYLOAD_BYTES))),
                headers_per_data: 10,
            }),
            returns_headers: true,
            ..SwitchOptions::default()
        };
        let flow = |&(from, start)| NdpFlow {
            from,
            to: self.receiver,
            bytes: of.answer_bytes,
            start,
        };
        let setup = NdpSetup {
            topology: fat_tree(of.ports_count, switch)?,
            options: NdpOptions {
                payload_bytes: PAYLOAD_BYTES,
                initial_window_packets: of.initial_window_packets,
                ..NdpOptions::default()
            },
            flows: self.senders.iter().map(flow).collect(),
            horizon: HORIZON,
            seed: lab.choice.seed,
        };
        let memory_bytes = setup.memory_estimate_bytes();
        memory::refuse(memory_bytes).map_err(anyhow::Error::msg)?;
        let outcome = setup.run(lab.stop);
        if outcome.is_interrupted {
            return Ok(None);
        }
        let took = |&(at, flow): &(SimTime, u32)| at.saturating_since(setup.flows[flow as usize].start);
        Ok(Some(Run {
            counters: outcome.counters,
            hash: outcome.hash,
            ended: outcome.ended,
            took: outcome.arrivals.iter().map(took).collect(),
            last: outcome.arrivals.last().map_or(SimTime::ZERO, |&(at, _)| at),
            unfinished_count: (setup.flows.len() - outcome.arrivals.len()) as u64,
            retransmissions_count: outcome.counts.retransmissions_count,
            timeouts_count: outcome.counts.timeouts_count,
            ndp: Some((outcome.counts, memory_bytes)),
        }))
    }

    fn run_dctcp(&self, of: &NdpIncast, lab: &Lab<'_>) -> anyhow::Result<Option<Run>> {
        let switch = SwitchOptions {
            discipline: Discipline::DropTail(DropTailOptions {
                limit: Limit::Packets(200),
                marking: Marking::AtEnqueue(Limit::Packets(30)),
            }),
            ..SwitchOptions::default()
        };
        let topology = fat_tree(of.ports_count, switch)?;
        let to_receiver = topology.links.iter().position(|link| link.to == self.receiver);
        let watched_link = to_receiver.context("a host without a link")? as u32;
        let flow = |&(from, start)| Flow {
            from,
            to: self.receiver,
            options: 0,
            kind: FlowKind::Finite {
                bytes: of.answer_bytes,
                start,
            },
        };
        let options = FlowOptions {
            sender: SenderOptions {
                mss_bytes: PAYLOAD_BYTES,
                rto_min: DCTCP_RTO,
                // The connection carried the question, so it has measured a round trip before it answers.
                rto_initial: DCTCP_RTO,
                ecn: EcnMode::Dctcp,
                ..SenderOptions::default()
            },
            receiver: ReceiverOptions {
                mss_bytes: PAYLOAD_BYTES,
                ecn: EcnMode::Dctcp,
                ..ReceiverOptions::default()
            },
            controller: ControllerKind::Dctcp,
            dctcp: None,
            bbr1: None,
            swift: None,
            quinn: None,
        };
        let setup = Setup {
            topology,
            options: [options].into(),
            flows: self.senders.iter().map(flow).collect(),
            queries: [].into(),
            horizon: HORIZON,
            host_processing: SimTime::ZERO,
            measured_from: SimTime::ZERO,
            watched_link,
            seed: lab.choice.seed,
        };
        let outcome = setup.run(lab.stop);
        Ok((!outcome.is_interrupted).then_some(Run {
            counters: outcome.counters,
            hash: outcome.hash,
            ended: outcome.ended,
            last: outcome.ended_last,
            took: outcome.completions,
            unfinished_count: outcome.unfinished_count,
            retransmissions_count: outcome.retransmissions_count,
            timeouts_count: outcome.timeouts_count,
            ndp: None,
        }))
    }
}

fn fat_tree(ports_count: u32, switch: SwitchOptions) -> anyhow::Result<Topology> {
    let cable = Cable::new(LINK_BITS_PER_SEC, DELAY);
    Ok(Topology::fat_tree(ports_count, cable, HostOptions::default(), switch)?)
}
