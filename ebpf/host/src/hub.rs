//! The program `hub` on the ports of a switch: frames stay XDP frames from one host's driver to the next one's.

use aya::maps::{DevMap, MapData};
use dataplane_wire::ethernet::Mac;
use ebpf_abi::{Program, map};

use crate::{Counts, HostError, Loaded, Mode, Settings, attach::Link, error::io_error};

/// A port of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubPort<'a> {
    /// The switch's interface.
    pub interface: &'a str,
    /// Of the host behind it. Hosts are told apart by the last byte alone.
    pub mac: Mac,
    /// Whether the host gets what is sent to the group.
    pub is_in_group: bool,
}

/// A switch. Dropping it detaches the program from all ports; so does the end of the process.
#[derive(Debug)]
pub struct Hub {
    // Before the program: detached first.
    _links: Vec<Link>,
    loaded: Loaded,
}

impl Hub {
    /// Attaches the program to `ports`, natively, in the network namespace in which the calling thread stands. Frames to
    /// `group` go to all hosts that are in it but the sender.
    ///
    /// A host gets frames only if its end of the veth has NAPI: a native program of its own
    /// ([`Program::Pass`] will do), or GRO.
    ///
    /// # Errors
    /// [`HostError::TwoHosts`] where two hosts have the same last byte, [`HostError::GroupTooLarge`]; as [`Loaded::load`] and [`Loaded::attach`].
    pub fn attach(ports: &[HubPort<'_>], group: Mac) -> Result<Hub, HostError> {
        for (index, port) in ports.iter().enumerate() {
            if let Some(other) = ports[..index].iter().find(|other| other.mac.0[5] == port.mac.0[5]) {
                return Err(HostError::TwoHosts {
                    one: other.mac,
                    other: port.mac,
                });
            }
        }
        let settings = Settings {
            group: Some((group, std::net::Ipv4Addr::UNSPECIFIED)),
            ..Settings::default()
        };
        let mut loaded = Loaded::load(Program::Hub, &settings)?;
        let mut links = Vec::new();
        let mut group_count = 0;
        for port in ports {
            let (link, interface_index) = loaded.link(port.interface, Mode::Native)?;
            links.push(link);
            // The kernel looks the number up in the namespace of whoever updates the map.
            loaded.set_port(map::PORTS, u32::from(port.mac.0[5]), interface_index)?;
            if port.is_in_group {
                if group_count == map::GROUP_PORTS_MAX {
                    return Err(HostError::GroupTooLarge);
                }
                loaded.set_port(map::GROUP_PORTS, group_count, interface_index)?;
                group_count += 1;
            }
        }
        Ok(Hub { _links: links, loaded })
    }

    /// What it counted: frames forwarded are `Taken`.
    ///
    /// # Errors
    /// As [`Loaded::counts`].
    pub fn counts(&self) -> Result<Counts, HostError> {
        self.loaded.counts()
    }
}

impl Loaded {
    fn set_port(&mut self, name: &'static str, index: u32, interface_index: u32) -> Result<(), HostError> {
        let program = self.program();
        let unfit = |why: String| HostError::Object { program, why };
        let found = self
            .ebpf
            .map_mut(name)
            .ok_or_else(|| unfit(format!("it has no map {name}")))?;
        let mut ports = DevMap::<&mut MapData>::try_from(found).map_err(|error| unfit(error.to_string()))?;
        ports
            .set(index, interface_index, None, 0)
            .map_err(|error| HostError::kernel(format!("adding a port to {name}"), io_error(&error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_a_hub_cannot_tell_apart_are_refused_before_anything_is_loaded() {
        let port = |interface, mac| HubPort {
            interface,
            mac: Mac(mac),
            is_in_group: true,
        };
        let ports = [port("p0", [2, 0, 0, 0, 0, 7]), port("p1", [2, 0, 0, 0, 1, 7])];
        let refused = Hub::attach(&ports, Mac([2, 0, 0, 0, 0, 0xfa])).map(|_| ());
        assert!(
            matches!(&refused, Err(HostError::TwoHosts { one, other }) if (*one, *other) == (ports[0].mac, ports[1].mac)),
            "{refused:?}"
        );
    }
}
