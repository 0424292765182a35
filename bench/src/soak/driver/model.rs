//! The programs `quorum_leader` and `quorum_follower` as ordinary code: the same rules in the same order, on our frames
//! alone, without Ethernet, IP and UDP around them. `tests` beside it runs both on the same frames and compares.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddrV4,
};

use dataplane_wire::{
    checksum::crc32c,
    frame::{self, Header, Kind},
    quorum::{
        VALUE_BYTES_MAX,
        ack::ASKS,
        reply::{self, Outcome, Reply},
        request,
    },
};
use ebpf_host::quorum::{
    Chain, Count, ENTRY_BYTES_MAX, Grant, HELD_SLOTS_MAX, Kept, NODES_MAX, RING_SLOTS, SESSION_WINDOW_MAX, Seen,
    Session,
};

use super::{Flaw, PORT, Program, Ran, host_address};

/// Both programs of a node, of which one has the grant at most.
#[derive(Debug)]
pub struct Model {
    /// Where it is.
    local: SocketAddrV4,
    is_leader: bool,
    /// Generation and next slot, while there is a grant.
    word: Option<(u16, u64)>,
    generations: [u16; 2],
    parts: [Part; 2],
    sessions: Vec<Session>,
    /// By place: the requests of a session that have a slot by this grant.
    slots_of: Vec<BTreeSet<u64>>,
    session_count: u32,
    /// Whether the leader's takes requests.
    appends: bool,
    counts: [[u64; Count::ALL.len()]; 2],
    flaw: Option<Flaw>,
    /// Of [`Flaw::IgnoresRevoke`]: the word that was taken back.
    stale_word: Option<(u16, u64)>,
}

/// What one of the programs has in its maps.
#[derive(Debug)]
struct Part {
    given: Grant,
    /// Its place in a chain, if the last grant was one of a chain.
    chain: Option<Chain>,
    drained_end: u64,
    heard: u64,
    acked: [u64; NODES_MAX],
    ring: HashMap<u32, Entry>,
    /// Slots whose entries came too early.
    held: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
struct Entry {
    slot: u64,
    kept: Kept,
    client: u64,
    sequence: u64,
}

/// A frame goes up.
struct Up;

/// What the programs read before anything else.
struct Head<'a> {
    whole: &'a [u8],
    kind: u8,
    term: u64,
    slot: u64,
    sent_ns: u64,
    payload_crc: u32,
    payload: &'a [u8],
}

pub(super) const NO_GRANT: Grant = Grant {
    next: 0,
    term: 0,
    node: 0,
    leader: 0,
    commit_end: 0,
    append_end: 0,
    entry_bytes_max: 0,
    waits_for_disk: false,
    term_begin: 0,
    in_flight_slots: 0,
    voters: 0,
    commit_count: 0,
    acked_end: [0; NODES_MAX],
    places: [None; NODES_MAX],
    group: None,
    hold_slots: 0,
    session_window: 0,
};

impl Model {
    /// Of a node, without a grant; `session_count` as in [`ebpf_host::Settings`]. Without `appends` the leader's passes requests
    /// up, and counts alone.
    pub fn of_parts(node: u32, session_count: u32, appends: bool, flaw: Option<Flaw>) -> Model {
        let part = || Part {
            given: NO_GRANT,
            chain: None,
            drained_end: 0,
            heard: 0,
            acked: [0; NODES_MAX],
            ring: HashMap::new(),
            held: BTreeSet::new(),
        };
        Model {
            local: host_address(node),
            is_leader: false,
            word: None,
            generations: [0; 2],
            parts: [part(), part()],
            sessions: Vec::new(),
            slots_of: Vec::new(),
            session_count,
            appends,
            counts: [[0; Count::ALL.len()]; 2],
            flaw,
            stale_word: None,
        }
    }

