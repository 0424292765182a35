//! A wire around a wire that loses, repeats and reorders what is sent, as a network may; by count, or by seed.

use std::{collections::VecDeque, io, net::IpAddr, time::Duration};

use crate::{
    device::{PACKET_BYTES_MAX, Wire},
    endpoint::Transmit,
    wire::{Opcode, Packet, QpNumber},
};

/// What goes wrong with packets that leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Every so many packets one is lost; 0: none. By count, what was lost passes when it comes again: a requester that asks for everything from its gap on,
    /// and is sent a multiple of as many packets for it, would lose the same one each time, which is a property of counting and of no network.
    pub lose_every: u64,
    /// Every so many one is sent twice; 0: none.
    pub repeat_every: u64,
    /// Every so many one is held back until two others have left; 0: none.
    pub delay_every: u64,
    /// No acknowledgement is held back. A late one is nothing new to a requester, but rdma_rxe, which is waiting for the middle of a read's answer, takes it for
    /// the answer's end, and the packet that comes next ends the connection, with a read that is called done (Linux 6.12,
    /// drivers/infiniband/sw/rxe/rxe_comp.c, `check_psn` and `COMPST_UPDATE_COMP`).
    pub acks_are_punctual: bool,
    /// Not 0: which ones is drawn from this seed, with "every" as the mean, instead of counted.
    pub seed: u64,
    /// From the packet with this number on everything is lost; 0: never.
    pub dead_after: u64,
}

/// The wire around the wire.
#[derive(Debug)]
pub struct Faulty<W> {
    wire: W,
    faults: Faults,
    sent_count: u64,
    lost_count: u64,
    /// Lost by count, and not sent since.
    owed: VecDeque<Identity>,
    state: u64,
    held: VecDeque<Held>,
}

/// What a packet has in common with itself when it is sent again: its queue pair and its PSN (IBA §9.2). The rest of a read begins with another opcode
/// than it had within the whole.
type Identity = (QpNumber, [u8; 3]);

fn identity(transmit: &Transmit, packet: &[u8]) -> Identity {
    (transmit.qp, [packet[9], packet[10], packet[11]])
}

/// More than are under way at a time.
const OWED_MAX: usize = 1024;

#[derive(Debug)]
struct Held {
    transmit: Transmit,
    /// Packets that must still leave before it.
    wait_count: u32,
    packet: Box<[u8]>,
}

impl<W: Wire> Faulty<W> {
    /// Around `wire`.
    pub fn new(wire: W, faults: Faults) -> Faulty<W> {
        Faulty {
            wire,
            faults,
            sent_count: 0,
            lost_count: 0,
            owed: VecDeque::new(),
            state: faults.seed,
            held: VecDeque::new(),
        }
    }

    /// From now on, other faults.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.state = faults.seed;
        self.sent_count = 0;
        self.owed.clear();
    }

    /// Packets lost so far.
    pub fn lost_count(&self) -> u64 {
        self.lost_count
    }

    /// The wire inside.
    pub fn inner(&self) -> &W {
        &self.wire
    }

    fn is_due(&mut self, every: u64) -> bool {
        if every == 0 {
            return false;
        }
        if self.faults.seed == 0 {
            return self.sent_count.is_multiple_of(every);
        }
        // SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): enough for tests, repeatable everywhere.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31).is_multiple_of(every)
    }

    /// Whether this one is lost, which is due.
    fn is_lost(&mut self, identity: Identity) -> bool {
        if self.faults.seed != 0 {
            return true;
        }
        if let Some(place) = self.owed.iter().position(|owed| *owed == identity) {
            self.owed.remove(place);
            return false;
        }
        if self.owed.len() == OWED_MAX {
            self.owed.pop_front();
        }
        self.owed.push_back(identity);
        true
    }

    /// Sends what was held back long enough.
    fn release(&mut self, is_sent: bool) -> io::Result<()> {
        for held in &mut self.held {
            held.wait_count = held.wait_count.saturating_sub(u32::from(is_sent));
        }
        while self.held.front().is_some_and(|held| held.wait_count == 0) {
            if let Some(mut held) = self.held.pop_front() {
                self.wire.send(&held.transmit, &mut held.packet)?;
            }
        }
        Ok(())
    }
}

impl<W: Wire> Wire for Faulty<W> {
    type Clock = W::Clock;

    fn name(&self) -> &'static str {
        self.wire.name()
    }

    fn local(&self) -> IpAddr {
        self.wire.local()
    }

    fn clock(&self) -> W::Clock {
        self.wire.clock()
    }

    fn connect(&mut self, qp: QpNumber, to: IpAddr) -> io::Result<()> {
        self.wire.connect(qp, to)
    }

    fn disconnect(&mut self, qp: QpNumber) {
        self.wire.disconnect(qp);
    }

    fn receive(&mut self, packets_max: usize, sink: &mut dyn FnMut(IpAddr, &Packet<'_>)) -> io::Result<usize> {
        self.wire.receive(packets_max, sink)
    }

    fn send(&mut self, transmit: &Transmit, packet: &mut [u8]) -> io::Result<()> {
        self.sent_count += 1;
        let Faults {
            lose_every,
            repeat_every,
            delay_every,
            acks_are_punctual,
            dead_after,
            ..
        } = self.faults;
        let is_dead = dead_after > 0 && self.sent_count >= dead_after;
        if is_dead || self.is_due(lose_every) && self.is_lost(identity(transmit, packet)) {
            self.lost_count += 1;
            return Ok(());
        }
        let may_be_late = !(acks_are_punctual && packet[0] == Opcode::Acknowledge as u8);
        if self.is_due(delay_every) && may_be_late {
            let mut held = vec![0; PACKET_BYTES_MAX].into_boxed_slice();
            held[..transmit.len_bytes].copy_from_slice(&packet[..transmit.len_bytes]);
            self.held.push_back(Held {
                transmit: *transmit,
                wait_count: 2,
                packet: held,
            });
            return Ok(());
        }
        self.wire.send(transmit, packet)?;
        if self.is_due(repeat_every) {
            self.wire.send(transmit, packet)?;
        }
        self.release(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush()
    }

    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.wire.wait(max)
    }
}
