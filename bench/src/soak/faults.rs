//! What goes wrong in a history: the simulator's own list of everything that an honest disk and a bad network do, and
//! episodes that are known to bring broken protocols down.
//!
//! Bounds, because nothing could survive more: clocks differ by no more than the leases allow, and jump only where there
//! are no leases; of entries that were acknowledged, fewer copies are damaged than a commit has (one host in a history,
//! and only where a commit has two copies and an election can do without one voter). A disk lies only where a soak is asked for that.

use dataplane_quorum::ReadMode;
use dataplane_sim::{
    Crash, Fault, FaultBounds, FaultKind, HostId, HostSet, LinkFaults, ScheduledFault, SimTime, generate,
};
use rand::{RngExt, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;

use super::plan::{Break, ELECTION_MIN, Plan};

/// Fills in the plan's faults.
pub fn draw(rng: &mut Pcg64Mcg, plan: &mut Plan, drift_ppm_max: i32) {
    let may_jump = plan.reads == ReadMode::Index;
    let mut kinds = FaultKind::HONEST.to_vec();
    kinds.retain(|&kind| may_jump || kind != FaultKind::ClockJump);
    let end = plan.healed_at;
    let bounds = FaultBounds {
        hosts_count: plan.replicas_count,
        begin: SimTime::ZERO,
        end,
        faults_max: rng.random_range(1..12),
        lasts_max: SimTime::from_ps(end.as_ps() / 5),
        down_hosts_max: plan.replicas_count as usize,
        kinds,
        drift_ppm_max,
        jump_ns_max: 2 * ELECTION_MIN.as_nanos() as u64,
    };
    let mut faults = generate(rng.random(), &bounds);
    let mut draw = Draw {
        rng,
        replicas_count: plan.replicas_count,
        may_jump,
        end,
        faults: Vec::new(),
    };
    for _ in 0..draw.rng.random_range(0..5) {
        let at = draw.time(SimTime::ZERO, end);
        match draw.rng.random_range(0..9) {
            0 => draw.isolate(at),
            1 => draw.split(at),
            2..5 => draw.churn(at),
            5 => draw.power_cut(at),
            6 => draw.restarts(at),
            7 => draw.bad_links(at),
            _ => draw.slow_links(at),
        }
    }
    // Whoever lost entries elects nobody with less than it had, so an election must do without it.
    let may_damage = u32::from(plan.members.elect_count) < plan.members.count();
    if plan.members.commit_count >= 2 && draw.rng.random_bool(0.15) && may_damage {
        plan.voters_min = 3;
        let at = draw.time(SimTime::ZERO, end);
        draw.damage(at);
    }
    if plan.breaks == Some(Break::LyingDisk) {
        draw.lies();
    }
    faults.append(&mut draw.faults);
    faults.sort_by_key(|fault| fault.at);
    plan.faults = faults;
}

struct Draw<'a> {
    rng: &'a mut Pcg64Mcg,
    replicas_count: u32,
    may_jump: bool,
    end: SimTime,
    faults: Vec<ScheduledFault>,
}

