//! Seeded histories: mostly a cluster at work, and between that everything that a network, a restarted client or a stranger may
//! send; and the golden frames of `dataplane_wire`.

use dataplane_wire::{
    frame::Kind,
    quorum::{ack::ASKS, request::Command},
    vectors::{ACKS, APPENDS, DATAGRAMS, FRAMES},
};
use fpga_model::{
    frames::{CLIENT, GROUP, Place, SESSION, TERM, framed, node_at, wrapped},
    node::Setup,
    rng::Rng,
};

use super::{
    frames::{put, requested},
    oracle::{Answer, Oracle, Plane},
};

/// A frame and what must come of it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The MAC says that its check sequence is wrong.
    pub is_bad: bool,
    /// What user space says.
    pub answer: Answer,
}

/// Every golden datagram and, in a datagram from `from` to `to`, every golden frame, one after the other.
pub fn goldens(from: Place, to: Place) -> Vec<Vec<u8>> {
    // A stream has no frame without bytes.
    let datagrams = DATAGRAMS
        .iter()
        .map(|vector| vector.bytes.to_vec())
        .filter(|bytes| !bytes.is_empty());
    let ours = FRAMES.iter().map(|vector| vector.bytes);
    let ours = ours.chain(APPENDS.iter().map(|vector| vector.bytes));
    let ours = ours.chain(ACKS.iter().map(|vector| vector.bytes));
    datagrams.chain(ours.map(|bytes| wrapped(from, to, bytes))).collect()
}

/// What a leader, or a follower, is sent, and what it must do.
pub fn history(plane: Plane, setup: &Setup, leads: bool, ring_log2: u32, seed: u64, frames_count: usize) -> Vec<Sent> {
    let mut rng = Rng::new(seed);
    let mut oracle = Oracle::new(plane, setup, leads, ring_log2);
    let mut newest = 0;
    let mut sent = Vec::new();
    while sent.len() < frames_count {
        let bytes = match leads {
            true => to_leader(&mut rng, setup, &oracle, &mut newest),
            false => to_follower(&mut rng, setup, &oracle),
        };
        let (bytes, is_bad) = spoiled(&mut rng, bytes);
        let answer = oracle.answer(&bytes, is_bad);
        sent.push(Sent { bytes, is_bad, answer });
    }
    sent
}

fn to_leader(rng: &mut Rng, setup: &Setup, oracle: &Oracle, newest: &mut u64) -> Vec<u8> {
    let nodes_count = setup.places.len() as u64;
    let leader = node_at(setup.own);
    let value = vec![rng.draw() as u8; value_bytes(rng)];
    match rng.below(20) {
        0..6 => {
            *newest += 1 + rng.below(8) / 7;
            put(SESSION, *newest, &value)
        }
        // A request once more, of nobody, or of another kind.
        6 => match rng.below(4) {
            0 => put(SESSION, newest.saturating_sub(rng.below(3)), &value),
            1 => put(SESSION + rng.below(3), *newest + 1, &value),
            2 => wrapped(
                CLIENT,
                leader,
                &framed(
                    Kind::QuorumRequest,
                    [0, 1, 2],
                    &requested(SESSION, *newest + 1, Command::Get { key: b"key" }),
                ),
            ),
            _ => wrapped(
                CLIENT,
                leader,
                &framed(
                    Kind::QuorumRequest,
                    [0, 1, 2],
                    &requested(0, *newest + 1, Command::Open),
                ),
            ),
        },
        // An acknowledgement that is odd in one way.
        7 => {
            let from = node_at(rng.below(nodes_count + 2) as u8);
            let term = TERM + rng.below(3) - 1;
            let end = oracle.next + rng.below(3);
            let payload = &[0; 3][..rng.below(2) as usize * 3];
            wrapped(from, leader, &framed(Kind::Ack, [term, end, 0], payload))
        }
        8 => {
            let all = goldens(node_at(1), leader);
            all[rng.below(all.len() as u64) as usize].clone()
        }
        _ => {
            let from = node_at(1 + rng.below(nodes_count - 1) as u8);
            let behind = [0, 0, 0, 1, 2, rng.below(9)][rng.below(6) as usize];
            let echo = if rng.percent(5) { ASKS } else { 0 };
            let end = oracle.next.saturating_sub(behind);
            wrapped(from, leader, &framed(Kind::Ack, [TERM, end, echo], &[]))
        }
    }
}

fn to_follower(rng: &mut Rng, setup: &Setup, oracle: &Oracle) -> Vec<u8> {
    let local = node_at(setup.own);
    let to = if rng.percent(50) { local } else { GROUP };
    let payload = match rng.below(10) {
        0 => vec![rng.draw() as u8; rng.below(24) as usize],
        _ => {
            let value = vec![rng.draw() as u8; value_bytes(rng)];
            requested(
                SESSION,
                oracle.next,
                Command::Put {
                    key: b"key",
                    value: &value,
                },
            )
        }
    };
    let commit_end = oracle.next.saturating_sub(rng.below(4));
    match rng.below(16) {
        0 => {
            let all = goldens(node_at(0), to);
            all[rng.below(all.len() as u64) as usize].clone()
        }
        // A stranger's, of another term, or of another place in the log.
        1 => wrapped(
            node_at(2),
            to,
            &framed(Kind::Append, [TERM, oracle.next, commit_end], &payload),
        ),
        2 => wrapped(
            node_at(0),
            to,
            &framed(
                Kind::Append,
                [TERM + rng.below(3) - 1, oracle.next, commit_end],
                &payload,
            ),
        ),
        3 | 4 => {
            let slot = (oracle.next + rng.below(5)).saturating_sub(2);
            wrapped(
                node_at(0),
                to,
                &framed(Kind::Append, [TERM, slot, commit_end], &payload),
            )
        }
        _ => wrapped(
            node_at(0),
            to,
            &framed(Kind::Append, [TERM, oracle.next, commit_end], &payload),
        ),
    }
}

/// Mostly small; some that end where a beat ends, and some that are too long.
fn value_bytes(rng: &mut Rng) -> usize {
    match rng.below(10) {
        0..5 => rng.below(24) as usize,
        5..9 => rng.below(160) as usize,
        _ => 200 + rng.below(200) as usize,
    }
}

/// One in ten frames is damaged, cut, lengthened, very long, or said to be bad by the MAC.
fn spoiled(rng: &mut Rng, mut bytes: Vec<u8>) -> (Vec<u8>, bool) {
    if !rng.percent(10) {
        return (bytes, false);
    }
    let at = rng.below(bytes.len() as u64) as usize;
    match rng.below(6) {
        0 => return (bytes, true),
        1 | 2 => bytes[at] ^= 1 << rng.below(8),
        3 => bytes.truncate(at.max(1)),
        4 => bytes.extend((0..=rng.below(20)).map(|byte| byte as u8)),
        _ => bytes.resize(bytes.len() + 1_900 + rng.below(700) as usize, 0x5a),
    }
    (bytes, false)
}
