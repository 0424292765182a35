//! Faults by seed, within bounds that say what the system under test must live with.

use crate::{
    Crash, Fault, HostId, HostSet, LinkFaults, ScheduledFault, SimTime,
    random::{Purpose, Random},
};

/// A kind of [`Fault`], to say which may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// [`Fault::Crash`] with [`Crash::Process`].
    CrashProcess,
    /// [`Fault::Crash`] with [`Crash::Power`].
    CrashPower,
    /// [`Fault::Pause`].
    Pause,
    /// [`Fault::Partition`].
    Partition,
    /// [`Fault::Block`].
    Block,
    /// [`Fault::Degrade`].
    Degrade,
    /// [`Fault::SlowDisk`].
    SlowDisk,
    /// [`Fault::LyingDisk`].
    LyingDisk,
    /// [`Fault::FailWrite`].
    FailWrite,
    /// [`Fault::FailSync`].
    FailSync,
    /// [`Fault::Damage`], followed by a crash that makes the host recover.
    Damage,
    /// [`Fault::Drift`].
    Drift,
    /// [`Fault::ClockJump`].
    ClockJump,
}

impl FaultKind {
    /// What a correct replicated log survives in any number.
    pub const HONEST: &[FaultKind] = &[
        FaultKind::CrashProcess,
        FaultKind::CrashPower,
        FaultKind::Pause,
        FaultKind::Partition,
        FaultKind::Block,
        FaultKind::Degrade,
        FaultKind::SlowDisk,
        FaultKind::FailWrite,
        FaultKind::FailSync,
        FaultKind::Drift,
        FaultKind::ClockJump,
    ];
}

/// What may happen.
#[derive(Clone, Debug)]
pub struct FaultBounds {
    /// The hosts that things happen to: the first `hosts_count`; at most 64. Clients behind them are spared, but for
    /// the links from and to these.
    pub hosts_count: u32,
    /// No fault begins before.
    pub begin: SimTime,
    /// Every fault has ended by then; a run that goes on longer must find its way back.
    pub end: SimTime,
    /// The number of faults is drawn from 0 to this.
    pub faults_max: usize,
    /// The longest that any fault lasts.
    pub lasts_max: SimTime,
    /// Hosts that are crashed or paused at the same time at most; what would be one too many is left out.
    pub down_hosts_max: usize,
    /// Each is as likely as how often it stands here.
    pub kinds: Vec<FaultKind>,
    /// The fastest or slowest clock.
    pub drift_ppm_max: i32,
    /// The longest jump of a clock.
    pub jump_ns_max: u64,
}

impl FaultBounds {
    /// All that a correct replicated log on `hosts_count` hosts survives, in the first two thirds of `run`.
    pub fn honest(hosts_count: u32, run: SimTime) -> FaultBounds {
        FaultBounds {
            hosts_count,
            begin: SimTime::ZERO,
            end: SimTime::from_ps(run.as_ps() / 3 * 2),
            faults_max: 12,
            lasts_max: SimTime::from_ps(run.as_ps() / 4),
            down_hosts_max: hosts_count as usize,
            kinds: FaultKind::HONEST.to_vec(),
            drift_ppm_max: 500,
            jump_ns_max: run.as_ns() / 4,
        }
    }

    /// The same with disks that lie and disks that rot.
    pub fn everything(hosts_count: u32, run: SimTime) -> FaultBounds {
        let mut bounds = FaultBounds::honest(hosts_count, run);
        bounds.kinds.extend([FaultKind::LyingDisk, FaultKind::Damage]);
        bounds
    }
}

