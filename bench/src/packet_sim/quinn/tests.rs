//! quinn's flows over the simulated network: whole, no faster than the wire, the same again for the same seed, and nothing stays.

use std::sync::atomic::AtomicBool;

use dataplane_sim::{
    SimTime,
    packet::{Computing, Grouping, PacketSim},
};

use crate::{
    packet_sim::{Hosts, Outcome, Payloads, Setup, points},
    scenario::file::ScenarioFile,
};

static NEVER: AtomicBool = AtomicBool::new(false);

fn setup(controller: &str, load: &str, more: &str) -> Setup {
    let text = format!(
        r#"
        name = "test"
        title = "test"
        horizon = "3 s"
        topology = {{ kind = "dumbbell", left = 2, right = 2, rate = "1 Gbit/s", core_rate = "20 Mbit/s", delay = "5 us", core_delay = "10 ms", {more} }}
        tcp = {{ controller = "{controller}" }}
        load = [{load}]
        "#
    );
    let file = ScenarioFile::parse("test", &text).unwrap_or_else(|problem| panic!("{problem}"));
    points(&file)[0].setup(7).expect("a setup")
}

const LONG: &str = r#"{ kind = "long", from = 0, to = 2, flows = 2, stagger = "100 ms" }"#;
const FINITE: &str = r#"{ kind = "flows", list = [{ from = 0, to = 2, bytes = "1 MB" }, { from = 3, to = 1, bytes = "200 KB", start = "50 ms" }] }"#;

#[test]
fn finite_flows_arrive_whole_and_no_faster_than_handshake_and_wire() {
    for more in ["", "loss_ratio = 0.02"] {
        let outcome = setup("quinn-cubic", FINITE, more).run(&NEVER);
        assert_eq!((outcome.completions.len(), outcome.unfinished_count), (2, 0), "{more}");
        assert_eq!(outcome.answered_bytes, 1_200_000);
        // A round trip for the handshake, half a one for the data, and 1 MB over 20 Mbit/s.
        let least = SimTime::from_ms(30 + 400);
        assert!(outcome.ended_last > least, "{:?}", outcome.ended_last);
        assert!(more.is_empty() || outcome.counters.drops.wire_count > 0);
    }
}

