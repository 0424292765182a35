//! A trial: one server, one client, one load, one row. The request's whole path on the measuring side is here:
//! schedule → client → port … server … port → client → histogram → row.

mod ends;
pub mod one_way;
mod row;
mod stall;

use std::{
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use dataplane_ports::udp::UdpCloser;
use dataplane_waist::{MonotonicClock, Peer, Wake};

use crate::{
    backends::{BackEnd, Room},
    experiment::Lab,
    host::{self, Seat},
    load::{
        LoadResult,
        closed::{self, ClosedOptions},
        open::{self, OpenOptions},
        schedule::Schedule,
    },
    measure::{
        Watch,
        gates::{self, Limits, Observation},
    },
    record::{ModeRecord, SupportRecord, Validity},
    server::{Server, ServerReport},
};
use ends::{ClientPort, Ends, Wanted};
pub use row::Position;
use stall::stall_again_and_again;

/// What a trial does.
#[derive(Clone, Debug)]
pub struct Trial<'a> {
    /// The server's back end, and the client's unless it has its own.
    pub backend: &'a BackEnd,
    /// The client's back end, where the ends differ.
    pub client_backend: Option<&'a BackEnd>,
    /// Size of a request and of its reply: header and payload, without UDP, IP and Ethernet.
    pub frame_bytes: usize,
    /// Which CPUs the two ends get.
    pub cpus: Cpus,
    /// What the client does.
    pub load: Load<'a>,
    /// How long a request may take before it is lost.
    pub timeout: Duration,
    /// The server is stopped for a while again and again.
    pub stall: Option<Stall>,
    /// Work per request at the server.
    pub service_spin: Duration,
    /// Room for requests that wait.
    pub room: Room,
    /// What does not fit that room is what is measured, and no fault of the measurement.
    pub overflow_is_measured: bool,
}

/// The highest quantile that every row must support on its own; higher ones come from merged rounds.
const JUDGED_QUANTILE: f64 = 0.5;

/// Which CPUs the two ends get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// Both on the first: path length, without wake-ups across CPUs.
    One,
    /// One each, where there are two.
    Two,
}

impl Cpus {
    /// The client's and the server's, of those that this process may use; `None` where it knows of none.
    pub fn of(self, usable: &[usize]) -> [Option<usize>; 2] {
        match (self, usable) {
            (_, []) => [None, None],
            (Cpus::Two, [first, second, ..]) => [Some(*first), Some(*second)],
            (_, [first, ..]) => [Some(*first), Some(*first)],
        }
    }
}

/// What the client does.
#[derive(Clone, Copy, Debug)]
pub enum Load<'a> {
    /// Ping-pong: the next request leaves when the last is answered.
    Closed {
        /// How long.
        duration: Duration,
    },
    /// Requests leave when the schedule says.
    Open(&'a Schedule),
}

/// The server stands still for `stopped` at the end of every `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// From one stop to the next.
    pub period: Duration,
    /// How long each lasts.
    pub stopped: Duration,
}

/// Everything a trial found.
#[derive(Debug)]
pub struct Outcome {
    /// What the client measured.
    pub load: LoadResult,
    /// What the server counted.
    pub server: ServerReport,
    /// CPU time the server used while the load ran.
    pub server_cpu: Option<Duration>,
    /// CPU time the client used, its io_uring threads included.
    pub client_cpu: Duration,
    /// When the server was stopped and let go, in nanoseconds from the load's start.
    pub stalls_ns: Vec<(u64, u64)>,
    /// How far those moments may be off, where the server was stopped over a network.
    pub stalls_uncertainty: Option<Duration>,
    /// How the two ends ran.
    pub facts: BTreeMap<String, String>,
    /// May it be judged?
    pub validity: Validity,
    /// When it began, seconds since the run's start.
    pub at_s: f64,
    mode: ModeRecord,
}

/// Requests that warm caches, neighbour entries and io_uring's buffers before anything is measured.
const WARM_UP: Duration = Duration::from_millis(15);

