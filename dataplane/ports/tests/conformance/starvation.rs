//! A receiver that is held back while a sender bursts: queues fill, rings run dry, receives end and must be begun again.
//! Whatever the socket took in must come out, and no wait may sleep over it.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use dataplane_waist::{Peer, Port};

/// How long a wait may last while frames are there. A wait that sleeps over them sleeps as long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bursts per seed.
const BURSTS_COUNT: usize = 8;
/// Longest burst: several times what the sockets and rings of these tests hold.
const BURST_FRAMES_MAX: u64 = 400;
/// Every seed is a test of its own; the second half runs while two threads spin.
const SEEDS_COUNT: u64 = 4;

/// Who is overrun, and from where.
pub struct Receiver {
    /// Knows nobody, learns one peer.
    pub port: Box<dyn Port + Send>,
    /// Its address.
    pub to: SocketAddr,
    /// Reaches it.
    pub socket: UdpSocket,
    /// What to send so that 64 bytes of 7 come out of the port.
    pub frame: Vec<u8>,
}

impl Receiver {
    /// A port on this host, in which nothing is around a frame.
    pub fn here((port, to): (Box<dyn Port + Send>, SocketAddr)) -> Receiver {
        Receiver {
            port,
            to,
            socket: UdpSocket::bind(SocketAddr::new(to.ip(), 0)).expect("loopback exists"),
            frame: vec![7; 64],
        }
    }
}

/// Opens a port for every seed and has it overrun.
pub fn overrun(open: &dyn Fn() -> Receiver) {
    for seed in 0..SEEDS_COUNT {
        let Receiver {
            port,
            to,
            socket,
            frame,
        } = open();
        let is_over = AtomicBool::new(false);
        let accounted_count = AtomicU64::new(0);
        thread::scope(|scope| {
            if seed >= SEEDS_COUNT / 2 {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !is_over.load(Ordering::Relaxed) {
                            std::hint::spin_loop();
                        }
                    });
                }
            }
            let mut numbers = Numbers(seed);
            let bursts: Vec<u64> = (0..BURSTS_COUNT).map(|_| 1 + numbers.below(BURST_FRAMES_MAX)).collect();
            let total_count = bursts.iter().sum();
            let (accounted, is_over) = (&accounted_count, &is_over);
            let server = scope.spawn(move || {
                // Also when it panics: the others must not wait for it for ever.
                let _over = SetOnDrop(is_over);
                serve(port, Numbers(!seed), total_count, accounted, seed);
            });
            send(|| socket.send_to(&frame, to).map(drop), &bursts, accounted, is_over);
            server.join().expect("the server has said why");
        });
    }
}

/// Sends burst after burst, each once everything before it is accounted for.
fn send(mut one: impl FnMut() -> io::Result<()>, bursts: &[u64], accounted_count: &AtomicU64, is_over: &AtomicBool) {
    let mut sent_count = 0;
    for burst in bursts {
        while accounted_count.load(Ordering::Acquire) < sent_count && !is_over.load(Ordering::Acquire) {
            thread::yield_now();
        }
        for _ in 0..*burst {
            one().expect("the link takes it");
        }
        sent_count += burst;
    }
}

/// Answers until every frame has come or is counted as dropped; sleeps for some milliseconds now and then.
fn serve(mut port: Box<dyn Port + Send>, mut numbers: Numbers, total_count: u64, accounted: &AtomicU64, seed: u64) {
    let (mut accounted_count, mut since) = (0, Instant::now());
    while accounted_count < total_count {
        if numbers.below(8) == 0 {
            thread::sleep(Duration::from_millis(1 + numbers.below(15)));
        }
        let asleep = Instant::now();
        port.wait(PATIENCE).expect("wait");
        assert!(
            asleep.elapsed() < PATIENCE,
            "seed {seed}: slept at {accounted_count} of {total_count}: {:?}",
            port.stats()
        );
        let frames_count = port
            .rx_burst(&mut |frame| assert_eq!(frame.bytes, [7; 64]))
            .expect("rx");
        for _ in 0..frames_count {
            // A full queue is loss here as everywhere.
            let _ = port.tx(Peer(0), 64, &mut |bytes| bytes.fill(7));
        }
        port.flush().expect("flush");
        let stats = port.stats();
        assert_eq!(
            (stats.strangers_count, stats.malformed_count),
            (0, 0),
            "seed {seed}: {stats:?}"
        );
        // A frame is dropped only behind others that wait, so the turn that takes those sees the drop too.
        let now_count = stats.rx_frames_count + stats.rx_dropped_count;
        if now_count > accounted_count {
            (accounted_count, since) = (now_count, Instant::now());
            accounted.store(accounted_count, Ordering::Release);
        }
        assert!(
            since.elapsed() < PATIENCE,
            "seed {seed}: stuck at {accounted_count} of {total_count}: {stats:?}"
        );
    }
    assert_eq!(accounted_count, total_count, "seed {seed}: nothing comes twice");
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
