//! Two machines, as two network namespaces stand for them: the agent in one, a run in the other, and whoever else reaches
//! the agent's port.
#![forbid(unsafe_code)]

mod flood;
mod harness;

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::OpenOptionsExt,
    process::{Command, Stdio},
    thread,
};

use dataplane_netns::Host;
use harness::{Machines, until};
use tests::stderr;

/// A run that is over within seconds.
const SHORT: &[&str] = &[
    "rtt-ladder",
    "--backend",
    "udp-blocking,udp-spin,af-packet,af-xdp-spin,xdp-echo",
    "--axis",
    "frame_bytes=64",
    "--budget",
    "4s",
];

/// A run that goes on for as long as a test needs it.
const LONG: &[&str] = &[
    "rtt-ladder",
    "--backend",
    "udp-blocking",
    "--axis",
    "frame_bytes=64",
    "--budget",
    "55s",
];

fn rows(records: &[serde_json::Value]) -> Vec<&serde_json::Value> {
    records.iter().filter(|record| record["record"] == "row").collect()
}

#[test]
fn a_ladder_between_two_machines() {
    let Some(machines) = Machines::make("a_ladder_between_two_machines") else {
        return;
    };
    let agent = machines.agent();
    let output = machines.run(agent.addr, "run", SHORT);
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "{}{}",
        stderr(&output),
        agent.log()
    );

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

    // Either end sleeps or spins by itself, each on its own machine.
    let asleep = [
        "wakeup-model",
        "--axis",
        "ends=blocking,client-blocks",
        "--budget",
        "4s",
    ];
    let output = machines.run(agent.addr, "asleep", &asleep);
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "{}{}",
        stderr(&output),
        agent.log()
    );
    let records = machines.records("asleep");
    for (ends, server, client) in [
        ("blocking", "udp-blocking", "udp-blocking"),
        ("client-blocks", "udp-spin", "udp-blocking"),
    ] {
        let of_it = self::rows(&records)
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
        self::rows(&records).iter().all(|row| row["backend"] != "eventfd"),
        "a bare wake-up reaches no other machine"
    );

    // Stalls are made over the network, and say so; what needs one machine says that.
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
        &[&stalled[..], &["self-test", "--budget", "8s"]].concat(),
    );
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "{}{}",
        stderr(&output),
        agent.log()
    );
    let records = machines.records("stalled");
    let rows = self::rows(&records);
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
        "6s",
    ];
    let output = machines.run(agent.addr, "apart", &apart);
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "{}{}",
        stderr(&output),
        agent.log()
    );
    let records = machines.records("apart");
    let rows = self::rows(&records);
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
        let mean_ns = |row: &serde_json::Value| row["metrics"]["stage_mean"]["value"].as_f64().expect("a mean");
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

#[test]
fn strangers_are_told_and_sent_away_and_the_agent_goes_on() {
    let Some(machines) = Machines::make("strangers_are_told_and_sent_away") else {
        return;
    };
    let agent = machines.agent();

    // Another key.
    let other_key = machines.scratch.join("other-key");
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&other_key)
        .expect("writable");
    file.write_all(b"another key, long enough\n").expect("writable");
    let (peer, out) = (agent.addr.to_string(), machines.scratch.join("never"));
    let args = [
        "run",
        "--interface",
        "eth0",
        "--peer",
        &peer,
        "--key-file",
        &other_key,
        "--out",
        &out,
    ];
    let output = machines.start(machines.here(), &args, Stdio::piped()).output();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("same key"), "{}", stderr(&output));
    assert!(
        !fs::exists(&out).expect("askable"),
        "a run that was refused left a folder"
    );
    agent.wait_for("do not have the same key");

    // A key that others may read.
    fs::set_permissions(&other_key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("ours");
    let output = machines.start(machines.here(), &args, Stdio::piped()).output();
    assert!(stderr(&output).contains("chmod 600"), "{}", stderr(&output));

    // No protocol of ours, a message that is too long, a handshake that breaks off.
    for (sent, told) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "another protocol"),
        (&[0xff, 0xff, 0xff, 0xff, 1], "at most 1024 are taken"),
        (&[0, 0, 0, 3, 1, b'D', b'P', b'L'], "does not speak the protocol"),
    ] {
        let mut stranger = machines.connect(agent.addr);
        stranger.write_all(sent).expect("it listens");
        let mut answer = Vec::new();
        stranger.read_to_end(&mut answer).expect("a refusal, then the end");
        assert!(
            String::from_utf8_lossy(&answer).contains(told),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        agent.wait_for(told);
    }
    let mut stranger = machines.connect(agent.addr);
    stranger.write_all(&[0, 0, 0, 42, 1, b'D']).expect("it listens");
    drop(stranger);
    agent.wait_for("in the middle of a message");

    // One that says nothing keeps nobody waiting.
    let silent = machines.connect(agent.addr);
    let output = machines.run(agent.addr, "after", SHORT);
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "{}{}",
        stderr(&output),
        agent.log()
    );
    drop(silent);
}

