//! What a segment costs its flow: an ack at a sender with ten segments in flight, the segment it lets go, and the receiver's
//! answer; without losses, which are what a simulator spends its time on.
#![forbid(unsafe_code)]

use std::{collections::VecDeque, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use dataplane_transports::{AnyController, ControllerKind, Receiver, ReceiverOptions, Segment, Sender, SenderOptions};
use dataplane_waist::Instant;

/// A serialised segment's time at 10 Gbit/s.
const GAP_NS: u64 = 1_200;
const WINDOW_SEGMENTS: u32 = 10;

struct Flow {
    sender: Sender<AnyController>,
    receiver: Receiver,
    in_flight: VecDeque<Segment>,
    now_ns: u64,
}

fn flow(kind: ControllerKind, options: SenderOptions) -> Flow {
    let options = SenderOptions {
        initial_window_segments: WINDOW_SEGMENTS,
        ..options
    };
    let mut sender = Sender::new(&options, kind.build(&options));
    sender.write(u64::MAX / 2);
    let receiver = Receiver::new(&ReceiverOptions {
        window_bytes: WINDOW_SEGMENTS * 1448,
        ..ReceiverOptions::default()
    });
    let in_flight = std::iter::from_fn(|| sender.poll_transmit(Instant::ZERO))
        .take(WINDOW_SEGMENTS as usize)
        .collect();
    Flow {
        sender,
        receiver,
        in_flight,
        now_ns: 0,
    }
}

impl Flow {
    fn receive(&mut self) -> Segment {
        self.now_ns += GAP_NS;
        let now = Instant::from_ns(self.now_ns);
        let data = self.in_flight.pop_front().expect("ten are in flight");
        self.receiver.on_segment(now, &data, false);
        self.receiver.poll_transmit(now).expect("each is acknowledged")
    }

    fn acknowledge(&mut self, ack: &Segment) {
        let now = Instant::from_ns(self.now_ns);
        self.sender.on_segment(now, black_box(ack));
        while let Some(segment) = self.sender.poll_transmit(now) {
            self.in_flight.push_back(segment);
        }
        black_box(self.sender.wake_at());
    }
}

fn ack(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ack_and_next_segment");
    for &kind in ControllerKind::ALL {
        for (name, options) in [
            ("rfc", SenderOptions::default()),
            ("linux_2026", SenderOptions::linux_2026()),
        ] {
            // The receiver's window holds the flight at ten segments, whatever the controller thinks.
            let mut flow = flow(kind, options);
            group.bench_function(format!("{kind}/{name}"), |bencher| {
                bencher.iter(|| {
                    let ack = flow.receive();
                    flow.acknowledge(&ack);
                });
            });
            assert!(
                flow.in_flight.len() >= 9,
                "{kind} let {} segments go",
                flow.in_flight.len()
            );
        }
    }
    group.finish();
}

criterion_group!(benches, ack);
criterion_main!(benches);
