//! The closed loop: the next request goes out when an earlier one is answered. What ping-pong tools do.
//!
//! It shows the shortest reply time and, with a window, the highest rate. It cannot show a stall: a server that stops
//! for 200 ms delays one request, not the hundreds that would have come meanwhile ("coordinated omission", Gil Tene).

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use dataplane_waist::{Clock, Peer, Port};

use super::{
    flight::{Flight, FlightOptions},
    outcome::{LoadError, LoadResult},
    schedule::DURATION_MAX,
};

/// The most requests that a closed loop keeps outstanding.
pub const WINDOW_MAX: usize = 4_096;

/// How the closed loop asks.
#[derive(Clone, Copy, Debug)]
pub struct ClosedOptions {
    /// Length of each request and reply, header included.
    pub frame_bytes: usize,
    /// A request without a reply for this long is lost, 1 µs to 60 s; the loop then goes on with another.
    pub timeout: Duration,
    /// Written into each request; replies to another client are rejected.
    pub client_id: u32,
    /// Points of the time series, at most 600; 0 for none.
    pub series_points_count: usize,
    /// Requests outstanding at once, 1 to [`WINDOW_MAX`].
    pub window: usize,
    /// Rest between a reply and the request that follows it ("paced", but still closed: the pace waits for the server).
    pub think: Duration,
    /// For how long requests are sent.
    pub duration: Duration,
}

impl Default for ClosedOptions {
    fn default() -> ClosedOptions {
        ClosedOptions {
            frame_bytes: 64,
            timeout: Duration::from_secs(1),
            client_id: 1,
            series_points_count: 100,
            window: 1,
            think: Duration::ZERO,
            duration: Duration::from_secs(1),
        }
    }
}

/// Keeps `options.window` requests to `server` outstanding for `options.duration`, waiting in the port's own way.
///
/// Latency counts from the actual send; there is no schedule, so no lag either. `stop` ends it early and keeps what was
/// measured. Nothing is allocated between the first send and the last reply.
///
/// # Errors
/// An option outside its bound, before anything is sent; a port that breaks.
pub fn closed(
    port: &mut dyn Port,
    server: Peer,
    clock: &dyn Clock,
    options: &ClosedOptions,
    stop: &AtomicBool,
) -> Result<LoadResult, LoadError> {
    check(options)?;
    let mut flight = Flight::new(
        port,
        server,
        &FlightOptions {
            frame_bytes: options.frame_bytes,
            timeout: options.timeout,
            client_id: options.client_id,
            series_points_count: options.series_points_count,
            span: options.duration,
            // Twice the window, so that a free slot is never far from one that waits for a lost reply.
            in_flight_max: 2 * options.window,
            has_schedule: false,
        },
    )?;
    let batch_frames_max = port.caps().batch_frames_max.max(1);
    let think_ns = options.think.as_nanos() as u64;
    let start_ns = clock.now().as_ns();
    let end_ns = start_ns + options.duration.as_nanos() as u64;
    flight.start(start_ns);

    // When each request that is not outstanding may go, soonest first.
    let mut ready_ns: VecDeque<u64> = VecDeque::with_capacity(options.window);
    ready_ns.resize(options.window, start_ns);
    let mut interrupted = false;
    loop {
        let mut now_ns = clock.now().as_ns();
        // Every reply and every loss of the last turn makes room for one more request.
        let free_count = options.window - flight.waiting_count();
        if ready_ns.len() < free_count {
            ready_ns.resize(free_count, now_ns + think_ns);
        }
        let mut queued_count = 0;
        while now_ns < end_ns
            && queued_count < batch_frames_max
            && let Some(_) = ready_ns.pop_front_if(|at_ns| *at_ns <= now_ns)
        {
            flight.skip_waiting_slots();
            now_ns = flight.send(port, clock, None)?;
            queued_count += 1;
        }
        if queued_count > 0 {
            let flushed = port.flush();
            flushed.map_err(|error| LoadError::Port {
                doing: "sending",
                error,
            })?;
        }

        let expires_ns = flight.expire(now_ns);
        if now_ns >= end_ns && flight.waiting_count() == 0 {
            break;
        }
        if stop.load(Relaxed) {
            interrupted = true;
            break;
        }
        // A request that was just given up makes room at once.
        if ready_ns.len() + flight.waiting_count() < options.window {
            continue;
        }
        let mut until_ns = expires_ns.unwrap_or(u64::MAX);
        // The end of the run wakes nobody who waits for a reply: a port may wait another way when it waits for less
        // long, and the last requests would be measured differently.
        if now_ns < end_ns
            && let Some(&at_ns) = ready_ns.front()
        {
            until_ns = until_ns.min(at_ns.min(end_ns));
        }
        if until_ns > now_ns {
            flight.rest(port, now_ns, until_ns)?;
        }
        flight.receive(port, clock)?;
    }
    Ok(flight.finish(port, clock.now(), None, interrupted))
}

