//! What a history can come to that it must not.

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// In words, with all that explains it.
    pub text: String,
}

/// What does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// An invariant of the replicas.
    Invariant,
    /// What clients were answered: no order explains it, or something acknowledged is lost.
    Linearizability,
    /// After all faults had ended, something was not answered, or replicas did not become equal.
    Recovery,
    /// A replica could not start from what it had written, or wrote what a log does not take.
    Process,
    /// A replica panicked.
    Panic,
}

pub(super) fn finding(kind: FindingKind, text: impl Into<String>) -> Finding {
    let text = text.into();
    Finding { kind, text }
}
