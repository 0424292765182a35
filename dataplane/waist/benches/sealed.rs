//! What authenticating a frame costs: the code alone (`mac`), keyed BLAKE3 beside HMAC-SHA-256, and a port that seals and
//! checks beside the same port without (`tx`, `rx`).
//!
//! `Sealed` takes HMAC-SHA-256. On processors with SHA instructions it is the faster from 128 bytes on; without them, run
//! this again before you rely on that.
#![forbid(unsafe_code)]

use std::{hint::black_box, io, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane_waist::{
    Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake,
    middleware::{ClusterKey, Sealed, SealedOptions, TAG_BYTES},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The smallest Ethernet frame, what most requests take, and the most that fits an ordinary MTU.
const SIZES_BYTES: [usize; 5] = [64, 128, 256, 1024, 1500];

/// Receives the frame that was sent last, again and again.
struct LastFrame {
    bytes: Box<[u8]>,
    len_bytes: usize,
}

impl LastFrame {
    fn new() -> LastFrame {
        LastFrame {
            bytes: vec![0; 2048].into(),
            len_bytes: 0,
        }
    }
}

impl Port for LastFrame {
    fn caps(&self) -> PortCaps {
        PortCaps {
            name: "last-frame",
            frame_bytes_max: self.bytes.len(),
            batch_frames_max: 1,
            wake: Wake::Spins,
        }
    }
    fn wait(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
    }
    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        sink(RxFrame {
            from: Peer(0),
            bytes: &self.bytes[..self.len_bytes],
            stamp: None,
        });
        Ok(1)
    }
    fn tx(&mut self, _: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        self.len_bytes = len_bytes;
        fill(&mut self.bytes[..len_bytes]);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn stats(&self) -> PortStats {
        PortStats::default()
    }
}

fn sealed(node: u32, peer_node: u32) -> Sealed<LastFrame> {
    let options = SealedOptions {
        key: ClusterKey::new(&[7; 32]).expect("long enough"),
        cluster: 1,
        node,
        peer_nodes: vec![peer_node],
    };
    Sealed::new(LastFrame::new(), &options).expect("sound options")
}

fn send(port: &mut impl Port, frame: &[u8]) {
    port.tx(Peer(0), frame.len(), &mut |bytes| {
        bytes.copy_from_slice(black_box(frame))
    })
    .expect("it takes everything");
}

fn receive(port: &mut impl Port) {
    let received_count = port
        .rx_burst(&mut |frame| {
            black_box(frame.bytes);
        })
        .expect("it never fails");
    assert_eq!(received_count, 1, "the frame is genuine");
}

fn mac(c: &mut Criterion) {
    let key = [7; 32];
    let blake3_of = |frame: &[u8]| -> [u8; TAG_BYTES] {
        let hash = blake3::keyed_hash(&key, frame);
        *hash.as_bytes().first_chunk().expect("a hash is longer")
    };
    // The key's two blocks are hashed once; a frame begins with a copy of the two states.
    let keyed = Hmac::<Sha256>::new_from_slice(&key).expect("any length will do");
    let hmac_of = |frame: &[u8]| -> [u8; TAG_BYTES] {
        let code = keyed.clone().chain_update(frame).finalize().into_bytes();
        *code.first_chunk().expect("a code is longer")
    };

    let mut group = c.benchmark_group("mac");
    for size_bytes in SIZES_BYTES {
        let frame: Vec<u8> = (0..size_bytes).map(|index| index as u8).collect();
        group.throughput(Throughput::Bytes(size_bytes as u64));
        group.bench_with_input(BenchmarkId::new("blake3", size_bytes), &frame, |b, frame| {
            b.iter(|| black_box(blake3_of(black_box(frame))));
        });
        group.bench_with_input(BenchmarkId::new("hmac-sha256", size_bytes), &frame, |b, frame| {
            b.iter(|| black_box(hmac_of(black_box(frame))));
        });
    }
    group.finish();
}

fn port(c: &mut Criterion) {
    let (mut bare, mut zero, mut one) = (LastFrame::new(), sealed(0, 1), sealed(1, 0));
    let mut group = c.benchmark_group("port");
    for size_bytes in SIZES_BYTES {
        let frame: Vec<u8> = (0..size_bytes).map(|index| index as u8).collect();
        group.bench_function(BenchmarkId::new("tx/bare", size_bytes), |b| {
            b.iter(|| send(&mut bare, &frame))
        });
        group.bench_function(BenchmarkId::new("tx/sealed", size_bytes), |b| {
            b.iter(|| send(&mut zero, &frame))
        });
        // From one node's port to the other's, as the network would have.
        send(&mut bare, &frame);
        send(&mut zero, &frame);
        let (sent, received) = (zero.port_mut(), one.port_mut());
        received.len_bytes = sent.len_bytes;
        received.bytes.copy_from_slice(&sent.bytes);
        group.bench_function(BenchmarkId::new("rx/bare", size_bytes), |b| {
            b.iter(|| receive(&mut bare))
        });
        group.bench_function(BenchmarkId::new("rx/sealed", size_bytes), |b| {
            b.iter(|| receive(&mut one))
        });
    }
    group.finish();
}

criterion_group!(benches, mac, port);
criterion_main!(benches);
