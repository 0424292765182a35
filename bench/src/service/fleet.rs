//! Nodes and a client on this machine, for one measurement: started, asked, stopped in their tracks if that is wanted, ended.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::Context;
use dataplane_service::{discipline::Kind, policy::Policy};
use dataplane_waist::{
    MonotonicClock,
    middleware::{FaultOptions, FaultRates, Faults},
};

use super::{
    SUBCOMMAND,
    client::{self, ClientOptions, FRAME_BYTES_MAX, Found},
    plan::{NodePlan, NodesPlan, ServicePlan, WorkerPlan},
    process::NodesReport,
    stalls::{self, Brakes, StopPlan, Stopped},
};
use crate::{
    backends::{BackEnd, Opened, Room, Wiring},
    experiment::Lab,
    host::{self, MachineClock, Scheduler, Seat},
    load::schedule::Schedule,
    measure::{Watch, gates::Observation},
    place::{End, Endpoint},
    server::Server,
};

/// What is measured.
#[derive(Clone, Debug)]
pub struct FleetPlan<'a> {
    /// What moves frames, at both ends.
    pub backend: &'a BackEnd,
    /// How many nodes.
    pub nodes_count: usize,
    /// How many of them share a process, a thread each.
    pub nodes_per_process: usize,
    /// What each is; a node draws from the plan's seed and its number.
    pub node: NodePlan,
    /// How processes are stopped in their tracks, if they are.
    pub stops: Option<StopPlan>,
    /// How many of the client's frames its own port loses, 0 to 1.
    pub loss_ratio: f64,
    /// How the client asks.
    pub client: ClientOptions,
}

/// Of each node, if nothing else is said: so many requests can be served at once before others wait for them.
pub const WORKERS_COUNT: usize = 16;

/// Calls so early in a measurement count for nothing, if nothing else is said.
const WARM_UP: Duration = Duration::from_millis(100);

