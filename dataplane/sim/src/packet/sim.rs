//! The simulator of packets: built from a topology, run until a time, looked into.

use std::{fmt, ops::Range, sync::atomic::AtomicBool};

use dataplane_queue::SimTime;

use super::{
    core::Group,
    counters::{Counters, LinkCounters},
    edge::{Edge, HostApi},
    observe::{DepthSeries, Sampler, Tap, TapSlot},
    parallel,
    plan::Plan,
    topology::Topology,
};
use crate::EventHash;

/// How a simulation is computed. None of it changes the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computing {
    /// Threads, at most one for each group.
    pub threads_count: usize,
    /// Which nodes are computed together. A single group needs no synchronisation.
    pub grouping: Grouping,
}

/// Which nodes are computed together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// All.
    One,
    /// Pods or racks, as [`Topology::groups`] says.
    ByTopology,
    /// As many groups as threads, each of neighbouring pods or racks: the fewest packets go from one to another.
    #[default]
    PerThread,
}

impl Default for Computing {
    fn default() -> Computing {
        Computing {
            threads_count: 1,
            grouping: Grouping::default(),
        }
    }
}

/// Why a run came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is due any more.
    Idle,
    /// It got to the time that was asked for.
    Time,
    /// Somebody raised the flag.
    Interrupted,
}

/// A network and what its hosts do.
pub struct PacketSim<E: Edge> {
    pub(super) groups: Vec<Group<E>>,
    /// By link: its group, and its port there.
    ports: Vec<(u32, u32)>,
    /// By host: its group.
    homes: Vec<u32>,
    /// A packet takes at least that from one group to another.
    pub(super) lookahead: SimTime,
    threads_count: usize,
    now: SimTime,
    is_started: bool,
}

impl<E: Edge> PacketSim<E> {
    /// A network at time zero. `edge` is asked for each group's edge, with the numbers of its hosts.
    ///
    /// # Panics
    /// If a group of the topology has hosts whose numbers are not in a row, or a link's rate is 0 (see
    /// [`Topology::check`]).
    pub fn new(
        topology: &Topology,
        computing: Computing,
        seed: u64,
        mut edge: impl FnMut(Range<u32>) -> E,
    ) -> PacketSim<E> {
        let plan = Plan::new(topology, computing);
        let mut ports = vec![(0, 0); topology.links.len()];
        let groups = (0..plan.groups_count).map(|group| {
            let core = plan.core(topology, group, seed, E::TIMERS_PER_FLOW);
            for (port, &link) in core.links.iter().enumerate() {
                ports[link as usize] = (group, port as u32);
            }
            let hosts = core.first_host..core.first_host + core.hosts.len() as u32;
            let edge = edge(hosts);
            Group { core, edge }
        });
        PacketSim {
            groups: groups.collect(),
            ports,
            homes: plan.group_of[..topology.hosts_count as usize].to_vec(),
            lookahead: plan.lookahead,
            threads_count: computing.threads_count.max(1),
            now: SimTime::ZERO,
            is_started: false,
        }
    }

    /// Carries out everything that is due before `end`. `stop` is looked at every few thousand events.
    pub fn run_until(&mut self, end: SimTime, stop: &AtomicBool) -> Outcome
    where
        E: Send,
        E::Header: Send,
    {
        if !self.is_started {
            self.is_started = true;
            self.groups.iter_mut().for_each(Group::start);
        }
        let outcome = parallel::run(&mut self.groups, self.lookahead, self.threads_count, end, stop);
        let last = self.groups.iter().map(|group| group.core.now).max();
        self.now = match outcome {
            Outcome::Time => end,
            Outcome::Idle | Outcome::Interrupted => last.unwrap_or(end).max(self.now),
        };
        if outcome != Outcome::Interrupted {
            for group in &mut self.groups {
                group.core.sample(self.now);
            }
        }
        outcome
    }

    /// The time up to which everything has happened. After an interruption, that of the last event.
    pub fn now(&self) -> SimTime {
        self.now
    }

