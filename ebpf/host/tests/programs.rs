//! The programs against their model, without an interface: golden frames and hand-made ones.
#![forbid(unsafe_code)]

mod support;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::os::fd::AsFd;

use dataplane_wire::{
    datagram::{self, Header},
    ethernet::Mac,
    frame::{self, Kind},
    internet::Addresses,
    trace::{self, Station},
    udp::{self, Checksum, Verify},
};
use ebpf_host::{Count, Counts, FRAME_BYTES_MIN, HostError, Lossy, Program, Settings, Verdict, kinds, lost};
use support::{
    SETTINGS,
    frames::{self, Named, goldens, headers, left_partial, request, wrapped},
    judge::{Judge, hex, judges},
    load, monotonic_ns,
};

fn header(name: &str) -> Header {
    headers()
        .into_iter()
        .find(|(known, _)| *known == name)
        .expect("known")
        .1
}

#[test]
fn both_functions_of_every_program_load() {
    for program in Program::ALL {
        for frags in [false, true] {
            let settings = Settings { frags, ..SETTINGS };
            let Some(loaded) = load("both functions", program, &settings) else {
                continue;
            };
            assert_ne!(loaded.program_id().unwrap(), 0);
            println!("{}, frags {frags}: {}", program.name(), loaded.cost().unwrap());
            match program {
                Program::Pass | Program::Lossy => {
                    assert!(matches!(loaded.counts(), Err(HostError::CountsNothing { .. })))
                }
                _ => assert_eq!(loaded.counts().unwrap(), Counts::default()),
            }
        }
    }
}

#[test]
fn a_lossy_port_loses_what_its_seed_says() {
    let settings = SETTINGS.losing(0.25, 42);
    let Some(loaded) = load("lossy", Program::Lossy, &settings) else {
        return;
    };
    let frame = [0x55; FRAME_BYTES_MIN];
    let mut dropped_count = 0;
    for number in 0..400 {
        let verdict = loaded.test_run(&frame).unwrap().verdict;
        let is_lost = lost::is_lost(42, number, settings.loss_threshold);
        assert_eq!(verdict == Verdict::Drop, is_lost, "frame {number}");
        dropped_count += u64::from(is_lost);
    }
    assert_eq!(loaded.lost(Lossy::Seen).unwrap(), 400);
    assert_eq!(loaded.lost(Lossy::Dropped).unwrap(), dropped_count);
    assert!((60..140).contains(&dropped_count), "{dropped_count} of 400");
}

#[test]
fn golden_frames_get_their_verdicts() {
    for mut judge in judges("golden frames", SETTINGS) {
        for Named { name, bytes } in goldens() {
            if bytes.len() >= FRAME_BYTES_MIN {
                judge.holds(&name, &bytes);
            }
        }
    }
}

#[test]
fn golden_frames_get_their_verdicts_from_the_functions_for_several_buffers() {
    for mut judge in judges(
        "golden frames, frags",
        Settings {
            frags: true,
            ..SETTINGS
        },
    ) {
        for Named { name, bytes } in goldens() {
            if bytes.len() >= FRAME_BYTES_MIN {
                judge.holds(&name, &bytes);
            }
        }
    }
}