impl Draw<'_> {
    fn time(&mut self, from: SimTime, to: SimTime) -> SimTime {
        SimTime::from_ps(self.rng.random_range(from.as_ps()..=to.as_ps()))
    }

    /// A span of up to `elections` times the shortest time-out.
    fn elections(&mut self, elections: f64) -> SimTime {
        let share = self.rng.random_range(0.0..elections);
        SimTime::from_ns(ELECTION_MIN.mul_f64(share).as_nanos() as u64)
    }

    fn host(&mut self) -> HostId {
        HostId(self.rng.random_range(0..self.replicas_count))
    }

    fn replicas(&self) -> HostSet {
        HostSet((1 << self.replicas_count) - 1)
    }

    /// Cut to the time in which things go wrong.
    fn push(&mut self, at: SimTime, fault: impl FnOnce(SimTime) -> Fault, lasts: SimTime) {
        if at < self.end {
            let fault = fault(lasts.min(self.end - at));
            self.faults.push(ScheduledFault { at, fault });
        }
    }

    /// Replicas of `side` and the others do not hear each other; clients hear all.
    fn cut(&mut self, at: SimTime, side: HostSet, lasts: SimTime) {
        let others = HostSet(self.replicas().0 & !side.0);
        let ways = match self.rng.random_range(0..6) {
            0 => vec![(side, others)],
            1 => vec![(others, side)],
            _ => vec![(side, others), (others, side)],
        };
        for (from, to) in ways {
            self.push(at, |lasts| Fault::Block { from, to, lasts }, lasts);
        }
    }

    /// One replica is alone with the clients: if it led, it must not believe that it still does.
    fn isolate(&mut self, at: SimTime) {
        let (host, lasts) = (self.host(), self.elections(8.0));
        self.cut(at, HostSet::of([host]), lasts);
    }

    /// Two groups.
    fn split(&mut self, at: SimTime) {
        let side = HostSet(self.rng.random_range(1..(1 << self.replicas_count) - 1));
        let lasts = self.elections(8.0);
        self.cut(at, side, lasts);
    }

    /// One replica after the other is cut off or dies, each for about as long as an election takes: leaders that come and
    /// go with what they have appended (Raft, figure 8).
    fn churn(&mut self, at: SimTime) {
        let mut at = at;
        let is_slow = self.rng.random_bool(0.6);
        if is_slow {
            let slow = self.elections(0.5);
            for host in 0..self.replicas_count {
                let host = HostId(host);
                let lasts = self.end;
                self.push(at, |lasts| Fault::SlowDisk { host, slow, lasts }, lasts);
            }
        }
        for _ in 0..self.rng.random_range(3..10) {
            let (host, lasts) = (self.host(), self.elections(4.0));
            match self.rng.random_range(0..3) {
                0 => self.crash(at, host, lasts),
                _ => self.cut(at, HostSet::of([host]), lasts),
            }
            at += self.elections(2.5);
        }
    }

    fn crash(&mut self, at: SimTime, host: HostId, lasts: SimTime) {
        let crash = *[Crash::Process, Crash::Power].choose(self.rng).expect("two");
        self.push(at, |lasts| Fault::Crash { host, crash, lasts }, lasts);
    }

    /// Slow disks, and then the power fails for many at once: what no sync had covered is gone on all of them.
    fn power_cut(&mut self, at: SimTime) {
        let slow = self.elections(1.0);
        let spared = self.rng.random_range(0..=self.replicas_count / 2);
        let warning = self.elections(3.0);
        for host in 0..self.replicas_count {
            let host = HostId(host);
            if self.rng.random_bool(0.7) {
                let lasts = warning;
                self.push(at, |lasts| Fault::SlowDisk { host, slow, lasts }, lasts);
            }
            if host.0 >= spared {
                let (crash, lasts) = (Crash::Power, self.elections(2.0));
                self.push(at + warning, |lasts| Fault::Crash { host, crash, lasts }, lasts);
            }
        }
    }

    /// Processes that die and are back at once, many times within an election; some with a clock that has jumped.
    fn restarts(&mut self, at: SimTime) {
        let mut at = at;
        for _ in 0..self.rng.random_range(2..8) {
            let (host, lasts) = (self.host(), self.elections(0.1));
            self.crash(at, host, lasts);
            if self.may_jump && self.rng.random_bool(0.5) {
                let ahead_ns = self.elections(1.5).as_ns();
                let jump = Fault::ClockJump { host, ahead_ns };
                let back_at = at + lasts + self.elections(0.1);
                self.push(back_at, |_| jump, SimTime::ZERO);
            }
            at += self.elections(0.7);
        }
    }

    /// Loss, duplication, reordering and corruption, everywhere.
    fn bad_links(&mut self, at: SimTime) {
        let faults = LinkFaults {
            loss_ratio: self.ratio(0.3),
            duplicate_ratio: self.ratio(0.3),
            corrupt_ratio: self.ratio(0.1),
            reorder_ratio: self.ratio(0.5),
            reorder: self.elections(0.3),
            ..LinkFaults::default()
        };
        let (from, to, lasts) = (HostSet::ALL, HostSet::ALL, self.elections(20.0));
        self.push(
            at,
            |lasts| Fault::Degrade {
                from,
                to,
                faults,
                lasts,
            },
            lasts,
        );
    }

    /// Frames that take about as long as an election.
    fn slow_links(&mut self, at: SimTime) {
        let faults = LinkFaults {
            slow: self.elections(0.4),
            reorder_ratio: self.ratio(0.5),
            reorder: self.elections(1.5),
            duplicate_ratio: self.ratio(0.5),
            ..LinkFaults::default()
        };
        let (from, to, lasts) = (self.replicas(), self.replicas(), self.elections(10.0));
        self.push(
            at,
            |lasts| Fault::Degrade {
                from,
                to,
                faults,
                lasts,
            },
            lasts,
        );
    }

    fn ratio(&mut self, max: f64) -> f64 {
        // Whole thousandths, so that what is printed is what is read.
        let thousandths = (max * 1000.0) as u32;
        f64::from(self.rng.random_range(0..=thousandths)) / 1000.0
    }

    /// Entries on one host become unreadable.
    fn damage(&mut self, at: SimTime) {
        let (host, lasts) = (self.host(), self.elections(2.0));
        let pick = self.rng.random();
        self.push(at, |_| Fault::Damage { host, pick }, SimTime::ZERO);
        let crash = Crash::Power;
        self.push(at, |lasts| Fault::Crash { host, crash, lasts }, lasts);
    }

    /// Disks that keep nothing, and a power failure for most of them.
    fn lies(&mut self) {
        for host in 0..self.replicas_count {
            let (host, at) = (HostId(host), SimTime::ZERO);
            if self.rng.random_bool(0.7) {
                let lasts = self.end;
                self.push(at, |lasts| Fault::LyingDisk { host, lasts }, lasts);
            }
        }
        let at = self.time(SimTime::ZERO, self.end);
        self.power_cut(at);
    }
}
