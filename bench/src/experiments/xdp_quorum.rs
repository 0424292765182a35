//! `xdp-quorum`: a commit whose normal case is done by programs in the driver, beside an echo over the same bridge and the same
//! commit in user space.

mod claims;
pub(super) mod placement;
mod row;
pub(super) mod ways;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use dataplane_waist::Support;
use ebpf_host::{Mode, Program};

use self::{
    claims::CLAIMS,
    placement::{DPU_SLOWDOWN, FAN_OUT, PLACEMENT, Placement, RECEIVE},
    row::measure,
    ways::{DRIVER, DRIVER_ACK, DRIVER_COUNT, DRIVER_DURABLE, ECHO, REFLECTOR, USER, USER_DURABLE},
};
use crate::{
    claim::Claim,
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    replicas::{FanOut, Ground},
};

/// What must stand wherever a figure of a commit in the driver stands.
pub const CAVEAT: &str = "path length, not network latency: over veth the whole exchange, all followers one after another, runs \
                          in softirq inside the client's own send call, so that the client never sleeps; the echo's client \
                          sleeps once and its server once";

const WAY: Axis = Axis {
    name: "way",
    meaning: "echo: one server answers by itself, over kernel sockets; reflector: one program answers by itself (the floor); \
              user: replicas in user space, over the same sockets; driver-ack: programs in the followers' drivers keep entries \
              and acknowledge them; driver-count: another in the leader's also counts, and passes only the acknowledgement up \
              that completes a majority; driver: programs do all of the normal case; user-durable, driver-durable: as user and \
              driver, and nothing is acknowledged before the disk has it",
    full: &[
        ECHO,
        REFLECTOR,
        USER,
        DRIVER_ACK,
        DRIVER_COUNT,
        DRIVER,
        USER_DURABLE,
        DRIVER_DURABLE,
    ],
    tour: &[ECHO, DRIVER],
    smallest: DRIVER,
    allowed: Allowed::Words,
};

const REPLICAS: Axis = Axis {
    name: "replicas",
    meaning: "how many replicas; an echo and a reflector are one",
    full: &["3", "5", "7"],
    tour: &["3"],
    smallest: "3",
    allowed: Allowed::Words,
};

const FABRIC: Axis = Axis {
    name: "fabric",
    meaning: "what joins the hosts. bridge: the kernel's, with generic XDP in the hosts; hub: a program on each port of the switch, \
              with native XDP in the hosts, so that frames stay XDP frames; direct: one veth pair, for the ways with one server",
    full: &[BRIDGE, HUB, DIRECT],
    tour: &[BRIDGE],
    smallest: BRIDGE,
    allowed: Allowed::Words,
};

const IN_FLIGHT: Axis = Axis {
    name: "in_flight",
    meaning: "requests that the client keeps under way",
    full: &["1", "4", "16", "64"],
    tour: &["1"],
    smallest: "1",
    allowed: Allowed::Number(1.0, 256.0),
};

const CLIENT: Axis = Axis {
    name: "client",
    meaning: "single: each request that the client sends is a system call and a datagram; train: those that it sends at once are one \
              datagram until the kernel cuts it behind the sockets (UDP_SEGMENT). With one request in flight there is no train",
    full: &[SINGLE, TRAIN],
    tour: &[SINGLE],
    smallest: SINGLE,
    allowed: Allowed::Words,
};

const VALUE_BYTES: Axis = Axis {
    name: "value_bytes",
    meaning: "bytes of each value; with 1333 the datagram's payload is 1400 bytes long. An echo is as long as the request would be",
    full: &["16", PLAIN_BYTES, "512", "1333"],
    tour: &[PLAIN_BYTES],
    smallest: PLAIN_BYTES,
    allowed: Allowed::Number(0.0, 1355.0),
};

const LOSS: Axis = Axis {
    name: "loss",
    meaning: "how many of all frames the switch loses, by seed, as each comes in from whichever host",
    full: &[LOSSLESS, "0.001", "0.01"],
    tour: &[LOSSLESS],
    smallest: LOSSLESS,
    allowed: Allowed::Number(0.0, 0.2),
};

