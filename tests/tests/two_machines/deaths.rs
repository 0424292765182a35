//! An end that dies or cannot start: the other one says so, and is there for the next.

use std::net::{IpAddr, UdpSocket};

use tests::stderr;

use crate::{
    BRIEF, LONG,
    harness::{Machines, runs, until},
    rows, went_well,
};

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
    until("its server died with it", || !servers.iter().any(|&pid| runs(pid)));
}

/// Every other test here relies on it: one that is killed leaves no agent behind.
#[test]
fn an_agent_ends_with_whoever_started_it() {
    let Some(machines) = Machines::make("an_agent_ends_with_whoever_started_it") else {
        return;
    };
    let (shell, agent) = machines.agent_of_a_shell();
    assert!(runs(agent), "it listens, and will not end by itself");
    drop(shell);
    until("it ended with the shell", || !runs(agent));
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
    let output = machines.run(agent.addr, "second", BRIEF);
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
    let output = machines.run(agent.addr, "next", BRIEF);
    went_well(&output, &agent);
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
    let output = machines.run(agent.addr, "taken", BRIEF);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let records = machines.records("taken");
    let errors = records.last().expect("lines")["errors"].to_string();
    assert!(
        errors.contains("did not become ready") && errors.contains("agent's log"),
        "{errors}"
    );
    agent.wait_for("Address already in use");
    drop(taken);
    let output = machines.run(agent.addr, "free", BRIEF);
    went_well(&output, &agent);
}
