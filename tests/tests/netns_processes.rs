//! Network namespaces across processes: one that is killed, one that runs beside us, one without root, one without files.

use dataplane_netns::{Privilege, prepare, sweep};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tests::netns::interfaces_here;

const ROLE: &str = env!("CARGO_BIN_EXE_netns_role");
/// The kernel takes a namespace down in the background, and slowly on a busy machine.
const KERNEL_WAIT_MAX: Duration = Duration::from_secs(60);
/// "nobody" on Debian; any number without rights would do.
const NOBODY: u32 = 65_534;

fn is_root(test: &str) -> bool {
    match prepare() {
        Privilege::Root => true,
        other => {
            println!("{test}: not run: needs root, and this is {other:?}");
            false
        }
    }
}

/// A process that holds a pair; killed when this is dropped.
struct Holder {
    child: Child,
    names: Vec<PathBuf>,
}

impl Holder {
    /// `None`, with the reason printed, where names cannot be published.
    fn start(test: &str) -> Option<Holder> {
        let mut child = Command::new(ROLE)
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut holder = Holder {
            child,
            names: Vec::new(),
        };
        for line in lines {
            match line.split_once(' ') {
                Some(("name", path)) => holder.names.push(path.into()),
                None if line == "ready" => return Some(holder),
                Some(("hidden", why)) => {
                    println!("{test}: not run: {why}");
                    return None;
                }
                _ => panic!("the helper said {line:?}"),
            }
        }
        panic!("the helper ended before it was ready");
    }

    fn kill_dash_nine(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The last parts, as a [`dataplane_netns::SweepReport`] has them.
    fn last_parts(&self) -> Vec<String> {
        self.names
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = sweep();
    }
}

/// The interfaces inside a namespace that we hold open ourselves.
fn interfaces_in(namespace: &File) -> Vec<String> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            interfaces_here()
        });
        inside.join().unwrap()
    })
}

#[test]
fn what_a_killed_run_left_is_gone_after_a_sweep() {
    if !is_root("kill -9") {
        return;
    }
    let Some(mut holder) = Holder::start("kill -9") else {
        return;
    };
    assert_eq!(holder.names.len(), 2);
    // Holding one host open lets us see its link: that is gone when the kernel has really freed the other host.
    let pinned = File::open(&holder.names[0]).unwrap();
    assert_eq!(interfaces_in(&pinned), ["eth0", "lo"]);

    holder.kill_dash_nine();
    assert!(
        holder.names.iter().all(|name| name.exists()),
        "names outlive their maker"
    );
    assert_eq!(interfaces_in(&pinned), ["eth0", "lo"], "and so do links");

    let report = sweep().unwrap();
    // Another test's sweep may have been first.
    for name in holder.last_parts() {
        assert!(!report.alive.contains(&name), "{report:?}");
        assert!(!report.kept.iter().any(|(kept, _)| *kept == name), "{report:?}");
    }
    assert!(holder.names.iter().all(|name| !name.exists()), "zero names");
    let deadline = Instant::now() + KERNEL_WAIT_MAX;
    while interfaces_in(&pinned) != ["lo"] {
        assert!(
            Instant::now() < deadline,
            "links are left: {:?}",
            interfaces_in(&pinned)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_run_killed_at_any_moment_leaves_nothing_that_a_sweep_does_not_take() {
    if !is_root("kill -9 at any moment") {
        return;
    }
    // Building takes some tens of milliseconds: the delays fall before, within and after it.
    for delay_ms in (0..60).step_by(3) {
        let mut child = Command::new(ROLE)
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        let report = sweep().unwrap();
        let prefix = format!("dplab-{}-", child.id());
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let left: Vec<_> = names
            .map(|entry| entry.file_name())
            .filter(|name| name.to_string_lossy().starts_with(&prefix))
            .collect();
        assert!(left.is_empty(), "after {delay_ms} ms: {left:?}, {report:?}");
    }
}

#[test]
fn a_sweep_leaves_a_living_run_and_foreign_names_alone() {
    if !is_root("living run") {
        return;
    }
    let Some(mut holder) = Holder::start("living run") else {
        return;
    };
    let foreign = PathBuf::from(format!("/run/netns/dplab-test-{}", std::process::id()));
    File::create(&foreign).unwrap();
    let report = sweep().unwrap();
    let is_foreign_left = foreign.exists();
    std::fs::remove_file(&foreign).unwrap();
    assert!(is_foreign_left, "a name that is not of our form");
    assert!(holder.names.iter().all(|name| name.exists()));
    for name in holder.last_parts() {
        assert!(report.alive.contains(&name), "{name} in {report:?}");
    }

    // The end of its input is the helper's normal end, after which nothing is left to sweep.
    drop(holder.child.stdin.take());
    assert!(holder.child.wait().unwrap().success());
    assert!(holder.names.iter().all(|name| !name.exists()));
}

#[test]
fn a_build_that_fails_anywhere_leaves_nothing() {
    if !is_root("exhaust") {
        return;
    }
    let output = Command::new(ROLE).arg("exhaust").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let refused_count: usize = said.trim().strip_prefix("refused ").unwrap().parse().unwrap();
    assert!(refused_count > 10, "building opens more files than {refused_count}");
    println!("building was refused {refused_count} times and left nothing");
}

/// Runs a role as somebody without rights, if we are root; else as ourselves.
fn without_root(role: &str) -> Output {
    let is_root = nix::unistd::geteuid().is_root();
    let dir = std::env::temp_dir().join(format!("netns-role-{}-{role}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    // The build folder may be readable by root alone.
    let program = dir.join("netns_role");
    std::fs::copy(ROLE, &program).unwrap();
    for path in [&dir, &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(&program);
    command.arg(role).current_dir("/");
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output();
    std::fs::remove_dir_all(&dir).unwrap();
    output.unwrap()
}

#[test]
fn without_root_a_user_namespace_does_or_the_reason_is_said() {
    let output = without_root("build");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    if let Some(why) = said.strip_prefix("privilege none: ") {
        assert!(why.contains("sysctl") || why.contains("run "), "no mend: {why}");
        return;
    }
    assert!(said.starts_with("privilege user-namespace\n"), "{said}");
    assert_eq!(
        said.lines().filter(|line| line.starts_with("pings ")).count(),
        3,
        "{said}"
    );
    assert!(said.contains("Hidden"), "no names without root: {said}");
    assert!(
        !said.contains("state: On") && !said.contains("state: Unknown"),
        "{said}"
    );
}

#[test]
fn without_having_prepared_the_error_says_what_to_do() {
    let output = without_root("unprepared");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success(), "{said}");
    for part in [
        "creating the network namespace of h0",
        "os error 1",
        "CAP_SYS_ADMIN",
        "sysctl",
    ] {
        assert!(said.contains(part), "{part:?} is missing in {said:?}");
    }
}

#[test]
fn preparing_too_late_is_refused_with_the_reason() {
    let output = without_root("late");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("None") && said.contains("before the second thread, where there are 2"),
        "{said}"
    );
}
