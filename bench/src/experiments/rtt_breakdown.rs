//! `rtt-breakdown`: one UDP request and its reply, stage by stage, from the client's send to its receive.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    backends::{self, Room},
    breakdown::{
        self, Breakdown, STAGE, STAGE_MEAN, STAGES_SUM, Wait,
        stages::{Stations, TOTAL},
    },
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    experiments::judge::{self, Bound, measured},
    record::{Outcome, Row},
    table::{Arm, ROUNDS_MIN, Table},
    trial::{self, Cpus, Load, Position, Trial},
};

/// See the module.
#[derive(Debug)]
pub struct RttBreakdown;

const ENDS: Axis = Axis {
    name: "ends",
    meaning: "how both ends wait",
    full: &["blocking", "spinning"],
    tour: &["blocking"],
    smallest: "blocking",
    allowed: Allowed::Words,
};

const CPUS: Axis = Axis {
    name: "cpus",
    meaning: "one: both ends share a CPU (blocking ends only); two: a CPU each",
    full: &["two", "one"],
    tour: &["two"],
    smallest: "two",
    allowed: Allowed::Words,
};

const DRIVER: Axis = Axis {
    name: "driver",
    meaning: "xdp: an XDP program at each interface stamps what arrives, before the network stack does; none: it does not",
    full: &["xdp", "none"],
    tour: &["xdp"],
    smallest: "xdp",
    allowed: Allowed::Words,
};

/// A way of moving frames and of waiting that is taken apart.
#[derive(Debug)]
struct Way {
    ends: &'static str,
    /// The back end without stamps that is measured beside.
    plain: &'static str,
    is_ring: bool,
}

const WAYS: [Way; 4] = [
    Way {
        ends: "blocking",
        plain: "udp-blocking",
        is_ring: false,
    },
    Way {
        ends: "spinning",
        plain: "udp-spin",
        is_ring: false,
    },
    Way {
        ends: "blocking",
        plain: "af-xdp",
        is_ring: true,
    },
    Way {
        ends: "spinning",
        plain: "af-xdp-spin",
        is_ring: true,
    },
];

/// The fact that says why AF_XDP is measured as a whole only.
const RING_STAMPS: &str = "ring_stamps";

const TIMEOUT: Duration = Duration::from_millis(500);

/// What is measured in a round.
#[derive(Clone, Debug)]
struct What {
    way: &'static Way,
    cpus: Cpus,
    /// Taken apart, by whom; or as a whole, without stamps.
    apart: Option<Stations>,
}

