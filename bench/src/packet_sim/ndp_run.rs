//! A run of NDP: what it takes of memory, and what comes of it.

use std::sync::{Arc, atomic::AtomicBool};

use dataplane_sim::{
    SimTime,
    packet::{Computing, Counters, Grouping, Outcome, PacketSim, Topology, memory_estimate_bytes},
};
use dataplane_transports::ndp::{NdpOptions, NdpReceiver, NdpSender};

use super::ndp::{NdpCounts, NdpFlow, NdpHosts};

/// Everything that a run depends on.
#[derive(Clone, Debug)]
pub struct NdpSetup {
    /// The network.
    pub topology: Topology,
    /// What the flows agree on.
    pub options: NdpOptions,
    /// The flows.
    pub flows: Arc<[NdpFlow]>,
    /// A run ends then, whatever is still under way.
    pub horizon: SimTime,
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct NdpOutcome {
    /// What the network counted.
    pub counters: Counters,
    /// A hash of all that happened: the same on every machine.
    pub hash: u64,
    /// Virtual time at the end.
    pub ended: SimTime,
    /// When flows had arrived whole, in this order.
    pub arrivals: Vec<(SimTime, u32)>,
    /// What the senders counted.
    pub counts: NdpCounts,
    /// It was ended from outside.
    pub is_interrupted: bool,
}

impl NdpSetup {
    /// Bytes of memory that a run is about to take: of the network, and of the flows with a first window each under way.
    pub fn memory_estimate_bytes(&self) -> u64 {
        let flows_count = self.flows.len() as u64;
        let window = u64::from(self.options.initial_window_packets);
        // Of what a sender has in the network: number and time; its ends; two places.
        let in_network_bytes = window * size_of::<(u32, u64)>() as u64;
        let ends_bytes = (size_of::<NdpSender>() + size_of::<NdpReceiver>() + size_of::<NdpFlow>() + 16) as u64;
        memory_estimate_bytes::<NdpHosts>(&self.topology, flows_count, window)
            + flows_count * (ends_bytes + in_network_bytes)
    }

    /// Simulates, in one thread.
    pub fn run(&self, stop: &AtomicBool) -> NdpOutcome {
        let computing = Computing {
            threads_count: 1,
            grouping: Grouping::One,
        };
        self.run_with(computing, stop)
    }

    /// Simulates.
    pub fn run_with(&self, computing: Computing, stop: &AtomicBool) -> NdpOutcome {
        let bits_per_sec = self.topology.links[self.topology.nics[0] as usize].cable.bits_per_sec;
        let mut sim = PacketSim::new(&self.topology, computing, self.seed, |hosts| {
            NdpHosts::new(&self.flows, hosts, &self.options, bits_per_sec)
        });
        let is_interrupted = sim.run_until(self.horizon, stop) == Outcome::Interrupted;
        let mut arrivals: Vec<(SimTime, u32)> = sim.edges().flat_map(|edge| edge.ended.iter().copied()).collect();
        arrivals.sort_unstable();
        let mut counts = NdpCounts::default();
        sim.edges().for_each(|edge| edge.add_counts(&mut counts));
        NdpOutcome {
            counters: sim.counters(),
            hash: sim.hash().value(),
            ended: sim.now(),
            arrivals,
            counts,
            is_interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use dataplane_queue::{Discipline, Limit, TrimmingOptions};
    use dataplane_sim::packet::{Cable, HostOptions, SwitchOptions};

    use super::*;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn setup(senders_count: u32, loss_ratio: f64, returns_headers: bool) -> NdpSetup {
        let cable = Cable {
            loss_ratio,
            ..Cable::new(10_000_000_000, SimTime::from_us(1))
        };
        let switch = SwitchOptions {
            discipline: Discipline::Trimming(TrimmingOptions {
                data: Limit::Packets(8),
                // So few that headers find no room, too.
                headers: Limit::Bytes(64 * 64),
                headers_per_data: 10,
            }),
            returns_headers,
            ..SwitchOptions::default()
        };
        let flow = |from| NdpFlow {
            from,
            to: 15,
            bytes: 270_000,
            start: SimTime::ZERO,
        };
        NdpSetup {
            topology: Topology::fat_tree(4, cable, HostOptions::default(), switch).expect("a FatTree"),
            options: NdpOptions {
                payload_bytes: 9_000,
                initial_window_packets: 23,
                ..NdpOptions::default()
            },
            flows: (0..senders_count).map(|number| flow(number % 15)).collect(),
            horizon: SimTime::from_ms(60_000),
            seed: 5,
        }
    }

    /// Every flow arrives whole, not faster than the last link carries it, whatever is trimmed, returned or lost.
    #[test]
    fn every_flow_arrives_whole() {
        for (senders_count, loss_ratio, returns_headers) in
            [(1, 0.0, true), (100, 0.0, true), (100, 0.0, false), (15, 0.01, true)]
        {
            let outcome = setup(senders_count, loss_ratio, returns_headers).run(&NEVER);
            assert_eq!(outcome.arrivals.len(), senders_count as usize);
            let (last, _) = outcome.arrivals[senders_count as usize - 1];
            let least_ns = u64::from(senders_count) * 270_000 * 8 / 10;
            assert!(last.as_ns() >= least_ns, "{senders_count}: {last:?}");
            assert_eq!(outcome.counts.nacks_count > 0, senders_count > 1);
            let is_full = senders_count == 100 && returns_headers;
            assert_eq!(outcome.counts.returned_count > 0, is_full, "{:?}", outcome.counts);
        }
    }

    #[test]
    fn threads_and_groups_change_nothing() {
        let run = |threads_count, grouping| {
            let outcome = setup(60, 0.001, true).run_with(
                Computing {
                    threads_count,
                    grouping,
                },
                &NEVER,
            );
            (outcome.hash, outcome.arrivals, outcome.counts)
        };
        let one = run(1, Grouping::One);
        assert_eq!(run(1, Grouping::ByTopology), one);
        assert_eq!(run(2, Grouping::ByTopology), one);
    }

    #[test]
    fn more_flows_are_said_to_take_more_memory() {
        let (few, many) = (setup(1, 0.0, true), setup(100, 0.0, true));
        assert!(many.memory_estimate_bytes() > few.memory_estimate_bytes() + 99 * 23 * 64);
    }
}
