//! One experiment: its question, how it was measured, the charts, and the table of back ends at each point.

use super::Page;
use crate::{
    measure::QUANTILES,
    record::{ModeRecord, QuantileRecord, QuantileValue},
    report::{
        REFERENCE, levels,
        merge::Pooled,
        model::{Cell, Experiment, point_name},
        svg, units, words,
    },
};

pub(super) fn section(page: &mut Page, run: usize, experiment: &Experiment<'_>) {
    page.element("<section class=\"experiment\" id=\"run-", run, "-")
        .text(experiment.id)
        .raw("\">\n");
    page.element("<h2>", experiment.title, "</h2>\n");
    if !experiment.question.is_empty() {
        page.raw("<p class=\"question\">")
            .prose(experiment.question)
            .raw("</p>\n");
    }
    if !experiment.how.is_empty() {
        page.raw("<p>").prose(experiment.how).raw("</p>\n");
    }
    if experiment.has_latency() || experiment.has_sweep() {
        page.element("<div class=\"chart\" data-run=\"", run, "\" data-experiment=\"")
            .text(experiment.id)
            .raw("\"></div>\n");
    }
    page.raw("<noscript>\n");
    for (point, cells) in &experiment.points {
        if let Some(chart) = svg::percentile_chart(cells) {
            page.element(
                "<figure><figcaption>Latency by percentile, ",
                point_name(point),
                "</figcaption>",
            );
            chart.write(page);
            page.raw("</figure>\n");
        }
    }
    page.raw("</noscript>\n");
    table(page, experiment);
    two_levels(page, experiment);
    notes(page, experiment);
    details(page, experiment);
    page.raw("</section>\n");
}

fn table(page: &mut Page, experiment: &Experiment<'_>) {
    let metrics = experiment.main_metrics();
    let has_latency = experiment.has_latency();
    let has_ratio = experiment.has_ratio();
    page.raw("<div class=\"box\" role=\"region\" tabindex=\"0\" aria-label=\"")
        .text(experiment.title)
        .raw(": table\">");
    page.raw("<table>\n<thead><tr><th scope=\"col\">Back end</th>");
    for (index, q) in experiment.quantiles().iter().enumerate() {
        page.element("<th scope=\"col\" class=\"n\">", units::quantile_name(*q), "</th>");
        // Beside the median that it is of.
        if index == 0 && has_ratio {
            page.element("<th scope=\"col\" class=\"n\">p50 ÷ ", REFERENCE, "</th>");
        }
    }
    if has_latency {
        page.raw("<th scope=\"col\" class=\"strip\">p50 to p99.9</th><th scope=\"col\" class=\"n\">lost</th>");
    }
    for name in &metrics {
        page.element("<th scope=\"col\" class=\"n\">", words::metric_title(name), "</th>");
    }
    page.raw("</tr></thead>\n");
    let columns = Columns {
        quantiles: experiment.quantiles(),
        metrics: metrics.clone(),
        has_ratio,
        noise_floor: experiment.noise_floor,
    };
    let latency_count = if has_latency { 2 + QUANTILES.len() } else { 0 };
    let columns_count = 1 + latency_count + metrics.len() + usize::from(has_ratio);
    for (point, cells) in &experiment.points {
        page.raw("<tbody>\n");
        if !point.is_empty() {
            page.element(
                "<tr class=\"point\"><th scope=\"rowgroup\" colspan=\"",
                columns_count,
                "\"><span>",
            );
            page.text(point_name(point)).raw("</span></th></tr>\n");
        }
        let range = svg::range_ns(cells);
        for cell in cells {
            if !cell.sidelined {
                row(page, cell, &columns, range);
            }
            if !cell.valid {
                page.element("<tr class=\"reason\"><td colspan=\"", columns_count, "\"><span>");
                if cell.sidelined {
                    page.text(format!(
                        "{}: {} left out. ",
                        cell.backend,
                        words::counted(cell.rows.len(), "INVALID round")
                    ));
                } else {
                    page.text("Not judged: ");
                }
                page.prose(&cell.reasons.join("; ")).raw("</span></td></tr>\n");
            }
        }
        page.raw("</tbody>\n");
    }
    page.raw("</table></div>\n");
}

