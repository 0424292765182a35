//! What a client may ask of an agent, and the bounds of it. JSON, one message a frame; what is not understood is refused.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    account::Counters,
    backends::{self, BackEnd, Kind, Napi},
    breakdown::stages::Stations,
    host::RunTime,
    interface::{Interface, frame_bytes_max},
    record::AgentRecord,
    server::{Role, ServerReport},
};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Who are you? The first request of a session; versions must match.
    Hello {
        /// The client's dplab.
        version: String,
    },
    /// Start a server. One runs at a time.
    Start(Start),
    /// Start one over that back end that writes into each reply when it passed the server's own stations.
    StartStamped {
        /// How, and for whom.
        start: Start,
        /// Who stamps.
        stations: Stations,
    },
    /// Stop it in its tracks, or let it go on.
    Pause {
        /// Stop, or go on.
        paused: bool,
    },
    /// What has it used of its CPU?
    RunTime,
    /// What do the measured interface and the layers above it count?
    Counters,
    /// End it and say what it counted.
    Finish {
        /// Frames that a sink is to wait for, for some seconds at most: what the client's port has given to its kernel.
        expected_count: Option<u64>,
    },
    /// The session is over.
    Bye,
}

/// An answer; every request but `bye` has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To `hello`.
    Hello(Box<AgentRecord>),
    /// The server runs.
    Ready {
        /// Where.
        addr: SocketAddr,
        /// How.
        facts: BTreeMap<String, String>,
    },
    /// It is stopped, or goes on.
    Done,
    /// To `run_time`.
    RunTime {
        /// `None` where the kernel keeps no such count.
        used: Option<RunTime>,
    },
    /// To `counters`.
    Counters {
        /// By name, since the machine started.
        counters: Counters,
    },
    /// To `finish`.
    Report(ServerReport),
    /// No, and why.
    Refused {
        /// In words.
        why: String,
    },
}

/// What a server is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// A back end's name.
    pub backend: String,
    /// The client's UDP address: the only one whose frames are answered.
    pub client: SocketAddr,
    /// The client's Ethernet address.
    pub client_mac: [u8; 6],
    /// The UDP port to answer at.
    pub server_port: u16,
    /// The largest frame.
    pub frame_bytes_max: usize,
    /// Room for frames that wait.
    pub room_frames_count: usize,
    /// What it does with what it receives.
    pub role: Role,
}

/// The smallest frame: header and the smallest payload that experiments allow.
const FRAME_BYTES_MIN: usize = 44;
/// Frames that may wait: eight times what the largest experiment asks for.
const ROOM_FRAMES_MAX: usize = 65_536;
/// And their memory, as the rings take it: 2 KiB for a small frame.
const ROOM_BYTES_MAX: usize = 256 << 20;
/// Work per request; experiments ask for tens of microseconds.
const SERVICE_SPIN_MAX: Duration = Duration::from_millis(100);
/// The first port that needs no privilege (ip(7), ip_local_port_range).
const PORT_MIN: u16 = 1024;

