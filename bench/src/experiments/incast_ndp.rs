//! `incast-ndp-432` and `incast-ndp-8000`: how near NDP comes to what the receiver's link can carry, in the packet simulator.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use dataplane_queue::{Discipline, DropTailOptions, ETHERNET_OVERHEAD_BYTES, Limit, Marking, TrimmingOptions};
use dataplane_sim::{
    SimTime,
    packet::{Cable, Counters, HostOptions, SwitchOptions, Topology},
};
use dataplane_transports::{ControllerKind, EcnMode, ReceiverOptions, SenderOptions, ndp::NdpOptions};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use super::{
    scenarios::{ARM, Demand, judge_all, metric},
    virtual_time::{Happened, Simulated},
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    packet_sim::{Flow, FlowKind, FlowOptions, NdpCounts, NdpFlow, NdpSetup, Setup, frame_bytes},
    record::{Better, Row},
    scenario::memory,
    table::Table,
};

const WORK: &str = "Handley et al., Re-architecting datacenter networks and stacks for low latency and high performance (NDP), \
                    SIGCOMM 2017";

const VIRTUAL: &str = "Virtual time: a row follows from the seed alone. Decided by the figures of the rows, without an interval; another \
                       seed moves who answers, by which paths, and which packets are trimmed.";

const LINK_BITS_PER_SEC: u64 = 10_000_000_000;
const DELAY: SimTime = SimTime::from_us(1);
/// 9 KB packets, so that 270 KB are 30 of them.
const PAYLOAD_BYTES: u32 = 9_000;
/// Answers begin within so much of each other.
const JITTER: SimTime = SimTime::from_us(1);
/// The least timeout of DCTCP; the paper's is not known here.
const DCTCP_RTO: Duration = Duration::from_millis(10);
/// The largest incast's answers take 1.75 s at the receiver's link if nothing goes wrong.
const HORIZON: SimTime = SimTime::from_ms(60_000);

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

/// Who sends to whom.
struct Incast {
    receiver: u32,
    /// With the time at which each begins.
    senders: Vec<(u32, SimTime)>,
    optimal: SimTime,
}

/// What came of it, whoever sent.
struct Run {
    counters: Counters,
    hash: u64,
    ended: SimTime,
    took: Vec<SimTime>,
    last: SimTime,
    unfinished_count: u64,
    retransmissions_count: u64,
    timeouts_count: u64,
    ndp: Option<(NdpCounts, u64)>,
}

/// A full packet's time on a link.
fn packet_time() -> SimTime {
    let bits = u64::from(frame_bytes(PAYLOAD_BYTES) + ETHERNET_OVERHEAD_BYTES) * 8;
    SimTime::from_ps(bits * 1_000_000_000_000 / LINK_BITS_PER_SEC)
}

impl Incast {
    fn draw(of: &NdpIncast, senders_count: u32, seed: u64) -> anyhow::Result<Incast> {
        let hosts_count = of.ports_count.pow(3) / 4;
        anyhow::ensure!(
            senders_count < hosts_count,
            "{senders_count} senders need as many hosts beside the receiver, and {} has {hosts_count}: take fewer",
            of.id
        );
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut hosts: Vec<u32> = (0..hosts_count).collect();
        hosts.shuffle(&mut random);
        let receiver = hosts[0];
        let senders: Vec<(u32, SimTime)> = hosts[1..=senders_count as usize]
            .iter()
            .map(|&host| (host, SimTime::from_ps(random.random_range(0..=JITTER.as_ps()))))
            .collect();
        // Links before the last: to the switch that both share, and down again.
        let links_before = |host: u32| match (host / (of.ports_count / 2), host / (of.ports_count / 2).pow(2)) {
            (rack, _) if rack == receiver / (of.ports_count / 2) => 1,
            (_, pod) if pod == receiver / (of.ports_count / 2).pow(2) => 3,
            _ => 5,
        };
        let nearest = senders.iter().map(|&(host, _)| links_before(host)).min().unwrap_or(5);
        let packets_count = u64::from(senders_count) * of.answer_bytes.div_ceil(PAYLOAD_BYTES.into());
        let ps = nearest * (packet_time() + DELAY).as_ps() + packets_count * packet_time().as_ps() + DELAY.as_ps();
        Ok(Incast {
            receiver,
            senders,
            optimal: SimTime::from_ps(ps),
        })
    }

