//! AXI4-Stream from outside: beats, frames into beats, and what drives and drains a block's ports.

use std::collections::VecDeque;

use crate::rng::Rng;

/// Bytes of the widest beat.
pub const BEAT_BYTES_MAX: usize = 64;

/// One transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The bytes, as many as the stream is wide; the others are zeros.
    pub data: [u8; BEAT_BYTES_MAX],
    /// Which of them there are, from bit 0 on.
    pub keep: u64,
    /// The frame ends.
    pub last: bool,
    /// On the last beat of a frame: its check sequence was wrong.
    pub user: bool,
}

impl Beat {
    /// Nothing.
    pub const EMPTY: Beat = Beat {
        data: [0; BEAT_BYTES_MAX],
        keep: 0,
        last: false,
        user: false,
    };

    /// How many bytes it has.
    pub const fn len_bytes(&self) -> usize {
        self.keep.count_ones() as usize
    }
}

/// A mask of the first `count` bytes.
pub const fn keep_of(count: usize) -> u64 {
    match count {
        64.. => u64::MAX,
        _ => (1 << count) - 1,
    }
}

/// A frame in beats of `beat_bytes`. `is_bad`: its check sequence was wrong.
pub fn beats_of(frame: &[u8], beat_bytes: usize, is_bad: bool) -> impl Iterator<Item = Beat> {
    let count = frame.len().div_ceil(beat_bytes);
    frame.chunks(beat_bytes).enumerate().map(move |(index, bytes)| {
        let mut beat = Beat::EMPTY;
        beat.data[..bytes.len()].copy_from_slice(bytes);
        beat.keep = keep_of(bytes.len());
        beat.last = index + 1 == count;
        beat.user = beat.last && is_bad;
        beat
    })
}

/// When a port has no beat, or takes none, in so many of a hundred cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// The source.
    pub idle_percent: u64,
    /// The sinks.
    pub stall_percent: u64,
}

impl Pauses {
    /// Never.
    pub const NONE: Pauses = Pauses {
        idle_percent: 0,
        stall_percent: 0,
    };
    /// With and without both: what every test goes through.
    pub const ALL: [Pauses; 4] = [
        Pauses::NONE,
        Pauses {
            idle_percent: 30,
            stall_percent: 0,
        },
        Pauses {
            idle_percent: 0,
            stall_percent: 50,
        },
        Pauses {
            idle_percent: 25,
            stall_percent: 70,
        },
    ];
}

/// Sends frames. Once a beat is shown it stays until it is taken.
#[derive(Clone, Debug)]
pub struct Source {
    beats: VecDeque<Beat>,
    is_shown: bool,
    is_first: bool,
    /// When the first beats of frames were taken.
    pub begun_at: VecDeque<u64>,
}

impl Default for Source {
    fn default() -> Source {
        Source {
            beats: VecDeque::new(),
            is_shown: false,
            is_first: true,
            begun_at: VecDeque::new(),
        }
    }
}

impl Source {
    /// Queues a frame.
    pub fn send(&mut self, frame: &[u8], beat_bytes: usize, is_bad: bool) {
        self.beats.extend(beats_of(frame, beat_bytes, is_bad));
    }

    /// Is everything sent?
    pub fn is_empty(&self) -> bool {
        self.beats.is_empty()
    }

    /// How many beats wait.
    pub fn beats_count(&self) -> usize {
        self.beats.len()
    }

    /// What the port shows in this cycle.
    pub fn show(&mut self, rng: &mut Rng, pauses: Pauses) -> Option<Beat> {
        let beat = *self.beats.front()?;
        self.is_shown = self.is_shown || pauses.idle_percent == 0 || !rng.percent(pauses.idle_percent);
        self.is_shown.then_some(beat)
    }

    /// The block was ready in this cycle.
    pub fn taken(&mut self, cycle: u64) {
        if self.is_shown
            && let Some(beat) = self.beats.pop_front()
        {
            if self.is_first {
                self.begun_at.push_back(cycle);
            }
            self.is_first = beat.last;
            self.is_shown = false;
        }
    }
}

/// A frame that came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its last beat said that it is bad.
    pub is_bad: bool,
    /// When its first beat was shown for the first time.
    pub shown_at: u64,
    /// When its last beat was taken.
    pub done_at: u64,
}

/// Collects frames.
#[derive(Clone, Debug, Default)]
pub struct Sink {
    bytes: Vec<u8>,
    first_shown: Option<u64>,
    /// What has come.
    pub frames: VecDeque<Received>,
}

impl Sink {
    /// What the port shows in this cycle, and whether it is taken.
    pub fn see(&mut self, cycle: u64, shown: Option<&Beat>, is_ready: bool) {
        let Some(beat) = shown else { return };
        let shown_at = *self.first_shown.get_or_insert(cycle);
        if !is_ready {
            return;
        }
        self.bytes.extend_from_slice(&beat.data[..beat.len_bytes()]);
        if beat.last {
            self.frames.push_back(Received {
                bytes: std::mem::take(&mut self.bytes),
                is_bad: beat.user,
                shown_at,
                done_at: cycle,
            });
            self.first_shown = None;
        }
    }

    /// Is a frame half out?
    pub fn is_between(&self) -> bool {
        self.bytes.is_empty() && self.first_shown.is_none()
    }
}
