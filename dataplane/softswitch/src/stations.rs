//! Which host is behind which port: learnt from who sends, as bridges do (IEEE 802.1Q, clause 8.7).

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use dataplane_wire::ethernet::Mac;

/// A host that invents addresses must not take all memory; what does not fit stays unknown, so its frames go to all.
const STATIONS_MAX: usize = 4096;

/// The lowest bit of the first byte: to many (IEEE 802.3, clause 3.2.3).
const GROUP_BIT: u8 = 1;

#[derive(Clone, Debug, Default)]
pub(crate) struct Stations {
    /// Asked for single addresses only: its order decides nothing.
    ports: HashMap<[u8; 6], u32, BuildHasherDefault<MacHasher>>,
}

/// Two lookups a frame are worth a short hash. Whoever makes addresses collide makes a table of [`STATIONS_MAX`] slow, of a
/// switch that is its own.
#[derive(Debug, Default)]
struct MacHasher(u64);

impl Hasher for MacHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        // The golden ratio's 64 bits: D. Knuth, The Art of Computer Programming, volume 3, section 6.4.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Stations {
    /// A frame from `mac` came by `port`. The last word counts.
    pub fn learn(&mut self, Mac(mac): Mac, port: u32) {
        if mac[0] & GROUP_BIT != 0 {
            return;
        }
        let has_room = self.ports.len() < STATIONS_MAX;
        match self.ports.get_mut(&mac) {
            Some(known) => *known = port,
            None if has_room => {
                self.ports.insert(mac, port);
            }
            None => {}
        }
    }

    /// `None`: everybody but the sender.
    pub fn port_of(&self, Mac(mac): Mac) -> Option<u32> {
        match mac[0] & GROUP_BIT {
            0 => self.ports.get(&mac).copied(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moved_is_where_it_was_last_heard_and_groups_are_never_learnt() {
        let mut stations = Stations::default();
        let (host, group) = (Mac([2, 0, 0, 0, 0, 1]), Mac([3, 0, 0, 0, 0, 1]));
        assert_eq!(stations.port_of(host), None);
        stations.learn(host, 3);
        stations.learn(host, 4);
        stations.learn(group, 5);
        assert_eq!(stations.port_of(host), Some(4));
        assert_eq!(stations.port_of(group), None);
    }

    #[test]
    fn a_flood_of_addresses_does_not_push_out_those_that_are_known() {
        let mut stations = Stations::default();
        let address = |number: u32| {
            let [a, b, c, d] = number.to_be_bytes();
            Mac([2, 0, a, b, c, d])
        };
        for number in 0..2 * STATIONS_MAX as u32 {
            stations.learn(address(number), number % 7);
        }
        assert_eq!(stations.ports.len(), STATIONS_MAX);
        assert_eq!(stations.port_of(address(8)), Some(1));
        stations.learn(address(8), 2);
        assert_eq!(stations.port_of(address(8)), Some(2));
    }
}
