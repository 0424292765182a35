//! `quorum_leader`: gives a client's request the next slot and sends it to the followers, counts their acknowledgements, and
//! turns the one that completes a quorum into the client's answer (all by XDP_TX). It does what `dataplane_quorum`'s
//! `FastLeader` says, sends an entry again out of the ring where it was lost, and passes everything else up.
#![no_std]
#![no_main]

use aya_ebpf::{
    Global, bindings::xdp_action, helpers::generated::bpf_xdp_adjust_tail, macros::map, maps::Array,
    programs::XdpContext,
};
use dataplane_wire::{
    checksum::{crc32c_half, crc32c_word},
    frame::{self, Kind},
    quorum::{VALUE_BYTES_MAX, ack::ASKS, reply, request},
};
use ebpf_abi::{
    Count as Passed,
    quorum::{Control, Count, ENTRY_BYTES_MAX, NODES_MAX, Place, RING_SLOTS, SESSION_WORDS, SESSIONS_MAX, Session},
};
use ebpf_programs::{
    Act, Ours, bytes_at, chain,
    quorum::{
        Claim, Head, address, copy_payload, count, entry_of, head, payload_bytes, put_payload, source, up, write_head,
    },
};

/// See [`ebpf_abi::map::SESSIONS`].
#[map]
static SESSIONS: Array<Session> = Array::with_max_entries(SESSIONS_MAX, 1 << 10);
/// See [`ebpf_abi::setting::SESSION_COUNT`].
#[unsafe(no_mangle)]
static SESSION_COUNT: Global<u32> = Global::new(SESSIONS_MAX);

/// See the module.
struct Leader<const FRAGS: bool>;

impl<const FRAGS: bool> Act for Leader<FRAGS> {
    const FRAGS: bool = FRAGS;

    #[inline(always)]
    fn act(ctx: &XdpContext, ours: Ours) -> Result<u32, Passed> {
        let len_bytes = payload_bytes(ours)?;
        let came = head(ctx, ours)?;
        let then = if came.kind == Kind::Ack as u8 && len_bytes == 0 {
            acknowledged(ctx, ours, came)?
        } else if came.kind == Kind::QuorumRequest as u8 {
            asked(ctx, ours, came, len_bytes)?
        } else {
            return Err(Passed::OtherKind);
        };
        match then {
            Then::Done(action) => Ok(action),
            Then::Again(again) => send_again(ctx, ours, again, len_bytes),
        }
    }
}

/// What becomes of a frame that does not go up.
enum Then {
    /// That.
    Done(u32),
    /// An entry leaves in it once more. Both kinds of frames come to that, and the verifier is to walk it once.
    Again(Again),
}

/// An entry that is sent again.
struct Again {
    claim: Claim,
    slot: u64,
    to: Place,
    /// To all followers, as the first time.
    to_group: bool,
    /// If it cannot be done.
    why_not: Count,
}

/// Turns the frame, whose payload is `len_bytes` long now, into an append of an entry that is in the ring.
#[inline(always)]
fn send_again(ctx: &XdpContext, ours: Ours, again: Again, len_bytes: usize) -> Result<u32, Passed> {
    let Again {
        mut claim,
        slot,
        to,
        to_group,
        why_not,
    } = again;
    let next = claim.next();
    let control = claim.control();
    let (term, commit_end, is_chain) = (control.term, control.commit_end, control.chain_hop != 0);
    let Some(entry) = entry_of(slot) else {
        return claim.unused(why_not);
    };
    // SAFETY: whoever holds the claim is alone with the ring's entries, but for the replica, which reads them.
    let found = unsafe { &*entry };
    let (entry_bytes, payload_crc) = (found.len_bytes as usize, found.crc as u32);
    // What the replica appended itself is not in the ring.
    if slot >= next || found.slot != slot || found.term != term || entry_bytes > ENTRY_BYTES_MAX {
        return claim.unused(why_not);
    }
    if len_bytes != entry_bytes {
        // An acknowledgement has no payload, and there is room behind it as a rule: a follower has cut it out of an append.
        // SAFETY: the context is the kernel's own; references into the packet are made anew afterwards.
        if len_bytes != 0 || unsafe { bpf_xdp_adjust_tail(ctx.ctx, entry_bytes as i32) } != 0 {
            return claim.unused(why_not);
        }
    }
    let is_whole = put_payload(ctx, ours, entry_bytes, entry);
    claim.give_back(next);
    is_whole.ok_or(Passed::Length)?;
    let append = Head {
        kind: Kind::Append as u8,
        term,
        slot,
        sent_ns: commit_end,
        payload_crc,
    };
    write_head(ctx, ours, append, entry_bytes).ok_or(Passed::Length)?;
    address(ctx, ours, &to, frame::HEADER_BYTES + entry_bytes).ok_or(Passed::Length)?;
    if to_group && is_chain {
        chain::set_hop(ctx, ours, 1).ok_or(Passed::Length)?;
    }
    count(Count::SentAgain);
    Ok(xdp_action::XDP_TX)
}

