//! N senders and a receiver, real kernels all of them, at a switch that is emulated: the network of an incast.
//!
//! ```no_run
//! use bench::switch::{Fabric, Kind, Shape};
//! use dataplane_queue::Limit;
//!
//! # fn main() -> anyhow::Result<()> {
//! // DCTCP's: 1 Gbit/s, 100 packets, marks above 20; built ten times slower.
//! let shape = Shape {
//!     dilation: bench::switch::Dilation::new(10)?,
//!     ..Shape::new(1_000_000_000, Limit::Packets(100), Some(Limit::Packets(20)))
//! };
//! Kind::Soft.can_be(&shape).map_err(anyhow::Error::msg)?;
//! let fabric = Fabric::build(Kind::Soft, 8, &shape)?;
//! for sender in fabric.senders() {
//!     sender.run(|| { /* sockets that are opened here belong to this sender */ })?;
//! }
//! let lap = fabric.lap()?; // what the switch did since the last lap
//! println!("{} marked, {} dropped", lap.to_receiver.marked_count, lap.to_receiver.dropped_count);
//! fabric.stop()?; // namespaces are gone, as they are after a drop, and after Ctrl-C
//! # Ok(())
//! # }
//! ```
//!
//! Names of a killed run are swept by the next ([`dataplane_netns::sweep`]). Every record of a run over a fabric carries
//! [`Fabric::facts`], and [`Lap::observations`] beside its own: whether the switch and the senders did what the network promises.

mod dilation;
mod fabric;
mod kernel;
mod lap;
pub mod queue_log;
mod shape;

use std::fmt;

pub use dilation::{Dilation, KernelTimers};
pub use fabric::{Ended, Fabric};
pub use lap::{Lap, PortCounts};
pub use shape::Shape;
pub(crate) use shape::rate_text;

use dataplane_queue::Limit;

use crate::{
    record::{BackEndRecord, SupportRecord},
    soft_switch,
};

/// Who emulates the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A thread with AF_XDP sockets: delays, any queue of the packet simulator, losses, a log; late where its thread is.
    Soft,
    /// The kernel's bridge and token buckets, with a program that marks: no delay and no faults, and no thread that could be late.
    Kernel,
}

impl Kind {
    /// All of them, the one that can most first.
    pub const ALL: [Kind; 2] = [Kind::Soft, Kind::Kernel];

    /// As records and users name it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Soft => "soft",
            Kind::Kernel => "kernel",
        }
    }

    /// What moves the frames, for a record.
    pub const fn by(self) -> &'static str {
        match self {
            Kind::Soft => "AF_XDP sockets on veth pairs and a thread with a clock",
            Kind::Kernel => "a bridge, token buckets (sch_tbf), and a program that marks by the queue's backlog (tcx)",
        }
    }

    /// Whether this machine has it, for a network of that shape.
    ///
    /// # Errors
    /// What is missing, and what to try.
    pub fn can_be(self, shape: &Shape) -> Result<(), String> {
        shape.check(1).map_err(|error| error.to_string())?;
        match self {
            Kind::Soft => soft_switch::can_be_here(),
            Kind::Kernel => kernel::can_be(shape),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which switches can be emulated here, for `dplab probe`, and which of the kernel's own emulators there are to hold them against.
pub fn probe() -> Vec<BackEndRecord> {
    let marking = Shape::new(100_000_000, Limit::Packets(100), Some(Limit::Packets(20)));
    let switches = Kind::ALL.map(|kind| BackEndRecord {
        name: kind.name().to_owned(),
        summary: "switch between namespaces".to_owned(),
        support: match kind.can_be(&marking) {
            Ok(()) => SupportRecord::Emulated {
                by: kind.by().to_owned(),
            },
            Err(why) => SupportRecord::Absent { why },
        },
    });
    let kernels = KERNEL_EMULATORS.map(|(kind, summary)| BackEndRecord {
        name: kind.to_owned(),
        summary: summary.to_owned(),
        support: match dataplane_netns::has_queue_kind(kind) {
            Ok(true) => SupportRecord::Native,
            Ok(false) => SupportRecord::Absent {
                why: format!(
                    "this kernel has no sch_{kind} (modprobe sch_{kind}, CONFIG_NET_SCH_{})",
                    kind.to_uppercase()
                ),
            },
            Err(error) => SupportRecord::Unknown { why: error.to_string() },
        },
    });
    switches.into_iter().chain(kernels).collect()
}

/// Queueing disciplines that other emulators are made of. No experiment needs one.
const KERNEL_EMULATORS: [(&str, &str); 3] = [
    ("netem", "the kernel's own delay, loss and reordering"),
    ("red", "the kernel's own marks by an average queue"),
    ("fq", "the kernel's own pacing and departure times"),
];

/// The kind that a run uses, and why it uses no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The first that can be.
    pub kind: Kind,
    /// Those that were asked for before it, each with its reason.
    pub refused: Vec<(Kind, String)>,
}

/// The first of `wanted` that this machine has for a network of that shape.
///
/// # Errors
/// None of them: each with its reason.
pub fn choose(wanted: &[Kind], shape: &Shape) -> Result<Choice, String> {
    let mut refused = Vec::new();
    for &kind in wanted {
        match kind.can_be(shape) {
            Ok(()) => return Ok(Choice { kind, refused }),
            Err(why) => refused.push((kind, why)),
        }
    }
    let reasons: Vec<String> = refused.iter().map(|(kind, why)| format!("{kind}: {why}")).collect();
    Err(format!("no switch can be emulated here: {}", reasons.join("; ")))
}
