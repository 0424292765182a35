//! One end of a pair of single-producer single-consumer rings: it produces into one, consumes from the other.
//!
//! The index protocol, which every SAFETY comment below leans on:
//!
//! ```text
//!        released            published          filled
//!           ▼                    ▼                 ▼
//!  ··free··│ consumer's to read │ producer's batch │··free··
//! ```
//!
//! A slot in `released..published` is the consumer's; every other slot is the producer's. The producer gives slots away
//! with a release store of `published`, the consumer gives them back with a release store of `released`; each reads the
//! other's index with an acquire load. So the two never touch the same slot at the same time.
//!
//! Both indices of a *shared* region may be scribbled over by a hostile peer. Our own index is therefore kept here and
//! only ever written to memory, the peer's is checked against it, and frames are copied word by word with atomics: a
//! peer can give us garbage or stop us, but cannot make us read outside a slot or break Rust's rules.

use std::{
    fmt, io,
    ptr::NonNull,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
    time::Duration,
};

use super::{
    futex,
    region::{Region, SLOT_HEADER_BYTES, Way},
};

/// Above this an index at connection is nonsense: a ring at 10⁹ frames per second gets there after 146 years.
const INDEX_MAX: u64 = 1 << 62;

/// One end. Two ends of opposite sides over one region make a link.
#[derive(Debug)]
pub(crate) struct RingEnd {
    region: Arc<Region>,
    tx_way: Way,
    rx_way: Way,
    /// Producer: frames written into slots, of which `published_end` the peer knows.
    filled_end: u64,
    published_end: u64,
    /// Producer: the peer's `released` as last read; read again only when the ring seems full.
    released_seen: u64,
    /// Consumer: frames taken out so far.
    taken_end: u64,
    /// Consumer: the peer's `published` as last read.
    published_seen: u64,
    /// A frame in private memory, for shared regions. Empty for private ones.
    bounce: Box<[u64]>,
}

/// Why a frame was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// The peer has not drained its ring.
    Full,
    /// The peer's index makes no sense.
    Corrupt(IndexCorrupt),
}

/// What one burst took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// Frames handed to the sink.
    pub(crate) frames_count: usize,
    /// Slots whose length was above the frame size: skipped.
    pub(crate) malformed_count: usize,
}

/// The peer wrote an index that the protocol cannot produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexCorrupt {
    index: &'static str,
    seen: u64,
    begin: u64,
    end: u64,
}

impl fmt::Display for IndexCorrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the peer's `{}` index is {}, outside {}..={}: its memory is corrupt, or two processes took the same side; \
             connect both sides to a new region",
            self.index, self.seen, self.begin, self.end
        )
    }
}

impl From<IndexCorrupt> for io::Error {
    fn from(corrupt: IndexCorrupt) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, corrupt.to_string())
    }
}

impl RingEnd {
    /// The end that produces into `tx_way`. Goes on where an earlier owner of this side stopped; frames that it had
    /// not published are lost.
    pub(crate) fn new(region: Arc<Region>, tx_way: Way) -> Result<RingEnd, IndexCorrupt> {
        let rx_way = match tx_way {
            Way::AToB => Way::BToA,
            Way::BToA => Way::AToB,
        };
        let published_end = region.direction(tx_way).published.load(Ordering::Acquire);
        let taken_end = region.direction(rx_way).released.load(Ordering::Acquire);
        // Our own indices come from memory this once. Far below u64::MAX, so that nothing after this can overflow.
        check("published", published_end, 0, INDEX_MAX)?;
        check("released", taken_end, 0, INDEX_MAX)?;
        let bounce_words = match region.is_shared() {
            true => region.geometry().frame_bytes_max().div_ceil(8),
            false => 0,
        };
        let mut end = RingEnd {
            region,
            tx_way,
            rx_way,
            filled_end: published_end,
            published_end,
            released_seen: published_end,
            taken_end,
            published_seen: taken_end,
            bounce: vec![0; bounce_words].into_boxed_slice(),
        };
        end.see_released()?;
        end.see_published()?;
        Ok(end)
    }

