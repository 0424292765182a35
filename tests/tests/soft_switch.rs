//! The switch in user space between real kernels: what it counts is what hosts see. No test judges how fast it is.
#![forbid(unsafe_code)]

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use bench::soft_switch::{Report, SoftSwitch, hosts};
use dataplane_netns::{Host, Network};
use dataplane_queue::{Discipline, DropTailOptions, Limit, Marking, SimTime};
use dataplane_softswitch::{Faults, HostLink, SwitchOptions, What};
use nix::sys::socket::{setsockopt, sockopt};
use tests::{ecn::receive_all, netns::all_reach_all};

const MBIT: u64 = 1_000_000;
/// Of IPv4's second byte: the sender reacts to marks (RFC 3168, section 5).
const ECT_0: i32 = 0b10;
/// Bounds every wait for a frame.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// No frame is under way for so long: the receiver has all that it will get.
const QUIET: Duration = Duration::from_millis(500);

/// A link of 20 Mbit/s and 0.5 ms each way, whose port has room for `limit` and marks at `marking`.
fn link(limit: Limit, marking: Marking) -> HostLink {
    HostLink {
        discipline: Discipline::DropTail(DropTailOptions { limit, marking }),
        ..HostLink::new(20 * MBIT, SimTime::from_us(500), limit)
    }
}

/// A network with a switch of `options`, or why there is none here.
fn started(test: &str, options: &SwitchOptions) -> Option<(Network, SoftSwitch)> {
    if !tests::programs::can(test) {
        return None;
    }
    let network = hosts(options.links.len()).expect("hosts around a switch");
    let switch = SoftSwitch::start(&network, options, None).expect("a switch");
    Some((network, switch))
}

fn stopped(switch: SoftSwitch) -> Report {
    let report = switch.stop().expect("it worked until now");
    assert_eq!(report.account.unexplained_count(), 0, "{report:?}");
    assert_eq!(report.unexplained_count(), 0, "{report:?}");
    report
}

fn udp_in(host: &Host) -> UdpSocket {
    let socket = host
        .run(|| UdpSocket::bind((host.ipv4(), 0)))
        .expect("inside")
        .expect("a socket");
    socket.set_read_timeout(Some(QUIET)).expect("a time");
    socket
}

#[test]
fn every_host_reaches_every_other() {
    let options = SwitchOptions::new(3, link(Limit::Packets(100), Marking::Never), 1);
    let Some((network, switch)) = started("every_host_reaches_every_other", &options) else {
        return;
    };
    let pings_count = all_reach_all(&network).expect("answers") as u64;
    let report = stopped(switch);
    let sent_count: u64 = report.account.ports.iter().map(|port| port.sent_count).sum();
    assert!(sent_count >= 2 * pings_count, "{report:?}");
    assert!(report.lateness.release_ns.total_count() >= sent_count);
}

/// Two hosts send at once to a third: what is marked, what is lost, and what arrives, by the switch and by the receiver.
#[test]
fn marks_and_losses_of_the_switch_are_those_that_the_receiver_sees() {
    let marking = Marking::AtEnqueue(Limit::Packets(5));
    let mut options = SwitchOptions::new(3, link(Limit::Packets(40), marking), 1);
    options.log_events_max = 10_000;
    let Some((network, switch)) = started("marks_and_losses", &options) else {
        return;
    };
    let receiver = udp_in(&network.hosts()[2]);
    let to = receiver.local_addr().expect("an address");
    let senders: Vec<thread::JoinHandle<()>> = [0, 1]
        .map(|host| {
            let socket = udp_in(&network.hosts()[host]);
            setsockopt(&socket, sockopt::Ipv4Tos, &ECT_0).expect("a capable sender");
            thread::spawn(move || {
                for number in 0..300_u32 {
                    let mut datagram = [0; 1000];
                    datagram[..4].copy_from_slice(&number.to_be_bytes());
                    socket.send_to(&datagram, to).expect("sent");
                }
            })
        })
        .into();
    let (came_count, marked_count) = receive_all(&receiver);
    for sender in senders {
        sender.join().expect("sent");
    }
    let report = stopped(switch);
    let port = &report.account.ports[2];
    assert_eq!(port.marked_count, marked_count, "{report:?}");
    assert!(marked_count > 50, "{report:?}");
    assert!(port.drops.queue_full_count > 50, "{report:?}");
    let logged_count = report
        .log
        .events()
        .iter()
        .filter(|event| event.what == What::Marked)
        .count();
    assert_eq!(logged_count as u64, marked_count);
    // Other frames (neighbour discovery) may be among them.
    assert!(port.sent_count >= came_count, "{report:?}");
    assert!(came_count + port.drops.total_count() >= 600, "{report:?}");
}

