//! The one loop on the data path: receive, decide, persist, send.

use std::{io, time::Duration};

use dataplane_wire::Reject;

use crate::{Clock, Effects, Input, Instant, Log, Port, PortStats, Protocol, Slot};

/// A participant: a port, a log and a protocol, turned by whoever owns the thread.
#[derive(Debug)]
pub struct Node<P, L, M> {
    port: P,
    log: L,
    protocol: M,
    effects: Effects,
    durable_end: Slot,
}

/// What a node has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeStats {
    /// The port's own counters.
    pub port: PortStats,
    /// Frames not understood, by [`Reject::index`].
    pub rejects: [u64; Reject::ALL.len()],
    /// Effects dropped for want of room in a turn.
    pub refused_count: u64,
}

/// How long a sleeping node rests at most before it looks whether it is to stop.
const WAIT_MAX: Duration = Duration::from_millis(20);

impl<P: Port, L: Log, M: Protocol> Node<P, L, M> {
    /// A node whose protocol answers each frame with at most `effects_per_frame_max` frames or entries.
    pub fn new(port: P, log: L, protocol: M, effects_per_frame_max: usize) -> Node<P, L, M> {
        let caps = port.caps();
        let actions_max = caps.batch_frames_max * effects_per_frame_max;
        Node {
            port,
            log,
            protocol,
            effects: Effects::with_capacity(actions_max, actions_max * caps.frame_bytes_max),
            durable_end: Slot(0),
        }
    }

    /// One turn: at most one burst of frames in, everything it causes out. Says how many frames came.
    ///
    /// An acknowledgement can leave only after the log has said how far it is durable, so "persist, then acknowledge"
    /// holds by the order of this function.
    ///
    /// # Errors
    /// The port's or the log's; the node must not be turned again.
    pub fn turn(&mut self, now: Instant) -> io::Result<usize> {
        let Node {
            port,
            log,
            protocol,
            effects,
            durable_end,
        } = self;
        let frames_count = port.rx_burst(&mut |frame| {
            protocol.handle(
                now,
                Input::Frame {
                    from: frame.from,
                    bytes: frame.bytes,
                },
                effects,
            )
        })?;
        if protocol.wake_at().is_some_and(|at| at <= now) {
            protocol.handle(now, Input::Tick, effects);
        }

        let mut appended = false;
        for (slot, term, payload) in effects.appends() {
            log.append(slot, term, payload)?;
            appended = true;
        }
        effects.clear_appends();
        if appended {
            log.sync()?;
        }
        let end = log.durable_end()?;
        if end != *durable_end {
            *durable_end = end;
            protocol.handle(now, Input::Durable { end }, effects);
        }

        for (to, frame) in effects.sends() {
            // A full queue is loss, which every protocol here lives with; the port has counted it.
            let _ = port.tx(to, frame.len(), &mut |bytes| bytes.copy_from_slice(frame));
        }
        effects.clear();
        port.flush()?;
        Ok(frames_count)
    }

    /// Turns until `stop` says so, resting in the port's own way in between.
    ///
    /// # Errors
    /// As [`Node::turn`].
    pub fn run(&mut self, clock: &dyn Clock, stop: &mut dyn FnMut() -> bool) -> io::Result<()> {
        while !stop() {
            let rest = match self.protocol.wake_at() {
                Some(at) => at.saturating_since(clock.now()).min(WAIT_MAX),
                None => WAIT_MAX,
            };
            self.port.wait(rest)?;
            self.turn(clock.now())?;
        }
        Ok(())
    }

    /// The counters so far.
    pub fn stats(&self) -> NodeStats {
        NodeStats {
            port: self.port.stats(),
            rejects: *self.effects.rejects(),
            refused_count: self.effects.refused_count(),
        }
    }
}