/// The same points on a kernel and in the simulator.
fn two_levels(page: &mut Page, experiment: &Experiment<'_>) {
    let Some((metric, pairs)) = levels::pairs(experiment) else {
        return;
    };
    page.element("<h3>Kernel and simulator: ", words::metric_title(metric), "</h3>\n");
    if let Some(chart) = svg::levels_chart(&words::metric_title(metric), &pairs) {
        page.raw("<figure>");
        chart.write(page);
        page.raw("<figcaption>The kernel with the span of its rounds, and the simulator of the same file.</figcaption></figure>\n");
    }
    page.raw(
        "<div class=\"box\" role=\"region\" tabindex=\"0\" aria-label=\"Kernel and simulator\"><table>\n<thead><tr>",
    );
    page.raw("<th scope=\"col\">point</th><th scope=\"col\" class=\"n\">kernel</th><th scope=\"col\" class=\"n\">simulator</th>");
    page.raw("<th scope=\"col\" class=\"n\">simulator ÷ kernel</th></tr></thead>\n<tbody>\n");
    for pair in &pairs {
        let name = [Some(pair.arm), pair.value]
            .into_iter()
            .flatten()
            .filter(|part| !part.is_empty());
        page.element("<tr><th scope=\"row\">", name.collect::<Vec<_>>().join(", "), "</th>");
        let unit = pair.kernel.unit;
        page.element("<td class=\"n\">", units::with_unit(pair.kernel.median, unit), "");
        if pair.kernel.min < pair.kernel.max {
            let (min, max) = (
                units::with_unit(pair.kernel.min, unit),
                units::with_unit(pair.kernel.max, unit),
            );
            page.element("<small>", units::interval(&min, &max), "</small>");
        }
        page.element("</td><td class=\"n\">", units::with_unit(pair.simulated, unit), "</td>");
        page.raw(if pair.is_far() {
            "<td class=\"n loss\">"
        } else {
            "<td class=\"n\">"
        });
        page.text(units::significant(pair.ratio())).raw("</td></tr>\n");
    }
    page.raw("</tbody>\n</table></div>\n");
}

/// What the table of an experiment has.
struct Columns<'a> {
    /// None where there is no latency.
    quantiles: &'a [f64],
    metrics: Vec<&'a str>,
    has_ratio: bool,
    noise_floor: Option<f64>,
}

fn row(page: &mut Page, cell: &Cell<'_>, columns: &Columns<'_>, range: Option<(f64, f64)>) {
    let Columns {
        quantiles,
        metrics,
        has_ratio,
        noise_floor,
    } = columns;
    page.raw(if cell.valid { "<tr>" } else { "<tr class=\"invalid\">" });
    page.element("<th scope=\"row\">", cell.backend, "");
    match cell.mode {
        ModeRecord::Native => {}
        ModeRecord::Emulated { by } => {
            page.element(" <span class=\"tag warn\" title=\"", by, "\">emulated</span>");
        }
        ModeRecord::Simulated => {
            page.raw(" <span class=\"tag warn\">simulated</span>");
        }
    }
    if !cell.valid {
        page.raw(" <span class=\"tag bad\">INVALID</span>");
    }
    if let Some(wake) = cell.wake() {
        page.element("<small>", wake, "</small>");
    }
    page.raw("</th>");
    for (index, q) in quantiles.iter().enumerate() {
        quantile(page, cell.main().and_then(|pooled| pooled.quantile(*q)));
        if index == 0 && *has_ratio {
            ratio(page, cell, *noise_floor);
        }
    }
    if !quantiles.is_empty() {
        strip_and_lost(page, cell, range);
    }
    for name in metrics {
        match cell.metrics.get(name) {
            Some(metric) => {
                page.element("<td class=\"n\">", units::with_unit(metric.median, metric.unit), "");
                if metric.min < metric.max {
                    let span = units::interval(
                        &units::with_unit(metric.min, metric.unit),
                        &units::with_unit(metric.max, metric.unit),
                    );
                    page.element("<small>", span, "</small>");
                }
                page.raw("</td>");
            }
            None => {
                page.raw("<td class=\"n\">–</td>");
            }
        }
    }
    page.raw("</tr>\n");
}

