//! Any bytes as what a replica's log gives back: its state, its snapshot (members, sessions, store) and an entry. It refuses
//! them or recovers, and then runs.
#![no_main]

use dataplane_quorum::Replica;
use dataplane_waist::{Input, Instant, Log, MemoryLog, Protocol, Slot, Snapshot, Tail, Term};
use libfuzzer_sys::fuzz_target;
use tests_fuzz::replicas::{config, store};

const STATE_BYTES: usize = 32;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[flags, entry_len], rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let (state, rest) = rest.split_at(rest.len().min(STATE_BYTES));
    let (entry, image) = rest.split_at(rest.len().min(entry_len.into()));
    let mut log = MemoryLog::new();
    if flags & 1 != 0 {
        log.set_state(state).expect("it is short enough");
    }
    let mut end = 0;
    if flags & 2 != 0 {
        end = u64::from(flags);
        let snapshot = Snapshot {
            end: Slot(end),
            last_term: Term(1),
            tail: Tail::Drop,
            bytes: image.into(),
        };
        log.install(&snapshot).expect("the log is empty");
    }
    if flags & 4 != 0 {
        log.append(Slot(end), Term(2), entry).expect("it is the next");
    }
    let Ok(mut replica) = Replica::recover(config(), store(), &mut log) else {
        return;
    };
    let mut out = replica.effects(1);
    for time_ms in [0, 200, 400, 800] {
        out.clear();
        replica.handle(Instant::from_ns(time_ms * 1_000_000), Input::Tick, &mut out);
    }
});
