//! `dplab soak --driver one-sided`.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::bail;

use super::{
    super::{
        command::{FAILURES_MAX, PROGRESS_EVERY, SHRINK_TRIES_MAX, command},
        finding::Finding,
        runner::Until,
    },
    Mutation,
    plan::{Options, Plan},
    runner::{self, Report},
    shrink::shrink,
};
use crate::{advice::advice, cli::SoakArgs, run::Exit};

/// Runs one-sided histories, says how far it got, and prints what failed with the command that repeats it.
///
/// # Errors
/// A mutation that does not exist, or an output that cannot be written.
pub(in super::super) fn soak(args: &SoakArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
    if args.fan_out.is_some() {
        bail!("--fan-out is about programs, and one-sided replication has none: the leader writes to each follower")
    }
    if args.nodes.0 < 2 {
        bail!(
            "--nodes {}..{}: one-sided replication writes to others, so it takes 2 at least",
            args.nodes.0,
            args.nodes.1
        )
    }
    let options = Options {
        nodes: args.nodes,
        has_faults: args.faults,
        mutation: args.mutation.as_deref().map(parse_mutation).transpose()?,
    };
    if let Some(seed) = args.replay {
        let plan = Plan::draw(seed, &options);
        let outcome = runner::run_plan(&plan);
        writeln!(out, "Seed {seed}: event hash {:016x}.", outcome.hash)?;
        let Some(finding) = outcome.finding else {
            writeln!(out, "Everything holds.")?;
            return Ok(Exit::Holds);
        };
        explain(&plan, &finding, args, out)?;
        return Ok(Exit::Fails);
    }
    let first_seed = args.seed.unwrap_or_else(rand::random);
    writeln!(out, "One-sided histories from seed {first_seed} on.")?;
    let (begun, mut total) = (Instant::now(), Report::default());
    loop {
        let done_count = total.paths.histories_count;
        let left_count = args.histories.unwrap_or(1_000).saturating_sub(done_count);
        let left_time = args.time.map(|time| time.saturating_sub(begun.elapsed()));
        if left_time.map_or(left_count == 0, |left| left.is_zero()) || total.failures.len() >= FAILURES_MAX {
            break;
        }
        let until = match left_time {
            Some(left) => Until::Elapsed(left.min(PROGRESS_EVERY)),
            None => Until::Histories(left_count.min(CHUNK_COUNT)),
        };
        let failures_max = FAILURES_MAX - total.failures.len();
        let chunk = runner::run_seeds(
            first_seed.wrapping_add(done_count),
            until,
            &options,
            args.threads,
            failures_max,
        );
        total.hash = total.hash.wrapping_add(chunk.hash);
        total.paths.add(&chunk.paths);
        total.failures.extend(chunk.failures);
        total.elapsed = begun.elapsed();
        writeln!(out, "{}", summary(&total))?;
        out.flush()?;
    }
    writeln!(out, "Event hashes, added up: {:016x}.", total.hash)?;
    for (name, count) in total.paths.list() {
        writeln!(out, "  {name:28} {count:>14}")?;
    }
    writeln!(out, "  {:28} {:>14}", "recovery_us_max", total.paths.recovery_us_max)?;
    for failure in &total.failures {
        explain(&Plan::draw(failure.seed, &options), &failure.finding, args, out)?;
    }
    Ok(match total.failures.is_empty() {
        true => Exit::Holds,
        false => Exit::Fails,
    })
}

/// Histories between two lines of progress.
const CHUNK_COUNT: u64 = 2_000;

fn parse_mutation(name: &str) -> anyhow::Result<Mutation> {
    match Mutation::ALL.into_iter().find(|mutation| mutation.name() == name) {
        Some(mutation) => Ok(mutation),
        None => bail!(
            "one-sided replication knows no mutation {name:?}; {}",
            advice(name, Mutation::ALL.into_iter().map(Mutation::name))
        ),
    }
}

fn summary(report: &Report) -> String {
    let seconds = report.elapsed.max(Duration::from_nanos(1)).as_secs_f64();
    format!(
        "{} histories in {seconds:.1} s ({:.0} a second), {} failed, {} undecided.",
        report.paths.histories_count,
        report.paths.histories_count as f64 / seconds,
        report.failures.len(),
        report.paths.undecided_count
    )
}

/// What failed, the command that repeats it, and a smaller history that fails in the same way.
fn explain(plan: &Plan, finding: &Finding, args: &SoakArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "\nSeed {} fails ({:?}): {}\n",
        plan.seed, finding.kind, finding.text
    )?;
    writeln!(out, "Repeat it with\n  {}\n", command(plan.seed, args))?;
    let (small, found, tried_count) = shrink(plan, finding, SHRINK_TRIES_MAX, &runner::run_plan);
    writeln!(
        out,
        "After {tried_count} smaller histories ({} of {} faults, {} of {} clients are left): {}",
        small.faults.len(),
        plan.faults.len(),
        small.clients.len(),
        plan.clients.len(),
        found.text
    )?;
    writeln!(
        out,
        "  {} replicas, {:?}\n  {:?}, {:?}\n  {:?}",
        small.replicas_count, small.layout, small.timing, small.limits, small.fabric
    )?;
    for fault in &small.faults {
        writeln!(out, "  {fault}")?;
    }
    Ok(())
}
