//! What is written is read by another's reader, block by block, and every header is what a real stack would have sent.

use std::{collections::BTreeMap, fs, sync::atomic::AtomicBool};

use dataplane_wire::{internet::Addresses, ipv4};
use pcap_file::pcapng::{
    Block, PcapNgReader,
    blocks::{
        enhanced_packet::EnhancedPacketOption, interface_description::InterfaceDescriptionOption,
        interface_statistics::InterfaceStatisticsOption,
    },
};

use super::*;
use crate::{
    packet_sim::{Observer, points},
    scenario::file::ScenarioFile,
};

static NEVER: AtomicBool = AtomicBool::new(false);

/// Two servers answer twice over wires that lose and a short queue that marks and drops: marks, losses, SACK blocks, questions.
const FILE: &str = r#"
    name = "test"
    title = "test"
    horizon = "2 s"
    topology = { kind = "star", hosts = 3, rate = "100 Mbit/s", delay = "20 us", loss_ratio = 0.01 }
    switch = { queue = { limit = "4 packets", mark_at = "2 packets" } }
    tcp = { controller = "newreno", ecn = true, rto_min = "10 ms", timestamps = true }
    load = [{ kind = "incast", servers = 2, bytes = "100 KB", rounds = 2, request = "100 B" }]
"#;

#[derive(Debug)]
struct Seen {
    interface: u32,
    at_ns: u64,
    original_bytes: u32,
    frame: Vec<u8>,
    flags: u32,
    comment: String,
}

