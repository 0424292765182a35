//! One row: starts the processes, lets the client ask, and puts together what was measured.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Context;
use dataplane_waist::{MonotonicClock, Wake};
use ebpf_host::Mode;
use nix::sys::resource::{UsageWho, getrusage};

use super::{
    CAVEAT, CLIENT, CPUS, Cell, FABRIC, IN_FLIGHT, LOSS, REPLICAS, SOCKET, TRAIN, VALUE_BYTES, WAY, placement, ways,
};
use crate::{
    backends,
    experiment::Lab,
    host::{self, RunTime, Seat},
    measure::{
        QUANTILES, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Row},
    replicas::{
        self, Asked, Client, ClientOptions, Ground, Manner, Network, ReceiveCpu, ReceiveThreads, ReplicaReport,
        Replicas,
    },
};

const WARM_UP: Duration = Duration::from_millis(30);

/// A folder for the logs of one trial, removed with it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Measures one cell, for the experiment of that id.
pub(super) fn measure(
    lab: &Lab<'_>,
    experiment: &str,
    (ground, cell): (&Ground, &Cell),
    round: u32,
    duration: Duration,
) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let count = cell.replicas_count;
    let usable = lab.place.cpus();
    let is_one = cell.cpus == "one";
    let cpus_of = |node: usize| cell.placement.cpus(usable, is_one, node);
    let seat = |cpu: Option<usize>| Seat {
        cpu,
        spins: false,
        is_shared: is_one || count + 1 > usable.len(),
    };
    let network = Network {
        // Each round's client and elections draw other numbers.
        seed: lab.choice.seed.wrapping_add(u64::from(round) << 32),
        loss_ratio: cell.loss_ratio(),
        loses_at_switch: true,
        over_veth: true,
        ..Network::default()
    };
    let manner = Manner {
        scheduler: ways::scheduler(&cell.way),
        fan_out: cell.placement.fan_out,
        ..Manner::default()
    };
    let folder = Folder(lab.folder.path().join("logs"));
    let role = |node| ways::role(&cell.way, cell.mode(), node, &folder.0);
    // Held to the end.
    let _let_in = match cell.has_programs() {
        true => Vec::new(),
        false => ground.let_in(count)?,
    };
    let threads = cell.placement.start(ground, count, cpus_of)?;
    let seats: Vec<Seat> = (0..count).map(|node| seat(cpus_of(node).0)).collect();
    let losing = match network.loss_ratio > 0.0 {
        true => Some(ground.lose(network.loss_ratio, network.seed)?),
        false => None,
    };
    let replicas = Replicas::start_as(SOCKET, (ground, network), &seats, manner, role)?;

    let watch = Watch::begin();
    let client = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            client(
                lab,
                cell,
                (ground, &network),
                (&replicas, threads.as_ref()),
                (seat(usable.first().copied()), duration),
            )
        });
        client
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the client's thread panicked")))
    });
    let mut seen = watch.end();
    let mut measured = client.context("the client")?;
    measured.lost_at_switch = losing.map(|losing| losing.lost_count()).transpose()?;
    measured.facts.extend(replicas.facts());
    measured.facts.extend(facts(ground, cell));
    let reports = replicas.finish()?;
    if measured.asked.answered_count == 0 {
        seen.push(Observation::Silence { sent_count: 1 });
    }
    seen.push(Observation::RingOverflow {
        end: "server",
        rx_dropped_count: reports.iter().map(|report| report.dropped_count).sum(),
        tx_dropped_count: 0,
    });
    let axis = [
        (WAY.name, cell.way.clone()),
        (REPLICAS.name, count.to_string()),
        (FABRIC.name, cell.fabric.clone()),
        (IN_FLIGHT.name, cell.in_flight.to_string()),
        (CLIENT.name, cell.client.clone()),
        (VALUE_BYTES.name, cell.value_bytes.to_string()),
        (LOSS.name, cell.loss.clone()),
        (CPUS.name, cell.cpus.clone()),
    ]
    .into_iter()
    .chain(cell.placement.axis());
    let latency = &measured.asked.latency;
    Ok(Row {
        experiment: experiment.to_owned(),
        backend: SOCKET.to_owned(),
        mode: ModeRecord::Native,
        axis: axis.map(|(name, value)| (name.to_owned(), value)).collect(),
        round,
        twin: cell.twin,
        seed: lab.choice.seed,
        at_s,
        elapsed_s: measured.asked.elapsed.as_secs_f64(),
        latency: (latency.total_count() > 0).then(|| latency.distribution(&QUANTILES)),
        service: None,
        schedule_lag: None,
        metrics: metrics(&measured, &reports, cell),
        series: Vec::new(),
        facts: measured.facts,
        validity: gates::judge(&seen, &Limits::for_wake(Wake::Sleeps)),
    })
}

