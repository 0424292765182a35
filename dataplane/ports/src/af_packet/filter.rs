//! The classic BPF program that lets only our datagrams into the ring (Documentation/networking/filter.rst).
//!
//! It saves room in the ring and time in the thread; it is not a check. Whatever passes is parsed wholly afterwards.

use std::net::{IpAddr, SocketAddr};

use libc::sock_filter;

// Offsets from the Ethernet header, without tags and options.
const ETHER_TYPE: u32 = 12;
const IPV4_VERSION_LENGTH: u32 = 14;
const IPV4_FRAGMENT: u32 = 20;
const IPV4_PROTOCOL: u32 = 23;
const IPV4_DESTINATION: u32 = 30;
const IPV4_PORT: u32 = 36;
const IPV6_NEXT_HEADER: u32 = 20;
const IPV6_DESTINATION: u32 = 38;
const IPV6_PORT: u32 = 56;

const PROTOCOL_UDP: u32 = 17;
/// IPv4 without options: version 4, five words.
const IPV4_PLAIN: u32 = 0x45;
/// More-fragments and the fragment offset: a fragment has one of them.
const IPV4_FRAGMENT_MASK: u32 = 0x3fff;
/// What "take it all" is in a program's answer.
const ALL_BYTES: u32 = 0x4_0000;

const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Passes UDP over unfragmented IP to `local`, whole.
pub(super) fn only_to(local: SocketAddr) -> Vec<sock_filter> {
    let port = u32::from(local.port());
    let mut program = Vec::new();
    let mut require = |load: u16, at: u32, mask: Option<u32>, value: u32| {
        program.push(instruction(load, at));
        program.extend(mask.map(|mask| instruction(AND, mask)));
        program.push(instruction(JUMP_IF_EQUAL, value));
    };
    match local.ip() {
        IpAddr::V4(ip) => {
            require(LOAD_HALF, ETHER_TYPE, None, libc::ETH_P_IP as u32);
            require(LOAD_BYTE, IPV4_VERSION_LENGTH, None, IPV4_PLAIN);
            require(LOAD_BYTE, IPV4_PROTOCOL, None, PROTOCOL_UDP);
            require(LOAD_HALF, IPV4_FRAGMENT, Some(IPV4_FRAGMENT_MASK), 0);
            require(LOAD_WORD, IPV4_DESTINATION, None, ip.to_bits());
            require(LOAD_HALF, IPV4_PORT, None, port);
        }
        IpAddr::V6(ip) => {
            require(LOAD_HALF, ETHER_TYPE, None, libc::ETH_P_IPV6 as u32);
            require(LOAD_BYTE, IPV6_NEXT_HEADER, None, PROTOCOL_UDP);
            for word in 0..4 {
                let value = (ip.to_bits() >> (96 - 32 * word)) as u32;
                require(LOAD_WORD, IPV6_DESTINATION + 4 * word, None, value);
            }
            require(LOAD_HALF, IPV6_PORT, None, port);
        }
    }
    program.push(instruction(ANSWER, ALL_BYTES));
    program.push(instruction(ANSWER, 0));
    // A comparison that fails jumps to the last instruction; jumps count from the one after.
    let last = program.len() - 1;
    for (at, step) in program.iter_mut().enumerate() {
        if step.code == JUMP_IF_EQUAL {
            step.jf = u8::try_from(last - at - 1).expect("the program is short");
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane_wire::{
        datagram::{self, Header},
        ethernet::{Mac, Vlan},
        internet::Addresses,
        udp::Checksum,
    };
    use proptest::prelude::*;

    /// What the kernel would answer. A load behind the end is 0, as there.
    fn run(program: &[sock_filter], frame: &[u8]) -> u32 {
        let load = |at: u32, len_bytes: usize| -> Option<u32> {
            let bytes = frame.get(at as usize..at as usize + len_bytes)?;
            Some(bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
        };
        let mut accumulator = 0;
        let mut at = 0;
        loop {
            let step = program[at];
            at += 1;
            let loaded = match step.code {
                LOAD_BYTE => load(step.k, 1),
                LOAD_HALF => load(step.k, 2),
                LOAD_WORD => load(step.k, 4),
                AND => Some(accumulator & step.k),
                JUMP_IF_EQUAL => {
                    at += usize::from(if accumulator == step.k { step.jt } else { step.jf });
                    continue;
                }
                ANSWER => return step.k,
                other => panic!("no such instruction: {other:#x}"),
            };
            match loaded {
                Some(value) => accumulator = value,
                None => return 0,
            }
        }
    }

    fn frame(local: SocketAddr, dst_port: u16, vlan: Option<Vlan>) -> Vec<u8> {
        let addresses = match local.ip() {
            IpAddr::V4(dst) => Addresses::V4 { src: 7.into(), dst },
            IpAddr::V6(dst) => Addresses::V6 { src: 7.into(), dst },
        };
        let header = Header {
            dst_mac: Mac([2; 6]),
            src_mac: Mac([4; 6]),
            vlan,
            addresses,
            src_port: 9,
            dst_port,
        };
        let mut frame = vec![0; header.len_bytes() + 20];
        datagram::emit(&header, Checksum::Full, &mut frame);
        frame
    }

    proptest! {
        #[test]
        fn passes_ours_and_nothing_else(ip in any::<IpAddr>(), port in any::<u16>(), bit in 0usize..400) {
            let local = SocketAddr::new(ip, port);
            let program = only_to(local);
            let ours = frame(local, port, None);
            prop_assert_eq!(run(&program, &ours), ALL_BYTES);
            prop_assert_eq!(run(&program, &frame(local, port ^ 1, None)), 0);
            prop_assert_eq!(run(&program, &frame(local, port, Some(Vlan(5)))), 0);
            prop_assert_eq!(run(&crate::companion::DROP_ALL, &ours), 0);

            // Exactly the fields of the program matter.
            let mut flipped = ours.clone();
            let bit = bit % (ours.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            let matters: &[std::ops::Range<usize>] = match ip {
                IpAddr::V4(_) => &[12..15, 20..22, 23..24, 30..34, 36..38],
                IpAddr::V6(_) => &[12..14, 20..21, 38..54, 56..58],
            };
            // Of the fragment field, "do not fragment" and the reserved bit do not.
            let is_excused = ip.is_ipv4() && bit / 8 == 20 && bit % 8 >= 6;
            let must_drop = matters.iter().any(|range| range.contains(&(bit / 8))) && !is_excused;
            prop_assert_eq!(run(&program, &flipped) == 0, must_drop, "bit {}", bit);
        }

        #[test]
        fn short_frames_are_dropped(ip in any::<IpAddr>(), port in any::<u16>(), len_bytes in 0usize..38) {
            let local = SocketAddr::new(ip, port);
            prop_assert_eq!(run(&only_to(local), &frame(local, port, None)[..len_bytes]), 0);
        }
    }
}
