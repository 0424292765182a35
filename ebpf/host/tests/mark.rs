//! `mark_ecn` on frames and on an interface: what it marks, what it leaves, and what it counts, beside what it should.
#![forbid(unsafe_code)]

use std::net::UdpSocket;

use dataplane_netns::{Line, Network, NetworkOptions, Privilege, QueueLimit, Shaper, Topology, can_shape, prepare};
use dataplane_waist::Support;
use ebpf_host::{EcnMarker, HostError, MarkCounts, MarkOptions, probe_mark};

/// The last two bits of the second byte of IPv4, or of IPv6's traffic class (RFC 3168 section 5).
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The program, or `None` with the reason printed.
fn load(test: &str, options: &MarkOptions) -> Option<EcnMarker> {
    if prepare() != Privilege::Root {
        println!("{test}: not run: needs root, for BPF");
        return None;
    }
    match probe_mark() {
        Ok(Support::Absent { why }) => println!("{test}: not run: {why}"),
        Err(error) => println!("{test}: not run: {error}"),
        Ok(_) => return Some(EcnMarker::load(options).expect("the probe loaded it")),
    }
    None
}

/// An IPv4 header with a good checksum, and a few bytes.
fn ipv4(ecn: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, ecn, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 203, 0, 1, 10, 203, 0, 2]);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0x1b, 0x58, 0x1b, 0x58, 0, 8, 0, 0]);
    frame
}

fn ipv6(ecn: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    frame.extend([0x60, ecn << 4, 0, 0, 0, 8, 17, 64]);
    frame.extend([0xfd; 32]);
    frame.extend([0x1b, 0x58, 0x1b, 0x58, 0, 8, 0, 0]);
    frame
}

fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 6]);
    frame.extend([0; 28]);
    frame
}

/// RFC 1071, of a header whose own checksum is zero; of a good one, zero.
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What the program should make of a frame that finds `waits_too_much`, and where it should count it.
fn model(frame: &[u8], waits_too_much: bool) -> (Vec<u8>, MarkCounts) {
    let mut marked = frame.to_vec();
    let mut counts = MarkCounts::default();
    let ecn = match frame[12..14] {
        [8, 0] => frame[15] & CE,
        [0x86, 0xdd] => frame[15] >> 4 & CE,
        _ => NOT_ECT,
    };
    match (waits_too_much, ecn) {
        (false, _) => counts.below_count = 1,
        (true, NOT_ECT) => counts.not_capable_count = 1,
        (true, _) => {
            counts.marked_count = 1;
            if frame[12] == 8 {
                marked[15] |= CE;
                marked[24..26].fill(0);
                let sum = checksum(&marked[14..34]);
                marked[24..26].copy_from_slice(&sum.to_be_bytes());
            } else {
                marked[15] |= CE << 4;
            }
        }
    }
    (marked, counts)
}

/// On single frames nothing waits, so a threshold of nothing leaves them, and a queue without room drops them.
#[test]
fn frames_that_find_nothing_waiting_are_left_as_they_are() {
    let Some(marker) = load(
        "frames that find nothing",
        &MarkOptions {
            above_frames: 0,
            ..MarkOptions::default()
        },
    ) else {
        return;
    };
    let frames = [ipv4(ECT_0), ipv6(ECT_0), arp(), ipv4(NOT_ECT)];
    for frame in &frames {
        let (expected, _) = model(frame, false);
        assert_eq!(marker.test_run(frame).expect("it runs"), expected);
    }
    let counts = marker.counts().expect("counted");
    assert_eq!((counts.below_count, counts.seen_count()), (4, 4), "{counts:?}");
    // Each with the 24 bytes of Ethernet.
    let bytes: usize = frames.iter().map(|frame| frame.len() + 24).sum();
    assert!(
        counts.burst_bytes_max <= bytes as u64 && counts.burst_bytes_max >= 66,
        "{counts:?}"
    );
}

#[test]
fn what_will_be_dropped_is_not_marked() {
    let Some(marker) = load(
        "what will be dropped",
        &MarkOptions {
            limit_frames: 0,
            above_frames: 0,
            ..MarkOptions::default()
        },
    ) else {
        return;
    };
    assert_eq!(marker.test_run(&ipv4(ECT_0)).expect("it runs"), ipv4(ECT_0));
    assert_eq!(marker.counts().expect("counted").full_count, 1);
}

