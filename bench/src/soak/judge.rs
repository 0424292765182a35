//! Whether one order explains what the clients were answered.

use dataplane_history::{Answer, History, Limits as CheckLimits, Op, Verdict};

use super::{
    client::{Answered, Asked, Client},
    finding::{Finding, FindingKind, finding},
};

/// How much the search for an order may cost, for one key. Histories here are short; far less is needed.
const CHECK_LIMITS: CheckLimits = CheckLimits {
    steps_max: 20_000_000,
    memory_bytes_max: 512 << 20,
};

/// A history that somebody could have seen.
pub(super) struct Judged {
    /// What clients asked.
    pub ops_count: u64,
    /// Whether the search for an order came to an end.
    pub is_decided: bool,
}

/// Judges what `clients`, each with its host's number, were answered.
///
/// # Errors
/// No order explains it.
pub(super) fn judge(clients: &[(u32, &Client)]) -> Result<Judged, Finding> {
    let history = history(clients);
    let ops_count = history.op_count() as u64;
    let is_decided = match history.check_stale(&CHECK_LIMITS) {
        Verdict::Linearizable => true,
        Verdict::Violation(violation) => return Err(finding(FindingKind::Linearizability, violation.to_string())),
        Verdict::Unknown { .. } => false,
    };
    Ok(Judged { ops_count, is_decided })
}

fn history(clients: &[(u32, &Client)]) -> History {
    // (instant, answer after invocation, host, record): what happened in one nanosecond may have overlapped.
    let mut events = Vec::new();
    for (place, (_, client)) in clients.iter().enumerate() {
        for (index, record) in client.records.iter().enumerate() {
            events.push((record.invoked_ns, false, place, index));
            if let Some((answered_ns, _)) = &record.answered {
                events.push((*answered_ns, true, place, index));
            }
        }
    }
    events.sort();
    let mut history = History::new();
    let mut ids = vec![Vec::new(); clients.len()];
    for (at_ns, is_answer, place, index) in events {
        let (host, client) = clients[place];
        let record = &client.records[index];
        let key = &[b'a' + record.key][..];
        if is_answer {
            let (_, answered) = record.answered.as_ref().expect("it was put on the list for its answer");
            history
                .answer(ids[place][index], at_ns, answer(&record.asked, answered))
                .expect("a client writes down one answer, later than its question");
            continue;
        }
        let op = match &record.asked {
            Asked::Get => Op::Get { key },
            Asked::StaleGet => Op::StaleGet { key },
            Asked::Put(value) => Op::Put { key, value },
            Asked::Append(value) => Op::Append { key, value },
            Asked::CompareAndSwap(expected, value) => Op::CompareAndSwap {
                key,
                expected: Some(expected),
                new: value,
            },
            Asked::Delete => Op::Delete { key },
        };
        // Stale reads go to any replica, one ahead of the other, so each is a client's of its own.
        let client = match record.asked {
            Asked::StaleGet => 1_000_000 + history.op_count() as u32,
            _ => host,
        };
        ids[place].push(history.invoke(client, at_ns, op));
    }
    history
}

fn answer<'a>(asked: &Asked, answered: &'a Answered) -> Answer<'a> {
    match (asked, answered) {
        (_, Answered::Refused) => Answer::Refused,
        (_, Answered::Lost) => Answer::Lost,
        (Asked::CompareAndSwap(..), Answered::Done) => Answer::Swapped,
        (Asked::CompareAndSwap(..), Answered::Absent) => Answer::Mismatch { found: None },
        (Asked::Delete, Answered::Done) => Answer::Deleted { existed: true },
        (Asked::Delete, Answered::Absent) => Answer::Deleted { existed: false },
        (_, Answered::Done) => Answer::Done,
        (_, Answered::Absent) => Answer::Value(None),
        (_, Answered::Value(value)) => Answer::Value(Some(value)),
        (_, Answered::Mismatch(value)) => Answer::Mismatch { found: Some(value) },
    }
}
