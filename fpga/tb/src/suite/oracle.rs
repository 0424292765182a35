//! What user space says becomes of a frame, within the bounds that a plane states.

use std::{collections::BTreeMap, net::Ipv4Addr};

use dataplane_quorum::{FastFollower, FastLeader};
use dataplane_waist::{Slot, Term};
use dataplane_wire::{
    Reject,
    checksum::crc32c,
    datagram::{self, Datagram},
    ethernet::Mac,
    frame::{self, Frame, HEADER_BYTES, Kind, field},
    internet::Addresses,
    quorum::{
        ack, append,
        reply::{self, Outcome, Reply},
        request::{self, Command},
    },
    udp::Verify,
};
use fpga_model::node::Setup;

use fpga_model::frames::Place;

/// Bytes of Ethernet, IPv4 and UDP.
const OUTER_BYTES: usize = 42;

/// What answers in user space's place. Each keeps to the same rules, and leaves other frames to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// The blocks of `fpga/rtl`, and their models.
    Pipeline,
    /// The XDP programs, told to keep nothing that comes too early (`hold_slots` 0) and to leave every request that comes once
    /// more to the host (`session_window` 0). Beside what a pipeline does they take a datagram that has bytes behind it, which
    /// are nobody's; send an entry again to a follower that asks for it; acknowledge once more what is in the log already before they
    /// look at its payload; and take what comes from one of the seven ports behind the leader's for the leader's, as in a chain.
    Xdp,
}

/// What becomes of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// This goes to the network.
    pub tx: Option<Vec<u8>>,
    /// The frame goes to the host as it came.
    pub slow: bool,
    /// The frame is an entry of the log now, in this slot.
    pub log: Option<u64>,
    /// Everything before is committed now.
    pub commit: Option<u64>,
}

impl Answer {
    fn slow() -> Answer {
        Answer {
            slow: true,
            ..Answer::default()
        }
    }
}

/// Which rules.
#[derive(Clone, Debug)]
pub enum Role {
    /// A leader's.
    Leader(Box<FastLeader>),
    /// A follower's.
    Follower(FastFollower),
}

/// Who asked for an entry in flight.
#[derive(Clone, Debug)]
struct Asked {
    term: u64,
    client: u64,
    sequence: u64,
    sent_ns: u64,
    from: Place,
    entry: Vec<u8>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Oracle {
    plane: Plane,
    setup: Setup,
    ring_slots: u64,
    role: Role,
    /// The slot of the next entry.
    pub next: u64,
    /// Everything before is committed.
    pub commit_end: u64,
    asked: BTreeMap<u64, Asked>,
    sessions: BTreeMap<u64, u64>,
}

impl Oracle {
    /// With what a host would write.
    pub fn new(plane: Plane, setup: &Setup, leads: bool, ring_log2: u32) -> Oracle {
        let mut acked_end = [Slot(0); dataplane_quorum::NODES_MAX];
        for (to, &from) in acked_end.iter_mut().zip(&setup.acked_ends) {
            *to = Slot(from);
        }
        let role = match leads {
            true => Role::Leader(Box::new(FastLeader {
                voters: setup.voters as u32,
                commit_count: setup.commit_count.into(),
                acked_end,
                term_begin: Slot(setup.term_begin),
                commit_end: Slot(setup.commit_end),
            })),
            false => Role::Follower(FastFollower {
                term: Term(setup.term),
                next: Slot(setup.next),
                synced: true,
            }),
        };
        Oracle {
            plane,
            setup: setup.clone(),
            ring_slots: 1 << ring_log2,
            role,
            next: setup.next,
            commit_end: setup.commit_end,
            asked: BTreeMap::new(),
            sessions: setup.sessions.iter().copied().collect(),
        }
    }

    /// Every slot before is out of the host's ring now.
    pub fn drained(&mut self, end: u64) {
        self.setup.drained_end = end;
    }

    /// What becomes of `bytes`.
    pub fn answer(&mut self, bytes: &[u8], is_bad: bool) -> Answer {
        if is_bad {
            return Answer::default();
        }
        let Some(datagram) = self.found(bytes) else {
            return Answer::slow();
        };
        let ours = &bytes[datagram.payload.clone()];
        let mended;
        let (frame, is_damaged) = match frame::parse(ours) {
            Ok(frame) => (frame, false),
            Err(Reject::PayloadChecksum) if self.plane == Plane::Xdp => {
                mended = with_checksums(ours);
                (frame::parse(&mended).expect("all but the payload was right"), true)
            }
            Err(_) => return Answer::slow(),
        };
        let Addresses::V4 { src, .. } = datagram.header.addresses else {
            return Answer::slow();
        };
        let from = Place {
            ipv4: src,
            port: datagram.header.src_port,
            mac: datagram.header.src_mac,
        };
        let answer = match &self.role {
            Role::Leader(_) if is_damaged => None,
            Role::Leader(_) if frame.header.kind == Kind::QuorumRequest => self.asked(bytes, &frame, from),
            Role::Leader(_) if frame.header.kind == Kind::Ack => self.acked(bytes, &frame, from),
            Role::Follower(_) if frame.header.kind == Kind::Append => self.append(bytes, &frame, is_damaged, from),
            _ => None,
        };
        answer.unwrap_or_else(Answer::slow)
    }

