//! The store against a model of it that is too simple to be wrong, under bounds that bite.

use std::collections::BTreeMap;

use dataplane_wire::quorum::{
    VALUE_BYTES_MAX,
    reply::{ENTRY_HEADER_BYTES, Entries},
};
use proptest::prelude::*;

use super::*;
use crate::ENTRY_OVERHEAD_BYTES;

/// An outcome that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Done,
    Absent,
    Value(Vec<u8>),
    Mismatch(Vec<u8>),
    Entries(Vec<(Vec<u8>, Vec<u8>)>, bool),
    TooLarge,
    Misplaced,
}

fn owned(entries: Entries<'_>) -> Said {
    let pairs = entries.iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
    Said::Entries(pairs.collect(), entries.more())
}

/// Collects the one answer.
fn said(ask: impl FnOnce(&mut dyn FnMut(Outcome<'_>))) -> Said {
    let mut answers = Vec::new();
    ask(&mut |outcome| {
        answers.push(match outcome {
            Outcome::Done => Said::Done,
            Outcome::Absent => Said::Absent,
            Outcome::Value(value) => Said::Value(value.into()),
            Outcome::Mismatch(value) => Said::Mismatch(value.into()),
            Outcome::Entries(entries) => owned(entries),
            TOO_LARGE => Said::TooLarge,
            MISPLACED => Said::Misplaced,
            other => panic!("{other:?}"),
        });
    });
    let [answer] = answers.try_into().expect("one answer");
    answer
}

fn apply(store: &mut Store, command: Command<'_>) -> Said {
    said(|answer| store.apply(&command, answer))
}

fn read(store: &Store, command: Command<'_>) -> Said {
    said(|answer| store.read(&command, answer))
}

fn saved(store: &Store) -> Vec<u8> {
    let mut image = Vec::new();
    store.save(&mut image);
    image
}

/// What the commands mean, said as shortly as possible.
struct Model {
    options: StoreOptions,
    map: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    fn weight_bytes(map: &BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
        map.iter()
            .map(|(key, value)| ENTRY_OVERHEAD_BYTES + (key.len() + value.len()) as u64)
            .sum()
    }

    /// Keeps what the map becomes, if that is within the bounds.
    fn set(&mut self, key: &[u8], value: Vec<u8>) -> Said {
        let mut map = self.map.clone();
        let fits = value.len() <= self.options.value_bytes_max;
        map.insert(key.into(), value);
        if !fits || Model::weight_bytes(&map) > self.options.bytes_max {
            return Said::TooLarge;
        }
        self.map = map;
        Said::Done
    }

    fn apply(&mut self, command: Command<'_>) -> Said {
        match command {
            Command::Put { key, value } => self.set(key, value.into()),
            Command::Append { key, value } => {
                let held = self.map.get(key).cloned().unwrap_or_default();
                self.set(key, [&held[..], value].concat())
            }
            Command::CompareAndSwap { key, expected, value } => match self.map.get(key) {
                None => Said::Absent,
                Some(held) if held == expected => self.set(key, value.into()),
                Some(held) => Said::Mismatch(held.clone()),
            },
            Command::Delete { key } => self.map.remove(key).map_or(Said::Absent, |_| Said::Done),
            Command::Get { key } | Command::StaleGet { key } => {
                self.map.get(key).cloned().map_or(Said::Absent, Said::Value)
            }
            Command::Range { from, end, count_max } | Command::StaleRange { from, end, count_max } => {
                let is_in = |key: &[u8]| key >= from && (end.is_empty() || key < end);
                let all = self.map.iter().filter(|(key, _)| is_in(key));
                let mut room_bytes = self.options.range_bytes_max;
                let fitting = all.clone().take(count_max.into()).take_while(|(key, value)| {
                    let entry_bytes = ENTRY_HEADER_BYTES + key.len() + value.len();
                    let fits = entry_bytes <= room_bytes;
                    room_bytes = room_bytes.saturating_sub(entry_bytes);
                    fits
                });
                let pairs: Vec<_> = fitting.map(|(key, value)| (key.clone(), value.clone())).collect();
                let more = pairs.len() < all.count();
                Said::Entries(pairs, more)
            }
            Command::Open | Command::Reconfigure { .. } | Command::Status => Said::Misplaced,
        }
    }
}

/// Few keys, so that commands meet; values from empty to beyond their bound.
fn a_command() -> impl Strategy<Value = (u8, Vec<u8>, Vec<u8>, Vec<u8>, u16)> {
    let key = || prop::collection::vec(0u8..3, 1..4);
    let value =
        || prop_oneof![3 => prop::collection::vec(0u8..2, 0..3), 1 => prop::collection::vec(any::<u8>(), 0..90)];
    let end = prop_oneof![Just(Vec::new()), key()];
    (0u8..12, key(), value(), (value(), end), 0u16..6).prop_map(|(code, key, first, (second, end), count_max)| {
        let second = if code == 5 || code == 6 { end } else { second };
        (code, key, first, second, count_max)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_store_does_what_the_model_does(
        commands in prop::collection::vec(a_command(), 1..80), bytes_max in 0u64..1200,
    ) {
        let options = StoreOptions { bytes_max, value_bytes_max: 80, range_bytes_max: ENTRY_HEADER_BYTES + KEY_BYTES_MAX + 80 };
        let mut store = Store::new(options).expect("sound");
        let mut model = Model { options, map: BTreeMap::new() };
        for (code, key, first, second, count_max) in &commands {
            let (key, first, second, count_max) = (&key[..], &first[..], &second[..], *count_max);
            let command = match code {
                0 | 7 => Command::Put { key, value: first },
                1 | 8 => Command::Append { key, value: first },
                2 | 9 => Command::CompareAndSwap { key, expected: first, value: second },
                3 => Command::Delete { key },
                4 => Command::Get { key },
                5 => Command::Range { from: key, end: second, count_max },
                6 => Command::StaleRange { from: key, end: second, count_max },
                10 => Command::StaleGet { key },
                _ => Command::Open,
            };
            let before = saved(&store);
            let expected = model.apply(command);
            if command.reads_only() {
                prop_assert_eq!(&read(&store, command), &expected, "{:?}", command);
            }
            prop_assert_eq!(&apply(&mut store, command), &expected, "{:?}", command);
            if expected != Said::Done {
                prop_assert_eq!(&saved(&store), &before, "{:?} changed something", command);
            }
            prop_assert_eq!(store.used_bytes(), Model::weight_bytes(&model.map));
            prop_assert_eq!(store.entries_count(), model.map.len());
        }
        let pairs = store.map.iter().map(|(key, value)| (key.to_vec(), value.clone()));
        prop_assert_eq!(pairs.collect::<BTreeMap<_, _>>(), model.map);
    }
}

fn store_of(entries: &[(&[u8], &[u8])]) -> Store {
    let mut store = Store::new(StoreOptions::default()).expect("sound");
    for (key, value) in entries {
        assert_eq!(apply(&mut store, Command::Put { key, value }), Said::Done);
    }
    store
}

#[test]
fn a_range_of_any_size_is_read_answer_by_answer() {
    let long = vec![b'v'; VALUE_BYTES_MAX];
    let keys: Vec<[u8; 2]> = (0..50u16).map(u16::to_be_bytes).collect();
    let entries: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], &long[..])).collect();
    let store = store_of(&entries);
    let mut read_keys = Vec::new();
    let mut from = vec![0];
    // Three of the largest values fit one reply, and no answer may be empty.
    for _ in 0..keys.len().div_ceil(3) {
        let answer = read(
            &store,
            Command::Range {
                from: &from,
                end: &[],
                count_max: u16::MAX,
            },
        );
        let Said::Entries(pairs, more) = answer else {
            panic!("{answer:?}");
        };
        assert!(pairs.iter().all(|(_, value)| *value == long));
        assert_eq!(more, read_keys.len() + pairs.len() < keys.len());
        read_keys.extend(pairs.into_iter().map(|(key, _)| key));
        from = [read_keys.last().expect("no answer is empty"), &[0][..]].concat();
    }
    assert_eq!(read_keys, keys);
}

#[test]
fn a_range_asked_from_within_a_ranges_answer_is_answered() {
    let store = store_of(&[(b"a", b"1"), (b"b", b"2")]);
    let all = Command::Range {
        from: b"a",
        end: &[],
        count_max: 9,
    };
    let mut inner = None;
    store.read(&all, &mut |_| inner = Some(read(&store, all)));
    assert_eq!(inner, Some(read(&store, all)));
}

#[test]
fn what_is_not_data_or_not_a_read_is_refused_and_changes_nothing() {
    let mut store = store_of(&[(b"key", b"value")]);
    let before = saved(&store);
    let (key, value) = (&b"key"[..], &b"other"[..]);
    assert_eq!(apply(&mut store, Command::Open), Said::Misplaced);
    for command in [
        Command::Put { key, value },
        Command::Append { key, value },
        Command::Delete { key },
        Command::CompareAndSwap {
            key,
            expected: b"value",
            value,
        },
    ] {
        assert_eq!(read(&store, command), Said::Misplaced, "{command:?}");
    }
    // Bounds that the decoder of requests holds are not relied on.
    for key in [&[][..], &[7; KEY_BYTES_MAX + 1]] {
        assert_eq!(apply(&mut store, Command::Put { key, value }), Said::TooLarge);
    }
    assert_eq!(saved(&store), before);
}

#[test]
fn a_full_store_still_replaces_shrinks_and_deletes() {
    let options = StoreOptions {
        bytes_max: ENTRY_OVERHEAD_BYTES + 4,
        ..StoreOptions::default()
    };
    let mut store = Store::new(options).expect("sound");
    let put = |key, value| Command::Put { key, value };
    assert_eq!(apply(&mut store, put(b"k", b"123")), Said::Done);
    assert_eq!(store.used_bytes(), options.bytes_max);
    assert_eq!(apply(&mut store, put(b"k", b"1234")), Said::TooLarge);
    assert_eq!(apply(&mut store, put(b"l", b"")), Said::TooLarge);
    assert_eq!(apply(&mut store, put(b"k", b"abc")), Said::Done);
    assert_eq!(apply(&mut store, put(b"k", b"")), Said::Done);
    assert_eq!(apply(&mut store, Command::Delete { key: b"k" }), Said::Done);
    assert_eq!(apply(&mut store, put(b"l", b"123")), Said::Done);
}

#[test]
fn values_that_shrink_give_their_room_back() {
    let mut store = store_of(&[(b"k", &[7; VALUE_BYTES_MAX])]);
    assert_eq!(apply(&mut store, Command::Put { key: b"k", value: b"v" }), Said::Done);
    let held = &store.map[&b"k"[..]];
    assert!(held.capacity() <= 2 + SLACK_BYTES, "{}", held.capacity());
}

#[test]
fn replacing_swapping_and_reading_take_no_memory() {
    let mut store = store_of(&[(b"a", &[7; 64]), (b"b", &[8; 64])]);
    let (all, key) = (
        Command::Range {
            from: b"a",
            end: &[],
            count_max: 9,
        },
        b"a",
    );
    let mut answers_count = 0;
    let mut turn = |store: &mut Store, count: usize| {
        for round in 0..count {
            let (value, next) = ([round as u8; 64], [round as u8 + 1; 64]);
            for command in [
                Command::Put { key, value: &value },
                Command::CompareAndSwap {
                    key,
                    expected: &value,
                    value: &next,
                },
                Command::Get { key },
                all,
            ] {
                store.apply(&command, &mut |outcome| {
                    assert!(matches!(
                        outcome,
                        Outcome::Done | Outcome::Value(_) | Outcome::Entries(_)
                    ));
                    answers_count += 1;
                });
            }
        }
    };
    turn(&mut store, 1);
    let counted = allocation_counter::measure(|| turn(&mut store, 100));
    assert_eq!(counted.count_total, 0, "{counted:?}");
    assert_eq!(answers_count, 4 * 101);
}

#[test]
fn bounds_that_contradict_each_other_are_refused() {
    let refusal = |options| {
        Store::new(options)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let sound = StoreOptions::default();
    let value = refusal(StoreOptions {
        value_bytes_max: VALUE_BYTES_MAX + 1,
        ..sound
    });
    assert!(value.contains("value_bytes_max is 16385"), "{value}");
    for range_bytes_max in [
        ENTRY_HEADER_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX - 1,
        sound.range_bytes_max + 1,
    ] {
        let range = refusal(StoreOptions {
            range_bytes_max,
            ..sound
        });
        assert!(range.contains("range_bytes_max"), "{range}");
    }
    // What fits frames of 1452 bytes.
    let small = StoreOptions {
        value_bytes_max: 1024,
        range_bytes_max: 1452 - 76,
        ..sound
    };
    assert_eq!(refusal(small), "");
}

#[test]
fn as_many_puts_are_sure_as_fit_whatever_they_are() {
    let options = StoreOptions {
        bytes_max: 1_000,
        value_bytes_max: 100,
        range_bytes_max: 512,
    };
    let mut store = Store::new(options).expect("sound bounds");
    let sure_count = store.sure_puts(136).count;
    assert_eq!(sure_count, 5, "64 bytes each besides");
    assert_eq!(store.sure_puts(136).value_bytes_max, 100);
    // The longest there are, each under a key of its own.
    for index in 0..sure_count {
        let key = [index as u8; 36];
        let command = Command::Put {
            key: &key,
            value: &[7; 100],
        };
        assert!(store.sure_puts(136).count >= sure_count - index);
        store.apply(&command, &mut |outcome| assert_eq!(outcome, Outcome::Done));
    }
    assert_eq!(store.sure_puts(136).count, 0);
}
