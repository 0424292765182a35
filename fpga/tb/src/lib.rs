//! The blocks of `fpga/rtl`, verilated: `cargo test -p fpga-tb` holds them against the models of `fpga-model`, edge by edge, and
//! against what user space says of the same frames.
//!
//! Needs Verilator when it is built; without it the tests of the RTL are skipped, by name.
#![deny(unsafe_code)]

/// Whether Verilator was here when this was built: without it there are models alone.
pub const HAS_RTL: bool = cfg!(rtl);

pub mod conformance;
pub mod lockstep;
pub mod nodes;
pub mod suite;
#[cfg(rtl)]
#[allow(unsafe_code)]
#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_cast,
    reason = "what is generated has one form for ports of every width"
)]
pub mod sys;
pub mod timing;
