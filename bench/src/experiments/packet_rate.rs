//! `packet-rate`: one-way frames as fast as a sender can, over every way of moving frames: how many a second, what a
//! million of them costs each end in CPU time, and where each of them went.

mod claims;

use std::{collections::BTreeMap, time::Duration};

use crate::{
    account::Account,
    agent::protocol::NO_NAPI_THREADS,
    backends::{self, BackEnd, Kind, Napi, Room},
    claim::Claim,
    experiment::{Allowed, Axis, Experiment, Lab, Plan},
    place::End,
    record::{Better, Metric, Row, SupportRecord},
    server::MACHINE,
    trial::{
        Position,
        one_way::{self, OneWay, OneWayOutcome},
    },
};

/// See the module.
#[derive(Debug)]
pub struct PacketRate;

const FRAME_BYTES: Axis = Axis {
    name: "frame_bytes",
    meaning: "size of a frame: our header and payload, without UDP, IP and Ethernet",
    full: &["64", "256", "1024", "1472", "4096", "8972"],
    tour: &["64"],
    smallest: "64",
    allowed: Allowed::Number(44.0, 8972.0),
};

const SINK: Axis = Axis {
    name: "sink",
    meaning: "what takes the frames in: the sender's own back end (same), or one sink for all senders; xdp-echo sends them back",
    full: &[
        SAME,
        "udp-mmsg",
        "xdp-drop",
        THREADED,
        SAME_CPU,
        "xdp-drop-generic",
        "xdp-echo",
        "xdp-echo-generic",
    ],
    tour: &["udp-mmsg"],
    smallest: SAME,
    allowed: Allowed::Words,
};

const RATE: Axis = Axis {
    name: "frames_per_s",
    meaning: "frames a second; 0: as fast as the sender can",
    full: &["0"],
    tour: &["0"],
    smallest: "0",
    allowed: Allowed::Number(0.0, 1e8),
};

/// What the claim about AF_XDP sends with.
const AF_XDP: &str = "af-xdp-spin";

/// The program's work is not in the sender's softirq there.
const THREADED: &str = "xdp-drop-threaded";

/// The program's work takes turns with the sender on the sender's CPU.
const SAME_CPU: &str = "xdp-drop-same-cpu";

/// The sink is the sender's own back end.
const SAME: &str = "same";

/// The arm that is measured twice a round.
const TWIN: &str = "udp-mmsg";

/// What a trial takes beside sending: the warm-up, and the sink's wait until nothing more comes.
const DRAIN: Duration = Duration::from_millis(20);

const TRIAL_MIN: Duration = Duration::from_millis(60);

impl Experiment for PacketRate {
    fn id(&self) -> &'static str {
        "packet-rate"
    }

    fn title(&self) -> &'static str {
        "Packet rate"
    }

    fn question(&self) -> &'static str {
        "How many frames a second does each way of moving frames carry, what does a million of them cost, and where do \
         those go that do not arrive?"
    }

    fn how(&self) -> &'static str {
        "A sender floods for a fixed time; a sink in a process of its own counts every frame by its number. CPU time is \
         each end's own, by the kernel's clock of that thread. The account is drawn up from the counters of both ends, \
         sockets, interfaces and network namespaces: sent = received + losses by name, exactly, or the row is INVALID. \
         Between two machines the agent reads those of its end, and what left one interface and did not enter the other was \
         lost on the way. \
         Every arm is measured once per round, in an order shuffled by the seed, udp-mmsg twice."
    }

    fn axes(&self) -> &'static [Axis] {
        &[FRAME_BYTES, SINK, RATE]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![
            "loopback",
            "shm",
            "udp-blocking",
            "udp-spin",
            "udp-mmsg",
            "udp-gso",
            "uring",
            "uring-spin",
            "uring-zc",
            "uring-sqpoll",
            "af-packet",
            "af-packet-spin",
            "af-xdp",
            "af-xdp-spin",
            "af-xdp-generic",
            "af-xdp-zc",
        ]
    }

    fn tour_backends(&self) -> Vec<&'static str> {
        vec![
            "udp-spin",
            "udp-mmsg",
            "udp-gso",
            "uring-spin",
            "af-packet-spin",
            AF_XDP,
        ]
    }

    fn claims(&self) -> &'static [Claim] {
        claims::CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        1.0
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        if lab.place.agent().is_some() {
            lab.say(
                "softirq CPU time is left out for the sink's machine: its agent tells what its sink used, and no more",
            );
        }
        let arms = arms(lab, self);
        let Plan { rounds_count, trial } = lab.plan(arms.len(), TRIAL_MIN + DRAIN);
        let duration = trial - DRAIN;
        lab.in_rounds(&arms, rounds_count, |lab, turn| {
            let arm = turn.arm;
            lab.progress.set_message(format!(
                "{}, {} bytes, round {}",
                arm.sender.name,
                arm.frame_bytes,
                turn.round + 1
            ));
            let trial = OneWay {
                sender: arm.sender,
                sink: arm.sink,
                frame_bytes: arm.frame_bytes,
                rate_per_s: (arm.rate_per_s > 0.0).then_some(arm.rate_per_s),
                duration,
                room: room(arm),
            };
            // A repetition must not count frames of the attempt before it.
            let mut stream_id = turn.number;
            lab.record_until_valid(|lab| {
                let outcome = one_way::run(lab, &trial, stream_id)?;
                stream_id = stream_id.wrapping_add(1 << 24);
                let position = Position {
                    experiment: self.id(),
                    axis: BTreeMap::from([
                        (FRAME_BYTES.name.to_owned(), arm.frame_bytes.to_string()),
                        (SINK.name.to_owned(), arm.sink_word.clone()),
                        (RATE.name.to_owned(), arm.rate_per_s.to_string()),
                    ]),
                    round: turn.round,
                    twin: arm.twin,
                    seed: lab.choice.seed,
                };
                Ok(row(&trial, outcome, position))
            })
        })
    }
}

