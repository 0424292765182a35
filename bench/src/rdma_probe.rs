//! Which providers of RDMA are here, for `dplab probe`.

use std::net::{IpAddr, Ipv4Addr};

use rdma::{roce, shm, verbs};

use crate::{
    place::Place,
    record::{BackEndRecord, SupportRecord},
    remote_memory::pair::Via,
};

/// Asks each provider, between the ends of `place` where it takes two.
pub fn probe(place: &Place) -> Vec<BackEndRecord> {
    fn record(name: &str, summary: &str, support: impl Into<SupportRecord>) -> BackEndRecord {
        BackEndRecord {
            name: name.to_owned(),
            summary: summary.to_owned(),
            support: support.into(),
        }
    }
    let over_af_xdp = match Via::RoceAfXdp.absence(place) {
        Some(why) => SupportRecord::Absent { why },
        None => SupportRecord::Emulated {
            by: format!("RoCEv2 in user space over {}", Via::RoceAfXdp.moved_by()),
        },
    };
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    vec![
        record(verbs::PROBE_NAME, "a device of libibverbs", verbs::probe()),
        record("roce", "this project's RoCEv2 endpoint", roce::probe(loopback)),
        record("roce-af-xdp", "the same endpoint, past the IP stack", over_af_xdp),
        record("rdma-shm", "memory that two processes share", shm::probe()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SupportRecord;

    #[test]
    fn every_provider_is_asked_and_software_is_not_called_native() {
        let providers = probe(&Place::nowhere());
        let names: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
        assert_eq!(names, ["verbs", "roce", "roce-af-xdp", "rdma-shm"]);
        for provider in &providers[1..] {
            assert_ne!(provider.support, SupportRecord::Native, "{}", provider.name);
        }
        if let SupportRecord::Absent { why } = &providers[0].support {
            assert!(why.len() > 20, "no reason: {why}");
        }
    }
}
