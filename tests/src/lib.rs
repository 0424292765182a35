//! L4: whole-system tests live in `tests/tests/`; this library holds what they share.
#![forbid(unsafe_code)]

pub mod ecn;
pub mod files;
pub mod netns;
pub mod programs;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

/// Set by whoever has just built the whole workspace with its tests, `dplab` among them: nothing is built again.
const IS_BUILT: &str = "DPLAB_IS_BUILT";

/// The `dplab` program, built in the profile of the running test. Alone it has fewer features of its libraries than beside everybody's
/// tests, so that some of them are compiled once more: not if `DPLAB_IS_BUILT` is set.
///
/// # Panics
/// When it does not build, or is not where it was said to be.
pub fn dplab() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    let profile_folder = test
        .ancestors()
        .nth(2)
        .expect("target/<profile>/deps/<test>")
        .to_owned();
    let program = profile_folder.join("dplab");
    if std::env::var_os(IS_BUILT).is_some() {
        assert!(
            program.is_file(),
            "{IS_BUILT} is set, and {} is not there",
            program.display()
        );
        return program;
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "bench", "--bin", "dplab"]);
    build.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")]);
    build.arg("--target-dir").arg(profile_folder.parent().expect("target"));
    if profile_folder.ends_with("release") {
        build.arg("--release");
    }
    let status = build.status().expect("cargo runs");
    assert!(status.success(), "dplab does not build");
    program
}

/// Runs `dplab` with `args` and waits for it.
///
/// # Panics
/// When it cannot be started.
pub fn run(args: &[&str]) -> Output {
    Command::new(dplab()).args(args).output().expect("dplab starts")
}

/// What a command printed on stdout.
///
/// # Panics
/// When it is not UTF-8.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// What a command printed on stderr.
///
/// # Panics
/// When it is not UTF-8.
pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// A folder that is gone after the test.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty folder.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "dplab-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path inside, as text.
    ///
    /// # Panics
    /// When the path is not UTF-8.
    pub fn join(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a UTF-8 path").to_owned()
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
