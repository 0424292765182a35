//! As many senders as an incast has, with the kernel's own TCP.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::PoisonError,
    thread,
    time::Duration,
};

use bench::switch::{Fabric, Kind, Shape};
use dataplane_queue::Limit;

use super::{MBIT, ONE_SWITCH};

const SENDERS_COUNT: usize = 64;
/// More than the port holds, of each.
const BYTES_OF_EACH: usize = 30_000;
/// Bounds every wait for bytes: retransmission time-outs double up to it.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[test]
fn sixty_four_tcp_senders_get_all_their_bytes_through_the_kernels_switch() {
    let shape = Shape::new(100 * MBIT, Limit::Packets(100), Some(Limit::Packets(20)));
    let _guard = ONE_SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(why) = Kind::Kernel.can_be(&shape) {
        println!("64 senders: not run: {why}");
        return;
    }
    let fabric = Fabric::build(Kind::Kernel, SENDERS_COUNT, &shape).expect("a fabric");
    let receiver = fabric.receiver();
    let listener = receiver
        .run(|| TcpListener::bind((receiver.ipv4(), 0)))
        .expect("inside")
        .expect("a socket");
    let to = listener.local_addr().expect("an address");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut streams = Vec::new();
            for sender in fabric.senders() {
                let stream = sender.run(|| TcpStream::connect_timeout(&to, WAIT_MAX));
                let mut stream = stream.expect("inside").expect("a connection");
                stream.set_write_timeout(Some(WAIT_MAX)).expect("a time");
                // It fits the socket's own buffer, so all of them send at once.
                stream.write_all(&[7; BYTES_OF_EACH]).expect("taken");
                streams.push(stream);
            }
        });
        let mut came_bytes = 0;
        for _ in 0..SENDERS_COUNT {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_read_timeout(Some(WAIT_MAX)).expect("a time");
            let mut bytes = Vec::new();
            came_bytes += stream.read_to_end(&mut bytes).expect("all of it");
        }
        assert_eq!(came_bytes, SENDERS_COUNT * BYTES_OF_EACH);
    });
    let lap = fabric.lap().expect("it works");
    let port = &lap.to_receiver;
    let least_count = (SENDERS_COUNT * BYTES_OF_EACH / 1500) as u64;
    assert!(port.sent_count > least_count, "{port:?}");
    let senders_with_frames = lap.to_senders.iter().filter(|port| port.received_count > 20).count();
    assert_eq!(senders_with_frames, SENDERS_COUNT, "{lap:?}");
    // What this switch does not measure it says by name.
    let facts = lap.facts();
    assert!(facts["switch_lateness"].starts_with("not measured: "), "{facts:?}");
    let queue = &facts["switch_queue_bytes_max"];
    match port.dropped_count {
        0 => assert!(queue.contains("not measured more closely"), "{facts:?}"),
        _ => assert_eq!(queue, "full: 100 frames"),
    }
    let network = &fabric.facts()["network"];
    assert!(
        network.contains("65 hosts") && network.contains("kernel switch"),
        "{network}"
    );
    fabric.stop().expect("it worked until now");
}
