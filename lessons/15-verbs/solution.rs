//! Lesson 15, solved, and the same connection over every provider that is here.
#![forbid(unsafe_code)]

use std::time::Instant;

use lessons::verbs::{End, connected, counters, link, roce, send, shm, until, verbs};
use rdma::{
    CompletionError, Data, Init, Kind, Operation, Provider, Qp, QpAddress, QpOptions, RNR_RETRY_FOREVER, shm::ShmDevice,
};

type Side = End<ShmDevice>;

// ---- 1. Room before readiness ---------------------------------------------------------------------------------------

/// Takes a server's queue pair from INIT to RTS and posts room for a message. Its client does not wait: as soon as the server answers at
/// all, a message is there.
fn serve(server: &mut Side, qp: Qp<Init>, client: &mut Side, to_client: &QpAddress) {
    // INIT takes receives: that is what it is for.
    server.device.post_receive(&qp, server.room(0, 64)).expect("room");
    let qp = server.device.ready_to_receive(qp, to_client).expect("a path");
    talk(client, server);
    server.qp = Some(server.device.ready_to_send(qp));
}

/// Whatever is to be said is said.
fn talk(client: &mut Side, server: &mut Side) {
    for _ in 0..20 {
        client.turn();
        server.turn();
    }
}

#[test]
fn a_server_has_room_before_it_is_ready() {
    let link = link();
    let (mut client, mut server) = shm(&link);
    let options = QpOptions::default();
    let (client_qp, to_client) = client.queue_pair(&options);
    let (server_qp, to_server) = server.queue_pair(&options);
    client.connect(client_qp, &to_server);
    client.post(1, send(b"hello"), true).expect("it is ready to send");
    serve(&mut server, server_qp, &mut client, &to_client);
    until(&mut client, &mut server, "the message", |_, server| {
        server.done.len() == 1
    });
    assert_eq!(server.bytes(0, 5), b"hello");
    let heard_count = counters(&client).qp.rnr_naks_count;
    assert_eq!(heard_count, 0, "the client was told to come again later");
}

// ---- 2. Posted is not sent ------------------------------------------------------------------------------------------

const MESSAGE_BYTES: usize = 64;
/// Messages that have a place of their own in the sender's memory.
const PLACES_COUNT: usize = 8;
/// One request in so many makes a completion.
const SIGNALLED_EVERY: usize = 4;

/// Writes messages behind each other into the peer's memory. A request does not hold the bytes, it says where they are: they are read
/// when packets leave, and again when one was lost.
fn write_all(a: &mut Side, b: &mut Side, messages: &[[u8; MESSAGE_BYTES]]) {
    for (index, message) in messages.iter().enumerate() {
        // Whose place is it? A completion says of all requests before it, too, that they are done.
        let free_from = (index + 1).saturating_sub(PLACES_COUNT) as u64;
        until(a, b, "a free place", |a, _| {
            free_from == 0 || a.done.last().is_some_and(|done| done.wr_id.0 + 1 >= free_from)
        });
        let at = index % PLACES_COUNT * MESSAGE_BYTES;
        a.memory.write(at, message);
        let write = Operation::Write {
            data: Data::Local(a.local(at, MESSAGE_BYTES)),
            to: b.remote((index * MESSAGE_BYTES) as u64),
            imm: None,
        };
        let signalled = index % SIGNALLED_EVERY == SIGNALLED_EVERY - 1;
        a.post(index as u64, write, signalled).expect("there is room");
    }
    let last = messages.len() as u64 - 1;
    until(a, b, "the last completion", |a, _| {
        a.done.last().is_some_and(|done| done.wr_id.0 == last)
    });
}

#[test]
fn what_was_posted_arrives() {
    let link = link();
    let (mut a, mut b) = connected(shm(&link), &QpOptions::default());
    let messages: Vec<_> = (0..64).map(|index| [index as u8 + 1; MESSAGE_BYTES]).collect();
    write_all(&mut a, &mut b, &messages);
    for (index, message) in messages.iter().enumerate() {
        let there = b.bytes(index * MESSAGE_BYTES, MESSAGE_BYTES);
        assert_eq!(there, message, "message {index} is another one");
    }
    assert_eq!(a.done.len(), messages.len() / SIGNALLED_EVERY, "completions");
}

// ---- 3. Not ready is not gone ---------------------------------------------------------------------------------------

