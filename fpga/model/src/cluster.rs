//! A leader and its followers, joined by wires of one cycle and a switch that knows no other delay: what a commit takes from end to
//! end, stage by stage. MACs, transceivers, cables and a real switch are left out; each of them adds a constant.
//!
//! Whoever measures software's commits measures a client as well. Here a put begins when its first beat is taken by the leader.

use std::collections::VecDeque;

use crate::{
    frames::{CLIENT, FIRST, put, setup},
    node::{Follower, Inputs, Leader, Node, Shape},
    registers,
    stream::{Beat, beats_of},
};

/// When the stages of one commit were reached, in cycles since the put's first beat was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The append's first beat is shown by the leader.
    pub appended: u64,
    /// From the append's first beat at a follower to the first beat of its acknowledgement.
    pub follower: u64,
    /// The first beat of the acknowledgement that completes the quorum is taken by the leader.
    pub decided: u64,
    /// The new commit end is shown.
    pub committed: u64,
    /// The first beat of the client's answer is shown.
    pub answered: u64,
    /// The last beat of it.
    pub done: u64,
}

/// Beats on their way to a node.
#[derive(Clone, Debug)]
struct Wire {
    beats: VecDeque<Beat>,
    /// The next one begins a frame.
    is_first: bool,
}

/// More beats than this on a wire, and something stands still.
const WIRE_BEATS_MAX: usize = 4_096;

impl Wire {
    const fn new() -> Wire {
        Wire {
            beats: VecDeque::new(),
            is_first: true,
        }
    }

    fn push(&mut self, beat: Beat) {
        assert!(
            self.beats.len() < WIRE_BEATS_MAX,
            "a wire fills up: a node stands still"
        );
        self.beats.push_back(beat);
    }

    /// The node has taken what it was shown: does a frame begin with it, and does one end?
    fn taken(&mut self) -> (bool, bool) {
        let beat = self.beats.pop_front().expect("it was shown one");
        let begins = std::mem::replace(&mut self.is_first, beat.last);
        (begins, beat.last)
    }
}

/// What was seen in a cycle.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// A frame of this lane begins to enter the leader.
    lane_begun: Option<usize>,
    /// An append begins to enter a follower.
    follower_begun: bool,
    append_shown: bool,
    ack_shown: bool,
    committed: Option<u64>,
    answer_shown: bool,
    answer_done: bool,
}

/// Node 0 leads, and every frame is the fast path's.
#[derive(Clone, Debug)]
pub struct Cluster {
    leader: Leader,
    followers: Vec<Follower>,
    to_followers: Vec<Wire>,
    /// To the leader, by who sends: the followers, then the client. It takes them frame by frame, the first lane first.
    lanes: Vec<Wire>,
    /// The lane whose frame the leader is being shown.
    lane: Option<usize>,
    /// The frame that the leader is sending is for the client; none between frames.
    sends_answer: Option<bool>,
    beat_bytes: usize,
    cycle: u64,
    next: u64,
    sequence: u64,
    commit_count: u64,
}

/// Cycles until a put is taken for lost: a hundred times what one takes.
const COMMIT_CYCLES_MAX: u64 = 100_000;

impl Cluster {
    /// `nodes_count` nodes of this shape, configured and at rest.
    ///
    /// # Panics
    /// If there are fewer than two nodes, or more than the shape has room for.
    pub fn new(shape: Shape, nodes_count: u8) -> Cluster {
        assert!(
            (2..=shape.nodes_count).contains(&nodes_count.into()),
            "{nodes_count} nodes"
        );
        let mut leader = Leader::new(shape);
        let own = setup(nodes_count, 0);
        configure(&mut leader, own.writes().into_iter().chain(own.ends(shape.nodes_count)));
        let followers = (1..nodes_count).map(|node| {
            let mut follower = Follower::new(shape);
            configure(&mut follower, setup(nodes_count, node).writes());
            follower
        });
        let followers: Vec<Follower> = followers.collect();
        Cluster {
            to_followers: vec![Wire::new(); followers.len()],
            lanes: vec![Wire::new(); followers.len() + 1],
            lane: None,
            sends_answer: None,
            leader,
            followers,
            beat_bytes: shape.beat_bytes,
            cycle: 0,
            next: FIRST,
            sequence: 0,
            commit_count: own.commit_count.into(),
        }
    }

    /// One put with this value, after `rest_cycles` of silence, until everybody has it.
    ///
    /// # Panics
    /// If no commit comes of it, or the wrong one.
    pub fn put(&mut self, value: &[u8], rest_cycles: u64) -> Commit {
        self.rest(rest_cycles);
        self.sequence += 1;
        let client = self.lanes.len() - 1;
        for beat in beats_of(&put(self.sequence, value), self.beat_bytes, false) {
            self.lanes[client].push(beat);
        }
        let end = self.next + 1;
        let (mut begun, mut acks) = (None, 0);
        let mut commit = Commit::default();
        let mut follower_begun = None;
        let limit = self.cycle + COMMIT_CYCLES_MAX;
        while commit.done == 0 || self.is_busy() {
            assert!(
                self.cycle < limit,
                "no commit of slot {} after {COMMIT_CYCLES_MAX} cycles",
                self.next
            );
            let seen = self.turn(None);
            let since = |begun: Option<u64>| self.cycle - 1 - begun.expect("the put was taken first");
            if seen.lane_begun == Some(client) {
                begun = Some(self.cycle - 1);
            }
            if seen.lane_begun.is_some_and(|lane| lane != client) {
                acks += 1;
                // The leader has the entry itself.
                if acks == self.commit_count - 1 {
                    commit.decided = since(begun);
                }
            }
            if seen.append_shown && commit.appended == 0 {
                commit.appended = since(begun);
            }
            if seen.follower_begun && follower_begun.is_none() {
                follower_begun = Some(self.cycle - 1);
            }
            if seen.ack_shown && commit.follower == 0 {
                commit.follower = since(follower_begun);
            }
            if let Some(seen_end) = seen.committed {
                assert_eq!(seen_end, end, "another slot's commit");
                commit.committed = since(begun);
            }
            if seen.answer_shown && commit.answered == 0 {
                commit.answered = since(begun);
            }
            if seen.answer_done {
                commit.done = since(begun);
            }
        }
        assert!(commit.committed > 0, "an answer without a commit");
        // The hosts take the entry out of their rings.
        self.rest(registers::SETTLE_CYCLES.into());
        self.next = end;
        self.turn(Some((registers::DRAINED_END, end)));
        commit
    }

