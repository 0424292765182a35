//! The file on real kernels: one network for the whole run, one thread for all sockets, fresh connections for each row.

use std::time::Duration;

use anyhow::Context;

use super::{Cell, ID};
use crate::{
    experiment::{Depth, Lab},
    experiments::kernel_tcp::{
        Controllers, Ends, KERNEL, LEVEL_KERNEL, Sender, Trial, keep, log_queues, lost_rounds, shape,
    },
    packet_sim::Point,
    record::{Better, Metric, Row},
    scenario::file::ScenarioFile,
    switch::{self, Dilation, Fabric, KernelTimers, Kind, Shape, queue_log},
    table::ROUNDS_MIN,
    traffic::{self, Pattern, Questions},
};

/// A row that collapses has a question in it, however long that takes; the whole ladder of 112 points in six rounds fits eight minutes.
const TRIAL_MIN: Duration = Duration::from_millis(350);
/// 34 questions of a third of a second.
const TRIAL_MAX: Duration = Duration::from_secs(12);
/// What a row may take of its equal share of the time that is left: those that do not collapse are over sooner, and leave more to the others.
const SHARE_MAX: f64 = 1.25;
/// Of a machine that somebody else's hypervisor shares out, one row in three is INVALID: so many rows a valid one takes. A budget that is divided among fewer
/// is spent when the last round is over, and what was lost is not made up for.
const ROWS_PER_VALID: f64 = 1.6;
/// What a row takes beside its questions: settings and connections of up to 64 hosts, and the last question's end.
const OVERHEAD: Duration = Duration::from_millis(200);
/// From asking one server to asking the next: a quarter of a packet's time on the lines, and so 2 ms for 64 servers, while the port holds what the client's line
/// carries in 2.6. Faster, the switch cannot hand the questions over when they are due.
const ASKED_APART: Duration = Duration::from_micros(30);
/// Connections begin with a window that no later question meets.
const UNMEASURED_COUNT: u32 = 1;
/// Of an arm in all its rounds together.
const QUESTIONS_COUNT: u32 = 200;
/// Six rounds bound a ratio by the least and the greatest that was seen. As many questions in twice as many rounds bound it by about half as much,
/// so that is how a budget is spent that has a second for each of these rows.
const ROUNDS_GOOD: usize = 12;
const ROW_GOOD: Duration = Duration::from_secs(1);
/// A timeout doubles a few times before anybody gives up.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The kernels are asked so often what their connections do, of one connection; of several as much more seldom.
const SAMPLE_EVERY: Duration = Duration::from_millis(4);
/// More rounds than nothing is compared without, where the budget lasts: intervals become narrower.
const ROUNDS_MAX: u32 = 18;
/// How often lost rounds are made up for, at most.
const MAKE_UPS_MAX: u32 = 3;

/// What an arm of the file asks of a kernel.
///
/// # Errors
/// Something that no setting of a kernel's gives.
pub(super) fn sender(file: &ScenarioFile, arm: &str, rto_min_floor: Duration) -> anyhow::Result<Sender> {
    let tcp = Point::of(file, arm, None)?.tcp();
    let sender = Sender::of(&tcp, Dilation::NONE, rto_min_floor)?;
    let is_at_floor = sender.ablation.rto_min < traffic::RTO_MIN_DEFAULT;
    Ok(match is_at_floor {
        true => sender.at_floor(rto_min_floor),
        false => sender,
    })
}

/// The network, and the controllers that this kernel has.
pub(super) struct Ground {
    fabric: Fabric,
    controllers: Controllers,
    rto_floor: Duration,
    bytes_total: u64,
    /// What the thread that drives all sockets carries where no link is a limit.
    engine_bits_per_sec: f64,
}

/// For long enough that windows have opened.
const CAPACITY_TIME: Duration = Duration::from_millis(400);
const CAPACITY_SENDERS: usize = 4;

