//! What the reports show of a run: rows grouped by experiment, merged over rounds, in the order of the documentation.

use std::{cmp::Ordering, collections::BTreeMap};

use super::{
    ExperimentText, REFERENCE,
    merge::{Pooled, pool},
    ratio::{medians_by_round, noise_floor, ratio},
};
use crate::{
    measure::QUANTILES,
    record::{Metric, ModeRecord, Outcome, Published, Row, Validity, VerdictRecord},
    store::Run,
};

/// A point on an experiment's axes.
pub(crate) type Point = BTreeMap<String, String>;

/// One run, as reports show it.
pub(crate) struct Summary<'a> {
    pub run: &'a Run,
    pub experiments: Vec<Experiment<'a>>,
    /// Verdicts, those first that need looking at.
    pub verdicts: Vec<&'a VerdictRecord>,
    /// What a reader must know before anything else: interrupted, damaged, empty, a debug build.
    pub alarms: Vec<String>,
}

/// One experiment of a run.
pub(crate) struct Experiment<'a> {
    pub id: &'a str,
    pub title: &'a str,
    pub question: &'a str,
    pub how: &'a str,
    /// Names of the axes.
    pub axes: Vec<&'a str>,
    /// Points of the axes in order, each with its cells.
    pub points: Vec<(&'a Point, Vec<Cell<'a>>)>,
    /// The largest spread between a back end and its twin, as a ratio: 0.02 is 2 %.
    pub noise_floor: Option<f64>,
    /// What others published about it.
    pub published: Vec<&'a Published>,
}

/// All rows of one back end at one point in one mode, valid or invalid, over all rounds.
pub(crate) struct Cell<'a> {
    pub backend: &'a str,
    pub mode: &'a ModeRecord,
    /// May it be judged?
    pub valid: bool,
    /// Not to be judged, and rounds of the same back end at the same point are: a note is enough.
    pub sidelined: bool,
    /// Why not: each kind of reason once, with the number of rounds that have it.
    pub reasons: Vec<String>,
    pub rows: Vec<&'a Row>,
    pub latency: Option<Pooled>,
    pub service: Option<Pooled>,
    pub schedule_lag: Option<Pooled>,
    pub metrics: BTreeMap<&'a str, MetricSummary<'a>>,
    /// Facts with all values they had.
    pub facts: BTreeMap<&'a str, Vec<&'a str>>,
    /// p50 divided by that of the reference at the same point.
    pub ratio: Option<Ratio>,
}

/// A metric over rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetricSummary<'a> {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub unit: &'a str,
}

/// A quotient over rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub value: f64,
    /// 95 % interval, when there were rounds enough.
    pub interval: Option<(f64, f64)>,
    pub rounds_count: usize,
}

impl Ratio {
    /// Is this no difference: inside the noise floor, or with an interval that has 1 in it?
    pub fn is_within(&self, noise_floor: Option<f64>) -> bool {
        let in_noise = noise_floor.is_some_and(|floor| (self.value - 1.0).abs() <= floor);
        in_noise || self.interval.is_some_and(|(low, high)| low <= 1.0 && 1.0 <= high)
    }
}

impl Cell<'_> {
    /// The distribution that the table shows: the latency, or the service time where there is no schedule to be late.
    pub fn main(&self) -> Option<&Pooled> {
        self.latency.as_ref().or(self.service.as_ref())
    }

    /// Is [`Cell::main`] the service time?
    pub fn is_service_only(&self) -> bool {
        self.latency.is_none() && self.service.is_some()
    }

    /// How it waits, if it says so.
    pub fn wake(&self) -> Option<String> {
        self.facts.get("wake").map(|values| values.join(", "))
    }
}

