//! `fpga-filter`: a filter beside the storage, by how much of a table stays, beside the same scan on this CPU.

use std::{collections::BTreeMap, time::Duration};

use fpga_cpu::{Way, filter};
use fpga_model::{
    filter::{Filter, Query, Row as TableRow},
    rng::Rng,
};

use super::{
    cpu_work::{self, median},
    cycles::{BACKEND, Counted, metric, placed_mhz, stated_mhz},
    judge::measured,
};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    record::{Better, Outcome, Row},
    table::{Arm, Table},
};

const WAY: Axis = Axis {
    name: "way",
    meaning: "pipeline: kv_filter's cycle model with rows of 512 bits, at a stated clock; scalar, avx2, avx512: the same scan on one core",
    full: &[PIPELINE, "scalar", "avx2", "avx512"],
    tour: &[PIPELINE],
    smallest: PIPELINE,
    allowed: Allowed::Words,
};

const SELECTED: Axis = Axis {
    name: "selected_percent",
    meaning: "how much of the table stays",
    full: &["0", "1", "10", "50", "90", "100"],
    tour: &["1", "100"],
    smallest: "10",
    allowed: Allowed::Number(0.0, 100.0),
};

const TABLE_BYTES: Axis = Axis {
    name: "table",
    meaning: "the CPU's table: cache: 256 KiB; memory: 64 MiB. A pipeline has its rows from a stream, whatever is behind",
    full: &[CACHE, MEMORY],
    tour: &[MEMORY],
    smallest: CACHE,
    allowed: Allowed::Words,
};

const PIPELINE: &str = "pipeline";
const CACHE: &str = "cache";
const MEMORY: &str = "memory";

const ROW_BYTES: usize = 64;
const ROW_BITS: u32 = 512;
const TRIAL_MIN: Duration = Duration::from_millis(40);
/// Keys are below this, uniformly.
const KEYS: u64 = 1 << 20;
/// What stays of a row: the key, and the column that is summed up.
const KEEP: u8 = 0b11;
const COLUMN: u8 = 1;
/// One row a cycle, but for the cycles that the first takes through, and the aggregates behind the last.
const CYCLES_BESIDE_ROWS_MAX: f64 = 8.0;

const CLAIMS: &[Claim] = &[
    Claim {
        id: "fpga-filter-rate",
        sentence: "The filter takes a row a cycle, however many of them stay",
        source: Source::Ours {
            seen: "the data sheet's sentence of every streaming filter (Netezza's FAST engines among them)",
        },
        invariant: "Cycles beside one for each row are at most 8, at every selectivity that was counted; what comes out is what the same \
                    query says in plain code.",
        judge: a_row_a_cycle,
    },
    Claim {
        id: "fpga-filter-link",
        sentence: "Bytes that leave the filter are those of the rows that stay, so that the link behind it is relieved by the selectivity",
        source: Source::Published {
            work: "Yang et al., λ-IO: a unified IO stack for computational storage, FAST 2023",
            place: "abstract: up to 5.12 times; the mechanism, not the figure",
        },
        invariant: "Bytes out ÷ bytes in, less the selectivity that came of the draw, is at most one row of aggregates. Whole rows leave, \
                    as the RTL sends them: lanes that do not stay are zeros.",
        judge: link,
    },
    Claim {
        id: "fpga-filter-beside-cpu",
        sentence: "At 250 MHz the filter's 16 GB/s is more than one core scans from memory by any way, at every selectivity",
        source: Source::Ours {
            seen: "a prediction the other way round: that a core filters faster than one lane of 64 bits",
        },
        invariant: "The best way's median of valid rounds, one core, 64 MiB. The pipeline's clock is stated and not reached, a link that \
                    brings 16 GB/s is taken for granted, and a machine has more than one core.",
        judge: beside_cpu,
    },
    Claim {
        id: "filter-branch-free",
        sentence: "On a CPU a scan that branches is slowest where half of the rows stay; one without branches is not slower there than \
                   where all stay",
        source: Source::Ours {
            seen: "Ross, Selection conditions in main memory, TODS 2004, section 2: mispredictions are the most where the choice is even",
        },
        invariant: "256 KiB, so that memory is not the bound; medians. Scalar at 50 % is below scalar at 0 and at 100 %, AVX2 (which writes \
                    every row and moves on if it stays) at 50 % at least 0.8 of what it is at 100 %.",
        judge: branches,
    },
];

