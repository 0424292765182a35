//! Scenarios of the simulator on this machine's kernel: one function runs any of them whose hosts stand around one switch, at both levels, and
//! the claims are those of the simulator's experiments over the kernel's rows.

mod list;
mod run;

use std::collections::BTreeMap;

use crate::{
    claim::{Claim, Judgement},
    experiment::{Axis, Depth, Experiment, Lab},
    experiments::{
        kernel_tcp::{KERNEL, LEVEL, LEVEL_KERNEL, LEVEL_SIMULATOR, OWN_NETWORK, simulate},
        scenarios::{ARM, Scenario},
        virtual_time::BACKEND,
    },
    packet_sim::Point,
    record::{Published, Row},
    scenario::{embedded, file::ScenarioFile, units::Rate},
    table::Table,
};

pub use list::{
    BBR_VS_LOSSBASED, BUFFERBLOAT, FAIRNESS, FAST08, FIG18, LOSS_WALL, MATHIS, QUEUE_BUILDUP, RTOMIN, THREE_REGIONS,
};

/// A scenario at level K and S.
#[derive(Clone, Copy, Debug)]
pub struct RealScenario {
    /// Its id.
    pub id: &'static str,
    /// Whose file it runs.
    pub of: &'static Scenario,
    /// A few words for headings.
    pub title: &'static str,
    /// What a reader learns.
    pub question: &'static str,
    /// What is done.
    pub how: &'static str,
    /// Levels, the arms that a kernel has, and what is varied.
    pub axes: &'static [Axis],
    /// What is judged.
    pub claims: &'static [Claim],
    /// The bottleneck's rate at both levels, where the flow never fills the file's and this machine could not keep to it.
    pub bottleneck: Option<Rate>,
    /// How many times slower than it is the network is built.
    pub dilation: u32,
    /// How long a point is looked at, in our time; with endless flows a fifth of it is not measured. The simulator's endless flows last as
    /// long.
    pub seconds: f64,
    /// Questions of a row, at most.
    pub questions_max: u32,
}

/// One point, at one level.
#[derive(Clone, Debug)]
struct Cell {
    arm: Option<String>,
    value: Option<(&'static str, String)>,
}

impl Cell {
    fn axis(&self, level: &str) -> BTreeMap<String, String> {
        let mut axis = BTreeMap::from([(LEVEL.name.to_owned(), level.to_owned())]);
        axis.extend(self.arm.as_ref().map(|arm| (ARM.to_owned(), arm.clone())));
        let value = self.value.as_ref();
        axis.extend(value.map(|(name, value)| ((*name).to_owned(), value.clone())));
        axis
    }

    fn point<'a>(&self, file: &'a ScenarioFile) -> anyhow::Result<Point<'a>> {
        let value = self.value.as_ref().and_then(|(_, value)| value.parse().ok());
        match &self.arm {
            Some(arm) => Point::of(file, arm, value),
            None => crate::packet_sim::points(file)
                .first()
                .map(|point| point.with_value(value))
                .ok_or_else(|| anyhow::anyhow!("a scenario without a point")),
        }
    }

    fn name(&self) -> String {
        let value = self.value.as_ref().map(|(name, value)| format!("{name} {value}"));
        let parts = [self.arm.clone(), value];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl RealScenario {
    fn file(&self) -> anyhow::Result<ScenarioFile> {
        let embedded = embedded(self.of.id).ok_or_else(|| anyhow::anyhow!("no scenario of that name comes along"))?;
        let mut file = ScenarioFile::parse(&format!("{}.toml", self.of.id), embedded.text)?;
        let is_endless = file.load.iter().any(|load| load.get_ref().rounds.is_none());
        file.topology.core_rate = self.bottleneck.or(file.topology.core_rate);
        if is_endless {
            file.horizon.ns = (self.seconds * 1e9) as u64;
        }
        for load in &mut file.load {
            let load = load.get_mut();
            load.rounds = load.rounds.map(|rounds| rounds.min(self.questions_max));
        }
        Ok(file)
    }

    fn cells(&self, lab: &Lab<'_>) -> Vec<Cell> {
        let of = |axis: Option<&Axis>| -> Vec<Option<(&'static str, String)>> {
            match axis {
                Some(axis) => lab
                    .values(axis)
                    .into_iter()
                    .map(|value| Some((axis.name, value)))
                    .collect(),
                None => vec![None],
            }
        };
        let arms = of(self.axes.iter().find(|axis| axis.name == ARM));
        let values = of(self
            .axes
            .iter()
            .find(|axis| axis.name != ARM && axis.name != LEVEL.name));
        let with = |value: Option<(&'static str, String)>| {
            arms.clone().into_iter().map(move |arm| Cell {
                arm: arm.map(|(_, arm)| arm),
                value: value.clone(),
            })
        };
        values.into_iter().flat_map(with).collect()
    }
}

impl Experiment for RealScenario {
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
        let own = |figure: Published| Published {
            experiment: self.id.to_owned(),
            ..figure
        };
        self.of.published().into_iter().map(own).collect()
    }

    fn claims(&self) -> &'static [Claim] {
        self.claims
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn has_queue_log(&self) -> bool {
        true
    }

    fn own_network(&self) -> Option<&'static str> {
        Some(OWN_NETWORK)
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its hosts are network namespaces of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let mut file = self.file()?;
        if lab.choice.depth != Depth::Full {
            file.horizon.ns = file.horizon.ns.min(2_000_000_000);
        }
        let levels = lab.values(&LEVEL);
        let cells = self.cells(lab);
        if levels.iter().any(|level| level == LEVEL_SIMULATOR) {
            lab.progress.set_length(cells.len() as u64);
            for cell in &cells {
                lab.progress.set_message(format!("simulator, {}", cell.name()));
                let axis = cell.axis(LEVEL_SIMULATOR);
                let Some(row) = simulate(lab, self.id, axis, &file, &cell.point(&file)?)? else {
                    return Ok(());
                };
                lab.record(row)?;
                lab.progress.inc(1);
            }
        }
        if !levels.iter().any(|level| level == LEVEL_KERNEL) || lab.interrupted() {
            return Ok(());
        }
        run::kernel(self, lab, &file, &cells)
    }
}