impl Experiment<'_> {
    /// All cells.
    pub fn cells(&self) -> impl Iterator<Item = &Cell<'_>> {
        self.points.iter().flat_map(|(_, cells)| cells)
    }

    /// Was any reply time measured? Where frames go one way there is none, and rates stand in its place.
    pub fn has_latency(&self) -> bool {
        self.cells().any(|cell| cell.main().is_some())
    }

    /// Has it an axis of numbers, so that its figures make a line? The script decides by the same rule.
    pub fn has_sweep(&self) -> bool {
        let is_sweep = |axis: &&str| {
            let values: Vec<Option<f64>> = self
                .points
                .iter()
                .map(|(point, _)| point.get(*axis).and_then(|value| value.parse().ok()))
                .collect();
            let differ = values.iter().any(|value| *value != values[0]);
            let is_wanted = self
                .published
                .iter()
                .any(|published| published.axis.as_deref() == Some(*axis));
            !values.contains(&None) && (differ || is_wanted)
        };
        self.axes.iter().any(is_sweep) && self.cells().any(|cell| !cell.metrics.is_empty())
    }

    /// The quantiles that a table of this experiment has.
    pub fn quantiles(&self) -> &'static [f64] {
        match self.has_latency() {
            true => &QUANTILES,
            false => &[],
        }
    }

    /// Metrics that stand in the table: those of CPU time, those of a stage (`breakdown`), what an experiment in virtual time
    /// counts, and those of [`IN_TABLE`]; without a latency, rates before them and losses behind, or all where none of these is.
    pub fn main_metrics(&self) -> Vec<&str> {
        let is_rate = |name: &&str| name.ends_with("_rate");
        let is_cpu = |name: &&str| {
            name.contains("cpu") || name.starts_with("stage_") || is_counted(name) || IN_TABLE.contains(name)
        };
        let is_loss = |name: &&str| *name == "lost_ratio";
        let is_endless = |name: &&str| OF_ENDLESS_FLOWS.contains(name);
        let names = self.metric_names();
        let of = |wanted: &dyn Fn(&&str) -> bool| names.iter().copied().filter(wanted).collect::<Vec<_>>();
        match self.has_latency() {
            true => [of(&is_cpu), self.companions()].concat(),
            false => {
                let known = [of(&is_rate), of(&is_cpu), of(&is_endless), of(&is_loss)].concat();
                match known.is_empty() {
                    true => names,
                    false => known,
                }
            }
        }
    }

    /// Metrics without which a latency would be misread: it is short because of them, or hides them.
    pub fn companions(&self) -> Vec<&str> {
        let mut names = self.metric_names();
        names.retain(|name| COMPANIONS.contains(name));
        names
    }

    /// What must stand below the table, because its figures would be misread without it.
    pub fn caveats(&self) -> Vec<&str> {
        let mut caveats: Vec<&str> = self
            .cells()
            .flat_map(|cell| cell.facts.get("caveat").into_iter().flatten().copied())
            .collect();
        caveats.sort_unstable();
        caveats.dedup();
        caveats
    }

    /// All metrics, sorted.
    pub fn metric_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.cells().flat_map(|cell| cell.metrics.keys().copied()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Have some cells a ratio to the reference?
    pub fn has_ratio(&self) -> bool {
        self.cells().any(|cell| cell.ratio.is_some())
    }
}

/// What experiments in virtual time count: they have no CPU time to show.
fn is_counted(name: &str) -> bool {
    let ends = [
        "_per_commit",
        "_delays_max",
        "_behind_max",
        "_cycles",
        "_per_frame",
        "utilisation",
    ];
    let begins = ["oracle_", "survives_"];
    ends.iter().any(|end| name.ends_with(end)) || begins.iter().any(|begin| name.starts_with(begin))
}

/// Metrics that stand in a table beside latencies, whatever their experiment.
const IN_TABLE: [&str; 6] = [
    "throughput",
    "goodput",
    "records_per_flush",
    "client_sleeps_per_op",
    "leader_wakeups_per_op",
    "follower_wakeups_per_op",
];

/// What an endless flow is told by: it has no time that it took.
const OF_ENDLESS_FLOWS: [&str; 2] = ["long_goodput_mbit_per_sec", "queue_packets_p99"];

/// A short detection beside many false alarms is no good one; a mean of shards hides the worst, and most quantiles what was sent again.
const COMPANIONS: [&str; 3] = ["false_alarms_per_s", "worst_shard_p99", "resent_packets"];

/// Groups and merges a run.
pub(crate) fn summarize<'a>(run: &'a Run, texts: &'a [ExperimentText]) -> Summary<'a> {
    let mut problems = Vec::new();
    let mut ids: Vec<&str> = texts.iter().map(|text| text.id).collect();
    for row in &run.rows {
        if !ids.contains(&row.experiment.as_str()) {
            ids.push(&row.experiment);
        }
    }
    let experiments = ids
        .into_iter()
        .filter_map(|id| experiment(run, id, texts, &mut problems))
        .collect();
    let mut verdicts: Vec<&VerdictRecord> = run.verdicts.iter().collect();
    verdicts.sort_by_key(|verdict| urgency(&verdict.outcome));
    let mut alarms = alarms(run);
    problems.dedup();
    alarms.extend(
        problems
            .into_iter()
            .map(|problem| format!("A histogram was left out: {problem}.")),
    );
    Summary {
        run,
        experiments,
        verdicts,
        alarms,
    }
}

