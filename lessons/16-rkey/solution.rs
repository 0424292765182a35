//! Lesson 16, solved; what a thief can still do, and what he cannot.
#![forbid(unsafe_code)]

use std::sync::Arc;

use lessons::verbs::{End, MEMORY_BYTES, Stranger, connected, counters, link, remote, roce, shm, until, verbs, write};
use rdma::{
    Access, Bind, CompletionError, Data, Device, Local, Memory, Operation, Pd, Provider, ProviderError, QpOptions,
    Randomness, Refusal, Registered, Remote,
    shm::{ShmDevice, ShmWire},
    system_randomness,
    wire::Psn,
};

// ---- 1. A domain for each -------------------------------------------------------------------------------------------

/// Opens memory for each of `peers_count` peers: in which domain its queue pair shall be, and what it is told.
fn open_for(server: &mut ShmDevice, peers_count: usize) -> Vec<(Pd, Registered)> {
    let mut open = || {
        let pd = server.create_pd();
        (pd, server.register(pd, Memory::new(4096), Access::ALL))
    };
    (0..peers_count).map(|_| open()).collect()
}

#[test]
fn a_stolen_key_opens_nothing_through_another_connection() {
    let link = link();
    let (thief, mut server) = shm(&link);
    let opened = open_for(&mut server.device, 2);
    let [(_, anothers), (thiefs_pd, thiefs)] = opened[..] else {
        panic!("two peers")
    };
    // The thief's connection is in the domain that was made for it.
    server.pd = thiefs_pd;
    let (mut thief, mut server) = connected((thief, server), &QpOptions::default());
    assert_eq!(written(&mut thief, &mut server, &thiefs), Ok(()), "what is open to it");
    // The key was read from a packet: it is 32 bits in clear.
    assert_eq!(
        written(&mut thief, &mut server, &anothers),
        Err(CompletionError::RemoteAccess),
        "what is another's"
    );
    let counts = counters(&server).qp.refused_counts;
    assert_eq!(counts[Refusal::WrongPd.index()], 1, "refused by its domain: {counts:?}");
}

/// What becomes of a write to the beginning of a region.
fn written<P: Provider>(a: &mut End<P>, b: &mut End<P>, region: &Registered) -> Result<(), CompletionError> {
    a.done.clear();
    a.post(1, write(&[0xee; 8], remote(region, 0)), true)
        .expect("connected");
    until(a, b, "an answer", |a, _| !a.done.is_empty());
    a.done[0].result
}

// ---- 2. No more than is needed --------------------------------------------------------------------------------------

/// What a log's readers may do to it. They are told where it is, and read.
fn readers() -> Access {
    Access {
        remote_read: true,
        ..Access::default()
    }
}

#[test]
fn who_reads_a_log_cannot_write_it() {
    // Each attempt breaks its connection, so each has its own.
    let attempt = |is_read: bool, operation: fn(Remote, Local) -> Operation<'static>| {
        let link = link();
        let (mut reader, mut owner) = connected(shm(&link), &QpOptions::default());
        let log = Memory::new(4096);
        log.write(0, b"entry 1;");
        let opened = owner.device.register(owner.pd, Arc::clone(&log), readers());
        let into = reader.local(0, 8);
        reader
            .post(1, operation(remote(&opened, 0), into), true)
            .expect("connected");
        until(&mut reader, &mut owner, "an answer", |reader, _| {
            !reader.done.is_empty()
        });
        let mut entry = [0; 8];
        log.read(0, &mut entry);
        assert_eq!(&entry, b"entry 1;", "the log was changed by a reader");
        let refused = match is_read {
            true => (Ok(()), 0),
            false => (Err(CompletionError::RemoteAccess), 1),
        };
        let refused_count = counters(&owner).qp.refused_counts[Refusal::Access.index()];
        assert_eq!((reader.done[0].result, refused_count), refused);
        assert!(!is_read || reader.bytes(0, 8) == entry, "it was not read");
    };
    attempt(true, |from, into| Operation::Read { into, from });
    attempt(false, |to, _| write(b"entry X;", to));
    attempt(false, |at, into| Operation::FetchAdd { into, at, add: 1 });
}

// ---- 3. Numbers that follow each other ------------------------------------------------------------------------------

/// Where a device gets its keys, its addresses and the starts of its sequences from.
fn numbers() -> Randomness {
    system_randomness().expect("the system has randomness")
}

#[test]
fn the_next_key_cannot_be_told_from_the_last_ones() {
    let mut device = Device::new(ShmWire::new(1), numbers());
    let pd = device.create_pd();
    let mut key = || device.register(pd, Memory::new(4096), Access::ALL).key.0;
    // A thief with two connections of its own knows two keys.
    let (first, second) = (key(), key());
    let told = second.wrapping_add(second.wrapping_sub(first));
    assert_ne!(
        key(),
        told,
        "the third key is as far from the second as that from the first"
    );
}

// ---- 4. A window for each -------------------------------------------------------------------------------------------

