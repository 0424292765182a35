//! The log's ring: durable writes that are started one after the other, and over in that order.

use std::{
    cell::Cell,
    collections::VecDeque,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::Bell;
use crate::{buffer::Buffer, fs::write_all, storage::Completion};

/// How many writes a ring takes: one commit on its way to the disk, one behind it, and room for those that are about to
/// be asked for.
pub(crate) const RING_DEPTH: usize = 4;
/// Memory that a ring remembers: what is under way, what is filled, and one that has just been outgrown.
const BUFFERS_MAX: usize = RING_DEPTH + 2;
/// Files that it remembers: the segment, and the one before.
const FILES_MAX: usize = 2;
/// What a completion says instead of a write's number when the kernel has let go of a file that it was shown.
const FILE_TAG: u64 = 1 << 63;
/// How long a ring that is closed waits for that: far longer than a thread that may run takes.
const LET_GO_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long before it looks again by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A log goes from the thread that opens it to the one that writes it, and perhaps to one that closes it.
const MOVES_MAX: u32 = 3;

/// What a ring has of what the kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gear {
    /// What a completion still has to do is done by the thread that asked for the write, when it looks for completions, and
    /// at no other time: nothing interrupts it (SINGLE_ISSUER and DEFER_TASKRUN, Linux 6.1). Who rests in poll(2) on such a ring is
    /// not woken, so an eventfd rings for it.
    pub(crate) defers: bool,
    /// Memory and files are shown to the kernel once (IORING_REGISTER_BUFFERS and _FILES, sparse since Linux 5.19), not with
    /// each write. That memory counts as locked (RLIMIT_MEMLOCK).
    pub(crate) registers: bool,
}

impl Gear {
    pub(crate) const PLAIN: Gear = Gear {
        defers: false,
        registers: false,
    };

    /// The most that this kernel gives to this process.
    ///
    /// # Errors
    /// There is no ring at all: EPERM (`kernel.io_uring_disabled`, seccomp), ENOSYS.
    pub(crate) fn probe(buffer_bytes: usize) -> io::Result<Gear> {
        let defers = match make(true) {
            Ok(uring) => uring
                .submitter()
                .register_eventfd(Bell::new()?.as_fd().as_raw_fd())
                .is_ok(),
            Err(_) => false,
        };
        let uring = make(defers)?;
        let mut known = Known::default();
        let buffers: Vec<Buffer> = (0..RING_DEPTH).map(|_| Buffer::zeroed(buffer_bytes)).collect();
        let registers =
            Known::prepare(&uring).is_ok() && buffers.iter().all(|buffer| known.buffer(&uring, buffer).is_ok());
        // The ring and its pins end before the memory does.
        drop(uring);
        Ok(Gear { defers, registers })
    }

    /// For records.
    pub(crate) const fn name(self) -> &'static str {
        match (self.registers, self.defers) {
            (true, true) => "uring: registered buffers and files, deferred task run",
            (true, false) => "uring: registered buffers and files",
            (false, true) => "uring: deferred task run",
            (false, false) => "uring: plain",
        }
    }
}

/// A ring. Where nothing is deferred, task work is done when the thread is in the kernel anyhow (Linux 5.19; older ones say EINVAL).
fn make(defers: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    match defers {
        true => builder.setup_single_issuer().setup_defer_taskrun(),
        false => builder.setup_coop_taskrun(),
    };
    match builder.build(RING_DEPTH as u32) {
        Err(error) if !defers && error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(RING_DEPTH as u32),
        built => built,
    }
}

/// What the kernel was shown, by its place in the kernel's tables. The oldest goes when a place is wanted.
#[derive(Debug, Default)]
struct Known {
    /// [`Buffer::id`]s: another buffer at the same address is other memory, and the kernel would write what stood in the old one.
    buffers: [Option<u64>; BUFFERS_MAX],
    next_buffer: usize,
    files: [Option<RawFd>; FILES_MAX],
    next_file: usize,
    /// Files that were shown, and that the kernel has not said it let go of.
    held_files_count: usize,
}

impl Known {
    fn prepare(uring: &IoUring) -> io::Result<()> {
        uring.submitter().register_buffers_sparse(BUFFERS_MAX as u32)?;
        uring.submitter().register_files_sparse(FILES_MAX as u32)
    }

