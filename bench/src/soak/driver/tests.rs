//! The model and the real programs on the same frames: the same verdicts, addresses, bytes, counters and state, whether entries are
//! flooded or visit the followers in a chain. `DPLAB_PARITY_FRAMES` says how many frames, where the ordinary number is not enough.

use std::net::SocketAddrV4;

use dataplane_wire::{
    frame::{self, Header, Kind},
    quorum::{
        ack,
        request::{self, Command, Request},
    },
};
use ebpf_host::{
    HostError,
    quorum::{Chain, Count, Grant, NODES_MAX, Session},
};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_pcg::Pcg64Mcg;

use super::{Both, GROUP, PORT, Program, Ran, SESSIONS_MAX, bpf::mac_of, host_address};

/// A few seconds' worth.
const FRAMES_COUNT: u64 = 60_000;
const NODE: u32 = 1;

fn framed(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; frame::HEADER_BYTES], payload].concat();
    frame::emit(header, &mut bytes);
    bytes
}

/// Frames and grants around what the programs expect next.
struct Draw {
    rng: Pcg64Mcg,
    sent: Vec<(SocketAddrV4, Vec<u8>)>,
    given: Grant,
    chain: Option<Chain>,
    sequence: u64,
}

impl Draw {
    fn near(&mut self, number: u64) -> u64 {
        match self.rng.random_range(0..4) {
            0 => (number + self.rng.random_range(0..4)).saturating_sub(2),
            _ => number,
        }
    }

    fn request(&mut self) -> Vec<u8> {
        // Sessions are given requests that come in turn, late, far too late, and from far ahead.
        self.sequence += if self.rng.random_bool(0.05) { 70 } else { 1 };
        let back = *[1, 3, 10, 100].choose(&mut self.rng).expect("four");
        let sequence = match self.rng.random_bool(0.3) {
            true => self.sequence.saturating_sub(self.rng.random_range(0..back)),
            false => self.sequence,
        };
        let client = self.rng.random_range(0..8);
        let value = vec![7; *[0, 1, 7, 8, 9, 100, 700, 1000].choose(&mut self.rng).expect("some")];
        let (key, value) = (&b"key"[..], &value[..]);
        let command = match self.rng.random_range(0..8) {
            0 => Command::Get { key },
            1 => Command::Append { key, value },
            _ => Command::Put { key, value },
        };
        let request = Request {
            client,
            sequence,
            command,
        };
        let mut payload = vec![0; request.len_bytes()];
        request::emit(&request, &mut payload);
        let header = Header {
            kind: Kind::QuorumRequest,
            term: 0,
            slot: sequence,
            sent_ns: self.rng.random(),
        };
        framed(&header, &payload)
    }

    /// Where something comes from: a host, or the leader by way of a chain, as far as to us or not.
    fn from(&mut self) -> SocketAddrV4 {
        let hop = match (self.chain, self.rng.random_range(0..8)) {
            (_, 0) => self.rng.random_range(0..=NODES_MAX as u16 + 1),
            (Some(chain), 1..5) => chain.hop as u16,
            _ => 0,
        };
        let node = match hop != 0 && self.rng.random_bool(0.9) {
            true => self.given.leader,
            false => self.rng.random_range(0..5),
        };
        SocketAddrV4::new(*host_address(node).ip(), PORT + hop)
    }

