//! The report for the person at the terminal: verdicts as lines, results as tables of the width that there is.

use std::io::IsTerminal as _;

use comfy_table::{Cell as Column, CellAlignment, ContentArrangement, Table, presets};

use super::{
    ExperimentText, REFERENCE,
    markdown::ratio,
    model::{Cell, Experiment, Summary, point_name, summarize},
    text::{Out, visible},
    units, words,
};
use crate::{
    breakdown::STAGE_SHARE,
    record::{ModeRecord, Outcome, VerdictRecord},
    store::Run,
};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Characters in a line.
    pub width_chars: u16,
    /// May colours be used?
    pub colour: bool,
}

impl Style {
    /// What stdout is: 100 characters and no colour unless it is a terminal; no colour with `NO_COLOR` set
    /// (<https://no-color.org>) or on a dumb terminal.
    pub fn of_stdout() -> Style {
        let is_terminal = std::io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Style {
            width_chars: Table::new()
                .width()
                .filter(|_| is_terminal)
                .unwrap_or(100)
                .clamp(60, 160),
            colour: is_terminal && !set("NO_COLOR") && !is_dumb,
        }
    }
}

/// One or several runs as text for a terminal. `texts` as in [`super::html`].
pub fn terminal(runs: &[&Run], texts: &[ExperimentText], style: Style) -> String {
    let summaries: Vec<Summary<'_>> = runs.iter().map(|run| summarize(run, texts)).collect();
    let mut out = Out::new(style);
    for summary in &summaries {
        run(&mut out, summary);
    }
    out.line("");
    out.paragraph("", &words::headline(&summaries));
    out.into_string()
}

fn run(out: &mut Out, summary: &Summary<'_>) {
    let header = &summary.run.header;
    out.paragraph(
        "",
        &format!("{} · {}", words::place(summary.run), units::utc(header.started_unix_ms)),
    );
    if let Some(machine) = words::machine(summary.run) {
        out.paragraph("", &machine);
    }
    out.paragraph(
        "",
        &format!("seed {} · dplab {}", header.seed, words::version(summary.run)),
    );
    for alarm in &summary.alarms {
        out.line("");
        let mark = out.painted("33;1", "!");
        out.line(&mark);
        out.paragraph("  ", alarm);
    }
    for experiment in &summary.experiments {
        table(out, experiment);
    }
    if !summary.verdicts.is_empty() {
        out.line("");
        out.line(&out.bold("Verdicts"));
    }
    // The last line is what stays on the screen, so what needs looking at comes last.
    for verdict in summary.verdicts.iter().rev() {
        entry(out, verdict);
    }
}

fn entry(out: &mut Out, verdict: &VerdictRecord) {
    let (code, mark) = match verdict.outcome {
        Outcome::Holds => ("32;1", "✓ holds"),
        Outcome::Fails => ("31;1", "✗ fails"),
        Outcome::Inconclusive { .. } => ("33;1", "≈ inconclusive"),
        Outcome::NotMeasured { .. } => ("2", "– not measured"),
    };
    let mark = out.painted(code, mark);
    out.line(&format!("{mark}  {}", visible(&verdict.claim)));
    out.paragraph("    ", &verdict.sentence);
    if let Some(decisive) = verdict.measured.first() {
        out.paragraph("    ", &format!("{}: {}", decisive.name, words::figure(decisive)));
    }
    if let Some(why) = words::why(&verdict.outcome) {
        out.paragraph("    ", why);
    }
}