    fn buffer(&mut self, uring: &IoUring, buffer: &Buffer) -> io::Result<u16> {
        if let Some(index) = self.buffers.iter().position(|&known| known == Some(buffer.id())) {
            return Ok(index as u16);
        }
        let index = self.next_buffer;
        self.buffers[index] = None;
        let memory = buffer.whole();
        let vector = libc::iovec {
            iov_base: memory.as_ptr().cast_mut().cast(),
            iov_len: memory.len(),
        };
        // SAFETY: the kernel holds the pages themselves, and uses them only for writes that name this place, which are made for
        // a buffer of this identity alone: one that is alive, at the same address.
        unsafe { uring.submitter().register_buffers_update(index as u32, &[vector], None) }?;
        self.buffers[index] = Some(buffer.id());
        self.next_buffer = (index + 1) % BUFFERS_MAX;
        Ok(index as u16)
    }

    fn file(&mut self, uring: &IoUring, fd: RawFd) -> io::Result<u32> {
        if let Some(index) = self.files.iter().position(|&known| known == Some(fd)) {
            return Ok(index as u32);
        }
        let index = self.next_file;
        self.files[index] = None;
        show_file(uring, index as u32, fd)?;
        self.held_files_count += 1;
        self.files[index] = Some(fd);
        self.next_file = (index + 1) % FILES_MAX;
        Ok(index as u32)
    }
}

