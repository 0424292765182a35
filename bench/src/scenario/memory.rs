//! What a scenario will take of memory, before it takes it.

use super::file::{LoadFile, LoadKind, ScenarioFile, TopologyKind, Varied};

/// A flow: sender, receiver, and what the bench keeps of it (a test in `packet_sim` holds the sizes below this).
const FLOW_BYTES: u64 = 2_048;
/// A packet under way, with its place in a queue.
const PACKET_BYTES: u64 = 256;
/// A port with its queue, and its cable.
const LINK_BYTES: u64 = 512;
/// Windows grow: so many packets of a flow may be under way at once, on average over flows, before queues drop.
const PACKETS_PER_FLOW: u64 = 16;
/// Of what is free; the rest is for everybody else.
const SHARE: f64 = 0.8;

/// How many flows a load has.
pub(super) fn flows_count(file: &ScenarioFile, load: &LoadFile, hosts_count: u32) -> u64 {
    let hosts = u64::from(hosts_count);
    let varied = |what| {
        let vary = file.vary.as_ref().filter(|vary| vary.what == what);
        vary.map(|vary| vary.values.get_ref().iter().copied().fold(0.0, f64::max) as u64)
    };
    let count =
        |value: &Option<serde_spanned::Spanned<u32>>| value.as_ref().map_or(0, |value| u64::from(*value.get_ref()));
    let rounds = if load.fresh {
        u64::from(load.rounds.unwrap_or(1))
    } else {
        1
    };
    match load.kind {
        LoadKind::Incast => varied(Varied::Servers)
            .unwrap_or(count(&load.servers))
            .saturating_mul(rounds),
        LoadKind::Long => varied(Varied::Flows).unwrap_or(count(&load.flows)),
        LoadKind::Mesh => {
            let of_each = count(&load.flows);
            (count(&load.to) + 1)
                .saturating_sub(count(&load.from))
                .saturating_mul(of_each)
        }
        LoadKind::AllToAll => hosts.saturating_mul(hosts - 1).saturating_mul(rounds),
        LoadKind::Permutation => hosts,
        LoadKind::Flows => load.list.len() as u64,
    }
}

/// Bytes that the largest run of a scenario takes, roughly and rather more.
pub(super) fn estimate(file: &ScenarioFile, hosts_count: u32) -> u64 {
    let flows: u64 = match &file.list {
        Some(list) => list.connections_count(),
        None => file
            .load
            .iter()
            .map(|load| flows_count(file, load.get_ref(), hosts_count))
            .sum(),
    };
    let hosts = u64::from(hosts_count);
    let links = match file.topology.kind.get_ref() {
        TopologyKind::Pair | TopologyKind::Star | TopologyKind::Dumbbell => 2 * hosts + 2,
        TopologyKind::LeafSpine => {
            let count = |value: Option<u32>| u64::from(value.unwrap_or(0));
            2 * hosts + 2 * count(file.topology.leaves) * count(file.topology.spines)
        }
        // Three layers of as many cables as hosts.
        TopologyKind::FatTree => 6 * hosts,
    };
    let flow_bytes = FLOW_BYTES + PACKETS_PER_FLOW * PACKET_BYTES;
    flows
        .saturating_mul(flow_bytes)
        .saturating_add(links.saturating_mul(LINK_BYTES))
}

/// Says no to what does not fit into the memory that is free now. Where the kernel does not say, nothing is refused.
pub(crate) fn refuse(needed_bytes: u64) -> Result<(), String> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let free_kib: Option<u64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    free_kib.map_or(Ok(()), |kib| compare(needed_bytes, kib.saturating_mul(1_024)))
}

fn compare(needed_bytes: u64, free_bytes: u64) -> Result<(), String> {
    let gib = |bytes: u64| bytes as f64 / (1_u64 << 30) as f64;
    match needed_bytes as f64 <= free_bytes as f64 * SHARE {
        true => Ok(()),
        false => Err(format!(
            "this takes about {:.1} GiB, and {:.1} are free: take fewer flows or hosts, or a larger machine",
            gib(needed_bytes),
            gib(free_bytes)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_four_fifths_of_what_is_free_is_refused() {
        assert_eq!(compare(800, 1_000), Ok(()));
        let error = compare(64 << 30, 16 << 30).expect_err("too much");
        assert!(error.contains("64.0 GiB") && error.contains("16.0"), "{error}");
    }
}
