//! Memory that peers read and write without our CPU: the one-sided half of RDMA, whatever plays it.

use crate::{Peer, WrId};

/// A registered memory region and the queue pairs to its peers.
///
/// Semantics are those of a reliable connection (InfiniBand Architecture Specification vol. 1, §9.7): operations to one
/// peer complete in the order they were posted; nothing is promised between peers.
pub trait Window {
    /// Posts a write of `bytes` into `to`'s window. Completes through [`Window::poll_cq`].
    ///
    /// # Errors
    /// Only for what is known at once; the rest arrives as a [`Completion`].
    fn write(&mut self, to: Peer, at_bytes: u64, bytes: &[u8], wr_id: WrId) -> Result<(), WindowError>;
    /// Posts a read of `len_bytes` from `from`'s window; the bytes arrive with the completion.
    ///
    /// # Errors
    /// As [`Window::write`].
    fn read(&mut self, from: Peer, at_bytes: u64, len_bytes: u32, wr_id: WrId) -> Result<(), WindowError>;
    /// Hands finished work requests to `sink`; says how many.
    fn poll_cq(&mut self, sink: &mut dyn FnMut(Completion)) -> usize;
    /// Copies bytes out of the local window. They may be torn: a peer may write meanwhile.
    ///
    /// # Panics
    /// If the range is not inside the window.
    fn load(&self, at_bytes: u64, into: &mut [u8]);
    /// Lets `writer` alone write here (`None`: nobody), as Mu (OSDI'20 §5) fences an old leader.
    ///
    /// # Errors
    /// When the permission could not be changed; the old one then still stands.
    fn grant(&mut self, writer: Option<Peer>) -> Result<(), WindowError>;
}

/// A finished work request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which one.
    pub wr_id: WrId,
    /// How it went.
    pub result: Result<(), WindowError>,
}

/// Why a one-sided operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The send queue is full; poll the completion queue.
    #[error("the send queue is full")]
    Full,
    /// The range is not inside the peer's window.
    #[error("the range is outside the window")]
    Range,
    /// The peer does not let us write.
    #[error("the peer has not granted access")]
    Permission,
    /// The peer did not answer in time; the queue pair is in its error state.
    #[error("the peer does not answer")]
    Unreachable,
}