    /// `None` if it was interrupted.
    fn run(&self, of: &NdpIncast, lab: &Lab<'_>, arm: &str) -> anyhow::Result<Option<Run>> {
        match arm {
            NDP => self.run_ndp(of, lab),
            DCTCP => self.run_dctcp(of, lab),
            other => anyhow::bail!("no arm is called {other}: there are {NDP} and {DCTCP}"),
        }
    }

    fn run_ndp(&self, of: &NdpIncast, lab: &Lab<'_>) -> anyhow::Result<Option<Run>> {
        let switch = SwitchOptions {
            discipline: Discipline::Trimming(TrimmingOptions {
                data: Limit::Packets(8),
                headers: Limit::Bytes(8 * u64::from(frame_bytes(PAYLOAD_BYTES))),
                headers_per_data: 10,
            }),
            returns_headers: true,
            ..SwitchOptions::default()
        };
        let flow = |&(from, start)| NdpFlow {
            from,
            to: self.receiver,
            bytes: of.answer_bytes,
            start,
        };
        let setup = NdpSetup {
            topology: fat_tree(of.ports_count, switch)?,
            options: NdpOptions {
                payload_bytes: PAYLOAD_BYTES,
                initial_window_packets: of.initial_window_packets,
                ..NdpOptions::default()
            },
            flows: self.senders.iter().map(flow).collect(),
            horizon: HORIZON,
            seed: lab.choice.seed,
        };
        let memory_bytes = setup.memory_estimate_bytes();
        memory::refuse(memory_bytes).map_err(anyhow::Error::msg)?;
        let outcome = setup.run(lab.stop);
        if outcome.is_interrupted {
            return Ok(None);
        }
        let took = |&(at, flow): &(SimTime, u32)| at.saturating_since(setup.flows[flow as usize].start);
        Ok(Some(Run {
            counters: outcome.counters,
            hash: outcome.hash,
            ended: outcome.ended,
            took: outcome.arrivals.iter().map(took).collect(),
            last: outcome.arrivals.last().map_or(SimTime::ZERO, |&(at, _)| at),
            unfinished_count: (setup.flows.len() - outcome.arrivals.len()) as u64,
            retransmissions_count: outcome.counts.retransmissions_count,
            timeouts_count: outcome.counts.timeouts_count,
            ndp: Some((outcome.counts, memory_bytes)),
        }))
    }

