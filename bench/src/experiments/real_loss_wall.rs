//! `real-loss-wall`: what random loss does to this kernel's CUBIC, and up to which loss its BBR does not mind: `bbr-loss-wall` with the
//! machine's own TCP.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use dataplane_queue::{Limit, SimTime};
use dataplane_softswitch::Faults;

use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::judge::{self, measured},
    measure::{
        Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Outcome, Row},
    switch::{self, Fabric, Kind, Shape},
    table::{Arm, Table},
    traffic::{Ablation, COUNTED, Controller, Counters, Flows, Pattern},
};

/// See the module.
#[derive(Debug)]
pub struct RealLossWall;

const ID: &str = "real-loss-wall";
/// Of rows, as in `real-incast`.
const KERNEL: &str = "kernel-tcp";
const GOODPUT: &str = "long_goodput_mbit_per_sec";

const ARM: Axis = Axis {
    name: "arm",
    meaning: "the kernel's congestion controller",
    full: &["cubic", "bbr"],
    tour: &["bbr"],
    smallest: "bbr",
    allowed: Allowed::Words,
};

const LOSS: Axis = Axis {
    name: "loss_ratio",
    meaning: "packets that the cable to the receiver loses at random",
    full: &[
        "0.00001", "0.0001", "0.001", "0.01", "0.02", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3", "0.5",
    ],
    tour: &["0.001"],
    smallest: "0.01",
    allowed: Allowed::Number(0.0, 0.9),
};

/// 100 Mbit/s, a round trip of 100 ms, and a queue of one product of the two, as in the figure.
const BITS_PER_SEC: u64 = 100_000_000;
const SENDER_BITS_PER_SEC: u64 = 1_000_000_000;
const CABLE_DELAY: SimTime = SimTime::from_ms(25);
const PORT: Limit = Limit::Packets(820);
/// Before anything counts: windows have been found by then.
const UNMEASURED: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(6);
/// Of `verify` and the tour.
const SHORT: Duration = Duration::from_secs(1);
/// What both ends may buffer, so that it never binds: least, first, most.
const BUFFER_BYTES: &str = "4096 131072 67108864";
/// 1,448 of 1,538 bytes are payload.
const WIRE_MBIT_PER_SEC: f64 = 100.0 * 1_448.0 / 1_538.0;

const WORK: &str =
    "Cardwell, Cheng, Gunn, Yeganeh and Jacobson, BBR: Congestion-based congestion control, CACM 60(2), 2017";
const INVARIANT: &str = "TCP of this machine's kernel over an emulated switch that loses by seed, one flow; goodput is taken over six seconds \
                         after four. Decided by the median of the valid rows of each point.";

const CLAIMS: &[Claim] = &[
    Claim {
        id: "cubic-loss-kernel",
        sentence: "This kernel's CUBIC falls to a tenth of its goodput at 0.1 % of loss and to less than a twentieth at 1 %",
        source: Source::Published {
            work: WORK,
            place: "figure 8 and its text; a twentieth, for about nothing, is ours",
        },
        invariant: INVARIANT,
        judge: cubic,
    },
    Claim {
        id: "bbr-loss-plateau-kernel",
        sentence: "This kernel's BBR keeps nine tenths of what the wire delivers up to 5 % of random loss",
        source: Source::Published {
            work: WORK,
            place: "figure 8 and its text; nine tenths are ours",
        },
        invariant: INVARIANT,
        judge: plateau,
    },
    Claim {
        id: "bbr-loss-wall-kernel",
        sentence: "This kernel's BBR has half of what the wire delivers at 15 % of random loss, and less than a tenth at 25 %",
        source: Source::Published {
            work: WORK,
            place: "figure 8, and the authors' analysis on bbr-dev: 1.25 (1 − p) < 1; half and a tenth are ours",
        },
        invariant: INVARIANT,
        judge: wall,
    },
];

