//! From what a trial found to the row that a record keeps.

use std::{collections::BTreeMap, time::Duration};

use super::{Outcome, Trial};
use crate::{
    measure::{QUANTILES, Recorder},
    record::{Better, Distribution, Metric, Row},
};

/// Where a row stands in its experiment.
#[derive(Clone, Debug)]
pub struct Position {
    /// The experiment's id.
    pub experiment: &'static str,
    /// The row's axis values.
    pub axis: BTreeMap<String, String>,
    /// The round.
    pub round: u32,
    /// The second of an A/A pair.
    pub twin: bool,
    /// Decided the schedule.
    pub seed: u64,
}

impl Outcome {
    /// The row of this trial.
    pub fn into_row(self, trial: &Trial<'_>, position: Position) -> Row {
        let load = &self.load;
        let mut metrics = BTreeMap::new();
        let mut put = |name: &str, value: f64, unit: &str, better: Better| {
            metrics.insert(
                name.to_owned(),
                Metric {
                    value,
                    unit: unit.to_owned(),
                    better,
                },
            );
        };
        put("sent", load.sent_count as f64, "count", Better::Neither);
        put("received", load.received_count as f64, "count", Better::Neither);
        put("late", load.late_count as f64, "count", Better::Lower);
        put("duplicates", load.duplicate_count as f64, "count", Better::Lower);
        put("tx_full", load.tx_full_count as f64, "count", Better::Lower);
        put("achieved_rate", load.achieved_rate_per_s, "1/s", Better::Higher);
        put(
            "goodput",
            load.received_count as f64 / load.elapsed.as_secs_f64(),
            "1/s",
            Better::Higher,
        );
        put(
            "server_rx_dropped",
            self.server.rx_dropped_count as f64,
            "count",
            Better::Lower,
        );
        put(
            "voluntary_switches",
            load.voluntary_switches_count as f64,
            "count",
            Better::Neither,
        );
        put(
            "involuntary_switches",
            load.involuntary_switches_count as f64,
            "count",
            Better::Lower,
        );
        if load.received_count > 0 {
            let per_op = |cpu: Duration| cpu.as_nanos() as f64 / load.received_count as f64;
            put("client_cpu_per_op", per_op(self.client_cpu), "ns", Better::Lower);
            if let Some(cpu) = self.server_cpu {
                put("server_cpu_per_op", per_op(cpu), "ns", Better::Lower);
            }
        }
        for (reason, count) in &self.server.rejects {
            put(
                &format!("server_reject_{reason}"),
                *count as f64,
                "count",
                Better::Lower,
            );
        }
        let mut facts = self.facts;
        if let Some(stall) = trial.stall {
            facts.insert(
                "stall".to_owned(),
                format!(
                    "server stopped {} ms of every {} ms",
                    stall.stopped.as_millis(),
                    stall.period.as_millis()
                ),
            );
        }
        if let Some(uncertainty) = self.stalls_uncertainty {
            // The server was stopped over a network: so far may the moments of its stalls be off.
            facts.insert("stall_uncertainty_ns".to_owned(), uncertainty.as_nanos().to_string());
        }
        if !trial.service_spin.is_zero() {
            facts.insert("service_spin_ns".to_owned(), trial.service_spin.as_nanos().to_string());
        }
        Row {
            experiment: position.experiment.to_owned(),
            backend: trial.backend.name.to_owned(),
            mode: self.mode,
            axis: position.axis,
            round: position.round,
            twin: position.twin,
            seed: position.seed,
            at_s: self.at_s,
            elapsed_s: load.elapsed.as_secs_f64(),
            latency: distribution(&load.latency),
            service: distribution(&load.service),
            schedule_lag: distribution(&load.schedule_lag),
            metrics,
            series: load.series.clone(),
            facts,
            validity: self.validity,
        }
    }
}

/// What a record keeps of a histogram; nothing of one that nothing was recorded in.
fn distribution(recorder: &Recorder) -> Option<Distribution> {
    (recorder.total_count() > 0).then(|| recorder.distribution(&QUANTILES))
}
