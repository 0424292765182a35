//! `fpga-line-rate`: smallest frames back to back into the leader's pipeline, and whole commits, with and without back-pressure.

use std::collections::{BTreeMap, BTreeSet};

use fpga_model::{
    frames::{CLIENT, FIRST, ack, node_at, put, setup, wrapped},
    node::{Bench, Leader, Node, Shape},
    registers,
    rng::Rng,
    stream::Pauses,
};

use super::{
    cycles::{Counted, metric, placed_mhz, stated_mhz},
    judge::measured,
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    record::{Better, Measured, Outcome, Row},
    table::Table,
};

const TRAFFIC: Axis = Axis {
    name: "traffic",
    meaning: "smallest: frames of 64 bytes that are none of ours, each of which must reach the host as it came; commits: a put and the \
              acknowledgements of all followers, over and over",
    full: &[SMALLEST, COMMITS],
    tour: &[SMALLEST, COMMITS],
    smallest: SMALLEST,
    allowed: Allowed::Words,
};

const REPLICAS: Axis = Axis {
    name: "replicas",
    meaning: "how many replicas the leader counts",
    full: &["3", "5", "7"],
    tour: &["3", "7"],
    smallest: "3",
    allowed: Allowed::Words,
};

const BEAT_BITS: Axis = Axis {
    name: "beat_bits",
    meaning: "how wide a beat is: 64 bits at 156.25 MHz are 10 Gb/s, 512 at 250 MHz 128 Gb/s",
    full: &["64", "512"],
    tour: &["64"],
    smallest: "64",
    allowed: Allowed::Words,
};

const STALL: Axis = Axis {
    name: "stall_percent",
    meaning: "in so many of a hundred cycles, drawn for each output by itself, nobody takes what it shows",
    full: &["0", "20", "50"],
    tour: &["0", "50"],
    smallest: "0",
    allowed: Allowed::Number(0.0, 95.0),
};

const SMALLEST: &str = "smallest";
const COMMITS: &str = "commits";

/// What a frame has on the wire beside what a MAC hands on: preamble 8, check sequence 4, gap 12 (IEEE 802.3, 4.2.3 and 4.4.2).
const WIRE_EXTRA_BYTES: usize = 24;
/// A frame of 64 bytes without its check sequence.
const SMALLEST_BYTES: usize = 60;
const SMALLEST_MPPS_10G: f64 = 10e9 / 8.0 / (SMALLEST_BYTES + WIRE_EXTRA_BYTES) as f64 / 1e6;
const VALUE_BYTES: usize = 64;
/// Cycles without end are a block that stands still.
const CYCLES_PER_FRAME_MAX: u64 = 10_000;
/// As often the host says how far its ring is drained; the ring has 256 entries.
const DRAIN_EVERY: u64 = 32;

