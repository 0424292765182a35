//! How many cycles a leader takes to a commit, for the tests here and the long one of `tests/tests/rtl_long.rs`.

use dataplane_wire::frame::Kind;
use fpga_model::{
    node::{Bench, Node, Shape},
    registers::DRAINED_END,
    stream::Pauses,
};

use crate::{
    nodes::Made,
    suite::{framed, node_at, put, setup, wrapped},
};

/// From the first beat of an acknowledgement that completes a quorum to its commit: 11 beats, and the last one's check, count
/// and choice.
pub const NARROW_COMMIT_CYCLES: u64 = 13;
/// The same at 512 bits, where an acknowledgement is two beats.
pub const WIDE_COMMIT_CYCLES: u64 = 6;

/// Far more than any frame here takes, with all that it waits for.
const FRAME_CYCLES_MAX: u64 = 1_000;

/// Turns until it is so; a block that stands still does not hold the test.
///
/// # Panics
/// If it is not so after 1,000 cycles for each of the frames.
#[track_caller]
pub fn turn_until(bench: &mut Bench<Box<dyn Node>>, frames_count: usize, is_so: fn(&Bench<Box<dyn Node>>) -> bool) {
    let end = bench.cycle + frames_count as u64 * FRAME_CYCLES_MAX;
    while !is_so(bench) {
        assert!(bench.cycle < end, "cycle {end}: {:?}", bench.node.outputs());
        bench.turn(None);
    }
}

/// Rounds of one put and the acknowledgements of all followers of three nodes, back to back. Says the shortest and the longest way
/// to a commit, in cycles.
///
/// # Panics
/// If an acknowledgement commits nothing, or another slot than its own.
pub fn commit_cycles(made: Made, shape: Shape, frames_count: u64) -> (u64, u64) {
    let setup = setup(3, 0);
    let mut bench = Bench::new(made.leader(shape), shape.beat_bytes, 1, Pauses::NONE);
    bench.configure(&setup, Some(shape.nodes_count));
    let ack = |node, end| wrapped(node_at(node), node_at(0), &framed(Kind::Ack, [setup.term, end, 0], &[]));
    let mut cycles = Vec::new();
    for round in 0..frames_count / 3 {
        let end = setup.next + round + 1;
        bench.write(DRAINED_END, end - 1);
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
