//! `quorum_follower`: keeps the leader's next entry in the ring and acknowledges it out of the driver (XDP_TX). It does what
//! `dataplane_quorum`'s `FastFollower` says, and passes everything else up.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_xdp_adjust_tail, programs::XdpContext};
use dataplane_wire::{
    frame::{self, Kind},
    quorum::ack::ASKS,
};
use ebpf_abi::{
    Count as Passed,
    quorum::{Count, NODES_MAX, Place, RING_SLOTS},
};
use ebpf_programs::{
    Act, Ours,
    chain::{self, Link},
    quorum::{
        Claim, Head, address, copy_payload, count, entry_of, head, payload_bytes, readdress, source, up, write_head,
    },
};

/// See the module.
struct Follower<const FRAGS: bool>;

impl<const FRAGS: bool> Act for Follower<FRAGS> {
    const FRAGS: bool = FRAGS;

    #[inline(always)]
    fn act(ctx: &XdpContext, ours: Ours) -> Result<u32, Passed> {
        let outcome = take(ctx, ours);
        if outcome.is_err() {
            // The host's stack takes no frame that is addressed to a group which it knows nothing of, and its replica none from
            // a port that is nobody's.
            chain::leave(ctx, ours);
            readdress(ctx, ours);
        }
        outcome
    }
}

/// Keeps the entry and acknowledges it, or says why not.
#[inline(always)]
fn take(ctx: &XdpContext, ours: Ours) -> Result<u32, Passed> {
    let len_bytes = payload_bytes(ours)?;
    let append = head(ctx, ours)?;
    if append.kind != Kind::Append as u8 {
        return Err(Passed::OtherKind);
    }
    let (from, hop) = chain::origin(source(ctx, ours)?);
    let mut claim = Claim::take().map_err(up)?;
    let next = claim.next();
    let control = claim.control();
    let leader = control.leader as usize % NODES_MAX;
    let leader_place = control.places[leader];
    let (term, drained_end) = (control.term, control.drained_end);
    let (append_end, entry_bytes_max) = (control.append_end, control.entry_bytes_max);
    let waits_for_disk = control.waits_for_disk != 0;
    let (hold_slots, held) = (control.hold_slots, control.held);
    let link = Link::of(control, hop);
    if !from.is_same(leader_place) {
        return claim.unused(Count::Stranger);
    }
    // In a chain, the frame comes from the follower before.
    let leader_mac = if hop == 0 { from.mac } else { leader_place.mac };
    let from = Place {
        mac: leader_mac,
        ..from
    };
    if append.term != term {
        return claim.unused(Count::OtherTerm);
    }
    if append.slot > next && append.slot - next > hold_slots {
        return claim.unused(Count::Gap);
    }
    if append.slot < next && waits_for_disk {
        return claim.unused(Count::WaitsForDisk);
    }
    if append.slot < next {
        claim.give_back(next);
        go_on(ctx, ours, &from, link, (append, next, held), len_bytes)?;
        count(Count::AppendedAgain);
        return Ok(xdp_action::XDP_TX);
    }
    if len_bytes as u64 > entry_bytes_max {
        return claim.unused(Count::Unfit);
    }
    let slot = append.slot;
    if slot.wrapping_sub(drained_end) >= RING_SLOTS as u64 || slot >= append_end {
        return claim.unused(Count::Full);
    }
    let Some(entry) = entry_of(slot) else {
        return claim.unused(Count::Full);
    };
    // An entry that is held already stays as it is: this frame may be damaged.
    let is_held = slot != next && held >> ((slot - next) & 63) & 1 == 1;
    if !is_held {
        if copy_payload(ctx, ours, len_bytes, entry) != Some(append.payload_crc) {
            return claim.unused(Count::Checksum);
        }
        // SAFETY: the place of a slot behind the end is nobody else's while we hold the claim and it is drained.
        let entry = unsafe { &mut *entry };
        entry.term = term;
        entry.crc = append.payload_crc as u64;
        entry.len_bytes = len_bytes as u64;
        entry.slot = slot;
    }
    let control = claim.control();
    if append.sent_ns > control.commit_end {
        control.commit_end = append.sent_ns;
    }
    if slot != next {
        // Something is missing before it. It counts for nothing until that has come, and is forgotten with the grant.
        let held_now = held | 1 << ((slot - next) & 63);
        control.held = held_now;
        control.heard_count += u64::from(held_now != held);
        claim.give_back(next);
        count(Count::Held);
        // What is asked for can be lost as well, so it is asked for at the first that waits, the second, the fourth …
        let held_count = held_now.count_ones();
        if held_count & held_count.wrapping_sub(1) != 0 {
            return Ok(xdp_action::XDP_DROP);
        }
        let ack = Head {
            kind: Kind::Ack as u8,
            term,
            slot: next,
            sent_ns: ASKS,
            payload_crc: 0,
        };
        acknowledge(ctx, ours, &from, ack, len_bytes)?;
        return Ok(xdp_action::XDP_TX);
    }
    control.heard_count += 1;
    // With it come all those that waited right behind it: as many as there are ones from bit 1 on.
    let behind = held >> 1;
    let run = u64::from((behind & !behind.wrapping_add(1)).count_ones());
    let held = behind >> (run & 63);
    control.held = held;
    let end = next + 1 + run;
    claim.give_back(end);
    if waits_for_disk {
        return Err(up(Count::WaitsForDisk));
    }
    go_on(ctx, ours, &from, link, (append, end, held), len_bytes)?;
    count(Count::Appended);
    Ok(xdp_action::XDP_TX)
}

/// Hands the append on to the next in the chain, or turns it into an acknowledgement: by the last of a chain, of this entry
/// for all of it; else of everything before our own `end`, which asks for the entry there if some behind it are held.
#[inline(always)]
fn go_on(
    ctx: &XdpContext,
    ours: Ours,
    leader: &Place,
    link: Option<Link>,
    (append, end, held): (Head, u64, u64),
    len_bytes: usize,
) -> Result<(), Passed> {
    let (end, nodes) = match link {
        None => (end, u64::from(held != 0) << ASKS.trailing_zeros()),
        Some(link) => match link.last() {
            None => return chain::hand_on(ctx, ours, &link).ok_or(Passed::Length),
            // Others may be behind us.
            Some(nodes) => (append.slot + 1, nodes),
        },
    };
    let ack = Head {
        kind: Kind::Ack as u8,
        term: append.term,
        slot: end,
        sent_ns: nodes,
        payload_crc: 0,
    };
    acknowledge(ctx, ours, leader, ack, len_bytes)
}

/// Turns the append into an acknowledgement.
#[inline(always)]
fn acknowledge(ctx: &XdpContext, ours: Ours, to: &Place, ack: Head, len_bytes: usize) -> Result<(), Passed> {
    write_head(ctx, ours, ack, 0).ok_or(Passed::Length)?;
    address(ctx, ours, to, frame::HEADER_BYTES).ok_or(Passed::Length)?;
    // A packet cannot always be cut, and what is behind the datagram's end is nobody's.
    // SAFETY: the context is the kernel's own; no reference into the packet is used afterwards.
    let _ = unsafe { bpf_xdp_adjust_tail(ctx.ctx, -(len_bytes as i32)) };
    Ok(())
}

ebpf_programs::programs!(Follower, quorum_follower, quorum_follower_frags);
