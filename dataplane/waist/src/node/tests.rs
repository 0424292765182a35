//! What `Node::turn` promises, held against a log that is slow, forgets nothing and can fail.

use std::os::fd::AsFd;

use proptest::prelude::*;

use super::*;
use crate::{
    Durable, Log, MemoryLog, MonotonicClock, Peer, Recovered, Slot, Snapshot, Term,
    testing::{ManualClock, TestPort},
};

/// Appends every frame and acknowledges it, by its slot, out of `Durable` alone.
#[derive(Debug, Default)]
struct Keeper {
    next: Slot,
    acked_end: Slot,
    /// Where to append next, instead of at the end.
    overwrite: Option<Slot>,
    /// Entries to append out of the next `Durable`.
    append_on_durable_count: u64,
    wake_at: Option<Instant>,
    ticks_count: u64,
}

const CLIENT: Peer = Peer(3);

impl Keeper {
    fn append(&mut self, bytes: &[u8], out: &mut Effects) {
        let slot = self.overwrite.take().unwrap_or(self.next);
        if out.append(slot, Term(1), bytes).is_ok() {
            self.next = Slot(slot.0 + 1);
            self.acked_end = self.acked_end.min(slot);
        }
    }
}

impl Protocol for Keeper {
    fn handle(&mut self, _now: Instant, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Frame { bytes, .. } => self.append(bytes, out),
            Input::Durable(Durable { end, .. }) => {
                for slot in self.acked_end.0..end.0 {
                    out.send(CLIENT, 8, |bytes| bytes.copy_from_slice(&slot.to_be_bytes()))
                        .expect("room for every acknowledgement");
                }
                self.acked_end = end;
                for _ in 0..std::mem::take(&mut self.append_on_durable_count) {
                    self.append(b"later", out);
                }
            }
            Input::Tick => {
                self.ticks_count += 1;
                self.wake_at = None;
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }
}

/// A log whose syncs finish when the test says so, or fail.
#[derive(Debug, Default)]
struct SlowLog {
    inner: MemoryLog,
    appended_end: Slot,
    syncing_end: Slot,
    durable_end: Slot,
    /// What the last `durable` answered: all that anybody may rely on.
    told_end: Slot,
    fail_sync: bool,
    fail_durable: bool,
}

impl SlowLog {
    fn finish(&mut self) {
        self.durable_end = self.syncing_end;
    }
}

impl Log for SlowLog {
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()> {
        self.inner.append(slot, term, payload)?;
        self.appended_end = Slot(slot.0 + 1);
        self.syncing_end = self.syncing_end.min(slot);
        self.durable_end = self.durable_end.min(slot);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        if self.fail_sync {
            return Err(io::Error::other("the device said no"));
        }
        self.syncing_end = self.appended_end;
        Ok(())
    }
    fn set_state(&mut self, state: &[u8]) -> io::Result<()> {
        self.inner.set_state(state)
    }
    fn install(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.inner.install(snapshot)
    }
    fn durable(&mut self) -> io::Result<Durable> {
        if self.fail_durable {
            return Err(io::Error::other("the sync failed"));
        }
        self.told_end = self.durable_end;
        Ok(Durable {
            end: self.durable_end,
            states_count: 0,
        })
    }
    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
        self.inner.recover(visit)
    }
}

fn slow_node() -> Node<TestPort, SlowLog, Keeper> {
    Node::new(TestPort::new(16, 8), SlowLog::default(), Keeper::default(), 8)
}

fn acks<L>(node: &mut Node<TestPort, L, Keeper>) -> Vec<u64> {
    let frames = node.port.drain_tx().into_iter();
    frames
        .map(|(to, bytes)| {
            assert_eq!(to, CLIENT);
            u64::from_be_bytes(bytes.try_into().expect("an acknowledgement is a slot"))
        })
        .collect()
}

fn turn<L: Log>(node: &mut Node<TestPort, L, Keeper>) -> usize {
    node.turn(Instant::ZERO).expect("nothing fails in this test")
}

#[test]
fn nothing_is_acknowledged_before_the_log_is_durable() {
    let mut node = slow_node();
    node.port.put_rx(CLIENT, b"a");
    assert_eq!(turn(&mut node), 1);
    assert_eq!(turn(&mut node), 0);
    assert_eq!(acks(&mut node), []);
    node.log.finish();
    turn(&mut node);
    assert_eq!(acks(&mut node), [0]);
    turn(&mut node);
    assert_eq!(acks(&mut node), [], "once is enough");
}

#[test]
fn a_failed_sync_ends_the_node_without_an_acknowledgement() {
    for early in [true, false] {
        let mut node = slow_node();
        node.port.put_rx(CLIENT, b"a");
        node.log.fail_sync = early;
        node.log.fail_durable = !early;
        let error = node.turn(Instant::ZERO).expect_err("the log fails");
        assert_eq!(error.kind(), io::ErrorKind::Other);
        assert_eq!(acks(&mut node), []);
    }
}

