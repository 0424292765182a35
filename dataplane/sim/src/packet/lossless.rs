//! Priorities that are paused instead of dropped (priority flow control, IEEE 802.1Qbb): what a switch holds of each link that
//! leads to it, and the pauses that it sends back along that link.
//!
//! ```text
//!   upstream ─▶ queue ─▶ wire ═══════ packets ══════▶ switch: counted by link and priority while they wait
//!              paused? ◀══════════ pause frames ════════ asked for at XOFF, taken back at XON
//! ```
//!
//! A pause is a frame of 64 bytes: it goes before what waits at its port, waits for the frame that is on the wire, and takes the
//! cable's delay. It lasts until it is taken back: that switches repeat it in time (a pause of the longest kind ends after 3.4 ms at
//! 10 Gbit/s) is taken for granted. A network without lossless priorities has none of this: [`super::core::Core::lossless`] is `None`.

use dataplane_queue::{DropReason, Enqueued, PAUSE_FRAME_BYTES, Pfc, PfcEvent, SimTime};

use super::{
    core::{Core, Message},
    frame::Token,
    port::Destination,
    topology::Lossless,
};

/// No pipe, no packet.
const NONE: u32 = u32::MAX;

/// The pauses of a group.
#[derive(Debug)]
pub(crate) struct Pauses {
    priorities: u8,
    /// By pipe.
    ends: Vec<End>,
    /// By port.
    ports: Vec<PausedPort>,
    /// By a packet's place in the slab: the pipe that it came by, if it counts there.
    came_by: Vec<u32>,
}

/// The receiving end of a link.
#[derive(Debug)]
struct End {
    /// What came in and waits, at a switch. Hosts hold nothing.
    held: Option<Pfc>,
    /// The most that may be held of a priority.
    room_bytes: u64,
    /// The port of the same cable in the other direction: pauses for this link leave by it, and pauses that come by this link stop it.
    back: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct PausedPort {
    /// Bit n: the other end asked for a pause of priority n.
    paused: u8,
    /// Bit n: the other end is to be told about priority n.
    owed: u8,
    /// The pipe of the same cable in the other direction.
    pipe: u32,
}

/// A link's end and its way back, as the plan knows them.
pub(crate) struct EndPlan {
    pub is_at_switch: bool,
    pub room_bytes: u64,
    pub back: u32,
}

impl Pauses {
    pub fn new(options: &Lossless, ports_count: usize, ends: impl Iterator<Item = EndPlan>) -> Pauses {
        let end = |plan: EndPlan| End {
            held: plan.is_at_switch.then(|| Pfc::new(options.thresholds)),
            room_bytes: plan.room_bytes,
            back: plan.back,
        };
        let ends: Vec<End> = ends.map(end).collect();
        let mut ports = vec![PausedPort::default(); ports_count];
        for (pipe, end) in (0..).zip(&ends) {
            ports[end.back as usize].pipe = pipe;
        }
        Pauses {
            priorities: options.priorities,
            ends,
            ports,
            came_by: Vec::new(),
        }
    }

    /// What a packet is paused with, if it is.
    fn class(&self, token: &Token) -> Option<u8> {
        let priority = token.priority_level();
        (self.priorities & 1 << priority != 0).then_some(priority)
    }

    /// A packet of that class came by a pipe and waits.
    fn take(&mut self, pipe: u32, class: u8, token: &Token) -> Option<PfcEvent> {
        let place = token.place as usize;
        if self.came_by.len() <= place {
            self.came_by.resize(place + 1, NONE);
        }
        self.came_by[place] = pipe;
        let held = self.ends[pipe as usize].held.as_mut();
        held.and_then(|held| held.take(class, token.bytes))
    }

    /// A packet that waited leaves. The port that has to say so, if it does.
    fn give_back(&mut self, token: &Token) -> Option<(u32, PfcEvent)> {
        let came_by = self.came_by.get_mut(token.place as usize)?;
        let end = self.ends.get_mut(std::mem::replace(came_by, NONE) as usize)?;
        let event = end.held.as_mut()?.give_back(token.priority_level(), token.bytes)?;
        Some((end.back, event))
    }
}

impl<H: Copy> Core<H> {
    fn pauses(&mut self) -> &mut Pauses {
        self.lossless.as_mut().expect("a network with lossless priorities")
    }

