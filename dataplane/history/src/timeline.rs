//! A violation in words: a sentence, and the last operations as bars over time.

use std::fmt::Write as _;

use crate::{
    history::{History, Record},
    intern::State,
    op::OpId,
    register::{Kind, Outcome},
    search::Stuck,
    verdict::Violation,
};

/// Operations of the prefix that are drawn besides those that overlap the one that cannot be placed.
const CONTEXT_MAX: usize = 6;
/// Operations drawn at all.
const LINES_MAX: usize = 24;
/// Columns for the bars.
const BAR_COLUMNS: u64 = 48;
/// Bytes of a value that are printed.
const SHOWN_BYTES_MAX: usize = 24;

/// The violation that a search got stuck at.
pub(crate) fn explain(history: &History, key: u32, stuck: Stuck) -> Violation {
    let record = &history.records[stuck.op.0 as usize];
    let mut text = String::new();
    let possible: Vec<String> = stuck.possible.iter().map(|value| shown(value.as_deref())).collect();
    let more = match possible.len() == Violation::POSSIBLE_MAX {
        true => ", …",
        false => "",
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "key {}: no order of its operations explains client {}'s {}, answered at {} ns (operation {}).",
        quoted(history.keys.bytes(key)),
        record.client,
        said(history, record),
        record.answered.at_ns,
        stuck.op.0
    );
    let _ = writeln!(
        text,
        "Whichever order explains all that was answered before, the key is then: {}{more}.",
        possible.join(" or ")
    );
    draw(history, &stuck, &mut text);
    Violation {
        key: history.keys.bytes(key).to_vec(),
        op: stuck.op,
        prefix: stuck.prefix,
        possible: stuck.possible,
        text,
    }
}

fn draw(history: &History, stuck: &Stuck, text: &mut String) {
    let culprit = &history.records[stuck.op.0 as usize];
    let overlaps = |record: &Record| {
        let ended = record.outcome == Outcome::Open || record.answered > culprit.invoked;
        record.key == culprit.key && record.outcome != Outcome::Refused && record.invoked < culprit.answered && ended
    };
    let context_start = stuck.prefix.len().saturating_sub(CONTEXT_MAX);
    let mut ids: Vec<OpId> = stuck.prefix[context_start..].to_vec();
    ids.extend(
        (0..history.records.len() as u32)
            .map(OpId)
            .filter(|id| overlaps(&history.records[id.0 as usize])),
    );
    ids.push(stuck.op);
    ids.sort_unstable_by_key(|id| history.records[id.0 as usize].invoked);
    ids.dedup();
    let hidden_count = ids.len().saturating_sub(LINES_MAX);
    // The latest are nearest to what went wrong; the culprit is drawn in any case.
    let drawn: Vec<OpId> = ids
        .iter()
        .enumerate()
        .filter(|&(index, id)| index >= hidden_count || *id == stuck.op)
        .map(|(_, id)| *id)
        .collect();
    let start_ns = drawn
        .iter()
        .map(|id| history.records[id.0 as usize].invoked.at_ns)
        .min()
        .unwrap_or(0);
    let span_ns = (culprit.answered.at_ns - start_ns).max(1);
    let column = |at_ns: u64| {
        let from_start = u128::from(at_ns.saturating_sub(start_ns).min(span_ns));
        (from_start * u128::from(BAR_COLUMNS - 1) / u128::from(span_ns)) as usize
    };
    if hidden_count > 0 {
        let _ = writeln!(text, "  ({hidden_count} earlier operations are not drawn)");
    }
    for id in drawn {
        let record = &history.records[id.0 as usize];
        let from = column(record.invoked.at_ns);
        let is_beyond = record.outcome == Outcome::Open || record.answered.at_ns > culprit.answered.at_ns;
        let to = match is_beyond {
            true => BAR_COLUMNS as usize - 1,
            false => column(record.answered.at_ns),
        };
        let mut bar = " ".repeat(from) + "|" + &"-".repeat(to - from);
        if to > from || is_beyond {
            bar.pop();
            bar.push(if is_beyond { '>' } else { '|' });
        }
        let place = stuck.prefix.iter().position(|placed| *placed == id);
        let note = match place {
            _ if id == stuck.op => "  <- cannot be placed".to_string(),
            Some(place) => format!("  placed {}", place + 1),
            None => "  not placed".to_string(),
        };
        let _ = writeln!(
            text,
            "  {bar:width$} client {}: {}{note}",
            record.client,
            said(history, record),
            width = BAR_COLUMNS as usize
        );
    }
    let end_ns = culprit.answered.at_ns;
    let _ = writeln!(
        text,
        "  bars: {start_ns} ns to {end_ns} ns; \"placed n\": its place in the longest order found"
    );
}

/// An operation and its answer.
fn said(history: &History, record: &Record) -> String {
    let value = |number: u32| quoted(history.values.bytes(number));
    let state = |state: State| shown(state.value().map(|number| history.values.bytes(number)));
    let asked = match record.kind {
        Kind::Get => "get".to_string(),
        Kind::StaleGet => "stale get".to_string(),
        Kind::Put(new) => format!("put {}", value(new)),
        Kind::Append(suffix) => format!("append {}", value(suffix)),
        Kind::CompareAndSwap { expected, new } => format!("swap {} for {}", state(expected), value(new)),
        Kind::Delete => "delete".to_string(),
    };
    let answered = match record.outcome {
        Outcome::Open => "no answer".to_string(),
        Outcome::Refused => "refused".to_string(),
        Outcome::Done => "done".to_string(),
        Outcome::Value(found) => state(found),
        Outcome::Swapped => "swapped".to_string(),
        Outcome::NotSwapped => "not swapped".to_string(),
        Outcome::Mismatch(found) => format!("not swapped, it is {}", state(found)),
        Outcome::Deleted { existed: true } => "deleted".to_string(),
        Outcome::Deleted { existed: false } => "there was nothing".to_string(),
    };
    format!("{asked} = {answered}")
}

fn shown(value: Option<&[u8]>) -> String {
    value.map_or_else(|| "absent".to_string(), quoted)
}

/// Bytes as text in quotes, escaped; long ones by their start and their length.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let start = bytes[..bytes.len().min(SHOWN_BYTES_MAX)].escape_ascii();
    match bytes.len() > SHOWN_BYTES_MAX {
        true => format!("\"{start}…\" ({} bytes)", bytes.len()),
        false => format!("\"{start}\""),
    }
}
