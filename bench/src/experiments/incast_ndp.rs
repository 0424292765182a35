//! `incast-ndp-432` and `incast-ndp-8000`: how near NDP comes to what the receiver's link can carry, in the packet simulator.

mod run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use dataplane_sim::SimTime;

use self::run::{Incast, Run};
use super::{
    scenarios::{ARM, Demand, judge_all, metric},
    virtual_time::{Happened, Simulated},
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    record::{Better, Row},
    table::Table,
};

const WORK: &str = "Handley et al., Re-architecting datacenter networks and stacks for low latency and high performance (NDP), \
                    SIGCOMM 2017";

const VIRTUAL: &str = "Virtual time: a row follows from the seed alone. Decided by the figures of the rows, without an interval; another \
                       seed moves who answers, by which paths, and which packets are trimmed.";

/// An incast on a FatTree.
#[derive(Clone, Copy, Debug)]
pub struct NdpIncast {
    id: &'static str,
    title: &'static str,
    question: &'static str,
    /// Ports of a switch: k³ ÷ 4 hosts.
    ports_count: u32,
    answer_bytes: u64,
    initial_window_packets: u32,
    axes: &'static [Axis],
    claims: &'static [Claim],
}

const fn senders(full: &'static [&'static str], smallest: &'static str) -> Axis {
    Axis {
        name: "senders",
        meaning: "hosts that answer at the same time",
        full,
        tour: &["10"],
        smallest,
        allowed: Allowed::Number(1.0, 8_191.0),
    }
}

const NDP: &str = "ndp";
const DCTCP: &str = "dctcp";
const ARMS: Axis = Axis {
    name: ARM,
    meaning: "who sends",
    full: &[NDP, DCTCP],
    tour: &[NDP, DCTCP],
    smallest: NDP,
    allowed: Allowed::Words,
};

/// Figure 16.
pub static ON_432: NdpIncast = NdpIncast {
    id: "incast-ndp-432",
    title: "Incast on 432 hosts, NDP and DCTCP",
    question: "How much longer than the receiver's link needs do answers of 450 KB take, with NDP and with DCTCP?",
    ports_count: 12,
    answer_bytes: 450_000,
    initial_window_packets: 30,
    axes: &[ARMS, senders(&["1", "10", "50", "100", "200", "300", "431"], "10")],
    claims: &[
        Claim {
            id: "incast-ndp-432",
            sentence: "The last of 431 answers of 450 KB arrives about 1 % later than the receiver's link needs with NDP, about 5 % later \
                       with DCTCP",
            source: Source::Published {
                work: WORK,
                place: "figure 16",
            },
            invariant: VIRTUAL,
            judge: near_the_link,
        },
        Claim {
            id: "incast-ndp-432-spread",
            sentence: "With NDP the slowest of 431 answers takes at most 20 % longer than the fastest",
            source: Source::Published {
                work: WORK,
                place: "figure 16",
            },
            invariant: VIRTUAL,
            judge: spread,
        },
    ],
};

/// Figure 20.
pub static ON_8192: NdpIncast = NdpIncast {
    id: "incast-ndp-8000",
    title: "Incast on 8192 hosts, NDP",
    question: "Does NDP stay near what the receiver's link can carry, up to 8,000 answers at once?",
    ports_count: 32,
    answer_bytes: 270_000,
    initial_window_packets: 23,
    axes: &[senders(&["1", "10", "100", "1000", "2000", "8000"], "10")],
    claims: &[Claim {
        id: "incast-ndp-8000",
        sentence: "The last of up to 8,000 answers of 270 KB arrives within 2 % of what the receiver's link needs",
        source: Source::Published {
            work: WORK,
            place: "figure 20",
        },
        invariant: VIRTUAL,
        judge: up_to_8000,
    }],
};

const OVER: &str = "over_optimal_percent";

fn near_the_link(table: &Table) -> Judgement {
    let over = |arm: &str| metric(table, arm, ("senders", "431"), OVER);
    judge_all(&[
        Demand {
            what: "NDP, later than the link needs, 431 senders",
            value: over(NDP),
            unit: "%",
            limit: "≤ 2, within a factor of two of 1",
            meets: |percent| percent <= 2.0,
        },
        Demand {
            what: "DCTCP, later than the link needs, 431 senders",
            value: over(DCTCP),
            unit: "%",
            limit: "2.5 to 10, within a factor of two of 5",
            meets: |percent| (2.5..=10.0).contains(&percent),
        },
    ])
}

fn spread(table: &Table) -> Judgement {
    let ratio = |arm: &str| metric(table, arm, ("senders", "431"), "slowest_to_fastest_ratio");
    judge_all(&[
        Demand {
            what: "NDP, slowest ÷ fastest, 431 senders",
            value: ratio(NDP),
            unit: "ratio",
            limit: "≤ 1.2",
            meets: |ratio| ratio <= 1.2,
        },
        Demand {
            what: "DCTCP, slowest ÷ fastest (no bound: the paper has up to 7)",
            value: ratio(DCTCP),
            unit: "ratio",
            limit: "any",
            meets: |_| true,
        },
    ])
}

