//! One round trip taken apart: a client and a server over stamped sockets, the server in a process of its own, which may be an
//! agent's on another machine, and where it can be had an XDP program at each interface; or over AF_XDP rings whose completions
//! are stamped. It gives one row per stage and one for the whole.
//!
//! All stamps are told in CLOCK_MONOTONIC: the programs' and XDP's are of it, the kernel's software stamps are of
//! CLOCK_REALTIME, AF_XDP's of CLOCK_TAI, and converted by whoever reads them. Two ends on one machine have one pair of clocks.
//! Between machines only differences of one machine's stamps are taken, and what is between them is one stage
//! ([`stages::WIRE`]).

mod client;
pub mod driver;
mod end;
mod server;
pub mod stages;

use std::{collections::BTreeMap, thread, time::Duration};

use anyhow::{Context, bail};
use dataplane_ports::stamped::StampedWait;
use dataplane_waist::Wake;
use serde::{Deserialize, Serialize};

pub use self::server::{SUBCOMMAND, StampedConfig, main as serve};
use self::{
    client::{Asked, ClientOptions},
    driver::DriverStamps,
    end::StampedEnd,
    stages::{Clocks, Stages, Stations, TOTAL},
};
use crate::{
    agent::protocol::Start,
    backends::{Room, Wiring},
    experiment::Lab,
    host::{self, RunTime, Seat},
    measure::{
        QUANTILES, Recorder, Watch,
        gates::{self, Limits, Observation},
    },
    place::End,
    record::{Better, Metric, ModeRecord, Row, Validity},
    server::{Role, Server, ServerReport, StampClocks},
    trial::{Cpus, Position},
};

/// What the rows of a breakdown are called: kernel UDP as in `udp-blocking` and `udp-spin`, with stamps.
pub const NAME: &str = "udp-stamped";

/// What the rows over AF_XDP rings are called: AF_XDP as in `af-xdp` and `af-xdp-spin`, with stamps.
pub const NAME_RING: &str = "af-xdp-stamped";

/// The size of request and reply: header, client number, filler, trailer of stamps.
pub const FRAME_BYTES: usize = client::FRAME_BYTES;

/// The axis that the stages are values of.
pub const STAGE: &str = "stage";

/// How an end waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// In recvmsg(2) or ppoll(2), with a time-out that bounds the run.
    Blocking,
    /// Not at all.
    Spinning,
}

impl Wait {
    /// How an end waits that is taken apart as the back end `plain`; `None`: not by such stations.
    pub fn of_plain(plain: &str, stations: Stations) -> Option<Wait> {
        match (plain, stations) {
            ("udp-blocking", Stations::Socket | Stations::SocketAndDriver) | ("af-xdp", Stations::Ring) => {
                Some(Wait::Blocking)
            }
            ("udp-spin", Stations::Socket | Stations::SocketAndDriver) | ("af-xdp-spin", Stations::Ring) => {
                Some(Wait::Spinning)
            }
            _ => None,
        }
    }

    /// The back end without stamps: the other way round.
    fn plain(self, stations: Stations) -> &'static str {
        match (self, stations) {
            (Wait::Blocking, Stations::Ring) => "af-xdp",
            (Wait::Spinning, Stations::Ring) => "af-xdp-spin",
            (Wait::Blocking, _) => "udp-blocking",
            (Wait::Spinning, _) => "udp-spin",
        }
    }
}

impl From<Wait> for StampedWait {
    fn from(wait: Wait) -> StampedWait {
        match wait {
            Wait::Blocking => StampedWait::Blocking(end::WAIT_MAX),
            Wait::Spinning => StampedWait::Spin,
        }
    }
}

/// What is taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Breakdown {
    /// How both ends wait.
    pub wait: Wait,
    /// Which CPUs they get.
    pub cpus: Cpus,
    /// For how long.
    pub duration: Duration,
    /// Tells this client's frames from another's.
    pub client_id: u32,
    /// Who stamps.
    pub stations: Stations,
}

