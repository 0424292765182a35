//! A stranger on the wire who knows everything but the sequence number: the queue pair, the memory's address, and the key, as ReDMArk's
//! attackers do (Rothenberger et al., USENIX Security'21). Packets carry no proof of who sent them. The owner of the memory is any
//! provider; its peer is one of this crate's, over a wire that says whatever it is given.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use dataplane_waist::WrId;
use rdma::{
    Access, Data, Device, EndpointCounters, Memory, Operation, Provider, Qp, QpOptions, Refusal, Registered, Remote,
    Rts, SendRequest, Transmit, Wire,
    shm::{self, ShmLink, ShmWire, Side},
    system_randomness,
    verbs::VerbsDevice,
    wire::{Bth, HEADERS_BYTES_MAX, Headers, ICRC_BYTES, Opcode, Psn, QpNumber, Reth, emit},
};

use super::{PATIENCE, devices, memory_devices, memory_wire, place::Inside, roce_wires};

const FORGED: [u8; 8] = [0xEE; 8];
/// Where both ends' sequences begin here: the stranger's luck is the test's to choose.
const START_PSN: u32 = 0x00ab_cdef;
/// How long a device is left to take a packet in: it says nothing of what it refuses.
const UNTOLD_WAIT: Duration = Duration::from_millis(20);

/// Who says that he sent a packet.
#[derive(Clone, Copy, Debug)]
enum From {
    /// The peer, and it is not.
    Peer,
    /// Whoever it is.
    Elsewhere,
}

/// What an owner's device counted.
trait Tells: Provider {
    fn told(&self) -> Option<EndpointCounters>;
}

impl<W: Wire> Tells for Device<W> {
    fn told(&self) -> Option<EndpointCounters> {
        Some(*self.counters())
    }
}

impl Tells for VerbsDevice {
    fn told(&self) -> Option<EndpointCounters> {
        None
    }
}

/// An owner of memory, the peer to whom it is open, and a stranger who can send to the owner.
struct Scene<O, W: Wire> {
    owner: O,
    peer: Device<W>,
    /// The stranger's own wire, from another address.
    elsewhere: Option<W>,
    qp: Qp<Rts>,
    owner_qp: QpNumber,
    memory: Arc<Memory>,
    region: Registered,
}

impl<O: Tells, W: Wire> Scene<O, W> {
    fn new(mut owner: O, mut peer: Device<W>, elsewhere: Option<W>) -> Scene<O, W> {
        let options = QpOptions {
            start_psn: Some(Psn::new(START_PSN)),
            retries_max: 6,
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
            elsewhere,
            qp,
            owner_qp,
            memory,
            region,
        }
    }

    /// The stranger writes to the beginning of the memory, through `to`. `None`: he has no address of his own here.
    fn forge_to(&mut self, to: QpNumber, from: From, psn: u32) -> Option<EndpointCounters> {
        let reth = Reth {
            address: self.region.address,
            rkey: self.region.key.0,
            len_bytes: FORGED.len() as u32,
        };
        let mut packet = [0; HEADERS_BYTES_MAX + FORGED.len() + ICRC_BYTES];
        let bth = Bth::new(to, Psn::new(psn));
        let write = Opcode::WriteOnly;
        let len_bytes = emit(write, &bth, &Headers::Reth(reth), FORGED.len(), &mut packet, |into| {
            into.copy_from_slice(&FORGED);
        });
        let transmit = Transmit {
            to: self.owner.local(),
            qp: self.qp.number(),
            len_bytes,
        };
        let wire = match (from, &mut self.elsewhere) {
            (From::Peer, _) => self.peer.wire_mut(),
            (From::Elsewhere, Some(wire)) => {
                wire.connect(transmit.qp, transmit.to).expect("a way to the owner");
                wire
            }
            (From::Elsewhere, None) => return None,
        };
        wire.send(&transmit, &mut packet).expect("the wire works");
        self.take_in();
        Some(self.owner.told().unwrap_or_default())
    }

    fn forge(&mut self, from: From, psn: u32) -> Option<EndpointCounters> {
        self.forge_to(self.owner_qp, from, psn)
    }

    /// The owner gets what is on its way.
    fn take_in(&mut self) {
        if self.owner.told().is_none() {
            thread::sleep(UNTOLD_WAIT);
        }
        for _ in 0..50 {
            self.owner.progress().expect("the device works");
        }
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
        let begin = Instant::now();
        while done.is_none() && begin.elapsed() < PATIENCE {
            self.peer.progress().expect("the device works");
            self.owner.progress().expect("the device works");
            self.peer.poll_cq(1, &mut |completion| done = Some(completion.result));
        }
        assert_eq!(done, Some(Ok(())));
        assert_eq!(self.bytes(8), [byte; 8]);
    }

    fn bytes(&self, at: usize) -> [u8; 8] {
        let mut bytes = [0; 8];
        self.memory.read(at, &mut bytes);
        bytes
    }

