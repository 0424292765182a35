//! The way back of a trial whose far end sends every frame back: what takes the replies in at the sender's end, and how many
//! came.

use anyhow::Context;
use dataplane_waist::{MonotonicClock, Port};
use ebpf_host::{Attachment, Count, Program};

use super::OneWay;
use crate::{
    account::Intake,
    backends::{Kind, xdp},
    experiment::Lab,
    load::flood,
    place::End,
    sink::{self, Counts, Expected, SinkReport},
};

/// What takes replies in.
pub(super) enum Replies {
    /// The sender's own AF_XDP socket, to which its program hands them: the interface has no room for a second program. Each
    /// is checked and counted by its number.
    Socket(Box<Counts>),
    /// A program at the sender's interface, which counts them and drops them before the stack. It is also the program
    /// without which what a native program sends back over a veth pair would not arrive.
    Program(Box<Attachment>),
}

impl Replies {
    /// Ready for the replies to `trial`; `None` where nobody replies. To be called when the sender's port is open.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn open(lab: &Lab<'_>, trial: &OneWay<'_>, stream_id: u32) -> anyhow::Result<Option<Replies>> {
        let Kind::XdpEcho(mode, _) = trial.sink.kind else {
            return Ok(None);
        };
        if let Intake::Xsk = intake(trial) {
            return Ok(Some(Replies::Socket(Box::new(Counts::of_replies(stream_id)))));
        }
        let local = lab.place.endpoint(End::Client);
        let attach = || xdp::attach(Program::CountDrop, &local, mode);
        let program = lab.place.inside(End::Client, attach)?.context("counting replies")?;
        Ok(Some(Replies::Program(Box::new(program))))
    }

    /// What counts a reply that the sender's port hands up; `None` where none comes through it.
    pub(super) fn counts(&mut self) -> Option<&mut Counts> {
        match self {
            Replies::Socket(counts) => Some(counts),
            Replies::Program(_) => None,
        }
    }

    /// Takes in what still comes of `reflected_count` replies, and says what came in all.
    ///
    /// # Errors
    /// A port that breaks; a counter that cannot be read.
    pub(super) fn drain(mut self, port: &mut dyn Port, reflected_count: u64) -> anyhow::Result<SinkReport> {
        let (clock, expected) = (MonotonicClock::new(), Expected::default());
        expected.set(reflected_count);
        match &mut self {
            Replies::Socket(counts) => {
                let accounted_count = || -> anyhow::Result<u64> {
                    flood::idle(port, Some(&mut *counts))?;
                    Ok(counts.handed_up_count() + sink::lost_count(port.stats()))
                };
                sink::drain(&clock, &expected, accounted_count)?;
                Ok(counts.report(port.stats(), None))
            }
            Replies::Program(program) => {
                let taken_count = || -> anyhow::Result<u64> {
                    let counts = program.counts().context("reading what the program counted")?;
                    Ok(counts.get(Count::Taken))
                };
                sink::drain(&clock, &expected, taken_count)
            }
        }
    }
}

/// What the replies to `trial` are taken from.
pub(super) fn intake(trial: &OneWay<'_>) -> Intake {
    match trial.sender.kind {
        Kind::AfXdp(..) => Intake::Xsk,
        _ => Intake::Program,
    }
}
