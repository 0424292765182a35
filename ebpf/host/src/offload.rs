//! A program on the network card itself: loaded for the device, so that its driver translates it, and attached there.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use ebpf_abi::Program;
use nix::errno::Errno;

use crate::{HostError, error::errno, sys};

/// The program on the device. The link goes first.
#[derive(Debug)]
pub(crate) struct OnDevice {
    _link: OwnedFd,
    _program: OwnedFd,
}

/// Loads what `pass` is for the device `index`, called `interface`: its driver has translated it by then.
pub(crate) fn load(interface: &str, index: u32) -> Result<OwnedFd, HostError> {
    sys::load_for_device(index).map_err(|error| refused(interface, error))
}

/// Puts `program` on the device itself.
///
/// # Errors
/// [`HostError::NoOffload`] if the driver takes no programs for its device, or not this one; as [`HostError::attaching`].
pub(crate) fn attach(program: Program, interface: &str, index: u32) -> Result<OnDevice, HostError> {
    let on_device = load(interface, index)?;
    if program != Program::Pass {
        return Err(HostError::NoOffload {
            interface: interface.to_owned(),
            why: format!(
                "its driver translates programs for the device, but {} keeps what it knows in maps that CPUs have a copy of each, \
                 or that this process maps into its memory, and a device has arrays and hash tables of its own alone \
                 (bpf_map_offload_map_alloc, kernel/bpf/offload.c); {} can be there",
                program.name(),
                Program::Pass.name()
            ),
        });
    }
    let link = sys::link_to_device(on_device.as_fd(), index)
        .map_err(|error| HostError::attaching(interface, crate::Mode::Offload, false, None, error))?;
    Ok(OnDevice {
        _link: link,
        _program: on_device,
    })
}

fn refused(interface: &str, error: io::Error) -> HostError {
    match errno(&error) {
        Some(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENODEV) => HostError::NoOffload {
            interface: interface.to_owned(),
            why: format!(
                "{error}: its driver translates no programs for the device; in Linux only nfp does, and netdevsim, which tests \
                 it; native mode runs them on the host's CPU"
            ),
        },
        _ => HostError::kernel(format!("loading a program for {interface} itself"), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_is_told_from_not_allowed() {
        for errno in [Errno::EINVAL, Errno::EOPNOTSUPP, Errno::ENODEV] {
            let error = refused("eth7", errno.into());
            assert!(matches!(error, HostError::NoOffload { .. }), "{errno}: {error}");
            let text = error.to_string();
            assert!(text.contains("eth7") && text.contains("native mode"), "{text}");
        }
        let error = refused("eth7", Errno::EPERM.into());
        assert!(matches!(error, HostError::NotAllowed { .. }), "{error}");
    }
}
