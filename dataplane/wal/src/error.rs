//! Why a log cannot be opened, or goes no further: what was seen, why it matters, what to try.

use std::io;

use crate::{
    format::{HeaderFault, VERSION},
    state::STATE_NAME,
};

/// Why a log cannot be opened, or goes no further.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The operating system said no.
    #[error("{doing}: {error}{}", hint(error))]
    Io {
        /// What was tried.
        doing: String,
        /// The answer.
        error: io::Error,
    },
    /// Somebody else has it open.
    #[error(
        "{place} is open in another process, and two writers would destroy each other's log: end that one, or take another folder"
    )]
    InUse {
        /// The folder.
        place: String,
    },
    /// It belongs to another cluster.
    #[error(
        "{place}/{file} belongs to cluster {found:#x} and not to {expected:#x}: this is another cluster's log, or the wrong folder"
    )]
    OtherCluster {
        /// The folder.
        place: String,
        /// The file.
        file: String,
        /// What stands in it.
        found: u64,
        /// What was to be opened.
        expected: u64,
    },
    /// It cannot be read by this build.
    #[error("{place}/{file}: {fault}")]
    Unreadable {
        /// The folder.
        place: String,
        /// The file.
        file: String,
        /// Why.
        fault: HeaderFault,
    },
    /// The snapshot that stands for the log's beginning is not whole.
    #[error(
        "{place}/{file} is not whole ({what}), and the entries that it stands for are gone: put a copy of it back, or empty the folder and let the other replicas fill it"
    )]
    Snapshot {
        /// The folder.
        place: String,
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The state was set in a commit that may be lost, and the file of the state does not tell.
    #[error(
        "{place}: the last state (term and vote) may be lost: where it stood in the log is damaged, and the file `{}` does not tell it either; a replica that forgets its vote may vote twice: empty the folder and let it join as a new replica\n{report}",
        STATE_NAME
    )]
    StateLost {
        /// The folder.
        place: String,
        /// What was found.
        report: String,
    },
    /// Options that make no sense.
    #[error("{0}")]
    Options(String),
    /// Writing failed earlier.
    #[error("the log is closed: {doing} failed ({error}); nothing above commit {durable_lsn} may be taken for written, and it is never tried again, because the kernel may have dropped what it could not write (fsyncgate); mend the disk and open the log anew{}", hint_kind(*kind))]
    Poisoned {
        /// What failed.
        doing: String,
        /// How.
        error: String,
        /// Its kind.
        kind: io::ErrorKind,
        /// The last commit that is known to be durable.
        durable_lsn: u64,
    },
}

fn hint(error: &io::Error) -> &'static str {
    hint_kind(error.kind())
}

fn hint_kind(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; the log is as it was: free some space, or take a snapshot so that segments can be used again"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system is mounted read-only, which Linux does by itself after errors: look at dmesg"
        }
        io::ErrorKind::FileTooLarge => {
            "; a limit on the length of files (`ulimit -f`) is below the length of the log's segments: raise it"
        }
        io::ErrorKind::PermissionDenied => "; the log's folder and files must be writable by this user",
        _ => "",
    }
}

impl From<WalError> for io::Error {
    fn from(error: WalError) -> io::Error {
        let kind = match &error {
            WalError::Io { error, .. } => error.kind(),
            WalError::InUse { .. } => io::ErrorKind::ResourceBusy,
            WalError::OtherCluster { .. }
            | WalError::Unreadable { .. }
            | WalError::Snapshot { .. }
            | WalError::StateLost { .. } => io::ErrorKind::InvalidData,
            WalError::Options(_) => io::ErrorKind::InvalidInput,
            WalError::Poisoned { kind, .. } => *kind,
        };
        io::Error::new(kind, error)
    }
}

impl WalError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> WalError {
        let doing = doing.into();
        |error| WalError::Io { doing, error }
    }
}

/// Faults of a header that say "not ours" rather than "damaged".
pub(crate) fn is_foreign(fault: HeaderFault) -> bool {
    const {
        assert!(
            VERSION == 3,
            "versions 1 to 3 are read, and older ones become 3 when they are opened"
        )
    };
    matches!(fault, HeaderFault::Version(_) | HeaderFault::SectorBytes(_))
}
