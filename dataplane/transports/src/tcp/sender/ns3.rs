//! What ns-3.37 does otherwise than the RFCs and is more than a branch: see [`crate::Ns3Ways`], where each switch has its RFC.

use super::{Sender, ack::Seen, rack::DUP_THRESHOLD, recovery::Frto};
use crate::{
    Controller, EcnMode, LossSample, Ns3Ways, Phase, SenderOptions,
    tcp::{
        scoreboard::{LOST, RESENT, SACKED},
        segment::Segment,
    },
};

/// A connection's state of ECN (`TcpSocketState::m_ecnState`), as far as it is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo {
    /// ECN_ECE_RCVD: the last ack that advanced had an echo, and no new segment has answered it with CWR.
    pub is_received: bool,
    /// What was sent last ends here (`m_nextTxSequence`); a window of marks ends with it.
    pub sent_end: u64,
    /// Up to where the last echo acknowledged, and where the last segment with CWR begins.
    ack: u64,
    cwr_seq: Option<u64>,
}

impl Echo {
    /// `TcpSocketBase::SendDataPacket`.
    pub fn on_sent(&mut self, segment: &Segment) {
        self.sent_end = segment.seq + u64::from(segment.len_bytes);
        if self.is_received && !segment.is_retransmission && self.cwr_seq.is_none_or(|seq| self.ack > seq) {
            self.is_received = false;
            self.cwr_seq = Some(segment.seq);
        }
    }
}

/// What only a sender has that is to do as ns-3 does.
#[derive(Debug)]
pub struct State {
    ways: Ns3Ways,
    pub echo: Echo,
    /// Of a flow that keeps guesses: the segments that duplicate acks stand for.
    guessed_count: u32,
}

impl State {
    pub fn of(options: &SenderOptions) -> Option<Box<State>> {
        let ways = Ns3Ways {
            keeps_guesses: options.ns3.keeps_guesses && !options.sack,
            recovers_on_dupacks: options.ns3.recovers_on_dupacks && options.sack,
            ..options.ns3
        };
        let state = State {
            ways,
            echo: Echo::default(),
            guessed_count: 0,
        };
        (ways != Ns3Ways::default()).then(|| Box::new(state))
    }
}

impl<C: Controller> Sender<C> {
    /// What ns-3 does otherwise: nothing, of nearly all senders.
    #[inline]
    pub(super) fn ways(&self) -> Ns3Ways {
        self.ns3.as_ref().map(|state| state.ways).unwrap_or_default()
    }

    /// The segments that duplicate acks stand for, if that is counted apart from them.
    #[inline]
    pub(super) fn kept_guesses_count(&self) -> Option<u32> {
        let state = self.ns3.as_ref().filter(|state| state.ways.keeps_guesses)?;
        Some(state.guessed_count)
    }

    /// `TcpTxBuffer::ResetRenoSack`.
    pub(super) fn forget_guesses(&mut self) {
        if let Some(state) = &mut self.ns3 {
            state.guessed_count = 0;
        }
    }

    /// Whether an ack counts as one with an echo, and what was sent last, where `PktsAcked` looks at both.
    #[inline]
    pub(super) fn marks_as_ns3_sees(&mut self) -> Option<(bool, u64)> {
        let state = self.ns3.as_mut().filter(|state| state.ways.marks_end_recovery)?;
        // Behind `DoRetransmit`, which is still to come here, and before `NewAck`.
        let sent_end = match self.fast_retransmit_due {
            true => self.una,
            false => state.echo.sent_end,
        };
        state.echo.sent_end = sent_end.max(self.una);
        Some((state.echo.is_received, sent_end))
    }

    /// `TcpSocketBase::ReceivedAck`: an echo is looked at before losses are, in every phase but the one that it begins, and only if the
    /// ack advances.
    pub(super) fn take_ecn_first(&mut self, segment: &Segment, seen: &Seen, loss: &LossSample) {
        if self.phase == Phase::Cwr && self.una > self.recovery_end {
            self.phase = Phase::Open;
        }
        let is_echo = segment.ece && self.config.ecn != EcnMode::Off;
        let Some(state) = &mut self.ns3 else { return };
        state.echo.is_received &= is_echo;
        if !is_echo || seen.acked_bytes == 0 {
            return;
        }
        state.echo.is_received = true;
        state.echo.ack = segment.ack;
        if self.phase != Phase::Cwr {
            self.fast_retransmit_due = false;
            self.frto = Frto::Off;
            self.enter_cwr(loss);
        }
    }

