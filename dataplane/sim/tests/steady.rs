//! Once as many frames and writes are under way as ever will be, an event allocates nothing.
#![forbid(unsafe_code)]

use std::time::Duration;

use dataplane_sim::{HostOptions, LinkOptions, Sim, SimTime};
use dataplane_waist::{Effects, Input, Instant, Peer, Protocol};

/// Sends what comes on to the next host.
struct Relay {
    next: Peer,
    wake_at: Option<Instant>,
}

impl Protocol for Relay {
    fn handle(&mut self, _now: Instant, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Frame { bytes, .. } => {
                let _ = out.send(self.next, bytes.len(), |frame| frame.copy_from_slice(bytes));
            }
            Input::Tick => {
                self.wake_at = None;
                for len_bytes in [1, 100, 1472] {
                    let _ = out.send(self.next, len_bytes, |frame| frame.fill(7));
                }
            }
            Input::Durable(_) => (),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }
}

#[test]
fn an_event_allocates_nothing() {
    let mut sim = Sim::new(1, &[HostOptions::default(); 5], LinkOptions::default(), |boot| {
        Ok(Relay {
            next: Peer((boot.host.0 + 1) % 5),
            wake_at: Some(boot.now + Duration::from_micros(1)),
        })
    });
    sim.run_until(SimTime::from_ms(20));
    let warm_events_count = sim.events_count();
    let allocations = allocation_counter::measure(|| sim.run_until(SimTime::from_ms(60)));
    let events_count = sim.events_count() - warm_events_count;
    assert!(events_count > 10_000, "only {events_count} events");
    // A buffer that was used for short frames alone grows when it meets a long one.
    assert_eq!(allocations.count_total, 0, "in {events_count} events");
}
