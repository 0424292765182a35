//! `emulated-switch`: is the switch between network namespaces the switch that it claims to be? Its rate, its punctuality, what a
//! frame costs it, and whether it knows where every frame went.

mod circle;
mod claims;
mod dctcp;
mod flood;

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::Context;
use dataplane_netns::Network;
use dataplane_queue::{ETHERNET_OVERHEAD_BYTES, Limit, SimTime};
use dataplane_softswitch::{HostLink, SwitchOptions};

use crate::{
    claim::Claim,
    experiment::{Allowed, Axis, Choice, Depth, Experiment, Lab},
    load::thread::usable_cpus,
    measure::{
        QUANTILES, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Row},
    report::NETWORK,
    soft_switch::{self, PlainLoop, Report, SoftSwitch},
    switch::{Kind, queue_log, rate_text},
};

use circle::Circle;
use flood::{Flood, Pace, Seen};

/// See the module.
#[derive(Debug)]
pub struct EmulatedSwitch;

const CHECK: Axis = Axis {
    name: "check",
    meaning: "capacity: what a frame costs the switch's thread where links are no limit; floor: the same of a loop that only passes on, which \
              is what the kernel charges; rate: whether a full link carries what it promises; delay: how late a frame is handed over, of a \
              few that have the switch to themselves; dctcp: whether senders hold a queue where its marks say",
    full: &[CAPACITY, FLOOR, RATE, DELAY, DCTCP],
    tour: &[CAPACITY],
    smallest: CAPACITY,
    allowed: Allowed::Words,
};

const FRAME_BYTES: Axis = Axis {
    name: "frame_bytes",
    meaning: "bytes of a frame with its Ethernet header",
    full: &["64", "512", "1442"],
    tour: &["512"],
    smallest: "512",
    allowed: Allowed::Number(64.0, 1514.0),
};

const CAPACITY: &str = "capacity";
const FLOOR: &str = "floor";
const RATE: &str = "rate";
const DELAY: &str = "delay";
const DCTCP: &str = "dctcp";
/// What TCP sends; no other frames are asked of it.
const TCP_FRAME_BYTES: usize = 1514;

/// So fast that no frame ever waits for the wire.
const NO_LIMIT_BITS_PER_SEC: u64 = 400_000_000_000;
/// A link that a socket overruns with frames of any size, while another on the same CPU still reads all that arrive.
const LINK_BITS_PER_SEC: u64 = 20_000_000;
/// Frames sent for each that fits the link.
const OVERRUN: f64 = 1.3;
/// The cable of the delay check. Each frame goes over two of them.
const CABLE_DELAY: SimTime = SimTime::from_us(200);
/// Frames a second of the delay check: seldom two at a time.
const SPARSE_PER_SEC: u32 = 2_000;
/// What the sender's card holds under the rate check.
const CARD_FRAMES: u32 = 512;
/// What hosts say to each other that is no datagram (neighbour discovery), at most.
const CHATTER_FRAMES: u64 = 16;
/// What a port holds.
const PORT_LIMIT: Limit = Limit::Packets(256);
/// A thousand frames, also at the lowest rate.
const TRIAL_MIN: Duration = Duration::from_millis(500);
/// Of the rate check: the rounds without which nothing is judged make ten seconds together.
const RATE_TRIAL_MIN: Duration = Duration::from_millis(1_700);

/// Of a row: the switch itself, which no back end is.
pub(super) const SOFT: &str = "soft-switch";
/// And a loop between its ports that is no switch.
pub(super) const PLAIN: &str = "plain-loop";
pub(super) const CPU_PER_FRAME: &str = "cpu_per_frame";
pub(super) const FRAMES_PER_CPU_SECOND: &str = "frames_per_cpu_second";
pub(super) const BUSY_SHARE: &str = "busy_share";
pub(super) const RATE_RATIO: &str = "rate_ratio";
pub(super) const CARRIED_BYTES: &str = "carried_bytes";
pub(super) const CARRIED_TIME: &str = "carried_time";
pub(super) const UNEXPLAINED: &str = "unexplained";
pub(super) const DELIVERED: &str = "delivered";

/// What one row measures.
#[derive(Clone, Debug)]
struct Arm {
    check: String,
    frame_bytes: usize,
}

