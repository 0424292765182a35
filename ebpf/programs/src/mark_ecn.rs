//! `mark_ecn`: marks what finds too much waiting in the queue behind it; see `ebpf_abi::mark`. It runs before the frame is queued,
//! so what it reads is what the frame finds. Whatever it cannot read it leaves as it is, and counts.
#![no_std]
#![no_main]

use aya_ebpf::{
    Global,
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_ktime_get_ns, bpf_skb_ecn_set_ce},
    },
    macros::{classifier, map},
    maps::{Array, PerCpuArray},
    programs::TcContext,
};
use ebpf_abi::mark::{Burst, Count, Offset};

/// See [`ebpf_abi::mark::setting::ABOVE_FRAMES`].
#[unsafe(no_mangle)]
static ABOVE_FRAMES: Global<u64> = Global::new(0);
/// See [`ebpf_abi::mark::setting::ABOVE_BYTES`].
#[unsafe(no_mangle)]
static ABOVE_BYTES: Global<u64> = Global::new(0);
/// See [`ebpf_abi::mark::setting::LIMIT_FRAMES`].
#[unsafe(no_mangle)]
static LIMIT_FRAMES: Global<u64> = Global::new(0);
/// See [`ebpf_abi::mark::setting::LIMIT_BYTES`].
#[unsafe(no_mangle)]
static LIMIT_BYTES: Global<u64> = Global::new(0);
/// See [`ebpf_abi::mark::setting::WINDOW_NS`].
#[unsafe(no_mangle)]
static WINDOW_NS: Global<u64> = Global::new(0);
/// See [`ebpf_abi::mark::setting::OFFSETS`].
#[unsafe(no_mangle)]
static OFFSETS: Global<[u32; Offset::COUNT]> = Global::new([0; Offset::COUNT]);

/// See [`ebpf_abi::mark::map::MARK_COUNTS`].
#[map]
static MARK_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Count::ALL.len() as u32, 0);
/// See [`ebpf_abi::mark::map::BURST`].
#[map]
static BURST: Array<Burst> = Array::with_max_entries(1, 0);

/// What Ethernet adds to a frame: preamble, check sequence and gap (IEEE 802.3 clause 4.2).
const OVERHEAD_BYTES: u64 = 24;

/// What waits in the port's queue.
struct Waiting {
    frames: u64,
    bytes: u64,
}

/// The word of type `T` so many bytes behind `base`.
#[inline(always)]
fn read<T>(base: u64, offset: Offset) -> Option<T> {
    let at = base + u64::from(OFFSETS.load()[offset as usize]);
    // SAFETY: the helper faults on no address; what is not memory of the kernel is an error.
    unsafe { bpf_probe_read_kernel(at as *const T) }.ok()
}

#[inline(always)]
fn waiting(skb: *mut __sk_buff) -> Option<Waiting> {
    // The context of a classifier is the buffer itself; only the verifier's view of its fields is another.
    let device: u64 = read(skb as u64, Offset::SkbDev)?;
    let queue: u64 = read(device, Offset::DeviceTx)?;
    let qdisc: u64 = read(queue, Offset::QueueQdisc)?;
    Some(Waiting {
        frames: u64::from(read::<u32>(qdisc, Offset::QdiscLength)?),
        bytes: u64::from(read::<u32>(qdisc, Offset::QdiscBacklog)?),
    })
}

/// Sums up what comes.
#[inline(always)]
fn note(frame_bytes: u64) {
    let Some(burst) = BURST.get_ptr_mut(0) else { return };
    // SAFETY: asks for the time.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the map's value lives as long as the program; other CPUs may write it too, and then a sum is off, as is said there.
    let burst = unsafe { &mut *burst };
    if now_ns.wrapping_sub(burst.began_ns) >= WINDOW_NS.load() {
        burst.began_ns = now_ns;
        burst.bytes = 0;
    }
    burst.bytes += frame_bytes + OVERHEAD_BYTES;
    if burst.bytes > burst.bytes_max {
        burst.bytes_max = burst.bytes;
    }
}

#[inline(always)]
fn look(skb: *mut __sk_buff, frame_bytes: u64) -> Count {
    note(frame_bytes);
    let Some(Waiting { frames, bytes }) = waiting(skb) else {
        return Count::Unread;
    };
    if frames >= LIMIT_FRAMES.load() || bytes + frame_bytes > LIMIT_BYTES.load() {
        return Count::Full;
    }
    if frames <= ABOVE_FRAMES.load() && bytes <= ABOVE_BYTES.load() {
        return Count::Below;
    }
    // SAFETY: the helper is made for this context.
    match unsafe { bpf_skb_ecn_set_ce(skb) } {
        1 => Count::Marked,
        _ => Count::NotCapable,
    }
}

#[classifier]
pub fn mark_ecn(ctx: TcContext) -> i32 {
    let what = look(ctx.skb.skb, u64::from(ctx.len()));
    if let Some(count) = MARK_COUNTS.get_ptr_mut(what as u32) {
        // SAFETY: the map's value is this CPU's own, and a program is not interrupted by itself.
        unsafe { *count += 1 };
    }
    // Whoever is next decides, and without anybody it goes on.
    TC_ACT_UNSPEC
}

ebpf_programs::licence!();
