//! Flows over the simulated network: nothing is lost from the count, and the same seed is the same run.

use std::sync::atomic::AtomicBool;

use dataplane_sim::{
    SimTime,
    packet::{Computing, Grouping},
};

use super::*;
use crate::scenario::{file::ScenarioFile, flow_list::FlowList};

static NEVER: AtomicBool = AtomicBool::new(false);

fn parse(text: &str) -> ScenarioFile {
    ScenarioFile::parse("test", text).unwrap_or_else(|problem| panic!("{problem}"))
}

fn incast(servers: u32, rest: &str) -> ScenarioFile {
    parse(&format!(
        r#"
        name = "test"
        title = "test"
        horizon = "60 s"
        topology = {{ kind = "star", hosts = 9, rate = "1 Gbit/s", delay = "20 us" }}
        tcp = {{ rto_min = "10 ms", ack_delay = "1 ms", initial_window = 2 }}
        [[load]]
        kind = "incast"
        servers = {servers}
        bytes = "100 KB"
        rounds = 3
        {rest}
        "#
    ))
}

#[test]
fn every_answer_arrives_whole_and_no_faster_than_the_wire() {
    for servers in [1, 8, 40] {
        let file = incast(servers, "");
        let setup = points(&file)[0].setup(7).expect("a setup");
        let outcome = setup.run(&NEVER);
        assert_eq!((outcome.rounds.len(), outcome.unfinished_count), (3, 0));
        assert_eq!(outcome.answered_bytes, u64::from(servers) * 3 * 100_000);
        let wire_mbit_per_sec = 1_000.0 * 1_448.0 / 1_526.0;
        let goodput = outcome.metric("goodput_mbit_per_sec").expect("answers");
        assert!(
            goodput > 10.0 && goodput <= wire_mbit_per_sec,
            "{goodput} Mbit/s from {servers}"
        );
    }
}

/// The same incast over whoever carries it: all arrives, no sooner than the wire allows, and the same way again.
#[test]
fn scenarios_name_their_transport() {
    let run = |transport: &str, queue: &str| {
        let file = parse(&format!(
            r#"
            name = "test"
            title = "test"
            horizon = "1 s"
            transport = "{transport}"
            topology = {{ kind = "star", hosts = 9, rate = "10 Gbit/s", delay = "1 us" }}
            switch.queue.kind = "{queue}"
            switch.queue.limit = "1000 packets"
            ndp = {{ payload = "1436 B", initial_window = 10 }}
            [[load]]
            kind = "incast"
            servers = 8
            bytes = "100 KB"
            jitter = "1 us"
            [[load]]
            kind = "flows"
            list = [{{ from = 1, to = 2, bytes = "10 KB" }}]
            "#
        ));
        let point = points(&file)[0];
        let setup = point.setup(7).expect("a topology that can be");
        let outcome = point.run(&setup, &mut Observer::default(), &NEVER);
        assert_eq!(outcome.unfinished_count, 0, "{transport}");
        assert_eq!((outcome.rounds.len(), outcome.completions.len()), (1, 1), "{transport}");
        // 800 KB at 10 Gbit/s.
        let ms = outcome.metric("query_ms_mean").expect("a query");
        assert!((0.64..5.0).contains(&ms), "{ms} ms with {transport}");
        assert_eq!(outcome.answered_bytes, 810_000);
        outcome.hash
    };
    for (transport, queue) in [("tcp", "drop-tail"), ("ndp", "trimming"), ("homa", "priority")] {
        assert_eq!(run(transport, queue), run(transport, queue));
    }
}

#[test]
fn fresh_connections_begin_with_their_initial_window() {
    let took = |rest: &str| {
        let file = incast(1, rest);
        let rounds = points(&file)[0].setup(7).expect("a setup").run(&NEVER).rounds_ns();
        assert_eq!(rounds.len(), 3);
        rounds[2]
    };
    assert!(
        took("fresh = true") > took(""),
        "a window that has grown needs fewer round trips"
    );
}

#[test]
fn a_timeout_is_counted_in_the_round_that_it_fell_into() {
    let file = incast(40, "");
    let outcome = points(&file)[0].setup(7).expect("a setup").run(&NEVER);
    assert!(outcome.timeouts_count > 0, "40 answers do not fit into 100 packets");
    let slow = outcome
        .rounds_ns()
        .iter()
        .map(|ns| *ns > 30_000_000 + 10_000_000)
        .collect::<Vec<_>>();
    for (is_slow, timed_out) in slow.iter().zip(&outcome.timed_out) {
        assert!(
            !is_slow || *timed_out,
            "{:?} and {:?}",
            outcome.rounds_ns(),
            outcome.timed_out
        );
    }
}

