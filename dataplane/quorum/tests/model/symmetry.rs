//! Replicas without names: six states of three replicas are one.

use crate::state::{Message, Replica, State};

/// The same state with its replicas in a fixed order: who is called what makes no difference to the rules.
///
/// Replicas that are alike in themselves stay as they are, so some states are visited under two names; which ones depends
/// on who came first, and the number of states differs a little from run to run.
pub fn sorted(state: &State) -> State {
    let key = |id: usize| {
        let Replica {
            role,
            term,
            vote,
            log,
            commit,
        } = &state.replicas[id];
        let led = state.leaders.map(|mask| mask & (1 << id) != 0);
        (role, term, vote.map(|to| usize::from(to) == id), log, commit, led)
    };
    let mut order: Vec<usize> = (0..state.replicas.len()).collect();
    order.sort_by_key(|&id| key(id));
    // `renamed[old]` is the new name.
    let mut renamed = [0u8; 8];
    for (new, &old) in order.iter().enumerate() {
        renamed[old] = new as u8;
    }
    let name = |id: u8| renamed[usize::from(id)];
    let mut network: Vec<Message> = state
        .network
        .iter()
        .map(|&message| match message {
            Message::AskVote { term, from, newness } => Message::AskVote {
                term,
                from: name(from),
                newness,
            },
            Message::Vote { term, from, to } => Message::Vote {
                term,
                from: name(from),
                to: name(to),
            },
            Message::Append {
                term,
                from,
                prev_slot,
                prev_term,
                entry_term,
                commit,
            } => Message::Append {
                term,
                from: name(from),
                prev_slot,
                prev_term,
                entry_term,
                commit,
            },
            Message::Ack { term, from, to, slot } => Message::Ack {
                term,
                from: name(from),
                to: name(to),
                slot,
            },
        })
        .collect();
    network.sort_unstable();
    State {
        replicas: order
            .iter()
            .map(|&old| Replica {
                vote: state.replicas[old].vote.map(name),
                ..state.replicas[old].clone()
            })
            .collect(),
        network,
        leaders: state.leaders.map(|mask| {
            (0..state.replicas.len() as u8)
                .filter(|&old| mask & (1 << old) != 0)
                .fold(0, |new, old| new | 1 << name(old))
        }),
        ..state.clone()
    }
}
