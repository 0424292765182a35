//! What every port must do, whatever it is made of. One [`Link`] per test, so that nothing is left over from another.
//!
//! No check asserts speed: every wait has a generous end, and what is asserted is what came.

use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use dataplane_waist::{Peer, Port, RxFrame, TxError, Wake};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Two ports that reach each other. `a` knows `b`; `b` may learn `a` from its first frame.
pub struct Link {
    pub a: Box<dyn Port>,
    pub a_to_b: Peer,
    pub b: Box<dyn Port>,
}

/// The end of every wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(5);

/// All checks, each on a link of its own.
pub fn conform(open: &dyn Fn() -> Link) {
    echoes_every_size(open());
    delivers_a_burst_once_and_in_order(open());
    refuses_what_it_cannot_carry(open());
    survives_a_full_queue(open());
    waits_no_longer_than_asked(open());
    rests_on_a_bell_as_well(open());
    survives_the_end_of_its_peer(open());
    allocates_nothing_per_turn(open());
}

fn echoes_every_size(mut link: Link) {
    for len_bytes in [1, 64, 65, 1472, 8972] {
        assert!(link.a.caps().frame_bytes_max >= len_bytes, "{:?}", link.a.caps());
        let request: Vec<u8> = (0..len_bytes).map(|i| (i * 7 + len_bytes) as u8).collect();
        send(&mut *link.a, link.a_to_b, &request);

        let (from, heard) = receive(&mut *link.b);
        assert_eq!(heard, request, "{len_bytes} bytes from a to b");
        let reply: Vec<u8> = heard.iter().map(|byte| !byte).collect();
        send(&mut *link.b, from, &reply);

        let (from, heard) = receive(&mut *link.a);
        assert_eq!(from, link.a_to_b);
        assert_eq!(heard, reply, "{len_bytes} bytes from b to a");
    }
    let (a, b) = (link.a.stats(), link.b.stats());
    assert_eq!((a.tx_frames_count, a.rx_frames_count), (5, 5), "{a:?}");
    assert_eq!((b.tx_frames_count, b.rx_frames_count), (5, 5), "{b:?}");
    assert_eq!((a.tx_dropped_count, b.tx_dropped_count), (0, 0));
    assert_eq!((a.malformed_count, b.strangers_count), (0, 0));
}

fn delivers_a_burst_once_and_in_order(mut link: Link) {
    let batch = link.a.caps().batch_frames_max as u32;
    for round in 0..3 {
        for i in 0..batch {
            let number = round * batch + i;
            let frame = [number.to_le_bytes(); 16];
            link.a
                .tx(link.a_to_b, 64, &mut |bytes| {
                    bytes.copy_from_slice(frame.as_flattened())
                })
                .expect("a batch fits between two flushes");
        }
        link.a.flush().expect("flush");
        let mut heard = Vec::new();
        receive_until(&mut *link.b, |frame| {
            assert_eq!(frame.len(), 64);
            heard.push(u32::from_le_bytes(frame[60..].try_into().expect("four bytes")));
            heard.len() == batch as usize
        });
        let sent: Vec<u32> = (round * batch..(round + 1) * batch).collect();
        assert_eq!(heard, sent);
    }
    assert_eq!(
        link.b
            .rx_burst(&mut |frame| panic!("{frame:?} came twice"))
            .expect("rx"),
        0
    );
}

fn refuses_what_it_cannot_carry(mut link: Link) {
    let caps = link.a.caps();
    let never = &mut |_: &mut [u8]| panic!("fill of a refused frame");
    assert_eq!(
        link.a.tx(link.a_to_b, caps.frame_bytes_max + 1, never),
        Err(TxError::TooLong)
    );
    assert_eq!(link.a.tx(Peer(1_000_000), 64, never), Err(TxError::NoPeer));
    link.a.flush().expect("flush");
    send(&mut *link.a, link.a_to_b, b"still works");
    assert_eq!(receive(&mut *link.b).1, b"still works");
}

