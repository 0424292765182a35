//! `rdma-failover`: how long it takes until a leader whose process has stopped, while its card goes on, is noticed and replaced.

use std::{
    collections::BTreeMap,
    sync::MutexGuard,
    thread,
    time::{Duration, Instant},
};

use dataplane_quorum::onesided::{RoleName, Timing};
use rdma::Provider;

use super::judge::{self, Bound};
use crate::{
    claim::{Claim, Judgement, Source},
    experiment::{Allowed, Axis, Experiment, Lab},
    measure::{
        Watch,
        gates::{self, Limits},
    },
    record::{Better, Metric, ModeRecord, Row},
    remote_memory::{
        Cards, Client, Cluster, Deposed, Node, PATIENCE, Service, Wires, layout_of, open_roce, open_shm, unless_deposed,
    },
    table::{Arm, Table},
};

/// See the module.
#[derive(Debug)]
pub struct RdmaFailover;

const HEARTBEAT_US: Axis = Axis {
    name: "heartbeat_us",
    meaning: "how often a process counts up and reads the others' counters",
    full: &["2000", MAIN_HEARTBEAT_US, "10000"],
    tour: &[MAIN_HEARTBEAT_US],
    smallest: MAIN_HEARTBEAT_US,
    allowed: Allowed::Number(1000.0, 1_000_000.0),
};

const PROVIDER: Axis = Axis {
    name: "provider",
    meaning: "what moves the bytes (the tables' back end): rdma-shm, in memory that both share; rdma-roce, RoCEv2 over UDP on loopback",
    full: &["rdma-shm", "rdma-roce"],
    tour: &["rdma-shm", "rdma-roce"],
    smallest: "rdma-shm",
    allowed: Allowed::Words,
};

const MAIN_HEARTBEAT_US: &str = "5000";
/// From the stop until another one asks for permission.
const DETECTION: &str = "detection";
/// From there until it leads: permission, promises, logs.
const SWITCH: &str = "switch";
/// From the stop until a client is answered.
const OUTAGE: &str = "outage";
const HEARTBEAT: &str = "heartbeat";
/// Scores are at their maximum by then: 15, from 6 (OSDI'20 §5.1).
const WARM_HEARTBEATS: u32 = 20;
/// Of the puts.
const VALUE_BYTES: usize = 1;
const NODES_COUNT: u16 = 3;

const CLAIMS: &[Claim] = &[
    Claim {
        id: "rdma-detection-heartbeats",
        sentence: "A leader that stops is noticed after 13 to 18 heartbeats",
        source: Source::Published {
            work: "M. K. Aguilera, N. Ben-David, R. Guerraoui, V. J. Marathe, A. Xygkis, I. Zablotchi: Microsecond Consensus for \
                   Microsecond Applications, OSDI 2020",
            place: "§5.1: scores from 0 to 15, dead below 2, so 14 looks at a counter that stands still; a look late and the \
                    time to the next one are the room above",
        },
        invariant: "Three replicas, a heartbeat of 5 ms, which threads of a shared machine keep. Decided by the ratio of the time to \
                    the first request for permission ÷ the heartbeat, both providers.",
        judge: detection,
    },
    Claim {
        id: "rdma-switch-beside-detection",
        sentence: "Changing the permission and taking over the log takes at most a tenth of noticing",
        source: Source::Published {
            work: "M. K. Aguilera, N. Ben-David, R. Guerraoui, V. J. Marathe, A. Xygkis, I. Zablotchi: Microsecond Consensus for \
                   Microsecond Applications, OSDI 2020",
            place: "§7.3: of 873 µs to fail over most is detection; the limit of a tenth is ours, for a heartbeat of 5 ms",
        },
        invariant: "The same trials. From the request for permission until the new leader leads: two followers' grants, promises, logs, \
                    and promises again. Decided by the ratio to the detection, both providers.",
        judge: switch,
    },
];

#[derive(Clone, Copy, Debug)]
struct Rung {
    wires: Wires,
    heartbeat: Duration,
}

