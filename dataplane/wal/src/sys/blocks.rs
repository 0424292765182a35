//! A ring for blocks that are read and written in any order, for `crate::blocks`.

use std::{fs::File, io, os::fd::AsRawFd};

use io_uring::{IoUring, opcode, squeue, types};

use crate::{
    blocks::{Access, Done, Polling, RingOptions},
    buffer::Buffer,
};

/// How long SQPOLL's thread looks before it sleeps, in milliseconds: longer than the device takes for anything.
const SQPOLL_IDLE_MS: u32 = 50;

pub(crate) struct Ring {
    uring: IoUring,
    file: File,
    is_registered: bool,
    blocks: Vec<Buffer>,
    is_under_way: Vec<bool>,
    in_flight_count: usize,
    /// Pushed and not yet submitted: one at most.
    has_pending: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("file", &self.file)
            .field("in_flight_count", &self.in_flight_count)
            .finish_non_exhaustive()
    }
}

impl Ring {
    pub(crate) fn new(file: File, mut blocks: Vec<Buffer>, options: RingOptions) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        match options.polling {
            Polling::Submissions => {
                builder.setup_sqpoll(SQPOLL_IDLE_MS);
            }
            Polling::Completions => {
                builder.setup_iopoll().setup_single_issuer().setup_defer_taskrun();
            }
            Polling::Off => {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
        }
        let uring = builder.build(options.depth as u32)?;
        if options.is_registered {
            let vectors: Vec<libc::iovec> = blocks
                .iter_mut()
                .map(|block| libc::iovec {
                    iov_base: block.bytes_mut().as_mut_ptr().cast(),
                    iov_len: options.block_bytes,
                })
                .collect();
            // SAFETY: the blocks' memory is on the heap and is freed only after the ring, which drops first, or never.
            unsafe { uring.submitter().register_buffers(&vectors) }?;
            uring.submitter().register_files(&[file.as_raw_fd()])?;
        }
        Ok(Ring {
            uring,
            file,
            is_registered: options.is_registered,
            is_under_way: vec![false; blocks.len()],
            blocks,
            in_flight_count: 0,
            has_pending: false,
        })
    }

    pub(crate) fn in_flight_count(&self) -> usize {
        self.in_flight_count
    }

    pub(crate) fn block(&self, index: usize) -> &Buffer {
        assert!(!self.is_under_way[index], "block {index} is under way");
        &self.blocks[index]
    }

    pub(crate) fn block_mut(&mut self, index: usize) -> &mut Buffer {
        assert!(!self.is_under_way[index], "block {index} is under way");
        &mut self.blocks[index]
    }

    pub(crate) fn start(&mut self, index: usize, access: Access, at_bytes: u64) -> io::Result<()> {
        if self.has_pending {
            self.enter(0)?;
        }
        let sqe = self.entry(index, access, at_bytes);
        // SAFETY: the block's memory stays where it is, and nobody looks at it, until its completion has been seen; what is
        // not over when this is dropped is waited for, or never freed. The file is open as long.
        unsafe { self.uring.submission().push(&sqe) }.map_err(|_| io::Error::other("the submission queue is full"))?;
        self.is_under_way[index] = true;
        self.in_flight_count += 1;
        self.has_pending = true;
        Ok(())
    }

    fn entry(&mut self, index: usize, access: Access, at_bytes: u64) -> squeue::Entry {
        let fd = self.file.as_raw_fd();
        let flags = if access == Access::WriteDurable {
            libc::RWF_DSYNC
        } else {
            0
        };
        let bytes = self.block_mut(index).bytes_mut();
        let (at, len) = (bytes.as_mut_ptr(), bytes.len() as u32);
        let sqe = match (access, self.is_registered) {
            (Access::Read, true) => opcode::ReadFixed::new(types::Fixed(0), at, len, index as u16)
                .offset(at_bytes)
                .build(),
            (Access::Read, false) => opcode::Read::new(types::Fd(fd), at, len).offset(at_bytes).build(),
            (_, true) => opcode::WriteFixed::new(types::Fixed(0), at, len, index as u16)
                .offset(at_bytes)
                .rw_flags(flags)
                .build(),
            (_, false) => opcode::Write::new(types::Fd(fd), at, len)
                .offset(at_bytes)
                .rw_flags(flags)
                .build(),
        };
        sqe.user_data(index as u64)
    }

    /// Submits what is pushed, and with `want` waits for that many.
    fn enter(&mut self, want: usize) -> io::Result<()> {
        loop {
            match self.uring.submit_and_wait(want) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                entered => {
                    entered?;
                    self.has_pending = false;
                    return Ok(());
                }
            }
        }
    }

    pub(crate) fn wait(&mut self) -> io::Result<Done> {
        assert!(self.in_flight_count > 0, "nothing is under way");
        loop {
            // With IOPOLL a wait may come back with nothing.
            if let Some(cqe) = self.uring.completion().next() {
                let index = cqe.user_data() as usize;
                self.is_under_way[index] = false;
                self.in_flight_count -= 1;
                return match cqe.result() {
                    len @ 0.. => Ok(Done {
                        index,
                        len_bytes: len as usize,
                    }),
                    errno => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
            self.enter(1)?;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.in_flight_count > 0 {
            let before = self.in_flight_count;
            // A block's own error ends that block; one that ends none is the ring's.
            if self.wait().is_err() && self.in_flight_count == before {
                // The kernel may still use them.
                std::mem::take(&mut self.blocks).into_iter().for_each(std::mem::forget);
                return;
            }
        }
    }
}
