//! The claims over rows written by hand.

use std::collections::BTreeMap;

use super::*;
use crate::{
    place::VETH_CAVEAT,
    record::{ModeRecord, Validity},
};

/// A row of `backend` into the sink of all senders that costs so many seconds of CPU time a million.
fn row(backend: &str, round: u32, cpu_s: f64) -> Row {
    let axis = SMALL
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let metric = |value| Metric {
        value,
        unit: String::new(),
        better: Better::Neither,
    };
    Row {
        experiment: "packet-rate".to_owned(),
        backend: backend.to_owned(),
        mode: ModeRecord::Native,
        axis: axis.collect(),
        round,
        twin: false,
        seed: 1,
        at_s: 0.0,
        elapsed_s: 1.0,
        latency: None,
        service: None,
        schedule_lag: None,
        metrics: BTreeMap::from([
            (SENDER_CPU.to_owned(), metric(cpu_s)),
            (UNEXPLAINED.to_owned(), metric(0.0)),
            ("duplicates".to_owned(), metric(0.0)),
            ("sent".to_owned(), metric(1000.0)),
        ]),
        series: Vec::new(),
        facts: BTreeMap::from([("caveat".to_owned(), VETH_CAVEAT.to_owned())]),
        validity: Validity::Valid,
    }
}

/// Six rounds in which one call a frame costs 4 s a million, and sendmmsg `mmsg_cpu_s`.
fn table(mmsg_cpu_s: f64) -> Table {
    let rows = (0..6).flat_map(|round| {
        let mood = 1.0 + f64::from(round) / 100.0;
        [
            row("udp-spin", round, 4.0 * mood),
            row("udp-mmsg", round, mmsg_cpu_s * mood),
        ]
    });
    Table {
        rows: rows.collect(),
        seed: 1,
    }
}

#[test]
fn sendmmsg_below_twice_holds_and_above_fails() {
    let holds = mmsg_saves_calls_not_stack(&table(3.0));
    assert_eq!(holds.outcome, Outcome::Holds);
    let ratio = holds.measured[0].value.expect("a ratio");
    assert!((ratio - 4.0 / 3.0).abs() < 1e-9, "{ratio}");
    assert_eq!(mmsg_saves_calls_not_stack(&table(1.0)).outcome, Outcome::Fails);
}

#[test]
fn sendmmsg_is_not_judged_where_nothing_crossed_a_veth() {
    let mut loopback = table(3.0);
    loopback.rows.iter_mut().for_each(|row| row.facts.clear());
    for table in [loopback, Table::default()] {
        let judgement = mmsg_saves_calls_not_stack(&table);
        assert!(
            matches!(judgement.outcome, Outcome::NotMeasured { .. }),
            "{judgement:?}"
        );
    }
}

#[test]
fn one_frame_that_vanished_anywhere_fails_the_account() {
    let mut table = table(3.0);
    assert_eq!(every_frame_accounted(&table).outcome, Outcome::Holds);
    // Also in a row that may not be judged, and not made up for by one too many elsewhere.
    table.rows[3].validity = Validity::Invalid {
        reasons: vec!["stolen".to_owned()],
    };
    for (index, unexplained) in [(3, 1.0), (4, -1.0)] {
        table.rows[index].metrics.get_mut(UNEXPLAINED).expect("a metric").value = unexplained;
    }
    let judgement = every_frame_accounted(&table);
    assert_eq!(judgement.outcome, Outcome::Fails);
    assert_eq!(judgement.measured[0].value, Some(2.0));
    assert!(matches!(
        every_frame_accounted(&Table::default()).outcome,
        Outcome::NotMeasured { .. }
    ));
}

#[test]
fn af_xdp_without_af_xdp_is_not_measured() {
    let judgement = afxdp_tx_per_cpu(&table(3.0));
    assert!(
        matches!(judgement.outcome, Outcome::NotMeasured { .. }),
        "{judgement:?}"
    );
}
