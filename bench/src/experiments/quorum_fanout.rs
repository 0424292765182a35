//! `quorum-fanout`: what each further follower costs a commit, in user space and in the driver.

use super::{
    judge::{self, Bound},
    xdp_quorum::{
        BRIDGE, Cell, HUB, SOCKET,
        placement::{CHAIN, FAN_OUT, FLOOD, MULTICAST, Placement},
        run_cells,
        ways::{DRIVER, DRIVER_COUNT, USER},
    },
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    table::{Arm, ROUNDS_MIN, Table, latency_ns},
};

const WAY: Axis = Axis {
    name: "way",
    meaning: "user: replicas in user space; driver-count: programs acknowledge and count, a leader in user space sends; driver: \
              programs in the hosts' drivers do all of the normal case",
    full: &[USER, DRIVER_COUNT, DRIVER],
    tour: &[USER, DRIVER],
    smallest: DRIVER,
    allowed: Allowed::Words,
};

const REPLICAS: Axis = Axis {
    name: "replicas",
    meaning: "how many replicas: a leader and its followers",
    full: &["3", "5", "7"],
    tour: &["3", "5", "7"],
    smallest: "3",
    allowed: Allowed::Words,
};

const FABRIC: Axis = Axis {
    name: "fabric",
    meaning: "what joins the hosts. bridge: the kernel's, with generic XDP in the hosts; hub, for the way driver: a program on each \
              port of the switch, with native XDP in the hosts",
    full: &[BRIDGE, HUB],
    tour: &[BRIDGE],
    smallest: BRIDGE,
    allowed: Allowed::Words,
};

const AXES: &[Axis] = &[WAY, REPLICAS, FABRIC, FAN_OUT];

/// The most that a further follower may cost: what is sent to it and what comes back, over the bridge.
const FOLLOWER_NS_MAX: f64 = 2_000.0;
/// The same where both are XDP frames from driver to driver.
const FOLLOWER_ON_HUB_NS_MAX: f64 = 1_200.0;

const CLAIMS: &[Claim] = &[Claim {
    id: "quorum-fanout",
    sentence: "On one CPU, by the best of its ways to the followers, each further follower costs a commit in the driver at most 2 µs on \
               a bridge and 1.2 µs on a hub of XDP programs, and at least five times as much in user space",
    source: Source::Ours {
        seen: "1.2 and 0.7 µs by the chain, 1.7 and 1.2 µs by copies, 19 µs in user space; Electrode's tree without offloads took 38 \
               µs for each",
    },
    invariant: "The slope of p50 over three, five and seven replicas by least squares, in each round; the interval is over rounds. The \
                ways are those that the run has for all three; what is judged is the one with the smaller median slope, and each \
                figure names it. One CPU, where a commit waits for all followers and not for a majority: path length, not network \
                latency.",
    judge: slope,
}];

/// See the module.
#[derive(Debug)]
pub struct QuorumFanout;

impl Experiment for QuorumFanout {
    fn id(&self) -> &'static str {
        "quorum-fanout"
    }

    fn title(&self) -> &'static str {
        "One follower more"
    }

    fn question(&self) -> &'static str {
        "What does each further follower cost a commit, in user space and in the driver?"
    }

    fn how(&self) -> &'static str {
        "The replicas of xdp-quorum on the same switches: three, five and seven, one request in flight, everything on one CPU, arms in \
         an order shuffled by the seed. The slope of the median over the number of followers is what one of them costs: sending to \
         it, its work, and its acknowledgement. CPU time and wake-ups are what the kernel counted for each process; what a program \
         does is charged to whoever's send it runs in."
    }

    fn axes(&self) -> &'static [Axis] {
        AXES
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![SOCKET]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its replicas are processes in network namespaces of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let mut cells = Vec::new();
        for way in lab.values(&WAY) {
            for (fabric, fan_out) in paths(lab, &way) {
                for replicas in lab.values(&REPLICAS) {
                    let replicas_count = replicas.parse().expect("axis values are checked beforehand");
                    let cell = Cell {
                        fabric: fabric.clone(),
                        placement: Placement::sending(&fan_out),
                        ..Cell::plain(&way, replicas_count)
                    };
                    let has_twin = way == DRIVER && replicas_count == 3 && fabric == BRIDGE && fan_out == FLOOD;
                    if has_twin {
                        cells.push(Cell {
                            twin: true,
                            ..cell.clone()
                        });
                    }
                    cells.push(cell);
                }
            }
        }
        run_cells(self, lab, cells)
    }
}

/// Over which switches, and how, a leader of that way sends entries. One in user space sends each by itself, over the bridge; a
/// hub knows no multicast.
fn paths(lab: &Lab<'_>, way: &str) -> Vec<(String, String)> {
    if way != DRIVER {
        return vec![(BRIDGE.to_owned(), FLOOD.to_owned())];
    }
    let fan_outs = lab.values(&FAN_OUT);
    let over = |fabric: String| fan_outs.iter().map(move |fan_out| (fabric.clone(), fan_out.clone()));
    let all = lab.values(&FABRIC).into_iter().flat_map(over);
    all.filter(|(fabric, fan_out)| fabric == BRIDGE || fan_out != MULTICAST)
        .collect()
}

