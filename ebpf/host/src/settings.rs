//! What a program is told before the verifier sees it.

use core::net::{Ipv4Addr, Ipv6Addr};

use dataplane_wire::{ethernet::Mac, frame::Kind, trace::Station};

/// Who we are, and which frames a program takes. `pass` heeds [`Settings::frags`] alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The interface's own address: frames to another are a stranger's. All zeros on `lo`.
    pub local_mac: Mac,
    /// This host's IPv4 address; without one no frame over IPv4 is taken.
    pub local_ipv4: Option<Ipv4Addr>,
    /// This host's IPv6 address; without one no frame over IPv6 is taken.
    pub local_ipv6: Option<Ipv6Addr>,
    /// The UDP destination port of the frames to take.
    pub local_port: u16,
    /// Which kinds of frames to take, bit n for kind n: see [`kinds`]. `echo` takes echo requests only, whatever this says.
    pub kinds: u32,
    /// A MAC address and an IPv4 address that are ours and others' too: how a leader reaches all its followers with one frame.
    pub group: Option<(Mac, Ipv4Addr)>,
    /// `quorum_leader` only: how many sessions its replica has places for, at most `ebpf_abi::quorum::SESSIONS_MAX`.
    pub session_count: u32,
    /// `lossy` only, which heeds this, the next and [`Settings::frags`]: how many of 2^64 frames are lost.
    pub loss_threshold: u64,
    /// `lossy` only: what decides which.
    pub loss_seed: u64,
    /// `stamp` only: which stamp of the trailer to write, a [`Station`] as a number.
    pub stamp_index: u32,
    /// Load the function that accepts frames of several buffers: what an MTU above about 3,500 bytes needs (Linux 5.18).
    pub frags: bool,
}

impl Settings {
    /// The same, losing `loss_ratio` (0 to 1) of all frames.
    pub const fn losing(self, loss_ratio: f64, seed: u64) -> Settings {
        Settings {
            // Saturates: all of them.
            loss_threshold: (loss_ratio * (1u128 << 64) as f64) as u64,
            loss_seed: seed,
            ..self
        }
    }

    /// The same, writing the stamp of `station`.
    pub const fn stamping(self, station: Station) -> Settings {
        Settings {
            stamp_index: station as u32,
            ..self
        }
    }
}

/// The set of `kinds` as [`Settings::kinds`] has it.
pub const fn kinds(kinds: &[Kind]) -> u32 {
    let mut set = 0;
    let mut index = 0;
    while index < kinds.len() {
        set |= 1 << kinds[index] as u8;
        index += 1;
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_kinds_has_the_bit_of_each() {
        assert_eq!(kinds(&[]), 0);
        assert_eq!(kinds(&[Kind::EchoRequest, Kind::QuorumReply]), 0b1_0010);
    }
}
