//! Any of the scenarios on real kernels.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context;
use dataplane_softswitch::Faults;

use super::{Cell, RealScenario};
use crate::{
    experiment::{Depth, Lab},
    experiments::kernel_tcp::{
        Controllers, Ends, KERNEL, LEVEL_KERNEL, Sender, Trial, keep, log_queues, lost_rounds, shape, widen_buffers,
    },
    packet_sim::Point,
    record::Row,
    scenario::file::{LoadFile, LoadKind, ScenarioFile, TopologyKind, Varied},
    switch::{self, Dilation, Fabric, KernelTimers, Kind, Shape, queue_log},
    traffic::{Pattern, Questions},
};

/// Of the time of a row with endless flows, what is not measured: as the simulator's.
const WARM_UP_RATIO: f64 = 0.2;
/// A timeout doubles a few times before anybody gives up; a dilated one is longer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Of each row: how often the kernels are asked about one connection.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);
/// Shorter than that no flow finds its window.
const SECONDS_MIN: f64 = 2.0;
/// What a row takes beside its load: connections, settings, another switch.
const OVERHEAD_S: f64 = 0.5;
/// Of the budget, what is planned. The rest is for measuring INVALID rows again.
const PLANNED_RATIO: f64 = 0.85;
/// How often lost rows are made up for, at most.
const MAKE_UPS_MAX: u32 = 5;

/// A connection, before there are hosts.
struct Planned {
    sender: usize,
    settings: Sender,
}

/// What a point's loads are, of a kernel.
struct Plan {
    /// Long flows first.
    ends: Vec<Planned>,
    long_count: usize,
    stagger: Duration,
    answer_bytes: Option<u64>,
}

impl Plan {
    fn of(scenario: &RealScenario, point: &Point<'_>, rto_floor: Duration) -> anyhow::Result<Plan> {
        let dilation = Dilation::new(scenario.dilation)?;
        let settings = |load: &LoadFile| Sender::of(&point.load_tcp(load), dilation, rto_floor);
        // Of a dumbbell all flows come from its one host on the left.
        let is_star = *point.topology_file().kind.get_ref() == TopologyKind::Star;
        let place = |index: usize| if is_star { index } else { 0 };
        let mut plan = Plan {
            ends: Vec::new(),
            long_count: 0,
            stagger: Duration::ZERO,
            answer_bytes: None,
        };
        let count = |value: &Option<serde_spanned::Spanned<u32>>| value.as_ref().map_or(1, |value| *value.get_ref());
        let mut has_long = false;
        for load in point.loads().filter(|load| load.kind == LoadKind::Long) {
            let varied = point.varied(Varied::Flows).filter(|_| !has_long);
            has_long = true;
            let flows = varied.map_or(count(&load.flows), |flows| flows as u32);
            for _ in 0..flows {
                plan.ends.push(Planned {
                    sender: place(plan.ends.len()),
                    settings: settings(load)?,
                });
            }
            let stagger = load.stagger.map_or(Duration::ZERO, |span| span.duration());
            plan.stagger = plan.stagger.max(stagger);
        }
        plan.long_count = plan.ends.len();
        for load in point.loads().filter(|load| load.kind == LoadKind::Incast) {
            let servers = point.varied(Varied::Servers).map_or(count(&load.servers), |n| n as u32);
            let each = load.bytes.map(|size| size.bytes);
            let total = load.bytes_total.map_or(0, |size| size.bytes);
            plan.answer_bytes = Some(each.unwrap_or_else(|| (total / u64::from(servers)).max(1)));
            for _ in 0..servers {
                plan.ends.push(Planned {
                    sender: place(plan.ends.len()),
                    settings: settings(load)?,
                });
            }
        }
        Ok(plan)
    }

    fn senders_count(&self) -> usize {
        let senders: BTreeSet<usize> = self.ends.iter().map(|end| end.sender).collect();
        senders.len()
    }
}