/// The model agrees with the programs; here it is held against what a person says.
#[test]
fn each_reason_is_counted_as_its_own() {
    let settings = Settings {
        kinds: kinds(&[Kind::EchoRequest]),
        ..SETTINGS
    };
    let Some(mut judge) = Judge::new("reasons", Program::CountDrop, settings) else {
        return;
    };
    let v4 = header("v4");
    let good = wrapped(&v4, &request(64));
    let edited = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let to = |header: Header| wrapped(&header, &request(64));
    let mut of_kind_2 = request(64);
    of_kind_2[5] = 2;
    let v6 = to(header("v6"));
    let mut v6_other_next = v6.clone();
    v6_other_next[20] = 0;
    let cases = [
        ("ours", good.clone(), Count::Taken),
        ("ours, padded", [&good[..], &[0; 9]].concat(), Count::Taken),
        ("ours over IPv6", v6.clone(), Count::Taken),
        ("on a VLAN", to(frames::on_vlan(&v4, 0x6064)), Count::Taken),
        (
            "QinQ",
            frames::tagged_once_more(&to(frames::on_vlan(&v4, 5)), 0x88a8),
            Count::Taken,
        ),
        (
            "VLAN in VLAN",
            frames::tagged_once_more(&to(frames::on_vlan(&v4, 5)), 0x8100),
            Count::Taken,
        ),
        (
            "three tags",
            frames::tagged_once_more(&frames::tagged_once_more(&to(frames::on_vlan(&v4, 5)), 0x8100), 0x8100),
            Count::NotIp,
        ),
        ("ARP", edited(13, 0x06), Count::NotIp),
        ("version 5", edited(14, 0x55), Count::NotIp),
        ("cut in the IP header", good[..33].to_vec(), Count::NotIp),
        ("options", edited(14, 0x46), Count::IpOptions),
        ("four words of header", edited(14, 0x44), Count::IpOptions),
        ("TCP", edited(23, 6), Count::NotUdp),
        ("IPv6 hop-by-hop options", v6_other_next, Count::NotUdp),
        ("first fragment", edited(20, 0x20), Count::Fragment),
        ("later fragment", edited(21, 1), Count::Fragment),
        ("don't fragment is no fragment", edited(20, 0x40), Count::Taken),
        ("cut in the UDP header", good[..41].to_vec(), Count::Length),
        ("other port", to(Header { dst_port: 22, ..v4 }), Count::OtherPort),
        ("other host", edited(33, 3), Count::Stranger),
        ("other station", edited(5, 3), Count::Stranger),
        (
            "broadcast",
            to(Header {
                dst_mac: Mac::BROADCAST,
                ..v4
            }),
            Count::Stranger,
        ),
        ("other magic", edited(42, b'd'), Count::NotOurs),
        ("other version", edited(46, 2), Count::NotOurs),
        (
            "too short for our header",
            wrapped(&v4, &request(64)[..39]),
            Count::NotOurs,
        ),
        ("kind not asked for", wrapped(&v4, &of_kind_2), Count::OtherKind),
        ("kind 33, whose bit is that of kind 1", edited(47, 33), Count::OtherKind),
        ("kind 0", edited(47, 0), Count::OtherKind),
        ("payload longer than announced", edited(49, 23), Count::Length),
        ("UDP length differs", edited(39, 71), Count::Length),
        ("IP length differs", edited(17, 91), Count::Length),
        (
            "IP length below its header",
            {
                let mut bytes = edited(16, 0);
                bytes[17] = 19;
                bytes
            },
            Count::Length,
        ),
        ("cut by a byte", good[..good.len() - 1].to_vec(), Count::Length),
    ];
    for (name, bytes, count) in cases {
        let (expected, _) = judge.holds(name, &bytes);
        assert_eq!(expected.count, Some(count), "{name}");
    }
}

#[test]
fn without_an_address_of_a_family_nothing_of_it_is_taken() {
    let settings = Settings {
        local_ipv4: None,
        local_ipv6: None,
        ..SETTINGS
    };
    let Some(mut judge) = Judge::new("no address", Program::CountDrop, settings) else {
        return;
    };
    for (name, header) in headers() {
        // The address in the frame is some host's, or all zeros as the settings' "none" is.
        let nowhere = match header.addresses {
            Addresses::V4 { src, .. } => Addresses::V4 {
                src,
                dst: Ipv4Addr::UNSPECIFIED,
            },
            Addresses::V6 { src, .. } => Addresses::V6 {
                src,
                dst: Ipv6Addr::UNSPECIFIED,
            },
        };
        for addresses in [header.addresses, nowhere] {
            let header = Header { addresses, ..header };
            let (expected, _) = judge.holds(name, &wrapped(&header, &request(64)));
            assert_eq!(expected.count, Some(Count::Stranger), "{name}");
        }
    }
}

