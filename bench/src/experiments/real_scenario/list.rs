//! The scenarios that are run on real kernels, and their claims: the simulator's judges over the kernel's rows, or the same question put to what
//! a kernel can be asked.

use super::{RealScenario, at_kernel};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis},
    experiments::{
        bbr_loss_wall, cc_bufferbloat, cc_sharing, control_laws, incast_dctcp, incast_timers,
        kernel_tcp::LEVEL,
        scenarios::{ARM, Demand, judge_all, metric},
    },
    scenario::units::Rate,
    table::Table,
};

const INVARIANT: &str = "TCP of this machine's kernel over an emulated switch; each point is the median of its valid rounds, and figures are in the \
                         network's time. Rows in virtual time of the same file stand beside them and are not judged here.";

const fn arms(full: &'static [&'static str]) -> Axis {
    Axis {
        name: ARM,
        meaning: "as in the scenario's file, as far as a kernel has it",
        full,
        tour: full,
        smallest: full[0],
        allowed: Allowed::Words,
    }
}

const fn servers(full: &'static [&'static str]) -> Axis {
    Axis {
        name: "servers",
        meaning: "hosts that answer one question at the same time",
        full,
        tour: full,
        smallest: "4",
        allowed: Allowed::Number(1.0, 71.0),
    }
}

const fn flows(full: &'static [&'static str]) -> Axis {
    Axis {
        name: "flows",
        meaning: "long flows, as in the scenario's file",
        full,
        tour: full,
        smallest: full[0],
        allowed: Allowed::Number(1.0, 64.0),
    }
}

const INCAST_HOW: &str = "The scenario's file on namespaces around an emulated switch, built ten times slower: 1 Gbit/s are 100 Mbit/s, and a \
                          timer of 10 ms is one of 100. What the kernel cannot be asked for stands in the row.";
const FLOWS_HOW: &str = "The scenario's file on two namespaces and an emulated switch that has the rate, the delay, the queue and the losses; a fifth \
                         of the time is not measured. The simulator's rows last as long.";

/// A tenth of the rate, so that two CPUs carry it.
const SLOWER: u32 = 10;

/// Chen et al.
pub static THREE_REGIONS: RealScenario = RealScenario {
    id: "real-three-regions",
    of: &incast_timers::THREE_REGIONS,
    title: "Three regions of incast goodput on this machine's kernel",
    question: "On a real kernel: how does goodput go on beyond the collapse, and does the least timeout move it?",
    how: INCAST_HOW,
    axes: &[LEVEL, arms(REGIONS_ARMS), servers(REGIONS_SERVERS)],
    claims: &[Claim {
        id: "incast-three-regions-kernel",
        sentence: "Goodput is least with 7 or 8 senders, whatever RTOmin; with more it recovers, and then declines slowly",
        source: Source::Published {
            work: "Chen, Griffith, Liu, Katz and Joseph, Understanding TCP incast throughput collapse in datacenter networks, WREN 2009",
            place: "figures 5 and 6, as others quote them; 5 to 10 senders, a fifth more and a twentieth less are ours",
        },
        invariant: INVARIANT,
        judge: |table| {
            at_kernel(table, |table| {
                incast_timers::three_regions_of(table, REGIONS_ARMS, &REGIONS_SERVERS[1..])
            })
        },
    }],
    bottleneck: None,
    dilation: SLOWER,
    seconds: 4.0,
    questions_max: 10,
};

/// 1 ms would be 10 ms here, and the kernel's least is 8 to 12.
const REGIONS_ARMS: &[&str] = &["rtomin-200ms", "rtomin-10ms", "rtomin-1ms"];
const REGIONS_SERVERS: &[&str] = &["1", "2", "4", "6", "8", "10", "16", "32", "64"];

