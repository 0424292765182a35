//! The hand-over between a replica and programs that are stand-ins.

use dataplane_waist::{Kept, MemoryLog, Peer, SurePuts};
use dataplane_wire::{
    Reject,
    checksum::crc32c,
    quorum::{
        entries::EntriesWriter,
        reply::Outcome,
        request::{Command, Request},
        sender::Sender,
    },
};

use super::*;
use crate::{Config, Limits, ReadMode, Timing, majorities};

/// It does everything, or as many puts as it says.
struct Nothing {
    sure: SurePuts,
}

const DOES_ALL: Nothing = Nothing {
    sure: SurePuts {
        count: u64::MAX,
        value_bytes_max: 1 << 20,
    },
};

impl StateMachine for Nothing {
    fn sure_puts(&self, _: usize) -> SurePuts {
        self.sure
    }

    fn apply(&mut self, _: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>)) {
        answer(Outcome::Done);
    }
    fn read(&self, _: &Command<'_>, answer: &mut dyn FnMut(Outcome<'_>)) {
        answer(Outcome::Done);
    }
    fn save(&self, _: &mut Vec<u8>) {}
    fn load(&mut self, _: &[u8]) -> Result<(), Reject> {
        Ok(())
    }
}

/// Appends one entry at the last moment: after the replica has looked, and before it takes the grant back.
struct Late {
    end: Slot,
    bytes: Vec<u8>,
}

impl Driver for Late {
    fn grant(&mut self, grant: &Grant<'_>) -> bool {
        self.end = grant.next;
        true
    }
    fn revoke(&mut self) {
        self.end.0 += 1;
    }
    fn seen(&mut self) -> Seen {
        Seen {
            end: self.end,
            commit_end: Slot(0),
            acked_end: [Slot(0); NODES_MAX],
            heard: [0; NODES_MAX],
        }
    }
    fn entry(&mut self, slot: Slot) -> Option<Taken<'_>> {
        (slot < self.end).then(|| Taken {
            bytes: &self.bytes,
            crc: crc32c(&self.bytes),
            sent_ns: 5,
            answered: false,
        })
    }
    fn drained(&mut self, _: Slot) {}
    fn limit(&mut self, _: Slot) {}
}

/// Counts alone, and remembers how far it was told that the log goes.
#[derive(Default)]
struct Counting {
    told: Vec<Slot>,
    end: Slot,
}

impl Driver for Counting {
    fn grant(&mut self, grant: &Grant<'_>) -> bool {
        self.end = grant.next;
        true
    }
    fn revoke(&mut self) {}
    fn seen(&mut self) -> Seen {
        Seen {
            end: self.end,
            commit_end: Slot(0),
            acked_end: [Slot(0); NODES_MAX],
            heard: [0; NODES_MAX],
        }
    }
    fn entry(&mut self, _: Slot) -> Option<Taken<'_>> {
        None
    }
    fn drained(&mut self, _: Slot) {}
    fn limit(&mut self, _: Slot) {}
    fn appends(&self) -> bool {
        false
    }
    fn appended(&mut self, end: Slot) {
        self.end = end;
        self.told.push(end);
    }
}

/// Takes no grant.
struct Idle;

impl Driver for Idle {
    fn grant(&mut self, _: &Grant<'_>) -> bool {
        panic!("it is not asked")
    }
    fn takes_grants(&self, _: bool) -> bool {
        false
    }
    fn revoke(&mut self) {}
    fn seen(&mut self) -> Seen {
        panic!("it has done nothing")
    }
    fn entry(&mut self, _: Slot) -> Option<Taken<'_>> {
        None
    }
    fn drained(&mut self, _: Slot) {}
    fn limit(&mut self, _: Slot) {}
}

