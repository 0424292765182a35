//! What can go wrong between a program and an interface: the operation, what was seen, and what to try.

use std::{error::Error, io};

use dataplane_wire::ethernet::Mac;
use ebpf_abi::{Program, map};
use nix::errno::Errno;

use crate::Mode;

/// What bpf(2) asks of a process, where it says no.
pub(crate) const MEND_NOT_ALLOWED: &str = "needs CAP_BPF and CAP_NET_ADMIN in the initial user namespace (kernel.unprivileged_bpf_disabled \
    alone gives nobody XDP): run as root; where root is refused too, a container's seccomp filter, a security module or kernel \
    lockdown does it (dmesg says which)";

/// Why a program could not be loaded, run, attached or asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No interface of this name.
    #[error("attaching to {interface}: there is no such interface in this network namespace; `ip link` lists them")]
    NoInterface {
        /// The name.
        interface: String,
    },
    /// The interface went away, or was replaced by another of its name, while a program was attached.
    #[error(
        "{interface} is gone, or no longer the interface that the program was attached to: frames counted before stay \
         readable, no more will come; attach again once the interface is back"
    )]
    InterfaceGone {
        /// The name that it had.
        interface: String,
    },
    /// An exchange of programs failed before, and took the link with it.
    #[error(
        "{interface} has no program any more: putting another in its place failed; attach one again with a new process"
    )]
    Detached {
        /// The name of the interface.
        interface: String,
    },
    /// Another program is attached.
    #[error(
        "attaching to {interface}: another program is attached there in {mode} mode, and two do not fit; \
         `ip link show dev {interface}` shows its id and `bpftool link` its owner; end that, or detach a program that nobody \
         owns with `ip link set dev {interface} {} off`", .mode.ip_link_word()
    )]
    Busy {
        /// Where.
        interface: String,
        /// The mode of the program that is there.
        mode: Mode,
    },
    /// Frames of this MTU do not fit the one buffer that the program can read.
    #[error(
        "attaching to {interface} in {mode} mode: {error}: the driver refuses a program for frames of one buffer at this MTU \
         ({}); lower the MTU of the interface, or on a veth of its peer (`ip link set dev {interface} mtu 1500`), or load the \
         program for frames of several buffers (Settings::frags)", mtu_text(*.mtu_bytes)
    )]
    MtuTooLarge {
        /// Where.
        interface: String,
        /// As asked for.
        mode: Mode,
        /// Of the interface itself, where it could be read.
        mtu_bytes: Option<u32>,
        /// What the kernel said.
        error: io::Error,
    },
    /// The driver cannot run programs.
    #[error(
        "attaching to {interface} in native mode: {error}: its driver does not run XDP programs (a few drivers say this of an MTU \
         too large for one buffer as well); generic mode runs them in the network stack, after the socket buffer is made"
    )]
    NoNative {
        /// Where.
        interface: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The device does not run this program.
    #[error("a program on {interface} itself: {why}")]
    NoOffload {
        /// Where.
        interface: String,
        /// What was seen, and what to try.
        why: String,
    },
    /// A privilege is missing: says nothing about what the kernel can do.
    #[error("{operation}: {error}; {MEND_NOT_ALLOWED}")]
    NotAllowed {
        /// What was tried.
        operation: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// This kernel has no BPF.
    #[error("{operation}: {error}: this kernel was built without bpf(2) (CONFIG_BPF_SYSCALL)")]
    NoBpf {
        /// What was tried.
        operation: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// This kernel is too old for it.
    #[error("{what} need Linux {since}, and this kernel ({here}) is older or was built without them")]
    OldKernel {
        /// What was asked for, in the plural.
        what: &'static str,
        /// The first kernel that has it.
        since: &'static str,
        /// What runs here.
        here: String,
    },
    /// A part that this build was made without.
    #[error("{what} is not in this build: build it with the feature `{feature}`")]
    NotBuilt {
        /// What was asked for.
        what: &'static str,
        /// The feature of this crate, and of `bench`, that has it.
        feature: &'static str,
    },
    /// The kernel, or libbpf, refused a congestion controller.
    #[error("{operation}: {error}{}{log_tail}", if .log_tail.is_empty() { "" } else { ":\n" })]
    Controller {
        /// What was tried.
        operation: &'static str,
        /// What was answered, and what to try.
        error: String,
        /// The end of what libbpf and the verifier said.
        log_tail: String,
    },
    /// This kernel does not say where its structures keep what.
    #[error(
        "reading where this kernel keeps what (/sys/kernel/btf/vmlinux): {error}; a program that looks into its structures needs a \
         kernel built with CONFIG_DEBUG_INFO_BTF, as distributions' are"
    )]
    NoTypes {
        /// What was not found.
        error: io::Error,
    },
    /// The verifier did not believe that the program is safe.
    #[error(
        "loading {function}: {error}: the verifier of this kernel refuses the program, which is a mistake in it; please report \
         the kernel's version and the end of the verifier's log:\n{log_tail}"
    )]
    Refused {
        /// The function that was to be loaded.
        function: &'static str,
        /// What the kernel said.
        error: io::Error,
        /// The end of the verifier's log.
        log_tail: String,
    },
    /// The verifier did not believe that a program of somebody else's is safe.
    #[error(
        "loading {function}: {error}: the verifier refuses the program; its last words say where, and why:\n{log_tail}"
    )]
    ForeignRefused {
        /// The function that was to be loaded.
        function: String,
        /// What the kernel said.
        error: io::Error,
        /// The end of the verifier's log.
        log_tail: String,
    },
    /// An object of somebody else's without the function that was asked for.
    #[error("loading {function}: {why}; `llvm-objdump -h -t` shows an object's sections and functions")]
    ForeignObject {
        /// The function that was to be loaded.
        function: String,
        /// What does not fit.
        why: String,
    },
    /// A hub tells hosts apart by one byte.
    #[error(
        "a hub for {one} and {other}: it tells hosts apart by the last byte of their addresses; give one of them another address"
    )]
    TwoHosts {
        /// One of the hosts.
        one: Mac,
        /// The other.
        other: Mac,
    },
    /// The group has more members than the program has places for.
    #[error(
        "a hub with more than {} ports in its group: its map has no more places",
        map::GROUP_PORTS_MAX
    )]
    GroupTooLarge,
    /// The object in this binary does not fit this crate.
    #[error("reading the object of {}: {why}; it does not fit this build: run scripts/build-ebpf and build again", .program.name())]
    Object {
        /// Whose.
        program: Program,
        /// What does not fit.
        why: String,
    },
    /// This program has no counters.
    #[error("{} counts nothing: it does not look into frames", .program.name())]
    CountsNothing {
        /// Which.
        program: Program,
    },
    /// This program takes no sockets.
    #[error("{} hands frames to no socket: load steer", .program.name())]
    TakesNoSocket {
        /// Which.
        program: Program,
    },
    /// A queue beyond the map.
    #[error("receive queue {queue}: steer has room for queues 0 to {}; lower their number (`ethtool -L`)", map::SOCKETS_MAX - 1)]
    Queue {
        /// As asked for.
        queue: u32,
    },
    /// A frame that the kernel does not run a program on.
    #[error(
        "running a program on a frame of {frame_bytes} bytes: the kernel takes an Ethernet header (14 bytes) at least, and at \
         most 18 buffers of a page each (before Linux 5.18 one, which holds about 3,500 bytes)"
    )]
    FrameLength {
        /// Of the frame.
        frame_bytes: usize,
    },
    /// The interface carries the default route.
    #[error(
        "{interface} carries the default route ({route}): whoever is logged in over the network is likely to be so through it, \
         and a mistake in a program, or a driver that resets the link when one is attached, would lock them out; name another \
         interface, or force it if this machine can be reached another way"
    )]
    DefaultRoute {
        /// As asked for.
        interface: String,
        /// Which route that is.
        route: String,
    },
    /// Something else.
    #[error("{operation}: {error}; {mend}")]
    Kernel {
        /// What was tried.
        operation: String,
        /// What the kernel said.
        error: io::Error,
        /// What to try.
        mend: &'static str,
    },
}

