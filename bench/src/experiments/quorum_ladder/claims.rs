//! What the ladder claims, and how its rows decide it.

use std::time::Duration;

use dataplane_quorum::Timing;

use super::rungs::{DISK, ECHO, LOOPBACK, LOSSLESS, MEMORY, REFERENCE};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, Bound},
    record::{Outcome, Row},
    table::{Arm, ROUNDS_MIN, Table, latency_ns},
};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "quorum-commit-near-floor",
        sentence: "On one CPU, a commit among three replicas over UDP sockets costs at most 4.4 ping-pongs",
        source: Source::Ours {
            seen: "Viewstamped Replication in C++ took 5.6 ping-pongs on one CPU, Speculative Paxos 4.1, NuRaft 13; eight \
                   messages that serialize on one CPU make a floor of 4",
        },
        invariant: "Client, leader and followers share one CPU, sleep in the same system call and keep their logs in memory; \
                    the echo is answered in the same process over the same sockets in the same rounds. Decided by the \
                    paired ratio of medians, one request in flight.",
        judge: commit_near_floor,
    },
    Claim {
        id: "two-more-replicas",
        sentence: "On one CPU, going from three replicas to five adds at most as much as the first three cost beyond an echo",
        source: Source::Ours {
            seen: "each follower adds a send, a wake-up and an acknowledgement",
        },
        invariant: "As quorum-commit-near-floor. Decided by the paired ratio of medians of five and three replicas, at most 2.",
        judge: two_more_replicas,
    },
    Claim {
        id: "durable-commit-near-floor",
        sentence: "A durable commit among three replicas takes at most 1.3 times what the disk and two round trips take",
        source: Source::Ours {
            seen: "all replicas write while the frames are on their way, and whoever writes is woken when the disk is done",
        },
        invariant: "One request in flight, processes spread over the CPUs, logs written by direct I/O with RWF_DSYNC. The floor is \
                    measured in the same rounds: the same number of bytes written in the same way by one thread alone on the \
                    same disk, and twice the echo. Decided by the paired ratio of medians. The replicas' logs share one disk.",
        judge: durable_near_floor,
    },
    Claim {
        id: "log-thread-groups-commits",
        sentence: "With 16 requests in flight, a thread of its own for the log at least doubles a durable replica's throughput",
        source: Source::Ours {
            seen: "a replica that flushes in its turn receives one frame, flushes, and receives the next; with a thread a flush \
                   takes all that came meanwhile (greedy group commit)",
        },
        invariant: "A port of one frame a turn (udp-blocking), three replicas, one CPU; the same way to disk with and without the \
                    thread in the same rounds. Decided by the paired ratio of answers per second.",
        judge: thread_groups_commits,
    },
    Claim {
        id: "loss-costs-little",
        sentence: "One lost frame in a hundred costs at most 15 % of the throughput with 16 requests in flight",
        source: Source::Ours {
            seen: "a follower says what it lacks and is sent that alone; a quorum does not wait for it; the client knows its round \
                   trips",
        },
        invariant: "Every frame is lost with that probability by seed, whoever sends it: requests, answers, appends and \
                    acknowledgements. Three replicas in memory on one CPU. Decided by the paired ratio of answers per second.",
        judge: loss_costs_little,
    },
    Claim {
        id: "loss-stalls-shortly",
        sentence: "Where one frame in a hundred is lost, commits never stand still for longer than a heartbeat",
        source: Source::Ours {
            seen: "Timing::retransmit (2 ms), doubled up to Timing::heartbeat (20 ms), is the longest that anybody waits before \
                   it asks again; a system without it stalled for 7 s on one lost frame",
        },
        invariant: "As loss-costs-little. The longest time between two answers of any round, held against Timing::LOCAL.heartbeat. \
                    Where the same happens without loss, the machine did it, and nothing is decided.",
        judge: loss_stalls_shortly,
    },
];

/// Three replicas or what stands for them, in memory, on one CPU, over loopback.
#[derive(Clone, Copy)]
struct At {
    replicas: &'static str,
    in_flight: &'static str,
    log: &'static str,
    cpus: &'static str,
    loss: &'static str,
}

const BASE: At = At {
    replicas: "3",
    in_flight: "1",
    log: MEMORY,
    cpus: "one",
    loss: LOSSLESS,
};

type Axes = [(&'static str, &'static str); 7];

const fn axes(at: At) -> Axes {
    [
        ("replicas", at.replicas),
        ("in_flight", at.in_flight),
        ("log", at.log),
        ("cpus", at.cpus),
        ("place", LOOPBACK),
        ("sealed", "no"),
        ("loss", at.loss),
    ]
}

