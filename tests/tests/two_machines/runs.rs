//! Experiments between two machines: what a record says of them, and what it leaves out.

use crate::{SHORT, harness::Machines, rows, went_well};

#[test]
fn a_ladder_between_two_machines() {
    let Some(machines) = Machines::make("a_ladder_between_two_machines") else {
        return;
    };
    let agent = machines.agent();
    let output = machines.run(agent.addr, "run", SHORT);
    went_well(&output, &agent);

    let records = machines.records("run");
    let header = &records[0];
    let place = header["place"].as_str().expect("a place");
    for words in [
        "interface eth0 (driver veth, MTU 9000, offloads off)",
        &machines.here().ipv4().to_string(),
        &format!("to agent {}", agent.addr),
        &machines.there().ipv4().to_string(),
    ] {
        assert!(place.contains(words), "{words:?} is not in {place:?}");
    }
    assert_eq!(header["agent"]["interface"]["name"], "eth0");
    assert!(header["agent"]["environment"]["facts"]["kernel"].is_string());
    assert!(header["environment"]["facts"]["kernel"].is_string());
    let support = |name: &str| {
        let backends = header["backends"].as_array().expect("back ends");
        backends.iter().find(|backend| backend["name"] == name).expect("listed")["support"].clone()
    };
    assert_eq!(support("af-packet")["is"], "native");
    for absent in ["loopback", "shm"] {
        assert_eq!(support(absent)["is"], "absent");
        assert_eq!(support(absent)["why"], "two machines share no memory");
    }

    let rows = rows(&records);
    // Programs need more privilege than a namespace: where they may not be asked for, their rungs are missing.
    let rungs = ["udp-blocking", "udp-spin", "af-packet", "af-xdp-spin", "xdp-echo"];
    for backend in rungs.into_iter().filter(|backend| support(backend)["is"] == "native") {
        let of_it: Vec<_> = rows.iter().filter(|row| row["backend"] == backend).collect();
        assert!(!of_it.is_empty(), "no row of {backend}");
        for row in of_it {
            assert_eq!(row["axis"]["cpus"], "two", "the ends have no CPU in common");
            // A server that is a program has no thread of its own: its process only holds it.
            if backend == "xdp-echo" {
                assert_eq!(row["facts"]["server_program"], "echo, native");
            } else {
                assert!(row["facts"]["server_scheduler"].is_string() && row["facts"]["client_scheduler"].is_string());
                assert!(
                    row["metrics"]["server_cpu_per_op"]["value"]
                        .as_f64()
                        .is_some_and(|ns| ns > 0.0)
                );
            }
            let samples_count = row["latency"]["samples_count"].as_u64().expect("a count");
            assert!(
                samples_count > 100 || row["validity"]["is"] == "invalid",
                "a valid row of {samples_count} samples: {row}"
            );
            println!("{backend}: {samples_count} samples, {}", row["validity"]);
        }
    }
    agent.wait_for("done");
    assert_eq!(agent.children(), [0; 0], "a server was left behind");
}

#[test]
fn either_end_sleeps_or_spins_by_itself() {
    let Some(machines) = Machines::make("either_end_sleeps_or_spins_by_itself") else {
        return;
    };
    let agent = machines.agent();
    let asleep = [
        "wakeup-model",
        "--axis",
        "ends=blocking,client-blocks",
        "--budget",
        "1s",
    ];
    let output = machines.run(agent.addr, "asleep", &asleep);
    went_well(&output, &agent);
    let records = machines.records("asleep");
    for (ends, server, client) in [
        ("blocking", "udp-blocking", "udp-blocking"),
        ("client-blocks", "udp-spin", "udp-blocking"),
    ] {
        let of_it = rows(&records)
            .into_iter()
            .filter(|row| row["axis"]["ends"] == ends)
            .collect::<Vec<_>>();
        assert!(!of_it.is_empty(), "no row of {ends}");
        for row in of_it {
            assert_eq!(row["axis"]["cpus"], "two", "{row}");
            assert_eq!(
                (&row["backend"], &row["facts"]["client_backend"]),
                (&server.into(), &client.into())
            );
            assert_eq!(row["facts"]["server_machine"], "the agent's", "{row}");
        }
    }
    assert!(
        rows(&records).iter().all(|row| row["backend"] != "eventfd"),
        "a bare wake-up reaches no other machine"
    );
}

#[test]
fn stalls_are_made_over_the_network_and_what_needs_one_machine_says_so() {
    let Some(machines) = Machines::make("stalls_are_made_over_the_network") else {
        return;
    };
    let agent = machines.agent();
    let stalled = [
        "coordinated-omission",
        "--backend",
        "udp-blocking",
        "--axis",
        "loop=open",
        "--axis",
        "rate_per_s=1000",
    ];
    let output = machines.run(
        agent.addr,
        "stalled",
        &[&stalled[..], &["self-test", "--budget", "4s"]].concat(),
    );
    went_well(&output, &agent);
    let records = machines.records("stalled");
    let rows = rows(&records);
    assert!(!rows.is_empty());
    for row in rows {
        assert_eq!(row["experiment"], "coordinated-omission");
        assert!(row["facts"]["stall_uncertainty_ns"].is_string(), "{row}");
        println!(
            "stalls known to {} ns, {}",
            row["facts"]["stall_uncertainty_ns"], row["validity"]
        );
    }
    let verdicts: Vec<_> = records
        .iter()
        .filter(|record| record["experiment"] == "self-test" && record["record"] == "verdict")
        .collect();
    assert!(!verdicts.is_empty());
    for verdict in verdicts {
        assert_eq!(verdict["outcome"]["is"], "not_measured");
        assert!(
            verdict["outcome"]["why"]
                .as_str()
                .is_some_and(|why| why.contains("two machines")),
            "{verdict}"
        );
    }
}
