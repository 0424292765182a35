//! The half of a queue pair that asks: sends packets, hears answers, sends again (IBA §9.7.6).
//!
//! ```text
//!             queue[0]              queue[next_request]
//!  finished │ ····acked········ │ ·········next····· │ ··········· │
//!                 └ heard of      └ sent below here                └ posted
//! ```
//!
//! Going back is one assignment: `next = acked`. A read consumes as many indices as its answer has packets; `acked` moves
//! through them as the answer comes, so what is asked again is only the rest.

mod home;

use std::collections::VecDeque;

use dataplane_waist::Instant;

use super::{
    Completions, Due, QpCounters, QpOptions,
    options::{RNR_RETRY_FOREVER, rnr_delay},
    send_queue::{self, Beside, Posted, Task},
    sequence::Sequence,
    timer::Timer,
};
use crate::{
    region::{Need, Pd, Regions},
    wire::{Aeth, Bth, Headers, NakCode, Opcode, Packet, Psn, QpNumber, Reth, Syndrome, emit},
    work::{CompletionError, PostError, SendRequest},
};

/// In a long message every so many packets ask for an acknowledgement, so that the window moves before the last.
const ACK_EVERY_PACKETS: u64 = 16;

/// What is around a half of a queue pair while it works.
pub(super) struct Context<'a> {
    pub pd: Pd,
    pub qp: QpNumber,
    pub options: &'a QpOptions,
    pub regions: &'a Regions,
    pub completions: &'a mut Completions,
    pub counters: &'a mut QpCounters,
}

/// The connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

#[derive(Debug)]
pub(super) struct Requester {
    peer: QpNumber,
    sequence: Sequence,
    queue: VecDeque<Posted>,
    /// Of these, requests that no peer hears of: mostly there are none, and nothing looks for them.
    at_home_count: usize,
    inline: Box<[u8]>,
    /// How many were ever posted: the inline store's places are taken in turn.
    posted_count: u64,
    /// Index behind the last posted packet.
    posted_end: u64,
    /// The next to send.
    next: u64,
    /// The request that it is of, by its place in the queue.
    next_request: usize,
    /// Behind the last that was ever sent.
    sent_end: u64,
    /// Everything before it is done.
    acked: u64,
    /// Reads and atomics sent since going back last.
    reads_count: usize,
    retries_left: u8,
    rnr_retries_left: u8,
    /// Silence becomes loss.
    loss: Timer,
    /// The peer had no receive posted: nothing while this runs.
    pause: Timer,
    /// How many packets may be under way for now: after a loss one, and with every answer twice as many, so that a network that is
    /// full is not filled again at once (as TCP's slow start, RFC 5681 §3.1).
    window_packets: u64,
    /// An acknowledgement has overtaken a read's answer since the last progress; hearing so again changes nothing.
    went_back: bool,
}

impl Requester {
    pub(super) fn new(peer: QpNumber, start: Psn, options: &QpOptions) -> Requester {
        Requester {
            peer,
            sequence: Sequence::new(start),
            queue: VecDeque::with_capacity(options.send_requests_max),
            at_home_count: 0,
            inline: vec![0; options.send_requests_max * options.inline_bytes_max].into(),
            posted_count: 0,
            posted_end: 0,
            next: 0,
            next_request: 0,
            sent_end: 0,
            acked: 0,
            reads_count: 0,
            retries_left: options.retries_max,
            rnr_retries_left: options.rnr_retries_max,
            loss: Timer::Off,
            pause: Timer::Off,
            window_packets: options.window_packets,
            went_back: false,
        }
    }

    /// `unpolled_count` finished ones hold their places, too.
    pub(super) fn post(
        &mut self,
        request: &SendRequest<'_>,
        options: &QpOptions,
        (pd, regions): (Pd, &Regions),
        unpolled_count: usize,
    ) -> Result<(), PostError> {
        if self.queue.len() + unpolled_count >= options.send_requests_max {
            return Err(PostError::Full);
        }
        let place = (self.posted_count % options.send_requests_max as u64) as usize;
        let posted = send_queue::accept(
            request,
            options,
            (pd, regions),
            self.posted_end,
            place,
            &mut self.inline,
        )?;
        self.posted_count += 1;
        self.posted_end = posted.end();
        self.at_home_count += usize::from(posted.count == 0);
        self.queue.push_back(posted);
        Ok(())
    }

    /// When [`Requester::tick`] or [`Requester::poll_transmit`] has something to do.
    pub(super) fn due(&self, options: &QpOptions) -> Due {
        Due {
            now: self.may_send(options),
            is_timed: self.loss.is_on() || self.pause.is_on(),
            at: self.pause.ends_at().or(self.loss.ends_at()),
        }
    }

