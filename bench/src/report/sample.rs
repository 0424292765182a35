//! A made-up run for tests and for looking at reports: real recorders, invented numbers. Never a result.

use std::{collections::BTreeMap, sync::OnceLock};

use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use super::ExperimentText;
use crate::{
    environment::{Environment, NoiseSource},
    measure::{QUANTILES, Recorder},
    record::{
        BackEndRecord, Better, Distribution, GeneratorCost, Measured, Metric, ModeRecord, Outcome, Record, Row, RunEnd,
        RunHeader, SCHEMA_VERSION, SeriesPoint, SupportRecord, Validity, VerdictRecord,
    },
    store::Run,
};

/// Texts of the fixture's experiments; one experiment is left without a text.
pub(crate) const TEXTS: &[ExperimentText] = &[
    ExperimentText {
        id: "rtt-ladder",
        title: "Round trips, rung by rung",
        question: "How long does one small request take from one host to another and back, on each way of moving frames?",
        how: "One client sends requests at times fixed beforehand, one after the other, over a veth pair between two \
              network namespaces; the server answers each at once. Every back end carries the same echo protocol. Back \
              ends take turns in rounds, in an order drawn from the seed.",
    },
    ExperimentText {
        id: "load-latency",
        title: "Latency under load",
        question: "What happens to the tail as the offered load grows?",
        how: "Send times are a Poisson process at each of several rates. The server is the same for all.",
    },
];

const ROUNDS_COUNT: u32 = 7;

/// (name, summary, support, median in ns, tail in ns, CPU ns per op of client and server, wake)
type Rung = (&'static str, &'static str, SupportRecord, f64, f64, f64, &'static str);

fn rungs() -> Vec<Rung> {
    use SupportRecord::{Emulated, Native};
    let stand_in = || Emulated {
        by: "the kernel's copy mode: veth has no zero-copy".into(),
    };
    vec![
        (
            "udp-blocking",
            "recvfrom and sendto, asleep in between",
            Native,
            15_200.0,
            2_600.0,
            9_800.0,
            "sleeps in recvfrom",
        ),
        (
            "udp-epoll",
            "epoll_wait, then recvmmsg and sendmmsg",
            Native,
            16_900.0,
            3_100.0,
            11_300.0,
            "sleeps in epoll_wait",
        ),
        (
            "udp-spin",
            "non-blocking recvfrom in a loop",
            Native,
            8_100.0,
            700.0,
            8_100.0,
            "spins",
        ),
        (
            "uring",
            "io_uring, multishot receive into a buffer ring",
            Native,
            14_100.0,
            2_300.0,
            8_900.0,
            "sleeps in io_uring_enter",
        ),
        (
            "af-packet",
            "a packet ring shared with the kernel",
            stand_in(),
            12_300.0,
            1_900.0,
            12_000.0,
            "polls the ring",
        ),
    ]
}

/// The whole fixture as records, in the order a run writes them.
pub(crate) fn records() -> Vec<Record> {
    let run = shared().clone();
    let mut records = vec![Record::Run(Box::new(run.header))];
    records.extend(run.rows.into_iter().map(|row| Record::Row(Box::new(row))));
    records.extend(run.verdicts.into_iter().map(Record::Verdict));
    records.extend(run.end.map(Record::End));
    records
}

/// The whole fixture, made once.
pub(crate) fn shared() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(run)
}

fn run() -> Run {
    let mut rng = Pcg64Mcg::seed_from_u64(42);
    let mut run = Run::new(header());
    let mut at_s = 0.4;
    for round in 0..ROUNDS_COUNT {
        for frame_bytes in ["64", "1472", "8972"] {
            for rung in rungs() {
                let slower = 1.0 + frame_bytes.parse::<f64>().unwrap() / 30_000.0;
                let twins: &[bool] = if rung.0 == "udp-blocking" {
                    &[false, true]
                } else {
                    &[false]
                };
                for &twin in twins {
                    let mut row = row(&mut rng, "rtt-ladder", &rung, slower, at_s, 1);
                    row.axis.insert("frame_bytes".into(), frame_bytes.into());
                    (row.round, row.twin) = (round, twin);
                    if rung.0 == "uring" && frame_bytes == "64" && round == 2 {
                        row.validity = Validity::Invalid {
                            reasons: vec![
                                "the hypervisor took 3.1 % of the CPU away (limit 1 %): replies waited for a CPU that \
                                 was not there; try a quieter machine or fewer busy back ends at once"
                                    .into(),
                            ],
                        };
                    }
                    at_s += row.elapsed_s;
                    run.rows.push(row);
                }
            }
        }
        for (index, rate) in ["10000", "20000", "50000", "100000", "200000"].iter().enumerate() {
            for rung in [rungs().swap_remove(0), rungs().swap_remove(2)] {
                let slower = 1.0 + 0.15 * 2.2f64.powi(index as i32);
                let lost_of = if index == 4 && rung.0 == "udp-blocking" {
                    40
                } else {
                    100_000
                };
                let mut row = row(&mut rng, "load-latency", &rung, slower, at_s, lost_of);
                row.axis.insert("offered_per_sec".into(), (*rate).into());
                row.round = round;
                at_s += row.elapsed_s;
                run.rows.push(row);
            }
        }
    }
    let mut untold = row(&mut rng, "without-a-text", &rungs()[2], 1.0, at_s, 1);
    untold.latency = None;
    untold.mode = ModeRecord::Simulated;
    run.rows.push(untold);
    run.verdicts = verdicts();
    run.end = Some(RunEnd {
        elapsed_s: 88.2,
        rows_count: run.rows.len() as u64,
        interrupted: false,
        steal_ratio: 0.004,
        errors: Vec::new(),
    });
    run
}

