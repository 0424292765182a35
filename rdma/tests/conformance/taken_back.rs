//! Cases of a send that takes a key back. The window is `b`'s, bound through the connection to `a`, who sends.

use dataplane_waist::WrId;
use rdma::{
    Access, BindError, CompletionError, Data, Kind, Local, MemoryKey, Operation, PostError, QpOptions, Refusal,
};

use crate::{
    cases::Case,
    failures::{Try, counted},
    pair::{INBOX, Pair, Testable, from, pattern},
    windows::{BEGIN, FIRST, Opened, bad_wires},
};

pub fn cases<P: Testable + 'static>(options: QpOptions) -> Vec<Case<P>> {
    let mtu = options.path_mtu.bytes();
    let mut cases = Vec::new();
    for len in [0, 1, mtu, mtu + 1, 9000] {
        cases.push(Case::new(
            format!("a send of {len} bytes takes a window's key back"),
            options,
            move |pair| taken_back(pair, len),
        ));
    }
    let rounds = "a window is written, taken back and bound again";
    cases.push(Case::new(rounds, options, many_rounds));
    for (name, faults) in bad_wires() {
        cases.push(Case::new(format!("{rounds}, {name}"), options, many_rounds).with(faults));
    }
    cases.extend([
        Case::new("a send that takes a key back waits for a receive", options, not_ready),
        Case::new("a send that takes back a key that is none", options, |pair| {
            let key = MemoryKey(!pair.b.region.key.0);
            refused(pair, key, Refusal::UnknownKey);
        }),
        Case::new(
            "a send that takes back a region's key",
            options,
            |pair: &mut Pair<P>| {
                let key = pair.b.region.key;
                refused(pair, key, Refusal::Access);
                assert!(pair.b.device.deregister(key), "the region is its owner's to close");
            },
        ),
        // Linux 6.12's rdma_rxe asks neither whose window it is nor, which is worse, whether it is bound (rxe_mw.c, `rxe_invalidate_mw`): the kernel
        // follows a null pointer then. So these two are for software alone.
        Case::new("a send that takes a key back twice", options, twice).in_software(),
        Case::new(
            "a send that takes back the key of another connection's window",
            options,
            another_connection_s,
        )
        .in_software(),
    ]);
    cases
}

