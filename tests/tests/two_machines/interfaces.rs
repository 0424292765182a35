//! Interfaces, addresses and ports: those that cannot be meant are refused, and those that are meant are used.

use std::{
    net::IpAddr,
    process::{Command, Stdio},
};

use dataplane_netns::Host;
use tests::stderr;

use crate::{harness::Machines, rows, went_well};

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
        "rtt-ladder",
        "--backend",
        "udp-blocking,udp-spin,af-packet",
        "--axis",
        "frame_bytes=64",
        "--budget",
        "1s",
        "--force-interface",
        "--local-address",
        &local,
        "--udp-ports",
        "9001,9000",
    ];
    let output = machines.run(agent.addr, "forced", &forced);
    let records = machines.records("forced");
    let place = records[0]["place"].as_str().expect("a place");
    assert!(place.contains(&format!("with {local} to")), "{place}");
    for backend in ["udp-blocking", "udp-spin", "af-packet"] {
        assert!(
            rows(&records).iter().any(|row| row["backend"] == backend),
            "no row of {backend}"
        );
    }
    went_well(&output, &agent);
}
