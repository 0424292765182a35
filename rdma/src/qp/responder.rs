//! The half of a queue pair that answers: executes each request once and in order, says what is missing, and can repeat
//! what it said (IBA §9.7.4, §9.7.5).
//!
//! Answers wait in a queue that has a bound. Where it is full a request is dropped before it is executed, as if the wire had
//! lost it. An acknowledgement behind another one replaces it: that is how they are coalesced.

use std::collections::VecDeque;

use super::{
    QpOptions,
    options::{MESSAGE_PACKETS_MAX, packets_count},
    receives::Receives,
    requester::{Broken, Context},
    send_queue::ATOMIC_BYTES,
    sequence::Sequence,
};
use crate::{
    region::{MemoryKey, Need, Refusal},
    wire::{Aeth, AtomicEth, Bth, Headers, NakCode, Opcode, Packet, Psn, QpNumber, Reth, Syndrome, emit},
    work::{CompletionError, Kind},
};

#[derive(Debug)]
pub(super) struct Responder {
    peer: QpNumber,
    sequence: Sequence,
    /// The packet whose turn it is.
    expected: u64,
    /// Messages completed (IBA §9.7.7.1), of which 24 bits are told.
    messages_count: u32,
    /// It was said that something is missing: once is enough.
    is_gap_told: bool,
    message: Message,
    /// What the last message took back; the device has not done it so far.
    invalidated: Option<MemoryKey>,
    answered: VecDeque<Answered>,
    answered_max: usize,
    replies: VecDeque<Reply>,
    replies_max: usize,
}

/// The message of several packets that is coming in.
#[derive(Clone, Copy, Debug)]
enum Message {
    None,
    Send { received_bytes: u64 },
    Write { rkey: u32, address: u64, rest_bytes: u64 },
}

/// A read or atomic, kept so that its answer can be repeated ("responder resources").
#[derive(Clone, Copy, Debug)]
struct Answered {
    first: u64,
    count: u64,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Read(Reth),
    Atomic { original: u64 },
}

/// What is to be said.
#[derive(Clone, Copy, Debug)]
enum Reply {
    Say {
        index: u64,
        syndrome: Syndrome,
    },
    /// Packets `next..end`; the first of them has `reth`'s first byte.
    Read {
        begin: u64,
        next: u64,
        end: u64,
        reth: Reth,
    },
    Atomic {
        index: u64,
        original: u64,
    },
}

const ACK: Syndrome = Syndrome::Ack {
    credits: Syndrome::NO_CREDITS,
};

impl Responder {
    pub(super) fn new(peer: QpNumber, start: Psn, options: &QpOptions) -> Responder {
        let answered_max = options.responder_reads_max.max(1);
        // Every read and atomic may wait at once; between two of them an acknowledgement; and a NAK.
        let replies_max = 2 * answered_max + 2;
        Responder {
            peer,
            sequence: Sequence::new(start),
            expected: 0,
            messages_count: 0,
            is_gap_told: false,
            message: Message::None,
            invalidated: None,
            answered: VecDeque::with_capacity(answered_max),
            answered_max,
            replies: VecDeque::with_capacity(replies_max),
            replies_max,
        }
    }

    /// A request has come.
    pub(super) fn handle(
        &mut self,
        packet: &Packet<'_>,
        receives: &mut Receives,
        context: &mut Context<'_>,
    ) -> Result<(), Broken> {
        if self.replies.len() == self.replies_max {
            context.counters.busy_count += 1;
            return Ok(());
        }
        match self.sequence.index(packet.bth.psn, self.expected) {
            Some(index) if index == self.expected => self.execute(packet, receives, context),
            Some(index) if index > self.expected => {
                context.counters.gaps_count += 1;
                if !self.is_gap_told {
                    self.is_gap_told = true;
                    context.counters.sequence_naks_sent_count += 1;
                    self.say(Syndrome::Nak(NakCode::PsnSequence));
                }
                Ok(())
            }
            Some(index) => {
                context.counters.duplicates_count += 1;
                self.repeat(index, packet);
                Ok(())
            }
            None => {
                context.counters.ghosts_count += 1;
                Ok(())
            }
        }
    }

