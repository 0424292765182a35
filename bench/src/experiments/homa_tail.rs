//! `homa-p99`: how long short calls take with Homa while the network is busy, in the packet simulator.

use std::{collections::BTreeMap, sync::Arc};

use dataplane_queue::{Discipline, DropTailOptions, ETHERNET_OVERHEAD_BYTES, Limit, Marking};
use dataplane_sim::{
    SimTime,
    packet::{
        Cable, Computing, Grouping, HostOptions, Outcome as Ended, PacketSim, SwitchOptions, Topology, costs::BYPASS,
    },
};
use dataplane_transports::homa::HomaOptions;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{
    scenarios::{Demand, judge_all, metric},
    virtual_time::{Happened, Simulated},
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    packet_sim::{HomaCall, HomaHosts, homa_frame_bytes, homa_options},
    record::{Better, Row},
    table::Table,
};

const LOAD: Axis = Axis {
    name: "load_percent",
    meaning: "share of each link that data packets take, headers included",
    full: &["20", "50", "80", "90"],
    tour: &["80"],
    smallest: "20",
    allowed: Allowed::Number(1.0, 99.0),
};

const LINK_BITS_PER_SEC: u64 = 10_000_000_000;
const HOSTS_COUNT: u32 = 16;
/// Of a cable in a rack.
const DELAY: SimTime = SimTime::from_ns(100);
/// Homa's simulations, section 5.2: 250 ns in each switch.
const SWITCH_LATENCY: SimTime = SimTime::from_ns(250);
/// A short message.
const SHORT_BYTES: u32 = 1_000;

/// The lengths of workload W3, all of a Google data center's applications (Homa, figure 1), at powers of two as far as they
/// are that: the share of messages that are not longer. Between two points lengths are evenly distributed. Read from
/// `util/w3.pb` of PlatformLab/HomaModule. Messages longer than 1 MB, one in 4,000, are left out: the few that would
/// fall into a run would decide its load.
const W3: [(u32, f64); 16] = [
    (1, 0.0),
    (8, 0.0649),
    (32, 0.0973),
    (64, 0.1553),
    (128, 0.3516),
    (256, 0.4979),
    (512, 0.7849),
    (1_024, 0.8632),
    (2_048, 0.9089),
    (4_096, 0.9350),
    (8_192, 0.9643),
    (16_384, 0.9847),
    (32_768, 0.9904),
    (65_536, 0.9933),
    (687_784, 0.99962),
    (1_048_576, 0.99976),
];

/// The experiment.
#[derive(Clone, Copy, Debug)]
pub struct HomaTail;

static CLAIMS: &[Claim] = &[Claim {
    id: "homa-p99",
    sentence: "On links of 10 Gbit/s that are 80 % busy, 99 of 100 short calls take less than 15 µs with Homa",
    source: Source::Published {
        work: "Montazeri et al., Homa: a receiver-driven low-latency transport protocol using network priorities, SIGCOMM 2018",
        place: "abstract",
    },
    invariant: "Virtual time: a row follows from the seed alone. Hosts cost 1.25 µs each way and are never busy, which the paper's are. A \
                short call has at most 1,000 B each way.",
    judge: short_calls,
}];

const SHORT_P99: &str = "short_us_p99";

fn short_calls(table: &Table) -> Judgement {
    judge_all(&[Demand {
        what: "short calls at 80 % load, 99th percentile",
        value: metric(table, "", (LOAD.name, "80"), SHORT_P99),
        unit: "µs",
        limit: "< 15",
        meets: |us| us < 15.0,
    }])
}

impl Experiment for HomaTail {
    fn id(&self) -> &'static str {
        "homa-p99"
    }

    fn title(&self) -> &'static str {
        "Short calls beside long ones, Homa"
    }

    fn question(&self) -> &'static str {
        "How long do short calls take at the 99th percentile when long ones keep the network busy?"
    }

    fn how(&self) -> &'static str {
        "Sixteen hosts at one switch with eight priorities, 10 Gbit/s, in virtual time. Each calls others at random moments; a server \
         answers with as many bytes as it was sent. Lengths are those of workload W3. Hosts take 1.25 µs each way."
    }

    fn axes(&self) -> &'static [Axis] {
        &[LOAD]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let loads = lab.numbers(&LOAD);
        lab.progress.set_length(loads.len() as u64);
        for load_percent in loads {
            if lab.interrupted() {
                break;
            }
            lab.progress.set_message(format!("{load_percent} % load"));
            let Some(row) = self.measure(lab, load_percent)? else {
                break;
            };
            lab.record(row)?;
            lab.progress.inc(1);
        }
        Ok(())
    }
}

