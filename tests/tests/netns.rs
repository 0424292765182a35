//! Hosts as network namespaces, on the real kernel: they reach each other, say the truth about themselves, and are gone
//! afterwards. Without the privilege to make them a test prints the reason and passes.

use dataplane_netns::{
    Names, NapiThreads, Network, NetworkOptions, OffloadState, Offloads, Privilege, RouteMetrics, Topology, prepare,
    read_offloads, run_at,
};
use ebpf_host::{Loaded, Mode, Program, Settings};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use tests::netns::{all_reach_all, interfaces_here, namespace_here, ping};

/// Whether this process may build networks; prints why not.
fn may_build(test: &str) -> bool {
    match prepare() {
        Privilege::None { why } => {
            println!("{test}: not run: {why}");
            false
        }
        _ => true,
    }
}

fn build(topology: Topology) -> Network {
    Network::build(&NetworkOptions::new(topology)).unwrap()
}

fn names_of(network: &Network) -> Vec<PathBuf> {
    match &network.facts().names {
        Names::Published(paths) => paths.clone(),
        Names::Hidden { why } => {
            println!("no names: {why}");
            Vec::new()
        }
    }
}

#[test]
fn a_pair_reaches_each_other_and_its_facts_are_read_back() {
    if !may_build("pair") {
        return;
    }
    let network = build(Topology::Pair);
    let families_count = if network.facts().has_ipv6 { 2 } else { 1 };
    assert_eq!(all_reach_all(&network).unwrap(), 2 * families_count);
    let facts = network.facts();
    assert_eq!((facts.driver, facts.mtu_bytes), ("veth", 9000));
    assert_eq!(facts.offloads.len(), 2);
    for interface in &facts.offloads {
        assert_eq!(
            interface.state,
            OffloadState::Off,
            "{} in {}",
            interface.interface,
            interface.host
        );
    }
    network.remove().unwrap();
}

#[test]
fn every_host_of_a_star_reaches_every_other() {
    if !may_build("star") {
        return;
    }
    let network = build(Topology::Star { hosts: 4 });
    assert_eq!(network.hosts().len(), 4, "the switch is not a host");
    all_reach_all(&network).unwrap();
    assert_eq!(network.facts().offloads.len(), 8, "both ends of four links");
}

#[test]
fn the_ends_of_a_chain_reach_each_other_through_the_middle() {
    if !may_build("chain") {
        return;
    }
    let network = build(Topology::Chain { hosts: 3 });
    all_reach_all(&network).unwrap();
    let [_, middle, last] = network.hosts() else {
        panic!("three hosts")
    };
    assert_eq!(middle.interfaces().len(), 2);
    assert_eq!(last.interfaces().len(), 1);
}

