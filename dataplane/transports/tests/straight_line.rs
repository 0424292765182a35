//! A flow without trouble: everything arrives once and in order, as fast as the path allows; and what a flow costs.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use dataplane_transports::{
    AnyController, ControllerKind, EcnMode, Receiver, ReceiverOptions, Sender, SenderOptions,
    controllers::{Swift, SwiftOptions},
};
use support::{MS, Path, PathOptions, SEC};

#[test]
fn every_controller_fills_a_clean_path() {
    for &kind in ControllerKind::ALL {
        for (sender, receiver) in [
            (SenderOptions::default(), ReceiverOptions::default()),
            (SenderOptions::linux_2008(), ReceiverOptions::linux_2008()),
            (SenderOptions::linux_2026(), ReceiverOptions::linux_2026()),
        ] {
            let mut path = Path::new(PathOptions::default());
            let sender = SenderOptions {
                ecn: EcnMode::Dctcp,
                ..sender
            };
            let receiver = ReceiverOptions {
                ecn: EcnMode::Dctcp,
                ..receiver
            };
            let controller = match kind {
                // Its target has to be above the path's delay.
                ControllerKind::Swift => {
                    let options = SwiftOptions {
                        base_target: Duration::from_millis(15),
                        ..SwiftOptions::default()
                    };
                    Swift::new(sender.mss_bytes, sender.initial_window_bytes(), options).into()
                }
                _ => kind.build(&sender),
            };
            let flow = path.add(&sender, &receiver, controller);
            // 10 MB at 100 Mbit/s: 0.8 s, and some round trips to begin.
            path.write(flow, 10_000_000);
            let done_ns = path
                .run_to_the_end(5 * SEC)
                .unwrap_or_else(|| panic!("{kind} does not end"));
            // Swift has no slow start.
            let most_ns = if kind == ControllerKind::Swift {
                2 * SEC
            } else {
                1200 * MS
            };
            assert!((800 * MS..most_ns).contains(&done_ns), "{kind}: {done_ns} ns");
            assert_eq!(path.flows[flow].receiver.received_bytes(), 10_000_000);
            let stats = path.flows[flow].sender.stats();
            assert_eq!(
                (stats.retransmissions_count, stats.timeouts_count),
                (0, 0),
                "{kind}: {stats:?}"
            );
        }
    }
}

/// The bound of ten thousand flows on a laptop.
#[test]
fn an_idle_flow_is_at_most_a_kilobyte_and_has_no_heap() {
    let size_bytes = size_of::<Sender<AnyController>>() + size_of::<Receiver>();
    assert!(size_bytes <= 1024, "{size_bytes} bytes");

    let mut path = Path::new(PathOptions::default());
    let options = SenderOptions::linux_2026();
    let flow = path.add(
        &options,
        &ReceiverOptions::linux_2026(),
        ControllerKind::NewReno.build(&options),
    );
    path.fate = Box::new(|_, number, _| {
        if number == 7 {
            support::Fate::Drop
        } else {
            support::Fate::Pass
        }
    });
    path.write(flow, 100_000);
    assert!(path.flows[flow].sender.heap_bytes() > 0);
    path.run_to_the_end(SEC).expect("it ends");
    assert_eq!(
        (
            path.flows[flow].sender.heap_bytes(),
            path.flows[flow].receiver.heap_bytes()
        ),
        (0, 0)
    );
}
