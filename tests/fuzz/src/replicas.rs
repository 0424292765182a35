//! A replica's settings, small, so that a fuzzer reaches every bound.

use dataplane_kv::{Store, StoreOptions};
use dataplane_quorum::{Config, Limits, ReadMode, Timing, majorities};
use dataplane_waist::Peer;

pub fn store() -> Store {
    let options = StoreOptions {
        bytes_max: 4096,
        value_bytes_max: 200,
        ..StoreOptions::default()
    };
    Store::new(options).expect("the bounds agree")
}

pub fn config() -> Config {
    Config {
        cluster: 7,
        node: 0,
        peers: vec![(1, Peer(1)), (2, Peer(2))],
        members: majorities(0b111),
        reads: ReadMode::Index,
        timing: Timing::LOCAL,
        limits: Limits {
            window_slots: 256,
            window_bytes: 1 << 16,
            in_flight_slots: 64,
            pipeline_slots: 32,
            held_slots: 32,
            snapshot_slots: 100,
            catch_up_slots: 20,
            sessions_max: 4,
            session_replies: 8,
            reads_max: 16,
            ..Limits::SMALL
        },
        seed: 1,
        mutation: None,
    }
}
