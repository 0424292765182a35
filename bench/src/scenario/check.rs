//! What a reader of TOML cannot see: hosts that do not exist, flows to themselves, networks that do not connect, more than
//! memory holds.

use std::ops::Range;

use serde_spanned::Spanned;

use super::{
    file::{
        HostDelay, LoadFile, LoadKind, QueueKind, ScenarioFile, TcpFile, TopologyFile, TopologyKind, TransportKind,
        Varied,
    },
    memory,
    problem::Problem,
};
use crate::advice::advice;

/// A file and its text, for messages that point into it.
pub(super) struct Checker<'a> {
    pub path: &'a str,
    pub source: &'a str,
}

impl Checker<'_> {
    fn problem<T>(&self, span: Range<usize>, message: impl Into<String>) -> Result<T, Problem> {
        Err(Problem::at(self.path, self.source, span, message))
    }

    /// Everything that can be wrong.
    pub fn check(&self, file: &ScenarioFile) -> Result<(), Problem> {
        let hosts_count = self.topology(&file.topology)?;
        self.host_delays(&file.topology, hosts_count)?;
        self.pauses(file)?;
        for load in &file.load {
            self.load(load, hosts_count, is_quinn(file, load.get_ref()))?;
            for arm in load.get_ref().arms.iter().flatten() {
                self.known("arm", arm, file.arm.iter().map(|arm| arm.name.as_str()))?;
            }
        }
        if file.load.is_empty() && file.flows.is_none() {
            return self.problem(
                0..0,
                "nothing is sent: a scenario needs at least one [[load]], or `flows`",
            );
        }
        self.transports(file)?;
        self.vary(file)?;
        self.arms(file)?;
        self.papers(file)?;
        let needed = memory::estimate(file, hosts_count);
        let span = file
            .load
            .iter()
            .max_by_key(|load| memory::flows_count(file, load.get_ref(), hosts_count));
        memory::refuse(needed).or_else(|message| self.problem(span.map_or(0..0, Spanned::span), message))
    }

    /// How many hosts there are.
    pub fn topology(&self, topology: &TopologyFile) -> Result<u32, Problem> {
        let kind = topology.kind.get_ref();
        let span = topology.kind.span();
        let needed = |name: &str, value: Option<u32>, min: u32, why: &str| match value {
            None => self.problem(span.clone(), format!("this kind of topology needs `{name}`")),
            Some(value) if value < min => self.problem(span.clone(), format!("`{name}` is {value}: {why}")),
            Some(value) => Ok(value),
        };
        let hosts = topology.hosts.as_ref().map(|hosts| *hosts.get_ref());
        if let Some(ratio) = &topology.loss_ratio
            && !(0.0..1.0).contains(ratio.get_ref())
        {
            let message = format!(
                "a loss ratio of {}: it lies between 0 and 1, and with 1 nothing would arrive",
                ratio.get_ref()
            );
            return self.problem(ratio.span(), message);
        }
        let product = |a: u32, b: u32| match a.checked_mul(b).filter(|hosts| *hosts <= HOSTS_MAX) {
            Some(hosts) => Ok(hosts),
            None => self.problem(
                span.clone(),
                format!("{a} times {b} hosts are more than the {HOSTS_MAX} that can be numbered"),
            ),
        };
        match kind {
            TopologyKind::Pair => Ok(2),
            TopologyKind::Star => {
                let hosts = needed("hosts", hosts, 2, "a star connects at least 2")?;
                product(hosts, 1)
            }
            TopologyKind::Dumbbell => {
                let left = needed("left", topology.left, 1, "a dumbbell needs a host on each side")?;
                let right = needed("right", topology.right, 1, "a dumbbell needs a host on each side")?;
                product(left.saturating_add(right), 1)
            }
            TopologyKind::LeafSpine => {
                let leaves = needed("leaves", topology.leaves, 2, "with one leaf it is a star")?;
                let each = needed("hosts_per_leaf", topology.hosts_per_leaf, 1, "each leaf needs a host")?;
                needed(
                    "spines",
                    topology.spines,
                    1,
                    "without a spine the leaves do not connect",
                )?;
                product(leaves, each)
            }
            TopologyKind::FatTree => {
                let k = needed("k", topology.k, 2, "switches have 2 to 32 ports")?;
                match k <= 32 && k.is_multiple_of(2) {
                    true => Ok(k * k * k / 4),
                    false => self.problem(
                        span,
                        format!("`k` is {k}: switches have an even number of ports, up to 32"),
                    ),
                }
            }
        }
    }

    fn host_delays(&self, topology: &TopologyFile, hosts_count: u32) -> Result<(), Problem> {
        for (index, HostDelay { host, .. }) in topology.host_delays.iter().enumerate() {
            let number = *host.get_ref();
            if number >= hosts_count {
                let last = hosts_count - 1;
                return self.problem(
                    host.span(),
                    format!("`host` is host {number}, and they are numbered from 0 to {last}"),
                );
            }
            if topology.host_delays[..index]
                .iter()
                .any(|before| *before.host.get_ref() == number)
            {
                return self.problem(host.span(), format!("host {number} has two delays: give one"));
            }
        }
        Ok(())
    }

    /// What must not be dropped must not be in a queue that drops, or in memory that others may have filled.
    fn pauses(&self, file: &ScenarioFile) -> Result<(), Problem> {
        let arms = file.arm.iter().map(|arm| (arm.pfc.as_ref(), arm.queue));
        for (pfc, queue) in arms.chain([(None, None)]) {
            let Some(pfc) = pfc.or(file.switch.pfc.as_ref()) else {
                continue;
            };
            let (span, own) = (pfc.span(), pfc.get_ref());
            if own.resume_at.bytes >= own.pause_at.bytes {
                return self.problem(
                    span,
                    "`resume_at` must be less than `pause_at`: a pause would end as it begins",
                );
            }
            // What a full segment of 1,448 B takes, or what the file says instead, with its headers.
            let frame_bytes = file.tcp.mss.map_or(1_448, |size| size.bytes) + 66;
            if let Some(headroom) = own.headroom
                && own.pause_at.bytes.saturating_add(headroom.bytes) < frame_bytes
            {
                return self.problem(
                    span,
                    format!("`pause_at` and `headroom` have no room for a full frame of {frame_bytes} B: none would ever pass"),
                );
            }
            let kind = queue.unwrap_or(file.switch.queue).kind;
            if !matches!(kind, QueueKind::DropTail | QueueKind::Priority) {
                return self.problem(
                    span,
                    "with `pfc` a queue is drop-tail or priority: the others drop or cut by their nature",
                );
            }
            if file.switch.memory.is_some() {
                return self.problem(
                    span,
                    "`pfc` and a shared `memory` do not go together here: each link has memory of its own",
                );
            }
        }
        Ok(())
    }

    /// NDP and Homa need switches of their kind, and carry flows that end.
    fn transports(&self, file: &ScenarioFile) -> Result<(), Problem> {
        let arms = file
            .arm
            .iter()
            .map(|arm| (arm.transport.as_ref(), arm.queue, Some(arm.name.as_str())));
        let alone = [(None, None, None)].into_iter().filter(|_| file.arm.is_empty());
        for (transport, queue, name) in arms.chain(alone) {
            let Some(transport) = transport.or(file.transport.as_ref()) else {
                continue;
            };
            let (needed, why) = match transport.get_ref() {
                TransportKind::Tcp => continue,
                TransportKind::Ndp => (
                    QueueKind::Trimming,
                    "NDP needs switches that cut payloads off: set the queue's `kind` to \"trimming\"",
                ),
                TransportKind::Homa => (
                    QueueKind::Priority,
                    "Homa needs switches with priorities: set the queue's `kind` to \"priority\"",
                ),
            };
            if queue.unwrap_or(file.switch.queue).kind != needed {
                return self.problem(transport.span(), why);
            }
            for load in &file.load {
                let (span, load) = (load.span(), load.get_ref());
                let is_elsewhere = load
                    .arms
                    .as_ref()
                    .is_some_and(|arms| !arms.iter().any(|arm| Some(arm.get_ref().as_str()) == name));
                let ends = match load.kind {
                    LoadKind::Incast => load.rounds.unwrap_or(1) <= 1,
                    LoadKind::Flows | LoadKind::Permutation => true,
                    LoadKind::AllToAll | LoadKind::Long | LoadKind::Mesh => false,
                };
                if !is_elsewhere && !ends {
                    return self.problem(
                        span,
                        "only TCP carries this load: take flows, a permutation, or an incast of one round, or name the `arms` that have it",
                    );
                }
            }
        }
        Ok(())
    }

    fn load(&self, load: &Spanned<LoadFile>, hosts_count: u32, is_quinn: bool) -> Result<(), Problem> {
        let (span, load) = (load.span(), load.get_ref());
        let exists = |name: &str, host: &Option<Spanned<u32>>| match host {
            Some(host) if *host.get_ref() >= hosts_count => {
                let last = hosts_count - 1;
                self.problem(
                    host.span(),
                    format!(
                        "`{name}` is host {}, and they are numbered from 0 to {last}",
                        host.get_ref()
                    ),
                )
            }
            _ => Ok(()),
        };
        let positive = |name: &str, count: &Option<Spanned<u32>>| match count {
            None => self.problem(span.clone(), format!("this kind of load needs `{name}`")),
            Some(count) if *count.get_ref() == 0 => {
                self.problem(count.span(), format!("`{name}` is 0: nothing would be sent"))
            }
            Some(_) => Ok(()),
        };
        let sized = |bytes: Option<u64>, name: &str| match bytes {
            None => self.problem(span.clone(), format!("this kind of load needs `{name}`")),
            Some(0) => self.problem(span.clone(), format!("`{name}` is 0: nothing would be sent")),
            Some(_) => Ok(()),
        };
        let different = |from: &Option<Spanned<u32>>, to: &Option<Spanned<u32>>| match (from, to) {
            (Some(from), Some(to)) if from.get_ref() == to.get_ref() => self.problem(
                to.span(),
                format!("a flow from host {} to itself: choose two hosts", from.get_ref()),
            ),
            _ => Ok(()),
        };
        match load.kind {
            LoadKind::Mesh => {
                exists("from", &load.from)?;
                exists("to", &load.to)?;
                positive("flows", &load.flows)?;
                match (&load.from, &load.to) {
                    (Some(from), Some(to)) if from.get_ref() < to.get_ref() => Ok(()),
                    (Some(_), Some(to)) => {
                        self.problem(to.span(), "a mesh needs two hosts: `to` is the last, after `from`")
                    }
                    (None, _) => self.problem(span, "this kind of load needs `from`"),
                    (_, None) => self.problem(span, "this kind of load needs `to`"),
                }
            }
            LoadKind::Incast | LoadKind::AllToAll if is_quinn => {
                let message = "an answer to a question goes over TCP here: quinn's flows are long ones, or of a list, or a permutation";
                self.problem(span, message)
            }
            LoadKind::Incast => {
                exists("client", &load.client)?;
                exists("first_server", &load.first_server)?;
                positive("servers", &load.servers)?;
                different(&load.client, &load.first_server)?;
                sized(
                    load.bytes.or(load.bytes_total).map(|size| size.bytes),
                    "bytes` or `bytes_total",
                )
            }
            LoadKind::AllToAll | LoadKind::Permutation => sized(load.bytes.map(|size| size.bytes), "bytes"),
            LoadKind::Long => {
                exists("from", &load.from)?;
                exists("to", &load.to)?;
                positive("flows", &load.flows)?;
                for (name, host) in [("from", &load.from), ("to", &load.to)] {
                    if host.is_none() {
                        return self.problem(span, format!("this kind of load needs `{name}`"));
                    }
                }
                different(&load.from, &load.to)
            }
            LoadKind::Flows => {
                for flow in &load.list {
                    let ends = (Some(flow.from.clone()), Some(flow.to.clone()));
                    exists("from", &ends.0)?;
                    exists("to", &ends.1)?;
                    different(&ends.0, &ends.1)?;
                    if flow.bytes.bytes == 0 {
                        return self.problem(flow.from.span(), "a flow of 0 bytes: nothing would be sent");
                    }
                }
                match load.list.is_empty() {
                    true => self.problem(span, "this kind of load needs `list`, with at least one flow"),
                    false => Ok(()),
                }
            }
        }
    }

    fn vary(&self, file: &ScenarioFile) -> Result<(), Problem> {
        let Some(vary) = &file.vary else { return Ok(()) };
        let span = vary.values.span();
        let has = |kind| file.load.iter().any(|load| load.get_ref().kind == kind);
        let exists = match vary.what {
            Varied::Servers => has(LoadKind::Incast),
            Varied::Flows => has(LoadKind::Long),
            Varied::HostDelayUs => !file.topology.host_delays.is_empty(),
            Varied::LossRatio | Varied::MarkAtPackets | Varied::LimitPackets | Varied::DelayUs => true,
        };
        if let (Some(_), Varied::Servers | Varied::Flows) = (&file.flows, vary.what) {
            let message = "what is varied belongs to the loads, and a list of flows stands in their place";
            return self.problem(span, message);
        }
        if !exists {
            return self.problem(
                span,
                "what is varied belongs to a kind of load, or to `host_delays`, that this scenario does not have",
            );
        }
        let values = vary.values.get_ref();
        if values.is_empty() {
            return self.problem(span, "there are no values to vary through");
        }
        for value in values {
            let is_good = match vary.what {
                Varied::LossRatio => (0.0..1.0).contains(value),
                Varied::DelayUs | Varied::HostDelayUs => (0.0..1e9).contains(value),
                Varied::Servers | Varied::Flows => value.fract() == 0.0 && (1.0..1e8).contains(value),
                Varied::MarkAtPackets | Varied::LimitPackets => value.fract() == 0.0 && (0.0..1e8).contains(value),
            };
            if !is_good {
                return self.problem(span, format!("{value} is no value for what is varied"));
            }
        }
        Ok(())
    }

    fn arms(&self, file: &ScenarioFile) -> Result<(), Problem> {
        for (index, arm) in file.arm.iter().enumerate() {
            if file.arm[..index].iter().any(|before| before.name == arm.name) {
                let at = self.source.rfind(&arm.name).unwrap_or(0);
                return self.problem(at..at, format!("two arms are called {:?}", arm.name));
            }
        }
        Ok(())
    }

    fn papers(&self, file: &ScenarioFile) -> Result<(), Problem> {
        for figure in &file.paper {
            if let Some(arm) = &figure.arm {
                let known = file.arm.iter().map(|arm| arm.name.as_str());
                self.known("arm", arm, known)?;
            }
            self.known("metric", &figure.metric, super::METRICS.iter().copied())?;
            if figure.value == 0.0 || !(0.0..10.0).contains(&figure.tolerance) {
                return self.problem(
                    figure.metric.span(),
                    "a figure needs a value other than 0, and a tolerance from 0 to 10",
                );
            }
        }
        Ok(())
    }

    fn known<'a>(
        &self,
        what: &str,
        name: &Spanned<String>,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), Problem> {
        if known.clone().any(|known| known == name.get_ref()) {
            return Ok(());
        }
        let advice = advice(name.get_ref(), known);
        self.problem(
            name.span(),
            format!("no {what} is called {:?}; {advice}", name.get_ref()),
        )
    }
}

/// Has this load's flow a controller of quinn's, in any arm?
fn is_quinn(file: &ScenarioFile, load: &LoadFile) -> bool {
    let of = |tcp: &TcpFile| tcp.controller.map(|controller| controller.1.is_some());
    load.tcp.as_ref().and_then(of).unwrap_or_else(|| {
        let arms = file.arm.iter().map(|arm| of(&arm.tcp).or(of(&file.tcp)));
        let any = arms.chain(file.arm.is_empty().then(|| of(&file.tcp)));
        any.flatten().any(|is_quinn| is_quinn)
    })
}

/// A node's number has 24 bits in the simulator.
const HOSTS_MAX: u32 = 1 << 24;