fn strip_and_lost(page: &mut Page, cell: &Cell<'_>, range: Option<(f64, f64)>) {
    page.raw("<td class=\"strip\">");
    if let Some(strip) = range.and_then(|range| svg::strip(cell, range)) {
        strip.write(page);
    }
    page.raw("</td>");
    match cell.main() {
        Some(pooled) => {
            let (lost, requests) = (pooled.distribution.lost_count, pooled.requests_count());
            page.raw(if lost > 0 {
                "<td class=\"n loss\">"
            } else {
                "<td class=\"n\">"
            });
            page.text(units::count(lost))
                .element("<small>of ", units::count(requests), "</small></td>");
        }
        None => {
            page.raw("<td class=\"n\">–</td>");
        }
    }
}

fn ratio(page: &mut Page, cell: &Cell<'_>, noise_floor: Option<f64>) {
    match cell.ratio {
        Some(ratio) => {
            page.element("<td class=\"n\">", units::significant(ratio.value), "");
            match ratio.interval {
                Some((low, high)) => {
                    let interval = format!("{}–{}", units::significant(low), units::significant(high));
                    page.element("<small>", interval, "</small>");
                }
                None => {
                    page.element("<small>", words::counted(ratio.rounds_count, "round"), "</small>");
                }
            }
            if ratio.is_within(noise_floor) {
                page.raw("<small>no difference</small>");
            }
            page.raw("</td>");
        }
        None if cell.valid && cell.backend == REFERENCE => {
            page.raw("<td class=\"n\">1</td>");
        }
        None => {
            page.raw("<td class=\"n\">–</td>");
        }
    }
}

fn quantile(page: &mut Page, quantile: Option<&QuantileRecord>) {
    let Some(quantile) = quantile else {
        page.raw("<td class=\"n\">–</td>");
        return;
    };
    page.raw(match quantile.value {
        QuantileValue::Ns(_) => "<td class=\"n\">",
        QuantileValue::Lost => "<td class=\"n loss\">",
        QuantileValue::Unsupported => "<td class=\"n off\">",
    });
    page.text(units::quantile(quantile.value));
    if quantile.value != QuantileValue::Unsupported {
        page.element(
            "<small>",
            units::quantile_interval(quantile.low, quantile.high),
            "</small>",
        );
    }
    page.raw("</td>");
}

/// What holds for the whole table.
fn notes(page: &mut Page, experiment: &Experiment<'_>) {
    page.raw("<p class=\"note\">");
    if experiment.cells().any(Cell::is_service_only) {
        page.raw("Where there is no schedule to be late, the times are service times. ");
    }
    match experiment.noise_floor {
        Some(floor) => {
            page.element(
                "Noise floor: identical twins differ by up to ",
                units::significant(floor * 100.0),
                " % here. ",
            );
        }
        None => {
            page.raw("No twin was measured here, so the noise floor is unknown. ");
        }
    }
    for caveat in experiment.caveats() {
        page.raw("<b>Mind:</b> ").prose(caveat).raw(". ");
    }
    let mut stand_ins: Vec<(&str, &str)> = Vec::new();
    for cell in experiment.cells() {
        if let ModeRecord::Emulated { by } = cell.mode
            && !stand_ins.contains(&(cell.backend, by))
        {
            stand_ins.push((cell.backend, by));
        }
    }
    for (backend, by) in stand_ins {
        page.element("<b>", backend, "</b> is emulated by ").prose(by).raw(". ");
    }
    page.raw("</p>\n");
}