/// Runs `trial` once.
///
/// # Errors
/// When an end could not be started or failed. A slow, lossy or stalled server is not an error: it is the measurement.
pub fn run(lab: &Lab<'_>, trial: &Trial<'_>, client_id: u32) -> anyhow::Result<Outcome> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let ends = Ends::start(lab, &Wanted::by(trial))?;
    let clock = MonotonicClock::new();
    let watch = Watch::begin();

    let Ends {
        server,
        client_port,
        client_seat,
    } = ends;
    let client_backend = trial.client_backend.unwrap_or(trial.backend);
    // What the threads of this trial tell each other.
    let signals = Signals::default();
    let (tell, told) = mpsc::channel();
    let (measured, stalls) = thread::scope(|scope| {
        let (server, signals) = (&server, &signals);
        let staller = trial
            .stall
            .map(|stall| scope.spawn(move || stall_again_and_again(server, stall, clock, signals)));
        let client = scope.spawn(move || {
            let measured = client(lab, trial, client_port, client_seat, client_id, &clock, server, signals);
            signals.done.store(true, Ordering::Release);
            let _ = tell.send(());
            measured
        });
        supervise(lab, trial, &told, signals);
        let measured = client
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the client's thread panicked")));
        let stalls = staller
            .map(|staller| staller.join().unwrap_or_default())
            .unwrap_or_default();
        (measured, stalls)
    });
    let measured = measured.with_context(|| format!("the client over {}", client_backend.name))?;
    let mut facts = measured.facts;
    facts.extend(server.facts().clone());
    let server = server.finish()?;

    let mut seen = watch.end();
    seen.extend(gates::observe(&measured.load, JUDGED_QUANTILE));
    seen.push(Observation::RingOverflow {
        end: "server",
        rx_dropped_count: server.rx_dropped_count,
        tx_dropped_count: server.tx_dropped_count,
    });
    seen.extend(measured.contention);
    seen.extend(
        stalls
            .uncertainty
            .map(|uncertainty| Observation::StallUncertain { uncertainty }),
    );
    let limits = Limits {
        overflow_is_measured: trial.overflow_is_measured,
        ..Limits::for_wake(measured.wake)
    };
    let validity = gates::judge(&seen, &limits);
    let start_ns = measured.load.start_ns;
    let mode = match lab.supports.get(trial.backend.name) {
        Some(SupportRecord::Emulated { by }) => ModeRecord::Emulated { by: by.clone() },
        _ => ModeRecord::Native,
    };
    Ok(Outcome {
        load: measured.load,
        server,
        server_cpu: measured.server_cpu,
        client_cpu: measured.client_cpu,
        stalls_uncertainty: stalls.uncertainty,
        stalls_ns: stalls
            .ns
            .iter()
            .map(|(stop, go)| (stop.saturating_sub(start_ns), go.saturating_sub(start_ns)))
            .collect(),
        facts,
        validity,
        at_s,
        mode,
    })
}

/// What the threads of a trial tell each other.
#[derive(Default)]
struct Signals {
    /// The load begins.
    started: AtomicBool,
    /// The client is done.
    done: AtomicBool,
    /// The load is to end early.
    stop: AtomicBool,
    /// Wakes a client that waits without a time-out.
    closer: OnceLock<UdpCloser>,
    /// It had to be woken: a reply was lost, and it waited for it.
    hung: AtomicBool,
}

/// Waits for the client, hands Ctrl-C on to it, and ends a wait that would be endless.
fn supervise(lab: &Lab<'_>, trial: &Trial<'_>, told: &mpsc::Receiver<()>, signals: &Signals) {
    const LOOK: Duration = Duration::from_millis(100);
    const GRACE: Duration = Duration::from_secs(1);
    let load = match trial.load {
        Load::Closed { duration } => duration,
        Load::Open(schedule) => schedule.duration(),
    };
    let deadline = std::time::Instant::now() + WARM_UP + load + trial.timeout + GRACE;
    while told.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
        let is_over = std::time::Instant::now() > deadline;
        if lab.interrupted() || is_over {
            signals.stop.store(true, Ordering::Release);
        }
        if is_over && let Some(closer) = signals.closer.get() {
            signals.hung.store(true, Ordering::Release);
            closer.close();
        }
    }
}

