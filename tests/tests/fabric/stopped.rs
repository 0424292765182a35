//! Half-way, by Ctrl-C and by kill -9: no name, no namespace, no link and no program of a fabric stays, or the next run takes it away.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::PoisonError,
    thread,
    time::{Duration, Instant},
};

use aya::programs::{loaded_links, loaded_programs};
use bench::switch::{Fabric, Kind, Shape};
use dataplane_netns::sweep;
use dataplane_queue::Limit;
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::netns::interfaces_here;

use super::{MBIT, ONE_SWITCH, burst};

/// Set for the process that is to be killed: the kind of its switch.
const KIND: &str = "DPLAB_KILLED_FABRIC";
/// The victim ends by itself if nobody kills it.
const VICTIM_LIFE_MAX: Duration = Duration::from_secs(60);
/// The kernel frees namespaces and programs in the background, and slowly on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn shape() -> Shape {
    Shape::new(20 * MBIT, Limit::Packets(40), Some(Limit::Packets(5)))
}

/// Sends through a fabric until it is killed. A test by form, so that it needs no binary of its own.
#[test]
#[ignore = "a role: started by the test below, and killed"]
fn victim() {
    let Ok(name) = std::env::var(KIND) else { return };
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name).expect("a kind");
    let fabric = Fabric::build(kind, 2, &shape()).expect("a fabric");
    println!("ready");
    let deadline = Instant::now() + VICTIM_LIFE_MAX;
    while Instant::now() < deadline {
        burst(&fabric, 20);
    }
}

struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = sweep();
    }
}

/// The names that a process has given its namespaces, in no order.
fn names_of(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("dplab-{pid}-");
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    names
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .collect()
}

/// Numbers of the programs and links that a process has open (bpf_prog_show_fdinfo, kernel/bpf/syscall.c).
fn held_by(pid: u32, key: &str) -> Vec<u32> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .into_iter()
        .flatten()
        .flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts
        .filter_map(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(key).map(str::to_owned))?;
            line.trim_start_matches(':').trim().parse().ok()
        })
        .collect()
}

/// The interfaces inside a namespace that we hold open ourselves.
fn interfaces_in(namespace: &File) -> Vec<String> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may");
            interfaces_here()
        });
        inside.join().expect("it does not panic")
    })
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for_none(what, || if is_so() { Vec::new() } else { vec![()] });
}

/// Waits until nothing is left of what must go.
fn wait_for_none<T: std::fmt::Debug>(what: &str, mut left: impl FnMut() -> Vec<T>) {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "after {WAIT_MAX:?} not so: {what}; left: {left:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_fabric_that_is_killed_is_gone_after_the_next_start() {
    let _guard = ONE_SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    for kind in Kind::ALL {
        if let Err(why) = kind.can_be(&shape()) {
            println!("kill -9, {kind}: not run: {why}");
            continue;
        }
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "stopped::victim", "--ignored", "--nocapture"])
            .env(KIND, kind.name())
            .stdout(Stdio::piped())
            .spawn();
        let mut victim = Victim(child.expect("it starts"));
        let said = BufReader::new(victim.0.stdout.take().expect("a pipe"));
        // The harness says which test it runs, on the same line.
        let is_ready = said.lines().map_while(Result::ok).any(|line| line.ends_with("ready"));
        assert!(is_ready, "{kind}: the victim ended before it was ready");
        let pid = victim.0.id();
        let names = names_of(pid);
        assert!(names.len() >= 3, "{kind}: three hosts, at the least: {names:?}");
        let (programs, links) = (held_by(pid, "prog_id"), held_by(pid, "link_id"));
        assert!(
            !programs.is_empty() && !links.is_empty(),
            "{kind}: {programs:?} {links:?}"
        );
        // Holding one host open lets us see its link: that is gone when the kernel has freed what was at its other end. Not the
        // switch's namespace: its bridge has no other end, and stays while it is held.
        let host = names.iter().find(|path| !path.to_string_lossy().ends_with("-switch"));
        let pinned = File::open(host.expect("three hosts")).expect("a name of root's");

        victim.0.kill().expect("it runs");
        victim.0.wait().expect("it is gone");
        // What `dplab run` begins with.
        sweep().expect("root may");
        assert_eq!(names_of(pid), Vec::<PathBuf>::new(), "{kind}");
        wait_for_none(&format!("{kind}: all links are gone"), || {
            let mut left = interfaces_in(&pinned);
            left.retain(|name| name != "lo");
            left
        });
        wait_until(&format!("{kind}: all programs and their links are gone"), || {
            let programs_left = loaded_programs()
                .flatten()
                .any(|program| programs.contains(&program.id()));
            let links_left = loaded_links().flatten().any(|link| links.contains(&link.id()));
            !programs_left && !links_left
        });
    }
}

#[test]
fn a_run_that_is_interrupted_takes_its_network_with_it() {
    let _guard = ONE_SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(why) = Kind::Soft.can_be(&shape()) {
        println!("Ctrl-C: not run: {why}");
        return;
    }
    let folder = std::env::temp_dir().join(format!("dplab-interrupted-{}", std::process::id()));
    let child = Command::new(tests::dplab())
        .args([
            "run",
            "emulated-switch",
            "--axis",
            "check=delay",
            "--budget",
            "60s",
            "--out",
        ])
        .arg(&folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut run = Victim(child.expect("it starts"));
    let pid = run.0.id();
    // Its own place has two names; those of the hosts at the switch come on top.
    wait_until("the run has hosts at a switch", || names_of(pid).len() > 2);
    kill(Pid::from_raw(pid as i32), Signal::SIGINT).expect("it runs");
    wait_until("the run ends", || run.0.try_wait().expect("ours").is_some());
    assert_eq!(names_of(pid), Vec::<PathBuf>::new());
    assert!(
        Path::exists(&folder.join("report.html")),
        "what was measured is reported"
    );
    fs::remove_dir_all(&folder).expect("ours");
}
