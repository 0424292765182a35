//! The `dplab` command.
#![forbid(unsafe_code)]
fn main() {}
