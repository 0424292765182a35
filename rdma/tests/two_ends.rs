//! Two ends that find each other over TCP, and what stands on a connection: a window, a port. Over every provider.

#[path = "support/devices.rs"]
mod devices;
#[path = "support/loopback.rs"]
mod loopback;
#[path = "support/memory_wire.rs"]
mod memory_wire;
#[path = "support/place.rs"]
#[allow(dead_code, reason = "the suite needs hosts and counters, too")]
mod place;
#[path = "support/stranger.rs"]
mod stranger;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use dataplane_waist::{Completion, Peer, Port, Window, WindowError, WrId, middleware::ClusterKey};
use devices::Across;
use loopback::loopback;
use place::Inside;
use rdma::{
    CompletionError, Connected, Data, Device, Local, MemoryKey, Operation, PeerKeys, PostError, Provider,
    ProviderError, QpOptions, RdmaPort, RdmaPortOptions, RdmaWindow, SendRequest, WindowOptions, Wire, card,
    handshake::{HandshakeError, Role, VERSION},
    roce::{RoceDevice, RoceOptions, RoceWire},
    shm::{self, ShmLink, Side},
    system_randomness,
    verbs::VerbsDevice,
    wire::UDP_PORT,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// rdma_rxe takes 7 retries for "for ever", and NICs count no further.
fn as_nics_count(options: QpOptions) -> QpOptions {
    QpOptions {
        retries_max: options.retries_max.min(6),
        ..options
    }
}

fn key(secret: &[u8]) -> ClusterKey {
    ClusterKey::new(secret).expect("long enough")
}

fn streams() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let client = TcpStream::connect(address).expect("it listens");
    let (server, _) = listener.accept().expect("a client");
    (client, server)
}

/// Runs both sides of a handshake; what each made of it.
fn shake<A: Send, B, R: Send, S>(
    (a, b): (&mut A, &mut B),
    client: impl FnOnce(&mut A, TcpStream) -> R + Send,
    server: impl FnOnce(&mut B, TcpStream) -> S,
) -> (R, S) {
    let (stream_a, stream_b) = streams();
    thread::scope(|scope| {
        let client = scope.spawn(move || client(a, stream_a));
        let served = server(b, stream_b);
        (client.join().expect("the client's side"), served)
    })
}

fn connect_windows<A: Provider + Send, B: Provider + Send>(
    a: &mut RdmaWindow<A>,
    b: &mut RdmaWindow<B>,
) -> (Connected, Connected) {
    fn connect<P: Provider>(window: &mut RdmaWindow<P>, stream: TcpStream, role: Role) -> Connected {
        let prepared = window.prepare().expect("room");
        let key = key(b"a secret of a cluster");
        prepared
            .establish(window.provider_mut(), (&stream, role, &key))
            .expect("the same key")
    }
    shake(
        (a, b),
        |a, stream| connect(a, stream, Role::Client),
        |b, stream| connect(b, stream, Role::Server),
    )
}

/// Polls both until `a` has a completion.
fn completed<A: Provider, B: Provider>(a: &mut RdmaWindow<A>, b: &mut RdmaWindow<B>) -> Completion {
    let begin = Instant::now();
    loop {
        let mut done = None;
        a.poll_cq(&mut |completion| {
            assert!(done.is_none(), "two completions of one request");
            done = Some(completion);
        });
        b.poll_cq(&mut |completion| panic!("{completion:?} of nothing"));
        if let Some(done) = done {
            return done;
        }
        assert!(begin.elapsed() < PATIENCE, "no completion");
    }
}