/// How many IPv4 datagrams this namespace has cut into fragments (RFC 4293, ipFragCreates).
fn fragments_count_here() -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = table.lines().filter(|line| line.starts_with("Ip:"));
    let (heads, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = heads.split(' ').position(|head| head == "FragCreates").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

#[test]
fn the_largest_datagram_crosses_whole_and_one_byte_more_does_not() {
    if !may_build("mtu") {
        return;
    }
    let network = build(Topology::Pair);
    let [near, far] = network.hosts() else {
        panic!("two hosts")
    };
    let ends = ((near, near.ipv4().into()), (far, far.ipv4().into()));
    ping(ends.0, ends.1, 8972).unwrap();
    assert_eq!(near.run(fragments_count_here).unwrap(), 0);
    ping(ends.0, ends.1, 8973).unwrap();
    assert!(near.run(fragments_count_here).unwrap() > 0, "the counter works");
}

#[test]
fn default_offloads_are_read_back_as_what_they_are() {
    if !may_build("offloads") {
        return;
    }
    let options = NetworkOptions {
        offloads: Offloads::KernelDefault,
        ..NetworkOptions::new(Topology::Pair)
    };
    let network = Network::build(&options).unwrap();
    for interface in &network.facts().offloads {
        let OffloadState::On { features } = &interface.state else {
            panic!("a veth has offloads unless told otherwise: {interface:?}")
        };
        assert!(
            features.iter().any(|name| name == "tx-checksum-ip-generic"),
            "{features:?}"
        );
    }
}

#[test]
fn neighbours_are_permanent_so_nobody_asks() {
    if !may_build("neighbours") {
        return;
    }
    let network = build(Topology::Star { hosts: 3 });
    all_reach_all(&network).unwrap();
    for host in network.hosts() {
        let table = host
            .run(|| std::fs::read_to_string("/proc/thread-self/net/arp"))
            .unwrap()
            .unwrap();
        // 0x6 is ATF_COM | ATF_PERM (include/uapi/linux/if_arp.h).
        let permanent_count = table.lines().skip(1).filter(|line| line.contains(" 0x6 ")).count();
        assert_eq!(
            (permanent_count, table.lines().count()),
            (2, 3),
            "{}: {table}",
            host.name()
        );
    }
}

#[test]
fn two_networks_stand_beside_each_other_and_dropping_one_leaves_the_other() {
    if !may_build("two networks") {
        return;
    }
    let (first, second) = (build(Topology::Pair), build(Topology::Pair));
    let (first_names, second_names) = (names_of(&first), names_of(&second));
    assert!(first_names.iter().all(|name| !second_names.contains(name)));
    assert!(first_names.iter().chain(&second_names).all(|name| name.exists()));
    // From another thread, as a Ctrl-C handler would.
    std::thread::spawn(move || drop(first)).join().unwrap();
    assert!(first_names.iter().all(|name| !name.exists()), "{first_names:?}");
    all_reach_all(&second).unwrap();
    assert!(second_names.iter().all(|name| name.exists()));
    second.remove().unwrap();
    assert!(second_names.iter().all(|name| !name.exists()));
}

#[test]
fn a_host_that_outlives_its_network_has_no_link() {
    if !may_build("outlive") {
        return;
    }
    for topology in [Topology::Pair, Topology::Star { hosts: 2 }] {
        let network = build(topology);
        let host = network.hosts()[0].clone();
        assert_eq!(host.run(interfaces_here).unwrap(), ["eth0", "lo"]);
        network.remove().unwrap();
        assert_eq!(host.run(interfaces_here).unwrap(), ["lo"]);
    }
}

#[test]
fn a_thread_returns_from_a_host_even_by_panic() {
    if !may_build("return") {
        return;
    }
    let network = build(Topology::Pair);
    let host = &network.hosts()[0];
    let home = namespace_here();
    let away = host.run(namespace_here).unwrap();
    assert_ne!(away, home);
    assert_eq!(namespace_here(), home);

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        host.run(|| panic!("on purpose, in {}", namespace_here()))
    }));
    assert!(panicked.is_err());
    assert_eq!(namespace_here(), home, "after a panic");

    let inside = host.enter().unwrap();
    assert_eq!(namespace_here(), away);
    let other = network.hosts()[1].run(namespace_here).unwrap();
    assert!(other != away && other != home);
    assert_eq!(namespace_here(), away, "back in the outer host");
    inside.leave().unwrap();
    assert_eq!(namespace_here(), home);
}

#[test]
fn a_child_process_inherits_the_host_and_can_open_it_by_path() {
    if !may_build("child") {
        return;
    }
    let network = build(Topology::Pair);
    let host = &network.hosts()[1];
    let ask = |path: &str| {
        let mut command = Command::new("stat");
        command.args(["--dereference", "--format=%i", path]);
        command
    };
    let inode = |output: std::process::Output| String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let here = host.run(namespace_here).unwrap().to_string();
    let inherited = host.run(|| ask("/proc/self/ns/net").output()).unwrap().unwrap();
    assert_eq!(inode(inherited), here);
    let opened = ask(host.path().to_str().unwrap()).output().unwrap();
    assert_eq!(inode(opened), here);
}

#[test]
fn options_out_of_bounds_are_refused_with_the_bound() {
    for mtu_bytes in [0, 1279, 65_536, u32::MAX] {
        let options = NetworkOptions {
            mtu_bytes,
            ..NetworkOptions::new(Topology::Pair)
        };
        let error = Network::build(&options).unwrap_err().to_string();
        assert!(error.contains("1280 to 65535"), "{error}");
    }
}

