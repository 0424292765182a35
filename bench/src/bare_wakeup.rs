//! A wake-up on its own: two threads that wake each other in turn through two eventfds (eventfd(2)), and no network. It is
//! the yardstick beside round trips that sleep: what is left of those when the stack is taken away.
//!
//! ```text
//!   asks    │ write ──────────────▶ wakes up   answers │     one round trip: two wake-ups, four system calls
//!           │ wakes up ◀────────────── write           │
//! ```
//!
//! Both threads belong to one process, so a switch between them on one CPU changes no page table, and a switch between a
//! client and a server does: on one CPU this is a floor, a little below what two processes can have.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use dataplane_waist::{Clock, MonotonicClock, Wake};
use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
};

use crate::{
    experiment::Lab,
    host::{self, RunTime, Seat},
    measure::{
        QUANTILES, Recorder, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Row},
    trial::{Cpus, Position},
};

/// What the rows of this yardstick are called.
pub const NAME: &str = "eventfd";

/// Round trips before this are not recorded: both threads fault their stacks in, and the CPUs leave their deepest sleep.
const WARM_UP: Duration = Duration::from_millis(15);

/// Measures wake-ups for `duration`, the two threads where the two ends of a trial with the same `cpus` would be.
///
/// # Errors
/// No eventfd or no thread is to be had.
pub fn measure(lab: &Lab<'_>, cpus: Cpus, duration: Duration, position: Position) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let [asks_on, answers_on] = cpus.of(lab.place.cpus());
    let is_shared = asks_on == answers_on;
    let seat = |cpu| Seat {
        cpu,
        spins: false,
        is_shared,
    };
    let watch = Watch::begin();
    let bells = Bells::new()?;
    let (asked, answered) = thread::scope(|scope| -> anyhow::Result<(Asked, Answered)> {
        let bells = &bells;
        let answers = thread::Builder::new()
            .name("dplab-answers".to_owned())
            .spawn_scoped(scope, move || answer(bells, seat(answers_on)))
            .context("starting the thread that answers")?;
        let asks = thread::Builder::new()
            .name("dplab-asks".to_owned())
            .spawn_scoped(scope, move || ask(bells, seat(asks_on), duration, lab.stop));
        let asked = match asks {
            Ok(asks) => asks.join().unwrap_or_else(|_| bail!("the thread that asks panicked")),
            Err(error) => Err(error).context("starting the thread that asks"),
        };
        // Whatever became of the one that asks, the one that answers is let go.
        bells.end();
        let answered = answers
            .join()
            .unwrap_or_else(|_| bail!("the thread that answers panicked"));
        Ok((asked?, answered?))
    })
    .context("measuring bare wake-ups")?;

    let mut seen = watch.end();
    seen.push(Observation::Samples {
        q: 0.5,
        total_count: asked.round_trip.total_count(),
    });
    if !is_shared {
        for (end, used) in [("client", asked.used), ("server", answered.used)] {
            seen.extend(used.map(|used| Observation::Contention {
                end,
                waited: used.waited,
                elapsed: asked.elapsed,
            }));
        }
    }
    let mut facts: BTreeMap<String, String> = asked.facts.into_iter().chain(answered.facts).collect();
    facts.insert(
        "yardstick".to_owned(),
        "two threads that wake each other through eventfds: no network, two wake-ups a round trip".to_owned(),
    );
    let rounds_count = asked.round_trip.total_count().max(1) as f64;
    let per_op = |used: Option<RunTime>| {
        used.map(|used| Metric {
            value: used.on_cpu.as_nanos() as f64 / rounds_count,
            unit: "ns".to_owned(),
            better: Better::Lower,
        })
    };
    let metrics = [
        ("client_cpu_per_op", per_op(asked.used)),
        ("server_cpu_per_op", per_op(answered.used)),
    ];
    let latency = (asked.round_trip.total_count() > 0).then(|| asked.round_trip.distribution(&QUANTILES));
    Ok(Row {
        experiment: position.experiment.to_owned(),
        backend: NAME.to_owned(),
        mode: ModeRecord::Native,
        axis: position.axis,
        round: position.round,
        twin: position.twin,
        seed: position.seed,
        at_s,
        elapsed_s: asked.elapsed.as_secs_f64(),
        latency,
        service: None,
        schedule_lag: None,
        metrics: metrics
            .into_iter()
            .filter_map(|(name, metric)| Some((name.to_owned(), metric?)))
            .collect(),
        series: Vec::new(),
        facts,
        validity: gates::judge(&seen, &Limits::for_wake(Wake::Sleeps)),
    })
}

