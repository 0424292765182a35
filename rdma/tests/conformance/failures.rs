//! Cases in which something is refused, missing or dead; and how a connection is set up anew after it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane_waist::WrId;
use rdma::{
    Access, CompletionError, Data, Faults, Kind, Local, Memory, Operation, PostError, QpCounters, QpOptions,
    ReceiveRequest, Refusal, Registered, Remote,
};

use crate::{
    cases::Case,
    messages,
    pair::{End, INBOX, Pair, Testable, from, pattern},
};

/// How long a device is left to say "not ready": some hundred times [`rdma::rnr_delay`] of these cases' timer.
const UNCOUNTED_WAIT: Duration = Duration::from_millis(5);

/// What is tried on memory that is not open to it.
#[derive(Clone, Copy, Debug)]
pub enum Try {
    Write,
    LongWrite,
    Read,
    Atomic,
}

pub const TRIES: [Try; 4] = [Try::Write, Try::LongWrite, Try::Read, Try::Atomic];

pub fn cases<P: Testable + 'static>(options: QpOptions) -> Vec<Case<P>> {
    let rnr_limited = QpOptions {
        rnr_retries_max: 3,
        rnr_timer: 1,
        ..options
    };
    let impatient = QpOptions {
        retries_max: 2,
        ..options
    };
    let mut cases = vec![
        Case::new("a send waits for a receive", options, |pair| not_ready(pair, false)),
        Case::new("a write with a word waits for a receive", options, |pair| {
            not_ready(pair, true)
        }),
        Case::new("a peer that never posts a receive", rnr_limited, never_ready),
        Case::new("a peer that is gone", impatient, gone).in_software(),
        Case::new(
            "a peer that is gone while a read is under way",
            impatient,
            gone_in_a_read,
        )
        .in_software(),
        Case::new("a message longer than its receive", options, |pair| {
            too_long(pair, 100, 101)
        }),
        Case::new(
            "a message of several packets longer than its receive",
            options,
            |pair| {
                too_long(pair, 5000, 9000);
            },
        ),
        Case::new("a receive whose region was closed", options, closed_receive),
        Case::new("an atomic that is not aligned", options, unaligned),
        Case::new("access is taken away in between", options, revoked),
        Case::new("access is given again", options, granted_again),
        Case::new(
            "what is queued behind a failure is flushed in order",
            options,
            flushed_in_order,
        ),
        Case::new("a failure of one connection leaves another whole", options, others_stay),
        Case::new("set up anew after a failure", options, recovered),
        Case::new("set up anew by new queue pairs", options, replaced),
        Case::new("a queue pair that was taken down takes nothing", options, taken_down),
        Case::new("requests that do not fit are refused at once", options, refused_at_once),
        Case::new("lost packets are told as missing", options, told_as_missing)
            .with(Faults {
                lose_every: 5,
                ..Faults::default()
            })
            .in_software(),
        Case::new(
            "repeated packets are counted, not executed",
            options,
            |pair: &mut Pair<P>| {
                messages::everything(pair, 2);
                assert!(counted(&pair.b).is_some_and(|counters| counters.duplicates_count > 0));
            },
        )
        .with(Faults {
            repeat_every: 1,
            ..Faults::default()
        })
        .in_software(),
    ];
    for what in TRIES {
        let mut refused = |name: &str, refusal, at: fn(&mut Pair<P>) -> Remote| {
            cases.push(Case::new(format!("{what:?} {name}"), options, move |pair| {
                let at = at(pair);
                refuses(pair, what, at, refusal);
            }));
        };
        refused("with a key that is none", Refusal::UnknownKey, |pair| Remote {
            rkey: !pair.b.region.key.0,
            ..pair.b.remote(64)
        });
        refused("with another connection's key", Refusal::WrongPd, |pair| {
            let pd = pair.b.device.create_pd();
            at(&pair.b.device.register(pd, Memory::new(1 << 16), Access::ALL))
        });
        refused("to memory that is not open", Refusal::Access, |pair| {
            at(&pair.b.device.register(pair.b.pd, Memory::new(1 << 16), Access::LOCAL))
        });
        refused("beyond the end", Refusal::Range, |pair| {
            let end = pair.b.memory.len_bytes() as u64 & !7;
            pair.b.remote(end)
        });
        refused("before the beginning", Refusal::Range, |pair| Remote {
            address: pair.b.region.address - 8,
            ..pair.b.remote(0)
        });
        refused("at the end of all addresses", Refusal::Range, |pair| Remote {
            address: u64::MAX - 7,
            ..pair.b.remote(0)
        });
    }
    cases
}