/// Stands between client and agent, and says the third sealed message of the client twice.
fn repeating(listener: TcpListener, connect: impl FnOnce() -> TcpStream) {
    const SEALED: u8 = 5;
    let (mut client, _) = listener.accept().expect("a client");
    let mut agent = connect();
    let (mut back_from, mut back_to) = (agent.try_clone().expect("ours"), client.try_clone().expect("ours"));
    let back = thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
    let mut sealed_count = 0;
    let mut header = [0; 5];
    while client.read_exact(&mut header).is_ok() {
        let len_bytes = u32::from_be_bytes(header[..4].try_into().expect("four")) as usize;
        let mut message = header.to_vec();
        message.resize(header.len() + len_bytes, 0);
        if client.read_exact(&mut message[header.len()..]).is_err() {
            break;
        }
        sealed_count += u32::from(header[4] == SEALED);
        let times = if sealed_count == 3 { 2 } else { 1 };
        if (0..times).any(|_| agent.write_all(&message).is_err()) {
            break;
        }
    }
    let _ = agent.shutdown(std::net::Shutdown::Both);
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = back.join();
}

#[test]
fn a_replayed_message_ends_the_session_and_nothing_else() {
    let Some(machines) = Machines::make("a_replayed_message_ends_the_session") else {
        return;
    };
    let agent = machines.agent();
    let listener = machines
        .here()
        .run(|| TcpListener::bind((IpAddr::from(machines.here().ipv4()), 0)))
        .expect("a namespace")
        .expect("a port");
    let at = listener.local_addr().expect("bound");
    let output = thread::scope(|scope| {
        scope.spawn(|| repeating(listener, || machines.connect(agent.addr)));
        machines.run(at, "replayed", SHORT)
    });
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    agent.wait_for("injected, changed, left out or replayed");
    until("its server is gone", || agent.children().is_empty());

    let output = machines.run(agent.addr, "after", SHORT);
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "{}{}",
        stderr(&output),
        agent.log()
    );
}

#[test]
fn an_agent_that_dies_ends_the_run_with_an_error_and_its_rows() {
    let Some(machines) = Machines::make("an_agent_that_dies") else {
        return;
    };
    let agent = machines.agent();
    let run = machines.start_run(agent.addr, "run", LONG);
    until("a first row", || !rows(&machines.records("run")).is_empty());
    let servers = agent.children();
    drop(agent);
    let output = run.output();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let records = machines.records("run");
    assert!(!rows(&records).is_empty());
    let end = records.last().expect("lines");
    assert_eq!(end["record"], "end");
    assert!(
        end["errors"].as_array().is_some_and(|errors| !errors.is_empty()),
        "{end}"
    );
    until("its server died with it", || {
        servers
            .iter()
            .all(|pid| !fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false))
    });
}

#[test]
fn a_client_that_dies_leaves_an_agent_for_the_next() {
    let Some(machines) = Machines::make("a_client_that_dies") else {
        return;
    };
    let agent = machines.agent();
    let run = machines.start_run(agent.addr, "killed", LONG);
    until("a first row", || !rows(&machines.records("killed")).is_empty());

    // One at a time.
    let output = machines.run(agent.addr, "second", SHORT);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("another client is being served"),
        "{}",
        stderr(&output)
    );

    until("a server runs", || !agent.children().is_empty());
    drop(run);
    until("its server is gone", || agent.children().is_empty());
    agent.wait_for("disconnected");
    let output = machines.run(agent.addr, "next", SHORT);
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "{}{}",
        stderr(&output),
        agent.log()
    );
}