#[test]
fn a_protocol_that_leaves_a_gap_is_told_by_the_log() {
    let mut node = slow_node();
    node.protocol.overwrite = Some(Slot(5));
    node.port.put_rx(CLIENT, b"a");
    let error = node.turn(Instant::ZERO).expect_err("a gap");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn an_overwritten_slot_is_acknowledged_again() {
    // The log's end is 1 before and after, so the end alone does not tell that anything happened.
    let mut node = Node::new(TestPort::new(16, 8), MemoryLog::new(), Keeper::default(), 8);
    node.port.put_rx(CLIENT, b"a");
    turn(&mut node);
    assert_eq!(acks(&mut node), [0]);
    node.protocol.overwrite = Some(Slot(0));
    node.port.put_rx(CLIENT, b"b");
    turn(&mut node);
    assert_eq!(acks(&mut node), [0]);
}

#[test]
fn what_is_appended_out_of_durable_is_kept_and_acknowledged_in_the_next_turn() {
    let mut node = Node::new(TestPort::new(16, 8), MemoryLog::new(), Keeper::default(), 8);
    node.protocol.append_on_durable_count = 2;
    node.port.put_rx(CLIENT, b"a");
    turn(&mut node);
    assert_eq!(acks(&mut node), [0]);
    turn(&mut node);
    assert_eq!(acks(&mut node), [1, 2]);
}

#[test]
fn more_answers_than_one_batch_are_flushed_in_between_and_a_full_peer_is_counted() {
    // A batch of 2, a peer with room for 8: of 11 acknowledgements in one turn 8 arrive.
    let mut node = Node::new(TestPort::new(16, 2), SlowLog::default(), Keeper::default(), 8);
    for _ in 0..11 {
        node.port.put_rx(CLIENT, b"a");
        turn(&mut node);
    }
    node.log.finish();
    turn(&mut node);
    assert_eq!(acks(&mut node), (0..8).collect::<Vec<_>>());
    let stats = node.stats();
    assert_eq!(stats.port.tx_frames_count, 8);
    assert_eq!(stats.port.tx_dropped_count + stats.unsent_count, 3, "{stats:?}");
}

/// Sends frames that no port takes, or more of them than there is room for.
struct Careless {
    len_bytes: usize,
    frames_count: usize,
}

impl Protocol for Careless {
    fn handle(&mut self, _now: Instant, input: Input<'_>, out: &mut Effects) {
        if let Input::Frame { from, .. } = input {
            for _ in 0..self.frames_count {
                let _ = out.send(from, self.len_bytes, |bytes| bytes.fill(1));
            }
        }
    }
    fn wake_at(&self) -> Option<Instant> {
        None
    }
}

#[test]
fn frames_that_the_port_cannot_carry_are_counted() {
    let protocol = Careless {
        len_bytes: 17,
        frames_count: 1,
    };
    let mut node = Node::new(TestPort::new(16, 1), MemoryLog::new(), protocol, 1);
    node.port.put_rx(CLIENT, b"a");
    node.turn(Instant::ZERO).expect("loss is no error");
    assert_eq!(node.stats().unsent_count, 1);
    assert_eq!(node.port.drain_tx(), []);
}

#[test]
fn effects_beyond_the_bound_are_refused_and_counted() {
    let protocol = Careless {
        len_bytes: 1,
        frames_count: 5,
    };
    // One frame in a batch, so room for three inputs with one effect each.
    let mut node = Node::new(TestPort::new(16, 1), MemoryLog::new(), protocol, 1);
    for turns_count in 1..=3 {
        node.port.put_rx(CLIENT, b"a");
        node.turn(Instant::ZERO).expect("loss is no error");
        assert_eq!(node.stats().refused_count, 2 * turns_count);
        assert_eq!(node.port.drain_tx().len(), 3);
    }
}

#[test]
fn a_tick_comes_when_it_is_due_and_not_before() {
    let mut node = slow_node();
    node.protocol.wake_at = Some(Instant::from_ns(10));
    for (now_ns, ticks_count) in [(9, 0), (10, 1), (11, 1)] {
        node.turn(Instant::from_ns(now_ns)).expect("nothing fails");
        assert_eq!(node.protocol.ticks_count, ticks_count, "at {now_ns} ns");
    }
}

#[test]
fn a_node_rests_until_the_tick_the_sync_or_the_look_around() {
    let clock = ManualClock::new();
    let mut node = slow_node();
    let turns = |node: &mut Node<_, _, _>, count: u32| {
        let mut left_count = count;
        let mut stop = || {
            left_count = left_count.saturating_sub(1);
            left_count == 0
        };
        node.run(&clock, &mut stop).expect("nothing fails");
    };
    turns(&mut node, 2);
    node.protocol.wake_at = Some(Instant::from_ns(5));
    turns(&mut node, 2);
    node.protocol.wake_at = None;
    node.port.put_rx(CLIENT, b"a");
    turns(&mut node, 3);
    assert_eq!(
        node.port.waits(),
        [REST_MAX, Duration::from_nanos(5), REST_MAX, LOOK_AGAIN]
    );
}

#[test]
fn a_full_burst_is_followed_by_a_turn_without_rest() {
    let mut node = slow_node();
    for _ in 0..20 {
        node.port.put_rx(CLIENT, b"a");
    }
    let mut turns_count = 0;
    let mut stop = || {
        turns_count += 1;
        turns_count > 3
    };
    node.run(&MonotonicClock::new(), &mut stop).expect("nothing fails");
    // 8, 8 and 4 frames: one rest before the first.
    assert_eq!(node.stats().port.rx_frames_count, 20);
    assert_eq!(node.port.waits().len(), 1);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Arrive,
    Overwrite(u64),
    Finish,
    AppendOnDurable(u64),
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Arrive),
        1 => (0u64..6).prop_map(Step::Overwrite),
        2 => Just(Step::Finish),
        1 => (0u64..3).prop_map(Step::AppendOnDurable),
        4 => Just(Step::Turn),
    ]
}