    /// All that a stranger tries, of whom everything is known but one number.
    fn tries(mut self) {
        let tells = self.owner.told().is_some();
        self.writes(1);
        let next = START_PSN + 1;
        // Ahead of the sequence: something is missing, so it is not done, wherever in the window it is.
        for (count, ahead) in [1, 2, 100, 1 << 20, (1 << 23) - 1].into_iter().enumerate() {
            let counters = self.forge(From::Peer, (next + ahead) & 0x00ff_ffff);
            let gaps_count = counters.expect("a peer").qp.gaps_count;
            assert!(!tells || gaps_count == count as u64 + 1, "{ahead} ahead: {gaps_count}");
            assert_eq!(self.bytes(0), [0; 8], "{ahead} ahead: it was done");
        }
        // The last one again: done once already, so it is acknowledged again and not done. What is older was never of this connection.
        for behind in [1, 2, 100, 1 << 20] {
            let counters = self.forge(From::Peer, next.wrapping_sub(behind) & 0x00ff_ffff);
            let duplicates_count = counters.expect("a peer").qp.duplicates_count;
            assert!(!tells || duplicates_count >= 1, "{behind} behind");
            assert_eq!(self.bytes(0), [0; 8], "{behind} behind: it was done");
        }
        // Through a queue pair that is none.
        let other = QpNumber::new(self.owner_qp.get() ^ 0x0080_0000);
        let counters = self.forge_to(other, From::Peer, next).expect("a peer");
        assert!(!tells || counters.no_qp_count == 1, "{counters:?}");
        assert_eq!(self.bytes(0), [0; 8], "through no queue pair: it was done");
        // With the right number, from another address.
        if let Some(counters) = self.forge(From::Elsewhere, next) {
            assert!(!tells || counters.wrong_peer_count == 1, "{counters:?}");
            assert_eq!(self.bytes(0), [0; 8], "from elsewhere: it was done");
        }
        // The connection of whoever it belongs to has not suffered.
        self.writes(2);
        if let Some(counters) = self.owner.told() {
            assert_eq!(counters.qp.refused_counts, [0; Refusal::ALL.len()]);
        }
        // What the transport cannot refuse, and why keys and sequences begin at random: 24 bits are all that is left to guess.
        self.forge(From::Peer, next + 1);
        assert_eq!(self.bytes(0), FORGED, "who knows the number, too, is the peer");
    }
}

#[test]
fn a_stolen_key_over_memory() {
    let (peer, owner) = memory_devices();
    Scene::new(owner, peer, None).tries();
}

#[test]
fn a_stolen_key_over_shm() {
    let Ok(link) = ShmLink::create() else {
        eprintln!("skipped: no shared memory");
        return;
    };
    let strangers = ShmLink::create().expect("as above");
    let (mut owner, mut peer) = (shm::open(1).expect("randomness"), shm::open(2).expect("randomness"));
    owner.wire_mut().attach(2, &link, Side::A);
    peer.wire_mut().attach(1, &link, Side::B);
    owner.wire_mut().attach(3, &strangers, Side::A);
    let mut stranger = ShmWire::new(3);
    stranger.attach(1, &strangers, Side::B);
    Scene::new(owner, peer, Some(stranger)).tries();
}

#[test]
fn a_stolen_key_over_roce() {
    let Some([owner, peer, stranger]) = roce_wires(3) else {
        return;
    };
    let device = |wire| Device::new(wire, system_randomness().expect("the system has randomness"));
    Scene::new(device(owner), device(peer), Some(stranger)).tries();
}

/// The owner is a device of libibverbs: who forges is one of ours, in another namespace.
#[test]
fn a_stolen_key_across() {
    let Some(devices::Across { verbs, place, locals }) = devices::across() else {
        return;
    };
    let name = verbs.device.clone().expect("it was named");
    let counted = || {
        ["out_of_seq_request", "duplicate_request"].map(|counter| {
            let path = format!("/sys/class/infiniband/{name}/ports/1/hw_counters/{counter}");
            fs::read_to_string(path).map_or(0, |count| count.trim().parse::<u64>().unwrap_or(0))
        })
    };
    let before = counted();
    let owner = VerbsDevice::open(&verbs).expect("the device that was named");
    let [peer, stranger] = locals.map(|local| Inside::open(&place, local));
    let peer = Device::new(peer, system_randomness().expect("the system has randomness"));
    Scene::new(owner, peer, Some(stranger)).tries();
    let after = counted();
    let [ahead_count, again_count] = [0, 1].map(|index| after[index] - before[index]);
    eprintln!("{name} counted {ahead_count} requests out of sequence and {again_count} duplicates");
    assert!(
        ahead_count >= 1 && again_count >= 1,
        "the device's driver counts both (rxe_hw_counters.c)"
    );
}

/// Numbers of three things of a kind are neither equal nor as far apart as each other.
fn follow(numbers: [u32; 3]) -> bool {
    let [first, second, third] = numbers;
    first == second || second == third || second.wrapping_sub(first) == third.wrapping_sub(second)
}

/// Keys, addresses and starts of three regions and queue pairs of one device.
fn drawn<P: Provider>(mut device: P) -> [[u32; 3]; 3] {
    let pd = device.create_pd();
    let of_one = [(); 3].map(|()| {
        let region = device.register(pd, Memory::new(4096), Access::ALL);
        let qp = device.create_qp(pd, &QpOptions::default()).expect("room");
        let start_psn = device.address(&qp).expect("it was made").start_psn;
        [region.key.0, (region.address >> 12) as u32, start_psn.get()]
    });
    [0, 1, 2].map(|what| of_one.map(|numbers| numbers[what]))
}

#[test]
fn keys_addresses_and_starts_cannot_be_told_beforehand() {
    let random = || system_randomness().expect("the system has randomness");
    let (a, _) = memory_wire::pair();
    for numbers in drawn(Device::new(a, random())) {
        assert!(!follow(numbers), "{numbers:x?}");
    }
    if let Some([verbs, _]) = devices::verbs() {
        let device = VerbsDevice::open(&verbs).expect("it was there before");
        let [keys, places, starts] = drawn(device);
        assert!(!follow(places) && !follow(starts), "{places:x?} {starts:x?}");
        // Keys are the device's to draw: rdma_rxe counts the upper 24 bits up and draws 8 (rxe_mr.c, `rxe_get_next_key`).
        eprintln!("the device's keys: {keys:x?}");
    }
}
