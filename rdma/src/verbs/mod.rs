//! The provider `verbs`: what libibverbs drives. A NIC, or the kernel's rdma_rxe in its place.
//!
//! Unlike this crate's own providers it moves bytes without anybody's turn: peers reach memory while its owner sleeps, and
//! [`Provider::progress`] has nothing to do but to tell of a failure. Reliable connections over Ethernet (RoCEv2) alone.
//!
//! Read `find` for which device and which address, `states` for what a queue pair is told on its way, `queue` for how completions find their
//! requests.

mod find;
mod number;
mod queue;
mod states;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use dataplane_waist::{Clock, Instant, MonotonicClock};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use rdma_sys::{IBV_QPS_ERR, IBV_QPS_RESET, IBV_QPS_SQE, ibv_qp_cap, ibv_sge};

pub use find::{PROBE_NAME, VerbsError, VerbsOptions, probe};
use queue::Posted;
use states::{PORT, Step, flags, remote_flags};

use crate::{
    device,
    endpoint::Randomness,
    memory::Memory,
    provider::{Error, Init, Provider, ProviderError, Qp, QpAddress, Reset, Rtr, Rts, TakesReceives},
    qp::QpOptions,
    random::system_randomness,
    region::{
        Access, Bind, HomeWork, Local, MemoryKey, MemoryWindow, Need, Pd, Refusal, Regions, Registered, WindowNumber,
    },
    sys::verbs::{Binding, Channel, Device, Domain, POLL_COUNT_MAX, Pair, Piece, Queue, Region, Window, Work},
    wire::{Psn, QpNumber},
    work::{Completion, Data, Kind, Operation, PostError, ReceiveRequest, SendRequest},
};

/// A page: an address that peers use must lie in its page where the memory does (what NICs' tables demand).
const PAGE_MASK: u64 = 4095;

/// User space ends below 2⁴⁷ on x86-64 and with 48-bit addresses on Arm.
const ADDRESS_MASK: u64 = 0x7fff_ffff_f000;

/// A protection domain, and how far its queue pairs are open.
#[derive(Debug)]
struct OwnDomain {
    /// `None`: the system refused it.
    domain: Option<Arc<Domain>>,
    /// What the queue pairs of this domain let peers do ([`VerbsDevice::set_access`]).
    remote: Access,
}

/// A region and what it was registered for.
#[derive(Debug)]
struct OwnRegion {
    pd: Pd,
    address: u64,
    access: Access,
    region: Region,
}

/// A queue pair and what was asked of it.
#[derive(Debug)]
struct OwnPair {
    pair: Pair,
    pd: Pd,
    options: QpOptions,
    start_psn: Psn,
    posted: Posted,
    is_broken: bool,
    /// Whether peers can reach it: between INIT and the end.
    is_open: bool,
}

/// A device of libibverbs, as a provider.
pub struct VerbsDevice {
    device: Arc<Device>,
    channel: Arc<Channel>,
    local: IpAddr,
    gid_index: u8,
    domains: Vec<OwnDomain>,
    regions: Regions,
    /// Before what they are bound to, since they are dropped in this order.
    windows: BTreeMap<WindowNumber, Window>,
    /// What the device knows of each region of `regions`.
    registered: BTreeMap<MemoryKey, OwnRegion>,
    pairs: BTreeMap<QpNumber, OwnPair>,
    /// Finished, and not asked for yet: what a look before a rest found.
    found: VecDeque<Completion>,
    /// Where the next poll begins: each queue pair gets its turn.
    poll_turn: QpNumber,
    clock: MonotonicClock,
    random: Randomness,
    /// The first call whose failure could not be told at once.
    failure: Option<io::Error>,
}

