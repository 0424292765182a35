//! `dplab soak`: runs histories, says how far it got, and prints what failed with the command that repeats it.

use std::{
    fmt::Write as _,
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::{
    driver::{Bpf, DriverKind, Flaw, SESSIONS_MAX},
    finding::Finding,
    onesided,
    plan::{Break, Options, Plan},
    runner::{self, Report, Until},
    shrink,
};
use crate::{advice::advice, cli::SoakArgs, run::Exit};

/// How many histories are run to make one that failed smaller.
pub(super) const SHRINK_TRIES_MAX: u32 = 400;

/// How often it says how far it is.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// A soak ends after as many failures: they have one cause, as a rule.
pub(super) const FAILURES_MAX: usize = 3;

/// Histories between two looks at the clock.
const CHUNK_COUNT: u64 = 500;

/// `dplab soak`.
///
/// # Errors
/// A mutation that does not exist, or an output that cannot be written.
pub fn soak(args: &SoakArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
    if args.driver == DriverKind::OneSided {
        return onesided::soak(args, out);
    }
    let mut options = Options {
        nodes: args.nodes,
        has_faults: args.faults,
        driver: args.driver,
        fan_out: args.fan_out,
        ..Options::default()
    };
    if let Some(name) = &args.mutation {
        options.flaw = Flaw::ALL.into_iter().find(|flaw| flaw.name() == name);
        match options.flaw {
            Some(_) if args.driver != DriverKind::Model => {
                bail!("{name} is a mistake of the programs' model: add --driver model, or the mistake is never made")
            }
            Some(_) => {}
            None => options.breaks = Some(parse_break(name)?),
        }
    }
    if args.fan_out.is_some() && args.driver == DriverKind::None {
        bail!(
            "--fan-out is about programs, and there are none without --driver: replicas send to each follower by themselves"
        )
    }
    if matches!(args.driver, DriverKind::Bpf | DriverKind::Both) {
        // Before the first history, so that what is missing is said once and in words.
        Bpf::new(0, SESSIONS_MAX)
            .context("histories with the real programs load them; --driver model needs no right")?;
    }
    if let Some(seed) = args.replay {
        return replay(seed, args, &options, out);
    }
    let first_seed = args.seed.unwrap_or_else(rand::random);
    writeln!(out, "Histories from seed {first_seed} on.")?;
    let (begun, mut total) = (Instant::now(), Report::default());
    let mut said_at = begun;
    loop {
        let (left_count, is_over) = match (args.time, args.histories) {
            (Some(time), _) => (CHUNK_COUNT, begun.elapsed() >= time),
            (None, count) => {
                let left = count.unwrap_or(1_000) - total.histories_count;
                (left.min(CHUNK_COUNT), left == 0)
            }
        };
        if is_over || total.failures.len() >= FAILURES_MAX {
            break;
        }
        let chunk = runner::run_seeds(
            first_seed.wrapping_add(total.histories_count),
            Until::Histories(left_count),
            &options,
            args.threads,
            FAILURES_MAX - total.failures.len(),
        );
        total.histories_count += chunk.histories_count;
        total.hash = total.hash.wrapping_add(chunk.hash);
        total.coverage.add(&chunk.coverage);
        total.failures.extend(chunk.failures);
        total.elapsed = begun.elapsed();
        if said_at.elapsed() >= PROGRESS_EVERY {
            said_at = Instant::now();
            writeln!(out, "{}", summary(&total))?;
            out.flush()?;
        }
    }
    writeln!(out, "{}", summary(&total))?;
    writeln!(out, "Event hashes, added up: {:016x}.", total.hash)?;
    for (name, count) in total.coverage.list() {
        writeln!(out, "  {name:28} {count:>14}")?;
    }
    writeln!(out, "  {:28} {:>14}", "recovery_ms_max", total.coverage.recovery_ms_max)?;
    for failure in &total.failures {
        let plan = Plan::draw(failure.seed, &options);
        explain(&plan, &failure.finding, args, out)?;
    }
    Ok(match total.failures.is_empty() {
        true => Exit::Holds,
        false => Exit::Fails,
    })
}

fn replay(seed: u64, args: &SoakArgs, options: &Options, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let plan = Plan::draw(seed, options);
    let outcome = runner::run_plan(&plan);
    writeln!(out, "Seed {seed}: event hash {:016x}.", outcome.hash)?;
    match outcome.finding {
        None => {
            writeln!(out, "Everything holds.")?;
            Ok(Exit::Holds)
        }
        Some(finding) => {
            explain(&plan, &finding, args, out)?;
            Ok(Exit::Fails)
        }
    }
}

fn parse_break(name: &str) -> anyhow::Result<Break> {
    let all = Break::all();
    let flaws = Flaw::ALL.iter().map(|flaw| flaw.name());
    let names = all.iter().map(|known| known.name()).chain(flaws);
    if let Some(found) = all.iter().find(|known| known.name() == name) {
        return Ok(*found);
    }
    bail!("no mutation is called {name:?}; {}", advice(name, names))
}

fn summary(report: &Report) -> String {
    let seconds = report.elapsed.as_secs_f64().max(1e-9);
    format!(
        "{} histories in {seconds:.1} s ({:.0} a second), {} failed, {} undecided.",
        report.histories_count,
        report.histories_count as f64 / seconds,
        report.failures.len(),
        report.coverage.undecided_count
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
    let shrunk = shrink::shrink(plan, finding, SHRINK_TRIES_MAX);
    writeln!(
        out,
        "After {} smaller histories ({} of {} faults, {} of {} clients are left): {}",
        shrunk.tried_count,
        shrunk.plan.faults.len(),
        plan.faults.len(),
        shrunk.plan.clients.len(),
        plan.clients.len(),
        shrunk.finding.text
    )?;
    let small = &shrunk.plan;
    writeln!(
        out,
        "  {} replicas, {:?}, {:?} reads\n  {:?}\n  {:?}",
        small.replicas_count, small.members, small.reads, small.timing, small.limits
    )?;
    for fault in &small.faults {
        writeln!(out, "  {fault}")?;
    }
    for ambush in &small.ambushes {
        writeln!(out, "  {ambush:?}")?;
    }
    for fault in &runner::run_plan(small).struck {
        writeln!(out, "    {fault}")?;
    }
    Ok(())
}

pub(super) fn command(seed: u64, args: &SoakArgs) -> String {
    let mut text = format!("dplab soak --replay {seed}");
    if args.faults {
        text += " --faults";
    }
    if args.driver != DriverKind::None {
        let name = args.driver.to_possible_value().expect("every one can be asked for");
        let _ = write!(text, " --driver {}", name.get_name());
    }
    if let Some(fan_out) = args.fan_out {
        let name = fan_out.to_possible_value().expect("every one can be asked for");
        let _ = write!(text, " --fan-out {}", name.get_name());
    }
    if args.nodes != Options::default().nodes {
        let _ = write!(text, " --nodes {}..{}", args.nodes.0, args.nodes.1);
    }
    if let Some(name) = &args.mutation {
        let _ = write!(text, " --mutation {name}");
    }
    text
}
