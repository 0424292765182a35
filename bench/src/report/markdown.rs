//! The report as Markdown tables, to paste into an issue.

use std::fmt::Write as _;

use super::{
    ExperimentText, REFERENCE,
    model::{Cell, Experiment, Summary, mode_name, summarize},
    text::markdown_text,
    units, words,
};
use crate::{
    record::{QuantileValue, SupportRecord},
    store::Run,
};

/// One or several runs as Markdown. `texts` as in [`super::html`].
pub fn markdown(runs: &[&Run], texts: &[ExperimentText]) -> String {
    let summaries: Vec<Summary<'_>> = runs.iter().map(|run| summarize(run, texts)).collect();
    let mut out = format!("# {}\n", words::headline(&summaries));
    for summary in &summaries {
        // Writing to a string does not fail.
        let _ = run(&mut out, summary);
    }
    out
}

fn run(out: &mut String, summary: &Summary<'_>) -> std::fmt::Result {
    let header = &summary.run.header;
    let began = units::utc(header.started_unix_ms);
    let machine =
        words::machine(summary.run).map_or(String::new(), |machine| format!(" · {}", markdown_text(&machine)));
    writeln!(
        out,
        "\n{}{machine} · {began} · seed {} · dplab {}\n",
        markdown_text(&words::place(summary.run)),
        header.seed,
        words::version(summary.run)
    )?;
    for alarm in &summary.alarms {
        writeln!(out, "> **Note:** {}\n>", markdown_text(alarm))?;
    }
    if !summary.alarms.is_empty() {
        writeln!(out)?;
    }
    if !summary.verdicts.is_empty() {
        writeln!(out, "| Verdict | Claim | Measured | Source |\n|---|---|---|---|")?;
    }
    for verdict in &summary.verdicts {
        let figure = verdict
            .measured
            .first()
            .map(|decisive| format!("{}: {}", decisive.name, words::figure(decisive)));
        let why = words::why(&verdict.outcome).map(str::to_string);
        let measured: Vec<String> = [figure, why].into_iter().flatten().collect();
        writeln!(
            out,
            "| **{}** | {} (`{}`) | {} | {} |",
            words::outcome(&verdict.outcome),
            markdown_text(&verdict.sentence),
            markdown_text(&verdict.claim),
            markdown_text(&measured.join("; ")),
            markdown_text(&verdict.source)
        )?;
    }
    for experiment in &summary.experiments {
        table(out, experiment)?;
    }
    writeln!(out, "\n## Back ends\n\n| Back end | Here |\n|---|---|")?;
    for backend in &header.backends {
        let here = match &backend.support {
            SupportRecord::Native => "native".into(),
            SupportRecord::Emulated { by } => format!("emulated by {by}"),
            SupportRecord::Absent { why } => format!("absent: {why}"),
            // A probe's own words begin with these.
            SupportRecord::Unknown { why } => format!("could not ask: {}", why.trim_start_matches("could not ask: ")),
        };
        writeln!(out, "| {} | {} |", markdown_text(&backend.name), markdown_text(&here))?;
    }
    if !header.environment.noise.is_empty() {
        writeln!(out, "\n## What made it noisy\n")?;
    }
    for source in &header.environment.noise {
        let mend = source
            .mend
            .as_ref()
            .map_or(String::new(), |mend| format!(" Try: {}", markdown_text(mend)));
        writeln!(
            out,
            "- **{}**: {}.{mend}",
            markdown_text(&source.name),
            markdown_text(&source.seen)
        )?;
    }
    writeln!(out, "\nAgain: `{}`", words::command_line(summary.run).replace('`', "'"))
}