const CLAIMS: &[Claim] = &[
    Claim {
        id: "fpga-line-rate",
        sentence: "At 64 bits and 156.25 MHz the pipeline takes the smallest frames of 10 GbE back to back, 14.88 million a second, \
                   however many replicas it counts",
        source: Source::Published {
            work: "István et al., Consensus in a Box, NSDI 2016; Alimadadi et al., Waverunner, NSDI 2023",
            place: "abstracts: line rate at the smallest packets",
        },
        invariant: "Frames of 60 bytes without a pause between them, which is harder than a wire's, none of them ours, all of them to the \
                    host, byte for byte. At most 10.5 cycles each: a wire has one in 84 byte times. The clock is stated.",
        judge: line_rate,
    },
    Claim {
        id: "fpga-line-rate-placed",
        sentence: "At the clock that place and route gave the leader on an ECP5 it takes those 14.88 million a second too",
        source: Source::Ours {
            seen: "a prototype without the whole parser was placed at 181 to 197 MHz",
        },
        invariant: "Cycles per frame as before, the clock of fpga/syn/TABLE.md when this was built. A MAC of 10 Gb/s with 64 bits also wants \
                    156.25 MHz itself, or a FIFO between two clocks.",
        judge: line_rate_placed,
    },
    Claim {
        id: "fpga-line-rate-commits",
        sentence: "At 64 bits and 156.25 MHz the leader takes puts of 64 bytes and all their acknowledgements as fast as 10 GbE brings \
                   them",
        source: Source::Ours {
            seen: "11 cycles for an acknowledgement of 11 beats, of which 10 GbE has one in 13.25",
        },
        invariant: "A put, then an acknowledgement of each follower, back to back; every put is answered once. Held against the mean frame \
                    of that mix on the wire.",
        judge: commits_rate,
    },
    Claim {
        id: "fpga-back-pressure",
        sentence: "Outputs that are not taken stop the input and lose nothing: every frame comes out once",
        source: Source::Ours {
            seen: "all tests of the RTL run with back-pressure",
        },
        invariant: "Rows with stalls. Frames to the host are compared byte for byte, answers are counted. Decided by equality. Who loses \
                    frames then is the MAC in front, which cannot stop the wire.",
        judge: back_pressure,
    },
    Claim {
        id: "fpga-line-rate-100g",
        sentence: "At 512 bits and 250 MHz the pipeline takes the smallest frames of 100 GbE back to back, 148.8 million a second",
        source: Source::Ours {
            seen: "a prediction from one beat per frame, made before the leader had its state machine",
        },
        invariant: "As fpga-line-rate, with at most 1.68 cycles each. Whatever the clock, a design that decides one frame before it takes \
                    the next cannot.",
        judge: line_rate_100g,
    },
];

/// See the module.
#[derive(Debug)]
pub struct FpgaLineRate;

