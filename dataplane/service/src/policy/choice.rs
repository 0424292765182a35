//! Whom to ask, where several can answer.

use crate::random::Random;

/// What a client has under way at each node. It knows of no other client's.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    waiting_counts: Vec<u32>,
}

impl Loads {
    /// Nothing under way.
    pub fn new(nodes_count: usize) -> Loads {
        Loads {
            waiting_counts: vec![0; nodes_count],
        }
    }

    /// One more at this node.
    pub fn add(&mut self, node: u32) {
        self.waiting_counts[node as usize] += 1;
    }

    /// One fewer.
    pub fn remove(&mut self, node: u32) {
        let count = &mut self.waiting_counts[node as usize];
        *count = count.saturating_sub(1);
    }

    /// How many nodes.
    pub fn nodes_count(&self) -> u32 {
        self.waiting_counts.len() as u32
    }

    /// How many requests are under way at this node.
    pub fn at(&self, node: u32) -> u32 {
        self.waiting_counts[node as usize]
    }
}

/// How a node is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// By chance.
    Random,
    /// The one of two by chance that has less of ours under way.
    LessLoadedOfTwo,
    /// The one that has the least of ours under way; among equals by chance.
    LeastLoaded,
}

impl Choice {
    /// A node that is none of `but`, unless all are.
    pub fn choose(self, loads: &Loads, but: &[u32], random: &mut Random) -> u32 {
        let count = loads.nodes_count();
        let free_count = (0..count).filter(|node| !but.contains(node)).count();
        if free_count == 0 {
            return random.below(count as usize) as u32;
        }
        let mut by_chance = || {
            let index = random.below(free_count);
            let mut free = (0..count).filter(|node| !but.contains(node));
            free.nth(index).expect("an index below their number")
        };
        match self {
            Choice::Random => by_chance(),
            Choice::LessLoadedOfTwo => {
                let (first, second) = (by_chance(), by_chance());
                if loads.at(second) < loads.at(first) {
                    second
                } else {
                    first
                }
            }
            Choice::LeastLoaded => {
                let start = by_chance();
                let ring = (start..count).chain(0..start).filter(|node| !but.contains(node));
                ring.min_by_key(|&node| loads.at(node)).unwrap_or(start)
            }
        }
    }
}
