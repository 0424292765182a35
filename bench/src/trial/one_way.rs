//! A one-way trial: a sender that floods, a sink that counts, and the account of every frame between them.
//!
//! ```text
//! sink started → counters read → warm-up → flood (CPU time of the sender) → sink drains and reports → counters read
//! ```
//!
//! The sender keeps its port going until the sink has said that nothing more comes: what waits in a ring still leaves.
//!
//! Where the sink sends every frame back, the way back has an account of its own, in which the ends have changed places:
//! what the sink has reflected was sent, and what the sender's end has taken in was received.

mod replies;

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use dataplane_netns::NapiThreads;
use dataplane_waist::{MonotonicClock, Peer, Port};

use self::replies::Replies;
use super::{
    Cpus,
    ends::{ClientPort, Ends, Wanted},
};
use crate::{
    account::{Account, Between, Counted, Counters, Intake, TxDrop},
    backends::{BackEnd, Kind, Napi, Room},
    experiment::Lab,
    host::{self, RunTime, Seat},
    load::flood::{self, FloodOptions, FloodResult},
    measure::{
        Watch,
        gates::{self, Limits, Observation},
    },
    place::{End, VETH_CAVEAT},
    record::{ModeRecord, SupportRecord, Validity},
    server::Role,
    sink::{Counts, SinkReport, WARM_UP_FRAMES_COUNT},
};

/// What a one-way trial does.
#[derive(Clone, Copy, Debug)]
pub struct OneWay<'a> {
    /// What sends.
    pub sender: &'a BackEnd,
    /// What takes it in.
    pub sink: &'a BackEnd,
    /// Size of a frame: header and payload, without UDP, IP and Ethernet.
    pub frame_bytes: usize,
    /// Frames per second; `None`: as fast as the sender can.
    pub rate_per_s: Option<f64>,
    /// How long it sends.
    pub duration: Duration,
    /// Room for frames that wait for the sink. What does not fit is lost, and counted.
    pub room: Room,
}

/// Everything a one-way trial found.
#[derive(Debug)]
pub struct OneWayOutcome {
    /// What was sent after the warm-up.
    pub flood: FloodResult,
    /// CPU time of the sender meanwhile, its io_uring threads included.
    pub sender_cpu: Duration,
    /// Time in which the sender could have run and was not let.
    pub sender_waited: Duration,
    /// CPU time of the kernel's softirq threads meanwhile, of the sender's whole machine; `None` where they cannot be seen.
    pub softirq_cpu: Option<Duration>,
    /// CPU time of the sink's NAPI threads, from before the warm-up on, where its receive work is in threads that are seen.
    pub napi_cpu: Option<Duration>,
    /// What the sink counted.
    pub sink: SinkReport,
    /// Where every frame went, the warm-up's included.
    pub account: Account,
    /// The way back, where the sink sends frames back.
    pub back: Option<Back>,
    /// How both ends ran.
    pub facts: BTreeMap<String, String>,
    /// May it be judged?
    pub validity: Validity,
    /// When it began, seconds since the run's start.
    pub at_s: f64,
    /// How the numbers came to be.
    pub mode: ModeRecord,
}

/// What became of the frames that a sink sent back.
#[derive(Debug)]
pub struct Back {
    /// What the sender's end counted.
    pub replies: SinkReport,
    /// Where every one of them went.
    pub account: Account,
}

/// How fast the warm-up goes: slowly enough that no ring overflows.
const WARM_UP_RATE_PER_S: f64 = 20_000.0;
/// Time for the sink to take in the warm-up.
const WARM_UP_REST: Duration = Duration::from_millis(2);
/// The longest that a sender may take beyond what it was told.
const GRACE: Duration = Duration::from_secs(5);
/// The longest that it keeps its port going for a sink that drains.
const IDLE_MAX: Duration = Duration::from_secs(8);

