//! What an emulated switch did between two moments.

use std::{collections::BTreeMap, time::Duration};

use dataplane_softswitch::{Account, PortAccount};

use super::Shape;
use crate::{
    measure::{Recorder, gates::Observation},
    record::QuantileValue,
    soft_switch::Lateness,
};

/// Fewer frames than that a host may send at its ease.
const BUSY_FRAMES_MIN: u64 = 200;

/// Facts of a record that one kind of switch measures and the other does not.
pub(super) const QUEUE_BYTES_MAX: &str = "switch_queue_bytes_max";
pub(super) const LATENESS: &str = "switch_lateness";
const LATENESS_TO_RECEIVER: &str = "switch_lateness_to_receiver";
const LATENESS_TO_SENDERS: &str = "switch_lateness_to_senders";

/// Between two moments, all of a switch.
#[derive(Debug)]
pub struct Lap {
    /// How long.
    pub elapsed: Duration,
    /// The port to the receiver: the bottleneck.
    pub to_receiver: PortCounts,
    /// The ports to senders, in their order: requests and acknowledgements.
    pub to_senders: Vec<PortCounts>,
    /// How late frames were handed over; `None` where the kernel does it and does not say.
    pub lateness: Option<Lateness>,
    /// For a record, in the place of what nobody measured: what is known of it, and why it is no more.
    pub notes: BTreeMap<String, String>,
    /// Whether the switch did what the network promises: for [`crate::measure::gates::judge`], beside those of the run itself
    /// ([`crate::measure::Watch`]) and, where it is about bursts, [`Lap::burst_observations`].
    pub observations: Vec<Observation>,
}

/// A port between two moments. Counts are frames.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortCounts {
    /// From the host behind it.
    pub received_count: u64,
    /// To that host.
    pub sent_count: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Marked with CE on their way to it. Each of them was sent, or lost on the cable, or is still under way.
    pub marked_count: u64,
    /// Trimmed on their way to it.
    pub trimmed_count: u64,
    /// Lost on their way to it, at the queue.
    pub dropped_count: u64,
    /// Lost on the cable to it, by chance.
    pub lost_count: u64,
    /// The longest that the queue to it was, in bytes; `None` where the kernel does not say.
    pub queue_bytes_max: Option<u64>,
    /// How fast the host sent at its fastest, over its line's rate ([`PortAccount::sent_burst_ratio`]).
    pub sent_burst_ratio: Option<f64>,
    /// How fast frames came for the host at their fastest, over its line's rate ([`PortAccount::overrun_ratio`]).
    pub overrun_ratio: Option<f64>,
}

impl PortCounts {
    /// From two accounts of one port.
    pub(super) fn between(before: &PortAccount, after: &PortAccount) -> PortCounts {
        let lost_count = after.drops.lost_count - before.drops.lost_count;
        let dropped = |account: &PortAccount| {
            let drops = &account.drops;
            drops.queue_full_count
                + drops.buffer_full_count
                + drops.early_count
                + drops.delay_count
                + drops.header_queue_full_count
                + drops.headroom_full_count
        };
        PortCounts {
            received_count: after.received_count - before.received_count,
            sent_count: after.sent_count - before.sent_count,
            sent_bytes: after.sent_bytes - before.sent_bytes,
            marked_count: after.marked_count - before.marked_count,
            trimmed_count: after.trimmed_count - before.trimmed_count,
            dropped_count: dropped(after) - dropped(before),
            lost_count,
            queue_bytes_max: Some(after.queue_bytes_max),
            sent_burst_ratio: Some(after.sent_burst_ratio),
            overrun_ratio: Some(after.overrun_ratio),
        }
    }
}

impl Lap {
    /// From two accounts of a switch in user space, whose last port is the receiver's.
    pub(super) fn between(
        shape: &Shape,
        (before, after): (&Account, &Account),
        elapsed: Duration,
        lateness: Lateness,
    ) -> Lap {
        let ports = before.ports.iter().zip(&after.ports);
        let ports = ports.map(|(before, after)| PortCounts::between(before, after));
        let mut lap = Lap::of(ports.collect(), elapsed);
        lap.lateness = Some(lateness);
        lap.observations.push(Observation::Unexplained {
            frames_count: after.unexplained_count(),
        });
        let packet_ns = shape.built_packet_ns();
        if let Some(late_p99_ns) = lap.late_p99_ns_at_least(|lateness| &lateness.last_port_ns) {
            lap.observations.push(Observation::Released { late_p99_ns, packet_ns });
        }
        if let Some(late_p99_ns) = lap.late_p99_ns_at_least(|lateness| &lateness.other_ports_ns) {
            lap.observations
                .push(Observation::ReleasedToSenders { late_p99_ns, packet_ns });
        }
        lap
    }

