//! What an experiment is, and what it may ask of the lab while it runs.

mod turns;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    backends::BackEnd,
    claim::Claim,
    disk::DiskFolder,
    place::Place,
    record::{Published, Record, Row, SupportRecord},
    sim_args::SimChoice,
    store::RunFolder,
    table::Table,
};

pub use turns::Turn;

/// A line on stderr, above the progress if it shows. (`ProgressBar::println` says nothing where stderr is no terminal.)
pub fn say(progress: &indicatif::ProgressBar, line: &str) {
    progress.suspend(|| eprintln!("{line}"));
}

/// One experiment: a question, axes, and the claims it can judge. One file each under `experiments/`, one line each in
/// [`crate::registry`].
pub trait Experiment: Sync {
    /// Short, kebab-case, unique.
    fn id(&self) -> &'static str;
    /// A few words for headings.
    fn title(&self) -> &'static str;
    /// What a reader learns, as a question.
    fn question(&self) -> &'static str;
    /// What is done to answer it, for a stranger.
    fn how(&self) -> &'static str;
    /// What can be varied.
    fn axes(&self) -> &'static [Axis];
    /// The back ends it compares, by name; the order is that of the tables.
    fn backends(&self) -> Vec<&'static str>;
    /// Those that the tour measures.
    fn tour_backends(&self) -> Vec<&'static str> {
        self.backends()
    }
    /// Figures that others published about what it measures, for its chart.
    fn published(&self) -> Vec<Published> {
        Vec::new()
    }
    /// The claims it judges.
    fn claims(&self) -> &'static [Claim];
    /// This experiment's share of the tour, relative to the others'; 0 for one that runs only when it is asked for.
    fn tour_weight(&self) -> f64;
    /// Why it cannot be measured between two machines, if it cannot.
    fn needs_one_machine(&self) -> Option<&'static str> {
        None
    }
    /// What it measures in, if it makes that itself and leaves the run's two hosts alone.
    fn own_network(&self) -> Option<&'static str> {
        None
    }
    /// Does it happen in virtual time alone, so that it needs no hosts and no privilege?
    fn is_virtual(&self) -> bool {
        false
    }
    /// Is it a scenario, so that its flows can be listed and replaced?
    fn is_scenario(&self) -> bool {
        false
    }
    /// Does it write files whose disk matters, so that `--dir` means something?
    fn keeps_files(&self) -> bool {
        false
    }
    /// Does it send through an emulated switch whose queues can be logged (`--queue-log`)?
    fn has_queue_log(&self) -> bool {
        false
    }
    /// Measures, and records each row as soon as it has it.
    ///
    /// # Errors
    /// What ended it early; rows recorded so far stay.
    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()>;
}

/// Something that is varied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    /// Name, unit last: `frame_bytes`.
    pub name: &'static str,
    /// What it is, in a few words.
    pub meaning: &'static str,
    /// Values of a full run.
    pub full: &'static [&'static str],
    /// Values of the tour.
    pub tour: &'static [&'static str],
    /// The value of `verify`.
    pub smallest: &'static str,
    /// What a user may ask for.
    pub allowed: Allowed,
}

/// The values of an axis that make sense.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// A number from the first to the second, both included.
    Number(f64, f64),
    /// One of the full run's words.
    Words,
    /// One of these words, or the path of a file.
    WordsOrFile(&'static [&'static str]),
}

