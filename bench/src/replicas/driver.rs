//! A replica's programs in its host's driver: one for a leader and one for a follower, of which one is attached at a time. Here
//! nodes and peers, as the protocol has them, meet addresses, as programs have them.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use anyhow::{Context, bail};
use dataplane_netns::run_at;
use dataplane_quorum::{
    Limits, NODES_MAX,
    driver::{Driver, Grant, Part, Seen, Taken},
};
use dataplane_waist::{Peer, Slot};
use dataplane_wire::{ethernet::Mac, frame::Kind};
use ebpf_host::{
    Attachment, Loaded, Mode, Program, Settings, kinds,
    quorum::{self as program, Count, Kept, Session, Shared},
};

use super::{FanOut, Parts, ReplicaConfig, chaining::Chaining};
use crate::{backends::xdp, place::Endpoint};

/// What the programs take: the normal case, and nothing else.
const KINDS: u32 = kinds(&[Kind::QuorumRequest, Kind::Append, Kind::Ack]);
/// What they take where the replica gives requests their slots.
const KINDS_COUNTED: u32 = kinds(&[Kind::Append, Kind::Ack]);

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
    node: u32,
    options: InDriverOptions,
    group: (Mac, Ipv4Addr),
    attachment: Attachment,
    /// The one that is not attached; nothing after an exchange that failed.
    other: Option<Loaded>,
    leader: Shared,
    follower: Shared,
    /// Which of them is attached.
    leads: bool,
    /// Behind the last entry of the last grant, once that was taken back.
    end: Slot,
    places: [Option<(SocketAddrV4, Mac)>; program::NODES_MAX],
    /// Whom the replica's port knows.
    peers: Vec<(SocketAddrV4, Peer)>,
    /// The leader of the last grant to a follower.
    follows: usize,
    sessions: Vec<Session>,
    kept: Kept,
    chaining: Chaining,
}

impl InDriver {
    /// Loads both programs for a replica and attaches the follower's to its interface, or to its card's. The replica's client is
    /// the peer behind the other replicas, as [`super::port::open`] has it.
    ///
    /// # Errors
    /// Too many replicas, an address that is not IPv4, no address that reaches all of them, what the kernel says.
    pub(super) fn attach(config: &ReplicaConfig, options: InDriverOptions) -> anyhow::Result<InDriver> {
        let ReplicaConfig {
            node,
            endpoints: replicas,
            client,
            card,
            ..
        } = config;
        let (node, client) = (*node, client.as_ref());
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
        let group = (Mac(group.mac), *ipv4_of(group)?.ip());
        let settings = Settings {
            kinds: if options.parts.appends { KINDS } else { KINDS_COUNTED },
            group: Some(group),
            session_count: Limits::SMALL.sessions_max as u32,
            ..xdp::settings(local)
        };
        let load = |program: Program| Loaded::load(program, &settings).with_context(|| program.name().to_owned());
        let mut follower = load(Program::QuorumFollower)?;
        let mut leader = load(Program::QuorumLeader)?;
        let shared = (follower.share()?, leader.share()?);
        let mut places = [None; program::NODES_MAX];
        for (place, endpoint) in places.iter_mut().zip(replicas) {
            *place = Some((ipv4_of(endpoint)?, Mac(endpoint.mac)));
        }
        let others = replicas.iter().enumerate().filter(|&(other, _)| other != node as usize);
        let known = others.map(|(_, endpoint)| endpoint).chain(client);
        let peers = known
            .zip(0..)
            .map(|(endpoint, peer)| Ok((ipv4_of(endpoint)?, Peer(peer))));
        // A program is told whose frames it takes, and that is the host, wherever it is. What it shares is this process's.
        let attachment = match card {
            None => follower.attach(&local.interface, options.mode)?,
            Some(card) => run_at(&card.namespace, || follower.attach(&card.interface, options.mode))
                .context("entering the card's namespace")??,
        };
        Ok(InDriver {
            node,
            options,
            group,
            attachment,
            other: Some(leader),
            follower: shared.0,
            leader: shared.1,
            leads: false,
            end: Slot(0),
            places,
            peers: peers.collect::<anyhow::Result<_>>()?,
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
    pub(super) fn counts(&self) -> anyhow::Result<Vec<(String, u64)>> {
        let mut counts = Vec::new();
        for (part, shared) in [("leader", &self.leader), ("follower", &self.follower)] {
            for what in Count::ALL {
                let count = shared.count(what)?;
                if count > 0 {
                    counts.push((format!("{part}_{}", what.name()), count));
                }
            }
        }
        Ok(counts)
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
                eprintln!("node {}: {error}", self.node);
                false
            }
        }
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
        if !self.takes_grants(leads) || !self.become_part(leads) {
            return false;
        }
        let mut given = program::Grant {
            next: grant.next.0,
            term: grant.term.0,
            node: self.node,
            leader: self.node,
            commit_end: grant.commit_end.0,
            append_end: grant.append_end.0,
            entry_bytes_max: grant.entry_bytes_max as u64,
            waits_for_disk: self.options.waits_for_disk,
            term_begin: 0,
            in_flight_slots: Limits::SMALL.in_flight_slots,
            voters: 0,
            commit_count: 0,
            acked_end: [0; program::NODES_MAX],
            places: self.places,
            group: Some((SocketAddrV4::new(self.group.1, self.port()), self.group.0)),
            hold_slots: program::HELD_SLOTS_MAX,
            session_window: 0,
        };
        match grant.part {
            Part::Leader {
                term_begin,
                voters,
                commit_count,
                acked_end,
                sessions,
                session_replies,
            } => {
                given.session_window = session_replies;
                given.term_begin = term_begin.0;
                given.voters = voters;
                given.commit_count = commit_count;
                for (to, end) in given.acked_end.iter_mut().zip(acked_end) {
                    *to = end.0;
                }
                self.leader.revoke();
                self.sessions.clear();
                self.sessions.resize(Limits::SMALL.sessions_max, Session::default());
                for &(id, sequence) in sessions {
                    self.sessions[(id % Limits::SMALL.sessions_max as u64) as usize] = Session::new(id, sequence);
                }
                self.leader.set_sessions(&self.sessions);
            }
            Part::Follower { leader } => {
                given.leader = leader;
                self.follows = leader as usize;
            }
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
        let mut told = Seen {
            end: match seen.generation {
                0 => end,
                _ => Slot(seen.next),
            },
            commit_end: Slot(seen.commit_end),
            acked_end: [Slot(0); NODES_MAX],
            heard: [0; NODES_MAX],
        };
        match leads {
            true => {
                for node in 0..program::NODES_MAX {
                    told.acked_end[node] = Slot(seen.acked_end[node]);
                    told.heard[node] = seen.acked_count[node];
                }
            }
            false => told.heard[follows] = seen.heard_count,
        }
        told
    }

    fn wants_new_grant(&self) -> bool {
        self.chaining.is_broken()
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
        // Whom the port does not know cannot be answered, and asks again.
        let peer = kept
            .from
            .and_then(|from| self.peers.iter().find(|(known, _)| *known == from));
        Some(Taken {
            bytes: &kept.bytes,
            crc: kept.crc,
            waiting: peer.filter(|_| self.leads).map(|&(_, peer)| (peer, kept.sent_ns)),
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

impl InDriver {
    /// All replicas have the same.
    fn port(&self) -> u16 {
        self.places[self.node as usize].map_or(0, |(address, _)| address.port())
    }
}