/// Phanishayee et al.
pub static FAST08: RealScenario = RealScenario {
    id: "real-collapse-fast08",
    of: &incast_timers::COLLAPSE,
    title: "Throughput collapse of synchronized reads on this machine's kernel",
    question: "On a real kernel: with how many servers do synchronized reads of 256 KB each collapse, and what does more buffer do?",
    how: INCAST_HOW,
    axes: &[
        LEVEL,
        arms(&["32-kb", "64-kb", "256-kb"]),
        servers(&["1", "2", "4", "8", "16"]),
    ],
    claims: &[Claim {
        id: "incast-fast08-buffer-kernel",
        sentence: "Synchronized reads of 256 KB each lose an order of magnitude of throughput at 8 servers; eight times the buffer gives half of \
                   it back",
        source: Source::Published {
            work: "Phanishayee et al., Measurement and analysis of TCP throughput collapse in cluster-based storage systems, FAST 2008",
            place: "figure 1 and the figures of buffers, recalled and not re-read; half is ours",
        },
        invariant: INVARIANT,
        judge: |table| at_kernel(table, fast08),
    }],
    bottleneck: None,
    dilation: SLOWER,
    seconds: 6.0,
    questions_max: 10,
};

fn goodput(table: &Table, arm: &str, servers: &str) -> Option<f64> {
    metric(table, arm, ("servers", servers), "goodput_mbit_per_sec")
}

fn left(table: &Table, arm: &str, servers: &str) -> Option<f64> {
    let (many, one) = (goodput(table, arm, servers), goodput(table, arm, "1"));
    many.zip(one).map(|(many, one)| many / one)
}

fn fast08(table: &Table) -> Judgement {
    judge_all(&[
        Demand {
            what: "goodput of 8 servers ÷ of one, 32 KB",
            value: left(table, "32-kb", "8"),
            unit: "ratio",
            limit: "≤ 0.1",
            meets: |left| left <= 0.1,
        },
        Demand {
            what: "the same, 256 KB",
            value: left(table, "256-kb", "8"),
            unit: "ratio",
            limit: "≥ 0.5",
            meets: |left| left >= 0.5,
        },
    ])
}

/// Vasudevan et al.
pub static RTOMIN: RealScenario = RealScenario {
    id: "real-rtomin",
    of: &incast_timers::RTOMIN,
    title: "Incast and RTOmin on this machine's kernel",
    question: "On a real kernel: how much of incast is the least retransmission timeout?",
    how: INCAST_HOW,
    axes: &[
        LEVEL,
        arms(&["rtomin-200ms", "rtomin-10ms", "rtomin-1ms"]),
        servers(&["1", "4", "8", "16"]),
    ],
    claims: &[Claim {
        id: "incast-rtomin-1mb-kernel",
        sentence: "With RTOmin of 200 ms incast costs up to 90 % of throughput; with 1 ms 16 servers lose less than 10 %",
        source: Source::Published {
            work: "Vasudevan et al., Safe and effective fine-grained TCP retransmissions for datacenter communication, SIGCOMM 2009",
            place: "abstract (90 %) and section 1 (1 ms, as others quote it; the bound of 10 % is ours)",
        },
        invariant: INVARIANT,
        judge: |table| at_kernel(table, rtomin),
    }],
    bottleneck: None,
    dilation: SLOWER,
    seconds: 6.0,
    questions_max: 40,
};

fn rtomin(table: &Table) -> Judgement {
    judge_all(&[
        Demand {
            what: "goodput of 16 servers ÷ of one, RTOmin 200 ms",
            value: left(table, "rtomin-200ms", "16"),
            unit: "ratio",
            limit: "≤ 0.1",
            meets: |left| left <= 0.1,
        },
        Demand {
            what: "the same, 1 ms",
            value: left(table, "rtomin-1ms", "16"),
            unit: "ratio",
            limit: "≥ 0.9",
            meets: |left| left >= 0.9,
        },
    ])
}

const DCTCP: &str = "Alizadeh et al., Data center TCP (DCTCP), SIGCOMM 2010";

