//! `eth_ipv4_udp_parser`: captures the head of a frame and says whether it is ours.
//!
//! The RTL spreads its checks over registers that are right by the time the frame is taken; here they follow from the captured
//! bytes at that moment.

use dataplane_wire::frame;

use super::Shape;
use crate::{crc, stream::Beat};

const HEAD_BYTES: usize = 106;
const PAYLOAD_AT: usize = 82;
/// The slot's last byte.
const SLOT_LAST_AT: usize = 65;

/// Whose frames are ours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local {
    pub mac: u64,
    pub ipv4: u32,
    pub port: u16,
    pub group_mac: u64,
    pub group_ipv4: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Parser {
    shape: Shape,
    head: [u8; HEAD_BYTES],
    beat: u64,
    is_tail: bool,
    settle: u8,
    payload_crc: u32,
    /// Of the frame that has ended.
    pub frame_end: bool,
    is_short: bool,
    pub is_long: bool,
    pub is_bad: bool,
    last_beat: u64,
    last_keep: u64,
}

impl Parser {
    pub fn new(shape: Shape) -> Parser {
        Parser {
            shape,
            head: [0; HEAD_BYTES],
            beat: 0,
            is_tail: false,
            settle: 0,
            payload_crc: 0,
            frame_end: false,
            is_short: false,
            is_long: false,
            is_bad: false,
            last_beat: 0,
            last_keep: 0,
        }
    }

    /// Does this beat end the frame, or make it too long?
    pub fn ends_now(&self, beat: &Beat) -> bool {
        !self.is_tail && (beat.last || self.beat == self.shape.long_beats() - 1)
    }

    pub fn is_settled(&self) -> bool {
        self.settle == 2 || self.is_short
    }

    pub fn clock(&mut self, rst: bool, beat: Option<&Beat>, take: bool) {
        if take {
            self.frame_end = false;
        }
        self.settle = (self.settle + 1).min(2);
        if let Some(beat) = beat {
            self.accept(beat);
        }
        if rst {
            (self.frame_end, self.beat, self.is_tail, self.settle) = (false, 0, false, 0);
        }
    }

    fn accept(&mut self, beat: &Beat) {
        let ends = self.ends_now(beat);
        let beat_bytes = self.shape.beat_bytes;
        if !self.is_tail {
            let at = self.beat as usize * beat_bytes;
            if at <= SLOT_LAST_AT || (ends && beat_bytes == 64) {
                self.settle = 0;
            }
            if at < HEAD_BYTES {
                let count = beat_bytes.min(HEAD_BYTES - at);
                self.head[at..at + count].copy_from_slice(&beat.data[..count]);
            }
            if at + beat_bytes > PAYLOAD_AT {
                let from = PAYLOAD_AT.saturating_sub(at);
                let state = if at <= PAYLOAD_AT { !0 } else { self.payload_crc };
                let bytes = &beat.data[from.min(beat.len_bytes())..beat.len_bytes()];
                self.payload_crc = crc::over(state, bytes);
            }
        }
        if ends {
            self.frame_end = true;
            self.is_short = (self.beat as usize) < (PAYLOAD_AT - 1) / beat_bytes;
            self.is_long = !beat.last;
            self.is_bad = beat.last && beat.user;
            (self.last_beat, self.last_keep) = (self.beat, beat.keep);
        }
        if beat.last {
            (self.beat, self.is_tail) = (0, false);
        } else if ends || self.is_tail {
            self.is_tail = true;
        } else {
            self.beat += 1;
        }
    }

    pub fn beats(&self) -> u64 {
        self.last_beat + 1
    }

    /// The number in `count` bytes at `at`, as they stand on the wire.
    fn number(&self, at: usize, count: usize) -> u64 {
        self.head[at..at + count]
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    pub fn is_ours(&self, local: &Local) -> bool {
        let ends = self.last_beat * self.shape.beat_bytes as u64 + u64::from(self.last_keep.count_ones());
        let (mac, ipv4) = (self.number(0, 6), self.dst_ipv4());
        let announced = u64::from(self.payload_len()) + 48;
        let head_crc = !crc::over(!0, &self.head[42..78]);
        !self.is_short
            && !self.is_long
            && !self.is_bad
            && (mac == local.mac || (local.group_mac != 0 && mac == local.group_mac))
            && self.number(12, 3) == 0x08_0045
            && self.number(20, 2) & 0x3fff == 0
            && self.head[23] == 17
            && self.number(36, 2) == u64::from(local.port)
            && ipv4 != 0
            && (ipv4 == local.ipv4 || ipv4 == local.group_ipv4)
            && self.head[42..46] == frame::MAGIC
            && self.head[46] == frame::VERSION
            && self.number(38, 2) == announced
            && u64::from(self.ip_len()) == announced + 20
            && ends == announced + 34
            && self.number(78, 4) == u64::from(head_crc)
    }

    pub fn is_payload_ok(&self) -> bool {
        !self.payload_crc == self.stored_payload_crc()
    }

    pub fn is_bare(&self) -> bool {
        self.payload_len() == 0 && self.stored_payload_crc() == 0
    }

    pub fn is_put(&self) -> bool {
        let (command, key_len, first_len) = (self.head[98], self.head[99], self.number(100, 2));
        command == 1
            && key_len != 0
            && self.number(102, 4) == 0
            && u64::from(self.payload_len()) == 24 + u64::from(key_len) + first_len
    }

    pub fn src_mac(&self) -> u64 {
        self.number(6, 6)
    }
    pub fn ip_len(&self) -> u16 {
        self.number(16, 2) as u16
    }
    pub fn ip_checksum(&self) -> u16 {
        self.number(24, 2) as u16
    }
    pub fn src_ipv4(&self) -> u32 {
        self.number(26, 4) as u32
    }
    pub fn dst_ipv4(&self) -> u32 {
        self.number(30, 4) as u32
    }
    pub fn src_port(&self) -> u16 {
        self.number(34, 2) as u16
    }
    /// Address and port.
    pub fn src_place(&self) -> u64 {
        u64::from(self.src_ipv4()) << 16 | u64::from(self.src_port())
    }
    pub fn kind(&self) -> u8 {
        self.head[47]
    }
    pub fn payload_len(&self) -> u16 {
        self.number(48, 2) as u16
    }
    pub fn term(&self) -> u64 {
        self.number(50, 8)
    }
    pub fn slot(&self) -> u64 {
        self.number(58, 8)
    }
    pub fn sent_ns(&self) -> u64 {
        self.number(66, 8)
    }
    pub fn stored_payload_crc(&self) -> u32 {
        self.number(74, 4) as u32
    }
    pub fn client(&self) -> u64 {
        self.number(82, 8)
    }
    pub fn sequence(&self) -> u64 {
        self.number(90, 8)
    }
}
