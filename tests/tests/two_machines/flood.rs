//! Frames one way between two machines: each of them arrives, or a counter of either machine says where it went, or the two
//! interfaces say that it was lost on the way.

use std::{
    collections::BTreeMap,
    process::{Command, Output},
};

use dataplane_netns::Host;
use serde_json::Value;

use crate::{
    harness::{Agent, Machines},
    rows, went_well,
};

/// A run's rows, once it is sure that it went well and that every row's account closes; what was sent, and what was lost by a
/// name.
fn accounts_of(records: &[Value], output: &Output, agent: &Agent) -> Vec<Account> {
    went_well(output, agent);
    let verdict = records
        .iter()
        .find(|record| record["record"] == "verdict" && record["claim"] == "every-frame-accounted")
        .expect("the claim is judged");
    assert_eq!(verdict["outcome"]["is"], "holds", "{verdict:#}");
    rows(records).into_iter().map(Account::of).collect()
}

struct Account {
    sender: String,
    sink: String,
    sent_count: i64,
    received_count: i64,
    losses: BTreeMap<String, i64>,
}

impl Account {
    /// Added up again, by what the record says and not by its own sum.
    fn of(row: &Value) -> Account {
        let metrics = row["metrics"].as_object().expect("metrics");
        let count = |name: &str| {
            metrics
                .get(name)
                .map_or(0, |metric| metric["value"].as_f64().expect("a number") as i64)
        };
        let names = || {
            metrics
                .keys()
                .filter(|name| name.starts_with("lost_") && *name != "lost_ratio")
        };
        let lost_count: i64 = names().map(|name| count(name)).sum();
        assert_eq!(count("sent"), count("received") + lost_count, "{row:#}");
        assert_eq!((count("unexplained"), count("duplicates")), (0, 0), "{row:#}");
        assert!(count("sent") > 0, "{row:#}");
        assert_eq!(row["facts"]["server_machine"], "the agent's", "{row:#}");
        // What the sink's kernel used beside it, an agent does not tell.
        assert!(!metrics.contains_key("softirq_cpu_per_million"), "{row:#}");
        let word = |value: &Value| value.as_str().expect("a word").to_owned();
        Account {
            sender: word(&row["backend"]),
            sink: word(&row["axis"]["sink"]),
            sent_count: count("sent"),
            received_count: count("received"),
            losses: names().map(|name| (name.clone(), count(name))).collect(),
        }
    }
}

#[test]
fn a_flood_between_two_machines_has_an_account() {
    let Some(machines) = Machines::make("a_flood_between_two_machines") else {
        return;
    };
    let agent = machines.agent();
    let flood = [
        "packet-rate",
        "--backend",
        "udp-mmsg,af-packet-spin,af-xdp-spin",
        "--axis",
        "frame_bytes=64",
        "--axis",
        "sink=same,udp-mmsg,xdp-drop,xdp-drop-threaded,xdp-drop-same-cpu,xdp-echo",
        "--budget",
        "300ms",
    ];
    let output = machines.run(agent.addr, "flood", &flood);
    let records = machines.records("flood");
    let accounts = accounts_of(&records, &output, &agent);
    let supports = &records[0]["agent"]["supports"];
    for (sender, sink, is_measured) in [
        ("udp-mmsg", "udp-mmsg", true),
        ("af-packet-spin", "same", true),
        ("udp-mmsg", "xdp-drop", supports["xdp-drop"]["is"] == "native"),
        ("af-xdp-spin", "same", supports["af-xdp-spin"]["is"] == "native"),
        ("af-xdp-spin", "xdp-drop", supports["xdp-drop"]["is"] == "native"),
        ("udp-mmsg", "xdp-echo", supports["xdp-echo"]["is"] == "native"),
        // These need threads of the other kernel, and one CPU for both ends.
        ("udp-mmsg", "xdp-drop-threaded", false),
        ("af-xdp-spin", "xdp-drop-same-cpu", false),
    ] {
        let mut of_it = accounts.iter().filter(|row| row.sender == sender && row.sink == sink);
        assert_eq!(of_it.next().is_some(), is_measured, "{sender} into {sink}");
        let received_count: i64 = of_it.map(|row| row.received_count).sum();
        println!("{sender} into {sink}: {received_count} frames arrived");
    }
    assert!(
        accounts.iter().any(|row| row.received_count > 0),
        "nothing ever arrived"
    );
    agent.wait_for("done");
    assert_eq!(agent.children(), [0; 0], "a sink was left behind");
}

/// Puts a queue that is far slower than a sender, with room for a few hundred frames, before a host's interface; `false`, with
/// the reason printed, where that cannot be.
fn narrow(host: &Host, interface: &str, test: &str) -> bool {
    let slow = format!("qdisc add dev {interface} root tbf rate 20mbit burst 10k limit 20k");
    let narrowed = host.run(|| Command::new("tc").args(slow.split(' ')).status());
    match narrowed.expect("a namespace") {
        Ok(status) if status.success() => true,
        other => {
            println!("{test}: not run: needs tc and its tbf, and here is {other:?}");
            false
        }
    }
}

/// A flood that has to lose frames under `name`.
fn loses_by(machines: &Machines, name: &str) {
    let agent = machines.agent();
    let flood = [
        "packet-rate",
        "--backend",
        "udp-mmsg",
        "--axis",
        "frame_bytes=1472",
        "--axis",
        "sink=udp-mmsg",
        "--budget",
        "100ms",
    ];
    let output = machines.run(agent.addr, "narrow", &flood);
    let accounts = accounts_of(&machines.records("narrow"), &output, &agent);
    assert!(!accounts.is_empty());
    for row in &accounts {
        assert!(row.received_count > 0, "the link is slow, not broken");
        // The flood has a hundredth of a second and more, in which this link carries 25 kB.
        let lost_count = row.losses.get(name).copied().unwrap_or(0);
        assert!(
            lost_count > row.sent_count / 10,
            "{name}: {lost_count} of {}; {:?}",
            row.sent_count,
            row.losses
        );
        println!(
            "{} sent, {} received, {:?}",
            row.sent_count, row.received_count, row.losses
        );
    }
}

#[test]
fn what_a_router_drops_is_lost_on_the_way() {
    let Some(machines) = Machines::behind_a_router("what_a_router_drops") else {
        return;
    };
    // Its drops are in a counter of the router's alone.
    if narrow(machines.router(), "eth1", "what_a_router_drops") {
        loses_by(&machines, "lost_on_the_way");
    }
}

#[test]
fn what_the_senders_own_queue_drops_has_its_name() {
    let Some(machines) = Machines::make("what_the_senders_own_queue_drops") else {
        return;
    };
    if narrow(machines.here(), "eth0", "what_the_senders_own_queue_drops") {
        loses_by(&machines, "lost_sender_queue");
    }
}
