//! Why bytes are not what a decoder was asked for. An answer, never a panic; nodes count them by reason.

/// Why `parse` said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reject {
    /// Fewer bytes than the layout needs.
    Short,
    /// More bytes than the layout's own length field accounts for.
    Long,
    /// Not ours: the magic number differs.
    Magic,
    /// A version this build does not speak.
    Version,
    /// A kind, type or protocol number that is not known here.
    Kind,
    /// A length or offset field that contradicts the rest.
    Length,
    /// The header's checksum does not match.
    HeaderChecksum,
    /// The payload's checksum does not match.
    PayloadChecksum,
    /// The sender is not a peer of this port.
    Stranger,
    /// A part of a fragmented IP packet; nothing here puts parts together.
    Fragment,
    /// No checksum where the protocol demands one.
    ChecksumMissing,
}

impl Reject {
    /// All reasons, in the order of [`Reject::index`].
    pub const ALL: [Reject; 11] = [
        Reject::Short,
        Reject::Long,
        Reject::Magic,
        Reject::Version,
        Reject::Kind,
        Reject::Length,
        Reject::HeaderChecksum,
        Reject::PayloadChecksum,
        Reject::Stranger,
        Reject::Fragment,
        Reject::ChecksumMissing,
    ];

    /// Position in [`Reject::ALL`], for counters kept in an array.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason in snake case, as records print it.
    pub const fn name(self) -> &'static str {
        match self {
            Reject::Short => "short",
            Reject::Long => "long",
            Reject::Magic => "magic",
            Reject::Version => "version",
            Reject::Kind => "kind",
            Reject::Length => "length",
            Reject::HeaderChecksum => "header_checksum",
            Reject::PayloadChecksum => "payload_checksum",
            Reject::Stranger => "stranger",
            Reject::Fragment => "fragment",
            Reject::ChecksumMissing => "checksum_missing",
        }
    }
}

impl core::fmt::Display for Reject {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Reject {}
