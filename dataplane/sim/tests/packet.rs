//! The packet simulator against figures that can be computed by hand, and against itself on other groups and threads.
#![forbid(unsafe_code)]

mod edges;

use std::sync::{Arc, atomic::AtomicBool};

use dataplane_queue::{Discipline, DropTailOptions, Limit, Marking};
use dataplane_sim::{
    SimTime,
    packet::{
        Balance, Cable, Computing, Forwarding, Grouping, HostOptions, LeafSpine, Outcome, PacketSim, SwitchOptions,
        Topology, memory_estimate_bytes,
    },
};
use edges::{Flow, window::WindowEdge};

const CABLE: Cable = Cable::new(10_000_000_000, SimTime::from_us(5));
const RTO: SimTime = SimTime::from_ms(10);
static GO: AtomicBool = AtomicBool::new(false);

fn flow(from: u32, to: u32, packets_count: u32) -> Flow {
    Flow {
        from,
        to,
        packets_count,
        packet_bytes: 1500,
        start: SimTime::ZERO,
    }
}

fn sim(topology: &Topology, computing: Computing, seed: u64, flows: Vec<Flow>) -> PacketSim<WindowEdge> {
    let flows: Arc<[Flow]> = flows.into();
    PacketSim::new(topology, computing, seed, |_| WindowEdge::new(&flows, RTO, true))
}

fn done_at(sim: &PacketSim<WindowEdge>, host: u32, flow: usize) -> SimTime {
    sim.edge_of(host).senders[flow].done_at
}

fn switch(limit: Limit, marking: Marking) -> SwitchOptions {
    SwitchOptions {
        discipline: Discipline::DropTail(DropTailOptions { limit, marking }),
        ..SwitchOptions::default()
    }
}

/// A byte at 10 Gbit/s is 800 ps; a frame has 24 bytes around it; an acknowledgement has 64.
const fn wire_ps(bytes: u64) -> u64 {
    (bytes + 24) * 800
}

#[test]
fn one_packet_takes_what_its_wires_take() {
    let host = HostOptions::default().with_latency(SimTime::from_ns(300));
    let pair = Topology::pair(CABLE, host).expect("a pair");
    let mut pair = sim(&pair, Computing::default(), 1, vec![flow(0, 1, 1)]);
    assert_eq!(pair.run_until(SimTime::FOREVER, &GO), Outcome::Idle);
    let both_ways = 2 * (5_000_000 + 600_000) + wire_ps(1500) + wire_ps(64);
    assert_eq!(done_at(&pair, 0, 0), SimTime::from_ps(both_ways));

    let star = |forwarding| {
        let switch = SwitchOptions {
            forwarding,
            latency: SimTime::from_ns(50),
            ..SwitchOptions::default()
        };
        let star = Topology::star(3, CABLE, HostOptions::default(), switch).expect("a star");
        let mut star = sim(&star, Computing::default(), 1, vec![flow(0, 2, 1)]);
        star.run_until(SimTime::FOREVER, &GO);
        done_at(&star, 0, 0)
    };
    let cables = 4 * 5_000_000 + 2 * 50_000;
    let stored = cables + 2 * wire_ps(1500) + 2 * wire_ps(64);
    assert_eq!(star(Forwarding::StoreAndForward), SimTime::from_ps(stored));
    // The switch waits for 64 bytes of each frame instead of all of it.
    let cut = cables + wire_ps(64) + wire_ps(1500) + 2 * wire_ps(64);
    assert_eq!(star(Forwarding::CutThrough), SimTime::from_ps(cut));
}

/// A link of 10 Gbit/s carries 1500 B of each 1524, for as long as nobody makes it wait.
#[test]
fn a_long_flow_fills_the_link_but_for_what_ethernet_adds() {
    let pair = Topology::pair(CABLE, HostOptions::default()).expect("a pair");
    let mut pair = sim(&pair, Computing::default(), 1, vec![flow(0, 1, 100_000)]);
    pair.run_until(SimTime::FOREVER, &GO);
    let seconds = done_at(&pair, 0, 0).as_ps() as f64 / 1e12;
    let goodput_ratio = 100_000.0 * 1500.0 * 8.0 / seconds / 10e9;
    assert!((goodput_ratio - 1500.0 / 1524.0).abs() < 0.001, "{goodput_ratio}");
}

/// Every pending packet is somewhere, at whatever moment one looks; and the bound of a queue is one.
#[test]
fn packets_are_conserved_and_queues_are_bounded() {
    let star = Topology::star(
        41,
        CABLE,
        HostOptions::default(),
        switch(Limit::Packets(30), Marking::Never),
    )
    .expect("a star");
    let mut sim = sim(
        &star,
        Computing::default(),
        1,
        (0..40).map(|host| flow(host, 40, 60)).collect(),
    );
    let mut at = SimTime::ZERO;
    let mut seen_in_flight = 0;
    loop {
        at += SimTime::from_us(37);
        let outcome = sim.run_until(at, &GO);
        seen_in_flight = sim.assert_conserved().max(seen_in_flight);
        if outcome == Outcome::Idle {
            break;
        }
    }
    let bottleneck = star.link_between(41, 40).expect("a link to the receiver");
    let counters = sim.link_counters(bottleneck);
    assert_eq!(counters.queue_packets_max, 30);
    assert!(
        counters.drops_count > 100 && seen_in_flight > 30,
        "{counters:?}, {seen_in_flight} at once"
    );
    assert_eq!(sim.edge_of(0).done_count, 40);
    assert_eq!(sim.assert_conserved(), 0);
    // Every hop of every packet: those that were dropped made only the first.
    let all = sim.counters();
    assert_eq!(all.hops_count, 2 * all.sent_count - all.drops.count());
}

