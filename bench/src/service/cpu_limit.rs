//! A limit on the CPU time of a process, by a control group of its own: version 2 (`cpu.max`) where this process may make groups
//! with that controller, version 1 (`cpu.cfs_quota_us`) otherwise. Real-time threads are under no such limit (kernel,
//! Documentation/scheduler/sched-bwc.rst), so whoever is to feel it runs as an ordinary one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, bail};

/// What groups of ours are called; the number of the process follows.
const PREFIX: &str = "dplab-";

/// In which time the quota may be used up, the kernel's default.
pub const PERIOD: Duration = Duration::from_millis(100);

/// The least that the kernel takes, 1 ms (kernel/sched/core.c, `min_cfs_quota_period`): one hundredth of a CPU.
pub const QUOTA: Duration = Duration::from_millis(1);

/// A group with one process in it. Dropping it removes the group, if the process has ended.
#[derive(Debug)]
pub struct CpuLimit {
    folder: PathBuf,
    is_version_2: bool,
}

/// Where groups can be made.
#[derive(Clone, Debug)]
pub struct Controller {
    parent: PathBuf,
    is_version_2: bool,
}

impl Controller {
    /// Looks for one in which this process may make groups, and makes one to be sure.
    ///
    /// # Errors
    /// Why there is none.
    pub fn find() -> anyhow::Result<Controller> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("reading where control groups are mounted")?;
        let groups = fs::read_to_string("/proc/self/cgroup").context("reading which control groups we are in")?;
        let found = candidates(&mounts, &groups);
        if found.is_empty() {
            bail!("no control groups with a CPU controller are mounted (/proc/self/mounts)");
        }
        let mut why = Vec::new();
        for candidate in found {
            sweep(&candidate.parent);
            match candidate.try_out() {
                Ok(()) => return Ok(candidate),
                Err(error) => why.push(format!("{error:#}")),
            }
        }
        bail!("CPU time cannot be limited here: {}", why.join("; "))
    }

    fn try_out(&self) -> anyhow::Result<()> {
        let limit = self.group()?;
        limit.set(true)
    }

    fn group(&self) -> anyhow::Result<CpuLimit> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = self.parent.join(format!("{PREFIX}{}-{number}", process::id()));
        if self.is_version_2 {
            // Fails where processes are in the parent itself, which then is no place for groups with controllers.
            let control = self.parent.join("cgroup.subtree_control");
            fs::write(&control, "+cpu").with_context(|| format!("writing +cpu to {}", control.display()))?;
        }
        fs::create_dir(&folder).with_context(|| format!("making the control group {}", folder.display()))?;
        Ok(CpuLimit {
            folder,
            is_version_2: self.is_version_2,
        })
    }

    /// Puts a process with all its threads into a group of its own, without a limit for now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take(&self, pid: u32) -> anyhow::Result<CpuLimit> {
        let limit = self.group()?;
        let procs = limit.folder.join("cgroup.procs");
        fs::write(&procs, pid.to_string()).with_context(|| format!("writing a process to {}", procs.display()))?;
        Ok(limit)
    }
}

impl CpuLimit {
    /// Limits the processes in it to [`QUOTA`] in [`PERIOD`], or not any more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set(&self, is_limited: bool) -> anyhow::Result<()> {
        let write = |name: &str, value: String| {
            let file = self.folder.join(name);
            fs::write(&file, &value).with_context(|| format!("writing {value} to {}", file.display()))
        };
        match (self.is_version_2, is_limited) {
            (true, true) => write("cpu.max", format!("{} {}", QUOTA.as_micros(), PERIOD.as_micros())),
            (true, false) => write("cpu.max", format!("max {}", PERIOD.as_micros())),
            (false, true) => write("cpu.cfs_quota_us", QUOTA.as_micros().to_string()),
            (false, false) => write("cpu.cfs_quota_us", "-1".to_owned()),
        }
    }
}

impl Drop for CpuLimit {
    fn drop(&mut self) {
        // A group whose process has not ended yet is swept by the next run.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Removes what runs that were killed have left; the kernel keeps groups that still have processes.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if let Some(pid) = owner
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            let _: io::Result<()> = fs::remove_dir(entry.path());
        }
    }
}

/// Where this process is in each hierarchy that can have a CPU controller, version 2 first.
fn candidates(mounts: &str, groups: &str) -> Vec<Controller> {
    let group_of = |is_it: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            is_it(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let has_cpu = |list: &str| list.split(',').any(|name| name == "cpu");
    let mut found = Vec::new();
    for is_version_2 in [true, false] {
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, at, kind, options, ..] = fields[..] else {
                continue;
            };
            let group = match (is_version_2, kind) {
                (true, "cgroup2") => group_of(&str::is_empty),
                (false, "cgroup") if has_cpu(options) => group_of(&has_cpu),
                _ => None,
            };
            found.extend(group.map(|group| Controller {
                parent: Path::new(at).join(group),
                is_version_2,
            }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                          cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n\
                          cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
                          cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    #[test]
    fn our_own_place_is_found_in_both_versions() {
        let groups = "3:cpuset:/\n1:cpu,cpuacct:/user/7\n0::/user.slice\n";
        let found: Vec<(PathBuf, bool)> = candidates(MOUNTS, groups)
            .into_iter()
            .map(|controller| (controller.parent, controller.is_version_2))
            .collect();
        assert_eq!(
            found,
            [
                (PathBuf::from("/sys/fs/cgroup/unified/user.slice"), true),
                (PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/user/7"), false)
            ]
        );
        assert!(candidates("proc /proc proc rw 0 0\n", groups).is_empty());
    }

    #[test]
    fn a_process_is_limited_where_that_is_allowed() {
        let controller = match Controller::find() {
            Ok(controller) => controller,
            Err(error) => return eprintln!("skipped: {error:#}"),
        };
        let mut child = process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep(1) is there");
        let limit = controller
            .take(child.id())
            .expect("a group that could be made takes a process");
        limit.set(true).expect("the limit can be set");
        let folder = limit.folder.clone();
        let inside = fs::read_to_string(folder.join("cgroup.procs")).expect("it is there");
        assert_eq!(inside.trim(), child.id().to_string());
        limit.set(false).expect("and taken back");
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        drop(limit);
        assert!(!folder.exists(), "an empty group is removed");
    }
}
