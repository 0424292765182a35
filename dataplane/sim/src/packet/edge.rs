//! The seam to whatever hosts do: an edge gets packets and timers, and sends packets.

use dataplane_queue::SimTime;

use super::{core::Core, frame::Packet};

/// What the hosts of a group do. It has no clock, no randomness and no threads of its own; two groups share nothing.
pub trait Edge {
    /// What its protocol writes into a packet.
    type Header: Copy;

    /// How many timers each flow has. They are numbered from 0.
    const TIMERS_PER_FLOW: u8 = 4;

    /// The beginning, once for each host.
    fn on_start(&mut self, host: &mut HostApi<'_, Self::Header>);

    /// A packet has come: [`HostApi::host`] is the one that it is for, or the one that it is from if it was returned.
    fn on_packet(&mut self, packet: &Packet<Self::Header>, host: &mut HostApi<'_, Self::Header>);

    /// A timer fires, at the host that set it.
    fn on_timer(&mut self, flow: u32, timer: u8, host: &mut HostApi<'_, Self::Header>);
}

/// What a host can do.
#[derive(Debug)]
pub struct HostApi<'a, H> {
    pub(crate) core: &'a mut Core<H>,
    pub(crate) host: u32,
}

impl<H: Copy> HostApi<'_, H> {
    /// The time.
    #[inline]
    pub fn now(&self) -> SimTime {
        self.core.now
    }

    /// Which host this is.
    #[inline]
    pub fn host(&self) -> u32 {
        self.host
    }

    /// Puts a packet into the queue of this host's network card.
    ///
    /// # Panics
    /// If it is from another host, or for this one, or for none.
    #[inline]
    pub fn send(&mut self, packet: Packet<H>) {
        self.core.send(self.host, packet);
    }

    /// Starts or moves a timer of this host. A time that has passed is now. The number of a flow is the edge's own; timers
    /// take memory for the highest, and a flow's two ends on two hosts of a group need different timers.
    #[inline]
    pub fn set_timer(&mut self, flow: u32, timer: u8, at: SimTime) {
        self.core.set_timer(self.host, flow, timer, at);
    }

    /// Stops a timer, if it runs.
    #[inline]
    pub fn cancel_timer(&mut self, flow: u32, timer: u8) {
        self.core.cancel_timer(flow, timer);
    }

    /// What waits at this host's network card, without what is on the wire.
    #[inline]
    pub fn nic_backlog_bytes(&self) -> u64 {
        self.core.nic_backlog_bytes(self.host)
    }

    /// A value from 0 to `max`, both inclusive, from this host's own stream.
    pub fn random_up_to(&mut self, max: u64) -> u64 {
        self.core.random(self.host).up_to(max)
    }

    /// A span from zero to `max`, from this host's own stream.
    pub fn random_span(&mut self, max: SimTime) -> SimTime {
        self.core.random(self.host).span(max)
    }
}
