//! One program in the kernel: loaded, so verified; run on single packets; asked what it counted.

use std::{
    fmt, io,
    num::NonZeroU32,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, MapError, PerCpuArray, XskMap},
    programs::{ProgramError, Xdp},
};
use dataplane_wire::ethernet::Mac;
use ebpf_abi::{Count, Lossy, Program, map, setting};
use nix::errno::Errno;

use crate::{
    Counts, HostError, Settings,
    error::{errno, io_error},
    objects::object,
};

/// The shortest frame that the kernel runs a program on: an Ethernet header (bpf_test_init, net/bpf/test_run.c).
pub const FRAME_BYTES_MIN: usize = 14;

/// What the verifier says of an atomic operation that it does not know (check_atomic came with Linux 5.12, kernel/bpf/verifier.c).
const ATOMICS_UNKNOWN: &str = "BPF_STX uses reserved fields";
/// How much of the end of a verifier's log is kept: the last lines say what was refused.
const LOG_TAIL_LINES: usize = 20;

/// A program that the verifier has accepted. Dropping it frees it with its maps.
#[derive(Debug)]
pub struct Loaded {
    pub(crate) ebpf: Ebpf,
    program: Program,
    function: &'static str,
    frags: bool,
}

/// What a program says shall become of a frame (include/uapi/linux/bpf.h, enum xdp_action).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// An error in the program: dropped, and the xdp_exception tracepoint fires.
    Aborted,
    /// Dropped.
    Drop,
    /// Goes up the stack.
    Pass,
    /// Goes out of the interface by which it came.
    Tx,
    /// Goes where the program said: for `steer`, to an AF_XDP socket.
    Redirect,
    /// A number that is no verdict; the kernel drops such a frame.
    Other(u32),
}

impl Verdict {
    /// What the number that a program returned means.
    pub const fn new(action: u32) -> Verdict {
        match action {
            0 => Verdict::Aborted,
            1 => Verdict::Drop,
            2 => Verdict::Pass,
            3 => Verdict::Tx,
            4 => Verdict::Redirect,
            other => Verdict::Other(other),
        }
    }
}

/// What a program made of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What shall become of it.
    pub verdict: Verdict,
    /// The frame as the program left it.
    pub data: Vec<u8>,
}

impl TestRun {
    pub(crate) fn new(result: &aya::TestRunResult, mut data: Vec<u8>) -> TestRun {
        data.truncate(result.data_size_out as usize);
        TestRun {
            verdict: Verdict::new(result.return_value),
            data,
        }
    }
}

/// What a loaded program costs before any frame comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Instructions that the verifier walked, over all paths and rounds of loops (since Linux 5.16). It gives up at a million
    /// (BPF_COMPLEXITY_LIMIT_INSNS, include/linux/bpf.h).
    pub verified_instructions_count: Option<u32>,
    /// Instructions of the program as the kernel keeps it; 0 where it does not say.
    pub translated_instructions_count: u32,
    /// What the compiler in the kernel made of them; 0 without one.
    pub machine_code_bytes: u32,
    /// Memory of maps that are still in the object, as the kernel charges it.
    pub map_bytes: u64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verified = self.verified_instructions_count.unwrap_or_default();
        write!(
            f,
            "{} instructions, {verified} walked by the verifier, {} bytes of machine code, {} bytes of maps",
            self.translated_instructions_count, self.machine_code_bytes, self.map_bytes
        )
    }
}

/// Of BPF (struct bpf_insn, include/uapi/linux/bpf.h).
const INSTRUCTION_BYTES: u32 = 8;

/// What a map is charged with: `memlock` of its file (bpf_map_show_fdinfo, kernel/bpf/syscall.c).
fn map_memory_bytes(map: &aya::maps::Map) -> io::Result<u64> {
    let fd = match map {
        aya::maps::Map::Array(data) | aya::maps::Map::PerCpuArray(data) | aya::maps::Map::XskMap(data) => data.fd(),
        _ => return Ok(0),
    };
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
    let memory = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(memory.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_default())
}

/// Up to this MTU every driver gives a program its frames in one buffer: a page less the headroom and the tail that XDP wants
/// (XDP_PACKET_HEADROOM 256, struct skb_shared_info 320), rounded down to be safe for headers and tags.
pub const MTU_BYTES_OF_ONE_BUFFER: u32 = 3_400;

