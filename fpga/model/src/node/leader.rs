//! `quorum_leader`, with `quorum_votes` inside.

use super::{
    ComparePipe, Inputs, Node, Outputs, Shape,
    emit::{self, Emit, Ends, Fate, Says},
    parser::{Local, Parser},
};
use crate::registers;

const KIND_REQUEST: u8 = 3;
const KIND_REPLY: u8 = 4;
const KIND_APPEND: u8 = 5;
const KIND_ACK: u8 = 6;
/// In an acknowledgement: please send again.
const ASKS: u64 = 1 << 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Select,
    Entry(u8),
    Ask(u8),
    Head(u8),
    Go,
}

/// An entry in flight: who asked, and which slot it is.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    end: u64,
    term: u64,
    client: u64,
    sequence: u64,
    sent_ns: u64,
    mac: u64,
    place: u64,
}

/// What nodes have. The RTL keeps a matrix of comparisons instead of sorting; the numbers say the same.
#[derive(Clone, Debug)]
struct Votes {
    acked: Vec<u64>,
    floor: u64,
    /// The last acknowledgement moved its node.
    is_news: bool,
}

impl Votes {
    /// The new commit end, if there is one.
    fn commit(&self, voters: u64, commit_count: u8) -> Option<u64> {
        let voting = |node: &usize| voters >> node & 1 == 1;
        let mut ends: Vec<u64> = (0..self.acked.len())
            .filter(voting)
            .map(|node| self.acked[node])
            .collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let end = *ends.get(usize::from(commit_count).checked_sub(1)?)?;
        (self.is_news && end > self.floor).then_some(end)
    }
}

/// The frame that is decided.
#[derive(Clone, Copy, Debug, Default)]
struct Current {
    ends: Ends,
    beats: u64,
    asks: bool,
    is_behind: bool,
    is_put: bool,
    has_room: bool,
    is_payload_ok: bool,
    takes: bool,
    payload_len: u16,
    payload_crc: u32,
    src_place: u64,
    src_mac: u64,
    sent_ns: u64,
    client: u64,
    sequence: u64,
    end: u64,
    is_one: bool,
    is_here: bool,
    says_slot: u64,
    says_sent_ns: u64,
    drop: bool,
    slow: bool,
    tx: bool,
    append: bool,
}

/// What the host wrote.
#[derive(Clone, Debug, Default)]
struct Registers {
    on: bool,
    local: Local,
    group_mac: u64,
    group_place: u64,
    term: u64,
    drained_end: u64,
    append_end: u64,
    in_flight: u16,
    entry_bytes_max: u16,
    voters: u64,
    commit_count: u8,
    own: u64,
    places: Vec<u64>,
    session_id: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Leader {
    shape: Shape,
    parser: Parser,
    emit: Emit,
    state: State,
    now: Current,
    is_ready: bool,
    host: Registers,
    /// A write that was accepted, and is done with the next edge.
    pending: Option<(u8, u64)>,
    set_wait: u8,
    /// A cycle ago nothing of the host's was on its way to the votes.
    was_set: bool,
    set: (u64, usize),
    votes: Votes,
    entries: Vec<Option<Entry>>,
    sessions: Vec<(u64, u64)>,
    entry_at: usize,
    entry_ram: Option<Entry>,
    entry: Option<Entry>,
    session_ram: (u64, u64),
    session: (u64, u64),
    next: u64,
    commit_end: u64,
    commit: Option<u64>,
    stat: (u64, u64),
    to_next: ComparePipe,
    to_end: ComparePipe,
    to_session: ComparePipe,
    to_sequence: ComparePipe,
    undrained: u64,
    uncommitted: u64,
    is_full: bool,
}

impl Leader {
    /// One that knows nothing yet.
    pub fn new(shape: Shape) -> Leader {
        Leader {
            shape,
            parser: Parser::new(shape),
            emit: Emit::new(shape),
            state: State::Idle,
            now: Current::default(),
            is_ready: false,
            host: Registers {
                places: vec![0; shape.nodes_count],
                ..Registers::default()
            },
            pending: None,
            set_wait: 0,
            was_set: true,
            set: (0, 0),
            votes: Votes {
                acked: vec![0; shape.nodes_count],
                floor: 0,
                is_news: false,
            },
            entries: vec![None; 1 << shape.ring_log2],
            sessions: vec![(0, 0); 1 << shape.sessions_log2],
            entry_at: 0,
            entry_ram: None,
            entry: None,
            session_ram: (0, 0),
            session: (0, 0),
            next: 0,
            commit_end: 0,
            commit: None,
            stat: (0, 0),
            to_next: ComparePipe::default(),
            to_end: ComparePipe::default(),
            to_session: ComparePipe::default(),
            to_sequence: ComparePipe::default(),
            undrained: 0,
            uncommitted: 0,
            is_full: false,
        }
    }

