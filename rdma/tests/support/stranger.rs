//! A stranger on the wire who knows everything but the sequence number: the address to write from, the queue pair, the memory's address,
//! and the key, as ReDMArk's attackers do (Rothenberger et al., USENIX Security'21). Packets carry no proof of who sent them.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use dataplane_waist::{Instant, WrId};
use rdma::{
    Access, Data, Device, EndpointCounters, Memory, Operation, Provider, Qp, QpOptions, Registered, Remote, Rts,
    SendRequest, Transmit, Wire,
    wire::{Bth, Headers, Opcode, Packet, Psn, QpNumber, Reth},
};

use super::memory_wire::{self, MemoryWire};

/// A wire to which one packet more can be put.
struct Bugged {
    wire: MemoryWire,
    forged: Option<(IpAddr, Bth, Reth)>,
}

impl Wire for Bugged {
    fn name(&self) -> &'static str {
        self.wire.name()
    }
    fn local(&self) -> IpAddr {
        self.wire.local()
    }
    fn now(&self) -> Instant {
        self.wire.now()
    }
    fn connect(&mut self, qp: QpNumber, to: IpAddr) -> io::Result<()> {
        self.wire.connect(qp, to)
    }
    fn disconnect(&mut self, qp: QpNumber) {
        self.wire.disconnect(qp);
    }
    fn receive(&mut self, packets_max: usize, sink: &mut dyn FnMut(IpAddr, &Packet<'_>)) -> io::Result<usize> {
        if let Some((from, bth, reth)) = self.forged.take() {
            let packet = Packet {
                opcode: Opcode::WriteOnly,
                bth,
                headers: Headers::Reth(reth),
                payload: &FORGED,
            };
            sink(from, &packet);
        }
        self.wire.receive(packets_max, sink)
    }
    fn send(&mut self, transmit: &Transmit, packet: &mut [u8]) -> io::Result<()> {
        self.wire.send(transmit, packet)
    }
    fn wait(&mut self, max: Duration) -> io::Result<()> {
        self.wire.wait(max)
    }
}

const FORGED: [u8; 8] = [0xEE; 8];
/// Where both ends' sequences begin here: the stranger's luck is the test's to choose.
const START_PSN: u32 = 0x00ab_cdef;

/// An owner of memory, the peer to whom it is open, and a stranger who can send to the owner.
struct Scene {
    owner: Device<Bugged>,
    peer: Device<MemoryWire>,
    qp: Qp<Rts>,
    owner_qp: QpNumber,
    memory: Arc<Memory>,
    region: Registered,
}

impl Scene {
    fn new() -> Scene {
        let (a, b) = memory_wire::pair();
        let bugged = Bugged { wire: b, forged: None };
        let mut owner = Device::new(bugged, memory_wire::random(2));
        let mut peer = Device::new(a, memory_wire::random(1));
        let options = QpOptions {
            start_psn: Some(Psn::new(START_PSN)),
            ..QpOptions::default()
        };
        let (pd, peer_pd) = (owner.create_pd(), peer.create_pd());
        let memory = Memory::new(4096);
        let region = owner.register(pd, Arc::clone(&memory), Access::ALL);
        let owner_qp = owner.create_qp(pd, &options).expect("room");
        let qp = peer.create_qp(peer_pd, &options).expect("room");
        let address = owner.address(&owner_qp).expect("it was made");
        let peer_address = peer.address(&qp).expect("it was made");
        let owner_qp = owner.init(owner_qp);
        let owner_qp = owner
            .ready_to_receive(owner_qp, &peer_address)
            .expect("the same options");
        let owner_qp = owner.ready_to_send(owner_qp).number();
        let qp = peer.init(qp);
        let qp = peer.ready_to_receive(qp, &address).expect("the same options");
        let qp = peer.ready_to_send(qp);
        Scene {
            owner,
            peer,
            qp,
            owner_qp,
            memory,
            region,
        }
    }

