//! The claims on hand-written rows, and what the link needs.

use super::*;
use crate::{experiments::scenarios::testing::table, record::Outcome};

#[test]
fn claims_hold_fail_and_are_not_measured() {
    let rows = |ndp: f64, dctcp: f64, ratio: f64| {
        table(
            "senders",
            &[
                (NDP, "431", &[(OVER, ndp), ("slowest_to_fastest_ratio", ratio)]),
                (DCTCP, "431", &[(OVER, dctcp), ("slowest_to_fastest_ratio", 7.0)]),
            ],
        )
    };
    assert_eq!(near_the_link(&rows(1.0, 5.0, 1.1)).outcome, Outcome::Holds);
    assert_eq!(near_the_link(&rows(2.1, 5.0, 1.1)).outcome, Outcome::Fails);
    assert_eq!(near_the_link(&rows(1.0, 0.5, 1.1)).outcome, Outcome::Fails);
    assert_eq!(spread(&rows(1.0, 5.0, 1.1)).outcome, Outcome::Holds);
    assert_eq!(spread(&rows(1.0, 5.0, 1.3)).outcome, Outcome::Fails);
    let all = |at_8000: f64| {
        let row = |senders, over| (NDP, senders, over);
        let rows = ["1", "10", "100", "1000", "2000"].map(|senders| row(senders, [(OVER, 0.5)]));
        let mut rows: Vec<_> = rows.iter().map(|(arm, at, over)| (*arm, *at, &over[..])).collect();
        let last = [(OVER, at_8000)];
        rows.push((NDP, "8000", &last));
        up_to_8000(&table("senders", &rows)).outcome
    };
    assert_eq!(all(1.9), Outcome::Holds);
    assert_eq!(all(2.1), Outcome::Fails);
    assert!(matches!(
        up_to_8000(&Table::default()).outcome,
        Outcome::NotMeasured { .. }
    ));
}

/// One sender in another pod: five links, then 50 packets on the last.
#[test]
fn what_the_link_needs_is_what_one_flow_takes_that_nobody_disturbs() {
    let far = (0..).map(|seed| Incast::draw(&ON_432, 1, seed).expect("an incast"));
    let far = far
        .take(50)
        .find(|incast| incast.senders[0].0 / 36 != incast.receiver / 36);
    let ns = 5 * (7_270 + 1_000) + 50 * 7_270 + 1_000;
    assert!(far.is_some_and(|incast| incast.optimal.as_ns().abs_diff(ns) < 60));
    assert!(Incast::draw(&ON_432, 432, 1).is_err());
}
