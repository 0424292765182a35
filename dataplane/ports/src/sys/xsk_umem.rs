//! UMEM: the memory that an AF_XDP socket's frames lie in, and who owns each of them.
//!
//! ```text
//!            fill ──────▶ kernel ──────▶ receive          (a received frame comes back with bytes in it)
//!   Frame ─┤                                    ├─ Frame
//!            tx ────────▶ kernel ──────▶ complete         (a sent frame comes back to be written again)
//! ```
//!
//! What every SAFETY comment here leans on: a [`Frame`] is the right to touch one chunk. There is at most one for each chunk;
//! it can be neither copied nor made outside this file. Giving it to a ring consumes it and notes in `owners` which socket
//! took it and for what; it comes back only when that socket's ring names an address in that chunk, and only if the note
//! says so. So a wrong address from the kernel is an error: it can neither lead outside the memory nor make a second token
//! for a frame.

use std::{
    fmt, io,
    ops::Range,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
};

use super::mapping::Mapping;
use crate::xdp::OpenError;

/// XDP_UMEM_MIN_CHUNK_SIZE, net/xdp/xdp_umem.c. The most is a page.
const CHUNK_BYTES_MIN: usize = 2048;
const CHUNK_BYTES_MAX: usize = 4096;
/// One UMEM is at most this large.
const UMEM_BYTES_MAX: usize = 1 << 30;
/// Hugepagesize where the kernel's own is not told; x86-64's and arm64's default.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// In front of a frame that asks for something: `struct xsk_tx_metadata`, include/uapi/linux/if_xdp.h of Linux 6.14. libc has
/// the 16 bytes of 6.8; the kernel takes any length that is a multiple of 8 and looks at the start.
pub(crate) const TX_METADATA_BYTES: usize = 24;
const METADATA_FLAGS: Range<usize> = 0..8;
const METADATA_CHECKSUM_START: Range<usize> = 8..10;
const METADATA_CHECKSUM_OFFSET: Range<usize> = 10..12;
/// In the same place once the frame is sent.
const METADATA_STAMP: Range<usize> = 8..16;

/// What [`Umem::new`] needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UmemOptions {
    /// Bytes of one frame: 2048 or 4096. The kernel keeps the first 256 of a received one for itself.
    pub frame_bytes: usize,
    /// How many frames there are.
    pub frames_count: usize,
    /// Memory in huge pages, which must have been reserved (`/proc/sys/vm/nr_hugepages`).
    pub huge_pages: bool,
    /// Room in front of frames for what a sender can ask of the kernel or the device; Linux 6.8.
    pub tx_metadata: TxMetadata,
}

impl UmemOptions {
    /// Frames of 4096 bytes in ordinary pages, without metadata.
    pub fn new(frames_count: usize) -> UmemOptions {
        UmemOptions {
            frame_bytes: 4096,
            frames_count,
            huge_pages: false,
            tx_metadata: TxMetadata::None,
        }
    }
}

/// Whether a frame to send can ask for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TxMetadata {
    /// It cannot.
    None,
    /// It can ask for a checksum and a time stamp. The device makes the checksum; in copy mode the kernel leaves it to
    /// the device if that has the offload, and makes it otherwise.
    Device,
    /// The same, but the kernel makes the checksum (XDP_UMEM_TX_SW_CSUM): works everywhere in copy mode.
    Kernel,
}

