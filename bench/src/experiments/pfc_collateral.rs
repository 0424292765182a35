//! `pfc-collateral`: what an incast does to flows that do not go to its receiver, where switches cut, drop, or pause.

mod run;

use std::collections::BTreeMap;

use dataplane_sim::SimTime;

use self::run::{DCTCP, DCTCP_PFC, LONG_FLOW, NDP, PERMUTATION, PFC_ALONE, Scene, Seen};
use super::{
    scenarios::{ARM, Demand, judge_all},
    virtual_time::{BACKEND, Happened, Simulated},
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    record::{Better, Row},
    table::Table,
};

const WORK: &str = "Handley et al., Re-architecting datacenter networks and stacks for low latency and high performance (NDP), \
                    SIGCOMM 2017";

const ARMS: Axis = Axis {
    name: ARM,
    meaning: "who sends, and whether switches cut payloads off, drop, or pause",
    full: &[NDP, DCTCP, DCTCP_PFC, PFC_ALONE],
    tour: &[NDP, DCTCP_PFC],
    smallest: NDP,
    allowed: Allowed::Words,
};

const BESIDE: Axis = Axis {
    name: "beside",
    meaning: "whose flows are looked at: one to the neighbour of the incast's receiver, or one from every host",
    full: &[LONG_FLOW, PERMUTATION],
    tour: &[LONG_FLOW],
    smallest: LONG_FLOW,
    allowed: Allowed::Words,
};

/// Of 64 hosts each, in bytes.
const ANSWER_BYTES: u64 = 900_000;

/// The experiment.
#[derive(Clone, Copy, Debug)]
pub struct PfcCollateral;

const VIRTUAL: &str = "Virtual time: a row follows from the seed alone, which draws senders and paths.";

static CLAIMS: &[Claim] = &[
    Claim {
        id: "pfc-collateral",
        sentence: "Where switches pause instead of dropping, a 64:1 incast takes the utilisation of a permutation beside it to 17 %",
        source: Source::Published {
            work: WORK,
            place: "figure 19; within a factor of two is ours, and so is DCTCP in the place of DCQCN",
        },
        invariant: VIRTUAL,
        judge: spreads,
    },
    Claim {
        id: "pfc-collateral-ndp",
        sentence: "With NDP a long flow to the neighbour of an incast's receiver is disturbed for less than a millisecond",
        source: Source::Published {
            work: WORK,
            place: "figure 19",
        },
        invariant: VIRTUAL,
        judge: ndp_recovers,
    },
];

const DURING: &str = "during_percent";
const BEFORE: &str = "before_percent";
const DIP: &str = "dip_ms";

fn value(table: &Table, arm: &str, beside: &str, name: &str) -> Option<f64> {
    let is = |row: &Row, axis: &str, wanted: &str| row.axis.get(axis).is_some_and(|value| value == wanted);
    let mut rows = table
        .valid()
        .filter(|row| row.backend == BACKEND && is(row, ARM, arm) && is(row, BESIDE.name, beside));
    rows.next()?.metrics.get(name).map(|metric| metric.value)
}

fn spreads(table: &Table) -> Judgement {
    let left = |arm: &str| {
        value(table, arm, PERMUTATION, DURING)
            .zip(value(table, arm, PERMUTATION, BEFORE))
            .map(|(during, before)| during / before)
    };
    judge_all(&[
        Demand {
            what: "utilisation of the permutation during the incast, DCTCP and pauses",
            value: value(table, DCTCP_PFC, PERMUTATION, DURING),
            unit: "%",
            limit: "8.5 to 34, within a factor of two of 17",
            meets: |percent| (8.5..=34.0).contains(&percent),
        },
        Demand {
            what: "of that before, DCTCP and drops (for comparison: no bound)",
            value: left(DCTCP),
            unit: "ratio",
            limit: "any",
            meets: |_| true,
        },
        Demand {
            what: "of that before, NDP",
            value: left(NDP),
            unit: "ratio",
            limit: "≥ 0.8",
            meets: |ratio| ratio >= 0.8,
        },
    ])
}

fn ndp_recovers(table: &Table) -> Judgement {
    judge_all(&[
        Demand {
            what: "time with less than half of the rate before, NDP",
            value: value(table, NDP, LONG_FLOW, DIP),
            unit: "ms",
            limit: "< 1",
            meets: |ms| ms < 1.0,
        },
        Demand {
            what: "the same, DCTCP and pauses (for comparison: no bound)",
            value: value(table, DCTCP_PFC, LONG_FLOW, DIP),
            unit: "ms",
            limit: "any",
            meets: |_| true,
        },
    ])
}

