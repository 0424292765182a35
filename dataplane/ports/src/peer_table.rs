//! The bounded table from addresses to [`Peer`]s: who may write to a port, and whom it learns.

use dataplane_waist::Peer;

/// Rows in the order of their [`Peer`] number. Never shrinks, and allocates nothing after `new`.
#[derive(Debug)]
pub(crate) struct PeerTable<A> {
    rows: Vec<A>,
    rows_max: usize,
    /// The row found last: in a ping-pong, the next one too.
    last: usize,
}

impl<A: Copy + PartialEq> PeerTable<A> {
    /// A table that knows `peers` and has room for `learn_peers_max` more.
    pub(crate) fn new(peers: &[A], learn_peers_max: usize) -> PeerTable<A> {
        let rows_max = peers.len() + learn_peers_max;
        let mut rows = Vec::with_capacity(rows_max);
        rows.extend_from_slice(peers);
        PeerTable {
            rows,
            rows_max,
            last: 0,
        }
    }

    /// The most rows that there can ever be.
    pub(crate) fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// The rows so far.
    pub(crate) fn rows(&self) -> &[A] {
        &self.rows
    }

    /// The row of `peer`.
    pub(crate) fn get(&self, peer: Peer) -> Option<&A> {
        self.rows.get(peer.0 as usize)
    }

    /// The peer with this address, learned now if there is room. The flag says that it is new. `None`: a stranger.
    #[inline]
    pub(crate) fn find_or_learn(&mut self, address: A) -> Option<(Peer, bool)> {
        if self.rows.get(self.last) == Some(&address) {
            return Some((Peer(self.last as u32), false));
        }
        if let Some(index) = self.rows.iter().position(|row| *row == address) {
            self.last = index;
            return Some((Peer(index as u32), false));
        }
        if self.rows.len() == self.rows_max {
            return None;
        }
        self.rows.push(address);
        self.last = self.rows.len() - 1;
        Some((Peer(self.last as u32), true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_up_to_its_bound_and_no_further() {
        let mut table = PeerTable::new(&[10, 20], 1);
        assert_eq!(table.find_or_learn(20), Some((Peer(1), false)));
        assert_eq!(table.find_or_learn(30), Some((Peer(2), true)));
        assert_eq!(table.find_or_learn(40), None);
        assert_eq!(table.find_or_learn(30), Some((Peer(2), false)));
        assert_eq!(table.find_or_learn(10), Some((Peer(0), false)));
        assert_eq!(table.get(Peer(2)), Some(&30));
        assert_eq!(table.get(Peer(3)), None);
        assert_eq!(table.rows(), [10, 20, 30]);
    }

    #[test]
    fn without_learning_everybody_else_is_a_stranger() {
        let mut table = PeerTable::new(&[1], 0);
        assert_eq!(table.find_or_learn(2), None);
        assert_eq!(table.find_or_learn(1), Some((Peer(0), false)));
        assert_eq!(table.rows_max(), 1);
    }
}
