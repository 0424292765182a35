//! Where the programs are: in the replicas' hosts, or on cards in front of them; and whose CPU is charged for what.

use std::collections::BTreeMap;

use ebpf_host::{Loaded, Mode, Program, Settings};

use super::{Cell, ways::DRIVER};
use crate::{
    bandwidth::{Bandwidth, SLOWDOWN_MAX},
    experiment::{Allowed, Axis, Lab},
    host::RunTime,
    record::{Better, Metric},
    replicas::{FanOut, Ground, ReceiveCpu, ReceiveThreads},
};

pub(super) const PLACEMENT: Axis = Axis {
    name: "placement",
    meaning: "where programs are. host: at the replica's own interface; dpu: at the outer interface of a card, which stands in \
              the wire in front of the host and hands on to it what programs pass up; offload: on the network card itself, whose driver \
              has translated them",
    full: &[HOST, DPU, OFFLOAD],
    tour: &[HOST],
    smallest: HOST,
    allowed: Allowed::Words,
};

pub(super) const RECEIVE: Axis = Axis {
    name: "receive",
    meaning: "who does receive work, programs included. inline: a softirq of whoever sends, as veth does it; thread: a kernel \
              thread for each interface of hosts and cards (threaded NAPI), which is charged for it",
    full: &[INLINE, THREAD],
    tour: &[INLINE],
    smallest: INLINE,
    allowed: Allowed::Words,
};

pub(super) const DPU_SLOWDOWN: Axis = Axis {
    name: "dpu_slowdown",
    meaning: "each card's threads get one such part of a CPU, by a quota: 1 ms of every so many",
    full: &["1", "4"],
    tour: &["1"],
    smallest: "1",
    allowed: Allowed::Number(1.0, SLOWDOWN_MAX as f64),
};

pub(in crate::experiments) const FAN_OUT: Axis = Axis {
    name: "fan_out",
    meaning: "how an entry reaches the followers in the driver. flood: one frame to an address that the switch does not know, a \
              copy of which each acknowledges; multicast: the same to a multicast address, of which the bridge takes a copy for \
              itself; chain: one frame that each hands on to the next, and the last acknowledges for all: unicast alone",
    full: &[FLOOD, MULTICAST, CHAIN],
    tour: &[CHAIN],
    smallest: FLOOD,
    allowed: Allowed::Words,
};

pub(in crate::experiments) const FLOOD: &str = "flood";
pub(in crate::experiments) const CHAIN: &str = "chain";
pub(in crate::experiments) const MULTICAST: &str = "multicast";
const HOST: &str = "host";
const DPU: &str = "dpu";
const OFFLOAD: &str = "offload";
const INLINE: &str = "inline";
const THREAD: &str = "thread";

/// Where a cell's programs are, and who runs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::experiments) struct Placement {
    pub(super) on_card: bool,
    /// On the network card itself, not on a host that stands for one.
    pub(super) on_device: bool,
    pub(super) has_threads: bool,
    /// 1: as fast as everybody.
    pub(super) slowdown: u32,
    pub(super) fan_out: FanOut,
}

impl Placement {
    /// What all ways have.
    pub(in crate::experiments) const PLAIN: Placement = Placement {
        on_card: false,
        on_device: false,
        has_threads: false,
        slowdown: 1,
        fan_out: FanOut::Flood,
    };

    /// Where all ways are, with entries sent in the way of that word on the axis.
    pub(in crate::experiments) fn sending(fan_out: &str) -> Placement {
        Placement {
            fan_out: fan_out_of(fan_out),
            ..Placement::PLAIN
        }
    }

    /// With a kernel thread for each interface, which is charged for receive work; programs in hosts, or on cards.
    pub(in crate::experiments) const fn threaded(on_card: bool) -> Placement {
        Placement {
            on_card,
            has_threads: true,
            ..Placement::PLAIN
        }
    }

    /// Neither cards nor threads.
    pub(super) fn is_in_plain_hosts(self) -> bool {
        let fan_out = self.fan_out;
        self == Placement {
            fan_out,
            ..Placement::PLAIN
        }
    }

