//! Three replicas and more in one thread, without a network: frames are built, checksummed, parsed and applied as everywhere;
//! logs are in memory. Used by the bench beside it, and by bench/peers.

use std::{hint::black_box, time::Duration};

use dataplane_quorum::{Config, Limits, ReadMode, Replica, RoleName, Timing, majorities};
use dataplane_waist::{Effects, Input, Instant, Kept, MemoryLog, Peer, Protocol, StateMachine};
use dataplane_wire::{
    Reject,
    frame::{self, Header, Kind},
    quorum::{
        reply::{self, Outcome},
        request::{self, Command, Request},
    },
};

const CLIENT: Peer = Peer(40);
/// The cheapest machine there is, so that the protocol is what is measured.
#[derive(Debug, Default)]
struct Counter {
    count: u64,
}

impl StateMachine for Counter {
    fn apply(&mut self, command: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>)) {
        black_box(command);
        self.count += 1;
        answer(Outcome::Done);
    }
    fn read(&self, _command: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>)) {
        answer(Outcome::Absent);
    }
    fn save(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.count.to_be_bytes());
    }
    fn load(&mut self, _bytes: &[u8]) -> Result<(), Reject> {
        Ok(())
    }
}

struct Member {
    replica: Replica<Counter>,
    log: MemoryLog,
    effects: Effects,
    kept: Kept,
}

/// Replicas that hand frames to each other.
pub struct Cluster {
    members: Vec<Member>,
    /// Takes the place of a member's effects while the frames in them are handed over where they lie: nothing is copied, as the
    /// messages of others are not.
    spare: Option<Effects>,
    now: Instant,
    /// Answers that clients got.
    pub answers_count: u64,
    client: u64,
}

impl Cluster {
    /// So many, of which node 0 leads, with a client's session open.
    pub fn new(count: u32) -> Cluster {
        let members = (0..count).map(|node| {
            let limits = Limits::SMALL;
            let config = Config {
                cluster: 1,
                node,
                peers: (0..count)
                    .filter(|&other| other != node)
                    .map(|other| (other, Peer(other)))
                    .collect(),
                members: majorities((1 << count) - 1),
                reads: ReadMode::Index,
                timing: Timing::LOCAL,
                limits,
                seed: 1,
                mutation: None,
            };
            let mut log = MemoryLog::with_capacity(limits.window_slots, limits.window_bytes);
            let mut replica = Replica::recover(config, Counter::default(), &mut log).expect("sound");
            replica.prefault();
            Member {
                effects: replica.effects(64),
                replica,
                log,
                kept: Kept::default(),
            }
        });
        let members: Vec<Member> = members.collect();
        let mut cluster = Cluster {
            spare: Some(members[0].replica.effects(64)),
            members,
            now: Instant::from_ns(1),
            answers_count: 0,
            client: 0,
        };
        while cluster.members[0].replica.role() != RoleName::Leader {
            cluster.now = cluster.now + Duration::from_millis(1);
            for node in 0..count {
                // Only node 0 stands, so that the bench knows its leader.
                if node == 0 && cluster.members[0].replica.wake_at().is_some_and(|at| at <= cluster.now) {
                    cluster.turn(0, None);
                }
            }
            cluster.deliver();
        }
        let open = request_frame(0, 1, Command::Open);
        cluster.ask(&open);
        assert!(cluster.client > 0, "a session was opened");
        cluster
    }

    /// The client's `sequence`th request, ready to be sent.
    pub fn request(&self, sequence: u64, command: Command<'_>) -> Vec<u8> {
        request_frame(self.client, sequence, command)
    }

    /// Hands the leader a request, and everybody what comes of it, until nothing is under way.
    pub fn ask(&mut self, frame: &[u8]) {
        self.turn(0, Some((CLIENT, frame)));
        self.deliver();
    }

    /// As `Node::turn`; what is to be sent is left in the member's effects.
    fn turn(&mut self, node: u32, frame: Option<(Peer, &[u8])>) {
        let now = self.now;
        let Member {
            replica,
            log,
            effects,
            kept,
        } = &mut self.members[node as usize];
        if let Some((from, bytes)) = frame {
            replica.handle(now, Input::Frame { from, bytes }, effects);
        }
        if replica.wake_at().is_some_and(|at| at <= now) {
            replica.handle(now, Input::Tick, effects);
        }
        kept.write(effects, log).expect("memory");
        if let Some(durable) = kept.news(log).expect("memory") {
            replica.handle(now, Input::Durable(durable), effects);
            kept.write(effects, log).expect("memory");
        }
    }

    /// Hands over what is to be sent until nothing is.
    fn deliver(&mut self) {
        let mut is_quiet = false;
        while !is_quiet {
            is_quiet = true;
            for node in 0..self.members.len() as u32 {
                let effects = &mut self.members[node as usize].effects;
                if effects.sends().next().is_none() {
                    effects.clear();
                    continue;
                }
                is_quiet = false;
                let spare = self.spare.take().expect("it was given back");
                let mut sent = std::mem::replace(effects, spare);
                for (to, frame) in sent.sends() {
                    match to {
                        CLIENT => self.hear(frame),
                        to => self.turn(to.0, Some((Peer(node), frame))),
                    }
                }
                sent.clear();
                self.spare = Some(sent);
            }
        }
    }

    fn hear(&mut self, frame: &[u8]) {
        self.answers_count += 1;
        if frame[frame::HEADER_BYTES + reply::field::OUTCOME.start] == reply::code::OPENED {
            let parsed = frame::parse(frame).expect("whole");
            if let Ok(Outcome::Opened { client }) = reply::parse(parsed.payload).map(|reply| reply.outcome) {
                self.client = client;
            }
        }
    }
}

fn request_frame(client: u64, sequence: u64, command: Command<'_>) -> Vec<u8> {
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
        sent_ns: 1,
    };
    frame::emit(&header, &mut bytes);
    bytes
}
