//! A packet, as an edge sends it, and the token that stands for it in queues and on wires.

use dataplane_queue::{Ecn, PAUSE_FRAME_BYTES, Queued};

/// What is left of a packet whose payload was cut off: NDP's headers are 64 B (Handley et al., SIGCOMM'17, section 3.1),
/// the shortest frame that Ethernet has (IEEE 802.3 §3.2.8).
pub const TRIMMED_BYTES: u32 = 64;

/// A packet on its way. `H` is the header of whatever protocol the edge speaks; the network never looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<H> {
    /// The flow that it belongs to.
    pub flow: u32,
    /// The host that sends it.
    pub from: u32,
    /// The host that it is for.
    pub to: u32,
    /// The frame, without the 24 bytes that Ethernet adds on the wire.
    pub bytes: u32,
    /// 0 to 7, the highest served first where queues know priorities.
    pub priority: u8,
    /// What its header says of congestion.
    pub ecn: Ecn,
    /// It has no payload that could be cut off: an acknowledgement, a pull.
    pub is_control: bool,
    /// Its payload was cut off on the way.
    pub is_trimmed: bool,
    /// A switch had no room for its header either and sent it back: it comes to the host that it is from.
    pub is_returned: bool,
    /// Picks among equal paths, together with the flow: a sender that changes it changes the path.
    pub path: u16,
    /// The protocol's.
    pub header: H,
}

/// What a queue holds for a packet: what switches need, in 20 bytes. The rest stays where it is, in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub place: u32,
    pub flow: u32,
    pub to: u32,
    pub bytes: u32,
    pub path: u16,
    ecn: Ecn,
    flags: u8,
}

const PRIORITY: u8 = 7;
const CONTROL: u8 = 1 << 3;
const TRIMMED: u8 = 1 << 4;
const RETURNED: u8 = 1 << 5;
const PAUSE: u8 = 1 << 6;

impl Token {
    pub fn new<H>(packet: &Packet<H>, place: u32) -> Token {
        let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
        Token {
            place,
            flow: packet.flow,
            to: packet.to,
            bytes: packet.bytes,
            path: packet.path,
            ecn: packet.ecn,
            flags: (packet.priority & PRIORITY)
                | flag(packet.is_control, CONTROL)
                | flag(packet.is_trimmed, TRIMMED)
                | flag(packet.is_returned, RETURNED),
        }
    }

    /// No packet, but a frame of flow control between two neighbours: which priorities it is about, and which of them are to be
    /// paused.
    pub fn pause(about: u8, paused: u8) -> Token {
        Token {
            place: u32::MAX,
            flow: 0,
            to: 0,
            bytes: PAUSE_FRAME_BYTES,
            path: u16::from_be_bytes([about, paused]),
            ecn: Ecn::NotCapable,
            flags: PAUSE,
        }
    }

    pub fn is_pause(&self) -> bool {
        self.flags & PAUSE != 0
    }

    /// Which priorities a pause is about, and which of them are to be paused.
    pub fn pause_of(&self) -> (u8, u8) {
        let [about, paused] = self.path.to_be_bytes();
        (about, paused)
    }

    /// 0 to 7.
    pub fn priority_level(&self) -> u8 {
        self.flags & PRIORITY
    }

    /// Writes what happened on the way into the packet.
    pub fn update<H>(&self, packet: &mut Packet<H>) {
        packet.bytes = self.bytes;
        packet.ecn = self.ecn;
        packet.is_trimmed = self.flags & TRIMMED != 0;
        packet.is_returned = self.flags & RETURNED != 0;
    }

    pub fn is_trimmed(&self) -> bool {
        self.flags & TRIMMED != 0
    }

    pub fn is_returned(&self) -> bool {
        self.flags & RETURNED != 0
    }

    /// Turns around, to the host that it came from.
    pub fn send_back(&mut self, to: u32) {
        self.to = to;
        self.flags |= RETURNED;
    }

    /// What goes into the hash of events: everything but the place, which is nobody's business.
    pub fn digest(&self) -> u64 {
        let rest =
            u64::from(self.bytes) << 8 | u64::from(self.flags) << 56 | u64::from(self.path) << 40 | self.ecn as u64;
        u64::from(self.flow) << 32 ^ u64::from(self.to) ^ rest.rotate_left(17)
    }
}

impl Queued for Token {
    fn bytes(&self) -> u32 {
        self.bytes
    }

    fn ecn(&self) -> Ecn {
        self.ecn
    }

    fn set_ecn(&mut self, ecn: Ecn) {
        self.ecn = ecn;
    }

    fn priority(&self) -> u8 {
        self.flags & PRIORITY
    }

    fn flow_hash(&self) -> u32 {
        super::routing::mix(self.flow)
    }

    fn trim(&mut self) -> bool {
        let can = !self.is_header() && self.bytes > TRIMMED_BYTES;
        if can {
            self.bytes = TRIMMED_BYTES;
            self.flags |= TRIMMED;
        }
        can
    }

    fn is_header(&self) -> bool {
        self.flags & (CONTROL | TRIMMED) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_small_and_gives_back_what_happened() {
        assert_eq!(size_of::<Token>(), 20);
        let mut packet = Packet {
            flow: 7,
            from: 1,
            to: 2,
            bytes: 1500,
            priority: 5,
            ecn: Ecn::Capable,
            is_control: false,
            is_trimmed: false,
            is_returned: false,
            path: 9,
            header: (),
        };
        let mut token = Token::new(&packet, 3);
        assert_eq!((token.priority(), token.is_header(), token.bytes()), (5, false, 1500));
        assert!(token.trim() && !token.trim());
        token.set_ecn(Ecn::Experienced);
        token.send_back(1);
        token.update(&mut packet);
        assert_eq!((packet.bytes, packet.ecn), (TRIMMED_BYTES, Ecn::Experienced));
        assert!(packet.is_trimmed && packet.is_returned && token.is_header());
        let pause = Token::pause(0b11, 0b10);
        assert!(pause.is_pause() && !token.is_pause());
        assert_eq!(pause.pause_of(), (0b11, 0b10));
    }
}