impl Experiment for EmulatedSwitch {
    fn id(&self) -> &'static str {
        "emulated-switch"
    }

    fn title(&self) -> &'static str {
        "The emulated switch"
    }

    fn question(&self) -> &'static str {
        "Does a switch in user space carry what it promises, hand frames over when it should, and know where each went?"
    }

    fn how(&self) -> &'static str {
        "Two network namespaces stand at a switch in user space: AF_XDP sockets on the ports of a namespace without a bridge, \
         one thread that never sleeps, and the packet simulator's queues. Where the switch is to be the limit, 256 frames go round \
         without end: the hosts' drivers send each back, on kernel threads of another CPU. What a frame costs is the time of the turns in \
         which the switch did something, over frames; turns that found nothing are not counted. Beside it stands what the same \
         sockets cost a loop that only passes frames on. Elsewhere one host sends UDP datagrams at a rate, and the other drops them in its \
         driver or stamps their arrival."
    }

    fn axes(&self) -> &'static [Axis] {
        &[CHECK, FRAME_BYTES]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        claims::CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn has_queue_log(&self) -> bool {
        true
    }

    fn own_network(&self) -> Option<&'static str> {
        Some("network namespaces of this machine at an emulated switch, made anew for each measurement")
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its hosts are network namespaces of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        if let Err(why) = soft_switch::can_be_here() {
            lab.say(&format!("emulated-switch is not measured: {why}"));
            return Ok(());
        }
        let mut arms = arms(lab);
        let wants_dctcp = arms.iter().any(|arm| arm.check == DCTCP);
        let dctcp = wants_dctcp.then(|| dctcp::prepare(lab)).transpose();
        let dctcp = dctcp.unwrap_or_else(|error| {
            lab.say(&format!("check=dctcp is not measured: {error:#}"));
            arms.retain(|arm| arm.check != DCTCP);
            None
        });
        let plan = lab.plan(arms.len(), TRIAL_MIN);
        lab.in_rounds(&arms, plan.rounds_count, |lab, turn| {
            let arm = turn.arm;
            lab.progress.set_message(format!(
                "{} with frames of {} bytes, round {}",
                arm.check,
                arm.frame_bytes,
                turn.round + 1
            ));
            let trial = match arm.check.as_str() {
                RATE if lab.choice.depth != Depth::Smallest => plan.trial.max(RATE_TRIAL_MIN),
                _ => plan.trial,
            };
            lab.record_until_valid(|lab| match &dctcp {
                Some(ground) if arm.check == DCTCP => dctcp::measure(lab, ground, arm, turn.round, trial),
                _ => measure(lab, arm, turn.round, trial),
            })
        })
    }
}

impl Arm {
    fn axis(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (CHECK.name.to_owned(), self.check.clone()),
            (FRAME_BYTES.name.to_owned(), self.frame_bytes.to_string()),
        ])
    }
}

fn arms(lab: &Lab<'_>) -> Vec<Arm> {
    let mut arms = Vec::new();
    for check in lab.values(&CHECK) {
        if check == DCTCP {
            let frame_bytes = TCP_FRAME_BYTES;
            arms.push(Arm { check, frame_bytes });
            continue;
        }
        for frame_bytes in lab.numbers(&FRAME_BYTES) {
            arms.push(Arm {
                check: check.clone(),
                frame_bytes: frame_bytes as usize,
            });
        }
    }
    arms
}

/// More frames a second than the link carries.
fn overrun_per_sec(frame_bytes: usize) -> u32 {
    let wire_bits = 8.0 * (frame_bytes as f64 + f64::from(ETHERNET_OVERHEAD_BYTES));
    (OVERRUN * LINK_BITS_PER_SEC as f64 / wire_bits) as u32
}

fn options(arm: &Arm, choice: &Choice) -> SwitchOptions {
    let link = match arm.check.as_str() {
        CAPACITY => HostLink::new(NO_LIMIT_BITS_PER_SEC, SimTime::ZERO, PORT_LIMIT),
        RATE => HostLink {
            // The sender must find room, so that its card never runs dry.
            card: Limit::Packets(CARD_FRAMES),
            ..HostLink::new(LINK_BITS_PER_SEC, SimTime::ZERO, PORT_LIMIT)
        },
        _ => HostLink::new(NO_LIMIT_BITS_PER_SEC, CABLE_DELAY, PORT_LIMIT),
    };
    SwitchOptions {
        log_events_max: choice.queue_log_events_max,
        ..SwitchOptions::new(2, link, choice.seed)
    }
}

/// In one sentence, for the report.
fn network(arm: &Arm) -> String {
    let by = Kind::Soft.by();
    match arm.check.as_str() {
        FLOOR => {
            format!("two hosts in network namespaces of this machine at two ports ({by}) with no switch between them")
        }
        check => {
            let rate = if check == RATE {
                LINK_BITS_PER_SEC
            } else {
                NO_LIMIT_BITS_PER_SEC
            };
            let rate = rate_text(rate);
            format!("two hosts in network namespaces of this machine at a soft switch ({by}), two ports of {rate}")
        }
    }
}

