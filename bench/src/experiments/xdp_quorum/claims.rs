//! What a commit in the driver claims, and how its rows decide it.

use super::{
    BRIDGE, DIRECT, DRIVER, DRIVER_ACK, DRIVER_COUNT, DRIVER_DURABLE, ECHO, HUB, LOSSLESS, SINGLE, SOCKET, TRAIN, USER,
    USER_DURABLE,
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, Bound},
    record::{Outcome, Row},
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
        id: "xdp-commit-on-a-hub",
        sentence: "In path length on one CPU, where frames stay XDP frames from driver to driver, a commit among three replicas \
                   takes less than an echo between kernel sockets without any switch, and so does one among five",
        source: Source::Ours {
            seen: "0.73 and 0.94 of such an echo; a prototype in C without terms, repair or sessions took 0.72 and 0.90",
        },
        invariant: "Path length, not network latency: as xdp-commit-beats-echo, with native XDP. The echo's two hosts share one \
                    veth pair, so that what a switch costs is not credited to the commit. Decided by paired ratios of medians.",
        judge: beats_direct_echo,
    },
    Claim {
        id: "xdp-commits-per-second",
        sentence: "On one CPU, with 16 requests in flight that leave as trains, three replicas answer at least three times as many \
                   puts per second with programs in the driver as without",
        source: Source::Ours {
            seen: "3.4 times as many on the bridge, 7.2 times over the hub; 2.6 and 3.2 times where each request is sent by itself",
        },
        invariant: "The same replicas over the same sockets, with and without programs; one CPU does all the work, clients' and \
                    replicas' alike. Decided by the paired ratio of answers per second.",
        judge: throughput,
    },
    Claim {
        id: "xdp-quorum-rungs",
        sentence: "In path length on one CPU, with three replicas, each part of a commit that is moved into the driver takes time off: \
                   the followers' acknowledgements, then counting them, then giving slots and answering",
        source: Source::Ours {
            seen: "each rung was faster than the one before",
        },
        invariant: "The same replicas and sockets on one bridge, 64-byte values, a blocking client, one request in flight. Decided by \
                    paired ratios of medians, each rung against the one before.",
        judge: rungs,
    },
    Claim {
        id: "xdp-quorum-loss",
        sentence: "With programs in the driver and 16 requests in flight, a switch that loses 1 % of all frames leaves at least 70 % of \
                   the answers per second, and no time without an answer is longer than 20 ms",
        source: Source::Ours {
            seen: "Electrode leaves loss to its client: one run of its tree stood still for seven seconds",
        },
        invariant: "Three replicas, one CPU. Every frame is lost with the same chance as it enters the switch, so that an entry that a \
                    leader floods is lost for all followers. 20 ms is the leader's heartbeat, up to which its patience with a follower \
                    doubles. The client asks again after a millisecond at the earliest.",
        judge: loss,
    },
    Claim {
        id: "xdp-quorum-durable",
        sentence: "Where nothing is acknowledged before the disk has it, programs in the driver save less than a tenth of a commit's \
                   latency",
        source: Source::Ours {
            seen: "the replicas are woken to write, and that and the disk is most of it",
        },
        invariant: "Three replicas, one CPU, one request in flight, the same log on the same disk (direct I/O by a thread of its own) \
                    with and without programs. Decided by the paired ratio of medians.",
        judge: durable,
    },
];

/// A leader's heartbeat (`Timing::LOCAL`), up to which its patience with a follower doubles.
const STALL_NS_MAX: f64 = 20e6;
/// What is to be left of the throughput.
const LOSSY_RATIO_MIN: f64 = 0.7;
const LOSSY: &str = "0.01";

type Axes = [(&'static str, &'static str); 11];

/// One request in flight, on a bridge that loses nothing.
const fn alone(way: &'static str, replicas: &'static str) -> Axes {
    axes(way, replicas, ("1", SINGLE), LOSSLESS)
}

/// The same where something else joins the hosts.
const fn on(fabric: &'static str, mut axes: Axes) -> Axes {
    axes[2] = ("fabric", fabric);
    axes
}