/// By how much a program may lengthen a frame: an acknowledgement that becomes the longest entry.
const GROWTH_BYTES_MAX: usize = ebpf_abi::quorum::ENTRY_BYTES_MAX;

impl Loaded {
    /// Tells `program` its settings and loads the one function of it that they ask for: what accepts several buffers is
    /// unknown to kernels before 5.18, and they never see it unless it is asked for.
    ///
    /// # Errors
    /// No BPF, not allowed, refused by the verifier, an object that does not fit.
    pub fn load(program: Program, settings: &Settings) -> Result<Loaded, HostError> {
        Loaded::load_object(program, settings, object(program))
    }

    /// As [`Loaded::load`], of the function that an interface of this MTU takes. A kernel before 5.18 has the one for one buffer
    /// only: in generic mode it is given every frame in one piece all the same (netif_receive_generic_xdp, net/core/dev.c); in
    /// native mode [`Loaded::attach`] refuses it where the MTU is too large.
    ///
    /// # Errors
    /// As [`Loaded::load`].
    pub fn load_at_mtu(program: Program, settings: &Settings, mtu_bytes: u32) -> Result<Loaded, HostError> {
        let settings = Settings {
            frags: mtu_bytes > MTU_BYTES_OF_ONE_BUFFER,
            ..*settings
        };
        match Loaded::load(program, &settings) {
            Err(HostError::OldKernel { .. }) if settings.frags => Loaded::load(
                program,
                &Settings {
                    frags: false,
                    ..settings
                },
            ),
            answer => answer,
        }
    }

    fn load_object(program: Program, settings: &Settings, object: &[u8]) -> Result<Loaded, HostError> {
        let function = match settings.frags {
            true => program.name_frags(),
            false => program.name(),
        };
        let mac = eight(settings.local_mac);
        let ipv4 = settings.local_ipv4.map_or([0; 4], |address| address.octets());
        let ipv6 = settings.local_ipv6.map_or([0; 16], |address| address.octets());
        let (group_mac, group_ipv4) = settings
            .group
            .map_or(([0; 8], [0; 4]), |(mac, address)| (eight(mac), address.octets()));
        let mut loader = EbpfLoader::new();
        if program == Program::Lossy {
            loader
                .override_global(setting::LOSS_THRESHOLD, &settings.loss_threshold, true)
                .override_global(setting::LOSS_SEED, &settings.loss_seed, true);
        } else if program == Program::Hub {
            loader.override_global(setting::GROUP_MAC, &group_mac, true);
        } else if !matches!(program, Program::Pass | Program::TakeAll) {
            loader
                .override_global(setting::LOCAL_MAC, &mac, true)
                .override_global(setting::LOCAL_IPV4, &ipv4, true)
                .override_global(setting::LOCAL_IPV6, &ipv6, true)
                .override_global(setting::LOCAL_PORT, &settings.local_port, true)
                .override_global(setting::GROUP_MAC, &group_mac, true)
                .override_global(setting::GROUP_IPV4, &group_ipv4, true)
                // Of what `steer_port` takes there are no kinds.
                .override_global(setting::KINDS, &settings.kinds, program != Program::SteerPort);
        }
        if program == Program::QuorumLeader {
            loader.override_global(setting::SESSION_COUNT, &settings.session_count, true);
        }
        if program == Program::Stamp {
            loader.override_global(setting::STAMP_INDEX, &settings.stamp_index, true);
        }
        let ebpf = loader.load(object).map_err(|error| opening(program, &error))?;
        let mut loaded = Loaded {
            ebpf,
            program,
            function,
            frags: settings.frags,
        };
        loaded
            .xdp_mut()?
            .load()
            .map_err(|error| verifying(function, settings.frags, error))?;
        Ok(loaded)
    }

    /// Which program this is.
    pub const fn program(&self) -> Program {
        self.program
    }

    /// Whether it accepts frames of several buffers.
    pub const fn frags(&self) -> bool {
        self.frags
    }

    /// The kernel's number for it, as `bpftool prog` and `ip link` show it.
    ///
    /// # Errors
    /// The kernel would not say.
    pub fn program_id(&self) -> Result<u32, HostError> {
        let info = self.xdp()?.info();
        info.map(|info| info.id())
            .map_err(|error| HostError::kernel(format!("asking for the id of {}", self.function), io_error(&error)))
    }

