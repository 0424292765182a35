//! Clusters of replicas under random faults in virtual time: a short soak with fresh seeds, the seeds that have failed
//! once, and every mistake that the soak must see.
//!
//! A seed that fails is printed with the command that repeats it (`dplab soak --replay`).
#![forbid(unsafe_code)]

#[path = "soak/onesided.rs"]
mod onesided;

use bench::{
    replicas::FanOut,
    soak::{Bpf, Break, DriverKind, FindingKind, Flaw, Options, Plan, Report, Until, run_plan, run_seeds, shrink},
};

/// Seeds that have failed once, a line each: the seed, and behind it what it was.
const REGRESSIONS: &str = include_str!("soak/regressions.txt");

/// Histories with fresh seeds.
const FRESH_COUNT: u64 = 2_000;

const THREADS_COUNT: usize = 2;

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("a clock behind 1970").as_nanos() as u64
}

fn assert_holds(report: &Report) {
    let failures = report.failures.iter();
    let failures: Vec<String> = failures
        .map(|failure| {
            let (seed, finding) = (failure.seed, &failure.finding);
            format!(
                "dplab soak --faults --replay {seed}\n{:?}: {}",
                finding.kind, finding.text
            )
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn fresh_histories_hold_and_take_every_path() {
    let seed = fresh_seed();
    println!("histories from seed {seed} on");
    let report = run_seeds(
        seed,
        Until::Histories(FRESH_COUNT),
        &Options::default(),
        THREADS_COUNT,
        3,
    );
    println!(
        "{} histories in {:?}: {:?}",
        report.histories_count,
        report.elapsed,
        report.coverage.list()
    );
    assert_holds(&report);
    assert_eq!(report.histories_count, FRESH_COUNT);
    let missing = report.coverage.missing();
    assert!(
        missing.is_empty(),
        "{FRESH_COUNT} histories from seed {seed} on never came to {missing:?}"
    );
}

#[test]
fn seeds_that_have_failed_once_hold() {
    let mut seeds_count = 0;
    for line in REGRESSIONS
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let seed = line.split_whitespace().next().expect("the line is not empty");
        let seed = seed.parse().expect("a line begins with a seed");
        assert_holds(&run_seeds(seed, Until::Histories(1), &Options::default(), 1, 1));
        seeds_count += 1;
    }
    println!("{seeds_count} seeds");
}

#[test]
fn a_history_is_a_function_of_its_seed() {
    for seed in 0..30 {
        let plan = Plan::draw(seed, &Options::default());
        let (first, second) = (run_plan(&plan), run_plan(&plan));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.coverage, second.coverage, "seed {seed}");
        assert_eq!(first.finding, second.finding, "seed {seed}");
    }
}

#[test]
fn histories_without_faults_hold() {
    let options = Options {
        has_faults: false,
        ..Options::default()
    };
    assert_holds(&run_seeds(
        fresh_seed(),
        Until::Histories(50),
        &options,
        THREADS_COUNT,
        3,
    ));
}

/// Each mistake, a seed whose history shows it, and within how many histories from any seed on it must be seen: about ten
/// times as many as it takes on average, so that chance alone fails one run in tens of thousands.
const BREAKS: &[(&str, u64, u64)] = &[
    ("small-commit-quorum", 1001, 100),
    ("small-election-quorum", 1001, 100),
    ("forgotten-vote", 1003, 100),
    ("stale-lease", 1051, 500),
    ("commits-old-terms", 1027, 500),
    ("no-matching", 1008, 300),
    ("ack-before-durable", 1116, 2_000),
    ("forgets-sessions", 1005, 100),
    ("votes-for-anybody", 1003, 200),
    ("unchecked-read", 1003, 200),
    ("lying-disk", 1002, 50),
];

#[test]
fn every_mistake_is_seen() {
    let names: Vec<&str> = BREAKS.iter().map(|(name, ..)| *name).collect();
    let all: Vec<&str> = Break::all().into_iter().map(Break::name).collect();
    assert_eq!(names, all, "each mistake has its line");
    for (breaks, &(name, known_seed, within_count)) in Break::all().into_iter().zip(BREAKS) {
        let options = Options {
            breaks: Some(breaks),
            ..Options::default()
        };
        let known = run_plan(&Plan::draw(known_seed, &options));
        // Only what clients or the logs show counts: a cluster that does not recover would be found without a mistake, too.
        let shows = |kind: FindingKind| matches!(kind, FindingKind::Invariant | FindingKind::Linearizability);
        let kind = known.finding.as_ref().map(|finding| finding.kind);
        assert!(
            kind.is_some_and(shows),
            "{name}: seed {known_seed} does not show it any more ({kind:?})"
        );
        let seed = fresh_seed();
        let report = run_seeds(seed, Until::Histories(within_count), &options, THREADS_COUNT, 1);
        println!(
            "{name}: seen after {} histories from seed {seed} on",
            report.histories_count
        );
        assert!(
            !report.failures.is_empty(),
            "{name}: not seen in {within_count} histories from seed {seed} on"
        );
    }
}

/// A mistake whose history is long, and how it is explained to a person.
#[test]
fn a_history_that_fails_is_made_smaller_and_fails_in_the_same_way_each_time() {
    for (name, seed) in [
        ("small-commit-quorum", 1001),
        ("forgotten-vote", 1003),
        ("stale-lease", 1051),
        ("lying-disk", 1002),
    ] {
        let options = Options {
            breaks: Break::all().into_iter().find(|breaks| breaks.name() == name),
            ..Options::default()
        };
        let plan = Plan::draw(seed, &options);
        let first = run_plan(&plan);
        let finding = first.finding.expect("every_mistake_is_seen knows this seed");
        let [shrunk, again] = [(), ()].map(|()| shrink(&plan, &finding, 200));
        assert_eq!(shrunk.finding.kind, finding.kind, "{name}");
        assert_eq!(shrunk.finding, again.finding, "{name}");
        assert_eq!(shrunk.tried_count, again.tried_count, "{name}");
        assert_eq!(run_plan(&shrunk.plan).hash, run_plan(&again.plan).hash, "{name}");
        let sizes = |plan: &Plan| (plan.faults.len(), plan.clients.len());
        let ((faults_count, clients_count), (small_faults, small_clients)) = (sizes(&plan), sizes(&shrunk.plan));
        println!("{name}: {small_faults} of {faults_count} faults, {small_clients} of {clients_count} clients");
        assert!(small_faults <= faults_count && small_clients <= clients_count, "{name}");
        assert!(
            small_faults + small_clients < faults_count + clients_count,
            "{name}: nothing was left out"
        );
        assert!(small_clients > 0, "{name}");
    }
}

/// Histories with the programs' model, and with the programs themselves where they may be loaded.
const MODEL_COUNT: u64 = 300;
const CHAIN_COUNT: u64 = 150;
const BPF_COUNT: u64 = 40;
/// Histories in which each step is the model's and the programs', and compared: of each way to the followers.
const BOTH_COUNT: u64 = 8;

fn driven(driver: DriverKind) -> Options {
    Options {
        driver,
        ..Options::default()
    }
}

fn assert_driven(report: &Report) {
    println!(
        "{} histories in {:?}: {:?}",
        report.histories_count,
        report.elapsed,
        report.coverage.list()
    );
    assert_holds(report);
    let missing: Vec<&str> = report
        .coverage
        .missing()
        .into_iter()
        .filter(|name| name.starts_with("driver_"))
        .collect();
    assert!(
        missing.iter().all(|name| *name == "driver_waited_count"),
        "never came to {missing:?}"
    );
}

#[test]
fn histories_with_the_programs_model_hold() {
    let seed = fresh_seed();
    println!("histories from seed {seed} on");
    let until = Until::Histories(MODEL_COUNT);
    assert_driven(&run_seeds(seed, until, &driven(DriverKind::Model), THREADS_COUNT, 3));
}

fn chained(driver: DriverKind) -> Options {
    Options {
        fan_out: Some(FanOut::Chain),
        ..driven(driver)
    }
}

#[test]
fn histories_in_chains_hold_and_take_every_path() {
    let seed = fresh_seed();
    println!("histories from seed {seed} on");
    let until = Until::Histories(CHAIN_COUNT);
    let report = run_seeds(seed, until, &chained(DriverKind::Model), THREADS_COUNT, 3);
    println!("{:?}", report.coverage.list());
    assert_holds(&report);
    let missing = report.coverage.missing();
    let missing: Vec<&&str> = missing.iter().filter(|name| name.starts_with("chain_")).collect();
    assert!(missing.is_empty(), "never came to {missing:?}");
    assert_eq!(report.coverage.chain_histories_count, CHAIN_COUNT);
}

/// A third of those in which programs do all of it; without being asked for them, too.
#[test]
fn some_histories_are_drawn_as_chains() {
    let plans = (0..400).map(|seed| Plan::draw(seed, &driven(DriverKind::Model)));
    let chains_count = plans.filter(Plan::has_chains).count();
    assert!((60..120).contains(&chains_count), "{chains_count} of 400");
}

/// Histories with the programs' model that once failed, and how entries got to the followers. 50014073: a follower that a snapshot had
/// brought up to date kept the next entry among those that had come too early, and so never said that it lacked it.
/// 70018154: where the disk is waited for, a leader's program sent a request's entry again and again that its replica had committed and
/// answered, and whose answer was lost.
const DRIVEN_REGRESSIONS: [(u64, FanOut); 2] = [(50_014_073, FanOut::Flood), (70_018_154, FanOut::Flood)];

#[test]
fn driven_histories_that_once_failed_hold() {
    for (seed, fan_out) in DRIVEN_REGRESSIONS {
        let options = Options {
            fan_out: Some(fan_out),
            ..driven(DriverKind::Model)
        };
        let outcome = run_plan(&Plan::draw(seed, &options));
        assert_eq!(outcome.finding, None, "seed {seed}, {fan_out:?}");
    }
}

#[test]
fn histories_with_the_real_programs_hold() {
    if let Err(error) = Bpf::new(0, 6) {
        println!("histories_with_the_real_programs_hold: not run: {error}");
        return;
    }
    let seed = fresh_seed();
    println!("histories from seed {seed} on");
    let until = Until::Histories(BPF_COUNT);
    assert_driven(&run_seeds(seed, until, &driven(DriverKind::Bpf), THREADS_COUNT, 3));
}

/// Each mistake of a program or at the hand-over, a seed whose history shows it, and within how many from there on it must be
/// seen, should histories change.
const FLAWS: &[(Flaw, u64, u64)] = &[
    (Flaw::AckBeforeWrite, 5126, 50),
    (Flaw::CountsTwice, 5823, 300),
    (Flaw::IgnoresRevoke, 5001, 50),
    (Flaw::NoDrain, 5000, 50),
    (Flaw::NoSessions, 8140, 300),
    (Flaw::ChainHandsOnUnkept, 7616, 4_000),
    (Flaw::ChainHandsOnRevoked, 8221, 4_000),
    (Flaw::ChainSpeaksForAll, 7080, 500),
    (Flaw::ChainSaysOwnEnd, 7151, 2_000),
    (Flaw::ChainCountsBehind, 7029, 500),
    (Flaw::AcksHeld, 7426, 200),
    (Flaw::KeepsHeld, 23_874, 200),
    (Flaw::AnswersEarly, 5012, 50),
];

#[test]
fn every_mistake_of_a_program_is_seen() {
    assert!(
        FLAWS.iter().map(|(flaw, ..)| *flaw).eq(Flaw::ALL),
        "each mistake has its line"
    );
    for &(flaw, seed, within_count) in FLAWS {
        let options = Options {
            flaw: Some(flaw),
            ..driven(DriverKind::Model)
        };
        let report = run_seeds(seed, Until::Histories(within_count), &options, THREADS_COUNT, 1);
        println!(
            "{}: seen after {} histories from seed {seed} on",
            flaw.name(),
            report.histories_count
        );
        // A cluster that does not recover would be found without a mistake, too.
        let shows = |kind: FindingKind| matches!(kind, FindingKind::Invariant | FindingKind::Linearizability);
        assert!(
            report.failures.iter().any(|failure| shows(failure.finding.kind)),
            "{}: not seen in {within_count} histories from seed {seed} on",
            flaw.name()
        );
    }
}

/// Each step of histories of either way, by the model and by the programs, compared at once.
#[test]
fn each_step_of_the_model_is_one_of_the_programs() {
    if let Err(error) = Bpf::new(0, 6) {
        println!("each_step_of_the_model_is_one_of_the_programs: not run: {error}");
        return;
    }
    let seed = fresh_seed();
    println!("histories from seed {seed} on");
    for fan_out in [FanOut::Flood, FanOut::Chain] {
        let options = Options {
            fan_out: Some(fan_out),
            ..driven(DriverKind::Both)
        };
        let report = run_seeds(seed, Until::Histories(BOTH_COUNT), &options, THREADS_COUNT, 3);
        assert_holds(&report);
    }
}

/// The kernel runs the programs as the model does: the same seed gives the same history, event by event.
#[test]
fn model_and_programs_live_through_the_same_history() {
    if let Err(error) = Bpf::new(0, 6) {
        println!("model_and_programs_live_through_the_same_history: not run: {error}");
        return;
    }
    let first = fresh_seed();
    for seed in first..first + 5 {
        for options in [driven, chained] {
            let hash = |driver| run_plan(&Plan::draw(seed, &options(driver))).hash;
            assert_eq!(hash(DriverKind::Model), hash(DriverKind::Bpf), "seed {seed}");
        }
    }
}
