//! Lesson 15, your turn. Both ends are in this process, over shared memory, so that nothing here needs hardware; what is counted is
//! packets and completions. Delete an `#[ignore]`, watch the test fail, mend the function above it.
#![forbid(unsafe_code)]

use lessons::verbs::{End, connected, counters, link, send, shm, until};
use rdma::{CompletionError, Data, Init, Operation, Provider, Qp, QpAddress, QpOptions, shm::ShmDevice};

type Side = End<ShmDevice>;

// ---- 1. Room before readiness ---------------------------------------------------------------------------------------

/// Takes a server's queue pair from INIT to RTS and posts room for a message. Its client does not wait: as soon as the server answers at
/// all, a message is there.
fn serve(server: &mut Side, qp: Qp<Init>, client: &mut Side, to_client: &QpAddress) {
    let qp = server.device.ready_to_receive(qp, to_client).expect("a path");
    talk(client, server);
    server.device.post_receive(&qp, server.room(0, 64)).expect("room");
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
#[ignore = "your turn: delete this line"]
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
#[ignore = "your turn: delete this line"]
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
    Some(rnr_retries_max.into())
}

#[test]
#[ignore = "your turn: delete this line"]
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