/// The two eventfds, one rung by each side.
struct Bells {
    /// Rung by the one that asks.
    asked: EventFd,
    /// Rung by the one that answers.
    answered: EventFd,
    over: AtomicBool,
}

impl Bells {
    fn new() -> anyhow::Result<Bells> {
        let bell = || EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).context("making an eventfd");
        Ok(Bells {
            asked: bell()?,
            answered: bell()?,
            over: AtomicBool::new(false),
        })
    }

    /// Wakes whoever still waits, and lets nobody wait again.
    fn end(&self) {
        self.over.store(true, Ordering::Release);
        for bell in [&self.asked, &self.answered] {
            // Refused only while the counter is at its end, and then nobody sleeps on it.
            let _ = bell.write(1);
        }
    }
}

/// Lets the other side go when this one ends, however it ends.
struct EndsWith<'a>(&'a Bells);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Asked {
    round_trip: Recorder,
    elapsed: Duration,
    used: Option<RunTime>,
    facts: BTreeMap<String, String>,
}

struct Answered {
    used: Option<RunTime>,
    facts: BTreeMap<String, String>,
}

fn ask(bells: &Bells, seat: Seat, duration: Duration, stop: &AtomicBool) -> anyhow::Result<Asked> {
    let _ends = EndsWith(bells);
    let facts = host::settle("client", seat);
    let tid = nix::unistd::gettid().as_raw();
    let clock = MonotonicClock::new();
    let mut round_trip = Recorder::new();
    let warm = clock.now() + WARM_UP;
    let end = warm + duration;
    let mut before = None;
    let mut measured_from = Instant::now();
    loop {
        let sent = clock.now();
        if sent >= end || stop.load(Ordering::Relaxed) {
            break;
        }
        if before.is_none() && sent >= warm {
            before = Some(host::thread_run_time(tid));
            measured_from = Instant::now();
            // Reading /proc took its time; the round trip begins after it.
            continue;
        }
        bells.asked.write(1).context("ringing")?;
        listen(&bells.answered)?;
        if bells.over.load(Ordering::Acquire) {
            bail!("the thread that answers ended early");
        }
        if before.is_some() {
            round_trip.record((clock.now() - sent).as_nanos() as u64);
        }
    }
    Ok(Asked {
        round_trip,
        elapsed: measured_from.elapsed(),
        used: used_since(tid, before.flatten()),
        facts,
    })
}

fn answer(bells: &Bells, seat: Seat) -> anyhow::Result<Answered> {
    let _ends = EndsWith(bells);
    let facts = host::settle("server", seat);
    let tid = nix::unistd::gettid().as_raw();
    let before = host::thread_run_time(tid);
    loop {
        listen(&bells.asked)?;
        if bells.over.load(Ordering::Acquire) {
            break;
        }
        bells.answered.write(1).context("ringing")?;
    }
    Ok(Answered {
        used: used_since(tid, before),
        facts,
    })
}

/// Sleeps until the bell rings.
fn listen(bell: &EventFd) -> anyhow::Result<()> {
    loop {
        match bell.read() {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for the bell"),
        }
    }
}

fn used_since(tid: i32, before: Option<RunTime>) -> Option<RunTime> {
    Some(host::thread_run_time(tid)?.since(before?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anywhere() -> Seat {
        Seat {
            cpu: None,
            spins: false,
            is_shared: true,
        }
    }

    #[test]
    fn two_threads_wake_each_other_until_the_time_is_over() {
        let bells = Bells::new().expect("an eventfd");
        let never = AtomicBool::new(false);
        let asked = thread::scope(|scope| {
            scope.spawn(|| answer(&bells, anywhere()).expect("it answers"));
            ask(&bells, anywhere(), Duration::from_millis(50), &never).expect("it asks")
        });
        assert!(asked.round_trip.total_count() > 0);
        assert_eq!(asked.round_trip.lost_count(), 0);
    }

    #[test]
    fn whoever_ends_lets_the_other_go() {
        let bells = Bells::new().expect("an eventfd");
        let never = AtomicBool::new(false);
        let asked = thread::scope(|scope| {
            scope.spawn(|| drop(EndsWith(&bells)));
            ask(&bells, anywhere(), Duration::from_secs(60), &never)
        });
        let error = asked.err().expect("nobody answers").to_string();
        assert!(error.contains("ended early"), "{error}");

        let bells = Bells::new().expect("an eventfd");
        let stopped = AtomicBool::new(true);
        thread::scope(|scope| {
            let answers = scope.spawn(|| answer(&bells, anywhere()));
            ask(&bells, anywhere(), Duration::from_secs(60), &stopped).expect("it was stopped");
            answers.join().expect("no panic").expect("it was let go");
        });
    }
}
