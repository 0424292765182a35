//! L2: hosts as network namespaces, joined by veth pairs: made, verified and removed again.
//!
//! ```no_run
//! use dataplane_netns::{Network, NetworkOptions, Privilege, Topology, prepare, sweep};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     if let Privilege::None { why } = prepare() {
//!         println!("no hosts of our own: {why}");
//!         return Ok(());
//!     }
//!     sweep()?; // what a killed run left
//!     let network = Network::build(&NetworkOptions::new(Topology::Pair))?;
//!     let [client, server] = network.hosts() else { unreachable!("a pair has two hosts") };
//!     let listener = server.run(|| std::net::UdpSocket::bind((server.ipv4(), 7000)))??;
//!     let socket = client.run(|| std::net::UdpSocket::bind((client.ipv4(), 0)))??;
//!     socket.send_to(b"hello", listener.local_addr()?)?; // a socket stays in its host
//!     Ok(())
//! }
//! ```
//!
//! Nothing stays behind. A namespace lives as long as a file that we hold open, so it goes with the process however that
//! ends; names under /run/netns, which root may ask for, are swept by the next run ([`sweep`]). A child process that
//! outlives us keeps the namespace in which it stands: ending children is their starter's business.
//!
//! A rate and a bounded queue come with [`Shaper`], by the kernel's own token bucket; delays and marks do not (see the soft switch).
//!
//! Absent by design: changing any interface of the machine, shelling out to `ip` and `tc`.
#![forbid(unsafe_code)]

mod error;
mod genl;
mod host;
mod link;
mod names;
mod namespace;
mod napi;
mod network;
mod offload;
mod plan;
mod privilege;
mod shape;
mod sysctl;
mod thread;
mod wire;

pub use error::NetError;
pub use host::{Card, Host, Interface, RouteMetrics, Switch, run_at};
pub use link::{LinkFacts, read_link};
pub use names::{SweepReport, sweep};
pub use namespace::Entered;
pub use napi::NapiThreads;
pub use network::{
    InterfaceOffloads, MTU_BYTES_DEFAULT, MTU_BYTES_MAX, MTU_BYTES_MIN, Names, Network, NetworkFacts, NetworkOptions,
};
pub use offload::{OffloadState, Offloads, read_offloads};
pub use plan::HOSTS_COUNT_MAX;
pub use privilege::{Privilege, prepare};
pub use shape::{Line, LineCounts, QueueLimit, Shaper, can_shape, has_queue_kind};

/// How hosts are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Two hosts, one veth pair.
    Pair,
    /// Every host on one bridge, which stands in a namespace of its own.
    Star {
        /// 2 to [`HOSTS_COUNT_MAX`].
        hosts: usize,
    },
    /// Host i joined to host i+1; those in the middle forward.
    Chain {
        /// 2 to [`HOSTS_COUNT_MAX`].
        hosts: usize,
    },
}