/// See the module.
#[derive(Debug)]
pub struct FpgaFilter;

impl Experiment for FpgaFilter {
    fn id(&self) -> &'static str {
        "fpga-filter"
    }

    fn title(&self) -> &'static str {
        "A filter in the stream"
    }

    fn question(&self) -> &'static str {
        "How fast does a filter in hardware scan, by how much stays, and how fast does this CPU?"
    }

    fn how(&self) -> &'static str {
        "kv_filter's cycle model is shown rows of 64 bytes without a pause: a key between two bounds stays, two of eight columns are kept, \
         one is summed up. GB/s are bytes of the table at a stated clock. One core scans the same kind of table by plain code, AVX2 and \
         AVX-512, as far as it has them, in rounds; every way gives the same rows and sums, which is checked before it is measured."
    }

    fn axes(&self) -> &'static [Axis] {
        &[WAY, SELECTED, TABLE_BYTES]
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
        let ways = lab.values(&WAY);
        if ways.iter().any(|way| way == PIPELINE) {
            for percent in lab.numbers(&SELECTED) {
                if lab.interrupted() {
                    return Ok(());
                }
                lab.progress.set_message(format!("pipeline, {percent} % stay"));
                let row = count(lab, percent);
                lab.record(row)?;
            }
        }
        let (here, absent): (Vec<Way>, Vec<Way>) = Way::ALL
            .into_iter()
            .filter(|way| ways.iter().any(|name| name == way.name()))
            .partition(|way| way.is_here());
        for way in absent {
            lab.say(&format!(
                "way={} is left out: this CPU has no such instructions",
                way.name()
            ));
        }
        on_cpu(self, lab, &here)
    }
}

fn query(percent: f64) -> Query {
    // No key is above KEYS, so that nothing stays of an empty interval there.
    let end = (percent / 100.0 * KEYS as f64) as u64;
    match end {
        0 => Query {
            low: KEYS,
            high: KEYS,
            keep: KEEP,
            column: COLUMN,
        },
        _ => Query {
            low: 0,
            high: end - 1,
            keep: KEEP,
            column: COLUMN,
        },
    }
}

fn table_of(rows_count: usize, seed: u64) -> Vec<TableRow> {
    let mut rng = Rng::new(seed);
    let mut row = || std::array::from_fn(|lane| if lane == 0 { rng.below(KEYS) } else { rng.draw() });
    (0..rows_count).map(|_| row()).collect()
}

/// Cycles from the first row to the aggregates, and what came out.
fn stream(query: Query, rows: &[TableRow]) -> (u64, Vec<(TableRow, bool)>) {
    let mut filter = Filter::new(query);
    let (mut out, mut next, mut cycles) = (Vec::new(), 0, 0);
    let limit = 2 * rows.len() as u64 + 64;
    while !out.last().is_some_and(|&(_, is_total)| is_total) {
        assert!(
            cycles < limit,
            "{} rows are not through after {cycles} cycles",
            rows.len()
        );
        let shown = filter.shows();
        out.extend(shown);
        let row = rows.get(next).map(|row| (*row, next + 1 == rows.len()));
        next += usize::from(filter.is_ready() && row.is_some());
        filter.clock(row, shown.is_some());
        cycles += 1;
    }
    (cycles, out)
}

