//! Resting until a port's own descriptor or a bell is readable (`Port::wait_or`).

use std::{io, os::fd::BorrowedFd, time::Duration};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

/// Sleeps in ppoll(2) until `own` or `bell` is readable, at most `max`; what poll says about `own`. A signal ends it early.
pub(crate) fn sleep(own: BorrowedFd<'_>, bell: BorrowedFd<'_>, max: Duration) -> io::Result<PollFlags> {
    let mut set = [
        PollFd::new(own, PollFlags::POLLIN),
        PollFd::new(bell, PollFlags::POLLIN),
    ];
    match ppoll(&mut set, Some(TimeSpec::from_duration(max)), None) {
        Ok(_) => Ok(set[0].revents().unwrap_or(PollFlags::empty())),
        Err(Errno::EINTR) => Ok(PollFlags::empty()),
        Err(errno) => Err(errno.into()),
    }
}
