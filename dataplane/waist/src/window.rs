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
    /// Hands finished work requests to `sink`; says how many. Each one that was posted is finished at some time, whatever becomes of the peer
    /// and of the connection, and changes nothing afterwards.
    fn poll_cq(&mut self, sink: &mut dyn FnMut(Completion)) -> usize;
    /// Makes `into` the bytes that a finished read has brought; once. Says whether there were any.
    fn take_read(&mut self, wr_id: WrId, into: &mut Vec<u8>) -> bool;
    /// Copies bytes out of the local window. They may be torn: a peer may write meanwhile.
    ///
    /// # Panics
    /// If the range is not inside the window.
    fn load(&self, at_bytes: u64, into: &mut [u8]);
    /// Copies bytes into the local window, words of 8 bytes in rising order; nobody's grant stands in the way. A peer that reads
    /// meanwhile may see a part of them.
    ///
    /// # Panics
    /// As [`Window::load`].
    fn store(&mut self, at_bytes: u64, bytes: &[u8]);
    /// Lets `writer` alone write here (`None`: nobody), as Mu (OSDI'20 §5) fences an old leader.
    ///
    /// A fence: nothing that anybody else has written becomes visible after this returns. A write that had begun is by then all
    /// there, or its rest never will be, and its writer is told [`WindowError::Permission`].
    ///
    /// It is let in who has a connection here, not what it writes from now on: what `writer` posted while an earlier grant was its own, and
    /// what has been on the way since (sent again after a loss, say), lands under this one, over whatever another writer has put there in between. So
    /// whoever asks for a grant waits first until everything that it has posted here is finished ([`Window::poll_cq`]).
    ///
    /// # Errors
    /// When the permission could not be changed; the old one then still stands.
    fn grant(&mut self, writer: Option<Peer>) -> Result<(), WindowError>;
    /// Lets every peer write here until the next [`Window::grant`]: a place for requests, as Mu's background plane (§3.2).
    ///
    /// # Errors
    /// As [`Window::grant`].
    fn open(&mut self) -> Result<(), WindowError>;
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