/// The right to touch one frame of a UMEM. Move-only: whoever gave it away cannot touch the frame any more.
///
/// ```
/// use dataplane_ports::xdp::{Frame, Socket};
/// fn once(socket: &mut Socket, frame: Frame) {
///     let _ = socket.fill(frame);
/// }
/// ```
/// What was given to the kernel can neither be given again,
/// ```compile_fail,E0382
/// use dataplane_ports::xdp::{Frame, Socket};
/// fn twice(socket: &mut Socket, frame: Frame) {
///     let _ = socket.fill(frame);
///     let _ = socket.fill(frame);
/// }
/// ```
/// nor written,
/// ```compile_fail,E0382
/// use dataplane_ports::xdp::{Frame, Socket, TxRequest, Umem};
/// fn late(socket: &mut Socket, umem: &Umem, mut frame: Frame) {
///     let _ = socket.tx(frame, 0..64, false, TxRequest::default());
///     umem.bytes_mut(&mut frame)[0] = 1;
/// }
/// ```
/// nor be read through a slice of before;
/// ```compile_fail,E0505
/// use dataplane_ports::xdp::{Frame, Socket, Umem};
/// fn held(socket: &mut Socket, umem: &Umem, frame: Frame) -> u8 {
///     let bytes = umem.bytes(&frame);
///     let _ = socket.fill(frame);
///     bytes[0]
/// }
/// ```
/// and there is no second token for it.
/// ```compile_fail,E0599
/// use dataplane_ports::xdp::Frame;
/// fn copy(frame: Frame) -> (Frame, Frame) {
///     (frame.clone(), frame)
/// }
/// ```
/// The same with everything in order:
/// ```
/// use dataplane_ports::xdp::{Frame, Socket, TxRequest, Umem};
/// fn in_order(socket: &mut Socket, umem: &Umem, mut frame: Frame) -> u8 {
///     let first = umem.bytes(&frame)[0];
///     umem.bytes_mut(&mut frame)[0] = 1;
///     let _ = socket.tx(frame, 0..64, false, TxRequest::default());
///     first
/// }
/// ```
///
/// A dropped token is a frame that nobody can use again until its UMEM is made anew.
#[must_use = "a dropped token is a lost frame"]
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    umem_id: u32,
    index: u32,
}

impl Frame {
    /// Which of its UMEM's frames it is, from 0.
    pub fn index(&self) -> usize {
        self.index as usize
    }
}

/// A ring named memory that its socket does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadAddress {
    address: u64,
    len_bytes: u32,
    why: &'static str,
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a ring of this AF_XDP socket names address {} with {} bytes, {}: the kernel's side is corrupt; close the port and \
             open a new one",
            self.address, self.len_bytes, self.why
        )
    }
}

impl From<BadAddress> for io::Error {
    fn from(bad: BadAddress) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, bad.to_string())
    }
}

/// Who has a frame, as a number: 0 is whoever has its token, any other a socket and what it was given it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u16);

impl Owner {
    const TOKEN: Owner = Owner(0);
    const SOCKETS_MAX: u16 = u16::MAX >> 2;

    pub(crate) fn fill(socket_id: u16) -> Owner {
        Owner(socket_id << 2 | 1)
    }
    pub(crate) fn tx(socket_id: u16) -> Owner {
        Owner(socket_id << 2 | 2)
    }
}

/// Registered memory, divided into frames. A clone is another handle on the same memory.
#[derive(Clone)]
pub struct Umem(Arc<Inner>);

struct Inner {
    id: u32,
    memory: Mapping,
    options: UmemOptions,
    /// By index; see [`Owner`]. Changed only by whoever has the token, or by the one thread that has the socket that the
    /// note names: so relaxed loads and stores do, and never two change one.
    owners: Box<[AtomicU16]>,
    sockets_count: AtomicU16,
    /// The socket that the kernel knows the memory through, once there is one.
    first: Mutex<Option<Weak<OwnedFd>>>,
}