/// What an end's queue pairs counted, where that is told.
pub fn counted<P: Testable>(end: &End<P>) -> Option<QpCounters> {
    end.device.counters().map(|counters| counters.qp)
}

fn at(region: &Registered) -> Remote {
    Remote {
        address: region.address,
        rkey: region.key.0,
    }
}

pub fn tried<P: Testable>(pair: &Pair<P>, what: Try, at: Remote) -> Operation<'static> {
    let write = |len| Operation::Write {
        data: from(pair.a.local(0, len)),
        to: at,
        imm: None,
    };
    match what {
        Try::Write => write(16),
        Try::LongWrite => write(9000),
        Try::Read => Operation::Read {
            into: pair.a.local(INBOX, 5000),
            from: at,
        },
        Try::Atomic => Operation::FetchAdd {
            into: pair.a.local(INBOX, 8),
            at,
            add: 1,
        },
    }
}

pub fn refuses<P: Testable>(pair: &mut Pair<P>, what: Try, at: Remote, refusal: Refusal) {
    let before = pair.b.bytes(0, pair.b.memory.len_bytes());
    pair.b.receive(8, Local::EMPTY);
    let operation = tried(pair, what, at);
    pair.a.post(1, operation);
    pair.finish(1, 1);
    assert_eq!(pair.a.done[0].result, Err(CompletionError::RemoteAccess));
    assert_eq!(pair.b.done[0].result, Err(CompletionError::Flushed));
    assert!(pair.a.is_broken() && pair.b.is_broken());
    let mut expected = [0; Refusal::ALL.len()];
    expected[refusal.index()] = 1;
    if let Some(counters) = counted(&pair.b) {
        assert_eq!(counters.refused_counts, expected, "counted by {refusal:?}");
    }
    assert!(
        pair.b.bytes(0, before.len()) == before,
        "memory was written all the same"
    );
    assert_eq!(pair.a.bytes(INBOX, 5000), [0; 5000], "something was read all the same");
}

fn not_ready<P: Testable>(pair: &mut Pair<P>, is_write: bool) {
    let data = Data::Inline(b"after you");
    let operation = match is_write {
        true => Operation::Write {
            data,
            to: pair.b.remote(INBOX),
            imm: Some(3),
        },
        false => Operation::Send { data, imm: Some(3) },
    };
    pair.a.post(1, operation);
    let begin = Instant::now();
    pair.until("a receiver that says that it is not ready", |pair| {
        match (counted(&pair.a), counted(&pair.b)) {
            (Some(counters), _) => counters.rnr_naks_count >= 2,
            (None, Some(counters)) => counters.rnr_naks_sent_count >= 2,
            // A device does not tell. If it waited longer than this, the receive would only come too soon to show anything.
            (None, None) => begin.elapsed() >= UNCOUNTED_WAIT,
        }
    });
    assert!(pair.a.done.is_empty());
    let into = pair.b.local(INBOX, 9);
    pair.b.receive(2, into);
    pair.finish(1, 1);
    assert_eq!(pair.a.done[0].result, Ok(()));
    assert_eq!((pair.b.done[0].wr_id, pair.b.done[0].imm), (WrId(2), Some(3)));
    assert_eq!(pair.b.bytes(INBOX, 9), b"after you");
    assert!(counted(&pair.b).is_none_or(|counters| counters.rnr_naks_sent_count >= 2));
}

