//! L3: the load generator, the measurements, the claims, the experiments, the records and the reports behind `dplab`.
#![forbid(unsafe_code)]

pub mod claim;
pub mod compare;
pub mod environment;
pub mod load;
pub mod measure;
pub mod record;
pub mod report;
pub mod store;
pub mod table;
