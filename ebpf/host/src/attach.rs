//! A program on an interface, for as long as its link is held.

use core::fmt;
use std::{fs, os::fd::BorrowedFd};

use aya::{
    programs::{XdpMode, xdp::XdpLink},
    util::KernelVersion,
};
use nix::net::if_::if_nametoindex;

use crate::{
    Counts, HostError, Loaded,
    error::io_error,
    load::kernel_release,
    offload::{self, OnDevice},
};

/// Where on its way a frame meets the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In the driver, before a socket buffer is made. Attaching may reset the link of a physical interface for a second.
    Native,
    /// In the network stack, on a socket buffer: any driver can, nothing is saved.
    Generic,
    /// On the network card itself, whose driver has translated it: the host's CPU sees what the program passes. Only
    /// [`Program::Pass`](crate::Program::Pass) can be there; see [`probe_offload`](crate::probe_offload).
    Offload,
}

impl Mode {
    /// What `ip link set dev X …` calls it.
    pub(crate) const fn ip_link_word(self) -> &'static str {
        match self {
            Mode::Native => "xdpdrv",
            Mode::Generic => "xdpgeneric",
            Mode::Offload => "xdpoffload",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
            Mode::Offload => "offload",
        })
    }
}

/// What holds a program on its interface.
#[derive(Debug)]
pub(crate) enum Link {
    /// Run by a CPU of the host.
    Host(XdpLink),
    /// Run by the device.
    Device {
        /// Closed when the attachment goes.
        _held: OnDevice,
    },
}

/// A program attached to an interface; detached when this is dropped, and by the kernel when this process ends however it
/// ends. Dropping is silent also when the interface has gone before.
#[derive(Debug)]
pub struct Attachment {
    // Before the program: detached first. Nothing only while, or after, an exchange fails.
    link: Option<Link>,
    loaded: Loaded,
    interface: String,
    interface_index: u32,
    mode: Mode,
    why_not_native: Option<HostError>,
}

impl Loaded {
    /// Attaches the program to `interface` of the network namespace in which the calling thread stands.
    ///
    /// On a veth, frames that a native program sends back (XDP_TX) or redirects arrive only if the peer runs a native program
    /// too: attach [`Program::Pass`](crate::Program::Pass) there. Generic mode needs no such thing.
    ///
    /// # Errors
    /// [`HostError::NoInterface`], [`HostError::Busy`], [`HostError::MtuTooLarge`], [`HostError::NoNative`],
    /// [`HostError::NoOffload`], [`HostError::NotAllowed`], and what the driver says.
    pub fn attach(mut self, interface: &str, mode: Mode) -> Result<Attachment, HostError> {
        let link = self.link(interface, mode)?;
        Ok(Attachment::new(link, self, interface, mode, None))
    }

    /// Attaches the program natively or, where the driver cannot, in generic mode; [`Attachment::mode`] says which it
    /// became, and [`Attachment::why_not_native`] why.
    ///
    /// # Errors
    /// As [`Loaded::attach`], without [`HostError::NoNative`].
    pub fn attach_best(mut self, interface: &str) -> Result<Attachment, HostError> {
        match self.link(interface, Mode::Native) {
            Ok(link) => Ok(Attachment::new(link, self, interface, Mode::Native, None)),
            Err(why @ HostError::NoNative { .. }) => {
                let link = self.link(interface, Mode::Generic)?;
                Ok(Attachment::new(link, self, interface, Mode::Generic, Some(why)))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn link(&mut self, interface: &str, mode: Mode) -> Result<(Link, u32), HostError> {
        // Older kernels know netlink alone, by which a program outlives the process that attached it.
        if KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 9, 0)) {
            return Err(HostError::OldKernel {
                what: "BPF links of XDP programs",
                since: "5.9",
                here: kernel_release(),
            });
        }
        let index = if_nametoindex(interface).map_err(|_| HostError::NoInterface {
            interface: interface.to_owned(),
        })?;
        let frags = self.frags();
        let xdp_mode = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
            Mode::Offload => {
                let held = offload::attach(self.program(), interface, index)?;
                return Ok((Link::Device { _held: held }, index));
            }
        };
        let xdp = self.xdp_mut()?;
        let attached = xdp.attach_to_if_index(index, xdp_mode).and_then(|id| xdp.take_link(id));
        match attached {
            Ok(link) => Ok((Link::Host(link), index)),
            Err(error) => {
                let mtu_bytes = mtu_bytes(interface);
                Err(HostError::attaching(
                    interface,
                    mode,
                    frags,
                    mtu_bytes,
                    io_error(&error),
                ))
            }
        }
    }
}

