//! The kernel's side of the rings in copy mode, as net/xdp/xsk.c has it, without packets.

use std::{collections::VecDeque, ops::Range};

use dataplane_ports::xdp::{Frame, Segment, Umem, XdpCounters};

use super::{KICK_FRAMES_MAX, Rings, World, frames};

/// A packet of this model.
const PACKET_BYTES: usize = 64;
/// The kernel's own room in front of a received packet (XDP_PACKET_HEADROOM, include/uapi/linux/bpf.h).
const HEADROOM_BYTES: usize = 256;

/// A ring: its producer writes entries, and makes them visible all at once.
#[derive(Debug)]
struct Ring<T> {
    entries: usize,
    written: VecDeque<T>,
    visible: VecDeque<T>,
    /// Taken out, their places not given back.
    unreleased_count: usize,
}

impl<T> Ring<T> {
    fn new(entries: u32) -> Ring<T> {
        Ring {
            entries: entries as usize,
            written: VecDeque::new(),
            visible: VecDeque::new(),
            unreleased_count: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.written.len() + self.visible.len() + self.unreleased_count == self.entries
    }

    fn push(&mut self, entry: T) -> Result<(), T> {
        match self.is_full() {
            true => Err(entry),
            false => {
                self.written.push_back(entry);
                Ok(())
            }
        }
    }

    fn publish(&mut self) {
        self.visible.append(&mut self.written);
    }

    /// By our side, which gives places back in its own time.
    fn pop(&mut self) -> Option<T> {
        let entry = self.visible.pop_front()?;
        self.unreleased_count += 1;
        Some(entry)
    }

    fn release(&mut self) {
        self.unreleased_count = 0;
    }
}

/// See the file's first line.
#[derive(Debug)]
pub struct Model {
    umem: Umem,
    fill: Ring<Frame>,
    rx: Ring<Segment>,
    tx: Ring<(Frame, Range<usize>)>,
    completion: Ring<Frame>,
    counters: XdpCounters,
    delivered_count: u64,
}

impl Model {
    /// With `entries` frames on the fill ring, and as many to send from.
    ///
    /// # Panics
    /// If `entries` is not a power of two.
    pub fn new(entries: u32) -> (Model, Vec<Frame>) {
        let (umem, to_receive, to_send) = frames(entries);
        let mut model = Model {
            umem,
            fill: Ring::new(entries),
            rx: Ring::new(entries),
            tx: Ring::new(entries),
            completion: Ring::new(entries),
            counters: XdpCounters::default(),
            delivered_count: 0,
        };
        for frame in to_receive {
            model.fill(frame).expect("room for as many");
        }
        model.publish_fill();
        (model, to_send)
    }
}

impl Rings for Model {
    fn fill(&mut self, frame: Frame) -> Result<(), Frame> {
        self.fill.push(frame)
    }

    fn publish_fill(&mut self) {
        self.fill.publish();
    }

    fn receive(&mut self) -> Option<Segment> {
        self.rx.pop()
    }

    fn release_rx(&mut self) {
        self.rx.release();
    }

    fn write_packet(&mut self, frame: &mut Frame) -> Range<usize> {
        self.umem.bytes_mut(frame)[..PACKET_BYTES].fill(7);
        0..PACKET_BYTES
    }

    fn tx(&mut self, frame: Frame, bytes: Range<usize>) -> Result<(), Frame> {
        self.tx.push((frame, bytes)).map_err(|(frame, _)| frame)
    }

    fn publish_tx(&mut self) {
        self.tx.publish();
    }

    fn kick(&mut self) {
        for _ in 0..KICK_FRAMES_MAX {
            // The place in the completion ring is taken first (xsk_cq_reserve_locked): what could not be given back is not sent.
            if self.completion.is_full() {
                break;
            }
            let Some((frame, _bytes)) = self.tx.visible.pop_front() else {
                self.counters.tx_ring_empty_count += 1;
                break;
            };
            self.delivered_count += 1;
            self.completion.push(frame).expect("there was room");
            self.completion.publish();
        }
    }

    fn tx_pending_count(&mut self) -> u32 {
        self.tx.visible.len() as u32
    }

    fn complete(&mut self) -> Option<Frame> {
        self.completion.pop()
    }

    fn release_completions(&mut self) {
        self.completion.release();
    }

    fn counters(&self) -> XdpCounters {
        self.counters
    }
}

impl World for Model {
    fn name(&self) -> &'static str {
        "model"
    }

    fn arrive(&mut self, packets_count: u64) {
        for _ in 0..packets_count {
            // __xsk_rcv: a frame to copy into first, then a place in the receive ring.
            if self.fill.visible.is_empty() {
                self.counters.rx_fill_ring_empty_count += 1;
                self.counters.rx_dropped_count += 1;
                continue;
            }
            if self.rx.is_full() {
                self.counters.rx_ring_full_count += 1;
                continue;
            }
            let frame = self.fill.visible.pop_front().expect("just looked");
            let segment = Segment {
                frame,
                bytes: HEADROOM_BYTES..HEADROOM_BYTES + PACKET_BYTES,
                is_continued: false,
            };
            self.rx.push(segment).expect("there was room");
            self.rx.publish();
        }
    }

    fn delivered_count(&mut self) -> u64 {
        self.delivered_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_published_is_not_there() {
        let (mut model, mut free) = Model::new(4);
        model.arrive(4);
        let frames: Vec<Frame> = std::iter::from_fn(|| model.receive().map(|segment| segment.frame)).collect();
        assert_eq!(frames.len(), 4);
        model.release_rx();
        for frame in frames {
            model.fill(frame).expect("room");
        }
        model.arrive(1);
        assert_eq!(model.receive(), None);
        model.publish_fill();
        model.arrive(1);
        assert!(model.receive().is_some());

        let frame = free.pop().expect("four");
        model.tx(frame, 0..64).expect("room");
        model.kick();
        assert_eq!((model.delivered_count(), model.tx_pending_count()), (0, 0));
        model.publish_tx();
        model.kick();
        assert_eq!((model.delivered_count(), model.tx_pending_count()), (1, 0));
    }

    #[test]
    fn a_place_not_released_is_a_place_not_free() {
        let (mut model, free) = Model::new(4);
        for frame in free {
            model.tx(frame, 0..64).expect("room");
        }
        model.publish_tx();
        model.kick();
        let frame = model.complete().expect("four were sent");
        model.tx(frame, 0..64).expect("room");
        model.publish_tx();
        model.kick();
        assert_eq!(
            model.tx_pending_count(),
            1,
            "three wait in the completion ring, and one place is held"
        );
        model.release_completions();
        model.kick();
        assert_eq!(model.tx_pending_count(), 0);
    }

    #[test]
    fn a_full_receive_ring_and_an_empty_fill_ring_are_two_losses() {
        let (mut model, free) = Model::new(4);
        model.arrive(4);
        for frame in free {
            model.fill(frame).expect("room");
        }
        model.publish_fill();
        model.arrive(1);
        let counters = model.counters();
        assert_eq!((counters.rx_ring_full_count, counters.rx_fill_ring_empty_count), (1, 0));
        let _kept = model.receive();
        model.release_rx();
        model.arrive(1);
        // Three places in the receive ring are taken by packets, and the last free one now, too; the fill ring has three.
        assert_eq!(model.counters().rx_ring_full_count, 1);
        model.arrive(1);
        assert_eq!(model.counters().rx_ring_full_count, 2);
        assert_eq!(model.counters().rx_fill_ring_empty_count, 0);
    }
}
