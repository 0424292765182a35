//! One-sided memory: order, permission at the time of arrival, torn loads, dead peers.

use super::*;

const OLD_LEADER: Peer = Peer(0);
const NEW_LEADER: Peer = Peer(1);
const FOLLOWER: Peer = Peer(2);

fn windows(seed: u64) -> (Fabric, [SimWindow; 3]) {
    let fabric = Fabric::new(FabricOptions::default(), 3, seed);
    let windows = [0, 1, 2].map(|host| fabric.window(HostId(host)));
    (fabric, windows)
}

fn polled(window: &mut SimWindow) -> Vec<(u64, Result<(), WindowError>)> {
    let mut completions = Vec::new();
    window.poll_cq(&mut |completion| completions.push((completion.wr_id.0, completion.result)));
    completions
}

fn loaded(window: &SimWindow, at_bytes: u64, len_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0xFF; len_bytes];
    window.load(at_bytes, &mut bytes);
    bytes
}

#[test]
fn writes_arrive_in_order_and_complete_after_a_round_trip() {
    for seed in 0..50 {
        let (fabric, [mut leader, _, mut follower]) = windows(seed);
        follower.grant(Some(OLD_LEADER)).expect("its own window");
        for value in 1..=10u8 {
            leader
                .write(FOLLOWER, 100, &[value; 200], WrId(value.into()))
                .expect("room");
        }
        fabric.run_until(SimTime::from_ns(1_199));
        assert_eq!(
            polled(&mut leader),
            [],
            "seed {seed}: faster than the way there and back"
        );
        fabric.run_until(SimTime::from_us(20));
        let expected: Vec<_> = (1..=10).map(|value| (value, Ok(()))).collect();
        assert_eq!(polled(&mut leader), expected, "seed {seed}");
        assert_eq!(
            loaded(&follower, 100, 200),
            [10; 200],
            "seed {seed}: the last one stands"
        );
        assert_eq!(loaded(&follower, 99, 1), [0]);
        assert_eq!(loaded(&follower, 300, 1), [0]);
    }
}

#[test]
fn a_load_can_see_half_a_write() {
    let torn = (0..100).filter(|&seed| {
        let (fabric, [mut leader, _, mut follower]) = windows(seed);
        follower.grant(Some(OLD_LEADER)).expect("its own window");
        leader.write(FOLLOWER, 0, &[1; 256], WrId(1)).expect("room");
        (600..1000).any(|ns| {
            fabric.run_until(SimTime::from_ns(ns));
            let bytes = loaded(&follower, 0, 256);
            bytes.contains(&0) && bytes.contains(&1)
        })
    });
    assert!(torn.count() > 10);
}

#[test]
fn an_old_leader_whose_permission_is_gone_changes_nothing_more() {
    let (fabric, [mut old, mut new, mut follower]) = windows(4);
    follower.grant(Some(OLD_LEADER)).expect("its own window");
    old.write(FOLLOWER, 0, b"old", WrId(1)).expect("room");
    fabric.run_until(SimTime::from_us(5));
    // The write is posted before the permission changes and arrives after: what counts is when it arrives.
    old.write(FOLLOWER, 0, b"OLD", WrId(2)).expect("room");
    old.write(FOLLOWER, 0, b"OLD", WrId(3)).expect("room");
    follower.grant(Some(NEW_LEADER)).expect("its own window");
    new.write(FOLLOWER, 3, b"new", WrId(4)).expect("room");
    fabric.run_until(SimTime::from_ms(200));
    let (permission, broken) = (Err(WindowError::Permission), Err(WindowError::Unreachable));
    assert_eq!(polled(&mut old), [(1, Ok(())), (2, permission), (3, broken)]);
    assert_eq!(polled(&mut new), [(4, Ok(()))]);
    assert_eq!(loaded(&follower, 0, 6), b"oldnew");
    // Reading needs no grant, but a queue pair that is not in its error state.
    old.read(FOLLOWER, 3, 3, WrId(5)).expect("room");
    fabric.run_until(SimTime::from_ms(400));
    assert_eq!(polled(&mut old), [(5, broken)]);
    fabric.reconnect(HostId(0), HostId(2));
    old.read(FOLLOWER, 3, 3, WrId(6)).expect("room");
    fabric.run_until(SimTime::from_ms(401));
    assert_eq!(polled(&mut old), [(6, Ok(()))]);
    let mut brought = Vec::new();
    assert!(old.take_read(WrId(6), &mut brought) && brought == b"new");
    assert!(!old.take_read(WrId(6), &mut brought));
}

