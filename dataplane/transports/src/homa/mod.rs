//! Homa (Montazeri et al., SIGCOMM'18): the first round trip's bytes of a message leave unasked; the rest is granted by the receiver, to
//! the shortest messages first, and the receiver chooses the priority of every packet.
//!
//! Two machines per host, each for all its messages, because both choose among them: [`HomaSender`] sends the packet of the message with
//! the least left (SRPT), and [`HomaReceiver`] grants. Messages go one way and have numbers that nobody uses twice in a network.
//!
//! The sender must be asked late: [`HomaSender::poll_transmit`] only when the host's link has next to nothing queued, or a short
//! message waits behind long ones (§3.2).

mod receiver;
mod sender;

use std::time::Duration;

pub use self::{
    receiver::{HomaReceiver, HomaReceiverStats},
    sender::{HomaSender, HomaSenderStats},
};

/// Priorities of a switch; the highest is served first.
pub const PRIORITIES_COUNT: u8 = 8;

/// What a Homa packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HomaKind {
    /// Bytes of a message.
    #[default]
    Data,
    /// The sender may send up to `offset_bytes`, at `grant_priority`.
    Grant,
    /// The receiver misses bytes, and says at which priority it wants them.
    Resend,
    /// The message is complete.
    Done,
}

/// A Homa packet, without its payload's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HomaPacket {
    /// What it is.
    pub kind: HomaKind,
    /// The message's number.
    pub message: u32,
    /// Data, resend: the first byte. Grant: the end of what is granted.
    pub offset_bytes: u32,
    /// Data: payload. Resend: how much is missing.
    pub len_bytes: u32,
    /// Data: the message's length.
    pub message_bytes: u32,
    /// The priority that it travels at, 0 to 7, 7 first.
    pub priority: u8,
    /// Grant, resend: the priority that the data is to have.
    pub grant_priority: u8,
    /// Data: it was sent before. For traces.
    pub is_retransmission: bool,
}

/// What the hosts of one network agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomaOptions {
    /// Payload of a full packet, in bytes.
    pub payload_bytes: u32,
    /// What may be on the way to a receiver without being late: a round trip of its link (RTTbytes, §3.1: 9.7 KB at 10 Gbit/s).
    pub rtt_bytes: u32,
    /// How many of the priorities are for scheduled packets, the lowest ones; and so how many messages are granted at once
    /// (the degree of overcommitment, §3.5). 1 to 7.
    pub scheduled_levels: u8,
    /// Messages up to this length travel at priority 7 at first, up to the next at 6, and so on; longer ones at the lowest
    /// unscheduled. Only as many count as there are unscheduled priorities, less one. See [`HomaOptions::cutoffs`].
    pub unscheduled_cutoffs_bytes: [u32; 7],
    /// How long one waits for bytes that are due before one asks again (§3.7: a few milliseconds).
    pub resend_after: Duration,
}

impl Default for HomaOptions {
    fn default() -> HomaOptions {
        HomaOptions {
            payload_bytes: 1_400,
            rtt_bytes: 9_700,
            scheduled_levels: 4,
            unscheduled_cutoffs_bytes: [280, 1_400, 9_700, u32::MAX, u32::MAX, u32::MAX, u32::MAX],
            resend_after: Duration::from_millis(2),
        }
    }
}

impl HomaOptions {
    /// Cutoffs that give each unscheduled priority the same bytes (§3.4), for messages of these lengths.
    pub fn cutoffs(&self, message_bytes: &mut [u32]) -> [u32; 7] {
        message_bytes.sort_unstable();
        let unscheduled = |&bytes: &u32| u64::from(bytes.min(self.rtt_bytes));
        let total: u64 = message_bytes.iter().map(unscheduled).sum();
        let levels = u64::from(PRIORITIES_COUNT - self.scheduled_levels());
        let mut cutoffs = [u32::MAX; 7];
        let (mut sum, mut level) = (0, 0);
        for bytes in message_bytes.iter() {
            sum += unscheduled(bytes);
            while level + 1 < levels && sum * levels >= (level + 1) * total {
                cutoffs[level as usize] = *bytes;
                level += 1;
            }
        }
        cutoffs
    }

    fn scheduled_levels(&self) -> u8 {
        self.scheduled_levels.clamp(1, PRIORITIES_COUNT - 1)
    }

    /// The priority of a message's first bytes.
    fn unscheduled_priority(&self, message_bytes: u32) -> u8 {
        let lowest = self.scheduled_levels();
        let longer_count = self
            .unscheduled_cutoffs_bytes
            .iter()
            .take_while(|&&cutoff| message_bytes > cutoff)
            .count();
        (PRIORITIES_COUNT - 1).saturating_sub(longer_count as u8).max(lowest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_messages_begin_at_the_highest_priority() {
        let options = HomaOptions::default();
        let priorities = [1, 280, 281, 9_700, 9_701, u32::MAX].map(|bytes| options.unscheduled_priority(bytes));
        assert_eq!(priorities, [7, 7, 6, 5, 4, 4]);
    }

    #[test]
    fn cutoffs_share_the_unscheduled_bytes_evenly() {
        let options = HomaOptions {
            scheduled_levels: 6,
            ..HomaOptions::default()
        };
        // Two levels: 100 of 100 bytes weigh as much as one of 10 KB, of which 9.7 KB are unscheduled.
        let mut lengths: Vec<u32> = std::iter::repeat_n(100, 100).chain([10_000]).collect();
        assert_eq!(options.cutoffs(&mut lengths)[..2], [100, u32::MAX]);
    }
}