#[test]
fn a_replica_whose_program_takes_no_grant_wakes_when_it_would_without_one() {
    let replica = || Replica::recover(config(), DOES_ALL, &mut MemoryLog::new()).expect("an empty log");
    let now = Instant::from_ns(1_000_000);
    let mut alone = replica();
    let mut out = alone.effects(32);
    alone.handle(now, Input::Tick, &mut out);
    let mut idle = Driven::new(replica(), Idle);
    idle.handle(now, Input::Tick, &mut out);
    assert!(alone.wake_at().is_some_and(|at| at > now + LOOK_EVERY));
    assert_eq!(idle.wake_at(), alone.wake_at());
    // Nor does one that may get a grant and has none, unless something was heard: then the end of the burst may bring it.
    let mut counting = Driven::new(replica(), Counting::default());
    counting.handle(now, Input::Tick, &mut out);
    assert!(counting.wake_at().is_some_and(|at| at > now + LOOK_EVERY));
    let frame = Input::Frame {
        from: Peer(0),
        bytes: b"noise",
    };
    counting.handle(now, frame, &mut out);
    assert_eq!(counting.wake_at(), Some(Instant::ZERO));
    counting.handle(now, Input::Tick, &mut out);
    assert!(counting.wake_at().is_some_and(|at| at > now + LOOK_EVERY));
}

/// Appends what it is given, and commits what it is told.
#[derive(Default)]
struct Taking {
    entries: Vec<Vec<u8>>,
    begin: Slot,
    commit_end: Slot,
    /// Of the last grant.
    sessions: Vec<u64>,
    append_end: Slot,
    entry_bytes_max: usize,
    /// It commits without an answer, as when several are committed at once.
    is_silent: bool,
}

impl Driver for Taking {
    fn grant(&mut self, grant: &Grant<'_>) -> bool {
        self.begin = grant.next;
        self.commit_end = grant.commit_end;
        self.entries.clear();
        (self.append_end, self.entry_bytes_max) = (grant.append_end, grant.entry_bytes_max);
        if let Part::Leader { sessions, .. } = grant.part {
            self.sessions = sessions.iter().map(|&(id, _)| id).collect();
        }
        true
    }
    fn revoke(&mut self) {}
    fn seen(&mut self) -> Seen {
        let end = Slot(self.begin.0 + self.entries.len() as u64);
        Seen {
            end,
            commit_end: self.commit_end,
            acked_end: [self.commit_end; NODES_MAX],
            heard: [0; NODES_MAX],
        }
    }
    fn entry(&mut self, slot: Slot) -> Option<Taken<'_>> {
        let index = slot.0.checked_sub(self.begin.0)?;
        self.entries.get(index as usize).map(|bytes| Taken {
            bytes,
            crc: crc32c(bytes),
            sent_ns: 5,
            answered: !self.is_silent,
        })
    }
    fn drained(&mut self, _: Slot) {}
    fn limit(&mut self, end: Slot) {
        self.append_end = end;
    }
}

#[test]
fn a_request_that_comes_again_leaves_the_grant_alone_under_way_and_when_it_was_applied() {
    let mut replica = leading();
    let mut out = replica.effects(32);
    let now = Instant::from_ns(1_000_000);
    let client = replica.sessions.open(Slot(1));
    let mut driven = Driven::new(replica, Taking::default());
    driven.handle(now, Input::Tick, &mut out);
    assert!(driven.has_grant());
    let put = |sequence| Request {
        client,
        sequence,
        command: Command::Put {
            key: b"key",
            value: b"value",
        },
    };
    let from = Peer(7);
    let bytes = framed(&put(1));
    driven.driver_mut().entries.push(bytes[frame::HEADER_BYTES..].to_vec());
    let end = Slot(driven.driver().begin.0 + 1);

    out.clear();
    driven.handle(now, Input::Frame { from, bytes: &bytes }, &mut out);
    assert!(driven.has_grant(), "under way");
    assert_eq!((driven.replica().window.end(), out.sends().count()), (end, 0));

    driven.driver_mut().commit_end = end;
    driven.handle(now, Input::Frame { from, bytes: &bytes }, &mut out);
    assert!(driven.has_grant(), "applied");
    let answers: Vec<_> = out.sends().filter(|(to, _)| *to == from).collect();
    assert_eq!(answers.len(), 1, "answered again");
    assert_eq!(driven.replica().window.end(), end, "and in the log once");

    // One that is new to the replica is appended by it, and by nobody else.
    let bytes = framed(&put(2));
    driven.handle(now, Input::Frame { from, bytes: &bytes }, &mut out);
    assert!(!driven.has_grant());
    assert_eq!(driven.wake_at(), Some(Instant::ZERO), "the next grant does not wait");
}

