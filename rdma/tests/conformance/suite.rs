//! Running the cases. Also included by `tests/tests/rdma_over_af_xdp.rs`, whose provider stands above this crate.

use std::{panic, time::Duration};

use rdma::{Device, Faulty, QpOptions, Wire, system_randomness};

use crate::{
    cases::{self, Needs},
    pair::{Pair, Testable},
};

/// Fewer would not be a suite.
const CASES_COUNT_MIN: usize = 60;

/// Who runs the suite over a wire that loses packets by itself (`scripts/rxe verbs`) says so by this variable. A case whose refusal it loses
/// is then run again, so often at most.
const LOSSY_WIRE: &str = "DPLAB_LOSSY_WIRE";
const LOST_REFUSALS_MAX: u32 = 4;

/// Does the wire lose packets that nobody here has told it to lose?
pub fn is_wire_lossy() -> bool {
    std::env::var_os(LOSSY_WIRE).is_some()
}

/// Runs every case between two new devices; tells all that failed, not only the first.
pub fn conform<P: Testable + 'static>(options: QpOptions, open: impl Fn() -> (P, P)) {
    let cases = cases::all::<P>(options);
    let mut failed = Vec::new();
    let (mut skipped_count, mut lost_refusals_count) = (0, 0);
    let lost_refusals_max = if is_wire_lossy() { LOST_REFUSALS_MAX } else { 0 };
    let offers = {
        let (a, b) = open();
        match (a.is_software(), b.is_software()) {
            (true, true) => Needs::BothEnds,
            (false, false) => Needs::Any,
            _ => Needs::OneEnd,
        }
    };
    for case in &cases {
        if case.needs > offers {
            eprintln!(
                "skipped: {}: only packets of this crate's can be made to fail",
                case.name
            );
            skipped_count += 1;
            continue;
        }
        // One case alone, to look at: a part of its name.
        if std::env::var("DPLAB_CASE").is_ok_and(|part| !case.name.contains(&part)) {
            continue;
        }
        let mut again_count = 0;
        loop {
            let mut made = None;
            let run = || {
                let pair = made.insert(Pair::new(open(), case.options));
                for end in [&mut pair.a, &mut pair.b] {
                    end.device.set_faults(case.faults);
                }
                (case.run)(pair);
            };
            if panic::catch_unwind(panic::AssertUnwindSafe(run)).is_ok() {
                break;
            }
            if again_count == lost_refusals_max || !made.is_some_and(|pair| pair.may_have_lost_a_refusal()) {
                eprintln!("failed: {}", case.name);
                failed.push(case.name.as_str());
                break;
            }
            eprintln!("again: {}: the wire lost what is said once", case.name);
            again_count += 1;
        }
        lost_refusals_count += again_count;
    }
    let run_count = cases.len() - skipped_count;
    assert!(run_count >= CASES_COUNT_MIN, "only {run_count} cases");
    eprintln!(
        "{run_count} cases, {skipped_count} skipped, {} failed, {lost_refusals_count} times a refusal was lost and the case run again",
        failed.len()
    );
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

/// Over the system's clock. Two ends in one thread answer each other at once, however late the thread gets its turn, so a
/// timeout this short is seldom one of a busy machine.
pub fn real() -> QpOptions {
    QpOptions {
        timeout: Duration::from_millis(5),
        retries_max: 20,
        rnr_timer: 1,
        ..QpOptions::default()
    }
}

pub fn device<W: Wire>(wire: W) -> Device<Faulty<W>> {
    let random = system_randomness().expect("the system has randomness");
    Device::new(Faulty::new(wire, Default::default()), random)
}
