//! Is there XDP here? Asked by loading the smallest program, and by attaching it where an interface is named.

use std::io;

use dataplane_waist::{ProbeError, Support};
use nix::net::if_::if_nametoindex;

use crate::{HostError, Loaded, Mode, Program, Settings, offload};

/// Loads [`Program::Pass`] and, where `interface` is given, attaches it in `mode` for a moment. Without an interface the answer
/// is about the kernel alone; `mode` does not matter then. Some physical interfaces reset their link when a native program
/// comes or goes: name one only where it may.
///
/// # Errors
/// Whatever is neither yes nor no: a missing privilege, another program in the place, an unexpected errno.
pub fn probe(interface: Option<&str>, mode: Mode) -> Result<Support, ProbeError> {
    match attempt(interface, mode, false) {
        // The MTU is no question of whether there is XDP.
        Err(HostError::MtuTooLarge { .. }) => sort(attempt(interface, mode, true)),
        answer => sort(answer),
    }
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
    sort(attempt(None, Mode::Native, false))?;
    sort(offload::load(interface, index).map(drop))
}

fn attempt(interface: Option<&str>, mode: Mode, frags: bool) -> Result<(), HostError> {
    let settings = Settings {
        frags,
        ..Settings::default()
    };
    let loaded = Loaded::load(Program::Pass, &settings)?;
    match interface {
        Some(interface) => loaded.attach(interface, mode).map(drop),
        None => Ok(()),
    }
}

/// Sorts an answer into yes, "not here" and "could not ask".
fn sort(answer: Result<(), HostError>) -> Result<Support, ProbeError> {
    let error = match answer {
        Ok(()) => return Ok(Support::Native),
        Err(error) => error,
    };
    match error {
        HostError::NoBpf { .. }
        | HostError::OldKernel { .. }
        | HostError::NoNative { .. }
        | HostError::NoOffload { .. }
        | HostError::NoInterface { .. } => Ok(Support::Absent { why: error.to_string() }),
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
            asked: "loading and attaching the smallest program".to_owned(),
            error: io::Error::other(other.to_string()),
            mend: "the reason says what to try".to_owned(),
        }),
    }
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
}
