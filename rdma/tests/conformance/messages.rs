//! Cases in which everything goes well in the end.

use dataplane_waist::WrId;
use rdma::{Completion, Data, Kind, Local, Operation, PathMtu, PostError, QpOptions, SendRequest, wire::Psn};

use crate::{
    cases::Case,
    pair::{INBOX, Pair, Testable, from, pattern},
};

/// What moves a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    Send,
    SendImm,
    Write,
    WriteImm,
    Read,
}

pub const MOVES: [Moves; 5] = [Moves::Send, Moves::SendImm, Moves::Write, Moves::WriteImm, Moves::Read];

const WORD: u32 = 0xabc0_0001;

fn success(completion: &Completion) -> &Completion {
    assert_eq!(completion.result, Ok(()), "{completion:?}");
    completion
}

/// One message of `len` bytes, by each of them.
pub fn moves<P: Testable>(pair: &mut Pair<P>, what: Moves, len: usize) {
    let bytes = pattern(len, 7);
    let len_bytes = len as u32;
    let data = from(pair.a.local(0, len_bytes));
    let to = pair.b.remote(INBOX);
    // What is around the message must stay as it is.
    let fence = [0x5a; 16];
    pair.b.fill(INBOX + len as u64, &fence);
    pair.a.fill(INBOX + len as u64, &fence);
    let imm = matches!(what, Moves::SendImm | Moves::WriteImm).then_some(WORD);
    let is_received = matches!(what, Moves::Send | Moves::SendImm | Moves::WriteImm);
    if is_received {
        let into = pair.b.local(INBOX, len_bytes);
        pair.b
            .receive(77, if what == Moves::WriteImm { Local::EMPTY } else { into });
    }
    let (kind, operation) = match what {
        Moves::Send | Moves::SendImm => (Kind::Send, Operation::Send { data, imm }),
        Moves::Write | Moves::WriteImm => (Kind::Write, Operation::Write { data, to, imm }),
        Moves::Read => {
            let into = pair.a.local(INBOX, len_bytes);
            let read = Operation::Read {
                into,
                from: pair.b.remote(0),
            };
            (Kind::Read, read)
        }
    };
    let (source, sink) = match what {
        Moves::Read => (&pair.b, &pair.a),
        _ => (&pair.a, &pair.b),
    };
    source.fill(0, &bytes);
    let sink_memory = sink.memory.clone();
    pair.a.post(5, operation);
    pair.finish(1, usize::from(is_received));
    let done = *success(&pair.a.done[0]);
    assert_eq!((done.wr_id, done.kind, done.len_bytes), (WrId(5), kind, len_bytes));
    let mut read = vec![0; len + fence.len()];
    sink_memory.read(INBOX as usize, &mut read);
    assert!(read[..len] == bytes[..], "the bytes are others");
    assert_eq!(read[len..], fence, "bytes behind the message were written");
    if is_received {
        let received = success(&pair.b.done[0]);
        assert_eq!((received.wr_id, received.imm), (WrId(77), imm));
        let kind = if what == Moves::WriteImm {
            Kind::ReceiveWrite
        } else {
            Kind::Receive
        };
        assert_eq!(received.kind, kind);
        if what != Moves::WriteImm {
            assert_eq!(received.len_bytes, len_bytes);
        }
    }
    pair.settle();
    assert_eq!((pair.a.done.len(), pair.b.done.len()), (1, usize::from(is_received)));
}

