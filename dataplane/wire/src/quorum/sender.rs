//! Who sends: what the payload of every message off the fast path begins with.
//!
//! ```text
//!  0         8      12
//!  +---------+------+
//!  | cluster | node |
//!  +---------+------+
//! ```

use core::ops::Range;

use crate::frame::array;

/// Where each field stands.
pub mod field {
    use super::Range;
    /// Which cluster.
    pub const CLUSTER: Range<usize> = 0..8;
    /// Which of its nodes.
    pub const NODE: Range<usize> = 8..12;
}

/// Length of an encoded sender.
pub const BYTES: usize = 12;

/// A replica, as it names itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The cluster's number: a message that strays in from another cluster is told by it.
    pub cluster: u64,
    /// The node's number.
    pub node: u32,
}

impl Sender {
    /// Any bytes are a sender.
    pub fn parse(bytes: &[u8; BYTES]) -> Sender {
        Sender {
            cluster: u64::from_be_bytes(array(bytes, field::CLUSTER)),
            node: u32::from_be_bytes(array(bytes, field::NODE)),
        }
    }

    /// The inverse of [`Sender::parse`].
    pub fn encode(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[field::CLUSTER].copy_from_slice(&self.cluster.to_be_bytes());
        bytes[field::NODE].copy_from_slice(&self.node.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any sender.
    pub(crate) fn senders() -> impl Strategy<Value = Sender> {
        any::<(u64, u32)>().prop_map(|(cluster, node)| Sender { cluster, node })
    }

    proptest! {
        #[test]
        fn parse_undoes_encode(sender in senders()) {
            prop_assert_eq!(Sender::parse(&sender.encode()), sender);
        }
    }
}
