//! What is claimed of RDMA in software, and how the rows decide it.

use super::{AF_XDP, MAIN_BYTES, MANY, READ, REGISTERED, THROUGHPUT, UDP, WRITE};
use crate::{
    claim::{Claim, Judgement, Source},
    experiments::judge::{self, Bound},
    record::Row,
    remote_memory::pair::Via,
    table::{Arm, Table, latency_ns},
};

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "roce-write-beside-udp",
        sentence: "An acknowledged 64-byte WRITE over UDP sockets takes at most 1.2 times a 64-byte echo over UDP sockets, both spinning",
        source: Source::Ours {
            seen: "both are a datagram there and one back through the same stack; what is left is the endpoint: two headers to make and \
                   to read at each end, two ICRCs, a state machine, no second process",
        },
        invariant: "One operation under way, two threads or two processes with a CPU each that never sleep, between the same two network \
                    namespaces. Decided by the paired ratio of medians in the same rounds.",
        judge: write_beside_udp,
    },
    Claim {
        id: "roce-write-af-xdp-beside-udp",
        sentence: "The same WRITE over AF_XDP takes at most as long as that echo over UDP sockets",
        source: Source::Ours {
            seen: "over AF_XDP nobody calls the kernel to receive, and no socket and no IP stack is passed",
        },
        invariant: "As roce-write-beside-udp; the headers are made by the endpoint, and an XDP program in the driver hands frames over. \
                    The echo over AF_XDP is in the figures.",
        judge: write_af_xdp_beside_udp,
    },
    Claim {
        id: "rdma-read-beside-write",
        sentence: "A READ of 64 bytes takes what an acknowledged WRITE of 64 bytes takes, within a tenth",
        source: Source::Published {
            work: "A. Kalia, M. Kaminsky, D. G. Andersen: Using RDMA Efficiently for Key-Value Services, SIGCOMM 2014",
            place: "on the latency of verbs (figure 2): a READ and an acknowledged WRITE travel the same path; the tenth is ours",
        },
        invariant: "One operation under way; the WRITE's bytes are in registered memory, as the READ's target is. Decided by the paired ratio \
                    of medians, every provider in software that is here.",
        judge: read_beside_write,
    },
    Claim {
        id: "rdma-signalling",
        sentence: "With 64 WRITEs of 64 bytes under way, a completion for every 16th instead of for each raises throughput by a twentieth",
        source: Source::Published {
            work: "A. Kalia, M. Kaminsky, D. G. Andersen: Design Guidelines for High Performance RDMA Systems, USENIX ATC 2016",
            place: "on what a completion costs a NIC, and selective signalling; the limit of 1.05 is ours",
        },
        invariant: "A completion here is a push and a pop in memory of the same process, not a card's DMA. Decided by the paired ratio of \
                    WRITEs per second, every provider in software that is here.",
        judge: signalling,
    },
];

type Axes = [(&'static str, &'static str); 5];

const fn axes(operation: &'static str, in_flight: &'static str, signal_every: &'static str) -> Axes {
    [
        ("operation", operation),
        ("bytes", MAIN_BYTES),
        ("data", REGISTERED),
        ("in_flight", in_flight),
        ("signal_every", signal_every),
    ]
}

const ONE_WRITE: &Axes = &axes(WRITE, "1", "1");
const ONE_READ: &Axes = &axes(READ, "1", "1");
const ECHO: &Axes = &axes(super::ECHO, "1", "1");

fn write_beside_udp(table: &Table) -> Judgement {
    judge::ratio(
        table,
        "p50 of a WRITE of 64 bytes, rdma-roce ÷ of an echo, udp-spin",
        (Arm::of(Via::RoceUdp.name(), ONE_WRITE), Arm::of(UDP, ECHO)),
        latency_ns(0.5),
        Bound::AtMost(1.2),
    )
}

fn write_af_xdp_beside_udp(table: &Table) -> Judgement {
    let write = Arm::of(Via::RoceAfXdp.name(), ONE_WRITE);
    let mut judgement = judge::ratio(
        table,
        "p50 of a WRITE of 64 bytes, rdma-roce-af-xdp ÷ of an echo, udp-spin",
        (write, Arm::of(UDP, ECHO)),
        latency_ns(0.5),
        Bound::AtMost(1.0),
    );
    if let Some(ratio) = table.ratio(write, Arm::of(AF_XDP, ECHO), latency_ns(0.5)) {
        let what = "p50 of the same WRITE ÷ of an echo, af-xdp-spin";
        judgement.measured.push(judge::measured_ratio(what, &ratio, ""));
    }
    judgement
}

fn read_beside_write(table: &Table) -> Judgement {
    judge::each_provider(table, |via| {
        judge::ratio(
            table,
            &format!("p50 of a READ ÷ of a WRITE, 64 bytes, {}", via.name()),
            (Arm::of(via.name(), ONE_READ), Arm::of(via.name(), ONE_WRITE)),
            latency_ns(0.5),
            Bound::Within(0.9, 1.1),
        )
    })
}

fn signalling(table: &Table) -> Judgement {
    const EVERY_16TH: &Axes = &axes(WRITE, MANY, "16");
    const EACH: &Axes = &axes(WRITE, MANY, "1");
    judge::each_provider(table, |via| {
        judge::ratio(
            table,
            &format!("WRITEs per second, signalled every 16th ÷ each, {}", via.name()),
            (Arm::of(via.name(), EVERY_16TH), Arm::of(via.name(), EACH)),
            |row: &Row| Some(row.metrics.get(THROUGHPUT)?.value),
            Bound::AtLeast(1.05),
        )
    })
}
