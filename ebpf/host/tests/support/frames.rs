//! Frames to run the programs on: the golden vectors, our frames in golden datagrams, and what makes mutants of them.

use dataplane_wire::{
    datagram::{self, Header},
    ethernet::Vlan,
    frame,
    internet::Addresses,
    udp::Checksum,
    vectors::{DATAGRAMS, FRAMES},
};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// A frame with a name for failures.
#[derive(Clone, Debug)]
pub struct Named {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The longest frame that fits one buffer of a program run: a page without headroom and struct skb_shared_info
/// (bpf_test_init, net/bpf/test_run.c).
pub const ONE_BUFFER_BYTES: usize = 4096 - 256 - 320;

/// The headers of the golden datagrams that are sent as `emit` would: IPv4 and IPv6, tagged and not, from and to the
/// addresses in [`super::SETTINGS`].
pub fn headers() -> Vec<(&'static str, Header)> {
    let names = ["v4", "v6", "v4_tagged", "v6_tagged"];
    let of = |name| {
        let vector = DATAGRAMS
            .iter()
            .find(|vector| vector.name == name)
            .expect("it is in the list");
        (name, vector.expect.expect("it parses").0)
    };
    names.into_iter().map(of).collect()
}

/// `payload` in a datagram.
pub fn wrapped(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; header.len_bytes()];
    bytes.extend_from_slice(payload);
    datagram::emit(header, Checksum::Full, &mut bytes);
    bytes
}

/// An echo request of `frame_bytes`, header included.
pub fn request(frame_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; frame_bytes];
    dataplane_echo::request(7, 41, 1_000, &mut bytes);
    bytes
}

/// What a sender leaves in the checksum field whose device is to make the checksum: the pseudo-header's sum
/// (CHECKSUM_PARTIAL, include/linux/skbuff.h).
pub fn left_partial(header: &Header, bytes: &mut [u8]) {
    let udp_at = header.len_bytes() - 8;
    let sum = header.addresses.pseudo_header(17, (bytes.len() - udp_at) as u32).fold();
    bytes[udp_at + 6..udp_at + 8].copy_from_slice(&sum.to_be_bytes());
}

/// Puts a second tag in front of the tag or type of a frame.
pub fn tagged_once_more(bytes: &[u8], protocol: u16) -> Vec<u8> {
    let mut tag = protocol.to_be_bytes().to_vec();
    tag.extend_from_slice(&[0x00, 0x07]);
    [&bytes[..12], &tag, &bytes[12..]].concat()
}

/// Everything golden: the datagrams of the vectors, and every golden frame of ours, an echo request with a trailer and one of
/// odd length in every golden header, with whole, partial and left-out checksums.
pub fn goldens() -> Vec<Named> {
    let mut goldens: Vec<Named> = DATAGRAMS
        .iter()
        .map(|vector| Named {
            name: format!("datagram {}", vector.name),
            bytes: vector.bytes.to_vec(),
        })
        .collect();
    let mut payloads: Vec<(String, Vec<u8>)> = FRAMES
        .iter()
        .map(|vector| (vector.name.to_owned(), vector.bytes.to_vec()))
        .collect();
    payloads.push(("request_with_trailer".into(), request(frame::HEADER_BYTES + 4 + 64)));
    payloads.push(("request_of_odd_length".into(), request(141)));
    for (header_name, header) in headers() {
        for (payload_name, payload) in &payloads {
            let whole = wrapped(&header, payload);
            let mut partial = whole.clone();
            left_partial(&header, &mut partial);
            let name = |what: &str| format!("{payload_name} in {header_name}, {what}");
            goldens.push(Named {
                name: name("two tags"),
                bytes: tagged_once_more(&whole, 0x88a8),
            });
            if let Addresses::V4 { .. } = header.addresses {
                let mut bytes = whole.clone();
                datagram::emit(&header, Checksum::None, &mut bytes);
                goldens.push(Named {
                    name: name("no checksum"),
                    bytes,
                });
            }
            goldens.push(Named {
                name: name("whole checksum"),
                bytes: whole,
            });
            goldens.push(Named {
                name: name("partial checksum"),
                bytes: partial,
            });
        }
    }
    goldens
}

/// A header of the same frame on another VLAN.
pub fn on_vlan(header: &Header, tci: u16) -> Header {
    Header {
        vlan: Some(Vlan(tci)),
        ..*header
    }
}

/// Damages `frame` in one to four places, in ways that parsers are afraid of.
pub fn mutate(rng: &mut Pcg64Mcg, frame: &[u8], into: &mut Vec<u8>) {
    into.clear();
    into.extend_from_slice(frame);
    for _ in 0..rng.random_range(1..=4) {
        if into.is_empty() {
            into.push(rng.random());
        }
        // Most of it in the headers, where it matters.
        let reach = match rng.random_range(0..4) {
            0 => into.len(),
            _ => into.len().min(110),
        };
        let at = rng.random_range(0..reach);
        match rng.random_range(0..8) {
            0 | 1 => into[at] ^= 1 << rng.random_range(0..8),
            2 => into[at] = rng.random(),
            3 => into[at] = [0, 1, 0x45, 0x60, 17, 0x7f, 0x80, 0xff][rng.random_range(0..8)],
            // A length or a type a little, or wholly, other than it was.
            4 if at + 1 < into.len() => {
                let word = u16::from_be_bytes([into[at], into[at + 1]]);
                let word = match rng.random_range(0..4) {
                    0 => word.wrapping_add(1),
                    1 => word.wrapping_sub(1),
                    2 => [0, 0xffff, 0x8100, 0x88a8, 0x0800, 0x86dd][rng.random_range(0..6)],
                    _ => rng.random(),
                };
                into[at..at + 2].copy_from_slice(&word.to_be_bytes());
            }
            4 | 5 => {
                let keep = rng.random_range(0..=into.len());
                into.truncate(keep);
            }
            6 => {
                let more = rng.random_range(1..=40);
                into.extend((0..more).map(|_| rng.random::<u8>()));
            }
            _ => {
                let from = rng.random_range(0..into.len());
                let len = rng.random_range(0..=(into.len() - from.max(at)).min(8));
                into.copy_within(from..from + len, at);
            }
        }
    }
    into.truncate(ONE_BUFFER_BYTES);
}
