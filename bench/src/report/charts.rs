//! The data behind the charts, as JSON inside the report: for its own script, and for a notebook that lifts it out.

use serde_json::{Value, json};

use super::{
    merge::Pooled,
    model::{Cell, Experiment, Summary, mode_name},
};
use crate::record::{Distribution, QuantileValue};

/// What the script reads. Durations are nanoseconds; a lost quantile is the string "lost", an unsupported one null.
pub(crate) fn data(summaries: &[Summary<'_>]) -> Value {
    json!({
        "format": "dplab.report.v1",
        "about": "one cell is one back end at one point of the axes, all rounds merged; curve: [share of requests, ns]; \
                  cdf: [ns, share of requests]; paper: figures that others published; series: [ms since the row began, sent, lost, p50 ns, max ns]; hdr: \
                  HdrHistogram V2, deflated, base64",
        "runs": summaries.iter().map(run).collect::<Vec<_>>(),
    })
}

fn run(summary: &Summary<'_>) -> Value {
    let header = &summary.run.header;
    json!({
        "version": header.version,
        "commit": header.git_commit,
        "seed": header.seed,
        "started_unix_ms": header.started_unix_ms,
        "backends": header.backends.iter().map(|backend| &backend.name).collect::<Vec<_>>(),
        "experiments": summary.experiments.iter().map(experiment).collect::<Vec<_>>(),
    })
}

fn experiment(experiment: &Experiment<'_>) -> Value {
    json!({
        "id": experiment.id,
        "axes": experiment.axes,
        "paper": experiment.published,
        "cells": experiment.points.iter().flat_map(|(point, cells)| {
            cells.iter().map(move |cell| json!({
                "backend": cell.backend,
                "mode": mode_name(cell.mode),
                "axis": point,
                "valid": cell.valid,
                "reasons": cell.reasons,
                "latency": cell.latency.as_ref().map(pooled),
                "service": cell.service.as_ref().map(pooled),
                "schedule_lag": cell.schedule_lag.as_ref().map(pooled),
                "metrics": cell.metrics.iter().map(|(name, metric)| ((*name).into(), json!({
                    "median": metric.median, "min": metric.min, "max": metric.max, "unit": metric.unit,
                }))).collect::<serde_json::Map<_, _>>(),
                "series": series(cell),
            }))
        }).collect::<Vec<_>>(),
    })
}

fn pooled(pooled: &Pooled) -> Value {
    let Distribution {
        samples_count,
        lost_count,
        min_ns,
        max_ns,
        mean_ns,
        quantiles,
        hdr_v2_deflate_base64,
    } = &pooled.distribution;
    let value = |value: QuantileValue| match value {
        QuantileValue::Ns(ns) => json!(ns),
        QuantileValue::Lost => json!("lost"),
        QuantileValue::Unsupported => Value::Null,
    };
    // Six digits of a share and of a time are more than a screen shows, and half the size.
    let short = |share: f64| (share * 1e7).round() / 1e7;
    json!({
        "samples": samples_count,
        "lost": lost_count,
        "min_ns": min_ns,
        "max_ns": max_ns,
        "mean_ns": mean_ns,
        "quantiles": quantiles.iter().map(|quantile| json!({
            "q": quantile.q, "ns": value(quantile.value), "low": value(quantile.low), "high": value(quantile.high),
        })).collect::<Vec<_>>(),
        "curve": pooled.curve.iter().map(|&(q, ns)| json!([short(q), ns])).collect::<Vec<_>>(),
        "cdf": pooled.cdf.iter().map(|&(ns, share)| json!([ns, short(share)])).collect::<Vec<_>>(),
        "hdr": hdr_v2_deflate_base64,
    })
}

fn series(cell: &Cell<'_>) -> Vec<Value> {
    let rows = cell.rows.iter().filter(|row| !row.series.is_empty());
    rows.map(|row| {
        json!({
            "round": row.round,
            "at_s": row.at_s,
            "points": row.series.iter().map(|point| {
                json!([point.at_ms, point.sent_count, point.lost_count, point.p50_ns, point.max_ns])
            }).collect::<Vec<_>>(),
        })
    })
    .collect()
}