type Axes = [(&'static str, &'static str); 4];

const fn axes(way: &'static str, (fabric, fan_out): (&'static str, &'static str), replicas: &'static str) -> Axes {
    [
        ("way", way),
        ("replicas", replicas),
        ("fabric", fabric),
        ("fan_out", fan_out),
    ]
}

/// A switch, and by what an entry reaches the followers over it.
type Path = (&'static str, &'static str);
const ON_BRIDGE: [Path; 3] = [(BRIDGE, FLOOD), (BRIDGE, MULTICAST), (BRIDGE, CHAIN)];
const ON_HUB: [Path; 2] = [(HUB, FLOOD), (HUB, CHAIN)];

fn slope(table: &Table) -> Judgement {
    let Some((path, slopes_ns)) = best(table, &ON_BRIDGE) else {
        return lacking(table, DRIVER, ON_BRIDGE[0]);
    };
    let mut judgements = vec![
        adds(table, path, &slopes_ns, FOLLOWER_NS_MAX),
        match best(table, &ON_HUB) {
            Some((path, slopes_ns)) => adds(table, path, &slopes_ns, FOLLOWER_ON_HUB_NS_MAX),
            None => lacking(table, DRIVER, ON_HUB[0]),
        },
    ];
    let (user, driver) = (axes_of(USER, ON_BRIDGE[0]), axes_of(DRIVER, path));
    let arms: [Arm<'_>; 6] = std::array::from_fn(|index| match index {
        0..3 => Arm::of(SOCKET, &user[index]),
        _ => Arm::of(SOCKET, &driver[index - 3]),
    });
    let both = slopes(table, arms);
    let (user_ns, driver_ns) = (&both[0], &both[1]);
    judgements.push(match user_ns.len() >= ROUNDS_MIN {
        true => judge::ratio_of(
            table,
            "what it adds in user space ÷ in the driver, on the bridge",
            (user_ns, driver_ns),
            Bound::AtLeast(5.0),
        ),
        false => lacking(table, USER, ON_BRIDGE[0]),
    });
    judge::all(judgements)
}

fn adds(table: &Table, (fabric, fan_out): Path, slopes_ns: &[f64], at_most_ns: f64) -> Judgement {
    judge::ratio_of(
        table,
        &format!("what each further follower adds to p50 on the {fabric}, {fan_out}, in microseconds, one CPU"),
        (slopes_ns, &vec![1_000.0; slopes_ns.len()]),
        Bound::AtMost(at_most_ns / 1_000.0),
    )
}

/// The path by which a further follower costs least, and the slopes of its rounds.
fn best(table: &Table, paths: &[Path]) -> Option<(Path, Vec<f64>)> {
    let median = |slopes: &Vec<f64>| {
        let mut sorted = slopes.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let measured = paths.iter().filter_map(|&path| {
        let axes = axes_of(DRIVER, path);
        let slopes_ns = slopes(table, axes.each_ref().map(|axes| Arm::of(SOCKET, axes))).swap_remove(0);
        (slopes_ns.len() >= ROUNDS_MIN).then_some((path, slopes_ns))
    });
    measured.min_by(|(_, one), (_, other)| median(one).total_cmp(&median(other)))
}

/// Of three, five and seven replicas.
fn axes_of(way: &'static str, path: Path) -> [Axes; 3] {
    ["3", "5", "7"].map(|count| axes(way, path, count))
}

/// What a further follower adds to p50, in each round that has all of the arms: three, five and seven replicas of one way, and of
/// the next.
fn slopes<const N: usize>(table: &Table, arms: [Arm<'_>; N]) -> Vec<Vec<f64>> {
    let medians = table.aligned(arms, latency_ns(0.5));
    let of_way = |way: &[Vec<f64>]| {
        let rounds = 0..way[0].len();
        rounds
            .map(|round| slope_of([0, 1, 2].map(|index| way[index][round])))
            .collect()
    };
    medians.chunks_exact(3).map(of_way).collect()
}

/// What is missing for a verdict on that path.
fn lacking(table: &Table, way: &'static str, path: Path) -> Judgement {
    let axes = axes_of(way, path);
    let arms = axes.each_ref().map(|axes| Arm::of(SOCKET, axes));
    let fewest = arms.into_iter().min_by_key(|&arm| table.arm(arm).len());
    table.lacking(fewest.unwrap_or(arms[0]))
}

/// By least squares over three, five and seven replicas, per replica: the one in the middle has no weight.
fn slope_of([three, _, seven]: [f64; 3]) -> f64 {
    (seven - three) / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_least_squares() {
        let (x, y) = ([3.0, 5.0, 7.0], [10.0, 12.0, 17.0]);
        let mean = |values: [f64; 3]| values.iter().sum::<f64>() / 3.0;
        let (mean_x, mean_y) = (mean(x), mean(y));
        let covariance: f64 = x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
        let variance: f64 = x.iter().map(|x| (x - mean_x).powi(2)).sum();
        assert!((slope_of(y) - covariance / variance).abs() < 1e-12);
    }
}