    /// What the program costs before any frame comes.
    ///
    /// # Errors
    /// The kernel would not say.
    pub fn cost(&self) -> Result<Cost, HostError> {
        let asking = |error: &(dyn std::error::Error + 'static)| {
            HostError::kernel(format!("asking what {} costs", self.function), io_error(error))
        };
        let info = self.xdp()?.info().map_err(|error| asking(&error))?;
        let mut map_bytes = 0;
        for (_, map) in self.ebpf.maps() {
            map_bytes += map_memory_bytes(map).map_err(|error| asking(&error))?;
        }
        Ok(Cost {
            verified_instructions_count: info.verified_instruction_count(),
            translated_instructions_count: info.size_translated().unwrap_or_default() / INSTRUCTION_BYTES,
            machine_code_bytes: info.size_jitted(),
            map_bytes,
        })
    }

    /// Runs the program once on a copy of `frame`, as if it had come in by queue 0 of `lo`. Needs no interface.
    ///
    /// # Errors
    /// [`HostError::FrameLength`] below [`FRAME_BYTES_MIN`] and above what the kernel gives a test run: one buffer of about
    /// 3,500 bytes before Linux 5.18, eighteen since, also to a program for one buffer, which then sees the first. What the
    /// kernel says otherwise.
    pub fn test_run(&self, frame: &[u8]) -> Result<TestRun, HostError> {
        let mut data = vec![0; frame.len() + GROWTH_BYTES_MAX];
        let result = self.run(frame, &mut data, NonZeroU32::MIN)?;
        Ok(TestRun::new(&result, data))
    }

    /// Runs the program `repeat` times on **the same copy** of `frame` and says how long one run took on average, in
    /// nanoseconds, as the kernel measured it. A program that alters the frame sees its own alterations from the second
    /// run on: `echo` finds its own reply, for example, and passes it.
    ///
    /// # Errors
    /// As [`Loaded::test_run`].
    pub fn run_cost_ns(&self, frame: &[u8], repeat: NonZeroU32) -> Result<u64, HostError> {
        let mut data = vec![0; frame.len()];
        let result = self.run(frame, &mut data, repeat)?;
        Ok(u64::try_from(result.duration.as_nanos()).unwrap_or(u64::MAX))
    }

    fn run(&self, frame: &[u8], data: &mut [u8], repeat: NonZeroU32) -> Result<aya::TestRunResult, HostError> {
        run_on(self.xdp()?, self.function, frame, data, repeat)
    }

    /// What the program counted since it was loaded, summed over CPUs.
    ///
    /// # Errors
    /// [`HostError::CountsNothing`] for `pass` and `lossy`.
    pub fn counts(&self) -> Result<Counts, HostError> {
        if matches!(self.program, Program::Pass | Program::Lossy) {
            return Err(HostError::CountsNothing { program: self.program });
        }
        let map = self.ebpf.map(map::COUNTS).ok_or_else(|| HostError::Object {
            program: self.program,
            why: format!("it has no map {}", map::COUNTS),
        })?;
        let per_cpu = PerCpuArray::<_, u64>::try_from(map).map_err(|error| self.unfit(&error))?;
        let mut counts = Counts::default();
        for count in Count::ALL {
            let values = per_cpu.get(&(count as u32), 0).map_err(|error| match error {
                MapError::OutOfBounds { .. } => self.unfit(&error),
                error => HostError::kernel(format!("reading the counters of {}", self.function), io_error(&error)),
            })?;
            counts.set(count, values.iter().sum());
        }
        Ok(counts)
    }

    /// What `lossy` counted since it was loaded.
    ///
    /// # Errors
    /// [`HostError::CountsNothing`] for any other program; what the kernel says.
    pub fn lost(&self, what: Lossy) -> Result<u64, HostError> {
        let program = self.program;
        let map = self.ebpf.map(map::LOST).ok_or(HostError::CountsNothing { program })?;
        let counts = Array::<_, u64>::try_from(map).map_err(|error| self.unfit(&error))?;
        counts
            .get(&(what as u32), 0)
            .map_err(|error| HostError::kernel("reading the counters of lossy".into(), io_error(&error)))
    }