impl Experiment for RttBreakdown {
    fn id(&self) -> &'static str {
        "rtt-breakdown"
    }

    fn title(&self) -> &'static str {
        "A round trip, stage by stage"
    }

    fn question(&self) -> &'static str {
        "Where does the time of one request and its reply go, from the client's send to its receive?"
    }

    fn how(&self) -> &'static str {
        "Ping-pong over UDP sockets that ask the kernel for its time stamps (back end udp-stamped, 128 bytes): entering the \
         packet scheduler, passed on by the driver, taken by the network stack, and by the program. Where it can be had, an \
         XDP program at each interface stamps what arrives before the stack does. An AF_XDP ring (af-xdp-stamped) has \
         the stamps of its completions, when a frame left the driver, and no stack to stamp. A stage ends where the next begins, so the \
         stages of each request add up to its round trip; a row whose stages do not is INVALID. Programs and XDP read \
         CLOCK_MONOTONIC, the kernel's stamps are of CLOCK_REALTIME and CLOCK_TAI and converted; each row says which. Stamps cost time \
         themselves: the same round trip without them is measured beside (udp-blocking, udp-spin, af-xdp, af-xdp-spin). Between two machines no stamp of one \
         is compared with one of the other: the server's stages are by its own clocks, and what the client waits beyond them is one \
         stage, the wire in both directions. Between namespaces a veth \
         pair carries the frames: there is no NIC, no interrupt and no wire in these figures, and an XDP program makes a \
         veth copy each frame."
    }

    fn axes(&self) -> &'static [Axis] {
        &[ENDS, CPUS, DRIVER]
    }

    fn backends(&self) -> Vec<&'static str> {
        WAYS.iter().map(|way| way.plain).collect()
    }

    fn tour_backends(&self) -> Vec<&'static str> {
        let sockets = WAYS.iter().filter(|way| !way.is_ring);
        sockets.map(|way| way.plain).collect()
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.4
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        // Asked once, so that the answer stands on every row.
        let no_driver = breakdown::try_stations(lab, Stations::SocketAndDriver)
            .err()
            .map(|why| format!("left out: {why:#}"));
        if let Some(why) = &no_driver {
            lab.say(&format!(
                "stamps from the drivers are {why}; their stages are merged with the next"
            ));
        }
        let has_rings = lab.backends(self).iter().any(|backend| is_ring(backend.name));
        let no_ring_stamps = match has_rings {
            true => breakdown::try_stations(lab, Stations::Ring).err(),
            false => None,
        };
        if let Some(why) = &no_ring_stamps {
            lab.say(&format!("AF_XDP is measured as a whole only, without stamps: {why:#}"));
        }
        let arms = arms(self, lab, no_driver.is_none(), no_ring_stamps.is_none());
        let plan = lab.plan(arms.len(), Duration::from_millis(100));
        lab.in_rounds(&arms, plan.rounds_count, |lab, turn| {
            let What { way, cpus, apart } = *turn.arm;
            let ends = way.ends;
            let driver = match apart {
                Some(Stations::SocketAndDriver) => "xdp",
                _ => "none",
            };
            let cpus_name = if cpus == Cpus::One { "one" } else { "two" };
            lab.progress.set_message(format!(
                "{}, {ends}, CPUs: {cpus_name}, driver: {driver}, round {}",
                way.plain,
                turn.round + 1
            ));
            let position = Position {
                experiment: self.id(),
                axis: BTreeMap::from([
                    (ENDS.name.to_owned(), ends.to_owned()),
                    (CPUS.name.to_owned(), cpus_name.to_owned()),
                    (DRIVER.name.to_owned(), driver.to_owned()),
                ]),
                round: turn.round,
                twin: false,
                seed: lab.choice.seed,
            };
            let client_id = turn.number;
            let Some(stations) = apart else {
                return lab.record_until_valid(|lab| {
                    let mut row = whole(lab, way.plain, cpus, plan.trial, client_id, &position)?;
                    if let Some(why) = no_ring_stamps.as_ref().filter(|_| way.is_ring) {
                        row.facts.insert(RING_STAMPS.to_owned(), format!("left out: {why:#}"));
                    }
                    Ok(row)
                });
            };
            let breakdown = Breakdown {
                wait: if ends == "blocking" {
                    Wait::Blocking
                } else {
                    Wait::Spinning
                },
                cpus,
                duration: plan.trial,
                client_id,
                stations,
            };
            lab.record_all_until_valid(|lab| {
                let mut rows = breakdown::measure(lab, &breakdown, &position)?;
                for row in &mut rows {
                    let fact = match (stations, &no_driver) {
                        (Stations::SocketAndDriver, _) => "XDP in the driver of each interface".to_owned(),
                        (Stations::Ring, _) => "none: the interface's one program feeds the ring".to_owned(),
                        (Stations::Socket, Some(why)) => why.clone(),
                        (Stations::Socket, None) => "not asked for".to_owned(),
                    };
                    row.facts.insert("driver_stamps".to_owned(), fact);
                }
                Ok(rows)
            })
        })
    }
}

