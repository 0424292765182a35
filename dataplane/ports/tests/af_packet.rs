//! The packet port against itself and against the kernel's UDP: on `lo`, and over a veth pair in a network namespace
//! that the test's thread makes for itself. Without CAP_NET_RAW or CAP_SYS_ADMIN: skipped, with the reason printed.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use dataplane_ports::af_packet::{self, Mac, OpenError, PacketOptions, PacketPeer, PacketPort, PacketWait};
use dataplane_waist::{Peer, Port, Support, TxError};
use nix::sched::{CloneFlags, unshare};

/// How long anything here may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);

const MAC_A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const MAC_B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

fn exists(interface: &str) -> bool {
    match af_packet::probe(interface) {
        Ok(Support::Native) => true,
        Ok(other) => {
            println!("skipped: {other:?}");
            false
        }
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}

fn on_lo(local: SocketAddr, wait: PacketWait) -> PacketOptions {
    PacketOptions {
        frame_bytes_max: 9000,
        ..PacketOptions::new("lo", local, Mac::default(), wait)
    }
}

fn to(addr: SocketAddr, mac: Mac) -> Vec<PacketPeer> {
    vec![PacketPeer { addr, mac }]
}

fn open(options: &PacketOptions) -> PacketPort {
    PacketPort::open(options).unwrap_or_else(|error| panic!("{error}"))
}

fn send(port: &mut PacketPort, to: Peer, frame: &[u8]) {
    port.tx(to, frame.len(), &mut |bytes| bytes.copy_from_slice(frame))
        .expect("there is room");
    port.flush().expect("the port works");
}

fn receive(port: &mut PacketPort, count: usize) -> Vec<(Peer, Vec<u8>)> {
    let mut frames = Vec::new();
    turn_until(port, &mut frames, |_, frames| frames.len() >= count);
    frames
}

fn turn_until(
    port: &mut PacketPort,
    frames: &mut Vec<(Peer, Vec<u8>)>,
    done: impl Fn(&PacketPort, &[(Peer, Vec<u8>)]) -> bool,
) {
    let since = Instant::now();
    while !done(port, frames) && since.elapsed() < PATIENCE {
        port.wait(Duration::from_millis(20)).expect("the port works");
        port.rx_burst(&mut |frame| frames.push((frame.from, frame.bytes.to_vec())))
            .expect("the port works");
    }
    assert!(done(port, frames), "{:?} {} frames", port.stats(), frames.len());
}

fn pattern(len_bytes: usize) -> Vec<u8> {
    (0..len_bytes).map(|i| (i * 31 + len_bytes) as u8).collect()
}

/// A network namespace for this thread alone, with what `ip` is told to put into it. `false`, with the reason printed,
/// if that is not allowed.
fn private_network(commands: &[&str]) -> bool {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        println!("skipped: no network namespace ({errno}); run as root");
        return false;
    }
    for command in commands {
        match Command::new("ip").args(command.split_whitespace()).output() {
            Ok(output) => assert!(
                output.status.success(),
                "ip {command}: {}",
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => {
                println!("skipped: no `ip` here ({error}); install iproute2");
                return false;
            }
        }
    }
    true
}

/// Two ends of one cable in a private namespace: `pa` without an address, `pb` with 10.77.0.2 and fd77::2.
fn private_cable() -> bool {
    private_network(&[
        "link set lo up",
        "link add pa mtu 9100 address 02:00:00:00:00:0a type veth peer name pb mtu 9100 address 02:00:00:00:00:0b",
        "addr add 10.77.0.2/24 dev pb",
        "addr add fd77::2/64 dev pb nodad",
        "link set pa up",
        "link set pb up",
        "neigh add 10.77.0.1 lladdr 02:00:00:00:00:0a dev pb",
        "neigh add fd77::1 lladdr 02:00:00:00:00:0a dev pb",
    ])
}

#[test]
fn two_ports_on_lo_hear_each_frame_once() {
    if !exists("lo") {
        return;
    }
    let mut locals = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        locals.push((Ipv6Addr::LOCALHOST, 0).into());
    }
    for (local, wait) in locals
        .iter()
        .flat_map(|local| [PacketWait::Poll, PacketWait::Spin].map(|wait| (*local, wait)))
    {
        let mut server = open(&on_lo(local, wait));
        let mut client = open(&PacketOptions {
            peers: to(server.local_addr(), Mac::default()),
            learn_peers_max: 0,
            ..on_lo(local, wait)
        });
        for len_bytes in [0, 1, 64, 1472, 8972, 9000] {
            let request = pattern(len_bytes);
            send(&mut client, Peer(0), &request);
            assert_eq!(
                receive(&mut server, 1),
                [(Peer(0), request.clone())],
                "{local} {wait:?}"
            );
            send(&mut server, Peer(0), &request);
            assert_eq!(receive(&mut client, 1), [(Peer(0), request)], "{local} {wait:?}");
        }
        for port in [&mut client, &mut server] {
            port.rx_burst(&mut |frame| panic!("{frame:?} came twice"))
                .expect("the port works");
            let stats = port.stats();
            assert_eq!((stats.rx_frames_count, stats.tx_frames_count), (6, 6));
            assert_eq!((stats.malformed_count, stats.strangers_count), (0, 0));
        }
    }
}