/// A queue that says [`TxError::Full`] has room again once it is flushed and the peer has drained it; one that never
/// says so drops and counts. Either way nothing blocks, fails, or is corrupted.
fn survives_a_full_queue(mut link: Link) {
    const FRAMES_COUNT: u64 = 20_000;
    let mut refused_count = 0;
    for number in 0..FRAMES_COUNT {
        match link.a.tx(link.a_to_b, 64, &mut |bytes| number_frame(bytes, number)) {
            Ok(()) => {}
            Err(TxError::Full) => {
                refused_count += 1;
                link.a.flush().expect("flush");
            }
            Err(other) => panic!("{other}"),
        }
    }
    link.a.flush().expect("flush");
    let sent = link.a.stats();
    assert_eq!(
        sent.tx_frames_count + sent.tx_dropped_count,
        FRAMES_COUNT,
        "each frame is either sent or dropped: {sent:?}, {refused_count} refused"
    );

    // What came is a subset of what was sent, in order; what did not come, the receiver knows of or the sender dropped.
    let mut last = None;
    let mut heard_count = 0;
    let mut empty_looks = 0;
    while empty_looks < 10 {
        link.b.wait(Duration::from_millis(20)).expect("wait");
        let count = link
            .b
            .rx_burst(&mut |frame| {
                let number = numbered_frame(frame.bytes);
                assert!(last < Some(number), "{number} after {last:?}");
                last = Some(number);
            })
            .expect("rx");
        heard_count += count as u64;
        empty_looks = if count == 0 { empty_looks + 1 } else { 0 };
    }
    let heard = link.b.stats();
    assert!(heard_count > 0);
    assert_eq!(heard.rx_frames_count, heard_count);
    // A kernel counts a dropped train of frames as one, so with drops the sum may fall short.
    let known_count = heard_count + heard.rx_dropped_count;
    assert!(known_count <= sent.tx_frames_count, "{heard:?} of {sent:?}");
    assert!(
        known_count == sent.tx_frames_count || heard.rx_dropped_count > 0,
        "frames vanished without a trace: {heard:?} of {sent:?}"
    );

    send(&mut *link.a, link.a_to_b, b"room again");
    assert_eq!(receive(&mut *link.b).1, b"room again");
}

fn waits_no_longer_than_asked(mut link: Link) {
    for max_us in [0, 1, 500, 9_000, 15_000, 30_000, 1_000_000] {
        let begin = Instant::now();
        link.a.wait(Duration::from_micros(max_us)).expect("wait");
        assert!(begin.elapsed() < PATIENCE, "{max_us} us took {:?}", begin.elapsed());
    }
    assert_eq!(
        link.a
            .rx_burst(&mut |frame| panic!("{frame:?} from nowhere"))
            .expect("rx"),
        0
    );
    // A frame that is there ends a wait, and waiting again does not lose it.
    send(&mut *link.b_knowing_a().b, Peer(0), b"wake up");
    let begin = Instant::now();
    while link.a.stats().rx_frames_count == 0 {
        assert!(begin.elapsed() < PATIENCE, "a sent frame never came");
        link.a.wait(Duration::from_millis(20)).expect("wait");
        link.a.wait(Duration::from_millis(20)).expect("wait");
        link.a
            .rx_burst(&mut |frame| assert_eq!(frame.bytes, b"wake up"))
            .expect("rx");
    }
}

/// What ends a wait for two things: time, the bell, a frame. A wait that misses one of the latter takes a minute.
fn rests_on_a_bell_as_well(mut link: Link) {
    const LONG: Duration = Duration::from_secs(60);
    let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("an eventfd");
    for max_us in [0, 1, 500, 15_000] {
        link.a
            .wait_or(Duration::from_micros(max_us), bell.as_fd())
            .expect("wait");
    }
    bell.write(1).expect("it is far from full");
    let begin = Instant::now();
    link.a.wait_or(LONG, bell.as_fd()).expect("wait");
    assert!(begin.elapsed() < PATIENCE, "the bell was not heard");
    assert_eq!(bell.read().expect("it has rung"), 1, "the port read it");

    send(&mut *link.b_knowing_a().b, Peer(0), b"a frame");
    let begin = Instant::now();
    while link.a.stats().rx_frames_count == 0 {
        link.a.wait_or(LONG, bell.as_fd()).expect("wait");
        link.a
            .rx_burst(&mut |frame| assert_eq!(frame.bytes, b"a frame"))
            .expect("rx");
        assert!(begin.elapsed() < PATIENCE, "a sent frame never came");
    }
}

fn survives_the_end_of_its_peer(mut link: Link) {
    send(&mut *link.a, link.a_to_b, b"hello");
    receive(&mut *link.b);
    drop(link.b);
    let batch = link.a.caps().batch_frames_max;
    for _ in 0..50 {
        for _ in 0..batch {
            match link.a.tx(link.a_to_b, 64, &mut |bytes| bytes.fill(1)) {
                Ok(()) | Err(TxError::Full) => {}
                Err(other) => panic!("{other}"),
            }
        }
        link.a.flush().expect("a dead peer is loss, not an error");
        link.a.wait(Duration::from_micros(100)).expect("wait");
        link.a.rx_burst(&mut |_| {}).expect("rx");
    }
}

