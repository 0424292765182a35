//! What a switch is built from, and why it cannot be built from something else.

use std::{error, fmt};

use dataplane_queue::{Discipline, DropTailOptions, Limit, Marking, Sharing, SimTime};

/// More than that nobody gives network namespaces of their own on one machine.
const HOSTS_COUNT_MAX: usize = 1024;

/// The cable between a host and the switch, and what stands at its ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostLink {
    /// Both ways.
    pub bits_per_sec: u64,
    /// Of each way: from the last bit's departure to its arrival.
    pub delay: SimTime,
    /// What the host's card holds. Hosts usually stop their own queues before that; what does not fit is dropped and counted.
    pub card: Limit,
    /// The switch's port to the host.
    pub discipline: Discipline,
    /// What happens to frames on the way to the host.
    pub faults: Faults,
}

impl HostLink {
    /// A drop-tail port of `limit`, a card with room for anything, no faults.
    pub fn new(bits_per_sec: u64, delay: SimTime, limit: Limit) -> HostLink {
        HostLink {
            bits_per_sec,
            delay,
            card: Limit::NONE,
            discipline: Discipline::DropTail(DropTailOptions {
                limit,
                marking: Marking::Never,
            }),
            faults: Faults::default(),
        }
    }
}

/// What chance does to frames behind the port, on the cable to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// How many of all frames are lost, 0 to 1.
    pub loss_ratio: f64,
    /// How many of all frames are late by `late_by`, so that others overtake them, 0 to 1.
    pub late_ratio: f64,
    /// By how much.
    pub late_by: SimTime,
}

/// A switch with a host at each port.
#[derive(Clone, Debug, PartialEq)]
pub struct SwitchOptions {
    /// Port by port.
    pub links: Vec<HostLink>,
    /// How the ports share the switch's memory.
    pub sharing: Sharing,
    /// What every frame takes on the wire beyond its bytes: 24 on Ethernet, 0 if the rate is to be that of bytes alone.
    pub overhead_bytes: u32,
    /// All chance follows from it.
    pub seed: u64,
    /// How many events of queues are kept; the later ones are counted only.
    pub log_events_max: usize,
}

/// Options that no switch can have.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// Too few or too many ports.
    Hosts {
        /// As asked.
        count: usize,
    },
    /// A link that never sends.
    NoRate {
        /// Whose.
        port: usize,
    },
    /// A ratio outside 0 to 1.
    Ratio {
        /// Whose.
        port: usize,
        /// `loss_ratio` or `late_ratio`.
        option: &'static str,
        /// As asked.
        ratio: f64,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Hosts { count } => write!(f, "a switch with {count} hosts: it can have 2 to {HOSTS_COUNT_MAX}"),
            Refused::NoRate { port } => write!(
                f,
                "the link of port {port} has a rate of 0 bit/s, so nothing would ever leave it: give it one"
            ),
            Refused::Ratio { port, option, ratio } => write!(
                f,
                "{option} of port {port} is {ratio}: it is a share of all frames, from 0 (none) to 1 (all)"
            ),
        }
    }
}

impl error::Error for Refused {}

impl SwitchOptions {
    /// All ports alike.
    pub fn new(hosts_count: usize, link: HostLink, seed: u64) -> SwitchOptions {
        SwitchOptions {
            links: vec![link; hosts_count],
            sharing: Sharing::Static,
            overhead_bytes: dataplane_queue::ETHERNET_OVERHEAD_BYTES,
            seed,
            log_events_max: 0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Refused> {
        let count = self.links.len();
        if !(2..=HOSTS_COUNT_MAX).contains(&count) {
            return Err(Refused::Hosts { count });
        }
        for (port, link) in self.links.iter().enumerate() {
            if link.bits_per_sec == 0 {
                return Err(Refused::NoRate { port });
            }
            let Faults {
                loss_ratio, late_ratio, ..
            } = link.faults;
            for (option, ratio) in [("loss_ratio", loss_ratio), ("late_ratio", late_ratio)] {
                if !(0.0..=1.0).contains(&ratio) {
                    return Err(Refused::Ratio { port, option, ratio });
                }
            }
        }
        Ok(())
    }
}