/// How an end is wired; the two know each other's addresses where these are fixed.
fn wiring(lab: &Lab<'_>, end: End) -> Wiring {
    let other = match end {
        End::Client => End::Server,
        End::Server => End::Client,
    };
    Wiring {
        end,
        local: lab.place.endpoint(end),
        remote: lab.place.has_fixed_addresses().then(|| lab.place.endpoint(other)),
        members: Vec::new(),
        over_veth: lab.place.is_veth(),
        frame_bytes_max: FRAME_BYTES,
        // One request is on its way at a time.
        room: Room { frames_count: 64 },
        untimed: false,
        region: None,
    }
}

/// Can both ends be opened with such stations? They are closed again.
///
/// # Errors
/// Why not: no namespaces, no privilege, no XDP in a driver, a kernel before 6.8 for AF_XDP's stamps.
pub fn try_stations(lab: &Lab<'_>, stations: Stations) -> anyhow::Result<()> {
    let driver = driver_of_client(lab, stations)?;
    let wiring = wiring(lab, End::Client);
    let opened = lab
        .place
        .inside(End::Client, || StampedEnd::open(&wiring, Wait::Spinning, stations))?;
    drop(opened?);
    let seat = Seat {
        cpu: None,
        spins: false,
        is_shared: false,
    };
    let server = start_server(lab, stations, Wait::Blocking, seat)?;
    server.finish()?;
    drop(driver);
    Ok(())
}

fn driver_of_client(lab: &Lab<'_>, stations: Stations) -> anyhow::Result<Option<DriverStamps>> {
    match stations {
        Stations::SocketAndDriver => DriverStamps::of_client(lab.place).map(Some),
        Stations::Socket | Stations::Ring => Ok(None),
    }
}

/// The server, in its own namespace, or on the agent's machine, where the agent chooses its seat.
fn start_server(lab: &Lab<'_>, stations: Stations, wait: Wait, seat: Seat) -> anyhow::Result<Server> {
    let wiring = wiring(lab, End::Server);
    let Some(agent) = lab.place.agent() else {
        let config = StampedConfig {
            parent_pid: std::process::id(),
            wiring,
            stations,
            wait,
            seat,
        };
        let server = lab
            .place
            .inside(End::Server, || Server::spawn_as(SUBCOMMAND, &config))?;
        return server.context("starting the stamped server");
    };
    let client = lab.place.endpoint(End::Client);
    let start = Start {
        backend: wait.plain(stations).to_owned(),
        client: client.addr,
        client_mac: client.mac,
        server_port: wiring.local.addr.port(),
        frame_bytes_max: wiring.frame_bytes_max,
        room_frames_count: wiring.room.frames_count,
        role: Role::Echo {
            service_spin: Duration::ZERO,
            times_turns: false,
        },
    };
    Server::start_remote_stamped(agent, start, stations).context("starting the stamped server")
}

