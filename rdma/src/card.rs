//! A device with a processor of its own: what a NIC is to its host. The host's thread posts work and finds completions; another thread, the
//! card's, moves the packets.
//!
//! ```text
//!   host's thread                                            card's thread
//!   RdmaWindow ─▶ Host ── posted ──▶ ring ──▶ Card ─▶ Device ─▶ wire
//!                   ▲                                  │
//!                   └──── finished ◀── ring ◀──────────┘
//! ```
//!
//! What is rare (protection domains, regions, queue pairs) the host does to the device itself, for which the card lets go of it.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam::queue::ArrayQueue;
use dataplane_waist::Instant as DeviceInstant;

use crate::{
    memory::Memory,
    provider::{Error, Init, Provider, ProviderError, Qp, QpAddress, Reset, Rtr, Rts, TakesReceives},
    qp::QpOptions,
    region::{Access, MemoryKey, MemoryWindow, Pd, Registered},
    wire::QpNumber,
    work::{Completion, CompletionError, Data, Operation, PostError, ReceiveRequest, SendRequest},
};

/// Requests under way between a host and its card, and completions that the host has not taken.
const ENTRIES_COUNT: usize = 4096;

/// What the host's and the card's thread share.
#[derive(Debug)]
struct Shared<P> {
    device: Mutex<Driven<P>>,
    /// How many wait for the device, so that a card that never rests lets go of it.
    waiting_count: AtomicUsize,
    posted: ArrayQueue<Posted>,
    finished: ArrayQueue<Completion>,
    has_failed: AtomicBool,
}

/// The device, and what is with it on the card.
#[derive(Debug)]
struct Driven<P> {
    provider: P,
    /// There was no room for it at the device.
    kept: Option<Posted>,
    /// What the system said when the device failed, until the host is told.
    failure: Option<io::Error>,
}

#[derive(Clone, Copy, Debug)]
struct Posted {
    qp: QpNumber,
    request: SendRequest<'static>,
}

/// The host's end: a provider whose packets somebody else moves. What does not fit its queue pair is refused by a completion, not at once.
#[derive(Debug)]
pub struct Host<P> {
    shared: Arc<Shared<P>>,
    name: &'static str,
    local: IpAddr,
    /// Those of which an error was told: they take nothing any more.
    broken: Vec<QpNumber>,
    /// Taken from the card while another queue pair's were looked for.
    told: VecDeque<Completion>,
}

/// The card's end.
#[derive(Debug)]
pub struct Card<P> {
    shared: Arc<Shared<P>>,
}

/// A card that has its device, until it is dropped.
#[derive(Debug)]
pub struct Running<'a, P> {
    card: &'a Card<P>,
    device: MutexGuard<'a, Driven<P>>,
}

/// Gives `device` a card: whoever drives that moves its packets.
pub fn split<P: Provider>(device: P) -> (Host<P>, Card<P>) {
    let (name, local) = (device.name(), device.local());
    let shared = Arc::new(Shared {
        device: Mutex::new(Driven {
            provider: device,
            kept: None,
            failure: None,
        }),
        waiting_count: AtomicUsize::new(0),
        posted: ArrayQueue::new(ENTRIES_COUNT),
        finished: ArrayQueue::new(ENTRIES_COUNT),
        has_failed: AtomicBool::new(false),
    });
    let host = Host {
        shared: Arc::clone(&shared),
        name,
        local,
        broken: Vec::new(),
        told: VecDeque::new(),
    };
    (host, Card { shared })
}

impl<P> Shared<P> {
    fn device(&self) -> MutexGuard<'_, Driven<P>> {
        self.device.lock().expect("whoever had the device did not panic")
    }
}

impl<P: Provider> Card<P> {
    /// Takes the device, when no host wants it.
    ///
    /// # Panics
    /// If the host panicked while it had the device.
    pub fn run(&self) -> Running<'_, P> {
        while self.shared.waiting_count.load(Ordering::Acquire) > 0 {
            thread::yield_now();
        }
        Running {
            card: self,
            device: self.shared.device(),
        }
    }
}

impl<P: Provider> Running<'_, P> {
    /// Takes in and answers what has come, tells the host what is finished, and sends one of the requests that it has posted. What has come
    /// is first: it may be all that somebody waits for.
    pub fn look(&mut self) {
        let shared = &*self.card.shared;
        let moved = self.device.provider.progress();
        self.device.tell(&shared.finished);
        let sent = self.device.send_next(shared);
        if let Err(error) = moved.and(sent) {
            self.device.failure = Some(error);
            shared.has_failed.store(true, Ordering::Release);
        }
    }
}

impl<P: Provider> Driven<P> {
    /// Tells the host what is finished, as much as there is room for.
    fn tell(&mut self, finished: &ArrayQueue<Completion>) {
        let room_count = finished.capacity() - finished.len();
        self.provider.poll_cq(room_count, &mut |completion| {
            finished.push(completion).expect("there was room for as many");
        });
    }

