//! L2: a network, disks and clocks in virtual time, behind the waist's traits. It knows no protocol.
//!
//! [`Sim`] turns [`dataplane_waist::Node`]s, the same loop that runs over real ports: what is tested here is what runs
//! there. Time is in picoseconds ([`SimTime`]); every host sees it through a clock of its own ([`HostClock`]). The same
//! seed gives the same [`EventHash`]: one thread, one queue ordered by time and number, a stream of randomness for each
//! link and disk, no map whose order depends on addresses.
//!
//! ```text
//!  Fault list ─▶ ┌────────────────────────── Sim: one queue of events ──────────────────────────┐
//!                │ Node<SimPort, SimLog, M> ─▶ Network (Mesh of links) ─▶ Node<SimPort, SimLog, M> │
//!                └────── HostClock ─────────────────────────────────────────── HostClock ───────┘
//! ```
//!
//! [`Network`] is the seam for a network of switches and queues; [`Mesh`] has a link for every ordered pair of hosts. What
//! a link, a disk and a host cost stands in [`costs`], each figure with its source.
//!
//! A cluster, a fault, a look inside:
//!
//! ```
//! use dataplane_sim::{Crash, Fault, HostId, HostOptions, LinkOptions, Sim, SimTime};
//! use dataplane_waist::{Effects, Input, Instant, Log, Protocol};
//!
//! /// Counts the frames that it gets; host 0 sends one a millisecond to host 1.
//! struct Counter { sends: bool, next: Instant, frames_count: u64 }
//! impl Protocol for Counter {
//!     fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
//!         match input {
//!             Input::Frame { .. } => self.frames_count += 1,
//!             Input::Tick => {
//!                 self.next = now + std::time::Duration::from_millis(1);
//!                 let _ = out.send(dataplane_waist::Peer(1), 4, |bytes| bytes.copy_from_slice(b"ping"));
//!             }
//!             Input::Durable(_) => (),
//!         }
//!     }
//!     fn wake_at(&self) -> Option<Instant> {
//!         self.sends.then_some(self.next)
//!     }
//! }
//!
//! let mut sim = Sim::new(7, &[HostOptions::default(); 2], LinkOptions::default(), |boot| {
//!     boot.log.recover(&mut |_| ())?;
//!     Ok(Counter { sends: boot.host == HostId(0), next: boot.now, frames_count: 0 })
//! });
//! sim.run_until(SimTime::from_ms(10));
//! assert_eq!(sim.protocol(HostId(1)).expect("up").frames_count, 10);
//! sim.inject(Fault::Crash { host: HostId(1), crash: Crash::Power, lasts: SimTime::from_ms(5) });
//! sim.run_until(SimTime::from_ms(12));
//! assert!(sim.protocol(HostId(1)).is_none());
//! sim.run_until(SimTime::from_ms(20));
//! assert!(sim.protocol(HostId(1)).expect("up again").frames_count < 10);
//! ```
#![forbid(unsafe_code)]

mod clock;
pub mod costs;
mod fault;
mod hash;
mod host;
mod latency;
mod log;
mod net;
pub mod packet;
mod port;
mod queue;
mod random;
mod sim;
mod window;

pub use clock::{DRIFT_PPM_MAX, HostClock, SimClock};
pub use dataplane_queue::SimTime;
pub use fault::{Fault, FaultBounds, FaultKind, HostSet, ParseFaultError, ScheduledFault, generate, shrink};
pub use hash::EventHash;
pub use host::{Boot, HostId, HostOptions};
pub use latency::Latency;
pub use log::{Crash, DiskOptions, SimLog, SimLogStats};
pub use net::{Arrival, LinkFaults, LinkOptions, Mesh, Network};
pub use port::{PortOptions, SimPort};
pub use sim::{BootFn, Event, EventKind, FrameCounts, Sim};
pub use window::{Fabric, FabricOptions, Placement, SimWindow};
