//! How much of what is observed beside a measurement may be, before the measurement says nothing.

use std::time::Duration;

use dataplane_waist::Wake;

/// The limits. A default is for a spinning client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The generator may be this late at p99 in any case, in nanoseconds.
    ///
    /// A spinning generator: 20 µs. A send over veth takes 3 to 5 µs, the receiver's softirq included, and of Poisson
    /// arrivals one in a hundred finds two of them before it; an interrupt comes on top. A sleeping one: 200 µs; being woken takes 50 to 100 µs on a virtual
    /// machine, which is the way of waiting that is measured and not a fault.
    pub lag_ns_floor: u64,
    /// Beyond that floor it may be late by this share of the latency's p99: lateness is charged to latency, so the
    /// latency that is reported is at most this much too high.
    pub lag_ratio_max: f64,
    /// Requests sent over requests offered.
    pub sent_ratio_min: f64,
    /// Stolen share of CPU time. At 1 % the hypervisor alone may own p99.
    pub steal_ratio_max: f64,
    /// Fewer stolen ticks than this say nothing: a tick is 10 ms, and short rows have few.
    pub steal_ticks_min: u64,
    /// Involuntary switches per second: 100 is the slowest scheduler tick (CONFIG_HZ=100), so above it another thread
    /// shares the CPU all the time.
    pub involuntary_per_s_max: f64,
    /// Time on the run queue over elapsed time. At 1 % another thread alone may own p99.
    pub waited_ratio_max: f64,
    /// The sum of the stages' means may differ from the mean round trip by this share of it, and by the clocks' error: a
    /// histogram's values are off by up to 0.1 %.
    pub stages_ratio_max: f64,
    /// Answered requests that may lack a stamp. A stage is told of those that have all; were they few, of which kind?
    pub unstamped_ratio_max: f64,
    /// Steps between clocks, in nanoseconds. Two clocks are read one after the other; 100 µs is a bad interrupt in
    /// between.
    pub clock_step_ns_max: u64,
    /// Correction of the clock's rate. 500 ppm is the most that the kernel's own discipline applies (adjtimex(2)).
    pub slew_ratio_max: f64,
    /// What is known of a stall's beginning and end. Half of what an open loop may be off from the truth (5 ms): beyond it
    /// the truth itself is in doubt.
    pub stall_uncertainty_max: Duration,
    /// How late a switch may hand the receiver its frames, of the time that a full frame takes on the wire. From one on, frames would leave in
    /// other bursts than a wire's.
    pub late_packets_max: f64,
    /// The same of frames for senders, whose ports are idle: a request or an acknowledgement that is late is a host that takes longer before it deals with it.
    /// Hosts do: their cards wait for more before they interrupt, and their CPUs have other work. What such a host sends is late, and leaves in no
    /// other bursts. So it may be as long as the simulator's hosts take at most (`host.processing`), which is a packet's time.
    pub late_to_senders_packets_max: f64,
    /// By how much senders have to overrun a link that they share, where their own links allow it. A link that is hardly
    /// overrun has no incast, and a sender that is too slow for it makes every transport look good.
    pub overrun_ratio_min: f64,
    /// What of the overrun that their links allow has to be seen, where that is less.
    pub overrun_share_min: f64,
    /// How fast a sender has to be, over its own link's rate.
    pub sender_burst_ratio_min: f64,
    /// How long a link that is to be full may have nothing to carry, of the time. Its rate is asked for to one in a thousand: a fifth of that.
    pub link_idle_ratio_max: f64,
    /// Is overflow part of what is measured (an overload experiment)? Then it is loss, not a fault.
    pub overflow_is_measured: bool,
}

/// How many senders an emulated switch's thread serves within a packet's time.
const SENDERS_PUNCTUAL_MAX: usize = 16;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            lag_ns_floor: 20_000,
            lag_ratio_max: 0.1,
            sent_ratio_min: 0.99,
            steal_ratio_max: 0.01,
            steal_ticks_min: 3,
            involuntary_per_s_max: 100.0,
            waited_ratio_max: 0.01,
            stages_ratio_max: 0.01,
            unstamped_ratio_max: 0.01,
            clock_step_ns_max: 100_000,
            slew_ratio_max: 500e-6,
            stall_uncertainty_max: Duration::from_micros(2_500),
            late_packets_max: 0.5,
            late_to_senders_packets_max: 1.0,
            overrun_ratio_min: 2.0,
            overrun_share_min: 0.9,
            sender_burst_ratio_min: 1.0,
            link_idle_ratio_max: 0.000_2,
            overflow_is_measured: false,
        }
    }
}

impl Limits {
    /// The limits for a client that waits in this way.
    pub fn for_wake(wake: Wake) -> Limits {
        let lag_ns_floor = match wake {
            Wake::Spins => 20_000,
            Wake::Sleeps | Wake::BusyPolls => 200_000,
        };
        Limits {
            lag_ns_floor,
            ..Limits::default()
        }
    }

    /// The limits where so many senders answer through an emulated switch. Its thread hands a frame to one host after the other; beyond sixteen of
    /// them four packets' time is allowed for frames to senders. In the simulator, hosts that take up to eight packets' time for each acknowledgement
    /// leave every order of two transports as it is that differ by 1.3 or more, and with 16 to 64 senders a goodput, at the median, within 3 %; with two
    /// to eight, a goodput may move by 1.7, so there the limit stays (docs/src/experiments/real-incast.md, "When is the switch late?").
    pub fn for_senders(senders_count: usize) -> Limits {
        let limits = Limits::default();
        if senders_count <= SENDERS_PUNCTUAL_MAX {
            return limits;
        }
        Limits {
            late_to_senders_packets_max: 4.0,
            ..limits
        }
    }
}