    fn makes(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn counted(&mut self, what: Count) {
        self.counts[usize::from(self.is_leader)][what as usize] += 1;
    }

    fn up(&mut self, why: Count) -> Result<Ran, Up> {
        self.counted(why);
        Err(Up)
    }

    fn dropped(&mut self) -> Result<Ran, Up> {
        self.counted(Count::Counted);
        Ok(Ran::Dropped)
    }

    /// What a program sends from its own address.
    fn sent(&self, to: SocketAddrV4, bytes: Vec<u8>) -> Ran {
        let from = self.local;
        Ran::Sent { from, to, bytes }
    }

    fn part(&mut self) -> &mut Part {
        &mut self.parts[usize::from(self.is_leader)]
    }

    /// The next slot, if there is a grant.
    fn claim(&self) -> Option<u64> {
        let word = match self.makes(Flaw::IgnoresRevoke) {
            true => self.word.or(self.stale_word),
            false => self.word,
        };
        word.map(|(_, next)| next)
    }

    fn give_back(&mut self, next: u64) {
        for word in [&mut self.word, &mut self.stale_word].into_iter().flatten() {
            word.1 = next;
        }
    }

    fn lead(&mut self, from: SocketAddrV4, head: &Head<'_>) -> Result<Ran, Up> {
        if head.kind == Kind::Ack as u8 && head.payload.is_empty() {
            return self.acknowledged(from, head);
        }
        match head.kind == Kind::QuorumRequest as u8 {
            true => self.asked(from, head),
            false => Err(Up),
        }
    }

    fn asked(&mut self, from: SocketAddrV4, head: &Head<'_>) -> Result<Ran, Up> {
        use request::field;
        let Some((fixed, _)) = head.payload.split_first_chunk::<{ request::HEADER_BYTES }>() else {
            return self.up(Count::Unfit);
        };
        let be16 = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let key_len = fixed[field::KEY_LEN.start] as usize;
        let value_len = be16(field::FIRST_LEN.start) as usize;
        let is_put = fixed[field::COMMAND.start] == request::code::PUT
            && key_len > 0
            && value_len <= VALUE_BYTES_MAX
            && be16(field::SECOND_LEN.start) == 0
            && be16(field::COUNT_MAX.start) == 0
            && request::HEADER_BYTES + key_len + value_len == head.payload.len();
        if !is_put {
            return self.up(Count::OtherCommand);
        }
        let client = u64::from_be_bytes(*fixed[field::CLIENT].first_chunk().expect("eight bytes"));
        let sequence = u64::from_be_bytes(*fixed[field::SEQUENCE].first_chunk().expect("eight bytes"));
        if self.session_count == 0 {
            return self.up(Count::OtherSession);
        }
        let Some(next) = self.claim() else {
            return self.up(Count::Off);
        };
        let place = (client % u64::from(self.session_count)) as usize;
        let session = self.sessions.get(place).copied().unwrap_or_default();
        let is_ours = client != 0 && session.id == client;
        let is_newer = is_ours && session.sequence < sequence;
        if !is_newer && !self.makes(Flaw::NoSessions) {
            let window = self.part().given.session_window.min(SESSION_WINDOW_MAX);
            if !is_ours || sequence < session.floor || session.sequence - sequence >= window {
                return self.up(Count::OtherSession);
            }
            if self.slots_of[place].contains(&sequence) {
                return self.asked_again(from, head, &session, sequence);
            }
        }
        let part = self.part();
        if head.payload.len() as u64 > part.given.entry_bytes_max {
            return self.up(Count::Unfit);
        }
        if next.wrapping_sub(part.drained_end) >= u64::from(RING_SLOTS)
            || next >= part.given.append_end
            || next.wrapping_sub(part.given.commit_end) >= part.given.in_flight_slots
        {
            return self.up(Count::Full);
        }
        if crc32c(head.payload) != head.payload_crc {
            part.ring.remove(&place_of(next));
            return self.up(Count::Checksum);
        }
        let (term, commit_end) = (part.given.term, part.given.commit_end);
        part.keep(next, term, from, client, sequence, head);
        if !part.given.waits_for_disk {
            part.given.acked_end[part.given.node as usize % NODES_MAX] = next + 1;
        }
        let group = part.given.group.map_or(UNKNOWN, |(address, _)| address);
        let hop = u16::from(part.chain.is_some());
        if let (Some(session), Some(slots_of)) = (self.sessions.get_mut(place), self.slots_of.get_mut(place)) {
            // Two words on in the ring of bits, what is between is not known any more.
            if sequence > session.sequence && sequence / 64 > session.sequence / 64 + 1 {
                session.floor = sequence / 64 * 64;
            }
            session.sequence = session.sequence.max(sequence);
            (session.last, session.end) = (sequence, next + 1);
            slots_of.insert(sequence);
        }
        self.give_back(next + 1);
        self.counted(Count::Appended);
        let header = Header {
            kind: Kind::Append,
            term,
            slot: next,
            sent_ns: commit_end,
        };
        Ok(Ran::Sent {
            from: on_its_way(self.local, hop),
            to: group,
            bytes: framed(&header, head.payload),
        })
    }

    /// A put that has a slot already.
    fn asked_again(
        &mut self,
        from: SocketAddrV4,
        head: &Head<'_>,
        session: &Session,
        sequence: u64,
    ) -> Result<Ran, Up> {
        let answers_early = self.makes(Flaw::AnswersEarly);
        let given = &self.part().given;
        if session.end <= given.commit_end || answers_early {
            let (client, term) = (session.id, given.term);
            self.counted(Count::AnsweredAgain);
            return Ok(self.sent(from, answer(term, client, sequence, head.sent_ns)));
        }
        if sequence != session.last {
            return self.up(Count::OtherSession);
        }
        // To all followers, as the first time: in a chain, on its way to the first.
        let group = given.group.map_or(UNKNOWN, |(address, _)| address);
        let local = on_its_way(self.local, u16::from(self.part().chain.is_some()));
        self.send_again(session.end - 1, (local, group), head.payload.len(), Count::OtherSession)
    }

    /// Sends an entry of the ring, in a frame whose payload is `len_bytes` long: nothing, or as long as the entry.
    fn send_again(
        &mut self,
        slot: u64,
        (from, to): (SocketAddrV4, SocketAddrV4),
        len_bytes: usize,
        why_not: Count,
    ) -> Result<Ran, Up> {
        let next = self.claim().expect("it was there a moment ago");
        let part = self.part();
        let (term, commit_end) = (part.given.term, part.given.commit_end);
        let found = part
            .ring
            .get(&place_of(slot))
            .filter(|entry| slot < next && entry.slot == slot && entry.kept.term == term)
            .filter(|entry| len_bytes == 0 || len_bytes == entry.kept.bytes.len());
        let Some(entry) = found else { return self.up(why_not) };
        let header = Header {
            kind: Kind::Append,
            term,
            slot,
            sent_ns: commit_end,
        };
        let bytes = framed(&header, &entry.kept.bytes);
        self.counted(Count::SentAgain);
        Ok(Ran::Sent { from, to, bytes })
    }

    fn acknowledged(&mut self, from: SocketAddrV4, ack: &Head<'_>) -> Result<Ran, Up> {
        let Some(next) = self.claim() else {
            return self.up(Count::Off);
        };
        let counts_twice = self.makes(Flaw::CountsTwice);
        let counts_behind = self.makes(Flaw::ChainCountsBehind);
        let part = self.part();
        let given = &mut part.given;
        if ack.term != given.term {
            return self.up(Count::OtherTerm);
        }
        let is_voter = |node: &usize| given.voters & 1 << node != 0 && *node != given.node as usize;
        let is_from = |node: &usize| given.places[*node].is_some_and(|(address, _)| address == from);
        let Some(node) = (0..NODES_MAX).filter(is_voter).rfind(is_from) else {
            return self.up(Count::Stranger);
        };
        if ack.slot > next {
            return self.up(Count::Impossible);
        }
        // The last of a chain speaks for all of it; without one, that word says nothing.
        let others = (0..NODES_MAX)
            .filter(is_voter)
            .fold(0, |others, node| others | 1 << node);
        let mut nodes = 1u64 << node;
        if part.chain.is_some() {
            nodes |= if counts_behind { others } else { ack.sent_ns & others };
        }
        for node in nodes_of(nodes) {
            part.acked[node] += 1;
        }
        let before = given.commit_end;
        if counts_twice && ack.slot <= given.acked_end[node] {
            let mut others = (0..NODES_MAX).filter(is_voter);
            nodes = 1 << others.find(|&other| given.acked_end[other] < ack.slot).unwrap_or(node);
        }
        let is_news = nodes_of(nodes).any(|node| ack.slot > given.acked_end[node]);
        for node in nodes_of(nodes) {
            given.acked_end[node] = given.acked_end[node].max(ack.slot);
        }
        let end = if is_news { given.quorum_end() } else { before };
        if end <= before || end <= given.term_begin {
            let waits_for_disk = is_news && given.waits_for_disk;
            if ack.sent_ns & ASKS != 0 && ack.slot < next {
                return self.send_again(ack.slot, (self.local, from), 0, Count::Gap);
            }
            if waits_for_disk {
                return self.up(Count::WaitsForDisk);
            }
            return self.dropped();
        }
        given.commit_end = end;
        let term = given.term;
        let entry = part
            .ring
            .get_mut(&place_of(end - 1))
            .filter(|entry| entry.slot == end - 1);
        let Some(entry) = entry.filter(|entry| entry.kept.term == term && end == before + 1) else {
            return self.up(Count::CommittedUp);
        };
        entry.kept.answered = true;
        let to = entry.kept.from.unwrap_or(UNKNOWN);
        let (client, sequence, sent_ns) = (entry.client, entry.sequence, entry.kept.sent_ns);
        self.counted(Count::Answered);
        Ok(self.sent(to, answer(term, client, sequence, sent_ns)))
    }

    fn follow(&mut self, from: SocketAddrV4, append: &Head<'_>) -> Result<Ran, Up> {
        if append.kind != Kind::Append as u8 {
            return Err(Up);
        }
        let (from, hop) = origin(from);
        let link = self.link(hop);
        let Some(next) = self.claim() else {
            if let Some(link) = link.filter(|_| self.makes(Flaw::ChainHandsOnRevoked)) {
                return Ok(self.go_on(from, Some(link), append, (append.slot + 1, false)));
            }
            return self.up(Count::Off);
        };
        let acks_held = self.makes(Flaw::AcksHeld);
        let forgets = self.makes(Flaw::AckBeforeWrite)
            || (self.makes(Flaw::ChainHandsOnUnkept) && link.is_some_and(|link| link.next.is_some()));
        let part = self.part();
        let waits_for_disk = part.given.waits_for_disk;
        let leader = part.given.places[part.given.leader as usize % NODES_MAX];
        if leader.is_none_or(|(address, _)| address != from) {
            return self.up(Count::Stranger);
        }
        let term = part.given.term;
        if append.term != term {
            return self.up(Count::OtherTerm);
        }
        let hold_slots = match part.given.waits_for_disk {
            true => 0,
            false => part.given.hold_slots.min(HELD_SLOTS_MAX),
        };
        if append.slot > next && append.slot - next > hold_slots {
            return self.up(Count::Gap);
        }
        if append.slot < next && waits_for_disk {
            return self.up(Count::WaitsForDisk);
        }
        if append.slot < next {
            let asks = !part.held.is_empty();
            self.counted(Count::AppendedAgain);
            return Ok(self.go_on(from, link, append, (next, asks)));
        }
        if append.payload.len() as u64 > part.given.entry_bytes_max {
            return self.up(Count::Unfit);
        }
        let slot = append.slot;
        if slot.wrapping_sub(part.drained_end) >= u64::from(RING_SLOTS) || slot >= part.given.append_end {
            return self.up(Count::Full);
        }
        // An entry that is held already stays as it is: this frame may be damaged.
        if !part.held.contains(&slot) {
            if crc32c(append.payload) != append.payload_crc {
                part.ring.remove(&place_of(slot));
                return self.up(Count::Checksum);
            }
            if forgets && slot == next {
                return Ok(self.go_on(from, link, append, (next + 1, false)));
            }
            part.keep(slot, term, UNKNOWN, 0, 0, append);
        }
        part.given.commit_end = part.given.commit_end.max(append.sent_ns);
        if slot > next {
            part.heard += u64::from(part.held.insert(slot));
            let asks = part.held.len().is_power_of_two();
            self.counted(Count::Held);
            // Nothing is handed on that waits for something: the chain ends here for it.
            let end = if acks_held { slot + 1 } else { next };
            return Ok(match asks {
                true => self.sent(from, acknowledgement(term, end, ASKS)),
                false => Ran::Dropped,
            });
        }
        part.heard += 1;
        let mut end = next + 1;
        while part.held.remove(&end) {
            end += 1;
        }
        let asks = !part.held.is_empty();
        self.give_back(end);
        if waits_for_disk {
            return self.up(Count::WaitsForDisk);
        }
        self.counted(Count::Appended);
        Ok(self.go_on(from, link, append, (end, asks)))
    }

    /// This follower's place in the chain, for a frame that has come as far as to it.
    fn link(&self, hop: u64) -> Option<Chain> {
        let chain = self.parts[usize::from(self.is_leader)].chain?;
        let speaks_anyway = self.makes(Flaw::ChainSpeaksForAll) && chain.next.is_none();
        (hop != 0 && hop == chain.hop || speaks_anyway).then_some(chain)
    }

    /// Hands the append on to the next in the chain, or acknowledges it: the last of a chain this entry, for all of it; whoever
    /// got it by itself all before `end`, and asks for what is there if more is held behind it.
    fn go_on(&self, leader: SocketAddrV4, link: Option<Chain>, append: &Head<'_>, (end, asks): (u64, bool)) -> Ran {
        let Some(link) = link else {
            let asks = if asks { ASKS } else { 0 };
            return self.sent(leader, acknowledgement(append.term, end, asks));
        };
        let Some((next, _)) = link.next else {
            // Others may be behind us.
            let end = match self.makes(Flaw::ChainSaysOwnEnd) {
                true => end,
                false => append.slot + 1,
            };
            return self.sent(leader, acknowledgement(append.term, end, link.nodes.into()));
        };
        Ran::Sent {
            from: on_its_way(leader, link.hop as u16 + 1),
            to: next,
            bytes: append.whole.to_vec(),
        }
    }

    /// Where a frame that goes up comes from: a chain's is the leader's own again.
    fn leave(&self, from: SocketAddrV4, bytes: &[u8]) -> SocketAddrV4 {
        let is_append = bytes.get(frame::field::KIND.start) == Some(&(Kind::Append as u8));
        match is_append && !self.is_leader {
            true => origin(from).0,
            false => from,
        }
    }
}

/// `leader`'s frame on its way to the `hop`-th follower of a chain; 0: by itself.
fn on_its_way(leader: SocketAddrV4, hop: u16) -> SocketAddrV4 {
    SocketAddrV4::new(*leader.ip(), PORT + hop)
}

/// Whose append it is, wherever in the chain it comes from, and to the how-manieth follower; 0: by itself.
fn origin(from: SocketAddrV4) -> (SocketAddrV4, u64) {
    let hop = from.port().wrapping_sub(PORT);
    match hop != 0 && usize::from(hop) < NODES_MAX {
        true => (on_its_way(from, 0), hop.into()),
        false => (from, 0),
    }
}

fn nodes_of(bits: u64) -> impl Iterator<Item = usize> {
    (0..NODES_MAX).filter(move |node| bits & 1 << node != 0)
}

impl Part {
    fn keep(&mut self, slot: u64, term: u64, from: SocketAddrV4, client: u64, sequence: u64, head: &Head<'_>) {
        // A follower's program leaves alone what only a leader's has use for.
        let is_leader = client != 0;
        let kept = Kept {
            term,
            crc: head.payload_crc,
            sent_ns: if is_leader { head.sent_ns } else { 0 },
            from: is_leader.then_some(from),
            answered: false,
            bytes: head.payload.to_vec(),
        };
        let entry = Entry {
            slot,
            kept,
            client,
            sequence,
        };
        self.ring.insert(place_of(slot), entry);
    }
}

/// The highest end that a quorum has.
trait QuorumEnd {
    fn quorum_end(&self) -> u64;
}

impl QuorumEnd for Grant {
    fn quorum_end(&self) -> u64 {
        let voters = || (0..NODES_MAX).filter(|node| self.voters & 1 << node != 0);
        let has = |end: u64| voters().filter(|&node| self.acked_end[node] >= end).count() as u32;
        let ends = voters().map(|node| self.acked_end[node]);
        ends.filter(|&end| has(end) >= self.commit_count).max().unwrap_or(0)
    }
}

/// Zeros, as a map has them that nobody wrote to.
const UNKNOWN: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0);

