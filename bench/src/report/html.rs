//! The report as one HTML file: verdicts first, then how they came to be. It works offline and fetches nothing.

mod experiment;
mod machine;
mod page;
mod verdict;

pub(crate) use self::page::Page;
use super::{
    ExperimentText, charts,
    model::{Summary, summarize},
    words,
};
use crate::store::Run;

/// uPlot 1.6.32, MIT: see `bench/assets/uplot.LICENSE`.
const UPLOT_JS: &str = include_str!("../../assets/uplot.min.js");
const UPLOT_CSS: &str = include_str!("../../assets/uplot.min.css");
const UPLOT_LICENSE: &str = include_str!("../../assets/uplot.LICENSE");
const REPORT_JS: &str = include_str!("../../assets/report.js");
const REPORT_CSS: &str = include_str!("../../assets/report.css");

/// Nothing is fetched, and no script runs but the two of this file: their SHA-256 stands here, and a test holds it.
const POLICY: &str = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
    style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; script-src \
    'sha256-GcjUxq2Ikpp59K5J1vcWFWbf0Lo9FcxJXpdPeH63jx8=' 'sha256-E4FelM13nDkv/MWeuPKdQ9KGovAbizxCAyaU2Ni7uxo='\">\n";

/// One self-contained HTML file about one or several runs. `texts` gives the order and the words of the experiments;
/// an experiment without a text is shown under its id.
pub fn html(runs: &[&Run], texts: &[ExperimentText]) -> String {
    let summaries: Vec<Summary<'_>> = runs.iter().map(|run| summarize(run, texts)).collect();
    let mut page = Page::default();
    page.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
        .raw(POLICY)
        .raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
        .raw("<meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n")
        .element("<title>dplab: ", words::headline(&summaries), "</title>\n")
        .raw("<style>")
        .raw(UPLOT_CSS)
        .raw("</style>\n<style>\n")
        .raw(REPORT_CSS)
        .raw("</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#content\">Skip to the verdicts</a>\n<main>\n");
    page.raw("<header>\n<p class=\"kicker\">dplab report</p>\n").element(
        "<h1>",
        words::headline(&summaries),
        "</h1>\n",
    );
    if summaries.is_empty() {
        page.raw("<p class=\"lead\">No run was given, so there is nothing to show.</p>\n");
    }
    page.raw("</header>\n<div id=\"content\">\n");
    for (index, summary) in summaries.iter().enumerate() {
        run(&mut page, index, summary, summaries.len() > 1);
    }
    page.raw("</div>\n</main>\n");
    page.raw("<script type=\"application/json\" id=\"data\">")
        .json(&charts::data(&summaries))
        .raw("</script>\n<!-- uPlot\n")
        .raw(UPLOT_LICENSE)
        .raw("-->\n<script>")
        .raw(UPLOT_JS)
        .raw("</script>\n<script>")
        .raw(REPORT_JS)
        .raw("</script>\n</body>\n</html>\n");
    page.into_string()
}

fn run(page: &mut Page, index: usize, summary: &Summary<'_>, one_of_several: bool) {
    page.raw("<article>\n");
    if one_of_several {
        let place = summary
            .run
            .path
            .as_ref()
            .map_or("".into(), |path| format!(": {}", path.display()));
        page.element("<h2 class=\"run\">Run ", format!("{}{place}", index + 1), "</h2>\n");
    }
    machine::identity(page, summary);
    alarms(page, summary);
    verdict::section(page, index, summary);
    terms(page);
    for experiment in &summary.experiments {
        experiment::section(page, index, experiment);
    }
    machine::backends(page, summary);
    machine::environment(page, summary);
    machine::warnings(page, summary);
    machine::reproduce(page, summary);
    page.raw("</article>\n");
}

fn alarms(page: &mut Page, summary: &Summary<'_>) {
    if summary.alarms.is_empty() {
        return;
    }
    page.raw("<div class=\"alarm\" role=\"note\">\n<p><strong>Before you read on</strong></p>\n<ul>\n");
    for alarm in &summary.alarms {
        page.raw("<li>").prose(alarm).raw("</li>\n");
    }
    page.raw("</ul>\n</div>\n");
}

/// The words of the report, for somebody who meets them for the first time.
fn terms(page: &mut Page) {
    page.raw(
        "<details class=\"terms\">\n<summary>How to read this report</summary>\n<dl>\n\
         <dt>p50, p99, p99.9</dt><dd>Half of all requests were answered within p50; of 1000 requests, 999 were answered \
         within p99.9 and one took longer. The small numbers below a value are its 95 % confidence interval. \
         <em>n/a</em>: too few requests to say.</dd>\n\
         <dt>latency</dt><dd>From the moment a request was <em>meant</em> to be sent until its reply. A request that had \
         to wait because the one before it was slow has waited, and that counts. <em>Service time</em> counts from the \
         actual send, and <em>schedule lag</em> is the difference: how late the load generator itself was.</dd>\n\
         <dt>lost</dt><dd>Requests without a reply in time. They count as slower than any time, so a percentile that \
         falls among them is printed as <em>lost</em>.</dd>\n\
         <dt>native, emulated, simulated</dt><dd>Real packets through the real mechanism; real packets through a \
         stand-in, which is named; or computed in virtual time.</dd>\n\
         <dt>INVALID</dt><dd>Something disturbed the measurement, and the reason stands below the row. It is shown, but no \
         verdict rests on it.</dd>\n\
         <dt>ratio and noise floor</dt><dd>Ratios are taken within a round, where things were measured next to each \
         other, and the median over the rounds is shown with its 95 % interval. One back end is measured twice in each \
         round; how far these identical twins differ is the noise floor, and a difference smaller than that is \
         none.</dd>\n\
         <dt>holds, fails, inconclusive, not measured</dt><dd>Holds and fails are said only beyond the noise of this run. \
         Everything that is not, is inconclusive; not measured says what it would take.</dd>\n\
         </dl>\n</details>\n",
    );
}

#[cfg(test)]
mod tests;
