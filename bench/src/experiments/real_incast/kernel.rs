//! The file on real kernels: one network for the whole run, one thread for all sockets, fresh connections for each row.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, anyhow};
use dataplane_netns::Host;
use dataplane_queue::{Discipline, DropTailOptions, Limit, Marking, SimTime};
use dataplane_transports::ControllerKind;

use super::{Cell, GOODPUT, ID, KERNEL, Level, QUERIES, TIMEOUTS};
use crate::{
    experiment::{Depth, Lab},
    measure::{
        QUANTILES, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Row},
    scenario::file::ScenarioFile,
    switch::{self, Fabric, KernelTimers, Kind, Lap, Shape},
    table::ROUNDS_MIN,
    traffic::{self, Ablation, COUNTED, Controller, Counters, Done, Flows, Pattern, Questions},
};

/// A row that collapses has a question or two in it.
const TRIAL_MIN: Duration = Duration::from_millis(700);
/// 34 questions of a third of a second.
const TRIAL_MAX: Duration = Duration::from_secs(12);
/// What a row may take of its equal share of the time that is left: those that do not collapse are over sooner.
const SHARE_MAX: f64 = 3.0;
/// Connections begin with a window that no later question meets.
const UNMEASURED_COUNT: u32 = 1;
/// Of one row: two hundred in the rounds without which nothing is compared.
const QUESTIONS_MAX: u32 = 200_u32.div_ceil(ROUNDS_MIN as u32);
/// A timeout doubles a few times before anybody gives up.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What an arm of the file asks of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sender {
    pub controller: &'static str,
    pub ablation: Ablation,
    /// The least timeout that the kernel has, whatever that is.
    pub is_at_floor: bool,
}

impl Sender {
    /// # Errors
    /// Something that no setting of a kernel's gives.
    pub fn of(file: &ScenarioFile, arm: &str) -> anyhow::Result<Sender> {
        let found = file.arm.iter().find(|known| known.name == arm);
        let tcp = found.with_context(|| format!("the scenario has no arm {arm:?}"))?.tcp;
        let controller = match tcp.controller.context("an arm names its controller")?.0 {
            ControllerKind::Cubic => "cubic",
            ControllerKind::NewReno => "reno",
            ControllerKind::Bbr1 => "bbr",
            ControllerKind::Dctcp => "dctcp",
            other => return Err(anyhow!("no kernel has the controller {}", other.name())),
        };
        let rto_min = tcp.rto_min.context("an arm says its least timeout")?.duration();
        Ok(Sender {
            controller,
            is_at_floor: rto_min < traffic::RTO_MIN_DEFAULT,
            ablation: Ablation {
                rto_min,
                tlp: tcp.tlp.unwrap_or(true),
                ..Ablation::default()
            },
        })
    }
}

/// The network, and the controllers that this kernel has.
pub(super) struct Ground {
    fabric: Fabric,
    controllers: BTreeMap<&'static str, Controller>,
    rto_floor: Duration,
    bytes_total: u64,
    /// What the thread that drives all sockets carries where no link is a limit.
    engine_bits_per_sec: f64,
}

/// For long enough that windows have opened.
const CAPACITY_TIME: Duration = Duration::from_millis(400);
const CAPACITY_SENDERS: usize = 4;

/// The network of the file.
fn shape(file: &ScenarioFile, seed: u64) -> anyhow::Result<Shape> {
    let queue = file.switch.queue;
    let marking = queue
        .mark_at
        .map_or(Marking::Never, |length| Marking::AtEnqueue(length.0));
    let limit = queue.limit.map_or(Limit::Packets(100), |length| length.0);
    Ok(Shape {
        // The file's is of each cable, each way.
        delay: SimTime::from_ns(file.topology.delay.ns),
        port: Discipline::DropTail(DropTailOptions { limit, marking }),
        seed,
        ..Shape::new(file.topology.rate.bits_per_sec, limit, None)
    })
}