fn facts(ground: &Ground, cell: &Cell) -> BTreeMap<String, String> {
    let guarantee = ways::guarantee(&cell.way, cell.replicas_count, cell.placement.on_card);
    let mut facts = BTreeMap::from([
        ("place".to_owned(), ground.describe()),
        ("bridge_netfilter".to_owned(), "off, for all ways alike".to_owned()),
        ("guarantee".to_owned(), guarantee),
    ]);
    if cell.loss_ratio() > 0.0 {
        facts.insert(
            "loss_by".to_owned(),
            "a program on each port of the switch (generic XDP), which drops by seed what comes in".to_owned(),
        );
    }
    if cell.has_programs() {
        let mode = match cell.mode() {
            Mode::Native => "native (XDP in the driver)",
            Mode::Generic => "generic (XDP on socket buffers)",
            Mode::Offload => "offload (XDP on the network card)",
        };
        facts.insert("caveat".to_owned(), CAVEAT.to_owned());
        facts.insert("program_mode".to_owned(), mode.to_owned());
    }
    facts.extend(cell.placement.facts());
    facts
}

/// What the client's thread brings back.
struct Measured {
    asked: Asked,
    leader: usize,
    sleeps_count: i64,
    client_cpu: Option<RunTime>,
    replicas_cpu: Vec<Option<RunTime>>,
    replicas_sleeps: Vec<Option<u64>>,
    lost_at_switch: Option<u64>,
    received: Option<ReceiveCpu>,
    facts: BTreeMap<String, String>,
}

fn client(
    lab: &Lab<'_>,
    cell: &Cell,
    way: (&Ground, &Network),
    (replicas, threads): (&Replicas, Option<&ReceiveThreads>),
    (seat, duration): (Seat, Duration),
) -> anyhow::Result<Measured> {
    let facts = host::settle("client", seat);
    let clock = MonotonicClock::new();
    let options = ClientOptions {
        in_flight: cell.in_flight,
        value_bytes: cell.value_bytes,
    };
    let backend = match cell.client.as_str() {
        TRAIN => &backends::TRAINS,
        _ => backends::by_name(SOCKET).context("it is always there")?,
    };
    let mut client = Client::open(backend, way, replicas, cell.is_alone(), options)?;
    let leader = client.find_leader(&clock, lab.stop)? as usize;
    client.ask(&clock, WARM_UP, lab.stop).context("warming up")?;
    let own_tid = nix::unistd::gettid().as_raw();
    let (before, own_before) = (replicas.run_times(), host::thread_run_time(own_tid));
    let replicas_sleeps_before = replicas.sleeps_counts();
    let received = || threads.map(ReceiveThreads::cpu).transpose();
    let received_before = received()?;
    let sleeps_before = sleeps_count();
    let asked = client.ask(&clock, duration, lab.stop)?;
    let sleeps_count = sleeps_count() - sleeps_before;
    let used = |after: Option<RunTime>, before: Option<RunTime>| Some(after?.since(before?));
    let after = replicas.run_times();
    let received = received()?
        .zip(received_before)
        .map(|(after, before)| after.since(before));
    Ok(Measured {
        asked,
        leader,
        sleeps_count,
        client_cpu: used(host::thread_run_time(own_tid), own_before),
        replicas_cpu: after
            .into_iter()
            .zip(before)
            .map(|(after, before)| used(after, before))
            .collect(),
        replicas_sleeps: replicas
            .sleeps_counts()
            .into_iter()
            .zip(replicas_sleeps_before)
            .map(|(after, before)| Some(after?.saturating_sub(before?)))
            .collect(),
        lost_at_switch: None,
        received,
        facts,
    })
}

