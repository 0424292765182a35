//! Two machines, as two network namespaces stand for them: the agent in one, a run in the other, and whoever else reaches
//! the agent's port.
#![forbid(unsafe_code)]

mod breakdown;
mod deaths;
mod flood;
mod harness;
mod interfaces;
mod runs;
mod strangers;

use std::process::Output;

use harness::Agent;
use serde_json::Value;
use tests::stderr;

/// A run over every kind of back end.
const SHORT: &[&str] = &[
    "rtt-ladder",
    "--backend",
    "udp-blocking,udp-spin,af-packet,af-xdp-spin,xdp-echo",
    "--axis",
    "frame_bytes=64",
    "--budget",
    "2s",
];

/// A run that shows that the agent serves, and nothing else.
const BRIEF: &[&str] = &[
    "rtt-ladder",
    "--backend",
    "udp-blocking",
    "--axis",
    "frame_bytes=64",
    "--budget",
    "1s",
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
fn rows(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|record| record["record"] == "row").collect()
}

/// The run went to its end. 1: a claim about speed may fail; 3: a busy machine may make rows INVALID.
#[track_caller]
fn went_well(output: &Output, agent: &Agent) {
    assert!(
        matches!(output.status.code(), Some(0 | 1 | 3)),
        "{}{}",
        stderr(output),
        agent.log()
    );
}
