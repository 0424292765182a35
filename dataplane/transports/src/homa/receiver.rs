//! A host's incoming messages: what has arrived of them, and who may send how much more, at which priority.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dataplane_waist::Instant;

use super::{HomaKind, HomaOptions, HomaPacket, PRIORITIES_COUNT};
use crate::tcp::{
    ranges::{Inserted, Ranges},
    segment::SackBlock,
    timer::saturating_ns,
};

/// What a Homa receiver counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HomaReceiverStats {
    /// Data packets.
    pub packets_count: u64,
    /// Packets that brought nothing new.
    pub duplicates_count: u64,
    /// Grants sent.
    pub grants_count: u64,
    /// Requests for what was late.
    pub resends_count: u64,
    /// Messages that are complete.
    pub messages_count: u64,
    /// Not data, or beyond a message's end: ignored.
    pub malformed_count: u64,
}

#[derive(Debug)]
struct Incoming {
    from: u32,
    bytes: u32,
    /// Everything below has arrived; above it what is in `beyond`.
    next: u32,
    beyond: Ranges,
    received_bytes: u32,
    granted_bytes: u32,
    heard_ns: u64,
}

impl Incoming {
    fn left_bytes(&self) -> u32 {
        self.bytes - self.received_bytes
    }

    /// Adds what has arrived; false if all of it was there.
    fn insert(&mut self, start: u32, end: u32) -> bool {
        if end <= self.next {
            return false;
        }
        let before = self.received_bytes;
        let block = SackBlock {
            start: start.max(self.next).into(),
            end: end.into(),
        };
        let held = |ranges: &Ranges| ranges.blocks().iter().map(|have| have.end - have.start).sum::<u64>();
        let held_before = held(&self.beyond);
        if self.beyond.insert(block) != Inserted::New {
            return false;
        }
        let held_after = held(&self.beyond);
        self.received_bytes += (held_after - held_before) as u32;
        if block.start == u64::from(self.next) {
            self.next = self.beyond.advance(self.next.into()) as u32;
        }
        self.received_bytes > before
    }
}

/// A host's receiving half.
#[derive(Debug)]
pub struct HomaReceiver {
    options: HomaOptions,
    resend_after_ns: u64,
    messages: BTreeMap<u32, Incoming>,
    /// Messages that are not granted whole, by what they have left: the first are granted.
    to_grant: BTreeSet<(u32, u32)>,
    /// When to look whether a message is late; at most one entry per message.
    looks: BTreeSet<(u64, u32)>,
    /// Complete: what still comes of them is answered, and not begun anew.
    done: BTreeSet<u32>,
    /// To whom, what.
    control: VecDeque<(u32, HomaPacket)>,
    stats: HomaReceiverStats,
}

impl HomaReceiver {
    /// A host that nothing has come to.
    pub fn new(options: &HomaOptions) -> HomaReceiver {
        HomaReceiver {
            options: *options,
            resend_after_ns: saturating_ns(options.resend_after).max(1),
            messages: BTreeMap::new(),
            to_grant: BTreeSet::new(),
            looks: BTreeSet::new(),
            done: BTreeSet::new(),
            control: VecDeque::new(),
            stats: HomaReceiverStats::default(),
        }
    }

    /// Takes a data packet of host `from`. True if it completes its message.
    pub fn on_packet(&mut self, now: Instant, from: u32, packet: &HomaPacket) -> bool {
        let HomaPacket {
            message,
            offset_bytes: start,
            len_bytes,
            message_bytes,
            ..
        } = *packet;
        let end = start
            .checked_add(len_bytes)
            .filter(|&end| end <= message_bytes && len_bytes > 0);
        let (HomaKind::Data, Some(end)) = (packet.kind, end) else {
            self.stats.malformed_count += 1;
            return false;
        };
        self.stats.packets_count += 1;
        if self.done.contains(&message) {
            self.stats.duplicates_count += 1;
            self.say_done(from, message);
            return false;
        }
        let rtt_bytes = self.options.rtt_bytes.max(1);
        let incoming = self.messages.entry(message).or_insert_with(|| {
            self.looks
                .insert((now.as_ns().saturating_add(self.resend_after_ns), message));
            let granted_bytes = message_bytes.min(rtt_bytes);
            Incoming {
                from,
                bytes: message_bytes,
                next: 0,
                beyond: Ranges::default(),
                received_bytes: 0,
                granted_bytes,
                heard_ns: 0,
            }
        });
        if incoming.bytes != message_bytes {
            self.stats.malformed_count += 1;
            return false;
        }
        let key_before = (incoming.left_bytes(), message);
        incoming.heard_ns = now.as_ns();
        if !incoming.insert(start, end) {
            self.stats.duplicates_count += 1;
        }
        self.to_grant.remove(&key_before);
        let is_done = incoming.left_bytes() == 0;
        if is_done {
            self.messages.remove(&message);
            self.done.insert(message);
            self.stats.messages_count += 1;
            self.say_done(from, message);
        } else if incoming.granted_bytes < incoming.bytes {
            self.to_grant.insert((incoming.left_bytes(), message));
        }
        self.grant();
        is_done
    }

