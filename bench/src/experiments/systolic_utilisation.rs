//! `systolic-utilisation`: how many of an array's multipliers multiply, by how much it is given at once; beside this CPU, and beside
//! what was published of one such array.

mod tpu;

use std::{collections::BTreeMap, time::Duration};

use fpga_cpu::{Way, product::Weights};
use fpga_model::{
    rng::Rng,
    systolic::{Inputs, Schedule, Systolic, cycles, utilisation},
};

use super::{
    cpu_work,
    cycles::{Counted, metric, placed_mhz},
    judge::{self, Bound, measured},
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    record::{Better, Outcome, Row},
    table::{Arm, ROUNDS_MIN, Table},
};

const PART: Axis = Axis {
    name: "part",
    meaning: "array: the cycle model, held against the formula; cpu: the same products on one core; tpu: the same formula with the \
              figures of TPU v1 and its weights' bandwidth, beside what was published",
    full: &[ARRAY, CPU, TPU],
    tour: &[ARRAY, TPU],
    smallest: ARRAY,
    allowed: Allowed::Words,
};

const SIDE: Axis = Axis {
    name: "side",
    meaning: "array: elements along each side",
    full: &["8", "16", "32"],
    tour: &["8"],
    smallest: "8",
    allowed: Allowed::Number(2.0, 64.0),
};

const BATCH: Axis = Axis {
    name: "batch",
    meaning: "array, cpu: rows of activations for each tile of weights",
    full: &["1", "8", "23", "64", "256"],
    tour: &["1", "64"],
    smallest: "8",
    allowed: Allowed::Number(1.0, 4_096.0),
};

const WAY: Axis = Axis {
    name: "way",
    meaning: "cpu: plain loops, 256-bit registers (vpmaddwd), or 512-bit ones with VNNI (vpdpbusd)",
    full: &["scalar", "avx2", "avx512"],
    tour: &["avx512"],
    smallest: "scalar",
    allowed: Allowed::Words,
};

const ARRAY: &str = "array";
const CPU: &str = "cpu";
const TPU: &str = "tpu";

/// Tiles one after another: weights of the next are shifted in while the last is used.
const TILES: usize = 4;
/// The depth and the columns of the CPU's weights: 64 KiB, as a tile of TPU v1's.
const CPU_SIDE: usize = 256;
/// Stated: what a prototype of 8 × 8 reached on an ECP5.
const ARRAY_MHZ: f64 = 100.0;
/// Random shapes of a full run, beside those of the axes.
const SHAPES: usize = 60;
const TRIAL_MIN: Duration = Duration::from_millis(30);

const CLAIMS: &[Claim] = &[
    Claim {
        id: "systolic-cycles",
        sentence: "T tiles of M rows take an array of N × N exactly 3N + M + (T − 1) · max(M, 3N − 1) cycles",
        source: Source::Ours {
            seen: "SCALE-Sim (ISPASS 2020) has 2N + N + M − 2 for one tile; two more are the registered swap and output",
        },
        invariant: "The cycle model on the shapes of the axes and on random ones, each result compared with the product; the RTL is \
                    compared with the model edge by edge in fpga/tb. Decided by equality.",
        judge: formula,
    },
    Claim {
        id: "systolic-utilisation",
        sentence: "A weight-stationary array does 2 · N² operations a cycle times its utilisation, and small batches starve it: one row a \
                   tile uses less than 5 % of it, 256 rows more than 90 %",
        source: Source::Published {
            work: "Jouppi et al., In-datacenter performance analysis of a tensor processing unit, ISCA 2017",
            place: "section 2: a tile's matrix operation takes B cycles for B rows; section 4: small batches, for response time",
        },
        invariant: "The cycle model, four tiles one after another. Decided for every side that was counted.",
        judge: starves,
    },
    Claim {
        id: "tpu-memory-bound",
        sentence: "Weights from memory alone explain how idle TPU v1's array was with the two multilayer perceptrons: B rows a tile keep it \
                   busy for B of the 1,349 cycles that a tile of 64 KiB takes at 34 GB/s and 700 MHz",
        source: tpu::PAPER,
        invariant: "The prediction is at most 25 % beside the published share of active cycles. The other four applications stand beside it \
                    without a bound: the model explains neither the LSTMs (4.7 and 7.1 % predicted, 8.2 and 10.5 % published) nor the \
                    convolutions (100 % predicted, 78 and 46 % published).",
        judge: tpu::explains,
    },
    Claim {
        id: "systolic-beside-vnni",
        sentence: "One core of this machine with VNNI multiplies more than ten times as fast as an array of 8 × 8 at 100 MHz with its \
                   multipliers always busy, at 256 rows a tile",
        source: Source::Ours {
            seen: "492 to 528 GMAC/s on an EPYC's core, against 64 × 100 MHz = 6.4",
        },
        invariant: "The median of six rounds or more, int8 with sums of 32 bits, 64 KiB of weights in the cache. The array's figure is a \
                    peak at a clock that is stated.",
        judge: beside_vnni,
    },
];

