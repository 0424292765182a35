//! The switch that is the kernel's: a bridge, a token bucket with a queue on the way out of every interface, and on the port to the
//! receiver a program that marks what finds too much waiting. Nothing waits for a thread of ours, so it stands a machine that is
//! busy; what it has no part for, above all a propagation delay, it cannot do.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use dataplane_netns::{
    Line, LineCounts, Network, NetworkOptions, Privilege, QueueLimit, Shaper, Topology, can_shape, prepare,
};
use dataplane_queue::{Discipline, DropTailOptions, ETHERNET_OVERHEAD_BYTES, Limit, Marking, Sharing, SimTime};
use dataplane_softswitch::Faults;
use dataplane_waist::Support;
use ebpf_host::{EcnMarker, MarkCounts, MarkOptions, probe_mark};

use super::{
    PortCounts, Shape,
    lap::{LATENESS, QUEUE_BYTES_MAX},
};
use crate::soft_switch::MTU_BYTES;

/// What hosts' own queues and the ports to senders hold: more than anything that is under way.
const ROOM: QueueLimit = QueueLimit::Bytes(64 << 20);
/// As the soft switch's ([`dataplane_softswitch::PortAccount::overrun_ratio`]).
const BURST_FRAMES: u64 = 32;

/// The kernel's switch around a network's hosts.
#[derive(Debug)]
pub(super) struct KernelSwitch {
    /// Ports, by the host behind each.
    ports: Vec<Shaper>,
    /// The hosts' own lines.
    hosts: Vec<Shaper>,
    marker: EcnMarker,
    /// What the bottleneck carries in a window of bursts.
    window_bytes: f64,
    bits_per_sec: Vec<u64>,
    /// The port to the receiver.
    port: DropTailOptions,
}

/// All that it counted since it began.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    ports: Vec<LineCounts>,
    hosts: Vec<LineCounts>,
    marks: MarkCounts,
}

