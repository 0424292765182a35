//! `quorum_follower`.

use super::{
    ComparePipe, Inputs, Node, Outputs, Shape,
    emit::{self, Emit, Ends, Fate, Says},
    parser::{Local, Parser},
};
use crate::registers;

const KIND_APPEND: u8 = 5;
const KIND_ACK: u8 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Pay0,
    Pay1,
    Pay2,
    Decide,
    Go,
}

/// The frame that is decided.
#[derive(Clone, Copy, Debug, Default)]
struct Current {
    ends: Ends,
    beats: u64,
    is_ahead: bool,
    is_level: bool,
    has_room: bool,
    is_payload_ok: bool,
    payload_len: u16,
    sent_ns: u64,
    slot: u64,
    end: u64,
    drop: bool,
    slow: bool,
    tx: bool,
    log: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Follower {
    shape: Shape,
    parser: Parser,
    emit: Emit,
    state: State,
    now: Current,
    is_ready: bool,
    on: bool,
    local: Local,
    leader: u64,
    term: u64,
    drained_end: u64,
    append_end: u64,
    entry_bytes_max: u16,
    next: u64,
    commit_end: u64,
    stat: (u64, u64),
    to_next: ComparePipe,
    to_end: ComparePipe,
    to_commit: ComparePipe,
    undrained: u64,
    is_full: bool,
}

impl Follower {
    /// One that knows nothing yet.
    pub fn new(shape: Shape) -> Follower {
        Follower {
            shape,
            parser: Parser::new(shape),
            emit: Emit::new(shape),
            state: State::Idle,
            now: Current::default(),
            is_ready: false,
            on: false,
            local: Local::default(),
            leader: 0,
            term: 0,
            drained_end: 0,
            append_end: 0,
            entry_bytes_max: 0,
            next: 0,
            commit_end: 0,
            stat: (0, 0),
            to_next: ComparePipe::default(),
            to_end: ComparePipe::default(),
            to_commit: ComparePipe::default(),
            undrained: 0,
            is_full: false,
        }
    }

    fn take(&self) -> (State, Current) {
        let parser = &self.parser;
        let is_mine = self.on
            && parser.is_ours(&self.local)
            && parser.kind() == KIND_APPEND
            && parser.term() == self.term
            && parser.src_place() == self.leader
            && parser.src_port() != 0;
        let now = Current {
            ends: Ends {
                local_mac: self.local.mac,
                local_ipv4: self.local.ipv4,
                local_port: self.local.port,
                dst_mac: parser.src_mac(),
                dst_place: parser.src_place(),
                old_src_ipv4: parser.src_ipv4(),
                old_dst_ipv4: parser.dst_ipv4(),
                old_ip_len: parser.ip_len(),
                old_ip_checksum: parser.ip_checksum(),
            },
            beats: parser.beats(),
            is_ahead: self.to_next.gt,
            is_level: self.to_next.eq,
            payload_len: parser.payload_len(),
            sent_ns: parser.sent_ns(),
            slot: parser.slot(),
            drop: parser.is_bad,
            slow: !parser.is_bad,
            ..self.now
        };
        let now = Current {
            tx: false,
            log: false,
            ..now
        };
        (if is_mine { State::Pay0 } else { State::Go }, now)
    }

    fn fate(&self) -> Fate {
        let now = &self.now;
        let says = Says {
            kind: KIND_ACK,
            term: self.term,
            slot: now.end,
            ..Says::default()
        };
        Fate {
            drop: now.drop,
            slow: now.slow,
            log: now.log,
            tx: now.tx,
            payload: false,
            reply: false,
            beats: now.beats,
            slot: now.slot,
            head: emit::head(&now.ends, &says),
        }
    }

    fn write(&mut self, address: u8, value: u64) {
        match address {
            registers::ON => self.on = value & 1 == 1,
            registers::LOCAL_MAC => self.local.mac = value,
            registers::LOCAL_IPV4 => self.local.ipv4 = value as u32,
            registers::LOCAL_PORT => self.local.port = value as u16,
            registers::GROUP_MAC => self.local.group_mac = value,
            registers::GROUP_IPV4 => self.local.group_ipv4 = value as u32,
            registers::TERM => self.term = value,
            registers::NEXT => self.next = value,
            registers::COMMIT_END => self.commit_end = value,
            registers::DRAINED_END => self.drained_end = value,
            registers::APPEND_END => self.append_end = value,
            registers::ENTRY_BYTES_MAX => self.entry_bytes_max = value as u16,
            registers::LEADER => self.leader = value,
            _ => {}
        }
    }
}

impl Node for Follower {
    fn outputs(&self) -> Outputs {
        Outputs {
            write_ready: true,
            ready: self.is_ready,
            tx: self.emit.tx,
            slow: self.emit.slow,
            log: self.emit.log,
            commit: None,
            next: self.stat.0,
            commit_end: self.stat.1,
        }
    }

    fn clock(&mut self, inputs: &Inputs) {
        // Everything below follows from the registers as they are before the edge.
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

        let (next, commit_end) = (self.next, self.commit_end);
        let (to_next, to_commit, is_full) = (self.to_next, self.to_commit, self.is_full);
        let slot = self.parser.slot();
        let on = self.on;
        let stat = (next, commit_end);
        let is_payload_ok = self.parser.is_payload_ok();
        let taken = may_take.then(|| self.take());
        let (drained_end, append_end, entry_bytes_max) = (self.drained_end, self.append_end, self.entry_bytes_max);
        let sent_ns = self.now.sent_ns;

        if let Some((address, value)) = inputs.write {
            self.write(address, value);
        }
        match self.state {
            State::Idle => {
                if let Some((state, now)) = taken {
                    (self.state, self.now) = (state, now);
                }
            }
            State::Pay0 => {
                self.now.has_room = self.now.payload_len <= entry_bytes_max;
                self.now.end = if self.now.is_level { next + 1 } else { next };
                self.state = State::Pay1;
            }
            State::Pay1 => self.state = State::Pay2,
            State::Pay2 => {
                self.now.is_payload_ok = is_payload_ok;
                self.state = State::Decide;
            }
            State::Decide => {
                let now = &mut self.now;
                let is_sound = now.is_payload_ok && on;
                let takes = now.is_level && now.has_room && !is_full && is_sound;
                let acks = takes || (!now.is_ahead && !now.is_level && is_sound);
                (now.tx, now.slow) = (acks, !acks);
                if takes {
                    now.log = true;
                    self.next = next + 1;
                    if to_commit.gt {
                        self.commit_end = now.sent_ns;
                    }
                }
                self.state = State::Go;
            }
            State::Go if is_loading => self.state = State::Idle,
            State::Go => {}
        }
        self.is_full = self.undrained >= 1 << self.shape.ring_log2 || !self.to_end.gt;
        self.undrained = next.wrapping_sub(drained_end);
        self.to_end.clock(append_end, next);
        self.to_next = ComparePipe { ..to_next };
        self.to_next.clock(slot, next);
        self.to_commit.clock(sent_ns, commit_end);
        self.stat = stat;
        self.is_ready = is_ready;
        self.parser.clock(inputs.rst, beat, may_take);
        self.emit.clock(inputs, beat, load);
        if inputs.rst {
            self.on = false;
            self.state = State::Idle;
            (self.next, self.commit_end) = (0, 0);
        }
    }
}