/// Alizadeh et al., figure 18.
pub static FIG18: RealScenario = RealScenario {
    id: "real-dctcp-fig18",
    of: &incast_dctcp::FIG18,
    title: "Incast with static buffers on this machine's kernel",
    question: "On a real kernel: how many servers can answer at once before TCP and DCTCP time out, with 100 packets for each port?",
    how: INCAST_HOW,
    axes: &[
        LEVEL,
        arms(&["tcp-300ms", "tcp-10ms", "dctcp-300ms", "dctcp-10ms"]),
        servers(&["1", "10", "20", "35", "40"]),
    ],
    claims: &[Claim {
        id: "incast-dctcp-fig18-kernel",
        sentence: "TCP's queries time out with 20 servers and DCTCP's do not; with 40, two segments of each exceed the port and DCTCP's do, too",
        source: Source::Published {
            work: DCTCP,
            place: "figure 18b: TCP past 10, DCTCP at 35; a twentieth of a timeout for each query is ours",
        },
        invariant: INVARIANT,
        judge: |table| at_kernel(table, fig18),
    }],
    bottleneck: None,
    dilation: SLOWER,
    seconds: 5.0,
    questions_max: 50,
};

fn fig18(table: &Table) -> Judgement {
    let timeouts = |arm: &str, servers: &str| metric(table, arm, ("servers", servers), "timeouts_per_query");
    judge_all(&[
        Demand {
            what: "timeouts per query, TCP, RTOmin 10 ms, 20 servers",
            value: timeouts("tcp-10ms", "20"),
            unit: "ratio",
            limit: "≥ 0.05",
            meets: |ratio| ratio >= 0.05,
        },
        Demand {
            what: "the same, DCTCP",
            value: timeouts("dctcp-10ms", "20"),
            unit: "ratio",
            limit: "≤ 0.05",
            meets: |ratio| ratio <= 0.05,
        },
        Demand {
            what: "DCTCP, 40 servers",
            value: timeouts("dctcp-10ms", "40"),
            unit: "ratio",
            limit: "≥ 0.05",
            meets: |ratio| ratio >= 0.05,
        },
    ])
}

/// Alizadeh et al., figure 21.
pub static QUEUE_BUILDUP: RealScenario = RealScenario {
    id: "real-queue-buildup",
    of: &incast_dctcp::QUEUE_BUILDUP,
    title: "Small answers behind long flows on this machine's kernel",
    question: "On a real kernel: how long does a small answer take beside two long flows to the same host?",
    how: "Two hosts send for ever, a third answers 20 KB again and again over one connection. The switch shares 4 MB. Built ten times slower; times \
          are the network's.",
    axes: &[LEVEL, arms(&["tcp", "dctcp"])],
    claims: &[Claim {
        id: "incast-queue-buildup-kernel",
        sentence: "The median of 20 KB answers beside two long flows is 19 ms with TCP and less than 1 ms with DCTCP",
        source: Source::Published {
            work: DCTCP,
            place: "figure 21 and section 4.2.3",
        },
        invariant: INVARIANT,
        judge: |table| at_kernel(table, incast_dctcp::queue_buildup),
    }],
    bottleneck: None,
    dilation: SLOWER,
    seconds: 30.0,
    questions_max: 400,
};

const BBR: &str =
    "Cardwell, Cheng, Gunn, Yeganeh and Jacobson, BBR: Congestion-based congestion control, CACM 60(2), 2017";

