//! What user space says of every frame is what the models and the RTL do, byte for byte.

use fpga_model::{node::Shape, stream::Pauses};
use fpga_tb::{conformance::holds, nodes::Made};

const SEEDS: std::ops::RangeInclusive<u64> = 1..=16;
/// Fewer than a ring has places: `tests/tests/rtl_long.rs` goes around it.
const FRAMES_COUNT: usize = 45;

fn all(made: fn(u64) -> Made, leads: bool) {
    for seed in SEEDS {
        for pauses in Pauses::ALL {
            for shape in [Shape::NARROW, Shape::WIDE] {
                holds(made(seed), shape, leads, seed, pauses, FRAMES_COUNT);
            }
        }
    }
}

#[test]
fn models_do_what_user_space_says() {
    for leads in [true, false] {
        all(|_| Made::Model, leads);
    }
}

#[test]
#[cfg_attr(
    not(rtl),
    ignore = "Verilator was not here when this was built (apt-get install verilator)"
)]
fn a_leader_in_rtl_does_what_user_space_and_its_model_say() {
    all(|seed| Made::Rtl { seed: seed as u32 }, true);
}

#[test]
#[cfg_attr(
    not(rtl),
    ignore = "Verilator was not here when this was built (apt-get install verilator)"
)]
fn a_follower_in_rtl_does_what_user_space_and_its_model_say() {
    all(|seed| Made::Rtl { seed: seed as u32 }, false);
}
