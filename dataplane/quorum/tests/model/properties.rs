//! What must hold in every state, and what must be seen in some.

use stateright::Property;

use crate::{
    rules::Rules,
    state::{Replica, Role, SLOTS_MAX, State},
};

pub const ELECTION_SAFETY: &str = "a term has at most one leader";
pub const LOG_MATCHING: &str = "logs with the same entry are the same up to it";
pub const LEADER_COMPLETENESS: &str = "a leader has all that was committed in earlier terms";
pub const STATE_MACHINE_SAFETY: &str = "a slot is committed with one entry";
/// Stronger than leader completeness: it fails already where the wrong leader could be elected, a term before it is.
pub const NO_FORGETFUL_LEADER: &str = "whoever lacks a committed entry cannot be elected";
pub const SOMETHING_IS_COMMITTED: &str = "a follower learns of a commit";
pub const A_SECOND_LEADER_COMMITS: &str = "a second leader commits";

/// All of them: the paper's figure 3 first.
pub fn all() -> Vec<Property<Rules>> {
    vec![
        Property::always(ELECTION_SAFETY, |_, state: &State| {
            state.leaders.iter().all(|mask| mask.count_ones() <= 1)
        }),
        Property::always(LOG_MATCHING, |_, state: &State| {
            state.replicas.iter().enumerate().all(|(index, a)| {
                state.replicas[index + 1..].iter().all(|b| {
                    let same = (0..SLOTS_MAX).rfind(|&slot| a.log[slot] == b.log[slot] && a.log[slot] != 0);
                    same.is_none_or(|slot| a.log[..slot] == b.log[..slot])
                })
            })
        }),
        Property::always(LEADER_COMPLETENESS, |_, state: &State| {
            state
                .replicas
                .iter()
                .filter(|replica| replica.role == Role::Leader)
                .all(|leader| {
                    let was_before = |&(entry_term, in_term): &(u8, u8)| entry_term != 0 && in_term < leader.term;
                    let mut slots = state.chosen.iter().zip(leader.log);
                    slots.all(|(chosen, entry_term)| !was_before(chosen) || chosen.0 == entry_term)
                })
        }),
        Property::always(STATE_MACHINE_SAFETY, |_, state: &State| !state.has_diverged),
        Property::always(NO_FORGETFUL_LEADER, |rules: &Rules, state: &State| {
            let has_all = |replica: &Replica| {
                let mut slots = state.chosen.iter().zip(replica.log);
                slots.all(|(chosen, entry_term)| chosen.0 == 0 || chosen.0 == entry_term)
            };
            let could_win = |replica: &Replica| {
                let would_vote = |voter: &&Replica| voter.newness() <= replica.newness();
                state.replicas.iter().filter(would_vote).count() >= rules.elect_quorum
            };
            state
                .replicas
                .iter()
                .all(|replica| has_all(replica) || !could_win(replica))
        }),
        Property::sometimes(SOMETHING_IS_COMMITTED, |_, state: &State| {
            state
                .replicas
                .iter()
                .any(|replica| replica.role == Role::Follower && replica.commit > 0)
        }),
        Property::sometimes(A_SECOND_LEADER_COMMITS, |_, state: &State| {
            let leaders_count = state.leaders.iter().filter(|mask| **mask != 0).count();
            let in_terms = state.chosen.map(|(_, in_term)| in_term);
            leaders_count >= 2 && in_terms.iter().any(|term| *term > 1)
        }),
    ]
}