/// One sender into one sink at one point of the axes.
struct ArmOf {
    sender: &'static BackEnd,
    sink: &'static BackEnd,
    sink_word: String,
    frame_bytes: usize,
    rate_per_s: f64,
    twin: bool,
}

fn arms(lab: &Lab<'_>, experiment: &PacketRate) -> Vec<ArmOf> {
    let sinks = sinks(lab);
    let frame_sizes = lab.frame_sizes(&FRAME_BYTES);
    let mut arms = Vec::new();
    for sink_word in &sinks {
        for sender in lab.backends(experiment) {
            let Some(sink) = sink_of(sender, sink_word) else {
                continue;
            };
            // Under two names, one arm.
            if sink_word == SAME && sinks.iter().any(|word| word == sender.name) {
                continue;
            }
            // A train that arrives whole, over loopback or put together by a NIC, counts as one frame where it is dropped: it has
            // no account.
            let keeps_trains = !lab.place.is_veth() || lab.place.agent().is_some();
            if keeps_trains && matches!(sink.kind, Kind::Udp(_, dataplane_ports::udp::Batching::Gso)) {
                lab.say(&format!(
                    "{} into {} is left out here: a train of frames that arrives whole counts as one where it is dropped",
                    sender.name, sink.name
                ));
                continue;
            }
            for &frame_bytes in &frame_sizes {
                for rate_per_s in lab.numbers(&RATE) {
                    let arm = |twin| ArmOf {
                        sender,
                        sink,
                        sink_word: sink_word.clone(),
                        frame_bytes,
                        rate_per_s,
                        twin,
                    };
                    arms.push(arm(false));
                    if sender.name == TWIN && sink.name == TWIN {
                        arms.push(arm(true));
                    }
                }
            }
        }
    }
    arms
}

/// The sinks that were asked for and exist here.
fn sinks(lab: &Lab<'_>) -> Vec<String> {
    let exists = |word: &String| {
        let Some(sink) = backends::sink_by_name(word) else {
            return true;
        };
        let why = match support_of(lab, sink) {
            SupportRecord::Native | SupportRecord::Emulated { .. } => return true,
            SupportRecord::Absent { why } | SupportRecord::Unknown { why } => why,
        };
        lab.say(&format!("the sink {word} is left out: {why}"));
        false
    };
    lab.values(&SINK).into_iter().filter(exists).collect()
}

/// What a sink is here: at its own end, and at the sender's if that takes replies in.
fn support_of(lab: &Lab<'_>, sink: &BackEnd) -> SupportRecord {
    let at = |end| -> SupportRecord {
        let interface = lab.place.endpoint(end).interface;
        match lab.place.inside(end, || sink.probe(&interface)) {
            Ok(probed) => probed.into(),
            Err(error) => SupportRecord::Unknown {
                why: format!("{error:#}"),
            },
        }
    };
    match (lab.place.agent(), sink.kind) {
        (None, _) => at(End::Server),
        (Some(_), Kind::XdpDrop(_, Napi::Thread | Napi::ThreadAtSender)) => SupportRecord::Absent {
            why: NO_NAPI_THREADS.to_owned(),
        },
        (Some(_), Kind::XdpEcho(..)) => lab.place.support(sink, at(End::Client)),
        (Some(_), _) => lab.place.support(sink, SupportRecord::Native),
    }
}