    /// Sends the next of what the host has posted; says how many that were.
    fn send_next(&mut self, shared: &Shared<P>) -> io::Result<usize> {
        let Some(next) = self.kept.take().or_else(|| shared.posted.pop()) else {
            return Ok(0);
        };
        match self.provider.post_send(&Qp::new(next.qp), &next.request) {
            Ok(()) => {
                self.provider.flush()?;
                return Ok(1);
            }
            Err(PostError::Full) => self.kept = Some(next),
            Err(error) => self.kept = refuse(&shared.finished, next, error),
        }
        Ok(0)
    }
}

/// Tells the host what its device did not take. Gives it back where there is no room to say so.
fn refuse(finished: &ArrayQueue<Completion>, posted: Posted, error: PostError) -> Option<Posted> {
    let completion = Completion {
        qp: posted.qp,
        wr_id: posted.request.wr_id,
        kind: posted.request.operation.kind(),
        len_bytes: 0,
        imm: None,
        invalidated: None,
        result: Err(match error {
            PostError::Local(refusal) => CompletionError::LocalProtection(refusal),
            PostError::Bind(error) => CompletionError::Bind(error),
            PostError::Length { .. } => CompletionError::Length,
            PostError::Refused { errno } => CompletionError::LocalOperation { status: errno as u32 },
            PostError::Full | PostError::Broken | PostError::NoQueuePair => CompletionError::Flushed,
        }),
    };
    finished.push(completion).is_err().then_some(posted)
}

impl<P: Provider> Host<P> {
    /// Lets `what` be done to the device, while the card has not got it.
    fn with<T>(&self, what: impl FnOnce(&mut P) -> T) -> T {
        self.with_driven(|driven| what(&mut driven.provider))
    }

    fn with_driven<T>(&self, what: impl FnOnce(&mut Driven<P>) -> T) -> T {
        self.shared.waiting_count.fetch_add(1, Ordering::AcqRel);
        let mut driven = self.shared.device();
        self.shared.waiting_count.fetch_sub(1, Ordering::AcqRel);
        what(&mut driven)
    }

    /// Nothing that was asked of a queue pair, or told of it, outlives it: its number may be in use again.
    fn forget(&mut self, number: QpNumber) {
        let shared = Arc::clone(&self.shared);
        self.with_driven(|driven| {
            driven.kept = driven.kept.filter(|posted| posted.qp != number);
            for _ in 0..shared.posted.len() {
                if let Some(posted) = shared.posted.pop()
                    && posted.qp != number
                {
                    shared.posted.push(posted).expect("there was room for it");
                }
            }
            // What it still has to say is said now, so that nothing of it comes later.
            driven.tell(&shared.finished);
        });
        self.told.extend(std::iter::from_fn(|| shared.finished.pop()));
        self.told.retain(|completion| completion.qp != number);
        self.broken.retain(|broken| *broken != number);
    }

    /// A queue pair that has told an error is broken.
    fn note(&mut self, completion: &Completion) {
        if completion.result.is_err() && !self.broken.contains(&completion.qp) {
            self.broken.push(completion.qp);
        }
    }
}

