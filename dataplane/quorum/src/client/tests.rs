//! The client against answers written by hand, and against a network that loses, repeats and delays.

use std::collections::{BTreeMap, BTreeSet};

use dataplane_wire::quorum::{
    reply::{self, Outcome, Reply},
    request::{self, Request},
};
use proptest::prelude::*;

use super::*;

/// Nodes 1, 2 and 3 are the port's peers 0, 1 and 2.
const NODES: [(u32, Peer); 3] = [(1, Peer(0)), (2, Peer(1)), (3, Peer(2))];

const PUT: Command<'static> = Command::Put { key: b"k", value: b"v" };
const GET: Command<'static> = Command::Get { key: b"k" };

/// What the client sent, as its receiver reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    to: Peer,
    client: u64,
    sequence: u64,
    command: u8,
    sent_ns: u64,
}

struct Lab {
    client: Client,
    effects: Effects,
    now: Instant,
}

impl Lab {
    fn with(change: impl FnOnce(&mut ClientOptions)) -> Lab {
        let mut options = ClientOptions {
            in_flight_max: 4,
            ..ClientOptions::new(NODES.to_vec(), &crate::Limits::SMALL, 7)
        };
        change(&mut options);
        Lab {
            client: Client::new(options).expect("sound"),
            effects: Effects::with_capacity(64, 64 * 1472),
            now: Instant::from_ns(1),
        }
    }

    fn new() -> Lab {
        Lab::with(|_| ())
    }

    fn ask(&mut self, command: Command<'_>) -> Ticket {
        self.try_ask(command).expect("there is room")
    }

    fn try_ask(&mut self, command: Command<'_>) -> Result<Ticket, AskError> {
        let deadline = self.now + Duration::from_secs(5);
        self.client.ask(&Ask {
            command,
            route: Route::Leader,
            deadline,
        })
    }

    /// Ticks if it is time; what was sent.
    fn turn(&mut self) -> Vec<Sent> {
        if self.client.wake_at().is_some_and(|at| at <= self.now) {
            self.client.handle(self.now, Input::Tick, &mut self.effects);
        }
        let sent = self.effects.sends().map(|(to, bytes)| read(to, bytes)).collect();
        self.effects.clear();
        sent
    }

    fn pass(&mut self, ms: u64) -> Vec<Sent> {
        self.now = self.now + Duration::from_millis(ms);
        self.turn()
    }

    /// Time goes on to the next thing that the client wants to do.
    fn next(&mut self) -> Vec<Sent> {
        for _ in 0..10 {
            self.now = self.client.wake_at().expect("it waits for something").max(self.now);
            let sent = self.turn();
            if !sent.is_empty() {
                return sent;
            }
        }
        panic!("the client wakes and does nothing");
    }

    fn answer(&mut self, to: &Sent, outcome: Outcome<'_>) {
        self.answer_from(to.to, to, outcome);
    }

    fn answer_from(&mut self, from: Peer, to: &Sent, outcome: Outcome<'_>) {
        let reply = Reply {
            client: to.client,
            sequence: to.sequence,
            outcome,
        };
        let mut bytes = vec![0; frame::HEADER_BYTES + reply.len_bytes()];
        reply::emit(&reply, &mut bytes[frame::HEADER_BYTES..]);
        let header = Header {
            kind: Kind::QuorumReply,
            term: 1,
            slot: to.sequence,
            sent_ns: to.sent_ns,
        };
        frame::emit(&header, &mut bytes);
        let input = Input::Frame { from, bytes: &bytes };
        self.client.handle(self.now, input, &mut self.effects);
    }

    /// A put that is sent and not answered, in session 9.
    fn put_under_way(&mut self) -> (Ticket, Sent) {
        let ticket = self.ask(PUT);
        let open = only(self.turn());
        assert_eq!((open.command, open.client), (request::code::OPEN, 0));
        self.answer(&open, Outcome::Opened { client: 9 });
        let put = only(self.turn());
        assert_eq!(
            (put.command, put.client, put.sequence),
            (request::code::PUT, 9, ticket.0)
        );
        (ticket, put)
    }

    fn verdict(&mut self) -> Option<(Ticket, String)> {
        let mut taken = None;
        self.client
            .take(|ticket, verdict| taken = Some((ticket, format!("{verdict:?}"))));
        taken
    }
}

