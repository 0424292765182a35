//! What is under way in a fabric: requests that travel, writes that land piece by piece, completions on their way back.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use dataplane_waist::{Completion, WindowError, WrId};
use dataplane_wire::checksum::crc32c;

use super::{FabricOptions, Placement};
use crate::{
    EventHash, LinkFaults, SimTime,
    queue::EventQueue,
    random::{Purpose, Random},
};

#[derive(Debug)]
pub(super) struct State {
    options: FabricOptions,
    pub now: SimTime,
    queue: EventQueue<Step>,
    hosts: Vec<Host>,
    /// By ordered pair: who posts, and to whom.
    pairs: Vec<Pair>,
    /// By number, in the order in which they began.
    landings: BTreeMap<u64, Landing>,
    landings_count: u64,
    pub touched: Vec<u32>,
    pub hash: EventHash,
}

/// Who may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writers {
    One(Option<u32>),
    Everybody,
}

impl Writers {
    fn contain(self, host: u32) -> bool {
        match self {
            Writers::One(writer) => writer == Some(host),
            Writers::Everybody => true,
        }
    }
}

#[derive(Debug)]
pub(super) struct Host {
    is_up: bool,
    /// How often it has crashed: what an earlier life posted, this one never hears of.
    life: u32,
    pub memory: Box<[u8]>,
    writers: Writers,
    requests_count: usize,
    /// Since the last poll.
    pub is_touched: bool,
    completions: VecDeque<Completion>,
    /// What reads have brought.
    pub read: Vec<(WrId, Vec<u8>)>,
}

impl Host {
    pub fn take_completions(&mut self) -> VecDeque<Completion> {
        self.is_touched = false;
        let finished = std::mem::take(&mut self.completions);
        self.requests_count -= finished.len();
        finished
    }
}

#[derive(Debug)]
pub(super) struct Pair {
    random: Random,
    is_broken: bool,
    pub faults: LinkFaults,
    /// How often it was set up.
    generation: u32,
    /// Nothing is done, and nothing is finished, before what was posted earlier.
    arrives_at: SimTime,
    completes_at: SimTime,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Request {
    from: u32,
    from_life: u32,
    to: u32,
    generation: u32,
    /// Each time that it was sent.
    is_lost: bool,
    /// From its first to its last effect.
    landing: SimTime,
    wr_id: WrId,
    at_bytes: u64,
    what: What,
}

impl Request {
    pub fn new(from: u32, to: u32, at_bytes: u64, wr_id: WrId, what: What) -> Request {
        Request {
            from,
            from_life: 0,
            to,
            generation: 0,
            is_lost: false,
            landing: SimTime::ZERO,
            wr_id,
            at_bytes,
            what,
        }
    }

    fn is_write(&self) -> bool {
        matches!(self.what, What::Write(_))
    }
}

#[derive(Debug)]
pub(super) enum What {
    Write(Vec<u8>),
    /// Filled as it goes.
    Read(Vec<u8>),
}

/// A request that has begun to have its effect.
#[derive(Debug)]
struct Landing {
    request: Request,
    /// What is left, as ranges of the request's bytes.
    pieces: VecDeque<Range<usize>>,
    /// Between two of them.
    pause: SimTime,
}

#[derive(Debug)]
enum Step {
    Arrives(Request),
    /// The next piece of a landing.
    Lands(u64),
    Completes {
        host: u32,
        life: u32,
        completion: Completion,
        read: Option<Vec<u8>>,
    },
    Repairs(u32, u32),
}

/// What becomes visible at once, whatever the machine: aligned words.
const WORD_BYTES: u64 = 8;

/// In how many pieces a write or a read happens at most. More would be as torn as three.
const PIECES_MAX: u64 = 3;

impl State {
    pub fn new(options: FabricOptions, hosts_count: u32, seed: u64) -> State {
        let pairs = (0..hosts_count).flat_map(|from| (0..hosts_count).map(move |to| (from, to)));
        let pair = |(from, to)| Pair {
            random: Random::new(seed, Purpose::Window, from, to),
            is_broken: false,
            faults: LinkFaults::default(),
            generation: 0,
            arrives_at: SimTime::ZERO,
            completes_at: SimTime::ZERO,
        };
        let host = || Host {
            is_up: true,
            life: 0,
            memory: vec![0; options.window_bytes].into(),
            writers: Writers::One(None),
            requests_count: 0,
            is_touched: false,
            completions: VecDeque::new(),
            read: Vec::new(),
        };
        State {
            options,
            now: SimTime::ZERO,
            queue: EventQueue::new(),
            pairs: pairs.map(pair).collect(),
            hosts: (0..hosts_count).map(|_| host()).collect(),
            landings: BTreeMap::new(),
            landings_count: 0,
            touched: Vec::new(),
            hash: EventHash::EMPTY,
        }
    }

