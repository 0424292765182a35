//! A state has one image, and what loads is what some store saved.

use std::collections::BTreeMap;

use dataplane_waist::StateMachine;
use dataplane_wire::quorum::{reply::Outcome, request::Command};
use proptest::prelude::*;

use super::*;
use crate::Store;

fn options() -> StoreOptions {
    StoreOptions {
        bytes_max: 4000,
        value_bytes_max: 300,
        ..StoreOptions::default()
    }
}

fn empty() -> Store {
    Store::new(options()).expect("sound")
}

fn put(store: &mut Store, key: &[u8], value: &[u8]) {
    store.apply(&Command::Put { key, value }, &mut |outcome| {
        assert_eq!(outcome, Outcome::Done);
    });
}

fn saved(store: &Store) -> Vec<u8> {
    let mut image = Vec::new();
    store.save(&mut image);
    image
}

fn loaded(image: &[u8]) -> Result<Store, Reject> {
    let mut store = empty();
    store.load(image)?;
    Ok(store)
}

/// Keys from one byte to the longest; few enough to fit.
fn some_entries() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    let key = prop_oneof![
        prop::collection::vec(0u8..3, 1..3),
        prop::collection::vec(any::<u8>(), 1..=255)
    ];
    prop::collection::vec((key, prop::collection::vec(any::<u8>(), 0..40)), 0..10)
}

/// Two entries, each with a value.
fn small_image() -> Vec<u8> {
    let mut store = empty();
    put(&mut store, b"ab", b"12");
    put(&mut store, b"b", b"3");
    saved(&store)
}