/// The sink of that name for a sender; `None` if the two do not speak to each other.
fn sink_of(sender: &'static BackEnd, word: &str) -> Option<&'static BackEnd> {
    match (word, sender.kind) {
        (SAME, _) => Some(sender),
        // Rings in memory speak no UDP.
        (_, Kind::Loopback | Kind::Shm) => None,
        (name, sender) => backends::sink_by_name(name).filter(|sink| match (sink.kind, sender) {
            // The replies come to the program of the sender's socket. Over veth what a native one sends back arrives only at
            // a native one.
            (Kind::XdpEcho(echo, _), Kind::AfXdp(_, own, _)) => echo == own,
            _ => true,
        }),
    }
}

/// Room for a sink that was off its CPU for a few milliseconds; large frames get less, so that packet rings stay below
/// 32 MB each.
///
/// A sender that takes turns with the receive work must stop by itself: a port whose frames are all under way does, and half
/// of what a veth's ring holds (256, `VETH_RING_SIZE`, drivers/net/veth.c) is then never lost there.
fn room(arm: &ArmOf) -> Room {
    let frames_count = match arm.frame_bytes {
        _ if matches!(arm.sink.kind, Kind::XdpDrop(_, Napi::ThreadAtSender)) => 128,
        ..=1900 => 4096,
        _ => 1024,
    };
    Room { frames_count }
}

fn row(trial: &OneWay<'_>, outcome: OneWayOutcome, position: Position) -> Row {
    let OneWayOutcome {
        flood,
        sink,
        account,
        back,
        ..
    } = &outcome;
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put("sent", account.sent_count as f64, "count", Better::Neither);
    // What has come back is received where frames come back, and may be lost on both ways.
    let ways = [Some(account), back.as_ref().map(|back| &back.account)];
    let ways = || ways.into_iter().flatten();
    let (end, at_end) = match back {
        Some(back) => (&back.account, &back.replies),
        None => (account, sink),
    };
    put("received", end.received_count as f64, "count", Better::Neither);
    if back.is_some() {
        put("reflected", account.received_count as f64, "count", Better::Neither);
    }
    // Frames too many on one way do not make up for frames too few on the other.
    let unexplained_count = match back {
        Some(_) => ways().map(|way| way.unexplained_count().abs()).sum(),
        None => account.unexplained_count(),
    };
    put(UNEXPLAINED, unexplained_count as f64, "count", Better::Lower);
    let duplicate_count: u64 = ways().map(|way| way.duplicate_count).sum();
    put("duplicates", duplicate_count as f64, "count", Better::Lower);
    put("reordered", at_end.reordered_count as f64, "count", Better::Lower);
    put("refused", flood.refused_count as f64, "count", Better::Neither);
    for (name, count) in &account.losses {
        put(&format!("lost_{name}"), *count as f64, "count", Better::Lower);
    }
    if let Some(back) = back {
        for (name, count) in &back.account.losses {
            put(&format!("lost_{REPLY}{name}"), *count as f64, "count", Better::Lower);
        }
    }
    let lost_count: u64 = ways().map(Account::lost_count).sum();
    let lost_ratio = lost_count as f64 / account.sent_count.max(1) as f64;
    put("lost_ratio", lost_ratio, "ratio", Better::Lower);
    let elapsed_s = flood.elapsed.as_secs_f64();
    put(
        "sent_rate",
        flood.offered_count as f64 / elapsed_s,
        "1/s",
        Better::Higher,
    );
    put(
        "sender_waited_ratio",
        outcome.sender_waited.as_secs_f64() / elapsed_s,
        "ratio",
        Better::Lower,
    );
    let syscalls_per_frame = flood.port.syscalls_count as f64 / flood.offered_count.max(1) as f64;
    put("sender_syscalls_per_frame", syscalls_per_frame, "", Better::Lower);
    if flood.offered_count > 0 {
        let per_million = |cpu: Duration| cpu.as_secs_f64() * 1e6 / flood.offered_count as f64;
        put(SENDER_CPU, per_million(outcome.sender_cpu), "s", Better::Lower);
        if let Some(cpu) = outcome.softirq_cpu {
            // An agent tells nothing of its kernel's threads.
            let name = match outcome.facts.contains_key(MACHINE) {
                true => "sender_softirq_cpu_per_million",
                false => "softirq_cpu_per_million",
            };
            put(name, per_million(cpu), "s", Better::Lower);
        }
    }
    if let Some(cpu) = outcome.napi_cpu.filter(|_| account.received_count > 0) {
        let per_million_s = cpu.as_secs_f64() * 1e6 / account.received_count as f64;
        put(SINK_CPU, per_million_s, "s", Better::Lower);
    }
    if let Some(busy) = sink.busy.filter(|busy| busy.frames_count > 0 && busy.elapsed_ns > 0) {
        // Nanoseconds a frame are milliseconds a million.
        let per_million_s = busy.cpu_ns as f64 / busy.frames_count as f64 / 1e3;
        put(SINK_CPU, per_million_s, "s", Better::Lower);
        let rate_per_s = busy.frames_count as f64 * 1e9 / busy.elapsed_ns as f64;
        put("received_rate", rate_per_s, "1/s", Better::Higher);
    }
    Row {
        experiment: position.experiment.to_owned(),
        backend: trial.sender.name.to_owned(),
        mode: outcome.mode,
        axis: position.axis,
        round: position.round,
        twin: position.twin,
        seed: position.seed,
        at_s: outcome.at_s,
        elapsed_s,
        latency: None,
        service: None,
        schedule_lag: None,
        metrics,
        series: Vec::new(),
        facts: outcome.facts,
        validity: outcome.validity,
    }
}

const UNEXPLAINED: &str = "unexplained";
/// Before the name of a loss on the way back, on which sink and sender have changed places.
const REPLY: &str = "reply_";
const SENDER_CPU: &str = "sender_cpu_per_million";
const SINK_CPU: &str = "sink_cpu_per_million";

#[cfg(test)]
mod tests;