fn table(out: &mut String, experiment: &Experiment<'_>) -> std::fmt::Result {
    writeln!(out, "\n## {}\n", markdown_text(experiment.title))?;
    if !experiment.question.is_empty() {
        writeln!(out, "{}\n", markdown_text(experiment.question))?;
    }
    let metrics = experiment.main_metrics();
    let has_latency = experiment.has_latency();
    let has_ratio = experiment.has_ratio();
    let mut titles: Vec<String> = experiment.axes.iter().map(|axis| markdown_text(axis)).collect();
    titles.extend(["back end".into(), "mode".into()]);
    let words_count = titles.len();
    titles.extend(experiment.quantiles().iter().map(|q| units::quantile_name(*q)));
    titles.extend(has_latency.then(|| "lost".into()));
    titles.extend(has_ratio.then(|| format!("p50 ÷ {REFERENCE}")));
    titles.extend(metrics.iter().map(|name| markdown_text(&words::metric_title(name))));
    let aligned = (0..titles.len()).map(|index| if index < words_count { "---" } else { "--:" });
    writeln!(
        out,
        "| {} |\n|{}|",
        titles.join(" | "),
        aligned.collect::<Vec<_>>().join("|")
    )?;
    for (point, cells) in &experiment.points {
        for cell in cells.iter().filter(|cell| !cell.sidelined) {
            let mut columns: Vec<String> = Vec::new();
            columns.extend(
                experiment
                    .axes
                    .iter()
                    .map(|axis| point.get(*axis).map_or("–".into(), |value| markdown_text(value))),
            );
            columns.push(markdown_text(cell.backend));
            columns.push(format!(
                "{}{}",
                mode_name(cell.mode),
                if cell.valid { "" } else { ", **INVALID**" }
            ));
            columns.extend(experiment.quantiles().iter().map(|q| value(cell, *q)));
            columns.extend(has_latency.then(|| {
                cell.main()
                    .map_or("–".into(), |pooled| units::count(pooled.distribution.lost_count))
            }));
            columns.extend(has_ratio.then(|| ratio(cell)));
            columns.extend(metrics.iter().map(|name| {
                let metric = cell.metrics.get(name);
                metric.map_or("–".into(), |metric| units::with_unit(metric.median, metric.unit))
            }));
            writeln!(out, "| {} |", columns.join(" | "))?;
        }
    }
    for cell in experiment.cells().filter(|cell| !cell.valid) {
        writeln!(
            out,
            "\nNot judged: {} ({}): {}",
            markdown_text(cell.backend),
            point_of(cell),
            markdown_text(&cell.reasons.join("; "))
        )?;
    }
    for caveat in experiment.caveats() {
        writeln!(out, "\n**Mind:** {}.", markdown_text(caveat))?;
    }
    match experiment.noise_floor {
        Some(floor) => writeln!(
            out,
            "\nNoise floor: identical twins differ by up to {} %.",
            units::significant(floor * 100.0)
        ),
        None => writeln!(out, "\nNo twin was measured, so the noise floor is unknown."),
    }
}

fn point_of(cell: &Cell<'_>) -> String {
    markdown_text(&super::model::point_name(&cell.rows[0].axis))
}

/// A quantile, the median with its interval.
fn value(cell: &Cell<'_>, q: f64) -> String {
    let Some(quantile) = cell.main().and_then(|pooled| pooled.quantile(q)) else {
        return "–".into();
    };
    let interval = units::quantile_interval(quantile.low, quantile.high);
    if q > 0.5 || interval.is_empty() || quantile.value == QuantileValue::Unsupported {
        return units::quantile(quantile.value);
    }
    format!("{} ({interval})", units::quantile(quantile.value))
}

/// The ratio to the reference with its interval.
pub(super) fn ratio(cell: &Cell<'_>) -> String {
    match (cell.ratio, cell.valid && cell.backend == REFERENCE) {
        (Some(ratio), _) => match ratio.interval {
            Some((low, high)) => format!(
                "{} ({}–{})",
                units::significant(ratio.value),
                units::significant(low),
                units::significant(high)
            ),
            None => units::significant(ratio.value),
        },
        (None, true) => "1".into(),
        (None, false) => "–".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{self, TEXTS};

    #[test]
    fn the_sample_as_markdown() {
        insta::assert_snapshot!(markdown(&[sample::shared()], TEXTS));
    }

    #[test]
    fn an_empty_run_says_so() {
        let mut run = Run::new(sample::shared().header.clone());
        run.header.backends.clear();
        let text = markdown(&[&run], TEXTS);
        assert!(text.starts_with("# Nothing was measured\n"), "{text}");
        assert!(text.contains("zero rows"), "{text}");
        assert!(text.contains("has no end"), "{text}");
    }

    #[test]
    fn text_does_not_leave_its_cell() {
        assert_eq!(
            markdown_text("a|b\n<img src=x> [x](y) *z*"),
            "a\\|b &lt;img src=x> \\[x\\](y) \\*z\\*"
        );
    }
}