/// Measures, and gives a row for each stage and one for the whole, all valid or all INVALID.
///
/// # Errors
/// When an end could not be started or failed.
pub fn measure(lab: &Lab<'_>, breakdown: &Breakdown, position: &Position) -> anyhow::Result<Vec<Row>> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let clocks = match lab.place.agent() {
        None => Clocks::Shared,
        Some(_) => Clocks::Separate,
    };
    let [client_cpu, server_cpu] = breakdown.cpus.of(lab.place.cpus());
    let is_shared = clocks == Clocks::Shared && client_cpu == server_cpu;
    let seat = |cpu| Seat {
        cpu,
        spins: breakdown.wait == Wait::Spinning,
        is_shared,
    };
    // Before the ends: attaching one changes how the interface receives.
    let driver = driver_of_client(lab, breakdown.stations)?;
    let watch = Watch::begin();
    let server = start_server(lab, breakdown.stations, breakdown.wait, seat(server_cpu))?;
    let wiring = Wiring {
        remote: Some(lab.place.server_at(server.addr())?),
        ..wiring(lab, End::Client)
    };
    let options = ClientOptions {
        duration: breakdown.duration,
        client_id: breakdown.client_id,
        stations: breakdown.stations,
        clocks,
    };
    let measured = thread::scope(|scope| {
        let (server, open) = (&server, || {
            StampedEnd::open(&wiring, breakdown.wait, breakdown.stations)
        });
        let asks = scope.spawn(move || ask(lab, &options, &open, seat(client_cpu), server));
        asks.join().unwrap_or_else(|_| bail!("the client's thread panicked"))
    })
    .context("the client of a breakdown")?;
    let mut facts = measured.facts;
    facts.extend(server.facts().clone());
    let report = server.finish()?;
    let server_clocks = report.stamps.context("the stamped server said nothing of its clocks")?;
    drop(driver);

    let asked = measured.asked;
    let clock_error_ns = clocks.error_ns(asked.clock_error_ns, server_clocks.error_ns);
    let mut seen = watch.end();
    seen.extend(observations(&asked, &report, &server_clocks, clock_error_ns));
    if !is_shared {
        for (end, used) in [("client", measured.client_used), ("server", measured.server_used)] {
            seen.extend(used.map(|used| Observation::Contention {
                end,
                waited: used.waited,
                elapsed: asked.elapsed,
            }));
        }
    }
    let wake = match breakdown.wait {
        Wait::Blocking => Wake::Sleeps,
        Wait::Spinning => Wake::Spins,
    };
    facts.insert("wake".to_owned(), format!("{wake:?}").to_lowercase());
    facts.insert("clock_error_ns".to_owned(), clock_error_ns.to_string());
    facts.insert(
        "yardstick".to_owned(),
        match breakdown.stations {
            Stations::Ring => "AF_XDP rings that ask for a stamp of each completion, which cost time themselves",
            _ => "kernel UDP sockets that ask for SO_TIMESTAMPING's stamps, which cost time themselves",
        }
        .to_owned(),
    );
    let frame = RowFrame {
        stations: breakdown.stations,
        position,
        at_s,
        elapsed_s: asked.elapsed.as_secs_f64(),
        facts,
        validity: gates::judge(&seen, &Limits::for_wake(wake)),
    };
    let mut rows = stage_rows(&frame, &asked.stages);
    rows.push(total_row(
        &frame,
        &asked,
        clock_error_ns,
        &measured_cpu(&asked, measured.server_used),
    ));
    Ok(rows)
}

/// What the client's thread brings back.
struct Measured {
    asked: Asked,
    client_used: Option<RunTime>,
    server_used: Option<RunTime>,
    facts: BTreeMap<String, String>,
}

fn ask(
    lab: &Lab<'_>,
    options: &ClientOptions,
    open: &(dyn Fn() -> anyhow::Result<StampedEnd> + Sync),
    seat: Seat,
    server: &Server,
) -> anyhow::Result<Measured> {
    let facts = host::settle("client", seat);
    let end = lab.place.inside(End::Client, open)??;
    let tid = nix::unistd::gettid().as_raw();
    let (mut client_before, mut server_before) = (None, None);
    let asked = client::ask(
        end,
        options,
        &mut || {
            client_before = host::thread_run_time(tid);
            server_before = server.run_time();
        },
        lab.stop,
    )?;
    let since = |after: Option<RunTime>, before: Option<RunTime>| Some(after?.since(before?));
    Ok(Measured {
        asked,
        client_used: since(host::thread_run_time(tid), client_before),
        server_used: since(server.run_time(), server_before),
        facts,
    })
}

/// What the two ends show about themselves.
fn observations(
    asked: &Asked,
    report: &ServerReport,
    server_clocks: &StampClocks,
    clock_error_ns: u64,
) -> Vec<Observation> {
    let stages = &asked.stages;
    let told_count = stages.total().samples_count();
    let mut seen = vec![
        Observation::Samples {
            q: 0.5,
            total_count: stages.total().total_count(),
        },
        Observation::Unstamped {
            unstamped_count: stages.incomplete_count(),
            answered_count: told_count + stages.incomplete_count(),
        },
        Observation::RingOverflow {
            end: "server",
            rx_dropped_count: 0,
            tx_dropped_count: report.tx_dropped_count,
        },
    ];
    if told_count == 0 {
        seen.push(Observation::Silence {
            sent_count: asked.sent_count,
        });
    } else {
        seen.push(Observation::Stages {
            sum_ns: stages.sum_of_means_ns(),
            total_ns: stages.total_mean_ns(),
            clock_error_ns,
            out_of_order_count: stages.out_of_order_count(clock_error_ns),
        });
    }
    // Smaller steps than the machine's own watch complains of move stages, too.
    for wall_step_ns in [asked.clock_step_ns, server_clocks.step_ns].into_iter().flatten() {
        seen.push(Observation::StampClockStep { wall_step_ns });
    }
    seen
}

