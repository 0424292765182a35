//! The same point of the same file in virtual time, as a row beside the kernel's.

use std::collections::BTreeMap;

use crate::{
    experiment::Lab,
    experiments::{
        scenarios::unit_of,
        virtual_time::{Happened, Simulated},
    },
    packet_sim::{Observer, Point},
    record::{Better, Row},
    scenario::file::ScenarioFile,
};

/// Simulates a point. Nothing, if it was ended from outside.
///
/// # Errors
/// A topology that cannot be.
pub fn simulate(
    lab: &Lab<'_>,
    experiment: &str,
    axis: BTreeMap<String, String>,
    file: &ScenarioFile,
    point: &Point<'_>,
) -> anyhow::Result<Option<Row>> {
    let outcome = point.run(&point.setup(lab.choice.seed)?, &mut Observer::default(), lab.stop);
    if outcome.is_interrupted || lab.interrupted() {
        return Ok(None);
    }
    let what = Happened {
        elapsed: outcome.ended,
        event_hash: outcome.hash,
        events_count: outcome.counters.events_count,
    };
    let mut row = Simulated::of(lab, experiment, axis, lab.choice.seed, what);
    row.fact(
        "guarantee",
        "none is asked for: bytes are delivered once, in order, or the flow is unfinished",
    );
    row.fact("scenario_sha256", file.sha256.clone());
    for (name, value) in outcome.metrics() {
        let (unit, better) = unit_of(name);
        row.put(name, value, unit, better);
    }
    let counts = [
        ("queries", outcome.rounds.len() as u64, Better::Neither),
        ("timeouts", outcome.timeouts_count, Better::Lower),
        ("retransmits", outcome.retransmissions_count, Better::Lower),
        ("drops", outcome.counters.drops.count(), Better::Lower),
    ];
    for (name, count, better) in counts {
        row.put(name, count as f64, "count", better);
    }
    let took_ns = outcome.rounds_ns();
    row.latencies(took_ns.iter().copied());
    Ok(Some(row.into_row()))
}
