//! The loopback port's ring in memory that two processes share: what the wire would cost if it were memory.
//!
//! One process creates a [`ShmRegion`] (a memfd, which has no name in any file system and vanishes with its last user)
//! and hands the other its [`ShmRegion::path_for`]. Each connects one [`Side`]. The memory is the peer's to write at
//! any time, so everything in it is checked and frames are copied out before they are lent. A peer that dies just
//! stops draining its ring: frames to it are dropped and counted once the ring is full.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dataplane_waist::{Peer, Port, PortCaps, PortStats, ProbeError, RxFrame, Support, TxError};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::ftruncate,
};

pub use crate::loopback::RingOptions;
use crate::{
    loopback::RingPort,
    sys::{
        region::{Region, Way},
        ring::RingEnd,
    },
};

/// Why a region could not be made, opened or connected.
#[derive(Debug, thiserror::Error)]
#[error("{operation} failed for {path}: {error}; {mend}")]
pub struct ShmError {
    /// What was tried.
    pub operation: &'static str,
    /// The region, as a path (its own name if it has none yet).
    pub path: String,
    /// What came back.
    pub error: io::Error,
    /// What to try.
    pub mend: &'static str,
}

/// Which end of the region a process is. The two are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Usually the creator's.
    A,
    /// The other.
    B,
}

/// Memory with a ring each way, mapped.
#[derive(Debug)]
pub struct ShmRegion {
    file: OwnedFd,
    region: Arc<Region>,
    batch_frames_max: usize,
}

impl ShmRegion {
    /// A new region whose ports spin, sealed so that neither process can shrink it under the other (which would be
    /// SIGBUS).
    ///
    /// # Errors
    /// Options out of bounds, or the kernel has no memfd or no memory.
    pub fn create(options: &RingOptions) -> Result<ShmRegion, ShmError> {
        ShmRegion::create_waking(options, false)
    }

    /// As [`ShmRegion::create`], but its ports sleep on a futex until a frame comes ("shm-futex"). Beside the spinning
    /// port it shows what a wake-up alone costs: nothing else differs but a memory fence per flush.
    ///
    /// # Errors
    /// As [`ShmRegion::create`].
    pub fn create_sleeping(options: &RingOptions) -> Result<ShmRegion, ShmError> {
        ShmRegion::create_waking(options, true)
    }

    fn create_waking(options: &RingOptions, sleeps: bool) -> Result<ShmRegion, ShmError> {
        let fail = |operation, error, mend| ShmError {
            operation,
            path: "a new memfd".into(),
            error,
            mend,
        };
        let geometry = options.geometry().map_err(|why| {
            let error = io::Error::new(io::ErrorKind::InvalidInput, why);
            fail("checking the ring's size", error, "choose a size within the bounds")
        })?;
        let geometry = if sleeps { geometry.sleeping() } else { geometry };
        let name = CString::new("dplab-ring").expect("no zero byte");
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(name.as_c_str(), flags)
            .map_err(|e| fail("memfd_create", e.into(), "a kernel since 3.17 has it"))?;
        let out_of_memory = "choose fewer or smaller slots, or raise the memory limit of this control group";
        ftruncate(&file, Region::file_bytes(geometry) as i64)
            .map_err(|e| fail("sizing the memory", e.into(), out_of_memory))?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))
            .map_err(|e| fail("sealing the memory's size", e.into(), "a kernel since 3.17 has it"))?;
        let region =
            Region::shared_create(&file, geometry).map_err(|e| fail("mapping the memory", e, out_of_memory))?;
        Ok(ShmRegion {
            file,
            region: Arc::new(region),
            batch_frames_max: options.batch_frames_max,
        })
    }

    /// Where a process of the same user finds this region, while process `pid` (this one, usually) keeps it open.
    pub fn path_for(&self, pid: u32) -> PathBuf {
        format!("/proc/{pid}/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Maps a region that another process created, found by [`ShmRegion::path_for`].
    ///
    /// # Errors
    /// The file cannot be opened, can still shrink, or its header is not one of ours: the error names the field.
    pub fn open(path: &Path) -> Result<ShmRegion, ShmError> {
        let fail = |operation, error, mend| ShmError {
            operation,
            path: path.display().to_string(),
            error,
            mend,
        };
        let file: File = OpenOptions::new().read(true).write(true).open(path).map_err(|e| {
            let mend = "the creator must still run, as the same user (reading /proc/PID/fd needs PTRACE_MODE_READ)";
            fail("opening", e, mend)
        })?;
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS)
            .map_err(|e| fail("reading the seals", e.into(), "name a memfd made by ShmRegion::create"))?;
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
            let error = io::Error::new(io::ErrorKind::InvalidData, "the file is not sealed against shrinking");
            let mend = "name a memfd made by ShmRegion::create; this one could be cut under us (SIGBUS)";
            return Err(fail("checking the seals", error, mend));
        }
        let len_bytes = file
            .metadata()
            .map_err(|e| fail("asking the size", e, "try again"))?
            .len();
        let region = Region::shared_open(&file, len_bytes as usize).map_err(|e| {
            let mend = "both processes must be of the same version of this program";
            fail("reading the header", e, mend)
        })?;
        let batch_frames_max = RingOptions::default()
            .batch_frames_max
            .min(region.geometry().slots_count());
        Ok(ShmRegion {
            file: file.into(),
            region: Arc::new(region),
            batch_frames_max,
        })
    }
}

