//! NDP's receiving half: answers every packet at once, and owes a pull for each until it has all of them.

use dataplane_waist::Instant;

use super::{NdpKind, NdpOptions, NdpPacket, bits::Bits};
use crate::tcp::timer::saturating_ns;

const NEVER: u64 = u64::MAX;

/// What an NDP receiver counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NdpReceiverStats {
    /// Packets that came whole.
    pub packets_count: u64,
    /// Packets that came as a header.
    pub trimmed_count: u64,
    /// Whole packets that were there already.
    pub duplicates_count: u64,
    /// Pulls sent, repeated ones among them.
    pub pulls_count: u64,
    /// Pulls said again because nothing came.
    pub repeated_pulls_count: u64,
    /// Not data, or of another flow's size: ignored.
    pub malformed_count: u32,
}

/// The receiving half of an NDP flow.
#[derive(Debug)]
pub struct NdpReceiver {
    received: Bits,
    received_bytes: u64,
    /// 0 until the first packet says it.
    packets_count: u32,
    /// Cumulative, as pulls say it.
    pulls_count: u32,
    /// Pulls that the pacer has yet to send.
    owed_count: u32,
    is_repeat_due: bool,
    pull_timeout_ns: u64,
    /// When what was pulled is overdue.
    overdue_ns: u64,
    stats: NdpReceiverStats,
}

impl NdpReceiver {
    /// A receiver that nothing has come to.
    pub fn new(options: &NdpOptions) -> NdpReceiver {
        NdpReceiver {
            received: Bits::default(),
            received_bytes: 0,
            packets_count: 0,
            pulls_count: 0,
            owed_count: 0,
            is_repeat_due: false,
            pull_timeout_ns: saturating_ns(options.pull_timeout),
            overdue_ns: NEVER,
            stats: NdpReceiverStats::default(),
        }
    }

    /// Takes a data packet, or its header if it was `trimmed`; answers with what goes back at once. If
    /// [`NdpReceiver::owes_pulls`] then, the flow belongs into the host's [`super::PullPacer`].
    pub fn on_data(&mut self, now: Instant, packet: &NdpPacket, trimmed: bool) -> Option<NdpPacket> {
        let is_first = self.packets_count == 0;
        let is_same_flow = is_first || packet.packets_count == self.packets_count;
        if packet.kind != NdpKind::Data || !is_same_flow || packet.packet_index >= packet.packets_count {
            self.stats.malformed_count += 1;
            return None;
        }
        self.packets_count = packet.packets_count;
        let is_done = self.done();
        let kind = if trimmed && !is_done {
            NdpKind::Nack
        } else {
            NdpKind::Ack
        };
        if kind == NdpKind::Nack {
            self.stats.trimmed_count += 1;
        } else if is_done || !self.received.insert(packet.packet_index, self.packets_count) {
            self.stats.duplicates_count += 1;
        } else {
            self.stats.packets_count += 1;
            self.received_bytes += u64::from(packet.len_bytes);
        }
        if self.done() {
            // §3.2: the pulls that are still queued would be for nothing.
            self.received.free();
            self.owed_count = 0;
            self.is_repeat_due = false;
            self.overdue_ns = NEVER;
        } else {
            self.owed_count += 1;
            self.wait_from(now);
        }
        Some(NdpPacket {
            kind,
            packet_index: packet.packet_index,
            ..NdpPacket::default()
        })
    }

    /// The pacer's turn has come: the pull to send, if one is still owed.
    pub fn pull(&mut self, now: Instant) -> Option<NdpPacket> {
        if self.owed_count > 0 {
            self.owed_count -= 1;
            self.pulls_count += 1;
        } else if self.is_repeat_due {
            self.stats.repeated_pulls_count += 1;
            // A packet more than before: whatever was lost, the sender has a credit again.
            self.pulls_count += 1;
        } else {
            return None;
        }
        self.is_repeat_due = false;
        self.stats.pulls_count += 1;
        self.wait_from(now);
        Some(NdpPacket {
            kind: NdpKind::Pull,
            pulls_count: self.pulls_count,
            ..NdpPacket::default()
        })
    }

    fn wait_from(&mut self, now: Instant) {
        self.overdue_ns = now.as_ns().saturating_add(self.pull_timeout_ns).min(NEVER - 1);
    }

    /// It has pulls for the pacer.
    pub fn owes_pulls(&self) -> bool {
        self.owed_count > 0 || self.is_repeat_due
    }

    /// When it wants [`NdpReceiver::on_wake`].
    pub fn wake_at(&self) -> Option<Instant> {
        // While pulls wait for the pacer nothing can be overdue.
        (self.overdue_ns != NEVER && !self.owes_pulls()).then(|| Instant::from_ns(self.overdue_ns))
    }

    /// Time has passed: if what was pulled is overdue, a pull is owed once more.
    pub fn on_wake(&mut self, now: Instant) {
        if now.as_ns() >= self.overdue_ns && !self.owes_pulls() {
            self.is_repeat_due = true;
        }
    }

    /// Every packet has arrived.
    pub fn done(&self) -> bool {
        self.packets_count > 0 && self.received.count() == self.packets_count
    }

    /// Payload that has arrived, each packet once, in bytes.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// What it counted.
    pub fn stats(&self) -> &NdpReceiverStats {
        &self.stats
    }

    /// Its memory beside itself, in bytes: 0 before the first packet and after the last.
    pub fn heap_bytes(&self) -> usize {
        self.received.heap_bytes()
    }
}
