//! The states of a queue pair, and how it goes from one to the next.

use std::net::IpAddr;

use dataplane_waist::Instant;

use super::{
    Completions, Due, QpCounters, QpOptions,
    receives::Receives,
    requester::{Context, Requester},
    responder::Responder,
};
use crate::{
    region::{MemoryKey, Pd, Regions},
    wire::{Packet, Psn, QpNumber},
    work::{PostError, ReceiveRequest, SendRequest},
};

/// Where the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Its address.
    pub address: IpAddr,
    /// Its queue pair.
    pub qp: QpNumber,
    /// Where its sequence begins.
    pub start_psn: Psn,
}

#[derive(Debug)]
enum State {
    Reset,
    Init {
        receives: Receives,
    },
    /// Ready to receive.
    Rtr {
        path: Path,
        receives: Receives,
        responder: Responder,
    },
    /// Ready to send, too.
    Rts {
        path: Path,
        receives: Receives,
        responder: Responder,
        requester: Requester,
    },
    /// Nothing is done any more; what the responder had to say is still said.
    Error {
        last_words: Option<(Path, Responder)>,
    },
}

/// A queue pair, its state and its completions.
#[derive(Debug)]
pub(crate) struct QueuePair {
    pub number: QpNumber,
    pub pd: Pd,
    pub start_psn: Psn,
    options: QpOptions,
    completions: Completions,
    state: State,
}

/// What is around a queue pair.
pub(crate) struct Around<'a> {
    pub regions: &'a Regions,
    pub counters: &'a mut QpCounters,
}

macro_rules! context {
    ($self:ident, $around:ident) => {
        Context {
            pd: $self.pd,
            qp: $self.number,
            options: &$self.options,
            regions: $around.regions,
            completions: &mut $self.completions,
            counters: $around.counters,
        }
    };
}

impl QueuePair {
    pub(crate) fn new(number: QpNumber, pd: Pd, start_psn: Psn, options: QpOptions) -> QueuePair {
        let requests_max = options.send_requests_max + options.receive_requests_max;
        QueuePair {
            number,
            pd,
            start_psn,
            options,
            completions: Completions::new(number, requests_max),
            state: State::Reset,
        }
    }

    pub(crate) fn options(&self) -> &QpOptions {
        &self.options
    }

    pub(crate) fn completions(&mut self) -> &mut Completions {
        &mut self.completions
    }

    /// RESET to INIT.
    pub(crate) fn init(&mut self) {
        self.state = State::Init {
            receives: Receives::new(self.options.receive_requests_max),
        };
    }

    /// INIT to RTR.
    pub(crate) fn ready_to_receive(&mut self, path: Path) {
        if let State::Init { receives } = self.take() {
            self.state = State::Rtr {
                path,
                receives,
                responder: Responder::new(path.qp, path.start_psn, &self.options),
            };
        }
    }

    /// RTR to RTS.
    pub(crate) fn ready_to_send(&mut self) {
        match self.take() {
            State::Rtr {
                path,
                receives,
                responder,
            } => {
                self.state = State::Rts {
                    path,
                    receives,
                    responder,
                    requester: Requester::new(path.qp, self.start_psn, &self.options),
                };
            }
            // A request of the peer broke it in the meantime.
            other => self.state = other,
        }
    }

    /// Whatever it was to ERROR: everything posted is flushed.
    pub(crate) fn break_off(&mut self) {
        let (path, mut receives, responder, requester) = match self.take() {
            State::Reset => (None, None, None, None),
            State::Init { receives } => (None, Some(receives), None, None),
            State::Rtr {
                path,
                receives,
                responder,
            } => (Some(path), Some(receives), Some(responder), None),
            State::Rts {
                path,
                receives,
                responder,
                requester,
            } => (Some(path), Some(receives), Some(responder), Some(requester)),
            error @ State::Error { .. } => {
                self.state = error;
                return;
            }
        };
        if let Some(mut requester) = requester {
            requester.flush(&mut self.completions);
        }
        if let Some(receives) = &mut receives {
            receives.flush(&mut self.completions);
        }
        self.state = State::Error {
            last_words: path.zip(responder),
        };
    }

    /// ERROR to RESET: completions that nobody polled are forgotten.
    pub(crate) fn reset(&mut self, start_psn: Psn) {
        self.start_psn = start_psn;
        self.state = State::Reset;
        while self.completions.pop().is_some() {}
    }

