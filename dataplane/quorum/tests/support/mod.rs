//! Replicas in one thread: frames in queues, time by hand, logs in memory.

use std::{collections::VecDeque, io, time::Duration};

use dataplane_quorum::{Config, Limits, ReadMode, Replica, RoleName, Timing, majorities};
use dataplane_waist::{
    Durable, Effects, Input, Instant, Kept, Log, MemoryLog, Peer, Protocol, Recovered, Slot, Snapshot, StateMachine,
    Term,
};
use dataplane_wire::{
    Reject,
    frame::{self, Header, Kind},
    quorum::{
        reply::{self, Outcome},
        request::{self, Command, Request},
    },
};

/// Frames of clients come from this peer.
pub const CLIENT: Peer = Peer(40);

/// A machine of one register: its value is the last one put, its state the count of puts too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    pub value: Vec<u8>,
    pub puts_count: u64,
}

impl StateMachine for Register {
    fn apply(&mut self, command: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>)) {
        if let Command::Put { value, .. } = command {
            self.value = value.to_vec();
            self.puts_count += 1;
        }
        answer(Outcome::Done);
    }
    fn read(&self, _command: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>)) {
        answer(Outcome::Value(&self.value));
    }
    fn save(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.puts_count.to_be_bytes());
        out.extend_from_slice(&self.value);
    }
    fn load(&mut self, bytes: &[u8]) -> Result<(), Reject> {
        let (count, value) = bytes.split_first_chunk::<8>().ok_or(Reject::Short)?;
        self.puts_count = u64::from_be_bytes(*count);
        self.value = value.to_vec();
        Ok(())
    }
}

pub struct Member {
    pub replica: Replica<Register>,
    pub log: MemoryLog,
    pub effects: Effects,
    kept: Kept,
    pub is_up: bool,
    states_before: u64,
}

/// Whether a frame gets lost, by its sender, receiver and bytes.
pub type Loses = Box<dyn FnMut(u32, u32, &[u8]) -> bool>;

/// A cluster whose node `n` is every port's peer `n`.
pub struct Cluster {
    pub members: Vec<Member>,
    /// From, to, bytes.
    pub wires: VecDeque<(u32, u32, Vec<u8>)>,
    pub now: Instant,
    /// Answers to clients: by which node, outcome as text, sequence.
    pub answers: Vec<(u32, u64, String)>,
    /// Which frames get lost.
    pub loses: Loses,
    pub frames_count: u64,
}

pub fn config(node: u32, count: u32, reads: ReadMode) -> Config {
    Config {
        cluster: 7,
        node,
        peers: (0..count)
            .filter(|&other| other != node)
            .map(|other| (other, Peer(other)))
            .collect(),
        members: majorities((1 << count) - 1),
        reads,
        timing: Timing::LOCAL,
        limits: Limits {
            window_slots: 256,
            window_bytes: 1 << 16,
            in_flight_slots: 64,
            pipeline_slots: 32,
            held_slots: 32,
            snapshot_slots: 100,
            catch_up_slots: 16,
            sessions_max: 8,
            session_replies: 64,
            ..Limits::SMALL
        },
        seed: 1,
        mutation: None,
    }
}

impl Cluster {
    pub fn new(configs: impl IntoIterator<Item = Config>) -> Cluster {
        let members = configs.into_iter().map(|config| {
            let mut log = MemoryLog::new();
            let replica = Replica::recover(config, Register::default(), &mut log).expect("a sound configuration");
            Member {
                effects: replica.effects(64),
                replica,
                log,
                kept: Kept::default(),
                is_up: true,
                states_before: 0,
            }
        });
        Cluster {
            members: members.collect(),
            wires: VecDeque::new(),
            now: Instant::from_ns(1_000_000),
            answers: Vec::new(),
            loses: Box::new(|_, _, _| false),
            frames_count: 0,
        }
    }

    pub fn of(count: u32) -> Cluster {
        Cluster::new((0..count).map(|node| config(node, count, ReadMode::Index)))
    }

    /// What `Node::turn` does, for one input.
    pub fn input(&mut self, node: u32, input: Input<'_>) {
        self.burst(node, [input]);
    }