impl fmt::Debug for Umem {
    /// Without the owners: there are thousands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Umem")
            .field("id", &self.0.id)
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

// SAFETY: the memory is reached through tokens only, of which there is one for each chunk: `bytes` and `bytes_mut` borrow
// the token as they borrow the bytes, so two threads never have one chunk's bytes with one of them writing.
unsafe impl Sync for Inner {}

impl Umem {
    /// Makes the memory; the tokens of all its frames come with it.
    ///
    /// # Errors
    /// [`OpenError::Options`]; [`OpenError::NoHugePages`]; [`OpenError::Failed`] without memory.
    pub fn new(options: &UmemOptions) -> Result<(Umem, Vec<Frame>), OpenError> {
        let refuse = |why: String| Err(OpenError::Options(why));
        let UmemOptions {
            frame_bytes,
            frames_count,
            ..
        } = *options;
        if !frame_bytes.is_power_of_two() || !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&frame_bytes) {
            return refuse(format!(
                "frame_bytes of the UMEM is {frame_bytes}; the kernel takes {CHUNK_BYTES_MIN} or {CHUNK_BYTES_MAX}"
            ));
        }
        if frames_count == 0 || frames_count > UMEM_BYTES_MAX / frame_bytes {
            return refuse(format!(
                "frames_count of the UMEM is {frames_count}; it must be 1 to {} with frames of {frame_bytes} bytes",
                UMEM_BYTES_MAX / frame_bytes
            ));
        }
        let len_bytes = frame_bytes * frames_count;
        let memory = match options.huge_pages {
            false => Mapping::anonymous(len_bytes).map_err(|error| OpenError::Failed {
                asked: "mapping the memory of the frames",
                error,
            })?,
            true => {
                let mapped_bytes = len_bytes.next_multiple_of(HUGE_PAGE_BYTES);
                Mapping::huge(mapped_bytes).map_err(|error| OpenError::NoHugePages {
                    pages_count: mapped_bytes / HUGE_PAGE_BYTES,
                    error,
                })?
            }
        };
        static UMEMS_COUNT: AtomicU32 = AtomicU32::new(0);
        let id = UMEMS_COUNT.fetch_add(1, Ordering::Relaxed);
        assert!(id != u32::MAX, "4 294 967 295 UMEMs in one process");
        let inner = Inner {
            id,
            memory,
            options: *options,
            owners: (0..frames_count).map(|_| AtomicU16::new(Owner::TOKEN.0)).collect(),
            sockets_count: AtomicU16::new(0),
            first: Mutex::new(None),
        };
        let frames = (0..frames_count as u32)
            .map(|index| Frame { umem_id: id, index })
            .collect();
        Ok((Umem(Arc::new(inner)), frames))
    }

    /// How it was made.
    pub fn options(&self) -> &UmemOptions {
        &self.0.options
    }

