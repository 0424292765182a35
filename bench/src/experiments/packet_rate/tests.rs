//! The claims over rows written by hand, and rows of accounts written by hand.

use std::collections::BTreeMap;

use dataplane_waist::PortStats;

use super::{claims::*, *};
use crate::{
    account::{Between, Counted, Counters, Intake, TxDrop},
    load::{flood::FloodResult, thread::ThreadUsage},
    place::VETH_CAVEAT,
    record::{ModeRecord, Outcome, Validity},
    sink::SinkReport,
    table::Table,
    trial::one_way::Back,
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
fn what_was_measured_at_another_sink_is_not_called_unmeasured() {
    let mut elsewhere = table(3.0);
    for row in &mut elsewhere.rows {
        row.axis.insert(SINK.name.to_owned(), SAME.to_owned());
    }
    let because = |table: &Table| match mmsg_saves_calls_not_stack(table).outcome {
        Outcome::NotMeasured { why } => why,
        other => panic!("{other:?}"),
    };
    let why = because(&elsewhere);
    assert!(why.contains("sink=udp-mmsg"), "{why}");
    elsewhere.rows.retain(|row| row.backend != "udp-mmsg");
    let why = because(&elsewhere);
    assert!(!why.contains("sink="), "{why}");
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

/// An account of `sent` frames of which `received` came and `lost` ran into the receiving socket's full ring.
fn account(sent_count: u64, received_count: u64, lost_count: u64) -> (Account, SinkReport) {
    let sink = SinkReport {
        received_count,
        rx_dropped_count: lost_count,
        ..SinkReport::default()
    };
    let account = Account::of(&Counted {
        offered_count: sent_count,
        tx_dropped_count: 0,
        tx_drop: TxDrop::Lost,
        sender: &Counters::default(),
        at_sink: &Counters::default(),
        between: Between::Kernel,
        intake: Intake::Xsk,
        sink: &sink,
    });
    (account, sink)
}

fn metrics_of(there: (Account, SinkReport), back: Option<(Account, SinkReport)>) -> BTreeMap<String, f64> {
    let trial = OneWay {
        sender: backends::by_name(AF_XDP).expect("a back end"),
        sink: backends::sink_by_name("xdp-echo").expect("a sink"),
        frame_bytes: 64,
        rate_per_s: None,
        duration: TRIAL_MIN,
        room: Room { frames_count: 4096 },
    };
    let outcome = OneWayOutcome {
        flood: FloodResult {
            offered_count: there.0.sent_count,
            refused_count: 0,
            elapsed: TRIAL_MIN,
            usage: ThreadUsage::default(),
            port: PortStats::default(),
            interrupted: false,
        },
        sender_cpu: TRIAL_MIN,
        sender_waited: Duration::ZERO,
        softirq_cpu: None,
        napi_cpu: None,
        account: there.0,
        sink: there.1,
        back: back.map(|(account, replies)| Back { replies, account }),
        facts: BTreeMap::new(),
        validity: Validity::Valid,
        at_s: 0.0,
        mode: ModeRecord::Native,
    };
    let position = Position {
        experiment: "packet-rate",
        axis: BTreeMap::new(),
        round: 0,
        twin: false,
        seed: 1,
    };
    let metrics = super::row(&trial, outcome, position).metrics;
    metrics.into_iter().map(|(name, metric)| (name, metric.value)).collect()
}

#[test]
fn an_echo_has_losses_of_both_ways_by_name() {
    let metrics = metrics_of(account(100, 98, 2), Some(account(98, 95, 3)));
    for (name, value) in [
        ("sent", 100.0),
        ("reflected", 98.0),
        ("received", 95.0),
        ("lost_sink_overflow", 2.0),
        ("lost_reply_sink_overflow", 3.0),
        ("lost_ratio", 0.05),
        (UNEXPLAINED, 0.0),
    ] {
        assert_eq!(metrics.get(name), Some(&value), "{name}");
    }
}

#[test]
fn too_many_on_one_way_do_not_make_up_for_too_few_on_the_other() {
    let metrics = metrics_of(account(100, 97, 0), Some(account(97, 100, 0)));
    assert_eq!(metrics[UNEXPLAINED], 6.0);
    let one_way = metrics_of(account(100, 97, 2), None);
    assert_eq!((one_way[UNEXPLAINED], one_way["received"]), (1.0, 97.0));
    assert!(!one_way.contains_key("reflected"), "nothing is sent back");
}

#[test]
fn an_echo_is_paired_with_af_xdp_senders_of_its_mode_alone() {
    let pairs = |sender: &str, sink: &str| sink_of(backends::by_name(sender).expect("a back end"), sink).is_some();
    for (sender, sink, expected) in [
        ("udp-mmsg", "xdp-echo", true),
        ("udp-mmsg", "xdp-echo-generic", true),
        (AF_XDP, "xdp-echo", true),
        (AF_XDP, "xdp-echo-generic", false),
        ("af-xdp-generic", "xdp-echo-generic", true),
        ("af-xdp-generic", "xdp-echo", false),
        ("af-xdp-generic", "xdp-drop", true),
        ("shm", "xdp-echo", false),
    ] {
        assert_eq!(pairs(sender, sink), expected, "{sender} into {sink}");
    }
}

/// Six rounds of AF_XDP into `sink`, and of sendmmsg into a socket at 3 s a million.
fn with_af_xdp(sink: &str, sender_s: f64, thread_s: Option<f64>) -> Table {
    let mut table = table(3.0);
    for round in 0..6 {
        let mut row = row(AF_XDP, round, sender_s);
        row.axis.insert(SINK.name.to_owned(), sink.to_owned());
        if let Some(value) = thread_s {
            let (unit, better) = ("s".to_owned(), Better::Lower);
            row.metrics.insert(SINK_CPU.to_owned(), Metric { value, unit, better });
        }
        table.rows.push(row);
    }
    table
}

#[test]
fn the_threads_time_counts_as_the_senders() {
    let cheap = afxdp_tx_per_cpu(&with_af_xdp(SAME_CPU, 0.4, Some(0.4)));
    assert_eq!(cheap.outcome, Outcome::Holds, "{cheap:?}");
    let dear = afxdp_tx_per_cpu(&with_af_xdp(SAME_CPU, 0.4, Some(1.6)));
    assert_eq!(dear.outcome, Outcome::Fails, "{dear:?}");
    // Where the thread cannot be seen, the sender's time alone would flatter.
    let unseen = afxdp_tx_per_cpu(&with_af_xdp(SAME_CPU, 0.4, None));
    assert!(matches!(unseen.outcome, Outcome::NotMeasured { .. }), "{unseen:?}");
}
