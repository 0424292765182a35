//! `rdma-ladder`: what each operation of RDMA costs over each provider that is here, beside a datagram there and back.

mod claims;
mod work;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use rdma::{PathMtu, QpOptions};

use self::work::{Verb, Work};
use crate::{
    backends::{self, Room},
    claim::Claim,
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    record::{Better, Metric, Row},
    remote_memory::{
        asked::{Asking, Done, providers},
        pair::{Counting, Side, Via, WithEnds},
        served::Served,
    },
    trial::{self, Cpus, Load, Position, Trial},
};

/// See the module.
#[derive(Debug)]
pub struct RdmaLadder;

const OPERATION: Axis = Axis {
    name: "operation",
    meaning: "send, write, write-imm (a write and a word for a completion), read, cas (compare and swap), faa (fetch and add), each \
              until its completion; echo: a datagram there and back, without RDMA",
    full: &[ECHO, "send", WRITE, "write-imm", READ, "cas", "faa"],
    tour: &[ECHO, WRITE],
    smallest: WRITE,
    allowed: Allowed::Words,
};

const BYTES: Axis = Axis {
    name: "bytes",
    meaning: "payload; of cas and faa always 8, of echo 64 and more: its frame with header",
    full: &["8", MAIN_BYTES, "1024", "65536"],
    tour: &[MAIN_BYTES],
    smallest: MAIN_BYTES,
    allowed: Allowed::Number(1.0, 1_048_576.0),
};

const DATA: Axis = Axis {
    name: "data",
    meaning: "registered: packets are made from registered memory; inline: copied into the request when it is posted, up to 256 bytes",
    full: &[REGISTERED, INLINE],
    tour: &[REGISTERED],
    smallest: REGISTERED,
    allowed: Allowed::Words,
};

const IN_FLIGHT: Axis = Axis {
    name: "in_flight",
    meaning: "operations under way at once: 1 for latency, more for throughput",
    full: &["1", MANY],
    tour: &["1"],
    smallest: "1",
    allowed: Allowed::Number(1.0, 128.0),
};

const SIGNAL_EVERY: Axis = Axis {
    name: "signal_every",
    meaning: "with several under way: every so many one makes a completion",
    full: &["1", "16", "64"],
    tour: &["1"],
    smallest: "1",
    allowed: Allowed::Number(1.0, 64.0),
};

const PROVIDER: Axis = Axis {
    name: "provider",
    meaning: "what moves the bytes (the tables' back end): rdma-shm, in memory that both share; rdma-roce, RoCEv2 over UDP sockets; \
              rdma-roce-af-xdp, RoCEv2 over AF_XDP; rdma-verbs, a device of libibverbs; udp-spin and af-xdp-spin, without RDMA",
    full: &[UDP, AF_XDP, "rdma-shm", "rdma-roce", "rdma-roce-af-xdp", "rdma-verbs"],
    tour: &[UDP, AF_XDP, "rdma-shm", "rdma-roce", "rdma-roce-af-xdp"],
    smallest: "rdma-shm",
    allowed: Allowed::Words,
};

const ECHO: &str = "echo";
const WRITE: &str = "write";
const READ: &str = "read";
const MAIN_BYTES: &str = "64";
const REGISTERED: &str = "registered";
const INLINE: &str = "inline";
const MANY: &str = "64";
/// The floors, as `dplab list` has them.
const UDP: &str = "udp-spin";
const AF_XDP: &str = "af-xdp-spin";
const FLOORS: [&str; 2] = [UDP, AF_XDP];

const THROUGHPUT: &str = "throughput";
const TRIAL_MIN: Duration = Duration::from_millis(100);
/// The smallest frame of an echo.
const ECHO_BYTES_MIN: usize = 64;
const TIMEOUT: Duration = Duration::from_millis(500);
/// What fits Ethernet's 1500 fits every provider here.
const PATH_MTU: PathMtu = PathMtu::B1024;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rung {
    Floor {
        backend: &'static str,
        bytes: usize,
        twin: bool,
    },
    Rdma {
        via: Via,
        verb: Verb,
        bytes: usize,
        is_inline: bool,
        in_flight: u64,
        signal_every: u64,
        twin: bool,
    },
}

