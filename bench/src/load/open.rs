//! The open loop: every request goes out at its own time, whatever became of those before it.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use dataplane_waist::{Clock, Peer, Port};

use super::{
    flight::{Flight, FlightOptions},
    outcome::{LoadError, LoadResult},
    schedule::Schedule,
};

/// Time between the end of the set-up and the first intended send, so that the first request is not late already.
const LEAD: Duration = Duration::from_micros(500);

/// How the open loop asks.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Length of each request and reply, header included.
    pub frame_bytes: usize,
    /// A request without a reply this long after it was *sent* is lost, 1 µs to 60 s.
    pub timeout: Duration,
    /// Written into each request; replies to another client are rejected, such as one that used the port before.
    pub client_id: u32,
    /// Points of the time series, at most 600; 0 for none.
    pub series_points_count: usize,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            frame_bytes: 64,
            timeout: Duration::from_secs(1),
            client_id: 1,
            series_points_count: 100,
        }
    }
}

/// Sends `schedule` to `server` and waits for the replies, in the port's own way.
///
/// Each request is sent, however late the generator is: it catches up, and the latency of a late request counts from
/// when it was meant to go, so lateness never flatters. After the last send the loop goes on until every request is
/// answered or lost. `stop` ends it early and keeps what was measured; requests then still waiting are abandoned, not
/// lost. Nothing is allocated between the first send and the last reply.
///
/// # Errors
/// An option outside its bound, before anything is sent; a port that breaks.
pub fn open(
    port: &mut dyn Port,
    server: Peer,
    clock: &dyn Clock,
    schedule: &Schedule,
    options: &OpenOptions,
    stop: &AtomicBool,
) -> Result<LoadResult, LoadError> {
    // A generator that catches up sends two windows' worth within one.
    let window = options.timeout.saturating_mul(2);
    let mut flight = Flight::new(
        port,
        server,
        &FlightOptions {
            frame_bytes: options.frame_bytes,
            timeout: options.timeout,
            client_id: options.client_id,
            series_points_count: options.series_points_count,
            span: schedule.duration(),
            in_flight_max: schedule.in_flight_max(window),
            has_schedule: true,
        },
    )?;
    let batch_frames_max = port.caps().batch_frames_max.max(1);
    let offsets_ns = schedule.offsets_ns();
    let start_ns = (clock.now() + LEAD).as_ns();
    flight.start(start_ns);

    let mut next = 0;
    let mut interrupted = false;
    loop {
        let mut now_ns = clock.now().as_ns();
        let mut queued_count = 0;
        while let Some(offset_ns) = offsets_ns.get(next)
            && start_ns + offset_ns <= now_ns
            && queued_count < batch_frames_max
        {
            now_ns = flight.send(port, clock, Some(start_ns + offset_ns))?;
            queued_count += 1;
            next += 1;
        }
        if queued_count > 0 {
            let flushed = port.flush();
            flushed.map_err(|error| LoadError::Port {
                doing: "sending",
                error,
            })?;
        }

        let expires_ns = flight.expire(now_ns);
        if next == offsets_ns.len() && flight.waiting_count() == 0 {
            break;
        }
        if stop.load(Relaxed) {
            interrupted = true;
            break;
        }
        // Whoever is late does not rest.
        let send_ns = offsets_ns.get(next).map_or(u64::MAX, |offset_ns| start_ns + offset_ns);
        let until_ns = send_ns.min(expires_ns.unwrap_or(u64::MAX));
        if until_ns > now_ns {
            flight.rest(port, now_ns, until_ns)?;
        }
        flight.receive(port, clock)?;
    }
    let scheduled = (schedule.requests_count(), schedule.duration());
    Ok(flight.finish(port, clock.now(), Some(scheduled), interrupted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        load::fake::{FakeClock, FakePort, SERVER, Server, stalling},
        record::QuantileValue,
    };
    use dataplane_wire::Reject;

    const SECOND: Duration = Duration::from_secs(1);
    const MS_NS: u64 = 1_000_000;

    fn run(server: Server, schedule: &Schedule, options: &OpenOptions) -> LoadResult {
        let clock = FakeClock::default();
        let mut port = FakePort::new(&clock, server);
        let stop = AtomicBool::new(false);
        let result = open(&mut port, SERVER, &clock, schedule, options, &stop).expect("the fake port does not break");
        assert_eq!(
            result.sent_count,
            result.received_count + result.lost_count + result.abandoned_count
        );
        result
    }

    fn assert_ms(value: QuantileValue, expected_ms: u64, within_ms: u64) {
        let QuantileValue::Ns(ns) = value else {
            panic!("{value:?} where {expected_ms} ms was expected")
        };
        assert!(
            ns.abs_diff(expected_ms * MS_NS) <= within_ms * MS_NS,
            "{ns} ns, expected {expected_ms} ms"
        );
    }

    #[test]
    fn a_server_stopped_a_fifth_of_the_time_shows_as_such() {
        // P(latency > x) = 0.2 - x / 1 s, so p90 = 100 ms, p99 = 190 ms and p99.9 = 199 ms, whatever the arrivals.
        let arrivals = [
            Schedule::uniform(1_000.0, 10 * SECOND).unwrap(),
            Schedule::poisson(1_000.0, 10 * SECOND, 1).unwrap(),
            Schedule::uniform(10_000.0, 10 * SECOND).unwrap(),
        ];
        for schedule in &arrivals {
            // So fast that working off what a stall has piled up takes no time worth naming.
            let stalls = stalling(Duration::from_micros(1), Duration::from_millis(200), usize::MAX);
            let result = run(stalls, schedule, &OpenOptions::default());
            assert_eq!(result.received_count, schedule.requests_count());
            assert_ms(result.latency.quantile(0.5), 0, 1);
            assert_ms(result.latency.quantile(0.9), 100, 5);
            assert_ms(result.latency.quantile(0.99), 190, 5);
            assert_ms(result.latency.quantile(0.999), 199, 5);
            assert_eq!(result.schedule_lag.histogram().max(), 0, "the generator was never late");
            assert_eq!(result.latency, result.service, "so both count from the same time");
            assert!((result.achieved_rate_per_s / result.offered_rate_per_s - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn what_a_full_queue_drops_is_lost_and_not_left_out() {
        // 10 000/s into a queue of 100: of the 2 000 requests in each stall 1 900 are dropped, and the one that comes
        // in the very nanosecond of its end.
        let schedule = Schedule::uniform(10_000.0, 10 * SECOND).unwrap();
        let stalls = stalling(Duration::from_micros(10), Duration::from_millis(200), 100);
        let result = run(stalls, &schedule, &OpenOptions::default());
        assert_eq!(result.lost_count, 19_010);
        assert_eq!(result.latency.quantile(0.9), QuantileValue::Lost);
        assert_eq!(result.latency.quantile(0.99), QuantileValue::Lost);
        // What a tool prints that leaves them out: 1 000 of 81 000 waited, and p90 is some microseconds.
        assert!(result.latency.histogram().value_at_quantile(0.9) < MS_NS);
        let lost_in_series: u64 = result.series.iter().map(|point| point.lost_count).sum();
        assert_eq!(lost_in_series, 19_010);
    }

    #[test]
    fn a_late_generator_charges_its_lateness_to_latency_and_shows_it_as_lag() {
        // Each look at the clock costs this client 0.5 ms, and a request is due each 0.1 ms.
        struct Slow<'a>(&'a FakeClock);
        impl Clock for Slow<'_> {
            fn now(&self) -> dataplane_waist::Instant {
                self.0.advance(Duration::from_micros(500));
                self.0.now()
            }
        }
        let clock = FakeClock::default();
        let mut port = FakePort::new(&clock, Box::new(|at_ns| vec![at_ns]));
        let schedule = Schedule::uniform(10_000.0, Duration::from_millis(20)).unwrap();
        let stop = AtomicBool::new(false);
        let options = OpenOptions::default();
        let result = open(&mut port, SERVER, &Slow(&clock), &schedule, &options, &stop).unwrap();
        assert_eq!(result.sent_count, 200, "every request is sent, however late");
        assert_eq!(result.received_count, 200);
        let lag_ns = result.schedule_lag.histogram().max();
        assert!(lag_ns > 50 * MS_NS, "{lag_ns}");
        assert!(
            result.latency.histogram().max() >= lag_ns,
            "latency counts from the intended time"
        );
        assert!(result.service.histogram().mean() < result.latency.histogram().mean() / 2.0);
        assert!(
            result.sent_rate_per_s < 0.5 * result.offered_rate_per_s,
            "and the rate gate can see it"
        );
    }

    #[test]
    fn late_and_duplicate_replies_are_counted_apart() {
        let mut number = 0;
        let server: Server = Box::new(move |at_ns| {
            number += 1;
            match number % 10 {
                // After the time-out of 5 ms; twice; not at all; on time.
                0 => vec![at_ns + 8 * MS_NS],
                1 => vec![at_ns + MS_NS, at_ns + 2 * MS_NS],
                2 => vec![],
                _ => vec![at_ns + MS_NS],
            }
        });
        let schedule = Schedule::uniform(1_000.0, SECOND).unwrap();
        let options = OpenOptions {
            timeout: Duration::from_millis(5),
            ..OpenOptions::default()
        };
        let result = run(server, &schedule, &options);
        assert_eq!((result.received_count, result.lost_count), (800, 200));
        assert_eq!(
            (result.late_count, result.duplicate_count),
            (99, 100),
            "the run ends before the last late one"
        );
        assert_eq!(result.latency.lost_count(), 200);
        assert!((result.lost_ratio() - 0.2).abs() < 1e-9);
    }

    #[test]
    fn frames_that_are_no_reply_of_ours_are_counted_by_reason() {
        let clock = FakeClock::default();
        let server: Server = Box::new(|at_ns| vec![at_ns + MS_NS]);
        let mut port = FakePort::new(&clock, server).damaging(Box::new(|seq, bytes| match seq {
            0 => bytes[0] ^= 1,
            1 => bytes.truncate(10),
            2 => bytes[60] ^= 1,
            // Another client's, with right checksums.
            3 => {
                let header = dataplane_wire::frame::parse(bytes).unwrap().header;
                bytes[43] ^= 1;
                dataplane_wire::frame::emit(&header, bytes);
            }
            // A server that rewrites the payload, and one that answers a number that was never asked.
            4 => {
                let header = dataplane_wire::frame::parse(bytes).unwrap().header;
                bytes[63] ^= 1;
                dataplane_wire::frame::emit(&header, bytes);
            }
            5 => {
                let mut header = dataplane_wire::frame::parse(bytes).unwrap().header;
                header.slot = 1 << 40;
                dataplane_wire::frame::emit(&header, bytes);
            }
            _ => {}
        }));
        let schedule = Schedule::uniform(1_000.0, Duration::from_millis(10)).unwrap();
        let stop = AtomicBool::new(false);
        let result = open(&mut port, SERVER, &clock, &schedule, &OpenOptions::default(), &stop).unwrap();
        assert_eq!((result.received_count, result.lost_count), (4, 6));
        for (reason, count) in [
            (Reject::Magic, 1),
            (Reject::Short, 1),
            (Reject::PayloadChecksum, 1),
            (Reject::Stranger, 1),
        ] {
            assert_eq!(result.rejects[reason.index()], count, "{reason}");
        }
        assert_eq!(result.corrupted_count, 2);
    }

    #[test]
    fn frames_of_another_peer_are_strangers() {
        let clock = FakeClock::default();
        let mut port = FakePort::new(&clock, Box::new(|at_ns| vec![at_ns]));
        port.from = Peer(3);
        let schedule = Schedule::uniform(1_000.0, Duration::from_millis(10)).unwrap();
        let stop = AtomicBool::new(false);
        let result = open(&mut port, SERVER, &clock, &schedule, &OpenOptions::default(), &stop).unwrap();
        assert_eq!((result.lost_count, result.rejects[Reject::Stranger.index()]), (10, 10));
    }

    #[test]
    fn a_full_transmit_queue_is_flushed_and_then_loss() {
        let clock = FakeClock::default();
        let mut port = FakePort::new(&clock, Box::new(|at_ns| vec![at_ns]));
        port.tx_room = 3;
        port.tx_total = 15;
        // Twenty at once: five flushes carry fifteen, and the queue stays full.
        let schedule = Schedule::replay(&"1000\n".repeat(20)).unwrap();
        let stop = AtomicBool::new(false);
        let result = open(&mut port, SERVER, &clock, &schedule, &OpenOptions::default(), &stop).unwrap();
        assert_eq!(
            (result.received_count, result.lost_count, result.tx_full_count),
            (15, 5, 5)
        );
    }

    #[test]
    fn a_dead_server_ends_the_run_after_the_time_out() {
        let schedule = Schedule::uniform(1_000.0, SECOND).unwrap();
        let result = run(Box::new(|_| vec![]), &schedule, &OpenOptions::default());
        assert_eq!((result.lost_count, result.evicted_count), (1_000, 0));
        assert_eq!(result.latency.quantile(0.5), QuantileValue::Lost);
        assert!(
            result.elapsed < 2 * SECOND + Duration::from_millis(1),
            "{:?}",
            result.elapsed
        );
    }

    #[test]
    fn a_stop_keeps_what_was_measured() {
        let clock = FakeClock::default();
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let pulled = stop.clone();
        // Answers until 0.5 s, then pulls the plug.
        let server: Server = Box::new(move |at_ns| {
            pulled.store(at_ns > 500 * MS_NS, Relaxed);
            vec![at_ns + 2 * MS_NS + MS_NS / 2]
        });
        let mut port = FakePort::new(&clock, server);
        let schedule = Schedule::uniform(1_000.0, 10 * SECOND).unwrap();
        let result = open(&mut port, SERVER, &clock, &schedule, &OpenOptions::default(), &stop).unwrap();
        assert!(result.interrupted);
        assert!((495..=502).contains(&result.sent_count), "{}", result.sent_count);
        assert_eq!(result.lost_count, 0);
        assert_eq!(result.abandoned_count, 3, "three were on their way");
        assert!(
            (result.achieved_rate_per_s - 1_000.0).abs() < 20.0,
            "{}",
            result.achieved_rate_per_s
        );
    }

    #[test]
    fn options_outside_their_bounds_are_refused_before_anything_is_sent() {
        let clock = FakeClock::default();
        let schedule = Schedule::uniform(1_000.0, SECOND).unwrap();
        let good = OpenOptions::default();
        for (options, server, said) in [
            (OpenOptions { frame_bytes: 1, ..good }, SERVER, "44 to"),
            (
                OpenOptions {
                    frame_bytes: 4_096,
                    ..good
                },
                SERVER,
                "at most 2048",
            ),
            (
                OpenOptions {
                    timeout: Duration::ZERO,
                    ..good
                },
                SERVER,
                "1 µs to 60 s",
            ),
            (
                OpenOptions {
                    timeout: 61 * SECOND,
                    ..good
                },
                SERVER,
                "1 µs to 60 s",
            ),
            (
                OpenOptions {
                    series_points_count: 601,
                    ..good
                },
                SERVER,
                "at most 600",
            ),
            (good, Peer(9), "table of peers"),
        ] {
            let mut port = FakePort::new(&clock, Box::new(|_| panic!("nothing may be sent")));
            let stop = AtomicBool::new(false);
            let error = open(&mut port, server, &clock, &schedule, &options, &stop).expect_err(said);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
