//! Memory regions: who may do what to which memory, under which key.
//!
//! A key alone opens nothing. It must stand in the protection domain of the queue pair that shows it, and the domain of a peer
//! is that peer's own: a key that another peer overheard is refused (ReDMArk, USENIX Security 2021, §5: keys that are easy to
//! guess, and one protection domain for everybody, are what most attacks there rest on).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::Arc,
};

use crate::memory::Memory;

/// A protection domain: queue pairs and regions of one do not see those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pd(pub(crate) u32);

/// What opens a region: drawn at random. One number is local and remote key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemoryKey(pub u32);

impl fmt::Debug for MemoryKey {
    /// Whoever reads a log must not learn it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryKey(not shown)")
    }
}

/// What a region may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The owner's receives and reads may land here.
    pub local_write: bool,
    /// Peers may read.
    pub remote_read: bool,
    /// Peers may write.
    pub remote_write: bool,
    /// Peers may compare and swap, fetch and add.
    pub remote_atomic: bool,
}

impl Access {
    /// Only what the owner does: sends from here, receives into here.
    pub const LOCAL: Access = Access {
        local_write: true,
        remote_read: false,
        remote_write: false,
        remote_atomic: false,
    };
    /// Everything.
    pub const ALL: Access = Access {
        local_write: true,
        remote_read: true,
        remote_write: true,
        remote_atomic: true,
    };

    fn allows(self, need: Need) -> bool {
        match need {
            Need::LocalRead => true,
            Need::LocalWrite => self.local_write,
            Need::RemoteRead => self.remote_read,
            Need::RemoteWrite => self.remote_write,
            Need::RemoteAtomic => self.remote_atomic,
        }
    }
}

/// What an operation is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    LocalRead,
    LocalWrite,
    RemoteRead,
    RemoteWrite,
    RemoteAtomic,
}

/// Why memory stayed shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// No region has this key.
    #[error("no region has this key")]
    UnknownKey,
    /// The key is another protection domain's.
    #[error("the key belongs to another protection domain")]
    WrongPd,
    /// The region does not allow this.
    #[error("the region does not allow this operation")]
    Access,
    /// The range leaves the region.
    #[error("the range is outside the region")]
    Range,
}

impl Refusal {
    /// All of them, in the order of [`Refusal::index`].
    pub const ALL: [Refusal; 4] = [Refusal::UnknownKey, Refusal::WrongPd, Refusal::Access, Refusal::Range];

    /// Position in [`Refusal::ALL`], for counters kept in an array.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A registered region, as its owner knows it and tells a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// What opens it.
    pub key: MemoryKey,
    /// Its first byte's address, as peers name it; drawn at random, a multiple of 8.
    pub address: u64,
    /// Its length.
    pub len_bytes: u64,
}

/// A range of a region of this end's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Which region.
    pub key: MemoryKey,
    /// From its beginning.
    pub at_bytes: u64,
    /// How much of it.
    pub len_bytes: u32,
}

impl Local {
    /// No bytes of no region: what a receive or a read of nothing needs.
    pub const EMPTY: Local = Local {
        key: MemoryKey(0),
        at_bytes: 0,
        len_bytes: 0,
    };
}

#[derive(Debug)]
struct Region {
    pd: Pd,
    memory: Arc<Memory>,
    address: u64,
    access: Access,
}

/// All regions of one device.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    by_key: BTreeMap<MemoryKey, Region>,
}

/// User space ends below 2⁴⁷ on x86-64 and with 48-bit addresses on Arm; an address that looks like one surprises nobody.
const ADDRESS_MASK: u64 = 0x7fff_ffff_f000;

impl Regions {
    pub(crate) fn register(
        &mut self,
        pd: Pd,
        memory: Arc<Memory>,
        access: Access,
        random: &mut dyn FnMut() -> u64,
    ) -> Registered {
        let key = loop {
            let key = MemoryKey(random() as u32);
            // 0 is what forgotten fields hold.
            if key.0 != 0 && !self.by_key.contains_key(&key) {
                break key;
            }
        };
        let address = random() & ADDRESS_MASK;
        let len_bytes = memory.len_bytes() as u64;
        let region = Region {
            pd,
            memory,
            address,
            access,
        };
        self.by_key.insert(key, region);
        Registered {
            key,
            address,
            len_bytes,
        }
    }