    /// Cycles since the beginning.
    pub const fn cycle(&self) -> u64 {
        self.cycle
    }

    fn rest(&mut self, cycles: u64) {
        for _ in 0..cycles {
            self.turn(None);
        }
    }

    /// Is anything under way?
    fn is_busy(&self) -> bool {
        let wires = self.to_followers.iter().chain(&self.lanes);
        let is_showing = |node: &dyn Node| {
            let outputs = node.outputs();
            outputs.tx.is_some() || outputs.log.is_some() || outputs.commit.is_some()
        };
        wires.map(|wire| wire.beats.len()).sum::<usize>() > 0
            || is_showing(&self.leader)
            || self.followers.iter().any(|follower| is_showing(follower))
    }

    /// A cycle, in which every host may write the same register.
    fn turn(&mut self, write: Option<(u8, u64)>) -> Seen {
        let mut seen = Seen::default();
        let outputs = self.leader.outputs();
        assert!(outputs.slow.is_none(), "the leader leaves a frame to its host");
        seen.committed = outputs.commit;
        let waiting = || self.lanes.iter().position(|lane| !lane.beats.is_empty());
        let lane = self.lane.or_else(waiting);
        let beat = lane.and_then(|lane| self.lanes[lane].beats.front().copied());
        self.lane = lane;
        if let (true, Some(lane), Some(_)) = (outputs.ready, lane, beat) {
            let (begins, ends) = self.lanes[lane].taken();
            seen.lane_begun = begins.then_some(lane);
            self.lane = (!ends).then_some(lane);
        }
        self.leader.clock(&shown(beat, write));
        for (index, follower) in self.followers.iter_mut().enumerate() {
            let outputs = follower.outputs();
            assert!(
                outputs.slow.is_none(),
                "follower {} leaves a frame to its host",
                index + 1
            );
            let wire = &mut self.to_followers[index];
            let beat = wire.beats.front().copied();
            if outputs.ready && beat.is_some() {
                seen.follower_begun |= wire.taken().0;
            }
            if let Some(beat) = outputs.tx {
                self.lanes[index].push(beat);
                seen.ack_shown = true;
            }
            follower.clock(&shown(beat, write));
        }
        if let Some(beat) = outputs.tx {
            let is_answer = *self.sends_answer.get_or_insert(beat.data[..6] == CLIENT.mac.0);
            if is_answer {
                (seen.answer_shown, seen.answer_done) = (true, beat.last);
            } else {
                seen.append_shown = true;
                self.to_followers.iter_mut().for_each(|wire| wire.push(beat));
            }
            if beat.last {
                self.sends_answer = None;
            }
        }
        self.cycle += 1;
        seen
    }
}

const fn shown(beat: Option<Beat>, write: Option<(u8, u64)>) -> Inputs {
    Inputs {
        write,
        beat,
        ..Inputs::QUIET
    }
}

/// Resets a node, and gives it its grant.
fn configure(node: &mut impl Node, writes: impl IntoIterator<Item = (u8, u64)>) {
    let reset = Inputs {
        rst: true,
        ..Inputs::QUIET
    };
    for _ in 0..4 {
        node.clock(&reset);
    }
    for write in writes.into_iter().chain([(registers::ON, 1)]) {
        while !node.outputs().write_ready {
            node.clock(&Inputs::QUIET);
        }
        node.clock(&shown(None, Some(write)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_commit_of_a_cluster_takes_the_same_cycles() {
        for (shape, commit_cycles) in [(Shape::NARROW, 13), (Shape::WIDE, 6)] {
            for nodes_count in [3, 5, 7] {
                let mut cluster = Cluster::new(shape, nodes_count);
                let first = cluster.put(&[0x61; 64], 0);
                assert_eq!(
                    first.committed - first.decided,
                    commit_cycles,
                    "{nodes_count} nodes: {first:?}"
                );
                assert!(
                    first.appended < first.decided && first.committed <= first.answered,
                    "{first:?}"
                );
                for rest_cycles in 1..40 {
                    let next = cluster.put(&[rest_cycles as u8; 64], rest_cycles);
                    assert_eq!(next, first, "after {rest_cycles} cycles of rest");
                }
            }
        }
    }

    #[test]
    fn acknowledgements_of_more_followers_come_one_after_another() {
        let decided = |nodes_count| Cluster::new(Shape::NARROW, nodes_count).put(&[0x61; 64], 0).decided;
        // The leader has one port: an acknowledgement of 82 bytes is 11 beats.
        assert_eq!(decided(5) - decided(3), 11);
        assert_eq!(decided(7) - decided(5), 11);
    }
}
