//! Good files are read, and each mistake is answered with its place.

use super::*;

const GOOD: &str = r#"
name = "mine"
title = "Incast of mine"
horizon = "10 s"

[topology]
kind = "star"
hosts = 41
rate = "1 Gbit/s"
delay = "25 us"

[switch.queue]
limit = "100 packets"

[[load]]
kind = "incast"
client = 0
servers = 40
bytes_total = "1 MB"
rounds = 10

[vary]
what = "servers"
values = [1, 10, 40]

[[arm]]
name = "dctcp"
tcp = { controller = "dctcp", rto_min = "10 ms" }
queue = { limit = "100 packets", mark_at = "20 packets" }

[[paper]]
arm = "dctcp"
at = 10
metric = "query_ms_mean"
value = 8.5
tolerance = 0.2
place = "figure 18"
"#;

fn problem(from: &str, to: &str) -> Problem {
    assert!(GOOD.contains(from), "{from}");
    ScenarioFile::parse("mine.toml", &GOOD.replacen(from, to, 1)).expect_err(to)
}

#[test]
fn a_good_file_is_read() {
    let file = ScenarioFile::parse("mine.toml", GOOD).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!((file.seed, file.arm.len(), file.load.len()), (1, 1, 1));
    assert_eq!(file.arm[0].tcp.rto_min.map(|span| span.ns), Some(10_000_000));
}

#[test]
fn every_mistake_has_a_place_and_advice() {
    let cases = [
        ("horizon =", "horizn =", "4:1", "did you mean horizon"),
        ("rate = \"1 Gbit/s\"", "rate = \"0 Gbit/s\"", "9:8", "rate of 0"),
        ("rate = \"1 Gbit/s\"", "rate = \"1 Gbps\"", "9:8", "Gbit/s"),
        ("kind = \"star\"", "kind = \"starr\"", "7:8", "did you mean star"),
        ("client = 0", "client = 41", "17:10", "from 0 to 40"),
        ("client = 0", "client = 1\nfirst_server = 1", "18:16", "to itself"),
        ("servers = 40", "servers = 0", "18:11", "nothing would be sent"),
        ("arm = \"dctcp\"", "arm = \"dctpc\"", "32:7", "did you mean dctcp"),
        ("query_ms_mean", "query_ms_maen", "34:10", "did you mean query_ms_mean"),
        ("values = [1, 10, 40]", "values = [1.5]", "24:10", "1.5"),
        (
            "controller = \"dctcp\"",
            "controler = \"dctcp\"",
            "28:9",
            "did you mean controller",
        ),
        (
            "kind = \"incast\"",
            "kind = \"incast\"\narms = [\"dctpc\"]",
            "17:9",
            "did you mean dctcp",
        ),
        ("rto_min = \"10 ms\"", "swift_window_min = 0.0", "28:50", "above 0"),
        (
            "kind = \"incast\"",
            "kind = \"mesh\"\nfrom = 3\nto = 3\nflows = 1",
            "18:6",
            "two hosts",
        ),
        (
            "rate = \"1 Gbit/s\"",
            "rate = \"1 Gbit/s\"\nhost_delays = [{ host = 41, delay = \"1 ms\" }]",
            "10:25",
            "from 0 to 40",
        ),
        (
            "limit = \"100 packets\"",
            "kind = \"red\"\n[switch.pfc]\npause_at = \"60 KB\"\nresume_at = \"30 KB\"",
            "14:1",
            "drop-tail or priority",
        ),
        (
            "[[load]]",
            "[switch.pfc]\npause_at = \"60 KB\"\nresume_at = \"60 KB\"\n[[load]]",
            "15:1",
            "less than `pause_at`",
        ),
        (
            "what = \"servers\"",
            "what = \"host_delay_us\"",
            "24:10",
            "`host_delays`",
        ),
        (
            "[[load]]",
            "[switch.pfc]\npause_at = \"1 KB\"\nresume_at = \"500 B\"\nheadroom = \"500 B\"\n[[load]]",
            "15:1",
            "full frame of 1514 B",
        ),
        ("horizon =", "transport = \"ndp\"\nhorizon =", "4:13", "trimming"),
        (
            "horizon =",
            "transport = \"nbp\"\nhorizon =",
            "4:13",
            "did you mean ndp",
        ),
        (
            "limit = \"100 packets\"",
            "kind = \"priority\"\n[[arm]]\nname = \"homa\"\ntransport = \"homa\"",
            "18:1",
            "only TCP",
        ),
        ("hosts = 41", "", "7:8", "needs `hosts`"),
        ("hosts = 41", "hosts = \"many\"", "8:9", "u32"),
    ];
    for (from, to, place, advice) in cases {
        let problem = problem(from, to);
        let seen = problem.to_string();
        assert!(
            seen.starts_with(&format!("mine.toml:{place}: ")),
            "{place} for {to}: {seen}"
        );
        assert!(seen.contains(advice), "{advice} for {to}: {seen}");
    }
}

