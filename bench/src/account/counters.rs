//! The kernel's own counters of one network namespace, read before and after: what an interface and the IP and UDP layers
//! did with frames.

use std::{collections::BTreeMap, fs};

use serde::{Deserialize, Serialize};

/// Counters of the namespace that the calling thread stands in, by name; what could not be read is absent.
///
/// Names: `interface.tx_dropped` and its siblings, `Udp.NoPorts` and its siblings of IPv4, `Udp6NoPorts` and its siblings
/// of IPv6, and `softnet.dropped`, which is the whole machine's. Bytes are not among them: an account is of frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads them now. `/proc/thread-self` and not `/proc/self`: the latter is the namespace of the process's first thread.
    pub fn read(interface: &str) -> Counters {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut counters = BTreeMap::new();
        parse_dev(&text("/proc/thread-self/net/dev"), interface, &mut counters);
        parse_snmp(&text("/proc/thread-self/net/snmp"), &mut counters);
        parse_snmp6(&text("/proc/thread-self/net/snmp6"), &mut counters);
        parse_softnet(&text("/proc/net/softnet_stat"), &mut counters);
        counters.retain(|name, _| !name.ends_with("bytes") && !name.ends_with("Octets"));
        Counters(counters)
    }

    /// How far each has moved since `before`.
    pub fn since(&self, before: &Counters) -> Counters {
        let moved = |(name, after): (&String, &u64)| {
            let before = before.0.get(name)?;
            Some((name.clone(), after.saturating_sub(*before)))
        };
        Counters(self.0.iter().filter_map(moved).collect())
    }

    /// One of them; 0 if it could not be read.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All of them, as they were read.
    pub fn all(&self) -> &BTreeMap<String, u64> {
        &self.0
    }

    /// Those that are not zero.
    pub fn moved(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(name, count)| (name.as_str(), *count))
    }

    #[cfg(test)]
    pub(crate) fn of(counts: &[(&str, u64)]) -> Counters {
        Counters(
            counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
        )
    }
}

/// The columns of /proc/net/dev (net/core/net-procfs.c, `dev_seq_printf_stats`).
const DEV_COLUMNS: [&str; 16] = [
    "rx_bytes",
    "rx_packets",
    "rx_errors",
    "rx_dropped",
    "rx_fifo",
    "rx_frame",
    "rx_compressed",
    "multicast",
    "tx_bytes",
    "tx_packets",
    "tx_errors",
    "tx_dropped",
    "tx_fifo",
    "collisions",
    "tx_carrier",
    "tx_compressed",
];

fn parse_dev(text: &str, interface: &str, into: &mut BTreeMap<String, u64>) {
    let columns = text.lines().find_map(|line| {
        let (name, columns) = line.split_once(':')?;
        (name.trim() == interface).then_some(columns)
    });
    for (name, value) in DEV_COLUMNS
        .iter()
        .zip(columns.unwrap_or_default().split_ascii_whitespace())
    {
        if let Ok(value) = value.parse() {
            into.insert(format!("interface.{name}"), value);
        }
    }
}

/// Pairs of lines: `Udp: InDatagrams NoPorts …`, `Udp: 17 0 …` (net/ipv4/proc.c).
fn parse_snmp(text: &str, into: &mut BTreeMap<String, u64>) {
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let (Some((group, names)), Some((same, values))) = (pair[0].split_once(':'), pair[1].split_once(':')) else {
            continue;
        };
        if group != same || !["Ip", "Udp"].contains(&group) {
            continue;
        }
        for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
            if let Ok(value) = value.parse() {
                into.insert(format!("{group}.{name}"), value);
            }
        }
    }
}

/// Lines `Udp6NoPorts 0` (net/ipv6/proc.c).
fn parse_snmp6(text: &str, into: &mut BTreeMap<String, u64>) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(name), Some(Ok(value))) = (words.next(), words.next().map(str::parse))
            && (name.starts_with("Udp6") || name.starts_with("Ip6"))
        {
            into.insert(name.to_owned(), value);
        }
    }
}

/// The second column of each CPU's line, in hexadecimal: frames that found the CPU's backlog full
/// (net.core.netdev_max_backlog; net/core/net-procfs.c, `softnet_seq_show`).
fn parse_softnet(text: &str, into: &mut BTreeMap<String, u64>) {
    let dropped: Option<u64> = text
        .lines()
        .map(|line| u64::from_str_radix(line.split_ascii_whitespace().nth(1)?, 16).ok())
        .sum();
    if let Some(dropped) = dropped.filter(|_| !text.is_empty()) {
        into.insert("softnet.dropped".to_owned(), dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1       2    0    0    0     0          0         0        1       2    0    0    0     0       0          0
   va0:  628       8    0    3    0     0          0         0 16854628  159008    0   87    0     0       0          0
";
    const SNMP: &str = "Ip: Forwarding DefaultTTL InDiscards
Ip: 2 64 5
Udp: InDatagrams NoPorts InErrors
Udp: 119424 85225 7
UdpLite: InDatagrams NoPorts InErrors
UdpLite: 1 1 1
";

    #[test]
    fn the_kernel_s_tables_are_read() {
        let mut counters = BTreeMap::new();
        parse_dev(DEV, "va0", &mut counters);
        parse_snmp(SNMP, &mut counters);
        parse_snmp6("Udp6NoPorts  \t4\nIcmp6InMsgs 9\n", &mut counters);
        parse_softnet("001b6a50 00000000 1\n001ac782 00000057 1\n", &mut counters);
        let counters = Counters(counters);
        for (name, count) in [
            ("interface.tx_packets", 159_008),
            ("interface.tx_dropped", 87),
            ("interface.rx_dropped", 3),
            ("Ip.InDiscards", 5),
            ("Udp.NoPorts", 85_225),
            ("Udp6NoPorts", 4),
            ("softnet.dropped", 87),
            ("UdpLite.NoPorts", 0),
            ("Icmp6InMsgs", 0),
        ] {
            assert_eq!(counters.get(name), count, "{name}");
        }
    }

    #[test]
    fn damaged_tables_give_what_they_have() {
        let mut counters = BTreeMap::new();
        parse_dev("va0: 1 x", "va0", &mut counters);
        parse_dev("", "va0", &mut counters);
        parse_snmp("Udp: NoPorts\nIp: 7\nUdp:", &mut counters);
        parse_softnet("zz\n", &mut counters);
        parse_softnet("", &mut counters);
        assert_eq!(counters.len(), 1, "{counters:?}");
    }

    #[test]
    fn only_what_was_read_both_times_has_moved() {
        let before = Counters::of(&[("a", 3), ("b", 1)]);
        let after = Counters::of(&[("a", 5), ("b", 1), ("c", 9)]);
        assert_eq!(after.since(&before).moved().collect::<Vec<_>>(), [("a", 2)]);
    }

    #[test]
    fn this_machine_has_them() {
        let counters = Counters::read("lo");
        assert!(counters.0.contains_key("interface.tx_dropped"), "{counters:?}");
        assert!(counters.0.contains_key("Udp.InErrors"), "{counters:?}");
        assert!(!counters.0.contains_key("interface.rx_bytes"), "{counters:?}");
    }
}
