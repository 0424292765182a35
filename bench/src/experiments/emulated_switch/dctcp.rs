//! DCTCP in its steady state over the switch: every mark is seen, nothing is dropped, and what waits is what the threshold says.
//! M. Alizadeh et al., Data Center TCP (DCTCP), SIGCOMM 2010, section 3: senders hold the queue at about K packets.

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::Context;
use dataplane_netns::Host;
use dataplane_queue::{ETHERNET_OVERHEAD_BYTES, Limit};

use super::{Arm, on_thread};
use crate::{
    experiment::Lab,
    measure::{
        QUANTILES, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Row},
    switch::{Dilation, Fabric, Kind, Lap, Shape, queue_log},
    traffic::{Ablation, Controller, Counters, Done, Ecn, Flows, Pattern},
};

/// The paper's: 1 Gbit/s, a threshold of 20 packets; the port holds five times as many.
const LINK_BITS_PER_SEC: u64 = 1_000_000_000;
const THRESHOLD_FRAMES: u32 = 20;
const PORT_FRAMES: u32 = 100;
const SENDERS_COUNT: usize = 3;
/// Slow start ends with a full queue, which is no steady state; a controller needs some tens of round trips to forget it.
const WARM_UP: Duration = Duration::from_millis(400);
const SAMPLE_EVERY: Duration = Duration::from_millis(5);
/// Connections are closed, and nothing is under way any more.
const DRAIN: Duration = Duration::from_millis(300);
/// How many times slower the network may be built, the fastest first.
const DILATIONS: [u32; 5] = [1, 2, 5, 10, 20];
/// A full frame's time may be missed by half of it (the gate of every switch); chosen is what leaves room to that.
const LATE_SHARE_MAX: f64 = 0.4;
/// And what fills its link.
const FILLED_SHARE_MIN: f64 = 0.85;
const TRY: Duration = Duration::from_millis(400);

pub(super) const MARKED: &str = "marked";
pub(super) const CE_SEEN: &str = "ce_seen";
pub(super) const STEADY_DROPS: &str = "drops_in_steady_state";
pub(super) const RTT_RATIO: &str = "loaded_rtt_over_expected";

/// What the rows of this check share.
#[derive(Debug)]
pub(super) struct Ground {
    controller: Controller,
    dilation: Dilation,
    /// What was tried before it was chosen.
    why: String,
}

/// What one load showed.
struct Steady {
    /// Of the steady state.
    lap: Lap,
    done: Done,
    /// From the first frame to the last.
    marked_count: u64,
    ce_count: u64,
    /// Of an empty network.
    base_rtt: Duration,
    observed: Vec<Observation>,
    facts: BTreeMap<String, String>,
}

fn shape(lab: &Lab<'_>, dilation: Dilation) -> Shape {
    let marks_above = Some(Limit::Packets(THRESHOLD_FRAMES));
    Shape {
        dilation,
        seed: lab.choice.seed,
        log_events_max: lab.choice.queue_log_events_max,
        ..Shape::new(LINK_BITS_PER_SEC, Limit::Packets(PORT_FRAMES), marks_above)
    }
}

/// A controller, and the fastest network that this machine keeps up with: each is tried with the load itself.
///
/// # Errors
/// There is no DCTCP here, or the network could not be built.
pub(super) fn prepare(lab: &Lab<'_>) -> anyhow::Result<Ground> {
    let controller = Controller::open("dctcp")?;
    let mut tried = Vec::new();
    for factor in DILATIONS {
        let dilation = Dilation::new(factor)?;
        let shape = shape(lab, dilation);
        let fabric = Fabric::build(Kind::Soft, SENDERS_COUNT, &shape)?;
        let steady = on_thread(|| load(lab, &fabric, &controller, TRY))?;
        fabric.stop()?;
        let late = steady.lap.late_ns(0.99).unwrap_or(u64::MAX) as f64 / shape.built_packet_ns() as f64;
        let filled = filled_share(&steady.lap, &shape);
        tried.push(format!(
            "{factor}: p99 of lateness {late:.2} of a full frame's time, the link filled to {:.0} %",
            filled * 100.0
        ));
        let is_last = factor == DILATIONS[DILATIONS.len() - 1];
        if (late <= LATE_SHARE_MAX && filled >= FILLED_SHARE_MIN) || is_last {
            let why = tried.join("; ");
            return Ok(Ground {
                controller,
                dilation,
                why,
            });
        }
    }
    unreachable!("the last is taken")
}

/// Bits on the wire over what it carries.
fn filled_share(lap: &Lap, shape: &Shape) -> f64 {
    let port = &lap.to_receiver;
    let wire_bytes = port.sent_bytes + port.sent_count * u64::from(ETHERNET_OVERHEAD_BYTES);
    wire_bytes as f64 * 8.0 / lap.elapsed.as_secs_f64() / shape.built_bits_per_sec() as f64
}

