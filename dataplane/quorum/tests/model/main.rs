//! The rules of election and commit as a model, every state of which is visited at a small scope.
//!
//! It is a model of the rules, not the code: terms, votes, logs of terms, quorums, crashes. The rules are Raft's (Ongaro &
//! Ousterhout, "In search of an understandable consensus algorithm", ATC 2014, figure 2) with quorums that may differ
//! between election and commit (Howard, Malkhi & Spiegelman, "Flexible Paxos", OPODIS 2016). The properties are those of
//! the paper's figure 3, and one that is stronger and shows a broken rule a term earlier. Each rule is then broken in turn,
//! and must give a counterexample: a model in which nothing can go wrong shows nothing.
//!
//! The network is a set of messages that only grows. A message that is never taken is lost; one that is taken twice is
//! duplicated; any order is possible. A leader's messages are put there at once, for every slot, because whoever delays or
//! skips one is a case of losing it. A candidate counts the votes that are in the network, and a leader the
//! acknowledgements, for the same reason. Messages that nobody can act on any more are removed, which changes nothing but
//! the number of states.
#![forbid(unsafe_code)]

mod properties;
mod rules;
mod state;
mod symmetry;

use properties::{ELECTION_SAFETY, LEADER_COMPLETENESS, LOG_MATCHING, NO_FORGETFUL_LEADER, STATE_MACHINE_SAFETY};
use rules::Rules;
use stateright::{Checker, HasDiscoveries, Model};
use symmetry::sorted;

/// Visits every state of the scope.
#[track_caller]
fn holds(rules: Rules) {
    // Where some may not stand, who is called what does make a difference.
    assert_eq!(rules.candidate_count, rules.replica_count);
    let name = format!("{rules:?}");
    let checker = rules.checker().threads(2).symmetry_fn(sorted).spawn_dfs().join();
    println!(
        "{} states, {} transitions, longest path {}: {name}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

#[test]
fn the_rules_hold_for_three_replicas() {
    // Room for the paper's figure 8: an entry of term 1, another of term 2, and the first one's leader again in term 3.
    holds(Rules::majority(3, 3, 2, 2));
}

#[test]
fn the_rules_hold_for_quorums_that_differ() {
    holds(Rules::majority(3, 2, 2, 2).quorums(3, 1));
    holds(Rules::majority(3, 3, 2, 2).quorums(2, 3));
    holds(Rules::majority(4, 2, 1, 1).quorums(3, 2));
    holds(Rules::majority(5, 2, 1, 1).quorums(4, 2));
}

/// Breaks a rule and looks for the shortest way to break each property named.
#[track_caller]
fn breaks(rules: Rules, properties: &[&'static str]) {
    let name = format!("{rules:?}");
    for property in properties {
        let checker = rules
            .clone()
            .checker()
            .finish_when(HasDiscoveries::AnyOf([*property].into()))
            .target_state_count(STATES_UNTIL_BROKEN_MAX)
            .spawn_bfs()
            .join();
        let Some(path) = checker.discovery(property) else {
            panic!(
                "\"{property}\" holds in {} states of {name}",
                checker.unique_state_count()
            );
        };
        println!(
            "broken after {} states: \"{property}\" with {name}",
            checker.unique_state_count()
        );
        for (step, action) in path.into_actions().into_iter().enumerate() {
            println!("  {:2} {action:?}", step + 1);
        }
    }
}

/// Transitions looked at before a broken rule counts as not noticed: a bound for a test that fails.
const STATES_UNTIL_BROKEN_MAX: usize = 3_000_000;

#[test]
fn an_election_quorum_of_one_less_is_noticed() {
    let rules = Rules::majority(3, 2, 1, 1).quorums(1, 2);
    breaks(rules, &[ELECTION_SAFETY]);
}

#[test]
fn a_commit_quorum_of_one_less_is_noticed() {
    let rules = Rules::majority(3, 2, 1, 2).quorums(2, 1);
    breaks(rules, &[NO_FORGETFUL_LEADER, LEADER_COMPLETENESS, STATE_MACHINE_SAFETY]);
}

#[test]
fn a_forgotten_vote_is_noticed() {
    let rules = Rules {
        forgets_vote: true,
        ..Rules::majority(3, 2, 1, 1)
    };
    breaks(rules, &[ELECTION_SAFETY]);
}

#[test]
fn counting_for_an_older_term_is_noticed() {
    // The paper's figure 8 with three replicas: an entry of term 1 is counted in term 3, and the leader of term 2 still wins
    // term 4 without it. That it could win is visible a term earlier.
    for (terms_max, property) in [(3, NO_FORGETFUL_LEADER), (4, LEADER_COMPLETENESS)] {
        let rules = Rules {
            counts_older_terms: true,
            candidate_count: 2,
            ..Rules::majority(3, terms_max, 1, 2)
        };
        breaks(rules, &[property]);
    }
}

#[test]
fn an_unchecked_previous_term_is_noticed() {
    let rules = Rules {
        ignores_prev_term: true,
        ..Rules::majority(3, 2, 2, 3)
    };
    breaks(rules, &[LOG_MATCHING]);
}

#[test]
fn quorums_that_need_not_meet_are_noticed() {
    for (replica_count, elect_quorum, commit_quorum) in [(3, 2, 1), (4, 3, 1), (5, 3, 2)] {
        let rules = Rules {
            candidate_count: 2,
            ..Rules::majority(replica_count, 2, 1, 2).quorums(elect_quorum, commit_quorum)
        };
        breaks(rules, &[NO_FORGETFUL_LEADER, LEADER_COMPLETENESS]);
    }
    // Two elections that need not meet.
    let rules = Rules::majority(4, 2, 1, 1).quorums(2, 3);
    breaks(rules, &[ELECTION_SAFETY]);
}
