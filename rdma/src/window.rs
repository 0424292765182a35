//! [`Window`] over any provider: a region that each peer may reach under a key of its own, in a protection domain of its own, through its
//! own queue pair alone where the device offers memory windows.
//!
//! What is written and what is read passes through a piece of memory of this end's that stays as it is until the operation is
//! done, so a caller's bytes are its own again at once.

use std::{collections::VecDeque, io, net::TcpStream, sync::Arc, time::Instant};

use dataplane_waist::{Completion, Peer, Window, WindowError, WrId, middleware::ClusterKey};

use crate::{
    handshake::{self, HANDSHAKE_MAX, HandshakeError, Offer, Role},
    memory::Memory,
    provider::{Init, Provider, ProviderError, Qp, QpAddress, Rts},
    qp::QpOptions,
    region::{Access, Bind, Local, MemoryKey, Pd, Registered},
    work::{CompletionError, Data, Operation, PostError, Remote, SendRequest},
};

/// How large a window is, and what may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowOptions {
    /// The window's length.
    pub window_bytes: usize,
    /// The longest write or read.
    pub request_bytes_max: usize,
    /// Requests under way to one peer, or finished and not polled.
    pub requests_max: usize,
    /// How queue pairs behave; their queues are made as long as `requests_max`.
    pub qp: QpOptions,
    /// What opens this window to a peer.
    pub keys: PeerKeys,
}

/// Whose key a peer is told. In either case its queue pair has a protection domain of its own, so that a key which another peer stole opens
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKeys {
    /// A memory window's, bound to the peer's queue pair; the region behind it is shut to peers, whoever knows its key. Where the device
    /// offers no memory windows, the region's.
    BoundWhereOffered,
    /// The region's.
    Region,
}

impl Default for WindowOptions {
    fn default() -> WindowOptions {
        WindowOptions {
            window_bytes: 1 << 20,
            request_bytes_max: 16 << 10,
            requests_max: 64,
            qp: QpOptions::default(),
            keys: PeerKeys::BoundWhereOffered,
        }
    }
}

/// How one peer reaches this window.
#[derive(Clone, Copy, Debug)]
struct Opening {
    /// All of the memory, in the peer's domain.
    region: MemoryKey,
    /// What the peer is told.
    told: Registered,
    /// What is bound to the peer's queue pair; `None`: the region is what it is told.
    bind: Option<Bind>,
}

impl Opening {
    fn close<P: Provider>(&self, provider: &mut P) {
        if let Some(bind) = &self.bind {
            provider.free_window(bind.window);
        }
        provider.deregister(self.region);
    }

    /// Binds what is to be bound, and waits for it. Nothing is taken in meanwhile: what the peer may do is not settled.
    fn open<P: Provider>(&self, provider: &mut P, qp: &Qp<Rts>) -> Result<(), HandshakeError> {
        let Some(bind) = self.bind else {
            return Ok(());
        };
        let request = SendRequest {
            wr_id: WrId(0),
            operation: Operation::Bind(bind),
            signalled: true,
        };
        provider.post_send(qp, &request).map_err(HandshakeError::Posting)?;
        let begun = Instant::now();
        let mut done = None;
        let asked = "binding a memory window";
        let failed = |error| HandshakeError::Provider(ProviderError::System { asked, error });
        while done.is_none() {
            provider.flush().map_err(failed)?;
            provider.poll_qp(qp, 1, &mut |completion| done = Some(completion.result));
            if begun.elapsed() > HANDSHAKE_MAX {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
        }
        done.unwrap_or(Ok(())).map_err(HandshakeError::Binding)?;
        // It was bound for the most that it will ever be open to.
        provider.set_access(self.told.key, READERS);
        Ok(())
    }
}

/// This end's half of a connection before the other is known: what the handshake tells, and what comes of it.
#[derive(Debug)]
pub struct Prepared {
    /// To be connected.
    pub qp: Qp<Init>,
    /// To be told.
    pub offer: Offer,
    own: Opening,
    slots: Registered,
    memory: Arc<Memory>,
}

/// A connection, ready to be used.
#[derive(Debug)]
pub struct Connected {
    qp: Qp<Rts>,
    theirs: Offer,
    own: Opening,
    slots: Registered,
    memory: Arc<Memory>,
}

impl Prepared {
    /// Connects by [`handshake::establish`] over `stream`.
    ///
    /// # Errors
    /// As there; this half is gone then.
    pub fn establish<P: Provider>(
        self,
        provider: &mut P,
        by: (&TcpStream, Role, &ClusterKey),
    ) -> Result<Connected, HandshakeError> {
        let Prepared {
            qp,
            offer,
            own,
            slots,
            memory,
        } = self;
        let open = |provider: &mut P, qp: &Qp<Rts>| own.open(provider, qp);
        match handshake::establish_open(provider, qp, &offer, by, open) {
            Ok((qp, theirs)) => Ok(Connected {
                qp,
                theirs,
                own,
                slots,
                memory,
            }),
            Err(error) => {
                own.close(provider);
                provider.deregister(slots.key);
                Err(error)
            }
        }
    }
}

#[derive(Debug)]
struct Link {
    qp: Qp<Rts>,
    /// What the peer opened.
    theirs: Registered,
    own: Opening,
    /// Where this peer's requests pass through.
    slots: Registered,
    memory: Arc<Memory>,
    free: Vec<u32>,
    /// By slot: what is under way in it.
    pending: Box<[Pending]>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    wr_id: WrId,
    /// Of a read.
    read_bytes: Option<u32>,
}

/// Bytes that a read has brought, until they are fetched.
#[derive(Debug)]
struct Brought {
    wr_id: WrId,
    peer: usize,
    slot: u32,
    len_bytes: u32,
}

/// A registered memory region and the queue pairs to its peers.
#[derive(Debug)]
pub struct RdmaWindow<P> {
    provider: P,
    options: WindowOptions,
    memory: Arc<Memory>,
    links: Vec<Option<Link>>,
    writers: Writers,
    brought: VecDeque<Brought>,
    /// Under way on a connection when another took its place, and not handed out yet.
    lost: Vec<WrId>,
    failed: Option<io::Error>,
}

/// Who may write into this window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    One(Option<Peer>),
    Everybody,
}

