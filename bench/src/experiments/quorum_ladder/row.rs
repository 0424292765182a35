//! One row of the ladder: starts the processes, lets the client ask, and puts together what was measured.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Context;
use dataplane_waist::{MonotonicClock, Wake};
use dataplane_wire::quorum::request::{Command, Request};

use super::{
    disk,
    rungs::{BRIDGE, CPUS, DISK, IN_FLIGHT, LOG, LOSS, MEMORY, PLACE, REPLICAS, Rung, SEALED},
};
use crate::{
    experiment::Lab,
    host::{self, RunTime, Seat},
    measure::{
        QUANTILES, Recorder, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, Row, SupportRecord, Validity},
    replicas::{self, Asked, Client, ClientOptions, Ground, INLINE, Network, ReplicaReport, ReplicaRole, Replicas},
};

/// Bytes of each value. With a key of three bytes, a request is 103 bytes long.
const VALUE_BYTES: usize = 36;
const WARM_UP: Duration = Duration::from_millis(30);

/// The places that the rungs need, made once.
pub(super) struct Grounds {
    loopback: Ground,
    bridge: Option<Ground>,
}

impl Grounds {
    /// # Errors
    /// Namespaces are allowed and yet could not be made.
    pub(super) fn of(rungs: &[Rung]) -> anyhow::Result<Grounds> {
        let on_bridge = rungs.iter().filter(|rung| rung.place == BRIDGE);
        let hosts = on_bridge.map(Rung::replicas_count).max();
        Ok(Grounds {
            loopback: Ground::Loopback,
            bridge: hosts.map(Ground::bridge).transpose()?,
        })
    }

    fn of_rung(&self, rung: &Rung) -> &Ground {
        match &self.bridge {
            Some(bridge) if rung.place == BRIDGE => bridge,
            _ => &self.loopback,
        }
    }
}

/// A folder for the logs of one trial, removed with it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What of a row is known before it is measured.
struct Begun {
    round: u32,
    at_s: f64,
    facts: BTreeMap<String, String>,
}

/// Measures one rung.
pub(super) fn measure(
    lab: &Lab<'_>,
    (grounds, rung): (&Grounds, &Rung),
    round: u32,
    duration: Duration,
) -> anyhow::Result<Row> {
    let ground = grounds.of_rung(rung);
    let begun = Begun {
        round,
        at_s: lab.run_started.elapsed().as_secs_f64(),
        facts: BTreeMap::from([
            ("place".to_owned(), ground.describe()),
            ("guarantee".to_owned(), guarantee(rung)),
        ]),
    };
    let folder = Folder(lab.folder.path().join("logs"));
    if rung.replicas == DISK {
        return measure_disk(lab, (rung, &folder), begun, duration);
    }
    let count = rung.replicas_count();
    let usable = lab.place.cpus();
    let cpu_of = |index: usize| match (rung.cpus.as_str(), usable.len()) {
        (_, 0) => None,
        ("one", _) => Some(usable[0]),
        (_, cpus_count) => Some(usable[index % cpus_count]),
    };
    let seat = |index: usize| Seat {
        cpu: cpu_of(index),
        spins: !rung.backend.sleeps(),
        is_shared: rung.cpus == "one" || count + 1 > usable.len(),
    };
    let network = Network {
        is_sealed: rung.sealed == "yes",
        loss_ratio: rung.loss_ratio(),
        // Each round loses other frames.
        seed: lab.choice.seed.wrapping_add(u64::from(round) << 32),
        over_veth: ground.is_veth(),
        ..Network::default()
    };
    let seats: Vec<Seat> = (1..=count).map(seat).collect();
    let role = |node: usize| match (rung.is_echo(), rung.log.as_str()) {
        (true, _) => ReplicaRole::Echo,
        (false, MEMORY) => ReplicaRole::Memory,
        (false, engine) => ReplicaRole::Durable(folder.0.join(format!("node-{node}")), engine.to_owned()),
    };
    let replicas = Replicas::start(rung.backend.name, (ground, network), &seats, role)?;

    let watch = Watch::begin();
    let client = std::thread::scope(|scope| {
        let client = scope.spawn(|| client(lab, rung, (ground, &network), &replicas, (seat(0), duration)));
        client
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the client's thread panicked")))
    });
    let mut seen = watch.end();
    let mut measured = client.with_context(|| format!("the client over {}", rung.backend.name))?;
    measured.facts.extend(replicas.facts());
    measured.facts.extend(begun.facts);
    let reports = replicas.finish()?;
    if measured.asked.answered_count == 0 {
        seen.push(Observation::Silence { sent_count: 1 });
    }
    seen.push(Observation::RingOverflow {
        end: "server",
        rx_dropped_count: reports.iter().map(|report| report.dropped_count).sum(),
        tx_dropped_count: 0,
    });
    let wake = match rung.backend.sleeps() {
        true => Wake::Sleeps,
        false => Wake::Spins,
    };
    let mut row = empty(lab, rung, (begun.round, begun.at_s));
    row.validity = gates::judge(&seen, &Limits::for_wake(wake));
    row.elapsed_s = measured.asked.elapsed.as_secs_f64();
    row.latency = distribution(&measured.asked.latency);
    row.metrics = metrics(&measured, &reports);
    row.facts = measured.facts;
    Ok(row)
}

