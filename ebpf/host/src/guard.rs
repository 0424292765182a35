//! Keeps programs off the interface by which somebody may be logged in, unless that is what is wanted.

use std::{fs, io, path::Path};

use crate::HostError;

/// The routing tables of the namespace in which the calling thread stands.
const IPV4_ROUTES: &str = "/proc/thread-self/net/route";
const IPV6_ROUTES: &str = "/proc/thread-self/net/ipv6_route";
/// A default route is often cut in two (0.0.0.0/1 and 128.0.0.0/1, as VPNs do).
const IPV4_DEFAULT_PREFIX_LEN_MAX: u32 = 1;
/// 2000::/3 is all of the Internet (RFC 4291 section 2.4).
const IPV6_DEFAULT_PREFIX_LEN_MAX: u32 = 3;
/// Source: include/uapi/linux/route.h. A route that refuses leads nowhere; the kernel keeps such defaults on `lo`.
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;
/// How many interfaces may stand on each other: VLAN on bridge on bond on NIC, and some air.
const STACKED_MAX: usize = 8;

/// Refuses an interface that carries a default route, itself or for what stands on it (a bridge, a bond, a VLAN). To be
/// called before a program is attached to an interface that the lab did not make; `force` lets everything pass.
///
/// The main tables are looked at; a default route that policy rules hide in another table is not seen.
///
/// # Errors
/// [`HostError::DefaultRoute`]; a routing table that cannot be read.
pub fn refuse_default_route(interface: &str, force: bool) -> Result<(), HostError> {
    if force {
        return Ok(());
    }
    let read = |path: &str| match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        // A kernel without this family has no such table.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(HostError::Kernel {
            operation: format!("reading {path}"),
            error,
            mend: "without it nobody knows whether this interface carries the default route; force it if it does not",
        }),
    };
    let defaults = [
        default_routes_ipv4(&read(IPV4_ROUTES)?),
        default_routes_ipv6(&read(IPV6_ROUTES)?),
    ]
    .concat();
    let concerned = with_what_stands_on(interface, Path::new("/sys/class/net"));
    match defaults.into_iter().find(|(carrier, _)| concerned.contains(carrier)) {
        Some((carrier, route)) => Err(HostError::DefaultRoute {
            interface: interface.to_owned(),
            route: match carrier == interface {
                true => route,
                false => format!("{route}, by {carrier}, which stands on it"),
            },
        }),
        None => Ok(()),
    }
}

/// Interfaces with their default routes, out of the text of /proc/net/route: a heading, then one line a route with name,
/// destination, gateway, flags, three counters and mask, numbers in hexadecimal and addresses in network byte order.
fn default_routes_ipv4(table: &str) -> Vec<(String, String)> {
    let hex = |text: &&str| u32::from_str_radix(text, 16).ok();
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let flags = fields.get(3).and_then(hex)?;
        let prefix_len = fields.get(7).and_then(hex)?.count_ones();
        let leads = flags & RTF_UP != 0 && flags & RTF_REJECT == 0;
        let name = fields.first()?.to_string();
        (leads && prefix_len <= IPV4_DEFAULT_PREFIX_LEN_MAX).then(|| (name, format!("IPv4, a /{prefix_len}")))
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// The same out of /proc/net/ipv6_route: destination, prefix length, source, its prefix length, next hop, metric, two counters,
/// flags and name, all in hexadecimal.
fn default_routes_ipv6(table: &str) -> Vec<(String, String)> {
    let hex = |text: &&str| u32::from_str_radix(text, 16).ok();
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let prefix_len = fields.get(1).and_then(hex)?;
        let flags = fields.get(8).and_then(hex)?;
        let leads = flags & RTF_UP != 0 && flags & RTF_REJECT == 0;
        let name = fields.get(9)?.to_string();
        (leads && prefix_len <= IPV6_DEFAULT_PREFIX_LEN_MAX).then(|| (name, format!("IPv6, a /{prefix_len}")))
    };
    table.lines().filter_map(route).collect()
}

/// `interface` and every interface that stands on it, as far as sysfs tells (links `upper_NAME`). Where /sys shows another
/// namespace's interfaces, the interface is alone.
fn with_what_stands_on(interface: &str, class_net: &Path) -> Vec<String> {
    let mut all = vec![interface.to_owned()];
    let mut index = 0;
    while index < all.len() && index < STACKED_MAX {
        let entries = fs::read_dir(class_net.join(&all[index]))
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let name = entry.file_name();
            if let Some(upper) = name.to_str().and_then(|name| name.strip_prefix("upper_"))
                && !all.iter().any(|known| known == upper)
            {
                all.push(upper.to_owned());
            }
        }
        index += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010010AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000010AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
tun0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
eth1\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth2\t00000000\t010010AC\t0002\t0\t0\t0\t00000000\t0\t0\t0
";
    const IPV6: &str = "\
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo
";

    #[test]
    fn default_routes_are_found_and_others_are_not() {
        let names = |routes: Vec<(String, String)>| routes.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(default_routes_ipv4(IPV4)), ["eth0", "tun0"]);
        assert_eq!(names(default_routes_ipv6(IPV6)), ["eth0"]);
    }

    #[test]
    fn tables_that_make_no_sense_have_no_routes() {
        for table in ["", "x\n\n", "a b c d\ne f g h i j k l\n", "Iface\neth0 zz zz zz\n"] {
            assert_eq!(default_routes_ipv4(table), []);
            assert_eq!(default_routes_ipv6(table), []);
        }
    }

    #[test]
    fn what_stands_on_an_interface_is_concerned_too() {
        let sys = std::env::temp_dir().join(format!("dplab-guard-{}", std::process::id()));
        for link in [
            "eth0/upper_bond0",
            "eth1/queues",
            "bond0/upper_br0",
            "bond0/lower_eth0",
            "br0/upper_br0",
        ] {
            fs::create_dir_all(sys.join(link)).unwrap();
        }
        assert_eq!(with_what_stands_on("eth0", &sys), ["eth0", "bond0", "br0"]);
        assert_eq!(with_what_stands_on("eth1", &sys), ["eth1"]);
        assert_eq!(with_what_stands_on("absent", &sys), ["absent"]);
        fs::remove_dir_all(&sys).unwrap();
    }

    #[test]
    fn this_machines_tables_can_be_read() {
        refuse_default_route("no-such-interface", false).unwrap();
        refuse_default_route("no-such-interface", true).unwrap();
    }
}
