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

mod windows;

use windows::Window;
pub use windows::{Bind, BindError, MemoryWindow};
pub(crate) use windows::{HomeWork, WindowNumber};

use crate::{memory::Memory, wire::QpNumber};

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
    /// Memory windows may be bound to it. They open it to peers whatever stands above, to writers only where the owner may write.
    pub bind: bool,
}

impl Access {
    /// Only what the owner does: sends from here, receives into here.
    pub const LOCAL: Access = Access {
        local_write: true,
        remote_read: false,
        remote_write: false,
        remote_atomic: false,
        bind: false,
    };
    /// Everything that can be done to memory.
    pub const ALL: Access = Access {
        local_write: true,
        remote_read: true,
        remote_write: true,
        remote_atomic: true,
        bind: false,
    };
    /// Shut to peers but through memory windows: the region's own key opens nothing to them.
    pub const WINDOWS: Access = Access {
        bind: true,
        ..Access::LOCAL
    };

    /// Whether peers may do anything.
    pub(crate) fn has_remote(self) -> bool {
        self.remote_read || self.remote_write || self.remote_atomic
    }

    /// Whether whatever `other` lets peers do is allowed.
    pub(crate) fn has_remote_of(self, other: Access) -> bool {
        self.remote_read >= other.remote_read
            && self.remote_write >= other.remote_write
            && self.remote_atomic >= other.remote_atomic
    }

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
    /// No region has this key, and no memory window that is bound.
    #[error("no region has this key")]
    UnknownKey,
    /// The key is another protection domain's.
    #[error("the key belongs to another protection domain")]
    WrongPd,
    /// The region, or the window, does not allow this.
    #[error("the region does not allow this operation")]
    Access,
    /// The range leaves the region, or the window.
    #[error("the range is outside the region")]
    Range,
    /// The key is a memory window's that was bound through another queue pair.
    #[error("the key belongs to another connection")]
    WrongQp,
}

impl Refusal {
    /// All of them, in the order of [`Refusal::index`].
    pub const ALL: [Refusal; 5] = [
        Refusal::UnknownKey,
        Refusal::WrongPd,
        Refusal::Access,
        Refusal::Range,
        Refusal::WrongQp,
    ];

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

/// What a key opens: a region, or a window that is bound to a range of one.
#[derive(Debug)]
struct Region {
    pd: Pd,
    /// Of a window: whose peer alone it is open to.
    through: Option<QpNumber>,
    memory: Arc<Memory>,
    /// Where it begins in the memory: 0, but for a window.
    begin_bytes: u64,
    len_bytes: u64,
    address: u64,
    access: Access,
}

/// All regions of one device, and its memory windows.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    by_key: BTreeMap<MemoryKey, Region>,
    windows: BTreeMap<WindowNumber, Window>,
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
            if key.0 != 0 && !self.by_key.contains_key(&key) && !self.windows.contains_key(&WindowNumber::of(key)) {
                break key;
            }
        };
        let registered = Registered {
            key,
            address: random() & ADDRESS_MASK,
            len_bytes: memory.len_bytes() as u64,
        };
        self.insert(pd, memory, access, &registered);
        registered
    }

    /// Registers under a key and an address that somebody else chose: a device. False: the key is another region's.
    pub(crate) fn insert(&mut self, pd: Pd, memory: Arc<Memory>, access: Access, at: &Registered) -> bool {
        let region = Region {
            pd,
            through: None,
            begin_bytes: 0,
            len_bytes: memory.len_bytes() as u64,
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

    /// False: there is no such region, or a window is bound to it (IBA §10.6.7.2.6).
    pub(crate) fn deregister(&mut self, key: MemoryKey) -> bool {
        let is_region = self.by_key.get(&key).is_some_and(|region| region.through.is_none());
        is_region && !self.has_windows(key) && self.by_key.remove(&key).is_some()
    }

    /// False: there is none, or it is a window that was bound for less.
    pub(crate) fn set_access(&mut self, key: MemoryKey, access: Access) -> bool {
        let is_within = self
            .bound_for(key)
            .is_none_or(|bound_for| bound_for.has_remote_of(access));
        match self.by_key.get_mut(&key) {
            Some(region) if is_within => {
                region.access = access;
                true
            }
            _ => false,
        }
    }

    /// The memory behind an address that the peer of `qp` names, and the place in it.
    pub(crate) fn remote(
        &self,
        (pd, qp): (Pd, QpNumber),
        key: u32,
        address: u64,
        len_bytes: u64,
        need: Need,
    ) -> Result<(&Memory, usize), Refusal> {
        let region = self.by_key.get(&MemoryKey(key)).ok_or(Refusal::UnknownKey)?;
        if region.pd == pd && region.through.is_some_and(|through| through != qp) {
            return Err(Refusal::WrongQp);
        }
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
        let region = self.by_key.get(&local.key).filter(|region| region.through.is_none());
        let region = region.ok_or(Refusal::UnknownKey)?;
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
    /// Whether a range, from its beginning, is its own.
    fn has(&self, at_bytes: u64, len_bytes: u64) -> bool {
        at_bytes.checked_add(len_bytes).is_some_and(|end| end <= self.len_bytes)
    }

    fn open(&self, pd: Pd, at: Result<u64, Refusal>, len_bytes: u64, need: Need) -> Result<(&Memory, usize), Refusal> {
        if self.pd != pd {
            return Err(Refusal::WrongPd);
        }
        if !self.access.allows(need) {
            return Err(Refusal::Access);
        }
        let at = at?;
        if !self.has(at, len_bytes) {
            return Err(Refusal::Range);
        }
        Ok((&self.memory, (self.begin_bytes + at) as usize))
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
        let qp = QpNumber::new(7);
        let open = |pd, key, address, len, need| {
            let opened = regions.remote((pd, qp), key, address, len, need);
            opened.map(|(_, at)| at)
        };
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
        let refused = regions
            .remote((Pd(1), qp), key.0, address, 1, Need::RemoteRead)
            .map(drop);
        assert_eq!(refused, Err(Refusal::Access));
        assert!(regions.deregister(key) && !regions.deregister(key));
        assert!(!format!("{region:?}").contains(&key.0.to_string()));
    }
}