#[test]
fn a_session_is_the_programs_once_its_client_was_heard_and_whom_it_does_not_answer_the_replica_does() {
    let mut replica = leading();
    let mut out = replica.effects(32);
    let now = Instant::from_ns(1_000_000);
    let client = replica.sessions.open(Slot(1));
    let silent = replica.sessions.open(Slot(2));
    let taking = Taking {
        is_silent: true,
        ..Taking::default()
    };
    let mut driven = Driven::new(replica, taking);
    driven.handle(now, Input::Tick, &mut out);
    assert!(
        driven.has_grant() && driven.driver().sessions.is_empty(),
        "nobody was heard"
    );

    let put = |sequence| Request {
        client,
        sequence,
        command: Command::Put {
            key: b"key",
            value: b"value",
        },
    };
    let from = Peer(7);
    let bytes = framed(&put(1));
    driven.handle(now, Input::Frame { from, bytes: &bytes }, &mut out);
    assert!(
        !driven.has_grant(),
        "the program passed it up, and the replica appends it"
    );
    driven.handle(now, Input::Tick, &mut out);
    assert!(
        driven.has_grant() && driven.driver().sessions == [client],
        "not {silent}"
    );

    let bytes = framed(&put(2));
    let driver = driven.driver_mut();
    driver.entries.push(bytes[frame::HEADER_BYTES..].to_vec());
    driver.commit_end = Slot(driver.begin.0 + 1);
    out.clear();
    driven.handle(now, Input::Tick, &mut out);
    let answers: Vec<_> = out.sends().filter(|(to, _)| *to == from).collect();
    let of_program = answers.iter().filter(|(_, bytes)| {
        let header = frame::parse(bytes).expect("a frame").header;
        (header.kind, header.slot, header.sent_ns) == (Kind::QuorumReply, 2, 5)
    });
    assert_eq!(of_program.count(), 1, "{answers:?}");
}

#[test]
fn a_program_answers_no_more_puts_than_the_state_machine_surely_does() {
    let mut replica = leading();
    let mut out = replica.effects(32);
    let now = Instant::from_ns(1_000_000);
    let applied_end = replica.applied_end;
    assert_eq!(applied_end, replica.window.end());
    replica.machine.sure = SurePuts {
        count: 3,
        value_bytes_max: 40,
    };
    let mut driven = Driven::new(replica, Taking::default());
    driven.handle(now, Input::Tick, &mut out);
    assert!(driven.has_grant());
    assert_eq!(driven.driver().append_end, Slot(applied_end.0 + 3));
    assert_eq!(driven.driver().entry_bytes_max, request::HEADER_BYTES + 1 + 40);
    // As it fills up, the bound stays where it is; and a full one gets no grant.
    driven.replica.machine.sure.count = 0;
    driven.handle(now, Input::Tick, &mut out);
    assert_eq!(driven.driver().append_end, applied_end);
    assert!(driven.take_back(now, &mut out));
    driven.handle(now, Input::Tick, &mut out);
    assert!(!driven.has_grant());
}

/// A leader that has committed an entry of its term.
fn leading() -> Replica<Nothing> {
    let mut replica = Replica::recover(config(), DOES_ALL, &mut MemoryLog::new()).expect("an empty log");
    let mut out = replica.effects(32);
    let now = Instant::from_ns(1_000_000);
    replica.lead(now, &mut out);
    replica.durable_end = replica.window.end();
    replica.leader_durable(now, &mut out);
    replica.acked(now, 1, replica.window.end(), &mut out);
    replica
}

