//! What each switch of the sender and the receiver changes, by losses, reordering and delays placed by hand.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use dataplane_transports::{
    AnyController, ControllerKind, EcnMode, Pacing, Phase, Receiver, ReceiverOptions, RecoveryTimer, Segment, Sender,
    SenderOptions, Unproven,
    controllers::{Bbr1, Bbr1Options},
};
use dataplane_waist::Instant;
use support::{Fate, MS, Path, PathOptions, SEC, US};

const MSS: u64 = 1448;

fn path(options: &SenderOptions, receiver: &ReceiverOptions) -> Path<AnyController> {
    let mut path = Path::new(PathOptions {
        bits_per_sec: 1_000_000_000,
        rtt_ns: 10 * MS,
        ..PathOptions::default()
    });
    path.add(options, receiver, ControllerKind::NewReno.build(options));
    path
}

/// Loses the given transmissions.
fn lose<const N: usize>(path: &mut Path<AnyController>, numbers: [u64; N]) {
    path.fate = Box::new(move |_, number, _| {
        if numbers.contains(&number) {
            Fate::Drop
        } else {
            Fate::Pass
        }
    });
}

/// A transfer of `segments` that loses the given transmissions: when it was done, and its sender.
fn transfer<const N: usize>(
    options: &SenderOptions,
    segments: u64,
    lost: [u64; N],
) -> (u64, dataplane_transports::SenderStats) {
    let receiver = ReceiverOptions {
        sack: options.sack,
        ..ReceiverOptions::default()
    };
    let mut path = path(options, &receiver);
    lose(&mut path, lost);
    path.write(0, segments * MSS);
    let done_ns = path.run_to_the_end(1_000 * SEC).expect("it ends");
    (done_ns, *path.flows[0].sender.stats())
}

fn exact(options: SenderOptions) -> SenderOptions {
    SenderOptions {
        timer_tick: Duration::ZERO,
        ..options
    }
}

#[test]
fn a_lost_tail_waits_for_the_rto_without_tlp_and_for_two_round_trips_with_it() {
    let with = exact(SenderOptions::linux_2026());
    let without = SenderOptions { tlp: false, ..with };
    // The first 20 teach the round trip; the last two of 30 are lost. (For a lone one the probe waits for a delayed ack, too.)
    let (with_ns, stats) = transfer(&with, 30, [28, 29]);
    assert_eq!((stats.probes_count, stats.timeouts_count), (1, 0), "{stats:?}");
    assert!(with_ns < 100 * MS, "{with_ns}");
    let (without_ns, stats) = transfer(&without, 30, [28, 29]);
    assert_eq!((stats.probes_count, stats.timeouts_count), (0, 1), "{stats:?}");
    // RTO: 10 ms of round trip and 200 of floor.
    assert!((200 * MS..300 * MS).contains(&without_ns), "{without_ns}");
}

#[test]
fn a_probe_that_repairs_a_loss_costs_window_and_one_that_does_not_is_free() {
    // The probe of a lone segment does not wait for a delayed ack here.
    let options = SenderOptions {
        ack_delay_max: Duration::ZERO,
        ..exact(SenderOptions::linux_2026())
    };
    let window_after = |is_data_lost: bool| {
        let mut path = path(&options, &ReceiverOptions::default());
        // Either the last segment is lost, or only its ack.
        path.fate = Box::new(move |_, number, _| {
            if is_data_lost && number == 29 {
                Fate::Drop
            } else {
                Fate::Pass
            }
        });
        path.ack_fate = Box::new(move |_, number, _| {
            if !is_data_lost && number == 29 {
                Fate::Drop
            } else {
                Fate::Pass
            }
        });
        path.write(0, 30 * MSS);
        path.run_until(80 * MS);
        let before = path.flows[0].sender.window_bytes();
        // More data acknowledges what lies behind the probe.
        path.write(0, 2 * MSS);
        path.run_to_the_end(SEC).expect("it ends");
        assert_eq!(path.flows[0].sender.stats().probes_count, 1);
        (before, path.flows[0].sender.window_bytes())
    };
    let (before, after) = window_after(true);
    assert!(after < before, "{after} of {before}");
    let (before, after) = window_after(false);
    assert!(after >= before, "{after} of {before}");
}