fn up_to_8000(table: &Table) -> Judgement {
    let demand = |what, senders| Demand {
        what,
        value: metric(table, "", ("senders", senders), OVER),
        unit: "%",
        limit: "≤ 2",
        meets: |percent| percent <= 2.0,
    };
    judge_all(&[
        demand("later than the link needs, 1 sender", "1"),
        demand("later than the link needs, 10 senders", "10"),
        demand("later than the link needs, 100 senders", "100"),
        demand("later than the link needs, 1000 senders", "1000"),
        demand("later than the link needs, 2000 senders", "2000"),
        demand("later than the link needs, 8000 senders", "8000"),
    ])
}

impl Experiment for NdpIncast {
    fn id(&self) -> &'static str {
        self.id
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn question(&self) -> &'static str {
        self.question
    }

    fn how(&self) -> &'static str {
        "A FatTree of 10 Gbit/s links, 1 µs each, in virtual time, packet by packet. Hosts drawn by the seed answer one other, all \
         within a microsecond. NDP: 9 KB packets, 8 of them in each switch queue, as many bytes of headers, and headers that find no \
         room go back to their sender. DCTCP: packets of the same size, queues of 200, marked from 30 on, RTOmin 10 ms. What the link \
         needs is the first packet's way to the last switch, and then all packets back to back, once."
    }

    fn axes(&self) -> &'static [Axis] {
        self.axes
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        self.claims
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let (mut arms, mut counts) = (vec![NDP.to_owned()], Vec::new());
        for axis in self.axes {
            match axis.name {
                ARM => arms = lab.values(axis),
                _ => counts = lab.numbers(axis),
            }
        }
        lab.progress.set_length((arms.len() * counts.len()) as u64);
        for count in counts {
            for arm in &arms {
                if lab.interrupted() {
                    return Ok(());
                }
                lab.progress.set_message(format!("{count} senders, {arm}"));
                let incast = Incast::draw(self, count as u32, lab.choice.seed)?;
                let Some(run) = incast.run(self, lab, arm)? else {
                    return Ok(());
                };
                let row = self.row(lab, &incast, arm, &run);
                lab.record(row)?;
                lab.progress.inc(1);
            }
        }
        Ok(())
    }
}

impl NdpIncast {
    fn row(&self, lab: &Lab<'_>, incast: &Incast, arm: &str, run: &Run) -> Row {
        let mut axis = BTreeMap::from([("senders".to_owned(), incast.senders.len().to_string())]);
        if self.axes.iter().any(|axis| axis.name == ARM) {
            axis.insert(ARM.to_owned(), arm.to_owned());
        }
        let what = Happened {
            elapsed: run.ended,
            event_hash: run.hash,
            events_count: run.counters.events_count,
        };
        let mut row = Simulated::of(lab, self.id, axis, lab.choice.seed, what);
        row.fact(
            "guarantee",
            "none is asked for: bytes are delivered once, or the flow is unfinished",
        );
        let first = incast.senders.iter().map(|&(_, start)| start).min();
        let last = run.last.saturating_since(first.unwrap_or(SimTime::ZERO));
        let ms = |span: SimTime| span.as_ps() as f64 / 1e9;
        let over_percent = 100.0 * (ms(last) / ms(incast.optimal) - 1.0);
        row.put("optimal_ms", ms(incast.optimal), "ms", Better::Neither);
        if run.unfinished_count == 0 {
            row.put("last_ms", ms(last), "ms", Better::Lower);
            row.put(OVER, over_percent, "%", Better::Lower);
        }
        if let (Some(fastest), Some(slowest)) = (run.took.iter().min(), run.took.iter().max()) {
            let ratio = ms(*slowest) / ms(*fastest);
            row.put("slowest_to_fastest_ratio", ratio, "ratio", Better::Lower);
        }
        let mut counts = vec![
            ("unfinished", run.unfinished_count, Better::Lower),
            ("retransmissions", run.retransmissions_count, Better::Lower),
            ("timeouts", run.timeouts_count, Better::Lower),
            ("drops", run.counters.drops.count(), Better::Lower),
            ("packet_hops", run.counters.hops_count, Better::Neither),
        ];
        if let Some((ndp, memory_bytes)) = &run.ndp {
            counts.extend([
                ("nacks", ndp.nacks_count, Better::Lower),
                ("returned_headers", ndp.returned_count, Better::Lower),
                ("returned_headers_of_a_flow_max", ndp.returned_count_max, Better::Lower),
            ]);
            row.put(
                "memory_estimate_mib",
                *memory_bytes as f64 / f64::from(1 << 20),
                "MiB",
                Better::Neither,
            );
        }
        for (name, count, better) in counts {
            row.put(name, count as f64, "count", better);
        }
        row.latencies(run.took.iter().map(|span| span.as_ns()));
        row.into_row()
    }
}
