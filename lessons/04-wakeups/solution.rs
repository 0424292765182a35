//! Lesson 4, solved: how often a receiver sleeps, what it burns instead, and how to have some of both.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use dataplane_ports::{
    udp::{Batching, UdpPort, WaitHow},
    uring::{UringVariant, UringWait},
};
use dataplane_waist::Port;
use lessons::{
    link::{queue, receive, syscalls_count, udp_pair, uring_pair},
    thread::{Conversation, Cost, answer, converse, has_two_cpus},
};
use nix::sys::resource::UsageWho;

const MESSAGES_COUNT: usize = 200;

const CONVERSATION: Conversation = Conversation {
    wait: WaitHow::Blocking,
    messages_count: MESSAGES_COUNT,
    asleep_first: false,
    silence: Duration::ZERO,
};

// ---- 1. Whose sleep was that? ---------------------------------------------------------------------------------------

fn spin_and_answer(port: &mut UdpPort) -> Cost {
    // The thread's own bill: RUSAGE_SELF is the whole process, sleeping clients included.
    let who = UsageWho::RUSAGE_THREAD;
    let before = Cost::of(who);
    let mut answered_count = 0;
    while answered_count < MESSAGES_COUNT {
        answered_count += answer(port);
    }
    Cost::of(who) - before
}

#[test]
fn a_spinning_receiver_does_not_sleep() {
    if !has_two_cpus() {
        return;
    }
    let conversation = Conversation {
        wait: WaitHow::Spin,
        ..CONVERSATION
    };
    let cost = converse(&conversation, spin_and_answer);
    println!("spinning: {cost:?}");
    assert!(cost.voluntary_switches_count <= MESSAGES_COUNT as u64 / 10, "{cost:?}");
}

#[test]
fn a_blocking_receiver_sleeps_for_every_message() {
    // Each message is sent only when the receiver sleeps, so each has to wake it: a context switch, an interrupt to
    // another CPU where the client runs on one, and a CPU that may have to come out of an idle state.
    let conversation = Conversation {
        asleep_first: true,
        ..CONVERSATION
    };
    let cost = converse(&conversation, |port| {
        let before = Cost::of(UsageWho::RUSAGE_THREAD);
        let mut answered_count = 0;
        while answered_count < MESSAGES_COUNT {
            port.wait(Duration::from_millis(20)).expect("the port works");
            answered_count += answer(port);
        }
        Cost::of(UsageWho::RUSAGE_THREAD) - before
    });
    println!("blocking: {cost:?}");
    assert!(cost.voluntary_switches_count >= MESSAGES_COUNT as u64 / 2, "{cost:?}");
}

// ---- 2. Awake while it pays -----------------------------------------------------------------------------------------

const AWAKE: Duration = Duration::from_millis(20);

fn rest(port: &mut UdpPort, idle: Duration) {
    // The idle time counts from the last message, not from the last wake-up: one silence is paid for once.
    if idle >= AWAKE {
        port.wait(Duration::from_millis(20)).expect("the port works");
    }
}

fn answer_then_idle(port: &mut UdpPort) -> (Cost, Cost) {
    let before = Cost::of(UsageWho::RUSAGE_THREAD);
    let mut busy = Cost::default();
    let (mut answered_count, mut last) = (0, Instant::now());
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
fn awake_in_the_storm_asleep_in_the_calm() {
    if !has_two_cpus() {
        return;
    }
    let silence = Duration::from_millis(400);
    let conversation = Conversation {
        silence,
        ..CONVERSATION
    };
    let (busy, idle) = converse(&conversation, answer_then_idle);
    println!("busy {busy:?}\nidle {idle:?}");
    assert!(busy.voluntary_switches_count <= MESSAGES_COUNT as u64 / 10, "{busy:?}");
    assert!(idle.voluntary_switches_count > 0, "{idle:?}");
    assert!(idle.cpu <= silence / 4, "{idle:?}");
}

// ---- 3. What a look costs -------------------------------------------------------------------------------------------

const LOOKS_COUNT: u64 = 1000;

/// System calls of a server that looks a thousand times at nothing.
fn looks_calls_count((mut client, mut server): (impl Port, impl Port)) -> u64 {
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
    // And it has not gone blind.
    queue(&mut client, 64);
    client.flush().expect("the port works");
    receive(&mut server, 1);
    calls_count
}

#[test]
fn a_look_at_a_socket_is_a_system_call() {
    let calls_count = looks_calls_count(udp_pair(WaitHow::Spin, Batching::Single));
    assert_eq!(calls_count, LOOKS_COUNT);
}

#[test]
fn a_look_at_a_completion_queue_is_not() {
    let Some(pair) = uring_pair(UringVariant::new(UringWait::Spin)) else {
        return;
    };
    let calls_count = looks_calls_count(pair);
    println!("{LOOKS_COUNT} looks at nothing: {calls_count} system calls");
    assert!(calls_count <= 2, "{calls_count}");
}
