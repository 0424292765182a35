//! A server that stands still now and then.

use std::{sync::atomic::Ordering, thread, time::Duration};

use dataplane_waist::{Clock, MonotonicClock};

use super::{Signals, Stall};
use crate::server::Server;

/// When the server stood still, by the clock of the machine that measures.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    /// Stopped and let go.
    pub(super) ns: Vec<(u64, u64)>,
    /// A server of this machine stops within its system call. One of another stops and goes on somewhere between the
    /// asking and the answer, and no clock here tells when: the longest time in between.
    pub(super) uncertainty: Option<Duration>,
}

/// Stops the server for the last part of every period, at absolute times, until `done`; says when it really did.
pub(super) fn stall_again_and_again(server: &Server, stall: Stall, clock: MonotonicClock, signals: &Signals) -> Stalls {
    let Signals { started, done, .. } = signals;
    const STEP: Duration = Duration::from_micros(200);
    let _ = nix::sys::prctl::set_timerslack(1);
    while !started.load(Ordering::Acquire) {
        if done.load(Ordering::Acquire) {
            return Stalls::default();
        }
        thread::sleep(STEP);
    }
    let start = clock.now();
    let mut stalls = Stalls {
        ns: Vec::new(),
        uncertainty: server.is_remote().then_some(Duration::ZERO),
    };
    let wait_until = |at| {
        while clock.now() < at && !done.load(Ordering::Acquire) {
            thread::sleep(at.saturating_since(clock.now()).min(Duration::from_millis(10)));
        }
        !done.load(Ordering::Acquire)
    };
    for index in 1.. {
        let go = start + stall.period * index;
        let stop = start + (stall.period * index - stall.stopped);
        if !wait_until(stop) {
            break;
        }
        let stopping = clock.now();
        if server.pause(true).is_err() {
            break;
        }
        let stopped = clock.now();
        let went_on = wait_until(go);
        // Before the call: the server, once let go, may take this thread's CPU until its backlog is served.
        let resuming = clock.now();
        let resumed = server.pause(false);
        if let Some(uncertainty) = &mut stalls.uncertainty {
            *uncertainty = (*uncertainty).max(stopped - stopping).max(clock.now() - resuming);
        }
        stalls.ns.push((stopped.as_ns(), resuming.as_ns()));
        if !went_on || resumed.is_err() {
            break;
        }
    }
    stalls
}
