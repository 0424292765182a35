//! Priorities that are paused instead of dropped: nothing is lost where there is headroom, and what there is not is lost and counted.
#![forbid(unsafe_code)]

mod edges;

use std::sync::{Arc, atomic::AtomicBool};

use dataplane_queue::{Discipline, DropTailOptions, Limit, Marking, Pfc, PfcOptions, TrimmingOptions};
use dataplane_sim::{
    SimTime,
    packet::{
        Cable, Computing, Counters, Grouping, Headroom, HostOptions, Lossless, Outcome, PacketSim, SwitchOptions,
        Topology, TopologyError,
    },
};
use edges::{Flow, window::WindowEdge};

static GO: AtomicBool = AtomicBool::new(false);
/// Nothing is lost, so nothing waits for it.
const RTO: SimTime = SimTime::from_ms(1_000);
const BITS_PER_SEC: u64 = 10_000_000_000;
const PACKET_BYTES: u32 = 1_500;
const THRESHOLDS: PfcOptions = PfcOptions {
    pause_bytes: 60_000,
    resume_bytes: 45_000,
};
const ENOUGH: Headroom = Headroom::Enough {
    packet_bytes_max: PACKET_BYTES,
};

/// A bound of two packets shows that lossless classes have another.
fn switch(discipline: fn(DropTailOptions) -> Discipline, priorities: u8, headroom: Headroom) -> SwitchOptions {
    SwitchOptions {
        discipline: discipline(DropTailOptions {
            limit: Limit::Packets(2),
            marking: Marking::Never,
        }),
        lossless: Some(Lossless {
            priorities,
            thresholds: THRESHOLDS,
            headroom,
        }),
        ..SwitchOptions::default()
    }
}

fn hosts() -> HostOptions {
    HostOptions {
        discipline: Discipline::Priority(DropTailOptions {
            limit: Limit::NONE,
            marking: Marking::Never,
        }),
        ..HostOptions::default()
    }
}

fn flow(from: u32, to: u32, packets_count: u32) -> Flow {
    Flow {
        from,
        to,
        packets_count,
        packet_bytes: PACKET_BYTES,
        start: SimTime::ZERO,
    }
}

fn run(topology: &Topology, priorities_count: u8, grouping: Grouping, flows: &[Flow]) -> PacketSim<WindowEdge> {
    let flows: Arc<[Flow]> = flows.into();
    let computing = Computing {
        threads_count: 1,
        grouping,
    };
    let mut sim = PacketSim::new(topology, computing, 1, |_| {
        let mut edge = WindowEdge::new(&flows, RTO, false);
        edge.priorities_count = priorities_count;
        edge
    });
    for us in [100, 101, 700] {
        sim.run_until(SimTime::from_us(us), &GO);
        sim.assert_conserved();
    }
    assert_eq!(sim.run_until(SimTime::FOREVER, &GO), Outcome::Idle);
    let done: usize = sim.edges().map(|edge| edge.done_count).sum();
    assert_eq!(done, flows.len(), "{:?}", sim.counters());
    sim
}

/// Twenty hosts send as fast as they can to one, over cables of that delay. What was counted, and the longest queue.
fn incast(headroom: Headroom, delay: SimTime) -> (Counters, u64, SimTime) {
    let cable = Cable::new(BITS_PER_SEC, delay);
    let star = Topology::star(
        21,
        cable,
        HostOptions::default(),
        switch(Discipline::DropTail, 1, headroom),
    );
    let star = star.expect("a star");
    let flows: Vec<Flow> = (0..20).map(|host| flow(host, 20, 2_000)).collect();
    let sim = run(&star, 1, Grouping::One, &flows);
    let bottleneck = star.link_between(21, 20).expect("a link to the receiver");
    let last = sim
        .edges()
        .flat_map(|edge| edge.senders.iter().map(|sender| sender.done_at))
        .max();
    (
        sim.counters(),
        sim.link_counters(bottleneck).queue_bytes_max,
        last.expect("flows"),
    )
}

/// The delay of the cable counts: while a pause is on its way, what is on the wire and what still enters it comes.
#[test]
fn nothing_is_lost_with_enough_headroom_and_the_link_stays_full() {
    let most_bytes = |delay| {
        let (counters, queue_bytes_max, last) = incast(ENOUGH, delay);
        assert_eq!(counters.drops.count(), 0, "{counters:?}");
        assert!(counters.pauses_count > 40, "{counters:?}");
        let room_bytes = THRESHOLDS.pause_bytes
            + Pfc::headroom_bytes(BITS_PER_SEC, SimTime::from_ps(2 * delay.as_ps()), PACKET_BYTES);
        assert!(
            queue_bytes_max <= 20 * room_bytes,
            "{queue_bytes_max} of 20 × {room_bytes}"
        );
        // 40,000 packets of 1,524 B, after a window's growth.
        let needed = SimTime::from_ps(40_000 * 1_524 * 800);
        assert!(
            last.as_ps() as f64 / (needed.as_ps() as f64) < 1.05,
            "{last}, {needed} needed"
        );
        queue_bytes_max
    };
    let (short, long) = (most_bytes(SimTime::from_us(1)), most_bytes(SimTime::from_us(20)));
    // 19 µs more each way are 47.5 kB more of each link, less what leaves in that time: a twentieth.
    let more_bytes = long - short;
    assert!((600_000..=950_000).contains(&more_bytes), "{short} and {long}");
}

