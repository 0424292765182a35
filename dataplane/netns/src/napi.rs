//! Threaded NAPI: an interface's receive work in kernel threads of its own, instead of in a softirq of whoever brings the
//! frames (Documentation/networking/napi.rst, "Threaded NAPI").

use crate::offload::{Ethtool, GRO};
use crate::{NetError, thread};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;

/// NAPI threads of an interface; back in softirqs when this is dropped, if the interface then still has NAPI.
#[derive(Debug)]
pub struct NapiThreads {
    /// What the kernel reads the setting from, in the sysfs of the interface's namespace.
    setting: File,
    pids: Vec<u32>,
    /// Goes after the threads.
    gro: Option<GroOn>,
}

/// GRO of an interface, which has NAPI by it; off again when this is dropped.
struct GroOn {
    /// Its socket belongs to the interface's namespace.
    ethtool: Ethtool,
    interface: String,
}

impl fmt::Debug for GroOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GRO of {}", self.interface)
    }
}

impl Drop for GroOn {
    fn drop(&mut self) {
        // Refused only where the interface has gone, and its features with it.
        let _ = self.ethtool.switch(&self.interface, &[GRO.to_owned()], false);
    }
}

impl NapiThreads {
    /// Gives the NAPI instances of `interface`, of the network namespace in which the calling thread stands, a thread each. A
    /// veth has NAPI only while it has an XDP program or GRO; with the program the threads go.
    ///
    /// The setting is in sysfs, which shows the namespace of whoever mounted it: it is mounted anew where nobody else sees it.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN in the user namespace that owns the network namespace; ENOENT from kernels before 5.12; EIO
    /// where the interface has no NAPI.
    pub fn start(interface: &str) -> Result<NapiThreads, NetError> {
        let fail = |operation| move |error| NetError::kernel(operation, interface, error);
        let mut setting = thread::run("dplab-napi", || {
            unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| fail("leaving the mounts of others for")(errno.into()))?;
            let mounted = |from, to, kind, flags| mount::<str, str, str, str>(from, to, kind, flags, None);
            mounted(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)
                .map_err(|errno| fail("keeping a mount private for")(errno.into()))?;
            mounted(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty())
                .map_err(|errno| fail("mounting sysfs for")(errno.into()))?;
            File::options()
                .write(true)
                .open(format!("/sys/class/net/{interface}/threaded"))
                .map_err(fail("opening the NAPI setting of"))
        })??;
        let before = threads_of(interface);
        setting
            .write_all(b"1")
            .map_err(fail("giving a thread to the NAPI of"))?;
        let pids = threads_of(interface).difference(&before).copied().collect();
        Ok(NapiThreads {
            setting,
            pids,
            gro: None,
        })
    }

    /// As [`NapiThreads::start`], for a veth without a native program: GRO gives it NAPI, and is switched off again in the end.
    /// Datagrams are never coalesced by it, unless their receiver asks for that (UDP_GRO).
    ///
    /// # Errors
    /// As there; what ethtool says.
    pub fn start_with_gro(interface: &str) -> Result<NapiThreads, NetError> {
        let fail = |error| NetError::kernel("switching on GRO of", interface, error);
        let mut ethtool = Ethtool::open().map_err(fail)?;
        ethtool.switch(interface, &[GRO.to_owned()], true).map_err(fail)?;
        let gro = GroOn {
            ethtool,
            interface: interface.to_owned(),
        };
        let mut threads = NapiThreads::start(interface)?;
        threads.gro = Some(gro);
        Ok(threads)
    }

    /// Process ids of the threads; none where another PID namespace has them.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }
}

impl Drop for NapiThreads {
    fn drop(&mut self) {
        // Without NAPI there is nothing to set back, and the kernel says so.
        let _ = self.setting.write_all(b"0");
    }
}

/// The kernel names them "napi/INTERFACE-ID" (`napi_kthread_create`, net/core/dev.c).
fn threads_of(interface: &str) -> BTreeSet<u32> {
    let prefix = format!("napi/{interface}-");
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(&prefix)))
        .collect()
}