/// A client's request. A put is all that is taken: its answer depends on nothing but its place in the log.
#[inline(always)]
fn asked(ctx: &XdpContext, ours: Ours, came: Head, len_bytes: usize) -> Result<Then, Passed> {
    let fixed = bytes_at::<{ request::HEADER_BYTES }>(ctx, ours.frame_at + frame::HEADER_BYTES)
        .ok_or_else(|| up(Count::Unfit))?;
    let client = u64::from_be(fixed.get(request::field::CLIENT.start));
    let sequence = u64::from_be(fixed.get(request::field::SEQUENCE.start));
    let key_len = fixed.get::<u8>(request::field::KEY_LEN.start) as usize;
    let value_len = fixed.be16(request::field::FIRST_LEN.start) as usize;
    let is_put = fixed.get::<u8>(request::field::COMMAND.start) == request::code::PUT
        && key_len > 0
        && value_len <= VALUE_BYTES_MAX
        && fixed.be16(request::field::SECOND_LEN.start) == 0
        && fixed.be16(request::field::COUNT_MAX.start) == 0
        && request::HEADER_BYTES + key_len + value_len == len_bytes;
    if !is_put {
        return Err(up(Count::OtherCommand));
    }
    let from = source(ctx, ours)?;
    let session_count = SESSION_COUNT.load() as u64;
    if session_count == 0 {
        return Err(up(Count::OtherSession));
    }
    let place = (client % session_count) as u32 & (SESSIONS_MAX - 1);
    let session = SESSIONS.get_ptr_mut(place).ok_or_else(|| up(Count::OtherSession))?;

    let mut claim = Claim::take().map_err(up)?;
    // SAFETY: sessions are written under the claim only, and by the replica while there is no grant.
    let session = unsafe { &mut *session };
    if client == 0 || session.id != client {
        return claim.unused(Count::OtherSession);
    }
    let next = claim.next();
    let control = claim.control();
    let (term, commit_end, group) = (control.term, control.commit_end, control.group);
    let newest = session.sequence;
    let is_newer = sequence > newest;
    let word = (sequence / 64) as usize % SESSION_WORDS;
    let bit = 1 << (sequence % 64);
    if !is_newer {
        // Of what came before the grant, or is too far behind, only the replica knows what became of it.
        if sequence < session.floor || newest - sequence >= control.session_window {
            return claim.unused(Count::OtherSession);
        }
        if session.given[word] & bit != 0 {
            let (last, end) = (session.last, session.end);
            if end <= commit_end {
                // All that the session has a slot for is committed. Its answer was lost.
                claim.give_back(next);
                let of = Answer {
                    term,
                    client,
                    sequence,
                    sent_ns: came.sent_ns,
                };
                let then = answer(ctx, ours, of, &from)?;
                let behind_bytes = len_bytes - reply::HEADER_BYTES;
                // A packet cannot always be cut, and what is behind the datagram's end is nobody's.
                // SAFETY: the context is the kernel's own; no reference into the packet is used afterwards.
                let _ = unsafe { bpf_xdp_adjust_tail(ctx.ctx, -(behind_bytes as i32)) };
                count(Count::AnsweredAgain);
                return Ok(then);
            }
            if sequence != last {
                return claim.unused(Count::OtherSession);
            }
            // It is under way, and perhaps was lost there.
            return Ok(Then::Again(Again {
                claim,
                slot: end - 1,
                to: group,
                to_group: true,
                why_not: Count::OtherSession,
            }));
        }
    }
    if len_bytes as u64 > control.entry_bytes_max {
        return claim.unused(Count::Unfit);
    }
    let is_full = next.wrapping_sub(control.drained_end) >= RING_SLOTS as u64
        || next >= control.append_end
        || next.wrapping_sub(commit_end) >= control.in_flight_slots;
    if is_full {
        return claim.unused(Count::Full);
    }
    let Some(entry) = entry_of(next) else {
        return claim.unused(Count::Full);
    };
    if copy_payload(ctx, ours, len_bytes, entry) != Some(came.payload_crc) {
        return claim.unused(Count::Checksum);
    }
    // SAFETY: the place of the next slot is nobody else's while we hold the claim and it is drained.
    let entry = unsafe { &mut *entry };
    entry.term = term;
    entry.client = client;
    entry.sequence = sequence;
    entry.sent_ns = came.sent_ns;
    entry.crc = came.payload_crc as u64;
    entry.len_bytes = len_bytes as u64;
    entry.from = from;
    entry.answered = 0;
    entry.slot = next;
    // The ring of bits moves on with the newest: by a word, which is cleared, or to a new beginning.
    let words_count = if is_newer { sequence / 64 - newest / 64 } else { 0 };
    let before = if words_count == 0 { session.given[word] } else { 0 };
    session.given[word] = before | bit;
    if words_count > 1 {
        session.floor = sequence & !63;
    }
    if is_newer {
        session.sequence = sequence;
    }
    session.last = sequence;
    session.end = next + 1;
    let control = claim.control();
    let is_chain = control.chain_hop != 0;
    let node = control.node as usize % NODES_MAX;
    if control.waits_for_disk == 0 {
        control.acked_end[node] = next + 1;
    }
    claim.give_back(next + 1);

    let append = Head {
        kind: Kind::Append as u8,
        term,
        slot: next,
        sent_ns: commit_end,
        payload_crc: came.payload_crc,
    };
    write_head(ctx, ours, append, len_bytes).ok_or(Passed::Length)?;
    address(ctx, ours, &group, frame::HEADER_BYTES + len_bytes).ok_or(Passed::Length)?;
    if is_chain {
        chain::set_hop(ctx, ours, 1).ok_or(Passed::Length)?;
    }
    count(Count::Appended);
    Ok(Then::Done(xdp_action::XDP_TX))
}

