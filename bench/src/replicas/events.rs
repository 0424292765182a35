//! What replicas tell of their elections while they run: a datagram for each, so that it is known also of a replica that
//! is killed a moment later. Elections are rare, so telling costs the request path nothing but three comparisons a turn.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

use anyhow::Context;
use dataplane_quorum::Replica;
use dataplane_waist::{Clock, StateMachine};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use crate::host::MachineClock;

/// What happened at a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happened {
    /// It suspects the leader, and asks the others whether it should stand for election (pre-vote).
    Stood,
    /// It leads from now on.
    Led,
    /// It does not lead any more.
    SteppedDown,
}

/// Something that happened at a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// By [`MachineClock`], read after the turn in which it happened.
    pub at_ns: u64,
    /// Whose.
    pub node: u32,
    /// Numbers this node's events from 0, so that a lost one is missed.
    pub number: u64,
    /// Its term then.
    pub term: u64,
    /// What.
    pub what: Happened,
}

/// The replica's side.
#[derive(Debug)]
pub(super) struct Herald {
    socket: UdpSocket,
    node: u32,
    next_number: u64,
    /// Stood, led, stepped down: the counters at the last look.
    seen: [u64; 3],
}

impl Herald {
    /// A herald, if anybody wants to hear.
    ///
    /// # Errors
    /// No socket could be had.
    pub(super) fn open(observer: Option<SocketAddr>, node: u32) -> anyhow::Result<Option<Herald>> {
        let Some(observer) = observer else { return Ok(None) };
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("opening a socket to tell of elections")?;
        socket.connect(observer).context("connecting to the observer")?;
        // A replica never waits for its observer.
        socket.set_nonblocking(true).context("opening the observer's socket")?;
        Ok(Some(Herald {
            socket,
            node,
            next_number: 0,
            seen: [0; 3],
        }))
    }

    /// Looks at the replica after a turn, and tells what is new.
    pub(super) fn look<S: StateMachine>(&mut self, replica: &Replica<S>) {
        let counters = replica.counters();
        let now = [
            (Happened::Stood, counters.elections_count),
            (Happened::Led, counters.led_count),
            (Happened::SteppedDown, counters.stepped_down_count),
        ];
        for (seen, (what, count)) in self.seen.iter_mut().zip(now) {
            if *seen == count {
                continue;
            }
            *seen = count;
            let event = Event {
                at_ns: MachineClock.now().as_ns(),
                node: self.node,
                number: self.next_number,
                term: replica.term().0,
                what,
            };
            self.next_number += 1;
            if let Ok(line) = serde_json::to_vec(&event) {
                // What is lost is missed by its number.
                let _ = self.socket.send(&line);
            }
        }
    }
}

/// Room for some thousands of events while nobody looks.
const BUFFER_BYTES: usize = 4 << 20;

/// The side that watches.
#[derive(Debug)]
pub struct Observer {
    socket: UdpSocket,
    /// All events so far, by node in order, of several nodes as they came.
    pub events: Vec<Event>,
    next_numbers: [u64; 32],
    /// Events that were told and did not come.
    pub missed_count: u64,
}

impl Observer {
    /// Begins to listen, on loopback.
    ///
    /// # Errors
    /// No socket could be had.
    pub fn open() -> anyhow::Result<Observer> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("opening the observer's socket")?;
        socket.set_nonblocking(true).context("opening the observer's socket")?;
        // Where it is refused, the default holds some hundred.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
        Ok(Observer {
            socket,
            events: Vec::new(),
            next_numbers: [0; 32],
            missed_count: 0,
        })
    }

    /// Where replicas tell.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.socket.local_addr().context("asking for the observer's address")
    }

    /// Takes in what was told.
    ///
    /// # Errors
    /// The socket failed.
    pub fn listen(&mut self) -> anyhow::Result<()> {
        let mut line = [0; 256];
        loop {
            match self.socket.recv(&mut line) {
                Ok(len_bytes) => {
                    // A stranger's datagram is not one of ours.
                    if let Ok(event) = serde_json::from_slice::<Event>(&line[..len_bytes]) {
                        self.note(event);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("listening to the replicas"),
            }
        }
    }

    fn note(&mut self, event: Event) {
        let Some(next_number) = self.next_numbers.get_mut(event.node as usize) else {
            return;
        };
        self.missed_count += event.number.saturating_sub(*next_number);
        *next_number = event.number + 1;
        self.events.push(event);
    }

    /// Who leads, by what was told so far: the leader of the highest term, unless it has stepped down since.
    pub fn leader(&self) -> Option<Event> {
        let led = self.events.iter().filter(|event| event.what == Happened::Led);
        let last = led.max_by_key(|event| event.term)?;
        let has_ended = self
            .events
            .iter()
            .any(|event| event.node == last.node && event.what == Happened::SteppedDown && event.number > last.number);
        (!has_ended).then_some(*last)
    }

    /// The events of a kind in `begin_ns..end_ns`.
    pub fn count(&self, what: Happened, begin_ns: u64, end_ns: u64) -> u64 {
        let within = |event: &&Event| event.what == what && (begin_ns..end_ns).contains(&event.at_ns);
        self.events.iter().filter(within).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(node: u32, number: u64, term: u64, what: Happened) -> Event {
        Event {
            at_ns: number * 1_000,
            node,
            number,
            term,
            what,
        }
    }

    #[test]
    fn the_leader_is_that_of_the_highest_term_until_it_steps_down() {
        let mut observer = Observer::open().expect("a socket");
        assert_eq!(observer.leader(), None);
        let second = event(1, 1, 3, Happened::Led);
        for event in [event(1, 0, 2, Happened::Stood), second, event(0, 0, 1, Happened::Led)] {
            observer.note(event);
        }
        assert_eq!(observer.leader(), Some(second));
        observer.note(event(0, 1, 3, Happened::SteppedDown));
        assert_eq!(
            observer.leader(),
            Some(second),
            "an older leader has learnt of the new one"
        );
        observer.note(event(1, 2, 4, Happened::SteppedDown));
        assert_eq!(observer.leader(), None);
        assert_eq!(observer.count(Happened::SteppedDown, 0, 2_000), 1);
    }

    #[test]
    fn a_lost_event_is_missed_and_a_stranger_is_not_heard() {
        let mut observer = Observer::open().expect("a socket");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket
            .connect(observer.address().expect("an address"))
            .expect("loopback");
        for event in [event(2, 0, 1, Happened::Stood), event(2, 3, 1, Happened::Led)] {
            let line = serde_json::to_vec(&event).expect("JSON");
            socket.send(&line).expect("loopback takes it");
            socket.send(b"hello").expect("loopback takes it");
        }
        observer.listen().expect("a socket");
        assert_eq!((observer.events.len(), observer.missed_count), (2, 2));
    }
}
