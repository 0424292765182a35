//! Priority flow control (IEEE 802.1Qbb): a switch that holds too much of what came in at a port asks the other end to pause
//! that priority, so that nothing is lost.

use crate::{ETHERNET_OVERHEAD_BYTES, SimTime};

/// A pause is given in units of 512 bit times (IEEE 802.3, annex 31B.2).
const QUANTUM_BITS: u64 = 512;

/// The bytes of a pause frame: the smallest of Ethernet.
pub const PAUSE_FRAME_BYTES: u32 = 64;

/// When a port asks for a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PfcOptions {
    /// At so many bytes of a priority the other end is paused (XOFF).
    pub pause_bytes: u64,
    /// At no more than so many it may go on (XON).
    pub resume_bytes: u64,
}

/// What the other end of the port is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PfcEvent {
    /// Send nothing more of that priority.
    Pause(u8),
    /// Go on.
    Resume(u8),
}

/// One port, as far as what came in there is concerned.
#[derive(Clone, Debug)]
pub struct Pfc {
    options: PfcOptions,
    held_bytes: [u64; 8],
    /// Bit n: priority n is paused.
    paused: u8,
}

impl Pfc {
    /// Nothing is held.
    ///
    /// # Panics
    /// If the other end would go on at a length at which it is paused.
    pub fn new(options: PfcOptions) -> Pfc {
        let PfcOptions {
            pause_bytes,
            resume_bytes,
        } = options;
        assert!(
            resume_bytes < pause_bytes,
            "resuming at {resume_bytes} B and pausing at {pause_bytes} B"
        );
        Pfc {
            options,
            held_bytes: [0; 8],
            paused: 0,
        }
    }

    /// A packet that came in here waits somewhere in the switch.
    pub fn take(&mut self, priority: u8, packet_bytes: u32) -> Option<PfcEvent> {
        let priority = priority.min(7);
        let held_bytes = &mut self.held_bytes[usize::from(priority)];
        *held_bytes += u64::from(packet_bytes);
        let pauses = *held_bytes >= self.options.pause_bytes && self.paused & 1 << priority == 0;
        if pauses {
            self.paused |= 1 << priority;
        }
        pauses.then_some(PfcEvent::Pause(priority))
    }

    /// A packet that came in here has left the switch, or was lost in it.
    ///
    /// # Panics
    /// If more leaves than came in.
    pub fn give_back(&mut self, priority: u8, packet_bytes: u32) -> Option<PfcEvent> {
        let priority = priority.min(7);
        let held_bytes = &mut self.held_bytes[usize::from(priority)];
        let left = held_bytes.checked_sub(u64::from(packet_bytes));
        *held_bytes = left.unwrap_or_else(|| panic!("{packet_bytes} B leave, of {held_bytes} that came in"));
        let resumes = *held_bytes <= self.options.resume_bytes && self.paused & 1 << priority != 0;
        if resumes {
            self.paused &= !(1 << priority);
        }
        resumes.then_some(PfcEvent::Resume(priority))
    }

    /// What came in with that priority and has not left.
    pub fn held_bytes(&self, priority: u8) -> u64 {
        self.held_bytes[usize::from(priority.min(7))]
    }

    /// The priorities whose pause was asked for and not taken back: bit n is priority n.
    pub fn paused(&self) -> u8 {
        self.paused
    }

    /// What still comes after a pause was asked for. A port that keeps so much free above `pause_bytes` loses nothing.
    ///
    /// ```text
    ///   the packet that crosses pause_bytes │ a frame that the pause waits for │ the pause itself │ there
    ///   and back: bytes on the wire         │ a packet that the other end has just begun
    /// ```
    ///
    /// `round_trip` is what a bit takes there and back, with what either end takes to react; frames are as long as
    /// `packet_bytes_max` at most. (IEEE 802.1Q, annex N, counts the same parts; its cables and interfaces are in `round_trip`.)
    pub fn headroom_bytes(bits_per_sec: u64, round_trip: SimTime, packet_bytes_max: u32) -> u64 {
        let on_the_wire = (u128::from(round_trip.as_ps()) * u128::from(bits_per_sec)).div_ceil(8 * 1_000_000_000_000);
        let frame_bytes = u64::from(packet_bytes_max + ETHERNET_OVERHEAD_BYTES);
        on_the_wire as u64 + 3 * frame_bytes + u64::from(PAUSE_FRAME_BYTES + ETHERNET_OVERHEAD_BYTES)
    }

    /// How long a pause of so many quanta lasts.
    pub fn pause_time(quanta: u16, bits_per_sec: u64) -> SimTime {
        let bits = u128::from(quanta) * u128::from(QUANTUM_BITS);
        SimTime::from_ps((bits * 1_000_000_000_000 / u128::from(bits_per_sec.max(1))) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_once_and_resumes_once_for_each_priority() {
        let mut pfc = Pfc::new(PfcOptions {
            pause_bytes: 3_000,
            resume_bytes: 1_500,
        });
        assert_eq!(pfc.take(3, 1_500), None);
        assert_eq!(pfc.take(4, 1_500), None, "each priority is counted alone");
        assert_eq!(pfc.take(3, 1_500), Some(PfcEvent::Pause(3)));
        assert_eq!(pfc.take(3, 1_500), None, "it was asked already");
        assert_eq!(pfc.give_back(3, 1_500), None);
        assert_eq!(pfc.give_back(3, 1_500), Some(PfcEvent::Resume(3)));
        assert_eq!(pfc.give_back(3, 1_500), None);
        assert_eq!((pfc.held_bytes(3), pfc.held_bytes(4)), (0, 1_500));
    }

    /// 65,535 quanta at 10 Gbit/s: 3.36 ms.
    #[test]
    fn the_longest_pause() {
        assert_eq!(Pfc::pause_time(u16::MAX, 10_000_000_000).as_ns(), 3_355_392);
    }

    /// 2 µs each way at 40 Gbit/s are 20 kB on the wire.
    #[test]
    fn headroom_covers_the_wire() {
        assert_eq!(
            Pfc::headroom_bytes(40_000_000_000, SimTime::from_us(4), 1_514),
            20_000 + 3 * 1_538 + 88
        );
    }
}