/// IORING_REGISTER_FILES_UPDATE2 (Linux 5.13), which the crate does not wrap: a file in the place of another, with a tag by which the
/// kernel says that nothing uses it any more. No file: -1.
fn show_file(uring: &IoUring, index: u32, fd: RawFd) -> io::Result<()> {
    /// include/uapi/linux/io_uring.h, `struct io_uring_rsrc_update2`.
    #[repr(C)]
    struct Update {
        offset: u32,
        resv: u32,
        data: u64,
        tags: u64,
        nr: u32,
        resv2: u32,
    }
    const IORING_REGISTER_FILES_UPDATE2: libc::c_uint = 14;
    let (fds, tags) = ([fd], [if fd < 0 { 0 } else { FILE_TAG }]);
    let update = Update {
        offset: index,
        resv: 0,
        data: fds.as_ptr() as u64,
        tags: tags.as_ptr() as u64,
        nr: 1,
        resv2: 0,
    };
    // SAFETY: the kernel reads one structure of the length that is said, and one number of each list; all outlive the call.
    let updated = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            uring.as_raw_fd(),
            IORING_REGISTER_FILES_UPDATE2,
            &raw const update,
            size_of::<Update>(),
        )
    };
    match updated {
        1 => Ok(()),
        0.. => Err(io::Error::other("the kernel took no file")),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A write that was given to a ring.
#[derive(Debug)]
struct Write {
    fd: RawFd,
    at_bytes: u64,
    buffer: Buffer,
    written_bytes: usize,
    result: Option<io::Result<()>>,
}

/// A ring that is there, and the thread that made it.
struct Made {
    uring: IoUring,
    owner: ThreadId,
    defers: bool,
    registers: bool,
    known: Known,
    /// Rings when a write is over, where the ring itself does not.
    bell: Option<Bell>,
    /// Somebody may rest on the bell: nobody else pays for silencing it.
    is_watched: Cell<bool>,
}

impl Made {
    /// With what `gear` says; what the kernel refuses is taken out of it.
    fn new(gear: &mut Gear) -> io::Result<Made> {
        let (uring, bell) = match Made::deferred(gear.defers) {
            Some((uring, bell)) => (uring, Some(bell)),
            None => {
                gear.defers = false;
                (make(false)?, None)
            }
        };
        gear.registers = gear.registers && Known::prepare(&uring).is_ok();
        Ok(Made {
            uring,
            owner: thread::current().id(),
            defers: gear.defers,
            registers: gear.registers,
            known: Known::default(),
            bell,
            is_watched: Cell::new(false),
        })
    }

    fn deferred(wanted: bool) -> Option<(IoUring, Bell)> {
        if !wanted {
            return None;
        }
        let (uring, bell) = (make(true).ok()?, Bell::new().ok()?);
        uring.submitter().register_eventfd(bell.as_fd().as_raw_fd()).ok()?;
        Some((uring, bell))
    }

    /// Whether the kernel would refuse this thread (EEXIST): a ring with a single issuer is its maker's.
    fn is_closed_to_us(&self) -> bool {
        self.defers && self.owner != thread::current().id()
    }

    /// A write that is over.
    fn told(&mut self) -> Option<cqueue::Entry> {
        loop {
            let cqe = self.uring.completion().next()?;
            if cqe.user_data() != FILE_TAG {
                return Some(cqe);
            }
            self.known.held_files_count -= 1;
        }
    }

    fn silence(&self) {
        if let Some(bell) = &self.bell
            && self.is_watched.replace(false)
        {
            bell.clear();
        }
    }

    fn entry(&mut self, write: &Write, gear: &mut Gear) -> squeue::Entry {
        let rest = &write.buffer.bytes()[write.written_bytes..];
        let (at, len, offset) = (
            rest.as_ptr(),
            rest.len() as u32,
            write.at_bytes + write.written_bytes as u64,
        );
        if self.registers {
            let file = self.known.file(&self.uring, write.fd);
            match file.and_then(|file| Ok((file, self.known.buffer(&self.uring, &write.buffer)?))) {
                Ok((file, buffer)) => {
                    return opcode::WriteFixed::new(types::Fixed(file), at, len, buffer)
                        .offset(offset)
                        .rw_flags(libc::RWF_DSYNC)
                        .build();
                }
                // ENOMEM: no more memory may be locked. It is written as it is, and so is all that follows.
                Err(_) => (self.registers, gear.registers) = (false, false),
            }
        }
        opcode::Write::new(types::Fd(write.fd), at, len)
            .offset(offset)
            .rw_flags(libc::RWF_DSYNC)
            .build()
    }
}

impl Drop for Made {
    /// The kernel takes a ring apart some time after it is closed, and until then keeps the files it was shown open: a file system
    /// could not be unmounted. Nor can it while a thread of io-wq still holds a request whose completion we have seen, so that is
    /// waited for. Refused (another thread's ring), that is how it is.
    fn drop(&mut self) {
        if self.known.held_files_count == 0 || self.uring.submitter().unregister_files().is_err() {
            return;
        }
        let deadline = Instant::now() + LET_GO_WAIT_MAX;
        let look_again = types::Timespec::from(LOOK_AGAIN);
        loop {
            while self.told().is_some() {}
            if self.known.held_files_count == 0 || Instant::now() >= deadline {
                return;
            }
            let args = types::SubmitArgs::new().timespec(&look_again);
            // ETIME and EINTR mean the same: look again.
            let _ = self.uring.submitter().submit_with_args(1, &args);
        }
    }
}

/// A ring for durable writes (RWF_DSYNC), which are over in the order in which they were started. It is made with the first.
pub(crate) struct WriteRing {
    gear: Gear,
    made: Option<Made>,
    /// Oldest first.
    writes: VecDeque<Write>,
    /// The number of the oldest.
    first_number: u64,
    short_count: u64,
    /// How often another thread has gone on with it.
    moves_count: u32,
}

impl std::fmt::Debug for WriteRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteRing")
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

impl WriteRing {
    pub(crate) fn new(gear: Gear) -> WriteRing {
        WriteRing {
            gear,
            made: None,
            writes: VecDeque::with_capacity(RING_DEPTH),
            first_number: 0,
            short_count: 0,
            moves_count: 0,
        }
    }

    /// What it has, as far as the kernel has gone on giving it.
    pub(crate) fn gear(&self) -> Gear {
        self.gear
    }

    /// Writes that the kernel cut short.
    pub(crate) fn short_count(&self) -> u64 {
        self.short_count
    }

    /// Whether there is a ring.
    pub(crate) fn is_made(&self) -> bool {
        self.made.is_some()
    }

    /// Becomes readable when a write is over, until [`WriteRing::next`] has said so.
    pub(crate) fn bell(&self) -> Option<BorrowedFd<'_>> {
        let made = self.made.as_ref()?;
        match &made.bell {
            Some(bell) => {
                made.is_watched.set(true);
                Some(bell.as_fd())
            }
            // SAFETY: the descriptor is open as long as the ring, which is borrowed for as long.
            None => Some(unsafe { BorrowedFd::borrow_raw(made.uring.as_raw_fd()) }),
        }
    }

    /// The file is about to be closed: its number will be another file's.
    pub(crate) fn forget(&mut self, file: &File) {
        let Some(made) = &mut self.made else { return };
        let fd = file.as_raw_fd();
        if let Some(index) = made.known.files.iter().position(|&known| known == Some(fd)) {
            made.known.files[index] = None;
            // Refused (another thread's ring), the kernel keeps the file open until the place is taken or the ring ends.
            let _ = show_file(&made.uring, index as u32, -1);
        }
    }

    /// This thread ends, or gives the log to another, which could neither use the ring nor have it let go of the files.
    pub(crate) fn leave(&mut self) {
        if self.writes.is_empty() {
            self.made = None;
        }
    }

    /// Goes on in another thread than the one that made the ring, which alone could have its completions posted, and may have ended.
    /// What is under way is written again, the same bytes at the same place, and waited for. The kernel may still read the memory
    /// of the first attempt: it is never used again.
    fn take_over(&mut self) {
        for write in self.writes.iter_mut().filter(|write| write.result.is_none()) {
            let copy = write.buffer.copy();
            std::mem::forget(std::mem::replace(&mut write.buffer, copy));
            let bytes = write.buffer.bytes();
            let written = write_all(bytes, &mut self.short_count, |offset, rest| {
                super::write_durably(&write.fd, write.at_bytes + offset as u64, rest)
            });
            write.result = Some(written);
        }
        self.made = None;
        self.moves_count += 1;
        // Threads that take turns would make a new ring for each write: this one is for all of them.
        self.gear.defers &= self.moves_count < MOVES_MAX;
    }

    /// A ring that takes this thread's writes.
    fn prepare(&mut self) -> io::Result<()> {
        if self.made.as_ref().is_some_and(|made| made.is_closed_to_us()) {
            self.take_over();
        }
        if self.made.is_none() {
            self.made = Some(Made::new(&mut self.gear)?);
        }
        Ok(())
    }

    /// Starts a write. `file` stays open until it is over.
    pub(crate) fn start(&mut self, file: &File, at_bytes: u64, buffer: Buffer) -> io::Result<()> {
        self.prepare()?;
        assert!(
            self.writes.len() < RING_DEPTH,
            "{} writes are under way",
            self.writes.len()
        );
        self.writes.push_back(Write {
            fd: file.as_raw_fd(),
            at_bytes,
            buffer,
            written_bytes: 0,
            result: None,
        });
        self.submit(self.writes.len() - 1)
    }

    fn submit(&mut self, index: usize) -> io::Result<()> {
        let write = &self.writes[index];
        let made = self.made.as_mut().expect("it has been prepared");
        let sqe = made
            .entry(write, &mut self.gear)
            .user_data(self.first_number + index as u64);
        let uring = &mut made.uring;
        // SAFETY: the bytes are on the heap and belong to `writes` until the write's completion has been seen; what is
        // not over when this is dropped is waited for, or never freed.
        unsafe { uring.submission().push(&sqe) }.map_err(|_| io::Error::other("the submission queue is full"))?;
        loop {
            match uring.submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                submitted => return submitted.map(drop),
            }
        }
    }

    /// The oldest write if it is over; with `wait`, waits for it.
    pub(crate) fn next(&mut self, wait: bool) -> io::Result<Option<Completion>> {
        if self.writes.is_empty() {
            return Ok(None);
        }
        if let Some(made) = &self.made {
            // Before the look: what is over after it rings again.
            made.silence();
        }
        loop {
            self.collect()?;
            if self.writes[0].result.is_some() {
                let write = self.writes.pop_front().expect("there is one");
                self.first_number += 1;
                return Ok(Some(Completion {
                    buffer: write.buffer,
                    result: write.result.expect("it has been seen"),
                }));
            }
            let made = self.made.as_mut().expect("something is under way");
            if made.is_closed_to_us() {
                self.take_over();
                continue;
            }
            let uring = &mut made.uring;
            let entered = match wait {
                true => uring.submit_and_wait(1).map(drop),
                // What is due is done in any call; this one is for nothing else.
                // SAFETY: no argument points anywhere.
                false => unsafe {
                    uring
                        .submitter()
                        .enter::<libc::sigset_t>(0, 0, IORING_ENTER_GETEVENTS, None)
                }
                .map(drop),
            };
            match entered {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            if !wait {
                self.collect()?;
                if self.writes[0].result.is_none() {
                    return Ok(None);
                }
            }
        }
    }

    fn collect(&mut self) -> io::Result<()> {
        while let Some(cqe) = self.made.as_mut().and_then(Made::told) {
            let index = (cqe.user_data() - self.first_number) as usize;
            let write = &mut self.writes[index];
            match cqe.result() {
                0 => write.result = Some(Err(io::ErrorKind::WriteZero.into())),
                count @ 1.. => {
                    write.written_bytes += count as usize;
                    if write.written_bytes == write.buffer.bytes().len() {
                        write.result = Some(Ok(()));
                    } else {
                        self.short_count += 1;
                        self.submit(index)?;
                    }
                }
                errno if -errno == libc::EINTR => self.submit(index)?,
                errno => write.result = Some(Err(io::Error::from_raw_os_error(-errno))),
            }
        }
        Ok(())
    }
}

/// io_uring_enter(2): run what is due and look for completions.
const IORING_ENTER_GETEVENTS: u32 = 1;

impl Drop for WriteRing {
    fn drop(&mut self) {
        while !self.writes.is_empty() {
            if self.next(true).is_err() {
                // The kernel may still read them.
                std::mem::take(&mut self.writes).into_iter().for_each(std::mem::forget);
            }
        }
    }
}

#[cfg(test)]
mod tests;