    /// Says something about the packet whose turn it is.
    fn say(&mut self, syndrome: Syndrome) {
        self.replies.push_back(Reply::Say {
            index: self.expected,
            syndrome,
        });
    }

    /// Acknowledges everything so far.
    fn acknowledge(&mut self) {
        let Some(index) = self.expected.checked_sub(1) else {
            return;
        };
        if matches!(
            self.replies.back(),
            Some(Reply::Say {
                syndrome: Syndrome::Ack { .. },
                ..
            })
        ) {
            self.replies.pop_back();
        }
        self.replies.push_back(Reply::Say { index, syndrome: ACK });
    }

    /// The request makes no sense, or is not allowed: the connection ends with these words.
    fn refuse(&mut self, code: NakCode, context: &mut Context<'_>) -> Result<(), Broken> {
        context.counters.invalid_count += u64::from(code == NakCode::InvalidRequest);
        self.say(Syndrome::Nak(code));
        Err(Broken)
    }

    fn refuse_access(&mut self, refusal: Refusal, context: &mut Context<'_>) -> Result<(), Broken> {
        context.counters.refused_counts[refusal.index()] += 1;
        self.refuse(NakCode::RemoteAccess, context)
    }

    fn execute(
        &mut self,
        packet: &Packet<'_>,
        receives: &mut Receives,
        context: &mut Context<'_>,
    ) -> Result<(), Broken> {
        use Opcode::*;
        let mtu = context.options.path_mtu.bytes();
        let payload_bytes = packet.payload.len();
        let (is_first, is_last) = match packet.opcode {
            SendFirst | WriteFirst => (true, false),
            SendMiddle | WriteMiddle => (false, false),
            SendLast | SendLastImm | SendLastInvalidate | WriteLast | WriteLastImm => (false, true),
            _ => (true, true),
        };
        let is_send = matches!(
            packet.opcode,
            SendFirst
                | SendMiddle
                | SendLast
                | SendLastImm
                | SendLastInvalidate
                | SendOnly
                | SendOnlyImm
                | SendOnlyInvalidate
        );
        let is_in_place = match self.message {
            Message::None => is_first,
            Message::Send { .. } => !is_first && is_send,
            Message::Write { .. } => !is_first && matches!(packet.opcode, WriteMiddle | WriteLast | WriteLastImm),
        };
        let is_of_length = match (is_first, is_last) {
            (_, false) => payload_bytes == mtu,
            // A message of several packets does not end with an empty one.
            (false, true) => payload_bytes > 0 && payload_bytes <= mtu,
            (true, true) => payload_bytes <= mtu,
        };
        if !is_in_place || !is_of_length {
            return self.refuse(NakCode::InvalidRequest, context);
        }
        match packet.opcode {
            ReadRequest => match packet.headers {
                Headers::Reth(reth) => self.read(reth, context),
                _ => self.refuse(NakCode::InvalidRequest, context),
            },
            CompareSwap | FetchAdd => match packet.headers {
                Headers::Atomic(eth) => self.atomic(packet.opcode, eth, context),
                _ => self.refuse(NakCode::InvalidRequest, context),
            },
            _ if is_send => self.receive(packet, is_first, is_last, receives, context),
            _ => self.write(packet, is_first, is_last, receives, context),
        }
    }

    /// A packet is done.
    fn executed(&mut self, packet: &Packet<'_>, is_last: bool) {
        self.expected += 1;
        self.is_gap_told = false;
        self.messages_count = self.messages_count.wrapping_add(u32::from(is_last));
        if packet.bth.ack_requested {
            self.acknowledge();
        }
    }

    fn not_ready(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        context.counters.rnr_naks_sent_count += 1;
        // What follows was sent before the peer heard this.
        self.is_gap_told = true;
        self.say(Syndrome::ReceiverNotReady {
            timer: context.options.rnr_timer,
        });
        Ok(())
    }

