//! A host: a node that is turned, or a port and a disk that wait for one.

use std::io;

use dataplane_waist::{Effects, Instant, Node, Protocol};

use crate::{DiskOptions, HostClock, PortOptions, SimClock, SimLog, SimPort, SimTime, costs};

/// A host's number. On every port, [`dataplane_waist::Peer`] of the same number means this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u32);

/// What a host is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostOptions {
    /// Its port.
    pub port: PortOptions,
    /// Its disk.
    pub disk: DiskOptions,
    /// What its clock shows at the simulator's beginning.
    pub clock_skew_ns: u64,
    /// How many microseconds its clock gains in a second.
    pub clock_drift_ppm: i32,
    /// Sends, and writes to the log, that one turn may cause.
    pub effects_actions_max: usize,
    /// Bytes of both.
    pub effects_bytes_max: usize,
    /// What a turn costs: the host is not turned again before. At least a nanosecond, so that time passes.
    pub turn: SimTime,
    /// What each frame received or sent adds to that.
    pub frame: SimTime,
    /// When a process that ended by an error of its disk is started again.
    pub restart: SimTime,
}

impl Default for HostOptions {
    fn default() -> HostOptions {
        HostOptions {
            port: PortOptions::default(),
            disk: DiskOptions::default(),
            clock_skew_ns: 0,
            clock_drift_ppm: 0,
            effects_actions_max: 256,
            effects_bytes_max: 256 * 1024,
            turn: costs::TURN,
            frame: costs::FRAME,
            restart: costs::RESTART,
        }
    }
}

/// What a host starts with.
#[derive(Debug)]
pub struct Boot<'a> {
    /// Which one.
    pub host: HostId,
    /// How often it has started before.
    pub starts_count: u32,
    /// Its clock.
    pub now: Instant,
    /// The same clock, to be kept.
    pub clock: SimClock,
    /// A seed that is different for every start of every host.
    pub seed: u64,
    /// Its disk, to be recovered from. After a crash it takes nothing before [`dataplane_waist::Log::recover`].
    pub log: &'a mut SimLog,
}

#[derive(Debug)]
pub(crate) struct Host<M> {
    pub options: HostOptions,
    pub clock: HostClock,
    pub shown: SimClock,
    pub process: Process<M>,
    pub starts_count: u32,
    /// The host computes until then.
    pub busy_until: SimTime,
    /// The host is stopped until then.
    pub paused_until: SimTime,
    /// When its next turn is planned; other planned turns are stale.
    pub turn_at: SimTime,
    /// The next turn is to happen even if nothing seems to be due.
    pub must_turn: bool,
    /// Why the last process ended, if by itself.
    pub error: Option<io::Error>,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "hosts are few and nearly always up; a box would cost each event a step"
)]
pub(crate) enum Process<M> {
    Up(Node<SimPort, SimLog, M>),
    Down(SimPort, SimLog),
    /// For the moment in which one becomes the other.
    Changing,
}

impl<M: Protocol> Host<M> {
    pub fn new(options: HostOptions, hosts_count: u32, seed: u64, number: u32) -> Host<M> {
        let port = SimPort::new(options.port, hosts_count);
        let log = SimLog::new(options.disk, seed, number);
        Host {
            options,
            clock: HostClock::new(options.clock_skew_ns, options.clock_drift_ppm),
            shown: SimClock::default(),
            process: Process::Down(port, log),
            starts_count: 0,
            busy_until: SimTime::ZERO,
            paused_until: SimTime::ZERO,
            turn_at: SimTime::FOREVER,
            must_turn: false,
            error: None,
        }
    }

    pub fn node(&self) -> Option<&Node<SimPort, SimLog, M>> {
        match &self.process {
            Process::Up(node) => Some(node),
            _ => None,
        }
    }

    pub fn node_mut(&mut self) -> Option<&mut Node<SimPort, SimLog, M>> {
        match &mut self.process {
            Process::Up(node) => Some(node),
            _ => None,
        }
    }

    pub fn log(&self) -> &SimLog {
        match &self.process {
            Process::Up(node) => node.log(),
            Process::Down(_, log) => log,
            Process::Changing => unreachable!("nobody looks at a host while it changes"),
        }
    }

    pub fn log_mut(&mut self) -> &mut SimLog {
        match &mut self.process {
            Process::Up(node) => node.log_mut(),
            Process::Down(_, log) => log,
            Process::Changing => unreachable!("nobody looks at a host while it changes"),
        }
    }

    /// When the host has something to do, as far as it is known now; not while it computes or is stopped.
    pub fn wants_turn_at(&mut self, now: SimTime) -> SimTime {
        let (clock, ready_at) = (self.clock, self.busy_until.max(self.paused_until).max(now));
        let Some(node) = self.node_mut() else {
            return SimTime::FOREVER;
        };
        if node.port_mut().has_rx() {
            return ready_at;
        }
        let wake_at = node.protocol().wake_at();
        let wake_at = wake_at.map_or(SimTime::FOREVER, |local| clock.when(now, local));
        let log_at = node.log().next_at().unwrap_or(SimTime::FOREVER);
        wake_at.min(log_at).max(ready_at)
    }

    /// Becomes a process.
    pub fn start(&mut self, boot: impl FnOnce(&mut SimLog) -> io::Result<M>) -> io::Result<()> {
        match std::mem::replace(&mut self.process, Process::Changing) {
            Process::Down(port, mut log) => match boot(&mut log) {
                Ok(protocol) => {
                    let effects =
                        Effects::with_capacity(self.options.effects_actions_max, self.options.effects_bytes_max);
                    self.process = Process::Up(Node::with_effects(port, log, protocol, effects));
                    self.starts_count += 1;
                    Ok(())
                }
                Err(error) => {
                    self.process = Process::Down(port, log);
                    Err(error)
                }
            },
            other => {
                self.process = other;
                Ok(())
            }
        }
    }

    /// Ends the process, if there is one; its protocol is handed out.
    pub fn stop(&mut self, pool: &mut Vec<Vec<u8>>) -> Option<M> {
        match std::mem::replace(&mut self.process, Process::Changing) {
            Process::Up(node) => {
                let (mut port, log, protocol) = node.into_parts();
                port.reset(pool);
                self.process = Process::Down(port, log);
                self.turn_at = SimTime::FOREVER;
                self.busy_until = SimTime::ZERO;
                self.paused_until = SimTime::ZERO;
                Some(protocol)
            }
            other => {
                self.process = other;
                None
            }
        }
    }
}
