//! Lesson 7, your turn. Each function is run over a model of the kernel's side of the rings, and where you are root over a
//! real socket too. Delete an `#[ignore]`, watch the test fail, mend the function above it.
#![forbid(unsafe_code)]

use dataplane_ports::xdp::Frame;
use lessons::rings::{Rings, worlds};

// ---- 1. Sixteen packets, and silence --------------------------------------------------------------------------------

/// Takes in everything that has come; how many packets. `spare` is for frames that are nobody's at the moment.
fn receive_all(rings: &mut dyn Rings, spare: &mut Vec<Frame>) -> u64 {
    let mut received_count = 0;
    while let Some(segment) = rings.receive() {
        received_count += 1;
        // Read, and done with.
        spare.push(segment.frame);
    }
    rings.release_rx();
    received_count
}

#[test]
#[ignore = "your turn: delete this line"]
fn every_packet_finds_a_frame() {
    for (mut world, _) in worlds(16) {
        let (mut received_count, mut spare) = (0, Vec::new());
        for _ in 0..4 {
            world.arrive(16);
            received_count += receive_all(&mut *world, &mut spare);
        }
        println!("{}: {received_count} of 64, {:#?}", world.name(), world.counters());
        assert_eq!(received_count, 64, "{}", world.name());
    }
}

// ---- 2. Sixteen packets sent, and no frame left ---------------------------------------------------------------------

/// Sends so many packets from frames of `free`, as far as there are any; how many.
fn send(rings: &mut dyn Rings, free: &mut Vec<Frame>, packets_count: u64) -> u64 {
    let mut sent_count = 0;
    while sent_count < packets_count {
        let Some(mut frame) = free.pop() else {
            break;
        };
        let bytes = rings.write_packet(&mut frame);
        if let Err(frame) = rings.tx(frame, bytes) {
            // No room on the ring.
            free.push(frame);
            break;
        }
        sent_count += 1;
    }
    rings.publish_tx();
    rings.kick();
    // They are on their way. Where are the frames?
    sent_count
}

#[test]
#[ignore = "your turn: delete this line"]
fn every_frame_comes_back() {
    for (mut world, mut free) in worlds(16) {
        for _ in 0..4 {
            let sent_count = send(&mut *world, &mut free, 16);
            println!("{}: {sent_count} sent, {} frames left", world.name(), free.len());
        }
        assert_eq!(world.delivered_count(), 64, "{}", world.name());
    }
}

// ---- 3. Half of them ------------------------------------------------------------------------------------------------

/// Lets the kernel send everything that is on the transmit ring.
fn flush(rings: &mut dyn Rings) {
    rings.publish_tx();
    // A system call for all of them: that is what batching is about.
    rings.kick();
}

#[test]
#[ignore = "your turn: delete this line"]
fn everything_leaves() {
    for (mut world, free) in worlds(64) {
        for mut frame in free {
            let bytes = world.write_packet(&mut frame);
            world.tx(frame, bytes).expect("the ring has room for all");
        }
        flush(&mut *world);
        println!("{}: {} still on the ring", world.name(), world.tx_pending_count());
        assert_eq!(world.delivered_count(), 64, "{}", world.name());
    }
}
