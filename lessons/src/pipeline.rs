//! Lesson 17: golden frames for the cycle models of `fpga/rtl`, and nodes that wait for them.

use dataplane_wire::vectors::{ACKS, APPENDS};
use fpga_model::{
    frames::{GROUP, node_at, setup, wrapped},
    node::{Bench, Follower, Leader, Node, Setup, Shape},
    stream::{Pauses, beats_of},
};

/// The term of the golden append `a_put` and of the golden acknowledgement `ten`.
const TERM: u64 = 4;
/// The slot of the one.
const SLOT: u64 = 9;
/// What the other says: everything before is there.
pub const END: u64 = SLOT + 1;

/// The golden append `a_put` as it is on the wire, from the leader to its group.
pub fn golden_append() -> Vec<u8> {
    let vector = APPENDS.iter().find(|vector| vector.name == "a_put");
    wrapped(node_at(0), GROUP, vector.expect("it is there").bytes)
}

/// The golden acknowledgement `ten`, without a datagram around it.
pub fn golden_ack_bytes() -> &'static [u8] {
    let vector = ACKS.iter().find(|vector| vector.name == "ten");
    vector.expect("it is there").bytes
}

/// The same as it is on the wire, from the first follower to the leader.
pub fn golden_ack() -> Vec<u8> {
    wrapped(node_at(1), node_at(0), golden_ack_bytes())
}

/// Of beats with so many bytes, 8 or 64.
pub const fn shape(beat_bytes: usize) -> Shape {
    match beat_bytes {
        8 => Shape::NARROW,
        _ => Shape::WIDE,
    }
}

/// Three nodes of the golden frames' term.
fn golden_setup(node: u8) -> Setup {
    Setup {
        term: TERM,
        commit_end: SLOT,
        drained_end: SLOT,
        ..setup(3, node)
    }
}

/// A leader among three that has appended slot 9 and knows of nobody else who has it.
pub fn leader(beat_bytes: usize) -> Bench<Leader> {
    let setup = Setup {
        next: END,
        acked_ends: vec![END, SLOT, SLOT],
        ..golden_setup(0)
    };
    let shape = shape(beat_bytes);
    let mut bench = Bench::new(Leader::new(shape), beat_bytes, 1, Pauses::NONE);
    bench.configure(&setup, Some(shape.nodes_count));
    bench
}

/// A follower that waits for slot 9.
pub fn follower(beat_bytes: usize) -> Bench<Follower> {
    let setup = Setup {
        next: SLOT,
        ..golden_setup(1)
    };
    let mut bench = Bench::new(Follower::new(shape(beat_bytes)), beat_bytes, 1, Pauses::NONE);
    bench.configure(&setup, None);
    bench
}

/// Sends a frame, and says cycle by cycle what goes in and comes out, until nothing has for a while.
pub fn watch<N: Node>(bench: &mut Bench<N>, beat_bytes: usize, frame: &[u8]) -> Vec<String> {
    const QUIET_CYCLES: u64 = 16;
    bench.send(frame);
    let mut beats = beats_of(frame, beat_bytes, false);
    let begun = bench.cycle;
    let mut lines = Vec::new();
    let mut last = begun;
    while bench.cycle - last < QUIET_CYCLES {
        let outputs = bench.node.outputs();
        let waiting_count = bench.source.beats_count();
        let at = bench.cycle - begun;
        bench.turn(None);
        let mut said = Vec::new();
        if bench.source.beats_count() < waiting_count {
            let beat = beats.next().expect("as many as were sent");
            said.push(format!("in  {}", hex(&beat.data[..beat.len_bytes()])));
        }
        if let Some(end) = outputs.commit {
            said.push(format!("commit: everything before {end}"));
        }
        if let Some(beat) = outputs.tx {
            said.push(format!("out {}", hex(&beat.data[..beat.len_bytes()])));
        }
        if outputs.log.is_some() {
            said.push("log".to_owned());
        }
        if !said.is_empty() {
            lines.push(format!("{at:>3}  {}", said.join("; ")));
            last = bench.cycle;
        }
    }
    lines
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
