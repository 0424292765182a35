//! `rtt-ladder`: one request and its reply over every way of moving frames, from a ring in memory to a program in the
//! driver. Ping-pong, one request in flight: what is measured is the path and the wake-up, not queueing.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    backends::{self, Room},
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    experiments::judge::{self, Bound, measured_ratio},
    record::{Outcome, Row},
    table::{Arm, Table, latency_ns},
    trial::{self, Cpus, Load, Position, Trial},
};

/// See the module.
#[derive(Debug)]
pub struct RttLadder;

const FRAME_BYTES: Axis = Axis {
    name: "frame_bytes",
    meaning: "size of request and reply: our header and payload, without UDP, IP and Ethernet",
    full: &["64", "256", "1024", "1472", "4096", "8972"],
    tour: &["64"],
    smallest: "64",
    allowed: Allowed::Number(44.0, 8972.0),
};

const CPUS: Axis = Axis {
    name: "cpus",
    meaning: "one: both ends share a CPU (path length, sleeping back ends only); two: a CPU each",
    full: &["two", "one"],
    tour: &["two"],
    smallest: "two",
    allowed: Allowed::Words,
};

/// The rung that every other is compared with, and the one that is measured twice a round.
const REFERENCE: &str = "udp-blocking";

/// Long enough that a request is lost and not late.
const TIMEOUT: Duration = Duration::from_millis(500);

impl Experiment for RttLadder {
    fn id(&self) -> &'static str {
        "rtt-ladder"
    }

    fn title(&self) -> &'static str {
        "The RTT ladder"
    }

    fn question(&self) -> &'static str {
        "What does one request and its reply cost over each way of moving frames, and what of that is the wake-up?"
    }

    fn how(&self) -> &'static str {
        "An echo server in a process of its own answers one request at a time (ping-pong). Every back end is measured \
         once per round, in an order shuffled by the seed; udp-blocking is measured twice per round, and the difference \
         between these two identical arms is the noise floor. CPU time is what the kernel charged to each end."
    }

    fn axes(&self) -> &'static [Axis] {
        &[FRAME_BYTES, CPUS]
    }

    fn backends(&self) -> Vec<&'static str> {
        backends::BACKENDS.iter().map(|backend| backend.name).collect()
    }

    /// What the claims take, and each way of moving frames at its quickest; how else one can wait on it, or attach it, is for the
    /// whole ladder.
    fn tour_backends(&self) -> Vec<&'static str> {
        vec![
            "loopback",
            "shm",
            REFERENCE,
            "udp-epoll",
            "udp-busy-poll",
            "udp-spin",
            "uring",
            "uring-spin",
            "uring-sqpoll",
            "af-packet-spin",
            "af-xdp",
            "af-xdp-spin",
            "xdp-echo-spin",
        ]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        2.5
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let ladder = lab.backends(self);
        let mut points = Vec::new();
        let frame_sizes = lab.frame_sizes(&FRAME_BYTES);
        for cpus in lab.values(&CPUS) {
            if cpus == "one" && lab.place.agent().is_some() {
                lab.say("cpus=one is left out: the ends are on two machines, each with CPUs of its own");
                continue;
            }
            points.extend(frame_sizes.iter().map(|frame_bytes| (cpus.clone(), *frame_bytes)));
        }
        let mut arms = Vec::new();
        for (cpus, frame_bytes) in &points {
            for backend in &ladder {
                // SQPOLL's kernel threads spin beside the ends: on fewer CPUs they measure each other. Whoever asks by name
                // or for everything gets the INVALID row that shows it.
                if lab.choice.depth == Depth::Tour
                    && backend.name == "uring-sqpoll"
                    && lab.place.agent().is_none()
                    && lab.place.cpus().len() < 4
                {
                    lab.say("uring-sqpoll keeps two CPUs busy at each end; the tour leaves it out on fewer than four");
                    continue;
                }
                // Two spinning ends on one CPU measure the scheduler's time slice.
                if cpus == "one" && !backend.sleeps() {
                    continue;
                }
                arms.push((cpus.as_str(), *frame_bytes, *backend, false));
                if backend.name == REFERENCE {
                    arms.push((cpus.as_str(), *frame_bytes, *backend, true));
                }
            }
        }
        let plan = lab.plan(arms.len(), Duration::from_millis(100));
        lab.in_rounds(&arms, plan.rounds_count, |lab, turn| {
            let (cpus, frame_bytes, backend, twin) = *turn.arm;
            lab.progress.set_message(format!(
                "{}, {frame_bytes} bytes, round {}",
                backend.name,
                turn.round + 1
            ));
            let trial = Trial {
                backend,
                client_backend: None,
                frame_bytes,
                cpus: if cpus == "one" { Cpus::One } else { Cpus::Two },
                load: Load::Closed { duration: plan.trial },
                timeout: TIMEOUT,
                stall: None,
                service_spin: Duration::ZERO,
                room: Room { frames_count: 64 },
                overflow_is_measured: false,
            };
            let client_id = turn.number;
            lab.record_until_valid(|lab| {
                let outcome = trial::run(lab, &trial, client_id)?;
                let position = Position {
                    experiment: self.id(),
                    axis: BTreeMap::from([
                        (FRAME_BYTES.name.to_owned(), frame_bytes.to_string()),
                        (CPUS.name.to_owned(), cpus.to_owned()),
                    ]),
                    round: turn.round,
                    twin,
                    seed: lab.choice.seed,
                };
                Ok(outcome.into_row(&trial, position))
            })
        })
    }
}