    /// All bytes of `frame`.
    ///
    /// # Panics
    /// If it is another UMEM's.
    #[inline]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let frame_bytes = self.0.options.frame_bytes;
        let start = self.0.memory.at(self.start_bytes(frame), frame_bytes);
        // SAFETY: in bounds by `at`. The token is borrowed as long as the slice: nobody writes meanwhile, neither we (that
        // needs the token mutably) nor the kernel (that needs it given away).
        unsafe { std::slice::from_raw_parts(start, frame_bytes) }
    }

    /// All bytes of `frame`, to be written.
    ///
    /// # Panics
    /// If it is another UMEM's.
    #[inline]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let frame_bytes = self.0.options.frame_bytes;
        let start = self.0.memory.at(self.start_bytes(frame), frame_bytes);
        // SAFETY: as in `bytes`; and the token is borrowed mutably, so nobody reads either.
        unsafe { std::slice::from_raw_parts_mut(start, frame_bytes) }
    }

    /// Where `frame` begins in the memory, which is how rings name it.
    #[inline]
    pub(crate) fn start_bytes(&self, frame: &Frame) -> usize {
        assert_eq!(frame.umem_id, self.0.id, "this frame is another UMEM's");
        frame.index as usize * self.0.options.frame_bytes
    }

    /// Notes that a ring of `owner` has `frame`, whose token ends here. To be called before the ring publishes the address.
    #[inline]
    pub(crate) fn give(&self, frame: Frame, owner: Owner) {
        debug_assert_eq!(frame.umem_id, self.0.id);
        self.0.owners[frame.index as usize].store(owner.0, Ordering::Relaxed);
    }

    /// The token of the frame in which `address` lies, and where in the frame it does: what a ring of `owner` gives back.
    ///
    /// # Errors
    /// The address is outside the memory, the bytes outside the frame, or the frame was not given to this ring.
    #[inline]
    pub(crate) fn take_back(&self, address: u64, len_bytes: u32, owner: Owner) -> Result<(Frame, usize), BadAddress> {
        let bad = |why| BadAddress {
            address,
            len_bytes,
            why,
        };
        let frame_bytes = self.0.options.frame_bytes;
        let index = (address / frame_bytes as u64) as usize;
        let offset_bytes = (address % frame_bytes as u64) as usize;
        let Some(noted) = self.0.owners.get(index) else {
            return Err(bad("which is outside the memory"));
        };
        if len_bytes as usize > frame_bytes - offset_bytes {
            return Err(bad("which reach outside their frame"));
        }
        if noted.load(Ordering::Relaxed) != owner.0 {
            return Err(bad("in a frame that this ring was not given"));
        }
        noted.store(Owner::TOKEN.0, Ordering::Relaxed);
        let frame = Frame {
            umem_id: self.0.id,
            index: index as u32,
        };
        Ok((frame, offset_bytes))
    }

    /// For XDP_UMEM_REG.
    pub(crate) fn registration(&self) -> libc::xdp_umem_reg {
        let options = &self.0.options;
        let (flags, tx_metadata_len) = match options.tx_metadata {
            TxMetadata::None => (0, 0),
            TxMetadata::Device => (libc::XDP_UMEM_TX_METADATA_LEN, TX_METADATA_BYTES as u32),
            TxMetadata::Kernel => (
                libc::XDP_UMEM_TX_METADATA_LEN | libc::XDP_UMEM_TX_SW_CSUM,
                TX_METADATA_BYTES as u32,
            ),
        };
        libc::xdp_umem_reg {
            addr: self.0.memory.as_ptr() as u64,
            len: (options.frame_bytes * options.frames_count) as u64,
            chunk_size: options.frame_bytes as u32,
            headroom: 0,
            flags,
            tx_metadata_len,
        }
    }

    /// Runs `open` with the socket through which the kernel knows this memory, or with `None`: then `open` makes that socket
    /// and returns it. One at a time. `Err(None)`: that socket was closed.
    pub(crate) fn register<T, E>(
        &self,
        open: impl FnOnce(Option<Arc<OwnedFd>>) -> Result<(Arc<OwnedFd>, T), E>,
    ) -> Result<T, Option<E>> {
        let mut first = self.0.first.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = match &*first {
            None => None,
            Some(closed_or_open) => Some(closed_or_open.upgrade().ok_or(None)?),
        };
        let (socket, opened) = open(known).map_err(Some)?;
        first.get_or_insert_with(|| Arc::downgrade(&socket));
        Ok(opened)
    }

    /// A number for a new socket, from 1; `None` when there were more than the notes can name.
    pub(crate) fn new_socket_id(&self) -> Option<u16> {
        let counted = self
            .0
            .sockets_count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < Owner::SOCKETS_MAX).then_some(count + 1)
            });
        counted.ok().map(|before| before + 1)
    }
}

/// Writes a request into the room in front of a frame's bytes.
pub(crate) fn write_metadata(room: &mut [u8; TX_METADATA_BYTES], flags: u32, checksum: Option<(u16, u16)>) {
    let (start_bytes, offset_bytes) = checksum.unwrap_or_default();
    room.fill(0);
    room[METADATA_FLAGS].copy_from_slice(&u64::from(flags).to_ne_bytes());
    room[METADATA_CHECKSUM_START].copy_from_slice(&start_bytes.to_ne_bytes());
    room[METADATA_CHECKSUM_OFFSET].copy_from_slice(&offset_bytes.to_ne_bytes());
}

