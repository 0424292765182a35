//! What the experiments over scenario files have in common: each runs its file, arm by arm and value by value, and judges
//! claims over the rows.

mod files;

use std::{collections::BTreeMap, path::Path};

use crate::{
    claim::{Claim, Judgement},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::virtual_time::{BACKEND, Happened, Simulated},
    packet_sim::{NotBuilt, Outcome, Point, points},
    record::{Better, Measured, Published, Row},
    scenario::{embedded, file::ScenarioFile, file::Varied, flow_list::FlowList},
    table::Table,
};
use files::Files;

/// The axis of a scenario's arms.
pub const ARM: &str = "arm";

/// An experiment that is a scenario file, and claims over it.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its id: for one that comes along, the name of its file too.
    pub id: &'static str,
    /// A few words for headings.
    pub title: &'static str,
    /// What a reader learns.
    pub question: &'static str,
    /// What is done.
    pub how: &'static str,
    /// The arms, if there are several, and what is varied, if anything is; in this order.
    pub axes: &'static [Axis],
    /// What is judged.
    pub claims: &'static [Claim],
    /// Its share of the tour.
    pub tour_weight: f64,
    /// The file, of a user's own; otherwise the one that comes along under the id.
    pub own: Option<&'static ScenarioFile>,
}

impl Scenario {
    fn file(&self) -> anyhow::Result<ScenarioFile> {
        if let Some(own) = self.own {
            return Ok(own.clone());
        }
        let embedded = embedded(self.id).ok_or_else(|| anyhow::anyhow!("no scenario of that name comes along"))?;
        Ok(ScenarioFile::parse(&format!("{}.toml", self.id), embedded.text)?)
    }

    /// A user's own file as an experiment. It lives as long as the program: there is one, named on the command line.
    ///
    /// # Errors
    /// What is wrong with the file, with its place.
    pub fn read(path: &Path) -> anyhow::Result<&'static Scenario> {
        let file: &'static ScenarioFile = Box::leak(Box::new(ScenarioFile::read(path)?));
        let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
        let words = |words: Vec<String>| -> &'static [&'static str] {
            Box::leak(
                words
                    .iter()
                    .map(|word| leak(word))
                    .collect::<Vec<_>>()
                    .into_boxed_slice(),
            )
        };
        let axis = |name, meaning, full: &'static [&'static str], allowed| Axis {
            name,
            meaning,
            full,
            tour: full,
            smallest: full.first().copied().unwrap_or_default(),
            allowed,
        };
        let mut axes = Vec::new();
        if !file.arm.is_empty() {
            let names = words(file.arm.iter().map(|arm| arm.name.clone()).collect());
            axes.push(axis(ARM, "what is compared", names, Allowed::Words));
        }
        if let Some(vary) = &file.vary {
            let values = words(vary.values.get_ref().iter().map(ToString::to_string).collect());
            axes.push(axis(varied_name(vary.what), "what is varied", values, Allowed::Words));
        }
        Ok(Box::leak(Box::new(Scenario {
            id: leak(&file.name),
            title: leak(&file.title),
            question: "What comes of this network and this load?",
            how: "The scenario file says what is simulated. Time is virtual: the same seed gives the same row.",
            axes: Box::leak(axes.into_boxed_slice()),
            claims: &[],
            tour_weight: 0.0,
            own: Some(file),
        })))
    }
}

/// What is varied, as an axis is called.
pub fn varied_name(what: Varied) -> &'static str {
    match what {
        Varied::Servers => "servers",
        Varied::Flows => "flows",
        Varied::LossRatio => "loss_ratio",
        Varied::MarkAtPackets => "mark_at_packets",
        Varied::LimitPackets => "limit_packets",
        Varied::DelayUs => "delay_us",
        Varied::HostDelayUs => "host_delay_us",
    }
}