fn windows<A: Provider + Send, B: Provider + Send>((provider_a, provider_b): (A, B), keys: PeerKeys) {
    let options = WindowOptions {
        window_bytes: 1 << 16,
        request_bytes_max: 8192,
        requests_max: 4,
        qp: as_nics_count(WindowOptions::default().qp),
        keys,
    };
    let mut a = RdmaWindow::new(provider_a, options);
    let mut b = RdmaWindow::new(provider_b, options);
    let (ours, theirs) = connect_windows(&mut a, &mut b);
    let (to_b, to_a) = (a.join(ours), b.join(theirs));
    b.grant(Some(to_a)).expect("it is its own");
    let ok = |id| Completion {
        wr_id: WrId(id),
        result: Ok(()),
    };

    // What is posted is on its way: its poster need not poll for that.
    a.write(to_b, 0, &[5], WrId(0)).expect("there is room");
    let (begin, mut first) = (Instant::now(), [0]);
    while first == [0] {
        assert!(begin.elapsed() < PATIENCE, "it waits for its poster");
        b.poll_cq(&mut |completion| panic!("{completion:?} of nothing"));
        b.load(0, &mut first);
    }
    assert_eq!((first, completed(&mut a, &mut b)), ([5], ok(0)));

    // The caller's bytes are its own again at once.
    let mut bytes = vec![7; 5000];
    a.write(to_b, 100, &bytes, WrId(1)).expect("there is room");
    bytes.fill(8);
    assert_eq!(completed(&mut a, &mut b), ok(1));
    let mut there = [0; 5002];
    b.load(99, &mut there);
    assert!(there[0] == 0 && there[5001] == 0 && there[1..5001].iter().all(|byte| *byte == 7));

    a.read(to_b, 99, 3, WrId(2)).expect("there is room");
    assert_eq!(completed(&mut a, &mut b), ok(2));
    let mut brought = Vec::new();
    assert!(a.take_read(WrId(2), &mut brought) && brought == [0, 7, 7]);
    assert!(!a.take_read(WrId(2), &mut brought), "a second time");

    assert_eq!(a.write(to_b, (1 << 16) - 1, &[1, 2], WrId(3)), Err(WindowError::Range));
    assert_eq!(a.write(to_b, u64::MAX, &[1, 2], WrId(3)), Err(WindowError::Range));
    assert_eq!(a.write(Peer(9), 0, &[1], WrId(3)), Err(WindowError::Unreachable));
    for id in 10..14 {
        a.write(to_b, 0, &[1], WrId(id)).expect("there is room");
    }
    assert_eq!(a.write(to_b, 0, &[1], WrId(14)), Err(WindowError::Full));
    let (mut done, begin) = (Vec::new(), Instant::now());
    while done.len() < 4 && begin.elapsed() < PATIENCE {
        a.poll_cq(&mut |completion| done.push(completion));
        b.poll_cq(&mut |_| {});
    }
    assert_eq!(done, (10..14).map(ok).collect::<Vec<_>>());

    // As Mu fences an old leader: it may read, and not write.
    b.grant(None).expect("it is its own");
    a.read(to_b, 0, 1, WrId(20)).expect("there is room");
    assert_eq!(completed(&mut a, &mut b), ok(20));
    assert!(a.take_read(WrId(20), &mut brought));
    a.write(to_b, 100, &[9], WrId(21)).expect("there is room");
    let refused = completed(&mut a, &mut b);
    assert_eq!(
        (refused.wr_id, refused.result),
        (WrId(21), Err(WindowError::Permission))
    );
    b.load(100, &mut there[..1]);
    assert_eq!(there[0], 7, "it was written all the same");
    assert_eq!(a.write(to_b, 100, &[9], WrId(22)), Err(WindowError::Unreachable));

    // Set up anew, by new keys; the permission is as it was set last.
    let (ours, theirs) = connect_windows(&mut a, &mut b);
    a.rejoin(to_b, ours);
    b.rejoin(to_a, theirs);
    b.grant(Some(to_a)).expect("it is its own");
    let (ours, theirs) = connect_windows(&mut a, &mut b);
    a.write(to_b, 200, &[9], WrId(30)).expect("there is room");
    a.rejoin(to_b, ours);
    b.rejoin(to_a, theirs);
    let lost = completed(&mut a, &mut b);
    assert_eq!(
        (lost.wr_id, lost.result),
        (WrId(30), Err(WindowError::Unreachable)),
        "who waits for it waits for ever"
    );
    a.write(to_b, 100, &[9], WrId(23)).expect("there is room");
    assert_eq!(completed(&mut a, &mut b), ok(23));
    b.load(100, &mut there[..1]);
    assert_eq!(there[0], 9);
}