/// The reply that user space would write: the echo protocol's frame in the reversed datagram.
fn reply_of(header: &Header, request: &[u8], checksum: Checksum) -> Vec<u8> {
    let mut reply = request.to_vec();
    let parsed = frame::parse(request).expect("a request of ours");
    let reply_header = frame::Header {
        kind: Kind::EchoReply,
        ..parsed.header
    };
    frame::emit(&reply_header, &mut reply);
    let mut bytes = vec![0; header.len_bytes()];
    bytes.extend_from_slice(&reply);
    datagram::emit(&header.reversed(), checksum, &mut bytes);
    bytes
}

#[test]
fn the_echo_is_what_user_space_would_answer_byte_for_byte() {
    for frags in [false, true] {
        let settings = Settings { frags, ..SETTINGS };
        if let Some(mut judge) = Judge::new("echo", Program::Echo, settings) {
            answers_byte_for_byte(&mut judge);
        }
    }
}

fn answers_byte_for_byte(judge: &mut Judge) {
    // Even and odd, on both sides of what the programs sum up at a time, and what fits one buffer.
    let lengths = (44..120).chain([141, 512, 1471, 1472, 3_000, 3_400]);
    for frame_bytes in lengths {
        let request = request(frame_bytes);
        for (name, header) in headers() {
            let whole = wrapped(&header, &request);
            let mut partial = whole.clone();
            left_partial(&header, &mut partial);
            let reply = reply_of(&header, &request, Checksum::Full);
            for (what, bytes) in [("whole", &whole), ("partial", &partial)] {
                let (_, answer) = judge.holds(name, bytes);
                let name = format!("{frame_bytes} bytes in {name}, {what} checksum");
                assert_eq!(answer.verdict, Verdict::Tx, "{name}");
                assert_eq!(hex(&answer.data), hex(&reply), "{name}");
                let datagram = datagram::parse(&answer.data, Verify::Checksum).expect("every checksum is right");
                let reply = dataplane_echo::reply(&answer.data[datagram.payload], 7).expect("a reply");
                assert!(reply.payload_intact && reply.seq == 41, "{name}");
            }
            if matches!(header.addresses, Addresses::V4 { .. }) {
                let mut without = whole.clone();
                datagram::emit(&header, Checksum::None, &mut without);
                let (_, answer) = judge.holds(name, &without);
                assert_eq!(answer.data, reply_of(&header, &request, Checksum::None), "{name}");
            }
        }
    }
}

#[test]
fn a_sum_of_zero_is_sent_as_ones() {
    let Some(mut judge) = Judge::new("sum of zero", Program::Echo, SETTINGS) else {
        return;
    };
    // Of all source ports, one makes the reply's checksum come out as zero.
    let request = request(64);
    let mut ones_count = 0;
    for src_port in 1..=u16::MAX {
        let header = Header {
            src_port,
            ..header("v4")
        };
        let reply = reply_of(&header, &request, Checksum::Full);
        if reply[40..42] == [0xff, 0xff] {
            let (_, answer) = judge.holds("sum of zero", &wrapped(&header, &request));
            assert_eq!(answer.data, reply);
            ones_count += 1;
        }
    }
    assert!(ones_count > 0, "no port gave a sum of zero");
}

/// One checksum in 65,536 equals the sum of its pseudo-header, and is not taken for one that was left to a device.
#[test]
fn a_checksum_that_looks_partial_and_is_whole_stays_right() {
    let looks_partial = |request: &[u8], header: Header| {
        let whole = wrapped(&header, request);
        let mut partial = whole.clone();
        left_partial(&header, &mut partial);
        (whole == partial).then_some(whole)
    };
    for (frame_bytes, frags) in [(64, false), (141, false), (108, true), (1_400, true), (6_000, true)] {
        let request = request(frame_bytes);
        let (header, bytes) = (1..=u16::MAX)
            .map(|src_port| Header {
                src_port,
                ..header("v4")
            })
            .find_map(|header| Some((header, looks_partial(&request, header)?)))
            .expect("one port of 65,535 gives it");
        let settings = Settings { frags, ..SETTINGS };
        let Some(mut echo) = Judge::new("looks partial", Program::Echo, settings) else {
            return;
        };
        let (_, answer) = echo.holds("looks partial", &bytes);
        assert_eq!(
            answer.data,
            reply_of(&header, &request, Checksum::Full),
            "{frame_bytes} bytes"
        );
        let Some(mut stamp) = Judge::new("looks partial", Program::Stamp, settings) else {
            return;
        };
        let (_, answer) = stamp.holds("looks partial", &bytes);
        datagram::parse(&answer.data, Verify::Checksum).expect("UDP's checksum is right");
    }
}

