//! A round trip taken apart between two machines: the wire is told apart, and the stages add up to the whole.

use serde_json::Value;

use crate::{harness::Machines, rows, went_well};

#[test]
fn a_round_trip_taken_apart_between_two_machines() {
    const WIRE: &str = "03 the wire, both ways";
    let Some(machines) = Machines::make("a_round_trip_taken_apart") else {
        return;
    };
    let agent = machines.agent();
    let apart = [
        "rtt-breakdown",
        "--backend",
        "udp-blocking,af-xdp",
        "--axis",
        "ends=blocking",
        "--axis",
        "driver=xdp,none",
        "--budget",
        "300ms",
    ];
    let output = machines.run(agent.addr, "apart", &apart);
    went_well(&output, &agent);
    let records = machines.records("apart");
    let rows = rows(&records);
    assert!(
        rows.iter().all(|row| row["axis"]["cpus"] == "two"),
        "machines share no CPU"
    );
    let left_out = |fact: &str| {
        let facts = rows.iter().filter_map(|row| row["facts"][fact].as_str());
        facts.into_iter().find(|words| words.starts_with("left out"))
    };
    let mut ways = vec![("udp-stamped", "none", 7)];
    match left_out("driver_stamps") {
        None => ways.push(("udp-stamped", "xdp", 9)),
        Some(why) => println!("stamps from the drivers are not tried: {why}"),
    }
    match (
        left_out("ring_stamps"),
        rows.iter().any(|row| row["backend"] == "af-xdp"),
    ) {
        (None, true) => ways.push(("af-xdp-stamped", "none", 4)),
        (why, _) => println!("stamps of AF_XDP are not tried: {why:?}"),
    }
    for (backend, driver, stages_count) in ways {
        let of_it: Vec<_> = rows
            .iter()
            .filter(|row| row["backend"] == backend && row["axis"]["driver"] == driver)
            .collect();
        let total = of_it
            .iter()
            .find(|row| row["axis"]["stage"] == "total")
            .unwrap_or_else(|| panic!("no whole of {backend}, {driver}"));
        let stages: Vec<_> = of_it
            .iter()
            .filter(|row| {
                row["round"] == total["round"] && row["at_s"] == total["at_s"] && row["axis"]["stage"] != "total"
            })
            .collect();
        assert_eq!(stages.len(), stages_count, "{backend}, {driver}: {stages:?}");
        for row in &stages {
            assert_eq!(row["facts"]["server_machine"], "the agent's", "{row}");
            // Each other stage is of one machine's stamps.
            let stage = row["axis"]["stage"].as_str().expect("a name");
            let clocks = row["facts"]["clocks"].as_str().expect("whose stamps");
            assert_eq!(clocks.contains("less the server's"), stage == WIRE, "{row}");
            assert!(
                stage == WIRE || !stage.contains("driver to server") && !stage.starts_with("08"),
                "{row}"
            );
        }
        assert!(stages.iter().any(|row| row["axis"]["stage"] == WIRE));
        let mean_ns = |row: &Value| row["metrics"]["stage_mean"]["value"].as_f64().expect("a mean");
        let sum_ns: f64 = stages.iter().map(|row| mean_ns(row)).sum();
        let total_ns = mean_ns(total);
        println!(
            "{backend}, driver {driver}: {sum_ns} ns of {total_ns} ns, {}",
            total["validity"]
        );
        assert!(
            (sum_ns / total_ns - 1.0).abs() < 0.01 || total["validity"]["is"] == "invalid",
            "stages that do not add up, and a valid row: {total}"
        );
    }
    let verdict = records
        .iter()
        .find(|record| record["record"] == "verdict" && record["claim"] == "breakdown-sums")
        .expect("a verdict");
    assert!(
        verdict["outcome"]["why"]
            .as_str()
            .is_none_or(|why| !why.contains("two machines")),
        "{verdict}"
    );
    agent.wait_for("done");
    assert_eq!(agent.children(), [0; 0], "a server was left behind");
}