/// Whether this machine has what it takes for that shape.
pub(super) fn can_be(shape: &Shape) -> Result<(), String> {
    drop_tail(shape).map_err(|error| error.to_string())?;
    if let Privilege::None { why } = prepare() {
        return Err(why);
    }
    can_shape()?;
    match probe_mark() {
        Ok(Support::Absent { why }) => Err(why),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Hosts on a bridge.
pub(super) fn hosts(hosts_count: usize) -> anyhow::Result<Network> {
    let options = NetworkOptions {
        mtu_bytes: MTU_BYTES,
        ..NetworkOptions::new(Topology::Star { hosts: hosts_count })
    };
    Network::build(&options).context("making hosts on a bridge as network namespaces")
}

/// The port's queue, if the kernel can be this shape.
fn drop_tail(shape: &Shape) -> anyhow::Result<DropTailOptions> {
    if shape.delay > SimTime::ZERO {
        bail!(
            "a token bucket delays nothing, and cables of {} ns were asked for: only the soft switch has them",
            shape.delay.as_ns()
        );
    }
    if shape.sharing != Sharing::Static {
        bail!("the kernel's queues share no memory: only the soft switch has shared buffers");
    }
    if shape.faults != Faults::default() {
        bail!("this switch loses and reorders nothing by chance: only the soft switch does");
    }
    if shape.log_events_max > 0 {
        bail!("the kernel keeps no log of its queues: only the soft switch does");
    }
    match shape.port {
        Discipline::DropTail(
            options @ DropTailOptions {
                marking: Marking::Never | Marking::AtEnqueue(_),
                ..
            },
        ) => Ok(options),
        other => bail!(
            "a port of {other:?}: this switch has drop-tail ports that mark at the queue's entrance; the soft switch has others"
        ),
    }
}

fn queue_limit(limit: Limit) -> QueueLimit {
    match limit {
        Limit::Packets(frames) => QueueLimit::Frames(frames),
        Limit::Bytes(bytes) => QueueLimit::Bytes(u32::try_from(bytes).unwrap_or(u32::MAX)),
    }
}

fn mark_options(shape: &Shape, options: &DropTailOptions) -> MarkOptions {
    let mut marks = MarkOptions {
        window_ns: BURST_FRAMES * shape.built_packet_ns(),
        ..MarkOptions::default()
    };
    match options.limit {
        Limit::Packets(frames) => marks.limit_frames = u64::from(frames),
        Limit::Bytes(bytes) => marks.limit_bytes = bytes,
    }
    match options.marking {
        Marking::AtEnqueue(Limit::Packets(frames)) => marks.above_frames = u64::from(frames),
        Marking::AtEnqueue(Limit::Bytes(bytes)) => marks.above_bytes = bytes,
        Marking::Never | Marking::AtDequeue(_) => {}
    }
    marks
}

impl KernelSwitch {
    /// Gives the hosts of `network` and their ports the lines of that shape; the receiver is the last host.
    pub fn start(network: &Network, shape: &Shape) -> anyhow::Result<KernelSwitch> {
        let options = drop_tail(shape)?;
        let switch = network.switch().context("only a star has a switch")?;
        let receiver = network.hosts().len() - 1;
        let bits_per_sec = |host| {
            shape.dilation.built_rate(match host == receiver {
                true => shape.receiver_bits_per_sec,
                false => shape.sender_bits_per_sec,
            })
        };
        let shaped = |interface: &str, bits_per_sec, limit| -> anyhow::Result<Shaper> {
            let shaper = Shaper::open(interface)?;
            shaper.set(&Line { bits_per_sec, limit })?;
            Ok(shaper)
        };
        let (ports, marker) = switch.run(|| -> anyhow::Result<_> {
            let mut ports = Vec::new();
            for (host, port) in switch.ports().iter().enumerate() {
                let limit = if host == receiver {
                    queue_limit(options.limit)
                } else {
                    ROOM
                };
                ports.push(shaped(port, bits_per_sec(host), limit)?);
            }
            let mut marker = EcnMarker::load(&mark_options(shape, &options))?;
            marker.attach(&switch.ports()[receiver])?;
            Ok((ports, marker))
        })??;
        let mut hosts = Vec::new();
        for (index, host) in network.hosts().iter().enumerate() {
            hosts.push(host.run(|| shaped(&host.interface().name, bits_per_sec(index), ROOM))??);
        }
        Ok(KernelSwitch {
            ports,
            hosts,
            marker,
            window_bytes: BURST_FRAMES as f64 * (1514.0 + f64::from(ETHERNET_OVERHEAD_BYTES)),
            bits_per_sec: (0..=receiver).map(bits_per_sec).collect(),
            port: options,
        })
    }

    /// What it counted until now; the fastest burst counts from now on.
    pub fn counts(&mut self) -> anyhow::Result<Counts> {
        let all = |shapers: &[Shaper]| -> anyhow::Result<Vec<LineCounts>> {
            shapers.iter().map(|shaper| Ok(shaper.counts()?)).collect()
        };
        let counts = Counts {
            ports: all(&self.ports)?,
            hosts: all(&self.hosts)?,
            marks: self.marker.counts()?,
        };
        self.marker.forget_burst()?;
        Ok(counts)
    }

    /// What a record says in the place of the longest queue and of lateness.
    pub fn notes(&self, before: &Counts, after: &Counts) -> BTreeMap<String, String> {
        let marks = MarkCounts {
            marked_count: after.marks.marked_count - before.marks.marked_count,
            not_capable_count: after.marks.not_capable_count - before.marks.not_capable_count,
            ..MarkCounts::default()
        };
        let last = self.ports.len() - 1;
        let dropped_count = since(&before.ports[last], &after.ports[last]).dropped_count;
        let queue = longest_queue(&self.port, u64::from(dropped_count), &marks);
        let late = "not measured: the kernel's timer lets a frame go (sch_tbf), and nobody is told when";
        BTreeMap::from([
            (QUEUE_BYTES_MAX.to_owned(), queue),
            (LATENESS.to_owned(), late.to_owned()),
        ])
    }

    /// Port by port, the receiver's last.
    pub fn between(&self, before: &Counts, after: &Counts, elapsed_s: f64) -> Vec<PortCounts> {
        let last = self.ports.len() - 1;
        (0..=last)
            .map(|port| {
                let (sent, from_host) = (
                    since(&before.ports[port], &after.ports[port]),
                    since(&before.hosts[port], &after.hosts[port]),
                );
                let carried_bits = 8.0 * (from_host.sent_bytes + 24 * u64::from(from_host.sent_count)) as f64;
                // A line that had to let something wait was filled; of another it is known what passed on average.
                let sent_burst_ratio = match from_host.over_limit_count {
                    0 => carried_bits / elapsed_s / self.bits_per_sec[port] as f64,
                    _ => 1.0,
                };
                let mut counts = PortCounts {
                    received_count: u64::from(from_host.sent_count),
                    sent_count: u64::from(sent.sent_count),
                    sent_bytes: sent.sent_bytes,
                    dropped_count: u64::from(sent.dropped_count),
                    sent_burst_ratio: Some(sent_burst_ratio),
                    ..PortCounts::default()
                };
                if port == last {
                    counts.marked_count = after.marks.marked_count - before.marks.marked_count;
                    counts.overrun_ratio = Some(after.marks.burst_bytes_max as f64 / self.window_bytes);
                }
                counts
            })
            .collect()
    }
}

/// What is known of the longest queue: the kernel keeps no maximum, but a frame that found no room, or more than the threshold, says
/// how much waited then.
fn longest_queue(port: &DropTailOptions, dropped_count: u64, marks: &MarkCounts) -> String {
    const WHY: &str = "not measured more closely: the kernel keeps no maximum of a queue";
    let threshold = match port.marking {
        Marking::AtEnqueue(threshold) => Some(limit_text(threshold)),
        Marking::Never | Marking::AtDequeue(_) => None,
    };
    let limit = limit_text(port.limit);
    match threshold {
        _ if dropped_count > 0 => format!("full: {limit}"),
        Some(threshold) if marks.marked_count + marks.not_capable_count > 0 => {
            format!("more than {threshold}, less than {limit}; {WHY}")
        }
        Some(threshold) => format!("{threshold} at the most; {WHY}"),
        None => format!("less than {limit}; {WHY}"),
    }
}

fn limit_text(limit: Limit) -> String {
    match limit {
        Limit::Packets(frames) => format!("{frames} frames"),
        Limit::Bytes(bytes) => format!("{bytes} bytes"),
    }
}

/// Counters of frames wrap.
fn since(before: &LineCounts, after: &LineCounts) -> LineCounts {
    LineCounts {
        sent_count: after.sent_count.wrapping_sub(before.sent_count),
        sent_bytes: after.sent_bytes.saturating_sub(before.sent_bytes),
        dropped_count: after.dropped_count.wrapping_sub(before.dropped_count),
        over_limit_count: after.over_limit_count.wrapping_sub(before.over_limit_count),
        waiting_count: after.waiting_count,
    }
}

#[cfg(test)]
mod tests {
    use dataplane_queue::TrimmingOptions;

    use super::*;

    #[test]
    fn what_the_kernel_has_no_part_for_is_refused_by_name() {
        let shape = Shape::new(100_000_000, Limit::Packets(100), Some(Limit::Packets(20)));
        assert!(drop_tail(&shape).is_ok());
        let faulty = Faults {
            loss_ratio: 0.1,
            ..Faults::default()
        };
        let shared = Sharing::Dynamic {
            memory_bytes: 4 << 20,
            alpha: 1.0,
        };
        let trimming = Discipline::Trimming(TrimmingOptions {
            data: Limit::Packets(8),
            headers: Limit::Packets(8),
            headers_per_data: 10,
        });
        for (shape, part) in [
            (
                Shape {
                    delay: SimTime::from_us(1),
                    ..shape
                },
                "1000 ns",
            ),
            (
                Shape {
                    sharing: shared,
                    ..shape
                },
                "share no memory",
            ),
            (
                Shape {
                    faults: faulty,
                    ..shape
                },
                "by chance",
            ),
            (
                Shape {
                    log_events_max: 1,
                    ..shape
                },
                "no log",
            ),
            (
                Shape {
                    port: trimming,
                    ..shape
                },
                "Trimming",
            ),
        ] {
            let error = drop_tail(&shape).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("soft switch"), "{error}");
        }
    }

    #[test]
    fn a_marking_port_marks_what_it_will_not_drop() {
        let shape = Shape::new(100_000_000, Limit::Packets(100), Some(Limit::Packets(20)));
        let marks = mark_options(&shape, &drop_tail(&shape).unwrap());
        assert_eq!((marks.limit_frames, marks.above_frames), (100, 20));
        assert_eq!((marks.limit_bytes, marks.above_bytes), (u64::MAX, u64::MAX));
        assert_eq!(marks.window_ns, 32 * 123_040);
    }

    #[test]
    fn the_longest_queue_is_known_as_far_as_its_frames_tell() {
        let port = DropTailOptions {
            limit: Limit::Packets(100),
            marking: Marking::AtEnqueue(Limit::Packets(20)),
        };
        let quiet = MarkCounts::default();
        let marked = MarkCounts {
            marked_count: 1,
            ..quiet
        };
        assert_eq!(longest_queue(&port, 3, &marked), "full: 100 frames");
        assert!(
            longest_queue(&port, 0, &marked).starts_with("more than 20 frames, less than 100 frames; not measured")
        );
        assert!(longest_queue(&port, 0, &quiet).starts_with("20 frames at the most; not measured"));
        let plain = DropTailOptions {
            limit: Limit::Bytes(150_000),
            marking: Marking::Never,
        };
        assert!(longest_queue(&plain, 0, &quiet).starts_with("less than 150000 bytes; not measured"));
    }

    #[test]
    fn counters_that_wrapped_are_still_subtracted() {
        let before = LineCounts {
            sent_count: u32::MAX - 1,
            ..LineCounts::default()
        };
        let after = LineCounts {
            sent_count: 3,
            ..LineCounts::default()
        };
        assert_eq!(since(&before, &after).sent_count, 5);
    }
}