/// Two hosts, the first with a line so slow that all but the first frames wait.
fn slow_pair(test: &str) -> Option<(Network, Shaper)> {
    if let Err(why) = can_shape() {
        println!("{test}: not run: {why}");
        return None;
    }
    let options = NetworkOptions {
        publish_names: false,
        ..NetworkOptions::new(Topology::Pair)
    };
    let network = Network::build(&options).expect("root can build a pair");
    let host = &network.hosts()[0];
    let line = Line {
        bits_per_sec: 100_000,
        limit: QueueLimit::Frames(20),
    };
    let shaper = host
        .run(|| Shaper::open(&host.interface().name))
        .expect("inside")
        .expect("an interface");
    shaper.set(&line).expect("a line");
    Some((network, shaper))
}

/// What the queue really holds decides: of a burst the first are below, then come marks up to the limit, then none.
#[test]
fn a_burst_is_marked_from_the_threshold_to_the_limit() {
    let test = "a burst is marked";
    let options = MarkOptions {
        above_frames: 5,
        limit_frames: 20,
        ..MarkOptions::default()
    };
    let Some(mut marker) = load(test, &options) else { return };
    let Some((network, shaper)) = slow_pair(test) else {
        return;
    };
    let [near, far] = network.hosts() else {
        unreachable!("a pair")
    };
    let socket = near
        .run(|| {
            marker.attach(&near.interface().name).expect("it is Linux 6.6");
            UdpSocket::bind((near.ipv4(), 0))
        })
        .expect("inside")
        .expect("a socket");
    let before = marker.counts().expect("counted");
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv4Tos, &i32::from(ECT_1)).expect("ECT(1)");
    for _ in 0..50 {
        socket.send_to(&[0; 1000], (far.ipv4(), 7000)).expect("sent");
    }
    let counts = marker.counts().expect("counted");
    let line = shaper.counts().expect("counted");
    let after = marker.counts().expect("counted");
    assert_eq!(counts.unread_count, 0, "{counts:?}");
    assert!(counts.seen_count() - before.seen_count() >= 50, "{counts:?}");
    // Two frames leave at once, as many as the bucket holds; the sixth that waits finds five.
    assert!((5..=10).contains(&counts.below_count), "{counts:?}");
    assert!((10..=16).contains(&counts.marked_count), "{counts:?}");
    // The host itself may say something between two looks: that it has an address of IPv6, for one.
    let full_counts = counts.full_count..=after.full_count;
    assert!(
        full_counts.contains(&line.dropped_count.into()),
        "{counts:?} {line:?} {after:?}"
    );
    assert!(line.waiting_count >= 18, "{line:?}");
}

#[test]
fn no_such_interface_is_named() {
    let Some(mut marker) = load("no such interface", &MarkOptions::default()) else {
        return;
    };
    match marker.attach("no-such-port") {
        Err(HostError::NoInterface { interface }) => assert_eq!(interface, "no-such-port"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn marks_are_those_of_the_model() {
    let options = MarkOptions {
        above_frames: 0,
        ..MarkOptions::default()
    };
    if load("marks are those of the model", &options).is_none() {
        return;
    }
    for frame in [
        ipv4(NOT_ECT),
        ipv4(ECT_0),
        ipv4(ECT_1),
        ipv4(CE),
        ipv6(NOT_ECT),
        ipv6(ECT_0),
        ipv6(ECT_1),
        ipv6(CE),
        arp(),
    ] {
        let marker = EcnMarker::load_where_something_waits(&options).expect("it loads");
        let (expected, expected_counts) = model(&frame, true);
        assert_eq!(marker.test_run(&frame).expect("it runs"), expected, "{frame:x?}");
        let counts = MarkCounts {
            burst_bytes_max: 0,
            ..marker.counts().expect("counted")
        };
        assert_eq!(counts, expected_counts, "{frame:x?}");
        if frame[12..14] == [8, 0] {
            assert_eq!(checksum(&expected[14..34]), 0, "the model's own checksum");
        }
    }
}