impl<P: Provider> Provider for Host<P> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn local(&self) -> IpAddr {
        self.local
    }

    fn now(&self) -> DeviceInstant {
        self.with(|device| device.now())
    }

    fn create_pd(&mut self) -> Pd {
        self.with(P::create_pd)
    }

    fn register(&mut self, pd: Pd, memory: Arc<Memory>, access: Access) -> Registered {
        self.with(|device| device.register(pd, memory, access))
    }

    fn deregister(&mut self, key: MemoryKey) -> bool {
        self.with(|device| device.deregister(key))
    }

    fn set_access(&mut self, key: MemoryKey, access: Access) -> bool {
        self.with(|device| device.set_access(key, access))
    }

    fn allocate_window(&mut self, pd: Pd) -> Result<MemoryWindow, ProviderError> {
        self.with(|device| device.allocate_window(pd))
    }

    fn free_window(&mut self, window: MemoryWindow) -> bool {
        self.with(|device| device.free_window(window))
    }

    fn create_qp(&mut self, pd: Pd, options: &QpOptions) -> Result<Qp<Reset>, ProviderError> {
        if options.inline_bytes_max > 0 {
            return Err(ProviderError::Option {
                option: "inline_bytes_max",
                seen: options.inline_bytes_max as u64,
                why: "it is 0 with a card, which takes bytes from registered memory alone",
            });
        }
        self.with(|device| device.create_qp(pd, options))
    }

    fn address<S>(&self, qp: &Qp<S>) -> Option<QpAddress> {
        self.with(|device| device.address(qp))
    }

    fn init(&mut self, qp: Qp<Reset>) -> Qp<Init> {
        self.with(|device| device.init(qp))
    }

    fn ready_to_receive(&mut self, qp: Qp<Init>, peer: &QpAddress) -> Result<Qp<Rtr>, ProviderError> {
        self.with(|device| device.ready_to_receive(qp, peer))
    }

    fn ready_to_send(&mut self, qp: Qp<Rtr>) -> Qp<Rts> {
        self.with(|device| device.ready_to_send(qp))
    }

    fn take_down<S>(&mut self, qp: Qp<S>) -> Qp<Error> {
        self.with(|device| device.take_down(qp))
    }

    fn reset(&mut self, qp: Qp<Error>) -> Qp<Reset> {
        self.forget(qp.number());
        self.with(|device| device.reset(qp))
    }

    fn destroy<S>(&mut self, qp: Qp<S>) {
        self.forget(qp.number());
        self.with(|device| device.destroy(qp));
    }

    fn is_broken<S>(&self, qp: &Qp<S>) -> bool {
        self.with(|device| device.is_broken(qp))
    }

    fn post_receive<S: TakesReceives>(&mut self, qp: &Qp<S>, request: ReceiveRequest) -> Result<(), PostError> {
        self.with(|device| device.post_receive(qp, request))
    }

    /// The device has not seen it when this returns: what it does not take it says by a completion.
    fn post_send(&mut self, qp: &Qp<Rts>, request: &SendRequest<'_>) -> Result<(), PostError> {
        if self.broken.contains(&qp.number()) {
            return Err(PostError::Broken);
        }
        let request = SendRequest {
            wr_id: request.wr_id,
            operation: kept(&request.operation)?,
            signalled: request.signalled,
        };
        let posted = Posted {
            qp: qp.number(),
            request,
        };
        self.shared.posted.push(posted).map_err(|_| PostError::Full)
    }

    fn poll_cq(&mut self, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        let mut count = 0;
        while count < count_max
            && let Some(completion) = self.told.pop_front().or_else(|| self.shared.finished.pop())
        {
            count += 1;
            self.note(&completion);
            sink(completion);
        }
        count
    }

    /// Does not wait for the card: before there is traffic nobody may drive it, and what is asked of the device alone (a memory window to
    /// bind) is done here.
    fn poll_qp<S>(&mut self, qp: &Qp<S>, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        let shared = Arc::clone(&self.shared);
        let sent = self.with_driven(|driven| {
            let sent = driven.send_next(&shared);
            driven.tell(&shared.finished);
            sent.map_err(|error| driven.failure = Some(error))
        });
        shared.has_failed.fetch_or(sent.is_err(), Ordering::AcqRel);
        self.told.extend(std::iter::from_fn(|| shared.finished.pop()));
        let mut count = 0;
        while count < count_max
            && let Some(place) = self.told.iter().position(|completion| completion.qp == qp.number())
            && let Some(completion) = self.told.remove(place)
        {
            count += 1;
            self.note(&completion);
            sink(completion);
        }
        count
    }

    /// The card does it.
    fn progress(&mut self) -> io::Result<usize> {
        if !self.shared.has_failed.load(Ordering::Acquire) {
            return Ok(0);
        }
        match self.shared.device().failure.take() {
            Some(error) => Err(error),
            None => Err(io::Error::other("the device has failed before; open a new one")),
        }
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        let begun = Instant::now();
        while self.shared.finished.is_empty() && begun.elapsed() < max {
            thread::yield_now();
        }
        Ok(())
    }
}

/// The operation, as one that lends nothing.
fn kept(operation: &Operation<'_>) -> Result<Operation<'static>, PostError> {
    let data = |data: &Data<'_>| match data {
        Data::Local(local) => Ok(Data::Local(*local)),
        Data::Inline(bytes) => Err(PostError::Length {
            len_bytes: bytes.len() as u64,
            bytes_max: 0,
        }),
    };
    Ok(match operation {
        Operation::Send { data: sent, imm } => Operation::Send {
            data: data(sent)?,
            imm: *imm,
        },
        Operation::SendInvalidate { data: sent, rkey } => Operation::SendInvalidate {
            data: data(sent)?,
            rkey: *rkey,
        },
        Operation::Write { data: written, to, imm } => Operation::Write {
            data: data(written)?,
            to: *to,
            imm: *imm,
        },
        &Operation::Read { into, from } => Operation::Read { into, from },
        &Operation::CompareSwap {
            into,
            at,
            compare,
            swap,
        } => Operation::CompareSwap {
            into,
            at,
            compare,
            swap,
        },
        &Operation::FetchAdd { into, at, add } => Operation::FetchAdd { into, at, add },
        &Operation::Bind(bind) => Operation::Bind(bind),
        &Operation::Invalidate { key } => Operation::Invalidate { key },
    })
}