    /// The voter that a frame is from, other than ourselves.
    fn voter(&self) -> Option<usize> {
        let place = self.parser.src_place();
        let others = self.host.voters & !(1 << self.host.own);
        (0..self.shape.nodes_count)
            .find(|&node| others >> node & 1 == 1 && place as u16 != 0 && self.host.places[node] == place)
    }

    fn take(&self) -> (State, Current) {
        let parser = &self.parser;
        let is_fast = self.host.on
            && self.was_set
            && self.set_wait < 3
            && self.pending.is_none()
            && parser.is_ours(&self.host.local);
        let is_ack = is_fast
            && parser.kind() == KIND_ACK
            && parser.is_bare()
            && parser.term() == self.host.term
            && !self.to_next.gt
            && self.voter().is_some();
        let state = match parser.kind() {
            _ if is_ack => State::Select,
            KIND_REQUEST if is_fast => State::Ask(0),
            _ => State::Go,
        };
        let now = Current {
            ends: Ends {
                local_mac: self.host.local.mac,
                local_ipv4: self.host.local.ipv4,
                local_port: self.host.local.port,
                old_src_ipv4: parser.src_ipv4(),
                old_dst_ipv4: parser.dst_ipv4(),
                old_ip_len: parser.ip_len(),
                old_ip_checksum: parser.ip_checksum(),
                ..self.now.ends
            },
            beats: parser.beats(),
            asks: parser.sent_ns() & ASKS != 0,
            is_behind: !self.to_next.gt && !self.to_next.eq,
            payload_len: parser.payload_len(),
            payload_crc: parser.stored_payload_crc(),
            src_place: parser.src_place(),
            src_mac: parser.src_mac(),
            sent_ns: parser.sent_ns(),
            client: parser.client(),
            sequence: parser.sequence(),
            append: false,
            tx: false,
            drop: parser.is_bad,
            slow: !parser.is_bad,
            ..self.now
        };
        (state, now)
    }

    fn fate(&self) -> Fate {
        let now = &self.now;
        let says = match now.append {
            true => Says {
                kind: KIND_APPEND,
                payload_len: now.payload_len,
                payload_crc: now.payload_crc,
                ..Says::default()
            },
            false => Says {
                kind: KIND_REPLY,
                payload_len: 20,
                reply: Some((now.client, now.sequence)),
                ..Says::default()
            },
        };
        let says = Says {
            term: self.host.term,
            slot: now.says_slot,
            sent_ns: now.says_sent_ns,
            ..says
        };
        Fate {
            drop: now.drop,
            slow: now.slow,
            log: now.append,
            tx: now.tx,
            payload: now.append,
            reply: !now.append,
            beats: now.beats,
            slot: now.end,
            head: emit::head(&now.ends, &says),
        }
    }

    /// The host's numbers do not come between a frame and its commit. What is drained may, at any time.
    fn takes_writes(&self) -> bool {
        self.set_wait == 0 && self.pending.is_none() && self.state == State::Idle && !self.parser.frame_end
    }

    fn write(&mut self, address: u8, value: u64) {
        let nodes_count = self.shape.nodes_count;
        let host = &mut self.host;
        match address {
            registers::ON => host.on = value & 1 == 1,
            registers::LOCAL_MAC => host.local.mac = value,
            registers::LOCAL_IPV4 => host.local.ipv4 = value as u32,
            registers::LOCAL_PORT => host.local.port = value as u16,
            registers::GROUP_MAC => host.group_mac = value,
            registers::GROUP_IPV4 => host.group_place = value << 16 | host.group_place & 0xffff,
            registers::GROUP_PORT => host.group_place = host.group_place & !0xffff | value & 0xffff,
            registers::TERM => host.term = value,
            registers::NEXT => self.next = value,
            registers::COMMIT_END => self.commit_end = value,
            registers::IN_FLIGHT => host.in_flight = value as u16,
            registers::APPEND_END => host.append_end = value,
            registers::ENTRY_BYTES_MAX => host.entry_bytes_max = value as u16,
            registers::VOTERS => host.voters = value & ((1 << nodes_count) - 1),
            registers::COMMIT_COUNT => host.commit_count = value as u8 & 15,
            registers::SELF => host.own = value,
            registers::SESSION_ID => host.session_id = value,
            registers::SESSION_SEQUENCE => {
                let at = host.session_id as usize % self.sessions.len();
                self.sessions[at] = (host.session_id, value);
            }
            _ => {
                let place = usize::from(address).wrapping_sub(registers::PLACES.into());
                if place < nodes_count {
                    host.places[place] = value;
                }
                let node = usize::from(address).wrapping_sub(registers::ACKED_ENDS.into());
                if node <= nodes_count {
                    (self.set, self.set_wait) = ((value, node), registers::SET_CYCLES as u8);
                }
            }
        }
    }

