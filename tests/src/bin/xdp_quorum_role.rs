//! A cluster whose normal case is done by programs in the driver, and its client, for the tests of that: replicas are processes
//! of this same program. Prints what came of it as one line of JSON. Not for people.
#![forbid(unsafe_code)]

use std::{process::ExitCode, sync::atomic::AtomicBool, time::Duration};

use anyhow::Context;
use bench::{
    backends,
    host::{Scheduler, Seat},
    replicas::{
        self, Client, ClientOptions, FanOut, Ground, Manner, Network, Parts, ProgramMode, ReceiveThreads, ReplicaRole,
        Replicas,
    },
};
use dataplane_waist::MonotonicClock;

/// As any program has it.
const SEAT: Seat = Seat {
    cpu: None,
    spins: false,
    is_shared: true,
};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let role = args.next().unwrap_or_default();
    let done = match role.as_str() {
        replicas::SUBCOMMAND => replicas::main(&args.next().unwrap_or_default()),
        "ask" => ask(&args.next().unwrap_or_default()),
        "hold" => hold(),
        _ => Err(anyhow::anyhow!("no such role: {role:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error {error:#}");
            ExitCode::FAILURE
        }
    }
}

const REPLICAS_COUNT: usize = 3;

fn start(ground: &Ground, network: Network, parts: Parts, fan_out: FanOut) -> anyhow::Result<Replicas> {
    let manner = Manner {
        fan_out,
        scheduler: Scheduler::Ordinary,
        ..Manner::default()
    };
    let role = |_| ReplicaRole::Driver {
        mode: ProgramMode::Generic,
        parts,
        disk: None,
    };
    Replicas::start_as("udp-blocking", (ground, network), &[SEAT; REPLICAS_COUNT], manner, role)
}

/// What programs do of a commit.
fn parts_of(how: &str) -> Parts {
    match how {
        "offloads" => Parts {
            broadcasts: true,
            acknowledges: true,
            counts: true,
            appends: false,
        },
        "broadcast" => Parts {
            broadcasts: true,
            ..Parts::NONE
        },
        _ => Parts::ALL,
    }
}

/// Puts for a while; with `kill`, the leader is killed then, and there are puts until another leads, and some more; with
/// `follower-kill` a follower is. With `cards`
/// the programs are on cards, of which receive work has threads and too little of a CPU, where that can be had. With
/// `chain` entries visit the followers one after another.
fn ask(how: &str) -> anyhow::Result<()> {
    let kills = how.ends_with("kill");
    let parts = parts_of(how.trim_end_matches("-kill"));
    let ground = match how {
        "cards" => Ground::bridge_with_cards(REPLICAS_COUNT)?,
        _ => Ground::bridge_for_programs(REPLICAS_COUNT)?,
    };
    let threads = || ReceiveThreads::start(&ground, REPLICAS_COUNT, |_| (None, None), 4);
    let threads = (how == "cards").then(threads).transpose();
    if let Err(why) = &threads {
        eprintln!("no threads: {why:#}");
    }
    let network = Network {
        over_veth: true,
        seed: 7,
        ..Network::default()
    };
    let fan_out = match how.starts_with("chain") {
        true => FanOut::Chain,
        false => FanOut::Flood,
    };
    let replicas = start(&ground, network, parts, fan_out)?;
    let options = ClientOptions {
        in_flight: 4,
        value_bytes: 64,
    };
    let (clock, stop) = (MonotonicClock::new(), AtomicBool::new(false));
    let backend = backends::by_name("udp-blocking").context("it is always there")?;
    let mut client = Client::open(backend, (&ground, &network), &replicas, false, options)?;
    let leader = client.find_leader(&clock, &stop)? as usize;
    // Few enough that no snapshot takes the place of the log.
    let mut answered_count = client.ask(&clock, Duration::from_millis(100), &stop)?.answered_count;
    let mut killed = Vec::new();
    let mut answered_after_count = 0;
    if kills {
        let victim = match how.ends_with("follower-kill") {
            true => (leader + 1) % REPLICAS_COUNT,
            false => leader,
        };
        replicas.kill(victim)?;
        killed.push(victim);
        // Its program goes on answering until the kernel has taken the process down.
        std::thread::sleep(Duration::from_millis(500));
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while answered_after_count == 0 && std::time::Instant::now() < deadline {
            answered_after_count += client.ask(&clock, Duration::from_millis(100), &stop)?.answered_count;
        }
        answered_after_count += client.ask(&clock, Duration::from_millis(50), &stop)?.answered_count;
        answered_count += answered_after_count;
    }
    // The followers hear of the last commit with a heartbeat.
    std::thread::sleep(Duration::from_millis(500));
    let reports = replicas.finish_but(&killed)?;
    let reports: Vec<_> = reports
        .into_iter()
        .map(|(node, report)| serde_json::json!({ "node": node, "report": report }))
        .collect();
    let line = serde_json::json!({
        "leader": leader,
        "answered_count": answered_count,
        "answered_after_count": answered_after_count,
        "replicas": reports,
    });
    println!("{line}");
    Ok(())
}

/// Holds a cluster until it is killed.
fn hold() -> anyhow::Result<()> {
    let ground = Ground::bridge_for_programs(REPLICAS_COUNT)?;
    let network = Network {
        over_veth: true,
        ..Network::default()
    };
    let _replicas = start(&ground, network, Parts::ALL, FanOut::Flood)?;
    println!("ready");
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}
