//! How fast the packet simulator is: incasts on a star and a permutation on a FatTree, in events and packet-hops a second.
//!
//! Not with criterion: a run is a measurement of its own, in CPU time of the thread, and the least of several is printed.
//! `cargo bench -p dataplane-sim --bench packet` runs all; a part of a name after `--` runs what has it in its own.
#![forbid(unsafe_code)]

#[path = "../tests/edges/mod.rs"]
mod edges;
// The library's own file: what is measured alone is private there. Its tests are empty here.
#[allow(dead_code, unused_imports, reason = "what the library needs of it besides")]
#[path = "../src/packet/events.rs"]
mod events;
#[path = "support/heap.rs"]
mod heap;
#[path = "support/lists.rs"]
mod lists;
// The edge that the bench runs: it knows nothing but transports and this crate.
#[allow(dead_code, reason = "what experiments count besides")]
#[path = "../../../bench/src/packet_sim/ndp.rs"]
mod ndp;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use dataplane_queue::{Discipline, DropTailOptions, Limit, Marking, TrimmingOptions};
use dataplane_sim::{
    SimTime,
    packet::{Cable, Computing, Counters, Edge, Grouping, HostOptions, PacketSim, SwitchOptions, Topology},
};
use dataplane_transports::{ControllerKind, EcnMode, ReceiverOptions, SenderOptions, ndp::NdpOptions};
use edges::{Flow, pull::PullEdge, tcp::TcpEdge, window::WindowEdge};
use ndp::{NdpFlow, NdpHosts};
use nix::time::{ClockId, clock_gettime};

/// Runs of each kind: so many, and for so long.
const RUNS_COUNT: usize = 3;
const MEASURING_MIN: Duration = Duration::from_millis(500);

/// Ten minutes: the peers' runs were ended there, too.
const SIMULATED_MAX: SimTime = SimTime::from_ms(600_000);

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if filter.as_ref().is_none_or(|filter| "lists".contains(filter.as_str())) {
        lists::compare();
    }
    println!(
        "{:<34} {:>10} {:>10} {:>9} {:>9} {:>7} {:>8} {:>9}",
        "run", "events", "hops", "Mevents/s", "Mhops/s", "CPU s", "wall s", "simulated"
    );
    let wanted = |name: &str| filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
    for hosts in [100, 1_000, 10_000] {
        let name = format!("star window {hosts}:1");
        if wanted(&name) {
            measure(&name, || star(hosts));
        }
    }
    for kind in [ControllerKind::NewReno, ControllerKind::Dctcp] {
        for hosts in [100, 1_000, 10_000] {
            let name = format!("star {} {hosts}:1", kind.name());
            if wanted(&name) {
                measure(&name, || star_tcp(hosts, kind));
            }
        }
    }
    for hosts in [100, 1_000] {
        let name = format!("star ndp {hosts}:1");
        if wanted(&name) {
            measure(&name, || star_ndp(hosts));
        }
    }
    if wanted("fattree ndp") {
        measure("fattree ndp", fat_tree_ndp);
    }
    for (threads_count, grouping) in [
        (1, Grouping::PerThread),
        (2, Grouping::PerThread),
        (4, Grouping::PerThread),
        (1, Grouping::ByTopology),
        (2, Grouping::ByTopology),
    ] {
        let name = format!("fattree pull {threads_count} threads {grouping:?}");
        if wanted(&name) {
            measure(&name, || fat_tree(threads_count, grouping));
        }
    }
}

/// The anchor: 450 KB from each host, 10 Gbit/s, 5 µs of cable, 100 packets of buffer, 0 to 10 µs of jitter.
const FLOW_BYTES: u64 = 450_000;

fn star(senders: u32) -> PacketSim<WindowEdge> {
    let flows = star_flows(senders);
    PacketSim::new(&star_topology(senders, Marking::Never), Computing::default(), 1, |_| {
        WindowEdge::new(&flows, SimTime::from_ms(200), false)
    })
}

/// The same with the real TCP: initial window 10, SACK, RTOmin 200 ms; of DCTCP, marks from 20 packets on.
fn star_tcp(senders: u32, kind: ControllerKind) -> PacketSim<TcpEdge> {
    let flows = star_flows(senders);
    let (marking, ecn) = match kind {
        ControllerKind::Dctcp => (Marking::AtEnqueue(Limit::Packets(20)), EcnMode::Dctcp),
        _ => (Marking::Never, EcnMode::Off),
    };
    let sender = SenderOptions {
        rto_min: Duration::from_millis(200),
        ecn,
        ..SenderOptions::default()
    };
    let receiver = ReceiverOptions {
        ecn,
        ..ReceiverOptions::default()
    };
    PacketSim::new(&star_topology(senders, marking), Computing::default(), 1, |_| {
        TcpEdge::new(&flows, FLOW_BYTES, kind, &sender, &receiver)
    })
}

fn star_topology(senders: u32, marking: Marking) -> Topology {
    let cable = Cable::new(10_000_000_000, SimTime::from_us(5));
    let switch = SwitchOptions {
        discipline: Discipline::DropTail(DropTailOptions {
            limit: Limit::Packets(100),
            marking,
        }),
        ..SwitchOptions::default()
    };
    Topology::star(senders + 1, cable, HostOptions::default(), switch).expect("a star")
}

fn star_flows(senders: u32) -> Arc<[Flow]> {
    let jitter = SimTime::from_us(10).as_ps();
    (0..senders)
        .map(|from| Flow {
            from,
            to: senders,
            packets_count: 300,
            packet_bytes: 1_500,
            start: SimTime::from_ps((u64::from(from) * 7_919_777_777) % jitter),
        })
        .collect()
}