impl Writers {
    fn access(self, peer: Peer) -> Access {
        match self {
            Writers::Everybody => WRITER,
            Writers::One(writer) if writer == Some(peer) => WRITER,
            Writers::One(_) => READERS,
        }
    }
}

const READERS: Access = Access {
    local_write: false,
    remote_read: true,
    remote_write: false,
    remote_atomic: false,
    bind: false,
};
const WRITER: Access = Access {
    local_write: false,
    remote_read: true,
    remote_write: true,
    remote_atomic: true,
    bind: false,
};

impl<P: Provider> RdmaWindow<P> {
    /// A window of zeroes that nobody may write and that has no peers.
    pub fn new(provider: P, options: WindowOptions) -> RdmaWindow<P> {
        RdmaWindow {
            provider,
            options,
            memory: Memory::new(options.window_bytes),
            links: Vec::new(),
            writers: Writers::One(None),
            brought: VecDeque::new(),
            lost: Vec::new(),
            failed: None,
        }
    }

    /// The device below.
    pub fn provider(&self) -> &P {
        &self.provider
    }

    /// The device below, for the handshake.
    pub fn provider_mut(&mut self) -> &mut P {
        &mut self.provider
    }

    /// What the system said when the device failed; from then on every peer is unreachable.
    pub fn failure(&self) -> Option<&io::Error> {
        self.failed.as_ref()
    }

    /// Makes this end's half of a connection to a peer: a protection domain, a key for this window in it, a queue pair.
    ///
    /// # Errors
    /// The device has no room.
    pub fn prepare(&mut self) -> Result<Prepared, ProviderError> {
        let options = self.options;
        let pd = self.provider.create_pd();
        let qp_options = QpOptions {
            send_requests_max: options.requests_max,
            inline_bytes_max: 0,
            ..options.qp
        };
        let qp = self.provider.create_qp(pd, &qp_options)?;
        let own = match self.opening(pd) {
            Ok(own) => own,
            Err(error) => {
                self.provider.destroy(qp);
                return Err(error);
            }
        };
        let qp = self.provider.init(qp);
        let slots_memory = Memory::new(options.request_bytes_max * options.requests_max);
        let slots = self.provider.register(pd, Arc::clone(&slots_memory), Access::LOCAL);
        let address: QpAddress = self.provider.address(&qp).expect("it was made above");
        let offer = Offer {
            qp: address,
            responder_reads_max: options.qp.responder_reads_max.min(255) as u8,
            region: own.told,
        };
        Ok(Prepared {
            qp,
            offer,
            own,
            slots,
            memory: slots_memory,
        })
    }