/// A length of the workload.
fn draw_bytes(random: &mut Pcg64Mcg) -> u32 {
    let (_, share_max) = W3[W3.len() - 1];
    let drawn = random.random_range(0.0..share_max);
    let next = W3.partition_point(|&(_, share)| share <= drawn).min(W3.len() - 1);
    let ((low, low_share), (high, high_share)) = (W3[next - 1], W3[next]);
    let part = (drawn - low_share) / (high_share - low_share);
    (f64::from(low) + part * f64::from(high - low)).round() as u32
}

/// What a message takes on a link, in bytes.
fn wire_bytes(message_bytes: u32, payload_bytes: u32) -> f64 {
    let packets_count = message_bytes.div_ceil(payload_bytes);
    let per_packet = homa_frame_bytes(0) + ETHERNET_OVERHEAD_BYTES;
    f64::from(message_bytes) + f64::from(packets_count) * f64::from(per_packet)
}

/// Calls of all hosts, sorted by start.
fn calls(load_percent: f64, until: SimTime, payload_bytes: u32, random: &mut Pcg64Mcg) -> Vec<HomaCall> {
    const SAMPLES_COUNT: u32 = 200_000;
    let total: f64 = (0..SAMPLES_COUNT)
        .map(|_| wire_bytes(draw_bytes(random), payload_bytes))
        .sum();
    let mean_bytes = total / f64::from(SAMPLES_COUNT);
    // Each host sends as many questions as answers.
    let calls_per_sec = load_percent / 100.0 * LINK_BITS_PER_SEC as f64 / 8.0 / mean_bytes / 2.0;
    let mut calls = Vec::new();
    for client in 0..HOSTS_COUNT {
        let mut at_sec = 0.0;
        loop {
            let uniform: f64 = random.random_range(0.0..1.0);
            at_sec += -(1.0 - uniform).ln() / calls_per_sec;
            let start = SimTime::from_ps((at_sec * 1e12) as u64);
            if start >= until {
                break;
            }
            calls.push(HomaCall {
                client,
                server: (client + random.random_range(1..HOSTS_COUNT)) % HOSTS_COUNT,
                bytes: draw_bytes(random),
                start,
            });
        }
    }
    calls.sort_by_key(|call| (call.start, call.client));
    calls
}

fn topology() -> anyhow::Result<Topology> {
    let priorities = |limit| {
        Discipline::Priority(DropTailOptions {
            limit,
            marking: Marking::Never,
        })
    };
    let switch = SwitchOptions {
        discipline: priorities(Limit::Bytes(1_000_000)),
        latency: SWITCH_LATENCY,
        ..SwitchOptions::default()
    };
    let host = HostOptions {
        discipline: priorities(Limit::NONE),
        ..HostOptions::default()
    };
    let cable = Cable::new(LINK_BITS_PER_SEC, DELAY);
    Ok(Topology::star(HOSTS_COUNT, cable, host.with_latency(BYPASS), switch)?)
}

