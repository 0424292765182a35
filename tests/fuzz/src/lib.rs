//! What the fuzz targets and the program that writes their seeds share.
#![forbid(unsafe_code)]

pub mod packets;
pub mod replicas;
pub mod segments;
