//! Everything that can be wrong before a port is open, each with a message that says what to do.

use super::*;

#[test]
fn a_busy_queue_a_missing_one_and_a_missing_interface_are_told_apart() {
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    let first = open(us, &options(us, XdpWait::Spin)).expect("a port");
    let second = XdpOptions {
        local: (us.ipv4(), 4002).into(),
        ..options(us, XdpWait::Spin)
    };
    let error = refused(us, &second);
    assert!(matches!(error, OpenError::QueueBusy { queue: 0, .. }), "{error}");
    assert!(error.to_string().contains("ss --xdp"), "{error}");
    let name = us.interface().name.clone();
    let asked = us.run(|| probe(&name, XdpCopy::Copy)).expect("in the host");
    let error = asked.expect_err("a busy queue tells nothing about support");
    assert!(error.to_string().contains("close that one"), "{error}");

    let error = refused(
        us,
        &XdpOptions {
            queue: 7,
            ..second.clone()
        },
    );
    assert!(matches!(error, OpenError::NoQueue { queue: 7, .. }), "{error}");
    assert!(error.to_string().contains("ethtool -l"), "{error}");

    let nowhere = XdpOptions {
        interface: "nowhere0".to_owned(),
        ..second.clone()
    };
    let error = refused(us, &nowhere);
    assert!(matches!(error, OpenError::NoInterface { .. }), "{error}");
    let asked = us.run(|| probe("nowhere0", XdpCopy::Copy)).expect("in the host");
    assert!(matches!(asked, Ok(Support::Absent { .. })), "{asked:?}");

    // The queue is free again at once, as far as the caller can see; often.
    drop(first);
    for _ in 0..20 {
        drop(open(us, &second).expect("the queue is free"));
    }
}

#[test]
fn polling_busily_needs_a_privilege_that_is_named() {
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    let busy = options(
        us,
        XdpWait::BusyPoll(BusyPoll {
            microseconds: 20,
            budget: 64,
        }),
    );
    let error = us
        .run(|| {
            caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).expect("giving up is always allowed");
            let opened = XdpPort::open(&busy);
            caps::raise(None, CapSet::Effective, Capability::CAP_NET_ADMIN).expect("it is still permitted");
            opened.map(drop)
        })
        .expect("in the host")
        .expect_err("not allowed");
    assert!(matches!(error, OpenError::NotAllowed { .. }), "{error}");
    assert!(error.to_string().contains("CAP_NET_ADMIN to poll busily"), "{error}");
    open(us, &busy).expect("with the capability it works");
}

#[test]
fn zero_copy_is_refused_by_a_veth() {
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    let name = us.interface().name.clone();
    let asked = us.run(|| probe(&name, XdpCopy::ZeroCopy)).expect("in the host");
    let Ok(Support::Absent { why }) = asked else {
        panic!("{asked:?}")
    };
    assert!(why.contains("no zero-copy") && why.contains("copy mode"), "{why}");
    let error = refused(
        us,
        &XdpOptions {
            copy: XdpCopy::ZeroCopy,
            ..options(us, XdpWait::Spin)
        },
    );
    assert!(matches!(error, OpenError::ZeroCopyRefused { .. }), "{error}");
}

