//! A service node as a protocol: its workers are timers, so that one thread has many workers that "sleep", and many nodes fit on
//! few CPUs. Nodes whose workers burn their CPU are threads, and have their own driver; the disciplines are the same.

use dataplane_waist::{Effects, Input, Instant, Peer, Protocol};
use dataplane_wire::Reject;

use crate::{
    discipline::{Arrival, Discipline},
    message::{self, FRAME_BYTES, Message, NODE_DRAWS, Verb},
    random::{Random, mix},
    service_time::ServiceTime,
    stalls::Stalls,
    workers::{Event, Overhead, Work, WorkerCounts, Workers},
};

/// A request in a node.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    from: Peer,
    message: Message,
    arrived: Instant,
}

/// What a node's requests wait in.
pub type NodeDiscipline = Box<dyn Discipline<Work<Asked>> + Send>;

/// What a node is.
#[derive(Debug)]
pub struct NodeOptions {
    /// How many timers run at once.
    pub workers_count: usize,
    /// What a request takes, if it does not say so itself.
    pub service: ServiceTime,
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
    /// When it stands still, on its own clock.
    pub stalls: Stalls,
}

/// See the module.
pub struct ServiceNode {
    workers: Workers<Asked, NodeDiscipline>,
    service: ServiceTime,
    random: Random,
    /// Requests that waited for a worker or a stall are answered late; by how much timers were late is the machine's.
    late_ns_sum: u64,
}

