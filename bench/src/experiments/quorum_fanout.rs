//! `quorum-fanout`: what each further follower costs a commit, in user space and in the driver.

use super::{
    judge::{self, Bound},
    xdp_quorum::{
        Cell, SOCKET, run_cells,
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

const AXES: &[Axis] = &[WAY, REPLICAS];

/// A frame to the follower and one back, over the bridge.
const FOLLOWER_NS_MAX: f64 = 2_000.0;

const CLAIMS: &[Claim] = &[Claim {
    id: "quorum-fanout",
    sentence: "On one CPU each further follower costs a commit in the driver at most 2 µs, and at least five times as much in user \
               space",
    source: Source::Ours {
        seen: "2.1 µs and 21 µs; Electrode's tree without offloads took 38 µs for each",
    },
    invariant: "The slope of p50 over three, five and seven replicas by least squares, in each round; the interval is over rounds. \
                One CPU, where a commit waits for all followers and not for a majority: path length, not network latency.",
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
        "The replicas of xdp-quorum on the same bridge: three, five and seven, one request in flight, everything on one CPU, arms in \
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
            for replicas in lab.values(&REPLICAS) {
                let replicas_count = replicas.parse().expect("axis values are checked beforehand");
                let cell = Cell::plain(&way, replicas_count);
                if way == DRIVER && replicas_count == 3 {
                    cells.push(Cell {
                        twin: true,
                        ..cell.clone()
                    });
                }
                cells.push(cell);
            }
        }
        run_cells(self, lab, cells)
    }
}

const fn axes(way: &'static str, replicas: &'static str) -> [(&'static str, &'static str); 2] {
    [("way", way), ("replicas", replicas)]
}

fn slope(table: &Table) -> Judgement {
    let counts = ["3", "5", "7"];
    let (driver, user) = (
        counts.map(|count| axes(DRIVER, count)),
        counts.map(|count| axes(USER, count)),
    );
    let arms: [Arm<'_>; 6] = std::array::from_fn(|index| match index {
        0..3 => Arm::of(SOCKET, &driver[index]),
        _ => Arm::of(SOCKET, &user[index - 3]),
    });
    let medians = table.aligned(arms, latency_ns(0.5));
    if medians[0].len() < ROUNDS_MIN {
        let fewest = arms.into_iter().min_by_key(|&arm| table.arm(arm).len());
        return table.lacking(fewest.unwrap_or(arms[0]));
    }
    let rounds = 0..medians[0].len();
    let slopes = |first: usize| -> Vec<f64> {
        let of_round = |round: usize| slope_of([0, 1, 2].map(|index| medians[first + index][round]));
        rounds.clone().map(of_round).collect()
    };
    let (driver_ns, user_ns) = (slopes(0), slopes(3));
    let microsecond = vec![1_000.0; driver_ns.len()];
    let in_driver = judge::ratio_of(
        table,
        "what each further follower adds to p50 in the driver, in microseconds, one CPU",
        (&driver_ns, &microsecond),
        Bound::AtMost(FOLLOWER_NS_MAX / 1_000.0),
    );
    let against_user = judge::ratio_of(
        table,
        "what it adds in user space ÷ in the driver",
        (&user_ns, &driver_ns),
        Bound::AtLeast(5.0),
    );
    judge::all(vec![in_driver, against_user])
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