/// What the thread between the ports did, whichever it was.
struct Done {
    seen: Seen,
    frames_count: u64,
    busy: Duration,
    elapsed: Duration,
    waited: Option<Duration>,
    settings: Vec<String>,
    /// `None` of a loop that is no switch.
    report: Option<Report>,
}

fn measure(lab: &Lab<'_>, arm: &Arm, round: u32, duration: Duration) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let network = soft_switch::hosts(2)?;
    // The last CPU is the switch's, the others' first the hosts'.
    let cpus = usable_cpus();
    let (hosts_cpu, switch_cpu) = match cpus.as_slice() {
        [first, .., last] => (Some(*first), Some(*last)),
        _ => (None, None),
    };
    let watch = Watch::begin();
    let done = match arm.check.as_str() {
        CAPACITY | FLOOR => circulate(lab, arm, &network, (hosts_cpu, switch_cpu), duration)?,
        check => {
            let pace = match check {
                RATE => Pace::Stamped {
                    per_sec: overrun_per_sec(arm.frame_bytes),
                    at_once_count: CARD_FRAMES / 2,
                },
                _ => Pace::Sparse(SPARSE_PER_SEC),
            };
            let flood = Flood {
                frame_bytes: arm.frame_bytes,
                pace,
                cpu: hosts_cpu,
            };
            let receiver = flood.receiver(&network)?;
            let switch = SoftSwitch::start(&network, &options(arm, lab.choice), switch_cpu)?;
            let seen = on_thread(|| flood.run(&network, &receiver, duration, lab.stop));
            let report = switch.stop()?;
            Done::of_switch(seen.context("sending through the switch")?, report)
        }
    };
    let mut observed = watch.end();
    if let Some(report) = &done.report {
        observed.push(Observation::Samples {
            q: 0.99,
            total_count: report.lateness.release_ns.total_count(),
        });
    }
    let waited = done.waited.map(|waited| (waited, done.elapsed));
    observed.extend(waited.map(|(waited, elapsed)| Observation::Contention {
        end: "switch",
        waited,
        elapsed,
    }));
    if let (Some(arrived), Some(report)) = (&done.seen.arrived, &done.report) {
        // A link has a rate as long as there is something to carry, and a receiver sees it if it loses nothing.
        let [from, to] = report.account.ports.as_slice() else {
            unreachable!("a switch with two hosts has two ports")
        };
        observed.push(Observation::LinkDry {
            idle: Duration::from_nanos(from.idle.as_ns()),
            elapsed: arrived.elapsed,
        });
        let unread_count = to.sent_count.saturating_sub(arrived.frames_count);
        observed.push(Observation::RingOverflow {
            end: "receiver",
            rx_dropped_count: if unread_count > CHATTER_FRAMES { unread_count } else { 0 },
            tx_dropped_count: 0,
        });
    }
    let mut row = row(lab, arm, (at_s, round), &done, &observed);
    if lab.choice.queue_log_events_max > 0
        && let Some(report) = &done.report
    {
        let stem = format!(
            "emulated-switch.{}.{}.{}",
            arm.check,
            arm.frame_bytes,
            (at_s * 1e3) as u64
        );
        let about = format!(
            "emulated-switch, check={}, frame_bytes={}, round {round}, seed {}",
            arm.check, arm.frame_bytes, lab.choice.seed
        );
        let fact = queue_log::write(lab.folder.path(), &report.log, &stem, &about)?;
        row.facts.insert(queue_log::FACT.to_owned(), fact);
    }
    Ok(row)
}

/// Frames that go round without end, by the switch or by the loop that is none.
fn circulate(
    lab: &Lab<'_>,
    arm: &Arm,
    network: &Network,
    (hosts_cpu, switch_cpu): (Option<usize>, Option<usize>),
    duration: Duration,
) -> anyhow::Result<Done> {
    let _circle = Circle::close(network, hosts_cpu).context("giving the hosts programs that send back what comes")?;
    let run = || {
        let sent = on_thread(|| Circle::run(network, arm.frame_bytes, duration, lab.stop));
        sent.map(|sent_count| Seen {
            sent_count,
            arrived: None,
        })
    };
    if arm.check == CAPACITY {
        let switch = SoftSwitch::start(network, &options(arm, lab.choice), switch_cpu)?;
        let seen = run();
        let report = switch.stop()?;
        return Ok(Done::of_switch(seen?, report));
    }
    let plain = PlainLoop::start(network, switch_cpu)?;
    let seen = run();
    let report = plain.stop()?;
    Ok(Done {
        seen: seen?,
        frames_count: report.frames_count,
        busy: report.busy,
        elapsed: report.elapsed,
        waited: report.waited,
        settings: report.settings,
        report: None,
    })
}