const CPUS: Axis = Axis {
    name: "cpus",
    meaning: "one: client and all replicas share a CPU (path length); all: they are spread over the CPUs there are",
    full: &["one", "all"],
    tour: &["one"],
    smallest: "one",
    allowed: Allowed::Words,
};

const AXES: &[Axis] = &[
    WAY,
    REPLICAS,
    FABRIC,
    IN_FLIGHT,
    CLIENT,
    VALUE_BYTES,
    LOSS,
    CPUS,
    PLACEMENT,
    RECEIVE,
    DPU_SLOWDOWN,
    FAN_OUT,
];

const PLAIN_BYTES: &str = "64";
const LOSSLESS: &str = "0";
const SINGLE: &str = "single";
const TRAIN: &str = "train";
pub(super) const BRIDGE: &str = "bridge";
pub(super) const HUB: &str = "hub";
const DIRECT: &str = "direct";
/// The socket of all ends: what most programs use.
pub(super) const SOCKET: &str = "udp-blocking";

/// What one row measures.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) way: String,
    pub(super) replicas_count: usize,
    pub(super) fabric: String,
    pub(super) in_flight: usize,
    pub(super) client: String,
    pub(super) value_bytes: usize,
    pub(super) loss: String,
    pub(super) cpus: String,
    pub(super) placement: Placement,
    pub(super) twin: bool,
}

impl Cell {
    /// One request in flight, 64-byte values, no loss, one CPU.
    pub(super) fn plain(way: &str, replicas_count: usize) -> Cell {
        Cell {
            way: way.to_owned(),
            replicas_count,
            fabric: BRIDGE.to_owned(),
            in_flight: 1,
            client: SINGLE.to_owned(),
            value_bytes: 64,
            loss: LOSSLESS.to_owned(),
            cpus: "one".to_owned(),
            placement: Placement::PLAIN,
            twin: false,
        }
    }

    fn is_alone(&self) -> bool {
        ways::is_alone(&self.way)
    }

    fn loss_ratio(&self) -> f64 {
        self.loss.parse().expect("axis values are checked beforehand")
    }

    fn has_programs(&self) -> bool {
        self.way == REFLECTOR || ways::parts(&self.way).is_some()
    }

    /// Where frames meet the programs of replicas.
    fn mode(&self) -> Mode {
        match (self.placement.on_device, self.fabric == HUB) {
            (true, _) => Mode::Offload,
            (false, true) => Mode::Native,
            (false, false) => Mode::Generic,
        }
    }

    fn needs_programs(&self) -> bool {
        self.has_programs() || self.loss_ratio() > 0.0 || self.fabric == HUB
    }

    /// Is there such a thing? One server takes no switch, and a cluster does; ports that lose frames, and cards, are those of a
    /// bridge; a train has several requests.
    fn exists(&self) -> bool {
        let is_on_bridge = self.fabric == BRIDGE;
        let takes_bridge = self.loss_ratio() > 0.0 || !self.placement.is_in_plain_hosts();
        (self.is_alone() || self.fabric != DIRECT)
            && (is_on_bridge || !takes_bridge)
            && !(self.is_alone() && self.loss_ratio() > 0.0)
            && (is_on_bridge || self.placement.fan_out != FanOut::Multicast)
            && (self.client == SINGLE || self.in_flight > 1)
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
        "Replicas in processes and network namespaces of their own, on a bridge without netfilter, elect a leader; a client \
         with a blocking socket keeps puts under way and measures each from its first send to the answer. In the way `driver`, \
         an XDP program (generic mode) at the leader gives each put the next slot and sends it to all followers in one frame, \
         a program at each follower keeps it in a ring and acknowledges, and the acknowledgement that completes a majority \
         becomes the client's answer; the replicas take the entries over from the rings every millisecond. With `placement=dpu` \
         the programs are on cards: namespaces in the wire in front of the hosts. The same client measures an echo, a reflector and \
         the same replicas with no programs, or programs for parts of it, in the same rounds, in an order shuffled by the seed. Loss \
         is made by a program on each port of the switch. What nobody names is varied by itself alone. What it means: path length, \
         not network latency, since over veth all of it runs inside the client's send call."
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
        run_cells(self, lab, cells(lab))
    }
}