    fn receive(
        &mut self,
        packet: &Packet<'_>,
        is_first: bool,
        is_last: bool,
        receives: &mut Receives,
        context: &mut Context<'_>,
    ) -> Result<(), Broken> {
        let Some(receive) = receives.front().copied() else {
            return self.not_ready(context);
        };
        let received_bytes = match self.message {
            Message::Send { received_bytes } if !is_first => received_bytes,
            _ => 0,
        };
        let len_bytes = packet.payload.len() as u64;
        let end_bytes = received_bytes + len_bytes;
        if end_bytes > receive.into.len_bytes.into() {
            receives.pop();
            let error = CompletionError::Length;
            context.completions.push_error(receive.wr_id, Kind::Receive, error);
            return self.refuse(NakCode::InvalidRequest, context);
        }
        let invalidated = invalidated_by(&packet.headers);
        if let Some(key) = invalidated
            && let Err(refusal) = context.regions.check_taken_back((context.pd, context.qp), key)
        {
            return self.refuse_access(refusal, context);
        }
        if len_bytes > 0 {
            let (pd, regions) = (context.pd, context.regions);
            match regions.local(pd, &receive.into, received_bytes, len_bytes, Need::LocalWrite) {
                Ok((memory, at)) => memory.write(at, packet.payload),
                Err(refusal) => {
                    receives.pop();
                    let error = CompletionError::LocalProtection(refusal);
                    context.completions.push_error(receive.wr_id, Kind::Receive, error);
                    return self.refuse(NakCode::RemoteOperational, context);
                }
            }
        }
        self.message = match is_last {
            true => Message::None,
            false => Message::Send {
                received_bytes: end_bytes,
            },
        };
        if is_last {
            receives.pop();
            let (wr_id, len_bytes) = (receive.wr_id, end_bytes as u32);
            let completions = &mut context.completions;
            match invalidated {
                Some(key) => completions.push_invalidated(wr_id, len_bytes, key),
                None => completions.push(wr_id, Kind::Receive, len_bytes, imm_of(&packet.headers)),
            }
            self.invalidated = invalidated;
        }
        self.executed(packet, is_last);
        Ok(())
    }

    fn write(
        &mut self,
        packet: &Packet<'_>,
        is_first: bool,
        is_last: bool,
        receives: &mut Receives,
        context: &mut Context<'_>,
    ) -> Result<(), Broken> {
        let len_bytes = packet.payload.len() as u64;
        let (rkey, address, rest_bytes) = match (packet.headers, self.message) {
            (Headers::Reth(reth) | Headers::RethImm(reth, _), _) if is_first => {
                (reth.rkey, reth.address, u64::from(reth.len_bytes))
            }
            (
                _,
                Message::Write {
                    rkey,
                    address,
                    rest_bytes,
                },
            ) if !is_first => (rkey, address, rest_bytes),
            _ => return self.refuse(NakCode::InvalidRequest, context),
        };
        // Either this ends it, or more than this was announced.
        let is_as_announced = if is_last {
            rest_bytes == len_bytes
        } else {
            rest_bytes > len_bytes
        };
        if !is_as_announced || packets_count(rest_bytes, context.options.path_mtu) > MESSAGE_PACKETS_MAX {
            return self.refuse(NakCode::InvalidRequest, context);
        }
        let imm = imm_of(&packet.headers);
        if imm.is_some() && receives.front().is_none() {
            return self.not_ready(context);
        }
        if len_bytes > 0 {
            // All of it, so that nothing is written of a message that does not fit.
            let opened = context
                .regions
                .remote((context.pd, context.qp), rkey, address, rest_bytes, Need::RemoteWrite);
            match opened {
                Ok((memory, at)) => memory.write(at, packet.payload),
                Err(refusal) => return self.refuse_access(refusal, context),
            }
        }
        self.message = match is_last {
            true => Message::None,
            false => Message::Write {
                rkey,
                address: address.wrapping_add(len_bytes),
                rest_bytes: rest_bytes - len_bytes,
            },
        };
        if let Some(imm) = imm {
            let receive = receives.pop().expect("there was one above");
            let completions = &mut context.completions;
            completions.push(receive.wr_id, Kind::ReceiveWrite, len_bytes as u32, Some(imm));
        }
        self.executed(packet, is_last);
        Ok(())
    }

