//! How fast frames came, at their fastest: whether a link was overrun, and by how much, is what an incast hangs on.

use dataplane_queue::{Serializer, SimTime};

/// Frames of an Ethernet's full size that a window lasts on the link, where hosts' bursts meet. Shorter ones say how frames happened
/// to lie in one look at the ports, longer ones miss bursts.
pub(crate) const PORT_WINDOW_FRAMES: u32 = 32;
/// The same of one host alone: less than the ten packets with which a TCP begins (RFC 6928).
pub(crate) const HOST_WINDOW_FRAMES: u32 = 8;
/// Without the check sequence, which is part of the overhead on the wire.
const FULL_FRAME_BYTES: u32 = 1514;

/// Arrivals in windows, of which the fullest is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burst {
    window: SimTime,
    overhead_bytes: u32,
    began_at: SimTime,
    bytes: u64,
    bytes_max: u64,
    /// What the link carries in a window.
    link_bytes: u64,
}

impl Burst {
    pub fn new(window_frames: u32, bits_per_sec: u64, overhead_bytes: u32) -> Burst {
        let mut wire = Serializer::new(bits_per_sec, overhead_bytes);
        let mut window = SimTime::ZERO;
        for _ in 0..window_frames {
            window = wire.depart(window, FULL_FRAME_BYTES);
        }
        Burst {
            window,
            overhead_bytes,
            began_at: SimTime::ZERO,
            bytes: 0,
            bytes_max: 0,
            link_bytes: u64::from(window_frames * (FULL_FRAME_BYTES + overhead_bytes)),
        }
    }

    /// A frame came.
    #[inline]
    pub fn came(&mut self, now: SimTime, frame_bytes: u32) {
        if now.saturating_since(self.began_at) >= self.window {
            (self.began_at, self.bytes) = (now, 0);
        }
        self.bytes += u64::from(frame_bytes + self.overhead_bytes);
        self.bytes_max = self.bytes_max.max(self.bytes);
    }

    /// What came in the fullest window, over what the link carries in it.
    pub fn ratio_max(&self) -> f64 {
        self.bytes_max as f64 / self.link_bytes as f64
    }

    /// From now on.
    pub fn forget(&mut self) {
        self.bytes_max = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Full frames, one each `every_us`, into 100 Mbit/s, which takes 123 µs for one.
    fn ratio_of(every_us: u64) -> f64 {
        let mut burst = Burst::new(PORT_WINDOW_FRAMES, 100_000_000, 24);
        for number in 0..1_000 {
            burst.came(SimTime::from_us(number * every_us), FULL_FRAME_BYTES);
        }
        burst.ratio_max()
    }

    #[test]
    fn a_full_link_is_one_and_three_of_them_are_three() {
        assert!((0.97..1.04).contains(&ratio_of(123)), "{}", ratio_of(123));
        assert!((2.9..3.1).contains(&ratio_of(41)), "{}", ratio_of(41));
        assert!((0.48..0.55).contains(&ratio_of(246)), "{}", ratio_of(246));
    }

    #[test]
    fn a_burst_is_not_hidden_by_the_silence_around_it() {
        let mut burst = Burst::new(PORT_WINDOW_FRAMES, 100_000_000, 24);
        for number in 0..320 {
            burst.came(SimTime::from_ms(500) + SimTime::from_ns(number), FULL_FRAME_BYTES);
        }
        burst.came(SimTime::from_ms(900), FULL_FRAME_BYTES);
        assert_eq!(burst.ratio_max(), 10.0);
        burst.forget();
        burst.came(SimTime::from_ms(950), FULL_FRAME_BYTES);
        assert!(burst.ratio_max() < 0.1, "{}", burst.ratio_max());
    }
}