impl Axis {
    /// Is `value` one that makes sense?
    ///
    /// # Errors
    /// A sentence with the bound.
    pub fn check(&self, value: &str) -> Result<(), String> {
        match self.allowed {
            Allowed::Words if self.full.contains(&value) => Ok(()),
            Allowed::WordsOrFile(words) if words.contains(&value) || Path::new(value).is_file() => Ok(()),
            Allowed::WordsOrFile(words) => Err(format!(
                "axis {} takes {} or a file, not {value:?}",
                self.name,
                words.join(", ")
            )),
            Allowed::Words => Err(format!(
                "axis {} takes {}, not {value:?}",
                self.name,
                self.full.join(", ")
            )),
            Allowed::Number(low, high) => match value.parse::<f64>() {
                Ok(number) if (low..=high).contains(&number) => Ok(()),
                _ => Err(format!(
                    "axis {} takes a number from {low} to {high}, not {value:?}",
                    self.name
                )),
            },
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every experiment a little.
    Tour,
    /// What was asked for, wholly.
    Full,
    /// The smallest axis, once: does it work?
    Smallest,
}

/// What the user chose, already checked against the registry.
#[derive(Clone, Debug)]
pub struct Choice {
    /// How much.
    pub depth: Depth,
    /// Only these back ends, if any were named.
    pub backends: Option<Vec<&'static str>>,
    /// Values of axes, if any were given.
    pub axes: BTreeMap<String, Vec<String>>,
    /// What is wanted of scenarios beside rows.
    pub sim: SimChoice,
    /// How many events at the queues of each emulated switch are written to a file; 0: no file.
    pub queue_log_events_max: usize,
    /// Decides every schedule, order and resampling.
    pub seed: u64,
}

/// What an experiment may ask of the lab.
#[derive(Debug)]
pub struct Lab<'run> {
    /// What the user chose.
    pub choice: &'run Choice,
    /// Where the packets go.
    pub place: &'run Place,
    /// Time for this experiment.
    pub budget: Duration,
    /// Time until the tour is over, where this is one.
    pub limit: Option<Duration>,
    /// Set by Ctrl-C.
    pub stop: &'run AtomicBool,
    /// What each back end is here.
    pub supports: &'run BTreeMap<&'static str, SupportRecord>,
    /// Where files go whose disk matters, if the user said so.
    pub dir: Option<&'run Path>,
    /// The run's folder.
    pub folder: &'run mut RunFolder,
    /// Rows also go to stdout (--json).
    pub echo_rows: bool,
    /// Tells the person at the terminal.
    pub progress: &'run indicatif::ProgressBar,
    /// When the run began.
    pub run_started: Instant,
    /// When this experiment began.
    pub started: Instant,
    /// Rows so far.
    pub table: Table,
}

impl Lab<'_> {
    /// The values of an axis for this run.
    pub fn values(&self, axis: &Axis) -> Vec<String> {
        if let Some(values) = self.choice.axes.get(axis.name) {
            return values.clone();
        }
        match self.choice.depth {
            Depth::Tour => axis.tour.iter().map(ToString::to_string).collect(),
            Depth::Full => axis.full.iter().map(ToString::to_string).collect(),
            Depth::Smallest => vec![axis.smallest.to_owned()],
        }
    }

    /// The values of a numeric axis.
    ///
    /// # Panics
    /// If the axis has values that are not numbers: they were checked when the command line was read.
    pub fn numbers(&self, axis: &Axis) -> Vec<f64> {
        self.values(axis)
            .iter()
            .map(|value| value.parse().expect("axis values are checked beforehand"))
            .collect()
    }

    /// The values of an axis of frame sizes that fit this place in one packet; says which do not.
    ///
    /// # Panics
    /// As [`Lab::numbers`].
    pub fn frame_sizes(&self, axis: &Axis) -> Vec<usize> {
        let bytes_max = self.place.frame_bytes_max().unwrap_or(usize::MAX);
        let sizes = self.numbers(axis).into_iter().map(|number| number as usize);
        let (fit, too_large): (Vec<usize>, Vec<usize>) = sizes.partition(|bytes| *bytes <= bytes_max);
        for bytes in too_large {
            self.say(&format!(
                "{}={bytes} is left out: it would go in fragments, the interfaces' MTU leaves room for {bytes_max}",
                axis.name
            ));
        }
        fit
    }

