//! Time dilation: a network that is too fast for a machine is built so many times slower, and everything that was measured is
//! divided by as much. What cannot be slowed down is the kernel's own timers: for the network they are that much shorter.
//! Gupta et al., To Infinity and Beyond: Time-Warped Network Emulation, NSDI 2006, slow the whole guest down; a namespace
//! shares its clock with the machine, so what it does to the timers must be said ([`KernelTimers`]).

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::bail;
use dataplane_queue::SimTime;
use nix::time::{ClockId, clock_getres};

/// Beyond it a round trip of 100 µs takes the kernel's tenth of a second.
const FACTOR_MAX: u32 = 1_000;

/// How many times slower than it is the network is built. 1: as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dilation(u32);

impl Default for Dilation {
    fn default() -> Dilation {
        Dilation::NONE
    }
}

impl Dilation {
    /// The network's time is ours.
    pub const NONE: Dilation = Dilation(1);

    /// # Errors
    /// 0, or more than a thousand.
    pub fn new(factor: u32) -> anyhow::Result<Dilation> {
        if !(1..=FACTOR_MAX).contains(&factor) {
            bail!("a time dilation of {factor}: a network is built 1 (as it is) to {FACTOR_MAX} times slower");
        }
        Ok(Dilation(factor))
    }

    /// How many times slower.
    pub const fn factor(self) -> u32 {
        self.0
    }

    /// What a link of the network carries as it is built; at least 1 bit/s.
    pub fn built_rate(self, bits_per_sec: u64) -> u64 {
        match bits_per_sec {
            0 => 0,
            _ => (bits_per_sec / u64::from(self.0)).max(1),
        }
    }

    /// How long a delay of the network is as it is built.
    pub fn built_delay(self, delay: SimTime) -> SimTime {
        SimTime::from_ps(delay.as_ps().saturating_mul(u64::from(self.0)))
    }

    /// How long something that was measured is in the network's time.
    pub fn network_time(self, measured: Duration) -> Duration {
        measured / self.0
    }

    /// What a measured rate is in the network's time.
    pub fn network_rate(self, measured_per_sec: f64) -> f64 {
        measured_per_sec * f64::from(self.0)
    }
}

/// Timers of TCP that no network can slow down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTimers {
    /// What all of them are multiples of: 1/CONFIG_HZ.
    pub jiffy: Duration,
    /// The least retransmission time-out, as it is set.
    pub rto_min: Duration,
    /// The least that it can be set to.
    pub rto_min_floor: Duration,
    /// How long an acknowledgement waits for company, at least.
    pub delayed_ack_min: Duration,
    /// And at most.
    pub delayed_ack_max: Duration,
}

impl KernelTimers {
    /// TCP_TIMEOUT_MIN, include/net/tcp.h: two jiffies.
    const TIMEOUT_MIN_JIFFIES: u32 = 2;
    /// TCP_RTO_MIN, include/net/tcp.h: HZ / 5, where tcp_rto_min_us (Linux 6.11) does not say otherwise.
    const RTO_MIN: Duration = Duration::from_millis(200);
    /// TCP_DELACK_MIN, include/net/tcp.h: HZ / 25.
    const DELAYED_ACK_MIN: Duration = Duration::from_millis(40);
    /// TCP_DELACK_MAX, include/net/tcp.h: HZ / 5.
    const DELAYED_ACK_MAX: Duration = Duration::from_millis(200);

    /// Of the network namespace in which the thread stands.
    pub fn here() -> KernelTimers {
        // The coarse clock ticks once a jiffy (ktime_get_coarse_ts64, kernel/time/timekeeping.c).
        let jiffy = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::from_millis(4), Duration::from);
        let rto_min = fs::read_to_string("/proc/sys/net/ipv4/tcp_rto_min_us")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .map_or(KernelTimers::RTO_MIN, Duration::from_micros);
        KernelTimers {
            jiffy,
            rto_min,
            rto_min_floor: jiffy * KernelTimers::TIMEOUT_MIN_JIFFIES,
            delayed_ack_min: KernelTimers::DELAYED_ACK_MIN,
            delayed_ack_max: KernelTimers::DELAYED_ACK_MAX,
        }
    }

    /// What they are for a network that is built so much slower.
    pub fn in_network_time(self, dilation: Dilation) -> KernelTimers {
        KernelTimers {
            jiffy: dilation.network_time(self.jiffy),
            rto_min: dilation.network_time(self.rto_min),
            rto_min_floor: dilation.network_time(self.rto_min_floor),
            delayed_ack_min: dilation.network_time(self.delayed_ack_min),
            delayed_ack_max: dilation.network_time(self.delayed_ack_max),
        }
    }

    /// For a record: each timer as the kernel has it and as the network sees it.
    pub fn facts(self, dilation: Dilation) -> BTreeMap<String, String> {
        let seen = self.in_network_time(dilation);
        let fact = |name: &str, here: Duration, there: Duration| {
            let text = match dilation {
                Dilation::NONE => format!("{here:?}"),
                Dilation(factor) => format!("{there:?} of the network's time ({here:?} ÷ {factor})"),
            };
            (name.to_owned(), text)
        };
        BTreeMap::from([
            fact("kernel_rto_min", self.rto_min, seen.rto_min),
            fact("kernel_rto_min_floor", self.rto_min_floor, seen.rto_min_floor),
            fact("kernel_delayed_ack_min", self.delayed_ack_min, seen.delayed_ack_min),
            fact("kernel_delayed_ack_max", self.delayed_ack_max, seen.delayed_ack_max),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slower_network_has_less_rate_and_more_delay_and_sees_shorter_timers() {
        let dilation = Dilation::new(10).unwrap();
        assert_eq!(dilation.built_rate(1_000_000_000), 100_000_000);
        assert_eq!(dilation.built_delay(SimTime::from_us(25)), SimTime::from_us(250));
        assert_eq!(
            dilation.network_time(Duration::from_millis(80)),
            Duration::from_millis(8)
        );
        assert_eq!(dilation.network_rate(95e6), 950e6);
        let timers = KernelTimers {
            jiffy: Duration::from_millis(4),
            rto_min: Duration::from_millis(200),
            rto_min_floor: Duration::from_millis(8),
            delayed_ack_min: Duration::from_millis(40),
            delayed_ack_max: Duration::from_millis(200),
        };
        assert_eq!(timers.in_network_time(dilation).rto_min, Duration::from_millis(20));
        let facts = timers.facts(dilation);
        assert_eq!(facts["kernel_rto_min_floor"], "800µs of the network's time (8ms ÷ 10)");
        assert_eq!(timers.facts(Dilation::NONE)["kernel_rto_min"], "200ms");
    }

    #[test]
    fn no_dilation_and_nonsense() {
        assert_eq!(Dilation::NONE.built_rate(7), 7);
        for factor in [0, FACTOR_MAX + 1] {
            let error = Dilation::new(factor).unwrap_err().to_string();
            assert!(error.contains(&factor.to_string()), "{error}");
        }
    }

    #[test]
    fn this_kernels_timers_are_sane() {
        let timers = KernelTimers::here();
        // CONFIG_HZ is 100 to 1000.
        assert!((1..=10).contains(&timers.jiffy.as_millis()), "{timers:?}");
        assert_eq!(timers.rto_min_floor, 2 * timers.jiffy);
    }
}
