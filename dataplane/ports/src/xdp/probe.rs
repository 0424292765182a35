//! Is there AF_XDP on this interface? Asked by binding a socket to it.

use std::io;

use dataplane_waist::{ProbeError, Support};

use super::{OpenError, Socket, SocketOptions, Umem, UmemOptions, XdpCopy};

/// Binds a socket with the smallest rings to queue 0 of `interface` and closes it again. Nothing is sent, no program is
/// loaded: whether frames can be received, which needs BPF, is asked of whoever loads the program.
///
/// # Errors
/// Without CAP_NET_RAW the kernel does not let us ask; while another socket has the queue it does not say.
pub fn probe(interface: &str, copy: XdpCopy) -> Result<Support, ProbeError> {
    let options = SocketOptions {
        copy,
        ..SocketOptions::new(interface, 4)
    };
    let opened = Umem::new(&UmemOptions::new(4)).and_then(|(umem, _)| Socket::open(&umem, &options));
    match opened {
        Ok(_) => Ok(Support::Native),
        Err(error) => sort(error),
    }
}

/// Sorts an error into "not here" and "could not ask".
fn sort(error: OpenError) -> Result<Support, ProbeError> {
    let said = error.to_string();
    let could_not_ask = |asked: &str, error: io::Error, mend: &str| {
        Err(ProbeError {
            asked: asked.to_owned(),
            error,
            mend: mend.to_owned(),
        })
    };
    match error {
        OpenError::NoInterface { .. }
        | OpenError::NoQueue { .. }
        | OpenError::Down { .. }
        | OpenError::NotSupported { .. }
        | OpenError::ZeroCopyRefused { .. } => Ok(Support::Absent { why: said }),
        OpenError::NotAllowed { asked, error } => could_not_ask(
            asked,
            error,
            "needs CAP_NET_RAW, and CAP_BPF and CAP_NET_ADMIN to receive: run as root",
        ),
        OpenError::QueueBusy { .. } => could_not_ask(
            "binding to the queue",
            io::ErrorKind::ResourceBusy.into(),
            "another AF_XDP socket has it (`ss --xdp -p` shows whose): close that one",
        ),
        OpenError::MemoryLimit { error, .. } => could_not_ask(
            "registering 16 KiB of memory",
            error,
            "raise RLIMIT_MEMLOCK (`ulimit -l`), or run with CAP_IPC_LOCK",
        ),
        OpenError::Failed { asked, error } => could_not_ask(
            asked,
            error,
            "this errno was not expected; see Documentation/networking/af_xdp.rst",
        ),
        OpenError::Options(_) | OpenError::NoHugePages { .. } | OpenError::FirstClosed => could_not_ask(
            "opening an AF_XDP socket",
            io::Error::new(io::ErrorKind::InvalidInput, said),
            "this is a mistake in the probe",
        ),
    }
}