#[test]
fn a_server_that_cannot_start_is_told_and_the_agent_goes_on() {
    let Some(machines) = Machines::make("a_server_that_cannot_start") else {
        return;
    };
    let agent = machines.agent();
    let at = (IpAddr::from(machines.there().ipv4()), 7000);
    let taken = machines
        .there()
        .run(|| UdpSocket::bind(at))
        .expect("a namespace")
        .expect("a free port");
    let output = machines.run(agent.addr, "taken", SHORT);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let records = machines.records("taken");
    let errors = records.last().expect("lines")["errors"].to_string();
    assert!(
        errors.contains("did not become ready") && errors.contains("agent's log"),
        "{errors}"
    );
    agent.wait_for("Address already in use");
    drop(taken);
    let output = machines.run(agent.addr, "free", SHORT);
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "{}{}",
        stderr(&output),
        agent.log()
    );
}

#[test]
fn interfaces_that_cannot_be_meant_are_refused() {
    let Some(machines) = Machines::make("interfaces_that_cannot_be_meant") else {
        return;
    };
    let agent = machines.agent();
    let said = |host: &Host, args: &[&str]| {
        let output = machines.start(host, args, Stdio::piped()).output();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        stderr(&output)
    };
    let (peer, key) = (agent.addr.to_string(), machines.key());
    let with = |interface: &'static str| ["run", "--interface", interface, "--peer", &peer, "--key-file", &key];
    let unknown = said(machines.here(), &with("eth00"));
    assert!(unknown.contains("did you mean eth0"), "{unknown}");
    let down = said(machines.there(), &with("eth0"));
    assert!(down.contains("an address of this machine"), "{down}");
    let foreign = said(
        machines.here(),
        &[&with("eth0")[..], &["--local-address", "192.0.2.9"]].concat(),
    );
    assert!(
        foreign.contains("192.0.2.9 is not an address of interface eth0"),
        "{foreign}"
    );
    let nobody = format!("{}:1", machines.there().ipv4());
    let nobody = said(
        machines.here(),
        &["run", "--interface", "eth0", "--peer", &nobody, "--key-file", &key],
    );
    assert!(nobody.contains("dplab agent --listen"), "{nobody}");

    // With a way out through it.
    let gateway = machines.there().ipv4().to_string();
    let added = machines
        .here()
        .run(|| {
            Command::new("ip")
                .args(["route", "add", "default", "via", &gateway])
                .status()
        })
        .expect("a namespace");
    match added {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            println!("the default route is not tried: no `ip` ({error})");
            return;
        }
    }
    let way_out = said(machines.here(), &with("eth0"));
    assert!(
        way_out.contains("default route") && way_out.contains("--force-interface"),
        "{way_out}"
    );
    let way_out = said(
        machines.here(),
        &[
            "agent",
            "--interface",
            "eth0",
            "--listen",
            "127.0.0.1:0",
            "--key-file",
            &key,
        ],
    );
    assert!(way_out.contains("default route"), "{way_out}");
    // Meant all the same, and by IPv6 where there is any, at other ports.
    let local = machines.here().ipv6().map_or_else(
        || IpAddr::from(machines.here().ipv4()).to_string(),
        |ipv6| ipv6.to_string(),
    );
    let forced = [
        "--force-interface",
        "--local-address",
        &local,
        "--udp-ports",
        "9001,9000",
    ];
    let output = machines.run(agent.addr, "forced", &[SHORT, &forced].concat());
    let records = machines.records("forced");
    let place = records[0]["place"].as_str().expect("a place");
    assert!(place.contains(&format!("with {local} to")), "{place}");
    for backend in ["udp-blocking", "udp-spin", "af-packet"] {
        assert!(
            rows(&records).iter().any(|row| row["backend"] == backend),
            "no row of {backend}"
        );
    }
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "{}{}",
        stderr(&output),
        agent.log()
    );
}