#[test]
fn reordering_is_no_loss_with_rack_and_one_without() {
    let run = |rack| {
        let options = SenderOptions {
            rack,
            tlp: false,
            prr: false,
            ..exact(SenderOptions::linux_2026())
        };
        let mut path = path(&options, &ReceiverOptions::default());
        // Every 50th segment is overtaken by some ten others: a millisecond, a tenth of the round trip.
        path.fate = Box::new(|_, number, _| if number % 50 == 49 { Fate::Late(MS) } else { Fate::Pass });
        path.write(0, 5_000 * MSS);
        path.run_to_the_end(10 * SEC).expect("it ends");
        *path.flows[0].sender.stats()
    };
    let (with, without) = (run(true), run(false));
    // RACK's window opens once it has seen reordering: at most the first times cost something.
    assert!(with.retransmissions_count <= 3, "{with:?}");
    assert!(without.retransmissions_count > 50, "{without:?}");
}

#[test]
fn rack_sees_a_lost_retransmission_and_three_duplicate_acks_do_not() {
    // Segment 20 is lost, and its retransmission is the first transmission above 20 that is one.
    let run = |rack| {
        let options = SenderOptions {
            rack,
            tlp: false,
            ..exact(SenderOptions::linux_2026())
        };
        let mut path = path(&options, &ReceiverOptions::default());
        let mut losses_count = 0;
        path.fate = Box::new(move |_, _, segment| {
            let is_it = segment.seq == 20 * MSS && losses_count < 2;
            losses_count += u32::from(is_it);
            if is_it { Fate::Drop } else { Fate::Pass }
        });
        path.write(0, 200 * MSS);
        path.run_to_the_end(10 * SEC).expect("it ends");
        *path.flows[0].sender.stats()
    };
    assert_eq!(run(true).timeouts_count, 0);
    assert_eq!(run(false).timeouts_count, 1);
}

#[test]
fn many_losses_in_a_window_take_one_round_trip_with_sack_and_one_each_without() {
    let run = |sack| {
        let options = SenderOptions {
            sack,
            ..SenderOptions::default()
        };
        let mut path = path(
            &options,
            &ReceiverOptions {
                sack,
                ..ReceiverOptions::default()
            },
        );
        lose(&mut path, [30, 32, 34, 36, 38, 40]);
        path.write(0, 200 * MSS);
        path.run_to_the_end(10 * SEC).expect("it ends");
        let stats = path.flows[0].sender.stats();
        assert_eq!(
            (stats.recoveries_count, stats.timeouts_count),
            (1, 0),
            "sack {sack}: {stats:?}"
        );
        let resent = path.trace.iter().filter(|(_, _, segment)| segment.is_retransmission);
        let resent_ns: Vec<_> = resent.map(|&(at, ..)| at).collect();
        assert_eq!(resent_ns.len(), 6);
        resent_ns[5] - resent_ns[0]
    };
    let (with_ns, without_ns) = (run(true), run(false));
    assert!(with_ns < 11 * MS, "{with_ns}");
    assert!((50 * MS..60 * MS).contains(&without_ns), "{without_ns}");
}

/// The path stands still for longer than the RTO: nothing is lost, everything is late.
fn stall(options: &SenderOptions) -> (u64, dataplane_transports::SenderStats) {
    let mut path = path(
        options,
        &ReceiverOptions {
            sack: options.sack,
            ..ReceiverOptions::default()
        },
    );
    path.fate = Box::new(|_, number, _| {
        if (30..300).contains(&number) {
            Fate::Until(600 * MS)
        } else {
            Fate::Pass
        }
    });
    path.write(0, 400 * MSS);
    let mut least = u64::MAX;
    for _ in 0..300 {
        path.run_until(path.now_ns + 10 * MS);
        least = if path.flows[0].sender.phase() == Phase::Open {
            path.flows[0].sender.window_bytes()
        } else {
            least
        };
    }
    (least, *path.flows[0].sender.stats())
}

#[test]
fn a_spurious_timeout_is_undone_with_frto_and_costs_the_window_without() {
    for sack in [true, false] {
        let base = SenderOptions {
            sack,
            timestamps: false,
            tlp: false,
            idle_restart: false,
            rto_min: Duration::from_millis(200),
            ..exact(SenderOptions::linux_2026())
        };
        let (with_bytes, with) = stall(&SenderOptions { frto: true, ..base });
        let (without_bytes, without) = stall(&SenderOptions { frto: false, ..base });
        assert!(with.timeouts_count > 0 && without.timeouts_count > 0);
        assert_eq!(
            (with.undone_count > 0, with.retransmissions_count < 5),
            (true, true),
            "sack {sack}: {with:?}"
        );
        assert!(without.retransmissions_count > 20, "sack {sack}: {without:?}");
        assert!(
            with_bytes > without_bytes,
            "sack {sack}: {with_bytes} with F-RTO, {without_bytes} without"
        );
    }
}

