//! `replicate`.

use std::collections::VecDeque;

use crate::stream::Beat;

/// A destination: address and port, and the MAC address.
pub type Peer = (u64, u64);

/// The copy of a frame for a peer.
pub fn copy(frame: &[u8], (place, mac): Peer) -> Vec<u8> {
    let mut copy = frame.to_vec();
    let (ipv4, port) = ((place >> 16) as u32, place as u16);
    let word = |at: usize| u32::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let old = [24, 30, 32].map(|at| u32::from(!(word(at) as u16)));
    let sum = old.iter().sum::<u32>() + (ipv4 >> 16) + (ipv4 & 0xffff);
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    copy[..6].copy_from_slice(&mac.to_be_bytes()[2..]);
    copy[24..26].copy_from_slice(&checksum.to_be_bytes());
    copy[30..34].copy_from_slice(&ipv4.to_be_bytes());
    copy[36..38].copy_from_slice(&port.to_be_bytes());
    copy
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Wait,
    Sum(u8),
    Copy,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Replicate {
    peers: Vec<Peer>,
    depth_beats: usize,
    arriving: Vec<Beat>,
    stored: VecDeque<Vec<Beat>>,
    is_ready: bool,
    state: State,
    peer: usize,
    copy: VecDeque<Beat>,
    a: Option<Beat>,
    out: Option<Beat>,
}

impl Replicate {
    /// One that was reset and told of its peers. `depth_beats`: of the longest frame.
    pub fn new(peers: Vec<Peer>, depth_beats: usize) -> Replicate {
        Replicate {
            peers,
            depth_beats,
            arriving: Vec::new(),
            stored: VecDeque::new(),
            is_ready: false,
            state: State::Wait,
            peer: 0,
            copy: VecDeque::new(),
            a: None,
            out: None,
        }
    }

    /// A beat is taken in this cycle.
    pub const fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// What it shows.
    pub const fn shows(&self) -> Option<Beat> {
        self.out
    }

    /// The next edge: a beat, and whether what is shown is taken.
    pub fn clock(&mut self, beat: Option<Beat>, taken: bool) {
        let beat = beat.filter(|_| self.is_ready);
        let goes = self.out.is_none() || taken;
        let has_stored = !self.stored.is_empty();
        if taken {
            self.out = None;
        }
        match self.state {
            State::Wait if has_stored => self.state = State::Sum(0),
            State::Wait => {}
            State::Sum(2) => {
                let frame: Vec<u8> = self.stored[0].iter().flat_map(|beat| beat.data[..8].to_vec()).collect();
                let mut padded = frame;
                padded.resize(padded.len().max(40), 0);
                let bytes = copy(&padded, self.peers[self.peer]);
                self.copy = self.stored[0]
                    .iter()
                    .zip(bytes.chunks(8))
                    .map(|(beat, bytes)| {
                        let mut beat = *beat;
                        for (lane, byte) in bytes.iter().enumerate() {
                            beat.data[lane] = if beat.keep >> lane & 1 == 1 { *byte } else { 0 };
                        }
                        beat
                    })
                    .collect();
                self.state = State::Copy;
            }
            State::Sum(at) => self.state = State::Sum(at + 1),
            State::Copy => {
                let moves = self.a.is_some() && goes;
                let next = if self.a.is_none() || goes {
                    self.copy.pop_front()
                } else {
                    self.a
                };
                let was = std::mem::replace(&mut self.a, next);
                if moves {
                    self.out = was;
                    if was.is_some_and(|beat| beat.last) {
                        self.state = State::Wait;
                        self.peer += 1;
                        if self.peer == self.peers.len() {
                            self.peer = 0;
                            self.stored.pop_front();
                        }
                    }
                }
            }
        }
        if let Some(beat) = beat {
            if self.arriving.len() <= self.depth_beats {
                self.arriving.push(beat);
            }
            if beat.last {
                let frame = std::mem::take(&mut self.arriving);
                if frame.len() <= self.depth_beats && !self.peers.is_empty() {
                    self.stored.push_back(frame);
                }
            }
        }
        self.is_ready = self.stored.len() < 2;
    }
}
