//! What the asking thread does: one operation at a time, or as many as the send queue holds.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use dataplane_waist::WrId;
use rdma::{Data, Local, Operation, PostError, Provider, Remote, SendRequest};

use crate::{
    measure::Recorder,
    remote_memory::{asked::Done, pair::Side},
};

/// An operation, as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Into the next receive.
    Send,
    /// Into memory.
    Write,
    /// Into memory, and a word into a completion.
    WriteImm,
    /// Out of memory.
    Read,
    /// Compare and swap.
    CompareSwap,
    /// Fetch and add.
    FetchAdd,
}

impl Verb {
    pub(super) const ALL: [Verb; 6] = [
        Verb::Send,
        Verb::Write,
        Verb::WriteImm,
        Verb::Read,
        Verb::CompareSwap,
        Verb::FetchAdd,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Verb::Send => "send",
            Verb::Write => "write",
            Verb::WriteImm => "write-imm",
            Verb::Read => "read",
            Verb::CompareSwap => "cas",
            Verb::FetchAdd => "faa",
        }
    }

    /// Of 8 bytes, always.
    pub(super) const fn is_atomic(self) -> bool {
        matches!(self, Verb::CompareSwap | Verb::FetchAdd)
    }

    /// Carries bytes of the asking end.
    pub(super) const fn has_data(self) -> bool {
        matches!(self, Verb::Send | Verb::Write | Verb::WriteImm)
    }

    fn operation<'a>(self, data: Data<'a>, here: Local, there: Remote) -> Operation<'a> {
        match self {
            Verb::Send => Operation::Send { data, imm: None },
            Verb::Write => Operation::Write {
                data,
                to: there,
                imm: None,
            },
            Verb::WriteImm => Operation::Write {
                data,
                to: there,
                imm: Some(1),
            },
            Verb::Read => Operation::Read {
                into: here,
                from: there,
            },
            // What is there is what it was: every one of them swaps.
            Verb::CompareSwap => Operation::CompareSwap {
                into: here,
                at: there,
                compare: 0,
                swap: 0,
            },
            Verb::FetchAdd => Operation::FetchAdd {
                into: here,
                at: there,
                add: 1,
            },
        }
    }
}

/// What is asked, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work<'a> {
    pub verb: Verb,
    pub len_bytes: u32,
    pub is_inline: bool,
    /// Operations under way at once.
    pub in_flight: u64,
    /// Every so many one makes a completion.
    pub signal_every: u64,
    pub duration: Duration,
    pub stop: &'a AtomicBool,
}

/// Operations before this are not recorded: caches, and neighbours' entries.
const WARM_UP: Duration = Duration::from_millis(15);
/// No operation takes so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Looks between two at the clock, where nothing is timed one by one.
const LOOKS_PER_CLOCK: u32 = 16;

/// Asks.
///
/// # Errors
/// An operation failed, or nobody answers.
pub(super) fn ask<P: Provider>(near: &mut Side<P>, work: &Work<'_>) -> anyhow::Result<Done> {
    let bytes = vec![0x5A; if work.is_inline { work.len_bytes as usize } else { 0 }];
    let (here, there) = (near.local(0, work.len_bytes), near.remote(0));
    let data = match work.is_inline {
        true => Data::Inline(&bytes),
        false => Data::Local(here),
    };
    let operation = work.verb.operation(data, here, there);
    match work.in_flight {
        1 => one_at_a_time(near, work, operation),
        _ => many(near, work, operation),
    }
}

fn one_at_a_time<P: Provider>(near: &mut Side<P>, work: &Work<'_>, operation: Operation<'_>) -> anyhow::Result<Done> {
    let mut latency = Recorder::new();
    let request = SendRequest {
        wr_id: WrId(0),
        operation,
        signalled: true,
    };
    let warm = Instant::now() + WARM_UP;
    let mut measured_from = warm;
    let mut begin = Instant::now();
    while begin < measured_from + work.duration && !work.stop.load(Ordering::Relaxed) {
        near.provider.post_send(&near.qps[0], &request)?;
        let mut result = None;
        let mut looks_count = 0u32;
        while result.is_none() {
            near.provider.progress()?;
            near.provider
                .poll_cq(1, &mut |completion| result = Some(completion.result));
            looks_count = looks_count.wrapping_add(1);
            if looks_count.is_multiple_of(1 << 16) {
                ensure!(
                    begin.elapsed() < PATIENCE,
                    "a {} that nobody acknowledges",
                    work.verb.name()
                );
            }
        }
        result.unwrap_or(Ok(()))?;
        let end = Instant::now();
        match begin >= warm {
            true => latency.record(end.duration_since(begin).as_nanos() as u64),
            false => measured_from = end,
        }
        begin = end;
    }
    Ok(Done {
        count: latency.total_count(),
        elapsed: begin.duration_since(measured_from),
        latency,
    })
}

/// Keeps the send queue as full as it may be. The last of all is signalled, so that all of them are known to be done.
fn many<P: Provider>(near: &mut Side<P>, work: &Work<'_>, operation: Operation<'_>) -> anyhow::Result<Done> {
    let (mut posted_count, mut done_count) = (0u64, 0u64);
    let begun = Instant::now();
    let warm = begun + WARM_UP;
    let end = warm + work.duration;
    // When warm: how many were done, and when exactly.
    let mut from: Option<(u64, Instant)> = None;
    let mut until = None;
    let mut looks_count = 0u32;
    let (count, elapsed) = loop {
        let is_last_due = until.is_none() && looks_count.is_multiple_of(LOOKS_PER_CLOCK) && {
            let now = Instant::now();
            if from.is_none() && now >= warm {
                from = Some((done_count, now));
            }
            ensure!(now < end + PATIENCE, "{} that nobody acknowledges", work.verb.name());
            now >= end || work.stop.load(Ordering::Relaxed)
        };
        while until.is_none() && posted_count - done_count < work.in_flight {
            let signalled = is_last_due || posted_count % work.signal_every == work.signal_every - 1;
            let request = SendRequest {
                wr_id: WrId(posted_count),
                operation,
                signalled,
            };
            match near.provider.post_send(&near.qps[0], &request) {
                Ok(()) => posted_count += 1,
                Err(PostError::Full) => break,
                Err(error) => bail!(error),
            }
            if is_last_due {
                until = Some(posted_count);
            }
        }
        near.provider.progress()?;
        let mut failed = None;
        near.provider.poll_cq(64, &mut |completion| match completion.result {
            // Completions come in order: what was posted before it is done, too.
            Ok(()) => done_count = completion.wr_id.0 + 1,
            Err(error) => failed = Some(error),
        });
        if let Some(error) = failed {
            bail!(error);
        }
        looks_count = looks_count.wrapping_add(1);
        if until == Some(done_count) {
            let now = Instant::now();
            let (before_count, from) = from.unwrap_or((0, begun));
            break (done_count - before_count, now.duration_since(from));
        }
        if until.is_some() && looks_count.is_multiple_of(1 << 16) {
            ensure!(
                Instant::now() < end + PATIENCE,
                "{} that nobody acknowledges",
                work.verb.name()
            );
        }
    };
    Ok(Done {
        latency: Recorder::new(),
        count,
        elapsed,
    })
}