    fn say_done(&mut self, to: u32, message: u32) {
        self.say(
            to,
            HomaPacket {
                kind: HomaKind::Done,
                message,
                ..HomaPacket::default()
            },
        );
    }

    /// Control packets travel at the highest priority (§3.1).
    fn say(&mut self, to: u32, packet: HomaPacket) {
        self.control.push_back((
            to,
            HomaPacket {
                priority: PRIORITIES_COUNT - 1,
                ..packet
            },
        ));
    }

    /// §3.3 to 3.5: the shortest messages, one of each sender, have a round trip's bytes on the way each; the shorter, the higher their
    /// priority, and the lowest priorities are used first, so that a shorter message that comes finds a higher one free.
    fn grant(&mut self) {
        let levels = usize::from(self.options.scheduled_levels());
        // Message and sender.
        let mut active = [(0, 0); PRIORITIES_COUNT as usize];
        let mut active_count = 0;
        for &(_, message) in &self.to_grant {
            let from = self.messages[&message].from;
            if !active[..active_count].iter().any(|&(_, sender)| sender == from) {
                active[active_count] = (message, from);
                active_count += 1;
            }
            if active_count == levels {
                break;
            }
        }
        for (rank, &(message, _)) in active[..active_count].iter().enumerate() {
            let grant_priority = (active_count - 1 - rank) as u8;
            let incoming = self.messages.get_mut(&message).expect("what is to be granted is there");
            let may_have = incoming
                .received_bytes
                .saturating_add(self.options.rtt_bytes.max(1))
                .min(incoming.bytes);
            if may_have <= incoming.granted_bytes {
                continue;
            }
            incoming.granted_bytes = may_have;
            let to = incoming.from;
            if may_have == incoming.bytes {
                self.to_grant.remove(&(incoming.left_bytes(), message));
            }
            self.stats.grants_count += 1;
            self.say(
                to,
                HomaPacket {
                    kind: HomaKind::Grant,
                    message,
                    offset_bytes: may_have,
                    grant_priority,
                    ..HomaPacket::default()
                },
            );
        }
    }

    /// The next control packet, and the host that it goes to.
    pub fn poll_transmit(&mut self, _now: Instant) -> Option<(u32, HomaPacket)> {
        self.control.pop_front()
    }

    /// When it wants [`HomaReceiver::on_wake`].
    pub fn wake_at(&self) -> Option<Instant> {
        self.looks.first().map(|&(at_ns, _)| Instant::from_ns(at_ns))
    }

    /// Time has passed: what was granted and is late is asked for again (§3.7).
    pub fn on_wake(&mut self, now: Instant) {
        let now_ns = now.as_ns();
        while let Some(&(at_ns, message)) = self.looks.first() {
            if at_ns > now_ns {
                break;
            }
            self.looks.pop_first();
            let Some(incoming) = self.messages.get_mut(&message) else {
                continue;
            };
            if incoming.heard_ns.saturating_add(self.resend_after_ns) <= now_ns {
                incoming.heard_ns = now_ns;
                // The first hole, as far as it was granted.
                let holds = incoming.beyond.blocks().iter().map(|have| have.start as u32);
                let end = holds
                    .min()
                    .unwrap_or(incoming.granted_bytes)
                    .min(incoming.granted_bytes);
                if end > incoming.next {
                    let (to, offset_bytes) = (incoming.from, incoming.next);
                    self.stats.resends_count += 1;
                    self.looks
                        .insert((now_ns.saturating_add(self.resend_after_ns), message));
                    self.say(
                        to,
                        HomaPacket {
                            kind: HomaKind::Resend,
                            message,
                            offset_bytes,
                            len_bytes: end - offset_bytes,
                            grant_priority: self.options.scheduled_levels(),
                            ..HomaPacket::default()
                        },
                    );
                    continue;
                }
            }
            self.looks
                .insert((incoming.heard_ns.saturating_add(self.resend_after_ns), message));
        }
    }

    /// Messages that have begun and are not complete.
    pub fn messages_count(&self) -> usize {
        self.messages.len()
    }

    /// What it counted.
    pub fn stats(&self) -> &HomaReceiverStats {
        &self.stats
    }
}
