//! What stands around a node: it configures it, sends it frames, takes what comes out, and counts cycles.

use std::collections::VecDeque;

use super::{Inputs, Node};
use crate::{
    registers::{self, SETTLE_CYCLES},
    rng::Rng,
    stream::{Pauses, Sink, Source},
};

/// What the host writes before it lets the fast path go on. Addresses are numbers as in [`registers`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// This node's MAC address, IPv4 address and port.
    pub local: (u64, u32, u16),
    /// The followers' group.
    pub group: (u64, u32, u16),
    /// The term.
    pub term: u64,
    /// The slot of the next entry.
    pub next: u64,
    /// Everything before is committed.
    pub commit_end: u64,
    /// The term's first slot.
    pub term_begin: u64,
    /// The most entries that are appended and not committed.
    pub in_flight: u16,
    /// Every slot before is out of the host's ring.
    pub drained_end: u64,
    /// Nothing is appended here or behind.
    pub append_end: u64,
    /// The longest entry.
    pub entry_bytes_max: u16,
    /// Who votes, as bits.
    pub voters: u64,
    /// How many of them must have an entry.
    pub commit_count: u8,
    /// This node's number.
    pub own: u8,
    /// A follower's leader.
    pub leader: u8,
    /// By node, its address and port.
    pub places: Vec<(u32, u16)>,
    /// By node, everything before is safe there.
    pub acked_ends: Vec<u64>,
    /// A session each, with the newest request of it that has a slot.
    pub sessions: Vec<(u64, u64)>,
}

impl Setup {
    /// The writes, in order.
    pub fn writes(&self) -> Vec<(u8, u64)> {
        let place = |(ipv4, port): (u32, u16)| u64::from(ipv4) << 16 | u64::from(port);
        let mut writes = vec![
            (registers::ON, 0),
            (registers::LOCAL_MAC, self.local.0),
            (registers::LOCAL_IPV4, self.local.1.into()),
            (registers::LOCAL_PORT, self.local.2.into()),
            (registers::GROUP_MAC, self.group.0),
            (registers::GROUP_IPV4, self.group.1.into()),
            (registers::GROUP_PORT, self.group.2.into()),
            (registers::TERM, self.term),
            (registers::NEXT, self.next),
            (registers::COMMIT_END, self.commit_end),
            (registers::IN_FLIGHT, self.in_flight.into()),
            (registers::DRAINED_END, self.drained_end),
            (registers::APPEND_END, self.append_end),
            (registers::ENTRY_BYTES_MAX, self.entry_bytes_max.into()),
            (registers::VOTERS, self.voters),
            (registers::COMMIT_COUNT, self.commit_count.into()),
            (registers::SELF, self.own.into()),
            (registers::LEADER, place(self.places[usize::from(self.leader)])),
        ];
        for &(id, sequence) in &self.sessions {
            writes.push((registers::SESSION_ID, id));
            writes.push((registers::SESSION_SEQUENCE, sequence));
        }
        writes.extend((registers::PLACES..).zip(self.places.iter().map(|&at| place(at))));
        writes
    }

    /// The nodes' numbers, and at last what a commit must exceed, for a leader with room for `nodes_count`.
    pub fn ends(&self, nodes_count: usize) -> Vec<(u8, u64)> {
        let acked = (0..nodes_count).map(|node| self.acked_ends.get(node).copied().unwrap_or(0));
        let ends = acked.chain([self.commit_end.max(self.term_begin)]);
        (registers::ACKED_ENDS..).zip(ends).collect()
    }
}

/// A node, and what stands around it.
#[derive(Clone, Debug)]
pub struct Bench<N> {
    /// The node.
    pub node: N,
    /// What it is sent.
    pub source: Source,
    /// What it sent to the network.
    pub tx: Sink,
    /// What it left to the host.
    pub slow: Sink,
    /// What it put into the log.
    pub log: Sink,
    /// The slots of the frames there.
    pub log_slots: VecDeque<u64>,
    /// Commit ends, and when each was shown first.
    pub commits: VecDeque<(u64, u64)>,
    /// Cycles since the beginning.
    pub cycle: u64,
    beat_bytes: usize,
    rng: Rng,
    pauses: Pauses,
    commit_shown_at: Option<u64>,
    log_is_first: bool,
}

