//! Controlled delay (RFC 8289): packets are dropped when they leave, if all of an interval's packets waited too long.

use crate::{
    SimTime,
    buffer::SharedBuffer,
    fifo::{Fifo, Stamped},
    limit::Limit,
    packet::{DropReason, Ecn, Enqueued, Queued, mark},
};

/// CoDel's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoDelOptions {
    /// How much may wait, however short.
    pub limit: Limit,
    /// The wait that is acceptable: TARGET, 5 ms on the Internet (RFC 8289, section 4.4).
    pub target: SimTime,
    /// How long the wait must be longer before anything is dropped: INTERVAL, 100 ms on the Internet (section 4.3).
    pub interval: SimTime,
    /// With no more than this behind it nothing is dropped: MAXPACKET, the largest packet (section 5.2).
    pub packet_bytes_max: u32,
    /// Packets whose senders react are marked instead of dropped (RFC 8290, section 4.2, and Linux).
    pub marks: bool,
}

/// Section 4's defaults, for the Internet.
impl Default for CoDelOptions {
    fn default() -> CoDelOptions {
        CoDelOptions {
            limit: Limit::Packets(1_000),
            target: SimTime::from_ms(5),
            interval: SimTime::from_ms(100),
            packet_bytes_max: 1_514,
            marks: true,
        }
    }
}

#[derive(Clone, Debug)]
pub struct CoDel<T> {
    fifo: Fifo<Stamped<T>>,
    options: CoDelOptions,
    law: Law,
}

impl<T: Queued> CoDel<T> {
    pub fn new(options: CoDelOptions) -> CoDel<T> {
        CoDel {
            fifo: Fifo::default(),
            options,
            law: Law::default(),
        }
    }

    pub fn enqueue(&mut self, now: SimTime, packet: T, pool: &mut SharedBuffer) -> Enqueued<T> {
        let (bytes, more_bytes) = (self.fifo.bytes(), packet.bytes());
        if !self.options.limit.has_room(self.fifo.len(), bytes, more_bytes) {
            let why = DropReason::QueueFull;
            return Enqueued::Dropped { packet, why };
        }
        if !pool.take(bytes, more_bytes) {
            let why = DropReason::BufferFull;
            return Enqueued::Dropped { packet, why };
        }
        self.fifo.push(Stamped { packet, at: now });
        Enqueued::Queued
    }

    pub fn dequeue(
        &mut self,
        now: SimTime,
        pool: &mut SharedBuffer,
        dropped: &mut impl FnMut(T, DropReason),
    ) -> Option<T> {
        self.law.dequeue(&mut self.fifo, &self.options, now, pool, dropped)
    }

    pub fn bytes(&self) -> u64 {
        self.fifo.bytes()
    }

    pub fn packets_count(&self) -> usize {
        self.fifo.len()
    }
}

/// When to drop: the state of section 5's pseudocode, with its names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Law {
    /// When the wait will have been too long for an interval; zero while it is not.
    first_above_time: SimTime,
    drop_next: SimTime,
    count: u32,
    last_count: u32,
    is_dropping: bool,
}

impl Law {
    /// `deque()` of section 5.5. A mark stands for a drop, and the marked packet is delivered (RFC 8290, section 4.2).
    pub fn dequeue<T: Queued>(
        &mut self,
        fifo: &mut Fifo<Stamped<T>>,
        options: &CoDelOptions,
        now: SimTime,
        pool: &mut SharedBuffer,
        dropped: &mut impl FnMut(T, DropReason),
    ) -> Option<T> {
        let (mut packet, mut ok_to_drop) = self.take(fifo, options, now, pool)?;
        if self.is_dropping {
            self.is_dropping = ok_to_drop;
            while self.is_dropping && now >= self.drop_next {
                self.count += 1;
                if options.marks && carries_mark(&mut packet) {
                    self.drop_next = self.next_after(self.drop_next, options);
                    return Some(packet);
                }
                dropped(packet, DropReason::Delay);
                let Some(next) = self.take(fifo, options, now, pool) else {
                    self.is_dropping = false;
                    return None;
                };
                (packet, ok_to_drop) = next;
                match ok_to_drop {
                    true => self.drop_next = self.next_after(self.drop_next, options),
                    false => self.is_dropping = false,
                }
            }
            return Some(packet);
        }
        if !ok_to_drop {
            return Some(packet);
        }
        let is_marked = options.marks && carries_mark(&mut packet);
        let next = match is_marked {
            true => Some(packet),
            false => {
                dropped(packet, DropReason::Delay);
                self.take(fifo, options, now, pool).map(|(next, _)| next)
            }
        };
        self.is_dropping = true;
        // If it dropped a moment ago, it goes on at the rate that controlled the queue then.
        let delta = self.count.saturating_sub(self.last_count);
        let recently = SimTime::from_ps(options.interval.as_ps().saturating_mul(16));
        let was_recent = now.saturating_since(self.drop_next) < recently;
        self.count = if delta > 1 && was_recent { delta } else { 1 };
        self.drop_next = self.next_after(now, options);
        self.last_count = self.count;
        next
    }

