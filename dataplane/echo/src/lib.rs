//! The echo protocol: send back what came, header kind changed, payload untouched.
//!
//! The smallest protocol there is, and so the measure of what carries it.
#![forbid(unsafe_code)]

mod client;

pub use client::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, FrameSize, Reply, RequestTemplate, reply, request};

use dataplane_waist::{Effects, Input, Instant, Protocol};
use dataplane_wire::{
    Reject,
    frame::{self, Header, Kind},
};

/// The answering side.
#[derive(Debug, Default)]
pub struct EchoServer;

impl Protocol for EchoServer {
    fn handle(&mut self, _now: Instant, input: Input<'_>, out: &mut Effects) {
        let Input::Frame { from, bytes } = input else { return };
        match frame::parse(bytes) {
            Ok(request) if request.header.kind == Kind::EchoRequest => {
                let header = Header {
                    kind: Kind::EchoReply,
                    ..request.header
                };
                // Full means that this reply is lost, as in a full ring; the node counts it.
                let _ = out.send(from, bytes.len(), |reply| {
                    reply[frame::HEADER_BYTES..].copy_from_slice(request.payload);
                    frame::emit_with_crc(&header, request.payload_crc, reply);
                });
            }
            Ok(_) => out.reject(Reject::Kind),
            Err(reason) => out.reject(reason),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }
}

#[cfg(test)]
mod tests {
    use dataplane_waist::{MemoryLog, Node, Peer, testing::TestPort};
    use proptest::prelude::*;

    use super::*;

    const PEER: Peer = Peer(2);

    /// What one input causes: the frames sent, and the counters.
    fn handled(input: Input<'_>) -> (Vec<(Peer, Vec<u8>)>, Effects) {
        let mut effects = Effects::with_capacity(4, 4096);
        EchoServer.handle(Instant::ZERO, input, &mut effects);
        let sends = effects.sends().map(|(to, bytes)| (to, bytes.to_vec())).collect();
        (sends, effects)
    }

    /// A frame of the kind with its 24-byte payload.
    fn frame_of(kind: Kind) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        request(1, 2, 3, &mut bytes);
        let header = frame::parse(&bytes).expect("a request of ours").header;
        frame::emit(&Header { kind, ..header }, &mut bytes);
        bytes
    }

    fn rejected(bytes: &[u8]) -> Vec<Reject> {
        let (sends, effects) = handled(Input::Frame { from: PEER, bytes });
        assert_eq!(sends, [], "nobody answers what was not understood");
        let counts = Reject::ALL.iter().zip(effects.rejects());
        counts
            .flat_map(|(reason, &count)| std::iter::repeat_n(*reason, count as usize))
            .collect()
    }

    #[test]
    fn a_request_comes_back_as_a_reply_to_its_sender() {
        let bytes = frame_of(Kind::EchoRequest);
        let (sends, effects) = handled(Input::Frame {
            from: PEER,
            bytes: &bytes,
        });
        assert_eq!(sends, [(PEER, frame_of(Kind::EchoReply))]);
        assert_eq!(effects.rejects().iter().sum::<u64>(), 0);
    }

    #[test]
    fn other_kinds_are_counted_and_not_answered() {
        // Above all its own kind of answer: two servers must not play ping-pong for ever.
        for kind in [Kind::EchoReply, Kind::QuorumRequest, Kind::QuorumReply] {
            assert_eq!(rejected(&frame_of(kind)), [Reject::Kind], "{kind:?}");
        }
    }

    #[test]
    fn each_damage_is_counted_under_its_reason() {
        let good = frame_of(Kind::EchoRequest);
        let damaged = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 0xff;
            rejected(&bytes)
        };
        assert_eq!(rejected(&[]), [Reject::Short]);
        assert_eq!(rejected(&good[..39]), [Reject::Short]);
        assert_eq!(rejected(&good[..63]), [Reject::Short]);
        assert_eq!(rejected(&[&good[..], b"x"].concat()), [Reject::Long]);
        assert_eq!(damaged(frame::field::MAGIC.start), [Reject::Magic]);
        assert_eq!(damaged(frame::field::VERSION.start), [Reject::Version]);
        assert_eq!(damaged(frame::field::KIND.start), [Reject::Kind]);
        assert_eq!(damaged(frame::field::SLOT.start), [Reject::HeaderChecksum]);
        assert_eq!(damaged(frame::field::HEADER_CRC.start), [Reject::HeaderChecksum]);
        assert_eq!(damaged(frame::HEADER_BYTES), [Reject::PayloadChecksum]);
    }

    #[test]
    fn other_inputs_cause_nothing() {
        for input in [Input::Tick, Input::Durable(dataplane_waist::Durable::default())] {
            let (sends, effects) = handled(input);
            assert_eq!((sends.len(), effects.appends().count()), (0, 0));
        }
        assert_eq!(EchoServer.wake_at(), None);
    }

    #[test]
    fn a_node_answers_a_client_and_counts_a_stranger() {
        let template = RequestTemplate::new(7, 64).expect("a size in bounds");
        let mut request = [0; 64];
        template.stamp(&mut request, 11, 12);
        let mut port = TestPort::new(64, 8);
        port.put_rx(PEER, &request);
        port.put_rx(PEER, b"GET / HTTP/1.1\r\nHost: an.entirely.different.protocol\r\n\r\n");
        let mut node = Node::new(port, MemoryLog::new(), EchoServer, 1);
        assert_eq!(node.turn(Instant::ZERO).expect("a test port"), 2);
        assert_eq!(node.stats().rejects[Reject::Magic.index()], 1);
        let (mut port, ..) = node.into_parts();
        let [(PEER, bytes)] = &port.drain_tx()[..] else {
            panic!("one reply")
        };
        let expected = Reply {
            seq: 11,
            sent_ns: 12,
            payload_intact: true,
        };
        assert_eq!(reply(bytes, 7), Ok(expected));
    }

    proptest! {
        /// Any bytes: a reply or one count, never both, never a panic.
        #[test]
        fn any_bytes_are_answered_or_counted(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (sends, effects) = handled(Input::Frame { from: PEER, bytes: &bytes });
            prop_assert_eq!(sends.len() as u64 + effects.rejects().iter().sum::<u64>(), 1);
        }

        /// Frames that are right but for a few bytes get further into the parser than noise does.
        #[test]
        fn nearly_right_bytes_are_answered_or_counted(
            damage in prop::collection::vec((0usize..64, any::<u8>()), 0..3),
            len_bytes in 0usize..=64,
        ) {
            let mut bytes = frame_of(Kind::EchoRequest);
            for (at, value) in damage {
                bytes[at] = value;
            }
            bytes.truncate(len_bytes);
            let intact = bytes == frame_of(Kind::EchoRequest);
            let (sends, effects) = handled(Input::Frame { from: PEER, bytes: &bytes });
            prop_assert_eq!(sends.len(), usize::from(intact));
            prop_assert_eq!(effects.rejects().iter().sum::<u64>(), u64::from(!intact));
        }
    }
}