#[test]
fn what_cannot_be_is_refused() {
    let (fabric, [mut leader, _, mut follower]) = windows(5);
    follower.grant(Some(OLD_LEADER)).expect("its own window");
    assert_eq!(leader.write(Peer(3), 0, b"x", WrId(0)), Err(WindowError::Unreachable));
    leader
        .write(FOLLOWER, 4095, b"xx", WrId(1))
        .expect("the answer comes later");
    fabric.run_until(SimTime::from_us(5));
    assert_eq!(polled(&mut leader), [(1, Err(WindowError::Range))]);
    fabric.reconnect(HostId(0), HostId(2));
    leader
        .read(FOLLOWER, u64::MAX, 8, WrId(2))
        .expect("the answer comes later");
    fabric.run_until(SimTime::from_us(10));
    assert_eq!(polled(&mut leader), [(2, Err(WindowError::Range))]);
    for wr_id in 0..64 {
        leader.write(NEW_LEADER, 0, b"x", WrId(wr_id)).expect("room");
    }
    assert_eq!(leader.write(NEW_LEADER, 0, b"x", WrId(64)), Err(WindowError::Full));
}

#[test]
fn a_dead_peer_is_noticed_after_the_timeout_and_comes_back_empty() {
    let (fabric, [mut leader, _, mut follower]) = windows(6);
    follower.grant(Some(OLD_LEADER)).expect("its own window");
    leader.write(FOLLOWER, 0, b"gone", WrId(1)).expect("room");
    fabric.run_until(SimTime::from_us(5));
    fabric.crash(HostId(2));
    leader.write(FOLLOWER, 0, b"lost", WrId(2)).expect("room");
    fabric.run_until(SimTime::from_ms(60));
    assert_eq!(polled(&mut leader), [(1, Ok(()))], "no answer yet");
    fabric.run_until(SimTime::from_ms(80));
    assert_eq!(polled(&mut leader), [(2, Err(WindowError::Unreachable))]);
    fabric.restart(HostId(2));
    assert_eq!(loaded(&follower, 0, 4), [0; 4]);
    fabric.reconnect(HostId(0), HostId(2));
    leader.write(FOLLOWER, 0, b"late", WrId(3)).expect("room");
    fabric.run_until(SimTime::from_ms(90));
    assert_eq!(
        polled(&mut leader),
        [(3, Err(WindowError::Permission))],
        "grants die, too"
    );
}

#[test]
fn what_an_earlier_life_posted_is_not_heard_of_in_the_next() {
    let (fabric, [mut leader, _, mut follower]) = windows(7);
    follower.grant(Some(OLD_LEADER)).expect("its own window");
    leader.write(FOLLOWER, 0, &[1; 64], WrId(1)).expect("room");
    fabric.crash(HostId(0));
    fabric.restart(HostId(0));
    leader.read(FOLLOWER, 0, 1, WrId(2)).expect("room");
    fabric.run_until(SimTime::from_us(5));
    assert_eq!(polled(&mut leader), [(2, Ok(()))]);
    let mut brought = Vec::new();
    assert!(
        leader.take_read(WrId(2), &mut brought) && brought == [1],
        "but it was done"
    );
}

/// What of a write of ones is there, a moment after the permission has gone, and what its writer was told.
fn overtaken(seed: u64, placement: Placement) -> (Vec<u8>, Vec<u8>, Result<(), WindowError>) {
    let options = FabricOptions {
        placement,
        ..FabricOptions::default()
    };
    let fabric = Fabric::new(options, 3, seed);
    let [mut leader, mut follower] = [0, 2].map(|host| fabric.window(HostId(host)));
    follower.grant(Some(OLD_LEADER)).expect("its own window");
    leader.write(FOLLOWER, 0, &[1; 64], WrId(1)).expect("room");
    while loaded(&follower, 0, 64).iter().all(|&byte| byte == 0) {
        fabric.run_until(fabric.next_at());
    }
    follower.grant(None).expect("its own window");
    let at_once = loaded(&follower, 0, 64);
    fabric.run_until(SimTime::from_us(9));
    (at_once, loaded(&follower, 0, 64), polled(&mut leader)[0].1)
}