impl Experiment for Scenario {
    fn id(&self) -> &'static str {
        self.id
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn question(&self) -> &'static str {
        self.question
    }

    fn how(&self) -> &'static str {
        self.how
    }

    fn axes(&self) -> &'static [Axis] {
        self.axes
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn published(&self) -> Vec<Published> {
        // A file that is not good is told of when it is run.
        let Ok(file) = self.file() else { return Vec::new() };
        let axis = file.vary.as_ref().map(|vary| varied_name(vary.what).to_owned());
        let published = file.paper.iter().map(|figure| Published {
            experiment: self.id.to_owned(),
            arm: figure.arm.as_ref().map(|arm| arm.get_ref().clone()),
            axis: axis.clone(),
            at: figure.at,
            metric: figure.metric.get_ref().clone(),
            value: figure.value,
            tolerance: figure.tolerance,
            place: figure.place.clone(),
            work: file.source.clone(),
        });
        published.collect()
    }

    fn claims(&self) -> &'static [Claim] {
        self.claims
    }

    fn tour_weight(&self) -> f64 {
        self.tour_weight
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn is_scenario(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let mut file = self.file()?;
        shorten(&mut file, lab.choice.depth);
        if let Some(flows) = &lab.choice.sim.flows {
            file.take_list(FlowList::clone(flows)).map_err(anyhow::Error::msg)?;
        }
        let arms = self
            .axes
            .iter()
            .find(|axis| axis.name == ARM)
            .map(|axis| lab.values(axis));
        let varied = self.axes.iter().find(|axis| axis.name != ARM);
        let values = varied.map(|axis| lab.values(axis));
        let all = points(&file);
        let mut chosen: Vec<Point<'_>> = Vec::new();
        for value in values.unwrap_or_else(|| vec![String::new()]) {
            let number = value.parse().ok();
            match &arms {
                Some(arms) => {
                    for arm in arms {
                        chosen.push(Point::of(&file, arm, number)?);
                    }
                }
                None => chosen.extend(all.first().map(|point| point.with_value(number))),
            }
        }
        if let (Some(Varied::Servers | Varied::Flows), Some(_)) = (file.vary.as_ref().map(|vary| vary.what), &file.list)
        {
            let count = chosen
                .iter()
                .filter(|point| point.arm.map(|arm| &arm.name) == chosen[0].arm.map(|arm| &arm.name));
            anyhow::ensure!(
                count.count() == 1,
                "a list of flows stands in the place of the loads, so {} cannot be varied: choose one value with --axis",
                varied.map_or("what is varied", |axis| axis.name)
            );
        }
        lab.progress.set_length(chosen.len() as u64);
        for point in chosen {
            if lab.interrupted() {
                break;
            }
            lab.progress.set_message(point.name());
            let seed = lab.choice.seed;
            let setup = match point.setup(seed) {
                Err(error) if error.is::<NotBuilt>() => {
                    lab.say(&format!("{} {}: {error}", self.id, point.name()));
                    lab.progress.inc(1);
                    continue;
                }
                setup => setup?,
            };
            let files = Files::new(lab, self.id, &file, point, varied, seed);
            files.flows(lab, || point.flow_list(&setup))?;
            let is_watched = lab.choice.sim.trace.is_some() || lab.choice.sim.series.is_some();
            anyhow::ensure!(
                !is_watched || point.is_tcp(),
                "{}: traces and series are of TCP, and this is carried by NDP or Homa; leave --trace and --series out, or choose \
                 another arm",
                point.name()
            );
            let mut observer = files.observer(lab, &setup)?;
            let outcome = point.run(&setup, &mut observer, lab.stop);
            files.observed(lab, &setup, observer)?;
            if outcome.is_interrupted {
                break;
            }
            let row = self.row(lab, &file, point, varied, &outcome);
            lab.record(row)?;
            lab.progress.inc(1);
        }
        Ok(())
    }
}