/// One row of `rung`; one request of `lost_of` is lost, none when that is 1.
fn row(rng: &mut Pcg64Mcg, experiment: &str, rung: &Rung, slower: f64, at_s: f64, lost_of: u64) -> Row {
    let (name, _, support, median_ns, tail_ns, cpu_ns, wake) = rung;
    let mut latency = Recorder::new();
    let mut service = Recorder::new();
    let mut lag = Recorder::new();
    let mut series = Vec::new();
    let drift = 1.0 + 0.01 * (rng.random::<f64>() - 0.5);
    for bucket in 0..20 {
        let mut point = SeriesPoint {
            at_ms: f64::from(bucket) * 25.0,
            sent_count: 250,
            lost_count: 0,
            p50_ns: None,
            max_ns: None,
        };
        let mut seen = Vec::new();
        for _ in 0..point.sent_count {
            if lost_of > 1 && rng.next_u64().is_multiple_of(lost_of) {
                latency.record_lost();
                service.record_lost();
                point.lost_count += 1;
                continue;
            }
            // A log-normal body and, once in 400, something that got in the way.
            let normal: f64 = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
            let hiccup = if rng.next_u64().is_multiple_of(400) {
                rng.random::<f64>() * 90_000.0
            } else {
                0.0
            };
            let exponential = -rng.random::<f64>().max(1e-12).ln() * tail_ns * 0.4;
            let ns = (median_ns * slower * drift * (0.05 * normal).exp() + exponential + hiccup) as u64;
            let late = (rng.random::<f64>() * 900.0) as u64;
            latency.record(ns + late);
            service.record(ns);
            lag.record(late);
            seen.push(ns + late);
        }
        seen.sort_unstable();
        point.p50_ns = seen.get(seen.len() / 2).copied();
        point.max_ns = seen.last().copied();
        series.push(point);
    }
    let metric = |value: f64, unit: &str, better| Metric {
        value,
        unit: unit.into(),
        better,
    };
    let distribution = |recorder: &Recorder| -> Option<Distribution> { Some(recorder.distribution(&QUANTILES)) };
    Row {
        experiment: experiment.into(),
        backend: (*name).into(),
        mode: match support {
            SupportRecord::Emulated { by } => ModeRecord::Emulated { by: by.clone() },
            _ => ModeRecord::Native,
        },
        axis: BTreeMap::new(),
        round: 0,
        twin: false,
        seed: 99,
        at_s: (at_s * 1e3).round() / 1e3,
        elapsed_s: 0.5,
        latency: distribution(&latency),
        service: distribution(&service),
        schedule_lag: distribution(&lag),
        metrics: BTreeMap::from([
            (
                "client_cpu_ns_per_op".into(),
                metric((cpu_ns * drift).round(), "ns", Better::Lower),
            ),
            (
                "server_cpu_ns_per_op".into(),
                metric((cpu_ns * 0.8 * drift).round(), "ns", Better::Lower),
            ),
            (
                "replies_per_sec".into(),
                metric((10_000.0 * drift).round(), "1/s", Better::Higher),
            ),
        ]),
        series,
        facts: BTreeMap::from([
            ("wake".into(), (*wake).into()),
            ("client_cpu".into(), "0".into()),
            ("server_cpu".into(), "1".into()),
        ]),
        validity: Validity::Valid,
    }
}

