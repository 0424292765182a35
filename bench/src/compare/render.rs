//! A comparison as text: for a terminal, and as Markdown. JSON is the struct itself, by serde.

use super::{Change, Comparison, Pair, ROUNDS_COUNT_MIN};
use crate::report::{
    Style,
    text::{Out, markdown_text, table},
    units,
};

/// As text for a terminal.
pub fn terminal(comparison: &Comparison, style: Style) -> String {
    let mut out = Out::new(style);
    for warning in &comparison.warnings {
        out.paragraph("! ", warning);
    }
    if !comparison.warnings.is_empty() {
        out.line("");
    }
    if !comparison.pairs.is_empty() {
        let titles = ["", "", "A", "B", "B ÷ A", ""];
        let rows: Vec<[String; 6]> = comparison.pairs.iter().map(columns).collect();
        out.table(&table(&titles, &rows, &[2, 3, 4], style.width_chars));
        out.line("");
    }
    for (run, only) in [("A", &comparison.only_in_a), ("B", &comparison.only_in_b)] {
        for name in only {
            out.paragraph("  ", &format!("only in {run}: {name}"));
        }
    }
    out.paragraph("", &summary(comparison));
    out.into_string()
}

/// As Markdown.
pub fn markdown(comparison: &Comparison) -> String {
    let mut text = format!("# {}\n", summary(comparison));
    for warning in &comparison.warnings {
        text.push_str(&format!("\n> **Note:** {}\n", markdown_text(warning)));
    }
    if !comparison.pairs.is_empty() {
        text.push_str("\n| What | Quantity | A | B | B ÷ A | p | Change |\n|---|---|--:|--:|--:|--:|---|\n");
    }
    for pair in &comparison.pairs {
        let [what, quantity, a, b, ratio, change] = columns(pair);
        let change = match pair.change {
            Change::Worse | Change::Better => format!("**{change}**"),
            Change::NoEvidence | Change::TooFewRounds => change,
        };
        let cells = [what, quantity, a, b, ratio]
            .map(|cell| markdown_text(&cell))
            .join(" | ");
        text.push_str(&format!("| {cells} | {} | {change} |\n", p_value(pair.p_value)));
    }
    for (run, only) in [("A", &comparison.only_in_a), ("B", &comparison.only_in_b)] {
        for name in only {
            text.push_str(&format!("\nOnly in {run}: {}\n", markdown_text(name)));
        }
    }
    text
}

/// The whole in a sentence or three.
fn summary(comparison: &Comparison) -> String {
    let judged_count = comparison.pairs.len() - comparison.count(Change::TooFewRounds);
    if comparison.pairs.is_empty() {
        return "The two runs have nothing in common that may be judged".into();
    }
    if judged_count == 0 {
        return format!(
            "Nothing can be told: it takes at least {ROUNDS_COUNT_MIN} rounds on each side. Measure both longer (--budget)"
        );
    }
    let (worse, better) = (comparison.count(Change::Worse), comparison.count(Change::Better));
    if worse + better == 0 {
        return format!("No evidence of change in {judged_count} comparisons");
    }
    format!(
        "{worse} worse, {better} better, no evidence of change in {} of {judged_count} comparisons. By chance alone about \
         1 in 20 would seem to change: trust a change that shows again in new runs",
        judged_count - worse - better
    )
}

fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

fn columns(pair: &Pair) -> [String; 6] {
    let point = pair.axis.iter().map(|(axis, value)| format!(" {axis} {value}"));
    let value = |value: Option<f64>| value.map_or("lost".into(), |value| units::with_unit(value, &pair.unit));
    let mut ratio = pair.ratio.map_or("–".into(), units::significant);
    if let (Some(low), Some(high)) = (pair.low, pair.high) {
        ratio.push_str(&format!(" ({}–{})", units::significant(low), units::significant(high)));
    }
    let change = match pair.change {
        Change::Worse => "worse",
        Change::Better => "better",
        Change::NoEvidence => "no evidence of change",
        Change::TooFewRounds => "too few rounds",
    };
    let what = format!("{} {}{}", pair.experiment, pair.backend, point.collect::<String>());
    [
        what,
        pair.quantity.clone(),
        value(pair.a),
        value(pair.b),
        ratio,
        change.into(),
    ]
}
