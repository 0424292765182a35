use dataplane_wire::{
    ethernet::{EtherType, Header, Vlan},
    ipv4,
};
use proptest::prelude::*;

use super::*;

const PAYLOAD_BYTES: usize = 100;

/// An IPv4 packet with a UDP datagram in it, behind an optional tag.
fn udp_over_ipv4(ecn_bits: u8, tag: Option<u16>) -> Vec<u8> {
    let ethernet = Header {
        dst: Mac([2, 0, 0, 0, 0, 1]),
        src: Mac([2, 0, 0, 0, 0, 2]),
        vlan: tag.map(Vlan),
        ether_type: EtherType::IPV4,
    };
    let head_bytes = ethernet.len_bytes();
    let mut frame = vec![0; head_bytes + 28 + PAYLOAD_BYTES];
    ethernet::emit(&ethernet, &mut frame);
    let udp = &mut frame[head_bytes + 20..];
    udp[..8].copy_from_slice(&[0x1f, 0x90, 0x23, 0x28, 0, 8 + PAYLOAD_BYTES as u8, 0xab, 0xcd]);
    let header = ipv4::Header {
        src: [10, 203, 0, 2].into(),
        dst: [10, 203, 0, 1].into(),
        protocol: PROTOCOL_UDP,
        hops_left: 64,
        traffic_class: 0xb8 | ecn_bits,
        identification: 7,
        dont_fragment: true,
    };
    ipv4::emit(&header, &[], &mut frame[head_bytes..]);
    frame
}

fn udp_over_ipv6(ecn_bits: u8) -> Vec<u8> {
    let mut frame = vec![0; 14 + 40 + 8 + PAYLOAD_BYTES];
    frame[12..14].copy_from_slice(&IPV6.to_be_bytes());
    frame[14] = 0x60;
    frame[15] = ecn_bits << 4;
    frame[18..20].copy_from_slice(&(8 + PAYLOAD_BYTES as u16).to_be_bytes());
    frame[20] = PROTOCOL_UDP;
    frame
}

#[test]
fn a_mark_is_written_where_the_sender_reacts_and_the_checksum_stays_right() {
    for tag in [None, Some(5 << 13 | 9)] {
        for ecn_bits in 0..4 {
            let mut frame = udp_over_ipv4(ecn_bits, tag);
            let before = frame.clone();
            let headers = Headers::read(&frame).expect("a frame");
            assert_eq!(headers.priority, if tag.is_some() { 5 } else { 0 });
            let reacts = ecn_bits == 1 || ecn_bits == 2;
            assert_eq!(headers.ecn == Ecn::Capable, reacts);
            assert_eq!(mark(&mut frame), reacts, "bits {ecn_bits}");
            assert_eq!(frame != before, reacts);
            let at = if tag.is_some() { 18 } else { 14 };
            let packet = ipv4::parse(&frame[at..]).expect("the header's checksum is right");
            let expected = if reacts { CE } else { ecn_bits };
            assert_eq!(packet.header.traffic_class, 0xb8 | expected);
            assert!(!mark(&mut frame), "marked twice");
        }
    }
}

#[test]
fn a_mark_over_ipv6_changes_two_bits() {
    let mut frame = udp_over_ipv6(2);
    let mut expected = frame.clone();
    expected[15] = 0x30;
    assert!(mark(&mut frame));
    assert_eq!(frame, expected);
    assert!(!mark(&mut udp_over_ipv6(0)));
}

#[test]
fn a_datagram_is_cut_to_its_headers_and_is_still_one() {
    let mut frame = udp_over_ipv4(2, None);
    let headers = Headers::read(&frame).expect("a frame");
    assert_eq!(headers.trimmed_bytes, 14 + 20 + 8);
    let len_bytes = trim(&mut frame).expect("it can be cut");
    frame.truncate(len_bytes);
    let packet = ipv4::parse(&frame[14..]).expect("the header's checksum is right");
    assert_eq!(packet.payload, [0x1f, 0x90, 0x23, 0x28, 0, 8, 0, 0]);
    assert_eq!(trim(&mut frame), None, "there is nothing left to be cut");
}

#[test]
fn what_cannot_be_cut_stays_as_it_is() {
    let mut tcp = udp_over_ipv4(2, None);
    tcp[23] = PROTOCOL_TCP;
    let mut six = udp_over_ipv6(2);
    let mut fragment = udp_over_ipv4(2, None);
    fragment[20] = 0x20;
    for frame in [&mut tcp, &mut six, &mut fragment] {
        let before = frame.clone();
        assert_eq!(trim(frame), None);
        assert_eq!(*frame, before);
    }
}

#[test]
fn flows_are_told_apart_by_ports_and_fragments_stay_together() {
    let hash_of = |frame: &[u8]| Headers::read(frame).expect("a frame").flow_hash;
    let frame = udp_over_ipv4(0, None);
    let mut other_port = frame.clone();
    other_port[35] ^= 1;
    let mut other_payload = frame.clone();
    other_payload[60] ^= 1;
    assert_ne!(hash_of(&frame), hash_of(&other_port));
    assert_eq!(hash_of(&frame), hash_of(&other_payload));

    let mut first = frame.clone();
    first[20] = 0x20;
    let mut second = other_port;
    second[21] = 100;
    assert_eq!(hash_of(&first), hash_of(&second));
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer_and_only_ip_headers_change(
        mut frame in prop::collection::vec(any::<u8>(), 0..90), is_ip: bool, is_six: bool,
    ) {
        if is_ip && frame.len() > 14 {
            let (ether_type, version) = if is_six { (IPV6, 0x60) } else { (IPV4, 0x45) };
            frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
            frame[14] = version;
        }
        let before = frame.clone();
        prop_assert_eq!(Headers::read(&frame).is_some(), frame.len() >= 14);
        let marked = mark(&mut frame);
        prop_assert_eq!(frame != before, marked);
        let mut cut = frame.clone();
        match trim(&mut cut) {
            Some(len_bytes) => prop_assert!(len_bytes >= 42 && len_bytes < frame.len()),
            None => prop_assert_eq!(cut, frame),
        }
    }
}
