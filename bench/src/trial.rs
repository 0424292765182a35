//! A trial: one server, one client, one load, one row. The request's whole path on the measuring side is here:
//! schedule → client → port … server … port → client → histogram → row.

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
use dataplane_ports::{
    loopback::{self, RingOptions},
    shm::ShmRegion,
    udp::UdpCloser,
};
use dataplane_waist::{Clock, MonotonicClock, Peer, Port, Wake};

use crate::{
    backends::{BackEnd, Kind, Room, Wiring},
    experiment::Lab,
    host::{self, Seat},
    load::{
        LoadResult,
        closed::{self, ClosedOptions},
        open::{self, OpenOptions},
        schedule::Schedule,
    },
    measure::{
        QUANTILES, Recorder, Watch,
        gates::{self, Limits, Observation},
    },
    place::End,
    record::{Better, Distribution, Metric, ModeRecord, Row, SupportRecord, Validity},
    server::{Server, ServerConfig, ServerReport},
};

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
    let ends = Ends::start(lab, trial)?;
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
    let (measured, stalls_ns) = thread::scope(|scope| {
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
        stalls_ns: stalls_ns
            .iter()
            .map(|(stop, go)| (stop.saturating_sub(start_ns), go.saturating_sub(start_ns)))
            .collect(),
        facts,
        validity,
        at_s,
        mode,
    })
}

/// Where a row stands in its experiment.
#[derive(Clone, Debug)]
pub struct Position {
    /// The experiment's id.
    pub experiment: &'static str,
    /// The row's axis values.
    pub axis: BTreeMap<String, String>,
    /// The round.
    pub round: u32,
    /// The second of an A/A pair.
    pub twin: bool,
    /// Decided the schedule.
    pub seed: u64,
}

impl Outcome {
    /// The row of this trial.
    pub fn into_row(self, trial: &Trial<'_>, position: Position) -> Row {
        let load = &self.load;
        let mut metrics = BTreeMap::new();
        let mut put = |name: &str, value: f64, unit: &str, better: Better| {
            metrics.insert(
                name.to_owned(),
                Metric {
                    value,
                    unit: unit.to_owned(),
                    better,
                },
            );
        };
        put("sent", load.sent_count as f64, "count", Better::Neither);
        put("received", load.received_count as f64, "count", Better::Neither);
        put("late", load.late_count as f64, "count", Better::Lower);
        put("duplicates", load.duplicate_count as f64, "count", Better::Lower);
        put("tx_full", load.tx_full_count as f64, "count", Better::Lower);
        put("achieved_rate", load.achieved_rate_per_s, "1/s", Better::Higher);
        put(
            "goodput",
            load.received_count as f64 / load.elapsed.as_secs_f64(),
            "1/s",
            Better::Higher,
        );
        put(
            "server_rx_dropped",
            self.server.rx_dropped_count as f64,
            "count",
            Better::Lower,
        );
        put(
            "voluntary_switches",
            load.voluntary_switches_count as f64,
            "count",
            Better::Neither,
        );
        put(
            "involuntary_switches",
            load.involuntary_switches_count as f64,
            "count",
            Better::Lower,
        );
        if load.received_count > 0 {
            let per_op = |cpu: Duration| cpu.as_nanos() as f64 / load.received_count as f64;
            put("client_cpu_per_op", per_op(self.client_cpu), "ns", Better::Lower);
            if let Some(cpu) = self.server_cpu {
                put("server_cpu_per_op", per_op(cpu), "ns", Better::Lower);
            }
        }
        for (reason, count) in &self.server.rejects {
            put(
                &format!("server_reject_{reason}"),
                *count as f64,
                "count",
                Better::Lower,
            );
        }
        let mut facts = self.facts;
        if let Some(stall) = trial.stall {
            facts.insert(
                "stall".to_owned(),
                format!(
                    "server stopped {} ms of every {} ms",
                    stall.stopped.as_millis(),
                    stall.period.as_millis()
                ),
            );
        }
        if !trial.service_spin.is_zero() {
            facts.insert("service_spin_ns".to_owned(), trial.service_spin.as_nanos().to_string());
        }
        Row {
            experiment: position.experiment.to_owned(),
            backend: trial.backend.name.to_owned(),
            mode: self.mode,
            axis: position.axis,
            round: position.round,
            twin: position.twin,
            seed: position.seed,
            at_s: self.at_s,
            elapsed_s: load.elapsed.as_secs_f64(),
            latency: distribution(&load.latency),
            service: distribution(&load.service),
            schedule_lag: distribution(&load.schedule_lag),
            metrics,
            series: load.series.clone(),
            facts,
            validity: self.validity,
        }
    }
}

/// What a record keeps of a histogram; nothing of one that nothing was recorded in.
fn distribution(recorder: &Recorder) -> Option<Distribution> {
    (recorder.total_count() > 0).then(|| recorder.distribution(&QUANTILES))
}

/// The two ends, wired together.
struct Ends {
    server: Server,
    /// The client's end, where both ends are made together; otherwise it is opened on the client's thread.
    client_port: ClientPort,
    client_seat: Seat,
}

/// What it takes to open the client's end.
struct ToOpen {
    backend: BackEnd,
    wiring: Wiring,
    /// Kept until both ends have opened it.
    region: Option<ShmRegion>,
}

enum ClientPort {
    Made(Box<dyn Port>),
    ToOpen(Box<ToOpen>),
}