fn axis(way: &str, percent: f64, table: Option<&str>) -> BTreeMap<String, String> {
    let pairs = [(WAY.name, way.to_owned()), (SELECTED.name, percent.to_string())];
    pairs
        .into_iter()
        .chain(table.map(|table| (TABLE_BYTES.name, table.to_owned())))
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn count(lab: &Lab<'_>, percent: f64) -> Row {
    let rows_count = match lab.choice.depth {
        Depth::Smallest => 500,
        Depth::Tour => 5_000,
        Depth::Full => 50_000,
    };
    let rows = table_of(rows_count, lab.choice.seed);
    let query = query(percent);
    let (cycles, out) = stream(query, &rows);
    let is_right = out == query.scan(&rows);
    let mut row = Counted::new(
        lab,
        "fpga-filter",
        axis(PIPELINE, percent, None),
        lab.choice.seed,
        (stated_mhz(ROW_BITS), cycles),
    );
    let stays = rows.iter().filter(|row| query.wants(row)).count();
    let gb_per_sec = |mhz: f64| (rows_count * ROW_BYTES) as f64 / cycles as f64 * mhz / 1e3;
    row.put("scan_rate", gb_per_sec(stated_mhz(ROW_BITS)), "GB/s", Better::Higher);
    if let Some(mhz) = placed_mhz("kv_filter", "DATA_W=512") {
        row.put("placed_scan_rate", gb_per_sec(mhz), "GB/s", Better::Higher);
    }
    row.put(
        "beside_rows_cycles",
        cycles as f64 - rows_count as f64,
        "cycles",
        Better::Lower,
    );
    row.put("rows", rows_count as f64, "count", Better::Neither);
    row.put("selected", stays as f64 / rows_count as f64, "ratio", Better::Neither);
    row.put(
        "link_ratio",
        out.len() as f64 / rows_count as f64,
        "ratio",
        Better::Lower,
    );
    row.put("wrong", f64::from(u8::from(!is_right)), "count", Better::Lower);
    row.into_row()
}

fn on_cpu(experiment: &FpgaFilter, lab: &mut Lab<'_>, ways: &[Way]) -> anyhow::Result<()> {
    if ways.is_empty() {
        return Ok(());
    }
    let percents = lab.numbers(&SELECTED);
    let tables: Vec<(String, Vec<TableRow>)> = lab
        .values(&TABLE_BYTES)
        .into_iter()
        .map(|name| {
            let bytes = if name == CACHE { 256 << 10 } else { 64 << 20 };
            (name, table_of(bytes / ROW_BYTES, lab.choice.seed))
        })
        .collect();
    let mut arms = Vec::new();
    for &way in ways {
        for &percent in &percents {
            arms.extend(tables.iter().map(|table| (way, percent, table)));
        }
    }
    // Written before anything is measured, so that no page is new.
    let mut out: Vec<TableRow> = tables
        .iter()
        .map(|(_, rows)| rows)
        .max_by_key(|rows| rows.len())
        .cloned()
        .unwrap_or_default();
    let plan = lab.plan(arms.len(), TRIAL_MIN);
    lab.in_rounds(&arms, plan.rounds_count, |lab, turn| {
        let (way, percent, (name, rows)) = turn.arm;
        lab.progress.set_message(format!(
            "{}, {percent} % stay, {name}, round {}",
            way.name(),
            turn.round + 1
        ));
        let asked = query(*percent);
        let asked = filter::Query {
            low: asked.low,
            high: asked.high,
            keep: asked.keep,
            column: asked.column,
        };
        if turn.round == 0 {
            let found = filter::scan(*way, &asked, rows, &mut out);
            let plain = filter::scan(Way::Scalar, &asked, rows, &mut out);
            anyhow::ensure!(found == plain, "{} found {found:?}, plain code {plain:?}", way.name());
        }
        lab.record_until_valid(|lab| {
            cpu_work::measure(
                lab,
                (experiment.id(), axis(way.name(), *percent, Some(name)), turn.round),
                plan.trial,
                ("scan_rate", (rows.len() * ROW_BYTES) as f64 / 1e9, "GB/s"),
                || {
                    std::hint::black_box(filter::scan(*way, &asked, std::hint::black_box(rows), &mut out));
                },
            )
        })
    })
}

fn pipelines(table: &Table) -> Vec<&Row> {
    table.arm(Arm::of(BACKEND, &[(WAY.name, PIPELINE)]))
}

/// Every row of the pipeline meets the demand.
fn all_pipelines(
    table: &Table,
    (what, unit, limit): (&str, &str, &str),
    value: impl Fn(&Row) -> Option<f64>,
    meets: impl Fn(f64) -> bool,
) -> Judgement {
    let rows = pipelines(table);
    if rows.is_empty() {
        return Judgement::not_measured("the pipeline was not counted in this run: add way=pipeline");
    }
    let is_met = |row: &&Row| metric(row, "wrong") == Some(0.0) && value(row).is_some_and(&meets);
    let holds = rows.iter().all(is_met);
    let figures = rows.iter().map(|row| {
        let percent = row.axis.get(SELECTED.name).map_or("", String::as_str);
        let samples = metric(row, "rows").unwrap_or(0.0) as u64;
        measured(format!("{what}, {percent} % stay"), value(row), unit, limit, samples)
    });
    let figures = figures.collect();
    Judgement::new(if holds { Outcome::Holds } else { Outcome::Fails }, figures)
}

fn a_row_a_cycle(table: &Table) -> Judgement {
    let what = ("cycles beside one for each row", "cycles", "≤ 8, and nothing wrong");
    let value = |row: &Row| metric(row, "beside_rows_cycles");
    all_pipelines(table, what, value, |cycles| cycles <= CYCLES_BESIDE_ROWS_MAX)
}

fn link(table: &Table) -> Judgement {
    let what = ("rows out less rows that stay", "rows", "≤ 1");
    let value = |row: &Row| {
        let surplus = metric(row, "link_ratio")? - metric(row, "selected")?;
        Some((surplus * metric(row, "rows")?).round())
    };
    all_pipelines(table, what, value, |rows| (0.0..=1.0).contains(&rows))
}

fn at(table: &Table, way: &str, percent: &str, which: &str) -> Option<f64> {
    let axes = [(WAY.name, way), (SELECTED.name, percent), (TABLE_BYTES.name, which)];
    median(table, &axes, "scan_rate")
}

fn beside_cpu(table: &Table) -> Judgement {
    let mut figures = Vec::new();
    let mut holds = true;
    for row in pipelines(table) {
        let Some(percent) = row.axis.get(SELECTED.name) else {
            continue;
        };
        let core = Way::ALL
            .into_iter()
            .filter_map(|way| Some((way, at(table, way.name(), percent, MEMORY)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let (Some((way, core)), Some(pipeline)) = (core, metric(row, "scan_rate")) else {
            continue;
        };
        holds &= pipeline > core;
        let what = format!("pipeline at 250 MHz ÷ {}, {percent} % stay", way.name());
        figures.push(measured(what, Some(pipeline / core), "ratio", "> 1", 1));
    }
    match figures.is_empty() {
        true => {
            Judgement::not_measured("it takes the pipeline and a CPU's way with table=memory at the same selectivity")
        }
        false => Judgement::new(if holds { Outcome::Holds } else { Outcome::Fails }, figures),
    }
}

fn branches(table: &Table) -> Judgement {
    let scalar = ["0", "50", "100"].map(|percent| at(table, "scalar", percent, CACHE));
    let avx2 = ["50", "100"].map(|percent| at(table, "avx2", percent, CACHE));
    let ([Some(none), Some(half), Some(all)], [Some(free_half), Some(free_all)]) = (scalar, avx2) else {
        return Judgement::not_measured("it takes scalar and avx2 with table=cache at 0, 50 and 100 %");
    };
    let worst = half / none.min(all);
    let even = free_half / free_all;
    let outcome = match worst < 1.0 && even >= 0.8 {
        true => Outcome::Holds,
        false => Outcome::Fails,
    };
    let figures = vec![
        measured(
            "scalar at 50 % ÷ the slower of 0 and 100 %",
            Some(worst),
            "ratio",
            "< 1",
            1,
        ),
        measured("AVX2 at 50 % ÷ at 100 %", Some(even), "ratio", "≥ 0.8", 1),
    ];
    Judgement::new(outcome, figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::virtual_time::row_of;

    #[test]
    fn what_stays_is_what_was_asked_for() {
        let rows = table_of(4_000, 3);
        for (percent, stays) in [(0.0, 0.0..=0.0), (50.0, 0.45..=0.55), (100.0, 1.0..=1.0)] {
            let query = query(percent);
            let (cycles, out) = stream(query, &rows);
            assert_eq!(out, query.scan(&rows));
            let share = (out.len() - 1) as f64 / rows.len() as f64;
            assert!(stays.contains(&share), "{percent} %: {share}");
            assert!(cycles as f64 <= rows.len() as f64 + CYCLES_BESIDE_ROWS_MAX, "{cycles}");
        }
    }

    #[test]
    fn a_slower_filter_and_a_row_too_many_are_seen() {
        let judge = |beside: f64, link_ratio: f64| {
            let mut row = row_of(
                &[("way", PIPELINE), ("selected_percent", "10")],
                &[
                    ("beside_rows_cycles", beside),
                    ("link_ratio", link_ratio),
                    ("selected", 0.1),
                    ("rows", 1_000.0),
                    ("wrong", 0.0),
                ],
            );
            row.backend = BACKEND.to_owned();
            let table = Table {
                rows: vec![row],
                seed: 1,
            };
            (a_row_a_cycle(&table).outcome, link(&table).outcome)
        };
        assert_eq!(judge(5.0, 0.101), (Outcome::Holds, Outcome::Holds));
        assert_eq!(judge(9.0, 0.102), (Outcome::Fails, Outcome::Fails));
    }
}