/// See the module.
#[derive(Debug)]
pub struct SystolicUtilisation;

impl Experiment for SystolicUtilisation {
    fn id(&self) -> &'static str {
        "systolic-utilisation"
    }

    fn title(&self) -> &'static str {
        "A systolic array's utilisation"
    }

    fn question(&self) -> &'static str {
        "How many of a systolic array's multipliers multiply, and what does that come to beside a CPU?"
    }

    fn how(&self) -> &'static str {
        "The cycle model of fpga/rtl's weight-stationary array multiplies random int8 matrices; the cycles that it takes are held \
         against a formula, and every result against the product. The same products run on one core, in plain loops and with the \
         vector instructions that it has, in rounds. The formula with the figures of TPU v1, whose weights come from memory at \
         34 GB/s, stands beside its published utilisation. Peaks and ridges (operations per byte of weights beyond which memory is not \
         the bound) are in each row."
    }

    fn axes(&self) -> &'static [Axis] {
        &[PART, SIDE, BATCH, WAY]
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
        let parts = lab.values(&PART);
        if parts.iter().any(|part| part == ARRAY) {
            for side in lab.numbers(&SIDE) {
                for batch in lab.numbers(&BATCH) {
                    if lab.interrupted() {
                        return Ok(());
                    }
                    lab.progress.set_message(format!("{side} × {side}, {batch} rows"));
                    let row = count(lab, side as usize, batch as usize);
                    lab.record(row)?;
                }
            }
            let row = shapes(lab);
            lab.record(row)?;
        }
        if parts.iter().any(|part| part == TPU) {
            for application in &tpu::APPLICATIONS {
                let row = tpu::predict(lab, application);
                lab.record(row)?;
            }
        }
        match parts.iter().any(|part| part == CPU) {
            true => on_cpu(self, lab),
            false => Ok(()),
        }
    }
}

/// What the model does with `tiles` tiles of `rows` rows: cycles, and whether every result was right.
fn modelled(side: usize, rows: usize, tiles: usize, rng: &mut Rng) -> (u64, bool) {
    let schedule = Schedule::random(side, rows, tiles, rng);
    let mut array = Systolic::new(side);
    let quiet = Inputs {
        weights: None,
        activations: None,
    };
    let expected = schedule.expected();
    let (mut got, mut last, mut is_right) = (0, 0, true);
    // Some cycles more than the formula has, so that a model that takes longer is seen.
    let limit = 2 * cycles(side as u64, rows as u64, tiles as u64);
    for cycle in 0..limit {
        if let Some(sums) = array.shows() {
            is_right &= expected.get(got) == Some(&sums);
            got += 1;
            last = cycle;
        }
        array.clock(&schedule.inputs(cycle as usize).unwrap_or(quiet.clone()));
    }
    (last + 1, is_right && got == expected.len())
}

fn axis(part: &str, rest: &[(&str, String)]) -> BTreeMap<String, String> {
    let part = [(PART.name.to_owned(), part.to_owned())];
    let rest = rest.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    part.into_iter().chain(rest).collect()
}