fn never_ready<P: Testable>(pair: &mut Pair<P>) {
    let data = Data::Inline(b"anybody?");
    pair.a.post(1, Operation::Send { data, imm: None });
    pair.a.post(2, Operation::Send { data, imm: None });
    pair.finish(2, 0);
    assert_eq!(pair.a.done[0].result, Err(CompletionError::RnrExceeded));
    assert_eq!(pair.a.done[1].result, Err(CompletionError::Flushed));
    // Once, and three times again; more often only where one came so late that the request had been sent again.
    let told = |counters: &QpCounters| match counters.timeouts_count {
        0 => counters.rnr_naks_count == 4,
        _ => counters.rnr_naks_count >= 4,
    };
    if let Some(counters) = counted(&pair.a) {
        assert!(told(&counters), "{counters:?}");
    }
}

fn gone<P: Testable>(pair: &mut Pair<P>) {
    pair.b.device.set_faults(Faults {
        dead_after: 1,
        ..Faults::default()
    });
    let to = pair.b.remote(0);
    let data = Data::Inline(b"hello?");
    pair.a.post(1, Operation::Write { data, to, imm: None });
    pair.finish(1, 0);
    assert_eq!(pair.a.done[0].result, Err(CompletionError::RetryExceeded));
    let counters = counted(&pair.a).expect("a case for software");
    assert_eq!((counters.timeouts_count, counters.resent_count), (3, 2));
}

fn gone_in_a_read<P: Testable>(pair: &mut Pair<P>) {
    pair.b.device.set_faults(Faults {
        dead_after: 3,
        ..Faults::default()
    });
    let read = Operation::Read {
        into: pair.a.local(INBOX, 1 << 16),
        from: pair.b.remote(0),
    };
    pair.a.post(1, read);
    pair.finish(1, 0);
    assert_eq!(pair.a.done[0].result, Err(CompletionError::RetryExceeded));
    assert_eq!(pair.a.done[0].kind, Kind::Read);
}

