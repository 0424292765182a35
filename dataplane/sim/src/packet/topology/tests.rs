//! Topologies: every way leads to its host, and counts and rates that cannot be are answered.

use super::*;
use crate::packet::routing::Way;

const CABLE: Cable = Cable::new(10_000_000_000, SimTime::from_us(1));

fn all() -> Vec<Topology> {
    let (host, switch) = (HostOptions::default(), SwitchOptions::default());
    let shape = LeafSpine {
        leaves_count: 3,
        hosts_per_leaf: 4,
        spines_count: 2,
    };
    let mut all = vec![
        Topology::pair(CABLE, host),
        Topology::star(5, CABLE, host, switch),
        Topology::dumbbell((2, 3), CABLE, CABLE, host, switch),
        Topology::leaf_spine(shape, CABLE, CABLE, host, switch),
    ];
    all.extend([2, 4, 6, 8].map(|k| Topology::fat_tree(k, CABLE, host, switch)));
    all.into_iter().map(|topology| topology.expect("a topology")).collect()
}

/// From every host to every other, by every choice of ports, in the fewest steps.
#[test]
fn every_way_leads_to_its_host() {
    for topology in all() {
        for from in 0..topology.hosts_count {
            for to in (0..topology.hosts_count).filter(|&to| to != from) {
                let mut nodes = vec![topology.links[topology.nics[from as usize] as usize].to];
                let mut steps_count = 1;
                while nodes.iter().any(|&node| node != to) {
                    nodes = nodes.into_iter().flat_map(|node| next(&topology, node, to)).collect();
                    nodes.sort();
                    nodes.dedup();
                    steps_count += 1;
                    assert!(steps_count <= 6, "{from} to {to}: {nodes:?}");
                }
            }
        }
    }
}

fn next(topology: &Topology, node: u32, to: u32) -> Vec<u32> {
    let route = &topology.routes[(node - topology.hosts_count) as usize];
    let links = match route.to(to) {
        Way::One(link) => link..link + 1,
        Way::Any(first, count) => first..first + count,
    };
    let step = |link: u32| {
        let link = topology.links[link as usize];
        assert_eq!(link.from, node);
        link.to
    };
    links.map(step).collect()
}

#[test]
fn each_cable_has_two_directions_and_each_host_one_cable() {
    for topology in all() {
        for link in &topology.links {
            assert!(topology.link_between(link.to, link.from).is_some());
        }
        for host in 0..topology.hosts_count {
            let leaving: Vec<_> = topology.links.iter().filter(|link| link.from == host).collect();
            assert_eq!(leaving.len(), 1);
            assert_eq!(*leaving[0], topology.links[topology.nics[host as usize] as usize]);
        }
    }
}

#[test]
fn a_fat_tree_has_the_papers_counts() {
    let topology = Topology::fat_tree(32, CABLE, HostOptions::default(), SwitchOptions::default()).expect("k = 32");
    assert_eq!(topology.hosts_count, 8192);
    assert_eq!(topology.routes.len(), 1280);
    // Three layers of k³/4 cables.
    assert_eq!(topology.links.len(), 2 * 3 * 8192);
}

#[test]
fn bad_counts_and_rates_say_what_would_do() {
    let (host, switch) = (HostOptions::default(), SwitchOptions::default());
    let odd = Topology::fat_tree(5, CABLE, host, switch).unwrap_err();
    assert_eq!(
        odd.to_string(),
        "k of 5: a FatTree's switches have an even number of ports, from 2 to 32"
    );
    let alone = Topology::star(1, CABLE, host, switch).unwrap_err();
    assert_eq!(alone.to_string(), "a star of 1: it needs at least 2 hosts");
    let silent = Topology::pair(Cable::new(0, SimTime::ZERO), host).unwrap_err();
    assert!(silent.to_string().contains("a rate of 0 bit/s"), "{silent}");
    let loss = Cable {
        loss_ratio: 1.5,
        ..CABLE
    };
    assert!(matches!(Topology::pair(loss, host), Err(TopologyError::Loss { .. })));
    let many = Topology::dumbbell((1 << 31, 1 << 31), CABLE, CABLE, host, switch).unwrap_err();
    assert!(many.to_string().starts_with("hosts of 4294967295"), "{many}");
}