/// Counted on this thread, by the allocator of the test binary.
fn allocates_nothing_per_turn(mut link: Link) {
    let mut buffer = [0u8; 9000];
    let batch = link.a.caps().batch_frames_max.min(8);
    let mut turns = |count: u64| {
        for turn in 0..count {
            let len_bytes = 64 + (turn as usize % 8) * 200;
            for _ in 0..batch {
                let number = &mut |bytes: &mut [u8]| number_frame(bytes, turn);
                link.a.tx(link.a_to_b, len_bytes, number).expect("tx");
            }
            link.a.flush().expect("flush");
            let (mut heard_count, mut from) = (0, Peer(0));
            let begin = Instant::now();
            while heard_count < batch {
                assert!(begin.elapsed() < PATIENCE, "{heard_count} of {batch} in turn {turn}");
                link.b.wait(Duration::from_millis(20)).expect("wait");
                let sink = &mut |frame: RxFrame<'_>| {
                    buffer[..frame.bytes.len()].copy_from_slice(frame.bytes);
                    from = frame.from;
                };
                heard_count += link.b.rx_burst(sink).expect("rx");
            }
            for _ in 0..batch {
                let reply = &mut |bytes: &mut [u8]| bytes.copy_from_slice(&buffer[..bytes.len()]);
                link.b.tx(from, len_bytes, reply).expect("tx");
            }
            link.b.flush().expect("flush");
            let mut heard_count = 0;
            let begin = Instant::now();
            while heard_count < batch {
                assert!(
                    begin.elapsed() < PATIENCE,
                    "{heard_count} of {batch} replies in turn {turn}"
                );
                link.a.wait(Duration::from_millis(20)).expect("wait");
                let sink = &mut |frame: RxFrame<'_>| assert_eq!(numbered_frame(frame.bytes), turn);
                heard_count += link.a.rx_burst(sink).expect("rx");
            }
            link.a.stats();
        }
    };
    turns(8);
    let counted = allocation_counter::measure(|| turns(100));
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

impl Link {
    /// Lets `b` learn `a` if it has to: then `a` is its peer 0.
    fn b_knowing_a(&mut self) -> &mut Link {
        send(&mut *self.a, self.a_to_b, b"hello");
        assert_eq!(receive(&mut *self.b), (Peer(0), b"hello".to_vec()));
        self
    }
}

/// Sends one frame.
pub fn send(port: &mut dyn Port, to: Peer, frame: &[u8]) {
    port.tx(to, frame.len(), &mut |bytes| bytes.copy_from_slice(frame))
        .expect("tx");
    port.flush().expect("flush");
}

/// Waits for one frame.
pub fn receive(port: &mut dyn Port) -> (Peer, Vec<u8>) {
    let mut heard = None;
    wait_until(port, |port| {
        port.rx_burst(&mut |frame| {
            let earlier = heard.replace((frame.from, frame.bytes.to_vec()));
            assert_eq!(earlier, None, "one frame was sent");
        })?;
        Ok(heard.is_some())
    });
    heard.expect("waited for it")
}

fn receive_until(port: &mut dyn Port, mut done: impl FnMut(&[u8]) -> bool) {
    let mut finished = false;
    wait_until(port, |port| {
        let most = port.caps().batch_frames_max;
        let count = port.rx_burst(&mut |frame| finished = done(frame.bytes))?;
        assert!(count <= most, "{count} frames in a burst of at most {most}");
        Ok(finished)
    });
}

fn wait_until(port: &mut dyn Port, mut look: impl FnMut(&mut dyn Port) -> io::Result<bool>) {
    let begin = Instant::now();
    loop {
        port.wait(Duration::from_millis(20)).expect("wait");
        if look(port).expect("rx") {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "nothing came: {:?}", port.stats());
        if port.caps().wake == Wake::Spins {
            std::thread::yield_now();
        }
    }
}

/// A frame that says its number and is garbled if any byte of it is another frame's.
pub fn number_frame(bytes: &mut [u8], number: u64) {
    let (head, body) = bytes.split_at_mut(8);
    head.copy_from_slice(&number.to_le_bytes());
    for (i, byte) in body.iter_mut().enumerate() {
        *byte = (number as usize + i) as u8;
    }
}

/// The number of such a frame.
///
/// # Panics
/// If it is garbled.
pub fn numbered_frame(bytes: &[u8]) -> u64 {
    let number = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    for (i, byte) in bytes[8..].iter().enumerate() {
        assert_eq!(*byte, (number as usize + i) as u8, "byte {i} of frame {number}");
    }
    number
}
