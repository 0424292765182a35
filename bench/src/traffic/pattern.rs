//! What is asked of the senders: questions that all of them answer at once and that follow each other, flows without an end, or short
//! answers beside long flows.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use dataplane_ports::tcp::TcpInfo;

use super::flows::{ENDLESS, Flows};
use crate::measure::Recorder;

/// A wait after which somebody looks whether it should end.
const TURN_MAX: Duration = Duration::from_millis(20);
/// Later than any load ends.
const DISTANT: Duration = Duration::from_secs(86_400);

/// A load. Of the connections, in their order, the first are long; the others answer questions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pattern {
    /// Connections that send without an end.
    pub long_count: usize,
    /// From the beginning of one long flow to that of the next.
    pub stagger: Duration,
    /// What the others answer, if they are asked.
    pub questions: Option<Questions>,
    /// How long, if the questions are not answered before.
    pub time_max: Duration,
    /// How often the senders' kernels are asked what their connections do; never, if it is not set.
    pub sample_every: Option<Duration>,
    /// Whether the thread looks for something to do without ever sleeping. A frame for a thread that sleeps on an idle CPU takes whoever brings it
    /// the time to wake both, which is tens of microseconds on a virtual machine, and here that is the switch. For a thread with a CPU of its own.
    pub spins: bool,
}

/// Questions to all senders, one right after the other (a barrier): the next one follows when the last answer to the one before is complete.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Questions {
    /// Bytes of each sender's answer.
    pub answer_bytes: u64,
    /// How many questions, at most.
    pub count: u32,
    /// Asked before those that count, and as often answered: the first windows of a connection are another matter.
    pub unmeasured_count: u32,
    /// From asking one sender to asking the next.
    pub apart: Duration,
    /// From one answer to the next question.
    pub pause: Duration,
    /// An answer that takes longer is lost, and ends the load.
    pub answer_max: Duration,
}

/// What a sender's kernel said of a connection, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Since the load began.
    pub at: Duration,
    /// Which connection.
    pub flow: usize,
    /// What was said.
    pub info: TcpInfo,
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// From a question to the last byte of the last answer, in nanoseconds, question by question.
    pub completion_ns: Vec<u64>,
    /// Questions that were not answered in time, and how long that was.
    pub lost_count: u64,
    /// See [`Done::lost_count`].
    pub lost_time: Duration,
    /// Questions that were answered and do not count.
    pub unmeasured_count: u64,
    /// Time that the questions that count took together, without pauses.
    pub asked_time: Duration,
    /// Payload of the answers to them.
    pub answered_bytes: u64,
    /// Of each of these questions, how long after the first answer the last one was begun: real hosts, or one thread in the place of
    /// all, do not answer in the same instant.
    pub spread_ns: Vec<u64>,
    /// Payload that long flows delivered, connection by connection.
    pub long_bytes: Vec<u64>,
    /// How long all of it took.
    pub elapsed: Duration,
    /// What the kernels said meanwhile.
    pub samples: Vec<Sample>,
    /// The user had enough.
    pub is_interrupted: bool,
}

impl Done {
    /// Payload of answers over the time that the questions took; nothing without an answer.
    pub fn goodput_bits_per_sec(&self) -> Option<f64> {
        (self.answered_bytes > 0).then(|| self.answered_bytes as f64 * 8.0 / self.asked_time.as_secs_f64())
    }

    /// Payload of long flows over the whole time.
    pub fn long_bits_per_sec(&self) -> f64 {
        self.long_bytes.iter().sum::<u64>() as f64 * 8.0 / self.elapsed.as_secs_f64()
    }

    /// Completion times as a histogram.
    pub fn recorder(&self) -> Recorder {
        let mut recorder = Recorder::new();
        self.completion_ns.iter().for_each(|ns| recorder.record(*ns));
        (0..self.lost_count).for_each(|_| recorder.record_lost());
        recorder
    }
}

/// Asks the kernels in between.
struct Sampler {
    every: Option<Duration>,
    began: Instant,
    next: Instant,
    samples: Vec<Sample>,
}

impl Sampler {
    /// Nobody has to wake for it that is awake before.
    fn next_look(&self) -> Instant {
        self.every.map_or(self.began + DISTANT, |_| self.next)
    }

    fn look(&mut self, flows: &Flows) -> anyhow::Result<()> {
        let Some(every) = self.every else {
            return Ok(());
        };
        let now = Instant::now();
        if now < self.next {
            return Ok(());
        }
        self.next = now + every;
        let infos = flows.infos().context("asking the senders' kernels")?;
        let at = now - self.began;
        self.samples.extend(
            infos
                .into_iter()
                .enumerate()
                .map(|(flow, info)| Sample { at, flow, info }),
        );
        Ok(())
    }
}

