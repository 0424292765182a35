//! The programs on interfaces: veth pairs in network namespaces of our own.
#![forbid(unsafe_code)]

mod support;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    process::Command,
    time::Duration,
};

use dataplane_netns::{Host, Network, NetworkOptions, Offloads, Privilege, Topology, prepare};
use dataplane_waist::Support;
use dataplane_wire::{
    ethernet::Mac,
    frame::{self, Kind},
    trace::{self, Station},
};
use ebpf_host::{
    Attachment, Count, HostError, Loaded, MTU_BYTES_OF_ONE_BUFFER, Mode, Program, Settings, kinds, probe,
    probe_offload, refuse_default_route,
};
use support::{load, monotonic_ns};

const PORT: u16 = 4001;
/// An answer comes in microseconds; on a machine that is busy with other tests, later.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long nothing has to come before it counts as lost: no verdict hangs on this.
const SILENCE: Duration = Duration::from_millis(20);

/// Two hosts, or `None` with the reason printed.
fn pair(test: &str, mtu_bytes: u32, offloads: Offloads) -> Option<Network> {
    if prepare() != Privilege::Root {
        println!("{test}: not run: needs root, for network namespaces and for BPF");
        return None;
    }
    // Says why, where BPF is missing.
    load(test, Program::Pass, &Settings::default())?;
    if mtu_bytes > MTU_BYTES_OF_ONE_BUFFER {
        let frags = Settings {
            frags: true,
            ..Settings::default()
        };
        load(test, Program::Pass, &frags)?;
    }
    let options = NetworkOptions {
        mtu_bytes,
        offloads,
        publish_names: false,
        ..NetworkOptions::new(Topology::Pair)
    };
    Some(Network::build(&options).expect("root can build a pair"))
}

fn settings_of(host: &Host) -> Settings {
    Settings {
        local_mac: Mac(host.mac()),
        local_ipv4: Some(host.ipv4()),
        local_ipv6: host.ipv6(),
        local_port: PORT,
        kinds: kinds(&[Kind::EchoRequest]),
        ..Settings::default()
    }
}

fn attach(host: &Host, program: Program, settings: &Settings, mode: Mode) -> Result<Attachment, HostError> {
    let loaded = Loaded::load(program, settings).expect("it loads");
    host.run(|| loaded.attach(&host.interface().name, mode))
        .expect("the thread comes back")
}

/// Asks `count` times and says how often a right answer came.
fn ask(from: &Host, to: IpAddr, count: u64, frame_bytes: usize, wait_max: Duration) -> u64 {
    let local: IpAddr = match to {
        IpAddr::V4(_) => from.ipv4().into(),
        IpAddr::V6(_) => from.ipv6().expect("both have it").into(),
    };
    let socket = from.run(|| UdpSocket::bind((local, 0))).expect("the thread comes back");
    let socket = socket.expect("a free port");
    socket.set_read_timeout(Some(wait_max)).expect("a timeout");
    let mut request = vec![0; frame_bytes];
    let mut answer = vec![0; frame_bytes + 1];
    let mut answers_count = 0;
    for seq in 0..count {
        dataplane_echo::request(3, seq, 0, &mut request);
        socket.send_to(&request, (to, PORT)).expect("it is sent");
        let Ok((len, sender)) = socket.recv_from(&mut answer) else {
            continue;
        };
        let reply = dataplane_echo::reply(&answer[..len], 3).expect("a reply of the lab's");
        assert!(
            reply.payload_intact && reply.seq == seq && len == frame_bytes,
            "{reply:?}"
        );
        assert_eq!((sender.ip(), sender.port()), (to, PORT));
        answers_count += 1;
    }
    answers_count
}

fn addresses(host: &Host) -> Vec<IpAddr> {
    [Some(IpAddr::from(host.ipv4())), host.ipv6().map(IpAddr::from)]
        .into_iter()
        .flatten()
        .collect()
}