    /// Hands the frames of receive queue `queue` to an AF_XDP socket from now on. The kernel keeps the socket alive only as
    /// long as somebody holds its file.
    ///
    /// # Errors
    /// [`HostError::TakesNoSocket`] for any program but `steer`, `steer_port` and `take_all`; [`HostError::Queue`]; what the kernel says about the
    /// socket: EOPNOTSUPP if it is none of AF_XDP.
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), HostError> {
        let set = self.sockets(queue)?.set(queue, socket.as_raw_fd(), 0);
        set.map_err(|error| {
            HostError::kernel(
                format!("giving {} the socket of receive queue {queue}", self.program.name()),
                io_error(&error),
            )
        })
    }

    /// Passes the frames of receive queue `queue` up the stack again. No error if there was no socket.
    ///
    /// # Errors
    /// As [`Loaded::set_socket`].
    pub fn clear_socket(&mut self, queue: u32) -> Result<(), HostError> {
        let cleared = self.sockets(queue)?.unset(queue);
        let Err(error) = cleared.map_err(|error| io_error(&error)) else {
            return Ok(());
        };
        match errno(&error) {
            Some(Errno::ENOENT) => Ok(()),
            _ => Err(HostError::kernel(
                format!(
                    "taking the socket of receive queue {queue} from {}",
                    self.program.name()
                ),
                error,
            )),
        }
    }

    fn sockets(&mut self, queue: u32) -> Result<XskMap<&mut aya::maps::MapData>, HostError> {
        let program = self.program;
        let map = self
            .ebpf
            .map_mut(map::SOCKETS)
            .ok_or(HostError::TakesNoSocket { program })?;
        if queue >= map::SOCKETS_MAX {
            return Err(HostError::Queue { queue });
        }
        XskMap::try_from(map).map_err(|error| HostError::Object {
            program,
            why: error.to_string(),
        })
    }

    /// Takes a map out of the object, to be kept apart from it.
    pub(crate) fn take_map(&mut self, name: &'static str) -> Result<aya::maps::Map, HostError> {
        let program = self.program;
        self.ebpf.take_map(name).ok_or_else(|| HostError::Object {
            program,
            why: format!("it has no map {name}, or not any more"),
        })
    }

    fn xdp(&self) -> Result<&Xdp, HostError> {
        let found = self.ebpf.program(self.function);
        found
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| self.no_function())
    }

    pub(crate) fn xdp_mut(&mut self) -> Result<&mut Xdp, HostError> {
        let missing = self.no_function();
        let found = self.ebpf.program_mut(self.function);
        found.and_then(|program| program.try_into().ok()).ok_or(missing)
    }

    fn no_function(&self) -> HostError {
        HostError::Object {
            program: self.program,
            why: format!("it has no XDP function {}", self.function),
        }
    }

    fn unfit(&self, error: &MapError) -> HostError {
        HostError::Object {
            program: self.program,
            why: format!("its map of counters: {error}"),
        }
    }
}

/// As programs compare it: in one word.
fn eight(Mac([a, b, c, d, e, f]): Mac) -> [u8; 8] {
    [a, b, c, d, e, f, 0, 0]
}

/// Runs `function`, which is `xdp`, `repeat` times on a copy of `frame`, and writes what it left of it to `data`.
pub(crate) fn run_on(
    xdp: &Xdp,
    function: &str,
    frame: &[u8],
    data: &mut [u8],
    repeat: NonZeroU32,
) -> Result<aya::TestRunResult, HostError> {
    if frame.len() < FRAME_BYTES_MIN {
        // Newer kernels take this as an answer too, older ones read on: asked of none.
        return Err(HostError::FrameLength {
            frame_bytes: frame.len(),
        });
    }
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(data),
        repeat: repeat.get(),
        ..TestRunOptions::new()
    };
    xdp.test_run(options).map_err(|error| {
        let error = io_error(&error);
        match errno(&error) {
            Some(Errno::EINVAL | Errno::ENOMEM | Errno::E2BIG) => HostError::FrameLength {
                frame_bytes: frame.len(),
            },
            _ => HostError::kernel(format!("running {function} on a frame"), error),
        }
    })
}

/// What stopped us before the verifier: maps are made here.
fn opening(program: Program, error: &EbpfError) -> HostError {
    let io = io_error(error);
    match errno(&io) {
        Some(_) => HostError::kernel(format!("making the maps of {}", program.name()), io),
        None => HostError::Object {
            program,
            why: io.to_string(),
        },
    }
}

/// What BPF_PROG_LOAD said.
fn verifying(function: &'static str, frags: bool, error: ProgramError) -> HostError {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return HostError::kernel(format!("loading {function}"), io_error(&error));
    };
    refusal(function, frags, io_error, &verifier_log.to_string())
}