    fn frame(&mut self, next: u64, commit_end: u64) -> (SocketAddrV4, Vec<u8>) {
        if !self.sent.is_empty() && self.rng.random_bool(0.2) {
            return self.sent.choose(&mut self.rng).expect("not empty").clone();
        }
        let mut from = self.from();
        let mut bytes = match self.rng.random_range(0..4) {
            0 => self.request(),
            1 => {
                let payload = vec![3; self.rng.random_range(0..300)];
                let header = Header {
                    kind: Kind::Append,
                    term: self.near(self.given.term),
                    slot: match self.rng.random_range(0..8) {
                        0 => next + self.rng.random_range(0..70),
                        _ => self.near(next),
                    },
                    sent_ns: self.near(commit_end),
                };
                framed(&header, &payload)
            }
            2 => {
                // A last follower's may speak for others; those of replicas never do.
                let nodes = self.rng.random_range(0..64);
                if self.rng.random_bool(0.9) {
                    from.set_port(PORT);
                }
                let header = Header {
                    kind: Kind::Ack,
                    term: self.near(self.given.term),
                    slot: self.near(self.rng.clone().random_range(commit_end.min(next)..=next)),
                    sent_ns: match self.rng.random_bool(0.3) {
                        true => ack::ASKS | nodes & 1,
                        false if self.chain.is_some() => nodes,
                        false => nodes & 1,
                    },
                };
                framed(&header, &[])
            }
            _ => {
                let kind = *[Kind::Entries, Kind::Report, Kind::QuorumReply]
                    .choose(&mut self.rng)
                    .expect("some");
                let header = Header {
                    kind,
                    term: 3,
                    slot: next,
                    sent_ns: 0,
                };
                framed(&header, &[1; 30])
            }
        };
        if self.rng.random_bool(0.1) {
            let bit = self.rng.random_range(0..bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if self.rng.random_bool(0.02) {
            bytes.truncate(self.rng.random_range(0..bytes.len()));
        }
        self.sent.push((from, bytes.clone()));
        if self.sent.len() > 40 {
            self.sent.remove(0);
        }
        (from, bytes)
    }

    fn grant(&mut self) -> (bool, Vec<Session>) {
        let is_leader = self.rng.random_bool(0.5);
        let is_chain = self.rng.random_bool(0.5);
        let next = self.rng.random_range(3..30);
        let rng = &mut self.rng;
        self.given = Grant {
            next,
            term: rng.random_range(3..6),
            node: NODE,
            leader: if is_leader {
                NODE
            } else {
                *[0, 2].choose(rng).expect("two")
            },
            commit_end: rng.random_range(1..=next),
            append_end: next + rng.random_range(0..60),
            entry_bytes_max: *[200, 1382].choose(rng).expect("two"),
            waits_for_disk: !is_chain && rng.random_bool(0.3),
            term_begin: rng.random_range(0..next),
            in_flight_slots: rng.random_range(1..40),
            voters: rng.random_range(1..32) | 1 << NODE,
            commit_count: rng.random_range(1..4),
            acked_end: std::array::from_fn(|_| rng.random_range(0..=next)),
            places: std::array::from_fn(|node| {
                let address = host_address(node as u32);
                (node < 5).then_some((address, mac_of(&address)))
            }),
            group: Some((GROUP, mac_of(&GROUP))),
            hold_slots: *[0, 1, 63, 64].choose(rng).expect("four"),
            session_window: *[1, 2, 5, 64, 1000].choose(rng).expect("five"),
        };
        self.chain = None;
        if is_chain {
            let place = |node: u32| (host_address(node), mac_of(&host_address(node)));
            let next = rng.random_bool(0.6).then(|| place(rng.random_range(0..5)));
            self.chain = Some(Chain {
                hop: rng.random_range(1..5),
                next,
                nodes: rng.random_range(1..32),
            });
            if is_leader {
                self.given.group = Some(place(0));
            }
        }
        let sessions = (0..u64::from(SESSIONS_MAX)).map(|id| {
            let id = if rng.random_bool(0.8) { id } else { 0 };
            Session::new(id, self.sequence.saturating_sub(rng.random_range(0..4)))
        });
        (is_leader, sessions.collect())
    }
}

#[test]
fn the_model_does_what_the_programs_do() {
    let Some(compared) = compare(true) else {
        return;
    };
    let missing: Vec<&str> = Count::ALL
        .into_iter()
        .filter(|&count| compared.totals[count as usize] == 0 && count != Count::Busy)
        .map(Count::name)
        .collect();
    assert!(missing.is_empty(), "never came to {missing:?}");
    let Paths {
        begun,
        handed_on,
        spoke_for_all,
        left,
        kept_its_port,
    } = compared.paths;
    assert!(
        begun > 0 && handed_on > 0 && spoke_for_all > 0 && left > 0 && kept_its_port > 0,
        "{:?}",
        compared.paths
    );
}

#[test]
fn the_model_counts_as_the_programs_do_where_replicas_append() {
    let Some(compared) = compare(false) else { return };
    let count = |what: Count| compared.totals[what as usize];
    assert!(
        count(Count::Counted) > 0 && count(Count::CommittedUp) > 0,
        "{:?}",
        compared.totals
    );
    assert_eq!(count(Count::Answered), 0, "the answer is the replica's");
}

/// What both made of the frames.
struct Compared {
    totals: [u64; Count::ALL.len()],
    paths: Paths,
}

/// Frames of chains, by what became of them.
#[derive(Clone, Copy, Debug, Default)]
struct Paths {
    /// A leader's program sent them to the first follower.
    begun: u64,
    /// A follower's handed them on.
    handed_on: u64,
    /// A last follower acknowledged them for all.
    spoke_for_all: u64,
    /// They went up as the leader's own.
    left: u64,
    /// They went up as they came, past a leader's program or as something else than an append.
    kept_its_port: u64,
}

impl Paths {
    fn add(&mut self, came_from: SocketAddrV4, ran: &Ran) {
        let local = host_address(NODE);
        let place = match ran {
            Ran::Up(from) if came_from.port() != PORT && from.port() == PORT => &mut self.left,
            Ran::Up(from) if from.port() != PORT => &mut self.kept_its_port,
            Ran::Sent { from, .. } if from.ip() == local.ip() && *from != local => &mut self.begun,
            Ran::Sent { from, .. } if from.ip() != local.ip() => &mut self.handed_on,
            Ran::Sent { bytes, .. } => {
                let header = frame::parse(bytes).expect("a frame").header;
                if header.kind != Kind::Ack || header.sent_ns == 0 {
                    return;
                }
                &mut self.spoke_for_all
            }
            _ => return,
        };
        *place += 1;
    }
}

/// Both on the same frames, compared after each ([`Both`]). A leader's program takes requests if it `appends`; else it is told how far the log
/// goes.
fn compare(appends: bool) -> Option<Compared> {
    let mut both = match Both::of_parts(NODE, SESSIONS_MAX, appends) {
        Ok(both) => both,
        Err(error @ (HostError::NotAllowed { .. } | HostError::NoBpf { .. } | HostError::OldKernel { .. })) => {
            println!("not run: {error}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let frames_count = std::env::var("DPLAB_PARITY_FRAMES").ok();
    let frames_count = frames_count.map_or(FRAMES_COUNT, |count| count.parse().expect("a number of frames"));
    let seed = rand::random();
    println!("frames from seed {seed}");
    let mut leads = false;
    let mut draw = Draw {
        rng: Pcg64Mcg::seed_from_u64(seed),
        sent: Vec::new(),
        given: super::model::NO_GRANT,
        chain: None,
        sequence: 0,
    };
    let mut outcomes = [0u64; 3];
    let mut compared = Compared {
        totals: [0; Count::ALL.len()],
        paths: Paths::default(),
    };
    for index in 0..frames_count {
        if index % 50 == 0 {
            for count in Count::ALL {
                compared.totals[count as usize] += both.counted(count);
            }
            let (is_leader, sessions) = draw.grant();
            leads = is_leader;
            both.grant(is_leader, &draw.given, draw.chain, &sessions);
        }
        match draw.rng.random_range(0..100) {
            0 => {
                both.revoke();
            }
            1 => {
                let end = both.seen().next;
                both.drained(end);
            }
            2 => {
                let end = both.seen().next + draw.rng.random_range(0..20);
                both.limit(end);
            }
            3..20 if leads && !appends => {
                let end = both.seen().next + draw.rng.random_range(0..3);
                both.appended(end);
            }
            _ => {}
        }
        let before = both.seen();
        let (from, bytes) = draw.frame(before.next, before.commit_end);
        let ran = both.run(from, &bytes);
        both.compare_rings();
        compared.paths.add(from, &ran);
        outcomes[match ran {
            Ran::Up(_) => 0,
            Ran::Dropped => 1,
            Ran::Sent { .. } => 2,
        }] += 1;
    }
    both.settle();
    println!("up, dropped, sent: {outcomes:?}; in chains: {:?}", compared.paths);
    Some(compared)
}
