//! Ethernet, IPv4 and TCP written out for a simulated segment: what a real stack would have sent, but for the payload. Datagrams
//! of quinn's have theirs.
//!
//! A flow has no SYN, so its sequence numbers begin with 1, as behind one, and no window scale was agreed on: the window field
//! counts [`WINDOW_UNIT_BYTES`], which a reader must be told (Wireshark: "Scaling factor to use when not available").

use std::{net::Ipv4Addr, sync::Arc};

use dataplane_queue::Ecn;
use dataplane_sim::packet::Packet;
use dataplane_transports::Segment;
use dataplane_wire::{
    ethernet,
    internet::{Addresses, PROTOCOL_UDP},
    ipv4, udp,
};

use super::super::{Flow, FlowKind, Header, Payloads, Query, Setup};

/// TCP's number in IPv4's protocol field (RFC 9293).
const PROTOCOL_TCP: u8 = 6;
const TCP_HEADER_BYTES: usize = 20;
/// Flags (RFC 9293 §3.1, RFC 3168 §6.1).
const ACK: u8 = 1 << 4;
const PSH: u8 = 1 << 3;
const ECE: u8 = 1 << 6;
const CWR: u8 = 1 << 7;
/// Options (RFC 9293 §3.2, RFC 2018 §3, RFC 7323 §3.2).
const NO_OPERATION: u8 = 1;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
/// What the window field counts: a scale of 8, so that up to 16 MB can be said.
const WINDOW_SCALE: u32 = 8;
/// The port of a flow's receiver, unless there are more flows than ports.
const RECEIVER_PORT: u16 = 5_001;
/// By which Wireshark knows QUIC.
const QUIC_PORT: u16 = 443;
/// Senders' ports begin here.
const SENDER_PORT_FIRST: u32 = 1_024;
/// The lab's stations: locally administered addresses.
const MAC_PREFIX: [u8; 2] = [0x02, 0x00];

/// Composes frames.
#[derive(Debug)]
pub(super) struct Frames {
    flows: Arc<[Flow]>,
    queries: Arc<[Query]>,
    /// By flow: bytes of questions so far, which is what its receiver has sent.
    asked_bytes: Vec<u32>,
    snap_bytes: usize,
    buffer: Vec<u8>,
    /// The bytes of datagrams under way.
    pub payloads: Payloads,
}

impl Frames {
    pub fn new(setup: &Setup, snap_bytes: usize) -> Frames {
        Frames {
            flows: setup.flows.clone(),
            queries: setup.queries.clone(),
            asked_bytes: vec![0; setup.flows.len()],
            snap_bytes,
            buffer: Vec::new(),
            payloads: Payloads::default(),
        }
    }

    /// A packet was seen somewhere.
    pub fn note(&mut self, packet: &Packet<Header>) {
        if let Header::Ask { round } = packet.header {
            let asked = (self.rounds_before(packet.flow, round) + 1).wrapping_mul(question_bytes(packet.bytes));
            let known = &mut self.asked_bytes[packet.flow as usize];
            *known = asked.max(*known);
        }
    }

    /// Questions on this connection before that of a round.
    fn rounds_before(&self, flow: u32, round: u32) -> u32 {
        match self.flows[flow as usize].kind {
            FlowKind::Answer { query } if !self.queries[query as usize].is_fresh => round,
            _ => 0,
        }
    }

    /// The frame, up to the snap length.
    pub fn frame(&mut self, packet: &Packet<Header>) -> &[u8] {
        self.buffer.clear();
        match packet.header {
            Header::Segment(segment) => self.tcp(packet, &segment),
            Header::Datagram { place } => self.udp(packet, place),
            Header::Ask { round } => {
                let len_bytes = question_bytes(packet.bytes);
                let before = self.rounds_before(packet.flow, round).wrapping_mul(len_bytes);
                let question = Segment {
                    seq: before.into(),
                    len_bytes,
                    window_bytes: u32::MAX,
                    ..Segment::default()
                };
                self.tcp(packet, &question);
            }
        }
        // What Ethernet fills up short frames with.
        self.buffer.resize((packet.bytes as usize).max(self.buffer.len()), 0);
        self.buffer.truncate(self.snap_bytes);
        &self.buffer
    }

    /// Source and destination; the receiver's is `receiver_port`, unless there are more flows than ports.
    fn ports(&self, packet: &Packet<Header>, receiver_port: u16) -> (u16, u16) {
        let sender_port = (SENDER_PORT_FIRST + packet.flow % (0x1_0000 - SENDER_PORT_FIRST)) as u16;
        let receiver_port = receiver_port.wrapping_add((packet.flow / (0x1_0000 - SENDER_PORT_FIRST)) as u16);
        match packet.from == self.flows[packet.flow as usize].from {
            true => (sender_port, receiver_port),
            false => (receiver_port, sender_port),
        }
    }