/// Drives cards until it is dropped.
struct Driving<'a>(&'a AtomicBool);

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn windows_with_cards_of_their_own() {
    for keys in [PeerKeys::BoundWhereOffered, PeerKeys::Region] {
        let Some((a, b)) = shm_devices() else { return };
        let ((host_a, card_a), (host_b, card_b)) = (card::split(a), card::split(b));
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // Both at once, several times, as whoever drives them for a long time does: the hosts get in between.
                    let mut running = [card_a.run(), card_b.run()];
                    for _ in 0..32 {
                        running.iter_mut().for_each(|card| card.look());
                    }
                }
            });
            let _driving = Driving(&is_over);
            windows((host_a, host_b), keys);
        });
    }
}

/// A window is bound while a connection is set up, for which no card need run.
#[test]
fn windows_are_connected_before_their_cards_run() {
    let Some((a, b)) = shm_devices() else { return };
    let ((host_a, card_a), (host_b, card_b)) = (card::split(a), card::split(b));
    let options = WindowOptions::default();
    assert_eq!(options.keys, PeerKeys::BoundWhereOffered);
    let (mut a, mut b) = (RdmaWindow::new(host_a, options), RdmaWindow::new(host_b, options));
    let (ours, theirs) = connect_windows(&mut a, &mut b);
    let (to_b, to_a) = (a.join(ours), b.join(theirs));
    b.grant(Some(to_a)).expect("it is its own");
    a.write(to_b, 8, &[7], WrId(1)).expect("there is room");
    let mut done = None;
    for _ in 0..8 {
        for card in [&card_a, &card_b] {
            card.run().look();
        }
        a.poll_cq(&mut |completion| done = Some((completion.wr_id, completion.result)));
    }
    assert_eq!(done, Some((WrId(1), Ok(()))));
    let mut there = [0];
    b.load(8, &mut there);
    assert_eq!(there, [7]);
}

#[test]
fn a_card_says_by_a_completion_what_its_device_does_not_take() {
    let Some((a, b)) = shm_devices() else { return };
    let ((mut host, card), (mut other, _other_card)) = (card::split(a), card::split(b));
    let options = QpOptions {
        inline_bytes_max: 8,
        ..QpOptions::default()
    };
    let pd = host.create_pd();
    assert!(matches!(
        host.create_qp(pd, &options),
        Err(ProviderError::Option {
            option: "inline_bytes_max",
            ..
        })
    ));
    let [ours, theirs] = [&mut host, &mut other].map(|host| {
        let pd = host.create_pd();
        let bare = QpOptions {
            inline_bytes_max: 0,
            ..options
        };
        let qp = host.create_qp(pd, &bare).expect("room");
        host.init(qp)
    });
    let peer = other.address(&theirs).expect("it is there");
    let ours = host.ready_to_receive(ours, &peer).expect("a peer");
    let ours = host.ready_to_send(ours);
    let nowhere = Local {
        key: MemoryKey(7),
        at_bytes: 0,
        len_bytes: 8,
    };
    let request = |data| SendRequest {
        wr_id: WrId(5),
        operation: Operation::Send { data, imm: None },
        signalled: false,
    };
    let inline = host.post_send(&ours, &request(Data::Inline(&[1])));
    assert_eq!(
        inline,
        Err(PostError::Length {
            len_bytes: 1,
            bytes_max: 0
        })
    );
    host.post_send(&ours, &request(Data::Local(nowhere)))
        .expect("the card has not looked at it");
    assert_eq!(host.poll_cq(8, &mut |_| {}), 0);
    card.run().look();
    let mut said = Vec::new();
    host.poll_cq(8, &mut |completion| said.push((completion.wr_id, completion.result)));
    assert!(
        matches!(said[..], [(WrId(5), Err(CompletionError::LocalProtection(_)))]),
        "{said:?}"
    );
    assert_eq!(
        host.post_send(&ours, &request(Data::Local(nowhere))),
        Err(PostError::Broken)
    );
    // Set up anew it is a queue pair like another, and what was asked of it in its last life is not done.
    let anew = |qp, host: &mut card::Host<_>| {
        let broken = host.take_down(qp);
        let reset = host.reset(broken);
        let init = host.init(reset);
        let rtr = host.ready_to_receive(init, &peer).expect("a peer");
        host.ready_to_send(rtr)
    };
    let again = anew(ours, &mut host);
    host.post_send(&again, &request(Data::Local(nowhere)))
        .expect("it takes requests");
    let again = anew(again, &mut host);
    card.run().look();
    assert_eq!(host.poll_cq(8, &mut |completion| panic!("{completion:?}")), 0);
    host.post_send(&again, &request(Data::Local(nowhere)))
        .expect("it takes requests");
}