#[test]
fn receive_work_gets_threads_where_there_is_napi_and_loses_them_again() {
    if !may_build("NAPI threads") {
        return;
    }
    let network = build(Topology::Pair);
    let comm = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    network.hosts()[1]
        .run(|| {
            let none = NapiThreads::start("no-such-one").unwrap_err();
            assert!(none.to_string().contains("no-such-one"), "{none}");
            let program = Settings {
                frags: true,
                ..Settings::default()
            };
            let attached =
                match Loaded::load(Program::Pass, &program).and_then(|pass| pass.attach("eth0", Mode::Native)) {
                    Ok(attached) => attached,
                    Err(error) => return println!("NAPI threads: not run: {error}"),
                };
            let threads = NapiThreads::start("eth0").expect("a veth with a program has NAPI");
            let pids = threads.pids().to_vec();
            assert_eq!(pids.len(), 1, "a thread for the one queue: {pids:?}");
            assert!(comm(&pids[0]).starts_with("napi/eth0-"), "{}", comm(&pids[0]));
            drop(threads);
            let again = NapiThreads::start("eth0").expect("the setting was set back");
            drop((again, attached));
        })
        .unwrap();
}

#[test]
fn a_card_is_in_the_wire_of_its_host_and_its_receive_work_can_have_threads() {
    if !may_build("cards") {
        return;
    }
    let options = NetworkOptions {
        cards: vec![1, 2],
        ..NetworkOptions::new(Topology::Star { hosts: 3 })
    };
    let network = Network::build(&options).unwrap();
    assert_eq!(network.hosts().len(), 3, "a card is not a host");
    all_reach_all(&network).unwrap();
    let [card, other] = network.cards() else {
        panic!("two cards")
    };
    assert_eq!((card.host(), other.host()), (1, 2));
    let there = card.run(namespace_here).unwrap();
    assert_eq!(run_at(&card.path(), namespace_here).unwrap(), there);
    let own = [network.hosts()[1].run(namespace_here).unwrap(), namespace_here()];
    assert!(!own.contains(&there), "a card has a namespace of its own");

    // The number of time slices is the third word (Documentation/scheduler/sched-stats.rst).
    let slices_count = |pid: u32| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        text.split_whitespace().nth(2).unwrap().parse().unwrap()
    };
    let threads = card.run(|| NapiThreads::start_with_gro(card.outer())).unwrap().unwrap();
    let &[pid] = threads.pids() else {
        panic!("a thread for the one queue: {:?}", threads.pids())
    };
    let before = slices_count(pid);
    let [client, host, _] = network.hosts() else {
        panic!("three hosts")
    };
    ping((client, client.ipv4().into()), (host, host.ipv4().into()), 64).unwrap();
    assert!(
        slices_count(pid) > before,
        "what comes from the wire goes through the thread"
    );
    assert_ne!(card.run(|| read_offloads(card.outer())).unwrap(), OffloadState::Off);
    drop(threads);
    assert_eq!(card.run(|| read_offloads(card.outer())).unwrap(), OffloadState::Off);
    all_reach_all(&network).unwrap();
    network.remove().unwrap();
}

/// A setting changes in one host alone, and a route can tell connections how to begin; without an order it says nothing again.
#[test]
fn settings_and_route_metrics_are_of_one_host() {
    if !may_build("settings") {
        return;
    }
    let network = build(Topology::Pair);
    let [first, second] = network.hosts() else {
        panic!("a pair has two hosts")
    };
    let path = "net/ipv4/tcp_sack";
    first.set_setting(path, "0").unwrap();
    assert_eq!(first.setting(path).unwrap().as_deref(), Some("0"));
    assert_eq!(second.setting(path).unwrap().as_deref(), Some("1"));
    assert_eq!(first.setting("net/ipv4/no_such_setting").unwrap(), None);
    assert!(first.set_setting(path, "many").is_err());

    let routes = || {
        let output = first.run(|| Command::new("ip").args(["route", "show"]).output());
        output
            .unwrap()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let told = RouteMetrics {
        initial_window_segments: Some(4),
        quick_acks: true,
    };
    first.set_route_metrics(told).unwrap();
    match routes() {
        Ok(text) => {
            assert!(text.contains("initcwnd 4") && text.contains("quickack 1"), "{text}");
            assert_eq!(text.lines().count(), 1, "in place of the other one: {text}");
            first.set_route_metrics(RouteMetrics::default()).unwrap();
            assert!(!routes().unwrap().contains("initcwnd"));
        }
        Err(error) => println!("what `ip route` says was not compared: {error}"),
    }
    all_reach_all(&network).unwrap();
}