impl HostError {
    /// An errno that means the same whatever was tried.
    pub(crate) fn kernel(operation: String, error: io::Error) -> HostError {
        match errno(&error) {
            Some(Errno::EPERM | Errno::EACCES) => HostError::NotAllowed { operation, error },
            Some(Errno::ENOSYS) => HostError::NoBpf { operation, error },
            Some(Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE) => HostError::Kernel {
                operation,
                error,
                mend: "out of memory or files: see `ulimit -n -l` and `free -m`",
            },
            Some(Errno::ENOSPC) => HostError::Kernel {
                operation,
                error,
                mend: "the interface has too few queues: a veth needs as many receive queues as its peer has transmit queues \
                       (`ip -d link`), a NIC room for one more transmit queue a CPU (`ethtool -L`)",
            },
            _ => HostError::Kernel {
                operation,
                error,
                mend: "this errno was not expected; dmesg may say more, and bpf(2) what it can mean",
            },
        }
    }

    /// What became of bpf(2) when `mode` was asked for on `interface`.
    pub(crate) fn attaching(
        interface: &str,
        mode: Mode,
        frags: bool,
        mtu_bytes: Option<u32>,
        error: io::Error,
    ) -> HostError {
        let interface = interface.to_owned();
        // Errnos of dev_xdp_attach, net/core/dev.c; what a driver adds is its own affair.
        match (errno(&error), mode) {
            (Some(Errno::ENODEV), _) => HostError::NoInterface { interface },
            (Some(Errno::EBUSY), mode) => HostError::Busy { interface, mode },
            // Only these two are never there together.
            (Some(Errno::EEXIST), Mode::Native) => HostError::Busy {
                interface,
                mode: Mode::Generic,
            },
            (Some(Errno::EEXIST), Mode::Generic) => HostError::Busy {
                interface,
                mode: Mode::Native,
            },
            // veth says ERANGE; virtio_net, ixgbe and i40e EINVAL.
            (Some(Errno::ERANGE), _) if !frags => HostError::MtuTooLarge {
                interface,
                mode,
                mtu_bytes,
                error,
            },
            (Some(Errno::EINVAL), Mode::Native)
                if !frags && mtu_bytes.is_some_and(|mtu_bytes| mtu_bytes > ONE_BUFFER_MTU_BYTES_MAX) =>
            {
                HostError::MtuTooLarge {
                    interface,
                    mode,
                    mtu_bytes,
                    error,
                }
            }
            (Some(Errno::EOPNOTSUPP), Mode::Native) => HostError::NoNative { interface, error },
            _ => HostError::kernel(format!("attaching to {interface} in {mode} mode"), error),
        }
    }
}