impl Experiment for RdmaFailover {
    fn id(&self) -> &'static str {
        "rdma-failover"
    }

    fn title(&self) -> &'static str {
        "Fail-over by a change of permission"
    }

    fn question(&self) -> &'static str {
        "How long is nobody answered when a leader's process stops and its card goes on, and what of that is noticing?"
    }

    fn how(&self) -> &'static str {
        "Three replicas over one-sided writes. The leader's process stops between two commits; what stands for its NIC goes on, so \
         its memory can still be read, and its counter stands still. Each other process looks at its memory every 200 µs. A \
         client asks the next node for a session as soon as it leads. Each trial is a new cluster. Times are from the stop to the \
         first request for permission, from there until the new leader has settled its log, and until the client is answered."
    }

    fn axes(&self) -> &'static [Axis] {
        &[HEARTBEAT_US, PROVIDER]
    }

    fn backends(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn claims(&self) -> &'static [Claim] {
        CLAIMS
    }

    fn tour_weight(&self) -> f64 {
        0.3
    }

    fn needs_one_machine(&self) -> Option<&'static str> {
        Some("its replicas are threads of one process")
    }

    fn run(&self, lab: &mut Lab<'_>) -> anyhow::Result<()> {
        let wanted = lab.values(&PROVIDER);
        let mut rungs = Vec::new();
        for wires in Wires::ALL {
            for heartbeat_us in lab.numbers(&HEARTBEAT_US) {
                let heartbeat = Duration::from_micros(heartbeat_us as u64);
                if wanted.iter().any(|name| name == wires.name()) {
                    rungs.push(Rung { wires, heartbeat });
                }
            }
        }
        let slowest = rungs.iter().map(|rung| rung.heartbeat).max().unwrap_or_default();
        let plan = lab.plan(rungs.len(), slowest * 2 * WARM_HEARTBEATS);
        lab.in_rounds(&rungs, plan.rounds_count, |lab, turn| {
            let rung = *turn.arm;
            lab.progress.set_message(format!(
                "{}, {:?}, round {}",
                rung.wires.name(),
                rung.heartbeat,
                turn.round + 1
            ));
            lab.record_until_valid(|lab| measure(lab, rung, turn.round))
        })
    }
}

fn measure(lab: &Lab<'_>, rung: Rung, round: u32) -> anyhow::Result<Row> {
    let at_s = lab.run_started.elapsed().as_secs_f64();
    let started = Instant::now();
    let watch = Watch::begin();
    let times = match rung.wires {
        Wires::Shm => trial(
            [open_shm(NODES_COUNT)?, open_shm(NODES_COUNT)?],
            open_shm(NODES_COUNT)?,
            rung,
        ),
        Wires::Roce => {
            let planes = [open_roce(1, NODES_COUNT)?, open_roce(2, NODES_COUNT)?];
            trial(planes, open_roce(3, NODES_COUNT)?, rung)
        }
    };
    let mut observed = watch.end();
    let times = unless_deposed(times, &mut observed)?;
    let metric = |(name, time): (&str, Duration)| {
        let metric = Metric {
            value: time.as_nanos() as f64,
            unit: "ns".to_owned(),
            better: Better::Lower,
        };
        (name.to_owned(), metric)
    };
    let timed = times.map(|times| {
        [
            (DETECTION, times.detection),
            (SWITCH, times.switch),
            (OUTAGE, times.outage),
        ]
    });
    let metrics = timed.into_iter().flatten().chain([(HEARTBEAT, rung.heartbeat)]);
    let guarantee = "the memory of a majority: power that fails everywhere takes everything";
    Ok(Row {
        experiment: "rdma-failover".to_owned(),
        backend: rung.wires.name().to_owned(),
        mode: ModeRecord::Emulated {
            by: "software: no NIC".to_owned(),
        },
        axis: BTreeMap::from([
            (HEARTBEAT_US.name.to_owned(), rung.heartbeat.as_micros().to_string()),
            (PROVIDER.name.to_owned(), rung.wires.name().to_owned()),
        ]),
        round,
        twin: false,
        seed: lab.choice.seed,
        at_s,
        elapsed_s: started.elapsed().as_secs_f64(),
        latency: None,
        service: None,
        schedule_lag: None,
        metrics: metrics.map(metric).collect(),
        series: Vec::new(),
        facts: BTreeMap::from([("guarantee".to_owned(), guarantee.to_owned())]),
        validity: gates::judge(&observed, &Limits::default()),
    })
}

struct Times {
    detection: Duration,
    switch: Duration,
    outage: Duration,
}

