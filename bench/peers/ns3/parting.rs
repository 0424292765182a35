//! Where the two simulators part: the first segment, of all flows of a run, that one sends where the other sends another, or the first ack that
//! one hears at another time. Up to there they have decided the same, packet by packet; what ns-3 decided around it says which rule is another.

use std::{collections::BTreeMap, path::Path, sync::atomic::AtomicBool};

use anyhow::{Context, ensure};
use bench::packet_sim::{Observer, Trace, TraceOptions, TracePlace};
use dataplane_sim::SimTime;

use crate::cases::Case;

/// Acks that differ by less come at the same time. When a segment is sent is not compared: ns-3 says when the network card is given it, ours when
/// it is on the wire.
const SAME_NS: u64 = 100;
/// Ports of senders, by flow: `dplab --trace` writes them so.
const SENDER_PORT_FIRST: u32 = 1_024;
/// Ethernet and IPv4 before TCP's header.
const TCP_BEGIN_BYTES: usize = 14 + 20;
const PCAPNG_ENHANCED_PACKET: u32 = 6;
/// A trace longer than that is cut: the first difference comes early.
const PACKETS_MAX: u64 = 4_000_000;
/// What is printed before the difference.
const LINES_BEFORE: usize = 40;
const LINES_AFTER: usize = 8;

/// What one sender did or heard at one moment.
#[derive(Clone, Debug)]
pub struct Step {
    at_ns: u64,
    /// A segment that it sent, by its first byte.
    sent: Option<u64>,
    /// What an ack says that it heard.
    acked: Option<u64>,
    text: String,
}

/// What of a step is compared, if it has that.
type What = fn(&Step) -> Option<u64>;

/// By flow, in order of time.
pub type Steps = BTreeMap<u32, Vec<Step>>;

/// What ns-3 printed of its senders.
///
/// # Errors
/// A line that is none of it.
pub fn steps_of_ns3(text: &str) -> anyhow::Result<Steps> {
    let mut steps = Steps::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [
            what @ ("sent" | "acked" | "window" | "threshold" | "phase"),
            at,
            flow,
            value,
            ..,
        ] = words[..]
        else {
            continue;
        };
        // Before the flows begin their connections are opened.
        let Ok(at_ns) = at.parse::<u64>() else { continue };
        let flow = flow.parse().with_context(|| format!("ns-3 said {line:?}"))?;
        let number = |is_it: bool| if is_it { value.parse().ok() } else { None };
        steps.entry(flow).or_default().push(Step {
            at_ns,
            sent: number(what == "sent"),
            acked: number(what == "acked"),
            text: format!("{what} {}", words[3..].join(" ")),
        });
    }
    Ok(steps)
}

/// Runs ours, and reads what its senders sent and heard out of a trace.
///
/// # Errors
/// The file's.
pub fn steps_of_ours(case: &Case, seed: u64, folder: &Path) -> anyhow::Result<Steps> {
    let setup = case.setup(seed);
    let path = folder.join("ours.pcapng");
    let mut senders: Vec<u32> = setup.flows.iter().map(|flow| flow.from).collect();
    senders.sort_unstable();
    senders.dedup();
    let options = TraceOptions {
        places: senders.into_iter().map(TracePlace::Host).collect(),
        packets_max: PACKETS_MAX,
        snap_bytes: 128,
    };
    let mut observer = Observer::every(SimTime::ZERO);
    observer.trace = Some(Trace::create(&path, &setup, &options, case.name)?);
    setup.run_observed(&mut observer, &AtomicBool::new(false));
    if let Some(trace) = observer.trace {
        trace.finish()?;
    }
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    read_pcapng(&bytes)
}

fn read_pcapng(mut bytes: &[u8]) -> anyhow::Result<Steps> {
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        let four = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(four.try_into().ok()?))
    };
    let mut steps = Steps::new();
    while !bytes.is_empty() {
        let (kind, block_bytes) = word(bytes, 0).zip(word(bytes, 4)).context("half a block of pcapng")?;
        ensure!(block_bytes >= 12, "a block of pcapng of {block_bytes} bytes");
        let (block, rest) = bytes
            .split_at_checked(block_bytes as usize)
            .context("half a block of pcapng")?;
        bytes = rest;
        if kind == PCAPNG_ENHANCED_PACKET {
            let (high, low) = word(block, 12)
                .zip(word(block, 16))
                .context("a packet without a time")?;
            let at_ns = (u64::from(high) << 32) | u64::from(low);
            let tcp = block
                .get(28 + TCP_BEGIN_BYTES..)
                .context("a packet without TCP's header")?;
            add_segment(at_ns, tcp, &mut steps).context("a packet with half of TCP's header")?;
        }
    }
    Ok(steps)
}

fn add_segment(at_ns: u64, tcp: &[u8], steps: &mut Steps) -> Option<()> {
    let port = |at: usize| Some(u32::from(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?)));
    let number = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?).wrapping_sub(1));
    let is_ece = tcp.get(13)? & (1 << 6) != 0;
    let (from, to) = (port(0)?, port(2)?);
    // A receiver's port is above all of them.
    let is_sent = to == 5_001;
    let flow = (if is_sent { from } else { to }).checked_sub(SENDER_PORT_FIRST)?;
    let (seq, ack) = (u64::from(number(4)?), u64::from(number(8)?));
    steps.entry(flow).or_default().push(match is_sent {
        true => Step {
            at_ns,
            sent: Some(seq),
            acked: None,
            text: format!("sent {seq}"),
        },
        false => Step {
            at_ns,
            sent: None,
            acked: Some(ack),
            text: format!("acked {ack}{}", if is_ece { " ece" } else { "" }),
        },
    });
    Some(())
}

/// Prints the first difference, if there is one.
pub fn print(ours: &Steps, theirs: &Steps) {
    let of_flow = |steps: &Steps, flow: &u32, what: What| -> Vec<(u64, u64)> {
        let steps = steps.get(flow).map(Vec::as_slice).unwrap_or_default();
        steps
            .iter()
            .filter_map(|step| Some((step.at_ns, what(step)?)))
            .collect()
    };
    let whats: [(What, u64); 2] = [(|step| step.sent, u64::MAX), (|step| step.acked, SAME_NS)];
    let mut first: Option<(u64, u32)> = None;
    for &flow in ours.keys().chain(theirs.keys()) {
        for (what, apart_ns) in whats {
            let (a, b) = (of_flow(ours, &flow, what), of_flow(theirs, &flow, what));
            let is_same = |(a, b): &(&(u64, u64), &(u64, u64))| a.1 == b.1 && a.0.abs_diff(b.0) <= apart_ns;
            let same_count = a.iter().zip(&b).take_while(is_same).count();
            let next = [a.get(same_count), b.get(same_count)].into_iter().flatten();
            first = next.map(|step| (step.0, flow)).chain(first).min();
        }
    }
    let Some((at_ns, flow)) = first else {
        println!("each flow sent the same segments in the same order, and heard the same acks at the same times");
        return;
    };
    println!("they part in flow {flow} at {at_ns} ns:");
    for (name, steps) in [("ours", ours), ("ns-3", theirs)] {
        let of_flow = steps.get(&flow).map(Vec::as_slice).unwrap_or_default();
        let at = of_flow.partition_point(|step| step.at_ns < at_ns);
        println!("{name}:");
        for step in &of_flow[at.saturating_sub(LINES_BEFORE)..of_flow.len().min(at + LINES_AFTER)] {
            println!("  {:>12} {}", step.at_ns, step.text);
        }
    }
}