fn count(lab: &Lab<'_>, side: usize, batch: usize) -> Row {
    let mut rng = Rng::new(lab.choice.seed);
    let (took, is_right) = modelled(side, batch, TILES, &mut rng);
    let (side_u64, batch_u64, tiles) = (side as u64, batch as u64, TILES as u64);
    let said = cycles(side_u64, batch_u64, tiles);
    let axis = axis(ARRAY, &[(SIDE.name, side.to_string()), (BATCH.name, batch.to_string())]);
    let (mhz, whose) = match placed_mhz("systolic_array", "N=8") {
        Some(mhz) if side == 8 => (mhz, "placed and routed (fpga/syn/TABLE.md)"),
        _ => (ARRAY_MHZ, "stated, not placed here"),
    };
    let mut row = Counted::new(lab, "systolic-utilisation", axis, lab.choice.seed, (mhz, took));
    row.cycles("model", took);
    row.cycles("formula", said);
    let busy = (batch * TILES) as f64 / took as f64;
    row.put("utilisation", busy, "ratio", Better::Higher);
    row.put(
        "formula_share",
        utilisation(side_u64, batch_u64, tiles),
        "ratio",
        Better::Higher,
    );
    row.put("wrong", f64::from(u8::from(!is_right)), "count", Better::Lower);
    row.put("shapes", 1.0, "count", Better::Neither);
    row.put("mismatches", f64::from(u8::from(took != said)), "count", Better::Lower);
    let peak = (side * side) as f64 * mhz * 1e6;
    row.put("product_rate", peak * busy / 1e9, "GMAC/s", Better::Higher);
    row.put("peak", peak / 1e9, "GMAC/s", Better::Neither);
    row.fact("clock", format!("{mhz} MHz, {whose}"));
    row.fact("tiles", TILES.to_string());
    row.into_row()
}

/// Random shapes, all in one row.
fn shapes(lab: &Lab<'_>) -> Row {
    let count = match lab.choice.depth {
        Depth::Smallest => 5,
        Depth::Tour => 20,
        Depth::Full => SHAPES,
    };
    let mut rng = Rng::new(lab.choice.seed);
    let (mut mismatches, mut wrong, mut elapsed) = (0, 0, 0);
    for _ in 0..count {
        let side = 2 + rng.below(15) as usize;
        let (rows, tiles) = (1 + rng.below(80) as usize, 1 + rng.below(5) as usize);
        let (took, is_right) = modelled(side, rows, tiles, &mut rng);
        mismatches += u32::from(took != cycles(side as u64, rows as u64, tiles as u64));
        wrong += u32::from(!is_right);
        elapsed += took;
    }
    let axis = axis(
        ARRAY,
        &[(SIDE.name, "random".to_owned()), (BATCH.name, "random".to_owned())],
    );
    let mut row = Counted::new(lab, "systolic-utilisation", axis, lab.choice.seed, (ARRAY_MHZ, elapsed));
    row.put("shapes", count as f64, "count", Better::Neither);
    row.put("mismatches", mismatches.into(), "count", Better::Lower);
    row.put("wrong", wrong.into(), "count", Better::Lower);
    row.into_row()
}

fn on_cpu(experiment: &SystolicUtilisation, lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let wanted = lab.values(&WAY);
    let (here, absent): (Vec<Way>, Vec<Way>) = Way::ALL
        .into_iter()
        .filter(|way| wanted.iter().any(|name| name == way.name()))
        .partition(|way| way.is_here());
    for way in absent {
        lab.say(&format!(
            "way={} is left out: this CPU has no such instructions",
            way.name()
        ));
    }
    let batches = lab.numbers(&BATCH);
    let arms: Vec<(Way, usize)> = here
        .into_iter()
        .flat_map(|way| batches.iter().map(move |&batch| (way, batch as usize)))
        .collect();
    let mut rng = Rng::new(lab.choice.seed);
    let mut bytes = |count: usize| -> Vec<i8> { (0..count).map(|_| rng.draw() as i8).collect() };
    let weights = bytes(CPU_SIDE * CPU_SIDE);
    let activations = bytes(CPU_SIDE * 4_096);
    let plan = lab.plan(arms.len(), TRIAL_MIN);
    lab.in_rounds(&arms, plan.rounds_count, |lab, turn| {
        let (way, batch) = *turn.arm;
        lab.progress
            .set_message(format!("{}, {batch} rows, round {}", way.name(), turn.round + 1));
        let laid_out = Weights::new(way, CPU_SIDE, CPU_SIDE, &weights);
        let activations = &activations[..batch * CPU_SIDE];
        let mut sums = vec![0; batch * CPU_SIDE];
        let axis = axis(
            CPU,
            &[(WAY.name, way.name().to_owned()), (BATCH.name, batch.to_string())],
        );
        let gmac = (batch * CPU_SIDE * CPU_SIDE) as f64 / 1e9;
        lab.record_until_valid(|lab| {
            cpu_work::measure(
                lab,
                (experiment.id(), axis.clone(), turn.round),
                plan.trial,
                ("product_rate", gmac, "GMAC/s"),
                || laid_out.multiply(std::hint::black_box(activations), std::hint::black_box(&mut sums)),
            )
        })
    })
}

