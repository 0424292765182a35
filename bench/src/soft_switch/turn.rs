//! What the switch's thread does, turn by turn: what came goes in, what is due goes out.

use std::{
    collections::VecDeque,
    io, iter,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use dataplane_queue::SimTime;
use dataplane_softswitch::Switch;

use super::{
    Lateness, Report,
    lap::Counter,
    memory::Held,
    ports::{Port, Ports},
};
use crate::{
    host::thread_run_time,
    load::{
        spinning::Spinning,
        thread::{ThreadUsage, pin},
    },
};
use nix::unistd::gettid;

/// Frames that are taken from one port before the next one's turn: a NAPI poll's (NAPI_POLL_WEIGHT, include/linux/netdevice.h).
pub(super) const BURST_FRAMES: usize = 64;
/// A program that has looked up the socket before it was taken away is done with the frame by then.
const LAST_FRAMES_WAIT: Duration = Duration::from_millis(2);

/// So often a thread that has nothing to do tells the kernel to send nothing, port after port: the way of a frame through the kernel is in the
/// CPU's caches then when one is due. Of a few frames a millisecond p99 is 3.3 instead of 4 µs, and the median 1.8 instead of 2.0.
const WARM_EVERY_NS: u64 = 8_000;

pub(super) fn work(
    mut switch: Switch<Held>,
    Ports { mut ports, mut frames }: Ports,
    stop: &AtomicBool,
    counter: &Counter,
    cpu: Option<usize>,
) -> io::Result<Report> {
    let start = Instant::now();
    let now_ns = || start.elapsed().as_nanos() as u64;
    let (mut spinning, settings) = settle(cpu, now_ns());
    let usage_before = ThreadUsage::now();
    let run_time = || thread_run_time(gettid().as_raw());
    let run_time_before = run_time();
    let mut lateness = Lateness::new();
    let mut due_ns = vec![VecDeque::new(); ports.len()];
    let last_index = ports.len() - 1;
    let (mut last_look_ns, mut busy_ns, mut has_worked) = (now_ns(), 0, false);
    let (mut warm_at_ns, mut warm_index) = (0, 0);
    let mut is_last = false;
    while !is_last {
        // What came until then is taken before the account is made.
        if stop.load(Ordering::Relaxed) {
            for port in &mut ports {
                port.close()?;
            }
            thread::sleep(LAST_FRAMES_WAIT);
            is_last = true;
        }
        if counter.is_asked() {
            counter.answer(&mut switch, &mut lateness);
        }
        let look_ns = now_ns();
        lateness.look_ns.record(look_ns - last_look_ns);
        if has_worked {
            busy_ns += look_ns - last_look_ns;
        }
        (last_look_ns, has_worked) = (look_ns, false);
        if let Some(spinning) = &mut spinning {
            spinning.turn(look_ns);
        }
        let now = SimTime::from_ns(look_ns);
        for (index, port) in ports.iter_mut().enumerate() {
            let burst_frames = if is_last { usize::MAX } else { BURST_FRAMES };
            let mut received_count = 0;
            while received_count < burst_frames
                && let Some(held) = port.receive()?
            {
                switch.receive(now, index, held, &mut frames);
                received_count += 1;
            }
            if received_count > 0 {
                has_worked = true;
                port.release(&mut frames.free)?;
            }
        }
        switch.advance(now, &mut frames);
        while let Some(due) = switch.next_due(now) {
            due_ns[due.port].push_back(due.due_at.as_ns());
            ports[due.port].send(due.frame);
            has_worked = true;
        }
        // To hand a frame over is its host's whole way up, and often an answer's way down: several microseconds, in which nobody looks what
        // comes. So there is a look after each host of many, and the last port's, which others' frames queue for, is never behind them.
        let others = match longest_waiting(&ports[..last_index], &due_ns) {
            // What is not handed over now never will be.
            _ if is_last => 0..last_index,
            Some(index) => index..index + 1,
            None => 0..0,
        };
        for index in iter::once(last_index).chain(others) {
            let late = |late_ns| lateness.record(index == last_index, late_ns);
            has_worked |= hand_over(&mut ports[index], &mut due_ns[index], now_ns, late)?;
        }
        for port in &mut ports {
            port.recycle(&mut frames.free)?;
        }
        if !has_worked && look_ns >= warm_at_ns {
            ports[warm_index].warm()?;
            warm_index = (warm_index + 1) % ports.len();
            warm_at_ns = look_ns + WARM_EVERY_NS;
        }
    }
    let wires = ports.iter().map(|port| port.counters()).collect::<io::Result<_>>()?;
    Ok(Report {
        account: switch.account(),
        log: switch.log().clone(),
        wires,
        lateness,
        cpu_time: Duration::from_nanos(ThreadUsage::now().since(&usage_before).cpu_ns),
        busy: Duration::from_nanos(busy_ns),
        elapsed: start.elapsed(),
        waited: run_time()
            .zip(run_time_before)
            .map(|(after, before)| after.since(before).waited),
        settings,
    })
}

/// Gives a port's host what is due, as far as its kernel takes it. Whether there was something.
fn hand_over(
    port: &mut Port,
    due_ns: &mut VecDeque<u64>,
    now_ns: impl Fn() -> u64,
    mut late: impl FnMut(u64),
) -> io::Result<bool> {
    if !port.has_due() {
        return Ok(false);
    }
    port.flush()?;
    let released_ns = now_ns();
    for due_ns in due_ns.drain(..due_ns.len() - port.untaken_count()) {
        late(released_ns.saturating_sub(due_ns));
    }
    Ok(true)
}

/// The port whose host has waited longest for what is due.
fn longest_waiting(ports: &[Port], due_ns: &[VecDeque<u64>]) -> Option<usize> {
    let due = ports.iter().zip(due_ns).enumerate();
    due.filter(|(_, (port, _))| port.has_due())
        .min_by_key(|(_, (_, due_ns))| due_ns.front().copied())
        .map(|(index, _)| index)
}

/// Of the thread itself: real-time where it has a CPU of its own. Others would starve on one that they share with it.
pub(super) fn settle(cpu: Option<usize>, now_ns: u64) -> (Option<Spinning>, Vec<String>) {
    let Some(cpu) = cpu else {
        let fact = "on no CPU of its own, SCHED_OTHER: hosts must run there, too".to_owned();
        return (None, vec![fact]);
    };
    let pinned = pin(cpu);
    if !pinned.done {
        return (None, vec![pinned.fact, "SCHED_OTHER".to_owned()]);
    }
    let (spinning, setting) = Spinning::begin(now_ns);
    (Some(spinning), vec![pinned.fact, setting.fact])
}