/// What the client's thread brings back.
struct Measured {
    load: LoadResult,
    wake: Wake,
    contention: Vec<Observation>,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
    facts: BTreeMap<String, String>,
}

#[expect(clippy::too_many_arguments, reason = "the thread's whole context, named")]
fn client(
    lab: &Lab<'_>,
    trial: &Trial<'_>,
    port: ClientPort,
    seat: Seat,
    client_id: u32,
    clock: &MonotonicClock,
    server: &Server,
    signals: &Signals,
) -> anyhow::Result<Measured> {
    let mut facts = host::settle("client", seat);
    let mut end = port.open(lab)?;
    if let Some(closer) = end.closer.take() {
        let _ = signals.closer.set(closer);
    }
    let port = &mut *end.port;
    let caps = port.caps();
    facts.insert("wake".to_owned(), format!("{:?}", caps.wake).to_lowercase());
    let to = Peer(0);

    // The warm-up has an id of its own: replies to it that come late are strangers to the measurement.
    let warm_up = ClosedOptions {
        frame_bytes: trial.frame_bytes,
        duration: WARM_UP,
        timeout: trial.timeout.min(WARM_UP),
        client_id: client_id ^ WARM_UP_ID_BIT,
        ..ClosedOptions::default()
    };
    closed::closed(port, to, clock, &warm_up, &signals.stop).context("warming up")?;

    let own_tid = nix::unistd::gettid().as_raw();
    let (server_before, client_before) = (server.run_time(), host::thread_run_time(own_tid));
    let uring_before = host::io_uring_threads_cpu_time();
    signals.started.store(true, Ordering::Release);
    let load = match trial.load {
        Load::Closed { duration } => {
            let options = ClosedOptions {
                frame_bytes: trial.frame_bytes,
                duration,
                timeout: trial.timeout,
                client_id,
                ..ClosedOptions::default()
            };
            closed::closed(port, to, clock, &options, &signals.stop)
        }
        Load::Open(schedule) => {
            let options = OpenOptions {
                frame_bytes: trial.frame_bytes,
                timeout: trial.timeout,
                client_id,
                ..OpenOptions::default()
            };
            open::open(port, to, clock, schedule, &options, &signals.stop)
        }
    }?;
    let server_used = server
        .run_time()
        .zip(server_before)
        .map(|(after, before)| after.since(before));
    let client_used = host::thread_run_time(own_tid)
        .zip(client_before)
        .map(|(after, before)| after.since(before));
    let client_cpu = Duration::from_nanos(load.cpu_ns) + host::io_uring_threads_cpu_time().saturating_sub(uring_before);

    // Two ends on one CPU wait for each other, which is the measurement; a thread with a CPU to itself waits for nobody.
    let mut contention = Vec::new();
    if signals.hung.load(Ordering::Acquire) {
        contention.push(Observation::Hung {
            sent_count: load.sent_count,
        });
    }
    if trial.cpus == Cpus::Two && lab.place.has_a_cpu_each() {
        for (end, used) in [("client", client_used), ("server", server_used)] {
            if let Some(used) = used {
                contention.push(Observation::Contention {
                    end,
                    waited: used.waited,
                    elapsed: load.elapsed,
                });
            }
        }
    }
    Ok(Measured {
        load,
        wake: caps.wake,
        contention,
        server_cpu: server_used.map(|used| used.on_cpu),
        client_cpu,
        facts,
    })
}

/// Marks the ids of warm-ups.
const WARM_UP_ID_BIT: u32 = 1 << 31;