    fn run_dctcp(&self, of: &NdpIncast, lab: &Lab<'_>) -> anyhow::Result<Option<Run>> {
        let switch = SwitchOptions {
            discipline: Discipline::DropTail(DropTailOptions {
                limit: Limit::Packets(200),
                marking: Marking::AtEnqueue(Limit::Packets(30)),
            }),
            ..SwitchOptions::default()
        };
        let topology = fat_tree(of.ports_count, switch)?;
        let to_receiver = topology.links.iter().position(|link| link.to == self.receiver);
        let watched_link = to_receiver.context("a host without a link")? as u32;
        let flow = |&(from, start)| Flow {
            from,
            to: self.receiver,
            options: 0,
            kind: FlowKind::Finite {
                bytes: of.answer_bytes,
                start,
            },
        };
        let options = FlowOptions {
            sender: SenderOptions {
                mss_bytes: PAYLOAD_BYTES,
                rto_min: DCTCP_RTO,
                // The connection carried the question, so it has measured a round trip before it answers.
                rto_initial: DCTCP_RTO,
                ecn: EcnMode::Dctcp,
                ..SenderOptions::default()
            },
            receiver: ReceiverOptions {
                mss_bytes: PAYLOAD_BYTES,
                ecn: EcnMode::Dctcp,
                ..ReceiverOptions::default()
            },
            controller: ControllerKind::Dctcp,
            dctcp: None,
        };
        let setup = Setup {
            topology,
            options: [options].into(),
            flows: self.senders.iter().map(flow).collect(),
            queries: [].into(),
            horizon: HORIZON,
            measured_from: SimTime::ZERO,
            watched_link,
            seed: lab.choice.seed,
        };
        let outcome = setup.run(lab.stop);
        Ok((!outcome.is_interrupted).then_some(Run {
            counters: outcome.counters,
            hash: outcome.hash,
            ended: outcome.ended,
            last: outcome.ended_last,
            took: outcome.completions,
            unfinished_count: outcome.unfinished_count,
            retransmissions_count: outcome.retransmissions_count,
            timeouts_count: outcome.timeouts_count,
            ndp: None,
        }))
    }
}

fn fat_tree(ports_count: u32, switch: SwitchOptions) -> anyhow::Result<Topology> {
    let cable = Cable::new(LINK_BITS_PER_SEC, DELAY);
    Ok(Topology::fat_tree(ports_count, cable, HostOptions::default(), switch)?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{experiments::scenarios::testing::table, record::Outcome};

    #[test]
    fn claims_hold_fail_and_are_not_measured() {
        let rows = |ndp: f64, dctcp: f64, ratio: f64| {
            table(
                "senders",
                &[
                    (NDP, "431", &[(OVER, ndp), ("slowest_to_fastest_ratio", ratio)]),
                    (DCTCP, "431", &[(OVER, dctcp), ("slowest_to_fastest_ratio", 7.0)]),
                ],
            )
        };
        assert_eq!(near_the_link(&rows(1.0, 5.0, 1.1)).outcome, Outcome::Holds);
        assert_eq!(near_the_link(&rows(2.1, 5.0, 1.1)).outcome, Outcome::Fails);
        assert_eq!(near_the_link(&rows(1.0, 0.5, 1.1)).outcome, Outcome::Fails);
        assert_eq!(spread(&rows(1.0, 5.0, 1.1)).outcome, Outcome::Holds);
        assert_eq!(spread(&rows(1.0, 5.0, 1.3)).outcome, Outcome::Fails);
        let all = |at_8000: f64| {
            let row = |senders, over| (NDP, senders, over);
            let rows = ["1", "10", "100", "1000", "2000"].map(|senders| row(senders, [(OVER, 0.5)]));
            let mut rows: Vec<_> = rows.iter().map(|(arm, at, over)| (*arm, *at, &over[..])).collect();
            let last = [(OVER, at_8000)];
            rows.push((NDP, "8000", &last));
            up_to_8000(&table("senders", &rows)).outcome
        };
        assert_eq!(all(1.9), Outcome::Holds);
        assert_eq!(all(2.1), Outcome::Fails);
        assert!(matches!(
            up_to_8000(&Table::default()).outcome,
            Outcome::NotMeasured { .. }
        ));
    }

    /// One sender in another pod: five links, then 50 packets on the last.
    #[test]
    fn what_the_link_needs_is_what_one_flow_takes_that_nobody_disturbs() {
        let far = (0..).map(|seed| Incast::draw(&ON_432, 1, seed).expect("an incast"));
        let far = far
            .take(50)
            .find(|incast| incast.senders[0].0 / 36 != incast.receiver / 36);
        let ns = 5 * (7_270 + 1_000) + 50 * 7_270 + 1_000;
        assert!(far.is_some_and(|incast| incast.optimal.as_ns().abs_diff(ns) < 60));
        assert!(Incast::draw(&ON_432, 432, 1).is_err());
    }
}