fn table(out: &mut Out, experiment: &Experiment<'_>) {
    out.line("");
    out.line(&out.bold(&visible(experiment.title)));
    out.paragraph("", experiment.question);
    let has_ratio = experiment.has_ratio();
    // p99.99 and the intervals are in the other reports: this one has to fit.
    let wide = out.style.width_chars >= 100;
    let stages = experiment.metric_names().contains(&STAGE_SHARE);
    // Stages have long names.
    let wide = wide && !stages;
    let quantiles: Vec<f64> = experiment
        .quantiles()
        .iter()
        .copied()
        .filter(|q| wide || ![0.9, 0.9999].contains(q))
        .collect();
    let has_latency = experiment.has_latency();
    // Beside a latency there is hardly room for them.
    let metrics = match (has_latency, stages) {
        (true, true) => vec![STAGE_SHARE],
        (true, false) => experiment.companions(),
        (false, _) => experiment.main_metrics(),
    };
    for Section { title, rows } in sections(experiment) {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic);
        table.force_no_tty().set_width(out.style.width_chars);
        let mut titles = vec![Column::new(title)];
        titles.extend(quantiles.iter().map(|q| right(units::quantile_name(*q))));
        titles.extend(has_latency.then(|| right("lost".into())));
        titles.extend(metrics.iter().map(|name| right(words::metric_title(name))));
        if has_ratio {
            titles.push(right(if wide {
                format!("p50 ÷ {REFERENCE}")
            } else {
                "÷ blocking".into()
            }));
        }
        table.set_header(titles);
        for (name, cell) in rows.iter().filter(|(_, cell)| !cell.sidelined) {
            let shown = Shown {
                quantiles: &quantiles,
                has_latency,
                metrics: &metrics,
                has_ratio,
                wide,
            };
            table.add_row(row(name, cell, &shown));
        }
        out.line("");
        for line in table.trim_fmt().lines() {
            out.line(line);
        }
        // Rows of one measurement are INVALID for the same reasons; said once.
        let mut said: Vec<(&str, &[String])> = Vec::new();
        for (name, cell) in rows.iter().filter(|(_, cell)| !cell.valid) {
            if said.contains(&(cell.backend, &cell.reasons)) {
                continue;
            }
            out.paragraph(
                "  ",
                &format!("{name} INVALID, not judged: {}", cell.reasons.join("; ")),
            );
            said.push((cell.backend, &cell.reasons));
        }
    }
    for caveat in experiment.caveats() {
        out.line("");
        out.paragraph("", &format!("Mind: {caveat}."));
    }
    if let Some(floor) = experiment.noise_floor {
        out.line("");
        out.paragraph(
            "",
            &format!("noise floor {} % (identical twins)", units::significant(floor * 100.0)),
        );
    }
}

/// One table of an experiment.
struct Section<'a> {
    title: String,
    /// Each with its name.
    rows: Vec<(String, &'a Cell<'a>)>,
}

/// A table for each point of the axes; or, where points have hardly more than one row each, a table for all points that
/// differ in the last axis alone.
fn sections<'a>(experiment: &'a Experiment<'a>) -> Vec<Section<'a>> {
    let shown_count = experiment.cells().filter(|cell| !cell.sidelined).count();
    let by = experiment
        .axes
        .last()
        .filter(|_| experiment.points.len() > 1 && shown_count < 2 * experiment.points.len());
    let mut sections: Vec<Section<'a>> = Vec::new();
    for (point, cells) in &experiment.points {
        let Some(by) = by else {
            let title = match point.is_empty() {
                true => "back end".into(),
                false => visible(&point_name(point)),
            };
            let rows = cells.iter().map(|cell| (visible(cell.backend), cell)).collect();
            sections.push(Section { title, rows });
            continue;
        };
        let mut rest = (*point).clone();
        let value = rest.remove(*by).unwrap_or_default();
        let title = match rest.is_empty() {
            true => visible(by),
            false => visible(&format!("{}, by {by}", point_name(&rest))),
        };
        let rows = cells
            .iter()
            .map(|cell| (visible(&format!("{value}, {}", cell.backend)), cell));
        match sections.last_mut().filter(|section| section.title == title) {
            Some(section) => section.rows.extend(rows),
            None => sections.push(Section {
                title,
                rows: rows.collect(),
            }),
        }
    }
    sections
}

/// Which columns a table has.
struct Shown<'a> {
    quantiles: &'a [f64],
    has_latency: bool,
    metrics: &'a [&'a str],
    has_ratio: bool,
    wide: bool,
}