impl HomaTail {
    fn measure(&self, lab: &Lab<'_>, load_percent: f64) -> anyhow::Result<Option<Row>> {
        let until = SimTime::from_ms(match lab.choice.depth {
            Depth::Full => 100,
            Depth::Tour => 20,
            Depth::Smallest => 2,
        });
        let mut random = Pcg64Mcg::seed_from_u64(lab.choice.seed);
        let payload_bytes = HomaOptions::default().payload_bytes;
        let calls: Arc<[HomaCall]> = calls(load_percent, until, payload_bytes, &mut random).into();
        let options = homa_options(&calls);
        let computing = Computing {
            threads_count: 1,
            grouping: Grouping::One,
        };
        let mut sim = PacketSim::new(&topology()?, computing, lab.choice.seed, |hosts| {
            HomaHosts::new(&calls, hosts, &options, LINK_BITS_PER_SEC)
        });
        // Who began in time has twenty times as long to end.
        let horizon = SimTime::from_ps(20 * until.as_ps());
        if sim.run_until(horizon, lab.stop) == Ended::Interrupted {
            return Ok(None);
        }
        let ended: Vec<(SimTime, u32)> = sim.edges().flat_map(|edge| edge.ended.iter().copied()).collect();
        // The first tenth fills the network.
        let from = SimTime::from_ps(until.as_ps() / 10);
        let took_ns = |is_wanted: &dyn Fn(&HomaCall) -> bool| {
            let mut took: Vec<u64> = ended
                .iter()
                .map(|&(at, number)| (at, calls[number as usize]))
                .filter(|(_, call)| call.start >= from && is_wanted(call))
                .map(|(at, call)| at.saturating_since(call.start).as_ns())
                .collect();
            took.sort_unstable();
            took
        };
        let what = Happened {
            elapsed: sim.now(),
            event_hash: sim.hash().value(),
            events_count: sim.counters().events_count,
        };
        let axis = BTreeMap::from([(LOAD.name.to_owned(), load_percent.to_string())]);
        let mut row = Simulated::of(lab, self.id(), axis, lab.choice.seed, what);
        row.fact("guarantee", "none is asked for: a message is delivered once");
        let short = took_ns(&|call| call.bytes <= SHORT_BYTES);
        let quantile = |took: &[u64], q: f64| {
            took[((q * took.len() as f64).ceil() as usize).clamp(1, took.len()) - 1] as f64 / 1e3
        };
        if !short.is_empty() {
            row.put("short_us_p50", quantile(&short, 0.5), "µs", Better::Lower);
            row.put(SHORT_P99, quantile(&short, 0.99), "µs", Better::Lower);
            row.put("short_us_p999", quantile(&short, 0.999), "µs", Better::Lower);
        }
        let all = took_ns(&|_| true);
        if !all.is_empty() {
            row.put("all_us_p99", quantile(&all, 0.99), "µs", Better::Lower);
        }
        let counts = [
            ("calls", calls.len() as u64, Better::Neither),
            ("unfinished", (calls.len() - ended.len()) as u64, Better::Lower),
            ("drops", sim.counters().drops.count(), Better::Lower),
            (
                "retransmissions",
                sim.edges().map(HomaHosts::retransmissions_count).sum(),
                Better::Lower,
            ),
            ("scheduled_levels", options.scheduled_levels.into(), Better::Neither),
        ];
        for (name, count, better) in counts {
            row.put(name, count as f64, "count", better);
        }
        row.latencies(short.iter().copied());
        Ok(Some(row.into_row()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

    #[test]
    fn the_claim_holds_fails_and_is_not_measured() {
        let judged = |us: f64| short_calls(&table(LOAD.name, &[("", "80", &[(SHORT_P99, us)])])).outcome;
        assert_eq!(judged(14.9), Outcome::Holds);
        assert_eq!(judged(15.0), Outcome::Fails);
        assert!(matches!(
            short_calls(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }

    #[test]
    fn lengths_and_load_are_those_that_were_asked_for() {
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let lengths: Vec<u32> = (0..100_000).map(|_| draw_bytes(&mut random)).collect();
        let share = |most| lengths.iter().filter(|&&bytes| bytes <= most).count() as f64 / 1e5;
        assert!((share(512) - 0.7849).abs() < 0.01 && (share(8_192) - 0.9643).abs() < 0.01);
        let until = SimTime::from_ms(50);
        let calls = calls(80.0, until, 1_400, &mut random);
        let bytes: f64 = calls.iter().map(|call| 2.0 * wire_bytes(call.bytes, 1_400)).sum();
        let load = bytes / f64::from(HOSTS_COUNT) / (1.25e9 * 0.05);
        assert!((load - 0.8).abs() < 0.08, "{load}");
    }

    /// All calls are answered, none sooner than hosts and wires allow, in whatever threads and groups.
    #[test]
    fn every_call_is_answered() {
        let mut random = Pcg64Mcg::seed_from_u64(3);
        let calls: Arc<[HomaCall]> = calls(80.0, SimTime::from_ms(1), 1_400, &mut random).into();
        let options = homa_options(&calls);
        let run = |threads_count, grouping| {
            let computing = Computing {
                threads_count,
                grouping,
            };
            let mut sim = PacketSim::new(&topology().expect("a star"), computing, 3, |hosts| {
                HomaHosts::new(&calls, hosts, &options, LINK_BITS_PER_SEC)
            });
            sim.run_until(SimTime::from_ms(1_000), &AtomicBool::new(false));
            let mut ended: Vec<(SimTime, u32)> = sim.edges().flat_map(|edge| edge.ended.iter().copied()).collect();
            ended.sort_unstable();
            (sim.hash().value(), ended)
        };
        let (hash, ended) = run(1, Grouping::One);
        assert_eq!(ended.len(), calls.len());
        // Four times a host's latency, and four cables.
        let least_ns = 4 * BYPASS.as_ns() + 4 * DELAY.as_ns();
        let is_possible =
            |&(at, number): &(SimTime, u32)| at.saturating_since(calls[number as usize].start).as_ns() > least_ns;
        assert!(ended.iter().all(is_possible));
        assert_eq!(run(2, Grouping::ByTopology), (hash, ended));
    }
}
