//! `wakeup-model`: how much of a round trip is waking up, and is it a sum? Either end may sleep or spin by itself, so the
//! model "the stack, plus one wake-up for each end that sleeps" can be held against all four.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    backends::{BackEnd, Room},
    bare_wakeup,
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    experiments::judge::{self, Bound, measured},
    record::Row,
    table::{Arm, ROUNDS_MIN, Table, latency_ns},
    trial::{self, Cpus, Load, Position, Trial},
};

/// See the module.
#[derive(Debug)]
pub struct WakeupModel;

const ENDS: Axis = Axis {
    name: "ends",
    meaning: "who sleeps: both (blocking), the client alone, the server alone, nobody (spinning); or both poll the device \
              before they sleep (busy-poll)",
    full: &["blocking", "client-blocks", "server-blocks", "spinning", "busy-poll"],
    tour: &["blocking", "spinning"],
    smallest: "client-blocks",
    allowed: Allowed::Words,
};

const CPUS: Axis = Axis {
    name: "cpus",
    meaning: "one: both ends share a CPU (ends that sleep only); two: a CPU each",
    full: &["two", "one"],
    tour: &["two", "one"],
    smallest: "two",
    allowed: Allowed::Words,
};

/// The value of [`ENDS`] for the yardstick, which has no network between its ends.
const NO_NETWORK: &str = "no-network";

const BLOCKING: &str = "udp-blocking";
const SPINNING: &str = "udp-spin";
const BUSY_POLL: &str = "udp-busy-poll";

const FRAME_BYTES: usize = 64;
const TIMEOUT: Duration = Duration::from_millis(500);
/// Some hundred round trips even where each of them wakes two CPUs of a virtual machine (50 µs).
const TRIAL_MIN: Duration = Duration::from_millis(40);

/// What is measured in a round.
#[derive(Clone, Copy, Debug)]
enum What {
    RoundTrip {
        ends: &'static str,
        client: &'static BackEnd,
        server: &'static BackEnd,
        twin: bool,
    },
    BareWakeup,
}

impl Experiment for WakeupModel {
    fn id(&self) -> &'static str {
        "wakeup-model"
    }

    fn title(&self) -> &'static str {
        "What waking up costs"
    }

    fn question(&self) -> &'static str {
        "How much of a round trip is waking up, and is it a sum: the stack, plus one wake-up for each end that sleeps?"
    }

    fn how(&self) -> &'static str {
        "One UDP request and its reply, 64 bytes, ping-pong. Either end blocks or spins by itself, on two CPUs; on one CPU \
         both block or busy-poll (spinning there would measure the scheduler's time slice). In the same rounds two threads \
         on the same CPUs wake each other through eventfds, with no network between them (back end eventfd): the floor of \
         two wake-ups. Between two machines both are left out, CPUs in common and eventfds. Both ends blocking on two CPUs is measured twice a round for the noise floor. Between namespaces a \
         veth pair carries the frames: there is no NIC, no interrupt and no wire in these figures."
    }

    fn axes(&self) -> &'static [Axis] {
        &[ENDS, CPUS]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![BLOCKING, BUSY_POLL, SPINNING]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.8
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let arms = arms(self, lab);
        let plan = lab.plan(arms.len(), TRIAL_MIN);
        lab.in_rounds(&arms, plan.rounds_count, |lab, turn| {
            let (cpus, what) = *turn.arm;
            let (ends, twin) = match what {
                What::RoundTrip { ends, twin, .. } => (ends, twin),
                What::BareWakeup => (NO_NETWORK, false),
            };
            let cpus_name = if cpus == Cpus::One { "one" } else { "two" };
            lab.progress
                .set_message(format!("{ends}, CPUs: {cpus_name}, round {}", turn.round + 1));
            let position = Position {
                experiment: self.id(),
                axis: BTreeMap::from([
                    (ENDS.name.to_owned(), ends.to_owned()),
                    (CPUS.name.to_owned(), cpus_name.to_owned()),
                ]),
                round: turn.round,
                twin,
                seed: lab.choice.seed,
            };
            let client_id = turn.number;
            lab.record_until_valid(|lab| match what {
                What::BareWakeup => bare_wakeup::measure(lab, cpus, plan.trial, position.clone()),
                What::RoundTrip { client, server, .. } => {
                    let trial = Trial {
                        backend: server,
                        client_backend: Some(client),
                        frame_bytes: FRAME_BYTES,
                        cpus,
                        load: Load::Closed { duration: plan.trial },
                        timeout: TIMEOUT,
                        stall: None,
                        service_spin: Duration::ZERO,
                        room: Room { frames_count: 64 },
                        overflow_is_measured: false,
                    };
                    let mut row = trial::run(lab, &trial, client_id)?.into_row(&trial, position.clone());
                    row.facts.insert("client_backend".to_owned(), client.name.to_owned());
                    Ok(row)
                }
            })
        })
    }
}