fn place_of(slot: u64) -> u32 {
    slot as u32 & (RING_SLOTS - 1)
}

fn acknowledgement(term: u64, end: u64, echo: u64) -> Vec<u8> {
    let header = Header {
        kind: Kind::Ack,
        term,
        slot: end,
        sent_ns: echo,
    };
    framed(&header, &[])
}

fn answer(term: u64, client: u64, sequence: u64, sent_ns: u64) -> Vec<u8> {
    let header = Header {
        kind: Kind::QuorumReply,
        term,
        slot: sequence,
        sent_ns,
    };
    let reply = Reply {
        client,
        sequence,
        outcome: Outcome::Done,
    };
    let mut payload = vec![0; reply.len_bytes()];
    reply::emit(&reply, &mut payload);
    framed(&header, &payload)
}

fn framed(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; frame::HEADER_BYTES], payload].concat();
    frame::emit(header, &mut bytes);
    bytes
}

/// Our header, as far as a program asks before it acts: `Err` says why the frame goes up. Requests are asked for or not.
fn head(bytes: &[u8], takes_requests: bool) -> Result<Head<'_>, Option<Count>> {
    use frame::field;
    let Some((head, payload)) = bytes.split_first_chunk::<{ frame::HEADER_BYTES }>() else {
        return Err(None);
    };
    let kind = head[field::KIND.start];
    let is_asked_for =
        kind == Kind::Append as u8 || kind == Kind::Ack as u8 || (kind == Kind::QuorumRequest as u8 && takes_requests);
    if head[field::MAGIC] != frame::MAGIC || head[field::VERSION.start] != frame::VERSION || !is_asked_for {
        return Err(None);
    }
    let be64 = |range: std::ops::Range<usize>| u64::from_be_bytes(*head[range].first_chunk().expect("eight bytes"));
    let be32 = |range: std::ops::Range<usize>| u32::from_be_bytes(*head[range].first_chunk().expect("four bytes"));
    let announced = u16::from_be_bytes([head[field::PAYLOAD_LEN.start], head[field::PAYLOAD_LEN.start + 1]]);
    if usize::from(announced) != payload.len() {
        return Err(None);
    }
    if payload.len() > ENTRY_BYTES_MAX {
        return Err(Some(Count::Unfit));
    }
    if crc32c(&head[..field::HEADER_CRC.start]) != be32(field::HEADER_CRC) {
        return Err(Some(Count::Checksum));
    }
    Ok(Head {
        whole: bytes,
        kind,
        term: be64(field::TERM),
        slot: be64(field::SLOT),
        sent_ns: be64(field::SENT_NS),
        payload_crc: be32(field::PAYLOAD_CRC),
        payload,
    })
}

