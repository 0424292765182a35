//! The memory under a pair of rings: our own heap (loopback) or a memfd that two processes map (shm).
//!
//! ```text
//!   0      identity   magic, version, slots, frame bytes, wake    ┐
//! 128      A→B published   (written by A, read by B)              │
//! 256      A→B released    (written by B, read by A)              │ Control: atomics only,
//! 384      A→B sleeping    (written by B, read by A)              │ one writer per cache line
//! 512      B→A published                                          │
//! 640      B→A released                                           │
//! 768      B→A sleeping                                           ┘
//! 896      A→B slots: slots × slot bytes
//!   …      B→A slots: slots × slot bytes
//! ```

use std::{
    alloc::{self, Layout},
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use crossbeam::utils::CachePadded;

/// Bytes in a cache line on every processor we run on; slots are whole lines.
const LINE_BYTES: usize = 64;
/// A slot begins with the frame's length, padded so that the frame itself is aligned for word copies.
pub(crate) const SLOT_HEADER_BYTES: usize = 8;
/// "dplabrng", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"dplabrng");
/// Changes when the layout above does.
const VERSION: u64 = 1;
const PAGE_BYTES: usize = 4096;

/// The most slots one ring may have, so that a region's size cannot overflow or take the machine down.
pub(crate) const SLOTS_COUNT_MAX: usize = 1 << 16;
/// The largest frame a slot may be made for.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 16;

/// What two ends must agree on. Checked once; the copy in shared memory is never read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// A power of two.
    slots_count: usize,
    frame_bytes_max: usize,
    /// Consumers may sleep on a futex, so producers look whether they do.
    sleeps: bool,
}

impl Geometry {
    /// Checks the bounds: a power of two of at most [`SLOTS_COUNT_MAX`] slots, frames of 1 to [`FRAME_BYTES_MAX`].
    pub(crate) fn new(slots_count: usize, frame_bytes_max: usize) -> Result<Geometry, String> {
        if !slots_count.is_power_of_two() || slots_count > SLOTS_COUNT_MAX {
            return Err(format!(
                "slots_count is {slots_count}; it must be a power of two of at most {SLOTS_COUNT_MAX}"
            ));
        }
        if frame_bytes_max == 0 || frame_bytes_max > FRAME_BYTES_MAX {
            return Err(format!(
                "frame_bytes_max is {frame_bytes_max}; it must be 1 to {FRAME_BYTES_MAX}"
            ));
        }
        Ok(Geometry {
            slots_count,
            frame_bytes_max,
            sleeps: false,
        })
    }

    /// The same rings, for consumers that sleep.
    pub(crate) fn sleeping(self) -> Geometry {
        Geometry { sleeps: true, ..self }
    }

    pub(crate) fn sleeps(self) -> bool {
        self.sleeps
    }

    pub(crate) fn slots_count(self) -> usize {
        self.slots_count
    }

    pub(crate) fn frame_bytes_max(self) -> usize {
        self.frame_bytes_max
    }

    /// Whole cache lines, and an odd number of them: a power-of-two stride would put the first line of every slot
    /// (the only one that a small frame touches) into the same few cache sets.
    pub(crate) fn slot_bytes(self) -> usize {
        let lines_count = (SLOT_HEADER_BYTES + self.frame_bytes_max).div_ceil(LINE_BYTES);
        (lines_count | 1) * LINE_BYTES
    }

    fn ring_bytes(self) -> usize {
        self.slots_count * self.slot_bytes()
    }

    fn region_bytes(self) -> usize {
        (size_of::<Control>() + 2 * self.ring_bytes()).next_multiple_of(PAGE_BYTES)
    }
}

/// The first bytes of a region. Atomics only, so that a reference to it stays sound whatever a peer writes.
#[repr(C)]
pub(crate) struct Control {
    identity: CachePadded<[AtomicU64; 5]>,
    directions: [Direction; 2],
}

/// The two indices of one ring, and its consumer's bed. The indices count frames since the region was made and never wrap (2⁶⁴ frames).
#[repr(C)]
pub(crate) struct Direction {
    /// Exclusive end of the slots that the producer has filled.
    pub(crate) published: CachePadded<AtomicU64>,
    /// Exclusive end of the slots that the consumer has given back.
    pub(crate) released: CachePadded<AtomicU64>,
    /// 1 while the consumer is about to sleep, or sleeps, on `published`.
    pub(crate) sleeping: CachePadded<AtomicU32>,
}

const _: () = assert!(
    size_of::<Control>().is_multiple_of(LINE_BYTES),
    "slots begin on a cache line"
);
const _: () = assert!(align_of::<Control>() <= PAGE_BYTES, "a mapping is aligned for Control");