#[test]
fn what_cannot_be_summed_up_is_passed_untouched() {
    let settings = Settings {
        frags: true,
        ..SETTINGS
    };
    let header = header("v4");
    let longest = ebpf_abi::summed::FRAGS_BYTES_MAX - udp::HEADER_BYTES;
    for (frame_bytes, verdict, count) in [
        (longest - 1, Verdict::Tx, Count::Taken),
        (longest, Verdict::Tx, Count::Taken),
        (longest + 1, Verdict::Pass, Count::Unfit),
    ] {
        let Some(mut judge) = Judge::new("too long", Program::Echo, settings) else {
            return;
        };
        let whole = wrapped(&header, &request(frame_bytes));
        assert_eq!(judge.holds("whole", &whole).1.verdict, Verdict::Tx);
        let mut partial = whole;
        left_partial(&header, &mut partial);
        let (expected, _) = judge.holds("partial", &partial);
        assert_eq!(
            (expected.verdict, expected.count),
            (verdict, Some(count)),
            "{frame_bytes} bytes"
        );
    }
}

#[test]
fn frames_of_several_buffers_get_their_verdicts() {
    let settings = Settings {
        frags: true,
        ..SETTINGS
    };
    let header = header("v4");
    let whole = wrapped(&header, &request(6_000));
    let mut partial = whole.clone();
    left_partial(&header, &mut partial);
    for (program, verdict, count) in [
        (Program::Pass, Verdict::Pass, None),
        (Program::CountDrop, Verdict::Drop, Some(Count::Taken)),
        (Program::Echo, Verdict::Tx, Some(Count::Taken)),
        (Program::Steer, Verdict::Pass, Some(Count::NoSocket)),
        (Program::SteerPort, Verdict::Pass, Some(Count::NoSocket)),
        (Program::Stamp, Verdict::Pass, Some(Count::Unfit)),
    ] {
        let Some(mut judge) = Judge::new("several buffers", program, settings) else {
            continue;
        };
        let (expected, _) = judge.holds("whole", &whole);
        assert_eq!(
            (expected.verdict, expected.count),
            (verdict, count),
            "{}",
            program.name()
        );
        judge.holds("partial", &partial);
        judge.holds("cut", &whole[..5_999]);
    }
}

#[test]
fn a_stamp_is_the_time_of_the_run_and_mends_every_checksum() {
    for station in [Station::ServerDriverRx, Station::ClientDriverRx, Station::Spare7] {
        let Some(mut judge) = Judge::new("stamp", Program::Stamp, SETTINGS.stamping(station)) else {
            return;
        };
        for frame_bytes in [108, 109, 110, 111, 1_400, 1_401] {
            for (name, header) in headers() {
                let name = format!("{frame_bytes} bytes in {name}");
                let before = monotonic_ns();
                let (expected, answer) = judge.holds(&name, &wrapped(&header, &request(frame_bytes)));
                let after = monotonic_ns();
                assert_eq!(
                    (expected.verdict, expected.count),
                    (Verdict::Pass, Some(Count::Taken)),
                    "{name}"
                );
                let datagram = datagram::parse(&answer.data, Verify::Checksum).expect("UDP's checksum is right");
                let frame = frame::parse(&answer.data[datagram.payload]).expect("our two checksums are right");
                let trailer = trace::trailer(frame.payload).expect("long enough");
                let stamp = trace::stamp(trailer, station);
                assert!(
                    (before..=after).contains(&stamp),
                    "{name}: {stamp} is not in {before}..={after}"
                );
            }
        }
        // A byte too short for a trailer.
        let (expected, _) = judge.holds("no trailer", &wrapped(&header("v4"), &request(107)));
        assert_eq!(expected.count, Some(Count::Unfit));
    }
}