/// The same incast with the real NDP: 1500 B packets, 8 of them in the queue, initial window 30.
fn star_ndp(senders: u32) -> PacketSim<NdpHosts> {
    let cable = Cable::new(10_000_000_000, SimTime::from_us(5));
    let topology = Topology::star(senders + 1, cable, HostOptions::default(), trimming(1_500)).expect("a star");
    let flows: Arc<[NdpFlow]> = star_flows(senders)
        .iter()
        .map(|flow| ndp_flow(flow, FLOW_BYTES))
        .collect();
    let options = NdpOptions {
        payload_bytes: 1_436,
        ..NdpOptions::default()
    };
    PacketSim::new(&topology, Computing::default(), 1, |hosts| {
        NdpHosts::new(&flows, hosts, &options, cable.bits_per_sec)
    })
}

fn ndp_flow(flow: &Flow, bytes: u64) -> NdpFlow {
    NdpFlow {
        from: flow.from,
        to: flow.to,
        bytes,
        start: flow.start,
    }
}

/// NDP's switches: 8 packets, and as many bytes of headers.
fn trimming(packet_bytes: u64) -> SwitchOptions {
    SwitchOptions {
        discipline: Discipline::Trimming(TrimmingOptions {
            data: Limit::Packets(8),
            headers: Limit::Bytes(8 * packet_bytes),
            headers_per_data: 10,
        }),
        returns_headers: true,
        ..SwitchOptions::default()
    }
}

/// The permutation below with the real NDP.
fn fat_tree_ndp() -> PacketSim<NdpHosts> {
    let (topology, flows) = permutation();
    let flows: Arc<[NdpFlow]> = flows.iter().map(|flow| ndp_flow(flow, 2_000_000)).collect();
    let options = NdpOptions {
        initial_window_packets: 50,
        ..NdpOptions::default()
    };
    PacketSim::new(&topology, Computing::default(), 1, |hosts| {
        NdpHosts::new(&flows, hosts, &options, PERMUTATION_CABLE.bits_per_sec)
    })
}

/// The anchor: 1024 hosts, each sends 2 MB to one other in packets of 9000 B, 100 Gbit/s, 1 µs of cable.
fn permutation() -> (Topology, Arc<[Flow]>) {
    let topology =
        Topology::fat_tree(16, PERMUTATION_CABLE, HostOptions::default(), trimming(9_000)).expect("a FatTree");
    let hosts = topology.hosts_count;
    let flows: Arc<[Flow]> = (0..hosts)
        .map(|from| Flow {
            from,
            // An odd multiplier modulo a power of two, and a shift: a permutation that sends nearly all out of their pods.
            to: (from * 389 + 401) % hosts,
            packets_count: 223,
            packet_bytes: 9_000,
            start: SimTime::ZERO,
        })
        .filter(|flow| flow.from != flow.to)
        .collect();
    (topology, flows)
}

const PERMUTATION_CABLE: Cable = Cable::new(100_000_000_000, SimTime::from_us(1));

fn fat_tree(threads_count: usize, grouping: Grouping) -> PacketSim<PullEdge> {
    let (topology, flows) = permutation();
    let computing = Computing {
        threads_count,
        grouping,
    };
    PacketSim::new(&topology, computing, 1, |hosts| {
        PullEdge::new(&flows, hosts, 50, PERMUTATION_CABLE.bits_per_sec)
    })
}

/// What can say how many of its flows are done.
trait Counted {
    fn done_count(&self) -> usize;
}

impl Counted for WindowEdge {
    fn done_count(&self) -> usize {
        self.done_count
    }
}

impl Counted for PullEdge {
    fn done_count(&self) -> usize {
        self.done_count
    }
}

impl Counted for NdpHosts {
    fn done_count(&self) -> usize {
        self.ended.len()
    }
}

impl Counted for TcpEdge {
    fn done_count(&self) -> usize {
        self.done_count
    }
}

fn measure<E: Edge + Counted + Send>(name: &str, build: impl Fn() -> PacketSim<E>)
where
    E::Header: Send,
{
    let mut runs_count = 0;
    let mut best: Option<(f64, f64)> = None;
    let mut seen: Option<(Counters, u64, SimTime, usize)> = None;
    let begin = Instant::now();
    while runs_count < RUNS_COUNT || begin.elapsed() < MEASURING_MIN {
        runs_count += 1;
        let mut sim = build();
        let (cpu, wall) = (cpu_sec(), Instant::now());
        sim.run_until(SIMULATED_MAX, &AtomicBool::new(false));
        let (cpu, wall) = (cpu_sec() - cpu, wall.elapsed().as_secs_f64());
        sim.assert_conserved();
        let done_count = sim.edges().map(Counted::done_count).sum();
        let result = (sim.counters(), sim.hash().value(), sim.now(), done_count);
        assert_eq!(*seen.get_or_insert(result), result, "the same seed, another result");
        best = Some(best.map_or((cpu, wall), |best| (cpu.min(best.0), wall.min(best.1))));
    }
    let ((cpu, wall), (counters, hash, now, done_count)) = (best.expect("a run"), seen.expect("a run"));
    let per_sec = |count: u64| count as f64 / cpu / 1e6;
    println!(
        "{name:<34} {:>10} {:>10} {:>9.1} {:>9.1} {cpu:>7.3} {wall:>8.3} {:>6} us  {hash:016x} {done_count} done {} dropped {} marked {} trimmed",
        counters.events_count,
        counters.hops_count,
        per_sec(counters.events_count),
        per_sec(counters.hops_count),
        now.as_ns() / 1_000,
        counters.drops.count(),
        counters.marks_count,
        counters.trims_count,
    );
}

/// CPU time of this thread in seconds. With several threads it is that of one of them; compare wall time there.
fn cpu_sec() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has this clock");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}
