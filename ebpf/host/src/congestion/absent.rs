//! In place of the controllers where this build has no libbpf: the same names, and one answer.

use super::{DctcpAck, DctcpState, DctcpTotals};
use crate::HostError;

fn not_built() -> HostError {
    HostError::NotBuilt {
        what: "a congestion controller as a BPF program",
        feature: "bpf-cc",
    }
}

/// DCTCP, registered with the kernel. Not in this build.
#[derive(Debug)]
pub struct Dctcp {
    never: std::convert::Infallible,
}

impl Dctcp {
    /// Registers it.
    ///
    /// # Errors
    /// Always: this build has no libbpf.
    pub fn load() -> Result<Dctcp, HostError> {
        Err(not_built())
    }

    /// Its name for `TCP_CONGESTION`.
    pub fn name(&self) -> &str {
        match self.never {}
    }

    /// What its connections saw so far.
    ///
    /// # Errors
    /// Never.
    pub fn totals(&self) -> Result<DctcpTotals, HostError> {
        match self.never {}
    }
}

/// The controller's arithmetic alone. Not in this build.
#[derive(Debug)]
pub struct DctcpReplay {
    never: std::convert::Infallible,
}

impl DctcpReplay {
    /// A connection that begins with `window_segments` at sequence number 0.
    ///
    /// # Errors
    /// Always: this build has no libbpf.
    pub fn begin(_window_segments: u32) -> Result<DctcpReplay, HostError> {
        Err(not_built())
    }

    /// Works an ack in.
    ///
    /// # Errors
    /// Never.
    pub fn ack(&mut self, _ack: &DctcpAck) -> Result<DctcpState, HostError> {
        match self.never {}
    }
}
