//! One-sided memory in virtual time: what a host posts is done at the other side without its process's help.
//!
//! A queue pair between two hosts behaves as InfiniBand's reliable connection does (Architecture Specification vol. 1,
//! §9.7): in order, once, and after the first failure not at all until [`Fabric::reconnect`], or for
//! [`FabricOptions::repair`].
//!
//! What verbs do not promise, the fabric does not keep either. Within one write, bytes become visible in pieces, whole words of 8
//! bytes, at different times and, with [`Placement::Any`], in any order (adapters that people use place bytes in rising order, and
//! programs rely on it; the specification does not say so). A read is no snapshot. A write that a change of permission overtakes is
//! finished or cut off, but not later than the change. A queue pair that fails loses the acknowledgement of what was done.

mod state;

use std::sync::{Arc, Mutex, MutexGuard};

use dataplane_waist::{Completion, Peer, Window, WindowError, WrId};

use self::state::{Request, State, What, Writers};
use crate::{EventHash, HostId, Latency, LinkFaults, SimTime};

/// What a fabric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FabricOptions {
    /// The length of every host's window.
    pub window_bytes: usize,
    /// One way.
    pub latency: Latency,
    /// From the first word of a write that a reader can see to the last: up to this. A reader in between sees a torn write.
    /// As long at most lies between the first word that a read takes and the last.
    pub landing: SimTime,
    /// In which order words become visible.
    pub placement: Placement,
    /// After this long without an answer a request has failed.
    pub timeout: SimTime,
    /// Requests that a host may have under way, or finished and not polled.
    pub requests_max: usize,
    /// How long after its failure was noticed a queue pair is set up again, if both sides are up and reach each other: what a
    /// connection manager does. [`SimTime::FOREVER`]: never, but by [`Fabric::reconnect`].
    pub repair: SimTime,
    /// How often a host that dies takes what it has under way to a peer with it, also the rest of a write that has begun; 0 to 1.
    pub crash_cuts_ratio: f64,
}

/// In which order the words of one write become visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Of rising addresses, as adapters do it.
    Rising,
    /// Any, as the specification has it.
    Any,
}

impl Default for FabricOptions {
    fn default() -> FabricOptions {
        FabricOptions {
            window_bytes: 4096,
            // Half of the 1.3 µs that Mu takes to replicate a small request, a write's round trip (OSDI'20, abstract);
            // the spread is chosen.
            latency: Latency::uniform(SimTime::from_ns(600), SimTime::from_ns(200)),
            landing: SimTime::from_ns(100),
            // 4.096 µs · 2¹⁴, the local ACK timeout that perftest uses (its qp_timeout; IBA vol. 1, §9.7.6.1.3).
            timeout: SimTime::from_ns(4_096 << 14),
            requests_max: 64,
            placement: Placement::Rising,
            repair: SimTime::FOREVER,
            crash_cuts_ratio: 0.0,
        }
    }
}

/// Windows of several hosts, and the time in which they reach each other. Copies are the same fabric.
#[derive(Clone, Debug)]
pub struct Fabric(Arc<Mutex<State>>);

/// One host's window.
#[derive(Debug)]
pub struct SimWindow {
    fabric: Fabric,
    host: u32,
}

impl Fabric {
    /// Windows of `hosts_count` hosts, all zero; nobody may write.
    pub fn new(options: FabricOptions, hosts_count: u32, seed: u64) -> Fabric {
        Fabric(Arc::new(Mutex::new(State::new(options, hosts_count, seed))))
    }