    /// The stranger writes to the beginning of the memory.
    fn forge(&mut self, from: IpAddr, psn: u32) -> EndpointCounters {
        let bth = Bth::new(self.owner_qp, Psn::new(psn));
        let reth = Reth {
            address: self.region.address,
            rkey: self.region.key.0,
            len_bytes: FORGED.len() as u32,
        };
        self.owner.wire_mut().forged = Some((from, bth, reth));
        self.owner.progress().expect("memory does not fail");
        *self.owner.counters()
    }

    /// The peer writes behind it, and is told that it is done.
    fn writes(&mut self, byte: u8) {
        let write = SendRequest {
            wr_id: WrId(1),
            operation: Operation::Write {
                data: Data::Inline(&[byte; 8]),
                to: Remote {
                    address: self.region.address + 8,
                    rkey: self.region.key.0,
                },
                imm: None,
            },
            signalled: true,
        };
        self.peer.post_send(&self.qp, &write).expect("the connection is whole");
        let mut done = None;
        for _ in 0..100_000 {
            self.peer.progress().expect("memory does not fail");
            self.owner.progress().expect("memory does not fail");
            self.peer.poll_cq(1, &mut |completion| done = Some(completion.result));
            if done.is_some() {
                break;
            }
        }
        assert_eq!(done, Some(Ok(())));
        assert_eq!(self.bytes(8), [byte; 8]);
    }

    fn bytes(&self, at: usize) -> [u8; 8] {
        let mut bytes = [0; 8];
        self.memory.read(at, &mut bytes);
        bytes
    }
}

#[test]
fn a_stolen_key_without_the_sequence_number_is_refused_and_counted() {
    let mut scene = Scene::new();
    let peer = scene.peer.local();
    scene.writes(1);
    let next = START_PSN + 1;
    // Ahead of the sequence: something is missing, so it is not done, wherever in the window it is.
    for (count, ahead) in [1, 2, 100, 1 << 20, (1 << 23) - 1].into_iter().enumerate() {
        let counters = scene.forge(peer, (next + ahead) & 0x00ff_ffff);
        assert_eq!(counters.qp.gaps_count, count as u64 + 1, "{ahead} ahead");
        assert_eq!(scene.bytes(0), [0; 8], "{ahead} ahead: it was done");
    }
    // The last one again: done once already, so it is acknowledged again and not done. What is older was never of this connection.
    for behind in [1, 2, 100, 1 << 20] {
        let counters = scene.forge(peer, next.wrapping_sub(behind) & 0x00ff_ffff);
        assert!(counters.qp.duplicates_count >= 1, "{behind} behind");
        assert_eq!(scene.bytes(0), [0; 8], "{behind} behind: it was done");
    }
    // The connection of whoever it belongs to has not suffered.
    scene.writes(2);
    assert_eq!(scene.owner.counters().qp.refused_counts, [0; 4]);
}

#[test]
fn a_stolen_key_from_another_address_is_refused_and_counted() {
    let mut scene = Scene::new();
    let counters = scene.forge([10, 0, 0, 77].into(), START_PSN);
    assert_eq!(counters.wrong_peer_count, 1);
    assert_eq!(scene.bytes(0), [0; 8]);
    scene.writes(1);
}

/// What the transport cannot refuse, and why keys and sequences begin at random: 24 bits are all that is left to guess.
#[test]
fn who_knows_the_sequence_number_too_is_the_peer() {
    let mut scene = Scene::new();
    let peer = scene.peer.local();
    scene.forge(peer, START_PSN);
    assert_eq!(scene.bytes(0), FORGED);
    let drawn = |seed| {
        let (a, _) = memory_wire::pair();
        let mut device = Device::new(a, memory_wire::random(seed));
        let pd = device.create_pd();
        let qp = device.create_qp(pd, &QpOptions::default()).expect("room");
        let key = device.register(pd, Memory::new(64), Access::ALL).key;
        (device.address(&qp).expect("it was made").start_psn, key)
    };
    let (first, second) = (drawn(1), drawn(2));
    assert!(
        first.0 != second.0 && first.1 != second.1,
        "they can be told beforehand"
    );
}