fn check(options: &ClosedOptions) -> Result<(), LoadError> {
    let refuse = |option, seen, bound| Err(LoadError::Option { option, seen, bound });
    if !(1..=WINDOW_MAX).contains(&options.window) {
        return refuse("the window", options.window.to_string(), "1 to 4096 requests");
    }
    if options.duration.is_zero() || options.duration > DURATION_MAX {
        return refuse(
            "the duration",
            format!("{:?}", options.duration),
            "above 0 and at most 24 h",
        );
    }
    if options.think > DURATION_MAX {
        return refuse("the think time", format!("{:?}", options.think), "at most 24 h");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        load::fake::{FakeClock, FakePort, SERVER, Server, stalling},
        record::QuantileValue,
    };

    const MS_NS: u64 = 1_000_000;

    fn run(server: Server, options: &ClosedOptions) -> LoadResult {
        let clock = FakeClock::default();
        let mut port = FakePort::new(&clock, server);
        let stop = AtomicBool::new(false);
        let result = closed(&mut port, SERVER, &clock, options, &stop).expect("the fake port does not break");
        assert_eq!(
            result.sent_count,
            result.received_count + result.lost_count + result.abandoned_count
        );
        result
    }

    fn ns(value: QuantileValue) -> u64 {
        match value {
            QuantileValue::Ns(ns) => ns,
            other => panic!("a time was expected: {other:?}"),
        }
    }

    #[test]
    fn it_hides_a_server_that_is_stopped_a_fifth_of_the_time() {
        // The truth is p90 = 100 ms and p99 = 190 ms; the open loop says so over this same server.
        let stalls = stalling(Duration::from_micros(50), Duration::from_millis(200), usize::MAX);
        let options = ClosedOptions {
            duration: Duration::from_secs(10),
            ..ClosedOptions::default()
        };
        let result = run(stalls, &options);
        assert!(ns(result.latency.quantile(0.9)) <= 51_000);
        assert!(ns(result.latency.quantile(0.99)) <= 51_000);
        assert!(ns(result.latency.quantile(0.999)) <= 51_000, "even p99.9");
        assert!(
            result.latency.histogram().max() >= 199 * MS_NS,
            "only the maximum knows"
        );
        assert_eq!(result.schedule_lag.total_count(), 0);
    }

    #[test]
    fn pacing_it_does_not_help() {
        let stalls = stalling(Duration::from_micros(50), Duration::from_millis(200), usize::MAX);
        let options = ClosedOptions {
            duration: Duration::from_secs(10),
            think: Duration::from_millis(1),
            ..ClosedOptions::default()
        };
        let result = run(stalls, &options);
        assert!(result.sent_rate_per_s < 1_000.0);
        assert!(ns(result.latency.quantile(0.99)) <= 51_000);
    }

    #[test]
    fn a_window_keeps_that_many_outstanding() {
        // 1 ms away and otherwise idle: a window of n gives n replies each millisecond.
        for window in [1, 8, 100] {
            let options = ClosedOptions {
                window,
                ..ClosedOptions::default()
            };
            let result = run(Box::new(|at_ns| vec![at_ns + MS_NS]), &options);
            assert_eq!(result.received_count, 1_000 * window as u64);
            assert_eq!(ns(result.latency.quantile(0.5)) / 1_000, 1_000);
        }
    }

    #[test]
    fn it_goes_on_after_a_time_out() {
        let mut number = 0;
        let server: Server = Box::new(move |at_ns| {
            number += 1;
            if number % 100 == 0 {
                vec![]
            } else {
                vec![at_ns + MS_NS / 10]
            }
        });
        let options = ClosedOptions {
            timeout: Duration::from_millis(10),
            window: 4,
            duration: Duration::from_secs(2),
            ..ClosedOptions::default()
        };
        let result = run(server, &options);
        assert!(result.lost_count > 100);
        assert!((result.lost_ratio() - 0.01).abs() < 0.001, "{}", result.lost_ratio());
        assert_eq!(
            result.evicted_count, 0,
            "a lost reply holds its slot, not its neighbours'"
        );
    }

    #[test]
    fn a_dead_server_costs_one_time_out_after_the_other() {
        let options = ClosedOptions {
            timeout: Duration::from_millis(100),
            ..ClosedOptions::default()
        };
        let result = run(Box::new(|_| vec![]), &options);
        assert_eq!((result.received_count, result.lost_count), (0, 10));
        assert!(result.elapsed < Duration::from_millis(1_200), "{:?}", result.elapsed);
    }

    #[test]
    fn a_stop_ends_it() {
        let clock = FakeClock::default();
        let mut port = FakePort::new(&clock, Box::new(|at_ns| vec![at_ns + MS_NS]));
        let stop = AtomicBool::new(true);
        let result = closed(&mut port, SERVER, &clock, &ClosedOptions::default(), &stop).unwrap();
        assert!(result.interrupted);
        assert_eq!((result.sent_count, result.abandoned_count), (1, 1));
    }

    #[test]
    fn options_outside_their_bounds_are_refused() {
        let good = ClosedOptions::default();
        for (options, said) in [
            (ClosedOptions { window: 0, ..good }, "1 to 4096"),
            (
                ClosedOptions {
                    window: WINDOW_MAX + 1,
                    ..good
                },
                "1 to 4096",
            ),
            (
                ClosedOptions {
                    duration: Duration::ZERO,
                    ..good
                },
                "above 0",
            ),
            (
                ClosedOptions {
                    think: DURATION_MAX * 2,
                    ..good
                },
                "at most 24 h",
            ),
        ] {
            let clock = FakeClock::default();
            let mut port = FakePort::new(&clock, Box::new(|_| panic!("nothing may be sent")));
            let stop = AtomicBool::new(false);
            let error = closed(&mut port, SERVER, &clock, &options, &stop).expect_err(said);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