/// How often the calling thread has gone to sleep (getrusage(2), ru_nvcsw).
fn sleeps_count() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.voluntary_context_switches())
}

/// Of the leader, and of a follower on average.
fn by_role(all: &[f64], leader: usize) -> (f64, Option<f64>) {
    let followers_count = all.len() - 1;
    let followers = all.iter().sum::<f64>() - all[leader];
    (
        all[leader],
        (followers_count > 0).then(|| followers / followers_count as f64),
    )
}

fn metrics(measured: &Measured, reports: &[ReplicaReport], cell: &Cell) -> BTreeMap<String, Metric> {
    let asked = &measured.asked;
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put("answered", asked.answered_count as f64, "count", Better::Neither);
    put("retries", asked.retries_count as f64, "count", Better::Lower);
    put("stall_max", asked.stall_max.as_nanos() as f64, "ns", Better::Lower);
    let goodput = asked.answered_count as f64 / asked.elapsed.as_secs_f64();
    put("goodput", goodput, "1/s", Better::Higher);
    if asked.answered_count > 0 {
        let per_op = |value: f64| value / asked.answered_count as f64;
        let cpu_ns = |used: &RunTime| used.on_cpu.as_nanos() as f64;
        put(
            "client_sleeps_per_op",
            per_op(measured.sleeps_count as f64),
            "count",
            Better::Neither,
        );
        if let Some(used) = &measured.client_cpu {
            put("client_cpu_per_op", per_op(cpu_ns(used)), "ns", Better::Lower);
        }
        let all: Option<Vec<f64>> = measured
            .replicas_cpu
            .iter()
            .map(|used| used.as_ref().map(cpu_ns))
            .collect();
        if let Some(all) = all {
            put("replicas_cpu_per_op", per_op(all.iter().sum()), "ns", Better::Lower);
            let (leader, follower) = by_role(&all, measured.leader);
            put("leader_cpu_per_op", per_op(leader), "ns", Better::Lower);
            if let Some(follower) = follower {
                put("follower_cpu_per_op", per_op(follower), "ns", Better::Lower);
            }
        }
        let sleeps = measured
            .replicas_sleeps
            .iter()
            .map(|count| count.map(|count| count as f64));
        if let Some(sleeps) = sleeps.collect::<Option<Vec<f64>>>() {
            let (leader, follower) = by_role(&sleeps, measured.leader);
            put("leader_wakeups_per_op", per_op(leader), "count", Better::Lower);
            if let Some(follower) = follower {
                put("follower_wakeups_per_op", per_op(follower), "count", Better::Lower);
            }
        }
    }
    if let Some(lost) = measured.lost_at_switch {
        put("frames_lost_at_switch", lost as f64, "count", Better::Neither);
    }
    let leader = &reports[measured.leader];
    if let Some(answered) = leader.programs.get("answered_by_program")
        && leader.applied_count > 0
    {
        put(
            "answered_in_driver",
            *answered as f64 / leader.applied_count as f64,
            "ratio",
            Better::Higher,
        );
        for (name, count) in &leader.programs {
            put(
                &format!("leader_replica_{name}"),
                *count as f64,
                "count",
                Better::Neither,
            );
        }
        // A fabric that forgets a follower looks splendid: the majority answers without it.
        let kept = |report: &ReplicaReport| report.programs.get("follower_appended").copied().unwrap_or(0);
        put(
            "followers_kept_in_driver",
            reports.iter().map(kept).sum::<u64>() as f64,
            "count",
            Better::Neither,
        );
        let followers = (0..).zip(reports).filter(|&(node, _)| node != measured.leader);
        let least_kept = followers.map(|(_, report)| kept(report)).min().unwrap_or(0);
        let appended = leader.programs.get("leader_appended").copied().unwrap_or(0);
        if appended > 0 {
            put(
                "least_kept_by_a_follower",
                least_kept as f64 / appended as f64,
                "ratio",
                Better::Higher,
            );
        }
    }
    for (name, count, better) in replicas::troubles(reports) {
        put(name, count, "count", better);
    }
    if let (Some(received), 1..) = (measured.received, asked.answered_count) {
        let used = placement::metrics(received, &measured.replicas_cpu, cell.placement.on_card);
        placement::put(&mut metrics, used, asked.answered_count);
    }
    metrics
}
