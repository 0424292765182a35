//! In the place of quinn, in a build without it: no flow is quinn's, and a scenario that wants one is refused when it is set up.

use std::ops::Range;

use dataplane_sim::packet::{HostApi, Packet};

use super::{
    hosts::{Header, Sending},
    setup::Setup,
};

/// Datagrams on their way: there are none.
#[derive(Clone, Debug, Default)]
pub struct Payloads(());

impl Payloads {
    /// Nothing was lost.
    pub fn drop(&self, _place: u32) {}

    /// There is nothing to copy.
    pub fn copy_into(&self, _place: u32, _buffer: &mut Vec<u8>) {}
}

/// quinn's flows: there are none.
#[derive(Debug)]
pub struct QuinnFlows;

impl QuinnFlows {
    pub fn new(_setup: &Setup, _hosts: &Range<u32>, _payloads: Payloads) -> QuinnFlows {
        QuinnFlows
    }

    pub fn has(&self, _flow: u32) -> bool {
        false
    }

    pub fn write(&mut self, _flow: u32, _bytes: u64, _host: &mut HostApi<'_, Header>) {}

    pub fn on_packet(&mut self, _packet: &Packet<Header>, _place: u32, _host: &mut HostApi<'_, Header>) -> bool {
        false
    }

    pub fn on_timer(&mut self, _flow: u32, _host: &mut HostApi<'_, Header>) {}

    pub fn sending(&self, _flow: u32) -> Option<Sending> {
        None
    }

    pub fn received_bytes(&self, _flow: u32) -> Option<u64> {
        None
    }
}
