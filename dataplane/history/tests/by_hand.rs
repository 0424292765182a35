//! Histories written by hand: one for each way in which a replicated service is known to break its promise, each beside a
//! twin that looks like it and is right.
#![forbid(unsafe_code)]

use dataplane_history::{Answer, AnswerError, History, Limits, Op, OpId, Verdict, Violation};

const KEY: &[u8] = b"k";

/// What one line of a history says: client, invocation, answer (0: none), operation, answer.
type Line<'a> = (u32, u64, u64, Op<'a>, Answer<'a>);

fn put(value: &[u8]) -> Op<'_> {
    Op::Put { key: KEY, value }
}

fn append(value: &[u8]) -> Op<'_> {
    Op::Append { key: KEY, value }
}

fn swap<'a>(expected: &'a [u8], new: &'a [u8]) -> Op<'a> {
    Op::CompareAndSwap {
        key: KEY,
        expected: Some(expected),
        new,
    }
}

const GET: Op<'static> = Op::Get { key: KEY };
const STALE: Op<'static> = Op::StaleGet { key: KEY };
const DELETE: Op<'static> = Op::Delete { key: KEY };

fn value(value: &[u8]) -> Answer<'_> {
    Answer::Value(Some(value))
}

fn history(lines: &[Line<'_>]) -> History {
    let mut history = History::new();
    for &(client, invoked_ns, answered_ns, op, answer) in lines {
        let id = history.invoke(client, invoked_ns, op);
        if answered_ns > 0 {
            history.answer(id, answered_ns, answer).expect("a fitting answer");
        }
    }
    history
}

#[track_caller]
fn good(lines: &[Line<'_>]) {
    let verdict = history(lines).check(&Limits::default());
    assert_eq!(verdict, Verdict::Linearizable, "{verdict}");
}

/// The history is wrong, and `line` is where it shows.
#[track_caller]
fn bad(lines: &[Line<'_>], line: u32) -> Violation {
    match history(lines).check(&Limits::default()) {
        Verdict::Violation(violation) => {
            assert_eq!(violation.op, OpId(line), "{violation}");
            *violation
        }
        other => panic!("{other}"),
    }
}

#[test]
fn nothing_and_an_absent_key() {
    good(&[]);
    good(&[(1, 0, 5, GET, Answer::Value(None))]);
    bad(&[(1, 0, 5, GET, value(b"a"))], 0);
}

#[test]
fn a_stale_read() {
    let a = (1, 0, 10, put(b"a"), Answer::Done);
    let b = (1, 20, 30, put(b"b"), Answer::Done);
    good(&[a, b, (2, 25, 50, GET, value(b"a"))]);
    let violation = bad(&[a, b, (2, 40, 50, GET, value(b"a"))], 2);
    assert_eq!(violation.possible, [Some(b"b".to_vec())]);
    assert_eq!(violation.prefix, [OpId(0), OpId(1)]);
}

#[test]
fn two_reads_that_go_back() {
    // While the put is open, either may be read; once the new value was read, the old one may not.
    let a = (1, 0, 10, put(b"a"), Answer::Done);
    let b = (1, 20, 100, put(b"b"), Answer::Done);
    let early = |answer| (2, 30, 40, GET, answer);
    let late = |answer| (3, 50, 60, GET, answer);
    good(&[a, b, early(value(b"a")), late(value(b"b"))]);
    bad(&[a, b, early(value(b"b")), late(value(b"a"))], 3);
    // The same with a put that is never answered.
    let lost = (1, 20, 0, put(b"b"), Answer::Lost);
    good(&[a, lost, early(value(b"a")), late(value(b"b"))]);
    bad(&[a, lost, early(value(b"b")), late(value(b"a"))], 3);
}

#[test]
fn a_lost_write() {
    let write = put(b"a");
    bad(
        &[(1, 0, 10, write, Answer::Done), (2, 20, 30, GET, Answer::Value(None))],
        1,
    );
    good(&[(1, 0, 0, write, Answer::Lost), (2, 20, 30, GET, Answer::Value(None))]);
    good(&[(1, 0, 0, write, Answer::Lost), (2, 20, 30, GET, value(b"a"))]);
    // Refused is a promise, too.
    good(&[
        (1, 0, 10, write, Answer::Refused),
        (2, 20, 30, GET, Answer::Value(None)),
    ]);
    bad(&[(1, 0, 10, write, Answer::Refused), (2, 20, 30, GET, value(b"a"))], 1);
}

#[test]
fn a_double_append() {
    let once = (1, 0, 10, append(b"x"), Answer::Done);
    good(&[once, (2, 20, 30, GET, value(b"x"))]);
    bad(&[once, (2, 20, 30, GET, value(b"xx"))], 1);
    // A lost one may happen once, however late, and not twice.
    let lost = (1, 20, 0, append(b"y"), Answer::Lost);
    good(&[
        once,
        lost,
        (2, 30, 40, GET, value(b"x")),
        (2, 50, 60, GET, value(b"xy")),
    ]);
    bad(
        &[
            once,
            lost,
            (2, 30, 40, GET, value(b"xy")),
            (2, 50, 60, GET, value(b"xyy")),
        ],
        3,
    );
}

#[test]
fn a_swap_that_succeeded_twice() {
    let start = (1, 0, 10, put(b"0"), Answer::Done);
    let one = (1, 20, 40, swap(b"0", b"1"), Answer::Swapped);
    let two = |answer| (2, 20, 40, swap(b"0", b"2"), answer);
    good(&[start, one, two(Answer::Mismatch { found: Some(b"1") })]);
    good(&[start, one, two(Answer::NotSwapped)]);
    bad(&[start, one, two(Answer::Swapped)], 2);
    // "It is 2" cannot be found by the one that would have written it.
    bad(&[start, one, two(Answer::Mismatch { found: Some(b"2") })], 2);
}

#[test]
fn a_delete_that_came_back() {
    let start = (1, 0, 10, put(b"a"), Answer::Done);
    let delete = |existed| (1, 20, 30, DELETE, Answer::Deleted { existed });
    good(&[start, delete(true), (2, 40, 50, GET, Answer::Value(None))]);
    bad(&[start, delete(true), (2, 40, 50, GET, value(b"a"))], 2);
    bad(&[start, delete(false)], 1);
    // Unless somebody put it again, perhaps.
    good(&[
        start,
        delete(true),
        (3, 15, 0, put(b"a"), Answer::Lost),
        (2, 40, 50, GET, value(b"a")),
    ]);
}

#[test]
fn a_lost_change_is_seen_by_what_it_makes_fail() {
    let start = (1, 0, 10, put(b"0"), Answer::Done);
    let lost = (2, 5, 0, put(b"9"), Answer::Lost);
    let failed = (1, 20, 30, swap(b"0", b"1"), Answer::NotSwapped);
    bad(&[start, failed], 1);
    good(&[start, lost, failed]);
    // A chain of lost ones, each seen by the next alone.
    good(&[
        start,
        (2, 20, 0, swap(b"0", b"1"), Answer::Lost),
        (3, 20, 0, swap(b"1", b"2"), Answer::Lost),
        (4, 20, 0, append(b"!"), Answer::Lost),
        (5, 30, 40, GET, value(b"2!")),
    ]);
}

#[test]
fn keys_are_judged_apart_and_the_broken_one_is_named() {
    let mut history = History::new();
    for (key, seen) in [(b"a", b"1"), (b"b", b"2")] {
        let put = history.invoke(1, 0, Op::Put { key, value: b"1" });
        history.answer(put, 10, Answer::Done).expect("fits");
        let get = history.invoke(2, 20, Op::Get { key });
        history.answer(get, 30, value(seen)).expect("fits");
    }
    let Verdict::Violation(violation) = history.check(&Limits::default()) else {
        panic!("key b was read as 2");
    };
    assert_eq!((violation.key.as_slice(), violation.op), (&b"b"[..], OpId(3)));
}

#[test]
fn equal_instants_are_in_the_order_in_which_they_were_recorded() {
    // As in a simulator, where many things happen at one instant, one after the other.
    let mut history = History::new();
    let write = history.invoke(1, 7, put(b"a"));
    history.answer(write, 7, Answer::Done).expect("fits");
    let read = history.invoke(2, 7, GET);
    history.answer(read, 7, Answer::Value(None)).expect("fits");
    assert!(matches!(history.check(&Limits::default()), Verdict::Violation(_)));
}

#[test]
fn stale_gets_may_be_late_but_not_invented_and_never_go_back() {
    let stale = |lines: &[Line<'_>]| history(lines).check_stale(&Limits::default());
    let a = (1, 0, 10, put(b"a"), Answer::Done);
    let b = (1, 20, 30, put(b"b"), Answer::Done);
    let read = |client, at_ns, answer| (client, at_ns, at_ns + 5, STALE, answer);
    assert_eq!(stale(&[a, b, read(2, 40, value(b"a"))]), Verdict::Linearizable);
    assert_eq!(stale(&[a, b, read(2, 40, Answer::Value(None))]), Verdict::Linearizable);
    // From the future, never written, and back.
    assert!(matches!(
        stale(&[a, read(2, 12, value(b"b")), b]),
        Verdict::Violation(_)
    ));
    assert!(matches!(
        stale(&[a, b, read(2, 40, value(b"c"))]),
        Verdict::Violation(_)
    ));
    let back = [a, b, read(2, 40, value(b"b")), read(2, 50, value(b"a"))];
    assert!(matches!(stale(&back), Verdict::Violation(_)));
    // Two clients may ask two replicas.
    let two_clients = [a, b, read(2, 40, value(b"b")), read(3, 50, value(b"a"))];
    assert_eq!(stale(&two_clients), Verdict::Linearizable);
    // So may one that does not wait for the first answer.
    let overlapping = [a, b, (2, 40, 60, STALE, value(b"b")), (2, 45, 50, STALE, value(b"a"))];
    assert_eq!(stale(&overlapping), Verdict::Linearizable);
    // The other check does not look at them.
    assert_eq!(history(&back).check(&Limits::default()), Verdict::Linearizable);
}

#[test]
fn a_limit_is_no_pass() {
    // Appends that nobody saw the order of, and a read that fits none: every order must be tried.
    let mut lines: Vec<Line<'_>> = (0..12)
        .map(|client| (client, 0, 100, append(b"ab"), Answer::Done))
        .collect();
    let letters: Vec<[u8; 1]> = (b'a'..=b'l').map(|letter| [letter]).collect();
    for (line, letter) in lines.iter_mut().zip(&letters) {
        line.3 = append(letter);
    }
    lines.push((20, 200, 300, GET, value(b"lkjihgfedcb")));
    let history = history(&lines);
    let few_steps = Limits {
        steps_max: 10_000,
        ..Limits::default()
    };
    let little_memory = Limits {
        memory_bytes_max: 1 << 20,
        ..Limits::default()
    };
    for (limits, word) in [(few_steps, "steps"), (little_memory, "memory")] {
        match history.check(&limits) {
            Verdict::Unknown { why } => assert!(why.contains("key \"k\"") && why.contains(word), "{why}"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn more_open_at_once_than_there_are_bits_is_unknown() {
    let many: Vec<Line<'_>> = (0..65)
        .map(|client| (client, 0, 100, put(b"a"), Answer::Done))
        .collect();
    assert!(matches!(
        history(&many).check(&Limits::default()),
        Verdict::Unknown { .. }
    ));
    good(&many[..64]);
    let lost: Vec<Line<'_>> = (0..129).map(|client| (client, 0, 0, put(b"a"), Answer::Lost)).collect();
    assert!(matches!(
        history(&lost).check(&Limits::default()),
        Verdict::Unknown { .. }
    ));
    good(&lost[..128]);
}

#[test]
fn what_is_no_answer_is_refused_and_changes_nothing() {
    let mut history = History::new();
    let get = history.invoke(1, 50, GET);
    assert_eq!(
        history.answer(OpId(7), 60, Answer::Done),
        Err(AnswerError::NeverInvoked(OpId(7)))
    );
    assert_eq!(
        history.answer(get, 60, Answer::Swapped),
        Err(AnswerError::NotAnAnswer(get))
    );
    let backwards = AnswerError::BeforeInvoked {
        op: get,
        invoked_ns: 50,
        answered_ns: 49,
    };
    assert_eq!(history.answer(get, 49, Answer::Value(None)), Err(backwards));
    assert_eq!(history.answer(get, 60, Answer::Value(None)), Ok(()));
    assert_eq!(
        history.answer(get, 61, Answer::Value(None)),
        Err(AnswerError::Twice(get))
    );
    let cas = history.invoke(1, 70, swap(b"a", b"b"));
    let same = Answer::Mismatch { found: Some(b"a") };
    assert_eq!(history.answer(cas, 80, same), Err(AnswerError::NotAnAnswer(cas)));
    assert_eq!(
        (history.op_count(), history.check(&Limits::default())),
        (2, Verdict::Linearizable)
    );
}

#[test]
fn the_explanation_shows_what_happened() {
    let lines = [
        (1, 0, 100, put(b"a"), Answer::Done),
        (2, 50, 250, put(b"b"), Answer::Done),
        (3, 120, 200, GET, value(b"b")),
        (4, 60, 0, append(b"!"), Answer::Lost),
        (5, 300, 400, GET, value(b"a")),
    ];
    let text = bad(&lines, 4).to_string();
    let expected = r#"key "k": no order of its operations explains client 5's get = "a", answered at 400 ns (operation 4).
Whichever order explains all that was answered before, the key is then: "b" or "b!".
  |----------|                                     client 1: put "a" = done  placed 1
       |-----------------------|                   client 2: put "b" = done  placed 2
         |---------------------------------------> client 4: append "!" = no answer  not placed
                |--------|                         client 3: get = "b"  placed 3
                                     |-----------| client 5: get = "a"  <- cannot be placed
  bars: 0 ns to 400 ns; "placed n": its place in the longest order found
"#;
    assert_eq!(text, expected, "\n{text}");
}
