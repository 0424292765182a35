//! What stands in a scenario file. `dplab schema --scenario` prints the same as a JSON schema.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_spanned::Spanned;

use super::{
    flow_list::FlowList,
    units::{Controller, Length, Rate, Segments, Size, Span},
};

/// A network, what its hosts do, and what a paper says comes of it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioFile {
    /// Short, in kebab-case.
    pub name: String,
    /// A few words for headings.
    pub title: String,
    /// Who published the figure, and where.
    #[serde(default)]
    pub source: String,
    /// Everything that is drawn is drawn from this; --seed overrides it.
    #[serde(default = "one")]
    pub seed: u64,
    /// Virtual time after which a run ends, whatever is still under way.
    pub horizon: Span,
    /// What is connected to what.
    pub topology: TopologyFile,
    /// What the switches are.
    #[serde(default)]
    pub switch: SwitchFile,
    /// What the hosts are.
    #[serde(default)]
    pub host: HostFile,
    /// Who carries the flows: TCP if nothing is said.
    #[schemars(with = "Option<TransportKind>")]
    pub transport: Option<Spanned<TransportKind>>,
    /// What TCP does.
    #[serde(default)]
    pub tcp: TcpFile,
    /// What NDP does.
    #[serde(default)]
    pub ndp: NdpFile,
    /// What the hosts send. All loads run together.
    #[serde(default)]
    #[schemars(with = "Vec<LoadFile>")]
    pub load: Vec<Spanned<LoadFile>>,
    /// A list of flows (CSV), looked for beside this file: they take the place of what the loads send.
    #[schemars(with = "Option<String>")]
    pub flows: Option<Spanned<String>>,
    /// What that list holds.
    #[serde(skip)]
    pub list: Option<Arc<FlowList>>,
    /// SHA-256 of this file, in hexadecimal digits: what was simulated can be told from what is in a file of the same name.
    #[serde(skip)]
    pub sha256: String,
    /// What is varied: a run for each value.
    pub vary: Option<Vary>,
    /// What is compared: a run for each arm. Without any there is one, with the settings above.
    #[serde(default)]
    pub arm: Vec<Arm>,
    /// What the paper measured.
    #[serde(default)]
    pub paper: Vec<PaperFigure>,
}

fn one() -> u64 {
    1
}

/// Shapes of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TopologyKind {
    /// Two hosts and a cable, no switch.
    Pair,
    /// `hosts` around one switch.
    Star,
    /// `left` and `right` hosts at both ends of one cable between two switches.
    Dumbbell,
    /// `leaves` racks of `hosts_per_leaf` hosts, each connected to each of `spines`.
    LeafSpine,
    /// Switches of `k` ports, k³/4 hosts.
    FatTree,
}

/// What is connected to what. Hosts are numbered from 0.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TopologyFile {
    /// The shape.
    #[schemars(with = "TopologyKind")]
    pub kind: Spanned<TopologyKind>,
    /// Of a star.
    #[schemars(with = "Option<u32>")]
    pub hosts: Option<Spanned<u32>>,
    /// Of a dumbbell: hosts on the left, which have the first numbers.
    pub left: Option<u32>,
    /// Of a dumbbell: hosts on the right.
    pub right: Option<u32>,
    /// Of a leaf-spine: racks.
    pub leaves: Option<u32>,
    /// Of a leaf-spine: hosts of each rack.
    pub hosts_per_leaf: Option<u32>,
    /// Of a leaf-spine.
    pub spines: Option<u32>,
    /// Of a FatTree: ports of each switch, an even number up to 32.
    pub k: Option<u32>,
    /// Of each cable to a host, and of all others unless `core_rate` says otherwise.
    pub rate: Rate,
    /// From end to end of each cable.
    pub delay: Span,
    /// Of the cables of single hosts, instead of `delay`: hosts that are further away than others.
    #[serde(default)]
    pub host_delays: Vec<HostDelay>,
    /// Of cables between switches.
    pub core_rate: Option<Rate>,
    /// Of cables between switches.
    pub core_delay: Option<Span>,
    /// Packets that vanish on cables between switches, or on those to hosts where there are none between switches: 0 to 1.
    #[serde(default)]
    #[schemars(with = "Option<f64>")]
    pub loss_ratio: Option<Spanned<f64>>,
}

