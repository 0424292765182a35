//! The axes of the ladder, and which of their combinations are measured.

use crate::{
    backends::{BackEnd, Kind},
    experiment::{Allowed, Axis, Experiment, Lab},
};

pub(super) const REPLICAS: Axis = Axis {
    name: "replicas",
    meaning: "how many replicas; echo: one server that answers by itself, which is the ping-pong beside them; disk: nobody, \
              the client alone writes what one entry takes, durably",
    full: &[ECHO, "3", "5", "7", DISK],
    tour: &[ECHO, "3"],
    smallest: "3",
    allowed: Allowed::Words,
};

pub(super) const IN_FLIGHT: Axis = Axis {
    name: "in_flight",
    meaning: "requests that the client keeps under way",
    full: &["1", "16"],
    tour: &["1"],
    smallest: "1",
    allowed: Allowed::Number(1.0, 256.0),
};

pub(super) const LOG: Axis = Axis {
    name: "log",
    meaning: "where a replica keeps its log: memory (gone with the process), or on disk by this way (an answer then means \
              that a majority has it on disk); dsync and file are written by a thread of their own, with -inline in the \
              replica's turn",
    full: &[MEMORY, "dsync", "dsync-inline", "uring", "file"],
    tour: &[MEMORY],
    smallest: MEMORY,
    allowed: Allowed::Words,
};

pub(super) const CPUS: Axis = Axis {
    name: "cpus",
    meaning: "one: client and all replicas share a CPU (path length); all: they are spread over the CPUs there are",
    full: &["one", "all"],
    tour: &["one"],
    smallest: "one",
    allowed: Allowed::Words,
};

pub(super) const PLACE: Axis = Axis {
    name: "place",
    meaning: "loopback: all processes on one host; bridge: each in a network namespace of its own, joined by a bridge",
    full: &[LOOPBACK, BRIDGE],
    tour: &[LOOPBACK],
    smallest: LOOPBACK,
    allowed: Allowed::Words,
};

pub(super) const SEALED: Axis = Axis {
    name: "sealed",
    meaning: "yes: every frame carries a code by which its receiver knows the sender (HMAC-SHA256), as outside loopback",
    full: &["no", "yes"],
    tour: &["no"],
    smallest: "no",
    allowed: Allowed::Words,
};

pub(super) const LOSS: Axis = Axis {
    name: "loss",
    meaning: "how many of all frames are lost, whoever sends them, by seed",
    full: &[LOSSLESS, "0.001", "0.01"],
    tour: &[LOSSLESS],
    smallest: LOSSLESS,
    allowed: Allowed::Number(0.0, 0.2),
};

pub(super) const AXES: &[Axis] = &[REPLICAS, IN_FLIGHT, LOG, CPUS, PLACE, SEALED, LOSS];

pub(super) const ECHO: &str = "echo";
pub(super) const DISK: &str = "disk";
pub(super) const MEMORY: &str = "memory";
pub(super) const LOOPBACK: &str = "loopback";
pub(super) const BRIDGE: &str = "bridge";
pub(super) const LOSSLESS: &str = "0";
/// The socket that every other is compared with, and whose commit is measured twice a round.
pub(super) const REFERENCE: &str = "udp-blocking";

/// What one row measures.
#[derive(Clone, Debug)]
pub(super) struct Rung {
    pub(super) backend: &'static BackEnd,
    pub(super) replicas: String,
    pub(super) in_flight: usize,
    pub(super) log: String,
    pub(super) cpus: String,
    pub(super) place: String,
    pub(super) sealed: String,
    pub(super) loss: String,
    pub(super) twin: bool,
}

impl Rung {
    /// How many processes have replicas; an echo is one, a disk none.
    pub(super) fn replicas_count(&self) -> usize {
        match self.replicas.as_str() {
            ECHO => 1,
            DISK => 0,
            number => number.parse().expect("axis values are checked beforehand"),
        }
    }

    pub(super) fn is_echo(&self) -> bool {
        self.replicas == ECHO
    }

    pub(super) fn loss_ratio(&self) -> f64 {
        self.loss.parse().expect("axis values are checked beforehand")
    }

    /// In a few words, for whoever waits.
    pub(super) fn describe(&self) -> String {
        let Rung {
            backend,
            replicas,
            in_flight,
            log,
            place,
            ..
        } = self;
        format!(
            "{} over {place}, replicas {replicas}, {in_flight} in flight, log {log}",
            backend.name
        )
    }

    /// Is it more than its neighbour says? An echo and a disk know nothing of most axes.
    fn is_new(&self) -> bool {
        let is_plain = self.loss_ratio() == 0.0 && self.sealed == "no";
        match self.replicas.as_str() {
            ECHO => self.log == MEMORY && self.loss_ratio() == 0.0,
            DISK => {
                // A way to disk is what it is, whoever's thread it is used by; and the network is not used.
                let is_log = self.log != MEMORY && !self.log.ends_with(crate::replicas::INLINE);
                is_log && is_plain && self.in_flight == 1 && self.backend.name == REFERENCE
            }
            _ => true,
        }
    }
}

/// Is `backend` a raw one, which needs interfaces?
fn needs_interfaces(backend: &BackEnd) -> bool {
    matches!(backend.kind, Kind::Packet(_) | Kind::AfXdp(..))
}

