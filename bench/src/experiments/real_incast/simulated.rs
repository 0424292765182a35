//! The same file in virtual time.

use super::{Cell, GOODPUT, ID, QUERIES, TIMEOUTS};
use crate::{
    experiment::Lab,
    experiments::kernel_tcp::LEVEL_SIMULATOR,
    experiments::virtual_time::{Happened, Simulated},
    packet_sim::{Observer, Point},
    record::Better,
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
        let outcome = point.run(&point.setup(lab.choice.seed)?, &mut Observer::default(), lab.stop);
        if outcome.is_interrupted || lab.interrupted() {
            break;
        }
        let what = Happened {
            elapsed: outcome.ended,
            event_hash: outcome.hash,
            events_count: outcome.counters.events_count,
        };
        let mut row = Simulated::of(lab, ID, cell.axis(LEVEL_SIMULATOR), lab.choice.seed, what);
        row.fact(
            "guarantee",
            "none is asked for: bytes are delivered once, in order, or the flow is unfinished",
        );
        row.fact("scenario_sha256", file.sha256.clone());
        if let Some(goodput) = outcome.metric(GOODPUT) {
            row.put(GOODPUT, goodput, "Mbit/s", Better::Higher);
        }
        let counts = [
            (QUERIES, outcome.rounds.len() as u64, Better::Neither),
            (TIMEOUTS, outcome.timeouts_count, Better::Lower),
            ("retransmits", outcome.retransmissions_count, Better::Lower),
            ("drops", outcome.counters.drops.count(), Better::Lower),
        ];
        for (name, count, better) in counts {
            row.put(name, count as f64, "count", better);
        }
        let took_ns = outcome.rounds_ns();
        row.latencies(took_ns.iter().copied());
        lab.record(row.into_row())?;
        lab.progress.inc(1);
    }
    Ok(())
}
