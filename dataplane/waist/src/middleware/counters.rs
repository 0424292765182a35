//! Counts what passes: frames and bytes, per direction.

use std::{io, net::SocketAddr, os::fd::BorrowedFd, time::Duration};

use crate::{Misplaced, Peer, Port, PortCaps, PortStats, RxFrame, TxError};

/// A port that counts. [`PortStats`] counts frames below; this counts bytes too, wherever it stands in a stack.
#[derive(Debug)]
pub struct Counters<P> {
    port: P,
    counts: Counts,
}

/// What passed so far: a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to a sink.
    pub rx: Traffic,
    /// Queued.
    pub tx: Traffic,
    /// Frames that the port below would not queue.
    pub tx_refused_count: u64,
}

/// Frames, and the bytes in them (header and payload of `dataplane_wire::frame`, nothing outside it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many frames.
    pub frames_count: u64,
    /// How long they were together.
    pub frames_bytes: u64,
}

impl Traffic {
    fn add(&mut self, frame_bytes: usize) {
        self.frames_count += 1;
        self.frames_bytes += frame_bytes as u64;
    }
}

impl<P: Port> Counters<P> {
    /// Counts what passes through `port` from now on.
    pub fn new(port: P) -> Counters<P> {
        Counters {
            port,
            counts: Counts::default(),
        }
    }

    /// What passed so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The port below.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }
}

impl<P: Port> Port for Counters<P> {
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
        let Counters { port, counts } = self;
        port.rx_burst(&mut |frame| {
            counts.rx.add(frame.bytes.len());
            sink(frame);
        })
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        let result = self.port.tx(to, len_bytes, fill);
        match result {
            Ok(()) => self.counts.tx.add(len_bytes),
            Err(_) => self.counts.tx_refused_count += 1,
        }
        result
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
    use super::*;
    use crate::testing::TestPort;

    #[test]
    fn frames_and_bytes_are_counted_per_direction_and_refusals_apart() {
        let mut port = Counters::new(TestPort::new(8, 2));
        for (len_bytes, result) in [
            (3, Ok(())),
            (9, Err(TxError::TooLong)),
            (5, Ok(())),
            (1, Err(TxError::Full)),
        ] {
            assert_eq!(port.tx(Peer(0), len_bytes, &mut |bytes| bytes.fill(1)), result);
        }
        port.port_mut().put_rx(Peer(0), &[0; 7]);
        assert_eq!(port.rx_burst(&mut |_| ()).expect("a test port"), 1);
        let expected = Counts {
            rx: Traffic {
                frames_count: 1,
                frames_bytes: 7,
            },
            tx: Traffic {
                frames_count: 2,
                frames_bytes: 8,
            },
            tx_refused_count: 2,
        };
        assert_eq!(port.counts(), expected);
    }
}