/// How often a sender hears "not ready" before it gives up; `None`: it does not give up.
fn not_ready_heard(rnr_retries_max: u8) -> Option<u64> {
    match rnr_retries_max {
        // 3 bits, and the last number of them is no number (IBA §9.7.5.2.8).
        RNR_RETRY_FOREVER => None,
        // The first try is not a retry.
        retries => Some(u64::from(retries) + 1),
    }
}

#[test]
fn a_sender_is_as_patient_as_it_was_told() {
    for rnr_retries_max in [0, 1, 3, 6, 7] {
        let options = QpOptions {
            rnr_retries_max,
            // 10 µs.
            rnr_timer: 1,
            ..QpOptions::default()
        };
        let link = link();
        let (mut a, mut b) = connected(shm(&link), &options);
        a.post(1, send(b"anybody?"), true).expect("it is ready to send");
        match not_ready_heard(rnr_retries_max) {
            Some(said) => {
                until(&mut a, &mut b, "the end of its patience", |a, _| !a.done.is_empty());
                // Not "retries exceeded": somebody answered, every time.
                assert_eq!(a.done[0].result, Err(CompletionError::RnrExceeded));
                assert_eq!(counters(&a).qp.rnr_naks_count, said, "of {rnr_retries_max} retries");
            }
            None => {
                until(&mut a, &mut b, "a tenth try", |a, _| {
                    counters(a).qp.rnr_naks_count >= 10
                });
                b.receive(2, b.local(0, 64));
                until(&mut a, &mut b, "the message", |a, _| !a.done.is_empty());
                assert_eq!(a.done[0].result, Ok(()));
            }
        }
    }
}

// ---- And everywhere -------------------------------------------------------------------------------------------------

/// A message that finds no receive, one that finds one, and one behind a refused write.
fn shown<P: Provider>(ends: (End<P>, End<P>)) {
    let name = ends.0.device.name();
    let options = QpOptions {
        retries_max: 6,
        ..QpOptions::default()
    };
    let (mut a, mut b) = connected(ends, &options);
    println!("{name}:");
    // Late by half a millisecond.
    let begin = Instant::now();
    a.post(1, send(b"too early"), true).expect("ready to send");
    until(&mut a, &mut b, "half a millisecond", |_, _| {
        begin.elapsed().as_micros() > 500
    });
    assert!(a.done.is_empty(), "nothing is done without a receive");
    b.receive(101, b.local(0, 64));
    until(&mut a, &mut b, "the message", |a, b| {
        !a.done.is_empty() && !b.done.is_empty()
    });
    println!(
        "  1  send, its receive comes 500 µs late   done after {:>5} µs",
        begin.elapsed().as_micros()
    );
    b.receive(102, b.local(64, 64));
    let begin = Instant::now();
    a.post(2, send(b"in time"), true).expect("ready to send");
    until(&mut a, &mut b, "the message", |a, b| {
        a.done.len() == 2 && b.done.len() == 2
    });
    println!(
        "  2  send, its receive is there            done after {:>5} µs",
        begin.elapsed().as_micros()
    );
    // One that breaks the connection, and what stands behind it.
    b.receive(103, b.local(128, 64));
    let nobodys = rdma::Remote {
        rkey: !b.region.key.0,
        ..b.remote(0)
    };
    a.post(3, lessons::verbs::write(b"no key", nobodys), true)
        .expect("ready to send");
    a.post(4, send(b"behind it"), true).expect("ready to send");
    until(&mut a, &mut b, "the end", |a, b| a.done.len() == 4 && b.done.len() == 3);
    for done in a.done.iter().chain(&b.done) {
        let result = done
            .result
            .map_or_else(|error| error.to_string(), |()| "done".to_owned());
        println!("     request {:>3}, {:?}: {result}", done.wr_id.0, done.kind);
    }
    let results: Vec<_> = a.done.iter().map(|done| (done.wr_id.0, done.result)).collect();
    let flushed = Err(CompletionError::Flushed);
    let refused = Err(CompletionError::RemoteAccess);
    assert_eq!(results, [(1, Ok(())), (2, Ok(())), (3, refused), (4, flushed)]);
    assert_eq!((b.done[2].kind, b.done[2].result), (Kind::Receive, flushed));
    assert!(a.device.is_broken(a.qp.as_ref().expect("connected")));
}

#[test]
fn the_same_over_every_provider() {
    shown(shm(&link()));
    if let Some(ends) = roce(15) {
        shown(ends);
    }
    if let Some(ends) = verbs() {
        shown(ends);
    }
}
