//! One-way frames as fast as the sender can, or at a given rate: what packet rates are measured with. Nobody answers;
//! every frame has a number of its own, so that the other end can tell what came twice, late or not at all.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use dataplane_echo::RequestTemplate;
use dataplane_waist::{Clock, Peer, Port, PortStats, TxError};

use super::{
    outcome::{LoadError, port_stats_between},
    thread::ThreadUsage,
};
use crate::sink::Counts;

/// Numbers of frames are below this: the other end keeps a bit for each (16 MB of address space, touched as they come).
/// At the 10 M frames a second of a ring in memory that is 13 s.
pub const FRAMES_COUNT_MAX: u64 = 1 << 27;

/// The highest rate that can be asked for, in frames per second.
pub const RATE_PER_S_MAX: f64 = 1e8;

/// A wait for the next due frame that is longer than this sleeps; a shorter one spins. Twice what a timer on a virtual
/// machine may be late.
const SLEEP_MIN: Duration = Duration::from_micros(100);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct FloodOptions {
    /// Length of each frame, header included.
    pub frame_bytes: usize,
    /// Written into each frame; the other end counts only frames of this stream.
    pub stream_id: u32,
    /// The first frame's number.
    pub seq_first: u64,
    /// Frames per second; `None`: as fast as the port takes them.
    pub rate_per_s: Option<f64>,
    /// For how long.
    pub duration: Duration,
    /// At most so many frames.
    pub frames_count_max: u64,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub struct FloodResult {
    /// Frames handed to the port, which took each of them: it has sent them, or says that it dropped them.
    pub offered_count: u64,
    /// How often the port had no room. Such a frame was not handed over; its number went to the next one.
    pub refused_count: u64,
    /// From the first frame to the last flush.
    pub elapsed: Duration,
    /// What the calling thread used meanwhile.
    pub usage: ThreadUsage,
    /// What the port counted meanwhile.
    pub port: PortStats,
    /// Was it stopped early?
    pub interrupted: bool,
}

/// Sends frames to `to` for `options.duration`, in batches of what the port takes between two flushes.
///
/// The time is read once a batch, not once a frame. `replies` counts the frames that come back; without it nothing is
/// received. Nothing is allocated after the first batch.
///
/// # Errors
/// An option outside its bound, before anything is sent; a port that breaks.
pub fn flood(
    port: &mut dyn Port,
    to: Peer,
    clock: &dyn Clock,
    options: &FloodOptions,
    mut replies: Option<&mut Counts>,
    stop: &AtomicBool,
) -> Result<FloodResult, LoadError> {
    let template = RequestTemplate::new(options.stream_id, options.frame_bytes)?;
    check(port, options)?;
    let batch_frames_max = port.caps().batch_frames_max.max(1) as u64;
    let frames_count_max = options.frames_count_max.min(FRAMES_COUNT_MAX - options.seq_first);
    let (usage_before, port_before) = (ThreadUsage::now(), port.stats());
    let start = clock.now();
    let end = start + options.duration;
    let (mut offered_count, mut refused_count) = (0u64, 0u64);
    let mut interrupted = false;
    loop {
        let now = clock.now();
        if now >= end || offered_count >= frames_count_max {
            break;
        }
        if stop.load(Relaxed) {
            interrupted = true;
            break;
        }
        let due_count = match options.rate_per_s {
            None => u64::MAX,
            Some(rate_per_s) => {
                let due_count = (now - start).as_secs_f64() * rate_per_s;
                if due_count < offered_count as f64 + 1.0 {
                    let next = Duration::from_secs_f64((offered_count as f64 + 1.0) / rate_per_s);
                    rest((start + next).saturating_since(now).min(end - now));
                    continue;
                }
                due_count as u64 - offered_count
            }
        };
        let now_ns = now.as_ns();
        let mut is_full = false;
        for _ in 0..due_count.min(batch_frames_max).min(frames_count_max - offered_count) {
            let seq = options.seq_first + offered_count;
            match port.tx(to, options.frame_bytes, &mut |frame| template.stamp(frame, seq, now_ns)) {
                Ok(()) => offered_count += 1,
                Err(TxError::Full) => {
                    refused_count += 1;
                    is_full = true;
                    break;
                }
                Err(TxError::NoPeer) => return Err(LoadError::NoPeer),
                Err(TxError::TooLong) => return Err(too_long(port, options.frame_bytes)),
            }
        }
        flush(port)?;
        if let Some(replies) = &mut replies {
            take_in(port, &mut |bytes| replies.take(bytes))?;
        }
        if is_full {
            // Whoever empties the ring may need this CPU: io_uring's SQPOLL thread has the sender's affinity.
            thread::yield_now();
        }
    }
    let elapsed = clock.now() - start;
    Ok(FloodResult {
        offered_count,
        refused_count,
        elapsed,
        usage: ThreadUsage::now().since(&usage_before),
        port: port_stats_between(port_before, port.stats()),
        interrupted,
    })
}

/// Keeps a port going that nothing more is sent to: pushes out what waits in its rings and takes in what comes, or throws it
/// away where nobody asked for it.
///
/// # Errors
/// A port that breaks.
pub fn idle(port: &mut dyn Port, replies: Option<&mut Counts>) -> Result<(), LoadError> {
    const STEP: Duration = Duration::from_micros(500);
    flush(port)?;
    match replies {
        Some(replies) => take_in(port, &mut |bytes| replies.take(bytes))?,
        None => take_in(port, &mut |_| {})?,
    }
    thread::sleep(STEP);
    Ok(())
}

/// Everything that is there: at most what has been sent and not come back yet.
fn take_in(port: &mut dyn Port, replies: &mut dyn FnMut(&[u8])) -> Result<(), LoadError> {
    let batch_frames_max = port.caps().batch_frames_max.max(1);
    loop {
        let taken_count = port
            .rx_burst(&mut |frame| replies(frame.bytes))
            .map_err(|error| LoadError::Port {
                doing: "receiving",
                error,
            })?;
        if taken_count < batch_frames_max {
            return Ok(());
        }
    }
}

fn flush(port: &mut dyn Port) -> Result<(), LoadError> {
    port.flush().map_err(|error| LoadError::Port {
        doing: "sending",
        error,
    })
}

fn rest(wait: Duration) {
    match wait > SLEEP_MIN {
        true => thread::sleep(wait - SLEEP_MIN / 2),
        false => std::hint::spin_loop(),
    }
}

fn too_long(port: &dyn Port, frame_bytes: usize) -> LoadError {
    let caps = port.caps();
    LoadError::TooLong {
        port: caps.name,
        frame_bytes_max: caps.frame_bytes_max,
        frame_bytes,
    }
}

fn check(port: &dyn Port, options: &FloodOptions) -> Result<(), LoadError> {
    if options.frame_bytes > port.caps().frame_bytes_max {
        return Err(too_long(port, options.frame_bytes));
    }
    if let Some(rate_per_s) = options.rate_per_s
        && !(rate_per_s > 0.0 && rate_per_s <= RATE_PER_S_MAX)
    {
        return Err(LoadError::Option {
            option: "the rate",
            seen: format!("{rate_per_s} frames/s"),
            bound: "above 0 and at most 100 million a second",
        });
    }
    if options.seq_first >= FRAMES_COUNT_MAX {
        return Err(LoadError::Option {
            option: "the first number",
            seen: options.seq_first.to_string(),
            bound: "below 2^27",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dataplane_ports::loopback::{self, RingOptions};
    use dataplane_waist::MonotonicClock;

    use super::*;

    const STREAM: u32 = 7;

    fn options() -> FloodOptions {
        FloodOptions {
            frame_bytes: 64,
            stream_id: STREAM,
            seq_first: 0,
            rate_per_s: None,
            duration: Duration::from_secs(60),
            frames_count_max: 100,
        }
    }

    fn pair() -> (impl Port, impl Port) {
        loopback::pair(&RingOptions {
            slots_count: 64,
            frame_bytes_max: 64,
            ..RingOptions::default()
        })
    }

    #[test]
    fn each_frame_has_its_own_number_and_a_full_ring_skips_none() {
        let (mut sender, mut sink) = pair();
        let stop = AtomicBool::new(false);
        let receiver = thread::spawn(move || {
            let mut counts = Counts::new(STREAM);
            while counts.received_count() < 100_000 {
                sink.rx_burst(&mut |frame| counts.take(frame.bytes))
                    .expect("a ring does not break");
            }
            counts
        });
        let options = FloodOptions {
            frames_count_max: 100_000,
            ..options()
        };
        let sent = flood(&mut sender, Peer(0), &MonotonicClock::new(), &options, None, &stop).expect("sent");
        let counts = receiver.join().expect("the receiver ends");
        assert_eq!((sent.offered_count, counts.received_count()), (100_000, 100_000));
        assert_eq!((counts.duplicate_count(), counts.reordered_count()), (0, 0));
        assert_eq!(sent.port.tx_frames_count, 100_000);
        assert_eq!(sent.port.tx_dropped_count, sent.refused_count, "a refusal is no loss");
    }

    #[test]
    fn a_ring_that_nobody_empties_refuses_and_time_ends_it() {
        let (mut sender, _sink) = pair();
        let options = FloodOptions {
            duration: Duration::from_millis(5),
            frames_count_max: u64::MAX,
            ..options()
        };
        let sent = flood(
            &mut sender,
            Peer(0),
            &MonotonicClock::new(),
            &options,
            None,
            &AtomicBool::new(false),
        )
        .expect("sent");
        assert!((1..=64).contains(&sent.offered_count), "{sent:?}");
        assert!(sent.refused_count > 0 && !sent.interrupted, "{sent:?}");
    }

    #[test]
    fn a_rate_is_not_exceeded() {
        let (mut sender, mut sink) = pair();
        let options = FloodOptions {
            rate_per_s: Some(1_000.0),
            frames_count_max: 20,
            ..options()
        };
        let sent = flood(
            &mut sender,
            Peer(0),
            &MonotonicClock::new(),
            &options,
            None,
            &AtomicBool::new(false),
        )
        .expect("sent");
        assert_eq!(sent.offered_count, 20);
        assert!(
            sent.elapsed >= Duration::from_millis(20),
            "the twentieth is due after 20 ms: {sent:?}"
        );
        let mut counts = Counts::new(STREAM);
        sink.rx_burst(&mut |frame| counts.take(frame.bytes))
            .expect("a ring does not break");
        assert_eq!(counts.received_count(), sent.offered_count);
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_sent() {
        let clock = MonotonicClock::new();
        for (options, says) in [
            (
                FloodOptions {
                    frame_bytes: 10,
                    ..options()
                },
                "44",
            ),
            (
                FloodOptions {
                    frame_bytes: 65,
                    ..options()
                },
                "at most 64",
            ),
            (
                FloodOptions {
                    rate_per_s: Some(0.0),
                    ..options()
                },
                "rate",
            ),
            (
                FloodOptions {
                    rate_per_s: Some(f64::NAN),
                    ..options()
                },
                "rate",
            ),
            (
                FloodOptions {
                    seq_first: FRAMES_COUNT_MAX,
                    ..options()
                },
                "2^27",
            ),
        ] {
            let (mut sender, _sink) = pair();
            let refused = flood(&mut sender, Peer(0), &clock, &options, None, &AtomicBool::new(false));
            let refused = refused.expect_err("refused").to_string();
            assert!(refused.contains(says), "{refused}");
            assert_eq!(sender.stats().tx_frames_count, 0);
        }
    }
}