/// Long flows from all senders: warm, measured, drained. On a thread of its own, which is pinned.
fn load(lab: &Lab<'_>, fabric: &Fabric, controller: &Controller, duration: Duration) -> anyhow::Result<Steady> {
    let _ = fabric.pin_sender(0);
    let client = fabric.receiver();
    let senders: Vec<&Host> = fabric.senders().iter().collect();
    let ablation = Ablation {
        delayed_acks: false,
        ecn: Ecn::On,
        ..Ablation::default()
    };
    let mut facts = BTreeMap::from([("client".to_owned(), ablation.apply(client)?.to_string())]);
    for host in &senders {
        facts.insert("servers".to_owned(), ablation.apply(host)?.to_string());
    }
    let mut flows = Flows::open(client, &senders, controller.name(), None)?;
    let base_rtt = flows.begun().iter().map(|info| info.rtt).min().unwrap_or_default();
    let pattern = |time_max, sample_every| Pattern {
        long_count: SENDERS_COUNT,
        stagger: Duration::ZERO,
        questions: None,
        time_max,
        sample_every,
        spins: fabric.switch_has_cpu(),
    };
    let before = Counters::read(client)?;
    fabric.lap()?;
    pattern(WARM_UP, None).run(&mut flows, lab.stop)?;
    let warm = fabric.lap()?;
    let watch = Watch::begin();
    let done = pattern(duration, Some(SAMPLE_EVERY)).run(&mut flows, lab.stop)?;
    let lap = fabric.lap()?;
    let mut observed = watch.end();
    observed.extend(lap.observations.iter().cloned());
    drop(flows);
    thread::sleep(DRAIN);
    let rest = fabric.lap()?;
    let ce = Counters::read(client)?.since(&before).get("ce_packets_in");
    let marked = |lap: &Lap| lap.to_receiver.marked_count;
    Ok(Steady {
        marked_count: marked(&warm) + marked(&lap) + marked(&rest),
        ce_count: ce.context("this kernel does not count marked packets (InCEPkts)")?,
        lap,
        done,
        base_rtt,
        observed,
        facts,
    })
}

/// One row.
///
/// # Errors
/// The network could not be built, or a connection broke.
pub(super) fn measure(
    lab: &Lab<'_>,
    ground: &Ground,
    arm: &Arm,
    round: u32,
    duration: Duration,
) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let shape = shape(lab, ground.dilation);
    let fabric = Fabric::build(Kind::Soft, SENDERS_COUNT, &shape)?;
    let steady = on_thread(|| load(lab, &fabric, &ground.controller, duration))?;
    let mut facts = fabric.facts();
    let ended = fabric.stop()?;
    let mut observed = steady.observed;
    // Of the whole account, and not only of the lap.
    observed.extend(
        ended
            .lap
            .observations
            .iter()
            .filter(|seen| matches!(seen, Observation::Unexplained { .. }))
            .cloned(),
    );

    let ns = |duration: Duration| duration.as_nanos() as f64;
    let mut rtts: Vec<f64> = steady.done.samples.iter().map(|sample| ns(sample.info.rtt)).collect();
    rtts.sort_by(f64::total_cmp);
    let loaded_ns = rtts.get(rtts.len() / 2).copied();
    let threshold_ns = f64::from(THRESHOLD_FRAMES) * shape.built_packet_ns() as f64;
    let expected_ns = threshold_ns + ns(steady.base_rtt);

    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put(MARKED, steady.marked_count as f64, "count", Better::Neither);
    put(CE_SEEN, steady.ce_count as f64, "count", Better::Neither);
    let port = &steady.lap.to_receiver;
    put(STEADY_DROPS, port.dropped_count as f64, "count", Better::Lower);
    put(
        "link_filled",
        filled_share(&steady.lap, &shape),
        "ratio",
        Better::Higher,
    );
    put("expected_rtt", expected_ns, "ns", Better::Neither);
    if let Some(loaded_ns) = loaded_ns {
        put("loaded_rtt", loaded_ns, "ns", Better::Lower);
        put(RTT_RATIO, loaded_ns / expected_ns, "ratio", Better::Neither);
    }
    if let Some(bytes) = port.queue_bytes_max {
        put("queue_bytes_max", bytes as f64, "bytes", Better::Neither);
    }
    if let Some(unexplained) = ended.unexplained_count {
        put(super::UNEXPLAINED, unexplained as f64, "count", Better::Lower);
    }
    put(super::DELIVERED, port.sent_count as f64, "count", Better::Neither);

    facts.extend(steady.facts);
    facts.extend(steady.lap.facts());
    facts.insert("switch_thread".to_owned(), ended.settings.join("; "));
    facts.insert("dilations_tried".to_owned(), ground.why.clone());
    facts.insert(
        "controller".to_owned(),
        format!("dctcp, {}", ground.controller.origin()),
    );
    facts.insert(
        "base_rtt".to_owned(),
        format!("{:.1} µs, the least of the handshakes", ns(steady.base_rtt) / 1e3),
    );
    if lab.choice.queue_log_events_max > 0 {
        let stem = format!("emulated-switch.{}.{}", arm.check, (at_s * 1e3) as u64);
        let about = format!(
            "emulated-switch, check={}, round {round}, seed {}",
            arm.check, lab.choice.seed
        );
        let fact = queue_log::write(lab.folder.path(), &ended.log, &stem, &about)?;
        facts.insert(queue_log::FACT.to_owned(), fact);
    }
    let lateness = steady.lap.lateness.as_ref().map(|lateness| &lateness.release_ns);
    Ok(Row {
        experiment: "emulated-switch".to_owned(),
        backend: super::SOFT.to_owned(),
        mode: ModeRecord::Emulated {
            by: Kind::Soft.by().to_owned(),
        },
        axis: arm.axis(),
        round,
        twin: false,
        seed: lab.choice.seed,
        at_s,
        elapsed_s: steady.done.elapsed.as_secs_f64(),
        latency: lateness.map(|lateness| lateness.distribution(&QUANTILES)),
        service: None,
        schedule_lag: None,
        metrics,
        series: Vec::new(),
        facts,
        validity: gates::judge(&observed, &Limits::default()),
    })
}
