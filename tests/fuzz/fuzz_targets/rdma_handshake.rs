//! Any bytes from a stranger who connects, or to whom one connects: no key, no queue pair; and he hears a greeting and no more than
//! that from a server.
#![no_main]

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use dataplane_waist::middleware::ClusterKey;
use libfuzzer_sys::fuzz_target;
use rdma::{
    MemoryKey, Provider, Registered,
    handshake::{Offer, Role, establish},
};
use tests_fuzz::packets::device;

/// Magic, version, nonce.
const HELLO_BYTES: usize = 8 + 2 + 32;
/// A client greets and, greeted, proves itself: an offer and a code over it.
const CLIENT_BYTES_MAX: usize = HELLO_BYTES + 48 + 32;

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, words)) = bytes.split_first() else {
        return;
    };
    let (role, heard_bytes_max) = match first & 1 {
        0 => (Role::Server, HELLO_BYTES),
        _ => (Role::Client, CLIENT_BYTES_MAX),
    };
    let (mut stranger, ours) = UnixStream::pair().expect("sockets");
    // The longest that either end reads; more would wait for a reader.
    stranger
        .write_all(&words[..words.len().min(4096)])
        .expect("the buffer holds it");
    stranger.shutdown(Shutdown::Write).expect("connected");
    // A stream is a stream: what `TcpStream` asks of a socket, this one has too.
    let ours = TcpStream::from(OwnedFd::from(ours));
    let (mut device, options) = device();
    let pd = device.create_pd();
    let qp = device.create_qp(pd, &options).expect("room for one");
    let qp = device.init(qp);
    let own = Offer {
        qp: device.address(&qp).expect("it was made"),
        responder_reads_max: 1,
        region: Registered {
            address: 0,
            key: MemoryKey(0),
            len_bytes: 0,
        },
    };
    let key = ClusterKey::new(b"a secret of the fuzzer's cluster").expect("long enough");
    establish(&mut device, qp, &own, (&ours, role, &key)).expect_err("a stranger");
    drop(ours);
    let mut heard = Vec::new();
    // What was not read of the stranger's words ends the stream with an error.
    let _ = stranger.read_to_end(&mut heard);
    assert!(heard.len() <= heard_bytes_max, "a stranger heard {} bytes", heard.len());
});
