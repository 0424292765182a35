//! Golden vectors: bytes on the wire, and what every decoder of them must say, whatever it is written in. User space,
//! XDP programs and RTL test benches run the same list.
//!
//! The bytes were computed by another implementation than this crate's, from the RFCs' text, so that a mistake that
//! `emit` and `parse` share does not pass.

mod catch_up;
mod datagrams;
mod fast_path;
mod frames;
mod replies;
mod requests;
mod snapshots;
mod votes;

pub use catch_up::{ENTRIES, REPORTS};
pub use datagrams::DATAGRAMS;
pub use fast_path::{ACKS, APPENDS};
pub use frames::{ECHOES, FRAMES};
pub use replies::REPLIES;
pub use requests::REQUESTS;
pub use snapshots::{SNAPSHOT_CHUNKS, SNAPSHOT_REPORTS};
pub use votes::{VOTE_REPLIES, VOTE_REQUESTS};

use crate::Reject;

/// Bytes and what they are.
#[derive(Clone, Copy, Debug)]
pub struct Vector<T> {
    /// What is special about it; unique in its list.
    pub name: &'static str,
    /// The bytes.
    pub bytes: &'static [u8],
    /// What `parse` must say.
    pub expect: Result<T, Reject>,
    /// Whether `emit` of what `parse` said gives these bytes again. (Padding, IPv4 options and a left-out checksum are
    /// understood, but not sent.)
    pub canonical: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        datagram, echo, frame,
        quorum::{ack, append, entries, reply, report, request, snapshot, vote},
        udp::{Checksum, Verify},
    };
    use core::fmt::Debug;
    use std::collections::BTreeSet;

    /// Runs a list through a decoder, and what is canonical back through the encoder.
    fn hold<T: Copy + PartialEq + Debug>(
        list: &[Vector<T>],
        parse: impl Fn(&'static [u8]) -> Result<T, Reject>,
        emit: impl Fn(&T) -> Vec<u8>,
    ) {
        let mut names = BTreeSet::new();
        for Vector {
            name,
            bytes,
            expect,
            canonical,
        } in list
        {
            assert!(names.insert(name), "two vectors are called {name}");
            assert_eq!(parse(bytes), *expect, "parse of {name}");
            match expect {
                Ok(value) => assert_eq!(emit(value) == *bytes, *canonical, "emit of {name}"),
                Err(_) => assert!(!canonical, "{name} is refused, so nothing can emit it"),
            }
        }
    }

    #[test]
    fn frames() {
        hold(
            FRAMES,
            |bytes| frame::parse(bytes).map(|frame| (frame.header, frame.payload)),
            |(header, payload)| {
                let mut bytes = [&[0xaa; frame::HEADER_BYTES], *payload].concat();
                frame::emit(header, &mut bytes);
                bytes
            },
        );
    }

    #[test]
    fn echoes() {
        hold(ECHOES, echo::parse, |echo| {
            let mut bytes = vec![0xaa; echo::PAYLOAD_BYTES_MIN + echo.filler.len()];
            echo::emit(echo, &mut bytes);
            bytes
        });
    }

    #[test]
    fn datagrams() {
        hold(
            DATAGRAMS,
            |bytes| {
                let datagram = datagram::parse(bytes, Verify::Checksum)?;
                Ok((datagram.header, &bytes[datagram.payload]))
            },
            |(header, payload)| {
                let mut bytes = vec![0xaa; header.len_bytes()];
                bytes.extend_from_slice(payload);
                datagram::emit(header, Checksum::Full, &mut bytes);
                bytes
            },
        );
    }

    #[test]
    fn requests() {
        hold(REQUESTS, request::parse, |request| {
            let mut bytes = vec![0xaa; request.len_bytes()];
            request::emit(request, &mut bytes);
            bytes
        });
    }

    #[test]
    fn replies() {
        hold(REPLIES, reply::parse, |reply| {
            let mut bytes = vec![0xaa; reply.len_bytes()];
            reply::emit(reply, &mut bytes);
            bytes
        });
    }

    /// Lists of whole frames whose message is spread over header and payload.
    macro_rules! messages {
        ($($test:ident: $list:ident, $parse:path;)*) => {$(
            #[test]
            fn $test() {
                hold(
                    $list,
                    |bytes| $parse(&frame::parse(bytes)?),
                    |message| {
                        let mut bytes = vec![0xaa; frame::HEADER_BYTES + message.payload_bytes()];
                        message.emit(&mut bytes);
                        bytes
                    },
                );
            }
        )*};
    }

    messages! {
        appends: APPENDS, append::parse;
        acks: ACKS, ack::parse;
        entries: ENTRIES, entries::parse;
        reports: REPORTS, report::parse;
        vote_requests: VOTE_REQUESTS, vote::parse_request;
        vote_replies: VOTE_REPLIES, vote::parse_reply;
        snapshot_chunks: SNAPSHOT_CHUNKS, snapshot::parse_chunk;
        snapshot_reports: SNAPSHOT_REPORTS, snapshot::parse_report;
    }
}
