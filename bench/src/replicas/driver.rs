//! A replica's programs in its host's driver: one for a leader and one for a follower, of which one is attached at a time.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use dataplane_netns::run_at;
use dataplane_quorum::{
    Limits,
    driver::{Driver, Grant, Part, Seen, Taken},
};
use dataplane_waist::Slot;
use dataplane_wire::{ethernet::Mac, frame::Kind};
use ebpf_host::{
    Attachment, Loaded, Mode, Program, Settings, kinds,
    quorum::{self as program, Count, Kept, Session, Shared},
};

use super::{
    FanOut, Parts, ReplicaConfig,
    chaining::Chaining,
    grants::{self, Surroundings},
};
use crate::{backends::xdp, place::Endpoint};

/// What the programs take: the normal case, and nothing else.
const KINDS: u32 = kinds(&[Kind::QuorumRequest, Kind::Append, Kind::Ack]);
/// What they take where the replica gives requests their slots.
const KINDS_COUNTED: u32 = kinds(&[Kind::Append, Kind::Ack]);

/// How long programs have a grant before others take their place, where [`super::Manner::reloads_count`] says so: long enough for some
/// hundred commits.
const RELOAD_AFTER: Duration = Duration::from_millis(15);
/// What it is called among the counters.
const RELOADS: &str = "reloads";

/// How programs are to do it.
#[derive(Clone, Copy, Debug)]
pub(super) struct InDriverOptions {
    /// Where a frame meets them.
    pub(super) mode: Mode,
    /// What of the normal case.
    pub(super) parts: Parts,
    /// Nothing is acknowledged before the replica's disk has it.
    pub(super) waits_for_disk: bool,
    /// How entries get to the followers.
    pub(super) fan_out: FanOut,
}

/// See the module.
#[derive(Debug)]
pub(super) struct InDriver {
    options: InDriverOptions,
    surroundings: Surroundings,
    attachment: Attachment,
    /// The one that is not attached; nothing after an exchange that failed.
    other: Option<Loaded>,
    leader: Shared,
    follower: Shared,
    /// What is to take the place of both, one after another.
    spares: Vec<Pair>,
    /// What those counted whose place was taken.
    before: BTreeMap<String, u64>,
    granted_at: Instant,
    /// Which of them is attached.
    leads: bool,
    /// Behind the last entry of the last grant, once that was taken back.
    end: Slot,
    /// The leader of the last grant to a follower.
    follows: u32,
    sessions: Vec<Session>,
    kept: Kept,
    chaining: Chaining,
}

impl InDriver {
    /// Loads both programs for a replica and attaches the follower's to its interface, or to its card's.
    ///
    /// # Errors
    /// Too many replicas, an address that is not IPv4, no address that reaches all of them, what the kernel says.
    pub(super) fn attach(config: &ReplicaConfig, options: InDriverOptions) -> anyhow::Result<InDriver> {
        let ReplicaConfig {
            node,
            endpoints: replicas,
            card,
            ..
        } = config;
        let node = *node;
        if replicas.len() > program::NODES_MAX {
            bail!(
                "{} replicas: programs in the driver count up to {}",
                replicas.len(),
                program::NODES_MAX
            );
        }
        if options.fan_out == FanOut::Chain && (options.parts != Parts::ALL || options.waits_for_disk) {
            bail!(
                "in a chain, programs do all of the normal case, and wait for no disk: the frame goes on at once or not at all"
            );
        }
        let local = &replicas[node as usize];
        let group = config
            .group
            .as_ref()
            .context("programs need an address that reaches every replica")?;
        let group = (ipv4_of(group)?, Mac(group.mac));
        let settings = Settings {
            kinds: if options.parts.appends { KINDS } else { KINDS_COUNTED },
            group: Some((group.1, *group.0.ip())),
            session_count: Limits::SMALL.sessions_max as u32,
            ..xdp::settings(local)
        };
        let first = Pair::load(&settings)?;
        let spares = (0..config.manner.reloads_count).map(|_| Pair::load(&settings));
        let spares = spares.collect::<anyhow::Result<_>>()?;
        let mut places = [None; program::NODES_MAX];
        for (place, endpoint) in places.iter_mut().zip(replicas) {
            *place = Some((ipv4_of(endpoint)?, Mac(endpoint.mac)));
        }
        let surroundings = Surroundings {
            node,
            places,
            group: (SocketAddrV4::new(*group.0.ip(), ipv4_of(local)?.port()), group.1),
            waits_for_disk: options.waits_for_disk,
            in_flight_slots: Limits::SMALL.in_flight_slots,
            sessions_max: Limits::SMALL.sessions_max,
        };
        // A program is told whose frames it takes, and that is the host, wherever it is. What it shares is this process's.
        let attachment = match card {
            None => first.follower.attach(&local.interface, options.mode)?,
            Some(card) => run_at(&card.namespace, || first.follower.attach(&card.interface, options.mode))
                .context("entering the card's namespace")??,
        };
        Ok(InDriver {
            options,
            surroundings,
            attachment,
            other: Some(first.leader),
            follower: first.follower_shares,
            leader: first.leader_shares,
            spares,
            before: BTreeMap::new(),
            granted_at: Instant::now(),
            leads: false,
            end: Slot(0),
            follows: 0,
            sessions: Vec::new(),
            kept: Kept::default(),
            chaining: Chaining::default(),
        })
    }

    /// How the programs are attached.
    pub(super) fn mode(&self) -> Mode {
        self.attachment.mode()
    }