impl std::fmt::Debug for VerbsDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerbsDevice")
            .field("local", &self.local)
            .field("gid_index", &self.gid_index)
            .field("queue_pairs", &self.pairs.len())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl VerbsDevice {
    /// Opens a device.
    ///
    /// # Errors
    /// [`VerbsError`]: no library, no device, no address.
    pub fn open(options: &VerbsOptions) -> Result<VerbsDevice, VerbsError> {
        let found = find::find(options)?;
        let system = |asked| move |error| VerbsError::System { asked, error };
        let channel = Channel::new(&found.device).map_err(system("making a completion channel"))?;
        Ok(VerbsDevice {
            device: found.device,
            channel,
            local: found.local,
            gid_index: found.gid_index,
            domains: Vec::new(),
            regions: Regions::default(),
            windows: BTreeMap::new(),
            registered: BTreeMap::new(),
            pairs: BTreeMap::new(),
            found: VecDeque::new(),
            poll_turn: QpNumber::new(0),
            clock: MonotonicClock::new(),
            random: system_randomness().map_err(system("asking for randomness"))?,
            failure: None,
        })
    }

    fn fail(&mut self, asked: &str, error: &io::Error) {
        if self.failure.is_none() {
            let told = io::Error::new(error.kind(), format!("{asked} failed: {error}"));
            self.failure = Some(told);
        }
    }

    /// What `operation` needs of this end's memory, as the device is told.
    fn piece<'a>(&self, of: &OwnPair, data: Data<'a>, need: Need) -> Result<Piece<'a>, PostError> {
        match data {
            Data::Inline([]) => Ok(Piece::None),
            Data::Inline(bytes) => {
                let bytes_max = of.options.inline_bytes_max;
                match bytes.len() <= bytes_max {
                    true => Ok(Piece::Inline(bytes)),
                    false => Err(PostError::Length {
                        len_bytes: bytes.len() as u64,
                        bytes_max: bytes_max as u64,
                    }),
                }
            }
            Data::Local(local) => Ok(self.sge(of, &local, need)?.map_or(Piece::None, Piece::Registered)),
        }
    }

    fn sge(&self, of: &OwnPair, local: &Local, need: Need) -> Result<Option<ibv_sge>, PostError> {
        self.regions.check_local(of.pd, local, need).map_err(PostError::Local)?;
        if local.len_bytes == 0 {
            return Ok(None);
        }
        let region = self.registered.get(&local.key);
        let of = region.ok_or(PostError::Local(Refusal::UnknownKey))?;
        Ok(Some(ibv_sge {
            addr: of.address.wrapping_add(local.at_bytes),
            length: local.len_bytes,
            lkey: of.region.lkey(),
        }))
    }

    /// As the device is told to bind a window.
    fn binding(&self, bind: &Bind) -> Option<Binding<'_>> {
        let of = self.registered.get(&bind.region)?;
        Some(Binding {
            window: self.windows.get(&WindowNumber::of(bind.window.0))?,
            rkey: bind.window.key(bind.key_part).0,
            region: &of.region,
            address: of.address.wrapping_add(bind.at_bytes),
            len_bytes: bind.len_bytes,
            access_flags: remote_flags(bind.access) as u32,
        })
    }

    /// Devices keep a queue pair alive as long as windows are bound to it.
    fn free_windows_through(&mut self, number: QpNumber) {
        for window in self.regions.windows_through(number) {
            self.free_window(window);
        }
    }

    /// Changes a queue pair's state; a refusal breaks it, which is what its owner then sees.
    fn step(&mut self, number: QpNumber, step: Step) -> io::Result<()> {
        let Some(of) = self.pairs.get_mut(&number) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let result = of.pair.modify(step.attributes, step.mask);
        of.is_broken |= result.is_err();
        result
    }

    /// What completed, of one queue pair, at most `count_max`.
    fn poll_one(&mut self, number: QpNumber, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        let Some(of) = self.pairs.get_mut(&number) else {
            return 0;
        };
        let mut entries = [rdma_sys::ibv_wc::default(); POLL_COUNT_MAX];
        let mut given_count = 0;
        while given_count < count_max {
            let asked_count = POLL_COUNT_MAX.min(count_max - given_count);
            let polled = of.pair.queue().poll(&mut entries[..asked_count]);
            let polled_count = match polled {
                Ok(count) => count,
                Err(error) => {
                    of.is_broken = true;
                    self.fail("polling a completion queue", &error);
                    return given_count;
                }
            };
            for entry in &entries[..polled_count] {
                let regions = &self.regions;
                let pd = of.pd;
                let shut = |local: &Local, need| regions.check_local(pd, local, need).err();
                let is_bound = |key| regions.is_bound_through(number, key);
                if let Some(done) = of.posted.finish(number, entry, shut, is_bound) {
                    of.is_broken |= done.result.is_err();
                    if let Some(key) = done.invalidated {
                        self.regions.take_back(key);
                    }
                    sink(done);
                    given_count += 1;
                }
            }
            if polled_count < asked_count {
                break;
            }
        }
        given_count
    }

    /// [`Provider::poll_cq`], without what was found before.
    fn poll_pairs(&mut self, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        let mut given_count = 0;
        let first = self.poll_turn;
        let mut next = self.pairs.range(first..).next().map(|(number, _)| *number);
        let mut is_wrapped = false;
        while given_count < count_max {
            let number = match next {
                Some(number) if !(is_wrapped && number >= first) => number,
                None if !is_wrapped => {
                    is_wrapped = true;
                    next = self.pairs.keys().next().copied();
                    continue;
                }
                _ => break,
            };
            given_count += self.poll_one(number, count_max - given_count, sink);
            self.poll_turn = QpNumber::new(number.get().wrapping_add(1));
            next = self.pairs.range(self.poll_turn..).next().map(|(number, _)| *number);
        }
        given_count
    }

    /// What peers may do through queue pairs of `pd`.
    fn open_pairs(&self, pd: Pd) -> io::Result<()> {
        let remote = self.domains.get(pd.0 as usize).map(|of| of.remote);
        let step = Step::access(remote.unwrap_or_default());
        let mut first = Ok(());
        for of in self.pairs.values().filter(|of| of.pd == pd && of.is_open) {
            let result = of.pair.modify(step.attributes, step.mask);
            // A broken one serves nobody, whatever its flags are.
            if result.is_err() && !is_over(&of.pair) {
                first = first.and(result);
            }
        }
        first
    }
}

