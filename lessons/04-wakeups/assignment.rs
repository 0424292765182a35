//! Lesson 4, your turn. What is counted is context switches, CPU time and system calls: what waiting costs, whoever else
//! uses the machine. Delete an `#[ignore]`, watch the test fail, mend the function above it.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use dataplane_ports::udp::{Batching, UdpPort, WaitHow};
use dataplane_waist::Port;
use lessons::{
    link::{queue, receive, syscalls_count, udp_pair},
    thread::{Conversation, Cost, answer, converse, has_two_cpus},
};
use nix::sys::resource::UsageWho;

const MESSAGES_COUNT: usize = 200;

// ---- 1. Whose sleep was that? ---------------------------------------------------------------------------------------

/// Answers every message without ever sleeping; what that cost this thread.
fn spin_and_answer(port: &mut UdpPort) -> Cost {
    // getrusage(2): of whom is this the bill?
    let who = UsageWho::RUSAGE_SELF;
    let before = Cost::of(who);
    let mut answered_count = 0;
    while answered_count < MESSAGES_COUNT {
        answered_count += answer(port);
    }
    Cost::of(who) - before
}

#[test]
#[ignore = "your turn: delete this line"]
fn a_spinning_receiver_does_not_sleep() {
    if !has_two_cpus() {
        return;
    }
    let conversation = Conversation {
        wait: WaitHow::Spin,
        messages_count: MESSAGES_COUNT,
        asleep_first: false,
        silence: Duration::ZERO,
    };
    let cost = converse(&conversation, spin_and_answer);
    println!("{cost:?}");
    assert!(cost.voluntary_switches_count <= MESSAGES_COUNT as u64 / 10);
}

// ---- 2. Awake while it pays -----------------------------------------------------------------------------------------

/// While messages come, be awake when they do; after so long without one, sleep. (A product would say 50 µs. This is
/// long, so that the test also passes on a machine that is busy with something else.)
const AWAKE: Duration = Duration::from_millis(20);

/// Called when nothing was there, `idle` after the last message. `port.wait` sleeps until a message comes, at most so
/// long.
fn rest(port: &mut UdpPort, idle: Duration) {
    // Always awake: good for the tail, and it burns a CPU all night.
    let _ = (port, idle, AWAKE);
}

/// What the messages cost, and what the silence after them.
fn answer_then_idle(port: &mut UdpPort) -> (Cost, Cost) {
    let before = Cost::of(UsageWho::RUSAGE_THREAD);
    let mut busy = Cost::default();
    let (mut answered_count, mut last) = (0, Instant::now());
    // One more message comes after the silence.
    while answered_count <= MESSAGES_COUNT {
        if answer(port) == 0 {
            rest(port, last.elapsed());
            continue;
        }
        (answered_count, last) = (answered_count + 1, Instant::now());
        if answered_count == MESSAGES_COUNT {
            busy = Cost::of(UsageWho::RUSAGE_THREAD) - before;
        }
    }
    let all = Cost::of(UsageWho::RUSAGE_THREAD) - before;
    (busy, all - busy)
}

#[test]
#[ignore = "your turn: delete this line"]
fn awake_in_the_storm_asleep_in_the_calm() {
    if !has_two_cpus() {
        return;
    }
    let silence = Duration::from_millis(400);
    let conversation = Conversation {
        wait: WaitHow::Blocking,
        messages_count: MESSAGES_COUNT,
        asleep_first: false,
        silence,
    };
    let (busy, idle) = converse(&conversation, answer_then_idle);
    println!("busy {busy:?}\nidle {idle:?}");
    assert!(busy.voluntary_switches_count <= MESSAGES_COUNT as u64 / 10, "{busy:?}");
    assert!(idle.cpu <= silence / 4, "{idle:?}");
}

// ---- 3. What a look costs -------------------------------------------------------------------------------------------

/// A client and a server that never sleeps. `None`, with the reason printed, where there is no such thing.
///
/// `lessons::link::uring_pair` makes pairs too; a completion queue is memory that both sides can read.
fn spinning_pair() -> Option<(impl Port, impl Port)> {
    Some(udp_pair(WaitHow::Spin, Batching::Single))
}

#[test]
#[ignore = "your turn: delete this line"]
fn an_empty_look_is_free() {
    const LOOKS_COUNT: u64 = 1000;
    let Some((mut client, mut server)) = spinning_pair() else {
        return;
    };
    // Sets up what is set up once.
    queue(&mut client, 64);
    client.flush().expect("the port works");
    receive(&mut server, 1);
    let calls_count = syscalls_count(&mut server, |server| {
        for _ in 0..LOOKS_COUNT {
            let frames_count = server.rx_burst(&mut |_| ()).expect("the port works");
            assert_eq!(frames_count, 0, "nobody sends");
        }
    });
    println!("{LOOKS_COUNT} looks at nothing: {calls_count} system calls");
    assert!(calls_count <= 2);
}
