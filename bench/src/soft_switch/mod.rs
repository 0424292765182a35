//! A switch between network namespaces whose every port has a rate, a delay, a buffer and marks: `dataplane-softswitch`, with the
//! frames of AF_XDP sockets and a clock.
//!
//! ```text
//!   host's kernel ─ eth0 ══veth══ p0 ─ XDP program take_all ─▶ AF_XDP socket ─▶ Switch::receive     (ports.rs)
//!   host's kernel ─ eth0 ══veth══ p1 ◀─────── AF_XDP socket ◀─ Switch::next_due, when it is time    (turn.rs)
//! ```
//!
//! One thread does all of it and never sleeps: whoever sleeps releases frames late. How late it was is measured for each
//! frame, because a link whose frames are late is not the link that was asked for ([`Lateness`]). Where frames for several hosts are due at
//! once, those of the last port go first: it is the receiver's, and the others' frames queue for it.

mod lap;
mod memory;
mod plain;
mod ports;
mod turn;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::measure::Recorder;
use anyhow::{Context, anyhow, bail};
use dataplane_netns::{Network, NetworkOptions, Privilege, Topology, prepare};
use dataplane_softswitch::{Account, QueueLog, Switch, SwitchOptions};
use dataplane_waist::Support;
use dataplane_wire::ethernet::Mac;
use ebpf_host::{Mode, Program};

use lap::Counter;
pub use lap::Lap;
pub use plain::{PlainLoop, PlainReport};
use ports::Ports;
pub use ports::WireCounters;

/// An Ethernet's: a longer frame would not lie in one frame of the sockets' memory.
pub const MTU_BYTES: u32 = 1500;

/// A switch that works, on a thread of its own, until it is stopped or dropped.
#[derive(Debug)]
pub struct SoftSwitch {
    stop: Arc<AtomicBool>,
    counter: Counter,
    thread: Option<JoinHandle<io::Result<Report>>>,
}

/// How punctual the switch was.
#[derive(Clone, Debug)]
pub struct Lateness {
    /// From when a frame was due at its host to when the kernel had been told to hand it over, in nanoseconds, frame by frame.
    pub release_ns: Recorder,
    /// Of these, those of the last port.
    pub last_port_ns: Recorder,
    /// And those of the others.
    pub other_ports_ns: Recorder,
    /// From one look at the ports to the next, in nanoseconds: a frame that came in between is taken to have come at its end.
    pub look_ns: Recorder,
}

/// What a switch says when it stops.
#[derive(Debug)]
pub struct Report {
    /// Where every frame went inside.
    pub account: Account,
    /// What happened at the queues, as far as it was asked to be kept.
    pub log: QueueLog,
    /// What the kernel counted around it, port by port.
    pub wires: Vec<WireCounters>,
    /// How punctual it was.
    pub lateness: Lateness,
    /// CPU time of its thread.
    pub cpu_time: Duration,
    /// Time of the turns in which there was something to do, system calls included.
    pub busy: Duration,
    /// How long it worked.
    pub elapsed: Duration,
    /// Time in which others had its CPU, although it had work to do, as it always has; `None` where the kernel does not say.
    pub waited: Option<Duration>,
    /// Where its thread ran, and how: pinned or not, with which priority.
    pub settings: Vec<String>,
}

impl Lateness {
    /// None yet.
    pub(crate) fn new() -> Lateness {
        Lateness {
            release_ns: Recorder::new(),
            last_port_ns: Recorder::new(),
            other_ports_ns: Recorder::new(),
            look_ns: Recorder::new(),
        }
    }

    #[inline]
    fn record(&mut self, is_last_port: bool, late_ns: u64) {
        self.release_ns.record(late_ns);
        match is_last_port {
            true => self.last_port_ns.record(late_ns),
            false => self.other_ports_ns.record(late_ns),
        }
    }
}

impl Report {
    /// Frames that came to a port and are neither in the switch's account nor in a counter of the kernel; 0, or something is
    /// wrong.
    pub fn unexplained_count(&self) -> i64 {
        let came: i64 = self.wires.iter().map(|wire| wire.taken_count as i64).sum();
        let lost: i64 = self.wires.iter().map(|wire| wire.rx_lost_count() as i64).sum();
        let received: i64 = self.account.ports.iter().map(|port| port.received_count as i64).sum();
        came - lost - received + self.account.unexplained_count()
    }
}

/// Whether there can be such a switch here, which takes namespaces, AF_XDP and XDP programs.
///
/// # Errors
/// What is missing, and what gives it.
pub fn can_be_here() -> Result<(), String> {
    match (prepare(), ebpf_host::probe(Program::TakeAll, None, Mode::Native)) {
        (Privilege::None { why }, _) => Err(why),
        (_, Ok(Support::Absent { why })) => Err(why),
        (_, Err(error)) => Err(error.to_string()),
        (_, Ok(_)) => Ok(()),
    }
}

/// Hosts in namespaces of their own on a switch without a bridge, as [`SoftSwitch::start`] needs them.
///
/// # Errors
/// They could not be made.
pub fn hosts(hosts_count: usize) -> anyhow::Result<Network> {
    let options = NetworkOptions {
        mtu_bytes: MTU_BYTES,
        bare_switch: true,
        ..NetworkOptions::new(Topology::Star { hosts: hosts_count })
    };
    Network::build(&options).context("making hosts around a switch as network namespaces")
}

impl SoftSwitch {
    /// Takes the ports of `network`'s switch, which must be a bare one, and starts. `cpu` is the thread's own, if there is one to give.
    ///
    /// # Errors
    /// A network without a bare switch, or of another size than the options; no AF_XDP, no BPF, no privilege.
    pub fn start(network: &Network, options: &SwitchOptions, cpu: Option<usize>) -> anyhow::Result<SoftSwitch> {
        let there = network.switch().context("only a star has a switch")?;
        if there.ports().len() != options.links.len() {
            bail!(
                "the network has {} hosts and the switch {} links: give each host one",
                there.ports().len(),
                options.links.len()
            );
        }
        let mut switch = Switch::new(options)?;
        for (port, host) in network.hosts().iter().enumerate() {
            switch.introduce(Mac(host.mac()), port);
        }
        let ports = there
            .run(|| Ports::open(there.ports()))?
            .context("giving the switch its ports")?;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let counter = Counter::default();
        let counts = counter.clone();
        let thread = thread::Builder::new()
            .name("dplab-switch".to_owned())
            .spawn(move || turn::work(switch, ports, &asked, &counts, cpu))
            .context("starting the switch's thread")?;
        Ok(SoftSwitch {
            stop,
            counter,
            thread: Some(thread),
        })
    }

    /// Whether it works: it does not if the kernel refused something.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// What it did until now, and how punctual it was since the last time it was asked; longest queues and fastest bursts
    /// count from now on. It goes on meanwhile.
    ///
    /// # Errors
    /// It does not work any more, or does not answer within a second.
    pub fn lap(&self) -> anyhow::Result<Lap> {
        self.counter.ask()
    }

    /// Stops it. Frames that are under way stay where they are and are counted as held.
    ///
    /// # Errors
    /// What made it stop before.
    pub fn stop(mut self) -> anyhow::Result<Report> {
        let ended = self.join().context("a switch is stopped once")?;
        let report = ended.map_err(|_| anyhow!("the switch's thread panicked"))?;
        report.context("the switch stopped by itself")
    }

    fn join(&mut self) -> Option<thread::Result<io::Result<Report>>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join)
    }
}

impl Drop for SoftSwitch {
    fn drop(&mut self) {
        // Whoever wants its report stops it.
        let _ = self.join();
    }
}