/// Over a cable that loses and delays frames by chance, TCP still brings every byte, in order.
#[test]
fn tcp_brings_every_byte_over_a_lossy_cable() {
    let mut link = link(Limit::Packets(100), Marking::Never);
    link.faults = Faults {
        loss_ratio: 0.02,
        late_ratio: 0.02,
        late_by: SimTime::from_ms(3),
    };
    let options = SwitchOptions::new(2, link, 7);
    let Some((network, switch)) = started("tcp_over_a_lossy_cable", &options) else {
        return;
    };
    let sent: Vec<u8> = (0..400_000_u32).map(|at| (at % 253) as u8).collect();
    let [near, far] = network.hosts() else {
        unreachable!("two hosts")
    };
    let listener = far
        .run(|| TcpListener::bind((far.ipv4(), 0)))
        .expect("inside")
        .expect("a socket");
    let to = listener.local_addr().expect("an address");
    let receiver = thread::spawn(move || -> io::Result<Vec<u8>> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(WAIT_MAX))?;
        let mut received = Vec::new();
        stream.read_to_end(&mut received)?;
        Ok(received)
    });
    let mut stream = near
        .run(|| TcpStream::connect(to))
        .expect("inside")
        .expect("a connection");
    stream.write_all(&sent).expect("written");
    drop(stream);
    let received = receiver.join().expect("no panic").expect("everything came");
    let report = stopped(switch);
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    let ports = &report.account.ports;
    assert!(
        ports.iter().map(|port| port.drops.lost_count).sum::<u64>() > 0,
        "{report:?}"
    );
    assert!(ports.iter().map(|port| port.late_count).sum::<u64>() > 0, "{report:?}");
}

/// More frames than the switch has memory for wait at a slow link; when they are gone, it goes on as before.
#[test]
fn a_switch_whose_memory_was_full_goes_on() {
    let options = SwitchOptions::new(2, link(Limit::NONE, Marking::Never), 1);
    let Some((network, switch)) = started("a_switch_whose_memory_was_full", &options) else {
        return;
    };
    let [near, far] = network.hosts() else {
        unreachable!("two hosts")
    };
    let (sender, receiver) = (udp_in(near), udp_in(far));
    let to = receiver.local_addr().expect("an address");
    for _ in 0..3 {
        for _ in 0..10_000 {
            sender.send_to(&[0; 100], to).expect("sent");
        }
        receive_all(&receiver);
    }
    assert!(all_reach_all(&network).expect("answers") > 0);
    let report = stopped(switch);
    let lost_count: u64 = report.wires.iter().map(|wire| wire.rx_lost_count()).sum();
    assert!(lost_count > 1_000, "its memory was never full: {report:?}");
}

#[test]
fn a_network_that_does_not_fit_is_refused() {
    let two = SwitchOptions::new(2, link(Limit::Packets(100), Marking::Never), 1);
    if !tests::programs::can("a_network_that_does_not_fit") {
        return;
    }
    let network = hosts(3).expect("hosts around a switch");
    let refused = SoftSwitch::start(&network, &two, None).map(drop).expect_err("refused");
    assert!(
        refused.to_string().contains("3 hosts and the switch 2 links"),
        "{refused}"
    );
}