impl Experiment for RdmaLadder {
    fn id(&self) -> &'static str {
        "rdma-ladder"
    }

    fn title(&self) -> &'static str {
        "The ladder of RDMA's operations"
    }

    fn question(&self) -> &'static str {
        "What does each operation of RDMA cost over each provider that is here, beside a datagram there and back?"
    }

    fn how(&self) -> &'static str {
        "Two threads, a CPU each, neither ever resting: one asks, the other one is what a NIC would be for the memory that is asked for. \
         With one operation under way its latency counts from the call to its completion, which for a write means that the other \
         end's endpoint has acknowledged it. With 64 under way completions per second count. RoCEv2 goes between two network namespaces, \
         over UDP sockets or over AF_XDP; beside it, in the same rounds, an echo server in a process of its own answers frames over \
         UDP sockets and over AF_XDP, both spinning. Arms take turns in an order drawn from the seed; the 64-byte write over UDP sockets \
         is measured twice a round. The path MTU is 1024 bytes."
    }

    fn axes(&self) -> &'static [Axis] {
        &[OPERATION, BYTES, DATA, IN_FLIGHT, SIGNAL_EVERY, PROVIDER]
    }

    fn backends(&self) -> Vec<&'static str> {
        FLOORS.to_vec()
    }

    fn claims(&self) -> &'static [Claim] {
        claims::CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.7
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("both ends of a provider are threads of one process")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let rungs = rungs(self, lab);
        let plan = lab.plan(rungs.len(), TRIAL_MIN);
        lab.in_rounds(&rungs, plan.rounds_count, |lab, turn| {
            let rung = *turn.arm;
            lab.progress
                .set_message(format!("{}, round {}", rung.describe(), turn.round + 1));
            let number = turn.number;
            let round = turn.round;
            lab.record_until_valid(|lab| {
                let position = Position {
                    experiment: self.id(),
                    axis: rung.axis(),
                    round,
                    twin: rung.is_twin(),
                    seed: lab.choice.seed,
                };
                measure(lab, rung, position, number, plan.trial).with_context(|| rung.describe())
            })
        })
    }
}

impl Rung {
    fn describe(&self) -> String {
        match self {
            Rung::Floor { backend, bytes, .. } => format!("{backend}, echo of {bytes} bytes"),
            Rung::Rdma {
                via,
                verb,
                bytes,
                in_flight,
                ..
            } => format!(
                "{}, {} of {bytes} bytes, {in_flight} under way",
                via.name(),
                verb.name()
            ),
        }
    }

    fn is_twin(&self) -> bool {
        match self {
            Rung::Floor { twin, .. } | Rung::Rdma { twin, .. } => *twin,
        }
    }

    fn axis(&self) -> BTreeMap<String, String> {
        let values = match *self {
            Rung::Floor { backend, bytes, .. } => [
                ECHO.to_owned(),
                bytes.to_string(),
                REGISTERED.to_owned(),
                "1".to_owned(),
                "1".to_owned(),
                backend.to_owned(),
            ],
            Rung::Rdma {
                via,
                verb,
                bytes,
                is_inline,
                in_flight,
                signal_every,
                ..
            } => [
                verb.name().to_owned(),
                bytes.to_string(),
                if is_inline { INLINE } else { REGISTERED }.to_owned(),
                in_flight.to_string(),
                signal_every.to_string(),
                via.name().to_owned(),
            ],
        };
        let names = RdmaLadder.axes().iter().map(|axis| axis.name.to_owned());
        names.zip(values).collect()
    }
}

fn rungs(experiment: &RdmaLadder, lab: &Lab<'_>) -> Vec<Rung> {
    let (wanted, operations) = (lab.values(&PROVIDER), lab.values(&OPERATION));
    let sizes: Vec<usize> = lab.numbers(&BYTES).into_iter().map(|bytes| bytes as usize).collect();
    let mut rungs = Vec::new();
    if operations.iter().any(|name| name == ECHO) {
        let frame_bytes_max = lab.place.frame_bytes_max().unwrap_or(usize::MAX);
        for backend in lab.backends(experiment) {
            let is_wanted = wanted.iter().any(|name| name == backend.name);
            let fit = |bytes: &&usize| is_wanted && (ECHO_BYTES_MIN..=frame_bytes_max).contains(*bytes);
            rungs.extend(sizes.iter().filter(fit).map(|&bytes| Rung::Floor {
                backend: backend.name,
                bytes,
                twin: false,
            }));
        }
    }
    for via in providers(lab, &wanted) {
        for verb in Verb::ALL {
            if operations.iter().any(|name| name == verb.name()) {
                rungs.extend(of_verb(lab, via, verb, &sizes));
            }
        }
    }
    rungs
}