/// What all rows of a breakdown have in common.
struct RowFrame<'a> {
    stations: Stations,
    position: &'a Position,
    at_s: f64,
    elapsed_s: f64,
    facts: BTreeMap<String, String>,
    validity: Validity,
}

impl RowFrame<'_> {
    fn row(&self, stage: &str, durations: &Recorder, metrics: Vec<(&str, f64, &str)>) -> Row {
        let mut axis = self.position.axis.clone();
        axis.insert(STAGE.to_owned(), stage.to_owned());
        Row {
            experiment: self.position.experiment.to_owned(),
            backend: self.stations.back_end().to_owned(),
            mode: ModeRecord::Native,
            axis,
            round: self.position.round,
            twin: self.position.twin,
            seed: self.position.seed,
            at_s: self.at_s,
            elapsed_s: self.elapsed_s,
            latency: (durations.total_count() > 0).then(|| durations.distribution(&QUANTILES)),
            service: None,
            schedule_lag: None,
            metrics: metrics
                .into_iter()
                .map(|(name, value, unit)| {
                    let metric = Metric {
                        value,
                        unit: unit.to_owned(),
                        better: if unit == "ns" { Better::Lower } else { Better::Neither },
                    };
                    (name.to_owned(), metric)
                })
                .collect(),
            series: Vec::new(),
            facts: self.facts.clone(),
            validity: self.validity.clone(),
        }
    }
}

/// The metric of a stage: its mean.
pub const STAGE_MEAN: &str = "stage_mean";
/// The metric of a stage: its share of the mean round trip, in per cent.
pub const STAGE_SHARE: &str = "stage_share";
/// Sum of the stages' means over the mean round trip; on the row of the whole.
pub const STAGES_SUM: &str = "stages_sum";

fn stage_rows(frame: &RowFrame<'_>, stages: &Stages) -> Vec<Row> {
    let total_ns = stages.total_mean_ns();
    stages
        .stages()
        .map(|(stage, durations)| {
            let mean_ns = durations.histogram().mean();
            let mut row = frame.row(
                stage.name(),
                durations,
                vec![
                    (STAGE_MEAN, mean_ns, "ns"),
                    (STAGE_SHARE, 100.0 * mean_ns / total_ns, "%"),
                ],
            );
            row.facts.insert("clocks".to_owned(), stage.clocks(stages.stations()));
            row
        })
        .collect()
}

/// CPU time per round trip, as far as the kernel says.
fn measured_cpu(asked: &Asked, server_used: Option<RunTime>) -> Vec<(&'static str, f64, &'static str)> {
    let count = asked.sent_count.max(1) as f64;
    let mut metrics = vec![("client_cpu_per_op", asked.used.cpu_ns as f64 / count, "ns")];
    metrics.extend(server_used.map(|used| ("server_cpu_per_op", used.on_cpu.as_nanos() as f64 / count, "ns")));
    metrics
}

fn total_row(
    frame: &RowFrame<'_>,
    asked: &Asked,
    clock_error_ns: u64,
    cpu: &[(&'static str, f64, &'static str)],
) -> Row {
    let stages = &asked.stages;
    let total_ns = stages.total_mean_ns();
    let mut metrics = vec![
        (STAGE_MEAN, total_ns, "ns"),
        (STAGE_SHARE, 100.0, "%"),
        (STAGES_SUM, stages.sum_of_means_ns() / total_ns, "ratio"),
        ("sent", asked.sent_count as f64, "count"),
        ("unstamped", stages.incomplete_count() as f64, "count"),
        (
            "out_of_order",
            stages.out_of_order_count(clock_error_ns) as f64,
            "count",
        ),
    ];
    metrics.extend_from_slice(cpu);
    let mut row = frame.row(TOTAL, stages.total(), metrics);
    row.facts.insert(
        "clocks".to_owned(),
        "CLOCK_MONOTONIC (the program), both ends of it".to_owned(),
    );
    row
}
