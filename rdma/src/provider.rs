//! What every provider of RDMA offers, whoever moves the bytes, and handles of queue pairs whose type is their state.
//!
//! A handle can be asked only what its state can answer. This does not compile, because nothing can be sent before there is
//! a peer:
//!
//! ```compile_fail
//! use rdma::{Init, PostError, Provider, Qp, SendRequest};
//! fn early<P: Provider>(provider: &mut P, qp: &Qp<Init>, request: &SendRequest<'_>) -> Result<(), PostError> {
//!     provider.post_send(qp, request)
//! }
//! ```
//!
//! This does:
//!
//! ```
//! use rdma::{PostError, Provider, Qp, Rts, SendRequest};
//! fn ready<P: Provider>(provider: &mut P, qp: &Qp<Rts>, request: &SendRequest<'_>) -> Result<(), PostError> {
//!     provider.post_send(qp, request)
//! }
//! ```
//!
//! And a handle is used up by a step, so a queue pair that was taken down is not used by mistake:
//!
//! ```compile_fail
//! use rdma::{PostError, Provider, Qp, Rts, SendRequest};
//! fn late<P: Provider>(provider: &mut P, qp: Qp<Rts>, request: &SendRequest<'_>) -> Result<(), PostError> {
//!     let broken = provider.take_down(qp);
//!     provider.post_send(&qp, request)
//! }
//! ```

use std::{io, marker::PhantomData, net::IpAddr, sync::Arc, time::Duration};

use dataplane_waist::Instant;

use crate::{
    memory::Memory,
    qp::{PathMtu, QpOptions},
    region::{Access, MemoryKey, MemoryWindow, Pd, Registered},
    wire::{Psn, QpNumber},
    work::{Completion, PostError, ReceiveRequest, SendRequest},
};

/// Made, and nothing else.
#[derive(Debug)]
pub enum Reset {}
/// Takes receives; there is no peer.
#[derive(Debug)]
pub enum Init {}
/// Ready to receive: answers the peer.
#[derive(Debug)]
pub enum Rtr {}
/// Ready to send: asks of the peer, too.
#[derive(Debug)]
pub enum Rts {}
/// Broken or taken down: everything posted has been flushed.
#[derive(Debug)]
pub enum Error {}

/// States in which receives can be posted.
pub trait TakesReceives {}
impl TakesReceives for Init {}
impl TakesReceives for Rtr {}
impl TakesReceives for Rts {}

/// A queue pair in state `S`.
///
/// A peer can break a queue pair at any time; its handle does not know. What is posted is then refused
/// ([`PostError::Broken`]), completions say why, and [`Provider::take_down`] gives the handle of the state it is in.
#[derive(Debug, PartialEq, Eq)]
pub struct Qp<S> {
    number: QpNumber,
    state: PhantomData<fn() -> S>,
}

impl<S> Qp<S> {
    pub(crate) fn new(number: QpNumber) -> Qp<S> {
        Qp {
            number,
            state: PhantomData,
        }
    }

    /// Its number, by which completions name it.
    pub fn number(&self) -> QpNumber {
        self.number
    }
}

/// Where a queue pair is, as its owner tells the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QpAddress {
    /// The device's address: its GID is this, IPv4 mapped into IPv6.
    pub ip: IpAddr,
    /// The queue pair.
    pub qp: QpNumber,
    /// Where its sequence begins.
    pub start_psn: Psn,
    /// What it was made with.
    pub path_mtu: PathMtu,
}

/// Why a device cannot do it.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Too many queue pairs.
    #[error("the device has {queue_pairs_max} queue pairs, and no room for another one")]
    QueuePairs {
        /// How many there can be.
        queue_pairs_max: usize,
    },
    /// An option outside its bounds.
    #[error("{option} is {seen}: {why}")]
    Option {
        /// Which.
        option: &'static str,
        /// What it is.
        seen: u64,
        /// What it must be.
        why: &'static str,
    },
    /// The two ends would cut messages differently.
    #[error("the peer cuts messages into {theirs:?}, this end into {ours:?}; open both with one path MTU")]
    PathMtu {
        /// This end's.
        ours: PathMtu,
        /// The peer's.
        theirs: PathMtu,
    },
    /// Not every device can do it.
    #[error("{device} offers no {what}; do without, or use another device")]
    NotOffered {
        /// Which device.
        device: String,
        /// What it does not do.
        what: &'static str,
    },
    /// The system said no.
    #[error("{asked} failed: {error}")]
    System {
        /// What was tried.
        asked: &'static str,
        /// What came back.
        error: io::Error,
    },
}