/// The largest MTU whose frames may fit one buffer: a page of 4,096 bytes without the headroom of 256
/// (XDP_PACKET_HEADROOM, include/uapi/linux/bpf.h), the Ethernet header, and 320 bytes of struct skb_shared_info.
const ONE_BUFFER_MTU_BYTES_MAX: u32 = 4096 - 256 - 14 - 320;

fn mtu_text(mtu_bytes: Option<u32>) -> String {
    match mtu_bytes {
        Some(mtu_bytes) => format!("its own is {mtu_bytes} bytes"),
        None => "which could not be read".to_owned(),
    }
}

pub(crate) fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

/// The errno at the bottom of an error of aya's, which may be several layers deep. Without one, its text.
pub(crate) fn io_error(error: &(dyn Error + 'static)) -> io::Error {
    let mut layer = Some(error);
    let mut text = Vec::new();
    while let Some(error) = layer {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(errno);
        }
        text.push(error.to_string());
        layer = error.source();
    }
    io::Error::other(text.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attaching(errno: Errno, mode: Mode, mtu_bytes: Option<u32>) -> HostError {
        HostError::attaching("eth7", mode, false, mtu_bytes, errno.into())
    }

    #[test]
    fn each_errno_of_attaching_names_its_cause_and_its_remedy() {
        let cases = [
            (Errno::ENODEV, Mode::Native, None, "`ip link` lists them"),
            (Errno::EBUSY, Mode::Native, None, "in native mode, and two do not fit"),
            (Errno::EBUSY, Mode::Native, None, "ip link set dev eth7 xdpdrv off"),
            (Errno::EEXIST, Mode::Native, None, "ip link set dev eth7 xdpgeneric off"),
            (Errno::ERANGE, Mode::Native, Some(9000), "its own is 9000 bytes"),
            (Errno::EINVAL, Mode::Native, Some(9000), "Settings::frags"),
            (Errno::EINVAL, Mode::Native, Some(1500), "not expected"),
            (Errno::EOPNOTSUPP, Mode::Native, Some(1500), "generic mode runs them"),
            (Errno::EOPNOTSUPP, Mode::Generic, Some(1500), "not expected"),
            (Errno::EBUSY, Mode::Offload, None, "ip link set dev eth7 xdpoffload off"),
            (Errno::EPERM, Mode::Generic, None, "CAP_BPF"),
            (Errno::ENOSYS, Mode::Generic, None, "CONFIG_BPF_SYSCALL"),
            (Errno::ENOSPC, Mode::Native, None, "queues"),
        ];
        for (errno, mode, mtu_bytes, part) in cases {
            let text = attaching(errno, mode, mtu_bytes).to_string();
            assert!(
                text.contains("eth7") && text.contains(part),
                "{errno}: {part:?} is missing in {text:?}"
            );
        }
    }

    #[test]
    fn the_errno_is_found_under_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::from_raw_os_error(1));
        assert_eq!(io_error(&error).raw_os_error(), Some(1));
        let error = Outer(io::Error::other("no errno"));
        assert_eq!(io_error(&error).to_string(), "outer: no errno");
    }
}
