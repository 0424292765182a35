//! Hosts in namespaces around an emulated switch, from their making to their end.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use anyhow::Context;
use dataplane_netns::{Host, Network};
use dataplane_softswitch::{Account, QueueLog};

use super::{
    Kind, Lap, Shape,
    kernel::{self, Counts, KernelSwitch},
};
use crate::{
    load::thread::{Setting, pin, usable_cpus},
    measure::gates::Observation,
    report::NETWORK,
    soft_switch::{self, SoftSwitch},
};

/// N senders and a receiver at an emulated switch. Dropping it, on any thread, removes all of it.
#[derive(Debug)]
pub struct Fabric {
    // Before the network: a thread ends while its ports are there.
    engine: Mutex<Option<Engine>>,
    network: Network,
    kind: Kind,
    shape: Shape,
    cpus: Cpus,
}

/// What works, and where its lap began.
#[derive(Debug)]
struct Engine {
    began: Instant,
    switch: Switch,
}

#[derive(Debug)]
enum Switch {
    Soft(SoftSwitch, Account),
    Kernel(Box<KernelSwitch>, Counts),
}

impl Engine {
    fn start(kind: Kind, network: &Network, shape: &Shape, cpus: &Cpus) -> anyhow::Result<Engine> {
        let switch = match kind {
            Kind::Soft => {
                let options = shape.soft(network.hosts().len() - 1)?;
                let soft = SoftSwitch::start(network, &options, cpus.switch)?;
                let account = soft.lap()?.account;
                Switch::Soft(soft, account)
            }
            Kind::Kernel => {
                let mut kernel = Box::new(KernelSwitch::start(network, shape)?);
                let counts = kernel.counts()?;
                Switch::Kernel(kernel, counts)
            }
        };
        Ok(Engine {
            began: Instant::now(),
            switch,
        })
    }

    fn lap(&mut self, shape: &Shape) -> anyhow::Result<Lap> {
        let elapsed = self.began.elapsed();
        self.began = Instant::now();
        match &mut self.switch {
            Switch::Soft(soft, before) => {
                let soft_switch::Lap { account, lateness } = soft.lap()?;
                let before = mem::replace(before, account);
                let Switch::Soft(_, after) = &self.switch else {
                    unreachable!("it is")
                };
                Ok(Lap::between(shape, (&before, after), elapsed, lateness))
            }
            Switch::Kernel(kernel, before) => {
                let after = kernel.counts()?;
                let mut lap = Lap::of(kernel.between(before, &after, elapsed.as_secs_f64()), elapsed);
                lap.notes = kernel.notes(before, &after);
                *before = after;
                Ok(lap)
            }
        }
    }

    fn stop(mut self, shape: &Shape) -> anyhow::Result<Ended> {
        if let Switch::Kernel(..) = self.switch {
            return Ok(Ended {
                lap: self.lap(shape)?,
                log: QueueLog::default(),
                unexplained_count: None,
                settings: Vec::new(),
            });
        }
        let Switch::Soft(soft, before) = self.switch else {
            unreachable!("it is")
        };
        let report = soft.stop()?;
        let unexplained_count = report.unexplained_count();
        let mut lap = Lap::between(shape, (&before, &report.account), self.began.elapsed(), report.lateness);
        lap.observations.push(Observation::Unexplained {
            frames_count: unexplained_count,
        });
        Ok(Ended {
            lap,
            log: report.log,
            unexplained_count: Some(unexplained_count),
            settings: report.settings,
        })
    }
}

/// Which CPU is whose.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cpus {
    /// The switch's own.
    switch: Option<usize>,
    /// The hosts' programs share these. Empty: wherever the kernel wants.
    hosts: Vec<usize>,
}

impl Cpus {
    /// The last is the switch's, where it takes one and there is one to give.
    fn share(kind: Kind, usable: &[usize]) -> Cpus {
        match usable {
            [hosts @ .., switch] if !hosts.is_empty() && kind == Kind::Soft => Cpus {
                switch: Some(*switch),
                hosts: hosts.to_vec(),
            },
            all => Cpus {
                switch: None,
                hosts: all.to_vec(),
            },
        }
    }
}

/// What a fabric says when it ends.
#[derive(Debug)]
pub struct Ended {
    /// Since the last lap.
    pub lap: Lap,
    /// What happened at the queues from the beginning, as far as it was asked to be kept.
    pub log: QueueLog,
    /// Frames that came to a port and are in no counter, of the switch or of the kernel; 0, or something is wrong.
    /// `None` where the kernel does not count it.
    pub unexplained_count: Option<i64>,
    /// Where the switch's thread ran, and how.
    pub settings: Vec<String>,
}

impl Fabric {
    /// Makes `senders_count` senders and a receiver, each in a namespace of its own, with a cable to the switch. Offloads are off, and read back.
    ///
    /// # Errors
    /// A shape that cannot be; what [`Kind::can_be`] says; what the kernel refuses.
    pub fn build(kind: Kind, senders_count: usize, shape: &Shape) -> anyhow::Result<Fabric> {
        shape.check(senders_count)?;
        let cpus = Cpus::share(kind, &usable_cpus());
        let network = match kind {
            Kind::Soft => soft_switch::hosts(senders_count + 1)?,
            Kind::Kernel => kernel::hosts(senders_count + 1)?,
        };
        let engine = Engine::start(kind, &network, shape, &cpus)?;
        Ok(Fabric {
            engine: Mutex::new(Some(engine)),
            network,
            kind,
            shape: *shape,
            cpus,
        })
    }