    fn may_send(&self, options: &QpOptions) -> bool {
        let is_held = self.pause.is_on() || self.next - self.acked >= self.window_packets;
        let reads_max = options.initiator_reads_max.max(1);
        !is_held
            && self
                .queue
                .get(self.next_request)
                .is_some_and(|posted| !posted.task.is_read() || self.reads_count < reads_max)
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant, context: &mut Context<'_>) -> Result<(), Broken> {
        self.pause.has_run_out(now);
        if !self.loss.has_run_out(now) {
            return Ok(());
        }
        context.counters.timeouts_count += 1;
        self.retry(context)
    }

    fn retry(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        match self.retries_left.checked_sub(1) {
            Some(left) => {
                self.retries_left = left;
                self.go_back();
                Ok(())
            }
            None => self.fail(CompletionError::RetryExceeded, context),
        }
    }

    fn go_back(&mut self) {
        self.next = self.acked;
        self.next_request = 0;
        self.reads_count = 0;
        self.loss = Timer::Off;
        self.window_packets = 1;
    }

    /// The oldest request has failed; those behind it are flushed with the queue pair.
    fn fail(&mut self, error: CompletionError, context: &mut Context<'_>) -> Result<(), Broken> {
        if let Some(posted) = self.queue.pop_front() {
            context.completions.push_error(posted.wr_id, posted.task.kind(), error);
        }
        Err(Broken)
    }

    pub(super) fn flush(&mut self, completions: &mut Completions) {
        while let Some(posted) = self.queue.pop_front() {
            completions.push_error(posted.wr_id, posted.task.kind(), CompletionError::Flushed);
        }
    }

