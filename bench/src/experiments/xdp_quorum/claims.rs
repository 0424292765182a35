//! What a commit in the driver claims, and how its rows decide it.

use super::{
    BRIDGE, DIRECT, DRIVER, DRIVER_ACK, DRIVER_COUNT, DRIVER_DURABLE, ECHO, HUB, LOSSLESS, SINGLE, SOCKET, TRAIN, USER,
    USER_DURABLE,
    placement::{CHAIN, FLOOD},
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, Bound},
    record::{Outcome, Row},
    table::{Arm, ROUNDS_MIN, Table, latency_ns},
};

/// The most that a further follower may cost: its frame crosses the bridge once each way, and user space does nothing for it.
const FOLLOWER_NS_MAX: f64 = 2_000.0;
/// The same where frames stay XDP frames.
const FOLLOWER_ON_HUB_NS_MAX: f64 = 1_200.0;

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "xdp-commit-beats-echo",
        sentence: "In path length on one CPU, by the best of its ways to the followers, a commit among three replicas, done in the \
                   driver, takes at most three quarters of an echo between kernel sockets, one among five no more than an echo, \
                   and each further follower at most 2 µs",
        source: Source::Ours {
            seen: "0.66 and 0.81 of an echo by the chain, 0.73 and 0.98 by flooding; a prototype in C without terms, repair or \
                   sessions flooded in 0.67; Electrode (NSDI'23) does parts of it in the driver",
        },
        invariant: "Path length, not network latency: over veth the whole exchange, all followers one after another, runs in \
                    softirq inside the client's own send call, so that the client never sleeps, while an echo's client and \
                    server each sleep once. One bridge without netfilter for both, MTU 1500, generic XDP, 64-byte values, a \
                    blocking client, one request in flight. The ways are flooding and the chain, as far as the run has them; what \
                    is judged is the one with the smaller median, and each figure names it. Decided by paired ratios of medians.",
        judge: beats_echo,
    },
    Claim {
        id: "xdp-commit-by-chain",
        sentence: "In path length on one CPU, an entry that visits the followers one after another in one frame is committed sooner \
                   than one that the switch copies for each of them, among three replicas and among five",
        source: Source::Ours {
            seen: "0.91 and 0.82 of the time: nothing is copied, and one acknowledgement comes back instead of n − 1",
        },
        invariant: "Path length, not network latency: on a wire the chain's delays add up, and flooding is the shorter way. The same \
                    programs on one bridge, 64-byte values, a blocking client, one request in flight. Decided by paired ratios of \
                    medians.",
        judge: chain_is_shorter,
    },
    Claim {
        id: "xdp-commit-on-a-hub",
        sentence: "In path length on one CPU, where frames stay XDP frames from driver to driver, by the best of its ways to the \
                   followers a commit among three replicas takes at most 0.75 of an echo between kernel sockets without any \
                   switch, one among five at most 0.95, and each further follower at most 1.2 µs",
        source: Source::Ours {
            seen: "0.66 and 0.80 of such an echo by the chain, 0.70 and 0.89 by copies; a prototype in C without terms, repair or \
                   sessions took 0.72 and 0.90 by copies",
        },
        invariant: "Path length, not network latency: as xdp-commit-beats-echo, with native XDP. The echo's two hosts share one \
                    veth pair, so that what a switch costs is not credited to the commit. Decided as there.",
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
            seen: "0.91 of them, and 0.3 ms; 0.67 before programs mended what was lost. Electrode leaves loss to its client: one run \
                   of its tree stood still for seven seconds",
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
        ("fan_out", FLOOD),
    ]
}

/// The same by the chain.
const fn by_chain(mut axes: Axes) -> Axes {
    axes[10] = ("fan_out", CHAIN);
    axes
}

