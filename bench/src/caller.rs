//! A client that keeps requests of one kind under way and measures each, from being asked to its answer. It is a protocol,
//! so the same client measures in virtual time and over sockets.

use std::time::Duration;

use dataplane_quorum::client::{Ask, Client, ClientOptions, ClientOptionsError, Route, Ticket, Verdict};
use dataplane_waist::{Effects, Input, Instant, Protocol};
use dataplane_wire::quorum::{reply::Outcome, request::Command};

/// What is asked, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another version of the value.
    Put,
    /// The value, by an entry in the log: a compare-and-swap that expects what no version is, and is told what is there.
    LogRead,
    /// The value, by the leader's leave: read index or lease, as the replicas are set.
    Read,
    /// The value as this node has it.
    StaleRead(u32),
}

/// How it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// What.
    pub kind: Kind,
    /// How many are under way at once.
    pub in_flight: usize,
    /// From an answer to the next request.
    pub pause: Duration,
    /// How many in all.
    pub ops_count: u64,
}

impl Load {
    /// Nothing.
    pub const NONE: Load = Load {
        kind: Kind::Put,
        in_flight: 1,
        pause: Duration::ZERO,
        ops_count: 0,
    };
}

/// An answered request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// When it was asked, by the client's clock.
    pub asked_at: Instant,
    /// When its answer came.
    pub done_at: Instant,
    /// Which version of the value was written, or read.
    pub version: u64,
}

impl Done {
    /// From being asked to the answer.
    pub fn latency(&self) -> Duration {
        self.done_at.saturating_since(self.asked_at)
    }
}

/// The longest a request may take before it counts as lost.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait where a session has no room for another request.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// A version is as long, at the head of the value.
const VERSION_BYTES: usize = 8;

const KEY: &[u8] = b"key";

/// See the module.
#[derive(Debug)]
pub struct Caller {
    client: Client,
    load: Load,
    value: Vec<u8>,
    /// The last version put.
    version: u64,
    under_way: Vec<(Ticket, Instant, u64)>,
    begun_count: u64,
    next_at: Instant,
    /// What was answered, in order.
    pub done: Vec<Done>,
    /// Requests that nobody answered before their deadline.
    pub lost_count: u64,
    /// An answer that this kind of request is not answered with.
    pub odd: Option<String>,
}

impl Caller {
    /// A caller that asks nothing yet. Its values have `value_bytes`, at least a version's 8.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn new(options: ClientOptions, value_bytes: usize) -> Result<Caller, ClientOptionsError> {
        Ok(Caller {
            client: Client::new(options)?,
            load: Load::NONE,
            value: vec![0x61; value_bytes.max(VERSION_BYTES)],
            version: 0,
            under_way: Vec::new(),
            begun_count: 0,
            next_at: Instant::ZERO,
            done: Vec::new(),
            lost_count: 0,
            odd: None,
        })
    }

    /// From now on this is asked; what was answered before is forgotten.
    pub fn begin(&mut self, now: Instant, load: Load) {
        self.load = load;
        self.begun_count = 0;
        self.next_at = now;
        self.done.clear();
        self.done.reserve(load.ops_count.min(1 << 16) as usize);
        self.lost_count = 0;
    }

    /// No new requests from now on.
    pub fn stop(&mut self) {
        self.load.ops_count = self.begun_count;
    }

    /// Whether all was answered, or lost.
    pub fn is_done(&self) -> bool {
        self.begun_count == self.load.ops_count && self.under_way.is_empty()
    }

    /// The client itself: whom it takes for the leader, what it counted.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn has_more(&self) -> bool {
        self.begun_count < self.load.ops_count && self.under_way.len() < self.load.in_flight
    }

    fn ask(&mut self, now: Instant) {
        while self.has_more() && now >= self.next_at {
            let mut version = self.version;
            if self.load.kind == Kind::Put {
                version += 1;
                self.value[..VERSION_BYTES].copy_from_slice(&version.to_be_bytes());
            }
            let (command, route) = match self.load.kind {
                Kind::Put => {
                    let value = &self.value;
                    (Command::Put { key: KEY, value }, Route::Leader)
                }
                Kind::LogRead => {
                    let (expected, value) = (&[][..], &[][..]);
                    let key = KEY;
                    (Command::CompareAndSwap { key, expected, value }, Route::Leader)
                }
                Kind::Read => (Command::Get { key: KEY }, Route::Leader),
                Kind::StaleRead(node) => (Command::StaleGet { key: KEY }, Route::Node(node)),
            };
            let ask = Ask {
                command,
                route,
                deadline: now + DEADLINE,
            };
            let Ok(ticket) = self.client.ask(&ask) else {
                // The session still remembers one of long ago that is not answered: later.
                self.next_at = now + FULL_PAUSE;
                return;
            };
            self.version = version;
            self.begun_count += 1;
            self.under_way.push((ticket, now, version));
        }
    }

    fn take(&mut self, now: Instant) {
        let Caller {
            client,
            load,
            under_way,
            done,
            odd,
            lost_count,
            next_at,
            ..
        } = self;
        while client.take(|ticket, verdict| {
            let Some(index) = under_way.iter().position(|&(asked, ..)| asked == ticket) else {
                return;
            };
            let (_, asked_at, written) = under_way.swap_remove(index);
            *next_at = now + load.pause;
            let version = match (load.kind, verdict) {
                (Kind::Put, Verdict::Answered(Outcome::Done)) => written,
                (Kind::LogRead, Verdict::Answered(Outcome::Mismatch(value)))
                | (Kind::Read | Kind::StaleRead(_), Verdict::Answered(Outcome::Value(value))) => version_of(value),
                // A replica that has not applied the first version yet.
                (Kind::StaleRead(_), Verdict::Answered(Outcome::Absent)) => 0,
                (_, Verdict::TimedOut { .. } | Verdict::Expired { .. }) => {
                    *lost_count += 1;
                    return;
                }
                (kind, verdict) => {
                    *odd = Some(format!("{kind:?} was answered with {verdict:?}"));
                    return;
                }
            };
            let done_at = now;
            done.push(Done {
                asked_at,
                done_at,
                version,
            });
        }) {}
    }
}

fn version_of(value: &[u8]) -> u64 {
    let head = value.first_chunk::<VERSION_BYTES>();
    head.map_or(0, |head| u64::from_be_bytes(*head))
}

impl Protocol for Caller {
    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Effects) {
        if matches!(input, Input::Tick) {
            self.ask(now);
        }
        self.client.handle(now, input, out);
        self.take(now);
        self.ask(now);
    }

    fn wake_at(&self) -> Option<Instant> {
        let next_at = self.has_more().then_some(self.next_at);
        match (self.client.wake_at(), next_at) {
            (Some(client), Some(next)) => Some(client.min(next)),
            (client, next) => client.or(next),
        }
    }
}
