//! NDP's sending half: a blind window, then one packet for each pull, retransmissions first.

use std::collections::VecDeque;

use dataplane_waist::Instant;

use super::{NdpKind, NdpOptions, NdpPacket, bits::Bits};
use crate::tcp::timer::saturating_ns;

const NEVER: u64 = u64::MAX;

/// What an NDP sender counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NdpSenderStats {
    /// Data packets sent, retransmissions among them.
    pub packets_count: u64,
    /// Packets sent again.
    pub retransmissions_count: u64,
    /// Trimmed packets.
    pub nacks_count: u64,
    /// Headers that came back.
    pub returned_count: u64,
    /// Packets that nothing was heard of.
    pub timeouts_count: u64,
    /// Packets of another flow's size, or about packets never sent: ignored.
    pub malformed_count: u32,
}

/// The sending half of an NDP flow.
#[derive(Debug)]
pub struct NdpSender {
    bytes: u64,
    packets_count: u32,
    payload_bytes: u32,
    rto_ns: u64,
    /// Never sent from here on.
    next_index: u32,
    /// Packets that may leave at once: the rest of the first window, and what was pulled.
    credit_count: u32,
    /// Cumulative, as pulls say it.
    pulled_count: u32,
    acked: Bits,
    /// To be sent again, in this order.
    again: VecDeque<u32>,
    /// In the network, with the time they were sent, oldest first; what has been answered is taken off when it comes to the front.
    in_network: VecDeque<(u32, u64)>,
    /// Packets in the network without an answer.
    unanswered_count: u32,
    /// Acks and nacks: each will be followed by a pull.
    answered_count: u32,
    /// Acks less nacks and returned headers: above 0 the network has room (§3.2.4).
    balance: i64,
    stats: NdpSenderStats,
}

impl NdpSender {
    /// A flow of `bytes`, at least one packet.
    pub fn new(options: &NdpOptions, bytes: u64) -> NdpSender {
        let payload_bytes = options.payload_bytes.max(1);
        let packets_count = u32::try_from(bytes.div_ceil(payload_bytes.into()))
            .unwrap_or(u32::MAX)
            .max(1);
        NdpSender {
            bytes,
            packets_count,
            payload_bytes,
            rto_ns: saturating_ns(options.rto),
            next_index: 0,
            credit_count: options.initial_window_packets.clamp(1, packets_count),
            pulled_count: 0,
            acked: Bits::default(),
            again: VecDeque::new(),
            in_network: VecDeque::new(),
            unanswered_count: 0,
            answered_count: 0,
            balance: 0,
            stats: NdpSenderStats::default(),
        }
    }

    /// Takes an ack, a nack or a pull.
    pub fn on_packet(&mut self, _now: Instant, packet: &NdpPacket) {
        match packet.kind {
            NdpKind::Data => self.stats.malformed_count += 1,
            NdpKind::Pull => self.take_pull(packet.pulls_count),
            NdpKind::Ack => {
                if !self.answer(packet.packet_index) {
                    return;
                }
                self.balance += 1;
                if self.acked.insert(packet.packet_index, self.packets_count) && self.done() {
                    self.free();
                }
            }
            NdpKind::Nack => {
                if !self.answer(packet.packet_index) || self.acked.contains(packet.packet_index) {
                    return;
                }
                self.stats.nacks_count += 1;
                self.balance -= 1;
                self.again.push_back(packet.packet_index);
            }
        }
    }

    /// A header came back: its queue was full. It goes again at once if nobody will pull it, which is when nothing else of this flow got
    /// through, or if the network has room after all; otherwise at the next pull (§3.2.4).
    pub fn on_returned(&mut self, _now: Instant, packet: &NdpPacket) {
        if packet.packet_index >= self.next_index || packet.kind != NdpKind::Data {
            self.stats.malformed_count += 1;
            return;
        }
        if self.acked.contains(packet.packet_index) {
            return;
        }
        self.take_out(packet.packet_index);
        self.stats.returned_count += 1;
        let is_pull_expected = self.answered_count > self.pulled_count || self.unanswered_count > 0;
        if !is_pull_expected || self.balance > 0 {
            self.again.push_front(packet.packet_index);
            self.credit_count += 1;
        } else {
            self.again.push_back(packet.packet_index);
        }
        self.balance -= 1;
    }