impl Program for Model {
    fn grant(&mut self, is_leader: bool, given: &Grant, chain: Option<Chain>, sessions: &[Session]) {
        self.revoke();
        self.is_leader = is_leader;
        if is_leader {
            self.sessions = sessions.to_vec();
            self.slots_of = vec![BTreeSet::new(); sessions.len()];
        }
        let keeps_held = self.makes(Flaw::KeepsHeld);
        let part = self.part();
        part.given = *given;
        part.chain = chain;
        if !keeps_held {
            part.held.clear();
        }
        part.drained_end = given.next;
        let generation = &mut self.generations[usize::from(is_leader)];
        *generation = generation.checked_add(1).unwrap_or(1);
        self.word = Some((*generation, given.next));
        self.stale_word = self.word;
    }

    fn revoke(&mut self) -> Option<u64> {
        self.word.take().map(|(_, next)| next)
    }

    fn seen(&self) -> Seen {
        let part = &self.parts[usize::from(self.is_leader)];
        let (generation, next) = self.word.unwrap_or_default();
        Seen {
            generation,
            next,
            commit_end: part.given.commit_end,
            heard_count: part.heard,
            acked_end: part.given.acked_end,
            acked_count: part.acked,
        }
    }

    fn entry(&self, slot: u64, kept: &mut Kept) -> bool {
        let part = &self.parts[usize::from(self.is_leader)];
        let entry = part.ring.get(&place_of(slot)).filter(|entry| entry.slot == slot);
        if let Some(entry) = entry {
            kept.clone_from(&entry.kept);
        }
        entry.is_some()
    }

    fn drained(&mut self, end: u64) {
        self.part().drained_end = end;
    }

    fn limit(&mut self, end: u64) {
        self.part().given.append_end = end;
    }

    fn appended(&mut self, end: u64) {
        let Some((_, next)) = &mut self.word else { return };
        *next = end;
        let given = &mut self.part().given;
        if !given.waits_for_disk {
            given.acked_end[given.node as usize % NODES_MAX] = end;
        }
    }

    fn run(&mut self, from: SocketAddrV4, bytes: &[u8]) -> Ran {
        let ran = match head(bytes, self.appends) {
            // It is none of what a program is asked for, and stays as it is.
            Err(None) => return Ran::Up(from),
            Err(Some(why)) => self.up(why),
            Ok(head) if self.is_leader => self.lead(from, &head),
            Ok(head) => self.follow(from, &head),
        };
        ran.unwrap_or_else(|Up| Ran::Up(self.leave(from, bytes)))
    }

    fn count(&self, what: Count) -> u64 {
        self.counts[usize::from(self.is_leader)][what as usize]
    }
}
