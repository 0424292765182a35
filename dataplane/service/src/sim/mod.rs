//! Virtual time: a station is one node under one discipline, fast enough that quantiles are held against theory with millions of
//! requests; a cluster is a client with a policy and many nodes.

mod cluster;
mod shared;
mod station;

pub use cluster::{Cluster, ClusterOptions, Outcome};
pub use shared::SharedStation;
pub use station::{ArrivedNs, Station, StationOptions};
