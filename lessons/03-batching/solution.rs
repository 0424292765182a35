//! Lesson 3, solved: system calls per frame for every way of batching that the ports have, and what a batch costs.
#![forbid(unsafe_code)]

use std::time::Duration;

use dataplane_ports::{
    udp::{Batching, WaitHow},
    uring::{UringVariant, UringWait},
};
use dataplane_waist::{Peer, Port, TxError};
use lessons::link::{queue, receive, syscalls_count, udp_client, udp_pair, uring_pair};

/// Sends `bursts_count` bursts and receives each of them; the sender's and the receiver's system calls.
fn calls_counts(
    (client, server): (&mut dyn Port, &mut dyn Port),
    bursts_count: usize,
    burst_frames_count: usize,
) -> (u64, u64) {
    let before = (client.stats().syscalls_count, server.stats().syscalls_count);
    for _ in 0..bursts_count {
        for _ in 0..burst_frames_count {
            queue(client, 64);
        }
        client.flush().expect("the port works");
        receive(server, burst_frames_count);
    }
    let after = (client.stats().syscalls_count, server.stats().syscalls_count);
    (after.0 - before.0, after.1 - before.1)
}

// ---- 1. How large a burst? ------------------------------------------------------------------------------------------

/// Eight is enough for an eighth; eleven is the most that the wait allows.
const BURST_FRAMES_COUNT: usize = 8;
const INTERVAL: Duration = Duration::from_micros(10);

fn longest_wait(burst_frames_count: usize) -> Duration {
    INTERVAL * (burst_frames_count as u32 - 1)
}

#[test]
fn few_calls_and_a_short_wait() {
    let (mut client, mut server) = udp_pair(WaitHow::Poll, Batching::Multi);
    let (calls_count, _) = calls_counts((&mut client, &mut server), 20, BURST_FRAMES_COUNT);
    assert_eq!(calls_count, 20, "one sendmmsg(2) a burst");
    assert!(longest_wait(BURST_FRAMES_COUNT) <= Duration::from_micros(100));
    assert!(
        longest_wait(32) > Duration::from_micros(300),
        "the largest batch is not the best one"
    );
}

#[test]
fn calls_per_frame_of_every_way() {
    const BURSTS: usize = 20;
    const FRAMES: u64 = 32 * BURSTS as u64;
    println!("bursts of 32 frames, system calls per frame: sender, receiver");
    let print = |name: &str, (sent, received): (u64, u64)| {
        println!(
            "{name:20} {:.3} {:.3}",
            sent as f64 / FRAMES as f64,
            received as f64 / FRAMES as f64
        );
    };
    for (batch, sender_limit, receiver_limit) in [
        // One call a frame; the receiver asks whether something is there before each of them.
        (Batching::Single, FRAMES, 2 * FRAMES),
        (Batching::Multi, FRAMES / 8, FRAMES / 8),
        (Batching::Gso, FRAMES / 8, FRAMES / 8),
    ] {
        let (mut client, mut server) = udp_pair(WaitHow::Poll, batch);
        let (sent, received) = calls_counts((&mut client, &mut server), BURSTS, 32);
        print(client.caps().name, (sent, received));
        assert!(
            sent <= sender_limit && received <= receiver_limit,
            "{batch:?}: {sent}, {received}"
        );
        if batch == Batching::Single {
            assert!(sent >= FRAMES && received >= FRAMES, "{sent}, {received}");
        }
    }
    if let Some((mut client, mut server)) = uring_pair(UringVariant::new(UringWait::Enter)) {
        let (sent, received) = calls_counts((&mut client, &mut server), BURSTS, 32);
        print(client.caps().name, (sent, received));
        assert!(sent <= FRAMES / 8 && received <= FRAMES / 8, "{sent}, {received}");
    }
}

/// Batching needs something to batch. One request in flight is a batch of one, whatever the port can do.
#[test]
fn a_ping_pong_cannot_be_batched() {
    for batch in [Batching::Single, Batching::Multi, Batching::Gso] {
        let (mut client, mut server) = udp_pair(WaitHow::Poll, batch);
        let (sent, received) = calls_counts((&mut client, &mut server), 100, 1);
        assert!(sent >= 100 && received >= 100, "{batch:?}: {sent}, {received}");
    }
}

