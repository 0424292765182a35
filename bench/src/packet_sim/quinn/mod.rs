//! Real code in virtual time: the endpoints of quinn-proto, a QUIC that people use, on the simulator's hosts.
//!
//! ```text
//!   Connection ─▶ datagram, its real bytes ─▶ Packet of its length, ECN bits and all ─▶ … ─▶ Endpoint::handle
//!       ▲ poll_timeout, handle_timeout: the base instant + virtual time
//! ```
//!
//! quinn-proto does no I/O and reads no clock, so nothing of it is changed or imitated: handshake, TLS, packet protection, MTU
//! discovery, loss recovery, pacing and congestion control are what a program gets that links it. Each flow is a connection
//! of its own, its sender the client; one stream carries the bytes.
//!
//! What is drawn: the endpoints' randomness has a seed. Keys, connection IDs and TLS's own numbers differ from run to run, but
//! not in length, and nothing else of them is seen by the network; so the same seed gives the same event hash. A signature's
//! length must not vary for that, which ECDSA's does and Ed25519's does not ([`tls`]). quinn's BBR draws from a source that
//! nobody can seed: its runs are not repeatable.

mod end;
mod payloads;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane_sim::packet::{HostApi, Packet};
use quinn_proto::{
    TransportConfig, VarInt,
    congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig},
};

use self::end::End;
pub use self::payloads::Payloads;
use super::{
    hosts::{Header, Sending},
    setup::{FlowKind, Setup},
};
use crate::scenario::units::QuinnController;

/// No place: this end is on a host of another group, or not quinn's.
const ELSEWHERE: u32 = u32::MAX;

/// quinn's flows on the hosts of a group.
#[derive(Debug)]
pub struct QuinnFlows {
    /// Virtual time zero. Only differences from it are ever looked at.
    base: Instant,
    /// By flow: the places of its ends below.
    sender_places: Vec<u32>,
    receiver_places: Vec<u32>,
    ends: Vec<End>,
    payloads: Payloads,
}

impl QuinnFlows {
    /// The ends that are on `hosts`.
    pub fn new(setup: &Setup, hosts: &Range<u32>, payloads: Payloads) -> QuinnFlows {
        let is_quinn = |flow: &super::Flow| setup.options[usize::from(flow.options)].quinn;
        let has_any = setup.flows.iter().any(|flow| is_quinn(flow).is_some());
        let places = || {
            if has_any {
                vec![ELSEWHERE; setup.flows.len()]
            } else {
                Vec::new()
            }
        };
        let mut flows = QuinnFlows {
            base: Instant::now(),
            sender_places: places(),
            receiver_places: places(),
            ends: Vec::new(),
            payloads,
        };
        if !has_any {
            return flows;
        }
        let shared = flows.payloads.clone();
        let tls = shared.tls();
        for (number, flow) in (0_u32..).zip(setup.flows.iter()) {
            let Some(controller) = is_quinn(flow) else { continue };
            let transport = Arc::new(transport(controller));
            let seed = |end: u64| seed(setup.seed, number, end);
            if hosts.contains(&flow.from) {
                flows.sender_places[number as usize] = flows.ends.len() as u32;
                let end = End::client(number, (flow.from, flow.to), tls.client(&transport), seed(0));
                flows.ends.push(end);
            }
            if hosts.contains(&flow.to) {
                flows.receiver_places[number as usize] = flows.ends.len() as u32;
                let due_bytes = match flow.kind {
                    FlowKind::Finite { bytes, .. } => bytes,
                    FlowKind::Answer { .. } | FlowKind::Endless { .. } => u64::MAX,
                };
                let server = tls.server(&transport);
                flows
                    .ends
                    .push(End::server(number, (flow.to, flow.from), server, seed(1), due_bytes));
            }
        }
        flows
    }

    /// Is this flow quinn's, with an end here?
    pub fn has(&self, flow: u32) -> bool {
        let at = |places: &[u32]| places.get(flow as usize).is_some_and(|place| *place != ELSEWHERE);
        at(&self.sender_places) || at(&self.receiver_places)
    }

    /// A flow begins: a connection is opened, and so much is to be sent.
    pub fn write(&mut self, flow: u32, bytes: u64, host: &mut HostApi<'_, Header>) {
        let place = self.sender_places[flow as usize];
        let now = self.instant(host);
        let end = &mut self.ends[place as usize];
        end.open(now, bytes);
        end.pump(self.base, now, &self.payloads, host);
    }

    /// A datagram has come. Says whether all of a finite flow has, for the first time.
    pub fn on_packet(&mut self, packet: &Packet<Header>, datagram: u32, host: &mut HostApi<'_, Header>) -> bool {
        let bytes = self.payloads.take(datagram);
        // A switch that cuts payloads off leaves nothing of a datagram that could be read.
        if packet.is_trimmed || packet.is_returned {
            return false;
        }
        let place = self.place_at(packet.flow, host.host());
        let now = self.instant(host);
        let Some(end) = self.ends.get_mut(place as usize) else {
            return false;
        };
        end.on_datagram(now, &bytes, packet.ecn);
        end.pump(self.base, now, &self.payloads, host);
        end.is_whole_now()
    }

    /// The timer of the end at this host fires.
    pub fn on_timer(&mut self, flow: u32, host: &mut HostApi<'_, Header>) {
        let place = self.place_at(flow, host.host());
        let now = self.instant(host);
        if let Some(end) = self.ends.get_mut(place as usize) {
            end.on_timeout(now);
            end.pump(self.base, now, &self.payloads, host);
        }
    }

    /// What a flow's sending half has come to.
    pub fn sending(&self, flow: u32) -> Option<Sending> {
        let place = *self.sender_places.get(flow as usize)?;
        Some(self.ends.get(place as usize)?.sending())
    }

    /// What has arrived in order.
    pub fn received_bytes(&self, flow: u32) -> Option<u64> {
        let place = *self.receiver_places.get(flow as usize)?;
        Some(self.ends.get(place as usize)?.received_bytes())
    }

    /// The end of a flow that is at a host.
    fn place_at(&self, flow: u32, host: u32) -> u32 {
        let of = |places: &[u32]| places.get(flow as usize).copied().unwrap_or(ELSEWHERE);
        let (sender, receiver) = (of(&self.sender_places), of(&self.receiver_places));
        match self.ends.get(sender as usize) {
            Some(end) if end.host() == host => sender,
            _ => receiver,
        }
    }

    fn instant(&self, host: &HostApi<'_, Header>) -> Instant {
        self.base + Duration::from_nanos(host.now().as_ns())
    }
}

/// A flow's window at the receiver, and what a sender may hold: larger than any path that is simulated, so that they never
/// decide. quinn's own defaults are made for 12.5 MB/s at 100 ms, 1.25 MB.
const WINDOW_BYTES: u32 = 64 << 20;

/// quinn's defaults, but for the windows and the controller.
fn transport(controller: QuinnController) -> TransportConfig {
    let factory: Arc<dyn ControllerFactory + Send + Sync> = match controller {
        QuinnController::Cubic => Arc::new(CubicConfig::default()),
        QuinnController::NewReno => Arc::new(NewRenoConfig::default()),
        QuinnController::Bbr => Arc::new(BbrConfig::default()),
    };
    let mut config = TransportConfig::default();
    config
        .congestion_controller_factory(factory)
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(WINDOW_BYTES.into());
    config
}

/// A seed for an endpoint.
fn seed(run: u64, flow: u32, end: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (part, value) in bytes.chunks_exact_mut(8).zip([run, flow.into(), end, 0x7175_696e_6e00]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}
