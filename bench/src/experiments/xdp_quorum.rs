//! `xdp-quorum`: a commit whose normal case is done by programs in the driver, beside an echo over the same bridge and the same
//! commit in user space.

mod claims;
mod row;

use std::time::Duration;

use dataplane_waist::Support;
use ebpf_host::Mode;

use self::{claims::CLAIMS, row::measure};
use crate::{
    claim::Claim,
    experiment::{Allowed, Axis, Experiment, Lab},
    measure::rounds,
    replicas::Ground,
};

/// What must stand wherever a figure of a commit in the driver stands.
pub const CAVEAT: &str = "path length, not network latency: over veth the whole exchange, all followers one after another, runs \
                          in softirq inside the client's own send call, so that the client never sleeps; the echo's client \
                          sleeps once and its server once";

const WAY: Axis = Axis {
    name: "way",
    meaning: "echo: one server answers by itself, over kernel sockets; reflector: one program answers by itself (the floor); \
              user: replicas in user space, over the same sockets; driver: the same replicas, with programs in their hosts' \
              drivers doing the normal case",
    full: &[ECHO, REFLECTOR, USER, DRIVER],
    tour: &[ECHO, DRIVER],
    smallest: DRIVER,
    allowed: Allowed::Words,
};

const REPLICAS: Axis = Axis {
    name: "replicas",
    meaning: "how many replicas; an echo and a reflector are one",
    full: &["3", "5", "7"],
    tour: &["3", "5"],
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

const VALUE_BYTES: Axis = Axis {
    name: "value_bytes",
    meaning: "bytes of each value; an echo is as long as the request would be",
    full: &["64"],
    tour: &["64"],
    smallest: "64",
    allowed: Allowed::Number(0.0, 1300.0),
};

const CPUS: Axis = Axis {
    name: "cpus",
    meaning: "one: client and all replicas share a CPU (path length); all: they are spread over the CPUs there are",
    full: &["one", "all"],
    tour: &["one"],
    smallest: "one",
    allowed: Allowed::Words,
};

const AXES: &[Axis] = &[WAY, REPLICAS, IN_FLIGHT, VALUE_BYTES, CPUS];

const ECHO: &str = "echo";
const REFLECTOR: &str = "reflector";
const USER: &str = "user";
const DRIVER: &str = "driver";
/// The socket of all ends: what most programs use.
const SOCKET: &str = "udp-blocking";

/// What one row measures.
#[derive(Clone, Debug)]
struct Cell {
    way: String,
    replicas_count: usize,
    in_flight: usize,
    value_bytes: usize,
    cpus: String,
    twin: bool,
}

impl Cell {
    fn is_alone(&self) -> bool {
        matches!(self.way.as_str(), ECHO | REFLECTOR)
    }

    fn needs_programs(&self) -> bool {
        matches!(self.way.as_str(), REFLECTOR | DRIVER)
    }
}

/// See the module.
#[derive(Debug)]
pub struct XdpQuorum;

impl Experiment for XdpQuorum {
    fn id(&self) -> &'static str {
        "xdp-quorum"
    }

    fn title(&self) -> &'static str {
        "A commit in the driver"
    }

    fn question(&self) -> &'static str {
        "Can a replicated commit cost less than an echo, if programs in the driver do its normal case?"
    }

    fn how(&self) -> &'static str {
        "Replicas in processes and network namespaces of their own, on one bridge without netfilter, elect a leader; a client \
         with a blocking socket keeps puts under way and measures each from its first send to the answer. In the way `driver`, \
         an XDP program (generic mode) at the leader gives each put the next slot and sends it to all followers in one frame, \
         a program at each follower keeps it in a ring and acknowledges, and the acknowledgement that completes a majority \
         becomes the client's answer; the replicas take the entries over from the rings every millisecond. The same client \
         measures an echo, a reflector and the same replicas without programs in the same rounds, in an order shuffled by the \
         seed. What it means: path length, not network latency, since over veth all of it runs inside the client's send call."
    }

    fn axes(&self) -> &'static [Axis] {
        AXES
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![SOCKET]
    }

    fn tour_backends(&self) -> Vec<&'static str> {
        vec![SOCKET]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        1.5
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its replicas are processes in network namespaces of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        if let Some(why) = lab.place.cannot_make_hosts() {
            lab.progress
                .println(format!("nothing is measured: it needs hosts of its own, and {why}"));
            return Ok(());
        }
        let mut cells = cells(lab);
        if let Some(why) = no_programs() {
            lab.progress.println(format!(
                "reflector and driver are left out: they are programs in the driver, and {why}"
            ));
            cells.retain(|cell| !cell.needs_programs());
        }
        let Some(most) = cells.iter().map(|cell| cell.replicas_count).max() else {
            return Ok(());
        };
        let ground = Ground::bridge_for_programs(most)?;
        // A cluster is started and elects its leader before anything is measured, which the plan does not know of.
        let plan = lab.plan(cells.len(), Duration::from_millis(300));
        let orders = rounds::order(cells.len(), plan.rounds_count as usize, lab.choice.seed);
        lab.progress.set_length(orders.len() as u64 * cells.len() as u64);
        for (round, order) in orders.iter().enumerate() {
            for index in order {
                if lab.interrupted() || (round > 2 && lab.started.elapsed() > lab.budget) {
                    return Ok(());
                }
                let cell = &cells[*index];
                let Cell {
                    way,
                    replicas_count,
                    in_flight,
                    ..
                } = cell;
                lab.progress.set_message(format!(
                    "{way}, {replicas_count} replicas, {in_flight} in flight, round {}",
                    round + 1
                ));
                lab.record_until_valid(|lab| measure(lab, (&ground, cell), round as u32, plan.trial))?;
                lab.progress.inc(1);
            }
        }
        Ok(())
    }
}

/// Why there are no programs in the driver here, if there are none.
fn no_programs() -> Option<String> {
    match ebpf_host::probe(None, Mode::Generic) {
        Ok(Support::Absent { why }) => Some(why),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

/// What is measured, in the order of the axes.
fn cells(lab: &Lab<'_>) -> Vec<Cell> {
    let mut cells = Vec::new();
    for way in lab.values(&WAY) {
        for (index, replicas) in lab.values(&REPLICAS).iter().enumerate() {
            for in_flight in lab.numbers(&IN_FLIGHT) {
                for value_bytes in lab.numbers(&VALUE_BYTES) {
                    for cpus in lab.values(&CPUS) {
                        let mut cell = Cell {
                            way: way.clone(),
                            replicas_count: replicas.parse().expect("axis values are checked beforehand"),
                            in_flight: in_flight as usize,
                            value_bytes: value_bytes as usize,
                            cpus: cpus.clone(),
                            twin: false,
                        };
                        if cell.is_alone() {
                            if index > 0 {
                                continue;
                            }
                            cell.replicas_count = 1;
                        }
                        let is_doubled = way == DRIVER && replicas == "3" && cell.in_flight == 1 && cpus == "one";
                        if is_doubled {
                            cells.push(Cell {
                                twin: true,
                                ..cell.clone()
                            });
                        }
                        cells.push(cell);
                    }
                }
            }
        }
    }
    cells
}