    /// What `Node::turn` does, for inputs that come at once.
    pub fn burst<'a>(&mut self, node: u32, inputs: impl IntoIterator<Item = Input<'a>>) {
        let member = &mut self.members[node as usize];
        if !member.is_up {
            return;
        }
        for input in inputs {
            member.replica.handle(self.now, input, &mut member.effects);
        }
        loop {
            if member.replica.wake_at().is_some_and(|at| at <= self.now) {
                member.replica.handle(self.now, Input::Tick, &mut member.effects);
            }
            for (to, bytes) in member.effects.sends() {
                self.frames_count += 1;
                if to == CLIENT {
                    let frame = frame::parse(bytes).expect("a replica emits whole frames");
                    let reply = reply::parse(frame.payload).expect("a replica emits whole replies");
                    self.answers
                        .push((node, reply.sequence, format!("{:?}", reply.outcome)));
                } else if !(self.loses)(node, to.0, bytes) {
                    self.wires.push_back((node, to.0, bytes.to_vec()));
                }
            }
            let news = member
                .kept
                .write(&mut member.effects, &mut member.log)
                .and_then(|()| member.kept.news(&mut member.log));
            member.effects.clear();
            let Some(mut durable) = news.expect("memory") else {
                return;
            };
            durable.states_count -= member.states_before;
            member
                .replica
                .handle(self.now, Input::Durable(durable), &mut member.effects);
        }
    }

    /// Delivers frames until none is left.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let Some((from, to, bytes)) = self.wires.pop_front() else {
                return;
            };
            let input = Input::Frame {
                from: Peer(from),
                bytes: &bytes,
            };
            self.input(to, input);
        }
        panic!("the cluster never falls silent");
    }

    /// Lets time pass in small steps, delivering everything.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_micros(500);
            for node in 0..self.members.len() as u32 {
                if self.members[node as usize].is_up {
                    let wakes = self.members[node as usize].replica.wake_at();
                    if wakes.is_none_or(|at| at <= self.now) {
                        self.input(node, Input::Tick);
                    }
                }
            }
            self.settle();
        }
    }

    pub fn leader(&self) -> Option<u32> {
        let leads = |member: &&Member| member.is_up && member.replica.role() == RoleName::Leader;
        let newest = self
            .members
            .iter()
            .filter(leads)
            .max_by_key(|member| member.replica.term());
        newest.map(|member| member.replica.node())
    }

    /// Runs until somebody leads, and says who.
    pub fn elect(&mut self) -> u32 {
        for _ in 0..100 {
            self.run_for(Duration::from_millis(20));
            if let Some(leader) = self.leader() {
                self.run_for(Duration::from_millis(50));
                return self.leader().unwrap_or(leader);
            }
        }
        panic!("nobody is elected");
    }

    pub fn request(&mut self, node: u32, client: u64, sequence: u64, command: Command<'_>) {
        let bytes = request_frame(client, sequence, command);
        let input = Input::Frame {
            from: CLIENT,
            bytes: &bytes,
        };
        self.input(node, input);
    }

    /// Opens a session at the leader and says its number.
    pub fn open(&mut self, leader: u32) -> u64 {
        self.answers.clear();
        self.request(leader, 0, 1, Command::Open);
        self.settle();
        let (_, _, text) = self.answers.pop().expect("an answer");
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_else(|_| panic!("{text} names no client"))
    }

    /// The process ends and begins again from its log.
    pub fn restart(&mut self, node: u32, config: Config) {
        let member = &mut self.members[node as usize];
        member.states_before = member.log.durable().expect("memory").states_count;
        member.replica = Replica::recover(config, Register::default(), &mut member.log).expect("a sound log");
        member.kept = Kept::default();
        member.effects.clear();
        member.is_up = true;
    }

    /// The process ends and begins again, and cannot read its log from `slot` on.
    pub fn damage(&mut self, node: u32, slot: Slot, config: Config) {
        let member = &mut self.members[node as usize];
        let mut log = Damaged {
            whole: std::mem::take(&mut member.log),
            slot,
            readable: MemoryLog::new(),
        };
        member.replica = Replica::recover(config, Register::default(), &mut log).expect("a log that can be read");
        member.log = log.readable;
        member.log.sync().expect("memory");
        member.states_before = member.log.durable().expect("memory").states_count;
        member.kept = Kept::default();
        member.effects.clear();
    }
}

/// A client's request.
pub fn request_frame(client: u64, sequence: u64, command: Command<'_>) -> Vec<u8> {
    let request = Request {
        client,
        sequence,
        command,
    };
    let mut bytes = vec![0; frame::HEADER_BYTES + request.len_bytes()];
    request::emit(&request, &mut bytes[frame::HEADER_BYTES..]);
    let header = Header {
        kind: Kind::QuorumRequest,
        term: 0,
        slot: sequence,
        sent_ns: 99,
    };
    frame::emit(&header, &mut bytes);
    bytes
}

/// A log of which everything from `slot` on has become unreadable; `readable` is what is left.
struct Damaged {
    whole: MemoryLog,
    slot: Slot,
    readable: MemoryLog,
}

impl Log for Damaged {
    fn append(&mut self, _: Slot, _: Term, _: &[u8]) -> io::Result<()> {
        unreachable!("it is only recovered from")
    }
    fn set_state(&mut self, _: &[u8]) -> io::Result<()> {
        unreachable!("it is only recovered from")
    }
    fn install(&mut self, _: &Snapshot) -> io::Result<()> {
        unreachable!("it is only recovered from")
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn durable(&mut self) -> io::Result<Durable> {
        Ok(Durable::default())
    }
    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
        let (from, readable) = (self.slot, &mut self.readable);
        let mut last_term = Term(0);
        let end = self.whole.recover(&mut |recovered| match recovered {
            Recovered::State(state) => {
                readable.set_state(state).expect("memory");
                visit(recovered);
            }
            Recovered::Entry { slot, term, payload } => {
                last_term = term;
                if slot < from {
                    readable.append(slot, term, payload).expect("memory");
                    visit(recovered);
                }
            }
            _ => panic!("no snapshot was taken yet"),
        })?;
        visit(Recovered::Damaged {
            slot: from,
            end,
            last_term,
        });
        Ok(from)
    }
}