proptest! {
    /// However arrivals, overwrites, syncs and turns interleave: an acknowledged slot is durable at that moment, and in
    /// the end every entry is acknowledged.
    #[test]
    fn acknowledged_means_durable(steps in prop::collection::vec(step(), 0..60)) {
        let mut node = slow_node();
        let mut acked_end = 0;
        let tail = [Step::Turn, Step::Finish].repeat(20);
        for step in steps.into_iter().chain(tail) {
            match step {
                Step::Arrive => {
                    node.port.put_rx(CLIENT, b"a");
                }
                Step::Overwrite(slot) => node.protocol.overwrite = Some(node.protocol.next.min(Slot(slot))),
                Step::Finish => node.log.finish(),
                Step::AppendOnDurable(count) => node.protocol.append_on_durable_count = count,
                Step::Turn => {
                    turn(&mut node);
                    for slot in acks(&mut node) {
                        prop_assert!(slot < node.log.told_end.0, "slot {slot}, {:?}", node.log);
                        acked_end = slot + 1;
                    }
                }
            }
        }
        prop_assert_eq!(acked_end, node.protocol.next.0);
        prop_assert_eq!(node.log.durable_end, node.protocol.next);
    }
}

/// A log that says how it tells of its syncs.
struct Ringing {
    inner: SlowLog,
    bell: Option<std::fs::File>,
}

impl Log for Ringing {
    fn append(&mut self, slot: Slot, term: Term, payload: &[u8]) -> io::Result<()> {
        self.inner.append(slot, term, payload)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.inner.sync()
    }
    fn set_state(&mut self, state: &[u8]) -> io::Result<()> {
        self.inner.set_state(state)
    }
    fn install(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        self.inner.install(snapshot)
    }
    fn durable(&mut self) -> io::Result<Durable> {
        self.inner.durable()
    }
    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> io::Result<Slot> {
        self.inner.recover(visit)
    }
    fn news(&mut self) -> News<'_> {
        match &self.bell {
            _ if self.inner.durable_end > self.inner.told_end => News::Come,
            Some(bell) => News::Rings(bell.as_fd()),
            None => News::Unannounced,
        }
    }
}

/// Turns `times` times with a rest before each; what the log is told before each is `before`'s affair.
fn rests(node: &mut Node<TestPort, Ringing, Keeper>, times: u32, before: impl Fn(u32, &mut SlowLog)) {
    let mut turns_count = 0;
    let clock = ManualClock::new();
    while turns_count < times {
        before(turns_count, &mut node.log.inner);
        let mut is_first = true;
        node.run(&clock, &mut || !std::mem::take(&mut is_first))
            .expect("nothing fails");
        turns_count += 1;
    }
}

#[test]
fn a_node_rests_on_its_log_as_well_while_something_is_under_way() {
    for has_bell in [true, false] {
        let log = Ringing {
            inner: SlowLog::default(),
            bell: has_bell.then(|| std::fs::File::open("/dev/null").expect("it is everywhere")),
        };
        let mut node = Node::new(TestPort::new(16, 8), log, Keeper::default(), 8);
        node.port.put_rx(CLIENT, b"a");
        // Nothing is written before the first turn; then a sync is under way; before the fourth it is over.
        rests(&mut node, 5, |turn, log| {
            if turn == 3 {
                log.finish();
            }
        });
        assert_eq!(acks(&mut node), [0]);
        let waits = node.port.waits().to_vec();
        assert_eq!(waits.len(), 4, "there was news before the fourth turn: {waits:?}");
        assert_eq!([waits[0], waits[3]], [REST_MAX; 2], "nothing is under way");
        let (rest, bells_count) = match has_bell {
            true => (REST_MAX, 2),
            false => (LOOK_AGAIN, 0),
        };
        assert_eq!(waits[1..3], [rest; 2]);
        assert_eq!(node.port.bells_count, bells_count);
    }
}
