//! Which providers of RDMA are here, for `dplab probe`.

use std::net::{IpAddr, Ipv4Addr};

use dataplane_waist::{ProbeError, Support};
use rdma::{roce, shm, verbs};

use crate::record::BackEndRecord;

/// Asks each provider.
pub fn probe() -> Vec<BackEndRecord> {
    let record = |name: &str, summary: &str, support: Result<Support, ProbeError>| BackEndRecord {
        name: name.to_owned(),
        summary: summary.to_owned(),
        support: support.into(),
    };
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    vec![
        record(verbs::PROBE_NAME, "a device of libibverbs", verbs::probe()),
        record("roce", "this project's RoCEv2 endpoint", roce::probe(loopback)),
        record("rdma-shm", "memory that two processes share", shm::probe()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SupportRecord;

    #[test]
    fn every_provider_is_asked_and_software_is_not_called_native() {
        let providers = probe();
        let names: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
        assert_eq!(names, ["verbs", "roce", "rdma-shm"]);
        for provider in &providers[1..] {
            assert_ne!(provider.support, SupportRecord::Native, "{}", provider.name);
        }
        if let SupportRecord::Absent { why } = &providers[0].support {
            assert!(why.len() > 20, "no reason: {why}");
        }
    }
}
