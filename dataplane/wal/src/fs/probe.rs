//! Which ways to write a commit exist in a folder? Asked by making a small log there and throwing it away.

use std::{
    io,
    path::Path,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use dataplane_waist::{Log, ProbeError, Slot, Support, Term};

use super::{Engine, FolderStorage};
use crate::{WalError, WalOptions, wal::Wal};

/// Asks whether `engine` works in `folder`, by writing a commit there with it.
///
/// # Errors
/// When nothing can be written there at all, or the kernel does not let us ask.
pub fn probe(folder: &Path, engine: Engine) -> Result<Support, ProbeError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let trial = folder.join(format!(".dplab-probe-{}-{number}", process::id()));
    let outcome = trial_log(&trial, engine);
    // What cannot be removed was perhaps never made; the outcome says more than this would.
    let _ = std::fs::remove_dir_all(&trial);
    match outcome {
        Ok(()) => Ok(Support::Native),
        Err(WalError::Options(why)) => Ok(Support::Absent { why }),
        Err(error) => {
            let message = error.to_string();
            let error = io::Error::from(error);
            match (engine, error.raw_or_inner()) {
                // O_DIRECT on a file system without it; an operation that this kernel does not know.
                (Engine::File, _) | (_, None) => Err(refused(engine, folder, error)),
                (_, Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS)) => Ok(Support::Absent { why: message }),
                _ => Err(refused(engine, folder, error)),
            }
        }
    }
}

fn refused(engine: Engine, folder: &Path, error: io::Error) -> ProbeError {
    ProbeError {
        asked: format!("a commit through `{}` in {}", engine.name(), folder.display()),
        error,
        mend: "try a folder that you may write to, with some MiB free".into(),
    }
}

fn trial_log(folder: &Path, engine: Engine) -> Result<(), WalError> {
    let options = WalOptions {
        segment_bytes: 64 << 10,
        buffer_bytes: 8 << 10,
        ..WalOptions::new(0)
    };
    let mut wal = Wal::open(Box::new(FolderStorage::open(folder, engine)?), options)?;
    let doing = || WalError::io("writing a commit");
    wal.append(Slot(0), Term(0), b"probe").map_err(doing())?;
    wal.sync().map_err(doing())?;
    wal.wait().map_err(doing())?;
    Ok(())
}

/// The number behind an error, also one that a [`WalError`] carries.
trait RawOrInner {
    fn raw_or_inner(&self) -> Option<i32>;
}

impl RawOrInner for io::Error {
    fn raw_or_inner(&self) -> Option<i32> {
        if let Some(number) = self.raw_os_error() {
            return Some(number);
        }
        match self.get_ref()?.downcast_ref::<WalError>()? {
            WalError::Io { error, .. } => error.raw_or_inner(),
            _ => None,
        }
    }
}