/// The echo on h1 with or without `pass` on h0: how many of a hundred are answered, over each family.
fn answered(
    test: &str,
    mode: Mode,
    with_peer_program: bool,
    offloads: Offloads,
    wait_max: Duration,
) -> Option<Vec<u64>> {
    const ASKED: u64 = 100;
    let network = pair(test, 1500, offloads)?;
    let [client, server] = network.hosts() else {
        unreachable!("a pair has two hosts")
    };
    let echo = attach(server, Program::Echo, &settings_of(server), mode).expect("it is attached");
    let pass =
        with_peer_program.then(|| attach(client, Program::Pass, &Settings::default(), mode).expect("it is attached"));
    let answers: Vec<u64> = addresses(server)
        .into_iter()
        .map(|to| ask(client, to, ASKED, 64, wait_max))
        .collect();
    // Other frames come too: neighbour discovery, multicast reports. None of them is ours.
    let counts = echo.counts().expect("it counts");
    println!("{test}: answered {answers:?} of {ASKED} each; the program counted {counts}");
    assert_eq!(
        counts.get(Count::Taken),
        ASKED * answers.len() as u64,
        "every request reached the program"
    );
    drop(pass);
    Some(answers)
}

#[test]
fn a_native_echo_answers_everything_if_the_peer_has_a_program() {
    for offloads in [Offloads::Off, Offloads::KernelDefault] {
        let answers = answered(
            "native, pass on the peer",
            Mode::Native,
            true,
            offloads,
            ANSWER_WAIT_MAX,
        );
        assert!(answers.unwrap_or_default().iter().all(|&answers| answers == 100));
    }
}

#[test]
fn a_generic_echo_answers_everything_and_needs_no_program_on_the_peer() {
    for offloads in [Offloads::Off, Offloads::KernelDefault] {
        let answers = answered(
            "generic, nothing on the peer",
            Mode::Generic,
            false,
            offloads,
            ANSWER_WAIT_MAX,
        );
        assert!(answers.unwrap_or_default().iter().all(|&answers| answers == 100));
    }
}

/// What gets lost differs between kernels (Linux 6.18: everything), so only that the program saw all of it is required.
#[test]
fn a_native_echo_without_a_program_on_the_peer_takes_every_request_whatever_arrives() {
    answered(
        "native, nothing on the peer",
        Mode::Native,
        false,
        Offloads::Off,
        SILENCE,
    );
}