impl Pattern {
    /// Runs it over `flows` until the questions are answered, the time is over or `stop` is set.
    ///
    /// # Errors
    /// A connection broke.
    ///
    /// # Panics
    /// If there are fewer connections than long ones.
    pub fn run(&self, flows: &mut Flows, stop: &AtomicBool) -> anyhow::Result<Done> {
        assert!(
            self.long_count <= flows.count(),
            "{} long flows of {} connections",
            self.long_count,
            flows.count()
        );
        let began = Instant::now();
        let until = began + self.time_max;
        let mut sampler = Sampler {
            every: self.sample_every,
            began,
            next: began,
            samples: Vec::new(),
        };
        let before: Vec<u64> = (0..self.long_count).map(|flow| flows.received_bytes(flow)).collect();
        let beginning = |flow: usize| began + self.stagger * flow as u32;
        let mut begun_count = 0;
        let mut begin_due = |flows: &mut Flows| -> anyhow::Result<Instant> {
            while begun_count < self.long_count && Instant::now() >= beginning(begun_count) {
                flows.ask(begun_count, ENDLESS).context("asking for a long flow")?;
                begun_count += 1;
            }
            Ok(if begun_count < self.long_count {
                beginning(begun_count).min(until)
            } else {
                until
            })
        };
        begin_due(flows)?;
        let mut done = Done::default();
        if let Some(questions) = self.questions {
            self.ask(questions, flows, (until, stop), &mut sampler, &mut done)?;
        }
        // Without questions the time is all there is; with them it ends with the last one.
        while self.questions.is_none() && Instant::now() < until && !stop.load(Ordering::Relaxed) {
            let next = begin_due(flows)?.min(sampler.next_look());
            flows.turn(self.rest_until(next))?;
            sampler.look(flows)?;
        }
        done.elapsed = began.elapsed();
        done.is_interrupted = stop.load(Ordering::Relaxed);
        let now = (0..self.long_count).map(|flow| flows.received_bytes(flow));
        done.long_bytes = now.zip(before).map(|(now, before)| now - before).collect();
        done.samples = sampler.samples;
        Ok(done)
    }

    /// How long the thread may sleep, if nothing comes before it is `next`.
    fn rest_until(&self, next: Instant) -> Duration {
        match self.spins {
            true => Duration::ZERO,
            false => next.saturating_duration_since(Instant::now()).min(TURN_MAX),
        }
    }

    fn ask(
        &self,
        questions: Questions,
        flows: &mut Flows,
        (until, stop): (Instant, &AtomicBool),
        sampler: &mut Sampler,
        done: &mut Done,
    ) -> anyhow::Result<()> {
        let answering = self.long_count..flows.count();
        let bytes = questions.answer_bytes * answering.len() as u64;
        for number in 0..questions.unmeasured_count.saturating_add(questions.count) {
            let is_measured = number >= questions.unmeasured_count;
            // At least one that counts, however little time there was.
            if stop.load(Ordering::Relaxed) || Instant::now() >= until && !done.completion_ns.is_empty() {
                return Ok(());
            }
            flows.take_answer_spread();
            let asked = Instant::now();
            for (number, flow) in answering.clone().enumerate() {
                let due = asked + questions.apart * number as u32;
                while Instant::now() < due {
                    flows.turn(Duration::ZERO)?;
                }
                flows.ask(flow, questions.answer_bytes).context("asking a question")?;
            }
            let given_up = asked + questions.answer_max;
            let mut is_answered = flows.is_answered(answering.clone());
            while !is_answered && Instant::now() < given_up && !stop.load(Ordering::Relaxed) {
                let next = given_up.min(sampler.next_look());
                flows.turn(self.rest_until(next)).context("waiting for answers")?;
                is_answered = flows.is_answered(answering.clone());
                sampler.look(flows)?;
            }
            let took = asked.elapsed();
            if !is_answered && stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if !is_answered {
                done.lost_count += 1;
                done.lost_time += took;
                return Ok(());
            }
            done.unmeasured_count += u64::from(!is_measured);
            if is_measured {
                done.completion_ns.push(took.as_nanos() as u64);
                done.spread_ns.push(flows.take_answer_spread().as_nanos() as u64);
                done.asked_time += took;
                done.answered_bytes += bytes;
            }
            let next = Instant::now() + questions.pause;
            while Instant::now() < next && !stop.load(Ordering::Relaxed) {
                flows.turn(self.rest_until(next))?;
                sampler.look(flows)?;
            }
        }
        Ok(())
    }
}