/// Everything that a round measures: the round trips whose two ends are here, and beside them the yardstick.
fn arms(experiment: &WakeupModel, lab: &Lab<'_>) -> Vec<(Cpus, What)> {
    let here = lab.backends(experiment);
    let find = |name: &str| here.iter().copied().find(|backend| backend.name == name);
    let mut arms = Vec::new();
    // Two machines have no CPU in common, and a bare wake-up does not reach from one to the other.
    let is_wire = lab.place.agent().is_some();
    for cpus_name in lab.values(&CPUS) {
        let cpus = if cpus_name == "one" { Cpus::One } else { Cpus::Two };
        if cpus == Cpus::One && is_wire {
            lab.say("cpus=one is left out: two machines have no CPU in common");
            continue;
        }
        for ends in lab.values(&ENDS) {
            let Some((ends, client, server)) = ends_of(&ends) else {
                continue;
            };
            let (Some(client), Some(server)) = (find(client), find(server)) else {
                continue;
            };
            if cpus == Cpus::One && !(client.sleeps() && server.sleeps()) {
                continue;
            }
            let arm = |twin| What::RoundTrip {
                ends,
                client,
                server,
                twin,
            };
            arms.push((cpus, arm(false)));
            if (cpus, ends) == (Cpus::Two, "blocking") {
                arms.push((cpus, arm(true)));
            }
        }
        if !is_wire {
            arms.push((cpus, What::BareWakeup));
        }
    }
    arms
}

/// A value of [`ENDS`], with the back ends of the client and of the server.
fn ends_of(value: &str) -> Option<(&'static str, &'static str, &'static str)> {
    let known = [
        ("blocking", BLOCKING, BLOCKING),
        ("client-blocks", BLOCKING, SPINNING),
        ("server-blocks", SPINNING, BLOCKING),
        ("spinning", SPINNING, SPINNING),
        ("busy-poll", BUSY_POLL, BUSY_POLL),
    ];
    known.into_iter().find(|(ends, ..)| *ends == value)
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "wakeup-additive",
        sentence: "Wake-ups add up: with a CPU for each end, what both ends' sleeping costs is within 25 % of what the \
                   client's alone and the server's alone cost together",
        source: Source::Ours {
            seen: "the model behind every statement of the form \"the wake-up costs x µs\": it has a meaning only if it \
                   does not depend on what the other end does",
        },
        invariant: "(both block − both spin) ÷ ((client blocks − both spin) + (server blocks − both spin)), medians of one \
                    round, is from 0.75 to 1.25. The four arms differ in nothing but who sleeps. The whole interval \
                    decides. Needs a CPU for each end.",
        judge: wakeup_additive,
    },
    Claim {
        id: "wakeups-outweigh-stack",
        sentence: "With a CPU for each end, the two wake-ups of a blocking round trip cost more than the whole path \
                   through both network stacks: its RTT is at least twice that of spinning ends",
        source: Source::Ours {
            seen: "rtt-ladder on virtual machines, where a CPU that sleeps is woken by way of the hypervisor",
        },
        invariant: "Median of both blocking ÷ median of both spinning, paired by round, is at least 2: what is more than \
                    the spinning round trip is more than it. Over veth the stack's path has no driver and no interrupt; \
                    over a NIC it is longer, and this claim has to be judged there again.",
        judge: wakeups_outweigh_stack,
    },
    Claim {
        id: "one-cpu-is-path-length",
        sentence: "Blocking ends that share one CPU have a shorter round trip than blocking ends with a CPU each, where \
                   an idle CPU must be woken",
        source: Source::Ours {
            seen: "a switch to a thread that is ready on this CPU costs no interrupt and no leaving of an idle state",
        },
        invariant: "Median of both blocking on one CPU ÷ median of both blocking on two, paired by round, is at most 1. \
                    Same sockets, same frames; only where the two ends run differs.",
        judge: one_cpu_is_path_length,
    },
];

const fn on_two(ends: &'static str) -> [(&'static str, &'static str); 2] {
    [("ends", ends), ("cpus", "two")]
}

