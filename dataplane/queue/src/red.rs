//! Random early detection: Floyd and Jacobson, Random early detection gateways for congestion avoidance, IEEE/ACM
//! Transactions on Networking 1(4), 1993. What arrives is dropped or marked with a chance that grows with the average queue.

use crate::{
    SimTime,
    buffer::SharedBuffer,
    fifo::Fifo,
    limit::Limit,
    packet::{DropReason, Enqueued, Queued, mark},
    random::Random,
};

/// RED's parameters, in packets as in the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RedOptions {
    /// How much may wait, whatever the average.
    pub limit: Limit,
    /// The average below which nothing is dropped.
    pub min_packets: f64,
    /// The average at which the chance is `max_p`.
    pub max_packets: f64,
    /// The chance at `max_packets`.
    pub max_p: f64,
    /// The average moves by 2 to the power of minus this of the way to the queue, at each arrival.
    pub weight_exponent: u8,
    /// Above `max_packets` the chance rises to 1 at twice that, instead of at once: Floyd, Recommendation on using the
    /// "gentle" variant of RED, 2000.
    pub is_gentle: bool,
    /// Packets whose senders react are marked instead of dropped, also where the chance is 1 (Linux, `net/sched/sch_red.c`
    /// without `harddrop`).
    pub marks: bool,
    /// How long a typical packet takes to leave: while the queue is empty the average falls as if so many had found it so.
    pub packet_time: SimTime,
}

#[derive(Clone, Debug)]
pub struct Red<T> {
    fifo: Fifo<T>,
    options: RedOptions,
    average_packets: f64,
    /// Packets since the last that was dropped or marked; `None` while the average is below the lower threshold.
    since_count: Option<u32>,
    idle_since: Option<SimTime>,
    random: Random,
}

impl<T: Queued> Red<T> {
    pub fn new(options: RedOptions, seed: u64) -> Red<T> {
        Red {
            fifo: Fifo::default(),
            options,
            average_packets: 0.0,
            since_count: None,
            idle_since: Some(SimTime::ZERO),
            random: Random::new(seed),
        }
    }

    pub fn enqueue(&mut self, now: SimTime, mut packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        self.update_average(now);
        let is_picked = self.picks();
        let is_marked = is_picked && self.options.marks && mark(&mut packet);
        // One that a queue before this marked carries the message already.
        let carries = is_marked || (self.options.marks && packet.ecn() == crate::Ecn::Experienced);
        if is_picked && !carries {
            let why = DropReason::Early;
            return Enqueued::Dropped { packet, why };
        }
        let (packets_count, bytes, more_bytes) = (self.fifo.len(), self.fifo.bytes(), packet.bytes());
        if !self.options.limit.has_room(packets_count, bytes, more_bytes) {
            let why = DropReason::QueueFull;
            return Enqueued::Dropped { packet, why };
        }
        if !pool.take(bytes, more_bytes) {
            let why = DropReason::BufferFull;
            return Enqueued::Dropped { packet, why };
        }
        self.idle_since = None;
        self.fifo.push(packet);
        match is_marked {
            true => Enqueued::Marked,
            false => Enqueued::Queued,
        }
    }

    /// Figure 2 of the paper, its first half.
    fn update_average(&mut self, now: SimTime) {
        let weight = 0.5_f64.powi(i32::from(self.options.weight_exponent));
        match self.idle_since {
            None => self.average_packets += weight * (self.fifo.len() as f64 - self.average_packets),
            Some(since) => {
                let packets = now.saturating_since(since).as_ps() / self.options.packet_time.as_ps().max(1);
                self.average_packets *= (1.0 - weight).powi(packets.min(1 << 30) as i32);
                self.idle_since = Some(now);
            }
        }
    }

    /// Figure 2 of the paper, its second half: is this one dropped or marked?
    fn picks(&mut self) -> bool {
        let Some(chance) = self.chance() else {
            self.since_count = None;
            return false;
        };
        let since_count = self.since_count.map_or(0, |count| count + 1);
        // Spreads the picks: the gaps between them are uniform instead of geometric (section 7).
        let left = 1.0 - f64::from(since_count) * chance;
        let picks = left <= 0.0 || self.random.fraction() < chance / left;
        self.since_count = Some(if picks { 0 } else { since_count });
        picks
    }

