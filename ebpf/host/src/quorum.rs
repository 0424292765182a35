//! The replica's side of the programs `quorum_leader` and `quorum_follower`: gives them the grant, takes it back, and reads
//! what they have written. See `ebpf_abi::quorum` for the rules.

use std::{
    mem::offset_of,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{Map, PerCpuArray};
use dataplane_wire::ethernet::Mac;
pub use ebpf_abi::quorum::{
    Count, ENTRY_BYTES_MAX, HELD_SLOTS_MAX, NODES_MAX, RING_SLOTS, SESSION_WINDOW_MAX, Session,
};
use ebpf_abi::{
    Program, map,
    quorum::{Control, Entry, Place, SESSIONS_MAX, grant},
};

use crate::{HostError, Loaded, error::io_error, sys::SharedWords};

const WORD_BYTES: usize = size_of::<u64>();
const ENTRY_WORDS: usize = size_of::<Entry>() / WORD_BYTES;
const WORDS_OF_SESSION: usize = size_of::<Session>() / WORD_BYTES;

/// How often a busy grant is asked for again before whoever holds it is given the CPU.
const SPINS_MAX: usize = 1 << 10;

/// What a program is told before it may append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The slot of the next entry.
    pub next: u64,
    /// The term.
    pub term: u64,
    /// Nothing is appended here or behind, until [`Shared::limit`] says otherwise.
    pub append_end: u64,
    /// The longest entry to take.
    pub entry_bytes_max: u64,
    /// Our own number.
    pub node: u32,
    /// Follower: whose entries to take.
    pub leader: u32,
    /// Everything before this slot is committed.
    pub commit_end: u64,
    /// Nothing may be acknowledged before the replica's disk has it: the program appends and passes up.
    pub waits_for_disk: bool,
    /// Leader: the first slot of its term.
    pub term_begin: u64,
    /// Leader: the most slots that may be appended and not committed.
    pub in_flight_slots: u64,
    /// Leader: who votes, as bits.
    pub voters: u32,
    /// Leader: how many of them must have an entry.
    pub commit_count: u32,
    /// Leader: by node, everything before is safe there; its own too.
    pub acked_end: [u64; NODES_MAX],
    /// By node: where it is.
    pub places: [Option<(SocketAddrV4, Mac)>; NODES_MAX],
    /// Leader: what reaches every follower.
    pub group: Option<(SocketAddrV4, Mac)>,
    /// Follower: see [`Control::hold_slots`]; what is more than [`HELD_SLOTS_MAX`] is not. A program that waits for a disk holds
    /// nothing: its replica must see every entry.
    pub hold_slots: u64,
    /// Leader: see [`Control::session_window`]; what is more than [`SESSION_WINDOW_MAX`] is not.
    pub session_window: u64,
}

/// How entries visit the followers one after another in one frame, where the network carries no frame to all of them. Nothing is
/// acknowledged then before all of them have it. Not for programs that wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The how-manieth follower this is, from 1. The leader's [`Grant::group`] is the first one, and its own hop 1.
    pub hop: u64,
    /// The follower behind it.
    pub next: Option<(SocketAddrV4, Mac)>,
    /// The followers up to this one and itself, as bits.
    pub nodes: u32,
}

/// What a program has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whose grant it has; 0 for none.
    pub generation: u16,
    /// The slot of the next entry, while there is a grant.
    pub next: u64,
    /// See [`Control::commit_end`].
    pub commit_end: u64,
    /// See [`Control::heard_count`].
    pub heard_count: u64,
    /// See [`Control::acked_end`].
    pub acked_end: [u64; NODES_MAX],
    /// See [`Control::acked_count`].
    pub acked_count: [u64; NODES_MAX],
}

/// An entry, copied out of the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its term.
    pub term: u64,
    /// CRC-32C of the payload, which the program has checked.
    pub crc: u32,
    /// The request's own word.
    pub sent_ns: u64,
    /// Leader: where the client is.
    pub from: Option<SocketAddrV4>,
    /// Leader: the program has answered the client.
    pub answered: bool,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// The memory that a program of the quorum and its replica share.
#[derive(Debug)]
pub struct Shared {
    control: SharedWords,
    ring: SharedWords,
    /// The leader's.
    sessions: Option<SharedWords>,
    counts: Map,
    generation: u16,
}

impl Loaded {
    /// Maps what a program of the quorum shares. Once.
    ///
    /// # Errors
    /// [`HostError::Object`] for another program, or the second time; what mmap(2) says.
    pub fn share(&mut self) -> Result<Shared, HostError> {
        let program = self.program();
        let sessions = match program {
            Program::QuorumLeader => Some(self.words(map::SESSIONS, SESSIONS_MAX as usize * WORDS_OF_SESSION)?),
            _ => None,
        };
        let control = self.words(map::CONTROL, size_of::<Control>() / WORD_BYTES)?;
        let ring = self.words(map::RING, RING_SLOTS as usize * ENTRY_WORDS)?;
        let counts = self.take_map(map::QUORUM_COUNTS)?;
        Ok(Shared {
            control,
            ring,
            sessions,
            counts,
            generation: 0,
        })
    }

