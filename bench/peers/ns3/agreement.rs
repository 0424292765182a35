//! Our simulator of today beside what ns-3.37 said when results.csv was stored: no ns-3 is needed for that.
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "what the example needs besides")]
mod cases;
#[allow(dead_code, reason = "what the example needs besides")]
mod results;

use std::path::Path;

use cases::{CASES, Load};
use results::{METRICS, deviation, is_of, parse_stored, run_ours};

#[test]
fn what_agreed_with_ns3_still_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/ns3/results.csv");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let stored = parse_stored(&text).expect("results.csv");
    let mut compared_count = 0;
    let mut apart = Vec::new();
    // Endless flows take longest, and two of them say it.
    for case in CASES.iter().filter(|case| !matches!(case.load, Load::Endless(8))) {
        let ours = run_ours(case, || 0);
        for &(metric, bound) in METRICS.iter().filter(|(metric, _)| is_of(case, metric)) {
            let known = stored.get(&(case.name.to_owned(), metric.to_owned()));
            let known = known.unwrap_or_else(|| panic!("results.csv has no {metric} of {}", case.name));
            if !known.agrees {
                continue;
            }
            compared_count += 1;
            let value = ours.metric(metric).expect("the case has that metric");
            let by = deviation(metric, value, known.theirs);
            if by.abs() > bound {
                apart.push(format!("{} {metric}: {value}, ns-3 {}", case.name, known.theirs));
            }
        }
    }
    assert!(compared_count >= 15, "only {compared_count} were compared");
    assert!(apart.is_empty(), "{apart:#?}");
}
