//! Lesson 7, solved: frames go round. Each test runs over the model and, for root, over a real socket: they agree.
#![forbid(unsafe_code)]

use dataplane_ports::xdp::Frame;
use lessons::rings::{KICK_FRAMES_MAX, Rings, World, worlds};

// ---- 1. Sixteen packets, and silence --------------------------------------------------------------------------------

/// Each frame goes back to the fill ring once its packet was read, and the kernel is told.
fn receive_all(rings: &mut dyn Rings) -> u64 {
    let mut received_count = 0;
    while let Some(segment) = rings.receive() {
        received_count += 1;
        // The fill ring has as many places as there are frames to receive into.
        rings.fill(segment.frame).expect("room for every frame");
    }
    rings.release_rx();
    rings.publish_fill();
    received_count
}

#[test]
fn every_packet_finds_a_frame() {
    for (mut world, _) in worlds(16) {
        let mut received_count = 0;
        for _ in 0..4 {
            world.arrive(16);
            received_count += receive_all(&mut *world);
        }
        let counters = world.counters();
        assert_eq!(received_count, 64, "{}: {counters:?}", world.name());
        assert_eq!(counters.rx_fill_ring_empty_count, 0, "{}: {counters:?}", world.name());
    }
}

/// Who keeps the frames is deaf once the kernel has none left, and the counter says so. Nothing else does: no call fails.
#[test]
fn who_keeps_the_frames_starves_the_fill_ring() {
    for (mut world, _) in worlds(16) {
        let (mut received_count, mut kept) = (0, Vec::new());
        for round in 1..=4 {
            world.arrive(16);
            while let Some(segment) = world.receive() {
                received_count += 1;
                kept.push(segment.frame);
            }
            world.release_rx();
            let counters = world.counters();
            println!(
                "{}: {:2} arrived, {received_count:2} received, rx_fill_ring_empty {}",
                world.name(),
                16 * round,
                counters.rx_fill_ring_empty_count
            );
            assert_eq!(received_count, 16);
            assert_eq!(counters.rx_fill_ring_empty_count, 16 * (round - 1));
        }
        // Frames written and not published are not there yet.
        for frame in kept {
            world.fill(frame).expect("room for every frame");
        }
        world.arrive(1);
        assert!(world.receive().is_none(), "{}", world.name());
        world.publish_fill();
        world.arrive(1);
        assert!(world.receive().is_some(), "{}", world.name());
    }
}

/// The other way to lose what comes: there are frames, and nobody takes the packets off the receive ring.
#[test]
fn who_does_not_receive_overflows_the_receive_ring() {
    for (mut world, free) in worlds(16) {
        world.arrive(16);
        // Frames for sixteen more, which find no place.
        for frame in free {
            world.fill(frame).expect("the first sixteen were taken");
        }
        world.publish_fill();
        world.arrive(16);
        let received_count = std::iter::from_fn(|| world.receive()).count();
        let counters = world.counters();
        println!("{}: {received_count} received, {counters:?}", world.name());
        assert_eq!(received_count, 16);
        assert_eq!(
            (counters.rx_ring_full_count, counters.rx_fill_ring_empty_count),
            (16, 0)
        );
    }
}

// ---- 2. Sixteen packets sent, and no frame left ---------------------------------------------------------------------

/// What the kernel has sent is ours again.
fn reclaim(rings: &mut dyn Rings, free: &mut Vec<Frame>) {
    while let Some(frame) = rings.complete() {
        free.push(frame);
    }
    rings.release_completions();
}

fn send(rings: &mut dyn Rings, free: &mut Vec<Frame>, packets_count: u64) -> u64 {
    reclaim(rings, free);
    let mut sent_count = 0;
    while sent_count < packets_count {
        let Some(mut frame) = free.pop() else {
            break;
        };
        let bytes = rings.write_packet(&mut frame);
        if let Err(frame) = rings.tx(frame, bytes) {
            free.push(frame);
            break;
        }
        sent_count += 1;
    }
    flush(rings);
    sent_count
}

#[test]
fn every_frame_comes_back() {
    for (mut world, mut free) in worlds(16) {
        let sent_count: u64 = (0..4).map(|_| send(&mut *world, &mut free, 16)).sum();
        assert_eq!((sent_count, world.delivered_count()), (64, 64), "{}", world.name());
        reclaim(&mut *world, &mut free);
        assert_eq!(free.len(), 16, "{}: none was lost", world.name());
    }
}

/// Who takes none back sends as many packets as there are frames, and then none, with every ring empty or working.
#[test]
fn who_takes_no_completions_runs_out_of_frames() {
    for (mut world, mut free) in worlds(16) {
        for _ in 0..4 {
            while let Some(mut frame) = free.pop() {
                let bytes = world.write_packet(&mut frame);
                world.tx(frame, bytes).expect("room for every frame");
            }
            flush(&mut *world);
        }
        println!(
            "{}: {} of 64 delivered, {} frames left",
            world.name(),
            world.delivered_count(),
            free.len()
        );
        assert_eq!(world.delivered_count(), 16);
        // They were all waiting.
        reclaim(&mut *world, &mut free);
        assert_eq!(free.len(), 16);
    }
}

// ---- 3. Half of them ------------------------------------------------------------------------------------------------

/// Kicks until nothing is left, or until a kick moves nothing: then the completion ring is full, or the interface busy, and it is
/// the caller's turn to take frames back.
fn flush(rings: &mut dyn Rings) {
    rings.publish_tx();
    let mut pending_count = rings.tx_pending_count();
    while pending_count > 0 {
        rings.kick();
        let left_count = rings.tx_pending_count();
        if left_count == pending_count {
            break;
        }
        pending_count = left_count;
    }
}

/// Fills the transmit ring with 64 packets.
fn queue_all(world: &mut dyn World, free: Vec<Frame>) {
    for mut frame in free {
        let bytes = world.write_packet(&mut frame);
        world.tx(frame, bytes).expect("the ring has room for all");
    }
}

#[test]
fn everything_leaves() {
    for (mut world, free) in worlds(64) {
        queue_all(&mut *world, free);
        flush(&mut *world);
        assert_eq!(world.tx_pending_count(), 0, "{}", world.name());
        assert_eq!(world.delivered_count(), 64, "{}", world.name());
    }
}

/// One system call, half of the ring; no error, and no counter. The rest would wait for whoever sends next.
#[test]
fn one_kick_sends_thirty_two() {
    for (mut world, free) in worlds(64) {
        queue_all(&mut *world, free);
        world.publish_tx();
        for kicks_count in 0..3 {
            println!(
                "{}: {kicks_count} kicks, {} on the ring",
                world.name(),
                world.tx_pending_count()
            );
            assert_eq!(world.tx_pending_count() as usize, 64 - kicks_count * KICK_FRAMES_MAX);
            world.kick();
        }
        assert_eq!(world.delivered_count(), 64);
    }
}