    /// p_b of the paper; `None` below the lower threshold.
    fn chance(&self) -> Option<f64> {
        let RedOptions {
            min_packets,
            max_packets,
            max_p,
            is_gentle,
            ..
        } = self.options;
        let average = self.average_packets;
        if average < min_packets {
            return None;
        }
        Some(if average < max_packets {
            max_p * (average - min_packets) / (max_packets - min_packets)
        } else if is_gentle && average < 2.0 * max_packets {
            max_p + (1.0 - max_p) * (average - max_packets) / max_packets
        } else {
            1.0
        })
    }

    pub fn dequeue(&mut self, now: SimTime, pool: &mut SharedBuffer) -> Option<T> {
        let packet = self.fifo.pop()?;
        pool.give_back(packet.bytes());
        if self.fifo.is_empty() {
            self.idle_since = Some(now);
        }
        Some(packet)
    }

    pub fn bytes(&self) -> u64 {
        self.fifo.bytes()
    }

    pub fn packets_count(&self) -> usize {
        self.fifo.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Parcel;

    fn options() -> RedOptions {
        RedOptions {
            limit: Limit::Packets(1_000),
            min_packets: 5.0,
            max_packets: 15.0,
            max_p: 0.1,
            weight_exponent: 2,
            is_gentle: false,
            marks: false,
            packet_time: SimTime::from_us(1),
        }
    }

    /// A queue that is held at `held` packets, with its average there; how many of 100,000 arrivals were not taken or marked.
    fn picked_ratio(options: RedOptions, held: usize, parcel: Parcel) -> f64 {
        let (mut pool, mut red) = (SharedBuffer::default(), Red::new(options, 7));
        const ARRIVALS: u32 = 100_000;
        for _ in 0..held {
            red.fifo.push(parcel);
            assert!(pool.take(0, parcel.bytes));
        }
        (red.average_packets, red.idle_since) = (held as f64, None);
        let mut picked = 0;
        for _ in 0..ARRIVALS {
            match red.enqueue(SimTime::ZERO, parcel, &mut pool) {
                Enqueued::Queued => drop(red.dequeue(SimTime::ZERO, &mut pool)),
                Enqueued::Marked => {
                    picked += 1;
                    red.dequeue(SimTime::ZERO, &mut pool);
                }
                Enqueued::Dropped { .. } => picked += 1,
                Enqueued::Trimmed => unreachable!("RED never trims"),
            }
        }
        f64::from(picked) / f64::from(ARRIVALS)
    }

    /// As figure 2 counts (from 1 after a pick), gaps are uniform from 1 to 1/p_b − 1: their mean is half of 1/p_b.
    #[test]
    fn the_chance_follows_the_average() {
        let parcel = Parcel::new(0, 1_500);
        assert_eq!(picked_ratio(options(), 4, parcel), 0.0);
        for (held, chance) in [(10, 0.05), (14, 0.09)] {
            let expected = 2.0 * chance;
            let ratio = picked_ratio(options(), held, parcel);
            assert!(
                (ratio / expected - 1.0).abs() < 0.05,
                "{ratio} at {held}, expected {expected}"
            );
        }
        assert_eq!(
            picked_ratio(options(), 15, parcel),
            1.0,
            "without gentle, all above the upper threshold"
        );
        let gentle = RedOptions {
            is_gentle: true,
            ..options()
        };
        let chance = 0.1 + 0.9 * 3.0 / 15.0;
        let ratio = picked_ratio(gentle, 18, parcel);
        assert!((0.9 * chance..0.6).contains(&ratio), "{ratio}");
        assert_eq!(picked_ratio(gentle, 30, parcel), 1.0);
    }

    #[test]
    fn marks_those_who_react_and_drops_the_others() {
        let marking = RedOptions {
            marks: true,
            ..options()
        };
        let (mut pool, mut red) = (SharedBuffer::default(), Red::new(marking, 1));
        (red.average_packets, red.idle_since) = (100.0, None);
        assert_eq!(
            red.enqueue(SimTime::ZERO, Parcel::capable(0, 100), &mut pool),
            Enqueued::Marked
        );
        let enqueued = red.enqueue(SimTime::ZERO, Parcel::new(1, 100), &mut pool);
        assert!(matches!(
            enqueued,
            Enqueued::Dropped {
                why: DropReason::Early,
                ..
            }
        ));
    }

    /// After 20 packets' time of silence an average of 10 is 10 × (3/4)^20.
    #[test]
    fn silence_lowers_the_average() {
        let mut red: Red<Parcel> = Red::new(options(), 1);
        (red.average_packets, red.idle_since) = (10.0, Some(SimTime::from_us(5)));
        red.update_average(SimTime::from_us(25));
        assert!((red.average_packets - 10.0 * 0.75_f64.powi(20)).abs() < 1e-12);
    }
}