/// A device that moves bytes into and out of peers' memory.
///
/// Poll-mode: nothing happens outside [`Provider::progress`], at either end, unless the provider says otherwise (a NIC needs no
/// process). All calls are bounded, and none allocates per packet.
pub trait Provider {
    /// As `dplab probe` lists it.
    fn name(&self) -> &'static str;
    /// The device's address.
    fn local(&self) -> IpAddr;
    /// The device's clock.
    fn now(&self) -> Instant;

    /// A new protection domain. One per peer is a good habit.
    fn create_pd(&mut self) -> Pd;
    /// Opens memory to whom `access` says, in `pd` alone.
    fn register(&mut self, pd: Pd, memory: Arc<Memory>, access: Access) -> Registered;
    /// Closes a region. False: there is none, or a memory window is bound to it.
    fn deregister(&mut self, key: MemoryKey) -> bool;
    /// Opens or closes a region, or a window that is bound, to some operations; those that arrive from now on meet it. False: there is
    /// none, or it is a window that was bound for less.
    fn set_access(&mut self, key: MemoryKey, access: Access) -> bool;

    /// A memory window of type 2B in `pd`, which opens nothing before it is bound ([`crate::Operation::Bind`]).
    ///
    /// # Errors
    /// [`ProviderError::NotOffered`], or no room.
    fn allocate_window(&mut self, pd: Pd) -> Result<MemoryWindow, ProviderError>;
    /// Gives a window back; if it is bound its key opens nothing from now on. False: there is none.
    fn free_window(&mut self, window: MemoryWindow) -> bool;

    /// A queue pair.
    ///
    /// # Errors
    /// Options out of bounds, or no room.
    fn create_qp(&mut self, pd: Pd, options: &QpOptions) -> Result<Qp<Reset>, ProviderError>;
    /// Where it is, for the peer.
    fn address<S>(&self, qp: &Qp<S>) -> Option<QpAddress>;
    /// RESET to INIT.
    fn init(&mut self, qp: Qp<Reset>) -> Qp<Init>;
    /// INIT to RTR.
    ///
    /// # Errors
    /// The peer cannot be one: another path MTU, another family of addresses; or the system refused.
    fn ready_to_receive(&mut self, qp: Qp<Init>, peer: &QpAddress) -> Result<Qp<Rtr>, ProviderError>;
    /// RTR to RTS.
    fn ready_to_send(&mut self, qp: Qp<Rtr>) -> Qp<Rts>;
    /// Whatever it is to ERROR: what is posted is flushed.
    fn take_down<S>(&mut self, qp: Qp<S>) -> Qp<Error>;
    /// ERROR to RESET, with a new start of its sequence. Completions that were not polled are forgotten, and windows that were bound
    /// through it are freed: they were its last peer's.
    fn reset(&mut self, qp: Qp<Error>) -> Qp<Reset>;
    /// The end of it, and of the windows that were bound through it.
    fn destroy<S>(&mut self, qp: Qp<S>);
    /// Whether it is broken, whatever its handle says.
    fn is_broken<S>(&self, qp: &Qp<S>) -> bool;

    /// Posts room for a message.
    ///
    /// # Errors
    /// [`PostError`]; nothing was posted.
    fn post_receive<S: TakesReceives>(&mut self, qp: &Qp<S>, request: ReceiveRequest) -> Result<(), PostError>;
    /// Posts an operation. It leaves with [`Provider::progress`].
    ///
    /// # Errors
    /// [`PostError`]; nothing was posted.
    fn post_send(&mut self, qp: &Qp<Rts>, request: &SendRequest<'_>) -> Result<(), PostError>;
    /// Hands finished requests to `sink`, at most `count_max`; says how many.
    fn poll_cq(&mut self, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize;
    /// As [`Provider::poll_cq`], of one queue pair alone.
    fn poll_qp<S>(&mut self, qp: &Qp<S>, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize;

    /// Rings the doorbell: sends what can be of what is posted, and looks for nothing. A device that sends by itself needs none.
    ///
    /// # Errors
    /// As [`Provider::progress`].
    fn flush(&mut self) -> io::Result<usize> {
        Ok(0)
    }
    /// Receives and sends what can be, without waiting; says how many packets it moved.
    ///
    /// # Errors
    /// What the system said; the device is then unusable. A packet that is lost is no error.
    fn progress(&mut self) -> io::Result<usize>;
    /// Lets the calling thread rest until a packet may be there or a timer has run out, at most `max`.
    ///
    /// # Errors
    /// As [`Provider::progress`].
    fn wait(&mut self, max: Duration) -> io::Result<()>;
}
