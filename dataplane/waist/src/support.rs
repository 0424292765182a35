//! Does it exist here? Three answers and an error: a rung of a ladder is never replaced silently.

use std::{fmt, io};

/// What a back end is on this machine, found by asking it at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// The real thing.
    Native,
    /// Something that behaves like it; `by` says what.
    Emulated {
        /// What stands in.
        by: String,
    },
    /// Not here.
    Absent {
        /// The reason, for a person: what is missing, and the one command that would give it, where one exists.
        why: String,
    },
}

/// How a measured value came to be. [`Support::Absent`] has no mode: nothing ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real packets through the real mechanism.
    Native,
    /// Real packets through a stand-in.
    Emulated {
        /// What stands in.
        by: String,
    },
    /// Computed in virtual time.
    Simulated,
}

impl Support {
    /// The mode a measurement over this back end runs in, or `None` when it is absent.
    pub fn mode(&self) -> Option<Mode> {
        match self {
            Support::Native => Some(Mode::Native),
            Support::Emulated { by } => Some(Mode::Emulated { by: by.clone() }),
            Support::Absent { .. } => None,
        }
    }
}

/// The question could not be asked, so "no" would be a lie: a missing privilege, an unexpected errno.
#[derive(Debug)]
pub struct ProbeError {
    /// What was tried, as a sentence fragment: "opening a packet socket".
    pub asked: String,
    /// What came back.
    pub error: io::Error,
    /// What would let the question be asked: a capability, a module, a command.
    pub mend: String,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "could not ask: {} failed ({}); {}",
            self.asked, self.error, self.mend
        )
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