/// Cardwell et al., figure 8.
pub static LOSS_WALL: RealScenario = RealScenario {
    id: "real-loss-wall",
    of: &bbr_loss_wall::WALL,
    title: "A wall of random loss on this machine's kernel",
    question: "How much random loss does a flow of this kernel bear with CUBIC, and how much with BBR?",
    how: FLOWS_HOW,
    axes: &[
        LEVEL,
        arms(&["cubic", "bbr1"]),
        Axis {
            name: "loss_ratio",
            meaning: "packets that the cable to the receiver loses at random",
            full: &[
                "0.00001", "0.0001", "0.001", "0.01", "0.02", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3", "0.5",
            ],
            tour: &["0.001"],
            smallest: "0.01",
            allowed: Allowed::Number(0.0, 0.9),
        },
    ],
    claims: &[
        Claim {
            id: "cubic-loss-kernel",
            sentence: "This kernel's CUBIC falls to a tenth of its goodput at 0.1 % of loss and to less than a twentieth at 1 %",
            source: Source::Published {
                work: BBR,
                place: "figure 8 and its text; a twentieth, for about nothing, is ours",
            },
            invariant: INVARIANT,
            judge: |table| at_kernel(table, bbr_loss_wall::cubic),
        },
        Claim {
            id: "bbr-loss-plateau-kernel",
            sentence: "This kernel's BBR keeps nine tenths of what the wire delivers up to 5 % of random loss",
            source: Source::Published {
                work: BBR,
                place: "figure 8 and its text; nine tenths are ours",
            },
            invariant: INVARIANT,
            judge: |table| at_kernel(table, bbr_loss_wall::plateau),
        },
        Claim {
            id: "bbr-loss-wall-kernel",
            sentence: "This kernel's BBR has half of what the wire delivers at 15 % of random loss, and less than a tenth at 25 %",
            source: Source::Published {
                work: BBR,
                place: "figure 8, and the authors' analysis on bbr-dev: 1.25 (1 − p) < 1; half and a tenth are ours",
            },
            invariant: INVARIANT,
            judge: |table| at_kernel(table, bbr_loss_wall::wall),
        },
    ],
    bottleneck: None,
    dilation: 1,
    seconds: 8.0,
    questions_max: 0,
};

/// Cardwell et al.
pub static BUFFERBLOAT: RealScenario = RealScenario {
    id: "real-bufferbloat",
    of: &cc_bufferbloat::BUFFERBLOAT,
    title: "Who fills the buffer, on this machine's kernel",
    question: "On a real kernel: how long is the queue that one flow keeps, when the buffer is larger than it needs?",
    how: FLOWS_HOW,
    axes: &[
        LEVEL,
        arms(&["newreno", "cubic", "bbr1"]),
        Axis {
            name: "limit_packets",
            meaning: "packets that the buffer holds",
            full: &["132", "528"],
            tour: &["132"],
            smallest: "132",
            allowed: Allowed::Number(1.0, 100_000.0),
        },
    ],
    claims: &[Claim {
        id: "cc-bufferbloat-kernel",
        sentence: "Loss-based controllers fill the buffer, however large; BBR's queue stays within one bandwidth-delay product",
        source: Source::Published {
            work: "Cardwell, Cheng, Gunn, Yeganeh and Jacobson, BBR: Congestion-based congestion control, CACM 60(2), 2017",
            place: "introduction; that BBR holds one bandwidth-delay product is of its design, that a median of half the buffer is full is ours",
        },
        invariant: INVARIANT,
        judge: |table| at_kernel(table, bufferbloat),
    }],
    bottleneck: None,
    dilation: 1,
    seconds: 15.0,
    questions_max: 0,
};

/// There and back, with the bottleneck's own time for a frame and its acknowledgement.
const BLOAT_RTT_MS: f64 = 40.0;
/// 1,538 bytes at 10 Mbit/s.
const BLOAT_PACKET_MS: f64 = 1.2304;

