//! A host's one queue of pulls: each flow in turn, at the rate at which the host's link can take the packets that are pulled (§3.2).

use std::collections::VecDeque;

use dataplane_waist::Instant;

use super::NdpPacket;

/// The pull queue of a receiving host. Flows of high priority go before the others (§3.2: "a receiver can prioritise").
#[derive(Debug)]
pub struct PullPacer {
    /// A pulled packet's time on the link.
    gap_ns: u64,
    next_ns: u64,
    high: VecDeque<u32>,
    normal: VecDeque<u32>,
}

impl PullPacer {
    /// For a link of `bits_per_sec` on which a full packet takes `wire_bytes`, overhead included.
    ///
    /// # Panics
    /// If `bits_per_sec` is 0.
    pub fn new(bits_per_sec: u64, wire_bytes: u32) -> PullPacer {
        assert!(bits_per_sec > 0, "a link without a rate carries no pulls");
        PullPacer {
            gap_ns: (u64::from(wire_bytes) * 8 * 1_000_000_000).div_ceil(bits_per_sec),
            next_ns: 0,
            high: VecDeque::new(),
            normal: VecDeque::new(),
        }
    }

    /// A flow that was not in the queue owes pulls: call it when [`super::NdpReceiver::owes_pulls`] turns true.
    pub fn add(&mut self, flow: u32, is_high_priority: bool) {
        let queue = if is_high_priority {
            &mut self.high
        } else {
            &mut self.normal
        };
        queue.push_back(flow);
    }

    /// The next pull, if it is time for one. `pull` gives a flow's pull (see [`super::NdpReceiver::pull`]), and whether it owes more; a
    /// flow that gives none has all it needs, and the next flow's turn comes at once.
    pub fn poll(
        &mut self,
        now: Instant,
        mut pull: impl FnMut(u32) -> Option<(NdpPacket, bool)>,
    ) -> Option<(u32, NdpPacket)> {
        if now.as_ns() < self.next_ns {
            return None;
        }
        loop {
            let queue = if self.high.is_empty() {
                &mut self.normal
            } else {
                &mut self.high
            };
            let flow = queue.pop_front()?;
            if let Some((packet, owes_more)) = pull(flow) {
                if owes_more {
                    queue.push_back(flow);
                }
                self.next_ns = self.next_ns.max(now.as_ns()).saturating_add(self.gap_ns);
                return Some((flow, packet));
            }
        }
    }

    /// When it wants [`PullPacer::poll`]: now, if it has pulls and is not paced out.
    pub fn wake_at(&self) -> Option<Instant> {
        let is_empty = self.high.is_empty() && self.normal.is_empty();
        (!is_empty).then(|| Instant::from_ns(self.next_ns))
    }
}
