//! The client of an echo, as a protocol: what a client of a cluster is compared with.

use std::{collections::VecDeque, time::Duration};

use dataplane_waist::{Effects, Input, Instant, Peer, Protocol};
use dataplane_wire::{
    frame::{self, Header, Kind},
    quorum::request::{self, Command, Request},
};

/// Asks peer 0, in frames as long as a cluster's requests.
#[derive(Debug)]
pub(super) struct EchoClient {
    frame: Vec<u8>,
    retry: Duration,
    next_number: u64,
    /// Under way: number, and when it was last sent; zero: not yet.
    flights: Vec<(u64, Instant)>,
    answered: VecDeque<u64>,
    retries_count: u64,
}

impl EchoClient {
    /// One whose frames are as long as those with `command`.
    pub(super) fn new(command: &Command<'_>, retry: Duration) -> EchoClient {
        let request = Request {
            client: 0,
            sequence: 0,
            command: *command,
        };
        let mut frame = vec![0; frame::HEADER_BYTES + request.len_bytes()];
        request::emit(&request, &mut frame[frame::HEADER_BYTES..]);
        EchoClient {
            frame,
            retry,
            next_number: 1,
            flights: Vec::new(),
            answered: VecDeque::new(),
            retries_count: 0,
        }
    }

    /// One more request; its number.
    pub(super) fn ask(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.flights.push((number, Instant::ZERO));
        number
    }

    /// The number of a request that was answered.
    pub(super) fn take(&mut self) -> Option<u64> {
        self.answered.pop_front()
    }

    /// How often one was sent again.
    pub(super) fn retries_count(&self) -> u64 {
        self.retries_count
    }

    fn due(&self, last_sent: Instant) -> Instant {
        match last_sent {
            Instant::ZERO => Instant::ZERO,
            sent => sent + self.retry,
        }
    }
}

impl Protocol for EchoClient {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Tick => {
                for index in 0..self.flights.len() {
                    let (number, last_sent) = self.flights[index];
                    if self.due(last_sent) > now {
                        continue;
                    }
                    let header = Header {
                        kind: Kind::EchoRequest,
                        term: 0,
                        slot: number,
                        sent_ns: now.as_ns(),
                    };
                    frame::emit(&header, &mut self.frame);
                    let frame = &self.frame;
                    if out
                        .send(Peer(0), frame.len(), |bytes| bytes.copy_from_slice(frame))
                        .is_ok()
                    {
                        self.retries_count += u64::from(last_sent != Instant::ZERO);
                        self.flights[index].1 = now;
                    }
                }
            }
            Input::Frame { bytes, .. } => match frame::parse(bytes) {
                Ok(frame) if frame.header.kind == Kind::EchoReply => {
                    let number = frame.header.slot;
                    // One that was sent twice may be answered twice.
                    if let Some(index) = self.flights.iter().position(|&(under_way, _)| under_way == number) {
                        self.flights.swap_remove(index);
                        self.answered.push_back(number);
                    }
                }
                Ok(_) => out.reject(dataplane_wire::Reject::Kind),
                Err(reason) => out.reject(reason),
            },
            Input::Durable(_) => {}
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        self.flights.iter().map(|&(_, last_sent)| self.due(last_sent)).min()
    }
}
