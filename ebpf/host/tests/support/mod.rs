//! What the tests of the programs share.
#![allow(dead_code)] // Each test file is a crate of its own and uses its part.

pub mod frames;
pub mod judge;
pub mod model;

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane_wire::ethernet::Mac;
use ebpf_host::{HostError, Loaded, Program, Settings};
use nix::time::{ClockId, clock_gettime};

/// Whom the golden frames are sent to.
pub const SETTINGS: Settings = Settings {
    local_mac: Mac([2, 0, 0, 0, 0, 2]),
    local_ipv4: Some(Ipv4Addr::new(192, 0, 2, 2)),
    local_ipv6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
    local_port: 4001,
    // Kinds 1 to 3; 4 is the one that was not asked for.
    kinds: 0b1110,
    group: None,
    session_count: 1024,
    loss_threshold: 0,
    loss_seed: 0,
    stamp_index: 5,
    frags: false,
};

/// The program, or `None` with the reason printed where this process may not load it.
///
/// # Panics
/// Where BPF is there and the program does not load: that is what is tested.
pub fn load(test: &str, program: Program, settings: &Settings) -> Option<Loaded> {
    match Loaded::load(program, settings) {
        Ok(loaded) => Some(loaded),
        Err(error @ (HostError::NotAllowed { .. } | HostError::NoBpf { .. } | HostError::OldKernel { .. })) => {
            println!("{test}: not run: {error}");
            None
        }
        Err(error) => panic!("{} does not load: {error}", program.name()),
    }
}

/// The clock that `stamp` reads, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has it");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
