//! `mark_ecn` on a port of a switch: loaded, attached on the way out, asked what it marked ([`ebpf_abi::mark`]).

use std::{io, num::NonZeroU32};

use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, PerCpuArray},
    programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc::TcAttachOptions},
    util::KernelVersion,
};
use dataplane_waist::{ProbeError, Support};
use ebpf_abi::mark::{self, Count, Offset, map, setting};

use crate::{
    HostError,
    btf::Btf,
    error::io_error,
    load::{kernel_release, refusal},
    objects::MARK_ECN,
};

/// A [`mark::Burst`], word by word.
type BurstWords = [u64; 3];
const _: () = assert!(size_of::<mark::Burst>() == size_of::<BurstWords>());

/// When to mark. A bound that is not wanted is `u64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkOptions {
    /// What finds more frames waiting is marked.
    pub above_frames: u64,
    /// What finds more bytes waiting is marked.
    pub above_bytes: u64,
    /// What finds as many frames waiting will be dropped, and is not marked.
    pub limit_frames: u64,
    /// What would make the queue longer than so many bytes will be dropped, and is not marked.
    pub limit_bytes: u64,
    /// In windows of so long arriving bytes are summed up.
    pub window_ns: u64,
}

impl Default for MarkOptions {
    fn default() -> MarkOptions {
        MarkOptions {
            above_frames: u64::MAX,
            above_bytes: u64::MAX,
            limit_frames: u64::MAX,
            limit_bytes: u64::MAX,
            window_ns: 1_000_000,
        }
    }
}

/// What the program counted. Every frame that left, or tried to, is in exactly one of the first five.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarkCounts {
    /// Little enough waited.
    pub below_count: u64,
    /// Marked.
    pub marked_count: u64,
    /// Too much waited, and its sender knows no marks.
    pub not_capable_count: u64,
    /// The queue had no room.
    pub full_count: u64,
    /// What waits could not be read.
    pub unread_count: u64,
    /// Bytes that came in the fullest window, with what Ethernet adds.
    pub burst_bytes_max: u64,
}

impl MarkCounts {
    /// Frames that it saw.
    pub fn seen_count(&self) -> u64 {
        self.below_count + self.marked_count + self.not_capable_count + self.full_count + self.unread_count
    }
}

/// The program, accepted by the verifier; on an interface after [`EcnMarker::attach`], until this is dropped or the process ends.
#[derive(Debug)]
pub struct EcnMarker {
    ebpf: Ebpf,
}

impl EcnMarker {
    /// Loads it for the kernel that runs here.
    ///
    /// # Errors
    /// No BPF, not allowed, a kernel that does not describe itself, refused by the verifier.
    pub fn load(options: &MarkOptions) -> Result<EcnMarker, HostError> {
        EcnMarker::load_with(options, offsets()?)
    }

    /// As [`EcnMarker::load`], but it takes the flags of the port's queue, which are never zero, for its length: a test run has no port
    /// at which anything waits, and shows so what is marked all the same.
    ///
    /// # Errors
    /// As there.
    #[doc(hidden)]
    pub fn load_where_something_waits(options: &MarkOptions) -> Result<EcnMarker, HostError> {
        let mut offsets = offsets()?;
        let btf = Btf::of_this_kernel().map_err(|error| HostError::NoTypes { error })?;
        let flags = btf.offset_bytes("Qdisc", &["flags"]);
        offsets[Offset::QdiscLength as usize] = flags.map_err(|error| HostError::NoTypes { error })?;
        EcnMarker::load_with(options, offsets)
    }

