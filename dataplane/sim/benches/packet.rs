//! How fast the packet simulator is: incasts on a star and a permutation on a FatTree, in events and packet-hops a second.
//!
//! Not with criterion: a run is one measurement of seconds, and what is asked for is the CPU time of a thread (of the process,
//! where there are several), read from `/proc`, with the least of several runs. `cargo bench -p dataplane-sim --bench packet`
//! runs all; a part of a name after `--` runs what has it in its own.
#![forbid(unsafe_code)]

#[path = "../tests/edges/mod.rs"]
mod edges;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use dataplane_queue::{Discipline, DropTailOptions, Limit, Marking};
use dataplane_sim::{
    SimTime,
    packet::{Cable, Computing, Counters, Edge, Grouping, HostOptions, PacketSim, SwitchOptions, Topology},
};
use edges::{Flow, pull::PullEdge, window::WindowEdge};

const RUNS_COUNT: usize = 3;

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
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
    for (threads_count, grouping) in [
        (1, Grouping::One),
        (1, Grouping::ByTopology),
        (2, Grouping::ByTopology),
        (4, Grouping::ByTopology),
    ] {
        let name = format!("fattree pull {threads_count} threads {grouping:?}");
        if wanted(&name) {
            measure(&name, || fat_tree(threads_count, grouping));
        }
    }
}

/// The anchor: 450 KB from each host, 10 Gbit/s, 5 µs of cable, 100 packets of buffer, 0 to 10 µs of jitter.
fn star(senders: u32) -> PacketSim<WindowEdge> {
    let cable = Cable::new(10_000_000_000, SimTime::from_us(5));
    let topology = Topology::star(senders + 1, cable, HostOptions::default(), SwitchOptions::default());
    let jitter = SimTime::from_us(10).as_ps();
    let flows: Arc<[Flow]> = (0..senders)
        .map(|from| Flow {
            from,
            to: senders,
            packets_count: 300,
            packet_bytes: 1_500,
            start: SimTime::from_ps((u64::from(from) * 7_919_777_777) % jitter),
        })
        .collect();
    PacketSim::new(&topology.expect("a star"), Computing::default(), 1, |_| {
        WindowEdge::new(&flows, SimTime::from_ms(200), false)
    })
}

/// The anchor: 1024 hosts, each sends 2 MB to one other in packets of 9000 B, 100 Gbit/s, 1 µs of cable.
fn fat_tree(threads_count: usize, grouping: Grouping) -> PacketSim<PullEdge> {
    let cable = Cable::new(100_000_000_000, SimTime::from_us(1));
    let switch = SwitchOptions {
        discipline: Discipline::DropTail(DropTailOptions {
            limit: Limit::Packets(1_000),
            marking: Marking::Never,
        }),
        ..SwitchOptions::default()
    };
    let topology = Topology::fat_tree(16, cable, HostOptions::default(), switch).expect("a FatTree");
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
    let computing = Computing {
        threads_count,
        grouping,
    };
    PacketSim::new(&topology, computing, 1, |hosts| {
        PullEdge::new(&flows, hosts, 50, cable.bits_per_sec)
    })
}

fn measure<E: Edge + Send>(name: &str, build: impl Fn() -> PacketSim<E>)
where
    E::Header: Send,
{
    let mut best: Option<(f64, f64)> = None;
    let mut seen: Option<(Counters, u64, SimTime)> = None;
    for _ in 0..RUNS_COUNT {
        let mut sim = build();
        let (cpu, wall) = (cpu_sec(), Instant::now());
        sim.run_until(SimTime::from_ms(3_600_000), &AtomicBool::new(false));
        let (cpu, wall) = (cpu_sec() - cpu, wall.elapsed().as_secs_f64());
        assert_eq!(sim.assert_conserved(), 0);
        let result = (sim.counters(), sim.hash().value(), sim.now());
        assert_eq!(*seen.get_or_insert(result), result, "the same seed, another result");
        best = Some(best.map_or((cpu, wall), |best| (cpu.min(best.0), wall.min(best.1))));
    }
    let ((cpu, wall), (counters, hash, now)) = (best.expect("a run"), seen.expect("a run"));
    let per_sec = |count: u64| count as f64 / cpu / 1e6;
    println!(
        "{name:<34} {:>10} {:>10} {:>9.1} {:>9.1} {cpu:>7.3} {wall:>8.3} {:>6} us  {hash:016x} {} dropped {} marked {} trimmed",
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

/// CPU time of this process: its threads' run time in nanoseconds (`/proc/thread-self/schedstat` of each; threads that have
/// ended are missing there, so the process's own clock ticks count where there are several).
fn cpu_sec() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns: Option<f64> = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
    ns.map_or(0.0, |ns| ns / 1e9)
}
