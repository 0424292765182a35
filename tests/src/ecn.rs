//! Marks as a receiver's socket sees them.

use std::{io::IoSliceMut, net::UdpSocket, os::fd::AsRawFd};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt},
};

/// Of IPv4's second byte: congestion experienced (RFC 3168 section 5).
const CE: u8 = 0b11;

/// Datagrams that came until none did for the socket's read time-out, and how many of them carried a mark.
///
/// # Panics
/// Where the kernel does not tell a datagram's second byte.
pub fn receive_all(socket: &UdpSocket) -> (u64, u64) {
    setsockopt(socket, sockopt::IpRecvTos, &true).expect("the second byte is told");
    let (mut came_count, mut marked_count) = (0, 0);
    let mut payload = [0; 2048];
    let mut control = cmsg_space!(u8);
    loop {
        let mut parts = [IoSliceMut::new(&mut payload)];
        let came = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let Ok(message) = came else {
            return (came_count, marked_count);
        };
        came_count += 1;
        let is_marked = message
            .cmsgs()
            .expect("room for one")
            .any(|told| matches!(told, ControlMessageOwned::Ipv4Tos(tos) if tos & CE == CE));
        marked_count += u64::from(is_marked);
    }
}