    /// Keeps what was answered. False: as many answers wait already, some of them perhaps given again. The request is then as
    /// lost: a peer that keeps to what was agreed sends it again, one that does not is slowed down.
    fn keep(&mut self, answered: Answered) -> bool {
        let waiting_count = self
            .replies
            .iter()
            .filter(|reply| !matches!(reply, Reply::Say { .. }))
            .count();
        if waiting_count >= self.answered_max {
            return false;
        }
        if self.answered.len() == self.answered_max {
            self.answered.pop_front();
        }
        self.answered.push_back(answered);
        self.expected += answered.count;
        self.is_gap_told = false;
        self.messages_count = self.messages_count.wrapping_add(1);
        true
    }

    fn read(&mut self, reth: Reth, context: &mut Context<'_>) -> Result<(), Broken> {
        let count = packets_count(reth.len_bytes.into(), context.options.path_mtu);
        if count > MESSAGE_PACKETS_MAX {
            return self.refuse(NakCode::InvalidRequest, context);
        }
        if reth.len_bytes > 0 {
            let len_bytes = reth.len_bytes.into();
            let opened = context.regions.remote(
                (context.pd, context.qp),
                reth.rkey,
                reth.address,
                len_bytes,
                Need::RemoteRead,
            );
            if let Err(refusal) = opened {
                return self.refuse_access(refusal, context);
            }
        }
        let first = self.expected;
        let what = What::Read(reth);
        if !self.keep(Answered { first, count, what }) {
            context.counters.busy_count += 1;
            return Ok(());
        }
        self.replies.push_back(Reply::Read {
            begin: first,
            next: first,
            end: first + count,
            reth,
        });
        Ok(())
    }

    fn atomic(&mut self, opcode: Opcode, eth: AtomicEth, context: &mut Context<'_>) -> Result<(), Broken> {
        if !eth.address.is_multiple_of(ATOMIC_BYTES.into()) {
            return self.refuse(NakCode::InvalidRequest, context);
        }
        let opened = context.regions.remote(
            (context.pd, context.qp),
            eth.rkey,
            eth.address,
            ATOMIC_BYTES.into(),
            Need::RemoteAtomic,
        );
        let (memory, at) = match opened {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse_access(refusal, context),
        };
        // Asked before it is done: what is done must be kept.
        let first = self.expected;
        let what = What::Atomic { original: 0 };
        if !self.keep(Answered { first, count: 1, what }) {
            context.counters.busy_count += 1;
            return Ok(());
        }
        let original = match opcode {
            Opcode::CompareSwap => memory.compare_swap(at, eth.compare, eth.swap_or_add),
            _ => memory.fetch_add(at, eth.swap_or_add),
        };
        if let Some(kept) = self.answered.back_mut() {
            kept.what = What::Atomic { original };
        }
        self.replies.push_back(Reply::Atomic { index: first, original });
        Ok(())
    }

    /// What was executed before is not executed again: its answer is given again.
    fn repeat(&mut self, index: u64, packet: &Packet<'_>) {
        if !matches!(
            packet.opcode,
            Opcode::ReadRequest | Opcode::CompareSwap | Opcode::FetchAdd
        ) {
            return self.acknowledge();
        }
        let kept = self
            .answered
            .iter()
            .find(|kept| (kept.first..kept.first + kept.count).contains(&index));
        let Some(kept) = kept.copied() else {
            return;
        };
        let end = kept.first + kept.count;
        match (kept.what, packet.headers) {
            (What::Atomic { original }, Headers::Atomic(_)) => {
                let is_waiting = |reply: &Reply| matches!(reply, Reply::Atomic { index: its, .. } if *its == index);
                if !self.replies.iter().any(is_waiting) {
                    self.replies.push_back(Reply::Atomic { index, original });
                }
            }
            // The rest of a read, from where the requester has a gap.
            (What::Read(whole), Headers::Reth(reth)) if is_rest(&whole, &reth) => {
                let again = Reply::Read {
                    begin: index,
                    next: index,
                    end,
                    reth,
                };
                let is_same = |reply: &&mut Reply| matches!(reply, Reply::Read { end: its, .. } if *its == end);
                match self.replies.iter_mut().find(is_same) {
                    // It is being given, and has not come so far.
                    Some(Reply::Read { next, .. }) if *next <= index => {}
                    // What comes behind the gap is of no use to the requester.
                    Some(reply) => *reply = again,
                    None => self.replies.push_back(again),
                }
            }
            _ => {}
        }
    }