    /// `TcpTxBuffer::AddRenoSack` and `DiscardUpTo`: a duplicate ack marks the next segment behind the front as arrived; an ack takes away
    /// the marks of what it covers, and if it stops at a marked one, that moves its mark to the end and is lost.
    pub(super) fn count_guess(&mut self, seen: &Seen, loss: &LossSample) -> u64 {
        let mss = u64::from(self.config.mss_bytes);
        let most = u32::try_from(self.board.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let Some(state) = &mut self.ns3 else { return 0 };
        if seen.is_dupack {
            if self.phase != Phase::Loss {
                self.dupacks_count += u32::from(self.phase != Phase::Recovery);
                state.guessed_count = (state.guessed_count + 1).min(most);
            }
            return mss;
        }
        if seen.acked_count == 0 {
            return 0;
        }
        self.dupacks_count = 0;
        let left = state.guessed_count.saturating_sub(seen.acked_count - 1);
        state.guessed_count = left.min(most);
        if left > 0 {
            self.mark_front_lost(loss.now_ns);
        }
        mss * u64::from(seen.acked_count)
    }

    /// `TcpSocketBase::DupAck` and `ProcessAck` with SACK: a duplicate ack is one that a SACK makes new.
    pub(super) fn count_sacking_ack(&mut self, seen: &Seen) {
        if seen.is_newly_sacked {
            self.dupacks_count += u32::from(!matches!(self.phase, Phase::Recovery | Phase::Loss));
        } else if seen.acked_bytes > 0 {
            self.dupacks_count = 0;
        }
    }

    pub(super) fn is_loss_seen_by_dupack(&mut self, seen: &Seen, loss: &LossSample) -> bool {
        let is_third = self.dupacks_count == DUP_THRESHOLD && self.una >= self.recovery_end;
        let is_seen = seen.is_newly_sacked && (is_third || self.is_lost_from(1));
        if is_seen && !self.is_lost_from(0) {
            self.mark_lost(loss.now_ns, 0);
        }
        is_seen
    }

    /// `TcpTxBuffer::IsLost`: whatever is lost comes before whatever has arrived.
    fn is_lost_from(&self, index: usize) -> bool {
        let mut flags = (index..self.board.len()).map(|index| self.board.get(index).flags);
        flags
            .find(|flags| flags & (LOST | SACKED) != 0)
            .is_some_and(|flags| flags & LOST != 0)
    }

    /// `TcpTxBuffer::IsRetransmittedDataAcked`, which looks for a whole segment.
    pub(super) fn is_front_resent_whole(&self) -> bool {
        self.board
            .front()
            .is_none_or(|front| front.is(RESENT) && front.len_bytes == self.config.mss_bytes)
    }

    /// `TcpSocketBase::DoRetransmit`: what is lost, or else something new, or else the front once more.
    pub(super) fn transmit_whatever(&mut self, now_ns: u64) -> Option<Segment> {
        let segment = match (self.board.next_to_resend(), self.new_data_bytes()) {
            (Some(index), _) => self.transmit_again(now_ns, index),
            (None, Some(len_bytes)) => self.transmit_new(now_ns, len_bytes),
            (None, None) if self.board.is_empty() => return None,
            (None, None) => self.transmit_again(now_ns, 0),
        };
        // `DoRetransmit` does not move `m_nextTxSequence` behind what it sends.
        if let Some(state) = &mut self.ns3 {
            state.echo.sent_end = segment.seq;
        }
        Some(segment)
    }

    /// From where on three duplicate acks say something new: RFC 6582 §3.2 step 2 wants an ack beyond all that was sent, ns-3 one of it.
    pub(super) fn fast_retransmit_after(&self) -> u64 {
        self.nxt + u64::from(!self.ways().keeps_guesses)
    }
}
