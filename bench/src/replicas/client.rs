//! A closed-loop client of a measured cluster: it keeps so many requests under way and measures each from its first send to
//! its answer. The same loop asks an echo, so that the two can be compared.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, bail};
use dataplane_quorum::client::{self, Ask, AskError, ClientTiming, Route, Ticket, Verdict};
use dataplane_waist::{Clock, Effects, Input, Instant, Port, Protocol};
use dataplane_wire::quorum::{reply::Outcome, request::Command};
use ebpf_host::Attachment;

use super::{
    Ground, Network, Replicas,
    echo::EchoClient,
    limits,
    port::{self, Opened},
};
use crate::{backends::BackEnd, measure::Recorder};

/// How the client asks.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Requests under way at once.
    pub in_flight: usize,
    /// Bytes of each value; an echo is as long as the request would be.
    pub value_bytes: usize,
}

/// What became of the requests.
#[derive(Debug)]
pub struct Asked {
    /// From the first send of each to its answer.
    pub latency: Recorder,
    /// Answered.
    pub answered_count: u64,
    /// Sent again.
    pub retries_count: u64,
    /// Answers that another replica leads.
    pub redirects_count: u64,
    /// The longest time in which nothing was answered although something was under way.
    pub stall_max: Duration,
    /// How long it took.
    pub elapsed: Duration,
}

/// The client's end.
pub struct Client {
    port: Box<dyn Port>,
    asks: Asks,
    effects: Effects,
    options: ClientOptions,
    value: Vec<u8>,
    /// Where nothing is lost on purpose, the client may be late to ask again: a wait of less than 10 ms costs a socket that
    /// blocks another system call.
    rest_min: Duration,
    /// What is under way, and when it was first sent.
    flights: Vec<(u64, Instant)>,
    /// Goes after the port.
    _program: Option<Attachment>,
}

/// Who asks.
enum Asks {
    Cluster(Box<client::Client>),
    Echo(EchoClient),
}

/// How long a cluster gets to elect its first leader.
const ELECTION_MAX: Duration = Duration::from_secs(10);
/// How long a request may take: longer than a cluster needs for another leader.
const DEADLINE: Duration = Duration::from_secs(5);
/// After the measured time, answers to what is still under way are waited for so long.
const LINGER: Duration = Duration::from_millis(200);
const KEY: &[u8] = b"key";

/// On a network that loses frames: as [`ClientTiming::LOCAL`], but what the round trips say counts from one millisecond on.
const TIMING_LOSSY: ClientTiming = ClientTiming {
    retry_min: Duration::from_millis(1),
    ..ClientTiming::LOCAL
};

impl Client {
    /// Opens a port of `backend`'s kind that knows the replicas, or the echo if that is what the only one of them is.
    ///
    /// # Errors
    /// The port could not be opened.
    pub fn open(
        backend: &BackEnd,
        (ground, network): (&Ground, &Network),
        replicas: &Replicas,
        is_echo: bool,
        options: ClientOptions,
    ) -> anyhow::Result<Client> {
        let open = || {
            port::open(
                backend,
                network,
                None,
                &ground.client(),
                (&replicas.endpoints, None, None),
            )
        };
        let Opened { port, peers, keeps } = ground.inside_client(open)??;
        let frame_bytes_max = port.caps().frame_bytes_max;
        let value = vec![0x61; options.value_bytes];
        let put = Command::Put {
            key: KEY,
            value: &value,
        };
        let (timing, rest_min) = match network.loss_ratio > 0.0 {
            true => (TIMING_LOSSY, Duration::ZERO),
            false => (ClientTiming::LOCAL, REST_MAX),
        };
        let asks = match is_echo {
            true => Asks::Echo(EchoClient::new(&put, timing.retry_first)),
            false => Asks::Cluster(Box::new(client::Client::new(client::ClientOptions {
                timing,
                in_flight_max: options.in_flight,
                ..client::ClientOptions::new(peers, &limits(frame_bytes_max), network.seed)
            })?)),
        };
        // As many sends as there can be in a turn: each request again, and the session's.
        let sends_max = 2 * options.in_flight + 2 * port.caps().batch_frames_max + 2;
        Ok(Client {
            port,
            asks,
            effects: Effects::with_capacity(sends_max, sends_max * frame_bytes_max),
            options,
            value,
            rest_min,
            flights: Vec::with_capacity(options.in_flight),
            _program: keeps,
        })
    }

    /// Finds the leader and opens a session there; says its node. An echo has none, and is node 0.
    ///
    /// # Errors
    /// Nobody leads in time.
    pub fn find_leader(&mut self, clock: &dyn Clock, stop: &AtomicBool) -> anyhow::Result<u32> {
        let deadline = clock.now() + ELECTION_MAX;
        let Asks::Cluster(_) = &self.asks else { return Ok(0) };
        self.begin(clock.now())?;
        let mut found = false;
        while !found && clock.now() < deadline && !stop.load(Ordering::Relaxed) {
            self.turn(clock)?;
            self.take(&mut |_| found = true)?;
        }
        match &self.asks {
            Asks::Cluster(client) if found => Ok(client.leader()),
            _ => bail!("no replica said that it leads within {ELECTION_MAX:?}"),
        }
    }