fn header() -> RunHeader {
    let mut backends: Vec<BackEndRecord> = rungs()
        .into_iter()
        .map(|(name, summary, support, ..)| BackEndRecord {
            name: name.into(),
            summary: summary.into(),
            support,
        })
        .collect();
    let more = |name: &str, summary: &str, support| BackEndRecord {
        name: name.into(),
        summary: summary.into(),
        support,
    };
    backends.push(more(
        "uring-sqpoll",
        "io_uring with a kernel thread that polls for submissions",
        SupportRecord::Unknown {
            why: "io_uring_setup answered EPERM: kernel.io_uring_disabled is 1; `sysctl kernel.io_uring_disabled=0`"
                .into(),
        },
    ));
    backends.push(more(
        "dpdk",
        "a poll-mode driver in user space",
        SupportRecord::Absent {
            why: "libdpdk is not installed (looked for librte_eal.so.23); `apt-get install dpdk`".into(),
        },
    ));
    RunHeader {
        schema_version: SCHEMA_VERSION,
        version: "0.1.0".into(),
        git_commit: Some("0123456789abcdef0123456789abcdef01234567-dirty".into()),
        build_profile: "release".into(),
        command: ["dplab", "run", "--seed", "42", "--out", "runs/a fixture"]
            .map(Into::into)
            .into(),
        seed: 42,
        started_unix_ms: 1_790_000_000_000,
        budget_s: Some(90.0),
        place: "FIXTURE, not a measurement: two network namespaces and one veth pair, as they might be".into(),
        environment: Environment {
            facts: [
                ("kernel", "6.18.0-fixture"),
                ("cpu_model", "Imaginary CPU @ 2.00GHz"),
                ("cpus_online", "2"),
                ("clock_source", "tsc"),
                ("hypervisor", "KVM"),
                (
                    "cmdline",
                    "BOOT_IMAGE=/boot/vmlinuz root=UUID=0123-4567 ro quiet mitigations=auto nosmt=force console=ttyS0",
                ),
            ]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
            noise: vec![
                NoiseSource {
                    name: "governor".into(),
                    seen: "the CPU frequency governor is powersave".into(),
                    why: "a core that clocks up late makes the first replies after a pause slow".into(),
                    mend: Some("cpupower frequency-set -g performance".into()),
                },
                NoiseSource {
                    name: "load".into(),
                    seen: "load average 3.2 on 2 CPUs".into(),
                    why: "other work takes the CPU away from both ends".into(),
                    mend: None,
                },
            ],
        },
        backends,
        generator: Some(GeneratorCost {
            clock_read_ns: 24.5,
            record_ns: 6.25,
            loop_ns: 38.5,
        }),
        agent: None,
        published: Vec::new(),
    }
}

fn verdicts() -> Vec<VerdictRecord> {
    let verdict = |claim: &str, sentence: &str, source: &str, outcome, measured| VerdictRecord {
        claim: claim.into(),
        experiment: "rtt-ladder".into(),
        sentence: sentence.into(),
        source: source.into(),
        outcome,
        measured,
    };
    let measured = |name: &str, value, low, high, limit: &str| Measured {
        name: name.into(),
        value,
        unit: "ratio".into(),
        low,
        high,
        limit: limit.into(),
        samples_count: 7,
    };
    vec![
        verdict(
            "spin-halves-the-median",
            "A client and server that spin answer in at most 0.6 of the time of blocking ones.",
            "our own: first seen on one machine over a veth pair",
            Outcome::Holds,
            vec![
                measured(
                    "p50 of udp-spin ÷ p50 of udp-blocking",
                    Some(0.534),
                    Some(0.531),
                    Some(0.538),
                    "≤ 0.6",
                ),
                measured("p99 of udp-spin ÷ p99 of udp-blocking", Some(0.52), None, None, ""),
            ],
        ),
        verdict(
            "epoll-is-free",
            "Waiting in epoll costs nothing over blocking in recvfrom.",
            "A. Author, “A made-up paper”, VENUE'99, Fig. 3",
            Outcome::Fails,
            vec![measured(
                "p50 of udp-epoll ÷ p50 of udp-blocking",
                Some(1.12),
                Some(1.1),
                Some(1.13),
                "≤ 1.02",
            )],
        ),
        verdict(
            "uring-beats-sockets",
            "io_uring answers faster than blocking sockets.",
            "our own: to be established",
            Outcome::Inconclusive {
                why: "the interval reaches across the limit; more rounds (--budget 300s) would decide it".into(),
            },
            vec![measured(
                "p50 of uring ÷ p50 of udp-blocking",
                Some(0.97),
                Some(0.92),
                Some(1.03),
                "< 1",
            )],
        ),
        verdict(
            "dpdk-is-fastest",
            "A poll-mode driver in user space answers faster than every kernel path.",
            "folklore",
            Outcome::NotMeasured {
                why: "dpdk is absent here; it takes libdpdk (`apt-get install dpdk`)".into(),
            },
            Vec::new(),
        ),
    ]
}