#[test]
fn long_flows_share_a_link_and_are_measured_after_they_have_begun() {
    let file = parse(
        r#"
        name = "test"
        title = "test"
        horizon = "500 ms"
        topology = { kind = "dumbbell", left = 2, right = 2, rate = "10 Gbit/s", core_rate = "1 Gbit/s", delay = "20 us" }
        switch = { queue = { mark_at = "20 packets" } }
        tcp = { controller = "dctcp" }
        load = [{ kind = "long", from = 0, to = 2, flows = 2 }]
        "#,
    );
    let outcome = points(&file)[0].setup(1).expect("a setup").run(&NEVER);
    let goodput = outcome.metric("long_goodput_mbit_per_sec").expect("flows");
    assert!((900.0..950.0).contains(&goodput), "{goodput} Mbit/s");
    assert!(
        outcome
            .metric("fairness")
            .is_some_and(|jain| (0.5..=1.0).contains(&jain))
    );
}

/// The flows that are varied come first, and those beside them do not grow with them.
#[test]
fn only_the_first_load_of_long_flows_is_varied() {
    let file = parse(
        r#"
        name = "test"
        title = "test"
        horizon = "2 s"
        topology = { kind = "dumbbell", left = 1, right = 1, rate = "1 Gbit/s", core_rate = "100 Mbit/s", delay = "1 ms" }
        tcp = { rto_min = "200 ms" }
        load = [
            { kind = "long", from = 0, to = 1, flows = 1 },
            { kind = "long", from = 0, to = 1, flows = 1, start = "1900 ms", tcp = { controller = "bbr1" } },
        ]
        vary = { what = "flows", values = [3] }
        "#,
    );
    let outcome = points(&file)[0].setup(1).expect("a setup").run(&NEVER);
    let shares = &outcome.endless_bytes_per_sec;
    assert_eq!(shares.len(), 4);
    // The last one has a tenth of a second of 1.6.
    let last = outcome.metric("long_last_mbit_per_sec").expect("several flows");
    assert!(
        shares[..3].iter().all(|share| share * 8.0 / 1e6 > last) && last > 0.0,
        "{shares:?}"
    );
    let windows = &outcome.windows;
    assert!(windows.len() >= 1_999 && windows.iter().all(|sample| sample.window_bytes > 0));
}

#[test]
fn equal_flows_converge() {
    let file = parse(
        r#"
        name = "test"
        title = "test"
        horizon = "10 s"
        topology = { kind = "dumbbell", left = 1, right = 1, rate = "1 Gbit/s", core_rate = "50 Mbit/s", delay = "1 ms" }
        tcp = { rto_min = "200 ms" }
        load = [{ kind = "long", from = 0, to = 1, flows = 2, stagger = "2 s" }]
        "#,
    );
    let outcome = points(&file)[0].setup(1).expect("a setup").run(&NEVER);
    let ms = outcome.metric("converged_ms").expect("shares that become equal");
    assert!((200.0..8_000.0).contains(&ms), "{ms} ms");
}

#[test]
fn threads_groups_and_repetition_change_nothing() {
    let file = parse(
        r#"
        name = "test"
        title = "test"
        horizon = "1 s"
        topology = { kind = "fat-tree", k = 4, rate = "1 Gbit/s", delay = "5 us" }
        tcp = { rto_min = "1 ms" }
        load = [{ kind = "permutation", bytes = "200 KB" }]
        "#,
    );
    let setup = points(&file)[0].setup(3).expect("a setup");
    let run = |threads_count, grouping| {
        let outcome = setup.run_with(
            Computing {
                threads_count,
                grouping,
            },
            SimTime::ZERO,
            &NEVER,
        );
        assert_eq!((outcome.completions.len(), outcome.unfinished_count), (16, 0));
        (outcome.hash, outcome.completions.clone())
    };
    let one = run(1, Grouping::One);
    for (threads, grouping) in [(1, Grouping::One), (1, Grouping::ByTopology), (2, Grouping::ByTopology)] {
        assert_eq!(run(threads, grouping), one, "{threads} threads, {grouping:?}");
    }
    let other = points(&file)[0].setup(4).expect("a setup").run(&NEVER);
    assert_ne!(other.hash, one.0, "another seed is another run");
}