/// Which of the two rings: the producer of [`Way::AToB`] is side A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    AToB,
    BToA,
}

/// A mapped region. Dropped when the last end lets go.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    geometry: Geometry,
    memory: Memory,
}

#[derive(Clone, Copy, Debug)]
enum Memory {
    /// Ours alone: slots may be lent in place.
    Private(Layout),
    /// A peer may write it at any time: frames are copied with atomic words.
    Shared { len_bytes: usize },
}

// SAFETY: a Region is an address and constants; the memory behind it is reached through atomics, or through slots
// whose exclusive use the index protocol of `ring.rs` hands from one end to the other.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Zeroed heap memory, touched once so that no page fault falls into a measurement.
    pub(crate) fn private(geometry: Geometry) -> Region {
        let layout = Layout::from_size_align(geometry.region_bytes(), PAGE_BYTES)
            .expect("bounded by SLOTS_COUNT_MAX and FRAME_BYTES_MAX");
        // SAFETY: the layout's size is not zero (Control alone is larger).
        let base = unsafe { alloc::alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else {
            alloc::handle_alloc_error(layout)
        };
        for at in (0..layout.size()).step_by(PAGE_BYTES) {
            // SAFETY: `at` is inside the allocation, which nobody else has yet. Volatile, so that it is not elided.
            unsafe { base.add(at).write_volatile(0) };
        }
        Region {
            base,
            geometry,
            memory: Memory::Private(layout),
        }
    }

    /// Maps a new memfd, which `geometry` must have sized ([`Region::file_bytes`]), and writes its identity.
    pub(crate) fn shared_create(file: impl AsFd, geometry: Geometry) -> io::Result<Region> {
        let region = Region::map(file, geometry)?;
        let [magic, version, slots_count, frame_bytes_max, sleeps] = &*region.control().identity;
        version.store(VERSION, Ordering::Relaxed);
        slots_count.store(geometry.slots_count as u64, Ordering::Relaxed);
        frame_bytes_max.store(geometry.frame_bytes_max as u64, Ordering::Relaxed);
        sleeps.store(geometry.sleeps.into(), Ordering::Relaxed);
        // Last, so that a peer that sees the magic sees the rest.
        magic.store(MAGIC, Ordering::Release);
        Ok(region)
    }

    /// Maps a peer's file of `file_bytes` bytes. The caller has made sure that it cannot shrink.
    ///
    /// # Errors
    /// `InvalidData`, naming the field of the identity that makes no sense.
    pub(crate) fn shared_open(file: impl AsFd, file_bytes: usize) -> io::Result<Region> {
        let smallest = Geometry::new(1, 1).expect("the smallest geometry is valid");
        if file_bytes < smallest.region_bytes() {
            return Err(invalid(format!("the file has {file_bytes} bytes, too few for a ring")));
        }
        let probe = Region::map(&file, smallest)?;
        let [magic, version, slots_count, frame_bytes_max, sleeps] =
            [0, 1, 2, 3, 4].map(|i| probe.control().identity[i].load(Ordering::Acquire));
        drop(probe);
        if magic != MAGIC {
            return Err(invalid(format!(
                "magic is {magic:#018x}, not {MAGIC:#018x}: not a ring"
            )));
        }
        if version != VERSION {
            return Err(invalid(format!("version is {version}; this program speaks {VERSION}")));
        }
        // Above the bounds, `as` could only wrap on 32-bit machines; the bounds then refuse, or the size does.
        let geometry = Geometry::new(slots_count as usize, frame_bytes_max as usize).map_err(invalid)?;
        let geometry = match sleeps {
            0 => geometry,
            1 => geometry.sleeping(),
            other => return Err(invalid(format!("wake is {other}; 0 spins and 1 sleeps"))),
        };
        if geometry.region_bytes() != file_bytes {
            return Err(invalid(format!(
                "{slots_count} slots for frames of {frame_bytes_max} bytes need {} bytes; the file has {file_bytes}",
                geometry.region_bytes()
            )));
        }
        Region::map(file, geometry)
    }

    /// The size that a file for `geometry` must have.
    pub(crate) fn file_bytes(geometry: Geometry) -> usize {
        geometry.region_bytes()
    }

    fn map(file: impl AsFd, geometry: Geometry) -> io::Result<Region> {
        let len_bytes = geometry.region_bytes();
        // SAFETY: a new mapping at an address of the kernel's choice; it touches no memory of ours.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Region {
            base: NonNull::new(base.cast()).expect("the kernel maps nothing at address zero unasked"),
            geometry,
            memory: Memory::Shared { len_bytes },
        })
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// True if a peer process may write this memory.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.memory, Memory::Shared { .. })
    }

    pub(crate) fn direction(&self, way: Way) -> &Direction {
        &self.control().directions[way as usize]
    }

    /// The slot for frame number `index`: `slot_bytes` bytes, aligned to a cache line.
    #[inline]
    pub(crate) fn slot(&self, way: Way, index: u64) -> NonNull<u8> {
        let slot = (index as usize) & (self.geometry.slots_count - 1);
        let at = size_of::<Control>() + way as usize * self.geometry.ring_bytes() + slot * self.geometry.slot_bytes();
        // SAFETY: `slot < slots_count`, so the slot ends inside `region_bytes`, which is what was allocated or mapped.
        unsafe { self.base.add(at) }
    }

    fn control(&self) -> &Control {
        // SAFETY: the region begins with a Control, is page-aligned, zeroed at birth (all zero is a valid Control),
        // and lives as long as `self`. Control is atomics only, so concurrent writers are sound.
        unsafe { self.base.cast::<Control>().as_ref() }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        match self.memory {
            // SAFETY: allocated in `private` with this layout; no end is left, for each holds an Arc of this Region.
            Memory::Private(layout) => unsafe { alloc::dealloc(self.base.as_ptr(), layout) },
            // SAFETY: mapped in `map` with this length; no end is left, as above.
            Memory::Shared { len_bytes } => unsafe {
                libc::munmap(self.base.as_ptr().cast(), len_bytes);
            },
        }
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use nix::{
        sys::memfd::{MFdFlags, memfd_create},
        unistd::ftruncate,
    };

    use super::*;

    fn file(bytes: usize) -> std::os::fd::OwnedFd {
        let file = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).expect("memfd");
        ftruncate(&file, bytes as i64).expect("room");
        file
    }

    #[test]
    fn slots_lie_apart_and_inside() {
        for (slots_count, frame_bytes_max) in [(1, 1), (2, 56), (4, 57), (256, 9000), (8, 1 << 16)] {
            let geometry = Geometry::new(slots_count, frame_bytes_max).expect("valid");
            let region = Region::private(geometry);
            let mut begins: Vec<usize> = [Way::AToB, Way::BToA]
                .iter()
                .flat_map(|way| (0..slots_count as u64).map(|i| region.slot(*way, i).addr().get()))
                .collect();
            begins.sort_unstable();
            let base = region.base.addr().get();
            assert!(begins[0] >= base + size_of::<Control>());
            assert!(
                begins
                    .windows(2)
                    .all(|pair| pair[1] - pair[0] >= SLOT_HEADER_BYTES + frame_bytes_max)
            );
            let end = begins.last().expect("slots") + SLOT_HEADER_BYTES + frame_bytes_max;
            assert!(end <= base + geometry.region_bytes());
            assert_eq!(region.slot(Way::AToB, 0), region.slot(Way::AToB, slots_count as u64));
        }
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        for (slots_count, frame_bytes_max) in [(0, 64), (3, 64), (SLOTS_COUNT_MAX * 2, 64), (4, 0), (4, 1 << 17)] {
            let why = Geometry::new(slots_count, frame_bytes_max).expect_err("out of bounds");
            assert!(why.contains("must be"), "{why}");
        }
    }

    /// Each field of the header, overwritten by a peer, is refused by name.
    #[test]
    fn a_header_that_makes_no_sense_is_refused_by_name() {
        let geometry = Geometry::new(4, 64).expect("valid");
        for (field, value, complaint) in [
            (0, 0, "magic"),
            (1, 2, "version"),
            (2, 3, "slots_count"),
            (2, u64::MAX, "slots_count"),
            (2, 64, "the file has"),
            (3, 0, "frame_bytes_max"),
            (3, 1 << 40, "frame_bytes_max"),
            (3, 9000, "the file has"),
            (4, 2, "wake"),
        ] {
            let file = file(geometry.region_bytes());
            let region = Region::shared_create(&file, geometry).expect("region");
            Region::shared_open(&file, geometry.region_bytes()).expect("a good header");
            region.control().identity[field].store(value, Ordering::Relaxed);
            let error = Region::shared_open(&file, geometry.region_bytes()).expect_err("a bad header");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(
                error.to_string().contains(complaint),
                "field {field} = {value}: {error}"
            );
        }
    }

    #[test]
    fn a_file_too_short_for_a_header_is_refused() {
        for bytes in [0, 1, 4095] {
            let error = Region::shared_open(file(bytes), bytes).expect_err("too short");
            assert!(error.to_string().contains("too few"), "{error}");
        }
    }
}