impl ServiceNode {
    /// An idle one.
    ///
    /// # Panics
    /// As [`Workers::new`].
    pub fn new(options: NodeOptions, discipline: NodeDiscipline) -> ServiceNode {
        ServiceNode {
            workers: Workers::new(options.workers_count, discipline, Overhead::default(), options.stalls),
            service: options.service,
            random: Random::new(options.seed, 4),
            late_ns_sum: 0,
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> WorkerCounts {
        self.workers.counts()
    }

    /// By how much the ends of services were noticed late, all together, in nanoseconds.
    pub fn late_ns_sum(&self) -> u64 {
        self.late_ns_sum
    }
}

/// Full means that this answer is lost, as in a full ring; the node counts it.
fn answer(out: &mut Effects, now: Instant, verb: Verb, asked: &Asked) {
    let answer = Message {
        verb,
        node_ns: now.saturating_since(asked.arrived).as_nanos() as u64,
        ..asked.message
    };
    let _ = out.send(asked.from, FRAME_BYTES, |bytes| message::emit(&answer, bytes));
}

fn tell(out: &mut Effects, now: Instant, event: Event<Asked>) {
    match event {
        Event::Began(asked) if asked.message.verb == Verb::ServeAndTell => answer(out, now, Verb::Began, &asked),
        Event::Began(_) | Event::Withdrawn(_) => {}
        Event::Done(asked) => answer(out, now, Verb::Done, &asked),
    }
}

impl Protocol for ServiceNode {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Frame { from, bytes } => match message::parse(bytes) {
                Ok(message) if message.verb == Verb::Withdraw => self.workers.withdraw(message.id()),
                Ok(message) if matches!(message.verb, Verb::Serve | Verb::ServeAndTell) => {
                    let work_ns = match message.work_ns {
                        NODE_DRAWS => self.service.draw(&mut self.random),
                        work_ns => work_ns,
                    };
                    let asked = Asked {
                        from,
                        message,
                        arrived: now,
                    };
                    let arrival = Arrival {
                        flow: mix(u64::from(message.flow)),
                        dice: self.random.bits(),
                    };
                    self.workers
                        .arrive(now.as_ns(), asked, message.id(), work_ns, arrival, |event| {
                            tell(out, now, event)
                        });
                }
                Ok(_) => out.reject(Reject::Kind),
                Err(reason) => out.reject(reason),
            },
            Input::Tick => {
                while let Some((worker, end_ns)) = self.workers.first_end()
                    && end_ns <= now.as_ns()
                {
                    self.late_ns_sum += now.as_ns() - end_ns;
                    // What comes next begins now and not when the timer should have gone off: a worker that was late is late.
                    self.workers.end(worker, now.as_ns(), |event| tell(out, now, event));
                }
            }
            Input::Durable(_) => {}
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        self.workers.first_end().map(|(_, end_ns)| Instant::from_ns(end_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{discipline::SingleQueue, queue::LocalQueue, stalls::StallPattern};

    const PEER: Peer = Peer(3);

    fn node(stalls: Stalls) -> ServiceNode {
        let options = NodeOptions {
            workers_count: 1,
            service: ServiceTime::Deterministic { ns: 500 },
            seed: 1,
            stalls,
        };
        ServiceNode::new(options, Box::new(SingleQueue::<LocalQueue<Work<Asked>>>::new()))
    }

    fn frame(call: u64, verb: Verb, work_ns: u64) -> Vec<u8> {
        let message = Message {
            client: 9,
            call,
            sent_ns: 77,
            verb,
            flow: 1,
            work_ns,
            node_ns: 0,
        };
        let mut bytes = vec![0; FRAME_BYTES];
        message::emit(&message, &mut bytes);
        bytes
    }

    /// Gives it frames at their times, lets its timers go off, and says what it answered: when, what, of which call.
    fn run(node: &mut ServiceNode, frames: &[(u64, Vec<u8>)]) -> Vec<(u64, Verb, u64, u64)> {
        let mut effects = Effects::with_capacity(16, 4096);
        let mut frames = frames.iter().peekable();
        let mut answers = Vec::new();
        loop {
            let due = node.wake_at().map(Instant::as_ns);
            let comes = frames.peek().map(|(at_ns, _)| *at_ns);
            let now_ns = match (due, comes) {
                (Some(due), Some(comes)) if comes <= due => comes,
                (Some(due), _) => due,
                (None, Some(comes)) => comes,
                (None, None) => return answers,
            };
            let now = Instant::from_ns(now_ns);
            if comes == Some(now_ns) {
                let (_, bytes) = frames.next().expect("peeked");
                node.handle(now, Input::Frame { from: PEER, bytes }, &mut effects);
            } else {
                node.handle(now, Input::Tick, &mut effects);
            }
            for (to, bytes) in effects.sends() {
                let message = message::parse(bytes).expect("our own answer");
                assert_eq!((to, message.client, message.sent_ns), (PEER, 9, 77));
                answers.push((now_ns, message.verb, message.call, message.node_ns));
            }
            effects.clear();
        }
    }

    #[test]
    fn requests_wait_for_their_turn_and_say_how_long() {
        let mut node = node(Stalls::never());
        let answers = run(
            &mut node,
            &[
                (100, frame(1, Verb::Serve, 1_000)),
                (200, frame(2, Verb::ServeAndTell, NODE_DRAWS)),
                (300, frame(3, Verb::Serve, 10)),
                (400, frame(3, Verb::Withdraw, 0)),
            ],
        );
        assert_eq!(
            answers,
            [
                (1_100, Verb::Done, 1, 1_000),
                (1_100, Verb::Began, 2, 900),
                (1_600, Verb::Done, 2, 1_400)
            ]
        );
        assert_eq!(node.counts().withdrawn_count, 1);
    }

    #[test]
    fn a_node_that_stands_still_answers_afterwards() {
        let pattern = StallPattern {
            gap_ns_mean: 1_000_000.0,
            stall_ns: 50_000,
        };
        let (stop_ns, go_ns) = Stalls::new(pattern, 4).next();
        let mut node = node(Stalls::new(pattern, 4));
        let answers = run(&mut node, &[(stop_ns + 10, frame(1, Verb::Serve, 100))]);
        assert_eq!(answers, [(go_ns + 100, Verb::Done, 1, go_ns + 100 - stop_ns - 10)]);
    }

    #[test]
    fn what_is_no_request_is_counted_and_not_answered() {
        let mut node = node(Stalls::never());
        let mut effects = Effects::with_capacity(4, 4096);
        for bytes in [frame(1, Verb::Done, 1), vec![1, 2, 3]] {
            let input = Input::Frame {
                from: PEER,
                bytes: &bytes,
            };
            node.handle(Instant::ZERO, input, &mut effects);
        }
        assert_eq!(effects.rejects().iter().sum::<u64>(), 2);
        assert_eq!(node.wake_at(), None);
    }
}