    /// The window of one host. [`Peer`]`(i)` is host `i`.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn window(&self, host: HostId) -> SimWindow {
        assert!(
            (host.0 as usize) < self.state().hosts_count(),
            "{host:?} is not in the fabric"
        );
        SimWindow {
            fabric: self.clone(),
            host: host.0,
        }
    }

    /// Lets everything happen that is due at `until` or earlier.
    pub fn run_until(&self, until: SimTime) {
        let mut state = self.state();
        while state.step(until) {}
        state.now = state.now.max(until);
    }

    /// When the next thing is due; [`SimTime::FOREVER`] if nothing is under way.
    pub fn next_at(&self) -> SimTime {
        self.state().next_at()
    }

    /// Hands out, once, the hosts that something has happened to: their memory was written, or a request of theirs has finished.
    pub fn take_touched(&self, hosts: &mut Vec<HostId>) {
        let mut state = self.state();
        hosts.extend(state.touched.drain(..).map(HostId));
    }

    /// A host dies: nobody answers for it, and its memory is gone. Its own requests under way are forgotten.
    pub fn crash(&self, host: HostId) {
        self.state().crash(host.0);
    }

    /// A host is back, with its memory zero and its queue pairs as they were left: [`Fabric::reconnect`] them.
    pub fn restart(&self, host: HostId) {
        self.state().restart(host.0);
    }

    /// Sets up the queue pair between two hosts again, both ways. What was under way on the old one has failed.
    pub fn reconnect(&self, a: HostId, b: HostId) {
        self.state().reconnect(a.0, b.0);
    }

    /// Nothing passes from `from` to `to`, or everything again. A queue pair that meets this fails; where only the answer is cut
    /// off, what was asked is done.
    pub fn cut(&self, from: HostId, to: HostId, is_cut: bool) {
        self.state().pair(from.0, to.0).faults.blocked = is_cut;
    }

    /// What is wrong with the way from `from` to `to`, from now on. A queue pair sends again what was lost, or damaged, seven times within
    /// [`FabricOptions::timeout`], and fails when that was in vain: to whoever posted it, a frame that was lost
    /// is a request that takes longer. What comes twice or out of order is set right below and changes nothing here.
    pub fn set_faults(&self, from: HostId, to: HostId, faults: LinkFaults) {
        self.state().pair(from.0, to.0).faults = faults;
    }

    /// The hash over everything that has happened here.
    pub fn hash(&self) -> EventHash {
        self.state().hash
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("whoever held the fabric did not panic")
    }
}

impl SimWindow {
    /// Whether anything has happened here since the completions were polled last: a poller would find something.
    pub fn is_touched(&self) -> bool {
        self.fabric.state().host(self.host).is_touched
    }

    fn post(&mut self, to: Peer, at_bytes: u64, wr_id: WrId, what: What) -> Result<(), WindowError> {
        let request = Request::new(self.host, to.0, at_bytes, wr_id, what);
        self.fabric.state().post(request)
    }
}

impl Window for SimWindow {
    fn write(&mut self, to: Peer, at_bytes: u64, bytes: &[u8], wr_id: WrId) -> Result<(), WindowError> {
        self.post(to, at_bytes, wr_id, What::Write(bytes.to_vec()))
    }

    fn read(&mut self, from: Peer, at_bytes: u64, len_bytes: u32, wr_id: WrId) -> Result<(), WindowError> {
        self.post(from, at_bytes, wr_id, What::Read(vec![0; len_bytes as usize]))
    }

    fn poll_cq(&mut self, sink: &mut dyn FnMut(Completion)) -> usize {
        let finished = self.fabric.state().host(self.host).take_completions();
        // The sink may post again: the fabric is free by now.
        let count = finished.len();
        finished.into_iter().for_each(sink);
        count
    }

    fn take_read(&mut self, wr_id: WrId, into: &mut Vec<u8>) -> bool {
        let mut state = self.fabric.state();
        let read = &mut state.host(self.host).read;
        let Some(index) = read.iter().position(|(of, _)| *of == wr_id) else {
            return false;
        };
        *into = read.remove(index).1;
        true
    }

    fn load(&self, at_bytes: u64, into: &mut [u8]) {
        let mut state = self.fabric.state();
        let memory = &state.host(self.host).memory;
        let begin = at_bytes as usize;
        into.copy_from_slice(&memory[begin..begin + into.len()]);
    }

    fn store(&mut self, at_bytes: u64, bytes: &[u8]) {
        let mut state = self.fabric.state();
        let begin = at_bytes as usize;
        state.host(self.host).memory[begin..begin + bytes.len()].copy_from_slice(bytes);
    }

    fn grant(&mut self, writer: Option<Peer>) -> Result<(), WindowError> {
        let writers = Writers::One(writer.map(|peer| peer.0));
        self.fabric.state().admit(self.host, writers);
        Ok(())
    }

    fn open(&mut self) -> Result<(), WindowError> {
        self.fabric.state().admit(self.host, Writers::Everybody);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
