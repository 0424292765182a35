//! One host of a network: a namespace to work in, and the addresses under which others find it; a card in front of one; and a
//! star's switch, which has ports instead.

use crate::NetError;
use crate::namespace::{Entered, Namespace};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