    /// Writes the next packet, without ICRC, into `into`.
    pub(super) fn poll_transmit(
        &mut self,
        into: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<Option<usize>, Broken> {
        let options = context.options;
        if !self.may_send(options) {
            return Ok(None);
        }
        let posted = self.queue[self.next_request];
        let mtu = options.path_mtu.bytes() as u64;
        let part = self.next - posted.first;
        let skip_bytes = part * mtu;
        let rest_bytes = u64::from(posted.task.len_bytes()) - skip_bytes.min(posted.task.len_bytes().into());
        let is_first = part == 0;
        let is_last = part + 1 == posted.count;
        let mut bth = Bth::new(self.peer, self.sequence.psn(self.next));
        let (opcode, headers, source) = match &posted.task {
            Task::Read { from, .. } => {
                let reth = Reth {
                    address: from.address.wrapping_add(skip_bytes),
                    rkey: from.rkey,
                    len_bytes: rest_bytes as u32,
                };
                (Opcode::ReadRequest, Headers::Reth(reth), None)
            }
            Task::Atomic { opcode, eth, .. } => (*opcode, Headers::Atomic(*eth), None),
            // It is done before anybody asks for a packet.
            Task::Home { .. } => return Ok(None),
            Task::Send { source, beside } => {
                let (opcode, headers) = send_opcode(is_first, is_last, *beside);
                (opcode, headers, Some(source))
            }
            Task::Write { source, to, imm } => {
                let reth = Reth {
                    address: to.address,
                    rkey: to.rkey,
                    len_bytes: posted.task.len_bytes(),
                };
                let (opcode, headers) = write_opcode(is_first, is_last, reth, *imm);
                (opcode, headers, Some(source))
            }
        };
        let is_read = posted.task.is_read();
        let is_full = self.next + 1 - self.acked >= self.window_packets;
        bth.ack_requested = is_read || is_last || is_full || part % ACK_EVERY_PACKETS == ACK_EVERY_PACKETS - 1;
        let payload_bytes = if is_read { 0 } else { rest_bytes.min(mtu) as usize };
        let mut copied = Ok(());
        let len_bytes = emit(opcode, &bth, &headers, payload_bytes, into, |payload| {
            if let Some(source) = source {
                copied = send_queue::copy_part(
                    source,
                    &posted,
                    (context.pd, context.regions),
                    (&self.inline, options.inline_bytes_max),
                    skip_bytes,
                    payload,
                );
            }
        });
        if let Err(refusal) = copied {
            return self.fail_at(self.next_request, CompletionError::LocalProtection(refusal), context);
        }
        context.counters.sent_count += 1;
        context.counters.resent_count += u64::from(self.next < self.sent_end);
        self.next = if is_read { posted.end() } else { self.next + 1 };
        self.next_request += usize::from(is_read || is_last);
        self.reads_count += usize::from(is_read);
        self.sent_end = self.sent_end.max(self.next);
        if !self.loss.is_on() {
            self.loss = Timer::Asked(options.timeout);
        }
        Ok(Some(len_bytes))
    }

    /// A request other than the oldest has failed: what is before it is flushed, in order.
    fn fail_at<T>(&mut self, place: usize, error: CompletionError, context: &mut Context<'_>) -> Result<T, Broken> {
        for _ in 0..place {
            let posted = self.queue.pop_front().expect("a request before another one");
            let kind = posted.task.kind();
            context
                .completions
                .push_error(posted.wr_id, kind, CompletionError::Flushed);
        }
        self.fail(error, context)?;
        Err(Broken)
    }

    /// An answer has come.
    pub(super) fn handle(&mut self, packet: &Packet<'_>, context: &mut Context<'_>) -> Result<(), Broken> {
        let index = match self.sequence.index(packet.bth.psn, self.acked) {
            Some(index) if index < self.sent_end => index,
            // Nobody asked.
            _ => {
                context.counters.ghosts_count += 1;
                return Ok(());
            }
        };
        match packet.headers {
            Headers::Aeth(aeth) if packet.opcode == Opcode::Acknowledge => self.acknowledged(index, aeth, context),
            Headers::AtomicAck(_, original) => self.atomic_answered(index, original, context),
            _ => self.read_answered(index, packet, context),
        }
    }

    fn acknowledged(&mut self, index: u64, aeth: Aeth, context: &mut Context<'_>) -> Result<(), Broken> {
        match aeth.syndrome {
            Syndrome::Ack { .. } => {
                if index < self.acked {
                    context.counters.ghosts_count += 1;
                    return Ok(());
                }
                self.advance(index + 1, context).map(drop)
            }
            // What a NAK names is not done; what is before it is.
            _ if index < self.acked => {
                context.counters.ghosts_count += 1;
                Ok(())
            }
            Syndrome::ReceiverNotReady { timer } => {
                context.counters.rnr_naks_count += 1;
                if !self.advance(index, context)? || self.pause.is_on() {
                    return Ok(());
                }
                if context.options.rnr_retries_max != RNR_RETRY_FOREVER {
                    match self.rnr_retries_left.checked_sub(1) {
                        Some(left) => self.rnr_retries_left = left,
                        None => return self.fail(CompletionError::RnrExceeded, context),
                    }
                }
                self.go_back();
                // The peer is there: silence is counted from now.
                self.retries_left = context.options.retries_max;
                self.pause = Timer::Asked(rnr_delay(timer));
                Ok(())
            }
            Syndrome::Nak(NakCode::PsnSequence) => {
                context.counters.sequence_naks_count += 1;
                match self.advance(index, context)? {
                    true => self.retry(context),
                    false => Ok(()),
                }
            }
            Syndrome::Nak(code) => {
                self.advance(index, context)?;
                let error = match code {
                    NakCode::RemoteAccess => CompletionError::RemoteAccess,
                    NakCode::RemoteOperational => CompletionError::RemoteOperational,
                    _ => CompletionError::RemoteInvalidRequest,
                };
                self.fail(error, context)
            }
        }
    }

    /// Everything before `until` was done at the peer. False: a read among it was, but its answer is lost; it is asked again.
    fn advance(&mut self, until: u64, context: &mut Context<'_>) -> Result<bool, Broken> {
        while self.acked < until {
            let Some(posted) = self.queue.front() else {
                break;
            };
            if posted.task.is_read() {
                if !self.went_back {
                    self.retry(context)?;
                    self.went_back = true;
                } else if self.loss.is_on() {
                    // The peer still answers what was asked before, and what was asked again stands behind it: that is no silence. Linux 6.1's
                    // rdma_rxe ends an answer before it begins the next.
                    self.loss = Timer::Asked(context.options.timeout);
                }
                return Ok(false);
            }
            let end = posted.end().min(until);
            self.progress(end, context);
        }
        Ok(true)
    }

    /// The oldest request is done up to `end`.
    fn progress(&mut self, end: u64, context: &mut Context<'_>) {
        let posted = *self.queue.front().expect("progress is some request's");
        self.acked = end;
        if end == posted.end() {
            self.queue.pop_front();
            if let Some(place) = self.next_request.checked_sub(1) {
                self.next_request = place;
                self.reads_count -= usize::from(posted.task.is_read());
            }
            if posted.signalled {
                let (kind, len_bytes) = (posted.task.kind(), posted.task.len_bytes());
                context.completions.push(posted.wr_id, kind, len_bytes, None);
            }
            if self.at_home_count > 0 {
                self.finish_home_work(context.completions);
            }
        }
        if self.next < self.acked {
            // It was heard of before it was sent again.
            self.next = self.acked;
            self.next_request = 0;
        }
        self.retries_left = context.options.retries_max;
        self.rnr_retries_left = context.options.rnr_retries_max;
        self.went_back = false;
        self.window_packets = (2 * self.window_packets).min(context.options.window_packets);
        let is_waiting = self.next > self.acked;
        self.loss = match is_waiting {
            true => Timer::Asked(context.options.timeout),
            false => Timer::Off,
        };
    }

    fn read_answered(&mut self, index: u64, packet: &Packet<'_>, context: &mut Context<'_>) -> Result<(), Broken> {
        let Some(posted) = self.answered(index, context)? else {
            return Ok(());
        };
        let Task::Read { into, .. } = posted.task else {
            return self.fail(CompletionError::BadResponse, context);
        };
        let mtu = context.options.path_mtu.bytes() as u64;
        let part = index - posted.first;
        let expected_bytes = (u64::from(into.len_bytes) - part * mtu).min(mtu);
        let is_last = part + 1 == posted.count;
        let says_last = matches!(packet.opcode, Opcode::ReadResponseLast | Opcode::ReadResponseOnly);
        if packet.payload.len() as u64 != expected_bytes || says_last != is_last {
            return self.fail(CompletionError::BadResponse, context);
        }
        if !packet.payload.is_empty() {
            let (pd, regions) = (context.pd, context.regions);
            match regions.local(pd, &into, part * mtu, expected_bytes, Need::LocalWrite) {
                Ok((memory, at)) => memory.write(at, packet.payload),
                Err(refusal) => return self.fail(CompletionError::LocalProtection(refusal), context),
            }
        }
        self.progress(index + 1, context);
        Ok(())
    }

    fn atomic_answered(&mut self, index: u64, original: u64, context: &mut Context<'_>) -> Result<(), Broken> {
        let Some(posted) = self.answered(index, context)? else {
            return Ok(());
        };
        let Task::Atomic { into, .. } = posted.task else {
            return self.fail(CompletionError::BadResponse, context);
        };
        let (pd, regions) = (context.pd, context.regions);
        match regions.local(pd, &into, 0, into.len_bytes.into(), Need::LocalWrite) {
            Ok((memory, at)) => memory.write(at, &original.to_ne_bytes()),
            Err(refusal) => return self.fail(CompletionError::LocalProtection(refusal), context),
        }
        self.progress(index + 1, context);
        Ok(())
    }

    /// The request that an answer is of, if it is the answer that is due.
    fn answered(&mut self, index: u64, context: &mut Context<'_>) -> Result<Option<Posted>, Broken> {
        if index < self.acked {
            context.counters.ghosts_count += 1;
            return Ok(None);
        }
        // An answer also acknowledges what was asked before it.
        match self.advance(index, context)? {
            true => Ok(self.queue.front().copied()),
            false => Ok(None),
        }
    }
}

fn send_opcode(is_first: bool, is_last: bool, beside: Beside) -> (Opcode, Headers) {
    match (is_first, is_last, beside) {
        (true, false, _) => (Opcode::SendFirst, Headers::None),
        (false, false, _) => (Opcode::SendMiddle, Headers::None),
        (false, true, Beside::Nothing) => (Opcode::SendLast, Headers::None),
        (false, true, Beside::Imm(imm)) => (Opcode::SendLastImm, Headers::Imm(imm)),
        (false, true, Beside::Invalidate { rkey }) => (Opcode::SendLastInvalidate, Headers::Invalidate(rkey)),
        (true, true, Beside::Nothing) => (Opcode::SendOnly, Headers::None),
        (true, true, Beside::Imm(imm)) => (Opcode::SendOnlyImm, Headers::Imm(imm)),
        (true, true, Beside::Invalidate { rkey }) => (Opcode::SendOnlyInvalidate, Headers::Invalidate(rkey)),
    }
}

fn write_opcode(is_first: bool, is_last: bool, reth: Reth, imm: Option<u32>) -> (Opcode, Headers) {
    match (is_first, is_last, imm) {
        (true, false, _) => (Opcode::WriteFirst, Headers::Reth(reth)),
        (false, false, _) => (Opcode::WriteMiddle, Headers::None),
        (false, true, None) => (Opcode::WriteLast, Headers::None),
        (false, true, Some(imm)) => (Opcode::WriteLastImm, Headers::Imm(imm)),
        (true, true, None) => (Opcode::WriteOnly, Headers::Reth(reth)),
        (true, true, Some(imm)) => (Opcode::WriteOnlyImm, Headers::RethImm(reth, imm)),
    }
}