#[test]
fn a_timestamp_tells_a_spurious_timeout_at_the_first_ack() {
    let base = SenderOptions {
        frto: false,
        tlp: false,
        idle_restart: false,
        ..exact(SenderOptions::linux_2026())
    };
    let (_, with) = stall(&SenderOptions {
        timestamps: true,
        ..base
    });
    assert_eq!(with.undone_count, 1, "{with:?}");
    assert!(with.retransmissions_count < 5, "{with:?}");
}

#[test]
fn the_rto_doubles_and_no_ack_of_a_retransmission_teaches_a_round_trip() {
    let options = SenderOptions {
        rto_min: Duration::from_millis(50),
        ..SenderOptions::default()
    };
    let mut path = path(&options, &ReceiverOptions::default());
    // Segment 20 and everything after it is lost until its fifth transmission.
    let mut sent_count = 0;
    path.fate = Box::new(move |_, _, segment| {
        sent_count += u32::from(segment.seq == 20 * MSS);
        if segment.seq >= 20 * MSS && sent_count < 5 {
            Fate::Drop
        } else {
            Fate::Pass
        }
    });
    path.write(0, 21 * MSS);
    path.run_to_the_end(100 * SEC).expect("it ends");
    let sent_ns: Vec<_> = path
        .trace
        .iter()
        .filter(|(_, _, segment)| segment.seq == 20 * MSS)
        .map(|&(at, ..)| at)
        .collect();
    let gaps: Vec<_> = sent_ns.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The first runs from the last ack before it; then 2, 4, 8 times the RTO of 50 ms.
    assert_eq!(&gaps[1..], [100 * MS, 200 * MS, 400 * MS], "{gaps:?}");
    // Karn: the ack of the fifth copy came 10 ms after it and 750 after the first; neither is taken.
    let srtt_ns = path.flows[0].sender.srtt_ns();
    assert!((10 * MS..11 * MS).contains(&srtt_ns), "{srtt_ns}");
    // And the back-off lasts until a sample (RFC 6298 §5).
    assert_eq!(path.flows[0].sender.rto_ns(), 800 * MS);
    path.write(0, MSS);
    path.run_to_the_end(200 * SEC).expect("it ends");
    assert_eq!(path.flows[0].sender.rto_ns(), 50 * MS);
}

#[test]
fn timers_of_a_host_with_ticks_fire_at_them() {
    let options = SenderOptions {
        timer_tick: Duration::from_millis(4),
        timer_tick_phase: Duration::from_millis(1),
        tlp: false,
        ..SenderOptions::linux_2026()
    };
    let mut path = path(&options, &ReceiverOptions::default());
    lose(&mut path, [29]);
    path.write(0, 30 * MSS);
    path.run_to_the_end(SEC).expect("it ends");
    let resent_ns = path
        .trace
        .iter()
        .find(|(_, _, segment)| segment.is_retransmission)
        .expect("one was lost")
        .0;
    assert_eq!(resent_ns % (4 * MS), MS, "{resent_ns}");
}

#[test]
fn a_randomised_rto_lies_between_once_and_one_and_a_half_times() {
    let resent_ns = |seed| {
        let options = SenderOptions {
            rto_randomised: true,
            seed,
            ..SenderOptions::default()
        };
        let mut path = path(&options, &ReceiverOptions::default());
        lose(&mut path, [0]);
        path.write(0, MSS);
        path.run_to_the_end(100 * SEC).expect("it ends");
        path.trace[1].0
    };
    let seen_ns: Vec<_> = (0..64).map(resent_ns).collect();
    assert!(seen_ns.iter().all(|ns| (SEC..=3 * SEC / 2).contains(ns)), "{seen_ns:?}");
    let spread_ns = seen_ns.iter().max().expect("64") - seen_ns.iter().min().expect("64");
    assert!(spread_ns > 400 * MS, "{spread_ns}");
    assert_eq!(resent_ns(7), resent_ns(7));
}

#[test]
fn limited_transmit_lets_a_small_window_find_a_loss_by_acks() {
    let run = |limited_transmit| {
        let options = SenderOptions {
            initial_window_segments: 3,
            limited_transmit,
            sack: false,
            ..SenderOptions::default()
        };
        transfer(&options, 8, [0]).1
    };
    // Two duplicate acks come by themselves; the third only of a segment that one of them let go (RFC 3042).
    assert_eq!(run(true).timeouts_count, 0);
    assert_eq!(run(false).timeouts_count, 1);
}