const THREE: &Axes = &axes(BASE);
const FIVE: &Axes = &axes(At { replicas: "5", ..BASE });
const ECHO_ALONE: &Axes = &axes(At { replicas: ECHO, ..BASE });
const DURABLE: &Axes = &axes(At {
    log: DSYNC,
    cpus: "all",
    ..BASE
});
const DISK_ALONE: &Axes = &axes(At {
    replicas: DISK,
    log: DSYNC,
    cpus: "all",
    ..BASE
});
const ECHO_SPREAD: &Axes = &axes(At {
    replicas: ECHO,
    cpus: "all",
    ..BASE
});
const THREADED: &Axes = &axes(At {
    in_flight: "16",
    log: DSYNC,
    ..BASE
});
const INLINE: &Axes = &axes(At {
    in_flight: "16",
    log: "dsync-inline",
    ..BASE
});
const BUSY: &Axes = &axes(At {
    in_flight: "16",
    ..BASE
});
const LOSSY: &Axes = &axes(At {
    in_flight: "16",
    loss: "0.01",
    ..BASE
});

const DSYNC: &str = "dsync";

fn arm(axis: &'static Axes) -> Arm<'static> {
    Arm::of(REFERENCE, axis)
}

fn p50(row: &Row) -> Option<f64> {
    latency_ns(0.5)(row)
}

fn goodput(row: &Row) -> Option<f64> {
    row.metrics.get("goodput").map(|metric| metric.value)
}

fn stall_max_ns(row: &Row) -> Option<f64> {
    row.metrics.get("stall_max").map(|metric| metric.value)
}

fn commit_near_floor(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "p50 of a commit among three ÷ p50 of an echo, udp-blocking, one CPU",
        (arm(THREE), arm(ECHO_ALONE)),
        p50,
        Bound::AtMost(4.4),
    )
}

fn two_more_replicas(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "p50 of a commit among five ÷ among three, udp-blocking, one CPU",
        (arm(FIVE), arm(THREE)),
        p50,
        Bound::AtMost(2.0),
    )
}

fn durable_near_floor(table: &Table) -> Judgement {
    let arms = [arm(DURABLE), arm(DISK_ALONE), arm(ECHO_SPREAD)];
    let [commit, disk, echo] = table.aligned(arms, p50);
    if commit.len() < ROUNDS_MIN {
        let fewest = arms.into_iter().min_by_key(|&arm| table.arm(arm).len());
        return table.lacking(fewest.unwrap_or(arms[0]));
    }
    let floor: Vec<f64> = disk.iter().zip(&echo).map(|(disk, echo)| disk + 2.0 * echo).collect();
    judge::ratio_of(
        table,
        "p50 of a durable commit among three ÷ (p50 of a write + 2 × p50 of an echo), udp-blocking, all CPUs",
        (&commit, &floor),
        Bound::AtMost(1.3),
    )
}

fn thread_groups_commits(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "answers per second with a thread for the log ÷ without, 16 in flight, dsync, udp-blocking, one CPU",
        (arm(THREADED), arm(INLINE)),
        goodput,
        Bound::AtLeast(2.0),
    )
}

fn loss_costs_little(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "answers per second with 1 % loss ÷ without, 16 in flight, udp-blocking, one CPU",
        (arm(LOSSY), arm(BUSY)),
        goodput,
        Bound::AtLeast(0.85),
    )
}

fn loss_stalls_shortly(table: &Table) -> Judgement {
    let bound: Duration = Timing::LOCAL.heartbeat;
    let longest = |arm: Arm<'_>| {
        table
            .arm(arm)
            .into_iter()
            .filter_map(stall_max_ns)
            .max_by(f64::total_cmp)
    };
    let rounds_count = table.arm(arm(LOSSY)).len();
    let (Some(lossy_ns), Some(lossless_ns)) = (longest(arm(LOSSY)), longest(arm(BUSY))) else {
        let fewer = match rounds_count {
            0 => LOSSY,
            _ => BUSY,
        };
        return table.lacking(arm(fewer));
    };
    if rounds_count < ROUNDS_MIN {
        return table.lacking(arm(LOSSY));
    }
    let bound_ns = bound.as_nanos() as f64;
    let outcome = match (lossy_ns <= bound_ns, lossless_ns <= bound_ns) {
        (true, _) => Outcome::Holds,
        (false, true) => Outcome::Fails,
        (false, false) => Outcome::Inconclusive {
            why: "without loss answers stood still for as long: something else had the CPU; try a quieter machine"
                .to_owned(),
        },
    };
    let limit = format!("≤ {} ms", bound.as_millis());
    let figure = |what, ns, limit| judge::measured(what, Some(ns), "ns", limit, rounds_count as u64);
    Judgement::new(
        outcome,
        vec![
            figure(
                "longest time without an answer, 1 % loss, 16 in flight",
                lossy_ns,
                limit,
            ),
            figure("the same without loss", lossless_ns, String::new()),
        ],
    )
}