/// Turns the frame into the answer to a put, after which there is nothing of its payload.
#[inline(always)]
fn answer(ctx: &XdpContext, ours: Ours, of: Answer, to: &Place) -> Result<Then, Passed> {
    let payload_crc = write_reply(ctx, ours, of.client, of.sequence).ok_or(Passed::Length)?;
    let answer = Head {
        kind: Kind::QuorumReply as u8,
        term: of.term,
        slot: of.sequence,
        sent_ns: of.sent_ns,
        payload_crc,
    };
    write_head(ctx, ours, answer, reply::HEADER_BYTES).ok_or(Passed::Length)?;
    address(ctx, ours, to, frame::HEADER_BYTES + reply::HEADER_BYTES).ok_or(Passed::Length)?;
    Ok(Then::Done(xdp_action::XDP_TX))
}

/// Which put is answered.
struct Answer {
    term: u64,
    client: u64,
    sequence: u64,
    sent_ns: u64,
}

/// A follower's acknowledgement.
#[inline(always)]
fn acknowledged(ctx: &XdpContext, ours: Ours, ack: Head) -> Result<Then, Passed> {
    let from = source(ctx, ours)?;
    let mut claim = Claim::take().map_err(up)?;
    let next = claim.next();
    let control = claim.control();
    if ack.term != control.term {
        return claim.unused(Count::OtherTerm);
    }
    let node = match voter_at(control, &from) {
        Some(node) => node,
        None => return claim.unused(Count::Stranger),
    };
    if ack.slot > next {
        return claim.unused(Count::Impossible);
    }
    let before = control.commit_end;
    let is_news = match control.chain_hop {
        0 => heard(control, 1 << node, ack.slot),
        // The last of a chain speaks for all of it; otherwise that word says nothing to us.
        _ => {
            let others = control.voters & !(1 << (control.node % NODES_MAX as u64));
            heard(control, (ack.sent_ns & others) | (1 << node), ack.slot)
        }
    };
    let end = if is_news { quorum_end(control, before) } else { before };
    if end <= before || end <= control.term_begin {
        if ack.sent_ns & ASKS != 0 && ack.slot < next {
            return Ok(Then::Again(Again {
                claim,
                slot: ack.slot,
                to: from,
                to_group: false,
                why_not: Count::Gap,
            }));
        }
        // With its own disk's word the replica may have a quorum.
        let waits_for_disk = is_news && control.waits_for_disk != 0;
        claim.give_back(next);
        if waits_for_disk {
            return Err(up(Count::WaitsForDisk));
        }
        count(Count::Counted);
        return Ok(Then::Done(xdp_action::XDP_DROP));
    }
    control.commit_end = end;
    let term = control.term;
    let Some(entry) = entry_of(end - 1) else {
        return claim.unused(Count::Impossible);
    };
    // SAFETY: not drained before it is committed and applied, so it is still there; we hold the claim.
    let entry = unsafe { &mut *entry };
    // An entry that the replica appended itself is not in the ring, where one of an older term may stand that was never
    // committed; and several at once need several answers.
    if end != before + 1 || entry.slot != end - 1 || entry.term != term {
        claim.give_back(next);
        return Err(up(Count::CommittedUp));
    }
    let (to, client, sequence, sent_ns) = (entry.from, entry.client, entry.sequence, entry.sent_ns);
    entry.answered = 1;
    claim.give_back(next);

    // SAFETY: the context is the kernel's own; references into the packet are made anew afterwards.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, reply::HEADER_BYTES as i32) } != 0 {
        entry.answered = 0;
        return Err(up(Count::CommittedUp));
    }
    let of = Answer {
        term,
        client,
        sequence,
        sent_ns,
    };
    let then = answer(ctx, ours, of, &to)?;
    count(Count::Answered);
    Ok(then)
}

