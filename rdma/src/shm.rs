//! The same connections between processes of one machine, over memory that they share: no socket, no system call per packet.
//!
//! A [`ShmLink`] is a memfd with two rings of packets, one each way. One process makes it and hands the other its
//! [`ShmLink::path_for`]. What is in it is the peer's to write, so lengths and stamps are checked and packets are copied out
//! before they are looked at. Packets carry no ICRC: memory does not garble them on the way.
//!
//! ```text
//!  word 0      magic, version
//!  A to B      consumed │ heads: 256 of stamp, 248 bytes of the packet │ rests: 256 of what is longer
//!  B to A      the same
//! ```
//!
//! A packet is announced where it stands: a head's first word is written last, and says which packet it is, the ring's whole life long.
//! An index beside the ring would be one more line to fetch from the other CPU, which is most of what a packet costs here. Heads lie close
//! together, so that what is short stays within 16 pages.
//!
//! The owner's process executes what peers ask when it makes progress, as `roce` does. It shows what the transport costs
//! without a network; a peer's memory without its CPU it is not.

use std::{
    fs::{File, OpenOptions},
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use dataplane_waist::{Clock, LOOK_AGAIN, MonotonicClock, ProbeError, Support};
use dataplane_wire::Reject;
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::ftruncate,
};

use crate::{
    device::{Device, PACKET_BYTES_MAX, Wire},
    endpoint::Transmit,
    memory::{Memory, WORD_BYTES},
    random::system_randomness,
    sys::mapping::SharedWords,
    wire::{ICRC_BYTES, Packet, QpNumber, parse},
};

/// Packets that one ring holds: two windows.
const SLOTS_COUNT: u64 = 256;
/// The first word: who made it ("dplabrdm"), and the layout's version.
const MAGIC: u64 = 0x6470_6c61_6272_0002;
/// Two cache lines: one is fetched with its neighbour.
const LINE_BYTES: usize = 128;
const CONSUMED: usize = 0;
const HEADS: usize = LINE_BYTES;
const HEAD_BYTES: usize = 256;
/// Of the packet, behind the stamp.
const HEAD_PACKET_BYTES: usize = HEAD_BYTES - WORD_BYTES;
const RESTS: usize = HEADS + SLOTS_COUNT as usize * HEAD_BYTES;
const REST_BYTES: usize = (PACKET_BYTES_MAX - HEAD_PACKET_BYTES).next_multiple_of(WORD_BYTES);
const RING_BYTES: usize = (RESTS + SLOTS_COUNT as usize * REST_BYTES).next_multiple_of(LINE_BYTES);
const LINK_BYTES: usize = LINE_BYTES + 2 * RING_BYTES;
/// A stamp is the packet's number from 1 on, and its length in the lowest 16 bits.
const STAMP_LEN_BITS: u32 = 16;

/// Which end of a link a process is. The two are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Usually the creator's.
    A,
    /// The other.
    B,
}

/// Shared memory with a ring each way.
#[derive(Debug)]
pub struct ShmLink {
    file: OwnedFd,
    memory: Arc<Memory>,
}

impl ShmLink {
    /// New, empty, sealed so that no process can shrink it under the other.
    ///
    /// # Errors
    /// The kernel has no memfd, or no memory.
    pub fn create() -> io::Result<ShmLink> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"dplab-rdma", flags)?;
        ftruncate(&file, LINK_BYTES as i64)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let memory = Memory::shared(SharedWords::map(&file, LINK_BYTES / WORD_BYTES)?);
        memory.store_word(0, MAGIC);
        Ok(ShmLink {
            file,
            memory: Arc::new(memory),
        })
    }

    /// Where a process of the same user finds it, while process `pid` (this one, usually) keeps it open.
    pub fn path_for(&self, pid: u32) -> PathBuf {
        format!("/proc/{pid}/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Maps what another process made.
    ///
    /// # Errors
    /// It cannot be opened, can still shrink, or is something else.
    pub fn open(path: &Path) -> io::Result<ShmLink> {
        let file: File = OpenOptions::new().read(true).write(true).open(path)?;
        let refuse = |why: &str| {
            let why = format!("{}: {why}; name a memfd that ShmLink::create made", path.display());
            io::Error::new(io::ErrorKind::InvalidData, why)
        };
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map_err(|_| refuse("it has no seals"))?;
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
            return Err(refuse("it can be cut under us"));
        }
        if file.metadata()?.len() != LINK_BYTES as u64 {
            return Err(refuse("it has another length"));
        }
        let memory = Memory::shared(SharedWords::map(&file, LINK_BYTES / WORD_BYTES)?);
        if memory.load_word(0) != MAGIC {
            return Err(refuse("it was made by another version, or for something else"));
        }
        Ok(ShmLink {
            file: file.into(),
            memory: Arc::new(memory),
        })
    }
}

