//! The HTML report is whole, names everything, fetches nothing, and no record writes markup.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::{
    environment::{Environment, NoiseSource},
    interface::Interface,
    record::{AgentRecord, Published, SupportRecord, Validity},
    report::sample::{self, TEXTS},
    store::Damage,
};

fn page(run: &Run) -> String {
    html(&[run], TEXTS)
}

/// Elements without an end tag.
const VOID: [&str; 4] = ["meta", "link", "br", "input"];

/// The page without its scripts and styles: what the parser below looks at.
fn markup(page: &str) -> String {
    let mut rest = page;
    let mut kept = String::new();
    while let Some((name, at)) = ["script", "style"]
        .iter()
        .filter_map(|name| Some((name, rest.find(&format!("<{name}"))?)))
        .min_by_key(|(_, at)| *at)
    {
        kept.push_str(&rest[..at]);
        let end = format!("</{name}>");
        rest = &rest[at + rest[at..].find(&end).unwrap() + end.len()..];
    }
    kept.push_str(rest);
    kept
}

/// Start and end tags in order, with what is in them; a tag that closes itself is left out.
fn tags(markup: &str) -> Vec<&str> {
    let without_comment = markup.split_once("<!--").map_or(markup, |(before, _)| before);
    let starts = without_comment.match_indices('<');
    let bodies = starts.map(|(at, _)| &markup[at + 1..at + markup[at..].find('>').expect("an open tag")]);
    bodies
        .filter(|tag| !tag.ends_with('/') && !tag.starts_with('!'))
        .collect()
}

/// Every element that is opened is closed, in order.
fn assert_balanced(page: &str) {
    let markup = markup(page);
    let mut open = Vec::new();
    for tag in tags(&markup) {
        let name = tag.split(|c: char| c.is_whitespace()).next().unwrap();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "</{name}> closes something else"),
            None if VOID.contains(&name) => {}
            None => open.push(name),
        }
    }
    // `body` and `html` end after the comment with uPlot's licence, where `tags` stops.
    assert_eq!(open, ["html", "body"], "left open");
}

/// Nothing outside of the file is named by an attribute that would fetch it.
fn assert_fetches_nothing(page: &str) {
    for tag in tags(&markup(page)) {
        // Without the values, which may hold any text.
        let names: String = tag.split('"').step_by(2).collect();
        for attribute in [
            "src=", "srcset=", "action=", "data=", "poster=", "style=", "onclick=", "onload=", "onerror=",
        ] {
            assert!(!names.contains(&format!(" {attribute}")), "{tag}");
        }
        if let Some(at) = tag.find("href=\"") {
            let target = &tag[at + 6..];
            assert!(target.starts_with('#') || target.starts_with("data:,"), "{tag}");
        }
    }
    let styles = [UPLOT_CSS, REPORT_CSS].concat();
    assert!(!styles.contains("url(") && !styles.contains("@import"));
    // The namespace of SVG is a name, the head of uPlot a reference; neither is fetched.
    let names = REPORT_JS.replace("http://www.w3.org/2000/svg", "");
    assert!(!names.contains("http") && !names.contains("fetch(") && !names.contains("import("));
}

#[test]
fn the_sample_is_whole_and_offline() {
    let page = page(sample::shared());
    if let Some(path) = std::env::var_os("DPLAB_SAMPLE_HTML") {
        std::fs::write(path, &page).unwrap();
    }
    assert_balanced(&page);
    assert_fetches_nothing(&page);
}

#[test]
fn everything_of_the_run_is_named() {
    let run = sample::shared();
    let page = page(run);
    let text = |text: &str| {
        let mut escaped = Page::default();
        escaped.text(text);
        escaped.into_string()
    };
    let header = &run.header;
    let mut wanted: Vec<&str> = vec![&header.place, &header.version, "0123456789ab", "FIXTURE"];
    for backend in &header.backends {
        wanted.extend([backend.name.as_str(), &backend.summary]);
        if let SupportRecord::Emulated { by: why } = &backend.support {
            wanted.push(why);
        }
    }
    for verdict in &run.verdicts {
        wanted.extend([verdict.sentence.as_str(), &verdict.source, &verdict.claim]);
    }
    for (name, value) in &header.environment.facts {
        wanted.extend([name.as_str(), value]);
    }
    for source in &header.environment.noise {
        wanted.extend([source.name.as_str(), &source.seen, &source.why]);
        wanted.extend(source.mend.as_deref());
    }
    wanted.extend([
        "Round trips, rung by rung",
        "without-a-text",
        "offered_per_sec 200000",
        "INVALID",
    ]);
    wanted.extend(["dplab run --seed 42", "noise floor", "took 3.1 % of the CPU", "lost"]);
    for wanted in wanted {
        assert!(page.contains(&text(wanted)), "{wanted:?} is missing");
    }
    assert!(
        page.contains("--out &#39;runs/a fixture&#39;"),
        "the command is quoted for a shell"
    );
    let verdicts = page.find("<h2>Verdicts</h2>").unwrap();
    let first_experiment = page.find("<section class=\"experiment\"").unwrap();
    assert!(verdicts < first_experiment);
    assert!(page.contains("4 claims on trial: 1 fails, 1 holds, 1 is inconclusive, 1 was not measured"));
}

