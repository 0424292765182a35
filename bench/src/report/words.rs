//! The sentences that all reports share.

use super::{model::Summary, units};
use crate::{
    place::VETH_CAVEAT,
    record::{Measured, Outcome},
    store::Run,
};

/// "4 claims on trial: 1 fails, 2 hold, 1 was not measured".
pub(crate) fn headline(summaries: &[Summary<'_>]) -> String {
    let verdicts = || summaries.iter().flat_map(|summary| &summary.verdicts);
    let rows_count: usize = summaries.iter().map(|summary| summary.run.rows.len()).sum();
    let claims_count = verdicts().count();
    if claims_count == 0 {
        return match rows_count {
            0 => "Nothing was measured".into(),
            _ => format!("{}, no claim judged", counted(rows_count, "measurement")),
        };
    }
    let of = |wanted: fn(&Outcome) -> bool| verdicts().filter(|verdict| wanted(&verdict.outcome)).count();
    let parts = [
        (of(|outcome| matches!(outcome, Outcome::Fails)), "fails", "fail"),
        (of(|outcome| matches!(outcome, Outcome::Holds)), "holds", "hold"),
        (
            of(|outcome| matches!(outcome, Outcome::Inconclusive { .. })),
            "is inconclusive",
            "are inconclusive",
        ),
        (
            of(|outcome| matches!(outcome, Outcome::NotMeasured { .. })),
            "was not measured",
            "were not measured",
        ),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
        .collect();
    format!("{} on trial: {}", counted(claims_count, "claim"), parts.join(", "))
}

/// "7 rounds", "1 round".
pub(crate) fn counted(count: usize, one: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {one}{plural}", units::count(count as u64))
}

/// The verdict in a word.
pub(crate) fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Holds => "holds",
        Outcome::Fails => "fails",
        Outcome::Inconclusive { .. } => "inconclusive",
        Outcome::NotMeasured { .. } => "not measured",
    }
}

/// Why a verdict is neither yes nor no.
pub(crate) fn why(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Holds | Outcome::Fails => None,
        Outcome::Inconclusive { why } | Outcome::NotMeasured { why } => Some(why),
    }
}

/// "1.12 (1.10 to 1.13), claimed ≤ 1.02".
pub(crate) fn figure(measured: &Measured) -> String {
    let with_unit = |value| units::with_unit(value, &measured.unit);
    let mut text = measured.value.map_or("lost".into(), with_unit);
    if let (Some(low), Some(high)) = (measured.low, measured.high) {
        text.push_str(&format!(" ({} to {})", with_unit(low), with_unit(high)));
    }
    if !measured.limit.is_empty() {
        text.push_str(&format!(", claimed {}", measured.limit));
    }
    text
}

/// "0.1.0, commit 0123456789ab, with local changes, release build".
pub(crate) fn version(run: &Run) -> String {
    let header = &run.header;
    let commit = header.git_commit.as_deref().map_or("commit unknown".into(), |commit| {
        let (hash, dirty) = match commit.strip_suffix("-dirty") {
            Some(hash) => (hash, ", with local changes"),
            None => (commit, ""),
        };
        let short: String = hash.chars().take(12).collect();
        format!("commit {short}{dirty}")
    });
    format!("{}, {commit}, {} build", header.version, header.build_profile)
}

/// "Imaginary CPU @ 2.00GHz, Linux 6.18.0", as far as it is known.
pub(crate) fn machine(run: &Run) -> Option<String> {
    let fact = |name: &str| run.header.environment.facts.get(name).cloned();
    let parts = [
        fact("cpu_model"),
        fact("kernel").map(|kernel| format!("Linux {kernel}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The fact of a row that went over a network of its own and not over the run's place.
pub(crate) const NETWORK: &str = "network";
/// More networks than that are counted.
const NETWORKS_TOLD: usize = 3;

/// Where the packets went: over the networks that rows made for themselves, and the run's place if any row did not.
pub(crate) fn place(run: &Run) -> String {
    let mut networks: Vec<&str> = Vec::new();
    for network in run.rows.iter().filter_map(|row| row.facts.get(NETWORK)) {
        if !networks.contains(&network.as_str()) {
            networks.push(network);
        }
    }
    let everywhere = !networks.is_empty() && run.rows.iter().all(|row| row.facts.contains_key(NETWORK));
    let mut parts: Vec<String> = Vec::new();
    if !everywhere {
        parts.push(run.header.place.clone());
    }
    parts.extend(networks.iter().take(NETWORKS_TOLD).map(|network| (*network).to_owned()));
    if networks.len() > NETWORKS_TOLD {
        let others = counted(networks.len() - NETWORKS_TOLD, "other network");
        parts.push(format!("and {others} of this kind, which the rows name"));
    }
    if everywhere {
        parts.push(VETH_CAVEAT.to_owned());
    }
    parts.join("; ")
}

/// The command as a shell takes it.
pub(crate) fn command_line(run: &Run) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:@%+".contains(c);
    let quoted = run.header.command.iter().map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// "client_cpu_ns_per_op" reads "client cpu per op": the unit stands with the value.
pub(crate) fn metric_title(name: &str) -> String {
    name.split('_')
        .filter(|word| *word != "ns")
        .collect::<Vec<_>>()
        .join(" ")
}
