//! Stations in virtual time: one node's workers under one discipline, or one worker that is shared. Fast enough that quantiles
//! are held against theory, millions of requests at a time.

mod shared;
mod station;

pub use shared::SharedStation;
pub use station::{Overhead, Station, StationCounts, StationOptions};
