//! The model and the real programs on the same frames: the same verdicts, bytes, counters and state. `DPLAB_PARITY_FRAMES` says
//! how many frames, where the ordinary number is not enough.

use dataplane_wire::{
    frame::{self, Header, Kind},
    quorum::{
        ack,
        request::{self, Command, Request},
    },
};
use ebpf_host::quorum::{Count, Grant, Kept, NODES_MAX, Session};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;

use super::{Bpf, GROUP, Model, Program, Ran, SESSIONS_MAX, bpf::mac_of, host_address};
use ebpf_host::HostError;

/// A few seconds' worth.
const FRAMES_COUNT: u64 = 60_000;
const NODE: u32 = 1;

fn framed(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; frame::HEADER_BYTES], payload].concat();
    frame::emit(header, &mut bytes);
    bytes
}

/// Frames and grants around what the programs expect next.
struct Draw {
    rng: Pcg64Mcg,
    sent: Vec<(u32, Vec<u8>)>,
    given: Grant,
    sequence: u64,
}

impl Draw {
    fn near(&mut self, number: u64) -> u64 {
        match self.rng.random_range(0..4) {
            0 => (number + self.rng.random_range(0..4)).saturating_sub(2),
            _ => number,
        }
    }

    fn request(&mut self) -> Vec<u8> {
        // Sessions are given requests that come in turn, late, far too late, and from far ahead.
        self.sequence += if self.rng.random_bool(0.05) { 70 } else { 1 };
        let back = *[1, 3, 10, 100].choose(&mut self.rng).expect("four");
        let sequence = match self.rng.random_bool(0.3) {
            true => self.sequence.saturating_sub(self.rng.random_range(0..back)),
            false => self.sequence,
        };
        let client = self.rng.random_range(0..8);
        let value = vec![7; *[0, 1, 7, 8, 9, 100, 700, 1000].choose(&mut self.rng).expect("some")];
        let (key, value) = (&b"key"[..], &value[..]);
        let command = match self.rng.random_range(0..8) {
            0 => Command::Get { key },
            1 => Command::Append { key, value },
            _ => Command::Put { key, value },
        };
        let request = Request {
            client,
            sequence,
            command,
        };
        let mut payload = vec![0; request.len_bytes()];
        request::emit(&request, &mut payload);
        let header = Header {
            kind: Kind::QuorumRequest,
            term: 0,
            slot: sequence,
            sent_ns: self.rng.random(),
        };
        framed(&header, &payload)
    }

