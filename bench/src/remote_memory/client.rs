//! A client in the leader's thread: one request at a time, from the call to the answer.

use std::time::Duration;

use anyhow::{Context, bail};
use dataplane_waist::Peer;
use dataplane_wire::{
    frame::{self, Header, Kind},
    quorum::{
        reply::{self, Outcome},
        request::{self, Command, Request},
    },
};
use rdma::Provider;

use super::Node;

/// Not a replica.
const CLIENT: Peer = Peer(1 << 16);

/// One session.
#[derive(Debug)]
pub struct Client {
    client: u64,
    sequence: u64,
    frame: Vec<u8>,
    value: Vec<u8>,
}

impl Client {
    /// A client whose values have so many bytes.
    pub fn new(value_bytes: usize) -> Client {
        Client {
            client: 0,
            sequence: 0,
            frame: Vec::new(),
            value: vec![0x5A; value_bytes],
        }
    }

    /// How many bytes of a slot an entry of this client's takes: what a bare write is to write.
    pub fn slot_bytes(&self) -> usize {
        let put = Request {
            client: 1,
            sequence: 1,
            command: self.put(),
        };
        dataplane_quorum::onesided::layout::written_bytes(put.len_bytes())
    }

    fn put(&self) -> Command<'_> {
        Command::Put {
            key: b"k",
            value: &self.value,
        }
    }

    /// Asks for a session, or for the next put.
    pub fn ask<P: Provider>(&mut self, node: &mut Node<P>) {
        let (client, is_open) = (self.client, self.client != 0);
        self.sequence += 1;
        let mut frame = std::mem::take(&mut self.frame);
        let request = Request {
            client,
            sequence: self.sequence,
            command: match is_open {
                true => self.put(),
                false => Command::Open,
            },
        };
        let header = Header {
            kind: Kind::QuorumRequest,
            term: 0,
            slot: self.sequence,
            sent_ns: 0,
        };
        frame.resize(frame::HEADER_BYTES + request.len_bytes(), 0);
        request::emit(&request, &mut frame[frame::HEADER_BYTES..]);
        frame::emit(&header, &mut frame);
        node.replica.on_frame(CLIENT, &frame, &mut node.out);
        self.frame = frame;
    }

    /// Whether it was answered.
    ///
    /// # Errors
    /// The answer is no.
    pub fn is_answered<P: Provider>(&mut self, node: &mut Node<P>) -> anyhow::Result<bool> {
        let mut is_answered = false;
        for (_, bytes) in node.out.sends() {
            let frame = frame::parse(bytes).map_err(|reject| anyhow::anyhow!("an answer that is none: {reject:?}"))?;
            let reply = reply::parse(frame.payload);
            let reply = reply.map_err(|reject| anyhow::anyhow!("an answer that is none: {reject:?}"))?;
            is_answered |= match reply.outcome {
                Outcome::Opened { client } => {
                    (self.client, self.sequence) = (client, 0);
                    true
                }
                Outcome::Done if reply.sequence == self.sequence => true,
                outcome => bail!("the leader answers {outcome:?}"),
            };
        }
        node.out.clear();
        Ok(is_answered)
    }

    /// Opens the session. The node leads.
    ///
    /// # Errors
    /// No answer by then, or another one.
    pub fn open<P: Provider + Send>(
        &mut self,
        node: &mut Node<P>,
        now: impl Fn() -> dataplane_waist::Instant,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let until = now() + patience;
        self.ask(node);
        loop {
            node.turn(now());
            if self.is_answered(node)? {
                return Ok(());
            }
            (now() < until).then_some(()).context("the cluster gave no session")?;
        }
    }
}
