//! `incast-write`: many connections write into one memory at once: what it takes in, how long each waits, and what is sent again.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use dataplane_waist::WrId;
use rdma::{Data, EndpointCounters, Operation, PathMtu, QpOptions, SendRequest};

use super::judge::{self, Bound};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    measure::Recorder,
    record::{Better, Metric, Row},
    remote_memory::{
        asked::{Asking, Done, providers},
        pair::{Counting, Side, Via, WithEnds},
    },
    table::{Arm, Table, latency_ns},
    trial::Position,
};

/// See the module.
#[derive(Debug)]
pub struct IncastWrite;

const WRITERS: Axis = Axis {
    name: "writers",
    meaning: "connections that write into the one memory, each with one write under way",
    full: &["1", "2", "4", "8", MANY],
    tour: &["1", MANY],
    smallest: "2",
    allowed: Allowed::Number(1.0, 64.0),
};

const BYTES: Axis = Axis {
    name: "bytes",
    meaning: "bytes of a write",
    full: &[MAIN_BYTES],
    tour: &[MAIN_BYTES],
    smallest: MAIN_BYTES,
    allowed: Allowed::Number(1.0, 1_048_576.0),
};

const OPERATION: Axis = Axis {
    name: "operation",
    meaning: "write; write-imm: a write and a word for a completion, which takes a receive that the reader must have posted",
    full: &[WRITE, WRITE_IMM],
    tour: &[WRITE],
    smallest: WRITE,
    allowed: Allowed::Words,
};

const PROVIDER: Axis = Axis {
    name: "provider",
    meaning: "what moves the bytes (the tables' back end): rdma-shm, in memory that both share; rdma-roce, RoCEv2 over UDP sockets; \
              rdma-roce-af-xdp, RoCEv2 over AF_XDP; rdma-verbs, a device of libibverbs",
    full: &["rdma-shm", "rdma-roce", "rdma-roce-af-xdp", "rdma-verbs"],
    tour: &["rdma-shm", "rdma-roce", "rdma-roce-af-xdp"],
    smallest: "rdma-shm",
    allowed: Allowed::Words,
};

const WRITE: &str = "write";
const WRITE_IMM: &str = "write-imm";
const MANY: &str = "16";
const MANY_COUNT: f64 = 16.0;
const MAIN_BYTES: &str = "65536";
const GOODPUT: &str = "goodput";

const TRIAL_MIN: Duration = Duration::from_millis(100);
const WARM_UP: Duration = Duration::from_millis(15);
/// No write takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

const CLAIMS: &[Claim] = &[
    Claim {
        id: "incast-write-goodput",
        sentence: "Sixteen writers together move at least nine tenths of the bytes per second that one moves",
        source: Source::Ours {
            seen: "each has at most a window of 128 packets of 1 KiB under way, and the reader's end has room for those of 16",
        },
        invariant: "Writes of 64 KiB, one under way for each connection, all driven by one thread, into one memory that another thread \
                    serves. Decided by the paired ratio of goodput, every provider in software that is here.",
        judge: goodput,
    },
    Claim {
        id: "incast-write-waits-its-turn",
        sentence: "With sixteen writers a write takes at most 20 times as long as with one",
        source: Source::Ours {
            seen: "writers that take turns wait for the fifteen others: 16 times; what is above is loss and its timeouts",
        },
        invariant: "As incast-write-goodput. Decided by the paired ratio of the 99th percentiles of a write's time, every provider in \
                    software that is here.",
        judge: turns,
    },
];

#[derive(Clone, Copy, Debug)]
struct Rung {
    via: Via,
    writers_count: usize,
    bytes: u32,
    with_word: bool,
}

impl Experiment for IncastWrite {
    fn id(&self) -> &'static str {
        "incast-write"
    }

    fn title(&self) -> &'static str {
        "Many writers, one reader"
    }

    fn question(&self) -> &'static str {
        "What does one memory take in when many connections write into it at once, and how long does each write wait?"
    }

    fn how(&self) -> &'static str {
        "As many connections as there are writers, each with one write under way, between two ends: one thread drives all writers, another \
         one is what a NIC would be for the memory they write into; neither rests. A write counts from its call to its completion: the \
         reader's end has it. Packets sent again, timeouts and \"no receive is posted\" are the endpoints' own counts. Arms take turns in \
         an order drawn from the seed. The path MTU is 1024 bytes."
    }

    fn axes(&self) -> &'static [Axis] {
        &[WRITERS, BYTES, OPERATION, PROVIDER]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("both ends of a provider are threads of one process")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let rungs = rungs(lab);
        let plan = lab.plan(rungs.len(), TRIAL_MIN);
        lab.in_rounds(&rungs, plan.rounds_count, |lab, turn| {
            let rung = *turn.arm;
            let what = format!("{}, {} writers", rung.via.name(), rung.writers_count);
            lab.progress.set_message(format!("{what}, round {}", turn.round + 1));
            let round = turn.round;
            lab.record_until_valid(|lab| {
                let position = Position {
                    experiment: self.id(),
                    axis: axis(&rung),
                    round,
                    twin: false,
                    seed: lab.choice.seed,
                };
                let measured = Measured {
                    lab,
                    rung,
                    position,
                    duration: plan.trial,
                };
                rung.via
                    .open(lab.place, rung.writers_count, measured)
                    .with_context(|| what.clone())
            })
        })
    }
}

fn rungs(lab: &Lab<'_>) -> Vec<Rung> {
    let mut rungs = Vec::new();
    for via in providers(lab, &lab.values(&PROVIDER)) {
        for operation in lab.values(&OPERATION) {
            for bytes in lab.numbers(&BYTES) {
                rungs.extend(lab.numbers(&WRITERS).into_iter().map(|writers_count| Rung {
                    via,
                    writers_count: writers_count as usize,
                    bytes: bytes as u32,
                    with_word: operation == WRITE_IMM,
                }));
            }
        }
    }
    rungs
}

