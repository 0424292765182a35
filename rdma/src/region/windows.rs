//! Memory windows of type 2B: a range of a region, opened to the peer of one queue pair, under a key that can be taken back.
//!
//! ```text
//!                 bind, through a queue pair                 invalidate, through the same
//!   allocated ───────────────────────────────▶ bound ───────────────────────────────▶ allocated, and so on
//!   no key        key: 24 bits of the device's,  │      or by a SEND of its peer's
//!                 8 of whoever binds             └ opens a range to the peer of that queue pair, to nobody else
//! ```
//!
//! A key that was stolen on one connection opens nothing on another, though both stand in one protection domain (one of the
//! mitigations that ReDMArk names, USENIX Security 2021). Binding costs no call into the kernel: it is a request in the send queue (IBA §10.6.7), done
//! when its turn comes, so what is sent behind it finds it done. Linux's rdma_rxe means the same (drivers/infiniband/sw/rxe/rxe_mw.c).
//!
//! Each window has two states here: what it will be when all that was posted is done, against which the next request is held before it is
//! posted; and what peers meet.

use std::sync::Arc;

use super::{Access, MemoryKey, Pd, Refusal, Region, Regions, Registered};
use crate::{wire::QpNumber, work::Operation};

/// The bits of a key that whoever binds chooses (ibv_inc_rkey(3)).
const KEY_PART_MASK: u32 = 0xff;

/// A memory window of this end's, bound or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemoryWindow(pub(crate) MemoryKey);

impl MemoryWindow {
    /// What opens it when it is bound with this part of the key.
    pub fn key(self, key_part: u8) -> MemoryKey {
        MemoryKey(self.0.0 & !KEY_PART_MASK | u32::from(key_part))
    }

    /// A part that it has not been bound with so far, for the first time that it is: a number behind the one that the device drew.
    pub fn first_part(self) -> u8 {
        (self.0.0 as u8).wrapping_add(1)
    }
}

/// Which window a key belongs to: its upper 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WindowNumber(u32);

impl WindowNumber {
    pub(crate) fn of(key: MemoryKey) -> WindowNumber {
        WindowNumber(key.0 & !KEY_PART_MASK)
    }
}

/// What a window is to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Which one.
    pub window: MemoryWindow,
    /// The lowest 8 bits of its key from now on. A key that was in use before is better not used again: its last peer knows it.
    pub key_part: u8,
    /// The region, of the same domain, registered with [`Access::bind`].
    pub region: MemoryKey,
    /// Where in the region it begins.
    pub at_bytes: u64,
    /// Its length, which is not 0.
    pub len_bytes: u64,
    /// What the peer may do: of this the remote rights count.
    pub access: Access,
}

impl Bind {
    /// What it opens, as a peer is told of it.
    pub fn opens(&self, region: &Registered) -> Registered {
        Registered {
            key: self.window.key(self.key_part),
            address: region.address.wrapping_add(self.at_bytes),
            len_bytes: self.len_bytes,
        }
    }
}

/// Why a window was not bound, or not invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum BindError {
    /// No such window.
    #[error("this device has no such memory window; it was freed, or its queue pair was reset")]
    UnknownWindow,
    /// No such region.
    #[error("no region has this key, so no window can be bound to it")]
    UnknownRegion,
    /// Queue pair, window and region are not of one domain.
    #[error("the window, its region and the queue pair are of several protection domains; make them in one")]
    WrongPd,
    /// The range leaves the region, or is of no bytes.
    #[error("the range is empty, or leaves the region")]
    Range,
    /// The region was not registered for windows.
    #[error("the region takes no windows; register it with Access::bind")]
    NotBindable,
    /// Peers are to write where the owner may not.
    #[error("a window for writers needs a region that is open to local writes")]
    NotWritable,
    /// It is bound already.
    #[error("the window is bound; invalidate its key first")]
    AlreadyBound,
    /// No window is bound under this key.
    #[error("no window is bound under this key")]
    NotBound,
    /// It was bound through another queue pair.
    #[error("the window was bound through another queue pair; invalidate it through that one, or free it")]
    WrongQp,
}

/// A request that no peer hears of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HomeWork {
    Bind(Bind),
    Invalidate(MemoryKey),
}

impl HomeWork {
    /// `None`: something of it leaves.
    pub(crate) fn of(operation: &Operation<'_>) -> Option<HomeWork> {
        match operation {
            Operation::Bind(bind) => Some(HomeWork::Bind(*bind)),
            Operation::Invalidate { key } => Some(HomeWork::Invalidate(*key)),
            _ => None,
        }
    }
}

