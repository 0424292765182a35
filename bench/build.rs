//! Tells the build which commit it was made of, when it is built in the project's own checkout, and which clocks place and route
//! gave the blocks of `fpga/rtl`, if `scripts/syn` has written them down.
//!
//! Nothing here can fail the build: without git, or outside a checkout, nothing is emitted.

use std::{path::Path, process::Command};

/// What a change to makes the build another one. Looked at by `git status` and watched by cargo, so that "-dirty" cannot
/// go stale.
const SOURCES: [&str; 4] = ["Cargo.toml", "Cargo.lock", "dataplane", "bench"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DPLAB_GIT_COMMIT");
    if let Some(commit) = commit() {
        println!("cargo::rustc-env=DPLAB_GIT_COMMIT={commit}");
    }
    if let Some(clocks) = placed_clocks() {
        println!("cargo::rustc-env=DPLAB_FPGA_CLOCKS={clocks}");
    }
}

/// The table's rows, `block|parameters|device|MHz` each, with `;` between them: the first three columns and the last.
fn placed_clocks() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fpga/syn/TABLE.md");
    watch(&path);
    let table = std::fs::read_to_string(path).ok()?;
    let rows = table.lines().filter_map(|line| {
        let mut columns = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim);
        let (block, parameters, device) = (columns.next()?, columns.next()?, columns.next()?);
        let mhz = columns.next_back()?;
        mhz.parse::<f64>().ok()?;
        Some(format!("{block}|{parameters}|{device}|{mhz}"))
    });
    Some(rows.collect::<Vec<_>>().join(";"))
}

fn commit() -> Option<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    // A tarball unpacked inside somebody's repository is not a checkout of ours.
    let top = git(workspace, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != workspace.canonicalize().ok()? {
        return None;
    }
    for source in SOURCES {
        watch(&workspace.join(source));
    }
    // HEAD changes with the branch; the branch's own file, or else its log, with each commit.
    let branch = git(workspace, &["rev-parse", "--symbolic-full-name", "HEAD"])?;
    for name in ["HEAD", "logs/HEAD", "packed-refs", branch.as_str()] {
        if let Some(path) = git(workspace, &["rev-parse", "--git-path", name]) {
            watch(&workspace.join(path));
        }
    }
    let head = git(workspace, &["rev-parse", "--verify", "HEAD"])?;
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(SOURCES);
    let changes = git(workspace, &status)?;
    Some(if changes.is_empty() {
        head
    } else {
        format!("{head}-dirty")
    })
}

/// Cargo runs the script each time when a watched path is missing, so only what is there is watched.
fn watch(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

fn git(workspace: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(workspace)
        .args(arguments)
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    Some(String::from_utf8(output.stdout).ok()?.trim_end().to_owned())
}