impl Ends {
    fn start(lab: &Lab<'_>, trial: &Trial<'_>) -> anyhow::Result<Ends> {
        let (client_cpu, server_cpu) = match (trial.cpus, lab.place.cpus()) {
            (_, []) => (None, None),
            (Cpus::Two, [first, second, ..]) => (Some(*first), Some(*second)),
            (_, [first, ..]) => (Some(*first), Some(*first)),
        };
        let is_shared = client_cpu == server_cpu;
        let client_backend = trial.client_backend.unwrap_or(trial.backend);
        let client_seat = Seat {
            cpu: client_cpu,
            spins: !client_backend.sleeps(),
            is_shared,
        };
        let mut config = ServerConfig {
            parent_pid: std::process::id(),
            backend: trial.backend.name.to_owned(),
            wiring: Wiring {
                end: End::Server,
                local: lab.place.endpoint(End::Server),
                remote: lab.place.has_fixed_addresses().then(|| lab.place.endpoint(End::Client)),
                frame_bytes_max: trial.frame_bytes,
                room: trial.room,
                untimed: true,
                region: None,
            },
            seat: Seat {
                cpu: server_cpu,
                spins: !trial.backend.sleeps(),
                is_shared,
            },
            service_spin: trial.service_spin,
            times_turns: trial.stall.is_some(),
        };
        let ring = RingOptions {
            slots_count: trial.room.frames_count.next_power_of_two(),
            frame_bytes_max: trial.frame_bytes,
            ..RingOptions::default()
        };
        match trial.backend.kind {
            Kind::Loopback => {
                let (client, server) = loopback::pair(&ring);
                let server = Server::start_thread(Box::new(server), &config)?;
                Ok(Ends {
                    server,
                    client_port: ClientPort::Made(Box::new(client)),
                    client_seat,
                })
            }
            _ => {
                let region = match trial.backend.kind {
                    Kind::Shm => Some(ShmRegion::create(&ring).context("making the shared-memory region")?),
                    _ => None,
                };
                config.wiring.region = region.as_ref().map(|region| region.path_for(std::process::id()));
                let server = lab.place.inside(End::Server, || Server::spawn(&config))??;
                let mut remote = config.wiring.local.clone();
                if let Some(addr) = server.addr() {
                    remote.addr = addr;
                }
                let wiring = Wiring {
                    end: End::Client,
                    local: lab.place.endpoint(End::Client),
                    remote: Some(remote),
                    region: config.wiring.region.clone(),
                    // An open loop waits for the next send, too, and needs its time-outs.
                    untimed: matches!(trial.load, Load::Closed { .. }),
                    ..config.wiring
                };
                Ok(Ends {
                    server,
                    client_port: ClientPort::ToOpen(Box::new(ToOpen {
                        backend: *client_backend,
                        wiring,
                        region,
                    })),
                    client_seat,
                })
            }
        }
    }
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
    let (mut port, _region) = match port {
        ClientPort::Made(port) => (port, None),
        ClientPort::ToOpen(to_open) => {
            let ToOpen {
                backend,
                wiring,
                region,
            } = *to_open;
            let opened = lab.place.inside(End::Client, || backend.open(&wiring))??;
            if let Some(closer) = opened.closer.filter(|_| wiring.untimed) {
                let _ = signals.closer.set(closer);
            }
            (opened.port, region)
        }
    };
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
    closed::closed(&mut *port, to, clock, &warm_up, &signals.stop).context("warming up")?;

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
            closed::closed(&mut *port, to, clock, &options, &signals.stop)
        }
        Load::Open(schedule) => {
            let options = OpenOptions {
                frame_bytes: trial.frame_bytes,
                timeout: trial.timeout,
                client_id,
                ..OpenOptions::default()
            };
            open::open(&mut *port, to, clock, schedule, &options, &signals.stop)
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
        contention.push(Observation::Silence {
            sent_count: load.sent_count,
        });
    }
    if trial.cpus == Cpus::Two && lab.place.cpus().len() > 1 {
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

/// Stops the server for the last part of every period, at absolute times, until `done`; says when it really did.
fn stall_again_and_again(server: &Server, stall: Stall, clock: MonotonicClock, signals: &Signals) -> Vec<(u64, u64)> {
    let Signals { started, done, .. } = signals;
    const STEP: Duration = Duration::from_micros(200);
    let _ = nix::sys::prctl::set_timerslack(1);
    while !started.load(Ordering::Acquire) {
        if done.load(Ordering::Acquire) {
            return Vec::new();
        }
        thread::sleep(STEP);
    }
    let start = clock.now();
    let mut stalls = Vec::new();
    let wait_until = |at| {
        while clock.now() < at && !done.load(Ordering::Acquire) {
            thread::sleep(at.saturating_since(clock.now()).min(Duration::from_millis(10)));
        }
        !done.load(Ordering::Acquire)
    };
    for index in 1.. {
        let go = start + stall.period * index;
        let stop = start + (stall.period * index - stall.stopped);
        if !wait_until(stop) || server.pause(true).is_err() {
            break;
        }
        let stopped_ns = clock.now().as_ns();
        let went_on = wait_until(go);
        // Before the call: the server, once let go, may take this thread's CPU until its backlog is served.
        let resumed_ns = clock.now().as_ns();
        let resumed = server.pause(false);
        stalls.push((stopped_ns, resumed_ns));
        if !went_on || resumed.is_err() {
            break;
        }
    }
    stalls
}