    /// The datagram, if it is to us and of the plainest form. The kernel would have checked IPv4's checksum before user space saw
    /// it; here, as in XDP, nobody has: so it is mended before the parser looks.
    fn found(&self, bytes: &[u8]) -> Option<Datagram> {
        let mut mended = bytes.to_vec();
        let ip = mended.get_mut(14..34)?;
        ip[10..12].fill(0);
        let sum = ones_sum(ip);
        ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
        let datagram = datagram::parse(&mended, Verify::Nothing).ok()?;
        let header = &datagram.header;
        let (mac, ipv4, port) = self.setup.local;
        let (group_mac, group_ipv4) = match self.role {
            Role::Leader(_) => (0, 0),
            Role::Follower(_) => (self.setup.group.0, self.setup.group.1),
        };
        let dst_mac = mac_number(header.dst_mac);
        let Addresses::V4 { dst, .. } = header.addresses else {
            return None;
        };
        let dst = u32::from(dst);
        let has_nothing_behind = datagram.payload.end == bytes.len() || self.plane == Plane::Xdp;
        let is_plain = header.vlan.is_none() && datagram.payload.start == OUTER_BYTES && has_nothing_behind;
        let is_to_us = (dst_mac == mac || (group_mac != 0 && dst_mac == group_mac))
            && dst != 0
            && (dst == ipv4 || dst == group_ipv4)
            && header.dst_port == port;
        (is_plain && is_to_us).then_some(datagram)
    }

    fn asked(&mut self, bytes: &[u8], frame: &Frame<'_>, from: Place) -> Option<Answer> {
        let request = request::parse(frame.payload).ok()?;
        let newest = *self.sessions.get(&request.client)?;
        let is_put = matches!(request.command, Command::Put { .. });
        let has_room = self.next.wrapping_sub(self.setup.drained_end) < self.ring_slots
            && self.next < self.setup.append_end
            && self.next.wrapping_sub(self.commit_end) < self.setup.in_flight.into()
            && frame.payload.len() <= self.setup.entry_bytes_max.into();
        if !is_put || request.client == 0 || request.sequence <= newest || !has_room {
            return None;
        }
        let slot = self.next;
        self.next += 1;
        self.sessions.insert(request.client, request.sequence);
        let asked = Asked {
            term: self.setup.term,
            client: request.client,
            sequence: request.sequence,
            sent_ns: frame.header.sent_ns,
            from,
            entry: frame.payload.to_vec(),
        };
        self.asked.insert(slot % self.ring_slots, asked);
        if let Role::Leader(leader) = &mut self.role {
            leader.acked_end[usize::from(self.setup.own)] = Slot(self.next);
        }
        let (mac, ipv4, port) = self.setup.group;
        Some(Answer {
            tx: Some(self.rewritten(bytes, (mac, ipv4.into(), port), &self.append_of(slot, frame.payload))),
            log: Some(slot),
            ..Answer::default()
        })
    }

    /// The frame that brings an entry to a follower.
    fn append_of(&self, slot: u64, entry: &[u8]) -> Vec<u8> {
        let append = append::Append {
            term: self.setup.term,
            slot,
            commit_end: self.commit_end,
            entry,
            entry_crc: crc32c(entry),
        };
        let mut ours = vec![0; HEADER_BYTES + append.payload_bytes()];
        append.emit(&mut ours);
        ours
    }

    /// The entry that a follower asks for, where programs send it.
    fn again(&self, bytes: &[u8], slot: u64, from: Place) -> Option<Answer> {
        let is_kept = slot >= self.setup.next && self.next - slot <= self.ring_slots;
        let asked = self.asked.get(&(slot % self.ring_slots)).filter(|_| is_kept)?;
        let to = (mac_number(from.mac), from.ipv4, from.port);
        (self.plane == Plane::Xdp).then(|| Answer {
            tx: Some(self.rewritten(bytes, to, &self.append_of(slot, &asked.entry))),
            ..Answer::default()
        })
    }