/// Everything that a round measures: each way of waiting without stamps, and with them.
fn arms(experiment: &RttBreakdown, lab: &Lab<'_>, has_driver: bool, has_ring_stamps: bool) -> Vec<What> {
    let here = lab.backends(experiment);
    let is_wanted = |driver| {
        let values = lab.values(&DRIVER);
        values.iter().any(|value| (value == "xdp" && has_driver) == driver)
    };
    let of_sockets = [(false, Stations::Socket), (true, Stations::SocketAndDriver)]
        .into_iter()
        .filter_map(|(driver, stations)| is_wanted(driver).then_some(stations));
    let of_sockets: Vec<Stations> = of_sockets.collect();
    let of_rings = if has_ring_stamps {
        vec![Stations::Ring]
    } else {
        Vec::new()
    };
    let mut arms = Vec::new();
    for cpus in lab.values(&CPUS) {
        let cpus = if cpus == "one" { Cpus::One } else { Cpus::Two };
        if cpus == Cpus::One && lab.place.agent().is_some() {
            lab.say("cpus=one is left out: two machines have no CPU in common");
            continue;
        }
        for way in &WAYS {
            let is_asked_for = lab.values(&ENDS).iter().any(|value| value == way.ends);
            let Some(backend) = here
                .iter()
                .find(|backend| backend.name == way.plain)
                .filter(|_| is_asked_for)
            else {
                continue;
            };
            // Two spinning ends on one CPU measure the scheduler's time slice.
            if cpus == Cpus::One && !backend.sleeps() {
                continue;
            }
            let stations = if way.is_ring { &of_rings } else { &of_sockets };
            let apart = stations.iter().map(|stations| Some(*stations));
            arms.extend([None].into_iter().chain(apart).map(|apart| What { way, cpus, apart }));
        }
    }
    arms
}

/// Is that a back end of rings?
fn is_ring(plain: &str) -> bool {
    WAYS.iter().any(|way| way.is_ring && way.plain == plain)
}

/// The same round trip without stamps: what the stamps cost.
fn whole(
    lab: &Lab<'_>,
    plain: &str,
    cpus: Cpus,
    duration: Duration,
    client_id: u32,
    position: &Position,
) -> anyhow::Result<Row> {
    let backend = backends::by_name(plain).ok_or_else(|| anyhow::anyhow!("no back end is called {plain:?}"))?;
    let trial = Trial {
        backend,
        client_backend: None,
        frame_bytes: breakdown::FRAME_BYTES,
        cpus,
        load: Load::Closed { duration },
        timeout: TIMEOUT,
        stall: None,
        service_spin: Duration::ZERO,
        room: Room { frames_count: 64 },
        overflow_is_measured: false,
    };
    let mut position = position.clone();
    position.axis.insert(STAGE.to_owned(), TOTAL.to_owned());
    Ok(trial::run(lab, &trial, client_id)?.into_row(&trial, position))
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "breakdown-sums",
        sentence: "The stages of a round trip add up to it: in every row the sum of their means is within 1 % of the mean \
                   round trip",
        source: Source::Ours {
            seen: "an oath: a breakdown that does not add up has a stamp that is not where it is taken for",
        },
        invariant: "The round trip is read from one clock at one end, the stages from two clocks and from stamps of kernel \
                    and programs at both ends. Between two machines a server's stamp that is off by less than the wire takes is \
                    not seen: the wire is what the others leave. The worst row decides. Rows that are off by more than 1 % and the clocks' \
                    error are INVALID before this claim sees them.",
        judge: breakdown_sums,
    },
    Claim {
        id: "stack-is-minor",
        sentence: "With blocking ends on two CPUs, the two stages from the network stack to the woken program outweigh all \
                   other stages together",
        source: Source::Ours {
            seen: "wakeup-model's difference between blocking and spinning ends, seen from inside",
        },
        invariant: "(server stack to app + client stack to app) ÷ all other stages, means of one round, is at least 1. The \
                    receive path from the stack's stamp to the socket is in these two stages too; with spinning ends it is \
                    all that is left of them, and that figure stands beside. Over veth there is no NIC and no interrupt \
                    among the other stages. Needs a CPU for each end.",
        judge: stack_is_minor,
    },
];

