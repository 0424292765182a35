//! A client in the leader's thread: one request at a time, from the call to the answer.

use anyhow::bail;
use dataplane_quorum::onesided::layout::{self, Entry};
use dataplane_waist::Peer;
use dataplane_wire::{
    frame::{self, Header, Kind},
    quorum::{
        reply::{self, Outcome},
        request::{self, Command, Request},
    },
};
use rdma::Provider;

use super::{Cluster, Node};

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

    /// The length of a put as it stands in the log.
    pub fn put_bytes(&self) -> usize {
        self.first_put().len_bytes()
    }

    fn first_put(&self) -> Request<'_> {
        Request {
            client: 1,
            sequence: 1,
            command: self.put(),
        }
    }

    /// What a slot holds with an entry of this client's: what a bare write is to write.
    pub fn slot(&self) -> Vec<u8> {
        let put = self.first_put();
        let mut payload = vec![0; put.len_bytes()];
        request::emit(&put, &mut payload);
        let entry = Entry {
            proposal: 1,
            before: 1,
            commit_end: 1,
            payload: &payload,
        };
        let mut slot = Vec::new();
        layout::emit_slot(1, &entry, &mut slot);
        slot
    }

    fn put(&self) -> Command<'_> {
        Command::Put {
            key: b"k",
            value: &self.value,
        }
    }

    /// Makes the next request: for a session, or a put.
    pub fn prepare(&mut self) {
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
        self.frame = frame;
    }

    /// Hands the leader the request that was made last.
    pub fn ask<P: Provider>(&self, node: &mut Node<P>) {
        node.replica.on_frame(CLIENT, &self.frame, &mut node.out);
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
    /// [`Deposed`](super::Deposed): it leads no more. No answer, or another one.
    pub fn open<P: Provider + Send>(&mut self, cluster: &Cluster<P>, node: &mut Node<P>) -> anyhow::Result<()> {
        self.prepare();
        self.ask(node);
        cluster.turn_until(node, "the cluster gives no session", |node, _| {
            node.still_leads()?;
            self.is_answered(node)
        })
    }
}