/// Opens a log to the reader at the other end of `server`'s queue pair: what that reader is told.
fn open_to(server: &mut End<ShmDevice>, log: &Arc<Memory>) -> Registered {
    // The region's own key opens nothing to anybody but its owner.
    let region = server.device.register(server.pd, Arc::clone(log), Access::WINDOWS);
    let window = server
        .device
        .allocate_window(server.pd)
        .expect("this device offers them");
    let bind = Bind {
        window,
        key_part: window.first_part(),
        region: region.key,
        at_bytes: 0,
        len_bytes: region.len_bytes,
        access: readers(),
    };
    server.post(9, Operation::Bind(bind), true).expect("connected");
    while server.done.is_empty() {
        server.turn();
    }
    assert_eq!(server.done.remove(0).result, Ok(()));
    bind.opens(&region)
}

#[test]
fn a_stolen_key_opens_nothing_on_another_connection_of_the_same_domain() {
    let link = link();
    let (mut reader, mut server) = connected(shm(&link), &QpOptions::default());
    let log = Memory::new(4096);
    log.write(0, b"entry 1;");
    let readers_key = open_to(&mut server, &log);
    // The thief has a connection of its own, to the same server, in the same domain.
    let readers_qps = (reader.qp.take(), server.qp.take());
    let (mut thief, mut server) = connected((reader, server), &QpOptions::default());
    let thiefs_key = open_to(&mut server, &log);
    assert_eq!(read(&mut thief, &mut server, &thiefs_key), Ok(()), "what is open to it");
    assert_eq!(
        read(&mut thief, &mut server, &readers_key),
        Err(CompletionError::RemoteAccess),
        "what is open to another"
    );
    let counts = counters(&server).qp.refused_counts;
    assert_eq!(
        counts[Refusal::WrongQp.index()],
        1,
        "refused by its queue pair: {counts:?}"
    );
    // Whose key was stolen has lost nothing.
    (thief.qp, server.qp) = readers_qps;
    assert_eq!(read(&mut thief, &mut server, &readers_key), Ok(()));
}

/// What becomes of a read of a region's beginning.
fn read<P: Provider>(a: &mut End<P>, b: &mut End<P>, region: &Registered) -> Result<(), CompletionError> {
    a.done.clear();
    let into = a.local(0, 8);
    let from = remote(region, 0);
    a.post(1, Operation::Read { into, from }, true).expect("connected");
    until(a, b, "an answer", |a, _| !a.done.is_empty());
    a.done[0].result
}

// ---- And everywhere -------------------------------------------------------------------------------------------------

/// What was refused, by the reason's index.
type Counts = [u64; Refusal::ALL.len()];

/// A way to name memory that one has no right to.
type Theft<P> = fn(&mut End<P>) -> Remote;

/// Each theft over its own connection; the victim is whole after all of them.
fn stolen<P: Provider>(make: impl Fn() -> Option<(End<P>, End<P>)>, told: impl Fn(&P) -> Option<Counts>) {
    let thefts: [(&str, Refusal, Theft<P>); 4] = [
        ("a key that is none", Refusal::UnknownKey, |b| Remote {
            rkey: !b.region.key.0,
            ..b.remote(0)
        }),
        ("another connection's key", Refusal::WrongPd, |b| {
            let pd = b.device.create_pd();
            remote(&b.device.register(pd, Memory::new(4096), Access::ALL), 0)
        }),
        ("memory that is read only", Refusal::Access, |b| {
            let pd = b.device.create_pd();
            let readable = Access {
                remote_read: true,
                ..Access::default()
            };
            b.pd = pd;
            remote(&b.device.register(pd, Memory::new(4096), readable), 0)
        }),
        ("8 bytes behind the end", Refusal::Range, |b| {
            b.remote(MEMORY_BYTES as u64)
        }),
    ];
    for (what, refusal, theft) in thefts {
        let Some((a, mut b)) = make() else {
            return;
        };
        let at = theft(&mut b);
        let (mut a, mut b) = connected(
            (a, b),
            &QpOptions {
                retries_max: 6,
                ..QpOptions::default()
            },
        );
        a.post(1, write(&[0xee; 8], at), true).expect("connected");
        until(&mut a, &mut b, "an answer", |a, _| !a.done.is_empty());
        assert_eq!(a.done[0].result, Err(CompletionError::RemoteAccess), "{what}");
        assert_eq!(
            b.bytes(0, MEMORY_BYTES),
            [0; MEMORY_BYTES],
            "{what}: it was written all the same"
        );
        tell(a.device.name(), what, refusal, told(&b.device));
    }
    if let Some(pair) = make() {
        stolen_window(pair, &told);
    }
    if let Some(pair) = make() {
        handed_back(pair, &told);
    }
}

fn tell(provider: &str, what: &str, refusal: Refusal, counts: Option<Counts>) {
    let counted = counts.map_or("the device does not tell".to_owned(), |counts| {
        assert_eq!((counts[refusal.index()], counts.iter().sum::<u64>()), (1, 1), "{what}");
        format!("counted as \"{refusal}\"")
    });
    println!("{provider:>8}: {what:<27} refused, {counted}");
}

