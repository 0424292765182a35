//! Lesson 17, solved, and three things more to look at.
#![forbid(unsafe_code)]

use fpga_model::{cluster::Cluster, node::Shape};
use fpga_model::{rng::Rng, stream::beats_of};
use lessons::pipeline::{END, follower, golden_ack, golden_ack_bytes, golden_append, leader, watch};

// ---- 1. In which cycle ----------------------------------------------------------------------------------------------

/// Cycles from the first beat of an acknowledgement to its commit: the frame's beats, and what the last one's check, count and choice
/// take: 2 cycles where a beat has 8 bytes, 4 where it has 64 and the frame is there at once.
fn commit_cycles(frame_bytes: usize, beat_bytes: usize) -> u64 {
    let beats = frame_bytes.div_ceil(beat_bytes) as u64;
    beats + if beat_bytes == 8 { 2 } else { 4 }
}

/// The cycle in which the leader shows the golden acknowledgement's commit, from the one in which it took the first beat.
fn seen_cycles(beat_bytes: usize) -> u64 {
    let mut bench = leader(beat_bytes);
    bench.send(&golden_ack());
    while bench.commits.is_empty() {
        bench.turn(None);
    }
    let (end, at) = bench.commits[0];
    assert_eq!(end, END, "the golden frame says that everything before 10 is there");
    at - bench.source.begun_at[0]
}

#[test]
fn the_cycle_of_a_commit_is_known_beforehand() {
    for beat_bytes in [8, 64] {
        let (said, seen) = (commit_cycles(golden_ack().len(), beat_bytes), seen_cycles(beat_bytes));
        println!("{} bits: {seen} cycles, and {said} were said", 8 * beat_bytes);
        assert_eq!(said, seen, "{} bits", 8 * beat_bytes);
    }
}

// ---- 2. Ready is late -----------------------------------------------------------------------------------------------

/// A stream register. `ready` is a register, too, so that it says in a cycle what was true in the last one: a long wire of
/// combinational readiness through every stage would be the slowest path of the design.
#[derive(Clone, Debug)]
struct Stage {
    ready: bool,
    out: Option<u64>,
    /// What came in the cycle in which the output stood still and `ready` did not say so yet.
    skid: Option<u64>,
}

impl Stage {
    fn new() -> Stage {
        Stage {
            ready: true,
            out: None,
            skid: None,
        }
    }

    /// A beat is taken in this cycle.
    fn is_ready(&self) -> bool {
        self.ready
    }

    /// What it shows, until it is taken.
    fn shows(&self) -> Option<u64> {
        self.out
    }

    /// The next edge: what the one before shows, and whether the one behind has taken what this one shows.
    fn clock(&mut self, beat: Option<u64>, taken: bool) {
        let beat = beat.filter(|_| self.is_ready());
        if taken {
            self.out = None;
        }
        // What came while the output stood still goes first.
        match self.out {
            None => self.out = self.skid.take().or(beat),
            Some(_) => self.skid = self.skid.or(beat),
        }
        self.ready = self.skid.is_none();
    }
}

#[test]
fn a_stage_loses_nothing_when_nobody_takes_what_it_shows() {
    let mut rng = Rng::new(17);
    let mut stage = Stage::new();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < 1_000 {
        let taken = stage.shows().is_some() && rng.percent(50);
        if taken {
            got.extend(stage.shows());
        }
        // Shown until it is taken.
        let beat = Some(sent);
        sent += u64::from(stage.is_ready());
        stage.clock(beat, taken);
        assert!(sent < 10_000, "beats go in and do not come out");
    }
    let expected: Vec<u64> = (0..1_000).collect();
    let wrong = got.iter().zip(&expected).position(|(got, expected)| got != expected);
    assert_eq!(wrong, None, "the beat at this place is another one: {:?}", &got[..8]);
}

// ---- 3. Rate is not one over latency --------------------------------------------------------------------------------

/// Acknowledgements a second, if a commit takes so many cycles and a frame may begin every so many (the initiation interval).
fn acks_per_second(commit_cycles: u64, interval_cycles: u64, clock_hz: f64) -> f64 {
    // The next frame does not wait for the last one's decision: it is behind it in the pipeline.
    let _ = commit_cycles;
    clock_hz / interval_cycles as f64
}

#[test]
fn a_pipeline_takes_more_frames_than_one_per_latency() {
    const COUNT: u64 = 1_000;
    const CLOCK_HZ: f64 = 156.25e6;
    let ack = golden_ack();
    let interval_cycles = beats_of(&ack, 8, false).count() as u64;
    let mut bench = leader(8);
    (0..COUNT).for_each(|_| bench.send(&ack));
    let begun = bench.cycle;
    while !bench.source.is_empty() {
        bench.turn(None);
    }
    let seen = COUNT as f64 / ((bench.cycle - begun) as f64 / CLOCK_HZ);
    let said = acks_per_second(seen_cycles(8), interval_cycles, CLOCK_HZ);
    println!("{:.2} million a second, and {:.2} were said", seen / 1e6, said / 1e6);
    assert!(
        (seen / said - 1.0).abs() < 0.01,
        "{seen} a second, and {said} were said"
    );
}

// ---- And ------------------------------------------------------------------------------------------------------------

/// The golden append in, the golden acknowledgement out: the same bytes that user space and the XDP programs are tested with.
#[test]
fn golden_frames_cycle_by_cycle() {
    for beat_bytes in [8, 64] {
        let mut follower = follower(beat_bytes);
        println!("follower, {} bits, golden append:", 8 * beat_bytes);
        watch(&mut follower, beat_bytes, &golden_append())
            .iter()
            .for_each(|line| println!("{line}"));
        let sent = &follower.tx.frames[0].bytes;
        // Behind Ethernet, IPv4 and UDP.
        assert_eq!(
            &sent[42..],
            golden_ack_bytes(),
            "the follower says what the golden frame says"
        );
        let mut leader = leader(beat_bytes);
        println!("leader, {} bits, that acknowledgement:", 8 * beat_bytes);
        watch(&mut leader, beat_bytes, sent)
            .iter()
            .for_each(|line| println!("{line}"));
        assert_eq!(leader.commits.front().map(|&(end, _)| end), Some(END));
    }
}

/// Whenever it comes: there is no scheduler, no cache and no interrupt that could make one commit longer than the next.
#[test]
fn a_histogram_of_one_value() {
    let mut rng = Rng::new(1);
    let mut cluster = Cluster::new(Shape::NARROW, 3);
    let first = cluster.put(b"value", 0);
    for _ in 0..200 {
        assert_eq!(cluster.put(b"value", rng.below(200)), first);
    }
    println!("{first:?}, 201 times");
}

/// What has a length is as long: the value's beats go through the leader's port twice and through a follower's once.
#[test]
fn a_longer_value_takes_its_own_beats() {
    let took = |value: &[u8]| Cluster::new(Shape::NARROW, 3).put(value, 0).committed;
    let (short, long) = (took(&[1; 8]), took(&[1; 88]));
    println!("8 bytes: {short} cycles to the commit; 88 bytes: {long}");
    assert_eq!(
        (long - short) % 10,
        0,
        "80 bytes are ten beats, however often they pass"
    );
    assert!(long > short);
}