fn axis(rung: &Rung) -> BTreeMap<String, String> {
    let operation = if rung.with_word { WRITE_IMM } else { WRITE };
    BTreeMap::from([
        (WRITERS.name.to_owned(), rung.writers_count.to_string()),
        (BYTES.name.to_owned(), rung.bytes.to_string()),
        (OPERATION.name.to_owned(), operation.to_owned()),
        (PROVIDER.name.to_owned(), rung.via.name().to_owned()),
    ])
}

struct Measured<'a> {
    lab: &'a Lab<'a>,
    rung: Rung,
    position: Position,
    duration: Duration,
}

impl WithEnds for Measured<'_> {
    type Out = Row;

    fn run<P: Counting + Send>(self, ends: [P; 2]) -> anyhow::Result<Row> {
        let Measured {
            lab,
            rung,
            position,
            duration,
        } = self;
        let asking = Asking {
            lab,
            via: rung.via,
            position,
            // Each has a place of its own, at both ends.
            connections_count: rung.writers_count,
            len_bytes: rung.bytes,
            qp: QpOptions {
                path_mtu: PathMtu::B1024,
                ..QpOptions::default()
            },
        };
        let ask = |near: &mut Side<P>| write(near, &rung, duration, lab.stop);
        asking.measure(ends, ask, |served, counters| {
            metrics(&served.asked, rung.bytes, counters)
        })
    }
}

/// A write of each connection under way until the time is over; then until all are done.
fn write<P: Counting>(near: &mut Side<P>, rung: &Rung, duration: Duration, stop: &AtomicBool) -> anyhow::Result<Done> {
    let mut latency = Recorder::new();
    let begun = Instant::now();
    let warm = begun + WARM_UP;
    let end = warm + duration;
    let place_bytes = u64::from(rung.bytes).next_multiple_of(64);
    let mut begins = vec![begun; rung.writers_count];
    let mut idle: Vec<usize> = (0..rung.writers_count).collect();
    let (mut count, mut last) = (0u64, warm);
    let mut finished = Vec::with_capacity(rung.writers_count);
    loop {
        let now = Instant::now();
        let is_over = now >= end || stop.load(Ordering::Relaxed);
        if is_over && idle.len() == rung.writers_count {
            break;
        }
        ensure!(now < end + PATIENCE, "a write that nobody acknowledges");
        while !is_over && let Some(index) = idle.pop() {
            let at_bytes = index as u64 * place_bytes;
            let request = SendRequest {
                wr_id: WrId(index as u64),
                operation: Operation::Write {
                    data: Data::Local(near.local(at_bytes, rung.bytes)),
                    to: near.remote(at_bytes),
                    imm: rung.with_word.then_some(index as u32),
                },
                signalled: true,
            };
            near.provider.post_send(&near.qps[index], &request)?;
            begins[index] = Instant::now();
        }
        near.provider.progress()?;
        near.provider
            .poll_cq(rung.writers_count, &mut |completion| finished.push(completion));
        if finished.is_empty() {
            continue;
        }
        let now = Instant::now();
        for completion in finished.drain(..) {
            completion.result?;
            let index = completion.wr_id.0 as usize;
            idle.push(index);
            if now >= warm {
                // What began before was warm-up in part, and its bytes are a share of a per mille.
                latency.record(now.duration_since(begins[index]).as_nanos() as u64);
                count += 1;
                last = now;
            }
        }
    }
    Ok(Done {
        latency,
        count,
        elapsed: last.duration_since(warm),
    })
}

fn metrics(done: &Done, bytes: u32, counters: &[Option<EndpointCounters>]) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    let Done { count, elapsed, .. } = done;
    put("operations", *count as f64, "count", Better::Neither);
    if *count > 0 && !elapsed.is_zero() {
        let goodput = *count as f64 * f64::from(bytes) * 8.0 / elapsed.as_secs_f64();
        put(GOODPUT, goodput, "bit/s", Better::Higher);
    }
    let sum = |of: fn(&EndpointCounters) -> u64| counters.iter().flatten().map(of).sum::<u64>() as f64;
    put("resent_packets", sum(|end| end.qp.resent_count), "count", Better::Lower);
    put("timeouts", sum(|end| end.qp.timeouts_count), "count", Better::Lower);
    put("rnr_naks", sum(|end| end.qp.rnr_naks_count), "count", Better::Lower);
    metrics
}

const MANY_WRITERS: &[(&str, &str)] = &[("writers", MANY), ("bytes", MAIN_BYTES), ("operation", WRITE)];
const ONE_WRITER: &[(&str, &str)] = &[("writers", "1"), ("bytes", MAIN_BYTES), ("operation", WRITE)];

fn goodput(table: &Table) -> Judgement {
    judge::each_provider(table, |via| {
        judge::ratio(
            table,
            &format!("goodput of {MANY} writers ÷ of one, {}", via.name()),
            (Arm::of(via.name(), MANY_WRITERS), Arm::of(via.name(), ONE_WRITER)),
            |row: &Row| Some(row.metrics.get(GOODPUT)?.value),
            Bound::AtLeast(0.9),
        )
    })
}

fn turns(table: &Table) -> Judgement {
    judge::each_provider(table, |via| {
        judge::ratio(
            table,
            &format!("p99 of a write, {MANY} writers ÷ one, {}", via.name()),
            (Arm::of(via.name(), MANY_WRITERS), Arm::of(via.name(), ONE_WRITER)),
            latency_ns(0.99),
            Bound::AtMost(1.25 * MANY_COUNT),
        )
    })
}
