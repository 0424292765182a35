//! What can go wrong while hosts are made and removed: the operation, the object, the errno, and what to try.

use std::io;

/// Why a network could not be built, entered, removed or swept.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The kernel said no.
    #[error("{operation} {object}: {error}; {}", mend(.error))]
    Kernel {
        /// What was tried: "creating the veth pair".
        operation: &'static str,
        /// On what: "eth0 in h0".
        object: String,
        /// The errno.
        error: io::Error,
    },
    /// The options ask for something that this crate does not build.
    #[error("{option}: {why}")]
    Refused {
        /// The field of [`NetworkOptions`](crate::NetworkOptions).
        option: &'static str,
        /// The bound that it breaks.
        why: String,
    },
    /// The kernel did not finish in time. Every wait of this crate has a bound.
    #[error("{operation} {object}: not done after {waited_ms} ms; the machine may be overloaded, try again")]
    Late {
        /// What was waited for.
        operation: &'static str,
        /// On what.
        object: String,
        /// How long, in milliseconds.
        waited_ms: u128,
    },
    /// A setting was accepted and yet reads back differently, so a measurement would not be what its record says.
    #[error("{setting} of {object} reads back as {seen} and not as {wanted}; {mend}")]
    NotAsAsked {
        /// Which setting: "mtu_bytes", "offloads".
        setting: &'static str,
        /// Of which interface.
        object: String,
        /// What the kernel answered.
        seen: String,
        /// What was asked for.
        wanted: String,
        /// What to try.
        mend: &'static str,
    },
    /// The kernel's answer could not be understood.
    #[error("{operation} {object}: unexpected answer: {what}")]
    Answer {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What came back.
        what: String,
    },
}

impl NetError {
    pub(crate) fn kernel(operation: &'static str, object: impl Into<String>, error: impl Into<io::Error>) -> Self {
        NetError::Kernel {
            operation,
            object: object.into(),
            error: error.into(),
        }
    }

    /// The errno behind this error, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetError::Kernel { error, .. } => error.raw_os_error(),
            _ => None,
        }
    }
}

/// What to try, by errno: the same few causes stand behind every call of this crate.
fn mend(error: &io::Error) -> &'static str {
    use nix::errno::Errno;
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => {
            "needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root, or allow unprivileged user namespaces \
             (sysctl user.max_user_namespaces=15000, and where these exist kernel.unprivileged_userns_clone=1 \
             and kernel.apparmor_restrict_unprivileged_userns=0)"
        }
        Some(Errno::EMFILE) => "too many open files: raise the limit (ulimit -n)",
        Some(Errno::ENFILE) => "the machine has no file left to open: raise it (sysctl fs.file-max)",
        Some(Errno::ENOSPC) => {
            "a limit on namespaces is reached: raise it (sysctl user.max_net_namespaces, user.max_user_namespaces)"
        }
        Some(Errno::EOPNOTSUPP) => "this kernel lacks the driver: try modprobe veth, modprobe bridge",
        Some(Errno::EROFS) => "/proc/sys is mounted read-only, as containers do: run outside, or with a writable one",
        Some(Errno::EAGAIN | Errno::ENOMEM) => "out of processes or memory: see ulimit -u and free -m",
        _ => "see the man page of the call for this errno",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_operation_object_errno_and_mend() {
        let error = NetError::kernel("creating", "host h0", io::Error::from_raw_os_error(1));
        let text = error.to_string();
        for part in ["creating host h0", "os error 1", "CAP_SYS_ADMIN"] {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
        assert_eq!(error.errno(), Some(1));
    }
}
