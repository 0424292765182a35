//! One history of the suite through one node, for the tests here and the long ones of `tests/tests/rtl_long.rs`.

use fpga_model::{
    node::{Bench, Shape},
    stream::{Pauses, Sink},
};

use crate::{
    nodes::Made,
    suite::{Plane, Sent, history, setup},
};

/// A history of so many frames, drawn from `seed`, through a leader or a follower.
///
/// # Panics
/// If what the node shows is not, byte for byte, what user space says of the same frames.
pub fn holds(made: Made, shape: Shape, leads: bool, seed: u64, pauses: Pauses, frames_count: usize) {
    let nodes_count = [3, 5, 7][seed as usize % 3];
    let setup = setup(nodes_count, if leads { 0 } else { 1 });
    let sent = history(Plane::Pipeline, &setup, leads, shape.ring_log2, seed, frames_count);
    let node = if leads {
        made.leader(shape)
    } else {
        made.follower(shape)
    };
    let mut bench = Bench::new(node, shape.beat_bytes, seed, Pauses::NONE);
    bench.configure(&setup, leads.then_some(shape.nodes_count));
    bench.set_pauses(pauses);
    for Sent { bytes, is_bad, .. } in &sent {
        bench.source.send(bytes, shape.beat_bytes, *is_bad);
    }
    bench.settle();
    let what = format!(
        "{made:?}, {} bytes a beat, leads: {leads}, seed {seed}, {pauses:?}",
        shape.beat_bytes
    );
    let expected = |of: fn(&Sent) -> Option<Vec<u8>>| sent.iter().filter_map(of).collect::<Vec<_>>();
    let got = |sink: &Sink| sink.frames.iter().map(|frame| frame.bytes.clone()).collect::<Vec<_>>();
    same(&what, "tx", &got(&bench.tx), &expected(|sent| sent.answer.tx.clone()));
    same(
        &what,
        "slow",
        &got(&bench.slow),
        &expected(|sent| sent.answer.slow.then(|| sent.bytes.clone())),
    );
    same(
        &what,
        "log",
        &got(&bench.log),
        &expected(|sent| sent.answer.log.map(|_| sent.bytes.clone())),
    );
    let slots: Vec<u64> = sent.iter().filter_map(|sent| sent.answer.log).collect();
    assert_eq!(Vec::from(bench.log_slots.clone()), slots, "{what}");
    let commits: Vec<u64> = sent.iter().filter_map(|sent| sent.answer.commit).collect();
    let got: Vec<u64> = bench.commits.iter().map(|&(end, _)| end).collect();
    assert_eq!(got, commits, "{what}");
    assert!(
        bench.tx.is_between() && bench.slow.is_between() && bench.log.is_between(),
        "{what}"
    );
}

#[track_caller]
fn same(what: &str, stream: &str, got: &[Vec<u8>], expected: &[Vec<u8>]) {
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            got == expected,
            "{what}: {stream} frame {index} is\n{got:02x?}\nand not\n{expected:02x?}"
        );
    }
    assert_eq!(got.len(), expected.len(), "{what}: frames on {stream}");
}