#[test]
fn the_agents_machine_stands_beside_ours() {
    let mut run = sample::shared().clone();
    run.rows.truncate(12);
    let evil = "<img src=x onerror=alert(1)>";
    let environment = Environment {
        facts: [
            ("kernel".to_owned(), "6.99.0-there".to_owned()),
            (evil.into(), evil.into()),
        ]
        .into(),
        noise: vec![NoiseSource {
            name: evil.into(),
            seen: "the governor there is powersave".into(),
            why: evil.into(),
            mend: None,
        }],
    };
    run.header.agent = Some(Box::new(AgentRecord {
        version: evil.into(),
        git_commit: None,
        build_profile: "release".into(),
        interface: Interface {
            name: "eth1".into(),
            mac: [2; 6],
            mtu_bytes: 1500,
            driver: None,
            offloads: evil.into(),
            addresses: Vec::new(),
        },
        cpus: vec![0, 1],
        environment,
        supports: BTreeMap::new(),
    }));
    let page = page(&run);
    for wanted in [
        "6.99.0-there",
        "the governor there is powersave",
        "<h3>The agent's machine</h3>",
    ] {
        assert!(page.contains(wanted), "{wanted:?} is missing");
    }
    assert!(page.contains(&run.header.environment.facts["kernel"]));
    assert!(!page.contains("<img"));
}

#[test]
fn a_hostile_record_is_text() {
    let evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'>`&";
    let mut run = sample::shared().clone();
    run.rows.truncate(12);
    run.end = None;
    run.header.place = evil.into();
    run.header.version = evil.into();
    run.header.git_commit = Some(evil.into());
    run.header.command = vec![evil.into()];
    run.header.build_profile = evil.into();
    run.header.backends[0].name = evil.into();
    run.header.backends[1].summary = evil.into();
    run.header.backends[2].support = SupportRecord::Absent { why: evil.into() };
    run.header.environment.facts.insert(evil.into(), evil.into());
    run.header.environment.noise[0].mend = Some(evil.into());
    run.header.environment.noise[0].seen = evil.into();
    for row in &mut run.rows {
        row.axis.insert(evil.into(), evil.into());
        row.facts.insert(evil.into(), evil.into());
        let metric = row.metrics["client_cpu_ns_per_op"].clone();
        row.metrics.insert(
            format!("cpu {evil}"),
            crate::record::Metric {
                unit: evil.into(),
                ..metric
            },
        );
    }
    run.rows[0].experiment = evil.into();
    run.rows[1].backend = evil.into();
    run.rows[2].validity = Validity::Invalid {
        reasons: vec![evil.into()],
    };
    run.verdicts[0].sentence = evil.into();
    run.verdicts[0].measured[0].limit = evil.into();
    run.verdicts[1].experiment = evil.into();
    run.damage.push(Damage {
        line: 3,
        what: evil.into(),
    });
    let page = page(&run);
    assert_balanced(&page);
    assert_fetches_nothing(&page);
    assert!(!page.contains("<img"));
    assert_eq!(
        page.matches("<script").count(),
        3,
        "the data, uPlot and the report's own"
    );
    assert_eq!(page.matches("</script>").count(), 3);
}

#[test]
fn the_policy_lets_these_two_scripts_run_and_nothing_else() {
    for script in [UPLOT_JS, REPORT_JS] {
        let hash = format!("'sha256-{}'", BASE64.encode(Sha256::digest(script)));
        assert!(
            POLICY.contains(&hash),
            "POLICY in html.rs wants {hash} after a change of bench/assets"
        );
        assert!(!script.contains("</script"), "it would end its own element");
    }
    assert_eq!(POLICY.matches("sha256-").count(), 2);
}

#[test]
fn the_charts_data_can_be_lifted_out() {
    let page = page(sample::shared());
    let (_, after) = page.split_once("id=\"data\">").unwrap();
    let (json, _) = after.split_once("</script").unwrap();
    let data: serde_json::Value = serde_json::from_str(json).unwrap();
    let cell = &data["runs"][0]["experiments"][0]["cells"][0];
    assert_eq!(cell["backend"], "udp-blocking");
    assert_eq!(
        cell["latency"]["samples"], 35_000,
        "seven rounds of 5000, without the twins"
    );
    assert!(cell["latency"]["hdr"].as_str().unwrap().len() > 100);
}