#[test]
fn a_topology_that_does_not_connect_is_refused() {
    let spineless = "kind = \"leaf-spine\"\nleaves = 2\nhosts_per_leaf = 20\nspines = 0";
    assert!(problem("kind = \"star\"", spineless).message.contains("do not connect"));
}

#[test]
fn a_flow_to_itself_is_refused_where_it_stands() {
    let flows = "kind = \"flows\"\nlist = [{ from = 3, to = 3, bytes = \"1 KB\" }]";
    let problem = problem("kind = \"incast\"", flows);
    assert_eq!((problem.line, problem.column), (17, 26), "{problem}");
    assert!(problem.message.contains("itself"));
}

#[test]
fn what_does_not_fit_into_memory_is_refused_before_it_is_taken() {
    let problem = problem("values = [1, 10, 40]", "values = [99999999]");
    assert!(problem.message.contains("GiB"), "{problem}");
}

#[test]
fn any_text_is_answered_without_a_panic() {
    use proptest::prelude::*;
    proptest!(|(at in 0..GOOD.len(), insert in ".{0,8}", cut in 0..40_usize)| {
        let begin = (0..=at).rev().find(|at| GOOD.is_char_boundary(*at)).unwrap_or(0);
        let end = (begin + cut).min(GOOD.len());
        let text = format!("{}{insert}{}", &GOOD[..begin], GOOD.get(end..).unwrap_or(""));
        if let Err(problem) = ScenarioFile::parse("mine.toml", &text) {
            prop_assert!(problem.line >= 1 && problem.column >= 1);
            let _ = problem.to_string();
        }
    });
}

#[test]
fn every_file_that_comes_along_is_good_and_named_as_it_says() {
    for Embedded { name, text } in EMBEDDED {
        let file = ScenarioFile::parse(name, text).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(file.name, *name);
        assert!(!file.source.is_empty(), "{name} has no source");
        let points = crate::packet_sim::points(&file);
        assert!(!points.is_empty());
        for point in points {
            match point.setup(1) {
                Ok(_) => (),
                // Some want what not every build has.
                Err(error) => assert!(
                    error.is::<crate::packet_sim::NotBuilt>(),
                    "{name}, {}: {error:#}",
                    point.name()
                ),
            }
        }
    }
}

#[test]
fn the_published_schema_is_the_types_and_accepts_the_files() {
    let schema = scenario_schema();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(SCENARIO_SCHEMA_FILE);
    let wanted = format!("{schema:#}\n");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&file, &wanted).expect("writing the schema");
    }
    let published = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        published == wanted,
        "{SCENARIO_SCHEMA_FILE} differs from bench/src/scenario/file.rs; if only optional keys are new, publish it with\n\
         UPDATE_SCHEMA=1 cargo test -p bench the_published_schema"
    );
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for Embedded { name, text } in EMBEDDED {
        let value: serde_json::Value = toml::from_str(text).expect("TOML");
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "{name}");
    }
    assert!(!validator.is_valid(&serde_json::json!({ "name": "mine", "horizn": "1 s" })));
}
