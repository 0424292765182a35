//! Our own logs as the experiments over a disk use them: warm, with room for a trial, and emptied between two.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use dataplane_waist::{Log, Slot, Snapshot, Support, Tail, Term};
use dataplane_wal::{Engine, FolderStorage, Wal, WalOptions};

/// Entries are appended in it.
pub const TERM: Term = Term(1);
/// Unused segments of 16 MiB: what a trial writes at most, so that none is made while somebody measures.
const SPARE_COUNT: u32 = 5;

/// How much disk a log takes, in bytes: the spare segments, and the one in use.
pub const LOG_BYTES: u64 = (SPARE_COUNT as u64 + 1) * (16 << 20);

/// The engine's log in a folder of its own inside `folder`; or why there is none here.
///
/// # Errors
/// The disk's.
pub fn open(folder: &Path, engine: Engine) -> anyhow::Result<Result<Wal, String>> {
    match dataplane_wal::probe(folder, engine) {
        Ok(Support::Native | Support::Emulated { .. }) => {}
        Ok(Support::Absent { why }) => return Ok(Err(why)),
        Err(error) => return Err(error).context("asking which ways to the disk there are"),
    }
    let options = WalOptions {
        spare_count: SPARE_COUNT,
        ..WalOptions::new(0)
    };
    let place = folder.join(engine.name());
    let wal = FolderStorage::open(&place, engine).and_then(|storage| Wal::open(Box::new(storage), options));
    Ok(Ok(wal.with_context(|| format!("opening a log in {}", place.display()))?))
}

/// Appends one record and waits until it is on disk.
///
/// # Errors
/// The log's.
pub fn append_durable(wal: &mut Wal, payload: &[u8]) -> std::io::Result<()> {
    wal.append(wal.end(), TERM, payload)?;
    wal.sync()?;
    wal.wait().map(drop)
}

/// Lets an empty snapshot stand for all that was appended, so that its segments are used again.
///
/// # Errors
/// The log's.
pub fn empty(wal: &mut Wal) -> std::io::Result<()> {
    if wal.end() == Slot(0) {
        return Ok(());
    }
    wal.install(&Snapshot {
        end: wal.end(),
        last_term: TERM,
        tail: Tail::Keep,
        bytes: Arc::from(&[][..]),
    })?;
    wal.sync()?;
    wal.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_emptied_takes_no_more_disk() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../target/tmp")
            .join(format!("disk-logs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut wal = open(&folder, Engine::File).expect("a disk").expect("it is everywhere");
        let files_count = || std::fs::read_dir(folder.join("file")).expect("its folder").count();
        let before = files_count();
        // Three times as much as there is room for.
        let payload = vec![7; 4 << 20];
        for _ in 0..3 * (LOG_BYTES >> 22) {
            append_durable(&mut wal, &payload).expect("it is on disk");
            empty(&mut wal).expect("emptied");
        }
        // The snapshot is the one file more.
        assert!(
            files_count() <= before + 1,
            "{} files, and {before} before",
            files_count()
        );
        drop(wal);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
