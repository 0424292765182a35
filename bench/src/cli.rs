//! The command line: what a user may say. Meaning is checked in [`Selection`], so that a typo is answered with the
//! nearest names before anything is measured.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    advice::advice,
    agent::{AgentOptions, PORT_DEFAULT},
    backends::BACKENDS,
    cluster::args::{KvArgs, ServeArgs},
    experiment::{Choice, Depth, Experiment},
    experiments::scenarios::Scenario,
    place::{CLIENT_PORT, SERVER_PORT},
    registry::EXPERIMENTS,
    replicas::FanOut,
    sim_args::SimArgs,
    soak::DriverKind,
};

/// Puts published claims about the network data plane on trial, on this machine or between two.
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
    /// Measure; without an ID the tour: of most experiments a little, in at most 90 s
    Run(Box<RunArgs>),
    /// Run every experiment once at its smallest: does everything work here? No figures are judged
    Verify {
        /// Decides every schedule and order
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// Folder for the records
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Let clusters of replicas live through faults in virtual time, history after history; each must hold what it promises
    Soak(SoakArgs),
    /// Answer measurements of another machine over a real interface, until ended; obeys only who has the key
    Agent(AgentArgs),
    /// Run one replica of a replicated key-value store, until ended; three of them make a cluster
    Serve(ServeArgs),
    /// Ask a replicated store: put, get, append, cas, delete, range; show and change its members.
    ///
    /// Exit status: 0 done; 1 no such key, or another value; 2 wrong or refused; 3 no quorum answered in time.
    Kv(KvArgs),
    /// Look at a replica's log on disk, or take damage out of it.
    ///
    /// Exit status: 0 sound, or repaired; 1 damaged, or acknowledged entries are missing; 2 wrong words, or no log.
    Wal(WalArgs),
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
    /// Put the arms of recorded runs in order, with ties where noise decides nothing; of several runs, do they agree?
    ///
    /// Exit status: 0 no run says the contrary of another; 1 one does.
    Order {
        /// Run folders
        #[arg(required = true, value_name = "DIR")]
        folders: Vec<PathBuf>,
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
    /// Print the JSON schema of record lines, or of scenario files
    #[command(hide = true)]
    Schema {
        /// Of scenario files
        #[arg(long)]
        scenario: bool,
    },
    /// The other end of a trial
    #[command(hide = true, name = crate::server::SUBCOMMAND)]
    ServeTrial {
        /// JSON
        config: String,
    },
    /// One replica of a cluster that is measured
    #[command(hide = true, name = crate::replicas::SUBCOMMAND)]
    ServeReplica {
        /// JSON
        config: String,
    },
    /// A replica of each of several clusters that are measured
    #[command(hide = true, name = crate::replicas::SUBCOMMAND_HOSTED)]
    ServeShards {
        /// JSON
        config: String,
    },
    /// A neighbour that wants a CPU
    #[command(hide = true, name = crate::hogs::SUBCOMMAND)]
    ServeHog {
        /// JSON
        config: String,
    },
    /// Service nodes
    #[command(hide = true, name = crate::service::SUBCOMMAND)]
    ServeService {
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
    /// Experiments (see `dplab list`), or a scenario of your own: a file that ends in .toml
    #[arg(value_name = "ID|FILE.toml")]
    pub ids: Vec<String>,
    /// Only these back ends
    #[arg(long = "backend", value_name = "NAME", value_delimiter = ',')]
    pub backends: Vec<String>,
    /// Values of an axis: frame_bytes=64,1472 (may be repeated for other axes)
    #[arg(long = "axis", value_name = "AXIS=VALUE,…")]
    pub axes: Vec<String>,
    /// Where programs of xdp-quorum are, host, dpu or offload: short for --axis placement=…
    #[arg(long, value_name = "PLACE,…")]
    pub placement: Option<String>,
    /// What capacity has to keep, p99=2ms: short for --axis slo_percentile=… and --axis slo_us=…
    #[arg(long, value_name = "pNN=TIME", value_parser = parse_objective)]
    pub slo: Option<(f64, Duration)>,
    /// Time for all of it: 30s, 5m [default: 65s for the tour, 60s per experiment otherwise]
    #[arg(long, value_name = "TIME", value_parser = parse_budget)]
    pub budget: Option<Duration>,
    /// Decides every schedule and order [default: random, and recorded]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Folder for records and reports [default: dplab-runs/TIME-SEED]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where the files go of an experiment over a disk; removed afterwards [default: the run's folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Print the records on stdout as they are measured, and nothing else
    #[arg(long)]
    pub json: bool,
    /// Write what happened at an emulated switch's queues, the first N events of each measurement, as queues/*.csv in the run's
    /// folder (only the soft switch keeps them)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub queue_log: Option<u32>,
    /// Of scenarios
    #[command(flatten)]
    pub sim: SimArgs,
    /// Between two machines
    #[command(flatten)]
    pub wire: WireArgs,
}

/// A run between two machines.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Between two machines")]
pub struct WireArgs {
    /// Measure over this interface, to the machine where `dplab agent` runs, instead of between namespaces
    #[arg(long, value_name = "NAME", requires = "peer")]
    pub interface: Option<String>,
    /// Where the agent listens [default port: 7400]
    #[arg(long, value_name = "ADDRESS[:PORT]", requires = "interface", requires = "key_file", value_parser = parse_listen)]
    pub peer: Option<SocketAddr>,
    /// The key that both machines share; only its owner may be able to read the file
    #[arg(long, value_name = "FILE", requires = "interface")]
    pub key_file: Option<PathBuf>,
    /// Which of the interface's addresses [default: the first, IPv4 before IPv6]
    #[arg(long, value_name = "ADDRESS", requires = "interface")]
    pub local_address: Option<IpAddr>,
    /// UDP ports of the client and of the server [default: 7001,7000]
    #[arg(long, value_name = "CLIENT,SERVER", requires = "interface", value_parser = parse_ports)]
    pub udp_ports: Option<(u16, u16)>,
    /// Also over the interface that carries the default route
    #[arg(long, requires = "interface")]
    pub force_interface: bool,
}

/// A run between two machines, complete.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The interface of this machine.
    pub interface: String,
    /// Also where it carries the default route.
    pub force_interface: bool,
    /// The address, if one was chosen.
    pub local_address: Option<IpAddr>,
    /// The client's UDP port.
    pub client_port: u16,
    /// The server's UDP port.
    pub server_port: u16,
    /// Where the agent listens.
    pub peer: SocketAddr,
    /// The shared key.
    pub key_file: PathBuf,
}

impl WireArgs {
    /// The wire, if one was named. That nothing is missing was checked when the command line was read.
    pub fn wire(&self) -> Option<Wire> {
        let (client_port, server_port) = self.udp_ports.unwrap_or((CLIENT_PORT, SERVER_PORT));
        Some(Wire {
            interface: self.interface.clone()?,
            force_interface: self.force_interface,
            local_address: self.local_address,
            client_port,
            server_port,
            peer: self.peer?,
            key_file: self.key_file.clone()?,
        })
    }
}

/// What `wal` takes.
#[derive(Debug, Args)]
pub struct WalArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WalCommand,
}

