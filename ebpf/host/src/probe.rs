//! Is there XDP here, for this program? Asked by loading it, and by attaching it where an interface is named.

use std::io;

use dataplane_waist::{ProbeError, Support};
use nix::net::if_::if_nametoindex;

use crate::{HostError, Loaded, Mode, Program, Settings, attach::mtu_bytes, offload};

/// Loads `program` and, where `interface` is given, attaches it in `mode` for a moment; told of no address, it takes no frame
/// meanwhile. It is the function for several buffers where the interface's MTU takes that. Without an interface the answer is
/// about the kernel alone; `mode` does not matter then. Some physical interfaces reset their link when a native program comes
/// or goes: name one only where it may.
///
/// A verifier that refuses the program is a no: an older kernel may run one of these programs and not another.
///
/// # Errors
/// Whatever is neither yes nor no: a missing privilege, another program in the place, an unexpected errno.
pub fn probe(program: Program, interface: Option<&str>, mode: Mode) -> Result<Support, ProbeError> {
    let mtu_bytes = interface.and_then(mtu_bytes).unwrap_or_default();
    let settings = Settings::default();
    let attempt = |loaded: Loaded| match interface {
        Some(interface) => loaded.attach(interface, mode).map(drop),
        None => Ok(()),
    };
    match Loaded::load_at_mtu(program, &settings, mtu_bytes).and_then(attempt) {
        // The MTU is no question of whether there is XDP, if the kernel knows frames of several buffers; without IPv6 it was
        // not known.
        Err(HostError::MtuTooLarge { .. }) => {
            let settings = Settings {
                frags: true,
                ..settings
            };
            sort(Loaded::load(program, &settings).and_then(attempt))
        }
        answer => sort(answer),
    }
}

/// Does the kernel run programs, and none on a frame of several buffers (before Linux 5.18)? Then native mode needs an MTU of
/// [`MTU_BYTES_OF_ONE_BUFFER`](crate::MTU_BYTES_OF_ONE_BUFFER) at most. Not so where it cannot be asked.
pub fn takes_one_buffer_only() -> bool {
    let with = |frags| {
        let settings = Settings {
            frags,
            ..Settings::default()
        };
        Loaded::load(Program::Pass, &settings)
    };
    matches!(with(true), Err(HostError::OldKernel { .. })) && with(false).is_ok()
}

/// Would the driver of `interface` translate a program for its device (hardware offload)? Asked by loading the smallest program
/// for it; nothing is attached. Of the programs of this crate `pass` alone could be attached so ([`Mode::Offload`]): the maps of
/// the others are more than such devices have.
///
/// # Errors
/// As [`probe`].
pub fn probe_offload(interface: &str) -> Result<Support, ProbeError> {
    let Ok(index) = if_nametoindex(interface) else {
        return sort(Err(HostError::NoInterface {
            interface: interface.to_owned(),
        }));
    };
    // That there is BPF at all, and that we may use it, is another question; EINVAL then is about the device.
    sort(Loaded::load(Program::Pass, &Settings::default()).map(drop))?;
    sort(offload::load(interface, index).map(drop))
}

/// Sorts an answer into yes, "not here" and "could not ask".
pub(crate) fn sort(answer: Result<(), HostError>) -> Result<Support, ProbeError> {
    let error = match answer {
        Ok(()) => return Ok(Support::Native),
        Err(error) => error,
    };
    match error {
        HostError::NoBpf { .. }
        | HostError::NoTypes { .. }
        | HostError::OldKernel { .. }
        | HostError::NoNative { .. }
        | HostError::NoOffload { .. }
        | HostError::NoInterface { .. } => Ok(Support::Absent { why: error.to_string() }),
        HostError::Refused { function, log_tail, .. } => Ok(Support::Absent {
            why: format!(
                "the verifier of this kernel refuses {function} ({}), which is a mistake in that program; an experiment \
                 with it says where",
                reason(&log_tail)
            ),
        }),
        HostError::NotAllowed { operation, error } => Err(ProbeError {
            asked: operation,
            error,
            mend: crate::error::MEND_NOT_ALLOWED.to_owned(),
        }),
        HostError::Kernel { operation, error, mend } => Err(ProbeError {
            asked: operation,
            error,
            mend: mend.to_owned(),
        }),
        other => Err(ProbeError {
            asked: "loading and attaching a program".to_owned(),
            error: io::Error::other(other.to_string()),
            mend: "the reason says what to try".to_owned(),
        }),
    }
}

/// The line of a verifier's log that says what it does not believe: the last before its statistics (print_verification_stats,
/// kernel/bpf/verifier.c).
fn reason(log: &str) -> &str {
    const STATISTICS: [&str; 3] = ["verification time ", "stack depth ", "processed "];
    let mut lines = log.lines().map(str::trim);
    let is_reason = |line: &&str| !STATISTICS.iter().any(|words| line.starts_with(words));
    lines.rfind(is_reason).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    fn sorted(errno: Errno, mode: Mode) -> Result<Support, ProbeError> {
        sort(Err(HostError::attaching("eth7", mode, true, Some(1500), errno.into())))
    }

    #[test]
    fn no_and_not_allowed_are_two_answers() {
        for (errno, mode) in [
            (Errno::ENOSYS, Mode::Generic),
            (Errno::EOPNOTSUPP, Mode::Native),
            (Errno::ENODEV, Mode::Native),
        ] {
            let answer = sorted(errno, mode);
            assert!(matches!(&answer, Ok(Support::Absent { .. })), "{errno}: {answer:?}");
        }
        for (errno, part) in [
            (Errno::EPERM, "CAP_BPF"),
            (Errno::EACCES, "CAP_NET_ADMIN"),
            (Errno::EBUSY, "another program is attached"),
            (Errno::EIO, "not expected"),
        ] {
            let error = sorted(errno, Mode::Native).expect_err("it is no answer");
            assert!(
                error.to_string().contains(part),
                "{errno}: {part:?} is missing in {error}"
            );
        }
    }

    #[test]
    fn a_program_that_the_verifier_refuses_is_not_here() {
        let answer = sort(Err(HostError::Refused {
            function: "echo_frags",
            error: Errno::EACCES.into(),
            log_tail:
                "4346: (85) call bpf_xdp_load_bytes#189\nR4 invalid zero-sized read: u64=[0,63]\nverification time 41 \
                       usec\nstack depth 208+0\nprocessed 9021 insns (limit 1000000) max_states_per_insn 9"
                    .to_owned(),
        }));
        let Ok(Support::Absent { why }) = answer else {
            panic!("{answer:?}");
        };
        assert!(
            why.contains("refuses echo_frags (R4 invalid zero-sized read: u64=[0,63])"),
            "{why}"
        );
    }
}
