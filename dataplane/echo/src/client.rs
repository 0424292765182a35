//! The asking side: writes requests, checks replies. The load generator decides when; here is only what.
//!
//! The filler is one fixed sequence, the same for every client and every size, so a reply can be checked byte for byte
//! without keeping the request, and a request costs a copy and 36 bytes of CRC.

use dataplane_wire::{
    Reject,
    checksum::crc32c,
    echo,
    frame::{self, HEADER_BYTES, Header, Kind, PAYLOAD_BYTES_MAX},
};

/// The smallest echo frame: a header and the client's number.
pub const FRAME_BYTES_MIN: usize = HEADER_BYTES + echo::PAYLOAD_BYTES_MIN;
/// The largest echo frame that the header's 16-bit length can say. A port may carry less.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX;

/// What stands behind the client's number: the top byte of each index times 2³² divided by the golden ratio (Knuth,
/// The Art of Computer Programming vol. 3, §6.4). Neighbours differ, and no short period hides a piece that moved.
static FILLER: [u8; PAYLOAD_BYTES_MAX - echo::PAYLOAD_BYTES_MIN] = {
    let mut filler = [0; PAYLOAD_BYTES_MAX - echo::PAYLOAD_BYTES_MIN];
    let mut index = 0;
    while index < filler.len() {
        filler[index] = ((index as u32).wrapping_mul(0x9E37_79B1) >> 24) as u8;
        index += 1;
    }
    filler
};

/// The size asked for is not one an echo frame can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSize {
    /// What was asked for.
    pub frame_bytes: usize,
}

impl core::fmt::Display for FrameSize {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let seen = self.frame_bytes;
        write!(
            f,
            "an echo frame has {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX} bytes, header included; {seen} was asked for"
        )
    }
}

impl core::error::Error for FrameSize {}

/// A request of one client and one size, written beforehand, so that sending it costs a copy and the header's checksum.
#[derive(Clone, Debug)]
pub struct RequestTemplate {
    payload: Box<[u8]>,
    payload_crc: u32,
}

impl RequestTemplate {
    /// Requests of `client`, `frame_bytes` long with their header.
    ///
    /// # Errors
    /// [`FrameSize`] outside [`FRAME_BYTES_MIN`] to [`FRAME_BYTES_MAX`].
    pub fn new(client: u32, frame_bytes: usize) -> Result<RequestTemplate, FrameSize> {
        if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame_bytes) {
            return Err(FrameSize { frame_bytes });
        }
        let mut payload = vec![0; frame_bytes - HEADER_BYTES].into_boxed_slice();
        emit_payload(client, &mut payload);
        let payload_crc = crc32c(&payload);
        Ok(RequestTemplate { payload, payload_crc })
    }

    /// The length of every frame of this template, header included.
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    /// Writes the request number `seq`, meant to be sent at `sent_ns` of the client's clock, over all of `frame`.
    ///
    /// # Panics
    /// If `frame` is not [`RequestTemplate::frame_bytes`] long.
    pub fn stamp(&self, frame: &mut [u8], seq: u64, sent_ns: u64) {
        frame[HEADER_BYTES..].copy_from_slice(&self.payload);
        frame::emit_with_crc(&header(seq, sent_ns), self.payload_crc, frame);
    }
}

/// Writes one request over all of `frame`; the same bytes that a [`RequestTemplate`] stamps, at the cost of a CRC over
/// the payload.
///
/// # Panics
/// If `frame` is not [`FRAME_BYTES_MIN`] to [`FRAME_BYTES_MAX`] long.
pub fn request(client: u32, seq: u64, sent_ns: u64, frame: &mut [u8]) {
    emit_payload(client, &mut frame[HEADER_BYTES..]);
    frame::emit(&header(seq, sent_ns), frame);
}

/// A reply to a request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request's number.
    pub seq: u64,
    /// When the request was meant to be sent, as the client wrote it there.
    pub sent_ns: u64,
    /// Whether the filler is the one that was sent. `false` means that a server changed a payload and checksummed the
    /// change: a bug, where a bad checksum would be the network's doing.
    pub payload_intact: bool,
}