/// One side of a shared region. The other side is [`Peer`]`(0)`.
#[derive(Debug)]
pub struct ShmPort {
    ring: RingPort,
}

impl ShmPort {
    /// Takes `side` of `region`, going on where an earlier owner of the side stopped.
    ///
    /// Only one port may hold a side at a time. Two of them lose and garble each other's frames, and soon one finds
    /// an index that makes no sense and says so.
    ///
    /// # Errors
    /// The region's indices make no sense.
    pub fn connect(region: &ShmRegion, side: Side) -> Result<ShmPort, ShmError> {
        let way = match side {
            Side::A => Way::AToB,
            Side::B => Way::BToA,
        };
        let ring = RingEnd::new(Arc::clone(&region.region), way).map_err(|corrupt| ShmError {
            operation: "connecting a side",
            path: format!("/proc/self/fd/{}", region.file.as_raw_fd()),
            error: corrupt.into(),
            mend: "create a new region",
        })?;
        let geometry = region.region.geometry();
        Ok(ShmPort {
            ring: RingPort::new(
                if geometry.sleeps() { "shm-futex" } else { "shm" },
                ring,
                geometry,
                region.batch_frames_max,
            ),
        })
    }
}

impl Port for ShmPort {
    fn caps(&self) -> PortCaps {
        self.ring.caps
    }
    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.ring.wait(max);
        Ok(())
    }
    fn rx_burst(&mut self, sink: &mut dyn FnMut(RxFrame<'_>)) -> io::Result<usize> {
        self.ring.rx_burst(sink)
    }
    fn tx(&mut self, to: Peer, len_bytes: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), TxError> {
        self.ring.tx(to, len_bytes, fill)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.ring.flush()
    }
    fn stats(&self) -> PortStats {
        self.ring.stats
    }
}

/// Makes and drops a small region.
///
/// # Errors
/// The kernel refused for a reason other than having no memfd.
pub fn probe() -> Result<Support, ProbeError> {
    let small = RingOptions {
        slots_count: 2,
        frame_bytes_max: 64,
        batch_frames_max: 1,
    };
    match ShmRegion::create(&small) {
        Ok(_) => Ok(Support::Native),
        Err(e) if e.error.raw_os_error() == Some(Errno::ENOSYS as i32) => Ok(Support::Absent {
            why: format!("the kernel has no memfd; {}", e.mend),
        }),
        Err(e) => Err(ProbeError {
            asked: format!("{} for a shared ring", e.operation),
            error: e.error,
            mend: e.mend.into(),
        }),
    }
}