#[test]
fn a_plain_socket_on_lo_is_heard_with_its_checksum_unmade() {
    if !exists("lo") {
        return;
    }
    let mut port = open(&on_lo((Ipv4Addr::LOCALHOST, 0).into(), PacketWait::Poll));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback exists");
    for len_bytes in [0, 64, 9000] {
        socket
            .send_to(&pattern(len_bytes), port.local_addr())
            .expect("loopback works");
        assert_eq!(receive(&mut port, 1), [(Peer(0), pattern(len_bytes))]);
    }
    // The companion socket took them too: no "port unreachable" came back.
    socket.connect(port.local_addr()).expect("loopback works");
    for _ in 0..3 {
        socket.send(b"still there?").expect("nobody refused");
    }
    assert_eq!(receive(&mut port, 3).len(), 3);
}

#[test]
fn speaks_with_the_kernel_over_veth() {
    if !private_cable() || !exists("pa") {
        return;
    }
    // The port is a host that exists nowhere else: the kernel here has neither of its addresses.
    for (local, remote) in [("10.77.0.1:700", "10.77.0.2:0"), ("[fd77::1]:700", "[fd77::2]:0")] {
        let local: SocketAddr = local.parse().expect("an address");
        let socket = UdpSocket::bind(remote).expect("the address is ours");
        socket.set_read_timeout(Some(PATIENCE)).expect("allowed");
        let mut port = open(&PacketOptions {
            frame_bytes_max: 8972,
            ..PacketOptions::new("pa", local, MAC_A, PacketWait::Poll)
        });
        for len_bytes in [1, 64, 1472, 8972] {
            socket.send_to(&pattern(len_bytes), local).expect("there is a route");
            assert_eq!(receive(&mut port, 1), [(Peer(0), pattern(len_bytes))], "{local}");
            send(&mut port, Peer(0), &pattern(len_bytes));
            let mut bytes = [0; 10_000];
            let (got_bytes, from) = socket.recv_from(&mut bytes).expect("the kernel takes our frame");
            assert_eq!((&bytes[..got_bytes], from), (&pattern(len_bytes)[..], local));
        }
        // Nothing that the kernel sends beside (neighbour discovery, ...) passes the filter.
        let stats = port.stats();
        assert_eq!((stats.malformed_count, stats.strangers_count), (0, 0), "{stats:?}");
    }
}

#[test]
fn strangers_and_oversize_are_counted() {
    if !private_cable() || !exists("pa") {
        return;
    }
    let local = SocketAddr::from(([10, 77, 0, 1], 700));
    let server = SocketAddr::from(([10, 77, 0, 2], 800));
    let mut port = open(&PacketOptions {
        peers: to(SocketAddr::from(([10, 77, 0, 2], 900)), MAC_B),
        learn_peers_max: 1,
        frame_bytes_max: 100,
        ..PacketOptions::new("pa", local, MAC_A, PacketWait::Poll)
    });
    let sockets: Vec<_> = (0..2).map(|_| UdpSocket::bind("10.77.0.2:0").expect("ours")).collect();
    for socket in &sockets {
        socket.send_to(b"hello", local).expect("there is a route");
    }
    let mut frames = Vec::new();
    turn_until(&mut port, &mut frames, |port, _| port.stats().strangers_count == 1);
    assert_eq!(frames, [(Peer(1), b"hello".to_vec())], "one learned, one not");

    // One that shows in the ring's place, one that is cut by it.
    for len_bytes in [101, 5000] {
        sockets[0]
            .send_to(&pattern(len_bytes), local)
            .expect("there is a route");
    }
    turn_until(&mut port, &mut frames, |port, _| port.stats().malformed_count == 2);

    // Another MAC than ours, as on a promiscuous interface.
    let mut liar = open(&PacketOptions {
        peers: to(local, MAC_B),
        ..PacketOptions::new("pb", server, MAC_B, PacketWait::Poll)
    });
    send(&mut liar, Peer(0), b"not for you");
    turn_until(&mut port, &mut frames, |port, _| port.stats().strangers_count == 2);
    assert_eq!(frames.len(), 1);

    assert_eq!(port.tx(Peer(0), 101, &mut |_| ()), Err(TxError::TooLong));
    assert_eq!(port.tx(Peer(2), 1, &mut |_| ()), Err(TxError::NoPeer));
}

#[test]
fn a_full_receive_ring_drops_and_counts() {
    if !exists("lo") {
        return;
    }
    let mut port = open(&PacketOptions {
        ring_frames: 8,
        ..on_lo((Ipv4Addr::LOCALHOST, 0).into(), PacketWait::Poll)
    });
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback exists");
    for index in 0..20_u8 {
        socket.send_to(&[index], port.local_addr()).expect("loopback works");
    }
    let frames = receive(&mut port, 8);
    assert_eq!(frames, (0..8).map(|i| (Peer(0), vec![i])).collect::<Vec<_>>());
    assert_eq!(port.stats().rx_dropped_count, 12);
    assert_eq!(port.stats().rx_dropped_count, 12, "asking twice does not forget");
    socket.send_to(b"again", port.local_addr()).expect("loopback works");
    assert_eq!(receive(&mut port, 1), [(Peer(0), b"again".to_vec())]);
}

