//! L2: the user-space side of the XDP programs: loads one, runs it on single packets, attaches it to an interface, and reads
//! what it counts.
//!
//! ```no_run
//! use dataplane_wire::{ethernet::Mac, frame::Kind};
//! use ebpf_host::{Loaded, Mode, Program, Settings, kinds, refuse_default_route};
//!
//! fn main() -> Result<(), ebpf_host::HostError> {
//!     let settings = Settings {
//!         local_mac: Mac([2, 0, 0, 0, 0, 2]),
//!         local_ipv4: Some([192, 0, 2, 2].into()),
//!         local_port: 4001,
//!         kinds: kinds(&[Kind::EchoRequest]),
//!         ..Settings::default()
//!     };
//!     refuse_default_route("eth1", false)?; // an interface of the machine, not of the lab
//!     let attachment = Loaded::load(Program::Echo, &settings)?.attach("eth1", Mode::Native)?;
//!     println!("{}", attachment.counts()?);
//!     Ok(()) // detached here, and also if the process is killed
//! }
//! ```
//!
//! The objects are part of this library (`ebpf/objects`, built by `scripts/build-ebpf`): who builds and runs the lab needs no
//! BPF toolchain. What programs and this crate agree on is `ebpf-abi`.
//!
//! Nothing stays behind. A program hangs on its interface by a BPF link, which is an open file of this process: when that is
//! closed, by a drop or by the death of the process however that comes, the kernel detaches the program and frees it with
//! its maps. Nothing is pinned.
//!
//! Absent by design: AF_XDP sockets (`dataplane-ports`), attaching programs of others ([`Foreign`] only runs them on single
//! packets), replacing a program that somebody else attached.
#![deny(unsafe_code)]

mod attach;
mod btf;
pub mod congestion;
mod counts;
mod error;
mod foreign;
mod guard;
mod hub;
mod load;
mod mark;
mod objects;
mod offload;
mod probe;
pub mod quorum;
mod settings;
#[allow(
    unsafe_code,
    reason = "the one place that maps the kernel's memory, and asks bpf(2) itself"
)]
mod sys;

pub use attach::{Attachment, Mode};
pub use counts::Counts;
pub use ebpf_abi::{Count, Lossy, Program, lost};
pub use error::HostError;
pub use foreign::Foreign;
pub use guard::refuse_default_route;
pub use hub::{Hub, HubPort};
pub use load::{Cost, FRAME_BYTES_MIN, Loaded, MTU_BYTES_OF_ONE_BUFFER, TestRun, Verdict};
pub use mark::{EcnMarker, MarkCounts, MarkOptions, probe_mark};
pub use probe::{probe, probe_offload, takes_one_buffer_only};
pub use settings::{Settings, kinds};