impl Start {
    /// Checks every bound, against the agent's `interface`; gives the back end and the address to answer at.
    ///
    /// # Errors
    /// A sentence that says which bound, and what it is.
    pub fn check(&self, interface: &Interface) -> Result<(&'static BackEnd, SocketAddr), String> {
        let bound = |name: &str, value: u128, low: u128, high: u128| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(format!("{name} is {value}; this agent takes {low} to {high}")),
        };
        let client = self.client.ip();
        if client.is_unspecified() || client.is_multicast() || client.is_loopback() || is_broadcast(client) {
            return Err(format!("{client} is not the address of another machine's interface"));
        }
        let own = interface
            .address_towards(client)
            .ok_or_else(|| format!("interface {} has no address of the family of {client}", interface.name))?;
        bound(
            "the client's port",
            self.client.port().into(),
            PORT_MIN.into(),
            u16::MAX.into(),
        )?;
        bound(
            "the server's port",
            self.server_port.into(),
            PORT_MIN.into(),
            u16::MAX.into(),
        )?;
        let frame_max = frame_bytes_max(interface.mtu_bytes, own.ip);
        let (frame_bytes, room) = (self.frame_bytes_max, self.room_frames_count);
        bound(
            "the frame's size in bytes",
            frame_bytes as u128,
            FRAME_BYTES_MIN as u128,
            frame_max as u128,
        )?;
        bound("the room in frames", room as u128, 1, ROOM_FRAMES_MAX as u128)?;
        let room_bytes = room as u128 * frame_bytes.next_power_of_two().max(2048) as u128;
        bound("the room in bytes", room_bytes, 1, ROOM_BYTES_MAX as u128)?;
        let found = match self.role {
            Role::Echo { service_spin, .. } => {
                bound(
                    "the work per request in ns",
                    service_spin.as_nanos(),
                    0,
                    SERVICE_SPIN_MAX.as_nanos(),
                )?;
                backends::by_name(&self.backend)
            }
            Role::Sink { .. } => backends::sink_by_name(&self.backend),
        };
        let backend = found.ok_or_else(|| format!("no back end is called {:?}", self.backend))?;
        match backend.kind {
            Kind::XdpDrop(_, Napi::Thread | Napi::ThreadAtSender) => {
                return Err(format!("{}: {NO_NAPI_THREADS}", backend.name));
            }
            Kind::Loopback | Kind::Shm => return Err(format!("{}: {NO_SHARED_MEMORY}", backend.name)),
            Kind::Packet(_) | Kind::AfXdp(..)
                if !(own.shares_link_with(client) && have_macs(interface.mac, self.client_mac)) =>
            {
                return Err(format!("{}: {}", backend.name, needs_one_link(client)));
            }
            _ => {}
        }
        Ok((backend, SocketAddr::new(own.ip, self.server_port)))
    }
}

/// Why a ring in memory is absent between machines.
pub const NO_SHARED_MEMORY: &str = "two machines share no memory";

/// Why a sink whose receive work is in threads of the kernel is absent between machines.
pub const NO_NAPI_THREADS: &str =
    "an agent starts no threads of its machine's kernel and pins none, and two machines have no CPU in common";

/// Why a back end that writes Ethernet headers is absent beyond a router.
pub fn needs_one_link(peer: IpAddr) -> String {
    format!(
        "it writes Ethernet headers itself and has no MAC address for {peer}: a router is in between, or one of the two \
         interfaces is no Ethernet; give two Ethernet interfaces addresses of one network"
    )
}

/// Have both interfaces an Ethernet address? Tunnels and loopback have none.
pub fn have_macs(own: [u8; 6], other: [u8; 6]) -> bool {
    own != [0; 6] && other != [0; 6]
}