fn too_long<P: Testable>(pair: &mut Pair<P>, room: u32, len: u32) {
    let into = pair.b.local(INBOX, room);
    pair.b.receive(1, into);
    let data = from(pair.a.local(0, len));
    pair.a.fill(0, &pattern(len as usize, 1));
    pair.a.post(1, Operation::Send { data, imm: None });
    pair.finish(1, 1);
    match (pair.b.done[0].result, pair.a.done[0].result) {
        (Err(CompletionError::Length), Err(CompletionError::RemoteInvalidRequest)) => {}
        // A device need not say more than that the receive failed: rdma_rxe does not, to neither side.
        (Err(CompletionError::LocalOperation { .. }), Err(CompletionError::RemoteOperational))
            if !pair.b.device.is_software() => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(
        pair.b.bytes(INBOX + u64::from(room), 64),
        [0; 64],
        "written behind the receive"
    );
}

fn closed_receive<P: Testable>(pair: &mut Pair<P>) {
    let region = pair.b.device.register(pair.b.pd, Memory::new(64), Access::LOCAL);
    let into = Local {
        key: region.key,
        at_bytes: 0,
        len_bytes: 64,
    };
    pair.b.receive(1, into);
    assert!(pair.b.device.deregister(region.key));
    let data = Data::Inline(b"late");
    pair.a.post(1, Operation::Send { data, imm: None });
    pair.finish(1, 1);
    let protection = CompletionError::LocalProtection(Refusal::UnknownKey);
    assert_eq!(pair.b.done[0].result, Err(protection));
    assert_eq!(pair.a.done[0].result, Err(CompletionError::RemoteOperational));
}

fn unaligned<P: Testable>(pair: &mut Pair<P>) {
    let at = pair.b.remote(4);
    let operation = tried(pair, Try::Atomic, at);
    match pair.a.try_post(1, operation) {
        Ok(()) => {
            pair.finish(1, 0);
            assert_eq!(pair.a.done[0].result, Err(CompletionError::RemoteInvalidRequest));
            assert_eq!(pair.b.bytes(0, 16), [0; 16]);
        }
        // A device's library may see it before the peer does; then nothing was posted, and nothing is broken.
        Err(PostError::Refused { .. }) if !pair.a.device.is_software() => messages::everything(pair, 1),
        Err(other) => panic!("{other:?}"),
    }
}

fn revoked<P: Testable>(pair: &mut Pair<P>) {
    let to = pair.b.remote(0);
    pair.a.post(1, tried(pair, Try::Write, to));
    pair.finish(1, 0);
    let read_only = Access {
        remote_write: false,
        ..Access::ALL
    };
    assert!(pair.b.device.set_access(pair.b.region.key, read_only));
    pair.a.post(2, tried(pair, Try::Read, to));
    pair.a.post(3, tried(pair, Try::Write, to));
    pair.finish(3, 0);
    let results: Vec<_> = pair.a.done.iter().map(|done| done.result).collect();
    assert_eq!(results, [Ok(()), Ok(()), Err(pair.b.device.revoked())]);
}

fn granted_again<P: Testable>(pair: &mut Pair<P>) {
    let key = pair.b.region.key;
    assert!(pair.b.device.set_access(key, Access::LOCAL));
    assert!(pair.b.device.set_access(key, Access::ALL));
    messages::everything(pair, 1);
}

fn flushed_in_order<P: Testable>(pair: &mut Pair<P>) {
    let good = pair.b.remote(0);
    let bad = Remote { rkey: 0, ..good };
    pair.a.post(1, tried(pair, Try::Write, good));
    pair.a.post(2, tried(pair, Try::Read, good));
    pair.a.post(3, tried(pair, Try::Write, bad));
    pair.a.post(4, tried(pair, Try::Write, good));
    pair.a.post(5, tried(pair, Try::Atomic, good));
    pair.finish(5, 0);
    pair.settle();
    let done: Vec<_> = pair.a.done.iter().map(|done| (done.wr_id.0, done.result)).collect();
    let flushed = Err(CompletionError::Flushed);
    assert_eq!(
        done,
        [
            (1, Ok(())),
            (2, Ok(())),
            (3, Err(CompletionError::RemoteAccess)),
            (4, flushed),
            (5, flushed)
        ]
    );
    let write = tried(pair, Try::Write, good);
    assert_eq!(pair.a.try_post(6, write), Err(PostError::Broken));
}

fn others_stay<P: Testable>(pair: &mut Pair<P>) {
    let first = (pair.a.qp.take(), pair.b.qp.take());
    pair.connect();
    let bad = Remote {
        rkey: 0,
        ..pair.b.remote(0)
    };
    pair.a.post(1, tried(pair, Try::Write, bad));
    pair.finish(1, 0);
    assert!(pair.a.is_broken());
    pair.a.done.clear();
    (pair.a.qp, pair.b.qp) = first;
    messages::everything(pair, 1);
}

fn break_it<P: Testable>(pair: &mut Pair<P>) {
    let bad = Remote {
        rkey: 0,
        ..pair.b.remote(0)
    };
    pair.a.post(1, tried(pair, Try::Write, bad));
    pair.finish(1, 0);
    pair.until("two broken ends", |pair| pair.a.is_broken() && pair.b.is_broken());
    pair.a.done.clear();
    pair.b.done.clear();
}

fn recovered<P: Testable>(pair: &mut Pair<P>) {
    for _ in 0..3 {
        break_it(pair);
        let [a, b] = [&mut pair.a, &mut pair.b].map(|end| {
            let broken = end.device.take_down(end.qp.take().expect("connected"));
            let reset = end.device.reset(broken);
            end.device.init(reset)
        });
        pair.bring_up(a, b);
        pair.b.fill(1 << 19, &[0; 8]);
        messages::everything(pair, 1);
        pair.a.done.clear();
        pair.b.done.clear();
    }
}

fn replaced<P: Testable>(pair: &mut Pair<P>) {
    for _ in 0..3 {
        break_it(pair);
        pair.a.device.destroy(pair.a.qp.take().expect("connected"));
        pair.b.device.destroy(pair.b.qp.take().expect("connected"));
        pair.connect();
        pair.b.fill(1 << 19, &[0; 8]);
        messages::everything(pair, 1);
        pair.a.done.clear();
        pair.b.done.clear();
    }
}

fn taken_down<P: Testable>(pair: &mut Pair<P>) {
    pair.b.receive(1, Local::EMPTY);
    let qp = pair.b.qp.take().expect("connected");
    let number = qp.number();
    let broken = pair.b.device.take_down(qp);
    pair.finish(0, 1);
    assert_eq!(pair.b.done[0].result, Err(CompletionError::Flushed));
    assert_eq!(pair.b.done[0].qp, number);
    assert!(pair.b.device.is_broken(&broken));
    let data = Data::Inline(b"hello?");
    let to = pair.b.remote(0);
    pair.a.post(1, Operation::Write { data, to, imm: None });
    pair.finish(1, 1);
    assert_eq!(pair.a.done[0].result, Err(CompletionError::RetryExceeded));
    assert_eq!(pair.b.bytes(0, 8), [0; 8]);
    assert!(
        pair.b
            .device
            .counters()
            .is_none_or(|counters| counters.wrong_state_count > 0)
    );
}

fn refused_at_once<P: Testable>(pair: &mut Pair<P>) {
    let long = vec![0; pair.options.inline_bytes_max + 1];
    let to = pair.b.remote(0);
    let inline = Operation::Write {
        data: Data::Inline(&long),
        to,
        imm: None,
    };
    assert!(matches!(pair.a.try_post(1, inline), Err(PostError::Length { .. })));
    let short = Operation::FetchAdd {
        into: pair.a.local(0, 4),
        at: to,
        add: 1,
    };
    assert!(matches!(pair.a.try_post(1, short), Err(PostError::Length { .. })));
    let outside = pair.a.local(pair.a.memory.len_bytes() as u64, 1);
    let data = from(outside);
    let outside_send = Operation::Send { data, imm: None };
    assert_eq!(pair.a.try_post(1, outside_send), Err(PostError::Local(Refusal::Range)));
    let read_only = pair.a.device.register(pair.a.pd, Memory::new(64), Access::default());
    let into = Local {
        key: read_only.key,
        at_bytes: 0,
        len_bytes: 8,
    };
    let read = Operation::Read { into, from: to };
    assert_eq!(pair.a.try_post(1, read), Err(PostError::Local(Refusal::Access)));
    let qp = pair.a.qp.as_ref().expect("connected");
    let receive = ReceiveRequest { wr_id: WrId(1), into };
    assert_eq!(
        pair.a.device.post_receive(qp, receive),
        Err(PostError::Local(Refusal::Access))
    );
    let other = pair.a.device.create_pd();
    let foreign = pair.a.device.register(other, Arc::clone(&pair.a.memory), Access::ALL);
    let data = from(Local {
        key: foreign.key,
        at_bytes: 0,
        len_bytes: 8,
    });
    let foreign_send = Operation::Send { data, imm: None };
    assert_eq!(
        pair.a.try_post(1, foreign_send),
        Err(PostError::Local(Refusal::WrongPd))
    );
    pair.settle();
    assert!(pair.a.done.is_empty() && !pair.a.is_broken());
    messages::everything(pair, 1);
}

fn told_as_missing<P: Testable>(pair: &mut Pair<P>) {
    let bytes = pattern(60_000, 5);
    pair.a.fill(0, &bytes);
    let data = from(pair.a.local(0, 60_000));
    let to = pair.b.remote(INBOX);
    pair.a.post(1, Operation::Write { data, to, imm: None });
    pair.finish(1, 0);
    assert_eq!(pair.a.done[0].result, Ok(()));
    assert!(pair.b.bytes(INBOX, 60_000) == bytes);
    let (a, b) = (counted(&pair.a), counted(&pair.b));
    let (a, b) = (a.expect("a case for software"), b.expect("a case for software"));
    assert!(pair.a.device.lost_count() > 0);
    assert!(
        b.sequence_naks_sent_count > 0 && a.sequence_naks_count > 0,
        "{a:?} {b:?}"
    );
    // One word per gap, however many packets come behind it.
    assert!(b.sequence_naks_sent_count <= pair.a.device.lost_count(), "{b:?}");
}