const BOTH_BLOCK: &[(&str, &str)] = &on_two("blocking");
const CLIENT_BLOCKS: &[(&str, &str)] = &on_two("client-blocks");
const SERVER_BLOCKS: &[(&str, &str)] = &on_two("server-blocks");
const BOTH_SPIN: &[(&str, &str)] = &on_two("spinning");
const BARE: &[(&str, &str)] = &on_two(NO_NETWORK);
const BOTH_BLOCK_ON_ONE: &[(&str, &str)] = &[("ends", "blocking"), ("cpus", "one")];

fn p50(row: &Row) -> Option<f64> {
    latency_ns(0.5)(row)
}

const ONE_CPU_ONLY: &str = "both ends share a CPU on this machine; ends that spin, and wake-ups across CPUs, need two";

fn wakeup_additive(table: &Table) -> Judgement {
    if !judge::two_cpus(table) {
        return Judgement::not_measured(ONE_CPU_ONLY);
    }
    // Rows carry the server's back end.
    let arms = [
        Arm::of(BLOCKING, BOTH_BLOCK),
        Arm::of(SPINNING, CLIENT_BLOCKS),
        Arm::of(BLOCKING, SERVER_BLOCKS),
        Arm::of(SPINNING, BOTH_SPIN),
    ];
    let [both, client, server, none] = table.aligned(arms, p50);
    if both.len() < ROUNDS_MIN {
        let fewest = arms.into_iter().min_by_key(|arm| table.arm(*arm).len());
        return table.lacking(fewest.unwrap_or(arms[0]));
    }
    let per_round = |cost: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..both.len()).map(cost).collect() };
    let together = per_round(&|round| both[round] - none[round]);
    let apart = per_round(&|round| client[round] - none[round] + server[round] - none[round]);
    let what = "wake-ups of both ends ÷ those of each end alone, added";
    let mut judgement = judge::ratio_of(table, what, (&together, &apart), Bound::Within(0.75, 1.25));
    for (name, values) in [
        ("both ends' sleeping", per_round(&|round| both[round] - none[round])),
        ("the client's alone", per_round(&|round| client[round] - none[round])),
        ("the server's alone", per_round(&|round| server[round] - none[round])),
    ] {
        judgement.measured.push(median_ns(name, values));
    }
    judgement
}

fn wakeups_outweigh_stack(table: &Table) -> Judgement {
    if !judge::two_cpus(table) {
        return Judgement::not_measured(ONE_CPU_ONLY);
    }
    let mut judgement = judge::ratio(
        table,
        "p50 of both blocking ÷ p50 of both spinning",
        (Arm::of(BLOCKING, BOTH_BLOCK), Arm::of(SPINNING, BOTH_SPIN)),
        p50,
        Bound::AtLeast(2.0),
    );
    let [bare] = table.aligned([Arm::of(bare_wakeup::NAME, BARE)], p50);
    if !bare.is_empty() {
        judgement.measured.push(median_ns(
            "two wake-ups without a network (eventfd), for comparison",
            bare,
        ));
    }
    judgement
}

fn one_cpu_is_path_length(table: &Table) -> Judgement {
    if !judge::two_cpus(table) {
        return Judgement::not_measured(ONE_CPU_ONLY);
    }
    judge::ratio(
        table,
        "p50 of both blocking on one CPU ÷ on two",
        (Arm::of(BLOCKING, BOTH_BLOCK_ON_ONE), Arm::of(BLOCKING, BOTH_BLOCK)),
        p50,
        Bound::AtMost(1.0),
    )
}

