//! A cluster whose normal case is done by programs in the driver, and its client, for the tests of that: replicas are processes
//! of this same program. Prints what came of it as one line of JSON. Not for people.
#![forbid(unsafe_code)]

use std::{
    path::Path,
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

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
/// At least once while there are puts, at most for as long as there are.
const RELOADS_COUNT: u32 = 2;
/// Ends the puts early: few enough that no snapshot (`Limits::SMALL`: after 32,768 slots) takes the place of the log that the
/// replicas are compared by. A fast machine answers 175 in a millisecond.
const PUTS_MAX: u64 = 24_000;
/// How many times at most a run has puts for a while.
const WHILES_MAX: u64 = 4;
/// How often the count is looked at.
const PUTS_SPAN: Duration = Duration::from_millis(10);

/// What programs are, beside parts of a commit.
#[derive(Clone, Copy, Default)]
struct Options<'a> {
    fan_out: FanOut,
    /// How often each replica's are replaced.
    reloads_count: u32,
    /// Where logs are that programs wait for.
    logs: Option<&'a Path>,
}

fn start(ground: &Ground, network: Network, parts: Parts, options: Options<'_>) -> anyhow::Result<Replicas> {
    let manner = Manner {
        fan_out: options.fan_out,
        scheduler: Scheduler::Ordinary,
        reloads_count: options.reloads_count,
        ..Manner::default()
    };
    let log = |logs: &Path, node: usize| (logs.join(format!("node-{node}")), "dsync".to_owned());
    let role = |node| ReplicaRole::Driver {
        mode: ProgramMode::Generic,
        parts,
        disk: options.logs.map(|logs| log(logs, node)),
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

/// Puts for a while. What `how` ends in says what happens then:
///
/// - `kill`: the leader is killed, and there are puts until another leads, and some more; with `follower-kill` a follower is;
/// - `restart`: as `kill`, and then it is started again from its log on disk, which programs wait for, and there are puts again;
/// - `reload`: meanwhile all programs are replaced, again and again.
///
/// With `cards` the programs are on cards, of which receive work has threads and too little of a CPU, where that can be had. What
/// begins with `chain` lets entries visit the followers one after another.
fn ask(how: &str) -> anyhow::Result<()> {
    let (kills, restarts) = (how.ends_with("kill"), how.ends_with("restart"));
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
    let scratch = tests::Scratch::new();
    let options = Options {
        fan_out: match how.starts_with("chain") {
            true => FanOut::Chain,
            false => FanOut::Flood,
        },
        reloads_count: if how.ends_with("reload") { RELOADS_COUNT } else { 0 },
        logs: restarts.then_some(scratch.path()),
    };
    let mut replicas = start(&ground, network, parts, options)?;
    let options = ClientOptions {
        in_flight: 4,
        value_bytes: 64,
    };
    let (clock, stop) = (MonotonicClock::new(), AtomicBool::new(false));
    let backend = backends::by_name("udp-blocking").context("it is always there")?;
    let mut client = Client::open(backend, (&ground, &network), &replicas, false, options)?;
    let leader = client.find_leader(&clock, &stop)? as usize;
    let puts_max = if kills || restarts {
        PUTS_MAX / WHILES_MAX
    } else {
        PUTS_MAX
    };
    let mut ask = |span_ms: u64| {
        let (mut answered_count, deadline) = (0, Instant::now() + Duration::from_millis(span_ms));
        while answered_count < puts_max && Instant::now() < deadline {
            answered_count += client.ask(&clock, PUTS_SPAN, &stop)?.answered_count;
        }
        anyhow::Ok(answered_count)
    };
    let mut answered_count = ask(100)?;
    let mut killed = Vec::new();
    let (mut answered_after_count, mut answered_again_count) = (0, 0);
    if kills || restarts {
        let victim = match how.ends_with("follower-kill") {
            true => (leader + 1) % REPLICAS_COUNT,
            false => leader,
        };
        replicas.kill(victim)?;
        killed.push(victim);
        // Its program goes on answering until the kernel has taken the process down.
        std::thread::sleep(Duration::from_millis(500));
        let deadline = Instant::now() + Duration::from_secs(20);
        while answered_after_count == 0 && Instant::now() < deadline {
            answered_after_count += ask(100)?;
        }
        answered_after_count += ask(50)?;
    }
    if restarts {
        replicas.start_again(&ground, leader)?;
        killed.clear();
        answered_again_count = ask(100)?;
    }
    answered_count += answered_after_count + answered_again_count;
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
        "answered_again_count": answered_again_count,
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
    let _replicas = start(&ground, network, Parts::ALL, Options::default())?;
    println!("ready");
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}
