//! What the suite asks for beside the frames of [`fpga_model::frames`]: any command, of any session.

use dataplane_wire::{
    frame::Kind,
    quorum::request::{self, Command, Request},
};
use fpga_model::frames::{CLIENT, framed, node_at, wrapped};

/// The payload of a request.
pub fn requested(client: u64, sequence: u64, command: Command<'_>) -> Vec<u8> {
    let request = Request {
        client,
        sequence,
        command,
    };
    let mut payload = vec![0; request.len_bytes()];
    request::emit(&request, &mut payload);
    payload
}

/// A put, from the client to the leader.
pub fn put(client: u64, sequence: u64, value: &[u8]) -> Vec<u8> {
    let payload = requested(client, sequence, Command::Put { key: b"key", value });
    let frame = framed(Kind::QuorumRequest, [0, sequence, 5_000 + sequence], &payload);
    wrapped(CLIENT, node_at(0), &frame)
}
