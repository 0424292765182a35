//! Messages with the kernel's time stamps: SO_TIMESTAMPING (Documentation/networking/timestamping.rst), the error queue
//! that transmit stamps come back on, and what a NIC says of its own clock.
//!
//! ```text
//!   send ──▶ qdisc ──▶ driver        stamps of what was sent come back as messages on the error queue:
//!             │SCHED     │SND           IP_RECVERR        which stamp (ee_info), of which send (ee_data)
//!             └──────────┴────────▶     SCM_TIMESTAMPING  three timespecs: software, unused, hardware
//! ```
//!
//! Control messages are read out of a plain byte slice by [`Cmsgs`], which believes no length.

use std::{io, mem, net::UdpSocket, os::fd::AsRawFd};

use libc::{c_int, c_void};

use super::inet::{RawAddr, checked};

/// Room for every control message that can come with one datagram or one stamp: SCM_TIMESTAMPING (64 bytes), IP_RECVERR
/// with its address (48 to 64), IP_PKTINFO (32), each with its header.
const CONTROL_BYTES: usize = 256;

/// Control messages, aligned as `cmsghdr` wants it (cmsg(3)).
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// ETHTOOL_GET_TS_INFO of include/uapi/linux/ethtool.h.
const ETHTOOL_GET_TS_INFO: u32 = 0x41;
/// SIOCETHTOOL of include/uapi/linux/sockios.h.
const SIOCETHTOOL: u32 = 0x8946;
/// SIOCGHWTSTAMP of include/uapi/linux/sockios.h.
const SIOCGHWTSTAMP: u32 = 0x89b1;

/// `struct ethtool_ts_info` of include/uapi/linux/ethtool.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TsInfo {
    pub(crate) cmd: u32,
    /// SOF_TIMESTAMPING_* bits that the driver supports.
    pub(crate) so_timestamping: u32,
    /// Number of the NIC's clock (/dev/ptpN), or -1.
    pub(crate) phc_index: i32,
    pub(crate) tx_types: u32,
    pub(crate) tx_reserved: [u32; 3],
    pub(crate) rx_filters: u32,
    pub(crate) rx_reserved: [u32; 3],
}

/// `struct hwtstamp_config` of include/uapi/linux/net_tstamp.h: what a NIC stamps now.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HwConfig {
    pub(crate) flags: i32,
    /// HWTSTAMP_TX_*: 0 is off.
    pub(crate) tx_type: i32,
    /// HWTSTAMP_FILTER_*: 0 is none.
    pub(crate) rx_filter: i32,
}

/// A message and what came with it.
pub(crate) struct Message<'a> {
    pub(crate) len_bytes: usize,
    /// The datagram was longer than the buffer.
    pub(crate) is_cut: bool,
    pub(crate) from: RawAddr,
    /// Control messages, for [`Cmsgs`].
    pub(crate) control: &'a [u8],
}

/// A buffer for control messages, kept between calls.
pub(crate) struct Receiver {
    control: Box<Control>,
}

impl Receiver {
    pub(crate) fn new() -> Receiver {
        Receiver {
            control: Box::new(Control([0; CONTROL_BYTES])),
        }
    }

    /// recvmsg(2). With MSG_ERRQUEUE: the next message of the error queue.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, into: &mut [u8], flags: c_int) -> io::Result<Message<'_>> {
        let mut from = RawAddr::unspecified();
        let mut iovec = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: into.len(),
        };
        // SAFETY: a zeroed msghdr is valid: null pointers and zero lengths.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_name = (&raw mut from).cast();
        header.msg_namelen = size_of::<RawAddr>() as libc::socklen_t;
        header.msg_iov = &raw mut iovec;
        header.msg_iovlen = 1;
        header.msg_control = self.control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES as _;
        // SAFETY: the header points to `from`, `into` and `control`, each with its own length; all outlive the call, and
        // the kernel writes no further.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        let len_bytes = checked(received)?;
        let control_bytes = (header.msg_controllen as usize).min(CONTROL_BYTES);
        Ok(Message {
            len_bytes,
            is_cut: header.msg_flags & libc::MSG_TRUNC != 0,
            from,
            control: &self.control.0[..control_bytes],
        })
    }
}

/// The control messages in a buffer, whatever it holds: a length that cannot be ends the walk.
pub(crate) struct Cmsgs<'a> {
    rest: &'a [u8],
}

/// One control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cmsg<'a> {
    pub(crate) level: c_int,
    pub(crate) kind: c_int,
    pub(crate) data: &'a [u8],
}

impl<'a> Cmsgs<'a> {
    pub(crate) fn new(control: &'a [u8]) -> Cmsgs<'a> {
        Cmsgs { rest: control }
    }
}

impl<'a> Iterator for Cmsgs<'a> {
    type Item = Cmsg<'a>;