/// What a window is bound to.
#[derive(Clone, Copy, Debug)]
struct Bound {
    key: MemoryKey,
    through: QpNumber,
    region: MemoryKey,
    access: Access,
}

#[derive(Debug)]
pub(super) struct Window {
    pd: Pd,
    /// When everything that was posted is done.
    promised: Option<Bound>,
    /// Now.
    bound: Option<Bound>,
}

impl Regions {
    /// A window under a number that is drawn at random, none of whose keys is a region's.
    pub(crate) fn allocate_window(&mut self, pd: Pd, random: &mut dyn FnMut() -> u64) -> MemoryWindow {
        loop {
            let window = MemoryWindow(MemoryKey(random() as u32));
            let keys = window.key(0)..=window.key(u8::MAX);
            // 0 is what forgotten fields hold.
            if window.key(0).0 != 0 && self.by_key.range(keys).next().is_none() && self.insert_window(pd, window) {
                return window;
            }
        }
    }

    /// A window that somebody else made: a device. False: there is one of this number.
    pub(crate) fn insert_window(&mut self, pd: Pd, window: MemoryWindow) -> bool {
        let number = WindowNumber::of(window.0);
        let is_new = !self.windows.contains_key(&number);
        if is_new {
            let (promised, bound) = (None, None);
            self.windows.insert(number, Window { pd, promised, bound });
        }
        is_new
    }

    /// Takes its key back at once, whatever is posted. False: there is none.
    pub(crate) fn free_window(&mut self, window: MemoryWindow) -> bool {
        let Some(freed) = self.windows.remove(&WindowNumber::of(window.0)) else {
            return false;
        };
        if let Some(bound) = freed.bound {
            self.by_key.remove(&bound.key);
        }
        true
    }

    /// The windows that are bound through a queue pair, or are to be.
    pub(crate) fn windows_through(&self, qp: QpNumber) -> Vec<MemoryWindow> {
        let is_its = |window: &Window| {
            let both = [window.promised, window.bound];
            both.into_iter().flatten().any(|bound| bound.through == qp)
        };
        let its = self.windows.iter().filter(|(_, window)| is_its(window));
        its.map(|(number, _)| MemoryWindow(MemoryKey(number.0))).collect()
    }

    /// Whether a window is bound to a region, or is to be.
    pub(super) fn has_windows(&self, region: MemoryKey) -> bool {
        let all = self.windows.values().flat_map(|window| [window.promised, window.bound]);
        all.flatten().any(|bound| bound.region == region)
    }

    /// What the window under this key will let peers do when everything posted is done; and its domain.
    pub(crate) fn promised(&self, key: MemoryKey) -> Option<(Pd, Access)> {
        let window = self.windows.get(&WindowNumber::of(key))?;
        let promised = window.promised.filter(|promised| promised.key == key)?;
        Some((window.pd, promised.access))
    }

    /// Whether a window that is open to peers stands in a domain, other than the one under `key`.
    pub(crate) fn has_other_windows(&self, pd: Pd, key: MemoryKey) -> bool {
        let others = self.windows.values().filter(|window| window.pd == pd);
        let mut bound = others.filter_map(|window| window.promised);
        bound.any(|bound| bound.key != key && bound.access.has_remote())
    }

    /// What a window that is bound under this key was bound for.
    pub(super) fn bound_for(&self, key: MemoryKey) -> Option<Access> {
        let window = self.windows.get(&WindowNumber::of(key))?;
        window.bound.map(|bound| bound.access)
    }

    /// Whether a request may be posted.
    pub(crate) fn check_work(&self, by: (Pd, QpNumber), work: &HomeWork) -> Result<(), BindError> {
        self.checked(by, work, |window| window.promised).map(drop)
    }

    /// It was posted.
    pub(crate) fn promise(&mut self, qp: QpNumber, work: &HomeWork) {
        let (number, promised) = after(qp, work);
        if let Some(window) = self.windows.get_mut(&number) {
            window.promised = promised;
        }
    }

    /// Its turn has come: does it.
    pub(crate) fn work(&mut self, by: (Pd, QpNumber), work: &HomeWork) -> Result<(), BindError> {
        let region = self.checked(by, work, |window| window.bound)?;
        let (number, bound) = after(by.1, work);
        let before = self.windows.get_mut(&number).and_then(|window| {
            let before = window.bound;
            window.bound = bound;
            before
        });
        if let Some(before) = before {
            self.by_key.remove(&before.key);
        }
        if let (Some(bound), Some(region)) = (bound, region) {
            self.by_key.insert(bound.key, region);
        }
        Ok(())
    }