    /// Who emulates its switch.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it is.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The hosts that send.
    pub fn senders(&self) -> &[Host] {
        let hosts = self.network.hosts();
        &hosts[..hosts.len() - 1]
    }

    /// The host that they send to.
    pub fn receiver(&self) -> &Host {
        let hosts = self.network.hosts();
        &hosts[hosts.len() - 1]
    }

    /// The namespaces themselves.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The CPU for a thread that works for that sender: one thread may work for several.
    pub fn sender_cpu(&self, sender: usize) -> Option<usize> {
        let hosts = &self.cpus.hosts;
        (!hosts.is_empty()).then(|| hosts[sender % hosts.len()])
    }

    /// The CPU for the receiver's threads.
    pub fn receiver_cpu(&self) -> Option<usize> {
        self.cpus.hosts.last().copied()
    }

    /// Whether the switch has a CPU to itself, so that a thread of a host's that never sleeps takes nothing from it.
    pub fn switch_has_cpu(&self) -> bool {
        self.cpus.switch.is_some()
    }

    /// Pins the calling thread where a sender's thread belongs. A sender that wanders reorders its own frames: a veth queues them
    /// on the CPU of whoever sends.
    pub fn pin_sender(&self, sender: usize) -> Option<Setting> {
        self.sender_cpu(sender).map(pin)
    }

    /// Whether the switch works: it does not if the kernel refused something. [`Fabric::stop`] says what.
    pub fn is_alive(&self) -> bool {
        match self.engine().as_ref().map(|engine| &engine.switch) {
            Some(Switch::Soft(soft, _)) => soft.is_alive(),
            Some(Switch::Kernel(..)) => true,
            None => false,
        }
    }

    /// What the switch did since the last lap, or since the beginning; a new one begins.
    ///
    /// # Errors
    /// The switch has stopped, or does not answer.
    pub fn lap(&self) -> anyhow::Result<Lap> {
        self.engine().as_mut().context(STOPPED)?.lap(&self.shape)
    }

    fn engine(&self) -> MutexGuard<'_, Option<Engine>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For every record of a run over it: who emulates the switch, what it promises, where its thread and the hosts' run.
    pub fn facts(&self) -> BTreeMap<String, String> {
        let shape = &self.shape;
        let offloads = self.network.facts().offloads.len();
        let mut facts = BTreeMap::from([
            (NETWORK.to_owned(), shape.describe(self.kind, self.senders().len())),
            ("switch".to_owned(), self.kind.name().to_owned()),
            ("switch_by".to_owned(), self.kind.by().to_owned()),
            (
                "ends".to_owned(),
                format!(
                    "network namespaces on veth pairs: no card, no cable; {} senders and a receiver; offloads of all {offloads} \
                     interfaces off, read back",
                    self.senders().len()
                ),
            ),
            (
                "links".to_owned(),
                format!(
                    "senders {} bit/s, receiver {} bit/s, {} ns each way of each cable, port {:?}, {:?}",
                    shape.sender_bits_per_sec,
                    shape.receiver_bits_per_sec,
                    shape.delay.as_ns(),
                    shape.port,
                    shape.sharing
                ),
            ),
            (
                "cpus".to_owned(),
                match self.cpus.switch {
                    Some(cpu) => format!("switch on CPU {cpu}, hosts on {:?}", self.cpus.hosts),
                    None if self.kind == Kind::Kernel => {
                        format!("hosts on {:?}; the switch runs where they send", self.cpus.hosts)
                    }
                    None => format!("switch and hosts share {:?}", self.cpus.hosts),
                },
            ),
            ("time_dilation".to_owned(), shape.dilation.factor().to_string()),
        ]);
        facts.extend(
            self.receiver()
                .run(|| super::KernelTimers::here().facts(shape.dilation))
                .unwrap_or_default(),
        );
        facts
    }

    /// Puts a switch of another shape between the same hosts, whose sockets and settings stay. What the old one did since the last
    /// lap.
    ///
    /// # Errors
    /// As [`Fabric::build`]; what made the old switch stop before. There is no switch then.
    pub fn reshape(&mut self, shape: &Shape) -> anyhow::Result<Ended> {
        shape.check(self.senders().len())?;
        let ended = self.end_switch()?;
        let engine = Engine::start(self.kind, &self.network, shape, &self.cpus)?;
        *self.engine() = Some(engine);
        self.shape = *shape;
        Ok(ended)
    }

    /// Ends it: what the switch did since the last lap, with an account of every frame. Namespaces are gone when this returns.
    ///
    /// # Errors
    /// What made the switch stop before; what could not be removed.
    pub fn stop(self) -> anyhow::Result<Ended> {
        let ended = self.end_switch();
        self.network.remove()?;
        ended
    }

    fn end_switch(&self) -> anyhow::Result<Ended> {
        let engine = self.engine().take();
        engine.context(STOPPED)?.stop(&self.shape)
    }
}

const STOPPED: &str = "the fabric has no switch any more: building another one failed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cpu_is_the_switchs_if_there_is_one_to_give() {
        let share = |usable: &[usize]| {
            let Cpus { switch, hosts } = Cpus::share(Kind::Soft, usable);
            (switch, hosts)
        };
        assert_eq!(share(&[0, 1]), (Some(1), vec![0]));
        assert_eq!(share(&[2, 5, 7]), (Some(7), vec![2, 5]));
        assert_eq!(share(&[3]), (None, vec![3]));
        assert_eq!(share(&[]), (None, vec![]));
        assert_eq!(Cpus::share(Kind::Kernel, &[0, 1]).hosts, [0, 1]);
    }
}