/// One direction of a link.
#[derive(Debug)]
struct Ring {
    memory: Arc<Memory>,
    base: usize,
}

impl Ring {
    /// Where the head is of the packet with this number, and where its rest.
    fn places(&self, number: u64) -> (usize, usize) {
        let slot = (number % SLOTS_COUNT) as usize;
        (
            self.base + HEADS + slot * HEAD_BYTES,
            self.base + RESTS + slot * REST_BYTES,
        )
    }

    /// How many packets the end that takes them out has told that it took.
    fn told(&self) -> u64 {
        self.memory.load_word(self.base + CONSUMED)
    }

    /// How many packets were ever put in, where the first `taken` are known to have been.
    fn put_behind(&self, taken: u64) -> u64 {
        let numbers = taken + 1..=taken + SLOTS_COUNT;
        let is_there = |number: &u64| self.memory.load_word(self.places(*number).0) >> STAMP_LEN_BITS == *number;
        numbers.take_while(is_there).last().unwrap_or(taken)
    }
}

/// The end that puts packets in.
#[derive(Debug)]
struct RingIn {
    ring: Ring,
    put_count: u64,
    /// As it was read last: it lies on a line that the peer writes, and is looked at only where the ring seems full.
    taken_count: u64,
    /// For which packet the lines were fetched.
    fetched_for: u64,
}

impl RingIn {
    /// Goes on where whoever had this end before has stopped.
    fn of(ring: Ring) -> RingIn {
        // A peer may say any number; one that no ring ever reaches is none.
        let taken_count = ring.told() % (u64::MAX >> (STAMP_LEN_BITS + 1));
        RingIn {
            put_count: ring.put_behind(taken_count),
            taken_count,
            fetched_for: 0,
            ring,
        }
    }

    /// Fetches the lines of the next packet from the peer, who has read others there, all but the one at which it looks. For a moment in
    /// which there is nothing else to do.
    fn fetch_ahead(&mut self) {
        let number = self.put_count + 1;
        if self.fetched_for == number || self.put_count.wrapping_sub(self.taken_count) >= SLOTS_COUNT {
            return;
        }
        self.fetched_for = number;
        let head = self.ring.places(number).0;
        for line in (64..HEAD_BYTES).step_by(64) {
            self.ring.memory.store_word(head + line, 0);
        }
    }

    /// Puts in the first `len` bytes of `packet`, which is as long as whole words take. False: there is no room.
    fn push(&mut self, packet: &[u8], len: usize) -> bool {
        let RingIn {
            ring,
            put_count,
            taken_count,
            ..
        } = self;
        if put_count.wrapping_sub(*taken_count) >= SLOTS_COUNT {
            *taken_count = ring.told();
            // Also if the peer says that it took what was never there.
            if put_count.wrapping_sub(*taken_count) >= SLOTS_COUNT {
                return false;
            }
        }
        *put_count += 1;
        let (head, rest) = ring.places(*put_count);
        let (first, behind) = packet.split_at(packet.len().min(HEAD_PACKET_BYTES));
        ring.memory.write(rest, behind);
        // What shares a line with the stamp, at which the peer looks all the time, is written last and at once.
        let (near, far) = first.split_at(first.len().min(64 - WORD_BYTES));
        ring.memory.write(head + 64, far);
        ring.memory.write(head + WORD_BYTES, near);
        ring.memory.store_word(head, *put_count << STAMP_LEN_BITS | len as u64);
        true
    }
}

/// The end that takes packets out. It says how many it has taken now and then, since that takes a line away from the peer.
#[derive(Debug)]
struct RingOut {
    ring: Ring,
    taken_count: u64,
}

