//! A leader in user space that sends an entry once for all followers: a port around its port. What a leader sends to one follower
//! after the other is the same frame, so the first goes to an address that the switch floods, and the others are sent already.
//!
//! Electrode copies in the kernel of the leader's host (`bpf_clone_redirect` in TC, NSDI'23 §4.1). Such copies are never seen
//! by a program in generic mode behind them: Linux passes over socket buffers that were redirected (netif_receive_generic_xdp,
//! net/core/dev.c). Here the switch copies, and what the leader saves is the same: a send for each further follower.

use std::{io, net::SocketAddr, os::fd::BorrowedFd, time::Duration};

use dataplane_waist::{Misplaced, Peer, Port, PortCaps, PortStats, RxFrame, TxError};
use dataplane_wire::frame::{self, Kind};

/// See the module.
pub(super) struct Broadcast {
    port: Box<dyn Port>,
    /// Whom everybody listens for.
    group: Peer,
    /// The entry that was sent to all last: its term and slot.
    last: (u64, u64),
    /// Whom it was asked to be sent to since, one bit each: who is asked for twice has lost it.
    asked: u64,
    scratch: Vec<u8>,
}

impl Broadcast {
    pub(super) fn new(port: Box<dyn Port>, group: Peer) -> Broadcast {
        let scratch = vec![0; port.caps().frame_bytes_max];
        Broadcast {
            port,
            group,
            last: (0, 0),
            asked: 0,
            scratch,
        }
    }
}

impl Port for Broadcast {
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
        self.port.rx_burst(sink)
    }

    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        let bit = 1u64.checked_shl(to.0).unwrap_or(0);
        let Some(scratch) = self.scratch.get_mut(..len_bytes).filter(|_| bit != 0) else {
            return self.port.tx(to, len_bytes, fill);
        };
        fill(scratch);
        let copy = |bytes: &mut [u8]| bytes.copy_from_slice(scratch);
        let header = frame::parse(scratch).map(|frame| frame.header);
        let Some(header) = header.ok().filter(|header| header.kind == Kind::Append) else {
            return self.port.tx(to, len_bytes, &mut { copy });
        };
        let entry = (header.term, header.slot);
        if entry == self.last && self.asked & bit == 0 {
            self.asked |= bit;
            return Ok(());
        }
        self.port.tx(self.group, len_bytes, &mut { copy })?;
        (self.last, self.asked) = (entry, bit);
        Ok(())
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
    use dataplane_waist::testing::TestPort;
    use dataplane_wire::frame::Header;

    use super::*;

    const GROUP: Peer = Peer(9);

    fn framed(kind: Kind, slot: u64) -> Vec<u8> {
        let mut bytes = vec![7; frame::HEADER_BYTES + 5];
        let header = Header {
            kind,
            term: 2,
            slot,
            sent_ns: 0,
        };
        frame::emit(&header, &mut bytes);
        bytes
    }

    fn send(port: &mut Broadcast, to: u32, frame: &[u8]) {
        port.tx(Peer(to), frame.len(), &mut |bytes| bytes.copy_from_slice(frame))
            .expect("there is room");
    }

    #[test]
    fn an_entry_leaves_once_and_again_for_whom_it_is_asked_twice() {
        let mut port = Broadcast::new(Box::new(TestPort::new(128, 16)), GROUP);
        let sent = |port: &Broadcast| port.stats().tx_frames_count;
        let (one, two) = (framed(Kind::Append, 5), framed(Kind::Append, 6));
        for to in 0..3 {
            send(&mut port, to, &one);
        }
        port.flush().expect("a test port");
        assert_eq!(sent(&port), 1);
        send(&mut port, 1, &one);
        send(&mut port, 2, &two);
        port.flush().expect("a test port");
        assert_eq!(sent(&port), 3, "again, and the next");
        // A heartbeat is each follower's own.
        let heartbeat = framed(Kind::Entries, 7);
        send(&mut port, 0, &heartbeat);
        send(&mut port, 1, &heartbeat);
        port.flush().expect("a test port");
        assert_eq!(sent(&port), 5);
    }
}
