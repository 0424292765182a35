//! Cases of memory windows: what a window opens, to whom, and until when. The window is `b`'s, bound through the connection to `a`.

use std::sync::Arc;

use dataplane_waist::WrId;
use rdma::{
    Access, Bind, BindError, CompletionError, Data, Faults, Kind, Local, Memory, MemoryKey, MemoryWindow, Operation,
    PostError, ProviderError, QpOptions, Refusal, Registered, Remote, SendRequest,
};

use crate::{
    cases::Case,
    failures::{TRIES, Try, refuses, tried},
    messages,
    pair::{INBOX, Pair, Testable, from, pattern},
    suite,
};

/// Bytes of the region, and the range of it that the window opens.
const REGION_BYTES: usize = 1 << 16;
pub const BEGIN: u64 = 8192;
const LEN: u64 = 16_384;
/// What the window's first key ends with.
pub const FIRST: u8 = 0x11;

pub fn cases<P: Testable + 'static>(options: QpOptions) -> Vec<Case<P>> {
    let mut cases = vec![
        Case::new("a window's range is written, read and counted on", options, inside),
        Case::new(
            "a stolen key of a window opens nothing on another connection",
            options,
            stolen,
        ),
        Case::new("a window that was bound anew has a new key", options, rebound),
        Case::new(
            "a window that was freed opens nothing",
            options,
            |pair: &mut Pair<P>| {
                shut_after(pair, |pair, opened| {
                    assert!(pair.b.device.free_window(opened.window));
                    assert!(!pair.b.device.free_window(opened.window));
                });
            },
        ),
        Case::new("a key that was invalidated opens nothing", options, |pair| {
            shut_after(pair, |pair, opened| opened.invalidate(pair, FIRST));
        }),
        Case::new("a queue pair that is set up anew has no windows", options, reset),
        Case::new("a region stays while a window is bound to it", options, region_stays),
        Case::new(
            "windows that cannot be bound are refused at once",
            options,
            refused_at_once,
        ),
        Case::new(
            "a window is bound and shut in the order of the queue",
            options,
            in_order,
        ),
    ];
    for (name, faults) in bad_wires() {
        let name = format!("a window is bound and shut in the order of the queue, {name}");
        cases.push(Case::new(name, options, in_order).with(faults));
    }
    for what in TRIES {
        for (name, is_behind) in [("before", false), ("behind", true)] {
            cases.push(Case::new(format!("{what:?} {name} a window"), options, move |pair| {
                outside(pair, what, is_behind);
            }));
        }
        cases.push(Case::new(
            format!("{what:?} that a window is not for"),
            options,
            move |pair| {
                not_allowed(pair, what);
            },
        ));
        cases.push(Case::new(
            format!("{what:?} with the key of a region for windows"),
            options,
            move |pair| {
                if let Some(opened) = Opened::bound(pair, Access::ALL) {
                    let at = Remote {
                        address: opened.region.address + BEGIN,
                        rkey: opened.region.key.0,
                    };
                    opened.stays_shut(pair, what, at, Refusal::Access);
                }
            },
        ));
    }
    cases
}

