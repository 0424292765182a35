//! The one loop on the data path: receive, decide, persist, send.

use std::{io, time::Duration};

use dataplane_wire::Reject;

use crate::{Clock, Effects, Input, Instant, Kept, LOOK_AGAIN, Log, News, Port, PortStats, Protocol};

/// A participant: a port, a log and a protocol, turned by whoever owns the thread.
#[derive(Debug)]
pub struct Node<P, L, M> {
    port: P,
    log: L,
    protocol: M,
    effects: Effects,
    batch_frames_max: usize,
    kept: Kept,
    unsent_count: u64,
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
    /// Frames that the port did not take: the other side does not keep up (the port counts these too), or the port
    /// could never carry them.
    pub unsent_count: u64,
}

/// How long a sleeping node rests at most before it looks whether it is to stop.
const REST_MAX: Duration = Duration::from_millis(20);

impl<P: Port, L: Log, M: Protocol> Node<P, L, M> {
    /// A node whose protocol answers each input with at most `effects_per_input_max` frames or entries, none of them
    /// longer than the port's longest frame. What goes beyond is refused and counted.
    pub fn new(port: P, log: L, protocol: M, effects_per_input_max: usize) -> Node<P, L, M> {
        let caps = port.caps();
        // A burst of frames, a tick, and what the log has to say.
        let inputs_max = caps.batch_frames_max + 2;
        let actions_max = inputs_max * effects_per_input_max;
        let effects = Effects::with_capacity(actions_max, actions_max * caps.frame_bytes_max);
        Node::with_effects(port, log, protocol, effects)
    }

    /// A node whose turns have the room of `effects`: for a protocol that knows better how much it sends.
    pub fn with_effects(port: P, log: L, protocol: M, effects: Effects) -> Node<P, L, M> {
        Node {
            batch_frames_max: port.caps().batch_frames_max,
            port,
            log,
            protocol,
            effects,
            kept: Kept::default(),
            unsent_count: 0,
        }
    }

    /// One turn: at most one burst of frames in, everything it causes out. Says how many frames came.
    ///
    /// ```text
    /// rx_burst ─▶ Input::Frame … ─▶ Input::Tick ─▶ tx, flush ─▶ append, sync ─▶ durable ─▶ Input::Durable ─▶ tx, flush
    /// ```
    ///
    /// A protocol that acknowledges from [`Input::Durable`] alone persists before it acknowledges, whatever the log
    /// does: that input exists only once the log has said so, and an error of the log ends the turn before such an
    /// answer is sent. What the protocol sends out of the other inputs does not wait for the disk.
    ///
    /// # Errors
    /// The port's or the log's; the node must not be turned again.
    pub fn turn(&mut self, now: Instant) -> io::Result<usize> {
        let Node {
            port,
            protocol,
            effects,
            ..
        } = self;
        let frames_count = port.rx_burst(&mut |frame| {
            let input = Input::Frame {
                from: frame.from,
                bytes: frame.bytes,
            };
            protocol.handle(now, input, effects);
        })?;
        if protocol.wake_at().is_some_and(|at| at <= now) {
            protocol.handle(now, Input::Tick, effects);
        }
        let sent_early = self.send()?;
        self.kept.write(&mut self.effects, &mut self.log)?;
        if let Some(durable) = self.kept.news(&mut self.log)? {
            self.protocol.handle(now, Input::Durable(durable), &mut self.effects);
            // What it writes now is answered in a later turn, so that a turn ends.
            self.kept.write(&mut self.effects, &mut self.log)?;
        }
        if !self.send()? && !sent_early {
            // A ring may have to hear from us even when nothing new is queued.
            self.port.flush()?;
        }
        self.effects.clear();
        Ok(frames_count)
    }

    /// Turns until `stop` says so, resting in the port's own way in between.
    ///
    /// # Errors
    /// As [`Node::turn`].
    pub fn run(&mut self, clock: &dyn Clock, stop: &mut dyn FnMut() -> bool) -> io::Result<()> {
        self.run_watched(clock, &mut |_| stop())
    }

    /// As [`Node::run`], for those who look at the node before they say whether it is to stop.
    ///
    /// # Errors
    /// As [`Node::turn`].
    pub fn run_watched(&mut self, clock: &dyn Clock, stop: &mut dyn FnMut(&Node<P, L, M>) -> bool) -> io::Result<()> {
        let mut burst_was_full = false;
        while !stop(self) {
            // Behind a full burst more is waiting, as a rule; asking whether it is would cost a system call.
            if !burst_was_full {
                self.rest(clock)?;
            }
            burst_was_full = self.turn(clock.now())? >= self.batch_frames_max;
        }
        Ok(())
    }

    /// The counters so far.
    pub fn stats(&self) -> NodeStats {
        NodeStats {
            port: self.port.stats(),
            rejects: *self.effects.rejects(),
            refused_count: self.effects.refused_count(),
            unsent_count: self.unsent_count,
        }
    }

    /// The protocol: to look at it. Whoever turns the node needs to know when to do so ([`Protocol::wake_at`]).
    pub fn protocol(&self) -> &M {
        &self.protocol
    }

    /// The protocol, to be changed between turns: a simulator's client is told what to ask.
    pub fn protocol_mut(&mut self) -> &mut M {
        &mut self.protocol
    }

    /// The port: to look at it.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// The port, between turns: a simulator puts frames in and takes frames out.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// The log: to look at it.
    pub fn log(&self) -> &L {
        &self.log
    }

    /// The log, between turns: a simulator moves its disk's time.
    pub fn log_mut(&mut self) -> &mut L {
        &mut self.log
    }

    /// The port, log and protocol again: to close them, or to look at them.
    pub fn into_parts(self) -> (P, L, M) {
        (self.port, self.log, self.protocol)
    }

    /// Rests until there may be something to do.
    fn rest(&mut self, clock: &dyn Clock) -> io::Result<()> {
        let rest = match self.protocol.wake_at() {
            Some(at) => at.saturating_since(clock.now()).min(REST_MAX),
            None => REST_MAX,
        };
        if !self.kept.is_waiting() {
            return self.port.wait(rest);
        }
        match self.log.news() {
            News::Come => Ok(()),
            News::Rings(bell) => self.port.wait_or(rest, bell),
            News::Unannounced => self.port.wait(rest.min(LOOK_AGAIN)),
        }
    }

    /// Sends what is queued; says whether anything was.
    fn send(&mut self) -> io::Result<bool> {
        let mut queued_count = 0;
        let mut sent = false;
        for (to, frame) in self.effects.sends() {
            if queued_count == self.batch_frames_max {
                // Several answers to one frame can be more than one batch.
                self.port.flush()?;
                queued_count = 0;
            }
            let fill = &mut |bytes: &mut [u8]| bytes.copy_from_slice(frame);
            match self.port.tx(to, frame.len(), fill) {
                Ok(()) => queued_count += 1,
                // Loss, which every protocol here lives with.
                Err(_) => self.unsent_count += 1,
            }
            sent = true;
        }
        if sent {
            self.effects.clear_sends();
            self.port.flush()?;
        }
        Ok(sent)
    }
}

#[cfg(test)]
mod tests;