#[test]
fn a_full_transmit_ring_refuses_and_empties() {
    if !exists("lo") {
        return;
    }
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut server = open(&on_lo(here, PacketWait::Poll));
    let mut client = open(&PacketOptions {
        peers: to(server.local_addr(), Mac::default()),
        ring_frames: 8,
        ..on_lo(here, PacketWait::Poll)
    });
    for _ in 0..3 {
        for index in 0..8 {
            client
                .tx(Peer(0), 1, &mut |bytes| bytes[0] = index)
                .expect("there is room");
        }
        let before = client.stats().tx_dropped_count;
        assert_eq!(client.tx(Peer(0), 1, &mut |_| panic!("refused")), Err(TxError::Full));
        assert_eq!(client.stats().tx_dropped_count, before + 1);
        client.flush().expect("the port works");
        assert_eq!(
            receive(&mut server, 8),
            (0..8).map(|i| (Peer(0), vec![i])).collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_link_that_goes_away_is_loss_and_then_an_error() {
    if !private_cable() || !exists("pa") {
        return;
    }
    let local = SocketAddr::from(([10, 77, 0, 1], 700));
    let mut port = open(&PacketOptions {
        peers: to(SocketAddr::from(([10, 77, 0, 2], 900)), MAC_B),
        ring_frames: 4,
        ..PacketOptions::new("pa", local, MAC_A, PacketWait::Poll)
    });
    let ip = |command: &str| {
        let status = Command::new("ip").args(command.split_whitespace()).status();
        assert!(status.expect("ip ran before").success(), "ip {command}");
    };
    ip("link set pa down");
    for _ in 0..20 {
        let _ = port.tx(Peer(0), 10, &mut |bytes| bytes.fill(0));
        port.flush().expect("a link that is down is loss");
        port.wait(Duration::from_millis(1))
            .expect("a link that is down is loss");
    }
    assert!(
        port.stats().tx_dropped_count > 0,
        "the ring filled up: {:?}",
        port.stats()
    );
    ip("link set pa up");
    let socket = UdpSocket::bind("10.77.0.2:900").expect("ours");
    let since = Instant::now();
    // The carrier takes a moment; what waited in the ring goes out first.
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("allowed");
    while socket.recv(&mut [0; 100]).is_err() {
        port.flush().expect("the port works");
        assert!(since.elapsed() < PATIENCE, "{:?}", port.stats());
    }

    ip("link del pa");
    let since = Instant::now();
    let error = loop {
        let _ = port.tx(Peer(0), 10, &mut |bytes| bytes.fill(0));
        if let Err(error) = port.flush() {
            break error;
        }
        port.wait(Duration::from_millis(1)).expect("not an error of waiting");
        assert!(since.elapsed() < PATIENCE, "{:?}", port.stats());
    };
    assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
}

#[test]
fn nonsense_options_are_refused() {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let good = on_lo(here, PacketWait::Poll);
    let bad = [
        PacketOptions {
            ring_frames: 5,
            ..good.clone()
        },
        PacketOptions {
            ring_frames: 2,
            ..good.clone()
        },
        PacketOptions {
            frame_bytes_max: 0,
            ..good.clone()
        },
        PacketOptions {
            frame_bytes_max: 65_508,
            ..good.clone()
        },
        PacketOptions {
            ring_frames: 65_536,
            ..good.clone()
        },
        PacketOptions {
            local: "0.0.0.0:7".parse().expect("an address"),
            ..good.clone()
        },
        PacketOptions {
            peers: to((Ipv6Addr::LOCALHOST, 1).into(), MAC_A),
            ..good.clone()
        },
    ];
    for options in bad {
        let error = PacketPort::open(&options).expect_err("refused");
        assert!(matches!(error, OpenError::Options(_)), "{options:?}: {error}");
    }
    let error = PacketPort::open(&PacketOptions {
        interface: "nowhere0".to_owned(),
        ..good
    })
    .expect_err("refused");
    assert!(matches!(error, OpenError::NoInterface { .. }), "{error}");

    if private_cable() && exists("pa") {
        let error = PacketPort::open(&PacketOptions {
            frame_bytes_max: 9073,
            ..PacketOptions::new(
                "pa",
                "10.77.0.1:700".parse().expect("an address"),
                MAC_A,
                PacketWait::Poll,
            )
        })
        .expect_err("above the MTU");
        assert!(error.to_string().contains("mtu 9101"), "{error}");
    }
}

#[test]
fn an_address_in_use_is_an_error() {
    if !exists("lo") {
        return;
    }
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback exists");
    let taken = socket.local_addr().expect("bound");
    let error = PacketPort::open(&on_lo(taken, PacketWait::Poll)).expect_err("taken");
    assert!(error.to_string().contains("in use"), "{error}");
}
