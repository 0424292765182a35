//! One host of a network: a namespace to work in, and the addresses under which others find it; a card in front of one; and a
//! star's switch, which has ports instead.

use crate::namespace::{Entered, Namespace};
use crate::wire::Wire;
use crate::{NetError, sysctl, thread};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a route tells TCP connections that go over it (`ip route … initcwnd … quickack …`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteMetrics {
    /// Segments that a connection may send before the first ack; the kernel's own if it is not set.
    pub initial_window_segments: Option<u32>,
    /// Acks are never delayed.
    pub quick_acks: bool,
}

/// One of the hosts of a [`Network`](crate::Network). A clone may outlive the network; its links are gone then.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: Arc<Namespace>,
    /// Never empty.
    interfaces: Vec<Interface>,
}

/// An interface of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name inside the host: "eth0". Every host has its own.
    pub name: String,
    /// Ethernet address, locally administered.
    pub mac: [u8; 6],
    /// IPv4 address, /24.
    pub ipv4: Ipv4Addr,
    /// IPv6 address, /64; `None` where the kernel runs without IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl Host {
    pub(crate) fn new(namespace: Arc<Namespace>, interfaces: Vec<Interface>) -> Host {
        assert!(!interfaces.is_empty(), "{} has no link", namespace.name());
        Host { namespace, interfaces }
    }

    /// Name within its network: "h0".
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// All interfaces; in the middle of a chain first the one to the host before, then the one to the host after.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The first interface: the only one, but in the middle of a chain.
    pub fn interface(&self) -> &Interface {
        &self.interfaces[0]
    }

    /// Ethernet address of the first interface.
    pub fn mac(&self) -> [u8; 6] {
        self.interface().mac
    }

    /// IPv4 address of the first interface.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.interface().ipv4
    }

    /// IPv6 address of the first interface; `None` where the kernel runs without IPv6.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.interface().ipv6
    }

    /// Runs `work` with the calling thread inside this host: sockets that it opens, threads and child processes that it starts
    /// belong to this host for good. The thread returns to where it was, also when `work` panics.
    ///
    /// A child that asks to die with its parent (PR_SET_PDEATHSIG) dies with the *thread* that started it.
    ///
    /// # Errors
    /// The thread cannot enter, or cannot return (it gave up CAP_SYS_ADMIN in `work`, and stays inside).
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetError> {
        let inside = self.enter()?;
        let value = work();
        inside.leave()?;
        Ok(value)
    }

    /// Moves the calling thread into this host until the guard is dropped.
    ///
    /// # Errors
    /// setns(2) refused: the thread lacks CAP_SYS_ADMIN, or was started before [`prepare`](crate::prepare).
    pub fn enter(&self) -> Result<Entered, NetError> {
        self.namespace.enter()
    }

    /// A setting of this host's network stack, by its path below /proc/sys: `net/ipv4/tcp_sack`. Nothing where the kernel has none of
    /// that name.
    ///
    /// # Errors
    /// It could not be read.
    pub fn setting(&self, path: &str) -> Result<Option<String>, NetError> {
        self.run(|| sysctl::get(self.name(), path))?
    }

    /// Changes a setting of this host's network stack alone. One that the kernel does not have stays as it is, so read it back.
    ///
    /// # Errors
    /// The kernel refused the value.
    pub fn set_setting(&self, path: &str, value: &str) -> Result<(), NetError> {
        self.run(|| sysctl::set(self.name(), path, value))?
    }

    /// Says how connections that this host makes or takes from now on shall go to the others on its first interface's IPv4 network.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn set_route_metrics(&self, metrics: RouteMetrics) -> Result<(), NetError> {
        let (interface, name) = (self.interface(), self.name());
        // A runtime of its own must not start inside a caller's.
        thread::run("netns-route", || {
            self.run(|| {
                let wire = Wire::open_here(name)?;
                let index = wire.link(&interface.name)?.index;
                wire.replace_route_ipv4(index, &interface.name, interface.ipv4, metrics)
            })?
        })?
    }

    /// Where another process can open this host's namespace while ours lives: `nsenter --net=PATH`, or setns(2).
    pub fn path(&self) -> PathBuf {
        self.namespace.path()
    }
}

/// The switch of a [`Network`](crate::Network) that is a star.
#[derive(Clone, Debug)]
pub struct Switch {
    namespace: Arc<Namespace>,
    ports: Vec<String>,
}

impl Switch {
    pub(crate) fn new(namespace: Arc<Namespace>, ports: Vec<String>) -> Switch {
        Switch { namespace, ports }
    }

    /// Names of its interfaces, in the order of the hosts behind them.
    pub fn ports(&self) -> &[String] {
        &self.ports
    }

    /// Runs `work` with the calling thread inside the switch, as [`Host::run`].
    ///
    /// # Errors
    /// As there.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetError> {
        let inside = self.namespace.enter()?;
        let value = work();
        inside.leave()?;
        Ok(value)
    }
}

/// A card in front of a host ([`NetworkOptions::cards`](crate::NetworkOptions::cards)): it has the wire at its outer interface
/// and its host at its inner one, and a bridge between them. It has no address; the host's is what the others know.
#[derive(Clone, Debug)]
pub struct Card {
    namespace: Arc<Namespace>,
    host: usize,
    inner: &'static str,
    outer: &'static str,
}

impl Card {
    pub(crate) fn new(namespace: Arc<Namespace>, host: usize, (inner, outer): (&'static str, &'static str)) -> Card {
        Card {
            namespace,
            host,
            inner,
            outer,
        }
    }

    /// Number of the host behind it.
    pub fn host(&self) -> usize {
        self.host
    }

    /// Name of the interface to the host.
    pub fn inner(&self) -> &'static str {
        self.inner
    }

    /// Name of the interface to the switch.
    pub fn outer(&self) -> &'static str {
        self.outer
    }

    /// As [`Host::run`].
    ///
    /// # Errors
    /// As there.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetError> {
        let inside = self.namespace.enter()?;
        let value = work();
        inside.leave()?;
        Ok(value)
    }

    /// As [`Host::path`]; [`run_at`] enters it.
    pub fn path(&self) -> PathBuf {
        self.namespace.path()
    }
}

/// Runs `work` with the calling thread inside the network namespace at `path`, which may be another process's. Otherwise as
/// [`Host::run`].
///
/// # Errors
/// As there; what opening `path` says.
pub fn run_at<T>(path: &Path, work: impl FnOnce() -> T) -> Result<T, NetError> {
    let inside = Namespace::open(path)?.enter()?;
    let value = work();
    inside.leave()?;
    Ok(value)
}