/// Where it is run on, and with which priority, ends with it.
fn on_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the sender's thread panicked")))
    })
}

impl Done {
    fn of_switch(seen: Seen, report: Report) -> Done {
        Done {
            seen,
            frames_count: report.account.ports.iter().map(|port| port.sent_count).sum(),
            busy: report.busy,
            elapsed: report.elapsed,
            waited: report.waited,
            settings: report.settings.clone(),
            report: Some(report),
        }
    }
}

fn row(lab: &Lab<'_>, arm: &Arm, (at_s, round): (f64, u32), done: &Done, observed: &[Observation]) -> Row {
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    let seen = &done.seen;
    put("sent", seen.sent_count as f64, "count", Better::Neither);
    put(DELIVERED, done.frames_count as f64, "count", Better::Neither);
    if let Some(report) = &done.report {
        let lost: u64 = report.wires.iter().map(|wire| wire.rx_lost_count()).sum();
        let dropped: u64 = report.account.ports.iter().map(|port| port.drops.total_count()).sum();
        put("dropped_by_queues", dropped as f64, "count", Better::Neither);
        put("lost_before_the_switch", lost as f64, "count", Better::Neither);
        put(UNEXPLAINED, report.unexplained_count() as f64, "count", Better::Lower);
    }
    if matches!(arm.check.as_str(), CAPACITY | FLOOR) && done.frames_count > 0 {
        let frame_ns = done.busy.as_nanos() as f64 / done.frames_count as f64;
        put(CPU_PER_FRAME, frame_ns, "ns", Better::Lower);
        put(FRAMES_PER_CPU_SECOND, 1e9 / frame_ns, "1/s", Better::Higher);
        let share = done.busy.as_secs_f64() / done.elapsed.as_secs_f64();
        put(BUSY_SHARE, share, "ratio", Better::Neither);
    }
    if let Some(arrived) = &seen.arrived {
        let bits_per_sec = arrived.wire_bytes as f64 * 8.0 / arrived.elapsed.as_secs_f64();
        put(CARRIED_BYTES, arrived.wire_bytes as f64, "bytes", Better::Neither);
        put(CARRIED_TIME, arrived.elapsed.as_nanos() as f64, "ns", Better::Neither);
        if let Some(report) = &done.report {
            let idle = report.account.ports[0].idle;
            put("link_idle", idle.as_ns() as f64, "ns", Better::Lower);
        }
        let ratio = bits_per_sec / LINK_BITS_PER_SEC as f64;
        put(RATE_RATIO, ratio, "ratio", Better::Neither);
    }
    let mut facts = BTreeMap::from([
        (
            "yardstick".to_owned(),
            "the switch itself, with kernel sockets at its ends".to_owned(),
        ),
        ("switch_thread".to_owned(), done.settings.join("; ")),
        (NETWORK.to_owned(), network(arm)),
        (
            "ends".to_owned(),
            "network namespaces on veth pairs: no card, no cable".to_owned(),
        ),
    ]);
    if let Some(report) = &done.report {
        let looks = report.lateness.look_ns.histogram();
        facts.insert(
            "looks".to_owned(),
            format!(
                "every {} ns by the median, p99 {} ns",
                looks.value_at_quantile(0.5),
                looks.value_at_quantile(0.99)
            ),
        );
    }
    let lateness = done.report.as_ref().map(|report| &report.lateness.release_ns);
    Row {
        experiment: "emulated-switch".to_owned(),
        backend: if done.report.is_some() { SOFT } else { PLAIN }.to_owned(),
        mode: ModeRecord::Emulated {
            by: "AF_XDP sockets on veth pairs and a thread with a clock".to_owned(),
        },
        axis: arm.axis(),
        round,
        twin: false,
        seed: lab.choice.seed,
        at_s,
        elapsed_s: done.elapsed.as_secs_f64(),
        latency: lateness.map(|lateness| lateness.distribution(&QUANTILES)),
        service: None,
        schedule_lag: None,
        metrics,
        series: Vec::new(),
        facts,
        validity: gates::judge(observed, &Limits::default()),
    }
}