/// Runs it once; `stream_id` tells its frames from those of every other trial.
///
/// # Errors
/// When an end could not be started or failed. Loss is not an error: it is measured.
pub fn run(lab: &Lab<'_>, trial: &OneWay<'_>, stream_id: u32) -> anyhow::Result<OneWayOutcome> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let Ends {
        mut server,
        client_port,
        client_seat,
    } = Ends::start(
        lab,
        &Wanted {
            server: trial.sink,
            client: trial.sender,
            cpus: Cpus::Two,
            frame_bytes: trial.frame_bytes,
            room: trial.room,
            role: Role::Sink { stream_id },
            server_untimed: false,
            client_untimed: false,
        },
    )?;
    let napi = NapiCpu::start(lab, trial)?;
    let watch = Watch::begin();
    let stop = AtomicBool::new(false);
    let (tell, told) = mpsc::channel();
    let (let_go, may_go) = mpsc::channel();
    let mut facts = server.facts().clone();
    let (sent, report, napi_cpu) = thread::scope(|scope| {
        let stop = &stop;
        let sender = scope.spawn(move || send(lab, trial, client_port, client_seat, stream_id, stop, &tell, &may_go));
        let given_count = supervise(lab, trial, &told, stop);
        // Before the sink ends: the threads go with its program, and what they have used with them.
        let napi_cpu = napi.and_then(NapiCpu::finish);
        // A sink that is gone says so when it is finished.
        let _ = given_count.map(|given_count| server.expect(given_count));
        let report = server.finish();
        let sink = report.as_ref().ok().and_then(|report| report.sink.as_ref());
        // A sender that is gone says so when it is joined.
        let _ = let_go.send(sink.map_or(0, |sink| sink.received_count));
        let sent = sender
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the sender's thread panicked")));
        (sent, report, napi_cpu)
    });
    let sent = sent.with_context(|| format!("the sender over {}", trial.sender.name))?;
    let report = report.with_context(|| format!("the sink over {}", trial.sink.name))?;
    let sink = report.sink.context("the sink reported as if it were a server")?;
    let (sender_after, sink_after) = read_counters(lab)?;
    let (sender_moved, sink_moved) = (
        sender_after.since(&sent.counters_before.0),
        sink_after.since(&sent.counters_before.1),
    );
    let between = match lab.place.agent() {
        None => Between::Kernel,
        Some(agent) => Between::Machines {
            are_veths: lab.place.is_veth() && agent.record().interface.is_veth(),
        },
    };
    let account = Account::of(&Counted {
        offered_count: sent.offered_count,
        tx_dropped_count: sent.port_dropped_count,
        tx_drop: tx_drop(trial.sender),
        sender: &sender_moved,
        at_sink: &sink_moved,
        between,
        intake: match trial.sink.kind {
            Kind::Loopback | Kind::Shm => Intake::Memory,
            Kind::Packet(_) => Intake::Ring,
            Kind::AfXdp(..) => Intake::Xsk,
            Kind::XdpEcho(..) | Kind::XdpDrop(..) => Intake::Program,
            Kind::Udp(..) | Kind::Uring(..) => Intake::Socket,
        },
        sink: &sink,
    });
    let back = sent.replies.map(|replies| Back {
        account: Account::of(&Counted {
            offered_count: sink.received_count,
            tx_dropped_count: 0,
            tx_drop: TxDrop::Lost,
            sender: &sink_moved,
            at_sink: &sender_moved,
            between,
            intake: replies::intake(trial),
            sink: &replies,
        }),
        replies,
    });

    facts.extend(sent.facts);
    facts.insert("sink_backend".to_owned(), trial.sink.name.to_owned());
    if lab.place.is_veth() && !matches!(trial.sender.kind, Kind::Loopback | Kind::Shm) {
        facts.insert("caveat".to_owned(), VETH_CAVEAT.to_owned());
    }
    let mode = [trial.sink, trial.sender]
        .into_iter()
        .find_map(|backend| match lab.supports.get(backend.name) {
            Some(SupportRecord::Emulated { by }) => Some(ModeRecord::Emulated { by: by.clone() }),
            _ => None,
        })
        .unwrap_or(ModeRecord::Native);
    Ok(OneWayOutcome {
        validity: validity(trial, &sent.flood, watch.end(), &account, back.as_ref()),
        flood: sent.flood,
        sender_cpu: sent.cpu,
        sender_waited: sent.waited,
        softirq_cpu: sent.softirq_cpu,
        napi_cpu,
        sink,
        account,
        back,
        facts,
        at_s,
        mode,
    })
}

/// The threads that do a sink's receive work, and what they had used at first.
struct NapiCpu {
    threads: NapiThreads,
    before: Option<Duration>,
}