const CLAIMS: &[Claim] = &[
    Claim {
        id: "bypass-ladder",
        sentence: "RTT falls rung by rung: sockets, busy polling, io_uring, AF_XDP, XDP in the driver, DPDK, RDMA",
        source: Source::Published {
            work: "the usual account of kernel bypass, as in \"Distributed Systems\", chapter 8.5",
            place: "SmartNICs and DPUs",
        },
        invariant: "Each rung's median is below the one before it, measured in the same rounds. All seven rungs are \
                    needed: a ladder with missing rungs is not judged.",
        judge: bypass_ladder,
    },
    Claim {
        id: "xdp-halves-an-echo",
        sentence: "On one CPU, an echo that an XDP program answers costs at most 0.52 of one that a socket answers",
        source: Source::Ours {
            seen: "a prototype over veth: 0.51 of a blocking socket echo, as no server is woken and no socket is passed",
        },
        invariant: "The client is the same blocking socket on the same CPU; only who answers differs (xdp-echo, native, and \
                    udp-blocking). Path lengths, not network latencies: over veth the program runs inside the client's own \
                    send. Decided by the paired ratio of medians at 64 bytes.",
        judge: xdp_halves_an_echo,
    },
    Claim {
        id: "wakeup-dominates",
        sentence: "With a CPU for each end, not sleeping alone cuts the RTT of a plain UDP socket to half or less",
        source: Source::Ours {
            seen: "the wake-up costs more than the network stack on virtual machines",
        },
        invariant: "Only the wait differs between the two arms (udp-spin and udp-blocking): same socket, same calls to \
                    send, same size. Decided by the paired ratio of medians at 64 bytes.",
        judge: wakeup_dominates,
    },
    Claim {
        id: "uring-no-shortcut",
        sentence: "For a ping-pong that sleeps, io_uring is not faster than a blocking socket: at least 0.9 of its RTT",
        source: Source::Ours {
            seen: "liburing's own users report it as \"io_uring is slower than epoll\"",
        },
        invariant: "Same payload, both ends sleeping, both over one UDP socket. Decided by the paired ratio of medians.",
        judge: uring_no_shortcut,
    },
];

const SMALL: &[(&str, &str)] = &[("frame_bytes", "64"), ("cpus", "two")];

fn p50(row: &Row) -> Option<f64> {
    latency_ns(0.5)(row)
}

fn bypass_ladder(table: &Table) -> Judgement {
    let reference = Arm::of(REFERENCE, SMALL);
    let rungs = [
        "udp-busy-poll",
        "udp-spin",
        "uring-spin",
        "af-packet-spin",
        "af-xdp-spin",
        "xdp-echo-spin",
    ];
    let measured = rungs
        .into_iter()
        .filter_map(|rung| {
            let ratio = table.ratio(Arm::of(rung, SMALL), reference, p50)?;
            Some(measured_ratio(
                &format!("p50 of {rung} ÷ p50 of {REFERENCE}"),
                &ratio,
                "",
            ))
        })
        .collect();
    let why = "the rung DPDK is not part of this version, and RDMA is software where there is no NIC for it (rdma-ladder); the figures \
               show the rungs that are here";
    Judgement::new(Outcome::NotMeasured { why: why.to_owned() }, measured)
}

fn xdp_halves_an_echo(table: &Table) -> Judgement {
    const ONE_CPU: &[(&str, &str)] = &[("frame_bytes", "64"), ("cpus", "one")];
    judge::ratio(
        table,
        "p50 of xdp-echo ÷ p50 of udp-blocking, 64 bytes, one CPU",
        (Arm::of("xdp-echo", ONE_CPU), Arm::of(REFERENCE, ONE_CPU)),
        p50,
        Bound::AtMost(0.52),
    )
}

fn wakeup_dominates(table: &Table) -> Judgement {
    let what = "p50 of udp-spin ÷ p50 of udp-blocking, 64 bytes";
    if !judge::two_cpus(table) {
        return Judgement::not_measured("both ends share a CPU on this machine; two spinning ends need two");
    }
    judge::ratio(
        table,
        what,
        (Arm::of("udp-spin", SMALL), Arm::of(REFERENCE, SMALL)),
        p50,
        Bound::AtMost(0.5),
    )
}

fn uring_no_shortcut(table: &Table) -> Judgement {
    let what = "p50 of uring ÷ p50 of udp-blocking, 64 bytes";
    judge::ratio(
        table,
        what,
        (Arm::of("uring", SMALL), Arm::of(REFERENCE, SMALL)),
        p50,
        Bound::AtLeast(0.9),
    )
}
