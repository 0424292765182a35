//! The memory log against what a log promises.

use proptest::prelude::*;

use super::*;

/// Everything that survives, in a form that can be compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    state: Option<Vec<u8>>,
    snapshot: Option<(Slot, Term, Vec<u8>)>,
    entries: Vec<(Slot, Term, Vec<u8>)>,
}

fn contents(log: &mut MemoryLog) -> Contents {
    let mut contents = Contents::default();
    let end = log.recover(&mut |recovered| match recovered {
        Recovered::State(state) => contents.state = Some(state.to_vec()),
        Recovered::Snapshot { end, last_term, bytes } => contents.snapshot = Some((end, last_term, bytes.to_vec())),
        Recovered::Entry { slot, term, payload } => contents.entries.push((slot, term, payload.to_vec())),
        Recovered::Damaged { .. } => panic!("memory is not damaged"),
    });
    let begin = contents.snapshot.as_ref().map_or(Slot(0), |(end, ..)| *end);
    for (index, (slot, ..)) in contents.entries.iter().enumerate() {
        assert_eq!(slot.0, begin.0 + index as u64, "slots come in order, without a gap");
    }
    let expected_end = Slot(begin.0 + contents.entries.len() as u64);
    assert_eq!(end.expect("memory does not fail"), expected_end);
    contents
}

fn payloads(log: &mut MemoryLog) -> Vec<(u64, Vec<u8>)> {
    let entries = contents(log).entries.into_iter();
    entries.map(|(slot, _, payload)| (slot.0, payload)).collect()
}

fn snapshot(end: u64, tail: Tail) -> Snapshot {
    Snapshot {
        end: Slot(end),
        last_term: Term(1),
        tail,
        bytes: end.to_be_bytes().as_slice().into(),
    }
}

fn durable_end(log: &mut MemoryLog) -> u64 {
    log.durable().expect("memory does not fail").end.0
}

#[test]
fn a_gap_is_refused_and_changes_nothing() {
    let mut log = MemoryLog::new();
    log.append(Slot(0), Term(1), b"a").expect("the end of the log");
    for slot in [2, u64::MAX] {
        let error = log.append(Slot(slot), Term(1), b"c").expect_err("a gap");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("ends at 1"), "{error}");
    }
    assert_eq!(payloads(&mut log), [(0, b"a".to_vec())]);
}

#[test]
fn a_bounded_log_says_when_it_is_full_and_can_still_be_rewritten() {
    let mut log = MemoryLog::with_capacity(2, 4);
    log.append(Slot(0), Term(1), b"aaa").expect("room");
    let error = log.append(Slot(1), Term(1), b"bb").expect_err("a byte too much");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    log.append(Slot(1), Term(1), b"b").expect("room");
    let error = log.append(Slot(2), Term(1), b"").expect_err("a slot too much");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    log.append(Slot(0), Term(2), b"cccc")
        .expect("what stood there makes room");
    assert_eq!(payloads(&mut log), [(0, b"cccc".to_vec())]);
}

#[test]
fn a_snapshot_makes_room_in_a_bounded_log() {
    let mut log = MemoryLog::with_capacity(2, 4);
    log.append(Slot(0), Term(1), b"aa").expect("room");
    log.append(Slot(1), Term(1), b"bb").expect("room");
    log.install(&snapshot(1, Tail::Keep)).expect("within the log");
    log.append(Slot(2), Term(1), b"cc").expect("slot 0 made room");
    assert_eq!(payloads(&mut log), [(1, b"bb".to_vec()), (2, b"cc".to_vec())]);
    let error = log.append(Slot(0), Term(1), b"a").expect_err("in the past");
    assert!(error.to_string().contains("stands for all before 1"), "{error}");
    log.install(&snapshot(0, Tail::Keep))
        .expect_err("older than the one there");
}

#[test]
fn an_overwritten_slot_is_not_durable_until_the_next_sync() {
    let mut log = MemoryLog::new();
    log.append(Slot(0), Term(1), b"a").expect("the end of the log");
    log.append(Slot(1), Term(1), b"b").expect("the end of the log");
    log.sync().expect("memory does not fail");
    log.append(Slot(1), Term(2), b"c").expect("an earlier slot");
    assert_eq!(durable_end(&mut log), 1);
    log.sync().expect("memory does not fail");
    assert_eq!(durable_end(&mut log), 2);
}

#[test]
fn a_state_is_durable_with_the_next_sync_and_has_a_bound() {
    let mut log = MemoryLog::new();
    log.set_state(b"term 1").expect("short");
    log.set_state(b"term 2").expect("short");
    assert_eq!(log.durable().expect("memory does not fail").states_count, 0);
    log.sync().expect("memory does not fail");
    assert_eq!(log.durable().expect("memory does not fail").states_count, 2);
    log.set_state(&[0; STATE_BYTES_MAX + 1]).expect_err("too long");
    assert_eq!(contents(&mut log).state.as_deref(), Some(&b"term 2"[..]));
}

/// One thing done to a log.
#[derive(Clone, Debug)]
enum Step {
    Append(u64, u64, Vec<u8>),
    Install(u64, bool),
    State(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let payload = || prop::collection::vec(any::<u8>(), 0..9);
    let step = prop_oneof![
        6 => (0u64..12, any::<u64>(), payload()).prop_map(|(slot, term, payload)| Step::Append(slot, term, payload)),
        1 => (0u64..12, any::<bool>()).prop_map(|(end, keeps)| Step::Install(end, keeps)),
        1 => payload().prop_map(Step::State),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    /// The log does what plain vectors do.
    #[test]
    fn agrees_with_a_vector(steps in steps()) {
        let mut log = MemoryLog::with_capacity(12, 100);
        let mut model = Contents::default();
        let mut begin = 0;
        for step in steps {
            let end = begin + model.entries.len() as u64;
            match step {
                Step::Append(slot, term, payload) => {
                    let accepted = log.append(Slot(slot), Term(term), &payload).is_ok();
                    prop_assert_eq!(accepted, (begin..=end).contains(&slot));
                    if accepted {
                        model.entries.truncate((slot - begin) as usize);
                        model.entries.push((Slot(slot), Term(term), payload));
                    }
                }
                Step::Install(at, keeps) => {
                    let snapshot = snapshot(at, if keeps { Tail::Keep } else { Tail::Drop });
                    let accepted = log.install(&snapshot).is_ok();
                    prop_assert_eq!(accepted, at >= begin);
                    if accepted {
                        let keeps = keeps && at <= end;
                        model.entries.retain(|(slot, ..)| keeps && slot.0 >= at);
                        model.snapshot = Some((snapshot.end, snapshot.last_term, snapshot.bytes.to_vec()));
                        begin = at;
                    }
                }
                Step::State(state) => {
                    log.set_state(&state).expect("short");
                    model.state = Some(state);
                }
            }
            prop_assert_eq!(&contents(&mut log), &model);
            log.sync().expect("memory does not fail");
            prop_assert_eq!(durable_end(&mut log), begin + model.entries.len() as u64);
        }
    }
}
