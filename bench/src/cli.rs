//! The command line: what a user may say. Meaning is checked in [`Selection`], so that a typo is answered with the
//! nearest names before anything is measured.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    backends::BACKENDS,
    experiment::{Choice, Depth, Experiment},
    registry::{EXPERIMENTS, nearest},
};

/// Puts published claims about the network data plane on trial, on this machine.
///
/// Exit status of run and verify: 0 every claim holds or could not be decided here; 1 a claim fails; 2 the run failed;
/// 3 a measurement is invalid.
#[derive(Debug, Parser)]
#[command(name = "dplab", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List experiments, their axes and claims, and the back ends
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask this machine: which back ends it has, and what makes it noisy
    #[command(alias = "doctor")]
    Probe {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure; without an ID the tour: every experiment a little, in at most 90 s
    Run(RunArgs),
    /// Run every experiment once at its smallest: does everything work here? No figures are judged
    Verify {
        /// Decides every schedule and order
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// Folder for the records
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Compare two runs: what changed, beyond the noise?
    Compare {
        /// The run before
        a: PathBuf,
        /// The run after
        b: PathBuf,
        /// How to print it
        #[arg(long, value_enum, default_value_t = CompareFormat::Terminal)]
        format: CompareFormat,
    },
    /// Make reports from recorded runs; measures nothing
    Report {
        /// Run folders
        #[arg(required = true, value_name = "DIR")]
        folders: Vec<PathBuf>,
        /// What to make; html and markdown are written into the (first) folder
        #[arg(long, value_enum, default_value_t = ReportFormat::Html)]
        format: ReportFormat,
    },
    /// Explain a claim or an experiment: who says it, what decides it
    Explain {
        /// A claim's or an experiment's ID
        id: String,
    },
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
    /// Print the JSON schema of record lines
    #[command(hide = true)]
    Schema,
    /// The other end of a trial
    #[command(hide = true, name = crate::server::SUBCOMMAND)]
    Serve {
        /// JSON
        config: String,
    },
    /// The answering end of a breakdown
    #[command(hide = true, name = crate::breakdown::SUBCOMMAND)]
    ServeStamped {
        /// JSON
        config: String,
    },
}

/// How `compare` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompareFormat {
    /// A table for the terminal
    Terminal,
    /// Tables to paste
    Markdown,
    /// For programs
    Json,
}

/// What `report` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// One self-contained page
    Html,
    /// Tables to paste
    Markdown,
    /// A summary on stdout
    Terminal,
}

/// What `run` takes.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// Experiments (see `dplab list`)
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Only these back ends
    #[arg(long = "backend", value_name = "NAME", value_delimiter = ',')]
    pub backends: Vec<String>,
    /// Values of an axis: frame_bytes=64,1472 (may be repeated for other axes)
    #[arg(long = "axis", value_name = "AXIS=VALUE,…")]
    pub axes: Vec<String>,
    /// Time for all of it: 30s, 5m [default: 70s for the tour, 60s per experiment otherwise]
    #[arg(long, value_name = "TIME", value_parser = parse_budget)]
    pub budget: Option<Duration>,
    /// Decides every schedule and order [default: random, and recorded]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Folder for records and reports [default: dplab-runs/TIME-SEED]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the records on stdout as they are measured, and nothing else
    #[arg(long)]
    pub json: bool,
}

/// The shortest and the longest budget.
const BUDGET_MIN: Duration = Duration::from_secs(1);
const BUDGET_MAX: Duration = Duration::from_secs(24 * 3600);

fn parse_budget(text: &str) -> Result<Duration, String> {
    let budget = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 30s or 5m"))?;
    if !(BUDGET_MIN..=BUDGET_MAX).contains(&budget) {
        return Err("a budget is from 1s to 24h".to_owned());
    }
    Ok(budget)
}

/// What a checked command line asks for.
pub struct Selection {
    /// In the registry's order.
    pub experiments: Vec<&'static dyn Experiment>,
    /// How.
    pub choice: Choice,
    /// Time for all of it.
    pub budget: Duration,
}

/// A name that means nothing here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadSelection(String);

