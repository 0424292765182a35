//! Why a socket or a port could not be opened, each with what would mend it.

use std::io;

use super::{SocketOptions, TxMetadata, Umem, XdpCopy};

/// Why not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The options contradict each other or the interface.
    #[error("{0}")]
    Options(String),
    /// No such interface in this network namespace.
    #[error("there is no interface {interface} in this network namespace ({error}); `ip link` lists them")]
    NoInterface {
        /// The name that was given.
        interface: String,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// A privilege is missing.
    #[error(
        "{asked} is not allowed ({error}): AF_XDP needs CAP_NET_RAW (and CAP_NET_ADMIN to poll busily); the program that \
         brings frames to the socket needs CAP_BPF and CAP_NET_ADMIN. Run as root"
    )]
    NotAllowed {
        /// What was tried.
        asked: &'static str,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// This kernel has no AF_XDP, or not the part of it that was asked for.
    #[error("this kernel refuses {asked} ({error}): {needs}")]
    NotSupported {
        /// What was tried.
        asked: &'static str,
        /// What the kernel said.
        #[source]
        error: io::Error,
        /// What has it.
        needs: &'static str,
    },
    /// Another socket is bound to the queue.
    #[error(
        "queue {queue} of {interface} is busy: another AF_XDP socket is bound to it (`ss --xdp -p` shows whose); close that \
         one or take another queue"
    )]
    QueueBusy {
        /// The interface.
        interface: String,
        /// Its queue.
        queue: u32,
    },
    /// The interface has fewer queues.
    #[error("{interface} has no queue {queue}: {hint}")]
    NoQueue {
        /// The interface.
        interface: String,
        /// The queue that was asked for, from 0.
        queue: u32,
        /// How to see how many there are.
        hint: String,
    },
    /// The interface is down.
    #[error("{interface} is down; try `ip link set {interface} up`")]
    Down {
        /// The interface.
        interface: String,
    },
    /// The driver does not let the device read and write our memory.
    #[error("the driver of {interface} has no zero-copy AF_XDP ({error}); use copy mode, which every driver has")]
    ZeroCopyRefused {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// The memory cannot be kept from being swapped.
    #[error(
        "the kernel may not lock {len_bytes} bytes of memory for this process ({error}): raise RLIMIT_MEMLOCK (`ulimit -l`), \
         run with CAP_IPC_LOCK, or ask for fewer frames"
    )]
    MemoryLimit {
        /// Bytes that were asked for.
        len_bytes: u64,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// Not as many huge pages as needed are reserved and free.
    #[error(
        "{pages_count} free huge pages are needed and not there ({error}): as root, add as many to the number in \
         /proc/sys/vm/nr_hugepages (`sysctl vm.nr_hugepages`), or use ordinary pages"
    )]
    NoHugePages {
        /// Pages of 2 MiB that are needed.
        pages_count: usize,
        /// What the kernel said.
        #[source]
        error: io::Error,
    },
    /// The memory was registered with a socket that is closed now.
    #[error(
        "the socket that this UMEM was registered with is closed: open all sockets of a UMEM before the first is dropped, or \
         make a new one"
    )]
    FirstClosed,
    /// The kernel said no to something else.
    #[error("{asked} failed: {error}")]
    Failed {
        /// What was tried.
        asked: &'static str,
        /// What came back.
        #[source]
        error: io::Error,
    },
}

/// What setsockopt(2) and socket(2) say.
pub(super) fn socket_error(asked: &'static str, error: io::Error) -> OpenError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::NotAllowed { asked, error },
        Some(libc::EAFNOSUPPORT) => OpenError::NotSupported {
            asked,
            error,
            needs: "it was built without CONFIG_XDP_SOCKETS",
        },
        Some(libc::ENOPROTOOPT) => OpenError::NotSupported {
            asked,
            error,
            needs: "it is too old, or was built without CONFIG_NET_RX_BUSY_POLL",
        },
        _ => OpenError::Failed { asked, error },
    }
}

/// What XDP_UMEM_REG says.
pub(super) fn umem_error(umem: &Umem, error: io::Error) -> OpenError {
    const ASKED: &str = "registering the memory of the frames";
    match error.raw_os_error() {
        Some(libc::ENOBUFS) => OpenError::MemoryLimit {
            len_bytes: umem.registration().len,
            error,
        },
        Some(libc::EINVAL) if umem.options().tx_metadata != TxMetadata::None => OpenError::NotSupported {
            asked: "transmit metadata",
            error,
            needs: "it came with Linux 6.8",
        },
        _ => socket_error(ASKED, error),
    }
}

/// What bind(2) says.
pub(super) fn bind_error(options: &SocketOptions, is_shared: bool, error: io::Error) -> OpenError {
    const ASKED: &str = "binding to the queue";
    let interface = options.interface.clone();
    match error.raw_os_error() {
        Some(libc::EBUSY) => OpenError::QueueBusy {
            interface,
            queue: options.queue,
        },
        Some(libc::ENETDOWN) => OpenError::Down { interface },
        Some(libc::ENODEV) => OpenError::NoInterface { interface, error },
        Some(libc::EOPNOTSUPP) if options.copy == XdpCopy::ZeroCopy => OpenError::ZeroCopyRefused { interface, error },
        // What else could be wrong is checked before, or known to be right on queue 0.
        Some(libc::EINVAL) if options.queue > 0 => OpenError::NoQueue {
            queue: options.queue,
            hint: format!("`ethtool -l {interface}` tells how many there are, counted from 0"),
            interface,
        },
        Some(libc::EINVAL) if options.multi_buffer && !is_shared => OpenError::NotSupported {
            asked: "packets of several frames (XDP_USE_SG)",
            error,
            needs: "they came with Linux 6.6; ask for frames that fit one",
        },
        _ => socket_error(ASKED, error),
    }
}