/// A tenth of the packets vanishes on each cable, questions among them, and every answer comes all the same.
#[test]
fn a_lost_question_is_asked_again() {
    let file = parse(
        r#"
        name = "test"
        title = "test"
        horizon = "600 s"
        topology = { kind = "star", hosts = 3, rate = "1 Gbit/s", delay = "20 us", loss_ratio = 0.1 }
        tcp = { rto_min = "1 ms" }
        load = [{ kind = "incast", servers = 2, bytes = "3 KB", rounds = 50 }]
        "#,
    );
    let outcome = points(&file)[0].setup(5).expect("a setup").run(&NEVER);
    assert_eq!((outcome.rounds.len(), outcome.unfinished_count), (50, 0));
    assert_eq!(outcome.answered_bytes, 50 * 2 * 3_000);
}

/// What the estimate of a scenario's memory assumes.
#[test]
fn an_idle_flow_takes_less_than_was_assumed() {
    let both = size_of::<dataplane_transports::Sender<dataplane_transports::AnyController>>()
        + size_of::<dataplane_transports::Receiver>()
        + 2 * size_of::<Flow>()
        + 32;
    assert!(both <= 2_048, "{both} bytes");
}

/// Loads of every kind, some with a TCP of their own: their list gives the same run, to the last event.
#[test]
fn an_exported_list_gives_the_same_run() {
    let file = parse(
        r#"
        name = "test"
        title = "test"
        horizon = "200 ms"
        topology = { kind = "star", hosts = 9, rate = "1 Gbit/s", delay = "20 us" }
        tcp = { rto_min = "10 ms" }
        load = [
            { kind = "flows", list = [{ from = 1, to = 2, bytes = "50 KB", start = "1.5 us" }], tcp = { controller = "cubic" } },
            { kind = "incast", servers = 12, bytes = "20 KB", rounds = 3, fresh = true, pause = "1 ms", jitter = "10 us" },
            { kind = "long", from = 4, to = 5, flows = 2, stagger = "3 ms", tcp = { controller = "dctcp" } },
            { kind = "all-to-all", bytes = "3 KB", rounds = 2, start = "5 ms", request = "300 B" },
            { kind = "permutation", bytes = "10 KB" },
        ]
        vary = { what = "servers", values = [5, 40] }
        "#,
    );
    for point in points(&file) {
        let setup = point.setup(7).expect("a setup");
        let list = point.flow_list(&setup);
        let text = list.to_csv(&["of a test".to_owned()]);
        let mut again = file.clone();
        let read = FlowList::parse("flows.csv", &text).unwrap_or_else(|problem| panic!("{problem}"));
        again.take_list(read).expect("a list for this network");
        let imported = points(&again)[0].setup(7).expect("a setup");
        assert_eq!(imported.flows, setup.flows);
        assert_eq!(imported.queries, setup.queries);
        let (before, after) = (setup.run(&NEVER), imported.run(&NEVER));
        assert_eq!(
            (before.hash, before.ended),
            (after.hash, after.ended),
            "{}",
            point.name()
        );
        assert!(before.rounds.len() > 6);
    }
}

/// Who looks changes nothing, and sees the same queue as the run's own metrics.
#[test]
fn an_observed_run_is_the_same_run() {
    for load in [
        "{ kind = \"long\", from = 1, to = 0, flows = 3 }",
        "{ kind = \"incast\", servers = 6, bytes = \"50 KB\", rounds = 2 }",
    ] {
        let file = parse(&format!(
            r#"
            name = "test"
            title = "test"
            horizon = "300 ms"
            topology = {{ kind = "star", hosts = 4, rate = "100 Mbit/s", delay = "50 us" }}
            tcp = {{ rto_min = "10 ms" }}
            load = [{load}]
            "#
        ));
        let setup = points(&file)[0].setup(3).expect("a setup");
        let alone = setup.run(&NEVER);
        let mut observer = Observer::every(SimTime::from_us(130));
        let seen = setup.run_observed(&mut observer, &NEVER);
        assert_eq!((seen.hash, seen.ended), (alone.hash, alone.ended), "{load}");
        assert_eq!(seen.metrics(), alone.metrics(), "{load}");
        assert!(observer.depths.len() > 300, "{} looks", observer.depths.len());
        let most = observer.depths.iter().map(|sample| sample.packets_count).max();
        assert!(most > Some(10) && most <= Some(alone.queue_packets_max), "{most:?}");
        let flows: std::collections::BTreeSet<u32> = observer.flows.iter().map(|sample| sample.flow).collect();
        assert_eq!(flows.len(), setup.flows.len());
        assert!(
            observer
                .flows
                .iter()
                .any(|sample| sample.in_flight_bytes > 0 && sample.srtt_ns > 200_000)
        );
    }
}
