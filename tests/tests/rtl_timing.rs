//! The bar of the hardware leader, whole: from sixteen random beginnings, 20,000 frames each (2,000 at 512 bits), a commit takes the same number of
//! cycles every time. `fpga-tb`'s own tests have a short while of it.
#![forbid(unsafe_code)]

use fpga_model::node::Shape;
use fpga_tb::{
    HAS_RTL,
    nodes::Made,
    timing::{NARROW_COMMIT_CYCLES, WIDE_COMMIT_CYCLES, commit_cycles},
};

fn commits_in_a_fixed_number_of_cycles(seeds: std::ops::RangeInclusive<u32>) {
    if !HAS_RTL {
        eprintln!("skipped: Verilator was not here when this was built (apt-get install verilator)");
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
