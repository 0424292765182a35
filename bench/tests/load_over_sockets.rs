//! Both loops over real sockets and a real echo server: what was sent is accounted for to the last request. No test
//! here looks at a time; the machine may be as slow as it likes.
#![forbid(unsafe_code)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use bench::load::{ClosedOptions, LoadResult, OpenOptions, Schedule, closed, open};
use dataplane_echo::EchoServer;
use dataplane_ports::udp::{Batching, UdpOptions, UdpPort, WaitHow};
use dataplane_waist::{MemoryLog, MonotonicClock, Node, Peer};

/// Runs `client` against an echo server in another thread.
fn beside_a_server(client: impl FnOnce(&mut UdpPort, &MonotonicClock) -> LoadResult) -> LoadResult {
    let options = UdpOptions {
        wait: WaitHow::Poll,
        batch: Batching::Multi,
        ..UdpOptions::default()
    };
    let server_port = UdpPort::open(&UdpOptions {
        learn_peers_max: 1,
        ..options.clone()
    })
    .expect("a socket on loopback");
    let mut client_port = UdpPort::open(&UdpOptions {
        peers: vec![server_port.local_addr()],
        connect: true,
        ..options
    })
    .expect("a socket on loopback");

    let clock = MonotonicClock::new();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let server = thread::spawn(move || {
        let mut node = Node::new(server_port, MemoryLog::default(), EchoServer, 1);
        node.run(&clock, &mut || stopped.load(Relaxed))
            .expect("the socket works");
    });
    let result = client(&mut client_port, &clock);
    stop.store(true, Relaxed);
    server.join().expect("the server does not panic");
    result
}

fn assert_accounted_for(result: &LoadResult) {
    assert_eq!(
        result.sent_count,
        result.received_count + result.lost_count,
        "{result:?}"
    );
    assert_eq!(result.latency.total_count(), result.sent_count);
    assert_eq!(result.abandoned_count, 0);
    assert_eq!(result.corrupted_count + result.duplicate_count, 0);
    assert_eq!(result.rejects.iter().sum::<u64>(), 0);
    assert!(result.received_count > 0, "nothing came back over loopback");
    let sent_in_series: u64 = result.series.iter().map(|point| point.sent_count).sum();
    assert_eq!(sent_in_series, result.sent_count);
}

#[test]
fn the_open_loop_sends_all_of_its_schedule() {
    let schedule = Schedule::poisson(2_000.0, Duration::from_millis(250), 1).expect("within bounds");
    let result = beside_a_server(|port, clock| {
        let stop = AtomicBool::new(false);
        open(port, Peer(0), clock, &schedule, &OpenOptions::default(), &stop).expect("the socket works")
    });
    assert_accounted_for(&result);
    assert_eq!(result.sent_count, schedule.requests_count());
    assert_eq!(result.schedule_lag.total_count(), result.sent_count);
    assert!(result.cpu_ns > 0);
}

#[test]
fn the_closed_loop_keeps_its_window() {
    let options = ClosedOptions {
        frame_bytes: 1_400,
        window: 8,
        duration: Duration::from_millis(200),
        ..ClosedOptions::default()
    };
    let result = beside_a_server(|port, clock| {
        let stop = AtomicBool::new(false);
        closed(port, Peer(0), clock, &options, &stop).expect("the socket works")
    });
    assert_accounted_for(&result);
    assert_eq!(result.schedule_lag.total_count(), 0);
}

#[test]
fn a_server_that_is_not_there_is_silence_and_no_error() {
    let gone = {
        let port = UdpPort::open(&UdpOptions::default()).expect("a socket on loopback");
        port.local_addr()
    };
    let mut port = UdpPort::open(&UdpOptions {
        peers: vec![gone],
        connect: true,
        wait: WaitHow::Poll,
        ..UdpOptions::default()
    })
    .expect("a socket on loopback");
    let schedule = Schedule::uniform(100.0, Duration::from_millis(100)).expect("within bounds");
    let options = OpenOptions {
        timeout: Duration::from_millis(50),
        ..OpenOptions::default()
    };
    let stop = AtomicBool::new(false);
    let clock = MonotonicClock::new();
    let result = open(&mut port, Peer(0), &clock, &schedule, &options, &stop).expect("ICMP errors are loss");
    assert_eq!(
        (result.sent_count, result.received_count, result.lost_count),
        (10, 0, 10)
    );
}