    fn acked(&mut self, bytes: &[u8], frame: &Frame<'_>, from: Place) -> Option<Answer> {
        let ack = ack::parse(frame).ok()?;
        let others = self.setup.voters & !(1 << self.setup.own);
        let node = (0..self.setup.places.len())
            .find(|&node| others >> node & 1 == 1 && self.setup.places[node] == (from.ipv4.into(), from.port))?;
        if ack.term != self.setup.term || ack.end > self.next {
            return None;
        }
        let Role::Leader(leader) = &mut self.role else {
            return None;
        };
        let Some(Slot(end)) = leader.acked(node as u32, Slot(ack.end)) else {
            return match ack.asks() && ack.end < self.next {
                true => self.again(bytes, ack.end, from),
                false => Some(Answer::default()),
            };
        };
        let before = self.commit_end;
        self.commit_end = end;
        let slot = end - 1;
        let asked = self.asked.get(&(slot % self.ring_slots)).filter(|asked| {
            let is_here = slot >= self.setup.next && asked.term == self.setup.term;
            is_here && end == before + 1
        });
        let Some(asked) = asked.cloned() else {
            return Some(Answer {
                commit: Some(end),
                ..Answer::slow()
            });
        };
        let reply = Reply {
            client: asked.client,
            sequence: asked.sequence,
            outcome: Outcome::Done,
        };
        let mut ours = vec![0; HEADER_BYTES + reply.len_bytes()];
        reply::emit(&reply, &mut ours[HEADER_BYTES..]);
        let header = frame::Header {
            kind: Kind::QuorumReply,
            term: self.setup.term,
            slot: asked.sequence,
            sent_ns: asked.sent_ns,
        };
        frame::emit(&header, &mut ours);
        let to = (mac_number(asked.from.mac), asked.from.ipv4, asked.from.port);
        Some(Answer {
            tx: Some(self.rewritten(bytes, to, &ours)),
            commit: Some(end),
            ..Answer::default()
        })
    }

    fn append(&mut self, bytes: &[u8], frame: &Frame<'_>, is_damaged: bool, from: Place) -> Option<Answer> {
        let append = append::parse(frame).ok()?;
        let Role::Follower(follower) = &mut self.role else {
            return None;
        };
        // `ebpf/programs/src/chain.rs`: the port says how far along a chain a frame has come.
        let hop = from.port.wrapping_sub(self.setup.local.2);
        let from = match self.plane {
            Plane::Xdp if (1..8).contains(&hop) => Place {
                port: self.setup.local.2,
                ..from
            },
            _ => from,
        };
        if (u32::from(from.ipv4), from.port) != self.setup.places[usize::from(self.setup.leader)] {
            return None;
        }
        let takes = follower.takes(Term(append.term), Slot(append.slot));
        if takes {
            let has_room = self.next.wrapping_sub(self.setup.drained_end) < self.ring_slots
                && self.next < self.setup.append_end
                && append.entry.len() <= self.setup.entry_bytes_max.into();
            if !has_room || is_damaged {
                return None;
            }
            self.next += 1;
            follower.next = Slot(self.next);
            self.commit_end = self.commit_end.max(append.commit_end);
        } else if append.term != self.setup.term || append.slot >= self.next {
            return None;
        }
        let ack = ack::Ack {
            term: append.term,
            end: self.next,
            echo: 0,
        };
        let mut ours = vec![0; HEADER_BYTES];
        ack.emit(&mut ours);
        Some(Answer {
            tx: Some(self.rewritten(bytes, (mac_number(from.mac), from.ipv4, from.port), &ours)),
            log: takes.then_some(append.slot),
            ..Answer::default()
        })
    }

    /// The frame that goes out in place of `came`: type of service, identification, flags and hops stay.
    fn rewritten(&self, came: &[u8], to: (u64, Ipv4Addr, u16), ours: &[u8]) -> Vec<u8> {
        let (mac, ipv4, port) = self.setup.local;
        let mut bytes = [&came[..OUTER_BYTES], ours].concat();
        bytes[..6].copy_from_slice(&to.0.to_be_bytes()[2..]);
        bytes[6..12].copy_from_slice(&mac.to_be_bytes()[2..]);
        let udp_bytes = 8 + ours.len() as u16;
        bytes[16..18].copy_from_slice(&(20 + udp_bytes).to_be_bytes());
        bytes[26..30].copy_from_slice(&ipv4.to_be_bytes());
        bytes[30..34].copy_from_slice(&to.1.octets());
        bytes[34..36].copy_from_slice(&port.to_be_bytes());
        bytes[36..38].copy_from_slice(&to.2.to_be_bytes());
        bytes[38..40].copy_from_slice(&udp_bytes.to_be_bytes());
        bytes[40..42].fill(0);
        // As right or as wrong as it was: the fault is the sum of everything, checksum included (RFC 1071).
        let fault = u32::from(ones_sum(&came[14..34]));
        bytes[24..26].fill(0);
        let rest = u32::from(ones_sum(&bytes[14..34]));
        let checksum = (fault + 2 * 65_535 - rest) % 65_535;
        bytes[24..26].copy_from_slice(&(checksum as u16).to_be_bytes());
        bytes
    }
}

/// A frame of ours whose header is right, with the checksums of the payload that it has.
fn with_checksums(ours: &[u8]) -> Vec<u8> {
    let mut bytes = ours.to_vec();
    let payload_crc = crc32c(&bytes[HEADER_BYTES..]);
    bytes[field::PAYLOAD_CRC].copy_from_slice(&payload_crc.to_be_bytes());
    let header_crc = crc32c(&bytes[..field::HEADER_CRC.start]);
    bytes[field::HEADER_CRC].copy_from_slice(&header_crc.to_be_bytes());
    bytes
}

/// The ones' complement sum of 16-bit words.
fn ones_sum(bytes: &[u8]) -> u16 {
    let words = bytes.as_chunks::<2>().0.iter();
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A MAC address as a number, its first byte on the wire the most significant.
pub fn mac_number(mac: Mac) -> u64 {
    mac.0.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