fn ports<A: Provider + Send, B: Provider + Send>(provider_a: A, provider_b: B) {
    let options = RdmaPortOptions {
        qp: as_nics_count(RdmaPortOptions::default().qp),
        frames_max: 16,
        frame_bytes_max: 4000,
        spins: true,
        ..RdmaPortOptions::default()
    };
    let mut a = RdmaPort::new(provider_a, options);
    let mut b = RdmaPort::new(provider_b, options);
    let shared = key(b"a secret of a cluster");
    let (to_b, to_a) = shake(
        (&mut a, &mut b),
        |a, stream| a.establish((&stream, Role::Client, &shared)),
        |b, stream| b.establish((&stream, Role::Server, &shared)),
    );
    let (to_b, to_a) = (to_b.expect("the same key"), to_a.expect("the same key"));
    assert_eq!(a.caps().frame_bytes_max, 4000);
    assert_eq!(
        a.tx(to_b, 4001, &mut |_| panic!("filled")),
        Err(dataplane_waist::TxError::TooLong)
    );
    assert_eq!(
        a.tx(Peer(3), 1, &mut |_| panic!("filled")),
        Err(dataplane_waist::TxError::NoPeer)
    );
    let frame_of = |id: usize| vec![id as u8; id * 37 % 4001];
    let (mut sent, mut echoed, mut back) = (0, 0, 0);
    let begin = Instant::now();
    while back < 500 {
        assert!(begin.elapsed() < PATIENCE, "{sent} sent, {echoed} echoed, {back} back");
        let frame = frame_of(sent);
        // Less far ahead than the rings are deep, which are 16: what is sent at once never overruns a receiver here, and a device may say that
        // a frame has arrived after the other end has answered it.
        if sent < 500
            && sent - back < 12
            && a.tx(to_b, frame.len(), &mut |into| into.copy_from_slice(&frame))
                .is_ok()
        {
            sent += 1;
        }
        a.flush().expect("the device works");
        let mut frames = Vec::new();
        b.rx_burst(&mut |frame| {
            assert_eq!(frame.from, to_a);
            frames.push(frame.bytes.to_vec());
        })
        .expect("the device works");
        for frame in frames {
            assert!(frame == frame_of(echoed), "frame {echoed} out of order or changed");
            b.tx(to_a, frame.len(), &mut |into| into.copy_from_slice(&frame))
                .expect("there is room");
            echoed += 1;
        }
        b.flush().expect("the device works");
        a.rx_burst(&mut |frame| {
            assert!(frame.bytes == frame_of(back), "frame {back} out of order or changed");
            back += 1;
        })
        .expect("the device works");
    }
    assert_eq!((a.stats().tx_frames_count, a.stats().rx_frames_count), (500, 500));
    assert_eq!((a.stats().tx_dropped_count, b.stats().tx_dropped_count), (0, 0));
}