const ECHO_ALONE: &Axes = &alone(ECHO, "1");
const ECHO_DIRECT: &Axes = &on(DIRECT, alone(ECHO, "1"));
const HUB_THREE: &Axes = &on(HUB, alone(DRIVER, "3"));
const HUB_FIVE: &Axes = &on(HUB, alone(DRIVER, "5"));
const THREE: &Axes = &alone(DRIVER, "3");
const FIVE: &Axes = &alone(DRIVER, "5");
const THREE_BY_CHAIN: &Axes = &by_chain(*THREE);
const FIVE_BY_CHAIN: &Axes = &by_chain(*FIVE);
const HUB_THREE_BY_CHAIN: &Axes = &by_chain(*HUB_THREE);
const HUB_FIVE_BY_CHAIN: &Axes = &by_chain(*HUB_FIVE);
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

/// One way of sending entries: how it is called, and its commits among three and among five.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    three: &'static Axes,
    five: &'static Axes,
}

const FLOODED: Way = Way {
    name: "flooded",
    three: THREE,
    five: FIVE,
};
const CHAINED: Way = Way {
    name: "by the chain",
    three: THREE_BY_CHAIN,
    five: FIVE_BY_CHAIN,
};
const HUB_COPIED: Way = Way {
    name: "copied",
    three: HUB_THREE,
    five: HUB_FIVE,
};
const HUB_CHAINED: Way = Way {
    name: "by the chain",
    three: HUB_THREE_BY_CHAIN,
    five: HUB_FIVE_BY_CHAIN,
};

/// The one whose commits take less, of those that were measured.
fn best(table: &Table, ways: [Way; 2], arm_of: fn(Way) -> &'static Axes) -> Way {
    let median_ns = |way: &Way| {
        let mut all: Vec<f64> = table.arm(arm(arm_of(*way))).into_iter().filter_map(p50).collect();
        all.sort_by(f64::total_cmp);
        (all.len() >= ROUNDS_MIN).then(|| all[all.len() / 2])
    };
    let measured = ways.into_iter().filter_map(|way| Some((median_ns(&way)?, way)));
    let shortest = measured.min_by(|(one, _), (other, _)| one.total_cmp(other));
    shortest.map_or(ways[0], |(_, way)| way)
}

/// The best commits among three and among five against an echo.
fn against_echo(
    table: &Table,
    (ways, place): ([Way; 2], &str),
    echo: &'static Axes,
    bounds: (f64, f64),
) -> Vec<Judgement> {
    let judged = |count: &str, arm_of: fn(Way) -> &'static Axes, at_most: f64| {
        let way = best(table, ways, arm_of);
        let what = format!(
            "p50 of a commit among {count}, {} ÷ p50 of an echo{place}, path length, one CPU",
            way.name
        );
        judge::ratio(table, &what, (arm(arm_of(way)), arm(echo)), p50, Bound::AtMost(at_most))
    };
    vec![
        judged("three", |way| way.three, bounds.0),
        judged("five", |way| way.five, bounds.1),
    ]
}

fn beats_echo(table: &Table) -> Judgement {
    let mut all = against_echo(table, ([FLOODED, CHAINED], ""), ECHO_ALONE, (0.75, 1.0));
    all.push(further_follower(table, [FLOODED, CHAINED], FOLLOWER_NS_MAX));
    judge::all(all)
}

fn beats_direct_echo(table: &Table) -> Judgement {
    let ways = [HUB_COPIED, HUB_CHAINED];
    let mut all = against_echo(table, (ways, " without a switch"), ECHO_DIRECT, (0.75, 0.95));
    all.push(further_follower(table, ways, FOLLOWER_ON_HUB_NS_MAX));
    judge::all(all)
}

fn chain_is_shorter(table: &Table) -> Judgement {
    let pairs = [
        ("three", CHAINED.three, FLOODED.three),
        ("five", CHAINED.five, FLOODED.five),
    ];
    let shorter = |(count, chained, flooded): (&str, &'static Axes, &'static Axes)| {
        let what = format!("p50 of a commit among {count} by the chain ÷ flooded, path length, one CPU");
        judge::ratio(table, &what, (arm(chained), arm(flooded)), p50, Bound::AtMost(1.0))
    };
    judge::all(pairs.into_iter().map(shorter).collect())
}