fn trial<P: Provider + Send>(planes: [Vec<P>; 2], yardstick: Vec<P>, rung: Rung) -> anyhow::Result<Times> {
    let timing = Timing {
        heartbeat: rung.heartbeat,
    };
    let cluster = Cluster::new(planes, yardstick, (timing, layout_of(VALUE_BYTES)))?;
    let cards = Cards::new(cluster.nodes.len() - 1);
    thread::scope(|scope| {
        let (cluster, cards) = (&cluster, &cards);
        scope.spawn(|| cards.serve(cluster));
        for index in 0..cluster.nodes.len() - 1 {
            scope.spawn(move || cards.follow(cluster, index));
        }
        let times = fail_over(cluster, cards, rung.heartbeat);
        cards.set(Service::Over);
        times
    })
}

fn locked<P>(cluster: &Cluster<P>, node: usize) -> MutexGuard<'_, Node<P>> {
    cluster.nodes[node].lock().expect("nobody panicked with it")
}

fn fail_over<P: Provider + Send>(cluster: &Cluster<P>, cards: &Cards, heartbeat: Duration) -> anyhow::Result<Times> {
    let mut leader = locked(cluster, 0);
    cluster.turn_until(&mut leader, "nobody leads", |leader, _| {
        Ok(leader.replica().leads().is_some())
    })?;
    Client::new(VALUE_BYTES).open(cluster, &mut leader)?;
    let warm = Instant::now() + heartbeat * WARM_HEARTBEATS;
    while Instant::now() < warm {
        leader.turn(cluster.now());
    }
    leader.still_leads()?;
    drop(leader);
    let stopped = Instant::now();
    cards.set(Service::Takeover);
    // Whoever takes it for dead already has counted heartbeats before the stop; and a reign that ended may have left a broken connection.
    let is_first_stop = {
        let next = locked(cluster, 1);
        next.replica().role() == RoleName::Follower && next.replica().counters().stepped_down_count == 0
    };
    anyhow::ensure!(is_first_stop, Deposed);
    // Whoever is next by number.
    let until = |what: &str, is_so: &mut dyn FnMut(&mut Node<P>) -> anyhow::Result<bool>| -> anyhow::Result<Instant> {
        loop {
            let mut node = locked(cluster, 1);
            if is_so(&mut node)? {
                return Ok(Instant::now());
            }
            let described = (stopped.elapsed() > PATIENCE).then(|| node.replica().describe());
            drop(node);
            if let Some(described) = described {
                let is_disputed = (1..cluster.nodes.len()).any(|index| {
                    let node = locked(cluster, index);
                    let has_led = node.replica().counters().stepped_down_count > 0;
                    has_led || (index > 1 && node.replica().leads().is_some())
                });
                anyhow::ensure!(!is_disputed, Deposed);
                anyhow::bail!("{what}: {described}");
            }
            thread::yield_now();
        }
    };
    let stood = until("nobody stands", &mut |node| {
        Ok(node.replica().role() != RoleName::Follower)
    })?;
    let leads = until("nobody leads", &mut |node| {
        node.turn(cluster.now());
        Ok(node.replica().leads().is_some())
    })?;
    let mut client = Client::new(VALUE_BYTES);
    client.prepare();
    client.ask(&mut locked(cluster, 1));
    let answered = until("nobody is answered", &mut |node| {
        node.turn(cluster.now());
        node.still_leads()?;
        client.is_answered(node)
    })?;
    Ok(Times {
        detection: stood - stopped,
        switch: leads - stood,
        outage: answered - stopped,
    })
}

fn of_both(table: &Table, what: &str, (a, b): (&'static str, &'static str), bound: Bound) -> Judgement {
    let of = |wires: Wires| {
        let axis = [(HEARTBEAT_US.name, MAIN_HEARTBEAT_US), (PROVIDER.name, wires.name())];
        let arm = Arm::of(wires.name(), &axis);
        let rows = table.arm(arm);
        let values = |name: &str| -> Vec<f64> {
            let metrics = rows.iter().filter_map(|row| row.metrics.get(name));
            metrics.map(|metric| metric.value).collect()
        };
        if rows.is_empty() {
            return table.lacking(arm);
        }
        judge::ratio_of(
            table,
            &format!("{what}, {}", wires.name()),
            (&values(a), &values(b)),
            bound,
        )
    };
    judge::all(Wires::ALL.into_iter().map(of).collect())
}

fn detection(table: &Table) -> Judgement {
    let what = "time to notice ÷ heartbeat";
    of_both(table, what, (DETECTION, HEARTBEAT), Bound::Within(13.0, 18.0))
}

fn switch(table: &Table) -> Judgement {
    let what = "time to take over ÷ time to notice";
    of_both(table, what, (SWITCH, DETECTION), Bound::AtMost(0.1))
}