/// Judges the kernel's rows as the simulator's experiment judges its own: each point is the median of its valid rounds.
fn at_kernel(table: &Table, judge: impl Fn(&Table) -> Judgement) -> Judgement {
    let mut points: BTreeMap<&BTreeMap<String, String>, Vec<&Row>> = BTreeMap::new();
    for row in table.valid().filter(|row| row.backend == KERNEL) {
        points.entry(&row.axis).or_default().push(row);
    }
    let median_of = |rows: Vec<&Row>| {
        let mut row = rows[0].clone();
        row.backend = BACKEND.to_owned();
        for (name, metric) in &mut row.metrics {
            let mut values: Vec<f64> = rows
                .iter()
                .filter_map(|row| row.metrics.get(name))
                .map(|metric| metric.value)
                .collect();
            values.sort_by(f64::total_cmp);
            metric.value = values[values.len() / 2];
        }
        row
    };
    let invalid_count = table.rows.iter().filter(|row| row.backend == KERNEL).count()
        - table.valid().filter(|row| row.backend == KERNEL).count();
    let medians = Table {
        rows: points.into_values().map(median_of).collect(),
        seed: table.seed,
    };
    let mut judged = judge(&medians);
    if let crate::record::Outcome::NotMeasured { why } = &mut judged.outcome
        && invalid_count > 0
    {
        why.push_str(&format!(
            "; {invalid_count} rows of the kernel are INVALID, and the report says why"
        ));
        judged.is_invalid = true;
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        experiments::{
            kernel_tcp::{Sender, shape},
            virtual_time::row_of,
        },
        record::{Outcome, Validity},
        switch::Dilation,
    };

    const ALL: [&RealScenario; 10] = [
        &LOSS_WALL,
        &THREE_REGIONS,
        &FAST08,
        &RTOMIN,
        &FIG18,
        &QUEUE_BUILDUP,
        &BUFFERBLOAT,
        &MATHIS,
        &FAIRNESS,
        &BBR_VS_LOSSBASED,
    ];

    /// Every value of every axis is something that the file has and a kernel can be.
    #[test]
    fn all_points_can_be_built() {
        for scenario in ALL {
            let file = scenario.file().expect("a good file");
            let dilation = Dilation::new(scenario.dilation).expect("a factor");
            let arms = scenario.axes.iter().find(|axis| axis.name == ARM);
            for arm in arms.map_or(vec![None], |axis| {
                axis.full.iter().map(|arm| Some((*arm).to_owned())).collect()
            }) {
                let cell = Cell { arm, value: None };
                let point = cell.point(&file).expect("it has that arm");
                shape(&point, dilation, 1).unwrap_or_else(|error| panic!("{}: {error:#}", scenario.id));
                let floor = std::time::Duration::from_millis(8);
                for load in point.loads() {
                    Sender::of(&point.load_tcp(load), dilation, floor)
                        .unwrap_or_else(|error| panic!("{}, {}: {error:#}", scenario.id, cell.name()));
                }
            }
        }
    }

    #[test]
    fn the_kernels_rows_are_judged_by_their_medians() {
        let of = |backend: &str, value: f64| {
            let mut row = row_of(&[("level", "kernel"), ("arm", "a")], &[("x", value)]);
            row.backend = backend.to_owned();
            row
        };
        let mut table = Table {
            rows: vec![of(KERNEL, 1.0), of(KERNEL, 7.0), of(KERNEL, 2.0), of(BACKEND, 100.0)],
            seed: 1,
        };
        let judged = at_kernel(&table, |table| {
            assert_eq!(table.rows.len(), 1, "the simulator's are not among them");
            assert_eq!(table.rows[0].metrics["x"].value, 2.0);
            Judgement::not_measured("nothing is")
        });
        assert!(!judged.is_invalid);
        table.rows[0].validity = Validity::Invalid {
            reasons: vec!["late".to_owned()],
        };
        let judged = at_kernel(&table, |_| Judgement::not_measured("nothing is"));
        assert!(judged.is_invalid);
        assert!(
            matches!(judged.outcome, Outcome::NotMeasured { why } if why.contains("1 rows of the kernel are INVALID"))
        );
    }
}