impl NapiCpu {
    /// `None` where the work is in softirqs, as is usual.
    fn start(lab: &Lab<'_>, trial: &OneWay<'_>) -> anyhow::Result<Option<NapiCpu>> {
        let [sender_cpu, sink_cpu] = Cpus::Two.of(lab.place.cpus());
        let cpu = match trial.sink.kind {
            Kind::XdpDrop(_, Napi::Thread) => sink_cpu,
            Kind::XdpDrop(_, Napi::ThreadAtSender) => sender_cpu,
            _ => return Ok(None),
        };
        let interface = lab.place.endpoint(End::Server).interface;
        let threads = lab.place.inside(End::Server, || NapiThreads::start(&interface))??;
        for pid in threads.pids() {
            host::pin_other(*pid, cpu);
        }
        let before = host::threads_cpu_time(threads.pids());
        Ok(Some(NapiCpu { threads, before }))
    }

    fn finish(self) -> Option<Duration> {
        let after = host::threads_cpu_time(self.threads.pids())?;
        Some(after.saturating_sub(self.before?))
    }
}

/// What the sender's thread brings back.
struct Sent {
    flood: FloodResult,
    /// The warm-up's included.
    offered_count: u64,
    /// Since the port was opened, to its last look: frames that it could not send.
    port_dropped_count: u64,
    cpu: Duration,
    waited: Duration,
    softirq_cpu: Option<Duration>,
    /// The sender's and the sink's, before the first frame.
    counters_before: (Counters, Counters),
    /// What came back, where the sink sends frames back.
    replies: Option<SinkReport>,
    facts: BTreeMap<String, String>,
}

#[expect(clippy::too_many_arguments, reason = "the thread's whole context, named")]
fn send(
    lab: &Lab<'_>,
    trial: &OneWay<'_>,
    port: ClientPort,
    seat: Seat,
    stream_id: u32,
    stop: &AtomicBool,
    tell: &mpsc::Sender<u64>,
    may_go: &mpsc::Receiver<u64>,
) -> anyhow::Result<Sent> {
    let mut facts = host::settle("sender", seat);
    let mut end = port.open(lab)?;
    let mut replies = Replies::open(lab, trial, stream_id)?;
    let port = &mut *end.port;
    facts.insert("batch_frames_max".to_owned(), port.caps().batch_frames_max.to_string());
    let counters_before = read_counters(lab)?;
    let clock = MonotonicClock::new();
    let to = Peer(0);
    let warm_up = FloodOptions {
        frame_bytes: trial.frame_bytes,
        stream_id,
        seq_first: 0,
        rate_per_s: Some(WARM_UP_RATE_PER_S),
        // Time enough; the number of frames ends it.
        duration: Duration::from_secs(1),
        frames_count_max: WARM_UP_FRAMES_COUNT,
    };
    let warmed = flood::flood(port, to, &clock, &warm_up, counts_of(&mut replies), stop).context("warming up")?;
    thread::sleep(WARM_UP_REST);

    let own_tid = nix::unistd::gettid().as_raw();
    let run_before = host::thread_run_time(own_tid);
    let uring_before = host::io_uring_threads_cpu_time();
    let softirq_before = host::softirq_threads_cpu_time();
    let options = FloodOptions {
        seq_first: WARM_UP_FRAMES_COUNT,
        rate_per_s: trial.rate_per_s,
        duration: trial.duration,
        frames_count_max: u64::MAX,
        ..warm_up
    };
    let flood = flood::flood(port, to, &clock, &options, counts_of(&mut replies), stop)?;
    let softirq_cpu = host::softirq_threads_cpu_time().zip(softirq_before);
    let uring_cpu = host::io_uring_threads_cpu_time().saturating_sub(uring_before);
    let run = host::thread_run_time(own_tid).zip(run_before);
    // A frame that found no room was offered again under the same number, and is no loss.
    let refused_count = warmed.refused_count + flood.refused_count;
    let dropped_count = |port: &dyn Port| port.stats().tx_dropped_count.saturating_sub(refused_count);
    let offered_count = warmed.offered_count + flood.offered_count;
    let gone_count = dropped_count(port) + dropped_by_veth_count(lab, trial, &counters_before.0)?;
    let _ = tell.send(offered_count.saturating_sub(gone_count));

    let idle_since = Instant::now();
    let reflected_count = loop {
        match may_go.try_recv() {
            Ok(reflected_count) => break reflected_count,
            Err(mpsc::TryRecvError::Empty) if idle_since.elapsed() < IDLE_MAX => {
                flood::idle(port, counts_of(&mut replies))?;
            }
            Err(_) => break 0,
        }
    };
    let replies = replies
        .map(|replies| replies.drain(port, reflected_count))
        .transpose()
        .context("taking replies in")?;
    Ok(Sent {
        port_dropped_count: dropped_count(port),
        offered_count,
        cpu: Duration::from_nanos(flood.usage.cpu_ns) + uring_cpu,
        waited: run.map_or(Duration::ZERO, |(after, before): (RunTime, RunTime)| {
            after.since(before).waited
        }),
        softirq_cpu: softirq_cpu.map(|(after, before)| after.saturating_sub(before)),
        counters_before,
        replies,
        facts,
        flood,
    })
}