    pub(super) fn axis(self) -> [(&'static str, String); 4] {
        let place = match (self.on_device, self.on_card) {
            (true, _) => OFFLOAD,
            (_, true) => DPU,
            _ => HOST,
        };
        let word = |is: bool, yes: &str, no: &str| if is { yes } else { no }.to_owned();
        [
            (PLACEMENT.name, place.to_owned()),
            (RECEIVE.name, word(self.has_threads, THREAD, INLINE)),
            (DPU_SLOWDOWN.name, self.slowdown.to_string()),
            (FAN_OUT.name, self.fan_out_word().to_owned()),
        ]
    }

    fn fan_out_word(self) -> &'static str {
        match self.fan_out {
            FanOut::Flood => FLOOD,
            FanOut::Multicast => MULTICAST,
            FanOut::Chain => CHAIN,
        }
    }

    /// The CPUs of replica `index` (from 0) and of its card. Cards that work by themselves get a CPU of their own, where there
    /// is one to spare.
    pub(super) fn cpus(self, usable: &[usize], is_one: bool, index: usize) -> (Option<usize>, Option<usize>) {
        let Some((&first, last)) = usable.first().zip(usable.last().copied()) else {
            return (None, None);
        };
        match (is_one, self.on_card && self.has_threads) {
            (true, _) => (Some(first), Some(first)),
            (false, true) => (Some(first), Some(last)),
            (false, false) => {
                let own = usable[(index + 1) % usable.len()];
                (Some(own), Some(own))
            }
        }
    }

    /// Threads for receive work, if the cell has any.
    pub(super) fn start(
        self,
        ground: &Ground,
        replicas_count: usize,
        cpus_of: impl Fn(usize) -> (Option<usize>, Option<usize>),
    ) -> anyhow::Result<Option<ReceiveThreads>> {
        let start = || ReceiveThreads::start(ground, replicas_count, cpus_of, self.slowdown);
        self.has_threads.then(start).transpose()
    }

    pub(super) fn facts(self) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::new();
        let mut put = |name: &str, text: String| facts.insert(name.to_owned(), text);
        if self.has_threads {
            let text = "threaded NAPI on the interfaces of replicas' hosts and cards, SCHED_OTHER; what a thread sends is \
                        forwarded by the switch, and received by the client, on that thread's account";
            put("receive", text.to_owned());
        }
        if self.on_card {
            let text =
                "rings are memory of the card that the replica on the host has mapped, and drains with the host's CPU";
            put("who_drains", text.to_owned());
        }
        if self.slowdown > 1 {
            let text = format!(
                "CFS bandwidth: each card's threads run 1 ms of every {} ms, at full speed: a share of a core, not a slower one",
                self.slowdown
            );
            put("dpu_slowdown", text);
        }
        facts
    }
}

fn fan_out_of(word: &str) -> FanOut {
    match word {
        CHAIN => FanOut::Chain,
        MULTICAST => FanOut::Multicast,
        _ => FanOut::Flood,
    }
}