/// How a queue decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QueueKind {
    /// What does not fit is dropped.
    #[default]
    DropTail,
    /// Random early detection.
    Red,
    /// Controlled delay, RFC 8289.
    Codel,
    /// A queue for each flow with CoDel, RFC 8290.
    FqCodel,
    /// Eight priorities, the highest first.
    Priority,
    /// Payloads are cut off, NDP.
    Trimming,
}

/// When a packet is marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MarkWhen {
    /// When it arrives and finds more than `mark_at`.
    #[default]
    Enqueue,
    /// When it leaves more than `mark_at` behind.
    Dequeue,
}

/// What a port does with packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueFile {
    /// The discipline.
    #[serde(default)]
    pub kind: QueueKind,
    /// How much may wait: "100 packets" (the default) or "64 KB".
    pub limit: Option<Length>,
    /// Drop-tail and priority: packets of senders that react are marked beyond this.
    pub mark_at: Option<Length>,
    /// Drop-tail and priority.
    #[serde(default)]
    pub mark_when: MarkWhen,
    /// RED: the average, in packets, below which nothing is dropped.
    pub min_packets: Option<f64>,
    /// RED: the average at which the chance is `max_p`.
    pub max_packets: Option<f64>,
    /// RED.
    pub max_p: Option<f64>,
    /// RED: the average moves by 2 to the power of minus this of the way.
    pub weight_exponent: Option<u8>,
    /// RED: the chance rises to 1 at twice `max_packets` instead of at once.
    #[serde(default)]
    pub gentle: bool,
    /// RED and CoDel: marks instead of drops, where the sender reacts.
    #[serde(default)]
    pub marks: bool,
    /// CoDel: the wait that is acceptable.
    pub target: Option<Span>,
    /// CoDel: how long it must be longer.
    pub interval: Option<Span>,
}

/// Nothing is dropped: a switch that holds too much of what came in by a link pauses its other end (IEEE 802.1Qbb).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PfcFile {
    /// What came in by one link and waits, from which on the other end is paused.
    pub pause_at: Size,
    /// At no more than so much it may go on; less than `pause_at`.
    pub resume_at: Size,
    /// What is kept free above `pause_at` for what still comes; without it as much as can come. Too little, and it is dropped.
    pub headroom: Option<Size>,
}

/// The cable of one host.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostDelay {
    /// Which.
    #[schemars(with = "u32")]
    pub host: Spanned<u32>,
    /// From end to end of its cable, in both directions.
    pub delay: Span,
}

/// How a switch chooses among equal ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BalanceKind {
    /// By a hash of the flow.
    #[default]
    FlowHash,
    /// Each packet by a draw.
    SprayRandom,
    /// The ports in turn.
    SprayRoundRobin,
}

/// What the switches are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchFile {
    /// What each port does with packets.
    #[serde(default)]
    pub queue: QueueFile,
    /// Nothing is dropped, but paused. Queues are drop-tail or priority, and memory is not shared.
    #[schemars(with = "Option<PfcFile>")]
    pub pfc: Option<Spanned<PfcFile>>,
    /// Memory that the ports share; without it each port has its own.
    pub memory: Option<Size>,
    /// Of the shared memory: a queue may grow while it is shorter than this times what is free.
    pub alpha: Option<f64>,
    /// Sends a packet on when its header has come, not its last bit.
    #[serde(default)]
    pub cut_through: bool,
    /// Among equal ports.
    #[serde(default)]
    pub balance: BalanceKind,
    /// From a packet's arrival to its place in a queue.
    pub latency: Option<Span>,
}

/// What the hosts are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// From the decision to send to the first bit on the wire.
    pub tx_latency: Option<Span>,
    /// From the last bit to whoever waits for it.
    pub rx_latency: Option<Span>,
    /// A sender of TCP deals with an acknowledgement up to so much after it has come, by a draw, and with all that have come by then: no
    /// two hosts are in step. Without it flows stay in phase, and one of them finds the queue full again and again (Floyd and Jacobson,
    /// On traffic phase effects in packet-switched gateways, 1992, whose remedy this is; theirs is a packet's time on the bottleneck).
    pub processing: Option<Span>,
}

/// Whose TCP it is, before anything is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TcpBase {
    /// By the RFCs alone, with high-resolution timers.
    #[default]
    Rfc,
    /// Linux 2.6.24 to 2.6.27.
    #[serde(rename = "linux-2008")]
    Linux2008,
    /// Linux 6.x.
    #[serde(rename = "linux-2026")]
    Linux2026,
}