    pub fn hosts_count(&self) -> usize {
        self.hosts.len()
    }

    pub fn host(&mut self, host: u32) -> &mut Host {
        &mut self.hosts[host as usize]
    }

    pub fn pair(&mut self, from: u32, to: u32) -> &mut Pair {
        let index = from as usize * self.hosts.len() + to as usize;
        &mut self.pairs[index]
    }

    pub fn next_at(&self) -> SimTime {
        self.queue.next_at()
    }

    /// Lets the next thing happen, if it is due at `until` or earlier; says whether it was.
    pub fn step(&mut self, until: SimTime) -> bool {
        let Some((at, step)) = self.queue.pop_until(until) else {
            return false;
        };
        self.now = at;
        match step {
            Step::Arrives(request) => self.arrive(request),
            Step::Lands(number) => self.land(number),
            Step::Completes {
                host,
                life,
                completion,
                read,
            } => self.hear(host, life, completion, read),
            Step::Repairs(a, b) => self.repair(a, b),
        }
        true
    }

    pub fn post(&mut self, mut request: Request) -> Result<(), WindowError> {
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
        let way = way(&mut pair.random, &options, pair.faults);
        request.is_lost = way.is_lost;
        let at = pair.arrives_at.max(now + way.takes);
        request.generation = pair.generation;
        request.landing = pair.random.span(options.landing);
        // What is posted next finds all of this there; a picosecond later, for at the same time it would come first: it
        // is planned before this one's landing is.
        pair.arrives_at = at + request.landing + SimTime::from_ps(1);
        self.queue.push(at, Step::Arrives(request));
        Ok(())
    }

    fn arrive(&mut self, mut request: Request) {
        let len = match self.access(&mut request) {
            Ok(len) => len,
            Err(error) => return self.complete(request, Err(error)),
        };
        let mut pieces = self.cut_up(&request, len);
        if self.options.placement == Placement::Any && request.is_write() {
            let pair = self.pair(request.from, request.to);
            for last in (1..pieces.len()).rev() {
                pieces.swap(last, pair.random.up_to(last as u64) as usize);
            }
        }
        let pauses_count = pieces.len().saturating_sub(1).max(1) as u64;
        let pause = SimTime::from_ps(request.landing.as_ps() / pauses_count);
        let number = self.landings_count;
        self.landings_count += 1;
        let landing = Landing {
            request,
            pieces: pieces.into(),
            pause,
        };
        self.landings.insert(number, landing);
        self.land(number);
    }

    /// Ranges of a request's bytes that happen at once.
    fn cut_up(&mut self, request: &Request, len: usize) -> Vec<Range<usize>> {
        let at = request.at_bytes;
        let random = &mut self.pair(request.from, request.to).random;
        let count = random.up_to(PIECES_MAX - 1) + 1;
        let mut cuts: Vec<usize> = (1..count)
            .map(|_| {
                let word = (at + random.up_to(len as u64)).next_multiple_of(WORD_BYTES);
                ((word - at) as usize).min(len)
            })
            .collect();
        cuts.extend([0, len]);
        cuts.sort_unstable();
        cuts.windows(2)
            .map(|ends| ends[0]..ends[1])
            .filter(|range| !range.is_empty() || len == 0)
            .collect()
    }

    fn land(&mut self, number: u64) {
        let Some(mut landing) = self.landings.remove(&number) else {
            // It was finished, or cut off, before its time.
            return;
        };
        self.land_piece(&mut landing);
        if landing.pieces.is_empty() {
            return self.complete(landing.request, Ok(()));
        }
        self.queue.push(self.now + landing.pause, Step::Lands(number));
        self.landings.insert(number, landing);
    }