impl Scenario {
    fn row(
        &self,
        lab: &Lab<'_>,
        file: &ScenarioFile,
        point: Point<'_>,
        varied: Option<&Axis>,
        outcome: &Outcome,
    ) -> Row {
        let mut axis = BTreeMap::new();
        if let Some(arm) = point.arm {
            axis.insert(ARM.to_owned(), arm.name.clone());
        }
        if let (Some(varied), Some(value)) = (varied, point.value) {
            axis.insert(varied.name.to_owned(), value.to_string());
        }
        let what = Happened {
            elapsed: outcome.ended,
            event_hash: outcome.hash,
            events_count: outcome.counters.events_count,
        };
        let mut row = Simulated::of(lab, self.id, axis, lab.choice.seed, what);
        row.fact(
            "guarantee",
            "none is asked for: bytes are delivered once, in order, or the flow is unfinished",
        );
        if let Some(quinn) = outcome.quinn {
            row.fact("quinn", quinn);
        }
        row.fact("scenario_sha256", file.sha256.clone());
        if file.list.is_some() {
            row.fact("flows", "those of a list, in the place of the scenario's loads");
        }
        for (name, value) in outcome.metrics() {
            let (unit, better) = unit_of(name);
            row.put(name, value, unit, better);
        }
        let counts = [
            ("queries", outcome.rounds.len() as u64, Better::Neither),
            ("unfinished", outcome.unfinished_count, Better::Lower),
            ("timeouts", outcome.timeouts_count, Better::Lower),
            ("retransmissions", outcome.retransmissions_count, Better::Lower),
            ("drops", outcome.counters.drops.count(), Better::Lower),
            ("packet_hops", outcome.counters.hops_count, Better::Neither),
        ];
        for (name, count, better) in counts {
            row.put(name, count as f64, "count", better);
        }
        let took_ns = match outcome.rounds.is_empty() {
            true => outcome.completions.iter().map(|span| span.as_ns()).collect(),
            false => outcome.rounds_ns(),
        };
        row.latencies(took_ns.iter().copied());
        for figure in &file.paper {
            let is_arm = figure
                .arm
                .as_ref()
                .is_none_or(|arm| point.arm.is_some_and(|own| own.name == *arm.get_ref()));
            let is_value = figure.at.is_none_or(|at| point.value == Some(at));
            let Some(value) = outcome.metric(figure.metric.get_ref()).filter(|_| is_arm && is_value) else {
                continue;
            };
            let (unit, _) = unit_of(figure.metric.get_ref());
            let deviation = value / figure.value - 1.0;
            let within = if deviation.abs() <= figure.tolerance {
                "within"
            } else {
                "BEYOND"
            };
            row.put(
                &format!("paper_{}", figure.metric.get_ref()),
                figure.value,
                unit,
                Better::Neither,
            );
            row.put("paper_deviation_ratio", deviation, "ratio", Better::Neither);
            lab.say(&format!(
                "{} {}: {} {value:.4} {unit}; the paper {} ({}): {:+.1} %, {within} its {:.0} %",
                self.id,
                point.name(),
                figure.metric.get_ref(),
                figure.value,
                figure.place,
                deviation * 100.0,
                figure.tolerance * 100.0,
            ));
        }
        row.into_row()
    }
}

/// Fewer rounds where not everything is wanted: what is judged then is judged over fewer.
fn shorten(file: &mut ScenarioFile, depth: Depth) {
    let rounds_max = match depth {
        Depth::Full => return,
        Depth::Tour => 100,
        Depth::Smallest => 3,
    };
    for load in &mut file.load {
        let load = load.get_mut();
        load.rounds = load.rounds.map(|rounds| rounds.min(rounds_max));
    }
    if depth == Depth::Smallest {
        // Endless flows would fill the horizon, however long.
        file.horizon.ns = file.horizon.ns.min(5_000_000_000);
    }
}

/// The unit of a scenario's metric, by its name.
pub fn unit_of(name: &str) -> (&'static str, Better) {
    match name {
        "fairness" => ("ratio", Better::Higher),
        _ if name.contains("_mbit_per_sec") => ("Mbit/s", Better::Higher),
        _ if name.contains("_percent") => ("%", Better::Lower),
        _ if name.contains("_ms") => ("ms", Better::Lower),
        _ if name.contains("_us") => ("µs", Better::Lower),
        _ => ("packets", Better::Lower),
    }
}

/// A row's metric, by arm and value of what is varied; empty words stand for an axis that is not there.
pub fn metric(table: &Table, arm: &str, varied: (&str, &str), name: &str) -> Option<f64> {
    let is = |row: &Row, axis: &str, wanted: &str| {
        wanted.is_empty() || row.axis.get(axis).is_some_and(|value| value == wanted)
    };
    let mut rows = table
        .valid()
        .filter(|row| row.backend == BACKEND && is(row, ARM, arm) && is(row, varied.0, varied.1));
    let row = rows.next()?;
    row.metrics.get(name).map(|metric| metric.value)
}