fn send(data: Data<'_>, key: MemoryKey) -> Operation<'_> {
    Operation::SendInvalidate { data, rkey: key.0 }
}

fn taken_back<P: Testable>(pair: &mut Pair<P>, len: usize) {
    let Some(opened) = Opened::bound(pair, Access::ALL) else {
        return;
    };
    let key = opened.window.key(FIRST);
    let bytes = pattern(len, 3);
    pair.a.fill(0, &bytes);
    let into = pair.b.local(INBOX, len as u32);
    pair.b.receive(7, into);
    // The write comes before it, and is done before the key is taken back.
    let (data, to) = (Data::Inline(&[0x5a; 8]), opened.at(FIRST, BEGIN));
    pair.a.post(1, Operation::Write { data, to, imm: None });
    let data = from(pair.a.local(0, len as u32));
    pair.a.post(2, send(data, key));
    pair.finish(2, 1);
    let sent = pair.a.done.pop().expect("two have finished");
    assert_eq!(
        (sent.wr_id, sent.kind, sent.len_bytes, sent.result),
        (WrId(2), Kind::Send, len as u32, Ok(()))
    );
    assert_eq!(
        (sent.imm, sent.invalidated),
        (None, None),
        "it is the receiver who is told"
    );
    let received = pair.b.done.pop().expect("one has finished");
    assert_eq!(
        (received.wr_id, received.kind, received.len_bytes, received.result),
        (WrId(7), Kind::Receive, len as u32, Ok(()))
    );
    assert_eq!((received.imm, received.invalidated), (None, Some(key)));
    assert!(pair.b.bytes(INBOX, len) == bytes);
    assert_eq!(opened.bytes(BEGIN, 8), [0x5a; 8]);
    pair.a.done.clear();
    // It can be bound again, and the old key stays shut.
    opened.bind(pair, FIRST + 1, Access::ALL);
    opened.is_written(pair, FIRST + 1, 9);
    let at = opened.at(FIRST, BEGIN);
    pair.b.fill(INBOX, &vec![0; len]);
    opened.stays_shut(pair, Try::Write, at, Refusal::UnknownKey);
}

fn many_rounds<P: Testable>(pair: &mut Pair<P>) {
    const ROUNDS: u8 = 12;
    let Some(opened) = Opened::new(pair) else {
        return;
    };
    for round in 0..ROUNDS {
        let key = opened.window.key(round);
        opened.bind(pair, round, Access::ALL);
        let len = 3000 * u32::from(round % 3);
        let into = pair.b.local(INBOX, len);
        pair.b.receive(7, into);
        let word = [round + 1; 8];
        let (data, to) = (Data::Inline(&word), opened.at(round, BEGIN));
        pair.a.post(1, Operation::Write { data, to, imm: None });
        let data = from(pair.a.local(0, len));
        pair.a.post(2, send(data, key));
        pair.finish(2, 1);
        assert!(pair.a.done.drain(..).all(|done| done.result == Ok(())));
        let received = pair.b.done.remove(0);
        assert_eq!((received.len_bytes, received.invalidated), (len, Some(key)));
        assert_eq!(opened.bytes(BEGIN, 8), word);
    }
    assert!(pair.b.device.deregister(opened.region.key), "no window is bound to it");
}

fn not_ready<P: Testable>(pair: &mut Pair<P>) {
    let Some(opened) = Opened::bound(pair, Access::ALL) else {
        return;
    };
    let key = opened.window.key(FIRST);
    pair.a.post(1, send(Data::Inline(b"after you"), key));
    pair.settle();
    assert!(pair.a.done.is_empty());
    // It is not taken back before there is a receive for the message.
    let bind = Operation::Bind(opened.request(FIRST + 1, Access::ALL));
    assert_eq!(pair.b.try_post(3, bind), Err(PostError::Bind(BindError::AlreadyBound)));
    let into = pair.b.local(INBOX, 9);
    pair.b.receive(2, into);
    pair.finish(1, 1);
    assert_eq!(pair.a.done[0].result, Ok(()));
    assert_eq!((pair.b.done[0].wr_id, pair.b.done[0].invalidated), (WrId(2), Some(key)));
    assert_eq!(pair.b.bytes(INBOX, 9), b"after you");
}

/// The connection breaks and the receive is empty. A device may have said before that the message has come, as rdma_rxe does (rxe_resp.c,
/// `RESPST_ERR_INVALIDATE_RKEY`); ours says why not.
fn refused<P: Testable>(pair: &mut Pair<P>, key: MemoryKey, refusal: Refusal) {
    let before_count = pair.a.done.len();
    let into = pair.b.local(INBOX, 8);
    pair.b.receive(8, into);
    pair.a.post(9, send(Data::Inline(&[0xEE; 8]), key));
    pair.until("the receive", |pair| {
        !pair.b.done.is_empty() && pair.a.done.len() > before_count
    });
    let received = pair.b.done.pop().expect("one");
    assert!(
        received.result.is_err() && received.invalidated.is_none(),
        "{received:?}"
    );
    assert!(pair.b.is_broken());
    let sent = pair.a.done.pop().map(|done| done.result);
    if !pair.b.device.is_software() {
        eprintln!(
            "{refusal:?}: the sender was told {sent:?}, the receiver {:?}",
            received.result
        );
    } else {
        assert_eq!(sent, Some(Err(CompletionError::RemoteAccess)));
        assert_eq!(pair.b.bytes(INBOX, 8), [0; 8], "it was received all the same");
    }
    let mut expected = [0; Refusal::ALL.len()];
    expected[refusal.index()] = 1;
    if let Some(counters) = counted(&pair.b) {
        assert_eq!(counters.refused_counts, expected, "counted by {refusal:?}");
    }
}

fn twice<P: Testable>(pair: &mut Pair<P>) {
    let Some(opened) = Opened::bound(pair, Access::ALL) else {
        return;
    };
    let key = opened.window.key(FIRST);
    pair.b.receive(1, Local::EMPTY);
    pair.a.post(1, send(Data::Inline(&[]), key));
    pair.finish(1, 1);
    assert_eq!(pair.b.done.pop().and_then(|done| done.invalidated), Some(key));
    refused(pair, key, Refusal::UnknownKey);
}

fn another_connection_s<P: Testable>(pair: &mut Pair<P>) {
    let Some(opened) = Opened::bound(pair, Access::ALL) else {
        return;
    };
    let first = (pair.a.qp.take(), pair.b.qp.take());
    pair.connect();
    refused(pair, opened.window.key(FIRST), Refusal::WrongQp);
    (pair.a.qp, pair.b.qp) = first;
    pair.a.done.clear();
    opened.is_written(pair, FIRST, 7);
}
