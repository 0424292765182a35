//! `shard-commit`: what a durable commit takes when a machine holds many groups on one ordinary disk.

mod claims;
mod floor;

use std::{
    collections::BTreeMap,
    sync::{Arc, Barrier},
    time::Duration,
};

use anyhow::{Context, bail};
use dataplane_quorum::client::ClientTiming;
use dataplane_waist::{Clock, Wake};
use nix::sys::statfs::{self, TMPFS_MAGIC};

use crate::{
    backends::BackEnd,
    claim::Claim,
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    host::{self, MachineClock},
    measure::{
        QUANTILES, Recorder, Watch,
        gates::{self, Limits, Observation},
    },
    record::{Better, Metric, ModeRecord, QuantileValue, Row, Validity},
    replicas::{self, Arrivals, Manner, OpenClient, OpenOptions, ReplicaReport, ReplicaRole, Shards},
};

use floor::{Disk, SEAT};

/// See the module.
#[derive(Debug)]
pub struct ShardCommit;

const SHARDS: Axis = Axis {
    name: "shards",
    meaning: "how many groups of three replicas; each process holds a replica of every group, with a log of its own",
    full: &["1", "4", "16"],
    tour: &["4"],
    smallest: "1",
    allowed: Allowed::Number(1.0, 64.0),
};

const RATE: Axis = Axis {
    name: "shard_rate_per_s",
    meaning: "writes per second to each shard, by a Poisson schedule",
    full: &["100"],
    tour: &["100"],
    smallest: "100",
    allowed: Allowed::Number(1.0, 10_000.0),
};

/// What a row's times are of. Not asked for: a measurement gives one row of each.
const OF: &str = "of";
const COMMIT: &str = "commit";
const DISK: &str = "disk";
const PING_PONG: &str = "ping-pong";

const REFERENCE: &str = "udp-blocking";
/// The name of the disk's rows: no back end.
const RAW: &str = "o_dsync";
const ENGINE: &str = "dsync";
const NODES_COUNT: usize = 3;
/// Bytes of each value, as in `quorum-ladder`.
const VALUE_BYTES: usize = 36;
/// A hundred thousand small commits go into so much, far more than a measurement makes; and 48 logs are written once within
/// a second or two before they are used.
const SEGMENT_BYTES: u64 = 4 << 20;
/// All shards have a leader within this, or the row is an error.
const ELECTION_MAX: Duration = Duration::from_secs(15);
/// What was written and not answered gets this long at a row's end.
const DRAIN: Duration = Duration::from_millis(500);
const PING_PONG_TIME: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
struct Arm {
    backend: &'static BackEnd,
    shards_count: usize,
    rate_per_s: f64,
}

impl Arm {
    fn period(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate_per_s)
    }
}

impl Experiment for ShardCommit {
    fn id(&self) -> &'static str {
        "shard-commit"
    }

    fn title(&self) -> &'static str {
        "Commits of many shards"
    }

    fn question(&self) -> &'static str {
        "What does a durable commit take when a machine holds many groups, each with a log of its own on one ordinary disk?"
    }

    fn how(&self) -> &'static str {
        "Three processes on this machine, each with a replica of every shard: a thread, a UDP port and a log on disk for each \
         (direct I/O, written and flushed by one system call). A client for each shard writes by a Poisson schedule, and \
         latency counts from the intended send time. Beside it, in the same round: as many writers as there are logs, \
         writing one sector as often with nobody waiting for anybody (the disk's own floor), and a ping-pong over the same \
         sockets."
    }

    fn axes(&self) -> &'static [Axis] {
        &[SHARDS, RATE]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![REFERENCE]
    }

    fn claims(&self) -> &'static [Claim] {
        claims::CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.0
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its replicas are processes of this machine; `dplab serve` runs them on several")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        if let Ok(found) = statfs::statfs(lab.folder.path())
            && found.filesystem_type() == TMPFS_MAGIC
        {
            bail!(
                "{} is in memory (tmpfs): a log there is not durable, and no disk would be measured; choose a folder on a disk \
                 with --out",
                lab.folder.path().display()
            );
        }
        let mut arms = Vec::new();
        for backend in lab.backends(self) {
            for shards in lab.numbers(&SHARDS) {
                for rate_per_s in lab.numbers(&RATE) {
                    arms.push(Arm {
                        backend,
                        shards_count: shards as usize,
                        rate_per_s,
                    });
                }
            }
        }
        // Two measurements an arm; starting the processes and writing the logs once is part of neither.
        let trial_min = match lab.choice.depth {
            Depth::Tour => Duration::from_millis(300),
            Depth::Smallest | Depth::Full => Duration::from_millis(800),
        };
        let plan = lab.plan(3 * arms.len(), trial_min);
        lab.in_rounds(&arms, plan.rounds_count, |lab, turn| {
            let arm = *turn.arm;
            lab.progress.set_message(format!(
                "{} shards, {} writes/s each, round {}",
                arm.shards_count,
                arm.rate_per_s,
                turn.round + 1
            ));
            lab.record_all_until_valid(|lab| measure(lab, &arm, turn.round, plan.trial))
        })
    }
}

