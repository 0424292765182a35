//! `failover`: how soon a cluster has a leader again, and what it takes not to elect one for nothing.

mod claims;
mod trial;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use dataplane_waist::Wake;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use crate::{
    backends::BackEnd,
    claim::Claim,
    experiment::{Allowed, Axis, Depth, Experiment, Lab},
    hogs::Hogs,
    host::{self, Scheduler},
    measure::{
        QUANTILES, Recorder, Watch,
        gates::{self, Limits},
        rounds,
    },
    record::{Better, Metric, ModeRecord, Row, Validity},
    replicas::{self, MISSES_MAX, MISSES_MIN, timing_of},
};

use trial::Tally;

/// See the module.
#[derive(Debug)]
pub struct Failover;

const HEARTBEAT: Axis = Axis {
    name: "heartbeat_us",
    meaning: "how often the leader lets everybody hear from it; a follower stands for election after 3 to 6 of them",
    full: &["100", "1000", "10000", "100000"],
    tour: &["100"],
    smallest: "10000",
    allowed: Allowed::Number(100.0, 100_000.0),
};

const SCHEDULER: Axis = Axis {
    name: "scheduler",
    meaning: "how replicas get their CPU: fifo (real time, SCHED_FIFO) or other (as any program)",
    full: &[FIFO, OTHER],
    tour: &[FIFO, OTHER],
    smallest: OTHER,
    allowed: Allowed::Words,
};

const BESIDE: Axis = Axis {
    name: "beside",
    meaning: "what else the machine does: idle, or hogs (a process for each CPU that never sleeps)",
    full: &[IDLE, HOGS],
    tour: &[IDLE],
    smallest: IDLE,
    allowed: Allowed::Words,
};

const LOG: Axis = Axis {
    name: "log",
    meaning: "where a replica keeps its log: memory, or on disk by this way",
    full: &[MEMORY, "dsync"],
    tour: &[MEMORY],
    smallest: MEMORY,
    allowed: Allowed::Words,
};

const HOW: Axis = Axis {
    name: "how",
    meaning: "what befalls the leader: stop (SIGSTOP; it comes back after the fail-over) or kill (SIGKILL)",
    full: &[STOP, KILL],
    tour: &[STOP],
    smallest: KILL,
    allowed: Allowed::Words,
};

/// What a row's times are of. Not asked for: a measurement gives one row of each.
const OF: &str = "of";
const DETECTION: &str = "detection";
const ELECTION: &str = "election";
const RECOVERY: &str = "recovery";
const UNAVAILABILITY: &str = "unavailability";

const FIFO: &str = "fifo";
const OTHER: &str = "other";
const IDLE: &str = "idle";
const HOGS: &str = "hogs";
const MEMORY: &str = "memory";
const STOP: &str = "stop";
const KILL: &str = "kill";

const REFERENCE: &str = "udp-blocking";
/// Replicas of a cluster: the fewest that survive one.
const REPLICAS_COUNT: usize = 3;
/// Bytes of each value, as in `quorum-ladder`.
const VALUE_BYTES: usize = 36;
/// Fail-overs of one measurement.
const FAILOVERS: u64 = 20;
/// Where an interval does not permit so many: no measurement goes on longer than this before the next one's turn.
const SLICE: Duration = Duration::from_secs(6);
const ROUNDS_MAX: usize = 20;

/// What one measurement compares.
#[derive(Clone, Debug)]
struct Arm {
    backend: &'static BackEnd,
    heartbeat: Duration,
    scheduler: Scheduler,
    beside: String,
    log: String,
    how: String,
}

impl Arm {
    /// Time between two writes: several in the shortest outage, and no more in the longest than a client's session remembers.
    fn period(&self) -> Duration {
        (self.heartbeat / 20).clamp(Duration::from_micros(250), Duration::from_millis(5))
    }

    /// The signal comes after this time and, at random, up to twice of it: whatever the phase of the heartbeats.
    fn quiet_min(&self) -> Duration {
        Duration::from_millis(50).max(self.heartbeat * 2)
    }

    fn scheduler_name(&self) -> &'static str {
        match self.scheduler {
            Scheduler::RealTime | Scheduler::RealTimeFirst => FIFO,
            Scheduler::Ordinary => OTHER,
        }
    }
}

