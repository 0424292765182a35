//! `dplab kv members`, `add-node` and `remove-node`: who votes.

use std::{io::Write, time::Duration};

use anyhow::anyhow;
use dataplane_quorum::{
    ReadMode, Timing,
    client::Route,
    guarantees::{Guarantees, Keeps},
    majorities,
};
use dataplane_wire::quorum::{
    members::Members,
    request::Command,
    status::{Role, Status},
};

use super::{
    args::ChangeArgs,
    file::node_list,
    kv::{KvExit, refused},
    session::{Answer, Failure, Session},
};

/// How long to wait for nodes that may not run.
const STATUS_WAIT: Duration = Duration::from_millis(700);

type Statuses = Vec<(u32, Option<Status>)>;

fn ask_all(session: &mut Session<'_>) -> Result<Statuses, Failure> {
    let nodes_count = session.cluster.nodes.len();
    session.statuses(STATUS_WAIT, |known_count| known_count == nodes_count)
}

/// The status of who leads; of several that say so, one has not heard of the other's term yet.
fn leader(statuses: &Statuses) -> Option<&Status> {
    let known = statuses.iter().filter_map(|(_, status)| status.as_ref());
    known
        .filter(|status| status.role == Role::Leader)
        .max_by_key(|status| status.term)
}

/// Prints who votes and how far everybody is.
pub fn show(session: &mut Session<'_>, out: &mut Vec<u8>) -> Result<KvExit, Failure> {
    let statuses = ask_all(session)?;
    let leader = leader(&statuses);
    let most_recent = statuses
        .iter()
        .filter_map(|(_, status)| status.as_ref())
        .max_by_key(|status| status.log_end);
    let Some(members) = leader.or(most_recent).map(|status| status.members) else {
        return Err(Failure::NoQuorum("nobody answered any more".to_owned()));
    };
    let mut print = |line: String| writeln!(out, "{line}").map_err(|error| Failure::Wrong(error.into()));
    print(format!(
        "cluster {}, {}: nodes {} vote; {} elect, {} commit",
        session.cluster.name,
        session.keeps.name(),
        node_list(members.voters),
        members.elect_count,
        members.commit_count
    ))?;
    print(format!(
        "{:>4}  {:21}  {:9}  {:>6}  {:>10}  {:>10}  {:>10}",
        "node", "address", "role", "term", "log end", "committed", "applied"
    ))?;
    for (node, status) in &statuses {
        let address = session.cluster.nodes[node].to_string();
        print(match status {
            Some(status) => {
                let role = match members.contains(*node) {
                    true => status.role.name(),
                    false => "no voter",
                };
                format!(
                    "{node:>4}  {address:21}  {role:9}  {:>6}  {:>10}  {:>10}  {:>10}",
                    status.term, status.log_end, status.commit_end, status.applied_end
                )
            }
            None => format!("{node:>4}  {address:21}  no answer"),
        })?;
    }
    // How reads are made current is the leader's own setting and decides nothing about what survives.
    let guarantees = Guarantees::of(session.keeps, members, ReadMode::Index, &Timing::LOCAL);
    print(guarantees.survival())?;
    match leader {
        Some(_) => Ok(KvExit::Done),
        None => Err(Failure::NoQuorum(
            "nobody leads at the moment: an election is under way, or no quorum runs".to_owned(),
        )),
    }
}

/// Makes a node a voter, or no voter any more.
pub fn change(
    session: &mut Session<'_>,
    change: &ChangeArgs,
    is_added: bool,
    out: &mut Vec<u8>,
) -> Result<KvExit, Failure> {
    let node = change.node;
    if !session.cluster.nodes.contains_key(&node) {
        return Err(Failure::Wrong(anyhow!(
            "the cluster file has no node {node}; a node's address must stand in the file of every replica before it can vote"
        )));
    }
    let statuses = ask_all(session)?;
    let Some(leader) = leader(&statuses) else {
        return Err(Failure::NoQuorum(
            "nothing was changed: nobody leads at the moment; an election is under way, or no quorum runs".to_owned(),
        ));
    };
    let old = leader.members;
    if old.contains(node) == is_added {
        let what = if is_added { "votes already" } else { "does not vote" };
        writeln!(out, "node {node} {what}; nothing was changed").map_err(|error| Failure::Wrong(error.into()))?;
        return Ok(KvExit::Done);
    }
    let runs = statuses
        .iter()
        .any(|&(other, status)| other == node && status.is_some());
    if is_added && !runs {
        return Err(Failure::Wrong(anyhow!(
            "node {node} does not answer, and a voter that does not run is one that can fail less: start it first \
             (`dplab serve --node {node}`)"
        )));
    }
    let voters = if is_added {
        old.voters | 1 << node
    } else {
        old.voters & !(1 << node)
    };
    let majority = majorities(voters);
    let members = Members {
        voters,
        elect_count: change.elect.unwrap_or(majority.elect_count),
        commit_count: change.commit.unwrap_or(majority.commit_count),
    };
    match session.ask(&Command::Reconfigure { members }, Route::Leader)? {
        Answer::Done => {
            let line = format!(
                "nodes {} vote; {} elect, {} commit",
                node_list(voters),
                members.elect_count,
                members.commit_count
            );
            writeln!(out, "{line}").map_err(|error| Failure::Wrong(error.into()))?;
            if session.keeps == Keeps::Memory && !is_added {
                let line = format!("node {node} must not be added again: it has forgotten its vote");
                writeln!(out, "{line}").map_err(|error| Failure::Wrong(error.into()))?;
            }
            Ok(KvExit::Done)
        }
        Answer::Refused(reason) => Err(refused(reason)),
        other => Err(Failure::Wrong(anyhow!(
            "an odd answer to a change of the members: {other:?}"
        ))),
    }
}