    /// The time of the last event so far. [`PacketSim::now`] may be later: that of the end that was asked for.
    pub fn last_event_at(&self) -> SimTime {
        let last = self.groups.iter().map(|group| group.core.now).max();
        last.unwrap_or(SimTime::ZERO)
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.groups.iter().map(|group| group.core.counters).sum()
    }

    /// What happened at a link so far.
    ///
    /// # Panics
    /// If there is no such link.
    pub fn link_counters(&self, link: u32) -> LinkCounters {
        let (group, port) = self.ports[link as usize];
        self.groups[group as usize].core.ports[port as usize].counters
    }

    /// What waits before a link now: packets and bytes.
    ///
    /// # Panics
    /// If there is no such link.
    pub fn queue_depth(&self, link: u32) -> (u32, u64) {
        let (group, port) = self.ports[link as usize];
        let port = &self.groups[group as usize].core.ports[port as usize];
        (port.waiting_count(), port.waiting_bytes())
    }

    /// A hash over everything that happened at every node, in the nodes' order. It does not depend on groups or threads.
    pub fn hash(&self) -> EventHash {
        let mut hash = EventHash::EMPTY;
        let hosts = self.groups.iter().flat_map(|group| &group.core.hosts);
        hosts.for_each(|host| hash.add(host.hash.value()));
        let switches = self.groups.iter().flat_map(|group| &group.core.switches);
        let mut switches: Vec<(u32, u64)> = switches.map(|switch| (switch.salt, switch.hash.value())).collect();
        switches.sort_unstable();
        switches.into_iter().for_each(|(_, value)| hash.add(value));
        hash
    }

    /// Looks for every packet that was sent, and was neither delivered nor dropped, and counts them.
    ///
    /// # Panics
    /// If a packet is missing or there is one too many.
    pub fn assert_conserved(&self) -> u64 {
        let found_count: u64 = self.groups.iter().map(|group| group.core.found_count()).sum();
        let counters = self.counters();
        assert_eq!(
            found_count,
            counters.in_flight_count(),
            "packets found, by {counters:?}"
        );
        found_count
    }

    /// The edges, in the order of their hosts.
    pub fn edges(&self) -> impl Iterator<Item = &E> {
        self.groups.iter().map(|group| &group.edge)
    }

    /// The edge that runs a host.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn edge_of(&self, host: u32) -> &E {
        &self.groups[self.homes[host as usize] as usize].edge
    }

    /// Calls `act` with the edge that runs a host, as if something had happened there now.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn with_host<R>(&mut self, host: u32, act: impl FnOnce(&mut E, &mut HostApi<'_, E::Header>) -> R) -> R {
        let now = self.now;
        let Group { core, edge } = &mut self.groups[self.homes[host as usize] as usize];
        core.now = core.now.max(now);
        act(edge, &mut HostApi { core, host })
    }

    /// Puts a tap on each group; it hears of packets at the group's own links.
    pub fn set_taps(&mut self, mut tap: impl FnMut() -> Box<dyn Tap<E::Header>>) {
        for group in &mut self.groups {
            group.core.tap = TapSlot(Some(tap()));
        }
    }

    /// Samples the queue before a link from now on, `samples_max` times.
    ///
    /// # Panics
    /// If there is no such link, or the time between samples is zero.
    pub fn sample(&mut self, link: u32, every: SimTime, samples_max: usize) {
        assert!(
            every > SimTime::ZERO,
            "samples of link {link} without time between them"
        );
        let (group, port) = self.ports[link as usize];
        let core = &mut self.groups[group as usize].core;
        let samples = Vec::new();
        let series = DepthSeries { link, every, samples };
        let next_at = self.now;
        core.samplers.push(Sampler {
            port,
            next_at,
            samples_max,
            series,
        });
        core.sample_at = core.sample_at.min(next_at);
    }

    /// The series that were asked for.
    pub fn series(&self) -> impl Iterator<Item = &DepthSeries> {
        let samplers = self.groups.iter().flat_map(|group| &group.core.samplers);
        samplers.map(|sampler| &sampler.series)
    }
}

impl<E: Edge> fmt::Debug for PacketSim<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PacketSim");
        let shown = shown.field("now", &self.now).field("groups_count", &self.groups.len());
        shown.field("counters", &self.counters()).finish_non_exhaustive()
    }
}
