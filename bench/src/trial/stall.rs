//! A server that stands still now and then.

use std::{sync::atomic::Ordering, thread, time::Duration};

use dataplane_waist::{Clock, MonotonicClock};

use super::{Signals, Stall};
use crate::server::Server;

/// Stops the server for the last part of every period, at absolute times, until `done`; says when it really did.
pub(super) fn stall_again_and_again(
    server: &Server,
    stall: Stall,
    clock: MonotonicClock,
    signals: &Signals,
) -> Vec<(u64, u64)> {
    let Signals { started, done, .. } = signals;
    const STEP: Duration = Duration::from_micros(200);
    let _ = nix::sys::prctl::set_timerslack(1);
    while !started.load(Ordering::Acquire) {
        if done.load(Ordering::Acquire) {
            return Vec::new();
        }
        thread::sleep(STEP);
    }
    let start = clock.now();
    let mut stalls = Vec::new();
    let wait_until = |at| {
        while clock.now() < at && !done.load(Ordering::Acquire) {
            thread::sleep(at.saturating_since(clock.now()).min(Duration::from_millis(10)));
        }
        !done.load(Ordering::Acquire)
    };
    for index in 1.. {
        let go = start + stall.period * index;
        let stop = start + (stall.period * index - stall.stopped);
        if !wait_until(stop) || server.pause(true).is_err() {
            break;
        }
        let stopped_ns = clock.now().as_ns();
        let went_on = wait_until(go);
        // Before the call: the server, once let go, may take this thread's CPU until its backlog is served.
        let resumed_ns = clock.now().as_ns();
        let resumed = server.pause(false);
        stalls.push((stopped_ns, resumed_ns));
        if !went_on || resumed.is_err() {
            break;
        }
    }
    stalls
}