impl<N: Node> Bench<N> {
    /// A node that was reset.
    pub fn new(mut node: N, beat_bytes: usize, seed: u64, pauses: Pauses) -> Bench<N> {
        let reset = Inputs {
            rst: true,
            ..Inputs::QUIET
        };
        for _ in 0..4 {
            node.clock(&reset);
        }
        Bench {
            node,
            source: Source::default(),
            tx: Sink::default(),
            slow: Sink::default(),
            log: Sink::default(),
            log_slots: VecDeque::new(),
            commits: VecDeque::new(),
            cycle: 0,
            beat_bytes,
            rng: Rng::new(seed),
            pauses,
            commit_shown_at: None,
            log_is_first: true,
        }
    }

    /// The same surroundings, another rhythm.
    pub fn set_pauses(&mut self, pauses: Pauses) {
        self.pauses = pauses;
    }

    /// Queues a frame.
    pub fn send(&mut self, frame: &[u8]) {
        self.source.send(frame, self.beat_bytes, false);
    }

    /// Writes a register, while nothing else happens at the host's side.
    pub fn write(&mut self, address: u8, value: u64) {
        while !self.node.outputs().write_ready {
            self.turn(None);
        }
        self.turn(Some((address, value)));
    }

    /// Gives a node its grant.
    pub fn configure(&mut self, setup: &Setup, leads_of: Option<usize>) {
        for (address, value) in setup.writes() {
            self.write(address, value);
        }
        for (address, value) in leads_of.map(|nodes_count| setup.ends(nodes_count)).unwrap_or_default() {
            self.write(address, value);
        }
        self.write(registers::ON, 1);
    }

    /// A cycle.
    pub fn turn(&mut self, write: Option<(u8, u64)>) {
        let outputs = self.node.outputs();
        let stall = self.pauses.stall_percent;
        let mut is_ready = || stall == 0 || !self.rng.percent(stall);
        let (tx_ready, slow_ready, log_ready, commit_ready) = (is_ready(), is_ready(), is_ready(), is_ready());
        let beat = self.source.show(&mut self.rng, self.pauses);
        let inputs = Inputs {
            rst: false,
            write,
            beat,
            tx_ready,
            slow_ready,
            log_ready,
            commit_ready,
        };
        self.tx.see(self.cycle, outputs.tx.as_ref(), tx_ready);
        self.slow.see(self.cycle, outputs.slow.as_ref(), slow_ready);
        if let Some((beat, slot)) = &outputs.log {
            if self.log_is_first && log_ready {
                self.log_slots.push_back(*slot);
            }
            if log_ready {
                self.log_is_first = beat.last;
            }
            self.log.see(self.cycle, Some(beat), log_ready);
        }
        if let Some(end) = outputs.commit {
            let shown_at = *self.commit_shown_at.get_or_insert(self.cycle);
            if commit_ready {
                self.commits.push_back((end, shown_at));
                self.commit_shown_at = None;
            }
        }
        if outputs.ready {
            self.source.taken(self.cycle);
        }
        self.node.clock(&inputs);
        self.cycle += 1;
    }

    /// Turns until everything is sent and nothing has come out for long enough that nothing will.
    ///
    /// # Panics
    /// If a million cycles do not suffice for it: a block that stands still.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..1_000_000 {
            let outputs = self.node.outputs();
            let is_busy = !self.source.is_empty()
                || outputs.tx.is_some()
                || outputs.slow.is_some()
                || outputs.log.is_some()
                || outputs.commit.is_some();
            quiet = if is_busy { 0 } else { quiet + 1 };
            if quiet > 2 * SETTLE_CYCLES {
                return;
            }
            self.turn(None);
        }
        panic!("the block stands still: {:?}", self.node.outputs());
    }
}
