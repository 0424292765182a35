//! A host's outgoing messages: what may leave, the message with the least left first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dataplane_waist::Instant;

use super::{HomaKind, HomaOptions, HomaPacket};
use crate::tcp::timer::saturating_ns;

/// A sender that hears nothing asks at most 2^6 times more slowly.
const SILENCES_MAX: u8 = 6;

/// What a Homa sender counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HomaSenderStats {
    /// Data packets sent, retransmissions among them.
    pub packets_count: u64,
    /// Packets sent again, asked for or not.
    pub retransmissions_count: u64,
    /// Messages of which nothing was heard for too long.
    pub timeouts_count: u64,
    /// Packets about messages that are not here, or beyond their end: ignored.
    pub malformed_count: u64,
}

#[derive(Debug)]
struct Outgoing {
    bytes: u32,
    sent_bytes: u32,
    granted_bytes: u32,
    /// Of what is granted; and of what leaves unasked.
    priority: u8,
    unscheduled_priority: u8,
    silences_count: u8,
    heard_ns: u64,
    /// Asked for again: from, to, priority.
    again: VecDeque<(u32, u32, u8)>,
}

impl Outgoing {
    fn may_send(&self) -> bool {
        !self.again.is_empty() || self.sent_bytes < self.granted_bytes
    }

    fn left_bytes(&self) -> u32 {
        self.bytes - self.sent_bytes
    }
}

/// A host's sending half.
#[derive(Debug)]
pub struct HomaSender {
    options: HomaOptions,
    resend_after_ns: u64,
    messages: BTreeMap<u32, Outgoing>,
    /// Messages that may send, by what they have left: the first sends.
    ready: BTreeSet<(u32, u32)>,
    /// When to look whether a message was heard of; at most one entry per message.
    looks: BTreeSet<(u64, u32)>,
    stats: HomaSenderStats,
}

impl HomaSender {
    /// A host without messages.
    pub fn new(options: &HomaOptions) -> HomaSender {
        HomaSender {
            options: *options,
            resend_after_ns: saturating_ns(options.resend_after),
            messages: BTreeMap::new(),
            ready: BTreeSet::new(),
            looks: BTreeSet::new(),
            stats: HomaSenderStats::default(),
        }
    }

    /// Begins a message of `bytes`, at least one.
    ///
    /// # Panics
    /// If a message of this number is under way.
    pub fn send(&mut self, now: Instant, message: u32, bytes: u32) {
        let bytes = bytes.max(1);
        let unscheduled_priority = self.options.unscheduled_priority(bytes);
        let outgoing = Outgoing {
            bytes,
            sent_bytes: 0,
            granted_bytes: bytes.min(self.options.rtt_bytes.max(1)),
            priority: unscheduled_priority,
            unscheduled_priority,
            silences_count: 0,
            heard_ns: now.as_ns(),
            again: VecDeque::new(),
        };
        let before = self.messages.insert(message, outgoing);
        assert!(
            before.is_none(),
            "message {message} is under way: its number is used twice"
        );
        self.ready.insert((bytes, message));
        self.looks
            .insert((now.as_ns().saturating_add(self.resend_after_ns), message));
    }

    /// Takes a grant, a resend or a done.
    pub fn on_packet(&mut self, now: Instant, packet: &HomaPacket) {
        let Some(outgoing) = self.messages.get_mut(&packet.message) else {
            // Done twice, most likely.
            self.stats.malformed_count += u64::from(packet.kind != HomaKind::Done);
            return;
        };
        let is_beyond = packet.offset_bytes > outgoing.bytes;
        if packet.kind == HomaKind::Data || is_beyond {
            self.stats.malformed_count += 1;
            return;
        }
        outgoing.heard_ns = now.as_ns();
        outgoing.silences_count = 0;
        match packet.kind {
            HomaKind::Grant => {
                if packet.offset_bytes > outgoing.granted_bytes {
                    outgoing.granted_bytes = packet.offset_bytes;
                    outgoing.priority = packet.grant_priority;
                }
            }
            HomaKind::Resend => {
                let end = packet.offset_bytes.saturating_add(packet.len_bytes).min(outgoing.bytes);
                if end > outgoing.granted_bytes {
                    // The grant was lost.
                    outgoing.granted_bytes = end;
                    outgoing.priority = packet.grant_priority;
                }
                let sent_end = end.min(outgoing.sent_bytes);
                if sent_end > packet.offset_bytes {
                    outgoing
                        .again
                        .push_back((packet.offset_bytes, sent_end, packet.grant_priority));
                }
            }
            HomaKind::Done | HomaKind::Data => {
                let key = (outgoing.left_bytes(), packet.message);
                self.messages.remove(&packet.message);
                self.ready.remove(&key);
                return;
            }
        }
        if outgoing.may_send() {
            self.ready.insert((outgoing.left_bytes(), packet.message));
        }
    }

