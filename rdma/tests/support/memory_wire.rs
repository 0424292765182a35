//! A wire between two devices of one test: queues of whole packets, and a clock that moves when somebody looks.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dataplane_waist::{Clock, Instant};
use dataplane_wire::internet::Addresses;
use rdma::{
    PACKET_BYTES_MAX, Randomness, Transmit, Wire,
    wire::{Envelope, ICRC_BYTES, Packet, QpNumber, UDP_PORT, parse},
};

/// What a look costs: virtual time passes, so timers run out.
const LOOK_NS: u64 = 1_000;

/// One direction.
#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<(usize, Box<[u8]>)>,
    free: Vec<Box<[u8]>>,
}

/// Virtual time: it passes when somebody looks.
#[derive(Clone, Debug)]
pub struct LookClock(Arc<AtomicU64>);

impl Clock for LookClock {
    fn now(&self) -> Instant {
        Instant::from_ns(self.0.load(Ordering::Relaxed))
    }
}

/// One end.
#[derive(Debug)]
pub struct MemoryWire {
    local: Ipv4Addr,
    peer: Ipv4Addr,
    out: Arc<Mutex<Queue>>,
    incoming: Arc<Mutex<Queue>>,
    clock: LookClock,
}

/// Both ends.
pub fn pair() -> (MemoryWire, MemoryWire) {
    let (there, back) = (Arc::default(), Arc::default());
    let clock = LookClock(Arc::new(AtomicU64::new(1)));
    let [a, b] = [1, 2].map(|host| Ipv4Addr::new(10, 0, 0, host));
    let end = |local, peer, out: &Arc<Mutex<Queue>>, incoming: &Arc<Mutex<Queue>>| MemoryWire {
        local,
        peer,
        out: Arc::clone(out),
        incoming: Arc::clone(incoming),
        clock: clock.clone(),
    };
    (end(a, b, &there, &back), end(b, a, &back, &there))
}

/// Numbers that a seed repeats: for tests alone.
pub fn random(seed: u64) -> Randomness {
    let mut state = seed;
    Box::new(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

fn envelope(src: Ipv4Addr, dst: Ipv4Addr) -> Envelope {
    Envelope {
        addresses: Addresses::V4 { src, dst },
        identification: 0,
        dont_fragment: true,
        src_port: UDP_PORT,
        dst_port: UDP_PORT,
    }
}

impl Wire for MemoryWire {
    type Clock = LookClock;

    fn name(&self) -> &'static str {
        "memory"
    }

    fn local(&self) -> IpAddr {
        self.local.into()
    }

    fn clock(&self) -> LookClock {
        self.clock.clone()
    }

    fn connect(&mut self, _qp: QpNumber, to: IpAddr) -> io::Result<()> {
        match to == IpAddr::V4(self.peer) {
            true => Ok(()),
            false => Err(io::ErrorKind::HostUnreachable.into()),
        }
    }

    fn disconnect(&mut self, _qp: QpNumber) {}

    fn receive(&mut self, packets_max: usize, sink: &mut dyn FnMut(IpAddr, &Packet<'_>)) -> io::Result<usize> {
        self.clock.0.fetch_add(LOOK_NS, Ordering::Relaxed);
        for count in 0..packets_max {
            let Some((len, bytes)) = self.incoming.lock().expect("no panic").packets.pop_front() else {
                return Ok(count);
            };
            let datagram = &bytes[..len];
            assert!(envelope(self.peer, self.local).is_intact(datagram), "a wrong ICRC");
            sink(
                self.peer.into(),
                &parse(datagram).expect("what an endpoint says makes sense"),
            );
            self.incoming.lock().expect("no panic").free.push(bytes);
        }
        Ok(packets_max)
    }

    fn send(&mut self, transmit: &Transmit, packet: &mut [u8]) -> io::Result<()> {
        let len = transmit.len_bytes;
        let icrc = envelope(self.local, self.peer).icrc(&packet[..len]);
        packet[len..len + ICRC_BYTES].copy_from_slice(&icrc);
        let mut out = self.out.lock().expect("no panic");
        let mut bytes = out.free.pop().unwrap_or_else(|| vec![0; PACKET_BYTES_MAX].into());
        bytes[..len + ICRC_BYTES].copy_from_slice(&packet[..len + ICRC_BYTES]);
        out.packets.push_back((len + ICRC_BYTES, bytes));
        Ok(())
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.clock.0.fetch_add(max.as_nanos() as u64, Ordering::Relaxed);
        Ok(())
    }
}