impl Experiment for RealLossWall {
    fn id(&self) -> &'static str {
        ID
    }

    fn title(&self) -> &'static str {
        "A wall of random loss on this machine's kernel"
    }

    fn question(&self) -> &'static str {
        "How much random loss does a flow of this kernel bear with CUBIC, and how much with BBR?"
    }

    fn how(&self) -> &'static str {
        "One flow between two network namespaces over an emulated switch: 100 Mbit/s, a round trip of 100 ms, a queue of one \
         bandwidth-delay product. The cable to the receiver loses packets by chance. Connections are opened before it begins to."
    }

    fn axes(&self) -> &'static [Axis] {
        &[ARM, LOSS]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its hosts are network namespaces of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let clean = shape(0.0, lab.choice.seed);
        let choice = match switch::choose(&Kind::ALL, &clean) {
            Ok(choice) => choice,
            Err(why) => {
                lab.say(&format!(
                    "real-loss-wall is not measured: {why}; in virtual time: dplab run bbr-loss-wall"
                ));
                return Ok(());
            }
        };
        let mut arms = Vec::new();
        let mut controllers = BTreeMap::new();
        for word in lab.values(&ARM) {
            match Controller::open(&word) {
                Ok(controller) => drop(controllers.insert(word.clone(), controller)),
                Err(error) => {
                    lab.say(&format!("no row with {word}: {error:#}"));
                    continue;
                }
            }
            arms.extend(lab.values(&LOSS).into_iter().map(|loss| (word.clone(), loss)));
        }
        let (unmeasured, time) = match lab.choice.depth {
            Depth::Full => (UNMEASURED, MEASURED),
            Depth::Tour | Depth::Smallest => (SHORT, SHORT),
        };
        let mut fabric = Fabric::build(choice.kind, 1, &clean).context("making the network")?;
        let _ = fabric.pin_sender(0);
        let round_time = (unmeasured + time) * arms.len().max(1) as u32;
        let rounds_count = (lab.budget.as_secs_f64() / round_time.as_secs_f64()) as u32;
        lab.in_rounds(&arms, rounds_count.max(1), |lab, turn| {
            let (word, loss) = turn.arm;
            lab.progress
                .set_message(format!("{word} at a loss of {loss}, round {}", turn.round + 1));
            let controller = &controllers[word];
            lab.record_until_valid(|lab| measure(lab, &mut fabric, controller, loss, turn.round, (unmeasured, time)))
        })?;
        fabric.stop().context("ending the network").map(drop)
    }
}

fn shape(loss_ratio: f64, seed: u64) -> Shape {
    Shape {
        sender_bits_per_sec: SENDER_BITS_PER_SEC,
        delay: CABLE_DELAY,
        faults: Faults {
            loss_ratio,
            ..Faults::default()
        },
        seed,
        ..Shape::new(BITS_PER_SEC, PORT, None)
    }
}

fn measure(
    lab: &Lab<'_>,
    fabric: &mut Fabric,
    controller: &Controller,
    loss: &str,
    round: u32,
    (unmeasured, time): (Duration, Duration),
) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    // Other losses in each round.
    let seed = lab.choice.seed.wrapping_add(round.into());
    fabric.reshape(&shape(0.0, seed))?;
    let mut facts = BTreeMap::new();
    for (name, host) in [("client", fabric.receiver()), ("server", &fabric.senders()[0])] {
        for path in ["net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem"] {
            host.set_setting(path, BUFFER_BYTES)?;
        }
        facts.insert(name.to_owned(), Ablation::default().apply(host)?.to_string());
    }
    let mut flows = Flows::open(fabric.receiver(), &[&fabric.senders()[0]], controller.name(), None)?;
    fabric.reshape(&shape(loss.parse().context("a loss ratio")?, seed))?;
    let long = |time_max| Pattern {
        long_count: 1,
        stagger: Duration::ZERO,
        questions: None,
        time_max,
        sample_every: None,
    };
    long(unmeasured).run(&mut flows, lab.stop)?;
    let before = Counters::read(&fabric.senders()[0])?;
    fabric.lap()?;
    let watch = Watch::begin();
    let done = long(time).run(&mut flows, lab.stop)?;
    let mut observed = watch.end();
    let lap = fabric.lap()?;
    let grown = Counters::read(&fabric.senders()[0])?.since(&before);
    observed.extend(lap.observations.iter().cloned());
    if done.is_interrupted {
        // What came until then is of less time than was asked for.
        observed.push(Observation::Silence { sent_count: 0 });
    }

    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put(GOODPUT, done.long_bits_per_sec() / 1e6, "Mbit/s", Better::Higher);
    for (_, _, name) in COUNTED.iter().filter(|(.., name)| !name.ends_with("_in")) {
        if let Some(count) = grown.get(name) {
            put(name, count as f64, "count", Better::Neither);
        }
    }
    let port = &lap.to_receiver;
    put("lost_by_chance", port.lost_count as f64, "count", Better::Neither);
    put("drops", port.dropped_count as f64, "count", Better::Lower);
    if let Some(bytes) = port.queue_bytes_max {
        put("queue_bytes_max", bytes as f64, "bytes", Better::Neither);
    }
    let info = flows.info(0).context("asking the sender's kernel")?;
    facts.insert("connection".to_owned(), format!("{info:?}"));
    facts.insert(
        "controller".to_owned(),
        format!("{}, {}", controller.word, controller.origin()),
    );
    facts.insert(
        "yardstick".to_owned(),
        "TCP of this machine's kernel at both ends; the switch between them is emulated".to_owned(),
    );
    facts.extend(fabric.facts());
    facts.extend(lap.facts());
    Ok(Row {
        experiment: ID.to_owned(),
        backend: KERNEL.to_owned(),
        mode: ModeRecord::Emulated {
            by: fabric.kind().by().to_owned(),
        },
        axis: BTreeMap::from([
            (ARM.name.to_owned(), controller.word.clone()),
            (LOSS.name.to_owned(), loss.to_owned()),
        ]),
        round,
        twin: false,
        seed,
        at_s,
        elapsed_s: done.elapsed.as_secs_f64(),
        latency: None,
        service: None,
        schedule_lag: None,
        metrics,
        series: Vec::new(),
        facts,
        validity: gates::judge(&observed, &Limits::default()),
    })
}

