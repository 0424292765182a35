//! Whether a leader's entries visit its followers in a chain, and who stands where in it: what is decided at each grant, for
//! programs in a driver and for those of histories in virtual time alike.

use ebpf_host::quorum::{Chain, Grant, NODES_MAX, Seen};

/// So many committed entries may a follower lack, and still have a place in the chain: its acknowledgements may just be on their way.
const LACKED_SLOTS_MAX: u64 = 8;

/// A node's part in chains, from grant to grant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chaining {
    /// Through whom the chain of the last grant leads, as bits; nobody where the switch floods.
    chained: u32,
    is_broken: bool,
}

impl Chaining {
    /// What the program of this grant is told of the chain; nothing where a leader's entries are flooded. A leader's own group
    /// becomes the first follower.
    pub(crate) fn at_grant(&mut self, leads: bool, given: &mut Grant) -> Option<Chain> {
        let others = given.voters & !(1 << given.node);
        let is_whole = !leads || keep_up(others, given.commit_end, &given.acked_end);
        self.chained = if leads && is_whole { others } else { 0 };
        self.is_broken = false;
        let chain = is_whole.then(|| place_in_chain(given));
        if let Some(chain) = chain.filter(|_| leads) {
            given.group = chain.next;
        }
        chain
    }

    /// What a program has done may show that its chain leads through somebody who is gone.
    pub(crate) fn look(&mut self, leads: bool, seen: &Seen) {
        self.is_broken = leads && !keep_up(self.chained, seen.commit_end, &seen.acked_end);
    }

    /// Whether flooding would do better than the chain, until all have caught up.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }
}

/// Whether all of `nodes` keep up. A chain that leads through one which is gone ends there, and a put is then answered only when
/// the leader's replica sends it again; so a leader whose follower lacks what is committed lets the switch flood instead, until a
/// later grant finds that it has caught up.
fn keep_up(nodes: u32, commit_end: u64, acked_end: &[u64; NODES_MAX]) -> bool {
    let lacks = |node: usize| nodes & (1 << node) != 0 && commit_end.saturating_sub(acked_end[node]) > LACKED_SLOTS_MAX;
    !(0..NODES_MAX).any(lacks)
}

/// This node's place in the chain of the grant's leader: behind it come all others, in the order of their numbers.
fn place_in_chain(given: &Grant) -> Chain {
    let followers: Vec<usize> = (0..NODES_MAX)
        .filter(|&node| node != given.leader as usize && given.places[node].is_some())
        .collect();
    let before = followers.iter().position(|&node| node == given.node as usize);
    // The leader's next is the first.
    let behind = before.map_or(0, |index| index + 1);
    Chain {
        hop: behind.max(1) as u64,
        next: followers.get(behind).and_then(|&node| given.places[node]),
        nodes: followers[..behind].iter().fold(0, |nodes, node| nodes | 1 << node),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use dataplane_wire::ethernet::Mac;

    use super::*;

    #[test]
    fn a_chain_leads_through_no_follower_that_is_left_behind() {
        let mut acked_end = [0; NODES_MAX];
        acked_end[1..3].copy_from_slice(&[110, 110 - LACKED_SLOTS_MAX]);
        assert!(keep_up(0b110, 110, &acked_end));
        acked_end[2] -= 1;
        assert!(!keep_up(0b110, 110, &acked_end));
        assert!(keep_up(0b010, 110, &acked_end), "the others are no matter");
    }

    fn place(node: usize) -> (SocketAddrV4, Mac) {
        let host = node as u8 + 1;
        (
            SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host), 4001),
            Mac([2, 0, 0, 0, 0, host]),
        )
    }

    fn given(node: u32, leader: u32, acked_end: u64) -> Grant {
        Grant {
            next: 110,
            term: 3,
            append_end: 200,
            entry_bytes_max: 1424,
            node,
            leader,
            commit_end: 110,
            waits_for_disk: false,
            term_begin: 1,
            in_flight_slots: 64,
            voters: 0b1111,
            commit_count: 3,
            acked_end: [acked_end; NODES_MAX],
            places: std::array::from_fn(|node| (node < 4).then(|| place(node))),
            group: Some(place(200)),
            hold_slots: 0,
            session_window: 0,
        }
    }

    #[test]
    fn everybody_knows_the_same_chain() {
        // Node 1 leads: 0, 2, 3.
        let mut chaining = Chaining::default();
        let mut leader = given(1, 1, 110);
        let chain = chaining.at_grant(true, &mut leader).expect("all keep up");
        assert_eq!(
            (chain.next, chain.nodes, leader.group),
            (Some(place(0)), 0, Some(place(0)))
        );
        let links = [
            (0, 1, Some(place(2)), 0b0001),
            (2, 2, Some(place(3)), 0b0101),
            (3, 3, None, 0b1101),
        ];
        for (node, hop, next, nodes) in links {
            let mut follower = given(node, 1, 0);
            let chain = Chaining::default().at_grant(false, &mut follower);
            assert_eq!(chain, Some(Chain { hop, next, nodes }), "node {node}");
            assert_eq!(follower.group, Some(place(200)), "it sends to its leader alone");
        }
    }

    #[test]
    fn a_leader_floods_from_the_next_grant_on_once_somebody_is_gone() {
        let mut chaining = Chaining::default();
        chaining.at_grant(true, &mut given(1, 1, 110));
        let mut seen = Seen {
            commit_end: 120,
            acked_end: [120; NODES_MAX],
            ..Seen::default()
        };
        chaining.look(true, &seen);
        assert!(!chaining.is_broken());
        seen.acked_end[2] = 110;
        chaining.look(true, &seen);
        assert!(chaining.is_broken());
        let mut flooding = given(1, 1, 90);
        assert_eq!(chaining.at_grant(true, &mut flooding), None);
        assert_eq!(flooding.group, Some(place(200)));
        chaining.look(true, &seen);
        assert!(!chaining.is_broken(), "there is no chain to break");
    }
}