    /// What both programs counted, by name; what never happened is left out.
    pub(super) fn counts(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let mut counts = self.before.clone();
        for (part, shared) in [("leader", &self.leader), ("follower", &self.follower)] {
            for what in Count::ALL {
                let count = shared.count(what)?;
                if count > 0 {
                    *counts.entry(format!("{part}_{}", what.name())).or_default() += count;
                }
            }
        }
        Ok(counts)
    }

    fn is_to_reload(&self) -> bool {
        !self.spares.is_empty() && self.granted_at.elapsed() >= RELOAD_AFTER
    }

    /// Puts new programs in the place of both, with rings and counters of their own. While there is no grant: what the old ones
    /// appended is in the replica's log.
    fn reload(&mut self) -> anyhow::Result<()> {
        let Some(new) = self.spares.pop() else { return Ok(()) };
        self.before = self.counts()?;
        *self.before.entry(RELOADS.to_owned()).or_default() += 1;
        let (attached, other) = match self.leads {
            true => (new.leader, new.follower),
            false => (new.follower, new.leader),
        };
        self.attachment.exchange(attached)?;
        (self.other, self.follower, self.leader) = (Some(other), new.follower_shares, new.leader_shares);
        Ok(())
    }

    fn shared(&mut self) -> &mut Shared {
        match self.leads {
            true => &mut self.leader,
            false => &mut self.follower,
        }
    }

    /// Attaches the program of that part; says whether it is.
    fn become_part(&mut self, leads: bool) -> bool {
        if self.leads == leads {
            return true;
        }
        let Some(wanted) = self.other.take() else { return false };
        match self.attachment.exchange(wanted) {
            Ok(before) => {
                self.other = Some(before);
                self.leads = leads;
                true
            }
            // The replica goes on without.
            Err(error) => {
                eprintln!("node {}: {error}", self.surroundings.node);
                false
            }
        }
    }
}

/// Both programs of a replica, loaded, and what they share with it.
#[derive(Debug)]
struct Pair {
    follower: Loaded,
    follower_shares: Shared,
    leader: Loaded,
    leader_shares: Shared,
}

impl Pair {
    fn load(settings: &Settings) -> anyhow::Result<Pair> {
        let load = |program: Program| Loaded::load(program, settings).with_context(|| program.name().to_owned());
        let mut follower = load(Program::QuorumFollower)?;
        let mut leader = load(Program::QuorumLeader)?;
        Ok(Pair {
            follower_shares: follower.share()?,
            leader_shares: leader.share()?,
            follower,
            leader,
        })
    }
}

fn ipv4_of(endpoint: &Endpoint) -> anyhow::Result<SocketAddrV4> {
    match endpoint.addr.ip() {
        IpAddr::V4(ip) => Ok(SocketAddrV4::new(ip, endpoint.addr.port())),
        IpAddr::V6(ip) => bail!("{ip}: programs of the quorum speak IPv4 alone"),
    }
}

impl Driver for InDriver {
    fn grant(&mut self, grant: &Grant<'_>) -> bool {
        let leads = matches!(grant.part, Part::Leader { .. });
        if !self.takes_grants(leads) {
            return false;
        }
        if self.is_to_reload()
            && let Err(error) = self.reload()
        {
            eprintln!("node {}: {error:#}", self.surroundings.node);
        }
        if !self.become_part(leads) {
            return false;
        }
        self.granted_at = Instant::now();
        let mut given = self.surroundings.told(grant, &mut self.sessions);
        match grant.part {
            Part::Leader { .. } => {
                self.leader.revoke();
                self.leader.set_sessions(&self.sessions);
            }
            Part::Follower { leader } => self.follows = leader,
        }
        if self.options.fan_out == FanOut::Chain {
            let chain = self.chaining.at_grant(leads, &mut given);
            let shared = self.shared();
            shared.revoke();
            shared.set_chain(chain);
        }
        self.end = grant.next;
        self.shared().grant(&given);
        true
    }

    fn takes_grants(&self, leads: bool) -> bool {
        let parts = self.options.parts;
        if leads { parts.counts } else { parts.acknowledges }
    }

    fn revoke(&mut self) {
        if let Some(end) = self.shared().revoke() {
            self.end = Slot(end);
        }
    }

    fn seen(&mut self) -> Seen {
        let (leads, follows, end) = (self.leads, self.follows, self.end);
        let seen = self.shared().seen();
        self.chaining.look(leads, &seen);
        let end = match seen.generation {
            0 => end,
            _ => Slot(seen.next),
        };
        grants::done(&seen, end, (!leads).then_some(follows))
    }

    fn wants_new_grant(&self) -> bool {
        self.chaining.is_broken() || self.is_to_reload()
    }

    fn entry(&mut self, slot: Slot) -> Option<Taken<'_>> {
        let shared = match self.leads {
            true => &self.leader,
            false => &self.follower,
        };
        if !shared.entry(slot.0, &mut self.kept) {
            return None;
        }
        let kept = &self.kept;
        Some(Taken {
            bytes: &kept.bytes,
            crc: kept.crc,
            sent_ns: kept.sent_ns,
            answered: self.leads && kept.answered,
        })
    }

    fn limit(&mut self, end: Slot) {
        self.shared().limit(end.0);
    }

    fn drained(&mut self, end: Slot) {
        self.shared().drained(end.0);
    }

    fn appends(&self) -> bool {
        self.options.parts.appends
    }

    fn appended(&mut self, end: Slot) {
        self.end = end;
        self.leader.appended(end.0);
    }

    fn takes_single_entries(&self) -> bool {
        let Parts {
            broadcasts,
            acknowledges,
            appends,
            ..
        } = self.options.parts;
        (acknowledges || broadcasts) && !appends
    }
}
