//! TPU v1's array, whose weights come from memory: what the bandwidth alone predicts, beside what was published.

use super::{BATCH, PART, SIDE, TPU, axis, metric, part};
use crate::{
    claim::{Judgement, Source},
    experiment::Lab,
    experiments::{cycles::FORMULA, judge::measured, virtual_time::Simulated},
    record::{Better, Outcome, Row},
    table::Table,
};

pub const PAPER: Source = Source::Published {
    work: "Jouppi et al., In-datacenter performance analysis of a tensor processing unit, ISCA 2017",
    place: "table 1 (batches, operations per weight byte), table 2 (700 MHz, 34 GB/s), table 3 (array active cycles)",
};

/// Elements along each side.
const TPU_SIDE: u64 = 256;
const CLOCK_HZ: f64 = 700e6;
/// Of the weights' memory (table 2).
const WEIGHTS_BYTES_PER_SEC: f64 = 34e9;
/// How far beside a prediction of one line may be.
const OFF_MAX: f64 = 0.25;

/// One of the paper's six.
#[derive(Clone, Copy, Debug)]
pub struct Application {
    name: &'static str,
    batch: u32,
    /// Operations, a multiplication and an addition counted as one, per byte of weights (table 1): how often a weight is used.
    uses_per_weight: f64,
    /// Array active cycles (table 3).
    published: f64,
    /// The model is meant to explain it.
    is_judged: bool,
}

const fn application(name: &'static str, batch: u32, uses_per_weight: f64, published: f64) -> Application {
    Application {
        name,
        batch,
        uses_per_weight,
        published,
        is_judged: matches!(name.as_bytes(), b"MLP0" | b"MLP1"),
    }
}

pub const APPLICATIONS: [Application; 6] = [
    application("MLP0", 200, 200.0, 0.127),
    application("MLP1", 168, 168.0, 0.106),
    application("LSTM0", 64, 64.0, 0.082),
    application("LSTM1", 96, 96.0, 0.105),
    application("CNN0", 8, 2_888.0, 0.782),
    application("CNN1", 32, 1_750.0, 0.462),
];

/// Cycles that a tile takes to come from memory.
fn tile_cycles() -> f64 {
    (TPU_SIDE * TPU_SIDE) as f64 / WEIGHTS_BYTES_PER_SEC * CLOCK_HZ
}

/// The share of cycles in which the array multiplies, if each weight is used so often once it is there.
fn active_ratio(uses_per_weight: f64) -> f64 {
    (uses_per_weight / tile_cycles()).min(1.0)
}

pub fn predict(lab: &Lab<'_>, application: &Application) -> Row {
    let axis = axis(
        TPU,
        &[
            ("application", application.name.to_owned()),
            (BATCH.name, application.batch.to_string()),
            (SIDE.name, TPU_SIDE.to_string()),
        ],
    );
    let elapsed_s = tile_cycles().max(application.uses_per_weight) / CLOCK_HZ;
    let mut row = Simulated::by(FORMULA, lab, ("systolic-utilisation", axis), lab.choice.seed, elapsed_s);
    row.fact("yardstick", "arithmetic over the paper's figures; nothing was clocked");
    let predicted = active_ratio(application.uses_per_weight);
    row.put("predicted_utilisation", predicted, "ratio", Better::Neither);
    row.put("published_utilisation", application.published, "ratio", Better::Neither);
    row.put(
        "predicted_over_published",
        predicted / application.published,
        "ratio",
        Better::Neither,
    );
    row.put(
        "judged",
        f64::from(u8::from(application.is_judged)),
        "count",
        Better::Neither,
    );
    row.put("ridge", tile_cycles(), "MAC/byte", Better::Neither);
    row.fact(
        "clock",
        "700 MHz; a tile of 64 KiB comes from memory in 1,349 cycles at 34 GB/s",
    );
    row.into_row()
}

/// What the model is meant to explain is near enough; the rest stands beside it.
pub fn explains(table: &Table) -> Judgement {
    let rows = part(table, TPU);
    let name = |row: &Row| row.axis.get("application").cloned().unwrap_or_default();
    let off = |row: &Row| metric(row, "predicted_over_published").unwrap_or(f64::NAN) - 1.0;
    let is_judged = |row: &Row| metric(row, "judged") == Some(1.0);
    if !rows.iter().any(|row| is_judged(row)) {
        return Judgement::not_measured(format!("nothing was predicted in this run: --axis {}={TPU}", PART.name));
    }
    let holds = rows
        .iter()
        .filter(|row| is_judged(row))
        .all(|row| off(row).abs() <= OFF_MAX);
    let figures = rows.iter().map(|row| {
        let limit = match is_judged(row) {
            true => format!("0.75 to {}", 1.0 + OFF_MAX),
            false => "any: not explained".to_owned(),
        };
        let what = format!("predicted ÷ published, {}", name(row));
        measured(what, Some(off(row) + 1.0), "ratio", limit, 1)
    });
    let figures = figures.collect();
    Judgement::new(if holds { Outcome::Holds } else { Outcome::Fails }, figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ridge_is_the_papers() {
        // Section 4: 1,350 operations per byte of weights.
        assert!((tile_cycles() - 1_350.0).abs() < 2.0, "{}", tile_cycles());
        assert_eq!(active_ratio(2_888.0), 1.0);
    }

    #[test]
    fn perceptrons_are_explained_and_lstms_are_not() {
        for application in APPLICATIONS {
            let off = active_ratio(application.uses_per_weight) / application.published - 1.0;
            assert_eq!(
                off.abs() <= OFF_MAX,
                application.is_judged,
                "{}: {off}",
                application.name
            );
        }
    }
}
