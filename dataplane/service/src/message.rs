//! What a client and a service node say to each other, inside the lab's frame: the payload of an echo request and of its reply,
//! which the wire's own code takes for filler. The frame's slot names the call, its `sent_ns` comes back unchanged.
//!
//! ```text
//!  0        4      5            8        12           20            28
//!  +--------+------+------------+--------+------------+-------------+
//!  | client | verb | (nothing)  | flow   | work ns    | node ns     |
//!  +--------+------+------------+--------+------------+-------------+
//! ```
//!
//! Big-endian. A frame may be longer; what stands behind comes back as it was.

use core::ops::Range;

use dataplane_wire::{
    Reject, echo,
    frame::{self, HEADER_BYTES, Header, Kind},
};

const CLIENT: Range<usize> = 0..echo::PAYLOAD_BYTES_MIN;
const VERB: usize = 4;
const FLOW: Range<usize> = 8..12;
const WORK_NS: Range<usize> = 12..20;
const NODE_NS: Range<usize> = 20..28;

/// A frame of a service, header included.
pub const FRAME_BYTES: usize = HEADER_BYTES + NODE_NS.end;

/// Of `work_ns`: the node draws from its own model.
pub const NODE_DRAWS: u64 = u64::MAX;

/// What is wanted, or what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    /// Serve this.
    Serve = 1,
    /// Serve this, and say when it begins.
    ServeAndTell = 2,
    /// Do not, if it has not begun.
    Withdraw = 3,
    /// It has begun.
    Began = 4,
    /// It is done.
    Done = 5,
}

impl Verb {
    const ALL: [Verb; 5] = [Verb::Serve, Verb::ServeAndTell, Verb::Withdraw, Verb::Began, Verb::Done];

    fn is_asked(self) -> bool {
        matches!(self, Verb::Serve | Verb::ServeAndTell | Verb::Withdraw)
    }
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which client of the run.
    pub client: u32,
    /// Which of its calls.
    pub call: u64,
    /// When it was meant to be sent, nanoseconds of the client's clock.
    pub sent_ns: u64,
    /// What it says.
    pub verb: Verb,
    /// A hash of who asks.
    pub flow: u32,
    /// How long it takes a worker, in nanoseconds, or [`NODE_DRAWS`].
    pub work_ns: u64,
    /// In an answer: from its arrival at the node until now, in nanoseconds of the node's clock.
    pub node_ns: u64,
}

impl Message {
    /// Names the call of a client to whoever withdraws it.
    pub fn id(&self) -> u64 {
        u64::from(self.client) << 40 ^ self.call
    }
}

/// Reads a message out of a frame.
///
/// # Errors
/// The frame's own [`Reject`]; [`Reject::Kind`] if it is no message of a service; [`Reject::Short`] without all fields.
pub fn parse(bytes: &[u8]) -> Result<Message, Reject> {
    let frame = frame::parse(bytes)?;
    let payload = frame.payload.get(..NODE_NS.end).ok_or(Reject::Short)?;
    let verb = Verb::ALL
        .into_iter()
        .find(|verb| *verb as u8 == payload[VERB])
        .ok_or(Reject::Kind)?;
    let expected = match verb.is_asked() {
        true => Kind::EchoRequest,
        false => Kind::EchoReply,
    };
    if frame.header.kind != expected {
        return Err(Reject::Kind);
    }
    Ok(Message {
        client: u32::from_be_bytes(array(&payload[CLIENT])),
        call: frame.header.slot,
        sent_ns: frame.header.sent_ns,
        verb,
        flow: u32::from_be_bytes(array(&payload[FLOW])),
        work_ns: u64::from_be_bytes(array(&payload[WORK_NS])),
        node_ns: u64::from_be_bytes(array(&payload[NODE_NS])),
    })
}

/// Writes a message over all of `bytes`; what is longer than [`FRAME_BYTES`] is filled with zeros.
///
/// # Panics
/// If `bytes` are fewer than [`FRAME_BYTES`].
pub fn emit(message: &Message, bytes: &mut [u8]) {
    let payload = &mut bytes[HEADER_BYTES..];
    payload.fill(0);
    payload[CLIENT].copy_from_slice(&message.client.to_be_bytes());
    payload[VERB] = message.verb as u8;
    payload[FLOW].copy_from_slice(&message.flow.to_be_bytes());
    payload[WORK_NS].copy_from_slice(&message.work_ns.to_be_bytes());
    payload[NODE_NS].copy_from_slice(&message.node_ns.to_be_bytes());
    let kind = match message.verb.is_asked() {
        true => Kind::EchoRequest,
        false => Kind::EchoReply,
    };
    let header = Header {
        kind,
        term: 0,
        slot: message.call,
        sent_ns: message.sent_ns,
    };
    frame::emit(&header, bytes);
}

/// A field as an array.
fn array<const N: usize>(field: &[u8]) -> [u8; N] {
    field.try_into().expect("a field's range is as long as its type")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parse_undoes_emit(client: u32, call: u64, sent_ns: u64, verb in 0usize..5, flow: u32, work_ns: u64, node_ns: u64, more in 0usize..40) {
            let message = Message { client, call, sent_ns, verb: Verb::ALL[verb], flow, work_ns, node_ns };
            let mut bytes = vec![0xaa; FRAME_BYTES + more];
            emit(&message, &mut bytes);
            prop_assert_eq!(parse(&bytes), Ok(message));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_reason() {
        let message = Message {
            client: 1,
            call: 2,
            sent_ns: 3,
            verb: Verb::Serve,
            flow: 4,
            work_ns: 5,
            node_ns: 0,
        };
        let mut bytes = [0; FRAME_BYTES];
        emit(&message, &mut bytes);
        let with = |verb: u8, kind: Kind| {
            let mut damaged = bytes;
            damaged[HEADER_BYTES + VERB] = verb;
            let header = frame::parse(&bytes).expect("ours").header;
            frame::emit(&Header { kind, ..header }, &mut damaged);
            parse(&damaged)
        };
        assert_eq!(with(9, Kind::EchoRequest), Err(Reject::Kind));
        // An answer that comes as a request, so that two nodes cannot talk to each other for ever.
        assert_eq!(with(Verb::Done as u8, Kind::EchoRequest), Err(Reject::Kind));
        assert_eq!(with(Verb::Serve as u8, Kind::EchoReply), Err(Reject::Kind));
        let mut echo = [0; HEADER_BYTES + 4];
        frame::emit(&frame::parse(&bytes).expect("ours").header, &mut echo);
        assert_eq!(parse(&echo), Err(Reject::Short));
    }
}