/// The queue by the senders' smoothed round trips: what is beyond the empty path's.
fn bufferbloat(table: &Table) -> Judgement {
    let queue_ms = |arm: &str, limit: &str, name: &str| {
        metric(table, arm, ("limit_packets", limit), name).map(|ms| ms - BLOAT_RTT_MS)
    };
    let filled = |arm: &str, limit: &str| {
        queue_ms(arm, limit, "long_rtt_ms_p50")
            .zip(limit.parse::<f64>().ok())
            .map(|(ms, limit)| ms / (limit * BLOAT_PACKET_MS))
    };
    let fills = |what, arm, limit| Demand {
        what,
        value: filled(arm, limit),
        unit: "ratio",
        limit: "≥ 0.5",
        meets: |ratio: f64| ratio >= 0.5,
    };
    let holds = |what, limit| Demand {
        what,
        value: queue_ms("bbr1", limit, "long_rtt_ms_p50").map(|ms| ms / BLOAT_RTT_MS),
        unit: "bandwidth-delay products",
        limit: "≤ 1",
        meets: |ratio: f64| ratio <= 1.0,
    };
    judge_all(&[
        fills("part of 132 packets that CUBIC fills", "cubic", "132"),
        fills("part of 528 packets that CUBIC fills", "cubic", "528"),
        fills("part of 132 packets that Reno fills", "newreno", "132"),
        fills("part of 528 packets that Reno fills", "newreno", "528"),
        holds("BBR's queue before 132 packets, median", "132"),
        holds("BBR's queue before 528 packets, median", "528"),
    ])
}

/// Mathis et al.
pub static MATHIS: RealScenario = RealScenario {
    id: "real-mathis",
    of: &control_laws::MATHIS,
    title: "Reno under random loss on this machine's kernel",
    question: "Does the rate of this kernel's Reno follow from the loss ratio, as 1 over its square root?",
    how: "The scenario's file on two namespaces and an emulated switch that has the delay and the losses, and 100 Mbit/s instead of the file's \
          1 Gbit/s, which the flow never fills either; a fifth of the time is not measured. The simulator's rows are of the same.",
    axes: &[
        LEVEL,
        Axis {
            name: "loss_ratio",
            meaning: "packets that the wire loses at random",
            full: &["0.001", "0.003", "0.01"],
            tour: &["0.001"],
            smallest: "0.01",
            allowed: Allowed::Number(0.000_1, 0.5),
        },
    ],
    claims: &[Claim {
        id: "cc-mathis-kernel",
        sentence: "The goodput of this kernel's Reno is MSS ÷ RTT × √(3/2) ÷ √p, to within 20 %",
        source: Source::Published {
            work: "Mathis, Semke, Mahdavi and Ott, The macroscopic behavior of the TCP congestion avoidance algorithm, CCR 27(3), 1997",
            place: "equation 3; the constant is that of periodic loss and an acknowledgement for each segment; 20 % is ours",
        },
        invariant: INVARIANT,
        judge: |table| {
            at_kernel(table, |table| {
                control_laws::mathis_at(table, &["0.001", "0.003", "0.01"])
            })
        },
    }],
    bottleneck: Some(Rate {
        bits_per_sec: 100_000_000,
    }),
    dilation: 1,
    seconds: 25.0,
    questions_max: 0,
};

/// RFC 9743.
pub static FAIRNESS: RealScenario = RealScenario {
    id: "real-fairness",
    of: &cc_sharing::FAIRNESS,
    title: "Equal flows on this machine's kernel",
    question: "Do equal flows of this kernel share a bottleneck equally?",
    how: FLOWS_HOW,
    axes: &[LEVEL, arms(FAIR_ARMS), flows(&["2", "4"])],
    claims: &[Claim {
        id: "cc-fairness-kernel",
        sentence: "Equal flows share a bottleneck: Jain's index is 0.9 or more, with each controller, for 2 and for 4 flows",
        source: Source::Published {
            work: "RFC 9743, Specifying New Congestion Control Algorithms, 2025",
            place: "which asks the question and gives no bound; 0.9 is ours, as is the time",
        },
        invariant: INVARIANT,
        judge: |table| at_kernel(table, |table| cc_sharing::fair_of(table, FAIR_ARMS, &["2", "4"])),
    }],
    bottleneck: None,
    dilation: 1,
    seconds: 20.0,
    questions_max: 0,
};

const FAIR_ARMS: &[&str] = &["newreno", "cubic", "dctcp", "bbr1"];