    /// A datagram with its real bytes.
    fn udp(&mut self, packet: &Packet<Header>, place: u32) {
        let (src_port, dst_port) = self.ports(packet, QUIC_PORT);
        let (src, dst) = (address(packet.from), address(packet.to));
        ethernet_header(&mut self.buffer, packet);
        let ip_begin = self.buffer.len();
        let udp_begin = ip_begin + ipv4::HEADER_BYTES;
        self.buffer.resize(udp_begin + udp::HEADER_BYTES, 0);
        self.payloads.copy_into(place, &mut self.buffer);
        let header = udp::Header { src_port, dst_port };
        let addresses = Addresses::V4 { src, dst };
        udp::emit(&header, &addresses, udp::Checksum::Full, &mut self.buffer[udp_begin..]);
        ip_header(&mut self.buffer[ip_begin..], packet, PROTOCOL_UDP);
    }

    fn tcp(&mut self, packet: &Packet<Header>, segment: &Segment) {
        let is_forward = packet.from == self.flows[packet.flow as usize].from;
        let (src_port, dst_port) = self.ports(packet, RECEIVER_PORT);
        // The other direction carries questions alone, and both count from 1.
        let asked = self.asked_bytes[packet.flow as usize];
        let is_question = matches!(packet.header, Header::Ask { .. });
        let (seq, ack) = match (is_forward, is_question) {
            (true, _) => (segment.seq as u32, asked),
            (false, true) => (segment.seq as u32, 0),
            (false, false) => (asked, segment.ack as u32),
        };
        let (src, dst) = (address(packet.from), address(packet.to));
        ethernet_header(&mut self.buffer, packet);
        let ip_begin = self.buffer.len();
        self.buffer.resize(ip_begin + ipv4::HEADER_BYTES, 0);
        let tcp_begin = self.buffer.len();
        let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
        let flags = ACK | flag(segment.len_bytes > 0, PSH) | flag(segment.ece, ECE) | flag(segment.cwr, CWR);
        let window = (segment.window_bytes >> WINDOW_SCALE).clamp(1, u16::MAX.into()) as u16;
        self.buffer.extend_from_slice(&src_port.to_be_bytes());
        self.buffer.extend_from_slice(&dst_port.to_be_bytes());
        self.buffer.extend_from_slice(&seq.wrapping_add(1).to_be_bytes());
        self.buffer.extend_from_slice(&ack.wrapping_add(1).to_be_bytes());
        // The header's length is written when the options are there.
        self.buffer.extend_from_slice(&[0, flags]);
        self.buffer.extend_from_slice(&window.to_be_bytes());
        // Checksum and urgent pointer.
        self.buffer.extend_from_slice(&[0; 4]);
        options(&mut self.buffer, segment);
        let header_bytes = self.buffer.len() - tcp_begin;
        debug_assert!(header_bytes >= TCP_HEADER_BYTES && header_bytes.is_multiple_of(4));
        self.buffer[tcp_begin + 12] = (header_bytes as u8 / 4) << 4;
        let tcp_bytes = header_bytes as u32 + segment.len_bytes;
        // Zeros add nothing to the sum, but their number does.
        let sum = Addresses::V4 { src, dst }.pseudo_header(PROTOCOL_TCP, tcp_bytes);
        let checksum = sum.with(&self.buffer[tcp_begin..]).checksum();
        self.buffer[tcp_begin + 16..tcp_begin + 18].copy_from_slice(&checksum.to_be_bytes());
        // The whole packet, so that its length is right; the frame is cut afterwards.
        self.buffer.resize(tcp_begin + tcp_bytes as usize, 0);
        ip_header(&mut self.buffer[ip_begin..], packet, PROTOCOL_TCP);
    }
}

/// Bytes of a question's payload.
fn question_bytes(frame_bytes: u32) -> u32 {
    let headers = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + TCP_HEADER_BYTES;
    frame_bytes.saturating_sub(headers as u32).max(1)
}

/// 10.0.0.1 and up.
fn address(host: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + host)
}

fn ethernet_header(buffer: &mut Vec<u8>, packet: &Packet<Header>) {
    for host in [packet.to, packet.from] {
        buffer.extend_from_slice(&MAC_PREFIX);
        buffer.extend_from_slice(&(host + 1).to_be_bytes());
    }
    buffer.extend_from_slice(&ethernet::EtherType::IPV4.get().to_be_bytes());
}

/// `ip` is the packet, with its payload.
fn ip_header(ip: &mut [u8], packet: &Packet<Header>, protocol: u8) {
    let header = ipv4::Header {
        src: address(packet.from),
        dst: address(packet.to),
        protocol,
        hops_left: 64,
        // RFC 3168 §5.
        traffic_class: match packet.ecn {
            Ecn::NotCapable => 0b00,
            Ecn::Capable => 0b10,
            Ecn::Experienced => 0b11,
        },
        identification: 0,
        dont_fragment: true,
    };
    ipv4::emit(&header, &[], ip);
}

fn options(buffer: &mut Vec<u8>, segment: &Segment) {
    if segment.timestamps {
        buffer.extend_from_slice(&[NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10]);
        buffer.extend_from_slice(&segment.ts_val.to_be_bytes());
        buffer.extend_from_slice(&segment.ts_ecr.to_be_bytes());
    }
    if segment.has_sack() {
        buffer.extend_from_slice(&[NO_OPERATION, NO_OPERATION, SACK, 2 + 8 * segment.sack_count]);
        for block in segment.sack_blocks() {
            buffer.extend_from_slice(&(block.start as u32).wrapping_add(1).to_be_bytes());
            buffer.extend_from_slice(&(block.end as u32).wrapping_add(1).to_be_bytes());
        }
    }
}