/// What to do with a log.
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// List every record, where it stands, and what recovery would say; the log may be in use
    Inspect {
        /// The log's folder: of a replica, DATA/wal
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what a repair would drop, and with --yes drop it; the log must not be in use
    Repair {
        /// The log's folder: of a replica, DATA/wal
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Do it; without this nothing is changed
        #[arg(long)]
        yes: bool,
    },
}

/// What `soak` takes.
#[derive(Clone, Debug, Args)]
pub struct SoakArgs {
    /// Let things go wrong: crashes, partitions, loss, corruption, slow disks, clocks that drift
    #[arg(long)]
    pub faults: bool,
    /// The first history's seed; the next ones follow it [default: random, and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How many histories [default: 1000]
    #[arg(long, value_name = "N", conflicts_with = "time")]
    pub histories: Option<u64>,
    /// As many histories as end within this time: 60s, 10m
    #[arg(long = "for", value_name = "TIME", value_parser = parse_budget)]
    pub time: Option<Duration>,
    /// Fewest and most replicas, of 1 to 7
    #[arg(long, value_name = "MIN..MAX", default_value = "3..7", value_parser = parse_nodes)]
    pub nodes: (u32, u32),
    /// Histories at the same time
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub threads: usize,
    /// Make a mistake on purpose, which must be found: small-commit-quorum, stale-lease, lying-disk, …
    #[arg(long, value_name = "NAME")]
    pub mutation: Option<String>,
    /// Who does the replicas' fast path: nobody, the rules of the XDP programs as ordinary code, or the programs themselves; or
    /// one-sided replication over simulated RDMA
    #[arg(long, value_enum, default_value_t = DriverKind::None)]
    pub driver: DriverKind,
    /// How a leader's program reaches the followers [default: as each history draws it]
    #[arg(long, value_enum)]
    pub fan_out: Option<FanOut>,
    /// Only the history of this seed, explained
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seed", "histories", "time"])]
    pub replay: Option<u64>,
}