pub(crate) fn refusal(function: &'static str, frags: bool, io_error: io::Error, log: &str) -> HostError {
    let log_is_empty = log.trim().is_empty();
    match errno(&io_error) {
        // An unknown flag is refused before the verifier writes a word.
        Some(Errno::EINVAL) if frags && log_is_empty => HostError::OldKernel {
            what: "programs for frames of several buffers (xdp.frags)",
            since: "5.18",
            here: kernel_release(),
        },
        // Kernels before 5.12 know one atomic operation, an addition whose result nobody sees.
        Some(Errno::EINVAL) if log.contains(ATOMICS_UNKNOWN) => HostError::OldKernel {
            what: "programs with atomic operations that answer",
            since: "5.12",
            here: kernel_release(),
        },
        _ if log_is_empty => HostError::kernel(format!("loading {function}"), io_error),
        _ => HostError::Refused {
            function,
            error: io_error,
            log_tail: tail(log),
        },
    }
}

pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

pub(crate) fn kernel_release() -> String {
    match nix::sys::utsname::uname() {
        Ok(name) => name.release().to_string_lossy().into_owned(),
        Err(errno) => io::Error::from(errno).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_end_of_the_log() {
        let log: String = (0..100).map(|line| format!("line {line}\n\n")).collect();
        let text = refusal("echo", false, Errno::EACCES.into(), &log).to_string();
        assert!(
            text.contains("loading echo") && text.ends_with("line 98\nline 99"),
            "{text}"
        );
        assert!(!text.contains("line 79\n"), "{text}");
    }

    #[test]
    fn a_refusal_without_a_log_is_not_the_verifiers() {
        let error = refusal("echo", false, Errno::EPERM.into(), "");
        assert!(matches!(error, HostError::NotAllowed { .. }), "{error}");
        let error = refusal("echo_frags", true, Errno::EINVAL.into(), "\n");
        assert!(matches!(error, HostError::OldKernel { .. }), "{error}");
        let error = refusal(
            "quorum_leader",
            false,
            Errno::EINVAL.into(),
            "BPF_STX uses reserved fields\n",
        );
        assert!(error.to_string().contains("need Linux 5.12"), "{error}");
        let error = refusal("echo", false, Errno::ENOSYS.into(), "");
        assert!(matches!(error, HostError::NoBpf { .. }), "{error}");
    }

    /// `r0 = 2; exit`: all there is to `pass`.
    const PASS: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    /// `r0 = *(u64 *)(r2 + 0); exit`, where nobody has written r2.
    const READS_GARBAGE: [u8; 16] = [0x79, 0x20, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn the_verifiers_own_words_are_in_the_error() {
        let settings = Settings::default();
        if let Err(error @ (HostError::NotAllowed { .. } | HostError::NoBpf { .. })) =
            Loaded::load(Program::Pass, &settings)
        {
            println!("not run: {error}");
            return;
        }
        let mut bytes = object(Program::Pass).to_vec();
        let at = bytes.windows(PASS.len()).position(|window| window == PASS);
        let at = at.expect("pass does nothing else");
        bytes[at..at + PASS.len()].copy_from_slice(&READS_GARBAGE);
        let error = Loaded::load_object(Program::Pass, &settings, &bytes).expect_err("no verifier believes that");
        let HostError::Refused { log_tail, .. } = &error else {
            panic!("{error}");
        };
        assert!(log_tail.contains("R2 !read_ok"), "{error}");
    }

    #[test]
    fn an_object_of_another_build_is_told_from_a_refused_one() {
        let whole = object(Program::Pass);
        for bytes in [&[][..], &whole[..64], b"version https://git-lfs.github.com/spec/v1\n"] {
            let error = Loaded::load_object(Program::Pass, &Settings::default(), bytes).expect_err("no object");
            assert!(matches!(error, HostError::Object { .. }), "{error}");
        }
        // `pass` knows no stamps.
        let error = Loaded::load_object(Program::Stamp, &Settings::default(), whole).expect_err("another object");
        assert!(error.to_string().contains("scripts/build-ebpf"), "{error}");
    }

    #[test]
    fn a_program_may_be_handed_to_another_thread() {
        fn is_send<T: Send>() {}
        is_send::<Loaded>();
        is_send::<crate::Attachment>();
    }
}
