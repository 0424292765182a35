//! What an agent tells is checked before it is added up or printed: it is known, and may be broken all the same.

use std::collections::BTreeMap;

use anyhow::ensure;

use super::channel::harmless;
use crate::{account::Counters, server::ServerReport};

/// Names of one message at most: a kernel has some hundred counters of the groups that are read.
const NAMES_COUNT_MAX: usize = 512;
/// Reasons of one report at most: there are some ten of frames, and as many of a program's.
const REASONS_COUNT_MAX: usize = 32;
/// The longest name, with much to spare.
const NAME_BYTES_MAX: usize = 64;
/// Frames that a counter may have seen: fifteen years of 148.8 M a second, which is what 100 Gbit/s carries of the smallest
/// (IEEE 802.3: 84 bytes each on the wire). The sum of a hundred of them still fits 64 bits with a sign.
const FRAMES_COUNT_MAX: u64 = 1 << 56;
/// How badly a server may know its own clocks, in nanoseconds: what it says is room for stamps out of order. Thirty-two readings
/// bracket them within a microsecond, and one that was preempted each time within a time slice.
const CLOCK_ERROR_NS_MAX: u64 = 10_000_000;

/// Counters of a kernel.
///
/// # Errors
/// A name or a number that is out of bounds, and which.
pub(super) fn check_counters(counters: &Counters) -> anyhow::Result<()> {
    check_counts(counters.all(), NAMES_COUNT_MAX)
}

/// What a server or a sink has counted.
///
/// # Errors
/// As [`check_counters`].
pub(super) fn check_report(report: &ServerReport) -> anyhow::Result<()> {
    check_count("rx_frames_count", report.rx_frames_count)?;
    check_count("rx_dropped_count", report.rx_dropped_count)?;
    check_count("tx_dropped_count", report.tx_dropped_count)?;
    check_counts(&report.rejects, REASONS_COUNT_MAX)?;
    if let Some(clocks) = report.stamps {
        ensure!(
            clocks.error_ns <= CLOCK_ERROR_NS_MAX,
            "its server knows its own clocks within {} ns only, and no stage can be told so; is its machine overloaded?",
            clocks.error_ns
        );
    }
    let Some(sink) = &report.sink else {
        return Ok(());
    };
    for (name, count) in [
        ("received_count", sink.received_count),
        ("duplicate_count", sink.duplicate_count),
        ("reordered_count", sink.reordered_count),
        ("rx_dropped_count", sink.rx_dropped_count),
        ("rx_no_buffer_count", sink.rx_no_buffer_count),
        ("strangers_count", sink.strangers_count),
        ("malformed_count", sink.malformed_count),
        ("busy.frames_count", sink.busy.map_or(0, |busy| busy.frames_count)),
    ] {
        check_count(name, count)?;
    }
    check_counts(&sink.rejects, REASONS_COUNT_MAX)
}

fn check_counts(counts: &BTreeMap<String, u64>, names_count_max: usize) -> anyhow::Result<()> {
    ensure!(
        counts.len() <= names_count_max,
        "it told {} counts; at most {names_count_max} are taken",
        counts.len()
    );
    for (name, count) in counts {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        ensure!(
            name.len() <= NAME_BYTES_MAX && name.chars().all(is_plain),
            "it told a count that is called {:?}; is this another program?",
            harmless(name.as_bytes())
        );
        check_count(name, *count)?;
    }
    Ok(())
}

