//! Time stamps of sent frames, from the completion that brings one to the call that takes it.

use std::collections::VecDeque;

/// When a frame left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxStamp {
    /// Which frame since the port was opened, from 0, in the order of the calls of `tx` that queued one.
    pub number: u64,
    /// Nanoseconds of CLOCK_TAI from the kernel in copy mode, of the device's own clock in zero-copy mode.
    pub tai_ns: u64,
}

/// What is known of frames under way, and the stamps that nobody has taken.
#[derive(Debug)]
pub(super) struct Stamps {
    /// The number of the packet that each frame of the memory was last sent with.
    numbers: Box<[u64]>,
    /// Never longer than `kept_max`: the oldest go.
    kept: VecDeque<TxStamp>,
    kept_max: usize,
}

impl Stamps {
    pub(super) fn new(frames_count: usize, kept_max: usize) -> Stamps {
        Stamps {
            numbers: vec![0; frames_count].into_boxed_slice(),
            kept: VecDeque::with_capacity(kept_max),
            kept_max,
        }
    }

    /// Packet `number` goes out, beginning with this frame of the memory.
    pub(super) fn sent(&mut self, frame_index: usize, number: u64) {
        self.numbers[frame_index] = number;
    }

    /// The frame came back with a stamp.
    pub(super) fn came(&mut self, frame_index: usize, tai_ns: u64) {
        if self.kept.len() == self.kept_max {
            self.kept.pop_front();
        }
        let number = self.numbers[frame_index];
        self.kept.push_back(TxStamp { number, tai_ns });
    }

    pub(super) fn take(&mut self, sink: &mut dyn FnMut(TxStamp)) {
        self.kept.drain(..).for_each(sink);
    }
}
