//! The device without a log: one file, and the ways to read and write its blocks.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use dataplane_wal::{
    Buffer,
    blocks::{Access, BlockRing, RingOptions},
};
use nix::fcntl::OFlag;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::sampled::{self, CpuMeter, Sampled, WARM_UP, as_ns};
use crate::measure::Recorder;

/// Which block is next.
#[derive(Debug)]
pub enum Offsets {
    /// One behind the other, and again from the beginning.
    InOrder {
        /// The next one.
        at_bytes: u64,
    },
    /// Anywhere.
    Random(Box<Pcg64Mcg>),
}

impl Offsets {
    /// From the file's beginning.
    pub fn in_order() -> Offsets {
        Offsets::InOrder { at_bytes: 0 }
    }

    /// Drawn from the seed.
    pub fn random(seed: u64) -> Offsets {
        Offsets::Random(Box::new(Pcg64Mcg::seed_from_u64(seed)))
    }

    fn next(&mut self, block_bytes: usize, file_bytes: u64) -> u64 {
        let blocks_count = file_bytes / block_bytes as u64;
        match self {
            Offsets::InOrder { at_bytes } => {
                let now_bytes = *at_bytes;
                *at_bytes = (now_bytes + block_bytes as u64) % (blocks_count * block_bytes as u64);
                now_bytes
            }
            Offsets::Random(rng) => rng.random_range(0..blocks_count) * block_bytes as u64,
        }
    }
}

/// What is done again and again.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// A file that has been written from end to end.
    pub file: &'a Path,
    /// Its length.
    pub file_bytes: u64,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// For so long.
    pub duration: Duration,
    /// Or until this is set.
    pub stop: &'a AtomicBool,
}

/// How a system call makes a block durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durably {
    /// O_DIRECT and O_DSYNC: pwrite(2) alone.
    Dsync,
    /// Through the page cache: pwrite(2), then fdatasync(2).
    Fdatasync,
}

impl Job<'_> {
    fn open(&self, flags: OFlag) -> anyhow::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(flags.bits());
        options
            .open(self.file)
            .with_context(|| format!("opening {} with {flags:?}", self.file.display()))
    }

    /// Writes block after block, each durable before the next.
    ///
    /// # Errors
    /// The disk's.
    pub fn append(&self, durably: Durably) -> anyhow::Result<Sampled> {
        let mut offsets = Offsets::in_order();
        let block = Buffer::zeroed(self.block_bytes);
        let file = match durably {
            Durably::Dsync => self.open(OFlag::O_DIRECT | OFlag::O_DSYNC)?,
            Durably::Fdatasync => self.open(OFlag::empty())?,
        };
        sampled::closed(self.duration, self.stop, || {
            file.write_all_at(block.bytes(), offsets.next(self.block_bytes, self.file_bytes))?;
            if durably == Durably::Fdatasync {
                file.sync_data()?;
            }
            Ok(())
        })
    }

    /// Reads or writes blocks anywhere, O_DIRECT, by as many threads as are to be under way: a system call each.
    ///
    /// # Errors
    /// The disk's.
    pub fn blocking(&self, access: Access, in_flight_count: usize, seed: u64) -> anyhow::Result<Sampled> {
        let file = &self.open(match access {
            Access::WriteDurable => OFlag::O_DIRECT | OFlag::O_DSYNC,
            Access::Read | Access::Write => OFlag::O_DIRECT,
        })?;
        let one = |thread_index: u64| {
            let mut offsets = Offsets::random(seed.wrapping_add(thread_index));
            let mut block = Buffer::zeroed(self.block_bytes);
            sampled::closed(self.duration, self.stop, || {
                let at_bytes = offsets.next(self.block_bytes, self.file_bytes);
                match access {
                    Access::Read => file.read_exact_at(block.bytes_mut(), at_bytes)?,
                    Access::Write | Access::WriteDurable => file.write_all_at(block.bytes(), at_bytes)?,
                }
                Ok(())
            })
        };
        if in_flight_count == 1 {
            return one(0);
        }
        let one = &one;
        let parts: anyhow::Result<Vec<Sampled>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..in_flight_count as u64)
                .map(|index| scope.spawn(move || one(index)))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|part| part.unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
                .collect()
        });
        sampled::together(parts?).context("no thread measured")
    }

    /// Reads or writes blocks through a ring that keeps as many under way as it has.
    ///
    /// # Errors
    /// The kernel gives no such ring, or the disk's.
    pub fn ring(&self, access: Access, options: RingOptions, mut offsets: Offsets) -> anyhow::Result<Sampled> {
        let mut ring = BlockRing::new(self.open(OFlag::O_DIRECT)?, options).context("making the ring")?;
        let mut next = || offsets.next(options.block_bytes, self.file_bytes);
        let mut latency = Recorder::new();
        let warm = Instant::now();
        let mut started = vec![warm; options.depth];
        for (index, started) in started.iter_mut().enumerate() {
            *started = Instant::now();
            ring.start(index, access, next())?;
        }
        let mut begin: Option<(Instant, CpuMeter)> = None;
        loop {
            let done = ring.wait()?;
            anyhow::ensure!(
                done.len_bytes == options.block_bytes,
                "{} of {} bytes: the file is shorter than it was made",
                done.len_bytes,
                options.block_bytes
            );
            let now = Instant::now();
            match &begin {
                Some((since, cpu)) => {
                    latency.record(as_ns(now - started[done.index]));
                    if now - *since >= self.duration || self.stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let sampled = Sampled {
                            count: latency.total_count(),
                            latency,
                            elapsed: now - *since,
                            cpu: cpu.end(),
                        };
                        while ring.in_flight_count() > 0 {
                            ring.wait()?;
                        }
                        return Ok(sampled);
                    }
                }
                None if now - warm >= WARM_UP.min(self.duration) => begin = Some((now, CpuMeter::begin())),
                None => {}
            }
            started[done.index] = Instant::now();
            ring.start(done.index, access, next())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_stay_in_the_file_and_on_its_blocks() {
        let mut in_order = Offsets::in_order();
        let seen: Vec<u64> = (0..4).map(|_| in_order.next(512, 1600)).collect();
        assert_eq!(
            seen,
            [0, 512, 1024, 0],
            "the rest behind the last whole block is not used"
        );
        let (mut random, mut again) = (Offsets::random(7), Offsets::random(7));
        let mut has_moved = false;
        for _ in 0..1000 {
            let at_bytes = random.next(4096, 1 << 20);
            assert!(at_bytes.is_multiple_of(4096) && at_bytes + 4096 <= 1 << 20);
            assert_eq!(again.next(4096, 1 << 20), at_bytes, "the seed decides");
            has_moved |= at_bytes != 0;
        }
        assert!(has_moved);
    }
}