/// The median of a point's valid rows, and how many there are; or what is missing.
fn goodput(table: &Table, arm: &str, loss: &str) -> Result<(f64, u64), Judgement> {
    let axis = [("arm", arm), ("loss_ratio", loss)];
    let arm = Arm::of(KERNEL, &axis);
    let rows = table.arm(arm);
    let values = rows.iter().filter_map(|row| row.metrics.get(GOODPUT));
    let mut values: Vec<f64> = values.map(|metric| metric.value).collect();
    values.sort_by(f64::total_cmp);
    match values.get(values.len() / 2) {
        Some(median) => Ok((*median, values.len() as u64)),
        None => Err(table.lacking(arm)),
    }
}

/// One figure and its bound.
fn demand(
    what: &str,
    found: Result<(f64, u64), Judgement>,
    over: Result<f64, Judgement>,
    limit: &str,
    holds: impl Fn(f64) -> bool,
) -> Judgement {
    match (found, over) {
        (Ok((value, count)), Ok(over)) => {
            let ratio = value / over;
            let outcome = if holds(ratio) { Outcome::Holds } else { Outcome::Fails };
            Judgement::new(outcome, vec![measured(what, Some(ratio), "ratio", limit, count)])
        }
        (Err(lacking), _) | (_, Err(lacking)) => lacking,
    }
}

fn cubic(table: &Table) -> Judgement {
    let most = || goodput(table, "cubic", "0.00001").map(|(most, _)| most);
    judge::all(vec![
        demand(
            "CUBIC at 0.1 %, of its goodput at 0.001 %",
            goodput(table, "cubic", "0.001"),
            most(),
            "≤ 0.1",
            |ratio| ratio <= 0.1,
        ),
        demand(
            "CUBIC at 1 %, of its goodput at 0.001 %",
            goodput(table, "cubic", "0.01"),
            most(),
            "≤ 0.05",
            |ratio| ratio <= 0.05,
        ),
    ])
}

/// BBR's goodput over what the wire delivers at that loss.
fn share(table: &Table, what: &str, loss: &str, limit: &str, holds: impl Fn(f64) -> bool) -> Judgement {
    let delivered = WIRE_MBIT_PER_SEC * (1.0 - loss.parse().unwrap_or(0.0));
    demand(what, goodput(table, "bbr", loss), Ok(delivered), limit, holds)
}

fn plateau(table: &Table) -> Judgement {
    let full = |what, loss| share(table, what, loss, "≥ 0.9", |ratio| ratio >= 0.9);
    judge::all(vec![
        full("BBR at 0.1 %, of what the wire delivers", "0.001"),
        full("BBR at 1 %, of what the wire delivers", "0.01"),
        full("BBR at 5 %, of what the wire delivers", "0.05"),
    ])
}

fn wall(table: &Table) -> Judgement {
    judge::all(vec![
        share(
            table,
            "BBR at 15 %, of what the wire delivers",
            "0.15",
            "≥ 0.5",
            |ratio| ratio >= 0.5,
        ),
        share(
            table,
            "BBR at 25 %, of what the wire delivers",
            "0.25",
            "≤ 0.1",
            |ratio| ratio <= 0.1,
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    fn table(cells: &[(&str, &str, f64)]) -> Table {
        let rows = cells.iter().map(|(arm, loss, goodput)| {
            let mut row = row_of(&[("arm", arm), ("loss_ratio", loss)], &[(GOODPUT, *goodput)]);
            row.backend = KERNEL.to_owned();
            row
        });
        Table {
            rows: rows.collect(),
            seed: 1,
        }
    }

    #[test]
    fn each_claim_holds_and_fails() {
        let all = |cubic_at_1: f64, bbr_at_5: f64, bbr_at_25: f64| {
            table(&[
                ("cubic", "0.00001", 80.0),
                ("cubic", "0.001", 7.0),
                ("cubic", "0.01", cubic_at_1),
                ("bbr", "0.001", 92.0),
                ("bbr", "0.01", 91.0),
                ("bbr", "0.05", bbr_at_5),
                ("bbr", "0.15", 60.0),
                ("bbr", "0.25", bbr_at_25),
            ])
        };
        let good = all(2.0, 86.0, 3.0);
        for judge in [cubic, plateau, wall] {
            assert_eq!(judge(&good).outcome, Outcome::Holds);
            assert!(matches!(judge(&Table::default()).outcome, Outcome::NotMeasured { .. }));
        }
        assert_eq!(cubic(&all(20.0, 86.0, 3.0)).outcome, Outcome::Fails);
        assert_eq!(plateau(&all(2.0, 50.0, 3.0)).outcome, Outcome::Fails);
        assert_eq!(wall(&all(2.0, 86.0, 30.0)).outcome, Outcome::Fails);
    }
}
