//! The same connections between processes of one machine, over memory that they share: no socket, no system call per packet.
//!
//! A [`ShmLink`] is a memfd with two rings of packets, one each way. One process makes it and hands the other its
//! [`ShmLink::path_for`]. What is in it is the peer's to write, so lengths and indices are checked and packets are copied out
//! before they are looked at. Packets carry no ICRC: memory does not garble them on the way.
//!
//! ```text
//!  word 0      magic, version
//!  A to B      produced │ consumed │ slot 0: length, packet │ slot 1 …
//!  B to A      the same
//! ```
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

use dataplane_waist::{Clock, Instant, LOOK_AGAIN, MonotonicClock, ProbeError, Support};
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
const MAGIC: u64 = 0x6470_6c61_6272_0001;
/// Indices of the two sides are written by different CPUs: a cache line each, and its neighbour, which is fetched with it.
const LINE_BYTES: usize = 128;
const PRODUCED: usize = 0;
const CONSUMED: usize = LINE_BYTES;
const SLOTS: usize = 2 * LINE_BYTES;
/// Length, packet.
const SLOT_BYTES: usize = WORD_BYTES + PACKET_BYTES_MAX.next_multiple_of(WORD_BYTES);
const RING_BYTES: usize = SLOTS + SLOTS_COUNT as usize * SLOT_BYTES;
const LINK_BYTES: usize = LINE_BYTES + 2 * RING_BYTES;

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
    /// The next index and how many are under way.
    ///
    /// # Errors
    /// The indices make no sense.
    fn state(&self) -> io::Result<(u64, u64)> {
        let produced = self.memory.load_word(self.base + PRODUCED);
        let consumed = self.memory.load_word(self.base + CONSUMED);
        match produced.wrapping_sub(consumed) {
            waiting if waiting <= SLOTS_COUNT => Ok((produced, waiting)),
            waiting => {
                let why = format!("a ring of {SLOTS_COUNT} packets says that {waiting} wait: the peer has garbled it");
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }

    fn slot(&self, index: u64) -> usize {
        self.base + SLOTS + (index % SLOTS_COUNT) as usize * SLOT_BYTES
    }

    /// False: there is no room.
    fn push(&self, packet: &[u8]) -> io::Result<bool> {
        let (produced, waiting) = self.state()?;
        if waiting == SLOTS_COUNT {
            return Ok(false);
        }
        let slot = self.slot(produced);
        self.memory.store_word(slot, packet.len() as u64);
        self.memory.write(slot + WORD_BYTES, packet);
        self.memory.store_word(self.base + PRODUCED, produced.wrapping_add(1));
        Ok(true)
    }

    /// Copies the oldest packet out; its length.
    fn pop(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let (produced, waiting) = self.state()?;
        if waiting == 0 {
            return Ok(None);
        }
        let index = produced.wrapping_sub(waiting);
        let slot = self.slot(index);
        let len = usize::try_from(self.memory.load_word(slot))
            .unwrap_or(usize::MAX)
            .min(into.len());
        self.memory.read(slot + WORD_BYTES, &mut into[..len]);
        self.memory.store_word(self.base + CONSUMED, index.wrapping_add(1));
        Ok(Some(len))
    }
}

#[derive(Debug)]
struct Neighbour {
    address: IpAddr,
    out: Ring,
    incoming: Ring,
}

/// Counters of a [`ShmWire`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShmCounters {
    /// Packets that made no sense.
    pub malformed_count: u64,
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
            out,
            incoming,
        });
    }

    /// Counters since it was made.
    pub fn counters(&self) -> &ShmCounters {
        &self.counters
    }
}

impl Wire for ShmWire {
    fn name(&self) -> &'static str {
        "rdma-shm"
    }

    fn local(&self) -> IpAddr {
        self.local
    }

    fn now(&self) -> Instant {
        self.clock.now()
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
        let mut count = 0;
        for neighbour in &self.neighbours {
            // Each gets its share, so that a busy one does not starve the others.
            for _ in 0..packets_max.div_ceil(self.neighbours.len()) {
                let Some(len) = neighbour.incoming.pop(&mut self.packet)? else {
                    break;
                };
                match parse(&self.packet[..len]) {
                    Ok(packet) => sink(neighbour.address, &packet),
                    Err(_) => self.counters.malformed_count += 1,
                }
                count += 1;
            }
        }
        Ok(count)
    }

    fn send(&mut self, transmit: &Transmit, packet: &mut [u8]) -> io::Result<()> {
        let Some((_, neighbour)) = self.paths.iter().find(|(qp, _)| *qp == transmit.qp) else {
            return Ok(());
        };
        // The place of the ICRC stays, so that one parser serves.
        let len = transmit.len_bytes + ICRC_BYTES;
        packet[transmit.len_bytes..len].fill(0);
        if !self.neighbours[*neighbour].out.push(&packet[..len])? {
            self.counters.tx_lost_count += 1;
        }
        Ok(())
    }

    /// There is no doorbell: it looks again and again, and rests in between.
    fn wait(&mut self, max: Duration) -> io::Result<()> {
        let until = self.clock.now() + max;
        loop {
            for neighbour in &self.neighbours {
                if neighbour.incoming.state()?.1 > 0 {
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

    #[test]
    fn a_ring_keeps_order_and_says_when_it_is_full_or_garbled() {
        let link = ShmLink::create().expect("a memfd");
        let other = ShmLink::open(&link.path_for(std::process::id())).expect("the same, mapped again");
        let ring = |link: &ShmLink| Ring {
            memory: Arc::clone(&link.memory),
            base: LINE_BYTES,
        };
        let (out, incoming) = (ring(&link), ring(&other));
        let mut into = [0; PACKET_BYTES_MAX];
        for round in 0..3u64 {
            for index in 0..SLOTS_COUNT {
                assert!(out.push(&(1000 * round + index).to_ne_bytes()).expect("sane"));
            }
            assert!(!out.push(b"one more").expect("sane"));
            for index in 0..SLOTS_COUNT {
                assert_eq!(incoming.pop(&mut into).expect("sane"), Some(8));
                assert_eq!(into[..8], (1000 * round + index).to_ne_bytes());
            }
            assert_eq!(incoming.pop(&mut into).expect("sane"), None);
        }
        // A length that lies is cut, an index that lies is an error.
        assert!(out.push(b"x").expect("sane"));
        link.memory.store_word(out.slot(3 * SLOTS_COUNT), u64::MAX);
        assert_eq!(incoming.pop(&mut into).expect("sane"), Some(PACKET_BYTES_MAX));
        link.memory.store_word(LINE_BYTES + PRODUCED, u64::MAX);
        assert!(incoming.pop(&mut into).is_err());
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