/// Wires on which what stands in a queue with a window's requests is lost and sent again, or comes twice.
pub fn bad_wires() -> [(&'static str, Faults); 2] {
    let lossy = Faults {
        lose_every: 4,
        ..Faults::default()
    };
    let repeating = Faults {
        repeat_every: 2,
        ..Faults::default()
    };
    [("every 4th packet lost", lossy), ("every 2nd packet twice", repeating)]
}

/// A region of `b`'s with a window.
pub struct Opened {
    memory: Arc<Memory>,
    pub region: Registered,
    pub window: MemoryWindow,
}

impl Opened {
    /// `None`: the device offers no windows.
    pub fn new<P: Testable>(pair: &mut Pair<P>) -> Option<Opened> {
        let window = match pair.b.device.allocate_window(pair.b.pd) {
            Ok(window) => window,
            Err(error @ ProviderError::NotOffered { .. }) => {
                eprintln!("skipped: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let memory = Memory::new(REGION_BYTES);
        let region = pair.b.device.register(pair.b.pd, Arc::clone(&memory), Access::WINDOWS);
        Some(Opened { memory, region, window })
    }

    /// Bound through `b`'s queue pair, for `access`.
    pub fn bound<P: Testable>(pair: &mut Pair<P>, access: Access) -> Option<Opened> {
        let opened = Opened::new(pair)?;
        opened.bind(pair, FIRST, access);
        Some(opened)
    }

    pub fn request(&self, key_part: u8, access: Access) -> Bind {
        Bind {
            window: self.window,
            key_part,
            region: self.region.key,
            at_bytes: BEGIN,
            len_bytes: LEN,
            access,
        }
    }

    fn does<P: Testable>(&self, pair: &mut Pair<P>, operation: Operation<'_>, kind: Kind) {
        pair.b.post(900, operation);
        pair.finish(0, 1);
        let done = pair.b.done.remove(0);
        assert_eq!(
            (done.wr_id, done.kind, done.len_bytes, done.result),
            (WrId(900), kind, 0, Ok(()))
        );
    }

    pub fn bind<P: Testable>(&self, pair: &mut Pair<P>, key_part: u8, access: Access) {
        self.does(pair, Operation::Bind(self.request(key_part, access)), Kind::Bind);
    }

    fn invalidate<P: Testable>(&self, pair: &mut Pair<P>, key_part: u8) {
        let key = self.window.key(key_part);
        self.does(pair, Operation::Invalidate { key }, Kind::Invalidate);
    }

    /// A place of the region, by the window's key.
    pub fn at(&self, key_part: u8, at: u64) -> Remote {
        Remote {
            address: self.region.address + at,
            rkey: self.window.key(key_part).0,
        }
    }

    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(at as usize, &mut bytes);
        bytes
    }

    /// A write of `a`'s that is done.
    pub fn is_written<P: Testable>(&self, pair: &mut Pair<P>, key_part: u8, word: u64) {
        let before_count = pair.a.done.len();
        let data = Data::Inline(&word.to_ne_bytes());
        pair.a.post(
            800,
            Operation::Write {
                data,
                to: self.at(key_part, BEGIN),
                imm: None,
            },
        );
        pair.finish(before_count + 1, 0);
        assert_eq!(pair.a.done.pop().map(|done| done.result), Some(Ok(())));
        assert_eq!(self.bytes(BEGIN, 8), word.to_ne_bytes());
    }

    /// What is refused, for this reason, and not done.
    pub fn stays_shut<P: Testable>(&self, pair: &mut Pair<P>, what: Try, at: Remote, refusal: Refusal) {
        let before = self.bytes(0, REGION_BYTES);
        refuses(pair, what, at, refusal);
        assert!(self.bytes(0, REGION_BYTES) == before, "memory was written all the same");
    }
}

fn inside<P: Testable>(pair: &mut Pair<P>) {
    let Some(opened) = Opened::bound(pair, Access::ALL) else {
        return;
    };
    let bytes = pattern(LEN as usize, 3);
    pair.a.fill(0, &bytes);
    let to = opened.at(FIRST, BEGIN);
    let data = from(pair.a.local(0, LEN as u32));
    let into = pair.a.local(INBOX, LEN as u32);
    pair.a.post(1, Operation::Write { data, to, imm: None });
    pair.a.post(2, Operation::Read { into, from: to });
    // A read's answer is made when it leaves: what changes memory comes after it.
    pair.finish(2, 0);
    let at = opened.at(FIRST, BEGIN + LEN - 8);
    let into = pair.a.local(INBOX + LEN, 8);
    pair.a.post(3, Operation::FetchAdd { into, at, add: 1 });
    pair.finish(3, 0);
    assert!(
        pair.a.done.iter().all(|done| done.result == Ok(())),
        "{:?}",
        pair.a.done
    );
    assert!(pair.a.bytes(INBOX, LEN as usize) == bytes);
    assert!(opened.bytes(BEGIN, LEN as usize - 8) == bytes[..LEN as usize - 8]);
    let last = u64::from_ne_bytes(bytes[LEN as usize - 8..].try_into().expect("8 bytes"));
    assert_eq!(opened.bytes(BEGIN + LEN - 8, 8), last.wrapping_add(1).to_ne_bytes());
    assert!(opened.bytes(0, BEGIN as usize).iter().all(|byte| *byte == 0));
    let behind = (BEGIN + LEN) as usize;
    assert!(
        opened
            .bytes(behind as u64, REGION_BYTES - behind)
            .iter()
            .all(|byte| *byte == 0)
    );
    // A receive's worth of the region is still its owner's.
    let into = Local {
        key: opened.region.key,
        at_bytes: 0,
        len_bytes: 5,
    };
    pair.b.receive(4, into);
    pair.a.post(
        5,
        Operation::Send {
            data: Data::Inline(b"owner"),
            imm: None,
        },
    );
    pair.finish(4, 1);
    assert_eq!(opened.bytes(0, 5), b"owner");
}

fn outside<P: Testable>(pair: &mut Pair<P>, what: Try, is_behind: bool) {
    let Some(opened) = Opened::bound(pair, Access::ALL) else {
        return;
    };
    let at = match (is_behind, what) {
        (false, _) => BEGIN - 8,
        (true, Try::Atomic) => BEGIN + LEN,
        (true, _) => BEGIN + LEN - 8,
    };
    let at = opened.at(FIRST, at);
    if pair.b.device.has_bounded_windows() {
        return opened.stays_shut(pair, what, at, Refusal::Range);
    }
    let operation = tried(pair, what, at);
    pair.a.post(1, operation);
    pair.finish(1, 0);
    assert_eq!(pair.a.done[0].result, Ok(()), "it bounds its windows after all");
}

fn not_allowed<P: Testable>(pair: &mut Pair<P>, what: Try) {
    let all = Access {
        bind: false,
        local_write: false,
        ..Access::ALL
    };
    let but = match what {
        Try::Write | Try::LongWrite => Access {
            remote_write: false,
            ..all
        },
        Try::Read => Access {
            remote_read: false,
            ..all
        },
        Try::Atomic => Access {
            remote_atomic: false,
            ..all
        },
    };
    if let Some(opened) = Opened::bound(pair, but) {
        let at = opened.at(FIRST, BEGIN);
        opened.stays_shut(pair, what, at, Refusal::Access);
    }
}

fn stolen<P: Testable>(pair: &mut Pair<P>) {
    let Some(opened) = Opened::bound(pair, Access::ALL) else {
        return;
    };
    let first = (pair.a.qp.take(), pair.b.qp.take());
    // Of the same two devices, in the same domains.
    pair.connect();
    let at = opened.at(FIRST, BEGIN);
    opened.stays_shut(pair, Try::Write, at, Refusal::WrongQp);
    (pair.a.qp, pair.b.qp) = first;
    pair.a.done.clear();
    opened.is_written(pair, FIRST, 7);
}

fn shut_after<P: Testable>(pair: &mut Pair<P>, shut: impl Fn(&mut Pair<P>, &Opened)) {
    let Some(opened) = Opened::bound(pair, Access::ALL) else {
        return;
    };
    opened.is_written(pair, FIRST, 7);
    shut(pair, &opened);
    let at = opened.at(FIRST, BEGIN);
    opened.stays_shut(pair, Try::Write, at, Refusal::UnknownKey);
}

fn rebound<P: Testable>(pair: &mut Pair<P>) {
    let Some(opened) = Opened::bound(pair, Access::ALL) else {
        return;
    };
    for key_part in FIRST..FIRST + 5 {
        opened.is_written(pair, key_part, key_part.into());
        opened.invalidate(pair, key_part);
        opened.bind(pair, key_part + 1, Access::ALL);
    }
    opened.is_written(pair, FIRST + 5, 99);
    let at = opened.at(FIRST + 4, BEGIN);
    opened.stays_shut(pair, Try::Write, at, Refusal::UnknownKey);
}

fn reset<P: Testable>(pair: &mut Pair<P>) {
    let Some(opened) = Opened::bound(pair, Access::ALL) else {
        return;
    };
    let [a, b] = [&mut pair.a, &mut pair.b].map(|end| {
        let broken = end.device.take_down(end.qp.take().expect("connected"));
        let reset = end.device.reset(broken);
        end.device.init(reset)
    });
    pair.bring_up(a, b);
    assert!(!pair.b.device.free_window(opened.window), "it is gone already");
    let at = opened.at(FIRST, BEGIN);
    opened.stays_shut(pair, Try::Write, at, Refusal::UnknownKey);
    assert!(pair.b.device.deregister(opened.region.key));
}

fn region_stays<P: Testable>(pair: &mut Pair<P>) {
    let Some(opened) = Opened::bound(pair, Access::ALL) else {
        return;
    };
    let key = opened.region.key;
    assert!(!pair.b.device.deregister(key), "a window is bound to it");
    assert!(!pair.b.device.deregister(opened.window.key(FIRST)), "it is no region");
    opened.is_written(pair, FIRST, 5);
    opened.invalidate(pair, FIRST);
    assert!(pair.b.device.deregister(key) && !pair.b.device.deregister(key));
    let bind = Operation::Bind(opened.request(FIRST, Access::ALL));
    assert_eq!(pair.b.try_post(1, bind), Err(PostError::Bind(BindError::UnknownRegion)));
}

fn refused_at_once<P: Testable>(pair: &mut Pair<P>) {
    let Some(opened) = Opened::new(pair) else {
        return;
    };
    let b = &mut pair.b;
    let other_pd = b.device.create_pd();
    let foreign = b.device.register(other_pd, Memory::new(REGION_BYTES), Access::WINDOWS);
    let foreign_window = b.device.allocate_window(other_pd).expect("as the first");
    let read_only = Access {
        local_write: false,
        ..Access::WINDOWS
    };
    let read_only = b.device.register(b.pd, Memory::new(REGION_BYTES), read_only);
    let freed = b.device.allocate_window(b.pd).expect("as the first");
    assert!(b.device.free_window(freed));
    let good = opened.request(FIRST, Access::ALL);
    let cases = [
        (
            Bind {
                region: b.region.key,
                ..good
            },
            BindError::NotBindable,
        ),
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
                region: read_only.key,
                ..good
            },
            BindError::NotWritable,
        ),
        (
            Bind {
                region: MemoryKey(0),
                ..good
            },
            BindError::UnknownRegion,
        ),
        (Bind { window: freed, ..good }, BindError::UnknownWindow),
        (Bind { len_bytes: 0, ..good }, BindError::Range),
        (
            Bind {
                at_bytes: REGION_BYTES as u64 - LEN + 1,
                ..good
            },
            BindError::Range,
        ),
        (
            Bind {
                at_bytes: u64::MAX,
                ..good
            },
            BindError::Range,
        ),
    ];
    for (bind, error) in cases {
        assert_eq!(b.try_post(1, Operation::Bind(bind)), Err(PostError::Bind(error)));
    }
    let invalidate = Operation::Invalidate {
        key: opened.window.key(FIRST),
    };
    assert_eq!(b.try_post(1, invalidate), Err(PostError::Bind(BindError::NotBound)));
    opened.bind(pair, FIRST, Access::ALL);
    assert_eq!(
        pair.b.try_post(1, Operation::Bind(good)),
        Err(PostError::Bind(BindError::AlreadyBound))
    );
    // A right that the owner has not is none of a reader's window.
    let reader = Access {
        remote_read: true,
        ..Access::default()
    };
    let other = pair.b.device.allocate_window(pair.b.pd).expect("as the first");
    let bind = Bind {
        window: other,
        region: read_only.key,
        access: reader,
        ..good
    };
    opened.does(pair, Operation::Bind(bind), Kind::Bind);
    // Through another connection of the same domain neither is taken back.
    let first = (pair.a.qp.take(), pair.b.qp.take());
    pair.connect();
    assert_eq!(pair.b.try_post(1, invalidate), Err(PostError::Bind(BindError::WrongQp)));
    (pair.a.qp, pair.b.qp) = first;
    pair.settle();
    assert!(pair.b.done.is_empty() && !pair.b.is_broken());
    opened.is_written(pair, FIRST, 3);
    messages::everything(pair, 1);
}

/// rdma_rxe executes a bind again if it sends again what stands before it (drivers/infiniband/sw/rxe/rxe_req.c, `rxe_requester` after
/// `req_retry`, Linux 6.12), finds the window bound, and breaks the queue pair: honest, but no fault of who bound it.
fn is_broken_by_binding_twice<P: Testable>(pair: &Pair<P>) -> bool {
    if !pair.b.is_broken() {
        return false;
    }
    let may_be = suite::is_wire_lossy() && !pair.b.device.is_software();
    assert!(may_be, "the queue with the binds broke: {:?}", pair.b.done);
    eprintln!(
        "a bind was executed twice, which broke its queue pair, as rdma_rxe does where packets are lost before it"
    );
    true
}

/// What stands in the queue with them has packets that are lost, repeated, and sent again.
fn in_order<P: Testable>(pair: &mut Pair<P>) {
    const ROUNDS: u8 = 8;
    let Some(opened) = Opened::new(pair) else {
        return;
    };
    let bytes = pattern(9000, 1);
    pair.b.fill(0, &bytes);
    for round in 0..ROUNDS {
        let (word, key) = (u64::from(round) + 1, opened.window.key(round));
        pair.a.receive(100, Local::EMPTY);
        let data = from(pair.b.local(0, 9000));
        let write = Operation::Write {
            data,
            to: pair.a.remote(INBOX),
            imm: None,
        };
        pair.b.post(1, write);
        pair.b.post(2, Operation::Bind(opened.request(round, Access::ALL)));
        // Whoever hears of the key finds it bound.
        pair.b.post(
            3,
            Operation::Send {
                data: Data::Inline(&[]),
                imm: Some(key.0),
            },
        );
        let into = pair.b.local(INBOX, 5000);
        pair.b.post(
            4,
            Operation::Read {
                into,
                from: pair.a.remote(INBOX),
            },
        );
        pair.until("the key", |pair| !pair.a.done.is_empty() || pair.b.is_broken());
        if is_broken_by_binding_twice(pair) {
            return;
        }
        assert_eq!(pair.a.done.remove(0).imm, Some(key.0));
        opened.is_written(pair, round, word);
        // That it is done is not told on every second round; what stands behind it says so.
        let invalidate = SendRequest {
            wr_id: WrId(5),
            operation: Operation::Invalidate { key },
            signalled: round.is_multiple_of(2),
        };
        pair.b
            .device
            .post_send(pair.b.qp.as_ref().expect("connected"), &invalidate)
            .expect("room");
        let into = pair.b.local(INBOX, 64);
        pair.b.post(
            6,
            Operation::Read {
                into,
                from: pair.a.remote(INBOX),
            },
        );
        pair.until("the last read", |pair| {
            pair.b.done.iter().any(|done| done.wr_id == WrId(6)) || pair.b.is_broken()
        });
        if is_broken_by_binding_twice(pair) {
            return;
        }
        let done: Vec<_> = pair
            .b
            .done
            .drain(..)
            .map(|done| (done.wr_id.0, done.kind, done.result))
            .collect();
        let kinds = [
            Kind::Write,
            Kind::Bind,
            Kind::Send,
            Kind::Read,
            Kind::Invalidate,
            Kind::Read,
        ];
        let expected = (1..)
            .zip(kinds)
            .map(|(id, kind)| (id, kind, Ok::<(), CompletionError>(())));
        let expected: Vec<_> = expected
            .filter(|(id, ..)| *id != 5 || round.is_multiple_of(2))
            .collect();
        assert_eq!(done, expected);
        assert!(pair.b.bytes(INBOX, 5000) == bytes[..5000]);
    }
    assert!(pair.b.device.deregister(opened.region.key), "no window is bound to it");
    // Who refuses says so once: on a wire that loses it, the other one hears nothing.
    for end in [&mut pair.a, &mut pair.b] {
        end.device.set_faults(Faults::default());
    }
    let late = tried(pair, Try::Write, opened.at(ROUNDS - 1, BEGIN));
    pair.a.post(7, late);
    pair.finish(1, 0);
    assert_eq!(pair.a.done[0].result, Err(CompletionError::RemoteAccess));
    assert_eq!(opened.bytes(BEGIN, 8), u64::from(ROUNDS).to_ne_bytes());
}
