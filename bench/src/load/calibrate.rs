//! What measuring costs on this machine: medians over many batches, so that a preemption does not count.

use std::{hint::black_box, io, sync::atomic::AtomicBool, time::Duration};

use dataplane_waist::{Clock, MonotonicClock, Peer, Port, PortCaps, PortStats, RxFrame, TxError, Wake};

use super::{OpenOptions, Schedule, open};
use crate::{measure::Recorder, record::GeneratorCost};

const BATCHES_COUNT: usize = 51;
const BATCH_OPERATIONS_COUNT: u64 = 1_000;
/// How long each run of the empty loop takes.
const LOOP_RUN: Duration = Duration::from_millis(1);

/// Measures the generator on the calling thread, which should be pinned as it will be. Takes about 0.1 s.
pub fn calibrate() -> GeneratorCost {
    calibrate_by(&MonotonicClock::new())
}

fn calibrate_by(clock: &dyn Clock) -> GeneratorCost {
    let clock_read_ns = median_of_batches(clock, &mut |_| {
        black_box(clock.now());
    });

    let mut recorder = Recorder::new();
    let record_ns = median_of_batches(clock, &mut |index| {
        // A spread of values, so that the histogram's memory is visited as in a run: 10 µs to 1 ms.
        recorder.record(black_box(10_000 + (index * 7_919) % 1_000_000));
    });
    GeneratorCost {
        clock_read_ns,
        record_ns,
        loop_ns: median((0..BATCHES_COUNT).map(|_| loop_ns(clock)).collect()),
    }
}

fn median_of_batches(clock: &dyn Clock, operation: &mut dyn FnMut(u64)) -> f64 {
    let batch = |_| {
        let begin = clock.now();
        (0..BATCH_OPERATIONS_COUNT).for_each(&mut *operation);
        (clock.now() - begin).as_nanos() as f64 / BATCH_OPERATIONS_COUNT as f64
    };
    median((0..BATCHES_COUNT).map(batch).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One turn of the open loop itself, over a port that does nothing, between two requests.
fn loop_ns(clock: &dyn Clock) -> f64 {
    let mut port = Nowhere { turns_count: 0 };
    let schedule = Schedule::replay(&format!("0\n{}\n", LOOP_RUN.as_nanos())).expect("two send times");
    let options = OpenOptions {
        timeout: Duration::from_micros(1),
        series_points_count: 0,
        ..OpenOptions::default()
    };
    let result = open(&mut port, Peer(0), clock, &schedule, &options, &AtomicBool::new(false))
        .expect("the options are within their bounds and the port does not break");
    result.elapsed.as_nanos() as f64 / port.turns_count.max(1) as f64
}

/// A port whose frames go nowhere.
struct Nowhere {
    turns_count: u64,
}

impl Port for Nowhere {
    fn caps(&self) -> PortCaps {
        PortCaps {
            name: "nowhere",
            frame_bytes_max: 2_048,
            batch_frames_max: 64,
            wake: Wake::Spins,
        }
    }

    fn wait(&mut self, _max: Duration) -> io::Result<()> {
        Ok(())
    }

    fn rx_burst(&mut self, _sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        self.turns_count += 1;
        Ok(0)
    }

    fn tx(&mut self, _to: Peer, _len_bytes: usize, _fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn stats(&self) -> PortStats {
        PortStats::default()
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, ops::RangeInclusive};

    use dataplane_waist::Instant;

    use super::*;

    /// A clock on which a read is the only thing that takes time, so that each cost is a number of reads.
    struct EachReadTakes {
        read_ns: u64,
        now: Cell<Instant>,
    }

    impl Clock for EachReadTakes {
        fn now(&self) -> Instant {
            self.now.set(self.now.get() + Duration::from_nanos(self.read_ns));
            self.now.get()
        }
    }

    #[test]
    fn every_cost_is_measured() {
        let cost = calibrate();
        assert!(
            cost.clock_read_ns > 0.0 && cost.record_ns > 0.0 && cost.loop_ns > 0.0,
            "{cost:?}"
        );
    }

    #[test]
    fn a_read_costs_a_read_recording_costs_none_and_a_turn_about_one() {
        let read_ns = 50;
        let clock = EachReadTakes {
            read_ns,
            now: Cell::new(Instant::ZERO),
        };
        let cost = calibrate_by(&clock);
        // The end of each batch is read too: one read in a thousand.
        let reads = |cost_ns: f64| cost_ns / read_ns as f64;
        let within = |range: RangeInclusive<f64>, cost_ns: f64| range.contains(&reads(cost_ns));
        assert!(within(1.0..=1.002, cost.clock_read_ns), "{cost:?}");
        assert!(within(0.0..=0.002, cost.record_ns), "{cost:?}");
        assert!(within(0.5..=2.1, cost.loop_ns), "{cost:?}");
    }
}
