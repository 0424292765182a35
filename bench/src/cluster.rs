//! A replicated store on real addresses: one replica is a process (`dplab serve`), and so is its client (`dplab kv`).
//!
//! ```text
//!  cluster file ─▶ Cluster ─┬─▶ serve: UDP port ─ sealed ─▶ Node(Replica(Store), log in a folder)
//!                           └─▶ kv:    UDP port ─ sealed ─▶ Node(Client)
//! ```

pub mod args;
mod file;
mod folder;
pub mod kv;
mod members;
pub(crate) mod port;
pub mod serve;
mod session;
mod watch;

pub use file::{Cluster, ClusterError};
