//! What a commit in the driver claims, and how its rows decide it.

use super::{DRIVER, ECHO, SOCKET, USER};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, Bound},
    record::Row,
    table::{Arm, ROUNDS_MIN, Table, latency_ns},
};

/// The most that a further follower may cost: its frame crosses the bridge once each way, and user space does nothing for it.
const FOLLOWER_NS_MAX: f64 = 2_000.0;

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "xdp-commit-beats-echo",
        sentence: "In path length on one CPU, a commit among three replicas, done in the driver, takes less than an echo \
                   between kernel sockets, and each further follower at most 2 µs",
        source: Source::Ours {
            seen: "a prototype in C without terms, repair or sessions took 0.67 of an echo, and 1.5 µs for each further \
                   follower; Electrode (NSDI'23) does parts of it in the driver",
        },
        invariant: "Path length, not network latency: over veth the whole exchange, all followers one after another, runs in \
                    softirq inside the client's own send call, so that the client never sleeps, while an echo's client and \
                    server each sleep once. One bridge without netfilter for both, MTU 1500, generic XDP, 64-byte values, a \
                    blocking client, one request in flight. Decided by paired ratios of medians.",
        judge: beats_echo,
    },
    Claim {
        id: "xdp-commits-per-second",
        sentence: "On one CPU, with 16 requests in flight, three replicas answer at least twice as many puts per second with \
                   programs in the driver as without",
        source: Source::Ours {
            seen: "2.3 times as many; with one request in flight 3.9 times, since in user space one wake-up carries several frames \
                   where several are under way",
        },
        invariant: "The same replicas over the same sockets, with and without programs; one CPU does all the work, clients' and \
                    replicas' alike. Decided by the paired ratio of answers per second.",
        judge: throughput,
    },
];

type Axes = [(&'static str, &'static str); 5];

const fn axes(way: &'static str, replicas: &'static str, in_flight: &'static str) -> Axes {
    [
        ("way", way),
        ("replicas", replicas),
        ("in_flight", in_flight),
        ("value_bytes", "64"),
        ("cpus", "one"),
    ]
}

const ECHO_ALONE: &Axes = &axes(ECHO, "1", "1");
const THREE: &Axes = &axes(DRIVER, "3", "1");
const FIVE: &Axes = &axes(DRIVER, "5", "1");
const BUSY: &Axes = &axes(DRIVER, "3", "16");
const BUSY_USER: &Axes = &axes(USER, "3", "16");

fn arm(axes: &'static Axes) -> Arm<'static> {
    Arm::of(SOCKET, axes)
}

fn p50(row: &Row) -> Option<f64> {
    latency_ns(0.5)(row)
}

fn goodput(row: &Row) -> Option<f64> {
    row.metrics.get("goodput").map(|metric| metric.value)
}

fn beats_echo(table: &Table) -> Judgement {
    let against_echo = judge::ratio(
        table,
        "p50 of a commit among three in the driver ÷ p50 of an echo, path length, one CPU",
        (arm(THREE), arm(ECHO_ALONE)),
        p50,
        Bound::AtMost(1.0),
    );
    judge::all(vec![against_echo, further_follower(table)])
}

fn further_follower(table: &Table) -> Judgement {
    let arms = [arm(FIVE), arm(THREE)];
    let [five, three] = table.aligned(arms, p50);
    if five.len() < ROUNDS_MIN {
        let fewest = arms.into_iter().min_by_key(|&arm| table.arm(arm).len());
        return table.lacking(fewest.unwrap_or(arms[0]));
    }
    let each_ns: Vec<f64> = five
        .iter()
        .zip(&three)
        .map(|(five, three)| (five - three) / 2.0)
        .collect();
    let allowed_ns = vec![FOLLOWER_NS_MAX; each_ns.len()];
    judge::ratio_of(
        table,
        "what each further follower adds to p50 ÷ 2 µs, path length, one CPU",
        (&each_ns, &allowed_ns),
        Bound::AtMost(1.0),
    )
}

fn throughput(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "answers per second in the driver ÷ in user space, three replicas, 16 in flight, one CPU",
        (arm(BUSY), arm(BUSY_USER)),
        goodput,
        Bound::AtLeast(2.0),
    )
}