#[test]
fn options_that_cannot_be_are_refused_with_the_remedy() {
    let Some(network) = pair(9000) else { return };
    let [us, them] = two(&network);
    let good = XdpOptions {
        peers: vec![peer(them)],
        ..options(us, XdpWait::Spin)
    };
    let with = |change: &dyn Fn(&mut XdpOptions)| {
        let mut options = good.clone();
        change(&mut options);
        refused(us, &options).to_string()
    };
    for (said, must_say) in [
        (with(&|o| o.ring_frames = 100), "power of two"),
        (with(&|o| o.ring_frames = 0), "power of two"),
        (with(&|o| o.ring_frames = 1 << 20), "power of two"),
        (with(&|o| o.frame_bytes_max = 0), "1 to 65507"),
        (with(&|o| o.frame_bytes_max = usize::MAX), "1 to 65507"),
        (with(&|o| o.frame_bytes_max = 8973), "mtu 9001"),
        (
            with(&|o| {
                o.frame_bytes_max = 8000;
                o.multi_buffer = false;
            }),
            "frame_bytes_max of 3798 at most",
        ),
        (
            with(&|o| o.local = (std::net::Ipv4Addr::UNSPECIFIED, 1).into()),
            "not an address",
        ),
        (
            with(&|o| o.local = (std::net::Ipv6Addr::LOCALHOST, 1).into()),
            "not of the family",
        ),
        (
            with(&|o| {
                o.copy = XdpCopy::ZeroCopy;
                o.checksum = XdpChecksum::Kernel;
            }),
            "let the device",
        ),
    ] {
        assert!(said.contains(must_say), "{said:?} does not say {must_say:?}");
    }
    // The bound that the message names is one that works.
    let at_bound = XdpOptions {
        frame_bytes_max: 3798,
        multi_buffer: false,
        ..good.clone()
    };
    open(us, &at_bound).expect("as the message said");

    let (umem, _) = Umem::new(&UmemOptions::new(4)).expect("memory");
    for entries in [0, 3, 1 << 18] {
        let socket = SocketOptions {
            rx_entries: entries,
            ..SocketOptions::new(&us.interface().name, 4)
        };
        let error = us.run(|| Socket::open(&umem, &socket)).expect("in the host");
        let error = error.expect_err("it must be refused").to_string();
        assert!(
            error.contains("rx_entries") && error.contains("powers of two"),
            "{error}"
        );
    }
}

#[test]
fn a_missing_privilege_is_told_from_a_missing_feature() {
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    let name = us.interface().name.clone();
    let (asked, opened) = us
        .run(|| {
            // This thread's alone, and only until the end of the closure.
            caps::drop(None, CapSet::Effective, Capability::CAP_NET_RAW).expect("giving up is always allowed");
            let said = (
                probe(&name, XdpCopy::Copy),
                XdpPort::open(&options(us, XdpWait::Spin)).map(drop),
            );
            caps::raise(None, CapSet::Effective, Capability::CAP_NET_RAW).expect("it is still permitted");
            said
        })
        .expect("in the host");
    let error = asked.expect_err("it could not be asked");
    assert!(
        error.to_string().contains("CAP_NET_RAW") && error.to_string().contains("CAP_BPF"),
        "{error}"
    );
    let error = opened.expect_err("not allowed");
    assert!(matches!(error, OpenError::NotAllowed { .. }), "{error}");
}

#[test]
fn memory_above_the_limit_is_refused_with_the_limit_named() {
    let Some(network) = pair(1500) else { return };
    let [us, _] = two(&network);
    let (soft_bytes, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).expect("a limit");
    if soft_bytes > 64 << 20 {
        println!("skipped: RLIMIT_MEMLOCK is {soft_bytes} bytes, more than a test should lock");
        return;
    }
    let frames = (soft_bytes as usize / 4096 + 1).next_power_of_two();
    let error = us
        .run(|| {
            caps::drop(None, CapSet::Effective, Capability::CAP_IPC_LOCK).expect("giving up is always allowed");
            let opened = Umem::new(&UmemOptions::new(frames))
                .and_then(|(umem, _)| Socket::open(&umem, &SocketOptions::new(&us.interface().name, 64)));
            // Without the capability there may have been no right to begin with.
            let _ = caps::raise(None, CapSet::Effective, Capability::CAP_IPC_LOCK);
            opened.map(drop)
        })
        .expect("in the host")
        .expect_err("above the limit");
    assert!(matches!(error, OpenError::MemoryLimit { .. }), "{error}");
    assert!(error.to_string().contains("ulimit -l"), "{error}");
}

#[test]
fn huge_pages_are_used_or_asked_for() {
    let Some(network) = pair(1500) else { return };
    let [us, them] = two(&network);
    let socket = kernel_socket(them, them.ipv4());
    let opened = open(
        us,
        &XdpOptions {
            peers: vec![peer(them)],
            huge_pages: true,
            ..options(us, XdpWait::Spin)
        },
    );
    match opened {
        Ok(mut port) => {
            send(&mut port, Peer(0), b"from a huge page");
            let mut buffer = [0; 64];
            let heard_bytes = socket.recv(&mut buffer).expect("it was sent");
            assert_eq!(&buffer[..heard_bytes], b"from a huge page");
        }
        Err(error @ OpenError::NoHugePages { .. }) => {
            assert!(error.to_string().contains("nr_hugepages"), "{error}");
            println!("only the refusal was seen: {error}");
        }
        Err(error) => panic!("{error}"),
    }
}