/// Reads a reply to `client`. Its length is the caller's to check, who knows what was asked.
///
/// # Errors
/// The frame's own [`Reject`]; [`Reject::Kind`] if it is no echo reply; [`Reject::Stranger`] if it answers another
/// client, such as an earlier one on the same port.
pub fn reply(bytes: &[u8], client: u32) -> Result<Reply, Reject> {
    let frame = frame::parse(bytes)?;
    if frame.header.kind != Kind::EchoReply {
        return Err(Reject::Kind);
    }
    let echo = echo::parse(frame.payload)?;
    if echo.client != client {
        return Err(Reject::Stranger);
    }
    Ok(Reply {
        seq: frame.header.slot,
        sent_ns: frame.header.sent_ns,
        payload_intact: *echo.filler == FILLER[..echo.filler.len()],
    })
}

fn header(seq: u64, sent_ns: u64) -> Header {
    Header {
        kind: Kind::EchoRequest,
        term: 0,
        slot: seq,
        sent_ns,
    }
}

fn emit_payload(client: u32, payload: &mut [u8]) {
    let filler = &FILLER[..payload.len() - echo::PAYLOAD_BYTES_MIN];
    echo::emit(&echo::Echo { client, filler }, payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What an honest server sends back.
    fn answered(request: &[u8]) -> Vec<u8> {
        let parsed = frame::parse(request).expect("a request of ours parses");
        let header = Header {
            kind: Kind::EchoReply,
            ..parsed.header
        };
        let mut bytes = request.to_vec();
        frame::emit(&header, &mut bytes);
        bytes
    }

    #[test]
    fn sizes_outside_the_frame_are_refused_with_the_bound() {
        for frame_bytes in [0, FRAME_BYTES_MIN - 1, FRAME_BYTES_MAX + 1, usize::MAX] {
            let error = RequestTemplate::new(1, frame_bytes).expect_err("out of bounds");
            let said = error.to_string();
            assert!(
                said.contains("44 to 65575") && said.contains(&frame_bytes.to_string()),
                "{said}"
            );
        }
        for frame_bytes in [FRAME_BYTES_MIN, FRAME_BYTES_MAX] {
            let template = RequestTemplate::new(1, frame_bytes).expect("a bound itself is allowed");
            assert_eq!(template.frame_bytes(), frame_bytes);
        }
    }

    #[test]
    fn a_changed_filler_with_a_right_checksum_is_told() {
        let mut bytes = vec![0; 64];
        request(7, 1, 2, &mut bytes);
        bytes[63] ^= 1;
        frame::emit(&header(1, 2), &mut bytes);
        let reply = reply(&answered(&bytes), 7).expect("every checksum is right");
        assert!(!reply.payload_intact);
    }

    #[test]
    fn what_is_not_our_reply_is_rejected_by_reason() {
        let mut bytes = vec![0; 64];
        request(7, 1, 2, &mut bytes);
        assert_eq!(reply(&bytes, 7), Err(Reject::Kind), "a request is no reply");
        assert_eq!(reply(&answered(&bytes), 8), Err(Reject::Stranger));

        let mut without_client = [0; HEADER_BYTES + 3];
        let header = Header {
            kind: Kind::EchoReply,
            ..header(1, 2)
        };
        frame::emit(&header, &mut without_client);
        assert_eq!(reply(&without_client, 7), Err(Reject::Short));
    }

    proptest! {
        #[test]
        fn the_template_and_the_function_write_the_same_bytes_and_the_reply_reads_them(
            client: u32, seq: u64, sent_ns: u64, frame_bytes in FRAME_BYTES_MIN..4096,
        ) {
            let template = RequestTemplate::new(client, frame_bytes).unwrap();
            let (mut stamped, mut plain) = (vec![0xff; frame_bytes], vec![0; frame_bytes]);
            template.stamp(&mut stamped, seq, sent_ns);
            request(client, seq, sent_ns, &mut plain);
            prop_assert_eq!(&stamped, &plain);
            let read = reply(&answered(&stamped), client);
            prop_assert_eq!(read, Ok(Reply { seq, sent_ns, payload_intact: true }));
        }

        #[test]
        fn a_single_flipped_bit_never_passes_as_a_reply(seq: u64, bit in 0usize..64 * 8) {
            let mut bytes = vec![0; 64];
            request(7, seq, 2, &mut bytes);
            let mut bytes = answered(&bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(reply(&bytes, 7).is_err());
        }

        #[test]
        fn any_bytes_are_answered_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..256), client: u32) {
            prop_assert!(reply(&bytes, client).is_err());
        }
    }
}
