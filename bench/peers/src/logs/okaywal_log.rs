//! okaywal. No checkpoint comes while it is measured, so that nothing is recycled that is read back later.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

use super::Append;

/// Beyond what is ever written here.
const CHECKPOINT_AFTER_BYTES: u64 = 1 << 30;

#[derive(Debug, Default)]
struct Manager {
    records: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl LogManager for Manager {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        // None: an entry that was never committed.
        if let Some(chunks) = entry.read_all_chunks()? {
            let mut records = self.records.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            records.extend(chunks);
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}

fn open(dir: &Path, manager: Manager) -> io::Result<WriteAheadLog> {
    Configuration::default_for(dir)
        .checkpoint_after_bytes(CHECKPOINT_AFTER_BYTES)
        .open(manager)
}

pub fn writers(dir: &Path, count: usize) -> anyhow::Result<Vec<Append>> {
    let log = open(dir, Manager::default())?;
    let writer = |_| -> Append {
        let log = log.clone();
        Box::new(move |record| {
            let mut entry = log.begin_entry()?;
            entry.write_chunk(&record.bytes)?;
            entry.commit()?;
            Ok(())
        })
    };
    Ok((0..count).map(writer).collect())
}

pub fn records(dir: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let manager = Manager::default();
    let records = manager.records.clone();
    let _log = open(dir, manager)?;
    let mut records = records.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Ok(std::mem::take(&mut *records))
}
