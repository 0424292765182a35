//! What stands beside a commit: a disk that writes as much as often with nobody waiting for anybody, and a ping-pong over the
//! same sockets.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context;
use dataplane_waist::{Clock, MonotonicClock};
use nix::fcntl::OFlag;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use crate::{
    backends::BackEnd,
    host::{self, MachineClock, Seat},
    measure::Recorder,
    replicas::{Arrivals, Client, ClientOptions, Ground, Network, ReplicaRole, Replicas},
};

/// What a log writes for one small entry: one sector, if the device takes so little, else a page.
const WRITE_BYTES: [usize; 2] = [512, 4096];
/// The strictest alignment of memory that a device in use asks for.
const ALIGN_BYTES: usize = 4096;
/// Each writer goes round in a file of this length, written once before, so that no write allocates.
const FILE_BYTES: u64 = 1 << 20;

/// Writers with a file each, and what a write takes from its intended time.
pub(super) struct Disk {
    files: Vec<File>,
    /// Bytes of each write.
    pub write_bytes: usize,
}

impl Disk {
    /// Makes the files.
    ///
    /// # Errors
    /// No room, or a file system without direct I/O.
    pub(super) fn open(folder: &Path, writers_count: usize) -> anyhow::Result<Disk> {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let files = (0..writers_count).map(|writer| {
            let path = folder.join(format!("raw-{writer}"));
            let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
            file.write_all_at(&vec![1; FILE_BYTES as usize], 0)
                .and_then(|()| file.sync_all())
                .with_context(|| format!("writing {}", path.display()))?;
            let direct = OFlag::O_DIRECT | OFlag::O_DSYNC;
            OpenOptions::new()
                .write(true)
                .custom_flags(direct.bits())
                .open(&path)
                .with_context(|| format!("opening {} for direct I/O", path.display()))
        });
        let files: Vec<File> = files.collect::<anyhow::Result<_>>()?;
        let memory = Aligned::new();
        let takes = |bytes: &usize| files[0].write_all_at(memory.bytes(*bytes), 0).is_ok();
        let write_bytes = WRITE_BYTES.into_iter().find(takes).with_context(|| {
            format!(
                "{} takes no direct write of {WRITE_BYTES:?} bytes: choose another place (--out)",
                folder.display()
            )
        })?;
        Ok(Disk { files, write_bytes })
    }

    /// Every writer writes by a schedule of its own for `duration`, each write durable before the next.
    ///
    /// # Errors
    /// A write failed.
    pub(super) fn write(
        &self,
        period: Duration,
        duration: Duration,
        seed: u64,
        stop: &AtomicBool,
    ) -> anyhow::Result<Recorder> {
        let begin_ns = MachineClock.now().as_ns();
        let end_ns = begin_ns + duration.as_nanos() as u64;
        let one = |writer: usize, file: &File| -> anyhow::Result<Recorder> {
            let _ = host::settle("writer", SEAT);
            let memory = Aligned::new();
            let mut rng = Pcg64Mcg::seed_from_u64(seed ^ ((writer as u64 + 1) << 40));
            let mut recorder = Recorder::new();
            let mut due_ns = begin_ns;
            let mut at_bytes = 0;
            loop {
                due_ns += Arrivals::Poisson.gap(period, &mut rng).as_nanos() as u64;
                if due_ns >= end_ns || stop.load(Ordering::Relaxed) {
                    return Ok(recorder);
                }
                let early_ns = due_ns.saturating_sub(MachineClock.now().as_ns());
                if early_ns > 0 {
                    std::thread::sleep(Duration::from_nanos(early_ns));
                }
                file.write_all_at(memory.bytes(self.write_bytes), at_bytes)
                    .context("writing to the disk")?;
                recorder.record(MachineClock.now().as_ns() - due_ns);
                at_bytes = (at_bytes + self.write_bytes as u64) % FILE_BYTES;
            }
        };
        std::thread::scope(|scope| {
            let writers: Vec<_> = self
                .files
                .iter()
                .enumerate()
                .map(|(writer, file)| scope.spawn(move || one(writer, file)))
                .collect();
            let mut all = Recorder::new();
            for writer in writers {
                let recorder = writer
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a writer's thread panicked")))?;
                all.merge(&recorder);
            }
            Ok(all)
        })
    }
}

/// Memory that O_DIRECT takes.
struct Aligned {
    memory: Vec<u8>,
    skip_bytes: usize,
}

impl Aligned {
    fn new() -> Aligned {
        let memory = vec![2; 2 * ALIGN_BYTES];
        let skip_bytes = memory.as_ptr().align_offset(ALIGN_BYTES);
        Aligned { memory, skip_bytes }
    }

    fn bytes(&self, len_bytes: usize) -> &[u8] {
        &self.memory[self.skip_bytes..][..len_bytes]
    }
}

/// Anywhere, asleep until something is to do.
pub(super) const SEAT: Seat = Seat {
    cpu: None,
    spins: false,
    is_shared: true,
};

/// A ping-pong between two processes, over the sockets that the replicas use.
///
/// # Errors
/// The echo could not be started, or failed.
pub(super) fn ping_pong(backend: &BackEnd, duration: Duration, stop: &AtomicBool) -> anyhow::Result<Recorder> {
    let way = (&Ground::Loopback, Network::default());
    let echo = Replicas::start(backend.name, way, &[SEAT], |_| ReplicaRole::Echo)?;
    let asked = std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let _ = host::settle("client", SEAT);
            let options = ClientOptions {
                in_flight: 1,
                value_bytes: super::VALUE_BYTES,
            };
            let clock = MonotonicClock::new();
            let mut client = Client::open(backend, (&Ground::Loopback, &Network::default()), &echo, true, options)?;
            client.ask(&clock, duration / 10, stop)?;
            client.ask(&clock, duration, stop)
        });
        asks.join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the client's thread panicked")))
    })?;
    echo.finish()?;
    Ok(asked.latency)
}