/// What TCP does. What is not said is as in `base`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpFile {
    /// Whose TCP.
    pub base: Option<TcpBase>,
    /// The congestion controller.
    pub controller: Option<Controller>,
    /// Segments may be marked: with DCTCP always, with others as RFC 3168 says.
    pub ecn: Option<bool>,
    /// DCTCP: the weight of a new measurement; RFC 8257 has 1/16.
    pub dctcp_gain: Option<f64>,
    /// DCTCP: the least window after a mark, in segments: 1 in RFC 8257, 2 in Linux and here by default.
    pub dctcp_window_min: Option<std::num::NonZeroU32>,
    /// Payload of a full segment.
    pub mss: Option<Size>,
    /// Segments before the first acknowledgement.
    pub initial_window: Option<u32>,
    /// What a receiver offers.
    pub receive_window: Option<Size>,
    /// Selective acknowledgements.
    pub sack: Option<bool>,
    /// Losses found by time, RFC 8985.
    pub rack: Option<bool>,
    /// Tail loss probes.
    pub tlp: Option<bool>,
    /// Spurious timeouts recognised, RFC 5682.
    pub frto: Option<bool>,
    /// RFC 3042.
    pub limited_transmit: Option<bool>,
    /// Proportional rate reduction, RFC 6937.
    pub prr: Option<bool>,
    /// RFC 7323.
    pub timestamps: Option<bool>,
    /// The least retransmission timeout.
    pub rto_min: Option<Span>,
    /// The greatest.
    pub rto_max: Option<Span>,
    /// Before the first round trip is known.
    pub rto_initial: Option<Span>,
    /// Up to half of the timeout is added at random.
    pub rto_randomised: Option<bool>,
    /// Timers end at multiples of this; "0 ns" is high resolution.
    pub timer_tick: Option<Span>,
    /// How long an acknowledgement may wait for a second segment.
    pub ack_delay: Option<Span>,
    /// The first segments that are acknowledged at once.
    pub quick_acks: Option<u32>,
    /// Segments are paced where the controller has no rate of its own.
    pub pacing: Option<bool>,
    /// BBRv1: its window has room for three bursts of a millisecond each at its rate, as Linux's has; otherwise for three segments.
    pub bbr_holds_bursts: Option<bool>,
    /// BBRv1: segments leave in bursts of a millisecond at its rate, as from Linux; otherwise one by one.
    pub bbr_sends_bursts: Option<bool>,
    /// BBRv1: its window has room for what acknowledgements brought in excess of its bandwidth, as Linux's has.
    pub bbr_aggregation: Option<bool>,
    /// BBRv1: a path that loses steadily is taken for one with a policer, as by Linux. Off if it is not said.
    pub bbr_policers: Option<bool>,
    /// Swift: the least window, in segments; 1 takes its windows of less than a segment away.
    pub swift_window_min: Option<Segments>,
    /// Swift: segments that the window grows by in a round trip; below a window of one segment, for each acknowledgement.
    pub swift_increase: Option<Segments>,
    /// The window begins anew after a pause longer than the retransmission timeout.
    pub idle_restart: Option<bool>,
}

/// Who carries flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TransportKind {
    /// As `tcp` says.
    #[default]
    Tcp,
    /// Receivers pull what switches with trimming queues cut off. No endless flows, and questions once.
    Ndp,
    /// Messages of the shortest rest first, over switches with priorities. Each flow is a call, answered with as many bytes. As NDP,
    /// no endless flows, and questions once.
    Homa,
}

/// What NDP does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NdpFile {
    /// Of a full packet, without 64 bytes of headers: 8,936 B if nothing is said.
    pub payload: Option<Size>,
    /// Packets that are sent blindly; 30 if nothing is said.
    pub initial_window: Option<std::num::NonZeroU32>,
}

/// What a load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoadKind {
    /// `client` asks `servers` at once for `bytes` each or `bytes_total` together, and again when all have come.
    Incast,
    /// Every host asks every other for `bytes` at once, and again when all have come.
    AllToAll,
    /// `flows` that never end, from `from` to `to`; of a star, from hosts `from`, `from` + 1, ….
    Long,
    /// Each of the hosts `from` to `to` has `flows` that never end, to others of them, drawn by the seed.
    Mesh,
    /// The flows of `list`.
    Flows,
    /// Every host sends `bytes` to another, each to one and from one.
    Permutation,
}

