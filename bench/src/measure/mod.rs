//! From samples to a judgement: histograms with their lost requests, quantiles with their confidence, rounds, ratios
//! and the gates that a measurement must pass. Nothing here sends a packet.

mod decode;
mod quantile;
mod recorder;

pub use decode::DecodeError;
pub use quantile::{QUANTILES, RankInterval, interval, rank};
pub use recorder::{Recorder, VALUE_NS_MAX};
