//! `dplab run`: prepare the place, run each experiment, judge its claims, leave records and reports.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    backends::BACKENDS,
    cli::{RunArgs, Selection, Wire},
    environment::{self, CpuTimes},
    experiment::{Choice, Depth, Experiment, Lab, say},
    load::calibrate,
    measure::{
        Recorder,
        hdr_files::{self, Interval},
    },
    place::{End, Place},
    record::{BackEndRecord, Outcome, Record, RunEnd, RunHeader, SCHEMA_VERSION, SupportRecord, VerdictRecord},
    registry::{self, EXPERIMENTS},
    report,
    store::{self, RunFolder},
    table::Table,
};

/// What a finished run means to a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Every claim holds, or could not be decided here.
    Holds = 0,
    /// A claim fails.
    Fails = 1,
    /// Something could not be run.
    Error = 2,
    /// A claim could not be judged because its rows are INVALID.
    Invalid = 3,
}

/// `dplab run`.
///
/// # Errors
/// What kept it from measuring at all. An experiment that ends early is recorded, and the others still run.
pub fn run(args: &RunArgs) -> anyhow::Result<Exit> {
    let selection = args.select()?;
    measure(selection, args.wire.wire().as_ref(), args.out.clone(), args.json)
}

/// `dplab verify`.
///
/// # Errors
/// As [`run`].
pub fn verify(seed: Option<u64>, out: Option<PathBuf>) -> anyhow::Result<Exit> {
    let args = RunArgs {
        seed: seed.or(Some(1)),
        ..RunArgs::default()
    };
    let mut selection = args.select()?;
    selection.choice.depth = Depth::Smallest;
    selection.choice.backends = Some(BACKENDS.iter().map(|backend| backend.name).collect());
    match measure(selection, None, out, false)? {
        // Without repetition nothing can be judged, so a verdict says nothing: it works, or it does not.
        Exit::Error => Ok(Exit::Error),
        Exit::Holds | Exit::Fails | Exit::Invalid => Ok(Exit::Holds),
    }
}

fn measure(selection: Selection, wire: Option<&Wire>, out: Option<PathBuf>, json: bool) -> anyhow::Result<Exit> {
    // A user namespace can only be entered while there is one thread, so this comes first. It would lead away from the
    // interface that the user has named.
    let is_virtual = selection.experiments.iter().all(|experiment| experiment.is_virtual());
    let privilege = match wire {
        None if !is_virtual => Some(dataplane_netns::prepare()),
        _ => None,
    };
    let stop = interrupts()?;
    let started = Instant::now();
    let cpu_before = CpuTimes::read();
    let started_at = SystemTime::now();
    let started_unix_ms = started_at
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    if let Err(error) = dataplane_netns::sweep() {
        eprintln!("warning: what an earlier run left could not be swept: {error}");
    }
    let place = match (wire, &privilege) {
        (Some(wire), _) => Place::between_machines(wire)?,
        (None, Some(privilege)) => Place::prepare(privilege)?,
        (None, None) => Place::nowhere(),
    };

    let Selection {
        experiments,
        choice,
        budget,
        dir,
    } = selection;
    let measured_in = measured_in(&experiments, &place);
    let path = out.unwrap_or_else(|| default_folder(started_unix_ms, choice.seed));
    let mut folder = RunFolder::create(&path)?;
    let backends = probe(&place)?;
    let header = RunHeader {
        schema_version: SCHEMA_VERSION,
        version: environment::build::version().to_owned(),
        git_commit: environment::build::git_commit().map(str::to_owned),
        build_profile: environment::build::profile().to_owned(),
        command: std::env::args().collect(),
        seed: choice.seed,
        started_unix_ms,
        budget_s: Some(budget.as_secs_f64()),
        place: measured_in.clone(),
        environment: environment::capture(wire.map(|wire| wire.interface.clone()).as_slice()),
        backends: backends.clone(),
        generator: Some(calibrate::calibrate()),
        agent: place.agent().map(|agent| Box::new(agent.record().clone())),
        published: experiments
            .iter()
            .flat_map(|experiment| experiment.published())
            .collect(),
    };
    let mut sink = Sink {
        folder: &mut folder,
        json,
    };
    sink.append(Record::Run(Box::new(header)))?;

    let progress = progress_bar(json);
    say(&progress, &format!("Measuring in {measured_in}, seed {}.", choice.seed));
    let supports: BTreeMap<&'static str, SupportRecord> = BACKENDS
        .iter()
        .map(|backend| backend.name)
        .zip(backends.into_iter().map(|record| record.support))
        .collect();
    let weight: f64 = experiments.iter().map(|experiment| experiment.tour_weight()).sum();
    let mut state = State::default();
    for experiment in &experiments {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        progress.reset();
        progress.set_prefix(experiment.title());
        let (share, limit) = match choice.depth {
            Depth::Tour => (
                experiment.tour_weight() / weight,
                Some((budget + TOUR_EXCESS).saturating_sub(started.elapsed())),
            ),
            Depth::Full | Depth::Smallest => (1.0 / experiments.len() as f64, None),
        };
        let mut lab = Lab {
            choice: &choice,
            place: &place,
            budget: budget.mul_f64(share),
            limit,
            stop: &stop,
            dir: dir.as_deref(),
            supports: &supports,
            folder: sink.folder,
            echo_rows: json,
            progress: &progress,
            run_started: started,
            started: Instant::now(),
            table: Table {
                rows: Vec::new(),
                seed: choice.seed,
            },
        };
        let obstacle = obstacle(*experiment, &place, limit);
        if let Some(why) = &obstacle {
            lab.say(&format!("{}: {why}", experiment.id()));
        } else if let Err(error) = experiment.run(&mut lab) {
            let message = format!("{}: {error:#}", experiment.id());
            // Whoever waited when the run was interrupted did not get what it waited for: that is no failure.
            if stop.load(std::sync::atomic::Ordering::Relaxed) {
                say(&progress, &format!("interrupted: {message}"));
            } else {
                say(&progress, &format!("error: {message}"));
                state.errors.push(message);
            }
        }
        let table = lab.table;
        state.rows_count += table.rows.len() as u64;
        judge(*experiment, &table, obstacle.as_deref(), &choice, &mut sink, &mut state)?;
        write_histograms(&table, started_at, sink.folder)?;
    }
    progress.finish_and_clear();

    let interrupted = stop.load(std::sync::atomic::Ordering::Relaxed);
    sink.append(Record::End(RunEnd {
        elapsed_s: started.elapsed().as_secs_f64(),
        rows_count: state.rows_count,
        interrupted,
        steal_ratio: CpuTimes::read()
            .zip(cpu_before)
            .map_or(0.0, |(after, before)| environment::steal_ratio(&before, &after)),
        errors: state.errors.clone(),
    }))?;
    let exit = state.exit();
    let run = store::read(&path)?;
    // Scenarios of the user's own are not in the registry.
    let known = EXPERIMENTS.iter().chain(
        experiments
            .iter()
            .filter(|own| registry::experiment(own.id()).is_none()),
    );
    let texts: Vec<report::ExperimentText> = known.map(|experiment| text_of(*experiment)).collect();
    let html = folder.write_file("report.html", report::html(&[&run], &texts).as_bytes())?;
    folder.write_file("report.md", report::markdown(&[&run], &texts).as_bytes())?;
    if !json {
        print!("{}", report::terminal(&[&run], &texts, report::Style::of_stdout()));
        if interrupted {
            println!("Interrupted: the rows so far are kept.");
        }
        println!("Report: {}", html.display());
    }
    Ok(exit)
}