    /// Writes one frame of `len_bytes` into the next slot; the peer sees it after [`RingEnd::publish`].
    ///
    /// # Panics
    /// If `len_bytes` is above the geometry's `frame_bytes_max`.
    #[inline]
    pub(crate) fn push(&mut self, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), PushError> {
        let geometry = self.region.geometry();
        assert!(
            len_bytes <= geometry.frame_bytes_max(),
            "{len_bytes} above {}",
            geometry.frame_bytes_max()
        );
        if self.filled_end - self.released_seen == geometry.slots_count() as u64 {
            self.see_released().map_err(PushError::Corrupt)?;
            if self.filled_end - self.released_seen == geometry.slots_count() as u64 {
                return Err(PushError::Full);
            }
        }
        let slot = Slot(self.region.slot(self.tx_way, self.filled_end));
        slot.len().store(len_bytes as u32, Ordering::Relaxed);
        if self.region.is_shared() {
            fill(&mut bytes_of_mut(&mut self.bounce)[..len_bytes]);
            slot.copy_in(&self.bounce[..len_bytes.div_ceil(8)]);
        } else {
            // SAFETY: private memory; the slot is the producer's by the index protocol (it is not in
            // `released..published`), `&mut self` is the only producer, and `len_bytes` fits the slot (asserted).
            fill(unsafe { slot.frame_mut(len_bytes) });
        }
        self.filled_end += 1;
        Ok(())
    }

    /// Frames written but not yet published.
    #[inline]
    pub(crate) fn unpublished_count(&self) -> usize {
        (self.filled_end - self.published_end) as usize
    }

    /// Gives all written frames to the peer: one store for the whole batch. True if a sleeping peer had to be woken,
    /// which is a system call.
    #[inline]
    pub(crate) fn publish(&mut self) -> bool {
        if self.published_end == self.filled_end {
            return false;
        }
        self.published_end = self.filled_end;
        let direction = self.region.direction(self.tx_way);
        direction.published.store(self.published_end, Ordering::Release);
        if !self.region.geometry().sleeps() {
            return false;
        }
        // Either we see the peer's `sleeping`, or it sees our `published` before it sleeps: this fence and the one in
        // `sleep` order each side's store before its load (Dekker's pattern).
        fence(Ordering::SeqCst);
        let wake = direction.sleeping.load(Ordering::Relaxed) != 0;
        if wake {
            futex::wake_one(&direction.published);
        }
        wake
    }

    /// Sleeps until the peer publishes, at most `max`. True if it did sleep (or tried to: a system call was made).
    pub(crate) fn sleep(&mut self, max: Duration) -> bool {
        let direction = self.region.direction(self.rx_way);
        direction.sleeping.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // Whatever a hostile peer writes here, we sleep for `max` at most.
        let published = direction.published.load(Ordering::Acquire);
        let empty = published == self.taken_end;
        if empty {
            futex::wait(&direction.published, published, max);
        }
        direction.sleeping.store(0, Ordering::Relaxed);
        empty
    }

    /// Hands up to `frames_max` frames to `sink` and gives their slots back.
    #[inline]
    pub(crate) fn pull(&mut self, frames_max: usize, mut sink: impl FnMut(&[u8])) -> Result<Pulled, IndexCorrupt> {
        if self.published_seen - self.taken_end < frames_max as u64 {
            self.see_published()?;
        }
        let frame_bytes_max = self.region.geometry().frame_bytes_max();
        let end = self.published_seen.min(self.taken_end + frames_max as u64);
        if end == self.taken_end {
            return Ok(Pulled::default());
        }
        let mut pulled = Pulled::default();
        for index in self.taken_end..end {
            let slot = Slot(self.region.slot(self.rx_way, index));
            // Read once: a peer may change it between the check and the use.
            let len_bytes = slot.len().load(Ordering::Relaxed) as usize;
            if len_bytes > frame_bytes_max {
                pulled.malformed_count += 1;
                continue;
            }
            pulled.frames_count += 1;
            if self.region.is_shared() {
                slot.copy_out(&mut self.bounce[..len_bytes.div_ceil(8)]);
                sink(&bytes_of(&self.bounce)[..len_bytes]);
            } else {
                // SAFETY: private memory; the slot is in `released..published`, so the consumer's until the store
                // below, `&mut self` is the only consumer, and the length was checked.
                sink(unsafe { slot.frame(len_bytes) });
            }
        }
        self.taken_end = end;
        self.region
            .direction(self.rx_way)
            .released
            .store(end, Ordering::Release);
        Ok(pulled)
    }

