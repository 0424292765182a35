//! What a queue must know of a packet, and what it may have done with one.

/// The two bits of Explicit Congestion Notification (RFC 3168, section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The sender does not react to marks: a queue that wants to tell it something can only drop.
    #[default]
    NotCapable,
    /// ECT(0) or ECT(1): the sender reacts to marks.
    Capable,
    /// Congestion experienced: a queue on the way marked it.
    Experienced,
}

/// A packet, as far as a port cares.
pub trait Queued: Copy {
    /// What it takes of buffers: the frame, without preamble and gap, which take time on the wire and no memory.
    fn bytes(&self) -> u32;
    /// What its header says of congestion.
    fn ecn(&self) -> Ecn;
    /// Changes what its header says of congestion.
    fn set_ecn(&mut self, ecn: Ecn);
    /// 0 to 7, the highest served first, as the priority code points of IEEE 802.1Q.
    fn priority(&self) -> u8;
    /// The same for all packets of a flow.
    fn flow_hash(&self) -> u32;
    /// Cuts the payload off, so that [`Queued::bytes`] is the header's. No, if there is none or it must not be cut.
    fn trim(&mut self) -> bool;
    /// Whether the payload was cut off, or there never was one (an acknowledgement, a pull): such packets wait in the
    /// queue of headers where there is one.
    fn is_header(&self) -> bool;
}

/// Why a packet was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The queue was at its own bound.
    QueueFull,
    /// The queue was at its share of the switch's memory, or that was full.
    BufferFull,
    /// RED decided so, before the queue was full.
    Early,
    /// It had waited too long, for longer than an interval, and CoDel decided so.
    Delay,
    /// Trimmed already, and the queue of headers was full.
    HeaderQueueFull,
    /// It was of a class that is paused instead of dropped, and came beyond what was kept free for the time until a pause
    /// takes effect.
    HeadroomFull,
}

/// What became of packets when one arrived. At most one is lost at an arrival, and it need not be the one that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued<T> {
    /// It waits.
    Queued,
    /// It waits, and carries a mark that it did not have before.
    Marked,
    /// It, or one that waited, lost its payload; both wait.
    Trimmed,
    /// `packet` is lost: the one that came, or one that had to make room for it.
    Dropped {
        /// As it was when it was lost: without payload, if that was cut off before.
        packet: T,
        /// Why.
        why: DropReason,
    },
}

/// Marks a packet whose sender would react. No, if it would not, or it is marked already.
pub(crate) fn mark<T: Queued>(packet: &mut T) -> bool {
    let marks = packet.ecn() == Ecn::Capable;
    if marks {
        packet.set_ecn(Ecn::Experienced);
    }
    marks
}
