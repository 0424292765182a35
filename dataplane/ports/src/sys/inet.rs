//! Socket addresses as the kernel reads them, and the calls on a UDP socket that take one per frame. `std` and `nix`
//! have these calls too, but without flags on receive, or with a conversion each way that costs more than the lookup.

use std::{
    fmt, io,
    mem::{self, MaybeUninit},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use libc::{c_int, c_void, socklen_t};

/// An address as the kernel takes it, of either family. Not larger than it needs to be: `sockaddr_storage` is 128 bytes
/// to clear and copy per frame, this is 28.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union RawAddr {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// What frames are recognised by: address and port; an IPv4 address as the IPv6 address it maps to (RFC 4291 §2.5.5.2),
/// so that a dual-stack socket knows its IPv4 peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddrKey {
    ip: u128,
    port: u16,
}

impl AddrKey {
    pub(crate) fn new(address: SocketAddr) -> AddrKey {
        let ip = match address.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        AddrKey {
            ip: ip.to_bits(),
            port: address.port(),
        }
    }

    /// The address back, IPv4 as itself. Scope and flow are not part of a key.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from(Ipv6Addr::from_bits(self.ip)).to_canonical(), self.port)
    }
}

impl fmt::Debug for RawAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().map(|key| key.address()).fmt(f)
    }
}

impl RawAddr {
    /// All zero: family AF_UNSPEC, which no frame comes from.
    pub(crate) fn unspecified() -> RawAddr {
        // SAFETY: all three are plain integers, for which zero is valid.
        unsafe { mem::zeroed() }
    }

    pub(crate) fn new(address: SocketAddr) -> RawAddr {
        let mut raw = RawAddr::unspecified();
        match address {
            SocketAddr::V4(v4) => {
                raw.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                }
            }
            SocketAddr::V6(v6) => {
                raw.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                }
            }
        }
        raw
    }

    /// The key of a sender; `None` for a family that is neither.
    #[inline]
    pub(crate) fn key(&self) -> Option<AddrKey> {
        // SAFETY: the family is the first field of every variant, and every bit pattern is valid for all of them; the
        // whole union was initialised by `unspecified` or `new`, and the kernel writes what the family says.
        unsafe {
            match c_int::from(self.family) {
                libc::AF_INET => Some(AddrKey {
                    ip: Ipv4Addr::from_octets(self.v4.sin_addr.s_addr.to_ne_bytes())
                        .to_ipv6_mapped()
                        .to_bits(),
                    port: u16::from_be(self.v4.sin_port),
                }),
                libc::AF_INET6 => Some(AddrKey {
                    ip: u128::from_be_bytes(self.v6.sin6_addr.s6_addr),
                    port: u16::from_be(self.v6.sin6_port),
                }),
                _ => None,
            }
        }
    }

    pub(crate) fn len_bytes(&self) -> socklen_t {
        // SAFETY: as in `key`.
        let len_bytes = match c_int::from(unsafe { self.family }) {
            libc::AF_INET => size_of::<libc::sockaddr_in>(),
            _ => size_of::<libc::sockaddr_in6>(),
        };
        len_bytes as socklen_t
    }
}

/// recvfrom(2): how many bytes came, and from whom.
#[inline]
pub(crate) fn recv_from(socket: &UdpSocket, into: &mut [u8], flags: c_int) -> io::Result<(usize, RawAddr)> {
    let mut from = RawAddr::unspecified();
    let mut from_bytes = size_of::<RawAddr>() as socklen_t;
    // SAFETY: the kernel writes at most `into.len()` bytes there and at most `from_bytes` bytes into `from`, both of
    // which outlive the call.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            into.as_mut_ptr().cast(),
            into.len(),
            flags,
            (&raw mut from).cast(),
            &mut from_bytes,
        )
    };
    Ok((checked(received)?, from))
}

/// sendto(2).
#[inline]
pub(crate) fn send_to(socket: &UdpSocket, bytes: &[u8], flags: c_int, to: &RawAddr) -> io::Result<()> {
    // SAFETY: the kernel reads `bytes` and the `len_bytes` bytes of `to` that its family has; both outlive the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
            std::ptr::from_ref(to).cast(),
            to.len_bytes(),
        )
    };
    checked(sent).map(drop)
}

/// recv(2).
#[inline]
pub(crate) fn recv(socket: &UdpSocket, into: &mut [u8], flags: c_int) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `into.len()` bytes into `into`, which outlives the call.
    checked(unsafe { libc::recv(socket.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), flags) })
}

/// send(2).
#[inline]
pub(crate) fn send(socket: &UdpSocket, bytes: &[u8], flags: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads `bytes`, which outlives the call.
    checked(unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) }).map(drop)
}

/// setsockopt(2) for the options that are one int.
pub(crate) fn set_option(socket: &UdpSocket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one int from `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            size_of::<c_int>() as socklen_t,
        )
    };
    checked(result as isize).map(drop)
}

/// getsockopt(2) for the options that are one or more 32-bit integers; says how many came.
pub(crate) fn get_option<const N: usize>(
    socket: &UdpSocket,
    level: c_int,
    name: c_int,
) -> io::Result<([u32; N], usize)> {
    let mut values = [0u32; N];
    let mut len_bytes = size_of_val(&values) as socklen_t;
    // SAFETY: the kernel writes at most `len_bytes` bytes into `values`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            values.as_mut_ptr().cast::<c_void>(),
            &mut len_bytes,
        )
    };
    checked(result as isize)?;
    Ok((values, len_bytes as usize / size_of::<u32>()))
}

/// epoll_pwait2(2) for a set of one descriptor: true if it is ready. By number, because glibc has it only since 2.35.
pub(crate) fn epoll_wait_one(epoll: BorrowedFd<'_>, max: Duration) -> io::Result<bool> {
    let mut event = MaybeUninit::<libc::epoll_event>::uninit();
    let timeout = libc::timespec {
        tv_sec: max.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: max.subsec_nanos().into(),
    };
    // SAFETY: the kernel writes at most one event (maxevents is 1) and reads one timespec; both outlive the call. The
    // signal mask is null, so its size is not looked at.
    let ready = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            event.as_mut_ptr(),
            1 as c_int,
            &raw const timeout,
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    Ok(checked(ready as isize)? > 0)
}

#[inline]
pub(crate) fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