fn read(to: Peer, bytes: &[u8]) -> Sent {
    let frame = frame::parse(bytes).expect("the client emits frames");
    assert_eq!(frame.header.kind, Kind::QuorumRequest);
    let request: Request<'_> = request::parse(frame.payload).expect("and requests");
    Sent {
        to,
        client: request.client,
        sequence: request.sequence,
        command: frame.payload[request::field::COMMAND.start],
        sent_ns: frame.header.sent_ns,
    }
}

fn only(mut sent: Vec<Sent>) -> Sent {
    assert_eq!(sent.len(), 1, "{sent:?}");
    sent.remove(0)
}

#[test]
fn a_session_comes_first_and_the_answer_is_handed_over_once() {
    let mut lab = Lab::new();
    let (ticket, put) = lab.put_under_way();
    lab.answer(&put, Outcome::Done);
    assert_eq!(lab.verdict(), Some((ticket, "Answered(Done)".to_owned())));
    lab.answer(&put, Outcome::Done);
    assert_eq!(lab.verdict(), None);
    assert_eq!(lab.client.counters().late_count, 1);
    // The session stays, and a read needs none.
    lab.ask(PUT);
    assert_eq!(only(lab.turn()).client, 9);
    lab.ask(GET);
    assert_eq!(only(lab.turn()).client, 0);
    assert_eq!(lab.client.counters().sessions_count, 1);
}

#[test]
fn what_is_not_answered_is_asked_again_under_its_number_there_and_then_elsewhere() {
    let mut lab = Lab::new();
    let (_, put) = lab.put_under_way();
    let (second, third, fourth) = (only(lab.next()), only(lab.next()), only(lab.next()));
    for again in [&second, &third, &fourth] {
        assert_eq!((again.client, again.sequence), (put.client, put.sequence));
    }
    assert_eq!([second.to, third.to, fourth.to], [Peer(0), Peer(1), Peer(1)]);
    // The waits double, up to their bound.
    let waits: Vec<u64> = [&put, &second, &third, &fourth]
        .windows(2)
        .map(|pair| pair[1].sent_ns - pair[0].sent_ns)
        .collect();
    assert!(waits[1] == 2 * waits[0] && waits[2] == 4 * waits[0], "{waits:?}");
    let mut last = fourth.sent_ns;
    for _ in 0..6 {
        let again = only(lab.next());
        assert!(again.sent_ns - last <= 400_000_000);
        last = again.sent_ns;
    }
    // A late answer of the first replica is as good as any.
    lab.answer(&put, Outcome::Done);
    assert!(lab.verdict().is_some());
}

#[test]
fn a_hint_is_followed_at_once_and_a_circle_of_hints_is_not_run_in() {
    let mut lab = Lab::new();
    let (_, put) = lab.put_under_way();
    lab.answer(&put, Outcome::NotLeader { leader: Some(3) });
    let mut there = only(lab.turn());
    assert_eq!((there.to, lab.client.leader()), (Peer(2), 3));
    let mut hops = 0;
    loop {
        let leader = Some(if there.to == Peer(2) { 1 } else { 3 });
        lab.answer(&there, Outcome::NotLeader { leader });
        match lab.turn().pop() {
            Some(next) => there = next,
            None => break,
        }
        hops += 1;
        assert!(hops < 10, "it runs in circles");
    }
    assert_eq!(lab.next().len(), 1, "after a pause it goes on");
}

/// Three puts that are sent to the first replica, in session 9.
fn three_under_way(lab: &mut Lab) -> [Sent; 3] {
    let (_, first) = lab.put_under_way();
    lab.ask(PUT);
    lab.ask(PUT);
    let others = lab.turn();
    [vec![first], others].concat().try_into().expect("three")
}

/// Where each of `sent` went and which it is; in the order of their numbers.
fn by_number(mut sent: Vec<Sent>) -> Vec<(Peer, u64)> {
    sent.sort_by_key(|sent| sent.sequence);
    sent.iter().map(|sent| (sent.to, sent.sequence)).collect()
}