    /// `dodequeue()` of section 5.6: the next packet, and whether the wait has been too long for an interval.
    fn take<T: Queued>(
        &mut self,
        fifo: &mut Fifo<Stamped<T>>,
        options: &CoDelOptions,
        now: SimTime,
        pool: &mut SharedBuffer,
    ) -> Option<(T, bool)> {
        let Some(Stamped { packet, at }) = fifo.pop() else {
            self.first_above_time = SimTime::ZERO;
            return None;
        };
        pool.give_back(packet.bytes());
        let waited = now.saturating_since(at);
        let mut ok_to_drop = false;
        if waited < options.target || fifo.bytes() <= u64::from(options.packet_bytes_max) {
            self.first_above_time = SimTime::ZERO;
        } else if self.first_above_time == SimTime::ZERO {
            self.first_above_time = now + options.interval;
        } else {
            ok_to_drop = now >= self.first_above_time;
        }
        Some((packet, ok_to_drop))
    }

    /// The control law of section 5.3: drops come closer together by the square root of their number.
    fn next_after(&self, at: SimTime, options: &CoDelOptions) -> SimTime {
        let step_ps = options.interval.as_ps() as f64 / f64::from(self.count).sqrt();
        at + SimTime::from_ps(step_ps as u64)
    }
}

/// Marks it, or sees that another queue did.
fn carries_mark<T: Queued>(packet: &mut T) -> bool {
    mark(packet) || packet.ecn() == Ecn::Experienced
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Parcel;

    const PACKET_BYTES: u32 = 1_500;

    fn options() -> CoDelOptions {
        CoDelOptions {
            limit: Limit::NONE,
            marks: false,
            ..CoDelOptions::default()
        }
    }

    /// A queue that 1,000 packets wait in since the beginning; one leaves every millisecond. When packets were dropped, in ms.
    fn drops_ms(options: CoDelOptions, until_ms: u64) -> (Vec<u64>, Vec<u64>) {
        let (mut pool, mut codel) = (SharedBuffer::default(), CoDel::new(options));
        for number in 0..1_000 {
            let parcel = Parcel::capable(number, PACKET_BYTES);
            assert_eq!(codel.enqueue(SimTime::ZERO, parcel, &mut pool), Enqueued::Queued);
        }
        let (mut drops, mut marks) = (Vec::new(), Vec::new());
        for ms in 1..=until_ms {
            let left = codel.dequeue(SimTime::from_ms(ms), &mut pool, &mut |_, why| {
                assert_eq!(why, DropReason::Delay);
                drops.push(ms);
            });
            if left.is_some_and(|parcel| parcel.ecn == Ecn::Experienced) {
                marks.push(ms);
            }
        }
        (drops, marks)
    }

    /// The wait is 5 ms at 5 ms, so the first drop is an interval later, and the n-th after that 100/√n ms after the one before.
    #[test]
    fn drops_come_by_the_inverse_square_root() {
        let (drops, _) = drops_ms(options(), 500);
        let mut expected = vec![105.0];
        let mut next_ms = 105.0;
        for count in 1..=8_u32 {
            next_ms += 100.0 / f64::from(count).sqrt();
            expected.push(next_ms);
        }
        let seen: Vec<f64> = drops.iter().map(|ms| *ms as f64).take(expected.len()).collect();
        for (seen, expected) in seen.iter().zip(&expected) {
            assert!(
                (0.0..=1.0).contains(&(seen - expected)),
                "{drops:?}, expected {expected}"
            );
        }
    }

    #[test]
    fn marks_come_where_drops_would() {
        let (drops, marks) = drops_ms(
            CoDelOptions {
                marks: true,
                ..options()
            },
            250,
        );
        assert_eq!((drops, marks), (vec![], vec![105, 205]));
    }

    /// A wait that is short once in an interval drops nothing: that queue is good.
    #[test]
    fn a_burst_that_drains_within_an_interval_is_left_alone() {
        let (mut pool, mut codel) = (SharedBuffer::default(), CoDel::new(options()));
        for burst in 0..20_u64 {
            for number in 0..90 {
                let at = SimTime::from_ms(burst * 100);
                assert_eq!(
                    codel.enqueue(at, Parcel::new(number, PACKET_BYTES), &mut pool),
                    Enqueued::Queued
                );
            }
            for ms in 1..=90 {
                let now = SimTime::from_ms(burst * 100 + ms);
                assert!(
                    codel
                        .dequeue(now, &mut pool, &mut |_, _| panic!("dropped at {now}"))
                        .is_some()
                );
            }
        }
    }

    /// The last packet is delivered, however long it waited.
    #[test]
    fn one_packet_alone_is_never_dropped() {
        let (mut pool, mut codel) = (SharedBuffer::default(), CoDel::new(options()));
        for second in 0..100 {
            let at = SimTime::from_ms(second * 1_000);
            codel.enqueue(at, Parcel::new(second, PACKET_BYTES), &mut pool);
            let left = codel.dequeue(at + SimTime::from_ms(900), &mut pool, &mut |_, _| panic!("dropped"));
            assert!(left.is_some());
        }
    }
}
