//! libibverbs' objects with their owners: each holds what it was made of, so nothing is closed under what stands on it.
//!
//! ```text
//!   Device ◀─ Domain ◀─ Region ─▶ Memory          A ◀─ B: B holds A; a Window holds its Domain, too
//!     ▲          ▲
//!     └─ Channel ◀─ Queue ◀─ Pair
//! ```

use std::{
    ffi::{CStr, c_int},
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::Arc,
};

use rdma_sys::{
    IBV_QPT_RC, IBV_SEND_INLINE, Library, LoadError, ibv_comp_channel, ibv_context, ibv_cq, ibv_device,
    ibv_device_attr, ibv_gid, ibv_mr, ibv_mw, ibv_mw_bind_info, ibv_pd, ibv_qp, ibv_qp_attr, ibv_qp_cap,
    ibv_qp_init_attr, ibv_recv_wr, ibv_send_wr, ibv_send_wr_bind_mw, ibv_sge, ibv_wc,
};

use crate::memory::Memory;

/// Completions that one poll takes: room on the stack, and enough for a batch.
pub(crate) const POLL_COUNT_MAX: usize = 16;

/// Why devices could not be listed.
#[derive(Debug)]
pub(crate) enum ListError {
    Library(LoadError),
    System(io::Error),
}

/// The library's list, given back on drop.
struct List {
    library: &'static Library,
    first: NonNull<*mut ibv_device>,
    count: usize,
}

impl List {
    fn get() -> Result<List, ListError> {
        let library = Library::get().map_err(ListError::Library)?;
        let mut count: c_int = 0;
        // SAFETY: the library writes one int.
        let first = unsafe { (library.ibv_get_device_list)(&mut count) };
        let first = NonNull::new(first).ok_or_else(|| ListError::System(io::Error::last_os_error()))?;
        Ok(List {
            library,
            first,
            count: usize::try_from(count).unwrap_or(0),
        })
    }

    fn devices(&self) -> impl Iterator<Item = (*mut ibv_device, String)> {
        (0..self.count).map(|index| {
            // SAFETY: the list has `count` devices, and lives as long as `self`.
            let device = unsafe { *self.first.as_ptr().add(index) };
            // SAFETY: a device of the list, whose name ends with a zero byte; it is copied.
            let name = unsafe { CStr::from_ptr((self.library.ibv_get_device_name)(device)) };
            (device, name.to_string_lossy().into_owned())
        })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the library's own list, given back once; devices that were opened stay open.
        unsafe { (self.library.ibv_free_device_list)(self.first.as_ptr()) };
    }
}

/// The names of this machine's devices.
pub(crate) fn device_names() -> Result<Vec<String>, ListError> {
    let list = List::get()?;
    Ok(list.devices().map(|(_, name)| name).collect())
}

/// What failed with an error number as its answer.
fn answered(number: c_int) -> io::Result<()> {
    match number {
        0 => Ok(()),
        // Some drivers answer with the number's negative, as the kernel does.
        number => Err(io::Error::from_raw_os_error(number.saturating_abs())),
    }
}

/// What failed with null as its answer.
fn made<T>(object: *mut T) -> io::Result<NonNull<T>> {
    NonNull::new(object).ok_or_else(io::Error::last_os_error)
}