fn check_count(name: &str, count: u64) -> anyhow::Result<()> {
    ensure!(
        count <= FRAMES_COUNT_MAX,
        "it told {count} of {name}, more frames than a wire carries in years; is its machine all right?"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        account::{Account, Between, Counted, Intake, TxDrop},
        server::StampClocks,
        sink::{Busy, SinkReport},
    };

    #[test]
    fn this_machines_own_counters_are_taken() {
        check_counters(&Counters::read("lo")).expect("a kernel's");
        check_report(&ServerReport::default()).expect("nothing came");
    }

    #[test]
    fn names_numbers_and_how_many_there_are_have_bounds() {
        let said = |counters: &[(&str, u64)]| {
            check_counters(&Counters::of(counters))
                .expect_err("refused")
                .to_string()
        };
        assert!(said(&[("a\u{1b}[2J", 1)]).contains("another program"));
        assert!(!said(&[("a\u{1b}[2J", 1)]).contains('\u{1b}'));
        assert!(said(&[(&"a".repeat(65), 1)]).contains("another program"));
        assert!(said(&[("interface.rx_dropped", u64::MAX)]).contains("interface.rx_dropped"));
        let many: BTreeMap<String, u64> = (0..513).map(|index| (format!("c{index}"), 1)).collect();
        let refused = check_counts(&many, NAMES_COUNT_MAX).expect_err("refused").to_string();
        assert!(refused.contains("513"), "{refused}");

        let clocks = |error_ns| ServerReport {
            stamps: Some(StampClocks {
                error_ns,
                step_ns: None,
            }),
            ..ServerReport::default()
        };
        check_report(&clocks(300)).expect("a good clock");
        let refused = check_report(&clocks(u64::MAX)).expect_err("refused").to_string();
        assert!(refused.contains("its own clocks"), "{refused}");

        let report = |change: fn(&mut SinkReport)| {
            let mut sink = SinkReport::default();
            change(&mut sink);
            let sink = Some(sink);
            check_report(&ServerReport {
                sink,
                ..ServerReport::default()
            })
            .expect_err("refused")
            .to_string()
        };
        assert!(report(|sink| sink.received_count = u64::MAX).contains("received_count"));
        assert!(report(|sink| sink.malformed_count = u64::MAX).contains("malformed_count"));
        assert!(report(|sink| sink.rejects = BTreeMap::from([("\n".to_owned(), 1)])).contains("another program"));
        assert!(
            report(|sink| {
                sink.busy = Some(Busy {
                    frames_count: u64::MAX,
                    cpu_ns: 1,
                    elapsed_ns: 1,
                });
            })
            .contains("busy")
        );
    }

    proptest! {
        #[test]
        fn whatever_is_taken_can_be_added_up(
            counts in prop::collection::vec(prop_oneof![Just(FRAMES_COUNT_MAX), 0..FRAMES_COUNT_MAX, 0..100u64], 13),
            are_veths in any::<bool>(),
        ) {
            let names = [
                "interface.tx_dropped", "interface.rx_dropped", "interface.rx_errors", "interface.tx_packets",
                "interface.rx_packets", "Udp.NoPorts", "Udp6NoPorts", "Udp.InErrors", "Ip.InDiscards", "Ip6InDiscards",
            ];
            let pairs: Vec<(&str, u64)> = names.into_iter().zip(counts.iter().copied()).collect();
            let counters = Counters::of(&pairs);
            let rejects = (0..REASONS_COUNT_MAX).map(|index| (format!("r{index}"), counts[index % counts.len()]));
            let sink = SinkReport {
                received_count: counts[10],
                rx_dropped_count: counts[11],
                rx_no_buffer_count: counts[12],
                rejects: rejects.collect(),
                ..SinkReport::default()
            };
            let report = ServerReport { sink: Some(sink.clone()), ..ServerReport::default() };
            check_counters(&counters).expect("within bounds");
            check_report(&report).expect("within bounds");
            for intake in [Intake::Socket, Intake::Ring, Intake::Xsk, Intake::Program] {
                let account = Account::of(&Counted {
                    offered_count: 100,
                    tx_dropped_count: 0,
                    tx_drop: TxDrop::Lost,
                    sender: &counters,
                    at_sink: &counters,
                    between: Between::Machines { are_veths },
                    intake,
                    sink: &sink,
                });
                prop_assert_eq!(
                    account.unexplained_count(),
                    100 - account.received_count as i64 - account.lost_count() as i64
                );
            }
        }
    }
}
