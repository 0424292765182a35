//! The real programs, run on single packets by the kernel (`BPF_PROG_TEST_RUN`): a history in virtual time whose fast path is
//! the objects that a NIC's driver would run, without any interface.

use std::{cell::RefCell, net::SocketAddrV4};

use dataplane_wire::{
    datagram::{self, Header},
    ethernet::{self, Mac},
    frame::Kind,
    internet::Addresses,
    ipv4,
    udp::{self, Checksum, Verify},
};
use ebpf_host::{
    HostError, Loaded, Program as Object, Settings, Verdict, kinds,
    quorum::{Chain, Count, Grant, Kept, Seen, Session, Shared},
};

use super::{GROUP, PORT, Program, Ran, host_address};

/// Both programs of a node.
#[derive(Debug)]
pub struct Bpf {
    node: u32,
    session_count: u32,
    appends: bool,
    is_leader: bool,
    /// None only while it goes back.
    pair: Option<Box<[Half; 2]>>,
}

/// A program and what it shares: the follower's, then the leader's.
#[derive(Debug)]
struct Half {
    loaded: Loaded,
    shared: Shared,
}

/// A pair of programs: of which node, with room for how many sessions, and whether the leader's takes requests.
type Spare = (u32, u32, bool, Box<[Half; 2]>);

thread_local! {
    /// Programs that no history uses at the moment: loading one costs far more than a history.
    static SPARE: RefCell<Vec<Spare>> = const { RefCell::new(Vec::new()) };
}

impl Bpf {
    /// The programs of `node`, without a grant: loaded, or used before by a history on this thread.
    ///
    /// # Errors
    /// Where this process may not load programs, or the kernel cannot.
    pub fn new(node: u32, session_count: u32) -> Result<Bpf, HostError> {
        Bpf::of_parts(node, session_count, true)
    }

    /// As [`Bpf::new`]; without `appends` the leader's program passes requests up, and counts alone.
    ///
    /// # Errors
    /// As there.
    pub fn of_parts(node: u32, session_count: u32, appends: bool) -> Result<Bpf, HostError> {
        let spare = SPARE.with_borrow_mut(|spare| {
            let index = spare.iter().position(|(of, sessions, of_appending, _)| {
                (*of, *sessions, *of_appending) == (node, session_count, appends)
            })?;
            Some(spare.swap_remove(index).3)
        });
        let pair = match spare {
            Some(mut pair) => {
                for half in pair.iter_mut() {
                    half.shared.forget_entries();
                }
                pair
            }
            None => Box::new([
                Half::load(Object::QuorumFollower, node, session_count, appends)?,
                Half::load(Object::QuorumLeader, node, session_count, appends)?,
            ]),
        };
        Ok(Bpf {
            node,
            session_count,
            appends,
            is_leader: false,
            pair: Some(pair),
        })
    }

    fn half(&self) -> &Half {
        &self.pair.as_ref().expect("it is here until it is dropped")[usize::from(self.is_leader)]
    }

    fn half_mut(&mut self) -> &mut Half {
        &mut self.pair.as_mut().expect("it is here until it is dropped")[usize::from(self.is_leader)]
    }
}

impl Drop for Bpf {
    fn drop(&mut self) {
        self.revoke();
        if let Some(pair) = self.pair.take() {
            // A thread that ends has nobody to keep them for.
            let _ = SPARE.try_with(|spare| {
                spare
                    .borrow_mut()
                    .push((self.node, self.session_count, self.appends, pair))
            });
        }
    }
}

impl Half {
    fn load(object: Object, node: u32, session_count: u32, appends: bool) -> Result<Half, HostError> {
        let asked: &[Kind] = match appends {
            true => &[Kind::QuorumRequest, Kind::Append, Kind::Ack],
            false => &[Kind::Append, Kind::Ack],
        };
        let address = host_address(node);
        let settings = Settings {
            local_mac: mac_of(&address),
            local_ipv4: Some(*address.ip()),
            local_port: PORT,
            kinds: kinds(asked),
            group: Some((mac_of(&GROUP), *GROUP.ip())),
            session_count,
            ..Settings::default()
        };
        let mut loaded = Loaded::load(object, &settings)?;
        let shared = loaded.share()?;
        Ok(Half { loaded, shared })
    }
}

/// A hardware address that is no host's of [`host_address`].
const NEIGHBOUR: Mac = Mac([2, 0, 0, 0, 1, 0]);

/// The hardware address that goes with an address of [`host_address`].
pub fn mac_of(address: &SocketAddrV4) -> Mac {
    Mac([2, 0, 0, 0, 0, address.ip().octets()[3]])
}