proptest! {
    #[test]
    fn equal_states_have_equal_images_and_others_others(
        a in some_entries(), b in some_entries(), b_is_a in any::<bool>(),
    ) {
        // The same entries by another way: backwards, with values that were longer before, and a key that went again.
        let a_state: BTreeMap<_, _> = a.iter().cloned().collect();
        let b_state: BTreeMap<_, _> = if b_is_a { a_state.clone() } else { b.iter().cloned().collect() };
        let (mut a_store, mut b_store) = (empty(), empty());
        for (key, value) in &a {
            put(&mut a_store, key, value);
        }
        for (key, value) in b_state.iter().rev() {
            put(&mut b_store, key, &[9; 50]);
            put(&mut b_store, key, value);
        }
        let gone = &[77; 3][..];
        if !b_state.contains_key(gone) {
            put(&mut b_store, gone, b"");
            b_store.apply(&Command::Delete { key: gone }, &mut |_| ());
        }
        let (a_image, b_image) = (saved(&a_store), saved(&b_store));
        prop_assert_eq!(a_image == b_image, a_state == b_state);

        let again = loaded(&a_image).expect("what a store saved");
        prop_assert_eq!(again.used_bytes(), a_store.used_bytes());
        prop_assert_eq!(again.entries_count(), a_state.len());
        prop_assert_eq!(saved(&again), a_image);
    }

    #[test]
    fn what_loads_is_what_a_store_saved(
        entries in some_entries(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()), behind in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let mut store = empty();
        for (key, value) in &entries {
            put(&mut store, key, value);
        }
        let mut image = saved(&store);
        for (index, mask) in flips {
            let index = index.index(image.len());
            image[index] ^= mask;
        }
        if let Some(cut) = cut {
            image.truncate(cut.index(image.len()));
        }
        image.extend(behind);
        if let Ok(store) = loaded(&image) {
            prop_assert_eq!(saved(&store), image);
        }
    }

    #[test]
    fn any_entries_are_answered(count in 0u64..6, body in prop::collection::vec(0u8..4, 0..40)) {
        let image = [&header(&options(), count)[..], &body].concat();
        if let Ok(store) = loaded(&image) {
            prop_assert_eq!(saved(&store), image);
            prop_assert_eq!(store.entries_count() as u64, count);
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_or_another_state() {
    let image = small_image();
    let mut other_states_count = 0;
    for bit in 0..image.len() * 8 {
        let mut flipped = image.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(store) = loaded(&flipped) {
            assert_eq!(saved(&store), flipped, "bit {bit}");
            other_states_count += 1;
        }
        if bit / 8 < IMAGE_HEADER_BYTES {
            assert!(loaded(&flipped).is_err(), "bit {bit} of the header");
        }
    }
    // Bits of values, and those of keys that leave them in order: their owner's checksum guards them.
    assert!(other_states_count >= 3 * 8, "{other_states_count}");
}

#[test]
fn each_way_to_be_wrong_has_its_reason_and_leaves_the_state_alone() {
    let image = small_image();
    let with = |at: usize, byte: u8| {
        let mut image = image.clone();
        image[at] = byte;
        image
    };
    let entries = |count: u64, entries: &[u8]| [&header(&options(), count)[..], entries].concat();
    let other_bounds = StoreOptions {
        bytes_max: 4001,
        ..options()
    };
    let long_value = [&[1, 1, 45, b'k'][..], &[0; 301]].concat();
    // 15 keys of one byte with values of 255 are more than 4000.
    let too_many: Vec<u8> = (0..15)
        .flat_map(|key| [&[1, 0, 255, key][..], &[0; 255]].concat())
        .collect();
    let mut store = loaded(&image).expect("sound");
    for (what, bytes, reason) in [
        ("nothing", Vec::new(), Reject::Short),
        ("half a header", image[..20].to_vec(), Reject::Short),
        ("another magic", with(0, b'X'), Reject::Magic),
        ("a newer version", with(7, 2), Reject::Version),
        ("other bounds", header(&other_bounds, 0).to_vec(), Reject::Length),
        ("a cut entry", image[..image.len() - 1].to_vec(), Reject::Short),
        ("a count above the entries", with(31, 3), Reject::Short),
        (
            "a count above all memory",
            entries(u64::MAX, &[1, 0, 0, b'k']),
            Reject::Short,
        ),
        ("a count below the entries", with(31, 1), Reject::Long),
        ("bytes behind", [&image[..], &[0]].concat(), Reject::Long),
        ("an empty key", entries(1, &[0, 0, 0]), Reject::Length),
        (
            "a key twice",
            entries(2, &[1, 0, 0, b'k', 1, 0, 0, b'k']),
            Reject::Length,
        ),
        (
            "keys out of order",
            entries(2, &[1, 0, 0, b'l', 1, 0, 0, b'k']),
            Reject::Length,
        ),
        ("a long value", entries(1, &long_value), Reject::Length),
        ("more than the bound", entries(15, &too_many), Reject::Length),
    ] {
        assert_eq!(store.load(&bytes), Err(reason), "{what}");
        assert_eq!(saved(&store), image, "{what} changed the state");
    }
}

#[test]
fn a_refused_image_takes_no_memory_and_a_sound_one_little_more_than_itself() {
    let mut store = empty();
    let refused = [
        [&header(&options(), u64::MAX)[..], &[1, 0, 0, b'k']].concat(),
        [&small_image()[..], &[0]].concat(),
    ];
    let counted = allocation_counter::measure(|| {
        for image in &refused {
            assert!(store.load(image).is_err());
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");

    // The smallest entries there are, so as many as the bound lets in.
    let mut full = empty();
    for key in 0..60 {
        put(&mut full, &[key], b"");
    }
    let image = saved(&full);
    let counted = allocation_counter::measure(|| store.load(&image).expect("sound"));
    // Keys, heads of values, and once more while they are put in order: a bound that no count in the input moves.
    let bound_bytes = 4 * full.used_bytes();
    assert!(counted.bytes_max <= bound_bytes, "{counted:?} is above {bound_bytes}");
    assert_eq!(saved(&store), image);
}

#[test]
fn an_image_is_never_longer_than_the_bound_and_its_header() {
    let mut full = empty();
    put(&mut full, b"k", &[7; 300]);
    for key in 0..50 {
        put(&mut full, &[key, 0], b"");
    }
    let image = saved(&full);
    assert!(image.len() as u64 <= IMAGE_HEADER_BYTES as u64 + full.used_bytes());
    assert_eq!(image.capacity(), image.len(), "the room was known beforehand");
}
