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