/// What some of the hosts do.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadFile {
    /// What it is.
    pub kind: LoadKind,
    /// Only in the arms of these names; otherwise in all.
    #[schemars(with = "Option<Vec<String>>")]
    pub arms: Option<Vec<Spanned<String>>>,
    /// Incast: the host that asks.
    #[schemars(with = "Option<u32>")]
    pub client: Option<Spanned<u32>>,
    /// Incast: how many connections answer. They belong to the other hosts in turn, so there may be more than hosts.
    #[schemars(with = "Option<u32>")]
    pub servers: Option<Spanned<u32>>,
    /// Incast: the first host that answers; otherwise the first after the client.
    #[schemars(with = "Option<u32>")]
    pub first_server: Option<Spanned<u32>>,
    /// Of each answer or flow.
    pub bytes: Option<Size>,
    /// Incast: of all answers together.
    pub bytes_total: Option<Size>,
    /// Incast and all-to-all: how often.
    pub rounds: Option<u32>,
    /// Incast and all-to-all: each round uses new connections, already established, instead of those of the round before.
    #[serde(default)]
    pub fresh: bool,
    /// Incast and all-to-all: between all answers and the next question.
    pub pause: Option<Span>,
    /// Incast and all-to-all: each server answers later by a draw of up to this.
    pub jitter: Option<Span>,
    /// Incast and all-to-all: of the packet that asks.
    pub request: Option<Size>,
    /// Long: how many. Mesh: how many of each host.
    #[schemars(with = "Option<u32>")]
    pub flows: Option<Spanned<u32>>,
    /// Long: the host that sends. Mesh: the first host.
    #[schemars(with = "Option<u32>")]
    pub from: Option<Spanned<u32>>,
    /// Long: the host that receives. Mesh: the last host.
    #[schemars(with = "Option<u32>")]
    pub to: Option<Spanned<u32>>,
    /// When it begins.
    pub start: Option<Span>,
    /// Long and mesh: between the beginnings of two flows.
    pub stagger: Option<Span>,
    /// Flows: each of them.
    #[serde(default)]
    pub list: Vec<FlowFile>,
    /// Replaces the scenario's TCP for these flows, setting by setting.
    pub tcp: Option<TcpFile>,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowFile {
    /// The host that sends.
    #[schemars(with = "u32")]
    pub from: Spanned<u32>,
    /// The host that receives.
    #[schemars(with = "u32")]
    pub to: Spanned<u32>,
    /// How much.
    pub bytes: Size,
    /// When it begins.
    pub start: Option<Span>,
}

/// A quantity that can be varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Varied {
    /// Of the first incast.
    Servers,
    /// Of the first load of long flows.
    Flows,
    /// Of the topology.
    LossRatio,
    /// Of the switches.
    MarkAtPackets,
    /// Of the switches.
    LimitPackets,
    /// Of the cables between switches, or of all if there are none.
    DelayUs,
    /// Of the first of the topology's `host_delays`.
    HostDelayUs,
}

/// What is varied.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vary {
    /// Which quantity.
    pub what: Varied,
    /// Its values.
    #[schemars(with = "Vec<f64>")]
    pub values: Spanned<Vec<f64>>,
}

/// One side of a comparison: what differs from the rest of the file.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Short, in kebab-case.
    pub name: String,
    /// Replaces the scenario's TCP, setting by setting.
    #[serde(default)]
    pub tcp: TcpFile,
    /// Replaces the scenario's transport.
    #[schemars(with = "Option<TransportKind>")]
    pub transport: Option<Spanned<TransportKind>>,
    /// Replaces the switches' queue, as a whole.
    pub queue: Option<QueueFile>,
    /// Replaces the switches' `pfc`.
    #[schemars(with = "Option<PfcFile>")]
    pub pfc: Option<Spanned<PfcFile>>,
}

/// A figure of a paper.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaperFigure {
    /// The arm that it is about.
    #[schemars(with = "Option<String>")]
    pub arm: Option<Spanned<String>>,
    /// The value of what is varied.
    pub at: Option<f64>,
    /// The metric that it is compared with.
    #[schemars(with = "String")]
    pub metric: Spanned<String>,
    /// What the paper says.
    pub value: f64,
    /// How far from it still agrees: 0.1 is 10 %.
    pub tolerance: f64,
    /// Where the paper says it.
    pub place: String,
}
