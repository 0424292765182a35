//! What ran where: the run's identity, its back ends, the machine, what was noisy, and how to do it again.

use super::Page;
use crate::{
    environment::{Environment, NoiseSource},
    record::{SupportRecord, VerdictRecord},
    report::{model::Summary, units, words},
};

/// What, where, when, from which sources.
pub(super) fn identity(page: &mut Page, summary: &Summary<'_>) {
    let header = &summary.run.header;
    page.raw("<dl class=\"identity\">\n");
    let mut fact = |name: &'static str, value: String| {
        page.element("<div><dt>", name, "</dt>")
            .element("<dd>", value, "</dd></div>\n");
    };
    fact("Where", words::place(summary.run));
    if let Some(machine) = words::machine(summary.run) {
        fact("On", machine);
    }
    let took = summary
        .run
        .end
        .as_ref()
        .map(|end| format!(", {} s", units::significant(end.elapsed_s)));
    fact(
        "When",
        format!("{}{}", units::utc(header.started_unix_ms), took.unwrap_or_default()),
    );
    fact("Seed", header.seed.to_string());
    fact("dplab", words::version(summary.run));
    let rounds = summary
        .run
        .rows
        .iter()
        .map(|row| row.round)
        .max()
        .map_or(0, |last| last as usize + 1);
    let experiments = words::counted(summary.experiments.len(), "experiment");
    fact(
        "Measured",
        format!(
            "{} in {experiments}, {}",
            words::counted(summary.run.rows.len(), "row"),
            words::counted(rounds, "round")
        ),
    );
    page.raw("</dl>\n");
}

pub(super) fn backends(page: &mut Page, summary: &Summary<'_>) {
    page.raw("<section>\n<h2>Every back end, and what it is here</h2>\n");
    page.raw("<div class=\"box\" role=\"region\" aria-label=\"Back ends\" tabindex=\"0\"><table class=\"words\">\n");
    page.raw("<thead><tr><th>Back end</th><th>Here</th><th>What moves the frames</th></tr></thead>\n<tbody>\n");
    for backend in &summary.run.header.backends {
        page.element("<tr><th scope=\"row\">", &backend.name, "</th><td>");
        match &backend.support {
            SupportRecord::Native => page.raw("<span class=\"tag\">native</span>"),
            SupportRecord::Emulated { by } => page.raw("<span class=\"tag warn\">emulated</span> by ").prose(by),
            SupportRecord::Absent { why } => page.raw("<span class=\"tag off\">absent</span> ").prose(why),
            SupportRecord::Unknown { why } => page
                .raw("<span class=\"tag off\">could not ask</span> ")
                .prose(why.trim_start_matches("could not ask: ")),
        };
        page.element("</td><td>", &backend.summary, "</td></tr>\n");
    }
    page.raw("</tbody>\n</table></div>\n</section>\n");
}

pub(super) fn environment(page: &mut Page, summary: &Summary<'_>) {
    let header = &summary.run.header;
    page.raw("<section>\n<h2>The machine</h2>\n");
    facts(page, &header.environment);
    if let Some(agent) = &header.agent {
        page.raw("<h3>The agent's machine</h3>\n");
        facts(page, &agent.environment);
    }
    if let Some(cost) = &header.generator {
        page.element(
            "<p>What measuring itself costs here: reading the clock takes ",
            units::duration(cost.clock_read_ns),
            "",
        )
        .element(", recording a sample ", units::duration(cost.record_ns), "")
        .element(
            ", an empty turn of the generator's loop ",
            units::duration(cost.loop_ns),
            ".</p>\n",
        );
    }
    if let Some(end) = &summary.run.end {
        let percent = units::significant(end.steal_ratio * 100.0);
        page.element(
            "<p>During the run the hypervisor took ",
            percent,
            " % of the CPU time away (steal).</p>\n",
        );
    }
    page.raw("</section>\n");
}

fn facts(page: &mut Page, environment: &Environment) {
    if environment.facts.is_empty() {
        page.raw("<p>Nothing is recorded of it.</p>\n");
        return;
    }
    page.raw("<dl class=\"facts\">\n");
    for (name, value) in &environment.facts {
        page.element("<dt>", name, "</dt>").element("<dd>", value, "</dd>\n");
    }
    page.raw("</dl>\n");
}

pub(super) fn warnings(page: &mut Page, summary: &Summary<'_>) {
    page.raw("<section>\n<h2>What made it noisy, and what to try</h2>\n");
    let header = &summary.run.header;
    noise(page, &header.environment.noise);
    if let Some(agent) = &header.agent {
        page.raw("<h3>On the agent's machine</h3>\n");
        noise(page, &agent.environment.noise);
    }
    page.raw("</section>\n");
}

fn noise(page: &mut Page, sources: &[NoiseSource]) {
    if sources.is_empty() {
        page.raw("<p>No source of noise was found before the run.</p>\n");
    } else {
        page.raw("<ol class=\"noise\">\n");
        for source in sources {
            page.element("<li><strong>", &source.name, "</strong>: ")
                .prose(&source.seen)
                .raw(". ");
            page.raw("<span class=\"why\">It matters because ")
                .prose(&source.why)
                .raw(".</span>");
            if let Some(mend) = &source.mend {
                page.element("<br>Try <code>", mend.trim_matches('`'), "</code>");
            }
            page.raw("</li>\n");
        }
        page.raw("</ol>\n");
    }
}

pub(super) fn reproduce(page: &mut Page, summary: &Summary<'_>) {
    let header = &summary.run.header;
    page.raw("<section>\n<h2>Do it again</h2>\n");
    page.element(
        "<pre tabindex=\"0\"><code>",
        words::command_line(summary.run),
        "</code></pre>\n",
    );
    page.element(
        "<p>Seed ",
        header.seed,
        " decides every schedule, order and resampling; ",
    )
    .element("sources: ", words::version(summary.run), ". ");
    let claims = &summary.verdicts;
    if let [VerdictRecord { claim, .. }, ..] = claims.as_slice() {
        page.element("<code>dplab explain ", claim, "</code> says how a claim is judged. ");
    }
    page.raw("</p>\n<p>");
    match &summary.run.path {
        Some(path) => page.element("Every measurement, with its whole histogram, is one line of <code>", path.display(), "</code>"),
        None => page.raw("Every measurement, with its whole histogram, is one line of <code>records.jsonl</code> in the run's folder"),
    };
    page.element("; schema version ", header.schema_version, ", published as ");
    page.raw(
        "<code>docs/schema/record.v1.schema.json</code>. The data of the charts is in this file too:</p>\n\
         <pre tabindex=\"0\"><code>import json, re\n\
         html = open(\"report.html\", encoding=\"utf-8\").read()\n\
         data = json.loads(re.search(r'id=\"data\"&gt;(.*?)&lt;/script', html, re.S)[1])</code></pre>\n</section>\n",
    );
}