/// A folder for the logs of one trial, removed with it.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn measure(lab: &Lab<'_>, arm: &Arm, round: u32, duration: Duration) -> anyhow::Result<Vec<Row>> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let folder = Folder(lab.folder.path().join("logs"));
    let watch = Watch::begin();
    let disk = {
        let disk = Disk::open(&folder.0.join("raw"), arm.shards_count * NODES_COUNT)?;
        let recorder = disk.write(arm.period(), duration, lab.choice.seed ^ u64::from(round), lab.stop)?;
        (recorder, disk.write_bytes)
    };
    let ping_pong = floor::ping_pong(arm.backend, PING_PONG_TIME, lab.stop)?;
    let manner = Manner {
        segment_bytes: Some(SEGMENT_BYTES),
        ..Manner::default()
    };
    let shards = Shards::start(
        arm.backend.name,
        (arm.shards_count, NODES_COUNT),
        SEAT,
        manner,
        |shard, node| {
            let place = folder.0.join(format!("node-{node}")).join(format!("shard-{shard}"));
            ReplicaRole::Durable(place, ENGINE.to_owned())
        },
    )?;
    let seed = lab.choice.seed ^ (u64::from(round) << 32);
    let asked = ask_all(lab, arm, &shards, seed, duration)?;
    let mut seen = watch.end();
    let facts: BTreeMap<String, String> = shards.facts().collect();
    let reports = shards.finish()?;
    let mut commits = Recorder::new();
    for shard in &asked {
        commits.merge(shard);
    }
    if commits.samples_count() == 0 && !lab.interrupted() {
        seen.push(Observation::Silence {
            sent_count: commits.total_count(),
        });
    }
    seen.push(Observation::RingOverflow {
        end: "server",
        rx_dropped_count: reports.iter().flatten().map(|report| report.dropped_count).sum(),
        tx_dropped_count: 0,
    });
    let validity = gates::judge(&seen, &Limits::for_wake(Wake::Sleeps));
    let base = Base {
        lab,
        arm,
        round,
        at_s,
        validity,
    };
    let mut commit = base.row(COMMIT, arm.backend.name, &commits, duration);
    commit.metrics = metrics(&asked, &reports, duration);
    commit.facts = facts;
    commit
        .facts
        .insert("guarantee".to_owned(), replicas::guarantee(true, NODES_COUNT));
    let mut raw = base.row(DISK, RAW, &disk.0, duration);
    raw.facts.insert(
        "yardstick".to_owned(),
        format!(
            "{} writers with a file each, writes of {} bytes with O_DIRECT and O_DSYNC by the same schedule: nobody waits for \
             anybody",
            arm.shards_count * NODES_COUNT,
            disk.1
        ),
    );
    let mut echo = base.row(PING_PONG, arm.backend.name, &ping_pong, PING_PONG_TIME);
    echo.facts
        .insert("yardstick".to_owned(), "one server answers by itself".to_owned());
    Ok(vec![commit, raw, echo])
}

/// The client of each shard, on a thread of its own: what its writes took, from their intended times.
fn ask_all(lab: &Lab<'_>, arm: &Arm, shards: &Shards, seed: u64, duration: Duration) -> anyhow::Result<Vec<Recorder>> {
    let barrier = Arc::new(Barrier::new(arm.shards_count));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..arm.shards_count)
            .map(|shard| {
                let barrier = barrier.clone();
                scope.spawn(move || {
                    let _ = host::settle("client", SEAT);
                    let opened = open(lab, arm, shards, seed, shard);
                    // All begin together, also when one could not find its leader: it says so afterwards.
                    barrier.wait();
                    ask(opened?, lab, duration).with_context(|| format!("the client of shard {shard}"))
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| {
                client
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a client's thread panicked")))
            })
            .collect()
    })
}