/// Measures all cells, in rounds. Rows are `experiment`'s, with its axes alone: what it does not vary is as in [`Cell::plain`].
pub(super) fn run_cells(experiment: &dyn Experiment, lab: &mut Lab<'_>, mut cells: Vec<Cell>) -> anyhow::Result<()> {
    if let Some(why) = lab.place.cannot_make_hosts() {
        lab.say(&format!("nothing is measured: it needs hosts of its own, and {why}"));
        return Ok(());
    }
    if let Some(why) = no_programs() {
        lab.say(&format!(
            "what takes programs in the driver, or a switch that loses frames, is left out: {why}"
        ));
        cells.retain(|cell| !cell.needs_programs());
        if cells.is_empty() {
            lab.progress
                .println("nothing is measured: all that was asked for takes programs");
            return Ok(());
        }
    }
    if cells.is_empty() {
        lab.say(
            "nothing is measured: on the fabric `direct` there is one server, so it is for the ways echo and reflector; one request in \
             flight is no train; loss and cards take a bridge",
        );
        return Ok(());
    }
    placement::keep_possible(lab, &mut cells)?;
    if cells.is_empty() {
        lab.say("nothing is measured: nothing else was asked for");
        return Ok(());
    }
    let grounds = grounds(&cells)?;
    // A cluster is started and elects its leader before anything is measured, which the plan does not know of.
    let plan = lab.plan(cells.len(), Duration::from_millis(300));
    lab.in_rounds(&cells, plan.rounds_count, |lab, turn| {
        let cell = turn.arm;
        lab.progress.set_message(format!(
            "{}, {} replicas, {} in flight, round {}",
            cell.way,
            cell.replicas_count,
            cell.in_flight,
            turn.round + 1
        ));
        let ground = &grounds[&room(&cells, cell)];
        lab.record_until_valid(|lab| {
            let mut row = measure(lab, experiment.id(), (ground, cell), turn.round, plan.trial)?;
            row.axis
                .retain(|name, _| experiment.axes().iter().any(|axis| axis.name == name));
            Ok(row)
        })
    })
}

/// What a cell's hosts stand on: a fabric, how many replicas there is room for, and whether they have cards. What a leader floods
/// goes to every host on it, also to one that does nothing.
type Room = (String, usize, bool);

fn grounds(cells: &[Cell]) -> anyhow::Result<BTreeMap<Room, Ground>> {
    let mut grounds = BTreeMap::new();
    for cell in cells {
        if let Entry::Vacant(entry) = grounds.entry(room(cells, cell)) {
            let (fabric, replicas_count, has_cards) = entry.key();
            let ground = match (fabric.as_str(), has_cards) {
                (DIRECT, _) => Ground::direct()?,
                (HUB, _) => Ground::hub(*replicas_count)?,
                (_, true) => Ground::bridge_with_cards(*replicas_count)?,
                (_, false) => Ground::bridge_for_programs(*replicas_count)?,
            };
            entry.insert(ground);
        }
    }
    Ok(grounds)
}

/// An echo stands where the smallest cluster does.
fn room(cells: &[Cell], cell: &Cell) -> Room {
    let clusters = cells.iter().filter(|cell| !cell.is_alone());
    let count = match cell.is_alone() {
        true => clusters.map(|cell| cell.replicas_count).min().unwrap_or(1),
        false => cell.replicas_count,
    };
    (cell.fabric.clone(), count, cell.placement.on_card)
}

/// What runs in the hosts' drivers and at the switch.
const PROGRAMS: [Program; 6] = [
    Program::Pass,
    Program::Echo,
    Program::Hub,
    Program::Lossy,
    Program::QuorumLeader,
    Program::QuorumFollower,
];

/// Why there are no programs in the driver here, if there are none.
fn no_programs() -> Option<String> {
    PROGRAMS
        .iter()
        .find_map(|&program| match ebpf_host::probe(program, None, Mode::Generic) {
            Ok(Support::Absent { why }) => Some(why),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        })
}

