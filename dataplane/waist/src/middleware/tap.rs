//! Writes every frame that passes into a capture, and passes it on whatever becomes of the file.

use std::{
    io::{self, Write},
    net::SocketAddr,
    os::fd::BorrowedFd,
    time::Duration,
};

use super::{Capture, Direction};
use crate::{Clock, Misplaced, Peer, Port, PortCaps, PortStats, RxFrame, TxError};

/// A port with a [`Capture`] beside it. Frames are stamped when they pass here, not when they are on the wire, and the
/// file is written on the port's own thread: a tapped run shows what happened, not how fast.
pub struct Tap<P, C, W: Write> {
    port: P,
    clock: C,
    capture: Capture<W>,
}

impl<P: Port, C: Clock, W: Write> Tap<P, C, W> {
    /// Taps `port`; stamps come from `clock`.
    pub fn new(port: P, clock: C, capture: Capture<W>) -> Tap<P, C, W> {
        Tap { port, clock, capture }
    }

    /// The capture: its counters and its error.
    pub fn capture(&self) -> &Capture<W> {
        &self.capture
    }

    /// The port below.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// The port, which goes on untapped, and the capture, to be finished.
    pub fn into_parts(self) -> (P, Capture<W>) {
        (self.port, self.capture)
    }
}

impl<P: Port, C: Clock + Send, W: Write + Send> Port for Tap<P, C, W> {
    fn caps(&self) -> PortCaps {
        self.port.caps()
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.port.wait(max)
    }

    fn wait_or(&mut self, max: Duration, bell: BorrowedFd<'_>) -> io::Result<()> {
        self.port.wait_or(max, bell)
    }

    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        let Tap { port, clock, capture } = self;
        port.rx_burst(&mut |frame| {
            capture.record(Direction::Rx, frame.from, clock.now(), frame.bytes);
            sink(frame);
        })
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        let Tap { port, clock, capture } = self;
        // `fill` is called only for a frame that is queued, so this is the moment it passes.
        port.tx(to, len_bytes, &mut |bytes| {
            fill(bytes);
            capture.record(Direction::Tx, to, clock.now(), bytes);
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.port.flush()
    }

    fn stats(&self) -> PortStats {
        self.port.stats()
    }

    fn peer_addr(&self, peer: Peer) -> Option<SocketAddr> {
        self.port.peer_addr(peer)
    }

    fn misplaced(&self) -> Option<Misplaced> {
        self.port.misplaced()
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader, blocks::enhanced_packet::EnhancedPacketOption};

    use super::*;
    use crate::{
        middleware::CaptureOptions,
        testing::{ManualClock, TestPort},
    };

    fn tapped<W: Write + Send>(file: W, options: CaptureOptions) -> (Tap<TestPort, ManualClock, W>, ManualClock) {
        let clock = ManualClock::new();
        let capture = Capture::new(file, options).expect("the header can be written");
        (Tap::new(TestPort::new(16, 4), clock.clone(), capture), clock)
    }

    #[test]
    fn the_file_has_every_frame_with_its_stamp_direction_peer_and_length() {
        let options = CaptureOptions {
            interface: "udp".into(),
            snap_bytes_max: 5,
            epoch_unix: Duration::from_secs(1_700_000_000),
            ..CaptureOptions::default()
        };
        let (mut tap, clock) = tapped(Vec::new(), options);
        clock.advance(Duration::from_nanos(1_000_000_007));
        tap.tx(Peer(9), 3, &mut |bytes| bytes.copy_from_slice(b"abc"))
            .expect("room");
        tap.tx(Peer(9), 17, &mut |_| panic!("not filled"))
            .expect_err("too long");
        clock.advance(Duration::from_nanos(1));
        tap.port_mut().put_rx(Peer(u32::MAX), b"0123456");
        let mut received = Vec::new();
        tap.rx_burst(&mut |frame| received.push((frame.from, frame.bytes.to_vec())))
            .expect("a test port");
        assert_eq!(received, [(Peer(u32::MAX), b"0123456".to_vec())], "passed on uncut");

        let (_, capture) = tap.into_parts();
        assert_eq!((capture.written_count(), capture.unwritten_count()), (2, 0));
        let file = capture.finish().expect("a vector takes everything");
        let mut reader = PcapNgReader::new(&file[..]).expect("a section header");
        let mut seen = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.expect("well formed") {
                let comment = packet.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Comment(text) => Some(text.to_string()),
                    _ => None,
                });
                let flags = packet.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Flags(flags) => Some(*flags),
                    _ => None,
                });
                seen.push((
                    packet.timestamp.as_nanos(),
                    flags.expect("flags"),
                    comment.expect("a comment"),
                    packet.original_len,
                    packet.data.to_vec(),
                ));
            }
        }
        assert_eq!(
            seen,
            [
                (1_700_000_001_000_000_007, 2, "peer 9".into(), 3, b"abc".to_vec()),
                (
                    1_700_000_001_000_000_008,
                    1,
                    "peer 4294967295".into(),
                    7,
                    b"01234".to_vec()
                ),
            ]
        );
        let interface = &reader.interfaces()[0];
        assert_eq!((u32::from(interface.linktype), interface.snaplen), (147, 5));
    }

    /// A disk that fills up after `room_bytes`.
    struct FullDisk {
        room_bytes: usize,
    }

    impl Write for FullDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room_bytes == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken_bytes = bytes.len().min(self.room_bytes);
            self.room_bytes -= taken_bytes;
            Ok(taken_bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_that_fails_loses_no_frame_of_the_port_and_says_so() {
        let (mut tap, _) = tapped(FullDisk { room_bytes: 1000 }, CaptureOptions::default());
        const FRAMES_COUNT: u64 = 5_000;
        let mut received_count = 0;
        for _ in 0..FRAMES_COUNT {
            tap.port_mut().put_rx(Peer(0), &[7; 16]);
            received_count += tap
                .rx_burst(&mut |frame| assert_eq!(frame.bytes, [7; 16]))
                .expect("a test port") as u64;
        }
        assert_eq!(received_count, FRAMES_COUNT);
        let (_, capture) = tap.into_parts();
        assert!(capture.unwritten_count() > 0);
        assert_eq!(capture.written_count() + capture.unwritten_count(), FRAMES_COUNT);
        assert_eq!(capture.error().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
        assert_eq!(
            capture.finish().err().map(|e| e.kind()),
            Some(io::ErrorKind::StorageFull)
        );
    }

    #[test]
    fn a_disk_without_room_for_the_header_is_an_error_at_once() {
        let result = Capture::new(FullDisk { room_bytes: 10 }, CaptureOptions::default());
        assert_eq!(result.err().map(|e| e.kind()), Some(io::ErrorKind::StorageFull));
    }

    #[test]
    fn the_bound_of_the_file_ends_the_capture_and_not_the_port() {
        let options = CaptureOptions {
            file_bytes_max: 230,
            ..CaptureOptions::default()
        };
        let (mut tap, _) = tapped(Vec::new(), options);
        for _ in 0..4 {
            tap.tx(Peer(0), 16, &mut |bytes| bytes.fill(7)).expect("room");
        }
        assert_eq!((tap.capture().written_count(), tap.capture().unwritten_count()), (2, 2));
        let said = tap.capture().error().expect("the bound").to_string();
        assert!(said.contains("230 bytes") && said.contains("file_bytes_max"), "{said}");
    }
}
