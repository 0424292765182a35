//! What a server does with its port: an echo node, timed or with work of a known length, or a sink.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Context;
use dataplane_echo::EchoServer;
use dataplane_waist::{
    Clock, Effects, Input, Instant, MemoryLog, MonotonicClock, Node, Peer, Port, PortCaps, PortStats, Protocol,
    RxFrame, TxError,
};

use super::{Role, ServerReport};
use crate::{
    measure::Recorder,
    record::QuantileValue,
    sink::{self, Expected},
};

/// What a serving thread is told while it runs.
#[derive(Clone, Copy)]
pub(super) struct Signals<'a> {
    pub(super) stop: &'a AtomicBool,
    pub(super) pause: &'a AtomicBool,
    pub(super) expected: &'a Expected,
}

pub(super) fn serve(
    port: Box<dyn Port>,
    role: Role,
    cpu_ns: fn() -> u64,
    signals: Signals<'_>,
) -> anyhow::Result<ServerReport> {
    let Signals { stop, pause, expected } = signals;
    let clock = MonotonicClock::new();
    let mut stop = || {
        while pause.load(Ordering::Acquire) && !stop.load(Ordering::Acquire) {
            thread::sleep(PAUSE_STEP);
        }
        stop.load(Ordering::Acquire)
    };
    match role {
        Role::Echo {
            service_spin,
            times_turns,
        } => echo(port, clock, service_spin, times_turns, &mut stop),
        Role::Sink { stream_id } => {
            let report =
                sink::run(port, stream_id, &clock, cpu_ns, expected, &mut stop).context("the sink's port failed")?;
            Ok(ServerReport {
                rx_frames_count: report.received_count,
                rx_dropped_count: report.rx_dropped_count,
                sink: Some(report),
                ..ServerReport::default()
            })
        }
    }
}

fn echo(
    port: Box<dyn Port>,
    clock: MonotonicClock,
    service_spin: Duration,
    times_turns: bool,
    stop: &mut dyn FnMut() -> bool,
) -> anyhow::Result<ServerReport> {
    let protocol = Working {
        inner: EchoServer,
        clock,
        work: service_spin,
    };
    if !times_turns {
        let mut node = Node::new(port, MemoryLog::new(), protocol, 1);
        node.run(&clock, stop).context("the server's port failed")?;
        return Ok(node.stats().into());
    }
    let mut node = Node::new(Gaps::new(port, clock), MemoryLog::new(), protocol, 1);
    node.run(&clock, stop).context("the server's port failed")?;
    let report = ServerReport::from(node.stats());
    let (gaps, ..) = node.into_parts();
    Ok(ServerReport {
        service_ns: gaps.service_ns(),
        ..report
    })
}

/// Times the gaps between one batch of replies and the next. While requests wait, one follows the other at once, so the
/// shortest gaps are what a request takes.
struct Gaps {
    port: Box<dyn Port>,
    clock: MonotonicClock,
    per_frame: Recorder,
    frames_count: usize,
    last: Option<Instant>,
}

impl Gaps {
    fn new(port: Box<dyn Port>, clock: MonotonicClock) -> Gaps {
        Gaps {
            port,
            clock,
            per_frame: Recorder::new(),
            frames_count: 0,
            last: None,
        }
    }

    /// One frame in twenty came after a gap this short or shorter: a server that was stopped for a fifth of the time finds at least
    /// that many requests waiting.
    fn service_ns(&self) -> Option<u64> {
        match self.per_frame.quantile_of_sample(0.05) {
            QuantileValue::Ns(ns) => Some(ns),
            QuantileValue::Lost | QuantileValue::Unsupported => None,
        }
    }
}

impl Port for Gaps {
    fn caps(&self) -> PortCaps {
        self.port.caps()
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.port.wait(max)
    }

    fn wait_or(&mut self, max: Duration, bell: BorrowedFd<'_>) -> io::Result<()> {
        self.port.wait_or(max, bell)
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        self.frames_count = self.port.rx_burst(sink)?;
        Ok(self.frames_count)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        self.port.tx(to, len_bytes, fill)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.port.flush()?;
        if self.frames_count > 0 {
            let now = self.clock.now();
            if let Some(last) = self.last {
                // Each frame counts once: a backlog comes in few, large bursts.
                let per_frame_ns = (now - last).as_nanos() as u64 / self.frames_count as u64;
                (0..self.frames_count).for_each(|_| self.per_frame.record(per_frame_ns));
            }
            self.last = Some(now);
        }
        Ok(())
    }

    fn stats(&self) -> PortStats {
        self.port.stats()
    }
}

/// How exactly a paused thread notices that it may go on.
const PAUSE_STEP: Duration = Duration::from_micros(100);

/// A protocol that burns CPU time before it answers: work of a known length.
#[derive(Debug)]
struct Working<P> {
    inner: P,
    clock: MonotonicClock,
    work: Duration,
}

impl<P: Protocol> Protocol for Working<P> {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        if !self.work.is_zero() && matches!(input, Input::Frame { .. }) {
            let end = self.clock.now() + self.work;
            while self.clock.now() < end {
                std::hint::spin_loop();
            }
        }
        self.inner.handle(now, input, out);
    }

    fn wake_at(&self) -> Option<Instant> {
        self.inner.wake_at()
    }
}
