//! Lesson 3, your turn. What is counted is system calls, which do not depend on how busy the machine is. Delete an
//! `#[ignore]`, watch the test fail, mend the function or the constant above it.
#![forbid(unsafe_code)]

use std::time::Duration;

use dataplane_ports::{
    udp::{Batching, WaitHow},
    uring::{UringVariant, UringWait},
};
use dataplane_waist::Port;
use lessons::link::{queue, receive, syscalls_count, udp_client, udp_pair, uring_pair};

// ---- 1. How large a burst? ------------------------------------------------------------------------------------------

/// Frames that wait for each other before they are sent in one system call.
const BURST_FRAMES_COUNT: usize = 1;

/// Frames come at this distance: a hundred thousand a second.
const INTERVAL: Duration = Duration::from_micros(10);

/// The first frame of a burst waits for the last one.
fn longest_wait() -> Duration {
    INTERVAL * (BURST_FRAMES_COUNT as u32 - 1)
}

#[test]
#[ignore = "your turn: delete this line"]
fn few_calls_and_a_short_wait() {
    let (mut client, mut server) = udp_pair(WaitHow::Poll, Batching::Multi);
    let frames_count = 20 * BURST_FRAMES_COUNT;
    let calls_count = syscalls_count(&mut client, |client| {
        for _ in 0..20 {
            for _ in 0..BURST_FRAMES_COUNT {
                queue(client, 64);
            }
            client.flush().expect("the port works");
            receive(&mut server, BURST_FRAMES_COUNT);
        }
    });
    println!("{calls_count} calls for {frames_count} frames");
    assert!(
        calls_count * 8 <= frames_count as u64,
        "at most an eighth of a call per frame"
    );
    assert!(longest_wait() <= Duration::from_micros(100), "{:?}", longest_wait());
}

// ---- 2. A train of unequal frames -----------------------------------------------------------------------------------

/// The longest of our messages. The receiver knows where each one ends: its header says so.
const MESSAGE_BYTES_MAX: usize = 200;

/// Sends messages of these lengths over a port that makes trains (UDP_SEGMENT).
fn send(port: &mut dyn Port, message_lengths: &[usize]) {
    for &len_bytes in message_lengths {
        assert!(len_bytes <= MESSAGE_BYTES_MAX);
        // A train is frames of one length to one peer. What does this do?
        queue(port, len_bytes);
    }
    port.flush().expect("the port works");
}

#[test]
#[ignore = "your turn: delete this line"]
fn one_train() {
    let (mut client, mut server) = udp_pair(WaitHow::Poll, Batching::Gso);
    let message_lengths: Vec<usize> = (0..32).map(|index| 169 + index).collect();
    let calls_count = syscalls_count(&mut client, |client| send(client, &message_lengths));
    let received = receive(&mut server, 32);
    assert!(
        received.iter().zip(&message_lengths).all(|(got, sent)| got >= sent),
        "{received:?}"
    );
    let trains = client.train_stats();
    println!("{calls_count} calls for 32 messages; {trains:?}");
    assert_eq!(
        trains.tx_train_frames_count, 32,
        "frames that went down the stack in a train"
    );
}

// ---- 3. io_uring, called as often as a socket -----------------------------------------------------------------------

/// The ring of an echo server that sleeps between requests.
fn variant() -> UringVariant {
    // A turn enters the kernel twice: once to wait, once to submit the answer. One of them could do both.
    UringVariant::new(UringWait::Enter)
}

#[test]
#[ignore = "your turn: delete this line"]
fn one_system_call_a_turn() {
    let Some((_, mut server)) = uring_pair(variant()) else {
        return;
    };
    let mut client = udp_client(server.local_addr());
    let turns_count = 100;
    let calls_count = syscalls_count(&mut server, |server| {
        for _ in 0..turns_count {
            // The next request is there before the server waits for it, so the turn never sleeps.
            queue(&mut client, 64);
            client.flush().expect("the port works");
            receive(server, 1);
            queue(server, 64);
            server.flush().expect("the port works");
        }
        server.wait(Duration::from_millis(1)).expect("the port works");
    });
    assert_eq!(receive(&mut client, turns_count).len(), turns_count);
    println!("{calls_count} calls for {turns_count} requests and as many answers");
    assert!(calls_count * 2 <= 3 * turns_count as u64);
}