    /// Registers this window for one peer, open to its reads at most.
    fn opening(&mut self, pd: Pd) -> Result<Opening, ProviderError> {
        let window = match self.options.keys {
            PeerKeys::Region => None,
            PeerKeys::BoundWhereOffered => match self.provider.allocate_window(pd) {
                Ok(window) => Some(window),
                Err(ProviderError::NotOffered { .. }) => None,
                Err(error) => return Err(error),
            },
        };
        // For the most that it will ever be open to, which a NIC keeps for good, and then closed.
        let (made_for, open_for) = match window {
            Some(_) => (Access::WINDOWS, Access::WINDOWS),
            None => (WRITER, READERS),
        };
        let region = self.provider.register(pd, Arc::clone(&self.memory), made_for);
        self.provider.set_access(region.key, open_for);
        let bind = window.map(|window| Bind {
            window,
            key_part: window.first_part(),
            region: region.key,
            at_bytes: 0,
            len_bytes: region.len_bytes,
            access: WRITER,
        });
        Ok(Opening {
            region: region.key,
            told: bind.map_or(region, |bind| bind.opens(&region)),
            bind,
        })
    }

    /// Takes the connection that came of `prepared`, as a new peer.
    pub fn join(&mut self, connected: Connected) -> Peer {
        let peer = Peer(self.links.len() as u32);
        let link = self.link(connected, peer);
        self.links.push(Some(link));
        peer
    }

    /// Takes it in the place of a peer whose connection broke. What was under way there, and has not been handed out before, is handed out
    /// next, as [`WindowError::Unreachable`].
    ///
    /// # Panics
    /// If there is no such peer.
    pub fn rejoin(&mut self, peer: Peer, connected: Connected) {
        let index = peer.0 as usize;
        if let Some(old) = self.links[index].take() {
            let is_brought = |slot: u32| self.brought.iter().any(|it| (it.peer, it.slot) == (index, slot));
            let slots = (0..).zip(&old.pending);
            let under_way = slots.filter(|&(slot, _)| !old.free.contains(&slot) && !is_brought(slot));
            self.lost.extend(under_way.map(|(_, pending)| pending.wr_id));
            old.own.close(&mut self.provider);
            self.provider.deregister(old.slots.key);
            self.provider.destroy(old.qp);
        }
        self.brought.retain(|brought| brought.peer != index);
        self.links[index] = Some(self.link(connected, peer));
    }

    fn link(&mut self, connected: Connected, peer: Peer) -> Link {
        let Connected {
            qp,
            theirs,
            own,
            slots,
            memory,
        } = connected;
        // Where it cannot be opened as it should be, it stays open to readers.
        self.provider.set_access(own.told.key, self.writers.access(peer));
        let requests_max = self.options.requests_max as u32;
        Link {
            qp,
            theirs: theirs.region,
            own,
            slots,
            memory,
            free: (0..requests_max).rev().collect(),
            pending: vec![
                Pending {
                    wr_id: WrId(0),
                    read_bytes: None
                };
                requests_max as usize
            ]
            .into(),
        }
    }

    /// # Errors
    /// [`WindowError::Permission`]: the device did not do it for some peer. What was asked holds for the others.
    fn admit(&mut self, writers: Writers) -> Result<(), WindowError> {
        let mut result = Ok(());
        for (index, link) in self.links.iter().enumerate() {
            if let Some(link) = link {
                let access = writers.access(Peer(index as u32));
                if !self.provider.set_access(link.own.told.key, access) {
                    result = Err(WindowError::Permission);
                }
            }
        }
        self.writers = writers;
        result
    }

    fn post(&mut self, to: Peer, at_bytes: u64, what: What<'_>, wr_id: WrId) -> Result<(), WindowError> {
        if self.failed.is_some() {
            return Err(WindowError::Unreachable);
        }
        let slot_bytes = self.options.request_bytes_max;
        let link = self.links.get_mut(to.0 as usize).and_then(Option::as_mut);
        let link = link.ok_or(WindowError::Unreachable)?;
        let len = what.len_bytes();
        let end = at_bytes.checked_add(len as u64).ok_or(WindowError::Range)?;
        if end > link.theirs.len_bytes || len > slot_bytes {
            return Err(WindowError::Range);
        }
        let slot = *link.free.last().ok_or(WindowError::Full)?;
        let at = slot as usize * slot_bytes;
        let local = Local {
            key: link.slots.key,
            at_bytes: at as u64,
            len_bytes: len as u32,
        };
        let remote = Remote {
            address: link.theirs.address.wrapping_add(at_bytes),
            rkey: link.theirs.key.0,
        };
        let (operation, read_bytes) = match what {
            What::Write(bytes) => {
                link.memory.write(at, bytes);
                let data = Data::Local(local);
                let write = Operation::Write {
                    data,
                    to: remote,
                    imm: None,
                };
                (write, None)
            }
            What::Read(_) => (
                Operation::Read {
                    into: local,
                    from: remote,
                },
                Some(len as u32),
            ),
        };
        let request = SendRequest {
            wr_id: WrId(slot.into()),
            operation,
            signalled: true,
        };
        match self.provider.post_send(&link.qp, &request) {
            Ok(()) => {
                link.free.pop();
                link.pending[slot as usize] = Pending { wr_id, read_bytes };
                // Not at the next poll: what is on its way already costs its poster no time.
                self.failed = self.provider.flush().err();
                Ok(())
            }
            Err(PostError::Full) => Err(WindowError::Full),
            Err(PostError::Length { .. } | PostError::Local(_) | PostError::Refused { .. } | PostError::Bind(_)) => {
                Err(WindowError::Range)
            }
            Err(PostError::Broken | PostError::NoQueuePair) => Err(WindowError::Unreachable),
        }
    }
}