#[test]
fn the_initial_window_leaves_at_once_or_paced() {
    let sent_at_once = |options: &SenderOptions| {
        let mut sender = Sender::new(options, ControllerKind::NewReno.build(options));
        sender.write(1_000_000);
        std::iter::from_fn(|| sender.poll_transmit(Instant::ZERO)).count()
    };
    assert_eq!(sent_at_once(&SenderOptions::linux_2008()), 3);
    assert_eq!(sent_at_once(&SenderOptions::linux_2026()), 10);

    // Paced, no gap but the first window's is shorter than 1/2.2 of a segment's share of the round trip.
    let options = SenderOptions {
        pacing: Pacing::Window,
        ..SenderOptions::default()
    };
    let mut path = path(&options, &ReceiverOptions::default());
    path.write(0, 60 * MSS);
    path.run_to_the_end(SEC).expect("it ends");
    let second_window: Vec<_> = path.trace[12..20].iter().map(|&(at, ..)| at).collect();
    assert!(
        second_window.windows(2).all(|pair| pair[1] - pair[0] > 200 * US),
        "{second_window:?}"
    );
}

/// Linux hands BBR's segments to the card in packets of a millisecond, and pauses for all of such a packet after it.
#[test]
fn bbr_sends_bursts_of_a_millisecond_or_single_segments() {
    let largest_burst = |sends_bursts: bool| {
        let sender = SenderOptions::default();
        let options = Bbr1Options {
            sends_bursts,
            ..Bbr1Options::default()
        };
        let mut path = Path::<AnyController>::new(PathOptions {
            bits_per_sec: 100_000_000,
            rtt_ns: 20 * MS,
            ..PathOptions::default()
        });
        let bbr = Bbr1::new(sender.mss_bytes, sender.initial_window_bytes(), 1, options);
        path.add(&sender, &ReceiverOptions::default(), bbr.into());
        path.write(0, 1 << 40);
        path.run_until(2 * SEC);
        let late: Vec<u64> = path.trace.iter().map(|&(at, ..)| at).filter(|at| *at > SEC).collect();
        let bursts = late.chunk_by(|a, b| a == b).map(<[u64]>::len);
        bursts.max().expect("it sends")
    };
    assert_eq!(largest_burst(false), 1);
    // 12.2 KB in 2^-10 s at 100 Mbit/s, and ten when it probes for more.
    assert!((8..=10).contains(&largest_burst(true)), "{}", largest_burst(true));
}

#[test]
fn prr_spreads_the_reduction_over_a_round_trip() {
    let longest_silence_ns = |prr| {
        let options = SenderOptions {
            prr,
            initial_window_segments: 100,
            ..SenderOptions::default()
        };
        let mut path = Path::new(PathOptions {
            bits_per_sec: 100_000_000,
            rtt_ns: 5 * MS,
            ..PathOptions::default()
        });
        path.add(
            &options,
            &ReceiverOptions::default(),
            ControllerKind::NewReno.build(&options),
        );
        path.fate = Box::new(|_, number, _| if number == 150 { Fate::Drop } else { Fate::Pass });
        path.write(0, 800 * MSS);
        path.run_to_the_end(10 * SEC).expect("it ends");
        let resent = path
            .trace
            .iter()
            .position(|(_, _, segment)| segment.is_retransmission)
            .expect("one was lost");
        let sent_ns: Vec<_> = path.trace[resent..resent + 40].iter().map(|&(at, ..)| at).collect();
        sent_ns
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .expect("some were sent")
    };
    let (with_ns, without_ns) = (longest_silence_ns(true), longest_silence_ns(false));
    // A segment takes 116 µs on the link: with PRR one leaves for every other ack.
    assert!(with_ns < 500 * US, "{with_ns}");
    assert!(without_ns > 5 * with_ns, "{with_ns} with PRR, {without_ns} without");
}

#[test]
fn after_idling_the_window_is_the_initial_one_again() {
    let window_after_idling = |idle_restart| {
        let options = SenderOptions {
            idle_restart,
            ..exact(SenderOptions::linux_2026())
        };
        let mut path = path(&options, &ReceiverOptions::default());
        path.write(0, 500 * MSS);
        path.run_until(5 * SEC);
        path.write(0, 500 * MSS);
        path.trace.iter().filter(|&&(at, ..)| at == 5 * SEC).count()
    };
    assert_eq!(window_after_idling(true), 10);
    assert!(window_after_idling(false) > 100);
}

