//! One run: who sends, in which network, and what arrived of the flows beside the incast, step by step.

use std::sync::{Arc, Mutex, atomic::AtomicBool};

use dataplane_queue::{
    Discipline, DropTailOptions, ETHERNET_OVERHEAD_BYTES, Limit, Marking, PfcOptions, TrimmingOptions,
};
use dataplane_sim::{
    SimTime,
    packet::{
        Cable, Computing, Counters, Edge, Grouping, Headroom, HostOptions, Lossless, Outcome, Packet, PacketSim,
        SwitchOptions, Tap, TapEvent, Topology,
    },
};
use dataplane_transports::{ControllerKind, EcnMode, ReceiverOptions, SenderOptions, ndp::NdpOptions};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use crate::packet_sim::{Flow, FlowKind, FlowOptions, Hosts, NdpFlow, NdpHosts, Setup, frame_bytes};

pub const NDP: &str = "ndp";
pub const DCTCP: &str = "dctcp";
pub const DCTCP_PFC: &str = "dctcp-pfc";
pub const PFC_ALONE: &str = "pfc-alone";
pub const LONG_FLOW: &str = "long-flow";
pub const PERMUTATION: &str = "permutation";

const LINK_BITS_PER_SEC: u64 = 10_000_000_000;
const DELAY: SimTime = SimTime::from_us(1);
const PAYLOAD_BYTES: u32 = 9_000;
/// Ports of a switch: 128 hosts, four in a rack, 16 in a pod.
const PORTS_COUNT: u32 = 8;
const HOSTS_COUNT: u32 = 128;
const RACK_HOSTS_COUNT: u32 = 4;
const SENDERS_COUNT: usize = 64;
/// The incast's receiver, and its neighbour in the rack.
const RECEIVER: u32 = 0;
const NEIGHBOUR: u32 = 1;
/// The incast begins then, within a microsecond.
const BEGINS: SimTime = SimTime::from_ms(5);
const JITTER: SimTime = SimTime::from_us(1);
/// The incast needs 47 ms of its receiver's link.
const HORIZON: SimTime = SimTime::from_ms(400);
const STEP: SimTime = SimTime::from_us(100);
const STEPS_COUNT: usize = (HORIZON.as_ps() / STEP.as_ps()) as usize;
/// Before the incast, once windows have grown: from 3 ms on.
const STEADY_STEP: usize = 30;
/// Nobody sends so much in the time.
const ENDLESS_BYTES: u64 = 2_000_000_000;
/// As in the incast experiments with NDP.
const RTO_MIN: std::time::Duration = std::time::Duration::from_millis(10);
/// A window that fills any path here, several times over.
const WINDOW_BYTES: u32 = 1_000_000;

/// A flow: from, to, bytes, start.
type Sent = (u32, u32, u64, SimTime);

/// Who sends to whom. The flows beside the incast come first.
pub struct Scene {
    flows: Vec<Sent>,
    besides_count: usize,
    seed: u64,
}

/// What was seen.
pub struct Seen {
    pub counters: Counters,
    pub hash: u64,
    pub ended: SimTime,
    /// From its beginning to the last byte, if that came.
    pub incast_took: Option<SimTime>,
    /// On the wire, of the flows beside the incast, in each step.
    beside_bytes: Vec<u64>,
}

/// What the flows beside the incast got of their receivers' links.
pub struct Shares {
    pub before_percent: f64,
    pub during_percent: f64,
    pub least_percent: f64,
    pub dip_ms: f64,
}

impl Scene {
    pub fn draw(beside: &str, answer_bytes: u64, seed: u64) -> anyhow::Result<Scene> {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        // From other racks than the receiver's, and none of them from where the long flow comes.
        let mut others: Vec<u32> = (RACK_HOSTS_COUNT..HOSTS_COUNT).collect();
        others.shuffle(&mut random);
        let endless = |from, to| (from, to, ENDLESS_BYTES, SimTime::ZERO);
        let mut flows: Vec<Sent> = match beside {
            LONG_FLOW => vec![endless(others[SENDERS_COUNT], NEIGHBOUR)],
            PERMUTATION => {
                // One cycle through all hosts; nobody's flow goes to the receiver of the incast.
                let mut order: Vec<u32> = (1..HOSTS_COUNT).collect();
                order.shuffle(&mut random);
                (0..order.len())
                    .map(|index| endless(order[index], order[(index + 1) % order.len()]))
                    .collect()
            }
            other => anyhow::bail!("beside {other}: there are {LONG_FLOW} and {PERMUTATION}"),
        };
        let besides_count = flows.len();
        for &from in &others[..SENDERS_COUNT] {
            let start = BEGINS + SimTime::from_ps(random.random_range(0..=JITTER.as_ps()));
            flows.push((from, RECEIVER, answer_bytes, start));
        }
        Ok(Scene {
            flows,
            besides_count,
            seed,
        })
    }

