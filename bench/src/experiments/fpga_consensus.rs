//! `fpga-consensus`: a commit in a pipeline, counted in cycles, beside the same commit in the driver and in user space.

use std::collections::BTreeMap;

use fpga_model::{
    cluster::{Cluster, Commit},
    node::Shape,
    rng::Rng,
};

use super::{
    cycles::{Counted, metric, placed_mhz, stated_mhz},
    judge::{self, Bound, measured},
    xdp_quorum::{
        Cell, SOCKET, run_cells,
        ways::{DRIVER, USER},
    },
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    record::{Better, Outcome, Row},
    table::{Arm, ROUNDS_MIN, Table, latency_ns},
};

const WAY: Axis = Axis {
    name: "way",
    meaning: "pipeline: cycle models of the RTL, at a stated clock; driver: XDP programs in the hosts' drivers do all of the normal case; \
              user: replicas in user space over kernel sockets",
    full: &[PIPELINE, USER, DRIVER],
    tour: &[PIPELINE],
    smallest: PIPELINE,
    allowed: Allowed::Words,
};

const REPLICAS: Axis = Axis {
    name: "replicas",
    meaning: "how many replicas: a leader and its followers",
    full: &["3", "5", "7"],
    tour: &["3", "5", "7"],
    smallest: "3",
    allowed: Allowed::Words,
};

const BEAT_BITS: Axis = Axis {
    name: "beat_bits",
    meaning: "pipeline: how wide a beat of its streams is",
    full: &["64", "512"],
    tour: &["64", "512"],
    smallest: "64",
    allowed: Allowed::Words,
};

const AXES: &[Axis] = &[WAY, REPLICAS, BEAT_BITS];

const PIPELINE: &str = "pipeline";
/// As the client of software's ways: [`Cell::plain`].
const VALUE_BYTES: usize = 64;
/// The most cycles of silence before a put, drawn for each: some frames long.
const REST_CYCLES_MAX: u64 = 64;
/// Seeds of a full run, as many as the tests of the RTL have.
const SEEDS: u64 = 16;

const COMMIT_CYCLES_MAX_NARROW: f64 = 13.0;
const COMMIT_CYCLES_MAX_WIDE: f64 = 6.0;
/// An acknowledgement of 82 bytes in beats of 8.
const ACK_BEATS_NARROW: f64 = 11.0;
/// What software's tail must have more than none: well beyond what a histogram of three digits rounds.
const TAIL_RATIO_MIN: f64 = 1.05;

const NSDI_16: Source = Source::Published {
    work: "István, Sidler, Alonso and Vukolić, Consensus in a Box: inexpensive coordination in hardware, NSDI 2016; Alimadadi et al., \
           Waverunner: an elegant approach to hardware acceleration of state machine replication, NSDI 2023",
    place: "abstracts: replication in the NIC's pipeline at line rate; Waverunner's p99 is 1.8 µs unbatched",
};

const CLAIMS: &[Claim] = &[
    Claim {
        id: "fpga-consensus",
        sentence: "Quorum replication in a pipeline has no tail: every commit of a cluster at rest takes the same number of cycles, from \
                   the put's first beat to the last of its answer, so that p99 is p50",
        source: NSDI_16,
        invariant: "The cycle models of leader and followers, which the RTL is tested against edge by edge. One put at a time, after a \
                    silence drawn from the seed; every stage of it. Decided by equality, in cycles. Nothing is said of MACs, \
                    transceivers, cables, switches and clock domains, which have jitter of their own.",
        judge: no_tail,
    },
    Claim {
        id: "fpga-commit-cycles",
        sentence: "From the first beat of the acknowledgement that completes a quorum to the commit it takes at most 13 cycles at 64 bits \
                   and 6 at 512, among three, five and seven",
        source: Source::Ours {
            seen: "11 beats, then check, count and choose; Caribou's sequential design (VLDB 2017) asks one peer a cycle",
        },
        invariant: "As fpga-consensus. Decided by the largest of all rows, in cycles: the votes are a matrix of bits, so that more nodes \
                    take no longer to count.",
        judge: commit_cycles,
    },
    Claim {
        id: "fpga-acks-in-line",
        sentence: "More followers cost a commit only the acknowledgements that enter the leader's one port before: 11 cycles at 64 bits \
                   for every two followers more",
        source: Source::Ours {
            seen: "a prediction: the quorum is complete with the first, second and third acknowledgement among three, five and seven",
        },
        invariant: "All followers are equally far away, so that their acknowledgements come at once and wait for each other. Decided by \
                    equality, in cycles.",
        judge: acks_in_line,
    },
    Claim {
        id: "fpga-tail-beside-software",
        sentence: "The same commit in software has a tail, in the driver and in user space: p99 ÷ p50 is at least 1.05, and that of the \
                   pipeline 1.00",
        source: Source::Ours {
            seen: "xdp-quorum: p99 is some times p50 in the driver, because now and then a replica or the kernel needs the CPU",
        },
        invariant: "Three replicas, 64-byte values, one request in flight. Software's is the ratio of one run's own quantiles, over rounds, \
                    path length on one CPU; the pipeline's counts no client. What is compared is the width of each histogram and not where it \
                    stands: they do not begin and end at the same places.",
        judge: software_has_a_tail,
    },
    Claim {
        id: "fpga-beside-rdma",
        sentence: "One-sided replication by an RDMA NIC commits in less than 1.3 µs, and has a wider tail than the pipeline",
        source: Source::Published {
            work: "Aguilera et al., Microsecond consensus for microsecond applications (Mu), OSDI 2020",
            place: "abstract",
        },
        invariant: "Needs an RDMA NIC in three hosts.",
        judge: beside_rdma,
    },
];