fn breakdown_sums(table: &Table) -> Judgement {
    const LIMIT: f64 = 0.01;
    let arm = Arm::of(breakdown::NAME, &[(STAGE, TOTAL)]);
    let mut rows = table.arm(arm);
    rows.extend(table.arm(Arm::of(breakdown::NAME_RING, &[(STAGE, TOTAL)])));
    if rows.len() < ROUNDS_MIN {
        return table.lacking(arm);
    }
    let off = |row: &&Row| row.metrics.get(STAGES_SUM).map(|metric| metric.value - 1.0);
    let worst = rows.iter().filter_map(off).max_by(|a, b| a.abs().total_cmp(&b.abs()));
    let outcome = match worst {
        Some(worst) if worst.abs() <= LIMIT => Outcome::Holds,
        _ => Outcome::Fails,
    };
    let what = "sum of the stages' means ÷ mean round trip, in the row where it is farthest from 1";
    let samples_count = rows.len() as u64;
    Judgement::new(
        outcome,
        vec![measured(
            what,
            worst.map(|worst| worst + 1.0),
            "ratio",
            "0.99 to 1.01",
            samples_count,
        )],
    )
}

fn stack_is_minor(table: &Table) -> Judgement {
    if !judge::two_cpus(table) {
        return Judgement::not_measured("both ends share a CPU on this machine; a wake-up across CPUs needs two");
    }
    // Without XDP the round trip is nearer to what programs have; with it there is at least an answer.
    let [without, with] = ["none", "xdp"].map(|driver| wakeups_and_rest(table, "blocking", driver));
    let ((wakeups, rest), driver) = match without.0.len() >= ROUNDS_MIN {
        true => (without, "none"),
        false => (with, "xdp"),
    };
    if wakeups.len() < ROUNDS_MIN {
        let axis = [("ends", "blocking"), ("cpus", "two"), (STAGE, TOTAL)];
        return table.lacking(Arm::of(breakdown::NAME, &axis));
    }
    let what = format!("stack to app at both ends ÷ all other stages, driver {driver}");
    let mut judgement = judge::ratio_of(table, &what, (&wakeups, &rest), Bound::AtLeast(1.0));
    let (spinning, _) = wakeups_and_rest(table, "spinning", driver);
    for (name, values) in [
        ("stack to app at both ends, blocking", wakeups),
        ("all other stages, blocking", rest),
        ("stack to app at both ends, spinning", spinning),
    ] {
        if !values.is_empty() {
            let mean_ns = values.iter().sum::<f64>() / values.len() as f64;
            judgement
                .measured
                .push(measured(name, Some(mean_ns), "ns", "", values.len() as u64));
        }
    }
    judgement
}

