//! What this process may do, asked once at the start: make network namespaces as root, make them inside a user
//! namespace of its own, or neither.

use crate::NetError;
use crate::wire::Wire;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::io;

/// What [`prepare`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// CAP_SYS_ADMIN and CAP_NET_ADMIN where the process was started; nothing was changed.
    Root,
    /// The process now has both inside a user, a network and a mount namespace of its own; outside it can do no more than
    /// before. Its uid and gid read as 0 there. Only loopback leads anywhere until a network is built.
    UserNamespace,
    /// Neither; loopback of the machine is what is left.
    None {
        /// What was tried and what to do, for a person.
        why: String,
    },
}

// Source: include/uapi/linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// Finds out what this process may do and, without root, moves it into a user namespace in which it may build networks.
///
/// To be called first in `main`, while the process has one thread: unshare(2) refuses CLONE_NEWUSER afterwards, and the
/// threads would be in different networks. The answer is `None` then, too.
///
/// Whether namespaces really can be made is tried on a thread that is thrown away, before this thread moves: some
/// distributions allow the user namespace and take the capabilities in it, and in a network namespace whose `lo` cannot be
/// brought up not even loopback would be left.
pub fn prepare() -> Privilege {
    match try_prepare() {
        Ok(privilege) => privilege,
        Err(error) => Privilege::None { why: error.to_string() },
    }
}

fn try_prepare() -> Result<Privilege, NetError> {
    if has_capabilities()? {
        on_a_thread(|| try_network_namespace(CloneFlags::empty()))?;
        return Ok(Privilege::Root);
    }
    let threads_count = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads_count > 1 {
        return Ok(Privilege::None {
            why: format!(
                "not root, and a user namespace must be made before the second thread, where there are {threads_count}: \
                 run as root, or call prepare() first in main"
            ),
        });
    }
    // Read before: inside, until they are mapped, both are the overflow ids.
    let (uid, gid) = (geteuid(), getegid());
    let step = |object: &str| {
        let object = object.to_owned();
        move |error: io::Error| NetError::kernel("preparing", object, error)
    };
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| step("a user namespace")(errno.into()))?;
    // Without this the kernel refuses gid_map (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").map_err(step("/proc/self/setgroups"))?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).map_err(step("/proc/self/uid_map"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).map_err(step("/proc/self/gid_map"))?;
    on_a_thread(|| try_network_namespace(CloneFlags::CLONE_NEWNS))?;
    try_network_namespace(CloneFlags::CLONE_NEWNS)?;
    Ok(Privilege::UserNamespace)
}

/// Moves the calling thread into a new network namespace (and whatever `also` says) that works.
fn try_network_namespace(also: CloneFlags) -> Result<(), NetError> {
    unshare(CloneFlags::CLONE_NEWNET | also)
        .map_err(|errno| NetError::kernel("preparing", "a network namespace", errno))?;
    let wire = Wire::open_here("the new network namespace")?;
    let lo = wire.link("lo")?;
    wire.up(lo.index, "lo")
}

fn on_a_thread(work: impl FnOnce() -> Result<(), NetError> + Send) -> Result<(), NetError> {
    crate::thread::run("dplab-prepare", work)?
}

fn has_capabilities() -> Result<bool, NetError> {
    let status = fs::read_to_string("/proc/thread-self/status")
        .map_err(|error| NetError::kernel("reading", "/proc/thread-self/status", error))?;
    Ok(effective(&status).is_some_and(|set| [CAP_NET_ADMIN, CAP_SYS_ADMIN].iter().all(|bit| set >> bit & 1 == 1)))
}

/// The effective set of proc_pid_status(5).
fn effective(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read_and_nothing_else() {
        let status = "CapInh:\t0000000000000000\nCapEff:\t0000000000201000\nCapBnd:\tffffffffffffffff\n";
        assert_eq!(effective(status), Some(1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN));
        assert_eq!(effective("CapBnd:\tff\n"), None);
    }
}
