//! The blocks against their models and against user space, with every kind of pause, from every kind of beginning.
#![forbid(unsafe_code)]

mod blocks;
mod conformance;
mod timing;