impl Experiment for PfcCollateral {
    fn id(&self) -> &'static str {
        "pfc-collateral"
    }

    fn title(&self) -> &'static str {
        "An incast's neighbours, with pauses and without"
    }

    fn question(&self) -> &'static str {
        "What does an incast do to flows that do not go to its receiver?"
    }

    fn how(&self) -> &'static str {
        "A FatTree of 128 hosts and 10 Gbit/s links of 1 µs, in virtual time, 9 KB packets. Endless flows run for 5 ms; then 64 hosts send \
         900 KB each to one host. What arrives of the endless flows is counted in steps of 0.1 ms. NDP: queues of 8 packets that cut payloads \
         off. DCTCP: marks from 30 packets on, in queues of 200 or in queues that pause at 4 packets of one link. Pauses alone: TCP that sees \
         neither marks nor losses, with a window of 1 MB."
    }

    fn axes(&self) -> &'static [Axis] {
        &[ARMS, BESIDE]
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

    fn is_virtual(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let (arms, besides) = (lab.values(&ARMS), lab.values(&BESIDE));
        lab.progress.set_length((arms.len() * besides.len()) as u64);
        let answer_bytes = match lab.choice.depth {
            Depth::Full | Depth::Tour => ANSWER_BYTES,
            Depth::Smallest => 90_000,
        };
        for beside in &besides {
            for arm in &arms {
                if lab.interrupted() {
                    return Ok(());
                }
                lab.progress.set_message(format!("{arm}, {beside}"));
                let scene = Scene::draw(beside, answer_bytes, lab.choice.seed)?;
                let Some(seen) = scene.run(arm, lab.stop)? else {
                    return Ok(());
                };
                let row = self.row(lab, arm, beside, &scene, &seen);
                lab.record(row)?;
                lab.progress.inc(1);
            }
        }
        Ok(())
    }
}

impl PfcCollateral {
    fn row(&self, lab: &Lab<'_>, arm: &str, beside: &str, scene: &Scene, seen: &Seen) -> Row {
        let axis = BTreeMap::from([
            (ARM.to_owned(), arm.to_owned()),
            (BESIDE.name.to_owned(), beside.to_owned()),
        ]);
        let what = Happened {
            elapsed: seen.ended,
            event_hash: seen.hash,
            events_count: seen.counters.events_count,
        };
        let mut row = Simulated::of(lab, self.id(), axis, lab.choice.seed, what);
        row.fact(
            "guarantee",
            "none is asked for: bytes are delivered once, or the flow is unfinished",
        );
        let shares = scene.shares(seen);
        row.put(BEFORE, shares.before_percent, "%", Better::Higher);
        row.put(DURING, shares.during_percent, "%", Better::Higher);
        row.put("least_percent", shares.least_percent, "%", Better::Higher);
        row.put(DIP, shares.dip_ms, "ms", Better::Lower);
        let ms = |span: SimTime| span.as_ps() as f64 / 1e9;
        if let Some(incast) = seen.incast_took {
            row.put("incast_ms", ms(incast), "ms", Better::Lower);
        }
        let counts = [
            ("drops", seen.counters.drops.count()),
            ("trims", seen.counters.trims_count),
            ("pauses", seen.counters.pauses_count),
        ];
        for (name, count) in counts {
            row.put(name, count as f64, "count", Better::Lower);
        }
        row.into_row()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        experiments::{scenarios::testing::HandWritten, virtual_time::row_of},
        record::Outcome,
    };

    fn table(rows: &[HandWritten<'_>]) -> Table {
        let row = |(arm, beside, metrics): &HandWritten<'_>| row_of(&[(ARM, arm), (BESIDE.name, beside)], metrics);
        Table {
            rows: rows.iter().map(row).collect(),
            seed: 1,
        }
    }

    #[test]
    fn claims_hold_fail_and_are_not_measured() {
        let rows = |pfc: f64, dip: f64| {
            let share = |before: f64, during: f64| [(BEFORE, before), (DURING, during)];
            table(&[
                (NDP, PERMUTATION, &share(95.0, 90.0)),
                (DCTCP, PERMUTATION, &share(50.0, 45.0)),
                (DCTCP_PFC, PERMUTATION, &share(50.0, pfc)),
                (NDP, LONG_FLOW, &[(DIP, dip)]),
                (DCTCP_PFC, LONG_FLOW, &[(DIP, 30.0)]),
            ])
        };
        assert_eq!(spreads(&rows(17.0, 0.2)).outcome, Outcome::Holds);
        assert_eq!(spreads(&rows(45.0, 0.2)).outcome, Outcome::Fails);
        assert_eq!(ndp_recovers(&rows(17.0, 0.2)).outcome, Outcome::Holds);
        assert_eq!(ndp_recovers(&rows(17.0, 3.0)).outcome, Outcome::Fails);
        assert!(matches!(
            spreads(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }
}