fn distribution(latency: &Recorder) -> Option<crate::record::Distribution> {
    (latency.total_count() > 0).then(|| latency.distribution(&QUANTILES))
}

/// What an answer means, in a line beside its latency.
fn guarantee(rung: &Rung) -> String {
    let count = rung.replicas_count();
    if rung.is_echo() {
        return "none: one server answers by itself".to_owned();
    }
    if count == 0 {
        return "one copy on disk; it survives the end of the process".to_owned();
    }
    replicas::guarantee(rung.log != MEMORY, count)
}

/// The device's own floor: in a thread on the client's CPU.
fn measure_disk(
    lab: &Lab<'_>,
    (rung, folder): (&Rung, &Folder),
    begun: Begun,
    duration: Duration,
) -> anyhow::Result<Row> {
    let seat = Seat {
        cpu: lab.place.cpus().first().copied(),
        spins: false,
        is_shared: false,
    };
    let engine = replicas::engine(&rung.log).with_context(|| format!("no way to disk {:?}", rung.log))?;
    let key_and_value = Request {
        client: 0,
        sequence: 0,
        command: Command::Put {
            key: b"key",
            value: &[0x61; VALUE_BYTES],
        },
    };
    let entry_bytes = key_and_value.len_bytes();
    let watch = Watch::begin();
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let facts = host::settle("client", seat);
            let clock = MonotonicClock::new();
            let written = disk::write((&folder.0, engine), entry_bytes, &clock, (duration, lab.stop));
            (facts, written)
        });
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer's thread panicked"))
    });
    let seen = watch.end();
    let (facts, written) = written?;
    let written = written.context("measuring the disk")?;
    let mut row = empty(lab, rung, (begun.round, begun.at_s));
    row.validity = gates::judge(&seen, &Limits::for_wake(Wake::Sleeps));
    row.elapsed_s = written.elapsed.as_secs_f64();
    row.latency = distribution(&written.latency);
    row.facts = begun.facts;
    row.facts.extend(facts);
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        row.metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put("write", written.write_bytes as f64, "bytes", Better::Neither);
    let answered_count = written.latency.total_count() as f64;
    put("answered", answered_count, "count", Better::Neither);
    put(
        "goodput",
        answered_count / written.elapsed.as_secs_f64(),
        "1/s",
        Better::Higher,
    );
    Ok(row)
}

/// What the client's thread brings back.
struct Measured {
    asked: Asked,
    leader: usize,
    client_cpu: Option<RunTime>,
    replicas_cpu: Vec<Option<RunTime>>,
    facts: BTreeMap<String, String>,
}

fn client(
    lab: &Lab<'_>,
    rung: &Rung,
    way: (&Ground, &Network),
    replicas: &Replicas,
    (seat, duration): (Seat, Duration),
) -> anyhow::Result<Measured> {
    let mut facts = host::settle("client", seat);
    if rung.log != MEMORY {
        let engine = replicas::engine(rung.log.trim_end_matches(INLINE));
        let is_threaded = engine.is_some_and(dataplane_wal::Engine::blocks) && !rung.log.ends_with(INLINE);
        let writer = match is_threaded {
            true => "a thread of its own in each replica: a flush takes all that waits",
            false => "each replica's own turn",
        };
        facts.insert("log_writer".to_owned(), writer.to_owned());
    }
    let clock = MonotonicClock::new();
    let options = ClientOptions {
        in_flight: rung.in_flight,
        value_bytes: VALUE_BYTES,
    };
    let mut client = Client::open(rung.backend, way, replicas, rung.is_echo(), options)?;
    let leader = client.find_leader(&clock, lab.stop)? as usize;
    client.ask(&clock, WARM_UP, lab.stop).context("warming up")?;
    let own_tid = nix::unistd::gettid().as_raw();
    let (before, own_before) = (replicas.run_times(), host::thread_run_time(own_tid));
    let asked = client.ask(&clock, duration, lab.stop)?;
    let used = |after: Option<RunTime>, before: Option<RunTime>| Some(after?.since(before?));
    let after = replicas.run_times();
    Ok(Measured {
        asked,
        leader,
        client_cpu: used(host::thread_run_time(own_tid), own_before),
        replicas_cpu: after
            .into_iter()
            .zip(before)
            .map(|(after, before)| used(after, before))
            .collect(),
        facts,
    })
}