    /// `None` if it was interrupted.
    pub fn run(&self, arm: &str, stop: &AtomicBool) -> anyhow::Result<Option<Seen>> {
        if arm == NDP {
            let flow = |&(from, to, bytes, start): &Sent| NdpFlow { from, to, bytes, start };
            let flows: Arc<[NdpFlow]> = self.flows.iter().map(flow).collect();
            let options = NdpOptions {
                payload_bytes: PAYLOAD_BYTES,
                ..NdpOptions::default()
            };
            let topology = topology(arm)?;
            return Ok(self.simulate(
                &topology,
                stop,
                |edge: &NdpHosts| edge.ended.clone(),
                |hosts| NdpHosts::new(&flows, hosts, &options, LINK_BITS_PER_SEC),
            ));
        }
        let setup = self.tcp(arm)?;
        Ok(self.simulate(
            &setup.topology,
            stop,
            |edge: &Hosts| edge.arrivals().to_vec(),
            |hosts| Hosts::new(&setup, hosts),
        ))
    }

    fn tcp(&self, arm: &str) -> anyhow::Result<Setup> {
        let is_dctcp = arm != PFC_ALONE;
        let (controller, ecn) = match is_dctcp {
            true => (ControllerKind::Dctcp, EcnMode::Dctcp),
            false => (ControllerKind::NewReno, EcnMode::Off),
        };
        let options = FlowOptions {
            sender: SenderOptions {
                mss_bytes: PAYLOAD_BYTES,
                rto_min: RTO_MIN,
                rto_initial: RTO_MIN,
                ecn,
                ..SenderOptions::default()
            },
            receiver: ReceiverOptions {
                mss_bytes: PAYLOAD_BYTES,
                window_bytes: WINDOW_BYTES,
                ecn,
                ..ReceiverOptions::default()
            },
            controller,
            dctcp: None,
            bbr1: None,
            swift: None,
            quinn: None,
        };
        let flow = |&(from, to, bytes, start): &Sent| Flow {
            from,
            to,
            options: 0,
            kind: FlowKind::Finite { bytes, start },
        };
        Ok(Setup {
            topology: topology(arm)?,
            options: [options].into(),
            flows: self.flows.iter().map(flow).collect(),
            queries: [].into(),
            horizon: HORIZON,
            host_processing: SimTime::ZERO,
            measured_from: SimTime::ZERO,
            watched_link: 0,
            seed: self.seed,
        })
    }

    fn simulate<E: Edge + Send>(
        &self,
        topology: &Topology,
        stop: &AtomicBool,
        arrivals: impl Fn(&E) -> Vec<(SimTime, u32)>,
        edge: impl FnMut(std::ops::Range<u32>) -> E,
    ) -> Option<Seen>
    where
        E::Header: Send,
    {
        let computing = Computing {
            threads_count: 1,
            grouping: Grouping::One,
        };
        let mut sim = PacketSim::new(topology, computing, self.seed, edge);
        let beside_bytes = Arc::new(Mutex::new(vec![0; STEPS_COUNT]));
        sim.set_taps(|| {
            Box::new(Beside {
                flows_count: self.besides_count as u32,
                bytes: Arc::clone(&beside_bytes),
            })
        });
        let is_incast = |flow: u32| flow as usize >= self.besides_count;
        let mut incast_took = None;
        // The endless flows would go on: it is asked now and then whether the incast is over.
        while sim.now() < HORIZON && incast_took.is_none() {
            let until = (sim.now() + SimTime::from_ms(5)).min(HORIZON);
            if sim.run_until(until, stop) == Outcome::Interrupted {
                return None;
            }
            let all: Vec<(SimTime, u32)> = sim.edges().flat_map(&arrivals).collect();
            let ended: Vec<SimTime> = all
                .iter()
                .filter(|(_, flow)| is_incast(*flow))
                .map(|(at, _)| *at)
                .collect();
            if ended.len() == SENDERS_COUNT {
                incast_took = ended.iter().max().map(|at| at.saturating_since(BEGINS));
            }
        }
        let beside_bytes = beside_bytes.lock().expect("nobody panicked").clone();
        Some(Seen {
            counters: sim.counters(),
            hash: sim.hash().value(),
            ended: sim.now(),
            incast_took,
            beside_bytes,
        })
    }

