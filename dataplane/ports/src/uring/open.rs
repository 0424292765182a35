//! What must hold before a ring is made: options within their bounds, socket buffers as wished.

use std::{io, net::UdpSocket};

use super::{UringOptions, UringWait};
use crate::sys::inet;

/// The longest UDP payload over IPv4 (RFC 768 length field, minus 28 bytes of headers).
const PAYLOAD_BYTES_MAX: usize = 65_507;

/// Past `net.core.*mem_max` where CAP_NET_ADMIN allows, up to it otherwise.
pub(super) fn set_buffers(socket: &UdpSocket, options: &UringOptions) -> io::Result<()> {
    let buffers = [
        (options.recv_buffer_bytes, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (options.send_buffer_bytes, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ];
    for (bytes, forced, clamped) in buffers {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        if bytes > 0 && inet::set_option(socket, libc::SOL_SOCKET, forced, bytes).is_err() {
            inet::set_option(socket, libc::SOL_SOCKET, clamped, bytes)?;
        }
    }
    Ok(())
}

/// `InvalidInput` for options out of bounds.
pub(super) fn check(options: &UringOptions) -> io::Result<()> {
    let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let UringOptions {
        local, peers, variant, ..
    } = options;
    if let Some(peer) = peers.iter().find(|peer| peer.is_ipv4() != local.is_ipv4()) {
        return invalid(format!("peer {peer} is not of the family of {local}"));
    }
    if variant.connect && peers.len() != 1 {
        return invalid(format!("a connected socket has one peer, not {}", peers.len()));
    }
    if !(1..=PAYLOAD_BYTES_MAX).contains(&options.frame_bytes_max) {
        return invalid(format!(
            "frame_bytes_max is {}; it must be 1 to {PAYLOAD_BYTES_MAX}",
            options.frame_bytes_max
        ));
    }
    if !(1..=2048).contains(&options.entries) {
        return invalid(format!("entries is {}; it must be 1 to 2048", options.entries));
    }
    if !options.buffers.is_power_of_two() || options.buffers < options.entries {
        return invalid(format!(
            "buffers is {}; it must be a power of two and at least entries, which is {}",
            options.buffers, options.entries
        ));
    }
    let enters = matches!(variant.wait, UringWait::Enter | UringWait::NapiBusyPoll { .. });
    if variant.submit_with_wait && !enters {
        return invalid(format!(
            "submit_with_wait needs a wait that always enters the kernel; {:?} does not",
            variant.wait
        ));
    }
    Ok(())
}