#[test]
fn all_that_is_under_way_follows_a_hint_at_once_and_once() {
    let mut lab = Lab::new();
    let puts = three_under_way(&mut lab);
    lab.client
        .ask(&Ask {
            command: GET,
            route: Route::Node(1),
            deadline: lab.now + Duration::from_secs(5),
        })
        .expect("room");
    assert_eq!(only(lab.turn()).to, Peer(0));
    let at = lab.now;
    lab.answer(&puts[1], Outcome::NotLeader { leader: Some(3) });
    let resent = lab.turn();
    let expected: Vec<_> = puts.iter().map(|put| (Peer(2), put.sequence)).collect();
    assert_eq!(
        by_number(resent.clone()),
        expected,
        "what asked for one node stays there"
    );
    assert_eq!(lab.now, at, "no timer was waited for");
    // The others' refusals by the old leader come, too, and say nothing new.
    for put in [&puts[0], &puts[2]] {
        lab.answer(put, Outcome::NotLeader { leader: Some(3) });
    }
    assert_eq!(lab.turn(), []);
    for put in &resent {
        lab.answer(put, Outcome::Done);
    }
    assert_eq!(lab.turn(), []);
    assert_eq!(std::iter::from_fn(|| lab.verdict()).count(), 3);
    assert_eq!(lab.client.counters().timeouts_count, 0);
}

#[test]
fn a_guess_is_asked_one_thing_and_gets_the_rest_when_it_leads() {
    let mut lab = Lab::new();
    let (_, first) = lab.put_under_way();
    // The others begin later, so that their timers do not run out together with the first one's.
    let again = only(lab.next());
    lab.ask(PUT);
    lab.ask(PUT);
    let others = lab.turn();
    assert_eq!(others.len(), 2);
    let guess = loop {
        let sent = lab.next();
        if let Some(guess) = sent.iter().find(|sent| sent.to == Peer(1)) {
            assert_eq!(sent.len(), 1, "the guess is asked one thing: {sent:?}");
            break guess.clone();
        }
    };
    assert_eq!(again.to, first.to);
    assert_eq!(lab.turn(), []);
    lab.answer(&guess, Outcome::Done);
    let resent = lab.turn();
    let rest = [first.sequence, others[0].sequence, others[1].sequence];
    let expected: Vec<_> = rest
        .into_iter()
        .filter(|sequence| *sequence != guess.sequence)
        .map(|sequence| (Peer(1), sequence))
        .collect();
    assert_eq!(by_number(resent), expected);
    assert_eq!(lab.turn(), [], "once");
}

#[test]
fn what_is_under_way_goes_where_the_user_says_the_leader_is() {
    let mut lab = Lab::new();
    let puts = three_under_way(&mut lab);
    lab.client.believe(1);
    assert_eq!(lab.turn(), [], "it is there already");
    lab.client.believe(2);
    let expected: Vec<_> = puts.iter().map(|put| (Peer(1), put.sequence)).collect();
    assert_eq!(by_number(lab.turn()), expected);
    lab.client.believe(2);
    assert_eq!(lab.turn(), []);
}

#[test]
fn replicas_that_point_at_each_other_do_not_make_everything_run_in_circles() {
    let mut lab = Lab::new();
    let mut wires: VecDeque<Sent> = three_under_way(&mut lab).into();
    let mut sent_count = 0;
    while let Some(sent) = wires.pop_front() {
        let leader = Some(if sent.to == Peer(2) { 1 } else { 3 });
        lab.answer(&sent, Outcome::NotLeader { leader });
        let again = lab.turn();
        sent_count += again.len();
        wires.extend(again);
        assert!(
            sent_count <= 3 * NODES.len(),
            "without time passing, once for each replica at most"
        );
    }
    assert_eq!(lab.turn(), []);
    assert!(!lab.next().is_empty(), "after a pause it goes on");
}

#[test]
fn without_a_hint_the_next_one_is_asked_after_a_pause() {
    let mut lab = Lab::new();
    let (_, put) = lab.put_under_way();
    lab.answer(&put, Outcome::NotLeader { leader: None });
    assert_eq!(lab.turn(), []);
    assert_eq!(lab.pass(9), []);
    let next = only(lab.pass(1));
    assert_eq!(next.to, Peer(1));
    // A hint at itself, or at nobody whom we know, is none.
    lab.answer(&next, Outcome::NotLeader { leader: Some(2) });
    assert_eq!(lab.turn(), []);
    let next = only(lab.next());
    lab.answer(&next, Outcome::NotLeader { leader: Some(31) });
    assert_eq!(lab.turn(), []);
    let tried: Vec<u64> = lab.client.tried().map(|(_, tried)| tried.not_leader_count).collect();
    assert_eq!(tried, [1, 1, 1]);
}

