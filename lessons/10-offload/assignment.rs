//! Lesson 10, your turn: the few rules that a program in the driver has to keep, as ordinary code, so that every order of
//! events can be tried. Delete an `#[ignore]`, watch the test fail, mend the function above it.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// Node 0 leads three; two make a commit.
const VOTERS: u32 = 0b111;
const LEADER: u32 = 0;
const COMMIT_COUNT: u32 = 2;

// ---- 1. Counted once ------------------------------------------------------------------------------------------------

/// What the program knows about one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// How many copies there are.
    copies_count: u32,
}

impl Count {
    /// The leader has it itself.
    fn new() -> Count {
        Count { copies_count: 1 }
    }

    /// An acknowledgement of `node` came. Says whether it is to become the client's answer.
    fn acknowledged(&mut self, node: u32) -> bool {
        let is_voter = VOTERS & (1 << node) != 0;
        // One copy more.
        self.copies_count += u32::from(is_voter);
        self.copies_count >= COMMIT_COUNT
    }
}

#[test]
#[ignore = "your turn: delete this line"]
fn a_frame_that_comes_twice_is_one_copy_and_a_quorum_is_one_answer() {
    let mut count = Count::new();
    assert!(!count.acknowledged(LEADER), "its own copy is counted already");
    assert!(!count.acknowledged(5), "node 5 is nobody's");
    assert!(count.acknowledged(1), "two of three have it");
    assert!(!count.acknowledged(1), "the same again");
    assert!(!count.acknowledged(2), "it was answered");
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
    // It was ours a moment ago.
    grant.store(word + 1, Ordering::SeqCst);
    Some(word & ((1 << GENERATION_SHIFT) - 1))
}

/// The replica: takes the grant back. Says behind which slot the program's entries end.
fn revoke(grant: &AtomicU64) -> u64 {
    grant.swap(0, Ordering::SeqCst) & ((1 << GENERATION_SHIFT) - 1)
}

#[test]
#[ignore = "your turn: delete this line"]
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

// ---- 3. Who speaks for whom -----------------------------------------------------------------------------------------

/// A follower in a chain has kept an entry. `hop` is how far the frame says that it has come: 1 at the first follower, 0 if the
/// leader sent it by itself; `own` is this follower's place in the chain. Says for how many of the chain's followers, from
/// the first, its acknowledgement speaks; 0: for itself alone.
fn speaks_for(hop: u32, own: u32) -> u32 {
    // The last one has everything that came through the others.
    match hop {
        0 => own,
        hop => hop.max(own),
    }
}

#[test]
#[ignore = "your turn: delete this line"]
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