/// See the module.
#[derive(Debug)]
pub struct FpgaConsensus;

impl Experiment for FpgaConsensus {
    fn id(&self) -> &'static str {
        "fpga-consensus"
    }

    fn title(&self) -> &'static str {
        "A commit in a pipeline"
    }

    fn question(&self) -> &'static str {
        "How many cycles does a commit take in hardware, and how wide is its histogram beside software's?"
    }

    fn how(&self) -> &'static str {
        "A leader and its followers as cycle models of fpga/rtl, joined by wires of one cycle. A put of 64 bytes enters the leader; its \
         append, the followers' acknowledgements, the commit and the client's answer are counted in cycles of one clock. Nanoseconds \
         beside them are those of a clock that is stated (156.25 MHz at 64 bits, 250 MHz at 512), and of the one that place and route \
         gave the leader, if it was placed. The ways user and driver are those of xdp-quorum, which sends the same puts over a bridge \
         between namespaces, everything on one CPU. Cycles are exact and software's microseconds are measured; they do not begin and \
         end at the same places, so what is compared is how wide the histograms are. A simulation knows nothing of PHY, MAC, PCIe."
    }

    fn axes(&self) -> &'static [Axis] {
        AXES
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![SOCKET]
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.1
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its replicas are cycle models, and processes in network namespaces of this machine")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let ways = lab.values(&WAY);
        let replicas = lab.numbers(&REPLICAS);
        if ways.iter().any(|way| way == PIPELINE) {
            for beat_bits in lab.numbers(&BEAT_BITS) {
                for &replicas in &replicas {
                    if lab.interrupted() {
                        return Ok(());
                    }
                    lab.progress
                        .set_message(format!("pipeline, {replicas} replicas, {beat_bits} bits"));
                    let row = count(lab, replicas as u8, beat_bits as u32);
                    lab.record(row)?;
                }
            }
        }
        let software = ways.iter().filter(|way| *way != PIPELINE);
        let cells: Vec<Cell> = software
            .flat_map(|way| replicas.iter().map(move |&count| Cell::plain(way, count as usize)))
            .collect();
        match cells.is_empty() {
            true => Ok(()),
            false => run_cells(self, lab, cells),
        }
    }
}

/// A stage's cycles, of a commit's.
type Stage = fn(&Commit) -> u64;

/// The stages of a commit, by name.
const STAGES: [(&str, Stage); 6] = [
    ("put_to_append", |commit| commit.appended),
    ("append_to_ack", |commit| commit.follower),
    ("ack_to_commit", |commit| commit.committed - commit.decided),
    ("put_to_commit", |commit| commit.committed),
    ("put_to_answer", |commit| commit.answered),
    ("put_to_answer_end", |commit| commit.done),
];

