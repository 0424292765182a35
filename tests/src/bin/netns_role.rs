//! The other process in the tests of network namespaces: one that is killed, one without privilege, one without files.
//! Not for people.
#![forbid(unsafe_code)]

use dataplane_netns::{Names, Network, NetworkOptions, Privilege, Topology, prepare};
use nix::sys::resource::{Resource, setrlimit};
use std::io::Read;
use std::process::ExitCode;

const TOPOLOGIES: [Topology; 3] = [
    Topology::Pair,
    Topology::Star { hosts: 4 },
    Topology::Chain { hosts: 3 },
];

fn main() -> ExitCode {
    let role = std::env::args().nth(1).unwrap_or_default();
    let done = match role.as_str() {
        "hold" => hold(),
        "build" => build_all(),
        "unprepared" => unprepared(),
        "late" => late(),
        "exhaust" => exhaust(),
        _ => Err(format!("no such role: {role:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds a pair, prints its names and keeps it until standard input ends.
fn hold() -> Result<(), String> {
    let network = Network::build(&NetworkOptions::new(Topology::Pair)).map_err(|error| error.to_string())?;
    match &network.facts().names {
        Names::Published(paths) => paths.iter().for_each(|path| println!("name {}", path.display())),
        Names::Hidden { why } => println!("hidden {why}"),
    }
    println!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    network.remove().map_err(|error| error.to_string())
}

/// Prepares, builds each topology and pings through it.
fn build_all() -> Result<(), String> {
    match prepare() {
        Privilege::Root => println!("privilege root"),
        Privilege::UserNamespace => println!("privilege user-namespace"),
        Privilege::None { why } => {
            println!("privilege none: {why}");
            return Ok(());
        }
    }
    for topology in TOPOLOGIES {
        let network = Network::build(&NetworkOptions::new(topology)).map_err(|error| error.to_string())?;
        let pings_count = tests::netns::all_reach_all(&network).map_err(|error| error.to_string())?;
        println!("pings {pings_count} {:?}", network.facts());
        network.remove().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Builds without having asked for the privilege.
fn unprepared() -> Result<(), String> {
    Network::build(&NetworkOptions::new(Topology::Pair))
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Prepares with a second thread running.
fn late() -> Result<(), String> {
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || wait.recv());
    println!("{:?}", prepare());
    drop(stop);
    let _ = other.join();
    Ok(())
}

/// Builds with one open file allowed, then two, then three: so building fails once at each place that opens one, and each time
/// everything made until then must be gone again.
fn exhaust() -> Result<(), String> {
    let files_count = || std::fs::read_dir("/proc/self/fd").map_or(usize::MAX, Iterator::count);
    let limit_to = |files| setrlimit(Resource::RLIMIT_NOFILE, files, 4096).map_err(|error| error.to_string());
    limit_to(4096)?;
    // Before counting, so that whatever opens a file once and keeps it has done so.
    drop(Network::build(&NetworkOptions::new(Topology::Star { hosts: 3 })).map_err(|error| error.to_string())?);
    let before = files_count();
    let mut refused_count = 0;
    for files in 3..4096 {
        limit_to(files)?;
        let built = Network::build(&NetworkOptions::new(Topology::Star { hosts: 3 }));
        limit_to(4096)?;
        let is_built = match built {
            // Names are a convenience; with too few files for them there is a network without.
            Ok(network) => matches!(network.facts().names, Names::Published(_)),
            Err(error) => {
                refused_count += 1;
                if error.errno() != Some(nix::errno::Errno::EMFILE as i32) {
                    return Err(format!("with {files} files: {error}"));
                }
                false
            }
        };
        if files_count() != before {
            return Err(format!(
                "{} files are open after {files}, and {before} were",
                files_count()
            ));
        }
        let names = names_of_this_process();
        if !names.is_empty() {
            return Err(format!("names are left after {files} files: {names:?}"));
        }
        if is_built {
            println!("refused {refused_count}");
            return Ok(());
        }
    }
    Err("never built".to_owned())
}

fn names_of_this_process() -> Vec<String> {
    let prefix = format!("dplab-{}-", std::process::id());
    let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}
