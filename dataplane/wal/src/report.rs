//! What recovery found, for a person and for whoever counts.

use std::fmt;

use crate::format::HeaderFault;

/// One thing that is not as it should be, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file's name.
    pub file: String,
    /// Where in it, in bytes.
    pub at_bytes: u64,
    /// The commit's number, if it is known.
    pub lsn: Option<u64>,
    /// The first slot that is concerned, if any is.
    pub slot: Option<u64>,
    /// What it is.
    pub kind: FindingKind,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// The last commits were being written when the power went. Nobody was told that they were kept.
    TornEnd,
    /// Sectors of a commit are neither as they were written nor as they were before.
    Damaged {
        /// How many.
        sectors_count: u32,
    },
    /// Commits that were durable are not there, and nothing else is: a write that the device lost.
    MissingCommits {
        /// The next one that is there.
        next_lsn: u64,
    },
    /// A sector that holds nothing that counts.
    DamagedUnused,
    /// A segment file's header.
    FileHeader(HeaderFault),
    /// A copy of the state in the file of its own. It is written anew when the log is opened.
    StateCopy,
    /// The state stands in the file of its own alone: the commit that set it is damaged, or missing.
    StateAhead,
}

/// What recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that count.
    pub segments_count: usize,
    /// Commits that stand.
    pub commits_count: u64,
    /// Records in them, and readable ones in damaged commits.
    pub records_count: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// The slots that are known to be damaged: first, and end.
    pub damaged_slots: Option<(u64, u64)>,
}

impl Report {
    /// Whether a commit was cut off at the end, which is what a power loss leaves.
    pub fn is_torn(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind == FindingKind::TornEnd)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: ", self.file, self.at_bytes)?;
        match &self.kind {
            FindingKind::TornEnd => write!(f, "the end is torn; what follows was never acknowledged and is ignored")?,
            FindingKind::Damaged { sectors_count: 1 } => write!(f, "a sector of 512 bytes is damaged")?,
            FindingKind::Damaged { sectors_count } => write!(f, "{sectors_count} sectors of 512 bytes are damaged")?,
            FindingKind::MissingCommits { next_lsn } => {
                write!(f, "acknowledged commits before number {next_lsn} are missing")?;
            }
            FindingKind::DamagedUnused => write!(f, "a sector that holds nothing of value is damaged")?,
            FindingKind::FileHeader(fault) => write!(f, "{fault}")?,
            FindingKind::StateCopy => write!(f, "a copy of the state is damaged or missing")?,
            FindingKind::StateAhead => {
                write!(
                    f,
                    "the state stands here alone; the commit that set it is damaged or missing"
                )?;
            }
        }
        if let Some(lsn) = self.lsn {
            write!(f, " (commit {lsn}")?;
            match self.slot {
                Some(slot) => write!(f, ", from slot {slot} on)")?,
                None => write!(f, ")")?,
            }
        } else if let Some(slot) = self.slot {
            write!(f, " (from slot {slot} on)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} segments, {} commits, {} records",
            self.segments_count, self.commits_count, self.records_count
        )?;
        if let Some((slot, end)) = self.damaged_slots {
            writeln!(
                f,
                "slots {slot} to {} do not count: they were acknowledged, or may have been, and they or what stands before them is \
                 lost; they must come from the other replicas",
                end.saturating_sub(1)
            )?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        Ok(())
    }
}
