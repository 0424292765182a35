//! Runs ns-3 and our packet simulator in turn over the same lists of flows, and prints how far their results lie apart and how
//! fast both are: `cargo run --release -p bench --example ns3`. README.md has the packages that it needs.
#![forbid(unsafe_code)]

mod cases;
mod parting;
mod results;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use bench::host::process_cpu_ns;
use clap::Parser;

use cases::{CASES, Case};
use results::{METRICS, Pooled, Stored, deviation, is_of, run_ours};

/// ns-3's modules that ns3.cc uses.
const MODULES: &[&str] = &[
    "ns3-core",
    "ns3-network",
    "ns3-internet",
    "ns3-point-to-point",
    "ns3-traffic-control",
    "ns3-nix-vector-routing",
];

/// ns-3 beside our packet simulator, on the same flows
#[derive(Parser)]
struct Arguments {
    /// Only cases that have this in their names
    filter: Option<String>,
    /// Write ns-3's results there, as bench/peers/ns3/results.csv has them
    #[arg(long)]
    store: Option<PathBuf>,
    /// Run only ours, beside what was stored there
    #[arg(long, conflicts_with = "store")]
    against: Option<PathBuf>,
    /// Print the first segment that only one of the two sends, in the run of this seed
    #[arg(long, value_name = "SEED", conflicts_with_all = ["store", "against"])]
    parting: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempdir()?;
    let known = arguments.against.as_deref().map(read_stored).transpose()?;
    let program = if known.is_some() { None } else { build(&folder)? };
    let wanted = |case: &&Case| arguments.filter.as_ref().is_none_or(|part| case.name.contains(part));
    let mut stored = String::from(
        "# ns-3.37 (Debian 12, libns3-dev 3.37-2); cargo run --release -p bench --example ns3 -- --store bench/peers/ns3/results.csv\n\
         # verdict: agrees within 5 % (p50) and 10 % (p99), or beyond; ours is what our simulator had then\n\
         case,metric,ns3,ours,verdict\n",
    );
    if let Some(seed) = arguments.parting {
        let program = program.context("without ns-3 there is nothing to part from")?;
        for case in CASES.iter().filter(wanted) {
            println!("{}, seed {seed}", case.name);
            let theirs = parting::steps_of_ns3(&say_theirs(case, seed, &program, &folder, true)?)?;
            parting::print(&parting::steps_of_ours(case, seed, &folder)?, &theirs);
        }
        return std::fs::remove_dir_all(&folder).context("removing the scratch folder");
    }
    println!(
        "{:<26}{:<19}{:>12}{:>12}{:>10}",
        "case", "metric", "ours", "ns-3", "apart, %"
    );
    for case in CASES.iter().filter(wanted) {
        let theirs = match &program {
            Some(program) => run_theirs(case, program, &folder)?,
            None => Pooled::default(),
        };
        let ours = run_ours(case, process_cpu_ns);
        for &(metric, bound) in METRICS.iter().filter(|(metric, _)| is_of(case, metric)) {
            let (Some(a), b) = (ours.metric(metric), theirs.metric(metric)) else {
                continue;
            };
            let known = known
                .as_ref()
                .and_then(|known| known.get(&(case.name.to_owned(), metric.to_owned())));
            let b = b.or(known.map(|known| known.theirs)).unwrap_or(f64::NAN);
            let apart = deviation(metric, a, b);
            let verdict = if apart.abs() <= bound { "agrees" } else { "beyond" };
            println!(
                "{:<26}{metric:<19}{a:>12.1}{b:>12.1}{:>10.1}  {verdict}",
                case.name,
                apart * 100.0
            );
            stored.push_str(&format!("{},{metric},{b},{a},{verdict}\n", case.name));
        }
        for (name, pooled) in [("ours", &ours), ("ns-3", &theirs)] {
            if pooled.events_count == 0 {
                continue;
            }
            println!(
                "  {name:<5} {:>10} events {:>10} hops {:>8.3} Mevents/s {:>8.3} Mhops/s {:>9.3} s of CPU, {} drops, {} marks, {} time-outs, {} unfinished",
                pooled.events_count,
                pooled.hops_count,
                pooled.events_count as f64 / pooled.cpu_s / 1e6,
                pooled.hops_count as f64 / pooled.cpu_s / 1e6,
                pooled.cpu_s,
                pooled.drops_count,
                pooled.marks_count,
                pooled.timeouts_count,
                pooled.unfinished_count,
            );
        }
    }
    if let Some(path) = &arguments.store {
        std::fs::write(path, stored).with_context(|| format!("writing {}", path.display()))?;
    }
    std::fs::remove_dir_all(&folder).context("removing the scratch folder")?;
    Ok(())
}

