//! The data path takes no memory once it is warm: counted by an allocator that stands in for the real one.
#![forbid(unsafe_code)]

use std::{io, time::Duration};

use dataplane_echo::{EchoServer, RequestTemplate};
use dataplane_waist::{
    Instant, MemoryLog, Node, Peer, Port, PortCaps, PortStats, RxFrame, TxError,
    middleware::{Capture, CaptureOptions, Counters, FaultOptions, FaultRates, Faults, Tap},
    testing::{ManualClock, TestPort},
};

const FRAME_BYTES: usize = 64;
const BATCH_FRAMES: usize = 8;
const PEER: Peer = Peer(0);

/// Receives a full burst of requests in every turn and forgets every reply.
struct Busy {
    inner: TestPort,
    template: RequestTemplate,
    seq: u64,
}

impl Busy {
    fn new() -> Busy {
        Busy {
            inner: TestPort::new(FRAME_BYTES, BATCH_FRAMES),
            template: RequestTemplate::new(1, FRAME_BYTES).expect("a size in bounds"),
            seq: 0,
        }
    }
}

impl Port for Busy {
    fn caps(&self) -> PortCaps {
        self.inner.caps()
    }
    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.inner.wait(max)
    }
    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        let mut request = [0; FRAME_BYTES];
        for _ in 0..BATCH_FRAMES {
            self.template.stamp(&mut request, self.seq, 0);
            self.inner.put_rx(PEER, &request);
            self.seq += 1;
        }
        self.inner.rx_burst(sink)
    }
    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        self.inner.tx(to, len_bytes, fill)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()?;
        while self.inner.take_tx(|_, _| ()) {}
        Ok(())
    }
    fn stats(&self) -> PortStats {
        self.inner.stats()
    }
}

/// Turns a node over `port` until it is warm, then counts what a thousand turns allocate.
fn allocations_count(port: impl Port, clock: &ManualClock) -> u64 {
    let mut node = Node::new(port, MemoryLog::new(), EchoServer, 1);
    let mut turns = |turns_count: u64| {
        for turn in 0..turns_count {
            node.turn(Instant::from_ns(turn)).expect("nothing fails in this test");
            clock.advance(Duration::from_micros(10));
        }
    };
    turns(100);
    let counted = allocation_counter::measure(|| turns(1000));
    assert!(node.stats().port.tx_frames_count > 1000, "{:?}", node.stats());
    counted.count_total
}

#[test]
fn the_allocator_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![0; 10])));
    assert_eq!(counted.count_total, 1, "otherwise the tests below prove nothing");
}

#[test]
fn a_turn_with_echo_allocates_nothing() {
    assert_eq!(allocations_count(Busy::new(), &ManualClock::new()), 0);
}

#[test]
fn counters_allocate_nothing() {
    assert_eq!(allocations_count(Counters::new(Busy::new()), &ManualClock::new()), 0);
}

#[test]
fn a_tap_allocates_nothing() {
    let clock = ManualClock::new();
    let capture = Capture::new(io::sink(), CaptureOptions::default()).expect("a sink takes everything");
    let tap = Tap::new(Busy::new(), clock.clone(), capture);
    assert_eq!(allocations_count(tap, &clock), 0);
}

#[test]
fn faults_allocate_nothing() {
    let clock = ManualClock::new();
    let rates = FaultRates {
        loss_ratio: 0.1,
        duplicate_ratio: 0.2,
        corrupt_ratio: 0.1,
        delay_ratio: 0.5,
        delay_min: Duration::from_micros(5),
        delay_max: Duration::from_micros(100),
    };
    let options = FaultOptions {
        seed: 3,
        rx: rates,
        tx: rates,
        held_frames_max: 64,
    };
    let faults = Faults::new(Busy::new(), clock.clone(), options).expect("options within their bounds");
    assert_eq!(allocations_count(faults, &clock), 0);
}