    fn words(&mut self, name: &'static str, words_count: usize) -> Result<SharedWords, HostError> {
        let Map::Array(map) = self.take_map(name)? else {
            return Err(HostError::Object {
                program: self.program(),
                why: format!("its map {name} is no array"),
            });
        };
        SharedWords::map(map.fd().as_fd(), words_count)
            .map_err(|error| HostError::kernel(format!("mapping {name} of {}", self.program().name()), error))
    }
}

/// Where a field of a record stands in it, in words.
macro_rules! word {
    ($record:ty, $field:ident) => {
        offset_of!($record, $field) / WORD_BYTES
    };
}

impl Shared {
    /// Lets the program append, acknowledge and count from now on; says the grant's generation. The grant that it has, if any,
    /// is taken back first.
    pub fn grant(&mut self, given: &Grant) -> u16 {
        self.revoke();
        let set = |word: usize, value: u64| self.control[word].store(value, Ordering::Relaxed);
        set(word!(Control, commit_end), given.commit_end);
        set(word!(Control, term), given.term);
        set(word!(Control, append_end), given.append_end);
        set(word!(Control, entry_bytes_max), given.entry_bytes_max);
        set(word!(Control, waits_for_disk), u64::from(given.waits_for_disk));
        set(word!(Control, term_begin), given.term_begin);
        set(word!(Control, in_flight_slots), given.in_flight_slots);
        set(word!(Control, voters), u64::from(given.voters));
        set(word!(Control, commit_count), u64::from(given.commit_count));
        set(word!(Control, node), u64::from(given.node));
        set(word!(Control, leader), u64::from(given.leader));
        for node in 0..NODES_MAX {
            set(word!(Control, acked_end) + node, given.acked_end[node]);
            put_place(&self.control[word!(Control, places) + 2 * node..], given.places[node]);
        }
        put_place(&self.control[word!(Control, group)..], given.group);
        let hold_slots = if given.waits_for_disk { 0 } else { given.hold_slots };
        set(word!(Control, hold_slots), hold_slots.min(HELD_SLOTS_MAX));
        set(word!(Control, held), 0);
        set(
            word!(Control, session_window),
            given.session_window.min(SESSION_WINDOW_MAX),
        );
        // What is in the ring was drained when the last grant was taken back; what comes begins here.
        set(word!(Control, drained_end), given.next);
        // Old frames are told by their term, and a program that still held the first generation's word would have held it for
        // 65,535 grants.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let word = grant::new(self.generation, given.next);
        self.control[word!(Control, grant)].store(word, Ordering::SeqCst);
        self.generation
    }

    /// Tells the program its place in a chain, or that there is none, as in the beginning. While it has no grant.
    pub fn set_chain(&mut self, chain: Option<Chain>) {
        let set = |word: usize, value: u64| self.control[word].store(value, Ordering::Relaxed);
        set(word!(Control, chain_hop), chain.map_or(0, |chain| chain.hop));
        set(
            word!(Control, chain_nodes),
            chain.map_or(0, |chain| u64::from(chain.nodes)),
        );
        let next = chain.and_then(|chain| chain.next);
        put_place(&self.control[word!(Control, chain_next)..], next);
    }

