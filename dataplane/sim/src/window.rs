//! One-sided memory in virtual time: what a host posts is done at the other side without its process's help.
//!
//! A queue pair between two hosts behaves as InfiniBand's reliable connection does (Architecture Specification vol. 1,
//! §9.7): in order, once, and after the first failure not at all until [`Fabric::reconnect`].

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use dataplane_waist::{Completion, Peer, Window, WindowError, WrId};

use crate::{
    HostId, Latency, SimTime,
    queue::EventQueue,
    random::{Purpose, Random},
};

/// What a fabric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FabricOptions {
    /// The length of every host's window.
    pub window_bytes: usize,
    /// One way.
    pub latency: Latency,
    /// From the first cache line of a write that a reader can see to the last: up to this. A reader in between sees a
    /// torn write.
    pub landing: SimTime,
    /// After this long without an answer a request has failed.
    pub timeout: SimTime,
    /// Requests that a host may have under way, or finished and not polled.
    pub requests_max: usize,
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

#[derive(Debug)]
struct State {
    options: FabricOptions,
    now: SimTime,
    queue: EventQueue<Step>,
    hosts: Vec<Host>,
    /// By ordered pair: who posts, and to whom.
    pairs: Vec<Pair>,
}

#[derive(Debug)]
struct Host {
    is_up: bool,
    /// How often it has crashed: what an earlier life posted, this one never hears of.
    life: u32,
    memory: Box<[u8]>,
    writer: Option<u32>,
    requests_count: usize,
    completions: VecDeque<Completion>,
    /// What reads have brought.
    read: Vec<(WrId, Vec<u8>)>,
}

#[derive(Debug)]
struct Pair {
    random: Random,
    is_broken: bool,
    /// Nothing is done, and nothing is finished, before what was posted earlier.
    arrives_at: SimTime,
    completes_at: SimTime,
}

/// A request on its way.
#[derive(Debug)]
struct Request {
    from: u32,
    from_life: u32,
    to: u32,
    /// From its first to its last effect.
    landing: SimTime,
    wr_id: WrId,
    at_bytes: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Write(Vec<u8>),
    Read(u32),
}

#[derive(Debug)]
enum Step {
    Arrives(Request),
    /// The rest of a write becomes visible.
    Lands {
        host: u32,
        life: u32,
        at: usize,
        bytes: Vec<u8>,
    },
    Completes {
        host: u32,
        life: u32,
        completion: Completion,
        read: Option<Vec<u8>>,
    },
}

impl Fabric {
    /// Windows of `hosts_count` hosts, all zero; nobody may write.
    pub fn new(options: FabricOptions, hosts_count: u32, seed: u64) -> Fabric {
        let pairs = (0..hosts_count).flat_map(|from| (0..hosts_count).map(move |to| (from, to)));
        let pair = |(from, to)| Pair {
            random: Random::new(seed, Purpose::Window, from, to),
            is_broken: false,
            arrives_at: SimTime::ZERO,
            completes_at: SimTime::ZERO,
        };
        let host = || Host {
            is_up: true,
            life: 0,
            memory: vec![0; options.window_bytes].into(),
            writer: None,
            requests_count: 0,
            completions: VecDeque::new(),
            read: Vec::new(),
        };
        Fabric(Arc::new(Mutex::new(State {
            options,
            now: SimTime::ZERO,
            queue: EventQueue::new(),
            pairs: pairs.map(pair).collect(),
            hosts: (0..hosts_count).map(|_| host()).collect(),
        })))
    }

    /// The window of one host. [`Peer`]`(i)` is host `i`.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn window(&self, host: HostId) -> SimWindow {
        assert!(
            (host.0 as usize) < self.state().hosts.len(),
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
        while let Some((at, step)) = state.queue.pop_until(until) {
            state.now = at;
            state.happen(step);
        }
        state.now = state.now.max(until);
    }

    /// A host dies: nobody answers for it, and its memory is gone. Its own requests under way are forgotten.
    pub fn crash(&self, host: HostId) {
        let mut state = self.state();
        let host = &mut state.hosts[host.0 as usize];
        host.is_up = false;
        host.life += 1;
        host.writer = None;
        host.requests_count = 0;
        host.memory.fill(0);
        host.completions.clear();
        host.read.clear();
    }

    /// A host is back, with its memory zero and its queue pairs as they were left: [`Fabric::reconnect`] them.
    pub fn restart(&self, host: HostId) {
        self.state().hosts[host.0 as usize].is_up = true;
    }

    /// Sets up the queue pair between two hosts again, both ways.
    pub fn reconnect(&self, a: HostId, b: HostId) {
        let mut state = self.state();
        for (from, to) in [(a.0, b.0), (b.0, a.0)] {
            state.pair(from, to).is_broken = false;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("whoever held the fabric did not panic")
    }
}

impl State {
    fn pair(&mut self, from: u32, to: u32) -> &mut Pair {
        let index = from as usize * self.hosts.len() + to as usize;
        &mut self.pairs[index]
    }

    fn post(&mut self, mut request: Request) -> Result<(), WindowError> {
        let (from, to, options) = (request.from, request.to, self.options);
        if to as usize >= self.hosts.len() {
            return Err(WindowError::Unreachable);
        }
        let host = &mut self.hosts[from as usize];
        if host.requests_count == options.requests_max {
            return Err(WindowError::Full);
        }
        host.requests_count += 1;
        request.from_life = host.life;
        let now = self.now;
        let pair = self.pair(from, to);
        let at = pair.arrives_at.max(now + options.latency.draw(&mut pair.random));
        request.landing = pair.random.span(options.landing);
        // What is posted next finds all of this there; a picosecond later, for at the same time it would come first: it
        // is planned before this one's landing is.
        pair.arrives_at = at + request.landing + SimTime::from_ps(1);
        self.queue.push(at, Step::Arrives(request));
        Ok(())
    }