/// Service time, schedule lag, the other metrics, the facts.
fn details(page: &mut Page, experiment: &Experiment<'_>) {
    page.raw("<details>\n<summary>Everything else that was measured</summary>\n");
    let metrics = experiment.metric_names();
    page.raw(
        "<div class=\"box\" role=\"region\" tabindex=\"0\" aria-label=\"Further measurements\"><table>\n<thead><tr>",
    );
    page.raw("<th scope=\"col\">Back end</th><th scope=\"col\" class=\"n\">rounds</th>");
    page.raw("<th scope=\"col\" class=\"n\">largest latency</th>");
    page.raw("<th scope=\"col\" class=\"n\">service p50</th><th scope=\"col\" class=\"n\">service p99</th>");
    page.raw("<th scope=\"col\" class=\"n\">lag p50</th><th scope=\"col\" class=\"n\">lag p99</th>");
    for name in &metrics {
        page.element("<th scope=\"col\" class=\"n\">", words::metric_title(name), "</th>");
    }
    page.raw("</tr></thead>\n");
    for (point, cells) in &experiment.points {
        page.raw("<tbody>\n");
        if !point.is_empty() {
            page.element(
                "<tr class=\"point\"><th scope=\"rowgroup\" colspan=\"",
                7 + metrics.len(),
                "\"><span>",
            );
            page.text(point_name(point)).raw("</span></th></tr>\n");
        }
        for cell in cells {
            page.raw(if cell.valid { "<tr>" } else { "<tr class=\"invalid\">" });
            page.element("<th scope=\"row\">", cell.backend, "</th>");
            page.element("<td class=\"n\">", cell.rows.len(), "</td>");
            let max = cell.main().map_or("–".into(), |pooled| {
                units::duration(pooled.distribution.max_ns as f64)
            });
            page.element("<td class=\"n\">", max, "</td>");
            for (pooled, q) in [
                (&cell.service, 0.5),
                (&cell.service, 0.99),
                (&cell.schedule_lag, 0.5),
                (&cell.schedule_lag, 0.99),
            ] {
                let value = |pooled: &Pooled| pooled.quantile(q).map(|quantile| units::quantile(quantile.value));
                let text = pooled.as_ref().and_then(value).unwrap_or_else(|| "–".into());
                page.element("<td class=\"n\">", text, "</td>");
            }
            for name in &metrics {
                let text = cell
                    .metrics
                    .get(name)
                    .map(|metric| units::with_unit(metric.median, metric.unit));
                page.element("<td class=\"n\">", text.unwrap_or_else(|| "–".into()), "</td>");
            }
            page.raw("</tr>\n");
        }
        page.raw("</tbody>\n");
    }
    page.raw("</table></div>\n");
    facts(page, experiment);
    page.raw("</details>\n");
}

/// Facts that are the same everywhere are said once, the others per value with the back ends that had it.
fn facts(page: &mut Page, experiment: &Experiment<'_>) {
    let mut names: Vec<&str> = experiment.cells().flat_map(|cell| cell.facts.keys().copied()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return;
    }
    page.raw("<dl class=\"facts\">\n");
    for name in names {
        let mut values: Vec<(String, Vec<&str>)> = Vec::new();
        for cell in experiment.cells() {
            let value = cell.facts.get(name).map_or("–".into(), |values| values.join(", "));
            match values.iter_mut().find(|(known, _)| *known == value) {
                Some((_, backends)) if backends.contains(&cell.backend) => {}
                Some((_, backends)) => backends.push(cell.backend),
                None => values.push((value, vec![cell.backend])),
            }
        }
        page.element("<dt>", name, "</dt><dd>");
        let all_same = values.len() == 1;
        for (index, (value, backends)) in values.into_iter().enumerate() {
            if index > 0 {
                page.raw("<br>");
            }
            page.prose(&value);
            if !all_same {
                page.element(" <small>", backends.join(", "), "</small>");
            }
        }
        page.raw("</dd>\n");
    }
    page.raw("</dl>\n");
}