    fn land_piece(&mut self, landing: &mut Landing) {
        let Some(range) = landing.pieces.pop_front() else {
            return;
        };
        let request = &mut landing.request;
        let at = request.at_bytes as usize;
        let place = at + range.start..at + range.end;
        let memory = &mut self.hosts[request.to as usize].memory[place];
        match &mut request.what {
            What::Write(bytes) => {
                memory.copy_from_slice(&bytes[range]);
                self.touched.push(request.to);
                self.hosts[request.to as usize].is_touched = true;
            }
            What::Read(bytes) => bytes[range].copy_from_slice(memory),
        }
        self.note(Word::Landed, request.from, request.to, request.wr_id.0);
    }

    fn complete(&mut self, request: Request, mut result: Result<(), WindowError>) {
        let (from, to, now, options) = (request.from, request.to, self.now, self.options);
        let faults = self.pair(to, from).faults;
        let way = way(&mut self.pair(from, to).random, &options, faults);
        if faults.blocked || way.is_lost {
            result = Err(WindowError::Unreachable);
        }
        let is_new = request.generation == self.pair(from, to).generation;
        let takes = match result {
            // A queue pair that is known to be broken says so at once.
            Err(WindowError::Unreachable) if is_new && !self.pair(from, to).is_broken => options.timeout,
            _ => SimTime::ZERO,
        };
        let pair = self.pair(from, to);
        let breaks = result.is_err() && is_new && !pair.is_broken;
        pair.is_broken |= breaks;
        let at = now + takes + way.takes;
        pair.completes_at = pair.completes_at.max(at);
        let at = pair.completes_at;
        if breaks && options.repair != SimTime::FOREVER {
            self.queue.push(at + options.repair, Step::Repairs(from, to));
        }
        let completion = Completion {
            wr_id: request.wr_id,
            result,
        };
        let read = match request.what {
            What::Read(bytes) if result.is_ok() => Some(bytes),
            _ => None,
        };
        let completes = Step::Completes {
            host: from,
            life: request.from_life,
            completion,
            read,
        };
        self.queue.push(at, completes);
    }

    fn hear(&mut self, host: u32, life: u32, completion: Completion, read: Option<Vec<u8>>) {
        if self.hosts[host as usize].life != life {
            return;
        }
        let detail = completion.wr_id.0 << 1 | u64::from(completion.result.is_ok());
        self.note(Word::Completed, host, read.as_deref().map_or(0, crc32c), detail);
        let host_state = &mut self.hosts[host as usize];
        host_state.read.extend(read.map(|bytes| (completion.wr_id, bytes)));
        host_state.completions.push_back(completion);
        host_state.is_touched = true;
        self.touched.push(host);
    }

    /// How many bytes of the other side's memory the request touches, now.
    fn access(&mut self, request: &mut Request) -> Result<usize, WindowError> {
        let pair = self.pair(request.from, request.to);
        let is_usable = !pair.is_broken && !pair.faults.blocked && pair.generation == request.generation;
        let host = &self.hosts[request.to as usize];
        let len = match &request.what {
            What::Write(bytes) | What::Read(bytes) => bytes.len(),
        };
        if !is_usable || !host.is_up || request.is_lost {
            return Err(WindowError::Unreachable);
        }
        let begin = usize::try_from(request.at_bytes).map_err(|_| WindowError::Range)?;
        let end = begin.checked_add(len).ok_or(WindowError::Range)?;
        if end > host.memory.len() {
            return Err(WindowError::Range);
        }
        if request.is_write() && !host.writers.contain(request.from) {
            return Err(WindowError::Permission);
        }
        Ok(len)
    }

    /// Changes who may write. What has begun is finished or cut off before.
    pub fn admit(&mut self, host: u32, writers: Writers) {
        self.hosts[host as usize].writers = writers;
        self.settle(WindowError::Permission, |request| {
            request.to == host && request.is_write() && !writers.contain(request.from)
        });
    }

    /// Ends, one way or the other, the landings that are meant.
    fn settle(&mut self, error: WindowError, is_meant: impl Fn(&Request) -> bool) {
        let meant = self.landings.iter().filter(|(_, landing)| is_meant(&landing.request));
        let numbers: Vec<u64> = meant.map(|(&number, _)| number).collect();
        for number in numbers {
            let mut landing = self.landings.remove(&number).expect("it was found");
            let (from, to) = (landing.request.from, landing.request.to);
            if self.pair(from, to).random.chance(0.5) {
                while !landing.pieces.is_empty() {
                    self.land_piece(&mut landing);
                }
                self.complete(landing.request, Ok(()));
            } else {
                self.complete(landing.request, Err(error));
            }
        }
    }

