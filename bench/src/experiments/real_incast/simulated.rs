//! The same file in virtual time.

use super::{Cell, ID};
use crate::{
    experiment::Lab,
    experiments::kernel_tcp::{LEVEL_SIMULATOR, simulate},
    packet_sim::Point,
    scenario::file::ScenarioFile,
};

/// Questions where not everything is wanted.
const ROUNDS_FEW: u32 = 20;

/// Fewer questions.
pub(super) fn shorten(file: &mut ScenarioFile) {
    for load in &mut file.load {
        let load = load.get_mut();
        load.rounds = load.rounds.map(|rounds| rounds.min(ROUNDS_FEW));
    }
}

/// One row for each cell.
pub(super) fn run(lab: &mut Lab<'_>, file: &ScenarioFile, cells: &[Cell]) -> anyhow::Result<()> {
    lab.progress.set_length(cells.len() as u64);
    for cell in cells {
        lab.progress
            .set_message(format!("simulator, {} with {}", cell.arm, cell.servers_count));
        let point = Point::of(file, &cell.arm, Some(cell.servers_count as f64))?;
        let Some(row) = simulate(lab, ID, cell.axis(LEVEL_SIMULATOR), file, &point)? else {
            break;
        };
        lab.record(row)?;
        lab.progress.inc(1);
    }
    Ok(())
}
