//! What a run leaves behind: JSON lines, written as they are measured, with a schema and a version.
//!
//! A run is a folder: `records.jsonl` (this file's [`Record`], one a line), `histograms/*.hlog` and `*.hgrm`, and the
//! reports made from them. Nothing here measures; nothing that measures formats text.

use std::collections::BTreeMap;

use dataplane_waist::{Mode, Support};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{environment::Environment, interface::Interface};

/// The version this build writes, and the highest it reads. It grows when a reader of the last version would
/// misunderstand a record; new optional fields do not count.
pub const SCHEMA_VERSION: u32 = 1;

/// One line of `records.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The first line: what ran where.
    Run(Box<RunHeader>),
    /// One measurement.
    Row(Box<Row>),
    /// What the rows say about one claim.
    Verdict(VerdictRecord),
    /// The last line. A run without one was killed.
    End(RunEnd),
}

/// The circumstances of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunHeader {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// Version of dplab.
    pub version: String,
    /// Commit of the sources, when they were built in a checkout; "-dirty" when it had changes.
    pub git_commit: Option<String>,
    /// "release" or "debug". A debug build measures itself.
    pub build_profile: String,
    /// The command line.
    pub command: Vec<String>,
    /// Decides every schedule, order and resampling of the run.
    pub seed: u64,
    /// Wall clock at the start, milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Time given to the whole run, in seconds, if any was.
    pub budget_s: Option<f64>,
    /// Where the packets went: "two network namespaces, one veth pair, …".
    pub place: String,
    /// The machine.
    pub environment: Environment,
    /// Every back end and what it is here, measured or not.
    pub backends: Vec<BackEndRecord>,
    /// What the measuring itself costs.
    pub generator: Option<GeneratorCost>,
    /// The other machine, where the server ran on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Box<AgentRecord>>,
    /// What others published about what is measured here, where it is a number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

/// A figure that somebody published, to lay beside rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Published {
    /// The experiment whose rows it is about.
    pub experiment: String,
    /// The value of the axis `arm` that it is about; without it, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// The axis on which `at` lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<String>,
    /// Where on the axis; without it, everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<f64>,
    /// The metric of a row that it is compared with.
    pub metric: String,
    /// What was published, in that metric's unit.
    pub value: f64,
    /// How far from it still agrees: 0.1 is 10 %.
    pub tolerance: f64,
    /// Where it was published: a figure, a table.
    pub place: String,
    /// In which work.
    pub work: String,
}

/// The other machine of a measurement between two, as its agent tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentRecord {
    /// Version of its dplab.
    pub version: String,
    /// Commit of its sources, if they were built in a checkout.
    pub git_commit: Option<String>,
    /// "release" or "debug".
    pub build_profile: String,
    /// Its interface.
    pub interface: Interface,
    /// The CPUs that it may use.
    pub cpus: Vec<usize>,
    /// The machine.
    pub environment: Environment,
    /// What each back end is there, by name.
    pub supports: BTreeMap<String, SupportRecord>,
}

/// What measuring costs on this machine, calibrated before the first row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GeneratorCost {
    /// Reading the clock once, in nanoseconds (median).
    pub clock_read_ns: f64,
    /// Recording one sample in a histogram, in nanoseconds (median).
    pub record_ns: f64,
    /// One empty turn of the generator's loop, in nanoseconds (median).
    pub loop_ns: f64,
}

/// A back end as probed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BackEndRecord {
    /// Its name.
    pub name: String,
    /// One sentence: what moves the frames.
    pub summary: String,
    /// What it is here.
    pub support: SupportRecord,
}

/// [`Support`], with "could not ask" as a fourth answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum SupportRecord {
    /// The real thing.
    Native,
    /// A stand-in.
    Emulated {
        /// What stands in.
        by: String,
    },
    /// Not here.
    Absent {
        /// Why, and what would give it.
        why: String,
    },
    /// The question could not be asked.
    Unknown {
        /// What was tried, what came back, what would help.
        why: String,
    },
}

impl From<Result<Support, dataplane_waist::ProbeError>> for SupportRecord {
    fn from(probe: Result<Support, dataplane_waist::ProbeError>) -> SupportRecord {
        match probe {
            Ok(Support::Native) => SupportRecord::Native,
            Ok(Support::Emulated { by }) => SupportRecord::Emulated { by },
            Ok(Support::Absent { why }) => SupportRecord::Absent { why },
            Err(error) => SupportRecord::Unknown { why: error.to_string() },
        }
    }
}

/// How a row's numbers came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum ModeRecord {
    /// Real packets through the real mechanism.
    Native,
    /// Real packets through a stand-in.
    Emulated {
        /// What stands in.
        by: String,
    },
    /// Computed in virtual time.
    Simulated,
}

impl From<Mode> for ModeRecord {
    fn from(mode: Mode) -> ModeRecord {
        match mode {
            Mode::Native => ModeRecord::Native,
            Mode::Emulated { by } => ModeRecord::Emulated { by },
            Mode::Simulated => ModeRecord::Simulated,
        }
    }
}

