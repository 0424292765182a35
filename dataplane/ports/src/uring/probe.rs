//! Does this io_uring exist here? Asked by sending a datagram through it and getting one back.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use dataplane_waist::{Peer, Port, ProbeError, Support};
use io_uring::{IoUring, Probe, opcode};

use super::{UringOptions, UringPort, UringVariant};

/// How long one way may take. Loopback takes microseconds; a crowded machine, milliseconds.
const ONE_WAY_MAX: Duration = Duration::from_millis(500);

const DISABLED_PATH: &str = "/proc/sys/kernel/io_uring_disabled";

/// Asks the kernel for a ring of this variant, and exchanges a datagram through it with a plain socket over loopback.
///
/// `Native` for busy polling says that the kernel polls where it can; whether there is something to poll depends on the
/// device ([`UringPort::napi_id`]).
///
/// # Errors
/// When the kernel does not let us ask: `kernel.io_uring_disabled`, a seccomp filter, no memory that may be locked.
pub fn probe(variant: &UringVariant) -> Result<Support, ProbeError> {
    let ring = match IoUring::new(2) {
        Ok(ring) => ring,
        Err(error) => return refused("setting up an io_uring", error),
    };
    let mut known = Probe::new();
    if let Err(error) = ring.submitter().register_probe(&mut known) {
        return refused("asking the io_uring for its operations", error);
    }
    drop(ring);
    let needed = [
        ("RECVMSG", opcode::RecvMsgMulti::CODE, true),
        ("SEND", opcode::Send::CODE, true),
        ("SEND_ZC (Linux 6.0)", opcode::SendZc::CODE, variant.zero_copy_send),
    ];
    for (name, code, is_needed) in needed {
        if is_needed && !known.is_supported(code) {
            return Ok(absent(format!("this kernel's io_uring has no {name}")));
        }
    }

    let asked = format!("a datagram over loopback through {}", variant.name());
    match exchange(variant) {
        Ok(true) => Ok(Support::Native),
        Ok(false) => {
            let limit_ms = ONE_WAY_MAX.as_millis();
            Ok(absent(format!("{asked} did not arrive within {limit_ms} ms")))
        }
        Err(error) => refused(&asked, error),
    }
}

/// A word there and a word back. `false`: it got lost.
fn exchange(variant: &UringVariant) -> io::Result<bool> {
    const WORD: &[u8] = b"dplab probe";
    let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    other.set_read_timeout(Some(ONE_WAY_MAX))?;
    let options = UringOptions {
        peers: vec![other.local_addr()?],
        learn_peers_max: 0,
        entries: 2,
        buffers: 2,
        frame_bytes_max: 64,
        ..UringOptions::new((Ipv4Addr::LOCALHOST, 0).into(), *variant)
    };
    let mut port = UringPort::open(&options)?;

    port.tx(Peer(0), WORD.len(), &mut |bytes| bytes.copy_from_slice(WORD))
        .map_err(io::Error::other)?;
    port.flush()?;
    // The merged variant sends with the call after `flush`.
    port.rx_burst(&mut |_| {})?;
    let mut bytes = [0; 64];
    let received = loop {
        match other.recv(&mut bytes) {
            // The ring's task work interrupts this thread's other system calls.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => break received,
        }
    };
    match received {
        Ok(len_bytes) if &bytes[..len_bytes] == WORD => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            // It was not sent; the completion may say why.
            port.rx_burst(&mut |_| {})?;
            return Ok(false);
        }
        Err(error) => return Err(error),
    }

    other.send_to(WORD, port.local_addr())?;
    let since = Instant::now();
    let mut came_back = false;
    while !came_back && since.elapsed() < ONE_WAY_MAX {
        port.wait(Duration::from_millis(10))?;
        port.rx_burst(&mut |frame| came_back |= frame.bytes == WORD)?;
    }
    Ok(came_back)
}

fn absent(why: String) -> Support {
    Support::Absent { why }
}

/// Sorts an error into "not here" and "could not ask".
fn refused(asked: &str, error: io::Error) -> Result<Support, ProbeError> {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Ok(absent(
            "this kernel has no io_uring (CONFIG_IO_URING, Linux 5.1)".to_owned(),
        )),
        Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(absent(format!(
            "this kernel refuses {asked} ({error}): the variant needs a newer one"
        ))),
        _ => Err(ProbeError {
            asked: asked.to_owned(),
            mend: mend(&error),
            error,
        }),
    }
}

fn mend(error: &io::Error) -> String {
    let mend = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => match std::fs::read_to_string(DISABLED_PATH).as_deref().map(str::trim) {
            Ok("1") => "kernel.io_uring_disabled is 1: run as root, or `sysctl kernel.io_uring_disabled=0`",
            Ok("2") => "kernel.io_uring_disabled is 2: `sysctl kernel.io_uring_disabled=0`",
            _ => {
                "a seccomp filter or security module forbids io_uring (containers often do): allow io_uring_setup, or run outside"
            }
        },
        Some(libc::ENOMEM) => "raise the memory that may be locked: `ulimit -l unlimited`",
        _ => "this errno was not expected; see io_uring_setup(2)",
    };
    mend.to_owned()
}