    fn happen(&mut self, step: Step) {
        match step {
            Step::Arrives(request) => self.arrive(request),
            Step::Lands { host, life, at, bytes } => {
                let host = &mut self.hosts[host as usize];
                if host.life == life {
                    host.memory[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
            Step::Completes {
                host,
                life,
                completion,
                read,
            } => {
                let host = &mut self.hosts[host as usize];
                if host.life == life {
                    host.read.extend(read.map(|bytes| (completion.wr_id, bytes)));
                    host.completions.push_back(completion);
                }
            }
        }
    }

    fn arrive(&mut self, request: Request) {
        let (from, to, now, options) = (request.from, request.to, self.now, self.options);
        let landing = request.landing;
        let (result, takes, read) = match self.access(&request) {
            Err(WindowError::Unreachable) => (Err(WindowError::Unreachable), options.timeout, None),
            Err(error) => (Err(error), SimTime::ZERO, None),
            Ok(range) => match request.what {
                What::Read(_) => {
                    let bytes = self.hosts[to as usize].memory[range].to_vec();
                    (Ok(()), SimTime::ZERO, Some(bytes))
                }
                What::Write(mut bytes) => {
                    // Cache lines become visible one after the other; two steps are enough to tear.
                    let lines_count = bytes.len().div_ceil(CACHE_LINE_BYTES) as u64;
                    let first_lines = self.pair(from, to).random.up_to(lines_count) as usize;
                    let rest = bytes.split_off((first_lines * CACHE_LINE_BYTES).min(bytes.len()));
                    let rest_at = range.start + bytes.len();
                    let host = &mut self.hosts[to as usize];
                    host.memory[range.start..rest_at].copy_from_slice(&bytes);
                    let rest = Step::Lands {
                        host: to,
                        life: host.life,
                        at: rest_at,
                        bytes: rest,
                    };
                    self.queue.push(now + landing, rest);
                    (Ok(()), landing, None)
                }
            },
        };
        let pair = self.pair(from, to);
        pair.is_broken |= result.is_err();
        let at = now + takes + options.latency.draw(&mut pair.random);
        pair.completes_at = pair.completes_at.max(at);
        let at = pair.completes_at;
        let completion = Completion {
            wr_id: request.wr_id,
            result,
        };
        let completes = Step::Completes {
            host: from,
            life: request.from_life,
            completion,
            read,
        };
        self.queue.push(at, completes);
    }

    /// Where the request may touch the other side's memory, now.
    fn access(&mut self, request: &Request) -> Result<std::ops::Range<usize>, WindowError> {
        let is_broken = self.pair(request.from, request.to).is_broken;
        let host = &self.hosts[request.to as usize];
        let is_write = matches!(request.what, What::Write(_));
        let len_bytes = match &request.what {
            What::Write(bytes) => bytes.len(),
            What::Read(len_bytes) => *len_bytes as usize,
        };
        if is_broken || !host.is_up {
            return Err(WindowError::Unreachable);
        }
        let begin = usize::try_from(request.at_bytes).map_err(|_| WindowError::Range)?;
        let end = begin.checked_add(len_bytes).ok_or(WindowError::Range)?;
        if end > host.memory.len() {
            return Err(WindowError::Range);
        }
        if is_write && host.writer != Some(request.from) {
            return Err(WindowError::Permission);
        }
        Ok(begin..end)
    }
}

/// What becomes visible at once on x86-64 and on most Arm servers.
const CACHE_LINE_BYTES: usize = 64;

impl SimWindow {
    /// The bytes that a finished read has brought; once.
    pub fn take_read(&mut self, wr_id: WrId) -> Option<Vec<u8>> {
        let mut state = self.fabric.state();
        let read = &mut state.hosts[self.host as usize].read;
        let index = read.iter().position(|(of, _)| *of == wr_id)?;
        Some(read.remove(index).1)
    }

    fn post(&mut self, to: Peer, at_bytes: u64, wr_id: WrId, what: What) -> Result<(), WindowError> {
        self.fabric.state().post(Request {
            from: self.host,
            from_life: 0,
            to: to.0,
            landing: SimTime::ZERO,
            wr_id,
            at_bytes,
            what,
        })
    }
}

impl Window for SimWindow {
    fn write(&mut self, to: Peer, at_bytes: u64, bytes: &[u8], wr_id: WrId) -> Result<(), WindowError> {
        self.post(to, at_bytes, wr_id, What::Write(bytes.to_vec()))
    }

    /// The bytes are those at the other side when the request arrives there; [`SimWindow::take_read`] hands them out.
    fn read(&mut self, from: Peer, at_bytes: u64, len_bytes: u32, wr_id: WrId) -> Result<(), WindowError> {
        self.post(from, at_bytes, wr_id, What::Read(len_bytes))
    }

    fn poll_cq(&mut self, sink: &mut dyn FnMut(Completion)) -> usize {
        let mut state = self.fabric.state();
        let host = &mut state.hosts[self.host as usize];
        let finished = std::mem::take(&mut host.completions);
        host.requests_count -= finished.len();
        // The sink may post again.
        drop(state);
        let count = finished.len();
        finished.into_iter().for_each(sink);
        count
    }

    fn load(&self, at_bytes: u64, into: &mut [u8]) {
        let state = self.fabric.state();
        let memory = &state.hosts[self.host as usize].memory;
        let begin = at_bytes as usize;
        into.copy_from_slice(&memory[begin..begin + into.len()]);
    }

    fn grant(&mut self, writer: Option<Peer>) -> Result<(), WindowError> {
        self.fabric.state().hosts[self.host as usize].writer = writer.map(|peer| peer.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