#[test]
fn an_mtu_above_a_page_needs_the_function_for_several_buffers() {
    let Some(network) = pair("MTU", 9000, Offloads::Off) else {
        return;
    };
    let [client, server] = network.hosts() else {
        unreachable!("a pair has two hosts")
    };
    let error = attach(server, Program::Echo, &settings_of(server), Mode::Native).expect_err("one buffer is too short");
    let HostError::MtuTooLarge { mtu_bytes, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(mtu_bytes, network.facts().has_ipv6.then_some(9000));
    assert!(error.to_string().contains("Settings::frags"), "{error}");

    let frags = |settings: Settings| Settings {
        frags: true,
        ..settings
    };
    let echo = attach(server, Program::Echo, &frags(settings_of(server)), Mode::Native).expect("several fit");
    let _pass = attach(client, Program::Pass, &frags(Settings::default()), Mode::Native).expect("several fit");
    for frame_bytes in [64, 1_400, 3_600, 8_000, 8_900] {
        for to in addresses(server) {
            assert_eq!(
                ask(client, to, 10, frame_bytes, ANSWER_WAIT_MAX),
                10,
                "{frame_bytes} bytes to {to}"
            );
        }
    }
    assert_eq!(echo.counts().expect("it counts").get(Count::Taken), 100);
    // Whether there is XDP is no question of the MTU.
    let answer = server
        .run(|| probe(Program::Echo, Some("eth0"), Mode::Native))
        .expect("back");
    assert!(answer.is_err_and(|error| error.to_string().contains("another program is attached")));
    drop(echo);
    let answer = server
        .run(|| probe(Program::Echo, Some("eth0"), Mode::Native))
        .expect("back");
    assert_eq!(answer.expect("an answer"), Support::Native);
}

#[test]
fn jumbo_frames_whose_checksums_are_left_to_the_device_are_answered() {
    let Some(network) = pair("jumbo, offloads on", 9000, Offloads::KernelDefault) else {
        return;
    };
    let [client, server] = network.hosts() else {
        unreachable!("a pair has two hosts")
    };
    let frags = |settings: Settings| Settings {
        frags: true,
        ..settings
    };
    let _echo = attach(server, Program::Echo, &frags(settings_of(server)), Mode::Native).expect("several fit");
    let _pass = attach(client, Program::Pass, &frags(Settings::default()), Mode::Native).expect("several fit");
    for frame_bytes in [64, 3_600, 8_900] {
        for to in addresses(server) {
            assert_eq!(
                ask(client, to, 10, frame_bytes, ANSWER_WAIT_MAX),
                10,
                "{frame_bytes} bytes to {to}"
            );
        }
    }
}

#[test]
fn a_stamped_request_reaches_the_socket_behind_the_program() {
    for offloads in [Offloads::Off, Offloads::KernelDefault] {
        let Some(network) = pair("stamp", 1500, offloads) else {
            return;
        };
        let [client, server] = network.hosts() else {
            unreachable!("a pair has two hosts")
        };
        for mode in [Mode::Native, Mode::Generic] {
            let settings = settings_of(server).stamping(Station::ServerDriverRx);
            let stamp = attach(server, Program::Stamp, &settings, mode).expect("it is attached");
            for to in addresses(server) {
                let listener = server
                    .run(|| UdpSocket::bind((to, PORT)))
                    .expect("back")
                    .expect("a free port");
                listener.set_read_timeout(Some(ANSWER_WAIT_MAX)).expect("a timeout");
                let any: IpAddr = match to {
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let socket = client
                    .run(|| UdpSocket::bind((any, 0)))
                    .expect("back")
                    .expect("a free port");
                for frame_bytes in [108, 141, 1_400] {
                    let mut bytes = vec![0; frame_bytes];
                    dataplane_echo::request(3, 1, 0, &mut bytes);
                    let sent_ns = monotonic_ns();
                    socket.send_to(&bytes, (to, PORT)).expect("sent");
                    let len = listener.recv(&mut bytes).expect("the kernel finds its checksum right");
                    let what = format!("{frame_bytes} bytes to {to}, {mode}, offloads {offloads:?}");
                    assert_eq!(len, frame_bytes, "{what}");
                    let frame = frame::parse(&bytes).unwrap_or_else(|why| panic!("{what}: {why}"));
                    let trailer = trace::trailer(frame.payload).expect("there is one");
                    let seen_ns = trace::stamp(trailer, Station::ServerDriverRx);
                    assert!(
                        (sent_ns..=monotonic_ns()).contains(&seen_ns),
                        "{what}: {seen_ns}, sent {sent_ns}"
                    );
                }
            }
            let taken = stamp.counts().expect("it counts").get(Count::Taken);
            assert_eq!(taken, 3 * addresses(server).len() as u64, "{mode}");
        }
    }
}

#[test]
fn frames_of_others_go_up_the_stack_past_every_program() {
    let Some(network) = pair("others", 1500, Offloads::Off) else {
        return;
    };
    let [client, server] = network.hosts() else {
        unreachable!("a pair has two hosts")
    };
    for program in Program::ALL {
        for mode in [Mode::Native, Mode::Generic] {
            let attachment = attach(server, program, &settings_of(server), mode).expect("it is attached");
            for to in addresses(server) {
                let listener = server
                    .run(|| UdpSocket::bind((to, 0)))
                    .expect("back")
                    .expect("a free port");
                listener.set_read_timeout(Some(ANSWER_WAIT_MAX)).expect("a timeout");
                let address = listener.local_addr().expect("an address");
                let socket = client
                    .run(|| match to {
                        IpAddr::V4(_) => UdpSocket::bind((client.ipv4(), 0)),
                        IpAddr::V6(_) => UdpSocket::bind((client.ipv6().expect("both"), 0)),
                    })
                    .expect("back")
                    .expect("a free port");
                socket.send_to(b"somebody else's", address).expect("sent");
                let mut bytes = [0; 64];
                let len = listener.recv(&mut bytes).expect("it comes through");
                assert_eq!(&bytes[..len], b"somebody else's", "{} in {mode} mode", program.name());
            }
            if !matches!(program, Program::Pass | Program::Lossy) {
                assert_eq!(attachment.counts().expect("it counts").get(Count::Taken), 0);
            }
        }
    }
}

#[test]
fn a_second_program_is_told_which_mode_the_first_one_has() {
    let Some(network) = pair("busy", 1500, Offloads::Off) else {
        return;
    };
    let host = &network.hosts()[0];
    for mode in [Mode::Native, Mode::Generic] {
        let first = attach(host, Program::Pass, &Settings::default(), mode).expect("it is free");
        assert_eq!((first.interface(), first.mode()), ("eth0", mode));
        for second in [Mode::Native, Mode::Generic] {
            let error = attach(host, Program::Echo, &settings_of(host), second).expect_err("it is busy");
            let HostError::Busy { mode: seen, .. } = &error else {
                panic!("{mode}, then {second}: {error}");
            };
            assert_eq!(*seen, mode, "{mode}, then {second}");
            assert!(error.to_string().contains("ip link set dev eth0 xdp"), "{error}");
        }
        drop(first);
    }
    attach(host, Program::Echo, &settings_of(host), Mode::Native).expect("it is free again");
}

#[test]
fn the_best_mode_is_native_where_there_is_one() {
    let Some(network) = pair("best", 1500, Offloads::Off) else {
        return;
    };
    let host = &network.hosts()[0];
    let best = |interface: &str| {
        let loaded = Loaded::load(Program::Echo, &settings_of(host)).expect("it loads");
        host.run(|| loaded.attach_best(interface)).expect("back")
    };
    let on_veth = best("eth0").expect("it is free");
    assert_eq!(on_veth.mode(), Mode::Native);
    assert!(on_veth.why_not_native().is_none());
    let on_lo = best("lo").expect("it is free");
    assert_eq!(on_lo.mode(), Mode::Generic);
    assert!(matches!(on_lo.why_not_native(), Some(HostError::NoNative { .. })));
    for name in ["no-such-interface", "with\0nul", ""] {
        let error = best(name).expect_err("it is absent");
        assert!(matches!(error, HostError::NoInterface { .. }), "{error}");
    }
    // An interface of another namespace is none of ours.
    let loaded = Loaded::load(Program::Pass, &Settings::default()).expect("it loads");
    assert!(loaded.attach("dplab-absent0", Mode::Native).is_err());
}

#[test]
fn the_probe_asks_the_mechanism_and_leaves_the_interface_free() {
    let Some(network) = pair("probe", 1500, Offloads::Off) else {
        return;
    };
    let host = &network.hosts()[0];
    let ask_with = |program, interface, mode| {
        host.run(|| probe(program, interface, mode))
            .expect("back")
            .expect("an answer")
    };
    let ask = |interface, mode| ask_with(Program::Pass, interface, mode);
    assert_eq!(ask(None, Mode::Native), Support::Native);
    for program in Program::ALL {
        let answer = ask_with(program, Some("eth0"), Mode::Native);
        assert_eq!(answer, Support::Native, "{}", program.name());
    }
    assert_eq!(ask(Some("eth0"), Mode::Generic), Support::Native);
    assert_eq!(ask(Some("lo"), Mode::Generic), Support::Native);
    for (interface, part) in [("lo", "its driver does not run XDP"), ("eth9", "no such interface")] {
        let Support::Absent { why } = ask(Some(interface), Mode::Native) else {
            panic!("{interface} has native XDP");
        };
        assert!(why.contains(part), "{why}");
    }
    attach(host, Program::Pass, &Settings::default(), Mode::Native).expect("it is free");
}

#[test]
fn a_veth_runs_no_program_in_hardware_and_says_so() {
    let Some(network) = pair("offload", 1500, Offloads::Off) else {
        return;
    };
    let host = &network.hosts()[0];
    for (interface, part) in [
        ("eth0", "translates no programs"),
        ("lo", "translates no programs"),
        ("dplab-absent0", "no such interface"),
    ] {
        let answer = host.run(|| probe_offload(interface)).expect("back").expect("an answer");
        let Support::Absent { why } = answer else {
            panic!("{interface} is no card")
        };
        assert!(why.contains(part), "{why}");
    }
    for program in [Program::Pass, Program::Echo] {
        let loaded = Loaded::load(program, &Settings::default()).expect("it loads");
        let error = host
            .run(|| loaded.attach("eth0", Mode::Offload))
            .expect("back")
            .expect_err("a veth is no card");
        assert!(matches!(error, HostError::NoOffload { .. }), "{error}");
        assert!(error.to_string().contains("native mode runs them"), "{error}");
    }
    let answer = host
        .run(|| probe(Program::Pass, Some("eth0"), Mode::Offload))
        .expect("back");
    assert!(matches!(answer, Ok(Support::Absent { .. })), "{answer:?}");
    attach(host, Program::Pass, &Settings::default(), Mode::Native).expect("it is free");
    let refused = std::thread::spawn(|| {
        caps::clear(None, caps::CapSet::Effective).expect("giving up is allowed");
        probe_offload("lo")
    });
    let error = refused.join().expect("no panic").expect_err("it could not be asked");
    assert!(error.to_string().contains("CAP_BPF"), "{error}");
}

#[test]
fn without_the_capability_the_answer_is_that_it_could_not_be_asked() {
    // With it first: what the kernel can do is found out once in a process.
    if load("not allowed", Program::Echo, &Settings::default()).is_none() {
        return;
    }
    // Capabilities are the thread's own, and this one ends here.
    let outcome = std::thread::spawn(|| {
        caps::clear(None, caps::CapSet::Effective).expect("giving up is allowed");
        let error = Loaded::load(Program::Echo, &Settings::default()).expect_err("root alone is not enough");
        (probe(Program::Pass, None, Mode::Native), error)
    });
    let (answer, error) = outcome.join().expect("no panic");
    let answer = answer.expect_err("it is no answer");
    assert!(answer.to_string().contains("CAP_BPF"), "{answer}");
    assert_eq!(
        answer.error.raw_os_error(),
        Some(nix::errno::Errno::EPERM as i32),
        "{answer}"
    );
    assert!(matches!(error, HostError::NotAllowed { .. }), "{error}");
}

#[test]
fn an_interface_that_goes_leaves_its_counts() {
    let Some(network) = pair("gone", 1500, Offloads::Off) else {
        return;
    };
    let hosts: Vec<Host> = network.hosts().to_vec();
    let [client, server] = &hosts[..] else {
        unreachable!("a pair has two hosts")
    };
    for mode in [Mode::Generic, Mode::Native] {
        let attachment = attach(server, Program::CountDrop, &settings_of(server), mode).expect("it is attached");
        server.run(|| attachment.check()).expect("back").expect("it is there");
        assert_eq!(ask(client, server.ipv4().into(), 3, 64, SILENCE), 0);
        assert_eq!(attachment.counts().expect("it counts").get(Count::Taken), 3);
        if mode == Mode::Native {
            network.remove().expect("it goes");
            let error = server
                .run(|| attachment.check())
                .expect("back")
                .expect_err("it is gone");
            assert!(matches!(error, HostError::InterfaceGone { .. }), "{error}");
            assert_eq!(attachment.counts().expect("they stay").get(Count::Taken), 3);
            drop(attachment);
            return;
        }
    }
}

#[test]
fn the_interface_of_the_default_route_is_refused() {
    let Some(network) = pair("default route", 1500, Offloads::Off) else {
        return;
    };
    let [host, gateway] = network.hosts() else {
        unreachable!("a pair has two hosts")
    };
    let guard = |interface, force| host.run(|| refuse_default_route(interface, force)).expect("back");
    let route = |family: &str, destination: &str, via: IpAddr| {
        let command = host
            .run(|| {
                Command::new("ip")
                    .args([family, "route", "replace", destination, "via", &via.to_string()])
                    .status()
            })
            .expect("back");
        command.is_ok_and(|status| status.success())
    };
    guard("eth0", false).expect("there is no default route");
    let mut routes = vec![
        ("-4", "0.0.0.0/1", IpAddr::from(gateway.ipv4())),
        ("-4", "default", gateway.ipv4().into()),
    ];
    routes.extend(gateway.ipv6().map(|via| ("-6", "default", via.into())));
    for (family, destination, via) in routes {
        if !route(family, destination, via) {
            println!("default route: not run: `ip {family} route replace {destination}` does not work here");
            return;
        }
        let error = guard("eth0", false).expect_err("it carries the route");
        assert!(matches!(error, HostError::DefaultRoute { .. }), "{error}");
        assert!(error.to_string().contains("eth0 carries the default route"), "{error}");
        guard("eth0", true).expect("it is forced");
        guard("lo", false).expect("it carries none");
        let removed = host.run(|| Command::new("ip").args([family, "route", "del", destination]).status());
        assert!(removed.expect("back").expect("ip runs").success());
        guard("eth0", false).expect("the route is gone");
    }
}