#[test]
fn who_is_busy_is_asked_again_later() {
    let mut lab = Lab::new();
    let (ticket, put) = lab.put_under_way();
    lab.answer(&put, Outcome::Busy);
    assert_eq!(lab.turn(), []);
    let again = only(lab.next());
    assert_eq!((again.to, again.sequence), (put.to, ticket.0));
    assert!(again.sent_ns - put.sent_ns >= 10_000_000);
}

#[test]
fn a_deadline_says_whether_it_may_be_done() {
    let verdict_of = |command: Command<'_>, is_sent: bool| {
        let mut lab = Lab::new();
        if is_sent && command == PUT {
            lab.put_under_way();
        } else {
            lab.ask(command);
            lab.turn();
        }
        for _ in 0..100 {
            lab.pass(100);
        }
        lab.verdict().expect("the deadline has come").1
    };
    assert_eq!(verdict_of(PUT, true), "TimedOut { may_be_done: true }");
    assert_eq!(
        verdict_of(PUT, false),
        "TimedOut { may_be_done: false }",
        "no session, so never sent"
    );
    assert_eq!(verdict_of(GET, true), "TimedOut { may_be_done: false }");
}

#[test]
fn a_session_that_is_gone_is_said_and_another_one_opened() {
    let mut lab = Lab::new();
    let (ticket, put) = lab.put_under_way();
    lab.answer(&put, Outcome::Expired);
    assert_eq!(
        lab.verdict(),
        Some((ticket, "Expired { may_be_done: false }".to_owned()))
    );
    lab.ask(PUT);
    let open = only(lab.turn());
    assert_eq!(open.command, request::code::OPEN);
    lab.answer(&open, Outcome::Opened { client: 10 });
    let put = only(lab.turn());
    assert_eq!(put.client, 10);
    // Sent twice: the first copy may have met the session alive.
    lab.next();
    lab.answer(&put, Outcome::Expired);
    assert_eq!(lab.verdict().expect("expired").1, "Expired { may_be_done: true }");
}

#[test]
fn what_is_under_way_is_bounded_in_number_and_in_distance() {
    let mut lab = Lab::with(|options| options.session_replies = 8);
    let (_, oldest) = lab.put_under_way();
    for _ in 0..3 {
        lab.ask(PUT);
    }
    assert!(matches!(lab.try_ask(PUT), Err(AskError::Full { in_flight_max: 4 })));
    let mut asked_count = 4;
    loop {
        for sent in lab.turn().into_iter().filter(|sent| *sent != oldest) {
            lab.answer(&sent, Outcome::Done);
        }
        while lab.verdict().is_some() {}
        match lab.try_ask(PUT) {
            Ok(_) => asked_count += 1,
            Err(_) => break,
        }
        assert!(asked_count < 100, "the oldest is out of the session's memory");
    }
    assert_eq!(asked_count, 8, "the ninth would make the session forget the first");
    lab.answer(&oldest, Outcome::Done);
    while lab.verdict().is_some() {}
    lab.ask(PUT);
}

#[test]
fn patience_follows_what_was_measured() {
    let mut lab = Lab::new();
    let (_, put) = lab.put_under_way();
    lab.answer(&put, Outcome::Done);
    for _ in 0..50 {
        lab.verdict();
        lab.ask(PUT);
        let put = only(lab.turn());
        assert_eq!(lab.pass(1), []);
        lab.answer(&put, Outcome::Done);
    }
    lab.verdict();
    lab.ask(PUT);
    let put = only(lab.turn());
    let wait_ns = only(lab.next()).sent_ns - put.sent_ns;
    assert_eq!(wait_ns, 10_000_000, "1 ms measured: the shortest patience");
}

#[test]
fn strangers_and_nonsense_are_rejected() {
    let mut lab = Lab::new();
    let (_, put) = lab.put_under_way();
    lab.answer_from(Peer(7), &put, Outcome::Done);
    let input = Input::Frame {
        from: Peer(0),
        bytes: b"nonsense",
    };
    lab.client.handle(lab.now, input, &mut lab.effects);
    assert_eq!(lab.effects.rejects().iter().sum::<u64>(), 2);
    let other = Sent {
        client: 8,
        ..put.clone()
    };
    lab.answer(&other, Outcome::Done);
    assert_eq!(lab.verdict(), None);
    lab.answer(&put, Outcome::Done);
    assert!(lab.verdict().is_some());
}