fn further_follower(table: &Table, ways: [Way; 2], at_most_ns: f64) -> Judgement {
    let way = best(table, ways, |way| way.five);
    let arms = [arm(way.five), arm(way.three)];
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
    let allowed_ns = vec![at_most_ns; each_ns.len()];
    judge::ratio_of(
        table,
        &format!(
            "what each further follower adds to p50, {} ÷ {} µs, path length, one CPU",
            way.name,
            at_most_ns / 1_000.0
        ),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        measure::{QUANTILES, Recorder},
        record::{ModeRecord, Validity},
    };

    fn row(axes: &Axes, round: u32, p50_ns: u64) -> Row {
        let mut recorder = Recorder::new();
        // Rounds differ a little, as rounds do.
        (0..100).for_each(|_| recorder.record(p50_ns + u64::from(round) * 10));
        Row {
            experiment: "xdp-quorum".to_owned(),
            backend: SOCKET.to_owned(),
            mode: ModeRecord::Native,
            axis: axes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            round,
            twin: false,
            seed: 1,
            at_s: 0.0,
            elapsed_s: 1.0,
            latency: Some(recorder.distribution(&QUANTILES)),
            service: None,
            schedule_lag: None,
            metrics: BTreeMap::new(),
            series: Vec::new(),
            facts: BTreeMap::new(),
            validity: Validity::Valid,
        }
    }

    fn table(arms: &[(&Axes, u64)]) -> Table {
        let rounds = 0..6;
        let of_round = |round| arms.iter().map(move |&(axes, p50_ns)| row(axes, round, p50_ns));
        Table {
            rows: rounds.flat_map(of_round).collect(),
            seed: 1,
        }
    }

    const FLOODS: [(&Axes, u64); 3] = [(ECHO_ALONE, 14_700), (THREE, 11_100), (FIVE, 15_000)];

    #[test]
    fn the_headline_is_about_the_best_way_of_the_run_and_names_it() {
        let judged = beats_echo(&table(&FLOODS));
        assert_eq!(
            judged.outcome,
            Outcome::Fails,
            "flooding takes 0.755 and 1.02 of an echo"
        );
        assert!(
            judged.measured.iter().all(|figure| figure.name.contains("flooded")),
            "{judged:?}"
        );
        let chains = [(THREE_BY_CHAIN, 9_960), (FIVE_BY_CHAIN, 12_500)];
        let judged = beats_echo(&table(&[&FLOODS[..], &chains].concat()));
        assert_eq!(judged.outcome, Outcome::Holds);
        assert!(
            judged
                .measured
                .iter()
                .all(|figure| figure.name.contains("by the chain")),
            "{judged:?}"
        );
    }

    #[test]
    fn what_was_not_measured_is_named_by_its_axis_values() {
        let why = |judged: Judgement| match judged.outcome {
            Outcome::NotMeasured { why } => why,
            other => panic!("{other:?}"),
        };
        let flooded = table(&FLOODS);
        let said = why(chain_is_shorter(&flooded));
        assert_eq!(said, "udp-blocking was not measured in this run with fan_out=chain");
        assert!(why(beats_direct_echo(&flooded)).contains("fabric=hub"));
        // Each value is there, and not all of them at once.
        let apart = table(&[(FIVE, 2), (THREE_BY_CHAIN, 3)]);
        let said = why(apart.lacking(arm(THREE)));
        assert_eq!(
            said,
            "udp-blocking was not measured in this run with replicas=3 fan_out=flood"
        );
        assert_eq!(
            why(chain_is_shorter(&Table::default())),
            "udp-blocking was not measured in this run"
        );
    }
}