fn is_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::interface::Address;

    fn interface() -> Interface {
        let address = |ip: &str, prefix_bits| Address {
            ip: ip.parse().unwrap(),
            prefix_bits,
        };
        Interface {
            name: "eth1".into(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu_bytes: 1500,
            driver: None,
            offloads: "offloads off".into(),
            addresses: vec![
                address("198.51.100.1", 24),
                address("192.0.2.2", 24),
                address("2001:db8::2", 64),
            ],
        }
    }

    fn start() -> Start {
        Start {
            backend: "udp-blocking".into(),
            client: "192.0.2.1:7001".parse().unwrap(),
            client_mac: [2, 0, 0, 0, 0, 2],
            server_port: 7000,
            frame_bytes_max: 64,
            room_frames_count: 64,
            role: echo(Duration::ZERO),
        }
    }

    fn echo(service_spin: Duration) -> Role {
        Role::Echo {
            service_spin,
            times_turns: false,
        }
    }

    #[test]
    fn the_agent_answers_at_the_address_on_the_clients_link() {
        let at = |client: &str| {
            let client = client.parse().unwrap();
            Start { client, ..start() }
                .check(&interface())
                .map(|(_, addr)| addr.to_string())
        };
        assert_eq!(at("192.0.2.1:7001").unwrap(), "192.0.2.2:7000");
        assert_eq!(at("203.0.113.9:7001").unwrap(), "198.51.100.1:7000");
        assert_eq!(at("[2001:db8::1]:7001").unwrap(), "[2001:db8::2]:7000");
    }

    const SINK: Role = Role::Sink { stream_id: 1 };

    #[test]
    fn what_only_counts_is_no_server_that_answers_and_the_other_way_round_it_may_be() {
        for (backend, role, is_taken) in [
            ("udp-mmsg", SINK, true),
            ("xdp-echo", SINK, true),
            ("xdp-drop", SINK, true),
            ("xdp-drop-generic", SINK, true),
            ("xdp-drop-generic", echo(Duration::ZERO), false),
        ] {
            let backend = backend.to_owned();
            let asked = Start {
                backend,
                role,
                ..start()
            };
            assert_eq!(asked.check(&interface()).is_ok(), is_taken, "{asked:?}");
        }
    }

    #[test]
    fn every_bound_is_held_and_named() {
        let with = |change: fn(&mut Start)| {
            let mut asked = start();
            change(&mut asked);
            asked.check(&interface()).expect_err("out of bounds")
        };
        for (said, bound) in [
            (with(|asked| asked.frame_bytes_max = 1473), "44 to 1472"),
            (with(|asked| asked.frame_bytes_max = 0), "44 to 1472"),
            (with(|asked| asked.frame_bytes_max = usize::MAX), "44 to 1472"),
            (with(|asked| asked.room_frames_count = 1 << 40), "1 to 65536"),
            (with(|asked| asked.room_frames_count = 0), "1 to 65536"),
            (with(|asked| asked.role = echo(Duration::MAX)), "100000000"),
            (with(|asked| asked.backend = "xdp-drop".into()), "no back end"),
            (
                with(|asked| (asked.backend, asked.role) = ("xdp-drop-threaded".into(), SINK)),
                "no threads",
            ),
            (
                with(|asked| (asked.backend, asked.role) = ("xdp-drop-same-cpu".into(), SINK)),
                "no CPU in common",
            ),
            (
                with(|asked| (asked.backend, asked.role) = ("shm".into(), SINK)),
                "share no memory",
            ),
            (with(|asked| asked.server_port = 53), "1024"),
            (with(|asked| asked.client.set_port(0)), "1024"),
            (
                with(|asked| asked.client = "255.255.255.255:7001".parse().unwrap()),
                "not the address",
            ),
            (
                with(|asked| asked.client = "127.0.0.1:7001".parse().unwrap()),
                "not the address",
            ),
            (
                with(|asked| asked.client = "224.0.0.1:7001".parse().unwrap()),
                "not the address",
            ),
            (with(|asked| asked.backend = "../../bin/sh".into()), "no back end"),
            (with(|asked| asked.backend = "shm".into()), "share no memory"),
            (with(|asked| asked.backend = "loopback".into()), "share no memory"),
            (
                with(|asked| {
                    asked.backend = "af-packet".into();
                    asked.client = "203.0.113.9:7001".parse().unwrap();
                }),
                "a router is in between",
            ),
            (
                with(|asked| {
                    asked.backend = "af-packet".into();
                    asked.client_mac = [0; 6];
                }),
                "no Ethernet",
            ),
        ] {
            assert!(said.contains(bound), "{said}");
        }
        let jumbo = Interface {
            mtu_bytes: 65_535,
            ..interface()
        };
        let asked = Start {
            frame_bytes_max: 65_000,
            room_frames_count: 65_536,
            ..start()
        };
        assert!(asked.check(&jumbo).expect_err("4 GiB").contains("room in bytes"));
    }

    proptest! {
        #[test]
        fn any_text_is_no_request_or_one(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,100}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                if let Ok(request) = serde_json::from_slice::<Request>(bytes) {
                    let again = serde_json::to_vec(&request).unwrap();
                    prop_assert_eq!(serde_json::from_slice::<Request>(&again).unwrap(), request);
                }
            }
        }

        #[test]
        fn any_start_is_checked(
            (frame_bytes_max, room_frames_count) in (any::<usize>(), any::<usize>()),
            (client, client_port, server_port) in (any::<u32>(), any::<u16>(), any::<u16>()),
            (service_spin_ns, stream_id) in (any::<u64>(), any::<Option<u32>>()),
            mtu_bytes in any::<u32>(),
        ) {
            let role = match stream_id {
                Some(stream_id) => Role::Sink { stream_id },
                None => echo(Duration::from_nanos(service_spin_ns)),
            };
            let asked = Start {
                client: SocketAddr::new(IpAddr::V4(client.into()), client_port),
                server_port, frame_bytes_max, room_frames_count, role,
                ..start()
            };
            let interface = Interface { mtu_bytes, ..interface() };
            if asked.check(&interface).is_ok() {
                prop_assert!(room_frames_count <= ROOM_FRAMES_MAX && server_port >= PORT_MIN);
                prop_assert!(frame_bytes_max + 28 <= mtu_bytes as usize);
            }
        }
    }
}