#[test]
fn a_follower_that_asks_for_an_entry_is_sent_that_one_by_itself() {
    let mut replica = leading();
    let mut out = replica.effects(32);
    let now = Instant::from_ns(2_000_000);
    for node in [1, 2] {
        let Role::Leader(leader) = &mut replica.role else {
            panic!("it leads")
        };
        leader.follower(node).expect("it follows").mode = crate::replicate::Mode::Streaming;
    }
    let begin = replica.window.end();
    for value in [b"one", b"two"] {
        assert!(replica.append_own(value, &mut out));
    }
    replica.acked(now, 1, begin, &mut out);
    replica.leader_tick(now, &mut out);
    out.clear();
    let ack = |echo| {
        let mut bytes = vec![0; frame::HEADER_BYTES];
        let ack = dataplane_wire::quorum::ack::Ack {
            term: replica.term().0,
            end: begin.0,
            echo,
        };
        ack.emit(&mut bytes);
        bytes
    };
    let (plain, asking) = (ack(0), ack(dataplane_wire::quorum::ack::ASKS));
    let from = Peer(0);
    replica.handle(now, Input::Frame { from, bytes: &plain }, &mut out);
    assert_eq!(out.sends().count(), 0, "nothing was asked for");
    replica.handle(now, Input::Frame { from, bytes: &asking }, &mut out);
    let sent: Vec<_> = out.sends().map(|(to, bytes)| (to, bytes.to_vec())).collect();
    assert_eq!(sent.len(), 1);
    let parsed = frame::parse(&sent[0].1).expect("a frame");
    assert_eq!(
        (sent[0].0, parsed.header.kind, parsed.header.slot),
        (from, Kind::Append, begin.0)
    );
    assert_eq!(parsed.payload, b"one");
    // Once for a while, however often it is asked for.
    replica.handle(now, Input::Frame { from, bytes: &asking }, &mut out);
    assert_eq!(out.sends().count(), 1);
}

fn framed(request: &Request<'_>) -> Vec<u8> {
    let mut bytes = vec![0; frame::HEADER_BYTES + request.len_bytes()];
    request::emit(request, &mut bytes[frame::HEADER_BYTES..]);
    let header = frame::Header {
        kind: Kind::QuorumRequest,
        term: 0,
        slot: request.sequence,
        sent_ns: 0,
    };
    frame::emit(&header, &mut bytes);
    bytes
}

#[test]
fn a_program_that_counts_alone_keeps_its_grant_while_the_replica_appends() {
    let replica = leading();
    let mut out = replica.effects(32);
    let now = Instant::from_ns(1_000_000);
    let begin = replica.window.end();
    let mut driven = Driven::new(replica, Counting::default());
    driven.handle(now, Input::Tick, &mut out);
    assert!(driven.has_grant());

    let open = Request {
        client: 0,
        sequence: 1,
        command: Command::Open,
    };
    let from = Peer(7);
    let bytes = framed(&open);
    driven.handle(now, Input::Frame { from, bytes: &bytes }, &mut out);
    let end = Slot(begin.0 + 1);
    assert_eq!(driven.replica().window().end(), end);
    assert!(driven.has_grant() && driven.is_whole());
    assert_eq!(driven.driver().told, [end]);

    // Who votes is what it counts by.
    let members = majorities(0b11);
    let change = Request {
        client: 1024,
        sequence: 2,
        command: Command::Reconfigure { members },
    };
    let bytes = framed(&change);
    driven.handle(now, Input::Frame { from, bytes: &bytes }, &mut out);
    assert!(!driven.has_grant());
}

fn config() -> Config {
    Config {
        cluster: 1,
        node: 0,
        peers: vec![(1, Peer(0)), (2, Peer(1))],
        members: majorities(0b111),
        reads: ReadMode::Index,
        timing: Timing::LOCAL,
        limits: Limits::SMALL,
        seed: 1,
        mutation: None,
    }
}