/// What a claim asks of one figure.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// What it is, for people.
    pub what: &'a str,
    /// The figure, if there is one.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: &'a str,
    /// The bound as text, such as "≤ 5".
    pub limit: &'a str,
    /// Does a value meet it?
    pub meets: fn(f64) -> bool,
}

/// Holds if every figure meets its bound, fails if one does not, and is not decided if one is lacking.
pub fn judge_all(demands: &[Demand<'_>]) -> Judgement {
    if let Some(lacking) = demands.iter().find(|demand| demand.value.is_none()) {
        return Judgement::not_measured(format!(
            "there is no row for: {}; run it with all values of its axes",
            lacking.what
        ));
    }
    let figure = |demand: &Demand<'_>| Measured {
        name: demand.what.to_owned(),
        value: demand.value,
        unit: demand.unit.to_owned(),
        low: None,
        high: None,
        limit: demand.limit.to_owned(),
        samples_count: 1,
    };
    let holds = demands.iter().all(|demand| demand.value.is_some_and(demand.meets));
    let outcome = match holds {
        true => crate::record::Outcome::Holds,
        false => crate::record::Outcome::Fails,
    };
    Judgement::new(outcome, demands.iter().map(figure).collect())
}

#[cfg(test)]
pub mod testing {
    //! Tables written by hand, for tests of claims.

    use super::*;
    use crate::experiments::virtual_time::row_of;

    /// A row: its arm, the value of what is varied, its metrics.
    pub type HandWritten<'a> = (&'a str, &'a str, &'a [(&'a str, f64)]);

    /// A table of them.
    pub fn table(varied: &str, rows: &[HandWritten<'_>]) -> Table {
        let rows = rows.iter().map(|(arm, value, metrics)| match value.is_empty() {
            true => row_of(&[(ARM, arm)], metrics),
            false => row_of(&[(ARM, arm), (varied, value)], metrics),
        });
        Table {
            rows: rows.collect(),
            seed: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::EXPERIMENTS;

    /// The axes of an experiment are those of its file: neither has a value that the other lacks. And nothing of it is real.
    #[test]
    fn experiments_and_their_files_agree() {
        let mut seen = 0;
        for experiment in EXPERIMENTS {
            let Some(embedded) = embedded(experiment.id()) else {
                continue;
            };
            seen += 1;
            assert!(
                experiment.is_virtual(),
                "{}: namespaces would be made for it",
                embedded.name
            );
            let file = ScenarioFile::parse(embedded.name, embedded.text).expect("a good file");
            let full = |name: &str| {
                experiment
                    .axes()
                    .iter()
                    .find(|axis| axis.name == name)
                    .map(|axis| axis.full.to_vec())
            };
            let arms: Vec<&str> = file.arm.iter().map(|arm| arm.name.as_str()).collect();
            assert_eq!(full(ARM).unwrap_or_default(), arms, "{}", embedded.name);
            if let Some(vary) = &file.vary {
                let values: Vec<String> = vary.values.get_ref().iter().map(ToString::to_string).collect();
                assert_eq!(
                    full(varied_name(vary.what)).unwrap_or_default(),
                    values,
                    "{}",
                    embedded.name
                );
            }
        }
        assert_eq!(seen, crate::scenario::EMBEDDED.len(), "a file that no experiment runs");
    }

    #[test]
    fn a_demand_that_is_not_met_or_not_measured_decides() {
        let demand = |value| Demand {
            what: "speed",
            value,
            unit: "Mbit/s",
            limit: "> 1",
            meets: |value| value > 1.0,
        };
        use crate::record::Outcome;
        assert_eq!(judge_all(&[demand(Some(2.0))]).outcome, Outcome::Holds);
        assert_eq!(
            judge_all(&[demand(Some(2.0)), demand(Some(1.0))]).outcome,
            Outcome::Fails
        );
        assert!(matches!(
            judge_all(&[demand(Some(0.0)), demand(None)]).outcome,
            Outcome::NotMeasured { .. }
        ));
    }
}