fn read_stored(path: &Path) -> anyhow::Result<Stored> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    results::parse_stored(&text)
}

fn tempdir() -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("dplab-ns3-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// Compiles ns3.cc, if ns-3 is installed.
fn build(folder: &Path) -> anyhow::Result<Option<PathBuf>> {
    let found = Command::new("pkg-config")
        .args(["--cflags", "--libs"])
        .args(MODULES)
        .output();
    let flags = match found {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout)?,
        _ => {
            eprintln!(
                "ns-3 is skipped: pkg-config finds no ns-3 here (Debian: apt-get install g++ pkg-config libns3-dev libgsl-dev)"
            );
            return Ok(None);
        }
    };
    let program = folder.join("ns3");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/ns3/ns3.cc");
    let status = Command::new("g++")
        .args(["-O2", "-std=c++17", "-o"])
        .args([&program, &source])
        .args(flags.split_whitespace())
        .status()
        .context("running g++")?;
    ensure!(status.success(), "g++ could not compile {}", source.display());
    Ok(Some(program))
}

/// Runs a case in ns-3.
fn run_theirs(case: &Case, program: &Path, folder: &Path) -> anyhow::Result<Pooled> {
    let mut pooled = Pooled::default();
    for seed in 1..=case.seeds_count {
        for line in say_theirs(case, seed, program, folder, false)?.lines() {
            read_line(line, &mut pooled).with_context(|| format!("ns-3 said {line:?}"))?;
        }
    }
    Ok(pooled)
}

/// What ns-3 says of one run.
fn say_theirs(case: &Case, seed: u64, program: &Path, folder: &Path, is_traced: bool) -> anyhow::Result<String> {
    let (hosts, left) = case.hosts();
    let flows = case.flows(seed);
    let delays: Vec<String> = case
        .delays(seed)
        .iter()
        .map(|delay| delay.as_ns().to_string())
        .collect();
    let list = folder.join("flows.csv");
    std::fs::write(&list, cases::flows_csv(&flows)).with_context(|| format!("writing {}", list.display()))?;
    let output = Command::new(program)
        .arg(format!("--flows={}", list.display()))
        .arg(format!("--controller={}", case.controller.name()))
        .arg(format!("--recovery={}", if case.prr { "prr" } else { "classic" }))
        .arg(format!("--hosts={hosts}"))
        .arg(format!("--left={left}"))
        .arg(format!("--rate={}", cases::HOST_BITS_PER_SEC))
        .arg(format!("--coreRate={}", cases::BITS_PER_SEC))
        .arg(format!("--delays={}", delays.join(",")))
        .arg(format!("--coreDelay={}ns", cases::DELAY.as_ns()))
        .arg(format!("--limit={}", cases::LIMIT_PACKETS))
        .arg(format!("--markAt={}", case.mark_at.unwrap_or(0)))
        .arg(format!("--mss={}", cases::MSS_BYTES))
        .arg(format!("--initialWindow={}", cases::INITIAL_WINDOW_SEGMENTS))
        .arg(format!("--rtoMin={}ms", case.rto_min_ms))
        .arg(format!("--sack={}", case.sack))
        .arg(format!("--horizon={}ns", case.horizon().as_ns()))
        .arg(format!("--sampleEvery={}us", case.sample_every_us))
        .arg(format!("--sampleFrom={}ns", case.sampled_from().as_ns()))
        .arg(format!("--samples={}", cases::SAMPLES_COUNT))
        .arg(format!("--trace={is_traced}"))
        .output()
        .context("running ns-3")?;
    ensure!(
        output.status.success(),
        "ns-3 ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn read_line(line: &str, pooled: &mut Pooled) -> anyhow::Result<()> {
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["flow", _, ns] => pooled.fcts_ns.push(ns.parse()?),
        ["depth", packets, samples] => pooled.add_depth(packets.parse()?, samples.parse()?),
        ["cpu_s", s] => pooled.cpu_s += s.parse::<f64>()?,
        ["count", name, value] => {
            let value: u64 = value.parse()?;
            match name {
                "events" => pooled.events_count += value,
                "hops" => pooled.hops_count += value,
                "dropped" => pooled.drops_count += value,
                "marked" => pooled.marks_count += value,
                "timeouts" => pooled.timeouts_count += value,
                "unfinished" => pooled.unfinished_count += value,
                _ => {}
            }
        }
        _ => {}
    }
    Ok(())
}