#[test]
fn what_the_cluster_could_not_take_is_refused_at_once() {
    let mut lab = Lab::new();
    let long = vec![b'x'; 1400];
    let too_long = [b'x'; 256];
    let refused = |lab: &mut Lab, command: Command<'_>| lab.try_ask(command).expect_err("refused").to_string();
    assert!(
        refused(
            &mut lab,
            Command::Put {
                key: b"k",
                value: &long
            }
        )
        .contains("1472")
    );
    assert!(refused(&mut lab, Command::Get { key: &too_long }).contains("256 bytes"));
    assert!(refused(&mut lab, Command::Get { key: b"" }).contains("0 bytes"));
    assert!(refused(&mut lab, Command::Open).contains("itself"));
    let deadline = lab.now;
    let nobody = Ask {
        command: Command::StaleGet { key: b"k" },
        route: Route::Node(31),
        deadline,
    };
    assert_eq!(lab.client.ask(&nobody), Err(AskError::NoSuchNode { node: 31 }));
    assert_eq!(lab.turn(), []);
}

#[test]
fn options_that_contradict_are_refused() {
    let refused = |change: fn(&mut ClientOptions)| {
        let mut options = ClientOptions::new(NODES.to_vec(), &crate::Limits::SMALL, 7);
        change(&mut options);
        Client::new(options).expect_err("refused").to_string()
    };
    assert!(refused(|options| options.nodes.clear()).contains("0 nodes"));
    assert!(refused(|options| options.nodes[1].0 = 1).contains("node 1 is named twice"));
    assert!(refused(|options| options.in_flight_max = 1025).contains("1024"));
    assert!(refused(|options| options.timing.retry_min = Duration::from_secs(9)).contains("retry_min"));
}

proptest! {
    /// A network that loses, repeats and delays, and three replicas of which any may be the leader at any time, with a
    /// session's memory in common: every put is done at most once, and exactly once if its answer says so.
    #[test]
    fn a_put_is_done_at_most_once(fates in prop::collection::vec(any::<u8>(), 50..400), seed: u64) {
        let mut lab = Lab::with(|options| options.seed = seed);
        let mut done: BTreeMap<(u64, u64), u32> = BTreeMap::new();
        let mut asked: BTreeSet<Ticket> = BTreeSet::new();
        let mut wires: Vec<Sent> = Vec::new();
        let mut sessions_count = 0;
        let mut answered_count = 0;
        for &fate in &fates {
            if let Ok(ticket) = lab.try_ask(PUT) {
                asked.insert(ticket);
            }
            wires.extend(lab.pass(u64::from(fate % 16)));
            let leader = Peer(u32::from(fate / 80).min(2));
            if !wires.is_empty() {
                let index = usize::from(fate) % wires.len();
                // One in four stays on the wire, and comes again.
                let sent = match fate % 4 { 0 => wires[index].clone(), _ => wires.remove(index) };
                let outcome = if sent.to != leader {
                    Outcome::NotLeader { leader: (fate % 3 > 0).then_some(leader.0 + 1) }
                } else if sent.command == request::code::OPEN {
                    sessions_count += 1;
                    Outcome::Opened { client: sessions_count }
                } else {
                    prop_assert!(sent.client != 0);
                    done.entry((sent.client, sent.sequence)).or_insert(1);
                    Outcome::Done
                };
                // One answer in three is lost.
                if fate % 3 > 0 {
                    lab.answer(&sent, outcome);
                }
            }
            while let Some((ticket, verdict)) = lab.verdict() {
                prop_assert!(asked.remove(&ticket), "a verdict twice");
                // Its number was done in one session alone.
                let times = done.keys().filter(|(_, sequence)| *sequence == ticket.0).count();
                match verdict.as_str() {
                    "Answered(Done)" => prop_assert_eq!(times, 1),
                    "TimedOut { may_be_done: false }" => prop_assert_eq!(times, 0),
                    _ => prop_assert!(times <= 1),
                }
                answered_count += 1;
            }
        }
        for (_, sequence) in done.keys() {
            prop_assert_eq!(done.keys().filter(|(_, other)| other == sequence).count(), 1);
        }
        prop_assert!(asked.len() <= 4);
        prop_assert!(answered_count + asked.len() > 0);
    }
}
