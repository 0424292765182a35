//! `peers`: our ping-pong beside sockperf's, over the same veth pair, in the same minute. A lab whose own client or
//! server were slow would charge that to every back end it measures.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::{
    backends::{self, Room},
    claim::{Claim, Source},
    experiment::{Axis, Experiment, Lab},
    experiments::judge::{self, Bound},
    host::{self, Seat},
    place::End,
    record::{Better, Metric, ModeRecord, Row, Validity},
    table::{Arm, Table},
    trial::{self, Cpus, Load, Position, Trial},
};

/// See the module.
#[derive(Debug)]
pub struct Peers;

const OURS: &str = "udp-blocking";
const FRAME_BYTES: usize = 64;

/// sockperf measures in whole seconds.
const DURATION: Duration = Duration::from_secs(1);

impl Experiment for Peers {
    fn id(&self) -> &'static str {
        "peers"
    }

    fn title(&self) -> &'static str {
        "Beside sockperf"
    }

    fn question(&self) -> &'static str {
        "Is our own ping-pong as fast as the ping-pong of a tool that many trust?"
    }

    fn how(&self) -> &'static str {
        "sockperf (Debian's package) and dplab take turns between the same two ends: blocking UDP sockets, 64 bytes, client \
         and server on one CPU, so that the path is measured and not the wake-up across CPUs. sockperf is asked for the \
         full round trip (--full-rtt); by default it prints half of it."
    }

    fn axes(&self) -> &'static [Axis] {
        &[]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![OURS]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("it starts sockperf at both ends, on one CPU")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        if Command::new("sockperf").arg("--version").output().is_err() {
            lab.say("sockperf is not installed, so there is nothing to compare with: apt-get install sockperf");
            return Ok(());
        }
        let Some(ours) = backends::by_name(OURS) else {
            bail!("{OURS} is not a back end")
        };
        let arms = ["sockperf", OURS];
        // sockperf needs 400 ms to warm up and as long to start.
        let plan = lab.plan(arms.len(), DURATION + Duration::from_millis(500));
        lab.in_rounds(&arms, plan.rounds_count, |lab, turn| {
            lab.progress
                .set_message(format!("{}, round {}", *turn.arm, turn.round + 1));
            let position = Position {
                experiment: self.id(),
                axis: BTreeMap::from([("frame_bytes".to_owned(), FRAME_BYTES.to_string())]),
                round: turn.round,
                twin: false,
                seed: lab.choice.seed,
            };
            let row = match *turn.arm {
                "sockperf" => sockperf(lab, position)?,
                _ => {
                    let trial = Trial {
                        backend: ours,
                        client_backend: None,
                        frame_bytes: FRAME_BYTES,
                        cpus: Cpus::One,
                        load: Load::Closed { duration: DURATION },
                        timeout: Duration::from_millis(500),
                        stall: None,
                        service_spin: Duration::ZERO,
                        room: Room { frames_count: 64 },
                        overflow_is_measured: false,
                    };
                    let mut row = trial::run(lab, &trial, turn.round)?.into_row(&trial, position);
                    let p50 = row.latency.as_ref().and_then(|_| crate::table::latency_ns(0.5)(&row));
                    if let Some(value) = p50 {
                        row.metrics.insert(P50.to_owned(), nanoseconds(value));
                    }
                    row
                }
            };
            lab.record(row)
        })
    }
}

/// The one figure that both sides have.
const P50: &str = "rtt_p50";

fn nanoseconds(value: f64) -> Metric {
    Metric {
        value,
        unit: "ns".to_owned(),
        better: Better::Lower,
    }
}