/// Faults drawn from `seed`, in order of time.
///
/// # Panics
/// If `bounds` has no host or more than 64, no kind, or ends before it begins.
pub fn generate(seed: u64, bounds: &FaultBounds) -> Vec<ScheduledFault> {
    assert!(
        (1..=64).contains(&bounds.hosts_count),
        "faults for {} hosts; from 1 to 64 can be hit",
        bounds.hosts_count
    );
    assert!(!bounds.kinds.is_empty(), "no kind of fault may happen");
    let mut dice = Dice {
        random: Random::new(seed, Purpose::Faults, 0, 0),
        bounds,
    };
    let mut faults: Vec<ScheduledFault> = Vec::new();
    for _ in 0..dice.random.up_to(bounds.faults_max as u64) {
        let at = bounds.begin + dice.random.span(bounds.end - bounds.begin);
        let kind = bounds.kinds[dice.below(bounds.kinds.len() as u64) as usize];
        let fault = dice.draw(kind, at);
        if kind == FaultKind::Damage {
            let crash = dice.draw(FaultKind::CrashPower, at);
            if let (Some(host), Fault::Crash { crash, lasts, .. }) = (fault.host(), crash) {
                let fault = Fault::Crash { host, crash, lasts };
                push_bounded(&mut faults, ScheduledFault { at, fault }, bounds);
            }
        }
        push_bounded(&mut faults, ScheduledFault { at, fault }, bounds);
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// Adds a fault unless too many hosts would be down at once.
fn push_bounded(faults: &mut Vec<ScheduledFault>, fault: ScheduledFault, bounds: &FaultBounds) {
    if let Some((begin, end)) = down(&fault) {
        // Everybody who is down at some time within this episode: more than at any one moment, and easily said.
        let mut hosts: Vec<HostId> = faults
            .iter()
            .filter(|other| down(other).is_some_and(|(from, to)| from <= end && begin <= to))
            .filter_map(|other| other.fault.host())
            .chain(fault.fault.host())
            .collect();
        hosts.sort();
        hosts.dedup();
        if hosts.len() > bounds.down_hosts_max {
            return;
        }
    }
    faults.push(fault);
}

/// From when to when a fault takes a host away.
fn down(fault: &ScheduledFault) -> Option<(SimTime, SimTime)> {
    match fault.fault {
        Fault::Crash { lasts, .. } | Fault::Pause { lasts, .. } => Some((fault.at, fault.at + lasts)),
        _ => None,
    }
}

struct Dice<'a> {
    random: Random,
    bounds: &'a FaultBounds,
}

impl Dice<'_> {
    /// From 0 to `count`, exclusive.
    fn below(&mut self, count: u64) -> u64 {
        self.random.up_to(count - 1)
    }

    fn host(&mut self) -> HostId {
        HostId(self.below(u64::from(self.bounds.hosts_count)) as u32)
    }

    /// Some of the hosts, at least one.
    fn hosts(&mut self) -> HostSet {
        let all = u64::MAX >> (64 - self.bounds.hosts_count);
        HostSet(1 + self.random.up_to(all - 1))
    }

    /// One host, or all, or some.
    fn hosts_or_all(&mut self) -> HostSet {
        match self.below(3) {
            0 => HostSet::of([self.host()]),
            1 => HostSet::ALL,
            _ => self.hosts(),
        }
    }

    /// How long a fault lasts that begins at `at`: as often below a tenth of the longest as above.
    fn lasts(&mut self, at: SimTime) -> SimTime {
        let max = self.bounds.lasts_max.min(self.bounds.end - at);
        let span_max = match self.below(2) {
            0 => max,
            _ => SimTime::from_ps(max.as_ps() / 10),
        };
        self.random.span(span_max)
    }

    /// A ratio: a little as often as a lot.
    fn ratio(&mut self) -> f64 {
        let ratio = self.random.up_to(1000) as f64 / 1000.0;
        match self.below(3) {
            0 => 0.0,
            1 => ratio / 20.0,
            _ => ratio / 2.0,
        }
    }

    fn draw(&mut self, kind: FaultKind, at: SimTime) -> Fault {
        let host = self.host();
        let lasts = self.lasts(at);
        match kind {
            FaultKind::CrashProcess | FaultKind::CrashPower => Fault::Crash {
                host,
                crash: match kind {
                    FaultKind::CrashProcess => Crash::Process,
                    _ => Crash::Power,
                },
                lasts,
            },
            FaultKind::Pause => Fault::Pause { host, lasts },
            FaultKind::Partition => Fault::Partition {
                side: self.hosts(),
                lasts,
            },
            FaultKind::Block => Fault::Block {
                from: self.hosts_or_all(),
                to: self.hosts_or_all(),
                lasts,
            },
            FaultKind::Degrade => Fault::Degrade {
                from: self.hosts_or_all(),
                to: self.hosts_or_all(),
                faults: LinkFaults {
                    blocked: false,
                    loss_ratio: self.ratio(),
                    duplicate_ratio: self.ratio(),
                    corrupt_ratio: self.ratio(),
                    reorder_ratio: self.ratio(),
                    reorder: self.small_span(),
                    slow: self.small_span(),
                },
                lasts,
            },
            FaultKind::SlowDisk => Fault::SlowDisk {
                host,
                slow: self.small_span(),
                lasts,
            },
            FaultKind::LyingDisk => Fault::LyingDisk { host, lasts },
            FaultKind::FailWrite => Fault::FailWrite {
                host,
                after_count: self.random.up_to(20),
                lasts,
            },
            FaultKind::FailSync => Fault::FailSync {
                host,
                after_count: self.random.up_to(20),
                lasts,
            },
            FaultKind::Damage => Fault::Damage {
                host,
                pick: self.random.next(),
            },
            FaultKind::Drift => {
                let max = self.bounds.drift_ppm_max;
                let drift_ppm = self.random.up_to(2 * max.unsigned_abs() as u64) as i32 - max;
                Fault::Drift { host, drift_ppm, lasts }
            }
            FaultKind::ClockJump => Fault::ClockJump {
                host,
                ahead_ns: self.random.up_to(self.bounds.jump_ns_max),
            },
        }
    }

    /// A delay that a run still gets done many times.
    fn small_span(&mut self) -> SimTime {
        self.random.span(SimTime::from_ps(self.bounds.lasts_max.as_ps() / 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_keep_their_bounds_and_follow_their_seed() {
        let mut bounds = FaultBounds::everything(5, SimTime::from_ms(900));
        bounds.begin = SimTime::from_ms(10);
        bounds.down_hosts_max = 2;
        let mut most_down_count = 0;
        for seed in 0..300 {
            let faults = generate(seed, &bounds);
            assert_eq!(faults, generate(seed, &bounds), "seed {seed}");
            assert!(faults.is_sorted_by_key(|fault| fault.at), "seed {seed}");
            // A rotten disk brings a crash along.
            assert!(faults.len() <= 2 * bounds.faults_max, "seed {seed}");
            for fault in &faults {
                assert!(fault.at >= bounds.begin, "seed {seed}: {fault}");
                let end = fault.at + fault.fault.lasts().unwrap_or_default();
                assert!(end <= bounds.end, "seed {seed}: {fault}");
                assert!(fault.fault.host().is_none_or(|host| host.0 < 5), "seed {seed}: {fault}");
            }
            for (at, _) in faults.iter().filter_map(down) {
                let is_down = |fault: &&ScheduledFault| down(fault).is_some_and(|(from, to)| from <= at && at < to);
                let mut hosts: Vec<_> = faults
                    .iter()
                    .filter(is_down)
                    .filter_map(|fault| fault.fault.host())
                    .collect();
                hosts.sort();
                hosts.dedup();
                assert!(hosts.len() <= 2, "seed {seed}: {hosts:?} are down at {at}");
                most_down_count = most_down_count.max(hosts.len());
            }
        }
        assert_eq!(most_down_count, 2, "the bound was reached");
        assert_ne!(generate(1, &bounds), generate(2, &bounds));
    }
}