impl<'a> FleetPlan<'a> {
    /// Nodes at rest, a process each whose workers are timers, and a client of a measurement that has this number, whose calls are
    /// lost after `patience`.
    pub fn new(
        backend: &'a BackEnd,
        nodes_count: usize,
        service: ServicePlan,
        patience: Duration,
        (number, seed): (u32, u64),
    ) -> FleetPlan<'a> {
        FleetPlan {
            backend,
            nodes_count,
            nodes_per_process: 1,
            node: NodePlan {
                workers_count: WORKERS_COUNT,
                workers: WorkerPlan::Timer,
                discipline: Kind::SingleQueue.name().to_owned(),
                quantum: Duration::ZERO,
                service,
                pauses: None,
                file: None,
                seed,
            },
            stops: None,
            loss_ratio: 0.0,
            client: ClientOptions {
                client: number + 1,
                nodes_count,
                patience,
                service: None,
                slow_over: patience,
                warm_up: WARM_UP,
                keeps_outcomes: false,
                seed,
            },
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct FleetFound {
    /// What the client found.
    pub client: Found,
    /// What the nodes counted.
    pub nodes: NodesReport,
    /// CPU time of all nodes' processes meanwhile, where the kernel says.
    pub nodes_cpu: Option<Duration>,
    /// CPU time of the client's thread meanwhile.
    pub client_cpu: Duration,
    /// What was stopped.
    pub stopped: Stopped,
    /// What the machine did meanwhile.
    pub seen: Vec<Observation>,
    /// How the ends ran.
    pub facts: BTreeMap<String, String>,
    /// When it began, seconds since the run's start.
    pub at_s: f64,
}

/// Room for answers that come at once.
const CLIENT_ROOM: Room = Room { frames_count: 8192 };

/// Measures once.
///
/// # Errors
/// An end that cannot be started or that fails; another machine at the other end, where nodes cannot be started yet.
pub fn run(
    lab: &Lab<'_>,
    plan: &FleetPlan<'_>,
    schedule: &Schedule,
    policy: Box<dyn Policy>,
) -> anyhow::Result<FleetFound> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let cpus = lab.place.cpus();
    let (client_cpu, nodes_cpu) = (cpus.first().copied(), cpus.get(1).or(cpus.first()).copied());
    let sleeps = plan.backend.sleeps();
    let nodes_seat = Seat {
        cpu: nodes_cpu,
        spins: !sleeps,
        is_shared: true,
    };
    let locals = endpoints(lab, plan.nodes_count)?;
    // Declared first, so that it goes last, whatever happens: a group can be removed when its process is gone.
    let brakes;
    let mut servers = Vec::new();
    for (index, chunk) in locals.chunks(plan.nodes_per_process.max(1)).enumerate() {
        let nodes = NodesPlan {
            parent_pid: std::process::id(),
            backend: plan.backend.name.to_owned(),
            locals: chunk.to_vec(),
            first_node: (index * plan.nodes_per_process.max(1)) as u32,
            over_veth: lab.place.is_veth(),
            seat: nodes_seat,
            node: plan.node.clone(),
            scheduler: match &plan.stops {
                Some(stops) if stops.means.need_ordinary_nodes() => Scheduler::Ordinary,
                _ => Scheduler::RealTime,
            },
        };
        let server = lab
            .place
            .inside(End::Server, || Server::spawn_as(SUBCOMMAND, &nodes))?
            .with_context(|| format!("starting service nodes over {}", plan.backend.name))?;
        servers.push(server);
    }
    brakes = match &plan.stops {
        Some(stops) => Some(Brakes::new(lab, &stops.means, &servers, nodes_cpu)?),
        None => None,
    };
    let mut facts = servers.first().map(|server| server.facts().clone()).unwrap_or_default();
    let wiring = Wiring {
        end: End::Client,
        local: lab.place.endpoint(End::Client),
        remote: None,
        members: locals,
        over_veth: lab.place.is_veth(),
        frame_bytes_max: FRAME_BYTES_MAX,
        room: CLIENT_ROOM,
        untimed: false,
        region: None,
    };
    let seat = Seat {
        cpu: client_cpu,
        spins: !sleeps,
        is_shared: client_cpu == nodes_cpu,
    };
    let watch = Watch::begin();
    let used_before: Option<Duration> = servers.iter().map(cpu_of).sum();
    let (start_ns, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (asked, stopped) = thread::scope(|scope| {
        let staller = plan.stops.as_ref().zip(brakes.as_ref()).map(|(stops, brakes)| {
            let (servers, start_ns, done) = (&servers, &start_ns, &done);
            scope.spawn(move || stalls::run(servers, brakes, &stops.pattern, start_ns, done))
        });
        let client = scope.spawn(|| -> anyhow::Result<_> {
            let facts = host::settle("client", seat);
            let Opened {
                mut port,
                keeps: _program,
                ..
            } = lab.place.inside(End::Client, || plan.backend.open(&wiring))??;
            if plan.loss_ratio > 0.0 {
                port = Box::new(Faults::new(port, MonotonicClock::new(), losing(plan))?);
            }
            let before_ns = host::thread_cpu_ns();
            let found = client::run(
                &mut *port,
                &MachineClock,
                schedule,
                policy,
                &plan.client,
                lab.stop,
                &mut |at_ns| start_ns.store(at_ns, Ordering::Release),
            );
            Ok((found?, facts, Duration::from_nanos(host::thread_cpu_ns() - before_ns)))
        });
        let asked = client
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the client's thread panicked")));
        done.store(true, Ordering::Release);
        let stopped = staller.map(|staller| staller.join().unwrap_or_default());
        (asked, stopped.unwrap_or_default())
    });
    let (client, client_facts, client_used) =
        asked.with_context(|| format!("the client over {}", plan.backend.name))?;
    facts.extend(client_facts);
    let used_after: Option<Duration> = servers.iter().map(cpu_of).sum();
    let nodes = servers.into_iter().try_fold(NodesReport::default(), |sum, server| {
        anyhow::Ok(sum.and(server.finish_as::<NodesReport>()?))
    })?;
    if let Some(brakes) = brakes {
        brakes.finish(stopped.stalls_count > 0)?;
    }
    Ok(FleetFound {
        client,
        nodes,
        nodes_cpu: used_after
            .zip(used_before)
            .map(|(after, before)| after.saturating_sub(before)),
        client_cpu: client_used,
        stopped,
        seen: watch.end(),
        facts,
        at_s,
    })
}

fn losing(plan: &FleetPlan<'_>) -> FaultOptions {
    FaultOptions {
        seed: plan.client.seed,
        tx: FaultRates {
            loss_ratio: plan.loss_ratio,
            ..FaultRates::default()
        },
        ..FaultOptions::default()
    }
}

fn cpu_of(server: &Server) -> Option<Duration> {
    server.run_time().map(|used| used.on_cpu)
}

/// Where nodes are: in the server's host at one port after the other, or on loopback wherever there are free ones.
fn endpoints(lab: &Lab<'_>, count: usize) -> anyhow::Result<Vec<Endpoint>> {
    let host = lab.place.endpoint(End::Server);
    let ports: Vec<u16> = if lab.place.has_fixed_addresses() {
        (0..count as u16)
            .map(|index| host.addr.port() + 1_000 + index)
            .collect()
    } else {
        // All at once, so that none is given twice.
        let sockets = (0..count).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        let sockets: Vec<UdpSocket> = sockets
            .collect::<Result<_, _>>()
            .context("looking for free ports on 127.0.0.1")?;
        let ports = sockets.iter().map(|socket| Ok(socket.local_addr()?.port()));
        ports
            .collect::<std::io::Result<_>>()
            .context("asking for a socket's port")?
    };
    let at = |port| Endpoint {
        addr: SocketAddr::new(host.addr.ip(), port),
        ..host.clone()
    };
    Ok(ports.into_iter().map(at).collect())
}