/// Whether a queue pair has broken down by itself or its peer.
fn is_over(pair: &Pair) -> bool {
    pair.state()
        .map_or(true, |state| matches!(state, IBV_QPS_ERR | IBV_QPS_SQE))
}

/// What verbs allow of options, beyond what this crate's own providers do.
fn check(options: &QpOptions) -> Result<(), ProviderError> {
    device::check(options)?;
    match options.retries_max {
        0..=7 => Ok(()),
        seen => Err(ProviderError::Option {
            option: "retries_max",
            seen: seen.into(),
            why: "a NIC counts to 7 in 3 bits",
        }),
    }
}

impl Provider for VerbsDevice {
    fn name(&self) -> &'static str {
        PROBE_NAME
    }

    fn local(&self) -> IpAddr {
        self.local
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    /// A domain that the system refuses is told by [`Provider::create_qp`].
    fn create_pd(&mut self) -> Pd {
        let domain = match Domain::new(&self.device) {
            Ok(domain) => Some(domain),
            Err(error) => {
                self.fail("making a protection domain", &error);
                None
            }
        };
        let pd = Pd(self.domains.len() as u32);
        let remote = Access::ALL;
        self.domains.push(OwnDomain { domain, remote });
        pd
    }

    /// Memory that the system does not pin (RLIMIT_MEMLOCK, `ulimit -l`) is told by [`Provider::progress`]; what came back opens
    /// nothing then.
    fn register(&mut self, pd: Pd, memory: Arc<Memory>, access: Access) -> Registered {
        let len_bytes = memory.len_bytes() as u64;
        let address = (self.random)() & ADDRESS_MASK | memory.begin() as u64 & PAGE_MASK;
        let domain = self.domains.get(pd.0 as usize).and_then(|of| of.domain.as_ref());
        let made = match domain {
            Some(domain) => Region::new(domain, Arc::clone(&memory), address, flags(access)),
            None => Err(io::Error::other("there is no such protection domain")),
        };
        let refused = match made {
            Ok(region) => {
                // Devices give one number for both keys, or no remote one where peers have no access.
                let key = match region.rkey() {
                    0 => region.lkey(),
                    rkey => rkey,
                };
                let key = MemoryKey(key);
                let at = Registered {
                    key,
                    address,
                    len_bytes,
                };
                if self.regions.insert(pd, memory, access, &at) {
                    let own = OwnRegion {
                        pd,
                        address,
                        access,
                        region,
                    };
                    self.registered.insert(key, own);
                    return at;
                }
                io::Error::other("the device gave one key to two regions")
            }
            Err(error) => error,
        };
        self.fail("registering memory (is there a limit? `ulimit -l` says)", &refused);
        Registered {
            key: MemoryKey(0),
            address,
            len_bytes: 0,
        }
    }

    fn deregister(&mut self, key: MemoryKey) -> bool {
        // Whether a window is bound to it the device knows best: what was posted is not done.
        let is_closed = self.registered.get_mut(&key).is_some_and(|of| of.region.close());
        if is_closed {
            self.registered.remove(&key);
            self.regions.deregister(key);
        }
        is_closed
    }

    /// A NIC keeps a region's or a window's access for good; what can be changed is the queue pairs'. So this closes and opens the queue
    /// pairs of its domain (as Mu does: OSDI'20, §5.2), and is possible where it is the only one there that is open to peers, and only
    /// within what it was registered or bound for. False: there is none, or it is not possible.
    fn set_access(&mut self, key: MemoryKey, access: Access) -> bool {
        let region = self.registered.get(&key).map(|own| (own.pd, own.access));
        let Some((pd, made_for)) = region.or_else(|| self.regions.promised(key)) else {
            return false;
        };
        let is_within = flags(access) & !flags(made_for) == 0;
        let others = self.registered.iter().filter(|(other, _)| **other != key);
        let is_alone = !others.into_iter().any(|(_, of)| of.pd == pd && of.access.has_remote())
            && !self.regions.has_other_windows(pd, key);
        let Some(of) = self.domains.get_mut(pd.0 as usize).filter(|_| is_within && is_alone) else {
            return false;
        };
        of.remote = access;
        match self.open_pairs(pd) {
            Ok(()) => region.is_none() || self.regions.set_access(key, access),
            Err(error) => {
                self.fail("changing a queue pair's access", &error);
                false
            }
        }
    }

    fn allocate_window(&mut self, pd: Pd) -> Result<MemoryWindow, ProviderError> {
        let system = |asked| move |error| ProviderError::System { asked, error };
        let flags = self
            .device
            .capability_flags()
            .map_err(system("asking what the device can do"))?;
        if flags & rdma_sys::IBV_DEVICE_MEM_WINDOW_TYPE_2B == 0 {
            return Err(ProviderError::NotOffered {
                device: format!("the device of libibverbs at {}", self.local),
                what: "memory windows of type 2B (IBV_DEVICE_MEM_WINDOW_TYPE_2B)",
            });
        }
        let domain = self.domains.get(pd.0 as usize).and_then(|of| of.domain.as_ref());
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let made = domain.ok_or_else(missing).and_then(Window::new);
        let made = made.map_err(system("allocating a memory window"))?;
        let window = MemoryWindow(MemoryKey(made.rkey()));
        if !self.regions.insert_window(pd, window) {
            let error = io::Error::other("the device gave one key to two windows");
            return Err(system("allocating a memory window")(error));
        }
        self.windows.insert(WindowNumber::of(window.0), made);
        Ok(window)
    }

    fn free_window(&mut self, window: MemoryWindow) -> bool {
        self.windows.remove(&WindowNumber::of(window.0));
        self.regions.free_window(window)
    }

    fn create_qp(&mut self, pd: Pd, options: &QpOptions) -> Result<Qp<Reset>, ProviderError> {
        check(options)?;
        let system = |asked| move |error| ProviderError::System { asked, error };
        let domain = self.domains.get(pd.0 as usize).and_then(|of| of.domain.as_ref());
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let domain = domain.ok_or_else(missing).map_err(system("finding the domain"))?;
        let completions_max = options.send_requests_max + options.receive_requests_max;
        let queue = Queue::new(&self.channel, completions_max).map_err(system("making a completion queue"))?;
        let cap = ibv_qp_cap {
            max_send_wr: options.send_requests_max as u32,
            max_recv_wr: options.receive_requests_max as u32,
            max_send_sge: 1,
            max_recv_sge: 1,
            max_inline_data: options.inline_bytes_max as u32,
        };
        let pair = Pair::new(domain, &queue, cap).map_err(system("making a queue pair"))?;
        let number = QpNumber::new(pair.number());
        let start_psn = options.start_psn.unwrap_or_else(|| Psn::new((self.random)() as u32));
        let of = OwnPair {
            pair,
            pd,
            options: *options,
            start_psn,
            posted: Posted::new(options.send_requests_max, options.receive_requests_max),
            is_broken: false,
            is_open: false,
        };
        self.pairs.insert(number, of);
        Ok(Qp::new(number))
    }

    fn address<S>(&self, qp: &Qp<S>) -> Option<QpAddress> {
        let of = self.pairs.get(&qp.number())?;
        Some(QpAddress {
            ip: self.local,
            qp: qp.number(),
            start_psn: of.start_psn,
            path_mtu: of.options.path_mtu,
        })
    }

    fn init(&mut self, qp: Qp<Reset>) -> Qp<Init> {
        let number = qp.number();
        let pd = self.pairs.get(&number).map(|of| of.pd.0 as usize);
        let remote = pd.and_then(|pd| self.domains.get(pd)).map(|of| of.remote);
        match self.step(number, Step::init(remote.unwrap_or_default())) {
            Ok(()) => {
                if let Some(of) = self.pairs.get_mut(&number) {
                    of.is_open = true;
                }
            }
            Err(error) => self.fail("bringing a queue pair to INIT", &error),
        }
        Qp::new(number)
    }

    fn ready_to_receive(&mut self, qp: Qp<Init>, peer: &QpAddress) -> Result<Qp<Rtr>, ProviderError> {
        let number = qp.number();
        let system = |error| ProviderError::System {
            asked: "preparing the path to the peer",
            error,
        };
        let options = self.pairs.get(&number).map(|of| of.options);
        let options = options.ok_or_else(|| system(io::ErrorKind::NotFound.into()))?;
        let (ours, theirs) = (options.path_mtu, peer.path_mtu);
        if ours != theirs {
            return Err(ProviderError::PathMtu { ours, theirs });
        }
        if peer.ip.is_ipv4() != self.local.is_ipv4() {
            let why = format!("{} cannot reach {}: another family of addresses", self.local, peer.ip);
            return Err(system(io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
        let step = Step::ready_to_receive(&options, peer, self.gid_index);
        self.step(number, step).map_err(system)?;
        Ok(Qp::new(number))
    }

    fn ready_to_send(&mut self, qp: Qp<Rtr>) -> Qp<Rts> {
        let number = qp.number();
        if let Some(of) = self.pairs.get(&number) {
            let step = Step::ready_to_send(&of.options, of.start_psn);
            if let Err(error) = self.step(number, step) {
                self.fail("bringing a queue pair to RTS", &error);
            }
        }
        Qp::new(number)
    }

    fn take_down<S>(&mut self, qp: Qp<S>) -> Qp<Error> {
        let number = qp.number();
        if let Some(of) = self.pairs.get_mut(&number) {
            of.is_broken = true;
            of.is_open = false;
        }
        // One that cannot be taken down is gone already, or broken as far as this end is concerned.
        let _ = self.step(number, Step::to(IBV_QPS_ERR));
        Qp::new(number)
    }

    fn reset(&mut self, qp: Qp<Error>) -> Qp<Reset> {
        let number = qp.number();
        self.free_windows_through(number);
        let start_psn = Psn::new((self.random)() as u32);
        match self.step(number, Step::to(IBV_QPS_RESET)) {
            Ok(()) => {
                // Completions from before: some drivers forget them with the state, others do not.
                self.poll_one(number, usize::MAX, &mut |_| {});
                self.found.retain(|done| done.qp != number);
                if let Some(of) = self.pairs.get_mut(&number) {
                    of.posted.forget();
                    of.start_psn = of.options.start_psn.unwrap_or(start_psn);
                    of.is_broken = false;
                }
            }
            Err(error) => self.fail("bringing a queue pair back to RESET", &error),
        }
        Qp::new(number)
    }

    fn destroy<S>(&mut self, qp: Qp<S>) {
        self.free_windows_through(qp.number());
        self.pairs.remove(&qp.number());
        self.found.retain(|done| done.qp != qp.number());
    }

    fn is_broken<S>(&self, qp: &Qp<S>) -> bool {
        let of = self.pairs.get(&qp.number());
        of.is_none_or(|of| of.is_broken || is_over(&of.pair))
    }

    fn post_receive<S: TakesReceives>(&mut self, qp: &Qp<S>, request: ReceiveRequest) -> Result<(), PostError> {
        let of = self.pairs.get(&qp.number()).ok_or(PostError::NoQueuePair)?;
        if of.is_broken {
            return Err(PostError::Broken);
        }
        let piece = self.sge(of, &request.into, Need::LocalWrite)?;
        let of = self.pairs.get_mut(&qp.number()).ok_or(PostError::NoQueuePair)?;
        let id = of.posted.receives.id().ok_or(PostError::Full)?;
        of.pair.post_receive(id, piece).map_err(|error| refused(of, &error))?;
        of.posted.receives.push(queue::Entry {
            wr_id: request.wr_id,
            kind: Kind::Receive,
            len_bytes: request.into.len_bytes,
            local: Some(request.into),
            need: Need::LocalWrite,
        });
        Ok(())
    }

    fn post_send(&mut self, qp: &Qp<Rts>, request: &SendRequest<'_>) -> Result<(), PostError> {
        let of = self.pairs.get(&qp.number()).ok_or(PostError::NoQueuePair)?;
        if of.is_broken {
            return Err(PostError::Broken);
        }
        let asked = queue::asked(&request.operation)?;
        let piece = self.piece(of, asked.data, asked.need)?;
        let home_work = HomeWork::of(&request.operation);
        if let Some(work) = &home_work {
            let checked = self.regions.check_work((of.pd, qp.number()), work);
            checked.map_err(PostError::Bind)?;
        }
        let wr_id = of.posted.sends.id().ok_or(PostError::Full)?;
        let work = Work {
            wr_id,
            opcode: asked.opcode,
            flags: if request.signalled {
                rdma_sys::IBV_SEND_SIGNALED
            } else {
                0
            },
            imm_data: asked.word,
            wr: asked.wr,
            piece,
            binding: match &request.operation {
                Operation::Bind(bind) => self.binding(bind),
                _ => None,
            },
        };
        let posted = of.pair.post_send(&work);
        let of = self.pairs.get_mut(&qp.number()).ok_or(PostError::NoQueuePair)?;
        posted.map_err(|error| refused(of, &error))?;
        of.posted.sends.push(queue::Entry {
            wr_id: request.wr_id,
            kind: asked.kind,
            len_bytes: asked.len_bytes,
            local: asked.local(),
            need: asked.need,
        });
        if let Some(work) = &home_work {
            self.regions.promise(qp.number(), work);
        }
        if let Operation::Bind(bind) = &request.operation
            && let Some(window) = self.windows.get_mut(&WindowNumber::of(bind.window.0))
        {
            window.rename(bind.window.key(bind.key_part).0);
        }
        Ok(())
    }

    fn poll_cq(&mut self, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        let mut given_count = 0;
        while given_count < count_max
            && let Some(done) = self.found.pop_front()
        {
            sink(done);
            given_count += 1;
        }
        given_count + self.poll_pairs(count_max - given_count, sink)
    }

    fn poll_qp<S>(&mut self, qp: &Qp<S>, count_max: usize, sink: &mut dyn FnMut(Completion)) -> usize {
        let mut given_count = 0;
        while given_count < count_max
            && let Some(place) = self.found.iter().position(|done| done.qp == qp.number())
            && let Some(done) = self.found.remove(place)
        {
            sink(done);
            given_count += 1;
        }
        given_count + self.poll_one(qp.number(), count_max - given_count, sink)
    }

    /// The device moves packets by itself; here it only says what went wrong when nobody could be told.
    fn progress(&mut self) -> io::Result<usize> {
        match &self.failure {
            None => Ok(0),
            Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// Rests until a request has finished. What a peer writes to memory wakes nobody: that is the point of it.
    fn wait(&mut self, max: Duration) -> io::Result<()> {
        for of in self.pairs.values() {
            of.pair.queue().arm()?;
        }
        // What finished before the queues were armed wakes nobody.
        let mut found = std::mem::take(&mut self.found);
        self.poll_pairs(usize::MAX, &mut |done| found.push_back(done));
        self.found = found;
        if !self.found.is_empty() {
            return Ok(());
        }
        let mut looked = [PollFd::new(std::os::fd::AsFd::as_fd(&*self.channel), PollFlags::POLLIN)];
        match ppoll(&mut looked, Some(TimeSpec::from_duration(max)), None) {
            Ok(0) | Err(Errno::EINTR) => Ok(()),
            Ok(_) => {
                self.channel.take_events();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Why the library did not take a request.
fn refused(of: &mut OwnPair, error: &io::Error) -> PostError {
    match error.raw_os_error() {
        Some(libc::ENOMEM | libc::EAGAIN) => PostError::Full,
        Some(errno @ libc::EINVAL) => PostError::Refused { errno },
        _ => {
            of.is_broken = true;
            PostError::Broken
        }
    }
}