/// All operations behind each other, several rounds, without waiting between them; everything is done once and in order.
pub fn everything<P: Testable>(pair: &mut Pair<P>, rounds: u64) {
    let mtu = pair.options.path_mtu.bytes();
    let len = 3 * mtu + 5;
    let counter = 1 << 19;
    let slot = |round: u64| round * (len as u64).next_multiple_of(64);
    let mut expected = Vec::new();
    for round in 0..rounds {
        let bytes = pattern(len, round);
        pair.a.fill(slot(round), &bytes);
        let data = from(pair.a.local(slot(round), len as u32));
        let into = pair.b.local(INBOX + slot(round), len as u32);
        pair.b.receive(round, into);
        pair.b.receive(1000 + round, Local::EMPTY);
        let at = pair.b.remote(counter);
        let word_at = |index: u64| INBOX + (1 << 19) + 8 * (3 * round + index);
        let back_at = INBOX + slot(round);
        let operations = [
            Operation::Send {
                data,
                imm: Some(round as u32),
            },
            Operation::FetchAdd {
                into: pair.a.local(word_at(0), 8),
                at,
                add: 10,
            },
            Operation::Write {
                data,
                to: pair.b.remote(slot(round)),
                imm: None,
            },
            // It finds what the write before it wrote.
            Operation::Read {
                into: pair.a.local(back_at, len as u32),
                from: pair.b.remote(slot(round)),
            },
            Operation::CompareSwap {
                into: pair.a.local(word_at(1), 8),
                at,
                compare: 11 * round + 10,
                swap: 11 * round + 11,
            },
            Operation::CompareSwap {
                into: pair.a.local(word_at(2), 8),
                at,
                compare: 0,
                swap: 99,
            },
            Operation::Write {
                data: Data::Inline(&bytes[..32]),
                to: pair.b.remote(slot(round)),
                imm: Some(!(round as u32)),
            },
        ];
        for operation in operations {
            let id = expected.len() as u64;
            pair.a.post(id, operation);
            expected.push(WrId(id));
        }
    }
    pair.finish(expected.len(), 2 * rounds as usize);
    pair.settle();
    let done: Vec<WrId> = pair.a.done.iter().map(|done| success(done).wr_id).collect();
    assert_eq!(done, expected, "out of order, or not once");
    for (round, received) in pair.b.done.chunks(2).enumerate() {
        let round = round as u64;
        let [sent, written] = received else {
            panic!("an odd number of receives")
        };
        assert_eq!((success(sent).wr_id, sent.kind), (WrId(round), Kind::Receive));
        assert_eq!((sent.imm, sent.len_bytes), (Some(round as u32), len as u32));
        assert_eq!(
            (success(written).wr_id, written.kind),
            (WrId(1000 + round), Kind::ReceiveWrite)
        );
        assert_eq!(written.imm, Some(!(round as u32)));
        let bytes = pattern(len, round);
        assert!(pair.b.bytes(INBOX + slot(round), len) == bytes, "round {round}: sent");
        assert!(pair.b.bytes(slot(round), len) == bytes, "round {round}: written");
        assert!(pair.a.bytes(INBOX + slot(round), len) == bytes, "round {round}: read");
        let words = [0, 1, 2].map(|index| pair.a.word(INBOX + (1 << 19) + 8 * (3 * round + index)));
        // A repeated atomic would have counted twice.
        assert_eq!(words, [11 * round, 11 * round + 10, 11 * round + 11], "round {round}");
    }
    assert_eq!(pair.b.word(counter), 11 * rounds);
    assert_eq!(pair.b.done.len(), 2 * rounds as usize);
}

pub fn cases<P: Testable + 'static>(options: QpOptions) -> Vec<Case<P>> {
    let wraps = |start: u32| QpOptions {
        start_psn: Some(Psn::new(start)),
        ..options
    };
    vec![
        Case::new("compare and swap that finds what it expects", options, |pair| {
            cas(pair, 5, 5, 9, 9);
        }),
        Case::new("compare and swap that finds something else", options, |pair| {
            cas(pair, 5, 6, 9, 5)
        }),
        Case::new("compare and swap of all ones", options, |pair| {
            cas(pair, u64::MAX, u64::MAX, 0, 0);
        }),
        Case::new("fetch and add", options, |pair| faa(pair, 40, 2)),
        Case::new("fetch and add across the end of 64 bits", options, |pair| {
            faa(pair, u64::MAX, 2)
        }),
        Case::new("both directions at once", options, both_directions),
        Case::new("unsignalled requests make no completion", options, unsignalled),
        Case::new("inline bytes may change at once", options, inline_is_copied),
        Case::new("a full queue says so, and has room again", options, full_queue),
        Case::new("more reads than may be under way", one_read(options), many_reads),
        Case::new("a peer that keeps one read", one_read(options), |pair| {
            everything(pair, 3)
        }),
        Case::new("a window of one packet", window(options, 1), |pair| everything(pair, 2)),
        Case::new("a window of three packets", window(options, 3), |pair| {
            everything(pair, 2)
        }),
        Case::new("empty messages behind each other", options, empty_messages),
        Case::new("a receive longer than the message", options, long_receive),
        Case::new("the sequence wraps in a message", wraps(0xff_fffe), |pair| {
            everything(pair, 3)
        }),
        Case::new("the sequence wraps at once", wraps(0xff_ffff), |pair| {
            everything(pair, 3)
        }),
        Case::new("the sequence's sign changes", wraps(0x7f_fffe), |pair| {
            everything(pair, 3)
        }),
        Case::new("the sequence wraps in a read of 1 MiB", wraps(0xff_fff0), |pair| {
            moves(pair, Moves::Read, 1 << 20);
        }),
        Case::new("the sequence wraps in a write of 1 MiB", wraps(0xff_fff0), |pair| {
            moves(pair, Moves::WriteImm, 1 << 20);
        }),
        Case::new("the sequence wraps while packets are lost", wraps(0xff_fff8), |pair| {
            everything(pair, 4)
        })
        .with(rdma::Faults {
            lose_every: 5,
            repeat_every: 7,
            ..Default::default()
        }),
        Case::new("a read of 1 MiB while packets are lost", options, |pair| {
            moves(pair, Moves::Read, 1 << 20)
        })
        .with(rdma::Faults {
            lose_every: 40,
            ..Default::default()
        }),
        Case::new("a write of 1 MiB while packets are lost", options, |pair| {
            moves(pair, Moves::WriteImm, 1 << 20)
        })
        .with(rdma::Faults {
            lose_every: 40,
            ..Default::default()
        }),
        Case::new("a send of 1 MiB by the smallest packets", smallest(options), |pair| {
            moves(pair, Moves::SendImm, 1 << 20);
        }),
    ]
}