/// The model's row of so many replicas.
fn count(lab: &Lab<'_>, replicas_count: u8, beat_bits: u32) -> Row {
    let shape = match beat_bits {
        64 => Shape::NARROW,
        _ => Shape::WIDE,
    };
    let (seeds, puts_count) = match lab.choice.depth {
        Depth::Smallest => (2, 20),
        Depth::Tour => (4, 100),
        Depth::Full => (SEEDS, 250),
    };
    let mut commits: Vec<Commit> = Vec::new();
    let mut cycles = 0;
    for index in 0..seeds {
        let mut rng = Rng::new(lab.choice.seed.wrapping_add(index << 32));
        let mut cluster = Cluster::new(shape, replicas_count);
        for _ in 0..puts_count {
            if lab.interrupted() {
                break;
            }
            let value: [u8; VALUE_BYTES] = std::array::from_fn(|_| rng.draw() as u8);
            commits.push(cluster.put(&value, rng.below(REST_CYCLES_MAX)));
        }
        cycles += cluster.cycle();
    }
    let axis = BTreeMap::from([
        (WAY.name.to_owned(), PIPELINE.to_owned()),
        (REPLICAS.name.to_owned(), replicas_count.to_string()),
        (BEAT_BITS.name.to_owned(), beat_bits.to_string()),
    ]);
    let mut row = Counted::new(
        lab,
        "fpga-consensus",
        axis,
        lab.choice.seed,
        (stated_mhz(beat_bits), cycles),
    );
    row.latencies(commits.iter().map(|commit| commit.done));
    let placed = placed_mhz("quorum_leader", &format!("DATA_W={beat_bits}"));
    let mut spread_max = 0;
    for (name, stage) in STAGES {
        let (min, max) = (commits.iter().map(stage).min(), commits.iter().map(stage).max());
        let (min, max) = (min.unwrap_or(0), max.unwrap_or(0));
        spread_max = spread_max.max(max - min);
        row.cycles(name, max);
        row.put(&format!("{name}_stated"), row.ns(max as f64), "ns", Better::Lower);
        if let Some(mhz) = placed {
            row.put(&format!("{name}_placed"), max as f64 * 1e3 / mhz, "ns", Better::Lower);
        }
    }
    row.cycles("spread_max", spread_max);
    row.put("commits", commits.len() as f64, "count", Better::Neither);
    row.fact("seeds", seeds.to_string());
    row.fact(
        "placed_clock",
        match placed {
            Some(mhz) => format!("{mhz} MHz for the leader between registers (fpga/syn/TABLE.md)"),
            None => "not placed here: scripts/syn places blocks and writes fpga/syn/TABLE.md".to_owned(),
        },
    );
    row.fact(
        "guarantee",
        format!(
            "memory of the devices: {} of {replicas_count} have it in the stream to their hosts' rings; it is gone when a majority of \
             them loses power",
            replicas_count / 2 + 1
        ),
    );
    row.fact(
        "caveat",
        "cycles of models, from beat to beat: no PHY, MAC, switch, PCIe or clock crossing is in them, and no client; ns are those of a \
         stated clock. Not to be subtracted from, or divided by, what software's client measured",
    );
    row.into_row()
}

fn pipelines(table: &Table) -> impl Iterator<Item = &Row> {
    table
        .valid()
        .filter(|row| row.axis.get(WAY.name).is_some_and(|way| way == PIPELINE))
}

fn axis_number(row: &Row, axis: &Axis) -> f64 {
    row.axis
        .get(axis.name)
        .and_then(|value| value.parse().ok())
        .unwrap_or(f64::NAN)
}

fn describe(row: &Row) -> String {
    format!(
        "{} replicas, {} bits",
        axis_number(row, &REPLICAS),
        axis_number(row, &BEAT_BITS)
    )
}

fn no_pipeline() -> Judgement {
    Judgement::not_measured("the pipeline was not counted in this run: add way=pipeline")
}

/// Holds if all figures do.
fn decided(holds: bool, figures: Vec<crate::record::Measured>) -> Judgement {
    let outcome = if holds { Outcome::Holds } else { Outcome::Fails };
    Judgement::new(outcome, figures)
}

fn no_tail(table: &Table) -> Judgement {
    let rows: Vec<&Row> = pipelines(table).collect();
    if rows.is_empty() {
        return no_pipeline();
    }
    let spread = |row: &Row| metric(row, "spread_max_cycles").unwrap_or(f64::NAN);
    let figures = rows.iter().map(|row| {
        let samples = metric(row, "commits").unwrap_or(0.0) as u64;
        let what = format!("longest − shortest of any stage, {}", describe(row));
        measured(what, Some(spread(row)), "cycles", "0", samples)
    });
    let figures = figures.collect();
    decided(rows.iter().all(|row| spread(row) == 0.0), figures)
}

fn commit_cycles(table: &Table) -> Judgement {
    let rows: Vec<&Row> = pipelines(table).collect();
    if rows.is_empty() {
        return no_pipeline();
    }
    let limit = |row: &Row| match axis_number(row, &BEAT_BITS) {
        64.0 => COMMIT_CYCLES_MAX_NARROW,
        _ => COMMIT_CYCLES_MAX_WIDE,
    };
    let value = |row: &Row| metric(row, "ack_to_commit_cycles").unwrap_or(f64::NAN);
    let figures = rows.iter().map(|row| {
        let what = format!("first beat to commit, {}", describe(row));
        measured(
            what,
            Some(value(row)),
            "cycles",
            format!("≤ {}", limit(row)),
            metric(row, "commits").unwrap_or(0.0) as u64,
        )
    });
    let figures = figures.collect();
    decided(rows.iter().all(|row| value(row) <= limit(row)), figures)
}

