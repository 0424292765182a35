//! L3: the load generator, the measurements, the claims, the experiments, the records and the reports behind `dplab`.
#![forbid(unsafe_code)]

pub mod account;
pub mod agent;
pub mod backends;
pub mod bare_wakeup;
pub mod breakdown;
pub mod caller;
pub mod claim;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod compare;
pub mod disk;
pub mod environment;
pub mod experiment;
pub mod experiments;
pub mod hogs;
pub mod host;
pub mod interface;
pub mod load;
pub mod measure;
pub mod oracle;
pub mod place;
pub mod record;
pub mod registry;
pub mod replicas;
pub mod report;
pub mod run;
pub mod server;
pub mod sim_cluster;
pub mod sink;
pub mod soak;
pub mod store;
pub mod table;
pub mod trial;
pub mod wal;