/// A child that is killed when it is no longer needed.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One ping-pong of sockperf's, both ends on the first CPU.
fn sockperf(lab: &Lab<'_>, position: Position) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let started = Instant::now();
    let server_addr = lab.place.endpoint(End::Server).addr;
    let port = if server_addr.port() == 0 {
        "11111".to_owned()
    } else {
        server_addr.port().to_string()
    };
    let address = server_addr.ip().to_string();
    let on_cpu = lab.place.cpus().first().copied();
    // A thread of its own, because its children inherit its CPU.
    let text = thread::scope(|scope| {
        let measuring = scope.spawn(|| -> anyhow::Result<String> {
            host::settle(
                "client",
                Seat {
                    cpu: on_cpu,
                    spins: false,
                    is_shared: true,
                },
            );
            let mut server = lab
                .place
                .inside(End::Server, || {
                    Command::new("sockperf")
                        .args(["server", "-i", &address, "-p", &port])
                        .stdin(Stdio::null())
                        .stdout(Stdio::piped())
                        .stderr(Stdio::null())
                        .spawn()
                        .map(Killed)
                })?
                .context("starting sockperf's server")?;
            wait_until_blocked(&mut server)?;
            let output = lab
                .place
                .inside(End::Client, || {
                    Command::new("sockperf")
                        .args([
                            "ping-pong",
                            "-i",
                            &address,
                            "-p",
                            &port,
                            "-m",
                            &FRAME_BYTES.to_string(),
                            "--full-rtt",
                        ])
                        .args(["-t", &DURATION.as_secs().to_string()])
                        .stdin(Stdio::null())
                        .output()
                })?
                .context("running sockperf's client")?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
        });
        measuring
            .join()
            .unwrap_or_else(|_| bail!("the thread that runs sockperf panicked"))
    })?;
    let mut metrics = BTreeMap::new();
    for (name, percentile) in [
        (P50, "50.000"),
        ("rtt_p90", "90.000"),
        ("rtt_p99", "99.000"),
        ("rtt_p99_9", "99.900"),
    ] {
        if let Some(microseconds) = percentile_of(&text, percentile) {
            metrics.insert(name.to_owned(), nanoseconds(microseconds * 1000.0));
        }
    }
    if !metrics.contains_key(P50) {
        let last = text
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("nothing");
        bail!("sockperf printed no median; its last words: {last}");
    }
    Ok(Row {
        experiment: position.experiment.to_owned(),
        backend: "sockperf".to_owned(),
        mode: ModeRecord::Native,
        axis: position.axis,
        round: position.round,
        twin: position.twin,
        seed: position.seed,
        at_s,
        elapsed_s: started.elapsed().as_secs_f64(),
        latency: None,
        service: None,
        schedule_lag: None,
        metrics,
        series: Vec::new(),
        facts: BTreeMap::from([
            ("program".to_owned(), "sockperf ping-pong --full-rtt".to_owned()),
            ("yardstick".to_owned(), "another program's ping-pong".to_owned()),
        ]),
        validity: Validity::Valid,
    })
}

/// Waits for the server to say that it listens.
fn wait_until_blocked(server: &mut Killed) -> anyhow::Result<()> {
    let stdout = server.0.stdout.take().context("sockperf's output")?;
    for line in BufReader::new(stdout).lines() {
        if line?.contains("using recvfrom() to block") {
            // It says so just before it does.
            thread::sleep(Duration::from_millis(20));
            return Ok(());
        }
    }
    bail!("sockperf's server ended before it listened; is its port taken?")
}

/// "---> percentile 50.000 =    9.784", in microseconds.
fn percentile_of(text: &str, percentile: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.contains(&format!("percentile {percentile}")))?;
    line.rsplit('=').next()?.trim().parse().ok()
}

const CLAIMS: &[Claim] = &[Claim {
    id: "sockperf-parity",
    sentence: "Our blocking UDP ping-pong is not slower than sockperf's: p50 at most 1.00 of its p50",
    source: Source::Ours {
        seen: "an oath: what the lab adds to a measurement must not be more than the best tool adds",
    },
    invariant: "Same two hosts, same size, same CPU, both blocking, in alternating order; paired ratio of medians.",
    judge: |table: &Table| {
        let p50 = |row: &Row| row.metrics.get(P50).map(|metric| metric.value);
        let what = "p50 of udp-blocking ÷ p50 of sockperf, one CPU";
        judge::ratio(
            table,
            what,
            (Arm::of(OURS, &[]), Arm::of("sockperf", &[])),
            p50,
            Bound::AtMost(1.0),
        )
    },
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockperf_is_understood() {
        let text = "sockperf: ---> percentile 99.000 =   48.411\nsockperf: ---> percentile 50.000 =    9.784\n";
        assert_eq!(percentile_of(text, "50.000"), Some(9.784));
        assert_eq!(percentile_of(text, "90.000"), None);
        assert_eq!(percentile_of("sockperf: ---> percentile 50.000 = ?", "50.000"), None);
    }
}