    /// A switch of a network with lossless priorities got something.
    pub(super) fn arrive_lossless(&mut self, switch: u32, pipe: u32, token: Token) {
        if token.is_pause() {
            self.switches[switch as usize].hash.add(self.now.as_ps());
            self.switches[switch as usize].hash.add(token.digest());
            return self.take_pause(pipe, token);
        }
        let number = self.port_to(switch, &token);
        let Some(class) = self.pauses().class(&token) else {
            return self.enqueue(number, token);
        };
        let end = &self.pauses().ends[pipe as usize];
        let held_bytes = end.held.as_ref().map_or(0, |held| held.held_bytes(class));
        if held_bytes + u64::from(token.bytes) > end.room_bytes {
            return self.lose(number, token, DropReason::HeadroomFull);
        }
        let port = &mut self.ports[number as usize];
        match port.enqueue_lossless(token, &mut self.pools[port.pool as usize]) {
            Enqueued::Marked => {
                port.counters.marks_count += 1;
                self.counters.marks_count += 1;
            }
            Enqueued::Queued => (),
            Enqueued::Trimmed | Enqueued::Dropped { .. } => unreachable!("a lossless queue loses nothing"),
        }
        let event = self.pauses().take(pipe, class, &token);
        self.plan(number);
        if let Some(event) = event {
            let back = self.pauses().ends[pipe as usize].back;
            self.owe(back, event);
        }
    }

    /// A host of such a network got something: a packet goes to its edge, a pause does not.
    pub(super) fn is_pause_for_host(&mut self, host: u32, pipe: u32, token: Token) -> bool {
        if token.is_pause() {
            self.hosts[host as usize].hash.add(self.now.as_ps());
            self.hosts[host as usize].hash.add(token.digest());
            self.take_pause(pipe, token);
        }
        token.is_pause()
    }

    /// The other end of a link asks for a pause, or takes it back.
    fn take_pause(&mut self, pipe: u32, token: Token) {
        let (about, paused) = token.pause_of();
        let pauses = self.pauses();
        let number = pauses.ends[pipe as usize].back;
        let port = &mut pauses.ports[number as usize];
        port.paused = port.paused & !about | paused;
        self.plan(number);
    }

    /// The other end of a port is to be told something.
    fn owe(&mut self, number: u32, event: PfcEvent) {
        let priority = match event {
            PfcEvent::Pause(priority) => {
                self.counters.pauses_count += 1;
                priority
            }
            PfcEvent::Resume(priority) => priority,
        };
        self.pauses().ports[number as usize].owed |= 1 << priority;
        self.plan(number);
    }

    /// Something may have to leave by a port: now, or when its wire is free.
    fn plan(&mut self, number: u32) {
        let owes = self.pauses().ports[number as usize].owed != 0;
        let port = &mut self.ports[number as usize];
        if port.is_planned || !owes && port.waiting_count() == 0 {
            return;
        }
        let free_at = port.wire.free_at();
        if free_at <= self.now {
            self.wire_is_free_lossless(number);
        } else {
            port.is_planned = true;
            self.events.insert(number, free_at.as_ps());
        }
    }

    /// A pause goes first, then the first packet that is not paused.
    pub(super) fn wire_is_free_lossless(&mut self, number: u32) {
        let pauses = self.lossless.as_mut().expect("a network with lossless priorities");
        let port = &mut self.ports[number as usize];
        port.is_planned = false;
        let PausedPort { paused, owed, pipe } = pauses.ports[number as usize];
        if owed != 0 {
            pauses.ports[number as usize].owed = 0;
            let held = pauses.ends[pipe as usize].held.as_ref();
            let token = Token::pause(owed, held.map_or(0, Pfc::paused) & owed);
            return self.transmit_pause(number, token);
        }
        let token = port.dequeue_unpaused(paused, &mut self.pools[port.pool as usize]);
        let Some(token) = token else { return };
        let event = pauses.give_back(&token);
        self.transmit(number, token);
        if let Some((back, event)) = event {
            self.owe(back, event);
        }
    }

    /// Puts a pause on the free wire. Wires do not lose them: a pause taken back and lost would never end.
    fn transmit_pause(&mut self, number: u32, token: Token) {
        let port = &mut self.ports[number as usize];
        let at: SimTime = port.transmit(self.now, PAUSE_FRAME_BYTES);
        let to = port.to;
        self.plan(number);
        match to {
            Destination::Pipe(pipe) => self.put_in_pipe(pipe, at, token),
            Destination::Elsewhere { group, pipe } => {
                let packet = None;
                self.outboxes[group as usize].push(Message {
                    pipe,
                    at,
                    token,
                    packet,
                });
            }
        }
    }
}
