//! Senders and a receiver at an emulated switch: what its laps count is what the hosts see, and nothing of it stays behind.
#![forbid(unsafe_code)]

#[path = "fabric/many.rs"]
mod many;
#[path = "fabric/stopped.rs"]
mod stopped;

use std::{
    net::UdpSocket,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use bench::{
    measure::gates::Observation,
    switch::{Dilation, Fabric, Kind, Shape, choose},
};
use dataplane_netns::Names;
use dataplane_queue::{Limit, SimTime};
use nix::sys::socket::{setsockopt, sockopt};

const MBIT: u64 = 1_000_000;
/// Of IPv4's second byte: the sender reacts to marks (RFC 3168 section 5).
const ECT_0: i32 = 0b10;

/// 200 Mbit/s, built ten times slower, with a port of 40 frames that marks above 5.
fn shape() -> Shape {
    Shape {
        delay: SimTime::from_us(20),
        dilation: Dilation::new(10).expect("ten"),
        log_events_max: 10_000,
        ..Shape::new(200 * MBIT, Limit::Packets(40), Some(Limit::Packets(5)))
    }
}

/// As many datagrams as each sender gets rid of at once.
fn burst(fabric: &Fabric, datagrams_count: usize) {
    let receiver = fabric.receiver();
    let sink = receiver
        .run(|| UdpSocket::bind((receiver.ipv4(), 0)))
        .expect("inside")
        .expect("a socket");
    let to = sink.local_addr().expect("an address");
    for sender in fabric.senders() {
        let socket = sender
            .run(|| UdpSocket::bind((sender.ipv4(), 0)))
            .expect("inside")
            .expect("a socket");
        for _ in 0..datagrams_count {
            socket.send_to(&[0; 1000], to).expect("sent");
        }
    }
    // 40 frames wait at the most, 0.4 ms each.
    thread::sleep(Duration::from_millis(200));
}

/// In one process, too, one at a time: a switch spins on a CPU of its own, and there is one to give.
static ONE_SWITCH: Mutex<()> = Mutex::new(());

fn built(test: &str, kind: Kind, shape: &Shape) -> Option<(Fabric, MutexGuard<'static, ()>)> {
    let guard = ONE_SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    match kind.can_be(shape) {
        Ok(()) => Some((Fabric::build(kind, 3, shape).expect("a fabric"), guard)),
        Err(why) => {
            println!("{test}, {kind}: not run: {why}");
            None
        }
    }
}

#[test]
fn laps_count_what_came_between_them_and_begin_anew() {
    let Some((fabric, _guard)) = built("laps", Kind::Soft, &shape()) else {
        return;
    };
    burst(&fabric, 100);
    let lap = fabric.lap().expect("it works");
    let from_senders: u64 = lap.to_senders.iter().map(|port| port.received_count).sum();
    // Beside the datagrams, kernels tell their neighbours of themselves (ICMPv6), to all.
    assert!((300..320).contains(&from_senders), "{lap:?}");
    let port = &lap.to_receiver;
    assert!((300..320).contains(&(port.sent_count + port.dropped_count)), "{port:?}");
    // Nothing that is for the receiver goes to others.
    assert!(lap.to_senders.iter().all(|port| port.sent_count < 20), "{lap:?}");
    assert!(port.dropped_count > 50, "{port:?}");
    // Datagrams of hosts that know no ECN are not marked.
    assert_eq!(port.marked_count, 0, "{port:?}");
    assert!(port.queue_bytes_max > Some(39 * 1000), "{port:?}");
    assert!(port.overrun_ratio > Some(1.0), "{port:?}");
    let unexplained = Observation::Unexplained { frames_count: 0 };
    assert!(lap.observations.contains(&unexplained), "{lap:?}");
    let released = |seen: &Observation| matches!(seen, Observation::Released { packet_ns: 615_200, .. });
    assert!(lap.observations.iter().any(released), "{:?}", lap.observations);

    let quiet = fabric.lap().expect("it works");
    assert!(quiet.to_receiver.sent_count < 20, "{quiet:?}");
    assert!(quiet.to_receiver.queue_bytes_max < Some(1000), "{quiet:?}");
    let ended = fabric.stop().expect("it worked until now");
    assert_eq!(ended.unexplained_count, Some(0), "{ended:?}");
    assert!(ended.log.events().len() > 300, "{ended:?}");
}

/// Datagrams whose senders react to marks: each mark of the switch is one that the receiver sees, and what is not dropped arrives.
fn marks_are_seen(kind: Kind, shape: &Shape) {
    let Some((fabric, _guard)) = built("marks are seen", kind, shape) else {
        return;
    };
    let receiver = fabric.receiver();
    let sink = receiver
        .run(|| UdpSocket::bind((receiver.ipv4(), 0)))
        .expect("inside")
        .expect("a socket");
    sink.set_read_timeout(Some(Duration::from_millis(500))).expect("a time");
    // Nobody reads while the senders send.
    setsockopt(&sink, sockopt::RcvBufForce, &(4 << 20)).expect("root may");
    let to = sink.local_addr().expect("an address");
    for sender in fabric.senders() {
        let socket = sender
            .run(|| UdpSocket::bind((sender.ipv4(), 0)))
            .expect("inside")
            .expect("a socket");
        setsockopt(&socket, sockopt::Ipv4Tos, &ECT_0).expect("a capable sender");
        for _ in 0..100 {
            socket.send_to(&[0; 1000], to).expect("sent");
        }
    }
    let (came_count, marked_count) = tests::ecn::receive_all(&sink);
    let lap = fabric.lap().expect("it works");
    let port = &lap.to_receiver;
    assert_eq!(port.marked_count, marked_count, "{kind}: {port:?}");
    assert!(marked_count > 20, "{kind}: {port:?}");
    // Behind lines of their own, senders are held back by their sockets, and not all of them burst at once.
    assert!(port.dropped_count > 10, "{kind}: {port:?}");
    // Kernels' own frames may be among those that were dropped.
    assert!(
        (300..320).contains(&(came_count + port.dropped_count)),
        "{kind}: {came_count} came, {port:?}"
    );
    assert!(port.overrun_ratio > Some(1.0), "{kind}: {port:?}");
    assert_eq!(fabric.facts()["switch"], kind.name());
    let ended = fabric.stop().expect("it worked until now");
    assert_eq!(ended.unexplained_count.unwrap_or_default(), 0, "{kind}");
}

#[test]
fn marks_of_the_soft_switch_are_those_that_the_receiver_sees() {
    marks_are_seen(Kind::Soft, &shape());
}

#[test]
fn marks_of_the_kernels_switch_are_those_that_the_receiver_sees() {
    let here = Shape {
        delay: SimTime::ZERO,
        log_events_max: 0,
        ..shape()
    };
    marks_are_seen(Kind::Kernel, &here);
    let refused = Kind::Kernel.can_be(&shape()).expect_err("it has no delay");
    assert!(refused.contains("delays nothing"), "{refused}");
}

#[test]
fn another_switch_comes_between_the_same_hosts() {
    let Some((mut fabric, _guard)) = built("another switch", Kind::Soft, &shape()) else {
        return;
    };
    burst(&fabric, 100);
    let wide = Shape::new(200 * MBIT, Limit::Packets(400), None);
    let ended = fabric.reshape(&wide).expect("another");
    assert!(ended.lap.to_receiver.dropped_count > 50, "{ended:?}");
    burst(&fabric, 100);
    let ended = fabric.stop().expect("it worked until now");
    let port = &ended.lap.to_receiver;
    assert!((300..320).contains(&port.sent_count), "{port:?}");
    assert_eq!(port.dropped_count, 0, "{port:?}");
}

#[test]
fn nothing_of_a_fabric_stays_behind() {
    let Some((fabric, _guard)) = built("nothing stays", Kind::Soft, &shape()) else {
        return;
    };
    let facts = fabric.facts();
    assert_eq!(facts["switch"], "soft");
    assert!(facts["kernel_rto_min"].contains("÷ 10"), "{facts:?}");
    let Names::Published(paths) = fabric.network().facts().names.clone() else {
        panic!("root has names: {:?}", fabric.network().facts());
    };
    assert!(paths.iter().all(|path| path.exists()));
    drop(fabric);
    assert!(!paths.iter().any(|path: &PathBuf| Path::exists(path)), "{paths:?}");
}

#[test]
fn who_asks_for_what_is_not_there_hears_of_every_kind_why() {
    let nonsense = Shape::new(0, Limit::Packets(1), None);
    let why = choose(&Kind::ALL, &nonsense).expect_err("no line carries nothing");
    for kind in Kind::ALL {
        assert!(why.contains(kind.name()), "{why}");
    }
}
