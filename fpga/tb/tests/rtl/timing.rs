//! How many cycles a frame takes: the same number every time, which is the point of a pipeline.

use dataplane_wire::frame::Kind;
use fpga_model::{
    node::{Bench, Shape},
    stream::Pauses,
};
use fpga_tb::{
    nodes::Made,
    suite::{CLIENT, framed, node_at, setup, wrapped},
    timing::{NARROW_COMMIT_CYCLES, WIDE_COMMIT_CYCLES, commit_cycles, turn_until},
};

/// 10 GbE in the smallest frames: 10^10 / (8 · 84) a second, where 84 bytes are frame, check sequence, preamble and gap
/// (IEEE 802.3, 4.2.3 and 4.4.2); at 64 bits in 156.25 MHz, 10.5 cycles each.
const LINE_RATE_CYCLES: f64 = 156.25e6 / (1e10 / (8.0 * 84.0));

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

/// Here a short while of each beginning: `tests/tests/rtl_long.rs` has the long one.
#[test]
#[cfg_attr(
    not(rtl),
    ignore = "Verilator was not here when this was built (apt-get install verilator)"
)]
fn the_rtl_commits_in_a_fixed_number_of_cycles() {
    for seed in 1..=16 {
        let made = Made::Rtl { seed };
        for (shape, expected) in [(Shape::NARROW, NARROW_COMMIT_CYCLES), (Shape::WIDE, WIDE_COMMIT_CYCLES)] {
            let cycles = commit_cycles(made, shape, 150);
            assert_eq!(cycles, (expected, expected), "{shape:?}, seed {seed}");
        }
    }
}

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
    let count = 1_500;
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