impl Attachment {
    fn new(
        (link, interface_index): (Link, u32),
        loaded: Loaded,
        interface: &str,
        mode: Mode,
        why_not_native: Option<HostError>,
    ) -> Attachment {
        Attachment {
            link: Some(link),
            loaded,
            interface: interface.to_owned(),
            interface_index,
            mode,
            why_not_native,
        }
    }

    /// The interface's name, as it was asked for.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// How the program is attached.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// After [`Loaded::attach_best`]: what the driver said, if the mode is generic.
    pub const fn why_not_native(&self) -> Option<&HostError> {
        self.why_not_native.as_ref()
    }

    /// The program.
    pub const fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Puts another program in this one's place, atomically: every frame meets the one or the other. Says the old one.
    ///
    /// # Errors
    /// [`HostError::NoOffload`] on a device, which keeps the program that it has; [`HostError::Detached`] after an exchange that
    /// failed; what the kernel says: the interface then has no program.
    pub fn exchange(&mut self, mut program: Loaded) -> Result<Loaded, HostError> {
        let link = match self.link.take() {
            Some(Link::Host(link)) => link,
            Some(on_device) => {
                self.link = Some(on_device);
                return Err(HostError::NoOffload {
                    interface: self.interface.clone(),
                    why: "a program on the device is not exchanged for another: detach it first".to_owned(),
                });
            }
            None => {
                return Err(HostError::Detached {
                    interface: self.interface.clone(),
                });
            }
        };
        let frags = program.frags();
        let xdp = program.xdp_mut()?;
        let exchanged = xdp.attach_to_link(link).and_then(|id| xdp.take_link(id));
        let link = exchanged.map_err(|error| {
            let mtu_bytes = mtu_bytes(&self.interface);
            HostError::attaching(&self.interface, self.mode, frags, mtu_bytes, io_error(&error))
        })?;
        self.link = Some(Link::Host(link));
        Ok(std::mem::replace(&mut self.loaded, program))
    }

    /// What the program counted since it was loaded. Stays readable when the interface is gone.
    ///
    /// # Errors
    /// As [`Loaded::counts`].
    pub fn counts(&self) -> Result<Counts, HostError> {
        self.loaded.counts()
    }

    /// See [`Loaded::set_socket`].
    ///
    /// # Errors
    /// As there.
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), HostError> {
        self.loaded.set_socket(queue, socket)
    }

    /// See [`Loaded::clear_socket`].
    ///
    /// # Errors
    /// As there.
    pub fn clear_socket(&mut self, queue: u32) -> Result<(), HostError> {
        self.loaded.clear_socket(queue)
    }

    /// Whether the interface is still there. To be asked on a thread that stands in its network namespace.
    ///
    /// # Errors
    /// [`HostError::InterfaceGone`] if it is not, or if its name now belongs to another.
    pub fn check(&self) -> Result<(), HostError> {
        match if_nametoindex(self.interface.as_str()) {
            Ok(index) if index == self.interface_index => Ok(()),
            _ => Err(HostError::InterfaceGone {
                interface: self.interface.clone(),
            }),
        }
    }
}

/// The interface's MTU, from where the calling thread's own namespace shows it (/sys shows that of whoever mounted it): its
/// IPv6 settings, which follow the device (addrconf_notify, net/ipv6/addrconf.c).
pub(crate) fn mtu_bytes(interface: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/mtu")).ok()?;
    text.trim().parse().ok()
}
