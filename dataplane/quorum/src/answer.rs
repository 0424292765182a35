//! A frame back to a client.

use dataplane_waist::{Effects, Peer, Term};
use dataplane_wire::{
    frame::{self, Header, Kind},
    quorum::{
        reply::{self, Outcome, Reply},
        request::Request,
    },
};

/// Sends the outcome of `request`, with the request's own word. No room means a lost answer: the client asks again.
pub(crate) fn send(out: &mut Effects, to: Peer, term: Term, sent_ns: u64, request: &Request<'_>, outcome: Outcome<'_>) {
    let reply = Reply {
        client: request.client,
        sequence: request.sequence,
        outcome,
    };
    let header = Header {
        kind: Kind::QuorumReply,
        term: term.0,
        slot: request.sequence,
        sent_ns,
    };
    let _ = out.send(to, frame::HEADER_BYTES + reply.len_bytes(), |bytes| {
        reply::emit(&reply, &mut bytes[frame::HEADER_BYTES..]);
        frame::emit(&header, bytes);
    });
}