#[test]
fn what_was_appended_between_the_last_look_and_the_revocation_is_in_the_log() {
    let mut replica = Replica::recover(config(), DOES_ALL, &mut MemoryLog::new()).expect("an empty log");
    let mut out = replica.effects(32);
    let now = Instant::from_ns(1_000_000);
    replica.handle(now, Input::Tick, &mut out);
    let Role::Follower(follower) = &mut replica.role else {
        panic!("nobody has stood yet")
    };
    follower.leader = Some(1);
    follower.fast.synced = true;
    let request = Request {
        client: 1024,
        sequence: 1,
        command: Command::Put {
            key: b"key",
            value: b"value",
        },
    };
    let mut bytes = vec![0; request.len_bytes()];
    request::emit(&request, &mut bytes);
    let mut driven = Driven::new(replica, Late { end: Slot(0), bytes });
    driven.handle(now, Input::Tick, &mut out);
    assert!(driven.has_grant());
    assert!(driven.take_back(now, &mut out));
    assert_eq!(
        (driven.replica().window().end(), driven.counters().entries_count),
        (Slot(1), 1)
    );
    // What is cut from the log later is not missing.
    driven.replica.window.truncate(Slot(0));
    assert!(driven.is_whole());
}

/// A leader repeats itself when acknowledgements are late, and what it repeats comes while the program has the grant.
#[test]
fn entries_that_the_log_has_leave_a_followers_grant_alone_and_new_ones_do_not() {
    let mut replica = Replica::recover(config(), DOES_ALL, &mut MemoryLog::new()).expect("an empty log");
    let mut out = replica.effects(32);
    let now = Instant::from_ns(1_000_000);
    replica.handle(now, Input::Tick, &mut out);
    let sent = |begin: u64, entries: &[&[u8]]| {
        let mut buffer = [0; 256];
        let mut writer = EntriesWriter::new(&mut buffer);
        for entry in entries {
            writer.push(3, entry).expect("there is room");
        }
        let entries = Entries {
            term: 3,
            slot: begin,
            commit_end: 0,
            sender: Sender { cluster: 1, node: 1 },
            prev_term: if begin == 0 { 0 } else { 3 },
            leader_end: 3,
            round: 1,
            list: writer.finish(),
        };
        let mut bytes = vec![0; frame::HEADER_BYTES + entries.payload_bytes()];
        entries.emit(&mut bytes);
        bytes
    };
    let mut driven = Driven::new(replica, Taking::default());
    let (mut log, mut kept) = (MemoryLog::new(), Kept::default());
    // Says whether the program had the grant yet when the frame had been taken in.
    let mut hear = |driven: &mut Driven<_, Taking>, bytes: &[u8]| {
        let from = Peer(0);
        driven.handle(now, Input::Frame { from, bytes }, &mut out);
        let had_grant = driven.has_grant();
        driven.handle(now, Input::Tick, &mut out);
        kept.write(&mut out, &mut log).expect("memory");
        if let Some(durable) = kept.news(&mut log).expect("memory") {
            driven.handle(now, Input::Durable(durable), &mut out);
            driven.handle(now, Input::Tick, &mut out);
        }
        out.clear();
        had_grant
    };
    hear(&mut driven, &sent(0, &[b"one", b"two"]));
    assert_eq!(driven.replica().window().end(), Slot(2));
    assert!(driven.has_grant(), "it has everything");
    for again in [sent(0, &[b"one", b"two"]), sent(1, &[b"two"]), sent(2, &[])] {
        assert!(hear(&mut driven, &again), "nothing is new in it");
    }
    assert_eq!(driven.replica().window().end(), Slot(2));
    assert!(!hear(&mut driven, &sent(1, &[b"two", b"three"])), "the third is new");
    assert_eq!(driven.replica().window().end(), Slot(3));
    assert!(driven.has_grant());
}
