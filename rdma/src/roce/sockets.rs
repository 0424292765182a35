//! The sockets of an endpoint, and what each shows of a packet's envelope.

use std::{
    io,
    net::{IpAddr, SocketAddrV4, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use dataplane_wire::Reject;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, recv, socket},
};

use super::{OpenError, ReceiveHow, RoceOptions, frame};
use crate::{
    sys,
    wire::{Envelope, SOURCE_PORT_MIN, UDP_PORT},
};

/// The largest IP packet.
const IP_BYTES_MAX: usize = 65_535;
/// How many source ports are tried.
const PORTS_TRIED_MAX: u16 = 64;

/// A socket that sends from the first free port at or after `first`.
pub(super) fn sender(local: IpAddr, first: u16) -> io::Result<(UdpSocket, u16)> {
    let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
    for step in 0..PORTS_TRIED_MAX {
        let port = SOURCE_PORT_MIN | first.wrapping_add(step);
        match UdpSocket::bind((local, port)) {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                sys::socket::dont_fragment(&socket, local.is_ipv6())?;
                if local.is_ipv4() {
                    sys::socket::no_checksum(&socket)?;
                }
                return Ok((socket, port));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

/// What receives.
#[derive(Debug)]
pub(super) struct Receiver {
    local: IpAddr,
    /// Bound to the port in either way.
    udp: UdpSocket,
    raw: Option<OwnedFd>,
    buffer: Box<[u8]>,
}

impl Receiver {
    pub(super) fn open(options: &RoceOptions) -> Result<Receiver, OpenError> {
        let local = options.local;
        let fail = |asked, error, mend| OpenError {
            asked,
            local,
            error,
            mend,
        };
        let unfit = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
        let family = "use ReceiveHow::Datagram: IPv6 needs no raw socket";
        if local.is_unspecified() {
            let mend = "name an address of an interface";
            return Err(fail(
                "opening a RoCEv2 endpoint",
                unfit("the ICRC covers the address"),
                mend,
            ));
        }
        if options.receive == ReceiveHow::Raw && local.is_ipv6() {
            let error = unfit("a raw IPv6 socket shows no IP header");
            return Err(fail("opening a raw socket", error, family));
        }
        let udp = UdpSocket::bind((local, UDP_PORT)).map_err(|error| {
            let mend = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another RoCEv2 endpoint has it, or the kernel's rdma_rxe (`rdma link`): use another address or namespace"
                }
                _ => "name an address of an interface that is up",
            };
            fail("binding UDP port 4791", error, mend)
        })?;
        udp.set_nonblocking(true)
            .map_err(|error| fail("making the socket non-blocking", error, "try again"))?;
        let raw = match (options.receive, local) {
            (ReceiveHow::Datagram, _) | (_, IpAddr::V6(_)) => None,
            (how, IpAddr::V4(_)) => match raw(local, options.recv_buffer_bytes) {
                Ok(raw) => Some(raw),
                Err(error) if how == ReceiveHow::Best && error.kind() == io::ErrorKind::PermissionDenied => None,
                Err(error) => {
                    let mend = "run it with CAP_NET_RAW, or use ReceiveHow::Datagram between endpoints of this kind";
                    return Err(fail("opening a raw socket", error, mend));
                }
            },
        };
        let prepared = match raw {
            Some(_) => sys::socket::nothing(&udp),
            None => sys::socket::receive_buffer(&udp, options.recv_buffer_bytes),
        };
        prepared.map_err(|error| fail("preparing the UDP socket", error, "a kernel since 2.6 can"))?;
        Ok(Receiver {
            local,
            udp,
            raw,
            buffer: vec![0; IP_BYTES_MAX].into(),
        })
    }

    pub(super) fn how(&self) -> ReceiveHow {
        match self.raw {
            Some(_) => ReceiveHow::Raw,
            None => ReceiveHow::Datagram,
        }
    }

    /// The next packet and what it came in.
    ///
    /// # Errors
    /// What the kernel said; WouldBlock: there is none.
    pub(super) fn receive(&mut self) -> io::Result<Result<(Envelope, &[u8]), Reject>> {
        match &self.raw {
            Some(raw) => {
                let len = recv(raw.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT)?;
                Ok(frame::unpack_ipv4(&self.buffer[..len]))
            }
            None => {
                let (len, from) = self.udp.recv_from(&mut self.buffer)?;
                let Some(addresses) = frame::addresses(from.ip(), self.local) else {
                    return Ok(Err(Reject::Stranger));
                };
                let envelope = Envelope {
                    addresses,
                    identification: 0,
                    dont_fragment: true,
                    src_port: from.port(),
                    dst_port: UDP_PORT,
                };
                Ok(Ok((envelope, &self.buffer[..len])))
            }
        }
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.raw {
            Some(raw) => raw.as_fd(),
            None => self.udp.as_fd(),
        }
    }
}

/// A raw socket that has what comes to the port at `local`, and nothing else.
fn raw(local: IpAddr, buffer_bytes: usize) -> io::Result<OwnedFd> {
    let IpAddr::V4(v4) = local else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let raw = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Udp)?;
    // It hears every address and port of its protocol from the moment when it is made (net/ipv4/af_inet.c, `inet_create`), other
    // endpoints' packets among them: deaf until it is bound, and what came before that is thrown away.
    sys::socket::nothing(&raw)?;
    bind(raw.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(v4, 0)))?;
    empty(&raw)?;
    sys::socket::only_udp_port(&raw, UDP_PORT)?;
    sys::socket::receive_buffer(&raw, buffer_bytes)?;
    Ok(raw)
}

/// Throws away what a socket has that nothing more comes to.
fn empty(raw: &OwnedFd) -> io::Result<()> {
    loop {
        match recv(raw.as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
