//! From samples to a judgement: histograms with their lost requests, quantiles with their confidence, rounds, ratios
//! and the gates that a measurement must pass. Nothing here sends a packet.

pub mod compare;
mod decode;
pub mod gates;
pub mod hdr_files;
mod quantile;
mod ranks;
mod recorder;
pub mod rounds;
pub mod student;
mod watch;

pub use compare::{Difference, RatioEstimate, mann_whitney, ratio, ratio_unpaired, verdict};
pub use decode::DecodeError;
pub use quantile::{QUANTILES, RankInterval, interval, rank};
pub use recorder::{Recorder, VALUE_NS_MAX};
pub use watch::Watch;
