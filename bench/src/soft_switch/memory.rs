//! The memory of all ports' sockets as the switch's memory.

use std::ops::Range;

use dataplane_ports::xdp::{Frame, Umem};
use dataplane_softswitch::Memory;

/// A frame with the bytes of it that count.
#[derive(Debug)]
pub(super) struct Held {
    pub frame: Frame,
    pub bytes: Range<usize>,
}

/// One memory for all ports, so that a frame goes from one to another without a copy.
#[derive(Debug)]
pub(super) struct Frames {
    pub umem: Umem,
    /// Nobody has them.
    pub free: Vec<Frame>,
}

impl Memory for Frames {
    type Frame = Held;

    #[inline]
    fn bytes_mut<'a>(&'a mut self, held: &'a mut Held) -> &'a mut [u8] {
        let bytes = held.bytes.clone();
        &mut self.umem.bytes_mut(&mut held.frame)[bytes]
    }

    fn copy(&mut self, held: &Held) -> Option<Held> {
        let mut frame = self.free.pop()?;
        let from = &self.umem.bytes(&held.frame)[held.bytes.clone()];
        self.umem.bytes_mut(&mut frame)[held.bytes.clone()].copy_from_slice(from);
        Some(Held {
            frame,
            bytes: held.bytes.clone(),
        })
    }

    fn shorten(&mut self, held: &mut Held, len_bytes: usize) {
        held.bytes.end = held.bytes.start + len_bytes;
    }

    #[inline]
    fn give_back(&mut self, held: Held) {
        self.free.push(held.frame);
    }
}
