//! `electrode`: Electrode's three offloads (NSDI'23) one by one and together, beside the same replicas without any, and beside all
//! of a commit in the driver.

use super::{
    judge::{self, Bound},
    xdp_quorum::{
        Cell, SOCKET, run_cells,
        ways::{ATTACHED, BROADCAST, DRIVER, FAST_ACK, THREE_OFFLOADS, USER, WAIT_ON_QUORUM},
    },
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    record::Row,
    table::{Arm, Table, latency_ns},
};

const WAY: Axis = Axis {
    name: "way",
    meaning: "user: no offload; attached: programs that pass everything up, which is what the others pay first; broadcast: the leader sends an entry once, and the switch copies it to all followers; fast-ack: \
              programs in the followers' drivers keep entries and acknowledge them; wait-on-quorum: a program in the leader's \
              driver counts acknowledgements and passes only the one up that completes a majority; all-three: these together; \
              driver: the leader's program also gives slots and answers, which Electrode leaves to user space",
    full: &[
        USER,
        ATTACHED,
        BROADCAST,
        FAST_ACK,
        WAIT_ON_QUORUM,
        THREE_OFFLOADS,
        DRIVER,
    ],
    tour: &[USER, THREE_OFFLOADS],
    smallest: THREE_OFFLOADS,
    allowed: Allowed::Words,
};

const REPLICAS: Axis = Axis {
    name: "replicas",
    meaning: "how many replicas",
    full: &["3", "5", "7"],
    tour: &["5"],
    smallest: "3",
    allowed: Allowed::Words,
};

const IN_FLIGHT: Axis = Axis {
    name: "in_flight",
    meaning: "requests that the client keeps under way",
    full: &["1", "16"],
    tour: &["1"],
    smallest: "1",
    allowed: Allowed::Number(1.0, 256.0),
};

const AXES: &[Axis] = &[WAY, REPLICAS, IN_FLIGHT];

/// The paper's figures: "improves its throughput by up to 128.4% and latency by up to 41.7%".
const PAPER: Source = Source::Published {
    work: "Zhou, Wang, Kohler and Yu, \"Electrode: Accelerating Distributed Protocols with eBPF\", NSDI 2023",
    place: "abstract",
};
const PAPER_LATENCY_RATIO: f64 = 1.0 - 0.417;
const PAPER_THROUGHPUT_RATIO: f64 = 1.0 + 1.284;
const INVARIANT: &str = "One CPU does all the work of five replicas and a blocking client; the same replicas, sockets and bridge without \
                         netfilter for all ways; generic XDP. The paper has machines with NICs, and several clients. A leader in user \
                         space puts what is under way into one frame unless followers' programs take single entries, which \
                         Electrode's does not. Path length, not network latency.";

const CLAIMS: &[Claim] = &[
    Claim {
        id: "electrode-latency",
        sentence: "With five replicas and one request in flight, the three offloads take at least the paper's 41.7 % off a \
                   commit's latency",
        source: PAPER,
        invariant: INVARIANT,
        judge: latency,
    },
    Claim {
        id: "electrode-throughput",
        sentence: "With five replicas and 16 requests in flight, the three offloads answer at least the paper's 128.4 % more \
                   puts per second",
        source: PAPER,
        invariant: INVARIANT,
        judge: throughput,
    },
];

/// See the module.
#[derive(Debug)]
pub struct Electrode;

impl Experiment for Electrode {
    fn id(&self) -> &'static str {
        "electrode"
    }

    fn title(&self) -> &'static str {
        "Electrode's offloads"
    }

    fn question(&self) -> &'static str {
        "What does each of Electrode's three offloads save by itself, and what do they save together?"
    }

    fn how(&self) -> &'static str {
        "The replicas of xdp-quorum on the same bridge, with one part of a commit at a time moved out of user space: sending an \
         entry to all followers, acknowledging it, counting acknowledgements; then all three, and beside them all of a commit in \
         the driver. The copies of a broadcast are made by the switch and not by a program in the leader's host as Electrode's \
         are: a frame that was redirected there would pass by a follower's program in generic mode unseen. Everything on one CPU, \
         arms in an order shuffled by the seed. CPU time and wake-ups are what the kernel counted for each process; what a program \
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
                for in_flight in lab.numbers(&IN_FLIGHT) {
                    let cell = Cell {
                        in_flight: in_flight as usize,
                        ..Cell::plain(&way, replicas_count)
                    };
                    if way == USER && replicas_count == 5 && cell.in_flight == 1 {
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

type Axes = [(&'static str, &'static str); 3];

const fn axes(way: &'static str, in_flight: &'static str) -> Axes {
    [("way", way), ("replicas", "5"), ("in_flight", in_flight)]
}

fn latency(table: &Table) -> Judgement {
    let p50 = |row: &Row| latency_ns(0.5)(row);
    judge::ratio(
        table,
        "p50 with three offloads ÷ without, five replicas, one in flight, one CPU",
        (
            Arm::of(SOCKET, &axes(THREE_OFFLOADS, "1")),
            Arm::of(SOCKET, &axes(USER, "1")),
        ),
        p50,
        Bound::AtMost(PAPER_LATENCY_RATIO),
    )
}

fn throughput(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "answers per second with three offloads ÷ without, five replicas, 16 in flight, one CPU",
        (
            Arm::of(SOCKET, &axes(THREE_OFFLOADS, "16")),
            Arm::of(SOCKET, &axes(USER, "16")),
        ),
        |row| row.metrics.get("goodput").map(|metric| metric.value),
        Bound::AtLeast(PAPER_THROUGHPUT_RATIO),
    )
}