/// So many packets are taken before the peer is told. It sees so many places fewer at worst.
const TELL_EVERY: u64 = SLOTS_COUNT / 8;

impl RingOut {
    /// Goes on where whoever had this end before has told that it stopped: what that one took without telling comes again, as on a
    /// network that repeats packets.
    fn of(ring: Ring) -> RingOut {
        RingOut {
            taken_count: ring.told(),
            ring,
        }
    }

    /// The length of the oldest packet, if there is one.
    fn waiting(&self) -> Option<usize> {
        let number = self.taken_count.wrapping_add(1);
        let stamp = self.ring.memory.load_word(self.ring.places(number).0);
        let len = stamp as usize % (1 << STAMP_LEN_BITS);
        (stamp >> STAMP_LEN_BITS == number).then_some(len)
    }

    /// Copies the oldest packet out, as much of it as `into` has room for; its length.
    fn pop(&mut self, into: &mut [u8]) -> Option<usize> {
        let len = self.waiting()?.min(into.len()).min(PACKET_BYTES_MAX);
        let number = self.taken_count.wrapping_add(1);
        let (head, rest) = self.ring.places(number);
        let memory = &self.ring.memory;
        let (first, behind) = into[..len].split_at_mut(len.min(HEAD_PACKET_BYTES));
        memory.read(head + WORD_BYTES, first);
        memory.read(rest, behind);
        self.taken_count = number;
        if number.is_multiple_of(TELL_EVERY) {
            memory.store_word(self.ring.base + CONSUMED, number);
        }
        Some(len)
    }
}

#[derive(Debug)]
struct Neighbour {
    address: IpAddr,
    out: RingIn,
    incoming: RingOut,
}

/// What came and went no further, and what did not leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShmCounters {
    /// Malformed packets, by [`Reject::index`].
    pub rejected_counts: [u64; Reject::ALL.len()],
    /// Packets that a ring had no room for.
    pub tx_lost_count: u64,
}

/// Links to other processes as a [`Wire`].
#[derive(Debug)]
pub struct ShmWire {
    local: IpAddr,
    neighbours: Vec<Neighbour>,
    /// By queue pair: which neighbour.
    paths: Vec<(QpNumber, usize)>,
    /// At which of them the next look begins.
    turn: usize,
    packet: Box<[u8]>,
    clock: MonotonicClock,
    counters: ShmCounters,
}

/// The provider.
pub type ShmDevice = Device<ShmWire>;

/// A device without neighbours, for the process with this number among those that share memory.
///
/// # Errors
/// The system gave no randomness.
pub fn open(node: u16) -> io::Result<ShmDevice> {
    Ok(Device::new(ShmWire::new(node), system_randomness()?))
}

/// Makes a link and drops it.
///
/// # Errors
/// The kernel refused for a reason other than having no memfd.
pub fn probe() -> Result<Support, ProbeError> {
    match ShmLink::create() {
        Ok(_) => Ok(Support::Emulated {
            by: "connections over shared memory; the owner's process executes what peers ask".into(),
        }),
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(Support::Absent {
            why: "the kernel has no memfd; one since 3.17 has".into(),
        }),
        Err(error) => Err(ProbeError {
            asked: "making shared memory".into(),
            error,
            mend: "raise the memory limit of this control group".into(),
        }),
    }
}

/// An address that no interface has: of the block for unique local addresses (RFC 4193 §3.1), by node.
pub fn address_of(node: u16) -> IpAddr {
    Ipv6Addr::new(0xfd64, 0x706c, 0x6162, 0, 0, 0, 0, node).into()
}

impl ShmWire {
    /// Without neighbours.
    pub fn new(node: u16) -> ShmWire {
        ShmWire {
            local: address_of(node),
            neighbours: Vec::new(),
            paths: Vec::new(),
            turn: 0,
            packet: vec![0; PACKET_BYTES_MAX].into(),
            clock: MonotonicClock::new(),
            counters: ShmCounters::default(),
        }
    }