    /// The back ends of `experiment` that were asked for and exist here.
    pub fn backends(&self, experiment: &dyn Experiment) -> Vec<&'static BackEnd> {
        let wanted = match (&self.choice.backends, self.choice.depth) {
            (Some(named), _) => named.clone(),
            (None, Depth::Full) => experiment.backends(),
            (None, Depth::Tour | Depth::Smallest) => experiment.tour_backends(),
        };
        experiment
            .backends()
            .into_iter()
            .filter(|name| wanted.contains(name))
            .filter(|name| {
                matches!(
                    self.supports.get(name),
                    Some(SupportRecord::Native | SupportRecord::Emulated { .. })
                )
            })
            .filter_map(crate::backends::by_name)
            .collect()
    }

    /// A folder on a disk with room for so many bytes, removed when it is dropped: where the user said, or in the run's own
    /// folder. `None`, and says why, if that is no disk, or too full, and the user named none.
    ///
    /// # Errors
    /// The user named one, and it will not do.
    pub fn disk_folder(&self, needed_bytes: u64) -> anyhow::Result<Option<DiskFolder>> {
        match self.dir {
            Some(dir) => DiskFolder::create(dir, needed_bytes).map(Some),
            None => match DiskFolder::create(self.folder.path(), needed_bytes) {
                Ok(folder) => Ok(Some(folder)),
                Err(error) => {
                    self.say(&format!("nothing is measured: {error:#}"));
                    Ok(None)
                }
            },
        }
    }

    /// Tells the person at the terminal, or whoever reads stderr, a line beside the progress.
    pub fn say(&self, line: &str) {
        say(self.progress, line);
    }

    /// Has the user had enough?
    pub fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Keeps a row: on disk at once, and for the claims.
    ///
    /// # Errors
    /// When it could not be written; what was written before stays.
    pub fn record(&mut self, row: Row) -> anyhow::Result<()> {
        let record = Record::Row(Box::new(row));
        self.folder.append(&record).context("writing a row")?;
        if self.echo_rows {
            println!("{}", serde_json::to_string(&record)?);
        }
        if let Record::Row(row) = record {
            self.table.rows.push(*row);
        }
        Ok(())
    }

    /// Measures and keeps a row, and again while it is INVALID and there is time: gates see the machine and the generator,
    /// never the result, so a repetition selects nothing. INVALID rows stay in the record.
    ///
    /// # Errors
    /// The measurement's, or as [`Lab::record`].
    pub fn record_until_valid(
        &mut self,
        mut measure: impl FnMut(&Lab<'_>) -> anyhow::Result<Row>,
    ) -> anyhow::Result<()> {
        self.record_all_until_valid(|lab| Ok(vec![measure(lab)?]))
    }

    /// [`Lab::record_until_valid`] for a measurement that gives several rows, which are valid or INVALID together.
    ///
    /// # Errors
    /// As there.
    pub fn record_all_until_valid(
        &mut self,
        mut measure: impl FnMut(&Lab<'_>) -> anyhow::Result<Vec<Row>>,
    ) -> anyhow::Result<()> {
        const ATTEMPTS_MAX: usize = 3;
        for attempt in 1..=ATTEMPTS_MAX {
            let rows = measure(self)?;
            let is_last = rows.iter().all(|row| row.validity.is_valid())
                || attempt == ATTEMPTS_MAX
                || self.choice.depth == Depth::Smallest
                || self.started.elapsed() > self.budget
                || self.interrupted();
            rows.into_iter().try_for_each(|row| self.record(row))?;
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Divides the budget: `arms_count` trials a round, each of at least `trial_min`. A trial takes a few tens of
    /// milliseconds more than it measures, for starting its two ends.
    pub fn plan(&self, arms_count: usize, trial_min: Duration) -> Plan {
        const ROUNDS_MIN: u32 = crate::table::ROUNDS_MIN as u32;
        const ROUNDS_MAX: u32 = 20;
        const TRIAL_MAX: Duration = Duration::from_secs(2);
        const OVERHEAD: Duration = Duration::from_millis(60);
        /// The rest is for measuring INVALID rows again.
        const PLANNED_RATIO: f64 = 0.8;
        if self.choice.depth == Depth::Smallest {
            return Plan {
                rounds_count: 1,
                trial: trial_min,
            };
        }
        let arms_count = arms_count.max(1) as u32;
        let budget = self.budget.mul_f64(PLANNED_RATIO);
        let round_min = (trial_min + OVERHEAD) * arms_count;
        let rounds_count = (budget.as_secs_f64() / round_min.as_secs_f64()) as u32;
        let rounds_count = rounds_count.clamp(ROUNDS_MIN, ROUNDS_MAX);
        let trial = (budget / (rounds_count * arms_count)).saturating_sub(OVERHEAD);
        Plan {
            rounds_count,
            trial: trial.clamp(trial_min, TRIAL_MAX.max(trial_min)),
        }
    }
}

/// How often and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Rounds; each measures every arm once.
    pub rounds_count: u32,
    /// Duration of each measurement.
    pub trial: Duration,
}