/// What `agent` takes.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The interface that is measured
    #[arg(long, value_name = "NAME", required_unless_present = "new_key")]
    pub interface: Option<String>,
    /// Where requests come in; one address of this machine [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = parse_listen)]
    pub listen: Option<SocketAddr>,
    /// The key that both machines share; only its owner may be able to read the file
    #[arg(long, value_name = "FILE", required_unless_present = "new_key")]
    pub key_file: Option<PathBuf>,
    /// Also over the interface that carries the default route
    #[arg(long)]
    pub force_interface: bool,
    /// Make a key file from the system's randomness, and do nothing else; copy it to the other machine
    #[arg(long, value_name = "FILE", exclusive = true)]
    pub new_key: Option<PathBuf>,
    /// End with the process of this number, which has started this one
    #[arg(long, value_name = "PID", hide = true)]
    pub parent: Option<u32>,
}

impl AgentArgs {
    /// The agent's options. That nothing is missing was checked when the command line was read.
    pub fn options(&self) -> Option<AgentOptions> {
        Some(AgentOptions {
            interface: self.interface.clone()?,
            force_interface: self.force_interface,
            listen: self.listen.unwrap_or((Ipv4Addr::LOCALHOST, PORT_DEFAULT).into()),
            key_file: self.key_file.clone()?,
            parent: self.parent,
        })
    }
}

fn parse_nodes(text: &str) -> Result<(u32, u32), String> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let count = |text: &str| text.parse::<u32>().ok().filter(|count| (1..=7).contains(count));
    match (count(min), count(max)) {
        (Some(min), Some(max)) if min <= max => Ok((min, max)),
        _ => Err("write two numbers from 1 to 7, like 3..7, or one".to_owned()),
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>();
    let without = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT_DEFAULT));
    with_port.or_else(|_| without()).map_err(|_| {
        "write an address like 192.0.2.2, 192.0.2.2:7400 or [2001:db8::2]:7400; names are not looked up".to_owned()
    })
}

fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once(',').and_then(|(client, server)| {
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port >= 1024);
        Some((port(client)?, port(server)?))
    });
    parsed.ok_or_else(|| "write two ports from 1024 to 65535, like 7001,7000".to_owned())
}

/// The shortest and the longest budget: a glance, as every experiment measures one round whatever its budget, and a day.
const BUDGET_MIN: Duration = Duration::from_millis(100);
const BUDGET_MAX: Duration = Duration::from_secs(24 * 3600);