/// Opens a session and warms up.
fn open(lab: &Lab<'_>, arm: &Arm, shards: &Shards, seed: u64, shard: usize) -> anyhow::Result<OpenClient> {
    let options = OpenOptions {
        period: arm.period(),
        arrivals: Arrivals::Poisson,
        value_bytes: VALUE_BYTES,
        timing: ClientTiming::LOCAL,
        seed: seed.wrapping_add(shard as u64),
    };
    let mut client = OpenClient::open(arm.backend, &shards.endpoints[shard], options)?;
    client.schedule(true);
    let until_ns = (MachineClock.now() + ELECTION_MAX).as_ns();
    client.run(until_ns, ELECTION_MAX, lab.stop, |client| {
        Ok(client.answers.len() >= WARM_UP_COUNT)
    })?;
    client.schedule(false);
    // What is still under way belongs to the warm-up.
    let drained_ns = (MachineClock.now() + DRAIN).as_ns();
    client.run(drained_ns, DRAIN, lab.stop, |client| Ok(client.under_way_count() == 0))?;
    if client.answers.is_empty() && !lab.interrupted() {
        bail!("shard {shard} acknowledged nothing within {ELECTION_MAX:?}");
    }
    Ok(client)
}

/// Commits before anything is measured.
const WARM_UP_COUNT: usize = 10;

fn ask(mut client: OpenClient, lab: &Lab<'_>, duration: Duration) -> anyhow::Result<Recorder> {
    let warm_count = client.answers.len();
    let unanswered_before = client.unanswered_count + client.under_way_count() as u64;
    client.schedule(true);
    let until_ns = (MachineClock.now() + duration).as_ns();
    client.run(until_ns, duration, lab.stop, |_| Ok(false))?;
    client.schedule(false);
    let drained_ns = (MachineClock.now() + DRAIN).as_ns();
    client.run(drained_ns, DRAIN, lab.stop, |client| Ok(client.under_way_count() == 0))?;
    let mut recorder = Recorder::new();
    for answer in &client.answers[warm_count..] {
        recorder.record(answer.latency_ns());
    }
    let lost_count = client.unanswered_count + client.under_way_count() as u64;
    for _ in unanswered_before..lost_count {
        recorder.record_lost();
    }
    Ok(recorder)
}

/// What all rows of a measurement have in common.
struct Base<'a, 'lab> {
    lab: &'a Lab<'lab>,
    arm: &'a Arm,
    round: u32,
    at_s: f64,
    validity: Validity,
}

impl Base<'_, '_> {
    fn row(&self, of: &str, backend: &str, recorder: &Recorder, duration: Duration) -> Row {
        Row {
            experiment: "shard-commit".to_owned(),
            backend: backend.to_owned(),
            mode: ModeRecord::Native,
            axis: BTreeMap::from([
                (SHARDS.name.to_owned(), self.arm.shards_count.to_string()),
                (RATE.name.to_owned(), self.arm.rate_per_s.to_string()),
                (OF.to_owned(), of.to_owned()),
            ]),
            round: self.round,
            twin: false,
            seed: self.lab.choice.seed,
            at_s: self.at_s,
            elapsed_s: duration.as_secs_f64(),
            latency: (recorder.total_count() > 0).then(|| recorder.distribution(&QUANTILES)),
            service: None,
            schedule_lag: None,
            metrics: BTreeMap::new(),
            series: Vec::new(),
            facts: BTreeMap::new(),
            validity: self.validity.clone(),
        }
    }
}

/// Shard by shard: the best and the worst of them. A quantile of one shard's sample says what its users saw.
fn metrics(asked: &[Recorder], reports: &[Vec<ReplicaReport>], duration: Duration) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    let answered_count: u64 = asked.iter().map(Recorder::samples_count).sum();
    put(
        "goodput",
        answered_count as f64 / duration.as_secs_f64(),
        "1/s",
        Better::Higher,
    );
    for (name, q) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
        let of_shards = asked.iter().map(|shard| match shard.quantile_of_sample(q) {
            QuantileValue::Ns(ns) => Some(ns),
            QuantileValue::Lost | QuantileValue::Unsupported => None,
        });
        // A shard whose quantile is lost has no figure, and is counted below.
        let of_shards: Vec<u64> = of_shards.flatten().collect();
        if let (Some(best), Some(worst)) = (of_shards.iter().min(), of_shards.iter().max()) {
            put(&format!("best_shard_{name}"), *best as f64, "ns", Better::Lower);
            put(&format!("worst_shard_{name}"), *worst as f64, "ns", Better::Lower);
        }
    }
    let silent_count = asked.iter().filter(|shard| shard.samples_count() == 0).count();
    put("silent_shards", silent_count as f64, "count", Better::Lower);
    let elections: u64 = reports.iter().flatten().map(|report| report.elections_count).sum();
    put("elections", elections as f64, "count", Better::Neither);
    metrics
}
