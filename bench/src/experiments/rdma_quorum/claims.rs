//! What is claimed of commits by one-sided writes, and how the rows decide it.

use super::{COMMIT, FOLLOWERS_CPU, FOLLOWERS_POSTED, MAIN_BYTES, MAIN_NODES, WRITE};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, Bound},
    record::Outcome,
    remote_memory::Wires,
    table::{Arm, Table, latency_ns},
};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "rdma-commit-beside-write",
        sentence: "A commit among three by one-sided writes takes at most 1.25 times as long as one bare write of as many bytes",
        source: Source::Published {
            work: "M. K. Aguilera, N. Ben-David, R. Guerraoui, V. J. Marathe, A. Xygkis, I. Zablotchi: Microsecond Consensus for \
                   Microsecond Applications, OSDI 2020",
            place: "abstract: 1.3 µs to replicate a small request, about a round trip of one write on its hardware; the limit \
                    of 1.25 is ours",
        },
        invariant: "The same provider, the same two threads, 64 bytes of value, one at a time; a majority of three is one write \
                    beside the leader's own copy. Decided by the paired ratio of p50, commit ÷ write, of both providers.",
        judge: beside_write,
    },
    Claim {
        id: "rdma-followers-idle",
        sentence: "A follower's process takes no part in a commit: no CPU time, and no request of its own",
        source: Source::Published {
            work: "M. K. Aguilera, N. Ben-David, R. Guerraoui, V. J. Marathe, A. Xygkis, I. Zablotchi: Microsecond Consensus for \
                   Microsecond Applications, OSDI 2020",
            place: "§3: followers are passive; replication by one-sided writes bypasses their CPUs",
        },
        invariant: "While thousands of commits are answered the followers' processes stand still: the kernel charges their threads \
                    nothing, and they post nothing. What stands for their NICs has a thread of its own, whose time is in another \
                    column. Decided by the sums over all trials of three replicas, both providers.",
        judge: followers_idle,
    },
];

type Position = [(&'static str, &'static str); 4];

const fn position(work: &'static str, wires: Wires) -> Position {
    [
        ("work", work),
        ("nodes", MAIN_NODES),
        ("value_bytes", MAIN_BYTES),
        ("provider", wires.name()),
    ]
}

fn beside_write(table: &Table) -> Judgement {
    let of = |wires: Wires| {
        let (commit, write) = (position(COMMIT, wires), position(WRITE, wires));
        judge::ratio(
            table,
            &format!("p50 of a commit ÷ of a bare write, {}", wires.name()),
            (Arm::of(wires.name(), &commit), Arm::of(wires.name(), &write)),
            latency_ns(0.5),
            Bound::AtMost(1.25),
        )
    };
    judge::all(Wires::ALL.into_iter().map(of).collect())
}

/// Fewer commits than this show nothing.
const COMMITS_MIN: f64 = 1000.0;

fn followers_idle(table: &Table) -> Judgement {
    let of = |wires: Wires| {
        let position = position(COMMIT, wires);
        let arm = Arm::of(wires.name(), &position);
        let rows = table.arm(arm);
        if rows.is_empty() {
            return table.lacking(arm);
        }
        let sum = |name: &str| -> f64 {
            let metrics = rows.iter().filter_map(|row| row.metrics.get(name));
            metrics.map(|metric| metric.value).sum()
        };
        let (commits, cpu_ns, posted) = (sum("operations"), sum(FOLLOWERS_CPU), sum(FOLLOWERS_POSTED));
        let outcome = match (commits >= COMMITS_MIN, cpu_ns == 0.0 && posted == 0.0) {
            (false, true) => Outcome::Inconclusive {
                why: format!(
                    "{commits} commits are too few to say that followers take no part; give it a longer --budget"
                ),
            },
            (true, true) => Outcome::Holds,
            (_, false) => Outcome::Fails,
        };
        let figure = |what: &str, value: f64, unit: &str| {
            let name = format!("{what} in {commits} commits, {}", wires.name());
            judge::measured(name, Some(value), unit, "0", rows.len() as u64)
        };
        let figures = vec![
            figure("CPU time of the followers' processes", cpu_ns, "ns"),
            figure("requests of the followers", posted, "count"),
        ];
        Judgement::new(outcome, figures)
    };
    judge::all(Wires::ALL.into_iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::{Better, Metric, ModeRecord, Row, Validity};

    fn row(wires: Wires, cpu_ns: f64, commits: f64) -> Row {
        let metric = |value: f64| Metric {
            value,
            unit: String::new(),
            better: Better::Neither,
        };
        Row {
            experiment: "rdma-quorum".to_owned(),
            backend: wires.name().to_owned(),
            mode: ModeRecord::Native,
            axis: position(COMMIT, wires)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            round: 0,
            twin: false,
            seed: 1,
            at_s: 0.0,
            elapsed_s: 1.0,
            latency: None,
            service: None,
            schedule_lag: None,
            metrics: BTreeMap::from([
                ("operations".to_owned(), metric(commits)),
                (FOLLOWERS_CPU.to_owned(), metric(cpu_ns)),
                (FOLLOWERS_POSTED.to_owned(), metric(0.0)),
            ]),
            series: Vec::new(),
            facts: BTreeMap::new(),
            validity: Validity::Valid,
        }
    }

    #[test]
    fn one_nanosecond_of_a_follower_is_one_too_many() {
        let judged = |cpu_ns, commits| {
            let rows = Wires::ALL.map(|wires| row(wires, cpu_ns, commits));
            let table = Table {
                rows: rows.to_vec(),
                seed: 1,
            };
            followers_idle(&table).outcome
        };
        assert_eq!(judged(0.0, 5000.0), Outcome::Holds);
        assert_eq!(judged(1.0, 5000.0), Outcome::Fails);
        assert!(matches!(judged(0.0, 10.0), Outcome::Inconclusive { .. }));
    }
}