const fn axes(
    way: &'static str,
    replicas: &'static str,
    (in_flight, client): (&'static str, &'static str),
    loss: &'static str,
) -> Axes {
    [
        ("way", way),
        ("replicas", replicas),
        ("fabric", BRIDGE),
        ("in_flight", in_flight),
        ("client", client),
        ("value_bytes", "64"),
        ("loss", loss),
        ("cpus", "one"),
        ("placement", "host"),
        ("receive", "inline"),
        ("fan_out", "flood"),
    ]
}

const ECHO_ALONE: &Axes = &alone(ECHO, "1");
const ECHO_DIRECT: &Axes = &on(DIRECT, alone(ECHO, "1"));
const HUB_THREE: &Axes = &on(HUB, alone(DRIVER, "3"));
const HUB_FIVE: &Axes = &on(HUB, alone(DRIVER, "5"));
const THREE: &Axes = &alone(DRIVER, "3");
const FIVE: &Axes = &alone(DRIVER, "5");
const BUSY: &Axes = &axes(DRIVER, "3", ("16", SINGLE), LOSSLESS);
const BUSY_LOSSY: &Axes = &axes(DRIVER, "3", ("16", SINGLE), LOSSY);
const RUNG_USER: &Axes = &alone(USER, "3");
const RUNG_ACK: &Axes = &alone(DRIVER_ACK, "3");
const RUNG_COUNT: &Axes = &alone(DRIVER_COUNT, "3");
const DISK_DRIVER: &Axes = &alone(DRIVER_DURABLE, "3");
const DISK_USER: &Axes = &alone(USER_DURABLE, "3");
const TRAINS: &Axes = &axes(DRIVER, "3", ("16", TRAIN), LOSSLESS);
const TRAINS_USER: &Axes = &axes(USER, "3", ("16", TRAIN), LOSSLESS);

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

fn beats_direct_echo(table: &Table) -> Judgement {
    let against_echo =
        |what, commit| judge::ratio(table, what, (arm(commit), arm(ECHO_DIRECT)), p50, Bound::AtMost(1.0));
    judge::all(vec![
        against_echo(
            "p50 of a commit among three over the hub ÷ p50 of an echo without a switch, path length, one CPU",
            HUB_THREE,
        ),
        against_echo(
            "p50 of a commit among five over the hub ÷ p50 of an echo without a switch, path length, one CPU",
            HUB_FIVE,
        ),
    ])
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
        (arm(TRAINS), arm(TRAINS_USER)),
        goodput,
        Bound::AtLeast(3.0),
    )
}

fn rungs(table: &Table) -> Judgement {
    let pairs = [
        ("acknowledging in the driver ÷ user space", RUNG_ACK, RUNG_USER),
        ("counting there too ÷ acknowledging", RUNG_COUNT, RUNG_ACK),
        ("all of it there ÷ counting", THREE, RUNG_COUNT),
    ];
    let step = |(what, rung, before): (&str, &'static Axes, &'static Axes)| {
        let what = format!("p50, {what}, three replicas, path length, one CPU");
        judge::ratio(table, &what, (arm(rung), arm(before)), p50, Bound::AtMost(1.0))
    };
    judge::all(pairs.into_iter().map(step).collect())
}

fn loss(table: &Table) -> Judgement {
    let left = judge::ratio(
        table,
        "answers per second with 1 % loss ÷ without, in the driver, three replicas, 16 in flight, one CPU",
        (arm(BUSY_LOSSY), arm(BUSY)),
        goodput,
        Bound::AtLeast(LOSSY_RATIO_MIN),
    );
    let rows = table.arm(arm(BUSY_LOSSY));
    let stalls = rows.iter().filter_map(|row| row.metrics.get("stall_max"));
    let longest = stalls.map(|metric| metric.value).fold(0.0, f64::max);
    if rows.len() < ROUNDS_MIN {
        return left;
    }
    let outcome = match longest <= STALL_NS_MAX {
        true => Outcome::Holds,
        false => Outcome::Fails,
    };
    let what = "longest time without an answer at 1 % loss, all rounds";
    let figure = judge::measured(what, Some(longest), "ns", "≤ 20 ms", rows.len() as u64);
    judge::all(vec![left, Judgement::new(outcome, vec![figure])])
}

fn durable(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "p50 with programs ÷ without, durable, three replicas, one CPU",
        (arm(DISK_DRIVER), arm(DISK_USER)),
        p50,
        Bound::AtLeast(0.9),
    )
}