    fn see_released(&mut self) -> Result<(), IndexCorrupt> {
        let seen = self.region.direction(self.tx_way).released.load(Ordering::Acquire);
        // The peer releases forward, and never more than it was given.
        let begin = self
            .filled_end
            .saturating_sub(self.region.geometry().slots_count() as u64);
        self.released_seen = check("released", seen, begin, self.filled_end)?;
        Ok(())
    }

    fn see_published(&mut self) -> Result<(), IndexCorrupt> {
        let seen = self.region.direction(self.rx_way).published.load(Ordering::Acquire);
        // The peer publishes forward, and never more than a ring ahead of what we released.
        let end = self
            .taken_end
            .saturating_add(self.region.geometry().slots_count() as u64);
        self.published_seen = check("published", seen, self.taken_end, end)?;
        Ok(())
    }
}

#[inline]
fn check(index: &'static str, seen: u64, begin: u64, end: u64) -> Result<u64, IndexCorrupt> {
    if (begin..=end).contains(&seen) {
        Ok(seen)
    } else {
        Err(IndexCorrupt {
            index,
            seen,
            begin,
            end,
        })
    }
}

/// The address of a slot: `[length: u32][padding: 4][frame…]`, aligned to a cache line. Made from [`Region::slot`] only,
/// and not kept beyond the call, so the memory is there.
#[derive(Clone, Copy)]
struct Slot(NonNull<u8>);

impl Slot {
    #[inline]
    fn len<'a>(self) -> &'a AtomicU32 {
        // SAFETY: the first four bytes of a slot are only ever used as this atomic; see `Slot` for alignment and life.
        unsafe { self.0.cast::<AtomicU32>().as_ref() }
    }

    /// # Safety
    /// Private memory, the slot is the caller's to write by the index protocol, `len_bytes` is within the slot.
    #[inline]
    unsafe fn frame_mut<'a>(self, len_bytes: usize) -> &'a mut [u8] {
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts_mut(self.0.as_ptr().add(SLOT_HEADER_BYTES), len_bytes) }
    }

    /// # Safety
    /// Private memory, the slot is the caller's to read by the index protocol, `len_bytes` is within the slot.
    #[inline]
    unsafe fn frame<'a>(self, len_bytes: usize) -> &'a [u8] {
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts(self.0.as_ptr().add(SLOT_HEADER_BYTES), len_bytes) }
    }

    fn copy_in(self, words: &[u64]) {
        for (i, word) in words.iter().enumerate() {
            self.word(i).store(*word, Ordering::Relaxed);
        }
    }

    fn copy_out(self, words: &mut [u64]) {
        for (i, word) in words.iter_mut().enumerate() {
            *word = self.word(i).load(Ordering::Relaxed);
        }
    }

    #[inline]
    fn word<'a>(self, i: usize) -> &'a AtomicU64 {
        // SAFETY: both callers' slices are cut from `bounce`, so `i < frame_bytes_max.div_ceil(8)`, and a slot holds its
        // header and frame_bytes_max rounded up to whole cache lines. Shared memory is reached through atomics only.
        unsafe { self.0.add(SLOT_HEADER_BYTES + 8 * i).cast::<AtomicU64>().as_ref() }
    }
}

fn bytes_of(words: &[u64]) -> &[u8] {
    // SAFETY: any u64 is eight valid bytes, and u8 has no alignment.
    unsafe { slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

fn bytes_of_mut(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: as above, and any eight bytes are a valid u64.
    unsafe { slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}

#[cfg(test)]
mod tests;
