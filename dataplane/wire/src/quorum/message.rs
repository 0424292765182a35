//! What the replicas' messages have in common: the way from a checked frame to a message's fixed part, and back.

use crate::{
    Reject,
    frame::{self, Frame, HEADER_BYTES, Header, Kind},
};

/// The payload of a frame that must be of this kind.
pub(super) fn payload_of<'a>(frame: &Frame<'a>, kind: Kind) -> Result<&'a [u8], Reject> {
    if frame.header.kind != kind {
        return Err(Reject::Kind);
    }
    Ok(frame.payload)
}

/// A payload that has a fixed part alone.
pub(super) fn whole<const LEN: usize>(payload: &[u8]) -> Result<&[u8; LEN], Reject> {
    match payload.split_first_chunk() {
        None => Err(Reject::Short),
        Some((head, [])) => Ok(head),
        Some(_) => Err(Reject::Long),
    }
}

/// [`Reject::Length`] where it is not so.
pub(super) fn require(is_so: bool) -> Result<(), Reject> {
    if is_so { Ok(()) } else { Err(Reject::Length) }
}

/// Yes or no, as one byte.
pub(super) fn flag(byte: u8) -> Result<bool, Reject> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Reject::Length),
    }
}

/// Writes a frame whose payload `emit_payload` writes.
///
/// # Panics
/// If `frame` is shorter than the header, or its payload longer than the header can say.
pub(super) fn emit(header: &Header, frame: &mut [u8], emit_payload: impl FnOnce(&mut [u8])) {
    emit_payload(&mut frame[HEADER_BYTES..]);
    frame::emit(header, frame);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use core::fmt::Debug;

    /// Of a message that is no more than a fixed part: it and all that differ from it by one bit say no or are what
    /// `emit` writes, and it has no other length and no other kind.
    pub(crate) fn hold_fixed<T: Debug>(
        bytes: &[u8],
        parse: impl Fn(&Frame<'_>) -> Result<T, Reject>,
        emit: impl Fn(&T, &mut [u8]),
    ) {
        let frame = frame::parse(bytes).expect("emit makes a frame");
        let again = |frame: &Frame<'_>| {
            let message = parse(frame).ok()?;
            let mut again = vec![0xaa; HEADER_BYTES + frame.payload.len()];
            emit(&message, &mut again);
            let (header, payload) = (frame.header, frame.payload);
            let written = frame::parse(&again).expect("emit makes a frame");
            assert_eq!((written.header, written.payload), (header, payload), "{message:?}");
            Some(())
        };
        assert_eq!(again(&frame), Some(()), "what emit wrote does not parse");
        for bit in 0..frame.payload.len() * 8 {
            let mut payload = frame.payload.to_vec();
            payload[bit / 8] ^= 1 << (bit % 8);
            again(&Frame {
                payload: &payload,
                ..frame
            });
        }
        for bit in 0..64 {
            for (slot, sent_ns) in [(1 << bit, 0), (0, 1 << bit)] {
                let header = Header {
                    slot: frame.header.slot ^ slot,
                    sent_ns: frame.header.sent_ns ^ sent_ns,
                    ..frame.header
                };
                again(&Frame { header, ..frame });
            }
        }
        for cut in 0..frame.payload.len() {
            let payload = &frame.payload[..cut];
            assert_eq!(
                parse(&Frame { payload, ..frame }).err(),
                Some(Reject::Short),
                "{cut} bytes"
            );
        }
        let payload = &[frame.payload, &[0]].concat();
        assert_eq!(parse(&Frame { payload, ..frame }).err(), Some(Reject::Long));
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != frame.header.kind) {
            let header = Header { kind, ..frame.header };
            assert_eq!(parse(&Frame { header, ..frame }).err(), Some(Reject::Kind), "{kind:?}");
        }
    }
}