/// Verdicts in the order in which a reader wants them.
pub(crate) fn urgency(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Fails => 0,
        Outcome::Holds => 1,
        Outcome::Inconclusive { .. } => 2,
        Outcome::NotMeasured { .. } => 3,
    }
}

/// "64", "frame_bytes 64, load open".
pub(crate) fn point_name(point: &Point) -> String {
    if point.is_empty() {
        return "all".into();
    }
    let parts: Vec<String> = point.iter().map(|(axis, value)| format!("{axis} {value}")).collect();
    parts.join(", ")
}

/// "native", "emulated by …", "simulated".
pub(crate) fn mode_name(mode: &ModeRecord) -> &'static str {
    match mode {
        ModeRecord::Native => "native",
        ModeRecord::Emulated { .. } => "emulated",
        ModeRecord::Simulated => "simulated",
    }
}

fn alarms(run: &Run) -> Vec<String> {
    let mut alarms = Vec::new();
    match &run.end {
        None => alarms.push(
            "This run has no end: it was killed, or is still going on. What it had measured until then is below."
                .to_string(),
        ),
        Some(end) if end.interrupted => {
            alarms.push("This run was interrupted. What it had measured until then is below.".to_string());
        }
        Some(_) => {}
    }
    if run.rows.is_empty() {
        alarms.push("This run measured nothing: it has zero rows.".to_string());
    }
    for damage in &run.damage {
        alarms.push(format!(
            "Line {} of the records is damaged: {}.",
            damage.line, damage.what
        ));
    }
    if let Some(end) = &run.end {
        if end.rows_count != run.rows.len() as u64 {
            alarms.push(format!(
                "The run wrote {} rows, {} could be read.",
                end.rows_count,
                run.rows.len()
            ));
        }
        alarms.extend(
            end.errors
                .iter()
                .map(|error| format!("An experiment ended early: {error}.")),
        );
    }
    if run.header.build_profile != "release" {
        alarms.push(format!(
            "This is a {} build: it measures its own slowness. Measure with `cargo run --release`.",
            run.header.build_profile
        ));
    }
    alarms
}

fn experiment<'a>(
    run: &'a Run,
    id: &'a str,
    texts: &'a [ExperimentText],
    problems: &mut Vec<String>,
) -> Option<Experiment<'a>> {
    let rows: Vec<&Row> = run.rows.iter().filter(|row| row.experiment == id).collect();
    if rows.is_empty() {
        return None;
    }
    let text = texts.iter().find(|text| text.id == id);
    let mut axes: Vec<&str> = rows
        .iter()
        .flat_map(|row| row.axis.keys().map(String::as_str))
        .collect();
    axes.sort_unstable();
    axes.dedup();
    let mut at: Vec<&Point> = rows.iter().map(|row| &row.axis).collect();
    at.sort_by(|a, b| compare_points(a, b));
    at.dedup();
    let rank = |name: &str| run.header.backends.iter().position(|backend| backend.name == name);
    let points = at
        .into_iter()
        .map(|point| {
            let here: Vec<&Row> = rows
                .iter()
                .copied()
                .filter(|row| row.axis == *point && !row.twin)
                .collect();
            let mut cells = cells(&here, run.header.seed, problems);
            // Unknown back ends (`None`) last.
            cells.sort_by_key(|cell| (rank(cell.backend).unwrap_or(usize::MAX), cell.backend, !cell.valid));
            (point, cells)
        })
        .filter(|(_, cells)| !cells.is_empty())
        .collect();
    Some(Experiment {
        id,
        title: text.map_or(id, |text| text.title),
        question: text.map_or("", |text| text.question),
        how: text.map_or("", |text| text.how),
        axes,
        points,
        noise_floor: noise_floor(&rows, run.header.seed),
        published: run
            .header
            .published
            .iter()
            .filter(|published| published.experiment == id)
            .collect(),
    })
}

