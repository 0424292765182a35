//! Whoever else reaches the agent's port, and whoever stands between it and its client.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    os::unix::fs::OpenOptionsExt,
    process::Stdio,
    thread,
};

use tests::stderr;

use crate::{
    BRIEF,
    harness::{Machines, until},
    went_well,
};

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
    let output = machines.run(agent.addr, "after", BRIEF);
    went_well(&output, &agent);
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
        machines.run(at, "replayed", BRIEF)
    });
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    agent.wait_for("injected, changed, left out or replayed");
    until("its server is gone", || agent.children().is_empty());

    let output = machines.run(agent.addr, "after", BRIEF);
    went_well(&output, &agent);
}