fn data(seq: u64, len_bytes: u32) -> Segment {
    Segment {
        seq,
        len_bytes,
        ..Segment::default()
    }
}

#[test]
fn acks_are_delayed_for_a_second_segment_or_a_time() {
    let options = ReceiverOptions {
        mss_bytes: 1000,
        ack_delay: Duration::from_millis(40),
        ..ReceiverOptions::default()
    };
    let mut receiver = Receiver::new(&options);
    receiver.on_segment(Instant::from_ns(MS), &data(0, 1000), false);
    assert_eq!(receiver.poll_transmit(Instant::from_ns(MS)), None);
    assert_eq!(receiver.wake_at(), Some(Instant::from_ns(41 * MS)));
    receiver.on_segment(Instant::from_ns(2 * MS), &data(1000, 1000), false);
    assert_eq!(
        receiver.poll_transmit(Instant::from_ns(2 * MS)).map(|ack| ack.ack),
        Some(2000)
    );
    assert_eq!(receiver.wake_at(), None);
    receiver.on_segment(Instant::from_ns(3 * MS), &data(2000, 1000), false);
    receiver.on_wake(Instant::from_ns(43 * MS));
    assert_eq!(
        receiver.poll_transmit(Instant::from_ns(43 * MS)).map(|ack| ack.ack),
        Some(3000)
    );
    // What leaves a hole is acknowledged at once, with SACK.
    receiver.on_segment(Instant::from_ns(50 * MS), &data(4000, 1000), false);
    let ack = receiver
        .poll_transmit(Instant::from_ns(50 * MS))
        .expect("a duplicate ack");
    assert_eq!(
        ack.sack_blocks()
            .map(|block| (block.start, block.end))
            .collect::<Vec<_>>(),
        [(4000, 5000)]
    );
    // And what came twice is told (RFC 2883).
    receiver.on_segment(Instant::from_ns(51 * MS), &data(1000, 1000), false);
    let ack = receiver
        .poll_transmit(Instant::from_ns(51 * MS))
        .expect("a duplicate ack");
    assert_eq!(
        ack.sack_blocks()
            .map(|block| (block.start, block.end))
            .collect::<Vec<_>>(),
        [(1000, 2000), (4000, 5000)]
    );
}

/// RFC 8257 §3.2, figure 1: a change of the mark sends what is owed with the old one, so that every byte's mark is known.
#[test]
fn dctcp_echoes_exactly_which_bytes_were_marked() {
    let options = ReceiverOptions {
        mss_bytes: 1000,
        ack_delay: Duration::from_millis(40),
        ecn: EcnMode::Dctcp,
        ..ReceiverOptions::default()
    };
    let mut receiver = Receiver::new(&options);
    let marks = [false, false, false, true, true, false, true, true, true, false, false];
    let mut acks = Vec::new();
    for (index, &ce) in marks.iter().enumerate() {
        let now = Instant::from_ns(index as u64);
        receiver.on_segment(now, &data(1000 * index as u64, 1000), ce);
        acks.extend(std::iter::from_fn(|| receiver.poll_transmit(now)));
    }
    receiver.on_wake(Instant::from_ns(SEC));
    acks.extend(receiver.poll_transmit(Instant::from_ns(SEC)));
    let mut echoed = Vec::new();
    for ack in &acks {
        while (echoed.len() as u64) * 1000 < ack.ack {
            echoed.push(ack.ece);
        }
    }
    assert_eq!(echoed, marks);
    assert!(acks.len() < marks.len(), "{} acks", acks.len());
}

#[test]
fn classic_ecn_echoes_until_the_sender_says_that_it_reacted() {
    let options = SenderOptions {
        ecn: EcnMode::Classic,
        ..SenderOptions::default()
    };
    let receiver = ReceiverOptions {
        ecn: EcnMode::Classic,
        ..ReceiverOptions::default()
    };
    let mut path = Path::new(PathOptions {
        bits_per_sec: 1_000_000_000,
        rtt_ns: 5 * MS,
        mark_above_bytes: 50 * MSS,
        ..PathOptions::default()
    });
    path.add(&options, &receiver, ControllerKind::NewReno.build(&options));
    path.write(0, 20_000 * MSS);
    path.run_to_the_end(10 * SEC).expect("it ends");
    let flow = &path.flows[0];
    let (stats, marked_count) = (flow.sender.stats(), flow.receiver.stats().marked_count);
    let cwr_count = path.trace.iter().filter(|(_, _, segment)| segment.cwr).count();
    assert!(
        stats.ecn_reductions_count >= 1 && marked_count > stats.ecn_reductions_count,
        "{stats:?}"
    );
    // The sawtooth: no reduction follows another within a round trip, so marks far outnumber them.
    assert_eq!(cwr_count as u32, stats.ecn_reductions_count);
    assert_eq!(stats.retransmissions_count, 0);
}

