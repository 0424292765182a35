//! Less than a CPU for threads that are not ours: a control group with a quota (CFS bandwidth control), of version 2 or 1,
//! whichever has the CPU controller here. It is gone when this is dropped.
//!
//! A quota is no slower clock: a thread runs at full speed until its share of the period is used up, and then stands still for
//! the rest of it (Documentation/scheduler/sched-bwc.rst). Throughput is what such a thread loses; single latencies are either
//! as before or longer by most of a period.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, bail};

/// The kernel takes no shorter quota and no shorter period (min_cfs_quota_period, kernel/sched/core.c).
const QUOTA_US: u32 = 1_000;
/// And no longer period (max_cfs_quota_period): the highest factor is this.
pub const SLOWDOWN_MAX: u32 = 1_000;
/// A thread that has just begun cannot be moved yet, and a group whose threads have just ended is busy for a moment.
const WAIT_TRIES: u32 = 200;
const WAIT_REST: Duration = Duration::from_millis(5);

/// Where control groups with a CPU controller are made, and how their quota is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// One file: `cpu.max`.
    Two,
    /// Two: `cpu.cfs_period_us`, `cpu.cfs_quota_us`.
    One,
}

/// A control group with a share of one CPU.
#[derive(Debug)]
pub struct Bandwidth {
    folder: PathBuf,
}

impl Bandwidth {
    /// A group that gets one `slowdown`th of a CPU: 1 ms of each `slowdown` ms.
    ///
    /// # Errors
    /// No control groups with a CPU controller that may be used from here; what the kernel says.
    ///
    /// # Panics
    /// If `slowdown` is not from 1 to [`SLOWDOWN_MAX`].
    pub fn of(slowdown: u32) -> anyhow::Result<Bandwidth> {
        assert!((1..=SLOWDOWN_MAX).contains(&slowdown), "a slowdown of {slowdown}");
        let (root, version) = hierarchy(Path::new("/sys/fs/cgroup"))?;
        static GROUPS_COUNT: AtomicU32 = AtomicU32::new(0);
        let number = GROUPS_COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = root.join(format!("dplab-{}-{number}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("making the control group {}", folder.display()))?;
        // From here on it is removed when something fails.
        let group = Bandwidth { folder };
        let period_us = QUOTA_US * slowdown;
        match version {
            Version::Two => group.set("cpu.max", &format!("{QUOTA_US} {period_us}"))?,
            Version::One => {
                group.set("cpu.cfs_period_us", &period_us.to_string())?;
                group.set("cpu.cfs_quota_us", &QUOTA_US.to_string())?;
            }
        }
        Ok(group)
    }

    /// Moves a process, or a kernel thread, into the group. It counts there while it is scheduled as an ordinary one
    /// (SCHED_OTHER).
    ///
    /// # Errors
    /// What the kernel says: EINVAL for a kernel thread that is bound to its CPU.
    pub fn add(&self, pid: u32) -> anyhow::Result<()> {
        let mut added = self.set("cgroup.procs", &pid.to_string());
        // A kernel thread stays where it is until it has run once (`cgroup_kthread_ready`, kernel/kthread.c).
        for _ in 0..WAIT_TRIES {
            if added.is_ok() {
                break;
            }
            std::thread::sleep(WAIT_REST);
            added = self.set("cgroup.procs", &pid.to_string());
        }
        added
    }

    fn set(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, value).with_context(|| format!("writing {value:?} to {}", path.display()))
    }
}

impl Drop for Bandwidth {
    fn drop(&mut self) {
        let parent = self.folder.parent().map(|parent| parent.join("cgroup.procs"));
        let inside = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            if let Some(parent) = &parent {
                // One that has just ended is in no group.
                let _ = fs::write(parent, pid);
            }
        }
        for _ in 0..WAIT_TRIES {
            match fs::remove_dir(&self.folder) {
                Ok(()) => return,
                Err(_) if self.folder.exists() => std::thread::sleep(WAIT_REST),
                Err(_) => return,
            }
        }
        eprintln!(
            "the control group {} could not be removed; rmdir does",
            self.folder.display()
        );
    }
}

/// The folder under `mount` in which groups with a CPU controller can be made.
fn hierarchy(mount: &Path) -> anyhow::Result<(PathBuf, Version)> {
    let has_cpu = |file: &str| {
        let text = fs::read_to_string(mount.join(file)).unwrap_or_default();
        text.split_whitespace().any(|word| word == "cpu")
    };
    if has_cpu("cgroup.subtree_control") {
        return Ok((mount.to_owned(), Version::Two));
    }
    for folder in ["cpu", "cpu,cpuacct"] {
        if mount.join(folder).join("cpu.cfs_quota_us").exists() {
            return Ok((mount.join(folder), Version::One));
        }
    }
    match has_cpu("cgroup.controllers") {
        true => bail!(
            "groups of {0} have no CPU controller, which is a setting of the whole machine and is left alone; \
             `echo +cpu > {0}/cgroup.subtree_control` would give it to them",
            mount.display()
        ),
        false => bail!(
            "no CPU controller under {} (in a container it is often read-only or absent; the kernel needs CONFIG_CFS_BANDWIDTH)",
            mount.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_hierarchy_with_the_cpu_controller_is_found() {
        let mount = std::env::temp_dir().join(format!("dplab-cgroups-{}", std::process::id()));
        fs::create_dir(&mount).expect("a folder of our own");
        let refused = |part: &str| {
            let error = hierarchy(&mount).expect_err("there is none").to_string();
            assert!(error.contains(part), "{error}");
        };
        refused("CONFIG_CFS_BANDWIDTH");
        fs::write(mount.join("cgroup.controllers"), "cpuset cpu io\n").expect("written");
        fs::write(mount.join("cgroup.subtree_control"), "cpuset memory\n").expect("written");
        refused("echo +cpu");
        fs::create_dir(mount.join("cpu")).expect("made");
        fs::write(mount.join("cpu/cpu.cfs_quota_us"), "-1\n").expect("written");
        let found = hierarchy(&mount).expect("version 1");
        assert_eq!(found, (mount.join("cpu"), Version::One));
        fs::write(mount.join("cgroup.subtree_control"), "cpuset cpu memory\n").expect("written");
        let found = hierarchy(&mount).expect("version 2");
        assert_eq!(found, (mount.clone(), Version::Two));
        fs::remove_dir_all(&mount).expect("our own");
    }

    #[test]
    fn a_group_takes_a_process_and_leaves_nothing_behind() {
        let group = match Bandwidth::of(4) {
            Ok(group) => group,
            Err(error) => return println!("a share of a CPU: not run: {error:#}"),
        };
        let mut child = Command::new("sleep")
            .arg("600")
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        group.add(child.id()).expect("it is ours");
        let folder = group.folder.clone();
        let own = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).expect("it runs");
        let name = folder.file_name().and_then(|name| name.to_str()).expect("our own name");
        assert!(own.contains(name), "{own}");
        let quota =
            ["cpu.max", "cpu.cfs_quota_us"].map(|file| fs::read_to_string(folder.join(file)).unwrap_or_default());
        assert!(quota.concat().starts_with("1000"), "{quota:?}");
        drop(group);
        assert!(!folder.exists());
        let after = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).expect("it runs");
        assert!(!after.contains(name), "{after}");
        child.kill().expect("it runs");
        child.wait().expect("it is gone");
    }
}