    pub fn crash(&mut self, host: u32) {
        self.note(Word::Crashed, host, 0, 0);
        let (hosts_count, cuts_ratio) = (self.hosts.len() as u32, self.options.crash_cuts_ratio);
        // What it was writing stays as far as it got, or goes on without it: it was sent already.
        for to in 0..hosts_count {
            if self.pair(host, to).random.chance(cuts_ratio) {
                self.landings
                    .retain(|_, landing| (landing.request.from, landing.request.to) != (host, to));
                self.pair(host, to).generation += 1;
            }
        }
        // Whoever was writing to it, or reading from it, hears nothing.
        let meant = self.landings.iter().filter(|(_, landing)| landing.request.to == host);
        let numbers: Vec<u64> = meant.map(|(&number, _)| number).collect();
        for number in numbers {
            let landing = self.landings.remove(&number).expect("it was found");
            self.complete(landing.request, Err(WindowError::Unreachable));
        }
        let host = &mut self.hosts[host as usize];
        host.is_up = false;
        host.life += 1;
        host.writers = Writers::One(None);
        host.requests_count = 0;
        host.memory.fill(0);
        host.completions.clear();
        host.read.clear();
    }

    pub fn restart(&mut self, host: u32) {
        let was_up = std::mem::replace(&mut self.hosts[host as usize].is_up, true);
        if was_up || self.options.repair == SimTime::FOREVER {
            return;
        }
        // Its queue pairs died with it; a connection manager sets them up again.
        for peer in (0..self.hosts.len() as u32).filter(|&peer| peer != host) {
            self.pair(host, peer).is_broken = true;
            self.pair(peer, host).is_broken = true;
            self.queue
                .push(self.now + self.options.repair, Step::Repairs(host, peer));
        }
    }

    pub fn reconnect(&mut self, a: u32, b: u32) {
        self.settle(WindowError::Unreachable, |request| {
            (request.from, request.to) == (a, b) || (request.from, request.to) == (b, a)
        });
        for (from, to) in [(a, b), (b, a)] {
            let pair = self.pair(from, to);
            pair.is_broken = false;
            pair.generation += 1;
        }
    }

    /// A connection manager's turn.
    fn repair(&mut self, a: u32, b: u32) {
        if !self.pair(a, b).is_broken && !self.pair(b, a).is_broken {
            return;
        }
        let can = self.hosts[a as usize].is_up
            && self.hosts[b as usize].is_up
            && !self.pair(a, b).faults.blocked
            && !self.pair(b, a).faults.blocked;
        match can {
            true => self.reconnect(a, b),
            // While a side is down its restart is the next occasion, and it comes by itself.
            false => self.queue.push(self.now + self.options.repair, Step::Repairs(a, b)),
        }
    }

    fn note(&mut self, word: Word, a: u32, b: u32, detail: u64) {
        self.hash.add(self.now.as_ps());
        self.hash.add((word as u64) << 60 | u64::from(a) << 32 | u64::from(b));
        self.hash.add(detail);
    }
}

/// How often a request, or its answer, is sent again: retry_cnt of verbs is 7 at most (IBA vol. 1, §9.9.2.4.1.1).
const RESENDS_MAX: u64 = 7;

/// One way of a request, or of its answer.
struct Way {
    takes: SimTime,
    is_lost: bool,
}

fn way(random: &mut Random, options: &FabricOptions, faults: LinkFaults) -> Way {
    let mut takes = options.latency.draw(random) + faults.slow;
    // What was damaged does not pass the check of the ICRC.
    let loss_ratio = 1.0 - (1.0 - faults.loss_ratio) * (1.0 - faults.corrupt_ratio);
    let pause = SimTime::from_ps(options.timeout.as_ps() / (RESENDS_MAX + 1));
    let mut sent_count = 1;
    // A way on which nothing is lost draws nothing for that.
    while loss_ratio > 0.0 && random.chance(loss_ratio) {
        if sent_count > RESENDS_MAX {
            return Way { takes, is_lost: true };
        }
        (sent_count, takes) = (sent_count + 1, takes + pause);
    }
    Way { takes, is_lost: false }
}

/// What the hash tells apart.
#[derive(Clone, Copy, Debug)]
enum Word {
    Landed = 1,
    Completed,
    Crashed,
}