#[test]
fn published_figures_go_with_their_experiment_and_make_a_chart() {
    let mut run = sample::shared().clone();
    let axis = "frame_bytes".to_owned();
    run.rows
        .retain(|row| row.axis.get(&axis).is_some_and(|bytes| bytes == "64"));
    run.rows
        .iter_mut()
        .for_each(|row| (row.latency, row.service) = (None, None));
    let id = run.rows[0].experiment.clone();
    assert!(
        !page(&run).contains("class=\"chart\""),
        "one value, and nothing to lay beside it"
    );
    run.header.published.push(Published {
        experiment: id.clone(),
        arm: None,
        axis: Some(axis),
        at: Some(64.0),
        metric: "cpu_client_ns_per_op".to_owned(),
        value: 8.5,
        tolerance: 0.1,
        place: "figure 18".to_owned(),
        work: "somebody, 2010".to_owned(),
    });
    let page = page(&run);
    assert!(page.contains(&format!("class=\"chart\" data-run=\"0\" data-experiment=\"{id}\"")));
    let (_, after) = page.split_once("id=\"data\">").unwrap();
    let (json, _) = after.split_once("</script").unwrap();
    let data: serde_json::Value = serde_json::from_str(json).unwrap();
    for experiment in data["runs"][0]["experiments"].as_array().unwrap() {
        let count = experiment["paper"].as_array().unwrap().len();
        assert_eq!(count, usize::from(experiment["id"] == id.as_str()));
    }
    assert_eq!(data["runs"][0]["experiments"][0]["paper"][0]["value"], 8.5);
}

#[test]
fn interrupted_killed_damaged_and_empty_runs_say_so_first() {
    let first_alarm = |run: &Run| {
        let page = page(run);
        assert_balanced(&page);
        let (alarm, rest) = (page.find("class=\"alarm\""), page.find("<h2>"));
        assert!(alarm < rest, "the alarm stands above everything");
        page[alarm.expect("an alarm")..rest.unwrap()].to_string()
    };
    let mut run = sample::shared().clone();
    run.rows.truncate(6);
    run.end = None;
    assert!(first_alarm(&run).contains("no end: it was killed"));
    run.end = sample::shared().end.clone();
    run.end.as_mut().unwrap().interrupted = true;
    assert!(first_alarm(&run).contains("was interrupted"));
    assert!(first_alarm(&run).contains("197 rows, 6 could be read"));
    run.damage.push(Damage {
        line: 9,
        what: "torn".into(),
    });
    assert!(first_alarm(&run).contains("Line 9 of the records is damaged: torn."));
    run.header.build_profile = "debug".into();
    assert!(first_alarm(&run).contains("This is a debug build"));
    let empty = Run::new(run.header.clone());
    assert!(first_alarm(&empty).contains("zero rows"));
    assert!(page(&empty).contains("<h1>Nothing was measured</h1>"));
    assert_balanced(&html(&[], TEXTS));
}

#[test]
fn several_runs_stand_one_after_the_other() {
    let run = sample::shared();
    let page = html(&[run, run], TEXTS);
    assert_balanced(&page);
    for id in ["run-0-rtt-ladder", "run-1-rtt-ladder"] {
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1);
    }
}

#[test]
fn a_kernel_and_a_simulator_stand_in_one_chart_and_far_points_are_marked() {
    use crate::experiments::virtual_time::row_of;
    let mut run = Run::new(sample::shared().header.clone());
    for (level, backend, scale) in [("kernel", "kernel-tcp", 1.0), ("simulator", "sim", 1.2)] {
        for (servers, goodput) in [("8", 20.0), ("1", 90.0), ("16", 10.0)] {
            // One point is far off.
            let off = if (level, servers) == ("simulator", "16") {
                4.0
            } else {
                1.0
            };
            let axis = [("arm", "cubic"), ("level", level), ("servers", servers)];
            let mut row = row_of(&axis, &[("goodput_mbit_per_sec", goodput * scale * off)]);
            row.experiment = "real-incast".to_owned();
            row.backend = backend.to_owned();
            run.rows.push(row);
        }
    }
    let page = page(&run);
    assert_balanced(&page);
    assert!(
        page.contains("simulator ÷ kernel"),
        "a table says how far apart they are"
    );
    assert!(
        page.contains("kernel and simulator, arm by arm"),
        "and a chart shows both"
    );
    let at = |name: &str| {
        page.find(&format!("<th scope=\"row\">cubic, {name}</th>"))
            .expect("each point is there")
    };
    assert!(at("1") < at("8") && at("8") < at("16"), "in the order of numbers");
    assert!(
        page.contains("<td class=\"n loss\">4.80</td>"),
        "beyond a factor of two"
    );
    assert!(page.contains("<td class=\"n\">1.20</td>"), "within");
}