    fn take(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Reset)
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.state, State::Error { .. })
    }

    /// The peer, where there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.state {
            State::Rtr { path, .. } | State::Rts { path, .. } => Some(path),
            State::Error { last_words } => last_words.as_ref().map(|(path, _)| path),
            State::Reset | State::Init { .. } => None,
        }
    }

    pub(crate) fn post_receive(&mut self, request: ReceiveRequest) -> Result<(), PostError> {
        match &mut self.state {
            State::Init { receives } | State::Rtr { receives, .. } | State::Rts { receives, .. } => {
                receives.post(request, &self.completions)
            }
            State::Reset | State::Error { .. } => Err(PostError::Broken),
        }
    }

    pub(crate) fn post_send(&mut self, request: &SendRequest<'_>, regions: &Regions) -> Result<(), PostError> {
        match &mut self.state {
            State::Rts { requester, .. } => {
                let unpolled_count = self.completions.sends_count();
                requester.post(request, &self.options, (self.pd, regions), unpolled_count)
            }
            _ => Err(PostError::Broken),
        }
    }

    /// A packet for this queue pair, from its peer. False: this state takes none such.
    pub(crate) fn handle(&mut self, packet: &Packet<'_>, around: Around<'_>) -> bool {
        let is_response = packet.opcode.is_response();
        let handled = match &mut self.state {
            State::Rts { requester, .. } if is_response => requester.handle(packet, &mut context!(self, around)),
            State::Rts {
                receives, responder, ..
            }
            | State::Rtr {
                receives, responder, ..
            } if !is_response => responder.handle(packet, receives, &mut context!(self, around)),
            _ => return false,
        };
        if handled.is_err() {
            self.break_off();
        }
        true
    }

    /// The key that the packet which was just handled took back. What it names is bound no more from now on.
    pub(crate) fn take_invalidated(&mut self) -> Option<MemoryKey> {
        match &mut self.state {
            State::Rtr { responder, .. } | State::Rts { responder, .. } => responder.take_invalidated(),
            State::Reset | State::Init { .. } | State::Error { .. } => None,
        }
    }

    /// Whether requests are queued that no peer hears of. Hardly ever.
    pub(crate) fn has_home_work(&self) -> bool {
        matches!(&self.state, State::Rts { requester, .. } if requester.has_home_work())
    }

    /// Does what is due of them: [`QueuePair::poll_transmit`] comes after it.
    #[cold]
    pub(crate) fn work_at_home(&mut self, regions: &mut Regions, counters: &mut QpCounters) {
        while let State::Rts { requester, .. } = &mut self.state
            && let Some(work) = requester.home_work(&self.options)
        {
            let done = regions.work((self.pd, self.number), &work);
            let around = Around { regions, counters };
            if requester.worked_at_home(done, &mut context!(self, around)).is_err() {
                self.break_off();
            }
        }
    }

    /// When [`QueuePair::poll_transmit`] has something to do.
    pub(crate) fn due(&self) -> Due {
        match &self.state {
            State::Rts {
                responder, requester, ..
            } => {
                let asks = requester.due(&self.options);
                Due {
                    now: asks.now || responder.has_replies(),
                    ..asks
                }
            }
            State::Rtr { responder, .. }
            | State::Error {
                last_words: Some((_, responder)),
            } => Due {
                now: responder.has_replies(),
                ..Due::default()
            },
            State::Reset | State::Init { .. } | State::Error { last_words: None } => Due::default(),
        }
    }

    /// Time has passed: timers begin and end.
    pub(crate) fn tick(&mut self, now: Instant, around: Around<'_>) {
        if let State::Rts { requester, .. } = &mut self.state
            && requester.tick(now, &mut context!(self, around)).is_err()
        {
            self.break_off();
        }
    }

    /// The next packet, without ICRC: what it answers before what it asks.
    pub(crate) fn poll_transmit(&mut self, into: &mut [u8], around: Around<'_>) -> Option<usize> {
        loop {
            let around = Around {
                counters: &mut *around.counters,
                ..around
            };
            let polled = match &mut self.state {
                State::Rtr { responder, .. } => responder.poll_transmit(into, &mut context!(self, around)),
                State::Rts {
                    responder, requester, ..
                } => {
                    let mut context = context!(self, around);
                    match responder.has_replies() {
                        true => responder.poll_transmit(into, &mut context),
                        false => requester.poll_transmit(into, &mut context),
                    }
                }
                State::Error {
                    last_words: Some((_, responder)),
                } => match responder.poll_transmit(into, &mut context!(self, around)) {
                    Ok(polled) => Ok(polled),
                    // What was to be read is not open any more: that is said instead.
                    Err(_) => continue,
                },
                State::Reset | State::Init { .. } | State::Error { .. } => Ok(None),
            };
            match polled {
                Ok(polled) => return polled,
                Err(_) => self.break_off(),
            }
        }
    }
}
