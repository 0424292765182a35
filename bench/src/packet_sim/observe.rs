//! Looking at a run while it goes: the queue and the windows at even times, and packets. None of it changes what happens.

use std::sync::atomic::AtomicBool;

use dataplane_sim::{
    SimTime,
    packet::{DepthSample, Outcome, Packet, PacketSim, Tap, TapEvent},
};

use super::{
    Header, Hosts, Setup,
    quinn::Payloads,
    trace::{Trace, TraceTap},
};

/// Flows whose windows are kept: the first ones. More are no picture.
pub const OBSERVED_FLOWS_MAX: usize = 64;
/// Times at which is looked. A series ends there, and its file says so.
pub const OBSERVED_SAMPLES_MAX: usize = 20_000;
/// Values of all flows' windows together: a gigabyte would be too much for a picture.
const WINDOWS_MAX: usize = 2_000_000;

/// A sending half at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSample {
    /// When.
    pub at: SimTime,
    /// Which flow.
    pub flow: u32,
    /// What its window allows to be in flight.
    pub window_bytes: u64,
    /// What is thought to be in the network; 0 for quinn, which does not say.
    pub in_flight_bytes: u64,
    /// Its smoothed round trip, 0 before the first.
    pub srtt_ns: u64,
    /// Its controller is in slow start.
    pub is_slow_start: bool,
}

/// What is wanted of a run beside its outcome, and what was seen.
#[derive(Debug, Default)]
pub struct Observer {
    /// Between two looks; zero if there are none.
    pub every: SimTime,
    /// Where packets are written.
    pub trace: Option<Trace>,
    /// The queue before the watched link.
    pub depths: Vec<DepthSample>,
    /// The flows' windows.
    pub flows: Vec<FlowSample>,
    next_at: SimTime,
    looks_count: usize,
}

/// Whoever must hear of packets: a trace, and who keeps the bytes of lost datagrams.
struct Taps {
    trace: Option<TraceTap>,
    payloads: Payloads,
}

impl Tap<Header> for Taps {
    fn on_packet(&mut self, now: SimTime, link: u32, event: TapEvent, packet: &Packet<Header>) {
        if let Some(trace) = &mut self.trace {
            trace.on_packet(now, link, event, packet);
        }
        if let (Header::Datagram { place }, TapEvent::Dropped(_) | TapEvent::Lost) = (packet.header, event) {
            self.payloads.drop(place);
        }
    }
}

impl Observer {
    /// One that looks every so often.
    pub fn every(every: SimTime) -> Observer {
        Observer {
            every,
            ..Observer::default()
        }
    }

    /// Before anything has happened.
    pub(super) fn begin(&mut self, setup: &Setup, sim: &mut PacketSim<Hosts>, payloads: &Payloads) {
        let has_datagrams = setup.options.iter().any(|options| options.quinn.is_some());
        if self.trace.is_some() || has_datagrams {
            sim.set_taps(|| {
                Box::new(Taps {
                    trace: self.trace.as_ref().map(|trace| trace.tap(payloads)),
                    payloads: payloads.clone(),
                })
            });
        }
    }

    /// Goes on to `until`, looking on the way.
    pub(super) fn run_until(
        &mut self,
        setup: &Setup,
        sim: &mut PacketSim<Hosts>,
        until: SimTime,
        stop: &AtomicBool,
    ) -> Outcome {
        while self.every > SimTime::ZERO && self.next_at <= until && !self.is_full() {
            match sim.run_until(self.next_at, stop) {
                Outcome::Time => self.look(setup, sim),
                other => return other,
            }
        }
        sim.run_until(until, stop)
    }

    /// Has it seen as much as it keeps?
    pub fn is_full(&self) -> bool {
        self.looks_count >= OBSERVED_SAMPLES_MAX || self.flows.len() >= WINDOWS_MAX
    }

    fn look(&mut self, setup: &Setup, sim: &PacketSim<Hosts>) {
        let at = self.next_at;
        let (packets_count, bytes) = sim.queue_depth(setup.watched_link);
        self.depths.push(DepthSample {
            at,
            packets_count,
            bytes,
        });
        for (flow, from) in (0_u32..)
            .zip(setup.flows.iter().map(|flow| flow.from))
            .take(OBSERVED_FLOWS_MAX)
        {
            if let Some(sending) = sim.edge_of(from).sending(flow) {
                self.flows.push(FlowSample {
                    at,
                    flow,
                    window_bytes: sending.window_bytes,
                    in_flight_bytes: sending.in_flight_bytes,
                    srtt_ns: sending.srtt_ns,
                    is_slow_start: sending.is_slow_start,
                });
            }
        }
        self.looks_count += 1;
        self.next_at += self.every;
    }
}