    fn set(&mut self, node: usize, end: u64) {
        match self.votes.acked.get_mut(node) {
            Some(acked) => *acked = end,
            None => self.votes.floor = end,
        }
        self.votes.is_news = false;
    }

    /// The request may become the next entry.
    fn takes(&self) -> bool {
        let now = &self.now;
        now.is_put
            && now.has_room
            && now.is_payload_ok
            && self.to_session.eq
            && self.to_sequence.gt
            && !self.is_full
            && now.client != 0
            && self.host.on
            && self.set_wait == 0
    }

    /// What a frame that is decided comes to by this edge. Follows `case (state_q)` of the RTL.
    fn decide(&mut self, was: &Was) {
        match self.state {
            State::Idle | State::Go => {}
            State::Select => match was.commit {
                None => {
                    self.now.slow = self.now.asks && self.now.is_behind;
                    self.now.drop = !self.now.slow;
                    self.state = State::Go;
                }
                Some(end) if was.is_commit_free => {
                    self.commit = Some(end);
                    self.now.is_one = end == was.commit_end.wrapping_add(1);
                    self.now.end = end;
                    self.votes.floor = end;
                    self.votes.is_news = false;
                    self.state = State::Entry(0);
                }
                Some(_) => {}
            },
            State::Entry(0) => {
                self.commit_end = self.now.end;
                self.entry_at = (self.now.end.wrapping_sub(1) as usize) % self.entries.len();
                self.state = State::Entry(1);
            }
            State::Entry(3) => {
                let entry = was.entry.unwrap_or_default();
                let now = &mut self.now;
                now.is_here = was.entry.is_some() && entry.end == now.end && entry.term == self.host.term;
                (now.client, now.sequence) = (entry.client, entry.sequence);
                (now.ends.dst_mac, now.ends.dst_place) = (entry.mac, entry.place);
                (now.says_slot, now.says_sent_ns) = (entry.sequence, entry.sent_ns);
                self.state = State::Entry(4);
            }
            State::Entry(4) => {
                self.now.tx = self.now.is_one && self.now.is_here;
                self.now.slow = !self.now.tx;
                self.state = if self.now.tx { State::Head(1) } else { State::Go };
            }
            State::Entry(at) => self.state = State::Entry(at + 1),
            State::Ask(4) => {
                self.now.takes = was.takes;
                self.state = State::Ask(5);
            }
            State::Ask(5) => {
                if self.now.takes {
                    self.append(was);
                }
                self.state = if self.now.takes { State::Head(0) } else { State::Go };
            }
            State::Ask(at) => {
                if at == 1 {
                    self.now.is_put = was.is_put;
                    self.now.has_room = self.now.payload_len <= self.host.entry_bytes_max;
                }
                if at == 3 {
                    self.now.is_payload_ok = was.is_payload_ok;
                }
                self.state = State::Ask(at + 1);
            }
            State::Head(2) => self.state = State::Go,
            State::Head(at) => self.state = State::Head(at + 1),
        }
    }

    /// Gives the request its slot.
    fn append(&mut self, was: &Was) {
        let now = &mut self.now;
        (now.append, now.tx, now.slow, now.end) = (true, true, false, was.next);
        (now.ends.dst_mac, now.ends.dst_place) = (self.host.group_mac, self.host.group_place);
        (now.says_slot, now.says_sent_ns) = (was.next, was.commit_end);
        let end = was.next.wrapping_add(1);
        let entry = Entry {
            end,
            term: self.host.term,
            client: now.client,
            sequence: now.sequence,
            sent_ns: now.sent_ns,
            mac: now.src_mac,
            place: now.src_place,
        };
        let (client, sequence) = (now.client, now.sequence);
        let place = was.next as usize % self.entries.len();
        self.entries[place] = Some(entry);
        let place = client as usize % self.sessions.len();
        self.sessions[place] = (client, sequence);
        self.next = end;
        self.set(self.host.own as usize, end);
    }
}

/// What registers said before the edge.
struct Was {
    next: u64,
    commit_end: u64,
    commit: Option<u64>,
    is_commit_free: bool,
    entry: Option<Entry>,
    takes: bool,
    is_put: bool,
    is_payload_ok: bool,
}

impl Node for Leader {
    fn outputs(&self) -> Outputs {
        Outputs {
            write_ready: self.takes_writes(),
            ready: self.is_ready,
            tx: self.emit.tx,
            slow: self.emit.slow,
            log: self.emit.log,
            commit: self.commit,
            next: self.stat.0,
            commit_end: self.stat.1,
        }
    }