/// A type that holds one of the library's objects.
macro_rules! owner {
    ($name:ident) => {
        // SAFETY: libibverbs' objects may be used from any thread, and its calls from several at once ("the libibverbs
        // library is fully thread safe", rdma-core's Documentation/libibverbs.md; each object has its locks).
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

/// An open device.
pub(crate) struct Device {
    library: &'static Library,
    raw: NonNull<ibv_context>,
}
owner!(Device);

impl Device {
    /// Opens the device of this name; `None`: there is none.
    pub(crate) fn open(name: &str) -> Result<Option<Arc<Device>>, ListError> {
        let list = List::get()?;
        let Some((device, _)) = list.devices().find(|(_, listed)| listed == name) else {
            return Ok(None);
        };
        let library = list.library;
        // SAFETY: a device of a list that is still there.
        let raw = made(unsafe { (library.ibv_open_device)(device) }).map_err(ListError::System)?;
        Ok(Some(Arc::new(Device { library, raw })))
    }

    /// `enum ibv_device_cap_flags`.
    pub(crate) fn capability_flags(&self) -> io::Result<u32> {
        let mut attributes = ibv_device_attr::default();
        // SAFETY: an open device, and room for its attributes.
        answered(unsafe { (self.library.ibv_query_device)(self.raw.as_ptr(), &mut attributes) })?;
        Ok(attributes.device_cap_flags)
    }

    /// One of the port's addresses.
    pub(crate) fn gid(&self, port: u8, index: u8) -> io::Result<[u8; 16]> {
        let mut gid = ibv_gid::default();
        // SAFETY: an open device, and room for a GID.
        let result = unsafe { (self.library.ibv_query_gid)(self.raw.as_ptr(), port, index.into(), &mut gid) };
        match result {
            0 => Ok(gid.raw),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: opened by `open`; whatever stands on it holds it, so nothing does any more.
        unsafe { (self.library.ibv_close_device)(self.raw.as_ptr()) };
    }
}

/// A protection domain.
pub(crate) struct Domain {
    device: Arc<Device>,
    raw: NonNull<ibv_pd>,
}
owner!(Domain);

impl Domain {
    pub(crate) fn new(device: &Arc<Device>) -> io::Result<Arc<Domain>> {
        // SAFETY: an open device.
        let raw = made(unsafe { (device.library.ibv_alloc_pd)(device.raw.as_ptr()) })?;
        let device = Arc::clone(device);
        Ok(Arc::new(Domain { device, raw }))
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: made by `new`; its regions and pairs hold it, so there are none.
        unsafe { (self.device.library.ibv_dealloc_pd)(self.raw.as_ptr()) };
    }
}

/// Registered memory: pinned, and open to the device under its keys.
pub(crate) struct Region {
    domain: Arc<Domain>,
    raw: NonNull<ibv_mr>,
    /// Lives as long as the device may write to it: until the region is closed, which `drop` does first.
    memory: Arc<Memory>,
    is_open: bool,
}
owner!(Region);

impl Region {
    /// Registers all of `memory`; peers name its first byte by `address`.
    pub(crate) fn new(
        domain: &Arc<Domain>,
        memory: Arc<Memory>,
        address: u64,
        access_flags: c_int,
    ) -> io::Result<Region> {
        let (library, len_bytes) = (domain.device.library, memory.len_bytes());
        let begin = memory.begin().cast_mut().cast();
        // SAFETY: a live domain, and memory that the region keeps alive. The device writes to it whenever it likes: it is made of
        // atomic words, of which no part is ever lent as a slice, so no other code takes it to be still.
        let raw =
            made(unsafe { (library.ibv_reg_mr_iova)(domain.raw.as_ptr(), begin, len_bytes, address, access_flags) })?;
        Ok(Region {
            domain: Arc::clone(domain),
            raw,
            memory,
            is_open: true,
        })
    }

    /// False: the device does not let go of it, for one because a window is bound to it.
    pub(crate) fn close(&mut self) -> bool {
        // SAFETY: made by `new`, and open. When the call comes back with success the library's object is gone, and the device reaches the
        // memory no more; otherwise both are as before.
        self.is_open = self.is_open && unsafe { (self.domain.device.library.ibv_dereg_mr)(self.raw.as_ptr()) } != 0;
        !self.is_open
    }

    pub(crate) fn lkey(&self) -> u32 {
        // SAFETY: the library's object lives as long as `self`, and nobody changes its keys.
        unsafe { (*self.raw.as_ptr()).lkey }
    }

    pub(crate) fn rkey(&self) -> u32 {
        // SAFETY: as in `lkey`.
        unsafe { (*self.raw.as_ptr()).rkey }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // The memory is given back after this.
        if !self.close() {
            // The device may write to it still, so nobody else may ever have it.
            std::mem::forget(Arc::clone(&self.memory));
        }
    }
}

/// A memory window of type 2.
pub(crate) struct Window {
    domain: Arc<Domain>,
    raw: NonNull<ibv_mw>,
}
owner!(Window);

impl Window {
    pub(crate) fn new(domain: &Arc<Domain>) -> io::Result<Window> {
        // SAFETY: a live domain.
        let raw = unsafe {
            domain
                .device
                .library
                .alloc_mw(domain.raw.as_ptr(), rdma_sys::IBV_MW_TYPE_2)
        };
        let raw = made(raw.ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP))?)?;
        Ok(Window {
            domain: Arc::clone(domain),
            raw,
        })
    }

    pub(crate) fn rkey(&self) -> u32 {
        // SAFETY: the library's object lives as long as `self`, and its key is changed by `rename` alone, which needs all of it.
        unsafe { (*self.raw.as_ptr()).rkey }
    }

    /// The key that it is bound under when everything posted is done: drivers take it from here, and leave it to the caller to write it
    /// down (ibv_post_send(3)).
    pub(crate) fn rename(&mut self, rkey: u32) {
        // SAFETY: as in `rkey`; drivers read it while a request is posted, which borrows the window.
        unsafe { (*self.raw.as_ptr()).rkey = rkey };
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: made by `new`, given back once. What is posted names it by its key.
        unsafe { self.domain.device.library.dealloc_mw(self.raw.as_ptr()) };
    }
}

/// What a window is bound to.
#[derive(Clone, Copy)]
pub(crate) struct Binding<'a> {
    pub(crate) window: &'a Window,
    pub(crate) rkey: u32,
    pub(crate) region: &'a Region,
    pub(crate) address: u64,
    pub(crate) len_bytes: u64,
    pub(crate) access_flags: u32,
}