    /// Whether the peer of a queue pair may take a key back: it is that of a window which is bound through this queue pair.
    pub(crate) fn check_taken_back(&self, (pd, qp): (Pd, QpNumber), key: MemoryKey) -> Result<(), Refusal> {
        let opened = self.by_key.get(&key).ok_or(Refusal::UnknownKey)?;
        match opened.through {
            _ if opened.pd != pd => Err(Refusal::WrongPd),
            // A region is its owner's to close.
            None => Err(Refusal::Access),
            Some(through) if through != qp => Err(Refusal::WrongQp),
            Some(_) => Ok(()),
        }
    }

    /// Whether a window is bound under this key, through this queue pair, or will be.
    pub(crate) fn is_bound_through(&self, qp: QpNumber, key: MemoryKey) -> bool {
        let window = self.windows.get(&WindowNumber::of(key));
        let promised = window.and_then(|window| window.promised);
        promised.is_some_and(|promised| promised.key == key && promised.through == qp)
    }

    /// The peer has taken a key back. An invalidation of its owner's that waits for its turn finds nothing then.
    pub(crate) fn take_back(&mut self, key: MemoryKey) {
        let Some(window) = self.windows.get_mut(&WindowNumber::of(key)) else {
            return;
        };
        window.promised = window.promised.filter(|promised| promised.key != key);
        if window.bound.is_some_and(|bound| bound.key == key) {
            window.bound = None;
            self.by_key.remove(&key);
        }
    }

    /// Holds a request against what its window is, or will be; brings what a bind opens.
    fn checked(
        &self,
        (pd, qp): (Pd, QpNumber),
        work: &HomeWork,
        state: impl Fn(&Window) -> Option<Bound>,
    ) -> Result<Option<Region>, BindError> {
        match work {
            HomeWork::Bind(bind) => {
                let window = self.windows.get(&WindowNumber::of(bind.window.0));
                let window = window.ok_or(BindError::UnknownWindow)?;
                // IBA o10-37.2.30: only a window that is free.
                if state(window).is_some() {
                    return Err(BindError::AlreadyBound);
                }
                match window.pd == pd {
                    true => self.opened_by(pd, qp, bind).map(Some),
                    false => Err(BindError::WrongPd),
                }
            }
            HomeWork::Invalidate(key) => {
                let window = self.windows.get(&WindowNumber::of(*key));
                let bound = window.and_then(state).filter(|bound| bound.key == *key);
                let bound = bound.ok_or(BindError::NotBound)?;
                match bound.through == qp {
                    true => Ok(None),
                    false => Err(BindError::WrongQp),
                }
            }
        }
    }

    /// IBA C10-72 to C10-75, as rxe_mw.c (`rxe_check_bind_mw`) takes them.
    fn opened_by(&self, pd: Pd, qp: QpNumber, bind: &Bind) -> Result<Region, BindError> {
        let region = self.by_key.get(&bind.region).filter(|region| region.through.is_none());
        let region = region.ok_or(BindError::UnknownRegion)?;
        if region.pd != pd {
            return Err(BindError::WrongPd);
        }
        if !region.access.bind {
            return Err(BindError::NotBindable);
        }
        let access = remote_of(bind.access);
        if (access.remote_write || access.remote_atomic) && !region.access.local_write {
            return Err(BindError::NotWritable);
        }
        if bind.len_bytes == 0 || !region.has(bind.at_bytes, bind.len_bytes) {
            return Err(BindError::Range);
        }
        Ok(Region {
            pd,
            through: Some(qp),
            memory: Arc::clone(&region.memory),
            begin_bytes: bind.at_bytes,
            len_bytes: bind.len_bytes,
            address: region.address.wrapping_add(bind.at_bytes),
            access,
        })
    }
}

fn remote_of(access: Access) -> Access {
    Access {
        local_write: false,
        bind: false,
        ..access
    }
}

