//! Names under /run/netns, so that `ip netns exec` shows what is inside a running experiment. A name is a bind mount,
//! and a mount is the one thing of ours that outlives a `kill -9`; so a name says who made it, and [`sweep`] removes
//! those whose maker is dead.
//!
//! ```text
//! dplab-<pid>-<start>-<pid namespace>-<network>-<host>
//!        │     │       │                └ counts the networks of that process
//!        │     │       └ inode of /proc/self/ns/pid: a pid means nothing in another container
//!        │     └ when the process started, in clock ticks since boot: pids are used again
//! ```

use crate::NetError;
use crate::namespace::Namespace;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where iproute2 looks (`NETNS_RUN_DIR`).
const NAMES_DIR: &str = "/run/netns";
const PREFIX: &str = "dplab";
/// A name may carry more than one mount when mounts propagate; this only bounds the loop.
const MOUNTS_PER_NAME_MAX: usize = 8;

/// What [`sweep`] found. Names of others are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Names whose maker was dead: gone now.
    pub removed: Vec<String>,
    /// Names whose maker lives: left alone.
    pub alive: Vec<String>,
    /// Names that may be dead but were left: each with the reason.
    pub kept: Vec<(String, String)>,
}

/// Who made a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Maker {
    pid: u32,
    start_ticks: u64,
    pid_namespace: u64,
}

impl Maker {
    pub fn this_process() -> io::Result<Maker> {
        let pid = std::process::id();
        Ok(Maker {
            pid,
            start_ticks: Process::read(pid)?.start_ticks,
            pid_namespace: pid_namespace()?,
        })
    }

    fn name(&self, network: u32, host: &str) -> String {
        let Maker {
            pid,
            start_ticks,
            pid_namespace,
        } = self;
        format!("{PREFIX}-{pid}-{start_ticks}-{pid_namespace}-{network}-{host}")
    }

    /// `None` for a name that is not of this form, and so not ours.
    fn of_name(name: &str) -> Option<Maker> {
        let mut parts = name.split('-');
        let mut next = || parts.next();
        if next()? != PREFIX {
            return None;
        }
        let maker = Maker {
            pid: number(next()?)?,
            start_ticks: number(next()?)?,
            pid_namespace: number(next()?)?,
        };
        let _network: u32 = number(next()?)?;
        let host = next()?;
        (!host.is_empty() && next().is_none()).then_some(maker)
    }

    /// Errs towards alive: only a clear no counts as dead.
    fn is_alive(&self) -> bool {
        match Process::read(self.pid) {
            Ok(process) => process.start_ticks == self.start_ticks && !process.is_dead,
            Err(error) => !matches!(
                error.raw_os_error().map(Errno::from_raw),
                Some(Errno::ENOENT | Errno::ESRCH)
            ),
        }
    }
}

/// Digits only: `parse` would also take a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// What /proc/`pid`/stat says (proc_pid_stat(5)).
struct Process {
    start_ticks: u64,
    /// A zombie whose threads have all ended: its files are closed, only its exit status is left.
    is_dead: bool,
}

impl Process {
    fn read(pid: u32) -> io::Result<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (state, start_ticks) = state_and_start(&stat)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("/proc/{pid}/stat is {stat:?}")))?;
        let threads_count = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        Ok(Process {
            start_ticks,
            is_dead: matches!(state, 'Z' | 'X') && threads_count() <= 1,
        })
    }
}

/// Fields 3 and 22. Field 2 is the program's name in parentheses and may itself hold spaces and parentheses.
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(22 - 3 - 1)?.parse().ok()?))
}

fn pid_namespace() -> io::Result<u64> {
    fs::metadata("/proc/self/ns/pid").map(|metadata| metadata.ino())
}

/// A name that is there until this is dropped.
#[derive(Debug)]
pub(crate) struct Published {
    path: PathBuf,
}

impl Published {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Also removes what a failure half-way made.
    pub fn publish(maker: &Maker, network: u32, namespace: &Namespace) -> io::Result<Published> {
        let path = Path::new(NAMES_DIR).join(maker.name(network, namespace.name()));
        OpenOptions::new().write(true).create_new(true).open(&path)?;
        let published = Published { path };
        mount(
            Some(&namespace.path()),
            &published.path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
        Ok(published)
    }

    pub fn remove(mut self) -> Result<(), NetError> {
        unname(&std::mem::take(&mut self.path))
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return; // `remove` was here
        }
        // A name that cannot be removed now is removed by the next sweep.
        let _ = unname(&self.path);
    }
}