/// The description of an experiment, as reports print it.
pub fn text_of(experiment: &dyn Experiment) -> report::ExperimentText {
    report::ExperimentText {
        id: experiment.id(),
        title: experiment.title(),
        question: experiment.question(),
        how: experiment.how(),
    }
}

/// What the experiments have come to so far.
#[derive(Debug, Default)]
struct State {
    rows_count: u64,
    errors: Vec<String>,
    any_fails: bool,
    any_invalid: bool,
}

impl State {
    fn exit(&self) -> Exit {
        match self {
            State { errors, .. } if !errors.is_empty() => Exit::Error,
            State { any_fails: true, .. } => Exit::Fails,
            State { any_invalid: true, .. } => Exit::Invalid,
            _ => Exit::Holds,
        }
    }
}

/// Where records go: the folder, and stdout with --json.
struct Sink<'a> {
    folder: &'a mut RunFolder,
    json: bool,
}

impl Sink<'_> {
    fn append(&mut self, record: Record) -> anyhow::Result<()> {
        self.folder.append(&record)?;
        if self.json {
            println!("{}", serde_json::to_string(&record)?);
        }
        Ok(())
    }
}

/// Where the packets go: the run's own place, unless all experiments make themselves another.
fn measured_in(experiments: &[&'static dyn Experiment], place: &Place) -> String {
    let own: Option<Vec<&str>> = experiments.iter().map(|experiment| experiment.own_network()).collect();
    let Some(mut own) = own else {
        return place.describe();
    };
    own.dedup();
    own.join("; ")
}

/// What the tour takes beside its budget: hosts are set up, clusters elect their leaders, a report is written.
const TOUR_EXCESS: Duration = Duration::from_secs(20);

/// Why an experiment is not run at all, if it is not.
fn obstacle(experiment: &dyn Experiment, place: &Place, limit: Option<Duration>) -> Option<String> {
    if let Some(why) = place.agent().and_then(|_| experiment.needs_one_machine()) {
        return Some(format!("not between two machines: {why}"));
    }
    (limit == Some(Duration::ZERO))
        .then(|| format!("the tour was over before its turn came: dplab run {}", experiment.id()))
}

fn judge(
    experiment: &dyn Experiment,
    table: &Table,
    obstacle: Option<&str>,
    choice: &Choice,
    sink: &mut Sink<'_>,
    state: &mut State,
) -> anyhow::Result<()> {
    for claim in experiment.claims() {
        let mut judgement = match choice.depth {
            Depth::Smallest => crate::claim::Judgement::not_measured("verify runs everything once and judges nothing"),
            Depth::Tour | Depth::Full => (claim.judge)(table),
        };
        if table.rows.is_empty() {
            judgement = crate::claim::Judgement::not_measured(obstacle.unwrap_or("no row was measured"));
        }
        state.any_fails |= judgement.outcome == Outcome::Fails;
        state.any_invalid |= judgement.is_invalid;
        sink.append(Record::Verdict(VerdictRecord {
            claim: claim.id.to_owned(),
            experiment: experiment.id().to_owned(),
            sentence: claim.sentence.to_owned(),
            source: claim.source.to_string(),
            outcome: judgement.outcome,
            measured: judgement.measured,
        }))?;
    }
    Ok(())
}

/// Each row's latency as files that other tools read.
fn write_histograms(table: &Table, started: SystemTime, folder: &RunFolder) -> anyhow::Result<()> {
    for row in &table.rows {
        let Some(latency) = &row.latency else { continue };
        let recorder = Recorder::from_distribution(latency).context("reading back a row's histogram")?;
        let stem = store::histogram_stem(row);
        let (mut hlog, mut hgrm) = (Vec::new(), Vec::new());
        let interval = Interval {
            tag: &stem,
            recorder: &recorder,
            start: Duration::from_secs_f64(row.at_s),
            duration: Duration::from_secs_f64(row.elapsed_s),
        };
        hdr_files::write_hlog(&mut hlog, started, &[interval]).context("writing a row's histogram")?;
        hdr_files::write_hgrm(&mut hgrm, &recorder).context("writing a row's histogram")?;
        folder.write_file(format!("{}/{stem}.hlog", store::HISTOGRAMS_FOLDER), &hlog)?;
        folder.write_file(format!("{}/{stem}.hgrm", store::HISTOGRAMS_FOLDER), &hgrm)?;
    }
    Ok(())
}

/// Asks about every back end, from inside the client's host.
///
/// # Errors
/// When the client's host could not be entered.
pub fn probe(place: &Place) -> anyhow::Result<Vec<BackEndRecord>> {
    let interface = place.endpoint(End::Client).interface;
    place.inside(End::Client, || {
        BACKENDS
            .iter()
            .map(|backend| BackEndRecord {
                name: backend.name.to_owned(),
                summary: backend.summary.to_owned(),
                support: place.support(backend, backend.probe(&interface).into()),
            })
            .collect()
    })
}

/// Interfaces of this machine at most that are asked: a host of containers has thousands.
const CARDS_MAX: usize = 16;

/// Asks about every interface of this namespace, and about the client's, whether programs can be on the card itself. Nothing is
/// attached.
///
/// # Errors
/// When the client's host could not be entered, or the interfaces cannot be listed.
pub fn probe_cards(place: &Place) -> anyhow::Result<Vec<BackEndRecord>> {
    let ask = |interface: &str, whose: &str| BackEndRecord {
        name: interface.to_owned(),
        summary: whose.to_owned(),
        support: ebpf_host::probe_offload(interface).into(),
    };
    let listed = nix::net::if_::if_nameindex().context("listing this machine's interfaces")?;
    let names: Vec<String> = listed
        .iter()
        .map(|interface| interface.name().to_string_lossy().into_owned())
        .collect();
    let mut cards: Vec<BackEndRecord> = names
        .iter()
        .take(CARDS_MAX)
        .map(|name| ask(name, "of this machine"))
        .collect();
    let client = place.endpoint(End::Client).interface;
    cards.push(place.inside(End::Client, || ask(&client, "at the client's end"))?);
    Ok(cards)
}

/// Ctrl-C and SIGTERM: the first lets the running trial end and keeps everything; the second ends at once.
fn interrupts() -> anyhow::Result<Arc<AtomicBool>> {
    use signal_hook::{consts, flag};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [consts::SIGINT, consts::SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, stop.clone()).context("handling Ctrl-C")?;
        flag::register(signal, stop.clone()).context("handling Ctrl-C")?;
    }
    Ok(stop)
}

fn default_folder(started_unix_ms: u64, seed: u64) -> PathBuf {
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(started_unix_ms));
    let time = time.to_string().replace([':', 'Z'], "");
    PathBuf::from("dplab-runs").join(format!("{time}-{:08x}", seed as u32))
}

fn progress_bar(json: bool) -> ProgressBar {
    let progress = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if json {
        progress.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{prefix:>24} [{bar:30}] {pos}/{len} {wide_msg}");
    progress.set_style(
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> "),
    );
    progress
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tour_does_not_come_to_is_named_with_the_command_for_it() {
        let (first, place) = (EXPERIMENTS[0], Place::nowhere());
        for left in [None, Some(Duration::from_nanos(1))] {
            assert_eq!(obstacle(first, &place, left), None);
        }
        let said = obstacle(first, &place, Some(Duration::ZERO)).expect("the tour is over");
        assert!(said.ends_with(&format!("dplab run {}", first.id())), "{said}");
    }
}