#[test]
fn a_closed_window_is_probed() {
    let options = SenderOptions::default();
    let mut sender = Sender::new(&options, ControllerKind::NewReno.build(&options));
    sender.write(30 * MSS);
    let mut now = Instant::ZERO;
    while sender.poll_transmit(now).is_some() {}
    // Everything has arrived, and there is no room for more. The window said first is not taken back.
    sender.on_segment(
        now,
        &Segment {
            ack: 10 * MSS,
            ..Segment::default()
        },
    );
    let sent_count = std::iter::from_fn(|| sender.poll_transmit(now)).count();
    assert!(sent_count > 0, "the window before the first ack is still open");
    for _ in 0..3 {
        now = sender.wake_at().expect("something is outstanding");
        sender.on_wake(now);
        assert!(sender.poll_transmit(now).is_some());
    }
}

/// RFC 6675 §4, NextSeg: at the end of a flow fewer than three segments lie above the last hole, so nothing proves it lost. Rule 3 sends
/// again what lies below a SACK, rule 4 the last segment; without them the time-out has to.
#[test]
fn recovery_sends_what_is_not_proven_lost() {
    // Of 20 segments the first is lost, so recovery begins; then one with two above it, and the very last.
    for (lost, below_sacks, rfc, everything) in [([0, 17], 0, 0, 0), ([0, 19], 1, 0, 0)] {
        for (unproven, timeouts_count) in [
            (Unproven::Nothing, 1),
            (Unproven::BelowSacks, below_sacks),
            (Unproven::Rfc6675, rfc),
            (Unproven::Everything, everything),
        ] {
            let options = SenderOptions {
                initial_window_segments: 20,
                unproven,
                ..SenderOptions::default()
            };
            let (_, stats) = transfer(&options, 20, lost);
            assert_eq!(stats.timeouts_count, timeouts_count, "{unproven:?}, lost {lost:?}");
        }
    }
}

/// RFC 3522: a recovery was for nothing if what it answers is older than the first retransmission. Where nothing is reordered no recovery is,
/// though one follows the other and the answers of the last are still to come.
#[test]
fn nothing_is_undone_where_nothing_is_reordered() {
    for kind in [ControllerKind::Cubic, ControllerKind::Bbr1] {
        let options = SenderOptions::linux_2026();
        let mut path = Path::new(PathOptions {
            bits_per_sec: 100_000_000,
            rtt_ns: 100 * MS,
            queue_bytes_max: u64::MAX,
            ..PathOptions::default()
        });
        path.add(&options, &ReceiverOptions::default(), kind.build(&options));
        path.fate = Box::new(|_, number, _| if number % 97 == 50 { Fate::Drop } else { Fate::Pass });
        path.write(0, 1 << 40);
        path.run_until(20 * SEC);
        let stats = path.flows[0].sender.stats();
        assert!(stats.recoveries_count > 20, "{stats:?}");
        assert_eq!(stats.undone_count, 0, "{kind}: {stats:?}");
    }
}

/// RFC 6582 §3.2, step 3: without SACK only the first partial ack of a recovery restarts the retransmission timer, so many losses in one
/// window end with a time-out; with SACK, or slow but steady, each does.
#[test]
fn partial_acks_restart_the_timer_once_or_each_time() {
    let rto_min = Duration::from_millis(25);
    for (sack, recovery_timer, timeouts_count) in [
        (false, RecoveryTimer::Rfc, 1),
        (false, RecoveryTimer::EachAdvance, 0),
        (true, RecoveryTimer::Rfc, 0),
    ] {
        let options = SenderOptions {
            initial_window_segments: 20,
            sack,
            recovery_timer,
            rto_min,
            rto_initial: rto_min,
            ..SenderOptions::default()
        };
        let (_, stats) = transfer(&options, 40, [0, 2, 4, 6, 8]);
        assert_eq!(
            stats.timeouts_count, timeouts_count,
            "{sack} {recovery_timer:?}: {stats:?}"
        );
    }
}