    /// Notes that a packet was answered; false if it was never sent, or is done with.
    fn answer(&mut self, index: u32) -> bool {
        if index >= self.next_index {
            self.stats.malformed_count += 1;
            return false;
        }
        if self.done() {
            return false;
        }
        self.answered_count += 1;
        self.take_out(index);
        true
    }

    /// It is no longer in the network.
    fn take_out(&mut self, index: u32) {
        // Nearly in order, so nearly always the front.
        if let Some(at) = self.in_network.iter().position(|&(in_network, _)| in_network == index) {
            self.in_network.remove(at);
            self.unanswered_count -= 1;
        }
    }

    fn take_pull(&mut self, pulls_count: u32) {
        let more = pulls_count.saturating_sub(self.pulled_count);
        self.pulled_count = self.pulled_count.max(pulls_count);
        // Kept even if there is nothing to send yet: on another path the nack that it follows may be slower.
        self.credit_count = self.credit_count.saturating_add(more);
    }

    /// The next packet to send now, if one may leave.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<NdpPacket> {
        while self.credit_count > 0 {
            let (index, is_retransmission) = match self.again.pop_front() {
                // It was acknowledged while it waited, by a copy.
                Some(index) if self.acked.contains(index) => continue,
                Some(index) => (index, true),
                None if self.next_index < self.packets_count => {
                    self.next_index += 1;
                    (self.next_index - 1, false)
                }
                None => return None,
            };
            self.credit_count -= 1;
            self.in_network.push_back((index, now.as_ns()));
            self.unanswered_count += 1;
            self.stats.packets_count += 1;
            self.stats.retransmissions_count += u64::from(is_retransmission);
            let from = u64::from(index) * u64::from(self.payload_bytes);
            return Some(NdpPacket {
                kind: NdpKind::Data,
                packet_index: index,
                len_bytes: self.bytes.saturating_sub(from).min(self.payload_bytes.into()) as u32,
                packets_count: self.packets_count,
                pulls_count: 0,
                is_retransmission,
            });
        }
        None
    }

    /// When it wants [`NdpSender::on_wake`]: while a packet is in the network. What waits for a pull is the receiver's to ask for.
    pub fn wake_at(&self) -> Option<Instant> {
        let &(_, sent_ns) = self.in_network.front()?;
        Some(Instant::from_ns(sent_ns.saturating_add(self.rto_ns).min(NEVER - 1)))
    }

    /// Time has passed: packets that nothing was heard of go again at once.
    pub fn on_wake(&mut self, now: Instant) {
        while let Some(&(index, sent_ns)) = self.in_network.front() {
            if sent_ns.saturating_add(self.rto_ns) > now.as_ns() {
                break;
            }
            self.in_network.pop_front();
            self.unanswered_count -= 1;
            self.stats.timeouts_count += 1;
            self.again.push_front(index);
            self.credit_count += 1;
        }
    }

    /// Every packet has been acknowledged.
    pub fn done(&self) -> bool {
        self.acked.count() == self.packets_count
    }

    fn free(&mut self) {
        self.acked.free();
        self.again = VecDeque::new();
        self.in_network = VecDeque::new();
        self.unanswered_count = 0;
        self.credit_count = 0;
    }

    /// How many packets the flow has.
    pub fn packets_count(&self) -> u32 {
        self.packets_count
    }

    /// What it counted.
    pub fn stats(&self) -> &NdpSenderStats {
        &self.stats
    }

    /// Its memory beside itself, in bytes: 0 before it begins and after it is done.
    pub fn heap_bytes(&self) -> usize {
        self.acked.heap_bytes()
            + self.again.capacity() * size_of::<u32>()
            + self.in_network.capacity() * size_of::<(u32, u64)>()
    }
}