/// A memory window of `b`'s, bound to the connection with `a`, as `a` is told of it; `None`, and said: the device has none.
fn window<P: Provider>(a: &mut End<P>, b: &mut End<P>, what: &str) -> Option<Registered> {
    let window = match b.device.allocate_window(b.pd) {
        Ok(window) => window,
        Err(error @ ProviderError::NotOffered { .. }) => {
            println!("{:>8}: {what}: {error}", a.device.name());
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let region = b.device.register(b.pd, Memory::new(4096), Access::WINDOWS);
    let bind = Bind {
        window,
        key_part: window.first_part(),
        region: region.key,
        at_bytes: 0,
        len_bytes: 4096,
        access: Access::ALL,
    };
    b.post(1, Operation::Bind(bind), true).expect("connected");
    until(a, b, "a window", |_, b| !b.done.is_empty());
    assert_eq!(b.done.pop().map(|done| done.result), Some(Ok(())));
    Some(bind.opens(&region))
}

/// The key of a memory window that was bound to another connection, in the same domain.
fn stolen_window<P: Provider>(pair: (End<P>, End<P>), told: impl Fn(&P) -> Option<Counts>) {
    let options = QpOptions {
        retries_max: 6,
        ..QpOptions::default()
    };
    let what = "another connection's window";
    let (mut a, mut b) = connected(pair, &options);
    let Some(opened) = window(&mut a, &mut b, what) else {
        return;
    };
    let owners = (a.qp.take(), b.qp.take());
    let (mut a, mut b) = connected((a, b), &options);
    assert_eq!(
        written(&mut a, &mut b, &opened),
        Err(CompletionError::RemoteAccess),
        "{what}"
    );
    tell(a.device.name(), what, Refusal::WrongQp, told(&b.device));
    (a.qp, b.qp) = owners;
    assert_eq!(written(&mut a, &mut b, &opened), Ok(()), "{what}: its own connection");
}

/// The key of a memory window whose peer has said with its last message that it needs it no more.
fn handed_back<P: Provider>(pair: (End<P>, End<P>), told: impl Fn(&P) -> Option<Counts>) {
    let what = "a key that was handed back";
    let (mut a, mut b) = connected(pair, &QpOptions::default());
    let Some(opened) = window(&mut a, &mut b, what) else {
        return;
    };
    assert_eq!(written(&mut a, &mut b, &opened), Ok(()), "{what}: before");
    b.receive(3, b.local(0, 5));
    let done = Operation::SendInvalidate {
        data: Data::Inline(b"done."),
        rkey: opened.key.0,
    };
    a.post(4, done, true).expect("connected");
    until(&mut a, &mut b, "the message", |a, b| {
        a.done.len() == 2 && !b.done.is_empty()
    });
    assert_eq!(b.done[0].invalidated, Some(opened.key), "{what}: its owner is told");
    assert_eq!(
        written(&mut a, &mut b, &opened),
        Err(CompletionError::RemoteAccess),
        "{what}"
    );
    tell(a.device.name(), what, Refusal::UnknownKey, told(&b.device));
}

#[test]
fn refused_by_every_provider() {
    fn told<W: rdma::Wire>(device: &Device<W>) -> Option<Counts> {
        Some(device.counters().qp.refused_counts)
    }
    stolen(|| Some(shm(&link())), told);
    stolen(|| roce(16), told);
    stolen(verbs, |_| None);
}

#[test]
fn a_stolen_key_without_the_number_that_is_due_is_refused_and_counted() {
    let link = link();
    let start = Psn::new(0x00ab_cdef);
    let options = QpOptions {
        start_psn: Some(start),
        ..QpOptions::default()
    };
    let (mut peer, mut owner) = connected(shm(&link), &options);
    let qp = owner.qp.as_ref().expect("connected").number();
    let at = owner.remote(0);
    let mut thief = Stranger::new(&mut owner);
    // Everything but the number: queue pair, address, key.
    for ahead in [1, 2, 1000, 1 << 20, (1 << 23) - 1] {
        thief.write(qp, start.plus(ahead), at, [0xee; 8]);
        owner.turn();
        assert_eq!(owner.bytes(0, 8), [0; 8], "{ahead} ahead: it was done");
    }
    println!(
        "5 packets that were not due: {} counted as gaps, nothing written",
        counters(&owner).qp.gaps_count
    );
    assert_eq!(counters(&owner).qp.gaps_count, 5);
    // The owner of the connection has noticed nothing.
    peer.post(1, write(b"the peer", owner.remote(8)), true)
        .expect("connected");
    until(&mut peer, &mut owner, "its completion", |peer, _| !peer.done.is_empty());
    assert_eq!(
        (peer.done[0].result, owner.bytes(0, 16)),
        (Ok(()), b"\0\0\0\0\0\0\0\0the peer".to_vec())
    );
    // And with the number: 24 bits are all that was between them.
    thief.write(qp, start.plus(1), at, [0xee; 8]);
    owner.turn();
    assert_eq!(owner.bytes(0, 8), [0xee; 8], "who knows everything is the peer");
    println!("1 packet that was due: written");
}