impl Experiment for FpgaLineRate {
    fn id(&self) -> &'static str {
        "fpga-line-rate"
    }

    fn title(&self) -> &'static str {
        "Line rate at 64 bytes"
    }

    fn question(&self) -> &'static str {
        "How many frames a second does the pipeline take, and what does it do when nobody takes what it gives?"
    }

    fn how(&self) -> &'static str {
        "The cycle model of quorum_leader, which the RTL is tested against edge by edge, is shown frames without a pause: the smallest of \
         Ethernet, or a put and all its acknowledgements over and over. What is counted is cycles per frame; frames per second follow \
         from a stated clock, and from the one that place and route gave. With stalls each output is not taken in a share of the \
         cycles. Everything that comes out is compared with what must."
    }

    fn axes(&self) -> &'static [Axis] {
        &[TRAFFIC, REPLICAS, BEAT_BITS, STALL]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.1
    }

    fn is_virtual(&self) -> bool {
        true
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        for traffic in lab.values(&TRAFFIC) {
            for beat_bits in lab.numbers(&BEAT_BITS) {
                for replicas in lab.numbers(&REPLICAS) {
                    for stall_percent in lab.numbers(&STALL) {
                        if lab.interrupted() {
                            return Ok(());
                        }
                        lab.progress.set_message(format!(
                            "{traffic}, {replicas} replicas, {beat_bits} bits, {stall_percent} % stalls"
                        ));
                        let cell = Cell {
                            traffic: traffic.clone(),
                            replicas_count: replicas as u8,
                            beat_bits: beat_bits as u32,
                            stall_percent: stall_percent as u64,
                        };
                        let row = count(lab, &cell);
                        lab.record(row)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What one row counts.
#[derive(Clone, Debug)]
struct Cell {
    traffic: String,
    replicas_count: u8,
    beat_bits: u32,
    stall_percent: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    frames: u64,
    /// On the wire, with preamble, check sequence and gap.
    wire_bytes: u64,
    cycles: u64,
    commits: u64,
    /// Frames that had to come out and did not, or not as they should.
    lost: u64,
    /// Frames that came out once too often.
    surplus: u64,
    /// Frames that were left to the host, as they were: all of them when nobody's are sent, none when a leader has what it needs.
    to_host: u64,
}

fn count(lab: &Lab<'_>, cell: &Cell) -> Row {
    let frames_count = match lab.choice.depth {
        Depth::Smallest => 200,
        Depth::Tour => 2_000,
        Depth::Full => 20_000,
    };
    let counts = match cell.traffic.as_str() {
        SMALLEST => strangers(cell, lab.choice.seed, frames_count),
        _ => commits(cell, lab.choice.seed, frames_count / u64::from(cell.replicas_count)),
    };
    let axis = [
        (TRAFFIC.name, cell.traffic.clone()),
        (REPLICAS.name, cell.replicas_count.to_string()),
        (BEAT_BITS.name, cell.beat_bits.to_string()),
        (STALL.name, cell.stall_percent.to_string()),
    ];
    let axis: BTreeMap<String, String> = axis.map(|(name, value)| (name.to_owned(), value)).into();
    let mut row = Counted::new(
        lab,
        "fpga-line-rate",
        axis,
        lab.choice.seed,
        (stated_mhz(cell.beat_bits), counts.cycles),
    );
    let per_frame = counts.cycles as f64 / counts.frames as f64;
    let mpps = |mhz: f64| mhz / per_frame;
    let link_gbit = if cell.beat_bits == 64 { 10.0 } else { 100.0 };
    let line_mpps = link_gbit * 1e3 / 8.0 / (counts.wire_bytes as f64 / counts.frames as f64);
    row.put("cycles_per_frame", per_frame, "cycles", Better::Lower);
    row.put("frame_rate", mpps(stated_mhz(cell.beat_bits)), "M/s", Better::Higher);
    row.put("line_rate", line_mpps, "M/s", Better::Neither);
    if let Some(mhz) = placed_mhz("quorum_leader", &format!("DATA_W={}", cell.beat_bits)) {
        row.put("placed_rate", mpps(mhz), "M/s", Better::Higher);
        row.put("placed_clock", mhz, "MHz", Better::Neither);
    }
    for (name, value, better) in [
        ("frames", counts.frames, Better::Neither),
        ("commits", counts.commits, Better::Neither),
        ("frames_lost", counts.lost, Better::Lower),
        ("frames_surplus", counts.surplus, Better::Lower),
        ("frames_to_host", counts.to_host, Better::Lower),
    ] {
        row.put(name, value as f64, "count", better);
    }
    row.fact("link", format!("{link_gbit} GbE"));
    row.into_row()
}

/// A leader at work, with outputs that are taken at this rhythm.
fn leader(cell: &Cell, seed: u64) -> Bench<Leader> {
    let shape = match cell.beat_bits {
        64 => Shape::NARROW,
        _ => Shape::WIDE,
    };
    let mut bench = Bench::new(Leader::new(shape), shape.beat_bytes, seed, Pauses::NONE);
    bench.configure(&setup(cell.replicas_count, 0), Some(shape.nodes_count));
    bench.set_pauses(Pauses {
        idle_percent: 0,
        stall_percent: cell.stall_percent,
    });
    bench
}

/// Cycles from the first beat that was taken to the last, with `turn` for each of them.
fn until_all_is_in(bench: &mut Bench<Leader>, frames_count: u64, mut turn: impl FnMut(&mut Bench<Leader>)) -> u64 {
    let begun = bench.cycle;
    while !bench.source.is_empty() {
        turn(bench);
        let cycles = bench.cycle - begun;
        assert!(
            cycles < frames_count * CYCLES_PER_FRAME_MAX,
            "{frames_count} frames are not taken in {cycles} cycles: the leader stands still"
        );
    }
    bench.cycle - begun
}

fn strangers(cell: &Cell, seed: u64, frames_count: u64) -> Counts {
    let mut bench = leader(cell, seed);
    let mut rng = Rng::new(seed);
    // Ethernet, IPv4 and UDP are 42 of the bytes.
    let frames: Vec<Vec<u8>> = (0..frames_count)
        .map(|_| {
            let payload: [u8; SMALLEST_BYTES - 42] = std::array::from_fn(|_| rng.draw() as u8);
            wrapped(CLIENT, node_at(0), &payload)
        })
        .collect();
    frames.iter().for_each(|frame| bench.send(frame));
    let cycles = until_all_is_in(&mut bench, frames_count, |bench| bench.turn(None));
    bench.settle();
    let arrived = &bench.slow.frames;
    let right = frames
        .iter()
        .zip(arrived)
        .filter(|(sent, got)| **sent == got.bytes && !got.is_bad)
        .count() as u64;
    Counts {
        frames: frames_count,
        wire_bytes: frames.iter().map(|frame| (frame.len() + WIRE_EXTRA_BYTES) as u64).sum(),
        cycles,
        commits: 0,
        lost: frames_count - right,
        surplus: (arrived.len() as u64).saturating_sub(frames_count),
        to_host: right,
    }
}

fn commits(cell: &Cell, seed: u64, puts_count: u64) -> Counts {
    let mut bench = leader(cell, seed);
    let mut wire_bytes = 0;
    let mut acks = BTreeSet::new();
    let mut send = |bench: &mut Bench<Leader>, frame: &[u8]| {
        wire_bytes += (frame.len() + WIRE_EXTRA_BYTES) as u64;
        bench.send(frame);
    };
    for index in 1..=puts_count {
        send(&mut bench, &put(index, &[0x61; VALUE_BYTES]));
        for node in 1..cell.replicas_count {
            let ack = ack(node, FIRST + index);
            send(&mut bench, &ack);
            acks.insert(ack);
        }
    }
    let frames = puts_count * u64::from(cell.replicas_count);
    let mut drained = FIRST;
    let cycles = until_all_is_in(&mut bench, frames, |bench| {
        let outputs = bench.node.outputs();
        if outputs.commit_end >= drained + DRAIN_EVERY {
            drained = outputs.commit_end;
            bench.turn(Some((registers::DRAINED_END, drained)));
        } else {
            bench.turn(None);
        }
    });
    bench.settle();
    let answers = bench.tx.frames.iter().filter(|frame| frame.bytes[..6] == CLIENT.mac.0);
    let answers = answers.count() as u64;
    let left = bench.slow.frames.iter();
    let to_host = left
        .filter(|frame| !frame.is_bad && acks.contains(&frame.bytes))
        .count() as u64;
    Counts {
        frames,
        wire_bytes,
        cycles,
        commits: bench.node.outputs().commit_end - FIRST,
        lost: puts_count.saturating_sub(answers),
        surplus: answers.saturating_sub(puts_count) + bench.slow.frames.len() as u64 - to_host,
        to_host,
    }
}

fn rows<'a>(table: &'a Table, wanted: &[(&str, &str)]) -> Vec<&'a Row> {
    let has = |row: &Row| {
        wanted
            .iter()
            .all(|(name, value)| row.axis.get(*name).is_some_and(|have| have == value))
    };
    table.valid().filter(|row| has(row)).collect()
}

/// Every row with these values meets the demand.
fn all_rows(
    table: &Table,
    wanted: &[(&str, &str)],
    (what, unit, limit): (&str, &str, &str),
    value: impl Fn(&Row) -> Option<f64>,
    meets: impl Fn(f64, &Row) -> bool,
) -> Judgement {
    let rows = rows(table, wanted);
    if rows.is_empty() {
        let asked: Vec<String> = wanted.iter().map(|(name, value)| format!("{name}={value}")).collect();
        return Judgement::not_measured(format!("nothing was counted with {}", asked.join(" ")));
    }
    let figure = |row: &&Row| -> Measured {
        let get = |axis: &Axis| row.axis.get(axis.name).map_or("", String::as_str);
        let what = format!(
            "{what}, {}, {} replicas, {} bits, {} % stalls",
            get(&TRAFFIC),
            get(&REPLICAS),
            get(&BEAT_BITS),
            get(&STALL)
        );
        let samples = metric(row, "frames").unwrap_or(0.0) as u64;
        measured(what, value(row), unit, limit, samples)
    };
    let holds = rows.iter().all(|row| {
        let lost = metric(row, "frames_lost").unwrap_or(1.0) + metric(row, "frames_surplus").unwrap_or(1.0);
        lost == 0.0 && value(row).is_some_and(|value| meets(value, row))
    });
    let outcome = if holds { Outcome::Holds } else { Outcome::Fails };
    Judgement::new(outcome, rows.iter().map(figure).collect())
}

fn per_frame(row: &Row) -> Option<f64> {
    metric(row, "cycles_per_frame")
}

fn line_rate(table: &Table) -> Judgement {
    let wanted = [("traffic", SMALLEST), ("beat_bits", "64"), ("stall_percent", "0")];
    let what = ("cycles per frame", "cycles", "≤ 10.5, and none lost");
    all_rows(table, &wanted, what, per_frame, |cycles, _| cycles <= 10.5)
}

fn line_rate_100g(table: &Table) -> Judgement {
    let wanted = [("traffic", SMALLEST), ("beat_bits", "512"), ("stall_percent", "0")];
    let what = ("cycles per frame", "cycles", "≤ 1.68, and none lost");
    all_rows(table, &wanted, what, per_frame, |cycles, _| cycles <= 1.68)
}

fn line_rate_placed(table: &Table) -> Judgement {
    let wanted = [("traffic", SMALLEST), ("beat_bits", "64"), ("stall_percent", "0")];
    let rows = rows(table, &wanted);
    if !rows.is_empty() && rows.iter().all(|row| metric(row, "placed_rate").is_none()) {
        return Judgement::not_measured(
            "the leader was not placed and routed when this dplab was built: scripts/syn does it, and a build after it knows the clock",
        );
    }
    let what = ("frames per second at the placed clock", "M/s", "≥ 14.88");
    let value = |row: &Row| metric(row, "placed_rate");
    all_rows(table, &wanted, what, value, |mpps, _| mpps >= SMALLEST_MPPS_10G)
}

fn commits_rate(table: &Table) -> Judgement {
    let wanted = [("traffic", COMMITS), ("beat_bits", "64"), ("stall_percent", "0")];
    let what = ("frames taken ÷ frames of 10 GbE", "ratio", "≥ 1");
    let value = |row: &Row| Some(metric(row, "frame_rate")? / metric(row, "line_rate")?);
    all_rows(table, &wanted, what, value, |ratio, _| ratio >= 1.0)
}

fn back_pressure(table: &Table) -> Judgement {
    let stalled: Vec<Row> = table
        .valid()
        .filter(|row| row.axis.get(STALL.name).is_some_and(|stall| stall != "0"))
        .cloned()
        .collect();
    let stalled = Table {
        rows: stalled,
        seed: table.seed,
    };
    if stalled.rows.is_empty() {
        return Judgement::not_measured("nothing was counted with stalls: --axis stall_percent=50");
    }
    let what = ("frames that are missing, wrong or too many", "count", "0");
    let value = |row: &Row| Some(metric(row, "frames_lost")? + metric(row, "frames_surplus")?);
    all_rows(&stalled, &[], what, value, |count, _| count == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    fn cell(traffic: &str, replicas_count: u8, stall_percent: u64) -> Cell {
        Cell {
            traffic: traffic.to_owned(),
            replicas_count,
            beat_bits: 64,
            stall_percent,
        }
    }

    #[test]
    fn nothing_is_lost_with_or_without_stalls() {
        for stall_percent in [0, 50] {
            let counts = strangers(&cell(SMALLEST, 3, stall_percent), 7, 300);
            assert_eq!((counts.lost, counts.surplus), (0, 0), "{counts:?}");
            for replicas_count in [3, 7] {
                let counts = commits(&cell(COMMITS, replicas_count, stall_percent), 7, 300);
                assert_eq!((counts.commits, counts.lost, counts.surplus), (300, 0, 0), "{counts:?}");
                assert_eq!(counts.to_host, 0, "{counts:?}");
            }
        }
    }

    #[test]
    fn a_slower_pipeline_and_a_lost_frame_are_seen() {
        let judge = |cycles: f64, lost: f64| {
            let row = row_of(
                &[
                    ("traffic", SMALLEST),
                    ("replicas", "3"),
                    ("beat_bits", "64"),
                    ("stall_percent", "0"),
                ],
                &[
                    ("cycles_per_frame", cycles),
                    ("frames_lost", lost),
                    ("frames_surplus", 0.0),
                ],
            );
            line_rate(&Table {
                rows: vec![row],
                seed: 1,
            })
            .outcome
        };
        assert_eq!(judge(10.5, 0.0), Outcome::Holds);
        assert_eq!(judge(10.6, 0.0), Outcome::Fails);
        assert_eq!(judge(8.0, 1.0), Outcome::Fails);
    }
}
