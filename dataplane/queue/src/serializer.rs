//! When a packet has left: a wire takes its time for each byte, and one packet after the other.

use crate::SimTime;

/// What Ethernet adds to a frame on the wire: preamble and start delimiter 8 B, check sequence 4 B, gap 12 B (IEEE 802.3,
/// clauses 3.1.1 and 4.4.2). Whoever leaves it out has 95.7 % of a link where there is 94.2 %.
pub const ETHERNET_OVERHEAD_BYTES: u32 = 8 + 4 + 12;

/// Picoseconds in a second, and bits in a byte.
const BIT_PS_PER_BYTE_SECOND: u64 = 8 * 1_000_000_000_000;

/// One end of a wire. Fractions of a picosecond are carried over from packet to packet, so that a full link carries exactly
/// what it promises.
#[derive(Clone, Copy, Debug)]
pub struct Serializer {
    bits_per_sec: u64,
    overhead_bytes: u32,
    /// A byte takes `byte_ps + byte_ps_fraction / bits_per_sec` picoseconds.
    byte_ps: u64,
    byte_ps_fraction: u64,
    /// When the last packet has left, and by what fraction of a picosecond (over `bits_per_sec`) later.
    free_at: SimTime,
    free_at_fraction: u64,
}

impl Serializer {
    /// A wire that has been silent for ever. `overhead_bytes` is added to every packet.
    ///
    /// # Panics
    /// If the rate is 0: nothing would ever leave.
    pub fn new(bits_per_sec: u64, overhead_bytes: u32) -> Serializer {
        assert!(bits_per_sec > 0, "a link with a rate of 0 never sends");
        Serializer {
            bits_per_sec,
            overhead_bytes,
            byte_ps: BIT_PS_PER_BYTE_SECOND / bits_per_sec,
            byte_ps_fraction: BIT_PS_PER_BYTE_SECOND % bits_per_sec,
            free_at: SimTime::ZERO,
            free_at_fraction: 0,
        }
    }

    /// Bits each second.
    pub fn bits_per_sec(&self) -> u64 {
        self.bits_per_sec
    }

    /// When the last packet that was given has left.
    pub fn free_at(&self) -> SimTime {
        self.free_at
    }

    /// How long a packet alone occupies the wire, rounded down to a picosecond.
    pub fn time_of(&self, packet_bytes: u32) -> SimTime {
        let bytes = u64::from(packet_bytes) + u64::from(self.overhead_bytes);
        SimTime::from_ps(bytes * self.byte_ps + self.fraction_of(bytes, 0).0)
    }

    /// Sends a packet as soon as those before it have left; when it will have left.
    pub fn depart(&mut self, now: SimTime, packet_bytes: u32) -> SimTime {
        let bytes = u64::from(packet_bytes) + u64::from(self.overhead_bytes);
        if now > self.free_at {
            (self.free_at, self.free_at_fraction) = (now, 0);
        }
        let (more_ps, fraction) = self.fraction_of(bytes, self.free_at_fraction);
        self.free_at_fraction = fraction;
        self.free_at += SimTime::from_ps(bytes * self.byte_ps + more_ps);
        self.free_at
    }

    /// Whole picoseconds of the fractions, and what is left over. No division for the usual rates, whose bytes take whole ones.
    fn fraction_of(&self, bytes: u64, carried: u64) -> (u64, u64) {
        if self.byte_ps_fraction == 0 {
            return (0, 0);
        }
        let rate = u128::from(self.bits_per_sec);
        let sum = u128::from(bytes) * u128::from(self.byte_ps_fraction) + u128::from(carried);
        ((sum / rate) as u64, (sum % rate) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full frame at 10 Gbit/s: 1,514 bytes and 24 more, 800 ps each.
    #[test]
    fn a_frame_takes_its_bytes_and_its_overhead() {
        let mut wire = Serializer::new(10_000_000_000, ETHERNET_OVERHEAD_BYTES);
        assert_eq!(wire.depart(SimTime::from_ns(100), 1_514).as_ps(), 100_000 + 1_538 * 800);
        // It has to wait for the one before it.
        assert_eq!(
            wire.depart(SimTime::from_ns(100), 1_514).as_ps(),
            100_000 + 2 * 1_538 * 800
        );
        // Later the wire is free.
        assert_eq!(
            wire.depart(SimTime::from_us(100), 1_514).as_ps(),
            100_000_000 + 1_538 * 800
        );
    }

    /// At 3 bits a second, a third of a second's picoseconds are no whole number; three bytes take 8 seconds all the same.
    #[test]
    fn fractions_are_not_lost() {
        for (bits_per_sec, packets_count) in [(3_u64, 3_u64), (7, 7_000), (999_999_937, 999_999)] {
            let mut wire = Serializer::new(bits_per_sec, 0);
            let last = (0..packets_count)
                .map(|_| wire.depart(SimTime::ZERO, 1))
                .last()
                .expect("packets");
            let exact_ps = u128::from(packets_count) * 8_000_000_000_000 / u128::from(bits_per_sec);
            assert_eq!(
                u128::from(last.as_ps()),
                exact_ps,
                "{packets_count} bytes at {bits_per_sec} bit/s"
            );
        }
    }
}