fn one_read(options: QpOptions) -> QpOptions {
    QpOptions {
        initiator_reads_max: 1,
        responder_reads_max: 1,
        ..options
    }
}

fn window(options: QpOptions, window_packets: u64) -> QpOptions {
    QpOptions {
        window_packets,
        ..options
    }
}

fn smallest(options: QpOptions) -> QpOptions {
    QpOptions {
        path_mtu: PathMtu::B256,
        ..options
    }
}

fn cas<P: Testable>(pair: &mut Pair<P>, there: u64, compare: u64, swap: u64, after: u64) {
    pair.b.fill(64, &there.to_ne_bytes());
    let operation = Operation::CompareSwap {
        into: pair.a.local(INBOX, 8),
        at: pair.b.remote(64),
        compare,
        swap,
    };
    pair.a.post(1, operation);
    pair.finish(1, 0);
    assert_eq!(success(&pair.a.done[0]).kind, Kind::CompareSwap);
    assert_eq!((pair.a.word(INBOX), pair.b.word(64)), (there, after));
}

fn faa<P: Testable>(pair: &mut Pair<P>, there: u64, add: u64) {
    pair.b.fill(64, &there.to_ne_bytes());
    let operation = Operation::FetchAdd {
        into: pair.a.local(INBOX, 8),
        at: pair.b.remote(64),
        add,
    };
    pair.a.post(1, operation);
    pair.finish(1, 0);
    assert_eq!(success(&pair.a.done[0]).kind, Kind::FetchAdd);
    assert_eq!((pair.a.word(INBOX), pair.b.word(64)), (there, there.wrapping_add(add)));
}

fn both_directions<P: Testable>(pair: &mut Pair<P>) {
    let len = 3000;
    pair.a.fill(0, &pattern(len, 1));
    pair.b.fill(0, &pattern(len, 2));
    for id in 0..8u64 {
        let at = INBOX + 4096 * id;
        let (to_b, to_a) = (pair.b.remote(at), pair.a.remote(at));
        let (data_a, data_b) = (from(pair.a.local(0, len as u32)), from(pair.b.local(0, len as u32)));
        let write = |data, to| Operation::Write { data, to, imm: None };
        pair.a.post(id, write(data_a, to_b));
        pair.b.post(id, write(data_b, to_a));
    }
    pair.finish(8, 8);
    for id in 0..8 {
        assert!(pair.b.bytes(INBOX + 4096 * id, len) == pattern(len, 1));
        assert!(pair.a.bytes(INBOX + 4096 * id, len) == pattern(len, 2));
        assert_eq!(success(&pair.a.done[id as usize]).wr_id, WrId(id));
        assert_eq!(success(&pair.b.done[id as usize]).wr_id, WrId(id));
    }
}

