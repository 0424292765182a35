//! NDP (Handley et al., SIGCOMM'17): the first window leaves blindly at line rate, switches trim what does not fit to its header, and
//! from then on the receiver pulls every packet, at the rate of its own link.
//!
//! Three machines, of which nobody knows the network: [`NdpSender`] and [`NdpReceiver`] per flow, and one [`PullPacer`] per receiving
//! host, which all its flows share. That a packet was trimmed, or came back because the queue of headers was full too, is told by
//! whoever carries packets: [`NdpReceiver::on_data`], [`NdpSender::on_returned`].
//!
//! Path choice is the owner's: an NDP sender sprays packets over all paths.

mod bits;
mod pacer;
mod receiver;
mod sender;

use std::time::Duration;

pub use self::{
    pacer::PullPacer,
    receiver::{NdpReceiver, NdpReceiverStats},
    sender::{NdpSender, NdpSenderStats},
};

/// What an NDP packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NdpKind {
    /// Data, or its header if it was trimmed.
    #[default]
    Data,
    /// A packet arrived.
    Ack,
    /// A packet's header arrived without its payload.
    Nack,
    /// The sender may send, up to a count.
    Pull,
}

/// An NDP packet, without its payload's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NdpPacket {
    /// What it is.
    pub kind: NdpKind,
    /// Data, ack, nack: which packet of the flow, from 0.
    pub packet_index: u32,
    /// Data: payload in bytes.
    pub len_bytes: u32,
    /// Data: how many packets the flow has. Every packet says it, because any may be the first to arrive.
    pub packets_count: u32,
    /// Pull: how many packets the receiver has asked for since the flow began; so a lost pull is made good by the next.
    pub pulls_count: u32,
    /// Data: it was sent before. For traces.
    pub is_retransmission: bool,
}

/// What the flows of one network agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NdpOptions {
    /// Payload of a full packet, in bytes. The paper: 9 KB packets (1500 B in its figure 9).
    pub payload_bytes: u32,
    /// Packets sent blindly (§3.2). The paper: 23 in figure 20, 30 elsewhere.
    pub initial_window_packets: u32,
    /// How long a packet may be in the network without an answer (§6.1.1: 1 ms): trimming makes it an event of broken links only.
    pub rto: Duration,
    /// How long a receiver waits for what it pulled before it says so again. A pull that is lost is the receiver's to notice, because a
    /// sender cannot tell it from one that queues behind ten thousand others.
    pub pull_timeout: Duration,
}

impl Default for NdpOptions {
    fn default() -> NdpOptions {
        NdpOptions {
            payload_bytes: 8_936,
            initial_window_packets: 30,
            rto: Duration::from_millis(1),
            pull_timeout: Duration::from_millis(5),
        }
    }
}
