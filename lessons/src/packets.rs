//! Networks, packet by packet in virtual time: a scenario as `dplab run FILE.toml` takes it, run from within a test.

use std::sync::atomic::AtomicBool;

use bench::{
    packet_sim::{Outcome, points},
    scenario::file::ScenarioFile,
};

/// What comes of one scenario, the first of its arms at the first of its values. The text is what stands in a file after its name
/// and title.
///
/// # Panics
/// The text is no scenario; the message says where, and what would do.
pub fn simulate(text: &str, seed: u64) -> Outcome {
    let text = format!("name = \"lesson\"\ntitle = \"lesson\"\n{text}");
    let file = ScenarioFile::parse("lesson.toml", &text).unwrap_or_else(|problem| panic!("{problem}"));
    let point = *points(&file).first().expect("a scenario has at least one point");
    let setup = point.setup(seed).unwrap_or_else(|error| panic!("{error:#}"));
    setup.run(&AtomicBool::new(false))
}

/// One of the metrics that a run of `dplab` would record, by the name that it has there.
///
/// # Panics
/// The run has no such metric, because nothing of the kind happened in it.
pub fn metric(outcome: &Outcome, name: &str) -> f64 {
    let value = outcome.metric(name);
    value.unwrap_or_else(|| panic!("nothing happened that {name} could be taken from"))
}