/// What a window is after a request: which one it is of.
fn after(through: QpNumber, work: &HomeWork) -> (WindowNumber, Option<Bound>) {
    match work {
        HomeWork::Bind(bind) => {
            let bound = Bound {
                key: bind.window.key(bind.key_part),
                through,
                region: bind.region,
                access: remote_of(bind.access),
            };
            (WindowNumber::of(bind.window.0), Some(bound))
        }
        HomeWork::Invalidate(key) => (WindowNumber::of(*key), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory::Memory, region::Need};

    const PD: Pd = Pd(1);
    const QP: QpNumber = QpNumber::new(7);
    const READER: Access = Access {
        remote_read: true,
        local_write: false,
        remote_write: false,
        remote_atomic: false,
        bind: false,
    };

    struct Scene {
        regions: Regions,
        region: Registered,
        window: MemoryWindow,
    }

    impl Scene {
        fn new(access: Access) -> Scene {
            let mut regions = Regions::default();
            let mut state = 7u64;
            let mut random = || {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                state >> 8
            };
            let region = regions.register(PD, Memory::new(100), access, &mut random);
            let window = regions.allocate_window(PD, &mut random);
            Scene {
                regions,
                region,
                window,
            }
        }

        fn bind(&self, key_part: u8) -> Bind {
            Bind {
                window: self.window,
                key_part,
                region: self.region.key,
                at_bytes: 10,
                len_bytes: 50,
                access: READER,
            }
        }

        fn binds(&mut self, bind: Bind) -> Result<(), BindError> {
            let work = HomeWork::Bind(bind);
            self.regions.check_work((PD, QP), &work)?;
            self.regions.promise(QP, &work);
            self.regions.work((PD, QP), &work)
        }

        fn open(&self, qp: QpNumber, key: MemoryKey, at: u64, len: u64, need: Need) -> Result<usize, Refusal> {
            let address = self.region.address.wrapping_add(at);
            let opened = self.regions.remote((PD, qp), key.0, address, len, need);
            opened.map(|(_, at)| at)
        }
    }

    #[test]
    fn a_window_opens_its_range_to_one_queue_pair_until_it_is_invalidated() {
        let mut scene = Scene::new(Access::WINDOWS);
        let bind = scene.bind(3);
        assert_eq!(scene.binds(bind), Ok(()));
        let key = scene.window.key(3);
        let read = |scene: &Scene, qp, at, len| scene.open(qp, key, at, len, Need::RemoteRead);
        assert_eq!(read(&scene, QP, 10, 50), Ok(10));
        assert_eq!(read(&scene, QP, 59, 1), Ok(59));
        assert_eq!(read(&scene, QP, 9, 2), Err(Refusal::Range));
        assert_eq!(read(&scene, QP, 10, 51), Err(Refusal::Range));
        assert_eq!(read(&scene, QpNumber::new(8), 10, 1), Err(Refusal::WrongQp));
        assert_eq!(scene.open(QP, key, 10, 1, Need::RemoteWrite), Err(Refusal::Access));
        let whole = scene.region.key;
        assert_eq!(scene.open(QP, whole, 10, 1, Need::RemoteRead), Err(Refusal::Access));
        let local = crate::region::Local {
            key,
            at_bytes: 0,
            len_bytes: 1,
        };
        let at_home = scene.regions.check_local(PD, &local, Need::LocalRead);
        assert_eq!(at_home, Err(Refusal::UnknownKey), "a window is for peers");

        assert!(!scene.regions.deregister(whole) && !scene.regions.deregister(key));
        assert_eq!(scene.binds(bind), Err(BindError::AlreadyBound));
        let invalidate = HomeWork::Invalidate(key);
        let elsewhere = scene.regions.check_work((PD, QpNumber::new(8)), &invalidate);
        assert_eq!(elsewhere, Err(BindError::WrongQp));
        scene.regions.promise(QP, &invalidate);
        assert_eq!(read(&scene, QP, 10, 1), Ok(10), "posted is not done");
        assert!(!scene.regions.deregister(whole), "it is bound as long as peers meet it");
        assert_eq!(scene.regions.work((PD, QP), &invalidate), Ok(()));
        assert_eq!(read(&scene, QP, 10, 1), Err(Refusal::UnknownKey));
        assert_eq!(scene.regions.work((PD, QP), &invalidate), Err(BindError::NotBound));

        let again = scene.bind(4);
        assert_eq!(scene.binds(again), Ok(()));
        assert_eq!(read(&scene, QP, 10, 1), Err(Refusal::UnknownKey), "the old key");
        assert_eq!(scene.open(QP, scene.window.key(4), 10, 1, Need::RemoteRead), Ok(10));
        assert_eq!(scene.regions.windows_through(QP).len(), 1);
        assert!(scene.regions.free_window(scene.window) && !scene.regions.free_window(scene.window));
        assert!(scene.regions.deregister(whole));
    }

    #[test]
    fn a_peer_takes_back_what_is_bound_through_its_connection_and_nothing_else() {
        let mut scene = Scene::new(Access::WINDOWS);
        let (free, key) = (scene.window.key(1), scene.window.key(2));
        let check = |scene: &Scene, by, key| scene.regions.check_taken_back(by, key);
        assert_eq!(check(&scene, (PD, QP), free), Err(Refusal::UnknownKey));
        let bind = scene.bind(2);
        assert_eq!(scene.binds(bind), Ok(()));
        assert_eq!(check(&scene, (PD, QP), free), Err(Refusal::UnknownKey));
        assert_eq!(check(&scene, (Pd(2), QP), key), Err(Refusal::WrongPd));
        assert_eq!(check(&scene, (PD, QpNumber::new(8)), key), Err(Refusal::WrongQp));
        assert_eq!(check(&scene, (PD, QP), scene.region.key), Err(Refusal::Access));
        assert_eq!(check(&scene, (PD, QP), key), Ok(()));
        // The owner was about to do the same.
        let invalidate = HomeWork::Invalidate(key);
        scene.regions.promise(QP, &invalidate);
        scene.regions.take_back(key);
        assert_eq!(scene.open(QP, key, 10, 1, Need::RemoteRead), Err(Refusal::UnknownKey));
        assert_eq!(scene.regions.work((PD, QP), &invalidate), Err(BindError::NotBound));
        // One that will be bound anew by then stays so.
        let again = HomeWork::Bind(scene.bind(3));
        scene.regions.promise(QP, &again);
        scene.regions.take_back(key);
        assert!(scene.regions.is_bound_through(QP, scene.window.key(3)));
        assert_eq!(scene.regions.work((PD, QP), &again), Ok(()));
        assert_eq!(scene.open(QP, scene.window.key(3), 10, 1, Need::RemoteRead), Ok(10));
    }

    #[test]
    fn access_of_a_window_goes_no_further_than_it_was_bound_for() {
        let mut scene = Scene::new(Access::WINDOWS);
        let bind = scene.bind(1);
        assert_eq!(scene.binds(bind), Ok(()));
        let key = scene.window.key(1);
        assert!(!scene.regions.set_access(key, Access::ALL));
        assert!(scene.regions.set_access(key, Access::default()));
        assert_eq!(scene.open(QP, key, 10, 1, Need::RemoteRead), Err(Refusal::Access));
        assert!(scene.regions.set_access(key, READER));
        assert_eq!(scene.open(QP, key, 10, 1, Need::RemoteRead), Ok(10));
    }

    #[test]
    fn each_reason_not_to_bind() {
        let mut scene = Scene::new(Access {
            local_write: false,
            ..Access::WINDOWS
        });
        let good = scene.bind(1);
        let regions = &mut scene.regions;
        let mut numbers = 1u64 << 20..;
        let mut random = || numbers.next().expect("numbers do not end");
        let shut = regions.register(PD, Memory::new(100), Access::ALL, &mut random).key;
        let foreign = regions.register(Pd(2), Memory::new(100), Access::WINDOWS, &mut random);
        let foreign_window = regions.allocate_window(Pd(2), &mut random);
        let writer = Access {
            remote_write: true,
            ..READER
        };
        let cases = [
            (Bind { at_bytes: 51, ..good }, BindError::Range),
            (Bind { len_bytes: 0, ..good }, BindError::Range),
            (
                Bind {
                    at_bytes: u64::MAX,
                    ..good
                },
                BindError::Range,
            ),
            (Bind { access: writer, ..good }, BindError::NotWritable),
            (Bind { region: shut, ..good }, BindError::NotBindable),
            (
                Bind {
                    region: foreign.key,
                    ..good
                },
                BindError::WrongPd,
            ),
            (
                Bind {
                    window: foreign_window,
                    ..good
                },
                BindError::WrongPd,
            ),
            (
                Bind {
                    region: MemoryKey(0),
                    ..good
                },
                BindError::UnknownRegion,
            ),
            (
                Bind {
                    window: MemoryWindow(MemoryKey(0)),
                    ..good
                },
                BindError::UnknownWindow,
            ),
        ];
        for (bind, error) in cases {
            assert_eq!(scene.binds(bind), Err(error));
        }
        assert_eq!(scene.binds(good), Ok(()));
        assert!(!format!("{:?}", scene.window).contains(&good.window.0.0.to_string()));
    }
}