/// Numbers by size, everything else by name; numbers first.
fn compare_points(a: &Point, b: &Point) -> Ordering {
    let key = |point: &Point| -> Vec<(String, Option<f64>, String)> {
        let parts = point.iter();
        parts
            .map(|(axis, value)| (axis.clone(), value.parse().ok(), value.clone()))
            .collect()
    };
    let (a, b) = (key(a), key(b));
    for (a, b) in a.iter().zip(&b) {
        let values = match (a.1, b.1) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        let order = a.0.cmp(&b.0).then(values).then_with(|| a.2.cmp(&b.2));
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// The cells of the rows of one point.
fn cells<'a>(rows: &[&'a Row], seed: u64, problems: &mut Vec<String>) -> Vec<Cell<'a>> {
    let same =
        |a: &Row, b: &Row| a.backend == b.backend && a.mode == b.mode && a.validity.is_valid() == b.validity.is_valid();
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|group| same(group[0], row)) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    let mut cells: Vec<Cell<'a>> = groups.into_iter().map(|rows| cell(rows, problems)).collect();
    let reference: BTreeMap<u32, f64> = cells
        .iter()
        .filter(|cell| cell.valid && cell.backend == REFERENCE)
        .flat_map(|cell| medians_by_round(&cell.rows))
        .collect();
    let judged: Vec<(&str, &ModeRecord)> = cells
        .iter()
        .filter(|cell| cell.valid)
        .map(|cell| (cell.backend, cell.mode))
        .collect();
    for cell in cells.iter_mut().filter(|cell| !cell.valid) {
        cell.sidelined = judged.contains(&(cell.backend, cell.mode));
    }
    for cell in cells.iter_mut().filter(|cell| cell.valid && cell.backend != REFERENCE) {
        cell.ratio = ratio(&medians_by_round(&cell.rows), &reference, seed);
    }
    cells
}

/// Reasons that differ in their numbers alone are of one kind; the first of each kind stands for it.
fn reasons(rows: &[&Row]) -> Vec<String> {
    let mut kinds: Vec<(String, &str, usize)> = Vec::new();
    for row in rows {
        let Validity::Invalid { reasons } = &row.validity else {
            continue;
        };
        for reason in reasons {
            let kind: String = reason.chars().filter(|c| !c.is_ascii_digit() && *c != '.').collect();
            match kinds.iter_mut().find(|(known, ..)| *known == kind) {
                Some((.., count)) => *count += 1,
                None => kinds.push((kind, reason, 1)),
            }
        }
    }
    let rounds_count = rows.len();
    let tell = |(_, first, count): (String, &str, usize)| match rounds_count {
        1 => first.to_owned(),
        _ => format!("{first} (so in {count} of {rounds_count} rounds that were left out)"),
    };
    kinds.into_iter().map(tell).collect()
}

fn cell<'a>(rows: Vec<&'a Row>, problems: &mut Vec<String>) -> Cell<'a> {
    let mut facts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut values: BTreeMap<&str, (Vec<f64>, &Metric)> = BTreeMap::new();
    for row in &rows {
        for (name, value) in &row.facts {
            let seen = facts.entry(name).or_default();
            if !seen.contains(&value.as_str()) {
                seen.push(value);
            }
        }
        for (name, metric) in &row.metrics {
            values
                .entry(name)
                .or_insert_with(|| (Vec::new(), metric))
                .0
                .push(metric.value);
        }
    }
    let metrics = values.into_iter().map(|(name, (mut values, metric))| {
        values.sort_by(f64::total_cmp);
        let summary = MetricSummary {
            median: median(&values),
            min: values[0],
            max: values[values.len() - 1],
            unit: &metric.unit,
        };
        (name, summary)
    });
    Cell {
        backend: &rows[0].backend,
        mode: &rows[0].mode,
        valid: rows[0].validity.is_valid(),
        sidelined: false,
        reasons: reasons(&rows),
        latency: pool(rows.iter().filter_map(|row| row.latency.as_ref()), problems),
        service: pool(rows.iter().filter_map(|row| row.service.as_ref()), problems),
        schedule_lag: pool(rows.iter().filter_map(|row| row.schedule_lag.as_ref()), problems),
        metrics: metrics.collect(),
        facts,
        ratio: None,
        rows,
    }
}

/// Of sorted values, at least one.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}
