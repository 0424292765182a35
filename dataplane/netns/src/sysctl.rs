//! Settings and state of the network stack of the namespace in which the thread stands, through /proc, which shows each
//! thread its own.

use crate::NetError;
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv6Addr;
use std::path::Path;

/// Whether the kernel runs IPv6 at all (it may be built without, or started with ipv6.disable=1).
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all").exists()
}

/// Makes a new namespace quiet and says whether it forwards. To be called before the first interface is made: interfaces copy `default`.
pub(crate) fn settle(name: &str, forwards: bool, has_ipv6: bool) -> Result<(), NetError> {
    let forwarding = if forwards { "1" } else { "0" };
    // IPv4 settings start as a copy of the machine's, which may forward and filter.
    set(name, "net/ipv4/ip_forward", forwarding)?;
    set(name, "net/ipv4/conf/all/rp_filter", "0")?;
    set(name, "net/ipv4/conf/default/rp_filter", "0")?;
    if has_ipv6 {
        set(name, "net/ipv6/conf/all/disable_ipv6", "0")?;
        set(name, "net/ipv6/conf/default/disable_ipv6", "0")?;
        // An address is usable at once: nobody else can have it.
        set(name, "net/ipv6/conf/default/accept_dad", "0")?;
        // No router will answer, so nobody asks: the link carries nothing that was not sent by a measurement.
        set(name, "net/ipv6/conf/default/accept_ra", "0")?;
        set(name, "net/ipv6/conf/default/router_solicitations", "0")?;
        // 1 is IN6_ADDR_GEN_MODE_NONE: no link-local address, which would announce itself to multicast groups.
        set(name, "net/ipv6/conf/default/addr_gen_mode", "1")?;
        set(name, "net/ipv6/conf/all/forwarding", forwarding)?;
    }
    Ok(())
}

/// A bridge hands frames to iptables where br_netfilter is loaded; a switch must not.
pub(crate) fn settle_switch(name: &str) -> Result<(), NetError> {
    for setting in [
        "net/bridge/bridge-nf-call-iptables",
        "net/bridge/bridge-nf-call-ip6tables",
        "net/bridge/bridge-nf-call-arptables",
    ] {
        if Path::new("/proc/sys").join(setting).exists() {
            set(name, setting, "0")?;
        }
    }
    Ok(())
}

/// Whether datagrams to `address` are delivered here: only then is its /128 in the table of local routes.
///
/// An address that skips duplicate detection can be bound at once, and yet the kernel enters its route later, from a work
/// queue (net/ipv6/addrconf.c, `addrconf_dad_start`, `addrconf_dad_completed`). What comes in between is lost.
pub(crate) fn takes_ipv6_for(address: Ipv6Addr) -> Result<bool, NetError> {
    let path = "/proc/thread-self/net/ipv6_route";
    let routes = fs::read_to_string(path).map_err(|error| NetError::kernel("reading", path, error))?;
    // Destination and prefix length come first, in hexadecimal without colons.
    let entry = format!("{:032x} 80 ", address.to_bits());
    Ok(routes.lines().any(|line| line.starts_with(&entry)))
}

/// A setting as the kernel has it; nothing where the kernel has none of that name.
pub(crate) fn get(name: &str, setting: &str) -> Result<Option<String>, NetError> {
    match fs::read_to_string(Path::new("/proc/sys").join(setting)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(NetError::kernel("reading", format!("{setting} in {name}"), error)),
    }
}

pub(crate) fn set(name: &str, setting: &str, value: &str) -> Result<(), NetError> {
    let path = Path::new("/proc/sys").join(setting);
    // In a container /proc/sys may be read-only and yet hold what is wanted.
    match fs::write(&path, value) {
        Ok(()) => Ok(()),
        Err(_) if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) => Ok(()),
        // A kernel older than the setting does not do what it switches off.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(NetError::kernel(
            "setting",
            format!("{setting}={value} in {name}"),
            error,
        )),
    }
}
