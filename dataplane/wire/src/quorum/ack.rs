//! The fast path's answer, which is a header and nothing else: a program in the kernel can make it from an append.
//!
//! ```text
//!  0      4   5   6     8            16           24           32        36        40
//!  +------+---+---+-----+------------+------------+------------+---------+---------+
//!  |magic |ver| 6 |  0  | term       | end        | echo       |    0    | head crc|
//!  +------+---+---+-----+------------+------------+------------+---------+---------+
//! ```

use super::message;
use crate::{
    Reject,
    frame::{self, Frame, Header, Kind},
};

/// "Everything before `end` is as safe as I make it, and equals the log of the leader of `term`."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The leader's term.
    pub term: u64,
    /// The first slot that this does not speak of.
    pub end: u64,
    /// [`ASKS`], and in a chain of programs the nodes that it speaks for, as bits; otherwise zero.
    pub echo: u64,
}

/// In [`Ack::echo`]: later entries have come, and the one in slot `end` has not: please send it again.
pub const ASKS: u64 = 1 << 63;

/// Reads an acknowledgement.
///
/// # Errors
/// [`Reject::Kind`] for another kind of frame; [`Reject::Long`] for one with a payload.
pub fn parse(frame: &Frame<'_>) -> Result<Ack, Reject> {
    message::whole::<0>(message::payload_of(frame, Kind::Ack)?)?;
    Ok(Ack {
        term: frame.header.term,
        end: frame.header.slot,
        echo: frame.header.sent_ns,
    })
}

impl Ack {
    /// The frame's header.
    pub const fn header(&self) -> Header {
        Header {
            kind: Kind::Ack,
            term: self.term,
            slot: self.end,
            sent_ns: self.echo,
        }
    }

    /// Whether the entry in slot `end` is asked for.
    pub const fn asks(&self) -> bool {
        self.echo & ASKS != 0
    }

    /// Length of the payload: none.
    pub const fn payload_bytes(&self) -> usize {
        0
    }

    /// Writes the frame.
    ///
    /// # Panics
    /// If `frame` is not as long as a header.
    pub fn emit(&self, frame: &mut [u8]) {
        assert_eq!(frame.len(), frame::HEADER_BYTES, "an acknowledgement is a header");
        frame::emit(&self.header(), frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parse_undoes_emit(term: u64, end: u64, echo: u64) {
            let ack = Ack { term, end, echo };
            let mut bytes = [0xaa; frame::HEADER_BYTES];
            ack.emit(&mut bytes);
            let frame = frame::parse(&bytes).expect("emit makes a frame");
            prop_assert_eq!(parse(&frame), Ok(ack));
            prop_assert_eq!(parse(&Frame { payload: &[0], ..frame }), Err(Reject::Long));
            let header = Header { kind: Kind::Append, ..frame.header };
            prop_assert_eq!(parse(&Frame { header, ..frame }), Err(Reject::Kind));
        }
    }
}
