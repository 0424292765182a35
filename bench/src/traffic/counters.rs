//! What the TCP and IP of a namespace counted, from /proc/net/netstat and /proc/net/snmp.

use std::{collections::BTreeMap, fs};

use anyhow::Context;
use dataplane_netns::Host;

/// The counters that are kept: section and name in the kernel's words (Documentation/networking/snmp_counter.rst), and ours.
pub const COUNTED: [(&str, &str, &str); 9] = [
    ("TcpExt", "TCPTimeouts", "timeouts"),
    ("TcpExt", "TCPLossProbes", "loss_probes"),
    ("TcpExt", "TCPLossProbeRecovery", "losses_found_by_probes"),
    ("TcpExt", "TCPFastRetrans", "fast_retransmits"),
    ("TcpExt", "TCPSpuriousRTOs", "spurious_timeouts"),
    ("Tcp", "RetransSegs", "retransmits"),
    ("Tcp", "OutSegs", "segments_out"),
    ("IpExt", "InCEPkts", "ce_packets_in"),
    ("IpExt", "InECT0Pkts", "ect_packets_in"),
];

/// Counters by our names ([`COUNTED`]). Those that a kernel does not have are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    /// As they stand in `host`.
    ///
    /// # Errors
    /// They could not be read.
    pub fn read(host: &Host) -> anyhow::Result<Counters> {
        let texts = host.run(|| {
            ["netstat", "snmp"].map(|file| {
                let path = format!("/proc/thread-self/net/{file}");
                fs::read_to_string(&path).with_context(|| format!("reading {path} in {}", host.name()))
            })
        })?;
        let [netstat, snmp] = texts;
        Ok(Counters::parse(&netstat?, &snmp?))
    }

    fn parse(netstat: &str, snmp: &str) -> Counters {
        let mut counters = BTreeMap::new();
        for text in [netstat, snmp] {
            // Lines come in pairs: names, then values, each behind the same section.
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.chunks_exact(2) {
                let (Some((section, names)), Some((_, values))) = (pair[0].split_once(':'), pair[1].split_once(':'))
                else {
                    continue;
                };
                let values: Vec<&str> = values.split_whitespace().collect();
                for (name, value) in names.split_whitespace().zip(values) {
                    let ours = COUNTED.iter().find(|(a, b, _)| *a == section && *b == name);
                    if let (Some((_, _, ours)), Ok(value)) = (ours, value.parse()) {
                        counters.insert(*ours, value);
                    }
                }
            }
        }
        Counters(counters)
    }

    /// How many more there are than `before`.
    pub fn since(&self, before: &Counters) -> Counters {
        let grown = |(name, now): (&&'static str, &u64)| {
            let then = before.0.get(name).copied().unwrap_or(0);
            (*name, now.saturating_sub(then))
        };
        Counters(self.0.iter().map(grown).collect())
    }

    /// Adds those of another host.
    pub fn add(&mut self, other: &Counters) {
        for (name, value) in &other.0 {
            *self.0.entry(name).or_default() += value;
        }
    }

    /// One of them, by our name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_lines_are_read_and_what_is_missing_is_not_there() {
        let netstat = "TcpExt: SyncookiesSent TCPTimeouts TCPLossProbes\nTcpExt: 1 20 300\nIpExt: InNoRoutes InCEPkts\nIpExt: 0 7\n";
        let snmp = "Tcp: RtoAlgorithm RetransSegs\nTcp: 1 44\n";
        let counters = Counters::parse(netstat, snmp);
        assert_eq!(counters.get("timeouts"), Some(20));
        assert_eq!(counters.get("loss_probes"), Some(300));
        assert_eq!(counters.get("ce_packets_in"), Some(7));
        assert_eq!(counters.get("retransmits"), Some(44));
        assert_eq!(counters.get("spurious_timeouts"), None);
        let later = Counters::parse("TcpExt: TCPTimeouts\nTcpExt: 25\n", "");
        let mut grown = later.since(&counters);
        grown.add(&grown.clone());
        assert_eq!(grown.get("timeouts"), Some(10));
        assert_eq!(Counters::parse("nonsense", "TcpExt: A\n"), Counters::default());
    }
}