/// Wires at the addresses with this test's number; `None`, with the reason on the terminal: they cannot be had.
fn roce_wires<const N: usize>(test: u8) -> Option<[RoceWire; N]> {
    let wires: [_; N] = loopback(10 * test + 1).map(|local| RoceWire::open(&RoceOptions::new(local)));
    match wires.into_iter().collect::<Result<Vec<_>, _>>() {
        Ok(wires) => wires.try_into().ok(),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// A raw socket hears every address of its protocol from the moment when it is made: somebody else's packets come all the while that it is.
#[test]
fn an_endpoint_never_hears_what_is_for_another_one() {
    let [ours, theirs, src] = loopback(41);
    let _their_port = UdpSocket::bind((theirs, UDP_PORT)).expect("loopback");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for sender in [(); 2].map(|()| UdpSocket::bind((src, 0)).expect("loopback")) {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    // A full buffer is theirs, not ours.
                    let _ = sender.send_to(&[0x5a; 64], (theirs, UDP_PORT));
                }
            });
        }
        let heard = || {
            let mut wire = RoceWire::open(&RoceOptions::new(ours)).map_err(|error| error.to_string())?;
            let received = wire.receive(1, &mut |_, _| {}).map_err(|error| error.to_string())?;
            let counters = wire.counters();
            let refused_count = counters.icrc_count + counters.rejected_counts.iter().sum::<u64>();
            match (received, refused_count) {
                (0, 0) => Ok(()),
                _ => Err(format!("{received} received, {counters:?}")),
            }
        };
        let heard: Vec<String> = (0..500).filter_map(|_| heard().err()).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(heard.is_empty(), "{} times, first {}", heard.len(), heard[0]);
    });
}

fn roce_devices(test: u8) -> Option<(RoceDevice, RoceDevice)> {
    let wires: [RoceWire; 2] = roce_wires(test)?;
    let device = |wire| Device::new(wire, system_randomness().expect("the system has randomness"));
    Some(wires.map(device).into())
}

fn shm_devices() -> Option<(shm::ShmDevice, shm::ShmDevice)> {
    let link = match ShmLink::create() {
        Ok(link) => link,
        Err(error) => {
            eprintln!("skipped: no shared memory ({error})");
            return None;
        }
    };
    let same = ShmLink::open(&link.path_for(std::process::id())).expect("the same, mapped again");
    let (mut a, mut b) = (shm::open(1).expect("randomness"), shm::open(2).expect("randomness"));
    a.wire_mut().attach(2, &link, Side::A);
    b.wire_mut().attach(1, &same, Side::B);
    Some((a, b))
}

fn memory_devices() -> (Device<memory_wire::MemoryWire>, Device<memory_wire::MemoryWire>) {
    let (a, b) = memory_wire::pair();
    (
        Device::new(a, memory_wire::random(1)),
        Device::new(b, memory_wire::random(2)),
    )
}

/// Two devices of libibverbs, where there are any.
fn verbs_devices() -> Option<(VerbsDevice, VerbsDevice)> {
    let named = devices::verbs()?;
    let opened = named.map(|options| VerbsDevice::open(&options).expect("it was there before"));
    Some(opened.into())
}

/// Ours and a device of libibverbs.
fn across() -> Option<(Device<Inside>, VerbsDevice)> {
    let Across { verbs, place, locals } = devices::across()?;
    let random = system_randomness().expect("the system has randomness");
    let ours = Device::new(Inside::open(&place, locals[0]), random);
    Some((ours, VerbsDevice::open(&verbs).expect("the device that was named")))
}

const KEYS: [PeerKeys; 2] = [PeerKeys::BoundWhereOffered, PeerKeys::Region];

#[test]
fn windows_over_every_provider() {
    for keys in KEYS {
        windows(memory_devices(), keys);
        if let Some(ends) = shm_devices() {
            windows(ends, keys);
        }
        if let Some(ends) = roce_devices(1) {
            windows(ends, keys);
        }
        if let Some(ends) = verbs_devices() {
            windows(ends, keys);
        }
    }
}