/// All cells, round after round.
pub(super) fn kernel(
    scenario: &RealScenario,
    lab: &mut Lab<'_>,
    file: &ScenarioFile,
    cells: &[Cell],
) -> anyhow::Result<()> {
    let rto_floor = KernelTimers::here().rto_min_floor;
    let dilation = Dilation::new(scenario.dilation)?;
    let mut plans = Vec::new();
    for cell in cells {
        let point = cell.point(file)?;
        let built = Shape {
            log_events_max: lab.choice.queue_log_events_max,
            ..shape(&point, dilation, lab.choice.seed)?
        };
        plans.push((cell, Plan::of(scenario, &point, rto_floor)?, built));
    }
    let Some((_, _, first)) = plans.first() else {
        return Ok(());
    };
    let choice = match switch::choose(&Kind::ALL, first) {
        Ok(choice) => choice,
        Err(why) => {
            lab.say(&format!("no row of this machine's kernel: {why}"));
            return Ok(());
        }
    };
    let words = plans
        .iter()
        .flat_map(|(_, plan, _)| &plan.ends)
        .map(|end| end.settings.controller);
    let controllers = Controllers::open(lab, words);
    plans.retain(|(_, plan, _)| {
        let all = plan
            .ends
            .iter()
            .all(|end| controllers.get(end.settings.controller).is_some());
        all && !plan.ends.is_empty()
    });
    let Some(senders_count) = plans.iter().map(|(_, plan, _)| plan.senders_count()).max() else {
        return Ok(());
    };
    lab.progress
        .set_message(format!("making {senders_count} senders as network namespaces"));
    let mut fabric = Fabric::build(choice.kind, senders_count, &plans[0].2).context("making the network")?;
    let _ = fabric.pin_sender(0);
    widen_buffers(&fabric)?;
    let left_s = PLANNED_RATIO * lab.budget.saturating_sub(lab.started.elapsed()).as_secs_f64();
    // A budget that is not enough for a round makes it shorter, down to what still says something.
    let seconds = (left_s / plans.len() as f64 - OVERHEAD_S).clamp(SECONDS_MIN.min(scenario.seconds), scenario.seconds);
    if seconds < scenario.seconds {
        lab.say(&format!(
            "each point has {seconds:.1} s instead of {} s, because {} of them share the budget: a longer --budget, or fewer points \
             (--axis), say more",
            scenario.seconds,
            plans.len()
        ));
    }
    let rounds_count = ((left_s / ((seconds + OVERHEAD_S) * plans.len() as f64)) as u32).max(1);
    let time = Duration::from_secs_f64(seconds);
    let mut one = |lab: &mut Lab<'_>, (cell, plan, built): &(&Cell, Plan, Shape), round: u32| {
        lab.progress
            .set_message(format!("{}, round {}", cell.name(), round + 1));
        let place = (*cell, plan, built);
        let row = measure(scenario, lab, &mut fabric, &controllers, place, (file, round, time))?;
        lab.record(row)
    };
    lab.in_rounds(&plans, rounds_count, |lab, turn| one(lab, turn.arm, turn.round))?;
    // What a gate has spoiled is measured again when all else is done: what disturbed it is over then, or never. Gates see the machine and
    // never the result, so a repetition selects nothing.
    let axes: Vec<_> = plans.iter().map(|(cell, _, _)| cell.axis(LEVEL_KERNEL)).collect();
    for _ in 0..MAKE_UPS_MAX {
        for (index, round) in lost_rounds(&lab.table, &axes, rounds_count) {
            let ends = lab.started.elapsed() + time + Duration::from_secs_f64(OVERHEAD_S);
            if lab.interrupted() || ends > lab.budget || lab.choice.depth != Depth::Full {
                break;
            }
            one(lab, &plans[index], round)?;
        }
    }
    fabric.stop().context("ending the network").map(drop)
}

fn measure(
    scenario: &RealScenario,
    lab: &Lab<'_>,
    fabric: &mut Fabric,
    controllers: &Controllers,
    (cell, plan, built): (&Cell, &Plan, &Shape),
    (file, round, time): (&ScenarioFile, u32, Duration),
) -> anyhow::Result<Row> {
    // Other losses in each round, and none while connections are opened.
    let seed = lab.choice.seed.wrapping_add(round.into());
    let lossy = Shape { seed, ..*built };
    let clean = Shape {
        faults: Faults::default(),
        ..lossy
    };
    if fabric.shape() != &clean {
        fabric.reshape(&clean)?;
    }
    let mut ends = Vec::new();
    for end in &plan.ends {
        ends.push(Ends {
            sender: end.sender,
            settings: &end.settings,
            controller: controllers
                .get(end.settings.controller)
                .context("others are left out")?,
        });
    }
    let pattern = Pattern {
        long_count: plan.long_count,
        stagger: plan.stagger,
        questions: None,
        time_max: time.mul_f64(WARM_UP_RATIO).max(plan.stagger * plan.long_count as u32),
        sample_every: None,
        spins: fabric.switch_has_cpu(),
    };
    let unmeasured = (plan.long_count > 0).then_some(pattern);
    let measured = Pattern {
        stagger: Duration::ZERO,
        questions: plan.answer_bytes.map(|answer_bytes| Questions {
            answer_bytes,
            count: scenario.questions_max,
            unmeasured_count: 1,
            apart: Duration::ZERO,
            pause: Duration::ZERO,
            answer_max: ANSWER_MAX,
        }),
        time_max: time.mul_f64(1.0 - WARM_UP_RATIO),
        sample_every: Some(SAMPLE_EVERY * plan.ends.len().div_ceil(4) as u32),
        ..pattern
    };
    let change = |fabric: &mut Fabric| match lossy == clean {
        true => Ok(()),
        false => fabric.reshape(&lossy).map(drop),
    };
    let mut trial = Trial::run(lab, fabric, &ends, (unmeasured, measured), change)?;
    let is_incast = plan.long_count == 0 && plan.ends.len() > 1;
    if is_incast && plan.ends.iter().all(|end| end.settings.controller != "dctcp") {
        trial.demand_bursts(fabric, plan.ends.len());
    }
    trial.facts.insert("scenario_sha256".to_owned(), file.sha256.clone());
    let about = format!(
        "scenario {}, sha256 {}, {}, seed {seed}, round {}, {KERNEL}, built {} times slower",
        file.name,
        file.sha256,
        cell.name(),
        round + 1,
        scenario.dilation
    );
    let tame: String = cell.name().replace(", ", ".").replace(' ', "=");
    let stem = format!("{}.{tame}", scenario.id);
    let logged = log_queues(lab, fabric, &format!("{stem}.round={}", round + 1), &about)?;
    trial
        .facts
        .extend(logged.map(|fact| (queue_log::FACT.to_owned(), fact)));
    if round == 0 {
        let name = keep(lab, &stem, &trial.done.samples, about)?;
        trial.facts.insert("connections".to_owned(), name);
    }
    Ok(trial.into_row(lab, scenario.id, cell.axis(LEVEL_KERNEL), round, fabric))
}