    fn frame(&mut self, next: u64, commit_end: u64) -> (u32, Vec<u8>) {
        if !self.sent.is_empty() && self.rng.random_bool(0.2) {
            return self.sent.choose(&mut self.rng).expect("not empty").clone();
        }
        let from = self.rng.random_range(0..5);
        let mut bytes = match self.rng.random_range(0..4) {
            0 => self.request(),
            1 => {
                let payload = vec![3; self.rng.random_range(0..300)];
                let header = Header {
                    kind: Kind::Append,
                    term: self.near(self.given.term),
                    slot: match self.rng.random_range(0..8) {
                        0 => next + self.rng.random_range(0..70),
                        _ => self.near(next),
                    },
                    sent_ns: self.near(commit_end),
                };
                framed(&header, &payload)
            }
            2 => {
                let header = Header {
                    kind: Kind::Ack,
                    term: self.near(self.given.term),
                    slot: self.near(self.rng.clone().random_range(commit_end.min(next)..=next)),
                    sent_ns: if self.rng.random_bool(0.3) { ack::ASKS } else { 0 },
                };
                framed(&header, &[])
            }
            _ => {
                let kind = *[Kind::Entries, Kind::Report, Kind::QuorumReply]
                    .choose(&mut self.rng)
                    .expect("some");
                let header = Header {
                    kind,
                    term: 3,
                    slot: next,
                    sent_ns: 0,
                };
                framed(&header, &[1; 30])
            }
        };
        if self.rng.random_bool(0.1) {
            let bit = self.rng.random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if self.rng.random_bool(0.02) {
            bytes.truncate(self.rng.random_range(0..bytes.len()));
        }
        self.sent.push((from, bytes.clone()));
        if self.sent.len() > 40 {
            self.sent.remove(0);
        }
        (from, bytes)
    }

    fn grant(&mut self) -> (bool, Vec<Session>) {
        let is_leader = self.rng.random_bool(0.5);
        let next = self.rng.random_range(3..30);
        let rng = &mut self.rng;
        self.given = Grant {
            next,
            term: rng.random_range(3..6),
            node: NODE,
            leader: if is_leader {
                NODE
            } else {
                *[0, 2].choose(rng).expect("two")
            },
            commit_end: rng.random_range(1..=next),
            append_end: next + rng.random_range(0..60),
            entry_bytes_max: *[200, 1382].choose(rng).expect("two"),
            waits_for_disk: rng.random_bool(0.3),
            term_begin: rng.random_range(0..next),
            in_flight_slots: rng.random_range(1..40),
            voters: rng.random_range(1..32) | 1 << NODE,
            commit_count: rng.random_range(1..4),
            acked_end: std::array::from_fn(|_| rng.random_range(0..=next)),
            places: std::array::from_fn(|node| {
                let address = host_address(node as u32);
                (node < 5).then_some((address, mac_of(&address)))
            }),
            group: Some((GROUP, mac_of(&GROUP))),
            hold_slots: *[0, 1, 63, 64].choose(rng).expect("four"),
            session_window: *[1, 2, 5, 64, 1000].choose(rng).expect("five"),
        };
        let sessions = (0..u64::from(SESSIONS_MAX)).map(|id| {
            let id = if rng.random_bool(0.8) { id } else { 0 };
            Session::new(id, self.sequence.saturating_sub(rng.random_range(0..4)))
        });
        (is_leader, sessions.collect())
    }
}

#[test]
fn the_model_does_what_the_programs_do() {
    let Some((frames_count, totals)) = compare(true) else {
        return;
    };
    let missing: Vec<&str> = Count::ALL
        .into_iter()
        .filter(|&count| totals[count as usize] == 0 && count != Count::Busy)
        .map(Count::name)
        .collect();
    assert!(missing.is_empty(), "{frames_count} frames never came to {missing:?}");
}

#[test]
fn the_model_counts_as_the_programs_do_where_replicas_append() {
    let Some((_, totals)) = compare(false) else { return };
    let count = |what: Count| totals[what as usize];
    assert!(count(Count::Counted) > 0 && count(Count::CommittedUp) > 0, "{totals:?}");
    assert_eq!(count(Count::Answered), 0, "the answer is the replica's");
}

/// Both on the same frames: how many there were, and what was counted. A leader's program takes requests if it `appends`; else it
/// is told how far the log goes.
fn compare(appends: bool) -> Option<(u64, [u64; Count::ALL.len()])> {
    let mut bpf = match Bpf::of_parts(NODE, SESSIONS_MAX, appends) {
        Ok(bpf) => bpf,
        Err(error @ (HostError::NotAllowed { .. } | HostError::NoBpf { .. } | HostError::OldKernel { .. })) => {
            println!("not run: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let frames_count = std::env::var("DPLAB_PARITY_FRAMES").ok();
    let frames_count = frames_count.map_or(FRAMES_COUNT, |count| count.parse().expect("a number of frames"));
    let seed = rand::random();
    println!("frames from seed {seed}");
    let model = Model::new(SESSIONS_MAX, None);
    let mut model = if appends { model } else { model.counting_alone() };
    let mut leads = false;
    let mut draw = Draw {
        rng: Pcg64Mcg::seed_from_u64(seed),
        sent: Vec::new(),
        given: super::model::NO_GRANT,
        sequence: 0,
    };
    let mut outcomes = [0u64; 3];
    let counted = |program: &dyn Program| Count::ALL.map(|count| program.count(count));
    let (mut model_before, mut bpf_before) = ([0; Count::ALL.len()], [0; Count::ALL.len()]);
    let mut totals = [0u64; Count::ALL.len()];
    for index in 0..frames_count {
        if index % 50 == 0 {
            // Counters are each program's own, so they are compared before the other one may get its turn.
            let (model_now, bpf_now) = (counted(&model), counted(&bpf));
            for (at, count) in Count::ALL.into_iter().enumerate() {
                let (by_model, by_bpf) = (model_now[at] - model_before[at], bpf_now[at] - bpf_before[at]);
                assert_eq!(by_model, by_bpf, "{} before frame {index}", count.name());
                totals[at] += by_model;
            }
            let (is_leader, sessions) = draw.grant();
            leads = is_leader;
            model.grant(is_leader, &draw.given, &sessions);
            bpf.grant(is_leader, &draw.given, &sessions);
            (model_before, bpf_before) = (counted(&model), counted(&bpf));
        }
        match draw.rng.random_range(0..100) {
            0 => assert_eq!(model.revoke(), bpf.revoke()),
            1 => {
                let end = model.seen().next;
                model.drained(end);
                bpf.drained(end);
            }
            2 => {
                let end = model.seen().next + draw.rng.random_range(0..20);
                model.limit(end);
                bpf.limit(end);
            }
            3..20 if leads && !appends => {
                let end = model.seen().next + draw.rng.random_range(0..3);
                model.appended(end);
                bpf.appended(end);
            }
            _ => {}
        }
        let before = model.seen();
        let bpf_heard = bpf.seen();
        let (from, bytes) = draw.frame(before.next, before.commit_end);
        let ran = model.run(host_address(from), &bytes);
        assert_eq!(
            bpf.run(host_address(from), &bytes),
            ran,
            "frame {index} from {from}: {bytes:?}"
        );
        outcomes[match ran {
            Ran::Up => 0,
            Ran::Dropped => 1,
            Ran::Sent(..) => 2,
        }] += 1;
        let (ours, theirs) = (model.seen(), bpf.seen());
        assert_eq!(
            (ours.generation == 0, ours.next, ours.commit_end, ours.acked_end),
            (theirs.generation == 0, theirs.next, theirs.commit_end, theirs.acked_end),
            "frame {index}"
        );
        assert_eq!(
            ours.heard_count != before.heard_count,
            theirs.heard_count != bpf_heard.heard_count,
            "frame {index}"
        );
        for node in 0..NODES_MAX {
            let (was, is) = (before.acked_count[node], ours.acked_count[node]);
            assert_eq!(
                is != was,
                theirs.acked_count[node] != bpf_heard.acked_count[node],
                "frame {index}, node {node}"
            );
        }
        let kept_end = if leads && !appends { 0 } else { ours.next };
        for slot in draw.given.next..kept_end.max(draw.given.next) {
            let (mut one, mut other) = (Kept::default(), Kept::default());
            assert!(
                model.entry(slot, &mut one) && bpf.entry(slot, &mut other),
                "slot {slot} of frame {index}"
            );
            assert_eq!(one, other, "slot {slot} of frame {index}");
        }
    }
    println!("up, dropped, sent: {outcomes:?}");
    Some((frames_count, totals))
}
