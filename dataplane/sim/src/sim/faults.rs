//! Faults: planned, begun, ended, and what those that last do together.

use dataplane_waist::Protocol;

use super::{EventKind, Planned, Sim, Word};
use crate::{Crash, Fault, HostId, LinkFaults, Network, ScheduledFault, SimTime, fault::HostSet};

impl<M: Protocol, N: Network> Sim<M, N> {
    /// Plans faults. Those whose time has passed happen next.
    ///
    /// # Panics
    /// If one is of a host that does not exist.
    pub fn schedule(&mut self, faults: &[ScheduledFault]) {
        for &ScheduledFault { at, fault } in faults {
            if let Some(host) = fault.host() {
                assert!((host.0 as usize) < self.hosts.len(), "{fault}: no such host");
            }
            let index = self.faults.len() as u32;
            self.faults.push(fault);
            self.queue.push(at.max(self.now), Planned::FaultBegins(index));
        }
    }

    /// Plans a fault for now: it happens in one of the next steps, after what is due at the same time already.
    ///
    /// # Panics
    /// As [`Sim::schedule`].
    pub fn inject(&mut self, fault: Fault) {
        self.schedule(&[ScheduledFault { at: self.now, fault }]);
    }

    /// Kills a host now; [`Sim::restart`] brings it back. Hands out its protocol; `None` if it was down.
    pub fn crash(&mut self, host: HostId, crash: Crash) -> Option<M> {
        self.note(Word::Crashed, host.0, 0);
        let (index, now) = (host.0 as usize, self.now);
        let protocol = self.hosts[index].stop(&mut self.pool)?;
        for fabric in &self.fabrics {
            fabric.crash(host);
        }
        let log = self.hosts[index].log_mut();
        log.advance(now);
        log.crash(crash);
        Some(protocol)
    }

    /// Starts a host that is down, now. Says whether it is up.
    pub fn restart(&mut self, host: HostId) -> bool {
        self.start(host.0);
        self.host(host).node().is_some()
    }

    pub(super) fn begin_fault(&mut self, index: usize) -> EventKind {
        self.note(Word::FaultBegan, index as u32, 0);
        let (now, fault) = (self.now, self.faults[index]);
        match fault {
            Fault::Crash { host, crash, lasts } => {
                if self.crash(host, crash).is_some() && lasts != SimTime::FOREVER {
                    self.queue.push(now + lasts, Planned::Start(host.0));
                }
                return EventKind::FaultBegan(index);
            }
            Fault::Pause { host, lasts } => {
                let host = &mut self.hosts[host.0 as usize];
                host.paused_until = host.paused_until.max(now + lasts);
            }
            Fault::FailWrite { host, after_count, .. } => {
                self.hosts[host.0 as usize].log_mut().faults_mut().writes_until_failure = Some(after_count);
                self.active.push(index);
            }
            Fault::FailSync { host, after_count, .. } => {
                self.hosts[host.0 as usize].log_mut().faults_mut().syncs_until_failure = Some(after_count);
                self.active.push(index);
            }
            Fault::Damage { host, pick } => {
                self.hosts[host.0 as usize].log_mut().faults_mut().damage = Some(pick);
            }
            Fault::ClockJump { host, ahead_ns } => {
                self.hosts[host.0 as usize].clock.jump(now, ahead_ns);
                self.plan_wanted_turn(host);
            }
            Fault::Partition { .. }
            | Fault::Block { .. }
            | Fault::Degrade { .. }
            | Fault::SlowDisk { .. }
            | Fault::LyingDisk { .. }
            | Fault::Drift { .. } => self.active.push(index),
        }
        if let Some(lasts) = fault.lasts() {
            if lasts != SimTime::FOREVER {
                self.queue.push(now + lasts, Planned::FaultEnds(index as u32));
            }
            self.apply_faults(&fault);
        }
        EventKind::FaultBegan(index)
    }

    pub(super) fn end_fault(&mut self, index: usize) -> EventKind {
        self.note(Word::FaultEnded, index as u32, 0);
        self.active.retain(|&active| active != index);
        let fault = self.faults[index];
        match fault {
            Fault::FailWrite { host, .. } => {
                self.hosts[host.0 as usize].log_mut().faults_mut().writes_until_failure = None;
            }
            Fault::FailSync { host, .. } => {
                self.hosts[host.0 as usize].log_mut().faults_mut().syncs_until_failure = None;
            }
            _ => self.apply_faults(&fault),
        }
        EventKind::FaultEnded(index)
    }

    /// Makes what `changed` touches what the active faults say together.
    fn apply_faults(&mut self, changed: &Fault) {
        let active = || self.active.iter().map(|&index| self.faults[index]);
        match *changed {
            Fault::SlowDisk { host, .. } | Fault::LyingDisk { host, .. } => {
                let mut slow = SimTime::ZERO;
                let mut lies = false;
                for fault in active().filter(|fault| fault.host() == Some(host)) {
                    match fault {
                        Fault::SlowDisk { slow: by, .. } => slow += by,
                        Fault::LyingDisk { .. } => lies = true,
                        _ => (),
                    }
                }
                let faults = self.hosts[host.0 as usize].log_mut().faults_mut();
                (faults.slow, faults.lies) = (slow, lies);
            }
            Fault::Drift { host, .. } => {
                let mut drifts = active().filter_map(|fault| match fault {
                    Fault::Drift {
                        host: of, drift_ppm, ..
                    } if of == host => Some(drift_ppm),
                    _ => None,
                });
                let last = drifts.next_back();
                let host_state = &mut self.hosts[host.0 as usize];
                let drift_ppm = last.unwrap_or(host_state.options.clock_drift_ppm);
                host_state.clock.set_drift(self.now, drift_ppm);
                self.plan_wanted_turn(host);
            }
            Fault::Partition { .. } | Fault::Block { .. } | Fault::Degrade { .. } => {
                let hosts_count = self.hosts.len() as u32;
                let pairs = (0..hosts_count).flat_map(|from| (0..hosts_count).map(move |to| (from, to)));
                let faults_of = |(sender, receiver): (u32, u32)| {
                    let mut faults = LinkFaults::default();
                    let mut blocked = false;
                    for fault in active() {
                        blocked |= fault.blocks(HostId(sender), HostId(receiver));
                        if let Fault::Degrade {
                            from,
                            to,
                            faults: those,
                            ..
                        } = fault
                            && connects(from, to, sender, receiver)
                        {
                            faults = those;
                        }
                    }
                    faults.blocked |= blocked;
                    (sender, receiver, faults)
                };
                let changes: Vec<_> = pairs.map(faults_of).collect();
                for (sender, receiver, faults) in changes {
                    for fabric in &self.fabrics {
                        fabric.set_faults(HostId(sender), HostId(receiver), faults);
                    }
                    self.network.set_faults(sender, receiver, faults);
                }
            }
            // These touch their host when they begin and when they end, and nothing in between.
            Fault::Crash { .. }
            | Fault::Pause { .. }
            | Fault::FailWrite { .. }
            | Fault::FailSync { .. }
            | Fault::Damage { .. }
            | Fault::ClockJump { .. } => (),
        }
    }

    /// After a change of the clock: what the host wanted to wake up for may be due.
    fn plan_wanted_turn(&mut self, host: HostId) {
        let at = self.hosts[host.0 as usize].wants_turn_at(self.now);
        self.plan_turn(host.0, at);
    }
}

fn connects(from: HostSet, to: HostSet, sender: u32, receiver: u32) -> bool {
    sender != receiver && from.contains(HostId(sender)) && to.contains(HostId(receiver))
}
