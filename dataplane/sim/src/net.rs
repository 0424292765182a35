//! The network: one link for each ordered pair of hosts, each with its own latency, rate, faults and randomness.

use crate::{
    Latency, SimTime,
    costs::ETHERNET_IP_UDP_BYTES,
    random::{Purpose, Random},
};

/// What carries frames between hosts. A network with switches and queues of its own stands behind this trait, too.
pub trait Network {
    /// A frame of `len_bytes` leaves `from` for `to`: says when it arrives, and when a copy of it does.
    fn carry(&mut self, now: SimTime, from: u32, to: u32, len_bytes: usize) -> [Option<Arrival>; 2];
    /// What is wrong with the way from `from` to `to`, from now on. The default is nothing.
    fn set_faults(&mut self, from: u32, to: u32, faults: LinkFaults);
}

/// When and how a frame arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: SimTime,
    /// Picks the bit that is wrong, modulo the frame's length in bits.
    pub flipped_bit: Option<u64>,
}

/// A link as it is when nothing is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkOptions {
    /// From the last bit sent to the frame's delivery: wire, switches and both network cards.
    pub latency: Latency,
    /// The rate at which bytes leave, if it matters; frames wait for those before them.
    pub bits_per_sec: Option<u64>,
    /// Frames that would wait longer than this many bytes take are dropped. Without effect where there is no rate.
    pub queue_bytes_max: u64,
    /// What is wrong all the time.
    pub faults: LinkFaults,
}

impl Default for LinkOptions {
    fn default() -> LinkOptions {
        LinkOptions {
            latency: crate::costs::LINK,
            bits_per_sec: None,
            queue_bytes_max: u64::MAX,
            faults: LinkFaults::default(),
        }
    }
}

/// What is wrong with a link; ratios are 0 to 1, each drawn for itself. A lost frame suffers nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkFaults {
    /// Nothing that is sent arrives. What is under way does.
    pub blocked: bool,
    /// Frames that vanish.
    pub loss_ratio: f64,
    /// Frames that arrive twice; the copy is delayed by up to `reorder`.
    pub duplicate_ratio: f64,
    /// Frames in which one bit is flipped (not in the copy).
    pub corrupt_ratio: f64,
    /// Frames that take up to `reorder` longer and are overtaken. All others arrive in the order in which they left.
    pub reorder_ratio: f64,
    /// The most that such a frame is delayed.
    pub reorder: SimTime,
    /// Added to the latency of every frame.
    pub slow: SimTime,
}

/// Every ordered pair of hosts has a link of its own; none shares anything with another.
#[derive(Debug)]
pub struct Mesh {
    hosts_count: u32,
    links: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    options: LinkOptions,
    faults: LinkFaults,
    random: Random,
    /// The transmitter is busy until then.
    busy_until: SimTime,
    /// The last frame in order arrives then.
    in_order_at: SimTime,
}

impl Mesh {
    /// Equal links between `hosts_count` hosts.
    pub fn new(options: LinkOptions, hosts_count: u32, seed: u64) -> Mesh {
        let pairs = (0..hosts_count).flat_map(|from| (0..hosts_count).map(move |to| (from, to)));
        let link = |(from, to)| Link {
            options,
            faults: options.faults,
            random: Random::new(seed, Purpose::Link, from, to),
            busy_until: SimTime::ZERO,
            in_order_at: SimTime::ZERO,
        };
        Mesh {
            hosts_count,
            links: pairs.map(link).collect(),
        }
    }

    /// Changes one link, from now on.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn set_link(&mut self, from: u32, to: u32, options: LinkOptions) {
        let link = self.link(from, to);
        link.options = options;
        link.faults = options.faults;
    }

    fn link(&mut self, from: u32, to: u32) -> &mut Link {
        let count = self.hosts_count;
        assert!(from < count && to < count, "a link {from} → {to} among {count} hosts");
        &mut self.links[(from * count + to) as usize]
    }
}

impl Network for Mesh {
    fn carry(&mut self, now: SimTime, from: u32, to: u32, len_bytes: usize) -> [Option<Arrival>; 2] {
        self.link(from, to).carry(now, len_bytes)
    }

    fn set_faults(&mut self, from: u32, to: u32, faults: LinkFaults) {
        let link = self.link(from, to);
        link.faults = match faults == LinkFaults::default() {
            true => link.options.faults,
            false => faults,
        };
    }
}

impl Link {
    fn carry(&mut self, now: SimTime, len_bytes: usize) -> [Option<Arrival>; 2] {
        // Every frame draws the same number of random values, so that turning one fault on does not move the others.
        let Link {
            options,
            faults,
            random,
            ..
        } = self;
        let is_lost = random.chance(faults.loss_ratio);
        let is_doubled = random.chance(faults.duplicate_ratio);
        let is_corrupt = random.chance(faults.corrupt_ratio);
        let is_reordered = random.chance(faults.reorder_ratio);
        let bit = random.next();
        let takes = options.latency.draw(random) + faults.slow;
        let (late, copy_late) = (random.span(faults.reorder), random.span(faults.reorder));

        let Some(left_at) = self.leave(now, len_bytes) else {
            return [None; 2];
        };
        if is_lost || self.faults.blocked {
            return [None; 2];
        }
        let straight_at = left_at + takes;
        let at = if is_reordered {
            straight_at + late
        } else {
            // A link is a queue: a frame with a short latency does not overtake one with a long one.
            self.in_order_at = self.in_order_at.max(straight_at);
            self.in_order_at
        };
        let arrival = Arrival {
            at,
            flipped_bit: is_corrupt.then_some(bit),
        };
        let copy = Arrival {
            at: at + copy_late,
            flipped_bit: None,
        };
        [Some(arrival), is_doubled.then_some(copy)]
    }

    /// When the last bit has left, or `None` if there is no room to wait.
    fn leave(&mut self, now: SimTime, len_bytes: usize) -> Option<SimTime> {
        let Some(bits_per_sec) = self.options.bits_per_sec else {
            return Some(now);
        };
        let wait = self.busy_until.saturating_since(now);
        if wait > bytes_take(self.options.queue_bytes_max, bits_per_sec) {
            return None;
        }
        let wire_bytes = len_bytes as u64 + ETHERNET_IP_UDP_BYTES;
        self.busy_until = now + wait + bytes_take(wire_bytes, bits_per_sec);
        Some(self.busy_until)
    }
}

/// How long `bytes` take, rounded up.
fn bytes_take(bytes: u64, bits_per_sec: u64) -> SimTime {
    let ps = (u128::from(bytes) * 8 * 1_000_000_000_000).div_ceil(u128::from(bits_per_sec.max(1)));
    SimTime::from_ps(u64::try_from(ps).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