enum What<'a> {
    Write(&'a [u8]),
    Read(u32),
}

impl What<'_> {
    fn len_bytes(&self) -> usize {
        match self {
            What::Write(bytes) => bytes.len(),
            What::Read(len_bytes) => *len_bytes as usize,
        }
    }
}

fn error_of(error: CompletionError) -> WindowError {
    match error {
        // The range was checked before it was sent.
        CompletionError::RemoteAccess => WindowError::Permission,
        // A queue pair that was closed to writes, where a NIC keeps the region open: rdma_rxe finds the request invalid.
        CompletionError::RemoteInvalidRequest => WindowError::Permission,
        _ => WindowError::Unreachable,
    }
}

impl<P: Provider> Window for RdmaWindow<P> {
    fn write(&mut self, to: Peer, at_bytes: u64, bytes: &[u8], wr_id: WrId) -> Result<(), WindowError> {
        self.post(to, at_bytes, What::Write(bytes), wr_id)
    }

    fn read(&mut self, from: Peer, at_bytes: u64, len_bytes: u32, wr_id: WrId) -> Result<(), WindowError> {
        self.post(from, at_bytes, What::Read(len_bytes), wr_id)
    }

    /// Moves packets, too: a window over software does nothing between two polls.
    fn poll_cq(&mut self, sink: &mut dyn FnMut(Completion)) -> usize {
        if self.failed.is_none()
            && let Err(error) = self.provider.progress()
        {
            self.failed = Some(error);
        }
        let RdmaWindow {
            provider,
            links,
            brought,
            lost,
            ..
        } = self;
        let mut count = lost.len();
        for wr_id in lost.drain(..) {
            let result = Err(WindowError::Unreachable);
            sink(Completion { wr_id, result });
        }
        provider.poll_cq(COMPLETIONS_MAX, &mut |completion| {
            let of_it = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.qp.number() == completion.qp);
            let Some(peer) = links.iter().position(of_it) else {
                return;
            };
            let Some(link) = &mut links[peer] else {
                return;
            };
            let slot = completion.wr_id.0 as u32;
            let Pending { wr_id, read_bytes } = link.pending[slot as usize];
            match (completion.result, read_bytes) {
                (Ok(()), Some(len_bytes)) => brought.push_back(Brought {
                    wr_id,
                    peer,
                    slot,
                    len_bytes,
                }),
                _ => link.free.push(slot),
            }
            count += 1;
            let result = completion.result.map_err(error_of);
            sink(Completion { wr_id, result });
        });
        count
    }

    fn take_read(&mut self, wr_id: WrId, into: &mut Vec<u8>) -> bool {
        let Some(place) = self.brought.iter().position(|brought| brought.wr_id == wr_id) else {
            return false;
        };
        let Some(brought) = self.brought.remove(place) else {
            return false;
        };
        let Some(link) = &mut self.links[brought.peer] else {
            return false;
        };
        into.resize(brought.len_bytes as usize, 0);
        let at = brought.slot as usize * self.options.request_bytes_max;
        link.memory.read(at, into);
        link.free.push(brought.slot);
        true
    }

    fn load(&self, at_bytes: u64, into: &mut [u8]) {
        let at = usize::try_from(at_bytes).expect("a place inside the window");
        self.memory.read(at, into);
    }

    fn store(&mut self, at_bytes: u64, bytes: &[u8]) {
        let at = usize::try_from(at_bytes).expect("a place inside the window");
        self.memory.write(at, bytes);
    }

    /// Changes what each peer's key opens: what arrives from now on meets it, also the rest of a write that has begun.
    fn grant(&mut self, writer: Option<Peer>) -> Result<(), WindowError> {
        self.admit(Writers::One(writer))
    }

    fn open(&mut self) -> Result<(), WindowError> {
        self.admit(Writers::Everybody)
    }
}

/// What one poll hands out at most.
const COMPLETIONS_MAX: usize = 64;
