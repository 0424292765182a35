//! Clusters whose log is written into each other's memory: a short soak, and every mistake that it must see.
//!
//! A seed that fails is printed with the command that repeats it.

use bench::soak::{
    FindingKind, Until,
    onesided::{Mutation, Options, Plan, run_plan, run_seeds, shrink},
};

use super::{THREADS_COUNT, fresh_seed};

/// 20,000 are run by hand (`dplab soak --faults --driver one-sided --histories 20000`).
const HISTORIES_COUNT: u64 = 150;

fn options(mutation: Option<Mutation>) -> Options {
    Options {
        nodes: (3, 7),
        has_faults: true,
        mutation,
    }
}

#[test]
fn histories_hold_and_take_the_paths_that_only_memory_has() {
    let seed = fresh_seed();
    println!("one-sided histories from seed {seed} on");
    let report = run_seeds(
        seed,
        Until::Histories(HISTORIES_COUNT),
        &options(None),
        THREADS_COUNT,
        3,
    );
    let failures: Vec<String> = report
        .failures
        .iter()
        .map(|failure| {
            let (seed, finding) = (failure.seed, &failure.finding);
            format!(
                "dplab soak --faults --driver one-sided --replay {seed}\n{:?}: {}",
                finding.kind, finding.text
            )
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let paths = report.paths.list();
    println!("{paths:?}");
    for name in [
        "crashes_count",
        "refused_writes_count",
        "lost_links_count",
        "adopted_count",
        "repaired_count",
        "torn_count",
        "round_reads_count",
        "offers_count",
        "snapshots_fetched_count",
        "recovered_count",
        "ring_full_count",
    ] {
        let (_, count) = paths
            .iter()
            .find(|(listed, _)| *listed == name)
            .expect("it is on the list");
        assert!(
            *count > 0,
            "{HISTORIES_COUNT} histories from seed {seed} on never came to {name}"
        );
    }
}

#[test]
fn a_one_sided_history_is_a_function_of_its_seed() {
    for seed in 0..5 {
        let plan = Plan::draw(seed, &options(None));
        let (first, second) = (run_plan(&plan), run_plan(&plan));
        assert_eq!((first.hash, first.paths), (second.hash, second.paths), "seed {seed}");
        assert_ne!(first.hash, run_plan(&Plan::draw(seed + 1, &options(None))).hash);
    }
}

/// Seeds that have failed once, and what it was (docs/src/rdma/onesided.md tells of all but the last): they hold by now. What happens in them is
/// another thing after each change of what is written where; `MISTAKES`, and the scripts beside the histories, show that the rules are needed.
const REGRESSIONS: &[(u64, &str)] = &[
    (50_001_597, "leftovers before a snapshot's end were taken for a log"),
    (
        50_007_115,
        "\"committed\" came over the next connection, the entry was lost with the one before",
    ),
    (50_011_593, "the same, with seven replicas"),
    (
        50_012_872,
        "an offer of a snapshot that was gone was believed again and again",
    ),
    (
        80_016_861,
        "an entry that was late landed when its writer was let in again, over another leader's",
    ),
    (
        90_000_530,
        "nothing: applying a slot and taking over a snapshot in one turn was called a gap",
    ),
];

#[test]
fn one_sided_seeds_that_have_failed_once_hold() {
    for &(seed, was) in REGRESSIONS {
        let found = run_plan(&Plan::draw(seed, &options(None))).finding;
        assert_eq!(found, None, "seed {seed}: {was}");
    }
}

/// Each mistake, and a seed whose history shows it. A ring that is used again too early leaves a follower without what it
/// needs, which shows as a cluster that is never even again.
const MISTAKES: &[(Mutation, u64, FindingKind)] = &[
    (Mutation::PermissionKept, 1020, FindingKind::Invariant),
    (Mutation::CanaryUnchecked, 1081, FindingKind::Invariant),
    (Mutation::PrepareSkipped, 1000, FindingKind::Invariant),
    (Mutation::MinorityCommit, 1120, FindingKind::Invariant),
    (Mutation::RecycledEarly, 1048, FindingKind::Recovery),
    (Mutation::AmnesiaIgnored, 1060, FindingKind::Invariant),
    (Mutation::UncheckedRead, 1166, FindingKind::Linearizability),
    (Mutation::AskedEarly, 14_027, FindingKind::Invariant),
];

/// Mistakes that no history of 20,000 has shown, or one alone: each has a script that does (bench/src/soak/onesided/scripted.rs).
const SCRIPTED: &[Mutation] = &[
    Mutation::ChainUnchecked,
    Mutation::RecheckSkipped,
    Mutation::OfferBelieved,
    Mutation::CommitAhead,
];

#[test]
fn every_one_sided_mistake_is_seen_and_its_history_holds_without_it() {
    for mutation in Mutation::ALL {
        let has_seed = MISTAKES.iter().any(|(seen, ..)| *seen == mutation);
        assert!(
            has_seed != SCRIPTED.contains(&mutation),
            "{} has its line",
            mutation.name()
        );
    }
    for &(mutation, seed, kind) in MISTAKES {
        let plan = Plan::draw(seed, &options(Some(mutation)));
        let found = run_plan(&plan).finding.map(|finding| finding.kind);
        assert_eq!(found, Some(kind), "{}: seed {seed}", mutation.name());
        let right = run_plan(&Plan::draw(seed, &options(None))).finding;
        assert_eq!(right, None, "seed {seed} without {}", mutation.name());
    }
}

#[test]
fn a_one_sided_history_that_fails_is_made_smaller_and_fails_in_the_same_way() {
    let plan = Plan::draw(1000, &options(Some(Mutation::PrepareSkipped)));
    let finding = run_plan(&plan)
        .finding
        .expect("every_one_sided_mistake_is_seen knows this seed");
    let (small, found, tried_count) = shrink(&plan, &finding, 60, &run_plan);
    assert_eq!(found.kind, finding.kind);
    assert!(tried_count <= 60);
    let size = |plan: &Plan| plan.faults.len() + plan.clients.len();
    assert!(size(&small) < size(&plan), "nothing was left out");
    assert_eq!(run_plan(&small).finding, Some(found));
}