/// In how many ways a cell differs from the plainest, in what nobody has asked for by name: all combinations would be a
/// thousand. One and 16 requests in flight are both plain.
fn extras_count(lab: &Lab<'_>, cell: &Cell) -> usize {
    let is_named = |axis: &Axis| lab.choice.axes.contains_key(axis.name);
    let is_rung = matches!(cell.way.as_str(), DRIVER_ACK | DRIVER_COUNT);
    // The ends of the ladder are measured in all of them, what is on it and beside it only in what concerns it.
    let is_end = matches!(cell.way.as_str(), USER | DRIVER) || cell.is_alone();
    let extras = [
        (is_named(&REPLICAS), cell.replicas_count > 3),
        (is_named(&FABRIC), cell.fabric != BRIDGE),
        (is_named(&IN_FLIGHT), !matches!(cell.in_flight, 1 | 16)),
        (is_named(&CLIENT), cell.client != SINGLE),
        (is_named(&VALUE_BYTES), cell.value_bytes != 64),
        (is_named(&LOSS), cell.loss_ratio() > 0.0),
        (is_named(&CPUS), cell.cpus != "one"),
        (is_named(&WAY), !is_end && !is_rung),
        (
            is_named(&WAY),
            is_rung && (cell.value_bytes != 64 || cell.loss_ratio() > 0.0),
        ),
    ];
    extras
        .iter()
        .filter(|&&(is_named, differs)| differs && !is_named)
        .count()
}

/// What is measured, in the order of the axes.
fn cells(lab: &Lab<'_>) -> Vec<Cell> {
    let mut cells = Vec::new();
    for way in lab.values(&WAY) {
        for fabric in lab.values(&FABRIC) {
            for (index, replicas) in lab.values(&REPLICAS).iter().enumerate() {
                for (in_flight, client) in loads(lab) {
                    for value_bytes in lab.numbers(&VALUE_BYTES) {
                        for loss in lab.values(&LOSS) {
                            for cpus in lab.values(&CPUS) {
                                let cell = Cell {
                                    way: way.clone(),
                                    replicas_count: replicas.parse().expect("axis values are checked beforehand"),
                                    fabric: fabric.clone(),
                                    in_flight,
                                    client: client.clone(),
                                    value_bytes: value_bytes as usize,
                                    loss: loss.clone(),
                                    cpus: cpus.clone(),
                                    placement: Placement::PLAIN,
                                    twin: false,
                                };
                                push(lab, &mut cells, cell, index == 0);
                            }
                        }
                    }
                }
            }
        }
    }
    cells
}

/// How many requests are in flight, and how the client sends them.
fn loads(lab: &Lab<'_>) -> Vec<(usize, String)> {
    let in_flight = lab.numbers(&IN_FLIGHT).into_iter().map(|count| count as usize);
    let clients = lab.values(&CLIENT);
    in_flight
        .flat_map(|count| clients.iter().map(move |client| (count, client.clone())))
        .collect()
}

/// Adds a cell, if there is such a thing: an echo has one server, whatever the number of replicas.
fn push(lab: &Lab<'_>, cells: &mut Vec<Cell>, mut cell: Cell, is_first: bool) {
    if cell.is_alone() {
        if !is_first {
            return;
        }
        cell.replicas_count = 1;
    }
    if !cell.exists() || extras_count(lab, &cell) > 1 {
        return;
    }
    let is_plain = cell.in_flight == 1
        && cell.value_bytes == 64
        && cell.fabric == BRIDGE
        && cell.loss_ratio() == 0.0
        && cell.cpus == "one";
    let is_smallest = cell.replicas_count == 3 && is_plain;
    for cell in placement::variants(lab, cell, is_smallest) {
        if !cell.exists() {
            continue;
        }
        // A cluster whose programs must be verified takes a second to start: the tour has the floor of its other comparisons.
        let has_twin = cell.way == DRIVER && is_smallest && cell.placement == Placement::PLAIN;
        if has_twin && lab.choice.depth != Depth::Tour {
            cells.push(Cell {
                twin: true,
                ..cell.clone()
            });
        }
        cells.push(cell);
    }
}