/// `cell` as it is, and where else its programs can be, and how else they can send: for every cell where that was asked for, else
/// for the smallest, and the chain for every number of replicas.
pub(super) fn variants(lab: &Lab<'_>, cell: Cell, is_smallest: bool) -> Vec<Cell> {
    let axes = [&PLACEMENT, &RECEIVE, &DPU_SLOWDOWN];
    let is_asked_for = axes.iter().any(|axis| lab.choice.axes.contains_key(axis.name));
    if cell.way != DRIVER {
        return vec![cell];
    }
    let fan_outs = match cell.in_flight == 1 || lab.choice.axes.contains_key(FAN_OUT.name) {
        true => lab.values(&FAN_OUT),
        false => vec![FLOOD.to_owned()],
    };
    let mut variants: Vec<Cell> = fan_outs
        .iter()
        .map(|fan_out| Cell {
            placement: Placement::sending(fan_out),
            ..cell.clone()
        })
        .collect();
    if !(is_asked_for || is_smallest) {
        return variants;
    }
    if !lab.values(&PLACEMENT).iter().any(|word| word == HOST)
        || !lab.values(&RECEIVE).iter().any(|word| word == INLINE)
    {
        variants.clear();
    }
    for placement in lab.values(&PLACEMENT) {
        for receive in lab.values(&RECEIVE) {
            for slowdown in lab.numbers(&DPU_SLOWDOWN) {
                let placement = Placement {
                    on_card: placement == DPU,
                    on_device: placement == OFFLOAD,
                    has_threads: receive == THREAD,
                    slowdown: slowdown as u32,
                    fan_out: FanOut::Flood,
                };
                if placement == Placement::PLAIN {
                    continue;
                }
                // Only what is in threads on a card can be slowed without slowing anybody else.
                if placement.slowdown > 1 && !(placement.on_card && placement.has_threads) {
                    continue;
                }
                // A device has no threads of this kernel.
                if placement.on_device && placement.has_threads {
                    continue;
                }
                variants.push(Cell {
                    placement,
                    ..cell.clone()
                });
            }
        }
    }
    variants
}

/// Leaves out what this machine cannot do, and says why.
///
/// # Errors
/// No hosts can be made to try it on.
pub(super) fn keep_possible(lab: &Lab<'_>, cells: &mut Vec<Cell>) -> anyhow::Result<()> {
    let has = |cells: &[Cell], needs: fn(&Cell) -> bool| cells.iter().any(needs);
    if has(cells, |cell| cell.placement.has_threads)
        && let Err(error) = ReceiveThreads::start(&Ground::bridge_for_programs(1)?, 1, |_| (None, None), 1)
    {
        lab.say(&format!("receive=thread is left out: {error:#}"));
        cells.retain(|cell| !cell.placement.has_threads);
    }
    if has(cells, |cell| cell.placement.on_device)
        && let Err(error) = put_on_device()
    {
        lab.say(&format!("placement=offload is left out: {error:#}"));
        cells.retain(|cell| !cell.placement.on_device);
    }
    if has(cells, |cell| cell.placement.slowdown > 1)
        && let Err(error) = Bandwidth::of(2)
    {
        lab.say(&format!("a slower DPU is left out: {error:#}"));
        cells.retain(|cell| cell.placement.slowdown == 1);
    }
    Ok(())
}

/// Puts the program that every replica begins with on a replica's interface itself, for a moment.
///
/// # Errors
/// That interface's driver, or its device, does not take it.
fn put_on_device() -> anyhow::Result<()> {
    let ground = Ground::bridge_for_programs(1)?;
    let interface = &ground.replicas(1)?[0].interface;
    ground.inside_replica(0, || {
        let program = Loaded::load(Program::QuorumFollower, &Settings::default())?;
        program.attach(interface, Mode::Offload).map(drop)
    })??;
    Ok(())
}

/// What hosts and cards used, where that can be told apart.
pub(super) fn metrics(received: ReceiveCpu, replicas: &[Option<RunTime>], on_card: bool) -> Vec<(&'static str, f64)> {
    let mut metrics = Vec::new();
    let replicas: Option<u128> = replicas.iter().map(|used| Some(used.as_ref()?.on_cpu.as_nanos())).sum();
    if let Some(replicas) = replicas {
        metrics.push(("hosts_cpu_per_op", (replicas + received.hosts.as_nanos()) as f64));
    }
    if on_card {
        metrics.push(("cards_cpu_per_op", received.cards.as_nanos() as f64));
    }
    metrics
}

/// Adds those to a row's metrics, for each of `answered_count` answers.
pub(super) fn put(into: &mut BTreeMap<String, Metric>, metrics: Vec<(&'static str, f64)>, answered_count: u64) {
    for (name, ns) in metrics {
        let metric = Metric {
            value: ns / answered_count as f64,
            unit: "ns".to_owned(),
            better: Better::Lower,
        };
        into.insert(name.to_owned(), metric);
    }
}