    /// Keeps requests under way for `duration`.
    ///
    /// # Errors
    /// The port failed, or the cluster answered something that a put is not answered with.
    pub fn ask(&mut self, clock: &dyn Clock, duration: Duration, stop: &AtomicBool) -> anyhow::Result<Asked> {
        let before = self.counts();
        let mut latency = Recorder::new();
        let mut answered_count = 0;
        let mut stall_max = Duration::ZERO;
        let start = clock.now();
        let end = start + duration;
        let mut last_answer = start;
        loop {
            let mut now = clock.now();
            let is_over = now >= end || stop.load(Ordering::Relaxed);
            if is_over && (self.flights.is_empty() || now >= end + LINGER) {
                break;
            }
            while !is_over && self.flights.len() < self.options.in_flight && self.begin(now)? {}
            self.turn(clock)?;
            now = clock.now();
            let mut is_answered = false;
            self.take(&mut |first_sent| {
                latency.record((now - first_sent).as_nanos() as u64);
                answered_count += 1;
                is_answered = true;
            })?;
            if is_answered {
                // What comes after the end was not followed by more.
                if now < end {
                    stall_max = stall_max.max(now - last_answer);
                }
                last_answer = now;
            }
        }
        for _ in self.flights.drain(..) {
            latency.record_lost();
        }
        let elapsed = clock.now() - start;
        let counts = self.counts();
        Ok(Asked {
            latency,
            answered_count,
            retries_count: counts.0 - before.0,
            redirects_count: counts.1 - before.1,
            stall_max,
            elapsed,
        })
    }

    /// Times that something was sent again, and that another replica was taken for the leader.
    fn counts(&self) -> (u64, u64) {
        match &self.asks {
            Asks::Cluster(client) => (client.counters().timeouts_count, client.counters().turns_count),
            Asks::Echo(echo) => (echo.retries_count(), 0),
        }
    }

    /// One more request, which leaves with the next turn. False: one that was given up may still be answered, and has its place.
    fn begin(&mut self, now: Instant) -> anyhow::Result<bool> {
        let number = match &mut self.asks {
            Asks::Cluster(client) => {
                let command = Command::Put {
                    key: KEY,
                    value: &self.value,
                };
                let ask = Ask {
                    command,
                    route: Route::Leader,
                    deadline: now + DEADLINE,
                };
                match client.ask(&ask) {
                    Ok(Ticket(number)) => number,
                    Err(AskError::Full { .. }) => return Ok(false),
                    Err(error) => return Err(error).context("asking the cluster"),
                }
            }
            Asks::Echo(echo) => echo.ask(),
        };
        self.flights.push((number, now));
        Ok(true)
    }

    /// Sends what is to be sent, rests until a frame is there or something is due, and takes what came.
    fn turn(&mut self, clock: &dyn Clock) -> anyhow::Result<()> {
        let Client {
            port,
            asks,
            effects,
            rest_min,
            ..
        } = self;
        let protocol: &mut dyn Protocol = match asks {
            Asks::Cluster(client) => &mut **client,
            Asks::Echo(echo) => echo,
        };
        let now = clock.now();
        if protocol.wake_at().is_some_and(|at| at <= now) {
            protocol.handle(now, Input::Tick, effects);
        }
        send(&mut **port, effects)?;
        let rest = match protocol.wake_at() {
            Some(at) => at.saturating_since(now).max(*rest_min).min(REST_MAX),
            None => REST_MAX,
        };
        port.wait(rest).context("waiting for an answer")?;
        let now = clock.now();
        port.rx_burst(&mut |frame| {
            let input = Input::Frame {
                from: frame.from,
                bytes: frame.bytes,
            };
            protocol.handle(now, input, effects);
        })
        .context("receiving")?;
        send(&mut **port, effects)?;
        effects.clear();
        Ok(())
    }

    /// Hands over when what was answered was first sent.
    fn take(&mut self, answered: &mut dyn FnMut(Instant)) -> anyhow::Result<()> {
        let Client { asks, flights, .. } = self;
        let mut odd = None;
        let mut over = |number: u64, verdict: Option<Verdict<'_>>| {
            // One that was given up is nobody's any more.
            let Some(index) = flights.iter().position(|&(under_way, _)| under_way == number) else {
                return;
            };
            let (_, first_sent) = flights.swap_remove(index);
            match verdict {
                None | Some(Verdict::Answered(Outcome::Done)) => answered(first_sent),
                Some(verdict) => odd = Some(format!("{verdict:?}")),
            }
        };
        match asks {
            Asks::Echo(echo) => {
                while let Some(number) = echo.take() {
                    over(number, None);
                }
            }
            Asks::Cluster(client) => while client.take(|Ticket(number), verdict| over(number, Some(verdict))) {},
        }
        match odd {
            Some(verdict) => bail!("a put came to {verdict}"),
            None => Ok(()),
        }
    }
}

/// How long the client rests at most before it looks whether it is to stop.
const REST_MAX: Duration = Duration::from_millis(20);

fn send(port: &mut dyn Port, effects: &mut Effects) -> anyhow::Result<()> {
    let mut sent = false;
    for (to, frame) in effects.sends() {
        let fill = &mut |bytes: &mut [u8]| bytes.copy_from_slice(frame);
        if port.tx(to, frame.len(), fill).is_err() {
            // Its queue is full: what is there goes out first. What has no room then is lost, and sent again when it is due.
            port.flush().context("sending")?;
            let _ = port.tx(to, frame.len(), fill);
        }
        sent = true;
    }
    if sent {
        effects.clear_sends();
        port.flush().context("sending")?;
    }
    Ok(())
}
