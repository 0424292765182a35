//! L2: RDMA. Memory that peers read and write, queue pairs, completions; below them our own RoCEv2 endpoint, which
//! speaks what NICs and the kernel's rdma_rxe speak.
//!
//! ```text
//!   who asks ─▶ Provider ─▶ Device ─▶ Endpoint ─▶ queue pair: requester, responder      no I/O
//!                 │           │          └─ regions: who may do what to which memory    from here on
//!                 │           └─▶ Wire: a socket, shared memory, a test
//!                 ├───────▶ verbs: a NIC, or the kernel's rdma_rxe
//!                 └───────▶ card: any of these, driven by a thread of its own, as a NIC is
//! ```
//!
//! Read [`wire`] first: what stands in a packet. Then [`Provider`]: what can be asked.
#![deny(unsafe_code)]

pub mod card;
mod device;
mod endpoint;
mod faulty;
pub mod handshake;
mod memory;
mod port;
mod provider;
mod qp;
mod random;
mod region;
pub mod roce;
pub mod shm;
mod sys;
pub mod verbs;
mod window;
pub mod wire;
mod work;

pub use device::{Device, PACKET_BYTES_MAX, Wire};
pub use endpoint::{Endpoint, EndpointCounters, QUEUE_PAIRS_MAX, Randomness, Transmit};
pub use faulty::{Faults, Faulty};
pub use memory::{Memory, WORD_BYTES};
pub use port::{RdmaPort, RdmaPortOptions};
pub use provider::{Error, Init, Provider, ProviderError, Qp, QpAddress, Reset, Rtr, Rts, TakesReceives};
pub use qp::{
    Due, MESSAGE_BYTES_MAX, MESSAGE_PACKETS_MAX, PathMtu, QpCounters, QpOptions, RNR_RETRY_FOREVER, rnr_delay,
};
pub use random::system_randomness;
pub use region::{Access, Bind, BindError, Local, MemoryKey, MemoryWindow, Pd, Refusal, Registered};
pub use window::{Connected, PeerKeys, Prepared, RdmaWindow, WindowOptions};
pub use work::{Completion, CompletionError, Data, Kind, Operation, PostError, ReceiveRequest, Remote, SendRequest};
