//! From what was found to the row that a record keeps.

use std::collections::BTreeMap;

use super::fleet::{FleetFound, FleetPlan};
use crate::{
    experiment::Lab,
    load::schedule::Schedule,
    measure::{
        QUANTILES, Recorder,
        gates::{self, Limits, Observation},
    },
    record::{Better, Distribution, Metric, ModeRecord, QuantileValue, Row, SupportRecord},
    trial::Position,
};

/// What an answer of these nodes means.
pub const GUARANTEE: &str = "nothing is kept: a request is served, perhaps twice, which does no harm here; who asks again or hedges needs \
                             requests of which that is true";

/// The row of a measurement. `needed_per_call` requests are what a call takes without a policy for its tail.
pub fn row(
    lab: &Lab<'_>,
    plan: &FleetPlan<'_>,
    schedule: &Schedule,
    found: &FleetFound,
    position: Position,
    needed_per_call: u32,
) -> Row {
    let client = &found.client;
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    let calls = client.calls_count.max(1) as f64;
    put("calls", client.calls_count as f64, "count", Better::Neither);
    put("asked", client.counts.asked_count as f64, "count", Better::Neither);
    put("slow_ratio", client.slow_count as f64 / calls, "ratio", Better::Lower);
    put(
        "extra_requests_ratio",
        client.counts.extra_ratio(needed_per_call),
        "ratio",
        Better::Lower,
    );
    put("offered_rate", schedule.offered_rate_per_s(), "1/s", Better::Neither);
    put(
        "client_cpu_per_op",
        found.client_cpu.as_nanos() as f64 / calls,
        "ns",
        Better::Lower,
    );
    if let Some(cpu) = found.nodes_cpu {
        put("nodes_cpu_per_op", cpu.as_nanos() as f64 / calls, "ns", Better::Lower);
    }
    let nodes = &found.nodes;
    if nodes.served_count > 0 {
        let per_request = |ns: u64| ns as f64 / nodes.served_count as f64;
        put("service_meant", per_request(nodes.served_ns), "ns", Better::Neither);
        put("service_took", per_request(nodes.took_ns), "ns", Better::Neither);
    }
    // What nodes really did, those calls included that do not count: a request that was withdrawn in time cost none of them anything.
    // Of a run that was cut short nobody knows what was still to come.
    if !client.interrupted {
        let needed = (schedule.requests_count() * u64::from(needed_per_call)).max(1) as f64;
        put(
            "extra_served_ratio",
            nodes.served_count as f64 / needed - 1.0,
            "ratio",
            Better::Lower,
        );
        put(
            "missing_ratio",
            1.0 - client.answered_count as f64 / (calls * f64::from(needed_per_call)),
            "ratio",
            Better::Lower,
        );
    }
    if nodes.preempted_count > 0 {
        let per_request = nodes.preempted_count as f64 / nodes.served_count.max(1) as f64;
        put("preemptions_per_request", per_request, "count", Better::Neither);
        let cost_ns = nodes.switching_ns as f64 / nodes.preempted_count as f64;
        put("preemption_cost", cost_ns, "ns", Better::Lower);
    }
    put("withdrawn", nodes.withdrawn_count as f64, "count", Better::Neither);
    put("waiting_max", nodes.waiting_count_max as f64, "count", Better::Neither);
    put("stalls", found.stopped.stalls_count as f64, "count", Better::Neither);
    put(
        "stalled_ratio",
        found.stopped.stopped_ns as f64 / 1e9 / client.elapsed_s.max(1e-9) / found.stopped.brakes_count.max(1) as f64,
        "ratio",
        Better::Neither,
    );
    let mut seen = found.seen.clone();
    seen.push(Observation::RingOverflow {
        end: "server",
        rx_dropped_count: nodes.dropped_count,
        tx_dropped_count: 0,
    });
    seen.push(gates::overflow("client", &client.port, client.unsent_count));
    seen.push(Observation::Samples {
        q: 0.5,
        total_count: client.latency.total_count(),
    });
    if client.latency.samples_count() == 0 {
        seen.push(Observation::Silence {
            sent_count: client.counts.asked_count,
        });
    }
    if let QuantileValue::Ns(lag_p99_ns) = client.lag.quantile_of_sample(0.99) {
        let latency_p99_ns = match client.latency.quantile_of_sample(0.99) {
            QuantileValue::Ns(ns) => Some(ns),
            QuantileValue::Lost | QuantileValue::Unsupported => None,
        };
        seen.push(Observation::Lag {
            lag_p99_ns,
            latency_p99_ns,
        });
    }
    let wake = if plan.backend.sleeps() {
        dataplane_waist::Wake::Sleeps
    } else {
        dataplane_waist::Wake::Spins
    };
    let mode = match lab.supports.get(plan.backend.name) {
        Some(SupportRecord::Emulated { by }) => ModeRecord::Emulated { by: by.clone() },
        _ => ModeRecord::Native,
    };
    let mut facts = found.facts.clone();
    facts.insert("guarantee".to_owned(), GUARANTEE.to_owned());
    facts.insert(
        "nodes".to_owned(),
        format!(
            "{} with {} workers each ({:?}), {} in a process",
            plan.nodes_count, plan.node.workers_count, plan.node.workers, plan.nodes_per_process
        ),
    );
    if let Some(stops) = &plan.stops {
        facts.insert(
            "stalls".to_owned(),
            format!(
                "{} for {} ms, every {} ms on average, {}",
                stops.means.told(),
                stops.pattern.pause.as_millis(),
                (stops.pattern.gap + stops.pattern.pause).as_millis(),
                if stops.pattern.together {
                    "all nodes together"
                } else {
                    "each node by itself"
                }
            ),
        );
    }
    Row {
        experiment: position.experiment.to_owned(),
        backend: plan.backend.name.to_owned(),
        mode,
        axis: position.axis,
        round: position.round,
        twin: position.twin,
        seed: position.seed,
        at_s: found.at_s,
        elapsed_s: client.elapsed_s,
        latency: distribution(&client.latency),
        service: distribution(&client.node_time),
        schedule_lag: distribution(&client.lag),
        metrics,
        series: Vec::new(),
        facts,
        validity: gates::judge(&seen, &Limits::for_wake(wake)),
    }
}

/// What a record keeps of a histogram; nothing of one that nothing was recorded in.
fn distribution(recorder: &Recorder) -> Option<Distribution> {
    (recorder.total_count() > 0).then(|| recorder.distribution(&QUANTILES))
}
