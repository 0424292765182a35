//! How many cycles a frame takes: the same number every time, which is the point of a pipeline.

use dataplane_wire::frame::Kind;
use fpga_model::{
    node::{Bench, Node, Shape},
    stream::Pauses,
};
use fpga_tb::{
    nodes::Made,
    suite::{CLIENT, framed, node_at, put, setup, wrapped},
};

/// From the first beat of an acknowledgement that completes a quorum to its commit: 11 beats, and the last one's check, count
/// and choice.
const NARROW_COMMIT_CYCLES: u64 = 13;
const WIDE_COMMIT_CYCLES: u64 = 6;
/// 10 GbE in the smallest frames: 10^10 / (8 · 84) a second, where 84 bytes are frame, check sequence, preamble and gap
/// (IEEE 802.3, 4.2.3 and 4.4.2); at 64 bits in 156.25 MHz, 10.5 cycles each.
const LINE_RATE_CYCLES: f64 = 156.25e6 / (1e10 / (8.0 * 84.0));

/// Far more than any frame here takes, with all that it waits for.
const FRAME_CYCLES_MAX: u64 = 1_000;

/// Turns until it is so; a block that stands still does not hold the test.
#[track_caller]
fn turn_until(bench: &mut Bench<Box<dyn Node>>, frames_count: usize, is_so: fn(&Bench<Box<dyn Node>>) -> bool) {
    let end = bench.cycle + frames_count as u64 * FRAME_CYCLES_MAX;
    while !is_so(bench) {
        assert!(bench.cycle < end, "cycle {end}: {:?}", bench.node.outputs());
        bench.turn(None);
    }
}

/// Rounds of one put and the acknowledgements of all followers of three nodes, back to back. Says the shortest and the longest way
/// to a commit, in cycles.
fn commit_cycles(made: Made, shape: Shape, frames_count: u64) -> (u64, u64) {
    let setup = setup(3, 0);
    let mut bench = Bench::new(made.leader(shape), shape.beat_bytes, 1, Pauses::NONE);
    bench.configure(&setup, Some(shape.nodes_count));
    let ack = |node, end| wrapped(node_at(node), node_at(0), &framed(Kind::Ack, [setup.term, end, 0], &[]));
    let mut cycles = Vec::new();
    for round in 0..frames_count / 3 {
        let end = setup.next + round + 1;
        bench.write(fpga_model::registers::DRAINED_END, end - 1);
        for frame in [put(setup.sessions[0].0, round + 1, b"value"), ack(1, end), ack(2, end)] {
            bench.send(&frame);
        }
        let begun_count = bench.source.begun_at.len();
        turn_until(&mut bench, 1, |bench| !bench.commits.is_empty());
        // The put, then the acknowledgement that completes the quorum of two.
        let (committed, at) = bench.commits.pop_front().expect("it has one");
        assert_eq!((committed, begun_count), (end, 0));
        cycles.push(at - bench.source.begun_at[1]);
        turn_until(&mut bench, 3, |bench| bench.source.is_empty());
        bench.source.begun_at.clear();
        bench.tx.frames.clear();
        bench.log.frames.clear();
    }
    let (min, max) = (cycles.iter().min(), cycles.iter().max());
    (*min.expect("rounds"), *max.expect("rounds"))
}

#[test]
fn models_commit_in_a_fixed_number_of_cycles() {
    for (shape, expected) in [(Shape::NARROW, NARROW_COMMIT_CYCLES), (Shape::WIDE, WIDE_COMMIT_CYCLES)] {
        assert_eq!(
            commit_cycles(Made::Model, shape, 3_000),
            (expected, expected),
            "{shape:?}"
        );
    }
}

fn the_rtl_commits(seeds: std::ops::RangeInclusive<u32>) {
    for seed in seeds {
        let made = Made::Rtl { seed };
        let narrow = commit_cycles(made, Shape::NARROW, 20_000);
        assert_eq!(narrow, (NARROW_COMMIT_CYCLES, NARROW_COMMIT_CYCLES), "seed {seed}");
        let wide = commit_cycles(made, Shape::WIDE, 600);
        assert_eq!(wide, (WIDE_COMMIT_CYCLES, WIDE_COMMIT_CYCLES), "seed {seed}");
    }
}

/// Sixteen beginnings, in two tests, for two CPUs.
macro_rules! the_rtl_commits {
    ($name:ident, $seeds:expr) => {
        #[test]
        #[cfg_attr(
            not(rtl),
            ignore = "Verilator was not here when this was built (apt-get install verilator)"
        )]
        fn $name() {
            the_rtl_commits($seeds);
        }
    };
}
the_rtl_commits!(the_rtl_commits_in_a_fixed_number_of_cycles_from_eight_beginnings, 1..=8);
the_rtl_commits!(the_rtl_commits_in_a_fixed_number_of_cycles_from_eight_others, 9..=16);

/// Cycles per frame of `frames`, sent back to back.
fn cycles_each(made: Made, frames: &[Vec<u8>]) -> f64 {
    let setup = setup(3, 0);
    let mut bench = Bench::new(made.leader(Shape::NARROW), 8, 1, Pauses::NONE);
    bench.configure(&setup, Some(Shape::NARROW.nodes_count));
    let begun = bench.cycle;
    for frame in frames {
        bench.send(frame);
    }
    turn_until(&mut bench, frames.len(), |bench| bench.source.is_empty());
    (bench.cycle - begun) as f64 / frames.len() as f64
}

fn keeps_up(made: Made) {
    let count = 4_000;
    // Frames of 64 bytes, of which the MAC keeps four: none is ours, all go to the host.
    let smallest = vec![wrapped(CLIENT, node_at(0), &[0x5a; 18]); count];
    let each = cycles_each(made, &smallest);
    assert!(
        each <= LINE_RATE_CYCLES,
        "{each} cycles a frame; 10 GbE has one in {LINE_RATE_CYCLES}"
    );
    // Our smallest: 82 bytes, 106 on the wire. They repeat, so that all but the first count for nothing.
    let ack = wrapped(node_at(1), node_at(0), &framed(Kind::Ack, [3, 7, 0], &[]));
    let each = cycles_each(made, &vec![ack; count]);
    assert!(each <= 11.01, "{each} cycles an acknowledgement of 11 beats");
}

#[test]
fn the_model_keeps_up_with_10_gbe() {
    keeps_up(Made::Model);
}

#[test]
#[cfg_attr(
    not(rtl),
    ignore = "Verilator was not here when this was built (apt-get install verilator)"
)]
fn the_rtl_keeps_up_with_10_gbe() {
    keeps_up(Made::Rtl { seed: 5 });
}
