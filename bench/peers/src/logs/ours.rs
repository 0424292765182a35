//! Ours: one log that all threads share (`SharedWal`).

use std::path::Path;

use anyhow::{Context, bail};
use dataplane_waist::{Log, Recovered, Term};
use dataplane_wal::{Engine, FolderStorage, SharedWal, Wal, WalOptions};

use super::Append;

/// Long enough for a second of appends: what a log costs that makes segments while it runs is another question.
pub const SEGMENT_BYTES_LONG: u64 = 64 << 20;
/// Where every byte is recorded, and read back hundreds of times.
pub const SEGMENT_BYTES_SHORT: u64 = 512 << 10;

fn open(engine: &str, dir: &Path, options: WalOptions) -> anyhow::Result<Wal> {
    let engine = Engine::NAMED.into_iter().find(|known| known.name() == engine);
    let storage = FolderStorage::open(dir, engine.context("no such way to disk")?)?;
    Ok(Wal::open(Box::new(storage), options)?)
}

pub fn writers(engine: &str, dir: &Path, count: usize, segment_bytes: u64) -> anyhow::Result<Vec<Append>> {
    let options = WalOptions {
        segment_bytes,
        spare_count: 2,
        ..WalOptions::new(1)
    };
    let shared = SharedWal::new(open(engine, dir, options)?, Term(1));
    let writer = |_| -> Append {
        let shared = shared.clone();
        Box::new(move |record| Ok(shared.append_durable(&record.bytes).map(|_| ())?))
    };
    Ok((0..count).map(writer).collect())
}

pub fn records(engine: &str, dir: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let options = WalOptions {
        segment_bytes: SEGMENT_BYTES_SHORT,
        ..WalOptions::new(1)
    };
    let mut wal = open(engine, dir, options)?;
    let (mut records, mut damaged) = (Vec::new(), None);
    wal.recover(&mut |recovered| match recovered {
        Recovered::Entry { payload, .. } => records.push(payload.to_vec()),
        Recovered::Damaged { slot, end, .. } => damaged = Some((slot, end)),
        Recovered::State(_) | Recovered::Snapshot { .. } => {}
    })?;
    match damaged {
        None => Ok(records),
        // A replica would ask the others for them.
        Some((slot, end)) => bail!("slots {slot:?} to {end:?} are damaged: {}", wal.report()),
    }
}