    /// Before the incast and while it lasts.
    pub fn shares(&self, seen: &Seen) -> Shares {
        let step_bytes = LINK_BITS_PER_SEC as f64 / 8.0 * STEP.as_ps() as f64 / 1e12 * self.besides_count as f64;
        let percent =
            |steps: &[u64]| 100.0 * steps.iter().sum::<u64>() as f64 / (steps.len().max(1) as f64 * step_bytes);
        let begin = (BEGINS.as_ps() / STEP.as_ps()) as usize;
        let took = seen.incast_took.unwrap_or(seen.ended.saturating_since(BEGINS));
        let end = (begin + took.as_ps().div_ceil(STEP.as_ps()) as usize).min(STEPS_COUNT);
        let before_percent = percent(&seen.beside_bytes[STEADY_STEP..begin]);
        let during = &seen.beside_bytes[begin..end];
        let of_step = |bytes: &u64| percent(std::slice::from_ref(bytes));
        let dips_count = during
            .iter()
            .map(of_step)
            .filter(|percent| *percent < before_percent / 2.0)
            .count();
        Shares {
            before_percent,
            during_percent: percent(during),
            least_percent: during.iter().map(of_step).fold(100.0, f64::min),
            dip_ms: dips_count as f64 * STEP.as_ps() as f64 / 1e9,
        }
    }
}

fn topology(arm: &str) -> anyhow::Result<Topology> {
    let drop_tail = |limit, marking| Discipline::DropTail(DropTailOptions { limit, marking });
    let marking = Marking::AtEnqueue(Limit::Packets(30));
    let lossless = Lossless {
        priorities: u8::MAX,
        thresholds: PfcOptions {
            pause_bytes: 4 * u64::from(frame_bytes(PAYLOAD_BYTES)),
            resume_bytes: 3 * u64::from(frame_bytes(PAYLOAD_BYTES)),
        },
        headroom: Headroom::Enough {
            packet_bytes_max: frame_bytes(PAYLOAD_BYTES) + 64,
        },
    };
    let base = SwitchOptions::default();
    let switch = match arm {
        NDP => SwitchOptions {
            discipline: Discipline::Trimming(TrimmingOptions {
                data: Limit::Packets(8),
                headers: Limit::Bytes(8 * u64::from(frame_bytes(PAYLOAD_BYTES))),
                headers_per_data: 10,
            }),
            returns_headers: true,
            ..base
        },
        DCTCP => SwitchOptions {
            discipline: drop_tail(Limit::Packets(200), marking),
            ..base
        },
        DCTCP_PFC => SwitchOptions {
            discipline: drop_tail(Limit::NONE, marking),
            lossless: Some(lossless),
            ..base
        },
        PFC_ALONE => SwitchOptions {
            discipline: drop_tail(Limit::NONE, Marking::Never),
            lossless: Some(lossless),
            ..base
        },
        other => anyhow::bail!("no arm is called {other}"),
    };
    let cable = Cable::new(LINK_BITS_PER_SEC, DELAY);
    Ok(Topology::fat_tree(PORTS_COUNT, cable, HostOptions::default(), switch)?)
}

/// Counts what arrives of the first flows.
struct Beside {
    flows_count: u32,
    bytes: Arc<Mutex<Vec<u64>>>,
}

impl<H> Tap<H> for Beside {
    fn on_packet(&mut self, now: SimTime, _link: u32, event: TapEvent, packet: &Packet<H>) {
        let is_data = !packet.is_control && !packet.is_trimmed && !packet.is_returned;
        if event == TapEvent::Delivered && packet.flow < self.flows_count && is_data {
            let step = (now.as_ps() / STEP.as_ps()) as usize;
            let mut bytes = self.bytes.lock().expect("nobody panicked");
            if let Some(of_step) = bytes.get_mut(step) {
                *of_step += u64::from(packet.bytes + ETHERNET_OVERHEAD_BYTES);
            }
        }
    }
}
