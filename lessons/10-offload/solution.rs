//! Lesson 10, solved: the few rules that a program in the driver has to keep, as ordinary code, so that every order of events
//! can be tried; and the programs themselves, where root may load them.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use dataplane_wire::{ethernet::Mac, frame::Kind};
use ebpf_host::{HostError, Loaded, Program, Settings, kinds};

/// Node 0 leads three; two make a commit.
const VOTERS: u32 = 0b111;
const LEADER: u32 = 0;
const COMMIT_COUNT: u32 = 2;

// ---- 1. Counted once ------------------------------------------------------------------------------------------------

/// What the program knows about one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Who has the entry, as bits.
    nodes: u32,
}

impl Count {
    /// The leader has it itself.
    fn new() -> Count {
        Count { nodes: 1 << LEADER }
    }

    /// An acknowledgement of `node` came. Says whether it is to become the client's answer.
    fn acknowledged(&mut self, node: u32) -> bool {
        // Nodes are counted, not frames: a network may bring the same frame twice. And a stranger is no voter.
        let before = self.nodes.count_ones();
        self.nodes |= (1 << node) & VOTERS;
        before < COMMIT_COUNT && self.nodes.count_ones() >= COMMIT_COUNT
    }
}

#[test]
fn a_frame_that_comes_twice_is_one_copy_and_a_quorum_is_one_answer() {
    let mut count = Count::new();
    assert!(!count.acknowledged(LEADER), "its own copy is counted already");
    assert!(!count.acknowledged(5), "node 5 is nobody's");
    assert!(count.acknowledged(1), "two of three have it");
    assert!(!count.acknowledged(1), "the same again");
    assert!(!count.acknowledged(2), "it was answered");
}

/// Whatever comes in whatever order: one answer at most, and none before two nodes have it.
#[test]
fn every_order_of_acknowledgements_gives_one_answer() {
    for mut order in 0..4u32.pow(5) {
        let mut count = Count::new();
        let (mut answers_count, mut seen) = (0, 1u32 << LEADER);
        for _ in 0..5 {
            let node = order % 4;
            order /= 4;
            seen |= (1 << node) & VOTERS;
            answers_count += u32::from(count.acknowledged(node));
            assert_eq!(answers_count, u32::from(seen.count_ones() >= COMMIT_COUNT), "{seen:#b}");
        }
    }
}

// ---- 2. Who may append ----------------------------------------------------------------------------------------------

/// The grant: a word that program and replica share. The generation above, the next slot below; generation 0 is no grant.
const GENERATION_SHIFT: u32 = 48;

/// The program: takes the next slot, if it may. `meanwhile` is what happens between its look and its deed.
fn append(grant: &AtomicU64, meanwhile: impl FnOnce()) -> Option<u64> {
    let word = grant.load(Ordering::SeqCst);
    meanwhile();
    if word >> GENERATION_SHIFT == 0 {
        return None;
    }
    // Only if it still is what we looked at: an exchange, not a store.
    grant
        .compare_exchange(word, word + 1, Ordering::SeqCst, Ordering::SeqCst)
        .ok()
        .map(|word| word & ((1 << GENERATION_SHIFT) - 1))
}

/// The replica: takes the grant back. Says behind which slot the program's entries end.
fn revoke(grant: &AtomicU64) -> u64 {
    grant.swap(0, Ordering::SeqCst) & ((1 << GENERATION_SHIFT) - 1)
}

#[test]
fn what_was_taken_back_is_not_used() {
    let grant = AtomicU64::new(7 << GENERATION_SHIFT | 100);
    assert_eq!(append(&grant, || ()), Some(100));
    let mut end = 0;
    let taken = append(&grant, || end = revoke(&grant));
    assert_eq!(
        (taken, end),
        (None, 101),
        "the replica was told that the log ends at 101"
    );
    assert_eq!(grant.load(Ordering::SeqCst), 0, "and there is no grant");
    assert_eq!(append(&grant, || ()), None);
}

/// Taken back and given anew in between, for another term: a word that is only compared by its slot would fit.
#[test]
fn a_new_grant_is_not_the_old_one() {
    let grant = AtomicU64::new(7 << GENERATION_SHIFT | 100);
    let renew = || {
        revoke(&grant);
        grant.store(8 << GENERATION_SHIFT | 100, Ordering::SeqCst);
    };
    assert_eq!(append(&grant, renew), None);
    assert_eq!(append(&grant, || ()), Some(100));
}

// ---- 3. Who speaks for whom -----------------------------------------------------------------------------------------

/// A follower in a chain has kept an entry. `hop` is how far the frame says that it has come: 1 at the first follower, 0 if the
/// leader sent it by itself; `own` is this follower's place in the chain. Says for how many of the chain's followers, from
/// the first, its acknowledgement speaks; 0: for itself alone.
fn speaks_for(hop: u32, own: u32) -> u32 {
    // It came through all before only if it has come exactly as far as to here.
    match hop == own {
        true => own,
        false => 0,
    }
}

#[test]
fn nobody_who_was_left_out_is_acknowledged_for() {
    for own in 1..=4 {
        // Who really has it: with `hop`, those who handed the frame on.
        for hop in 0..=4u32 {
            let have_it = hop.saturating_sub(1);
            let claimed = speaks_for(hop, own);
            assert!(
                claimed <= have_it + 1 && (claimed == 0 || hop == own),
                "follower {own} says that {claimed} have it, and the frame was handed on by {have_it}"
            );
        }
        assert_eq!(speaks_for(own, own), own, "the whole chain behind follower {own}");
    }
}

// ---- The programs themselves ----------------------------------------------------------------------------------------

/// What the verifier had to walk until it believed these rules. Needs root. What a program is told beforehand is constant to the
/// verifier: told to take no kind of frame, nearly nothing is left of it.
#[test]
fn the_verifier_accepts_the_programs() {
    let settings = Settings {
        local_mac: Mac([2, 0, 0, 0, 0, 1]),
        local_ipv4: Some([192, 0, 2, 1].into()),
        local_port: 4001,
        kinds: kinds(&[Kind::QuorumRequest, Kind::Append, Kind::Ack]),
        group: Some((Mac([2, 0, 0, 0, 0, 0xfa]), [239, 192, 0, 250].into())),
        session_count: 1024,
        ..Settings::default()
    };
    for program in [Program::QuorumLeader, Program::QuorumFollower] {
        match Loaded::load(program, &settings) {
            Ok(loaded) => {
                let cost = loaded.cost().expect("the kernel knows its programs");
                println!("{}: {cost}", program.name());
                let idle = Loaded::load(program, &Settings::default()).and_then(|idle| idle.cost());
                let idle = idle.expect("as before");
                assert!(idle.translated_instructions_count < cost.translated_instructions_count);
            }
            Err(error @ (HostError::NotAllowed { .. } | HostError::NoBpf { .. } | HostError::OldKernel { .. })) => {
                return println!("skipped: {error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
