//! Virtual time: a station is one node under one discipline, fast enough that quantiles are held against theory with millions of
//! requests; a cluster is a client with a policy and many nodes.

mod by_kind;
mod cluster;
mod shared;
mod station;

pub use by_kind::{OneStation, station};
pub use cluster::{Cluster, ClusterOptions, Outcome};
pub use shared::SharedStation;
pub use station::{ArrivedNs, Station, StationOptions};