impl Ground {
    /// Nothing, and says why, where it cannot be.
    pub fn prepare(lab: &Lab<'_>, file: &ScenarioFile, cells: &[Cell]) -> anyhow::Result<Option<Ground>> {
        let rto_floor = KernelTimers::here().rto_min_floor;
        let first = cells.first().context("there is something to measure")?;
        let shape = Shape {
            log_events_max: lab.choice.queue_log_events_max,
            ..shape(&Point::of(file, &first.arm, None)?, Dilation::NONE, lab.choice.seed)?
        };
        let choice = match switch::choose(&Kind::ALL, &shape) {
            Ok(choice) => choice,
            Err(why) => {
                lab.say(&format!("no row of this machine's kernel: {why}"));
                return Ok(None);
            }
        };
        let senders = cells.iter().map(|cell| sender(file, &cell.arm, rto_floor));
        let senders = senders.collect::<anyhow::Result<Vec<Sender>>>()?;
        let controllers = Controllers::open(lab, senders.iter().map(|sender| sender.controller));
        let senders_count = cells.iter().map(|cell| cell.servers_count).max().unwrap_or(1);
        let load = file.load.first().context("the scenario has a load")?.get_ref();
        let engine_bits_per_sec = traffic::capacity(CAPACITY_SENDERS, CAPACITY_TIME, lab.stop)
            .context("measuring what one thread can carry")?;
        lab.progress
            .set_message(format!("making {senders_count} servers as network namespaces"));
        let fabric = Fabric::build(choice.kind, senders_count, &shape).context("making the network")?;
        // What one thread does for all hosts, it does where the first sender's belongs.
        let _ = fabric.pin_sender(0);
        Ok(Some(Ground {
            fabric,
            controllers,
            engine_bits_per_sec,
            rto_floor,
            bytes_total: load.bytes_total.context("the load says how much is answered")?.bytes,
        }))
    }

    /// All cells, round after round, in an order that the seed draws; then those rounds again that some gate has spoiled.
    pub fn run(mut self, lab: &mut Lab<'_>, file: &ScenarioFile, cells: &[Cell]) -> anyhow::Result<()> {
        let mut arms = Vec::new();
        for cell in cells {
            let sender = sender(file, &cell.arm, self.rto_floor)?;
            if self.controllers.get(sender.controller).is_some() {
                arms.push((cell.clone(), sender));
            }
        }
        // `verify` wants to know whether it works.
        let (rounds_count, rounds_max) = match lab.choice.depth {
            Depth::Smallest => (1, 1),
            Depth::Tour | Depth::Full => (rounds_planned(arms.len(), lab.budget), ROUNDS_MAX),
        };
        let questions_max = QUESTIONS_COUNT.div_ceil(rounds_count.max(ROUNDS_MIN) as u32);
        let mut rows_left = arms.len() * rounds_count;
        lab.in_rounds(&arms, rounds_max, |lab, turn| {
            let trial = trial_time(lab, rows_left);
            rows_left = rows_left.saturating_sub(1);
            let (cell, sender) = turn.arm;
            lab.progress.set_message(format!(
                "{} with {} servers, round {}",
                cell.arm,
                cell.servers_count,
                turn.round + 1
            ));
            lab.record_until_valid(|lab| self.measure(lab, file, cell, sender, turn.round, (trial, questions_max)))
        })?;
        for _ in 0..MAKE_UPS_MAX {
            let axes: Vec<_> = arms.iter().map(|(cell, _)| cell.axis(LEVEL_KERNEL)).collect();
            let lost = lost_rounds(&lab.table, &axes, rounds_count as u32);
            for (number, (index, round)) in lost.iter().enumerate() {
                if lab.interrupted() || lab.started.elapsed() > lab.budget || lab.choice.depth != Depth::Full {
                    return self.end();
                }
                let (cell, sender) = &arms[*index];
                lab.progress.set_message(format!(
                    "{} with {} servers, round {} once more",
                    cell.arm,
                    cell.servers_count,
                    round + 1
                ));
                let trial = trial_time(lab, lost.len() - number);
                let row = self.measure(lab, file, cell, sender, *round, (trial, questions_max))?;
                lab.record(row)?;
            }
        }
        self.end()
    }

