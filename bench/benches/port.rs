//! What one round trip of a 64-byte frame costs over each port: `same_thread` is the software path alone (both ends
//! take turns on one thread, so nobody ever waits), `two_threads` adds the wake-up of a sleeping peer.

use std::{
    hint::black_box,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane_ports::{
    loopback, shm,
    udp::{Batching, UdpOptions, UdpPort, WaitHow, probe},
};
use dataplane_waist::{Peer, Port, TxError};

const FRAME_BYTES: usize = 64;
const WAIT_MAX: Duration = Duration::from_millis(20);
/// A frame that has not come by then is lost, and the bench with it.
const PATIENCE: Duration = Duration::from_secs(2);

struct Link {
    a: Box<dyn Port>,
    b: Box<dyn Port>,
}

fn loopback_link() -> Link {
    let (a, b) = loopback::pair(&loopback::RingOptions::default());
    Link {
        a: Box::new(a),
        b: Box::new(b),
    }
}

fn shm_link() -> Link {
    shm_link_over(&shm::ShmRegion::create(&shm::RingOptions::default()).expect("region"))
}

fn shm_link_over(region: &shm::ShmRegion) -> Link {
    Link {
        a: Box::new(shm::ShmPort::connect(region, shm::Side::A).expect("side A")),
        b: Box::new(shm::ShmPort::connect(region, shm::Side::B).expect("side B")),
    }
}

/// A connected client, and a server that learns it.
fn udp_link(wait: WaitHow, batch: Batching) -> Link {
    let options = UdpOptions {
        wait,
        batch,
        ..UdpOptions::default()
    };
    let b = UdpPort::open(&UdpOptions {
        learn_peers_max: 1,
        ..options.clone()
    })
    .expect("server");
    let a = UdpPort::open(&UdpOptions {
        peers: vec![b.local_addr()],
        connect: true,
        ..options
    })
    .expect("client");
    Link {
        a: Box::new(a),
        b: Box::new(b),
    }
}

/// Sends `frames_count` frames and flushes.
fn send(port: &mut dyn Port, frames_count: usize) {
    for _ in 0..frames_count {
        let sent = port.tx(Peer(0), FRAME_BYTES, &mut |bytes| bytes.fill(7));
        assert_ne!(sent, Err(TxError::NoPeer));
    }
    port.flush().expect("flush");
}

/// Waits for `frames_count` frames.
fn receive(port: &mut dyn Port, frames_count: usize) {
    let mut heard_count = 0;
    let mut looks_count = 0u32;
    let mut begin = None;
    while heard_count < frames_count {
        port.wait(WAIT_MAX).expect("wait");
        heard_count += port
            .rx_burst(&mut |frame| assert_eq!(black_box(frame.bytes)[0], 7))
            .expect("rx");
        looks_count += 1;
        // A clock read in every look would be most of what is measured.
        if looks_count.is_multiple_of(1024) {
            let begin = begin.get_or_insert_with(Instant::now);
            assert!(begin.elapsed() < PATIENCE, "a frame was lost: {:?}", port.stats());
        }
    }
}

fn same_thread(c: &mut Criterion) {
    let mut group = c.benchmark_group("port/same_thread");
    let mut measure = |name: &str, mut link: Link, frames_count: usize| {
        // The server learns its peer.
        send(&mut *link.a, 1);
        receive(&mut *link.b, 1);
        group.throughput(Throughput::Elements(frames_count as u64));
        group.bench_function(format!("{name}/{frames_count}"), |bencher| {
            bencher.iter(|| {
                send(&mut *link.a, frames_count);
                receive(&mut *link.b, frames_count);
                send(&mut *link.b, frames_count);
                receive(&mut *link.a, frames_count);
            });
        });
    };
    for frames_count in [1, 32] {
        measure("loopback", loopback_link(), frames_count);
        measure("shm", shm_link(), frames_count);
    }
    for (wait, batch, frames_count) in [
        (WaitHow::Blocking, Batching::Single, 1),
        (WaitHow::Poll, Batching::Single, 1),
        (WaitHow::Epoll, Batching::Single, 1),
        (WaitHow::Spin, Batching::Single, 1),
        (WaitHow::Spin, Batching::Multi, 32),
        (WaitHow::Spin, Batching::Gso, 32),
    ] {
        let link = match probe(wait, batch) {
            Ok(support) if support.mode().is_some() => udp_link(wait, batch),
            answer => {
                eprintln!("skipped: UDP {wait:?} {batch:?}: {answer:?}");
                continue;
            }
        };
        let name = link.a.caps().name;
        measure(name, link, frames_count);
    }
    // The floor: the same round trip without a port around the socket.
    let [left, right] = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").expect("bind"));
    left.connect(right.local_addr().expect("address")).expect("connect");
    let mut buffer = [7; FRAME_BYTES + 1];
    group.throughput(Throughput::Elements(1));
    group.bench_function("bare-udp-blocking/1", |bencher| {
        bencher.iter(|| {
            left.send(&buffer[..FRAME_BYTES]).expect("send");
            let (len_bytes, from) = right.recv_from(&mut buffer).expect("recv");
            right.send_to(&buffer[..len_bytes], from).expect("send");
            left.recv(&mut buffer).expect("recv")
        });
    });
    group.finish();
}

fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("port/two_threads");
    for (name, link) in [
        ("loopback", loopback_link()),
        ("shm", shm_link()),
        ("udp-spin", udp_link(WaitHow::Spin, Batching::Single)),
        (
            "shm-futex",
            shm_link_over(&shm::ShmRegion::create_sleeping(&shm::RingOptions::default()).expect("region")),
        ),
        ("udp-blocking", udp_link(WaitHow::Blocking, Batching::Single)),
    ] {
        let Link { mut a, mut b } = link;
        let stop = Arc::new(AtomicBool::new(false));
        let stop_seen = Arc::clone(&stop);
        let server = thread::spawn(move || {
            while !stop_seen.load(Ordering::Relaxed) {
                b.wait(WAIT_MAX).expect("wait");
                if b.rx_burst(&mut |_| {}).expect("rx") > 0 {
                    send(&mut *b, 1);
                }
            }
        });
        group.bench_function(format!("{name}/1"), |bencher| {
            bencher.iter(|| {
                send(&mut *a, 1);
                receive(&mut *a, 1);
            });
        });
        stop.store(true, Ordering::Relaxed);
        server.join().expect("the server's own checks");
    }
    group.finish();
}

/// Bounded for a developer's patience; the figures that are published come from `dplab`, not from here.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! {
    name = benches;
    config = short();
    targets = same_thread, two_threads
}
criterion_main!(benches);
