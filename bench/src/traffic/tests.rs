//! The engine over real kernels: bytes are conserved, settings are what they were set to, and switching something off has the effect
//! that it is said to have. Needs namespaces; says so where there are none.

use std::{sync::atomic::AtomicBool, time::Duration};

use dataplane_netns::{Network, NetworkOptions, Privilege, Topology, prepare};

use super::{Ablation, Controller, Counters, Ecn, Flows, Pattern, Questions, capacity};

fn star(test: &str, hosts: usize) -> Option<Network> {
    if let Privilege::None { why } = prepare() {
        println!("{test}: not run: {why}");
        return None;
    }
    let options = NetworkOptions {
        mtu_bytes: 1500,
        publish_names: false,
        ..NetworkOptions::new(Topology::Star { hosts })
    };
    Some(Network::build(&options).expect("it may be built"))
}

fn questions(answer_bytes: u64, count: u32) -> Pattern {
    Pattern {
        long_count: 0,
        stagger: Duration::ZERO,
        questions: Some(Questions {
            answer_bytes,
            count,
            unmeasured_count: 1,
            apart: Duration::ZERO,
            pause: Duration::ZERO,
            answer_max: Duration::from_secs(20),
        }),
        time_max: Duration::from_secs(20),
        sample_every: None,
        spins: false,
    }
}

#[test]
fn every_byte_that_is_asked_for_comes_once() {
    let Some(network) = star("bytes", 5) else {
        return;
    };
    let hosts = network.hosts();
    let senders: Vec<_> = hosts[1..].iter().collect();
    let mut flows = Flows::open(&hosts[0], &senders, "cubic", None).expect("they connect");
    let done = questions(70_001, 5)
        .run(&mut flows, &AtomicBool::new(false))
        .expect("nobody closes");
    assert_eq!((done.completion_ns.len(), done.lost_count), (5, 0));
    assert_eq!(done.answered_bytes, 5 * 4 * 70_001);
    for totals in flows.totals() {
        // The unmeasured one is among them.
        let expected = 6 * 70_001;
        assert_eq!(
            (totals.asked_bytes, totals.sent_bytes, totals.received_bytes),
            (expected, expected, expected)
        );
    }
    assert!(done.goodput_bits_per_sec().is_some_and(|rate| rate > 0.0));
    // The last of four is asked three times as long after the first.
    let apart = Duration::from_millis(5);
    let mut one_by_one = questions(1, 3);
    one_by_one.questions = one_by_one.questions.map(|questions| Questions { apart, ..questions });
    let done = one_by_one
        .run(&mut flows, &AtomicBool::new(false))
        .expect("nobody closes");
    assert_eq!(done.completion_ns.len(), 3);
    let took_ns = done.completion_ns.iter().min();
    assert!(took_ns >= Some(&(3 * apart.as_nanos() as u64)), "{done:?}");
}

#[test]
fn short_answers_beside_a_long_flow_and_long_flows_alone() {
    let Some(network) = star("patterns", 3) else {
        return;
    };
    let hosts = network.hosts();
    let senders: Vec<_> = hosts[1..].iter().collect();
    let mut flows = Flows::open(&hosts[0], &senders, "reno", Some(20_000_000)).expect("they connect");
    let mixed = Pattern {
        long_count: 1,
        stagger: Duration::ZERO,
        sample_every: Some(Duration::from_millis(5)),
        spins: false,
        ..questions(20_000, 8)
    };
    let done = mixed.run(&mut flows, &AtomicBool::new(false)).expect("nobody closes");
    assert_eq!((done.completion_ns.len(), done.long_bytes.len()), (8, 1));
    assert!(
        done.samples
            .iter()
            .any(|sample| sample.flow == 1 && sample.info.pacing_bytes_per_sec_max == 20_000_000)
    );
    drop(flows);
    let mut flows = Flows::open(&hosts[0], &senders, "reno", None).expect("they connect");
    let long = Pattern {
        long_count: 2,
        stagger: Duration::ZERO,
        questions: None,
        time_max: Duration::from_millis(200),
        sample_every: None,
        spins: false,
    };
    let done = long.run(&mut flows, &AtomicBool::new(false)).expect("nobody closes");
    assert!(done.long_bytes.iter().all(|bytes| *bytes > 0));
    for totals in flows.totals() {
        assert!(totals.sent_bytes >= totals.received_bytes);
    }
    let stopped = long.run(&mut flows, &AtomicBool::new(true)).expect("nobody closes");
    assert!(stopped.is_interrupted && stopped.elapsed < Duration::from_millis(200));
}