#[test]
fn a_long_flow_fills_the_link_with_datagrams_of_the_discovered_length() {
    let setup = setup("quinn-cubic", r#"{ kind = "long", from = 0, to = 2, flows = 1 }"#, "");
    let outcome = setup.run(&NEVER);
    let goodput = outcome.metric("long_goodput_mbit_per_sec").expect("a flow");
    // 1,452 bytes of UDP payload in frames of 1,518 and 20 more on the wire.
    assert!((15.0..20.0 * 1_452.0 / 1_518.0).contains(&goodput), "{goodput} Mbit/s");
    let window = outcome.windows.last().expect("windows");
    assert!(
        window.window_bytes > 50_000 && window.srtt_ns > 20_000_000,
        "{window:?}"
    );
    let rtt_ms = outcome.metric("long_rtt_ms_p50").expect("round trips");
    // At most a full queue of 100 packets beside 20 ms of cable.
    assert!(
        (20.0..20.0 + 100.0 * 1_538.0 * 8.0 / 20e3 + 5.0).contains(&rtt_ms),
        "{rtt_ms} ms"
    );
}

/// Keys and TLS's numbers are drawn anew in each run; nothing that the network sees may depend on them.
#[test]
fn the_same_seed_is_the_same_run_and_another_is_another() {
    let key = |outcome: &Outcome| {
        (
            outcome.hash,
            outcome.ended,
            outcome.completions.clone(),
            outcome.segments_count,
        )
    };
    for controller in ["quinn-cubic", "quinn-newreno"] {
        for load in [FINITE, LONG] {
            let setup = setup(controller, load, "loss_ratio = 0.005");
            let first = setup.run(&NEVER);
            for _ in 0..3 {
                assert_eq!(key(&setup.run(&NEVER)), key(&first), "{controller}");
            }
            let other = Setup { seed: 8, ..setup };
            assert_ne!(other.run(&NEVER).hash, first.hash);
        }
    }
}

#[test]
fn threads_and_groups_change_nothing() {
    let text = r#"
        name = "test"
        title = "test"
        horizon = "1 s"
        topology = { kind = "fat-tree", k = 4, rate = "100 Mbit/s", delay = "50 us" }
        tcp = { controller = "quinn-newreno" }
        load = [{ kind = "permutation", bytes = "100 KB" }]
    "#;
    let file = ScenarioFile::parse("test", text).unwrap_or_else(|problem| panic!("{problem}"));
    let setup = points(&file)[0].setup(3).expect("a setup");
    let run = |threads_count, grouping| {
        let computing = Computing {
            threads_count,
            grouping,
        };
        let outcome = setup.run_with(computing, SimTime::ZERO, &NEVER);
        assert_eq!((outcome.completions.len(), outcome.unfinished_count), (16, 0));
        outcome.hash
    };
    let one = run(1, Grouping::One);
    assert_eq!(run(1, Grouping::ByTopology), one);
    assert_eq!(run(2, Grouping::ByTopology), one);
}

/// Marks reach quinn, and its answer comes back: a queue that marks stays short and loses nothing.
#[test]
fn marks_are_passed_both_ways() {
    let marked = |mark: &str| {
        let text = format!(
            r#"
            name = "test"
            title = "test"
            horizon = "3 s"
            topology = {{ kind = "dumbbell", left = 1, right = 1, rate = "1 Gbit/s", core_rate = "20 Mbit/s", delay = "10 ms" }}
            switch = {{ queue = {{ limit = "200 packets"{mark} }} }}
            tcp = {{ controller = "quinn-newreno" }}
            load = [{{ kind = "long", from = 0, to = 1, flows = 1 }}]
            "#
        );
        let file = ScenarioFile::parse("test", &text).unwrap_or_else(|problem| panic!("{problem}"));
        points(&file)[0].setup(7).expect("a setup").run(&NEVER)
    };
    let (with, without) = (marked(", mark_at = \"20 packets\""), marked(""));
    assert!(with.counters.marks_count > 0 && without.counters.marks_count == 0);
    let (short, long) = (with.metric("queue_packets_p99"), without.metric("queue_packets_p99"));
    assert!(short < Some(80.0) && long > Some(150.0), "{short:?} and {long:?}");
}

#[test]
fn bytes_of_lost_and_delivered_datagrams_do_not_stay() {
    let setup = setup("quinn-cubic", LONG, "loss_ratio = 0.02");
    let payloads = Payloads::default();
    let computing = Computing {
        threads_count: 1,
        grouping: Grouping::One,
    };
    let mut sim = PacketSim::new(&setup.topology, computing, setup.seed, |hosts| {
        Hosts::with_payloads(&setup, hosts, payloads.clone())
    });
    let mut observer = crate::packet_sim::Observer::default();
    observer.begin(&setup, &mut sim, &payloads);
    sim.run_until(setup.horizon, &NEVER);
    let counters = sim.counters();
    assert!(counters.drops.count() > 10, "{counters:?}");
    assert_eq!(payloads.count() as u64, sim.assert_conserved());
}

#[test]
fn an_answer_to_a_question_is_refused_where_it_stands() {
    let text = r#"
        name = "test"
        title = "test"
        horizon = "1 s"
        topology = { kind = "star", hosts = 3, rate = "1 Gbit/s", delay = "1 us" }
        [[load]]
        kind = "incast"
        servers = 2
        bytes = "1 KB"
        [[arm]]
        name = "quinn"
        tcp = { controller = "quinn-cubic" }
    "#;
    let problem = ScenarioFile::parse("test", text).expect_err("an incast over quinn");
    assert_eq!(problem.line, 6, "{problem}");
    assert!(problem.message.contains("over TCP here"), "{problem}");
}