    fn next(&mut self) -> Option<Cmsg<'a>> {
        // CMSG_ALIGN of include/linux/socket.h.
        const ALIGN_BYTES: usize = size_of::<usize>();
        const HEADER_BYTES: usize = size_of::<libc::cmsghdr>().next_multiple_of(ALIGN_BYTES);
        let header: libc::cmsghdr = read(self.rest)?;
        let len_bytes = header.cmsg_len;
        let data = self.rest.get(HEADER_BYTES..len_bytes)?;
        // The last one need not be padded.
        let next = len_bytes.checked_next_multiple_of(ALIGN_BYTES)?.min(self.rest.len());
        self.rest = &self.rest[next..];
        Some(Cmsg {
            level: header.cmsg_level,
            kind: header.cmsg_type,
            data,
        })
    }
}

/// C structs of integers alone: every byte pattern is one of their values.
pub(crate) trait Plain: Copy {}
impl Plain for libc::cmsghdr {}
impl Plain for libc::timespec {}
impl Plain for libc::sock_extended_err {}
impl Plain for libc::in_pktinfo {}
impl Plain for libc::in6_pktinfo {}

/// The struct at the beginning of `bytes`; `None` if they are too few.
pub(crate) fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: as many bytes are there and initialised, and `Plain` says that any will do; the read needs no alignment.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// What the interface's driver says it can stamp (ETHTOOL_GET_TS_INFO).
///
/// # Errors
/// ENODEV: no such interface in this network namespace. EOPNOTSUPP: the driver has no answer.
pub(crate) fn ts_info(socket: &UdpSocket, interface: &str) -> io::Result<TsInfo> {
    let mut info = TsInfo {
        cmd: ETHTOOL_GET_TS_INFO,
        ..TsInfo::default()
    };
    // SAFETY: SIOCETHTOOL with this command reads and writes one `ethtool_ts_info`, which `info` is.
    unsafe { interface_ioctl(socket, interface, SIOCETHTOOL, (&raw mut info).cast()) }?;
    Ok(info)
}

/// What the interface stamps now (SIOCGHWTSTAMP).
///
/// # Errors
/// EOPNOTSUPP: the driver stamps nothing, or cannot say.
pub(crate) fn hardware_config(socket: &UdpSocket, interface: &str) -> io::Result<HwConfig> {
    let mut config = HwConfig::default();
    // SAFETY: SIOCGHWTSTAMP writes one `hwtstamp_config`, which `config` is.
    unsafe { interface_ioctl(socket, interface, SIOCGHWTSTAMP, (&raw mut config).cast()) }?;
    Ok(config)
}

/// An ioctl that takes an interface's name and a struct (netdevice(7)).
///
/// # Safety
/// `data` points to a struct of the kind that `request` reads or writes, valid for the call.
unsafe fn interface_ioctl(socket: &UdpSocket, interface: &str, request: u32, data: *mut c_void) -> io::Result<()> {
    // SAFETY: all zeros is a valid ifreq.
    let mut ifreq: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= ifreq.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in ifreq.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = data.cast();
    // SAFETY: the name is terminated; the struct behind `data` is the caller's promise.
    let said = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut ifreq) };
    checked(said as isize).map(drop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A control message as the kernel writes it.
    fn cmsg(level: c_int, kind: c_int, data: &[u8]) -> Vec<u8> {
        let len_bytes = size_of::<libc::cmsghdr>() + data.len();
        let mut bytes = len_bytes.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn messages_are_walked_in_order() {
        let control = [cmsg(1, 2, b"abc"), cmsg(3, 4, b""), cmsg(5, 6, b"12345678")].concat();
        let walked: Vec<_> = Cmsgs::new(&control).map(|it| (it.level, it.kind, it.data)).collect();
        assert_eq!(
            walked,
            [(1, 2, &b"abc"[..]), (3, 4, &b""[..]), (5, 6, &b"12345678"[..])]
        );
    }

    #[test]
    fn a_length_that_cannot_be_ends_the_walk() {
        for len_bytes in [0, 1, 15, 25, 1 << 20, usize::MAX] {
            let mut control = cmsg(1, 2, b"12345678");
            control[..size_of::<usize>()].copy_from_slice(&len_bytes.to_ne_bytes());
            assert_eq!(Cmsgs::new(&control).count(), 0, "{len_bytes}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(control in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Cmsgs::new(&control).count() <= control.len() / size_of::<libc::cmsghdr>());
        }

        /// Lengths that are nearly right get further than noise does.
        #[test]
        fn nearly_right_lengths_are_walked_to_an_end(lengths in prop::collection::vec(0usize..40, 1..12)) {
            let mut control = vec![0; 256];
            let mut at = 0;
            for len_bytes in lengths {
                let Some(place) = control.get_mut(at..at + size_of::<usize>()) else { break };
                place.copy_from_slice(&len_bytes.to_ne_bytes());
                at += len_bytes.next_multiple_of(8).max(8);
            }
            prop_assert!(Cmsgs::new(&control).count() <= 16);
        }
    }
}