/// Frames that the sender's veth had no room for and dropped: a sink that waited for them would wait in vain. Elsewhere others
/// may use the interface, and its counter is of their frames too.
fn dropped_by_veth_count(lab: &Lab<'_>, trial: &OneWay<'_>, before: &Counters) -> anyhow::Result<u64> {
    if !lab.place.is_veth() || tx_drop(trial.sender) == TxDrop::Retried {
        return Ok(0);
    }
    let endpoint = lab.place.endpoint(End::Client);
    let now = lab.place.inside(End::Client, || Counters::read(&endpoint.interface))?;
    Ok(now.since(before).get("interface.tx_dropped"))
}

/// What becomes of frames that the interface of a sender over `backend` has no room for.
fn tx_drop(backend: &BackEnd) -> TxDrop {
    match backend.kind {
        Kind::Packet(_) => TxDrop::Retried,
        _ => TxDrop::Lost,
    }
}

/// What counts the replies that come through the sender's port.
fn counts_of(replies: &mut Option<Replies>) -> Option<&mut Counts> {
    replies.as_mut().and_then(Replies::counts)
}

/// Waits for the sender, and hands Ctrl-C on to it; says how many frames may arrive, unless it failed.
fn supervise(lab: &Lab<'_>, trial: &OneWay<'_>, told: &mpsc::Receiver<u64>, stop: &AtomicBool) -> Option<u64> {
    const LOOK: Duration = Duration::from_millis(100);
    let deadline = Instant::now() + trial.duration + GRACE;
    loop {
        match told.recv_timeout(LOOK) {
            Ok(given_count) => return Some(given_count),
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if lab.interrupted() || Instant::now() > deadline {
            stop.store(true, Ordering::Release);
        }
    }
}

/// The sender's and the sink's counters.
fn read_counters(lab: &Lab<'_>) -> anyhow::Result<(Counters, Counters)> {
    let at = |end| {
        let interface = lab.place.endpoint(end).interface;
        lab.place.inside(end, || Counters::read(&interface))
    };
    let of_sink = match lab.place.agent() {
        Some(agent) => agent.counters().context("the sink's counters")?,
        None => at(End::Server)?,
    };
    Ok((at(End::Client)?, of_sink))
}

fn validity(
    trial: &OneWay<'_>,
    flood: &FloodResult,
    mut seen: Vec<Observation>,
    account: &Account,
    back: Option<&Back>,
) -> Validity {
    if back.map_or(account, |back| &back.account).received_count == 0 {
        seen.push(Observation::Silence {
            sent_count: account.sent_count,
        });
    }
    if let Some(offered_rate_per_s) = trial.rate_per_s.filter(|_| !flood.interrupted) {
        seen.push(Observation::Rate {
            sent_rate_per_s: flood.offered_count as f64 / flood.elapsed.as_secs_f64(),
            offered_rate_per_s,
        });
    }
    // Overflow is loss that the account names.
    let limits = Limits {
        overflow_is_measured: true,
        ..Limits::default()
    };
    let mut reasons = match gates::judge(&seen, &limits) {
        Validity::Valid => Vec::new(),
        Validity::Invalid { reasons } => reasons,
    };
    reasons.extend(account.fault());
    reasons.extend(
        back.and_then(|back| back.account.fault())
            .map(|fault| format!("on the way back, {fault}")),
    );
    match reasons.is_empty() {
        true => Validity::Valid,
        false => Validity::Invalid { reasons },
    }
}