/// Simulates, and reads the trace back.
fn traced(options: &TraceOptions) -> (Setup, TraceCounts, Vec<(String, u8)>, Vec<Seen>, u64) {
    let file = ScenarioFile::parse("test", FILE).unwrap_or_else(|problem| panic!("{problem}"));
    let setup = points(&file)[0].setup(7).expect("a setup");
    let folder = tempfile_folder();
    let path = folder.join("trace.pcapng");
    let trace = Trace::create(&path, &setup, options, "of a test").expect("a file");
    let mut observer = Observer::default();
    observer.trace = Some(trace);
    let outcome = setup.run_observed(&mut observer, &NEVER);
    assert_eq!(outcome.hash, setup.run(&NEVER).hash, "a trace changes nothing");
    let counts = observer.trace.take().expect("the trace").finish().expect("written");
    let bytes = fs::read(&path).expect("the trace");
    fs::remove_dir_all(&folder).expect("the test's folder");
    let mut reader = PcapNgReader::new(&bytes[..]).expect("a section header");
    assert!(
        reader
            .section()
            .options
            .iter()
            .any(|option| format!("{option:?}").contains("of a test"))
    );
    let (mut interfaces, mut seen, mut cut_count) = (Vec::new(), Vec::new(), 0);
    while let Some(block) = reader.next_block() {
        match block.expect("a whole block") {
            Block::InterfaceDescription(interface) => {
                let (mut name, mut resolution) = (String::new(), 6);
                for option in interface.options {
                    match option {
                        InterfaceDescriptionOption::IfName(text) => name = text.into_owned(),
                        InterfaceDescriptionOption::IfTsResol(exponent) => resolution = exponent,
                        _ => (),
                    }
                }
                interfaces.push((name, resolution));
            }
            Block::EnhancedPacket(packet) => {
                let (mut flags, mut comment) = (0, String::new());
                for option in packet.options {
                    match option {
                        EnhancedPacketOption::Flags(bits) => flags = bits,
                        EnhancedPacketOption::Comment(text) => comment = text.into_owned(),
                        _ => (),
                    }
                }
                seen.push(Seen {
                    interface: packet.interface_id,
                    at_ns: packet.timestamp.as_nanos() as u64,
                    original_bytes: packet.original_len,
                    frame: packet.data.into_owned(),
                    flags,
                    comment,
                });
            }
            Block::InterfaceStatistics(statistics) => {
                for option in statistics.options {
                    if let InterfaceStatisticsOption::IsbIfDrop(count) = option {
                        cut_count = count;
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    (setup, counts, interfaces, seen, cut_count)
}

fn tempfile_folder() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!(
        "dplab-trace-{}-{:x}",
        std::process::id(),
        rand::random::<u64>()
    ));
    fs::create_dir(&folder).expect("a folder for the test");
    folder
}

fn everywhere(snap_bytes: u32, packets_max: u64) -> TraceOptions {
    TraceOptions {
        places: vec![TracePlace::Host(0), TracePlace::Queue],
        packets_max,
        snap_bytes,
    }
}

#[test]
fn every_frame_is_whole_and_its_checksums_are_right() {
    let (setup, counts, interfaces, seen, cut_count) = traced(&everywhere(2_000, 100_000));
    assert_eq!((counts.cut_count, cut_count), (0, 0));
    assert_eq!(counts.written_count, seen.len() as u64);
    let names: Vec<&str> = interfaces.iter().map(|(name, _)| name.as_str()).collect();
    let link = setup.watched_link;
    let (queue, lost) = (
        format!("link {link}, switch 0 to host 0"),
        format!("link {link}, switch 0 to host 0, lost"),
    );
    assert_eq!(names, ["host 0", queue.as_str(), lost.as_str()]);
    assert!(interfaces.iter().all(|(_, exponent)| *exponent == 9));
    assert!(seen.is_sorted_by_key(|seen| seen.at_ns));
    let mut directions: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    let (mut marked_count, mut sack_count, mut payload_bytes) = (0, 0, BTreeMap::new());
    for seen in &seen {
        *directions.entry((seen.interface, seen.flags)).or_default() += 1;
        assert_eq!(seen.frame.len(), seen.original_bytes as usize);
        assert!((60..=1_514).contains(&seen.original_bytes));
        let ip = ipv4::parse(&seen.frame[14..]).expect("an IPv4 packet with the right checksum");
        assert_eq!(ip.header.protocol, 6);
        let addresses = Addresses::V4 {
            src: ip.header.src,
            dst: ip.header.dst,
        };
        let sum = addresses.pseudo_header(6, ip.payload.len() as u32).with(ip.payload);
        assert!(sum.is_intact(), "a TCP checksum that is not right");
        marked_count += u32::from(ip.header.traffic_class == 0b11);
        let header_bytes = usize::from(ip.payload[12] >> 4) * 4;
        // Behind the timestamps.
        sack_count += u32::from(header_bytes > 32 && ip.payload[34] == 5);
        if seen.interface == 0 && seen.flags == 0b01 {
            let seq = u32::from_be_bytes(ip.payload[4..8].try_into().expect("four bytes"));
            let end = seq - 1 + (ip.payload.len() - header_bytes) as u32;
            let most = payload_bytes.entry(ip.header.src).or_insert(0);
            *most = end.max(*most);
        }
        assert_eq!(seen.comment.is_empty(), seen.interface != 2, "{seen:?}");
    }
    assert!(
        marked_count > 0 && sack_count > 0,
        "{marked_count} marks, {sack_count} with SACK"
    );
    // Both directions at the host, none at the link, and something was lost.
    let kinds: Vec<(u32, u32)> = directions.keys().copied().collect();
    assert_eq!(kinds, [(0, 0b01), (0, 0b10), (1, 0), (2, 0)]);
    assert_eq!(payload_bytes.into_values().collect::<Vec<u32>>(), [200_000, 200_000]);
}

#[test]
fn a_trace_is_cut_where_it_was_said_and_says_so() {
    let (_, counts, _, seen, cut_count) = traced(&everywhere(96, 50));
    assert_eq!((counts.written_count, seen.len()), (50, 50));
    assert!(counts.cut_count > 50 && cut_count == counts.cut_count);
    assert!(
        seen.iter()
            .all(|seen| seen.frame.len() == 96.min(seen.original_bytes as usize))
    );
}

#[test]
fn a_place_that_is_not_there_is_refused() {
    let file = ScenarioFile::parse("test", FILE).unwrap_or_else(|problem| panic!("{problem}"));
    let setup = points(&file)[0].setup(7).expect("a setup");
    for (place, part) in [
        (TracePlace::Host(3), "from 0 to 2"),
        (TracePlace::Link(6), "from 0 to 5"),
    ] {
        let options = TraceOptions {
            places: vec![place],
            ..everywhere(96, 1)
        };
        let error = State::new(Vec::new(), &setup, &options, "").expect_err("no such place");
        assert!(error.to_string().contains(part), "{error}");
    }
}