    fn clock(&mut self, inputs: &Inputs) {
        // Everything follows from the registers as they are before the edge.
        let beat = inputs.beat.as_ref().filter(|_| self.is_ready);
        let may_take = self.parser.frame_end && self.parser.is_settled() && self.state == State::Idle;
        let is_loading = self.state == State::Go && self.emit.is_ready();
        let load = is_loading.then(|| self.fate());
        let frame_end_next =
            beat.is_some_and(|beat| self.parser.ends_now(beat)) || (self.parser.frame_end && !may_take);
        let busy_next = self.state != State::Idle || may_take;
        let is_narrow = self.shape.beat_bytes == 8;
        let is_ready = !inputs.rst
            && self.emit.has_room()
            && !(frame_end_next && busy_next)
            && (is_narrow || !(frame_end_next || busy_next));
        let was = Was {
            next: self.next,
            commit_end: self.commit_end,
            commit: match self.state {
                State::Select => self.votes.commit(self.host.voters, self.host.commit_count),
                _ => None,
            },
            is_commit_free: self.commit.is_none() || inputs.commit_ready,
            entry: self.entry,
            takes: self.takes(),
            is_put: self.parser.is_put(),
            is_payload_ok: self.parser.is_payload_ok(),
        };
        let taken = may_take.then(|| self.take());
        let voter = self.voter();
        let (slot, now) = (self.parser.slot(), self.now);
        let (drained_end, append_end, in_flight) = (self.host.drained_end, self.host.append_end, self.host.in_flight);
        let (session, session_ram) = (self.session, self.session_ram);
        let session_now = self.sessions[now.client as usize % self.sessions.len()];
        let (entry_now, entry_ram) = (self.entries[self.entry_at], self.entry_ram);
        let (set_wait, set, takes_writes) = (self.set_wait, self.set, self.takes_writes());

        self.was_set = set_wait == 0;
        self.set_wait = set_wait.saturating_sub(1);
        if inputs.commit_ready {
            self.commit = None;
        }
        if let Some((address, value)) = self.pending.take() {
            self.write(address, value);
        }
        self.pending = None;
        match inputs.write {
            // It only makes room, and must get in when frames come without a gap.
            Some((registers::DRAINED_END, end)) => self.host.drained_end = end,
            write => self.pending = write.filter(|_| takes_writes),
        }
        if set_wait == 3 {
            self.set(set.1, set.0);
        }
        if let Some((state, current)) = taken {
            if let (State::Select, Some(node)) = (state, voter) {
                self.votes.is_news = slot > self.votes.acked[node];
                self.votes.acked[node] = slot.max(self.votes.acked[node]);
            }
            (self.state, self.now) = (state, current);
        } else {
            self.decide(&was);
            if is_loading {
                self.state = State::Idle;
            }
        }
        (self.entry, self.entry_ram) = (entry_ram, entry_now);
        (self.session, self.session_ram) = (session_ram, session_now);
        self.is_full =
            self.undrained >= 1 << self.shape.ring_log2 || self.uncommitted >= in_flight.into() || !self.to_end.gt;
        self.undrained = was.next.wrapping_sub(drained_end);
        self.uncommitted = was.next.wrapping_sub(was.commit_end);
        self.to_end.clock(append_end, was.next);
        self.to_next.clock(slot, was.next);
        self.to_session.clock(now.client, session.0);
        self.to_sequence.clock(now.sequence, session.1);
        self.stat = (was.next, was.commit_end);
        self.is_ready = is_ready;
        self.parser.clock(inputs.rst, beat, may_take);
        self.emit.clock(inputs, beat, load);
        if inputs.rst {
            self.host.on = false;
            (self.pending, self.set_wait) = (None, 0);
            self.state = State::Idle;
            self.entries.fill(None);
            (self.next, self.commit_end, self.commit) = (0, 0, None);
            self.votes.acked.fill(0);
            (self.votes.floor, self.votes.is_news) = (0, false);
        }
    }
}
