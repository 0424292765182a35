//! Where every frame went. Nothing vanishes: what came in and what was copied went out, was lost by a named counter, or is
//! still inside.

use dataplane_queue::{DropReason, SimTime};

/// Frames that were lost, by the place and the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// The host's card was full.
    pub card_full_count: u64,
    /// The port's queue was at its own bound.
    pub queue_full_count: u64,
    /// The switch's memory, or the port's share of it.
    pub buffer_full_count: u64,
    /// RED decided so.
    pub early_count: u64,
    /// CoDel decided so.
    pub delay_count: u64,
    /// Trimmed already, and the queue of headers was full.
    pub header_queue_full_count: u64,
    /// Of a class that is paused instead of dropped, beyond its headroom.
    pub headroom_full_count: u64,
    /// On the cable to the host, by chance.
    pub lost_count: u64,
    /// To a host at the port by which it came: a switch does not send back.
    pub same_port_count: u64,
    /// No memory for a copy of a frame to many.
    pub no_memory_count: u64,
    /// Shorter than an Ethernet header.
    pub short_count: u64,
}

impl Drops {
    pub(crate) fn count(&mut self, why: DropReason) {
        *match why {
            DropReason::QueueFull => &mut self.queue_full_count,
            DropReason::BufferFull => &mut self.buffer_full_count,
            DropReason::Early => &mut self.early_count,
            DropReason::Delay => &mut self.delay_count,
            DropReason::HeaderQueueFull => &mut self.header_queue_full_count,
            DropReason::HeadroomFull => &mut self.headroom_full_count,
        } += 1;
    }

    /// All of them, with their names.
    pub fn by_name(&self) -> [(&'static str, u64); 11] {
        [
            ("card full", self.card_full_count),
            ("queue full", self.queue_full_count),
            ("buffer full", self.buffer_full_count),
            ("dropped early", self.early_count),
            ("waited too long", self.delay_count),
            ("header queue full", self.header_queue_full_count),
            ("headroom full", self.headroom_full_count),
            ("lost on the cable", self.lost_count),
            ("to its own port", self.same_port_count),
            ("no memory for a copy", self.no_memory_count),
            ("too short", self.short_count),
        ]
    }

    /// How many in all.
    pub fn total_count(&self) -> u64 {
        self.by_name().iter().map(|(_, count)| count).sum()
    }
}

/// What a port saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PortAccount {
    /// Frames from the host.
    pub received_count: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Copies made of this host's frames, beyond the first.
    pub copied_count: u64,
    /// Frames handed to the host.
    pub sent_count: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that the port's queue marked.
    pub marked_count: u64,
    /// Frames that it cut.
    pub trimmed_count: u64,
    /// Frames that were late by chance.
    pub late_count: u64,
    /// What was lost: before the switch of the host's own frames, behind it of those to the host.
    pub drops: Drops,
    /// The most that waited at the port.
    pub queue_bytes_max: u64,
    /// The same in frames.
    pub queue_frames_max: u32,
    /// How fast the host sent, at its fastest over 8 full frames' time on its link, beside that link. Below 1 it never filled it.
    pub sent_burst_ratio: f64,
    /// How long the host's own link had nothing to carry, between its first frame and its last. Of a host that is to fill it, how long it did not.
    pub idle: SimTime,
    /// How fast frames came for the host, at their fastest over 32 full frames' time, beside its link. Above 1 a queue grew.
    pub overrun_ratio: f64,
}

/// The whole switch's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Port by port.
    pub ports: Vec<PortAccount>,
    /// Frames that are under way.
    pub held_count: u64,
}

impl Account {
    /// Frames without an explanation; 0, or the switch has a defect.
    pub fn unexplained_count(&self) -> i64 {
        let sum = |of: fn(&PortAccount) -> u64| self.ports.iter().map(of).sum::<u64>() as i64;
        let came = sum(|port| port.received_count) + sum(|port| port.copied_count);
        let went = sum(|port| port.sent_count) + sum(|port| port.drops.total_count());
        came - went - self.held_count as i64
    }
}