/// The stamp that a sent frame came back with; `None` if it did not ask, or the kernel did not answer.
pub(crate) fn read_stamp(room: &[u8; TX_METADATA_BYTES]) -> Option<u64> {
    let word = |range: Range<usize>| u64::from_ne_bytes(room[range].try_into().expect("eight bytes"));
    let has_asked = word(METADATA_FLAGS) & u64::from(libc::XDP_TXMD_FLAGS_TIMESTAMP) != 0;
    (has_asked && word(METADATA_STAMP) != 0).then(|| word(METADATA_STAMP))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn umem(frames_count: usize) -> (Umem, Vec<Frame>) {
        Umem::new(&UmemOptions {
            frame_bytes: 2048,
            ..UmemOptions::new(frames_count)
        })
        .expect("a few pages")
    }

    #[test]
    fn a_frame_comes_back_to_whom_it_was_given_and_once() {
        let (umem, mut frames) = umem(4);
        let owner = Owner::fill(1);
        let frame = frames.remove(2);
        umem.give(frame, owner);
        for other in [Owner::tx(1), Owner::fill(2), Owner::tx(2)] {
            assert!(umem.take_back(2 * 2048 + 256, 64, other).is_err(), "{other:?}");
        }
        let (frame, offset_bytes) = umem.take_back(2 * 2048 + 256, 64, owner).expect("as given");
        assert_eq!((frame.index(), offset_bytes), (2, 256));
        let again = umem
            .take_back(2 * 2048 + 256, 64, owner)
            .expect_err("it is ours already");
        assert!(again.to_string().contains("was not given"), "{again}");
        // Never given at all.
        assert!(umem.take_back(0, 64, owner).is_err());
    }

    proptest! {
        #[test]
        fn any_address_is_an_answer(address: u64, near in 0u64..5 * 2048, len_bytes: u32, short in 0u32..4096) {
            for (address, len_bytes) in [(address, len_bytes), (near, short), (near, len_bytes)] {
                let (umem, frames) = umem(4);
                let owner = Owner::tx(7);
                frames.into_iter().for_each(|frame| umem.give(frame, owner));
                let is_inside = address < 4 * 2048 && address % 2048 + u64::from(len_bytes) <= 2048;
                match umem.take_back(address, len_bytes, owner) {
                    Ok((frame, offset_bytes)) => {
                        prop_assert!(is_inside);
                        prop_assert_eq!((frame.index() * 2048 + offset_bytes) as u64, address);
                        prop_assert_eq!(umem.bytes(&frame).len(), 2048);
                    }
                    Err(_) => prop_assert!(!is_inside),
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "another UMEM's")]
    fn a_frame_of_another_umem_is_refused() {
        let (one, _) = umem(1);
        let (_, frames) = umem(1);
        one.bytes(&frames[0]);
    }

    #[test]
    fn options_that_the_kernel_would_refuse_are_refused() {
        for (frame_bytes, frames_count) in [(1024, 4), (3000, 4), (8192, 4), (2048, 0), (4096, usize::MAX)] {
            let options = UmemOptions {
                frame_bytes,
                ..UmemOptions::new(frames_count)
            };
            let error = Umem::new(&options).expect_err("it must be refused");
            assert!(matches!(error, OpenError::Options(_)), "{error}");
        }
    }

    #[test]
    fn a_stamp_is_there_only_if_it_was_asked_for() {
        let mut room = [0xff; TX_METADATA_BYTES];
        write_metadata(&mut room, libc::XDP_TXMD_FLAGS_CHECKSUM, Some((34, 6)));
        assert_eq!(read_stamp(&room), None);
        write_metadata(&mut room, libc::XDP_TXMD_FLAGS_TIMESTAMP, None);
        assert_eq!(read_stamp(&room), None);
        room[METADATA_STAMP].copy_from_slice(&77_u64.to_ne_bytes());
        assert_eq!(read_stamp(&room), Some(77));
    }
}
