//! A new controller, as docs/src/transports/new-controller.md tells it: TCP Vegas (Brakmo, O'Malley, Peterson, SIGCOMM'94) from nothing
//! to its oracle. It holds between two and four segments of its own in the queue.
#![forbid(unsafe_code)]

mod support;

use dataplane_transports::{AckSample, Controller, LossSample, Phase, ReceiverOptions, SenderOptions};
use support::{MS, Path, PathOptions, SEC};

// ANCHOR: controller
/// Segments of its own in the queue that a flow wants at least, and at most (SIGCOMM'94 §3.2).
const ALPHA: f64 = 2.0;
const BETA: f64 = 4.0;

/// Vegas: once a round trip the window grows or shrinks by a segment.
struct Vegas {
    mss_bytes: u64,
    window_bytes: u64,
    is_slow_start: bool,
    is_round_to_double: bool,
    /// The round trip under observation ends when this is acknowledged; its shortest time.
    round_end: u64,
    round_rtt_ns: u64,
}

impl Controller for Vegas {
    fn on_ack(&mut self, ack: &AckSample) {
        if let Some(rtt_ns) = ack.rtt_ns {
            self.round_rtt_ns = self.round_rtt_ns.min(rtt_ns);
        }
        if ack.acked_end < self.round_end || ack.phase != Phase::Open {
            return;
        }
        let rtt_ns = std::mem::replace(&mut self.round_rtt_ns, u64::MAX);
        self.round_end = ack.sent_end;
        if rtt_ns == u64::MAX || !ack.is_window_limited {
            return;
        }
        // What the path would carry without a queue, less what it carries: the rest waits.
        let window = self.window_bytes as f64 / self.mss_bytes as f64;
        let queued = window * (1.0 - ack.min_rtt_ns as f64 / rtt_ns as f64);
        if self.is_slow_start {
            // Doubles every other round trip; in the one between it sees what came of it.
            self.is_round_to_double = !self.is_round_to_double;
            if queued < ALPHA {
                self.window_bytes <<= u32::from(self.is_round_to_double);
                return;
            }
            self.is_slow_start = false;
            self.window_bytes -= ((queued - ALPHA) * self.mss_bytes as f64) as u64;
            return;
        }
        if queued < ALPHA {
            self.window_bytes += self.mss_bytes;
        } else if queued > BETA {
            self.window_bytes = (self.window_bytes - self.mss_bytes).max(2 * self.mss_bytes);
        }
    }

    fn on_congestion(&mut self, _loss: &LossSample) {
        self.is_slow_start = false;
        self.window_bytes = (self.window_bytes * 3 / 4).max(2 * self.mss_bytes);
    }

    fn on_rto(&mut self, _loss: &LossSample) {
        self.is_slow_start = true;
        self.window_bytes = self.mss_bytes;
    }

    fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    fn is_slow_start(&self) -> bool {
        self.is_slow_start
    }
}
// ANCHOR_END: controller

// ANCHOR: oracle
#[test]
fn vegas_keeps_two_to_four_segments_of_each_flow_in_the_queue() {
    let options = SenderOptions::default();
    for flows_count in [1_u64, 3] {
        let mut path = Path::new(PathOptions {
            bits_per_sec: 100_000_000,
            rtt_ns: 20 * MS,
            ..PathOptions::default()
        });
        for _ in 0..flows_count {
            let vegas = Vegas {
                mss_bytes: options.mss_bytes.into(),
                window_bytes: options.initial_window_bytes(),
                is_slow_start: true,
                is_round_to_double: false,
                round_end: 0,
                round_rtt_ns: u64::MAX,
            };
            let flow = path.add(&options, &ReceiverOptions::default(), vegas);
            path.write(flow, u64::MAX / 2);
        }
        path.run_until(20 * SEC);
        let mut sum_bytes = 0;
        for _ in 0..1_000 {
            path.run_until(path.now_ns + 5 * MS);
            sum_bytes += path.queue_bytes();
        }
        let per_flow = sum_bytes as f64 / 1_000.0 / 1_448.0 / flows_count as f64;
        assert!(
            (ALPHA - 1.0..=BETA + 1.0).contains(&per_flow),
            "{per_flow:.1} segments of each of {flows_count} flows"
        );
    }
}
// ANCHOR_END: oracle