/// Takes the mounts off a name, then the name. A name that another sweep removed meanwhile is fine.
fn unname(path: &Path) -> Result<(), NetError> {
    let fail = |operation, error: io::Error| NetError::kernel(operation, path.display().to_string(), error);
    for _ in 0..MOUNTS_PER_NAME_MAX {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // EINVAL: nothing (more) is mounted there.
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(fail("unmounting", errno.into())),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(fail("removing", error)),
        _ => Ok(()),
    }
}

/// Makes /run/netns as iproute2 does (ip/ipnetns.c, `netns_add`): a mount point of its own whose mounts propagate, so that a
/// removal is seen in every mount namespace and no copy keeps a network alive.
pub(crate) fn prepare_names_dir() -> io::Result<()> {
    match fs::create_dir(NAMES_DIR) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Two processes that start at once would both put a mount point there, one on top of the other.
    let dir = File::open(NAMES_DIR)?;
    let _lock = Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
    let share = || {
        mount(
            Some(""),
            NAMES_DIR,
            Some("none"),
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    match share() {
        // EINVAL: not a mount point yet.
        Err(Errno::EINVAL) => {
            mount(
                Some(NAMES_DIR),
                NAMES_DIR,
                Some("none"),
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>,
            )?;
            share()?;
        }
        other => other?,
    }
    Ok(())
}

/// Removes the names that dead runs left, and with each name the namespace, links and addresses that only it kept
/// alive. Leaves names of living processes, of other pid namespaces and of other programs.
///
/// # Errors
/// /run/netns exists and cannot be read. A name that cannot be removed is in [`SweepReport::kept`] instead.
pub fn sweep() -> Result<SweepReport, NetError> {
    let fail = |error| NetError::kernel("sweeping", NAMES_DIR, error);
    let mut report = SweepReport::default();
    let entries = match fs::read_dir(NAMES_DIR) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(report),
        entries => entries.map_err(fail)?,
    };
    let here = pid_namespace().map_err(fail)?;
    for entry in entries {
        let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
        let Some(maker) = Maker::of_name(&name) else {
            continue;
        };
        if maker.pid_namespace != here {
            report.kept.push((
                name,
                "made in another pid namespace, where its maker may live".to_owned(),
            ));
        } else if maker.is_alive() {
            report.alive.push(name);
        } else {
            match unname(&Path::new(NAMES_DIR).join(&name)) {
                Ok(()) => report.removed.push(name),
                Err(error) => report.kept.push((name, error.to_string())),
            }
        }
    }
    for names in [&mut report.removed, &mut report.alive] {
        names.sort();
    }
    report.kept.sort();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_who_made_it_and_foreign_names_do_not() {
        let maker = Maker {
            pid: 12,
            start_ticks: 345,
            pid_namespace: 4026531836,
        };
        let name = maker.name(1, "h0");
        assert_eq!(name, "dplab-12-345-4026531836-1-h0");
        assert_eq!(Maker::of_name(&name), Some(maker));
        for foreign in [
            "",
            "h0",
            "dplab",
            "dplab-",
            "dplab-1-2-3-4",
            "dplab-1-2-3-4-",
            "dplab-1-2-3-4-h0-x",
            "dplab-+1-2-3-4-h0",
            "dplab--2-3-4-h0",
            "Dplab-1-2-3-4-h0",
            "dplab-99999999999-2-3-4-h0",
        ] {
            assert_eq!(Maker::of_name(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) Z (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(state_and_start(stat), Some(('S', 777)));
        assert_eq!(state_and_start("42 (cut) S 1 2"), None);
        assert_eq!(state_and_start(""), None);
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not_it() {
        let this = Maker::this_process().unwrap();
        assert!(this.is_alive());
        let before = Maker {
            start_ticks: this.start_ticks - 1,
            ..this
        };
        assert!(!before.is_alive(), "the pid was used again");
    }

    #[test]
    fn an_unreaped_zombie_is_dead() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let start_ticks = Process::read(child.id()).unwrap().start_ticks;
        let maker = Maker {
            pid: child.id(),
            start_ticks,
            pid_namespace: pid_namespace().unwrap(),
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while maker.is_alive() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let was_alive = maker.is_alive();
        child.wait().unwrap();
        assert!(!was_alive);
        assert!(!maker.is_alive());
    }
}