/// Writes "done" behind our header; says its CRC-32C.
#[inline(always)]
fn write_reply(ctx: &XdpContext, ours: Ours, client: u64, sequence: u64) -> Option<u32> {
    const DONE: [u8; 4] = [reply::code::DONE, 0, 0, 0];
    let (client, sequence) = (client.to_be(), sequence.to_be());
    let state = crc32c_word(crc32c_word(!0, u64::from_le(client)), u64::from_le(sequence));
    let bytes = bytes_at::<{ reply::HEADER_BYTES }>(ctx, ours.frame_at + frame::HEADER_BYTES)?;
    bytes.set(reply::field::CLIENT.start, client);
    bytes.set(reply::field::SEQUENCE.start, sequence);
    bytes.set(reply::field::OUTCOME.start, u32::from_ne_bytes(DONE));
    Some(!crc32c_half(state, u32::from_le_bytes(DONE)))
}

const _: () = assert!(
    reply::field::CLIENT.start == 0
        && reply::field::SEQUENCE.start == 8
        && reply::field::OUTCOME.start == 16
        && reply::HEADER_BYTES == 20
        && reply::HEADER_BYTES <= request::HEADER_BYTES
);

// What is below has no branch for each node: the verifier would follow all their combinations. Slots and places are far below
// 2^63, so that the highest bit of a difference says which of two is smaller.

/// Which other voter is at `from`.
#[inline(always)]
fn voter_at(control: &Control, from: &Place) -> Option<usize> {
    let others = control.voters & !(1 << (control.node % NODES_MAX as u64));
    let (mut is_found, mut node) = (0, 0);
    for index in 0..NODES_MAX as u64 {
        let difference = from.address ^ control.places[index as usize].address;
        let is_here = (difference.wrapping_sub(1) >> 63) & (others >> index) & 1;
        is_found |= is_here;
        node |= is_here.wrapping_neg() & index;
    }
    match is_found {
        0 => None,
        _ => Some(node as usize % NODES_MAX),
    }
}

/// Notes that `nodes` have everything before `end`; says whether that is news of any of them.
#[inline(always)]
fn heard(control: &mut Control, nodes: u64, end: u64) -> bool {
    let mut is_news = 0;
    for index in 0..NODES_MAX {
        let is_here = (nodes >> index) & 1;
        let before = control.acked_end[index];
        let is_behind = (before.wrapping_sub(end) >> 63) & is_here;
        control.acked_count[index] += is_here;
        control.acked_end[index] = before ^ ((before ^ end) & is_behind.wrapping_neg());
        is_news |= is_behind;
    }
    is_news != 0
}

/// How far the entries are committed: the highest end that `commit_count` voters have reached, at least `before`.
#[inline(always)]
fn quorum_end(control: &Control, before: u64) -> u64 {
    // Usually it is the one entry that the client waits for, or nothing.
    if !is_reached(control, before + 1) {
        return before;
    }
    if !is_reached(control, before + 2) {
        return before + 1;
    }
    let mut highest = before;
    for index in 0..NODES_MAX {
        let end = control.acked_end[index];
        if (control.voters >> index) & 1 != 0 && end > highest && is_reached(control, end) {
            highest = end;
        }
    }
    highest
}

/// Whether `commit_count` voters have reached `end`.
#[inline(always)]
fn is_reached(control: &Control, end: u64) -> bool {
    let mut behind_count = 0;
    for index in 0..NODES_MAX {
        let is_behind = control.acked_end[index].wrapping_sub(end) >> 63;
        behind_count += is_behind & (control.voters >> index) & 1;
    }
    behind_count + control.commit_count <= u64::from(control.voters.count_ones())
}

ebpf_programs::programs!(Leader, quorum_leader, quorum_leader_frags);