#[test]
fn steer_redirects_to_the_socket_of_its_queue_and_of_no_other() {
    redirects_to_the_socket_of_its_queue(Program::Steer);
}

#[test]
fn steer_port_does_too_and_asks_for_the_port_alone() {
    let Some(mut judge) = redirects_to_the_socket_of_its_queue(Program::SteerPort) else {
        return;
    };
    let header = header("v4");
    let not_ours = wrapped(&header, b"no header of ours, nor so many bytes");
    let expected = judge.holds("another protocol", &not_ours).0;
    assert_eq!(expected.count, Some(Count::NoSocket));
    let empty = wrapped(&header, b"");
    assert_eq!(judge.holds("nothing", &empty).0.count, Some(Count::NoSocket));
    for cut in 42..not_ours.len() {
        assert_eq!(judge.holds("cut", &not_ours[..cut]).0.count, Some(Count::Length));
    }
    let mut fragment = not_ours.clone();
    fragment[20] |= 0x20;
    assert_eq!(judge.holds("a fragment", &fragment).0.count, Some(Count::Fragment));
    let mut elsewhere = not_ours;
    elsewhere[33] ^= 1;
    assert_eq!(judge.holds("another host", &elsewhere).0.count, Some(Count::Stranger));
}

fn redirects_to_the_socket_of_its_queue(program: Program) -> Option<Judge> {
    let mut judge = Judge::new(program.name(), program, SETTINGS)?;
    /// Source: include/linux/socket.h.
    const AF_XDP: i32 = 44;
    let socket = match socket2::Socket::new(AF_XDP.into(), socket2::Type::RAW, None) {
        Ok(socket) => socket,
        Err(error) => {
            println!("{}: not run: no AF_XDP socket ({error})", program.name());
            return None;
        }
    };
    let ours = wrapped(&header("v4"), &request(64));
    // A run without an interface comes in by queue 0.
    judge.loaded.set_socket(1, socket.as_fd()).unwrap();
    assert_eq!(judge.holds("another queue's socket", &ours).1.verdict, Verdict::Pass);
    judge.loaded.set_socket(0, socket.as_fd()).unwrap();
    judge.has_socket = true;
    assert_eq!(judge.holds("its socket", &ours).1.verdict, Verdict::Redirect);
    judge.holds("not ours", &ours[..40]);
    judge.loaded.clear_socket(0).unwrap();
    judge.loaded.clear_socket(0).unwrap();
    judge.has_socket = false;
    assert_eq!(judge.holds("no socket", &ours).1.verdict, Verdict::Pass);
    let error = judge.loaded.set_socket(64, socket.as_fd()).unwrap_err();
    assert!(matches!(error, HostError::Queue { queue: 64 }), "{error}");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = judge.loaded.set_socket(0, udp.as_fd()).unwrap_err();
    assert!(matches!(error, HostError::Kernel { .. }), "{error}");
    Some(judge)
}

#[test]
fn only_steer_takes_sockets() {
    let Some(mut loaded) = load("sockets", Program::Echo, &SETTINGS) else {
        return;
    };
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = loaded.set_socket(0, udp.as_fd()).unwrap_err();
    assert!(error.to_string().contains("load steer"), "{error}");
}

#[test]
fn the_cost_of_a_run_is_measured_over_many() {
    let Some(loaded) = load("cost", Program::CountDrop, &SETTINGS) else {
        return;
    };
    let repeat = NonZeroU32::new(10_000).expect("not zero");
    let cost_ns = loaded
        .run_cost_ns(&wrapped(&header("v4"), &request(64)), repeat)
        .unwrap();
    println!("count_drop: {cost_ns} ns a run");
    assert_eq!(loaded.counts().unwrap().get(Count::Taken), 10_000);
}

#[test]
fn a_frame_shorter_than_ethernet_is_no_frame() {
    let Some(loaded) = load("short", Program::Echo, &SETTINGS) else {
        return;
    };
    for frame_bytes in 0..FRAME_BYTES_MIN {
        let error = loaded.test_run(&vec![0; frame_bytes]).unwrap_err();
        assert!(matches!(error, HostError::FrameLength { .. }), "{error}");
    }
}
