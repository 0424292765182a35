//! The verdicts: each claim with its answer, the figure that decided, and the limit it was held against.

use super::Page;
use crate::{
    record::{Measured, Outcome, VerdictRecord},
    report::{model::Summary, svg, units},
};

pub(super) fn section(page: &mut Page, run: usize, summary: &Summary<'_>) {
    page.raw("<section aria-label=\"Verdicts\">\n<h2>Verdicts</h2>\n");
    if summary.verdicts.is_empty() {
        page.raw("<p>No claim was judged in this run.</p>\n");
    } else {
        page.raw("<ul class=\"verdicts\">\n");
        for verdict in &summary.verdicts {
            let shown = summary
                .experiments
                .iter()
                .find(|experiment| experiment.id == verdict.experiment);
            entry(page, run, verdict, shown.map(|experiment| experiment.title));
        }
        page.raw("</ul>\n");
    }
    page.raw("</section>\n");
}

fn entry(page: &mut Page, run: usize, verdict: &VerdictRecord, experiment_title: Option<&str>) {
    let (open, why) = match &verdict.outcome {
        Outcome::Holds => (
            "<li class=\"holds\"><p class=\"outcome\"><i aria-hidden=\"true\">✓</i> Holds</p>",
            None,
        ),
        Outcome::Fails => (
            "<li class=\"fails\"><p class=\"outcome\"><i aria-hidden=\"true\">✗</i> Fails</p>",
            None,
        ),
        Outcome::Inconclusive { why } => (
            "<li class=\"open\"><p class=\"outcome\"><i aria-hidden=\"true\">≈</i> Inconclusive</p>",
            Some(why),
        ),
        Outcome::NotMeasured { why } => (
            "<li class=\"unmeasured\"><p class=\"outcome\"><i aria-hidden=\"true\">–</i> Not measured</p>",
            Some(why),
        ),
    };
    page.raw(open)
        .raw("<div>\n")
        .element("<p class=\"sentence\">", &verdict.sentence, "</p>\n");
    if let Some(decisive) = verdict.measured.first() {
        page.raw("<div class=\"decisive\">");
        figure(page, decisive);
        if let Some(scale) = svg::interval_scale(decisive) {
            scale.write(page);
        }
        page.raw("</div>\n");
    }
    if let Some(why) = why {
        page.raw("<p class=\"why\">").prose(why).raw("</p>\n");
    }
    if verdict.measured.len() > 1 {
        page.raw("<ul class=\"also\">\n");
        for measured in &verdict.measured[1..] {
            page.raw("<li>");
            figure(page, measured);
            page.raw("</li>\n");
        }
        page.raw("</ul>\n");
    }
    page.element("<p class=\"source\">Source: ", &verdict.source, "");
    page.element(" · claim <code>", &verdict.claim, "</code>");
    match experiment_title {
        Some(title) => {
            page.element(" · <a href=\"#run-", run, "-")
                .text(&verdict.experiment)
                .raw("\">");
            page.text(title).raw("</a>");
        }
        None => {
            page.element(" · experiment <code>", &verdict.experiment, "</code>");
        }
    }
    page.raw("</p>\n</div></li>\n");
}

fn figure(page: &mut Page, measured: &Measured) {
    page.raw("<p class=\"figure\"><b>");
    match measured.value {
        Some(value) => page.text(units::with_unit(value, &measured.unit)),
        None => page.raw("lost"),
    };
    page.raw("</b>");
    if let (Some(low), Some(high)) = (measured.low, measured.high) {
        let (low, high) = (
            units::with_unit(low, &measured.unit),
            units::with_unit(high, &measured.unit),
        );
        page.element(" <span class=\"interval\">", format!("{low} to {high}"), "</span>");
    }
    if !measured.limit.is_empty() {
        page.element(" <span class=\"limit\">claimed: ", &measured.limit, "</span>");
    }
    page.element("<br><span class=\"name\">", &measured.name, "");
    if measured.samples_count > 0 {
        page.element(", from ", units::count(measured.samples_count), " samples");
    }
    page.raw("</span></p>");
}