    fn end(self) -> anyhow::Result<()> {
        self.fabric.stop().context("ending the network").map(drop)
    }

    fn measure(
        &mut self,
        lab: &Lab<'_>,
        file: &ScenarioFile,
        cell: &Cell,
        sender: &Sender,
        round: u32,
        (trial, questions_max): (Duration, u32),
    ) -> anyhow::Result<Row> {
        let controller = self
            .controllers
            .get(sender.controller)
            .context("arms without one are left out")?;
        let ends: Vec<Ends<'_>> = (0..cell.servers_count)
            .map(|index| Ends {
                sender: index,
                settings: sender,
                controller,
            })
            .collect();
        let pattern = Pattern {
            long_count: 0,
            stagger: Duration::ZERO,
            questions: Some(Questions {
                answer_bytes: self.bytes_total / cell.servers_count as u64,
                count: questions_max,
                unmeasured_count: UNMEASURED_COUNT,
                apart: ASKED_APART,
                pause: Duration::ZERO,
                answer_max: ANSWER_MAX,
            }),
            time_max: trial,
            sample_every: Some(SAMPLE_EVERY * cell.servers_count as u32),
            spins: self.fabric.switch_has_cpu(),
        };
        let mut trial = Trial::run(lab, &mut self.fabric, &ends, (None, pattern), |_| Ok(()))?;
        // DCTCP's senders hold back before the link is overrun: that is what they are for.
        if cell.servers_count > 1 && sender.controller != "dctcp" {
            trial.demand_bursts(&self.fabric, cell.servers_count);
        }
        trial.facts.insert("scenario_sha256".to_owned(), file.sha256.clone());
        let stem = format!("{ID}.{}.servers={}", cell.arm, cell.servers_count);
        let about = format!(
            "scenario {}, sha256 {}, arm {}, servers {}, seed {}, round {}, {KERNEL}",
            file.name,
            file.sha256,
            cell.arm,
            cell.servers_count,
            lab.choice.seed,
            round + 1
        );
        let logged = log_queues(lab, &mut self.fabric, &format!("{stem}.round={}", round + 1), &about)?;
        trial
            .facts
            .extend(logged.map(|fact| (queue_log::FACT.to_owned(), fact)));
        if round == 0 {
            let name = keep(lab, &stem, &trial.done.samples, about)?;
            trial.facts.insert("connections".to_owned(), name);
        }
        let mut row = trial.into_row(lab, ID, cell.axis(LEVEL_KERNEL), round, &self.fabric);
        let capacity = Metric {
            value: self.engine_bits_per_sec / 1e6,
            unit: "Mbit/s".to_owned(),
            better: Better::Neither,
        };
        row.metrics.insert("engine_capacity_mbit_per_sec".to_owned(), capacity);
        Ok(row)
    }
}

/// How many rounds the budget is divided into.
fn rounds_planned(arms_count: usize, budget: Duration) -> usize {
    match budget >= ROW_GOOD * (arms_count * ROUNDS_GOOD) as u32 {
        true => ROUNDS_GOOD,
        false => ROUNDS_MIN,
    }
}

/// A row's share of the time that is left for so many valid ones.
fn trial_time(lab: &Lab<'_>, valid_left: usize) -> Duration {
    let time_left = lab.budget.saturating_sub(lab.started.elapsed());
    let share = time_left.div_f64(valid_left.max(1) as f64 * ROWS_PER_VALID);
    share
        .mul_f64(SHARE_MAX)
        .saturating_sub(OVERHEAD)
        .clamp(TRIAL_MIN, TRIAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_arms_have_more_rounds_and_a_ladder_the_least() {
        assert_eq!(rounds_planned(9, Duration::from_secs(140)), ROUNDS_GOOD);
        assert_eq!(rounds_planned(9, Duration::from_secs(60)), ROUNDS_MIN);
        assert_eq!(rounds_planned(7 * 16, Duration::from_secs(900)), ROUNDS_MIN);
    }
}
