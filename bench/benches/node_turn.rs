//! What one turn of a node costs per frame: receive, parse (two checksums), decide, copy, emit (one checksum), send.
//!
//! The server is [`EchoServer`], the smallest protocol, so this is the price of the loop itself: the time of one
//! iteration is the time per frame of 64 bytes. Two ports carry the frames, one at a time and in bursts of 32:
//! `canned` has the same request ready in memory for ever, and shows the loop without a ring; `loopback` is the ring
//! that experiments use, filled and emptied by a client outside the timed part.
#![forbid(unsafe_code)]

use std::{hint::black_box, io, time};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane_echo::{EchoServer, RequestTemplate, reply};
use dataplane_ports::loopback::{self, RingOptions};
use dataplane_waist::{Instant, MemoryLog, Node, Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake};

const FRAME_BYTES: usize = 64;
const BURSTS_FRAMES: [usize; 2] = [1, 32];
const CLIENT: u32 = 1;
/// Requests that wait in the ring when the stopwatch starts. Reading the clock costs some 50 ns a round, so less than
/// 0.1 ns a frame; and two rings of 1024 slots of 64 bytes stay in the second-level cache.
const WAITING_FRAMES: usize = 1024;

fn node_turn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("node_turn");
    group.throughput(Throughput::Elements(1));
    for burst_frames in BURSTS_FRAMES {
        group.bench_function(BenchmarkId::new("canned", burst_frames), |bencher| {
            let mut node = Node::new(Canned::new(burst_frames), MemoryLog::new(), EchoServer, 1);
            bencher.iter_custom(|frames_count| {
                let turns_count = frames_count.div_ceil(burst_frames as u64);
                let start = time::Instant::now();
                for turn in 0..turns_count {
                    node.turn(Instant::from_ns(turn)).expect("memory does not fail");
                }
                per_frame(start.elapsed(), turns_count * burst_frames as u64, frames_count)
            });
            let stats = node.stats().port;
            assert_eq!(
                stats.tx_frames_count, stats.rx_frames_count,
                "every request is answered"
            );
        });
        group.bench_function(BenchmarkId::new("loopback", burst_frames), |bencher| {
            let (mut client, server) = loopback::pair(&RingOptions {
                slots_count: WAITING_FRAMES,
                frame_bytes_max: FRAME_BYTES,
                batch_frames_max: burst_frames,
            });
            let mut node = Node::new(server, MemoryLog::new(), EchoServer, 1);
            let template = RequestTemplate::new(CLIENT, FRAME_BYTES).expect("a size in bounds");
            bencher.iter_custom(|frames_count| {
                let rounds_count = frames_count.div_ceil(WAITING_FRAMES as u64);
                let mut elapsed = time::Duration::ZERO;
                for _ in 0..rounds_count {
                    ask(&mut client, &template);
                    let start = time::Instant::now();
                    for turn in 0..WAITING_FRAMES / burst_frames {
                        node.turn(Instant::from_ns(turn as u64)).expect("a ring does not fail");
                    }
                    elapsed += start.elapsed();
                    collect(&mut client);
                }
                per_frame(elapsed, rounds_count * WAITING_FRAMES as u64, frames_count)
            });
        });
    }
    group.finish();
}

/// The time of `frames_count` frames, when `elapsed` was that of `measured_count`: bursts and rounds are whole.
fn per_frame(elapsed: time::Duration, measured_count: u64, frames_count: u64) -> time::Duration {
    elapsed.mul_f64(frames_count as f64 / measured_count as f64)
}

/// Fills the ring with requests.
fn ask(client: &mut dyn Port, template: &RequestTemplate) {
    for seq in 0..WAITING_FRAMES as u64 {
        client
            .tx(Peer(0), FRAME_BYTES, &mut |frame| template.stamp(frame, seq, 0))
            .expect("an empty ring has room");
    }
    client.flush().expect("a ring does not fail");
}

/// Empties the ring, and sees to it that every request was answered: a benchmark of a server that does nothing is fast.
fn collect(client: &mut dyn Port) {
    let mut expected_seq = 0;
    while client
        .rx_burst(&mut |frame| {
            let reply = reply(frame.bytes, CLIENT).expect("a reply to this client");
            assert!(reply.payload_intact && reply.seq == expected_seq, "{reply:?}");
            expected_seq += 1;
        })
        .expect("a ring does not fail")
        > 0
    {}
    assert_eq!(expected_seq, WAITING_FRAMES as u64, "every request is answered");
}

/// A port on which the same burst of requests is always there, and whatever is sent is gone.
struct Canned {
    caps: PortCaps,
    request: [u8; FRAME_BYTES],
    sent: [u8; FRAME_BYTES],
    stats: PortStats,
}

impl Canned {
    fn new(burst_frames: usize) -> Canned {
        let mut request = [0; FRAME_BYTES];
        dataplane_echo::request(CLIENT, 1, 2, &mut request);
        Canned {
            caps: PortCaps {
                name: "canned",
                frame_bytes_max: FRAME_BYTES,
                batch_frames_max: burst_frames,
                wake: Wake::Spins,
            },
            request,
            sent: [0; FRAME_BYTES],
            stats: PortStats::default(),
        }
    }
}

impl Port for Canned {
    fn caps(&self) -> PortCaps {
        self.caps
    }
    fn wait(&mut self, _max: time::Duration) -> io::Result<()> {
        Ok(())
    }
    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        for _ in 0..self.caps.batch_frames_max {
            sink(RxFrame {
                from: Peer(0),
                bytes: black_box(&self.request),
                stamp: None,
            });
        }
        self.stats.rx_frames_count += self.caps.batch_frames_max as u64;
        Ok(self.caps.batch_frames_max)
    }
    fn tx(&mut self, _to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        fill(&mut self.sent[..len_bytes]);
        black_box(&self.sent);
        self.stats.tx_frames_count += 1;
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn stats(&self) -> PortStats {
        self.stats
    }
}

criterion_group!(benches, node_turn);
criterion_main!(benches);
