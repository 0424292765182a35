//! The list of events against the heap behind it and the standard library's: take the earliest event, plan it anew, again
//! and again (the hold model: Vaucher and Duval, CACM 18(4), 1975), with the distances that links have.

use std::{cmp::Reverse, collections::BinaryHeap, hint::black_box, time::Duration};

use crate::{
    cpu_sec,
    events::{Entry, EventList},
    heap::Heap,
};

/// A packet of 1500 B at 10 Gbit/s; and the same with 5 µs of cable.
const WIRE_PS: u64 = 1_219_200;
const CABLE_PS: u64 = 5_000_000 + WIRE_PS;
const HORIZON_PS: u64 = 5_000_000 + 9_024 * 800;

/// Prints nanoseconds for taking and planning an event, by how many are pending.
pub fn compare() {
    println!(
        "{:<34} {:>10} {:>10} {:>10}",
        "ns to take and plan an event", "calendar", "4-ary heap", "std heap"
    );
    for pending in [20, 200, 2_000, 20_000] {
        let mut list = EventList::new(pending as usize, HORIZON_PS);
        let calendar = hold_ns(
            pending,
            &mut list,
            |list, entry| list.insert(entry.id, entry.at_ps),
            |list| {
                list.next_at_ps();
                list.pop()
            },
        );
        let heap = hold_ns(pending, &mut Heap::default(), Heap::push, Heap::pop);
        let push = |heap: &mut BinaryHeap<_>, entry: Entry| heap.push(Reverse(entry));
        let pop = |heap: &mut BinaryHeap<Reverse<Entry>>| heap.pop().map(|Reverse(entry)| entry);
        let standard = hold_ns(pending, &mut BinaryHeap::new(), push, pop);
        println!(
            "{:<34} {calendar:>10.1} {heap:>10.1} {standard:>10.1}",
            format!("  {pending} pending")
        );
    }
    println!();
}

fn hold_ns<L>(pending: u32, list: &mut L, push: impl Fn(&mut L, Entry), pop: impl Fn(&mut L) -> Option<Entry>) -> f64 {
    let mut random = 1u64;
    let mut delay_ps = |id: u32| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let jitter_ps = random >> 44;
        jitter_ps + if id.is_multiple_of(2) { WIRE_PS } else { CABLE_PS }
    };
    for id in 0..pending {
        push(
            list,
            Entry {
                at_ps: delay_ps(id),
                id,
            },
        );
    }
    const HOLDS_COUNT: u32 = 1_000_000;
    let mut hold = |holds_count: u32| {
        for _ in 0..holds_count {
            let Some(entry) = pop(list) else { return };
            let at_ps = entry.at_ps + delay_ps(entry.id);
            push(list, black_box(Entry { at_ps, id: entry.id }));
        }
    };
    hold(HOLDS_COUNT);
    let begin = cpu_sec();
    hold(HOLDS_COUNT);
    Duration::from_secs_f64(cpu_sec() - begin).as_nanos() as f64 / f64::from(HOLDS_COUNT)
}