#[test]
fn too_little_headroom_loses_and_says_so() {
    let (counters, ..) = incast(Headroom::Bytes(30_000), SimTime::from_us(20));
    assert!(counters.drops.headroom_full_count > 20, "{counters:?}");
    assert_eq!(counters.drops.count(), counters.drops.headroom_full_count);
    // What the wire holds both ways, and nothing for the packets at its ends, is too little by a few packets.
    let (counters, ..) = incast(Headroom::Bytes(40_000), SimTime::from_us(20));
    assert!(counters.drops.headroom_full_count > 0, "{counters:?}");
}

/// A flow to an idle host shares a cable between switches with one to a busy host. Paused with it, it has as little; in a class
/// of its own it does not notice.
#[test]
fn a_pause_stops_a_class_and_not_the_others() {
    let cable = Cable::new(BITS_PER_SEC, SimTime::from_us(1));
    let flows = [flow(0, 3, 4_000), flow(1, 4, 4_000), flow(5, 3, 4_000)];
    let victim_done = |priorities_count| {
        let switch = switch(Discipline::Priority, 0xff, ENOUGH);
        let dumbbell = Topology::dumbbell(
            (2, 4),
            cable,
            Cable::new(2 * BITS_PER_SEC, SimTime::from_us(1)),
            hosts(),
            switch,
        );
        let sim = run(&dumbbell.expect("a dumbbell"), priorities_count, Grouping::One, &flows);
        assert_eq!(sim.counters().drops.count(), 0);
        sim.edge_of(1).senders[1].done_at.as_ps() as f64
    };
    let alone = 4_000.0 * 1_524.0 * 800.0;
    // Hosts 0 and 5 share the link to host 3, so the cable between switches is paused half of the time.
    assert!(victim_done(1) > 1.5 * alone, "{} of {alone}", victim_done(1));
    assert!(victim_done(2) < 1.1 * alone, "{} of {alone}", victim_done(2));
}

/// Of two classes one is paused, the other dropped.
#[test]
fn other_priorities_are_dropped_at_their_bound() {
    let cable = Cable::new(BITS_PER_SEC, SimTime::from_us(1));
    let star = Topology::star(9, cable, hosts(), switch(Discipline::Priority, 0b01, ENOUGH)).expect("a star");
    let flows: Vec<Flow> = (0..8).map(|host| flow(host, 8, 200)).collect();
    let counters = run(&star, 2, Grouping::One, &flows).counters();
    assert!(
        counters.drops.queue_full_count > 0 && counters.pauses_count > 0,
        "{counters:?}"
    );
    assert_eq!(counters.drops.count(), counters.drops.queue_full_count);
}

/// Pauses spread over a FatTree, all of whose hosts send to two: up and down again, so nobody waits for himself.
#[test]
fn a_fat_tree_of_pauses_ends_and_is_the_same_in_groups() {
    let cable = Cable::new(BITS_PER_SEC, SimTime::from_us(1));
    let tree = Topology::fat_tree(
        4,
        cable,
        HostOptions::default(),
        switch(Discipline::DropTail, 0xff, ENOUGH),
    );
    let tree = tree.expect("a FatTree");
    let flows: Vec<Flow> = (0..16)
        .map(|host| flow(host, if host < 8 { 15 } else { 0 }, 500))
        .collect();
    let one = run(&tree, 1, Grouping::One, &flows);
    let many = run(&tree, 1, Grouping::ByTopology, &flows);
    assert_eq!((one.hash(), one.counters()), (many.hash(), many.counters()));
    assert!(one.counters().pauses_count > 100 && one.counters().drops.count() == 0);
}

#[test]
fn what_cannot_be_lossless_is_refused() {
    let cable = Cable::new(BITS_PER_SEC, SimTime::from_us(1));
    let why = |switch: SwitchOptions| match Topology::star(3, cable, HostOptions::default(), switch) {
        Err(TopologyError::Lossless { why }) => why,
        other => panic!("{other:?}"),
    };
    let good = switch(Discipline::DropTail, 1, ENOUGH);
    let lossless = good.lossless.expect("set above");
    let with = |lossless| SwitchOptions {
        lossless: Some(lossless),
        ..good
    };
    assert!(
        why(with(Lossless {
            priorities: 0,
            ..lossless
        }))
        .contains("at least one")
    );
    let thresholds = PfcOptions {
        pause_bytes: 3_000,
        resume_bytes: 3_000,
    };
    assert!(why(with(Lossless { thresholds, ..lossless })).contains("resume at less"));
    let trims = SwitchOptions {
        discipline: Discipline::Trimming(TrimmingOptions {
            data: Limit::Packets(8),
            headers: Limit::Packets(8),
            headers_per_data: 10,
        }),
        ..good
    };
    assert!(why(trims).contains("drop-tail"));
}