impl Experiment for Failover {
    fn id(&self) -> &'static str {
        "failover"
    }

    fn title(&self) -> &'static str {
        "Fail-over"
    }

    fn question(&self) -> &'static str {
        "How soon does a cluster notice that its leader is gone and commit again, and what does a short heartbeat cost?"
    }

    fn how(&self) -> &'static str {
        "Three replicas in processes of their own elect a leader over UDP on loopback; a client writes by a schedule. At a moment \
         drawn from the seed the leader is stopped or killed by a signal, and the time from there is taken to the first \
         suspicion, to a new leader, to the first write that it acknowledges, and the longest wait that the schedule saw. \
         A follower suspects its leader after 3 to 6 heartbeats without a word. Suspicions of a leader that was well are \
         counted over the quiet times before. Every acknowledged write is read back afterwards."
    }

    fn axes(&self) -> &'static [Axis] {
        &[HEARTBEAT, SCHEDULER, BESIDE, LOG, HOW]
    }

    fn backends(&self) -> Vec<&'static str> {
        vec![REFERENCE]
    }

    fn claims(&self) -> &'static [Claim] {
        claims::CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.4
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its replicas are processes of this machine, which it stops and kills")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let arms = self.arms(lab);
        let orders = rounds::order(arms.len(), ROUNDS_MAX, lab.choice.seed);
        lab.progress.set_length(arms.len() as u64);
        for (round, order) in orders.iter().enumerate() {
            for index in order {
                if lab.interrupted() || (round > 0 && lab.started.elapsed() > lab.budget) {
                    return Ok(());
                }
                let arm = &arms[*index];
                lab.progress.set_message(format!(
                    "heartbeat {:?}, {}, beside {}, log {}, {}, round {}",
                    arm.heartbeat,
                    arm.scheduler_name(),
                    arm.beside,
                    arm.log,
                    arm.how,
                    round + 1
                ));
                let rows = measure(lab, arm, round as u32)?;
                // A fail-over that Ctrl-C cut short is none.
                if lab.interrupted() {
                    return Ok(());
                }
                rows.into_iter().try_for_each(|row| lab.record(row))?;
                lab.progress.inc(1);
            }
            if lab.choice.depth == Depth::Smallest || lab.started.elapsed() > lab.budget {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Failover {
    fn arms(&self, lab: &Lab<'_>) -> Vec<Arm> {
        let refusal = host::realtime_refusal();
        let mut arms = Vec::new();
        let mut lacks_realtime = false;
        let is_given = |axis: &Axis| lab.choice.axes.contains_key(axis.name);
        for backend in lab.backends(self) {
            for scheduler in lab.values(&SCHEDULER) {
                if scheduler == FIFO && refusal.is_some() {
                    lacks_realtime = true;
                    continue;
                }
                for heartbeat_us in lab.numbers(&HEARTBEAT) {
                    for beside in lab.values(&BESIDE) {
                        for log in lab.values(&LOG) {
                            for how in lab.values(&HOW) {
                                // The disk and the kill are each compared with the rest where the rest is plainest, unless somebody
                                // asks for them elsewhere.
                                let aside_count = u32::from(log != MEMORY && !is_given(&LOG))
                                    + u32::from(how == KILL && !is_given(&HOW));
                                let is_plain =
                                    scheduler == FIFO && beside == IDLE && (1_000.0..=10_000.0).contains(&heartbeat_us);
                                if lab.choice.depth == Depth::Full && (aside_count > 1 || aside_count == 1 && !is_plain)
                                {
                                    continue;
                                }
                                arms.push(Arm {
                                    backend,
                                    heartbeat: Duration::from_nanos((heartbeat_us * 1e3) as u64),
                                    scheduler: if scheduler == FIFO {
                                        Scheduler::RealTime
                                    } else {
                                        Scheduler::Ordinary
                                    },
                                    beside: beside.clone(),
                                    log: log.clone(),
                                    how,
                                });
                            }
                        }
                    }
                }
            }
        }
        if let Some(why) = refusal.filter(|_| lacks_realtime) {
            lab.say(&format!("scheduler=fifo is not here, because of this: {why}"));
        }
        arms
    }
}

fn measure(lab: &Lab<'_>, arm: &Arm, round: u32) -> anyhow::Result<Vec<Row>> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let started = Instant::now();
    let hogs = match arm.beside.as_str() {
        HOGS => Some(Hogs::start(lab.place.cpus().len().max(1))?),
        _ => None,
    };
    // The same moments for every arm of a round.
    let mut rng = Pcg64Mcg::seed_from_u64(lab.choice.seed ^ u64::from(round));
    let mut tally = Tally::default();
    let failovers_max = match lab.choice.depth {
        Depth::Smallest => 1,
        Depth::Tour | Depth::Full => FAILOVERS,
    };
    let watch = Watch::begin();
    loop {
        let left_count = failovers_max.saturating_sub(tally.failovers_count);
        trial::live(lab, arm, left_count, started + SLICE, &mut rng, &mut tally)?;
        let is_over = started.elapsed() > SLICE || lab.choice.depth == Depth::Smallest;
        if tally.failovers_count >= failovers_max || is_over || lab.interrupted() {
            break;
        }
    }
    let seen = watch.end();
    if let Some(hogs) = hogs {
        let count = hogs.finish()?;
        tally.facts.insert("hogs".to_owned(), count.to_string());
    }
    let validity = gates::judge(&seen, &Limits::for_wake(Wake::Sleeps));
    let elapsed_s = started.elapsed().as_secs_f64();
    Ok(rows(lab, arm, round, (at_s, elapsed_s), tally, &validity))
}

fn rows(
    lab: &Lab<'_>,
    arm: &Arm,
    round: u32,
    (at_s, elapsed_s): (f64, f64),
    mut tally: Tally,
    validity: &Validity,
) -> Vec<Row> {
    let timing = timing_of(arm.heartbeat);
    let mut facts = std::mem::take(&mut tally.facts);
    facts.insert(
        "guarantee".to_owned(),
        replicas::guarantee(arm.log != MEMORY, REPLICAS_COUNT),
    );
    facts.insert(
        "election_timeout".to_owned(),
        format!(
            "{MISSES_MIN} to {MISSES_MAX} heartbeats: {:?} to {:?}",
            timing.election_min, timing.election_max
        ),
    );
    facts.insert("write_period".to_owned(), format!("{:?}", arm.period()));
    let metrics = metrics(&tally);
    let of = [
        (DETECTION, &tally.detection),
        (ELECTION, &tally.election),
        (RECOVERY, &tally.recovery),
        (UNAVAILABILITY, &tally.unavailability),
    ];
    let row = |(of, recorder): (&str, &Recorder)| Row {
        experiment: "failover".to_owned(),
        backend: arm.backend.name.to_owned(),
        mode: ModeRecord::Native,
        axis: BTreeMap::from([
            (
                HEARTBEAT.name.to_owned(),
                (arm.heartbeat.as_nanos() as f64 / 1e3).to_string(),
            ),
            (SCHEDULER.name.to_owned(), arm.scheduler_name().to_owned()),
            (BESIDE.name.to_owned(), arm.beside.clone()),
            (LOG.name.to_owned(), arm.log.clone()),
            (HOW.name.to_owned(), arm.how.clone()),
            (OF.to_owned(), of.to_owned()),
        ]),
        round,
        twin: false,
        seed: lab.choice.seed,
        at_s,
        elapsed_s,
        latency: (recorder.total_count() > 0).then(|| recorder.distribution(&QUANTILES)),
        service: None,
        schedule_lag: None,
        // What is true of the whole measurement stands in one row of it, so that sums over rows are right.
        metrics: if of == RECOVERY {
            metrics.clone()
        } else {
            BTreeMap::new()
        },
        series: Vec::new(),
        facts: facts.clone(),
        validity: validity.clone(),
    };
    of.into_iter().map(row).collect()
}

/// Names of metrics that claims read.
const FALSE_ALARMS: &str = "false_alarms";
const QUIET: &str = "quiet";
const CHECKED: &str = "acknowledged_checked";
const LOST: &str = "acknowledged_lost";

fn metrics(tally: &Tally) -> BTreeMap<String, Metric> {
    let count = |name: &str, value: u64, better: Better| {
        let unit = "count".to_owned();
        let value = value as f64;
        (name.to_owned(), Metric { value, unit, better })
    };
    let mut metrics = BTreeMap::from([
        count("failovers", tally.failovers_count, Better::Neither),
        count(FALSE_ALARMS, tally.false_alarms_count, Better::Lower),
        count("false_leaders", tally.depositions_count, Better::Lower),
        count("signals_beside", tally.beside_count, Better::Lower),
        count("unclean", tally.unclean_count, Better::Lower),
        count("unsettled", tally.unsettled_count, Better::Lower),
        count(CHECKED, tally.checked_count, Better::Neither),
        count("acknowledged_unchecked", tally.unchecked_count, Better::Lower),
        count(LOST, tally.lost_count, Better::Lower),
        count("unanswered", tally.unanswered_count, Better::Lower),
        count("events_missed", tally.missed_events_count, Better::Lower),
        count("clusters", tally.clusters_count, Better::Neither),
    ]);
    let mut put = |name: &str, value: f64, unit: &str, better: Better| {
        let unit = unit.to_owned();
        metrics.insert(name.to_owned(), Metric { value, unit, better });
    };
    put(QUIET, tally.quiet_ns as f64, "ns", Better::Neither);
    if tally.quiet_ns > 0 {
        put(
            "false_alarms_per_s",
            tally.false_alarms_count as f64 * 1e9 / tally.quiet_ns as f64,
            "1/s",
            Better::Lower,
        );
    }
    metrics
}