/// Where completion queues wake a sleeper.
pub(crate) struct Channel {
    device: Arc<Device>,
    raw: NonNull<ibv_comp_channel>,
}
owner!(Channel);

impl Channel {
    /// A channel that never blocks.
    pub(crate) fn new(device: &Arc<Device>) -> io::Result<Arc<Channel>> {
        // SAFETY: an open device.
        let raw = made(unsafe { (device.library.ibv_create_comp_channel)(device.raw.as_ptr()) })?;
        let channel = Arc::new(Channel {
            device: Arc::clone(device),
            raw,
        });
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&*channel, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        Ok(channel)
    }

    /// Takes what queues have said: whose it was does not matter.
    pub(crate) fn take_events(&self) {
        let library = self.device.library;
        let (mut queue, mut context) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: a live channel that does not block; the queue that an event names lives until its events are acknowledged.
        while unsafe { (library.ibv_get_cq_event)(self.raw.as_ptr(), &mut queue, &mut context) } == 0 {
            // SAFETY: one event of this queue was taken.
            unsafe { (library.ibv_ack_cq_events)(queue, 1) };
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel is open as long as `self`, and so is its descriptor.
        unsafe { BorrowedFd::borrow_raw((*self.raw.as_ptr()).fd) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: made by `new`; its queues hold it, so there are none.
        unsafe { (self.device.library.ibv_destroy_comp_channel)(self.raw.as_ptr()) };
    }
}

/// A completion queue.
pub(crate) struct Queue {
    channel: Arc<Channel>,
    raw: NonNull<ibv_cq>,
}
owner!(Queue);

impl Queue {
    pub(crate) fn new(channel: &Arc<Channel>, completions_max: usize) -> io::Result<Arc<Queue>> {
        let device = &channel.device;
        let count = c_int::try_from(completions_max).unwrap_or(c_int::MAX);
        // SAFETY: an open device, and its channel.
        let raw = made(unsafe {
            (device.library.ibv_create_cq)(device.raw.as_ptr(), count, ptr::null_mut(), channel.raw.as_ptr(), 0)
        })?;
        Ok(Arc::new(Queue {
            channel: Arc::clone(channel),
            raw,
        }))
    }

    /// Takes completions; says how many stand in `into` now.
    pub(crate) fn poll(&self, into: &mut [ibv_wc]) -> io::Result<usize> {
        let count = c_int::try_from(into.len()).unwrap_or(c_int::MAX);
        // SAFETY: a live queue, and room for so many.
        let count = unsafe {
            self.channel
                .device
                .library
                .poll_cq(self.raw.as_ptr(), count, into.as_mut_ptr())
        };
        usize::try_from(count).map_err(|_| io::Error::other("the device's completion queue is broken"))
    }

    /// The next completion wakes the channel.
    pub(crate) fn arm(&self) -> io::Result<()> {
        // SAFETY: a live queue that has a channel.
        answered(unsafe { self.channel.device.library.req_notify_cq(self.raw.as_ptr(), 0) })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by `new`; its pairs hold it, so there are none, and every event was acknowledged when it was taken.
        unsafe { (self.channel.device.library.ibv_destroy_cq)(self.raw.as_ptr()) };
    }
}

/// A work request, as [`Pair::post_send`] takes it: without pointers.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    pub(crate) wr_id: u64,
    pub(crate) opcode: u32,
    pub(crate) flags: u32,
    /// In the wire's order; or the key to invalidate, in this machine's.
    pub(crate) imm_data: u32,
    pub(crate) wr: rdma_sys::ibv_send_wr_wr,
    pub(crate) piece: Piece<'a>,
    pub(crate) binding: Option<Binding<'a>>,
}

/// The bytes of a work request.
#[derive(Clone, Copy)]
pub(crate) enum Piece<'a> {
    Inline(&'a [u8]),
    Registered(ibv_sge),
    None,
}

/// A queue pair for a reliable connection.
pub(crate) struct Pair {
    domain: Arc<Domain>,
    /// Of both its queues.
    queue: Arc<Queue>,
    raw: NonNull<ibv_qp>,
}
owner!(Pair);

impl Pair {
    pub(crate) fn new(domain: &Arc<Domain>, queue: &Arc<Queue>, cap: ibv_qp_cap) -> io::Result<Pair> {
        let mut attributes = ibv_qp_init_attr {
            qp_context: ptr::null_mut(),
            send_cq: queue.raw.as_ptr(),
            recv_cq: queue.raw.as_ptr(),
            srq: ptr::null_mut(),
            cap,
            qp_type: IBV_QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: a live domain and a live queue of one device.
        let raw = made(unsafe { (domain.device.library.ibv_create_qp)(domain.raw.as_ptr(), &mut attributes) })?;
        Ok(Pair {
            domain: Arc::clone(domain),
            queue: Arc::clone(queue),
            raw,
        })
    }

    fn library(&self) -> &'static Library {
        self.domain.device.library
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(crate) fn number(&self) -> u32 {
        // SAFETY: the library's object lives as long as `self`, and its number is set once.
        unsafe { (*self.raw.as_ptr()).qp_num }
    }

    /// Changes what `mask` names.
    pub(crate) fn modify(&self, mut attributes: ibv_qp_attr, mask: c_int) -> io::Result<()> {
        // SAFETY: a live pair; the attributes are numbers alone, and the library and the kernel check them.
        answered(unsafe { (self.library().ibv_modify_qp)(self.raw.as_ptr(), &mut attributes, mask) })
    }

    /// The state it is in, by whosever doing.
    pub(crate) fn state(&self) -> io::Result<u32> {
        let mut attributes = ibv_qp_attr::default();
        let mut made_with = ibv_qp_init_attr {
            qp_context: ptr::null_mut(),
            send_cq: ptr::null_mut(),
            recv_cq: ptr::null_mut(),
            srq: ptr::null_mut(),
            cap: ibv_qp_cap::default(),
            qp_type: 0,
            sq_sig_all: 0,
        };
        // SAFETY: a live pair, and room for both answers.
        answered(unsafe {
            (self.library().ibv_query_qp)(
                self.raw.as_ptr(),
                &mut attributes,
                rdma_sys::IBV_QP_STATE,
                &mut made_with,
            )
        })?;
        Ok(attributes.qp_state)
    }

    /// Posts one work request. The device itself holds registered pieces against its regions: an address outside of them makes
    /// a completion with an error.
    pub(crate) fn post_send(&self, work: &Work<'_>) -> io::Result<()> {
        let (mut sge, num_sge, inline) = match work.piece {
            Piece::None => (ibv_sge::default(), 0, 0),
            Piece::Registered(sge) => (sge, 1, 0),
            Piece::Inline(bytes) => {
                let sge = ibv_sge {
                    addr: bytes.as_ptr() as u64,
                    length: u32::try_from(bytes.len()).expect("bounded by the queue pair's inline_bytes_max"),
                    lkey: 0,
                };
                (sge, 1, IBV_SEND_INLINE)
            }
        };
        let mut request = ibv_send_wr {
            wr_id: work.wr_id,
            next: ptr::null_mut(),
            sg_list: &mut sge,
            num_sge,
            opcode: work.opcode,
            send_flags: work.flags | inline,
            imm_data: work.imm_data,
            wr: work.wr,
            qp_type: 0,
            bind_mw: bind_mw(work.binding),
        };
        let mut bad = ptr::null_mut();
        // SAFETY: a live pair; one request with at most one piece, both read before the call comes back: inline bytes are
        // borrowed for so long, registered ones belong to a region, which keeps its memory until it is closed.
        answered(unsafe { self.library().post_send(self.raw.as_ptr(), &mut request, &mut bad) })
    }

    /// Posts room for one message. As [`Pair::post_send`].
    pub(crate) fn post_receive(&self, wr_id: u64, piece: Option<ibv_sge>) -> io::Result<()> {
        let mut sge = piece.unwrap_or_default();
        let mut request = ibv_recv_wr {
            wr_id,
            next: ptr::null_mut(),
            sg_list: &mut sge,
            num_sge: c_int::from(piece.is_some()),
        };
        let mut bad = ptr::null_mut();
        // SAFETY: as in `post_send`.
        answered(unsafe { self.library().post_recv(self.raw.as_ptr(), &mut request, &mut bad) })
    }
}

fn bind_mw(binding: Option<Binding<'_>>) -> ibv_send_wr_bind_mw {
    let Some(of) = binding else {
        return ibv_send_wr_bind_mw {
            mw: ptr::null_mut(),
            rkey: 0,
            bind_info: ibv_mw_bind_info {
                mr: ptr::null_mut(),
                addr: 0,
                length: 0,
                mw_access_flags: 0,
            },
        };
    };
    ibv_send_wr_bind_mw {
        mw: of.window.raw.as_ptr(),
        rkey: of.rkey,
        bind_info: ibv_mw_bind_info {
            mr: of.region.raw.as_ptr(),
            addr: of.address,
            length: of.len_bytes,
            mw_access_flags: of.access_flags,
        },
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once, before its domain and its queue.
        unsafe { (self.library().ibv_destroy_qp)(self.raw.as_ptr()) };
    }
}