    /// Takes the grant back: from now on the program passes everything up. Says the slot behind the last entry that it
    /// appended, or nothing if there was no grant.
    pub fn revoke(&mut self) -> Option<u64> {
        let word = &self.control[word!(Control, grant)];
        let mut spins_count = 0;
        loop {
            let found = word.load(Ordering::SeqCst);
            if grant::generation(found) == 0 {
                return None;
            }
            let free = found & !grant::BUSY;
            if word
                .compare_exchange(free, 0, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
            {
                return Some(grant::next(free));
            }
            // It is at work on another CPU, and is never stopped half way.
            spins_count += 1;
            match spins_count < SPINS_MAX {
                true => std::hint::spin_loop(),
                false => std::thread::yield_now(),
            }
        }
    }

    /// Leader, whose program counts alone: the replica has appended everything before `end` itself, and keeps it itself; its own
    /// acknowledgement is among those counted, unless the disk's word is waited for. Nothing happens without a grant.
    pub fn appended(&mut self, end: u64) {
        let word = &self.control[word!(Control, grant)];
        loop {
            let found = word.load(Ordering::SeqCst);
            if grant::generation(found) == 0 {
                return;
            }
            let free = found & !grant::BUSY;
            let longer = (free & !grant::NEXT_MASK) | (end & grant::NEXT_MASK);
            // Not while a program has it: it would put its own end back.
            if word
                .compare_exchange(free, longer, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
            {
                break;
            }
            std::thread::yield_now();
        }
        // Nobody else writes this word under a grant of a program that counts alone; what it says is in the log by now.
        let get = |word: usize| self.control[word].load(Ordering::Relaxed);
        if get(word!(Control, waits_for_disk)) == 0 {
            let node = get(word!(Control, node)) as usize % NODES_MAX;
            self.control[word!(Control, acked_end) + node].store(end, Ordering::Release);
        }
    }

    /// What the program has done so far.
    pub fn seen(&self) -> Seen {
        let get = |word: usize| self.control[word].load(Ordering::Acquire);
        // The commit end first: everything before it is in the ring by then, and so is its answer.
        let commit_end = get(word!(Control, commit_end));
        let word = self.control[word!(Control, grant)].load(Ordering::SeqCst);
        Seen {
            generation: grant::generation(word),
            next: grant::next(word),
            commit_end,
            heard_count: get(word!(Control, heard_count)),
            acked_end: std::array::from_fn(|node| get(word!(Control, acked_end) + node)),
            acked_count: std::array::from_fn(|node| get(word!(Control, acked_count) + node)),
        }
    }

    /// Copies the entry in `slot` to `kept`; says no if the ring does not have it. It has every slot from the last
    /// [`Shared::drained`] to [`Seen::next`].
    pub fn entry(&self, slot: u64, kept: &mut Kept) -> bool {
        let at = (slot % u64::from(RING_SLOTS)) as usize * ENTRY_WORDS;
        let words = &self.ring[at..at + ENTRY_WORDS];
        let get = |word: usize| words[word].load(Ordering::Relaxed);
        let len_bytes = get(word!(Entry, len_bytes)) as usize;
        if words[word!(Entry, slot)].load(Ordering::Acquire) != slot || len_bytes > ENTRY_BYTES_MAX {
            return false;
        }
        kept.term = get(word!(Entry, term));
        kept.crc = get(word!(Entry, crc)) as u32;
        kept.sent_ns = get(word!(Entry, sent_ns));
        kept.from = place(&words[word!(Entry, from)..]);
        kept.answered = get(word!(Entry, answered)) != 0;
        kept.bytes.clear();
        for word in &words[word!(Entry, bytes)..][..len_bytes.div_ceil(WORD_BYTES)] {
            kept.bytes
                .extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        kept.bytes.truncate(len_bytes);
        true
    }

    /// Every slot before `end` is out of the ring: the program may use its place again.
    pub fn drained(&mut self, end: u64) {
        self.control[word!(Control, drained_end)].store(end, Ordering::Release);
    }

    /// Forgets every entry in the ring, for a program that goes over to another cluster's log: there the same slot of the same
    /// term is another entry. While it has no grant.
    pub fn forget_entries(&mut self) {
        for index in 0..RING_SLOTS as usize {
            let slot = &self.ring[index * ENTRY_WORDS + word!(Entry, slot)];
            slot.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// The program may append before `end`, and not behind: as much as the replica's own log has room for.
    pub fn limit(&mut self, end: u64) {
        self.control[word!(Control, append_end)].store(end, Ordering::Release);
    }

    /// Leader: tells the program which sessions there are, by place, and which request of each is the newest that has a slot.
    /// While it has no grant.
    ///
    /// # Panics
    /// Over a follower's program, or with more sessions than it has places for: both are mistakes of the caller's.
    pub fn set_sessions(&mut self, sessions: &[Session]) {
        let words = self.sessions.as_ref().expect("only a leader's program knows sessions");
        assert!(sessions.len() <= SESSIONS_MAX as usize, "{} sessions", sessions.len());
        for place in 0..SESSIONS_MAX as usize {
            let words = &words[place * WORDS_OF_SESSION..][..WORDS_OF_SESSION];
            let set = |word: usize, value: u64| words[word].store(value, Ordering::Relaxed);
            let session = sessions.get(place).copied().unwrap_or_default();
            set(word!(Session, id), session.id);
            if session.id == 0 {
                // Nobody looks at the rest.
                continue;
            }
            set(word!(Session, sequence), session.sequence);
            set(word!(Session, floor), session.floor);
            set(word!(Session, last), session.last);
            set(word!(Session, end), session.end);
            for (index, given) in session.given.into_iter().enumerate() {
                set(word!(Session, given) + index, given);
            }
        }
    }

    /// What the program counted of `what` since it was loaded, summed over CPUs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn count(&self, what: Count) -> Result<u64, HostError> {
        let reading = |error| HostError::kernel("reading a counter of the quorum".into(), io_error(&error));
        let counts = PerCpuArray::<_, u64>::try_from(&self.counts).map_err(reading)?;
        let values = counts.get(&(what as u32), 0).map_err(reading)?;
        Ok(values.iter().sum())
    }
}

fn put_place(words: &[AtomicU64], place: Option<(SocketAddrV4, Mac)>) {
    let place = place.map_or(Place::default(), |(address, mac)| {
        Place::new(address.ip().octets(), address.port(), mac.0)
    });
    words[word!(Place, address)].store(place.address, Ordering::Relaxed);
    words[word!(Place, mac)].store(place.mac, Ordering::Relaxed);
}

/// The address of a place; nothing for none.
fn place(words: &[AtomicU64]) -> Option<SocketAddrV4> {
    let place = Place {
        address: words[word!(Place, address)].load(Ordering::Relaxed),
        mac: 0,
    };
    let (ipv4, port) = place.ipv4_and_port()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(ipv4), port))
}