    /// Writes the next answer, without ICRC, into `into`.
    pub(super) fn poll_transmit(
        &mut self,
        into: &mut [u8],
        context: &mut Context<'_>,
    ) -> Result<Option<usize>, Broken> {
        let Some(reply) = self.replies.front().copied() else {
            return Ok(None);
        };
        let aeth = |syndrome| Aeth {
            syndrome,
            msn: self.messages_count & 0xff_ffff,
        };
        let bth = |index| Bth::new(self.peer, self.sequence.psn(index));
        context.counters.sent_count += 1;
        match reply {
            Reply::Say { index, syndrome } => {
                self.replies.pop_front();
                let headers = Headers::Aeth(aeth(syndrome));
                Ok(Some(emit(Opcode::Acknowledge, &bth(index), &headers, 0, into, |_| {})))
            }
            Reply::Atomic { index, original } => {
                self.replies.pop_front();
                let headers = Headers::AtomicAck(aeth(ACK), original);
                Ok(Some(emit(
                    Opcode::AtomicAcknowledge,
                    &bth(index),
                    &headers,
                    0,
                    into,
                    |_| {},
                )))
            }
            Reply::Read { begin, next, end, reth } => {
                let mtu = context.options.path_mtu.bytes() as u64;
                let skip_bytes = (next - begin) * mtu;
                let len_bytes = (u64::from(reth.len_bytes) - skip_bytes.min(reth.len_bytes.into())).min(mtu);
                let opcode = match (next == begin, next + 1 == end) {
                    (true, true) => Opcode::ReadResponseOnly,
                    (true, false) => Opcode::ReadResponseFirst,
                    (false, false) => Opcode::ReadResponseMiddle,
                    (false, true) => Opcode::ReadResponseLast,
                };
                let headers = match opcode {
                    Opcode::ReadResponseMiddle => Headers::None,
                    _ => Headers::Aeth(aeth(ACK)),
                };
                let address = reth.address.wrapping_add(skip_bytes);
                let opened = match len_bytes {
                    0 => Ok(None),
                    _ => {
                        let regions = context.regions;
                        regions
                            .remote(
                                (context.pd, context.qp),
                                reth.rkey,
                                address,
                                len_bytes,
                                Need::RemoteRead,
                            )
                            .map(Some)
                    }
                };
                let memory = match opened {
                    Ok(memory) => memory,
                    // The region was closed since the request was taken.
                    Err(refusal) => {
                        context.counters.refused_counts[refusal.index()] += 1;
                        self.replies.clear();
                        let syndrome = Syndrome::Nak(NakCode::RemoteAccess);
                        self.replies.push_back(Reply::Say { index: next, syndrome });
                        return Err(Broken);
                    }
                };
                let written = emit(opcode, &bth(next), &headers, len_bytes as usize, into, |payload| {
                    if let Some((memory, at)) = memory {
                        memory.read(at, payload);
                    }
                });
                match (self.replies.front_mut(), next + 1 == end) {
                    (Some(Reply::Read { next, .. }), false) => *next += 1,
                    _ => drop(self.replies.pop_front()),
                }
                Ok(Some(written))
            }
        }
    }

    /// A key that the peer has taken back: this once.
    pub(super) fn take_invalidated(&mut self) -> Option<MemoryKey> {
        self.invalidated.take()
    }

    /// Whether there is something to say.
    pub(super) fn has_replies(&self) -> bool {
        !self.replies.is_empty()
    }
}

/// Whether `rest` is the end of `whole`.
fn is_rest(whole: &Reth, rest: &Reth) -> bool {
    let end = |reth: &Reth| u128::from(reth.address) + u128::from(reth.len_bytes);
    rest.rkey == whole.rkey && rest.address >= whole.address && end(rest) == end(whole)
}

fn imm_of(headers: &Headers) -> Option<u32> {
    match headers {
        Headers::Imm(imm) | Headers::RethImm(_, imm) => Some(*imm),
        _ => None,
    }
}

fn invalidated_by(headers: &Headers) -> Option<MemoryKey> {
    match headers {
        Headers::Invalidate(rkey) => Some(MemoryKey(*rkey)),
        _ => None,
    }
}