/// Ware et al.
pub static BBR_VS_LOSSBASED: RealScenario = RealScenario {
    id: "real-bbr-vs-lossbased",
    of: &cc_sharing::BBR_VS_LOSSBASED,
    title: "One BBR among loss-based flows on this machine's kernel",
    question: "Does the share of a flow of this kernel's BBR shrink as more loss-based flows stand beside it?",
    how: FLOWS_HOW,
    axes: &[LEVEL, arms(&["newreno", "cubic"]), flows(&["1", "16"])],
    claims: &[Claim {
        id: "cc-bbr-vs-lossbased-kernel",
        sentence: "The share of one BBRv1 flow does not depend on the number of loss-based flows beside it",
        source: Source::Published {
            work: "Ware, Mukerjee, Seshan and Sherry, Modeling BBR's interactions with loss-based congestion control, IMC 2019",
            place: "section 4 (the model); that a share beside 16 flows within 30 % of that beside 1 does not depend is ours",
        },
        invariant: INVARIANT,
        judge: |table| at_kernel(table, cc_sharing::independent),
    }],
    bottleneck: None,
    dilation: 1,
    seconds: 25.0,
    questions_max: 0,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

    #[test]
    fn the_kernels_own_judges_hold_and_fail() {
        let of = |arm_8: f64, more_8: f64| {
            let rows = [
                [("goodput_mbit_per_sec", 900.0)],
                [("goodput_mbit_per_sec", arm_8)],
                [("goodput_mbit_per_sec", more_8)],
            ];
            let at = |arm: &'static str, servers: &'static str, index: usize| (arm, servers, &rows[index][..]);
            fast08(&table(
                "servers",
                &[
                    at("32-kb", "1", 0),
                    at("32-kb", "8", 1),
                    at("256-kb", "1", 0),
                    at("256-kb", "8", 2),
                ],
            ))
            .outcome
        };
        assert_eq!(of(50.0, 800.0), Outcome::Holds);
        assert_eq!(of(500.0, 800.0), Outcome::Fails);
        let of = |fine: f64| {
            let rows = [900.0, 40.0, fine].map(|goodput| [("goodput_mbit_per_sec", goodput)]);
            let at = |arm: &'static str, servers: &'static str, index: usize| (arm, servers, &rows[index][..]);
            rtomin(&table(
                "servers",
                &[
                    at("rtomin-200ms", "1", 0),
                    at("rtomin-200ms", "16", 1),
                    at("rtomin-1ms", "1", 0),
                    at("rtomin-1ms", "16", 2),
                ],
            ))
            .outcome
        };
        assert_eq!((of(880.0), of(500.0)), (Outcome::Holds, Outcome::Fails));
        let of = |dctcp: f64| {
            let rows = [0.4, dctcp, 0.9].map(|ratio| [("timeouts_per_query", ratio)]);
            let all = [
                ("tcp-10ms", "20", &rows[0][..]),
                ("dctcp-10ms", "20", &rows[1][..]),
                ("dctcp-10ms", "40", &rows[2][..]),
            ];
            fig18(&table("servers", &all)).outcome
        };
        assert_eq!((of(0.0), of(0.3)), (Outcome::Holds, Outcome::Fails));
        assert!(matches!(fig18(&Table::default()).outcome, Outcome::NotMeasured { .. }));
    }

    #[test]
    fn a_queue_is_told_from_round_trips() {
        let of = |bbr_ms: f64| {
            let rows = [180.0, 600.0, bbr_ms].map(|ms| [("long_rtt_ms_p50", ms)]);
            let at = |arm: &'static str, limit: &'static str, index: usize| (arm, limit, &rows[index][..]);
            bufferbloat(&table(
                "limit_packets",
                &[
                    at("cubic", "132", 0),
                    at("cubic", "528", 1),
                    at("newreno", "132", 0),
                    at("newreno", "528", 1),
                    at("bbr1", "132", 2),
                    at("bbr1", "528", 2),
                ],
            ))
            .outcome
        };
        assert_eq!((of(60.0), of(150.0)), (Outcome::Holds, Outcome::Fails));
    }
}