    fn load_with(options: &MarkOptions, offsets: [u32; Offset::COUNT]) -> Result<EcnMarker, HostError> {
        let mut loader = EbpfLoader::new();
        loader
            .override_global(setting::ABOVE_FRAMES, &options.above_frames, true)
            .override_global(setting::ABOVE_BYTES, &options.above_bytes, true)
            .override_global(setting::LIMIT_FRAMES, &options.limit_frames, true)
            .override_global(setting::LIMIT_BYTES, &options.limit_bytes, true)
            .override_global(setting::WINDOW_NS, &options.window_ns, true)
            .override_global(setting::OFFSETS, &offsets, true);
        let ebpf = loader
            .load(MARK_ECN)
            .map_err(|error| HostError::kernel(format!("making the maps of {}", mark::NAME), io_error(&error)))?;
        let mut marker = EcnMarker { ebpf };
        marker.program_mut()?.load().map_err(|error| match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                refusal(mark::NAME, false, io_error, &verifier_log.to_string())
            }
            error => HostError::kernel(format!("loading {}", mark::NAME), io_error(&error)),
        })?;
        Ok(marker)
    }

    /// Attaches it to `interface` of the network namespace in which the calling thread stands: it sees what leaves there, before it is
    /// queued.
    ///
    /// # Errors
    /// Linux before 6.6, whose classifiers outlive the process that attached them; no such interface; what the kernel says.
    pub fn attach(&mut self, interface: &str) -> Result<(), HostError> {
        if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(6, 6, 0)) {
            return Err(HostError::OldKernel {
                what: "BPF links of classifiers (tcx)",
                since: "6.6",
                here: kernel_release(),
            });
        }
        if nix::net::if_::if_nametoindex(interface).is_err() {
            return Err(HostError::NoInterface {
                interface: interface.to_owned(),
            });
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let attached = self
            .program_mut()?
            .attach_with_options(interface, TcAttachType::Egress, options);
        attached.map(drop).map_err(|error| {
            HostError::kernel(
                format!("attaching {} to the way out of {interface}", mark::NAME),
                io_error(&error),
            )
        })
    }

    /// What it counted since it was loaded; of bursts, since they were forgotten.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counts(&self) -> Result<MarkCounts, HostError> {
        let asking = |error: &aya::maps::MapError| {
            HostError::kernel("reading what mark_ecn counted".to_owned(), io_error(error))
        };
        let map = self.ebpf.map(map::MARK_COUNTS).ok_or_else(no_map)?;
        let per_cpu = PerCpuArray::<_, u64>::try_from(map).map_err(|error| asking(&error))?;
        let sum = |what: Count| -> Result<u64, HostError> {
            let values = per_cpu.get(&(what as u32), 0).map_err(|error| asking(&error))?;
            Ok(values.iter().sum())
        };
        let map = self.ebpf.map(map::BURST).ok_or_else(no_map)?;
        let burst = Array::<_, BurstWords>::try_from(map).map_err(|error| asking(&error))?;
        let [_began_ns, _bytes, burst_bytes_max] = burst.get(&0, 0).map_err(|error| asking(&error))?;
        Ok(MarkCounts {
            below_count: sum(Count::Below)?,
            marked_count: sum(Count::Marked)?,
            not_capable_count: sum(Count::NotCapable)?,
            full_count: sum(Count::Full)?,
            unread_count: sum(Count::Unread)?,
            burst_bytes_max,
        })
    }

    /// The fullest window is the fullest from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget_burst(&mut self) -> Result<(), HostError> {
        let asking = |error: &aya::maps::MapError| HostError::kernel("writing to mark_ecn".to_owned(), io_error(error));
        let map = self.ebpf.map_mut(map::BURST).ok_or_else(no_map)?;
        let mut burst = Array::<_, BurstWords>::try_from(map).map_err(|error| asking(&error))?;
        burst.set(0, [0; 3], 0).map_err(|error| asking(&error))
    }

    /// Runs it once on a copy of `frame`, as if that were about to leave by `lo`, where nothing waits. The frame as it left it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn test_run(&self, frame: &[u8]) -> Result<Vec<u8>, HostError> {
        let mut data = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut data),
            repeat: NonZeroU32::MIN.get(),
            ..TestRunOptions::new()
        };
        let program: &SchedClassifier = self
            .ebpf
            .program(mark::NAME)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(no_map)?;
        let result = program
            .test_run(options)
            .map_err(|error| HostError::kernel(format!("running {} on a frame", mark::NAME), io_error(&error)))?;
        data.truncate(result.data_size_out as usize);
        Ok(data)
    }

    fn program_mut(&mut self) -> Result<&mut SchedClassifier, HostError> {
        let found = self.ebpf.program_mut(mark::NAME);
        found.and_then(|program| program.try_into().ok()).ok_or_else(no_map)
    }
}

/// Can ports mark here? Asked by loading the program; nothing is attached.
///
/// # Errors
/// Whatever is neither yes nor no: a missing privilege, an unexpected errno.
pub fn probe_mark() -> Result<Support, ProbeError> {
    if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(6, 6, 0)) {
        let why = format!(
            "marks need BPF links of classifiers (tcx, Linux 6.6), and this kernel is {}",
            kernel_release()
        );
        return Ok(Support::Absent { why });
    }
    crate::probe::sort(EcnMarker::load(&MarkOptions::default()).map(drop))
}

fn offsets() -> Result<[u32; Offset::COUNT], HostError> {
    let unknown = |error: io::Error| HostError::NoTypes { error };
    let btf = Btf::of_this_kernel().map_err(unknown)?;
    let mut offsets = [0; Offset::COUNT];
    for (offset, structure, path) in [
        (Offset::SkbDev, "sk_buff", &["dev"][..]),
        (Offset::DeviceTx, "net_device", &["_tx"]),
        (Offset::QueueQdisc, "netdev_queue", &["qdisc"]),
        (Offset::QdiscBacklog, "Qdisc", &["qstats", "backlog"]),
        (Offset::QdiscLength, "Qdisc", &["q", "qlen"]),
    ] {
        offsets[offset as usize] = btf.offset_bytes(structure, path).map_err(unknown)?;
    }
    Ok(offsets)
}

fn no_map() -> HostError {
    HostError::kernel(
        format!(
            "reading the object of {}: it does not fit this build (scripts/build-ebpf)",
            mark::NAME
        ),
        io::ErrorKind::InvalidData.into(),
    )
}