fn parse_budget(text: &str) -> Result<Duration, String> {
    let budget = humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 30s or 5m"))?;
    if !(BUDGET_MIN..=BUDGET_MAX).contains(&budget) {
        return Err("a budget is from 100ms to 24h".to_owned());
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
    /// Where files go whose disk matters.
    pub dir: Option<PathBuf>,
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
        let (files, named): (Vec<&String>, Vec<&String>) = self.ids.iter().partition(|id| id.ends_with(".toml"));
        for &id in &named {
            if !ids.clone().any(|known| known == id) {
                return Err(unknown("experiment", id, ids));
            }
        }
        let is_tour = self.ids.is_empty();
        let mut experiments: Vec<&'static dyn Experiment> = EXPERIMENTS
            .iter()
            .copied()
            // An experiment without a share of the tour runs only when it is asked for.
            .filter(|experiment| {
                is_tour && experiment.tour_weight() > 0.0 || self.ids.iter().any(|id| id == experiment.id())
            })
            .collect();
        for file in files {
            let scenario = Scenario::read(Path::new(file)).map_err(|error| BadSelection(format!("{error:#}")))?;
            experiments.push(scenario);
        }

        if self.dir.is_some() && !experiments.iter().any(|experiment| experiment.keeps_files()) {
            let with = EXPERIMENTS.iter().filter(|experiment| experiment.keeps_files());
            let with: Vec<&str> = with.map(|experiment| experiment.id()).collect();
            return Err(BadSelection(format!(
                "--dir says where the files of {} go, and none of these is run",
                with.join(" and ")
            )));
        }

        if self.queue_log.is_some() && !experiments.iter().any(|experiment| experiment.has_queue_log()) {
            let with = EXPERIMENTS.iter().filter(|experiment| experiment.has_queue_log());
            let with: Vec<&str> = with.map(|experiment| experiment.id()).collect();
            return Err(BadSelection(format!(
                "--queue-log is about the queues of an emulated switch, and none is run: name {}",
                with.join(" or ")
            )));
        }

        if let Some(said) = self.sim.first_said()
            && !experiments.iter().any(|experiment| experiment.is_scenario())
        {
            let known = EXPERIMENTS.iter().filter(|experiment| experiment.is_scenario());
            let known: Vec<&str> = known.map(|experiment| experiment.id()).collect();
            return Err(BadSelection(format!(
                "{said} is about scenarios, and none is run: name a file, or one of {}",
                known.join(", ")
            )));
        }
        let sim = self.sim.read().map_err(|error| BadSelection(format!("{error:#}")))?;

        let mut backends = Vec::new();
        for name in &self.backends {
            let known = BACKENDS.iter().map(|backend| backend.name);
            match known.clone().find(|known| known == name) {
                Some(known) => backends.push(known),
                None => return Err(unknown("back end", name, known)),
            }
        }

        let mut axes = BTreeMap::new();
        let placement = self.placement.as_ref().map(|places| format!("placement={places}"));
        let objective: Vec<String> = self.slo.iter().flat_map(objective_axes).collect();
        for text in self.axes.iter().chain(&placement).chain(&objective) {
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
            true => (Depth::Tour, Duration::from_secs(65)),
            false => (Depth::Full, Duration::from_secs(60) * experiments.len() as u32),
        };
        let choice = Choice {
            depth,
            backends: (!backends.is_empty()).then_some(backends),
            axes,
            sim,
            queue_log_events_max: self.queue_log.unwrap_or(0) as usize,
            seed,
        };
        Ok(Selection {
            experiments,
            choice,
            budget: self.budget.unwrap_or(budget),
            dir: self.dir.clone(),
        })
    }
}

/// "p99=2ms": a percentile, and the time that it may take.
fn parse_objective(text: &str) -> Result<(f64, Duration), String> {
    let parse = || {
        let (percentile, time) = text.strip_prefix('p')?.split_once('=')?;
        let time = humantime::parse_duration(time).ok()?;
        Some((percentile.parse::<f64>().ok()?, time))
    };
    parse().ok_or_else(|| "write a percentile and a time, like p99=2ms or p99.9=500us".to_owned())
}

fn objective_axes((percentile, time): &(f64, Duration)) -> [String; 2] {
    [
        format!("slo_percentile={percentile}"),
        format!("slo_us={}", time.as_nanos() as f64 / 1e3),
    ]
}