/// The median over rounds, as a figure beside the decisive one.
fn median_ns(name: &str, mut values: Vec<f64>) -> crate::record::Measured {
    values.sort_by(f64::total_cmp);
    let samples_count = values.len() as u64;
    measured(name, values.get(values.len() / 2).copied(), "ns", "", samples_count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backends,
        measure::{QUANTILES, Recorder},
        record::{ModeRecord, Outcome, Validity},
    };

    /// A row whose every round trip takes about `rtt_ns`.
    fn row(backend: &str, ends: &str, cpus: &str, round: u32, rtt_ns: u64) -> Row {
        let mut latency = Recorder::new();
        (0..1000).for_each(|_| latency.record(rtt_ns + u64::from(round) * 10));
        let server_cpu = if cpus == "one" { "0" } else { "1" };
        Row {
            experiment: WakeupModel.id().to_owned(),
            backend: backend.to_owned(),
            mode: ModeRecord::Native,
            axis: BTreeMap::from([
                ("ends".to_owned(), ends.to_owned()),
                ("cpus".to_owned(), cpus.to_owned()),
            ]),
            round,
            twin: false,
            seed: 1,
            at_s: 0.0,
            elapsed_s: 0.1,
            latency: Some(latency.distribution(&QUANTILES)),
            service: None,
            schedule_lag: None,
            metrics: BTreeMap::new(),
            series: Vec::new(),
            facts: BTreeMap::from([
                ("client_cpu".to_owned(), "0".to_owned()),
                ("server_cpu".to_owned(), server_cpu.to_owned()),
            ]),
            validity: Validity::Valid,
        }
    }

    /// Eight rounds: both block, the client, the server, nobody; and both block on one CPU.
    fn table(rtts_ns: [u64; 5]) -> Table {
        let [both, client, server, none, one] = rtts_ns;
        let rows = (0..8).flat_map(|round| {
            [
                row(BLOCKING, "blocking", "two", round, both),
                row(SPINNING, "client-blocks", "two", round, client),
                row(BLOCKING, "server-blocks", "two", round, server),
                row(SPINNING, "spinning", "two", round, none),
                row(BLOCKING, "blocking", "one", round, one),
                row(bare_wakeup::NAME, NO_NETWORK, "two", round, 30_000),
            ]
        });
        Table {
            rows: rows.collect(),
            seed: 1,
        }
    }

    #[test]
    fn wake_ups_that_add_up_and_outweigh_the_stack() {
        let table = table([46_000, 26_000, 26_000, 6_000, 11_000]);
        for judge in [wakeup_additive, wakeups_outweigh_stack, one_cpu_is_path_length] {
            let judgement = judge(&table);
            assert_eq!(judgement.outcome, Outcome::Holds, "{:?}", judgement.measured);
        }
        let additive = wakeup_additive(&table);
        assert!(
            (additive.measured[0].value.expect("a ratio") - 1.0).abs() < 0.01,
            "{additive:?}"
        );
        let stack = wakeups_outweigh_stack(&table);
        assert_eq!(stack.measured.len(), 2, "the yardstick stands beside it: {stack:?}");
    }

    #[test]
    fn wake_ups_that_hide_each_other_and_a_long_stack() {
        // Both sleeping costs hardly more than one sleeping: 12 against 10 + 10.
        let table = table([32_000, 30_000, 30_000, 20_000, 40_000]);
        for judge in [wakeup_additive, wakeups_outweigh_stack, one_cpu_is_path_length] {
            let judgement = judge(&table);
            assert_eq!(judgement.outcome, Outcome::Fails, "{:?}", judgement.measured);
        }
    }

    #[test]
    fn sleeping_that_costs_nothing_has_no_ratio() {
        let table = table([20_000, 19_900, 19_900, 20_000, 20_000]);
        let judgement = wakeup_additive(&table);
        assert!(
            matches!(judgement.outcome, Outcome::Inconclusive { .. }),
            "{judgement:?}"
        );
    }

    #[test]
    fn without_the_rows_nothing_is_judged() {
        let mut table = table([46_000, 26_000, 26_000, 6_000, 11_000]);
        table.rows.retain(|row| row.axis["ends"] == "blocking");
        for judge in [wakeup_additive, wakeups_outweigh_stack] {
            assert!(matches!(judge(&table).outcome, Outcome::NotMeasured { .. }));
        }
        for row in &mut table.rows {
            row.facts.insert("server_cpu".to_owned(), "0".to_owned());
        }
        for judge in [wakeup_additive, wakeups_outweigh_stack, one_cpu_is_path_length] {
            let Outcome::NotMeasured { why } = judge(&table).outcome else {
                panic!("there is one CPU")
            };
            assert!(why.contains("share a CPU"), "{why}");
        }
        // The same number on another machine is another CPU.
        for row in &mut table.rows {
            row.facts
                .insert(crate::server::MACHINE.to_owned(), "the agent's".to_owned());
        }
        assert!(matches!(one_cpu_is_path_length(&table).outcome, Outcome::Holds));
    }

    #[test]
    fn every_value_of_the_axis_has_its_ends() {
        for value in ENDS.full {
            let (ends, client, server) = ends_of(value).expect("a pair of back ends");
            assert_eq!(ends, *value);
            assert!(backends::by_name(client).is_some() && backends::by_name(server).is_some());
        }
        assert_eq!(ends_of("asleep"), None);
    }
}
