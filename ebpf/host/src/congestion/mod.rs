//! TCP congestion controllers as programs (BPF struct_ops), for kernels that were built without them: DCTCP (RFC 8257).
//!
//! aya 0.14 loads no struct_ops, libbpf does: with the feature `bpf-cc`, which needs a C compiler and the headers of libelf and zlib
//! (Debian: libelf-dev, zlib1g-dev), but no BPF toolchain; the object is committed (`ebpf/cc`, built by `scripts/build-cc`). Without
//! the feature everything here answers [`HostError::NotBuilt`](crate::HostError::NotBuilt).
//!
//! A controller is registered in the whole kernel, for all network namespaces, under a name that holds this process's id. Its
//! registration is an open file of this process, so it goes with it, however that ends; a connection that still uses it then keeps
//! the programs until it closes. It is not on the list of those that every user may choose (`tcp_allowed_congestion_control`).

#[cfg(not(feature = "bpf-cc"))]
#[path = "absent.rs"]
mod loaded;
#[cfg(feature = "bpf-cc")]
mod loaded;

pub use loaded::{Dctcp, DctcpReplay};

/// Fractions of the DCTCP program's estimate: its alpha is a whole number of these, from 0 to this many (`ALPHA_ONE`, dctcp.bpf.c).
pub const ALPHA_ONE: u32 = 1 << 20;

/// What all connections of one [`Dctcp`] saw together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DctcpTotals {
    /// Acks that senders worked in.
    pub acks_count: u64,
    /// Those of them that echoed a mark.
    pub marked_acks_count: u64,
    /// Windows reduced by alpha / 2.
    pub mark_reductions_count: u64,
    /// Windows halved, for a loss or a timer.
    pub loss_reductions_count: u64,
    /// Segments that receivers saw marked.
    pub ce_segments_count: u64,
    /// Times that the kernel's window was found above the controller's, and taken back.
    pub taken_back_count: u64,
}

/// An ack for [`DctcpReplay`]: what the kernel would have told the controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DctcpAck {
    /// Bytes that it newly covers.
    pub acked_bytes: u64,
    /// First byte not acknowledged, as a sequence number.
    pub una: u32,
    /// First byte never sent.
    pub nxt: u32,
    /// Segments newly known to have arrived.
    pub delivered_segments: u32,
    /// Segments in flight after it.
    pub in_flight_segments: u32,
    /// Most segments that were out in the round before.
    pub packets_out_max: u32,
    /// Segments sent since fast recovery began.
    pub prr_out_segments: u32,
    /// What the kernel does about losses.
    pub recovery: DctcpRecovery,
    /// It carries ECE.
    pub is_marked: bool,
}

/// What the kernel does about losses: those states of `enum tcp_ca_state` that the controller tells apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DctcpRecovery {
    /// Nothing.
    #[default]
    Open,
    /// Fast recovery.
    Recovery,
    /// The retransmission timer fired.
    Loss,
}

/// A replayed connection after an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DctcpState {
    /// Segments that may be in flight now.
    pub window_segments: u32,
    /// The slow start threshold.
    pub ssthresh_segments: u32,
    /// The estimate, of [`ALPHA_ONE`].
    pub alpha: u32,
}