#[test]
fn a_change_of_permission_is_a_fence_and_a_write_that_it_overtakes_is_done_or_cut_off() {
    let (mut done_count, mut cut_count) = (0, 0);
    for seed in 0..200 {
        let (at_once, later, told) = overtaken(seed, Placement::Rising);
        assert_eq!(at_once, later, "seed {seed}: nothing lands behind the fence");
        match told {
            Ok(()) => {
                assert_eq!(later, [1; 64], "seed {seed}");
                done_count += 1;
            }
            Err(error) => {
                assert_eq!(error, WindowError::Permission);
                let ones_count = later.iter().take_while(|&&byte| byte == 1).count();
                assert!(ones_count.is_multiple_of(8), "seed {seed}: whole words");
                assert_eq!(
                    later[ones_count..],
                    [0; 64][ones_count..],
                    "seed {seed}: in rising order"
                );
                cut_count += 1;
            }
        }
    }
    assert!(
        done_count > 20 && cut_count > 20,
        "{done_count} done, {cut_count} cut off"
    );
    let any = (0..200).map(|seed| overtaken(seed, Placement::Any).1);
    assert!(
        any.into_iter().any(|bytes| bytes[0] == 0),
        "the order is nobody's promise"
    );
}

#[test]
fn an_answer_that_is_cut_off_leaves_what_was_done_and_a_repaired_pair_works_again() {
    let options = FabricOptions {
        timeout: SimTime::from_us(50),
        repair: SimTime::from_us(10),
        ..FabricOptions::default()
    };
    let fabric = Fabric::new(options, 3, 3);
    let [mut leader, mut follower] = [0, 2].map(|host| fabric.window(HostId(host)));
    follower.open().expect("its own window");
    fabric.cut(HostId(2), HostId(0), true);
    leader.write(FOLLOWER, 0, b"done", WrId(1)).expect("room");
    fabric.run_until(SimTime::from_us(100));
    assert_eq!(polled(&mut leader), [(1, Err(WindowError::Unreachable))]);
    assert_eq!(loaded(&follower, 0, 4), b"done");
    fabric.cut(HostId(2), HostId(0), false);
    fabric.run_until(SimTime::from_us(120));
    leader.write(FOLLOWER, 0, b"more", WrId(2)).expect("room");
    fabric.run_until(SimTime::from_us(130));
    assert_eq!(polled(&mut leader), [(2, Ok(()))]);
    let hash = fabric.hash();
    fabric.crash(HostId(2));
    assert_ne!(fabric.hash(), hash);
}

/// What a write was told over a way that loses so much, when it was told, and what is there.
fn lossy(seed: u64, there: f64, back: f64) -> (Result<(), WindowError>, SimTime, Vec<u8>) {
    let (fabric, [mut leader, _, mut follower]) = windows(seed);
    let losing = |loss_ratio| LinkFaults {
        loss_ratio,
        ..LinkFaults::default()
    };
    fabric.set_faults(HostId(0), HostId(2), losing(there));
    fabric.set_faults(HostId(2), HostId(0), losing(back));
    follower.grant(Some(OLD_LEADER)).expect("its own window");
    leader.write(FOLLOWER, 0, b"sent", WrId(1)).expect("room");
    let mut told = Vec::new();
    while told.is_empty() {
        fabric.run_until(fabric.next_at());
        told = polled(&mut leader);
    }
    let at = fabric.state().now;
    (told[0].1, at, loaded(&follower, 0, 4))
}

#[test]
fn what_is_lost_is_sent_again_and_a_way_that_loses_all_is_broken() {
    let (soon, pause) = (
        SimTime::from_us(2),
        SimTime::from_ps(FabricOptions::default().timeout.as_ps() / 8),
    );
    let mut late_count = 0;
    for seed in 0..100 {
        let (told, at, there) = lossy(seed, 0.3, 0.0);
        assert_eq!((told, there), (Ok(()), b"sent".to_vec()), "seed {seed}");
        late_count += u32::from(at > soon);
        assert!(
            at < soon || at > pause,
            "seed {seed}: a resend is as late as a time-out"
        );
    }
    assert!((15..45).contains(&late_count), "{late_count} of 100");
    assert_eq!(lossy(0, 1.0, 0.0).0, Err(WindowError::Unreachable));
    assert_eq!(lossy(0, 1.0, 0.0).2, [0; 4]);
    let (told, _, there) = lossy(0, 0.0, 1.0);
    assert_eq!(
        (told, there),
        (Err(WindowError::Unreachable), b"sent".to_vec()),
        "done, and not heard of"
    );
}
