//! A scenario's network as hosts around an emulated switch.

use std::{thread, time::Duration};

use anyhow::bail;
use dataplane_queue::SimTime;
use dataplane_softswitch::Faults;

use crate::{
    experiment::Lab,
    packet_sim::Point,
    scenario::file::TopologyKind,
    switch::{Dilation, Fabric, Shape, queue_log},
};

/// Senders around one switch: a star as it is; of a dumbbell, whose left hosts send to one on the right, its two switches as one. The
/// round trip of an empty network is the scenario's.
///
/// # Errors
/// Another topology, or senders that are not all equally far away.
pub fn shape(point: &Point<'_>, dilation: Dilation, seed: u64) -> anyhow::Result<Shape> {
    let file = point.topology_file();
    if !file.host_delays.is_empty() {
        bail!("hosts with delays of their own cannot be built: an emulated switch has cables of one length");
    }
    let (port, sharing) = point.port();
    let (receiver_bits_per_sec, delay) = match file.kind.get_ref() {
        TopologyKind::Star => (file.rate.bits_per_sec, file.delay.sim()),
        TopologyKind::Dumbbell => {
            let core = file.core_delay.unwrap_or(file.delay).sim();
            // Three cables on the way there, and two of the network that is built.
            let there = SimTime::from_ps(2 * file.delay.sim().as_ps() + core.as_ps());
            let rate = file.core_rate.unwrap_or(file.rate);
            (rate.bits_per_sec, SimTime::from_ps(there.as_ps() / 2))
        }
        other => bail!("{other:?} cannot be built: an emulated switch is one, with hosts around it"),
    };
    Ok(Shape {
        sender_bits_per_sec: file.rate.bits_per_sec,
        receiver_bits_per_sec,
        delay,
        port,
        sharing,
        faults: Faults {
            loss_ratio: point.loss_ratio(),
            ..Faults::default()
        },
        seed,
        dilation,
        log_events_max: 0,
    })
}

/// What both ends may buffer, so that it never binds: least, first, most (tcp_rmem, tcp_wmem). The first is as large as any window gets: a
/// receiver widens a smaller one by what it can hand over in order (`tcp_rcv_space_adjust`), which under a fifth of loss is hardly anything,
/// so that 64 KB stay the bound of a flow that its controller would let fill 100 Mbit/s.
const BUFFER_BYTES: &str = "4096 33554432 67108864";
/// What waits in a sender's kernel unsent (tcp_notsent_lowat): the programs here have more at once than any buffer holds.
const UNSENT_BYTES: &str = "1048576";

/// Connections take two round trips to close, and no network here has longer ones than a fifth of a second.
const DRAIN: Duration = Duration::from_millis(400);

/// Gives all hosts of `fabric` buffers that no window outgrows.
///
/// # Errors
/// The kernel refused.
pub fn widen_buffers(fabric: &Fabric) -> anyhow::Result<()> {
    for host in fabric.senders().iter().chain([fabric.receiver()]) {
        for path in ["net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem"] {
            host.set_setting(path, BUFFER_BYTES)?;
        }
        host.set_setting("net/ipv4/tcp_notsent_lowat", UNSENT_BYTES)?;
    }
    Ok(())
}

/// What happened at the switch's queues since it began, as a file of the run's folder; what a row says of it. A new switch stands there
/// afterwards, whose log begins with the next connections. Nothing if nobody asked for logs.
///
/// # Errors
/// The switch stopped before, or the file could not be written.
pub fn log_queues(lab: &Lab<'_>, fabric: &mut Fabric, stem: &str, about: &str) -> anyhow::Result<Option<String>> {
    if fabric.shape().log_events_max == 0 {
        return Ok(None);
    }
    // The connections have just been closed: what they say last is not to be lost with the old switch, and said again over the new one.
    thread::sleep(DRAIN);
    let shape = *fabric.shape();
    let ended = fabric.reshape(&shape)?;
    queue_log::write(lab.folder.path(), &ended.log, stem, about).map(Some)
}

#[cfg(test)]
mod tests {
    use dataplane_queue::{Discipline, DropTailOptions, Limit, Marking};

    use super::*;
    use crate::scenario::file::ScenarioFile;

    #[test]
    fn a_star_and_a_dumbbell_become_hosts_around_one_switch() {
        let text = include_str!("../../../scenarios/real-incast.toml");
        let star = ScenarioFile::parse("star.toml", text).expect("a good file");
        let point = Point::of(&star, "cubic-tlp-200ms", Some(4.0)).expect("it has that arm");
        let built = shape(&point, Dilation::NONE, 1).expect("a star can be built");
        assert_eq!(
            (built.receiver_bits_per_sec, built.delay),
            (100_000_000, SimTime::from_us(25))
        );
        let options = DropTailOptions {
            limit: Limit::Bytes(32_000),
            marking: Marking::AtEnqueue(Limit::Packets(7)),
        };
        assert_eq!(built.port, Discipline::DropTail(options));
        let text = include_str!("../../../scenarios/bbr-loss-wall.toml");
        let dumbbell = ScenarioFile::parse("dumbbell.toml", text).expect("a good file");
        let point = Point::of(&dumbbell, "cubic", Some(0.01)).expect("it has that arm");
        let built = shape(&point, Dilation::NONE, 1).expect("so can a dumbbell");
        // 100 ms there and back, over two cables each way.
        assert_eq!(
            (built.receiver_bits_per_sec, built.delay),
            (100_000_000, SimTime::from_ms(25))
        );
        assert_eq!(
            (built.sender_bits_per_sec, built.faults.loss_ratio),
            (1_000_000_000, 0.01)
        );
    }

    #[test]
    fn what_cannot_be_built_says_so() {
        let text = include_str!("../../../scenarios/cc-rtt-unfairness.toml");
        let far = ScenarioFile::parse("far.toml", text).expect("a good file");
        let point = Point::of(&far, "cubic", Some(20_000.0)).expect("it has that arm");
        let error = shape(&point, Dilation::NONE, 1).expect_err("cables differ");
        assert!(error.to_string().contains("delays of their own"), "{error}");
    }
}