fn acks_in_line(table: &Table) -> Judgement {
    let at = |replicas: f64| {
        let mut rows = pipelines(table).filter(|row| axis_number(row, &BEAT_BITS) == 64.0);
        rows.find(|row| axis_number(row, &REPLICAS) == replicas)
            .and_then(|row| metric(row, "put_to_commit_cycles"))
    };
    let pairs = [(3.0, 5.0), (5.0, 7.0)].map(|(fewer, more)| (fewer, more, at(fewer).zip(at(more))));
    let known: Vec<(f64, f64, f64)> = pairs
        .into_iter()
        .filter_map(|(fewer, more, both)| both.map(|(a, b)| (fewer, more, b - a)))
        .collect();
    if known.is_empty() {
        return Judgement::not_measured("it takes the pipeline with 64 bits and two numbers of replicas");
    }
    let figures = known.iter().map(|(fewer, more, cycles)| {
        let what = format!("put to commit among {more}, less that among {fewer}");
        measured(what, Some(*cycles), "cycles", ACK_BEATS_NARROW.to_string(), 1)
    });
    let figures = figures.collect();
    decided(known.iter().all(|(.., cycles)| *cycles == ACK_BEATS_NARROW), figures)
}

fn software_has_a_tail(table: &Table) -> Judgement {
    let pipeline = no_tail(table);
    if !matches!(pipeline.outcome, Outcome::Holds) {
        return pipeline;
    }
    let software = [DRIVER, USER].map(|way| {
        let axes = [(WAY.name, way), (REPLICAS.name, "3")];
        let arm = Arm::of(SOCKET, &axes);
        let rows = table.arm(arm);
        if rows.len() < ROUNDS_MIN {
            return table.lacking(arm);
        }
        let of = |q: f64| rows.iter().filter_map(|row| latency_ns(q)(row)).collect::<Vec<f64>>();
        judge::ratio_of(
            table,
            &format!("p99 ÷ p50, {way}, three replicas"),
            (&of(0.99), &of(0.5)),
            Bound::AtLeast(TAIL_RATIO_MIN),
        )
    });
    judge::all(software.into())
}

fn beside_rdma(_: &Table) -> Judgement {
    Judgement::not_measured(
        "RDMA is not measured here, because it takes NICs that write into memory by themselves: RoCE in software is this machine's \
         CPU at work, so that its tail would be the CPU's and not a NIC's",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    fn table(rows: Vec<Row>) -> Table {
        Table { rows, seed: 1 }
    }

    fn pipeline(replicas: &str, beat_bits: &str, metrics: &[(&str, f64)]) -> Row {
        row_of(
            &[("way", PIPELINE), ("replicas", replicas), ("beat_bits", beat_bits)],
            metrics,
        )
    }

    #[test]
    fn one_cycle_more_or_less_is_seen() {
        let judge = |spread: f64| no_tail(&table(vec![pipeline("3", "64", &[("spread_max_cycles", spread)])])).outcome;
        assert_eq!(judge(0.0), Outcome::Holds);
        assert_eq!(judge(1.0), Outcome::Fails);
        let judge = |bits, cycles: f64| {
            commit_cycles(&table(vec![pipeline("7", bits, &[("ack_to_commit_cycles", cycles)])])).outcome
        };
        assert_eq!(judge("64", 13.0), Outcome::Holds);
        assert_eq!(judge("64", 14.0), Outcome::Fails);
        assert_eq!(judge("512", 6.0), Outcome::Holds);
        assert_eq!(judge("512", 7.0), Outcome::Fails);
    }

    #[test]
    fn followers_that_cost_another_number_of_cycles_are_seen() {
        let judge = |five: f64| {
            let rows = [("3", 100.0), ("5", five)];
            let rows = rows.map(|(replicas, cycles)| pipeline(replicas, "64", &[("put_to_commit_cycles", cycles)]));
            acks_in_line(&table(rows.into())).outcome
        };
        assert_eq!(judge(111.0), Outcome::Holds);
        assert_eq!(judge(112.0), Outcome::Fails);
    }

    #[test]
    fn without_rows_nothing_is_judged() {
        for claim in CLAIMS {
            let outcome = (claim.judge)(&Table::default()).outcome;
            assert!(matches!(outcome, Outcome::NotMeasured { .. }), "{}", claim.id);
        }
    }
}