/// What is measured, in the order of the axes; what is left out is said.
///
/// All combinations would be a thousand rungs. So what nobody has named is varied by itself alone, beside one and 16 requests in
/// flight; what is named is combined with everything.
pub(super) fn rungs(experiment: &dyn Experiment, lab: &Lab<'_>) -> Vec<Rung> {
    let mut rungs = Vec::new();
    let mut say = Once::default();
    for backend in lab.backends(experiment) {
        for replicas in lab.values(&REPLICAS) {
            for in_flight in lab.numbers(&IN_FLIGHT) {
                for log in own_values(lab, &LOG, &replicas) {
                    for cpus in lab.values(&CPUS) {
                        for place in lab.values(&PLACE) {
                            for sealed in lab.values(&SEALED) {
                                for loss in own_values(lab, &LOSS, &replicas) {
                                    let rung = Rung {
                                        backend,
                                        replicas: replicas.clone(),
                                        in_flight: in_flight as usize,
                                        log: log.clone(),
                                        cpus: cpus.clone(),
                                        place: place.clone(),
                                        sealed: sealed.clone(),
                                        loss,
                                        twin: false,
                                    };
                                    if !rung.is_new() || extras_count(lab, &rung) > 1 {
                                        continue;
                                    }
                                    if let Some(why) = cannot(lab, &rung) {
                                        say.once(lab, why);
                                        continue;
                                    }
                                    if is_doubled(&rung) {
                                        rungs.push(Rung {
                                            twin: true,
                                            ..rung.clone()
                                        });
                                    }
                                    rungs.push(rung);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    rungs
}

/// The values of an axis that an echo knows nothing of: it has the first, whatever was asked for.
fn own_values(lab: &Lab<'_>, axis: &Axis, replicas: &str) -> Vec<String> {
    match replicas {
        ECHO => vec![axis.full[0].to_owned()],
        DISK if axis.name == LOSS.name => vec![LOSSLESS.to_owned()],
        _ => lab.values(axis),
    }
}

/// Measured twice a round, for the noise floor.
fn is_doubled(rung: &Rung) -> bool {
    rung.backend.name == REFERENCE
        && rung.replicas == "3"
        && rung.log == MEMORY
        && rung.place == LOOPBACK
        && rung.sealed == "no"
        && rung.loss_ratio() == 0.0
}

/// In how much a rung differs from the simplest, in what nobody has asked for by name.
fn extras_count(lab: &Lab<'_>, rung: &Rung) -> usize {
    let is_named = |axis: &Axis| lab.choice.axes.contains_key(axis.name);
    let is_raw = needs_interfaces(rung.backend);
    let extras = [
        (lab.choice.backends.is_some(), rung.backend.name != REFERENCE),
        (is_named(&REPLICAS), matches!(rung.replicas.as_str(), "5" | "7")),
        (is_named(&LOG), rung.log != MEMORY),
        // A disk is there for all; how much of its time others use is the question.
        (is_named(&CPUS), rung.cpus != "one" && rung.log == MEMORY),
        (is_named(&PLACE), rung.place != LOOPBACK && !is_raw),
        (is_named(&SEALED), rung.sealed != "no"),
        (is_named(&LOSS), rung.loss_ratio() > 0.0),
    ];
    extras
        .iter()
        .filter(|&&(is_named, differs)| differs && !is_named)
        .count()
}

/// Why a rung cannot be measured here; empty where there is nothing to say, because its neighbour is meant.
fn cannot(lab: &Lab<'_>, rung: &Rung) -> Option<String> {
    let name = rung.backend.name;
    if rung.place == BRIDGE
        && let Some(why) = lab.place.cannot_make_hosts()
    {
        return Some(format!(
            "place=bridge is left out: it needs hosts of its own, and {why}"
        ));
    }
    if rung.place == LOOPBACK && needs_interfaces(rung.backend) {
        let is_elsewhere = lab.values(&PLACE).iter().any(|place| place == BRIDGE);
        return Some(match is_elsewhere {
            true => String::new(),
            false => format!("{name} is left out: it needs interfaces of its own (--axis place=bridge)"),
        });
    }
    if matches!(rung.backend.kind, Kind::AfXdp(..)) && rung.sealed == "yes" {
        return Some(format!(
            "{name} with sealed=yes is left out: the program before it takes frames that are as long as their own header says, \
             and a sealed one has its code behind that"
        ));
    }
    let processes_count = rung.replicas_count() + 1;
    let cpus_count = match rung.cpus.as_str() {
        "one" => 1,
        _ => lab.place.cpus().len(),
    };
    if !rung.backend.sleeps() && processes_count > cpus_count {
        return Some(format!(
            "{name} is left out where there are more processes than CPUs: it never sleeps, so that whoever has the CPU keeps \
             it from whom it waits for"
        ));
    }
    None
}

/// Says each thing once.
#[derive(Default)]
struct Once(Vec<String>);

impl Once {
    fn once(&mut self, lab: &Lab<'_>, what: String) {
        if !what.is_empty() && !self.0.contains(&what) {
            lab.say(&what);
            self.0.push(what);
        }
    }
}
