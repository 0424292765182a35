//! The floor of everything durable: what one entry takes on this disk, written there durably by nobody but one thread, without
//! a log's format around it and without a network.

use std::{path::Path, sync::atomic::AtomicBool, sync::atomic::Ordering, time::Duration};

use anyhow::Context;
use dataplane_waist::{Clock, Log, Slot, Term};
use dataplane_wal::{Buffer, Engine, FolderStorage, OpenFor, Storage, Wal, WalOptions};

use crate::measure::Recorder;

/// Written over and over, as a log's recycled segments are.
const FILE_BYTES: u64 = 16 << 20;

/// How long each write took, and how many bytes it had.
pub(super) struct Written {
    pub(super) latency: Recorder,
    pub(super) write_bytes: usize,
    pub(super) elapsed: Duration,
}

/// Writes for `duration` in `folder`, by the way to disk `engine`; each as long as a log's commit of an entry of
/// `entry_bytes`.
///
/// # Errors
/// The device's.
pub(super) fn write(
    (folder, engine): (&Path, Engine),
    entry_bytes: usize,
    clock: &dyn Clock,
    (duration, stop): (Duration, &AtomicBool),
) -> anyhow::Result<Written> {
    let write_bytes = commit_bytes(&folder.join("log"), engine, entry_bytes)?;
    let raw = folder.join("raw");
    let mut storage = FolderStorage::open(&raw, engine)?;
    prepare(&mut storage).with_context(|| format!("preparing a file in {}", raw.display()))?;
    let file = storage.open(NAME, OpenFor::Commits)?;
    let mut buffer = Buffer::new(write_bytes);
    buffer.fill(write_bytes, 0x61);
    let mut latency = Recorder::new();
    let mut at_bytes = 0;
    let start = clock.now();
    let mut now = start;
    while now < start + duration && !stop.load(Ordering::Relaxed) {
        storage.commit(file, at_bytes, buffer)?;
        let completion = storage
            .completed(true)?
            .context("a write that was started is not over")?;
        completion.result.context("writing durably")?;
        buffer = completion.buffer;
        let then = std::mem::replace(&mut now, clock.now());
        latency.record((now - then).as_nanos() as u64);
        at_bytes = (at_bytes + write_bytes as u64) % (FILE_BYTES - FILE_BYTES % write_bytes as u64);
    }
    Ok(Written {
        latency,
        write_bytes,
        elapsed: now - start,
    })
}

const NAME: &str = "raw";

/// Written from end to end, so that no later write allocates.
fn prepare(storage: &mut FolderStorage) -> std::io::Result<()> {
    let file = storage.open(NAME, OpenFor::Create)?;
    let piece = vec![0; 1 << 20];
    for at_bytes in (0..FILE_BYTES).step_by(piece.len()) {
        storage.write_at(file, at_bytes, &piece)?;
    }
    storage.sync(file)?;
    storage.close(file);
    storage.sync_folder()
}

/// How long a log's commit of one such entry is.
fn commit_bytes(folder: &Path, engine: Engine, entry_bytes: usize) -> anyhow::Result<usize> {
    let storage = FolderStorage::open(folder, engine)?;
    let mut wal = Wal::open(Box::new(storage), WalOptions::new(1))?;
    let before = wal.stats();
    wal.append(Slot(0), Term(1), &vec![0x61; entry_bytes])?;
    wal.sync()?;
    wal.wait()?;
    Ok((wal.stats().commits_bytes - before.commits_bytes) as usize)
}