#[test]
fn what_is_set_is_read_back_and_seen_by_a_connection() {
    let Some(network) = star("ablation", 2) else {
        return;
    };
    let hosts = network.hosts();
    let ablation = Ablation {
        rto_min: Duration::from_millis(40),
        tlp: false,
        sack: false,
        delayed_acks: false,
        initial_window_segments: Some(3),
        ecn: Ecn::On,
        ..Ablation::default()
    };
    for host in hosts {
        let applied = match ablation.apply(host) {
            Ok(applied) => applied,
            Err(error) => {
                println!("ablation: not run: {error:#}");
                return;
            }
        };
        assert_eq!(applied.0["tcp_rto_min_us"], "40000");
        assert_eq!(applied.0["tcp_early_retrans"], "0");
        assert_eq!(applied.0["tcp_sack"], "0");
        assert_eq!(applied.0["quickack"], "1");
    }
    let mut flows = Flows::open(&hosts[0], &[&hosts[1]], "reno", None).expect("they connect");
    let begun = flows.begun()[0];
    assert_eq!(begun.window_segments, 3, "the route says so: {begun:?}");
    questions(200_000, 3)
        .run(&mut flows, &AtomicBool::new(false))
        .expect("nobody closes");
    let rto = flows.info(0).expect("it is open").rto;
    assert!(
        (40..200).contains(&rto.as_millis()),
        "a floor of 40 ms and not of 200: {rto:?}"
    );
    // Other hosts of this machine are as they were, and so is this one after it has been set back.
    let applied = Ablation::default().apply(&hosts[1]).expect("as before");
    assert_eq!(applied.0["initcwnd"], "kernel's");
    let flows = Flows::open(&hosts[0], &[&hosts[1]], "reno", None).expect("they connect");
    assert!(flows.begun()[0].window_segments >= 10);
}

#[test]
fn counters_of_a_host_are_its_own() {
    let Some(network) = star("counters", 3) else {
        return;
    };
    let hosts = network.hosts();
    let before: Vec<Counters> = hosts
        .iter()
        .map(|host| Counters::read(host).expect("/proc is there"))
        .collect();
    let mut flows = Flows::open(&hosts[0], &[&hosts[1]], "cubic", None).expect("they connect");
    questions(50_000, 2)
        .run(&mut flows, &AtomicBool::new(false))
        .expect("nobody closes");
    let grown: Vec<Counters> = hosts
        .iter()
        .zip(&before)
        .map(|(host, before)| Counters::read(host).expect("/proc is there").since(before))
        .collect();
    assert!(grown[1].get("segments_out").is_some_and(|count| count > 50));
    assert_eq!(grown[2].get("segments_out"), Some(0));
}

#[test]
fn a_controller_that_is_not_there_says_what_is() {
    let error = Controller::open("vegas2000").expect_err("nobody has it");
    assert!(
        error.to_string().contains("cubic") || error.to_string().contains("reno"),
        "{error:#}"
    );
}

#[test]
fn one_thread_carries_something_where_no_link_is_a_limit() {
    if star("capacity", 2).is_none() {
        return;
    }
    let bits_per_sec = capacity(3, Duration::from_millis(300), &AtomicBool::new(false)).expect("as above");
    println!("{:.0} Mbit/s", bits_per_sec / 1e6);
    assert!(bits_per_sec > 0.0);
}