fn row(name: &str, cell: &Cell<'_>, shown: &Shown<'_>) -> Vec<Column> {
    let mut name = name.to_owned();
    match cell.mode {
        ModeRecord::Native => {}
        ModeRecord::Emulated { .. } => name.push_str(" (emulated)"),
        ModeRecord::Simulated => name.push_str(" (simulated)"),
    }
    if !cell.valid {
        name.push_str(" INVALID");
    }
    let mut columns = vec![Column::new(name)];
    columns.extend(shown.quantiles.iter().map(|q| {
        let quantile = cell.main().and_then(|pooled| pooled.quantile(*q));
        right(quantile.map_or("–".into(), |quantile| units::quantile(quantile.value)))
    }));
    let lost = cell
        .main()
        .map_or("–".into(), |pooled| units::count(pooled.distribution.lost_count));
    columns.extend(shown.has_latency.then(|| right(lost)));
    columns.extend(shown.metrics.iter().map(|name| {
        let metric = cell.metrics.get(name);
        right(metric.map_or("–".into(), |metric| units::with_unit(metric.median, metric.unit)))
    }));
    if shown.has_ratio {
        let whole = ratio(cell);
        let estimate = whole.split(' ').next().unwrap_or_default().to_string();
        columns.push(right(if shown.wide { whole } else { estimate }));
    }
    columns
}

fn right(text: String) -> Column {
    Column::new(text).set_alignment(CellAlignment::Right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{self, TEXTS};

    fn plain(width_chars: u16) -> Style {
        Style {
            width_chars,
            colour: false,
        }
    }

    #[test]
    fn the_sample_in_80_columns() {
        insta::assert_snapshot!(terminal(&[sample::shared()], TEXTS, plain(80)));
    }

    #[test]
    fn the_sample_in_120_columns() {
        insta::assert_snapshot!(terminal(&[sample::shared()], TEXTS, plain(120)));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let run = sample::shared();
        for width_chars in [60, 80, 100, 120] {
            let text = terminal(&[run], TEXTS, plain(width_chars));
            let widest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
            assert!(
                widest.chars().count() <= usize::from(width_chars),
                "{width_chars}: {widest:?}"
            );
        }
    }

    #[test]
    fn points_of_one_row_each_share_a_table() {
        let mut run = sample::shared().clone();
        run.rows
            .retain(|row| row.backend == "udp-blocking" && row.axis.contains_key("frame_bytes"));
        let mut sizes: Vec<&str> = run.rows.iter().map(|row| row.axis["frame_bytes"].as_str()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        assert!(sizes.len() > 1, "the sample has several sizes");
        let text = terminal(&[&run], TEXTS, plain(100));
        assert_eq!(text.matches("p99.9 ").count(), 1, "one table: {text}");
        for size in sizes {
            assert!(text.contains(&format!("{size}, udp-blocking")), "{size}: {text}");
        }
    }

    #[test]
    fn what_measures_no_latency_shows_what_it_measured() {
        let mut run = sample::shared().clone();
        for row in &mut run.rows {
            (row.latency, row.service, row.schedule_lag) = (None, None, None);
            row.metrics
                .retain(|name, _| name == "replies_per_sec" || name == "server_cpu_ns_per_op");
        }
        let before = terminal(&[&run], TEXTS, plain(100));
        for row in &mut run.rows {
            row.metrics.remove("server_cpu_ns_per_op");
        }
        let after = terminal(&[&run], TEXTS, plain(100));
        let rates = words::metric_title("replies_per_sec");
        assert!(!before.contains(&rates), "CPU time says more: {before}");
        assert!(after.contains(&rates), "there is nothing else: {after}");
    }

    #[test]
    fn colours_are_escapes_and_their_absence_is_none() {
        let run = sample::shared();
        assert!(!terminal(&[run], TEXTS, plain(80)).contains('\u{1b}'));
        let coloured = Style {
            colour: true,
            ..plain(80)
        };
        assert!(terminal(&[run], TEXTS, coloured).contains("\u{1b}[31;1m"));
    }

    #[test]
    fn a_record_cannot_move_the_cursor() {
        let mut run = sample::shared().clone();
        run.header.place = "\u{1b}[2Jgone\r".into();
        run.rows[0].backend = "\u{1b}[31mred".into();
        run.verdicts[0].sentence = "\u{7}".into();
        let text = terminal(&[&run], TEXTS, plain(100));
        assert!(!text.contains(['\u{1b}', '\r', '\u{7}']), "{text:?}");
    }
}
