//! What our own frame costs: header and checksums, at the smallest and the largest size of the ladder; and what Ethernet,
//! IP and UDP around it cost a port that writes them itself.
//!
//!     cargo bench -p bench --bench wire

use std::{hint::black_box, net::Ipv4Addr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane_wire::{
    checksum, datagram,
    ethernet::Mac,
    frame::{self, Header, Kind},
    internet::Addresses,
    udp::{Checksum, Verify},
};

/// Frames of 64 bytes, and of what a jumbo frame of 9000 leaves after IPv4 and UDP.
const FRAME_BYTES: [usize; 2] = [64, 8972];

const HEADER: Header = Header {
    kind: Kind::EchoRequest,
    term: 1,
    slot: 2,
    sent_ns: 3,
};

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/frame");
    for len_bytes in FRAME_BYTES {
        let mut bytes = vec![0x5a; len_bytes];
        group.throughput(Throughput::Bytes(len_bytes as u64));
        group.bench_function(BenchmarkId::new("emit", len_bytes), |b| {
            b.iter(|| frame::emit(black_box(&HEADER), black_box(&mut bytes)));
        });
        let payload_crc = checksum::crc32c(&bytes[frame::HEADER_BYTES..]);
        group.bench_function(BenchmarkId::new("emit_with_crc", len_bytes), |b| {
            b.iter(|| frame::emit_with_crc(black_box(&HEADER), payload_crc, black_box(&mut bytes)));
        });
        frame::emit(&HEADER, &mut bytes);
        group.bench_function(BenchmarkId::new("parse", len_bytes), |b| {
            b.iter(|| frame::parse(black_box(&bytes)).expect("a valid frame").header);
        });
    }
    group.finish();
}

fn datagrams(c: &mut Criterion) {
    let header = datagram::Header {
        dst_mac: Mac([2, 0, 0, 0, 0, 2]),
        src_mac: Mac([2, 0, 0, 0, 0, 1]),
        vlan: None,
        addresses: Addresses::V4 {
            src: Ipv4Addr::new(192, 0, 2, 1),
            dst: Ipv4Addr::new(192, 0, 2, 2),
        },
        src_port: 4000,
        dst_port: 4001,
    };
    let mut group = c.benchmark_group("wire/datagram");
    for len_bytes in FRAME_BYTES {
        let mut bytes = vec![0x5a; header.len_bytes() + len_bytes];
        group.throughput(Throughput::Bytes(len_bytes as u64));
        for (name, checksum) in [("emit", Checksum::Full), ("emit_no_checksum", Checksum::None)] {
            group.bench_function(BenchmarkId::new(name, len_bytes), |b| {
                b.iter(|| datagram::emit(black_box(&header), checksum, black_box(&mut bytes)));
            });
        }
        datagram::emit(&header, Checksum::Full, &mut bytes);
        for (name, verify) in [("parse", Verify::Checksum), ("parse_unverified", Verify::Nothing)] {
            group.bench_function(BenchmarkId::new(name, len_bytes), |b| {
                b.iter(|| datagram::parse(black_box(&bytes), verify).expect("a valid frame"));
            });
        }
    }
    group.finish();
}

/// The tables beside the instruction: what a target without it pays.
fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/crc32c");
    for len_bytes in FRAME_BYTES {
        let bytes = vec![0x5a; len_bytes];
        group.throughput(Throughput::Bytes(len_bytes as u64));
        group.bench_function(BenchmarkId::new("instruction", len_bytes), |b| {
            b.iter(|| checksum::crc32c(black_box(&bytes)));
        });
        group.bench_function(BenchmarkId::new("tables", len_bytes), |b| {
            b.iter(|| checksum::crc32c_table(black_box(&bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, frames, datagrams, checksums);
criterion_main!(benches);