fn unknown<'a>(what: &str, wanted: &str, known: impl Iterator<Item = &'a str> + Clone) -> BadSelection {
    BadSelection(format!("no {what} is called {wanted:?}; {}", advice(wanted, known)))
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
    fn a_log_of_queues_takes_an_experiment_with_a_switch() {
        let args = |id: &str| RunArgs {
            ids: vec![id.to_owned()],
            queue_log: Some(1_000),
            ..RunArgs::default()
        };
        let error = args("rtt-ladder").select().err().expect("no switch").to_string();
        assert!(error.contains("emulated-switch"), "{error}");
        let selection = args("emulated-switch").select().expect("a switch");
        assert_eq!(selection.choice.queue_log_events_max, 1_000);
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
    fn an_objective_is_two_axes() {
        assert_eq!(parse_objective("p99=2ms"), Ok((99.0, Duration::from_millis(2))));
        assert_eq!(
            objective_axes(&(99.9, Duration::from_micros(500))),
            ["slo_percentile=99.9", "slo_us=500"]
        );
        for text in ["99=2ms", "p99", "p99=2", "pp=2ms"] {
            assert!(parse_objective(text).expect_err(text).contains("p99=2ms"), "{text}");
        }
        let wanted = |slo| RunArgs {
            ids: vec!["capacity".to_owned()],
            slo: Some(slo),
            ..RunArgs::default()
        };
        let selection = wanted((99.0, Duration::from_micros(50)))
            .select()
            .expect("an objective of capacity");
        assert_eq!(selection.choice.axes["slo_us"], ["50"]);
        assert!(
            wanted((120.0, Duration::from_millis(2))).select().is_err(),
            "no percentile"
        );
    }

    #[test]
    fn a_placement_is_an_axis_under_a_name_of_its_own() {
        let placed = |placement: &str| RunArgs {
            ids: vec!["xdp-quorum".to_owned()],
            placement: Some(placement.to_owned()),
            ..RunArgs::default()
        };
        let selection = placed("host,dpu").select().expect("both are places");
        assert_eq!(selection.choice.axes["placement"], ["host", "dpu"]);
        let error = placed("gpu").select().err().expect("no such place").to_string();
        assert!(error.contains("dpu"), "{error}");
        let elsewhere = RunArgs {
            ids: vec!["rtt-ladder".to_owned()],
            ..placed("dpu")
        };
        let error = elsewhere.select().err().expect("it has no programs").to_string();
        assert!(error.contains("placement"), "{error}");
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

    #[test]
    fn two_machines_are_named_wholly_or_not_at_all() {
        let wire = |args: &[&str]| match Cli::try_parse_from([&["dplab", "run"], args].concat()) {
            Ok(Cli {
                command: Command::Run(args),
            }) => Ok(args.wire.wire()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        };
        assert!(wire(&[]).expect("a run").is_none());
        let whole = ["--interface", "eth1", "--peer", "192.0.2.2", "--key-file", "key"];
        let named = wire(&whole).expect("a run").expect("two machines");
        assert_eq!(named.peer.to_string(), "192.0.2.2:7400");
        assert_eq!((named.client_port, named.server_port), (7001, 7000));
        for missing in [&whole[..2], &whole[2..4], &whole[..4], &whole[2..], &whole[4..]] {
            assert!(wire(missing).is_err(), "{missing:?}");
        }
        for (option, value, advice) in [
            ("--peer", "example.org:7400", "names are not looked up"),
            ("--udp-ports", "53,7000", "1024"),
            ("--udp-ports", "7001", "7001,7000"),
        ] {
            let error = wire(&[&whole[..2], &[option, value]].concat()).expect_err("bad");
            assert!(error.contains(advice), "{error}");
        }
        for args in [&["dplab", "agent"][..], &["dplab", "agent", "--interface", "eth1"]] {
            assert!(Cli::try_parse_from(args).is_err(), "{args:?}");
        }
    }
}