    /// The next packet to send, of the message with the least left. See the module about when to ask.
    pub fn poll_transmit(&mut self, _now: Instant) -> Option<HomaPacket> {
        let &key = self.ready.first()?;
        let message = key.1;
        let outgoing = self.messages.get_mut(&message).expect("what is ready is there");
        let payload = self.options.payload_bytes.max(1);
        let (from, to, priority, is_retransmission) = match outgoing.again.front_mut() {
            Some((from, to, priority)) => {
                let packet = (*from, (*to).min(from.saturating_add(payload)), *priority, true);
                *from = packet.1;
                if *from >= *to {
                    outgoing.again.pop_front();
                }
                packet
            }
            None => {
                let from = outgoing.sent_bytes;
                let to = outgoing.granted_bytes.min(from.saturating_add(payload));
                let is_unscheduled = from < self.options.rtt_bytes;
                outgoing.sent_bytes = to;
                (
                    from,
                    to,
                    if is_unscheduled {
                        outgoing.unscheduled_priority
                    } else {
                        outgoing.priority
                    },
                    false,
                )
            }
        };
        if outgoing.left_bytes() != key.0 || !outgoing.may_send() {
            self.ready.remove(&key);
            if outgoing.may_send() {
                self.ready.insert((outgoing.left_bytes(), message));
            }
        }
        self.stats.packets_count += 1;
        self.stats.retransmissions_count += u64::from(is_retransmission);
        Some(HomaPacket {
            kind: HomaKind::Data,
            message,
            offset_bytes: from,
            len_bytes: to - from,
            message_bytes: outgoing.bytes,
            priority,
            grant_priority: 0,
            is_retransmission,
        })
    }

    /// When it wants [`HomaSender::on_wake`].
    pub fn wake_at(&self) -> Option<Instant> {
        self.looks.first().map(|&(at_ns, _)| Instant::from_ns(at_ns))
    }

    /// Time has passed: of a message that nothing was heard of the first packet goes again, so that the receiver knows of it.
    pub fn on_wake(&mut self, now: Instant) {
        let now_ns = now.as_ns();
        while let Some(&(at_ns, message)) = self.looks.first() {
            if at_ns > now_ns {
                break;
            }
            self.looks.pop_first();
            let Some(outgoing) = self.messages.get_mut(&message) else {
                continue;
            };
            let patience_ns = |outgoing: &Outgoing| self.resend_after_ns.max(1) << outgoing.silences_count;
            let due_ns = outgoing.heard_ns.saturating_add(patience_ns(outgoing));
            if due_ns <= now_ns {
                outgoing.heard_ns = now_ns;
                outgoing.silences_count = (outgoing.silences_count + 1).min(SILENCES_MAX);
                // Nothing is asked for that has not left yet.
                if !outgoing.may_send() {
                    self.stats.timeouts_count += 1;
                    let end = outgoing.sent_bytes.min(self.options.payload_bytes.max(1));
                    outgoing.again.push_back((0, end, outgoing.unscheduled_priority));
                    self.ready.insert((outgoing.left_bytes(), message));
                }
            }
            self.looks
                .insert((outgoing.heard_ns.saturating_add(patience_ns(outgoing)), message));
        }
    }

    /// Messages that are not complete, as far as it knows.
    pub fn messages_count(&self) -> usize {
        self.messages.len()
    }

    /// What it counted.
    pub fn stats(&self) -> &HomaSenderStats {
        &self.stats
    }
}