fn part<'a>(table: &'a Table, part: &'a str) -> Vec<&'a Row> {
    table
        .valid()
        .filter(|row| row.axis.get(PART.name).is_some_and(|have| have == part))
        .collect()
}

fn formula(table: &Table) -> Judgement {
    let rows = part(table, ARRAY);
    if rows.is_empty() {
        return Judgement::not_measured("no array was counted in this run: --axis part=array");
    }
    let sum = |name: &str| rows.iter().filter_map(|row| metric(row, name)).sum::<f64>();
    let (shapes, faults) = (sum("shapes"), sum("mismatches") + sum("wrong"));
    let figure = measured(
        "shapes whose cycles or results differ",
        Some(faults),
        "count",
        "0",
        shapes as u64,
    );
    let outcome = if faults == 0.0 { Outcome::Holds } else { Outcome::Fails };
    Judgement::new(outcome, vec![figure])
}

fn starves(table: &Table) -> Judgement {
    let rows = part(table, ARRAY);
    let at = |batch: &str| -> Vec<f64> {
        let rows = rows
            .iter()
            .filter(|row| row.axis.get(BATCH.name).is_some_and(|have| have == batch));
        rows.filter_map(|row| metric(row, "utilisation")).collect()
    };
    let (one, many) = (at("1"), at("256"));
    if one.is_empty() || many.is_empty() {
        return Judgement::not_measured("it takes the array with batch=1 and batch=256");
    }
    let most = one.iter().copied().fold(f64::NAN, f64::max);
    let least = many.iter().copied().fold(f64::NAN, f64::min);
    let outcome = match most < 0.05 && least > 0.9 {
        true => Outcome::Holds,
        false => Outcome::Fails,
    };
    Judgement::new(
        outcome,
        vec![
            measured(
                "utilisation with one row a tile, the most",
                Some(most),
                "ratio",
                "< 0.05",
                one.len() as u64,
            ),
            measured(
                "utilisation with 256, the least",
                Some(least),
                "ratio",
                "> 0.9",
                many.len() as u64,
            ),
        ],
    )
}

/// 8 × 8 elements, all of them busy.
const SMALL_ARRAY_GMAC_PER_SEC: f64 = 64.0 * ARRAY_MHZ / 1e3;

fn beside_vnni(table: &Table) -> Judgement {
    if !Way::Avx512.is_here() && part(table, CPU).is_empty() {
        return Judgement::not_measured("this CPU has no VNNI, or no product was measured: --axis part=cpu");
    }
    let axes = [(PART.name, CPU), (WAY.name, "avx512"), (BATCH.name, "256")];
    let arm = Arm::of(cpu_work::BACKEND, &axes);
    let rows = table.arm(arm);
    if rows.len() < ROUNDS_MIN {
        return table.lacking(arm);
    }
    let seen: Vec<f64> = rows.iter().filter_map(|row| metric(row, "product_rate")).collect();
    let array = vec![SMALL_ARRAY_GMAC_PER_SEC; seen.len()];
    judge::ratio_of(
        table,
        "one core with VNNI ÷ 8 × 8 at 100 MHz, 256 rows",
        (&seen, &array),
        Bound::AtLeast(10.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    #[test]
    fn the_model_takes_what_the_formula_says() {
        let mut rng = Rng::new(1);
        for (side, rows, tiles) in [(8, 1, 4), (8, 64, 4), (3, 40, 2)] {
            let said = cycles(side as u64, rows as u64, tiles as u64);
            assert_eq!(modelled(side, rows, tiles, &mut rng), (said, true));
        }
    }

    #[test]
    fn a_wrong_cycle_and_a_busy_small_batch_are_seen() {
        let table = |batch: &str, metrics: &[(&str, f64)]| Table {
            rows: vec![
                row_of(&[("part", ARRAY), ("side", "8"), ("batch", batch)], metrics),
                row_of(
                    &[("part", ARRAY), ("side", "8"), ("batch", "1")],
                    &[("utilisation", 0.04)],
                ),
            ],
            seed: 1,
        };
        let faults = |count: f64| formula(&table("8", &[("mismatches", count), ("shapes", 1.0)])).outcome;
        assert_eq!(faults(0.0), Outcome::Holds);
        assert_eq!(faults(1.0), Outcome::Fails);
        let busy = |share: f64| starves(&table("256", &[("utilisation", share)])).outcome;
        assert_eq!(busy(0.95), Outcome::Holds);
        assert_eq!(busy(0.85), Outcome::Fails);
    }
}