fn metrics(measured: &Measured, reports: &[ReplicaReport]) -> BTreeMap<String, Metric> {
    let asked = &measured.asked;
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put("answered", asked.answered_count as f64, "count", Better::Neither);
    put("retries", asked.retries_count as f64, "count", Better::Lower);
    put("redirects", asked.redirects_count as f64, "count", Better::Lower);
    put("stall_max", asked.stall_max.as_nanos() as f64, "ns", Better::Lower);
    put(
        "goodput",
        asked.answered_count as f64 / asked.elapsed.as_secs_f64(),
        "1/s",
        Better::Higher,
    );
    if asked.answered_count > 0 {
        let per_op = |used: RunTime| used.on_cpu.as_nanos() as f64 / asked.answered_count as f64;
        if let Some(used) = measured.client_cpu {
            put("client_cpu_per_op", per_op(used), "ns", Better::Lower);
        }
        if let Some(used) = measured.replicas_cpu[measured.leader] {
            put("leader_cpu_per_op", per_op(used), "ns", Better::Lower);
        }
        let followers = measured
            .replicas_cpu
            .iter()
            .enumerate()
            .filter(|(node, _)| *node != measured.leader);
        let followers: Option<Vec<RunTime>> = followers.map(|(_, used)| *used).collect();
        if let Some(followers) = followers.filter(|followers| !followers.is_empty()) {
            let sum: f64 = followers.iter().map(|used| per_op(*used)).sum();
            put("follower_cpu_per_op", sum / followers.len() as f64, "ns", Better::Lower);
        }
    }
    let sum = |of: fn(&ReplicaReport) -> u64| reports.iter().map(of).sum::<u64>() as f64;
    let commits = reports[measured.leader].applied_count;
    if commits > 0 {
        let frames = sum(|report| report.tx_frames_count) + commits as f64;
        put("frames_per_commit", frames / commits as f64, "count", Better::Lower);
    }
    let flushes_count = reports[measured.leader].flushes_count;
    if flushes_count > 0 {
        put(
            "entries_per_flush",
            commits as f64 / flushes_count as f64,
            "count",
            Better::Neither,
        );
        put(
            "log_stalls",
            sum(|report| report.log_stalls_count),
            "count",
            Better::Lower,
        );
    }
    for (name, count, better) in replicas::troubles(reports) {
        put(name, count, "count", better);
    }
    metrics
}

/// A row of which only the rung is known.
fn empty(lab: &Lab<'_>, rung: &Rung, (round, at_s): (u32, f64)) -> Row {
    let mode = match lab.supports.get(rung.backend.name) {
        Some(SupportRecord::Emulated { by }) => ModeRecord::Emulated { by: by.clone() },
        _ => ModeRecord::Native,
    };
    let axis = [
        (REPLICAS.name, rung.replicas.clone()),
        (IN_FLIGHT.name, rung.in_flight.to_string()),
        (LOG.name, rung.log.clone()),
        (CPUS.name, rung.cpus.clone()),
        (PLACE.name, rung.place.clone()),
        (SEALED.name, rung.sealed.clone()),
        (LOSS.name, rung.loss.clone()),
    ];
    Row {
        experiment: "quorum-ladder".to_owned(),
        backend: rung.backend.name.to_owned(),
        mode,
        axis: axis.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        round,
        twin: rung.twin,
        seed: lab.choice.seed,
        at_s,
        elapsed_s: 0.0,
        latency: None,
        service: None,
        schedule_lag: None,
        metrics: BTreeMap::new(),
        series: Vec::new(),
        facts: BTreeMap::new(),
        validity: Validity::Valid,
    }
}