#[test]
fn windows_across() {
    for keys in KEYS {
        if let Some(ends) = across() {
            windows(ends, keys);
        }
        if let Some((ours, theirs)) = across() {
            windows((theirs, ours), keys);
        }
    }
}

#[test]
fn ports_over_every_provider() {
    let (a, b) = memory_devices();
    ports(a, b);
    if let Some((a, b)) = shm_devices() {
        ports(a, b);
    }
    if let Some((a, b)) = roce_devices(2) {
        ports(a, b);
    }
    if let Some((a, b)) = verbs_devices() {
        ports(a, b);
    }
}

#[test]
fn ports_across() {
    if let Some((ours, theirs)) = across() {
        ports(ours, theirs);
    }
    if let Some((ours, theirs)) = across() {
        ports(theirs, ours);
    }
}

#[test]
fn another_key_opens_nothing() {
    let (a, b) = memory_devices();
    let (mut a, mut b) = (
        RdmaPort::new(a, RdmaPortOptions::default()),
        RdmaPort::new(b, RdmaPortOptions::default()),
    );
    let (client, server) = shake(
        (&mut a, &mut b),
        |a, stream| a.establish((&stream, Role::Client, &key(b"another secret entirely"))),
        |b, stream| b.establish((&stream, Role::Server, &key(b"a secret of a cluster"))),
    );
    assert!(matches!(server, Err(HandshakeError::Key)), "{server:?}");
    assert!(matches!(client, Err(HandshakeError::Io(_))), "{client:?}");
    // Nothing stays behind of it.
    let shared = key(b"a secret of a cluster");
    let (client, server) = shake(
        (&mut a, &mut b),
        |a, stream| a.establish((&stream, Role::Client, &shared)),
        |b, stream| b.establish((&stream, Role::Server, &shared)),
    );
    assert_eq!((client.ok(), server.ok()), (Some(Peer(0)), Some(Peer(0))));
}

/// What a server makes of a client that says `words` and hangs up.
fn heard(words: Vec<u8>) -> (Vec<u8>, HandshakeError) {
    let (_, b) = memory_devices();
    let mut b = RdmaPort::new(b, RdmaPortOptions::default());
    let (said, served) = shake(
        (&mut (), &mut b),
        move |(), mut stream| {
            stream.write_all(&words).expect("it reads");
            stream.shutdown(std::net::Shutdown::Write).expect("connected");
            let mut said = Vec::new();
            // It may hang up on what it did not read.
            let _ = stream.read_to_end(&mut said);
            said
        },
        |b, stream| b.establish((&stream, Role::Server, &key(b"a secret of a cluster"))),
    );
    (said, served.expect_err("a stranger"))
}

#[test]
fn strangers_learn_the_version_and_nothing_else() {
    let hello = |version: u16| [&b"DPLABRDM"[..], &version.to_be_bytes(), &[7; 32]].concat();
    let (said, error) = heard(hello(VERSION + 1));
    assert!(
        matches!(error, HandshakeError::Version { theirs } if theirs == VERSION + 1),
        "{error}"
    );
    assert_eq!(said[..10], hello(VERSION)[..10]);
    let (said, error) = heard(b"GET / HTTP/1.1\r\nHost: somebody.example\r\n\r\n\r\n".to_vec());
    assert!(matches!(error, HandshakeError::Nonsense), "{error}");
    assert!(said.is_empty());
    let (_, error) = heard(b"short".to_vec());
    assert!(matches!(error, HandshakeError::Io(_)), "{error}");
    // An offer with a code that is made up.
    let (said, error) = heard([hello(VERSION), vec![0; 48 + 32]].concat());
    assert!(matches!(error, HandshakeError::Key), "{error}");
    assert_eq!(said.len(), hello(VERSION).len(), "more than a greeting was told");
}