    /// Takes `side` of `link`, at whose other side is node `peer`. Only one process may hold a side at a time.
    pub fn attach(&mut self, peer: u16, link: &ShmLink, side: Side) {
        let ring = |index: usize| Ring {
            memory: Arc::clone(&link.memory),
            base: LINE_BYTES + index * RING_BYTES,
        };
        let (out, incoming) = match side {
            Side::A => (ring(0), ring(1)),
            Side::B => (ring(1), ring(0)),
        };
        self.neighbours.push(Neighbour {
            address: address_of(peer),
            out: RingIn::of(out),
            incoming: RingOut::of(incoming),
        });
    }

    /// Counters since it was made.
    pub fn counters(&self) -> &ShmCounters {
        &self.counters
    }
}

impl Wire for ShmWire {
    type Clock = MonotonicClock;

    fn name(&self) -> &'static str {
        "rdma-shm"
    }

    fn local(&self) -> IpAddr {
        self.local
    }

    fn clock(&self) -> MonotonicClock {
        self.clock
    }

    fn connect(&mut self, qp: QpNumber, to: IpAddr) -> io::Result<()> {
        let neighbour = self.neighbours.iter().position(|neighbour| neighbour.address == to);
        let neighbour = neighbour.ok_or_else(|| {
            let why = format!("{to} shares no memory with this process: attach a link to it first");
            io::Error::new(io::ErrorKind::HostUnreachable, why)
        })?;
        self.disconnect(qp);
        self.paths.push((qp, neighbour));
        Ok(())
    }

    fn disconnect(&mut self, qp: QpNumber) {
        self.paths.retain(|(of, _)| *of != qp);
    }

    fn receive(&mut self, packets_max: usize, sink: &mut dyn FnMut(IpAddr, &Packet<'_>)) -> io::Result<usize> {
        let neighbours_count = self.neighbours.len();
        let share_packets = packets_max.div_ceil(neighbours_count.max(1));
        let mut count = 0;
        for step in 0..neighbours_count {
            let neighbour = &mut self.neighbours[(self.turn + step) % neighbours_count];
            // Each gets its share, so that a busy one does not starve the others.
            let share_end = packets_max.min(count + share_packets);
            while count < share_end {
                let Some(len) = neighbour.incoming.pop(&mut self.packet) else {
                    break;
                };
                match parse(&self.packet[..len]) {
                    Ok(packet) => sink(neighbour.address, &packet),
                    Err(reject) => self.counters.rejected_counts[reject.index()] += 1,
                }
                count += 1;
            }
            if count == packets_max {
                // What comes from the others is for later: a look at it may have to wait for its line.
                self.turn = (self.turn + step + 1) % neighbours_count;
                break;
            }
        }
        if count == 0 {
            self.neighbours
                .iter_mut()
                .for_each(|neighbour| neighbour.out.fetch_ahead());
        }
        Ok(count)
    }

    fn send(&mut self, transmit: &Transmit, packet: &mut [u8]) -> io::Result<()> {
        let Some((_, neighbour)) = self.paths.iter().find(|(qp, _)| *qp == transmit.qp) else {
            return Ok(());
        };
        // The place of the ICRC stays, so that one parser serves.
        let len = transmit.len_bytes + ICRC_BYTES;
        let words_bytes = len.next_multiple_of(WORD_BYTES).min(packet.len());
        packet[transmit.len_bytes..words_bytes].fill(0);
        if !self.neighbours[*neighbour].out.push(&packet[..words_bytes], len) {
            self.counters.tx_lost_count += 1;
        }
        Ok(())
    }

    /// There is no doorbell: it looks again and again, and rests in between.
    fn wait(&mut self, max: Duration) -> io::Result<()> {
        let until = self.clock.now() + max;
        loop {
            for neighbour in &self.neighbours {
                if neighbour.incoming.waiting().is_some() {
                    return Ok(());
                }
            }
            let left = until.saturating_since(self.clock.now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LOOK_AGAIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(link: &ShmLink) -> Ring {
        Ring {
            memory: Arc::clone(&link.memory),
            base: LINE_BYTES,
        }
    }

    fn push(out: &mut RingIn, number: u64, len: usize) -> bool {
        let mut packet = [0; PACKET_BYTES_MAX.next_multiple_of(WORD_BYTES)];
        for (index, byte) in packet[..len].iter_mut().enumerate() {
            *byte = (number as usize + index) as u8;
        }
        out.push(&packet[..len.next_multiple_of(WORD_BYTES)], len)
    }

    #[track_caller]
    fn pops(incoming: &mut RingOut, number: u64, len: usize) {
        let mut into = [0xaa; PACKET_BYTES_MAX];
        assert_eq!(incoming.pop(&mut into), Some(len));
        assert!((0..len).all(|index| into[index] == (number as usize + index) as u8));
        assert!(into[len..].iter().all(|&byte| byte == 0xaa));
    }

    fn len_of(number: u64) -> usize {
        [20, 55, 56, 57, 200, 247, 248, 249, 1000, PACKET_BYTES_MAX][number as usize % 10]
    }

    #[test]
    fn a_ring_keeps_order_and_says_when_it_is_full() {
        let link = ShmLink::create().expect("a memfd");
        let other = ShmLink::open(&link.path_for(std::process::id())).expect("the same, mapped again");
        let (mut out, mut incoming) = (RingIn::of(ring(&link)), RingOut::of(ring(&other)));
        let mut into = [0; PACKET_BYTES_MAX];
        for round in 0..3u64 {
            let numbers = round * SLOTS_COUNT..(round + 1) * SLOTS_COUNT;
            for number in numbers.clone() {
                assert!(push(&mut out, number, len_of(number)));
            }
            assert!(!push(&mut out, 0, 8));
            for number in numbers {
                pops(&mut incoming, number, len_of(number));
            }
            assert_eq!(incoming.pop(&mut into), None);
        }
    }

    #[test]
    fn what_a_peer_garbles_is_cut_or_is_not_there() {
        let link = ShmLink::create().expect("a memfd");
        let (mut out, mut incoming) = (RingIn::of(ring(&link)), RingOut::of(ring(&link)));
        let mut into = [0; PACKET_BYTES_MAX];
        assert!(push(&mut out, 1, 8));
        let head = out.ring.places(1).0;
        link.memory.store_word(head, 1 << STAMP_LEN_BITS | 0xffff);
        assert_eq!(incoming.pop(&mut into), Some(PACKET_BYTES_MAX));
        for stamp in [0, 1, 1 << STAMP_LEN_BITS, 3 << STAMP_LEN_BITS, u64::MAX] {
            link.memory.store_word(out.ring.places(2).0, stamp);
            assert_eq!(incoming.pop(&mut into), None, "{stamp:x}");
        }
        // A peer that says that it took what was never there gets nothing more.
        for told in [u64::MAX, 1 << 40, 1000] {
            link.memory.store_word(LINE_BYTES + CONSUMED, told);
            while push(&mut out, 2, 8) {
                assert!(out.put_count <= 2 * SLOTS_COUNT);
            }
            let (mut out, mut incoming) = (RingIn::of(ring(&link)), RingOut::of(ring(&link)));
            push(&mut out, 2, 8);
            incoming.pop(&mut into);
        }
    }

    #[test]
    fn who_comes_after_another_goes_on_where_that_one_was() {
        let link = ShmLink::create().expect("a memfd");
        let (mut out, mut incoming) = (RingIn::of(ring(&link)), RingOut::of(ring(&link)));
        for number in 0..TELL_EVERY + 5 {
            assert!(push(&mut out, number, 8));
        }
        for number in 0..TELL_EVERY + 2 {
            pops(&mut incoming, number, 8);
        }
        let (mut out, mut incoming) = (RingIn::of(ring(&link)), RingOut::of(ring(&link)));
        assert!(push(&mut out, TELL_EVERY + 5, 8));
        // Two come again, none is lost.
        for number in TELL_EVERY..TELL_EVERY + 6 {
            pops(&mut incoming, number, 8);
        }
        assert_eq!(incoming.waiting(), None);
    }

    #[test]
    fn what_is_no_link_is_refused() {
        let file = memfd_create(c"other", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).expect("a memfd");
        let path: PathBuf = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        let refused = |why: &str| {
            let error = ShmLink::open(&path).expect_err("no link");
            assert!(error.to_string().contains(why), "{error}");
        };
        refused("cut under us");
        ftruncate(&file, LINK_BYTES as i64 - 8).expect("ours");
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).expect("ours");
        refused("another length");
        ftruncate(&file, LINK_BYTES as i64).expect("ours");
        refused("another version");
    }
}