// ---- 2. A train of unequal frames -----------------------------------------------------------------------------------

const MESSAGE_BYTES_MAX: usize = 200;

/// Every frame as long as the longest message: bytes are cheap beside a system call and a walk through the stack. (Only
/// the last frame of a train may be shorter: udp(7), UDP_SEGMENT.)
fn send(port: &mut dyn Port, message_lengths: &[usize]) {
    for &len_bytes in message_lengths {
        assert!(len_bytes <= MESSAGE_BYTES_MAX);
        queue(port, MESSAGE_BYTES_MAX);
    }
    port.flush().expect("the port works");
}

#[test]
fn one_train() {
    let (mut client, mut server) = udp_pair(WaitHow::Poll, Batching::Gso);
    let message_lengths: Vec<usize> = (0..32).map(|index| 169 + index).collect();
    let calls_count = syscalls_count(&mut client, |client| send(client, &message_lengths));
    let received = receive(&mut server, 32);
    assert!(received.iter().zip(&message_lengths).all(|(got, sent)| got >= sent));
    assert_eq!(calls_count, 1);
    assert_eq!(client.train_stats().tx_train_frames_count, 32);
}

#[test]
fn unequal_frames_make_no_train() {
    let (mut client, mut server) = udp_pair(WaitHow::Poll, Batching::Gso);
    let calls_count = syscalls_count(&mut client, |client| {
        for index in 0..32 {
            queue(client, 169 + index);
        }
        client.flush().expect("the port works");
    });
    receive(&mut server, 32);
    assert_eq!(calls_count, 1, "one call takes them all, as sendmmsg does");
    assert_eq!(
        client.train_stats().tx_train_frames_count,
        0,
        "the offload is on, and does nothing"
    );
}

// ---- 3. io_uring, called as often as a socket -----------------------------------------------------------------------

/// The answers go out with the wait for the next request.
fn variant() -> UringVariant {
    UringVariant {
        submit_with_wait: true,
        ..UringVariant::new(UringWait::Enter)
    }
}

/// Calls that an echo server makes for `turns_count` requests, each of which is there before it waits. `None` without
/// io_uring.
fn echo_calls_count(variant: UringVariant, turns_count: usize) -> Option<u64> {
    let (_, mut server) = uring_pair(variant)?;
    let mut client = udp_client(server.local_addr());
    let calls_count = syscalls_count(&mut server, |server| {
        for _ in 0..turns_count {
            queue(&mut client, 64);
            client.flush().expect("the port works");
            receive(server, 1);
            queue(server, 64);
            server.flush().expect("the port works");
        }
        server.wait(Duration::from_millis(1)).expect("the port works");
    });
    assert_eq!(receive(&mut client, turns_count).len(), turns_count);
    Some(calls_count)
}

#[test]
fn one_system_call_a_turn() {
    let Some(merged) = echo_calls_count(variant(), 100) else {
        return;
    };
    assert!(merged * 2 <= 3 * 100, "{merged}");
    let plain = echo_calls_count(UringVariant::new(UringWait::Enter), 100).expect("as above");
    // Two, as the blocking socket makes: recv(2) and send(2).
    assert!(plain >= 2 * 100, "{plain}");
    println!("100 requests: {plain} calls with a submission of its own, {merged} with one that also waits");
}

/// A bound that every batch has, and what happens at it: the queue says so, and nothing is lost.
#[test]
fn a_full_batch_is_an_answer() {
    let Some((mut client, mut server)) = uring_pair(UringVariant::new(UringWait::Enter)) else {
        return;
    };
    let batch_frames_max = client.caps().batch_frames_max;
    for _ in 0..batch_frames_max {
        client
            .tx(Peer(0), 64, &mut |bytes| bytes.fill(7))
            .expect("a batch fits");
    }
    assert_eq!(client.tx(Peer(0), 64, &mut |bytes| bytes.fill(7)), Err(TxError::Full));
    client.flush().expect("the port works");
    assert_eq!(receive(&mut server, batch_frames_max).len(), batch_frames_max);
}
