//! The disk without a log: blocks of one file, many under way at once through io_uring. It is what a log is held against
//! when it is measured, and what reads and writes of whole blocks go through.

use std::{fs::File, io};

use crate::{buffer::Buffer, sys::blocks::Ring};

/// What is done with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read it.
    Read,
    /// Write it; the device has it, perhaps in a cache that loses power.
    Write,
    /// Write it and make it durable (RWF_DSYNC).
    WriteDurable,
}

/// Who looks for work, and for what is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Polling {
    /// Nobody: system calls submit, interrupts complete.
    #[default]
    Off,
    /// A kernel thread looks for submissions (IORING_SETUP_SQPOLL). It takes a CPU.
    Submissions,
    /// The waiting thread looks for completions in the device's queue (IORING_SETUP_IOPOLL). The device must have queues for
    /// that: NVMe with `poll_queues`.
    Completions,
}

/// How a ring is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RingOptions {
    /// Bytes of a block; a multiple of what direct I/O on the file asks for.
    pub block_bytes: usize,
    /// How many blocks may be under way; 1 to 4096.
    pub depth: usize,
    /// Files and memory are made known to the kernel beforehand, so that no request looks them up or pins pages.
    pub is_registered: bool,
    /// Who looks.
    pub polling: Polling,
}

/// A block that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Which of the ring's blocks.
    pub index: usize,
    /// How many bytes were read or written: all, or fewer at the file's end.
    pub len_bytes: usize,
}

/// A file's blocks through a ring of the calling thread's own. Each of its `depth` blocks is idle or under way; what is
/// under way is the kernel's, and cannot be looked at.
#[derive(Debug)]
pub struct BlockRing {
    ring: Ring,
}

impl BlockRing {
    /// Makes a ring for `file`, which was opened with O_DIRECT.
    ///
    /// # Errors
    /// The kernel gives no such ring: EPERM (`kernel.io_uring_disabled`, seccomp), ENOSYS, EINVAL (an older kernel), ENOMEM
    /// (registered memory counts against `ulimit -l`).
    ///
    /// # Panics
    /// On a depth or a block size that makes no sense.
    pub fn new(file: File, options: RingOptions) -> io::Result<BlockRing> {
        let RingOptions { block_bytes, depth, .. } = options;
        assert!((1..=4096).contains(&depth), "{depth} blocks under way");
        assert!(
            block_bytes > 0 && block_bytes.is_multiple_of(512) && block_bytes <= 1 << 30,
            "blocks of {block_bytes} bytes"
        );
        let blocks = (0..depth).map(|_| Buffer::zeroed(block_bytes)).collect();
        Ok(BlockRing {
            ring: Ring::new(file, blocks, options)?,
        })
    }

    /// How many blocks are under way.
    pub fn in_flight_count(&self) -> usize {
        self.ring.in_flight_count()
    }

    /// An idle block's bytes.
    ///
    /// # Panics
    /// If it is under way.
    pub fn block(&self, index: usize) -> &[u8] {
        self.ring.block(index).bytes()
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// If it is under way.
    pub fn block_mut(&mut self, index: usize) -> &mut [u8] {
        self.ring.block_mut(index).bytes_mut()
    }

    /// Starts to read or write an idle block at `at_bytes`. It reaches the kernel with the next start or the next wait,
    /// whichever comes first: several given to the kernel at once would wait for each other, because it holds back the
    /// first until it has seen the last (block plug).
    ///
    /// # Errors
    /// What io_uring_enter(2) says.
    ///
    /// # Panics
    /// If the block is under way.
    pub fn start(&mut self, index: usize, access: Access, at_bytes: u64) -> io::Result<()> {
        self.ring.start(index, access, at_bytes)
    }

    /// Waits until a block is over.
    ///
    /// # Errors
    /// The block's own error; the others go on.
    ///
    /// # Panics
    /// If nothing is under way: it would be for ever.
    pub fn wait(&mut self) -> io::Result<Done> {
        self.ring.wait()
    }
}