/// The rungs of an operation. What says nothing new is left out unless it was asked for: several under way, and inline data, with
/// other operations than writes, and several under way with other sizes than the main one.
fn of_verb(lab: &Lab<'_>, via: Via, verb: Verb, sizes: &[usize]) -> Vec<Rung> {
    let is_chosen = |axis: &Axis| lab.choice.axes.contains_key(axis.name);
    let in_flights = lab.numbers(&IN_FLIGHT).into_iter().map(|number| number as u64);
    let signals: Vec<u64> = lab
        .numbers(&SIGNAL_EVERY)
        .into_iter()
        .map(|number| number as u64)
        .collect();
    let sizes = if verb.is_atomic() { &[8][..] } else { sizes };
    let mut rungs = Vec::new();
    for in_flight in in_flights {
        for &bytes in sizes {
            for data in lab.values(&DATA) {
                let is_inline = data == INLINE;
                if is_inline && (!verb.has_data() || bytes > QpOptions::default().inline_bytes_max) {
                    continue;
                }
                if is_inline && verb != Verb::Write && !is_chosen(&DATA) {
                    continue;
                }
                let is_main = verb == Verb::Write && bytes.to_string() == MAIN_BYTES && !is_inline;
                if in_flight > 1 && !is_main && !is_chosen(&IN_FLIGHT) {
                    continue;
                }
                for &signal_every in signals.iter().filter(|&&every| in_flight > 1 || every == 1) {
                    let rung = |twin| Rung::Rdma {
                        via,
                        verb,
                        bytes,
                        is_inline,
                        in_flight,
                        signal_every,
                        twin,
                    };
                    rungs.push(rung(false));
                    let is_twin = is_main && via == Via::RoceUdp && in_flight == 1;
                    if is_twin && lab.choice.depth != Depth::Smallest {
                        rungs.push(rung(true));
                    }
                }
            }
        }
    }
    rungs
}

fn measure(lab: &Lab<'_>, rung: Rung, position: Position, number: u32, duration: Duration) -> anyhow::Result<Row> {
    match rung {
        Rung::Floor { backend, bytes, .. } => {
            let trial = Trial {
                backend: backends::by_name(backend).context("a back end of the list")?,
                client_backend: None,
                frame_bytes: bytes,
                cpus: Cpus::Two,
                load: Load::Closed { duration },
                timeout: TIMEOUT,
                stall: None,
                service_spin: Duration::ZERO,
                room: Room { frames_count: 64 },
                overflow_is_measured: false,
            };
            Ok(trial::run(lab, &trial, number)?.into_row(&trial, position))
        }
        Rung::Rdma {
            via,
            verb,
            bytes,
            is_inline,
            in_flight,
            signal_every,
            ..
        } => {
            let work = Work {
                verb,
                len_bytes: bytes as u32,
                is_inline,
                in_flight,
                signal_every,
                duration,
                stop: lab.stop,
            };
            via.open(
                lab.place,
                1,
                Measured {
                    lab,
                    via,
                    work,
                    position,
                },
            )
        }
    }
}

/// A trial over whichever provider.
struct Measured<'a> {
    lab: &'a Lab<'a>,
    via: Via,
    work: Work<'a>,
    position: Position,
}

impl WithEnds for Measured<'_> {
    type Out = Row;

    fn run<P: Counting + Send>(self, ends: [P; 2]) -> anyhow::Result<Row> {
        let Measured {
            lab,
            via,
            work,
            position,
        } = self;
        let asking = Asking {
            lab,
            via,
            position,
            connections_count: 1,
            len_bytes: work.len_bytes,
            qp: QpOptions {
                path_mtu: PATH_MTU,
                send_requests_max: 128,
                receive_requests_max: 128,
                ..QpOptions::default()
            },
        };
        let ask = |near: &mut Side<P>| work::ask(near, &work);
        let mut row = asking.measure(ends, ask, |served, counters| {
            let resent_count = counters.iter().flatten().map(|end| end.qp.resent_count).sum();
            metrics(served, work.len_bytes, resent_count)
        })?;
        row.facts
            .insert("loop".to_owned(), "closed: a latency counts from its call".to_owned());
        Ok(row)
    }
}

fn metrics(served: &Served<Done>, len_bytes: u32, resent_count: u64) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    let (count, elapsed_s) = (served.asked.count as f64, served.asked.elapsed.as_secs_f64());
    put("operations", count, "count", Better::Neither);
    put("resent_packets", resent_count as f64, "count", Better::Lower);
    if count > 0.0 && elapsed_s > 0.0 {
        put(THROUGHPUT, count / elapsed_s, "1/s", Better::Higher);
        let goodput = count * f64::from(len_bytes) * 8.0 / elapsed_s;
        put("goodput", goodput, "bit/s", Better::Higher);
        for (name, used) in [
            ("client_cpu_per_op", served.client_used),
            ("server_cpu_per_op", served.server_used),
        ] {
            if let Some(used) = used {
                // The warm-up's operations are not counted, its CPU time is: both over their own time.
                let busy = used.on_cpu.as_secs_f64() / served.elapsed.as_secs_f64();
                put(name, busy * elapsed_s * 1e9 / count, "ns", Better::Lower);
            }
        }
    }
    metrics
}