    /// Registers under a key and an address that somebody else chose: a device. False: the key is another region's.
    pub(crate) fn insert(&mut self, pd: Pd, memory: Arc<Memory>, access: Access, at: &Registered) -> bool {
        let region = Region {
            pd,
            memory,
            address: at.address,
            access,
        };
        match self.by_key.entry(at.key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(region);
                true
            }
        }
    }

    pub(crate) fn deregister(&mut self, key: MemoryKey) -> bool {
        self.by_key.remove(&key).is_some()
    }

    pub(crate) fn set_access(&mut self, key: MemoryKey, access: Access) -> bool {
        match self.by_key.get_mut(&key) {
            Some(region) => {
                region.access = access;
                true
            }
            None => false,
        }
    }

    /// The memory behind a peer's address, and the place in it.
    pub(crate) fn remote(
        &self,
        pd: Pd,
        key: u32,
        address: u64,
        len_bytes: u64,
        need: Need,
    ) -> Result<(&Memory, usize), Refusal> {
        let region = self.by_key.get(&MemoryKey(key)).ok_or(Refusal::UnknownKey)?;
        let at = address.checked_sub(region.address);
        region.open(pd, at.ok_or(Refusal::Range), len_bytes, need)
    }

    /// The memory of a range of this end's, from `skip_bytes` on, and the place in it.
    pub(crate) fn local(
        &self,
        pd: Pd,
        local: &Local,
        skip_bytes: u64,
        len_bytes: u64,
        need: Need,
    ) -> Result<(&Memory, usize), Refusal> {
        let region = self.by_key.get(&local.key).ok_or(Refusal::UnknownKey)?;
        let at = local.at_bytes.checked_add(skip_bytes).ok_or(Refusal::Range);
        region.open(pd, at, len_bytes, need)
    }

    /// Whether a range may be posted.
    pub(crate) fn check_local(&self, pd: Pd, local: &Local, need: Need) -> Result<(), Refusal> {
        match local.len_bytes {
            0 => Ok(()),
            len_bytes => self.local(pd, local, 0, len_bytes.into(), need).map(drop),
        }
    }
}

impl Region {
    fn open(&self, pd: Pd, at: Result<u64, Refusal>, len_bytes: u64, need: Need) -> Result<(&Memory, usize), Refusal> {
        if self.pd != pd {
            return Err(Refusal::WrongPd);
        }
        if !self.access.allows(need) {
            return Err(Refusal::Access);
        }
        let at = at?;
        let end = at.checked_add(len_bytes).ok_or(Refusal::Range)?;
        if end > self.memory.len_bytes() as u64 {
            return Err(Refusal::Range);
        }
        Ok((&self.memory, at as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_to_refuse() {
        let mut regions = Regions::default();
        let mut state = 7u64;
        let mut random = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            state >> 8
        };
        let read_only = Access {
            remote_read: true,
            ..Access::default()
        };
        let region = regions.register(Pd(1), Memory::new(100), read_only, &mut random);
        let Registered { key, address, .. } = region;
        let open = |pd, key, address, len, need| regions.remote(pd, key, address, len, need).map(|(_, at)| at);
        assert_eq!(open(Pd(1), key.0, address + 60, 40, Need::RemoteRead), Ok(60));
        assert_eq!(
            open(Pd(1), key.0 ^ 1, address, 1, Need::RemoteRead),
            Err(Refusal::UnknownKey)
        );
        assert_eq!(open(Pd(2), key.0, address, 1, Need::RemoteRead), Err(Refusal::WrongPd));
        assert_eq!(open(Pd(1), key.0, address, 1, Need::RemoteWrite), Err(Refusal::Access));
        assert_eq!(
            open(Pd(1), key.0, address + 60, 41, Need::RemoteRead),
            Err(Refusal::Range)
        );
        assert_eq!(
            open(Pd(1), key.0, address - 1, 2, Need::RemoteRead),
            Err(Refusal::Range)
        );
        assert_eq!(
            open(Pd(1), key.0, address, u64::MAX, Need::RemoteRead),
            Err(Refusal::Range)
        );
        assert_eq!(open(Pd(1), key.0, u64::MAX, 2, Need::RemoteRead), Err(Refusal::Range));
        assert!(regions.set_access(key, Access::default()));
        let refused = regions.remote(Pd(1), key.0, address, 1, Need::RemoteRead).map(drop);
        assert_eq!(refused, Err(Refusal::Access));
        assert!(regions.deregister(key) && !regions.deregister(key));
        assert!(!format!("{region:?}").contains(&key.0.to_string()));
    }
}
