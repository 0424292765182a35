//! Options of sockets that `nix` does not know: path MTU discovery, and classic BPF filters.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use libc::{c_int, c_void, sock_filter, sock_fprog, socklen_t};

fn set_option<T>(socket: &impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is alive for the call, and the length is its own; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast::<c_void>(),
            size_of::<T>() as socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Every datagram leaves whole or not at all: IPv4's DF flag, and with it the identification 0 where the socket is not
/// connected (net/ipv4/ip_output.c, `ip_make_skb`, `ip_select_ident`: ip(7) does not promise it, so it is tested).
///
/// # Errors
/// What the kernel said.
pub(crate) fn dont_fragment(socket: &impl AsFd, is_ipv6: bool) -> io::Result<()> {
    match is_ipv6 {
        false => set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_DO),
        true => set_option(
            socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            &libc::IPV6_PMTUDISC_DO,
        ),
    }
}

/// Leaves UDP's checksum out (net/ipv4/udp.c, `udp_send_skb`), as the kernel's rdma_rxe does: the ICRC says more. For IPv4, where it may
/// be left out.
///
/// # Errors
/// What the kernel said.
pub(crate) fn no_checksum(socket: &impl AsFd) -> io::Result<()> {
    let yes: c_int = 1;
    set_option(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, &yes)
}

/// A receive buffer of so many bytes, past `net.core.rmem_max` where CAP_NET_ADMIN allows.
///
/// # Errors
/// What the kernel said.
pub(crate) fn receive_buffer(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes)
        .or_else(|_| set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes))
}

const LOAD_X_HEADER: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
const LOAD_HALF_AT_X: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn attach(socket: &impl AsFd, program: &mut [sock_filter]) -> io::Result<()> {
    let program = sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // The kernel copies the instructions, which live until the call returns.
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Lets a raw IPv4 socket have only UDP datagrams to `port`.
///
/// # Errors
/// What the kernel said.
pub(crate) fn only_udp_port(socket: &impl AsFd, port: u16) -> io::Result<()> {
    attach(
        socket,
        &mut [
            // X = the length of the IP header, which the filter sees first.
            step(LOAD_X_HEADER, 0, 0, 0),
            // UDP's destination port.
            step(LOAD_HALF_AT_X, 0, 0, 2),
            step(JUMP_IF_EQUAL, 0, 1, port.into()),
            step(RETURN, 0, 0, u32::MAX),
            step(RETURN, 0, 0, 0),
        ],
    )
}

/// Lets a socket have nothing: it only holds its port.
///
/// # Errors
/// What the kernel said.
pub(crate) fn nothing(socket: &impl AsFd) -> io::Result<()> {
    attach(socket, &mut [step(RETURN, 0, 0, 0)])
}
