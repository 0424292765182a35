//! Lists of flows: what is read, what is written, and what is refused with its place.

use proptest::prelude::*;

use super::*;

const GOOD: &str = "# dplab flow list, version 1\nstart_us,source,destination,bytes\n0,1,0,1000\n12.5,2,0,endless\n";

fn problem(text: &str) -> Problem {
    FlowList::parse("flows.csv", text).expect_err(text)
}

#[test]
fn a_list_is_read_with_the_units_of_its_columns() {
    let list = FlowList::parse("flows.csv", GOOD).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(list.flows.len(), 2);
    assert_eq!(list.flows[1].start, SimTime::from_ns(12_500));
    assert_eq!((list.flows[0].bytes, list.flows[1].bytes), (Some(1_000), None));
}

#[test]
fn every_mistake_has_a_place_and_advice() {
    let head = "start_ns,source,destination,bytes";
    let cases = [
        ("start_us,sorce,destination,bytes", "1:10", "did you mean source"),
        ("start,source,destination,bytes", "1:1", "write start_ns"),
        ("start_min,source,destination,bytes", "1:1", "no unit of time"),
        ("start_ns,source,bytes", "1:1", "no column destination"),
        ("start_ns,source,destination,bytes,source", "1:35", "second"),
        (&format!("{head}\n0,1,0"), "2:1", "3 values"),
        (&format!("{head}\n0,1, 1,5"), "2:6", "to itself"),
        (&format!("{head}\n0,1,0,0"), "2:7", "0 bytes"),
        (&format!("{head}\n0,1,0,lots"), "2:7", "endless"),
        (&format!("{head}\n1.0001,1,0,5"), "2:1", "at most 3"),
        (&format!("{head}\n-1,1,0,5"), "2:1", "no time"),
        (&format!("{head}\n0,x,0,5"), "2:3", "whole number"),
        (&format!("{head},rounds\n0,1,0,5,3"), "2:9", "`query` is empty"),
        (
            &format!("{head},query\n0,1,0,5,3\n0,2,0,6,3"),
            "3:1",
            "more than their source",
        ),
        (&format!("{head},query\n0,1,0,5,3\n0,2,0,6,2"), "3:1", "upwards"),
        (head, "1:34", "no flow"),
        ("", "1:1", "start_ns,source"),
    ];
    for (text, place, advice) in cases {
        let seen = problem(text).to_string();
        assert!(seen.starts_with(&format!("flows.csv:{place}: ")), "{place}: {seen}");
        assert!(seen.contains(advice), "{advice}: {seen}");
    }
}

#[test]
fn hosts_and_loads_that_are_not_there_are_told() {
    let list = FlowList::parse("flows.csv", GOOD).expect("a good list");
    assert_eq!(list.check(3, 1), Ok(()));
    assert!(list.check(2, 1).expect_err("two hosts").contains("0 to 1"));
    let of = |load| FlowList::parse("x", &format!("start_ns,source,destination,bytes,load\n0,1,0,5,{load}"));
    assert_eq!(of(0).expect("a list").check(2, 0), Ok(()));
    assert!(
        of(2)
            .expect("a list")
            .check(2, 2)
            .expect_err("two loads")
            .contains("0 to 1")
    );
}

fn flows() -> impl Strategy<Value = ListedFlow> {
    let times = || any::<u32>().prop_map(|ps| SimTime::from_ps(u64::from(ps) * 500));
    (
        times(),
        0..9_u32,
        1..9_u32,
        prop::option::of(1..1_000_000_u64),
        0..3_u32,
    )
        .prop_map(|(start, source, behind, bytes, load)| ListedFlow {
            start,
            source,
            destination: source + behind,
            bytes,
            load,
            query: None,
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(mut flows in prop::collection::vec(flows(), 1..20), query in any::<bool>()) {
        if query {
            let query = Some(ListedQuery {
                number: 4, rounds_count: 3, pause: SimTime::from_ns(7), jitter: SimTime::ZERO, request_bytes: 99,
                is_fresh: true,
            });
            flows[0] = ListedFlow { query, bytes: Some(5), ..flows[0] };
        }
        let list = FlowList { flows };
        let text = list.to_csv(&["of a test".to_owned()]);
        prop_assert_eq!(FlowList::parse("x", &text).map_err(|problem| problem.to_string()), Ok(list));
    }

    #[test]
    fn any_text_is_answered(text in "[a-z0-9_.,# \\n\u{e9}]{0,60}") {
        let head = "start_ns,source,destination,bytes\n";
        for text in [text.clone(), format!("{head}{text}")] {
            if let Err(problem) = FlowList::parse("x", &text) {
                prop_assert!(problem.line >= 1 && problem.column >= 1);
            }
        }
    }
}