#[test]
fn a_threshold_marks_instead() {
    let marking = Marking::AtEnqueue(Limit::Packets(20));
    let star = Topology::star(3, CABLE, HostOptions::default(), switch(Limit::Packets(100), marking)).expect("a star");
    let mut sim = sim(
        &star,
        Computing::default(),
        1,
        vec![flow(0, 2, 3_000), flow(1, 2, 3_000)],
    );
    let bottleneck = star.link_between(3, 2).expect("a link to the receiver");
    sim.sample(bottleneck, SimTime::from_us(10), 400);
    sim.run_until(SimTime::FOREVER, &GO);
    let counters = sim.counters();
    assert!(counters.marks_count > 20 && counters.drops.count() == 0, "{counters:?}");
    let series = sim.series().next().expect("a series");
    assert_eq!(series.samples.len(), 400);
    let deepest = series.samples.iter().map(|sample| sample.packets_count).max();
    assert!((20..100).contains(&deepest.expect("samples")), "{deepest:?}");
}

#[test]
fn a_wire_loses_as_many_as_it_says_and_the_same_ones_for_the_same_seed() {
    let cable = Cable {
        loss_ratio: 0.01,
        ..CABLE
    };
    let pair = Topology::pair(cable, HostOptions::default()).expect("a pair");
    let run = |seed| {
        let mut sim = sim(&pair, Computing::default(), seed, vec![flow(0, 1, 50_000)]);
        sim.run_until(SimTime::FOREVER, &GO);
        assert_eq!(sim.edge_of(0).done_count, 1);
        (sim.hash(), sim.counters())
    };
    let (hash, counters) = run(1);
    assert_eq!(run(1), (hash, counters));
    assert_ne!(run(2).0, hash);
    let ratio = counters.drops.wire_count as f64 / counters.sent_count as f64;
    // A hundred thousand draws: a standard deviation of 0.03 %.
    assert!((ratio - 0.01).abs() < 0.0015, "{ratio}");
}

#[test]
fn neither_threads_nor_groups_change_anything() {
    let host = HostOptions::default();
    let cable = Cable {
        loss_ratio: 0.001,
        ..CABLE
    };
    let shape = LeafSpine {
        leaves_count: 4,
        hosts_per_leaf: 4,
        spines_count: 2,
    };
    for balance in [Balance::FlowHash, Balance::SprayRandom, Balance::SprayRoundRobin] {
        let switch = SwitchOptions {
            balance,
            ..switch(Limit::Packets(12), Marking::AtEnqueue(Limit::Packets(6)))
        };
        for topology in [
            Topology::fat_tree(4, cable, host, switch).expect("a FatTree"),
            Topology::leaf_spine(shape, cable, cable, host, switch).expect("a leaf-spine"),
            Topology::dumbbell((8, 8), cable, cable, host, switch).expect("a dumbbell"),
        ] {
            let run = |threads_count, grouping| {
                let flows = (0..16).map(|host| flow(host, (host * 7 + 5) % 16, 100)).collect();
                let mut sim = sim(
                    &topology,
                    Computing {
                        threads_count,
                        grouping,
                    },
                    3,
                    flows,
                );
                // In pieces, so that runs begin and end within windows too.
                for us in [0, 13, 450, 451, 2_000] {
                    sim.run_until(SimTime::from_us(us), &GO);
                    sim.assert_conserved();
                }
                assert_eq!(sim.run_until(SimTime::FOREVER, &GO), Outcome::Idle);
                let done: usize = sim.edges().map(|edge| edge.done_count).sum();
                assert_eq!(done, 16);
                (sim.hash(), sim.counters())
            };
            let one = run(1, Grouping::One);
            assert!(one.1.drops.count() > 0);
            for threads_count in [1, 2, 3] {
                assert_eq!(
                    run(threads_count, Grouping::PerThread),
                    one,
                    "{threads_count} groups, {balance:?}"
                );
            }
            for threads_count in if balance == Balance::FlowHash { [1, 4] } else { [1, 2] } {
                assert_eq!(
                    run(threads_count, Grouping::ByTopology),
                    one,
                    "{threads_count} threads, {balance:?}"
                );
            }
        }
    }
}

#[test]
fn a_raised_flag_stops_a_run_and_it_can_go_on() {
    let topology = Topology::fat_tree(4, CABLE, HostOptions::default(), SwitchOptions::default()).expect("a FatTree");
    let run = |stops: bool| {
        let flows = (0..16).map(|host| flow(host, 15 - host, 2_000)).collect();
        let mut sim = sim(&topology, Computing::default(), 3, flows);
        if stops {
            assert_eq!(
                sim.run_until(SimTime::FOREVER, &AtomicBool::new(true)),
                Outcome::Interrupted
            );
        }
        assert_eq!(sim.run_until(SimTime::FOREVER, &GO), Outcome::Idle);
        sim.hash()
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn memory_is_known_beforehand() {
    let topology = Topology::star(2_001, CABLE, HostOptions::default(), SwitchOptions::default()).expect("a star");
    let flows: Arc<[Flow]> = (0..2_000).map(|host| flow(host, 2_000, 20)).collect();
    let mut edge = Some(WindowEdge::new(&flows, RTO, false));
    let estimate_bytes = memory_estimate_bytes::<WindowEdge>(&topology, 2_000, 10);
    let taken = allocation_counter::measure(|| {
        let mut sim = PacketSim::new(&topology, Computing::default(), 1, |_| edge.take().expect("one group"));
        sim.run_until(SimTime::from_ms(20), &GO);
    });
    let ratio = estimate_bytes as f64 / taken.bytes_max as f64;
    assert!(
        (0.5..2.0).contains(&ratio),
        "{estimate_bytes} estimated, {} taken",
        taken.bytes_max
    );
}