/// One measurement: one back end, one point of the axes, one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// The experiment's id.
    pub experiment: String,
    /// What moved the bytes: a back end's name; `sim` where nothing did and time is virtual; or the name of a yardstick
    /// measured beside the back ends that is none of them (`sockperf`, `eventfd`): such a row says in the fact `yardstick`
    /// what it is.
    pub backend: String,
    /// How the numbers came to be.
    pub mode: ModeRecord,
    /// Where on the experiment's axes: `frame_bytes` = "64", `load` = "open".
    pub axis: BTreeMap<String, String>,
    /// Rows of one round were measured next to each other; comparisons are paired by it.
    pub round: u32,
    /// The same back end measured a second time in the round: the A/A pair that shows the noise floor.
    pub twin: bool,
    /// Decided this row's schedule.
    pub seed: u64,
    /// When it started, seconds since the run's start.
    pub at_s: f64,
    /// How long it measured, in seconds.
    pub elapsed_s: f64,
    /// Reply time counted from the *intended* send time, lost requests included.
    pub latency: Option<Distribution>,
    /// Reply time counted from the actual send.
    pub service: Option<Distribution>,
    /// Actual minus intended send time: the generator's own lateness.
    pub schedule_lag: Option<Distribution>,
    /// Everything else that was measured.
    pub metrics: BTreeMap<String, Metric>,
    /// Reply time over the row's duration, for time series.
    pub series: Vec<SeriesPoint>,
    /// What is true of this row and is not a number: how it waited, on which CPU each end ran, what was injected.
    pub facts: BTreeMap<String, String>,
    /// May this row be judged?
    pub validity: Validity,
}

/// A distribution of durations in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    /// Samples in the histogram.
    pub samples_count: u64,
    /// Requests without a reply in time: they count as +∞ above every sample.
    pub lost_count: u64,
    /// Smallest sample.
    pub min_ns: u64,
    /// Largest sample.
    pub max_ns: u64,
    /// Mean of the samples, without the lost.
    pub mean_ns: f64,
    /// Selected quantiles, of samples and lost together.
    pub quantiles: Vec<QuantileRecord>,
    /// The whole histogram: HdrHistogram V2, deflated, base64. Merge these; never average quantiles.
    pub hdr_v2_deflate_base64: String,
}

/// One quantile with its 95 % confidence interval by order statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QuantileRecord {
    /// 0 to 1.
    pub q: f64,
    /// Its value.
    pub value: QuantileValue,
    /// Lower end of the interval.
    pub low: QuantileValue,
    /// Upper end of the interval.
    pub high: QuantileValue,
}

/// A quantile's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuantileValue {
    /// Nanoseconds.
    Ns(u64),
    /// The quantile falls among the lost requests: it is larger than any time.
    Lost,
    /// The sample is too small to say.
    Unsupported,
}

/// A measured number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// The number.
    pub value: f64,
    /// "ns", "1/s", "bytes", "ratio", "count", "%".
    pub unit: String,
    /// Which way is better.
    pub better: Better,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
    /// Neither: a circumstance.
    Neither,
}

/// One bucket of a row's time series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SeriesPoint {
    /// Start of the bucket, milliseconds since the row's start, by intended send time.
    pub at_ms: f64,
    /// Requests intended in the bucket.
    pub sent_count: u64,
    /// Those of them that were lost.
    pub lost_count: u64,
    /// Median latency of the rest, nanoseconds; `None` when there was none.
    pub p50_ns: Option<u64>,
    /// Largest latency of the rest, nanoseconds.
    pub max_ns: Option<u64>,
}

/// May a row be judged?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Validity {
    /// Yes.
    Valid,
    /// No: each reason says what was seen, why it matters, what to try.
    Invalid {
        /// One per gate that was missed.
        reasons: Vec<String>,
    },
}

impl Validity {
    /// May the row be judged?
    pub fn is_valid(&self) -> bool {
        matches!(self, Validity::Valid)
    }
}

/// What the rows say about one claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerdictRecord {
    /// The claim's id.
    pub claim: String,
    /// The experiment that judged it.
    pub experiment: String,
    /// The claim, in one sentence.
    pub sentence: String,
    /// Who says so, and where.
    pub source: String,
    /// The verdict.
    pub outcome: Outcome,
    /// What it rests on, the decisive figure first.
    pub measured: Vec<Measured>,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    /// The predicate holds, beyond the noise of this run.
    Holds,
    /// It does not, beyond the noise of this run.
    Fails,
    /// The difference is inside the noise, or the interval straddles the limit.
    Inconclusive {
        /// What would decide it.
        why: String,
    },
    /// Not measured here.
    NotMeasured {
        /// Why, and what it would take.
        why: String,
    },
}

/// A figure that a verdict rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// What it is: "p50 of udp-spin ÷ p50 of udp-blocking".
    pub name: String,
    /// The estimate; `None` when it falls among lost requests.
    pub value: Option<f64>,
    /// Unit.
    pub unit: String,
    /// Lower end of the 95 % interval, if one was computed.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// What it is compared with: "≤ 0.5".
    pub limit: String,
    /// Rounds or samples behind it.
    pub samples_count: u64,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunEnd {
    /// Duration of the whole run in seconds.
    pub elapsed_s: f64,
    /// Rows written.
    pub rows_count: u64,
    /// Ended by Ctrl-C or SIGTERM.
    pub interrupted: bool,
    /// Share of CPU time that the hypervisor took away during the run, 0 to 1.
    pub steal_ratio: f64,
    /// Errors that ended an experiment early, if any.
    pub errors: Vec<String>,
}