    /// From the counts of all ports, the receiver's last.
    pub(super) fn of(mut ports: Vec<PortCounts>, elapsed: Duration) -> Lap {
        let to_receiver = ports.pop().unwrap_or_default();
        Lap {
            elapsed,
            to_receiver,
            to_senders: ports,
            lateness: None,
            notes: BTreeMap::new(),
            observations: Vec::new(),
        }
    }

    /// What has to be seen besides where senders are to burst all at once, as in an incast: that each of them is faster than its own
    /// line, and all together than the bottleneck. Flows in a steady state need do neither.
    pub fn burst_observations(&self, shape: &Shape) -> Vec<Observation> {
        let mut observations = Vec::new();
        // Who sent little says nothing of how fast it can.
        let senders = self.to_senders.iter().enumerate();
        let busy: Vec<(usize, f64)> = senders
            .filter(|(_, port)| port.received_count >= BUSY_FRAMES_MIN)
            .filter_map(|(sender, port)| Some((sender, port.sent_burst_ratio?)))
            .collect();
        let slowest = busy.iter().copied().min_by(|(_, a), (_, b)| a.total_cmp(b));
        if let Some((sender, ratio)) = slowest {
            observations.push(Observation::SenderBurst { sender, ratio });
        }
        if let Some(seen_ratio) = self.to_receiver.overrun_ratio
            && !busy.is_empty()
        {
            observations.push(Observation::Overrun {
                seen_ratio,
                promised_ratio: shape.overrun_ratio(busy.len()),
            });
        }
        observations
    }

    /// Lateness of hand-over at that quantile, in nanoseconds.
    pub fn late_ns(&self, q: f64) -> Option<u64> {
        match self.lateness.as_ref()?.release_ns.quantile_of_sample(q) {
            QuantileValue::Ns(ns) => Some(ns),
            QuantileValue::Lost | QuantileValue::Unsupported => None,
        }
    }

    /// What p99 of the lateness is at least, with 97.5 % confidence, in nanoseconds. A flow that loses much sends a hundred frames in a trial, and
    /// of a hundred the p99 is the latest one, whatever the others are; of many frames this is the p99.
    fn late_p99_ns_at_least(&self, of: fn(&Lateness) -> &Recorder) -> Option<u64> {
        match of(self.lateness.as_ref()?).quantile_record(0.99).low {
            QuantileValue::Ns(ns) => Some(ns),
            QuantileValue::Lost | QuantileValue::Unsupported => None,
        }
    }

    /// For a record: what happened at the bottleneck.
    pub fn facts(&self) -> BTreeMap<String, String> {
        let port = &self.to_receiver;
        let mut facts = BTreeMap::from([
            ("switch_marked".to_owned(), port.marked_count.to_string()),
            ("switch_dropped".to_owned(), port.dropped_count.to_string()),
            ("switch_lost_by_chance".to_owned(), port.lost_count.to_string()),
            ("switch_sent".to_owned(), port.sent_count.to_string()),
        ]);
        if let Some(bytes) = port.queue_bytes_max {
            facts.insert(QUEUE_BYTES_MAX.to_owned(), bytes.to_string());
        }
        if let Some(ratio) = port.overrun_ratio {
            facts.insert("switch_overrun_ratio".to_owned(), format!("{ratio:.2}"));
        }
        if let Some(lateness) = &self.lateness {
            for (name, recorder) in [
                (LATENESS, &lateness.release_ns),
                (LATENESS_TO_RECEIVER, &lateness.last_port_ns),
                (LATENESS_TO_SENDERS, &lateness.other_ports_ns),
            ] {
                let ns = |q| quantile(recorder, q);
                let text = format!("p50 {}, p99 {}, p99.9 {}", ns(0.5), ns(0.99), ns(0.999));
                facts.insert(name.to_owned(), text);
            }
        }
        facts.extend(self.notes.clone());
        facts
    }
}

fn quantile(recorder: &Recorder, q: f64) -> String {
    match recorder.quantile_of_sample(q) {
        QuantileValue::Ns(ns) => format!("{:.1} µs", ns as f64 / 1e3),
        QuantileValue::Lost | QuantileValue::Unsupported => "n/a".to_owned(),
    }
}
