//! What takes the RTL longer than `fpga-tb`'s own tests may: from sixteen random beginnings, 20,000 frames each (2,000 at 512 bits), a commit
//! takes the same number of cycles every time; and histories that go around the rings do what user space says.
#![forbid(unsafe_code)]

use fpga_model::{node::Shape, stream::Pauses};
use fpga_tb::{
    HAS_RTL,
    conformance::holds,
    nodes::Made,
    timing::{NARROW_COMMIT_CYCLES, WIDE_COMMIT_CYCLES, commit_cycles},
};

fn has_rtl() -> bool {
    if !HAS_RTL {
        eprintln!("skipped: Verilator was not here when this was built (apt-get install verilator)");
    }
    HAS_RTL
}

fn commits_in_a_fixed_number_of_cycles(seeds: std::ops::RangeInclusive<u32>) {
    if !has_rtl() {
        return;
    }
    for seed in seeds {
        for (shape, expected, frames_count) in [
            (Shape::NARROW, NARROW_COMMIT_CYCLES, 20_000),
            (Shape::WIDE, WIDE_COMMIT_CYCLES, 2_000),
        ] {
            let cycles = commit_cycles(Made::Rtl { seed }, shape, frames_count);
            assert_eq!(cycles, (expected, expected), "{shape:?}, seed {seed}");
        }
    }
}

// Two tests, for two CPUs.
#[test]
fn a_leader_from_eight_beginnings_commits_in_a_fixed_number_of_cycles() {
    commits_in_a_fixed_number_of_cycles(1..=8);
}

#[test]
fn a_leader_from_eight_others_commits_in_a_fixed_number_of_cycles() {
    commits_in_a_fixed_number_of_cycles(9..=16);
}

fn goes_around_its_ring(leads: bool) {
    if !has_rtl() {
        return;
    }
    for seed in 17..=19 {
        for pauses in Pauses::ALL {
            for shape in [Shape::NARROW, Shape::WIDE] {
                holds(Made::Rtl { seed: seed as u32 }, shape, leads, seed, pauses, 700);
            }
        }
    }
}

#[test]
fn a_leader_goes_around_its_ring_as_user_space_does() {
    goes_around_its_ring(true);
}

#[test]
fn a_follower_goes_around_its_ring_as_user_space_does() {
    goes_around_its_ring(false);
}
