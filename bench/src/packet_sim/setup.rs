//! What is simulated: a topology, flows, and the questions that some of them answer.

use std::sync::Arc;

use dataplane_sim::{SimTime, packet::Topology};
use dataplane_transports::{AnyController, ControllerKind, ReceiverOptions, SenderOptions, controllers};

use crate::scenario::units::QuinnController;

/// How the two ends of a flow behave.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowOptions {
    /// The half that sends.
    pub sender: SenderOptions,
    /// The half that receives.
    pub receiver: ReceiverOptions,
    /// Who decides how much may be in flight.
    pub controller: ControllerKind,
    /// The flow is quinn's, and none of the above is asked.
    pub quinn: Option<QuinnController>,
    /// DCTCP's weight of a new measurement, where a paper does not take RFC 8257's 1/16.
    pub dctcp: Option<controllers::DctcpOptions>,
    /// BBRv1's settings, where they are not its defaults.
    pub bbr1: Option<controllers::Bbr1Options>,
    /// Swift's settings, where they are not its defaults.
    pub swift: Option<controllers::SwiftOptions>,
}

impl FlowOptions {
    pub(super) fn controller(&self, sender: &SenderOptions) -> AnyController {
        let (mss_bytes, initial_bytes) = (sender.mss_bytes, sender.initial_window_bytes());
        if let (ControllerKind::Bbr1, Some(options)) = (self.controller, self.bbr1) {
            return controllers::Bbr1::new(mss_bytes, initial_bytes, sender.seed, options).into();
        }
        match (self.controller, self.dctcp, self.swift) {
            (ControllerKind::Dctcp, Some(options), _) => {
                controllers::Dctcp::new(mss_bytes, initial_bytes, options).into()
            }
            (ControllerKind::Swift, _, Some(options)) => {
                controllers::Swift::new(mss_bytes, initial_bytes, options).into()
            }
            (kind, ..) => kind.build(sender),
        }
    }
}

/// When a flow sends, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    /// What a query asks for, when it asks. A connection lasts from query to query.
    Answer {
        /// The query's number.
        query: u32,
    },
    /// So much, once.
    Finite {
        /// How much.
        bytes: u64,
        /// When it begins.
        start: SimTime,
    },
    /// Without end.
    Endless {
        /// When it begins.
        start: SimTime,
    },
}

/// A flow. Its number is its place in [`Setup::flows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The host that sends.
    pub from: u32,
    /// The host that receives.
    pub to: u32,
    /// Which of [`Setup::options`].
    pub options: u8,
    /// When it sends.
    pub kind: FlowKind,
}

/// A question to several hosts at once, asked again when all have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The host that asks.
    pub client: u32,
    /// The flows that answer: from this one…
    pub flows_first: u32,
    /// …so many at once.
    pub flows_count: u32,
    /// Each round has flows of its own, which follow those of the round before: new connections, already established.
    pub is_fresh: bool,
    /// Bytes of each answer.
    pub answer_bytes: u64,
    /// How often it is asked.
    pub rounds_count: u32,
    /// When it is asked first.
    pub start: SimTime,
    /// Between the last answer and the next question.
    pub pause: SimTime,
    /// Each server answers later by a draw of up to this.
    pub jitter: SimTime,
    /// The frame that asks.
    pub request_bytes: u32,
    /// After so long without an answer's first byte a question is asked again.
    pub retry: SimTime,
}

impl Query {
    /// The flows that answer in a round.
    pub fn flows_of(&self, round: u32) -> std::ops::Range<u32> {
        let first = self.flows_first + if self.is_fresh { round * self.flows_count } else { 0 };
        first..first + self.flows_count
    }
}

/// Everything that a run depends on.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The network.
    pub topology: Topology,
    /// The kinds of flows.
    pub options: Arc<[FlowOptions]>,
    /// The flows.
    pub flows: Arc<[Flow]>,
    /// The questions.
    pub queries: Arc<[Query]>,
    /// A run ends then, whatever is still under way.
    pub horizon: SimTime,
    /// Endless flows are measured from then on.
    pub measured_from: SimTime,
    /// The link whose queue is looked at.
    pub watched_link: u32,
    /// An acknowledgement is dealt with up to so much after it has come, by a draw.
    pub host_processing: SimTime,
    /// Everything that is drawn is drawn from this.
    pub seed: u64,
}