/// Means of the two stages that wake somebody, added, and of all others, in each round that has them all.
fn wakeups_and_rest(table: &Table, ends: &str, driver: &str) -> (Vec<f64>, Vec<f64>) {
    let axis = [("ends", ends), ("cpus", "two"), ("driver", driver)];
    let rows = table.arm(Arm::of(breakdown::NAME, &axis));
    let mut rounds: BTreeMap<u32, BTreeMap<&str, f64>> = BTreeMap::new();
    for row in rows {
        if let (Some(stage), Some(mean)) = (row.axis.get(STAGE), row.metrics.get(STAGE_MEAN)) {
            rounds.entry(row.round).or_default().insert(stage, mean.value);
        }
    }
    let is_wakeup = |stage: &str| breakdown::stages::WAKEUPS.contains(&stage);
    rounds
        .values()
        .filter_map(|stages| {
            let total = stages.get(TOTAL)?;
            let wakeups: Vec<f64> = stages
                .iter()
                .filter_map(|(stage, mean)| is_wakeup(stage).then_some(*mean))
                .collect();
            let sum: f64 = wakeups.iter().sum();
            (wakeups.len() == 2).then_some((sum, total - sum))
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        measure::{QUANTILES, Recorder},
        record::{Better, Metric, ModeRecord, Validity},
    };

    fn row(ends: &str, stage: &str, round: u32, mean_ns: f64, sum: f64) -> Row {
        let mut latency = Recorder::new();
        (0..100).for_each(|_| latency.record(mean_ns as u64));
        let metric = |value, unit: &str| Metric {
            value,
            unit: unit.to_owned(),
            better: Better::Neither,
        };
        Row {
            experiment: RttBreakdown.id().to_owned(),
            backend: breakdown::NAME.to_owned(),
            mode: ModeRecord::Native,
            axis: [("ends", ends), ("cpus", "two"), ("driver", "none"), (STAGE, stage)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            round,
            twin: false,
            seed: 1,
            at_s: 0.0,
            elapsed_s: 0.1,
            latency: Some(latency.distribution(&QUANTILES)),
            service: None,
            schedule_lag: None,
            metrics: [
                (STAGE_MEAN, metric(mean_ns + f64::from(round), "ns")),
                (STAGES_SUM, metric(sum, "ratio")),
            ]
            .map(|(name, metric)| (name.to_owned(), metric))
            .into(),
            series: Vec::new(),
            facts: [("client_cpu", "0"), ("server_cpu", "1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            validity: Validity::Valid,
        }
    }

    /// Eight rounds of two wake-ups and one stage beside them.
    fn table(wakeup_ns: f64, rest_ns: f64, sum: f64) -> Table {
        let [server, client] = breakdown::stages::WAKEUPS;
        let rows = (0..8).flat_map(|round| {
            [
                row("blocking", server, round, wakeup_ns, 1.0),
                row("blocking", client, round, wakeup_ns, 1.0),
                row("blocking", "06 server app", round, rest_ns, 1.0),
                row("blocking", TOTAL, round, 2.0 * wakeup_ns + rest_ns, sum),
            ]
        });
        Table {
            rows: rows.collect(),
            seed: 1,
        }
    }

    #[test]
    fn wake_ups_that_outweigh_the_rest_and_stages_that_add_up() {
        let table = table(15_000.0, 8_000.0, 1.002);
        assert_eq!(breakdown_sums(&table).outcome, Outcome::Holds);
        let judgement = stack_is_minor(&table);
        assert_eq!(judgement.outcome, Outcome::Holds, "{judgement:?}");
        let ratio = judgement.measured[0].value.expect("a ratio");
        assert!((ratio - 30.0 / 8.0).abs() < 0.05, "{ratio}");
    }

    #[test]
    fn a_long_stack_and_stages_that_do_not_add_up() {
        let table = table(2_000.0, 8_000.0, 0.985);
        assert_eq!(stack_is_minor(&table).outcome, Outcome::Fails);
        let sums = breakdown_sums(&table);
        assert_eq!(sums.outcome, Outcome::Fails);
        assert!((sums.measured[0].value.expect("a figure") - 0.985).abs() < 1e-9);
    }

    #[test]
    fn stages_of_rings_must_add_up_too() {
        let mut table = table(15_000.0, 8_000.0, 1.002);
        let rings = (0..8).map(|round| Row {
            backend: breakdown::NAME_RING.to_owned(),
            ..row("blocking", TOTAL, round, 40_000.0, 1.03)
        });
        table.rows.extend(rings);
        let sums = breakdown_sums(&table);
        assert_eq!(sums.outcome, Outcome::Fails);
        assert!((sums.measured[0].value.expect("a figure") - 1.03).abs() < 1e-9);
        assert_eq!(stack_is_minor(&table).outcome, Outcome::Holds, "which is about sockets");
    }

    #[test]
    fn without_rows_or_with_one_cpu_nothing_is_judged() {
        let mut table = table(15_000.0, 8_000.0, 1.0);
        for row in &mut table.rows {
            row.facts.insert("server_cpu".to_owned(), "0".to_owned());
        }
        assert!(matches!(stack_is_minor(&table).outcome, Outcome::NotMeasured { .. }));
        table.rows.retain(|row| row.axis[STAGE] != TOTAL);
        assert!(matches!(breakdown_sums(&table).outcome, Outcome::NotMeasured { .. }));
        let nothing = Table::default();
        assert!(matches!(stack_is_minor(&nothing).outcome, Outcome::NotMeasured { .. }));
    }
}
