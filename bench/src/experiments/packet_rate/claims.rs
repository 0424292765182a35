//! What is claimed of packet rates, and how the rows decide it.

use super::{AF_XDP, SAME_CPU, SENDER_CPU, SINK, SINK_CPU, THREADED, UNEXPLAINED};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, Bound, measured},
    record::{Outcome, Row},
    table::{Arm, Table},
};

/// Frames that are sent in a second of CPU time: the sender's and, where the sink is a program with threads, theirs; `None` if
/// those could not be seen. A process that takes frames in spins, and what it uses says nothing.
fn frames_per_cpu_s(row: &Row) -> Option<f64> {
    let of = |name| row.metrics.get(name).map(|metric| metric.value);
    let sink_s = match row.axis.get(SINK.name)?.as_str() {
        THREADED | SAME_CPU => of(SINK_CPU)?,
        _ => 0.0,
    };
    let per_million_s = of(SENDER_CPU)? + sink_s;
    (per_million_s > 0.0).then(|| 1e6 / per_million_s)
}

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "afxdp-tx-per-cpu",
        sentence: "A CPU that sends through AF_XDP into an XDP program that drops moves at least 3 times the frames of one \
                   that sends through sendmmsg into a socket",
        source: Source::Ours {
            seen: "a prototype over veth: 0.9 to 1.05 M frames per CPU-second against 0.3 M",
        },
        invariant: "64-byte frames, as fast as the sender can, in the same rounds. Over veth each sender's CPU does the \
                    receiver's half too: a program in the driver there, in a NAPI thread (sink xdp-drop-same-cpu), IP, UDP \
                    and a socket here. Decided by the paired ratio of frames per CPU-second, the thread's included.",
        judge: afxdp_tx_per_cpu,
    },
    Claim {
        id: "napi-thread-pays",
        sentence: "Receive work in a NAPI thread of its own costs less CPU in all than the same work in the sender's softirq",
        source: Source::Ours {
            seen: "over veth a softirq takes in one frame at a time, a thread what has come meanwhile",
        },
        invariant: "The same sender, the same program in the same driver, the same frames; only where the receive work is done \
                    differs. Decided by the paired ratio of CPU time per frame, the sender's and the thread's together.",
        judge: napi_thread_pays,
    },
    Claim {
        id: "every-frame-accounted",
        sentence: "Every frame that was sent has arrived once, or a counter with a name says where it was lost",
        source: Source::Ours {
            seen: "a packet rate whose frames vanish is a guess",
        },
        invariant: "sent = received + losses by name, and nothing came twice, in every row of the run, those that are \
                    INVALID for another reason among them.",
        judge: every_frame_accounted,
    },
    Claim {
        id: "mmsg-saves-calls-not-stack",
        sentence: "Over veth, sendmmsg sends less than twice the frames per CPU-second of one call a frame: it saves \
                   system calls, and the stack is what costs",
        source: Source::Ours {
            seen: "thread CPU time of a flooding sender over veth",
        },
        invariant: "Both senders feed the same kind of sink with the same frames; only the number of frames a call differs \
                    (1 and 32). Decided by the paired ratio of frames per CPU-second at 64 bytes.",
        judge: mmsg_saves_calls_not_stack,
    },
];

pub(super) const SMALL: &[(&str, &str)] = &[("frame_bytes", "64"), ("sink", "udp-mmsg"), ("frames_per_s", "0")];
const SMALL_DROPPED: &[(&str, &str)] = &[("frame_bytes", "64"), ("sink", "xdp-drop"), ("frames_per_s", "0")];
const SMALL_SAME_CPU: &[(&str, &str)] = &[("frame_bytes", "64"), ("sink", SAME_CPU), ("frames_per_s", "0")];
const SMALL_THREADED: &[(&str, &str)] = &[("frame_bytes", "64"), ("sink", THREADED), ("frames_per_s", "0")];

pub(super) fn afxdp_tx_per_cpu(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "frames per CPU-second of AF_XDP into an XDP drop on the same CPU ÷ of sendmmsg into a socket",
        (Arm::of(AF_XDP, SMALL_SAME_CPU), Arm::of("udp-mmsg", SMALL)),
        frames_per_cpu_s,
        Bound::AtLeast(3.0),
    )
}

pub(super) fn napi_thread_pays(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "CPU time per frame of AF_XDP into an XDP drop in a NAPI thread ÷ in the sender's softirq",
        (Arm::of(AF_XDP, SMALL_THREADED), Arm::of(AF_XDP, SMALL_DROPPED)),
        |row| frames_per_cpu_s(row).map(|rate| 1.0 / rate),
        Bound::AtMost(1.0),
    )
}

pub(super) fn every_frame_accounted(table: &Table) -> Judgement {
    let count = |row: &Row, name: &str| row.metrics.get(name).map_or(0.0, |metric| metric.value);
    let rows_count = table.rows.len() as u64;
    if rows_count == 0 {
        return Judgement::not_measured("no row was measured");
    }
    // Frames too many in one row do not make up for frames too few in another.
    let sum = |name| table.rows.iter().map(|row| count(row, name).abs()).sum::<f64>();
    let (unexplained, duplicates) = (sum(UNEXPLAINED), sum("duplicates"));
    let outcome = match unexplained == 0.0 && duplicates == 0.0 {
        true => Outcome::Holds,
        false => Outcome::Fails,
    };
    Judgement::new(
        outcome,
        vec![
            measured(
                "frames that no counter explains",
                Some(unexplained),
                "count",
                "0",
                rows_count,
            ),
            measured("frames that came twice", Some(duplicates), "count", "0", rows_count),
            measured("frames sent", Some(sum("sent")), "count", "", rows_count),
        ],
    )
}

pub(super) fn mmsg_saves_calls_not_stack(table: &Table) -> Judgement {
    if table.rows.iter().all(|row| !row.facts.contains_key("caveat")) {
        return Judgement::not_measured("the claim is about veth pairs, and nothing crossed one; run as root");
    }
    judge::ratio(
        table,
        "frames per CPU-second of udp-mmsg ÷ of udp-spin, 64 bytes, over veth",
        (Arm::of("udp-mmsg", SMALL), Arm::of("udp-spin", SMALL)),
        frames_per_cpu_s,
        Bound::AtMost(2.0),
    )
}
