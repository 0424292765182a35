//! The kernel's own socket beside a port that speaks raw Ethernet. The kernel sees, or may see, the port's frames too; so
//! that it does not answer them with "port unreachable", and gives the address to nobody else, an ordinary UDP socket
//! holds the address, and its filter drops everything.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
};

use crate::sys::{inet, packet};

/// The classic BPF program that keeps nothing.
pub(crate) const DROP_ALL: [libc::sock_filter; 1] = [libc::sock_filter {
    code: (libc::BPF_RET | libc::BPF_K) as u16,
    jt: 0,
    jf: 0,
    k: 0,
}];

/// The kernel's own socket for our address, which takes everything and keeps nothing; and the address with its port.
///
/// # Errors
/// The step that failed, and what the kernel said. An address that is not one of the host's is none, if it has a port:
/// then the kernel does not answer for it either.
pub(crate) fn open(local: SocketAddr) -> Result<(Option<UdpSocket>, SocketAddr), (&'static str, io::Error)> {
    let socket = match UdpSocket::bind(local) {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && local.port() != 0 => {
            return Ok((None, local));
        }
        Err(error) => return Err(("binding the kernel's own socket to the address", error)),
    };
    packet::attach_filter(socket.as_fd(), &DROP_ALL)
        .map_err(|error| ("making the kernel's own socket drop everything", error))?;
    inet::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 0)
        .map_err(|error| ("shrinking the kernel's own socket", error))?;
    let local = socket
        .local_addr()
        .map_err(|error| ("asking the kernel's own socket for its address", error))?;
    Ok((Some(socket), local))
}