impl RunArgs {
    /// Checks every name and value against the registry.
    ///
    /// # Errors
    /// [`BadSelection`] with the nearest names or the bound.
    pub fn select(&self) -> Result<Selection, BadSelection> {
        let ids = EXPERIMENTS.iter().map(|experiment| experiment.id());
        for id in &self.ids {
            if !ids.clone().any(|known| known == id) {
                return Err(unknown("experiment", id, ids));
            }
        }
        let is_tour = self.ids.is_empty();
        let experiments: Vec<&'static dyn Experiment> = EXPERIMENTS
            .iter()
            .copied()
            // An experiment without a share of the tour runs only when it is asked for.
            .filter(|experiment| {
                is_tour && experiment.tour_weight() > 0.0 || self.ids.iter().any(|id| id == experiment.id())
            })
            .collect();

        let mut backends = Vec::new();
        for name in &self.backends {
            let known = BACKENDS.iter().map(|backend| backend.name);
            match known.clone().find(|known| known == name) {
                Some(known) => backends.push(known),
                None => return Err(unknown("back end", name, known)),
            }
        }

        let mut axes = BTreeMap::new();
        for text in &self.axes {
            let Some((name, values)) = text.split_once('=') else {
                return Err(BadSelection(format!(
                    "--axis {text:?} is not of the form AXIS=VALUE,VALUE"
                )));
            };
            let known = experiments.iter().flat_map(|experiment| experiment.axes());
            let having: Vec<_> = known.clone().filter(|axis| axis.name == name).collect();
            if having.is_empty() {
                return Err(unknown("axis", name, known.map(|axis| axis.name)));
            }
            let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
            for axis in having {
                values
                    .iter()
                    .try_for_each(|value| axis.check(value))
                    .map_err(BadSelection)?;
            }
            axes.insert(name.to_owned(), values);
        }

        let seed = self.seed.unwrap_or_else(rand::random);
        let (depth, budget) = match is_tour {
            true => (Depth::Tour, Duration::from_secs(70)),
            false => (Depth::Full, Duration::from_secs(60) * experiments.len() as u32),
        };
        let choice = Choice {
            depth,
            backends: (!backends.is_empty()).then_some(backends),
            axes,
            seed,
        };
        Ok(Selection {
            experiments,
            choice,
            budget: self.budget.unwrap_or(budget),
        })
    }
}

fn unknown<'a>(what: &str, wanted: &str, known: impl Iterator<Item = &'a str> + Clone) -> BadSelection {
    let near = nearest(wanted, known.clone());
    let advice = match near.as_slice() {
        [] => format!("known: {}", known.collect::<Vec<_>>().join(", ")),
        near => format!("did you mean {}?", near.join(" or ")),
    };
    BadSelection(format!("no {what} is called {wanted:?}; {advice}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn typos_are_answered_with_names() {
        let args = RunArgs {
            ids: vec!["rtt-lader".to_owned()],
            ..RunArgs::default()
        };
        let error = args.select().err().expect("unknown").to_string();
        assert!(error.contains("did you mean rtt-ladder"), "{error}");
        let args = RunArgs {
            backends: vec!["udp-sping".to_owned()],
            ..RunArgs::default()
        };
        let error = args.select().err().expect("unknown").to_string();
        assert!(error.contains("udp-spin"), "{error}");
        let args = RunArgs {
            axes: vec!["frame_byte=64".to_owned()],
            ..RunArgs::default()
        };
        let error = args.select().err().expect("unknown").to_string();
        assert!(error.contains("frame_bytes"), "{error}");
    }

    #[test]
    fn absurd_values_are_refused_with_the_bound() {
        for (axis, bound) in [
            ("frame_bytes=1", "44"),
            ("rate_per_s=1000000000", "20000"),
            ("frame_bytes=", "44"),
        ] {
            let args = RunArgs {
                axes: vec![axis.to_owned()],
                ..RunArgs::default()
            };
            let error = args.select().err().expect("absurd").to_string();
            assert!(error.contains(bound), "{axis}: {error}");
        }
        assert!(parse_budget("0s").is_err());
        assert!(parse_budget("soon").is_err());
    }
}