fn unsignalled<P: Testable>(pair: &mut Pair<P>) {
    for round in 0..6u64 {
        for id in 0..20u64 {
            let bytes = (100 * round + id).to_ne_bytes();
            let request = SendRequest {
                wr_id: WrId(100 * round + id),
                operation: Operation::Write {
                    data: Data::Inline(&bytes),
                    to: pair.b.remote(8 * id),
                    imm: None,
                },
                signalled: id % 10 == 9,
            };
            let qp = pair.a.qp.as_ref().expect("connected");
            pair.a
                .device
                .post_send(qp, &request)
                .expect("unsignalled requests leave room, too");
        }
        pair.finish(2 * (round as usize + 1), 0);
    }
    pair.settle();
    let ids: Vec<u64> = pair.a.done.iter().map(|done| success(done).wr_id.0).collect();
    assert_eq!(ids, [9, 19, 109, 119, 209, 219, 309, 319, 409, 419, 509, 519]);
    assert_eq!(pair.b.word(8 * 19), 519);
}

fn inline_is_copied<P: Testable>(pair: &mut Pair<P>) {
    let mut bytes = [1u8; 64];
    for id in 0..4u8 {
        bytes.fill(id);
        let to = pair.b.remote(64 * u64::from(id));
        let data = Data::Inline(&bytes);
        pair.a.post(id.into(), Operation::Write { data, to, imm: None });
    }
    bytes.fill(99);
    pair.finish(4, 0);
    for id in 0..4u8 {
        assert_eq!(pair.b.bytes(64 * u64::from(id), 64), [id; 64]);
    }
}

fn full_queue<P: Testable>(pair: &mut Pair<P>) {
    let requests_max = pair.options.send_requests_max;
    let write = Operation::Write {
        data: Data::Inline(b"x"),
        to: pair.b.remote(0),
        imm: None,
    };
    for id in 0..requests_max as u64 {
        pair.a.post(id, write);
    }
    assert_eq!(pair.a.try_post(999, write), Err(PostError::Full));
    pair.finish(requests_max, 0);
    pair.a.post(1000, write);
    pair.finish(requests_max + 1, 0);
    let receives_max = pair.options.receive_requests_max;
    let request = |id| rdma::ReceiveRequest {
        wr_id: WrId(id),
        into: Local::EMPTY,
    };
    let qp = pair.b.qp.as_ref().expect("connected");
    for id in 0..receives_max as u64 {
        pair.b.device.post_receive(qp, request(id)).expect("there is room");
    }
    assert_eq!(pair.b.device.post_receive(qp, request(999)), Err(PostError::Full));
}

fn many_reads<P: Testable>(pair: &mut Pair<P>) {
    let bytes = pattern(40_000, 3);
    pair.b.fill(0, &bytes);
    for id in 0..20u64 {
        let read = Operation::Read {
            into: pair.a.local(INBOX + 2000 * id, 2000),
            from: pair.b.remote(2000 * id),
        };
        pair.a.post(id, read);
    }
    pair.finish(20, 0);
    assert!(pair.a.bytes(INBOX, 40_000) == bytes);
    let ids: Vec<u64> = pair.a.done.iter().map(|done| success(done).wr_id.0).collect();
    assert_eq!(ids, Vec::from_iter(0..20));
}

fn empty_messages<P: Testable>(pair: &mut Pair<P>) {
    for id in 0..10 {
        pair.b.receive(id, Local::EMPTY);
        let data = Data::Inline(&[]);
        let imm = Some(id as u32);
        pair.a.post(id, Operation::Send { data, imm });
    }
    pair.finish(10, 10);
    for id in 0..10 {
        let received = success(&pair.b.done[id]);
        assert_eq!((received.len_bytes, received.imm), (0, Some(id as u32)));
    }
}

fn long_receive<P: Testable>(pair: &mut Pair<P>) {
    pair.b.fill(INBOX, &[9; 5000]);
    pair.a.fill(0, &pattern(3000, 4));
    let into = pair.b.local(INBOX, 5000);
    pair.b.receive(1, into);
    let data = from(pair.a.local(0, 3000));
    pair.a.post(1, Operation::Send { data, imm: None });
    pair.finish(1, 1);
    assert_eq!(success(&pair.b.done[0]).len_bytes, 3000);
    assert!(pair.b.bytes(INBOX, 3000) == pattern(3000, 4));
    assert_eq!(pair.b.bytes(INBOX + 3000, 2000), [9; 2000]);
}
