//! `lossy`: drops so many of all frames, drawn from a seed, and passes the rest: a port that loses, for those who want to see what
//! loss does. It looks into no frame.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "compare and exchange: see `ebpf_programs::quorum`")]

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use aya_ebpf::{
    Global,
    bindings::xdp_action,
    macros::{map, xdp},
    maps::Array,
    programs::XdpContext,
};
use ebpf_abi::{Lossy, lost::is_lost};

/// See [`ebpf_abi::setting::LOSS_THRESHOLD`].
#[unsafe(no_mangle)]
static LOSS_THRESHOLD: Global<u64> = Global::new(0);
/// See [`ebpf_abi::setting::LOSS_SEED`].
#[unsafe(no_mangle)]
static LOSS_SEED: Global<u64> = Global::new(0);
/// See [`ebpf_abi::map::LOST`].
#[map]
static LOST: Array<u64> = Array::with_max_entries(Lossy::ALL.len() as u32, 0);

/// How often another CPU may be faster before a frame passes uncounted.
const TRIES: usize = 64;

/// One more; how many there were before. An addition would say so only from the target's third version on.
#[inline(always)]
fn count(what: Lossy) -> Option<u64> {
    const ORDERED: AtomicOrdering = AtomicOrdering::SeqCst;
    let count = LOST.get_ptr_mut(what as u32)?;
    // SAFETY: the map's value is aligned to eight bytes, lives as long as the program, and is only ever touched as an atomic.
    let mut found = unsafe { count.read_volatile() };
    for _ in 0..TRIES {
        // SAFETY: as above.
        let (now, is_ours) = unsafe { atomic_cxchg::<u64, ORDERED, ORDERED>(count, found, found + 1) };
        if is_ours {
            return Some(found);
        }
        found = now;
    }
    None
}

#[inline(always)]
fn decide() -> u32 {
    let Some(number) = count(Lossy::Seen) else {
        return xdp_action::XDP_PASS;
    };
    if !is_lost(LOSS_SEED.load(), number, LOSS_THRESHOLD.load()) {
        return xdp_action::XDP_PASS;
    }
    count(Lossy::Dropped);
    xdp_action::XDP_DROP
}

#[xdp]
pub fn lossy(_ctx: XdpContext) -> u32 {
    decide()
}

#[xdp(frags)]
pub fn lossy_frags(_ctx: XdpContext) -> u32 {
    decide()
}

ebpf_programs::licence!();
