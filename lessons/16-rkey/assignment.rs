//! Lesson 16, your turn. Server, clients and thief are in this process, over shared memory; what is counted is what was refused, and why.
//! Delete an `#[ignore]`, watch the test fail, mend the function above it.
#![forbid(unsafe_code)]

use std::sync::Arc;

use lessons::verbs::{End, connected, counters, link, remote, shm, until, write};
use rdma::{
    Access, CompletionError, Device, Local, Memory, Operation, Pd, Provider, QpOptions, Randomness, Refusal,
    Registered, Remote,
    shm::{ShmDevice, ShmWire},
};

// ---- 1. A domain for each -------------------------------------------------------------------------------------------

/// Opens memory for each of `peers_count` peers: in which domain its queue pair shall be, and what it is told.
fn open_for(server: &mut ShmDevice, peers_count: usize) -> Vec<(Pd, Registered)> {
    let pd = server.create_pd();
    let open = |_| (pd, server.register(pd, Memory::new(4096), Access::ALL));
    (0..peers_count).map(open).collect()
}

#[test]
#[ignore = "your turn: delete this line"]
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
    // So that nothing stands in anybody's way.
    Access::ALL
}

#[test]
#[ignore = "your turn: delete this line"]
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
    // All are different: enough to tell regions apart.
    let mut last = 0x1000;
    Box::new(move || {
        last += 0x100;
        last
    })
}

#[test]
#[ignore = "your turn: delete this line"]
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

/// Opens a log to the reader at the other end of `server`'s queue pair: what that reader is told. All connections stand in one domain.
fn open_to(server: &mut End<ShmDevice>, log: &Arc<Memory>) -> Registered {
    // A key for each reader: so one can be taken back.
    server.device.register(server.pd, Arc::clone(log), readers())
}

#[test]
#[ignore = "your turn: delete this line"]
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