impl Ground {
    /// Nothing, and says why, where it cannot be.
    pub fn prepare(lab: &Lab<'_>, file: &ScenarioFile, cells: &[Cell]) -> anyhow::Result<Option<Ground>> {
        let shape = shape(file, lab.choice.seed)?;
        let choice = match switch::choose(&Kind::ALL, &shape) {
            Ok(choice) => choice,
            Err(why) => {
                lab.say(&format!("no row of this machine's kernel: {why}"));
                return Ok(None);
            }
        };
        let mut controllers = BTreeMap::new();
        for cell in cells {
            let word = Sender::of(file, &cell.arm)?.controller;
            if controllers.contains_key(word) {
                continue;
            }
            match Controller::open(word) {
                Ok(controller) => drop(controllers.insert(word, controller)),
                Err(error) => lab.say(&format!("no row of this machine's kernel with {word}: {error:#}")),
            }
        }
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
            rto_floor: KernelTimers::here().rto_min_floor,
            bytes_total: load.bytes_total.context("the load says how much is answered")?.bytes,
        }))
    }

    /// All cells, round after round, in an order that the seed draws.
    pub fn run(self, lab: &mut Lab<'_>, file: &ScenarioFile, cells: &[Cell]) -> anyhow::Result<()> {
        let mut arms = Vec::new();
        for cell in cells {
            let sender = Sender::of(file, &cell.arm)?;
            if self.controllers.contains_key(sender.controller) {
                arms.push((cell.clone(), sender));
            }
        }
        // `verify` wants to know whether it works.
        let rounds_count = if lab.choice.depth == Depth::Smallest {
            1
        } else {
            ROUNDS_MIN
        };
        let mut rows_left = arms.len() * rounds_count;
        lab.in_rounds(&arms, rounds_count as u32, |lab, turn| {
            let time_left = lab.budget.saturating_sub(lab.started.elapsed());
            let share = time_left.div_f64(rows_left.max(1) as f64);
            let trial = share.mul_f64(SHARE_MAX).clamp(TRIAL_MIN, TRIAL_MAX);
            rows_left = rows_left.saturating_sub(1);
            let (cell, sender) = turn.arm;
            lab.progress.set_message(format!(
                "{} with {} servers, round {}",
                cell.arm,
                cell.servers_count,
                turn.round + 1
            ));
            lab.record_until_valid(|lab| self.measure(lab, file, cell, sender, turn.round, trial))
        })?;
        self.fabric.stop().context("ending the network").map(drop)
    }

    fn measure(
        &self,
        lab: &Lab<'_>,
        file: &ScenarioFile,
        cell: &Cell,
        sender: &Sender,
        round: u32,
        trial: Duration,
    ) -> anyhow::Result<Row> {
        let at_s = lab.run_started.elapsed().as_secs_f64();
        let mut ablation = sender.ablation;
        if sender.is_at_floor {
            ablation.rto_min = self.rto_floor;
        }
        let hosts: Vec<&Host> = self.fabric.senders().iter().take(cell.servers_count).collect();
        let client = self.fabric.receiver();
        let mut facts = BTreeMap::new();
        facts.insert("client".to_owned(), ablation.apply(client)?.to_string());
        for host in &hosts {
            // All are set alike; one is printed.
            let applied = ablation.apply(host)?;
            facts.insert("servers".to_owned(), applied.to_string());
        }
        let controller = &self.controllers[sender.controller];
        let mut flows = Flows::open(client, &hosts, controller.name(), ablation.pacing_bytes_per_sec_max)?;
        let pattern = Pattern {
            long_count: 0,
            questions: Some(Questions {
                answer_bytes: self.bytes_total / cell.servers_count as u64,
                count: QUESTIONS_MAX,
                unmeasured_count: UNMEASURED_COUNT,
                pause: Duration::ZERO,
                answer_max: ANSWER_MAX,
            }),
            time_max: trial,
            sample_every: None,
        };
        let before = counted(client, &hosts)?;
        // A new lap: what the handshakes did is not this row's.
        self.fabric.lap()?;
        let watch = Watch::begin();
        let done = pattern.run(&mut flows, lab.stop)?;
        let mut observed = watch.end();
        let lap = self.fabric.lap()?;
        let after = counted(client, &hosts)?;
        observed.extend(lap.observations.iter().cloned());
        // DCTCP's senders hold back before the link is overrun: that is what they are for.
        if cell.servers_count > 1 && sender.controller != "dctcp" {
            observed.extend(lap.burst_observations(self.fabric.shape()));
        }
        if done.completion_ns.is_empty() && done.lost_count == 0 {
            // The user had enough before the first answer: that says nothing of the kernel.
            observed.push(Observation::Silence {
                sent_count: hosts.len() as u64,
            });
        }
        let infos = flows.infos().context("asking the senders' kernels")?;
        let begun = flows.begun();
        let ms = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3);
        let rto = infos.iter().map(|info| info.rto).min().unwrap_or_default();
        facts.insert(
            "controller".to_owned(),
            format!("{}, {}", controller.word, controller.origin()),
        );
        facts.insert("rto_least_seen".to_owned(), ms(rto));
        facts.insert(
            "rtt_least_seen".to_owned(),
            ms(infos.iter().map(|info| info.rtt_min).min().unwrap_or_default()),
        );
        facts.insert(
            "window_at_first".to_owned(),
            begun.first().map_or(0, |info| info.window_segments).to_string(),
        );
        facts.insert("scenario_sha256".to_owned(), file.sha256.clone());
        facts.insert(
            "bytes".to_owned(),
            match flows
                .totals()
                .iter()
                .all(|flow| flow.received_bytes == flow.asked_bytes)
            {
                true => "of every flow, as many received as asked for".to_owned(),
                false => "of some flow, not all received that were asked for".to_owned(),
            },
        );
        let grown = [after[0].since(&before[0]), after[1].since(&before[1])];
        Ok(self.row(lab, cell, (at_s, round), &done, (&lap, &grown), (facts, &observed)))
    }

    fn row(
        &self,
        lab: &Lab<'_>,
        cell: &Cell,
        (at_s, round): (f64, u32),
        done: &Done,
        (lap, [client, senders]): (&Lap, &[Counters; 2]),
        (mut facts, observed): (BTreeMap<String, String>, &[Observation]),
    ) -> Row {
        let mut metrics = BTreeMap::new();
        let mut put = |name: &str, value: f64, unit: &str, better: Better| {
            let unit = unit.to_owned();
            metrics.insert(name.to_owned(), Metric { value, unit, better });
        };
        // A question without an answer in time has taken that time.
        let asked_time = done.asked_time + ANSWER_MAX * done.lost_count as u32;
        let goodput = done.answered_bytes as f64 * 8.0 / asked_time.as_secs_f64().max(1e-9) / 1e6;
        put(GOODPUT, goodput, "Mbit/s", Better::Higher);
        put(QUERIES, done.completion_ns.len() as f64, "count", Better::Neither);
        put("lost_queries", done.lost_count as f64, "count", Better::Lower);
        for (_, _, name) in COUNTED {
            let of = if name.ends_with("_in") { client } else { senders };
            if let Some(count) = of.get(name) {
                put(name, count as f64, "count", Better::Neither);
            }
        }
        if let Some(timeouts) = senders.get(TIMEOUTS) {
            let asked = done.completion_ns.len() as f64 + done.lost_count as f64 + f64::from(UNMEASURED_COUNT);
            put("timeouts_per_query", timeouts as f64 / asked, "ratio", Better::Lower);
        }
        put(
            "engine_capacity_mbit_per_sec",
            self.engine_bits_per_sec / 1e6,
            "Mbit/s",
            Better::Neither,
        );
        let port = &lap.to_receiver;
        put("drops", port.dropped_count as f64, "count", Better::Lower);
        put("marked", port.marked_count as f64, "count", Better::Neither);
        if let Some(bytes) = port.queue_bytes_max {
            put("queue_bytes_max", bytes as f64, "bytes", Better::Neither);
        }
        facts.insert(
            "yardstick".to_owned(),
            "TCP of this machine's kernel at both ends; the switch between them is emulated".to_owned(),
        );
        facts.extend(self.fabric.facts());
        facts.extend(lap.facts());
        Row {
            experiment: ID.to_owned(),
            backend: KERNEL.to_owned(),
            mode: ModeRecord::Emulated {
                by: self.fabric.kind().by().to_owned(),
            },
            axis: cell.axis(Level::KERNEL),
            round,
            twin: false,
            seed: lab.choice.seed,
            at_s,
            elapsed_s: done.elapsed.as_secs_f64(),
            latency: Some(done.recorder().distribution(&QUANTILES)),
            service: None,
            schedule_lag: None,
            metrics,
            series: Vec::new(),
            facts,
            validity: gates::judge(observed, &Limits::default()),
        }
    }
}

/// Of the client, and of all senders together.
fn counted(client: &Host, senders: &[&Host]) -> anyhow::Result<[Counters; 2]> {
    let mut all = Counters::default();
    for sender in senders {
        all.add(&Counters::read(sender)?);
    }
    Ok([Counters::read(client)?, all])
}