/// Where a packet with an IPv4 header has its UDP source port.
const SRC_PORT_AT: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + udp::field::SRC_PORT.start;

/// `bytes` in Ethernet, IPv4 and UDP. What is on its way through a chain comes from a neighbour that its addresses do not name, and
/// has no checksum, as programs send it.
fn wrap(from: SocketAddrV4, to: SocketAddrV4, bytes: &[u8]) -> Vec<u8> {
    let (src_mac, checksum) = match from.port() == PORT {
        true => (mac_of(&from), Checksum::Full),
        false => (NEIGHBOUR, Checksum::None),
    };
    let header = Header {
        src_mac,
        dst_mac: mac_of(&to),
        vlan: None,
        addresses: Addresses::V4 {
            src: *from.ip(),
            dst: *to.ip(),
        },
        src_port: from.port(),
        dst_port: to.port(),
    };
    let mut packet = vec![0; header.len_bytes()];
    packet.extend_from_slice(bytes);
    datagram::emit(&header, checksum, &mut packet);
    packet
}

/// What is in Ethernet, IPv4 and UDP, from where and where to.
///
/// # Panics
/// If a program made something that no host would take: its checksums, for one.
fn unwrap(packet: &[u8]) -> (SocketAddrV4, SocketAddrV4, Vec<u8>) {
    let datagram = datagram::parse(packet, Verify::Checksum).expect("a program sends sound datagrams");
    let Addresses::V4 { src, dst } = datagram.header.addresses else {
        panic!("a program that was asked over IPv4 answered over IPv6");
    };
    let from = SocketAddrV4::new(src, datagram.header.src_port);
    let to = SocketAddrV4::new(dst, datagram.header.dst_port);
    // Whoever asked from another port than hosts have is answered by the neighbour that it came from.
    let next_hop = if to.port() == PORT { mac_of(&to) } else { NEIGHBOUR };
    assert_eq!(datagram.header.dst_mac, next_hop, "the next hop of {to}");
    (from, to, packet[datagram.payload].to_vec())
}

/// From where a packet that goes up says that it comes. All else of it is as it came.
fn gone_up(mut came: Vec<u8>, from: SocketAddrV4, up: &[u8]) -> SocketAddrV4 {
    let port = [SRC_PORT_AT, SRC_PORT_AT + 1].map(|at| up[at]);
    came[SRC_PORT_AT..][..2].copy_from_slice(&port);
    assert_eq!(up, came, "what goes up is as it came");
    SocketAddrV4::new(*from.ip(), u16::from_be_bytes(port))
}

impl Program for Bpf {
    fn grant(&mut self, is_leader: bool, given: &Grant, chain: Option<Chain>, sessions: &[Session]) {
        self.revoke();
        self.is_leader = is_leader;
        let half = self.half_mut();
        if is_leader {
            half.shared.set_sessions(sessions);
        }
        half.shared.set_chain(chain);
        half.shared.grant(given);
    }

    fn revoke(&mut self) -> Option<u64> {
        self.half_mut().shared.revoke()
    }

    fn seen(&self) -> Seen {
        self.half().shared.seen()
    }

    fn entry(&self, slot: u64, kept: &mut Kept) -> bool {
        self.half().shared.entry(slot, kept)
    }

    fn drained(&mut self, end: u64) {
        self.half_mut().shared.drained(end);
    }

    fn limit(&mut self, end: u64) {
        self.half_mut().shared.limit(end);
    }

    fn appended(&mut self, end: u64) {
        self.half_mut().shared.appended(end);
    }

    fn run(&mut self, from: SocketAddrV4, bytes: &[u8]) -> Ran {
        let packet = wrap(from, host_address(self.node), bytes);
        let ran = self
            .half()
            .loaded
            .test_run(&packet)
            .expect("the kernel runs what it has loaded");
        match ran.verdict {
            Verdict::Pass => Ran::Up(gone_up(packet, from, &ran.data)),
            Verdict::Drop => Ran::Dropped,
            Verdict::Tx => {
                let (from, to, bytes) = unwrap(&ran.data);
                assert_eq!(
                    ran.data[6..12],
                    mac_of(&host_address(self.node)).0,
                    "it leaves from here"
                );
                Ran::Sent { from, to, bytes }
            }
            other => panic!("a program of the quorum said {other:?}"),
        }
    }

    fn count(&self, what: Count) -> u64 {
        self.half().shared.count(what).expect("its own map can be read")
    }
}
